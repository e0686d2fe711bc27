//! SQL as a client sees it: over an in-memory source, in process and over the wire.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod city;
mod engine;
mod flight;
mod functions;
mod gdal;
mod postgres;
mod programs;
mod psql;
mod python;
mod sessions;
mod slt;
mod wire;
