//! Snapshots: clauses 4.3.7, 5.5.15 and 5.16.

use serde_json::{Value, json};

use crate::city::{Answer, City, eventually};
use crate::receiver::Receiver;

const HEADER: &str = "ngsild-snapshot";

fn in_snapshot(city: &City, snapshot: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
    let body = body.map(|b| b.to_string());
    let mut headers = vec![(HEADER, snapshot)];
    if body.is_some() {
        headers.push(("content-type", "application/json"));
    }
    city.send(method, path, &headers, body.as_deref())
}

/// Makes a snapshot and waits until it is filled.
#[track_caller]
fn snapshot(city: &City, members: Value) -> Value {
    let mut body = json!({"type": "Snapshot"});
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    let location = city.post("snapshots", body).expect(201).header("location")[0].to_owned();
    filled(city, &location)
}

fn filled(city: &City, path: &str) -> Value {
    eventually("the snapshot is filled", || city.get(path).json()["snapshotStatus"] != "preparing");
    city.get(path).expect(200).json()
}

fn lamps(city: &City, watts: i64) {
    let body = json!([
        {"id": "urn:x:1", "type": "Lamp", "watts": {"value": watts, "observedAt": format!("2026-01-01T00:00:{watts:02}Z")}, "on": true},
        {"id": "urn:x:2", "type": "Post", "height": 5},
    ]);
    city.post("entityOperations/upsert", body);
}

#[test]
fn clause_5_16_1_a_snapshot_keeps_what_was_found() {
    let city = City::start();
    lamps(&city, 1);
    let made = snapshot(
        &city,
        json!({"id": "urn:x:snap", "snapshotQueries": [{"type": "Query", "entities": [{"type": "Lamp"}], "attrs": ["watts"]}, {"type": "Query", "entities": [{"type": "Nothing"}]}]}),
    );
    // Of two queries one found nothing.
    assert_eq!(made["snapshotStatus"], "partial");
    assert_eq!(made["snapshotQueriesDetails"], json!([{"resultStatus": "success"}, {"resultStatus": "empty"}]));
    assert_eq!((&made["snapshotPriority"], made["snapshotQueries"].as_array().unwrap().len()), (&json!(5), 2));
    lamps(&city, 2);
    let kept = in_snapshot(&city, "urn:x:snap", "GET", "entities/urn:x:1?format=simplified", None).expect(200);
    assert_eq!((kept.json(), kept.header(HEADER)), (json!({"id": "urn:x:1", "type": "Lamp", "watts": 1}), vec!["urn:x:snap"]));
    // It is a city of its own: everything is local, and it can be changed.
    assert_eq!(
        in_snapshot(&city, "urn:x:snap", "GET", "entities?idPattern=.*&local=false&pick=id", None).expect(200).json(),
        json!([{"id": "urn:x:1"}])
    );
    in_snapshot(&city, "urn:x:snap", "PATCH", "entities/urn:x:1/attrs", Some(json!({"watts": 9}))).expect(204);
    assert_eq!(city.simplified("urn:x:1")["watts"], 2);
    let city = city.restarted();
    assert_eq!(in_snapshot(&city, "urn:x:snap", "GET", "entities/urn:x:1?format=simplified", None).expect(200).json()["watts"], 9);
    in_snapshot(&city, "urn:x:none", "GET", "entities/urn:x:1", None).problem(404, "ResourceNotFound");
    city.post(
        "snapshots",
        json!({"type": "Snapshot", "id": "urn:x:snap", "snapshotQueries": [{"type": "Query", "entities": [{"type": "Lamp"}]}]}),
    )
    .problem(409, "AlreadyExists");
}

#[test]
fn clause_5_16_1_temporal_queries_bring_the_past() {
    let city = City::start();
    for watts in 1..4 {
        lamps(&city, watts);
    }
    let temporal = json!({"timerel": "before", "timeAt": "2026-01-01T00:00:03Z"});
    let made = snapshot(
        &city,
        json!({"id": "urn:x:snap", "snapshotTemporalQueries": [{"type": "Query", "entities": [{"type": "Lamp"}], "temporalQ": temporal}]}),
    );
    assert_eq!(
        (&made["snapshotStatus"], &made["snapshotTemporalQueriesDetails"]),
        (&json!("success"), &json!([{"resultStatus": "success"}]))
    );
    let path = "temporal/entities/urn:x:1?attrs=watts&format=temporalValues";
    let shown = in_snapshot(&city, "urn:x:snap", "GET", path, None).expect(200).json();
    assert_eq!(shown["watts"]["values"], json!([[1, "2026-01-01T00:00:01Z"], [2, "2026-01-01T00:00:02Z"]]));
}

