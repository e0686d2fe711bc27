//! Tables of observations.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use table::{ENTITY_ID, Format, Layout, OBSERVED_AT, ReadError, Reader, RecordBatch, Rows, Source, Writer};

use super::FileFormat;
use super::import::Job;
use super::progress::Progress;

/// Rows of one piece: some seconds of work at most, so that an interruption costs little.
const PIECE_ROWS: usize = 50_000;
/// Bytes of one piece, well below what the node takes at once.
const PIECE_BYTES: usize = 16 << 20;

/// A file that counts what is read of it.
struct Counted {
    file: File,
    n_bytes: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.n_bytes.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// Rows of a file, and how far reading is.
struct Input {
    reader: Reader,
    n_rows: Option<u64>,
    n_bytes: Arc<AtomicU64>,
    bytes_in_all: u64,
}

impl Input {
    fn open(path: &Path, format: FileFormat, layout: Layout, skip_rows: u64) -> anyhow::Result<Self> {
        let file = File::open(path).context("cannot open the file")?;
        let bytes_in_all = file.metadata()?.len();
        let n_bytes = Arc::new(AtomicU64::new(0));
        let source = match format {
            FileFormat::Parquet => Source::parquet(file)?,
            _ => Source::csv(Counted { file, n_bytes: Arc::clone(&n_bytes) }),
        };
        let n_rows = source.n_rows();
        // The node knows what the names mean; here they stay short.
        let reader = Reader::open(source, layout, &|name| Ok(name.to_owned()), skip_rows)?;
        Ok(Self { reader, n_rows, n_bytes, bytes_in_all })
    }

    /// How much of the file lies before row `rows`.
    fn share(&self, rows: u64) -> Option<f64> {
        match self.n_rows {
            Some(n) => Some(rows as f64 / n.max(1) as f64),
            None => Some(self.n_bytes.load(Ordering::Relaxed) as f64 / self.bytes_in_all.max(1) as f64),
        }
        .map(|s| s.min(1.0))
    }
}

/// Some batches as an Arrow stream.
struct Piece {
    from_row: u64,
    next_row: u64,
    body: Vec<u8>,
}

/// What was read of the file and is not in a piece yet: rows with other columns, or the fault that ends it.
type Carried = Option<Result<Rows, ReadError>>;

/// The next piece; batches whose columns have changed begin another one, and a fault comes after what is good before it.
fn piece(input: &mut Input, carried: &mut Carried) -> anyhow::Result<Option<Piece>> {
    let Some(first) = carried.take().or_else(|| input.reader.next()).transpose()? else { return Ok(None) };
    let schema = first.batch.schema();
    let mut writer = Writer::named(Format::Arrow, &schema, |name| match name {
        ENTITY_ID => "id",
        OBSERVED_AT => "observedAt",
        other => other,
    })?;
    let mut piece = Piece { from_row: first.first_row, next_row: first.first_row, body: Vec::new() };
    let mut add = |batch: &RecordBatch, piece: &mut Piece| -> anyhow::Result<()> {
        writer.write(batch)?;
        piece.next_row += batch.num_rows() as u64;
        piece.body.extend(writer.take()?);
        Ok(())
    };
    add(&first.batch, &mut piece)?;
    while ((piece.next_row - piece.from_row) as usize) < PIECE_ROWS && piece.body.len() < PIECE_BYTES {
        match input.reader.next() {
            None => break,
            Some(Ok(rows)) if rows.batch.schema() == schema => add(&rows.batch, &mut piece)?,
            other => {
                *carried = other;
                break;
            }
        }
    }
    piece.body.extend(writer.finish()?);
    Ok(Some(piece))
}

/// Sends the rows from `first_row` on; gives the number of rows in all and the values sent.
pub(super) async fn send(job: &Job<'_>, first_row: u64) -> anyhow::Result<(u64, u64)> {
    let mut input = Input::open(job.path, job.format, job.options.layout(), first_row)?;
    let mut progress = Progress::new(job.path.display().to_string(), first_row);
    let mut carried = None;
    let (mut rows, mut n_values) = (first_row, 0);
    let mut current = piece(&mut input, &mut carried)?;
    while let Some(now) = current {
        // The next one is made while the node works; it also says whether this one is the last.
        let share = input.share(now.next_row);
        let (next, is_last) = if input.n_rows.is_some_and(|n| now.next_row >= n) {
            (None, true)
        } else {
            // A fault further down must not keep back what is good before it.
            match piece(&mut input, &mut carried) {
                Ok(next) => {
                    let is_last = next.is_none();
                    (next, is_last)
                }
                Err(e) => {
                    job.post(Format::Arrow.media_type(), now.from_row, false, now.body).await?;
                    return Err(e.context(format!("the {} rows before are in", now.next_row)));
                }
            }
        };
        let values = job.post(Format::Arrow.media_type(), now.from_row, is_last, now.body).await?;
        rows = now.next_row;
        n_values += values;
        progress.at(rows, values, share);
        current = next;
    }
    if rows == first_row {
        // Everything was in, only not said to be complete: a table without rows says it.
        job.post(Format::Csv.media_type(), rows, true, b"id,observedAt,value\n".to_vec()).await?;
    }
    progress.end(rows);
    Ok((rows, n_values))
}

/// Reads everything and says what is there.
pub(super) fn check(path: &Path, format: FileFormat, layout: Layout) -> anyhow::Result<String> {
    let mut input = Input::open(path, format, layout, 0)?;
    let (mut n_rows, mut n_values) = (0, 0);
    let mut columns: Vec<(String, String, usize)> = Vec::new();
    for rows in &mut input.reader {
        let rows = rows?;
        n_rows += rows.batch.num_rows();
        for (field, column) in rows.batch.schema().fields().iter().zip(rows.batch.columns()).skip(2) {
            let n = column.len() - column.null_count();
            n_values += n;
            match columns.iter_mut().find(|(name, ..)| name == field.name()) {
                Some((.., count)) => *count += n,
                None => columns.push((field.name().clone(), field.data_type().to_string(), n)),
            }
        }
    }
    let columns: Vec<_> = columns.iter().map(|(name, kind, n)| serde_json::json!({"attribute": name, "type": kind, "values": n})).collect();
    Ok(serde_json::json!({"file": path, "rows": n_rows, "values": n_values, "attributes": columns}).to_string())
}
