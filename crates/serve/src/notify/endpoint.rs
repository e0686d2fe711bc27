//! What is known of an address to which notifications go: whether it answers, and how many are on their way to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::pause_after;
use super::plan::Plan;

/// Notifications on their way to one endpoint at a time; each is of another subscription.
const UNDER_WAY_MAX: usize = 64;
/// Endpoints that are remembered; above that those that nobody uses are forgotten.
const REMEMBERED: usize = 1_024;

/// The addresses in use.
#[derive(Default)]
pub(super) struct Endpoints(Mutex<HashMap<String, Arc<Endpoint>>>);

impl Endpoints {
    pub(super) fn get(&self, uri: &str) -> Arc<Endpoint> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(uri) {
            return Arc::clone(known);
        }
        if all.len() >= REMEMBERED && all.len().is_power_of_two() {
            all.retain(|_, e| Arc::strong_count(e) > 1);
        }
        let made = Arc::new(Endpoint { turns: Arc::new(Semaphore::new(UNDER_WAY_MAX)), down: Mutex::default() });
        all.insert(uri.to_owned(), Arc::clone(&made));
        made
    }
}

/// One address.
pub(super) struct Endpoint {
    turns: Arc<Semaphore>,
    down: Mutex<Option<Down>>,
}

/// Nobody answered.
#[derive(Clone, Copy)]
struct Down {
    until: Instant,
    n_times: u32,
}

impl Endpoint {
    /// Waits until it is worth a try.
    pub(super) async fn turn(&self) -> OwnedSemaphorePermit {
        loop {
            let turn = Arc::clone(&self.turns).acquire_owned().await.expect("it is never closed");
            let down = *self.down.lock().unwrap_or_else(PoisonError::into_inner);
            match down.filter(|d| d.until > Instant::now()) {
                None => return turn,
                Some(down) => {
                    drop(turn);
                    tokio::time::sleep_until(down.until).await;
                }
            }
        }
    }

    pub(super) fn is_up(&self) {
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        if down.is_some() {
            *down = None;
        }
    }

    pub(super) fn is_down(&self, plan: &Plan) {
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        // Those that were on their way together fail together: that is one time.
        if down.is_some_and(|d| d.until > now) {
            return;
        }
        let n_times = down.map_or(1, |d| d.n_times.saturating_add(1));
        *down = Some(Down { until: now + pause_after(n_times).max(plan.cooldown), n_times });
    }
}
