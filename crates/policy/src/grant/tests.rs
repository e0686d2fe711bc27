use super::*;
use crate::{PublicKey, Status};
use entity::{Comparison, Operand, Path, Target, Value};
use proptest::prelude::*;
use serde_json::json;

fn iri(s: &str) -> Iri {
    s.parse().unwrap()
}

fn agreement(n: u32) -> Agreement {
    Agreement {
        id: iri(&format!("urn:a:{n}")),
        provider: "beijing".parse().unwrap(),
        consumer: "guangzhou".parse().unwrap(),
        consumer_key: PublicKey::from_bytes([0; 32]),
        types: vec![iri("urn:t:Air")],
        attributes: Selection::Only(vec![iri("urn:p:pm25"), iri(LOCATION)]),
        area: Some(square(116.0, 39.0, 117.0, 40.0)),
        position_decimals: Some(1),
        purpose: "air".parse().unwrap(),
        valid_from: Instant::MIN,
        valid_until: Instant::MAX,
        legal_basis: "memorandum".into(),
        status: Status::Active,
    }
}

fn square(west: f64, south: f64, east: f64, north: f64) -> Geometry {
    Geometry::from_json(
        json!({"type": "Polygon", "coordinates": [[[west, south], [east, south], [east, north], [west, north], [west, south]]]}),
    )
    .unwrap()
}

fn geo(lon: f64, lat: f64) -> Attribute {
    Attribute::new(AttributeValue::Geo(Geometry::point(lon, lat)))
}

fn station(lon: f64, lat: f64) -> Entity {
    let mut pm25 = Attribute::property(35);
    pm25.sub_attributes.insert(iri("urn:p:measuredAt"), geo(lon, lat).into());
    let mut e = Entity::new(iri("urn:e:1"), iri("urn:t:Air"))
        .with(iri("urn:p:pm25"), pm25)
        .with(iri("urn:p:secret"), Attribute::property("x"))
        .with(iri(LOCATION), geo(lon, lat));
    e.types.push(iri("urn:t:PoliceCar"));
    e.scopes.push("/CN/11".parse().unwrap());
    e
}

fn permit(agreements: &[Agreement]) -> Permit {
    Permit::granted(agreements.iter().map(Grant::of).collect())
}

fn greater(name: &str, n: f64) -> Filter {
    Filter::Value(Target::Attribute(Path::of(iri(name))), Comparison::Order(entity::CompareOp::Gt, Operand::Number(n)))
}

#[test]
fn only_what_is_agreed_is_given() {
    let seen = Grant::of(&agreement(1)).apply(&station(116.2254, 39.9279)).unwrap();
    assert_eq!(seen.types, [iri("urn:t:Air")]);
    assert_eq!(seen.attributes.keys().map(Iri::as_str).collect::<Vec<_>>(), ["urn:p:pm25", LOCATION]);
    assert!(seen.scopes.is_empty());
    let rounded = json!({"type": "Point", "coordinates": [116.2, 39.9]});
    assert_eq!(seen.location().unwrap().json(), &rounded);
    let sub = &seen.attribute("urn:p:pm25").unwrap().sub_attributes["urn:p:measuredAt"][0];
    assert_eq!(sub.value, AttributeValue::Geo(Geometry::from_json(rounded).unwrap()), "positions hide in sub-attributes too");
}

#[test]
fn the_place_is_given_only_if_it_is_agreed_but_tested_always() {
    let a = Agreement { attributes: Selection::Only(vec![iri("urn:p:pm25"), iri(term::SCOPE)]), ..agreement(1) };
    let seen = Grant::of(&a).apply(&station(116.5, 39.5)).unwrap();
    assert!(seen.location().is_none());
    assert_eq!(seen.scopes.len(), 1, "scopes are agreed on by their core name");
    assert!(Grant::of(&a).apply(&station(118.5, 39.5)).is_none());
}

#[test]
fn the_area_is_tested_on_the_true_place_before_rounding() {
    let grant = Grant::of(&Agreement { position_decimals: Some(0), ..agreement(1) });
    // Rounded they would be at 117 and 116: on the edge.
    assert!(grant.apply(&station(116.9, 39.5)).is_some());
    assert!(grant.apply(&station(117.1, 39.5)).is_none());
    assert!(grant.apply(&station(115.9, 39.5)).is_none());
    // Without a place nothing is inside.
    let mut nowhere = station(116.5, 39.5);
    nowhere.attributes.shift_remove(LOCATION);
    assert!(grant.apply(&nowhere).is_none());
}

