//! How the past is shown: clauses 4.5.6 to 4.5.9, 4.15, 4.18, 4.21, 5.7.3 and 6.3.11.

use serde_json::{Value, json};

use crate::city::{Answer, City};

const ID: &str = "urn:ngsi-ld:Station:1";
const SOON: &str = "timerel=before&timeAt=2100-01-01T00:00:00Z";

fn at(hour: u32) -> String {
    format!("2024-01-01T{hour:02}:00:00Z")
}

fn property(value: Value, hour: u32) -> Value {
    json!({"type": "Property", "value": value, "observedAt": at(hour)})
}

fn past(city: &City, rest: &str) -> Answer {
    city.get(&format!("temporal/entities/{ID}?{rest}"))
}

fn query(city: &City, rest: &str) -> Value {
    city.get(&format!("temporal/entities?type=Station&{rest}")).expect(200).json()
}

fn keys(entity: &Value) -> Vec<&str> {
    entity.as_object().unwrap().keys().map(String::as_str).collect()
}

fn now(city: &City) -> String {
    city.app.node.now().to_string()
}

#[test]
fn clause_5_7_3_retrieve_temporal_evolution() {
    let city = City::start();
    city.post(
        "temporal/entities",
        json!({"id": ID, "type": "Station", "t": [property(json!(1), 1), property(json!(2), 2)], "u": property(json!(9), 1)}),
    )
    .expect(201);
    let all = past(&city, "").expect(200).json();
    assert_eq!(keys(&all), ["id", "type", "t", "u"]);
    assert_eq!(all["t"].as_array().unwrap().len(), 2);
    assert_eq!(past(&city, "attrs=t").expect(200).json()["u"], Value::Null);
    let late = past(&city, &format!("timerel=after&timeAt={}", at(3))).expect(200).json();
    assert_eq!(late, json!({"id": ID, "type": "Station"}), "nothing of it was true then");
    city.get("temporal/entities/urn:x:none").problem(404, "ResourceNotFound");
    city.get("temporal/entities/none").problem(400, "BadRequestData");
    past(&city, "timerel=after").problem(400, "BadRequestData");
    past(&city, &format!("timeAt={}", at(3))).problem(400, "BadRequestData");
    past(&city, &format!("timerel=between&timeAt={}", at(3))).problem(400, "BadRequestData");
    past(&city, &format!("timerel=after&timeAt={}&endTimeAt={}", at(1), at(2))).problem(400, "BadRequestData");
    past(&city, "timerel=sometime&timeAt=2024-01-01T00:00:00Z").problem(400, "BadRequestData");
    past(&city, "timerel=after&timeAt=yesterday").problem(400, "BadRequestData");
    past(&city, "timeproperty=never").problem(400, "BadRequestData");
    past(&city, "pick=t{u}").problem(400, "BadRequestData");
    past(&city, "format=simplified").problem(400, "InvalidRequest");
    past(&city, "join=inline").problem(400, "InvalidRequest");
    city.send("GET", &format!("temporal/entities/{ID}"), &[("accept", "application/geo+json")], None).problem(406, "InvalidRequest");
}

#[test]
fn clause_4_11_last_n_is_of_each_series() {
    let city = City::start();
    let other = |value: i32, hour| json!({"type": "Property", "value": value, "observedAt": at(hour), "datasetId": "urn:d:1"});
    let list = json!([property(json!(1), 1), other(2, 2), property(json!(3), 3), property(json!(4), 4), other(0, 0)]);
    city.post("temporal/entities", json!({"id": ID, "type": "Station", "t": list})).expect(201);
    let check = |city: &City| {
        let values = |rest: &str| -> Vec<Value> {
            let found = past(city, rest).expect(200).json();
            found["t"].as_array().unwrap().iter().map(|i| i["value"].clone()).collect()
        };
        assert_eq!(values("lastN=2"), [4, 3, 2, 0], "the newest first, two of each datasetId");
        assert_eq!(values("lastN=1&datasetId=urn:d:1"), [2]);
        assert_eq!(values("lastN=1&datasetId=@none"), [4]);
        assert_eq!(values(&format!("lastN=2&timerel=before&timeAt={}", at(4))), [3, 2, 1, 0]);
    };
    check(&city);
    check(&city.restarted());
}

