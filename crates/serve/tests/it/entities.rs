//! Entities and their attributes: clauses 5.6.1 to 5.6.6, 5.6.17 to 5.6.19.

use serde_json::{Value, json};

use crate::city::City;

const ID: &str = "urn:ngsi-ld:Station:1";

fn station() -> Value {
    json!({"id": ID, "type": "Station", "t": {"type": "Property", "value": 1, "unitCode": "CEL"}, "in": {"type": "Relationship", "object": "urn:ngsi-ld:City:a"}})
}

#[test]
fn clause_5_6_1_create_entity() {
    let city = City::start();
    let created = city.post("entities", station()).expect(201);
    assert_eq!(created.header("location"), [format!("/ngsi-ld/v1/entities/{ID}")]);
    assert_eq!(created.body, "");
    city.post("entities", station()).problem(409, "AlreadyExists");
    city.post("entities", json!({"id": "no uri", "type": "Station"})).problem(400, "BadRequestData");
    city.send("POST", "entities", &[("content-type", "application/json")], Some("{")).problem(400, "InvalidRequest");
    assert_eq!(city.simplified(ID)["t"], 1);
}

#[test]
fn clause_5_6_1_ids_and_names_are_checked() {
    let city = City::start();
    for (what, body) in [
        ("no id", json!({"type": "Station"})),
        ("no type", json!({"id": ID})),
        ("null", json!({"id": ID, "type": "Station", "t": null})),
        ("NGSI-LD Null", json!({"id": ID, "type": "Station", "t": "urn:ngsi-ld:null"})),
        ("a reserved name", json!({"id": ID, "type": "Station", "datasetId": 1})),
        ("two defaults", json!({"id": ID, "type": "Station", "t": [{"type": "Property", "value": 1}, {"type": "Property", "value": 2}]})),
        (
            "an offset",
            json!({"id": ID, "type": "Station", "t": {"type": "Property", "value": 1, "observedAt": "2026-01-01T00:00:00+01:00"}}),
        ),
        ("a context in plain JSON", json!({"id": ID, "type": "Station", "@context": "https://example.org/c.jsonld"})),
    ] {
        let answer = city.post("entities", body);
        assert_eq!(answer.status, 400, "{what}: {}", answer.body);
        answer.problem(400, "BadRequestData");
    }
    city.post("entities?unknown=1", station()).problem(400, "InvalidRequest");
}

/// Every kind of attribute comes back as it went in, in every form.
#[test]
fn clause_4_5_all_kinds_of_attributes() {
    let city = City::start();
    let normalized = json!({
        "id": ID, "type": ["Station", "Sensor"], "scope": ["/a/b", "/c"],
        "property": {"type": "Property", "value": {"a": [1, "x"]}, "unitCode": "CEL", "observedAt": "2026-01-01T00:00:00Z",
            "accuracy": {"type": "Property", "value": 0.5, "by": {"type": "Relationship", "object": "urn:x:lab"}}},
        "location": {"type": "GeoProperty", "value": {"type": "Point", "coordinates": [116.4, 39.9]}},
        "relationship": {"type": "Relationship", "object": ["urn:x:1", "urn:x:2"], "objectType": "Lamp"},
        "language": {"type": "LanguageProperty", "languageMap": {"zh": "北京", "en": ["Beijing", "Peking"]}},
        "terms": {"type": "VocabProperty", "vocab": ["monument", "tower"]},
        "raw": {"type": "JsonProperty", "json": {"id": 1, "n": null}},
        "list": {"type": "ListProperty", "valueList": [1, 1, [2]]},
        "listRel": {"type": "ListRelationship", "objectList": [{"object": "urn:x:2"}, {"object": "urn:x:1"}]},
        "several": [{"type": "Property", "value": 1}, {"type": "Property", "value": 2, "datasetId": "urn:x:d"}],
    });
    city.post("entities", normalized.clone()).expect(201);
    assert_eq!(city.get(&format!("entities/{ID}")).json(), normalized);
    let concise = city.get(&format!("entities/{ID}?format=concise")).json();
    assert_eq!(concise["location"], normalized["location"]["value"]);
    assert_eq!(concise["listRel"], json!({"objectList": ["urn:x:2", "urn:x:1"]}));
    city.delete(&format!("entities/{ID}")).expect(204);
    city.post("entities", concise).expect(201);
    assert_eq!(city.get(&format!("entities/{ID}")).json(), normalized);
    assert_eq!(
        city.simplified(ID),
        json!({
            "id": ID, "type": ["Station", "Sensor"], "scope": ["/a/b", "/c"], "property": {"a": [1, "x"]},
            "location": {"type": "Point", "coordinates": [116.4, 39.9]}, "relationship": ["urn:x:1", "urn:x:2"],
            "language": {"languageMap": {"zh": "北京", "en": ["Beijing", "Peking"]}}, "terms": {"vocab": ["monument", "tower"]},
            "raw": {"json": {"id": 1, "n": null}}, "list": [1, 1, [2]], "listRel": ["urn:x:2", "urn:x:1"],
            "several": {"dataset": {"@none": 1, "urn:x:d": 2}},
        })
    );
}

