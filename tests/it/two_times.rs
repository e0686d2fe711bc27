//! What was true when, and what was known when: questions as of an earlier time, corrections, removals, versions.

use serde_json::{Value, json};

use crate::support::Node;

const ID: &str = "urn:ngsi-ld:Station:1";

fn entity() -> String {
    format!("/ngsi-ld/v1/entities/{ID}")
}

fn temporal(more: &str) -> String {
    format!("/ngsi-ld/v1/temporal/entities/{ID}{more}")
}

fn level(value: u32, hour: u32) -> Value {
    json!({"type": "Property", "value": value, "observedAt": format!("2026-03-01T0{hour}:00:00Z")})
}

/// When the entity was changed last.
fn modified_at(node: &Node) -> String {
    node.get(&format!("{}?options=sysAttrs", entity())).expect(200).json()["modifiedAt"].as_str().unwrap().to_owned()
}

fn upsert(node: &Node, entity: Value, options: &str) {
    let answer = node.post(&format!("/ngsi-ld/v1/entityOperations/upsert{options}"), &json!([entity]));
    assert!(answer.status < 300, "{}", answer.body);
}

/// Types, scopes, attributes and existence as of each change; over HTTP and SQL, before and after a stop that seals the history.
#[test]
fn an_entity_is_what_it_was_with_its_types_and_scopes() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start_in(dir.path(), &["--dev"]);
    let property = |value: u32| json!({"type": "Property", "value": value});
    upsert(&node, json!({"id": ID, "type": "Station", "scope": "/north", "level": property(1), "owner": property(7)}), "");
    let first = modified_at(&node);
    // A type more, another scope.
    node.post(&format!("{}/attrs", entity()), &json!({"type": "Asset", "scope": "/south"})).expect(204);
    let second = modified_at(&node);
    node.send("DELETE", &format!("{}/attrs/owner", entity()), &[], None).expect(204);
    let third = modified_at(&node);
    // Another first type: the values are in another table from here on.
    let mast = json!({"id": ID, "type": "Mast", "level": property(2)}).to_string();
    node.send("PUT", &entity(), &[("content-type", "application/json")], Some(&mast)).expect(204);
    let fourth = modified_at(&node);
    node.send("DELETE", &entity(), &[], None).expect(204);

    for _ in 0..2 {
        let then = |at: &str| node.get(&format!("{}?asOf={at}", entity())).expect(200).json();
        assert_eq!((&then(&first)["type"], &then(&first)["scope"]), (&json!("Station"), &json!("/north")));
        assert_eq!((&then(&second)["type"], &then(&second)["scope"]), (&json!(["Station", "Asset"]), &json!("/south")));
        assert_eq!((&then(&second)["owner"]["value"], then(&third).get("owner")), (&json!(7), None));
        assert_eq!((&then(&fourth)["type"], then(&fourth).get("scope")), (&json!("Mast"), None));
        node.get(&entity()).expect(404);
        let found = |query: &str, at: &str| {
            let answer = node.get(&format!("/ngsi-ld/v1/entities?{query}&asOf={at}")).expect(200).json();
            answer.as_array().unwrap().len()
        };
        assert_eq!([&first, &second, &third, &fourth].map(|at| found("type=Station", at)), [1, 1, 1, 0]);
        assert_eq!([&first, &second, &third, &fourth].map(|at| found("type=Asset", at)), [0, 1, 1, 0]);
        assert_eq!([&first, &second, &fourth].map(|at| found("type=Station,Mast&scopeQ=/north", at)), [1, 0, 0]);

        let rows = |table: &str, columns: &str, at: &str| {
            node.psql(&format!("select {columns} from latest_as_of('{table}', '{at}') where id = '{ID}'")).unwrap()
        };
        assert_eq!(rows("Station", "level, owner, types, scopes", &first), r#"1|7|["Station"]|["/north"]"#);
        assert_eq!(rows("Station", "level, owner is null, types", &third), r#"1|t|["Station","Asset"]"#);
        assert_eq!((rows("Station", "id", &fourth), rows("Mast", "level", &fourth)), (String::new(), "2".to_owned()));
        let refused = node.psql("select count(*) from latest_as_of('Mast', '2999-01-01T00:00:00Z')").unwrap_err();
        assert!(refused.contains("is in the future"), "{refused}");
        node.terminate();
        node = Node::start_in(dir.path(), &["--dev"]);
    }
}

/// A corrected value and its former value can both be seen, and that something was removed.
#[test]
fn a_correction_and_a_removal_are_visible_as_such() {
    let node = Node::start();
    upsert(&node, json!({"id": ID, "type": "Station", "level": level(1, 1), "flow": level(5, 1)}), "");
    let before = modified_at(&node);
    upsert(&node, json!({"id": ID, "type": "Station", "level": level(2, 1)}), "?options=update");
    upsert(&node, json!({"id": ID, "type": "Station", "level": level(3, 2)}), "?options=update");

    let instances = |more: &str| node.get(&temporal(more)).expect(200).json()["level"].as_array().cloned().unwrap_or_default();
    let values = |more: &str| instances(more).iter().map(|i| i["value"].clone()).collect::<Vec<_>>();
    assert_eq!(values(""), [2, 3]);
    assert_eq!(values(&format!("?asOf={before}")), [1]);
    let corrected = &instances("?options=sysAttrs")[0];
    assert_eq!((&corrected["createdAt"], &corrected["value"]), (&json!(before), &json!(2)));
    assert!(corrected["modifiedAt"].as_str().unwrap() > before.as_str(), "{corrected}");
    let path = format!("/api/v1/versions/{ID}?attr=level&observedAt=2026-03-01T01:00:00Z");
    let versions = node.get(&path).expect(200).json();
    let list: Vec<_> = versions["level"].as_array().unwrap().iter().map(|i| (i["value"].clone(), i["modifiedAt"].clone())).collect();
    assert_eq!(list, [(json!(2), corrected["modifiedAt"].clone()), (json!(1), json!(before))], "{versions}");
    for (query, status, wanted) in [
        ("attr=level&observedAt=2026-03-01T07:00:00Z", 404, "has no attribute"),
        ("attr=level", 400, "parameter observedAt is needed"),
        ("attr=level&observedAt=now", 400, "parameter observedAt"),
        ("attr=level&at=now", 400, "unknown parameter `at`"),
    ] {
        let refused = node.get(&format!("/api/v1/versions/{ID}?{query}")).expect(status);
        assert!(refused.body.contains(wanted), "{query}: {}", refused.body);
    }

    // Removals, with the times that the system gives, and by themselves.
    node.send("DELETE", &format!("{}/attrs/flow", entity()), &[], None).expect(204);
    let removed_at = modified_at(&node);
    assert_eq!(node.get(&temporal("")).expect(200).json()["flow"].as_array().unwrap().len(), 1, "only values");
    let shown = node.get(&temporal("?options=sysAttrs")).expect(200).json();
    let marker = json!({"type": "Property", "value": "urn:ngsi-ld:null", "deletedAt": removed_at});
    assert_eq!(shown["flow"][1], marker, "{shown}");
    let ends = node.get(&temporal("?timeproperty=deletedAt&timerel=after&timeAt=2026-01-01T00:00:00Z")).expect(200).json();
    assert_eq!((&ends["flow"], ends.get("level"), ends.get("deletedAt")), (&json!([marker]), None, None), "{ends}");
    let none = node.get(&temporal("?timeproperty=deletedAt&timerel=before&timeAt=2026-01-01T00:00:00Z")).expect(200).json();
    assert_eq!(none.get("flow"), None, "{none}");
    let simple = node.get(&temporal("?timeproperty=deletedAt&format=temporalValues")).expect(200).json();
    assert_eq!(simple["flow"]["values"], json!([["urn:ngsi-ld:null", removed_at]]), "{simple}");
    node.get(&temporal("?timeproperty=deletedAt&format=aggregatedValues&aggrMethods=max")).expect(400);

    node.send("DELETE", &entity(), &[], None).expect(204);
    let gone = node.get(&temporal("?options=sysAttrs")).expect(200).json();
    assert!(gone["deletedAt"].as_str().unwrap() > removed_at.as_str(), "{gone}");
    let then = node.get(&temporal(&format!("?options=sysAttrs&asOf={removed_at}"))).expect(200).json();
    assert_eq!(then.get("deletedAt"), None, "{then}");

    // What is gone is exported as history.
    let lines = node.get("/api/v1/export/Station?format=jsonl").expect(200).body;
    assert_eq!(lines.lines().count(), 2, "{lines}");
    let csv = node.get("/api/v1/export/Station").expect(200).body;
    assert_eq!(csv.lines().count(), 3, "{csv}");
    node.get("/api/v1/export/Station?what=latest").expect(404);
}

/// Of two who have read the same version one changes it; the other one is told.
#[test]
fn a_change_can_be_for_the_version_that_was_read() {
    let node = Node::start();
    upsert(&node, json!({"id": ID, "type": "Station", "level": 1}), "");
    let tag = || node.get(&format!("{}?format=keyValues", entity())).expect(200).header("etag")[0].to_owned();
    let seen = tag();
    assert_eq!(seen, tag(), "it does not change by itself");
    let append = |value: u32, tags: &str| {
        let headers = [("content-type", "application/json"), ("if-match", tags)];
        node.send("POST", &format!("{}/attrs", entity()), &headers, Some(&json!({"level": value}).to_string()))
    };
    append(2, &seen).expect(204);
    let refused = append(3, &seen).expect(412).json();
    assert!(refused["detail"].as_str().unwrap().contains("somebody else has changed it"), "{refused}");
    assert_eq!(refused["type"], "https://uri.etsi.org/ngsi-ld/errors/PreconditionFailed");
    append(4, &format!("\"other\", {seen}, {}", tag())).expect(204);
    append(5, "*").expect(204);
    append(6, &format!("W/{}", tag())).expect(412);
    append(7, "level").expect(400);
    let body = json!({"id": ID, "type": "Station", "level": 8}).to_string();
    let put = |tags: &str| node.send("PUT", &entity(), &[("content-type", "application/json"), ("if-match", tags)], Some(&body)).status;
    assert_eq!((put(&seen), put(&tag())), (412, 204));
    let delete = |path: &str, tags: &str| node.send("DELETE", path, &[("if-match", tags)], None).status;
    assert_eq!((delete(&format!("{}/attrs/level", entity()), &seen), delete(&entity(), &seen)), (412, 412));
    assert_eq!(delete(&entity(), &tag()), 204);
    assert_eq!((delete(&entity(), "*"), delete(&entity(), &seen)), (412, 412));
}

/// The past of what is of another type now.
#[test]
fn periods_are_found_under_the_type_that_the_entity_had() {
    let node = Node::start();
    let station = json!([{"id": ID, "type": "Station", "level": {"type": "Property", "value": 4.5, "observedAt": "2026-03-01T00:30:00Z"}}]);
    assert!(node.post("/ngsi-ld/v1/entityOperations/upsert", &station).status < 300);
    let mast = json!([{"id": ID, "type": "Mast", "height": {"type": "Property", "value": 30}}]);
    assert!(node.post("/ngsi-ld/v1/entityOperations/upsert", &mast).status < 300);
    let asked = |name: &str| {
        let how = "aggrMethods=avg&aggrPeriodDuration=PT1H&options=aggregatedValues&timerel=between&timeAt=2026-03-01T00:00:00Z&endTimeAt=2026-03-02T00:00:00Z";
        node.get(&format!("/ngsi-ld/v1/temporal/entities/{ID}?attrs={name}&{how}")).expect(200).json()
    };
    let level = asked("level");
    assert_eq!(level["level"]["avg"], json!([[4.5, "2026-03-01T00:00:00Z", "2026-03-01T01:00:00Z"]]), "{level}");
    assert_eq!(asked("nothing").get("nothing"), None);
    node.get("/ngsi-ld/v1/temporal/entities/urn:x:none?attrs=level&aggrMethods=avg&options=aggregatedValues").expect(404);
}
