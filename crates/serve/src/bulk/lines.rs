//! Entities as JSON lines: one NGSI-LD entity per line, any kind of attribute.
//!
//! Each line is what a device would report: attributes that are newer become the present ones, older ones go to the history, and what is
//! known already changes nothing, so that a line may come twice.

use axum::body::Body;
use entity::Command;
use futures::StreamExt;
use ngsi::decode;
use node::{BulkLease, BulkState};

use super::{Import, Progress};
use crate::problem::Problem;

/// Lines that become durable together.
const LINES_PER_BATCH: usize = 1_000;
/// Bytes of lines that become durable together.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Bytes of one line.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Batches after which a job notes how far it is.
const NOTE_BATCHES: u64 = 20;

/// Lines on their way.
#[derive(Default)]
struct Batch {
    commands: Vec<Command>,
    n_bytes: usize,
    n_values: u64,
    /// Lines of the source up to the last one in it, empty ones included.
    next_line: u64,
}

/// Reads the body to its end and makes it durable.
pub(super) async fn take_in(
    import: &Import,
    body: Body,
    progress: &mut Progress,
    mut lease: Option<&mut BulkLease<'_>>,
) -> Result<(), Problem> {
    let done = progress.rows;
    let mut line = import.parameters.from_row;
    let mut batch = Batch { next_line: done, ..Batch::default() };
    let mut n_batches = 0;
    let mut rest: Vec<u8> = Vec::new();
    let mut stream = body.into_data_stream();
    let mut ended = false;
    while !ended {
        match stream.next().await {
            Some(piece) => {
                rest.extend_from_slice(&piece.map_err(|e| Problem::invalid_request(format!("the request broke off: {e}")))?);
            }
            None => {
                ended = true;
                if !rest.is_empty() {
                    rest.push(b'\n');
                }
            }
        }
        let mut from = 0;
        while let Some(length) = rest[from..].iter().position(|b| *b == b'\n') {
            let text = &rest[from..from + length];
            from += length + 1;
            line += 1;
            if line <= done {
                continue;
            }
            let found = if length > LINE_BYTES_MAX { Err(too_long(line)) } else { command(import, text, line) };
            match found {
                Ok(command) => {
                    batch.n_values += command.as_ref().map_or(0, n_values);
                    batch.commands.extend(command);
                    batch.n_bytes += length;
                    batch.next_line = line;
                }
                Err(problem) => {
                    // The lines before the wrong one are good.
                    commit(import, &mut batch, progress).await?;
                    return Err(problem);
                }
            }
            if batch.commands.len() >= LINES_PER_BATCH || batch.n_bytes >= BATCH_BYTES_MAX {
                commit(import, &mut batch, progress).await?;
                n_batches += 1;
                if let Some(lease) = &mut lease
                    && n_batches % NOTE_BATCHES == 0
                {
                    import.app.node.note_bulk_progress(lease, progress.rows, BulkState::Open).await?;
                }
            }
        }
        rest.drain(..from);
        if rest.len() > LINE_BYTES_MAX {
            commit(import, &mut batch, progress).await?;
            return Err(too_long(line + 1));
        }
    }
    commit(import, &mut batch, progress).await
}

fn too_long(line: u64) -> Problem {
    Problem::bad_data(format!("line {line} is longer than the limit of {LINE_BYTES_MAX} bytes"))
}

fn n_values(command: &Command) -> u64 {
    match command {
        Command::Observe(e) => e.attributes.values().map(|instances| instances.len() as u64).sum(),
        _ => 0,
    }
}

/// The entity of a line; none if the line is empty.
fn command(import: &Import, text: &[u8], line: u64) -> Result<Option<Command>, Problem> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Ok(None);
    }
    let at_line = |mut problem: Problem| {
        problem.detail = format!("line {line}: {}", problem.detail);
        problem
    };
    let value = decode::json(text).map_err(|e| at_line(e.into()))?;
    let entity = decode::entity(value, &import.context).map_err(|e| at_line(e.into()))?;
    if !entity.types.contains(&import.entity_type) {
        let found: Vec<_> = entity.types.iter().map(|t| import.context.compact(t)).collect();
        let wanted = import.context.compact(&import.entity_type);
        return Err(Problem::bad_data(format!("line {line}: the entity is of type `{}`, expected `{wanted}`", found.join(", "))));
    }
    Ok(Some(Command::Observe(entity)))
}

async fn commit(import: &Import, batch: &mut Batch, progress: &mut Progress) -> Result<(), Problem> {
    let batch = std::mem::take(batch);
    if !batch.commands.is_empty() {
        let outcomes = import.app.node.write(&import.who, batch.commands).await?;
        for outcome in outcomes {
            outcome?;
        }
    }
    progress.rows = progress.rows.max(batch.next_line);
    progress.values += batch.n_values;
    Ok(())
}
