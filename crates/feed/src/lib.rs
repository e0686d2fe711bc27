//! Devices for trying and testing: recorded files and simulated cities, played as MQTT messages.
//!
//! * [`recorded`] reads open air-quality archives and yields one message per station and hour.
//! * [`simulated`] yields the messages of a believable city: air, weather, traffic, parking, electricity.
//! * [`player`] publishes either to an MQTT 5 broker, at the pace of the time stamps or as fast as it goes.
//! * [`outline`] holds the built-in city outlines in which simulated devices stand.
//!
//! A source is an iterator of [`Message`]s that holds a bounded part of its data: a year of a city does not sit in memory.
//! The payloads are the flat JSON of a simple device; the device profiles in `crates/mqtt/profiles` say how they become entities.
//!
//! **Invariants.**
//! A source yields the same messages in the same order each time it is opened with the same options, so that a
//! count of messages is a position from which a replay can continue.
//! A value that was not measured is absent from the payload, never zero or null.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

mod message;
pub mod outline;
pub mod player;
pub mod recorded;
pub mod simulated;

pub use jiff::Timestamp;
pub use message::Message;
