//! The log in segment files, see `frame` for what is in them.
//!
//! A segment is named by the position of its first record. After its header it repeats the log's bookkeeping, so that older segments can go.
//! A frame that was cut by a crash can only be the last one: it is removed at the next start. Anything else that does not check is damage,
//! and the log refuses to open.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host::{AppendFile, Disk};

use super::frame::{self, Bookkeeping, Content, KEY_BYTES_MAX, SEGMENT_HEADER_BYTES};
use super::{Expected, Log, LogError, LogReader, Read, Visitor, check_expected, note_versions};

/// A segment is closed when it has grown past this (64 MiB: a replay reads few files, a trim frees soon).
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// So many bytes of a segment have one entry in the index of positions.
const MARK_BYTES: u64 = 64 << 10;
/// Read at once by a reader.
const READ_BYTES: usize = 1 << 20;

/// The embedded log engine.
pub struct FileLog {
    disk: Arc<dyn Disk>,
    current: Option<Box<dyn AppendFile>>,
    /// Behind the last good byte of the current segment there may be the rest of a batch that was refused.
    tail_dirty: bool,
    /// The current segment has bytes that no sync has covered yet: bookkeeping, which can wait for the next batch.
    unsynced: bool,
    stopped: bool,
    segment_bytes: u64,
    bookkeeping: Bookkeeping,
    index: Arc<Index>,
}

/// What writer and readers share: what is durable, and where.
struct Index {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segments: Mutex<Segments>,
}

struct Segments {
    list: Vec<Segment>,
    next_position: u64,
}

#[derive(Clone)]
struct Segment {
    first_position: u64,
    /// Bytes that hold whole frames.
    bytes: u64,
    version: u32,
    /// Positions of some frames and where they begin, ascending.
    marks: Vec<(u64, u64)>,
}

impl Segment {
    fn mark(&mut self, position: u64, at_byte: u64) {
        if self.marks.last().is_none_or(|m| at_byte - m.1 >= MARK_BYTES && position > m.0) {
            self.marks.push((position, at_byte));
        }
    }
}

impl Index {
    fn lock(&self) -> MutexGuard<'_, Segments> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path_of(&self, first_position: u64) -> PathBuf {
        self.dir.join(file_name(first_position))
    }
}

/// The name of the segment that begins at this position.
pub(crate) fn file_name(first_position: u64) -> String {
    format!("{first_position:020}.log")
}

