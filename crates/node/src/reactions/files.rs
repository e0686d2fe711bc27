//! What has to survive a restart: notifications that wait at a checkpoint, and how far each subscriber has come.
//!
//! ```text
//! notifications/waiting-<position>   what waits of changes before that position, made durable before the checkpoint there
//! notifications/progress             a line per subscriber and change: CRC-32C in hexadecimal, a blank, JSON; the last one counts
//! ```
//!
//! The waiting notifications (little endian; a CRC-32C of all before it at the end):
//!
//! ```text
//! waiting  = "CWN1" position:u64 n:u32 entity* n:u32 queue*       entity = bytes:u32 `entity::codec`
//! queue    = bytes:u32 id n:u32 notification*
//! notification = position:u64 first:u64 since_us:i64 part:u32 is_last:u8 n:u32 (after:u32 before:u32)* n:u32 (gone:u32 at_us:i64)*
//! ```
//!
//! Entities are named by their place in the list, `u32::MAX` for none: notifications share them.
//! The progress is written without waiting for the disk: what is lost of it in a power cut is told again.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use entity::codec::{decode_entity, encode_entity};
use entity::{Entity, Instant};
use host::{AppendFile, Disk};

use super::recipient::Progress;
use crate::subscription::{Cause, Notification};

const MAGIC: &[u8; 4] = b"CWN1";
const NONE: u32 = u32::MAX;
/// The progress is written anew when it has grown by so much.
const PROGRESS_BYTES: u64 = 8 << 20;

