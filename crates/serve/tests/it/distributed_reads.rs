//! Retrieving and querying over sources: clauses 4.3.6, 4.5.5, 5.7.1.4, 5.7.2.4 and 6.3.17 to 6.3.19.

use std::time::Duration;

use host::Stopwatch;
use serde_json::{Value, json};

use crate::city::{Answer, City, eventually};
use crate::source::{Says, Source};

/// Registers a source at a city.
#[track_caller]
pub(crate) fn register(city: &City, n: usize, url: &str, information: Value, more: Value) {
    let mut all = json!({
        "id": format!("urn:r:{n}"), "type": "ContextSourceRegistration", "endpoint": url, "information": information,
    });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    city.post("csourceRegistrations", all).expect(201);
}

fn rooms() -> Value {
    json!([{"entities": [{"type": "Room"}]}])
}

fn ids(answer: &Answer) -> Vec<String> {
    answer.json().as_array().unwrap().iter().map(|e| e["id"].as_str().unwrap().to_owned()).collect()
}

fn room(id: &str, temperature: i64) -> Value {
    json!({"id": format!("urn:x:{id}"), "type": "Room", "t": {"type": "Property", "value": temperature}})
}

fn warnings(answer: &Answer) -> Vec<String> {
    answer.header("ngsild-warning").iter().map(|w| (*w).to_owned()).collect()
}

#[test]
fn clause_5_7_1_4_retrieve_over_sources() {
    let (a, b, c) = (City::start(), City::start(), City::start());
    b.has(json!({"id": "urn:x:1", "type": ["Room", "Hall"], "scope": "/B", "t": {"type": "Property", "value": 2, "observedAt": "2026-01-02T00:00:00Z"}, "u": 1}));
    c.has(json!({"id": "urn:x:1", "type": "Room", "h": 3, "secret": 1}));
    register(&a, 1, &b.url(""), rooms(), json!({}));
    register(&a, 2, &c.url("/"), json!([{"entities": [{"type": "Room"}], "propertyNames": ["h"]}]), json!({}));
    // Nobody but sources has it.
    let there = a.get("entities/urn:x:1?format=simplified").expect(200);
    assert_eq!(there.json(), json!({"id": "urn:x:1", "type": ["Room", "Hall"], "scope": "/B", "t": 2, "u": 1, "h": 3}));
    assert_eq!(warnings(&there), [""; 0]);
    a.get("entities/urn:x:1?local=true").problem(404, "ResourceNotFound");
    a.get("entities/urn:x:none").problem(404, "ResourceNotFound");
    // The newest by observedAt wins, whoever has it; types and scopes are united.
    a.has(json!({"id": "urn:x:1", "type": "Room", "scope": "/A", "t": {"type": "Property", "value": 1, "observedAt": "2026-01-01T00:00:00Z"}}));
    let merged = a.simplified("urn:x:1");
    assert_eq!((&merged["t"], &merged["scope"]), (&json!(2), &json!(["/A", "/B"])));
    b.post("entities/urn:x:1/attrs", json!({"t": {"type": "Property", "value": 0, "observedAt": "2025-01-01T00:00:00Z"}})).expect(204);
    assert_eq!(a.simplified("urn:x:1")["t"], 1);
    // Without observedAt the one changed last.
    a.post("entities/urn:x:1/attrs", json!({"u": 5})).expect(204);
    assert_eq!(a.simplified("urn:x:1")["u"], 5);
    b.post("entities/urn:x:1/attrs", json!({"u": 6})).expect(204);
    assert_eq!(a.simplified("urn:x:1")["u"], 6);
    // What is asked for is passed on, and shown here.
    assert_eq!(a.get("entities/urn:x:1?attrs=h&format=simplified").expect(200).json()["h"], 3);
    assert_eq!(a.get("entities/urn:x:1?pick=id,u&format=simplified").expect(200).json(), json!({"id": "urn:x:1", "u": 6}));
    a.get("entities/urn:x:1?type=Car").problem(404, "ResourceNotFound");
    let r = a.get("csourceRegistrations/urn:r:1").expect(200).json();
    assert_eq!((&r["status"], &r["timesFailed"]), (&json!("ok"), &json!(0)));
    assert!(r["timesSent"].as_u64().unwrap() >= 6 && r["lastSuccess"].is_string(), "{r}");
}

