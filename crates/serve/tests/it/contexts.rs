//! Contexts: clauses 5.13, 6.3.5, 6.29, 6.30 and the rules of 5.5.5 to 5.5.7.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::city::{City, eventually};

const ID: &str = "urn:ngsi-ld:Lamp:1";
const LIST: &str = "jsonldContexts";

/// Somebody else's web server with contexts.
struct Web {
    base: String,
    answer: Arc<Mutex<String>>,
    n_asked: Arc<AtomicUsize>,
}

impl Web {
    /// Answers every request with `answer`, a whole HTTP response, after a pause.
    fn start(answer: &str, pause: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (answer, n_asked) = (Arc::new(Mutex::new(answer.to_owned())), Arc::new(AtomicUsize::new(0)));
        let (said, n) = (Arc::clone(&answer), Arc::clone(&n_asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let head = BufReader::new(stream.try_clone().unwrap()).lines();
                head.map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
                n.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(pause);
                // A client that has gone does not matter.
                let _ = stream.write_all(said.lock().unwrap().as_bytes());
            }
        });
        Self { base, answer, n_asked }
    }

    fn asked(&self) -> usize {
        self.n_asked.load(Ordering::SeqCst)
    }

    fn says(&self, answer: &str) {
        answer.clone_into(&mut self.answer.lock().unwrap());
    }
}

fn document(headers: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "HTTP/1.1 200 OK\r\n{headers}content-type: application/ld+json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn link(url: &str) -> String {
    format!("<{url}>; rel=\"http://www.w3.org/ns/json-ld#context\"; type=\"application/ld+json\"")
}

/// A city that has a lamp whose attribute is known by `https://example.org/brightness`.
fn city_with_lamp() -> City {
    let city = City::start();
    city.has(json!({"id": ID, "type": "Lamp", "https://example.org/brightness": {"type": "Property", "value": 7}}));
    city
}

fn host(city: &City, context: Value) -> String {
    let created = city.post(LIST, json!({"@context": context, "ignored": 1})).expect(201);
    assert_eq!(created.body, "");
    created.header("location")[0].to_owned()
}

#[test]
fn clause_5_13_2_hosted_contexts_work_by_their_url_at_once_and_after_a_restart() {
    let city = city_with_lamp();
    let location = host(&city, json!({"hell": "https://example.org/brightness"}));
    assert!(location.starts_with("/ngsi-ld/v1/jsonldContexts/"), "{location}");
    let served = city.get(&location).expect(200);
    assert_eq!(served.json(), json!({"@context": {"hell": "https://example.org/brightness"}}));
    assert_eq!(served.header("content-type"), ["application/ld+json"]);
    let url = city.url(&location);
    let shown = city.send("GET", &format!("entities/{ID}"), &[("link", &link(&url))], None).expect(200);
    assert_eq!(shown.json()["hell"]["value"], 7);
    assert_eq!(shown.header("link"), [link(&url)]);

    let city = city.restarted();
    assert_eq!(city.get(&location).expect(200).json()["@context"]["hell"], "https://example.org/brightness");
    let url = city.url(&location);
    let shown = city.send("GET", &format!("entities/{ID}"), &[("link", &link(&url))], None).expect(200);
    assert_eq!(shown.json()["hell"]["value"], 7);
}

#[test]
fn clause_5_13_2_what_is_no_context_is_refused() {
    let city = City::start();
    for body in [
        json!([]),
        json!({"id": 1}),
        json!({"@context": 5}),
        json!({"@context": null}),
        json!({"@context": {"a": 1}}),
        json!({"@context": "no url"}),
        // Scoped contexts are not allowed to users (clause 5.5.7).
        json!({"@context": {"a": {"@id": "https://example.org/a", "@context": {"b": "https://example.org/b"}}}}),
    ] {
        let answer = city.post(LIST, body.clone());
        assert_eq!(answer.status, 400, "{body}: {}", answer.body);
        answer.problem(400, "BadRequestData");
    }
    city.send("POST", LIST, &[("content-type", "application/json")], Some("{")).problem(400, "InvalidRequest");
    city.post(&format!("{LIST}?details=true"), json!({"@context": {}})).problem(400, "InvalidRequest");
    assert_eq!(city.get(&format!("{LIST}?kind=Hosted")).json(), json!([]));
}

