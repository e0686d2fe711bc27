use super::*;
use entity::Qualifiers;
use proptest::prelude::*;

fn iri(s: &str) -> Iri {
    s.parse().unwrap()
}

fn at(s: i64) -> Instant {
    Instant::from_secs(s)
}

fn value(n: i64, observed: Option<i64>, modified: i64) -> Attribute {
    let mut a = Attribute::property(n);
    a.observed_at = observed.map(at);
    a.modified_at = at(modified);
    a
}

fn station(a: Attribute) -> Entity {
    Entity::new(iri("urn:e:1"), iri("urn:t:Air")).with(iri("urn:p:a"), a)
}

fn from(city: &str, agreements: &[&str], entities: Vec<Entity>) -> Contribution {
    let agreements: Vec<Iri> = agreements.iter().map(|a| iri(a)).collect();
    let entities = entities.into_iter().map(|entity| Shared { entity, agreements: agreements.clone() }).collect();
    answered(city, Outcome::Entities { agreements, entities, truncated: false })
}

fn answered(city: &str, outcome: Outcome) -> Contribution {
    Contribution {
        city: city.parse().unwrap(),
        local: city == "guangzhou",
        received_at: at(100),
        latency_us: Some(3_100),
        result: CityResult::Answered(outcome),
    }
}

fn provenance(e: &Entity) -> Value {
    match &e.attribute(&format!("{CONURB_NS}{PROVENANCE}")).unwrap().value {
        AttributeValue::Json(v) => v.clone(),
        other => panic!("{other:?}"),
    }
}

fn merged_one(contributions: Vec<Contribution>) -> Entity {
    let mut merged = merge_entities(contributions, at(1_000));
    assert_eq!(merged.entities.len(), 1);
    merged.entities.remove(0)
}

#[test]
fn every_entity_says_where_it_came_from() {
    let e = merged_one(vec![from("beijing", &["urn:a:1"], vec![station(value(1, None, 1))])]);
    assert_eq!(provenance(&e), json!({"city": "beijing", "agreement": "urn:a:1", "receivedAt": "1970-01-01T00:01:40Z"}));
    let e = merged_one(vec![from("guangzhou", &[], vec![station(value(1, None, 1))])]);
    assert_eq!(provenance(&e), json!({"city": "guangzhou", "agreement": null, "receivedAt": "1970-01-01T00:01:40Z"}));
    let e = merged_one(vec![
        from("guangzhou", &[], vec![station(value(1, None, 1))]),
        from("beijing", &["urn:a:1", "urn:a:2"], vec![station(value(1, None, 1))]),
    ]);
    let cities: Vec<_> = provenance(&e).as_array().unwrap().iter().map(|p| (p["city"].clone(), p["agreement"].clone())).collect();
    assert_eq!(cities, [(json!("beijing"), json!("urn:a:1")), (json!("beijing"), json!("urn:a:2")), (json!("guangzhou"), json!(null))]);
}

#[test]
fn a_peers_own_claim_about_provenance_does_not_count() {
    let name = iri(&format!("{CONURB_NS}{PROVENANCE}"));
    let mut forged = Attribute::property("guangzhou");
    forged.dataset_id = Some(iri("urn:d:1"));
    let e = merged_one(vec![from("beijing", &["urn:a:1"], vec![station(value(1, None, 1)).with(name.clone(), forged)])]);
    assert_eq!(e.attributes[&name].len(), 1);
    assert_eq!(provenance(&e)["city"], json!("beijing"));
}

#[test]
fn a_single_version_stays_as_it_is() {
    let mut e = station(value(1, Some(5), 6));
    e.expires_at = Some(at(2_000));
    let mut merged = merged_one(vec![from("beijing", &["urn:a:1"], vec![e.clone()])]);
    merged.attributes.shift_remove(format!("{CONURB_NS}{PROVENANCE}").as_str());
    assert_eq!(merged, e);
}

