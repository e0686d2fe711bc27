//! What is written is read back the same.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use entity::{Attribute, AttributeValue, Attributes, Entity, Geometry, Instant, Iri, Qualifiers, Series};
use ngsi::encode::{self, Document, TemporalEntity};
use ngsi::query::TimeProperty;
use ngsi::{ContextStore, Representation, View, decode};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

static CONTEXTS: LazyLock<ContextStore> = LazyLock::new(|| ContextStore::new(Some(ngsi::context::DEFAULT_USER_CONTEXT_URL), None).unwrap());

fn iri() -> impl Strategy<Value = Iri> {
    prop_oneof![
        "[a-z]{1,6}".prop_map(|s| format!("urn:x:{s}")),
        "[a-zA-Z_]{1,6}".prop_map(|s| format!("https://uri.etsi.org/ngsi-ld/default-context/{s}")),
        "[a-zA-Z.]{1,6}".prop_map(|s| format!("https://conurb.org/ns#{s}")),
        Just("https://uri.fiware.org/ns/data-models#AirQualityObserved".to_owned()),
        Just(entity::LOCATION.to_owned()),
    ]
    .prop_map(|s| Iri::known(&s))
}

fn instant() -> impl Strategy<Value = Instant> {
    (0..4_000_000_000_000_000_i64).prop_map(Instant::from_micros)
}

