use std::sync::{Arc, Mutex};

use serde_json::json;

use super::store::LoadError;
use super::*;
use crate::ErrorKind;

fn store() -> ContextStore {
    ContextStore::new(Some(DEFAULT_USER_CONTEXT_URL), None).unwrap()
}

fn example() -> Arc<Context> {
    store()
        .resolve(&json!({"Vehicle": "http://schema.org/Vehicle", "location": "http://schema.org/location", "ex": "http://example.org/",
            "speed": {"@id": "ex:speed", "@type": "http://www.w3.org/2001/XMLSchema#double"}, "fast": "speed", "bare": {"@type": "@id"},
            "id": "http://example.org/identifier"}))
        .unwrap()
}

#[test]
fn names_expand_by_core_then_user_then_default_namespace() {
    check("Vehicle", "http://schema.org/Vehicle");
    check("location", "https://uri.etsi.org/ngsi-ld/location");
    check("speed", "http://example.org/speed");
    check("fast", "http://example.org/speed");
    check("ex:wheel", "http://example.org/wheel");
    check("bare", "https://uri.etsi.org/ngsi-ld/default-context/bare");
    check("unknown", "https://uri.etsi.org/ngsi-ld/default-context/unknown");
    check("温度", "https://uri.etsi.org/ngsi-ld/default-context/温度");
    check("https://a.example/x#y", "https://a.example/x#y");
    check("ngsi-ld:status", "https://uri.etsi.org/ngsi-ld/status");
    check("http://uri.etsi.org/ngsi-ld/location", "https://uri.etsi.org/ngsi-ld/location");

    #[track_caller]
    fn check(name: &str, want: &str) {
        assert_eq!(example().expand(name).unwrap().as_str(), want, "{name}");
    }
}

#[test]
fn names_that_break_the_rule_are_refused() {
    for bad in ["", "a b", "1a", "a.b", "a(b)", "a:b c", "<x>", "-a", "a\u{0}"] {
        let error = example().expand(bad).unwrap_err();
        assert_eq!(error.kind, ErrorKind::BadRequestData, "{bad}");
        assert!(error.to_string().contains("is not a name"), "{bad}: {error}");
    }
}

#[test]
fn iris_compact_to_what_expands_to_them() {
    check("http://schema.org/Vehicle", "Vehicle");
    check("https://uri.etsi.org/ngsi-ld/location", "location");
    // The user's own `location` is shadowed by the core's, so that its IRI has no short name.
    check("http://schema.org/location", "http://schema.org/location");
    // Two terms for one IRI: the shorter.
    check("http://example.org/speed", "fast");
    check("http://example.org/wheel", "ex:wheel");
    check("https://uri.etsi.org/ngsi-ld/default-context/unknown", "unknown");
    // A bare `Vehicle` would mean something else.
    check("https://uri.etsi.org/ngsi-ld/default-context/Vehicle", "https://uri.etsi.org/ngsi-ld/default-context/Vehicle");
    check("https://uri.etsi.org/ngsi-ld/default-context/a.b", "https://uri.etsi.org/ngsi-ld/default-context/a.b");
    check("http://example.org/identifier", "ex:identifier");
    check("urn:ngsi-ld:X:1", "urn:ngsi-ld:X:1");

    #[track_caller]
    fn check(iri: &str, want: &str) {
        let iri = Iri::known(iri);
        assert_eq!(example().compact(&iri), want, "{iri}");
        assert_eq!(example().expand(&example().compact(&iri)), Ok(iri), "{want} goes back");
    }
}

#[test]
fn every_term_of_every_embedded_context_compacts_to_a_name_that_means_the_same() {
    let store = store();
    for url in embedded_urls() {
        let context = store.resolve(&Value::from(url)).unwrap();
        for (term, iri) in &context.terms {
            let name = context.compact(iri);
            assert_eq!(context.expand(&name).unwrap(), *iri, "{url}: {term} -> {name}");
        }
    }
}