#[test]
fn clause_5_6_2_update_attributes() {
    let city = City::start();
    city.has(station());
    let attrs = format!("entities/{ID}/attrs");
    let created = city.get(&format!("entities/{ID}?options=sysAttrs")).json();
    // A whole instance is replaced: its unit goes if it is not repeated. What is new is added.
    city.with_body("PATCH", &attrs, json!({"t": {"type": "Property", "value": 2}, "new": 5, "type": "Sensor"})).expect(204);
    let now = city.get(&format!("entities/{ID}?options=sysAttrs")).json();
    assert_eq!((&now["t"]["value"], now["t"].get("unitCode"), &now["new"]["value"]), (&json!(2), None, &json!(5)));
    assert_eq!(now["type"], json!(["Station", "Sensor"]));
    assert_eq!(now["t"]["createdAt"], created["t"]["createdAt"]);
    assert!(now["t"]["modifiedAt"].as_str() > created["t"]["modifiedAt"].as_str());
    assert_eq!(now["modifiedAt"], now["t"]["modifiedAt"]);
    // Null removes; what is not there to be removed is reported.
    let answer = city.with_body("PATCH", &attrs, json!({"new": "urn:ngsi-ld:null", "gone": "urn:ngsi-ld:null"})).expect(207).json();
    assert_eq!(answer["updated"], json!(["https://uri.etsi.org/ngsi-ld/default-context/new"]));
    assert_eq!(answer["notUpdated"][0]["attributeName"], "https://uri.etsi.org/ngsi-ld/default-context/gone");
    assert!(city.simplified(ID).get("new").is_none());
    // Scopes are replaced where there are some, and else ignored.
    city.with_body("PATCH", &attrs, json!({"scope": "/a"})).expect(204);
    assert!(city.simplified(ID).get("scope").is_none());
    city.with_body("PATCH", "entities/urn:x:none/attrs", json!({"t": 1})).problem(404, "ResourceNotFound");
    city.with_body("PATCH", &format!("{attrs}?type=Lamp"), json!({"t": 1})).problem(404, "ResourceNotFound");
    city.with_body("PATCH", &attrs, json!({"t": {"type": "Property", "unitCode": "CEL"}})).problem(400, "BadRequestData");
    city.with_body("PATCH", &attrs, json!({"t": {"a": {"b": "urn:ngsi-ld:null"}}})).problem(400, "BadRequestData");
}

