//! What NGSI-LD (ETSI GS CIM 009 V1.9.1) asks, over HTTP, of a real node: a test for each rule, named by its clause.
//!
//! `docs/conformance/ngsi-ld.md` is the table from operation and clause to test; `cargo xtask tidy` keeps the two together.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::needless_pass_by_value, reason = "a table of cases reads better without `&`")]

mod batches;
mod binding;
mod city;
#[path = "../../../../tests/it/client.rs"]
mod client;
mod contexts;
mod csource_subscriptions;
mod discovery;
mod distributed_reads;
mod distributed_writes;
mod entities;
mod entity_maps;
mod http;
mod json_ld;
mod killed;
mod mqtt;
mod notifications;
mod openapi;
mod queries;
mod receiver;
mod registrations;
mod snapshots;
mod source;
mod subscriptions;
mod temporal;
mod temporal_forms;
mod temporal_write;
