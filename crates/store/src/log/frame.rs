//! Frames: what segment files of the log consist of.
//!
//! ```text
//! segment  = "CONURBLG" version:u32 first_position:u64 frame*
//! frame v2 = body_bytes:u32 crc32c:u32 position:u64 n_records:u32 kind:u32 body     (little endian; the checksum covers all that follows it)
//! frame v1 = body_bytes:u32 crc32c:u32 position:u64 n_records:u32 body              (a body of records without keys)
//! body     = keys (record_bytes:u32 record)*                                        kind 0: a batch of records
//! body     = snapshot:u64 n_keys:u32 (key_bytes:u8 key version:u64)*                kind 1: the log's own bookkeeping, no records
//! keys     = n_keys:u32 (key_bytes:u8 key)*
//! ```

use std::collections::BTreeMap;

use super::LogError;

pub(super) const MAGIC: &[u8; 8] = b"CONURBLG";
/// Format of the segments. Version 1 is read, and written never again.
pub(super) const VERSION: u32 = 2;
pub(super) const SEGMENT_HEADER_BYTES: usize = 20;

/// The largest batch. The committer gathers far less; one request is limited by the edge.
pub const FRAME_BYTES_MAX: usize = 48 << 20;
/// Keys that a log knows versions of: partitions and leases, never entities.
pub const KEYS_MAX: usize = 4_096;
/// The longest key.
pub const KEY_BYTES_MAX: usize = 255;

/// How long the header of a frame is, in a segment of this version.
pub(super) const fn header_bytes(version: u32) -> usize {
    if version == 1 { 20 } else { 24 }
}

/// What the log keeps about itself.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub(super) struct Bookkeeping {
    /// Everything before this position is in a snapshot elsewhere.
    pub(super) snapshot: u64,
    /// Position of the batch that touched each key last.
    pub(super) versions: BTreeMap<String, u64>,
}

impl Bookkeeping {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a frame says.
pub(super) enum Content<'a> {
    Records { keys: Vec<&'a str>, body: &'a [u8] },
    Bookkeeping(Bookkeeping),
}

/// A frame that checks.
pub(super) struct Frame<'a> {
    pub(super) n_records: u32,
    pub(super) content: Content<'a>,
    pub(super) total_bytes: usize,
}

impl<'a> Frame<'a> {
    /// The records in it.
    pub(super) fn records(&self) -> Records<'a> {
        match &self.content {
            Content::Records { body, .. } => Records(body),
            Content::Bookkeeping(_) => Records(&[]),
        }
    }
}

/// The records of a body.
pub(super) struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, after) = self.0.split_at_checked(4)?;
        let (record, after) = after.split_at_checked(u32_at(len, 0) as usize)?;
        self.0 = after;
        Some(record)
    }
}

pub(super) fn segment_header(first_position: u64) -> Vec<u8> {
    [MAGIC.as_slice(), &VERSION.to_le_bytes(), &first_position.to_le_bytes()].concat()
}

/// The version of a segment that opens with these bytes.
pub(super) fn check_segment_header(bytes: &[u8], first_position: u64) -> Result<u32, String> {
    if bytes.len() < SEGMENT_HEADER_BYTES || &bytes[..8] != MAGIC {
        return Err("it does not start with a segment header".to_owned());
    }
    let version = u32_at(bytes, 8);
    if version == 0 || version > VERSION {
        return Err(format!("format version {version} is newer than version {VERSION}, the newest that this program reads"));
    }
    let found = u64_at(bytes, 12);
    if found == first_position { Ok(version) } else { Err(format!("its header says position {found}, its name says {first_position}")) }
}

/// A batch of records as a frame of the present version.
pub(super) fn build_records<'k>(
    position: u64,
    records: &[Vec<u8>],
    keys: impl ExactSizeIterator<Item = &'k str> + Clone,
) -> Result<Vec<u8>, LogError> {
    let body_bytes = 4 + keys.clone().map(|k| k.len() + 1).sum::<usize>() + records.iter().map(|r| r.len() + 4).sum::<usize>();
    if body_bytes > FRAME_BYTES_MAX {
        return Err(LogError::TooLarge { found_bytes: body_bytes, limit_bytes: FRAME_BYTES_MAX });
    }
    let mut frame = start(position, records.len() as u32, 0, body_bytes);
    frame.extend_from_slice(&(keys.len() as u32).to_le_bytes());
    for key in keys {
        put_key(&mut frame, key);
    }
    for record in records {
        frame.extend_from_slice(&(record.len() as u32).to_le_bytes());
        frame.extend_from_slice(record);
    }
    Ok(finish(frame))
}

/// The bookkeeping as a frame of the present version.
pub(super) fn build_bookkeeping(position: u64, kept: &Bookkeeping) -> Vec<u8> {
    let body_bytes = 12 + kept.versions.keys().map(|k| k.len() + 9).sum::<usize>();
    let mut frame = start(position, 0, 1, body_bytes);
    frame.extend_from_slice(&kept.snapshot.to_le_bytes());
    frame.extend_from_slice(&(kept.versions.len() as u32).to_le_bytes());
    for (key, version) in &kept.versions {
        put_key(&mut frame, key);
        frame.extend_from_slice(&version.to_le_bytes());
    }
    finish(frame)
}

