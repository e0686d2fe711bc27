//! The codec as others use it: whole documents in, whole documents out.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::needless_pass_by_value, reason = "a table of cases reads better without `&`")]

mod documents;
mod round_trip;
mod smart_data_models;
mod subscriptions;
