use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn arb_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no such number", |f| f.is_finite()).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(".{0,6}", inner, 0..4)
                .prop_map(|m: BTreeMap<String, Value>| Value::Object(m.into_iter().collect())),
        ]
    })
}

fn arb_iri() -> impl Strategy<Value = Iri> {
    let prefix = proptest::sample::select(&PREFIXES[1..]);
    (prefix, "[a-z0-9站]{1,12}").prop_map(|(p, rest)| Iri::known(&format!("{p}{}{rest}", if p.contains(':') { "" } else { ":" })))
}

fn arb_instant() -> impl Strategy<Value = Instant> {
    (Instant::MIN.micros()..=Instant::MAX.micros()).prop_map(Instant::from_micros)
}

fn arb_geometry() -> impl Strategy<Value = Geometry> {
    prop_oneof![
        (-180.0..180.0f64, -90.0..90.0f64).prop_map(|(lon, lat)| Geometry::point(lon, lat)),
        (-180i64..180, -90i64..90, 0i64..9)
            .prop_map(|(lon, lat, z)| Geometry::from_json(json!({"type": "Point", "coordinates": [lon, lat, z]})).unwrap()),
        (-170.0..170.0f64, -80.0..80.0f64)
            .prop_map(|(x, y)| Geometry::from_json(json!({"coordinates": [[x, y], [x + 1.0, y]], "type": "LineString"})).unwrap()),
        (-180i64..180, -90i64..90).prop_map(|(lon, lat)| Geometry::from_json(json!({"coordinates": [lon, lat], "type": "Point"})).unwrap()),
    ]
}

fn arb_attribute_value() -> impl Strategy<Value = AttributeValue> {
    let iris = || proptest::collection::vec(arb_iri(), 0..3);
    prop_oneof![
        arb_json().prop_map(AttributeValue::Property),
        arb_geometry().prop_map(AttributeValue::Geo),
        iris().prop_map(AttributeValue::Relationship),
        proptest::collection::vec(("[a-z]{2}", arb_json()), 0..3)
            .prop_map(|texts| AttributeValue::Language(texts.into_iter().map(|(t, v)| (t.into(), v)).collect())),
        iris().prop_map(AttributeValue::Vocab),
        arb_json().prop_map(AttributeValue::Json),
        proptest::collection::vec(arb_json(), 0..3).prop_map(AttributeValue::List),
        iris().prop_map(AttributeValue::ListRelationship),
    ]
}

fn arb_attribute() -> impl Strategy<Value = Attribute> {
    let qualifiers = (proptest::collection::vec(arb_iri(), 0..2), proptest::option::of(arb_iri()), proptest::option::of(arb_instant()))
        .prop_map(|(object_types, value_type, expires_at)| Box::new(Qualifiers { object_types, value_type, expires_at }));
    let plain = (
        arb_attribute_value(),
        proptest::option::of(arb_iri()),
        proptest::option::of(arb_instant()),
        proptest::option::of("[A-Z0-9]{1,3}"),
        arb_instant(),
        arb_instant(),
        proptest::option::of(qualifiers),
    )
        .prop_map(|(value, dataset_id, observed_at, unit_code, created_at, modified_at, qualifiers)| Attribute {
            value,
            dataset_id,
            observed_at,
            unit_code: unit_code.map(SmolStr::from),
            created_at,
            modified_at,
            sub_attributes: SubAttributes::default(),
            qualifiers,
        });
    plain.prop_recursive(2, 6, 2, |inner| {
        (inner.clone(), arb_iri(), proptest::collection::vec(inner, 1..3)).prop_map(|(mut outer, name, instances)| {
            outer.sub_attributes.insert(name, instances.into());
            outer
        })
    })
}

fn arb_entity() -> impl Strategy<Value = Entity> {
    let attributes = proptest::collection::vec((arb_iri(), proptest::collection::vec(arb_attribute(), 1..3)), 0..4);
    let scopes = proptest::collection::vec("/[a-z]{1,4}(/[a-z]{1,4})?", 0..3);
    (
        arb_iri(),
        proptest::collection::vec(arb_iri(), 1..3),
        scopes,
        attributes,
        arb_instant(),
        arb_instant(),
        proptest::option::of(arb_instant()),
        any::<bool>(),
    )
        .prop_map(|(id, types, scopes, attributes, created_at, modified_at, expires_at, stamped)| {
            let mut entity =
                Entity { id, types, scopes: Vec::new(), attributes: Attributes::default(), created_at, modified_at, expires_at };
            entity.scopes = scopes.into_iter().map(|s| s.parse().unwrap()).collect();
            entity.attributes = attributes.into_iter().map(|(name, instances)| (name, instances.into())).collect();
            if stamped {
                // As a node stamps what is written at once.
                for a in entity.attributes.values_mut().flatten() {
                    (a.created_at, a.modified_at) = (modified_at, modified_at);
                }
            }
            entity
        })
}