#[test]
fn clause_4_5_5_3_expired_data_of_sources_are_left_out() {
    let source = Source::saying(Says::json(
        200,
        json!({"id": "urn:x:1", "type": "Room", "a": {"type": "Property", "value": 1, "expiresAt": "2020-01-01T00:00:00Z"}, "b": {"type": "Property", "value": 2}}),
    ));
    let city = City::start();
    register(&city, 1, &source.url, rooms(), json!({}));
    assert_eq!(city.simplified("urn:x:1"), json!({"id": "urn:x:1", "type": "Room", "b": 2}));
}

#[test]
fn clause_5_7_2_4_query_over_sources_with_pages_and_count() {
    let (a, b, c) = (City::start(), City::start(), City::start());
    a.has(json!([room("1", 10), room("4", 40), room("7", 70)]));
    b.has(json!([room("2", 20), room("4", 41), room("5", 50)]));
    c.has(json!([room("0", 0), room("3", 30), room("9", 90), {"id": "urn:x:car", "type": "Car", "t": 1}]));
    register(&a, 1, &b.url(""), rooms(), json!({}));
    register(&a, 2, &c.url(""), rooms(), json!({}));
    let all = ["urn:x:0", "urn:x:1", "urn:x:2", "urn:x:3", "urn:x:4", "urn:x:5", "urn:x:7", "urn:x:9"];
    let found = a.get("entities?type=Room&count=true").expect(200);
    assert_eq!(ids(&found), all);
    assert_eq!(found.header("ngsild-results-count"), ["8"]);
    assert_eq!(ids(&a.get("entities?type=Room&local=true").expect(200)), ["urn:x:1", "urn:x:4", "urn:x:7"]);
    // Pages of every size and from every place are slices of the whole.
    for limit in 1..=9_usize {
        for offset in 0..=9_usize {
            let page = a.get(&format!("entities?type=Room&limit={limit}&offset={offset}&count=true")).expect(200);
            let want: Vec<&str> = all.iter().skip(offset).take(limit).copied().collect();
            assert_eq!(ids(&page), want, "{limit} from {offset}");
            assert_eq!(page.header("ngsild-results-count"), ["8"]);
            let has_next = page.header("link").iter().any(|l| l.contains("rel=\"next\""));
            assert_eq!(has_next, offset + limit < 8, "{limit} from {offset}");
        }
    }
    assert_eq!(a.get("entities?type=Room&limit=0&count=true").expect(200).header("ngsild-results-count"), ["8"]);
    // The conditions are the sources', too.
    assert_eq!(ids(&a.get("entities?type=Room&q=t>=30;t<=50").expect(200)), ["urn:x:3", "urn:x:4", "urn:x:5"]);
    assert_eq!(ids(&a.get("entities?type=Room&id=urn:x:9,urn:x:2,urn:x:1").expect(200)), ["urn:x:1", "urn:x:2", "urn:x:9"]);
    assert_eq!(ids(&a.get("entities?type=Car").expect(200)), [""; 0], "cars are not registered");
    let by_body =
        a.post("entityOperations/query", json!({"type": "Query", "entities": [{"type": "Room", "idPattern": "[29]$"}]})).expect(200);
    assert_eq!(ids(&by_body), ["urn:x:2", "urn:x:9"]);
    let several = json!({"type": "Query", "entities": [{"type": "Room", "id": "urn:x:2"}, {"type": "Room", "id": "urn:x:9"}, {"type": "Room", "id": "urn:x:1"}]});
    assert_eq!(ids(&a.post("entityOperations/query", several).expect(200)), ["urn:x:1", "urn:x:2", "urn:x:9"]);
    let merged = a.get("entities?type=Room&id=urn:x:4&format=simplified").expect(200).json();
    assert_eq!(merged[0]["t"], 41, "the one changed last");
}

