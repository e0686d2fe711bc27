//! Log, state and history of a node.
//!
//! * [`log`]: order and durability. One checksummed frame per committed batch; the source of truth for everything younger than the last checkpoint.
//! * [`state`]: what is true now: the live table in memory, documents on disk.
//! * [`blobs`]: where immutable files live: a folder, an object store.
//! * [`history`]: what was true when: rows by observed and by recorded time; recent ones in memory, sealed ones in Parquet.
//! * [`Store`]: the three together: replay at start, group commit, checkpoint, the feed of changes.
//! * [`backup`], [`verify`], [`space`], [`format`](mod@format): what the one who runs a node needs.
//!
//! Engines stand behind one trait per kind of data ([`log::Log`], [`state::Documents`], [`history::History`]), and one contract suite runs over every engine.
//!
//! **Invariant:** the store knows no protocol and no policy.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

mod backlog;
pub mod backup;
pub mod blobs;
mod changes;
mod committer;
mod erase;
mod facts;
mod follower;
pub mod format;
mod hash;
pub mod history;
pub mod log;
mod record;
mod rows;
pub mod space;
pub mod state;
mod store;
pub mod verify;

pub use arrow::record_batch::RecordBatch;
pub use changes::{CHANGES_MAX, Change, Changes, ChangesError};
pub use committer::{Committed, Observer, Submission, SubmitError};
pub use erase::EraseError;
pub use facts::facts_of;
pub use follower::{Follower, FollowerError};
pub use record::RecordError;
pub use rows::{ROWS_BYTES_MAX, SubmitRowsError, TakenRows};
pub use store::{CheckpointError, Engines, OpenError, OpenHistory, Options, SegmentReader, Stats, Store};
