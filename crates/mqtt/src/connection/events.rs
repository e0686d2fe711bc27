//! What one connection may use, and what it tells the listener.

use std::fmt;
use std::time::Duration;

#[cfg(doc)]
use super::ServerConnection;
use super::wire::{Payload, Version};
use crate::Refusal;
use crate::topic::{Qos, TopicFilter, TopicName};

/// What one connection may use. The defaults suit devices and small services.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The largest packet from the client, in bytes; announced to MQTT 5 clients, enforced for all.
    pub packet_bytes_max: u32,
    /// The largest CONNECT, in bytes: what a stranger may make the server keep.
    pub connect_bytes_max: u32,
    /// How long a client may take from opening the connection until it is accepted.
    pub connect_timeout: Duration,
    /// The longest keep-alive, in seconds; imposed on MQTT 5 clients that ask for more or for none.
    pub keep_alive_s_max: u16,
    /// Messages of QoS 1 and 2 from the client that may be unacknowledged; announced to MQTT 5 clients, enforced for all.
    pub receive_max: u16,
    /// Topic aliases that a client may set.
    pub topic_alias_max: u16,
    /// SUBSCRIBE and UNSUBSCRIBE packets of the client that may wait for their answer.
    pub requests_max: usize,
    /// Messages of QoS 1 and 2 to the client that may be unacknowledged; the client's Receive Maximum may be lower.
    pub in_flight_max: u16,
    /// Messages of QoS 1 and 2 that may wait behind them.
    pub queue_messages_max: usize,
    /// The bytes of these messages.
    pub queue_bytes_max: usize,
    /// Bytes that may wait for the socket before messages of QoS 0 are dropped and others wait in the queue.
    pub output_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet_bytes_max: 1024 * 1024,
            connect_bytes_max: 64 * 1024,
            connect_timeout: Duration::from_secs(10),
            keep_alive_s_max: 3_600,
            receive_max: 256,
            topic_alias_max: 64,
            requests_max: 16,
            in_flight_max: 256,
            queue_messages_max: 1_000,
            queue_bytes_max: 4 * 1024 * 1024,
            output_bytes_max: 1024 * 1024,
        }
    }
}

/// What the listener has to do.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// Decide with [`ServerConnection::accept`] or [`ServerConnection::refuse`]. Nothing else is handed out before.
    Connect(ConnectRequest),
    /// A message; if it has a packet identifier, [`ServerConnection::acknowledge`] it when it is durable.
    Publish(Publish),
    /// Decide with [`ServerConnection::answer_subscribe`].
    Subscribe(SubscribeRequest),
    /// Do it, and report with [`ServerConnection::answer_unsubscribe`].
    Unsubscribe(UnsubscribeRequest),
    /// Forget the timer; call [`ServerConnection::timed_out`] after this time, or never if there is none. The first timer is
    /// [`ServerConnection::timeout`] of the new connection.
    SetTimer(Option<Duration>),
    /// It is over: write the last output and close the socket.
    Ended(Ended),
}

/// A client wants to connect.
#[derive(Clone, PartialEq)]
pub struct ConnectRequest {
    /// The version it speaks.
    pub version: Version,
    /// Its identifier; the spare one if it gave none.
    pub client_id: String,
    /// It gave no identifier.
    pub client_id_assigned: bool,
    /// It wants to begin without old session state.
    pub clean_start: bool,
    /// How long its session should outlive the connection, in seconds; answered with 0.
    pub session_expiry_s: u32,
    /// User name, to be checked.
    pub user_name: Option<String>,
    /// Password, to be checked.
    pub password: Option<Vec<u8>>,
    /// What is published for it when the connection ends abnormally; may it publish there?
    pub will: Option<Will>,
}

// The password stays out of logs.
impl fmt::Debug for ConnectRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectRequest")
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .field("user_name", &self.user_name)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("will", &self.will)
            .finish_non_exhaustive()
    }
}

/// A message that a client leaves to be published when it is gone without saying so.
#[derive(Clone, PartialEq, Debug)]
pub struct Will {
    /// Where.
    pub topic: TopicName,
    /// What.
    pub payload: Payload,
    /// How.
    pub qos: Qos,
    /// The client asked to retain it (MQTT 3.1.1 only, where retaining cannot be declined); it is not retained.
    pub retain: bool,
    /// The delay that the client asked for, in seconds; treated as 0.
    pub delay_s: u32,
}

/// A message from the client.
#[derive(Clone, PartialEq, Debug)]
pub struct Publish {
    /// Where; a topic alias is resolved already.
    pub topic: TopicName,
    /// What.
    pub payload: Payload,
    /// How.
    pub qos: Qos,
    /// The client asked to retain it (MQTT 3.1.1 only, where retaining cannot be declined); it is not retained.
    pub retain: bool,
    /// The client says that it may have sent it before.
    pub dup: bool,
    /// Under which to acknowledge it; none for QoS 0.
    pub packet_id: Option<u16>,
}

/// A client wants to subscribe.
#[derive(Clone, PartialEq, Debug)]
pub struct SubscribeRequest {
    /// Under which to answer.
    pub packet_id: u16,
    /// To what; impossible and shared filters are refused already and not in here.
    pub filters: Vec<FilterRequest>,
}

/// One subscription that a client wants.
#[derive(Clone, PartialEq, Debug)]
pub struct FilterRequest {
    /// To what.
    pub filter: TopicFilter,
    /// At most how.
    pub qos: Qos,
    /// Without its own messages (MQTT 5).
    pub no_local: bool,
}

/// A client wants to end subscriptions.
#[derive(Clone, PartialEq, Debug)]
pub struct UnsubscribeRequest {
    /// Under which to answer.
    pub packet_id: u16,
    /// Which; impossible and shared filters are answered already and not in here.
    pub filters: Vec<TopicFilter>,
}

/// How a connection ended.
#[derive(Clone, PartialEq, Debug)]
pub struct Ended {
    /// Why.
    pub cause: Cause,
    /// To be published now, on behalf of the client.
    pub will: Option<Will>,
    /// Messages of QoS 1 and 2 that the client has not fully acknowledged; they are lost to it, since sessions are not kept.
    pub n_undelivered: usize,
}

/// Why a connection ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The client took its leave.
    Left,
    /// The client took its leave and wants its will to be published.
    LeftWithWill,
    /// The socket was closed.
    Lost,
    /// The server ended it.
    Refused(Refusal),
}

/// What happened on a connection so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Messages from the client that were handed out.
    pub received: u64,
    /// Repetitions that were not handed out again.
    pub repeated: u64,
    /// Messages that were written to the output for the client.
    pub sent: u64,
    /// Messages of QoS 0 that were dropped because the client reads too slowly.
    pub dropped_slow: u64,
    /// Messages that were dropped because the client does not take so large ones.
    pub dropped_too_large: u64,
    /// Messages of QoS 1 and 2 for which the queue had no room; the first one ends the connection.
    pub refused_full: u64,
    /// Messages that the client refused (MQTT 5).
    pub refused_by_client: u64,
}
