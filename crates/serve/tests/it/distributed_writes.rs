//! Changes over sources: clauses 4.3.6, 4.3.6.8, 5.6 and 6.3.17.

use std::time::Duration;

use serde_json::{Value, json};

use crate::city::City;
use crate::distributed_reads::register;
use crate::source::{Says, Source};

const ID: &str = "urn:x:1";

/// Attribute `t` of room 1.
fn one() -> Value {
    json!([{"entities": [{"type": "Room", "id": ID}], "propertyNames": ["t"]}])
}

fn rooms() -> Value {
    json!([{"entities": [{"type": "Room"}]}])
}

fn writes() -> Value {
    json!({"operations": ["redirectionOps"]})
}

fn exclusive() -> Value {
    json!({"mode": "exclusive", "operations": ["redirectionOps"]})
}

fn local(city: &City) -> Option<Value> {
    let answer = city.get(&format!("entities/{ID}?local=true&format=simplified"));
    (answer.status == 200).then(|| answer.json())
}

/// A city whose room 1 has its attribute `t` at the other.
fn pair() -> (City, City) {
    let (a, b) = (City::start(), City::start());
    register(&a, 1, &b.url(""), one(), exclusive());
    (a, b)
}

#[test]
fn clause_5_6_1_4_create_takes_exclusive_parts_elsewhere() {
    let (a, b) = pair();
    let created = a.post("entities", json!({"id": ID, "type": "Room", "t": 1, "name": "n"})).expect(201);
    assert_eq!(created.header("location"), [format!("/ngsi-ld/v1/entities/{ID}")]);
    assert_eq!(local(&a), Some(json!({"id": ID, "type": "Room", "name": "n"})));
    assert_eq!(local(&b), Some(json!({"id": ID, "type": "Room", "t": 1})));
    assert_eq!(a.simplified(ID), json!({"id": ID, "type": "Room", "name": "n", "t": 1}));
    // Both know it already.
    a.post("entities", json!({"id": ID, "type": "Room", "t": 1, "name": "n"})).problem(409, "AlreadyExists");
    // Another entity is nobody else's.
    a.post("entities", json!({"id": "urn:x:2", "type": "Room", "t": 1})).expect(201);
    b.get("entities/urn:x:2").expect(404);
}

#[test]
fn clause_5_6_1_4_partial_success_is_a_207_with_the_registration() {
    let (a, b) = pair();
    b.has(json!({"id": ID, "type": "Room", "t": 5}));
    let result = a.post("entities", json!({"id": ID, "type": "Room", "t": 1, "name": "n"})).expect(207).json();
    assert_eq!(result["success"], json!([ID]));
    assert_eq!(result["errors"].as_array().unwrap().len(), 1);
    let error = &result["errors"][0];
    assert_eq!((&error["entityId"], &error["registrationId"]), (&json!(ID), &json!("urn:r:1")));
    assert_eq!(error["error"]["type"], "https://uri.etsi.org/ngsi-ld/errors/AlreadyExists");
    assert_eq!(local(&b).unwrap()["t"], 5);
}

#[test]
fn clause_4_20_operations_that_are_not_offered_conflict() {
    let (a, b) = (City::start(), City::start());
    register(&a, 1, &b.url(""), one(), json!({"mode": "exclusive"}));
    a.post("entities", json!({"id": ID, "type": "Room", "t": 1})).problem(409, "Conflict");
    let mixed = a.post("entities", json!({"id": ID, "type": "Room", "t": 1, "name": "n"})).expect(207).json();
    assert_eq!(mixed["errors"][0]["registrationId"], "urn:r:1");
    assert_eq!(local(&a), Some(json!({"id": ID, "type": "Room", "name": "n"})), "what is somebody else's is never kept here");
    let attributes = a.post(&format!("entities/{ID}/attrs"), json!({"t": 2, "name": "m"})).expect(207).json();
    let default = "https://uri.etsi.org/ngsi-ld/default-context/";
    assert_eq!(attributes["updated"], json!([format!("{default}name")]));
    assert_eq!(attributes["notUpdated"][0]["attributeName"], format!("{default}t"));
    assert_eq!(attributes["notUpdated"][0]["registrationId"], "urn:r:1");
    assert_eq!(local(&a).unwrap()["name"], "m");
    // An inclusive source that does not write is passed over in silence.
    register(&a, 2, &b.url(""), rooms(), json!({}));
    a.post("entities", json!({"id": "urn:x:2", "type": "Room", "t": 1})).expect(201);
    assert!(local(&b).is_none());
}

