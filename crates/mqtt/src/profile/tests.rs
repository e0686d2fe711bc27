use entity::{AttributeValue, Value};
use proptest::prelude::*;
use serde_json::json;

use super::*;

/// 2026-01-01T00:00:00Z.
const NOW_S: i64 = 1_767_225_600;

fn expand(name: &str) -> Result<Iri, String> {
    match name {
        "location" => Ok(Iri::known(entity::LOCATION)),
        "unheardOf" => Err("no context defines it".to_owned()),
        other => Ok(Iri::known(&format!("https://example.org/{other}"))),
    }
}

fn spec() -> Value {
    json!({
        "id": "air", "description": {"en": "Air", "zh": "空气"},
        "topic": "devices/air/{device}",
        "entityType": "AirQualityObserved",
        "entityId": "urn:ngsi-ld:AirQualityObserved:{city}:{station}",
        "time": {"path": "time"},
        "location": {"lon": "lon", "lat": "lat"},
        "attributes": [
            {"name": "pm25", "path": "pm25", "unitCode": "GQ", "min": 0, "max": 2000, "scale": 1, "offset": 0},
            {"name": "temperature", "path": "data.t", "unitCode": "CEL", "scale": 0.1, "offset": -40, "min": -90, "max": 60},
            {"name": "name", "languages": {"en": "name_en", "zh": "name_zh"}, "timed": false},
            {"name": "source", "path": "source", "timed": false, "kind": "string"},
            {"name": "online", "path": "online", "kind": "boolean"},
            {"name": "raw", "path": "raw"}
        ]
    })
}

fn profile(spec: &Value) -> Result<Profile, ProfileError> {
    Profile::compile(&ProfileSpec::parse(&spec.to_string())?, &expand)
}

fn decode(payload: &Value) -> Result<Entity, DecodeError> {
    decode_bytes(payload.to_string().as_bytes())
}

fn decode_bytes(payload: &[u8]) -> Result<Entity, DecodeError> {
    profile(&spec()).unwrap().decode(&"devices/air/d1".parse().unwrap(), payload, Instant::from_secs(NOW_S))
}

/// `base` with `member` set to `value`.
fn with(mut base: Value, member: &str, value: Value) -> Value {
    base[member] = value;
    base
}

fn minimal() -> Value {
    json!({"city": "beijing", "station": "gucheng", "pm25": 12.50})
}

#[test]
fn a_payload_becomes_an_observation() {
    let entity = decode(&json!({
        "time": "2025-12-31T23:00:00Z", "city": "beijing", "station": "gucheng", "lon": 116.2254, "lat": 39.9279,
        "pm25": 87, "data": {"t": 512}, "name_en": "Gucheng", "name_zh": "古城", "source": "Beijing MEMC", "online": true, "raw": [1, {"a": 2}],
        "battery": 3.7
    }))
    .unwrap();
    assert_eq!(entity.id.as_str(), "urn:ngsi-ld:AirQualityObserved:beijing:gucheng");
    assert_eq!(entity.types, [Iri::known("https://example.org/AirQualityObserved")]);
    let at = Some("2025-12-31T23:00:00Z".parse().unwrap());
    let said: Vec<_> =
        entity.attributes.iter().map(|(n, a)| (n.local_name(), &a[0].value, a[0].observed_at, a[0].unit_code.as_deref())).collect();
    let geometry = entity::Geometry::from_json(json!({"type": "Point", "coordinates": [116.2254, 39.9279]})).unwrap();
    let names = [("en", "Gucheng"), ("zh", "古城")].map(|(tag, s)| (tag.into(), Value::from(s)));
    let property = |v: Value| AttributeValue::Property(v);
    assert_eq!(
        said,
        [
            ("location", &AttributeValue::Geo(geometry), None, None),
            ("pm25", &property(json!(87)), at, Some("GQ")),
            ("temperature", &property(json!(11.2)), at, Some("CEL")),
            ("name", &AttributeValue::Language(names.into_iter().collect()), None, None),
            ("source", &property(json!("Beijing MEMC")), None, None),
            ("online", &property(json!(true)), at, None),
            ("raw", &property(json!([1, {"a": 2}])), at, None),
        ]
    );
}

