//! Restoring a backup.

use std::path::Path;
use std::sync::Arc;

use entity::Instant;
use entity::codec::decode_entity;
use host::RealDisk;
use serde::Serialize;

use super::{Backup, BackupError, LogPart, Part, Place, Progress, backups_in, check};
use crate::blobs;
use crate::format;
use crate::log::file::FileLog;
use crate::log::{Log, Read};
use crate::record;
use crate::state::{Changed, Document, Documents, FjallDocuments, Manifest, Space};
use crate::store::HALF_RESTORED;

/// Documents written at once in a restore.
const RESTORE_DOCUMENTS: usize = 5_000;
/// Records appended at once in a restore, in number and bytes.
const RESTORE_RECORDS: Read = Read { records: 512, bytes: 8 << 20 };

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

/// Where to restore to.
#[derive(Clone, Copy, Debug)]
pub struct RestoreTo<'a> {
    /// The folder; empty, or not there.
    pub dir: &'a Path,
    /// Where the history's files shall be, see [`crate::Options::history_place`]; nothing may be there.
    pub history_place: &'a str,
}

/// Restores a backup into an empty folder.
pub fn restore(place: &Place, to: RestoreTo<'_>, until: Until, progress: Progress<'_>) -> Result<Restored, BackupError> {
    let RestoreTo { dir, history_place } = to;
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
    let id = format::take_over(dir)?.id;
    format::note_history(dir, history_place)?;

    restore_history(place, backup, to, &id, progress)?;

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

fn restore_history(place: &Place, backup: &Backup, to: RestoreTo<'_>, id: &str, progress: Progress<'_>) -> Result<(), BackupError> {
    let shown = if to.history_place.is_empty() { to.dir.join("history").display().to_string() } else { to.history_place.to_owned() };
    let failed = |action| {
        let path = shown.clone();
        move |source| BackupError::Io { action, path, source }
    };
    let blobs = blobs::open_history(to.dir, to.history_place).map_err(failed("open"))?;
    if !blobs.list().map_err(failed("list"))?.is_empty() {
        return Err(BackupError::NotEmpty { dir: shown });
    }
    blobs.claim(id).map_err(failed("use"))?;
    let total = backup.segments.iter().map(|p| p.bytes).sum();
    let mut done = 0;
    for (segment, part) in backup.manifest.segments.iter().zip(&backup.segments) {
        progress("history, bytes", done, total);
        done += part.bytes;
        blobs.put(&segment.file, get_part(place, part)?.into()).map_err(failed("write into"))?;
    }
    Ok(())
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
        progress("log, records", next - backup.manifest.next_position, end - backup.manifest.next_position);
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