/// Without recorded times, which are not written: they are those of the record. Only a correction keeps when it was created.
fn unrecorded(mut delta: Delta) -> Delta {
    fn forget(a: &mut Attribute) {
        (a.created_at, a.modified_at) = (Instant::default(), Instant::default());
        a.sub_attributes.each_mut().for_each(|(_, sub)| forget(sub));
    }
    let late = delta.late.iter_mut().filter(|(_, a)| a.created_at == a.modified_at);
    delta.put.iter_mut().chain(late).for_each(|(_, a)| forget(Arc::make_mut(a)));
    delta
}

fn arb_delta() -> impl Strategy<Value = Delta> {
    let instances = || proptest::collection::vec((arb_iri(), arb_attribute().prop_map(Arc::new)), 0..3);
    (
        arb_entity(),
        any::<bool>(),
        any::<bool>(),
        instances(),
        instances(),
        proptest::collection::vec((arb_iri(), proptest::option::of(arb_iri())), 0..3),
        any::<bool>(),
    )
        .prop_map(|(e, delete, clear, put, late, remove, scoped)| Delta {
            id: e.id,
            delete,
            clear,
            types: e.types,
            scopes: scoped.then_some(e.scopes),
            put,
            late,
            remove,
            expires_at: Some(e.expires_at),
        })
}

#[test]
fn a_name_is_written_once_for_all_changes_and_in_full_beyond_those_that_are_remembered() {
    let delta = |name: String| Delta {
        put: vec![(Iri::known(&name), Arc::new(Attribute::property(1)))],
        ..crate::resolve(crate::Command::Create(Entity::new(Iri::known("urn:x:1"), Iri::known("urn:t:T"))), None).unwrap().delta.unwrap()
    };
    let bytes_of = |deltas: &[Delta]| {
        let mut bytes = Vec::new();
        encode_deltas(&deltas.iter().collect::<Vec<_>>(), &mut bytes);
        assert_eq!(decode_deltas(&bytes, deltas.len(), TermForm::Once).unwrap(), (deltas.to_vec(), bytes.len()));
        bytes
    };
    let same: Vec<Delta> = (0..100).map(|_| delta("https://example.org/temperature".to_owned())).collect();
    assert!(bytes_of(&same).len() < 40 + 100 * 16, "{}", bytes_of(&same).len());
    let different: Vec<Delta> = (0..3 * SEEN_MAX).map(|n| delta(format!("https://example.org/a{}", n % (SEEN_MAX + 50)))).collect();
    bytes_of(&different);
    let (idx, _) = decode_deltas(&bytes_of(&same)[..200], 100, TermForm::Once).unwrap_err();
    assert!((3..20).contains(&idx), "{idx}: the one that is cut is named");
}

proptest! {
    #[test]
    fn an_entity_reads_back_as_it_was(entity in arb_entity()) {
        prop_assert_eq!(decode_entity(&encode_entity(&entity)).unwrap(), entity);
    }

    #[test]
    fn deltas_read_back_one_after_the_other(deltas in proptest::collection::vec(arb_delta(), 0..6), again in 1..3_usize) {
        let deltas: Vec<Delta> = std::iter::repeat_n(deltas, again).flatten().collect();
        let mut bytes = vec![7];
        encode_deltas(&deltas.iter().collect::<Vec<_>>(), &mut bytes);
        let (read, n) = decode_deltas(&bytes[1..], deltas.len(), TermForm::Once).unwrap();
        prop_assert_eq!(read, deltas.into_iter().map(unrecorded).collect::<Vec<_>>());
        prop_assert_eq!(1 + n, bytes.len());
    }

    /// Cut or changed anywhere: an error or another entity, never a panic.
    #[test]
    fn damage_is_an_error_or_another_entity(entity in arb_entity(), at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = encode_entity(&entity);
        let i = at.index(bytes.len());
        prop_assert!(decode_entity(&bytes[..i]).is_err());
        bytes[i] = byte;
        let _ = decode_entity(&bytes);
    }

    #[test]
    fn a_skimmed_entity_says_what_the_decoded_one_says(entity in arb_entity()) {
        check_skimmed(&encode_entity(&entity), &entity);
    }

    /// What decodes is skimmed, with the same content; what is skimmed to its end without being decodable makes nobody panic.
    #[test]
    fn skimming_damage_is_an_error_or_what_decoding_gives(entity in arb_entity(), at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = encode_entity(&entity);
        let i = at.index(bytes.len());
        prop_assert!(skim_all(&bytes[..i]).is_err());
        bytes[i] = byte;
        match decode_entity(&bytes) {
            // A name that comes twice is there once when decoded.
            Ok(decoded) if decoded.attributes.len() == entity.attributes.len() => check_skimmed(&bytes, &decoded),
            _ => drop(skim_all(&bytes)),
        }
    }

    #[test]
    fn rubbish_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for form in [TermForm::Full, TermForm::Once] {
            let _ = decode_deltas(&bytes, 3, form);
        }
        let mut formatted = vec![FORMAT];
        formatted.extend_from_slice(&bytes);
        let _ = decode_entity(&formatted);
        let _ = skim_all(&formatted);
    }
}

