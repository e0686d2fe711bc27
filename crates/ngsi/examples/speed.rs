//! How long the codec takes for one ordinary entity: `cargo run --profile quick -p ngsi --example speed`.
#![allow(clippy::print_stdout, reason = "the numbers are the point")]

use std::hint::black_box;
use std::time::Instant;

use ngsi::encode::{self, Document};
use ngsi::query::{QOptions, parse_q};
use ngsi::{ContextStore, Representation, View, decode};

const STATION: &str = r#"{"id": "urn:ngsi-ld:AirQualityObserved:Beijing:Dongsi", "type": "AirQualityObserved",
    "location": {"type": "GeoProperty", "value": {"type": "Point", "coordinates": [116.417, 39.929]}},
    "name": {"type": "LanguageProperty", "languageMap": {"en": "Dongsi", "zh": "东四"}},
    "pm25": {"type": "Property", "value": 35.5, "unitCode": "GQ", "observedAt": "2014-01-01T05:00:00Z"},
    "pm10": {"type": "Property", "value": 80, "unitCode": "GQ", "observedAt": "2014-01-01T05:00:00Z"},
    "so2": {"type": "Property", "value": 12, "unitCode": "GQ", "observedAt": "2014-01-01T05:00:00Z"},
    "no2": {"type": "Property", "value": 44, "unitCode": "GQ", "observedAt": "2014-01-01T05:00:00Z"},
    "co": {"type": "Property", "value": 900, "unitCode": "GQ", "observedAt": "2014-01-01T05:00:00Z"},
    "o3": {"type": "Property", "value": 31, "unitCode": "GQ", "observedAt": "2014-01-01T05:00:00Z"},
    "refDevice": {"type": "Relationship", "object": "urn:ngsi-ld:Device:1"},
    "areaServed": {"type": "Property", "value": "Beijing"}}"#;

fn main() -> Result<(), ngsi::Error> {
    let contexts = ContextStore::new(Some(ngsi::context::DEFAULT_USER_CONTEXT_URL), None)?;
    let context = contexts.default_context();
    let entity = decode::entity(decode::json(STATION.as_bytes())?, context)?;
    println!("entity of {} bytes, {} attributes", STATION.len(), entity.attributes.len());
    time("parse JSON", || drop(black_box(decode::json(STATION.as_bytes()))));
    time("parse and decode", || drop(black_box(decode::json(STATION.as_bytes()).and_then(|v| decode::entity(v, context)))));
    let one = format!("[{STATION}]");
    time("decode as a batch of one", || drop(black_box(decode::plain_batch(one.as_bytes(), context))));
    for (name, representation) in [
        ("encode normalized", Representation::Normalized),
        ("encode concise", Representation::Concise),
        ("encode simplified", Representation::Simplified),
    ] {
        let view = View::of(representation);
        time(name, || drop(black_box(encode::entity(&entity, &view, context, Document::Json))));
    }
    let options = QOptions { context, expand_values: &[], link_levels: 0 };
    time("parse q", || drop(black_box(parse_q("pm25>100;(no2>=40|co==1..5000);name[zh]==\"东四\"", options))));
    let link = serde_json::json!([ngsi::context::DEFAULT_USER_CONTEXT_URL, ngsi::context::CORE_CONTEXT_URL]);
    time("find a known context", || drop(black_box(contexts.resolve(&link))));
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "an example on the real clock, nothing depends on it")]
fn time(what: &str, mut run: impl FnMut()) {
    const N: u32 = 20_000;
    let start = Instant::now();
    for _ in 0..N {
        run();
    }
    println!("{what}: {:.2} µs", start.elapsed().as_secs_f64() * 1e6 / f64::from(N));
}