#[test]
fn clause_5_7_2_4_an_entity_in_parts_is_shown_as_a_whole() {
    let (a, b) = (City::start(), City::start());
    a.has(json!({"id": "urn:x:1", "type": "Room", "name": "here"}));
    b.has(json!({"id": "urn:x:1", "type": "Room", "t": 25}));
    let one = json!([{"entities": [{"type": "Room", "id": "urn:x:1"}], "propertyNames": ["t"]}]);
    register(&a, 1, &b.url(""), one, json!({"mode": "exclusive"}));
    let found = a.get("entities?type=Room&q=t>20&format=simplified").expect(200).json();
    assert_eq!(found, json!([{"id": "urn:x:1", "type": "Room", "name": "here", "t": 25}]));
    assert_eq!(a.get("entities?type=Room&q=t>30").expect(200).json(), json!([]));
    assert_eq!(a.get("entities?type=Room&q=name==%22here%22&format=simplified").expect(200).json()[0]["name"], "here");
}

#[test]
fn clause_4_3_6_2_auxiliary_sources_fill_gaps_only() {
    let (a, b) = (City::start(), City::start());
    a.has(json!({"id": "urn:x:1", "type": "Room", "t": {"type": "Property", "value": 1, "observedAt": "2020-01-01T00:00:00Z"}}));
    b.has(json!({"id": "urn:x:1", "type": "Room", "t": {"type": "Property", "value": 2, "observedAt": "2026-01-01T00:00:00Z"}, "h": 3}));
    register(&a, 1, &b.url(""), rooms(), json!({"mode": "auxiliary", "operations": ["retrieveOps"]}));
    for found in [a.simplified("urn:x:1"), a.get("entities?type=Room&format=simplified").expect(200).json()[0].clone()] {
        assert_eq!((&found["t"], &found["h"]), (&json!(1), &json!(3)));
    }
}

#[test]
fn clause_6_3_17_failures_of_sources_are_warnings() {
    let city = City::start();
    city.has(room("1", 1));
    let slow = Source::saying(Says::json(200, json!([])).after(Duration::from_secs(20)));
    let broken = Source::saying(Says { body: "<html>".to_owned(), ..Says::json(200, json!([])) });
    let wrong = Source::saying(Says::json(200, json!([{"id": "urn:x:2"}])));
    let forbidden = Source::saying(Says::json(403, json!({"detail": "not for \"you\""})));
    let looping = Source::saying(Says::json(508, json!({})));
    let empty = Source::saying(Says::json(404, json!({})));
    for (n, url) in [&slow, &broken, &wrong, &forbidden, &looping, &empty].iter().map(|s| &s.url).enumerate() {
        register(&city, n, url, rooms(), json!({"management": {"timeout": 200}}));
    }
    register(&city, 6, "http://127.0.0.1:9", rooms(), json!({}));
    let stopwatch = Stopwatch::start();
    let found = city.get("entities?type=Room").expect(200);
    assert!(stopwatch.elapsed() < Duration::from_secs(5));
    assert_eq!(ids(&found), ["urn:x:1"]);
    let alias = city.get("info/sourceIdentity").json()["contextSourceAlias"].as_str().unwrap().to_owned();
    let codes = |answer: &Answer| -> Vec<(String, String)> {
        let all = warnings(answer);
        all.iter().map(|w| (w[..3].to_owned(), w.split("urn:r:").nth(1).unwrap()[..1].to_owned())).collect()
    };
    let want = [("199", "0"), ("111", "1"), ("111", "2"), ("299", "3"), ("199", "4"), ("199", "6")];
    assert_eq!(codes(&found), want.map(|(a, b)| (a.to_owned(), b.to_owned())));
    assert!(warnings(&found).iter().all(|w| w[4..].starts_with(&format!("{alias} \"")) && w.ends_with('"')), "{:?}", warnings(&found));
    let status = city.get("csourceRegistrations/urn:r:3").json();
    assert_eq!((&status["status"], &status["timesFailed"]), (&json!("failed"), &json!(1)));
    assert_eq!(city.get("csourceRegistrations/urn:r:5").json()["status"], "ok");
    // A source that hung a moment ago holds up nobody now.
    let stopwatch = Stopwatch::start();
    let again = city.get("entities?type=Room").expect(200);
    assert!(stopwatch.elapsed() < Duration::from_millis(150), "{:?}", stopwatch.elapsed());
    assert_eq!(codes(&again), want.map(|(a, b)| (a.to_owned(), b.to_owned())));
    assert_eq!(slow.received().len(), 1);
}

