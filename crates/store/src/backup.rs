//! Backups while the node works, and restoring them to any recorded time that they cover.
//!
//! A backup is a checkpoint (documents and the history's files) and the log from there on. Into one place go the backups of one store, one
//! after the other; the history's files never change and are copied once. Each backup also takes the log since the one before, as far as it is
//! kept, so that a restore can stop anywhere in between.
//!
//! ```text
//! backups/<position>-<time>.json     what belongs to a backup, with a CRC-32C of each object; written last
//! segments/<crc>-<bytes>-<file>      the history's files
//! documents/<backup>/<n>             (space:u8 bytes:u32 document)*
//! log/<first>-<next>                 (position:u64 bytes:u32 record)*
//! running/*, pruning/*               who is at work, see `mark`
//! ```
//!
//! Every backup can be restored to its end by itself; those before it are only needed for the times in between. So old ones can go
//! ([`prune`]).
//!
//! The city's key pair, the access tokens and the configuration are not in it: they are secrets, or made by hand, and belong elsewhere.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use entity::Instant;
use entity::codec::encode_entity;
use host::Clock;
use serde::{Deserialize, Serialize};

use crate::format::FormatError;
use crate::history::Segment;
use crate::log::{LogError, Read};
use crate::record;
use crate::state::{DocumentsError, Manifest, Space};
use crate::store::{CheckpointError, Held, Store};

mod mark;
mod place;
mod prune;
mod restore;

use mark::{Mark, Work};

pub use place::{Place, PlaceError};
pub use prune::{BackupInfo, Keep, Pruned, list, prune};
pub use restore::{RestoreTo, Restored, Until, restore};

/// Format of backups. Raise it with a migration on read.
const BACKUP_FORMAT: u32 = 1;
/// Backups in one place.
pub const BACKUPS_MAX: usize = 10_000;
/// Documents or records in one object, in bytes.
const PART_BYTES: usize = 32 << 20;

/// An object of a backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Part {
    name: String,
    bytes: u64,
    crc32c: u32,
}

/// A piece of the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct LogPart {
    first: u64,
    next: u64,
    part: Part,
}

/// What belongs to a backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Backup {
    format: u32,
    store_id: String,
    created_by: String,
    created_at: Instant,
    /// The checkpoint.
    manifest: Manifest,
    n_documents: u64,
    documents: Vec<Part>,
    /// In the order of the manifest.
    segments: Vec<Part>,
    log: Vec<LogPart>,
    /// The log is in it (and in those before) up to here.
    until: u64,
    /// When the record before `until` was recorded.
    until_recorded_at: Instant,
}

impl Backup {
    fn name(&self) -> String {
        format!("backups/{:020}-{}.json", self.until, self.created_at.micros())
    }

    /// All that belongs to it.
    fn parts(&self) -> impl Iterator<Item = &Part> {
        self.documents.iter().chain(&self.segments).chain(self.log.iter().map(|l| &l.part))
    }

    /// The earliest recorded time to which this backup can be restored: its files hold facts up to then.
    fn earliest_recorded_at(&self) -> Instant {
        let sealed = self.manifest.segments.iter().map(|s| s.recorded.1);
        sealed.chain([Instant::from_micros(self.manifest.last_recorded_us)]).max().unwrap_or_default()
    }
}

/// What a backup took.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Its name in the place.
    pub name: String,
    /// The position up to which it goes.
    pub until: u64,
    /// When the last change in it was recorded.
    pub until_recorded_at: String,
    /// Documents in it.
    pub n_documents: u64,
    /// Files of the history in it.
    pub n_segments: usize,
    /// Of these, how many were there from earlier backups.
    pub n_segments_known: usize,
    /// Bytes written now.
    pub bytes_written: u64,
    /// The log since the backup before is in it without a gap, so that every time in between can be restored.
    pub continuous: bool,
}

