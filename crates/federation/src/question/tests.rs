use super::*;
use entity::{
    Attribute, AttributeValue, CompareOp, Comparison, Entity, GeoCondition, GeoRelation, Geometry, Operand, Path, Pattern, Target,
};
use policy::{PolicySet, Principal, PublicKey, Request};
use proptest::prelude::*;
use serde_json::{Value, json};

fn iri(s: &str) -> Iri {
    s.parse().unwrap()
}

fn city(s: &str) -> CityName {
    s.parse().unwrap()
}

fn question() -> Question {
    Question {
        id: "q-1".into(),
        from: city("guangzhou"),
        purpose: "air".parse().unwrap(),
        filter: Filter::all(),
        types: Some(TypeSelector::Is(iri("urn:t:Air"))),
        attributes: Some(vec![iri("urn:p:pm25")]),
        limit: 100,
        kind: Kind::Entities,
    }
}

fn evolution() -> Evolution {
    Evolution {
        entity: iri("urn:e:1"),
        interval: Some(Instant::from_secs(0)..Instant::from_secs(10)),
        time_property: TimeProperty::ObservedAt,
        last_n: Some(3),
        as_of: Some(Instant::from_secs(5)),
        instances_max: 1_000,
    }
}

fn answer(outcome: Outcome) -> Answer {
    Answer { question: "q-1".into(), city: city("beijing"), answered_at: Instant::from_secs(1), outcome }
}

fn shared(entity: Entity) -> Shared {
    Shared { entity, agreements: vec![iri("urn:a:1")] }
}

fn entities(list: Vec<Shared>) -> Outcome {
    Outcome::Entities { agreements: vec![iri("urn:a:1")], entities: list, truncated: false }
}

#[test]
fn a_question_reads_as_json() {
    let want = json!({"version": 1, "question": {
        "id": "q-1", "from": "guangzhou", "purpose": "air", "filter": {"And": []}, "types": {"Is": "urn:t:Air"},
        "attributes": ["urn:p:pm25"], "limit": 100, "kind": "entities"
    }});
    assert_eq!(serde_json::from_slice::<Value>(&question().encode()).unwrap(), want);
    let past = Question { kind: Kind::Evolution(evolution()), types: None, attributes: None, ..question() };
    let want = json!({"evolution": {
        "entity": "urn:e:1", "interval": {"start": 0, "end": 10_000_000}, "timeProperty": "observedAt", "lastN": 3,
        "asOf": 5_000_000, "instancesMax": 1000
    }});
    assert_eq!(serde_json::from_slice::<Value>(&past.encode()).unwrap()["question"]["kind"], want);
    assert_eq!(Question::decode(&past.encode()), Ok(past));
}

#[test]
fn an_answer_reads_as_json() {
    let a = answer(entities(vec![shared(Entity::new(iri("urn:e:1"), iri("urn:t:Air")))]));
    let value: Value = serde_json::from_slice(&a.encode()).unwrap();
    assert_eq!(value["answer"]["outcome"]["entities"]["agreements"], json!(["urn:a:1"]));
    assert_eq!(value["answer"]["outcome"]["entities"]["entities"][0]["entity"]["id"], json!("urn:e:1"));
    let denied = answer(Outcome::Denied { code: "expired".into(), reason: "x".into(), reason_zh: "过期".into() });
    let want = json!({"denied": {"code": "expired", "reason": "x", "reasonZh": "过期"}});
    assert_eq!(serde_json::from_slice::<Value>(&denied.encode()).unwrap()["answer"]["outcome"], want);
    for a in [a, denied, answer(Outcome::Failed { reason: "disk".into() }), answer(Outcome::Evolution { agreements: vec![], past: None })] {
        assert_eq!(Answer::decode(&a.encode()), Ok(a));
    }
}

#[test]
fn the_condition_joins_types_entity_and_filter() {
    assert_eq!(question().condition(), Filter::And(vec![Filter::Type(TypeSelector::Is(iri("urn:t:Air")))]));
    let past = Question { kind: Kind::Evolution(evolution()), types: None, filter: Filter::HasAnyOf(vec![iri("urn:p:a")]), ..question() };
    assert_eq!(past.condition(), Filter::And(vec![Filter::Id(vec![iri("urn:e:1")]), Filter::HasAnyOf(vec![iri("urn:p:a")])]));
}

#[track_caller]
fn refused(change: impl FnOnce(&mut Value), want: &str) {
    let mut json: Value = serde_json::from_slice(&question().encode()).unwrap();
    change(&mut json);
    let error = Question::decode(json.to_string().as_bytes()).unwrap_err().to_string();
    assert!(error.contains(want), "{error}");
}

