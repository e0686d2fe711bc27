//! Log, state and history together.

mod answer;
mod checkpointer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use entity::{CommandError, Instant, Iri, Outcome, Version};
use host::{Clock, RealDisk};

use self::answer::{Answer, Notifier};
pub(crate) use self::checkpointer::Held;
use self::checkpointer::{CheckpointRequest, Checkpointer};
use crate::backlog::Backlog;
use crate::blobs::{self, Blobs};
use crate::changes::{self, Changes, ChangesError};
use crate::committer::{Answers, Committer, Observer, Request, Submission, SubmitError, WRITER_KEY, replay_record};
use crate::follower::{Follower, FollowerError};
use crate::format::{self, FormatError};
use crate::history::columnar::{ColumnarHistory, ColumnarOptions};
use crate::history::{History, HistoryError, HistoryPolicy, Maintained, Segment};
use crate::log::file::FileLog;
use crate::log::{Log, LogError, LogReader};
use crate::rows::{Rows, SubmitRowsError, TakenRows};
use crate::state::{Budget, Documents, DocumentsError, FjallDocuments, LiveTable, MEMORY_BYTES_MIN, Manifest, Space};

/// Writes that may wait for the committer; more are refused with [`SubmitError::Busy`].
const WAITING_MAX: usize = 8_192;
/// A file that says that a restore is under way.
pub(crate) const HALF_RESTORED: &str = "restoring";
/// The file that knows what files of the history in an object store look like.
const HISTORY_INDEX: &str = "history.index";
/// Facts handed to the history at once while replaying.
const REPLAY_FACTS: usize = 10_000;
/// Between two passes over the history when one is not enough, so that others have their turn.
const KEEPER_PAUSE: Duration = Duration::from_millis(200);

/// How a store is opened.
pub struct Options {
    /// The node's folder.
    pub dir: PathBuf,
    /// The clock that gives recorded times.
    pub clock: Arc<dyn Clock>,
    /// Called with each committed batch.
    pub observers: Vec<Observer>,
    /// Given every change, those that a start finds in the log included.
    pub followers: Vec<Arc<dyn Follower>>,
    /// How often a checkpoint is made when something has changed.
    pub checkpoint_every: Duration,
    /// Memory that the present state may use: indexes, changed entities, caches and write buffers of the documents.
    /// At least [`crate::state::MEMORY_BYTES_MIN`]; usually [`crate::state::MEMORY_BYTES_DEFAULT`].
    pub memory_bytes: usize,
    /// Where the history's files are: empty for the folder `history` in `dir`, otherwise `s3://bucket/prefix` (see [`ObjectBlobs::s3_at`]).
    pub history_place: String,
    /// Bytes of log that are kept beyond the last checkpoint, for readers of the changes; whole segments, so it may be more.
    pub log_keep_bytes: u64,
}

