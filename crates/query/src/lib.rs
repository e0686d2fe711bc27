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
//! | `"AirQualityObserved"` | an entity as it is now | `id`, `observed_at` (the newest of its attributes), `created_at`, `modified_at`, `lon`, `lat`, `location`, one per attribute |
//! | `"AirQualityObserved_history"` | an entity at an observed time | `id`, `dataset_id`, `observed_at`, `recorded_at`, one per attribute |
//!
//! * `location` is a geometry in WGS 84 (EPSG 4326), longitude first; in Arrow it is WKB with the extension `geoarrow.wkb`, over the PostgreSQL wire
//!   protocol EWKB of type `geometry`, as PostGIS sends it.
//! * `lon` and `lat` are the position of a point, and the centroid of any other geometry (degrees, WGS 84).
//! * An attribute is a number, a truth value or a text when all its values are; anything else, or a mixture, is JSON in a text column.
//!   Its unit code, if it is always the same one, is in the column's metadata: `arrow_metadata(pm25, 'unit_code')`; its full name is there as `iri`.
//! * The table of what is now shows the default instance of an attribute, and if there is none the most recently observed one.
//! * Names keep their case, so names with capitals need double quotes. When two names are the same, or an attribute is called like one of the
//!   columns above, the one with the smaller IRI keeps the name and the others get `_2`, `_3`, ...
//! * A type without entities has no table of what is now; a type without history has no history table.
//!
//! # The past as it was known
//! `"T_history" FOR SYSTEM_TIME AS OF '2014-01-05T00:00:00Z'` is the history of a type as it was known at that recorded time, and
//! `"T" FOR SYSTEM_TIME AS OF '...'` for each entity the newest known value of each attribute then. They stand for the table functions
//! `history_as_of('T', '...')` and `latest_as_of('T', '...')`. The time is a constant; other forms of `FOR SYSTEM_TIME` are refused.
//!
//! # Functions over geometries
//! With the names and meanings of PostGIS; a geometry may also be given as text (`'POINT(116.4 39.9)'`).
//!
//! | | |
//! | --- | --- |
//! | make | `ST_Point`, `ST_MakePoint`, `ST_MakeLine`, `ST_MakeEnvelope`, `ST_GeomFromText`, `ST_GeomFromEWKT`, `ST_GeomFromWKB`, `ST_GeomFromGeoJSON`, `ST_GeogFromText`, `::geometry`, `::geography` |
//! | write | `ST_AsText`, `ST_AsEWKT`, `ST_AsGeoJSON`, `ST_AsBinary`, `ST_AsEWKB`, `ST_AsHexEWKB` |
//! | look at | `ST_X`, `ST_Y`, `ST_XMin` (`YMin`, `XMax`, `YMax`), `ST_SRID`, `ST_GeometryType`, `ST_NPoints`, `ST_NumGeometries`, `ST_IsEmpty`, `ST_IsValid` |
//! | compare | `ST_Intersects`, `ST_Disjoint`, `ST_Within`, `ST_Contains`, `ST_Covers`, `ST_CoveredBy`, `ST_Touches`, `ST_Crosses`, `ST_Overlaps`, `ST_Equals`, `ST_DWithin`; `&&` (boxes) |
//! | measure | `ST_Distance`, `ST_DistanceSphere`, `ST_DistanceSpheroid`, `ST_Length`, `ST_Perimeter`, `ST_Area` |
//! | make anew | `ST_Centroid`, `ST_Envelope`, `ST_ConvexHull`, `ST_Buffer`, `ST_SetSRID`, `ST_Transform` (between 4326, 4490 and 3857); of several: `ST_Extent` |
//!
//! and the further scalar functions of the crate `geodatafusion`, such as `ST_Simplify` and `ST_GeoHash`.
//! `geometry` is measured in the plane, in degrees for WGS 84; `geography` on the Earth, in metres.
//! A condition such as `ST_DWithin(location, <constant>, d)` or `ST_Within(location, <constant>)` on the table of what is now asks the source only for
//! what lies in the box around the constant; the condition itself is applied exactly afterwards. A constant written as a bare text is not used for that.
//!
//! # Functions over time
//! With the names and meanings of TimescaleDB.
//! * `time_bucket('15 minutes', observed_at [, origin or offset])`; months and years are those of UTC, weeks begin on Mondays.
//! * `first(value, time)`, `last(value, time)`: the value at the earliest and the latest time. Rows without time do not count; a value may be null, so
//!   `last(pm25, observed_at) filter (where pm25 is not null)` is the last known one.
//! * `time_bucket_gapfill(width, time [, start, finish])` in GROUP BY gives a row for every bucket. Start and finish are those of the conditions on the
//!   same column if they are not given. In the select list `locf(value)` carries the last known value on, and `interpolate(value)` draws straight
//!   lines; for both a null counts as missing, also in a row that is there.
//!
//! # COPY
//! * `COPY (select ...) TO STDOUT` and `COPY "T" TO STDOUT`, as text or CSV, streaming.
//! * `COPY "T_history" (id, observed_at, pm25) FROM STDIN`, as text or CSV: observations for a [`Sink`], in batches of 10,000 rows, each of them recorded as
//!   a whole or not at all. It is acknowledged when everything is durable. An error names line and column and says how many rows are recorded.
//! * Only columns of the table can be written, and of them numbers, truth values and texts. COPY is sent as a simple query, by itself.
//!
//! # Sessions
//! * Login by SCRAM-SHA-256 ([`Auth::Scram`]); a user has the limits of the role of that name, if there is one ([`Settings::roles`]).
//! * What does not fit a role's memory is sorted, joined and grouped on disk, within [`Limits::spill_bytes`].
//! * A statement ends when its time is over, when the client cancels it or goes away, and by `pg_cancel_backend(pid)` from another session, as a session
//!   ends by `pg_terminate_backend(pid)`. A session sees those of its own principal in `pg_stat_activity`, or all of them ([`SourceFactory::oversees`]).
//!
//! # Invariants
//! * SQL reads, and hands rows to the [`Sink`] of the principal, if there is one; nothing else can be changed, and no file or address can be reached:
//!   statements are let in by kind, plans are checked again, and the engine has no file formats, no table factories and no object store.
//! * Every limit in [`Limits`] ends in an error that names it.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

mod catalog;
mod condition;
mod dialect;
mod engine;
mod error;
mod explained;
mod flight;
mod floats;
mod geometry;
mod groups;
mod guard;
mod history;
mod latest;
mod names;
mod parameters;
mod pushdown;
mod server;
mod sink;
mod source;
mod system_time;
mod then;
mod threads;
mod time;
mod walk;

pub use engine::{Engine, Limits};
pub use error::QueryError;
pub use flight::{INGEST_BATCH_ROWS_MAX, serve_flight};
pub use server::{Auth, LoginError, PasswordCheck, Secret, SecretLookup, Settings, serve};
pub use sink::{Appending, Sink, SinkError};
pub use source::{Rows, Source, SourceError, SourceFactory};