#[test]
fn other_versions_and_forms_are_refused_clearly() {
    refused(
        |j| j["version"] = json!(2),
        "the question has version 2, this node understands version 1: one of the two nodes needs an upgrade",
    );
    refused(|j| *j = json!({"version": 9, "something": "else"}), "version 9");
    refused(|j| *j = json!({"version": 1}), "member `question` is missing");
    refused(|j| *j = json!([]), "the question cannot be read");
    refused(|j| j["question"]["hidden"] = json!(1), "unknown field `hidden`");
    refused(|j| j["question"]["from"] = json!("Guangzhou"), "`Guangzhou` is not a city name");
    refused(|j| j["question"]["purpose"] = json!(""), "is not a purpose");
    refused(|j| j["question"]["kind"] = json!("everything"), "unknown variant `everything`");
    let error = Answer::decode(br#"{"version":3,"answer":{}}"#).unwrap_err();
    assert_eq!(error, MessageError::Version { what: "answer", found: 3 });
}

#[test]
fn values_that_cannot_be_are_named() {
    refused(|j| j["question"]["id"] = json!("a b"), "the question's id is `a b`, expected 1 to 64 letters");
    refused(|j| j["question"]["limit"] = json!(0), "limit is `0`, expected 1 to 10000");
    refused(|j| j["question"]["limit"] = json!(10_001), "limit is `10001`");
    refused(|j| j["question"]["attributes"] = json!(["pm25"]), "attributes is `pm25`, expected an absolute URI");
    refused(|j| j["question"]["types"] = json!({"Is": "Air"}), "a type is `Air`");
    refused(|j| j["question"]["filter"] = json!({"Id": ["a b"]}), "an id is `a b`");
    refused(|j| j["question"]["filter"] = json!({"Scope": "/a//b"}), "a scope pattern is `/a//b`");
    refused(|j| j["question"]["filter"] = json!({"IdPattern": "("}), "not a usable regular expression");
    let far = json!({"Value": ["EntityCreatedAt", {"Order": ["Gt", {"Instant": i64::MAX}]}]});
    refused(|j| j["question"]["filter"] = far, "an operand is `9223372036854775807`, expected microseconds since 1970");
    let kind = |change: fn(&mut Value)| {
        let mut k = serde_json::to_value(Kind::Evolution(evolution())).unwrap();
        change(&mut k["evolution"]);
        move |j: &mut Value| j["question"]["kind"] = k
    };
    refused(
        kind(|e| e["interval"] = json!({"start": 5, "end": 5})),
        "the end of the interval is `1970-01-01T00:00:00.000005Z`, expected an instant after",
    );
    refused(kind(|e| e["interval"] = json!({"start": i64::MIN, "end": 5})), "the start of the interval is");
    refused(kind(|e| e["asOf"] = json!(i64::MAX)), "asOf is");
    refused(kind(|e| e["lastN"] = json!(0)), "lastN is `0`");
    refused(kind(|e| e["instancesMax"] = json!(1_000_000)), "instancesMax is `1000000`, expected 1 to 100000");
    refused(kind(|e| e["entity"] = json!("x")), "the entity is `x`");
}

#[test]
fn limits_are_kept() {
    let nested = |n: usize| (0..n).fold(json!({"And": []}), |f, _| json!({"Not": f}));
    refused(|j| j["question"]["filter"] = nested(16), "the filter has 17 levels, more than the limit of 16");
    let ok = Question { filter: serde_json::from_value(nested(15)).unwrap(), ..question() };
    assert!(Question::decode(&ok.encode()).is_ok());
    refused(|j| j["question"]["filter"] = nested(200), "recursion limit");
    let many = vec![json!({"And": []}); 1_000];
    refused(|j| j["question"]["filter"] = json!({"Or": many}), "the filter has 1001 conditions, more than the limit of 1000");
    let patterns = vec![json!({"IdPattern": "a"}); 17];
    refused(|j| j["question"]["filter"] = json!({"Or": patterns}), "the filter has 17 regular expressions, more than the limit of 16");
    refused(|j| j["question"]["attributes"] = json!(vec!["urn:p:a"; 257]), "attributes has 257 names, more than the limit of 256");
    let large = vec![b' '; QUESTION_BYTES_MAX + 1];
    assert_eq!(Question::decode(&large).unwrap_err().to_string(), "the question has 262145 bytes, more than the limit of 262144");
    let e = shared(Entity::new(iri("urn:e:1"), iri("urn:t:A")));
    let many = answer(entities(vec![e; ENTITIES_MAX as usize + 1]));
    assert!(Answer::decode(&many.encode()).unwrap_err().to_string().contains("10001 entities"));
}

#[test]
fn entities_from_outside_are_checked_word_by_word() {
    let value = |v: AttributeValue| json!(Attribute::new(v));
    check("/id", json!("x y"), "an entity's id is `x y`");
    check("/types", json!([]), "an entity's type is ``");
    check("/types/0", json!("Air"), "an entity's type is `Air`");
    check("/scopes", json!(["//"]), "a scope is `//`");
    check("/modified_at", json!(i64::MAX), "modifiedAt is");
    check("/expires_at", json!(i64::MIN), "expiresAt is");
    check("/attributes", json!({"pm25": []}), "an attribute's name is `pm25`");
    check("/attributes/urn:p:a/0/o", json!(i64::MAX), "observedAt is");
    check("/attributes/urn:p:a/0/d", json!(""), "datasetId is");
    check("/attributes/urn:p:a/0/s", json!({"b": [value(AttributeValue::Property(json!(1)))]}), "an attribute's name is `b`");
    let relationship = json!([{"v": {"R": ["x"]}, "c": 0, "m": 0}]);
    check("/attributes/urn:p:a", relationship, "a relationship's object is `x`");
    check(
        "/attributes/urn:p:a",
        json!([{"v": {"G": {"type": "Point", "coordinates": [200, 0]}}, "c": 0, "m": 0}]),
        "longitude must be within",
    );

    #[track_caller]
    fn check(pointer: &str, with: Value, want: &str) {
        let mut e = Entity::new(iri("urn:e:1"), iri("urn:t:Air")).with(iri("urn:p:a"), Attribute::property(1));
        e.scopes.push("/A".parse().unwrap());
        e.expires_at = Some(Instant::from_secs(1));
        e.attributes["urn:p:a"][0].observed_at = Some(Instant::from_secs(1));
        e.attributes["urn:p:a"][0].dataset_id = Some(iri("urn:d:1"));
        e.attributes["urn:p:a"][0].sub_attributes.insert(iri("urn:p:s"), Attribute::property(1).into());
        let a = answer(entities(vec![shared(e)]));
        assert_eq!(Answer::decode(&a.encode()), Ok(a.clone()));
        let mut json: Value = serde_json::from_slice(&a.encode()).unwrap();
        *json.pointer_mut(&format!("/answer/outcome/entities/entities/0/entity{pointer}")).expect(pointer) = with;
        let error = Answer::decode(json.to_string().as_bytes()).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn an_answer_must_fit_its_question() {
    let e = |id: &str| shared(Entity::new(iri(id), iri("urn:t:Air")));
    let q = Question { limit: 1, ..question() };
    let past = Question { kind: Kind::Evolution(evolution()), ..question() };
    let of = |id: &str| Past { id: iri(id), types: vec![], attributes: Series::new(), cut_at: None };
    let evolution_of = |id: &str| Outcome::Evolution { agreements: vec![], past: Some(of(id)) };
    let fits = |outcome: Outcome, q: &Question| answer(outcome).fits(q, &city("beijing")).map_err(|e| e.to_string());
    assert_eq!(fits(entities(vec![e("urn:e:1")]), &q), Ok(()));
    assert_eq!(fits(entities(vec![e("urn:e:1"), e("urn:e:2")]), &q).unwrap_err(), "the answer has 2 entities, more than the 1 asked for");
    assert_eq!(fits(evolution_of("urn:e:1"), &past), Ok(()));
    assert_eq!(fits(evolution_of("urn:e:2"), &past).unwrap_err(), "the answer is about entity `urn:e:2` (asked was about `urn:e:1`)");
    assert_eq!(fits(entities(vec![]), &past).unwrap_err(), "the answer is about entities (asked was about a past)");
    assert!(fits(evolution_of("urn:e:1"), &q).is_err());
    assert_eq!(fits(Outcome::Failed { reason: "x".into() }, &past), Ok(()));
    assert_eq!(
        answer(entities(vec![])).fits(&q, &city("shanghai")).unwrap_err().to_string(),
        "`beijing` answers in the name of `shanghai`"
    );
    let other = Question { id: "q-2".into(), ..question() };
    assert_eq!(fits(entities(vec![]), &other).unwrap_err(), "the answer is to question `q-1` (expected `q-2`)");
    assert!(question().is_from(&city("guangzhou")).is_ok());
    assert_eq!(question().is_from(&city("shenzhen")).unwrap_err().to_string(), "`shenzhen` asks in the name of `guangzhou`");
}

#[test]
fn a_denial_travels_in_both_languages() {
    let peer = Principal::Peer { city: city("guangzhou"), key: PublicKey::from_bytes([0; 32]) };
    let request = Request { principal: peer, action: policy::Action::Read, purpose: None, now: Instant::from_secs(0) };
    let policy::Decision::Deny(denial) = PolicySet::compile(city("beijing"), []).decide(&request) else { panic!("permitted") };
    let a = Answer::denied(&question(), city("beijing"), Instant::from_secs(1), &denial);
    let Outcome::Denied { code, reason, reason_zh } = &a.outcome else { panic!("not denied") };
    assert_eq!((code.as_str(), reason.as_str()), ("no-agreement", "no agreement in force lets `guangzhou` read from `beijing`"));
    assert!(reason_zh.contains("没有生效的协议"));
    assert_eq!(Answer::decode(&a.encode()), Ok(a));
    let long = Answer::failed(&question(), city("beijing"), Instant::from_secs(1), &"å".repeat(9_999));
    assert!(Answer::decode(&long.encode()).is_ok(), "our own reasons keep to the limit");
}

fn any_filter() -> impl Strategy<Value = Filter> {
    let operand = prop_oneof![
        any::<f64>().prop_filter("JSON has no infinity", |n| n.is_finite()).prop_map(Operand::Number),
        "\\PC{0,8}".prop_map(Operand::Text),
        any::<bool>().prop_map(Operand::Bool),
        (0..4_000_000_000_000_000i64).prop_map(|us| Operand::Instant(Instant::from_micros(us))),
    ];
    let target = prop_oneof![
        Just(Target::EntityCreatedAt),
        ("urn:p:[a-z]{1,4}", "[a-z]{0,3}").prop_map(|(p, key)| Target::Attribute(Path { keys: vec![key], ..Path::of(iri(&p)) })),
    ];
    let leaf = prop_oneof![
        Just(Filter::none()),
        "urn:t:[a-z]{1,4}".prop_map(|t| Filter::Type(TypeSelector::Or(vec![TypeSelector::Any, TypeSelector::Is(iri(&t))]))),
        "urn:e:\\p{Han}{1,4}".prop_map(|i| Filter::Id(vec![iri(&i)])),
        Just(Filter::IdPattern(Pattern::new("^urn:.*[0-9]$").unwrap())),
        Just(Filter::Scope("/A/+/#".parse().unwrap())),
        (target, operand).prop_map(|(t, o)| Filter::Value(t, Comparison::Order(CompareOp::Le, o))),
        (-180.0..180.0f64, -90.0..90.0f64).prop_map(|(x, y)| Filter::Geo(GeoCondition {
            property: iri(entity::LOCATION),
            relation: GeoRelation::NearMax(10.5),
            reference: Geometry::point(x, y)
        })),
    ];
    leaf.prop_recursive(4, 20, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Filter::And),
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Filter::Or),
            inner.prop_map(|f| Filter::Not(Box::new(f))),
        ]
    })
}

