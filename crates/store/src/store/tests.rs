use super::*;
use crate::history::{TemporalQuery, TimeProperty};
use entity::{Attribute, Command, Entity, Instant, Iri};
use host::{ManualClock, SystemClock};

fn iri(s: &str) -> Iri {
    Iri::known(&format!("https://example.org/{s}"))
}

fn reading(station: u32, hour: i64, value: f64) -> Command {
    let e = Entity::new(Iri::known(&format!("urn:ngsi-ld:Station:{station}")), iri("Station"));
    Command::Observe(e.with(iri("pm25"), Attribute::property(value).observed(Instant::from_secs(hour * 3600))))
}

fn open(dir: &Path) -> Store {
    open_at(dir, Arc::new(SystemClock))
}

fn open_at(dir: &Path, clock: Arc<dyn Clock>) -> Store {
    Store::open(Options { dir: dir.to_owned(), clock, observers: Vec::new(), checkpoint_every: Duration::from_secs(3600) }).unwrap()
}

fn put(store: &Store, commands: Vec<Command>) -> Vec<Result<Outcome, CommandError>> {
    store.submit_and_wait(Submission { space: Space::City, commands }).unwrap()
}

fn past(store: &Store, station: u32) -> Vec<(i64, f64)> {
    let query = TemporalQuery {
        entity: Iri::known(&format!("urn:ngsi-ld:Station:{station}")),
        attributes: None,
        interval: None,
        time_property: TimeProperty::ObservedAt,
        last_n: None,
        as_of: None,
        instances_max: 10_000,
    };
    let evolution = store.history().evolution(&query).unwrap().unwrap();
    let value = |a: &Attribute| match &a.value {
        entity::AttributeValue::Property(v) => v.as_f64().unwrap(),
        other => panic!("{other:?}"),
    };
    evolution.attributes[&iri("pm25")].iter().map(|a| (a.observed_at.unwrap().micros() / 3_600_000_000, value(a))).collect()
}

/// Opens, writes, ends without a checkpoint (as a killed process would), with one, and in between; all of it is there every time.
#[test]
fn what_was_acknowledged_is_there_after_every_kind_of_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut want = Vec::new();
    for round in 0..6_i64 {
        let store = open(dir.path());
        for i in 0..5 {
            let hour = round * 5 + i;
            put(&store, vec![reading(1, hour, hour as f64)]);
            want.push((hour, hour as f64));
            if round % 3 == 1 && i == 2 {
                store.checkpoint().unwrap();
            }
        }
        assert_eq!(past(&store, 1), want, "round {round}");
        if round % 3 == 2 {
            store.close().unwrap();
        }
        drop(store);
    }
    let store = open(dir.path());
    assert_eq!(past(&store, 1), want);
    let entity = store.table(Space::City).get("urn:ngsi-ld:Station:1").unwrap();
    assert_eq!(entity.attribute(iri("pm25").as_str()).unwrap().observed_at, Some(Instant::from_secs(29 * 3600)));
}

#[test]
fn a_checkpoint_trims_the_log_and_a_start_replays_only_what_is_younger() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    put(&store, (0..10).map(|i| reading(i, 1, 1.0)).collect());
    store.checkpoint().unwrap();
    put(&store, vec![reading(3, 2, 2.0)]);
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.stats().n_replayed, 1);
    assert_eq!(store.stats().n_entities, 10);
    assert_eq!(past(&store, 3), [(1, 1.0), (2, 2.0)]);
}

#[test]
fn late_readings_and_corrections_are_in_the_past_and_not_doubled() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for (hour, value) in [(5, 5.0), (3, 3.0), (3, 3.0), (5, 5.0), (5, 5.5), (4, 4.0)] {
        put(&store, vec![reading(1, hour, value)]);
    }
    let want = [(3, 3.0), (4, 4.0), (5, 5.5)];
    assert_eq!(past(&store, 1), want);
    store.close().unwrap();
    drop(store);
    assert_eq!(past(&open(dir.path()), 1), want);
}

#[test]
fn a_second_node_on_the_same_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _store = open(dir.path());
    let second = Store::open(Options {
        dir: dir.path().to_owned(),
        clock: Arc::new(SystemClock),
        observers: Vec::new(),
        checkpoint_every: Duration::from_secs(1),
    });
    assert!(matches!(second, Err(OpenError::InUse { .. })));
}

