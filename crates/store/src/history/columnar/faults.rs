//! What survives: the machine dies at every step of seals, compactions, erasures and purges; the disk runs full; the files are far away.

use host::sim::SimDisk;
use proptest::prelude::*;

use super::*;
use crate::blobs::contract::Moto;
use crate::history::contract::{Append, any_append, bulk, numbers};
use crate::history::memory::MemoryHistory;
use crate::history::{ErasedTimes, What};

/// What is done to a history, as a log would keep it.
#[derive(Clone)]
enum Step {
    Facts(Vec<Fact>),
    Rows(BulkRows),
    Erase(Erasure),
    /// Sealed, the list made durable.
    Seal,
    Compact,
    Purge,
}

fn at(s: i64) -> Instant {
    Instant::from_secs(s)
}

fn station(short: &str) -> Iri {
    Iri::known(&format!("urn:ngsi-ld:Station:{short}"))
}

fn name(short: &str) -> Iri {
    Iri::known(&format!("https://example.org/{short}"))
}

fn value(entity: &str, observed_s: i64, recorded_s: i64, v: i64) -> Fact {
    let recorded_at = at(recorded_s);
    let instance = entity::Attribute {
        observed_at: Some(at(observed_s)),
        created_at: recorded_at,
        modified_at: recorded_at,
        ..entity::Attribute::property(v)
    };
    let what = What::Value { name: name("pm25"), instance: instance.into() };
    Fact { entity_type: name("Station"), entity: station(entity), recorded_at, what }
}

/// Facts, bulk rows, corrections, erasures, and often enough a seal for compactions to have work.
fn script() -> Vec<Step> {
    let mut steps = Vec::new();
    for s in 1..=9 {
        steps.push(Step::Facts(vec![value("a", s, s, s), value("b", s % 3, s, s)]));
        if s % 3 == 0 {
            let rows = bulk(s, &[("a", s), ("c", s)], vec![("no2", "GQ", numbers(&[Some(s as f64), Some(0.5)]))]);
            steps.push(Step::Rows(rows));
        }
        if s == 4 || s == 8 {
            let range = ErasedTimes::Observed(at(s - 2)..at(s));
            steps.push(Step::Erase(Erasure { times: range, ..Erasure::of_entity(name("Station"), station("a"), at(s)) }));
        }
        steps.push(Step::Seal);
    }
    steps.extend([Step::Compact, Step::Seal, Step::Facts(vec![value("a", 3, 20, 33)]), Step::Purge, Step::Seal]);
    steps.extend([Step::Erase(Erasure::of_entity(name("Station"), station("b"), at(21))), Step::Seal, Step::Compact, Step::Seal]);
    steps
}

fn do_to(history: &dyn History, step: &Step) -> Result<Option<Vec<Segment>>, HistoryError> {
    match step {
        Step::Facts(facts) => history.append(facts.clone()),
        Step::Rows(rows) => history.append_rows(rows.clone()),
        Step::Erase(erasure) => history.erase(erasure.clone())?,
        Step::Seal => return history.seal().map(Some),
        Step::Purge => return history.purge().map(Some),
        Step::Compact => {}
    }
    Ok(None)
}

fn open(disk: &SimDisk, segments: Vec<Segment>) -> Result<ColumnarHistory, HistoryError> {
    let options = ColumnarOptions { compaction: false, bulk_rows_min: 1, metadata_bytes_max: 0, pages_bytes_max: 0, index: None };
    let failed = |source| HistoryError::Io { action: "open", path: "/history".into(), source };
    let blobs = DiskBlobs::open(Arc::new(disk.clone()), Path::new("/history")).map_err(failed)?;
    ColumnarHistory::open_on(Arc::new(blobs), segments, options)
}

#[track_caller]
fn check_same(history: &dyn History, model: &MemoryHistory, as_of: &[Option<Instant>], what: &str) {
    let names: Vec<Iri> = model.tables().into_iter().flat_map(|t| t.columns).map(|c| c.name).collect();
    for as_of in as_of {
        for entity in ["a", "b", "c"] {
            let query = TemporalQuery { as_of: *as_of, ..TemporalQuery::of(station(entity)) };
            assert_eq!(history.evolution(&query).unwrap(), model.evolution(&query).unwrap(), "{what} {entity} {as_of:?}");
        }
        let attributes = names.clone();
        let scan = HistoryScan { entity_type: name("Station"), attributes, entities: None, observed: None, as_of: *as_of };
        assert_eq!(history.scan(&scan).unwrap(), model.scan(&scan).unwrap(), "{what} {as_of:?}");
    }
}

