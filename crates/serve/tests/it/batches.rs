//! Batches: clauses 5.6.7 to 5.6.10, 5.6.20 and 5.5.11.

use serde_json::{Value, json};

use crate::city::City;

fn lamp(i: usize, watts: i64) -> Value {
    json!({"id": format!("urn:x:{i}"), "type": "Lamp", "watts": watts})
}

#[track_caller]
fn watts(city: &City, i: usize, want: i64) {
    assert_eq!(city.simplified(&format!("urn:x:{i}"))["watts"], want);
}

/// What failed, by entity.
fn failed(answer: &Value) -> Vec<(String, String)> {
    let text = |v: &Value| v.as_str().unwrap_or_default().rsplit('/').next().unwrap().to_owned();
    answer["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["entityId"].as_str().unwrap_or_default().to_owned(), text(&e["error"]["type"])))
        .collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn clause_5_6_7_batch_create() {
    let city = City::start();
    let created = city.post("entityOperations/create", json!([lamp(1, 1), lamp(2, 2)])).expect(201);
    assert_eq!(created.json(), json!(["urn:x:1", "urn:x:2"]));
    let mixed = city.post("entityOperations/create", json!([lamp(2, 9), lamp(3, 3), lamp(3, 4), {"id": "urn:x:5"}])).expect(207).json();
    assert_eq!(mixed["success"], json!(["urn:x:3"]));
    let mut errors = failed(&mixed);
    errors.sort();
    assert_eq!(errors, pairs(&[("urn:x:2", "AlreadyExists"), ("urn:x:3", "AlreadyExists"), ("urn:x:5", "BadRequestData")]));
    watts(&city, 3, 3);
    // 207 also when nothing succeeded.
    city.post("entityOperations/create", json!([lamp(1, 1)])).expect(207);
}

#[test]
fn clause_5_6_7_what_is_no_batch_is_refused_as_a_whole() {
    let city = City::start();
    for operation in ["create", "upsert", "update", "merge", "delete"] {
        for body in [json!([]), json!({}), json!([null]), json!("x")] {
            city.post(&format!("entityOperations/{operation}"), body).problem(400, "BadRequestData");
        }
        city.send("POST", &format!("entityOperations/{operation}"), &[("content-type", "application/json")], Some("["))
            .problem(400, "InvalidRequest");
    }
}

#[test]
fn clause_5_6_8_batch_upsert() {
    let city = City::start();
    city.has(json!({"id": "urn:x:1", "type": "Lamp", "watts": 1, "on": true}));
    // Only what was created is in the answer.
    let answer = city.post("entityOperations/upsert?options=update", json!([lamp(1, 2), lamp(2, 2)])).expect(201);
    assert_eq!(answer.json(), json!(["urn:x:2"]));
    assert_eq!(city.simplified("urn:x:1"), json!({"id": "urn:x:1", "type": "Lamp", "watts": 2, "on": true}));
    assert_eq!(city.post("entityOperations/upsert", json!([lamp(1, 3), lamp(1, 4)])).expect(204).body, "");
    assert_eq!(city.simplified("urn:x:1"), json!({"id": "urn:x:1", "type": "Lamp", "watts": 4}));
    // Replacing can take a type away; nothing else can.
    city.post("entityOperations/upsert", json!([{"id": "urn:x:1", "type": "Post"}])).expect(204);
    assert_eq!(city.simplified("urn:x:1"), json!({"id": "urn:x:1", "type": "Post"}));
    city.post("entityOperations/upsert?options=other", json!([lamp(1, 1)])).problem(400, "InvalidRequest");
}

#[test]
fn clause_5_6_9_batch_update() {
    let city = City::start();
    city.has(json!({"id": "urn:x:1", "type": "Lamp", "watts": 1}));
    city.post("entityOperations/update", json!([{"id": "urn:x:1", "type": "Lamp", "watts": 2, "on": true}])).expect(204);
    let answer = city.post("entityOperations/update?options=noOverwrite", json!([lamp(1, 9), lamp(7, 1)])).expect(207).json();
    assert_eq!(failed(&answer), pairs(&[("urn:x:1", "BadRequestData"), ("urn:x:7", "ResourceNotFound")]));
    watts(&city, 1, 2);
    let nulls =
        city.post("entityOperations/update", json!([{"id": "urn:x:1", "type": "Lamp", "watts": "urn:ngsi-ld:null"}])).expect(207).json();
    assert_eq!(failed(&nulls), pairs(&[("urn:x:1", "BadRequestData")]));
}

#[test]
fn clause_5_6_10_batch_delete() {
    let city = City::start();
    city.has(json!([lamp(1, 1), lamp(2, 1)]));
    city.post("entityOperations/delete", json!(["urn:x:1"])).expect(204);
    let answer = city.post("entityOperations/delete", json!(["urn:x:1", "urn:x:2", "urn:x:2"])).expect(207).json();
    assert_eq!(answer["success"], json!(["urn:x:2"]));
    assert_eq!(failed(&answer), pairs(&[("urn:x:1", "ResourceNotFound"), ("urn:x:2", "ResourceNotFound")]));
}

#[test]
fn clause_5_6_20_batch_merge() {
    let city = City::start();
    city.has(json!([{"id": "urn:x:1", "type": "Lamp", "watts": {"value": {"a": 1, "b": 2}}, "on": true}, lamp(2, 1)]));
    let items = json!([{"id": "urn:x:1", "watts": {"value": {"a": "urn:ngsi-ld:null", "c": 3}}, "on": "urn:ngsi-ld:null"}, {"id": "urn:x:2", "type": "Post", "watts": {"unitCode": "WTT"}}]);
    city.post("entityOperations/merge", items).expect(204);
    assert_eq!(city.simplified("urn:x:1"), json!({"id": "urn:x:1", "type": "Lamp", "watts": {"b": 2, "c": 3}}));
    assert_eq!(
        city.get("entities/urn:x:2").json(),
        json!({"id": "urn:x:2", "type": ["Lamp", "Post"], "watts": {"type": "Property", "value": 1, "unitCode": "WTT"}})
    );
    let answer = city
        .post("entityOperations/merge", json!([{"id": "urn:x:9", "on": 1}, {"on": 1}, {"id": "urn:x:2", "watts": 5}]))
        .expect(207)
        .json();
    assert_eq!(answer["success"], json!(["urn:x:2"]));
    let mut errors = failed(&answer);
    errors.sort();
    assert_eq!(errors, pairs(&[("", "BadRequestData"), ("urn:x:9", "ResourceNotFound")]));
    watts(&city, 2, 5);
}

#[test]
fn clause_5_5_11_a_batch_has_one_time() {
    let city = City::start();
    city.post("entityOperations/create", json!([lamp(1, 1), lamp(2, 2), lamp(3, 3)])).expect(201);
    let all = city.get("entities?type=Lamp&options=sysAttrs").json();
    let times: Vec<&Value> =
        all.as_array().unwrap().iter().flat_map(|e| [&e["modifiedAt"], &e["createdAt"], &e["watts"]["modifiedAt"]]).collect();
    assert!(times.iter().all(|t| *t == times[0]), "{all}");
    // The past has every item, the present the last one.
    city.post("entityOperations/upsert", json!([lamp(1, 7), lamp(1, 8)])).expect(204);
    watts(&city, 1, 8);
}