fn skim_all(bytes: &[u8]) -> Result<usize, CodecError> {
    let mut skim = Skim::of(bytes)?;
    let mut n = 0;
    while let Some(attribute) = skim.next_attribute()? {
        n += 1;
        let _ = attribute.instances();
    }
    Ok(n)
}

#[track_caller]
fn check_skimmed(bytes: &[u8], entity: &Entity) {
    let whole = |name: Name<'_>| {
        let mut text = String::new();
        name.push_to(&mut text);
        text
    };
    let mut skim = Skim::of(bytes).unwrap();
    assert_eq!(whole(skim.id()), entity.id.as_str());
    assert_eq!(skim.types().unwrap(), entity.types);
    assert_eq!(skim.scopes().unwrap(), entity.scopes);
    assert_eq!((skim.created_at(), skim.modified_at(), skim.expires_at()), (entity.created_at, entity.modified_at, entity.expires_at));
    for (name, instances) in &entity.attributes {
        let skimmed = skim.next_attribute().unwrap().unwrap();
        assert_eq!(skimmed.name().unwrap(), *name);
        assert_eq!(skimmed.instances().unwrap(), *instances);
        let Some(only) = skimmed.only else {
            assert_ne!(instances.len(), 1);
            continue;
        };
        let a = &instances[0];
        assert_eq!((only.observed_at, only.unit_code), (a.observed_at, a.unit_code.as_deref()));
        match (&only.value, &a.value) {
            (SkimmedValue::Number(n), AttributeValue::Property(v)) => assert_eq!(v.as_f64(), Some(*n)),
            (SkimmedValue::Bool(b), AttributeValue::Property(v)) => assert_eq!(v, b),
            (SkimmedValue::Text(t), AttributeValue::Property(v)) => assert_eq!(v, t),
            (SkimmedValue::Point(p), AttributeValue::Geo(g)) => assert_eq!(g.plain_point(), Some(*p)),
            (SkimmedValue::Target(n), AttributeValue::Relationship(targets)) => {
                assert_eq!([whole(*n)], *targets.iter().map(Iri::as_str).collect::<Vec<_>>());
            }
            (SkimmedValue::Compound, AttributeValue::Property(v)) => assert!(v.is_null() || v.is_array() || v.is_object(), "{v}"),
            (SkimmedValue::Texts(texts), AttributeValue::Language(map)) => {
                assert_eq!(texts.iter().map(Some).collect::<Vec<_>>(), map.values().map(Value::as_str).collect::<Vec<_>>());
            }
            (SkimmedValue::Compound, AttributeValue::Language(map)) => assert!(!map.values().all(Value::is_string)),
            (SkimmedValue::Compound, AttributeValue::Json(_) | AttributeValue::List(_)) => {}
            (SkimmedValue::Unusual, AttributeValue::Geo(g)) => assert_eq!(g.plain_point(), None),
            (SkimmedValue::Unusual, AttributeValue::Relationship(targets)) => assert_ne!(targets.len(), 1),
            (SkimmedValue::Unusual, AttributeValue::Vocab(_) | AttributeValue::ListRelationship(_)) => {}
            (skimmed, value) => panic!("{skimmed:?} for {value:?}"),
        }
    }
    assert!(skim.next_attribute().unwrap().is_none());
}

#[test]
fn errors_say_what_is_wrong() {
    check(b"", "ends at byte 0, in the middle of the format");
    check(b"{\"id\":1}", "has format 123, this program knows 1");
    check(&[FORMAT, 99, 0], "byte 2: an unknown prefix");
    check(&[FORMAT, 0, 200, 1], "byte 4: a count is larger than what follows");

    #[track_caller]
    fn check(bytes: &[u8], want: &str) {
        assert_eq!(decode_entity(bytes).unwrap_err().to_string(), want);
    }
}

#[test]
fn the_binary_form_is_much_smaller_than_json() {
    let at = Instant::from_secs(1_400_000_000);
    let mut station = Entity::new(
        Iri::known("urn:ngsi-ld:AirQualityObserved:beijing-1001"),
        Iri::known("https://smartdatamodels.org/dataModel.Environment/AirQualityObserved"),
    );
    (station.created_at, station.modified_at) = (at, at);
    for name in ["pm25", "pm10", "no2", "o3", "so2", "co"] {
        let mut a = Attribute::property(41.5).observed(at);
        (a.created_at, a.modified_at, a.unit_code) = (at, at, Some("GQ".into()));
        station.put(Iri::known(&format!("https://smartdatamodels.org/dataModel.Environment/{name}")), a);
    }
    let (binary, json) = (encode_entity(&station).len(), serde_json::to_vec(&station).unwrap().len());
    assert!(binary * 3 < json, "{binary} bytes against {json} as JSON");
}
