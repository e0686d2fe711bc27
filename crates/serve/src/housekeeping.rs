//! What a node does by itself every now and then.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::ngsi_ld::csource_subscriptions;
use crate::platform::{self, INSTANCE};
use crate::{App, chain};

/// How long what has expired may lie about before it is removed; it is hidden at once.
const EXPIRED_EVERY: Duration = Duration::from_secs(1);

/// Removes entities, attributes, registrations and snapshots that have expired, and tells those who follow registrations, until `stop` turns
/// true.
pub async fn remove_expired(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    tokio::spawn(csource_subscriptions::deliver(Arc::downgrade(&app), app.node.follow_registrations(), stop.clone()));
    loop {
        if let Err(e) = app.node.remove_expired().await {
            tracing::warn!(error = %chain(&e), "what has expired is not removed");
        }
        if let Err(e) = app.node.remove_expired_registrations().await {
            tracing::warn!(error = %chain(&e), "registrations whose time is over are not removed");
        }
        app.snapshots.remove_expired(app.node.now()).await;
        tokio::select! {
            () = tokio::time::sleep(EXPIRED_EVERY) => {}
            _ = stop.wait_for(|s| *s) => return,
        }
    }
}

/// After which pauses the public address is tried, and for how long: what stands before the node may start after it.
const REACH_PAUSES: [Duration; 4] = [Duration::ZERO, Duration::from_secs(2), Duration::from_secs(10), Duration::from_secs(60)];
const REACH_WAIT: Duration = Duration::from_secs(5);

/// Tries whether the public address leads here, a few times after the start; what came of it is in the log and in `GET /api/v1/info`.
pub async fn try_public_url(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    let url = format!("{}/healthz", app.sources.public_url());
    for pause in REACH_PAUSES {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stop.wait_for(|s| *s) => return,
        }
        let reached = reach(&url).await;
        app.sources.note_reached(reached.clone());
        match reached {
            Ok(()) => return,
            Err(reason) => tracing::warn!(url, reason, "this node is not reached at its public_url"),
        }
    }
}

/// The operator named the address: it may be in a private network.
async fn reach(url: &str) -> Result<(), String> {
    let client = reqwest::Client::builder().timeout(REACH_WAIT).build().map_err(|e| chain(&e))?;
    let answer = client.get(url).send().await.and_then(reqwest::Response::error_for_status).map_err(|e| chain(&e))?;
    match answer.headers().get(INSTANCE) {
        Some(id) if id.as_bytes() == platform::INSTANCE_ID.as_bytes() => Ok(()),
        Some(_) => Err("another node answers there".to_owned()),
        None => Err("something else answers there, or what stands between removes the header `conurb-instance`".to_owned()),
    }
}
