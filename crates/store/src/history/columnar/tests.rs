use std::fs::{self, File};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use entity::{Attribute, Instant};
use host::sim::SimDisk;
use parquet::basic::Encoding;

use super::segment::{Attributes, Keys, Wanted};
use super::*;
use crate::history::What;

fn at(s: i64) -> Instant {
    Instant::from_secs(s)
}

fn station(i: usize) -> Iri {
    Iri::known(&format!("urn:ngsi-ld:Station:{i:04}"))
}

fn attribute(name: &str) -> Iri {
    Iri::known(&format!("https://example.org/{name}"))
}

fn value(entity: usize, name: &str, observed_s: i64, recorded_s: i64, v: impl Into<entity::Value>) -> Fact {
    let recorded_at = at(recorded_s);
    let instance = Attribute { created_at: recorded_at, modified_at: recorded_at, ..Attribute::property(v) }.observed(at(observed_s));
    Fact {
        entity_type: attribute("Station"),
        entity: station(entity),
        recorded_at,
        what: What::Value { name: attribute(name), instance: instance.into() },
    }
}

fn query(entity: usize) -> TemporalQuery {
    TemporalQuery::of(station(entity))
}

/// Observed seconds of the instances of an answer.
fn observed(evolution: &Evolution) -> Vec<i64> {
    evolution.attributes.values().flatten().map(|i| i.observed_at.unwrap().micros() / 1_000_000).collect()
}

/// Without the thread that compacts: what files there are is what a test wants to say.
fn by_hand() -> ColumnarOptions {
    ColumnarOptions { compaction: false, bulk_rows_min: 1, ..ColumnarOptions::default() }
}

fn open(dir: &Path, segments: &[Segment]) -> Result<ColumnarHistory, HistoryError> {
    let blobs = DiskBlobs::open(Arc::new(RealDisk), dir).unwrap();
    ColumnarHistory::open_on(Arc::new(blobs), segments.to_vec(), by_hand())
}

fn sealed(dir: &Path) -> Vec<Segment> {
    let history = open(dir, &[]).unwrap();
    history.append((0..100).map(|s| value(1, "pm25", s, s, s)).collect());
    history.seal().unwrap()
}

#[test]
fn a_segment_says_what_is_in_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let segments = sealed(dir.path());
    let [segment] = segments.as_slice() else { panic!("{segments:?}") };
    let bytes = fs::read(dir.path().join(&segment.file)).unwrap();
    assert_eq!((segment.n_rows, segment.bytes, segment.crc32c), (100, bytes.len() as u64, crc32c::crc32c(&bytes)));
    assert_eq!((segment.observed, segment.recorded), (Some((at(0), at(99))), (at(0), at(99))));
    assert_eq!(segment.file, "00000000-Station.parquet");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn a_file_that_is_not_what_the_manifest_says_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let segments = sealed(dir.path());
    let path = dir.path().join(&segments[0].file);
    check(dir.path(), Segment { bytes: 5, ..segments[0].clone() }, "the manifest says 5");
    check(dir.path(), Segment { n_rows: 7, ..segments[0].clone() }, "it has 100 rows, the manifest says 7");
    check(dir.path(), Segment { entity_type: attribute("Road"), ..segments[0].clone() }, "type `https://example.org/Station`");
    check(dir.path(), Segment { file: "00000009-Station.parquet".into(), ..segments[0].clone() }, "cannot read history file");
    assert!(path.exists(), "what was refused is not deleted");

    let mut bytes = fs::read(&path).unwrap();
    let whole = bytes.clone();
    bytes[20] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let found: Vec<String> = open(dir.path(), &segments).unwrap().verify().iter().map(ToString::to_string).collect();
    assert!(found.len() == 1 && found[0].contains("is damaged: its CRC-32C is"), "{found:?}");
    bytes = whole;
    let n = bytes.len();
    bytes[n - 2] ^= 1;
    fs::write(&path, &bytes).unwrap();
    check(dir.path(), segments[0].clone(), "is damaged");

    #[track_caller]
    fn check(dir: &Path, segment: Segment, want: &str) {
        let error = ColumnarHistory::open(dir, vec![segment]).err().expect("it is refused").to_string();
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn a_file_of_a_newer_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let segments = sealed(dir.path());
    let path = dir.path().join(&segments[0].file);
    // The value follows its key in the footer: thrift writes its length (1) between them.
    let mut bytes = fs::read(&path).unwrap();
    let key = write::VERSION_KEY.as_bytes();
    let value_idx = bytes.windows(key.len()).rposition(|w| w == key).unwrap() + key.len() + 2;
    assert_eq!(bytes[value_idx..][..1], *write::FORMAT_VERSION.to_string().as_bytes());
    bytes[value_idx] += 1;
    fs::write(&path, &bytes).unwrap();
    let error = open(dir.path(), &segments).err().unwrap();
    assert!(matches!(error, HistoryError::TooNew { found: 5, supported: 4, .. }), "{error}");
}

