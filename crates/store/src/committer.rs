//! Group commit: one thread decides order and durability for everybody.
//!
//! It takes what waits (at most [`GATHER_MAX`] submissions), resolves each command against the state, appends all of it to the log in one
//! frame with one sync, applies it, and only then answers. A lone writer does not wait for company; under load the next batch gathers until
//! everybody who was answered last is back, for up to a millisecond.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvError};
use std::time::Duration;

use entity::{Command, CommandError, Delta, Entity, Instant, Iri, Outcome, Version, resolve};
use host::{Clock, Stopwatch};

use crate::backlog::{BEHIND_BYTES_MAX, Backlog};
use crate::erase::{EraseError, EraseReply};
use crate::facts::{push_abouts, push_facts};
use crate::follower::Follower;
use crate::hash::FastMap;
use crate::history::{BulkRows, Erasure, Fact};
use crate::log::{Expected, Log, LogError};
use crate::record::{self, Record};
use crate::rows::{Rows, SubmitRowsError, TakenRows};
use crate::state::{DocumentsError, Frozen, LiveTable, Space};
use crate::store::Shared;

/// Submissions in one batch.
pub(crate) const GATHER_MAX: usize = 512;
/// Bytes of records after which a batch is closed; far below what the log takes as one batch.
const BATCH_BYTES: usize = 8 << 20;
/// How long a busy log waits for company.
const GATHER_WAIT: Duration = Duration::from_millis(1);
/// How long it sleeps before it looks again: a sleeper is not woken by each of those who come.
const GATHER_STEP: Duration = Duration::from_micros(50);
/// A batch of this many says that the log is busy.
const BUSY_SUBMISSIONS: usize = 8;
/// How long a batch waits when background work lags behind, for each [`SLOW_CHANGES`] that are in it.
const SLOW_PAUSE: Duration = Duration::from_millis(5);
/// What is changed stays in memory until a checkpoint has written it: a batch of thousands has to wait longer than a single update.
const SLOW_CHANGES: usize = 64;
/// The most such pauses after one batch.
const SLOW_PAUSES_MAX: usize = 100;
/// The key of the log that every batch names: a writer whose place was taken by another one is refused.
pub(crate) const WRITER_KEY: &str = "writer";

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
    /// Checkpoints do not keep up: what would be lost from memory in a crash is in the log, but a replay would take too long.
    #[error(
        "{behind_bytes} bytes of changes wait for being written to documents and history, the limit is {BEHIND_BYTES_MAX}; try again in a moment"
    )]
    Behind {
        /// Bytes of records that no checkpoint has written.
        behind_bytes: u64,
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

impl From<DocumentsError> for SubmitError {
    fn from(e: DocumentsError) -> Self {
        Self::Documents(Arc::new(e))
    }
}

impl SubmitError {
    /// Too much is waiting: the same change will be taken in a moment.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Behind { .. })
    }

    /// The disk is full or takes no writes; the same change may be taken once that is over.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Log(e) if matches!(**e, LogError::Full { .. }))
    }
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

/// What came of each command of a submission.
pub(crate) type Answers = Vec<Result<Outcome, CommandError>>;
type Reply = Box<dyn FnOnce(Result<Answers, SubmitError>) + Send>;
pub(crate) type RowsReply = Box<dyn FnOnce(Result<TakenRows, SubmitRowsError>) + Send>;

/// What the committer is asked.
pub(crate) enum Request {
    /// Commands; those before which a version stands are for that version only (none stands before any if the list is empty).
    Submit(Submission, Vec<Option<Version>>, Reply),
    /// Observations as columns.
    Rows(Box<Rows>, RowsReply),
    /// Take facts out of the history; when it is recorded is decided here.
    Erase(Box<Erasure>, EraseReply),
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

pub(crate) struct Committer {
    pub(crate) log: Box<dyn Log>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) observers: Vec<Observer>,
    pub(crate) followers: Vec<Arc<dyn Follower>>,
    pub(crate) last_recorded_us: i64,
    pub(crate) wake_checkpoint: Box<dyn Fn() + Send>,
    /// Bytes of log that are kept beyond the last checkpoint, for readers of the changes.
    pub(crate) log_keep_bytes: u64,
    pub(crate) backlog: Backlog,
    /// Version of [`WRITER_KEY`] that our last batch has.
    pub(crate) writer_version: u64,
    /// A checkpoint was asked for and has not begun.
    pub(crate) checkpoint_asked: bool,
}

