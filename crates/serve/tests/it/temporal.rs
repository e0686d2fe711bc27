//! What was true: clauses 5.6.11 to 5.6.16, 5.7.3, 5.7.4, 4.5.6 to 4.5.9, 4.5.19 and 4.11.

use serde_json::{Value, json};

use crate::city::{Answer, City};

const A: &str = "urn:ngsi-ld:Station:a";
const B: &str = "urn:ngsi-ld:Station:b";

/// 1 January 2024, some minutes after midnight.
fn at(minute: u32) -> String {
    format!("2024-01-01T{:02}:{:02}:00Z", minute / 60, minute % 60)
}

/// Instances of a Property, each with the minute at which it was observed.
fn series(values: &[(f64, u32)]) -> Value {
    values.iter().map(|(v, minute)| json!({"type": "Property", "value": v, "observedAt": at(*minute)})).collect()
}

/// Two stations with values at minutes 10 to 30.
fn two_stations(city: &City) {
    let place = |lon: f64| json!([{"type": "GeoProperty", "value": {"type": "Point", "coordinates": [lon, 31.0]}, "observedAt": at(10)}]);
    let a = json!({"id": A, "type": "Station", "t": series(&[(1.0, 10), (2.0, 20), (3.0, 30)]), "h": series(&[(50.0, 20)]), "location": place(121.0)});
    let b = json!({"id": B, "type": "Station", "t": series(&[(7.0, 20), (8.0, 30)]), "location": place(122.0)});
    city.post("temporal/entities", a).expect(201);
    city.post("temporal/entities", b).expect(201);
}

fn between(from: u32, to: u32) -> String {
    format!("timerel=between&timeAt={}&endTimeAt={}", at(from), at(to))
}

fn query(city: &City, rest: &str) -> Answer {
    city.get(&format!("temporal/entities?{rest}"))
}

fn ids(answer: &Answer) -> Vec<String> {
    answer.json().as_array().unwrap().iter().map(|e| e["id"].as_str().unwrap().to_owned()).collect()
}

/// The values of an attribute in the order of the answer.
fn values(entity: &Value, name: &str) -> Vec<Value> {
    entity[name].as_array().into_iter().flatten().map(|i| i["value"].clone()).collect()
}

fn floats(list: &[f64]) -> Vec<Value> {
    list.iter().map(|v| json!(v)).collect()
}

#[test]
fn clause_5_7_4_query_temporal_entities() {
    let city = City::start();
    two_stations(&city);
    let all = query(&city, &format!("type=Station&{}", between(0, 60))).expect(200);
    assert_eq!(ids(&all), [A, B]);
    assert_eq!(values(&all.json()[0], "t"), floats(&[1.0, 2.0, 3.0]));
    let first = &all.json()[0]["t"][0];
    assert_eq!((&first["type"], &first["observedAt"]), (&json!("Property"), &json!(at(10))));
    assert!(first["instanceId"].as_str().unwrap().starts_with("urn:ngsi-ld:instance:"), "{first}");
    // An entity without an instance in the interval is left out, and so are attributes.
    let early = query(&city, &format!("type=Station&{}", between(0, 15))).expect(200);
    assert_eq!(ids(&early), [A, B], "both have a location then");
    let early = query(&city, &format!("type=Station&attrs=t&{}", between(0, 15))).expect(200);
    assert_eq!(ids(&early), [A]);
    assert_eq!(early.json()[0].as_object().unwrap().keys().collect::<Vec<_>>(), ["id", "type", "t"]);
    assert!(ids(&query(&city, &format!("type=Station&{}", between(40, 50))).expect(200)).is_empty());
    assert!(ids(&query(&city, &format!("type=Other&{}", between(0, 60))).expect(200)).is_empty());
    assert_eq!(ids(&query(&city, &format!("type=Station&id={B}&{}", between(0, 60))).expect(200)), [B]);
    assert_eq!(ids(&query(&city, &format!("type=Station&idPattern=b$&{}", between(0, 60))).expect(200)), [B]);
    assert_eq!(ids(&query(&city, &format!("attrs=h&{}", between(0, 60))).expect(200)), [A]);
    assert_eq!(ids(&query(&city, &format!("local=true&{}", between(0, 60))).expect(200)), [A, B]);
}

