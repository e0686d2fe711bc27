//! SQL over the node: what a session may see is what its principal may see.

use std::sync::Arc;
use std::time::Duration;

use ::serve::auth::Authenticator;
use entity::{Entity, Filter, Instant, Iri};
use node::{AttributeColumn, History, Kind, Node, NodeError, RecordBatch, ScanError};
use policy::Principal;
use query::{Appending, Auth, Limits, Rows, Secret, Settings, Sink, SinkError, Source, SourceError, SourceFactory};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::{Config, SqlRole};

/// Folder in the node's data for what statements cannot keep in memory.
const SPILL_FOLDER: &str = "sql-spill";

/// Serves sessions until `stop` turns true.
pub(crate) async fn serve(
    listener: TcpListener,
    node: Arc<Node>,
    auth: Arc<Authenticator>,
    contexts: Arc<ngsi::ContextStore>,
    config: &Config,
    stop: watch::Receiver<bool>,
) {
    let factory = Arc::new(Factory { node, contexts });
    if let Err(e) = query::serve(listener, factory, settings(&auth, config, "sql"), stopped(stop)).await {
        tracing::error!(error = %e, "SQL ended");
    }
}

/// Serves programs that take columns until `stop` turns true.
pub(crate) async fn serve_flight(
    listener: TcpListener,
    node: Arc<Node>,
    auth: Arc<Authenticator>,
    contexts: Arc<ngsi::ContextStore>,
    config: &Config,
    stop: watch::Receiver<bool>,
) {
    let factory = Arc::new(Factory { node, contexts });
    if let Err(e) = query::serve_flight(listener, factory, settings(&auth, config, "flight"), stopped(stop)).await {
        tracing::error!(error = %e, "Flight SQL ended");
    }
}

/// How sessions log in and what they may use; each server has a spill folder of its own, since it empties it at its start.
fn settings(auth: &Authenticator, config: &Config, server: &str) -> Settings {
    let login = match auth {
        Authenticator::Dev => Auth::Trust,
        // Whatever the user is called – the name decides on the role –, the operator's token has to be known.
        Authenticator::Tokens { admin, .. } => {
            let secret = Secret { principal: "admin".to_owned(), password: admin.clone() };
            Auth::Scram(Arc::new(move |_: &str| Ok(secret.clone())))
        }
    };
    let mut settings = Settings::new(login);
    settings.roles = config.sql_roles.iter().map(|role| (role.name.clone(), limits(role))).collect();
    settings.spill_folder = Some(config.data.join(SPILL_FOLDER).join(server));
    settings
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the sender is gone: the same as stop.
    let _ = stop.wait_for(|s| *s).await.is_ok();
}

/// The limits of a role; what is not given is as for everybody.
fn limits(role: &SqlRole) -> Limits {
    let default = Limits::default();
    Limits {
        statement_time: role.statement_seconds.map_or(default.statement_time, Duration::from_secs),
        memory_bytes: role.memory_mb.map_or(default.memory_bytes, |mb| mb << 20),
        connections: role.connections.unwrap_or(default.connections),
        spill_bytes: role.spill_mb.map_or(default.spill_bytes, |mb| mb << 20),
    }
}

struct Factory {
    node: Arc<Node>,
    contexts: Arc<ngsi::ContextStore>,
}

impl SourceFactory for Factory {
    fn source(&self, principal: &str) -> Arc<dyn Source> {
        let who = Principal::Operator { name: principal.to_owned() };
        Arc::new(NodeSource { node: Arc::clone(&self.node), contexts: Arc::clone(&self.contexts), who })
    }

    /// Every session is an operator's.
    fn oversees(&self, _principal: &str) -> bool {
        true
    }

    fn sink(&self, principal: &str) -> Option<Arc<dyn Sink>> {
        let who = Principal::Operator { name: principal.to_owned() };
        Some(Arc::new(NodeSink { node: Arc::clone(&self.node), who }))
    }
}

/// Rows from `COPY` and from Flight: observations like those of any device, through the same operation.
struct NodeSink {
    node: Arc<Node>,
    who: Principal,
}

impl Sink for NodeSink {
    fn append<'s>(&'s self, entity_type: &'s Iri, rows: RecordBatch) -> Appending<'s> {
        let durable = self.node.observe_rows(&self.who, entity_type, rows);
        Box::pin(async move { Ok(durable.map_err(refused)?.await.map_err(refused)?.n_rows as u64) })
    }
}

fn refused(error: NodeError) -> SinkError {
    let reason = host::chain(&error);
    match error.kind() {
        Kind::Denied => SinkError::Denied { reason },
        Kind::Unavailable | Kind::Bug => SinkError::Unavailable { reason },
        _ => SinkError::Invalid { row: None, column: None, reason },
    }
}

fn unread(error: ScanError) -> SourceError {
    match error {
        ScanError::Changed { attribute, entity, expected } => SourceError::Changed { attribute, entity, expected },
        other => SourceError::Unreadable(Box::new(other)),
    }
}

/// With its causes: a client sees one line.
fn unreadable(error: &NodeError) -> SourceError {
    SourceError::Unreadable(host::chain(error).into())
}

/// The node as one session sees it. What policy denies is not there.
struct NodeSource {
    node: Arc<Node>,
    contexts: Arc<ngsi::ContextStore>,
    who: Principal,
}

impl Source for NodeSource {
    fn types(&self) -> Vec<Iri> {
        self.node.types(&self.who).map(|types| types.into_iter().map(|(t, _)| t).collect()).unwrap_or_default()
    }

    fn entities(&self, entity_type: &Iri) -> Vec<Arc<Entity>> {
        self.node.of_type(&self.who, entity_type).unwrap_or_default()
    }

    fn columns(&self, entity_type: &Iri) -> Option<Vec<AttributeColumn>> {
        let columns = self.node.columns(&self.who, entity_type).ok()?;
        // A type may have entities without a single attribute.
        (!columns.is_empty() || self.types().contains(entity_type)).then_some(columns)
    }

    fn scan(&self, entity_type: &Iri, attributes: &[Iri], filter: &Filter) -> Rows {
        match self.node.scan_columns(&self.who, entity_type, attributes, filter) {
            Ok(batches) => Box::new(batches.map(|b| b.map_err(unread))),
            Err(e) => Box::new(std::iter::once(Err(SourceError::Unreadable(Box::new(e))))),
        }
    }

    fn ids_as_of(&self, entity_type: &Iri, at: Instant, max: usize) -> Result<Vec<Iri>, SourceError> {
        self.node.ids_as_of(&self.who, entity_type, at, max).map_err(|e| unreadable(&e))
    }

    fn entity_as_of(&self, id: &Iri, at: Instant) -> Result<Option<Arc<Entity>>, SourceError> {
        match self.node.entity_as_of(&self.who, id, at) {
            Ok(entity) => Ok(Some(entity)),
            Err(NodeError::NoEntity { .. }) => Ok(None),
            Err(e) => Err(unreadable(&e)),
        }
    }

    fn history(&self) -> &dyn History {
        self.node.history(&self.who).expect("only operators open SQL sessions, and they may see all")
    }

    fn short_name(&self, name: &Iri) -> String {
        self.contexts.default_context().short_name(name)
    }

    fn full_name(&self, name: &str) -> Option<Iri> {
        self.contexts.default_context().expand(name).ok()
    }
}