#[test]
fn leftovers_of_an_interrupted_seal_are_deleted_strangers_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let segments = sealed(dir.path());
    for name in ["00000001-Station.parquet", "00000002-Road.parquet.tmp", "notes.txt"] {
        File::create(dir.path().join(name)).unwrap().write_all(b"x").unwrap();
    }
    let history = open(dir.path(), &segments).unwrap();
    let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["00000000-Station.parquet", "notes.txt"]);
    history.append(vec![value(1, "pm25", 200, 200, 1)]);
    assert_eq!(history.seal().unwrap()[1].file, "00000001-Station.parquet");
    assert_eq!(history.seal().unwrap().len(), 2, "nothing recent, nothing written");
}

#[test]
fn a_seal_that_fails_loses_nothing() {
    let disk = SimDisk::new(1, 100);
    let blobs = DiskBlobs::open(Arc::new(disk.clone()), Path::new("/history")).unwrap();
    let history = ColumnarHistory::open_on(Arc::new(blobs), Vec::new(), by_hand()).unwrap();
    history.append(vec![value(1, "pm25", 1, 1, 1), value(1, "pm25", 2, 2, 2)]);
    let error = history.seal().unwrap_err();
    assert!(matches!(error, HistoryError::Io { action: "write", .. }), "{error}");
    assert_eq!(history.n_recent(), 2);
    history.append(vec![value(1, "pm25", 3, 3, 3)]);
    assert_eq!(observed(&history.evolution(&query(1)).unwrap().unwrap()), [1, 2, 3]);
    disk.set_capacity(1 << 20);
    assert_eq!(history.seal().unwrap()[0].n_rows, 3);
    assert_eq!(history.n_recent(), 0);
    assert_eq!(observed(&history.evolution(&query(1)).unwrap().unwrap()), [1, 2, 3]);
}

/// 10 entities of 20,000 rows each: four row groups.
fn large(dir: &Path) -> ColumnarHistory {
    let history = open(dir, &[]).unwrap();
    for entity in 0..10 {
        history.append((0..20_000).map(|s| value(entity, "pm25", s, s, s % 500)).collect());
    }
    history.seal().unwrap();
    history
}

#[test]
fn one_entity_of_a_large_file_needs_few_pages() {
    let dir = tempfile::tempdir().unwrap();
    let history = large(dir.path());
    let segment = Arc::clone(&history.inner.read().segments[0]);
    assert_eq!(segment.metadata().unwrap().metadata().num_row_groups(), 4);
    let entity = |i| Wanted { entities: Some(Arc::new(BTreeSet::from([station(i)]))), ..Wanted::default() };

    check(&segment, &entity(0), &[0], 20_000);
    check(&segment, &entity(3), &[0, 1], 20_000);
    check(&segment, &Wanted { observed: Some(at(100)..at(200)), ..entity(0) }, &[0], 100);
    check(&segment, &Wanted { recorded_to: Some(at(99)), ..entity(5) }, &[1], 100);
    check(&segment, &Wanted { observed: Some(at(20_000)..at(30_000)), ..entity(5) }, &[], 0);
    check(&segment, &entity(11), &[], 0);

    /// Pages hold 4,096 rows, so at most so many more are looked at at either end.
    #[track_caller]
    fn check(segment: &Arc<OpenSegment>, wanted: &Wanted, want_units: &[usize], want_rows: usize) {
        let units: Vec<usize> = segment.units(wanted).unwrap().iter().map(|u| u.row_group_idx).collect();
        assert_eq!(units, want_units);
        if units.is_empty() {
            return;
        }
        let metadata = segment.metadata().unwrap();
        let selected = |unit: &usize| OpenSegment::selected(&metadata, *unit, wanted).unwrap();
        let n_selected: usize = units.iter().flat_map(selected).map(|rows| rows.len()).sum();
        assert!((want_rows..=want_rows + 2 * 4_096).contains(&n_selected), "{n_selected} rows selected for {want_rows}");
        let mut n_rows = 0;
        let none = BTreeSet::new();
        segment
            .read(units, wanted, Attributes::Some(&none), |batch| {
                n_rows += batch.num_rows();
                Ok(())
            })
            .unwrap();
        assert_eq!(n_rows, want_rows);
    }
}

