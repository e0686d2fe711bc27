//! Tables of observations.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use node::{BulkLease, BulkState, Node, NodeError, TakenRows};
use policy::Principal;
use table::{Format, ReadError, Reader, Source};
use tokio::sync::mpsc;

use super::{ARROW_BYTES_MAX, Import, PARQUET_BYTES_MAX, PIECES_WAITING_MAX, Pieces, Progress, pump};
use crate::problem::Problem;

/// Batches that were handed in and are not durable yet: while some are synced the next are decoded.
const COMMITS_MAX: usize = 4;
/// Batches that are decoded and wait.
const DECODED_MAX: usize = 2;
/// How long a batch waits before it is handed in again when too many writes are waiting.
const BUSY_WAIT: Duration = Duration::from_millis(5);
/// Batches after which a job notes how far it is.
const NOTE_BATCHES: u64 = 20;

type Commit = Pin<Box<dyn Future<Output = Result<TakenRows, NodeError>> + Send>>;

/// A batch on its way to the disk.
struct Pending {
    /// Number of the row after its last one.
    next_row: u64,
    n_values: u64,
    commit: Commit,
}

/// Reads the body to its end and makes it durable.
pub(super) async fn take_in(
    import: &Import,
    format: Format,
    body: Body,
    progress: &mut Progress,
    mut lease: Option<&mut BulkLease<'_>>,
) -> Result<(), Problem> {
    let first_row = progress.rows;
    let (sender, mut decoded) = mpsc::channel(DECODED_MAX);
    let (pieces, inbox) = mpsc::channel(PIECES_WAITING_MAX);
    let (source, pumped) = match format {
        Format::Csv => {
            let pumped = tokio::spawn(pump(body, pieces));
            (Source::csv(Pieces { inbox, current: axum::body::Bytes::new() }), Some(pumped))
        }
        Format::Arrow => (Source::arrow(collect(body, ARROW_BYTES_MAX).await?.into())?, None),
        Format::Parquet => (Source::parquet(collect(body, PARQUET_BYTES_MAX).await?)?, None),
    };
    let decoder = Decoder { node: Arc::clone(&import.app.node), who: import.who.clone(), entity_type: import.entity_type.clone() };
    let (layout, context) = (import.parameters.layout.clone(), Arc::clone(&import.context));
    let (from_row, skip_rows) = (import.parameters.from_row, first_row - import.parameters.from_row);
    let reading = tokio::task::spawn_blocking(move || {
        let name = |name: &str| context.expand(name).map(|iri| iri.to_string()).map_err(|e| e.to_string());
        match Reader::open(source, layout, &name, skip_rows) {
            Ok(reader) => decoder.run(reader, from_row, &sender),
            // Nobody wants it any more if this fails.
            Err(e) => drop(sender.blocking_send(Err(e.into()))),
        }
    });
    let mut waiting: VecDeque<Pending> = VecDeque::new();
    let mut result = Ok(());
    let mut n_batches = 0;
    loop {
        // Full, or at the end: the oldest first.
        let next = if waiting.len() >= COMMITS_MAX { None } else { decoded.recv().await };
        match next {
            Some(Ok(pending)) if result.is_ok() => waiting.push_back(pending),
            Some(Err(problem)) if result.is_ok() => result = Err(problem),
            Some(_) => {}
            None => {
                let Some(pending) = waiting.pop_front() else { break };
                match pending.commit.await {
                    Ok(_) if result.is_ok() || pending.next_row > progress.rows => {
                        progress.rows = pending.next_row;
                        progress.values += pending.n_values;
                        n_batches += 1;
                        if let Some(lease) = &mut lease
                            && n_batches % NOTE_BATCHES == 0
                        {
                            import.app.node.note_bulk_progress(lease, progress.rows, BulkState::Open).await?;
                        }
                    }
                    Ok(_) => {}
                    Err(e) => {
                        // What follows may be in or not; it does not count, and comes again.
                        result = Err(Problem::from(e));
                        waiting.clear();
                        decoded.close();
                    }
                }
            }
        }
    }
    if let Some(pumped) = pumped {
        pumped.abort();
    }
    if reading.await.is_err() {
        result = result.and(Err(Problem::bad_data("the table is damaged in a way that its reader cannot handle")));
    }
    result
}

/// Reads and hands in, on a thread of its own.
struct Decoder {
    node: Arc<Node>,
    who: Principal,
    entity_type: entity::Iri,
}

impl Decoder {
    fn run(&self, reader: Reader, from_row: u64, sender: &mpsc::Sender<Result<Pending, Problem>>) {
        for rows in reader {
            let pending = rows.map_err(Problem::from).and_then(|rows| {
                let n_values: usize = rows.batch.columns().iter().skip(2).map(|c| c.len() - c.null_count()).sum();
                let next_row = from_row + rows.first_row + rows.batch.num_rows() as u64;
                Ok(Pending { next_row, n_values: n_values as u64, commit: self.hand_in(&rows.batch)? })
            });
            let failed = pending.is_err();
            if sender.blocking_send(pending).is_err() || failed {
                return;
            }
        }
    }

    fn hand_in(&self, batch: &table::RecordBatch) -> Result<Commit, Problem> {
        loop {
            match self.node.observe_rows(&self.who, &self.entity_type, batch.clone()) {
                Ok(commit) => return Ok(Box::pin(commit)),
                // Not reading on is the back-pressure.
                Err(e) if e.is_busy() => std::thread::sleep(BUSY_WAIT),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

async fn collect(body: Body, limit_bytes: usize) -> Result<axum::body::Bytes, Problem> {
    axum::body::to_bytes(body, limit_bytes).await.map_err(|e| {
        let detail = format!("the body cannot be read, or is larger than the limit of {limit_bytes} bytes for this format: {e}");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "TooManyResults", detail)
    })
}

impl From<ReadError> for Problem {
    fn from(e: ReadError) -> Self {
        let text = crate::chain(&e);
        match e {
            ReadError::Limit { .. } => Self::new(StatusCode::FORBIDDEN, "TooManyResults", text),
            _ => Self::bad_data(text),
        }
    }
}
