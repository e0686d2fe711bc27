use super::*;
use crate::history::TemporalQuery;
use entity::{Attribute, Command, Entity, Instant, Iri};
use host::{ManualClock, SystemClock};
use std::collections::HashMap;

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
    Store::open(Options { memory_bytes: MEMORY_BYTES_MIN, ..Options::new(dir, clock) }).unwrap()
}

/// A store of which the log is on a simulated disk and the rest in memory.
fn open_simulated(disk: &host::sim::SimDisk) -> Store {
    let engines = Engines {
        log: Box::new(FileLog::open(Arc::new(disk.clone()), Path::new("/log")).unwrap()),
        documents: Arc::new(crate::state::MemoryDocuments::default()),
        history: Box::new(|_, _| Ok(Arc::new(crate::history::memory::MemoryHistory::default()))),
        segments: Arc::new(|_| Err(std::io::ErrorKind::NotFound.into())),
        id: "simulated".to_owned(),
    };
    let options = Options { memory_bytes: MEMORY_BYTES_MIN, ..Options::new("", Arc::new(SystemClock)) };
    Store::open_with(options, engines).unwrap()
}

fn put(store: &Store, commands: Vec<Command>) -> Vec<Result<Outcome, CommandError>> {
    store.submit_and_wait(Submission { space: Space::City, commands }).unwrap()
}

fn past(store: &Store, station: u32) -> Vec<(i64, f64)> {
    let query = TemporalQuery::of(Iri::known(&format!("urn:ngsi-ld:Station:{station}")));
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
fn a_correction_of_the_past_keeps_when_it_was_created_after_every_kind_of_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    put(&store, vec![reading(1, 1, 1.0)]);
    put(&store, vec![reading(1, 2, 2.0)]);
    let instance = |store: &Store| {
        let query = TemporalQuery::of(Iri::known("urn:ngsi-ld:Station:1"));
        store.history().evolution(&query).unwrap().unwrap().attributes[&iri("pm25")][0].clone()
    };
    let old = instance(&store);
    let mut corrected = Entity::new(Iri::known("urn:ngsi-ld:Station:1"), iri("Station"));
    let new = Attribute { created_at: old.created_at, ..Attribute::property(10.0).observed(Instant::from_secs(3_600)) };
    corrected.put(iri("pm25"), new);
    put(&store, vec![Command::Observe(corrected)]);
    let check = |store: &Store| {
        assert_eq!(past(store, 1), [(1, 10.0), (2, 2.0)]);
        let new = instance(store);
        assert_eq!(new.created_at, old.created_at);
        assert!(new.modified_at > old.modified_at);
    };
    check(&store);
    // From the log alone, then from files.
    drop(store);
    let store = open(dir.path());
    check(&store);
    store.close().unwrap();
    drop(store);
    check(&open(dir.path()));
}

#[test]
fn a_second_node_on_the_same_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _store = open(dir.path());
    let second = Store::open(Options { memory_bytes: MEMORY_BYTES_MIN, ..Options::new(dir.path(), Arc::new(SystemClock)) });
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
    let options = || Options { memory_bytes: MEMORY_BYTES_MIN, ..Options::new(dir.path(), Arc::new(SystemClock)) };
    // What is left of the log replays only if it begins at the beginning; without it nothing tells what the history is.
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    assert!(matches!(Store::open(options()), Err(OpenError::Lost { .. })));
    assert_eq!(n_files(), before);
}

/// Four writers who have all seen the same version of an entity: in each of 500 rounds exactly one of them changes it.
#[test]
fn occ_race_through_the_store() {
    const WRITERS: i64 = 4;
    // The simulated disk syncs at once: so many real syncs would only take time.
    let store = open_simulated(&host::sim::SimDisk::new(1, 1 << 30));
    put(&store, vec![reading(1, 0, 0.0)]);
    let barrier = std::sync::Barrier::new(WRITERS as usize);
    let n_won = AtomicU64::new(0);
    let version = || Version::of(store.table(Space::City).get("urn:ngsi-ld:Station:1").as_deref());
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, barrier, n_won) = (&store, &barrier, &n_won);
            scope.spawn(move || {
                for round in 1..=500 {
                    barrier.wait();
                    let seen = version();
                    barrier.wait();
                    let (sender, answer) = sync_channel(1);
                    let commands = vec![reading(1, round * WRITERS + writer, writer as f64)];
                    let submission = Submission { space: Space::City, commands };
                    store.submit_if(submission, vec![Some(seen)], move |a| sender.send(a).unwrap()).unwrap();
                    match &answer.recv().unwrap().unwrap()[0] {
                        Ok(_) => n_won.fetch_add(1, Ordering::SeqCst),
                        Err(CommandError::Changed { expected, found, .. }) => u64::from(expected == found),
                        Err(e) => panic!("{e}"),
                    };
                }
            });
        }
    });
    assert_eq!(n_won.into_inner(), 500);
    assert_eq!(past(&store, 1).len(), 501, "the losers left nothing in the past");
}