#[test]
fn clause_6_3_17_failures_of_the_only_source_are_the_answer() {
    let city = City::start();
    let slow = Source::saying(Says::json(200, json!({})).after(Duration::from_secs(20)));
    let sources = [
        (slow, 504),
        (Source::saying(Says::nothing(404)), 404),
        (Source::saying(Says::json(403, json!({}))), 502),
        (Source::saying(Says::json(200, json!([]))), 502),
        (Source::saying(Says::nothing(508)), 508),
    ];
    for (n, (source, status)) in sources.iter().enumerate() {
        let id = format!("urn:x:{n}");
        let information = json!([{"entities": [{"type": "Room", "id": id}], "propertyNames": ["t"]}]);
        register(&city, n, &source.url, information, json!({"mode": "exclusive", "management": {"timeout": 200}}));
        city.get(&format!("entities/{id}")).expect(*status);
    }
}

#[test]
fn clause_5_2_34_cooldown_and_cache_duration() {
    let city = City::start();
    let failing = Source::saying(Says::nothing(500));
    register(&city, 1, &failing.url, rooms(), json!({"management": {"cooldown": 600}}));
    for _ in 0..3 {
        assert_eq!(warnings(&city.get("entities?type=Room").expect(200)).len(), 1);
    }
    assert_eq!(failing.received().len(), 1);
    eventually("the cool-down ends", || {
        city.get("entities?type=Room").expect(200);
        failing.received().len() == 2
    });
    city.delete("csourceRegistrations/urn:r:1").expect(204);

    let source = Source::saying(Says::json(200, json!([room("1", 1)])));
    register(&city, 2, &source.url, rooms(), json!({"management": {"cacheDuration": "PT1H"}}));
    assert_eq!(warnings(&city.get("entities?type=Room").expect(200)), [""; 0]);
    let cached = city.get("entities?type=Room").expect(200);
    assert_eq!(ids(&cached), ["urn:x:1"]);
    assert!(warnings(&cached)[0].starts_with("110 "), "{:?}", warnings(&cached));
    assert_eq!(source.received().len(), 1);
    city.get("entities?type=Room&q=t==1").expect(200);
    assert_eq!(source.received().len(), 2, "another question");
}

#[test]
fn clause_6_3_18_via_stops_loops() {
    let (a, b) = (City::start(), City::start());
    a.has(room("1", 1));
    b.has(room("2", 2));
    // Each is registered at the other: a question comes back once and no further.
    register(&a, 1, &b.url(""), rooms(), json!({}));
    register(&b, 1, &a.url(""), rooms(), json!({}));
    let found = a.get("entities?type=Room").expect(200);
    assert_eq!(ids(&found), ["urn:x:1", "urn:x:2"]);
    let alias = |city: &City| city.get("info/sourceIdentity").json()["contextSourceAlias"].as_str().unwrap().to_owned();
    a.send("GET", "entities?type=Room", &[("via", &format!("1.1 x, 1.1 {} (us)", alias(&a)))], None).expect(508);
    a.send("GET", "entities/urn:x:1", &[("via", &format!("1.1 {}", alias(&a)))], None).expect(508);
    // What is asked of this node alone goes no further.
    a.send("GET", "entities/urn:x:1?local=true", &[("via", &format!("1.1 {}", alias(&a)))], None).expect(200);
    // A source whose name is known is not even asked.
    a.with_body("PATCH", "csourceRegistrations/urn:r:1", json!({"contextSourceAlias": "north"})).expect(204);
    let sent = a.get("csourceRegistrations/urn:r:1").json()["timesSent"].clone();
    let passed = a.send("GET", "entities?type=Room", &[("via", "1.1 north")], None).expect(200);
    assert!(warnings(&passed)[0].starts_with("199 "));
    assert_eq!(a.get("csourceRegistrations/urn:r:1").json()["timesSent"], sent);
}

