//! Order and durability.
//!
//! A log is a sequence of records at positions 1, 2, 3, ...; records are appended in batches, and a batch is durable as a whole or not
//! there at all. Engines: [`file::FileLog`] (the embedded default) and [`memory::MemoryLog`] (for tests).

pub mod file;
pub mod memory;

#[cfg(test)]
mod contract;

use std::path::PathBuf;

/// Why the log cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk is full: nothing of the batch is kept, and the log goes on as soon as there is room.
    #[error("the disk is full: cannot write to log segment `{path}`")]
    Full {
        /// Which file.
        path: PathBuf,
    },
    /// Reading or writing failed; the log stops, since what is on disk is not known any more.
    #[error("cannot {action} log segment `{path}`")]
    Io {
        /// `read`, `write`, `sync`, ...
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An earlier write or sync failed.
    #[error("the log has stopped after a failed write or sync; restart the node once the disk is sound")]
    Stopped,
    /// Damage that no crash explains.
    #[error("log segment `{path}` is damaged at byte {at_byte}: {reason}; restore it from a backup")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where.
        at_byte: u64,
        /// What is wrong.
        reason: String,
    },
    /// A batch or record above the limit.
    #[error("a batch of {found_bytes} bytes is larger than the log's limit of {limit_bytes}")]
    TooLarge {
        /// Its size.
        found_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// The reader of the records gave up.
    #[error("cannot replay the log at position {position}")]
    Replay {
        /// Which record.
        position: u64,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What a replay calls for each record: its position and its bytes.
pub type Visitor<'a> = &'a mut dyn FnMut(u64, &[u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// A log. One writer.
pub trait Log: Send {
    /// Appends records as one batch and returns the position of the first; durable when it returns.
    fn append(&mut self, records: &[Vec<u8>]) -> Result<u64, LogError>;

    /// The position of the oldest record that is kept; that of the next one if there is none.
    fn first_position(&self) -> u64;

    /// The position that the next record will have.
    fn next_position(&self) -> u64;

    /// Visits the records from position `from` on, in order.
    fn replay(&mut self, from: u64, visit: Visitor<'_>) -> Result<(), LogError>;

    /// Forgets records before `position`; may keep some of them.
    fn trim(&mut self, before: u64) -> Result<(), LogError>;

    /// Bytes kept.
    fn size_bytes(&self) -> u64;
}