/// Why a backup was not made, or not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The place refuses.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The place has backups of another store.
    #[error("`{place}` holds backups of another store ({found}); this one is {own}: choose another place")]
    OtherStore {
        /// The place.
        place: String,
        /// Whose it is.
        found: String,
        /// This store.
        own: String,
    },
    /// There is nothing to restore.
    #[error("there is no backup in `{place}`")]
    NoBackup {
        /// The place.
        place: String,
    },
    /// No backup reaches back, or forward, so far.
    #[error("the backups in `{place}` can be restored to recorded times from {from} to {until}, and not to the one asked for")]
    NotCovered {
        /// The place.
        place: String,
        /// The earliest time.
        from: Instant,
        /// The latest time.
        until: Instant,
    },
    /// A part of the log is in no backup.
    #[error("the log from position {from} on is in no backup; from the backup `{backup}` everything before it can be restored")]
    Gap {
        /// Where it begins.
        from: u64,
        /// The backup before.
        backup: String,
    },
    /// An object is not what was written.
    #[error("`{name}` in the backup is damaged: {reason}")]
    Damaged {
        /// Which one.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The backup is of a newer format.
    #[error("backup `{name}` is of format {found}, this program reads up to format {BACKUP_FORMAT}: use a newer program")]
    Newer {
        /// Which one.
        name: String,
        /// Its format.
        found: u32,
    },
    /// The folder to restore to has something in it.
    #[error("folder `{dir}` is not empty: restore into a new one")]
    NotEmpty {
        /// The folder.
        dir: String,
    },
    /// A file of the folder cannot be read or written.
    #[error("cannot {action} `{path}`")]
    Io {
        /// `read`, `write`, ...
        action: &'static str,
        /// Which one.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A pruning waits until the backup under way is complete.
    #[error("a backup into `{place}` is being made: old ones are not removed meanwhile")]
    BeingMade {
        /// The place.
        place: String,
    },
    /// A backup waits until the pruning is complete.
    #[error("old backups are being removed from `{place}`: try again in a few minutes")]
    BeingPruned {
        /// The place.
        place: String,
    },
    /// Others may have taken the work for dead.
    #[error("the work in `{place}` stood still for {seconds} seconds and was given up: others may have changed the place meanwhile")]
    TooSlow {
        /// The place.
        place: String,
        /// For how long.
        seconds: u64,
    },
    /// What was written, or was there, is not there any more.
    #[error("`{name}` has vanished from `{place}` while the backup was made")]
    Vanished {
        /// Which object.
        name: String,
        /// The place.
        place: String,
    },
    /// There are too many backups.
    #[error("there are {found} backups in `{place}`, the limit is {BACKUPS_MAX}: remove old ones (`conurb backup --keep`)")]
    TooMany {
        /// The place.
        place: String,
        /// How many.
        found: usize,
    },
    /// What is to be kept makes no sense.
    #[error("{what}")]
    Keep {
        /// What is wrong with it.
        what: String,
    },
    /// The node ends.
    #[error("the backup was given up, for the node is shutting down")]
    Closing,
    /// No checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The documents cannot be read or written.
    #[error("cannot copy the documents")]
    Documents(#[from] DocumentsError),
    /// The log cannot be read or written.
    #[error("cannot copy the log")]
    Log(#[from] LogError),
    /// The format of the folder cannot be written.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// What is being done, for people who wait: the step, how much of it is done, and how much there is.
pub type Progress<'a> = &'a dyn Fn(&str, u64, u64);

impl Store {
    /// Makes a backup while the store is in use.
    ///
    /// Blocks until it is complete and durable, as the place understands it; checkpoints wait while the documents are copied, writers do not.
    pub fn backup(&self, place: &Arc<Place>, clock: &Arc<dyn Clock>, progress: Progress<'_>) -> Result<Summary, BackupError> {
        let mut mark = Mark::set(place, clock, Work::Backup)?;
        let created_at = Instant::from_micros(clock.now_micros());
        let known = backups_in(place)?;
        if let Some((_, found)) = known.iter().find(|(_, b)| b.store_id != self.id) {
            return Err(BackupError::OtherStore { place: place.shown().to_owned(), found: found.store_id.clone(), own: self.id.clone() });
        }
        let mut copy = Copying { store: self, place, mark: &mut mark, written: 0, progress };
        let _pin = self.pin();
        let (manifest, documents, n_documents) = copy.documents(created_at)?;
        let (segments, n_known) = copy.segments(&manifest.segments)?;

        let before = known.iter().map(|(_, b)| b.until).max();
        let oldest = self.log_reader().first_position();
        let from = before.map_or(manifest.next_position, |until| until.max(oldest)).min(manifest.next_position);
        let until = self.log_reader().next_position();
        let (log, last) = copy.log(from, until)?;

        let backup = Backup {
            format: BACKUP_FORMAT,
            store_id: self.id.clone(),
            created_by: env!("CARGO_PKG_VERSION").to_owned(),
            created_at,
            until_recorded_at: last.unwrap_or(Instant::from_micros(manifest.last_recorded_us)),
            manifest,
            n_documents,
            documents,
            segments,
            log,
            until,
        };
        let text = serde_json::to_vec(&backup).expect("a backup's list is JSON");
        copy.written += text.len() as u64;
        copy.step("completing", 0, 0)?;
        let bytes_written = copy.written;
        check_present(place, &backup)?;
        place.put(&backup.name(), text)?;
        Ok(Summary {
            name: backup.name(),
            until,
            until_recorded_at: backup.until_recorded_at.to_string(),
            n_documents,
            n_segments: backup.segments.len(),
            n_segments_known: n_known,
            bytes_written,
            continuous: before.is_none_or(|b| from <= b),
        })
    }
}

/// Before a backup is named: is everything there that it names? Few requests, and no list ever names what somebody removed.
fn check_present(place: &Place, backup: &Backup) -> Result<(), BackupError> {
    let mut there: HashMap<String, u64> = HashMap::new();
    for level in ["segments", "log"] {
        there.extend(place.walk(level)?);
    }
    if let Some((level, _)) = backup.documents.first().and_then(|p| p.name.rsplit_once('/')) {
        there.extend(place.walk(level)?);
    }
    match backup.parts().find(|p| there.get(&p.name) != Some(&p.bytes)) {
        None => Ok(()),
        Some(gone) => Err(BackupError::Vanished { name: gone.name.clone(), place: place.shown().to_owned() }),
    }
}

/// A backup under way.
struct Copying<'a> {
    store: &'a Store,
    place: &'a Arc<Place>,
    mark: &'a mut Mark,
    /// Bytes.
    written: u64,
    progress: Progress<'a>,
}

impl Copying<'_> {
    /// Before each step.
    fn step(&mut self, what: &str, done: u64, total: u64) -> Result<(), BackupError> {
        (self.progress)(what, done, total);
        if self.store.is_closed() {
            return Err(BackupError::Closing);
        }
        self.mark.renew()
    }

    /// The checkpoint, the parts, and how many documents there are.
    fn documents(&mut self, created_at: Instant) -> Result<(Manifest, Vec<Part>, u64), BackupError> {
        let total = self.store.stats().n_entities as u64;
        self.step("documents", 0, total)?;
        // The checkpointer's thread reads them, this one writes: a part waits while the one before is written.
        let (sender, parts_to_write) = std::sync::mpsc::sync_channel::<(Vec<u8>, u64)>(1);
        let prefix = format!("documents/{}", created_at.micros());
        std::thread::scope(|scope| {
            let store = self.store;
            let reading = scope.spawn(move || store.hold(move |held| read_documents(held, &sender)));
            let mut parts = Vec::new();
            let mut failed = None;
            for (bytes, n_done) in parts_to_write {
                let write = || {
                    self.step("documents", n_done, total.max(n_done))?;
                    put_part(self.place, format!("{prefix}/{:06}", parts.len()), bytes)
                };
                match write() {
                    Ok(part) => {
                        self.written += part.bytes;
                        parts.push(part);
                    }
                    Err(e) => {
                        failed = Some(e);
                        // The reader ends when nobody takes what it reads.
                        break;
                    }
                }
            }
            let read = reading.join().expect("the thread only waits for the checkpointer");
            if let Some(e) = failed {
                return Err(e);
            }
            let (manifest, n_documents) = read??;
            Ok((manifest, parts, n_documents))
        })
    }

    /// The parts, and how many of them were there.
    fn segments(&mut self, segments: &[Segment]) -> Result<(Vec<Part>, usize), BackupError> {
        let mut parts = Vec::with_capacity(segments.len());
        let mut n_known = 0;
        let total = segments.iter().map(|s| s.bytes).sum();
        let mut done = 0;
        for s in segments {
            self.step("history, bytes", done, total)?;
            done += s.bytes;
            let part = Part { name: format!("segments/{:08x}-{}-{}", s.crc32c, s.bytes, s.file), bytes: s.bytes, crc32c: s.crc32c };
            if self.place.size(&part.name)? == Some(s.bytes) {
                n_known += 1;
            } else {
                let bytes =
                    (self.store.segment_reader())(s).map_err(|source| BackupError::Io { action: "read", path: s.file.clone(), source })?;
                check(&part, &bytes)?;
                self.written += s.bytes;
                self.place.put(&part.name, bytes)?;
            }
            parts.push(part);
        }
        Ok((parts, n_known))
    }

    /// Returns the parts, and when the last record of them was recorded.
    fn log(&mut self, from: u64, until: u64) -> Result<(Vec<LogPart>, Option<Instant>), BackupError> {
        let mut parts = Vec::new();
        let mut last = None;
        let mut next = from;
        while next < until {
            self.step("log, records", next - from, until - from)?;
            let limit = usize::try_from(until - next).unwrap_or(usize::MAX);
            let records = self.store.log_reader().read(next, Read { records: limit, bytes: PART_BYTES })?;
            let Some((end, newest)) = records.last() else { break };
            last = record::recorded_at(newest).ok();
            let first = next;
            next = end + 1;
            let mut bytes = Vec::new();
            for (position, record) in &records {
                bytes.extend_from_slice(&position.to_le_bytes());
                push_sized(&mut bytes, record);
            }
            let part = put_part(self.place, format!("log/{first:020}-{next:020}"), bytes)?;
            self.written += part.bytes;
            parts.push(LogPart { first, next, part });
        }
        Ok((parts, last))
    }
}

fn push_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_part(place: &Place, name: String, bytes: Vec<u8>) -> Result<Part, BackupError> {
    let part = Part { name, bytes: bytes.len() as u64, crc32c: crc32c::crc32c(&bytes) };
    place.put(&part.name, bytes)?;
    Ok(part)
}

/// Reads all documents and gives them away in parts, each with the number of documents so far. Returns the checkpoint and that number.
fn read_documents(held: Held<'_>, parts: &SyncSender<(Vec<u8>, u64)>) -> Result<(Manifest, u64), DocumentsError> {
    let mut bytes = Vec::new();
    let mut n_documents = 0;
    let mut is_wanted = true;
    for space in Space::ALL {
        held.documents.scan(space, &mut |entity| {
            if !is_wanted {
                return Ok(());
            }
            n_documents += 1;
            bytes.push(u8::from(space == Space::Node));
            push_sized(&mut bytes, &encode_entity(&entity));
            if bytes.len() >= PART_BYTES {
                is_wanted = parts.send((std::mem::take(&mut bytes), n_documents)).is_ok();
            }
            Ok(())
        })?;
    }
    if !bytes.is_empty() && is_wanted {
        // If nobody takes it, the writer has failed and tells why.
        let _ = parts.send((bytes, n_documents));
    }
    Ok((held.manifest.clone(), n_documents))
}

/// The backups in a place, by position.
fn backups_in(place: &Place) -> Result<Vec<(String, Backup)>, BackupError> {
    let mut found = Vec::new();
    let names = place.list("backups")?;
    if names.len() > BACKUPS_MAX {
        return Err(BackupError::TooMany { place: place.shown().to_owned(), found: names.len() });
    }
    for name in names {
        let damaged = |reason: String| BackupError::Damaged { name: name.clone(), reason };
        let value: serde_json::Value = serde_json::from_slice(&place.get(&name)?).map_err(|e| damaged(e.to_string()))?;
        let format = value.get("format").and_then(serde_json::Value::as_u64).unwrap_or_default();
        if format > u64::from(BACKUP_FORMAT) {
            return Err(BackupError::Newer { name, found: u32::try_from(format).unwrap_or(u32::MAX) });
        }
        let backup: Backup = serde_json::from_value(value).map_err(|e| damaged(e.to_string()))?;
        found.push((name, backup));
    }
    found.sort_by_key(|(_, b)| (b.until, b.created_at));
    Ok(found)
}

fn check(part: &Part, bytes: &[u8]) -> Result<(), BackupError> {
    let damaged = |reason| Err(BackupError::Damaged { name: part.name.clone(), reason });
    if bytes.len() as u64 != part.bytes {
        return damaged(format!("it has {} bytes instead of {}", bytes.len(), part.bytes));
    }
    let crc = crc32c::crc32c(bytes);
    if crc == part.crc32c { Ok(()) } else { damaged(format!("its CRC-32C is {crc:08x} instead of {:08x}", part.crc32c)) }
}

#[cfg(test)]
mod prune_tests;
#[cfg(test)]
mod tests;