#[test]
fn the_core_wins_over_the_odd_definitions_of_the_smart_data_models() {
    let store = store();
    let urls = ["https://smartdatamodels.org/context.jsonld", "https://fiware.github.io/data-models/context.jsonld"];
    for url in urls {
        let context = store.resolve(&json!([url, CORE_CONTEXT_URL])).unwrap();
        assert_eq!(context.expand("location").unwrap().as_str(), entity::LOCATION, "{url}");
        assert_eq!(context.compact(&Iri::known(entity::LOCATION)), "location", "{url}");
        assert_eq!(context.expand("observationSpace").unwrap().as_str(), "https://uri.etsi.org/ngsi-ld/observationSpace");
        assert!(context.terms.values().all(|iri| !iri.as_str().starts_with("http://uri.etsi.org/ngsi-ld/")), "{url}");
    }
}

#[test]
fn smart_data_models_are_found_under_both_addresses() {
    let store = store();
    let a =
        store.resolve(&json!("https://raw.githubusercontent.com/smart-data-models/dataModel.Environment/master/context.jsonld")).unwrap();
    let b = store.resolve(&json!("https://smart-data-models.github.io/dataModel.Environment/context.jsonld")).unwrap();
    let want = "https://smartdatamodels.org/dataModel.Environment/AirQualityObserved";
    assert_eq!(a.expand("AirQualityObserved").unwrap().as_str(), want);
    assert_eq!(b.expand("AirQualityObserved").unwrap().as_str(), want);
}

#[test]
fn any_address_of_a_core_context_is_the_core_context() {
    for url in [
        CORE_CONTEXT_URL,
        "https://uri.etsi.org/ngsi-ld/v1/ngsi-ld-core-context.jsonld",
        "http://uri.etsi.org/ngsi-ld/v1/ngsi-ld-core-context-v1.5.jsonld",
        "https://forge.etsi.org/rep/NGSI-LD/NGSI-LD/raw/master/coreContext/ngsi-ld-core-context.jsonld",
    ] {
        let context = store().resolve(&json!([url])).unwrap();
        assert_eq!(context.json(), json!(CORE_CONTEXT_URL), "{url}");
        assert_eq!(context.expand("valueType").unwrap().as_str(), "https://uri.etsi.org/ngsi-ld/hasValueType");
    }
}

#[test]
fn the_default_context_knows_our_own_words_and_the_smart_data_models() {
    let store = store();
    let c = store.default_context();
    assert_eq!(c.expand("Agreement").unwrap().as_str(), "https://conurb.org/ns#Agreement");
    assert_eq!(c.expand("provenance").unwrap().as_str(), "https://conurb.org/ns#provenance");
    assert_eq!(c.expand("AirQualityObserved").unwrap().as_str(), "https://uri.fiware.org/ns/data-models#AirQualityObserved");
    assert_eq!(c.short_name(&c.expand("pm25").unwrap()), "pm25");
    assert_eq!(c.short_name(&Iri::known("https://other.example/ns#Thing")), "Thing");
    assert_eq!(c.url(), None, "it has two parts");
    assert!(store.by_id(c.id()).is_some());
    assert_eq!(store.core_context().url(), Some(CORE_CONTEXT_URL));
}

#[test]
fn a_context_is_written_with_the_core_context_last() {
    let url = "https://fiware.github.io/NGSI-LD_TestSuite/ldContext/testContext.jsonld";
    check(json!(url), json!([url, CORE_CONTEXT_URL]), Some(url));
    check(json!([CORE_CONTEXT_URL, url]), json!([url, CORE_CONTEXT_URL]), Some(url));
    check(json!([[url], {"a": "urn:x:a"}]), json!([url, {"a": "urn:x:a"}, CORE_CONTEXT_URL]), None);
    check(json!([]), json!(CORE_CONTEXT_URL), Some(CORE_CONTEXT_URL));

    #[track_caller]
    fn check(given: Value, want: Value, want_url: Option<&str>) {
        let context = store().resolve(&given).unwrap();
        assert_eq!(context.json(), want);
        assert_eq!(context.url(), want_url);
    }
}