fn start(position: u64, n_records: u32, kind: u32, body_bytes: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(header_bytes(VERSION) + body_bytes);
    frame.extend_from_slice(&[0; 8]);
    frame.extend_from_slice(&position.to_le_bytes());
    frame.extend_from_slice(&n_records.to_le_bytes());
    frame.extend_from_slice(&kind.to_le_bytes());
    frame
}

fn put_key(frame: &mut Vec<u8>, key: &str) {
    frame.push(u8::try_from(key.len()).expect("the length of a key is checked before"));
    frame.extend_from_slice(key.as_bytes());
}

fn finish(mut frame: Vec<u8>) -> Vec<u8> {
    let body_bytes = (frame.len() - header_bytes(VERSION)) as u32;
    frame[..4].copy_from_slice(&body_bytes.to_le_bytes());
    let crc = crc32c::crc32c(&frame[8..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    frame
}

/// How many bytes the frame at the start of these has, by its header; none if they are too few to tell or it cannot be.
pub(super) fn frame_bytes(bytes: &[u8], version: u32) -> Option<usize> {
    let body_bytes = u32_at(bytes.get(..4)?, 0) as usize;
    (body_bytes <= FRAME_BYTES_MAX).then_some(header_bytes(version) + body_bytes)
}

/// The frame at the start of these bytes.
pub(super) fn parse(bytes: &[u8], version: u32, expected_position: u64) -> Result<Frame<'_>, String> {
    let header = header_bytes(version);
    if bytes.len() < header {
        return Err("the frame header is cut".to_owned());
    }
    let body_bytes = u32_at(bytes, 0) as usize;
    let total_bytes = header + body_bytes;
    if body_bytes > FRAME_BYTES_MAX || total_bytes > bytes.len() {
        return Err(format!("the frame says {body_bytes} bytes, {} are there", bytes.len() - header));
    }
    if crc32c::crc32c(&bytes[8..total_bytes]) != u32_at(bytes, 4) {
        return Err("the checksum does not match".to_owned());
    }
    let position = u64_at(bytes, 8);
    if position != expected_position {
        return Err(format!("the frame is for position {position}, but {expected_position} is next"));
    }
    let n_records = u32_at(bytes, 16);
    let body = &bytes[header..total_bytes];
    let kind = if version == 1 { None } else { Some(u32_at(bytes, 20)) };
    let content = match kind {
        None => Content::Records { keys: Vec::new(), body },
        Some(0) => parse_keys(body).map(|(keys, body)| Content::Records { keys, body }).ok_or("the keys of the frame cannot be read")?,
        Some(1) => parse_bookkeeping(body).map(Content::Bookkeeping).ok_or("the bookkeeping in the frame cannot be read")?,
        Some(other) => return Err(format!("the frame is of kind {other}, which this program does not know")),
    };
    let frame = Frame { n_records, content, total_bytes };
    let found = frame.records().count();
    if found != n_records as usize {
        return Err(format!("the frame says {n_records} records, {found} are there"));
    }
    Ok(frame)
}

fn parse_keys(body: &[u8]) -> Option<(Vec<&str>, &[u8])> {
    let (n, mut rest) = body.split_at_checked(4)?;
    let mut keys = Vec::new();
    for _ in 0..u32_at(n, 0) {
        let (key, after) = parse_key(rest)?;
        keys.push(key);
        rest = after;
    }
    Some((keys, rest))
}

fn parse_key(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (&len, rest) = bytes.split_first()?;
    let (key, rest) = rest.split_at_checked(usize::from(len))?;
    Some((std::str::from_utf8(key).ok()?, rest))
}

fn parse_bookkeeping(body: &[u8]) -> Option<Bookkeeping> {
    let (head, mut rest) = body.split_at_checked(12)?;
    let mut kept = Bookkeeping { snapshot: u64_at(head, 0), versions: BTreeMap::new() };
    for _ in 0..u32_at(head, 8) {
        let (key, after) = parse_key(rest)?;
        let (version, after) = after.split_at_checked(8)?;
        kept.versions.insert(key.to_owned(), u64_at(version, 0));
        rest = after;
    }
    rest.is_empty().then_some(kept)
}

/// Is there a whole frame of this position or a later one in these bytes? Then what precedes it is damage and not a torn tail.
pub(super) fn a_frame_follows(bytes: &[u8], version: u32, expected_position: u64) -> bool {
    next_frame(bytes, version, expected_position).is_some()
}

/// Where the first whole frame of this position or a later one begins in these bytes, and its position.
pub(super) fn next_frame(bytes: &[u8], version: u32, expected_position: u64) -> Option<(usize, u64)> {
    (0..bytes.len().saturating_sub(header_bytes(version))).find_map(|at| {
        let position = u64_at(bytes, at + 8);
        // One batch is lost at the most between the two, so the position is near.
        let is_near = position >= expected_position && position < expected_position + (1 << 20);
        (is_near && parse(&bytes[at..], version, position).is_ok()).then_some((at, position))
    })
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
