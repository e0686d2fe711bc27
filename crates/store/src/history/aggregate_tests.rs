use serde_json::json;

use super::*;
use crate::history::columnar::ColumnarHistory;
use crate::history::memory::MemoryHistory;
use crate::history::{Fact, History, What};

fn at(s: i64) -> Instant {
    Instant::from_secs(s)
}

fn name(short: &str) -> Iri {
    Iri::known(&format!("https://example.org/{short}"))
}

fn station(short: &str) -> Iri {
    Iri::known(&format!("urn:ngsi-ld:Station:{short}"))
}

fn value(entity: &str, attribute: &str, observed_s: impl Into<Option<i64>>, recorded_s: i64, v: impl Into<serde_json::Value>) -> Fact {
    let recorded_at = at(recorded_s);
    let instance = entity::Attribute {
        observed_at: observed_s.into().map(at),
        created_at: recorded_at,
        modified_at: recorded_at,
        ..entity::Attribute::property(v)
    };
    Fact {
        entity_type: name("Station"),
        entity: station(entity),
        recorded_at,
        what: What::Value { name: name(attribute), instance: instance.into() },
    }
}

fn of_dataset(mut fact: Fact, dataset: &str) -> Fact {
    if let What::Value { instance, .. } = &mut fact.what {
        Arc::make_mut(instance).dataset_id = Some(Iri::known(&format!("urn:dataset:{dataset}")));
    }
    fact
}

fn query(attributes: &[&str], measures: &[Measure]) -> AggregateQuery {
    AggregateQuery {
        entity_type: name("Station"),
        attributes: attributes.iter().map(|a| name(a)).collect(),
        entities: None,
        observed: None,
        bucket: Bucket::width(10_000_000),
        per_entity: true,
        measures: measures.to_vec(),
        as_of: None,
    }
}

/// Rows as text, times as seconds.
fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let cell = |column: &ArrayRef, row: usize| -> String {
        if column.is_null(row) {
            return "-".to_owned();
        }
        if let Some(a) = column.as_primitive_opt::<Float64Type>() {
            return a.value(row).to_string();
        }
        if let Some(a) = column.as_primitive_opt::<TimestampMicrosecondType>() {
            return (a.value(row) / 1_000_000).to_string();
        }
        if let Some(a) = column.as_primitive_opt::<Int64Type>() {
            return a.value(row).to_string();
        }
        let ids = column.as_dictionary::<Int32Type>().downcast_dict::<arrow::array::StringArray>().unwrap();
        ids.into_iter().nth(row).flatten().unwrap().rsplit(':').next().unwrap().to_owned()
    };
    let rows = batches.iter().flat_map(|b| (0..b.num_rows()).map(move |row| (b, row)));
    rows.map(|(b, row)| b.columns().iter().map(|c| cell(c, row)).collect::<Vec<_>>().join(" ")).collect()
}

/// The same facts in every engine: all in memory, sealed in one file, sealed in small files.
fn engines(facts: &[Fact]) -> Vec<(Box<dyn History>, tempfile::TempDir)> {
    let memory = MemoryHistory::default();
    memory.append(facts.to_vec());
    let mut all: Vec<(Box<dyn History>, tempfile::TempDir)> = vec![(Box::new(memory), tempfile::tempdir().unwrap())];
    for seal_every in [usize::MAX, facts.len().max(1), 3] {
        let dir = tempfile::tempdir().unwrap();
        let history = ColumnarHistory::open(dir.path(), Vec::new()).unwrap();
        for part in facts.chunks(seal_every) {
            history.append(part.to_vec());
            if seal_every < usize::MAX {
                history.seal().unwrap();
                history.committed();
            }
        }
        all.push((Box::new(history), dir));
    }
    all
}

#[track_caller]
fn check(facts: &[Fact], query: &AggregateQuery, want: &[&str]) {
    for (i, (engine, _dir)) in engines(facts).iter().enumerate() {
        let answer = engine.aggregate(query).unwrap();
        assert_eq!(lines(&answer.batches), want, "engine {i}");
        assert!(answer.batches.iter().all(|b| b.schema() == query.schema()));
    }
}

