//! Several versions of one entity become one (clauses 4.5.5.2 and 4.5.5.3).

use std::cmp::Ordering;

use entity::{Attribute, Entity, Instant, Qualifiers};

/// One entity out of several versions of it; what `auxiliary` sources say fills only attributes that nobody else gave. None if there is no
/// version that is still valid. The order of the versions decides nothing but the order of names.
///
/// Of each attribute and `datasetId` the unexpired instance with the newest `observedAt` wins (one without `observedAt` loses against one
/// with it), then the one with the newest `modifiedAt`. Types and scopes are united. The whole expires when the last version does, and not at
/// all if one does not; what expires earlier with its version does so attribute by attribute.
#[must_use]
pub fn merge(versions: Vec<Entity>, auxiliary: Vec<Entity>, now: Instant) -> Option<Entity> {
    let valid = |e: &Entity| e.expires_at.is_none_or(|at| at > now);
    let mut merged: Option<Entity> = None;
    for version in versions.into_iter().filter(valid) {
        merged = Some(match merged {
            None => unexpired(version, now),
            Some(so_far) => joined(so_far, unexpired(version, now)),
        });
    }
    let mut filled: Option<Entity> = None;
    for version in auxiliary.into_iter().filter(valid) {
        filled = Some(match filled {
            None => unexpired(version, now),
            Some(so_far) => joined(so_far, unexpired(version, now)),
        });
    }
    match (merged, filled) {
        (Some(mut merged), Some(filled)) => {
            unite(&mut merged, &filled);
            for (name, instances) in filled.attributes {
                merged.attributes.entry(name).or_insert(instances);
            }
            Some(merged)
        }
        (one, other) => one.or(other),
    }
}

/// A version with the expiry of the entity handed down to its attributes, and without the instances whose time is over.
fn unexpired(mut e: Entity, now: Instant) -> Entity {
    let with_entity = e.expires_at;
    for instances in e.attributes.values_mut() {
        if let Some(end) = with_entity {
            for instance in instances.iter_mut() {
                let qualifiers = instance.qualifiers.get_or_insert_with(|| Box::new(Qualifiers::default()));
                qualifiers.expires_at = Some(qualifiers.expires_at.map_or(end, |own| own.min(end)));
            }
        }
        instances.retain(|i| i.qualifiers.as_ref().and_then(|q| q.expires_at).is_none_or(|at| at > now));
    }
    e.attributes.retain(|_, instances| !instances.is_empty());
    e
}

fn joined(mut a: Entity, b: Entity) -> Entity {
    unite(&mut a, &b);
    for (name, instances) in b.attributes {
        let present = a.attributes.entry(name).or_default();
        for instance in instances.iter() {
            let newer = present.iter().find(|i| i.dataset_id == instance.dataset_id).is_none_or(|i| order(instance, i).is_gt());
            if newer {
                present.put(instance.clone());
            }
        }
    }
    a
}

/// Everything but the attributes.
fn unite(a: &mut Entity, b: &Entity) {
    for entity_type in &b.types {
        if !a.types.contains(entity_type) {
            a.types.push(entity_type.clone());
        }
    }
    for scope in &b.scopes {
        if !a.scopes.contains(scope) {
            a.scopes.push(scope.clone());
        }
    }
    a.expires_at = a.expires_at.zip(b.expires_at).map(|(x, y)| x.max(y));
    // A source that does not say when is taken for one that does not know.
    a.created_at = match (a.created_at, b.created_at) {
        (x, y) if x == Instant::default() => y,
        (x, y) if y == Instant::default() => x,
        (x, y) => x.min(y),
    };
    a.modified_at = a.modified_at.max(b.modified_at);
}

/// Which of two instances counts.
fn order(a: &Attribute, b: &Attribute) -> Ordering {
    let by_time = a.observed_at.cmp(&b.observed_at).then_with(|| a.modified_at.cmp(&b.modified_at));
    // Where the standard leaves it open the texts decide, so that the answer does not depend on who was quicker.
    by_time.then_with(|| text(a).cmp(&text(b)))
}

fn text(a: &Attribute) -> String {
    serde_json::to_string(a).expect("an attribute is JSON")
}

#[cfg(test)]
mod tests {
    use entity::Iri;
    use proptest::prelude::*;

    use super::*;

    fn iri(s: &str) -> Iri {
        Iri::known(&format!("urn:x:{s}"))
    }

    fn attribute(value: i64, observed: Option<i64>, modified: i64, expires: Option<i64>, dataset: Option<&str>) -> Attribute {
        let mut a = Attribute::property(value);
        (a.observed_at, a.modified_at, a.dataset_id) = (observed.map(Instant::from_secs), Instant::from_secs(modified), dataset.map(iri));
        a.qualifiers = expires.map(|e| Box::new(Qualifiers { expires_at: Some(Instant::from_secs(e)), ..Qualifiers::default() }));
        a
    }

