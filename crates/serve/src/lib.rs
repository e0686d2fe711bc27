//! Listeners and routes: HTTP, MQTT, peers, the live feed and the console.
//!
//! * [`App`]: what all routes share; [`router`] builds the HTTP routes over it.
//! * [`serve_http_with`]: the HTTP listener, `listener.rs`; `binding.rs` is what surrounds all routes.
//! * [`mqtt_listener`]: the MQTT listener.
//! * [`peer`]: questions to and from other cities over HTTP.
//! * [`notify`]: delivery of notifications.
//!
//! Kinds of error become status codes in one file per protocol: `problem.rs` for HTTP, `mqtt_listener/client.rs` for MQTT.
//!
//! **Invariant:** no engine is known here; everything goes through the node's operations.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

pub mod auth;
mod binding;
mod bulk;
mod bulk_export;
mod compress;
mod console;
mod contexts;
mod deliveries;
pub mod folders;
mod history;
pub mod housekeeping;
mod listener;
mod live;
mod maintenance;
pub mod mqtt_listener;
mod ngsi_ld;
pub mod notify;
mod openapi;
pub mod outbound;
pub mod peer;
mod platform;
mod problem;
mod routes;
pub mod tenants;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use node::Node;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use binding::Origins;
pub use contexts::Contexts;
use entity::Iri;
use folders::Folder;
pub use host::chain;
pub use ngsi_ld::entity_maps::EntityMaps;
pub use ngsi_ld::forward::Sources;
pub use ngsi_ld::snapshots::Snapshots;
pub use routes::{ROUTES, Route, router};
use tenants::{TenantName, Tenants};
pub use tls::{Tls, TlsError};

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
    /// Which entities queries have found, for their further pages.
    pub entity_maps: EntityMaps,
    /// Messages that MQTT refused.
    pub refused: Arc<mqtt_listener::RefusedMessages>,
    /// Turns of bulk imports, see [`bulk_turns`].
    pub imports: Arc<tokio::sync::Semaphore>,
    /// The tenants beside the default one.
    pub tenants: Arc<Tenants>,
    /// The tenant that is served; none for the default one.
    pub tenant: Option<TenantName>,
    /// The snapshots of the node or tenant.
    pub snapshots: Snapshots,
    /// The snapshot that is served; none for what is true now.
    pub snapshot: Option<Iri>,
    /// Where the data are.
    pub folder: Folder,
    /// Addresses to show.
    pub addresses: Addresses,
    /// True while the node is shutting down.
    pub stop: watch::Receiver<bool>,
}

impl App {
    /// The same for a tenant, which has a node of its own.
    fn of_tenant(&self, name: TenantName, folder: Folder, node: Arc<Node>) -> Self {
        Self { sources: self.sources.of_tenant(&name), tenant: Some(name), ..self.with_node(folder, node) }
    }

    /// The same for a snapshot, which has a node of its own.
    fn of_snapshot(&self, id: Iri, folder: Folder, node: Arc<Node>) -> Self {
        Self { snapshot: Some(id), ..self.with_node(folder, node) }
    }

    fn with_node(&self, folder: Folder, node: Arc<Node>) -> Self {
        Self {
            node,
            folder,
            auth: Arc::clone(&self.auth),
            outbound: self.outbound.clone(),
            contexts: self.contexts.clone(),
            sources: self.sources.again(),
            entity_maps: EntityMaps::default(),
            transport: Arc::clone(&self.transport),
            refused: Arc::clone(&self.refused),
            imports: Arc::clone(&self.imports),
            tenants: Arc::clone(&self.tenants),
            tenant: self.tenant.clone(),
            snapshots: Snapshots::default(),
            snapshot: None,
            addresses: self.addresses.clone(),
            stop: self.stop.clone(),
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

/// How HTTP is served.
#[derive(Clone, Debug, Default)]
pub struct HttpOptions {
    /// Web pages of which other origins may use the node.
    pub origins: Origins,
    /// The certificate; none for HTTP in the clear.
    pub tls: Option<Arc<Tls>>,
}

/// Serves HTTP, in the clear and to pages of its own origin, until `stop` turns true; requests under way are answered.
pub async fn serve_http(listener: TcpListener, app: Arc<App>, stop: watch::Receiver<bool>) -> std::io::Result<()> {
    serve_http_with(listener, app, HttpOptions::default(), stop).await
}

/// Serves HTTP until `stop` turns true; requests under way are answered.
pub async fn serve_http_with(
    listener: TcpListener,
    app: Arc<App>,
    options: HttpOptions,
    stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    listener::serve(listener, routes::router_with(app, options.origins, options.tls.is_some()), options.tls, stop).await
}

/// Gives these bytes on every path, with the headers that an NGSI-LD answer has, and does nothing else: what the HTTP library gives at most,
/// for benchmarks.
pub async fn serve_bytes(listener: TcpListener, bytes: Vec<u8>) -> std::io::Result<()> {
    use axum::http::header::{CONTENT_TYPE, LINK};
    const CONTEXT: &str = "<https://uri.etsi.org/ngsi-ld/v1/ngsi-ld-core-context-v1.9.jsonld>; rel=\"http://www.w3.org/ns/json-ld#context\"; type=\"application/ld+json\"";
    let bytes = axum::body::Bytes::from(bytes);
    let answer = move || async move { ([(CONTENT_TYPE, "application/json"), (LINK, CONTEXT)], bytes) };
    axum::serve(listener, axum::Router::new().route("/{*path}", axum::routing::get(answer))).await
}
