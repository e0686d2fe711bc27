//! Subscriptions and notifications (clauses 5.8, 6.3.8 and 7).

use std::time::Duration;

use serde_json::{Value, json};

use crate::city::{City, eventually};
use crate::receiver::Receiver;

const SUBSCRIPTION: &str = "urn:ngsi-ld:Subscription:1";

fn station(n: usize, pm25: i64) -> Value {
    json!({"id": format!("urn:ngsi-ld:Station:{n}"), "type": "Station", "pm25": {"type": "Property", "value": pm25}})
}

fn subscription(uri: &str) -> Value {
    json!({
        "id": SUBSCRIPTION,
        "type": "Subscription",
        "entities": [{"type": "Station"}],
        "notification": {"endpoint": {"uri": uri}},
    })
}

fn with(mut document: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    document.pointer_mut(parent).unwrap()[name] = value;
    document
}

impl City {
    #[track_caller]
    fn subscribes(&self, subscription: Value) {
        self.post("subscriptions", subscription).expect(201);
    }

    /// One entity, created or replaced, by a request of its own.
    #[track_caller]
    fn writes(&self, entity: Value) {
        let status = self.post("entityOperations/upsert", json!([entity])).status;
        assert!([201, 204].contains(&status), "{status}");
    }

    /// Sets `pm25` of station 1 to the values, one after the other.
    #[track_caller]
    fn measures(&self, values: std::ops::RangeInclusive<i64>) {
        values.for_each(|v| self.writes(station(1, v)));
    }

    #[track_caller]
    fn shown(&self) -> Value {
        self.get(&format!("subscriptions/{SUBSCRIPTION}")).expect(200).json()
    }
}

fn values(receiver: &Receiver) -> Vec<i64> {
    receiver.received().iter().map(|r| r.value("pm25").as_i64().unwrap()).collect()
}

#[test]
fn clause_5_8_6_each_change_is_told_once_and_in_order() {
    let (city, receiver) = (City::start(), Receiver::start());
    city.subscribes(subscription(&receiver.url()));
    city.measures(1..=30);
    // The same again is no change.
    city.measures(30..=30);
    city.measures(31..=31);
    let got = receiver.gets(31);
    assert_eq!(values(&receiver), (1..=31).collect::<Vec<_>>());
    let mut ids: Vec<&str> = got.iter().map(|r| r.id()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 31);
    assert_eq!(got[0].body["type"], "Notification");
    assert_eq!(got[0].body["subscriptionId"], SUBSCRIPTION);
    assert_eq!(got[0].header("content-type"), ["application/json"]);
    assert!(got[0].header("link")[0].contains("rel=\"http://www.w3.org/ns/json-ld#context\""));
}

#[test]
fn clause_5_8_6_a_batch_is_one_notification() {
    let (city, receiver) = (City::start(), Receiver::start());
    city.subscribes(subscription(&receiver.url()));
    city.has((1..=5).map(|n| station(n, 1)).collect());
    city.measures(7..=7);
    let got = receiver.gets(2);
    assert_eq!(got[0].body["data"].as_array().unwrap().len(), 5);
    assert_eq!(got[1].body["data"].as_array().unwrap().len(), 1);
}

/// More than one notification holds comes in parts, with ids of their own.
#[test]
fn clause_5_8_6_a_large_batch_comes_in_parts() {
    let (city, receiver) = (City::start(), Receiver::start());
    city.subscribes(subscription(&receiver.url()));
    city.has((1..=2_500).map(|n| station(n, 1)).collect());
    let got = receiver.gets(3);
    let sizes: Vec<usize> = got.iter().map(|r| r.body["data"].as_array().unwrap().len()).collect();
    assert_eq!(sizes, [1_000, 1_000, 500]);
    assert_eq!(got[2].id(), format!("{}:2", got[0].id()));
}