#[test]
fn a_command_for_what_is_absent_is_refused_once_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let submit = |versions: [Option<Version>; 2]| {
        let (sender, answer) = sync_channel(1);
        let commands = (1..3).map(|hour| reading(1, hour, hour as f64)).collect();
        store.submit_if(Submission { space: Space::City, commands }, versions.to_vec(), move |a| sender.send(a).unwrap()).unwrap();
        answer.recv().unwrap().unwrap()
    };
    // The second command sees what the first has done.
    let answers = submit([Some(Version::Absent), Some(Version::Absent)]);
    assert!(matches!(answers.as_slice(), [Ok(Outcome::Created), Err(CommandError::Changed { expected: Version::Absent, .. })]));
    let text = answers[1].as_ref().unwrap_err().to_string();
    assert!(text.contains("is not absent, but the one recorded at 20"), "{text}");
    let answers = submit([None, Some(Version::RecordedAt(Instant::from_secs(0)))]);
    assert!(answers[0].is_ok() && answers[1].is_err());
}

fn rows(of: &[(u32, i64, Option<f64>, Option<&str>)]) -> RecordBatch {
    use arrow::array::{ArrayRef, Float64Array, StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
    let ids: StringArray = of.iter().map(|r| Some(format!("urn:ngsi-ld:Station:{}", r.0))).collect();
    let times: TimestampMicrosecondArray = of.iter().map(|r| Some(r.1 * 3_600_000_000)).collect();
    let unit = HashMap::from([("unit_code".to_owned(), "GQ".to_owned())]);
    let schema = Schema::new(vec![
        Field::new("entity_id", DataType::Utf8, false),
        Field::new("observed_at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
        Field::new(iri("pm25").as_str(), DataType::Float64, true).with_metadata(unit),
        Field::new(iri("state").as_str(), DataType::Utf8, true),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(ids),
        Arc::new(times.with_timezone("UTC")),
        Arc::new(of.iter().map(|r| r.2).collect::<Float64Array>()),
        Arc::new(of.iter().map(|r| r.3).collect::<StringArray>()),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

/// Rows mean what as many single readings would: in the state, in the past, now, after a replay and after a checkpoint.
#[test]
fn rows_are_observations_and_survive_every_kind_of_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    put(&store, vec![reading(1, 5, 5.0), reading(3, 1, 1.0)]);
    let batch = rows(&[
        (1, 4, Some(4.0), Some("late")),
        (2, 2, Some(2.0), None),
        (1, 6, Some(6.0), None),
        (2, 1, Some(1.0), Some("ok")),
        (1, 6, Some(6.5), None),
        (3, 1, Some(1.0), None),
    ]);
    let taken = store.submit_rows_and_wait(iri("Station"), batch).unwrap();
    assert_eq!((taken.n_rows, taken.n_created), (6, 1));
    let check = |store: &Store| {
        assert_eq!(past(store, 1), [(4, 4.0), (5, 5.0), (6, 6.5)], "a later row of the same time corrects an earlier one");
        assert_eq!(past(store, 2), [(1, 1.0), (2, 2.0)]);
        let now = |station: u32, name: &str| {
            let e = store.table(Space::City).get(&format!("urn:ngsi-ld:Station:{station}")).unwrap();
            e.attribute(iri(name).as_str()).map(|a| (a.value.clone(), a.observed_at.unwrap().micros() / 3_600_000_000))
        };
        let number = |v: f64| entity::AttributeValue::Property(v.into());
        assert_eq!(now(1, "pm25"), Some((number(6.5), 6)));
        assert_eq!(now(1, "state"), Some((entity::AttributeValue::Property("late".into()), 4)));
        assert_eq!(now(2, "pm25"), Some((number(2.0), 2)));
        assert_eq!(now(2, "state").unwrap().1, 1);
        let unit = store.table(Space::City).get("urn:ngsi-ld:Station:2").unwrap();
        assert_eq!(unit.attribute(iri("pm25").as_str()).unwrap().unit_code.as_deref(), Some("GQ"));
    };
    check(&store);
    drop(store);
    let store = open(dir.path());
    check(&store);
    store.close().unwrap();
    drop(store);
    check(&open(dir.path()));
}

#[test]
fn rows_that_are_wrong_are_refused_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    put(&store, vec![Command::Create(Entity::new(Iri::known("urn:ngsi-ld:Station:7"), iri("Bus")))]);
    let refused = |batch| store.submit_rows_and_wait(iri("Station"), batch).unwrap_err().to_string();
    let other = refused(rows(&[(1, 1, Some(1.0), None), (7, 1, Some(1.0), None)]));
    assert_eq!(other, "row 1: entity `urn:ngsi-ld:Station:7` is of type `https://example.org/Bus`, not `https://example.org/Station`");
    assert_eq!(refused(rows(&[])), "there are no rows");
    assert_eq!(refused(RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty()))), "the rows are not valid");
    assert_eq!(store.stats().n_entities, 1);
}

#[test]
fn the_changes_can_be_read_from_any_kept_position_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    put(&store, vec![reading(1, 1, 1.0), reading(2, 1, 1.0)]);
    store.submit_rows_and_wait(iri("Station"), rows(&[(1, 2, Some(2.0), None), (1, 0, Some(0.0), None)])).unwrap();
    put(&store, vec![Command::Delete(Iri::known("urn:ngsi-ld:Station:2"))]);
    store.checkpoint().unwrap();
    drop(store);
    let store = open(dir.path());
    let first = store.changes(1, 2).unwrap();
    assert_eq!((first.changes.len(), first.next, first.first), (2, 3, 1));
    assert_eq!(first.changes[0].deltas.len(), 2);
    let (entity_type, batch) = first.changes[1].rows.as_ref().unwrap();
    assert_eq!((entity_type, batch.num_rows(), first.changes[1].deltas.len()), (&iri("Station"), 2, 1));
    let rest = store.changes(first.next, 10).unwrap();
    assert!(rest.changes[0].deltas[0].delete);
    assert!(rest.changes[0].recorded_at > first.changes[1].recorded_at);
    assert_eq!(store.changes(rest.next, 10).unwrap().changes, []);
    assert!(matches!(store.changes(9, 10), Err(ChangesError::Ahead { wanted: 9, next: 4 })));
}

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_recovers() {
    let disk = host::sim::SimDisk::new(3, 3_000);
    let store = open_simulated(&disk);
    let submit = |hour: i64| store.submit_and_wait(Submission { space: Space::City, commands: vec![reading(1, hour, hour as f64)] });
    let n_taken = (0..).find(|&hour| submit(hour).is_err()).unwrap();
    let error = submit(n_taken).unwrap_err();
    assert!(error.is_disk_full(), "{error}");
    assert!(host::chain(&error).contains("the disk is full"), "{error}");
    assert!(store.stats().write_error.is_some());
    assert_eq!(past(&store, 1).len() as i64, n_taken, "reads go on, and show only what was acknowledged");
    disk.set_capacity(1 << 20);
    submit(n_taken).unwrap();
    assert_eq!(store.stats().write_error, None);
    assert_eq!(past(&store, 1).len() as i64, n_taken + 1);
}

