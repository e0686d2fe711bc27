//! A log in memory, for tests.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::frame::Bookkeeping;
use super::{Expected, Log, LogError, LogReader, Read, Visitor, check_expected, note_versions};

/// Keeps records as long as it, or a reader of it, lives.
#[derive(Debug, Default)]
pub struct MemoryLog {
    kept: Arc<Kept>,
    bookkeeping: Bookkeeping,
}

#[derive(Debug)]
struct Kept(Mutex<Records>);

#[derive(Debug)]
struct Records {
    first: u64,
    records: Vec<Vec<u8>>,
}

impl Default for Kept {
    fn default() -> Self {
        Self(Mutex::new(Records { first: 1, records: Vec::new() }))
    }
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Records {
    fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    fn from(&self, from: u64) -> impl Iterator<Item = (u64, &Vec<u8>)> {
        let n_skipped = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        (self.first..).zip(&self.records).skip(n_skipped)
    }
}

impl Log for MemoryLog {
    fn append_expecting(&mut self, records: &[Vec<u8>], expected: &[Expected<'_>]) -> Result<u64, LogError> {
        check_expected(&self.bookkeeping, expected)?;
        let mut kept = self.kept.lock();
        let position = kept.next();
        if !records.is_empty() {
            kept.records.extend_from_slice(records);
            note_versions(&mut self.bookkeeping, expected.iter().map(|e| e.key), position);
        }
        Ok(position)
    }

    fn version(&self, key: &str) -> u64 {
        self.bookkeeping.versions.get(key).copied().unwrap_or_default()
    }

    fn first_position(&self) -> u64 {
        self.kept.lock().first
    }

    fn next_position(&self) -> u64 {
        self.kept.lock().next()
    }

    fn replay(&mut self, from: u64, visit: Visitor<'_>) -> Result<(), LogError> {
        for (position, record) in self.kept.lock().from(from) {
            visit(position, record).map_err(|source| LogError::Replay { position, source })?;
        }
        Ok(())
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::clone(&self.kept) as Arc<dyn LogReader>
    }

    fn mark_snapshot(&mut self, next_position: u64) -> Result<(), LogError> {
        self.bookkeeping.snapshot = next_position;
        Ok(())
    }

    fn snapshot(&self) -> u64 {
        self.bookkeeping.snapshot
    }

    fn trim(&mut self, before: u64, keep_bytes: u64) -> Result<(), LogError> {
        let mut kept = self.kept.lock();
        let mut bytes: u64 = kept.records.iter().map(|r| r.len() as u64).sum();
        let mut n_gone = 0;
        for (position, record) in kept.from(0) {
            bytes -= record.len() as u64;
            if position >= before || bytes < keep_bytes {
                break;
            }
            n_gone += 1;
        }
        kept.records.drain(..n_gone);
        kept.first += n_gone as u64;
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.kept.lock().records.iter().map(|r| r.len() as u64).sum()
    }
}

impl LogReader for Kept {
    fn first_position(&self) -> u64 {
        self.lock().first
    }

    fn next_position(&self) -> u64 {
        self.lock().next()
    }

    fn read(&self, from: u64, max: Read) -> Result<Vec<(u64, Vec<u8>)>, LogError> {
        let kept = self.lock();
        if from < kept.first {
            return Err(LogError::Gone { wanted: from, first: kept.first });
        }
        let mut bytes = 0;
        let mut found = Vec::new();
        for (position, record) in kept.from(from).take(max.records) {
            bytes += record.len();
            if bytes > max.bytes && !found.is_empty() {
                break;
            }
            found.push((position, record.clone()));
        }
        Ok(found)
    }
}
