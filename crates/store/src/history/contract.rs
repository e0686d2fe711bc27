//! What every engine must do, run over all of them: the model, and columns with everything recent, everything sealed, and mixtures.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Float64Type, Schema, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use entity::{Attribute, AttributeValue, Geometry, Instant, Iri};
use host::RealDisk;
use proptest::prelude::*;
use serde_json::json;

use super::columnar::{ColumnarHistory, ColumnarOptions};
use super::memory::MemoryHistory;
use super::{
    About, AttributeColumn, BulkRows, ColumnKind, Deletion, ErasedInstances, ErasedTimes, Erasure, Evolution, Fact, History, HistoryError,
    HistoryScan, HistoryTable, Marked, Segment, TemporalQuery, TimeProperty, What, entity_as_of,
};
use crate::blobs::DiskBlobs;

type Make<'a> = &'a dyn Fn() -> Box<dyn History>;

/// Runs a claim over every engine.
fn on_every_engine(claim: &dyn Fn(Make<'_>)) {
    claim(&|| Box::<MemoryHistory>::default());
    for seal in [Seal::Never, Seal::Every(1), Seal::Every(2), Seal::Every(3), Seal::AndReopen] {
        claim(&|| Box::new(Driven::new(seal)));
    }
}

#[derive(Clone, Copy, Debug)]
enum Seal {
    Never,
    /// After so many appends.
    Every(usize),
    /// After every append, and the folder is opened again.
    AndReopen,
}

/// A column of bulk rows: name, unit code, values.
pub(super) type BulkColumnOf<'a> = (&'a str, &'a str, ArrayRef);

/// Bulk rows of stations: id and observed second of each row, then columns.
pub(super) fn bulk(recorded_s: i64, keys: &[(&str, i64)], columns: Vec<BulkColumnOf<'_>>) -> BulkRows {
    let ids: StringArray = keys.iter().map(|(id, _)| Some(station(id).to_string())).collect();
    let times: TimestampMicrosecondArray = keys.iter().map(|(_, s)| Some(at(*s).micros())).collect();
    let times = times.with_timezone("UTC");
    let mut fields =
        vec![Field::new("entity_id", ids.data_type().clone(), false), Field::new("observed_at", times.data_type().clone(), false)];
    let mut arrays: Vec<ArrayRef> = vec![Arc::new(ids), Arc::new(times)];
    for (n, unit, array) in columns {
        let metadata: HashMap<String, String> = [("unit_code".to_owned(), unit.to_owned())].into_iter().collect();
        fields.push(Field::new(name(n).as_str(), array.data_type().clone(), true).with_metadata(metadata));
        arrays.push(array);
    }
    BulkRows::new(name("Station"), at(recorded_s), RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()).unwrap()
}

pub(super) fn numbers(values: &[Option<f64>]) -> ArrayRef {
    Arc::new(values.iter().copied().collect::<Float64Array>())
}

/// Columns that are sealed on the way.
struct Driven {
    dir: tempfile::TempDir,
    history: Mutex<ColumnarHistory>,
    seal: Seal,
    n_appends: AtomicUsize,
}

impl Driven {
    fn new(seal: Seal) -> Self {
        // In memory where the machine offers it: hundreds of cases need no disk that syncs 300 times a second.
        let in_memory = std::path::Path::new("/dev/shm");
        let dir = if in_memory.is_dir() { tempfile::tempdir_in(in_memory) } else { tempfile::tempdir() }.unwrap();
        let history = Mutex::new(Self::open(dir.path(), Vec::new()));
        Self { dir, history, seal, n_appends: AtomicUsize::new(0) }
    }
}

impl Driven {
    /// Compaction comes when the test wants it, and each batch of bulk rows is a layer.
    fn open(dir: &std::path::Path, segments: Vec<Segment>) -> ColumnarHistory {
        let options = ColumnarOptions { compaction: false, bulk_rows_min: 1, ..ColumnarOptions::default() };
        ColumnarHistory::open_on(Arc::new(DiskBlobs::open(Arc::new(RealDisk), dir).unwrap()), segments, options).unwrap()
    }

    fn after(&self, append: impl FnOnce(&ColumnarHistory)) {
        let mut history = self.history.lock().unwrap();
        append(&history);
        let n = self.n_appends.fetch_add(1, Ordering::Relaxed) + 1;
        match self.seal {
            Seal::Never => {}
            Seal::Every(k) if !n.is_multiple_of(k) => {}
            Seal::Every(_) => {
                history.seal().unwrap();
                history.committed();
                history.compact().unwrap();
                assert_eq!(history.n_recent(), 0);
            }
            Seal::AndReopen => {
                history.compact().unwrap();
                let segments = history.seal().unwrap();
                *history = Self::open(self.dir.path(), segments);
                assert!(history.verify().is_empty());
            }
        }
    }
}

impl History for Driven {
    fn append(&self, facts: Vec<Fact>) {
        self.after(|history| history.append(facts));
    }

    fn append_rows(&self, rows: BulkRows) {
        self.after(|history| history.append_rows(rows));
    }

    fn check_erasure(&self, erasure: &Erasure) -> Result<(), HistoryError> {
        self.history.lock().unwrap().check_erasure(erasure)
    }

    fn erase(&self, erasure: Erasure) -> Result<(), HistoryError> {
        self.after(|history| history.erase(erasure).unwrap());
        Ok(())
    }

    fn purge(&self) -> Result<Vec<Segment>, HistoryError> {
        let history = self.history.lock().unwrap();
        let segments = history.purge()?;
        history.committed();
        Ok(segments)
    }

    fn visit_marks(&self, of: Marked<'_>, as_of: Option<Instant>, visit: &mut dyn FnMut(Fact)) -> Result<(), HistoryError> {
        self.history.lock().unwrap().visit_marks(of, as_of, visit)
    }

    fn n_recent(&self) -> usize {
        self.history.lock().unwrap().n_recent()
    }

    fn seal(&self) -> Result<Vec<Segment>, HistoryError> {
        self.history.lock().unwrap().seal()
    }

    fn evolution(&self, query: &TemporalQuery) -> Result<Option<Evolution>, HistoryError> {
        self.history.lock().unwrap().evolution(query)
    }

    fn tables(&self) -> Vec<HistoryTable> {
        self.history.lock().unwrap().tables()
    }

    fn scan(&self, scan: &HistoryScan) -> Result<Vec<RecordBatch>, HistoryError> {
        self.history.lock().unwrap().scan(scan)
    }
}

fn at(s: i64) -> Instant {
    Instant::from_secs(s)
}

fn name(short: &str) -> Iri {
    Iri::known(&format!("https://example.org/{short}"))
}

fn station(short: &str) -> Iri {
    Iri::known(&format!("urn:ngsi-ld:Station:{short}"))
}

fn fact(entity: &str, recorded_s: i64, what: What) -> Fact {
    Fact { entity_type: name("Station"), entity: station(entity), recorded_at: at(recorded_s), what }
}

/// A value of `attribute`, observed and recorded at these seconds.
fn value(entity: &str, attribute: &str, observed_s: impl Into<Option<i64>>, recorded_s: i64, v: impl Into<serde_json::Value>) -> Fact {
    let recorded_at = at(recorded_s);
    let instance =
        Attribute { observed_at: observed_s.into().map(at), created_at: recorded_at, modified_at: recorded_at, ..Attribute::property(v) };
    fact(entity, recorded_s, What::Value { name: name(attribute), instance: instance.into() })
}

fn with(mut fact: Fact, change: impl FnOnce(&mut Attribute)) -> Fact {
    if let What::Value { instance, .. } = &mut fact.what {
        change(Arc::make_mut(instance));
    }
    fact
}

fn all_of(entity: &str) -> TemporalQuery {
    TemporalQuery::of(station(entity))
}

fn table_of(attributes: &[&str]) -> HistoryScan {
    HistoryScan {
        entity_type: name("Station"),
        attributes: attributes.iter().map(|a| name(a)).collect(),
        entities: None,
        observed: None,
        as_of: None,
    }
}

/// Attribute, observed second or none, recorded second, plain value.
type Seen = (String, Option<i64>, i64, serde_json::Value);

fn seen(evolution: Option<Evolution>) -> Vec<Seen> {
    let evolution = evolution.expect("the entity has a past");
    let all = evolution.attributes.iter().flat_map(|(n, instances)| instances.iter().map(move |i| (n, i)));
    let secs = |at: Instant| at.micros() / 1_000_000;
    all.map(|(n, i)| (n.local_name().to_owned(), i.observed_at.map(secs), secs(i.modified_at), super::value::plain_of(&i.value))).collect()
}

#[track_caller]
fn check(history: &dyn History, query: &TemporalQuery, want: &[(&str, Option<i64>, i64, serde_json::Value)]) {
    let want: Vec<Seen> = want.iter().map(|(n, o, r, v)| ((*n).to_owned(), *o, *r, v.clone())).collect();
    assert_eq!(seen(history.evolution(query).unwrap()), want);
}

/// Rows of a scan as text: entity, dataset, observed and recorded second, then the attributes.
fn rows(batches: &[RecordBatch]) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|c| cell_text(c, row));
            lines.push(cells.collect::<Vec<_>>().join(" "));
        }
    }
    lines
}

