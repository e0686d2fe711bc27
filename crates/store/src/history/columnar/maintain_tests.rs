use std::path::Path;

use arrow::array::AsArray;
use entity::Attribute;
use proptest::prelude::*;

use super::*;
use crate::history::aggregate::over_scan;
use crate::history::columnar::ColumnarHistory;
use crate::history::memory::MemoryHistory;
use crate::history::{
    About, Aggregates, ErasedInstances, ErasedTimes, Erasure, Fact, Groups, History, HistoryScan, HistoryTable, RetentionRule, RollupRule,
    RollupUse, Segment, TemporalQuery, TimeProperty, What, entity_as_of,
};

const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 24 * HOUR_S;
/// 2024-01-29: the days of the tests are of two months.
const START_S: i64 = 1_706_486_400;

fn at(s: i64) -> Instant {
    Instant::from_secs(START_S + s)
}

fn iri(short: &str) -> Iri {
    Iri::known(&format!("https://example.org/{short}"))
}

fn station(i: u8) -> Iri {
    Iri::known(&format!("urn:ngsi-ld:Station:{i}"))
}

fn value(entity: u8, name: &str, observed_s: i64, recorded_s: i64, v: f64) -> Fact {
    let recorded_at = at(recorded_s);
    let instance = Attribute { created_at: recorded_at, modified_at: recorded_at, ..Attribute::property(v) }.observed(at(observed_s));
    Fact {
        entity_type: iri("Station"),
        entity: station(entity),
        recorded_at,
        what: What::Value { name: iri(name), instance: instance.into() },
    }
}

fn policy() -> HistoryPolicy {
    let widths = vec![RollupWidth::FiveMinutes, RollupWidth::Hour, RollupWidth::Day];
    HistoryPolicy { rollups: vec![RollupRule { entity_type: None, attributes: None, widths }], ..HistoryPolicy::default() }
}

fn keeping(raw_days: Option<u32>, rollup_days: Option<u32>) -> HistoryPolicy {
    HistoryPolicy { retention: vec![RetentionRule { entity_type: None, attributes: None, raw_days, rollup_days }], ..policy() }
}

fn query(bucket: Bucket, from_s: i64, to_s: i64) -> AggregateQuery {
    AggregateQuery {
        entity_type: iri("Station"),
        attributes: vec![iri("t"), iri("u")],
        entities: None,
        observed: Some(at(from_s)..at(to_s)),
        bucket,
        per_entity: true,
        measures: Measure::ALL.to_vec(),
        as_of: None,
    }
}

/// Three stations, a value each half hour, for so many days; recorded a minute later.
fn days(n: i64) -> Vec<Fact> {
    let moments = (0..n * 48).flat_map(|i| (0..3_u8).map(move |station| (i * 1_800, station)));
    moments
        .flat_map(|(s, station)| {
            let v = ((s / 1_800) % 17) as f64 / 8.0 + f64::from(station);
            [value(station, "t", s, s + 60, v), value(station, "u", s, s + 60, -v)]
        })
        .collect()
}

fn open(dir: &Path, segments: Vec<Segment>) -> ColumnarHistory {
    ColumnarHistory::open(dir, segments).unwrap()
}

fn maintain_all(history: &ColumnarHistory, policy: &HistoryPolicy, now: Instant) -> Maintained {
    let mut all = Maintained::default();
    loop {
        let done = history.maintain(policy, now).unwrap();
        all.n_rollups_built += done.n_rollups_built;
        all.n_rows_dropped += done.n_rows_dropped;
        all.n_rollups_dropped += done.n_rollups_dropped;
        if !done.more {
            return all;
        }
    }
}

fn uses(answer: &Aggregates) -> Vec<(i64, i64, RollupWidth)> {
    let day = |at: Instant| (at.micros() / 1_000_000 - START_S) / DAY_S;
    answer.sources.rollups.iter().map(|RollupUse { observed, width }| (day(observed.start), day(observed.end), *width)).collect()
}

