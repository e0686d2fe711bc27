//! Changing what was true: clauses 5.6.11 to 5.6.16.

use serde_json::{Value, json};

use crate::city::{Answer, City};

const ID: &str = "urn:ngsi-ld:Station:1";

fn at(hour: u32) -> String {
    format!("2024-01-01T{hour:02}:00:00Z")
}

fn property(value: Value, hour: u32) -> Value {
    json!({"type": "Property", "value": value, "observedAt": at(hour)})
}

fn past(city: &City, rest: &str) -> Value {
    city.get(&format!("temporal/entities/{ID}{rest}")).expect(200).json()
}

/// The values of an attribute in the order of the answer.
fn values(entity: &Value, name: &str) -> Vec<Value> {
    entity[name].as_array().into_iter().flatten().map(|i| i["value"].clone()).collect()
}

/// The path of the instance with this value.
fn instance(city: &City, name: &str, value: &Value) -> String {
    let list = past(city, "")[name].clone();
    let found = list.as_array().unwrap().iter().find(|i| i["value"] == *value).unwrap_or_else(|| panic!("{value} is not in {list}"));
    format!("temporal/entities/{ID}/attrs/{name}/{}", found["instanceId"].as_str().unwrap())
}

fn patch(city: &City, path: &str, body: Value) -> Answer {
    city.with_body("PATCH", path, body)
}

fn now(city: &City) -> String {
    city.app.node.now().to_string()
}

#[test]
fn clause_5_6_11_create_or_add_to_temporal_evolution() {
    let city = City::start();
    let made = json!({"id": ID, "type": "Station", "t": [property(json!(2), 2), property(json!(1), 1)], "name": {"type": "Property", "value": "x"}});
    let created = city.post("temporal/entities", made).expect(201);
    assert_eq!(created.header("location"), [format!("/ngsi-ld/v1/temporal/entities/{ID}")]);
    // It is one entity: the newest is what is present.
    assert_eq!(city.simplified(ID), json!({"id": ID, "type": "Station", "t": 2, "name": "x"}));
    assert_eq!(values(&past(&city, ""), "t"), [json!(1), json!(2)]);
    // What is older goes to the past only, types are added, what was there stays.
    let more = json!({"id": ID, "type": "Sensor", "t": [property(json!(0), 0)], "u": property(json!(9), 5)});
    city.post("temporal/entities", more).expect(204);
    assert_eq!(city.simplified(ID), json!({"id": ID, "type": ["Station", "Sensor"], "t": 2, "name": "x", "u": 9}));
    assert_eq!(values(&past(&city, ""), "t"), [json!(0), json!(1), json!(2)]);
    city.post("temporal/entities", json!({"type": "Station", "t": [property(json!(1), 1)]})).problem(400, "BadRequestData");
    city.post("temporal/entities", json!({"id": ID, "t": [property(json!(1), 1)]})).problem(400, "BadRequestData");
    let twice = json!({"id": ID, "type": "Station", "t": [property(json!(1), 1), property(json!(2), 1)]});
    city.post("temporal/entities", twice).problem(400, "BadRequestData");
    let city = city.restarted();
    assert_eq!(values(&past(&city, ""), "t"), [json!(0), json!(1), json!(2)]);
    assert_eq!(city.simplified(ID)["t"], 2);
    // An entity that is gone has a past: adding to it makes it again.
    city.delete(&format!("entities/{ID}")).expect(204);
    city.post("temporal/entities", json!({"id": ID, "type": "Station", "t": [property(json!(3), 3)]})).expect(204);
    assert_eq!(city.simplified(ID), json!({"id": ID, "type": "Station", "t": 3}));
    assert_eq!(values(&past(&city, ""), "t"), [json!(0), json!(1), json!(2), json!(3)]);
}

#[test]
fn clause_5_6_12_add_attributes_to_temporal_evolution() {
    let city = City::start();
    let path = format!("temporal/entities/{ID}/attrs");
    city.post(&path, json!({"t": [property(json!(1), 1)]})).problem(404, "ResourceNotFound");
    city.has(json!({"id": ID, "type": "Station", "t": property(json!(2), 2)}));
    city.post(&path, json!({"t": [property(json!(1), 1), property(json!(3), 3)], "near": {"type": "Relationship", "object": "urn:x:1", "observedAt": at(1)}}))
        .expect(204);
    assert_eq!(values(&past(&city, ""), "t"), [json!(1), json!(2), json!(3)]);
    assert_eq!(city.simplified(ID), json!({"id": ID, "type": "Station", "t": 3, "near": "urn:x:1"}));
    city.post(&path, json!({"type": "Sensor", "t": [property(json!(4), 4)]})).expect(204);
    assert_eq!(city.simplified(ID)["type"], json!(["Station", "Sensor"]));
    city.post(&path, json!({"id": "urn:x:other", "t": [property(json!(1), 1)]})).problem(400, "BadRequestData");
    city.post(&path, json!({})).problem(400, "BadRequestData");
    city.post("temporal/entities/none/attrs", json!({"t": 1})).problem(400, "BadRequestData");
}

