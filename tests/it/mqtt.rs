//! Devices over MQTT, with Mosquitto's own clients.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Node, eventually, has, key_of};

fn reading(hour: u32, pm25: f64) -> String {
    json!({"time": format!("2014-01-01T{hour:02}:00:00Z"), "city": "beijing", "station": "Gucheng", "name_en": "Gucheng", "name_zh": "古城",
        "lon": 116.225, "lat": 39.9279, "pm25": pm25, "source": "test"})
    .to_string()
}

fn now_of(node: &Node) -> Value {
    node.get("/ngsi-ld/v1/entities/urn:ngsi-ld:AirQualityObserved:beijing:Gucheng").json()
}

#[test]
fn a_reading_of_every_quality_and_version_becomes_an_entity() {
    if !has("mosquitto_pub") {
        return;
    }
    let node = Node::start();
    let mut hour = 0;
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            let payload = reading(hour, f64::from(hour) + 0.5);
            let output = node.publish(&["-V", version, "-q", qos, "-t", "devices/air-quality/Gucheng", "-m", &payload]);
            assert!(output.status.success(), "{version} QoS {qos}: {}", String::from_utf8_lossy(&output.stderr));
            eventually("the reading is the present one", || now_of(&node)["pm25"]["value"] == json!(f64::from(hour) + 0.5));
            hour += 1;
        }
    }
    let entity = now_of(&node);
    assert_eq!(entity["type"], "AirQualityObserved");
    assert_eq!(entity["pm25"]["unitCode"], "GQ");
    assert_eq!(entity["pm25"]["observedAt"], "2014-01-01T05:00:00Z");
    assert_eq!(entity["name"]["languageMap"]["zh"], "古城");
    assert_eq!(entity["location"]["value"]["coordinates"], json!([116.225, 39.9279]));
    let past = node
        .get("/ngsi-ld/v1/temporal/entities/urn:ngsi-ld:AirQualityObserved:beijing:Gucheng?attrs=pm25&format=temporalValues")
        .expect(200)
        .json();
    assert_eq!(past["pm25"]["values"].as_array().unwrap().len(), 6, "{past}");
}