#[test]
fn clause_5_6_2_instances_are_told_apart_by_dataset_id() {
    let city = City::start();
    city.has(json!({"id": ID, "type": "Station", "t": [{"type": "Property", "value": 1}, {"type": "Property", "value": 2, "datasetId": "urn:x:d"}]}));
    let patch = json!({"t": [{"type": "Property", "value": 20, "datasetId": "urn:x:d"}, {"type": "Property", "value": 30, "datasetId": "urn:x:e"}]});
    city.with_body("PATCH", &format!("entities/{ID}/attrs"), patch).expect(204);
    assert_eq!(city.simplified(ID)["t"]["dataset"], json!({"@none": 1, "urn:x:d": 20, "urn:x:e": 30}));
    let gone = json!({"t": {"type": "Property", "value": "urn:ngsi-ld:null", "datasetId": "urn:x:d"}});
    city.with_body("PATCH", &format!("entities/{ID}/attrs"), gone).expect(204);
    assert_eq!(city.simplified(ID)["t"]["dataset"], json!({"@none": 1, "urn:x:e": 30}));
}

#[test]
fn clause_5_6_3_append_attributes() {
    let city = City::start();
    city.has(station());
    let attrs = format!("entities/{ID}/attrs");
    city.post(&attrs, json!({"new": 1, "scope": "/a"})).expect(204);
    let answer = city.post(&format!("{attrs}?options=noOverwrite"), json!({"t": 9, "more": 2, "scope": "/b"})).expect(207).json();
    assert_eq!(answer["notUpdated"][0]["attributeName"], "https://uri.etsi.org/ngsi-ld/default-context/t");
    let now = city.simplified(ID);
    assert_eq!((&now["t"], &now["more"], &now["scope"]), (&json!(1), &json!(2), &json!(["/a", "/b"])));
    city.post(&attrs, json!({"t": 9, "scope": "/c"})).expect(204);
    let now = city.simplified(ID);
    assert_eq!((&now["t"], &now["scope"]), (&json!(9), &json!("/c")));
    city.post(&attrs, json!({"t": "urn:ngsi-ld:null"})).problem(400, "BadRequestData");
    city.post("entities/urn:x:none/attrs", json!({"t": 1})).problem(404, "ResourceNotFound");
}

#[test]
fn clause_5_6_4_partial_attribute_update() {
    let city = City::start();
    city.has(json!({"id": ID, "type": "Station", "scope": "/a", "t": {"type": "Property", "value": {"a": 1, "b": 2}, "unitCode": "CEL",
        "accuracy": {"type": "Property", "value": 0.5, "unitCode": "P1"}, "by": {"type": "Relationship", "object": "urn:x:lab"}}}));
    let t = format!("entities/{ID}/attrs/t");
    // Members that are named are replaced as a whole, the others stay.
    city.with_body("PATCH", &t, json!({"value": {"c": 3}, "accuracy": {"type": "Property", "value": 0.4}, "by": "urn:ngsi-ld:null"}))
        .expect(204);
    let now = city.get(&format!("entities/{ID}")).json();
    assert_eq!(now["t"], json!({"type": "Property", "value": {"c": 3}, "unitCode": "CEL", "accuracy": {"type": "Property", "value": 0.4}}));
    city.with_body("PATCH", &t, json!({"observedAt": "2026-01-01T00:00:00Z", "unitCode": "urn:ngsi-ld:null"})).expect(204);
    let now = city.get(&format!("entities/{ID}")).json();
    assert_eq!((&now["t"]["observedAt"], now["t"].get("unitCode")), (&json!("2026-01-01T00:00:00Z"), None));
    // Neither its kind nor the attribute itself goes this way.
    city.with_body("PATCH", &t, json!({"type": "Relationship", "object": "urn:x:1"})).problem(400, "BadRequestData");
    city.with_body("PATCH", &t, json!({"value": "urn:ngsi-ld:null"})).problem(400, "BadRequestData");
    city.with_body("PATCH", &t, json!({"value": 1, "datasetId": "urn:x:d"})).problem(404, "ResourceNotFound");
    city.with_body("PATCH", &format!("entities/{ID}/attrs/u"), json!({"value": 1})).problem(404, "ResourceNotFound");
    city.with_body("PATCH", &format!("entities/{ID}/attrs/scope"), json!({"value": "/b"})).problem(400, "BadRequestData");
}

