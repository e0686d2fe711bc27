//! What follows from a commit: notifications.
//!
//! A thread of its own reads the committed batches in order, so that matching does not hold up writers; the queue to it is bounded, and a
//! full queue makes writers wait instead of losing a notification. What is to be told waits with its [`Recipient`] until the edge has delivered it.
//!
//! **The log is the durable queue.** Nothing is written per notification: after a start the store gives the changes behind the last checkpoint
//! again, and what follows from them follows again, with the same ids. Only a checkpoint writes what still waits (see [`files`]), and once
//! a second it is noted how far each subscriber has come, so that a restart repeats little.

mod files;
mod index;
mod recipient;
mod told;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use entity::{AttributeValue, Entity, Filter, Instant, Iri};
use host::{Clock, RealDisk, chain};
use store::state::{LiveTable, PageRequest, Space};
use store::{Committed, Follower, FollowerError};
use tokio::sync::broadcast;

use self::files::{FileError, Files, ProgressFile, Waiting};
use self::index::{Entry, Index};
pub use self::recipient::{
    Deliverer, ENTITIES_PER_NOTIFICATION_MAX, HELD_ENTITIES_MAX, Recipient, WAITING_BYTES_MAX, WAITING_BYTES_PER_SUBSCRIPTION_MAX,
    WAITING_PER_SUBSCRIPTION_MAX, Watched,
};
use self::recipient::{Limits, Progress, Shared};
use self::told::Told;
use crate::metrics::Metrics;
use crate::operations::{DOCUMENT, SUBSCRIPTION_TYPE};
use crate::subscription::{Notification, Subscription};

/// Batches between the committer and the reactions; above that writers wait.
const BATCHES_WAITING_MAX: usize = 1_024;
/// How often it is noted how far each subscriber has come.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Entities that a notification at an interval tells, in all its parts.
const INTERVAL_ENTITIES_MAX: usize = 10_000;

/// What the thread is told.
enum Message {
    /// Changes, in order.
    Changes(Arc<Vec<Committed>>),
    /// Subscriptions that are there from the start.
    Begin(Vec<Entry>),
    /// What waits of changes before a position?
    Waiting(u64, SyncSender<Waiting<Arc<Notification>>>),
    End,
}

type ById = RwLock<HashMap<String, Arc<Recipient>>>;