/// A request resolved, waiting for the sync.
enum Pending {
    Commands(Reply, Answers),
    Rows(RowsReply, TakenRows),
}

impl Pending {
    fn answer(self, failed: Option<&SubmitError>) {
        match (self, failed) {
            (Self::Commands(reply, answers), None) => reply(Ok(answers)),
            (Self::Rows(reply, taken), None) => reply(Ok(taken)),
            (Self::Commands(reply, _), Some(e)) => reply(Err(e.clone())),
            (Self::Rows(reply, _), Some(e)) => reply(Err(SubmitRowsError::Submit(e.clone()))),
        }
    }
}

/// What a batch makes of the state, not yet visible to anybody: what the entity was before the batch, and what it is to be.
type Overlay = FastMap<Iri, (Option<Arc<Entity>>, Option<Arc<Entity>>)>;

/// The batch under construction.
#[derive(Default)]
struct Batch {
    records: Vec<Vec<u8>>,
    record_bytes: usize,
    changes: Vec<Committed>,
    facts: Vec<Fact>,
    rows: Vec<BulkRows>,
    overlays: [Overlay; 2],
    pending: Vec<Pending>,
}

impl Batch {
    fn with_room_for(n_submissions: usize) -> Self {
        Self {
            records: Vec::with_capacity(n_submissions),
            changes: Vec::with_capacity(n_submissions),
            facts: Vec::with_capacity(n_submissions),
            pending: Vec::with_capacity(n_submissions),
            ..Self::default()
        }
    }

    fn is_full(&self) -> bool {
        self.pending.len() >= GATHER_MAX || self.record_bytes >= BATCH_BYTES
    }

    fn push_record(&mut self, record: Vec<u8>) {
        self.record_bytes += record.len();
        self.records.push(record);
    }

    const fn overlay(&mut self, space: Space) -> &mut Overlay {
        &mut self.overlays[match space {
            Space::City => 0,
            Space::Node => 1,
        }]
    }

    /// The entity as it will be with what the batch has so far.
    fn present(&mut self, table: &LiveTable, space: Space, id: &Iri) -> Result<Option<Arc<Entity>>, DocumentsError> {
        match self.overlay(space).get(id) {
            Some((_, known)) => Ok(known.clone()),
            None => table.try_get_to_change(id.as_str()),
        }
    }

    fn put(&mut self, space: Space, id: Iri, before: Option<&Arc<Entity>>, after: Option<&Arc<Entity>>) {
        self.overlay(space).entry(id).or_insert_with(|| (before.cloned(), None)).1 = after.cloned();
    }
}

impl Committer {
    pub(crate) fn run(mut self, requests: &Receiver<Request>) {
        let mut waiting = VecDeque::new();
        // Who may be expected in the next batch: those who were answered, and those who waited meanwhile.
        let mut n_expected = 0;
        loop {
            let mut batch = Batch::with_room_for(n_expected);
            let other = match self.gather(requests, &mut waiting, n_expected, &mut batch) {
                Ok(other) => other,
                Err(RecvError) => return,
            };
            n_expected = batch.pending.len();
            self.commit(batch, || {
                waiting.extend(requests.try_iter().take(GATHER_MAX));
            });
            n_expected += waiting.len();
            if let Some(other) = other
                && !self.serve(other)
            {
                return;
            }
        }
    }

