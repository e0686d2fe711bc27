//! What waits for one subscriber, and how its delivery is going.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use entity::Instant;
use host::Clock;
use prometheus_client::metrics::counter::Counter;
use serde::{Deserialize, Serialize};
use store::state::weight_of;
use tokio::sync::Notify;

use super::told::Told;
use crate::metrics::{Metrics, Sort};
use crate::subscription::{Cause, DeliveryStatus, Notification, Subscription};

/// Entities in one notification; what is more goes into further parts.
pub const ENTITIES_PER_NOTIFICATION_MAX: usize = 1_000;
/// Entities that are held back for one subscription; when there are more, they are told before their time.
pub const HELD_ENTITIES_MAX: usize = 10_000;

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Notifications of one subscription.
    pub(crate) entries: usize,
    /// Bytes of one subscription's notifications.
    pub(crate) bytes: usize,
    /// Bytes of all.
    pub(crate) total_bytes: usize,
}

/// Notifications of one subscription that may wait.
pub const WAITING_PER_SUBSCRIPTION_MAX: usize = 10_000;
/// Bytes of memory that one subscription's waiting notifications may take.
pub const WAITING_BYTES_PER_SUBSCRIPTION_MAX: usize = 64 << 20;
/// Bytes of memory that all waiting notifications may take. What several subscriptions share is counted for each of them.
pub const WAITING_BYTES_MAX: usize = 512 << 20;

impl Default for Limits {
    fn default() -> Self {
        Self { entries: WAITING_PER_SUBSCRIPTION_MAX, bytes: WAITING_BYTES_PER_SUBSCRIPTION_MAX, total_bytes: WAITING_BYTES_MAX }
    }
}

/// Brings notifications to where they belong. The edge implements it.
pub trait Deliverer: Send + Sync {
    /// Something waits for this subscriber. From now on [`Recipient::next`] is to be called, again after each delivery, until it gives
    /// nothing; only then this is called again for the same one. It must be quick.
    fn wake(&self, recipient: Arc<Recipient>);
}

/// A subscription with what the edge has prepared for it.
pub struct Watched {
    /// The subscription.
    pub subscription: Subscription,
    plan: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Watched {
    pub(crate) fn new(subscription: Subscription) -> Self {
        Self { subscription, plan: OnceLock::new() }
    }

    /// What the edge has prepared for each notification, if it has.
    #[must_use]
    pub fn plan<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.plan.get().and_then(|p| Arc::clone(p).downcast().ok())
    }

    /// Keeps what the edge has prepared, as long as the subscription is as it is. The first one stays.
    pub fn keep_plan<T: Any + Send + Sync>(&self, plan: Arc<T>) {
        // Somebody else may have been faster with the same.
        let _ = self.plan.set(plan);
    }
}

/// What all recipients share.
pub(crate) struct Shared {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) deliverer: RwLock<Option<Arc<dyn Deliverer>>>,
    pub(crate) limits: Limits,
    // Looked up once, not for each notification.
    sent: Counter,
    failed: Counter,
    dropped: Counter,
    bytes: AtomicUsize,
    changed: Mutex<Vec<Arc<Recipient>>>,
}

impl Shared {
    pub(crate) fn new(clock: Arc<dyn Clock>, metrics: Arc<Metrics>, limits: Limits) -> Self {
        let counter = |sort| metrics.notifications.get_or_create(&Sort::of(sort)).clone();
        Self {
            sent: counter("sent"),
            failed: counter("failed"),
            dropped: counter("dropped"),
            clock,
            metrics,
            deliverer: RwLock::default(),
            limits,
            bytes: AtomicUsize::new(0),
            changed: Mutex::default(),
        }
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::from_micros(self.clock.now_micros())
    }

    /// Those whose progress has changed since the last call.
    pub(crate) fn take_changed(&self) -> Vec<Arc<Recipient>> {
        std::mem::take(&mut *lock(&self.changed))
    }
}

/// How far a subscriber has come: what a restart has to know.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub(crate) id: String,
    /// When the subscription was made: what is known of an earlier one with the same id is not of this one.
    pub(crate) created_at: Instant,
    /// Everything that follows from changes up to here is delivered or given up.
    pub(crate) finished: u64,
    pub(crate) told_at: Option<Instant>,
    pub(crate) status: DeliveryStatus,
}