#[test]
fn a_cut_answer_over_many_row_groups_and_segments_is_the_right_one() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(dir.path(), &[]).unwrap();
    let n = 150_000;
    history.append((0..n).map(|s| value(1, "pm25", s, s, 0)).collect());
    history.seal().unwrap();
    // Late values and corrections in a second file, and one in memory.
    history.append((0..n).step_by(10_000).map(|s| value(1, "pm25", s, n + s, 1)).collect());
    history.append(vec![value(1, "no2", 70_000, n, 1)]);
    history.seal().unwrap();
    history.append(vec![value(1, "pm25", 5, 2 * n, 2)]);
    let first = history.evolution(&TemporalQuery { instances_max: 10, ..query(1) }).unwrap().unwrap();
    assert_eq!((observed(&first), first.cut_at), ((0..10).collect(), Some(at(9))));
    let numbers: Vec<_> = first.attributes[&attribute("pm25")].iter().map(|i| crate::history::value::plain_of(&i.value)).collect();
    assert_eq!(numbers, [1, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
    let last = TemporalQuery { last_n: Some(3), attributes: Some(vec![attribute("pm25")]), ..query(1) };
    assert_eq!(observed(&history.evolution(&last).unwrap().unwrap()), [n - 1, n - 2, n - 3]);
    // Of the other attribute there is but one, far back.
    let both = TemporalQuery { last_n: Some(2), ..query(1) };
    assert_eq!(observed(&history.evolution(&both).unwrap().unwrap()), [70_000, n - 1, n - 2]);
    let cut = TemporalQuery { last_n: Some(100), instances_max: 4, ..query(1) };
    assert_eq!(history.evolution(&cut).unwrap().unwrap().cut_at, Some(at(n - 4)));
    assert_eq!(observed(&history.evolution(&query(1)).unwrap().unwrap()).len(), usize::try_from(n).unwrap() + 1);
}

#[test]
fn columns_are_encoded_as_their_values_want() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(dir.path(), &[]).unwrap();
    let facts = |s: i64| [value(1, "few", s, s, s % 100), value(1, "many", s, s, 1.0 / (s as f64 + 1.5))];
    history.append((0..10_000).flat_map(facts).collect());
    history.seal().unwrap();
    let segment = Arc::clone(&history.inner.read().segments[0]);
    check(&segment, "observed_at", Encoding::DELTA_BINARY_PACKED);
    check(&segment, "recorded_at", Encoding::DELTA_BINARY_PACKED);
    check(&segment, "entity_id", Encoding::RLE_DICTIONARY);
    check(&segment, "https://example.org/few", Encoding::RLE_DICTIONARY);
    check(&segment, "https://example.org/many", Encoding::BYTE_STREAM_SPLIT);

    #[track_caller]
    fn check(segment: &OpenSegment, column: &str, want: Encoding) {
        let metadata = segment.metadata().unwrap();
        let columns = metadata.metadata().row_group(0).columns();
        let found = columns.iter().find(|c| c.column_path().string() == column).expect("the column is there");
        assert!(found.encodings().any(|e| e == want), "{column}: {:?}", found.encodings().collect::<Vec<_>>());
    }
}

#[test]
fn deletions_are_rows() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(dir.path(), &[]).unwrap();
    let deleted = |what| Fact { what, ..value(1, "pm25", 1, 5, 1) };
    let dataset_id = Some(Iri::known("urn:dataset:1"));
    history.append(vec![
        value(1, "pm25", 1, 5, 1),
        deleted(What::AttributeDeleted { name: attribute("pm25"), dataset_id }),
        deleted(What::AttributeDeleted { name: attribute("no2"), dataset_id: None }),
        deleted(What::EntityDeleted),
        deleted(What::EntityDeleted),
    ]);
    assert_eq!(history.n_recent(), 4);
    assert_eq!(history.seal().unwrap()[0].n_rows, 4);
    let mut rows = Vec::new();
    let segment = Arc::clone(&history.inner.read().segments[0]);
    segment
        .read(vec![0], &Wanted::default(), Attributes::All, |batch| {
            let keys = Keys::of(&batch);
            rows.extend((0..batch.num_rows()).map(|r| (keys.dataset.get(r).map(str::to_owned), keys.deleted.get(r).map(str::to_owned))));
            Ok(())
        })
        .unwrap();
    let row = |dataset: Option<&str>, deleted: Option<&str>| (dataset.map(str::to_owned), deleted.map(str::to_owned));
    let want = [
        row(None, Some("*")),
        row(None, Some("https://example.org/no2")),
        row(Some("urn:dataset:1"), Some("https://example.org/pm25")),
        row(None, None),
    ];
    assert_eq!(rows, want);
}