    /// Resolves what comes until the batch is full, nobody else is to be expected, or the time is up. Returns early with what is no
    /// submission: all is done in the order of arrival.
    fn gather(
        &mut self,
        requests: &Receiver<Request>,
        waiting: &mut VecDeque<Request>,
        n_expected: usize,
        batch: &mut Batch,
    ) -> Result<Option<Request>, RecvError> {
        let mut window: Option<Stopwatch> = None;
        loop {
            let request = match waiting.pop_front() {
                Some(request) => request,
                None if batch.pending.is_empty() => requests.recv()?,
                None => match requests.try_recv() {
                    Ok(request) => request,
                    Err(_) => {
                        let window = window.get_or_insert_with(Stopwatch::start);
                        if n_expected < BUSY_SUBMISSIONS || batch.pending.len() >= n_expected || window.elapsed() >= GATHER_WAIT {
                            return Ok(None);
                        }
                        std::thread::sleep(GATHER_STEP);
                        continue;
                    }
                },
            };
            match request {
                Request::Submit(_, _, reply) if self.backlog.is_full() => reply(Err(self.behind())),
                Request::Rows(_, reply) if self.backlog.is_full() => reply(Err(self.behind().into())),
                Request::Submit(submission, versions, reply) => self.resolve(submission, versions, reply, batch),
                Request::Rows(rows, reply) => self.resolve_rows(*rows, reply, batch),
                other => return Ok(Some(other)),
            }
            if batch.is_full() {
                return Ok(None);
            }
        }
    }

    /// Does what is no submission; false if it was the last.
    fn serve(&mut self, request: Request) -> bool {
        match request {
            Request::Erase(erasure, reply) => reply(self.erase(*erasure)),
            Request::Capture(reply) => reply(self.capture()),
            Request::Trim(before) => {
                self.backlog.written();
                let trimmed = self.log.mark_snapshot(before).and_then(|()| self.log.trim(before, self.log_keep_bytes));
                if let Err(e) = trimmed {
                    tracing::warn!(error = &e as &dyn std::error::Error, "cannot trim the log; it stays longer than needed");
                }
                self.shared.set_log_bytes(self.log.size_bytes());
            }
            Request::Close => return false,
            Request::Submit(..) | Request::Rows(..) => {}
        }
        true
    }

    fn behind(&mut self) -> SubmitError {
        self.ask_for_checkpoint();
        SubmitError::Behind { behind_bytes: self.backlog.bytes() }
    }

    /// Asks once: each further wish would be carried out as a checkpoint of its own, and leave files of next to nothing.
    fn ask_for_checkpoint(&mut self) {
        if !std::mem::replace(&mut self.checkpoint_asked, true) {
            (self.wake_checkpoint)();
        }
    }

    /// The next recorded time: the clock's, but never the same or an earlier one twice.
    fn tick(&mut self) -> Instant {
        self.last_recorded_us = self.clock.now_micros().max(self.last_recorded_us + 1);
        Instant::from_micros(self.last_recorded_us)
    }