#[test]
fn the_newest_instance_wins_as_clauses_4_5_5_2_and_4_5_5_3_say() {
    check(value(1, Some(5), 1), value(2, Some(4), 9), 1);
    check(value(1, Some(5), 1), value(2, Some(5), 9), 2);
    check(value(1, None, 8), value(2, None, 9), 2);
    check(value(1, None, 9), value(2, Some(1), 1), 2);
    // Left open by the standard: the city whose name comes first.
    check(value(1, Some(5), 5), value(2, Some(5), 5), 1);
    // What has expired does not count, however new.
    let mut gone = value(2, Some(50), 50);
    gone.qualifiers = Some(Box::new(Qualifiers { expires_at: Some(at(999)), ..Qualifiers::default() }));
    check(value(1, Some(5), 5), gone, 1);

    #[track_caller]
    fn check(beijing: Attribute, tianjin: Attribute, want: i64) {
        let b = from("beijing", &["urn:a:1"], vec![station(beijing)]);
        let t = from("tianjin", &["urn:a:2"], vec![station(tianjin)]);
        for order in [vec![b.clone(), t.clone()], vec![t, b]] {
            let e = merged_one(order);
            assert_eq!(e.attribute("urn:p:a").unwrap().value, AttributeValue::Property(json!(want)));
        }
    }
}

#[test]
fn instances_with_other_dataset_ids_types_and_scopes_are_united() {
    let mut second = value(2, Some(1), 1);
    second.dataset_id = Some(iri("urn:d:2"));
    let mut other = station(second);
    other.types = vec![iri("urn:t:Sensor")];
    other.scopes = vec!["/B".parse().unwrap()];
    let mut one = station(value(1, Some(1), 1));
    one.scopes = vec!["/A".parse().unwrap()];
    (one.created_at, one.modified_at, other.created_at, other.modified_at) = (at(5), at(6), at(3), at(9));
    let e = merged_one(vec![from("tianjin", &["urn:a:2"], vec![other]), from("beijing", &["urn:a:1"], vec![one])]);
    assert_eq!(e.types, [iri("urn:t:Air"), iri("urn:t:Sensor")]);
    assert_eq!(e.scopes.len(), 2);
    assert_eq!(e.attributes["urn:p:a"].len(), 2);
    assert_eq!((e.created_at, e.modified_at), (at(3), at(9)));
}

#[test]
fn expiry_is_inherited_and_the_latest_stays_unless_one_lacks_it() {
    check(Some(2_000), Some(3_000), Some(3_000));
    check(Some(2_000), None, None);
    check(None, None, None);

    #[track_caller]
    fn check(beijing: Option<i64>, tianjin: Option<i64>, want: Option<i64>) {
        let with = |s: Option<i64>, a: Attribute| Entity { expires_at: s.map(at), ..station(a) };
        let e = merged_one(vec![
            from("beijing", &["urn:a:1"], vec![with(beijing, value(1, Some(9), 1))]),
            from("tianjin", &["urn:a:2"], vec![with(tianjin, value(2, Some(1), 1))]),
        ]);
        assert_eq!(e.expires_at, want.map(at));
        assert_eq!(expiry(e.attribute("urn:p:a").unwrap()), beijing.map(at), "an attribute lives no longer than its entity");
    }
    let whole_version_expired = Entity { expires_at: Some(at(10)), ..station(value(1, Some(9), 1)) };
    let e = merged_one(vec![
        from("beijing", &["urn:a:1"], vec![whole_version_expired]),
        from("tianjin", &["urn:a:2"], vec![station(value(2, Some(1), 1))]),
    ]);
    assert_eq!(e.attribute("urn:p:a").unwrap().value, AttributeValue::Property(json!(2)));
}

