//! The program as an operator meets it.

use std::process::{Command, Output};

use crate::support::{Node, program, root, write};

fn run(arguments: &[&str]) -> Output {
    Command::new(program()).args(arguments).output().unwrap()
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn config_prints_what_is_in_force_and_unknown_keys_name_the_nearest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    write(&dir.path().join("conurb.toml"), "city = \"shanghai\"\ncheckpoint_minutes = 7\n");
    let output = Command::new(program()).args(["config", "--data", path]).env("CONURB_HTTP", "127.0.0.1:4321").output().unwrap();
    let text = said(&output.stdout);
    for line in ["city = \"shanghai\"", "checkpoint_minutes = 7", "http = \"127.0.0.1:4321\"", "# Address of MQTT"] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    write(&dir.path().join("conurb.toml"), "htpp = \"127.0.0.1:1\"\n");
    let output = run(&["config", "--data", path]);
    assert!(!output.status.success());
    assert!(said(&output.stderr).contains("unknown key `htpp` (did you mean `http`?)"), "{}", said(&output.stderr));
    write(&dir.path().join("conurb.toml"), "");
    let output = run(&["serve", "--data", path, "--dev", "--http", "0.0.0.0:0"]);
    assert!(said(&output.stderr).contains("loopback"), "{}", said(&output.stderr));
}

#[test]
fn a_node_starts_on_nothing_says_where_it_listens_and_stops_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("does/not/exist");
    let mut node = Node::start_in(&folder, &["--dev"]);
    assert_eq!(node.get("/healthz").expect(200).body, "ok\n");
    assert_eq!(node.get("/readyz").expect(200).body, "ready\n");
    assert!(node.get("/metrics").expect(200).body.contains("conurb_entities 0"));
    let info = node.get("/api/v1/info").expect(200).json();
    assert_eq!(info["dev"], true);
    let described = node.get("/openapi.json").expect(200).json();
    assert!(described["paths"]["/ngsi-ld/v1/entities"]["post"].is_object());
    // A second node on the same folder is told why not.
    let output = run(&[
        "serve",
        "--data",
        folder.to_str().unwrap(),
        "--dev",
        "--http",
        "127.0.0.1:0",
        "--mqtt",
        "127.0.0.1:0",
        "--sql",
        "127.0.0.1:0",
        "--flight",
        "127.0.0.1:0",
    ]);
    assert!(said(&output.stderr).contains("in use"), "{}", said(&output.stderr));
    // An address in use is named.
    let other = dir.path().join("other");
    let any = "127.0.0.1:0";
    let output =
        run(&["serve", "--data", other.to_str().unwrap(), "--dev", "--http", &node.http, "--mqtt", any, "--sql", any, "--flight", any]);
    assert!(said(&output.stderr).contains(&node.http), "{}", said(&output.stderr));
    assert_eq!(node.dir, folder);
    node.terminate();
}

#[test]
fn a_simulated_city_reports_and_says_that_it_is_simulated() {
    let node = Node::start();
    let output = run(&[
        "simulate",
        "--city",
        "suzhou",
        "--seed",
        "7",
        "--start",
        "2024-06-03T00:00:00Z",
        "--end",
        "2024-06-03T01:00:00Z",
        "--mqtt",
        &node.mqtt,
    ]);
    assert!(output.status.success(), "{}", said(&output.stderr));
    let types = node.get("/ngsi-ld/v1/types").expect(200).json();
    for t in ["AirQualityObserved", "WeatherObserved", "TrafficFlowObserved", "OffStreetParking", "SmartMeteringObservation"] {
        assert!(types["typeList"].as_array().unwrap().iter().any(|x| x == t), "{t} is not in {types}");
        let one = node.get(&format!("/ngsi-ld/v1/entities?type={t}&limit=1")).expect(200).json();
        assert_eq!(one[0]["provenance"]["json"]["simulated"], true, "{one}");
    }
}

#[test]
fn every_command_helps() {
    for command in ["serve", "config", "key", "demo", "replay", "simulate", "bench"] {
        let output = run(&[command, "--help"]);
        assert!(output.status.success() && said(&output.stdout).contains("Usage: conurb"), "{command}");
    }
    assert!(said(&run(&["bench", "nonsense"]).stderr).contains("updates-64"), "the workloads are listed");
    assert!(root().join("README.md").exists());
}

/// The demo as `make demo` runs it, on other ports: three cities see each other, and an interrupt ends everything.
#[test]
fn the_demo_brings_up_three_cities_and_stops_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Command::new(program())
        .args(["demo", "--port", "21026", "--dir"])
        .arg(dir.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let stopwatch = host::Stopwatch::start();
    let ask = || {
        let answer = Command::new("curl")
            .args(["-sf", "http://127.0.0.1:21026/api/v1/cluster/entities?type=AirQualityObserved&limit=100"])
            .output()
            .unwrap();
        serde_json::from_slice::<serde_json::Value>(&answer.stdout).unwrap_or_default()
    };
    crate::support::eventually("three cities are on the map", || {
        ask()["sources"].as_array().is_some_and(|s| s.len() == 3 && s.iter().all(|s| s["count"].as_u64() > Some(5)))
    });
    assert!(stopwatch.elapsed().as_secs() < 30, "{:?}", stopwatch.elapsed());
    let sent = Command::new("kill").arg("-INT").arg(demo.id().to_string()).status().unwrap();
    assert!(sent.success());
    assert!(demo.wait().unwrap().success(), "the demo ends with success");
    let ports = ["21026", "21036", "21046", "21883", "25433"];
    for port in ports {
        assert!(std::net::TcpStream::connect(("127.0.0.1", port.parse::<u16>().unwrap())).is_err(), "somebody still listens on {port}");
    }
}