#[test]
fn clause_6_3_18_a_request_is_spelled_as_its_receiver_expects() {
    let source = Source::saying(Says::json(200, json!([])));
    let city = City::start();
    let information = json!([{"entities": [{"type": "Room"}], "propertyNames": ["t", "https://a.example/ns#h"]}]);
    register(
        &city,
        1,
        &source.url,
        information,
        json!({
            "tenant": "north", "management": {"localOnly": true},
            "contextSourceInfo": [
                {"key": "Authorization", "value": "urn:ngsi-ld:request"}, {"key": "X-Key", "value": "k"},
                {"key": "X-Absent", "value": "urn:ngsi-ld:request"}, {"key": "NGSILD-Tenant", "value": "other"}, {"key": "Content-Length", "value": "7"},
            ],
        }),
    );
    let headers = [("authorization", "Bearer abc"), ("via", "1.1 first")];
    city.send("GET", "entities?type=Room,Car&id=urn:x:2,urn:x:1&q=t>20|t<3;t&attrs=t,z&limit=5", &headers, None).expect(200);
    let got = source.received().pop().unwrap();
    assert_eq!(got.target.split_once('?').unwrap().0, "/ngsi-ld/v1/entities");
    let parameters: Vec<(String, String)> = got.parameters();
    let parameters: Vec<(&str, &str)> = parameters.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(
        parameters,
        [
            ("type", "Room"),
            ("q", "t>20|t<3;t"),
            ("id", "urn:x:2,urn:x:1"),
            ("attrs", "t"),
            ("options", "sysAttrs"),
            ("limit", "1000"),
            ("local", "true"),
        ]
    );
    let alias = city.get("info/sourceIdentity").json()["contextSourceAlias"].as_str().unwrap().to_owned();
    assert_eq!(got.header("via"), ["1.1 first".to_owned(), format!("1.1 {alias}")]);
    assert_eq!(got.header("ngsild-tenant"), ["north"]);
    assert_eq!((got.header("authorization"), got.header("x-key")), (vec!["Bearer abc"], vec!["k"]));
    assert_eq!(got.header("x-absent"), [""; 0]);
    assert_eq!(got.header("accept"), ["application/json"]);
    assert!(got.header("link")[0].starts_with("<https://uri.etsi.org/ngsi-ld/v1/ngsi-ld-core-context"), "{got:?}");
    // Without parameters of its own a registration narrows the question to what it registered, in full names.
    city.get("entities?type=Room").expect(200);
    let got = source.received().pop().unwrap().parameters();
    assert!(got.contains(&("attrs".to_owned(), "t,https://a.example/ns#h".to_owned())), "{got:?}");
}

#[test]
fn clause_4_3_6_6_the_context_that_a_source_wants() {
    let context = "https://fiware.github.io/NGSI-LD_TestSuite/ldContext/testContext.jsonld";
    let source = Source::saying(Says::json(200, json!([{"id": "urn:x:1", "type": "Vehicle", "speed": {"type": "Property", "value": 3}}])));
    let city = City::start();
    let with_context = json!({
        "id": "urn:r:1", "type": "ContextSourceRegistration", "endpoint": source.url, "@context": context,
        "information": [{"entities": [{"type": "Vehicle"}], "propertyNames": ["speed"]}],
        "contextSourceInfo": [{"key": "jsonldContext", "value": context}, {"key": "accept", "value": "application/ld+json"}],
    });
    city.send("POST", "csourceRegistrations", &[("content-type", "application/ld+json")], Some(&with_context.to_string())).expect(201);
    let link = format!("<{context}>; rel=\"http://www.w3.org/ns/json-ld#context\"; type=\"application/ld+json\"");
    let found = city.send("GET", "entities?type=Vehicle&q=speed>2&format=simplified", &[("link", &link)], None).expect(200);
    assert_eq!(found.json(), json!([{"id": "urn:x:1", "type": "Vehicle", "speed": 3}]));
    let got = source.received().pop().unwrap();
    assert_eq!(got.header("link"), [link.as_str()]);
    assert_eq!(got.header("accept"), ["application/ld+json"]);
    let parameters = got.parameters();
    for (name, value) in [("type", "Vehicle"), ("attrs", "speed"), ("q", "speed>2")] {
        assert!(parameters.contains(&(name.to_owned(), value.to_owned())), "{parameters:?}");
    }
}

