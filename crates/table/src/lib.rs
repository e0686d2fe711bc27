//! Tables as files: CSV, Parquet and Arrow IPC streams, in and out, in batches of bounded size.
//!
//! * [`Reader`]: rows of observations from one of the three [`Format`]s, typed, checked, as batches of at most [`BATCH_ROWS_MAX`] rows.
//!   Its [`Layout`] says which columns hold ids and times and what the others are called.
//! * [`Writer`]: batches to the same formats; [`HistoryExport`] and [`LatestExport`] write what a node has with it.
//!
//! A batch has the columns `entity_id` (Utf8), `observed_at` (Timestamp µs UTC), then one column per attribute, `Float64`, `Boolean` or `Utf8`,
//! null where the row has no value; the unit code is in the field's metadata under [`UNIT_CODE`].
//!
//! Rows are counted from 1 in messages (a CSV header is not a row), and from 0 in numbers for programs.
//!
//! **Invariant:** pure. Bytes come from and go to what the caller hands in.
//! **Invariant:** no input makes a reader panic or reserve more memory than a few times its size.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

mod arrow_stream;
mod csv_rows;
mod export;
mod layout;
mod read;
#[cfg(test)]
mod tests;
mod time;
mod write;

pub use arrow::record_batch::RecordBatch;
pub use export::{Cell, ColumnType, ExportColumn, HistoryExport, LatestExport};
pub use layout::Layout;
pub use read::{ReadError, Reader, Rows, Source};
pub use time::UtcOffset;
pub use write::{WriteError, Writer};

/// Rows of one batch.
pub const BATCH_ROWS_MAX: usize = 10_000;
/// Columns of a table.
pub const COLUMNS_MAX: usize = 1_024;
/// Characters of a value that a message quotes.
const QUOTED_CHARS_MAX: usize = 40;
/// Bytes of one CSV field.
pub const FIELD_BYTES_MAX: usize = 64 << 10;
/// Metadata key of a column's unit code (UN/CEFACT).
pub const UNIT_CODE: &str = "unit_code";
/// Column of the entities' ids in a batch.
pub const ENTITY_ID: &str = "entity_id";
/// Column of the observed times in a batch.
pub const OBSERVED_AT: &str = "observed_at";
/// Column of a file that names the instance; rows of observations speak of the default instance only.
pub const DATASET_ID: &str = "datasetId";

/// How a table is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Comma-separated values in UTF-8 with a header line (RFC 4180).
    Csv,
    /// Apache Parquet.
    Parquet,
    /// Apache Arrow IPC stream.
    Arrow,
}

impl Format {
    /// The format of a media type.
    #[must_use]
    pub fn of_media_type(media_type: &str) -> Option<Self> {
        match media_type {
            "text/csv" => Some(Self::Csv),
            "application/vnd.apache.parquet" | "application/x-parquet" => Some(Self::Parquet),
            "application/vnd.apache.arrow.stream" => Some(Self::Arrow),
            _ => None,
        }
    }

    /// Its media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv",
            Self::Parquet => "application/vnd.apache.parquet",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }

    /// The format of a file by its name's ending.
    #[must_use]
    pub fn of_extension(extension: &str) -> Option<Self> {
        match extension.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "parquet" => Some(Self::Parquet),
            "arrow" | "arrows" => Some(Self::Arrow),
            _ => None,
        }
    }
}

/// The beginning of a text from outside, for a message.
fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_CHARS_MAX).collect()
}