    fn resolve(&mut self, submission: Submission, versions: Vec<Option<Version>>, reply: Reply, batch: &mut Batch) {
        let Submission { space, commands } = submission;
        let table = self.shared.table(space);
        // Before anything is decided: a document that cannot be read refuses the whole submission, and only that.
        let present = commands.iter().map(|c| batch.present(table, space, c.id())).collect::<Result<Vec<_>, _>>();
        let present = match present {
            Ok(present) => present,
            Err(e) => {
                tracing::error!(error = &e as &dyn std::error::Error, "a change was refused");
                return reply(Err(e.into()));
            }
        };
        let recorded_at = self.tick();
        let position = self.log.next_position() + batch.records.len() as u64;
        let n_changes_before = batch.changes.len();
        let mut answers = Vec::with_capacity(commands.len());
        for (i, (command, present)) in commands.into_iter().zip(present).enumerate() {
            let id = command.id().clone();
            // A command before this one may have changed it.
            let before = if i == 0 { present } else { batch.overlay(space).get(&id).map_or(present, |(_, known)| known.clone()) };
            let found = Version::of(before.as_deref());
            if let Some(expected) = versions.get(i).copied().flatten().filter(|v| *v != found) {
                answers.push(Err(CommandError::Changed { id, expected, found }));
                continue;
            }
            answers.push(resolve(command, before.as_deref()).map(|resolved| {
                if let Some(mut delta) = resolved.delta {
                    let after = delta
                        .apply(before.as_deref().cloned(), recorded_at)
                        .expect("a delta that was resolved against this state fits it")
                        .map(Arc::new);
                    batch.put(space, id, before.as_ref(), after.as_ref());
                    let change = Committed { position, space, recorded_at, before, after, delta: Arc::new(delta) };
                    batch.changes.push(change);
                }
                resolved.outcome
            }));
        }
        push_facts(&batch.changes[n_changes_before..], &mut batch.facts);
        let deltas: Vec<&Delta> = batch.changes[n_changes_before..].iter().map(|c| c.delta.as_ref()).collect();
        if !deltas.is_empty() {
            let record = record::encode_changes(space, recorded_at, &deltas);
            batch.push_record(record);
        }
        batch.pending.push(Pending::Commands(reply, answers));
    }

    /// Observations: what is newer than the present goes to the state, all of it to the history.
    fn resolve_rows(&mut self, rows: Rows, reply: RowsReply, batch: &mut Batch) {
        let table = self.shared.table(Space::City);
        let position = self.log.next_position() + batch.records.len() as u64;
        let deltas = match rows.deltas(|id| batch.present(table, Space::City, id)) {
            Ok(deltas) => deltas,
            Err(e) => return reply(Err(e)),
        };
        let recorded_at = self.tick();
        let mut taken = TakenRows { position, recorded_at, n_rows: rows.n_rows(), n_created: 0 };
        let n_changes_before = batch.changes.len();
        for (before, mut delta) in deltas {
            let after = delta.apply(before.as_deref().cloned(), recorded_at).expect("a new entity has its type").map(Arc::new);
            taken.n_created += usize::from(before.is_none());
            batch.put(Space::City, delta.id.clone(), before.as_ref(), after.as_ref());
            batch.changes.push(Committed { position, space: Space::City, recorded_at, before, after, delta: Arc::new(delta) });
        }
        // Their values are in the rows.
        push_abouts(&batch.changes[n_changes_before..], &mut batch.facts);
        let deltas: Vec<&Delta> = batch.changes[n_changes_before..].iter().map(|c| c.delta.as_ref()).collect();
        let (record, bulk) = rows.finish(recorded_at, &deltas);
        batch.push_record(record);
        batch.rows.push(bulk);
        batch.pending.push(Pending::Rows(reply, taken));
    }

    fn append(&mut self, records: &[Vec<u8>]) -> Result<(), LogError> {
        if !records.is_empty() {
            let expected = Expected { key: WRITER_KEY, version: self.writer_version };
            self.writer_version = self.log.append_expecting(records, &[expected])?;
        }
        Ok(())
    }

    /// Rare, so each has a sync of its own.
    fn erase(&mut self, erasure: Erasure) -> Result<Instant, EraseError> {
        let erasure = Erasure { recorded_at: self.tick(), ..erasure };
        let recorded_at = erasure.recorded_at;
        self.shared.history.check_erasure(&erasure)?;
        let record = record::encode_erasure(&erasure);
        let n_bytes = record.len() as u64;
        if let Err(e) = self.append(&[record]) {
            tracing::error!(error = &e as &dyn std::error::Error, "an erasure could not be made durable and was refused");
            self.shared.set_write_error(Some(e.to_string()));
            return Err(EraseError::Submit(SubmitError::Log(Arc::new(e))));
        }
        self.shared.set_write_error(None);
        self.shared.history.erase(erasure)?;
        self.backlog.add(n_bytes);
        self.shared.committed(0, 1, self.log.next_position(), self.log.size_bytes());
        Ok(recorded_at)
    }

