//! The words of the city.
//!
//! Everything in a city is an [`Entity`] with [`Attribute`]s that change over time: a sensor, a road segment, a car park, an agreement.
//! This crate gives the types that every other crate speaks, and the rules that need nothing but them:
//!
//! * [`Iri`], [`Scope`], [`Instant`], [`Geometry`]: checked words. Names are always expanded (full IRIs); short terms live at the edge.
//! * [`Entity`], [`Attribute`], [`AttributeValue`]: the document model of NGSI-LD (ETSI GS CIM 009 V1.9.1, clause 4.5).
//! * [`Command`] is what somebody wants, [`Delta`] is what it comes to against the present state: deterministic to apply, and what the log keeps.
//! * [`codec`]: the binary form of entities and deltas, for log and documents.
//! * [`registration`]: what other systems have, and which of them may have what is asked for.
//! * [`Filter`]: the one condition tree into which every query language and every policy residual compiles, with its per-row evaluator.
//!
//! **Invariant:** no I/O, no clock, no randomness in here.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]

mod aggregation;
mod change;
pub mod codec;
mod entity;
mod filter;
mod geometry;
mod instance_id;
mod instances;
mod instant;
mod name;
mod order;
mod patch;
pub mod registration;

pub use aggregation::{AggregationMethod, AggregationPeriod};
pub use change::{ApplyError, Command, CommandError, Delta, Outcome, Resolved, Version, resolve};
pub use entity::{Attribute, AttributeKind, AttributeValue, Attributes, Entity, Qualifiers, Series, Value};
pub use filter::{
    CompareOp, Comparison, Filter, GeoCondition, GeoRelation, LinkedCondition, Operand, PATH_MEMBERS, Path, Pattern, PatternError, Scalar,
    Target, TypeSelector, distance_m,
};
pub use geometry::{Geometry, GeometryError, POSITIONS_MAX};
pub use instance_id::{InstanceId, InstanceIdError, Moment};
pub use instances::{Instances, IntoInstances, SubAttributes};
pub use instant::{Instant, InstantError, InstantText};
pub use name::{IRI_BYTES_MAX, Iri, IriError, Scope, ScopeError, ScopePattern};
pub use order::{SortBy, SortKey, SortOrder};
pub use patch::{AttributePatch, Edit, EntityPatch, InstancePatch, MergeOptions, NGSI_LD_NULL, PatchMode, ValuePatch};

/// Namespace of the words that conurb itself adds (agreements, profiles, provenance).
pub const CONURB_NS: &str = "https://conurb.org/ns#";

/// Namespace of the NGSI-LD core words.
pub const NGSI_LD_NS: &str = "https://uri.etsi.org/ngsi-ld/";

/// Prefix of names that no context defines (ETSI GS CIM 009, core context `@vocab`).
pub const DEFAULT_CONTEXT_NS: &str = "https://uri.etsi.org/ngsi-ld/default-context/";

/// IRI of the predefined GeoProperty `location`, the default of every geo-query.
pub const LOCATION: &str = "https://uri.etsi.org/ngsi-ld/location";