#[test]
fn clause_5_6_5_delete_attribute() {
    let city = City::start();
    let several = json!([{"type": "Property", "value": 1}, {"type": "Property", "value": 2, "datasetId": "urn:x:d"}, {"type": "Property", "value": 3, "datasetId": "urn:x:e"}]);
    city.has(json!({"id": ID, "type": "Station", "scope": "/a", "t": several, "u": several}));
    city.delete(&format!("entities/{ID}/attrs/t?datasetId=urn:x:d")).expect(204);
    city.delete(&format!("entities/{ID}/attrs/t?datasetId=urn:x:d")).problem(404, "ResourceNotFound");
    assert_eq!(city.simplified(ID)["t"]["dataset"], json!({"@none": 1, "urn:x:e": 3}));
    city.delete(&format!("entities/{ID}/attrs/t")).expect(204);
    // One instance that is left is shown as itself, with its datasetId.
    assert_eq!(city.get(&format!("entities/{ID}")).json()["t"], json!({"type": "Property", "value": 3, "datasetId": "urn:x:e"}));
    city.delete(&format!("entities/{ID}/attrs/u?deleteAll=true")).expect(204);
    assert!(city.simplified(ID).get("u").is_none());
    city.delete(&format!("entities/{ID}/attrs/scope")).expect(204);
    assert!(city.simplified(ID).get("scope").is_none());
    city.delete(&format!("entities/{ID}/attrs/scope")).problem(404, "ResourceNotFound");
}

#[test]
fn clause_5_6_6_delete_entity() {
    let city = City::start();
    city.has(station());
    city.delete(&format!("entities/{ID}?type=Lamp")).problem(404, "ResourceNotFound");
    assert_eq!(city.delete(&format!("entities/{ID}?type=Station")).expect(204).body, "");
    city.get(&format!("entities/{ID}")).problem(404, "ResourceNotFound");
    city.delete(&format!("entities/{ID}")).problem(404, "ResourceNotFound");
    city.delete("entities/no%20uri").problem(400, "BadRequestData");
}

#[test]
fn clause_5_6_17_merge_entity() {
    let city = City::start();
    city.has(json!({"id": ID, "type": "Station", "scope": "/a", "address": {"type": "Property", "value": {"street": "a", "town": {"name": "b", "zip": 1}}},
        "t": {"type": "Property", "value": 1, "unitCode": "CEL", "observedAt": "2026-01-01T00:00:00Z", "accuracy": {"type": "Property", "value": 0.5, "unitCode": "P1"}},
        "name": {"type": "LanguageProperty", "languageMap": {"zh": "北", "en": "North"}}, "gone": 1}));
    let path = format!("entities/{ID}");
    let patch = json!({"scope": "/b", "type": "Sensor", "gone": "urn:ngsi-ld:null", "never": "urn:ngsi-ld:null", "new": {"type": "Property", "value": 7},
        "address": {"value": {"street": "urn:ngsi-ld:null", "town": {"zip": 2}}}, "t": {"unitCode": "KEL", "accuracy": {"value": 0.4}},
        "name": {"languageMap": {"en": "urn:ngsi-ld:null", "fr": "Nord"}}});
    city.send("PATCH", &path, &[("content-type", "application/merge-patch+json")], Some(&patch.to_string())).expect(204);
    let now = city.get(&path).json();
    assert_eq!(
        now,
        json!({"id": ID, "type": ["Station", "Sensor"], "scope": "/b", "address": {"type": "Property", "value": {"town": {"name": "b", "zip": 2}}},
            "t": {"type": "Property", "value": 1, "unitCode": "KEL", "observedAt": "2026-01-01T00:00:00Z", "accuracy": {"type": "Property", "value": 0.4, "unitCode": "P1"}},
            "name": {"type": "LanguageProperty", "languageMap": {"zh": "北", "fr": "Nord"}}, "new": {"type": "Property", "value": 7}})
    );
    city.with_body("PATCH", "entities/urn:x:none", json!({"t": 1})).problem(404, "ResourceNotFound");
    city.with_body("PATCH", &path, json!({"id": "urn:x:other", "t": 1})).problem(400, "BadRequestData");
    city.with_body("PATCH", &path, json!({"scope": "urn:ngsi-ld:null"})).expect(204);
    assert!(city.simplified(ID).get("scope").is_none());
}

