//! Threads of their own for SQL.
//!
//! A heavy statement leaves the threads that answer devices alone, and a deep one finds a deep stack: expression trees are built, walked and
//! dropped recursively, a few kilobytes a level, and `guard` limits the levels.

use std::future::Future;
use std::io;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinSet;

use crate::error::QueryError;

/// Room for `guard`'s limit of levels many times over. Only what is touched takes memory.
const STACK_BYTES: usize = 64 << 20;

/// The threads; they end when this is dropped.
pub(crate) struct Threads(Option<Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Waiting for it is not allowed in an asynchronous context; what still runs is abandoned.
            runtime.shutdown_background();
        }
    }
}

impl Threads {
    /// As many as there are processors.
    pub(crate) fn start() -> io::Result<Self> {
        let n_threads = std::thread::available_parallelism().map_or(2, usize::from);
        let builder = &mut Builder::new_multi_thread();
        let runtime = builder.worker_threads(n_threads).thread_stack_size(STACK_BYTES).thread_name("sql").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    /// Where to put tasks.
    pub(crate) fn handle(&self) -> &Handle {
        self.0.as_ref().expect("taken only by drop").handle()
    }

    /// Runs `work` there. It is cancelled when the caller no longer waits.
    ///
    /// Errors: those of the work, and [`QueryError::Engine`] if it panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, QueryError>> + Send + 'static,
    ) -> Result<T, QueryError> {
        let mut one = JoinSet::new();
        one.spawn_on(work, self.handle());
        let ended = one.join_next().await.expect("one was spawned");
        ended.unwrap_or_else(|e| Err(datafusion::error::DataFusionError::ExecutionJoin(Box::new(e)).into()))
    }
}