#[test]
fn clause_4_9_csf_chooses_among_sources() {
    let (a, b, c) = (City::start(), City::start(), City::start());
    b.has(room("2", 2));
    c.has(room("3", 3));
    register(&a, 1, &b.url(""), rooms(), json!({"owner": "north"}));
    register(&a, 2, &c.url(""), rooms(), json!({"owner": "south"}));
    assert_eq!(ids(&a.get("entities?type=Room&csf=owner==%22south%22").expect(200)), ["urn:x:3"]);
    a.get("entities?type=Room&csf=owner==").problem(400, "BadRequestData");
}

#[test]
fn clause_5_7_5_4_types_and_attributes_of_sources() {
    let (a, b) = (City::start(), City::start());
    a.has(json!({"id": "urn:x:1", "type": "Lamp", "on": true}));
    b.has(json!([room("2", 2), {"id": "urn:x:3", "type": "Car", "speed": 3}]));
    register(&a, 1, &b.url(""), json!([{"entities": [{"type": "Room"}], "propertyNames": ["t"]}]), json!({}));
    let dead = Source::saying(Says::nothing(500));
    register(&a, 2, &dead.url, rooms(), json!({}));
    let types = a.get("types").expect(200);
    assert_eq!(types.json()["typeList"], json!(["Lamp", "Room"]), "cars are not registered");
    assert!(warnings(&types)[0].starts_with("299 "));
    assert_eq!(a.get("types?local=true").expect(200).json()["typeList"], json!(["Lamp"]));
    assert_eq!(a.get("attributes").expect(200).json()["attributeList"], json!(["on", "t"]));
}

#[test]
fn clause_5_7_2_4_split_entities_are_judged_as_a_whole() {
    let (a, b) = (City::start(), City::start());
    let old = |value: i64| json!({"type": "Property", "value": value, "observedAt": "2020-01-01T00:00:00Z"});
    let new = |value: i64| json!({"type": "Property", "value": value, "observedAt": "2026-01-01T00:00:00Z"});
    a.has(json!([
        {"id": "urn:x:1", "type": "Room", "name": "here"}, {"id": "urn:x:2", "type": "Room", "t": old(10)}, {"id": "urn:x:3", "type": "Room", "t": 10},
        {"id": "urn:x:5", "type": "Room", "t": old(10)}, {"id": "urn:x:6", "type": "Room", "t": 10}, {"id": "urn:x:7", "type": "Room", "t": 10},
    ]));
    b.has(json!([
        {"id": "urn:x:1", "type": "Room", "t": 25}, {"id": "urn:x:2", "type": "Room", "t": new(30)}, {"id": "urn:x:4", "type": "Room", "t": 10},
        {"id": "urn:x:5", "type": "Room", "t": new(50)},
    ]));
    register(&a, 1, &b.url(""), rooms(), json!({}));
    let both = "entities?type=Room&q=name==%22here%22;t>20";
    assert_eq!(ids(&a.get(both).expect(200)), [""; 0], "neither part satisfies both conditions");
    assert_eq!(ids(&a.get(&format!("{both}&splitEntities=true")).expect(200)), ["urn:x:1"]);
    // Of room 2 and 5 this node has an old value only, which counts for nothing in the whole.
    let all = ["urn:x:3", "urn:x:4", "urn:x:6", "urn:x:7"];
    for limit in 1..=5_usize {
        for offset in 0..=4_usize {
            let page =
                a.get(&format!("entities?type=Room&q=t==10&splitEntities=true&count=true&limit={limit}&offset={offset}")).expect(200);
            let want: Vec<&str> = all.iter().skip(offset).take(limit).copied().collect();
            assert_eq!(ids(&page), want, "{limit} from {offset}");
            assert_eq!(page.header("ngsild-results-count"), ["4"]);
        }
    }
    a.get("entities?type=Room&splitEntities=maybe").problem(400, "InvalidRequest");
}