#[test]
fn numbers_without_scale_stay_as_they_were_sent() {
    for sent in ["12.50", "9007199254740993", "0.1", "1e3", "-0.0", "1999.9999999999998"] {
        let payload = format!(
            r#"{{"city":"a","station":"b","raw":{sent},"pm25":{}}}"#,
            sent.trim_start_matches('-').replace("9007199254740993", "7")
        );
        let entity = decode_bytes(payload.as_bytes()).unwrap();
        let want: Value = serde_json::from_str(sent).unwrap();
        let got = &entity.attribute("https://example.org/raw").unwrap().value;
        assert_eq!(got, &AttributeValue::Property(want.clone()));
        let got = &entity.attribute("https://example.org/pm25").unwrap().value;
        assert!(matches!(got, AttributeValue::Property(v) if sent.starts_with(['-', '9']) || *v == want), "{got:?}");
    }
}

#[test]
fn missing_and_null_members_are_not_reported() {
    let entity =
        decode(&json!({"city": "a", "station": "b", "pm25": 1, "source": null, "data": null, "lon": null, "name_zh": "站"})).unwrap();
    let names: Vec<_> = entity.attributes.keys().map(Iri::local_name).collect();
    assert_eq!(names, ["pm25", "name"]);
    assert_eq!(entity.attribute("https://example.org/pm25").unwrap().observed_at, Some(Instant::from_secs(NOW_S)), "the time of arrival");
}