#[test]
fn clause_4_5_9_temporal_values_and_projection_in_queries() {
    let city = City::start();
    let text = |en: &str, hour| json!({"type": "LanguageProperty", "languageMap": {"en": en, "fr": "x"}, "observedAt": at(hour)});
    let mut second = property(json!(5), 2);
    second["datasetId"] = "urn:d:1".into();
    let made = json!({"id": ID, "type": "Station", "t": [property(json!(1), 1), second], "name": [text("a", 1), text("b", 2)]});
    city.post("temporal/entities", made).expect(201);
    let first = |rest: &str| query(&city, &format!("{SOON}&{rest}"))[0].clone();
    let shown = first("options=temporalValues");
    assert_eq!(shown["t"][0], json!({"type": "Property", "values": [[1, at(1)]]}));
    assert_eq!(shown["t"][1], json!({"type": "Property", "datasetId": "urn:d:1", "values": [[5, at(2)]]}));
    assert_eq!(
        shown["name"],
        json!({"type": "LanguageProperty", "languageMaps": [[{"languageMap": {"en": "a", "fr": "x"}}, at(1)], [{"languageMap": {"en": "b", "fr": "x"}}, at(2)]]})
    );
    // With a language filter a text is a Property (clause 4.15).
    assert_eq!(first("format=temporalValues&lang=en")["name"], json!({"type": "Property", "values": [["a", at(1)], ["b", at(2)]]}));
    let normalized = first("lang=en")["name"][0].clone();
    assert_eq!((&normalized["type"], &normalized["value"], &normalized["lang"]), (&json!("Property"), &json!("a"), &json!("en")));
    assert_eq!(keys(&first("pick=id,t")), ["id", "t"]);
    assert_eq!(keys(&first("omit=t,type")), ["id", "name"]);
    assert_eq!(keys(&first("attrs=t")), ["id", "type", "t"]);
    assert_eq!(keys(&first("pick=id,nothing")), ["id"], "projection selects no entities");
    assert_eq!(
        first("datasetId=urn:d:1&format=temporalValues")["t"],
        json!({"type": "Property", "datasetId": "urn:d:1", "values": [[5, at(2)]]})
    );
    assert_eq!(keys(&first("datasetId=urn:d:1")), ["id", "type", "t"], "an attribute without such instances is left out");
    assert!(shown["createdAt"].is_null());
    let times = first("options=sysAttrs");
    assert!(times["createdAt"].is_string() && times["modifiedAt"].is_string() && times["t"][0]["createdAt"].is_string(), "{times}");
    let in_document = city.send("GET", &format!("temporal/entities?type=Station&{SOON}"), &[("accept", "application/ld+json")], None);
    assert!(in_document.expect(200).json()[0].get("@context").is_some());
}

#[test]
fn clause_4_18_scope_over_time() {
    let city = City::start();
    let scoped = |scope: Value, value: i32| json!({"id": ID, "type": "Station", "scope": scope, "t": {"type": "Property", "value": value}});
    let before = now(&city);
    city.has(scoped(json!("/A"), 1));
    let in_a = now(&city);
    city.post("entityOperations/upsert", json!([scoped(json!(["/B", "/C"]), 2)])).expect(204);
    let in_b = now(&city);
    city.post("entityOperations/upsert", json!([{"id": ID, "type": "Station", "t": {"type": "Property", "value": 3}}])).expect(204);
    let check = |city: &City| {
        let shown = past(city, "options=sysAttrs").expect(200).json()["scope"].clone();
        let list = shown.as_array().unwrap();
        assert_eq!(list.iter().map(|s| s["value"].clone()).collect::<Vec<_>>(), [json!("/A"), json!(["/B", "/C"])]);
        assert!(list.iter().all(|s| s["type"] == "Property" && s["observedAt"] == s["modifiedAt"]), "{shown}");
        assert_eq!(list[1]["createdAt"], list[0]["modifiedAt"]);
        assert!(list[0]["deletedAt"].is_null() && list[1]["deletedAt"].is_string(), "{shown}");
        let pairs = past(city, "format=temporalValues").expect(200).json()["scope"]["values"].clone();
        assert_eq!(pairs, json!([["/A", list[0]["observedAt"]], [["/B", "/C"], list[1]["observedAt"]]]));
        assert_eq!(past(city, "omit=scope").expect(200).json()["scope"], Value::Null);
        // Only values of the time in which it was in the scope are returned.
        let of = |scope: &str, from: &str| {
            let rest = format!("scopeQ={scope}&timeproperty=modifiedAt&timerel=after&timeAt={from}");
            let found = query(city, &rest);
            found.get(0).map(|e| e["t"].as_array().unwrap().iter().map(|i| i["value"].clone()).collect::<Vec<_>>())
        };
        assert_eq!(of("/A", &before), Some(vec![json!(1)]));
        assert_eq!(of("/B", &before), Some(vec![json!(2)]));
        assert_eq!(of("(/B;/C)", &before), Some(vec![json!(2)]));
        assert_eq!(of("(/A;/B)", &before), None, "never at the same time");
        assert_eq!(of("/A,/B", &before), Some(vec![json!(1), json!(2)]));
        assert_eq!(of("/%23", &before), Some(vec![json!(1), json!(2)]), "now it is in none");
        assert_eq!(of("/C", &in_a), Some(vec![json!(2)]));
        assert_eq!(of("/A", &in_b), None);
        // A scope that was set before the interval counts as long as it is valid; but no value was recorded in that time.
        assert_eq!(of("/A", &in_a), None);
    };
    check(&city);
    check(&city.restarted());
}

