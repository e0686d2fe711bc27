//! Log, state and history together.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use entity::{CommandError, Outcome};
use host::{Clock, RealDisk};

use crate::committer::{Capture, Committer, Observer, Request, Submission, SubmitError, replay_record};
use crate::history::columnar::ColumnarHistory;
use crate::history::{History, HistoryError};
use crate::log::file::FileLog;
use crate::log::{Log, LogError};
use crate::state::{Budget, Documents, DocumentsError, FjallDocuments, Frozen, LiveTable, MEMORY_BYTES_MIN, Manifest, Space};

/// Writes that may wait for the committer; more are refused with [`SubmitError::Busy`].
const WAITING_MAX: usize = 8_192;
/// Facts handed to the history at once while replaying.
const REPLAY_FACTS: usize = 10_000;

/// How a store is opened.
pub struct Options {
    /// The node's folder.
    pub dir: PathBuf,
    /// The clock that gives recorded times.
    pub clock: Arc<dyn Clock>,
    /// Called with each committed batch.
    pub observers: Vec<Observer>,
    /// How often a checkpoint is made when something has changed.
    pub checkpoint_every: Duration,
    /// Memory that the present state may use: indexes, changed entities, caches and write buffers of the documents.
    /// At least [`crate::state::MEMORY_BYTES_MIN`]; usually [`crate::state::MEMORY_BYTES_DEFAULT`].
    pub memory_bytes: usize,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
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
}

impl Shared {
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

/// The store of a node.
pub struct Store {
    shared: Arc<Shared>,
    requests: SyncSender<Request>,
    checkpoints: SyncSender<CheckpointRequest>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    n_waiting: Arc<AtomicUsize>,
    closed: AtomicBool,
    /// Held as long as the store lives, so that no second program opens the folder.
    _lock: std::fs::File,
}

type CheckpointRequest = Option<Box<dyn FnOnce(Result<(), CheckpointError>) + Send>>;

impl Store {
    /// Opens the store in a folder: last checkpoint, then the log after it.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let lock = lock_dir(&options.dir)?;
        let log = FileLog::open(Arc::new(RealDisk), &options.dir.join("log"))?;
        let budget = Budget { total_bytes: options.memory_bytes.max(MEMORY_BYTES_MIN) };
        let documents: Arc<dyn Documents> = Arc::new(FjallDocuments::open_with(&options.dir.join("documents"), budget.documents())?);
        let manifest = documents.manifest()?;
        // Before anything is touched: opening the history removes files that the manifest does not name.
        if log.first_position() > manifest.next_position {
            return Err(OpenError::Gap { found: log.first_position(), wanted: manifest.next_position });
        }
        let history_dir = options.dir.join("history");
        if log.next_position() == 1 && manifest == Manifest::default() && !is_empty(&history_dir) {
            return Err(OpenError::Lost { path: history_dir });
        }
        let history = ColumnarHistory::open(&history_dir, manifest.segments.clone())?;
        let tables = open_tables(&documents, budget)?;
        let mut loaded = Loading { log: Box::new(log), manifest, shared: Arc::new(new_shared(Arc::new(history), tables)) };
        loaded.replay()?;
        Self::start(loaded, documents, options, lock)
    }

    fn start(loaded: Loading, documents: Arc<dyn Documents>, options: Options, lock: std::fs::File) -> Result<Self, OpenError> {
        let (requests, inbox) = sync_channel(WAITING_MAX);
        let (checkpoints, checkpoint_inbox) = sync_channel::<CheckpointRequest>(16);
        let wake = checkpoints.clone();
        let shared = Arc::clone(&loaded.shared);
        let committer = Committer {
            last_recorded_us: loaded.manifest.last_recorded_us,
            log: loaded.log,
            shared: loaded.shared,
            clock: options.clock,
            bytes_since_capture: 0,
            checkpoint_asked: false,
            observers: options.observers,
            wake_checkpoint: Box::new(move || {
                // A full inbox means that a checkpoint is on its way.
                let _ = wake.try_send(None);
            }),
        };
        let checkpointer = Checkpointer { shared: Arc::clone(&shared), documents, requests: requests.clone() };
        let every = options.checkpoint_every;
        let spawn =
            |name: &str, f: Box<dyn FnOnce() + Send>| std::thread::Builder::new().name(name.to_owned()).spawn(f).map_err(OpenError::Thread);
        let threads = vec![
            spawn("committer", Box::new(move || committer.run(&inbox)))?,
            spawn("checkpointer", Box::new(move || checkpointer.run(&checkpoint_inbox, every)))?,
        ];
        let n_waiting = Arc::new(AtomicUsize::new(0));
        Ok(Self { shared, requests, checkpoints, threads: Mutex::new(threads), n_waiting, closed: AtomicBool::new(false), _lock: lock })
    }

