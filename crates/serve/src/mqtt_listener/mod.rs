//! The MQTT listener: moves bytes between sockets and [`mqtt::connection::ServerConnection`], and messages between clients and the node.
//!
//! A message on a topic of a device profile becomes an observation; its PUBACK or PUBREC leaves after the observation is durable.
//! Every accepted message then goes to the clients that subscribed to its topic.

mod client;
mod hub;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use mqtt::profile::Profiles;
use node::Node;
use policy::Principal;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::auth::Authenticator;

pub use hub::Hub;

/// Connections at the same time.
const CONNECTIONS_MAX: usize = 10_000;
/// Refused messages that are kept for looking at.
const REFUSED_KEPT: usize = 200;

/// What the connections share.
pub struct MqttContext {
    /// The node.
    pub node: Arc<Node>,
    /// Who may connect.
    pub auth: Arc<Authenticator>,
    /// From payloads to entities.
    pub profiles: Arc<Profiles>,
    /// Who wants which messages.
    pub hub: Arc<Hub>,
    /// Messages that were refused lately.
    pub refused: Arc<RefusedMessages>,
}

/// A message that could not be taken in.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedMessage {
    /// When.
    pub at: entity::Instant,
    /// The client that sent it.
    pub client: String,
    /// Its topic.
    pub topic: String,
    /// Why.
    pub reason: String,
}

/// The last refused messages, newest first.
#[derive(Default)]
pub struct RefusedMessages(Mutex<VecDeque<RefusedMessage>>);

impl RefusedMessages {
    fn push(&self, message: RefusedMessage) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_front(message);
        kept.truncate(REFUSED_KEPT);
    }

    /// A copy of them.
    #[must_use]
    pub fn list(&self) -> Vec<RefusedMessage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// Takes connections until `stop` turns true; then ends them all with "server shutting down".
pub async fn serve(listener: TcpListener, context: Arc<MqttContext>, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut clients = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|s| *s) => break,
        };
        while clients.try_join_next().is_some() {}
        match accepted {
            Ok((socket, address)) => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    tracing::warn!(%address, limit = CONNECTIONS_MAX, "MQTT connection refused: too many are open");
                    continue;
                };
                let (context, stop) = (Arc::clone(&context), stop.clone());
                clients.spawn(async move {
                    client::run(socket, &context, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: give the others time to end.
                tracing::warn!(%error, "cannot accept an MQTT connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
    while clients.join_next().await.is_some() {}
}

/// Who a connected device is to the node.
fn device_principal(client_id: &str) -> Principal {
    Principal::Operator { name: format!("device:{client_id}") }
}
