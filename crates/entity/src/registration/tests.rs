//! Matching is checked against its definition on random registrations and requests.

use proptest::prelude::*;

use super::*;

fn iri(s: &str) -> Iri {
    Iri::known(&format!("urn:x:{s}"))
}

fn registration(information: Vec<Information>) -> Registration {
    serde_json::from_value(serde_json::json!({
        "id": "urn:r:1", "information": serde_json::to_value(information).unwrap(), "endpoint": "http://a.example",
    }))
    .unwrap()
}

fn info(id: Option<&str>, pattern: Option<&str>, types: &[&str]) -> EntityInfo {
    EntityInfo {
        id: id.map(iri),
        id_pattern: pattern.map(|p| Pattern::new(p).unwrap()),
        id_pattern_text: pattern.map(str::to_owned),
        types: types.iter().map(|t| iri(t)).collect(),
    }
}

fn entity_info() -> impl Strategy<Value = EntityInfo> {
    let id = prop_oneof![Just((None, None)), "[ab]".prop_map(|s| (Some(s), None)), "[ab]".prop_map(|s| (None, Some(s)))];
    (id, proptest::sample::subsequence(vec!["A", "B", "C"], 1..3))
        .prop_map(|((id, pattern), types)| info(id.as_deref(), pattern.as_deref(), &types))
}

fn names() -> impl Strategy<Value = Vec<Iri>> {
    proptest::sample::subsequence(vec!["p", "q", "r"], 0..3).prop_map(|list| list.into_iter().map(iri).collect())
}

fn information() -> impl Strategy<Value = Information> {
    (proptest::collection::vec(entity_info(), 0..3), names(), names()).prop_map(|(entities, properties, relationships)| Information {
        entities,
        properties,
        relationships,
    })
}

proptest! {
    /// What a registered source can have is never missed: for an entity that it may hold, every question that the entity answers matches.
    #[test]
    fn a_source_that_has_an_answer_is_never_passed_over(
        list in proptest::collection::vec(information(), 1..3), at in any::<prop::sample::Index>(), entity_at in any::<prop::sample::Index>(),
        by_type in any::<bool>(), by_id in any::<bool>(), by_pattern in any::<bool>(), by_attribute in any::<bool>(),
    ) {
        let registered = registration(list.clone());
        let part = at.get(&list);
        // An entity that this part describes.
        let described = (!part.entities.is_empty()).then(|| entity_at.get(&part.entities));
        let types = described.map_or_else(|| vec![iri("A")], |e| e.types.clone());
        let id = described.and_then(|e| e.id.clone()).unwrap_or_else(|| iri("ab"));

        let attribute = part.attributes().next().cloned().unwrap_or_else(|| iri("p"));
        let asked = Specification {
            entities: vec![Selected {
                types: by_type.then(|| TypeSelector::Is(types[0].clone())),
                ids: if by_id { vec![id] } else { Vec::new() },
                id_pattern: by_pattern.then(|| Pattern::new("urn").unwrap()),
            }],
            attributes: if by_attribute { vec![attribute] } else { Vec::new() },
            ..Specification::default()
        };
        let found = registered.matches(&asked);
        prop_assert!(found.is_some_and(|w| w.information.iter().any(|(_, i)| *i == part)));
    }

    /// What nobody registered never matches.
    #[test]
    fn other_types_and_attributes_do_not_match(list in proptest::collection::vec(information(), 1..3)) {
        let registered = registration(list.clone());
        let of_type = Specification {
            entities: vec![Selected { types: Some(TypeSelector::Is(iri("D"))), ..Selected::default() }], ..Specification::default()
        };
        prop_assert_eq!(registered.matches(&of_type).is_some(), list.iter().any(|i| i.entities.is_empty()));
        let of_attribute = Specification { attributes: vec![iri("z")], ..Specification::default() };
        prop_assert_eq!(registered.matches(&of_attribute).is_some(), list.iter().any(Information::has_all_attributes));
    }

    /// Who clashes with whom does not depend on who came first.
    #[test]
    fn clashes_are_symmetric(a in information(), b in information()) {
        for (x, y) in [(Mode::Exclusive, Mode::Exclusive), (Mode::Exclusive, Mode::Redirect), (Mode::Redirect, Mode::Redirect)] {
            let (mut first, mut second) = (registration(vec![a.clone()]), registration(vec![b.clone()]));
            (first.mode, second.mode) = (x, y);
            prop_assert_eq!(first.clash(&second).is_some(), second.clash(&first).is_some());
        }
    }
}

