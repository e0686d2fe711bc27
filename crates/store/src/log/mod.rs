//! Order and durability.
//!
//! A log is a sequence of records at positions 1, 2, 3, ...; records are appended in batches, and a batch is durable as a whole or not
//! there at all. Engines: [`file::FileLog`] (the embedded default) and [`memory::MemoryLog`] (for tests).
//!
//! **Expected versions.** A batch may name keys, each with the version that the writer believes it has; the batch is appended only if all
//! of them are right, and then is the newest version of each. A key's version is the position of the first record of the batch that touched it last, 0 if
//! none ever did. Keys are few (a partition, a lease): they keep a writer whose place was taken by another one from writing on. This is what a replicated log offers
//! as the expected last sequence of a subject.

pub mod file;
mod frame;
pub mod memory;
mod survey;

pub use frame::{FRAME_BYTES_MAX, KEY_BYTES_MAX, KEYS_MAX};
pub use survey::{LogDamage, survey};

use frame::Bookkeeping;

#[cfg(test)]
mod contract;

use std::path::PathBuf;
use std::sync::Arc;

/// Why the log cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk is full: nothing of the batch is kept, and the log goes on as soon as there is room.
    #[error("the disk is full: cannot write to log segment `{path}`")]
    Full {
        /// Which file.
        path: PathBuf,
    },
    /// The disk takes no writes: nothing of the batch is kept, and the log goes on as soon as it does.
    #[error("the disk is read-only: cannot write to log segment `{path}`")]
    ReadOnly {
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
    /// Another writer was faster, or has taken over.
    #[error("`{key}` is at version {found} of the log, not at {expected}: another writer has appended meanwhile")]
    Conflict {
        /// The key.
        key: String,
        /// The version that the writer expected.
        expected: u64,
        /// The version that it has.
        found: u64,
    },
    /// A key that cannot be kept.
    #[error("key `{key}` of the log is refused: a log keeps at most {KEYS_MAX} keys of 1 to {KEY_BYTES_MAX} bytes")]
    Key {
        /// The key, shortened.
        key: String,
    },
    /// The position was trimmed.
    #[error("position {wanted} of the log is not kept any more; the oldest that is kept is {first}")]
    Gone {
        /// What was asked for.
        wanted: u64,
        /// The oldest position kept.
        first: u64,
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

/// A key and the version that a writer believes it has; 0 for one that was never touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expected<'a> {
    /// The key, of at most [`KEY_BYTES_MAX`] bytes.
    pub key: &'a str,
    /// Its version.
    pub version: u64,
}

/// How much to read at once; a single record above `bytes` is read all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Read {
    /// Records, at most.
    pub records: usize,
    /// Bytes of records, at most.
    pub bytes: usize,
}

/// A log. One writer.
pub trait Log: Send {
    /// Appends records as one batch and returns the position of the first; durable when it returns.
    fn append(&mut self, records: &[Vec<u8>]) -> Result<u64, LogError> {
        self.append_expecting(records, &[])
    }

    /// The same, if each key still has the expected version; the position returned is the new version of all of them.
    ///
    /// Errors: [`LogError::Conflict`] if one has not (nothing was appended), and those of appending.
    fn append_expecting(&mut self, records: &[Vec<u8>], expected: &[Expected<'_>]) -> Result<u64, LogError>;

    /// The version of a key, 0 if no batch ever named it. Trimming forgets no version.
    fn version(&self, key: &str) -> u64;

    /// The position of the oldest record that is kept; that of the next one if there is none.
    fn first_position(&self) -> u64;

    /// The position that the next record will have.
    fn next_position(&self) -> u64;

    /// Visits the records from position `from` on, in order.
    fn replay(&mut self, from: u64, visit: Visitor<'_>) -> Result<(), LogError>;

    /// Reads beside the writer.
    fn reader(&self) -> Arc<dyn LogReader>;

    /// Notes that everything before `next_position` is in a snapshot elsewhere. The note is durable with the next batch at the latest.
    fn mark_snapshot(&mut self, next_position: u64) -> Result<(), LogError>;

    /// The last such note that is known; 0 if there is none.
    fn snapshot(&self) -> u64;

    /// Forgets records before `before`, as long as `keep_bytes` remain; may keep some more of them.
    fn trim(&mut self, before: u64, keep_bytes: u64) -> Result<(), LogError>;

    /// Bytes kept.
    fn size_bytes(&self) -> u64;
}

/// Reads a log while its writer goes on. Only what is durable is seen.
pub trait LogReader: Send + Sync {
    /// The position of the oldest record that is kept; that of the next one if there is none.
    fn first_position(&self) -> u64;

    /// The position behind the newest durable record.
    fn next_position(&self) -> u64;

    /// Records from position `from` on, with their positions; none if `from` is not written yet.
    ///
    /// Errors: [`LogError::Gone`] if `from` was trimmed, and those of reading.
    fn read(&self, from: u64, max: Read) -> Result<Vec<(u64, Vec<u8>)>, LogError>;

    /// A position behind this one from which on reading may work again, when it does not from this one; none if there is none.
    fn resume_after(&self, _position: u64) -> Option<u64> {
        None
    }
}

fn check_expected(kept: &Bookkeeping, expected: &[Expected<'_>]) -> Result<(), LogError> {
    let mut n_keys = kept.versions.len();
    for e in expected {
        let known = kept.versions.get(e.key).copied();
        let found = known.unwrap_or_default();
        if found != e.version {
            return Err(LogError::Conflict { key: e.key.to_owned(), expected: e.version, found });
        }
        n_keys += usize::from(known.is_none());
        if n_keys > KEYS_MAX || e.key.is_empty() || e.key.len() > KEY_BYTES_MAX {
            return Err(LogError::Key { key: e.key.chars().take(80).collect() });
        }
    }
    Ok(())
}

fn note_versions<'k>(kept: &mut Bookkeeping, keys: impl Iterator<Item = &'k str>, position: u64) {
    for key in keys {
        match kept.versions.get_mut(key) {
            Some(version) => *version = position,
            None => {
                kept.versions.insert(key.to_owned(), position);
            }
        }
    }
}