#[test]
fn clause_5_6_17_merge_takes_a_time_a_language_and_the_simplified_form() {
    let city = City::start();
    city.has(json!({"id": ID, "type": "Station", "t": {"type": "Property", "value": 1, "observedAt": "2026-01-01T00:00:00Z"}, "u": 2,
        "in": {"type": "Relationship", "object": "urn:x:1"}, "name": {"type": "LanguageProperty", "languageMap": {"en": "North"}},
        "kind": {"type": "VocabProperty", "vocab": "a"}, "location": {"type": "Point", "coordinates": [1, 2]}}));
    let path = format!("entities/{ID}?format=simplified&observedAt=2026-01-02T00:00:00Z&lang=fr");
    let patch = json!({"t": 3, "u": 4, "in": "urn:x:2", "name": "Nord", "kind": {"vocab": "b"}, "location": {"type": "Point", "coordinates": [3, 4]}, "new": "x"});
    city.with_body("PATCH", &path, patch).expect(204);
    let now = city.get(&format!("entities/{ID}")).json();
    // The time goes to what had one.
    assert_eq!(now["t"], json!({"type": "Property", "value": 3, "observedAt": "2026-01-02T00:00:00Z"}));
    assert_eq!(now["u"], json!({"type": "Property", "value": 4}));
    assert_eq!(now["in"], json!({"type": "Relationship", "object": "urn:x:2"}));
    assert_eq!(now["name"], json!({"type": "LanguageProperty", "languageMap": {"en": "North", "fr": "Nord"}}));
    assert_eq!(now["kind"], json!({"type": "VocabProperty", "vocab": "b"}));
    assert_eq!(now["location"]["value"]["coordinates"], json!([3, 4]));
    assert_eq!(now["new"], json!({"type": "Property", "value": "x"}));
    // Kinds stay.
    city.with_body("PATCH", &path, json!({"in": 5})).problem(400, "BadRequestData");
    city.with_body("PATCH", &path, json!({"location": "here"})).problem(400, "BadRequestData");
    city.with_body("PATCH", &format!("entities/{ID}?format=concise"), json!({"t": 1})).problem(400, "InvalidRequest");
}

#[test]
fn clause_5_6_18_replace_entity() {
    let city = City::start();
    city.has(station());
    let path = format!("entities/{ID}");
    let created = city.get(&format!("{path}?options=sysAttrs")).json();
    city.with_body("PUT", &path, json!({"id": ID, "type": "Lamp", "on": true})).expect(204);
    let now = city.get(&format!("{path}?options=sysAttrs")).json();
    assert_eq!((&now["type"], now.get("t"), &now["on"]["value"]), (&json!("Lamp"), None, &json!(true)));
    assert_eq!(now["createdAt"], created["createdAt"]);
    assert!(now["modifiedAt"].as_str() > created["modifiedAt"].as_str());
    city.with_body("PUT", &path, json!({"type": "Lamp", "on": "urn:ngsi-ld:null"})).problem(400, "BadRequestData");
    city.with_body("PUT", "entities/urn:x:none", json!({"type": "Lamp"})).problem(404, "ResourceNotFound");
    city.with_body("PUT", &format!("{path}?type=Station"), json!({"type": "Lamp"})).problem(404, "ResourceNotFound");
}