    fn version() -> impl Strategy<Value = Entity> {
        let instance = (0..4_i64, proptest::option::of(0..3_i64), 0..3_i64, proptest::option::of(0..20_i64), any::<bool>());
        let attributes = proptest::collection::vec((proptest::sample::select(vec!["p", "q"]), instance), 0..4);
        (attributes, proptest::option::of(0..20_i64), proptest::sample::subsequence(vec!["A", "B"], 1..3)).prop_map(
            |(list, expires, types)| {
                let mut e = Entity::new(iri("1"), iri(types[0]));
                e.types = types.iter().map(|t| iri(t)).collect();
                e.expires_at = expires.map(Instant::from_secs);
                for (name, (value, observed, modified, expires, named)) in list {
                    e.put(iri(name), attribute(value, observed, modified, expires, named.then_some("d")));
                }
                e
            },
        )
    }

    /// Without the order of anything.
    fn unordered(e: Option<Entity>) -> Option<serde_json::Value> {
        e.map(|mut e| {
            e.types.sort();
            e.attributes.sort_keys();
            for list in e.attributes.values_mut() {
                let mut sorted: Vec<Attribute> = list.iter().cloned().collect();
                sorted.sort_by(|a, b| a.dataset_id.cmp(&b.dataset_id));
                *list = sorted.into();
            }
            serde_json::to_value(e).unwrap()
        })
    }

    const NOW: i64 = 10;

    proptest! {
        /// Merging has one result, whoever comes first and however often.
        #[test]
        fn the_order_of_versions_decides_nothing(a in version(), b in version(), c in version()) {
            let now = Instant::from_secs(NOW);
            let all = |list: &[&Entity]| unordered(merge(list.iter().map(|e| (*e).clone()).collect(), Vec::new(), now));
            prop_assert_eq!(all(&[&a, &b, &c]), all(&[&c, &a, &b]));
            prop_assert_eq!(all(&[&a, &b]), all(&[&a, &b, &b, &a]));
        }

        /// What is in the result was in a version, is not expired, and no version had a newer one.
        #[test]
        fn the_newest_that_is_valid_wins(a in version(), b in version()) {
            let now = Instant::from_secs(NOW);
            let merged = merge(vec![a.clone(), b.clone()], Vec::new(), now);
            let alive: Vec<Entity> = [a, b].into_iter().filter(|e| e.expires_at.is_none_or(|at| at > now)).collect();
            prop_assert_eq!(merged.is_some(), !alive.is_empty());
            let Some(merged) = merged else { return Ok(()) };
            for version in &alive {
                for (name, instances) in &version.attributes {
                    for i in instances.iter().filter(|i| i.qualifiers.as_ref().and_then(|q| q.expires_at).is_none_or(|at| at > now)) {
                        let won = merged.instance(name.as_str(), i.dataset_id.as_ref());
                        prop_assert!(won.is_some_and(|w| (w.observed_at, w.modified_at) >= (i.observed_at, i.modified_at)));
                    }
                }
            }
            for (name, i) in merged.attributes.iter().flat_map(|(n, list)| list.iter().map(move |i| (n, i))) {
                let had = |e: &Entity| e.instance(name.as_str(), i.dataset_id.as_ref()).is_some_and(|x| x.value == i.value);
                prop_assert!(alive.iter().any(had));
            }
        }
    }

    #[test]
    fn auxiliary_fills_gaps_and_never_overrides() {
        let with =
            |name: &str, value: i64, observed| Entity::new(iri("1"), iri("A")).with(iri(name), attribute(value, observed, 0, None, None));
        let now = Instant::from_secs(NOW);
        let merged = merge(vec![with("p", 1, None)], vec![with("p", 2, Some(9)), with("q", 3, None)], now).unwrap();
        assert_eq!(merged.attribute("urn:x:p").unwrap(), &attribute(1, None, 0, None, None));
        assert_eq!(merged.attribute("urn:x:q").unwrap(), &attribute(3, None, 0, None, None));
        assert_eq!(merge(Vec::new(), vec![with("q", 3, None)], now), Some(with("q", 3, None)));
        assert_eq!(merge(Vec::new(), Vec::new(), now), None);
    }

    #[test]
    fn the_whole_expires_last_and_its_parts_with_their_version() {
        let of = |name: &str, expires: Option<i64>| {
            let mut e = Entity::new(iri("1"), iri("A")).with(iri(name), attribute(1, None, 0, Some(50), None));
            e.expires_at = expires.map(Instant::from_secs);
            e
        };
        let merged = |a, b| merge(vec![of("p", a), of("q", b)], Vec::new(), Instant::from_secs(NOW)).unwrap();
        assert_eq!(merged(Some(20), Some(30)).expires_at, Some(Instant::from_secs(30)));
        assert_eq!(merged(Some(20), None).expires_at, None);
        let ends = |e: &Entity, name: &str| e.attribute(name).unwrap().qualifiers.as_ref().unwrap().expires_at.unwrap();
        let e = merged(Some(20), None);
        assert_eq!((ends(&e, "urn:x:p"), ends(&e, "urn:x:q")), (Instant::from_secs(20), Instant::from_secs(50)));
    }
}
