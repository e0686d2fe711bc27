//! Listeners and routes: HTTP, MQTT, peers, the live feed and the console.
//!
//! * [`App`]: what all routes share; [`router`] builds the HTTP routes over it.
//! * [`mqtt_listener`]: the MQTT listener.
//! * [`peer`]: questions to and from other cities over HTTP.
//! * [`notify`]: delivery of notifications.
//!
//! Kinds of error become status codes in one file per protocol: `problem.rs` for HTTP, `mqtt_listener/client.rs` for MQTT.
//!
//! **Invariant:** no engine is known here; everything goes through the node's operations.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

pub mod auth;
mod bulk;
mod bulk_export;
mod console;
mod contexts;
mod deliveries;
mod history;
pub mod housekeeping;
mod live;
mod maintenance;
pub mod mqtt_listener;
mod ngsi_ld;
pub mod notify;
pub mod outbound;
pub mod peer;
mod platform;
mod problem;
mod routes;
pub mod tenants;

use std::net::SocketAddr;
use std::sync::Arc;

use node::Node;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use contexts::Contexts;
pub use host::chain;
pub use ngsi_ld::forward::Sources;
pub use routes::{ROUTES, Route, router};
use tenants::{TenantName, Tenants};

/// What all HTTP routes share.
pub struct App {
    /// The node.
    pub node: Arc<Node>,
    /// Who may ask.
    pub auth: Arc<auth::Authenticator>,
    /// Requests to foreign addresses.
    pub outbound: outbound::Outbound,
    /// JSON-LD contexts.
    pub contexts: Contexts,
    /// Questions to other cities.
    pub transport: Arc<dyn node::PeerTransport>,
    /// Distributed operations.
    pub sources: Sources,
    /// Messages that MQTT refused.
    pub refused: Arc<mqtt_listener::RefusedMessages>,
    /// Turns of bulk imports, see [`bulk_turns`].
    pub imports: Arc<tokio::sync::Semaphore>,
    /// The tenants beside the default one.
    pub tenants: Arc<Tenants>,
    /// The tenant that is served; none for the default one.
    pub tenant: Option<TenantName>,
    /// Addresses to show.
    pub addresses: Addresses,
    /// True while the node is shutting down.
    pub stop: watch::Receiver<bool>,
}

impl App {
    /// The same for a tenant, which has a node of its own.
    fn of_tenant(&self, name: TenantName, node: Arc<Node>) -> Self {
        Self {
            auth: Arc::clone(&self.auth),
            outbound: self.outbound.clone(),
            contexts: self.contexts.clone(),
            sources: self.sources.of_tenant(&name),
            transport: Arc::clone(&self.transport),
            refused: Arc::clone(&self.refused),
            imports: Arc::clone(&self.imports),
            tenants: Arc::clone(&self.tenants),
            addresses: self.addresses.clone(),
            stop: self.stop.clone(),
            node,
            tenant: Some(name),
        }
    }
}

/// As many turns as there may be bulk imports at the same time.
#[must_use]
pub fn bulk_turns() -> Arc<tokio::sync::Semaphore> {
    Arc::new(tokio::sync::Semaphore::new(bulk::IMPORTS_MAX))
}

/// The addresses in use.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Addresses {
    /// HTTP: NGSI-LD, console, metrics.
    pub http: SocketAddr,
    /// MQTT.
    pub mqtt: SocketAddr,
    /// PostgreSQL wire protocol; none if SQL is built out.
    pub sql: Option<SocketAddr>,
    /// Arrow Flight SQL; none if SQL is built out.
    pub flight: Option<SocketAddr>,
}

/// Serves HTTP until `stop` turns true; requests under way are answered.
pub async fn serve_http(listener: TcpListener, app: Arc<App>, mut stop: watch::Receiver<bool>) -> std::io::Result<()> {
    let router = router(app);
    axum::serve(listener, router)
        .with_graceful_shutdown(async move {
            // An error means that the sender is gone: the same as stop.
            let _ = stop.wait_for(|s| *s).await;
        })
        .await
}