fn cell_text(column: &dyn Array, row: usize) -> String {
    if column.is_null(row) {
        return "-".to_owned();
    }
    if let Some(a) = column.as_string_opt::<i32>() {
        return a.value(row).rsplit(':').next().unwrap_or_default().to_owned();
    }
    if let Some(a) = column.as_primitive_opt::<Float64Type>() {
        return a.value(row).to_string();
    }
    if let Some(a) = column.as_primitive_opt::<TimestampMicrosecondType>() {
        return (a.value(row) / 1_000_000).to_string();
    }
    column.as_boolean().value(row).to_string()
}

#[test]
fn what_is_recorded_is_read_back_whole() {
    on_every_engine(&|make| {
        let history = make();
        let sub = Attribute { created_at: at(3), modified_at: at(3), ..Attribute::property(0.9) };
        let full = with(value("a", "pm25", 2, 3, 42), |i| {
            i.unit_code = Some("GQ".into());
            i.created_at = at(1);
            i.dataset_id = Some(Iri::known("urn:dataset:1"));
            i.sub_attributes.insert(name("confidence"), sub.into());
            i.qualifiers = Some(Box::default());
        });
        let place = with(value("a", "location", None, 3, "x"), |i| i.value = AttributeValue::Geo(Geometry::point(116.4, 39.9)));
        history.append(vec![full.clone(), place.clone()]);
        let evolution = history.evolution(&all_of("a")).unwrap().unwrap();
        let (What::Value { instance: full, .. }, What::Value { instance: place, .. }) = (full.what, place.what) else { unreachable!() };
        assert_eq!(evolution.attributes[&name("pm25")], [Arc::unwrap_or_clone(full)]);
        assert_eq!(evolution.attributes[&name("location")], [Arc::unwrap_or_clone(place)]);
        assert_eq!((evolution.id, evolution.entity_type, evolution.cut_at), (station("a"), name("Station"), None));
    });
}

#[test]
fn instances_come_in_the_order_in_which_they_were_observed() {
    on_every_engine(&|make| {
        let history = make();
        history.append(vec![value("a", "no2", 20, 20, 2.5), value("a", "pm25", 20, 20, 2)]);
        history.append(vec![value("a", "pm25", 30, 30, 3)]);
        history.append(vec![value("a", "pm25", 10, 31, 1), value("b", "pm25", 10, 31, 9)]);
        let want = [
            ("no2", Some(20), 20, json!(2.5)),
            ("pm25", Some(10), 31, json!(1)),
            ("pm25", Some(20), 20, json!(2)),
            ("pm25", Some(30), 30, json!(3)),
        ];
        check(&*history, &all_of("a"), &want);
        let only = TemporalQuery { attributes: Some(vec![name("no2"), name("absent")]), ..all_of("a") };
        check(&*history, &only, &want[..1]);
        // Half-open.
        let interval = TemporalQuery { interval: Some(at(10)..at(30)), ..all_of("a") };
        check(&*history, &interval, &want[..3]);
        let last = TemporalQuery { last_n: Some(2), ..all_of("a") };
        check(&*history, &last, &[want[0].clone(), want[3].clone(), want[2].clone()]);
    });
}