proptest! {
    #[test]
    fn questions_are_read_as_they_were_written(filter in any_filter(), limit in 1..=ENTITIES_MAX, id in "[a-zA-Z0-9_-]{1,64}", past: bool) {
        let kind = if past { Kind::Evolution(evolution()) } else { Kind::Entities };
        let q = Question { filter, limit, id, kind, ..question() };
        prop_assert_eq!(Question::decode(&q.encode()), Ok(q));
    }

    #[test]
    fn any_bytes_give_an_answer_not_a_panic(bytes: Vec<u8>, text in "\\PC{0,80}") {
        prop_assert!(Question::decode(&bytes).is_err());
        prop_assert!(Answer::decode(&bytes).is_err());
        prop_assert!(Question::decode(text.as_bytes()).is_err());
        prop_assert!(Answer::decode(text.as_bytes()).is_err());
    }

    #[test]
    fn damaged_messages_give_an_answer_not_a_panic(filter in any_filter(), at in any::<proptest::sample::Index>(), byte: u8, cut: bool) {
        let e = Entity::new(iri("urn:e:1"), iri("urn:t:A")).with(iri("urn:p:a"), Attribute::property(1));
        for mut bytes in [Question { filter, ..question() }.encode(), answer(entities(vec![shared(e)])).encode()] {
            let i = at.index(bytes.len());
            if cut { bytes.truncate(i) } else { bytes[i] = byte }
            // Whatever passes is whole and can be written again.
            if let Ok(q) = Question::decode(&bytes) {
                prop_assert_eq!(Question::decode(&q.encode()), Ok(q));
            }
            if let Ok(a) = Answer::decode(&bytes) {
                prop_assert_eq!(Answer::decode(&a.encode()), Ok(a));
            }
        }
    }
}
