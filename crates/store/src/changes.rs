//! The change feed: what was committed, read from any position that the log still has.
//!
//! A reader keeps the position that it got last and asks again from there; positions are durable, so it may stop, and the node may restart,
//! in between. How far back it can go is an option ([`Options::log_keep_bytes`](crate::Options)).

use arrow::record_batch::RecordBatch;
use entity::{Delta, Instant, Iri};

use crate::history::{BulkRows, BulkRowsError, Erasure};
use crate::log::{LogError, LogReader, Read};
use crate::record::{self, Record, RecordError};
use crate::state::Space;

/// Records in one answer.
pub const CHANGES_MAX: usize = 10_000;
/// Bytes of records in one answer; a single larger record is answered all the same.
const CHANGES_BYTES_MAX: usize = 8 << 20;

/// What one submission changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Position of its record in the log.
    pub position: u64,
    /// When it was recorded: never the same or an earlier time at a later position.
    pub recorded_at: Instant,
    /// Where.
    pub space: Space,
    /// What changed in the present state, entity by entity in the order of the commands.
    pub deltas: Vec<Delta>,
    /// Observations that came as columns, with the type of their entities; `deltas` has only what is new of them.
    pub rows: Option<(Iri, RecordBatch)>,
    /// What was taken out of the history.
    pub erasure: Option<Erasure>,
}

impl Change {
    /// The rows, if observations came as columns.
    ///
    /// Errors: they are not valid, which no store has taken in.
    pub fn bulk_rows(&self) -> Result<Option<BulkRows>, BulkRowsError> {
        let rows = self.rows.as_ref().map(|(t, batch)| BulkRows::new(t.clone(), self.recorded_at, batch.clone()));
        rows.transpose()
    }
}

/// A part of the feed.
#[derive(Clone, Debug, PartialEq)]
pub struct Changes {
    /// The changes, in order, each once.
    pub changes: Vec<Change>,
    /// Where to go on.
    pub next: u64,
    /// The oldest position that can be read.
    pub first: u64,
}

/// Why changes cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    /// The position is not kept any more.
    #[error(
        "changes from position {wanted} are not kept any more; the oldest position is {first}: read the present state, then go on from position {next}"
    )]
    Gone {
        /// What was asked for.
        wanted: u64,
        /// The oldest position kept.
        first: u64,
        /// The position of the next change.
        next: u64,
    },
    /// The position was never written here.
    #[error("position {wanted} is not written yet, the next change will have position {next}: is the position from another node?")]
    Ahead {
        /// What was asked for.
        wanted: u64,
        /// The position of the next change.
        next: u64,
    },
    /// The log cannot be read.
    #[error("cannot read the log")]
    Log(#[source] LogError),
    /// A record cannot be read.
    #[error("cannot read the record at position {position} of the log")]
    Record {
        /// Which one.
        position: u64,
        /// Why.
        #[source]
        source: RecordError,
    },
}

/// At most `limit` records (and [`CHANGES_MAX`]) from `from` on.
pub(crate) fn read(log: &dyn LogReader, from: u64, limit: usize) -> Result<Changes, ChangesError> {
    let next = log.next_position();
    if from > next {
        return Err(ChangesError::Ahead { wanted: from, next });
    }
    let records = log.read(from, Read { records: limit.min(CHANGES_MAX), bytes: CHANGES_BYTES_MAX }).map_err(|e| match e {
        LogError::Gone { wanted, first } => ChangesError::Gone { wanted, first, next },
        other => ChangesError::Log(other),
    })?;
    let changes = records.iter().map(|(position, bytes)| change(*position, bytes)).collect::<Result<Vec<_>, _>>()?;
    let next = changes.last().map_or(from, |c| c.position + 1);
    Ok(Changes { changes, next, first: log.first_position() })
}

fn change(position: u64, bytes: &[u8]) -> Result<Change, ChangesError> {
    let record = record::decode(bytes).map_err(|source| ChangesError::Record { position, source })?;
    let Record { recorded_at, space, deltas, rows, erasure } = record;
    Ok(Change { position, recorded_at, space, deltas, rows, erasure })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Log;
    use crate::log::memory::MemoryLog;

    #[test]
    fn a_position_that_is_gone_or_was_never_there_is_said_so() {
        let mut log = MemoryLog::default();
        let record = |us| record::encode_changes(Space::City, Instant::from_micros(us), &[]);
        log.append(&[record(1), record(2), record(3)]).unwrap();
        log.trim(3, 0).unwrap();
        let reader = log.reader();
        let found = read(reader.as_ref(), 3, 10).unwrap();
        assert_eq!((found.changes.len(), found.next, found.first), (1, 4, 3));
        assert_eq!(read(reader.as_ref(), 4, 10).unwrap(), Changes { changes: Vec::new(), next: 4, first: 3 });
        let gone = read(reader.as_ref(), 2, 10).unwrap_err().to_string();
        assert!(gone.contains("position 2 are not kept any more; the oldest position is 3"), "{gone}");
        assert!(matches!(read(reader.as_ref(), 5, 10), Err(ChangesError::Ahead { wanted: 5, next: 4 })));
    }
}
