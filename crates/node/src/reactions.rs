//! What follows from a commit: notifications.
//!
//! A thread of its own reads the committed batches in order, so that matching does not hold up writers; the queue to it is bounded, and a
//! full queue makes writers wait instead of losing a notification.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use entity::Instant;
use host::Clock;
use store::Committed;
use store::state::Space;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::metrics::{Metrics, Sort};
use crate::subscription::{DeliveryStatus, Notification, Subscription};

/// Batches between the committer and the reactions; above that writers wait.
const BATCHES_WAITING_MAX: usize = 1_024;

/// The subscriptions and what is known of their delivery.
pub(crate) struct Subscriptions {
    by_id: RwLock<HashMap<String, Arc<Subscription>>>,
    status: Mutex<HashMap<String, (DeliveryStatus, Option<Instant>)>>,
    sender: Mutex<Option<Sender<Notification>>>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

impl Subscriptions {
    pub(crate) fn new(clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self { by_id: RwLock::default(), status: Mutex::default(), sender: Mutex::default(), clock, metrics }
    }

    /// Where notifications go from now on.
    pub(crate) fn deliver_to(&self, sender: Sender<Notification>) {
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
    }

    pub(crate) fn put(&self, subscription: Subscription) {
        self.by_id.write().unwrap_or_else(PoisonError::into_inner).insert(subscription.id.clone(), Arc::new(subscription));
    }

    pub(crate) fn remove(&self, id: &str) {
        self.by_id.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        self.status.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Subscription>> {
        self.by_id.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Subscription>> {
        let mut all: Vec<_> = self.by_id.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    pub(crate) fn status(&self, id: &str) -> DeliveryStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).get(id).map(|(s, _)| s.clone()).unwrap_or_default()
    }

    pub(crate) fn update_status(&self, id: &str, f: impl FnOnce(&mut DeliveryStatus)) {
        // Only of subscriptions that exist: a late delivery must not bring back what was deleted.
        if self.get(id).is_some() {
            f(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner).entry(id.to_owned()).or_default().0);
        }
    }

    /// True if a throttled subscription may be told again; then the time is noted.
    fn may_tell(&self, subscription: &Subscription, now: Instant) -> bool {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let told_at = &mut status.entry(subscription.id.clone()).or_default().1;
        let may = match (subscription.throttling_us, *told_at) {
            (Some(gap), Some(at)) => now.micros_since(at) >= gap,
            _ => true,
        };
        if may {
            *told_at = Some(now);
        }
        may
    }

    fn react(&self, changes: &[Committed]) {
        let now = Instant::from_micros(self.clock.now_micros());
        for subscription in self.all() {
            if !subscription.active || subscription.expires_at.is_some_and(|e| e <= now) {
                continue;
            }
            let mut notification = Notification { subscription: Arc::clone(&subscription), entities: Vec::new(), deleted: Vec::new() };
            for change in changes.iter().filter(|c| c.space == Space::City && subscription.concerns(c)) {
                // One notification per batch and subscription shows an entity once, in its last state.
                let shown =
                    notification.entities.iter().position(|(e, _)| e.id == change.delta.id).map(|i| notification.entities.remove(i));
                let before = shown.map_or_else(|| change.before.clone(), |(_, before)| before);
                match (&change.after, &change.before) {
                    (Some(e), _) => notification.entities.push((Arc::clone(e), before)),
                    (None, Some(e)) => notification.deleted.push((Arc::clone(e), change.recorded_at)),
                    (None, None) => {}
                }
            }
            if (!notification.entities.is_empty() || !notification.deleted.is_empty()) && self.may_tell(&subscription, now) {
                self.send(notification);
            }
        }
    }

    fn send(&self, notification: Notification) {
        let id = notification.subscription.id.clone();
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let refused = match sender.map(|s| s.try_send(notification)) {
            Some(Ok(())) => return,
            Some(Err(TrySendError::Full(_))) => "the delivery queue is full",
            Some(Err(TrySendError::Closed(_))) | None => "nothing delivers notifications",
        };
        tracing::warn!(subscription = %id, refused, "notification dropped");
        self.metrics.notifications.get_or_create(&Sort::of("dropped")).inc();
        self.update_status(&id, |s| {
            s.dropped += 1;
            s.last_error = Some(refused.to_owned());
        });
    }
}

/// Starts the thread; the sender takes the committed batches.
pub(crate) fn start(subscriptions: Arc<Subscriptions>) -> std::io::Result<SyncSender<Arc<Vec<Committed>>>> {
    let (sender, inbox): (_, Receiver<Arc<Vec<Committed>>>) = sync_channel(BATCHES_WAITING_MAX);
    std::thread::Builder::new().name("reactions".to_owned()).spawn(move || {
        while let Ok(batch) = inbox.recv() {
            subscriptions.react(&batch);
        }
    })?;
    Ok(sender)
}