#[test]
fn sources_tell_of_every_city_what_it_gave_or_why_not() {
    let c = |city: &str, result: CityResult| Contribution { result, latency_us: None, ..from(city, &[], vec![]) };
    let merged = merge_entities(
        vec![
            c("tianjin", CityResult::Unreachable { reason: "connection refused".into() }),
            c(
                "shanghai",
                CityResult::Answered(Outcome::Denied { code: "expired".into(), reason: "it expired".into(), reason_zh: "到期".into() }),
            ),
            c("nanjing", CityResult::Unusable { reason: "bad signature".into() }),
            c("hangzhou", CityResult::Answered(Outcome::Failed { reason: "disk full".into() })),
            from("beijing", &["urn:a:1"], vec![station(value(1, None, 1))]),
            from("guangzhou", &[], vec![]),
        ],
        at(1_000),
    );
    let told: Vec<_> = merged.sources.iter().map(|s| (s.city.as_str(), s.status, s.count, s.detail.as_deref())).collect();
    assert_eq!(
        told,
        [
            ("beijing", SourceStatus::Ok, 1, None),
            ("guangzhou", SourceStatus::Ok, 0, None),
            ("hangzhou", SourceStatus::Error, 0, Some("disk full")),
            ("nanjing", SourceStatus::Error, 0, Some("bad signature")),
            ("shanghai", SourceStatus::Denied, 0, Some("it expired")),
            ("tianjin", SourceStatus::Unreachable, 0, Some("connection refused")),
        ]
    );
    let json = serde_json::to_value(&merged.sources[0]).unwrap();
    let want = json!({"city": "beijing", "local": false, "status": "ok", "count": 1, "truncated": false, "ms": 3.1, "agreements": ["urn:a:1"], "detail": null});
    assert_eq!(json, want);
    assert!(merged.sources[1].local);
}

fn evolution(last_n: Option<u32>) -> Evolution {
    Evolution { entity: iri("urn:e:1"), interval: None, time_property: TimeProperty::ObservedAt, last_n, as_of: None, instances_max: 100 }
}

fn past(city: &str, values: &[(i64, i64, i64)], cut_at: Option<i64>) -> Contribution {
    let series = values.iter().map(|(n, o, m)| value(*n, Some(*o), *m)).collect();
    let past = Past {
        id: iri("urn:e:1"),
        types: vec![iri("urn:t:Air")],
        attributes: Series::from([(iri("urn:p:a"), series)]),
        cut_at: cut_at.map(at),
    };
    answered(city, Outcome::Evolution { agreements: vec![iri("urn:a:1")], past: Some(past) })
}

fn series(merged: &MergedPast) -> Vec<(i64, i64)> {
    let past = merged.past.as_ref().unwrap();
    let n = |a: &Attribute| match &a.value {
        AttributeValue::Property(v) => v.as_i64().unwrap(),
        other => panic!("{other:?}"),
    };
    past.attributes["urn:p:a"].iter().map(|a| (n(a), a.observed_at.unwrap().micros() / 1_000_000)).collect()
}

#[test]
fn pasts_become_one_series() {
    let b = past("beijing", &[(1, 1, 1), (2, 2, 2)], None);
    let t = past("tianjin", &[(20, 2, 9), (30, 3, 3)], None);
    let merged = merge_pasts(vec![t.clone(), b.clone()], &evolution(None));
    assert_eq!(series(&merged), [(1, 1), (20, 2), (30, 3)], "of two values for one time the one recorded last");
    assert_eq!(merged.sources.iter().map(|s| s.count).collect::<Vec<_>>(), [2, 2]);
    let reversed = |c: Contribution| {
        let CityResult::Answered(Outcome::Evolution { past: Some(mut p), agreements }) = c.result.clone() else { panic!() };
        p.attributes.values_mut().for_each(|l| l.reverse());
        Contribution { result: CityResult::Answered(Outcome::Evolution { past: Some(p), agreements }), ..c }
    };
    let newest = merge_pasts(vec![reversed(t), reversed(b)], &evolution(Some(2)));
    assert_eq!(series(&newest), [(30, 3), (20, 2)], "the newest two of all, newest first");
}

#[test]
fn a_cut_past_cuts_all_so_that_the_series_is_complete_up_to_there() {
    let b = past("beijing", &[(1, 1, 1), (2, 2, 2)], Some(2));
    let t = past("tianjin", &[(10, 1, 9), (30, 3, 3)], None);
    let merged = merge_pasts(vec![t, b], &evolution(None));
    assert_eq!(series(&merged), [(10, 1), (2, 2)]);
    assert_eq!(merged.past.unwrap().cut_at, Some(at(2)));
    assert!(merged.sources[0].truncated && !merged.sources[1].truncated);
}