/// What waits, by the id of the subscription.
pub(super) type Waiting<N> = Vec<(String, Vec<N>)>;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("cannot {action} `{path}`")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` is damaged: {what}; it holds notifications that were not delivered yet. Restore it, or remove it to give them up")]
    Damaged { path: PathBuf, what: String },
}

/// The folder of both.
pub(super) struct Files {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl Files {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        Self { disk, dir }
    }

    fn waiting_path(&self, position: u64) -> PathBuf {
        self.dir.join(format!("waiting-{position:020}"))
    }

    /// Makes durable what waits at a checkpoint. Nothing waiting is no file.
    pub(super) fn write_waiting(&self, position: u64, waiting: &Waiting<Arc<Notification>>) -> Result<(), FileError> {
        if waiting.is_empty() {
            return Ok(());
        }
        self.replace(&self.waiting_path(position), &encode(position, waiting))
    }

    /// What waited at a checkpoint.
    pub(super) fn read_waiting(&self, position: u64) -> Result<Waiting<Notification>, FileError> {
        let path = self.waiting_path(position);
        let bytes = match self.disk.read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(FileError::Io { action: "read", path, source }),
        };
        decode(position, &bytes).map_err(|what| FileError::Damaged { path, what })
    }

    /// Removes what is of other checkpoints than this one.
    pub(super) fn keep_only(&self, position: u64) -> Result<(), FileError> {
        let keep = self.waiting_path(position);
        for name in self.disk.list(&self.dir).map_err(failed("list", &self.dir))? {
            let path = self.dir.join(&name);
            if name.starts_with("waiting-") && path != keep {
                self.disk.remove(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    }

    /// How far each subscriber had come. Lines that a crash has torn are passed over: what they say is told again.
    pub(super) fn read_progress(&self) -> Result<HashMap<String, Progress>, FileError> {
        let path = self.dir.join("progress");
        let bytes = match self.disk.read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(FileError::Io { action: "read", path, source }),
        };
        let lines = bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty());
        let read = |line: &[u8]| {
            let (crc, json) = line.split_at_checked(9)?;
            let crc = u32::from_str_radix(std::str::from_utf8(crc).ok()?.trim_end(), 16).ok()?;
            if crc32c::crc32c(json) != crc {
                return None;
            }
            serde_json::from_slice::<Progress>(json).ok()
        };
        let (mut known, mut n_bad) = (HashMap::new(), 0);
        for line in lines {
            match read(line) {
                Some(progress) => drop(known.insert(progress.id.clone(), progress)),
                None => n_bad += 1,
            }
        }
        if n_bad > 0 {
            tracing::warn!(path = %path.display(), lines = n_bad, "a part of the progress of notifications was lost; some are told again");
        }
        Ok(known)
    }

    /// Writes the whole progress anew and goes on behind it.
    pub(super) fn begin_progress(&self, all: &[Progress]) -> Result<ProgressFile, FileError> {
        let path = self.dir.join("progress");
        let bytes = lines(all);
        self.replace(&path, &bytes)?;
        let file = self.disk.open_append(&path).map_err(failed("open", &path))?;
        Ok(ProgressFile { file, path, bytes: bytes.len() as u64, bytes_begun: bytes.len() as u64 })
    }

    /// Writes a file as a whole, or not at all.
    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
        let new = path.with_extension("new");
        let mut file = self.disk.open_append(&new).map_err(failed("open", &new))?;
        // A part of one may be there from before a crash.
        file.truncate(0).and_then(|()| file.append(bytes)).and_then(|()| file.sync()).map_err(failed("write", &new))?;
        drop(file);
        self.disk.rename(&new, path).map_err(failed("rename", &new))
    }
}

/// The progress as it grows.
pub(super) struct ProgressFile {
    file: Box<dyn AppendFile>,
    path: PathBuf,
    bytes: u64,
    bytes_begun: u64,
}

impl ProgressFile {
    pub(super) fn append(&mut self, changed: &[Progress]) -> Result<(), FileError> {
        let bytes = lines(changed);
        self.bytes += bytes.len() as u64;
        self.file.append(&bytes).map_err(failed("write", &self.path))
    }

    /// Has it grown so much that it should be written anew?
    pub(super) const fn is_long(&self) -> bool {
        self.bytes > 2 * self.bytes_begun + PROGRESS_BYTES
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError + use<> {
    let path = path.to_owned();
    move |source| FileError::Io { action, path, source }
}

fn lines(all: &[Progress]) -> Vec<u8> {
    let mut out = Vec::new();
    for progress in all {
        let json = serde_json::to_vec(progress).expect("progress is JSON");
        out.extend_from_slice(format!("{:08x} ", crc32c::crc32c(&json)).as_bytes());
        out.extend_from_slice(&json);
        out.push(b'\n');
    }
    out
}

fn encode(position: u64, waiting: &Waiting<Arc<Notification>>) -> Vec<u8> {
    let (mut table, mut queues) = (Table::default(), Vec::new());
    put_u32(&mut queues, waiting.len());
    for (id, list) in waiting {
        put_u32(&mut queues, id.len());
        queues.extend(id.as_bytes());
        put_u32(&mut queues, list.len());
        for n in list {
            put_notification(&mut queues, n, &mut table);
        }
    }
    let mut out = MAGIC.to_vec();
    out.extend(position.to_le_bytes());
    put_u32(&mut out, table.places.len());
    out.extend(table.bytes);
    out.extend(queues);
    let crc = crc32c::crc32c(&out);
    out.extend(crc.to_le_bytes());
    out
}

fn put_notification(out: &mut Vec<u8>, n: &Notification, table: &mut Table) {
    let position = match n.cause {
        Cause::Change(position) => position,
        Cause::Interval(_) => unreachable!("what is told at intervals is not kept"),
    };
    out.extend(position.to_le_bytes());
    out.extend(n.first_position.to_le_bytes());
    out.extend(n.since.micros().to_le_bytes());
    out.extend(n.part.to_le_bytes());
    out.push(u8::from(n.is_last_part));
    put_u32(out, n.entities.len());
    for (now, before) in &n.entities {
        out.extend(table.place(now).to_le_bytes());
        out.extend(before.as_ref().map_or(NONE, |b| table.place(b)).to_le_bytes());
    }
    put_u32(out, n.deleted.len());
    for (gone, at) in &n.deleted {
        out.extend(table.place(gone).to_le_bytes());
        out.extend(at.micros().to_le_bytes());
    }
}

/// The entities that notifications name, each once. By address: those of one change share them.
#[derive(Default)]
struct Table {
    places: HashMap<*const Entity, u32>,
    bytes: Vec<u8>,
}

impl Table {
    fn place(&mut self, e: &Arc<Entity>) -> u32 {
        let next = self.places.len() as u32;
        *self.places.entry(Arc::as_ptr(e)).or_insert_with(|| {
            let bytes = encode_entity(e);
            put_u32(&mut self.bytes, bytes.len());
            self.bytes.extend(bytes);
            next
        })
    }
}

fn put_u32(out: &mut Vec<u8>, n: usize) {
    out.extend((n as u32).to_le_bytes());
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or("it is cut")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("as many bytes as were asked for"))
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn instant(&mut self) -> Result<Instant, String> {
        Ok(Instant::from_micros(i64::from_le_bytes(self.array()?)))
    }

    fn many<T>(&mut self, mut read: impl FnMut(&mut Self) -> Result<T, String>) -> Result<Vec<T>, String> {
        (0..self.u32()?).map(|_| read(self)).collect()
    }
}

fn decode(position: u64, bytes: &[u8]) -> Result<Waiting<Notification>, String> {
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or("it is cut")?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err("its checksum does not fit".to_owned());
    }
    let mut input = Input(body);
    if input.take(4)? != MAGIC {
        return Err("it is of a format that this program does not know".to_owned());
    }
    if input.u64()? != position {
        return Err("it is of another position".to_owned());
    }
    let entities = input.many(|i| {
        let n = i.u32()? as usize;
        decode_entity(i.take(n)?).map(Arc::new).map_err(|e| e.to_string())
    })?;
    let entity = |place: u32| entities.get(place as usize).map(Arc::clone).ok_or_else(|| format!("there is no entity {place}"));
    input.many(|i| {
        let n = i.u32()? as usize;
        let id = String::from_utf8(i.take(n)?.to_vec()).map_err(|e| e.to_string())?;
        let list = i.many(|i| {
            Ok(Notification {
                cause: Cause::Change(i.u64()?),
                first_position: i.u64()?,
                since: i.instant()?,
                part: i.u32()?,
                is_last_part: i.array::<1>()? != [0],
                entities: i.many(|i| {
                    let (now, before) = (i.u32()?, i.u32()?);
                    Ok((entity(now)?, if before == NONE { None } else { Some(entity(before)?) }))
                })?,
                deleted: i.many(|i| Ok((entity(i.u32()?)?, i.instant()?)))?,
            })
        })?;
        Ok((id, list))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use entity::{Attribute, Iri};
    use host::sim::SimDisk;

    fn entity(n: u32, value: u32) -> Arc<Entity> {
        let e = Entity::new(Iri::known(&format!("urn:x:{n}")), Iri::known("urn:t:T"));
        Arc::new(e.with(Iri::known("urn:a:v"), Attribute::property(value)))
    }

    fn notification(position: u64, entities: Vec<(Arc<Entity>, Option<Arc<Entity>>)>, deleted: Vec<Arc<Entity>>) -> Arc<Notification> {
        let at = Instant::from_secs(7);
        let deleted = deleted.into_iter().map(|e| (e, at)).collect();
        let cause = Cause::Change(position);
        Arc::new(Notification { cause, part: 3, is_last_part: true, entities, deleted, since: at, first_position: position - 1 })
    }

    fn files(disk: &SimDisk) -> Files {
        Files::new(Arc::new(disk.clone()), "/notifications".into())
    }

    fn shown(all: &Waiting<Notification>) -> String {
        format!("{all:?}")
    }

    #[test]
    fn what_waits_reads_back_and_damage_is_noticed_wherever_it_is() {
        let (disk, a, b, c) = (SimDisk::new(1, 64 << 20), entity(1, 1), entity(1, 2), entity(2, 9));
        let files = files(&disk);
        let waiting = vec![
            (
                "urn:s:1".to_owned(),
                vec![notification(8, vec![(b.clone(), Some(a)), (c.clone(), None)], vec![]), notification(9, vec![], vec![c])],
            ),
            ("urn:s:2".to_owned(), vec![notification(8, vec![(b, None)], vec![])]),
        ];
        files.write_waiting(10, &waiting).unwrap();
        let want: Waiting<Notification> =
            waiting.iter().map(|(id, list)| (id.clone(), list.iter().map(|n| (**n).clone()).collect())).collect();
        assert_eq!(shown(&files.read_waiting(10).unwrap()), shown(&want));
        assert!(files.read_waiting(11).unwrap().is_empty());
        let bytes = encode(10, &waiting);
        for i in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[i] ^= 1;
            assert!(decode(10, &damaged).is_err(), "byte {i}");
            assert!(decode(10, &bytes[..i]).is_err(), "cut at {i}");
        }
        files.write_waiting(12, &waiting).unwrap();
        files.keep_only(12).unwrap();
        assert!(files.read_waiting(10).unwrap().is_empty());
        assert_eq!(files.read_waiting(12).unwrap().len(), 2);
    }

    #[test]
    fn the_last_line_of_progress_counts_and_a_torn_one_does_not() {
        let disk = SimDisk::new(1, 64 << 20);
        let files = files(&disk);
        let progress = |id: &str, finished| Progress {
            id: id.to_owned(),
            created_at: Instant::from_secs(1),
            finished,
            told_at: None,
            status: crate::DeliveryStatus { times_sent: finished, ..crate::DeliveryStatus::default() },
        };
        let mut file = files.begin_progress(&[progress("a", 1)]).unwrap();
        file.append(&[progress("a", 5), progress("b", 6)]).unwrap();
        let mut torn = disk.open_append(Path::new("/notifications/progress")).unwrap();
        let line = lines(&[progress("a", 9)]);
        torn.append(&line[..line.len() - 5]).unwrap();
        let known = files.read_progress().unwrap();
        assert_eq!((known["a"].clone(), known["b"].clone(), known.len()), (progress("a", 5), progress("b", 6), 2));
    }
}
