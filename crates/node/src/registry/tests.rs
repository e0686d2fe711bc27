//! The index finds what looking at every registration finds.

use entity::registration::{EntityInfo, Information, Selected, Specification};
use entity::{Iri, TypeSelector};
use proptest::prelude::*;

use super::*;

fn iri(s: &str) -> Iri {
    Iri::known(&format!("urn:x:{s}"))
}

fn registration(id: usize, parts: &[Vec<&str>]) -> Registration {
    let part = |types: &Vec<&str>| match types.as_slice() {
        [] => Information { properties: vec![iri("p")], ..Information::default() },
        list => {
            let types = list.iter().map(|t| iri(t)).collect();
            Information {
                entities: vec![EntityInfo { id: None, id_pattern: None, id_pattern_text: None, types }],
                ..Information::default()
            }
        }
    };
    let information: Vec<_> = parts.iter().map(part).collect();
    let information = serde_json::to_value(information).unwrap();
    serde_json::from_value(serde_json::json!({"id": format!("urn:r:{id:04}"), "information": information, "endpoint": "http://a.example"}))
        .unwrap()
}

proptest! {
    #[test]
    fn the_index_finds_what_a_look_at_all_finds(
        list in proptest::collection::vec(proptest::collection::vec(proptest::sample::subsequence(vec!["A", "B", "C"], 0..3), 1..3), 0..8),
        gone in proptest::collection::vec(any::<bool>(), 8),
        asked in proptest::collection::vec(proptest::sample::subsequence(vec!["A", "B", "D"], 0..3), 0..3),
    ) {
        let registry = Registry::default();
        for (i, parts) in list.iter().enumerate() {
            registry.put(registration(i, parts));
            // Put again, and some taken away: the index follows.
            registry.put(registration(i, parts));
            if gone[i] {
                registry.remove(&registration(i, parts).id);
            }
        }
        let selected = |types: &Vec<&str>| Selected {
            types: (!types.is_empty()).then(|| TypeSelector::Or(types.iter().map(|t| TypeSelector::Is(iri(t))).collect())),
            ..Selected::default()
        };
        let asked = Specification { entities: asked.iter().map(selected).collect(), ..Specification::default() };
        let table = registry.read();
        let found: Vec<_> = table.matching(&asked).iter().map(|r| r.registration.id.clone()).collect();
        let wanted: Vec<_> =
            table.all().filter(|r| r.registration.matches(&asked).is_some()).map(|r| r.registration.id.clone()).collect();
        prop_assert_eq!(found, wanted);
        prop_assert_eq!(table.len(), (0..list.len()).filter(|i| !gone[*i]).count());
    }
}

#[test]
fn a_source_that_failed_is_left_alone_for_its_cool_down() {
    let mut r = registration(1, &[vec!["A"]]);
    r.management.cooldown_ms = Some(1_000);
    let source = Registered::new(r, Arc::default());
    let at = |ms: i64| Instant::from_micros(1_000_000_000 + ms * 1_000);
    source.note(Asked::Silent, at(0));
    assert!(!source.may_be_read(at(1)));
    assert!(source.may_be_read(at(1_000)) && !source.may_be_read(at(1_001)), "one finds out");
    assert!(source.is_cooling(at(999)) && !source.is_cooling(at(1_000)));
    source.note(Asked::Answered, at(1_500));
    assert!(!source.is_cooling(at(1_501)) && source.may_be_read(at(1_501)) && source.may_be_read(at(1_502)));
    assert_eq!((source.status().times_sent, source.status().times_failed), (2, 1));
    assert_eq!((source.status().last_failure, source.status().last_success), (Some(at(0)), Some(at(1_500))));
}