#[test]
fn clause_5_13_3_lists_and_metadata() {
    let city = city_with_lamp();
    let location = host(&city, json!({"hell": "https://example.org/brightness"}));
    let url = city.url(&location);
    let local_id = location.rsplit('/').next().unwrap();
    assert_eq!(city.get(&format!("{LIST}?kind=Hosted")).json(), json!([url]));
    let hosted = || city.get(&format!("{LIST}?kind=Hosted&details=true")).json();
    let before = hosted();
    assert_eq!((&before[0]["URL"], &before[0]["localId"], &before[0]["kind"]), (&json!(url), &json!(local_id), &json!("Hosted")));
    assert!(before[0]["createdAt"].is_string() && before[0].get("lastUsage").is_none(), "{before}");
    for _ in 0..3 {
        city.send("GET", &format!("entities/{ID}"), &[("link", &link(&url))], None).expect(200);
    }
    assert_eq!(hosted()[0]["numberOfHits"], json!(before[0]["numberOfHits"].as_u64().unwrap() + 3));
    assert!(hosted()[0]["lastUsage"].is_string());
    assert_eq!(city.get(&format!("{LIST}/{local_id}?details=true")).json(), hosted()[0]);
    // The core context is there from the beginning; like all that is not ours only its metadata are given.
    let cached = city.get(&format!("{LIST}?kind=Cached")).json();
    assert!(cached.as_array().unwrap().iter().any(|u| u == ngsi::context::CORE_CONTEXT_URL), "{cached}");
    let core = city.get(&format!("{LIST}?kind=Cached&details=true")).json()[0]["localId"].as_str().unwrap().to_owned();
    city.get(&format!("{LIST}/{core}")).problem(422, "OperationNotSupported");
    city.get(&format!("{LIST}/{core}?details=true")).expect(200);
    city.get(&format!("{LIST}?kind=Sideways")).problem(400, "BadRequestData");
    city.get(&format!("{LIST}?details=maybe")).problem(400, "BadRequestData");
    city.get(&format!("{LIST}?detail=true")).problem(400, "InvalidRequest");
    city.get(&format!("{LIST}/unknown")).problem(404, "ResourceNotFound");
}

