//! NGSI-LD (ETSI GS CIM 009 V1.9.1) as bytes and as domain types.
//!
//! * [`context`]: short names to full IRIs and back, with every context that cities commonly use embedded.
//! * [`decode`]: entities, batches, evolutions and subscriptions from JSON, normalized or concise.
//! * [`query`]: the query, geo-query, scope and type languages, request parameters and query bodies, to one [`entity::Filter`].
//! * [`forward`]: what other systems are asked, and how their answers become one.
//! * [`encode`]: entities, evolutions, notifications and problems to JSON.
//!
//! **Invariant:** pure. No sockets, no store, no clock; what comes from outside is checked, and an [`Error`] says what is wrong, where,
//! and of which kind. The edge decides status codes and headers.
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test"))]
#![cfg_attr(test, allow(clippy::needless_pass_by_value, reason = "a table of cases reads better without `&`"))]

pub mod context;
pub mod decode;
pub mod encode;
mod error;
pub mod forward;
pub mod query;
mod view;

pub use context::{Context, ContextStore, Loader};
pub use error::{Error, ErrorKind, Result};
pub use view::{DatasetId, Join, JoinStyle, LanguageRanges, Member, Representation, View};

pub use entity::NGSI_LD_NULL;

/// The name of the default instance where a `datasetId` is asked for (clause 4.5.5.1).
pub const DEFAULT_INSTANCE: &str = "@none";
