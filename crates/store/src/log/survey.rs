//! Reads a log as far as it can be read, for those who want to know all that is wrong with it and not only the first thing.

use std::path::Path;

use host::Disk;

use super::LogError;
use super::file::{LogCheck, file_name, first_positions};
use super::frame::{self, SEGMENT_HEADER_BYTES};

/// What is wrong with a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogDamage {
    /// Name of the file.
    pub file: String,
    /// Where in it.
    pub at_byte: u64,
    /// What is wrong.
    pub reason: String,
}

/// Reads all segments in `dir` and compares every checksum, without changing anything. `visit` is called with each record that can be read,
/// and `damaged` with what cannot: the reading goes on with the next frame or segment that checks.
///
/// A last batch that was cut short is no damage but counted in [`LogCheck::torn_bytes`]: a crash leaves such.
/// Errors: the folder cannot be listed.
pub fn survey(
    disk: &dyn Disk,
    dir: &Path,
    visit: &mut dyn FnMut(u64, &[u8]),
    damaged: &mut dyn FnMut(LogDamage),
) -> Result<LogCheck, LogError> {
    let firsts = first_positions(disk, dir)?;
    let first_position = firsts.first().copied().unwrap_or(1);
    let mut all = LogCheck { n_segments: firsts.len(), first_position, next_position: first_position, ..LogCheck::default() };
    for (i, &first) in firsts.iter().enumerate() {
        let file = file_name(first);
        let mut found = |at_byte: usize, reason: String| damaged(LogDamage { file: file.clone(), at_byte: at_byte as u64, reason });
        if first != all.next_position {
            found(0, format!("it starts at position {first}, but {} is next: records are missing", all.next_position));
        }
        all.next_position = first;
        match disk.read(&dir.join(&file)) {
            Err(e) => found(0, format!("cannot be read: {e}")),
            Ok(bytes) => {
                all.bytes += bytes.len() as u64;
                survey_segment(&bytes, i + 1 == firsts.len(), &mut all, visit, &mut found);
            }
        }
    }
    Ok(all)
}

fn survey_segment(
    bytes: &[u8],
    is_last: bool,
    all: &mut LogCheck,
    visit: &mut dyn FnMut(u64, &[u8]),
    damaged: &mut dyn FnMut(usize, String),
) {
    let version = match frame::check_segment_header(bytes, all.next_position) {
        Ok(version) => version,
        // Made and not yet written when the machine died.
        Err(_) if is_last && bytes.len() < SEGMENT_HEADER_BYTES => {
            all.torn_bytes += bytes.len() as u64;
            return;
        }
        Err(reason) => {
            damaged(0, reason);
            frame::VERSION
        }
    };
    let mut at = SEGMENT_HEADER_BYTES;
    while at < bytes.len() {
        let reason = match frame::parse(&bytes[at..], version, all.next_position) {
            Ok(parsed) => {
                for record in parsed.records() {
                    visit(all.next_position, record);
                    all.next_position += 1;
                }
                at += parsed.total_bytes;
                continue;
            }
            Err(reason) => reason,
        };
        let rest = &bytes[at..];
        match frame::next_frame(&rest[1..], version, all.next_position) {
            Some((skipped, position)) => {
                let lost = match position - all.next_position {
                    0 => String::new(),
                    1 => format!("; the record at position {} is lost", all.next_position),
                    _ => format!("; the records at positions {} to {} are lost", all.next_position, position - 1),
                };
                damaged(at, format!("{reason}{lost}"));
                all.next_position = position;
                at += 1 + skipped;
            }
            None => {
                // A crash cuts the last write short. One that is there in its whole length may be that too (the file grew before its content
                // came), but a sound disk that nobody pulled the plug of has no such thing.
                let is_whole = frame::frame_bytes(rest, version).is_some_and(|n| n == rest.len()) && rest.iter().any(|b| *b != 0);
                if !is_last || is_whole {
                    damaged(at, format!("{reason}; nothing behind it can be read"));
                } else {
                    all.torn_bytes += rest.len() as u64;
                }
                return;
            }
        }
    }
}