#[test]
fn days_that_are_over_are_answered_from_roll_ups() {
    let dir = tempfile::tempdir().unwrap();
    let (history, model) = (open(dir.path(), Vec::new()), MemoryHistory::default());
    history.append(days(5));
    model.append(days(5));
    let segments = history.seal().unwrap();
    history.committed();
    assert_eq!(
        maintain_all(&history, &policy(), at(5 * DAY_S + HOUR_S)).n_rollups_built,
        2 * 3,
        "the fifth day is not ripe, and there are two months"
    );
    let segments_after = history.seal().unwrap();
    assert_eq!(segments_after.len(), segments.len() + 6);

    let check = |history: &ColumnarHistory, query: &AggregateQuery, n_raw: u64, want: &[(i64, i64, RollupWidth)]| {
        let answer = history.aggregate(query).unwrap();
        assert_eq!(answer.batches, model.aggregate(query).unwrap().batches, "{query:?}");
        assert_eq!((answer.sources.n_raw_rows, uses(&answer).as_slice()), (n_raw, want), "{query:?}");
    };
    let check_all = |history: &ColumnarHistory| {
        use RollupWidth::{Day, FiveMinutes, Hour};
        check(history, &query(Bucket::day(0), 0, 4 * DAY_S), 0, &[(0, 4, Day)]);
        check(history, &query(Bucket::width(2 * 3_600_000_000), 0, 4 * DAY_S), 0, &[(0, 4, Hour)]);
        check(history, &query(Bucket::day(8 * 3_600), DAY_S, 3 * DAY_S), 0, &[(1, 3, Hour)]);
        check(history, &query(Bucket::width(900_000_000), DAY_S, 3 * DAY_S), 0, &[(1, 3, FiveMinutes)]);
        check(history, &query(Bucket::month(0), 0, 4 * DAY_S), 0, &[(0, 4, Day)]);
        // The edges, and the day that is not over, come from the values.
        check(history, &query(Bucket::day(0), 6 * HOUR_S, 5 * DAY_S), 3 * (36 + 48), &[(1, 4, Day)]);
        check(history, &query(Bucket::Whole, 6 * HOUR_S, DAY_S + HOUR_S), 3 * 38, &[]);
        // These do not consist of hours.
        check(history, &query(Bucket::width(7 * 60_000_000), 0, 2 * DAY_S), 3 * 96, &[]);
        // Back then the roll-up knew more than was known.
        let past = AggregateQuery { as_of: Some(at(2 * DAY_S)), ..query(Bucket::day(0), 0, 4 * DAY_S) };
        assert_eq!(history.aggregate(&past).unwrap().batches, model.aggregate(&past).unwrap().batches);
        assert!(history.aggregate(&past).unwrap().sources.rollups.is_empty());
        let now = AggregateQuery { as_of: Some(at(9 * DAY_S)), entities: Some(vec![station(1)]), ..query(Bucket::day(0), 0, 4 * DAY_S) };
        check(history, &now, 0, &[(0, 4, Day)]);
    };
    check_all(&history);
    assert!(history.verify().is_empty());
    drop(history);
    check_all(&open(dir.path(), segments_after));
}

#[test]
fn what_is_learned_later_makes_an_entitys_day_stale_until_it_is_built_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (history, model) = (open(dir.path(), Vec::new()), MemoryHistory::default());
    history.append(days(3));
    model.append(days(3));
    history.seal().unwrap();
    maintain_all(&history, &policy(), at(3 * DAY_S + 3 * HOUR_S));
    let late_s = 3 * DAY_S + 4 * HOUR_S;
    let late = [value(1, "t", DAY_S + 1_800, late_s, 100.0), value(2, "u", 2 * DAY_S + 7, late_s + 1, 50.0)];
    history.append(late.to_vec());
    model.append(late.to_vec());
    let by_day = query(Bucket::day(0), 0, 3 * DAY_S);
    let want = model.aggregate(&by_day).unwrap().batches;
    let check = |history: &ColumnarHistory, n_raw_rows: u64| {
        let answer = history.aggregate(&by_day).unwrap();
        assert_eq!(answer.batches, want);
        assert_eq!((answer.sources.n_raw_rows, uses(&answer)), (n_raw_rows, vec![(0, 3, RollupWidth::Day)]));
    };
    // Two entities' days with one more row each.
    check(&history, 2 * 49);
    let segments = history.seal().unwrap();
    check(&history, 2 * 49);
    drop(history);
    let history = open(dir.path(), segments);
    check(&history, 2 * 49);
    // Replayed after a crash: it is known already.
    history.append(vec![days(1)[0].clone()]);
    check(&history, 2 * 49);
    // Nobody builds it anew at once, when more may come; a day later somebody does.
    maintain_all(&history, &policy(), at(late_s + HOUR_S));
    check(&history, 2 * 49);
    assert_eq!(maintain_all(&history, &policy(), at(5 * DAY_S)).n_rollups_built, 3);
    check(&history, 0);
    assert_eq!(maintain_all(&history, &policy(), at(5 * DAY_S)), Maintained::default(), "there is nothing left to do");
    let segments = history.seal().unwrap();
    history.committed();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), segments.len(), "what was replaced is gone");
}