#[test]
fn later_parts_replace_earlier_ones_and_null_forgets() {
    let c = store().resolve(&json!([{"a": "urn:x:1", "b": "urn:x:b"}, {"a": "urn:x:2", "b": null}])).unwrap();
    assert_eq!(c.expand("a").unwrap().as_str(), "urn:x:2");
    assert_eq!(c.expand("b").unwrap().as_str(), "https://uri.etsi.org/ngsi-ld/default-context/b");
    let c = store().resolve(&json!([{"a": "urn:x:1"}, null, {"b": "urn:x:b"}])).unwrap();
    assert_eq!(c.expand("a").unwrap().as_str(), "https://uri.etsi.org/ngsi-ld/default-context/a");
}

#[test]
fn a_user_vocabulary_serves_its_own_terms_only() {
    // The core context comes last, and so does its @vocab (clause 5.5.7).
    let c = store().resolve(&json!({"@vocab": "http://example.org/v#", "speed": {"@type": "@id"}})).unwrap();
    assert_eq!(c.expand("speed").unwrap().as_str(), "http://example.org/v#speed");
    assert_eq!(c.expand("other").unwrap().as_str(), "https://uri.etsi.org/ngsi-ld/default-context/other");
}

#[test]
fn wrong_contexts_are_refused_with_the_place() {
    check(json!(5), "expected a URL");
    check(json!("context.jsonld"), "is not the URL of a context");
    check(json!({"a": 5}), "@context/a");
    check(json!({"a": {"@id": 5}}), "`@id` must be a string");
    check(json!({"a": {"@id": "urn:x:a", "@context": {}}}), "inside a term is not allowed");
    check(json!({"a": {"@reverse": "urn:x:a"}}), "@reverse");
    check(json!({"@import": "https://a.example"}), "@import");
    check(json!({"@vocab": 1}), "@context/@vocab");
    check(json!({"a": "b:x", "b": "a:x"}), "circle");

    #[track_caller]
    fn check(context: Value, want: &str) {
        let error = store().resolve(&context).unwrap_err();
        assert_eq!(error.kind, ErrorKind::BadRequestData, "{context}");
        assert!(error.to_string().contains(want), "{error}");
    }
}

/// Serves two documents that refer to each other's URL space, and counts.
struct Pages(Mutex<Vec<String>>);