#[test]
fn a_past_of_one_city_stays_and_of_none_is_none() {
    let one = past("beijing", &[(1, 1, 1)], Some(1));
    assert_eq!(series(&merge_pasts(vec![one], &evolution(None))), [(1, 1)]);
    let none = answered("beijing", Outcome::Evolution { agreements: vec![], past: None });
    assert_eq!(merge_pasts(vec![none], &evolution(None)).past, None);
}

fn any_entity() -> impl Strategy<Value = Entity> {
    let attribute = (0..3i64, proptest::option::of(0..3i64), 0..3i64, proptest::option::of(900..1_100i64), any::<bool>());
    let attributes = proptest::collection::vec((0..2u8, attribute), 0..4);
    (0..2u8, 0..3u8, attributes, proptest::option::of(900..1_100i64)).prop_map(|(id, t, attributes, expires)| {
        let mut e = Entity::new(iri(&format!("urn:e:{id}")), iri(&format!("urn:t:{t}")));
        e.expires_at = expires.map(at);
        for (name, (n, observed, modified, expires, dataset)) in attributes {
            let mut a = value(n, observed, modified);
            a.dataset_id = dataset.then(|| iri("urn:d:1"));
            a.qualifiers = expires.map(|s| Box::new(Qualifiers { expires_at: Some(at(s)), ..Qualifiers::default() }));
            e.put(iri(&format!("urn:p:{name}")), a);
        }
        e
    })
}

fn any_contributions() -> impl Strategy<Value = Vec<Contribution>> {
    proptest::collection::vec(proptest::collection::vec(any_entity(), 0..3), 1..5)
        .prop_map(|cities| cities.into_iter().enumerate().map(|(i, entities)| from(&format!("city{i}"), &["urn:a:1"], entities)).collect())
}

proptest! {
    #[test]
    fn the_order_of_answers_does_not_matter(contributions in any_contributions(), shuffle in any::<proptest::sample::Index>(), reverse: bool) {
        let want = merge_entities(contributions.clone(), at(1_000));
        let mut other = contributions;
        let n = other.len();
        other.rotate_left(shuffle.index(n));
        if reverse {
            other.reverse();
        }
        prop_assert_eq!(merge_entities(other, at(1_000)), want);
    }

    #[test]
    fn nothing_is_invented_and_no_city_forgotten(contributions in any_contributions()) {
        let given: Vec<(String, Entity)> = contributions.iter().flat_map(|c| match &c.result {
            CityResult::Answered(Outcome::Entities { entities, .. }) => entities.iter().map(|s| (c.city.to_string(), s.entity.clone())).collect(),
            _ => Vec::new(),
        }).collect();
        let merged = merge_entities(contributions, at(1_000));
        for e in &merged.entities {
            let versions: Vec<_> = given.iter().filter(|(_, v)| v.id == e.id).collect();
            for (name, a) in e.attributes.iter().flat_map(|(n, l)| l.iter().map(move |a| (n, a))) {
                if name.as_str().ends_with(PROVENANCE) {
                    continue;
                }
                let same = |b: &Attribute| b.value == a.value && b.observed_at == a.observed_at && b.modified_at == a.modified_at;
                let known = versions.iter().any(|(_, v)| v.instance(name.as_str(), a.dataset_id.as_ref()).is_some_and(same));
                prop_assert!(known, "{} was given by nobody", name);
            }
            let text = provenance(e).to_string();
            prop_assert!(versions.iter().all(|(city, _)| text.contains(city.as_str())));
            prop_assert!(versions.iter().all(|(_, v)| v.types.iter().all(|t| e.types.contains(t))));
        }
        prop_assert!(given.iter().all(|(_, v)| merged.entities.iter().any(|e| e.id == v.id)));
    }
}
