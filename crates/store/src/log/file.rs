//! The log in segment files.
//!
//! A segment is named by the position of its first record and opens with a header; then come frames, one per batch:
//!
//! ```text
//! segment = "CONURBLG" version:u32 first_position:u64 frame*
//! frame   = body_bytes:u32 crc32c:u32 first_position:u64 n_records:u32 body      (little endian; the checksum covers all that follows it)
//! body    = (record_bytes:u32 record)*
//! ```
//!
//! A frame that was cut by a crash can only be the last one: it is removed at the next start. Anything else that does not check is damage,
//! and the log refuses to open.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use host::{AppendFile, Disk};

use super::{Log, LogError, Visitor};

const MAGIC: &[u8; 8] = b"CONURBLG";
/// Format of the segments. Raise it with a migration on read.
const VERSION: u32 = 1;
const SEGMENT_HEADER_BYTES: usize = 20;
const FRAME_HEADER_BYTES: usize = 20;

/// A segment is closed when it has grown past this (64 MiB: a replay reads few files, a trim frees soon).
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// The largest batch. The committer gathers far less; one request is limited by the edge.
pub const FRAME_BYTES_MAX: usize = 48 << 20;

/// The embedded log engine.
pub struct FileLog {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segments: Vec<Segment>,
    current: Option<Box<dyn AppendFile>>,
    next_position: u64,
    stopped: bool,
    segment_bytes: u64,
}

struct Segment {
    first_position: u64,
    bytes: u64,
}

impl FileLog {
    /// Opens the log in `dir`; cuts a torn tail, refuses damage.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, LogError> {
        Self::open_with(disk, dir, SEGMENT_BYTES)
    }

    /// The same with another segment size, for tests of rotation.
    pub fn open_with(disk: Arc<dyn Disk>, dir: &Path, segment_bytes: u64) -> Result<Self, LogError> {
        let names = disk.list(dir).map_err(|source| LogError::Io { action: "list", path: dir.to_owned(), source })?;
        let mut log =
            Self { disk, dir: dir.to_owned(), segments: Vec::new(), current: None, next_position: 1, stopped: false, segment_bytes };
        let firsts: Vec<u64> = names.iter().filter_map(|n| n.strip_suffix(".log")?.parse().ok()).collect();
        for (i, &first) in firsts.iter().enumerate() {
            log.check_segment(first, i == 0, i + 1 == firsts.len())?;
        }
        Ok(log)
    }

    fn path_of(&self, first_position: u64) -> PathBuf {
        self.dir.join(format!("{first_position:020}.log"))
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, LogError> {
        self.disk.read(path).map_err(|source| LogError::Io { action: "read", path: path.to_owned(), source })
    }

    fn check_segment(&mut self, first: u64, is_first: bool, is_last: bool) -> Result<(), LogError> {
        let path = self.path_of(first);
        let bytes = self.read(&path)?;
        let damaged =
            |at_byte: usize, reason: &str| LogError::Damaged { path: path.clone(), at_byte: at_byte as u64, reason: reason.to_owned() };
        if !is_first && first != self.next_position {
            return Err(damaged(0, &format!("it starts at position {first}, but {} is next: a segment is missing", self.next_position)));
        }
        self.next_position = first;
        let header_len = match check_header(&bytes, first) {
            Ok(()) => SEGMENT_HEADER_BYTES,
            // Made and not yet written when the machine died.
            Err(_) if is_last && bytes.len() < SEGMENT_HEADER_BYTES => 0,
            Err(reason) => return Err(damaged(0, &reason)),
        };
        let mut at = header_len;
        while header_len > 0 && at < bytes.len() {
            match parse_frame(&bytes[at..], self.next_position) {
                Ok(frame) => {
                    self.next_position += u64::from(frame.n_records);
                    at += frame.total_bytes;
                }
                Err(reason) => {
                    if !is_last || a_frame_follows(&bytes[at + 1..], self.next_position) {
                        return Err(damaged(at, &reason));
                    }
                    tracing::warn!(segment = %path.display(), at_byte = at, lost_bytes = bytes.len() - at, "cutting a batch that was never acknowledged");
                    break;
                }
            }
        }
        let mut kept = at as u64;
        if is_last {
            let mut file = self.disk.open_append(&path).map_err(|source| LogError::Io { action: "open", path: path.clone(), source })?;
            if at < bytes.len() || header_len == 0 {
                file.truncate(kept).map_err(|source| LogError::Io { action: "cut", path: path.clone(), source })?;
            }
            if header_len == 0 {
                kept = write_header(file.as_mut(), first).map_err(|source| LogError::Io { action: "write", path: path.clone(), source })?;
            }
            self.current = Some(file);
        }
        self.segments.push(Segment { first_position: first, bytes: kept });
        Ok(())
    }

    /// Starts a new segment if there is none yet or the current one is full.
    fn rotate(&mut self) -> Result<(), LogError> {
        if self.current.is_some() && self.segments.last().is_some_and(|s| s.bytes < self.segment_bytes) {
            return Ok(());
        }
        let first = self.next_position;
        let path = self.path_of(first);
        let failed = |action| move |source: std::io::Error| to_error(action, path, source);
        let mut file = self.disk.open_append(&self.path_of(first)).map_err(failed.clone()("open"))?;
        let bytes = match write_header(file.as_mut(), first) {
            Ok(bytes) => bytes,
            Err(source) => {
                // Leave no half header: the next attempt opens the same name.
                file.truncate(0).map_err(failed.clone()("cut"))?;
                return Err(failed("write")(source));
            }
        };
        self.current = Some(file);
        self.segments.push(Segment { first_position: first, bytes });
        Ok(())
    }

    fn write_frame(&mut self, frame: &[u8]) -> Result<(), LogError> {
        let (Some(file), Some(segment)) = (self.current.as_mut(), self.segments.last_mut()) else { return Err(LogError::Stopped) };
        let path = self.dir.join(format!("{:020}.log", segment.first_position));
        if let Err(source) = file.append(frame) {
            // Nothing was acknowledged yet: take the half frame back. If even that fails the disk is not to be trusted.
            self.stopped = file.truncate(segment.bytes).is_err() || source.kind() != std::io::ErrorKind::StorageFull;
            return Err(to_error("write", path, source));
        }
        if let Err(source) = file.sync() {
            // After a failed sync nobody knows what is on the disk (the kernel may have dropped the pages): stop.
            self.stopped = true;
            return Err(to_error("sync", path, source));
        }
        segment.bytes += frame.len() as u64;
        Ok(())
    }
}

