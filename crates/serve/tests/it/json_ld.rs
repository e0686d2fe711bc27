//! Our reading of JSON-LD beside that of a full processor (`pyld`): the same names, types and values (clauses 5.5.7, C.6, C.7).

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use entity::{Attribute, AttributeValue, Attributes, Entity};
use ngsi::context::{CORE_CONTEXT_URL, embedded_urls};
use ngsi::encode::{self, Document};
use ngsi::{ContextStore, View, decode};
use serde_json::{Map, Value, json};

const PACKAGES: &[&str] = &["PyLD==3.3.0"];

/// What the full processor does not take: our reader is milder where a context of the Smart Data Models needs it.
const MILDER: [(&str, &str); 1] = [
    // It defines `open311:type` although there is a term `open311` that means something else.
    ("IssueReporting", "invalid IRI mapping"),
];

/// The examples of the Smart Data Models that our reader takes (the others break the standard, see the tests of crate `ngsi`).
fn examples(contexts: &ContextStore) -> Vec<(String, Value)> {
    let shared =
        std::env::var_os("CONURB_SHARED").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let Ok(models) = std::fs::read_dir(shared.join("smart-data-models")) else { return Vec::new() };
    let mut found = Vec::new();
    for model in models.flatten().flat_map(|repository| std::fs::read_dir(repository.path()).into_iter().flatten()).flatten() {
        if let Ok(text) = std::fs::read(model.path().join("example-normalized.jsonld")) {
            let value: Value = serde_json::from_slice(&text).unwrap();
            let context = contexts.resolve(&value["@context"]).unwrap();
            if decode::entity(value.clone(), &context).is_ok() {
                found.push((model.file_name().into_string().unwrap(), value));
            }
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// Documents with everything that contexts can do to names.
fn own_cases() -> Vec<(String, Value)> {
    let entity = |context: Value, more: Value| {
        let mut entity = json!({"id": "urn:ngsi-ld:A:1", "type": "A", "@context": context});
        entity.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entity
    };
    let p = |v: Value| json!({"type": "Property", "value": v});
    let xsd = "http://www.w3.org/2001/XMLSchema#";
    let cases = [
        ("unknown terms", entity(json!([]), json!({"a": p(json!(1)), "b": p(json!("x"))}))),
        ("a term", entity(json!({"A": "https://example.org/A", "a": "https://example.org/a"}), json!({"a": p(json!(true))}))),
        (
            "prefixes",
            entity(json!({"ex": "https://example.org/", "A": "ex:A", "a": "ex:a"}), json!({"a": p(json!(1)), "ex:b": p(json!(2))})),
        ),
        (
            "a prefix without an end is none for new names",
            entity(json!({"ex": "https://example.org/x", "a": "ex:a"}), json!({"a": p(json!(1))})),
        ),
        (
            "full names",
            entity(
                json!({"a": "https://example.org/a"}),
                json!({"https://example.org/a": p(json!(1)), "https://example.org/b": p(json!(2))}),
            ),
        ),
        ("a prefix of the core", entity(json!([]), json!({"ngsi-ld:status": p(json!(1))}))),
        (
            "coercion",
            entity(
                json!({"speed": {"@id": "https://example.org/speed", "@type": format!("{xsd}double")},
                    "ref": {"@id": "https://example.org/ref", "@type": "@id"}, "list": {"@id": "https://example.org/list", "@container": "@list"}}),
                json!({"speed": p(json!(3.5)), "ref": {"type": "Relationship", "object": "urn:x:1"}, "list": p(json!([1, 2]))}),
            ),
        ),
        ("a vocabulary", entity(json!({"@vocab": "https://example.org/v#", "a": "b"}), json!({"a": p(json!(1))}))),
        (
            "the core wins",
            entity(
                json!({"location": "https://example.org/loc", "a": "https://example.org/a"}),
                json!({"location": {"type": "GeoProperty", "value": {"type": "Point", "coordinates": [1, 2]}}, "a": p(json!(1))}),
            ),
        ),
        ("a later part wins", entity(json!([{"a": "https://example.org/1"}, {"a": "https://example.org/2"}]), json!({"a": p(json!(1))}))),
        (
            "two terms for one name",
            entity(json!({"long": "https://example.org/a", "ab": "https://example.org/a"}), json!({"long": p(json!(1))})),
        ),
        ("terms of terms", entity(json!({"ex": "https://example.org/", "a": "ex:a", "b": "a"}), json!({"b": p(json!(1))}))),
        (
            "every kind",
            entity(
                json!({"Male": "https://example.org/Male", "Room": "https://example.org/Room", "double": format!("{xsd}double")}),
                json!({
                    "p": {"type": "Property", "value": 1.5, "unitCode": "CEL", "observedAt": "2026-01-01T00:00:00Z", "valueType": "double",
                        "sub": {"type": "Relationship", "object": "urn:x:1", "deeper": p(json!("x"))}},
                    "r": {"type": "Relationship", "object": ["urn:x:1", "urn:x:2"], "objectType": "Room"},
                    "l": {"type": "LanguageProperty", "languageMap": {"en": "a", "zh-Hans": "b", "@none": "c"}},
                    "v": {"type": "VocabProperty", "vocab": ["Male", "other"]},
                    "j": {"type": "JsonProperty", "json": {"id": 1, "type": null, "Male": ["Male"]}},
                    "vl": {"type": "ListProperty", "valueList": [1, "b", 1]},
                    "rl": {"type": "ListRelationship", "objectList": [{"object": "urn:x:2"}, {"object": "urn:x:1"}]},
                    "several": [p(json!(1)), {"type": "Property", "value": 2, "datasetId": "urn:x:d"}],
                }),
            ),
        ),
        ("several types", entity(json!({"A": "https://example.org/A"}), json!({"type": ["A", "B", "https://example.org/C"]}))),
    ];
    cases.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What the script says about attributes, of ours.
fn attributes(all: &Attributes) -> Value {
    let mut map = Map::new();
    for (name, instances) in all {
        let mut list: Vec<Value> = instances.iter().map(instance).collect();
        list.sort_by_key(|i| i.get("datasetId").map_or_else(|| "\"\"".to_owned(), Value::to_string));
        map.insert(name.to_string(), Value::Array(list));
    }
    Value::Object(map)
}

fn instance(a: &Attribute) -> Value {
    let value = match &a.value {
        AttributeValue::Property(v) => scalars(v),
        AttributeValue::Geo(_) => Value::Null,
        AttributeValue::Relationship(list) | AttributeValue::Vocab(list) | AttributeValue::ListRelationship(list) => json!(list),
        AttributeValue::Language(map) => {
            let mut texts: Vec<Value> = map.iter().map(|(tag, text)| json!([tag.to_lowercase(), text])).collect();
            texts.sort_by_key(Value::to_string);
            Value::Array(texts)
        }
        AttributeValue::Json(v) => v.clone(),
        AttributeValue::List(list) => scalars(&Value::Array(list.clone())),
    };
    let mut map = Map::new();
    map.insert("kind".to_owned(), json!(a.value.kind().name()));
    map.insert("value".to_owned(), value);
    map.insert("sub".to_owned(), attributes(&a.sub_attributes));
    let mut put = |name: &str, value: Option<Value>| value.map(|v| map.insert(name.to_owned(), v));
    put("unitCode", a.unit_code.as_ref().map(|u| json!([u])));
    put("observedAt", a.observed_at.map(|at| json!([at.to_string()])));
    put("datasetId", a.dataset_id.as_ref().map(|d| json!([d])));
    if let Some(q) = &a.qualifiers {
        put("hasObjectType", (!q.object_types.is_empty()).then(|| json!(q.object_types)));
        put("hasValueType", q.value_type.as_ref().map(|t| json!([t])));
    }
    Value::Object(map)
}

/// Scalars in one flat list, as JSON-LD has them, of typed values the value; null if there is an object among them, whose members are JSON-LD of their own there and
/// plain JSON here.
fn scalars(value: &Value) -> Value {
    fn add(value: &Value, out: &mut Vec<Value>) -> bool {
        match value {
            Value::Array(list) => list.iter().all(|v| add(v, out)),
            Value::Object(map) => map.get("@value").is_some_and(|v| add(v, out)),
            scalar => {
                out.push(scalar.clone());
                true
            }
        }
    }
    let mut out = Vec::new();
    if add(value, &mut out) { Value::Array(out) } else { Value::Null }
}

/// `1` and `1.0`, `2020-01-01T00:00:00Z` and `2020-01-01T00:00:00.000Z` are the same.
fn same(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| k == "observedAt" && same_time(v, w) || same(v, w)))
        }
        _ => ours == theirs,
    }
}