#[test]
fn clause_4_5_9_simplified_temporal_form_is_accepted() {
    let city = City::start();
    let made = json!({"id": ID, "type": "Station",
        "t": {"type": "Property", "unitCode": "CEL", "values": [[1, at(1)], [2, at(2)]]},
        "near": [{"type": "Relationship", "objects": [["urn:x:1", at(1)]]}, {"type": "Relationship", "datasetId": "urn:d:1", "objects": [["urn:x:2", at(2)]]}],
        "name": {"type": "LanguageProperty", "languageMaps": [[{"languageMap": {"en": "a", "fr": "b"}}, at(1)]]}});
    city.post("temporal/entities", made.clone()).expect(201);
    let mut shown = past(&city, "?format=temporalValues");
    // What is not a value is not in the simplified form.
    shown["t"]["unitCode"] = "CEL".into();
    shown["near"][0] = json!({"type": "Relationship", "objects": [["urn:x:1", at(1)]]});
    assert_eq!(shown, made);
    assert_eq!(past(&city, "")["t"][0]["unitCode"], "CEL");
    let wrong = json!({"id": ID, "type": "Station", "t": {"type": "Relationship", "values": [[1, at(1)]]}});
    city.post("temporal/entities", wrong).problem(400, "BadRequestData");
}

#[test]
fn clause_5_6_11_every_kind_of_attribute_has_a_past() {
    let city = City::start();
    let instances = |instance: Value| -> Value {
        let mut earlier = instance.clone();
        earlier["observedAt"] = at(1).into();
        let mut later = instance;
        later["observedAt"] = at(2).into();
        later["datasetId"] = "urn:d:1".into();
        json!([earlier, later])
    };
    let kinds = json!({
        "a": instances(json!({"type": "Property", "value": {"x": [1]}, "sub": {"type": "Property", "value": 1}})),
        "b": instances(json!({"type": "GeoProperty", "value": {"type": "Point", "coordinates": [1, 2]}})),
        "c": instances(json!({"type": "Relationship", "object": ["urn:x:1", "urn:x:2"]})),
        "d": instances(json!({"type": "LanguageProperty", "languageMap": {"en": "x"}})),
        "e": instances(json!({"type": "VocabProperty", "vocab": "x"})),
        "f": instances(json!({"type": "JsonProperty", "json": {"value": null}})),
        "g": instances(json!({"type": "ListProperty", "valueList": [1, 2]})),
        "h": instances(json!({"type": "ListRelationship", "objectList": [{"object": "urn:x:1"}]})),
    });
    let mut entity = kinds.clone();
    (entity["id"], entity["type"]) = (ID.into(), "Station".into());
    city.post("temporal/entities", entity).expect(201);
    let city = city.restarted();
    let mut shown = past(&city, "");
    for (name, list) in kinds.as_object().unwrap() {
        for instance in shown[name].as_array_mut().unwrap() {
            assert!(instance.as_object_mut().unwrap().remove("instanceId").is_some(), "{name}");
        }
        assert_eq!(shown[name], *list, "{name}");
    }
}

#[test]
fn clause_5_6_14_modify_attribute_instance() {
    let city = City::start();
    city.post(
        "temporal/entities",
        json!({"id": ID, "type": "Station", "t": [property(json!(1), 1), property(json!(2), 2), property(json!(3), 3)]}),
    )
    .expect(201);
    let before = past(&city, "?options=sysAttrs")["t"][1].clone();
    let earlier = now(&city);
    let second = instance(&city, "t", &json!(2));
    patch(&city, &second, json!({"t": [{"type": "Property", "value": 20, "unitCode": "CEL", "observedAt": at(2)}]})).expect(204);
    let check = |city: &City| {
        assert_eq!(values(&past(city, ""), "t"), [json!(1), json!(20), json!(3)]);
        let after = past(city, "?options=sysAttrs")["t"][1].clone();
        assert_eq!(after["instanceId"], before["instanceId"]);
        assert_eq!(after["createdAt"], before["createdAt"], "it was created when the old one was");
        assert!(after["modifiedAt"].as_str() > before["modifiedAt"].as_str(), "{after}");
        assert_eq!(after["unitCode"], "CEL");
        assert_eq!(values(&past(city, &format!("?asOf={earlier}")), "t"), [json!(1), json!(2), json!(3)], "what was known then");
        assert_eq!(city.simplified(ID)["t"], 3, "the present is another instance");
    };
    check(&city);
    let city = city.restarted();
    check(&city);
    // Without a time the instance keeps its own; the instance that is present changes the present.
    patch(&city, &instance(&city, "t", &json!(3)), json!({"t": {"type": "Property", "value": 30}})).expect(204);
    assert_eq!(values(&past(&city, ""), "t"), [json!(1), json!(20), json!(30)]);
    assert_eq!(city.simplified(ID)["t"], 30);
    // Another time moves it.
    patch(&city, &instance(&city, "t", &json!(1)), json!({"t": [property(json!(10), 0)]})).expect(204);
    let moved = past(&city, "");
    assert_eq!(values(&moved, "t"), [json!(10), json!(20), json!(30)]);
    assert_eq!(moved["t"][0]["observedAt"], at(0));
    let path = instance(&city, "t", &json!(20));
    let one = || property(json!(1), 2);
    patch(&city, &path, json!({"t": [one(), property(json!(1), 3)]})).problem(400, "BadRequestData");
    patch(&city, &path, json!({"u": [one()]})).problem(400, "BadRequestData");
    patch(&city, &path, json!({"t": [one()], "u": [one()]})).problem(400, "BadRequestData");
    patch(&city, &path.replace(ID, "urn:x:none"), json!({"t": [one()]})).problem(404, "ResourceNotFound");
    patch(&city, &format!("temporal/entities/{ID}/attrs/t/urn:x:none"), json!({"t": [one()]})).problem(404, "ResourceNotFound");
    patch(&city, &format!("temporal/entities/{ID}/attrs/t/none"), json!({"t": [one()]})).problem(400, "BadRequestData");
    city.delete(&format!("entities/{ID}")).expect(204);
    patch(&city, &path, json!({"t": [one()]})).problem(422, "OperationNotSupported");
}