#[test]
fn clause_5_6_1_4_inclusive_sources_get_a_copy_and_redirects_all_of_it() {
    let (a, b, c, d) = (City::start(), City::start(), City::start(), City::start());
    register(&a, 1, &b.url(""), rooms(), writes());
    let room = json!({"id": ID, "type": "Room", "t": 1});
    a.post("entities", room.clone()).expect(201);
    assert_eq!((local(&a), local(&b)), (Some(room.clone()), Some(room)));
    let halls = json!([{"entities": [{"type": "Hall"}]}]);
    let redirect = json!({"mode": "redirect", "operations": ["redirectionOps"]});
    register(&a, 2, &c.url(""), halls.clone(), redirect.clone());
    register(&a, 3, &d.url(""), halls, redirect);
    let hall = json!({"id": "urn:x:h", "type": "Hall", "t": 1});
    a.post("entities", hall.clone()).expect(201);
    for city in [&c, &d] {
        assert_eq!(city.simplified("urn:x:h"), hall);
    }
    a.get("entities/urn:x:h?local=true").expect(404);
    assert_eq!(a.simplified("urn:x:h"), hall);
    a.delete("entities/urn:x:h").expect(204);
    c.get("entities/urn:x:h").expect(404);
    d.get("entities/urn:x:h").expect(404);
    a.delete("entities/urn:x:h").expect(404);
}

#[test]
fn clause_5_6_2_to_5_6_6_changes_reach_the_source() {
    let (a, b) = pair();
    a.post("entities", json!({"id": ID, "type": "Room", "t": {"type": "Property", "value": 1, "unitCode": "CEL"}, "name": "n"}))
        .expect(201);
    let path = format!("entities/{ID}");
    let check = |method: &str, path: &str, body: Value, want: Value| {
        a.with_body(method, path, body).expect(204);
        assert_eq!(b.get(&format!("entities/{ID}")).json()["t"], want, "{method} {path}");
        assert!(local(&a).is_none_or(|e| e.get("t").is_none()), "{method} {path}");
    };
    let t = |value: i64| json!({"type": "Property", "value": value});
    check("POST", &format!("{path}/attrs"), json!({"t": t(2), "name": "m"}), t(2));
    check(
        "PATCH",
        &format!("{path}/attrs"),
        json!({"t": {"type": "Property", "value": 3, "unitCode": "CEL"}}),
        json!({"type": "Property", "value": 3, "unitCode": "CEL"}),
    );
    check("PATCH", &path, json!({"t": {"value": 4}}), json!({"type": "Property", "value": 4, "unitCode": "CEL"}));
    check("PATCH", &format!("{path}?format=simplified"), json!({"t": 5}), json!({"type": "Property", "value": 5, "unitCode": "CEL"}));
    check("PATCH", &format!("{path}/attrs/t"), json!({"value": 6}), json!({"type": "Property", "value": 6, "unitCode": "CEL"}));
    check("PUT", &format!("{path}/attrs/t"), t(7), t(7));
    check("PUT", &path, json!({"id": ID, "type": "Room", "t": t(8), "name": "x"}), t(8));
    assert_eq!(local(&a), Some(json!({"id": ID, "type": "Room", "name": "x"})));
    // With noOverwrite what the source left is told with its registration.
    let left = a.post(&format!("{path}/attrs?options=noOverwrite"), json!({"t": 9})).expect(207).json();
    assert_eq!(left["notUpdated"][0]["registrationId"], "urn:r:1");
    a.delete(&format!("{path}/attrs/t")).expect(204);
    assert!(local(&b).unwrap().get("t").is_none());
    a.delete(&format!("{path}/attrs/t")).expect(404);
    a.delete(&path).expect(204);
    assert_eq!((local(&a), local(&b)), (None, None));
    a.delete(&path).expect(404);
}

#[test]
fn clause_6_3_17_failures_of_the_only_source_of_a_change() {
    let city = City::start();
    let slow = Source::saying(Says::nothing(204).after(Duration::from_secs(20)));
    let sources = [
        (slow, 504),
        (Source::saying(Says::nothing(404)), 404),
        (Source::saying(Says::json(403, json!({"detail": "no"}))), 502),
        (Source::saying(Says::nothing(508)), 508),
    ];
    for (n, (source, status)) in sources.iter().enumerate() {
        let information = json!([{"entities": [{"type": "Room", "id": format!("urn:x:{n}")}], "propertyNames": ["t"]}]);
        let how = json!({"mode": "exclusive", "operations": ["redirectionOps"], "management": {"timeout": 200}});
        register(&city, n, &source.url, information, how);
        city.post(&format!("entities/urn:x:{n}/attrs"), json!({"t": 1})).expect(*status);
        city.delete(&format!("entities/urn:x:{n}/attrs/t")).expect(*status);
    }
    // A change that has been here before is not made again.
    let alias = city.get("info/sourceIdentity").json()["contextSourceAlias"].as_str().unwrap().to_owned();
    let via = format!("1.1 {alias}");
    let headers = [("via", via.as_str()), ("content-type", "application/json")];
    city.send("POST", "entities", &headers, Some(&json!({"id": "urn:x:new", "type": "Room"}).to_string())).expect(508);
}