/// The positions that the names of segments give, sorted.
pub(super) fn first_positions(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>, LogError> {
    let names = disk.list(dir).map_err(|source| LogError::Io { action: "list", path: dir.to_owned(), source })?;
    Ok(names.iter().filter_map(|n| n.strip_suffix(".log")?.parse().ok()).collect())
}

/// What was found in a segment file.
struct Checked {
    segment: Segment,
    next_position: u64,
    bookkeeping: Bookkeeping,
    /// Bytes behind the last good frame, that a crash explains; none of them was acknowledged.
    torn_bytes: u64,
    /// It has no frame yet, perhaps not even its header.
    headless: bool,
}

/// Checks every frame of a segment that should begin at `first`.
fn check_segment(path: &Path, bytes: &[u8], first: u64, is_last: bool) -> Result<Checked, LogError> {
    let damaged = |at_byte: usize, reason: String| LogError::Damaged { path: path.to_owned(), at_byte: at_byte as u64, reason };
    let mut found = Checked {
        segment: Segment { first_position: first, bytes: 0, version: frame::VERSION, marks: Vec::new() },
        next_position: first,
        bookkeeping: Bookkeeping::default(),
        torn_bytes: 0,
        headless: false,
    };
    match frame::check_segment_header(bytes, first) {
        Ok(version) => found.segment.version = version,
        // Made and not yet written when the machine died.
        Err(_) if is_last && bytes.len() < SEGMENT_HEADER_BYTES => {
            return Ok(Checked { torn_bytes: bytes.len() as u64, headless: true, ..found });
        }
        Err(reason) => return Err(damaged(0, reason)),
    }
    let version = found.segment.version;
    let mut at = SEGMENT_HEADER_BYTES;
    while at < bytes.len() {
        match frame::parse(&bytes[at..], version, found.next_position) {
            Ok(parsed) => {
                found.segment.mark(found.next_position, at as u64);
                match parsed.content {
                    Content::Records { ref keys, .. } => note_versions(&mut found.bookkeeping, keys.iter().copied(), found.next_position),
                    Content::Bookkeeping(ref kept) => found.bookkeeping.clone_from(kept),
                }
                found.next_position += u64::from(parsed.n_records);
                at += parsed.total_bytes;
            }
            Err(reason) => {
                if !is_last || frame::a_frame_follows(&bytes[at + 1..], version, found.next_position) {
                    return Err(damaged(at, reason));
                }
                found.torn_bytes = (bytes.len() - at) as u64;
                break;
            }
        }
    }
    // Without a single frame it may lack the bookkeeping that belongs at its beginning: it is begun anew.
    found.headless = is_last && at == SEGMENT_HEADER_BYTES;
    found.segment.bytes = if found.headless { 0 } else { at as u64 };
    Ok(found)
}

/// What [`check`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogCheck {
    /// Segments read.
    pub n_segments: usize,
    /// Bytes read.
    pub bytes: u64,
    /// The oldest position kept.
    pub first_position: u64,
    /// The position behind the newest record.
    pub next_position: u64,
    /// Bytes of a last batch that was cut by a crash and never acknowledged; the next start removes them.
    pub torn_bytes: u64,
}

/// Reads all segments in `dir` and compares every checksum, without changing anything; `visit` sees every record.
///
/// Errors: the first damage found, or what `visit` says.
pub fn check(disk: &dyn Disk, dir: &Path, visit: Visitor<'_>) -> Result<LogCheck, LogError> {
    let firsts = first_positions(disk, dir)?;
    let first_position = firsts.first().copied().unwrap_or(1);
    let mut all = LogCheck { n_segments: firsts.len(), first_position, next_position: first_position, ..LogCheck::default() };
    for (i, &first) in firsts.iter().enumerate() {
        let path = dir.join(file_name(first));
        if first != all.next_position {
            return Err(missing_before(path, first, all.next_position));
        }
        let bytes = disk.read(&path).map_err(|source| LogError::Io { action: "read", path: path.clone(), source })?;
        let found = check_segment(&path, &bytes, first, i + 1 == firsts.len())?;
        let good = &bytes[..usize::try_from(found.segment.bytes).unwrap_or(bytes.len()).min(bytes.len())];
        if !found.headless {
            each_record(&path, good, &found.segment, SEGMENT_HEADER_BYTES, first, visit)?;
        }
        all.bytes += bytes.len() as u64;
        all.torn_bytes += found.torn_bytes;
        all.next_position = found.next_position;
    }
    Ok(all)
}

fn missing_before(path: PathBuf, first: u64, expected: u64) -> LogError {
    let reason = format!("it starts at position {first}, but {expected} is next: a segment is missing");
    LogError::Damaged { path, at_byte: 0, reason }
}

/// Calls `visit` with each record of the frames in `bytes`, from `at` on, where `position` is next.
fn each_record(path: &Path, bytes: &[u8], segment: &Segment, mut at: usize, mut position: u64, visit: Visitor<'_>) -> Result<(), LogError> {
    while at < bytes.len() {
        let parsed = frame::parse(&bytes[at..], segment.version, position).map_err(|reason| LogError::Damaged {
            path: path.to_owned(),
            at_byte: at as u64,
            reason,
        })?;
        for record in parsed.records() {
            visit(position, record).map_err(|source| LogError::Replay { position, source })?;
            position += 1;
        }
        at += parsed.total_bytes;
    }
    Ok(())
}

