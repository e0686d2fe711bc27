//! Notifications over MQTT and MQTTS (clause 7), with a real Mosquitto and with our own listener.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use serve::mqtt_listener::{self, Hub, MqttContext};
use tempfile::TempDir;

use crate::city::{City, eventually};

const TOPIC: &str = "city/air/told";

fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap().status.success();
    if !found {
        skip(program);
    }
    found
}

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn skip(program: &str) {
    eprintln!("SKIPPED: `{program}` is not installed (scripts/setup.sh --for test installs it)");
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A program that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn run(program: &str, args: &[&str], dir: &Path) {
    let output = Command::new(program).args(args).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A broker that wants a login, with a second listener over TLS.
struct Mosquitto {
    _running: Running,
    port: u16,
    tls_port: u16,
    dir: TempDir,
}

impl Mosquitto {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (port, tls_port) = (free_port(), free_port());
        run("mosquitto_passwd", &["-c", "-b", "passwords", "operator", "s:ecret"], dir.path());
        let extensions = "subjectAltName=DNS:localhost,IP:127.0.0.1";
        let key = ["-newkey", "rsa:2048", "-nodes", "-days", "2"];
        run(
            "openssl",
            &[&["req", "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority"], &key[..]].concat(),
            dir.path(),
        );
        run(
            "openssl",
            &["req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "request", "-subj", "/CN=localhost"],
            dir.path(),
        );
        std::fs::write(dir.path().join("extensions"), extensions).unwrap();
        let sign =
            ["x509", "-req", "-in", "request", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "cert.pem", "-days", "2"];
        run("openssl", &[&sign[..], &["-extfile", "extensions"]].concat(), dir.path());
        let at = |name: &str| dir.path().join(name).display().to_string();
        let config = format!(
            "per_listener_settings false\nallow_anonymous false\npassword_file {}\nlistener {port} 127.0.0.1\n\
             listener {tls_port} 127.0.0.1\ncertfile {}\nkeyfile {}\nuser root\n",
            at("passwords"),
            at("cert.pem"),
            at("key.pem")
        );
        std::fs::write(dir.path().join("config"), config).unwrap();
        let running = Self::spawn(dir.path(), port);
        Self { _running: running, port, tls_port, dir }
    }

    fn spawn(dir: &Path, port: u16) -> Running {
        let config = dir.join("config").display().to_string();
        let child = Command::new("mosquitto").args(["-c", &config]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let running = Running(child);
        eventually("mosquitto listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        running
    }

    fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }
}

/// What a subscriber of a broker gets: quality of service and payload.
struct Subscriber {
    _running: Running,
    got: Arc<Mutex<Vec<(u8, Value)>>>,
}

impl Subscriber {
    fn start(port: u16, login: &[&str]) -> Self {
        // Line by line: otherwise what it says would come when it ends.
        let port = port.to_string();
        let mut child = Command::new("stdbuf")
            .args(["-oL", "mosquitto_sub", "-h", "127.0.0.1", "-p", &port, "-V", "mqttv5", "-q", "2", "-t", TOPIC, "-F", "%q %p", "-d"])
            .args(login)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let got: Arc<Mutex<Vec<(u8, Value)>>> = Arc::default();
        let is_subscribed = Arc::new(Mutex::new(false));
        let (to, subscribed) = (Arc::clone(&got), Arc::clone(&is_subscribed));
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // With -d it says what it does, among it that it is subscribed.
                if line.starts_with("Subscribed") {
                    *subscribed.lock().unwrap() = true;
                }
                let message = line.split_once(' ').and_then(|(q, p)| Some((q.parse().ok()?, serde_json::from_str(p).ok()?)));
                to.lock().unwrap().extend(message);
            }
        });
        let running = Running(child);
        eventually("mosquitto_sub is subscribed", || *is_subscribed.lock().unwrap());
        Self { _running: running, got }
    }

    #[track_caller]
    fn gets(&self, n: usize) -> Vec<(u8, Value)> {
        eventually(&format!("{n} messages arrive"), || self.got.lock().unwrap().len() >= n);
        self.got.lock().unwrap().clone()
    }
}

