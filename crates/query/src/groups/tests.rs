//! The answer with the rule is the answer without it.

use std::path::Path;

use arrow::array::AsArray;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use entity::{Attribute, Entity};
use proptest::prelude::*;
use store::history::columnar::ColumnarHistory;
use store::history::{ErasedInstances, ErasedTimes, Erasure, Fact, History, HistoryPolicy, RetentionRule, RollupRule, RollupWidth, What};

use super::*;
use crate::{Engine, Limits, Source};

const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 24 * HOUR_S;
/// 2024-01-29: the days of the tests are of two months.
const START_S: i64 = 1_706_486_400;

fn at(s: i64) -> Instant {
    Instant::from_secs(START_S + s)
}

fn iri(short: &str) -> entity::Iri {
    entity::Iri::known(&format!("https://example.org/{short}"))
}

fn value(entity: u8, name: &str, observed_s: Option<i64>, recorded_s: i64, v: impl Into<serde_json::Value>) -> Fact {
    let recorded_at = at(recorded_s);
    let instance =
        Attribute { created_at: recorded_at, modified_at: recorded_at, observed_at: observed_s.map(at), ..Attribute::property(v) };
    let entity = entity::Iri::known(&format!("urn:ngsi-ld:Station:{entity}"));
    Fact { entity_type: iri("Station"), entity, recorded_at, what: What::Value { name: iri(name), instance: instance.into() } }
}

/// Only a history.
struct Past(ColumnarHistory);

impl Source for Past {
    fn types(&self) -> Vec<entity::Iri> {
        Vec::new()
    }

    fn entities(&self, _entity_type: &entity::Iri) -> Vec<Arc<Entity>> {
        Vec::new()
    }

    fn history(&self) -> &dyn History {
        &self.0
    }

    fn short_name(&self, name: &entity::Iri) -> String {
        name.local_name().to_owned()
    }
}

/// With the rule, and without.
fn engines(past: &Arc<Past>) -> [Engine; 2] {
    let engine = || Engine::new(past.clone(), &Limits::default()).unwrap();
    let without = engine();
    assert!(without.context().remove_optimizer_rule(RULE));
    [engine(), without]
}

fn policy(raw_days: Option<u32>) -> HistoryPolicy {
    let widths = vec![RollupWidth::FiveMinutes, RollupWidth::Hour, RollupWidth::Day];
    let retention = raw_days.map(|_| RetentionRule { entity_type: None, attributes: None, raw_days, rollup_days: None });
    let rollups = vec![RollupRule { entity_type: None, attributes: None, widths }];
    HistoryPolicy { rollups, retention: retention.into_iter().collect(), ..HistoryPolicy::default() }
}

/// Types and rows as text, the rows in order.
fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
        let types: Vec<String> =
            batch.schema().fields().iter().map(|f| format!("{} {} {:?}", f.name(), f.data_type(), f.metadata())).collect();
        for i in 0..batch.num_rows() {
            let cells: Vec<String> = columns.iter().map(|c| c.value(i).to_string()).collect();
            rows.push(format!("{} of {}", cells.join(" | "), types.join(" | ")));
        }
    }
    rows.sort();
    rows
}

