//! The registrations of context sources: kept like subscriptions, indexed in memory, with how asking each source goes
//! (ETSI GS CIM 009 V1.9.1, clauses 5.2.9, 5.9 and 5.10).

mod followers;
mod operations;
mod table;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use entity::Instant;
use entity::registration::{OperationSet, Registration};
use tokio::sync::broadcast;

pub use followers::{FOLLOWERS_MAX, Follower};
pub(crate) use followers::{Followers, load_followers};
pub(crate) use operations::load_registrations;
use table::Table;

/// Registrations of a node.
pub const REGISTRATIONS_MAX: usize = 10_000;

/// Changes of registrations that whoever follows them may fall behind.
const CHANGES_WAITING_MAX: usize = 4_096;

/// How asking a source goes (clause 5.2.9, output only). Counted since the node was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SourceStatus {
    /// Requests, failed ones included.
    pub times_sent: u64,
    /// Requests that failed.
    pub times_failed: u64,
    /// When the last one that succeeded was answered.
    pub last_success: Option<Instant>,
    /// When the last one failed.
    pub last_failure: Option<Instant>,
    /// Until when the source is left alone.
    pub cooling_until: Option<Instant>,
    /// When it last did not answer at all, unless it has answered since.
    pub silent_since: Option<Instant>,
}

/// How asking a source went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// It answered, be it that it does not have what was asked for.
    Answered,
    /// It refused, or its answer is of no use.
    Failed,
    /// Nothing came in time.
    Silent,
}

/// For so long a source that did not answer is not asked again for something to read, microseconds: one that hangs would hold up every reader.
const SILENT_US: i64 = 1_000_000;

/// A registration with how asking its source goes.
#[derive(Debug)]
pub struct Registered {
    /// What was registered.
    pub registration: Registration,
    /// The operations that the source supports.
    pub supported: OperationSet,
    /// Shared by the versions of a registration.
    status: Arc<Mutex<SourceStatus>>,
}

/// Something that happened to a registration: new without a before, gone without an after.
#[derive(Clone, Debug)]
pub struct RegistryChange {
    /// As it was.
    pub before: Option<Arc<Registered>>,
    /// As it is.
    pub after: Option<Arc<Registered>>,
}

/// Something that concerns those who follow registrations.
#[derive(Clone, Debug)]
pub enum RegistryEvent {
    /// A registration is new, other than before, or gone.
    Registration(RegistryChange),
    /// A registration subscription is new, or other than before.
    Subscribed(String),
}

impl Registered {
    fn new(registration: Registration, status: Arc<Mutex<SourceStatus>>) -> Self {
        Self { supported: registration.supported(), registration, status }
    }

    /// How asking it goes.
    #[must_use]
    pub fn status(&self) -> SourceStatus {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that it was asked, and how it went. After a failure it is left alone as long as its registration says.
    pub fn note(&self, asked: Asked, now: Instant) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.times_sent += 1;
        status.silent_since = (asked == Asked::Silent).then_some(now);
        if asked == Asked::Answered {
            status.last_success = Some(now);
            status.cooling_until = None;
        } else {
            status.times_failed += 1;
            status.last_failure = Some(now);
            let cooldown_us =
                self.registration.management.cooldown_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000));
            status.cooling_until = cooldown_us.map(|us| Instant::from_micros(now.micros().saturating_add(us)));
        }
    }

    /// May it be asked for something to read? Of one that did not answer, one reader a second finds out whether it answers now; the others need
    /// not wait for that.
    #[must_use]
    pub fn may_be_read(&self, now: Instant) -> bool {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        match status.silent_since {
            Some(since) if now.micros_since(since) < SILENT_US => false,
            Some(_) => {
                status.silent_since = Some(now);
                true
            }
            None => true,
        }
    }

    /// Is it to be left alone, as its registration asks?
    #[must_use]
    pub fn is_cooling(&self, now: Instant) -> bool {
        self.status().cooling_until.is_some_and(|until| now < until)
    }
}

/// All registrations of a node.
pub(crate) struct Registry {
    table: RwLock<Table>,
    /// One change at a time, so that two that clash cannot both find that they do not.
    changing: tokio::sync::Mutex<()>,
    events: broadcast::Sender<RegistryEvent>,
    followers: Followers,
}

impl Default for Registry {
    fn default() -> Self {
        let events = broadcast::channel(CHANGES_WAITING_MAX).0;
        Self { table: RwLock::default(), changing: tokio::sync::Mutex::new(()), events, followers: Followers::default() }
    }
}

impl Registry {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts or replaces a registration and says so to those who follow.
    fn put(&self, registration: Registration) -> Arc<Registered> {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let before = table.remove(&registration.id);
        let status = before.as_ref().map(|b| Arc::clone(&b.status)).unwrap_or_default();
        let after = Arc::new(Registered::new(registration, status));
        table.insert(Arc::clone(&after));
        drop(table);
        // Nobody follows if this fails.
        let _ = self.events.send(RegistryEvent::Registration(RegistryChange { before, after: Some(Arc::clone(&after)) }));
        after
    }

    fn remove(&self, id: &entity::Iri) {
        let before = self.table.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        if before.is_some() {
            // Nobody follows if this fails.
            let _ = self.events.send(RegistryEvent::Registration(RegistryChange { before, after: None }));
        }
    }
}