/// The subscriptions, and what follows from changes.
pub(crate) struct Reactions {
    shared: Arc<Shared>,
    by_id: Arc<ById>,
    live: broadcast::Sender<Arc<Vec<Committed>>>,
    to_thread: SyncSender<Message>,
    files: Arc<Files>,
    /// How far subscribers had come before the start; those that the replay brings are looked up here.
    known: Mutex<HashMap<String, Progress>>,
    city: Arc<Mutex<Option<LiveTable>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    stop_progress: Mutex<Option<SyncSender<()>>>,
    progress: Arc<Mutex<Option<ProgressFile>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reactions {
    /// Errors: a thread cannot be started.
    pub(crate) fn start(
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        dir: PathBuf,
        live: broadcast::Sender<Arc<Vec<Committed>>>,
    ) -> std::io::Result<Arc<Self>> {
        let shared = Arc::new(Shared::new(clock, metrics, Limits::default()));
        let (to_thread, inbox) = sync_channel(BATCHES_WAITING_MAX);
        let (city, by_id) = (Arc::new(Mutex::new(None)), Arc::new(ById::default()));
        let mut matcher = Matcher {
            shared: Arc::clone(&shared),
            index: Index::default(),
            due: BinaryHeap::new(),
            by_ordinal: HashMap::new(),
            next_ordinal: 0,
            city: Arc::clone(&city),
            by_id: Arc::clone(&by_id),
            candidates: Vec::new(),
        };
        let thread = std::thread::Builder::new().name("reactions".to_owned()).spawn(move || matcher.run(&inbox))?;
        Ok(Arc::new(Self {
            shared,
            by_id,
            live,
            to_thread,
            files: Arc::new(Files::new(Arc::new(RealDisk), dir)),
            known: Mutex::default(),
            city,
            threads: Mutex::new(vec![thread]),
            stop_progress: Mutex::default(),
            progress: Arc::default(),
        }))
    }

    /// The store is open: from now on progress is noted, and what is told at intervals has something to look at.
    pub(crate) fn opened(self: &Arc<Self>, city: LiveTable) -> Result<(), FollowerError> {
        lock(&self.known).clear();
        *lock(&self.city) = Some(city);
        let all: Vec<Progress> = self.all().iter().map(|r| r.take_progress()).collect();
        *lock(&self.progress) = Some(self.files.begin_progress(&all)?);
        let (stop, stopped) = sync_channel::<()>(0);
        let this = Arc::downgrade(self);
        let run = move || {
            while matches!(stopped.recv_timeout(PROGRESS_EVERY), Err(RecvTimeoutError::Timeout)) {
                let Some(this) = this.upgrade() else { return };
                this.note_progress();
            }
        };
        let thread = std::thread::Builder::new()
            .name("progress".to_owned())
            .spawn(run)
            .map_err(|e| FollowerError { what: format!("cannot start the thread that notes the progress of notifications: {e}") })?;
        *lock(&self.stop_progress) = Some(stop);
        lock(&self.threads).push(thread);
        Ok(())
    }

    /// Who delivers from now on.
    pub(crate) fn deliver_by(&self, deliverer: Arc<dyn Deliverer>) {
        *self.shared.deliverer.write().unwrap_or_else(PoisonError::into_inner) = Some(deliverer);
        self.all().iter().for_each(Recipient::wake);
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Recipient>> {
        self.by_id.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// All of them, ordered by id.
    pub(crate) fn all(&self) -> Vec<Arc<Recipient>> {
        let mut all: Vec<_> = self.by_id.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        all.sort_by(|a, b| a.id().cmp(b.id()));
        all
    }

    fn note_progress(&self) {
        let changed: Vec<Progress> =
            self.shared.take_changed().iter().map(|r| r.take_progress()).filter(|p| self.get(&p.id).is_some()).collect();
        let all = self.all();
        self.shared.metrics.note_waiting(all.iter().map(|r| r.status()), self.shared.now());
        if changed.is_empty() {
            return;
        }
        let mut file = lock(&self.progress);
        let Some(open) = file.as_mut() else { return };
        let written = match open.is_long() {
            false => open.append(&changed),
            true => {
                let all: Vec<Progress> = all.iter().map(|r| r.take_progress()).collect();
                self.files.begin_progress(&all).map(|new| *open = new)
            }
        };
        if let Err(e) = written {
            tracing::warn!(
                error = chain(&e),
                "the progress of notifications cannot be noted; after a restart more of them would be repeated"
            );
        }
    }

    /// Ends the threads. `in_order` notes how far each subscriber has come; otherwise it is as if the process had been killed.
    pub(crate) fn end(&self, in_order: bool) {
        drop(lock(&self.stop_progress).take());
        // The thread may have ended.
        let _ = self.to_thread.send(Message::End);
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            let _ = thread.join();
        }
        if in_order {
            self.note_progress();
        }
        *lock(&self.progress) = None;
        *lock(&self.city) = None;
        *self.shared.deliverer.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The recipient of a subscription that was stored, new or as it was.
    fn recipient_of(&self, stored: &Entity, watched: &Arc<Watched>) -> Arc<Recipient> {
        let id = &watched.subscription.id;
        let mut by_id = self.by_id.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = by_id.get(id).filter(|k| k.created_at == stored.created_at) {
            return Arc::clone(known);
        }
        let made = Arc::new(Recipient::new(Arc::clone(watched), stored.created_at, Arc::clone(&self.shared)));
        if let Some(progress) = lock(&self.known).get(id).filter(|p| p.created_at == stored.created_at) {
            made.restore(progress.clone());
        }
        if let Some(earlier) = by_id.insert(id.clone(), Arc::clone(&made)) {
            earlier.end();
        }
        made
    }

    /// What the API shows follows at once; what is matched follows on the thread, in the order of the log.
    fn note_subscription(&self, change: &Committed) {
        match change.after.as_deref() {
            Some(stored) => match read_subscription(stored) {
                Ok(Some(subscription)) => {
                    let watched = Arc::new(Watched::new(subscription));
                    self.recipient_of(stored, &watched).set(watched);
                }
                Ok(None) => {}
                Err(e) => tracing::error!(error = %e, "a subscription has no effect"),
            },
            None => {
                let gone = self.by_id.write().unwrap_or_else(PoisonError::into_inner).remove(change.delta.id.as_str());
                if let Some(gone) = gone {
                    gone.end();
                }
            }
        }
    }
}

impl Follower for Reactions {
    fn begin(&self, node: &LiveTable, position: u64) -> Result<(), FollowerError> {
        *lock(&self.known) = self.files.read_progress()?;
        let mut waiting: HashMap<String, Vec<Notification>> = self.files.read_waiting(position)?.into_iter().collect();
        self.files.keep_only(position)?;
        let mut entries = Vec::new();
        for stored in node.of_type(&Iri::known(SUBSCRIPTION_TYPE)) {
            let Some(subscription) = read_subscription(&stored)? else { continue };
            let watched = Arc::new(Watched::new(subscription));
            let recipient = self.recipient_of(&stored, &watched);
            recipient.restore_waiting(waiting.remove(recipient.id()).unwrap_or_default());
            entries.push(Entry { watched, recipient });
        }
        // The thread lives as long as we do.
        let _ = self.to_thread.send(Message::Begin(entries));
        Ok(())
    }

    fn changes(&self, changes: &[Committed]) {
        let of_node = changes.iter().filter(|c| c.space == Space::Node);
        of_node.filter(|c| is_subscription(c)).for_each(|c| self.note_subscription(c));
        let is_live = self.live.receiver_count() > 0;
        let is_wanted = self.len() > 0 || changes.iter().any(|c| c.space == Space::Node);
        if !is_live && !is_wanted {
            return;
        }
        let changes = Arc::new(changes.to_vec());
        if is_live {
            // The last receiver may just have gone.
            let _ = self.live.send(Arc::clone(&changes));
        }
        if is_wanted {
            // The thread has ended if the node has.
            let _ = self.to_thread.send(Message::Changes(changes));
        }
    }

    fn persist(&self, position: u64) -> Result<(), FollowerError> {
        let ended = || FollowerError { what: "the node is shutting down".to_owned() };
        let (sender, receiver) = sync_channel(1);
        self.to_thread.send(Message::Waiting(position, sender)).map_err(|_| ended())?;
        let mut waiting = receiver.recv().map_err(|_| ended())?;
        waiting.retain(|(_, list)| !list.is_empty());
        Ok(self.files.write_waiting(position, &waiting)?)
    }

    fn persisted(&self, position: u64) {
        if let Err(e) = self.files.keep_only(position) {
            tracing::warn!(error = chain(&e), "files of notifications that are not needed any more stay");
        }
    }
}

impl From<FileError> for FollowerError {
    fn from(e: FileError) -> Self {
        Self { what: chain(&e) }
    }
}

fn is_subscription(change: &Committed) -> bool {
    let stored = change.after.as_ref().or(change.before.as_ref());
    stored.is_some_and(|e| e.types.iter().any(|t| t.as_str() == SUBSCRIPTION_TYPE))
}

/// The subscription that an entity of the node holds.
fn read_subscription(stored: &Entity) -> Result<Option<Subscription>, FollowerError> {
    let Some(AttributeValue::Json(document)) = stored.attribute(DOCUMENT).map(|a| &a.value) else { return Ok(None) };
    let damaged = |e: serde_json::Error| FollowerError { what: format!("stored subscription `{}` is damaged: {e}", stored.id) };
    let mut subscription: Subscription = serde_json::from_value(document.clone()).map_err(damaged)?;
    if subscription.endpoint.is_empty()
        && let Some(uri) = subscription.document.pointer("/notification/endpoint/uri").and_then(|u| u.as_str())
    {
        // Stored before there was such a member.
        subscription.endpoint = uri.to_owned();
    }
    Ok(Some(subscription))
}

/// The thread's own: matches changes in order, and knows what is due when.
struct Matcher {
    shared: Arc<Shared>,
    index: Index,
    /// When to come back to whom, µs.
    due: BinaryHeap<Reverse<(i64, u64)>>,
    by_ordinal: HashMap<u64, (Arc<Recipient>, Due)>,
    next_ordinal: u64,
    city: Arc<Mutex<Option<LiveTable>>>,
    by_id: Arc<ById>,
    candidates: Vec<usize>,
}

/// What is due.
enum Due {
    /// The gap between two notifications is over.
    Gap,
    /// The next notification of those at intervals, as long as the subscription is this one.
    Interval(Arc<Watched>, i64),
}

impl Matcher {
    fn run(&mut self, inbox: &Receiver<Message>) {
        loop {
            let now_us = self.shared.clock.now_micros();
            let wait = self.due.peek().map(|Reverse((at, _))| Duration::from_micros((at - now_us).max(0).unsigned_abs()));
            let message = match wait {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(wait) => inbox.recv_timeout(wait),
            };
            match message {
                Ok(Message::Changes(changes)) => self.react(&changes),
                Ok(Message::Begin(entries)) => entries.into_iter().for_each(|e| self.put(e)),
                Ok(Message::Waiting(position, reply)) => {
                    let entries = self.index.all().map(|e| (e.recipient.id().to_owned(), e.recipient.waiting_before(position)));
                    // The asker may have given up.
                    let _ = reply.send(entries.collect());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => return,
            }
            self.do_what_is_due();
        }
    }

    fn put(&mut self, entry: Entry) {
        if let Some(interval_us) = entry.watched.subscription.interval_us {
            let begin = entry.recipient.told_at().unwrap_or(entry.recipient.created_at);
            self.come_back(
                begin.plus_micros(interval_us),
                Arc::clone(&entry.recipient),
                Due::Interval(Arc::clone(&entry.watched), interval_us),
            );
        }
        self.index.put(entry);
    }

    fn come_back(&mut self, at: Instant, recipient: Arc<Recipient>, due: Due) {
        self.due.push(Reverse((at.micros(), self.next_ordinal)));
        self.by_ordinal.insert(self.next_ordinal, (recipient, due));
        self.next_ordinal += 1;
    }

    fn react(&mut self, changes: &[Committed]) {
        // One notification per record of the log and subscription: the same ones when the log is replayed.
        for record in changes.chunk_by(|a, b| a.position == b.position) {
            let mut told: BTreeMap<usize, Told> = BTreeMap::new();
            let mut candidates = std::mem::take(&mut self.candidates);
            for change in record {
                if change.space == Space::Node {
                    if is_subscription(change) {
                        self.subscription_changed(change);
                    }
                    continue;
                }
                if self.index.is_empty() {
                    continue;
                }
                self.index.candidates(change, &mut candidates);
                for &slot in &candidates {
                    let entry = self.index.entry(slot);
                    let subscription = &entry.watched.subscription;
                    let is_over = subscription.expires_at.is_some_and(|e| e <= change.recorded_at);
                    if !subscription.active || is_over || !subscription.concerns(change) || entry.recipient.has_heard_of(change.position) {
                        continue;
                    }
                    match told.entry(slot) {
                        std::collections::btree_map::Entry::Vacant(free) => drop(free.insert(Told::new(change))),
                        std::collections::btree_map::Entry::Occupied(mut known) => known.get_mut().add(change),
                    }
                }
            }
            self.candidates = candidates;
            for (slot, told) in told {
                let Entry { watched, recipient } = self.index.entry(slot).clone();
                if let Some(due) = recipient.tell(told, watched.subscription.throttling_us) {
                    self.come_back(due, recipient, Due::Gap);
                }
            }
        }
    }

    fn subscription_changed(&mut self, change: &Committed) {
        let id = change.delta.id.as_str();
        let Some(stored) = change.after.as_deref() else { return self.index.remove(id) };
        // Damage was reported where it was met first.
        let Ok(Some(subscription)) = read_subscription(stored) else { return };
        let by_id = self.by_id.read().unwrap_or_else(PoisonError::into_inner);
        // It may be gone again by now.
        let Some(recipient) = by_id.get(id).filter(|r| r.created_at == stored.created_at).cloned() else { return };
        drop(by_id);
        self.put(Entry { watched: Arc::new(Watched::new(subscription)), recipient });
    }

    fn do_what_is_due(&mut self) {
        let now = self.shared.now();
        while let Some(Reverse((at, ordinal))) = self.due.peek().copied().filter(|Reverse((at, _))| *at <= now.micros()) {
            self.due.pop();
            let Some((recipient, due)) = self.by_ordinal.remove(&ordinal) else { continue };
            if recipient.is_gone() {
                continue;
            }
            match due {
                Due::Gap => recipient.release_held(now),
                Due::Interval(watched, interval_us) => self.tell_at_interval(recipient, watched, Instant::from_micros(at), interval_us),
            }
        }
    }

    /// Tells of everything that matches now (clause 5.8.6); nothing if nothing does.
    fn tell_at_interval(&mut self, recipient: Arc<Recipient>, watched: Arc<Watched>, at: Instant, interval_us: i64) {
        let now = self.shared.now();
        let subscription = &watched.subscription;
        // After a patch it is another one, which has its own time.
        let is_current = self.index.get(recipient.id()).is_some_and(|e| Arc::ptr_eq(&e.watched, &watched));
        if !is_current || subscription.expires_at.is_some_and(|e| e <= now) {
            return;
        }
        // After a standstill there is one notification, not one for each interval that has passed.
        let n_passed = now.micros_since(at) / interval_us;
        let at = at.plus_micros(n_passed * interval_us);
        self.come_back(at.plus_micros(interval_us), Arc::clone(&recipient), Due::Interval(Arc::clone(&watched), interval_us));
        recipient.set_told_at(at);
        let city = lock(&self.city).clone();
        let Some(city) = city.filter(|_| subscription.active) else { return };
        match all_matching(&city, &subscription.filter, now) {
            Ok(entities) if entities.is_empty() => {}
            Ok(entities) => recipient.push(told::at_interval(at, &entities)),
            Err(e) => tracing::error!(subscription = recipient.id(), error = chain(&e), "nothing is told at this interval"),
        }
    }
}

/// The first [`INTERVAL_ENTITIES_MAX`] entities that match.
fn all_matching(city: &LiveTable, filter: &Filter, now: Instant) -> Result<Vec<Arc<Entity>>, store::state::DocumentsError> {
    let mut all: Vec<Arc<Entity>> = Vec::new();
    loop {
        let page = city.try_page(&PageRequest {
            filter,
            offset: all.len(),
            limit: ENTITIES_PER_NOTIFICATION_MAX,
            count: false,
            after: None,
            order_by: None,
            text: None,
            now: Some(now),
        })?;
        all.extend(page.entities);
        if !page.more {
            return Ok(all);
        }
        if all.len() >= INTERVAL_ENTITIES_MAX {
            tracing::warn!(limit = INTERVAL_ENTITIES_MAX, "a notification at an interval leaves out what is more than the limit");
            return Ok(all);
        }
    }
}
