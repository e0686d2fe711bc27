//! Subscriptions in and out.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use entity::{Attribute, Entity, Iri};
use ngsi::decode::{Subscription, Trigger, patched_subscription, subscription};
use ngsi::{Context, ContextStore, ErrorKind};
use serde_json::{Value, json};

static CONTEXTS: LazyLock<ContextStore> = LazyLock::new(|| ContextStore::new(None, None).unwrap());

fn context() -> &'static Context {
    CONTEXTS.default_context()
}

fn full() -> Value {
    json!({
        "id": "urn:ngsi-ld:Subscription:1", "type": "Subscription", "subscriptionName": "high", "description": "pm25 is high",
        "entities": [{"type": "Station", "idPattern": "^urn:.*"}, {"type": "(A;B)", "id": ["urn:x:1", "urn:x:2"]}],
        "watchedAttributes": ["pm25", "name"], "q": "pm25>100", "scopeQ": "/CN/#",
        "geoQ": {"georel": "near;maxDistance==2000", "geometry": "Point", "coordinates": [116.4, 39.9]},
        "throttling": 5, "notificationTrigger": ["entityUpdated", "entityDeleted"], "isActive": false, "expiresAt": "2030-01-01T00:00:00Z",
        "localOnly": true, "datasetId": ["@none", "urn:d:1"], "lang": "zh,en;q=0.5",
        "jsonldContext": "https://conurb.org/ns/context.jsonld",
        "notification": {
            "pick": ["id", "pm25"], "omit": ["name"], "format": "concise", "sysAttrs": true, "showChanges": true,
            "endpoint": {"uri": "https://a.example/hook?x=1", "accept": "application/ld+json", "timeout": 2000, "cooldown": 60000,
                "receiverInfo": [{"key": "Authorization", "value": "Bearer x"}], "notifierInfo": [{"key": "k", "value": "v"}]},
        },
        "status": "active", "createdAt": "2020-01-01T00:00:00Z",
    })
}

fn smallest() -> Value {
    json!({"type": "Subscription", "entities": [{"type": "Station"}], "notification": {"endpoint": {"uri": "http://a.example"}}})
}

#[test]
fn every_member_is_read_and_given_back() {
    let s = subscription(full(), context()).unwrap();
    let mut want = full();
    let map = want.as_object_mut().unwrap();
    map.shift_remove("status");
    map.shift_remove("createdAt");
    assert_eq!(s.to_json(context(), BTreeMap::new()), want);
    assert!(s.listens_to(Trigger::AttributeDeleted) && s.listens_to(Trigger::EntityDeleted) && !s.listens_to(Trigger::EntityCreated));
    assert_eq!(s.filter.conjuncts().count(), 4);
}

#[test]
fn the_smallest_subscription_has_the_standard_s_defaults() {
    let s = subscription(smallest(), context()).unwrap();
    assert_eq!(s.triggers, [Trigger::AttributeCreated, Trigger::AttributeUpdated]);
    assert!(s.active && s.id.is_none() && s.watched.is_none());
    assert_eq!(s.notification.endpoint.accept.media_type(), "application/json");
    assert_eq!(s.context, context().json(), "the context of the request is that of the notifications");
}

#[test]
fn subscriptions_are_stored_and_read_back() {
    for value in [full(), smallest()] {
        let s = subscription(value, context()).unwrap();
        let stored = serde_json::to_vec(&s).unwrap();
        assert_eq!(serde_json::from_slice::<Subscription>(&stored).unwrap(), s);
    }
}

#[test]
fn the_condition_decides_which_entities_concern_it() {
    let mut value = smallest();
    value["q"] = json!("pm25>100");
    let s = subscription(value, context()).unwrap();
    let pm25 = context().expand("pm25").unwrap();
    let station =
        |n: i32, kind: &str| Entity::new(Iri::known("urn:x:1"), context().expand(kind).unwrap()).with(pm25.clone(), Attribute::property(n));
    assert!(s.filter.matches(&station(101, "Station")));
    assert!(!s.filter.matches(&station(99, "Station")));
    assert!(!s.filter.matches(&station(101, "Other")));
}

#[test]
fn what_the_node_adds_is_shown() {
    let s = subscription(smallest(), context()).unwrap();
    let more = BTreeMap::from([("status", json!("active")), ("notification", json!({"timesSent": 3}))]);
    let shown = s.to_json(context(), more);
    assert_eq!(shown["status"], "active");
    assert_eq!(shown["notification"]["timesSent"], 3);
    assert_eq!(shown["notification"]["endpoint"]["uri"], "http://a.example");
}