#[test]
fn each_bucket_has_the_measures_of_its_numbers() {
    let facts = [
        value("a", "t", 10, 10, 4),
        value("a", "t", 12, 12, 1.5),
        value("a", "t", 19, 19, 2),
        value("a", "t", 20, 20, 7),
        value("b", "t", 11, 11, -3),
    ];
    check(
        &facts,
        &query(&["t"], &[Measure::Count, Measure::Sum, Measure::Min, Measure::Max]),
        &["a 10 3 7.5 1.5 4", "a 20 1 7 7 7", "b 10 1 -3 -3 -3"],
    );
    check(
        &facts,
        &query(&["t"], &[Measure::Mean, Measure::First, Measure::FirstAt, Measure::Last, Measure::LastAt]),
        &["a 10 2.5 4 10 2 19", "a 20 7 7 20 7 20", "b 10 -3 -3 11 -3 11"],
    );
    let all =
        AggregateQuery { per_entity: false, ..query(&["t"], &[Measure::Count, Measure::SumOfSquares, Measure::First, Measure::Last]) };
    check(&facts, &all, &["10 4 31.25 4 2", "20 1 49 7 7"]);
    let spread = [value("a", "t", 1, 1, 2), value("a", "t", 2, 2, 4), value("a", "t", 3, 3, 4), value("a", "t", 4, 4, 6)];
    check(&spread, &query(&["t"], &[Measure::StandardDeviation, Measure::Mean]), &["a 0 1.4142135623730951 4"]);
    let whole = AggregateQuery { bucket: Bucket::Whole, observed: Some(at(12)..at(20)), ..query(&["t"], &[Measure::Sum]) };
    check(&facts, &whole, &["a 12 3.5"]);
    let one = AggregateQuery { entities: Some(vec![station("b"), station("absent")]), ..query(&["t"], &[Measure::Sum]) };
    check(&facts, &one, &["b 10 -3"]);
}

#[test]
fn of_a_moment_the_value_recorded_last_counts_unless_the_past_is_asked_for() {
    let facts = [
        value("a", "t", 10, 10, 1),
        value("a", "u", 10, 10, 5),
        value("a", "t", 15, 15, 2),
        value("a", "t", 10, 30, 100),
        value("a", "t", 15, 31, "broken"),
    ];
    let sums = query(&["t", "u"], &[Measure::Count, Measure::Sum]);
    check(&facts, &sums, &["a 10 1 100 1 5"]);
    check(&facts, &AggregateQuery { as_of: Some(at(30)), ..sums.clone() }, &["a 10 2 102 1 5"]);
    check(&facts, &AggregateQuery { as_of: Some(at(29)), ..sums.clone() }, &["a 10 2 3 1 5"]);
    check(&facts, &AggregateQuery { as_of: Some(at(9)), ..sums }, &[]);
}

#[test]
fn only_numbers_that_were_observed_count_and_every_dataset_does() {
    let facts = [
        value("a", "t", None, 5, 1_000),
        value("a", "t", 10, 10, true),
        value("a", "t", 11, 11, "12"),
        value("a", "t", 12, 12, json!([1, 2])),
        value("a", "t", 13, 13, 9_007_199_254_740_993_i64),
        of_dataset(value("a", "t", 13, 13, 1), "x"),
        Fact { what: What::EntityDeleted, ..value("a", "t", None, 14, 0) },
        value("a", "text", 12, 15, "only text"),
    ];
    check(&facts, &query(&["t"], &[Measure::Count, Measure::Max, Measure::Min, Measure::Last]), &["a 10 2 9007199254740992 1 1"]);
    check(&facts, &query(&["text", "absent"], &[Measure::Count]), &[]);
    check(&facts, &query(&["text", "t"], &[Measure::Count, Measure::Min]), &["a 10 0 - 2 1"]);
    let other = AggregateQuery { entity_type: name("Road"), ..query(&["t"], &[Measure::Count]) };
    check(&facts, &other, &[]);
}

#[test]
fn sums_do_not_depend_on_the_order_of_values() {
    let tenths: Vec<f64> = (1..=1_000).map(|i| f64::from(i) / 10.0).collect();
    let (mut forth, mut back, mut parts) = (Sum::default(), Sum::default(), Sum::default());
    tenths.iter().for_each(|x| forth.add(*x));
    tenths.iter().rev().for_each(|x| back.add(*x));
    for part in tenths.chunks(7) {
        let mut sum = Sum::default();
        part.iter().for_each(|x| sum.add(*x));
        parts.merge(sum);
    }
    assert_eq!([forth.value(), back.value(), parts.value()], [50_050.0; 3]);
    let mut huge = Sum::default();
    [1e308, 1e308, 1.0].iter().for_each(|x| huge.add(*x));
    assert_eq!(huge.value(), f64::INFINITY);
}

