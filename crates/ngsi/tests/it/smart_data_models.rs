//! The examples of the Smart Data Models: real documents by many hands.

use std::path::PathBuf;

use ngsi::encode::{self, Document};
use ngsi::{ContextStore, View, decode};
use serde_json::Value;

/// Examples that break the standard; each with what we say about it.
const BROKEN: [(&str, &str); 9] = [
    // coordinates of a Point in an array too many
    ("SolarEnergy", "attribute location/value: not a GeoJSON geometry"),
    // {"type": "string"}
    ("FloodMonitoring", "is not a kind of attribute"),
    // a Relationship with `value`, and one with `Object`
    ("GreenEnergyMeasurement", "attribute refGreenEnergyGenerator/value: a Relationship holds `object`"),
    ("PhotovoltaicDevice", "attribute refDevice/value: a Relationship holds `object`"),
    ("PhotovoltaicMeasurement", "attribute refPhotovoltaicDevice"),
    // {"type": "Property "}
    ("CityWork", "attribute workDisposition/tramwayImpacted/type: the string `Property ` is not a kind of attribute"),
    // an offset instead of Z
    ("Vehicle", "attribute battery/observedAt: `2021-03-11T15:51:02+05:30` is not a date-time"),
    // a Relationship to a date
    ("WaterObserved", "attribute dateObserved/object: `2020-03-17T08:45:00.209Z` is not an absolute URI"),
    // an id without a scheme
    ("WeatherForecast", "id: `Spain-WeatherForecast-46005_2016-12-01T18:00:00_2016-12-02T00:00:00` is not an absolute URI"),
];

fn examples() -> Vec<(String, Value)> {
    let shared =
        std::env::var_os("CONURB_SHARED").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let Ok(models) = std::fs::read_dir(shared.join("smart-data-models")) else { return Vec::new() };
    let mut examples = Vec::new();
    for repository in models.flatten() {
        for model in std::fs::read_dir(repository.path()).into_iter().flatten().flatten() {
            if let Ok(text) = std::fs::read(model.path().join("example-normalized.jsonld")) {
                examples.push((model.file_name().into_string().unwrap(), serde_json::from_slice(&text).unwrap()));
            }
        }
    }
    examples.sort_by(|a, b| a.0.cmp(&b.0));
    examples
}

#[test]
fn every_example_is_read_and_written_back_equal() {
    let examples = examples();
    if examples.is_empty() {
        eprintln!("skipped: no ../shared/smart-data-models (set CONURB_SHARED)");
        return;
    }
    let contexts = ContextStore::new(None, None).unwrap();
    let mut n_equal = 0;
    for (name, mut value) in examples {
        let context = contexts.resolve(&value["@context"]).unwrap();
        let found = decode::entity(value.clone(), &context);
        if let Some((_, want)) = BROKEN.iter().find(|(broken, _)| *broken == name) {
            let error = found.unwrap_err().to_string();
            assert!(error.contains(want), "{name}: {error}");
            continue;
        }
        let entity = found.unwrap_or_else(|e| panic!("{name}: {e}"));
        let written = encode::entity(&entity, &View::default(), &context, Document::Json);
        let written: Value = serde_json::from_slice(&written).unwrap();
        // The context is written elsewhere; one example brings its own `modifiedAt`, which only a broker can say.
        for member in ["@context", "modifiedAt"] {
            value.as_object_mut().unwrap().shift_remove(member);
        }
        // One target in an array is one target: JSON-LD does not tell them apart.
        for attribute in value.as_object_mut().unwrap().values_mut() {
            if let Some([one]) = attribute.get("object").and_then(Value::as_array).map(Vec::as_slice) {
                attribute["object"] = one.clone();
            }
        }
        for (member, want) in value.as_object().unwrap() {
            assert_eq!(written.get(member), Some(want), "{name}: {member}");
        }
        assert_eq!(written.as_object().unwrap().len(), value.as_object().unwrap().len(), "{name}");
        n_equal += 1;
    }
    assert!(n_equal >= 32, "only {n_equal} examples were compared");
}