/// What was matched and not delivered when the process died is delivered after the start; what was delivered keeps its id if it comes again.
#[test]
fn clause_5_8_6_nothing_is_lost_when_the_process_is_killed() {
    let (mut city, receiver) = (City::start(), Receiver::start());
    city.subscribes(subscription(&receiver.url()));
    city.measures(1..=5);
    receiver.gets(5);
    receiver.answers(503, Duration::ZERO);
    city.measures(6..=10);
    city = city.killed();
    city.measures(11..=12);
    receiver.answers(200, Duration::ZERO);
    eventually("the last one arrives", || values(&receiver).last() == Some(&12));
    let got = receiver.received();
    let mut by_id: Vec<(u64, i64)> =
        got.iter().map(|r| (r.id().rsplit_once(':').unwrap().1.parse().unwrap(), r.value("pm25").as_i64().unwrap())).collect();
    by_id.sort_unstable();
    by_id.dedup();
    // One id for each change, in the order of the changes: a repeated one is recognised.
    assert_eq!(by_id.iter().map(|(_, v)| *v).collect::<Vec<_>>(), (1..=12).collect::<Vec<_>>());
}

/// A checkpoint makes the log unnecessary, but not what waits.
#[test]
fn clause_5_8_6_what_waits_survives_checkpoints() {
    let receiver = Receiver::start();
    let mut city = City::start();
    city.subscribes(with(subscription(&receiver.url()), "/notification/showChanges", json!(true)));
    city.measures(1..=1);
    receiver.gets(1);
    receiver.answers(503, Duration::ZERO);
    city.measures(2..=4);
    city = city.restarted();
    city.measures(5..=5);
    city = city.restarted();
    city.measures(6..=6);
    city = city.killed();
    receiver.answers(200, Duration::ZERO);
    let got = receiver.gets(6);
    eventually("nothing waits", || city.shown()["notification"].get("waiting").is_none());
    assert_eq!(values(&receiver), [1, 2, 3, 4, 5, 6]);
    // With what it was before.
    assert_eq!(got[2].body["data"][0]["pm25"]["previousValue"], 2, "{}", got[2].body);
}

