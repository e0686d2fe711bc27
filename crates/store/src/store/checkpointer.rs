//! The thread that writes what is in memory only to documents and history.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use super::{CheckpointError, Shared};
use crate::committer::{Capture, Request};
use crate::follower::Follower;
use crate::state::{Documents, Frozen, Manifest, Space};

/// What the checkpointer is asked.
pub(super) enum CheckpointRequest {
    /// A checkpoint would be good.
    Wake,
    /// A checkpoint, and word of it.
    Checkpoint(Box<dyn FnOnce(Result<(), CheckpointError>) + Send>),
    /// A checkpoint, and then a look at it before there is another one.
    Hold(Hold),
}

pub(super) type Hold = Box<dyn FnOnce(Result<Held<'_>, CheckpointError>) + Send>;

/// A checkpoint that stays as it is while one looks at it.
pub(crate) struct Held<'a> {
    pub(crate) manifest: &'a Manifest,
    pub(crate) documents: &'a dyn Documents,
}

/// Writes checkpoints, off the latency path.
pub(super) struct Checkpointer {
    pub(super) shared: Arc<Shared>,
    pub(super) documents: Arc<dyn Documents>,
    pub(super) requests: SyncSender<Request>,
    pub(super) followers: Vec<Arc<dyn Follower>>,
}

impl Checkpointer {
    pub(super) fn run(mut self, inbox: &Receiver<CheckpointRequest>, every: Duration) {
        let mut done_position = 0;
        loop {
            let request = match inbox.recv_timeout(every) {
                Ok(r) => r,
                Err(RecvTimeoutError::Timeout) if self.shared.next_position.load(Ordering::Relaxed) > done_position => {
                    CheckpointRequest::Wake
                }
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let result = self.checkpoint();
            match &result {
                Ok(manifest) => done_position = manifest.next_position,
                // The committer is gone: so is the store.
                Err(CheckpointError::Closed) => return,
                Err(e) => {
                    tracing::error!(error = e as &dyn std::error::Error, "no checkpoint; the log keeps everything until the next one");
                }
            }
            match request {
                CheckpointRequest::Wake => {}
                CheckpointRequest::Checkpoint(reply) => reply(result.map(|_| ())),
                CheckpointRequest::Hold(look) => look(
                    result
                        .as_ref()
                        .map(|manifest| Held { manifest, documents: self.documents.as_ref() })
                        .map_err(|e| CheckpointError::Failed(host::chain(e))),
                ),
            }
        }
    }

    fn checkpoint(&mut self) -> Result<Manifest, CheckpointError> {
        let (sender, receiver) = sync_channel(1);
        let capture = Request::Capture(Box::new(move |capture: Capture| {
            let _ = sender.send(capture);
        }));
        self.requests.send(capture).map_err(|_| CheckpointError::Closed)?;
        // What an earlier checkpoint failed to write is captured again.
        let Capture { next_position, last_recorded_us, frozen } = receiver.recv().map_err(|_| CheckpointError::Closed)?;
        for follower in &self.followers {
            follower.persist(next_position)?;
        }
        // Sealing covers at least every fact of the capture; later ones are sealed early and found again by a replay, which the history forgives.
        let segments = self.shared.history.seal()?;
        let n_documents: usize = frozen.iter().map(Frozen::len).sum();
        let manifest = Manifest { next_position, last_recorded_us, segments, ..Manifest::default() };
        self.documents.checkpoint(&mut frozen.iter().flat_map(Frozen::changed), &manifest)?;
        self.followers.iter().for_each(|f| f.persisted(next_position));
        for space in Space::ALL {
            self.shared.table(space).thaw();
        }
        self.shared.set_segments(&manifest.segments);
        if self.shared.n_pins.load(Ordering::SeqCst) == 0 {
            self.shared.history.committed();
        }
        self.requests.send(Request::Trim(next_position)).map_err(|_| CheckpointError::Closed)?;
        tracing::debug!(next_position, n_documents, "checkpoint");
        Ok(manifest)
    }
}
