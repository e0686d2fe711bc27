//! Compaction in the background: a thread that merges files when there are too many, with limited zeal.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use host::Stopwatch;

use super::super::HistoryError;
use super::Inner;

/// Of each stretch of work the thread rests so many times as long, unless files pile up.
const REST_PER_WORK: u32 = 1;
/// The thread looks for work after a seal, and so often for what has been closed since.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// After a failure it waits so long.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// A thread that compacts.
pub(super) struct Compactor {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    wanted: bool,
    stopped: bool,
}

impl Signal {
    /// Waits until there may be work. Has it been stopped?
    fn wait(&self, at_most: Duration) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let until = |s: &mut State| !s.wanted && !s.stopped;
        let (mut state, _) = self.changed.wait_timeout_while(state, at_most, until).unwrap_or_else(PoisonError::into_inner);
        state.wanted = false;
        state.stopped
    }

    fn is_stopped(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stopped
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

impl Compactor {
    /// Starts the thread. Errors: there can be no more threads.
    pub(super) fn start(inner: Arc<Inner>) -> Result<Self, HistoryError> {
        let signal = Arc::<Signal>::default();
        let heard = Arc::clone(&signal);
        let place = inner.files.path("");
        let thread = std::thread::Builder::new()
            .name("history-compaction".to_owned())
            .spawn(move || run(&inner, &heard))
            .map_err(|source| HistoryError::Io { action: "start the compaction of", path: place, source })?;
        Ok(Self { signal, thread: Some(thread) })
    }

    /// There may be work.
    pub(super) fn wake(&self) {
        self.signal.set(|s| s.wanted = true);
    }
}

impl Drop for Compactor {
    fn drop(&mut self) {
        self.signal.set(|s| s.stopped = true);
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported there.
            let _ = thread.join();
        }
    }
}

fn run(inner: &Inner, signal: &Signal) {
    let mut patience = LOOK_EVERY;
    while !signal.wait(patience) {
        patience = LOOK_EVERY;
        loop {
            let mut work = Stopwatch::start();
            let mut pace = || {
                if signal.is_stopped() {
                    return false;
                }
                // Measured for the rest alone; what is written does not depend on it.
                if inner.pressure() < 1.0 {
                    std::thread::sleep(work.elapsed() * REST_PER_WORK);
                }
                work = Stopwatch::start();
                true
            };
            match inner.compact_one(&mut pace) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) if signal.is_stopped() => return,
                Err(error) => {
                    // What is there is as good, only slower.
                    tracing::warn!(error = &error as &dyn std::error::Error, "small files of the history were not merged");
                    patience = RETRY_AFTER;
                    break;
                }
            }
        }
    }
}
