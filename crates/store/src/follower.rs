//! Who follows every change and must not miss one, whatever happens to the process.
//!
//! The log is the follower's queue. After a start it is given the changes behind the last checkpoint again; before a checkpoint, which makes
//! the log before it unnecessary, it is asked to make durable what it still holds. So nothing is written per change for its sake, and what it
//! has not finished is never lost.

use crate::committer::Committed;
use crate::state::LiveTable;

/// Why a follower cannot go on; the cause is in the text.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct FollowerError {
    /// What cannot be done, with the cause.
    pub what: String,
}

/// Follows every change.
///
/// The order of calls: once [`Self::begin`], then [`Self::changes`] for each batch in the order of the log; [`Self::persist`] and
/// [`Self::persisted`] come from another thread in between.
pub trait Follower: Send + Sync {
    /// The store is on its way up. `node` holds the node's own entities as of the checkpoint at `position`: what comes next are the changes
    /// from there on, beginning with those that the log has already.
    ///
    /// Errors: what was persisted at that position cannot be read. The store is not opened then.
    fn begin(&self, node: &LiveTable, position: u64) -> Result<(), FollowerError>;

    /// The changes of a batch, durable, in order; called before its writers are answered, so it must be quick. While the log is replayed these
    /// are the changes of one record.
    fn changes(&self, changes: &[Committed]);

    /// A checkpoint at `position` is being made: what is not finished of the changes before it must be durable when this returns, so that
    /// [`Self::begin`] finds it again.
    ///
    /// Errors: it cannot be written. Then there is no checkpoint, and the log stays.
    fn persist(&self, position: u64) -> Result<(), FollowerError>;

    /// The checkpoint at `position` is durable: what was persisted for earlier ones is not needed any more.
    fn persisted(&self, position: u64);
}
