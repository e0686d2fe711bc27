//! What a node does by itself every now and then.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::ngsi_ld::csource_subscriptions;
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