#[test]
fn a_correction_counts_unless_the_past_is_asked_as_it_was_known() {
    on_every_engine(&|make| {
        let history = make();
        history.append(vec![value("a", "pm25", 10, 10, 1)]);
        history.append(vec![value("a", "pm25", 10, 20, 2)]);
        history.append(vec![value("a", "pm25", 10, 15, 3)]);
        check(&*history, &all_of("a"), &[("pm25", Some(10), 20, json!(2))]);
        for (as_of, recorded, v) in [(19, 15, 3), (15, 15, 3), (14, 10, 1), (10, 10, 1)] {
            check(&*history, &TemporalQuery { as_of: Some(at(as_of)), ..all_of("a") }, &[("pm25", Some(10), recorded, json!(v))]);
        }
        let before = TemporalQuery { as_of: Some(at(9)), ..all_of("a") };
        assert_eq!(history.evolution(&before).unwrap(), None);
        assert_eq!(rows(&history.scan(&table_of(&["pm25"])).unwrap()), ["a - 10 20 2"]);
        let then = HistoryScan { as_of: Some(at(15)), ..table_of(&["pm25"]) };
        assert_eq!(rows(&history.scan(&then).unwrap()), ["a - 10 15 3"]);
    });
}

#[test]
fn a_fact_that_is_replayed_counts_once() {
    on_every_engine(&|make| {
        let history = make();
        for _ in 0..3 {
            history.append(vec![value("a", "pm25", 10, 10, 1), value("a", "name", None, 10, "A"), fact("a", 11, What::EntityDeleted)]);
        }
        check(&*history, &all_of("a"), &[("name", None, 10, json!("A")), ("pm25", Some(10), 10, json!(1))]);
        assert_eq!(rows(&history.scan(&table_of(&["pm25", "name"])).unwrap()), ["a - - 10 - A", "a - 10 10 1 -"]);
    });
}

#[test]
fn values_without_observed_time_are_kept_by_recorded_time() {
    on_every_engine(&|make| {
        let history = make();
        history.append(vec![value("a", "name", None, 10, "old")]);
        history.append(vec![value("a", "name", None, 20, "new"), value("a", "pm25", 5, 20, 1)]);
        let both = [("name", None, 10, json!("old")), ("name", None, 20, json!("new"))];
        check(&*history, &TemporalQuery { attributes: Some(vec![name("name")]), ..all_of("a") }, &both);
        let observed = TemporalQuery { interval: Some(Instant::MIN..Instant::MAX), ..all_of("a") };
        check(&*history, &observed, &[("pm25", Some(5), 20, json!(1))]);
        for time_property in [TimeProperty::ModifiedAt, TimeProperty::CreatedAt] {
            let recorded = TemporalQuery { interval: Some(at(20)..at(21)), time_property, ..all_of("a") };
            check(&*history, &recorded, &[("name", None, 20, json!("new")), ("pm25", Some(5), 20, json!(1))]);
        }
        assert_eq!(rows(&history.scan(&table_of(&["name", "pm25"])).unwrap()), ["a - - 10 old -", "a - - 20 new -", "a - 5 20 - 1"]);
    });
}

#[test]
fn created_at_is_the_time_of_the_instance() {
    on_every_engine(&|make| {
        let history = make();
        history.append(vec![with(value("a", "pm25", 9, 10, 1), |i| i.created_at = at(3)), value("a", "pm25", 10, 11, 2)]);
        let query = TemporalQuery { interval: Some(at(0)..at(10)), time_property: TimeProperty::CreatedAt, ..all_of("a") };
        check(&*history, &query, &[("pm25", Some(9), 10, json!(1))]);
    });
}

#[test]
fn a_correction_outside_the_interval_hides_what_it_corrects() {
    on_every_engine(&|make| {
        let history = make();
        history.append(vec![value("a", "pm25", 1, 10, 1), value("a", "pm25", 2, 10, 1)]);
        history.append(vec![value("a", "pm25", 1, 20, 2)]);
        let query = TemporalQuery { interval: Some(at(5)..at(15)), time_property: TimeProperty::ModifiedAt, ..all_of("a") };
        check(&*history, &query, &[("pm25", Some(2), 10, json!(1))]);
    });
}

#[test]
fn deletions_end_nothing_in_the_past() {
    on_every_engine(&|make| {
        let history = make();
        let dataset_id = Some(Iri::known("urn:dataset:1"));
        history.append(vec![value("a", "pm25", 10, 10, 1)]);
        history.append(vec![fact("a", 11, What::AttributeDeleted { name: name("pm25"), dataset_id: None })]);
        history.append(vec![fact("a", 12, What::AttributeDeleted { name: name("pm25"), dataset_id }), fact("a", 12, What::EntityDeleted)]);
        check(&*history, &all_of("a"), &[("pm25", Some(10), 10, json!(1))]);
        assert_eq!(rows(&history.scan(&table_of(&[])).unwrap()), ["a - 10 10"]);
        // An entity of which nothing but its end is known has a past too, an empty one.
        history.append(vec![fact("b", 12, What::EntityDeleted)]);
        check(&*history, &all_of("b"), &[]);
    });
}

#[test]
fn deletions_are_told_when_they_are_asked_for() {
    on_every_engine(&|make| {
        let history = make();
        let dataset_id = Some(Iri::known("urn:dataset:1"));
        history.append(vec![value("a", "pm25", 10, 10, 1), fact("b", 11, What::EntityDeleted)]);
        history.append(vec![fact("a", 11, What::AttributeDeleted { name: name("pm25"), dataset_id: dataset_id.clone() })]);
        history.append(vec![fact("a", 12, What::EntityDeleted), fact("a", 12, What::EntityDeleted)]);
        let deletion = |s, attribute: Option<&str>, dataset_id| Deletion {
            deleted_at: at(s),
            attribute: attribute.map(name),
            dataset_id,
            entity_type: name("Station"),
        };
        let want = [deletion(11, Some("pm25"), dataset_id), deletion(12, None, None)];
        assert_eq!(history.deletions(&station("a"), None).unwrap(), want);
        assert_eq!(history.deletions(&station("a"), Some(at(11))).unwrap(), want[..1]);
        assert_eq!(history.deletions(&station("a"), Some(at(10))).unwrap(), []);
        assert_eq!(history.deletions(&station("z"), None).unwrap(), []);
    });
}

