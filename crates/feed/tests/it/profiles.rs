//! The device profiles in `crates/mqtt/profiles`: names against the Smart Data Models, members against the payloads.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use feed::Timestamp;
use feed::simulated::{Fleet, Simulation, SimulationOptions};
use serde_json::Value;

use crate::shared;

/// Profile and the model's folder.
const PROFILES: [(&str, &str); 5] = [
    ("air-quality", "dataModel.Environment/AirQualityObserved"),
    ("weather", "dataModel.Weather/WeatherObserved"),
    ("traffic", "dataModel.Transportation/TrafficFlowObserved"),
    ("parking", "dataModel.Parking/OffStreetParking"),
    ("meter", "dataModel.Device/SmartMeteringObservation"),
];

/// Attributes that the entity's own model lacks, and the model they come from.
const BORROWED: [(&str, &str, &str); 1] = [("meter", "totalActivePower", "dataModel.Energy/ThreePhaseAcMeasurement")];

/// Codes of UN/CEFACT Recommendation 20 that the profiles use, with what they stand for.
const UNITS: [(&str, &str); 11] = [
    ("GQ", "microgram per cubic metre"),
    ("CEL", "degree Celsius"),
    ("A97", "hectopascal"),
    ("C62", "one"),
    ("MMT", "millimetre"),
    ("DD", "degree (angle)"),
    ("MTS", "metre per second"),
    ("H10", "reciprocal hour"),
    ("KMH", "kilometre per hour"),
    ("KWH", "kilowatt hour"),
    ("KWT", "kilowatt"),
];

fn profile(id: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../mqtt/profiles/{id}.json"));
    serde_json::from_slice(&std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))).unwrap()
}

fn attributes(profile: &Value) -> &Vec<Value> {
    profile["attributes"].as_array().unwrap()
}

/// Property names of a schema, with those of the schemas it refers to.
fn schema_properties(root: &Path, schema: &Value, found: &mut BTreeMap<String, Value>) {
    if let Some(properties) = schema["properties"].as_object() {
        found.extend(properties.iter().map(|(name, property)| (name.clone(), property.clone())));
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        schema_properties(root, part, found);
    }
    if let Some((file, pointer)) = schema["$ref"].as_str().and_then(|reference| reference.split_once('#')) {
        let name = file.rsplit('/').next().unwrap();
        let path = match name {
            "common-schema.json" => root.join(name),
            _ => root.join("dataModel.Weather").join(name),
        };
        let referred: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        schema_properties(root, referred.pointer(pointer).unwrap(), found);
    }
}

fn model(root: &Path, folder: &str) -> BTreeMap<String, Value> {
    let schema: Value = serde_json::from_slice(&std::fs::read(root.join(folder).join("schema.json")).unwrap()).unwrap();
    let mut found = BTreeMap::new();
    schema_properties(root, &schema, &mut found);
    found
}

#[test]
fn attribute_names_are_those_of_the_smart_data_models() {
    let Some(root) = shared("smart-data-models") else { return };
    for (id, folder) in PROFILES {
        let profile = profile(id);
        let entity_type = profile["entityType"].as_str().unwrap();
        assert!(folder.ends_with(&format!("/{entity_type}")), "{id}");
        let own_model = model(&root, folder);
        assert!(own_model.len() > 10, "{folder}: {} properties read", own_model.len());
        for attribute in attributes(&profile) {
            let name = attribute["name"].as_str().unwrap();
            let borrowed = BORROWED.iter().find(|(of, borrowed, _)| *of == id && *borrowed == name);
            let property = match borrowed {
                Some((_, _, from)) => model(&root, from).remove(name),
                None => own_model.get(name).cloned(),
            };
            let property = property.unwrap_or_else(|| panic!("{id}: the model has no `{name}`"));
            if let (Some(model_min), Some(min)) = (property["minimum"].as_f64(), attribute["min"].as_f64()) {
                assert!(min >= model_min, "{id}: `{name}` from {min}, the model from {model_min}");
            }
            if let (Some(model_max), Some(max)) = (property["maximum"].as_f64(), attribute["max"].as_f64()) {
                assert!(max <= model_max, "{id}: `{name}` to {max}, the model to {model_max}");
            }
        }
    }
}

#[test]
fn profiles_are_well_formed_and_use_registered_units() {
    for (id, _) in PROFILES {
        let profile = profile(id);
        assert_eq!(profile["id"], id);
        assert_eq!(profile["topic"], format!("devices/{id}/{{device}}"));
        let entity_type = profile["entityType"].as_str().unwrap();
        assert_eq!(profile["entityId"], format!("urn:ngsi-ld:{entity_type}:{{city}}:{{station}}"));
        for language in ["en", "zh"] {
            assert!(profile["description"][language].as_str().is_some_and(|text| !text.is_empty()), "{id} {language}");
        }
        let names: Vec<_> = attributes(&profile).iter().map(|attribute| attribute["name"].as_str().unwrap()).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{id}: names are unique");
        for attribute in attributes(&profile) {
            assert!(attribute["path"].is_string() != attribute["languages"].is_object(), "{id}: {attribute}");
            if let Some(unit) = attribute.get("unitCode") {
                assert!(UNITS.iter().any(|(code, _)| unit == code), "{id}: unit {unit}");
            }
        }
    }
}

/// What the simulated devices send and what the profiles read are the same members, and within the profiles' limits.
#[test]
fn profiles_read_every_member_that_devices_send() {
    let start: Timestamp = "2024-03-10T16:00:00Z".parse().unwrap();
    let fleet = Fleet { n_devices: 5, interval_s: 600 };
    let options = SimulationOptions {
        air: fleet,
        weather: fleet,
        traffic: fleet,
        parking: fleet,
        meters: fleet,
        end: Some("2024-03-12T16:00:00Z".parse().unwrap()),
        ..SimulationOptions::default()
    };
    let mut sent: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for message in Simulation::new("guangzhou", 9, start, &options).unwrap() {
        let id = message.topic.split('/').nth(1).unwrap().to_owned();
        let payload: serde_json::Map<String, Value> = serde_json::from_slice(&message.payload).unwrap();
        for attribute in attributes(&profile(&id)) {
            let value = attribute["path"].as_str().and_then(|path| payload.get(path)).and_then(Value::as_f64);
            let (min, max) = (attribute["min"].as_f64(), attribute["max"].as_f64());
            if let Some(value) = value {
                assert!(min.is_none_or(|min| value >= min) && max.is_none_or(|max| value <= max), "{attribute}: {value}");
            }
        }
        sent.entry(id).or_default().extend(payload.keys().cloned());
    }
    for (id, _) in PROFILES {
        let profile = profile(id);
        // `simulated` is read for every profile alike: it becomes the entity's provenance.
        let mut read: BTreeSet<String> = ["time", "lon", "lat", "station", "simulated"].map(str::to_owned).into();
        for attribute in attributes(&profile) {
            read.extend(attribute["path"].as_str().map(str::to_owned));
            let languages = attribute["languages"].as_object().into_iter().flat_map(serde_json::Map::values);
            read.extend(languages.map(|path| path.as_str().unwrap().to_owned()));
        }
        assert_eq!(sent[id], read, "{id}");
    }
}
