//! What cannot be said in an `.slt` file: freshness, what the history is asked for, limits, many operators.

use std::time::Duration;

use entity::{Attribute, Instant};
use query::{Engine, Limits, QueryError};

use crate::city::{at, city, iri, station};
use crate::slt::rows;

fn engine(limits: &Limits) -> (std::sync::Arc<crate::city::City>, Engine) {
    let city = city();
    (city.clone(), Engine::new(city, limits).unwrap())
}

#[tokio::test]
async fn a_type_and_an_attribute_appear_by_themselves() {
    let (city, engine) = engine(&Limits::default());
    assert!(engine.sql(r#"select * from "Lamp""#).await.is_err());
    let lamp = |i: u32| entity::Entity::new(entity::Iri::known(&format!("urn:lamp:{i}")), iri("Lamp"));
    city.put(lamp(1));
    assert_eq!(rows(&engine.sql(r#"select id from "Lamp""#).await.unwrap()), ["urn:lamp:1"]);
    city.put(lamp(2).with(iri("power_w"), Attribute::property(60)));
    assert_eq!(rows(&engine.sql(r#"select id from "Lamp" where power_w > 50"#).await.unwrap()), ["urn:lamp:2"]);
}

#[tokio::test]
async fn the_history_is_asked_for_no_more_than_needed() {
    let (city, engine) = engine(&Limits::default());
    engine
        .sql(
            r#"select pm25 from "AirQualityObserved_history"
               where id in ('urn:ngsi-ld:AirQualityObserved:gucheng', 'no iri')
               and observed_at >= '2014-01-01T01:00:00Z' and observed_at < '2014-01-01T03:00:00Z'"#,
        )
        .await
        .unwrap();
    let scan = city.history.scans.lock().unwrap().pop().unwrap();
    assert_eq!(scan.attributes, [iri("pm25")]);
    assert_eq!(scan.entities.unwrap(), [entity::Iri::known("urn:ngsi-ld:AirQualityObserved:gucheng")]);
    assert_eq!(scan.observed, Some(at("2014-01-01T01:00:00Z")..at("2014-01-01T03:00:00Z")));
    assert_eq!(scan.as_of, None);

    engine
        .sql(r#"select count(*) from history_as_of('AirQualityObserved', '2014-01-05T00:00:00Z') where observed_at > now()"#)
        .await
        .unwrap();
    let scan = city.history.scans.lock().unwrap().pop().unwrap();
    assert!(scan.attributes.is_empty());
    assert_eq!(scan.entities, None);
    assert_eq!(scan.as_of, Some(at("2014-01-05T00:00:00Z")));
    let observed = scan.observed.unwrap();
    assert!(observed.start > at("2025-01-01T00:00:00Z") && observed.end == Instant::MAX, "{observed:?}");
}

#[tokio::test]
async fn many_entities_are_read_in_batches_and_shares() {
    let (city, engine) = engine(&Limits::default());
    {
        let mut entities = city.entities.lock().unwrap();
        entities.extend((0..30_000).map(|i| std::sync::Arc::new(station(&format!("s{i}"), f64::from(i), "2014-01-02T00:00:00Z"))));
    }
    let sql = r#"select count(*), count(distinct id), sum(pm25) from "AirQualityObserved" where "stationName" like 's%'"#;
    assert_eq!(rows(&engine.sql(sql).await.unwrap()), ["30000 | 30000 | 449985000.0"]);
    assert_eq!(rows(&engine.sql(r#"select count(*) from "AirQualityObserved""#).await.unwrap()), ["30003"]);
    assert_eq!(
        engine.sql(r#"select id from "AirQualityObserved" limit 10"#).await.unwrap().iter().map(|b| b.num_rows()).sum::<usize>(),
        10
    );
}

#[tokio::test]
async fn a_statement_has_a_time_limit() {
    let (_, engine) = engine(&Limits { statement_time: Duration::from_millis(200), ..Limits::default() });
    let started = tokio::time::Instant::now();
    let error = engine.sql("select count(*) from generate_series(1, 1000000000000)").await.unwrap_err();
    assert!(matches!(error, QueryError::Timeout { .. }), "{error}");
    assert_eq!(error.to_string(), "statement cancelled: it took longer than the limit of 0.2 s");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn statements_have_a_memory_limit() {
    let (_, engine) = engine(&Limits { memory_bytes: 4 << 20, ..Limits::default() });
    let error = engine.sql("select value, count(*) from generate_series(1, 2000000) group by value order by 2").await.unwrap_err();
    assert_eq!(error.sqlstate(), "53200", "{error}");
    assert!(error.to_string().starts_with("the statement needs more memory than the limit"), "{error}");
    // The next one has it again.
    engine.sql("select count(*) from generate_series(1, 1000)").await.unwrap();
}

#[tokio::test]
async fn the_history_in_flight_counts_as_memory() {
    let (_, engine) = engine(&Limits { memory_bytes: 64, ..Limits::default() });
    let error = engine.sql(r#"select * from "AirQualityObserved_history""#).await.unwrap_err();
    assert_eq!(error.sqlstate(), "53200", "{error}");
}

/// Statements as wide and as deep as they are let in, and deeper.
pub(crate) fn deep_statements() -> Vec<String> {
    vec![
        format!("select 1{}", "+1".repeat(1_990)),
        format!("select value from generate_series(1, 2) where {}value = 1", "value = 2 or ".repeat(990)),
        format!("select {}true", "not ".repeat(40)),
        format!("select 1{}", " union all select 1".repeat(600)),
        format!("select {}1{}", "(".repeat(5_000), ")".repeat(5_000)),
        format!("select 1{}", "::int::text".repeat(490)),
        format!("select {}1{}", "abs(".repeat(5_000), ")".repeat(5_000)),
        format!("select case {} end", "when 1 = 2 then 3 ".repeat(400)),
    ]
}

#[tokio::test]
async fn deep_statements_do_not_overflow_the_stack() {
    let (_, engine) = engine(&Limits::default());
    for sql in deep_statements() {
        // Answered or refused in words; a stack that overflows would take the whole program down.
        if let Err(error) = engine.sql(&sql).await {
            assert!(!error.to_string().is_empty());
        }
    }
}