    /// Makes a batch durable, then visible, then answers; `before_answers` is called just before that.
    fn commit(&mut self, batch: Batch, before_answers: impl FnOnce()) {
        if batch.pending.is_empty() {
            return;
        }
        if let Err(e) = self.append(&batch.records) {
            tracing::error!(error = &e as &dyn std::error::Error, "a batch could not be made durable and was refused");
            self.shared.set_write_error(Some(e.to_string()));
            let e = SubmitError::Log(Arc::new(e));
            for p in batch.pending {
                p.answer(Some(&e));
            }
            return;
        }
        if !batch.records.is_empty() {
            self.shared.set_write_error(None);
        }
        if !batch.facts.is_empty() {
            self.shared.history.append(batch.facts);
        }
        for rows in batch.rows {
            self.shared.history.append_rows(rows);
        }
        for (space, overlay) in [Space::City, Space::Node].into_iter().zip(batch.overlays) {
            if !overlay.is_empty() {
                self.shared.table(space).apply_known(overlay.into_iter().map(|(id, (before, after))| (id, before, after)));
            }
        }
        self.backlog.add(batch.record_bytes as u64);
        self.shared.committed(batch.changes.len(), batch.records.len(), self.log.next_position(), self.log.size_bytes());
        let n_changes = batch.changes.len();
        if n_changes > 0 {
            for observer in &self.observers {
                observer(&batch.changes);
            }
            for follower in &self.followers {
                follower.changes(&batch.changes);
            }
        }
        before_answers();
        for p in batch.pending {
            p.answer(None);
        }
        if self.backlog.is_due() || Space::ALL.iter().any(|s| self.shared.table(*s).wants_checkpoint()) {
            self.ask_for_checkpoint();
        }
        // Back-pressure: checkpoints or the merging of the history's files lag behind.
        if self.backlog.is_long() || self.shared.history.pressure() >= 1.0 {
            let n_pauses = (n_changes / SLOW_CHANGES).clamp(1, SLOW_PAUSES_MAX);
            std::thread::sleep(SLOW_PAUSE * n_pauses as u32);
        }
    }

    fn capture(&mut self) -> Capture {
        self.backlog.capture();
        self.checkpoint_asked = false;
        let frozen = Space::ALL.iter().map(|s| self.shared.table(*s).freeze()).collect();
        Capture { next_position: self.log.next_position(), last_recorded_us: self.last_recorded_us, frozen }
    }
}

/// Applies the record at a position of the log to the state, at start; returns when it was recorded and what it changed.
pub(crate) fn replay_record(
    position: u64,
    bytes: &[u8],
    tables: &dyn Fn(Space) -> LiveTable,
    facts: &mut Vec<Fact>,
    history: &dyn crate::history::History,
) -> Result<(Instant, Vec<Committed>), Box<dyn std::error::Error + Send + Sync>> {
    let Record { recorded_at, space, deltas, rows, erasure } = record::decode(bytes)?;
    let table = tables(space);
    let mut changes = Vec::with_capacity(deltas.len());
    for mut delta in deltas {
        let before = table.try_get(delta.id.as_str())?;
        let after = delta.apply(before.as_deref().cloned(), recorded_at)?.map(Arc::new);
        table.apply_known([(delta.id.clone(), before.clone(), after.clone())]);
        changes.push(Committed { position, space, recorded_at, before, after, delta: Arc::new(delta) });
    }
    if rows.is_none() {
        push_facts(&changes, facts);
    } else {
        push_abouts(&changes, facts);
    }
    if let Some((entity_type, batch)) = rows {
        history.append_rows(BulkRows::new(entity_type, recorded_at, batch)?);
    }
    if let Some(erasure) = erasure {
        history.erase(erasure)?;
    }
    Ok((recorded_at, changes))
}
