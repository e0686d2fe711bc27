//! The stations that examples of this crate and of `query` measure with: how they are named, and what and when they report.

use entity::{Instant, Iri};

/// What each of them reports.
pub(crate) const PROPERTIES: [&str; 5] = ["pm25", "pm10", "no2", "o3", "temperature"];
/// How often they report in 30 days.
pub(crate) const QUARTERS: i64 = 2_880;
/// A quarter of an hour, in µs.
pub(crate) const QUARTER_US: i64 = 900_000_000;
/// 2024-01-01.
const START_S: i64 = 1_704_067_200;

/// The same numbers between -0.5 and 0.5 in every run.
pub(crate) fn noise() -> impl FnMut() -> f64 {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
    }
}

/// When a quarter of an hour begins.
pub(crate) fn at(quarter: i64) -> Instant {
    Instant::from_secs(START_S).plus_micros(quarter * QUARTER_US)
}

pub(crate) fn station(i: usize) -> Iri {
    Iri::known(&format!("urn:ngsi-ld:AirQualityObserved:Station-{i:04}"))
}

pub(crate) fn entity_type() -> Iri {
    Iri::known("https://uri.fiware.org/ns/dataModels#AirQualityObserved")
}

pub(crate) fn attribute(name: &str) -> Iri {
    Iri::known(&format!("https://uri.fiware.org/ns/dataModels#{name}"))
}
