//! Delivery of notifications (ETSI GS CIM 009 V1.9.1, clauses 5.8.6, 6.3.8 and 7).
//!
//! What waits is kept by the node ([`node::Recipient`]). A subscriber with something to be told gets a task of its own, which delivers in
//! order, one notification at a time, and ends when nothing waits: an idle subscription costs no task. A failed delivery is tried again with
//! growing pauses until it succeeds, the subscription ends, or its queue is full; so a dead endpoint delays nobody else.

mod endpoint;
mod http;
mod mqtt;
mod plan;
mod wire;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use node::{Deliverer, Notification, Recipient, Watched};
use tokio::runtime::Handle;
use tokio::sync::watch;

use self::endpoint::Endpoints;
use self::mqtt::Brokers;
use self::plan::Plan;
use self::wire::Connections;
use crate::App;

/// The pause after the first failure; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How often an endpoint may refuse a notification until that one is given up. Only answers that say that the notification itself is at fault count.
const REFUSALS_MAX: u32 = 8;
/// How long deliveries under way may take when the node ends; what has no answer by then is delivered again after the start.
const GOODBYE_WAIT: Duration = Duration::from_secs(3);

/// Why a delivery failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What the subscriber's owner reads.
    pub(crate) reason: String,
    pub(crate) sort: FailureSort,
}

/// What a failure says of the next attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FailureSort {
    /// Nobody answers there: others with the same endpoint need not try either.
    Down,
    /// It did not work this time.
    Failed,
    /// The endpoint does not want this notification.
    Refused,
}

impl Failure {
    pub(crate) fn new(sort: FailureSort, reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), sort }
    }
}

/// Delivers until `stop` turns true.
pub async fn deliver(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    if app.tenant.is_none() && app.snapshot.is_none() {
        app.contexts.restore(&app.node);
    }
    let courier = Arc::new(Courier {
        app: Arc::downgrade(&app),
        runtime: Handle::current(),
        stop: stop.clone(),
        endpoints: Endpoints::default(),
        links: Links::default(),
        n_under_way: AtomicUsize::new(0),
    });
    app.node.deliver_notifications_by(Arc::new(Post(Arc::clone(&courier))));
    drop(app);
    // An error means that the sender is gone: the same as stop.
    let _ = stop.wait_for(|s| *s).await;
    let ended = async {
        while courier.n_under_way.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(GOODBYE_WAIT, ended).await.is_err() {
        tracing::info!("some notifications under way have no answer yet; they are delivered again after the start");
    }
}

/// Hands recipients over to tasks.
struct Post(Arc<Courier>);

impl Deliverer for Post {
    fn wake(&self, recipient: Arc<Recipient>) {
        self.0.runtime.spawn(Arc::clone(&self.0).serve(recipient));
    }
}

/// Connections that stay open between notifications.
#[derive(Default)]
pub(crate) struct Links {
    http: Connections,
    mqtt: Brokers,
}

struct Courier {
    app: Weak<App>,
    runtime: Handle,
    stop: watch::Receiver<bool>,
    endpoints: Endpoints,
    links: Links,
    n_under_way: AtomicUsize,
}

impl Courier {
    async fn serve(self: Arc<Self>, recipient: Arc<Recipient>) {
        let mut stop = self.stop.clone();
        loop {
            if *stop.borrow_and_update() {
                return;
            }
            let Some((watched, notification)) = recipient.next() else { return };
            self.n_under_way.fetch_add(1, Ordering::SeqCst);
            let pause = self.deliver(&recipient, &watched, &notification, &mut stop).await;
            self.n_under_way.fetch_sub(1, Ordering::SeqCst);
            if let Some(pause) = pause {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = recipient.changed_since(&watched) => {}
                    _ = stop.wait_for(|s| *s) => return,
                }
            }
        }
    }

    /// Tries once; after a failure returns how long to wait until the next time.
    async fn deliver(
        &self,
        recipient: &Arc<Recipient>,
        watched: &Arc<Watched>,
        notification: &Notification,
        stop: &mut watch::Receiver<bool>,
    ) -> Option<Duration> {
        // The node is ending.
        let app = self.app.upgrade()?;
        let cooldown;
        let failure = match plan_of(&app, watched).await {
            Err(reason) => {
                cooldown = Duration::ZERO;
                Failure::new(FailureSort::Failed, reason)
            }
            Ok(plan) => {
                cooldown = plan.cooldown;
                let endpoint = self.endpoints.get(&watched.subscription.endpoint);
                let turn = tokio::select! {
                    turn = endpoint.turn() => turn,
                    // Another address, perhaps.
                    () = recipient.changed_since(watched) => return Some(Duration::ZERO),
                    _ = stop.wait_for(|s| *s) => return None,
                };
                let outcome = match plan.body(&app, notification) {
                    Ok(body) => plan.send(&app, &self.links, body).await,
                    Err(reason) => Err(Failure::new(FailureSort::Refused, reason)),
                };
                drop(turn);
                match outcome {
                    Ok(()) => {
                        endpoint.is_up();
                        recipient.delivered();
                        return None;
                    }
                    Err(failure) => {
                        if failure.sort == FailureSort::Down {
                            endpoint.is_down(&plan);
                        } else {
                            endpoint.is_up();
                        }
                        failure
                    }
                }
            }
        };
        let n_failures = recipient.n_failures() + 1;
        tracing::debug!(subscription = recipient.id(), n_failures, reason = failure.reason, "a notification was not delivered");
        let pause = pause_after(n_failures).max(cooldown);
        if failure.sort == FailureSort::Refused && n_failures >= REFUSALS_MAX {
            recipient.refused(&failure.reason);
        } else {
            let pause_us = i64::try_from(pause.as_micros()).unwrap_or(i64::MAX);
            recipient.failed(&failure.reason, app.node.now().plus_micros(pause_us));
        }
        Some(pause)
    }
}

pub(crate) use self::mqtt::check as check_mqtt;

async fn plan_of(app: &App, watched: &Watched) -> Result<Arc<Plan>, String> {
    if let Some(plan) = watched.plan::<Plan>() {
        return Ok(plan);
    }
    let plan = Arc::new(Plan::new(app, &watched.subscription).await?);
    watched.keep_plan(Arc::clone(&plan));
    Ok(plan)
}

/// The pause after so many failures in a row: doubling, with a part that is left to chance, so that not all come back at the same time.
fn pause_after(n_failures: u32) -> Duration {
    let pause = PAUSE_MIN.saturating_mul(1 << n_failures.saturating_sub(1).min(16)).min(PAUSE_MAX);
    let [chance] = host::random_bytes::<1>();
    pause.mul_f64(0.75 + f64::from(chance) / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit() {
        for (n, ms) in [(1, 200), (2, 400), (5, 3_200), (9, 51_200), (10, 60_000), (40, 60_000), (u32::MAX, 60_000)] {
            let (pause, most) = (pause_after(n), Duration::from_millis(ms));
            assert!(pause >= most.mul_f64(0.75) && pause <= most, "{n}: {pause:?}");
        }
    }
}