    /// Hands in changes; `reply` is called on the committer's thread once they are durable (or refused) and must be quick.
    pub fn submit(
        &self,
        submission: Submission,
        reply: impl FnOnce(Result<Vec<Result<Outcome, CommandError>>, SubmitError>) + Send + 'static,
    ) -> Result<(), SubmitError> {
        self.n_waiting.fetch_add(1, Ordering::Relaxed);
        let n_waiting = Arc::clone(&self.n_waiting);
        let reply = Box::new(move |answer| {
            n_waiting.fetch_sub(1, Ordering::Relaxed);
            reply(answer);
        });
        self.requests.try_send(Request::Submit(submission, reply)).map_err(|e| {
            self.n_waiting.fetch_sub(1, Ordering::Relaxed);
            match e {
                TrySendError::Full(_) => SubmitError::Busy { waiting: WAITING_MAX },
                TrySendError::Disconnected(_) => SubmitError::Closed,
            }
        })
    }

    /// The same, waiting for the answer on this thread.
    pub fn submit_and_wait(&self, submission: Submission) -> Result<Vec<Result<Outcome, CommandError>>, SubmitError> {
        let (sender, receiver) = sync_channel(1);
        self.submit(submission, move |answer| {
            // Nobody waits any more if the receiver is gone.
            let _ = sender.send(answer);
        })?;
        receiver.recv().unwrap_or(Err(SubmitError::Closed))
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
        self.checkpoints.send(Some(reply)).map_err(|_| CheckpointError::Closed)?;
        receiver.recv().unwrap_or(Err(CheckpointError::Closed))
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
        let _ = self.requests.send(Request::Close);
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads.into_iter().take(1) {
            let _ = thread.join();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if !self.closed.load(Ordering::SeqCst) {
            self.end();
        }
    }
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
    }
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}

fn lock_dir(dir: &Path) -> Result<std::fs::File, OpenError> {
    let path = dir.join("lock");
    let failed = |source| OpenError::InUse { path: path.clone(), source };
    std::fs::create_dir_all(dir).map_err(failed)?;
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    file.try_lock().map_err(|e| failed(std::io::Error::other(e.to_string())))?;
    Ok(file)
}

/// A store on its way up.
struct Loading {
    log: Box<dyn Log>,
    manifest: Manifest,
    shared: Arc<Shared>,
}

impl Loading {
    fn replay(&mut self) -> Result<(), OpenError> {
        let from = self.manifest.next_position;
        if self.log.next_position() < from {
            return Err(OpenError::Gap { found: self.log.next_position(), wanted: from });
        }
        let shared = Arc::clone(&self.shared);
        let tables = |space| shared.table(space).clone();
        let mut facts = Vec::new();
        let mut n_replayed = 0;
        let mut expected = from;
        let Self { log, manifest, .. } = self;
        log.replay(from, &mut |position, bytes| {
            if position != expected {
                return Err(format!("the log begins at position {position}, but the documents end before position {expected}").into());
            }
            expected += 1;
            n_replayed += 1;
            let recorded_at = replay_record(bytes, &tables, &mut facts)?;
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

/// Writes checkpoints, off the latency path.
struct Checkpointer {
    shared: Arc<Shared>,
    documents: Arc<dyn Documents>,
    requests: SyncSender<Request>,
}

impl Checkpointer {
    fn run(mut self, inbox: &Receiver<CheckpointRequest>, every: Duration) {
        let mut done_position = 0;
        loop {
            let request = match inbox.recv_timeout(every) {
                Ok(r) => r,
                Err(RecvTimeoutError::Timeout) if self.shared.next_position.load(Ordering::Relaxed) > done_position => None,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let result = self.checkpoint();
            match &result {
                Ok(position) => done_position = *position,
                // The committer is gone: so is the store.
                Err(CheckpointError::Closed) => return,
                Err(e) => {
                    tracing::error!(error = e as &dyn std::error::Error, "no checkpoint; the log keeps everything until the next one");
                }
            }
            if let Some(reply) = request {
                reply(result.map(|_| ()));
            }
        }
    }

    fn checkpoint(&mut self) -> Result<u64, CheckpointError> {
        let (sender, receiver) = sync_channel(1);
        let capture = Request::Capture(Box::new(move |capture: Capture| {
            let _ = sender.send(capture);
        }));
        self.requests.send(capture).map_err(|_| CheckpointError::Closed)?;
        // What an earlier checkpoint failed to write is captured again.
        let Capture { next_position, last_recorded_us, frozen } = receiver.recv().map_err(|_| CheckpointError::Closed)?;
        // Sealing covers at least every fact of the capture; later ones are sealed early and found again by a replay, which the history forgives.
        let segments = self.shared.history.seal()?;
        let n_documents: usize = frozen.iter().map(Frozen::len).sum();
        let manifest = Manifest { next_position, last_recorded_us, segments, ..Manifest::default() };
        self.documents.checkpoint(&mut frozen.iter().flat_map(Frozen::changed), &manifest)?;
        for space in Space::ALL {
            self.shared.table(space).thaw();
        }
        self.shared.history.committed();
        self.requests.send(Request::Trim(next_position)).map_err(|_| CheckpointError::Closed)?;
        tracing::debug!(next_position, n_documents, "checkpoint");
        Ok(next_position)
    }
}

#[cfg(test)]
mod tests;