fn to_error(action: &'static str, path: PathBuf, source: std::io::Error) -> LogError {
    if source.kind() == std::io::ErrorKind::StorageFull && action != "sync" {
        LogError::Full { path }
    } else {
        LogError::Io { action, path, source }
    }
}

impl Log for FileLog {
    fn append(&mut self, records: &[Vec<u8>]) -> Result<u64, LogError> {
        if self.stopped {
            return Err(LogError::Stopped);
        }
        let position = self.next_position;
        if records.is_empty() {
            return Ok(position);
        }
        let frame = build_frame(position, records)?;
        self.rotate()?;
        self.write_frame(&frame)?;
        self.next_position += records.len() as u64;
        Ok(position)
    }

    fn first_position(&self) -> u64 {
        self.segments.first().map_or(self.next_position, |s| s.first_position)
    }

    fn next_position(&self) -> u64 {
        self.next_position
    }

    fn replay(&mut self, from: u64, visit: Visitor<'_>) -> Result<(), LogError> {
        let starts: Vec<u64> = self.segments.iter().map(|s| s.first_position).collect();
        for (i, &first) in starts.iter().enumerate() {
            if starts.get(i + 1).is_some_and(|&next| next <= from) {
                continue;
            }
            let path = self.path_of(first);
            let bytes = self.read(&path)?;
            let mut position = first;
            let mut at = SEGMENT_HEADER_BYTES;
            while at < bytes.len() {
                let frame = parse_frame(&bytes[at..], position).map_err(|reason| LogError::Damaged {
                    path: path.clone(),
                    at_byte: at as u64,
                    reason,
                })?;
                for record in records_of(frame.body) {
                    if position >= from {
                        visit(position, record).map_err(|source| LogError::Replay { position, source })?;
                    }
                    position += 1;
                }
                at += frame.total_bytes;
            }
        }
        Ok(())
    }