#[test]
fn what_an_entity_became_is_found_in_the_table_of_each_of_its_types() {
    on_every_engine(&|make| {
        let history = make();
        let about = |types: &[&str], scope: &str, created_s| About {
            types: types.iter().map(|t| name(t)).collect(),
            scopes: vec![scope.parse().unwrap()],
            created_at: at(created_s),
            expires_at: None,
        };
        let became = |s, about: &About| -> Vec<Fact> {
            about.types.iter().map(|t| Fact { entity_type: t.clone(), ..fact("a", s, What::Became(about.clone())) }).collect()
        };
        let (first, second) = (about(&["Station", "Asset"], "/north", 1), about(&["Mast"], "/south", 1));
        history.append(vec![value("a", "pm25", 1, 1, 1)]);
        history.append(became(1, &first));
        history.append([became(5, &second), vec![Fact { entity_type: name("Mast"), ..value("a", "pm25", 5, 5, 2) }]].concat());
        history.append(vec![value("b", "pm25", 6, 6, 1)]);
        let abouts = |of: Marked<'_>, as_of| {
            let mut found = Vec::new();
            history.visit_marks(of, as_of, &mut |fact| found.push((fact.recorded_at, fact.entity_type, fact.what))).unwrap();
            found.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
            found.dedup();
            found
        };
        let at_first = [(at(1), name("Asset"), What::Became(first.clone())), (at(1), name("Station"), What::Became(first.clone()))];
        assert_eq!(abouts(Marked::Entity(&station("a")), Some(at(4))), at_first);
        assert_eq!(abouts(Marked::Entity(&station("a")), None)[2..], [(at(5), name("Mast"), What::Became(second.clone()))]);
        assert_eq!(abouts(Marked::Type(&name("Asset")), None), at_first[..1]);
        assert_eq!(history.entity_ids(&name("Asset"), None, 9).unwrap(), [station("a")]);
        assert_eq!(history.entity_ids(&name("Asset"), Some(at(0)), 9).unwrap(), []);
        assert_eq!(history.entity_ids(&name("Station"), None, 9).unwrap(), [station("a"), station("b")]);
        // A further type is not the one of the values; and marks are no rows.
        let then = history.evolution(&TemporalQuery { as_of: Some(at(4)), ..all_of("a") }).unwrap().unwrap();
        assert_eq!(then.entity_type, name("Station"));
        assert_eq!(history.scan(&HistoryScan { entity_type: name("Asset"), ..table_of(&[]) }).unwrap(), []);
        assert_eq!(history.deletions(&station("a"), None).unwrap(), []);
        let as_of = |s| entity_as_of(&*history, &station("a"), at(s), None).unwrap().unwrap();
        assert_eq!((as_of(4).types, as_of(4).scopes, as_of(4).created_at), (first.types, first.scopes, at(1)));
        assert_eq!((as_of(5).types, as_of(5).scopes, as_of(5).modified_at), (second.types, second.scopes, at(5)));
        // All that is known of it in one table is erased, in another one not.
        history.erase(Erasure::of_entity(name("Asset"), station("a"), at(7))).unwrap();
        assert_eq!(history.entity_ids(&name("Asset"), None, 9).unwrap(), []);
        assert_eq!(history.entity_ids(&name("Asset"), Some(at(6)), 9).unwrap(), [station("a")]);
        assert_eq!(abouts(Marked::Entity(&station("a")), None).len(), 2);
    });
}

#[test]
fn what_is_erased_is_seen_only_as_of_earlier_and_what_comes_later_stays() {
    on_every_engine(&|make| {
        let history = make();
        for s in 1..=4 {
            history.append(vec![value("a", "pm25", s, s, s), value("a", "no2", s, s, s), value("b", "pm25", s, s, s)]);
        }
        let erasure = |attribute: Option<&str>, times| Erasure {
            attribute: attribute.map(name),
            times,
            ..Erasure::of_entity(name("Station"), station("a"), at(10))
        };
        // One instance.
        history.erase(erasure(Some("pm25"), ErasedTimes::Observed(at(2)..at(3)))).unwrap();
        let table = |as_of: Option<i64>| rows(&history.scan(&HistoryScan { as_of: as_of.map(at), ..table_of(&["pm25"]) }).unwrap());
        let all = ["a - 1 1 1", "a - 2 2 2", "a - 3 3 3", "a - 4 4 4", "b - 1 1 1", "b - 2 2 2", "b - 3 3 3", "b - 4 4 4"];
        // Its row is there because of the other attribute.
        let one_less = ["a - 1 1 1", "a - 2 2 -", "a - 3 3 3", "a - 4 4 4", "b - 1 1 1", "b - 2 2 2", "b - 3 3 3", "b - 4 4 4"];
        assert_eq!(table(None), one_less);
        assert_eq!(table(Some(9)), all);
        // It is put again.
        history.append(vec![value("a", "pm25", 2, 11, 22)]);
        let pm25 = TemporalQuery { attributes: Some(vec![name("pm25")]), ..all_of("a") };
        let want =
            |v, recorded| [1, 2, 3, 4].map(|s| ("pm25", Some(s), if s == 2 { recorded } else { s }, json!(if s == 2 { v } else { s })));
        check(&*history, &pm25, &want(22, 11));
        check(&*history, &TemporalQuery { as_of: Some(at(9)), ..pm25 }, &want(2, 2));
        // A stretch of all, then everything of one.
        history.erase(Erasure { entity: None, recorded_at: at(12), ..erasure(None, ErasedTimes::Observed(at(1)..at(3))) }).unwrap();
        assert_eq!(table(None), ["a - 3 3 3", "a - 4 4 4", "b - 3 3 3", "b - 4 4 4"]);
        history.erase(Erasure { recorded_at: at(13), ..erasure(None, ErasedTimes::All) }).unwrap();
        assert_eq!(table(None), ["b - 3 3 3", "b - 4 4 4"]);
        assert_eq!(history.evolution(&all_of("a")).unwrap(), None);
        assert_eq!(table(Some(9)), all);
        history.purge().unwrap();
        assert_eq!(table(None), ["b - 3 3 3", "b - 4 4 4"]);
        assert_eq!(table(Some(9)), ["b - 3 3 3", "b - 4 4 4"]);
        assert_eq!(history.evolution(&TemporalQuery { as_of: Some(at(9)), ..all_of("a") }).unwrap(), None);
    });
}