#[test]
fn clause_4_3_6_8_payloads_are_downgraded_for_old_sources() {
    let source = Source::saying(Says::nothing(201));
    let city = City::start();
    register(
        &city,
        1,
        &source.url,
        rooms(),
        json!({
            "operations": ["createEntity"], "contextSourceInfo": [{"key": "ngsildConformance", "value": "1.6"}, {"key": "contentType", "value": "application/ld+json"}],
        }),
    );
    city.post(
        "entities",
        json!({
            "id": ID, "type": "Room", "expiresAt": "2099-01-01T00:00:00Z", "v": {"type": "VocabProperty", "vocab": "x"},
            "l": {"type": "ListProperty", "valueList": [1]},
        }),
    )
    .expect(201);
    let got = source.received().pop().unwrap();
    assert_eq!((got.method.as_str(), got.target.as_str()), ("POST", "/ngsi-ld/v1/entities"));
    assert_eq!(got.header("content-type"), ["application/ld+json"]);
    assert_eq!(got.header("link"), [""; 0]);
    let body = got.json();
    assert!(body["@context"].as_str().unwrap().contains("ngsi-ld-core-context"));
    assert_eq!((body.get("expiresAt"), &body["l"]), (None, &json!({"type": "Property", "value": [1]})));
    assert_eq!(body["v"]["type"], "Property");
    assert!(body.get("createdAt").is_none() && body["l"].get("modifiedAt").is_none());
}

#[test]
fn clause_5_6_7_4_batches_over_sources() {
    for operations in
        [json!(["redirectionOps"]), json!(["createBatch", "upsertBatch", "updateBatch", "mergeBatch", "deleteBatch", "retrieveOps"])]
    {
        let (a, b, c) = (City::start(), City::start(), City::start());
        register(&a, 1, &b.url(""), one(), json!({"mode": "exclusive", "operations": operations}));
        register(&a, 2, &c.url(""), rooms(), json!({"operations": operations}));
        let room = |id: &str, t: i64| json!({"id": id, "type": "Room", "t": t, "name": "n"});
        let made =
            a.post("entityOperations/create", json!([room(ID, 1), room("urn:x:2", 2), {"id": "urn:x:3", "type": "Car"}])).expect(201);
        let mut ids: Vec<String> = made.json().as_array().unwrap().iter().map(|i| i.as_str().unwrap().to_owned()).collect();
        ids.sort();
        assert_eq!(ids, [ID, "urn:x:2", "urn:x:3"]);
        assert_eq!(local(&a), Some(json!({"id": ID, "type": "Room", "name": "n"})));
        assert_eq!(local(&b), Some(json!({"id": ID, "type": "Room", "t": 1})));
        assert_eq!(local(&c), Some(json!({"id": ID, "type": "Room", "name": "n"})), "without what is exclusively another's");
        assert_eq!(c.simplified("urn:x:2"), room("urn:x:2", 2));
        c.get("entities/urn:x:3").expect(404);
        // Already there: told for each source and for here.
        let again = a.post("entityOperations/create", json!([room(ID, 1), room("urn:x:4", 1)])).expect(207).json();
        assert_eq!(again["success"], json!(["urn:x:4"]));
        let mut by: Vec<Value> = again["errors"].as_array().unwrap().iter().map(|e| e["registrationId"].clone()).collect();
        by.sort_by_key(Value::to_string);
        assert_eq!(by, [json!("urn:r:1"), json!("urn:r:2"), Value::Null]);
        let t = |city: &City, id: &str| city.get(&format!("entities/{id}?local=true&format=simplified")).json()["t"].clone();
        a.post("entityOperations/upsert", json!([room(ID, 5), room("urn:x:2", 6)])).expect(204);
        assert_eq!((t(&b, ID), t(&c, "urn:x:2"), t(&a, "urn:x:2")), (json!(5), json!(6), json!(6)));
        a.post("entityOperations/update", json!([{"id": ID, "type": "Room", "t": 7}, {"id": "urn:x:2", "type": "Room", "t": 8}]))
            .expect(204);
        assert_eq!((t(&b, ID), t(&c, "urn:x:2"), t(&a, "urn:x:2"), t(&a, ID)), (json!(7), json!(8), json!(8), Value::Null));
        a.post("entityOperations/merge", json!([{"id": ID, "type": "Room", "t": 9}])).expect(204);
        assert_eq!(t(&b, ID), 9);
        a.post("entityOperations/delete", json!([ID, "urn:x:2", "urn:x:3"])).expect(204);
        for city in [&a, &b, &c] {
            assert_eq!(local(city), None);
            city.get("entities/urn:x:2?local=true").expect(404);
        }
        a.post("entityOperations/delete", json!([ID])).expect(207);
    }
}

#[test]
fn clause_5_6_8_4_proxied_parts_that_nobody_takes_conflict() {
    let (a, b) = (City::start(), City::start());
    register(&a, 1, &b.url(""), one(), json!({"mode": "exclusive"}));
    let body = json!([{"id": ID, "type": "Room", "t": 1, "name": "n"}, {"id": "urn:x:2", "type": "Room", "t": 1}]);
    let done = a.post("entityOperations/upsert", body).expect(207).json();
    assert_eq!(done["success"], json!(["urn:x:2"]));
    assert_eq!(done["errors"][0]["registrationId"], "urn:r:1");
    assert_eq!(done["errors"][0]["error"]["type"], "https://uri.etsi.org/ngsi-ld/errors/Conflict");
    assert_eq!(local(&a), Some(json!({"id": ID, "type": "Room", "name": "n"})));
}
