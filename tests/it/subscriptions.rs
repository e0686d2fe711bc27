//! Notifications to a real HTTP receiver.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Node, eventually};

/// A receiver that answers 200 and hands on what it was sent: headers and body. The first `n_failures` requests are answered 500.
fn receiver(n_failures: usize) -> (String, Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, inbox) = channel();
    std::thread::spawn(move || {
        let mut n_requests = 0;
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let mut headers = String::new();
            let mut n_bytes = 0;
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap() == 0 || line == "\r\n" {
                    break;
                }
                if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    n_bytes = n.trim().parse().unwrap();
                }
                headers.push_str(&line);
            }
            let mut body = vec![0; n_bytes];
            reader.read_exact(&mut body).unwrap();
            n_requests += 1;
            let status = if n_requests <= n_failures { "500 Oops" } else { "200 OK" };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            reader.into_inner().write_all(answer.as_bytes()).unwrap();
            if n_requests > n_failures && sender.send((headers, serde_json::from_slice(&body).unwrap())).is_err() {
                return;
            }
        }
    });
    (format!("http://{address}/notify"), inbox)
}

fn subscription(uri: &str) -> Value {
    json!({
        "type": "Subscription", "entities": [{"type": "AirQualityObserved"}], "watchedAttributes": ["pm25"], "q": "pm25>75",
        "notification": {"attributes": ["pm25"], "endpoint": {"uri": uri, "accept": "application/json", "receiverInfo": [{"key": "X-Test", "value": "yes"}]}},
    })
}

fn set(node: &Node, value: f64) {
    let body = json!([{"id": "urn:ngsi-ld:AirQualityObserved:t:1", "type": "AirQualityObserved", "pm25": value, "no2": 1}]);
    let status = node.post("/ngsi-ld/v1/entityOperations/upsert", &body).status;
    assert!(matches!(status, 201 | 204), "{status}");
}

const WAIT: Duration = Duration::from_secs(10);

#[test]
fn a_subscriber_is_told_of_what_it_asked_for_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::start_in(dir.path(), &["--dev"]);
    let (uri, inbox) = receiver(1);
    let location = node.post("/ngsi-ld/v1/subscriptions", &subscription(&uri)).expect(201).header("location")[0].to_owned();
    set(&node, 50.0);
    set(&node, 80.0);
    let (headers, body) = inbox.recv_timeout(WAIT).expect("a notification, at the second attempt");
    assert!(headers.to_ascii_lowercase().contains("x-test: yes") && headers.contains("json-ld#context"), "{headers}");
    assert_eq!(body["type"], "Notification");
    assert_eq!(body["data"][0]["pm25"]["value"], 80.0);
    assert!(body["data"][0].get("no2").is_none(), "{body}");
    set(&node, 80.0);
    node.kill();

    let node = Node::start_in(dir.path(), &["--dev"]);
    set(&node, 90.0);
    // What was told just before the kill may be told again, under the same id; the unchanged 80 was no news.
    let first_id = body["id"].clone();
    let (_, mut body) = inbox.recv_timeout(WAIT).expect("a notification after the restart");
    if body["id"] == first_id {
        body = inbox.recv_timeout(WAIT).expect("a notification after the repeated one").1;
    }
    assert_eq!(body["data"][0]["pm25"]["value"], 90.0);
    // It counts as sent when the receiver's answer has arrived, which is after the receiver has it.
    eventually("the notification is counted", || node.get(&location).expect(200).json()["notification"]["lastSuccess"].is_string());
    let shown = node.get(&location).expect(200).json();
    assert_eq!(shown["status"], "active");
    assert_eq!(node.get("/ngsi-ld/v1/subscriptions").expect(200).json().as_array().unwrap().len(), 1);
    node.send("DELETE", &location, &[], None).expect(204);
    set(&node, 100.0);
    assert!(inbox.recv_timeout(Duration::from_millis(500)).is_err(), "no notification after the end");
    node.get(&location).expect(404);
}

#[test]
fn what_cannot_work_is_refused_at_once() {
    let node = Node::start();
    let refused = |change: &dyn Fn(&mut Value), mentions: &str| {
        let mut s = subscription("http://127.0.0.1:9/x");
        change(&mut s);
        let answer = node.post("/ngsi-ld/v1/subscriptions", &s);
        assert_eq!(answer.status, 400, "{mentions}");
        assert!(answer.body.contains(mentions), "{mentions} is not in {}", answer.body);
    };
    refused(&|s| s["notification"]["endpoint"]["uri"] = json!("ftp://x/y"), "uri");
    refused(&|s| s["q"] = json!("pm25>>"), "q");
    refused(&|s| s["expiresAt"] = json!("2001-01-01T00:00:00Z"), "expiresAt");
    refused(&|s| s["notification"] = json!({}), "endpoint");
    // Outside development mode the node does not call private addresses for strangers.
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start_in(dir.path(), &[]);
    let token = format!("Bearer {}", std::fs::read_to_string(dir.path().join("admin.token")).unwrap().trim());
    let body = subscription("http://127.0.0.1:9/x").to_string();
    let headers = [("content-type", "application/json"), ("authorization", token.as_str())];
    let answer = node.send("POST", "/ngsi-ld/v1/subscriptions", &headers, Some(&body)).expect(400);
    assert!(answer.body.contains("private network"), "{}", answer.body);
}
