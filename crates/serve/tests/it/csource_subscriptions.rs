//! Registration subscriptions: clauses 5.3.2, 5.3.3 and 5.11.

use serde_json::{Value, json};

use crate::city::{City, eventually};
use crate::distributed_reads::register;
use crate::source::{Says, Source};

const SUB: &str = "urn:ngsi-ld:Subscription:1";

fn rooms() -> Value {
    json!([{"entities": [{"type": "Room"}]}, {"entities": [{"type": "Car"}]}])
}

fn subscription(url: &str) -> Value {
    json!({
        "id": SUB, "type": "Subscription", "entities": [{"type": "Room"}], "notification": {"endpoint": {"uri": url, "accept": "application/json"}},
    })
}

/// The reasons and the registrations told so far.
fn told(receiver: &Source) -> Vec<(String, Vec<String>)> {
    let of = |body: Value| {
        assert_eq!((&body["type"], &body["subscriptionId"]), (&json!("ContextSourceNotification"), &json!(SUB)));
        assert!(body["notifiedAt"].is_string() && body["id"].is_string());
        let ids = body["data"].as_array().unwrap().iter().map(|r| r["id"].as_str().unwrap().to_owned()).collect();
        (body["triggerReason"].as_str().unwrap().to_owned(), ids)
    };
    receiver.received().iter().map(|r| of(r.json())).collect()
}

#[test]
fn clause_5_11_2_to_5_11_6_registration_subscriptions() {
    let city = City::start();
    let path = format!("csourceSubscriptions/{SUB}");
    let created = city.post("csourceSubscriptions", subscription("http://127.0.0.1:9")).expect(201);
    assert_eq!(created.header("location"), [format!("/ngsi-ld/v1/{path}")]);
    city.post("csourceSubscriptions", subscription("http://127.0.0.1:9")).problem(409, "AlreadyExists");
    let mut wrong = subscription("http://127.0.0.1:9");
    wrong["id"] = "urn:x:other".into();
    wrong["expiresAt"] = "2020-01-01T00:00:00Z".into();
    city.post("csourceSubscriptions", wrong).problem(400, "BadRequestData");
    city.with_body("PATCH", &path, json!({"isActive": false, "description": "d"})).expect(204);
    let city = city.restarted();
    let shown = city.get(&path).expect(200).json();
    assert_eq!((&shown["status"], &shown["description"], &shown["entities"][0]["type"]), (&json!("paused"), &json!("d"), &json!("Room")));
    let list = city.get("csourceSubscriptions?count=true").expect(200);
    assert_eq!((list.header("ngsild-results-count"), list.json().as_array().unwrap().len()), (vec!["1"], 1));
    assert_eq!(city.get("subscriptions").expect(200).json(), json!([]), "they are not subscriptions to entities");
    city.with_body("PATCH", "csourceSubscriptions/urn:x:none", json!({})).problem(404, "ResourceNotFound");
    city.with_body("PATCH", &path, json!({"id": "urn:x:2"})).problem(400, "BadRequestData");
    city.get("csourceSubscriptions/none").problem(400, "BadRequestData");
    city.delete(&path).expect(204);
    city.delete(&path).problem(404, "ResourceNotFound");
    city.get(&path).problem(404, "ResourceNotFound");
}

#[test]
fn clause_5_11_7_what_happens_to_registrations_is_told() {
    let city = City::start();
    let receiver = Source::saying(Says::nothing(200));
    register(&city, 1, "http://127.0.0.1:9", rooms(), json!({}));
    register(&city, 2, "http://127.0.0.1:9", json!([{"entities": [{"type": "Bus"}]}]), json!({}));
    let mut want: Vec<(String, Vec<String>)> = Vec::new();
    let mut expect = |reason: &str, ids: &[&str]| {
        want.push((reason.to_owned(), ids.iter().map(|i| (*i).to_owned()).collect()));
        eventually(reason, || told(&receiver).len() >= want.len());
        assert_eq!(told(&receiver), want);
    };
    city.post("csourceSubscriptions", subscription(&receiver.url)).expect(201);
    expect("newlyMatching", &["urn:r:1"]);
    register(&city, 3, "http://127.0.0.1:9", rooms(), json!({}));
    expect("newlyMatching", &["urn:r:3"]);
    city.with_body("PATCH", "csourceRegistrations/urn:r:3", json!({"description": "d"})).expect(204);
    expect("updated", &["urn:r:3"]);
    city.with_body("PATCH", "csourceRegistrations/urn:r:2", json!({"information": rooms()})).expect(204);
    expect("newlyMatching", &["urn:r:2"]);
    city.with_body("PATCH", "csourceRegistrations/urn:r:2", json!({"information": [{"entities": [{"type": "Bus"}]}]})).expect(204);
    expect("noLongerMatching", &["urn:r:2"]);
    city.delete("csourceRegistrations/urn:r:3").expect(204);
    expect("noLongerMatching", &["urn:r:3"]);
    // After a change of the subscription everything that matches is told.
    city.with_body("PATCH", &format!("csourceSubscriptions/{SUB}"), json!({"description": "d"})).expect(204);
    expect("newlyMatching", &["urn:r:1"]);
    // Only the parts that match are shown.
    let last = receiver.received().pop().unwrap();
    assert_eq!(last.json()["data"][0]["information"], json!([{"entities": [{"type": "Room"}]}]));
    assert!(last.header("link")[0].contains("json-ld#context"));
    let shown = city.get(&format!("csourceSubscriptions/{SUB}")).expect(200).json();
    assert_eq!((&shown["notification"]["timesSent"], &shown["notification"]["status"]), (&json!(7), &json!("ok")));
}