#[test]
fn every_location_must_be_in_the_area() {
    let mut second = geo(100.0, 30.0);
    second.dataset_id = Some(iri("urn:d:planned"));
    let two = station(116.5, 39.5).with(iri(LOCATION), second);
    let grant = Grant::of(&agreement(1));
    assert!(grant.residual().matches(&two), "the residual finds candidates");
    assert!(grant.apply(&two).is_none());
}

#[test]
fn other_types_are_not_given() {
    let a = Agreement { types: vec![iri("urn:t:Bus")], ..agreement(1) };
    assert!(Grant::of(&a).apply(&station(116.5, 39.5)).is_none());
}

#[test]
fn a_question_sees_only_what_its_asker_sees() {
    let grant = Grant::of(&agreement(1));
    let e = station(116.2254, 39.9279);
    assert!(grant.answer(&greater("urn:p:pm25", 30.0), &e).is_some());
    assert!(grant.answer(&greater("urn:p:pm25", 40.0), &e).is_none());
    let secret = |f: fn(Filter) -> Filter| grant.answer(&f(Filter::HasAnyOf(vec![iri("urn:p:secret")])), &e).is_some();
    assert!(!secret(|f| f));
    assert!(secret(|f| Filter::Not(Box::new(f))), "as if the attribute did not exist");
    assert!(grant.answer(&Filter::Type(TypeSelector::Is(iri("urn:t:PoliceCar"))), &e).is_none());
    // Within 500 m of the true place: the rounded place is some 3.6 km away.
    let near = |lon, lat| {
        let reference = Geometry::point(lon, lat);
        Filter::Geo(GeoCondition { property: iri(LOCATION), relation: GeoRelation::NearMax(500.0), reference })
    };
    assert!(grant.answer(&near(116.2254, 39.9279), &e).is_none());
    assert!(grant.answer(&near(116.2, 39.9), &e).is_some());
}

#[test]
fn agreements_add_up_but_do_not_multiply() {
    // One gives values exactly where, but only pm25; the other gives a rough place and no2.
    let values = Agreement { attributes: Selection::Only(vec![iri("urn:p:pm25")]), position_decimals: None, ..agreement(1) };
    let rough =
        Agreement { attributes: Selection::Only(vec![iri(LOCATION), iri("urn:p:no2")]), position_decimals: Some(0), ..agreement(2) };
    let e = station(116.2254, 39.9279);
    let shared = permit(&[rough, values]).apply(&e).unwrap();
    assert_eq!(shared.agreements, [iri("urn:a:1"), iri("urn:a:2")]);
    assert_eq!(shared.entity.location().unwrap().json(), &json!({"type": "Point", "coordinates": [116.0, 40.0]}), "rounded as agreed");
    let sub = &shared.entity.attribute("urn:p:pm25").unwrap().sub_attributes["urn:p:measuredAt"][0];
    assert_eq!(sub.value, AttributeValue::Geo(Geometry::point(116.2254, 39.9279)), "exact as agreed");
    // The question must be answerable under one agreement: pm25 from one and the place from the other is a combination neither gives.
    let combined = greater("urn:p:pm25", 30.0).and(Filter::HasAnyOf(vec![iri(LOCATION)]));
    let both = permit(&[
        Agreement { attributes: Selection::Only(vec![iri("urn:p:pm25")]), ..agreement(1) },
        Agreement { attributes: Selection::Only(vec![iri(LOCATION)]), ..agreement(2) },
    ]);
    assert!(both.answer(&combined, &e).is_none());
    assert_eq!(both.answer(&greater("urn:p:pm25", 30.0), &e).unwrap().agreements, [iri("urn:a:1")]);
}