#[test]
fn a_question_without_an_answer_is_refused_with_the_reason() {
    let good = query(&["t"], &[Measure::Count]);
    check(AggregateQuery { attributes: Vec::new(), ..good.clone() }, "at least one attribute");
    check(AggregateQuery { measures: Vec::new(), ..good.clone() }, "one measure");
    check(AggregateQuery { attributes: vec![name("t"), name("t")], ..good.clone() }, "`https://example.org/t` is asked for twice");
    check(AggregateQuery { measures: vec![Measure::Sum, Measure::Sum], ..good.clone() }, "measure `sum` is asked for twice");
    check(AggregateQuery { bucket: Bucket::width(0), ..good.clone() }, "a bucket of 0 µs");
    check(AggregateQuery { observed: Some(at(5)..at(5)), ..good.clone() }, "is empty");
    let many = (0..=AGGREGATE_ATTRIBUTES_MAX).map(|i| name(&format!("a{i}"))).collect();
    check(AggregateQuery { attributes: many, ..good }, "more than the limit of 1000");

    #[track_caller]
    fn check(query: AggregateQuery, want: &str) {
        for (engine, _dir) in engines(&[value("a", "t", 1, 1, 1)]) {
            let error = engine.aggregate(&query).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// Entity, attribute, observed and recorded second, dataset, what the value is.
    type Reported = (u8, u8, Option<i64>, u8, u8);

    fn reported() -> impl Strategy<Value = Vec<Reported>> {
        let one = (0_u8..4, 0_u8..3, prop::option::weighted(0.9, 0_i64..60), 0_u8..6, any::<u8>());
        prop::collection::vec(one, 1..80)
    }

    /// Recorded one after the other, as a node does.
    fn facts(reported: &[Reported]) -> Vec<Fact> {
        let fact = |(i, (e, a, observed, dataset, v)): (usize, &Reported)| {
            let recorded = i64::try_from(i).unwrap() / 2;
            let v = match v % 16 {
                0 => json!("text"),
                1 => json!(9_007_199_254_740_993_i64),
                2 => json!({"a": 1}),
                n => json!(f64::from(*v) / 8.0 + f64::from(n)),
            };
            let fact = value(&format!("s{e}"), &format!("a{a}"), *observed, recorded, v);
            if *dataset == 0 { of_dataset(fact, "x") } else { fact }
        };
        reported.iter().enumerate().map(fact).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

        #[test]
        fn columns_give_the_same_aggregates_as_rows(
            reported in reported(),
            seal_every in 1_usize..40,
            (width_s, origin_s) in (1_i64..40, 0_i64..40),
            interval in prop::option::of((0_i64..60, 1_i64..60)),
            as_of in prop::option::of(0_i64..45),
            per_entity: bool,
            whole: bool,
            one: bool,
        ) {
            let facts = facts(&reported);
            let query = AggregateQuery {
                bucket: if whole { Bucket::Whole } else { Bucket::Width { width_us: width_s * 1_000_000, origin: at(origin_s) } },
                observed: interval.map(|(from, length)| at(from)..at(from + length)),
                entities: one.then(|| vec![station("s1"), station("s3")]),
                as_of: as_of.map(at),
                per_entity,
                ..query(&["a0", "a2"], &Measure::ALL)
            };
            let model = MemoryHistory::default();
            model.append(facts.clone());
            let dir = tempfile::tempdir().unwrap();
            let history = ColumnarHistory::open(dir.path(), Vec::new()).unwrap();
            for (i, part) in facts.chunks(seal_every).enumerate() {
                history.append(part.to_vec());
                if i % 3 < 2 {
                    history.seal().unwrap();
                    history.committed();
                }
            }
            let want = lines(&model.aggregate(&query).unwrap().batches);
            prop_assert_eq!(lines(&history.aggregate(&query).unwrap().batches), want);
            for query in [query.clone(), AggregateQuery { attributes: Vec::new(), measures: Vec::new(), ..query }] {
                let grouped = |history: &dyn History| {
                    let mut batches = Vec::new();
                    history.group(&query, Groups::Rows, &mut |batch| { batches.push(batch); true }).unwrap();
                    lines(&batches)
                };
                prop_assert_eq!(grouped(&history), grouped(&model), "{:?}", query);
            }
        }
    }
}