#[test]
fn of_members_that_are_there_twice_the_last_one_counts_however_many_there_are() {
    for n_others in [0, 100] {
        let others: String = (0..n_others).map(|n| format!(r#", "zz{n}": {n}, "aa{n}": [{n}]"#)).collect();
        let payload = format!(r#"{{"city": "a", "station": "b", "pm25": 1{others}, "p\u006d25": 2, "data": {{"raw": 3}}}}"#);
        let entity = decode_bytes(payload.as_bytes()).unwrap();
        let value = |name| entity.attribute(&format!("https://example.org/{name}")).map(|a| a.value.clone());
        assert_eq!(value("pm25"), Some(AttributeValue::Property(2.into())), "{n_others} others");
    }
}

#[test]
fn simulated_payloads_are_marked() {
    let provenance = |e: &Entity| e.attribute("https://conurb.org/ns#provenance").map(|a| a.value.clone());
    let marked = decode(&with(minimal(), "simulated", json!(true))).unwrap();
    assert_eq!(provenance(&marked), Some(AttributeValue::Json(json!({"simulated": true}))));
    assert_eq!(provenance(&decode(&with(minimal(), "simulated", json!(false))).unwrap()), None);
    assert_eq!(provenance(&decode(&minimal()).unwrap()), None);
}

#[test]
fn impossible_payloads_are_refused_with_the_reason() {
    let bytes = |payload: &[u8], want: &str| {
        let error = decode_bytes(payload).unwrap_err();
        assert_eq!(error.reason(), Reason::PayloadFormatInvalid);
        assert!(error.to_string().contains(want), "{error}");
    };
    bytes(b"{\"city\":\n \"a\" \"b\"}", "line 2 column 6");
    bytes(b"", "not JSON");
    bytes(b"{\"city\": \"\xff\"}", "not JSON");
    bytes(b"[1]", "expected the payload to be a JSON object, found an array");
    bytes("[".repeat(10_000).as_bytes(), "recursion limit");
    bytes(b"{\"city\":\"a\",\"station\":\"b\",\"pm25\":1e999}", "out of range");

    check("pm25", json!("abc"), "member `pm25`: expected a number, found the string `abc`");
    check("pm25", json!(["1"]), "member `pm25`: expected a number, found an array");
    check("pm25", json!(true), "found `true`");
    check("pm25", json!(-1), "member `pm25`: expected a value from 0 to 2000, found -1");
    check("pm25", json!(2000.5), "found 2000.5");
    check("data", json!({"t": 1001}), "member `data.t`: expected a value from -90 to 60 after × 0.1 + -40, found 60.1 (sent as 1001)");
    check("data", json!({"t": "x"}), "member `data.t`: expected a number");
    check("data", json!(7), "member `data.t`: expected objects on the way, found the number `7`");
    check("source", json!(5), "member `source`: expected a string, found the number `5`");
    check("online", json!("yes"), "member `online`: expected true or false, found the string `yes`");
    check("name_en", json!({}), "member `name_en`: expected a string, found an object");
    check("simulated", json!("no"), "member `simulated`: expected true or false");
    check("time", json!("yesterday"), "member `time`: expected a date-time such as");
    check("time", json!("2025-12-31T23:00:00"), "found `2025-12-31T23:00:00`");
    check("time", json!(1_700_000_000), "member `time`: expected a string, found the number");
    check("time", json!("2026-01-01T01:00:01Z"), "3601 s ahead of the node's clock, more than the 3600 s");
    check("lon", json!(10), "members `lon` and `lat`: expected both or neither, found no `lat`");
    check("lat", json!(10), "found no `lon`");
    check("lon", json!("116.2"), "member `lon`: expected a number");
    check("city", json!(""), "the entity's id needs `city`: expected a member that is a string or a whole number, found the string ``");
    check("city", json!(1.5), "found the number `1.5`");
    check("station", json!(null), "the entity's id needs `station`");
    check("station", json!("s".repeat(2_048)), "the entity's id is impossible");
    check("pm25", json!(null), "the payload has none of the members of profile `air` (expected e.g. `pm25`)");
    check("source", json!("a\u{0}b".repeat(30)), "");

    let off = with(with(minimal(), "lon", json!(39.9)), "lat", json!(116.2));
    assert!(decode(&off).unwrap_err().to_string().contains("longitude comes first"));

    #[track_caller]
    fn check(member: &str, value: Value, want: &str) {
        let result = decode(&with(minimal(), member, value));
        if want.is_empty() {
            result.unwrap();
            return;
        }
        let error = result.unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
        assert_eq!(Refusal::from(&error), Refusal::new(Reason::PayloadFormatInvalid, error.to_string()));
    }
}

#[test]
fn the_limits_of_ranges_and_skew_are_allowed() {
    for (member, value) in
        [("pm25", json!(0)), ("pm25", json!(2000)), ("data", json!({"t": 1000})), ("time", json!("2026-01-01T01:00:00Z"))]
    {
        assert!(decode(&with(minimal(), member, value.clone())).is_ok(), "{member} = {value}");
    }
}

#[test]
fn times_are_read_as_the_profile_says() {
    check(json!({"path": "t"}), json!("2025-06-01T08:00:00+08:00"), Some("2025-06-01T00:00:00Z"));
    check(json!({"path": "t"}), json!("2025-06-01T00:00:00.25Z"), Some("2025-06-01T00:00:00.250Z"));
    check(json!({"path": "t", "format": "unix-seconds"}), json!(1_748_736_000), Some("2025-06-01T00:00:00Z"));
    check(json!({"path": "t", "format": "unix-seconds"}), json!(1_748_736_000.5), Some("2025-06-01T00:00:00.500Z"));
    check(json!({"path": "t", "format": "unix-milliseconds"}), json!(1_748_736_000_123_i64), Some("2025-06-01T00:00:00.123Z"));
    check(json!({"path": "t", "format": "unix-seconds"}), json!("1748736000"), None);
    check(json!({"path": "t", "format": "unix-seconds"}), json!(i64::MAX), None);
    check(json!({"path": "t", "format": "unix-seconds"}), json!(-1e300), None);
    check(json!({"path": "t", "futureSkewSeconds": 0}), json!("2026-01-01T00:00:01Z"), None);
    check(json!({"path": "t", "futureSkewSeconds": 1}), json!("2026-01-01T00:00:01Z"), Some("2026-01-01T00:00:01Z"));

    #[track_caller]
    fn check(time: Value, sent: Value, want: Option<&str>) {
        let profile = profile(&with(spec(), "time", time)).unwrap();
        let payload = with(minimal(), "t", sent).to_string();
        let got = profile.decode(&"devices/air/d1".parse().unwrap(), payload.as_bytes(), Instant::from_secs(NOW_S));
        let at = got.ok().map(|e| e.attribute("https://example.org/pm25").unwrap().observed_at.unwrap().to_string());
        assert_eq!(at.as_deref(), want);
    }
}

#[test]
fn a_moving_device_has_a_timed_place() {
    let profile = profile(&with(spec(), "location", json!({"lon": "lon", "lat": "lat", "timed": true}))).unwrap();
    let entity =
        profile.decode(&"devices/air/d".parse().unwrap(), br#"{"city":"a","station":1,"lon":1,"lat":2}"#, Instant::from_secs(NOW_S));
    assert_eq!(entity.unwrap().attribute(entity::LOCATION).unwrap().observed_at, Some(Instant::from_secs(NOW_S)));
}

#[test]
fn ids_are_made_of_topic_and_payload() {
    check("urn:x:{device}", "d-7", "urn:x:d-7");
    check("urn:x:{device}:{station}", "a b", "urn:x:a%20b:7");
    check("urn:x:{device}:{station}", "€:%", "urn:x:%E2%82%AC%3A%25:7");
    check("urn:x:{device}", "古城", "urn:x:古城");
    check("urn:x:{station}:{device}/", "d", "urn:x:7:d/");

    #[track_caller]
    fn check(template: &str, device: &str, want: &str) {
        let profile = profile(&with(spec(), "entityId", json!(template))).unwrap();
        let topic: TopicName = format!("devices/air/{device}").parse().unwrap();
        // The topic wins: a payload cannot speak for another device.
        let payload = json!({"station": 7, "device": "forged", "pm25": 1}).to_string();
        assert_eq!(profile.decode(&topic, payload.as_bytes(), Instant::from_secs(NOW_S)).unwrap().id.as_str(), want);
        assert_eq!(profile.topic_variable(&topic, "device"), Some(device));
    }

    let profile = profile(&with(spec(), "entityId", json!("urn:x:{device}"))).unwrap();
    let error = profile.decode(&"devices/air/".parse().unwrap(), b"{\"pm25\":1}", Instant::from_secs(NOW_S)).unwrap_err();
    assert!(error.to_string().contains("the entity's id needs `device`: expected a level of the topic"), "{error}");
}

#[test]
fn impossible_profiles_are_refused_with_the_reason() {
    check("entityTyp", json!("x"), "the profile has the unknown member `entityTyp` (did you mean `entityType`?)");
    check("time", json!({"pth": "t"}), "`time` has the unknown member `pth` (did you mean `path`?)");
    check("location", json!({"lng": "t"}), "`location` has the unknown member `lng` (did you mean `lon`?)");
    check(
        "attributes",
        json!([{"name": "a", "unitcode": "GQ"}]),
        "attribute `a` has the unknown member `unitcode` (did you mean `unitCode`?)",
    );
    check("topic", json!(5), "not a device profile");
    check("id", json!("Air Quality"), "`Air Quality` is not a profile id");
    check("topic", json!("a/{b"), "variable is only a part of the level");
    check("topic", json!("a/x{b}"), "variable is only a part of the level");
    check("topic", json!("a/{b}/{b}"), "variable `b` occurs twice");
    check("topic", json!("a/{}"), "not a variable name");
    check("topic", json!("a/+"), "wildcard");
    check("topic", json!(""), "empty");
    check("entityId", json!("urn:x"), "every device would be the same entity");
    check("entityId", json!("urn:{a}{b}"), "no text between the variables before `b`");
    check("entityId", json!("urn:{a"), "not closed");
    check("entityId", json!("{a}"), "not an absolute URI");
    check("entityType", json!("unheardOf"), "name `unheardOf`: no context defines it");
    check("time", json!({"path": "a..b"}), "`a..b` is not a path");
    check("time", json!({"path": "a", "format": "excel"}), "not a device profile");
    check("attributes", json!([]), "0 attributes");
    check("attributes", json!([{"name": "a"}]), "expected `path` or `languages`, found neither");
    check("attributes", json!([{"name": "a", "path": "p", "languages": {"en": "q"}}]), "found both");
    check("attributes", json!([{"name": "a", "languages": {"en": "q"}, "unitCode": "GQ"}]), "no meaning");
    check("attributes", json!([{"name": "a", "path": "p", "min": 2, "max": 1}]), "the range from 2 to 1 is empty");
    check("attributes", json!([{"name": "a", "path": "p", "scale": 0}]), "scale of 0");
    check("attributes", json!([{"name": "a", "path": "p", "kind": "string", "min": 2}]), "for numbers only");
    check(
        "attributes",
        json!([{"name": "a", "path": "p"}, {"name": "a", "path": "q"}]),
        "another attribute is `https://example.org/a` too",
    );
    check("attributes", json!([{"name": "location", "path": "p"}]), "another attribute is");
    let many: Vec<_> = (0..257).map(|i| json!({"name": format!("a{i}"), "path": "p"})).collect();
    check("attributes", json!(many), "257 attributes");

    #[track_caller]
    fn check(member: &str, value: Value, want: &str) {
        let error = profile(&with(spec(), member, value)).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
    assert!(ProfileSpec::parse("{").is_err());
}

#[test]
fn each_topic_has_at_most_one_profile() {
    let named = |id: &str, topic: &str| profile(&with(with(spec(), "id", json!(id)), "topic", json!(topic))).unwrap();
    let profiles =
        Profiles::new(vec![named("a", "devices/air/{d}"), named("b", "devices/water/{d}"), named("c", "devices/air/{d}/{e}")]).unwrap();
    let find = |topic: &str| profiles.find(&topic.parse().unwrap()).map(Profile::id);
    assert_eq!(find("devices/air/1"), Some("a"));
    assert_eq!(find("devices/water/1"), Some("b"));
    assert_eq!(find("devices/air/1/2"), Some("c"));
    assert_eq!(find("devices/air"), None);
    let error = profiles.decode(&"nowhere".parse().unwrap(), b"{}", Instant::from_secs(0)).unwrap_err();
    assert_eq!((error.reason(), error.to_string().as_str()), (Reason::TopicNameInvalid, "no device profile decodes topic `nowhere`"));

    let conflict = Profiles::new(vec![named("a", "devices/{kind}/1"), named("b", "devices/air/{d}")]).unwrap_err().to_string();
    assert_eq!(conflict, "profiles `a` (topic `devices/{kind}/1`) and `b` (topic `devices/air/{d}`) would decode the same topics");
    let twice = Profiles::new(vec![named("a", "x"), named("a", "y")]).unwrap_err().to_string();
    assert_eq!(twice, "there are two profiles `a`");
}

#[test]
fn the_profiles_that_come_with_conurb_decode_what_they_promise() {
    let profiles = Profiles::built_in(&expand).unwrap();
    assert_eq!(profiles.iter().count(), 5);
    check(&profiles, "air-quality", &json!({"pm25": 12, "co": 400}), 5);
    check(&profiles, "meter", &json!({"energyImportKwh": 1234.5, "activePowerKw": -2}), 5);
    check(&profiles, "parking", &json!({"availableSpotNumber": 0, "totalSpotNumber": 250}), 5);
    check(&profiles, "traffic", &json!({"intensity": 1200, "occupancy": 0.15}), 5);
    check(&profiles, "weather", &json!({"temperature": -12.5, "relativeHumidity": 1}), 5);

    #[track_caller]
    fn check(profiles: &Profiles, id: &str, values: &Value, n_attributes: usize) {
        let mut payload =
            json!({"time": "2025-12-31T23:00:00Z", "city": "shanghai", "station": "s1", "lon": 121.4, "lat": 31.2, "name_zh": "一号"});
        payload.as_object_mut().unwrap().extend(values.as_object().unwrap().clone());
        let topic: TopicName = format!("devices/{id}/d1").parse().unwrap();
        assert_eq!(profiles.find(&topic).unwrap().id(), id);
        let entity = profiles.decode(&topic, payload.to_string().as_bytes(), Instant::from_secs(NOW_S)).unwrap();
        assert!(entity.id.as_str().ends_with(":shanghai:s1"), "{}", entity.id);
        assert_eq!(entity.attributes.len(), n_attributes, "{:?}", entity.attributes.keys());
        assert!(!profiles.find(&topic).unwrap().description()["zh"].is_empty());
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        Just(json!("2025-01-01T00:00:00Z")),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(vec!["t", "x"]), inner, 0..3)
                .prop_map(|m| Value::Object(m.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_payload_is_an_observation_or_an_error(
        members in prop::collection::btree_map(
            prop::sample::select(vec!["time", "city", "station", "lon", "lat", "pm25", "data", "name_en", "source", "online", "raw", "simulated"]),
            json_value(),
            0..12,
        ),
        bytes in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let _ = decode_bytes(&bytes);
        let payload = Value::Object(members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect());
        if let Ok(entity) = decode(&payload) {
            if let Some(pm25) = entity.attribute("https://example.org/pm25") {
                let AttributeValue::Property(v) = &pm25.value else { panic!() };
                prop_assert_eq!(v, &payload["pm25"]);
                prop_assert!((0.0..=2000.0).contains(&v.as_f64().unwrap()));
            }
            prop_assert!(entity.attributes.values().flatten().all(|a| a.observed_at.is_none_or(|t| t <= Instant::from_secs(NOW_S + 3_600))));
        }
    }

    #[test]
    fn different_stations_are_different_entities(a in "\\PC{1,6}", b in "\\PC{1,6}", c in "\\PC{1,6}", d in "\\PC{1,6}") {
        let id = |city: &str, station: &str| decode(&json!({"city": city, "station": station, "pm25": 1})).unwrap().id;
        prop_assert_eq!(id(&a, &b) == id(&c, &d), (&a, &b) == (&c, &d));
    }
}