impl FileLog {
    /// Opens the log in `dir`; cuts a torn tail, refuses damage.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, LogError> {
        Self::open_with(disk, dir, SEGMENT_BYTES)
    }

    /// The same with another segment size, for tests of rotation.
    pub fn open_with(disk: Arc<dyn Disk>, dir: &Path, segment_bytes: u64) -> Result<Self, LogError> {
        let firsts = first_positions(disk.as_ref(), dir)?;
        let mut log = Self::empty(disk, dir, segment_bytes, firsts.first().copied().unwrap_or(1));
        for (i, &first) in firsts.iter().enumerate() {
            log.take_segment(first, i + 1 == firsts.len())?;
        }
        Ok(log)
    }

    /// Makes a log in `dir`, which must have none, of which the first record will have this position.
    ///
    /// Errors: there is a segment already, or it cannot be written.
    pub fn create_at(disk: Arc<dyn Disk>, dir: &Path, first_position: u64) -> Result<Self, LogError> {
        if let Some(&found) = first_positions(disk.as_ref(), dir)?.first() {
            let path = dir.join(file_name(found));
            return Err(LogError::Damaged { path, at_byte: 0, reason: "it is in the way of a new log".to_owned() });
        }
        let mut log = Self::empty(disk, dir, SEGMENT_BYTES, first_position);
        log.rotate()?;
        Ok(log)
    }

    fn empty(disk: Arc<dyn Disk>, dir: &Path, segment_bytes: u64, next_position: u64) -> Self {
        let segments = Mutex::new(Segments { list: Vec::new(), next_position });
        let index = Arc::new(Index { disk: Arc::clone(&disk), dir: dir.to_owned(), segments });
        let bookkeeping = Bookkeeping::default();
        Self { disk, current: None, tail_dirty: false, unsynced: false, stopped: false, segment_bytes, bookkeeping, index }
    }

    fn take_segment(&mut self, first: u64, is_last: bool) -> Result<(), LogError> {
        let path = self.index.path_of(first);
        let expected = self.next_position();
        if first != expected {
            return Err(missing_before(path, first, expected));
        }
        let failed = |action| {
            let path = path.clone();
            move |source| LogError::Io { action, path, source }
        };
        let bytes = self.disk.read(&path).map_err(failed("read"))?;
        let Checked { mut segment, next_position, bookkeeping, torn_bytes, headless } = check_segment(&path, &bytes, first, is_last)?;
        if torn_bytes > 0 || headless {
            if torn_bytes > 0 {
                tracing::warn!(segment = %path.display(), at_byte = segment.bytes, torn_bytes, "cutting a batch that was never acknowledged");
            }
            let mut file = self.disk.open_append(&path).map_err(failed("open"))?;
            file.truncate(segment.bytes).map_err(failed("cut"))?;
        }
        if !headless {
            // Each segment begins with the bookkeeping of those before it; one of version 1 knows of none.
            self.bookkeeping = bookkeeping;
        }
        if is_last && (headless || segment.version == frame::VERSION) {
            let mut file = self.disk.open_append(&path).map_err(failed("open"))?;
            if headless {
                segment.version = frame::VERSION;
                segment.bytes = write_start(file.as_mut(), first, &self.bookkeeping).map_err(failed("write"))?;
            }
            self.current = Some(file);
        }
        let mut segments = self.index.lock();
        segments.list.push(segment);
        segments.next_position = next_position;
        Ok(())
    }

    /// Starts a new segment if there is none yet or the current one is full.
    fn rotate(&mut self) -> Result<(), LogError> {
        let first = {
            let segments = self.index.lock();
            if self.current.is_some()
                && segments.list.last().is_some_and(|s| s.bytes < self.segment_bytes || s.first_position == segments.next_position)
            {
                return Ok(());
            }
            segments.next_position
        };
        // Only the last segment may end with a torn frame: what is behind must be whole before there is another one.
        if self.tail_dirty {
            self.cut_tail()?;
        }
        if self.unsynced {
            self.sync()?;
        }
        let path = self.index.path_of(first);
        let failed = |action| move |source: io::Error| to_error(action, path, source);
        let mut file = self.disk.open_append(&self.index.path_of(first)).map_err(failed.clone()("open"))?;
        // An attempt before this one may have left a half of it.
        file.truncate(0).map_err(failed.clone()("cut"))?;
        let bytes = match write_start(file.as_mut(), first, &self.bookkeeping) {
            Ok(bytes) => bytes,
            Err(source) => {
                file.truncate(0).map_err(failed.clone()("cut"))?;
                return Err(failed("write")(source));
            }
        };
        self.current = Some(file);
        self.tail_dirty = false;
        let mut segments = self.index.lock();
        // A segment of an older format that has no record yet has the same name.
        segments.list.retain(|s| s.first_position != first);
        segments.list.push(Segment { first_position: first, bytes, version: frame::VERSION, marks: Vec::new() });
        Ok(())
    }

    /// Writes behind the last good byte, and returns where.
    fn write(&mut self, frame: &[u8]) -> Result<u64, LogError> {
        let Some((first, bytes)) = self.index.lock().list.last().map(|s| (s.first_position, s.bytes)) else {
            return Err(LogError::Stopped);
        };
        let path = self.index.path_of(first);
        if self.tail_dirty {
            self.cut_tail()?;
        }
        let Some(file) = self.current.as_mut() else { return Err(LogError::Stopped) };
        if let Err(source) = file.append(frame) {
            // Nothing was acknowledged yet: take the half frame back, now or before the next one.
            self.tail_dirty = file.truncate(bytes).is_err();
            let error = to_error("write", path, source);
            self.stopped = !matches!(error, LogError::Full { .. } | LogError::ReadOnly { .. });
            return Err(error);
        }
        Ok(bytes)
    }

    /// Takes back what a refused batch has left behind the last good byte.
    fn cut_tail(&mut self) -> Result<(), LogError> {
        let last = self.index.lock().list.last().map(|s| (s.first_position, s.bytes));
        let (Some(file), Some((first, bytes))) = (self.current.as_mut(), last) else { return Err(LogError::Stopped) };
        file.truncate(bytes).map_err(|source| to_error("cut", self.index.path_of(first), source))?;
        self.tail_dirty = false;
        Ok(())
    }

    /// Makes the current segment durable.
    fn sync(&mut self) -> Result<(), LogError> {
        let file = self.current.as_mut().ok_or(LogError::Stopped)?;
        if let Err(source) = file.sync() {
            // After a failed sync nobody knows what is on the disk (the kernel may have dropped the pages): stop.
            self.stopped = true;
            let first = self.index.lock().list.last().map_or(0, |s| s.first_position);
            return Err(LogError::Io { action: "sync", path: self.index.path_of(first), source });
        }
        self.unsynced = false;
        Ok(())
    }

    fn write_frame(&mut self, frame: &[u8], n_records: usize) -> Result<(), LogError> {
        let at_byte = self.write(frame)?;
        self.sync()?;
        let mut segments = self.index.lock();
        let position = segments.next_position;
        let Some(segment) = segments.list.last_mut() else { return Err(LogError::Stopped) };
        segment.mark(position, at_byte);
        segment.bytes += frame.len() as u64;
        segments.next_position += n_records as u64;
        Ok(())
    }
}

