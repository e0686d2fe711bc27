use super::*;
use proptest::prelude::*;

fn name(s: &str) -> Iri {
    Iri::known(&format!("https://example.org/{s}"))
}

fn id() -> Iri {
    Iri::known("urn:ngsi-ld:Station:1")
}

fn station() -> Entity {
    Entity::new(id(), name("Station"))
}

fn pm25(value: f64, hour: i64) -> Entity {
    station().with(name("pm25"), Attribute::property(value).observed(Instant::from_secs(hour * 3600)))
}

/// Carries out commands one after the other, a second apart, and gives the entity at the end with what each came to.
fn run(commands: Vec<Command>) -> (Option<Entity>, Vec<Result<Outcome, CommandError>>) {
    let mut entity = None;
    let mut outcomes = Vec::new();
    for (i, command) in commands.into_iter().enumerate() {
        match resolve(command, entity.as_ref()) {
            Ok(resolved) => {
                if let Some(mut delta) = resolved.delta {
                    entity = delta.apply(entity, Instant::from_secs(1_000_000 + i as i64)).unwrap();
                }
                outcomes.push(Ok(resolved.outcome));
            }
            Err(e) => outcomes.push(Err(e)),
        }
    }
    (entity, outcomes)
}

fn value_of(e: &Entity) -> Option<f64> {
    match &e.attribute(name("pm25").as_str())?.value {
        crate::AttributeValue::Property(v) => v.as_f64(),
        _ => None,
    }
}

#[test]
fn create_refuses_an_id_that_is_taken() {
    let (_, outcomes) = run(vec![Command::Create(pm25(1.0, 1)), Command::Create(pm25(2.0, 2))]);
    assert_eq!(outcomes, [Ok(Outcome::Created), Err(CommandError::AlreadyExists { id: id() })]);
}

#[test]
fn created_at_survives_replacement_and_modified_at_moves() {
    let (e, _) = run(vec![Command::Create(pm25(1.0, 1)), Command::UpsertReplace(pm25(2.0, 2))]);
    let e = e.unwrap();
    assert_eq!(e.created_at, Instant::from_secs(1_000_000));
    assert_eq!(e.modified_at, Instant::from_secs(1_000_001));
    assert_eq!(value_of(&e), Some(2.0));
}

#[test]
fn append_without_overwrite_leaves_what_exists_and_says_so() {
    let more = pm25(9.0, 9).with(name("no2"), Attribute::property(3));
    let (e, outcomes) = run(vec![Command::Create(pm25(1.0, 1)), Command::Append { fragment: more, overwrite: false }]);
    let Ok(Outcome::Updated { updated, left }) = &outcomes[1] else { panic!("{outcomes:?}") };
    assert_eq!(updated, &[name("no2")]);
    assert_eq!(left[0].0, name("pm25"));
    assert_eq!(value_of(&e.unwrap()), Some(1.0));
}

#[test]
fn a_late_reading_goes_to_the_history_only() {
    let (e, _) = run(vec![Command::Observe(pm25(5.0, 5)), Command::Observe(pm25(4.0, 4))]);
    assert_eq!(value_of(&e.unwrap()), Some(5.0));
    let late = resolve(Command::Observe(pm25(4.0, 4)), Some(&pm25(5.0, 5))).unwrap().delta.unwrap();
    assert_eq!((late.put.len(), late.late.len()), (0, 1));
}

#[test]
fn a_repeated_reading_changes_nothing_and_a_corrected_one_does() {
    assert_eq!(resolve(Command::Observe(pm25(5.0, 5)), Some(&pm25(5.0, 5))).unwrap().outcome, Outcome::Unchanged);
    assert!(resolve(Command::Observe(pm25(6.0, 5)), Some(&pm25(5.0, 5))).unwrap().delta.is_some());
}

#[test]
fn deleting_what_is_not_there_is_an_error() {
    let unknown = Command::DeleteAttribute { id: id(), name: name("x"), dataset_id: None, all: false };
    let (_, outcomes) = run(vec![Command::Delete(id()), Command::Create(station()), unknown]);
    assert_eq!(outcomes[0], Err(CommandError::NoEntity { id: id() }));
    assert!(matches!(outcomes[2], Err(CommandError::NoAttribute { .. })));
}

#[test]
fn a_delta_for_an_unknown_entity_is_noticed() {
    let mut delta = Delta { put: vec![(name("a"), Attribute::property(1).into())], ..Delta::of(&id()) };
    assert_eq!(delta.apply(None, Instant::default()), Err(ApplyError { id: id() }));
}

proptest! {
    /// Whatever the order in which distinct readings arrive, the present value is the newest one, and a stored delta reads back equal.
    #[test]
    fn arrival_order_does_not_decide_the_present(hours in proptest::collection::hash_set(0i64..1000, 1..20), seed in any::<u64>()) {
        let mut hours: Vec<i64> = hours.into_iter().collect();
        let newest = *hours.iter().max().unwrap();
        let n = hours.len();
        hours.rotate_left((seed as usize) % n);
        let (e, _) = run(hours.iter().map(|h| Command::Observe(pm25(*h as f64, *h))).collect());
        let e = e.unwrap();
        prop_assert_eq!(value_of(&e), Some(newest as f64));
        let delta = resolve(Command::Observe(e), None).unwrap().delta.unwrap();
        let text = serde_json::to_string(&delta).unwrap();
        prop_assert_eq!(serde_json::from_str::<Delta>(&text).unwrap(), delta);
    }
}