#[test]
fn clause_5_7_4_what_is_gone_is_found_in_the_past() {
    let city = City::start();
    city.post(
        "temporal/entities",
        json!({"id": ID, "type": ["Station", "Sensor"], "t": [property(json!(1), 1)], "u": property(json!(2), 2)}),
    )
    .expect(201);
    city.has(json!({"id": "urn:ngsi-ld:Station:2", "type": "Station", "t": property(json!(5), 1)}));
    let before = now(&city);
    city.delete(&format!("entities/{ID}/attrs/u")).expect(204);
    city.delete(&format!("entities/{ID}")).expect(204);
    city.get(&format!("entities/{ID}")).problem(404, "ResourceNotFound");
    let check = |city: &City| {
        let found = query(city, &format!("{SOON}&q=t==1"));
        assert_eq!(found[0]["id"], ID);
        assert_eq!(found[0]["type"], json!(["Station", "Sensor"]), "the types that it had");
        assert_eq!(found[0]["t"][0]["value"], 1);
        // Of an entity with several types the values are in the table of one; it is found by each.
        let by_other = city.get(&format!("temporal/entities?type=Sensor&{SOON}")).expect(200).json();
        assert_eq!(by_other.as_array().unwrap().len(), 1);
        assert_eq!(by_other[0]["id"], ID);
        // Ends are shown with the other times that the system gives, and can be asked for.
        let with_ends = query(city, &format!("timeproperty=modifiedAt&timerel=after&timeAt={before}&options=sysAttrs&id={ID}"));
        assert_eq!(with_ends, json!([]), "nothing was recorded then but ends");
        let ends = query(city, &format!("timeproperty=deletedAt&timerel=after&timeAt={before}"));
        assert_eq!(ends.as_array().unwrap().len(), 1, "{ends}");
        assert!(ends[0]["deletedAt"].is_string() && ends[0]["u"][0]["deletedAt"].is_string(), "{ends}");
        assert_eq!(ends[0]["u"][0]["value"], "urn:ngsi-ld:null");
        assert!(ends[0]["t"].is_null(), "{ends}");
        let of_u = |name: &str| query(city, &format!("timeproperty=deletedAt&timerel=after&timeAt={before}&attrs={name}"));
        assert_eq!(of_u("u").as_array().unwrap().len(), 1);
        assert_eq!(of_u("t"), json!([]));
        assert_eq!(query(city, &format!("timeproperty=deletedAt&timerel=before&timeAt={before}")), json!([]));
        let other =
            city.get(&format!("temporal/entities?type=Sensor&timeproperty=deletedAt&timerel=after&timeAt={before}")).expect(200).json();
        assert_eq!(other[0]["id"], ID);
        let all = query(city, &format!("{SOON}&options=sysAttrs"));
        assert!(all[0]["deletedAt"].is_null(), "an end has no observed time");
        let past = past(city, "options=sysAttrs").expect(200).json();
        assert!(past["deletedAt"].is_string() && past["u"][1]["deletedAt"].is_string(), "{past}");
    };
    check(&city);
    check(&city.restarted());
}