fn subscription(id: &str, uri: &str, settings: &[(&str, &str)]) -> Value {
    let pairs: Vec<Value> = settings.iter().map(|(k, v)| json!({"key": k, "value": v})).collect();
    let mut endpoint = json!({"uri": uri, "receiverInfo": [{"key": "X-From", "value": "a \"city\""}]});
    if !pairs.is_empty() {
        endpoint["notifierInfo"] = pairs.into();
    }
    json!({
        "id": format!("urn:x:{id}"), "type": "Subscription", "entities": [{"type": "Station"}],
        "notification": {"endpoint": endpoint, "format": "simplified"},
    })
}

fn write(city: &City, value: i64) {
    let entity = json!({"id": "urn:x:1", "type": "Station", "pm25": {"type": "Property", "value": value}});
    let status = city.post("entityOperations/upsert", json!([entity])).status;
    assert!([201, 204].contains(&status));
}

#[test]
fn clause_7_2_notifications_over_mqtt_in_every_version_and_quality() {
    if !has("mosquitto") || !has("mosquitto_sub") || !has("openssl") {
        return;
    }
    let (broker, city) = (Mosquitto::start(), City::start());
    let subscriber = Subscriber::start(broker.port, &["-u", "operator", "-P", "s:ecret"]);
    let uri = format!("mqtt://operator:s%3Aecret@127.0.0.1:{}/{TOPIC}", broker.port);
    let mut n = 0;
    for version in [None, Some("mqtt3.1.1"), Some("mqtt5.0")] {
        for qos in [None, Some("0"), Some("1"), Some("2")] {
            let settings = [version.map(|v| ("MQTT-Version", v)), qos.map(|q| ("MQTT-QoS", q))];
            let settings: Vec<_> = settings.into_iter().flatten().collect();
            city.post("subscriptions", subscription("s", &uri, &settings)).expect(201);
            for _ in 0..3 {
                n += 1;
                write(&city, n);
            }
            let got = subscriber.gets(n as usize);
            let (got_qos, message) = got.last().unwrap();
            assert_eq!(u8::to_string(got_qos), qos.unwrap_or("0"), "{version:?}");
            assert_eq!(message["metadata"]["Content-Type"], "application/json");
            assert!(message["metadata"]["Link"].as_str().unwrap().contains("json-ld#context"));
            assert_eq!(message["metadata"]["X-From"], "a \"city\"");
            assert_eq!(message["body"]["type"], "Notification");
            let values: Vec<i64> = got.iter().map(|(_, m)| m["body"]["data"][0]["pm25"].as_i64().unwrap()).collect();
            assert_eq!(values, (1..=n).collect::<Vec<_>>());
            eventually("the success is counted", || city.get("subscriptions/urn:x:s").json()["notification"]["timesSent"] == 3);
            city.delete("subscriptions/urn:x:s").expect(204);
        }
    }
}

#[test]
fn clause_7_2_notifications_over_mqtts() {
    if !has("mosquitto") || !has("mosquitto_sub") || !has("openssl") {
        return;
    }
    let broker = Mosquitto::start();
    let subscriber = Subscriber::start(broker.port, &["-u", "operator", "-P", "s:ecret"]);
    let uri = format!("mqtts://operator:s%3Aecret@localhost:{}/{TOPIC}", broker.tls_port);
    let city = City::start_trusting(&std::fs::read(broker.authority()).unwrap());
    city.post("subscriptions", subscription("s", &uri, &[("MQTT-QoS", "1")])).expect(201);
    write(&city, 1);
    let got = subscriber.gets(1);
    assert_eq!(got[0].1["body"]["data"][0]["pm25"], 1);
    // Who does not know the authority does not trust the broker.
    let stranger = City::start();
    stranger.post("subscriptions", subscription("s", &uri, &[("MQTT-QoS", "1")])).expect(201);
    write(&stranger, 2);
    eventually("it fails", || stranger.get("subscriptions/urn:x:s").json()["notification"]["status"] == "failed");
    let why = stranger.get("subscriptions/urn:x:s").json()["notification"]["lastErrorReason"].clone();
    assert!(why.as_str().unwrap().contains("certificate"), "{why}");
}