#[test]
fn clause_5_16_1_status_says_what_became_of_the_queries() {
    let city = City::start();
    let query = |entity_type: &str| json!({"type": "Query", "entities": [{"type": entity_type}]});
    assert_eq!(snapshot(&city, json!({"snapshotQueries": [query("Lamp")]}))["snapshotStatus"], "empty");
    for (what, body) in [
        ("no query", json!({"type": "Snapshot"})),
        ("another type", json!({"type": "Query", "snapshotQueries": [query("Lamp")]})),
        ("a wrong query", json!({"type": "Snapshot", "snapshotQueries": [{"type": "Query", "q": "((", "entities": [{"type": "Lamp"}]}]})),
        ("no interval", json!({"type": "Snapshot", "snapshotTemporalQueries": [query("Lamp")]})),
        ("a priority", json!({"type": "Snapshot", "snapshotPriority": 11, "snapshotQueries": [query("Lamp")]})),
        ("a lifetime", json!({"type": "Snapshot", "snapshotLifetime": "1h", "snapshotQueries": [query("Lamp")]})),
        ("a member", json!({"type": "Snapshot", "priority": 1, "snapshotQueries": [query("Lamp")]})),
    ] {
        let answer = city.post("snapshots", body);
        assert_eq!(answer.status, 400, "{what}: {}", answer.body);
    }
}

#[test]
fn clause_5_16_2_to_5_16_7_snapshots_are_cloned_changed_and_deleted() {
    let city = City::start();
    lamps(&city, 1);
    let queries = json!([{"type": "Query", "entities": [{"type": "Lamp"}]}]);
    snapshot(&city, json!({"id": "urn:x:a", "snapshotQueries": queries}));
    lamps(&city, 2);
    city.post("snapshots/urn:x:a/clone", json!({"type": "Snapshot", "id": "urn:x:b", "snapshotPriority": 2})).expect(201);
    assert_eq!(filled(&city, "snapshots/urn:x:b")["snapshotStatus"], "success");
    assert_eq!(in_snapshot(&city, "urn:x:b", "GET", "entities/urn:x:1?format=simplified", None).expect(200).json()["watts"], 1);
    city.post("snapshots/urn:x:a/clone", json!({"type": "Snapshot", "snapshotQueries": queries})).problem(400, "BadRequestData");
    city.post("snapshots/urn:x:none/clone", json!({"type": "Snapshot"})).problem(404, "ResourceNotFound");
    let changed = city
        .with_body("PATCH", "snapshots/urn:x:a", json!({"snapshotPriority": 9, "snapshotLifetime": "PT1H", "snapshotQueries": []}))
        .expect(200)
        .json();
    assert_eq!((&changed["snapshotPriority"], &changed["snapshotQueries"]), (&json!(9), &queries));
    city.with_body("PATCH", "snapshots/urn:x:a", json!({"snapshotPriority": 0})).problem(400, "BadRequestData");
    city.delete("snapshots").problem(400, "BadRequestData");
    city.delete("snapshots?q=snapshotPriority<5").expect(204);
    city.get("snapshots/urn:x:b").problem(404, "ResourceNotFound");
    city.delete("snapshots?q=snapshotPriority<5").problem(404, "ResourceNotFound");
    city.delete("snapshots/urn:x:a").expect(204);
    city.delete("snapshots/urn:x:a").problem(404, "ResourceNotFound");
    assert_eq!(city.restarted().get("snapshots/urn:x:a").status, 404);
}

#[test]
fn clause_5_16_6_the_endpoint_of_a_snapshot_is_told() {
    let city = City::start();
    lamps(&city, 1);
    let receiver = Receiver::start();
    let members = json!({"endpoint": receiver.url(), "receiverInfo": [{"key": "x-test", "value": "yes"}], "snapshotLifetime": "PT1S",
        "snapshotQueries": [{"type": "Query", "entities": [{"type": "Lamp"}]}]});
    let made = snapshot(&city, members);
    eventually("the endpoint is told", || !receiver.received().is_empty());
    let told = receiver.received().remove(0);
    let body = &told.body;
    assert_eq!(
        (&body["type"], &body["snapshotId"], &body["snapshotStatus"]),
        (&json!("SnapshotNotification"), &made["id"], &json!("success"))
    );
    assert_eq!(told.header("x-test"), ["yes"]);
    // Its time is over soon, and that is told, too.
    eventually("the snapshot has expired", || city.get(&format!("snapshots/{}", made["id"].as_str().unwrap())).status == 404);
    eventually("that is told", || receiver.received().len() == 2);
    let gone = receiver.received().remove(1).body;
    assert!(gone["expiresAt"].as_str() < gone["notifiedAt"].as_str(), "{gone}");
}