fn to_error(action: &'static str, path: PathBuf, source: io::Error) -> LogError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => LogError::Full { path },
        io::ErrorKind::ReadOnlyFilesystem => LogError::ReadOnly { path },
        _ => LogError::Io { action, path, source },
    }
}

impl Log for FileLog {
    fn append_expecting(&mut self, records: &[Vec<u8>], expected: &[Expected<'_>]) -> Result<u64, LogError> {
        if self.stopped {
            return Err(LogError::Stopped);
        }
        check_expected(&self.bookkeeping, expected)?;
        let position = self.next_position();
        if records.is_empty() {
            return Ok(position);
        }
        let frame = frame::build_records(position, records, expected.iter().map(|e| e.key))?;
        self.rotate()?;
        self.write_frame(&frame, records.len())?;
        note_versions(&mut self.bookkeeping, expected.iter().map(|e| e.key), position);
        Ok(position)
    }

    fn version(&self, key: &str) -> u64 {
        self.bookkeeping.versions.get(key).copied().unwrap_or_default()
    }

    fn first_position(&self) -> u64 {
        self.index.first_position()
    }

    fn next_position(&self) -> u64 {
        self.index.next_position()
    }

    fn replay(&mut self, from: u64, visit: Visitor<'_>) -> Result<(), LogError> {
        let list = self.index.lock().list.clone();
        for (i, segment) in list.iter().enumerate() {
            if list.get(i + 1).is_some_and(|next| next.first_position <= from) {
                continue;
            }
            let path = self.index.path_of(segment.first_position);
            let mut bytes = self.disk.read(&path).map_err(|source| LogError::Io { action: "read", path: path.clone(), source })?;
            bytes.truncate(usize::try_from(segment.bytes).unwrap_or(usize::MAX));
            let mut since = |position, record: &[u8]| if position < from { Ok(()) } else { visit(position, record) };
            each_record(&path, &bytes, segment, SEGMENT_HEADER_BYTES, segment.first_position, &mut since)?;
        }
        Ok(())
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::clone(&self.index) as Arc<dyn LogReader>
    }

    fn mark_snapshot(&mut self, next_position: u64) -> Result<(), LogError> {
        if self.stopped {
            return Err(LogError::Stopped);
        }
        if self.bookkeeping.snapshot == next_position {
            return Ok(());
        }
        self.bookkeeping.snapshot = next_position;
        self.rotate()?;
        let frame = frame::build_bookkeeping(self.next_position(), &self.bookkeeping);
        self.write(&frame)?;
        self.unsynced = true;
        if let Some(segment) = self.index.lock().list.last_mut() {
            segment.bytes += frame.len() as u64;
        }
        Ok(())
    }

    fn snapshot(&self) -> u64 {
        self.bookkeeping.snapshot
    }

    fn trim(&mut self, before: u64, keep_bytes: u64) -> Result<(), LogError> {
        loop {
            let first = {
                let segments = self.index.lock();
                let left: u64 = segments.list.iter().skip(1).map(|s| s.bytes).sum();
                match segments.list.as_slice() {
                    [first, second, ..] if second.first_position <= before && left >= keep_bytes => first.first_position,
                    _ => return Ok(()),
                }
            };
            let path = self.index.path_of(first);
            // First out of the list: who then does not find the file sees there why.
            let segment = self.index.lock().list.remove(0);
            if let Err(source) = self.disk.remove(&path) {
                self.index.lock().list.insert(0, segment);
                return Err(LogError::Io { action: "remove", path, source });
            }
        }
    }

    fn size_bytes(&self) -> u64 {
        self.index.lock().list.iter().map(|s| s.bytes).sum()
    }
}

impl LogReader for Index {
    fn first_position(&self) -> u64 {
        let segments = self.lock();
        segments.list.first().map_or(segments.next_position, |s| s.first_position)
    }

