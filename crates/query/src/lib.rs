//! SQL over what the city is and was: the only crate that links the SQL engine.
//!
//! * [`Source`] is what a node lends to one session: its entity types, their entities, their history – already limited to what the
//!   session's principal may see. This crate decides no policy.
//! * [`Engine`] answers SQL over one source, in process.
//! * [`serve`] answers it over the PostgreSQL wire protocol, one [`Engine`] per connection; [`serve_flight`] over Arrow Flight SQL.
//! * [`Sink`] is where rows go that clients send in.
//!
//! # Tables
//! Catalog `conurb`, schema `public`. Every entity type appears by itself, under its short name, as two tables:
//!
//! | table | row | columns |
//! | --- | --- | --- |
//! | `"AirQualityObserved"` | an entity as it is now | `id`, `observed_at` (the newest of its attributes), `created_at`, `modified_at`, `lon`, `lat`, `location` (GeoJSON), one per attribute |
//! | `"AirQualityObserved_history"` | an entity at an observed time | `id`, `dataset_id`, `observed_at`, `recorded_at`, one per attribute |
//!
//! * `history_as_of('AirQualityObserved', '2014-01-05T00:00:00Z')` is the second one as it was known at that recorded time.
//! * `lon` and `lat` are the position of a point, and the centroid of any other geometry (degrees, WGS 84).
//! * An attribute is a number, a truth value or a text when all its values are; anything else, or a mixture, is JSON in a text column.
//!   Its unit code, if it is always the same one, is in the column's metadata: `arrow_metadata(pm25, 'unit_code')`; its full name is there as `iri`.
//! * The table of what is now shows the default instance of an attribute, and if there is none the most recently observed one.
//! * Names keep their case, so names with capitals need double quotes. When two names are the same, or an attribute is called like one of the
//!   columns above, the one with the smaller IRI keeps the name and the others get `_2`, `_3`, ...
//! * A type without entities has no table of what is now; a type without history has no history table.
//!
//! # Invariants
//! * Nothing can be changed through SQL, and no file or address can be reached by it: statements are let in by kind, plans are checked
//!   again, and the engine has no file formats, no table factories and no object store.
//! * Every limit in [`Limits`] ends in an error that names it.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

mod catalog;
mod condition;
mod dialect;
mod engine;
mod error;
mod explained;
mod flight;
mod geometry;
mod guard;
mod history;
mod latest;
mod names;
mod pushdown;
mod server;
mod sink;
mod source;
mod system_time;
mod threads;
mod time;
mod walk;

pub use engine::{Engine, Limits};
pub use error::QueryError;
pub use flight::{INGEST_BATCH_ROWS_MAX, serve_flight};
pub use server::{Auth, LoginError, PasswordCheck, Secret, SecretLookup, Settings, serve};
pub use sink::{Appending, Sink, SinkError};
pub use source::{Rows, Source, SourceError, SourceFactory};