#[test]
fn what_cannot_be_read_is_refused_with_a_reason_and_the_node_goes_on() {
    if !has("mosquitto_pub") {
        return;
    }
    let node = Node::start();
    check(&node, "{broken", "0x99");
    check(&node, r#"{"city":"beijing","station":"G","pm25":"many"}"#, "pm25");
    check(&node, r#"{"city":"beijing","station":"G","pm25":-5}"#, "pm25");
    check(&node, r#"{"city":"beijing","station":"G","lon":500,"lat":1,"pm25":5}"#, "lon");
    check(&node, r#"{"city":"beijing","station":"G","time":"2999-01-01T00:00:00Z","pm25":5}"#, "2999");
    let unknown = node.publish(&["-V", "mqttv5", "-q", "1", "-t", "devices/air-qualty/x", "-m", "{}"]);
    assert!(!String::from_utf8_lossy(&unknown.stderr).is_empty() || !unknown.status.success(), "a mistyped profile is refused");
    let long = format!("devices/air-quality/{}", "x".repeat(5000));
    node.publish(&["-V", "mqttv5", "-q", "1", "-t", &long, "-m", "{}"]);
    assert_eq!(node.get("/ngsi-ld/v1/types").expect(200).json()["typeList"], json!([]), "nothing was stored");
    let refused = node.get("/api/v1/mqtt/refused").expect(200).json();
    assert!(refused.as_array().unwrap().len() >= 6, "{refused}");
    assert!(node.get("/metrics").body.contains("conurb_mqtt_publications_total{sort=\"refused\"}"));
    let good = node.publish(&["-q", "1", "-t", "devices/air-quality/Gucheng", "-m", &reading(1, 1.0)]);
    assert!(good.status.success());

    #[track_caller]
    fn check(node: &Node, payload: &str, mentions: &str) {
        // QoS 1 and MQTT 5: the reason code comes back with the PUBACK. In 3.1.1 there is no word for it: it is recorded and acknowledged.
        let v5 = node.publish(&["-V", "mqttv5", "-q", "1", "-d", "-t", "devices/air-quality/G", "-m", payload]);
        let said = format!("{}{}", String::from_utf8_lossy(&v5.stdout), String::from_utf8_lossy(&v5.stderr));
        assert!(said.contains("RC:153") || said.contains("Payload format invalid"), "{payload}: {said}");
        let v3 = node.publish(&["-V", "mqttv311", "-q", "1", "-t", "devices/air-quality/G", "-m", payload]);
        assert!(v3.status.success());
        let refused = node.get("/api/v1/mqtt/refused").expect(200);
        assert!(mentions == "0x99" || refused.body.contains(mentions), "{mentions} is not in {}", refused.body);
    }
}

#[test]
fn of_many_messages_at_once_each_is_kept_and_only_the_wrong_ones_are_refused() {
    if !has("mosquitto_pub") {
        return;
    }
    const STATIONS: [&str; 3] = ["Gucheng", "Wanliu", "Huairou"];
    let node = Node::start();
    // As a gateway does after a break of its connection: everything that waited, several messages of each station, some of them broken.
    let mut gateway = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", node.mqtt_port(), "-q", "1", "-l", "-t", "devices/air-quality/gateway"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = String::new();
    for n in 0..600 {
        let (day, station) = (1 + n / 3 / 24, STATIONS[n % 3]);
        let time = format!("2014-01-{day:02}T{:02}:00:00Z", n / 3 % 24);
        lines += &json!({"time": time, "city": "beijing", "station": station, "pm25": n}).to_string();
        lines += if n % 50 == 0 { "\n{broken\n" } else { "\n" };
    }
    gateway.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(gateway.wait().unwrap().success());
    for (i, station) in STATIONS.into_iter().enumerate() {
        let path =
            format!("/ngsi-ld/v1/temporal/entities/urn:ngsi-ld:AirQualityObserved:beijing:{station}?attrs=pm25&format=temporalValues");
        let past = node.get(&path).expect(200).json();
        let values: Vec<_> = past["pm25"]["values"].as_array().unwrap().iter().map(|v| v[0].as_u64().unwrap() as usize).collect();
        assert_eq!(values, (i..600).step_by(3).collect::<Vec<_>>(), "{station}");
    }
    assert_eq!(node.get("/api/v1/mqtt/refused").expect(200).json().as_array().unwrap().len(), 12);
}

#[test]
fn a_device_does_not_change_an_agreement_under_whatever_type_it_names_it() {
    if !has("mosquitto_pub") {
        return;
    }
    let node = Node::start();
    let other = tempfile::tempdir().unwrap();
    let agreement = json!({
        "id": "urn:ngsi-ld:AirQualityObserved:beijing:Gucheng", "type": "Agreement", "provider": "city", "consumer": "shanghai",
        "consumerKey": key_of(other.path()), "dataTypes": {"type": "VocabProperty", "vocab": ["AirQualityObserved"]},
        "dataAttributes": {"type": "VocabProperty", "vocab": ["pm25"]},
        "purpose": "joint air-quality management", "legalBasis": "test",
        "validFrom": "2014-01-01T00:00:00Z", "validUntil": "2099-01-01T00:00:00Z", "agreementStatus": "active",
    });
    node.post("/ngsi-ld/v1/entities", &agreement).expect(201);
    let before = now_of(&node);
    node.publish(&["-V", "mqttv5", "-q", "1", "-t", "devices/air-quality/Gucheng", "-m", &reading(1, 1.0)]);
    let refused = node.get("/api/v1/mqtt/refused").expect(200);
    assert!(refused.body.contains("agreement is not something that a device observes"), "{}", refused.body);
    assert_eq!(now_of(&node), before);
}

#[test]
fn subscribers_get_what_was_published() {
    if !has("mosquitto_sub") {
        return;
    }
    let node = Node::start();
    for (version, qos) in [("mqttv311", "0"), ("mqttv311", "1"), ("mqttv5", "1"), ("mqttv5", "2")] {
        let topic = format!("talk/{version}/{qos}");
        let subscriber = Command::new("mosquitto_sub")
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                node.mqtt_port(),
                "-V",
                version,
                "-q",
                qos,
                "-t",
                "talk/+/#",
                "-C",
                "3",
                "-W",
                "20",
                "-F",
                "%t %p",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // The subscription is there when the node counts the connection and has answered; a moment later is soon enough.
        eventually("the subscriber is connected", || node.get("/metrics").body.contains("conurb_mqtt_connections 1"));
        std::thread::sleep(std::time::Duration::from_millis(300));
        for i in 0..3 {
            assert!(node.publish(&["-V", version, "-q", qos, "-t", &topic, "-m", &i.to_string()]).status.success());
        }
        let output = subscriber.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{topic} 0\n{topic} 1\n{topic} 2\n"), "{version} QoS {qos}");
        eventually("the subscriber is gone", || node.get("/metrics").body.contains("conurb_mqtt_connections 0"));
    }
}

#[test]
fn without_a_password_no_device_connects() {
    if !has("mosquitto_pub") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_in(dir.path(), &[]);
    let topic = ["-q", "1", "-t", "devices/air-quality/Gucheng", "-m"];
    let payload = reading(1, 1.0);
    let with = |more: &[&str]| node.publish(&[&topic[..], &[&payload], more].concat()).status.success();
    assert!(!with(&[]));
    assert!(!with(&["-u", "d1", "-P", "guess"]));
    let token = std::fs::read_to_string(dir.path().join("device.token")).unwrap();
    assert!(with(&["-u", "d1", "-P", token.trim()]));
}