impl Options {
    /// A folder by itself: its history is in it, nobody observes, nothing of the log is kept longer than needed, the memory is
    /// [`crate::state::MEMORY_BYTES_DEFAULT`], and there is a checkpoint every hour.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Self {
        Self {
            dir: dir.into(),
            clock,
            observers: Vec::new(),
            followers: Vec::new(),
            checkpoint_every: Duration::from_hours(1),
            memory_bytes: crate::state::MEMORY_BYTES_DEFAULT,
            history_place: String::new(),
            log_keep_bytes: 0,
        }
    }
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder is of a newer format, or does not say which.
    #[error("cannot open the data")]
    Format(#[from] FormatError),
    /// The folder cannot be written.
    #[error("folder `{path}` is read-only: the node needs to write in it")]
    ReadOnly {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A restore did not come to its end.
    #[error("folder `{path}` holds a part of a backup, of which the restore was interrupted: empty it and restore again")]
    HalfRestored {
        /// The folder.
        path: PathBuf,
    },
    /// Another program has it open.
    #[error("`{path}` is in use by another node (or its lock cannot be taken)")]
    InUse {
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The log cannot be read.
    #[error("cannot open the log")]
    Log(#[from] LogError),
    /// The documents cannot be read.
    #[error("cannot open the documents")]
    Documents(#[from] DocumentsError),
    /// The history cannot be read.
    #[error("cannot open the history")]
    History(#[from] HistoryError),
    /// The log begins after what the checkpoint covers.
    #[error(
        "the log begins at position {found}, but the documents end before position {wanted}: a part of the log is missing; restore it from a backup"
    )]
    Gap {
        /// Where the log begins.
        found: u64,
        /// Where it must begin.
        wanted: u64,
    },
    /// There is a history and nothing that it belongs to.
    #[error(
        "`{path}` holds a history, but log and documents are gone: restore them from a backup (or move the history away to start anew)"
    )]
    Lost {
        /// The history's folder.
        path: PathBuf,
    },
    /// The history's files are not where they are looked for, and were somewhere else before.
    #[error(
        "the history of this folder was in {recorded}, and the configuration says {configured}, where the file `{missing}` is not: set \
         `history` in [store] of conurb.toml back, or move the files there first"
    )]
    HistoryElsewhere {
        /// Where it was.
        recorded: String,
        /// Where it is looked for.
        configured: String,
        /// A file that is not there.
        missing: String,
    },
    /// Who follows the changes cannot go on where it was.
    #[error("cannot take up what followed from the changes")]
    Follower(#[from] FollowerError),
    /// A thread cannot be started.
    #[error("cannot start the committer")]
    Thread(#[source] std::io::Error),
}

/// Why a checkpoint could not be made; the log keeps everything until the next one succeeds.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The history could not be written.
    #[error("cannot seal the history")]
    History(#[from] HistoryError),
    /// The documents could not be written.
    #[error("cannot write the documents")]
    Documents(#[from] DocumentsError),
    /// What followed from the changes could not be made durable.
    #[error("cannot keep what followed from the changes")]
    Follower(#[from] FollowerError),
    /// It was not made, for the reason that is in the log of the program too.
    #[error("no checkpoint could be made: {0}")]
    Failed(String),
    /// The committer has ended.
    #[error("the store is closed")]
    Closed,
}

/// Numbers about a store, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entities now.
    pub n_entities: usize,
    /// Changes committed since the start.
    pub n_changes: u64,
    /// Batches (= syncs) since the start.
    pub n_batches: u64,
    /// Records of the log replayed at the start.
    pub n_replayed: u64,
    /// Bytes of log on disk.
    pub log_bytes: u64,
    /// Position of the oldest record that is kept.
    pub first_position: u64,
    /// Position of the next record.
    pub next_position: u64,
    /// Facts not yet sealed.
    pub n_recent_facts: usize,
    /// Why the last write failed, if it did.
    pub write_error: Option<String>,
    /// Bytes of memory that the indexes of the state take, about.
    pub index_bytes: usize,
    /// Bytes of changed entities that no checkpoint has written, about.
    pub unwritten_bytes: usize,
}

/// What the committer, the checkpointer and the readers share.
pub(crate) struct Shared {
    city: LiveTable,
    node: LiveTable,
    pub(crate) history: Arc<dyn History>,
    n_changes: AtomicU64,
    n_batches: AtomicU64,
    n_replayed: AtomicU64,
    log_bytes: AtomicU64,
    next_position: AtomicU64,
    write_error: RwLock<Option<String>>,
    /// The history's files as of the last checkpoint.
    segments: RwLock<Arc<Vec<Segment>>>,
    /// Backups under way: as long as there is one, no file of the history is deleted.
    n_pins: AtomicUsize,
}

impl Shared {
    pub(crate) fn segments(&self) -> Arc<Vec<Segment>> {
        Arc::clone(&self.segments.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_segments(&self, segments: &[Segment]) {
        *self.segments.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(segments.to_vec());
    }

    pub(crate) const fn table(&self, space: Space) -> &LiveTable {
        match space {
            Space::City => &self.city,
            Space::Node => &self.node,
        }
    }

    pub(crate) fn set_log_bytes(&self, bytes: u64) {
        self.log_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_write_error(&self, error: Option<String>) {
        *self.write_error.write().unwrap_or_else(PoisonError::into_inner) = error;
    }

    pub(crate) fn committed(&self, n_changes: usize, n_records: usize, next_position: u64, log_bytes: u64) {
        self.n_changes.fetch_add(n_changes as u64, Ordering::Relaxed);
        self.n_batches.fetch_add(u64::from(n_records > 0), Ordering::Relaxed);
        self.next_position.store(next_position, Ordering::Relaxed);
        self.set_log_bytes(log_bytes);
    }
}

/// Reads a file of the history as a whole.
pub type SegmentReader = Arc<dyn Fn(&Segment) -> std::io::Result<Vec<u8>> + Send + Sync>;

/// What keeps the history, opened once it is known what the last checkpoint covers.
pub type OpenHistory = Box<dyn FnOnce(&Manifest, &dyn Log) -> Result<Arc<dyn History>, OpenError>>;

/// The engines of a store.
pub struct Engines {
    /// Order and durability.
    pub log: Box<dyn Log>,
    /// The documents as of the last checkpoint.
    pub documents: Arc<dyn Documents>,
    /// The history.
    pub history: OpenHistory,
    /// The history's files, for backups and verification.
    pub segments: SegmentReader,
    /// What tells this store from every other one, see [`format::Format::id`].
    pub id: String,
}

/// The store of a node.
pub struct Store {
    shared: Arc<Shared>,
    requests: SyncSender<Request>,
    checkpoints: SyncSender<CheckpointRequest>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    log: Arc<dyn LogReader>,
    segments: SegmentReader,
    pub(crate) id: String,
    pub(crate) dir: PathBuf,
    closed: AtomicBool,
    keeper: Mutex<Option<Keeper>>,
    /// Held as long as the store lives, so that no second program opens the folder.
    lock: Option<std::fs::File>,
}

/// Keeps the history's files from being deleted.
pub(crate) struct Pin<'a>(&'a Shared);

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.0.n_pins.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Store {
    /// Opens the store in a folder: last checkpoint, then the log after it.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let lock = lock_dir(&options.dir)?;
        if options.dir.join(HALF_RESTORED).exists() {
            return Err(OpenError::HalfRestored { path: options.dir });
        }
        let format = format::take_over(&options.dir)?;
        let blobs = open_blobs(&options)?;
        blobs.claim(&format.id).map_err(place_failed(&*blobs, "use"))?;
        let moved_from = format.history.filter(|recorded| *recorded != options.history_place);
        let (segments, place) = (Arc::clone(&blobs), options.history_place.clone());
        let dir = options.dir.clone();
        let history_index = dir.join(HISTORY_INDEX);
        let engines = Engines {
            log: Box::new(FileLog::open(Arc::new(RealDisk), &options.dir.join("log"))?),
            documents: Arc::new(FjallDocuments::open_with(&options.dir.join("documents"), budget_of(&options).documents())?),
            history: Box::new(move |manifest, log| {
                let is_new = log.next_position() == 1 && *manifest == Manifest::default();
                if is_new && !blobs.list().map_err(place_failed(&*blobs, "list"))?.is_empty() {
                    return Err(OpenError::Lost { path: blobs.place().into() });
                }
                if let Some(recorded) = moved_from {
                    check_moved(&*blobs, &manifest.segments, &recorded, &place)?;
                }
                let index = (!place.is_empty()).then(|| (Arc::new(RealDisk) as Arc<dyn host::Disk>, history_index));
                let options = ColumnarOptions { index, ..ColumnarOptions::default() };
                Ok(Arc::new(ColumnarHistory::open_on(blobs, manifest.segments.clone(), options)?))
            }),
            segments: Arc::new(move |s| segments.get(&s.file, 0..s.bytes).map(|b| b.to_vec())),
            id: format.id,
        };
        let place = options.history_place.clone();
        let mut store = Self::open_with(options, engines)?;
        // Only now: its files were found there.
        format::note_history(&dir, &place)?;
        store.lock = Some(lock);
        Ok(store)
    }

    /// Opens the store over any engines. `options.dir` is not touched, nor locked: who brings the engines sees to it that nobody else uses them.
    pub fn open_with(options: Options, engines: Engines) -> Result<Self, OpenError> {
        let Engines { log, documents, history, segments, id } = engines;
        let manifest = documents.manifest()?;
        // Before anything is touched: opening the history removes files that the manifest does not name.
        if log.first_position() > manifest.next_position {
            return Err(OpenError::Gap { found: log.first_position(), wanted: manifest.next_position });
        }
        let tables = open_tables(&documents, budget_of(&options))?;
        let shared = new_shared(history(&manifest, log.as_ref())?, tables);
        shared.set_segments(&manifest.segments);
        for follower in &options.followers {
            follower.begin(shared.table(Space::Node), manifest.next_position)?;
        }
        let mut loaded = Loading { log, manifest, n_bytes_replayed: 0, shared: Arc::new(shared) };
        loaded.replay(&options.followers)?;
        let mut store = Self::start(loaded, documents, segments, options)?;
        store.id = id;
        Ok(store)
    }

    fn start(loaded: Loading, documents: Arc<dyn Documents>, segments: SegmentReader, options: Options) -> Result<Self, OpenError> {
        let (requests, inbox) = sync_channel(WAITING_MAX);
        let (checkpoints, checkpoint_inbox) = sync_channel::<CheckpointRequest>(16);
        let wake = checkpoints.clone();
        let shared = Arc::clone(&loaded.shared);
        let log = loaded.log.reader();
        let committer = Committer {
            writer_version: loaded.log.version(WRITER_KEY),
            log_keep_bytes: options.log_keep_bytes,
            backlog: Backlog::replayed(loaded.n_bytes_replayed),
            last_recorded_us: loaded.manifest.last_recorded_us,
            log: loaded.log,
            shared: loaded.shared,
            clock: options.clock,
            checkpoint_asked: false,
            observers: options.observers,
            followers: options.followers.clone(),
            wake_checkpoint: Box::new(move || {
                // A full inbox means that a checkpoint is on its way.
                let _ = wake.try_send(CheckpointRequest::Wake);
            }),
        };
        let checkpointer =
            Checkpointer { shared: Arc::clone(&shared), documents, requests: requests.clone(), followers: options.followers };
        let every = options.checkpoint_every;
        let spawn =
            |name: &str, f: Box<dyn FnOnce() + Send>| std::thread::Builder::new().name(name.to_owned()).spawn(f).map_err(OpenError::Thread);
        let threads = vec![
            spawn("committer", Box::new(move || committer.run(&inbox)))?,
            spawn("checkpointer", Box::new(move || checkpointer.run(&checkpoint_inbox, every)))?,
        ];
        Ok(Self {
            shared,
            requests,
            checkpoints,
            threads: Mutex::new(threads),
            log,
            segments,
            id: String::new(),
            dir: options.dir,
            closed: AtomicBool::new(false),
            keeper: Mutex::default(),
            lock: None,
        })
    }

    /// Hands in changes; `reply` is called on the committer's thread once they are durable (or refused) and must be quick.
    pub fn submit(
        &self,
        submission: Submission,
        reply: impl FnOnce(Result<Vec<Result<Outcome, CommandError>>, SubmitError>) + Send + 'static,
    ) -> Result<(), SubmitError> {
        self.submit_if(submission, Vec::new(), reply)
    }

    /// Hands in changes, of which some are for one version of their entity only: such a command is refused with
    /// [`CommandError::Changed`] if the entity is not at that version when its turn comes. So of several writers who have seen the same version one wins.
    ///
    /// `versions` are those of the commands at the same places; further commands are for whatever version there is.
    pub fn submit_if(
        &self,
        submission: Submission,
        versions: Vec<Option<Version>>,
        reply: impl FnOnce(Result<Vec<Result<Outcome, CommandError>>, SubmitError>) + Send + 'static,
    ) -> Result<(), SubmitError> {
        self.request(Request::Submit(submission, versions, Box::new(reply)))
    }

    /// Hands in observations of entities of one type as columns, see [`BulkRows`](crate::history::BulkRows): what is newer than the
    /// present becomes the present, all of it is in the history. `reply` is called on the committer's thread once all rows are durable, or none is.
    ///
    /// Errors: the batch is not valid or too large, or too many writes are waiting.
    pub fn submit_rows(
        &self,
        entity_type: Iri,
        batch: RecordBatch,
        reply: impl FnOnce(Result<TakenRows, SubmitRowsError>) + Send + 'static,
    ) -> Result<(), SubmitRowsError> {
        let rows = Rows::new(entity_type, batch)?;
        Ok(self.request(Request::Rows(Box::new(rows), Box::new(reply)))?)
    }

    pub(crate) fn request(&self, request: Request) -> Result<(), SubmitError> {
        self.requests.try_send(request).map_err(|e| match e {
            TrySendError::Full(_) => SubmitError::Busy { waiting: WAITING_MAX },
            TrySendError::Disconnected(_) => SubmitError::Closed,
        })
    }

    /// The same as [`Self::submit`], waiting for the answer on this thread.
    pub fn submit_and_wait(&self, submission: Submission) -> Result<Vec<Result<Outcome, CommandError>>, SubmitError> {
        let answer = Arc::new(Answer::<Answers>::default());
        let to = Notifier(Arc::clone(&answer));
        self.submit(submission, move |a| to.give(a))?;
        answer.wait()
    }

    /// The same as [`Self::submit_rows`], waiting for the answer on this thread.
    pub fn submit_rows_and_wait(&self, entity_type: Iri, batch: RecordBatch) -> Result<TakenRows, SubmitRowsError> {
        let (sender, receiver) = sync_channel(1);
        self.submit_rows(entity_type, batch, move |answer| {
            // Nobody waits any more if the receiver is gone.
            let _ = sender.send(answer);
        })?;
        receiver.recv().unwrap_or(Err(SubmitRowsError::Submit(SubmitError::Closed)))
    }

    /// The present entities.
    #[must_use]
    pub fn table(&self, space: Space) -> &LiveTable {
        self.shared.table(space)
    }

    /// The history.
    #[must_use]
    pub fn history(&self) -> &dyn History {
        self.shared.history.as_ref()
    }

    /// Writes everything up to now to documents and segments, then trims the log.
    pub fn checkpoint(&self) -> Result<(), CheckpointError> {
        let (sender, receiver) = sync_channel(1);
        let reply = Box::new(move |result| {
            let _ = sender.send(result);
        });
        self.checkpoints.send(CheckpointRequest::Checkpoint(reply)).map_err(|_| CheckpointError::Closed)?;
        receiver.recv().unwrap_or(Err(CheckpointError::Closed))
    }

    /// Changes from a position of the log on, at most `limit` records of it and [`CHANGES_MAX`](crate::CHANGES_MAX).
    pub fn changes(&self, from: u64, limit: usize) -> Result<Changes, ChangesError> {
        changes::read(self.log.as_ref(), from, limit)
    }

    /// Makes a checkpoint and looks at it on the checkpointer's thread, while there is no other one; writers go on meanwhile.
    pub(crate) fn hold<T: Send + 'static>(&self, look: impl FnOnce(Held<'_>) -> T + Send + 'static) -> Result<T, CheckpointError> {
        let (sender, receiver) = sync_channel(1);
        let hold = Box::new(move |held: Result<Held<'_>, CheckpointError>| {
            // Nobody waits any more if this fails.
            let _ = sender.send(held.map(look));
        });
        self.checkpoints.send(CheckpointRequest::Hold(hold)).map_err(|_| CheckpointError::Closed)?;
        receiver.recv().unwrap_or(Err(CheckpointError::Closed))
    }

    /// From now on no file of the history is deleted, as long as the pin is there.
    pub(crate) fn pin(&self) -> Pin<'_> {
        self.shared.n_pins.fetch_add(1, Ordering::SeqCst);
        Pin(&self.shared)
    }

    /// Is it ending, or has it ended?
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    pub(crate) fn log_reader_owned(&self) -> Arc<dyn LogReader> {
        Arc::clone(&self.log)
    }

    pub(crate) fn log_reader(&self) -> &dyn LogReader {
        self.log.as_ref()
    }

    pub(crate) fn segment_reader(&self) -> &SegmentReader {
        &self.segments
    }

    /// The history's files as of the last checkpoint.
    #[must_use]
    pub fn segments(&self) -> Arc<Vec<Segment>> {
        self.shared.segments()
    }

    /// Does one pass over the history: rolls up what is over at `now`, removes what is too old. What was done is durable after the next
    /// checkpoint, which this asks for.
    ///
    /// Errors: those of [`History::maintain`].
    pub fn maintain_history(&self, policy: &HistoryPolicy, now: Instant) -> Result<Maintained, HistoryError> {
        maintain(&self.shared, &self.checkpoints, policy, now)
    }

    /// Does such a pass every so often from now on, on a thread of its own. A second call replaces the policy of the first.
    ///
    /// Errors: the policy makes no sense ([`HistoryError::Refused`]), or the thread cannot be started.
    pub fn keep_history(&self, policy: HistoryPolicy, clock: Arc<dyn Clock>, every: Duration) -> Result<(), HistoryError> {
        policy.check()?;
        let (stop, stopped) = sync_channel::<()>(0);
        let (shared, checkpoints) = (Arc::clone(&self.shared), self.checkpoints.clone());
        let pass = move || {
            let now = Instant::from_micros(clock.now_micros());
            match maintain(&shared, &checkpoints, &policy, now) {
                Ok(done) => done.more,
                Err(e) => {
                    tracing::error!(error = &e as &dyn std::error::Error, "the history was not maintained; it is tried again");
                    false
                }
            }
        };
        let run = move || {
            let mut wait = every;
            while matches!(stopped.recv_timeout(wait), Err(RecvTimeoutError::Timeout)) {
                wait = if pass() { KEEPER_PAUSE.min(every) } else { every };
            }
        };
        let thread = std::thread::Builder::new()
            .name("history-keeper".to_owned())
            .spawn(run)
            .map_err(|e| HistoryError::Refused { what: format!("cannot start the thread that maintains the history: {e}") })?;
        let before = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).replace(Keeper { stop, thread });
        if let Some(before) = before {
            before.end();
        }
        Ok(())
    }

    /// Numbers for metrics.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let s = &self.shared;
        let (index_bytes, unwritten_bytes) = s.city.memory_bytes();
        Stats {
            index_bytes,
            unwritten_bytes,
            n_entities: s.city.len(),
            n_changes: s.n_changes.load(Ordering::Relaxed),
            n_batches: s.n_batches.load(Ordering::Relaxed),
            n_replayed: s.n_replayed.load(Ordering::Relaxed),
            log_bytes: s.log_bytes.load(Ordering::Relaxed),
            first_position: self.log.first_position(),
            next_position: s.next_position.load(Ordering::Relaxed),
            n_recent_facts: s.history.n_recent(),
            write_error: s.write_error.read().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Makes a last checkpoint and ends; what is submitted afterwards is refused.
    pub fn close(&self) -> Result<(), CheckpointError> {
        if self.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let result = self.checkpoint();
        self.end();
        result
    }

    fn end(&self) {
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper {
            keeper.end();
        }
        let _ = self.requests.send(Request::Close);
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads.into_iter().take(1) {
            let _ = thread.join();
        }
    }
}