async fn plan_of(engine: &Engine, sql: &str) -> String {
    let batches = engine.sql(&format!("explain {sql}")).await.unwrap();
    let plans = batches.iter().flat_map(|b| b.column(1).as_string::<i32>().iter().flatten().map(str::to_owned).collect::<Vec<_>>());
    plans.collect::<Vec<_>>().join("\n")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Is a statement answered by the history's aggregates? And is the answer the one without them?
#[track_caller]
fn check(past: &Arc<Past>, sql: &str, is_rewritten: bool) -> String {
    let [with, without] = engines(past);
    runtime().block_on(async {
        let plan = plan_of(&with, sql).await;
        assert_eq!(plan.contains("HistoryAggregateExec"), is_rewritten, "{sql}\n{plan}");
        assert!(!plan_of(&without, sql).await.contains("HistoryAggregateExec"));
        let (got, want) = (with.sql(sql).await, without.sql(sql).await);
        let (got, want) = (got.unwrap_or_else(|e| panic!("{sql}: {e}")), want.unwrap_or_else(|e| panic!("{sql}: {e}")));
        assert_eq!(lines(&got), lines(&want), "{sql}");
        plan
    })
}

/// Three stations, a value each half hour, for some days; of which the older ones are rolled up.
fn past(dir: &Path) -> Arc<Past> {
    let history = ColumnarHistory::open(dir, Vec::new()).unwrap();
    for day in 0..5 {
        let mut facts = Vec::new();
        for (i, station) in (0..48).flat_map(|i| (0..3_u8).map(move |station| (i, station))) {
            let s = day * DAY_S + i * 1_800;
            let v = (s / 1_800 % 17) as f64 / 8.0 + f64::from(station);
            facts.extend([value(station, "t", Some(s), s + 60, v), value(station, "u", Some(s), s + 60, -v)]);
        }
        facts.push(value(1, "name", Some(day * DAY_S + 7), day * DAY_S + 7, "one"));
        facts.push(value(2, "name", None, day * DAY_S + 8, "two"));
        facts.push(value(2, "t", None, day * DAY_S + 9, 1000));
        history.append(facts);
        history.seal().unwrap();
    }
    history.maintain(&policy(None), at(4 * DAY_S + 3 * HOUR_S)).unwrap();
    history.seal().unwrap();
    history.committed();
    history.append(vec![value(1, "t", Some(DAY_S + 60), 6 * DAY_S, 0.5), value(1, "t", Some(DAY_S), 6 * DAY_S, 0.25)]);
    Arc::new(Past(history))
}

#[test]
fn only_what_means_the_same_is_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    let past = past(dir.path());
    let faults = std::cell::RefCell::new(Vec::new());
    let check = |sql: &str, is_rewritten: bool| {
        let sql = sql.replace("FROM", r#"from "Station_history""#);
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&past, &sql, is_rewritten)));
        checked.unwrap_or_else(|_| {
            faults.borrow_mut().push(sql);
            String::new()
        })
    };
    let day = "observed_at >= '2024-01-30' and observed_at < '2024-02-01T12:00:00Z'";

    let plan = check(&format!("select id, time_bucket('1 hour', observed_at) as b, avg(t) FROM where {day} group by id, b"), true);
    for part in ["by [id, 3600 s from", "roll-up of 1.000 h in [2024-01-30T00:00:00Z, 2024-02-01T00:00:00Z)", " of 5 files", "in memory"] {
        assert!(plan.contains(part), "{part}: {plan}");
    }
    check(
        "select date_bin(interval '1 hour', observed_at, timestamp '2024-01-01T00:00:00Z') as b, avg(t), avg(u) FROM group by 1 order by 1",
        true,
    );
    check("select date_trunc('week', observed_at), min(t), max(t), sum(t), count(t), count(*) FROM group by 1", true);
    check(
        "select time_bucket('1 month', observed_at, timestamp '2023-11-01') as b, id, count(*) FROM group by b, id having count(*) > 100",
        true,
    );
    check(
        "select time_bucket('1 day', observed_at, interval '8 hours') as b, avg(t) - min(t) as d FROM group by b order by d limit 2",
        true,
    );
    check("select avg(t), count(*), count(name) FROM", false);
    check("select avg(t), count(*), count(id), count(recorded_at) FROM", true);
    check("select avg(t), count(observed_at) FROM", false);
    check("select avg(t), count(observed_at) FROM where observed_at is not null", true);
    check("select sum(t), count(t), count(*) FROM where t is not null", true);
    check("select time_bucket('6 hours', observed_at) as b, id, max(t), count(*) FROM where t is not null group by 1, 2", true);
    check(&format!("select id, first(t, observed_at), last(t, observed_at) FROM where t is not null and {day} group by id"), true);
    check(&format!("select id, first(t, observed_at), last(u, observed_at) FROM where t is not null and {day} group by id"), false);
    check(&format!("select id, first(t, observed_at) filter (where t is not null) FROM where {day} group by id"), true);
    check(&format!("select id, first(t, observed_at) FROM where {day} group by id"), false);
    check("select id, last(t, observed_at) FROM where t is not null group by id", false);
    check(&format!("select id, max(observed_at), min(observed_at), max(t) FROM where t is not null and {day} group by id"), true);
    check(&format!("select time_bucket('1 hour', observed_at) as b, max(observed_at) FROM where u is not null and {day} group by b"), true);
    check(
        "select max(observed_at) filter (where t is not null), min(observed_at) filter (where u is not null) FROM where observed_at is not null",
        true,
    );
    check("select min(observed_at) filter (where t is not null and observed_at is not null) FROM where observed_at > '2099-01-01'", true);
    check(&format!("select id, max(observed_at) FROM where {day} group by id"), false);
    check("select id, max(observed_at) FROM where t is not null group by id", false);
    check(&format!("select max(observed_at) filter (where t is not null and u is not null) FROM where {day}"), false);
    check(&format!("select max(observed_at) filter (where t is not null) FROM where u is not null and {day}"), false);
    check(&format!("select max(observed_at) FROM where name is not null and {day}"), false);
    check("select id, count(*) FROM where id in ('urn:ngsi-ld:Station:1', 'urn:ngsi-ld:Station:9') group by id", true);
    check("select distinct id FROM", true);
    check("select avg(t) FROM where id = 'nobody'", true);
    check("select id, avg(t) FROM where observed_at > '2100-01-01' and observed_at < '2099-01-01' group by id", true);
    check("select count(*), avg(t) FROM where observed_at > '2261-12-31T23:00:00Z'", true);
    check(
        "select s.a, avg(s.v) from (select id as a, t as v, time_bucket('1 day', observed_at) as b from \"Station_history\") s group by s.a, s.b",
        true,
    );
    check(
        "select h.id, avg(t) from \"Station_history\" h join (values ('urn:ngsi-ld:Station:1')) as k(id) on h.id = k.id group by h.id",
        false,
    );
    check(
        "select k.column1, g.m from (values ('urn:ngsi-ld:Station:1')) as k join (select id, max(t) as m FROM group by id) g on g.id = k.column1",
        true,
    );
    check("select avg(t) from history_as_of('Station', '2024-01-31T05:00:00Z') where observed_at is not null", true);
    check(&format!("select time_bucket_gapfill('12 hours', observed_at) as b, locf(avg(t)) FROM where {day} group by b"), true);

    // Other meanings.
    for other in [
        "select id, avg(t) FROM where t > 1 group by id",
        "select id, avg(t) FROM where id like '%1' group by id",
        "select id, avg(u) FROM where t is not null group by id",
        "select id, avg(t) filter (where u < -1) FROM group by id",
        "select id, count(distinct t) FROM group by id",
        "select id, max(name) FROM group by id",
        "select dataset_id, avg(t) FROM group by dataset_id",
        "select id, max(observed_at) FROM group by id",
        "select id, stddev(t) FROM group by id",
        "select id, avg(t + 1) FROM group by id",
        "select time_bucket('1 hour', recorded_at) as b, avg(t) FROM group by b",
        "select time_bucket('1 hour', observed_at) as b, date_trunc('day', observed_at) as c, avg(t) FROM group by b, c",
        "select time_bucket('1 second', observed_at) as b, avg(t) FROM group by b",
        "select id, avg(t) FROM group by rollup(id)",
        "select id, avg(t) FROM where observed_at::date = '2024-01-30' group by id",
        "select id, avg(t) from (select * FROM order by id, observed_at, dataset_id limit 7) s group by id",
        "select time_bucket('1 hour', observed_at) as b, avg(t) FROM where recorded_at > '2024-01-30' group by b",
    ] {
        check(other, false);
    }
    assert!(faults.borrow().is_empty(), "{:#?}", faults.borrow());
}