fn same_time(a: &Value, b: &Value) -> bool {
    let time = |v: &Value| v[0].as_str().and_then(|t| t.parse::<entity::Instant>().ok());
    time(a).is_some() && time(a) == time(b)
}

fn names(entity: &Entity, context: &ngsi::Context) -> Value {
    let view = View::default();
    let written: Value = serde_json::from_slice(&encode::entity(entity, &view, context, Document::Json)).unwrap();
    let mut names: Vec<&String> = written.as_object().unwrap().keys().collect();
    names.sort();
    json!(names)
}

#[test]
fn clause_5_5_7_names_and_values_are_those_of_a_full_json_ld_processor() {
    let python = match host::pypi::environment("pyld", PACKAGES) {
        Ok(dir) => dir.join("bin/python"),
        Err(why) => return eprintln!("SKIPPED, no Python with {PACKAGES:?}: {why}"),
    };
    let contexts = ContextStore::new(None, None).unwrap();
    let mut cases = examples(&contexts);
    if cases.is_empty() {
        eprintln!("SKIPPED in part: no ../shared/smart-data-models (set CONURB_SHARED)");
    }
    cases.extend(own_cases());
    let mut documents: Map<String, Value> = Map::new();
    let named = cases.iter().flat_map(|(_, e)| contexts.named(&e["@context"]).unwrap());
    for url in named.chain(embedded_urls().map(str::to_owned)) {
        let text = ContextStore::embedded(&url).unwrap();
        documents.insert(url, serde_json::from_str(text).unwrap());
    }
    let entities: Vec<&Value> = cases.iter().map(|(_, e)| e).collect();
    let input = json!({"contexts": documents, "core": CORE_CONTEXT_URL, "entities": entities}).to_string();
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/json_ld.py");
    let mut child = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    let answers: Vec<Value> = String::from_utf8(output.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(answers.len(), cases.len());
    let mut wrong = Vec::new();
    for ((name, value), theirs) in cases.iter().zip(&answers) {
        let context = contexts.resolve(&value["@context"]).unwrap();
        let entity = decode::entity(value.clone(), &context).unwrap();
        if let Some((_, why)) = MILDER.iter().find(|(n, _)| n == name) {
            assert_eq!(theirs["error"], *why, "{name}");
            continue;
        }
        let ours = json!({"types": entity.types, "attributes": attributes(&entity.attributes), "names": names(&entity, &context)});
        for part in ["types", "attributes", "names"] {
            if !same(&ours[part], &theirs[part]) {
                wrong.push(format!("{name}, {part}: ours {}\ntheirs {} {}", ours[part], theirs[part], theirs["error"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
