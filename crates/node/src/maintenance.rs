//! Operations of the one who runs the node: the change feed, verification, room on disk.

use std::sync::Arc;
use std::time::Duration;

use host::chain;
use policy::{Action, Principal};
use store::space::SpaceReport;
use store::verify::Report;
use store::{Changes, ChangesError};
use tokio::sync::broadcast::error::RecvError;

use crate::error::NodeError;
use crate::node::Node;

/// How long a reader of the changes may wait for one.
pub const CHANGES_WAIT_MAX: Duration = Duration::from_secs(60);

impl Node {
    /// Changes from a position of the log on, at most `limit` records of it.
    ///
    /// Errors: not the operator; the position is not kept any more or was never written; a limit.
    pub fn changes(&self, who: &Principal, from: u64, limit: usize) -> Result<Changes, NodeError> {
        self.permit(who, Action::Administer, None)?;
        if limit == 0 || limit > store::CHANGES_MAX {
            return Err(NodeError::Limit { what: format!("limit {limit} is not between 1 and {}", store::CHANGES_MAX) });
        }
        Ok(self.store.changes(from, limit)?)
    }

    /// The same; if there is none yet, waits for one, at most [`CHANGES_WAIT_MAX`].
    pub async fn wait_for_changes(&self, who: &Principal, from: u64, limit: usize, wait: Duration) -> Result<Changes, NodeError> {
        if wait > CHANGES_WAIT_MAX {
            let what = format!("waiting {} s is longer than the limit of {} s", wait.as_secs(), CHANGES_WAIT_MAX.as_secs());
            return Err(NodeError::Limit { what });
        }
        // Subscribed before the first look, so that nothing falls in between.
        let mut live = self.live.subscribe();
        let found = self.changes(who, from, limit)?;
        if !found.changes.is_empty() || wait.is_zero() {
            return Ok(found);
        }
        let over = tokio::time::sleep(wait);
        tokio::pin!(over);
        loop {
            tokio::select! {
                received = live.recv() => {
                    let found = self.changes(who, from, limit)?;
                    if !found.changes.is_empty() || matches!(received, Err(RecvError::Closed)) {
                        return Ok(found);
                    }
                }
                () = &mut over => return self.changes(who, from, limit),
            }
        }
    }

    /// Verifies everything that is on disk, and that the present state is what it says. Blocks the thread.
    pub fn verify(&self, who: &Principal) -> Result<Report, NodeError> {
        self.permit(who, Action::Administer, None)?;
        let progress = |step: &str| tracing::debug!(step, "verifying");
        self.store.verify(&progress).map_err(|e| NodeError::Maintenance { what: "verify the store", reason: chain(&e) })
    }

    /// Accounts for the room on disk, by entity type; reads all documents. Blocks the thread.
    pub fn space(&self, who: &Principal) -> Result<SpaceReport, NodeError> {
        self.permit(who, Action::Administer, None)?;
        self.store.space().map_err(|e| NodeError::Maintenance { what: "account for the room on disk", reason: chain(&e) })
    }

    /// What the history takes by entity type, as of the last checkpoint: type, rows, bytes.
    #[must_use]
    pub fn history_space(&self) -> Vec<(entity::Iri, u64, u64)> {
        self.store.history_space()
    }
}

impl From<ChangesError> for NodeError {
    fn from(e: ChangesError) -> Self {
        Self::Changes(Arc::new(e))
    }
}
