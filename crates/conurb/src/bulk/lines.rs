//! Entities as JSON lines.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, bail};

use super::import::Job;
use super::progress::Progress;

/// Lines of one piece.
const PIECE_LINES: u64 = 2_000;
/// Bytes of one piece.
const PIECE_BYTES: usize = 8 << 20;
const MEDIA_TYPE: &str = "application/x-ndjson";

/// Sends the lines from `first_line` on; gives the number of lines in all and the values sent.
pub(super) async fn send(job: &Job<'_>, first_line: u64) -> anyhow::Result<(u64, u64)> {
    let file = File::open(job.path).context("cannot open the file")?;
    let bytes_in_all = file.metadata()?.len().max(1);
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut skipped = Vec::new();
    let mut n_bytes = 0;
    let mut line = 0;
    while line < first_line {
        skipped.clear();
        let n = reader.read_until(b'\n', &mut skipped)?;
        if n == 0 {
            bail!("the job has {first_line} lines, the file only {line}: it is another file");
        }
        n_bytes += n as u64;
        line += 1;
    }
    let mut progress = Progress::new(job.path.display().to_string(), first_line);
    let mut n_values = 0;
    loop {
        let from_line = line;
        let mut body = Vec::new();
        let mut ended = false;
        while line - from_line < PIECE_LINES && body.len() < PIECE_BYTES {
            let n = reader.read_until(b'\n', &mut body)?;
            if n == 0 {
                ended = true;
                break;
            }
            n_bytes += n as u64;
            line += 1;
        }
        let values = job.post(MEDIA_TYPE, from_line, ended, body).await?;
        n_values += values;
        progress.at(line, values, Some(n_bytes as f64 / bytes_in_all as f64));
        if ended {
            progress.end(line);
            return Ok((line, n_values));
        }
    }
}

/// Reads everything and says what is there; names mean what the node's default context says.
pub(super) fn check(path: &Path, entity_type: &str) -> anyhow::Result<String> {
    let contexts = ngsi::ContextStore::new(Some(ngsi::context::DEFAULT_USER_CONTEXT_URL), None)?;
    let context = contexts.default_context();
    let wanted = context.expand(entity_type)?;
    let mut reader = BufReader::new(File::open(path).context("cannot open the file")?);
    let (mut line, mut n_entities, mut n_values) = (0u64, 0u64, 0);
    let mut text = Vec::new();
    loop {
        text.clear();
        if reader.read_until(b'\n', &mut text)? == 0 {
            break;
        }
        line += 1;
        if text.trim_ascii().is_empty() {
            continue;
        }
        let entity = ngsi::decode::json(&text).and_then(|v| ngsi::decode::entity(v, context)).with_context(|| format!("line {line}"))?;
        if !entity.types.contains(&wanted) {
            bail!("line {line}: the entity is not of type `{entity_type}`");
        }
        n_entities += 1;
        n_values += entity.attributes.values().map(|i| i.len()).sum::<usize>();
    }
    Ok(serde_json::json!({"file": path, "rows": n_entities, "values": n_values}).to_string())
}
