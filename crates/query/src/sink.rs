//! Where rows that are written through SQL go.

use arrow::record_batch::RecordBatch;
use entity::Iri;
use futures::future::BoxFuture;

/// Takes observations in batches: the only way in which anything is written by this crate.
///
/// What may be written, and by whom, is decided behind it.
pub trait Sink: Send + Sync {
    /// Records rows of one type. It completes when all of them are durable, and gives their number; on an error none of them is applied.
    ///
    /// Columns: `entity_id` (text, an IRI, not null), `observed_at` (microseconds, UTC, not null), then attributes named by their full IRI, each a
    /// number (Float64), a truth value or a text; null is no value. A unit code may be in a field's metadata as `unit_code`.
    fn append<'s>(&'s self, entity_type: &'s Iri, rows: RecordBatch) -> Appending<'s>;
}

/// Rows on their way to the disk.
pub type Appending<'s> = BoxFuture<'s, Result<u64, SinkError>>;

/// Why rows are not recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// The principal may not write this.
    #[error("not allowed: {reason}")]
    Denied {
        /// Why.
        reason: String,
    },
    /// A value is wrong.
    #[error("{reason}")]
    Invalid {
        /// The row of the batch, from 0, if it is one.
        row: Option<usize>,
        /// The column, if it is one.
        column: Option<String>,
        /// What is wrong.
        reason: String,
    },
    /// Nothing can be written now: the node is read-only, its disk is full, or it is stopping.
    #[error("nothing can be written now: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
}