/// The thread that maintains the history.
struct Keeper {
    stop: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Keeper {
    /// Waits for the pass that it is in: it writes files.
    fn end(self) {
        drop(self.stop);
        let _ = self.thread.join();
    }
}

fn maintain(
    shared: &Shared,
    checkpoints: &SyncSender<CheckpointRequest>,
    policy: &HistoryPolicy,
    now: Instant,
) -> Result<Maintained, HistoryError> {
    let done = shared.history.maintain(policy, now)?;
    if done.changed() {
        // A full inbox means that a checkpoint is on its way.
        let _ = checkpoints.try_send(CheckpointRequest::Wake);
    }
    Ok(done)
}

impl Drop for Store {
    fn drop(&mut self) {
        if !self.closed.load(Ordering::SeqCst) {
            self.end();
        }
    }
}

/// Where the history's files are.
fn open_blobs(options: &Options) -> Result<Arc<dyn Blobs>, OpenError> {
    let path = || if options.history_place.is_empty() { options.dir.join("history") } else { options.history_place.clone().into() };
    let opened = blobs::open_history(&options.dir, &options.history_place);
    Ok(opened.map_err(|source| HistoryError::Io { action: "open", path: path(), source })?)
}

fn place_failed(blobs: &dyn Blobs, action: &'static str) -> impl FnOnce(std::io::Error) -> HistoryError + use<> {
    let path = blobs.place().into();
    move |source| HistoryError::Io { action, path, source }
}

/// The configuration names another place than before: are the files there?
fn check_moved(blobs: &dyn Blobs, segments: &[Segment], recorded: &str, configured: &str) -> Result<(), OpenError> {
    let there: std::collections::HashSet<String> = blobs.list().map_err(place_failed(blobs, "list"))?.into_iter().collect();
    let shown = |place: &str| if place.is_empty() { "the folder itself".to_owned() } else { format!("`{place}`") };
    match segments.iter().find(|s| !there.contains(&s.file)) {
        None => Ok(()),
        Some(missing) => {
            Err(OpenError::HistoryElsewhere { recorded: shown(recorded), configured: shown(configured), missing: missing.file.clone() })
        }
    }
}

fn budget_of(options: &Options) -> Budget {
    Budget { total_bytes: options.memory_bytes.max(MEMORY_BYTES_MIN) }
}

/// The tables of the city and of the node, as of the last checkpoint. The node's own entities are few.
fn open_tables(documents: &Arc<dyn Documents>, budget: Budget) -> Result<(LiveTable, LiveTable), DocumentsError> {
    let of_node = Budget { total_bytes: budget.total_bytes / 16 };
    let of_city = Budget { total_bytes: budget.total_bytes - of_node.total_bytes };
    Ok((LiveTable::open(Space::City, Arc::clone(documents), of_city)?, LiveTable::open(Space::Node, Arc::clone(documents), of_node)?))
}

fn new_shared(history: Arc<dyn History>, (city, node): (LiveTable, LiveTable)) -> Shared {
    Shared {
        city,
        node,
        history,
        n_changes: AtomicU64::new(0),
        n_batches: AtomicU64::new(0),
        n_replayed: AtomicU64::new(0),
        log_bytes: AtomicU64::new(0),
        next_position: AtomicU64::new(1),
        write_error: RwLock::new(None),
        segments: RwLock::default(),
        n_pins: AtomicUsize::new(0),
    }
}

/// Takes the folder for this program.
pub(crate) fn lock_dir(dir: &Path) -> Result<std::fs::File, OpenError> {
    let path = dir.join("lock");
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied => {
            OpenError::ReadOnly { path: dir.to_owned(), source }
        }
        _ => OpenError::InUse { path: path.clone(), source },
    };
    std::fs::create_dir_all(dir).map_err(failed)?;
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    file.try_lock().map_err(|e| failed(std::io::Error::other(e.to_string())))?;
    Ok(file)
}