    fn next_position(&self) -> u64 {
        self.lock().next_position
    }

    fn resume_after(&self, position: u64) -> Option<u64> {
        let segments = self.lock();
        let starts = segments.list.iter().flat_map(|s| s.marks.iter().map(|m| m.0).chain([s.first_position]));
        starts.filter(|start| *start > position && *start < segments.next_position).min()
    }

    fn read(&self, from: u64, max: Read) -> Result<Vec<(u64, Vec<u8>)>, LogError> {
        let mut found = Vec::new();
        let mut n_bytes = 0;
        let mut wanted = from;
        while found.len() < max.records && (n_bytes < max.bytes || found.is_empty()) {
            let (segment, until) = {
                let segments = self.lock();
                let first = segments.list.first().map_or(segments.next_position, |s| s.first_position);
                if wanted < first {
                    return Err(LogError::Gone { wanted, first });
                }
                if wanted >= segments.next_position {
                    break;
                }
                let i = segments.list.partition_point(|s| s.first_position <= wanted) - 1;
                (segments.list[i].clone(), segments.list.get(i + 1).map_or(segments.next_position, |s| s.first_position))
            };
            let path = self.path_of(segment.first_position);
            let limit = Read { records: max.records - found.len(), bytes: max.bytes.saturating_sub(n_bytes) };
            let read = self.read_segment(&path, &segment, wanted, until, limit);
            let more = match read {
                // Trimmed while we read.
                Err(LogError::Io { .. }) if wanted < self.first_position() => {
                    return Err(LogError::Gone { wanted, first: self.first_position() });
                }
                other => other?,
            };
            let Some(last) = more.last() else { break };
            wanted = last.0 + 1;
            n_bytes += more.iter().map(|(_, r)| r.len()).sum::<usize>();
            found.extend(more);
        }
        Ok(found)
    }
}

impl Index {
    /// Records of one segment from `wanted` on; at least one, if there is one before `until`.
    fn read_segment(&self, path: &Path, segment: &Segment, wanted: u64, until: u64, max: Read) -> Result<Vec<(u64, Vec<u8>)>, LogError> {
        let i = segment.marks.partition_point(|m| m.0 <= wanted);
        let (mut position, mut at) = if i == 0 { (segment.first_position, SEGMENT_HEADER_BYTES as u64) } else { segment.marks[i - 1] };
        let mut found = Vec::new();
        let mut n_bytes = 0;
        let mut chunk_bytes = READ_BYTES;
        while at < segment.bytes && position < until {
            let len = usize::try_from(segment.bytes - at).unwrap_or(usize::MAX).min(chunk_bytes);
            let bytes = self.disk.read_range(path, at..at + len as u64).map_err(|source| LogError::Io {
                action: "read",
                path: path.to_owned(),
                source,
            })?;
            let mut used = 0;
            while let Some(total) =
                bytes.get(used..).and_then(|b| frame::frame_bytes(b, segment.version)).filter(|n| used + n <= bytes.len())
            {
                let at_byte = at + used as u64;
                let parsed = frame::parse(&bytes[used..], segment.version, position).map_err(|reason| LogError::Damaged {
                    path: path.to_owned(),
                    at_byte,
                    reason,
                })?;
                for record in parsed.records() {
                    if position >= wanted {
                        n_bytes += record.len();
                        if found.len() >= max.records || (n_bytes > max.bytes && !found.is_empty()) {
                            return Ok(found);
                        }
                        found.push((position, record.to_vec()));
                    }
                    position += 1;
                }
                used += total;
            }
            if used == 0 {
                if len < chunk_bytes || chunk_bytes > 2 * frame::FRAME_BYTES_MAX {
                    return Err(LogError::Damaged {
                        path: path.to_owned(),
                        at_byte: at,
                        reason: "a frame ends behind the segment".to_owned(),
                    });
                }
                // A frame larger than what was read.
                chunk_bytes *= 4;
            }
            at += used as u64;
        }
        Ok(found)
    }
}

fn write_start(file: &mut dyn AppendFile, first_position: u64, kept: &Bookkeeping) -> io::Result<u64> {
    let mut start = frame::segment_header(first_position);
    if !kept.is_empty() {
        start.extend(frame::build_bookkeeping(first_position, kept));
    }
    file.append(&start)?;
    file.sync()?;
    Ok(start.len() as u64)
}

const _: () = assert!(KEY_BYTES_MAX <= u8::MAX as usize, "the length of a key is one byte");
