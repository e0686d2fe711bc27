//! Taking facts out of the history.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use entity::Instant;

use crate::committer::{Request, SubmitError};
use crate::history::{Erasure, HistoryError};
use crate::store::{CheckpointError, Store};

/// Why nothing was erased.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EraseError {
    /// The history takes no more erasures.
    #[error(transparent)]
    History(Arc<HistoryError>),
    /// It could not be made durable.
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

impl From<HistoryError> for EraseError {
    fn from(e: HistoryError) -> Self {
        Self::History(Arc::new(e))
    }
}

pub(crate) type EraseReply = Box<dyn FnOnce(Result<Instant, EraseError>) + Send>;

impl Store {
    /// Takes facts out of the history, for readers of now and later, and returns when that was recorded: whoever asks as of an earlier time
    /// still sees them, until [`Store::purge_history`]. When `erasure` was recorded is decided here. The present state stays as it is.
    /// Waits on this thread until it is durable.
    ///
    /// Errors: there are too many erasures that were not purged; it could not be made durable.
    pub fn erase_and_wait(&self, erasure: Erasure) -> Result<Instant, EraseError> {
        let (sender, receiver) = sync_channel(1);
        let reply = Box::new(move |answer| {
            // Nobody waits any more if the receiver is gone.
            let _ = sender.send(answer);
        });
        self.request(Request::Erase(Box::new(erasure), reply))?;
        receiver.recv().unwrap_or(Err(EraseError::Submit(SubmitError::Closed)))
    }

    /// Removes for good what was erased before, so that it is not seen as of any time; durable when this returns. Copies of it may still be in
    /// the log that is kept for readers of the changes, and in backups. Blocks the thread; rewrites the files concerned.
    pub fn purge_history(&self) -> Result<(), CheckpointError> {
        self.history().purge()?;
        self.checkpoint()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use entity::{Attribute, Command, Entity, Iri};
    use host::SystemClock;

    use super::*;
    use crate::history::{ErasedInstances, ErasedTimes, TemporalQuery};
    use crate::state::{MEMORY_BYTES_MIN, Space};
    use crate::{Options, Submission};

    const STATION: &str = "urn:ngsi-ld:Station:1";

    fn iri(name: &str) -> Iri {
        Iri::known(&format!("https://example.org/{name}"))
    }

    fn open(dir: &Path) -> Store {
        Store::open(Options { memory_bytes: MEMORY_BYTES_MIN, log_keep_bytes: 1 << 20, ..Options::new(dir, Arc::new(SystemClock)) })
            .unwrap()
    }

    /// The hours of which the values are seen.
    fn hours(store: &Store, as_of: Option<Instant>) -> Vec<i64> {
        let query = TemporalQuery { as_of, ..TemporalQuery::of(Iri::known(STATION)) };
        let evolution = store.history().evolution(&query).unwrap();
        let values = evolution.and_then(|e| e.attributes.get(&iri("pm25")).cloned()).unwrap_or_default();
        values.iter().map(|a| a.observed_at.unwrap().micros() / 3_600_000_000).collect()
    }

    #[test]
    fn what_is_erased_is_gone_after_every_kind_of_restart_and_seen_as_of_before_until_it_is_purged() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        for hour in 0..6 {
            let value = Attribute::property(hour).observed(Instant::from_secs(hour * 3_600));
            let command = Command::Observe(Entity::new(Iri::known(STATION), iri("Station")).with(iri("pm25"), value));
            store.submit_and_wait(Submission { space: Space::City, commands: vec![command] }).unwrap();
        }
        let erasure = Erasure {
            entity_type: iri("Station"),
            recorded_at: Instant::default(),
            entity: None,
            attribute: Some(iri("pm25")),
            instances: ErasedInstances::All,
            times: ErasedTimes::Observed(Instant::from_secs(3_600)..Instant::from_secs(3 * 3_600)),
        };
        let erased_at = store.erase_and_wait(erasure.clone()).unwrap();
        let check = |store: &Store| {
            assert_eq!(hours(store, None), [0, 3, 4, 5]);
            assert_eq!(hours(store, Some(erased_at.plus_micros(-1))), [0, 1, 2, 3, 4, 5]);
            let feed = store.changes(store.stats().next_position - 1, 10).unwrap();
            assert_eq!(feed.changes[0].erasure, Some(Erasure { recorded_at: erased_at, ..erasure.clone() }));
        };
        check(&store);
        // From the log alone, then from documents and files.
        drop(store);
        let store = open(dir.path());
        check(&store);
        store.close().unwrap();
        drop(store);
        let store = open(dir.path());
        check(&store);
        // The present stays.
        assert_eq!(store.table(Space::City).len(), 1);
        store.purge_history().unwrap();
        let before = Some(erased_at.plus_micros(-1));
        assert_eq!(hours(&store, before), [0, 3, 4, 5]);
        drop(store);
        assert_eq!(hours(&open(dir.path()), before), [0, 3, 4, 5]);
    }
}
