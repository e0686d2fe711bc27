//! Group commit: one thread decides order and durability for everybody.
//!
//! It takes what waits (at most [`GATHER_MAX`] requests), resolves each command against the state, appends all of it to the log in one
//! frame with one sync, applies it, and only then answers. A lone writer does not wait for company; under load the next batch gathers for up
//! to a millisecond.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use entity::{Command, CommandError, Delta, Entity, Instant, Iri, Outcome, resolve};
use host::Clock;
use serde::{Deserialize, Serialize};

use crate::history::{Fact, What};
use crate::log::{Log, LogError};
use crate::state::{DocumentsError, Frozen, LiveTable, Space};
use crate::store::Shared;

/// Requests in one batch.
pub(crate) const GATHER_MAX: usize = 512;
/// How long a busy log waits for company.
const GATHER_WAIT: Duration = Duration::from_millis(1);
/// A batch of this many says that the log is busy.
const BUSY_REQUESTS: usize = 8;
/// Log bytes after which the committer asks for a checkpoint.
const CHECKPOINT_LOG_BYTES: u64 = 64 << 20;

/// Commands to carry out together: they are durable together, each is decided by itself, all have the same recorded time.
#[derive(Debug)]
pub struct Submission {
    /// Where.
    pub space: Space,
    /// What, in order.
    pub commands: Vec<Command>,
}

/// Why a submission was not taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SubmitError {
    /// Too many writes are waiting.
    #[error("{waiting} writes are waiting already; try again in a moment")]
    Busy {
        /// The limit.
        waiting: usize,
    },
    /// The log refused: nothing was written.
    #[error("the change could not be made durable and was not made")]
    Log(#[source] Arc<LogError>),
    /// What the entities are now cannot be read: nothing was written.
    #[error("the present state of what is to be changed cannot be read; nothing was changed")]
    Documents(#[source] Arc<DocumentsError>),
    /// The store is closing.
    #[error("the node is shutting down")]
    Closed,
}

/// A change that is durable and visible.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Position of its record in the log.
    pub position: u64,
    /// Where.
    pub space: Space,
    /// When it was recorded.
    pub recorded_at: Instant,
    /// The entity before.
    pub before: Option<Arc<Entity>>,
    /// The entity after; none if it was removed.
    pub after: Option<Arc<Entity>>,
    /// What changed.
    pub delta: Arc<Delta>,
}

/// Called on the committer's thread with each batch, in order, before its writers are answered: it must be quick.
pub type Observer = Box<dyn Fn(&[Committed]) + Send>;

type Reply = Box<dyn FnOnce(Result<Vec<Result<Outcome, CommandError>>, SubmitError>) + Send>;

/// What the committer is asked.
pub(crate) enum Request {
    Submit(Submission, Reply),
    /// Capture what changed since the last capture, consistent with the position it returns.
    Capture(Box<dyn FnOnce(Capture) + Send>),
    /// A checkpoint up to this position is durable: the log before it may go.
    Trim(u64),
    Close,
}

/// What changed since the last checkpoint, and up to where.
pub(crate) struct Capture {
    pub(crate) next_position: u64,
    pub(crate) last_recorded_us: i64,
    /// What changed, by space; it stays readable until the tables are told that it is on disk.
    pub(crate) frozen: Vec<Frozen>,
}

/// One record of the log.
#[derive(Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(rename = "a")]
    recorded_at: Instant,
    #[serde(rename = "s")]
    space: Space,
    #[serde(rename = "d")]
    deltas: Vec<Delta>,
}

pub(crate) struct Committer {
    pub(crate) log: Box<dyn Log>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) observers: Vec<Observer>,
    pub(crate) last_recorded_us: i64,
    pub(crate) wake_checkpoint: Box<dyn Fn() + Send>,
    /// Bytes of records since the last capture.
    pub(crate) bytes_since_capture: u64,
    /// A checkpoint was asked for and has not begun.
    pub(crate) checkpoint_asked: bool,
}

/// A request resolved, waiting for the sync.
struct Pending {
    reply: Reply,
    answers: Vec<Result<Outcome, CommandError>>,
}