impl Loader for Arc<Pages> {
    fn load(&self, url: &str) -> Result<String, LoadError> {
        self.0.lock().unwrap().push(url.to_owned());
        match url {
            "https://a.example/outer" => Ok(r#"{"@context": ["https://a.example/inner", {"x": "urn:x:outer"}]}"#.to_owned()),
            "https://a.example/inner" => Ok(r#"{"@context": {"x": "urn:x:inner", "y": "urn:x:y"}}"#.to_owned()),
            "https://a.example/circle" => Ok(r#"{"@context": "https://a.example/circle"}"#.to_owned()),
            "https://a.example/html" => Ok("<html>".to_owned()),
            "https://a.example/entity" => Ok(r#"{"id": "urn:x:1"}"#.to_owned()),
            _ => Err(LoadError { reason: "status 404".to_owned() }),
        }
    }
}

#[test]
fn unknown_contexts_are_fetched_once() {
    let pages = Arc::new(Pages(Mutex::default()));
    let store = ContextStore::new(None, Some(Box::new(Arc::clone(&pages)))).unwrap();
    for _ in 0..3 {
        let c = store.resolve(&json!(["https://a.example/outer"])).unwrap();
        assert_eq!(c.expand("x").unwrap().as_str(), "urn:x:outer");
        assert_eq!(c.expand("y").unwrap().as_str(), "urn:x:y");
    }
    assert_eq!(*pages.0.lock().unwrap(), ["https://a.example/outer", "https://a.example/inner"]);
    assert!(store.forget("https://a.example/outer"));
    store.resolve(&json!("https://a.example/outer")).unwrap();
    assert_eq!(pages.0.lock().unwrap().len(), 3);
}

#[test]
fn contexts_that_cannot_be_had_say_why() {
    let fetching = ContextStore::new(None, Some(Box::new(Arc::new(Pages(Mutex::default()))))).unwrap();
    check(&fetching, "https://a.example/nothing", ErrorKind::LdContextNotAvailable, "status 404");
    check(&fetching, "https://a.example/html", ErrorKind::BadRequestData, "is not JSON");
    check(&fetching, "https://a.example/entity", ErrorKind::BadRequestData, "no member `@context`");
    check(&fetching, "https://a.example/circle", ErrorKind::BadRequestData, "circle");
    check(&store(), "https://a.example/outer", ErrorKind::LdContextNotAvailable, "fetches none");

    #[track_caller]
    fn check(store: &ContextStore, url: &str, kind: ErrorKind, want: &str) {
        let error = store.resolve(&Value::from(url)).unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.to_string().contains(want), "{error}");
    }
}

#[test]
fn an_edge_that_does_not_block_brings_the_documents_itself() {
    let store = store();
    let pages = Arc::new(Pages(Mutex::default()));
    let wanted = json!(["https://a.example/outer", CORE_CONTEXT_URL]);
    let mut n_rounds = 0;
    loop {
        let missing = store.missing(&wanted).unwrap();
        if missing.is_empty() {
            break;
        }
        for url in missing {
            store.insert(&url, &pages.load(&url).unwrap()).unwrap();
        }
        n_rounds += 1;
    }
    assert_eq!(n_rounds, 2);
    assert_eq!(store.resolve(&wanted).unwrap().expand("x").unwrap().as_str(), "urn:x:outer");
    store.insert("https://a.example/outer", r#"{"@context": {"x": "urn:x:new"}}"#).unwrap();
    assert_eq!(store.resolve(&wanted).unwrap().expand("x").unwrap().as_str(), "urn:x:new");
}

#[test]
fn the_store_keeps_a_limited_number_of_contexts() {
    let store = store();
    let first = store.resolve(&json!({"a": "urn:x:first"})).unwrap();
    for i in 0..CONTEXTS_MAX {
        store.resolve(&json!({"a": format!("urn:x:{i}")})).unwrap();
    }
    assert!(store.by_id(first.id()).is_none());
    assert_eq!(store.resolve(&json!({"a": "urn:x:first"})).unwrap().id(), first.id(), "the same text has the same id again");
}

#[test]
fn link_headers_name_at_most_one_context() {
    let rel = r#"rel="http://www.w3.org/ns/json-ld#context"; type="application/ld+json""#;
    check(&format!("<https://a.example/c>; {rel}"), Ok(Some("https://a.example/c")));
    check(&format!(r#"<https://a.example/n?a=1,2>; rel="next", <https://a.example/c>; {rel}"#), Ok(Some("https://a.example/c")));
    check(r#"<https://a.example/n>; rel="next""#, Ok(None));
    check("", Ok(None));
    check(&format!("<https://a.example/c>; {rel}, <https://a.example/d>; {rel}"), Err("only one link"));
    check("https://a.example/c", Err("is not a link"));

    #[track_caller]
    fn check(header: &str, want: Result<Option<&str>, &str>) {
        match (context_of_link_header(header), want) {
            (Ok(found), Ok(want)) => assert_eq!(found.as_deref(), want, "{header}"),
            (Err(e), Err(want)) => assert!(e.to_string().contains(want), "{e}"),
            (found, want) => panic!("{header}: found {found:?}, want {want:?}"),
        }
    }
}
