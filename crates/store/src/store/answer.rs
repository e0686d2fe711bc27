//! Waiting for what the committer says.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::committer::SubmitError;

/// A place for one answer, on which one thread waits: a fraction of a channel.
pub(super) struct Answer<T> {
    place: Mutex<Option<Result<T, SubmitError>>>,
    given: Condvar,
}

impl<T> Default for Answer<T> {
    fn default() -> Self {
        Self { place: Mutex::new(None), given: Condvar::new() }
    }
}

impl<T> Answer<T> {
    pub(super) fn wait(&self) -> Result<T, SubmitError> {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(answer) = place.take() {
                return answer;
            }
            place = self.given.wait(place).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Gives the answer; if it is dropped without one, the committer has ended.
pub(super) struct Notifier<T>(pub(super) Arc<Answer<T>>);

impl<T> Notifier<T> {
    pub(super) fn give(&self, answer: Result<T, SubmitError>) {
        *self.0.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
        self.0.given.notify_one();
    }
}

impl<T> Drop for Notifier<T> {
    fn drop(&mut self) {
        self.0.place.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(Err(SubmitError::Closed));
        self.0.given.notify_one();
    }
}