#[test]
fn of_two_views_of_one_attribute_the_more_exact_wins() {
    let rough = Agreement { position_decimals: Some(0), ..agreement(1) };
    let finer = Agreement { position_decimals: Some(2), ..agreement(2) };
    let exact = Agreement { position_decimals: None, ..agreement(3) };
    let e = station(116.2254, 39.9279);
    let place = |agreements: &[Agreement]| permit(agreements).apply(&e).unwrap().entity.location().unwrap().json()["coordinates"].clone();
    assert_eq!(place(&[rough.clone(), finer.clone()]), json!([116.23, 39.93]));
    assert_eq!(place(&[rough, exact, finer]), json!([116.2254, 39.9279]));
}

#[test]
fn operators_see_everything_unchanged() {
    let e = station(1.0, 1.0);
    assert_eq!(Permit::Everything.apply(&e).unwrap(), Shared { entity: e.clone(), agreements: vec![] });
    assert!(Permit::Everything.residual().matches(&e));
    assert!(Permit::Everything.answer(&greater("urn:p:pm25", 100.0), &e).is_none());
}

#[test]
fn a_change_of_something_hidden_does_not_show_in_the_times() {
    let mut e = station(116.5, 39.5);
    e.created_at = Instant::from_secs(1);
    e.attributes["urn:p:pm25"][0].modified_at = Instant::from_secs(5);
    e.modified_at = Instant::from_secs(9);
    let grant = Grant::of(&agreement(1));
    assert_eq!(grant.apply(&e).unwrap().modified_at, Instant::from_secs(5));
    e.attributes.retain(|name, _| name.as_str() == "urn:p:secret" || name.as_str() == LOCATION);
    assert_eq!(grant.apply(&e).unwrap().modified_at, Instant::from_secs(0), "the location's");
}

#[test]
fn the_past_is_limited_like_the_present() {
    let present = station(116.5, 39.5);
    let at = |a: Attribute, s| a.observed(Instant::from_secs(s));
    let past = Series::from([
        (iri(LOCATION), vec![at(geo(116.44, 39.51), 1), at(geo(130.0, 30.0), 2)]),
        (iri("urn:p:pm25"), vec![at(Attribute::property(1), 1), at(Attribute::property(2), 2)]),
        (iri("urn:p:secret"), vec![at(Attribute::property(3), 1)]),
    ]);
    let SharedPast { attributes: seen, agreements } = permit(&[agreement(1)]).past(&Filter::all(), &present, &past).unwrap();
    assert_eq!(agreements, [iri("urn:a:1")]);
    assert_eq!(seen.len(), 2);
    assert_eq!(seen["urn:p:pm25"], past["urn:p:pm25"]);
    assert_eq!(seen[LOCATION].len(), 1, "where it was outside the area is not given");
    assert_eq!(seen[LOCATION][0].observed_at, Some(Instant::from_secs(1)));
    let AttributeValue::Geo(place) = &seen[LOCATION][0].value else { panic!("not a place") };
    assert_eq!(place.json()["coordinates"], json!([116.4, 39.5]));
    assert!(permit(&[agreement(1)]).past(&Filter::all(), &station(118.0, 39.0), &past).is_none());
    assert!(permit(&[agreement(1)]).past(&greater("urn:p:pm25", 99.0), &present, &past).is_none());
    // A second agreement without an area adds the places that the first leaves out, as rough as it says.
    let wide = Agreement { area: None, position_decimals: Some(2), attributes: Selection::Only(vec![iri(LOCATION)]), ..agreement(2) };
    let SharedPast { attributes: seen, .. } =
        permit(&[Agreement { position_decimals: None, ..agreement(1) }, wide]).past(&Filter::all(), &present, &past).unwrap();
    assert_eq!(seen[LOCATION].len(), 2);
    assert_eq!(Permit::Everything.past(&Filter::all(), &present, &past).unwrap().attributes, past);
}

// Random entities, agreements and questions over a small vocabulary, so that they meet often.

const NAMES: [&str; 5] = ["urn:p:a", "urn:p:b", "urn:p:c", "urn:p:d", LOCATION];