#[test]
fn wrong_subscriptions_say_where_and_what() {
    check(&[("type", json!("Sub"))], "type: expected `Subscription`");
    check(&[("notification", Value::Null)], "notification: expected notification parameters");
    check(&[("entities", json!([]))], "entities: expected 1 to 500");
    check(&[("entities", json!([{"id": "urn:x:1"}]))], "entities/0: the mandatory member `type`");
    check(&[("entities", json!([{"type": "A", "idPattern": "("}]))], "entities/0/idPattern");
    check(&[("entities", json!([{"type": "*"}]))], "needs `localOnly`");
    check(&[("watchedAttributes", json!([]))], "watchedAttributes: the array is empty");
    check(&[("q", json!("a="))], "q: at character 2");
    check(&[("geoQ", json!({"georel": "within"}))], "geoQ: a geo-query needs");
    check(&[("geoQ", json!({}))], "geoQ: a geo-query needs");
    check(&[("scopeQ", json!("a b"))], "scopeQ: `a b` is not a scope");
    check(&[("throttling", json!(0))], "throttling: expected a number of seconds");
    check(&[("timeInterval", json!(5)), ("throttling", json!(1))], "a subscription with `timeInterval` has no `throttling`");
    check(&[("timeInterval", json!(5)), ("watchedAttributes", json!(["a"]))], "has no `watchedAttributes`");
    check(&[("notificationTrigger", json!(["now"]))], "notificationTrigger: `now` is not a trigger");
    check(&[("isActive", json!("yes"))], "isActive: expected true or false");
    check(&[("expiresAt", json!("soon"))], "expiresAt: `soon` is not a date-time");
    check(&[("jsonldContext", json!("x"))], "jsonldContext: expected the URL");
    check(&[("csf", json!("x"))], "csf: is a member of NGSI-LD that this node does not support");
    check(&[("temporalQ", json!({}))], "temporalQ: is a member of NGSI-LD that this node does not support");
    check(&[("watchedAttribute", json!(["a"]))], "did you mean `watchedAttributes`?");
    check_notification("join", json!("round"), "notification/join: expected flat, inline or @none");
    check_notification("joinLevel", json!(2), "notification/joinLevel: goes with `join` only");
    check(&[("ngsildConformance", json!("1"))], "ngsildConformance: expected a version of the standard such as 1.6");
    check_notification("format", json!("xml"), "notification/format: `xml` is not a format");
    check_notification("pick", json!([]), "notification/pick: the array is empty");
    check_notification("endpoint", json!({}), "notification/endpoint/uri: the mandatory member `uri` is missing");
    check_notification("endpoint", json!({"uri": "mqtt://a.example"}), "expected a host and, as the path, a topic");
    let settings = json!({"uri": "mqtt://a.example/t", "notifierInfo": [{"key": "MQTT-QoS", "value": "3"}]});
    check_notification("endpoint", settings, "notification/endpoint/notifierInfo/MQTT-QoS: `3` is not possible (expected 0 or 1 or 2)");
    check_notification("endpoint", json!({"uri": "ftp://a.example"}), "expected an `http`, `https`, `mqtt` or `mqtts` URL");
    check_notification("endpoint", json!({"uri": "nonsense"}), "is not a URL");
    check_notification("endpoint", json!({"uri": "http://a.example", "accept": "text/html"}), "notification/endpoint/accept");
    check_notification("endpoint", json!({"uri": "http://a.example", "timeout": 0}), "notification/endpoint/timeout");
    let header = json!({"uri": "http://a.example", "receiverInfo": [{"key": "X\r\nY", "value": "v"}]});
    check_notification("endpoint", header, "notification/endpoint/receiverInfo/0: `X\r\nY` with its value cannot be an HTTP header");

    #[track_caller]
    fn check(changes: &[(&str, Value)], want: &str) {
        let mut value = smallest();
        for (member, with) in changes {
            value[*member] = with.clone();
        }
        refused(value, want);
    }

    #[track_caller]
    fn check_notification(member: &str, with: Value, want: &str) {
        let mut value = smallest();
        value["notification"][member] = with;
        refused(value, want);
    }

    #[track_caller]
    fn refused(value: Value, want: &str) {
        let error = subscription(value, context()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::BadRequestData);
        assert!(error.to_string().contains(want), "{error}");
    }
}

#[test]
fn a_subscription_needs_entities_or_attributes() {
    let mut value = smallest();
    value.as_object_mut().unwrap().shift_remove("entities");
    assert!(subscription(value.clone(), context()).unwrap_err().to_string().contains("at least one of"));
    value["localOnly"] = json!(true);
    subscription(value, context()).unwrap();
    let mut simplified = smallest();
    simplified["notification"]["format"] = json!("keyValues");
    simplified["notification"]["showChanges"] = json!(true);
    assert!(subscription(simplified, context()).unwrap_err().to_string().contains("cannot be shown"));
}

#[test]
fn a_patch_replaces_members_and_leaves_the_rest() {
    let own = CONTEXTS.resolve(&json!({"pm25": "urn:x:fine"})).unwrap();
    let current = subscription(full(), &own).unwrap();
    let patch = json!({"subscriptionName": "new", "throttling": null, "description": "urn:ngsi-ld:null", "isActive": true,
        "notification": {"format": "normalized", "omit": null}});
    let s = patched_subscription(&current, patch, context()).unwrap();
    assert_eq!((s.name.as_deref(), s.description.as_deref(), s.throttling_s, s.active), (Some("new"), None, None, true));
    assert_eq!(s.notification.endpoint, current.notification.endpoint);
    assert!(s.notification.omit.is_empty());
    assert_eq!(s.filter, current.filter, "names keep the meaning that they had, whatever the context of the patch");
    assert_eq!(s.watched, current.watched);
    let changed = patched_subscription(&current, json!({"q": "pm25>5"}), context()).unwrap();
    assert_ne!(changed.filter, current.filter);
    for (patch, want) in [
        (json!({"id": "urn:x:other"}), "id: the id of a subscription cannot be changed"),
        (json!({"type": "X"}), "type: expected `Subscription`"),
        (json!({"notification": {"endpoint": {"uri": "x"}}}), "notification/endpoint/uri"),
        (json!({"thing": 1}), "thing: is not a member here"),
    ] {
        let error = patched_subscription(&current, patch, context()).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}
