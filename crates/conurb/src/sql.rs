//! SQL over the node: what a session may see is what its principal may see.

use std::sync::Arc;
use std::time::Duration;

use ::serve::auth::Authenticator;
use entity::{Entity, Iri};
use node::{History, Node};
use policy::Principal;
use query::{Auth, Limits, Secret, Settings, Source, SourceFactory};
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
    mut stop: watch::Receiver<bool>,
) {
    let factory = Arc::new(Factory { node, contexts });
    let login = match &*auth {
        Authenticator::Dev => Auth::Trust,
        // Whatever the user is called – the name decides on the role –, the operator's token has to be known.
        Authenticator::Tokens { admin, .. } => {
            let secret = Secret { principal: "admin".to_owned(), password: admin.clone() };
            Auth::Scram(Arc::new(move |_: &str| Ok(secret.clone())))
        }
    };
    let mut settings = Settings::new(login);
    settings.roles = config.sql_roles.iter().map(|role| (role.name.clone(), limits(role))).collect();
    settings.spill_folder = Some(config.data.join(SPILL_FOLDER));
    let stopped = async move {
        // An error means that the sender is gone: the same as stop.
        let _ = stop.wait_for(|s| *s).await;
    };
    if let Err(e) = query::serve(listener, factory, settings, stopped).await {
        tracing::error!(error = %e, "SQL ended");
    }
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

    fn history(&self) -> &dyn History {
        self.node.history(&self.who).expect("only operators open SQL sessions, and they may see all")
    }

    fn short_name(&self, name: &Iri) -> String {
        self.contexts.default_context().short_name(name)
    }
}