#[test]
fn a_sound_store_verifies_clean_and_every_kind_of_damage_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for hour in 0..50 {
        put(&store, (0..10).map(|s| reading(s, hour, hour as f64 + 0.5)).collect());
    }
    let running = store.verify(&|_| {}).unwrap();
    // Of each entity there are its values, and that it became one.
    assert_eq!((running.findings, running.n_documents, running.n_rows), (Vec::new(), 10, 510));
    let space = store.space().unwrap();
    assert_eq!((space.types.len(), space.types[0].n_entities, space.types[0].segment_rows), (1, 10, 510));
    assert!(space.log_bytes > 0 && space.documents_bytes > 0 && space.history_bytes == space.types[0].segment_bytes);
    assert!(matches!(crate::verify::dir(dir.path(), &|_| {}), Err(crate::verify::VerifyError::Open(OpenError::InUse { .. }))));
    put(&store, vec![reading(3, 99, 1.0)]);
    drop(store);
    let check = || crate::verify::dir(dir.path(), &|_| {}).unwrap();
    let clean = check();
    assert!(clean.is_clean() && clean.n_records == 51, "{clean:?}");
    assert_eq!(crate::space::of_dir(dir.path()).unwrap().types, space.types);
    let files = |folder: &str| {
        let mut files: Vec<_> = std::fs::read_dir(dir.path().join(folder)).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        files
    };
    for folder in ["log", "history"] {
        let path = files(folder).remove(0);
        let whole = std::fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        let found = check();
        assert_eq!(found.n_findings, 1, "{found:?}");
        assert!(found.findings[0].place.starts_with(folder), "{found:?}");
        std::fs::write(&path, whole).unwrap();
    }
    std::fs::remove_file(files("history").remove(0)).unwrap();
    assert_eq!(check().n_findings, 1);
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
