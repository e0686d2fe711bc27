use std::collections::BTreeMap;

use entity::{Command, Resolved};
use proptest::prelude::*;
use store::history::columnar::ColumnarHistory;
use store::history::memory::MemoryHistory;
use store::history::{HistoryPolicy, RetentionRule};
use store::state::Space;
use store::{Committed, facts_of};

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
    let mut entity = Entity::new(id(i), iri("Station")).with(name.clone(), instance);
    // Sometimes it says more of what it is, or something else.
    match value {
        0 => entity.types = vec![iri("Mast")],
        1 => entity.types = vec![iri("Mast"), iri("Station")],
        2 => entity.types.push(iri("Mast")),
        3 => entity.scopes = vec!["/north".parse().unwrap()],
        4 => entity.scopes = vec!["/south/a".parse().unwrap(), "/north".parse().unwrap()],
        5 => entity.expires_at = Some(at(1_000)),
        _ => {}
    }
    match what {
        0 => Command::Delete(id(i)),
        1 => Command::DeleteAttribute { id: id(i), name, dataset_id, all: false },
        2 => Command::UpsertReplace(entity),
        3 => Command::Create(entity),
        4 => Command::UpsertUpdate(entity),
        _ => Command::Observe(entity),
    }
}

/// What the store does with commands, each submission recorded in a second of its own.
struct City {
    history: MemoryHistory,
    table: LiveTable,
    /// The entities after each submission.
    states: Vec<BTreeMap<Iri, Entity>>,
}

impl City {
    fn of(submissions: &[Vec<Step>]) -> Self {
        let (history, table) = (MemoryHistory::default(), LiveTable::default());
        let mut state: BTreeMap<Iri, Entity> = BTreeMap::new();
        let mut states = Vec::new();
        for (i, steps) in submissions.iter().enumerate() {
            let recorded_at = at(i as i64 + 1);
            let mut changes = Vec::new();
            for command in steps.iter().map(command) {
                let id = command.id().clone();
                if let Ok(Resolved { delta: Some(mut delta), .. }) = entity::resolve(command, state.get(&id)) {
                    let before = state.remove(&id);
                    let after = delta.apply(before.clone(), recorded_at).unwrap();
                    table.apply([(id.clone(), after.clone().map(Arc::new))]);
                    let (before, after_shared) = (before.map(Arc::new), after.clone().map(Arc::new));
                    let delta = Arc::new(delta);
                    changes.push(Committed { position: 0, space: Space::City, recorded_at, before, after: after_shared, delta });
                    state.extend(after.map(|e| (id, e)));
                }
            }
            history.append(facts_of(&changes));
            states.push(state.clone());
        }
        Self { history, table, states }
    }
}

/// All of an entity but when it was changed last: that the same scopes were given once more is not kept.
fn shown(entity: &Entity) -> Entity {
    let mut entity = Entity { modified_at: Instant::default(), ..entity.clone() };
    for list in entity.attributes.values_mut() {
        list.sort_by(|a, b| a.dataset_id.cmp(&b.dataset_id));
    }
    entity
}

fn any_step() -> impl Strategy<Value = Step> {
    (0_u8..3, 0_u8..10, any::<bool>(), any::<bool>(), prop::option::weighted(0.8, 0_i64..20), 0_i32..15)
}