#[test]
fn small_files_are_merged_and_deleted_once_the_new_list_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(dir.path(), &[]).unwrap();
    let mut segments = Vec::new();
    for s in 0..i64::try_from(merge::RUN_MIN).unwrap() {
        history.append(vec![value(1, "pm25", s, s, s), Fact { entity_type: attribute("Road"), ..value(2, "speed", s, s, 1.5) }]);
        history.append(vec![Fact { what: What::EntityDeleted, ..value(1, "pm25", s, s, s) }]);
        segments = history.seal().unwrap();
        history.committed();
    }
    assert_eq!(segments.len(), 16);
    history.compact().unwrap();
    // What a list given out earlier names stays, even if that list becomes durable only now.
    history.committed();
    assert!(segments.iter().all(|s| dir.path().join(&s.file).exists()));
    let before = std::mem::replace(&mut segments, history.seal().unwrap());
    let names: Vec<_> = segments.iter().map(|s| (s.entity_type.local_name(), s.n_rows)).collect();
    assert_eq!(names, [("Road", 8), ("Station", 16)]);
    let n_files = || fs::read_dir(dir.path()).unwrap().count();
    // The durable list is the one before, and its files are there.
    assert_eq!(n_files(), before.len() + 2);
    assert!(before.iter().all(|s| dir.path().join(&s.file).exists()));
    let reader = Arc::clone(&history.inner.replaced().unnamed[0]);
    history.committed();
    assert_eq!(n_files(), 3, "one is still read");
    drop(reader);
    assert_eq!(n_files(), 2);
    for history in [&history, &open(dir.path(), &segments).unwrap()] {
        assert_eq!(observed(&history.evolution(&query(1)).unwrap().unwrap()), (0..8).collect::<Vec<_>>());
        assert!(history.verify().is_empty());
        assert_eq!(history.seal().unwrap(), segments);
    }
}

#[test]
fn readers_see_each_fact_once_while_others_append_seal_and_compact() {
    const N: i64 = 3_000;
    let dir = tempfile::tempdir().unwrap();
    let history = ColumnarHistory::open(dir.path(), Vec::new()).unwrap();
    let (written, n_seals, done) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for s in 0..N {
                history.append(vec![value(1, "pm25", s, s, s)]);
                let n = usize::try_from(s).unwrap() + 1;
                written.store(n, Ordering::SeqCst);
                // Some seals fall among the appends, however slow the disk.
                while n_seals.load(Ordering::SeqCst) < n / 500 {
                    std::thread::yield_now();
                }
            }
            done.store(true, Ordering::SeqCst);
        });
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                history.seal().unwrap();
                history.committed();
                n_seals.fetch_add(1, Ordering::SeqCst);
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let table = HistoryScan {
                    entity_type: attribute("Station"),
                    attributes: vec![attribute("pm25")],
                    entities: None,
                    observed: None,
                    as_of: None,
                };
                while !done.load(Ordering::SeqCst) {
                    let n_before = written.load(Ordering::SeqCst);
                    let seen = history.evolution(&query(1)).unwrap().map(|e| observed(&e)).unwrap_or_default();
                    assert!(
                        seen.len() >= n_before && seen.iter().copied().eq(0..i64::try_from(seen.len()).unwrap()),
                        "{n_before} {seen:?}"
                    );
                    let n_scanned: usize = history.scan(&table).unwrap().iter().map(RecordBatch::num_rows).sum();
                    assert!((seen.len()..=usize::try_from(N).unwrap()).contains(&n_scanned), "{n_scanned} after {}", seen.len());
                }
            });
        }
    });
    let segments = history.seal().unwrap();
    assert_eq!(segments.iter().map(|s| s.n_rows).sum::<u64>(), u64::try_from(N).unwrap());
    assert_eq!(observed(&open(dir.path(), &segments).unwrap().evolution(&query(1)).unwrap().unwrap()), (0..N).collect::<Vec<_>>());
}
