//! Three cities that know each other by key: A gives a part of its data to B and nothing to C.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use host::Stopwatch;
use serde_json::{Value, json};

use crate::support::{Node, key_of, write};

/// Free ports, found by the system: peers must know each other's addresses before they start.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [std::net::TcpListener; N] = std::array::from_fn(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|l| l.local_addr().unwrap().port())
}

struct Cluster {
    dir: tempfile::TempDir,
    ports: [u16; 3],
    keys: [String; 3],
}

const CITIES: [&str; 3] = ["beijing", "shanghai", "guangzhou"];

impl Cluster {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keys = CITIES.map(|c| key_of(&dir.path().join(c)));
        let cluster = Self { dir, ports: free_ports(), keys };
        for i in 0..3 {
            cluster.write_config(i, &cluster.keys.clone());
        }
        cluster
    }

    /// The configuration of city `i`, which believes that the others have these keys.
    fn write_config(&self, i: usize, keys: &[String; 3]) {
        let mut text = format!("city = \"{}\"\ndev = true\npeer_probe_seconds = 1\n", CITIES[i]);
        for j in (0..3).filter(|j| *j != i) {
            text.push_str(&format!(
                "[[peers]]\ncity = \"{}\"\nurl = \"http://127.0.0.1:{}\"\nkey = \"{}\"\n",
                CITIES[j], self.ports[j], keys[j]
            ));
        }
        write(&self.data(i).join("conurb.toml"), &text);
    }

    fn data(&self, i: usize) -> std::path::PathBuf {
        self.dir.path().join(CITIES[i])
    }

    fn start(&self, i: usize) -> Node {
        let http = format!("127.0.0.1:{}", self.ports[i]);
        Node::start_in(&self.data(i), &["--http", &http])
    }

    fn agreement(&self, status: &str) -> Value {
        json!({
            "id": "urn:ngsi-ld:Agreement:beijing-to-shanghai", "type": "Agreement",
            "provider": "beijing", "consumer": "shanghai", "consumerKey": self.keys[1],
            "dataTypes": {"type": "VocabProperty", "vocab": ["AirQualityObserved"]},
            "dataAttributes": {"type": "VocabProperty", "vocab": ["pm25", "location"]},
            "area": {"type": "GeoProperty", "value": {"type": "Polygon", "coordinates": [[[116.0, 39.5], [116.5, 39.5], [116.5, 40.5], [116.0, 40.5], [116.0, 39.5]]]}},
            "positionDecimals": 1, "purpose": "joint air-quality management", "legalBasis": "test",
            "validFrom": "2014-01-01T00:00:00Z", "validUntil": "2099-01-01T00:00:00Z", "agreementStatus": status,
        })
    }
}

fn station(name: &str, lon: f64, pm25: u32) -> Value {
    json!({
        "id": format!("urn:ngsi-ld:AirQualityObserved:{name}"), "type": "AirQualityObserved",
        "pm25": {"type": "Property", "value": pm25, "unitCode": "GQ", "observedAt": "2014-01-01T00:00:00Z"}, "no2": 44,
        "location": {"type": "GeoProperty", "value": {"type": "Point", "coordinates": [lon, 39.9279]}},
    })
}

fn upsert(node: &Node, entities: &Value) {
    let answer = node.post("/ngsi-ld/v1/entityOperations/upsert", entities);
    assert!(matches!(answer.status, 201 | 204), "{}", answer.body);
}

fn ask(node: &Node, query: &str) -> (Vec<Value>, Value) {
    let answer = node.get(&format!("/api/v1/cluster/entities?{query}")).expect(200).json();
    (answer["entities"].as_array().unwrap().clone(), answer["sources"].clone())
}

/// Waits until a node has heard of both others.
fn all_up(node: &Node) {
    crate::support::eventually("all peers are up", || {
        node.get("/api/v1/peers").expect(200).json().as_array().unwrap().iter().all(|p| p["status"] == "up")
    });
}

#[track_caller]
fn source<'a>(sources: &'a Value, city: &str) -> &'a Value {
    sources.as_array().unwrap().iter().find(|s| s["city"] == city).unwrap()
}

