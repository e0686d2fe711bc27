//! A log in memory, for tests.

use super::{Log, LogError, Visitor};

/// Keeps records as long as it lives.
#[derive(Debug)]
pub struct MemoryLog {
    first: u64,
    records: Vec<Vec<u8>>,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self { first: 1, records: Vec::new() }
    }
}

impl Log for MemoryLog {
    fn append(&mut self, records: &[Vec<u8>]) -> Result<u64, LogError> {
        let position = self.next_position();
        self.records.extend_from_slice(records);
        Ok(position)
    }

    fn first_position(&self) -> u64 {
        self.first
    }

    fn next_position(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    fn replay(&mut self, from: u64, visit: Visitor<'_>) -> Result<(), LogError> {
        for (position, record) in (self.first..).zip(&self.records) {
            if position >= from {
                visit(position, record).map_err(|source| LogError::Replay { position, source })?;
            }
        }
        Ok(())
    }

    fn trim(&mut self, before: u64) -> Result<(), LogError> {
        let n_gone = usize::try_from(before.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.records.len());
        self.records.drain(..n_gone);
        self.first += n_gone as u64;
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.records.iter().map(|r| r.len() as u64).sum()
    }
}