fn any_attribute() -> impl Strategy<Value = Attribute> {
    let value = prop_oneof![
        (0..50i64).prop_map(|n| AttributeValue::Property(json!(n))),
        "[a-c]{1,2}".prop_map(|s| AttributeValue::Property(json!(s))),
        any_place().prop_map(AttributeValue::Geo),
    ];
    let sub = proptest::option::of(any_place());
    (value, sub, proptest::option::of(0..100i64), 0..100i64, proptest::bool::weighted(0.2)).prop_map(
        |(v, sub, observed, modified, dataset)| {
            let mut a = Attribute::new(v);
            a.observed_at = observed.map(Instant::from_secs);
            a.modified_at = Instant::from_secs(modified);
            a.dataset_id = dataset.then(|| iri("urn:d:1"));
            if let Some(place) = sub {
                a.sub_attributes.insert(iri("urn:p:sub"), Attribute::new(AttributeValue::Geo(place)).into());
            }
            a
        },
    )
}

fn any_place() -> impl Strategy<Value = Geometry> {
    (0..40u8, 0..40u8).prop_map(|(x, y)| Geometry::point(f64::from(x) / 10.0 + 0.03, f64::from(y) / 10.0 + 0.04))
}

fn any_entity() -> impl Strategy<Value = Entity> {
    let attributes = proptest::collection::vec((0..NAMES.len(), any_attribute()), 0..8);
    (1..4u8, attributes, any_place(), 0..100i64).prop_map(|(types, attributes, place, modified)| {
        let mut e = Entity::new(iri("urn:e:1"), iri("urn:t:Air"));
        e.types = ["urn:t:Air", "urn:t:Bus"].iter().enumerate().filter(|(i, _)| types & (1 << i) != 0).map(|(_, t)| iri(t)).collect();
        e.scopes.push("/CN/11".parse().unwrap());
        e.modified_at = Instant::from_secs(modified);
        for (i, a) in attributes {
            if NAMES[i] != LOCATION || matches!(a.value, AttributeValue::Geo(_)) {
                e.put(iri(NAMES[i]), a);
            }
        }
        e.put(iri(LOCATION), Attribute::new(AttributeValue::Geo(place)));
        e
    })
}

fn any_agreement() -> impl Strategy<Value = Agreement> {
    let names = proptest::collection::btree_set(0..NAMES.len(), 1..4);
    (names, proptest::option::of(0..3u8), proptest::option::of(0..3u8), proptest::bool::ANY, 0..9u32).prop_map(
        |(names, decimals, area, air, n)| Agreement {
            types: vec![iri(if air { "urn:t:Air" } else { "urn:t:Bus" })],
            attributes: Selection::Only(names.into_iter().map(|i| iri(NAMES[i])).collect()),
            position_decimals: decimals,
            area: area.map(|a| square(f64::from(a), 0.0, f64::from(a) + 2.0, 3.0)),
            ..agreement(n)
        },
    )
}

fn any_question() -> impl Strategy<Value = Filter> {
    let leaf = prop_oneof![
        Just(Filter::all()),
        (0..NAMES.len()).prop_map(|i| Filter::HasAnyOf(vec![iri(NAMES[i])])),
        (0..NAMES.len(), 0..50u8).prop_map(|(i, n)| greater(NAMES[i], f64::from(n))),
        (0..NAMES.len(), any_place()).prop_map(|(i, reference)| Filter::Geo(GeoCondition {
            property: iri(NAMES[i]),
            relation: GeoRelation::NearMax(60_000.0),
            reference
        })),
        (0..100i64).prop_map(|s| Filter::Value(
            Target::EntityModifiedAt,
            Comparison::Order(entity::CompareOp::Ge, Operand::Instant(Instant::from_secs(s)))
        )),
        Just(Filter::Type(TypeSelector::Is(iri("urn:t:Bus")))),
        Just(Filter::Scope("/CN/#".parse().unwrap())),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Filter::And),
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Filter::Or),
            inner.prop_map(|f| Filter::Not(Box::new(f))),
        ]
    })
}