/// The batch under construction: what it makes of the state, not yet visible to anybody.
#[derive(Default)]
struct Batch {
    records: Vec<Vec<u8>>,
    changes: Vec<Committed>,
    overlay: HashMap<(Space, Iri), Option<Arc<Entity>>>,
    pending: Vec<Pending>,
}

impl Committer {
    pub(crate) fn run(mut self, requests: &Receiver<Request>) {
        let mut busy = false;
        while let Ok(first) = requests.recv() {
            let mut gathered = vec![first];
            while gathered.len() < GATHER_MAX {
                match requests.try_recv() {
                    Ok(r) => gathered.push(r),
                    Err(_) if busy => match requests.recv_timeout(GATHER_WAIT) {
                        Ok(r) => gathered.push(r),
                        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                    },
                    Err(_) => break,
                }
            }
            busy = gathered.len() >= BUSY_REQUESTS;
            let mut batch = Batch::default();
            let mut after = Vec::new();
            for request in gathered {
                match request {
                    Request::Submit(submission, reply) => self.resolve(submission, reply, &mut batch),
                    other => after.push(other),
                }
            }
            self.commit(batch);
            for request in after {
                match request {
                    Request::Capture(reply) => reply(self.capture()),
                    Request::Trim(before) => {
                        if let Err(e) = self.log.trim(before) {
                            tracing::warn!(error = &e as &dyn std::error::Error, "cannot trim the log; it stays longer than needed");
                        }
                        self.shared.set_log_bytes(self.log.size_bytes());
                    }
                    Request::Close => return,
                    Request::Submit(..) => {}
                }
            }
        }
    }

    /// The next recorded time: the clock's, but never the same or an earlier one twice.
    fn tick(&mut self) -> Instant {
        self.last_recorded_us = self.clock.now_micros().max(self.last_recorded_us + 1);
        Instant::from_micros(self.last_recorded_us)
    }

    fn resolve(&mut self, submission: Submission, reply: Reply, batch: &mut Batch) {
        let space = submission.space;
        let table = self.shared.table(space);
        // Before anything is decided: a document that cannot be read refuses the whole submission, and only that.
        let present = submission.commands.iter().map(|c| Ok((c.id().clone(), table.try_get(c.id().as_str())?)));
        let present: HashMap<Iri, Option<Arc<Entity>>> = match present.collect() {
            Ok(present) => present,
            Err(e) => {
                tracing::error!(error = &e as &dyn std::error::Error, "a change was refused");
                reply(Err(SubmitError::Documents(Arc::new(e))));
                return;
            }
        };
        let recorded_at = self.tick();
        let position = self.log.next_position() + batch.records.len() as u64;
        let mut deltas = Vec::new();
        let mut answers = Vec::new();
        for command in submission.commands {
            let key = (space, command.id().clone());
            let before = batch.overlay.get(&key).cloned().unwrap_or_else(|| present[&key.1].clone());
            answers.push(resolve(command, before.as_deref()).map(|resolved| {
                if let Some(delta) = resolved.delta {
                    let after = delta
                        .apply(before.as_deref().cloned(), recorded_at)
                        .expect("a delta that was resolved against this state fits it")
                        .map(Arc::new);
                    batch.overlay.insert(key, after.clone());
                    batch.changes.push(Committed { position, space, recorded_at, before, after, delta: Arc::new(delta.clone()) });
                    deltas.push(delta);
                }
                resolved.outcome
            }));
        }
        if !deltas.is_empty() {
            let record = Record { recorded_at, space, deltas };
            batch.records.push(serde_json::to_vec(&record).expect("a record is JSON"));
        }
        batch.pending.push(Pending { reply, answers });
    }