/// A subscriber: its subscription, what waits for it, and how its delivery is going.
pub struct Recipient {
    id: String,
    pub(crate) created_at: Instant,
    watched: RwLock<Arc<Watched>>,
    queue: Mutex<Queue>,
    changed: Notify,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Arc<Notification>, usize)>,
    bytes: usize,
    /// The deliverer has it and will come back.
    is_scheduled: bool,
    /// The first is on its way.
    is_under_way: bool,
    is_gone: bool,
    finished: u64,
    /// Up to here what is to be told waits already: it was persisted.
    restored: u64,
    told_at: Option<Instant>,
    /// What is held back until there may be a notification again.
    held: Option<Told>,
    next_attempt: Option<Instant>,
    n_failures: u32,
    status: DeliveryStatus,
    is_changed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recipient {
    pub(crate) fn new(watched: Arc<Watched>, created_at: Instant, shared: Arc<Shared>) -> Self {
        Self {
            id: watched.subscription.id.clone(),
            created_at,
            watched: RwLock::new(watched),
            queue: Mutex::default(),
            changed: Notify::new(),
            shared,
        }
    }

    /// The subscription's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The subscription as it is now.
    #[must_use]
    pub fn watched(&self) -> Arc<Watched> {
        Arc::clone(&self.watched.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How delivery is going.
    #[must_use]
    pub fn status(&self) -> DeliveryStatus {
        let queue = lock(&self.queue);
        DeliveryStatus {
            waiting: queue.waiting.len(),
            waiting_bytes: queue.bytes,
            waiting_since: queue.waiting.front().map(|(n, _)| n.since),
            next_attempt: queue.next_attempt,
            ..queue.status.clone()
        }
    }

    /// Attempts that have failed since the last success.
    #[must_use]
    pub fn n_failures(&self) -> u32 {
        lock(&self.queue).n_failures
    }

    /// Returns when the subscription is another one than this, or has ended: who waits for the next attempt should not wait any longer.
    pub async fn changed_since(&self, known: &Arc<Watched>) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Before looking: a change that comes between the look and the wait is not missed.
            changed.as_mut().enable();
            if !Arc::ptr_eq(&self.watched(), known) || self.is_gone() {
                return;
            }
            changed.await;
        }
    }

    /// What is to be delivered next; none if nothing is, and then the deliverer is done until it is woken again.
    #[must_use]
    pub fn next(&self) -> Option<(Arc<Watched>, Arc<Notification>)> {
        let mut queue = lock(&self.queue);
        // Under the lock: otherwise the end of a pause could go unnoticed.
        let watched = self.watched();
        let subscription = &watched.subscription;
        let is_over = subscription.expires_at.is_some_and(|e| e <= self.shared.now());
        if is_over || queue.is_gone {
            self.forget(&mut queue);
        }
        queue.is_under_way = subscription.active && !queue.waiting.is_empty();
        queue.is_scheduled = queue.is_under_way;
        let first = queue.waiting.front().filter(|_| queue.is_under_way).map(|(n, _)| Arc::clone(n));
        first.map(|n| (Arc::clone(&watched), n))
    }

    /// What [`Self::next`] gave was delivered.
    pub fn delivered(self: &Arc<Self>) {
        let now = self.shared.now();
        self.shared.sent.inc();
        let mut queue = lock(&self.queue);
        queue.status.times_sent += 1;
        queue.status.last_notification = Some(now);
        queue.status.last_success = Some(now);
        queue.status.last_error = None;
        queue.n_failures = 0;
        self.finish_first(&mut queue);
        self.note_changed(&mut queue);
    }

    /// What [`Self::next`] gave could not be delivered, and will be tried again at `next_attempt`.
    pub fn failed(self: &Arc<Self>, reason: &str, next_attempt: Instant) {
        self.note_failure(&mut lock(&self.queue), reason, Some(next_attempt));
    }

    /// What [`Self::next`] gave could not be delivered and never will be: it is given up, and said so.
    pub fn refused(self: &Arc<Self>, reason: &str) {
        let mut queue = lock(&self.queue);
        self.note_failure(&mut queue, reason, None);
        self.note_dropped(&mut queue, reason);
        self.finish_first(&mut queue);
        queue.n_failures = 0;
    }

    fn note_failure(self: &Arc<Self>, queue: &mut Queue, reason: &str, next_attempt: Option<Instant>) {
        let now = self.shared.now();
        self.shared.failed.inc();
        queue.status.times_sent += 1;
        queue.status.times_failed += 1;
        queue.status.last_notification = Some(now);
        queue.status.last_failure = Some(now);
        queue.status.last_error = Some(reason.to_owned());
        queue.n_failures = queue.n_failures.saturating_add(1);
        queue.next_attempt = next_attempt;
        // What waits may be given up for want of room from here on, the first as well.
        queue.is_under_way = false;
        self.note_changed(queue);
    }

    fn finish_first(&self, queue: &mut Queue) {
        queue.is_under_way = false;
        queue.next_attempt = None;
        if let Some((notification, bytes)) = queue.waiting.pop_front() {
            self.release(queue, bytes);
            if let (Cause::Change(position), true) = (notification.cause, notification.is_last_part) {
                queue.finished = queue.finished.max(position);
            }
        }
    }

    fn release(&self, queue: &mut Queue, bytes: usize) {
        queue.bytes -= bytes;
        self.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn forget(&self, queue: &mut Queue) {
        let bytes = std::mem::take(&mut queue.bytes);
        self.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
        queue.waiting.clear();
        queue.held = None;
        queue.next_attempt = None;
    }

    fn note_changed(self: &Arc<Self>, queue: &mut Queue) {
        if !std::mem::replace(&mut queue.is_changed, true) {
            lock(&self.shared.changed).push(Arc::clone(self));
        }
    }

    fn note_dropped(&self, queue: &mut Queue, reason: &str) {
        self.shared.dropped.inc();
        queue.status.dropped += 1;
        // One line for each power of two: a dead endpoint must not fill the disk with complaints.
        if queue.status.dropped.is_power_of_two() {
            tracing::warn!(subscription = %self.id, dropped = queue.status.dropped, reason, "notifications are given up");
        }
        queue.status.last_dropped = Some(reason.to_owned());
    }

    /// Is what follows from this position told already, or in the queue?
    pub(crate) fn has_heard_of(&self, position: u64) -> bool {
        let queue = lock(&self.queue);
        position <= queue.finished.max(queue.restored)
    }

    /// Something to tell. With throttling it may be held back; then the time is returned at which [`Self::release_held`] is to be called.
    /// What has been held back since then is told at that time as well.
    pub(super) fn tell(self: &Arc<Self>, told: Told, throttling_us: Option<i64>) -> Option<Instant> {
        let Some(gap_us) = throttling_us else {
            // Held back before a patch took the throttling away: it must not come behind what is later.
            let held = lock(&self.queue).held.take();
            let told = match held {
                Some(mut held) => {
                    held.append(told);
                    held
                }
                None => told,
            };
            self.push(told.parts());
            return None;
        };
        let mut queue = lock(&self.queue);
        if let Some(held) = &mut queue.held {
            held.append(told);
            let is_full = held.n_entities() > HELD_ENTITIES_MAX;
            drop(queue);
            if is_full {
                self.release_held(self.shared.now());
            }
            return None;
        }
        let due = queue.told_at.map(|at| at.plus_micros(gap_us)).filter(|due| *due > told.since());
        if due.is_some() {
            queue.held = Some(told);
            return due;
        }
        queue.told_at = Some(told.since());
        drop(queue);
        self.push(told.parts());
        None
    }

    /// The gap between two notifications is over.
    pub(crate) fn release_held(self: &Arc<Self>, now: Instant) {
        let mut queue = lock(&self.queue);
        if let Some(held) = queue.held.take() {
            queue.told_at = Some(now);
            drop(queue);
            self.push(held.parts());
        }
    }

    /// Puts them behind what waits.
    pub(crate) fn push(self: &Arc<Self>, parts: Vec<Notification>) {
        let mut queue = lock(&self.queue);
        if queue.is_gone {
            return;
        }
        for part in parts {
            self.push_part(&mut queue, part);
        }
        self.note_changed(&mut queue);
        drop(queue);
        self.wake();
    }

    fn push_part(&self, queue: &mut Queue, notification: Notification) {
        let limits = self.shared.limits;
        let bytes = notification.weight();
        queue.bytes += bytes;
        let mut total = self.shared.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        queue.waiting.push_back((Arc::new(notification), bytes));
        loop {
            let first = usize::from(queue.is_under_way);
            let reason = if queue.waiting.len() > limits.entries {
                format!("more than {} notifications wait for this subscription", limits.entries)
            } else if queue.bytes > limits.bytes {
                format!("notifications of more than {} MiB wait for this subscription", limits.bytes >> 20)
            } else if total > limits.total_bytes {
                format!("notifications of more than {} MiB wait in this node", limits.total_bytes >> 20)
            } else {
                return;
            };
            // The newest stays in any case.
            if queue.waiting.len() <= first + 1 {
                return;
            }
            let Some((_, bytes)) = queue.waiting.remove(first) else { return };
            self.release(queue, bytes);
            total -= bytes.min(total);
            self.note_dropped(queue, &reason);
        }
    }

    /// Tells the deliverer if there is something and it does not know.
    pub(crate) fn wake(self: &Arc<Self>) {
        let deliverer = self.shared.deliverer.read().unwrap_or_else(PoisonError::into_inner);
        let Some(deliverer) = deliverer.as_ref() else { return };
        {
            let is_active = self.watched.read().unwrap_or_else(PoisonError::into_inner).subscription.active;
            let mut queue = lock(&self.queue);
            if queue.is_scheduled || queue.is_gone || !is_active || queue.waiting.is_empty() {
                return;
            }
            queue.is_scheduled = true;
        }
        deliverer.wake(Arc::clone(self));
    }

    /// The subscription has changed.
    pub(crate) fn set(self: &Arc<Self>, watched: Arc<Watched>) {
        *self.watched.write().unwrap_or_else(PoisonError::into_inner) = watched;
        self.changed.notify_waiters();
        self.wake();
    }

    /// The subscription is gone: nothing is told any more.
    pub(crate) fn end(&self) {
        let mut queue = lock(&self.queue);
        queue.is_gone = true;
        self.forget(&mut queue);
        self.changed.notify_waiters();
    }

    pub(crate) fn is_gone(&self) -> bool {
        lock(&self.queue).is_gone
    }

    pub(crate) fn told_at(&self) -> Option<Instant> {
        lock(&self.queue).told_at
    }

    pub(crate) fn set_told_at(self: &Arc<Self>, at: Instant) {
        let mut queue = lock(&self.queue);
        queue.told_at = Some(at);
        self.note_changed(&mut queue);
    }

    /// How far it has come, to be written.
    pub(crate) fn take_progress(&self) -> Progress {
        let mut queue = lock(&self.queue);
        queue.is_changed = false;
        Progress {
            id: self.id.clone(),
            created_at: self.created_at,
            finished: queue.finished,
            told_at: queue.told_at,
            status: queue.status.clone(),
        }
    }

    /// As far as it had come.
    pub(crate) fn restore(&self, progress: Progress) {
        let mut queue = lock(&self.queue);
        queue.finished = progress.finished;
        queue.told_at = progress.told_at;
        queue.status = progress.status;
    }

    /// What was persisted at a checkpoint.
    pub(crate) fn restore_waiting(&self, waiting: Vec<Notification>) {
        let mut queue = lock(&self.queue);
        for notification in waiting {
            let Cause::Change(position) = notification.cause else { continue };
            if position > queue.finished {
                queue.restored = queue.restored.max(position);
                self.push_part(&mut queue, notification);
            }
        }
    }

    /// What waits of changes before a position, that which is held back included.
    pub(crate) fn waiting_before(&self, position: u64) -> Vec<Arc<Notification>> {
        let queue = lock(&self.queue);
        let held = queue.held.iter().flat_map(Told::parts).map(Arc::new);
        let all = queue.waiting.iter().map(|(n, _)| Arc::clone(n)).chain(held);
        all.filter(|n| matches!(n.cause, Cause::Change(_)) && n.first_position < position).collect()
    }
}

impl Notification {
    /// About how many bytes of memory it takes; what others share is counted as if it were its own.
    fn weight(&self) -> usize {
        let entities = self.entities.iter().map(|(now, before)| weight_of(now) + before.as_deref().map_or(0, weight_of));
        128 + entities.sum::<usize>() + self.deleted.iter().map(|(e, _)| weight_of(e)).sum::<usize>()
    }
}

#[cfg(test)]
#[path = "recipient_tests.rs"]
mod tests;
