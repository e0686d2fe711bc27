//! MQTT without sockets: topics, connections, and device profiles from payload to entity.
//!
//! * [`topic`]: checked topic names and filters, and [`topic::Subscriptions`], the trie that finds who wants a message.
//! * [`connection`]: [`connection::ServerConnection`], the server's side of one client, MQTT 3.1.1 and 5, from bytes to events and back.
//!   It moves no bytes and keeps no time itself: a listener feeds it and does what its events say.
//! * [`client`]: [`client::Client`], the side of a client that publishes to somebody else's broker.
//! * [`profile`]: [`profile::Profile`], the mapping from a device's JSON payload to an entity observation, written as data, not code.
//! * [`Reason`] and [`Refusal`]: why something was refused, as MQTT 5 numbers it and as a person reads it.
//!
//! Packets are encoded and decoded by `mqtt-protocol-core`. Its own acknowledgement bookkeeping is not used: it answers a repeated
//! QoS 2 message at once, also when the first copy is not yet durable, and hands out messages before the client is accepted. Here
//! **acknowledged means durable**: nothing is acknowledged before the node said so.
//!
//! **Invariant:** no sockets, no async, no clock, no randomness, no store in here; no byte sequence makes it panic.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

pub mod client;
pub mod connection;
pub mod profile;
mod reason;
pub mod topic;

pub use reason::{Reason, Refusal};
