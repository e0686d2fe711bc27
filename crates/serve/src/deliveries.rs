//! `GET /api/v1/deliveries`: how the delivery of notifications is going, endpoint by endpoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use entity::Instant;
use serde_json::{Value, json};
use url::Url;

use crate::App;
use crate::auth::Caller;
use crate::problem::Problem;

/// Endpoints in one answer: those for which most waits.
const ENDPOINTS_MAX: usize = 1_000;

#[derive(Default)]
struct Endpoint {
    n_subscriptions: usize,
    n_failing: usize,
    n_waiting: usize,
    n_waiting_bytes: usize,
    n_dropped: u64,
    waiting_since: Option<Instant>,
    next_attempt: Option<Instant>,
    last_success: Option<Instant>,
    last_failure: Option<(Instant, String)>,
}

/// The endpoints to which notifications go, those for which most waits first.
pub(crate) async fn list(State(app): State<Arc<App>>, Caller(who): Caller) -> Result<Json<Value>, Problem> {
    let mut by_uri: BTreeMap<String, Endpoint> = BTreeMap::new();
    for (watched, status) in app.node.subscriptions(&who)? {
        let e = by_uri.entry(without_password(&watched.subscription.endpoint)).or_default();
        e.n_subscriptions += 1;
        e.n_failing += usize::from(status.last_error.is_some());
        e.n_waiting += status.waiting;
        e.n_waiting_bytes += status.waiting_bytes;
        e.n_dropped += status.dropped;
        e.waiting_since = [e.waiting_since, status.waiting_since].into_iter().flatten().min();
        e.next_attempt = [e.next_attempt, status.next_attempt].into_iter().flatten().min();
        e.last_success = e.last_success.max(status.last_success);
        let failure = status.last_failure.zip(status.last_error);
        if failure.as_ref().map(|f| f.0) > e.last_failure.as_ref().map(|f| f.0) {
            e.last_failure = failure;
        }
    }
    let n_endpoints = by_uri.len();
    let mut all: Vec<_> = by_uri.into_iter().collect();
    all.sort_by_key(|(_, e)| std::cmp::Reverse(e.n_waiting));
    all.truncate(ENDPOINTS_MAX);
    let text = |at: Option<Instant>| at.map(|at| at.to_string());
    let shown = all.into_iter().map(|(uri, e)| {
        json!({
            "endpoint": uri,
            "subscriptions": e.n_subscriptions,
            "failing": e.n_failing,
            "waiting": e.n_waiting,
            "waitingBytes": e.n_waiting_bytes,
            "waitingSince": text(e.waiting_since),
            "dropped": e.n_dropped,
            "nextAttempt": text(e.next_attempt),
            "lastSuccess": text(e.last_success),
            "lastFailure": text(e.last_failure.as_ref().map(|f| f.0)),
            "lastErrorReason": e.last_failure.map(|f| f.1),
        })
    });
    Ok(Json(json!({"count": n_endpoints, "endpoints": shown.collect::<Vec<_>>()})))
}

/// The address as anybody who may look at deliveries may see it.
fn without_password(uri: &str) -> String {
    match Url::parse(uri) {
        Ok(mut url) if url.password().is_some() => {
            // Not possible for an address without a host, which has no password either.
            let _ = url.set_password(Some("***"));
            url.to_string()
        }
        _ => uri.to_owned(),
    }
}
