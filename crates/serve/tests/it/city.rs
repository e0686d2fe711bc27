//! A city's node with its HTTP listener, in this process: the same operations, routes and folder as those of the program.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use node::{Node, NodeOptions, OpenNodeError};
use serde_json::Value;
use serve::auth::Authenticator;
use serve::folders::Folder;
use serve::mqtt_listener::RefusedMessages;
use serve::outbound::{Allowed, Outbound};
use serve::peer::HttpTransport;
use serve::{Addresses, App, Contexts, notify};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

pub(crate) use crate::client::{Answer, eventually, request};

/// A node that serves.
pub(crate) struct City {
    /// `host:port` of its HTTP listener.
    pub(crate) http: String,
    pub(crate) app: Arc<App>,
    stop: watch::Sender<bool>,
    runtime: Option<Runtime>,
    dir: PathBuf,
    own: Option<TempDir>,
}

impl City {
    /// A node on an empty folder of its own; everybody is its operator, and it may call every address.
    pub(crate) fn start() -> Self {
        let own = tempfile::tempdir().unwrap();
        let mut city = Self::start_in(own.path());
        city.own = Some(own);
        city
    }

    /// The same, which trusts these authorities besides those of the system.
    pub(crate) fn start_trusting(authorities_pem: &[u8]) -> Self {
        let own = tempfile::tempdir().unwrap();
        let mut city = Self::start_with(own.path(), Outbound::with(Allowed::everything(), Some(authorities_pem)).unwrap());
        city.own = Some(own);
        city
    }

    /// A node on this folder.
    pub(crate) fn start_in(dir: &Path) -> Self {
        Self::start_with(dir, Outbound::new(true).unwrap())
    }

    pub(crate) fn start_with(dir: &Path, outbound: Outbound) -> Self {
        // Whoever installs it first wins; it is the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (stop, stopped) = watch::channel(false);
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let node = node_in(dir);
        let store = Arc::new(ngsi::ContextStore::new(None, None).unwrap());
        let app = Arc::new(App {
            node: Arc::new(node.unwrap()),
            auth: Arc::new(Authenticator::Dev),
            outbound: outbound.clone(),
            contexts: Contexts::new(store, outbound),
            transport: Arc::new(HttpTransport::new().unwrap()),
            entity_maps: serve::EntityMaps::default(),
            sources: serve::Sources::new(format!("city-{}", address.port()), format!("http://{address}")),
            refused: Arc::new(RefusedMessages::default()),
            imports: serve::bulk_turns(),
            tenants: Arc::default(),
            tenant: None,
            snapshots: serve::Snapshots::default(),
            snapshot: None,
            folder: Folder::new(dir.to_owned(), Arc::new(|dir| node_in(dir).map_err(|e| e.to_string()))),
            addresses: Addresses { http: address, mqtt: address, sql: None, flight: None },
            stop: stopped.clone(),
        });
        runtime.block_on(app.tenants.open_all(&app)).unwrap();
        runtime.block_on(app.snapshots.open_all(&app));
        runtime.spawn(notify::deliver(Arc::clone(&app), stopped.clone()));
        runtime.spawn(serve::housekeeping::remove_expired(Arc::clone(&app), stopped.clone()));
        runtime.spawn(serve::housekeeping::try_public_url(Arc::clone(&app), stopped.clone()));
        runtime.spawn(serve::serve_http(listener, Arc::clone(&app), stopped));
        Self { http: address.to_string(), app, stop, runtime: Some(runtime), dir: dir.to_owned(), own: None }
    }

    /// Ends it in order and opens its folder again.
    pub(crate) fn restarted(mut self) -> Self {
        let (dir, own) = (self.dir.clone(), self.own.take());
        self.end();
        for (_, tenant) in self.app.tenants.take_nodes() {
            tenant.close().unwrap();
        }
        for snapshot in self.app.snapshots.take_nodes() {
            snapshot.close().unwrap();
        }
        self.app.node.close().unwrap();
        drop(self);
        let mut city = Self::start_in(&dir);
        city.own = own;
        city
    }

    /// Ends it as if its process had been killed, and opens its folder again.
    pub(crate) fn killed(mut self) -> Self {
        let (dir, own) = (self.dir.clone(), self.own.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
        drop((self.app.tenants.take_nodes(), self.app.snapshots.take_nodes()));
        drop(self);
        let mut city = Self::start_in(&dir);
        city.own = own;
        city
    }

    fn end(&mut self) {
        // The tasks may have ended by themselves.
        let _ = self.stop.send(true);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    /// Where its tasks run.
    pub(crate) fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// A request without a body.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None)
    }

    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], None)
    }

    /// A request with a body of type `application/json`.
    pub(crate) fn post(&self, path: &str, body: Value) -> Answer {
        self.with_body("POST", path, body)
    }

    pub(crate) fn with_body(&self, method: &str, path: &str, body: Value) -> Answer {
        self.send(method, path, &[("content-type", "application/json")], Some(&body.to_string()))
    }

    /// Any request. A path that does not begin with `/` is below `/ngsi-ld/v1/`.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/ngsi-ld/v1/{path}") };
        request(method, &self.url(&path), headers, body)
    }

    /// Creates entities that must be new.
    #[track_caller]
    pub(crate) fn has(&self, entities: Value) {
        let entities = if entities.is_array() { entities } else { Value::Array(vec![entities]) };
        self.post("entityOperations/create", entities).expect(201);
    }

    /// The entity as it is, in simplified form.
    #[track_caller]
    pub(crate) fn simplified(&self, id: &str) -> Value {
        self.get(&format!("entities/{id}?format=simplified")).expect(200).json()
    }
}

impl Drop for City {
    fn drop(&mut self) {
        self.end();
    }
}

fn node_in(dir: &Path) -> Result<Node, OpenNodeError> {
    Node::open(NodeOptions {
        dir: dir.to_owned(),
        city: "testcity".parse().unwrap(),
        key: federation::CityKey::generate().unwrap().0,
        peers: Vec::new(),
        clock: Arc::new(host::SystemClock),
        checkpoint_every: Duration::from_secs(3600),
        log_keep_bytes: 0,
        history_place: String::new(),
        memory_bytes: node::MEMORY_BYTES_DEFAULT,
    })
}