fn check_past(city: &City) -> Result<(), TestCaseError> {
    for (i, state) in city.states.iter().enumerate() {
        let then = at(i as i64 + 1);
        for entity in 0..3 {
            let found = known(&city.table, &city.history, &id(entity), then).unwrap();
            prop_assert_eq!(found.as_deref().map(shown), state.get(&id(entity)).map(shown), "{} as of step {}", id(entity), i);
        }
        let filters = [
            Filter::Type(TypeSelector::Is(iri("Station"))),
            Filter::Type(TypeSelector::Is(iri("Mast"))),
            Filter::Type(TypeSelector::Is(iri("Station"))).and(Filter::Scope("/north".parse().unwrap())),
        ];
        for filter in filters {
            let matching: Vec<&Iri> = state.values().filter(|e| filter.matches(e)).map(|e| &e.id).collect();
            let query = Query { count: true, ..Query::of(filter.clone(), 2) };
            let page = page_as_of(&city.table, &city.history, &query, then).unwrap();
            prop_assert_eq!(page.total, Some(matching.len()), "{:?} as of step {}", filter, i);
            let ids: Vec<&Iri> = page.entities.iter().map(|e| &e.id).collect();
            prop_assert_eq!(ids, matching.iter().take(2).copied().collect::<Vec<_>>());
            prop_assert_eq!(page.more, matching.len() > 2);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_past_is_what_the_present_was_then(steps in prop::collection::vec(any_step(), 1..40)) {
        check_past(&City::of(&steps.into_iter().map(|s| vec![s]).collect::<Vec<_>>()))?;
    }

    /// Changes that are recorded at the same time: what the entities are, not their values, of which the last one counts only if it is one
    /// of the same attribute.
    #[test]
    fn what_entities_were_is_known_after_several_changes_at_one_time(
        submissions in prop::collection::vec(prop::collection::vec(any_step(), 1..4), 1..15),
    ) {
        let city = City::of(&submissions);
        for (i, state) in city.states.iter().enumerate() {
            for entity in 0..3 {
                let found = known(&city.table, &city.history, &id(entity), at(i as i64 + 1)).unwrap();
                let about = |e: &Entity| (e.types.clone(), e.scopes.clone(), e.created_at, e.expires_at);
                prop_assert_eq!(found.as_deref().map(about), state.get(&id(entity)).map(about), "{} as of step {}", id(entity), i);
            }
        }
    }
}

#[test]
fn an_entity_that_gets_another_first_type_is_of_both_tables_in_their_time() {
    let city = City::of(&[vec![(1, 3, true, false, None, 9)], vec![(1, 2, false, false, None, 0)], vec![(1, 5, true, false, None, 9)]]);
    let of = |short: &str, s| {
        let page = page_as_of(&city.table, &city.history, &Query::of(Filter::Type(TypeSelector::Is(iri(short))), 9), at(s)).unwrap();
        page.entities.iter().map(|e| (e.types.clone(), e.attributes.len())).collect::<Vec<_>>()
    };
    assert_eq!((of("Station", 1), of("Mast", 1)), (vec![(vec![iri("Station")], 1)], vec![]));
    assert_eq!((of("Station", 2), of("Mast", 2)), (vec![], vec![(vec![iri("Mast")], 1)]));
    // A type is added, never taken away, by who reports a value.
    let both = vec![(vec![iri("Mast"), iri("Station")], 2)];
    assert_eq!((of("Station", 3), of("Mast", 3)), (both.clone(), both));
}

#[test]
fn a_question_that_says_not_where_to_look_is_refused() {
    let city = City::of(&[vec![(1, 3, true, false, None, 9)]]);
    let query = Query::of(Filter::all(), 10);
    let error = page_as_of(&city.table, &city.history, &query, at(5)).unwrap_err().to_string();
    assert!(error.contains("needs ids or types"), "{error}");
    let named = Query { filter: Filter::Id(vec![id(1), id(2), id(1)]), ..query };
    assert_eq!(page_as_of(&city.table, &city.history, &named, at(5)).unwrap().entities.len(), 1);
    assert!(page_as_of(&city.table, &city.history, &named, at(0)).unwrap().entities.is_empty());
}

/// What retention has removed is not answered thinly: neither for a type, nor for an entity.
#[test]
fn a_time_from_before_the_history_is_kept_is_an_error() {
    const DAY_S: i64 = 86_400;
    let dir = tempfile::tempdir().unwrap();
    let (history, table) = (ColumnarHistory::open(dir.path(), Vec::new()).unwrap(), LiveTable::default());
    let mut entity: Option<Entity> = None;
    for day in 0..10 {
        let seen = Entity::new(id(1), iri("Station")).with(iri("t"), Attribute::property(day).observed(at(day * DAY_S)));
        let resolved = entity::resolve(Command::Observe(seen), entity.as_ref()).unwrap();
        let (mut delta, recorded_at) = (resolved.delta.unwrap(), at(day * DAY_S + 1));
        let before = entity.take();
        entity = delta.apply(before.clone(), recorded_at).unwrap();
        let (before, after) = (before.map(Arc::new), entity.clone().map(Arc::new));
        table.apply([(id(1), after.clone())]);
        history.append(facts_of(&[Committed { position: 0, space: Space::City, recorded_at, before, after, delta: Arc::new(delta) }]));
    }
    history.seal().unwrap();
    let rule = RetentionRule { entity_type: None, attributes: None, raw_days: Some(3), rollup_days: None };
    let policy = HistoryPolicy { retention: vec![rule], ..HistoryPolicy::default() };
    while history.maintain(&policy, at(10 * DAY_S)).unwrap().more {}
    let query = Query::of(Filter::Type(TypeSelector::Is(iri("Station"))), 10);
    let level = |s| known(&table, &history, &id(1), at(s)).map(|e| e.unwrap().attribute(iri("t").as_str()).unwrap().value.clone());
    for (answer, is_kept) in [
        (level(8 * DAY_S + 1).map(|_| ()), true),
        (page_as_of(&table, &history, &query, at(8 * DAY_S + 1)).map(|_| ()), true),
        (level(2 * DAY_S).map(|_| ()), false),
        (page_as_of(&table, &history, &query, at(2 * DAY_S)).map(|_| ()), false),
        // It is kept from the seventh day on, but what was true when that day began is not there any more.
        (level(7 * DAY_S).map(|_| ()), false),
    ] {
        assert_eq!(answer.as_ref().is_ok(), is_kept, "{answer:?}");
        assert!(answer.err().is_none_or(|e| e.is_gone()));
    }
    assert_eq!(level(8 * DAY_S + 1).unwrap(), entity::AttributeValue::Property(8.into()));
}