    fn trim(&mut self, before: u64) -> Result<(), LogError> {
        while self.segments.len() > 1 && self.segments[1].first_position <= before {
            let path = self.path_of(self.segments[0].first_position);
            self.disk.remove(&path).map_err(|source| LogError::Io { action: "remove", path, source })?;
            self.segments.remove(0);
        }
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.bytes).sum()
    }
}

fn write_header(file: &mut dyn AppendFile, first_position: u64) -> std::io::Result<u64> {
    let header = [MAGIC.as_slice(), &VERSION.to_le_bytes(), &first_position.to_le_bytes()].concat();
    file.append(&header)?;
    file.sync()?;
    Ok(header.len() as u64)
}

fn check_header(bytes: &[u8], first_position: u64) -> Result<(), String> {
    if bytes.len() < SEGMENT_HEADER_BYTES || &bytes[..8] != MAGIC {
        return Err("it does not start with a segment header".to_owned());
    }
    let version = u32_at(bytes, 8);
    if version != VERSION {
        return Err(format!("format version {version} is not version {VERSION}, which this program reads"));
    }
    let found = u64_at(bytes, 12);
    if found == first_position { Ok(()) } else { Err(format!("its header says position {found}, its name says {first_position}")) }
}

struct Frame<'a> {
    n_records: u32,
    body: &'a [u8],
    total_bytes: usize,
}

fn build_frame(first_position: u64, records: &[Vec<u8>]) -> Result<Vec<u8>, LogError> {
    let body_bytes: usize = records.iter().map(|r| r.len() + 4).sum();
    if body_bytes > FRAME_BYTES_MAX {
        return Err(LogError::TooLarge { found_bytes: body_bytes, limit_bytes: FRAME_BYTES_MAX });
    }
    let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + body_bytes);
    frame.extend_from_slice(&(body_bytes as u32).to_le_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(&first_position.to_le_bytes());
    frame.extend_from_slice(&(records.len() as u32).to_le_bytes());
    for record in records {
        frame.extend_from_slice(&(record.len() as u32).to_le_bytes());
        frame.extend_from_slice(record);
    }
    let crc = crc32c::crc32c(&frame[8..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    Ok(frame)
}

fn parse_frame(bytes: &[u8], expected_position: u64) -> Result<Frame<'_>, String> {
    if bytes.len() < FRAME_HEADER_BYTES {
        return Err("the frame header is cut".to_owned());
    }
    let body_bytes = u32_at(bytes, 0) as usize;
    let total_bytes = FRAME_HEADER_BYTES + body_bytes;
    if body_bytes > FRAME_BYTES_MAX || total_bytes > bytes.len() {
        return Err(format!("the frame says {body_bytes} bytes, {} are there", bytes.len() - FRAME_HEADER_BYTES));
    }
    if crc32c::crc32c(&bytes[8..total_bytes]) != u32_at(bytes, 4) {
        return Err("the checksum does not match".to_owned());
    }
    let position = u64_at(bytes, 8);
    if position != expected_position {
        return Err(format!("the frame is for position {position}, but {expected_position} is next"));
    }
    Ok(Frame { n_records: u32_at(bytes, 16), body: &bytes[FRAME_HEADER_BYTES..total_bytes], total_bytes })
}

/// Is there a whole later frame in these bytes? Then what precedes it is damage and not a torn tail.
fn a_frame_follows(bytes: &[u8], expected_position: u64) -> bool {
    (0..bytes.len().saturating_sub(FRAME_HEADER_BYTES)).any(|at| {
        let position = u64_at(bytes, at + 8);
        // One batch is lost at the most between the two, so the position is near.
        position > expected_position && position < expected_position + (1 << 20) && parse_frame(&bytes[at..], position).is_ok()
    })
}

fn records_of(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = body;
    std::iter::from_fn(move || {
        let (len, after) = rest.split_at_checked(4)?;
        let (record, after) = after.split_at_checked(u32_at(len, 0) as usize)?;
        rest = after;
        Some(record)
    })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