/// JSON without null, and with the words that could be mistaken for the members of an attribute.
fn plain_json() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        Just("type"),
        Just("value"),
        Just("object"),
        Just("coordinates"),
        Just("@type"),
        Just("@value"),
        Just("datasetId"),
        Just("vocab"),
        Just("json"),
        Just("a"),
    ];
    let word =
        prop_oneof![Just("Property"), Just("Point"), Just("Relationship"), Just("x"), Just("urn:x:y"), Just("a \"quoted\" \u{1} 文")];
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e12..1e12_f64).prop_map(Value::from),
        word.prop_map(Value::from),
        "\\PC{0,5}".prop_map(Value::from),
        Just(json!({"type": "Point", "coordinates": [1.0, 2.0]})),
    ];
    leaf.prop_recursive(3, 12, 4, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            vec((key.clone(), inner), 0..4).prop_map(|m| Value::Object(m.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

fn attribute_value() -> impl Strategy<Value = AttributeValue> {
    let text = prop_oneof!["\\PC{0,5}".prop_map(Value::from), vec("[a-z]{0,3}", 0..3).prop_map(Value::from)];
    prop_oneof![
        4 => plain_json().prop_map(AttributeValue::Property),
        1 => (-180.0..180.0_f64, -90.0..90.0_f64).prop_map(|(lon, lat)| AttributeValue::Geo(Geometry::point(lon, lat))),
        1 => vec(iri(), 1..3).prop_map(AttributeValue::Relationship),
        1 => vec(("(en|zh-Hans|@none)", text), 1..3).prop_map(|m| AttributeValue::Language(m.into_iter().map(|(k, v)| (k.into(), v)).collect())),
        1 => vec(iri(), 1..3).prop_map(AttributeValue::Vocab),
        1 => plain_json().prop_map(AttributeValue::Json),
        1 => vec(plain_json(), 0..3).prop_map(AttributeValue::List),
        1 => vec(iri(), 0..3).prop_map(AttributeValue::ListRelationship),
    ]
}

fn leaf_attribute() -> impl Strategy<Value = Attribute> {
    (attribute_value(), any::<bool>(), prop::option::of(instant()), vec(iri(), 0..2), prop::option::of(iri()), prop::option::of(instant()))
        .prop_map(|(value, has_unit, observed_at, object_types, value_type, expires_at)| {
            let relationship = matches!(value, AttributeValue::Relationship(_) | AttributeValue::ListRelationship(_));
            let unit = has_unit && !relationship && !matches!(value, AttributeValue::Language(_));
            let mut qualifiers = Qualifiers { object_types, value_type, expires_at };
            if relationship {
                qualifiers.value_type = None;
            } else {
                qualifiers.object_types.clear();
            }
            let qualifiers = (qualifiers != Qualifiers::default()).then(|| Box::new(qualifiers));
            Attribute { observed_at, unit_code: unit.then(|| "GQ".into()), qualifiers, ..Attribute::new(value) }
        })
}

fn attributes(inner: impl Strategy<Value = Attribute>) -> impl Strategy<Value = Attributes> {
    let instances = (inner, prop::option::of(Just("urn:d:2"))).prop_map(|(a, second)| match second {
        None => vec![a],
        Some(id) => vec![a.clone(), Attribute { dataset_id: Some(Iri::known(id)), ..a }],
    });
    vec((iri(), instances), 0..4).prop_map(|list| list.into_iter().map(|(name, instances)| (name, instances.into())).collect())
}

fn entity_strategy() -> impl Strategy<Value = Entity> {
    let with_subs = (leaf_attribute(), attributes(leaf_attribute()))
        .prop_map(|(a, sub_attributes)| Attribute { sub_attributes: sub_attributes.into(), ..a });
    (iri(), vec(iri(), 1..3), vec("/[a-z]{1,3}", 0..3), prop::option::of(instant()), attributes(with_subs)).prop_map(
        |(id, mut types, mut scopes, expires_at, attributes)| {
            types.dedup();
            scopes.sort();
            scopes.dedup();
            let mut e = Entity::new(id, types.remove(0));
            e.types.extend(types);
            e.scopes = scopes.iter().map(|s| s.parse().unwrap()).collect();
            e.expires_at = expires_at;
            e.attributes = attributes;
            e
        },
    )
}

/// Instances of attributes in the order of time, each of its own time and `datasetId`.
fn series() -> impl Strategy<Value = Series> {
    let dataset = || prop::option::of(prop::sample::select(vec!["urn:d:1", "urn:d:2"]));
    let instances = vec((leaf_attribute(), instant(), dataset()), 1..5).prop_map(|list| {
        let known: BTreeMap<(Instant, Option<&str>), Attribute> = list.into_iter().map(|(a, at, d)| ((at, d), a)).collect();
        let instance = |((at, d), a): ((Instant, Option<&str>), Attribute)| Attribute { dataset_id: d.map(Iri::known), ..a.observed(at) };
        known.into_iter().map(instance).collect::<Vec<_>>()
    });
    vec((iri(), instances), 0..4).prop_map(|list| list.into_iter().collect())
}

fn written(attributes: &Series, view: &View) -> Value {
    let (id, types) = (Iri::known("urn:x:1"), [Iri::known("https://uri.etsi.org/ngsi-ld/default-context/T")]);
    let e = TemporalEntity {
        id: &id,
        types: &types,
        attributes,
        removals: &[],
        deleted_at: None,
        created_at: None,
        modified_at: None,
        scopes: &[],
    };
    serde_json::from_slice(&encode::evolution(e, TimeProperty::ObservedAt, view, CONTEXTS.core_context(), false)).unwrap()
}

fn read_series(document: Value) -> Series {
    let read = decode::evolution(document, CONTEXTS.core_context()).unwrap();
    read.attributes.into_iter().map(|(name, list)| (name, list.to_vec())).collect()
}

proptest! {
    #[test]
    fn a_past_is_read_back_as_it_was(attributes in series()) {
        let all = View { sys_attrs: true, ..View::default() };
        prop_assert_eq!(read_series(written(&attributes, &all)), attributes);
    }

    #[test]
    fn values_and_times_are_read_back_as_they_were(attributes in series()) {
        let values = View { temporal_values: true, ..View::default() };
        let mut read = read_series(written(&attributes, &values));
        let mut want = attributes;
        for list in read.values_mut().chain(want.values_mut()) {
            list.sort_by_key(|a| (a.observed_at, a.dataset_id.clone()));
            for a in list {
                (a.unit_code, a.qualifiers) = (None, None);
            }
        }
        prop_assert_eq!(read, want);
    }

    #[test]
    fn normalized_and_concise_lose_nothing(e in entity_strategy()) {
        for context in [CONTEXTS.default_context(), CONTEXTS.core_context()] {
            for representation in [Representation::Normalized, Representation::Concise] {
                // Expiry is shown with the system attributes only; the recorded times are the node's and come back as zero.
                let view = View { sys_attrs: true, ..View::of(representation) };
                let bytes = encode::entity(&e, &view, context, Document::LdJson);
                let value: Value = serde_json::from_slice(&bytes).unwrap();
                let back = decode::entity(value, context);
                prop_assert_eq!(back.as_ref(), Ok(&e), "{}", String::from_utf8_lossy(&bytes));
            }
        }
    }

    #[test]
    fn concise_without_system_attributes_loses_only_expiry(mut e in entity_strategy()) {
        strip_expiry(&mut e.attributes);
        e.expires_at = None;
        let context = CONTEXTS.default_context();
        let bytes = encode::entity(&e, &View::of(Representation::Concise), context, Document::Json);
        let back = decode::entity(serde_json::from_slice(&bytes).unwrap(), context);
        prop_assert_eq!(back.as_ref(), Ok(&e), "{}", String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn the_quick_way_of_batches_says_what_the_long_way_says(list in vec(entity_strategy(), 1..4), cut in prop::option::of(0..2_000_usize)) {
        let context = CONTEXTS.default_context();
        for representation in [Representation::Normalized, Representation::Concise] {
            let view = View { sys_attrs: true, ..View::of(representation) };
            let mut bytes = encode::entities(&list, &view, context, Document::Json);
            bytes.truncate(cut.unwrap_or(usize::MAX));
            let long = decode::body(&bytes, decode::MediaType::Json, None, &CONTEXTS).and_then(decode::batch);
            if let Some(quick) = decode::plain_batch(&bytes, context) {
                prop_assert_eq!(Ok(quick), long, "{}", String::from_utf8_lossy(&bytes));
            }
        }
    }

    #[test]
    fn every_form_of_every_entity_is_json(e in entity_strategy()) {
        let context = CONTEXTS.default_context();
        for document in [Document::Json, Document::LdJson, Document::GeoJson] {
            for representation in [Representation::Normalized, Representation::Concise, Representation::Simplified] {
                let view = View { lang: Some(ngsi::LanguageRanges::parse("zh,en;q=0.5").unwrap()), ..View::of(representation) };
                serde_json::from_slice::<Value>(&encode::entity(&e, &view, context, document)).unwrap();
            }
        }
    }
}

#[test]
fn ordinary_batches_go_the_quick_way_and_odd_ones_are_judged_the_long_way() {
    let attribute = r#"{"type": "Property", "value": 1.5, "unitCode": "GQ", "observedAt": "2024-01-01T00:00:00Z"}"#;
    let entity = |members: &str| format!(r#"{{"id": "urn:a:1", "type": "T"{members}}}"#);
    check(&format!("[{}]", entity(&format!(r#", "a": {attribute}, "b": {{"type": "Property", "value": "x"}}"#))), true);
    check(
        &format!(
            "[{}]",
            entity(r#", "scope": ["/a", "/b"], "location": {"type": "GeoProperty", "value": {"type": "Point", "coordinates": [1, 2]}}"#)
        ),
        true,
    );
    check(&format!("[{}]", entity(r#", "a": 5, "b": {"value": [1, {"c": true}]}, "r": {"object": "urn:b:1"}"#)), true);
    check(r#"[{"id": "urn:a:1", "type": ["T", "U"], "a": 1}]"#, true);
    // Unusual attributes, in every order of their members.
    for a in [
        r#"{"observedAt": "2024-01-01T00:00:00Z", "accuracy": {"type": "Property", "value": 2}, "value": 1, "type": "Property", "by": "x"}"#,
        r#"{"unitCode": "GQ", "value": {"c": 1}, "type": "Property"}"#,
        r#"{"type": "Property", "value": "\u00e9\n", "datasetId": "urn:d:1"}"#,
        r#"{"value": 1, "type": "\u0050roperty"}"#,
        r#"[{"value": 1}, {"value": 2, "datasetId": "urn:d:1"}]"#,
        r#""text""#,
        "true",
        "-1.5",
        r#"{"object": ["urn:b:1", "urn:b:2"], "objectType": "B", "type": "Relationship"}"#,
    ] {
        check(&format!("[{}]", entity(&format!(r#", "a": {a}, "b": {attribute}"#))), true);
    }
    for odd in [
        r#"[{"id": "urn:a:1", "a": 1}]"#,
        r#"[{"id": "a", "type": "T"}]"#,
        r#"[{"id": "urn:a:1", "type": "T", "type": "U"}]"#,
        r#"[{"id": "urn:a:1", "type": "T", "a": 1, "a": 2}]"#,
        r#"[{"id": "urn:a:1", "type": "T", "a": {"type": "Property", "value": null}}]"#,
        r#"[{"id": "urn:a:1", "type": "T", "a": {"type": "Property", "value": "urn:ngsi-ld:null"}}]"#,
        r#"[{"id": "urn:a:1", "type": "T", "a": {"type": "Property", "value": 1, "observedAt": "today"}}]"#,
        r#"[{"id": "urn:a:1", "type": "T", "a": {"type": "Property", "value": 1e999}}]"#,
        r#"[{"id": "urn:a:1", "type": "T", "a": {"type": "Property", "value": "\ud800"}}]"#,
        r#"[{"id": "urn:a:1", "type": "T", "@context": "https://example.org/c"}]"#,
        r#"[{"id": "urn:a:1", "type": "T", "unitCode": 1}]"#,
        r#"[{"id": "urn:a:1", "type": "T", "a": {"type": "Property", "value": 1, "value": 2}}, 7]"#,
        r#"[{"id": "urn:a:1", "type": "T", "a": {"type": "Property", "value": 1, "value": 2, "type": "Property"}}]"#,
        r#"[{"id": "urn:a:1", "type": "T", "\u0061": 1}]"#,
        "[null]",
        "[]",
        "{}",
        "[{]",
    ] {
        check(odd, false);
    }

    #[track_caller]
    fn check(body: &str, is_quick: bool) {
        let long = decode::body(body.as_bytes(), decode::MediaType::Json, None, &CONTEXTS).and_then(decode::batch);
        let quick = decode::plain_batch(body.as_bytes(), CONTEXTS.default_context());
        assert_eq!(quick.is_some(), is_quick, "{body}");
        if let Some(quick) = quick {
            assert_eq!(Ok(quick), long, "{body}");
        }
    }
}

fn strip_expiry(attributes: &mut Attributes) {
    for a in attributes.values_mut().flatten() {
        if let Some(q) = &mut a.qualifiers {
            q.expires_at = None;
        }
        if a.qualifiers.as_deref() == Some(&Qualifiers::default()) {
            a.qualifiers = None;
        }
        strip_expiry(&mut a.sub_attributes);
    }
}