#[test]
fn one_city_shares_a_part_with_another_and_nothing_with_the_third() {
    let cluster = Cluster::new();
    let mut a = cluster.start(0);
    let b = cluster.start(1);
    let c = cluster.start(2);
    upsert(
        &a,
        &json!([station("inside", 116.225, 60), station("outside", 116.644, 70), {"id": "urn:ngsi-ld:Secret:1", "type": "Secret", "plan": "x"}]),
    );
    upsert(&b, &json!([station("own", 121.47, 30)]));

    // B may have looked for the others before they were up; it looks again soon.
    all_up(&b);
    let (entities, sources) = ask(&b, "type=AirQualityObserved");
    assert_eq!(entities.len(), 1, "without an agreement there is only the own part");
    assert_eq!(source(&sources, "beijing")["status"], "denied", "{sources}");

    upsert(&a, &json!([cluster.agreement("active")]));
    upsert(&b, &json!([cluster.agreement("active")]));
    let (entities, sources) = ask(&b, "type=AirQualityObserved");
    let ids: Vec<_> = entities.iter().map(|e| e["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["urn:ngsi-ld:AirQualityObserved:inside", "urn:ngsi-ld:AirQualityObserved:own"], "{sources}");
    let shared = &entities[0];
    assert_eq!(shared["pm25"]["value"], 60);
    assert!(shared.get("no2").is_none(), "an attribute outside the agreement");
    assert_eq!(shared["location"]["value"]["coordinates"], json!([116.2, 39.9]), "the position is rounded");
    assert_eq!(shared["provenance"]["json"]["city"], "beijing");
    assert_eq!(shared["provenance"]["json"]["agreement"], "urn:ngsi-ld:Agreement:beijing-to-shanghai");
    assert_eq!(entities[1]["provenance"]["json"]["city"], "shanghai");
    assert_eq!(source(&sources, "guangzhou")["status"], "denied");

    // A question cannot feel for what it may not see: the hidden attribute, the exact position, another type.
    for probe in [
        "type=AirQualityObserved&q=no2==44",
        "type=Secret",
        "type=AirQualityObserved&georel=near;maxDistance==100&geometry=Point&coordinates=%5B116.225,39.9279%5D",
    ] {
        let (entities, _) = ask(&b, probe);
        assert!(entities.iter().all(|e| e["provenance"]["json"]["city"] == "shanghai"), "{probe}: {entities:?}");
    }
    // The same through plain NGSI-LD, with warnings for whom is missing, and the past.
    let plain = b.get("/cluster/ngsi-ld/v1/entities?type=AirQualityObserved&q=pm25%3E50").expect(200);
    assert_eq!(plain.json().as_array().unwrap().len(), 1);
    assert!(plain.header("ngsild-warning").iter().any(|w| w.starts_with("299 guangzhou")), "{:?}", plain.headers);
    let past =
        b.get("/cluster/ngsi-ld/v1/temporal/entities/urn:ngsi-ld:AirQualityObserved:inside?format=temporalValues").expect(200).json();
    assert_eq!(past["pm25"]["values"], json!([[60, "2014-01-01T00:00:00Z"]]));
    assert!(past.get("no2").is_none());
    b.get("/cluster/ngsi-ld/v1/temporal/entities/urn:ngsi-ld:AirQualityObserved:outside").expect(404);

    all_up(&c);
    let (entities, sources) = ask(&c, "type=AirQualityObserved");
    assert_eq!(entities, Vec::<Value>::new());
    let denied = source(&sources, "beijing");
    assert_eq!(denied["status"], "denied");
    assert!(denied["detail"].as_str().unwrap().contains("guangzhou"), "the reason names whom: {denied}");

    // Revocation acts with the answer to its own request.
    upsert(&a, &json!([cluster.agreement("revoked")]));
    assert_eq!(source(&ask(&b, "type=AirQualityObserved").1, "beijing")["status"], "denied");
    upsert(&a, &json!([cluster.agreement("active")]));

    // A is gone: B answers within a bounded time, and says so.
    a.kill();
    let stopwatch = Stopwatch::start();
    let (entities, sources) = ask(&b, "type=AirQualityObserved");
    assert!(stopwatch.elapsed() < Duration::from_secs(5), "{:?}", stopwatch.elapsed());
    assert_eq!(entities.len(), 1);
    assert_eq!(source(&sources, "beijing")["status"], "unreachable");
    let peers = b.get("/api/v1/peers").expect(200).json();
    assert_eq!(peers.as_array().unwrap().iter().find(|p| p["city"] == "beijing").unwrap()["status"], "down");
    let warned = b.get("/cluster/ngsi-ld/v1/entities?type=AirQualityObserved").expect(200);
    assert!(warned.header("ngsild-warning").iter().any(|w| w.starts_with("199 beijing")), "{:?}", warned.headers);

    // Back again, with everything.
    let _a = cluster.start(0);
    crate::support::eventually("A is back", || ask(&b, "type=AirQualityObserved").0.len() == 2);
}

#[test]
fn a_peer_with_a_wrong_key_is_refused_on_both_sides() {
    let cluster = Cluster::new();
    let a = cluster.start(0);
    upsert(&a, &json!([station("inside", 116.225, 60), cluster.agreement("active")]));
    // An impostor runs under Shanghai's name and address with a key that nobody knows.
    std::fs::remove_file(cluster.data(1).join("city.key")).unwrap();
    let b = cluster.start(1);
    let (_, sources) = ask(&b, "type=AirQualityObserved");
    let refused = source(&sources, "beijing");
    // Asked just now, or known from the probe a moment ago: the reason is the same.
    assert!(matches!(refused["status"].as_str(), Some("error" | "unreachable")), "{sources}");
    assert!(refused["detail"].as_str().unwrap().contains("has the key"), "{refused}");
    // And B, believing in a wrong key of A, does not take A's answers for A's.
    drop(b);
    let mut wrong = cluster.keys.clone();
    wrong[0].clone_from(&cluster.keys[2]);
    wrong[2].clone_from(&cluster.keys[0]);
    cluster.write_config(1, &wrong);
    let b = cluster.start(1);
    let (entities, sources) = ask(&b, "type=AirQualityObserved");
    assert!(entities.is_empty(), "{sources}");
    assert!(matches!(source(&sources, "beijing")["status"].as_str(), Some("error" | "unreachable")), "{sources}");
    // An unsigned question is not answered at all.
    let unsigned = a.post("/peer/v1/ask", &json!({"version": 1, "question": {}})).expect(401);
    assert!(unsigned.body.contains("not signed"), "{}", unsigned.body);
}

#[test]
fn an_agreement_that_says_nonsense_is_refused() {
    let cluster = Cluster::new();
    let a = cluster.start(0);
    let refused = |change: &dyn Fn(&mut Value), mentions: &str| {
        let mut agreement = cluster.agreement("active");
        change(&mut agreement);
        let answer = a.post("/ngsi-ld/v1/entities", &agreement).expect(400);
        assert!(answer.body.contains(mentions), "{mentions} is not in {}", answer.body);
    };
    refused(&|v| v["consumerKey"] = json!("ed25519:short"), "consumerKey");
    refused(&|v| v["positionDecimals"] = json!(99), "positionDecimals");
    refused(&|v| v["validUntil"] = json!("2001-01-01T00:00:00Z"), "valid");
    refused(&|v| v["provider"] = json!("atlantis"), "beijing");
    refused(&|v| drop(v.as_object_mut().unwrap().remove("dataAttributes")), "dataAttributes");
}

/// Runs a node's clock an hour off, where the machine has the tool for it.
#[test]
fn a_clock_an_hour_off_is_told() {
    let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    if !Path::new(library).exists() {
        crate::support::skip("`libfaketime` is not installed");
        return;
    }
    let cluster = Cluster::new();
    let a = cluster.start(0);
    upsert(&a, &json!([station("inside", 116.225, 60), cluster.agreement("active")]));
    let mut command = Command::new(crate::support::program());
    let any = "127.0.0.1:0";
    command.env("LD_PRELOAD", library).env("FAKETIME", "-1h").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    command.args(["serve", "--log", "warn", "--http", any, "--mqtt", any, "--sql", any, "--flight", any, "--data"]).arg(cluster.data(1));
    let b = Node::from_command(command, &cluster.data(1));
    let (_, sources) = ask(&b, "type=AirQualityObserved");
    let refused = source(&sources, "beijing");
    assert!(refused["detail"].as_str().unwrap().contains("clock"), "{refused}");
}
