//! What is in the log and not yet in documents and history.
//!
//! It is in memory until a checkpoint has written it, and would have to be replayed after a crash: so it has a limit. A checkpoint that fails
//! has written nothing, so only one that succeeded makes the backlog smaller.

/// Bytes of records after which a checkpoint is due.
const DUE_BYTES: u64 = 64 << 20;
/// Bytes after which writers are slowed down.
const SLOW_BYTES: u64 = 4 * DUE_BYTES;
/// Bytes after which writers are refused.
pub(crate) const BEHIND_BYTES_MAX: u64 = 16 * DUE_BYTES;

/// Bytes of records on their way to documents and history.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Backlog {
    /// Since the last successful checkpoint began.
    unwritten: u64,
    /// Of these, before the last checkpoint that began.
    captured: u64,
}

impl Backlog {
    /// What a start found in the log.
    pub(crate) const fn replayed(bytes: u64) -> Self {
        Self { unwritten: bytes, captured: 0 }
    }

    /// A batch was committed.
    pub(crate) const fn add(&mut self, bytes: u64) {
        self.unwritten += bytes;
    }

    /// A checkpoint begins, with everything up to now.
    pub(crate) const fn capture(&mut self) {
        self.captured = self.unwritten;
    }

    /// The checkpoint that began last is durable.
    pub(crate) const fn written(&mut self) {
        self.unwritten -= self.captured;
        self.captured = 0;
    }

    pub(crate) const fn bytes(self) -> u64 {
        self.unwritten
    }

    /// Enough came since the last checkpoint began, whether that succeeded or not.
    pub(crate) const fn is_due(self) -> bool {
        self.unwritten - self.captured > DUE_BYTES
    }

    pub(crate) const fn is_long(self) -> bool {
        self.unwritten > SLOW_BYTES
    }

    pub(crate) const fn is_full(self) -> bool {
        self.unwritten > BEHIND_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_checkpoint_that_succeeds_shortens_it() {
        let mut backlog = Backlog::replayed(10);
        backlog.add(DUE_BYTES);
        assert!(backlog.is_due());
        backlog.capture();
        assert!(!backlog.is_due(), "it has begun");
        // It fails, and so do the next ones: due again after as much again, and longer and longer.
        for n in 2..=16 {
            backlog.add(DUE_BYTES + 1);
            assert!(backlog.is_due() && backlog.bytes() > n * DUE_BYTES);
            assert_eq!((backlog.is_long(), backlog.is_full()), (n >= 4, n >= 16));
            backlog.capture();
        }
        backlog.add(7);
        backlog.written();
        assert_eq!(backlog, Backlog { unwritten: 7, captured: 0 });
    }
}
