//! Backups that the node makes by itself, and what is known of those it made.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use entity::Instant;
use host::chain;
use policy::{Action, Principal};
use serde::Serialize;
use store::backup::{BackupError, Keep, Place, Pruned, Summary};

use crate::error::NodeError;
use crate::metrics::Sort;
use crate::node::Node;

/// A backup that failed is tried again after this time, or at its next turn if that comes first.
const RETRY_AFTER: Duration = Duration::from_mins(10);

/// Backups made by themselves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackupSchedule {
    /// Folder or `s3://bucket/prefix`.
    pub to: String,
    /// From the beginning of one to that of the next.
    pub every: Duration,
    /// Which stay.
    pub keep: Keep,
}

/// A backup under way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupRunning {
    /// Where to.
    pub to: String,
    /// Since when.
    pub started_at: String,
    /// What is being copied.
    pub step: String,
    /// How much of that is done, in the unit that the step names.
    pub done: u64,
    /// Of how much.
    pub total: u64,
}

/// A backup that was made.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupMade {
    /// Where to.
    pub to: String,
    /// When it was complete.
    pub completed_at: String,
    /// How long it took.
    pub seconds: f64,
    /// What it took.
    #[serde(flatten)]
    pub summary: Summary,
    /// What was removed afterwards, if something was to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pruned: Option<Pruned>,
    /// Why old backups were not removed, if they were to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prune_error: Option<String>,
}

/// A backup that was not made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupFailed {
    /// Where to.
    pub to: String,
    /// When.
    pub at: String,
    /// Why.
    pub error: String,
}

/// What is known of this node's backups since it was started.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// When the next one begins, if there is a schedule.
    pub next_at: Option<String>,
    /// What is being done.
    pub running: Option<BackupRunning>,
    /// The last success.
    pub last: Option<BackupMade>,
    /// The last failure, if there was no success after it.
    pub last_error: Option<BackupFailed>,
}

/// The state of [`BackupStatus`].
#[derive(Default)]
pub(crate) struct Backups {
    status: Mutex<BackupStatus>,
    /// Held by the one who makes one: they come one after the other.
    turn: Mutex<()>,
}

impl Backups {
    // Each holder changes it by one complete step.
    fn status(&self) -> MutexGuard<'_, BackupStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node {
    /// Makes a backup to a folder or `s3://bucket/prefix`, then removes old ones there as `keep` says, and waits until that is done. Blocks
    /// the thread. That old ones could not be removed is in the answer, and no error: the backup is there.
    pub fn backup(&self, who: &Principal, to: &str, keep: &Keep) -> Result<BackupMade, NodeError> {
        self.permit(who, Action::Administer, None)?;
        keep.check().map_err(|e| NodeError::Invalid { what: chain(&e) })?;
        let place = Place::open(to).map_err(|e| NodeError::Invalid { what: chain(&e) })?;
        self.make_backup(&Arc::new(place), keep).map_err(|e| NodeError::Backup(Arc::new(e)))
    }

    /// What is known of the backups.
    pub fn backups(&self, who: &Principal) -> Result<BackupStatus, NodeError> {
        self.permit(who, Action::Administer, None)?;
        Ok(self.backups.status().clone())
    }

    /// How long until the schedule's next backup is due: at once if there is none that is young enough. Looks into the place, so that a node
    /// which is restarted often makes backups neither too often nor never. Blocks the thread.
    pub fn backup_due_in(&self, schedule: &BackupSchedule) -> Duration {
        let newest = Place::open(&schedule.to).map_err(BackupError::from).and_then(|place| store::backup::list(&place));
        let wait = match newest {
            Ok(list) => {
                let newest = list.iter().filter_map(|b| b.created_at.parse::<Instant>().ok()).max();
                let age = newest.map(|at| Duration::from_micros(self.now().micros().saturating_sub(at.micros()).unsigned_abs()));
                age.map_or(Duration::ZERO, |age| schedule.every.saturating_sub(age))
            }
            // The backup will say what is wrong.
            Err(_) => Duration::ZERO,
        };
        self.note_next(wait);
        wait
    }

    /// Makes the schedule's backup, logs what came of it, and says how long to wait until the next one. Blocks the thread.
    pub fn scheduled_backup(&self, schedule: &BackupSchedule) -> Duration {
        let started_at = self.now();
        let made =
            Place::open(&schedule.to).map_err(BackupError::from).and_then(|place| self.make_backup(&Arc::new(place), &schedule.keep));
        let wait = match made {
            Ok(_) => {
                let took = Duration::from_micros(self.now().micros().saturating_sub(started_at.micros()).unsigned_abs());
                schedule.every.saturating_sub(took)
            }
            Err(_) => RETRY_AFTER.min(schedule.every),
        };
        self.note_next(wait);
        wait
    }

    fn note_next(&self, wait: Duration) {
        let at = self.now().micros().saturating_add(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX));
        self.backups.status().next_at = Some(Instant::from_micros(at).to_string());
    }

    fn make_backup(&self, place: &Arc<Place>, keep: &Keep) -> Result<BackupMade, BackupError> {
        let _turn = self.backups.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (to, started_at) = (place.shown().to_owned(), self.now());
        let progress = |step: &str, done: u64, total: u64| {
            let (to, started_at) = (to.clone(), started_at.to_string());
            self.backups.status().running = Some(BackupRunning { to, started_at, step: step.to_owned(), done, total });
        };
        let made = self.store.backup(place, &self.clock, &progress).map(|summary| {
            let completed_at = self.now();
            let pruned = keep.is_given().then(|| store::backup::prune(place, keep, &self.clock, &progress));
            let (pruned, prune_error) = match pruned.transpose() {
                Ok(pruned) => (pruned, None),
                Err(e) => (None, Some(chain(&e))),
            };
            let seconds = completed_at.micros().saturating_sub(started_at.micros()) as f64 / 1e6;
            BackupMade { to: to.clone(), completed_at: completed_at.to_string(), seconds, summary, pruned, prune_error }
        });
        self.backups.status().running = None;
        match &made {
            Ok(made) => self.note_made(made),
            Err(e) => self.note_failed(&to, e),
        }
        made
    }

    fn note_made(&self, made: &BackupMade) {
        let BackupMade { to, summary, .. } = made;
        self.metrics().backups.get_or_create(&Sort::of("made")).inc();
        self.metrics().backup_last_success.set(self.now().micros() / 1_000_000);
        self.metrics().backup_last_bytes.set(i64::try_from(summary.bytes_written).unwrap_or(i64::MAX));
        let n_removed = made.pruned.as_ref().map_or(0, |p| p.removed.len());
        tracing::info!(to, name = summary.name, bytes = summary.bytes_written, seconds = made.seconds, n_removed, "a backup was made");
        if let Some(error) = &made.prune_error {
            tracing::warn!(to, error, "old backups were not removed; the next backup tries it again");
        }
        let mut status = self.backups.status();
        status.last = Some(made.clone());
        status.last_error = None;
    }

    fn note_failed(&self, to: &str, e: &BackupError) {
        if matches!(e, BackupError::Closing) {
            return tracing::info!(to, "a backup was given up, for the node is shutting down");
        }
        self.metrics().backups.get_or_create(&Sort::of("failed")).inc();
        tracing::error!(to, error = e as &dyn std::error::Error, "a backup was not made");
        self.backups.status().last_error = Some(BackupFailed { to: to.to_owned(), at: self.now().to_string(), error: chain(e) });
    }
}
