//! Who is at work in a place of backups: backups and prunings keep out of each other's way.
//!
//! A backup counts on the history's files that it finds in the place, and has named none of what it wrote until it is complete; a pruning
//! removes what no complete backup names. So each first writes its own mark and then looks for the other's: at least one of two that begin at
//! the same moment sees the other, and gives way. A mark is renewed while the work goes on, and one that has become stale is that of a
//! program that died.

use std::sync::Arc;
use std::time::Duration;

use host::Clock;
use serde::{Deserialize, Serialize};

use super::{BackupError, Place};

/// What is done in the place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Work {
    Backup,
    Pruning,
}

impl Work {
    const fn level(self) -> &'static str {
        match self {
            Self::Backup => "running",
            Self::Pruning => "pruning",
        }
    }

    /// A mark that was not renewed for so long is that of a program that died. What is done between two renewals takes far less: the writing
    /// of one file of the history, or the removal of one object.
    const fn stale_after(self) -> Duration {
        match self {
            Self::Backup => Duration::from_hours(6),
            Self::Pruning => Duration::from_hours(1),
        }
    }
}

/// A mark is renewed when it is this old.
const RENEW_AFTER: Duration = Duration::from_mins(5);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    renewed_us: i64,
}

/// The mark of work under way; it is removed when this is dropped.
pub(super) struct Mark {
    place: Arc<Place>,
    clock: Arc<dyn Clock>,
    work: Work,
    name: String,
    renewed_us: i64,
}

impl Mark {
    /// Begins. Errors: the other work is under way.
    pub(super) fn set(place: &Arc<Place>, clock: &Arc<dyn Clock>, work: Work) -> Result<Self, BackupError> {
        let now_us = clock.now_micros();
        let name = format!("{}/{now_us}-{}.json", work.level(), host::random_hex::<4>());
        let mut mark = Self { place: Arc::clone(place), clock: Arc::clone(clock), work, name, renewed_us: now_us };
        mark.write(now_us)?;
        let other = match work {
            Work::Backup => Work::Pruning,
            Work::Pruning => Work::Backup,
        };
        if is_under_way(place, other, now_us)? {
            let place = place.shown().to_owned();
            return Err(match other {
                Work::Backup => BackupError::BeingMade { place },
                Work::Pruning => BackupError::BeingPruned { place },
            });
        }
        Ok(mark)
    }

    fn write(&mut self, now_us: i64) -> Result<(), BackupError> {
        let content = serde_json::to_vec(&Content { renewed_us: now_us }).expect("a mark is JSON");
        self.place.put(&self.name, content)?;
        self.renewed_us = now_us;
        Ok(())
    }

    /// To be called before each step. Errors: so much time has passed that the other work may have begun.
    pub(super) fn renew(&mut self) -> Result<(), BackupError> {
        let now_us = self.clock.now_micros();
        let age = age(self.renewed_us, now_us);
        if age >= self.work.stale_after() {
            return Err(BackupError::TooSlow { place: self.place.shown().to_owned(), seconds: age.as_secs() });
        }
        if age >= RENEW_AFTER { self.write(now_us) } else { Ok(()) }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if let Err(e) = self.place.delete(&self.name) {
            tracing::warn!(error = &e as &dyn std::error::Error, "the mark of work in the place of backups stays until it is stale");
        }
    }
}

const fn age(then_us: i64, now_us: i64) -> Duration {
    Duration::from_micros(now_us.saturating_sub(then_us).unsigned_abs())
}

/// Is there a fresh mark? Removes stale ones.
fn is_under_way(place: &Place, work: Work, now_us: i64) -> Result<bool, BackupError> {
    let mut found = false;
    for name in place.list(work.level())? {
        let content = match place.get(&name) {
            Ok(bytes) => serde_json::from_slice::<Content>(&bytes),
            // Gone meanwhile.
            Err(_) if place.size(&name)?.is_none() => continue,
            Err(e) => return Err(e.into()),
        };
        // A clock that runs ahead must not make a mark stand for ever: the age counts both ways.
        if content.is_ok_and(|c| age(c.renewed_us, now_us) < work.stale_after()) {
            found = true;
        } else {
            place.delete(&name)?;
        }
    }
    Ok(found)
}
