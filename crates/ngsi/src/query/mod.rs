//! What a request asks for: the query languages, the URL parameters and the query bodies (ETSI GS CIM 009 V1.9.1, clauses 4.9 to 4.21).
//!
//! Everything ends in one [`entity::Filter`] that says which entities, and one [`crate::View`] that says how they are shown.

mod aggregation;
mod body;
mod endpoint;
mod order;
mod params;
mod q;
mod select;
mod temporal;
#[cfg(test)]
mod tests;

pub use aggregation::Aggregation;
pub use body::query_body;
pub use endpoint::Endpoint;
pub use order::SORT_KEYS_MAX;
pub use params::{JOIN_LEVEL_MAX, LIMIT_DEFAULT, LIMIT_MAX, OFFSET_MAX, PurgedAttributes, QueryParams, lifetime_us};
pub use q::{LIST_VALUES_MAX, Q, Q_BYTES_MAX, Q_DEPTH_MAX, QOptions, parse_q};
pub use select::{GeoParameters, IDS_MAX, SELECTION_BYTES_MAX, parse_ids, parse_scopes, parse_types};
pub use temporal::{LAST_N_MAX, TemporalParams, TimeProperty};

pub(crate) use aggregation::duration;
pub(crate) use body::unknown_member;
pub(crate) use params::{check_reach, dataset_ids, id_pattern, join_of, member_list, name_list};