#[test]
fn an_entity_outside_the_interval_is_empty_an_unknown_one_is_none() {
    on_every_engine(&|make| {
        let history = make();
        history.append(vec![value("a", "pm25", 10, 10, 1), value("c", "pm25", 10, 10, 1)]);
        for time_property in [TimeProperty::ObservedAt, TimeProperty::ModifiedAt, TimeProperty::CreatedAt] {
            let outside = TemporalQuery { interval: Some(at(50)..at(60)), time_property, ..all_of("a") };
            check(&*history, &outside, &[]);
            let unknown = TemporalQuery { entity: station("b"), ..outside };
            assert_eq!(history.evolution(&unknown).unwrap(), None);
        }
        assert_eq!(history.evolution(&all_of("b")).unwrap(), None);
    });
}

#[test]
fn the_type_is_the_one_recorded_last_even_outside_the_interval() {
    on_every_engine(&|make| {
        let history = make();
        history.append(vec![value("a", "pm25", 10, 10, 1)]);
        history.append(vec![Fact { entity_type: name("Mast"), ..value("a", "pm25", 20, 20, 2) }]);
        history.append(vec![Fact { entity_type: name("Zone"), ..value("b", "pm25", 20, 20, 2) }]);
        let query = TemporalQuery { interval: Some(at(0)..at(15)), ..all_of("a") };
        let evolution = history.evolution(&query).unwrap().unwrap();
        assert_eq!(evolution.entity_type, name("Mast"));
        check(&*history, &query, &[("pm25", Some(10), 10, json!(1))]);
        let then = TemporalQuery { as_of: Some(at(15)), ..all_of("a") };
        assert_eq!(history.evolution(&then).unwrap().unwrap().entity_type, name("Station"));
    });
}

#[test]
fn a_long_answer_is_cut_at_one_instant_for_all_attributes() {
    on_every_engine(&|make| {
        let history = make();
        for s in 1..=4 {
            history.append(vec![value("a", "pm25", s, s, s), value("a", "no2", s, s, s)]);
        }
        let observed = |instances_max, last_n| {
            let query = TemporalQuery { instances_max, last_n, ..all_of("a") };
            let evolution = history.evolution(&query).unwrap().unwrap();
            let cut_s = evolution.cut_at.map(|c| c.micros() / 1_000_000);
            let mut times: Vec<i64> =
                evolution.attributes.values().flatten().map(|i| i.observed_at.unwrap().micros() / 1_000_000).collect();
            times.sort_unstable();
            (times, cut_s)
        };
        assert_eq!(observed(8, None), (vec![1, 1, 2, 2, 3, 3, 4, 4], None));
        assert_eq!(observed(7, None), (vec![1, 1, 2, 2, 3, 3], Some(3)));
        assert_eq!(observed(4, None), (vec![1, 1, 2, 2], Some(2)));
        assert_eq!(observed(3, None), (vec![1, 1], Some(1)));
        // Never empty: the first instant is returned whole.
        assert_eq!(observed(1, None), (vec![1, 1], Some(1)));
        assert_eq!(observed(0, None), (vec![1, 1], Some(1)));
        assert_eq!(observed(5, Some(3)), (vec![3, 3, 4, 4], Some(3)));
        assert_eq!(observed(6, Some(3)), (vec![2, 2, 3, 3, 4, 4], None));
        assert_eq!(observed(1, Some(1)), (vec![4, 4], None));
    });
}