#[test]
fn clause_5_7_4_a_temporal_query_is_mandatory_and_a_question_not_too_wide() {
    let city = City::start();
    query(&city, "type=Station").problem(400, "BadRequestData");
    query(&city, &between(0, 60)).problem(400, "BadRequestData");
    query(&city, &format!("id={A}&{}", between(0, 60))).problem(400, "BadRequestData");
    query(&city, &format!("type=Station&timerel=between&timeAt={}", at(0))).problem(400, "BadRequestData");
    query(&city, &format!("type=Station&timeAt={}", at(0))).problem(400, "BadRequestData");
    query(&city, &format!("type=Station&pick=a{{b}}&{}", between(0, 60))).problem(400, "BadRequestData");
    city.post("temporal/entityOperations/query", json!({"type": "Query", "entities": [{"type": "Station"}]}))
        .problem(400, "BadRequestData");
    let path = format!("temporal/entities?type=Station&{}", between(0, 60));
    city.send("GET", &path, &[("accept", "application/geo+json")], None).problem(406, "InvalidRequest");
}

#[test]
fn clause_5_7_4_conditions_are_tried_on_the_instances_in_the_interval() {
    let city = City::start();
    two_stations(&city);
    let of = |q: &str, from, to| ids(&query(&city, &format!("type=Station&q={q}&{}", between(from, to))).expect(200));
    assert_eq!(of("t%3E2", 0, 60), [A, B]);
    assert_eq!(of("t%3E2", 0, 30), [B], "3 was observed at 30, which is not in the interval");
    assert_eq!(of("t==1;h==50", 0, 60), [A], "each may be satisfied by another instance");
    assert!(of("t==1;h==50", 15, 60).is_empty());
    assert_eq!(of("h", 0, 60), [A]);
    // What is returned is all of the interval, not only what satisfies the condition.
    let found = query(&city, &format!("type=Station&q=t==1&{}", between(0, 60))).expect(200);
    assert_eq!(values(&found.json()[0], "t"), floats(&[1.0, 2.0, 3.0]));
    let near = |from, to| {
        let geo = "georel=near;maxDistance==1000&geometry=Point&coordinates=[121,31]";
        ids(&query(&city, &format!("type=Station&{geo}&{}", between(from, to))).expect(200))
    };
    assert_eq!(near(0, 60), [A]);
    assert!(near(15, 60).is_empty(), "no place was observed then");
}

#[test]
fn clause_4_11_temporal_relations_and_time_properties() {
    let city = City::start();
    two_stations(&city);
    let of = |time: &str| {
        let answer = query(&city, &format!("type=Station&attrs=t&id={A}&{time}")).expect(200).json();
        answer.get(0).map_or_else(Vec::new, |e| values(e, "t"))
    };
    assert_eq!(of(&format!("timerel=before&timeAt={}", at(20))), floats(&[1.0]));
    assert_eq!(of(&format!("timerel=after&timeAt={}", at(20))), floats(&[2.0, 3.0]));
    assert_eq!(of(&between(10, 30)), floats(&[1.0, 2.0]));
    assert_eq!(of(&format!("{}&lastN=2", between(0, 60))), floats(&[3.0, 2.0]), "the newest first");
    assert!(of(&format!("timeproperty=modifiedAt&{}", between(0, 60))).is_empty(), "nothing was recorded then");
    for property in ["modifiedAt", "createdAt"] {
        assert_eq!(of(&format!("timeproperty={property}&timerel=after&timeAt={}", at(0))), floats(&[1.0, 2.0, 3.0]), "{property}");
    }
    let shown = query(&city, &format!("type=Station&timeproperty=modifiedAt&timerel=after&timeAt={}", at(0))).expect(200).json();
    assert!(shown[0]["t"][0]["modifiedAt"].is_string(), "{shown}");
}
