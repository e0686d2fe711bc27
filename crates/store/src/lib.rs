//! Log, state and history of a node.
//!
//! * [`log`]: order and durability. One checksummed frame per committed batch; the source of truth for everything younger than the last checkpoint.
//! * [`state`]: what is true now: the live table in memory, documents on disk.
//! * [`blobs`]: where immutable files live: a folder, an object store.
//! * [`history`]: what was true when: rows by observed and by recorded time; recent ones in memory, sealed ones in Parquet.
//! * [`Store`]: the three together: replay at start, group commit, checkpoint.
//!
//! Engines stand behind one trait per kind of data ([`log::Log`], [`state::Documents`], [`history::History`]), and one contract suite runs over every engine.
//!
//! **Invariant:** the store knows no protocol and no policy.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

pub mod blobs;
mod committer;
pub mod history;
pub mod log;
pub mod state;
mod store;

pub use committer::{Committed, Observer, Submission, SubmitError};
pub use store::{CheckpointError, OpenError, Options, Stats, Store};