/// Places in an attribute, at any depth.
fn places(a: &Attribute, out: &mut Vec<Value>) {
    if let AttributeValue::Geo(g) = &a.value {
        out.push(g.json()["coordinates"].clone());
    }
    a.sub_attributes.values().flatten().for_each(|s| places(s, out));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn nothing_hidden_influences_an_answer(
        e in any_entity(),
        a in any_agreement(),
        question in any_question(),
        changes in proptest::collection::vec((0..NAMES.len(), proptest::option::of(any_attribute())), 1..4),
        modified in 0..100i64,
    ) {
        let mut other = e.clone();
        other.modified_at = Instant::from_secs(modified);
        for (i, change) in changes {
            // The place decides about the area, which is agreed; all other hidden attributes may come, change and go.
            if a.attributes.contains(NAMES[i]) || (NAMES[i] == LOCATION && a.area.is_some()) {
                continue;
            }
            match change {
                Some(attribute) => other.put(iri(NAMES[i]), attribute),
                None => drop(other.attributes.shift_remove(NAMES[i])),
            }
        }
        other.scopes.clear();
        let grant = Grant::of(&a);
        let (x, y) = (grant.answer(&question, &e), grant.answer(&question, &other));
        // The order of attributes is not part of the answer.
        let sorted = |e: Option<Entity>| e.map(|mut e| { e.attributes.sort_keys(); e });
        prop_assert_eq!(sorted(x), sorted(y));
    }

    #[test]
    fn a_hidden_place_tells_only_whether_it_is_in_the_area(e in any_entity(), a in any_agreement(), question in any_question(), elsewhere in any_place()) {
        let attributes = Selection::Only(vec![iri("urn:p:a"), iri("urn:p:b")]);
        let grant = Grant::of(&Agreement { attributes, ..a });
        let mut moved = e.clone();
        moved.attributes.shift_remove(LOCATION);
        moved.put(iri(LOCATION), Attribute::new(AttributeValue::Geo(elsewhere)));
        if grant.apply(&e).is_some() && grant.apply(&moved).is_some() {
            prop_assert_eq!(grant.answer(&question, &e), grant.answer(&question, &moved));
        }
    }

    #[test]
    fn what_is_given_is_never_more_than_one_agreement_gives(
        e in any_entity(),
        agreements in proptest::collection::vec(any_agreement(), 1..4),
        question in any_question(),
    ) {
        let alone: Vec<Entity> = agreements.iter().filter_map(|a| Grant::of(a).answer(&question, &e)).collect();
        let together = permit(&agreements).answer(&question, &e);
        prop_assert_eq!(together.is_some(), !alone.is_empty(), "an entity is shown if any one agreement shows it");
        let Some(shared) = together else { return Ok(()) };
        prop_assert_eq!(shared.agreements.len(), alone.len());
        for (name, instances) in &shared.entity.attributes {
            prop_assert!(alone.iter().any(|v| v.attributes.get(name) == Some(instances)), "{} is as one agreement gives it", name);
        }
        for view in &alone {
            prop_assert!(view.attributes.keys().all(|n| shared.entity.attributes.contains_key(n)), "nothing agreed is missing");
            prop_assert!(view.types.iter().all(|t| shared.entity.types.contains(t)));
        }
        prop_assert!(shared.entity.types.iter().all(|t| alone.iter().any(|v| v.types.contains(t))));
        prop_assert!(shared.entity.scopes.is_empty());
        prop_assert!(permit(&agreements).residual().matches(&e), "the residual finds what is given");
    }

    #[test]
    fn the_order_of_agreements_does_not_matter(e in any_entity(), mut agreements in proptest::collection::vec(any_agreement(), 1..4), question in any_question()) {
        for (i, a) in agreements.iter_mut().enumerate() {
            a.id = iri(&format!("urn:a:{i}"));
        }
        let x = permit(&agreements).answer(&question, &e);
        agreements.reverse();
        prop_assert_eq!(x, permit(&agreements).answer(&question, &e));
    }

    #[test]
    fn every_place_that_leaves_is_rounded(e in any_entity(), a in any_agreement(), decimals in 0..2u8) {
        let Some(seen) = Grant::of(&Agreement { position_decimals: Some(decimals), ..a }).apply(&e) else { return Ok(()) };
        let mut found = Vec::new();
        seen.attributes.values().flatten().for_each(|i| places(i, &mut found));
        for n in found.iter().flat_map(|c| c.as_array().unwrap()) {
            let scaled = n.as_f64().unwrap() * 10f64.powi(i32::from(decimals));
            prop_assert!((scaled - scaled.round()).abs() < 1e-9, "{} has more than {} decimals", n, decimals);
        }
    }
}
