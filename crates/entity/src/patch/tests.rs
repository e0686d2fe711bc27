use super::*;
use crate::{Command, resolve};
use proptest::prelude::*;
use serde_json::json;

fn name(short: &str) -> Iri {
    Iri::known(&format!("https://example.org/{short}"))
}

fn station() -> Entity {
    Entity::new(Iri::known("urn:x:1"), name("Station"))
}

fn applied(patch: EntityPatch, mode: PatchMode, mut entity: Entity) -> Result<Entity, CommandError> {
    let resolved = resolve(Command::Patch { patch, mode }, Some(&entity))?;
    if let Some(mut delta) = resolved.delta {
        entity = delta.apply(Some(entity), Instant::from_secs(9)).unwrap().unwrap();
    }
    Ok(entity)
}

fn merge(attributes: Vec<(Iri, InstancePatch)>) -> (EntityPatch, PatchMode) {
    let patch = EntityPatch { attributes, ..EntityPatch::of(Iri::known("urn:x:1")) };
    (patch, PatchMode::Merge(MergeOptions::default()))
}

fn change(value: Value) -> InstancePatch {
    InstancePatch::Change(Box::new(AttributePatch { value: Some(ValuePatch::Value(value)), ..AttributePatch::default() }))
}

/// The cases of RFC 7396, appendix A, that NGSI-LD can say: an array is replaced as a whole, and what removes is a string.
#[test]
fn values_are_merged_as_json_merge_patches() {
    check(json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"}));
    check(json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"}));
    check(json!({"a": "b"}), json!({"a": NGSI_LD_NULL}), json!({}));
    check(json!({"a": "b", "b": "c"}), json!({"a": NGSI_LD_NULL}), json!({"b": "c"}));
    check(json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"}));
    check(json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]}));
    check(json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": NGSI_LD_NULL}}), json!({"a": {"b": "d"}}));
    check(json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]}));
    check(json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"]));
    check(json!({"a": "b"}), json!(["c"]), json!(["c"]));
    check(json!([1, 2]), json!({"a": "b", "c": NGSI_LD_NULL}), json!({"a": "b"}));
    check(json!({}), json!({"a": {"bb": {"ccc": NGSI_LD_NULL}}}), json!({"a": {"bb": {}}}));

    #[track_caller]
    fn check(target: Value, patch: Value, want: Value) {
        assert_eq!(merged(target, patch), want);
    }
}

#[test]
fn an_attribute_stays_of_its_kind() {
    let lamp = station().with(name("r"), Attribute::new(AttributeValue::Relationship(vec![Iri::known("urn:x:2")])));
    let (patch, mode) = merge(vec![(name("r"), change(json!(1)))]);
    let error = applied(patch, mode, lamp.clone()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "attribute `https://example.org/r` of entity `urn:x:1`: the attribute is a Relationship and cannot become a Property (replace it, or the entity)"
    );
    // As a whole it can be replaced by one of another kind.
    let (patch, _) = merge(vec![(name("r"), change(json!(1)))]);
    assert_eq!(
        applied(patch, PatchMode::Update, lamp).unwrap().attribute(name("r").as_str()).unwrap().value.kind(),
        AttributeKind::Property
    );
}

#[test]
fn a_geometry_is_checked_after_it_is_merged() {
    let place = Geometry::from_json(json!({"type": "Point", "coordinates": [1, 2]})).unwrap();
    let lamp = station().with(name("at"), Attribute::new(AttributeValue::Geo(place)));
    let (patch, mode) = merge(vec![(name("at"), change(json!({"coordinates": [3, 4]})))]);
    let now = applied(patch, mode, lamp.clone()).unwrap();
    assert!(
        matches!(&now.attribute(name("at").as_str()).unwrap().value, AttributeValue::Geo(g) if g.json()["coordinates"] == json!([3, 4]))
    );
    let (patch, mode) = merge(vec![(name("at"), change(json!({"coordinates": [300, 4]})))]);
    assert!(applied(patch, mode, lamp).unwrap_err().to_string().contains("300"));
}

fn arb_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![any::<bool>().prop_map(Value::from), (0i32..4).prop_map(Value::from), "[ab]{0,2}".prop_map(Value::from)];
    leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("[a-c]", inner, 0..3).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

/// The same, in which some keys are to be removed.
fn arb_patch() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![2 => (0i32..4).prop_map(Value::from), 1 => Just(Value::from(NGSI_LD_NULL))];
    let inner = leaf.prop_recursive(3, 16, 3, |inner| {
        proptest::collection::btree_map("[a-c]", inner, 0..3).prop_map(|m| Value::Object(m.into_iter().collect()))
    });
    proptest::collection::btree_map("[a-c]", inner, 0..3).prop_map(|m| Value::Object(m.into_iter().collect()))
}

proptest! {
    /// Merging twice is merging once.
    #[test]
    fn merging_is_idempotent(target in arb_json(), patch in arb_patch()) {
        let once = merged(target, patch.clone());
        prop_assert_eq!(merged(once.clone(), patch), once);
    }

    /// Nothing that is to be removed stays, however deep, and nothing that removes is stored.
    #[test]
    fn nothing_that_removes_is_stored(target in arb_json(), patch in arb_patch()) {
        prop_assert!(!merged(target, patch).to_string().contains(NGSI_LD_NULL));
    }

    /// A merge that names nothing changes nothing; one that names other attributes leaves the rest as they are.
    #[test]
    fn what_a_merge_does_not_name_stays(value in arb_json(), other in arb_json()) {
        let before = station().with(name("a"), Attribute::property(value));
        let (nothing, mode) = merge(Vec::new());
        prop_assert_eq!(&applied(nothing, mode, before.clone()).unwrap(), &before);
        let (patch, mode) = merge(vec![(name("b"), change(other))]);
        let after = applied(patch, mode, before.clone()).unwrap();
        prop_assert_eq!(after.attributes.get(&name("a")), before.attributes.get(&name("a")));
        let (back, mode) = merge(vec![(name("b"), InstancePatch::Remove(None))]);
        prop_assert_eq!(applied(back, mode, after).unwrap().attributes, before.attributes);
    }
}
