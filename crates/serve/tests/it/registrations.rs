//! Registrations of context sources: clauses 4.3.6, 5.9, 5.10.1, 5.10.2, 5.12 and 5.15.

use serde_json::{Value, json};

use crate::city::{City, eventually};

const REG: &str = "urn:ngsi-ld:ContextSourceRegistration:1";

/// A registration of `Room`s.
fn rooms() -> Value {
    json!({
        "id": REG, "type": "ContextSourceRegistration", "endpoint": "http://127.0.0.1:9",
        "information": [{"entities": [{"type": "Room"}], "propertyNames": ["temperature"]}],
    })
}

fn with(more: Value) -> Value {
    let mut all = rooms();
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

fn ids(found: &Value) -> Vec<&str> {
    found.as_array().unwrap().iter().map(|r| r["id"].as_str().unwrap()).collect()
}

/// A date-time so far from now.
fn in_ms(ms: i64) -> String {
    use host::Clock;
    entity::Instant::from_micros(host::SystemClock.now_micros() + ms * 1_000).to_string()
}

#[test]
fn clause_5_9_2_register_context_source() {
    let city = City::start();
    // Nobody answers at the endpoint: that is no reason to refuse it.
    let created = city.post("csourceRegistrations", rooms()).expect(201);
    assert_eq!(created.header("location"), [format!("/ngsi-ld/v1/csourceRegistrations/{REG}")]);
    city.post("csourceRegistrations", rooms()).problem(409, "AlreadyExists");
    let mut unnamed = rooms();
    unnamed.as_object_mut().unwrap().remove("id");
    let location = city.post("csourceRegistrations/", unnamed).expect(201).header("location")[0].to_owned();
    city.get(&location).expect(200);
    for wrong in [
        json!({"type": "Registration"}),
        json!({"id": "no uri"}),
        json!({"information": []}),
        json!({"expiresAt": "2020-01-01T00:00:00Z"}),
        json!({"endpoint": "ftp://a.example"}),
        json!({"operations": ["everything"]}),
    ] {
        let mut wrong = with(wrong);
        if wrong["id"] == REG {
            wrong["id"] = "urn:ngsi-ld:ContextSourceRegistration:2".into();
        }
        city.post("csourceRegistrations", wrong).problem(400, "BadRequestData");
    }
    city.send("POST", "csourceRegistrations", &[("content-type", "application/json")], Some("{")).problem(400, "InvalidRequest");
}

#[test]
fn clause_5_10_1_retrieve_registration_survives_a_restart() {
    let city = City::start();
    city.post("csourceRegistrations", with(json!({"owner": "north", "contextSourceAlias": "north:1"}))).expect(201);
    let path = format!("csourceRegistrations/{REG}");
    let before = city.get(&path).expect(200).json();
    assert_eq!(before["owner"], "north");
    assert_eq!(before["information"], rooms()["information"]);
    assert!(before.get("createdAt").is_none() && before.get("timesSent").is_none());
    let city = city.restarted();
    assert_eq!(city.get(&path).expect(200).json(), before);
    assert!(city.get(&format!("{path}?options=sysAttrs")).expect(200).json()["createdAt"].is_string());
    let ld = city.send("GET", &path, &[("accept", "application/ld+json")], None).expect(200).json();
    assert!(ld["@context"].is_string() || ld["@context"].is_array());
    city.get("csourceRegistrations/urn:x:none").problem(404, "ResourceNotFound");
    city.get("csourceRegistrations/none").problem(400, "BadRequestData");
}

#[test]
fn clause_5_9_3_update_registration() {
    let city = City::start();
    city.post("csourceRegistrations", with(json!({"tenant": "t", "management": {"timeout": 10, "cooldown": 20}}))).expect(201);
    let path = format!("csourceRegistrations/{REG}");
    let patch = |body: Value| city.with_body("PATCH", &path, body);
    patch(json!({"registrationName": "rooms", "tenant": "urn:ngsi-ld:null", "management": {"timeout": 30}, "timesSent": 7})).expect(204);
    let now = city.get(&path).expect(200).json();
    assert_eq!((now["registrationName"].as_str(), now.get("tenant")), (Some("rooms"), None));
    assert_eq!(now["management"], json!({"timeout": 30}), "a member is replaced as a whole");
    assert!(now.get("timesSent").is_none(), "what only the node may say is passed over");
    patch(json!({"id": "urn:x:other"})).problem(400, "BadRequestData");
    patch(json!({"endpoint": null})).problem(400, "BadRequestData");
    patch(json!({"expiresAt": "2020-01-01T00:00:00Z"})).problem(400, "BadRequestData");
    city.with_body("PATCH", "csourceRegistrations/urn:x:none", json!({})).problem(404, "ResourceNotFound");
    // What was refused changed nothing.
    assert_eq!(city.get(&path).expect(200).json(), now);
}

#[test]
fn clause_5_9_4_delete_registration() {
    let city = City::start();
    city.post("csourceRegistrations", rooms()).expect(201);
    let path = format!("csourceRegistrations/{REG}");
    city.delete(&path).expect(204);
    city.get(&path).problem(404, "ResourceNotFound");
    city.delete(&path).problem(404, "ResourceNotFound");
    city.delete("csourceRegistrations/none").problem(400, "BadRequestData");
    city.restarted().get(&path).problem(404, "ResourceNotFound");
}

#[test]
fn clause_5_2_9_expired_registrations_are_gone() {
    let city = City::start();
    city.post("csourceRegistrations", with(json!({"expiresAt": in_ms(400)}))).expect(201);
    let path = format!("csourceRegistrations/{REG}");
    city.get(&path).expect(200);
    eventually("it expires", || city.get(&path).status == 404);
    assert_eq!(city.get("csourceRegistrations?type=Room").expect(200).json(), json!([]));
    eventually("it is removed", || !city.app.node.has_registrations());
    city.post("csourceRegistrations", rooms()).expect(201);
}

#[test]
fn clause_5_9_2_4_proxied_registrations_exclude_others_and_own_data() {
    let city = City::start();
    let of = |n: usize, mode: &str, id: &str, attribute: &str| {
        json!({
            "id": format!("urn:r:{n}"), "type": "ContextSourceRegistration", "endpoint": "http://127.0.0.1:9", "mode": mode,
            "information": [{"entities": [{"type": "Room", "id": id}], "propertyNames": [attribute]}],
        })
    };
    city.has(json!({"id": "urn:x:own", "type": "Room", "temperature": 1}));
    city.post("csourceRegistrations", of(1, "exclusive", "urn:x:own", "temperature")).problem(409, "Conflict");
    city.post("csourceRegistrations", of(1, "redirect", "urn:x:own", "temperature")).problem(409, "Conflict");
    city.post("csourceRegistrations", of(1, "exclusive", "urn:x:own", "humidity")).expect(201);
    city.post("csourceRegistrations", of(2, "exclusive", "urn:x:a", "temperature")).expect(201);
    city.post("csourceRegistrations", of(3, "exclusive", "urn:x:a", "temperature")).problem(409, "Conflict");
    city.post("csourceRegistrations", of(3, "redirect", "urn:x:a", "temperature")).problem(409, "Conflict");
    city.post("csourceRegistrations", of(3, "inclusive", "urn:x:a", "temperature")).expect(201);
    city.post("csourceRegistrations", of(4, "redirect", "urn:x:b", "temperature")).expect(201);
    city.post("csourceRegistrations", of(5, "redirect", "urn:x:b", "temperature")).expect(201);
    city.post("csourceRegistrations", of(6, "exclusive", "urn:x:b", "temperature")).problem(409, "Conflict");
    // An update keeps the same rules, and is no clash with itself.
    city.with_body("PATCH", "csourceRegistrations/urn:r:3", json!({"mode": "exclusive"})).problem(409, "Conflict");
    city.with_body("PATCH", "csourceRegistrations/urn:r:2", json!({"description": "same"})).expect(204);
    // By type alone, or without attributes, nothing is exclusive.
    let mut by_type = of(7, "exclusive", "urn:x:c", "temperature");
    by_type["information"] = json!([{"entities": [{"type": "Room"}], "propertyNames": ["temperature"]}]);
    city.post("csourceRegistrations", by_type).problem(400, "BadRequestData");
    city.post("csourceRegistrations", of(7, "auxiliary", "urn:x:a", "temperature")).problem(400, "BadRequestData");
    let mut auxiliary = of(7, "auxiliary", "urn:x:a", "temperature");
    auxiliary["operations"] = json!(["retrieveOps"]);
    city.post("csourceRegistrations", auxiliary).expect(201);
}

#[test]
fn clause_5_10_2_query_registrations() {
    let city = City::start();
    let of = |n: usize, information: Value, more: Value| {
        let mut all = json!({
            "id": format!("urn:r:{n}"), "type": "ContextSourceRegistration", "endpoint": "http://127.0.0.1:9", "information": information,
        });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        city.post("csourceRegistrations", all).expect(201);
    };
    let area = json!({"type": "Polygon", "coordinates": [[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]]});
    of(1, json!([{"entities": [{"type": "Room"}]}, {"entities": [{"type": "Car"}]}]), json!({"location": area, "owner": "north"}));
    of(
        2,
        json!([{"entities": [{"type": "Room", "id": "urn:x:2"}], "propertyNames": ["t"], "relationshipNames": ["in"]}]),
        json!({"scope": "/A"}),
    );
    of(3, json!([{"propertyNames": ["h"]}]), json!({}));
    of(
        4,
        json!([{"entities": [{"type": "Room"}]}]),
        json!({"observationInterval": {"startAt": "2026-01-01T00:00:00Z", "endAt": "2026-02-01T00:00:00Z"}}),
    );
    let found = |parameters: &str| city.get(&format!("csourceRegistrations?{parameters}")).expect(200).json();
    let check = |parameters: &str, want: &[&str]| assert_eq!(ids(&found(parameters)), want, "{parameters}");
    check("type=Room", &["urn:r:1", "urn:r:2", "urn:r:3"]);
    check("type=Car", &["urn:r:1", "urn:r:3"]);
    check("type=Bus", &["urn:r:3"]);
    check("type=Room&attrs=t", &["urn:r:1", "urn:r:2"]);
    check("type=Room&q=in==%22urn:x:9%22", &["urn:r:1", "urn:r:2"]);
    check("type=Room&id=urn:x:3", &["urn:r:1", "urn:r:3"]);
    check("type=Room&idPattern=2$", &["urn:r:1", "urn:r:2", "urn:r:3"]);
    check("attrs=h", &["urn:r:1", "urn:r:3"]);
    check("type=Room&georel=near;maxDistance==1000&geometry=Point&coordinates=[0.5,0.5]", &["urn:r:1"]);
    check("type=Room&georel=within&geometry=Point&coordinates=[5,5]", &[]);
    check("type=Room&scopeQ=/A", &["urn:r:2"]);
    check("type=Room&csf=owner==%22north%22", &["urn:r:1"]);
    check("type=Room&timerel=after&timeAt=2026-01-15T00:00:00Z", &["urn:r:4"]);
    check("type=Room&timerel=before&timeAt=2025-01-15T00:00:00Z", &[]);
    check("type=Room&timerel=between&timeAt=2025-01-15T00:00:00Z&endTimeAt=2025-12-31T00:00:00Z", &[]);
    check("type=Room&timerel=after&timeAt=2026-01-15T00:00:00Z&timeproperty=modifiedAt", &[]);
    // Only the parts that match are shown.
    assert_eq!(found("type=Car")[0]["information"], json!([{"entities": [{"type": "Car"}]}]));
    let page = city.get("csourceRegistrations?type=Room&limit=1&offset=1&count=true").expect(200);
    assert_eq!(ids(&page.json()), ["urn:r:2"]);
    assert_eq!(page.header("ngsild-results-count"), ["3"]);
    assert_eq!(page.header("link").iter().filter(|l| l.contains("rel=\"next\"") || l.contains("rel=\"prev\"")).count(), 2);
    city.get("csourceRegistrations").problem(400, "BadRequestData");
    city.get("csourceRegistrations?id=urn:x:1").problem(400, "BadRequestData");
    city.get("csourceRegistrations?type=Room&csf=a=").problem(400, "BadRequestData");
    city.get("csourceRegistrations?type=Room&join=flat").problem(400, "InvalidRequest");
}

#[test]
fn clause_5_15_source_identity() {
    let (a, b) = (City::start(), City::start());
    let identity = a.get("info/sourceIdentity").expect(200).json();
    assert_eq!(identity["type"], "ContextSourceIdentity");
    assert!(identity["id"].as_str().unwrap().starts_with("urn:"));
    for member in ["contextSourceUptime", "contextSourceTimeAt"] {
        assert!(identity[member].is_string(), "{identity}");
    }
    let alias = |identity: &Value| identity["contextSourceAlias"].as_str().unwrap().to_owned();
    assert_ne!(alias(&identity), alias(&b.get("info/sourceIdentity").expect(200).json()));
}