#[test]
fn a_month_becomes_one_roll_up() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(dir.path(), Vec::new());
    for (day, facts) in days(5).chunks(48 * 6).enumerate() {
        history.append(facts.to_vec());
        history.seal().unwrap();
        maintain_all(&history, &policy(), at((day as i64 + 1) * DAY_S + 2 * HOUR_S));
    }
    let segments = history.seal().unwrap();
    history.committed();
    let days: Vec<(i64, i64)> =
        segments.iter().filter_map(|s| s.rollup.as_ref()).filter(|r| r.width == RollupWidth::Day).map(|r| r.days).collect();
    let start = START_S / DAY_S;
    assert_eq!(days, [(start, start + 3), (start + 3, start + 4), (start + 4, start + 5)], "three days of January, and two of February");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), segments.len());
}

#[test]
fn old_values_go_and_their_roll_ups_stay_until_it_is_their_turn() {
    let dir = tempfile::tempdir().unwrap();
    let (history, model) = (open(dir.path(), Vec::new()), MemoryHistory::default());
    history.append(days(6));
    model.append(days(6));
    history.seal().unwrap();
    let done = maintain_all(&history, &keeping(Some(2), Some(10)), at(6 * DAY_S + 3 * HOUR_S));
    assert_eq!((done.n_rows_dropped, done.n_rollups_dropped), (4 * 48 * 3, 0));
    let segments = history.seal().unwrap();
    history.committed();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), segments.len());
    drop(history);
    let history = open(dir.path(), segments);
    let instances = |history: &ColumnarHistory| {
        let all = TemporalQuery {
            entity: station(1),
            attributes: Some(vec![iri("t")]),
            interval: None,
            time_property: TimeProperty::ObservedAt,
            last_n: None,
            as_of: None,
            instances_max: 10_000,
        };
        let evolution = history.evolution(&all).unwrap().unwrap();
        let times: Vec<i64> =
            evolution.attributes[&iri("t")].iter().map(|a| a.observed_at.unwrap().micros() / 1_000_000 - START_S).collect();
        (times.len(), times[0])
    };
    assert_eq!(instances(&history), (2 * 48, 4 * DAY_S), "nothing younger is touched");
    let by_hour = query(Bucket::width(3_600_000_000), 0, 6 * DAY_S);
    let want = model.aggregate(&by_hour).unwrap().batches;
    assert_eq!(history.aggregate(&by_hour).unwrap().batches, want);
    // Too late: the day is final. Its neighbour, in the same file, is not.
    let late = [value(1, "t", DAY_S + 60, 7 * DAY_S, 1e6), value(1, "t", 4 * DAY_S + 60, 7 * DAY_S + 1, 1e6)];
    history.append(late.to_vec());
    model.append(late[1..].to_vec());
    let want = model.aggregate(&by_hour).unwrap().batches;
    assert_eq!(history.aggregate(&by_hour).unwrap().batches, want);
    history.seal().unwrap();
    // The rest of the values goes, with what was learned of it; the roll-ups are built anew from what is final and what is not.
    maintain_all(&history, &keeping(Some(1), Some(10)), at(8 * DAY_S));
    assert_eq!(history.aggregate(&by_hour).unwrap().batches, want);
    let done = maintain_all(&history, &keeping(Some(1), Some(6)), at(9 * DAY_S));
    assert!(done.n_rollups_dropped > 0);
    let answer = history.aggregate(&query(Bucket::day(0), 0, 6 * DAY_S)).unwrap();
    assert_eq!(uses(&answer), [(3, 6, RollupWidth::Day)], "January is gone, February is kept as a whole");
    let done = maintain_all(&history, &keeping(Some(1), Some(6)), at(30 * DAY_S));
    assert_eq!(done.n_rollups_dropped, 3);
    assert!(history.aggregate(&by_hour).unwrap().batches.is_empty());
}