#[test]
fn recorded_times_never_run_backwards_even_if_the_clock_does() {
    let dir = tempfile::tempdir().unwrap();
    let modified = |store: &Store| store.table(Space::City).get("urn:ngsi-ld:Station:1").unwrap().modified_at;
    let store = open_at(dir.path(), Arc::new(ManualClock::at(2_000_000)));
    put(&store, vec![reading(1, 1, 1.0)]);
    let first = modified(&store);
    drop(store);
    let store = open_at(dir.path(), Arc::new(ManualClock::at(1_000_000)));
    put(&store, vec![reading(1, 2, 2.0)]);
    assert!(modified(&store) > first);
}

/// Many threads, same entity: each answer is right, one creator wins.
#[test]
fn many_writers_are_serialised() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()));
    let threads: Vec<_> = (0..4)
        .map(|t| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || {
                let create = |round: u32| Command::Create(Entity::new(Iri::known(&format!("urn:ngsi-ld:Round:{round}")), iri("Round")));
                (0..50).filter(|&round| put(&store, vec![create(round), reading(t, 1, f64::from(round))])[0].is_ok()).count()
            })
        })
        .collect();
    let n_created: usize = threads.into_iter().map(|t| t.join().unwrap()).sum();
    assert_eq!(n_created, 50, "exactly one creator per id");
    let stats = store.stats();
    assert!(stats.n_batches <= stats.n_changes, "{stats:?}");
}

#[test]
fn after_closing_writes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.close().unwrap();
    assert!(matches!(
        store.submit_and_wait(Submission { space: Space::City, commands: vec![reading(1, 1, 1.0)] }),
        Err(SubmitError::Closed)
    ));
}

#[test]
fn a_history_without_its_documents_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    put(&store, vec![reading(1, 1, 1.0)]);
    store.close().unwrap();
    drop(store);
    let n_files = || std::fs::read_dir(dir.path().join("history")).unwrap().count();
    let before = n_files();
    std::fs::remove_dir_all(dir.path().join("documents")).unwrap();
    let options = || Options {
        dir: dir.path().to_owned(),
        clock: Arc::new(SystemClock),
        observers: Vec::new(),
        checkpoint_every: Duration::from_secs(1),
    };
    // What is left of the log replays only if it begins at the beginning; without it nothing tells what the history is.
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    assert!(matches!(Store::open(options()), Err(OpenError::Lost { .. })));
    assert_eq!(n_files(), before);
}

#[test]
fn days_that_are_over_are_rolled_up_by_themselves_and_stay_so() {
    use crate::history::{AggregateQuery, Bucket, HistoryPolicy, Measure};
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(72 * 3_600_000_000));
    let store = open_at(dir.path(), clock.clone());
    for hour in 0..72 {
        put(&store, vec![reading(1, hour, 1.5), reading(2, hour, hour as f64)]);
    }
    let policy = HistoryPolicy { rollup_rows_min: 1, ..HistoryPolicy::default() };
    let refused = HistoryPolicy { rollup_after_hours: u32::MAX, ..policy.clone() };
    assert!(store.keep_history(refused, clock.clone(), Duration::from_secs(1)).is_err());
    store.checkpoint().unwrap();
    store.keep_history(policy, clock, Duration::from_millis(10)).unwrap();
    let query = AggregateQuery {
        entity_type: iri("Station"),
        attributes: vec![iri("pm25")],
        entities: None,
        observed: Some(Instant::from_secs(0)..Instant::from_secs(48 * 3_600)),
        bucket: Bucket::day(0),
        per_entity: true,
        measures: vec![Measure::Sum],
        as_of: None,
    };
    // The thread needs a moment; a minute is too long for any machine.
    let start = host::Stopwatch::start();
    while store.history().aggregate(&query).unwrap().sources.rollups.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing was rolled up");
        std::thread::sleep(Duration::from_millis(10));
    }
    store.close().unwrap();
    drop(store);
    let answer = open(dir.path()).history().aggregate(&query).unwrap();
    assert_eq!((answer.sources.n_raw_rows, answer.sources.n_rollup_rows), (0, 4));
    let sums: Vec<f64> = answer.batches[0].column(2).as_any().downcast_ref::<arrow::array::Float64Array>().unwrap().values().to_vec();
    assert_eq!(sums, [36.0, 36.0, 276.0, 852.0]);
}