#[test]
fn clause_7_2_a_broker_that_refuses_or_is_away_loses_nothing() {
    if !has("mosquitto") || !has("mosquitto_sub") || !has("openssl") {
        return;
    }
    let (mut broker, city) = (Mosquitto::start(), City::start());
    let wrong = format!("mqtt://operator:wrong@127.0.0.1:{}/{TOPIC}", broker.port);
    city.post("subscriptions", subscription("s", &wrong, &[("MQTT-QoS", "1")])).expect(201);
    write(&city, 1);
    let told = || city.get("subscriptions/urn:x:s").json()["notification"].clone();
    eventually("it fails", || told()["status"] == "failed");
    assert!(told()["lastErrorReason"].as_str().unwrap().contains("does not accept the client"), "{}", told());
    let right = format!("mqtt://operator:s%3Aecret@127.0.0.1:{}/{TOPIC}", broker.port);
    let subscriber = Subscriber::start(broker.port, &["-u", "operator", "-P", "s:ecret"]);
    let endpoint = json!({"uri": right, "notifierInfo": [{"key": "MQTT-QoS", "value": "1"}]});
    city.with_body("PATCH", "subscriptions/urn:x:s", json!({"notification": {"endpoint": endpoint}})).expect(204);
    subscriber.gets(1);
    eventually("the success is noted", || told()["status"] == "ok");
    drop(subscriber);
    // The broker goes, and comes back.
    let _ = broker._running.0.kill();
    let _ = broker._running.0.wait();
    write(&city, 2);
    write(&city, 3);
    eventually("it fails again", || told()["status"] == "failed");
    broker._running = Mosquitto::spawn(broker.dir.path(), broker.port);
    // Who listens at once has all: it tries again after a pause.
    let subscriber = Subscriber::start(broker.port, &["-u", "operator", "-P", "s:ecret"]);
    write(&city, 4);
    eventually("nothing waits", || told().get("waiting").is_none() && told()["status"] == "ok");
    let values: Vec<i64> = subscriber.gets(1).iter().map(|(_, m)| m["body"]["data"][0]["pm25"].as_i64().unwrap()).collect();
    assert_eq!(values.last(), Some(&4));
    assert!(values.is_sorted());
}

#[test]
fn clause_7_2_notifications_to_another_nodes_own_broker() {
    if !has("mosquitto_sub") {
        return;
    }
    let (city, other) = (City::start(), City::start());
    let (port, _broker) = listen(&other);
    let subscriber = Subscriber::start(port, &[]);
    for (i, version) in ["mqtt3.1.1", "mqtt5.0"].into_iter().enumerate() {
        for (j, qos) in ["0", "1", "2"].into_iter().enumerate() {
            let uri = format!("mqtt://127.0.0.1:{port}/{TOPIC}");
            city.post("subscriptions", subscription("s", &uri, &[("MQTT-Version", version), ("MQTT-QoS", qos)])).expect(201);
            write(&city, (i * 3 + j) as i64);
            subscriber.gets(i * 3 + j + 1);
            city.delete("subscriptions/urn:x:s").expect(204);
        }
    }
}

/// An MQTT listener of the other node, with its runtime.
fn listen(city: &City) -> (u16, tokio::runtime::Runtime) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    let context = Arc::new(MqttContext {
        node: Arc::clone(&city.app.node),
        auth: Arc::clone(&city.app.auth),
        profiles: Arc::new(mqtt::profile::Profiles::new(Vec::new()).unwrap()),
        hub: Arc::new(Hub::default()),
        refused: Arc::default(),
    });
    runtime.spawn(mqtt_listener::serve(listener, context, city.app.stop.clone()));
    (port, runtime)
}

#[test]
fn clause_7_2_what_is_no_topic_or_no_setting_is_refused() {
    let city = City::start();
    for (uri, settings) in [
        ("mqtt://127.0.0.1", vec![]),
        ("mqtt://127.0.0.1/", vec![]),
        ("mqtt:///topic", vec![]),
        ("mqtt://127.0.0.1/a/%23", vec![]),
        ("mqtt://127.0.0.1/a/+/b", vec![]),
        ("mqtt://127.0.0.1/a", vec![("MQTT-Version", "mqtt4")]),
        ("mqtt://127.0.0.1/a", vec![("MQTT-QoS", "3")]),
        ("amqp://127.0.0.1/a", vec![]),
    ] {
        city.post("subscriptions", subscription("s", uri, &settings)).problem(400, "BadRequestData");
    }
    city.post("subscriptions", subscription("s", "mqtt://127.0.0.1/a", &[("MQTT-QoS", "2"), ("other", "x")])).expect(201);
}
