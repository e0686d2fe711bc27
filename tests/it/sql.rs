//! SQL with plain psql.

use serde_json::json;

use crate::support::{Node, has};

#[test]
fn psql_sees_a_table_per_type_and_may_not_change_anything() {
    if !has("psql") {
        return;
    }
    let node = Node::start();
    let stations: Vec<_> = (0..5)
        .map(|i| json!({"id": format!("urn:ngsi-ld:AirQualityObserved:s:{i}"), "type": "AirQualityObserved", "pm25": {"type": "Property", "value": i * 20, "unitCode": "GQ", "observedAt": "2014-01-01T00:00:00Z"}}))
        .collect();
    node.post("/ngsi-ld/v1/entityOperations/create", &json!(stations)).expect(201);
    assert_eq!(node.psql("select count(*) from \"AirQualityObserved\" where pm25 > 40").unwrap(), "2");
    assert_eq!(node.psql("select sum(pm25) from \"AirQualityObserved_history\"").unwrap(), "200");
    assert!(node.psql("\\dt").unwrap().contains("AirQualityObserved"));
    assert!(
        node.psql("select count(*) from AirQualityObserved").unwrap_err().contains("\"AirQualityObserved\""),
        "the quoted name is suggested"
    );
    for statement in [
        "delete from \"AirQualityObserved\"",
        "create table t (a int)",
        "copy \"AirQualityObserved\" to '/tmp/x.csv'",
        "select * from '/etc/passwd'",
        "create external table t stored as csv location '/etc/passwd'",
    ] {
        assert!(node.psql(statement).is_err(), "{statement} must be refused");
    }
    assert_eq!(node.psql("select 1").unwrap(), "1", "the server goes on");
}

#[test]
fn without_the_password_nobody_gets_in() {
    if !has("psql") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_in(dir.path(), &[]);
    let port = node.sql.rsplit(':').next().unwrap().to_owned();
    let with = |password: &str| {
        let output = std::process::Command::new("psql")
            .env("PGPASSWORD", password)
            .args(["-U", "conurb", "-d", "conurb", "-h", "127.0.0.1", "-p", &port, "-w", "-X", "-At", "-c", "select 1"])
            .output()
            .unwrap();
        output.status.success()
    };
    assert!(!with("guess"));
    assert!(with(std::fs::read_to_string(dir.path().join("admin.token")).unwrap().trim()));
}