#[test]
fn places_times_instances_and_scopes_restrict() {
    let mut r = registration(vec![Information { entities: vec![info(None, None, &["A"])], ..Information::default() }]);
    let square = |west: f64| {
        let ring = [[west, 0.0], [west + 1.0, 0.0], [west + 1.0, 1.0], [west, 1.0], [west, 0.0]];
        Geometry::from_json(serde_json::json!({"type": "Polygon", "coordinates": [ring]})).unwrap()
    };
    let near = |lon: f64, relation| Specification {
        geo: vec![crate::GeoCondition { property: Iri::known(crate::LOCATION), relation, reference: Geometry::point(lon, 0.5) }],
        ..Specification::default()
    };
    let far = near(30.0, crate::GeoRelation::NearMax(1_000.0));
    assert!(r.matches(&far).is_some(), "a source that does not say where may be anywhere");
    assert!(r.matches(&Specification { missing: MissingMember::Fails, ..far.clone() }).is_none());
    r.location = Some(square(0.0));
    assert!(r.matches(&far).is_none());
    assert!(r.matches(&near(0.5, crate::GeoRelation::NearMax(1_000.0))).is_some());
    assert!(r.matches(&near(0.5, crate::GeoRelation::NearMin(1_000.0))).is_some(), "the far end of the area is far enough");
    assert!(r.matches(&near(0.5, crate::GeoRelation::Contains)).is_some());
    assert!(r.matches(&near(2.0, crate::GeoRelation::Contains)).is_none());

    let at = |second| Instant::from_secs(second);
    let asked = |start, end| Specification {
        time: Some(TimeAsked { start: at(start), end: at(end), is_observed: true }),
        ..Specification::default()
    };
    assert!(r.matches(&asked(0, 9)).is_none(), "it has the present only");
    r.observation_interval = Some(TimeInterval { start: at(10), end: Some(at(20)) });
    assert!(r.matches(&Specification::default()).is_none(), "it has the past only");
    for (start, end, want) in [(0, 9, false), (0, 10, true), (12, 13, true), (20, 30, true), (21, 30, false)] {
        assert_eq!(r.matches(&asked(start, end)).is_some(), want, "{start}..{end}");
    }
    r.observation_interval = None;

    let instances = |list: &[Option<Iri>]| Specification { dataset_ids: Some(list.to_vec()), ..Specification::default() };
    assert!(r.matches(&instances(&[None])).is_some());
    r.dataset_ids = Some(vec![Some(iri("d"))]);
    assert!(r.matches(&instances(&[None])).is_none() && r.matches(&instances(&[None, Some(iri("d"))])).is_some());

    let scoped = |pattern: &str| Specification { scope: Some(Filter::Scope(pattern.parse().unwrap())), ..Specification::default() };
    assert!(r.matches(&scoped("/X")).is_some());
    r.scopes = vec!["/Y".parse().unwrap()];
    assert!(r.matches(&scoped("/X")).is_none() && r.matches(&scoped("/#")).is_some());
}

#[test]
fn proxied_registrations_clash_where_they_overlap() {
    let of = |mode, id: &str, attribute: &str| {
        let mut r = registration(vec![Information {
            entities: vec![info(Some(id), None, &["A"])],
            properties: vec![iri(attribute)],
            relationships: vec![],
        }]);
        r.mode = mode;
        r
    };
    use Mode::{Auxiliary, Exclusive, Inclusive, Redirect};
    for (a, b, want) in [
        (Exclusive, Exclusive, true),
        (Exclusive, Redirect, true),
        (Redirect, Exclusive, true),
        (Redirect, Redirect, false),
        (Exclusive, Inclusive, false),
        (Auxiliary, Exclusive, false),
    ] {
        assert_eq!(of(a, "a", "p").clash(&of(b, "a", "p")).is_some(), want, "{a:?} {b:?}");
        assert!(of(a, "a", "p").clash(&of(b, "a", "q")).is_none());
        assert!(of(a, "a", "p").clash(&of(b, "b", "p")).is_none());
    }
}

#[test]
fn groups_of_operations_are_those_of_clause_4_20() {
    let set = |names: &[&str]| OperationSet::of(names.iter().copied()).unwrap();
    assert_eq!(set(&[]), set(&["federationOps"]));
    assert!(!set(&[]).has(Operation::CreateEntity), "the default writes nothing");
    assert!(set(&["associationOps"]).is_within(set(&["federationOps"])) && !set(&["associationOps"]).has(Operation::DeleteEntityMap));
    assert!(set(&["retrieveOps", "updateOps"]).is_within(set(&["redirectionOps"])));
    assert!(!set(&["redirectionOps"]).has(Operation::QueryBatch) && !set(&["redirectionOps"]).has(Operation::CreateBatch));
    assert!(set(&["updateOps", "createEntity"]).has(Operation::CreateEntity));
    assert_eq!(OperationSet::of(["createEntitie"]).unwrap_err().name, "createEntitie");
    for (i, (operation, name)) in Operation::ALL.iter().enumerate() {
        assert_eq!((*operation as usize, operation.name()), (i, *name));
    }
}