    fn commit(&mut self, batch: Batch) {
        if batch.pending.is_empty() {
            return;
        }
        if let Err(e) = self.log.append(&batch.records) {
            tracing::error!(error = &e as &dyn std::error::Error, "a batch could not be made durable and was refused");
            self.shared.set_write_error(Some(e.to_string()));
            let e = Arc::new(e);
            for p in batch.pending {
                (p.reply)(Err(SubmitError::Log(Arc::clone(&e))));
            }
            return;
        }
        if !batch.records.is_empty() {
            self.shared.set_write_error(None);
        }
        self.bytes_since_capture += batch.records.iter().map(|r| r.len() as u64).sum::<u64>();
        let facts: Vec<Fact> = batch.changes.iter().flat_map(facts_of).collect();
        if !facts.is_empty() {
            self.shared.history.append(facts);
        }
        for space in Space::ALL {
            let changed = batch.overlay.iter().filter(|((s, _), _)| *s == space).map(|((_, id), e)| (id.clone(), e.clone()));
            self.shared.table(space).apply(changed);
        }
        self.shared.committed(batch.changes.len(), batch.records.len(), self.log.next_position(), self.log.size_bytes());
        for observer in &self.observers {
            observer(&batch.changes);
        }
        for p in batch.pending {
            (p.reply)(Ok(p.answers));
        }
        let is_due = self.bytes_since_capture > CHECKPOINT_LOG_BYTES || Space::ALL.iter().any(|s| self.shared.table(*s).wants_checkpoint());
        // Asked for once: each further wish would be carried out as a checkpoint of its own, and leave files of next to nothing.
        if is_due && !std::mem::replace(&mut self.checkpoint_asked, true) {
            (self.wake_checkpoint)();
        }
    }

    fn capture(&mut self) -> Capture {
        (self.bytes_since_capture, self.checkpoint_asked) = (0, false);
        let frozen = Space::ALL.iter().map(|s| self.shared.table(*s).freeze()).collect();
        Capture { next_position: self.log.next_position(), last_recorded_us: self.last_recorded_us, frozen }
    }
}

/// Applies a record of the log to the state, at start; returns when it was recorded.
pub(crate) fn replay_record(
    bytes: &[u8],
    tables: &dyn Fn(Space) -> LiveTable,
    facts: &mut Vec<Fact>,
) -> Result<Instant, Box<dyn std::error::Error + Send + Sync>> {
    let record: Record = serde_json::from_slice(bytes)?;
    let table = tables(record.space);
    for delta in record.deltas {
        let before = table.try_get(delta.id.as_str())?;
        let after = delta.apply(before.as_deref().cloned(), record.recorded_at)?.map(Arc::new);
        table.apply([(delta.id.clone(), after.clone())]);
        let change = Committed { position: 0, space: record.space, recorded_at: record.recorded_at, before, after, delta: Arc::new(delta) };
        facts.extend(facts_of(&change));
    }
    Ok(record.recorded_at)
}

/// What the history keeps of a change.
fn facts_of(change: &Committed) -> Vec<Fact> {
    let Some(entity_type) = change.after.as_ref().or(change.before.as_ref()).and_then(|e| e.types.first()) else { return Vec::new() };
    if change.space != Space::City {
        return Vec::new();
    }
    let fact = |what| Fact { entity_type: entity_type.clone(), entity: change.delta.id.clone(), recorded_at: change.recorded_at, what };
    if change.delta.delete {
        return vec![fact(What::EntityDeleted)];
    }
    let mut facts = Vec::new();
    for (name, dataset_id) in &change.delta.remove {
        facts.push(fact(What::AttributeDeleted { name: name.clone(), dataset_id: dataset_id.clone() }));
    }
    if change.delta.clear
        && let Some(before) = &change.before
    {
        for (name, instances) in &before.attributes {
            for gone in instances.iter().filter(|i| !change.delta.put.iter().any(|(n, a)| n == name && a.dataset_id == i.dataset_id)) {
                facts.push(fact(What::AttributeDeleted { name: name.clone(), dataset_id: gone.dataset_id.clone() }));
            }
        }
    }
    for (name, put) in &change.delta.put {
        // The stamped instance, with its recorded times; a batch may have overwritten it, then the delta's own is stamped here.
        let stamped = change.after.as_ref().and_then(|e| e.instance(name.as_str(), put.dataset_id.as_ref()));
        let instance = stamped.cloned().unwrap_or_else(|| put.clone());
        facts.push(fact(What::Value { name: name.clone(), instance }));
    }
    for (name, late) in &change.delta.late {
        let mut instance = late.clone();
        instance.created_at = change.recorded_at;
        instance.modified_at = change.recorded_at;
        facts.push(fact(What::Value { name: name.clone(), instance }));
    }
    facts
}
