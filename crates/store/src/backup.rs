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
//! ```
//!
//! The city's key pair, the access tokens and the configuration are not in it: they are secrets, or made by hand, and belong elsewhere.

use std::path::Path;
use std::sync::Arc;

use entity::Instant;
use entity::codec::{decode_entity, encode_entity};
use host::RealDisk;
use serde::{Deserialize, Serialize};

use crate::format::{self, FormatError};
use crate::history::Segment;
use crate::log::file::FileLog;
use crate::log::{Log, LogError, Read};
use crate::record;
use crate::state::{Changed, Document, Documents, DocumentsError, FjallDocuments, Manifest, Space};
use crate::store::{CheckpointError, HALF_RESTORED, Held, Store};

mod place;

pub use place::{Place, PlaceError};

/// Format of backups. Raise it with a migration on read.
const BACKUP_FORMAT: u32 = 1;
/// Documents or records in one object, in bytes.
const PART_BYTES: usize = 32 << 20;
/// Documents written at once in a restore.
const RESTORE_DOCUMENTS: usize = 5_000;
/// Records appended at once in a restore, in number and bytes.
const RESTORE_RECORDS: Read = Read { records: 512, bytes: 8 << 20 };

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

/// Up to where to restore.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// All that there is.
    End,
    /// What was recorded up to and including this time.
    RecordedAt(Instant),
    /// The changes at positions up to and including this one.
    Position(u64),
}