#[test]
fn clause_5_6_14_an_instance_without_observed_time() {
    let city = City::start();
    city.has(json!({"id": ID, "type": "Station", "name": {"type": "Property", "value": "a"}}));
    let first = instance(&city, "name", &json!("a"));
    city.post(&format!("entities/{ID}/attrs"), json!({"name": {"type": "Property", "value": "b"}})).expect(204);
    patch(&city, &first, json!({"name": {"type": "Property", "value": "c"}})).problem(422, "OperationNotSupported");
    patch(&city, &instance(&city, "name", &json!("b")), json!({"name": {"type": "Property", "value": "c"}})).expect(204);
    assert_eq!(values(&past(&city, ""), "name"), [json!("a"), json!("c")]);
    assert_eq!(city.simplified(ID)["name"], "c");
    city.delete(&first).expect(204);
    assert_eq!(values(&past(&city.restarted(), ""), "name"), [json!("c")]);
}

#[test]
fn clause_5_6_15_delete_attribute_instance() {
    let city = City::start();
    let other = json!({"type": "Property", "value": 7, "observedAt": at(1), "datasetId": "urn:d:1"});
    city.post("temporal/entities", json!({"id": ID, "type": "Station", "t": [property(json!(1), 1), other, property(json!(2), 2)]}))
        .expect(201);
    let path = instance(&city, "t", &json!(1));
    let earlier = now(&city);
    city.delete(&path).expect(204);
    assert_eq!(values(&past(&city, ""), "t"), [json!(7), json!(2)], "the instance with another datasetId stays");
    city.delete(&path).problem(404, "ResourceNotFound");
    city.delete(&format!("temporal/entities/{ID}/attrs/none/{}", path.rsplit('/').next().unwrap())).problem(404, "ResourceNotFound");
    let city = city.restarted();
    assert_eq!(values(&past(&city, ""), "t"), [json!(7), json!(2)]);
    assert_eq!(values(&past(&city, &format!("?asOf={earlier}")), "t"), [json!(1), json!(7), json!(2)]);
    city.post(&format!("temporal/entities/{ID}/attrs"), json!({"t": [property(json!(5), 1)]})).expect(204);
    assert_eq!(values(&past(&city, ""), "t"), [json!(7), json!(5), json!(2)], "a value can be put again");
}

#[test]
fn clause_5_6_13_delete_attribute_from_temporal_evolution() {
    let city = City::start();
    let other = json!({"type": "Property", "value": 7, "observedAt": at(1), "datasetId": "urn:d:1"});
    city.post(
        "temporal/entities",
        json!({"id": ID, "type": "Station", "t": [property(json!(1), 1), other, property(json!(2), 2)], "u": property(json!(1), 1)}),
    )
    .expect(201);
    city.delete(&format!("temporal/entities/{ID}/attrs/t")).expect(204);
    assert_eq!(values(&past(&city, ""), "t"), [json!(7)]);
    city.delete(&format!("temporal/entities/{ID}/attrs/t?datasetId=urn:d:1")).expect(204);
    assert!(past(&city, "")["t"].is_null());
    city.delete(&format!("temporal/entities/{ID}/attrs/none")).problem(404, "ResourceNotFound");
    city.delete(&format!("temporal/entities/{ID}/attrs/u?deleteAll=true")).expect(204);
}

#[test]
fn clause_5_6_16_delete_temporal_evolution() {
    let city = City::start();
    city.post("temporal/entities", json!({"id": ID, "type": "Station", "t": [property(json!(1), 1), property(json!(2), 2)]})).expect(201);
    city.delete(&format!("temporal/entities/{ID}")).expect(204);
    city.get(&format!("temporal/entities/{ID}")).problem(404, "ResourceNotFound");
    let query = format!("temporal/entities?type=Station&timerel=after&timeAt={}", at(0));
    assert_eq!(city.get(&query).expect(200).json(), json!([]));
    assert_eq!(city.simplified(ID)["t"], 2, "the present stays");
    city.delete("temporal/entities/urn:x:none").problem(404, "ResourceNotFound");
    assert_eq!(city.restarted().get(&query).expect(200).json(), json!([]));
}
