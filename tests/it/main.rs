//! End-to-end tests: the real binary, used as its users use it (`mosquitto_pub`, `psql`, HTTP, a browser).
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod bad_input;
mod bulk;
mod cities;
mod client;
mod command_line;
mod console;
mod entities;
mod maintenance;
mod mqtt;
mod recorded;
mod sql;
mod subscriptions;
mod support;
mod two_times;
