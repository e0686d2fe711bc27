//! Rubbish: each gets a readable error, and the node goes on.

use serde_json::{Value, json};

use crate::support::{Answer, Node, request};

const JSON: (&str, &str) = ("content-type", "application/json");

/// An NGSI-LD ProblemDetails of this status whose detail names the matter.
#[track_caller]
fn problem(answer: Answer, status: u16, kind: &str, mentions: &str) {
    let body: Value = answer.problem(status, kind).json();
    assert!(body["detail"].as_str().unwrap().contains(mentions), "`{mentions}` is not in {body}");
}

#[test]
fn every_kind_of_rubbish_gets_a_readable_problem_and_the_node_goes_on() {
    let node = Node::start();
    let post = |body: &str| node.send("POST", "/ngsi-ld/v1/entities", &[JSON], Some(body));
    problem(post("{broken"), 400, "InvalidRequest", "line 1");
    problem(post("[]"), 400, "BadRequestData", "array");
    problem(post("{}"), 400, "BadRequestData", "id");
    problem(post(r#"{"id":"no uri","type":"T"}"#), 400, "BadRequestData", "no uri");
    problem(post(r#"{"id":"urn:a:b"}"#), 400, "BadRequestData", "type");
    problem(post(r#"{"id":"urn:a:b","type":"T","a":{"type":"Property"}}"#), 400, "BadRequestData", "a");
    problem(post(r#"{"id":"urn:a:b","type":"T","a":{"type":"Property","value":null}}"#), 400, "BadRequestData", "null");
    problem(post(r#"{"id":"urn:a:b","type":"T","a":{"type":"Relationship","object":"not a uri"}}"#), 400, "BadRequestData", "not a uri");
    problem(
        post(r#"{"id":"urn:a:b","type":"T","location":{"type":"GeoProperty","value":{"type":"Point","coordinates":[181,0]}}}"#),
        400,
        "BadRequestData",
        "longitude",
    );
    problem(
        post(r#"{"id":"urn:a:b","type":"T","a":{"type":"Property","value":1,"observedAt":"2014-02-30T00:00:00Z"}}"#),
        400,
        "BadRequestData",
        "2014-02-30",
    );
    problem(
        post(r#"{"id":"urn:a:b","type":"T","a":{"type":"Property","value":1,"observedAt":"yesterday"}}"#),
        400,
        "BadRequestData",
        "yesterday",
    );
    problem(post(r#"{"@context":"https://example.org/c","id":"urn:a:b","type":"T"}"#), 400, "BadRequestData", "@context");
    let ld = ("content-type", "application/ld+json");
    let unknown_context = r#"{"@context":"http://127.0.0.1:9/none.jsonld","id":"urn:a:b","type":"T"}"#;
    problem(node.send("POST", "/ngsi-ld/v1/entities", &[ld], Some(unknown_context)), 504, "LdContextNotAvailable", "127.0.0.1:9");
    assert_eq!(node.send("POST", "/ngsi-ld/v1/entities", &[("content-type", "text/plain")], Some("x")).expect(415).body, "");
    problem(node.send("GET", "/ngsi-ld/v1/entities?type=T", &[("accept", "text/html")], None), 406, "InvalidRequest", "application/json");
    problem(node.get("/ngsi-ld/v1/entities"), 400, "BadRequestData", "too wide");
    problem(node.get("/ngsi-ld/v1/entities?type=T&q=a%3E%3E1"), 400, "BadRequestData", "q");
    problem(node.get("/ngsi-ld/v1/entities?type=T&limit=1000000"), 400, "BadRequestData", "limit");
    problem(node.get("/ngsi-ld/v1/entities?typo=T"), 400, "InvalidRequest", "type");
    problem(node.get("/ngsi-ld/v1/entities?type=T&georel=near&geometry=Point&coordinates=%5B1,2%5D"), 400, "BadRequestData", "georel");
    problem(node.send("GET", "/ngsi-ld/v1/entities?type=T", &[("ngsild-tenant", "nobody")], None), 404, "NonexistentTenant", "nobody");
    problem(node.send("PATCH", "/ngsi-ld/v1/entities", &[JSON], Some("{}")), 405, "OperationNotSupported", "PATCH");
    problem(node.get("/ngsi-ld/v1/nothing"), 404, "ResourceNotFound", "nothing");
    problem(node.get("/ngsi-ld/v1/entities/nonsense"), 400, "BadRequestData", "nonsense");
    problem(
        node.get("/ngsi-ld/v1/temporal/entities/urn:a:b?timerel=between&timeAt=2014-01-01T00:00:00Z"),
        400,
        "BadRequestData",
        "endTimeAt",
    );
    let deep = format!(r#"{{"id":"urn:a:b","type":"T","a":{}1{}}}"#, r#"{"type":"Property","value":1,"s":"#.repeat(40), "}".repeat(40));
    problem(post(&deep), 400, "BadRequestData", "deep");
    let large = format!(r#"{{"id":"urn:a:b","type":"T","a":"{}"}}"#, "x".repeat(17 << 20));
    problem(post(&large), 413, "TooManyResults", "larger than the limit");

    assert_eq!(
        node.get("/ngsi-ld/v1/entities?type=T&limit=0&count=true").expect(200).header("ngsild-results-count"),
        ["0"],
        "nothing is half written"
    );
    node.post("/ngsi-ld/v1/entities", &json!({"id": "urn:a:b", "type": "T", "a": 1})).expect(201);
}

#[test]
fn without_a_token_nothing_is_shown_and_with_it_everything() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_in(dir.path(), &[]);
    problem(node.get("/ngsi-ld/v1/entities?type=T"), 401, "AccessDenied", "token");
    problem(node.send("GET", "/ngsi-ld/v1/entities?type=T", &[("authorization", "Bearer guess")], None), 401, "AccessDenied", "not valid");
    assert_eq!(node.get("/healthz").expect(200).body, "ok\n");
    let token = std::fs::read_to_string(dir.path().join("admin.token")).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    let answer = node.send("GET", "/ngsi-ld/v1/entities?type=T", &[("authorization", &bearer)], None).expect(200);
    assert_eq!(answer.json(), json!([]));
}

#[test]
fn in_development_mode_a_foreign_page_cannot_use_the_node() {
    let node = Node::start();
    let foreign = [JSON, ("origin", "https://evil.example")];
    problem(
        request("POST", &node.url("/ngsi-ld/v1/entities"), &foreign, Some(r#"{"id":"urn:a:b","type":"T"}"#)),
        403,
        "AccessDenied",
        "evil.example",
    );
}

#[test]
fn a_full_disk_is_told_nothing_is_half_written_and_room_helps() {
    // A small file system of its own; only root can make one.
    let dir = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(dir.path()).status();
    if !mounted.is_ok_and(|s| s.success()) {
        crate::support::skip("a small file system cannot be mounted here");
        return;
    }
    let unmount = Unmount(dir.path().to_owned());
    let node = Node::start_in(&dir.path().join("node"), &["--dev"]);
    let filler = dir.path().join("filler");
    let entity = |i: u32| json!({"id": format!("urn:a:b:{i}"), "type": "T", "a": "x".repeat(200_000)});
    std::fs::write(&filler, vec![0; 12 << 20]).unwrap();
    let mut n_kept = 0;
    let refused = loop {
        let answer = node.post("/ngsi-ld/v1/entities", &entity(n_kept));
        if answer.status != 201 {
            break answer;
        }
        n_kept += 1;
        assert!(n_kept < 1000, "the disk never filled");
    };
    problem(refused, 507, "ServiceUnavailable", "the disk is full");
    assert_eq!(node.get("/readyz").status, 503);
    node.get(&format!("/ngsi-ld/v1/entities/urn:a:b:{n_kept}")).expect(404);
    node.get("/ngsi-ld/v1/entities/urn:a:b:0").expect(200);
    std::fs::remove_file(filler).unwrap();
    node.post("/ngsi-ld/v1/entities", &entity(n_kept)).expect(201);
    node.get("/readyz").expect(200);
    drop(node);
    drop(unmount);
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