#[test]
fn a_crash_at_any_step_loses_nothing_and_doubles_nothing() {
    let script = script();
    for crash_step in 1.. {
        let disk = SimDisk::new(crash_step, 16 << 20);
        let history = open(&disk, Vec::new()).unwrap();
        let mut manifest = Vec::new();
        // What the log would keep: all since the list was made durable; and what everybody was told is done.
        let (mut log, model): (Vec<&Step>, _) = (Vec::new(), MemoryHistory::default());
        disk.crash_after(crash_step);
        let mut has_crashed = false;
        for step in &script {
            let done = match step {
                Step::Compact => history.compact().map(|()| None),
                other => do_to(&history, other),
            };
            match done {
                Ok(Some(segments)) => {
                    manifest = segments;
                    log.clear();
                    history.committed();
                    do_to(&model, step).unwrap();
                }
                Ok(None) => {
                    do_to(&model, step).unwrap();
                    log.push(step);
                }
                Err(_) => {
                    has_crashed = true;
                    break;
                }
            }
        }
        drop(history);
        disk.restart();
        let history = open(&disk, manifest).unwrap_or_else(|e| panic!("crash at step {crash_step}: {e}"));
        for step in log {
            if !matches!(step, Step::Compact) {
                do_to(&history, step).unwrap();
            }
        }
        assert!(history.verify().is_empty(), "crash at step {crash_step}");
        check_same(&history, &model, &[None, Some(at(5)), Some(at(15)), Some(at(20))], &format!("crash at step {crash_step}"));
        if !has_crashed {
            assert!(crash_step > 100, "the script has {crash_step} steps only");
            return;
        }
    }
}

/// What is done at random.
#[derive(Clone, Debug)]
enum Act {
    Append(Append),
    Seal,
    Compact,
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![4 => any_append().prop_map(Act::Append), 3 => Just(Act::Seal), 1 => Just(Act::Compact)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn whatever_was_done_survives_a_crash_at_any_time(
        acts in prop::collection::vec(any_act(), 1..40),
        crash_step in 1u64..400,
        more in prop::collection::vec(any_act(), 1..10),
    ) {
        let disk = SimDisk::new(crash_step, 16 << 20);
        let mut history = open(&disk, Vec::new()).unwrap();
        let (mut manifest, mut log, model) = (Vec::new(), Vec::new(), MemoryHistory::default());
        disk.crash_after(crash_step);
        for act in acts.into_iter().chain(more) {
            let done = match &act {
                Act::Append(append) => {
                    append.clone().to(&history);
                    append.clone().to(&model);
                    log.push(append.clone());
                    Ok(())
                }
                Act::Compact => history.compact(),
                Act::Seal => history.seal().map(|segments| {
                    manifest = segments;
                    log.clear();
                    history.committed();
                }),
            };
            if done.is_err() {
                // It goes on after a restart, with what the log kept.
                drop(history);
                disk.restart();
                history = open(&disk, manifest.clone()).unwrap();
                log.iter().cloned().for_each(|append: Append| append.to(&history));
                prop_assert!(history.verify().is_empty());
            }
        }
        // If it has not died by now it lives: the questions read the disk too.
        disk.crash_after(1 << 40);
        check_same(&history, &model, &[None, Some(at(1)), Some(at(3))], &format!("crash at step {crash_step}"));
    }
}

#[test]
fn a_disk_that_runs_full_at_any_point_loses_nothing() {
    for capacity in (0..20_000).step_by(4_000) {
        let disk = SimDisk::new(1, capacity);
        let history = open(&disk, Vec::new()).unwrap();
        let model = MemoryHistory::default();
        let mut n_failed = 0;
        for step in &script() {
            let act = || match step {
                Step::Compact => history.compact().map(|()| None),
                other => do_to(&history, other),
            };
            if act().is_err() {
                n_failed += 1;
                if !matches!(step, Step::Purge) {
                    check_same(&history, &model, &[None], &format!("full at {capacity}"));
                }
                disk.set_capacity(16 << 20);
                act().unwrap();
            }
            history.committed();
            do_to(&model, step).unwrap();
        }
        check_same(&history, &model, &[None, Some(at(5))], &format!("capacity {capacity}"));
        assert!(n_failed > 0 || capacity > 10_000, "{capacity} bytes were enough");
        assert!(history.verify().is_empty());
    }
}

#[test]
fn a_history_lives_in_an_object_store_like_anywhere_else() {
    let Some(server) = Moto::start() else { return };
    let open = |segments| {
        let options = ColumnarOptions { compaction: false, bulk_rows_min: 1, ..ColumnarOptions::default() };
        ColumnarHistory::open_on(Arc::new(server.blobs("city/history")), segments, options).unwrap()
    };
    let history = open(Vec::new());
    let model = MemoryHistory::default();
    for step in &script() {
        do_to(&model, step).unwrap();
        match step {
            Step::Compact => history.compact().unwrap(),
            other => {
                do_to(&history, other).unwrap();
            }
        }
        history.committed();
    }
    let segments = history.seal().unwrap();
    let again = open(segments.clone());
    for history in [&history, &again] {
        check_same(history, &model, &[None, Some(at(15))], "object store");
        assert!(history.verify().is_empty());
    }
    let files: Vec<String> = segments.into_iter().map(|s| s.file).collect();
    let mut found = server.blobs("city/history").list().unwrap();
    found.sort_by_key(|f| files.iter().position(|file| file == f));
    assert_eq!(found, files, "nothing is left of what was merged");
}