#[test]
fn clause_5_13_5_delete_and_reload() {
    let city = city_with_lamp();
    let location = host(&city, json!({"hell": "https://example.org/brightness"}));
    city.delete(&format!("{location}?reload=true")).problem(400, "BadRequestData");
    city.delete(&location).expect(204);
    city.get(&location).problem(404, "ResourceNotFound");
    city.delete(&location).problem(404, "ResourceNotFound");
    let shown = city.send("GET", &format!("entities/{ID}"), &[("link", &link(&city.url(&location)))], None);
    shown.problem(504, "LdContextNotAvailable");
    let city = city.restarted();
    city.get(&location).problem(404, "ResourceNotFound");

    let web = Web::start(&document("", &json!({"@context": {"hell": "https://example.org/brightness"}})), Duration::ZERO);
    let url = format!("{}/a.jsonld", web.base);
    let look = || city.send("GET", &format!("entities/{ID}"), &[("link", &link(&url))], None).expect(200).json();
    let path = format!("{LIST}/{}", url.replace('/', "%2F").replace(':', "%3A"));
    city.delete(&path).problem(404, "ResourceNotFound");
    assert_eq!(look()["hell"]["value"], 7);
    let known = city.get(&format!("{path}?details=true")).expect(200).json();
    assert_eq!((&known["URL"], &known["kind"]), (&json!(url), &json!("Cached")));
    assert!(known["expiresAt"].as_str() > known["createdAt"].as_str(), "{known}");
    city.get(&path).problem(422, "OperationNotSupported");
    // A copy that cannot be had anew, or is none any more, leaves the old one in place.
    web.says("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    city.delete(&format!("{path}?reload=true")).problem(504, "LdContextNotAvailable");
    web.says(&document("", &json!({"no": "context"})));
    city.delete(&format!("{path}?reload=true")).problem(504, "LdContextNotAvailable");
    assert_eq!(look()["hell"]["value"], 7);
    web.says(&document("", &json!({"@context": {"neu": "https://example.org/brightness"}})));
    assert_eq!(look()["hell"]["value"], 7);
    city.delete(&format!("{path}?reload=true")).expect(204);
    assert_eq!(look()["neu"]["value"], 7);
    let n_before = web.asked();
    city.delete(&path).expect(204);
    city.get(&format!("{path}?details=true")).problem(404, "ResourceNotFound");
    look();
    assert_eq!(web.asked(), n_before + 1);
}

#[test]
fn clause_6_3_16_copies_are_fresh_as_long_as_their_server_says() {
    let city = city_with_lamp();
    let web = Web::start(
        &document("cache-control: max-age=1\r\n", &json!({"@context": {"hell": "https://example.org/brightness"}})),
        Duration::ZERO,
    );
    let url = format!("{}/a.jsonld", web.base);
    // A context that names it: what is out of date is renewed also behind another.
    let location = host(&city, json!([url, {"other": "https://example.org/other"}]));
    let look = || city.send("GET", &format!("entities/{ID}"), &[("link", &link(&city.url(&location)))], None).expect(200).json();
    assert_eq!(look()["hell"]["value"], 7);
    assert_eq!(web.asked(), 1, "it is fetched once");
    web.says(&document("", &json!({"@context": {"neu": "https://example.org/brightness"}})));
    eventually("the new text is used", || look().get("neu").is_some());
    assert_eq!(web.asked(), 2);
}

#[test]
fn clause_5_5_6_contexts_that_cannot_be_had() {
    let city = city_with_lamp();
    let look = |url: &str| city.send("GET", &format!("entities/{ID}"), &[("link", &link(url))], None);
    // Nobody listens there.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    look(&format!("http://{nobody}/a.jsonld")).problem(504, "LdContextNotAvailable");
    let web = Web::start("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", Duration::ZERO);
    let url = format!("{}/a.jsonld", web.base);
    for _ in 0..5 {
        look(&url).problem(504, "LdContextNotAvailable");
    }
    assert_eq!(web.asked(), 1, "a failure is remembered for a moment");
    web.says(&document("", &json!("no context")));
    look(&format!("{}/b.jsonld", web.base)).problem(400, "BadRequestData");
    web.says("HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>");
    look(&format!("{}/c.jsonld", web.base)).problem(400, "BadRequestData");
    web.says(&document("", &json!({"@context": {"a": {"@id": "https://example.org/a", "@context": {}}}})));
    look(&format!("{}/d.jsonld", web.base)).problem(400, "BadRequestData");
    // A circle ends.
    web.says(&document("", &json!({"@context": format!("{}/e.jsonld", web.base)})));
    look(&format!("{}/e.jsonld", web.base)).problem(400, "BadRequestData");
    // It is elsewhere, and then it is there.
    let there = Web::start(&document("", &json!({"@context": {"hell": "https://example.org/brightness"}})), Duration::ZERO);
    web.says(&format!("HTTP/1.1 302 Found\r\nlocation: {}/there.jsonld\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", there.base));
    assert_eq!(look(&format!("{}/f.jsonld", web.base)).expect(200).json()["hell"]["value"], 7);
}

#[test]
fn clause_5_5_6_many_requests_for_one_context_fetch_it_once() {
    let city = city_with_lamp();
    let web = Web::start(&document("", &json!({"@context": {"hell": "https://example.org/brightness"}})), Duration::from_millis(300));
    let url = format!("{}/a.jsonld", web.base);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let shown = city.send("GET", &format!("entities/{ID}"), &[("link", &link(&url))], None).expect(200);
                assert_eq!(shown.json()["hell"]["value"], 7);
            });
        }
    });
    assert_eq!(web.asked(), 1);
}