#[test]
fn what_retention_removed_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let past = past(dir.path());
    past.0.maintain(&policy(Some(2)), at(5 * DAY_S)).unwrap();
    past.0.seal().unwrap();
    check(&past, r#"select time_bucket('1 day', observed_at) as b, count(*), avg(t) from "Station_history" group by b"#, true);
    check(&past, r#"select count(*), avg(t) from "Station_history" where observed_at > '2024-01-01'"#, true);
    // The function knows what roll-ups know.
    let [engine, _] = engines(&past);
    let sql = |rest: &str| {
        format!("select bucket, t_count, t_sum, t_min, t_max, t_mean, t_first, t_last from aggregate('Station', 't', '1 day') {rest}")
    };
    let one = sql("where id = 'urn:ngsi-ld:Station:0' order by bucket limit 1");
    let plan = runtime().block_on(plan_of(&engine, &one));
    assert!(plan.contains("id = urn:ngsi-ld:Station:0") && plan.contains("roll-up of 24.000 h in [2024-01-29T00:00:00Z"), "{plan}");
    let row = lines(&runtime().block_on(engine.sql(&one)).unwrap()).remove(0);
    // The first of the 48 values is 0, and each 17th one; the last is 47 modulo 17.
    assert!(row.starts_with("2024-01-29T00:00:00Z | 48 | 45.375 | 0.0 | 2.0 | 0.9453125 | 0.0 | 1.625 of "), "{row}");
    assert_eq!(lines(&runtime().block_on(engine.sql(&sql(""))).unwrap()).len(), 15);
}

#[test]
fn a_column_that_became_another_one_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let past = past(dir.path());
    let [engine, _] = engines(&past);
    let error = runtime().block_on(async {
        let statement = engine.parse_one(r#"select id, avg(t) from "Station_history" group by id"#).unwrap();
        let plan = engine.frame(statement).await.unwrap().create_physical_plan().await.unwrap();
        past.0.append(vec![value(1, "t", Some(9 * DAY_S), 9 * DAY_S, "broken")]);
        datafusion::physical_plan::collect(plan, engine.context().task_ctx()).await.unwrap_err().to_string()
    });
    assert!(error.contains("column `t` was one of numbers"), "{error}");
}

/// Entity, attribute, half hour, quarter of an hour, value.
type Reported = (u8, u8, i64, i8);

fn statement() -> impl Strategy<Value = String> {
    let bucket = prop::sample::select(vec![
        "time_bucket('1 hour', observed_at)",
        "time_bucket('1 day', observed_at)",
        "time_bucket('42 minutes', observed_at, '3 minutes')",
        "time_bucket('1 month', observed_at)",
        "time_bucket('1 day', observed_at, '8 hours')",
        "date_bin(interval '2 hours', observed_at, timestamp '2024-01-01T00:30:00Z')",
        "date_trunc('day', observed_at)",
        "date_trunc('week', observed_at)",
        "date_trunc('quarter', observed_at)",
    ]);
    let groups = (any::<bool>(), prop::option::weighted(0.7, bucket)).prop_map(|(by_id, bucket)| {
        let mut groups: Vec<&str> = if by_id { vec!["id"] } else { Vec::new() };
        groups.extend(bucket);
        groups
    });
    let aggregates = prop::sample::subsequence(
        vec!["avg(t)", "min(u)", "max(t)", "count(t)", "count(*)", "sum(u)", "count(u)", "sum(t)", "count(name)"],
        1..4,
    );
    let conditions = prop::sample::subsequence(
        vec![
            "id = 'urn:ngsi-ld:Station:1'",
            "id in ('urn:ngsi-ld:Station:0', 'urn:ngsi-ld:Station:2')",
            "observed_at >= '2024-01-30'",
            "observed_at < '2024-02-01'",
            "observed_at between '2024-01-29T12:00:00Z' and '2024-02-01T06:30:00Z'",
            "observed_at is not null",
            "t is not null",
            "u > 0",
        ],
        0..3,
    );
    let table = prop::sample::select(vec![
        r#""Station_history""#,
        r#""Station_history""#,
        r#"(select * from "Station_history") s"#,
        "history_as_of('Station', '2024-01-31T06:00:00Z')",
    ]);
    (groups, aggregates, conditions, table, any::<bool>()).prop_map(|(groups, aggregates, conditions, table, having)| {
        let columns: Vec<&str> = groups.iter().copied().chain(aggregates).collect();
        let mut sql = format!("select {} from {table}", columns.join(", "));
        if !conditions.is_empty() {
            sql.push_str(&format!(" where {}", conditions.join(" and ")));
        }
        if !groups.is_empty() {
            sql.push_str(&format!(" group by {}", groups.join(", ")));
            if having {
                sql.push_str(" having count(t) <> 1");
            }
        }
        sql
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn statements_answer_the_same_without_the_rule(
        steps in prop::collection::vec(
            (
                prop::collection::vec((0_u8..3, 0_u8..4, 0_i64..5 * 48, -40_i8..40), 0..40),
                0_u8..5,
                prop::option::weighted(0.2, (prop::option::of(0_u8..3), any::<bool>(), prop::option::of(0_i64..5 * 24))),
            ),
            1..8,
        ),
        raw_days in prop::option::weighted(0.2, 1_u32..4),
        statements in prop::collection::vec(statement(), 12),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let history = ColumnarHistory::open(dir.path(), Vec::new()).unwrap();
        // So that the columns are there.
        history.append(vec![value(0, "t", Some(0), 0, 1), value(0, "u", Some(0), 0, 1), value(0, "name", Some(0), 0, "x")]);
        for (i, (values, then, erase)) in steps.iter().enumerate() {
            // Half a day of real time each.
            let now_s = i as i64 * 12 * HOUR_S;
            let fact = |(n, (entity, name, half_hour, v)): (usize, &Reported)| {
                let name = ["t", "u", "t", "name"][usize::from(*name)];
                let observed = (v % 11 != 0).then_some(half_hour * 1_800 + i64::from(*v) * 3);
                let v_json = if name == "name" { serde_json::json!("text") } else { serde_json::json!(f64::from(*v) / 8.0) };
                let mut fact = value(*entity, name, observed, now_s + n as i64 + 1, v_json);
                if let What::Value { instance, .. } = &mut fact.what {
                    Arc::make_mut(instance).dataset_id = (v % 5 == 0).then(|| entity::Iri::known("urn:dataset:x"));
                }
                fact
            };
            history.append(values.iter().enumerate().map(fact).collect());
            if let Some((entity, one_attribute, hour)) = erase {
                let times = hour.map_or(ErasedTimes::All, |h| ErasedTimes::Observed(at(h * HOUR_S)..at((h + 30) * HOUR_S)));
                let entity = entity.map(|e| entity::Iri::known(&format!("urn:ngsi-ld:Station:{e}")));
                let attribute = one_attribute.then(|| iri("t"));
                let recorded_at = at(now_s + 100);
                history.erase(Erasure { entity_type: iri("Station"), recorded_at, entity, attribute, instances: ErasedInstances::All, times }).unwrap();
            }
            if *then > 0 {
                history.seal().unwrap();
                history.committed();
            }
            if *then > 1 {
                while history.maintain(&policy(raw_days), at(now_s + 6 * HOUR_S)).unwrap().more {}
            }
        }
        let past = Arc::new(Past(history));
        let [with, without] = engines(&past);
        runtime().block_on(async {
            for sql in &statements {
                let of = |answer: Result<Vec<RecordBatch>, crate::QueryError>| answer.map(|a| lines(&a)).map_err(|e| e.to_string());
                prop_assert_eq!(of(with.sql(sql).await), of(without.sql(sql).await), "{}\n{}", sql, plan_of(&with, sql).await);
            }
            Ok(())
        })?;
    }
}
