use std::collections::BTreeMap;

use entity::{Command, Resolved};
use proptest::prelude::*;
use store::history::memory::MemoryHistory;
use store::history::{Fact, What};

use super::*;

fn at(s: i64) -> Instant {
    Instant::from_secs(s)
}

fn iri(short: &str) -> Iri {
    Iri::known(&format!("https://example.org/{short}"))
}

fn id(i: u8) -> Iri {
    Iri::known(&format!("urn:ngsi-ld:Station:{i}"))
}

/// Entity, what to do, attribute, dataset, observed second, value.
type Step = (u8, u8, bool, bool, Option<i64>, i32);

fn command(step: &Step) -> Command {
    let (i, what, first, dataset, observed, value) = *step;
    let name = iri(if first { "t" } else { "u" });
    let mut instance = Attribute::property(value);
    instance.observed_at = observed.map(at);
    let dataset_id = dataset.then(|| Iri::known("urn:dataset:x"));
    instance.dataset_id.clone_from(&dataset_id);
    let entity = Entity::new(id(i), iri("Station")).with(name.clone(), instance);
    match what {
        0 => Command::Delete(id(i)),
        1 => Command::DeleteAttribute { id: id(i), name, dataset_id, all: false },
        2 => Command::UpsertReplace(entity),
        3 => Command::Create(entity),
        _ => Command::Observe(entity),
    }
}

/// What the store does with commands, each recorded in a second of its own.
struct City {
    history: MemoryHistory,
    table: LiveTable,
    /// The entities after each step.
    states: Vec<BTreeMap<Iri, Entity>>,
}

impl City {
    fn of(steps: &[Step]) -> Self {
        let (history, table) = (MemoryHistory::default(), LiveTable::default());
        let mut state: BTreeMap<Iri, Entity> = BTreeMap::new();
        let mut states = Vec::new();
        for (i, step) in steps.iter().enumerate() {
            let recorded_at = at(i as i64 + 1);
            let command = command(step);
            let id = command.id().clone();
            if let Ok(Resolved { delta: Some(delta), .. }) = entity::resolve(command, state.get(&id)) {
                let before = state.remove(&id);
                let after = delta.apply(before.clone(), recorded_at).unwrap();
                let fact = |what| Fact { entity_type: iri("Station"), entity: id.clone(), recorded_at, what };
                let mut facts = Vec::new();
                if delta.delete {
                    facts.push(fact(What::EntityDeleted));
                }
                let cleared = before.iter().filter(|_| delta.clear).flat_map(|e| &e.attributes);
                let cleared = cleared.flat_map(|(n, list)| list.iter().map(move |a| (n.clone(), a.dataset_id.clone())));
                let is_put = |n: &Iri, d: &Option<Iri>| delta.put.iter().any(|(name, a)| name == n && a.dataset_id == *d);
                for (name, dataset_id) in cleared.filter(|(n, d)| !is_put(n, d)).chain(delta.remove.iter().cloned()) {
                    facts.push(fact(What::AttributeDeleted { name, dataset_id }));
                }
                for (name, put) in &delta.put {
                    let stamped = after.as_ref().and_then(|e| e.instance(name.as_str(), put.dataset_id.as_ref())).unwrap();
                    facts.push(fact(What::Value { name: name.clone(), instance: stamped.clone() }));
                }
                for (name, late) in &delta.late {
                    let instance = Attribute { created_at: recorded_at, modified_at: recorded_at, ..late.clone() };
                    facts.push(fact(What::Value { name: name.clone(), instance }));
                }
                history.append(facts);
                table.apply([(id.clone(), after.clone().map(Arc::new))]);
                state.extend(after.map(|e| (id, e)));
            }
            states.push(state.clone());
        }
        Self { history, table, states }
    }
}

fn shown(entity: &Entity) -> (Iri, Vec<Iri>, BTreeMap<Iri, Vec<Attribute>>) {
    let sorted = |list: &[Attribute]| {
        let mut list = list.to_vec();
        list.sort_by(|a, b| a.dataset_id.cmp(&b.dataset_id));
        list
    };
    (entity.id.clone(), entity.types.clone(), entity.attributes.iter().map(|(n, list)| (n.clone(), sorted(list))).collect())
}

proptest! {
    #[test]
    fn the_past_is_what_the_present_was_then(
        steps in prop::collection::vec((0_u8..3, 0_u8..9, any::<bool>(), any::<bool>(), prop::option::weighted(0.8, 0_i64..20), 0_i32..50), 1..40),
    ) {
        // A replacement by something observed earlier is no late value, but the history cannot tell it from one: here they have no such time.
        let steps: Vec<Step> = steps.into_iter().map(|s| if s.1 == 2 { (s.0, s.1, s.2, s.3, None, s.5) } else { s }).collect();
        let city = City::of(&steps);
        for (i, state) in city.states.iter().enumerate() {
            let then = at(i as i64 + 1);
            for entity in 0..3 {
                let found = known(&city.table, &city.history, &id(entity), then).unwrap();
                prop_assert_eq!(found.as_deref().map(shown), state.get(&id(entity)).map(shown), "{} as of step {}", id(entity), i);
            }
            let filter = Filter::Type(TypeSelector::Is(iri("Station")));
            let query = Query { count: true, ..Query::of(filter, 2) };
            let page = page_as_of(&city.table, &city.history, &query, then).unwrap();
            prop_assert_eq!(page.total, Some(state.len()));
            let ids: Vec<&Iri> = page.entities.iter().map(|e| &e.id).collect();
            prop_assert_eq!(ids, state.keys().take(2).collect::<Vec<_>>());
            prop_assert_eq!(page.more, state.len() > 2);
        }
    }
}

#[test]
fn a_question_that_says_not_where_to_look_is_refused() {
    let city = City::of(&[(1, 3, true, false, None, 1)]);
    let query = Query::of(Filter::all(), 10);
    let error = page_as_of(&city.table, &city.history, &query, at(5)).unwrap_err().to_string();
    assert!(error.contains("needs ids or types"), "{error}");
    let named = Query { filter: Filter::Id(vec![id(1), id(2), id(1)]), ..query };
    assert_eq!(page_as_of(&city.table, &city.history, &named, at(5)).unwrap().entities.len(), 1);
    assert!(page_as_of(&city.table, &city.history, &named, at(0)).unwrap().entities.is_empty());
}