/// A store on its way up.
struct Loading {
    log: Box<dyn Log>,
    manifest: Manifest,
    n_bytes_replayed: u64,
    shared: Arc<Shared>,
}

impl Loading {
    fn replay(&mut self, followers: &[Arc<dyn Follower>]) -> Result<(), OpenError> {
        let from = self.manifest.next_position;
        if self.log.next_position() < from {
            return Err(OpenError::Gap { found: self.log.next_position(), wanted: from });
        }
        let shared = Arc::clone(&self.shared);
        let tables = |space| shared.table(space).clone();
        let mut facts = Vec::new();
        let mut n_replayed = 0;
        let mut expected = from;
        let Self { log, manifest, n_bytes_replayed, .. } = self;
        log.replay(from, &mut |position, bytes| {
            if position != expected {
                return Err(format!("the log begins at position {position}, but the documents end before position {expected}").into());
            }
            expected += 1;
            n_replayed += 1;
            *n_bytes_replayed += bytes.len() as u64;
            let (recorded_at, changes) = replay_record(position, bytes, &tables, &mut facts, shared.history.as_ref())?;
            if !changes.is_empty() {
                followers.iter().for_each(|f| f.changes(&changes));
            }
            manifest.last_recorded_us = manifest.last_recorded_us.max(recorded_at.micros());
            if facts.len() >= REPLAY_FACTS {
                shared.history.append(std::mem::take(&mut facts));
            }
            Ok(())
        })?;
        shared.history.append(facts);
        shared.n_replayed.store(n_replayed, Ordering::Relaxed);
        shared.next_position.store(log.next_position(), Ordering::Relaxed);
        shared.set_log_bytes(log.size_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