#[test]
fn clause_5_13_1_links_to_inline_contexts_resolve_also_after_a_restart() {
    let city = city_with_lamp();
    let query = json!({"type": "Query", "entities": [{"type": "Lamp"}], "@context": {"hell": "https://example.org/brightness"}});
    let ld = [("content-type", "application/ld+json"), ("accept", "application/json")];
    let found = city.send("POST", "entityOperations/query", &ld, Some(&query.to_string())).expect(200);
    assert_eq!(found.json()[0]["hell"]["value"], 7);
    let target = found.header("link")[0].split(['<', '>']).nth(1).unwrap().to_owned();
    let path = target.strip_prefix(&city.url("")).unwrap().to_owned();
    let served = city.get(&path).expect(200).json();
    assert_eq!(served["@context"], json!([{"hell": "https://example.org/brightness"}, ngsi::context::CORE_CONTEXT_URL]));
    let wrappers = city.get(&format!("{LIST}?kind=ImplicitlyCreated")).json();
    assert!(wrappers.as_array().unwrap().contains(&json!(target)), "{wrappers}");
    let city = city.restarted();
    assert_eq!(city.get(&path).expect(200).json(), served);
    let shown = city.send("GET", &format!("entities/{ID}"), &[("link", &link(&city.url(&path)))], None).expect(200);
    assert_eq!(shown.json()["hell"]["value"], 7);
    // What entities are written with is not kept.
    let n_before = city.get(LIST).json().as_array().unwrap().len();
    let other = json!({"id": "urn:ngsi-ld:Lamp:2", "type": "Lamp", "@context": {"x": "https://example.org/x"}});
    city.send("POST", "entities", &ld, Some(&other.to_string())).expect(201);
    assert_eq!(city.get(LIST).json().as_array().unwrap().len(), n_before);
}

#[test]
fn clause_6_3_5_where_the_context_is() {
    let city = city_with_lamp();
    let entity = |id: &str| json!({"id": id, "type": "Lamp", "hell": {"type": "Property", "value": 1}});
    let with_context = |id: &str| {
        let mut entity = entity(id);
        entity["@context"] = json!({"hell": "https://example.org/brightness"});
        entity
    };
    let location = host(&city, json!({"hell": "https://example.org/brightness"}));
    let link = link(&city.url(&location));
    let (json_type, ld_type) = (("content-type", "application/json"), ("content-type", "application/ld+json"));
    let post = |headers: &[(&str, &str)], body: Value| city.send("POST", "entities", headers, Some(&body.to_string()));
    post(&[json_type], with_context("urn:x:1")).problem(400, "BadRequestData");
    post(&[ld_type], entity("urn:x:1")).problem(400, "BadRequestData");
    post(&[ld_type, ("link", &link)], with_context("urn:x:1")).problem(400, "BadRequestData");
    post(&[json_type, ("link", &format!("{link}, {link}"))], entity("urn:x:1")).problem(400, "BadRequestData");
    post(&[ld_type], with_context("urn:x:1")).expect(201);
    post(&[json_type, ("link", &link)], entity("urn:x:2")).expect(201);
    for id in ["urn:x:1", "urn:x:2"] {
        let names = city.get(&format!("entities/{id}")).json();
        assert_eq!(names["https://example.org/brightness"]["value"], 1, "{names}");
    }
    // A context below the top level is an error.
    let mut nested = with_context("urn:x:3");
    nested["hell"]["@context"] = json!({"a": "https://example.org/a"});
    post(&[ld_type], nested).problem(400, "BadRequestData");
    // Whatever edition of the core context is named: it is the one of this node.
    let mut old = entity("urn:x:4");
    old["@context"] = json!(["https://uri.etsi.org/ngsi-ld/v1/ngsi-ld-core-context-v1.0.jsonld"]);
    post(&[ld_type], old).expect(201);
    let shown = city.send("GET", "entities/urn:x:4", &[("accept", "application/ld+json")], None).json();
    assert_eq!(shown["hell"]["value"], 1);
    assert!(shown["@context"].as_array().unwrap().contains(&json!(ngsi::context::CORE_CONTEXT_URL)), "{shown}");
}
