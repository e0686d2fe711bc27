//! The list of backups in a place, and removing old ones.

use std::collections::HashSet;
use std::sync::Arc;

use entity::Instant;
use host::Clock;
use serde::Serialize;

use super::mark::{Mark, Work};
use super::{Backup, BackupError, Place, Progress, backups_in};

const DAY_US: i64 = 24 * 3_600_000_000;
/// Where the parts of backups are.
const LEVELS: [&str; 3] = ["documents", "segments", "log"];

/// A backup, as a list shows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupInfo {
    /// Its name in the place.
    pub name: String,
    /// When it was made.
    pub created_at: String,
    /// Version of the program that made it.
    pub created_by: String,
    /// The earliest recorded time to which it restores.
    pub earliest_recorded_at: String,
    /// When the last change in it was recorded.
    pub until_recorded_at: String,
    /// The position up to which it goes.
    pub until: u64,
    /// Documents in it.
    pub n_documents: u64,
    /// Files of the history in it.
    pub n_segments: usize,
    /// Bytes of all that belongs to it, also of what it shares with others.
    pub bytes: u64,
}

/// The backups in a place, the oldest first.
pub fn list(place: &Place) -> Result<Vec<BackupInfo>, BackupError> {
    let info = |(name, b): (String, Backup)| BackupInfo {
        name,
        created_at: b.created_at.to_string(),
        earliest_recorded_at: b.earliest_recorded_at().to_string(),
        until_recorded_at: b.until_recorded_at.to_string(),
        until: b.until,
        n_documents: b.n_documents,
        n_segments: b.segments.len(),
        bytes: b.parts().map(|p| p.bytes).sum(),
        created_by: b.created_by,
    };
    Ok(backups_in(place)?.into_iter().map(info).collect())
}

/// Which backups stay: what either of the two wants, and always the newest one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Keep {
    /// So many of the newest.
    pub newest: Option<usize>,
    /// Those made in the last so many days.
    pub days: Option<u32>,
}

impl Keep {
    /// Does it say anything? Otherwise everything stays.
    #[must_use]
    pub const fn is_given(&self) -> bool {
        self.newest.is_some() || self.days.is_some()
    }

    /// Errors: it makes no sense.
    pub fn check(&self) -> Result<(), BackupError> {
        let refused = |what: &str| Err(BackupError::Keep { what: what.to_owned() });
        match self {
            Self { newest: Some(0), .. } => refused("at least 1 backup has to be kept"),
            Self { days: Some(0), .. } => refused("backups have to be kept for at least 1 day"),
            _ => Ok(()),
        }
    }

    fn keeps(&self, n_newer: usize, created_at: Instant, now: Instant) -> bool {
        let is_young = |days: u32| created_at.micros() >= now.micros().saturating_sub(i64::from(days) * DAY_US);
        n_newer == 0 || !self.is_given() || self.newest.is_some_and(|n| n_newer < n) || self.days.is_some_and(is_young)
    }
}

/// What a pruning removed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pruned {
    /// Backups that are left.
    pub n_kept: usize,
    /// Names of the backups that are gone.
    pub removed: Vec<String>,
    /// Objects that no backup named any more.
    pub n_objects: u64,
    /// Their bytes.
    pub bytes_freed: u64,
}

/// Removes the backups that nobody wants to keep, and then the objects that no backup names.
///
/// A crash in between leaves objects that the next pruning removes, never a backup that lacks one. Nothing is removed if one of the lists
/// of backups cannot be read.
///
/// Errors: a backup into the place is under way ([`BackupError::BeingMade`]): later; the place refuses.
pub fn prune(place: &Arc<Place>, keep: &Keep, clock: &Arc<dyn Clock>, progress: Progress<'_>) -> Result<Pruned, BackupError> {
    keep.check()?;
    let mut mark = Mark::set(place, clock, Work::Pruning)?;
    let now = Instant::from_micros(clock.now_micros());
    let backups = backups_in(place)?;
    let mut pruned = Pruned::default();
    let mut named: HashSet<&str> = HashSet::new();
    for (i, (name, backup)) in backups.iter().enumerate() {
        if keep.keeps(backups.len() - 1 - i, backup.created_at, now) {
            pruned.n_kept += 1;
            named.extend(backup.parts().map(|p| p.name.as_str()));
        } else {
            mark.renew()?;
            place.delete(name)?;
            pruned.removed.push(name.clone());
        }
    }
    for level in LEVELS {
        let mut unnamed = place.walk(level)?;
        unnamed.retain(|(name, _)| !named.contains(name.as_str()));
        for (i, (name, bytes)) in unnamed.iter().enumerate() {
            progress("removing", i as u64, unnamed.len() as u64);
            mark.renew()?;
            place.delete(name)?;
            pruned.n_objects += 1;
            pruned.bytes_freed += bytes;
        }
    }
    Ok(pruned)
}