/// What a restore brought back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// The backup that it began with.
    pub backup: String,
    /// Documents in that.
    pub n_documents: u64,
    /// Files of the history in that.
    pub n_segments: usize,
    /// Records of the log after that.
    pub n_records: u64,
    /// The position that the next change will have.
    pub next_position: u64,
    /// When the last change was recorded.
    pub until_recorded_at: String,
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
    pub fn backup(&self, place: &Arc<Place>, created_at: Instant, progress: Progress<'_>) -> Result<Summary, BackupError> {
        let known = backups_in(place)?;
        if let Some((_, found)) = known.iter().find(|(_, b)| b.store_id != self.id) {
            return Err(BackupError::OtherStore { place: place.shown().to_owned(), found: found.store_id.clone(), own: self.id.clone() });
        }
        let _pin = self.pin();
        progress("documents", 0, 0);
        let prefix = format!("documents/{}", created_at.micros());
        let to = Arc::clone(place);
        let (manifest, documents, n_documents) = self.hold(move |held| copy_documents(held, &to, &prefix))??;
        let mut bytes_written: u64 = documents.iter().map(|p| p.bytes).sum();

        let (segments, n_known) = self.copy_segments(&manifest.segments, place, &mut bytes_written, progress)?;

        let before = known.iter().map(|(_, b)| b.until).max();
        let oldest = self.log_reader().first_position();
        let from = before.map_or(manifest.next_position, |until| until.max(oldest)).min(manifest.next_position);
        let until = self.log_reader().next_position();
        let (log, last) = self.copy_log(from, until, place, &mut bytes_written, progress)?;

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
        bytes_written += text.len() as u64;
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

    fn copy_segments(
        &self,
        segments: &[Segment],
        place: &Place,
        written: &mut u64,
        progress: Progress<'_>,
    ) -> Result<(Vec<Part>, usize), BackupError> {
        let mut parts = Vec::with_capacity(segments.len());
        let mut n_known = 0;
        for (i, s) in segments.iter().enumerate() {
            progress("history", i as u64, segments.len() as u64);
            let part = Part { name: format!("segments/{:08x}-{}-{}", s.crc32c, s.bytes, s.file), bytes: s.bytes, crc32c: s.crc32c };
            if place.size(&part.name)? == Some(s.bytes) {
                n_known += 1;
            } else {
                let bytes =
                    (self.segment_reader())(s).map_err(|source| BackupError::Io { action: "read", path: s.file.clone(), source })?;
                check(&part, &bytes)?;
                *written += s.bytes;
                place.put(&part.name, bytes)?;
            }
            parts.push(part);
        }
        Ok((parts, n_known))
    }

    /// Returns the parts, and when the last record of them was recorded.
    fn copy_log(
        &self,
        from: u64,
        until: u64,
        place: &Place,
        written: &mut u64,
        progress: Progress<'_>,
    ) -> Result<(Vec<LogPart>, Option<Instant>), BackupError> {
        let mut parts = Vec::new();
        let mut last = None;
        let mut next = from;
        while next < until {
            progress("log", next - from, until - from);
            let limit = usize::try_from(until - next).unwrap_or(usize::MAX);
            let records = self.log_reader().read(next, Read { records: limit, bytes: PART_BYTES })?;
            let Some((end, newest)) = records.last() else { break };
            last = record::recorded_at(newest).ok();
            let first = next;
            next = end + 1;
            let mut bytes = Vec::new();
            for (position, record) in &records {
                bytes.extend_from_slice(&position.to_le_bytes());
                push_sized(&mut bytes, record);
            }
            let part = put_part(place, format!("log/{first:020}-{next:020}"), bytes)?;
            *written += part.bytes;
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

fn copy_documents(held: Held<'_>, place: &Place, prefix: &str) -> Result<(Manifest, Vec<Part>, u64), BackupError> {
    let mut parts = Vec::new();
    let mut bytes = Vec::new();
    let mut n_documents = 0;
    let mut failed = None;
    for space in Space::ALL {
        held.documents.scan(space, &mut |entity| {
            n_documents += 1;
            bytes.push(u8::from(space == Space::Node));
            push_sized(&mut bytes, &encode_entity(&entity));
            if bytes.len() >= PART_BYTES && failed.is_none() {
                match put_part(place, format!("{prefix}/{:06}", parts.len()), std::mem::take(&mut bytes)) {
                    Ok(part) => parts.push(part),
                    Err(e) => failed = Some(e),
                }
            }
            Ok(())
        })?;
    }
    if let Some(e) = failed {
        return Err(e);
    }
    if !bytes.is_empty() {
        parts.push(put_part(place, format!("{prefix}/{:06}", parts.len()), bytes)?);
    }
    Ok((held.manifest.clone(), parts, n_documents))
}

/// The backups in a place, by position.
fn backups_in(place: &Place) -> Result<Vec<(String, Backup)>, BackupError> {
    let mut found = Vec::new();
    for name in place.list("backups")? {
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

/// Restores a backup into an empty folder.
pub fn restore(place: &Place, dir: &Path, until: Until, progress: Progress<'_>) -> Result<Restored, BackupError> {
    let io = |action, path: &Path| {
        let path = path.display().to_string();
        move |source| BackupError::Io { action, path, source }
    };
    let backups = backups_in(place)?;
    let (name, backup) = choose(place, &backups, until)?;
    std::fs::create_dir_all(dir).map_err(io("make", dir))?;
    if std::fs::read_dir(dir).map_err(io("read", dir))?.next().is_some() {
        return Err(BackupError::NotEmpty { dir: dir.display().to_string() });
    }
    let marker = dir.join(HALF_RESTORED);
    std::fs::write(&marker, name).map_err(io("write", &marker))?;
    format::take_over(dir)?;

    let history = dir.join("history");
    std::fs::create_dir_all(&history).map_err(io("make", &history))?;
    for (i, (segment, part)) in backup.manifest.segments.iter().zip(&backup.segments).enumerate() {
        progress("history", i as u64, backup.segments.len() as u64);
        let path = history.join(&segment.file);
        let written = std::fs::write(&path, get_part(place, part)?).and_then(|()| std::fs::File::open(&path)?.sync_all());
        written.map_err(io("write", &path))?;
    }
    std::fs::File::open(&history).and_then(|d| d.sync_all()).map_err(io("sync", &history))?;

    restore_documents(place, backup, dir, progress)?;
    let mut restored = Restored {
        backup: name.clone(),
        n_documents: backup.n_documents,
        n_segments: backup.segments.len(),
        n_records: 0,
        next_position: backup.manifest.next_position,
        until_recorded_at: Instant::from_micros(backup.manifest.last_recorded_us).to_string(),
    };
    restore_log(place, &backups, name, backup, dir, until, &mut restored, progress)?;
    std::fs::remove_file(&marker).map_err(io("remove", &marker))?;
    Ok(restored)
}

/// The newest backup that is not younger than what is wanted.
fn choose<'b>(place: &Place, backups: &'b [(String, Backup)], until: Until) -> Result<&'b (String, Backup), BackupError> {
    let (Some(newest), Some(oldest)) = (backups.last(), backups.first()) else {
        return Err(BackupError::NoBackup { place: place.shown().to_owned() });
    };
    let not_covered = || BackupError::NotCovered {
        place: place.shown().to_owned(),
        from: oldest.1.earliest_recorded_at(),
        until: newest.1.until_recorded_at,
    };
    match until {
        Until::End => Ok(newest),
        Until::RecordedAt(t) => backups.iter().rev().find(|(_, b)| b.earliest_recorded_at() <= t).ok_or_else(not_covered),
        Until::Position(p) if p >= newest.1.until => Err(not_covered()),
        Until::Position(p) => {
            let fits = |b: &Backup| {
                // The files may hold facts of a few positions more than the checkpoint, at most up to the backup's end.
                let sealed_early = b.earliest_recorded_at().micros() > b.manifest.last_recorded_us;
                if sealed_early { b.until <= p + 1 } else { b.manifest.next_position <= p + 1 }
            };
            backups.iter().rev().find(|(_, b)| fits(b)).ok_or_else(not_covered)
        }
    }
}

fn get_part(place: &Place, part: &Part) -> Result<Vec<u8>, BackupError> {
    let bytes = place.get(&part.name)?;
    check(part, &bytes)?;
    Ok(bytes)
}

fn check(part: &Part, bytes: &[u8]) -> Result<(), BackupError> {
    let damaged = |reason| Err(BackupError::Damaged { name: part.name.clone(), reason });
    if bytes.len() as u64 != part.bytes {
        return damaged(format!("it has {} bytes instead of {}", bytes.len(), part.bytes));
    }
    let crc = crc32c::crc32c(bytes);
    if crc == part.crc32c { Ok(()) } else { damaged(format!("its CRC-32C is {crc:08x} instead of {:08x}", part.crc32c)) }
}

fn restore_documents(place: &Place, backup: &Backup, dir: &Path, progress: Progress<'_>) -> Result<(), BackupError> {
    let documents = FjallDocuments::open(&dir.join("documents"))?;
    let mut waiting: Vec<Changed> = Vec::new();
    let mut n_done = 0;
    for part in &backup.documents {
        let bytes = get_part(place, part)?;
        let damaged = |reason: &str| BackupError::Damaged { name: part.name.clone(), reason: reason.to_owned() };
        let mut rest = bytes.as_slice();
        while let Some((&space, after)) = rest.split_first() {
            let (document, after) = take_sized(after).ok_or_else(|| damaged("a document is cut"))?;
            rest = after;
            let entity = decode_entity(document).map_err(|e| damaged(&e.to_string()))?;
            let space = if space == 0 { Space::City } else { Space::Node };
            waiting.push((space, entity.id.clone(), Some(Document::Whole(Arc::new(entity)))));
            if waiting.len() >= RESTORE_DOCUMENTS {
                n_done += waiting.len() as u64;
                progress("documents", n_done, backup.n_documents);
                // What the checkpoint covers is said with the last ones.
                documents.checkpoint(&mut waiting.drain(..), &Manifest::default())?;
            }
        }
    }
    Ok(documents.checkpoint(&mut waiting.into_iter(), &backup.manifest)?)
}

fn take_sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, after) = bytes.split_at_checked(4)?;
    after.split_at_checked(u32::from_le_bytes(len.try_into().ok()?) as usize)
}

/// Writes the log from the checkpoint on up to what is wanted.
#[expect(clippy::too_many_arguments, reason = "one step of a restore, split off for length")]
fn restore_log(
    place: &Place,
    backups: &[(String, Backup)],
    name: &str,
    backup: &Backup,
    dir: &Path,
    until: Until,
    restored: &mut Restored,
    progress: Progress<'_>,
) -> Result<(), BackupError> {
    let mut log = FileLog::create_at(Arc::new(RealDisk), &dir.join("log"), backup.manifest.next_position)?;
    let end = backups.iter().map(|(_, b)| b.until).max().unwrap_or(backup.until);
    let mut parts: Vec<&LogPart> = backups.iter().flat_map(|(_, b)| &b.log).collect();
    parts.sort_by_key(|p| (p.first, std::cmp::Reverse(p.next)));
    let mut waiting: Vec<Vec<u8>> = Vec::new();
    let mut n_bytes = 0;
    let mut next = backup.manifest.next_position;
    let mut last = None;
    'parts: for part in parts {
        if part.next <= next {
            continue;
        }
        if part.first > next {
            break;
        }
        progress("log", next - backup.manifest.next_position, end - backup.manifest.next_position);
        let bytes = get_part(place, &part.part)?;
        let damaged = |reason: &str| BackupError::Damaged { name: part.part.name.clone(), reason: reason.to_owned() };
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (position, after) = rest.split_at_checked(8).ok_or_else(|| damaged("a record is cut"))?;
            let (bytes, after) = take_sized(after).ok_or_else(|| damaged("a record is cut"))?;
            rest = after;
            let position = u64::from_le_bytes(position.try_into().expect("eight bytes"));
            if position < next {
                continue;
            }
            let recorded_at = record::recorded_at(bytes).map_err(|e| damaged(&e.to_string()))?;
            let is_beyond = match until {
                Until::End => false,
                Until::RecordedAt(t) => recorded_at > t,
                Until::Position(p) => position > p,
            };
            if is_beyond {
                next = end;
                break 'parts;
            }
            last = Some(recorded_at);
            next = position + 1;
            n_bytes += bytes.len();
            waiting.push(bytes.to_vec());
            restored.n_records += 1;
            if waiting.len() >= RESTORE_RECORDS.records || n_bytes >= RESTORE_RECORDS.bytes {
                log.append(&std::mem::take(&mut waiting))?;
                n_bytes = 0;
            }
        }
    }
    let is_enough = match until {
        Until::Position(p) => next > p,
        Until::End | Until::RecordedAt(_) => next >= end,
    };
    if !is_enough {
        return Err(BackupError::Gap { from: next, backup: name.to_owned() });
    }
    log.append(&waiting)?;
    restored.next_position = log.next_position();
    if let Some(last) = last {
        restored.until_recorded_at = last.to_string();
    }
    Ok(())
}

#[cfg(test)]
mod tests;