/// After an end in order nothing is told twice.
#[test]
fn clause_5_8_6_a_restart_repeats_nothing() {
    let receiver = Receiver::start();
    let mut city = City::start();
    city.subscribes(subscription(&receiver.url()));
    for round in 0..3 {
        city.measures(round * 3 + 1..=round * 3 + 3);
        receiver.gets(round as usize * 3 + 3);
        let status = city.shown()["notification"].clone();
        assert_eq!(status["timesSent"], round * 3 + 3, "{status}");
        city = city.restarted();
        let after = city.shown()["notification"].clone();
        assert_eq!(after["timesSent"], status["timesSent"]);
        assert_eq!(after["lastSuccess"], status["lastSuccess"]);
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(values(&receiver), (1..=9).collect::<Vec<_>>());
}

/// A dead endpoint and a slow one delay nobody else; an operator sees what waits and why.
#[test]
fn clause_5_8_6_a_dead_and_a_slow_endpoint_delay_nobody() {
    let (city, good, slow) = (City::start(), Receiver::start(), Receiver::start());
    let dead = "http://127.0.0.1:9/notify";
    slow.answers(200, Duration::from_millis(400));
    for (id, uri) in [("1", dead), ("2", &slow.url()), ("3", &good.url())] {
        city.subscribes(with(subscription(uri), "/id", json!(format!("urn:ngsi-ld:Subscription:{id}"))));
    }
    city.measures(1..=20);
    good.gets(20);
    assert!(slow.received().len() < 20);
    assert_eq!(values(&good), (1..=20).collect::<Vec<_>>());
    let of_dead = city.shown()["notification"].clone();
    assert_eq!((&of_dead["status"], &of_dead["waiting"]), (&json!("failed"), &json!(20)), "{of_dead}");
    assert!(of_dead["lastErrorReason"].as_str().unwrap().contains("refused"), "{of_dead}");
    assert!(of_dead["waitingSince"].is_string() && of_dead["nextAttempt"].is_string());
    let deliveries = city.get("/api/v1/deliveries").expect(200).json();
    let of_dead = deliveries["endpoints"].as_array().unwrap().iter().find(|e| e["endpoint"] == dead).unwrap().clone();
    assert_eq!((&of_dead["waiting"], &of_dead["subscriptions"], &of_dead["failing"]), (&json!(20), &json!(1), &json!(1)), "{of_dead}");
    slow.answers(200, Duration::ZERO);
    slow.gets(20);
    assert_eq!(values(&slow), (1..=20).collect::<Vec<_>>());
    let metrics = city.get("/metrics").expect(200).body;
    eventually("the metric shows what waits", || city.get("/metrics").body.contains("conurb_notifications_waiting 20"));
    assert!(metrics.contains("conurb_subscriptions_failing"));
}

/// What an endpoint says about the notification itself is final after some attempts: counted, with its reason.
#[test]
fn clause_5_8_6_an_endpoint_that_comes_back_gets_everything() {
    let (city, receiver) = (City::start(), Receiver::start());
    let address = receiver.address.clone();
    city.subscribes(subscription(&receiver.url()));
    city.measures(1..=1);
    receiver.gets(1);
    drop(receiver);
    city.measures(2..=6);
    eventually("a delivery fails", || city.shown()["notification"]["timesFailed"].as_u64() > Some(0));
    let receiver = Receiver::start_at(&address);
    receiver.gets(5);
    assert_eq!(values(&receiver), [2, 3, 4, 5, 6]);
    eventually("the success is noted", || city.shown()["notification"]["status"] == "ok");
}

#[test]
fn clause_5_8_6_times_and_failures_are_counted() {
    let (city, receiver) = (City::start(), Receiver::start());
    receiver.answers(500, Duration::ZERO);
    city.subscribes(subscription(&receiver.url()));
    assert!(city.shown()["notification"].get("timesSent").is_none());
    city.measures(1..=1);
    eventually("it fails twice", || city.shown()["notification"]["timesFailed"].as_u64() >= Some(2));
    let shown = city.shown();
    assert_eq!((&shown["status"], &shown["notification"]["status"]), (&json!("active"), &json!("failed")));
    assert!(shown["notification"]["lastErrorReason"].as_str().unwrap().contains("500"));
    assert!(shown["notification"].get("lastSuccess").is_none());
    receiver.answers(204, Duration::ZERO);
    eventually("it succeeds", || city.shown()["notification"]["status"] == "ok");
    let status = city.shown()["notification"].clone();
    assert_eq!(status["timesSent"].as_u64().unwrap(), status["timesFailed"].as_u64().unwrap() + 1);
    assert!(status["lastSuccess"].is_string() && status["lastFailure"].is_string());
}

#[test]
fn clause_5_2_15_a_delivery_that_takes_longer_than_timeout_failed() {
    let (city, receiver) = (City::start(), Receiver::start());
    receiver.answers(200, Duration::from_secs(3));
    city.subscribes(with(subscription(&receiver.url()), "/notification/endpoint/timeout", json!(50)));
    city.measures(1..=1);
    eventually("it fails", || city.shown()["notification"]["status"] == "failed");
    assert!(city.shown()["notification"]["lastErrorReason"].as_str().unwrap().contains("timed out"));
}

/// Nothing is sent to an endpoint for `cooldown` milliseconds after a failure.
#[test]
fn clause_5_2_15_cooldown() {
    let (city, receiver) = (City::start(), Receiver::start());
    receiver.answers(500, Duration::ZERO);
    city.subscribes(with(subscription(&receiver.url()), "/notification/endpoint/cooldown", json!(1_500)));
    city.measures(1..=3);
    eventually("it fails", || city.shown()["notification"]["timesFailed"] == 1);
    receiver.answers(200, Duration::ZERO);
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(receiver.n_asked(), 1);
    receiver.gets(3);
    assert_eq!(values(&receiver), [1, 2, 3]);
}

#[test]
fn clause_5_8_1_create_subscription() {
    let city = City::start();
    let sound = || subscription("http://127.0.0.1:9/n");
    city.subscribes(sound());
    city.post("subscriptions", sound()).problem(409, "AlreadyExists");
    let without_id = with(sound(), "/id", Value::Null).as_object().unwrap().clone();
    let without_id: serde_json::Map<_, _> = without_id.into_iter().filter(|(k, _)| k != "id").collect();
    let made = city.post("subscriptions", Value::Object(without_id)).expect(201);
    let location = made.header("location")[0].to_owned();
    assert_eq!(city.get(&location).expect(200).json()["status"], "active");
    city.subscribes(with(with(sound(), "/id", json!("urn:x:paused")), "/isActive", json!(false)));
    assert_eq!(city.get("subscriptions/urn:x:paused").expect(200).json()["status"], "paused");
    for (pointer, value) in [
        ("/expiresAt", json!("2020-01-01T00:00:00Z")),
        ("/type", json!("Subscripton")),
        ("/entities", json!([])),
        ("/throttling", json!(0)),
        ("/notificationTrigger", json!(["entityRenamed"])),
        ("/notification/endpoint/uri", json!("ftp://example.org/n")),
        ("/notification/endpoint/accept", json!("text/plain")),
        ("/notification/format", json!("long")),
        ("/unknown", json!(1)),
        ("/q", json!("pm25>>1")),
    ] {
        city.post("subscriptions", with(with(sound(), "/id", json!("urn:x:bad")), pointer, value)).problem(400, "BadRequestData");
    }
    city.send("POST", "subscriptions", &[("content-type", "application/json")], Some("{")).problem(400, "InvalidRequest");
}

#[test]
fn clause_5_8_3_retrieve_5_8_4_list_and_5_8_5_delete_subscriptions() {
    let city = City::start();
    for id in ["urn:x:a", "urn:x:b", "urn:x:c"] {
        city.subscribes(with(subscription("http://127.0.0.1:9/n"), "/id", json!(id)));
    }
    let page = city.get("subscriptions?limit=2&count=true").expect(200);
    assert_eq!(page.header("ngsild-results-count"), ["3"]);
    assert_eq!(page.json().as_array().unwrap().len(), 2);
    assert!(page.header("link").iter().any(|l| l.contains("rel=\"next\"")));
    let one = city.get("subscriptions/urn:x:b").expect(200).json();
    assert_eq!((&one["id"], &one["type"], &one["entities"][0]["type"]), (&json!("urn:x:b"), &json!("Subscription"), &json!("Station")));
    assert_eq!(one["notification"]["endpoint"]["uri"], "http://127.0.0.1:9/n");
    city.delete("subscriptions/urn:x:b").expect(204);
    for method in ["GET", "DELETE"] {
        city.send(method, "subscriptions/urn:x:b", &[], None).problem(404, "ResourceNotFound");
    }
    assert_eq!(city.get("subscriptions").expect(200).json().as_array().unwrap().len(), 2);
}

#[test]
fn clause_5_8_5_after_its_end_a_subscription_tells_nothing() {
    let (city, receiver) = (City::start(), Receiver::start());
    city.subscribes(subscription(&receiver.url()));
    receiver.answers(503, Duration::ZERO);
    city.measures(1..=2);
    eventually("it fails", || receiver.n_asked() > 0);
    city.delete(&format!("subscriptions/{SUBSCRIPTION}")).expect(204);
    // One with the same id knows nothing of it.
    receiver.answers(200, Duration::ZERO);
    city.subscribes(subscription(&receiver.url()));
    assert!(city.shown()["notification"].get("timesSent").is_none());
    city.measures(3..=3);
    receiver.gets(1);
    let city = city.killed();
    city.measures(4..=4);
    eventually("the last one arrives", || values(&receiver).last() == Some(&4));
    assert!(!values(&receiver).contains(&1) && !values(&receiver).contains(&2), "{:?}", values(&receiver));
}

impl City {
    #[track_caller]
    fn patches(&self, patch: Value, status: u16) {
        self.with_body("PATCH", &format!("subscriptions/{SUBSCRIPTION}"), patch).expect(status);
    }

    fn state(&self) -> String {
        self.shown()["status"].as_str().unwrap().to_owned()
    }
}

/// The table of clause 5.8.2.4.
#[test]
fn clause_5_8_2_status_after_an_update() {
    let city = City::start();
    city.subscribes(subscription("http://127.0.0.1:9/n"));
    let soon = || {
        let at = city.app.node.now().plus_micros(150_000);
        json!({"expiresAt": at.to_string()})
    };
    let far = json!({"expiresAt": "2199-01-01T00:00:00Z"});
    let both = |active: bool| with(far.clone(), "/isActive", json!(active));
    let expire = || {
        city.patches(soon(), 204);
        eventually("it expires", || city.state() == "expired");
    };
    city.patches(json!({"expiresAt": "2020-01-01T00:00:00Z"}), 400);
    city.patches(json!({"isActive": false}), 204);
    assert_eq!(city.state(), "paused");
    city.patches(far.clone(), 204);
    assert_eq!(city.state(), "paused");
    city.patches(json!({"isActive": true}), 204);
    assert_eq!(city.state(), "active");
    expire();
    for active in [true, false] {
        city.patches(json!({"isActive": active}), 204);
        assert_eq!(city.state(), "expired", "{active}");
    }
    city.patches(far.clone(), 204);
    assert_eq!(city.state(), "active");
    expire();
    city.patches(both(true), 204);
    assert_eq!(city.state(), "active");
    expire();
    city.patches(both(false), 204);
    assert_eq!(city.state(), "paused");
}

#[test]
fn clause_5_8_2_update_subscription() {
    let (city, receiver) = (City::start(), Receiver::start());
    city.subscribes(with(subscription("http://127.0.0.1:9/n"), "/description", json!("first")));
    city.measures(1..=2);
    eventually("it fails", || city.shown()["notification"]["timesFailed"].as_u64() > Some(0));
    // What waits for a wrong address goes to the right one, at once.
    city.patches(json!({"notification": {"endpoint": {"uri": receiver.url()}}, "description": null}), 204);
    receiver.gets(2);
    assert!(city.shown().get("description").is_none());
    city.patches(json!({"q": "pm25>10"}), 204);
    city.measures(5..=5);
    city.measures(11..=11);
    receiver.gets(3);
    assert_eq!(values(&receiver), [1, 2, 11]);
    // Null takes away.
    city.patches(json!({"q": "urn:ngsi-ld:null"}), 204);
    city.measures(6..=6);
    receiver.gets(4);
    assert!(city.shown().get("q").is_none());
    city.patches(json!({"id": "urn:ngsi-ld:Subscription:2"}), 400);
    city.patches(json!({"throttling": -1}), 400);
    city.patches(json!({"whatever": 1}), 400);
    city.patches(json!({"notification": null}), 400);
    city.with_body("PATCH", "subscriptions/urn:x:none", json!({"isActive": true})).problem(404, "ResourceNotFound");
    let city = city.restarted();
    assert_eq!(city.shown()["notification"]["endpoint"]["uri"], receiver.url());
}

/// A paused subscription is told nothing, also not of what happened meanwhile; what had happened before waits until it goes on.
#[test]
fn clause_5_8_2_a_pause() {
    let (city, receiver) = (City::start(), Receiver::start());
    city.subscribes(subscription(&receiver.url()));
    city.measures(1..=1);
    receiver.gets(1);
    receiver.answers(503, Duration::ZERO);
    city.measures(2..=2);
    eventually("it fails", || receiver.n_asked() > 1);
    city.patches(json!({"isActive": false}), 204);
    receiver.answers(200, Duration::ZERO);
    city.measures(3..=3);
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(values(&receiver), [1]);
    city.patches(json!({"isActive": true}), 204);
    city.measures(4..=4);
    receiver.gets(3);
    assert_eq!(values(&receiver), [1, 2, 4]);
}

#[test]
fn clause_5_8_6_an_expired_subscription_tells_nothing() {
    let (city, receiver) = (City::start(), Receiver::start());
    let at = city.app.node.now().plus_micros(700_000);
    city.subscribes(with(subscription(&receiver.url()), "/expiresAt", json!(at.to_string())));
    city.measures(1..=1);
    receiver.gets(1);
    eventually("it expires", || city.state() == "expired");
    city.measures(2..=2);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(values(&receiver), [1]);
}

/// At most one notification per `throttling` seconds; what is held back comes together at the end of the gap, each entity in its last state.
#[test]
fn clause_5_8_6_throttling() {
    let (city, receiver) = (City::start(), Receiver::start());
    city.subscribes(with(subscription(&receiver.url()), "/throttling", json!(1.5)));
    city.measures(1..=10);
    city.writes(station(2, 20));
    let got = receiver.gets(2);
    assert_eq!(got[0].value("pm25"), 1);
    let data = got[1].body["data"].as_array().unwrap();
    let told: Vec<i64> = data.iter().map(|e| e["pm25"]["value"].as_i64().unwrap()).collect();
    assert_eq!(told, [10, 20]);
    let notified_at = |i: usize| got[i].body["notifiedAt"].as_str().unwrap().parse::<entity::Instant>().unwrap();
    assert!(notified_at(1).micros_since(notified_at(0)) >= 1_400_000, "{got:?}");
    assert_eq!(receiver.received().len(), 2);
}

/// What is held back when the process dies is told after the start.
#[test]
fn clause_5_8_6_throttling_loses_nothing_when_the_process_is_killed() {
    let (city, receiver) = (City::start(), Receiver::start());
    city.subscribes(with(subscription(&receiver.url()), "/throttling", json!(2)));
    city.measures(1..=2);
    receiver.gets(1);
    let city = city.killed();
    eventually("the last state is told", || values(&receiver).last() == Some(&2));
    drop(city);
}

/// Every `timeInterval` seconds all entities that match are told, changed or not; nothing if none does.
#[test]
fn clause_5_8_6_time_interval() {
    let (city, receiver) = (City::start(), Receiver::start());
    let periodic = with(with(subscription(&receiver.url()), "/timeInterval", json!(0.4)), "/q", json!("pm25>5"));
    city.post("subscriptions", with(periodic.clone(), "/watchedAttributes", json!(["pm25"]))).problem(400, "BadRequestData");
    city.post("subscriptions", with(periodic.clone(), "/throttling", json!(1))).problem(400, "BadRequestData");
    city.subscribes(periodic);
    std::thread::sleep(Duration::from_millis(900));
    assert!(receiver.received().is_empty());
    city.has(json!([station(1, 1), station(2, 7), station(3, 8)]));
    let got = receiver.gets(3);
    for r in &got {
        let ids: Vec<&str> = r.body["data"].as_array().unwrap().iter().map(|e| e["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["urn:ngsi-ld:Station:2", "urn:ngsi-ld:Station:3"]);
    }
    assert_ne!(got[0].id(), got[1].id());
    // Another interval: the old one has ended.
    city.patches(json!({"timeInterval": 3600}), 204);
    std::thread::sleep(Duration::from_millis(200));
    let n = receiver.received().len();
    std::thread::sleep(Duration::from_millis(900));
    assert_eq!(receiver.received().len(), n);
}

#[test]
fn clause_6_3_8_notifications_over_https() {
    let certificate: &[u8] = include_bytes!("tls/a.cert.pem");
    let receiver = Receiver::start_secure(certificate, include_bytes!("tls/a.key.pem"));
    let uri = receiver.url().replace("http://", "https://");
    let city = City::start_trusting(certificate);
    city.subscribes(subscription(&uri));
    city.measures(1..=3);
    receiver.gets(3);
    assert_eq!(values(&receiver), [1, 2, 3]);
    // Who does not know the authority sends nothing.
    let stranger = City::start();
    stranger.subscribes(subscription(&uri));
    stranger.measures(4..=4);
    eventually("it fails", || stranger.shown()["notification"]["status"] == "failed");
    let why = stranger.shown()["notification"]["lastErrorReason"].clone();
    assert!(why.as_str().unwrap().contains("certificate"), "{why}");
    assert_eq!(receiver.n_asked(), 3);
}

/// What an endpoint finds wrong with a notification itself is given up in the end, and the next one follows.
#[test]
fn clause_5_8_6_what_an_endpoint_refuses_is_given_up_and_counted() {
    let (city, receiver) = (City::start(), Receiver::start());
    receiver.answers(400, Duration::ZERO);
    city.subscribes(subscription(&receiver.url()));
    city.measures(1..=2);
    // A patch makes it try again at once: eight attempts without their pauses.
    for attempt in 1..8 {
        eventually("it is refused", || receiver.n_asked() >= attempt);
        city.patches(json!({"description": attempt.to_string()}), 204);
    }
    eventually("it is given up", || city.shown()["notification"]["timesDropped"] == 1);
    let shown = city.shown()["notification"].clone();
    assert!(shown["lastDroppedReason"].as_str().unwrap().contains("400"), "{shown}");
    receiver.answers(200, Duration::ZERO);
    city.patches(json!({"description": "well"}), 204);
    receiver.gets(1);
    assert_eq!(values(&receiver), [2]);
}