#[test]
fn clause_5_6_19_replace_attribute() {
    let city = City::start();
    city.has(station());
    let t = format!("entities/{ID}/attrs/t");
    let created = city.get(&format!("entities/{ID}?options=sysAttrs")).json();
    city.with_body("PUT", &t, json!({"type": "Property", "value": 5})).expect(204);
    let now = city.get(&format!("entities/{ID}?options=sysAttrs")).json();
    assert_eq!((&now["t"]["value"], now["t"].get("unitCode")), (&json!(5), None));
    assert_eq!(now["t"]["createdAt"], created["t"]["createdAt"]);
    city.with_body("PUT", &t, json!({"type": "Property", "value": 5, "datasetId": "urn:x:d"})).problem(404, "ResourceNotFound");
    city.with_body("PUT", &format!("entities/{ID}/attrs/u"), json!({"type": "Property", "value": 5})).problem(404, "ResourceNotFound");
    city.with_body("PUT", &format!("entities/{ID}/attrs/scope"), json!({"type": "Property", "value": "/a"})).problem(400, "BadRequestData");
    city.with_body("PUT", &t, json!("urn:ngsi-ld:null")).problem(400, "BadRequestData");
}

#[test]
fn clause_5_6_21_purge_entities() {
    let city = City::start();
    let at = |i: usize| json!({"id": format!("urn:x:{i}"), "type": if i < 3 { "Station" } else { "Lamp" }, "n": i, "m": 1});
    city.has((0..6).map(at).collect());
    for wide in ["entities", "entities?id=urn:x:1", "entities?idPattern=urn"] {
        city.delete(wide).problem(400, "BadRequestData");
    }
    city.delete("entities?type=Lamp&drop=m").expect(204);
    city.delete("entities?type=Station&keep=m&q=n>0").expect(204);
    let shown = city.get("entities?type=*&format=simplified").json();
    let members: Vec<String> = shown.as_array().unwrap().iter().map(|e| e.as_object().unwrap().keys().skip(2).cloned().collect()).collect();
    assert_eq!(members, ["nm", "m", "m", "n", "n", "n"]);
    city.delete("entities?type=Lamp&q=n==4|n==5").expect(204);
    assert_eq!(city.get("entities?type=*&pick=id").json().as_array().unwrap().len(), 4);
    city.delete("entities?type=Lamp&drop=a&keep=b").problem(400, "InvalidRequest");
    city.delete("entities?local=true").expect(204);
    assert_eq!(city.get("entities?type=*&count=true").header("ngsild-results-count"), ["0"]);
}

#[test]
fn clause_4_22_what_has_expired_is_not_shown() {
    let city = City::start();
    let soon = (city.app.node.now().plus_micros(400_000)).to_string();
    city.has(json!({"id": "urn:x:1", "type": "Lamp", "expiresAt": soon, "on": true}));
    city.has(json!({"id": "urn:x:2", "type": "Lamp", "on": {"type": "Property", "value": true, "expiresAt": soon}, "off": 1}));
    assert_eq!(city.get("entities/urn:x:1?options=sysAttrs").json()["expiresAt"], soon);
    assert!(city.get("entities/urn:x:1").json().get("expiresAt").is_none());
    crate::city::eventually("the entity has expired", || city.get("entities/urn:x:1").status == 404);
    assert_eq!(city.simplified("urn:x:2"), json!({"id": "urn:x:2", "type": "Lamp", "off": 1}));
    assert_eq!(city.get("entities?type=Lamp&format=simplified").json(), json!([{"id": "urn:x:2", "type": "Lamp", "off": 1}]));
    // It can be made anew, and what has expired is removed for good.
    city.post("entities", json!({"id": "urn:x:1", "type": "Lamp"})).expect(201);
    assert_eq!(city.get("entities?type=Lamp&q=on").json(), json!([]));
    let city = city.restarted();
    assert_eq!(city.get("entities?type=Lamp&pick=id").json(), json!([{"id": "urn:x:1"}, {"id": "urn:x:2"}]));
}