#[test]
fn one_attribute_may_go_before_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(dir.path(), Vec::new());
    for part in days(4).chunks(48 * 6) {
        history.append(part.to_vec());
        history.seal().unwrap();
    }
    let retention =
        vec![RetentionRule { entity_type: Some(iri("Station")), attributes: Some(vec![iri("u")]), raw_days: Some(2), rollup_days: None }];
    let policy = HistoryPolicy { rollup_rows_min: u64::MAX, retention, ..HistoryPolicy::default() };
    maintain_all(&history, &policy, at(4 * DAY_S + 3 * HOUR_S));
    let counts = |name: &str| {
        let query = AggregateQuery {
            attributes: vec![iri(name)],
            measures: vec![Measure::Count],
            per_entity: false,
            ..query(Bucket::day(0), 0, 4 * DAY_S)
        };
        let batches = history.aggregate(&query).unwrap().batches;
        batches.iter().flat_map(|b| b.column(1).as_primitive::<arrow::datatypes::Int64Type>().values().to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(counts("t"), [144; 4]);
    assert_eq!(counts("u"), [144; 2]);
    assert_eq!(maintain_all(&history, &policy, at(4 * DAY_S + 3 * HOUR_S)), Maintained::default());
}

#[test]
fn what_is_erased_is_in_no_roll_up_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(dir.path(), Vec::new());
    history.append(days(6));
    history.seal().unwrap();
    // The first days are known from roll-ups only.
    maintain_all(&history, &keeping(Some(2), None), at(6 * DAY_S + 3 * HOUR_S));
    let count = |history: &ColumnarHistory, entity: u8| {
        let query = AggregateQuery {
            entities: Some(vec![station(entity)]),
            attributes: vec![iri("t")],
            measures: vec![Measure::Count],
            ..query(Bucket::day(0), 0, 6 * DAY_S)
        };
        let batches = history.aggregate(&query).unwrap().batches;
        batches.iter().flat_map(|b| b.column(2).as_primitive::<arrow::datatypes::Int64Type>().values().to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(count(&history, 1), [48; 6]);
    history.erase(Erasure::of_entity(iri("Station"), station(1), at(6 * DAY_S + 4 * HOUR_S))).unwrap();
    let check = |history: &ColumnarHistory| {
        assert!(count(history, 1).is_empty());
        assert_eq!(count(history, 2), [48; 6]);
    };
    check(&history);
    let segments = history.seal().unwrap();
    drop(history);
    let history = open(dir.path(), segments);
    check(&history);
    maintain_all(&history, &keeping(Some(2), None), at(8 * DAY_S));
    check(&history);
    history.purge().unwrap();
    check(&history);
    maintain_all(&history, &keeping(Some(1), None), at(12 * DAY_S));
    check(&history);
    let days = ErasedTimes::Observed(at(DAY_S)..at(2 * DAY_S));
    let instances = ErasedInstances::All;
    history
        .erase(Erasure { entity_type: iri("Station"), recorded_at: at(12 * DAY_S), entity: None, attribute: None, instances, times: days })
        .unwrap();
    assert!(!count(&history, 2).iter().take(2).any(|n| *n > 48) && count(&history, 2).len() < 6, "a stretch of everything is gone");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn answers_do_not_depend_on_roll_ups(
        steps in prop::collection::vec(
            (
                prop::collection::vec((0_u8..3, any::<bool>(), 0_i64..5 * 24, -40_i32..40), 0..30),
                0_u8..5,
                prop::option::weighted(0.2, (prop::option::of(0_u8..3), any::<bool>(), prop::option::of(0_i64..5 * 24))),
            ),
            1..12,
        ),
        width in 0_usize..5,
        (from_h, length_h) in (0_i64..5 * 24, 1_i64..6 * 24),
        aligned: bool,
        per_entity: bool,
        as_of_step in prop::option::weighted(0.3, 0_i64..12),
        raw_days in prop::option::weighted(0.3, 1_u32..4),
        one_left in prop::option::weighted(0.2, 1_u32..4),
    ) {
        let mut policy = if raw_days.is_some() { keeping(raw_days, None) } else { policy() };
        if one_left.is_some() {
            let rule = RetentionRule { entity_type: None, attributes: Some(vec![iri("u")]), raw_days: one_left, rollup_days: None };
            policy.retention.insert(0, rule);
        }
        let dir = tempfile::tempdir().unwrap();
        let (mut history, model) = (open(dir.path(), Vec::new()), MemoryHistory::default());
        for (i, (values, then, erase)) in steps.iter().enumerate() {
            // Half a day of real time each.
            let now_s = i as i64 * 12 * HOUR_S;
            let facts: Vec<Fact> = values
                .iter()
                .enumerate()
                .map(|(n, (entity, first, hour, v))| {
                    let name = if *first { "t" } else { "u" };
                    // Rows without a number, without a time, and of another dataset.
                    let name = if v % 7 == 0 { "name" } else { name };
                    let at_s = hour * HOUR_S + i64::from(*v) * 20;
                    let mut fact = value(*entity, name, at_s, now_s + n as i64 + 1, f64::from(*v) / 8.0);
                    if let What::Value { instance, .. } = &mut fact.what {
                        if name == "name" {
                            Arc::make_mut(instance).value = Attribute::property("text").value;
                        }
                        if v % 11 == 0 {
                            Arc::make_mut(instance).observed_at = None;
                        }
                        Arc::make_mut(instance).dataset_id = (v % 5 == 0).then(|| Iri::known("urn:dataset:x"));
                    }
                    fact
                })
                .collect();
            history.append(facts.clone());
            model.append(facts);
            if let Some((entity, one_attribute, hour)) = erase {
                let times = hour.map_or(ErasedTimes::All, |h| ErasedTimes::Observed(at(h * HOUR_S)..at((h + 30) * HOUR_S)));
                let erasure = Erasure {
                    entity_type: iri("Station"),
                    recorded_at: at(now_s + 100),
                    entity: entity.map(station),
                    attribute: one_attribute.then(|| iri("t")),
                    instances: ErasedInstances::All,
                    times,
                };
                history.erase(erasure.clone()).unwrap();
                model.erase(erasure).unwrap();
            }
            if *then > 0 {
                history.seal().unwrap();
                history.committed();
            }
            if *then > 1 {
                maintain_all(&history, &policy, at(now_s + 6 * HOUR_S));
            }
            if *then > 3 {
                let segments = history.seal().unwrap();
                history = open(dir.path(), segments);
            }
        }
        let bucket = [Bucket::day(0), Bucket::width(3_600_000_000), Bucket::width(300_000_000), Bucket::Whole, Bucket::day(8 * 3_600)][width];
        let (from_h, to_h) = if aligned { (from_h / 24 * 24, (from_h + length_h + 23) / 24 * 24) } else { (from_h, from_h + length_h) };
        let query = AggregateQuery {
            per_entity,
            as_of: as_of_step.map(|step| at(step * 12 * HOUR_S + 5)),
            ..query(bucket, from_h * HOUR_S, to_h * HOUR_S)
        };
        if policy.retention.is_empty() {
            prop_assert_eq!(history.aggregate(&query).unwrap().batches, model.aggregate(&query).unwrap().batches);
        }
        for (groups, observed) in [(Groups::Numbers, true), (Groups::Numbers, false), (Groups::Rows, true), (Groups::Rows, false)] {
            let query = AggregateQuery { observed: query.observed.clone().filter(|_| observed), ..query.clone() };
            let mut got = Vec::new();
            let done = history.group(&query, groups, &mut |batch| {
                got.push(batch);
                true
            });
            match history.stream(&query.scan_of(groups)) {
                Err(_) => prop_assert!(done.is_err()),
                Ok(rows) => {
                    let table = history.tables().into_iter().find(|t| t.entity_type == query.entity_type).unwrap_or(HistoryTable {
                        entity_type: query.entity_type.clone(),
                        columns: Vec::new(),
                    });
                    let want = over_scan(&query, groups, &table, rows).unwrap().batches;
                    let schema = query.group_schema(groups);
                    prop_assert_eq!(
                        arrow::compute::concat_batches(&schema, &got).unwrap(),
                        arrow::compute::concat_batches(&schema, &want).unwrap(),
                        "{:?} {:?}", groups, query
                    );
                }
            }
        }
    }
}

#[test]
fn sql_asks_roll_ups_only_for_what_the_values_say_too() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(dir.path(), Vec::new());
    history.append(days(6));
    let mut name = value(1, "name", 2 * DAY_S + 60, 6 * DAY_S, 0.0);
    if let What::Value { instance, .. } = &mut name.what {
        Arc::make_mut(instance).value = Attribute::property("text").value;
    }
    let unobserved = Fact { what: What::EntityDeleted, ..value(1, "t", 0, 6 * DAY_S, 0.0) };
    history.append(vec![name, unobserved]);
    history.seal().unwrap();
    maintain_all(&history, &keeping(Some(4), None), at(6 * DAY_S + 3 * HOUR_S));
    let of = |groups, observed: Option<Range<Instant>>| {
        let query = AggregateQuery {
            measures: vec![Measure::Count],
            attributes: vec![iri("t")],
            per_entity: false,
            observed,
            ..query(Bucket::day(0), 0, 1)
        };
        let mut lines: Vec<(i64, i64)> = Vec::new();
        let sources = history.group(&query, groups, &mut |batch| {
            let column = |i: usize| batch.column(i).as_primitive::<arrow::datatypes::Int64Type>().clone();
            let counts = batch.num_columns() - 1;
            lines.extend(column(1).values().iter().copied().zip(column(counts).values().iter().copied()));
            true
        });
        let answer = Aggregates { batches: Vec::new(), sources: sources.unwrap() };
        assert_eq!(history.reading_of_groups(&query, groups).unwrap().unwrap().rollups, answer.sources.rollups);
        (lines, uses(&answer), answer.sources.n_raw_rows)
    };
    // Two days are known from roll-ups only: SQL does not show them. One day has a row without a number.
    let counted = vec![(145, 144), (144, 144), (144, 144), (144, 144)];
    assert_eq!(of(Groups::Rows, Some(at(0)..at(6 * DAY_S))), (counted.clone(), vec![(2, 6, RollupWidth::Day)], 0));
    // What has no observed time is looked for where it may be; what was deleted is not a row.
    let (lines, used, _) = of(Groups::Rows, None);
    assert_eq!((lines, used), (counted, vec![(2, 6, RollupWidth::Day)]));
    let whole = HistoryScan { entity_type: iri("Station"), attributes: Vec::new(), entities: None, observed: None, as_of: None };
    let reading = history.reading(&whole).unwrap().unwrap();
    assert_eq!((reading.n_files, reading.n_files_read), (1, 1));
    let late = HistoryScan { observed: Some(at(60 * DAY_S)..at(61 * DAY_S)), ..whole };
    assert_eq!(history.reading(&late).unwrap().unwrap().n_files_read, 0);
}

#[test]
fn a_time_from_before_the_history_is_kept_is_refused_and_what_entities_were_stays() {
    let dir = tempfile::tempdir().unwrap();
    let history = open(dir.path(), Vec::new());
    let about = About { types: vec![iri("Station")], scopes: vec!["/north".parse().unwrap()], created_at: at(60), expires_at: None };
    let became = |entity, s, about: &About| Fact { what: What::Became(about.clone()), ..value(entity, "t", s, s, 0.0) };
    history.append(vec![became(0, 60, &about), became(1, 60, &about), Fact { what: What::EntityDeleted, ..value(1, "t", 0, 90, 0.0) }]);
    history.append(days(10));
    history.seal().unwrap();
    history.committed();
    history.append(days(11).split_off(days(10).len()));
    history.seal().unwrap();
    let retention = |name: Option<&str>, raw_days| RetentionRule {
        entity_type: None,
        attributes: name.map(|n| vec![iri(n)]),
        raw_days: Some(raw_days),
        rollup_days: None,
    };
    let policy = HistoryPolicy { retention: vec![retention(None, 4)], ..HistoryPolicy::default() };
    let now = at(11 * DAY_S + 7 * HOUR_S);
    assert!(history.kept(&iri("Station")).is_all());
    let dropped = maintain_all(&history, &policy, now).n_rows_dropped;
    assert_eq!(dropped, 7 * 48 * 3, "seven days of three stations");
    assert_eq!(maintain_all(&history, &policy, now), Maintained::default(), "what stays for good is not looked at again");
    let segments = history.seal().unwrap();
    history.committed();
    drop(history);

    let history = open(dir.path(), segments);
    let since = at(7 * DAY_S);
    assert_eq!(history.kept(&iri("Station")), Kept { since: Some(since), attributes: BTreeMap::new() });
    let scan = |as_of| HistoryScan { entity_type: iri("Station"), attributes: vec![iri("t")], entities: None, observed: None, as_of };
    let of_entity = |as_of| TemporalQuery { as_of, ..TemporalQuery::of(station(0)) };
    let before = Some(since.plus_micros(-1));
    for error in [
        history.scan(&scan(before)).unwrap_err(),
        history.evolution(&of_entity(before)).unwrap_err(),
        history.aggregate(&AggregateQuery { as_of: before, ..query(Bucket::Whole, 0, DAY_S) }).unwrap_err(),
        entity_as_of(&history, &station(0), since.plus_micros(-1), None).unwrap_err(),
    ] {
        assert!(matches!(&error, HistoryError::NotKept { since: s, .. } if *s == since), "{error}");
        assert!(error.to_string().contains("`https://example.org/Station` is kept since 2024-02-05T00:00:00Z"), "{error}");
    }
    assert_eq!(history.scan(&scan(Some(since))).unwrap().iter().map(arrow::record_batch::RecordBatch::num_rows).sum::<usize>(), 0);
    assert!(history.evolution(&of_entity(None)).unwrap().is_some());
    // What is known of the entities themselves is as old as they are.
    let known = entity_as_of(&history, &station(0), at(8 * DAY_S), None).unwrap().unwrap();
    assert_eq!((known.scopes, known.created_at, known.attributes.len()), (about.scopes, at(60), 2));
    assert_eq!(history.entity_ids(&iri("Station"), Some(since), 9).unwrap(), [station(0), station(1)]);
    assert_eq!(history.deletions(&station(1), None).unwrap().len(), 1);

    // What did not change since is told by the present; what changed, and is gone, is an error.
    let mut present = entity::Entity { created_at: at(60), modified_at: at(9 * DAY_S), ..entity::Entity::new(station(0), iri("Station")) };
    let instance = |modified_s| Attribute { created_at: at(60), modified_at: at(modified_s), ..Attribute::property("x") };
    present.put(iri("name"), instance(60));
    let then = |present: &entity::Entity| entity_as_of(&history, &station(0), at(8 * DAY_S), Some(present));
    assert_eq!(then(&present).unwrap().unwrap().attribute(iri("name").as_str()), Some(&instance(60)));
    present.put(iri("name"), instance(9 * DAY_S));
    let error = then(&present).unwrap_err().to_string();
    assert!(error.contains("attribute `https://example.org/name`, is kept since"), "{error}");

    // A rule for one attribute is a later time for that one only.
    let policy = HistoryPolicy { retention: vec![retention(Some("u"), 1)], ..HistoryPolicy::default() };
    maintain_all(&history, &policy, at(20 * DAY_S));
    let kept = history.kept(&iri("Station"));
    assert_eq!((kept.since, kept.attributes.get(&iri("u"))), (Some(since), Some(&at(19 * DAY_S))));
    let then = Some(at(18 * DAY_S));
    assert!(history.scan(&scan(then)).is_ok());
    let error = history.scan(&HistoryScan { attributes: vec![iri("t"), iri("u")], ..scan(then) }).unwrap_err().to_string();
    assert!(error.contains("attribute `https://example.org/u`, is kept since 2024-02-17T00:00:00Z"), "{error}");
    assert!(history.evolution(&of_entity(then)).is_err() && history.evolution(&of_entity(Some(at(19 * DAY_S)))).is_ok());
}