#[test]
fn columns_have_the_narrowest_kind_that_fits_all_values() {
    on_every_engine(&|make| {
        let history = make();
        let kind = |attribute: &str, v: AttributeValue| with(value("a", attribute, 1, 1, 0), |i| i.value = v);
        let urn = || Iri::known("urn:ngsi-ld:Road:1");
        let unit = |f: Fact, unit: &str| with(f, |i| i.unit_code = Some(unit.into()));
        history.append(vec![
            unit(value("a", "number", 1, 1, 1), "GQ"),
            unit(value("a", "units", 1, 1, 1), "GQ"),
            value("a", "bool", 1, 1, true),
            value("a", "text", 1, 1, "t"),
            value("a", "mixed", 1, 1, 1.5),
            kind("road", AttributeValue::Relationship(vec![urn()])),
            kind("roads", AttributeValue::Relationship(vec![urn(), urn()])),
            kind("place", AttributeValue::Geo(Geometry::point(1.0, 2.0))),
            kind("term", AttributeValue::Vocab(vec![urn()])),
        ]);
        history.append(vec![
            unit(value("b", "number", 2, 2, u64::MAX), "GQ"),
            unit(value("b", "units", 2, 2, 2), "CEL"),
            value("b", "mixed", 2, 2, "n/a"),
            value("b", "mixed", 3, 2, 7),
            value("b", "mixed", 4, 2, 7.0),
            with(value("b", "mixed", 5, 2, 7.0), |i| i.value = AttributeValue::Relationship(vec![urn()])),
        ]);
        let column = |n: &str, kind, unit: Option<&str>| AttributeColumn { name: name(n), kind, unit_code: unit.map(str::to_owned) };
        let want = [
            column("bool", ColumnKind::Bool, None),
            column("mixed", ColumnKind::Json, None),
            column("number", ColumnKind::Number, Some("GQ")),
            column("place", ColumnKind::Json, None),
            column("road", ColumnKind::Text, None),
            column("roads", ColumnKind::Json, None),
            column("term", ColumnKind::Text, None),
            column("text", ColumnKind::Text, None),
            column("units", ColumnKind::Number, None),
        ];
        assert_eq!(history.tables(), [HistoryTable { entity_type: name("Station"), columns: want.to_vec() }]);
        let batches = history.scan(&table_of(&["number", "mixed", "road", "roads", "place", "bool", "absent", "number"])).unwrap();
        assert_eq!(batches.len(), 1);
        let texts = |i: usize| batches[0].column(i).as_string::<i32>().iter().map(|t| t.unwrap_or("-").to_owned()).collect::<Vec<_>>();
        assert_eq!(rows(&[batches[0].project(&[4, 11]).unwrap()])[..2], ["1 1", "18446744073709552000 18446744073709552000"]);
        assert_eq!(texts(5), ["1.5", r#""n/a""#, "7", "7.0", r#""urn:ngsi-ld:Road:1""#]);
        assert_eq!(texts(6)[0], "urn:ngsi-ld:Road:1");
        assert_eq!(texts(7)[0], r#"["urn:ngsi-ld:Road:1","urn:ngsi-ld:Road:1"]"#);
        assert_eq!(texts(8)[0], r#"{"type":"Point","coordinates":[1.0,2.0]}"#);
        assert!(batches[0].column(9).as_boolean().value(0));
        assert_eq!(texts(10), ["-"; 5]);
    });
}

#[test]
fn a_scan_has_a_row_per_entity_dataset_and_observed_time_whatever_is_asked() {
    on_every_engine(&|make| {
        let history = make();
        let second = |f: Fact| with(f, |i| i.dataset_id = Some(Iri::known("urn:dataset:2")));
        history.append(vec![value("b", "pm25", 10, 10, 1), value("a", "pm25", 20, 20, 2)]);
        history.append(vec![value("a", "no2", 20, 25, 3), second(value("a", "pm25", 20, 20, 4)), value("a", "pm25", 10, 26, 5)]);
        let scan = |attributes: &[&str]| rows(&history.scan(&table_of(attributes)).unwrap());
        assert_eq!(scan(&["pm25", "no2"]), ["a - 10 26 5 -", "a - 20 25 2 3", "a 2 20 20 4 -", "b - 10 10 1 -"]);
        assert_eq!(scan(&["no2"]), ["a - 10 26 -", "a - 20 25 3", "a 2 20 20 -", "b - 10 10 -"]);
        assert_eq!(scan(&[]), ["a - 10 26", "a - 20 25", "a 2 20 20", "b - 10 10"]);
        let only = HistoryScan { entities: Some(vec![station("b"), station("z")]), ..table_of(&["pm25"]) };
        assert_eq!(rows(&history.scan(&only).unwrap()), ["b - 10 10 1"]);
        let early = HistoryScan { observed: Some(at(10)..at(20)), ..table_of(&["pm25"]) };
        assert_eq!(rows(&history.scan(&early).unwrap()), ["a - 10 26 5", "b - 10 10 1"]);
        assert!(history.scan(&HistoryScan { entity_type: name("Other"), ..table_of(&[]) }).unwrap().is_empty());
        assert!(history.scan(&HistoryScan { observed: Some(at(0)..at(1)), ..table_of(&[]) }).unwrap().is_empty());
    });
}

#[test]
fn bulk_rows_mean_the_same_as_their_facts() {
    on_every_engine(&|make| {
        let history = make();
        let keys = [("b", 10), ("a", 20), ("a", 10), ("a", 20)];
        let pm25 = numbers(&[Some(1.5), Some(2.0), None, Some(3.0)]);
        let open: ArrayRef = Arc::new([Some(true), Some(false), None, None].into_iter().collect::<BooleanArray>());
        let note: ArrayRef = Arc::new([None, None, Some("\"站\""), None].into_iter().collect::<StringArray>());
        let none = numbers(&[None; 4]);
        let rows = bulk(30, &keys, vec![("pm25", "GQ", pm25), ("open", "", open), ("note", "", note), ("none", "", none)]);
        let facts: Vec<Fact> = rows.facts().collect();
        history.append_rows(rows);
        let model = MemoryHistory::default();
        model.append(facts);
        assert_eq!(history.tables(), model.tables());
        let table = table_of(&["pm25", "open", "note", "none"]);
        assert_eq!(history.scan(&table).unwrap(), model.scan(&table).unwrap());
        assert_eq!(rows_of_bulk(&*history), ["a - 10 30 - - \"站\" -", "a - 20 30 3 false - -", "b - 10 30 1.5 true - -"]);
        for entity in ["a", "b"] {
            assert_eq!(history.evolution(&all_of(entity)).unwrap(), model.evolution(&all_of(entity)).unwrap());
        }
        // A correction of one cell, and one that comes too late to count.
        history.append(vec![value("a", "pm25", 20, 40, 4), value("b", "pm25", 10, 29, 9)]);
        history.append_rows(bulk(41, &[("b", 10)], vec![("open", "", Arc::new(BooleanArray::from(vec![false])))]));
        assert_eq!(rows_of_bulk(&*history), ["a - 10 30 - - \"站\" -", "a - 20 40 4 false - -", "b - 10 41 1.5 false - -"]);
        let then = TemporalQuery { as_of: Some(at(30)), ..all_of("a") };
        assert_eq!(history.evolution(&then).unwrap(), model.evolution(&then).unwrap());
    });

    fn rows_of_bulk(history: &dyn History) -> Vec<String> {
        rows(&history.scan(&table_of(&["pm25", "open", "note", "none"])).unwrap())
    }
}

#[test]
fn an_attribute_may_be_named_like_a_part_of_another() {
    on_every_engine(&|make| {
        let history = make();
        let names = ["x", "x#text", "x#meta", "x/text"];
        history.append(names.iter().enumerate().map(|(i, n)| value("a", n, 1, 1, i)).collect());
        history.append(names.iter().enumerate().map(|(i, n)| value("a", n, 2, 1, format!("t{i}"))).collect());
        let evolution = history.evolution(&all_of("a")).unwrap().unwrap();
        for (i, n) in names.iter().enumerate() {
            let values: Vec<_> = evolution.attributes[&name(n)].iter().map(|a| super::value::plain_of(&a.value)).collect();
            assert_eq!(values, [json!(i), json!(format!("t{i}"))], "{n}");
        }
    });
}

fn any_value() -> impl Strategy<Value = AttributeValue> {
    let road = |i: u8| Iri::known(&format!("urn:ngsi-ld:Road:{i}"));
    let json = prop_oneof![
        6 => (-5i32..20).prop_map(|i| json!(f64::from(i) / 4.0)),
        6 => (0i64..20).prop_map(|i| json!(i)),
        1 => any::<i64>().prop_map(|i| json!(i)),
        1 => any::<u64>().prop_map(|i| json!(i)),
        1 => any::<f64>().prop_filter("JSON has no infinity", |f| f.is_finite()).prop_map(|f| json!(f)),
        1 => any::<bool>().prop_map(|b| json!(b)),
        2 => "\\PC{0,4}".prop_map(|s| json!(s)),
        1 => prop::collection::vec(0u8..3, 0..3).prop_map(|v| json!({"list": v, "null": null})),
    ];
    let iris = prop::collection::vec((0u8..3).prop_map(road), 0..3);
    prop_oneof![
        12 => json.clone().prop_map(AttributeValue::Property),
        1 => json.clone().prop_map(AttributeValue::Json),
        1 => (-180.0..180.0, -90.0..90.0).prop_map(|(lon, lat)| AttributeValue::Geo(Geometry::point(lon, lat))),
        1 => iris.clone().prop_map(AttributeValue::Relationship),
        1 => iris.clone().prop_map(AttributeValue::Vocab),
        1 => iris.prop_map(AttributeValue::ListRelationship),
        1 => prop::collection::vec(json.clone(), 0..3).prop_map(AttributeValue::List),
        1 => json.prop_map(|v| AttributeValue::Language([("zh".into(), v)].into_iter().collect())),
    ]
}

prop_compose! {
    fn any_instance()(
        value in any_value(),
        dataset in prop::option::weighted(0.2, 0u8..2),
        observed_s in prop::option::weighted(0.85, 0i64..5),
        unit in prop::option::weighted(0.3, prop::sample::select(vec!["GQ", "CEL"])),
        created_s in prop::option::weighted(0.3, 0i64..5),
        sub in prop::option::weighted(0.15, any_value()),
        qualified in prop::bool::weighted(0.1),
    ) -> (Attribute, Option<i64>) {
        let mut a = Attribute::new(value);
        a.dataset_id = dataset.map(|d| Iri::known(&format!("urn:dataset:{d}")));
        a.observed_at = observed_s.map(at);
        a.unit_code = unit.map(Into::into);
        a.qualifiers = qualified.then(|| Box::new(entity::Qualifiers { value_type: Some(name("t")), ..entity::Qualifiers::default() }));
        if let Some(sub) = sub {
            a.sub_attributes.insert(name("sub"), Attribute::new(sub).into());
        }
        (a, created_s)
    }
}

prop_compose! {
    fn any_fact()(
        entity in prop::sample::select(vec!["a", "b", "c"]),
        other_type in prop::bool::weighted(0.1),
        recorded_s in 0i64..6,
        attribute in prop::sample::select(vec!["x", "x#text", "y"]),
        (instance, created_s) in any_instance(),
        end in prop::option::weighted(0.2, (0u8..4, any::<bool>())),
    ) -> Fact {
        let dataset_id = instance.dataset_id.clone();
        let mut f = fact(entity, recorded_s, match end {
            None => What::Value { name: name(attribute), instance: instance.into() },
            Some((0, _)) => What::EntityDeleted,
            Some((1, _)) => What::AttributeDeleted { name: name(attribute), dataset_id },
            Some((2, _)) => What::Restated { name: name(attribute), dataset_id, observed_at: instance.observed_at.unwrap_or(at(0)) },
            Some((_, first)) => What::Became(About {
                types: if first { vec![name("Station"), name("Mast")] } else { vec![name("Mast")] },
                scopes: dataset_id.iter().map(|_| "/a/b".parse().unwrap()).collect(),
                created_at: instance.observed_at.unwrap_or(at(recorded_s)),
                expires_at: instance.unit_code.as_ref().map(|_| at(9)),
            }),
        });
        if other_type {
            f.entity_type = name("Mast");
        }
        let recorded_at = f.recorded_at;
        with(f, |i| {
            i.created_at = created_s.map_or(recorded_at, at);
            i.modified_at = recorded_at;
            for sub in i.sub_attributes.values_mut().flatten() {
                (sub.created_at, sub.modified_at) = (recorded_at, recorded_at);
            }
        })
    }
}

/// What is appended at once.
#[derive(Clone, Debug)]
pub(super) enum Append {
    Facts(Vec<Fact>),
    Rows(BulkRows),
    Erasure(Erasure),
}

impl Append {
    pub(super) fn to(self, history: &dyn History) {
        match self {
            Self::Facts(facts) => history.append(facts),
            Self::Rows(rows) => history.append_rows(rows),
            Self::Erasure(erasure) => history.erase(erasure).unwrap(),
        }
    }
}

prop_compose! {
    fn any_rows()(
        keys in prop::collection::vec((prop::sample::select(vec!["a", "b", "c"]), 0i64..5), 1..12),
        recorded_s in 0i64..6,
        numbers in prop::collection::vec(prop::option::of((-5i32..20).prop_map(|i| f64::from(i) / 4.0)), 12),
        bools in prop::collection::vec(prop::option::of(any::<bool>()), 12),
        texts in prop::collection::vec(prop::option::of("\\PC{0,4}"), 12),
        kind in 0usize..4,
        unit in prop::sample::select(vec!["", "GQ", "CEL"]),
    ) -> BulkRows {
        let n = keys.len();
        let number = || -> ArrayRef { Arc::new(numbers[..n].iter().copied().collect::<Float64Array>()) };
        let other: ArrayRef = match kind {
            0 => Arc::new(bools[..n].iter().copied().collect::<BooleanArray>()),
            1 => Arc::new(texts[..n].iter().cloned().collect::<StringArray>()),
            _ => number(),
        };
        bulk(recorded_s, &keys, vec![("x", unit, number()), ("y", "", other)])
    }
}

prop_compose! {
    fn any_erasure()(
        other_type in prop::bool::weighted(0.1),
        recorded_s in 0i64..8,
        entity in prop::option::weighted(0.8, prop::sample::select(vec![station("a"), station("b"), station("c")])),
        attribute in prop::option::weighted(0.6, prop::sample::select(vec![name("x"), name("y")])),
        dataset in prop::option::weighted(0.3, prop::option::of(0u8..2)),
        times in prop::option::weighted(0.6, (any::<bool>(), 0i64..6, 1i64..4)),
    ) -> Erasure {
        let instances = dataset.map_or(ErasedInstances::All, |d| ErasedInstances::Of(d.map(|d| Iri::known(&format!("urn:dataset:{d}")))));
        let times = times.map_or(ErasedTimes::All, |(observed, from, n)| {
            let range = at(from)..at(from + n);
            if observed { ErasedTimes::Observed(range) } else { ErasedTimes::Recorded(range) }
        });
        let entity_type = name(if other_type { "Mast" } else { "Station" });
        Erasure { entity_type, recorded_at: at(recorded_s), entity, attribute, instances, times }
    }
}

pub(super) fn any_append() -> impl Strategy<Value = Append> {
    prop_oneof![
        1 => any_erasure().prop_map(Append::Erasure),
        3 => prop::collection::vec(any_fact(), 1..8).prop_map(Append::Facts),
        1 => any_rows().prop_map(Append::Rows),
    ]
}

fn any_interval() -> impl Strategy<Value = Option<std::ops::Range<Instant>>> {
    prop::option::of((0i64..6, 0i64..6).prop_map(|(a, b)| at(a)..at(b)))
}

fn some_names() -> impl Strategy<Value = Vec<Iri>> {
    prop::collection::vec(prop::sample::select(vec![name("x"), name("y"), name("x#text"), name("z")]), 0..4)
}

prop_compose! {
    fn any_query()(
        entity in prop::sample::select(vec!["a", "b", "c", "d"]),
        attributes in prop::option::weighted(0.3, some_names()),
        interval in any_interval(),
        time_property in prop::sample::select(vec![TimeProperty::ObservedAt, TimeProperty::ModifiedAt, TimeProperty::CreatedAt]),
        last_n in prop::option::weighted(0.4, 0usize..4),
        as_of in prop::option::weighted(0.3, (0i64..6).prop_map(at)),
        instances_max in prop_oneof![0usize..8, Just(1_000)],
    ) -> TemporalQuery {
        TemporalQuery { entity: station(entity), attributes, interval, time_property, last_n, as_of, instances_max }
    }
}

prop_compose! {
    fn any_scan()(
        entity_type in prop::sample::select(vec!["Station", "Station", "Mast", "Zone"]),
        attributes in some_names(),
        entities in prop::option::weighted(0.3, prop::collection::vec(prop::sample::select(vec![station("a"), station("c"), station("d")]), 0..3)),
        observed in any_interval(),
        as_of in prop::option::weighted(0.3, (0i64..6).prop_map(at)),
    ) -> HistoryScan {
        HistoryScan { entity_type: name(entity_type), attributes, entities, observed, as_of }
    }
}

/// All marks, each once: facts have no order, so their texts have.
fn marks(history: &dyn History, of: Marked<'_>, as_of: Option<Instant>) -> Vec<String> {
    let mut all = Vec::new();
    history.visit_marks(of, as_of, &mut |fact| all.push(format!("{fact:?}"))).unwrap();
    all.sort();
    all.dedup();
    all
}

/// Whoever looks for the entities with values in an interval misses none.
fn check_within(history: &dyn History, query: &TemporalQuery) {
    // The facts here are not always created before they are recorded, as facts are.
    let Some(interval) = query.interval.as_ref().filter(|_| query.time_property != TimeProperty::CreatedAt) else { return };
    let ids = |max| -> Vec<(BTreeSet<Iri>, bool)> {
        let of = |t: &HistoryTable| {
            let within = history.entity_ids_within(&t.entity_type, (query.time_property, interval), query.as_of, max).unwrap();
            (within.here.into_ids(), within.is_exact)
        };
        history.tables().iter().map(of).collect()
    };
    let all = ids(9);
    for ((one, _), (list, _)) in ids(1).iter().zip(&all) {
        assert_eq!(one.first(), list.first());
    }
    for entity in ["a", "b", "c", "d"].map(station) {
        let of_it = TemporalQuery { entity: entity.clone(), attributes: None, last_n: None, instances_max: 1_000, ..query.clone() };
        let has_values = history.evolution(&of_it).unwrap().is_some_and(|e| !e.attributes.is_empty());
        let mut found = all.iter().filter(|(ids, _)| ids.contains(&entity));
        let is_certain = found.clone().any(|(_, is_exact)| *is_exact);
        assert!(if has_values { found.next().is_some() } else { !is_certain }, "{entity} {query:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn columns_answer_like_the_model(
        // More appends than segments are kept apart: some are merged.
        appends in prop::collection::vec(any_append(), 1..20),
        queries in prop::collection::vec(any_query(), 8),
        scans in prop::collection::vec(any_scan(), 5),
        purge in prop::bool::weighted(0.3),
    ) {
        let model = MemoryHistory::default();
        for append in &appends {
            append.clone().to(&model);
        }
        for seal in [Seal::Never, Seal::Every(1), Seal::Every(2), Seal::AndReopen] {
            let columns = Driven::new(seal);
            for append in &appends {
                append.clone().to(&columns);
            }
            prop_assert_eq!(columns.tables(), model.tables(), "{:?}", seal);
            for (entity, as_of) in [("a", None), ("b", Some(at(3)))] {
                let found = columns.deletions(&station(entity), as_of).unwrap();
                prop_assert_eq!(found, model.deletions(&station(entity), as_of).unwrap(), "{:?}", seal);
                let of = station(entity);
                for of in [Marked::Entity(&of), Marked::Type(&name("Station"))] {
                    prop_assert_eq!(marks(&columns, of, as_of), marks(&model, of, as_of), "{:?}", seal);
                }
                let ids = |history: &dyn History, max| history.entity_ids(&name("Station"), as_of, max).unwrap();
                prop_assert_eq!(ids(&columns, 9), ids(&model, 9), "{:?}", seal);
                prop_assert_eq!(ids(&columns, 1), ids(&model, 9).into_iter().take(1).collect::<Vec<_>>());
            }
            for query in &queries {
                prop_assert_eq!(columns.evolution(query).unwrap(), model.evolution(query).unwrap(), "{:?} {:?}", seal, query);
                check_within(&columns, query);
                check_within(&model, query);
            }
            for scan in &scans {
                prop_assert_eq!(columns.scan(scan).unwrap(), model.scan(scan).unwrap(), "{:?} {:?}", seal, scan);
            }
            if purge {
                let purged = MemoryHistory::default();
                for append in &appends {
                    append.clone().to(&purged);
                }
                purged.purge().unwrap();
                columns.purge().unwrap();
                for query in &queries {
                    prop_assert_eq!(columns.evolution(query).unwrap(), purged.evolution(query).unwrap(), "purged {:?} {:?}", seal, query);
                }
            }
        }
    }
}
