//! CPU time of aggregates over the history: 600 stations report 5 properties each quarter of an hour for 30 days (8.64 million values),
//! sealed in portions of 3 days.
//!
//! ```text
//! cargo run --profile quick -p store --example aggregate_speed -- [stations] [beginning of the questions to ask]
//! ```
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

mod stations;

use std::error::Error;

use entity::Attribute;
use host::Stopwatch;
use stations::{PROPERTIES, QUARTER_US, QUARTERS, at, attribute, entity_type, noise, station};
use store::history::columnar::ColumnarHistory;
use store::history::{AggregateQuery, Bucket, Fact, History, Measure, What};

const QUARTERS_PER_SEAL: i64 = 288;
const REPEATS: usize = 9;
/// Time over which quick questions are measured, in µs.
const QUICK_US: u128 = 200_000;

fn main() -> Result<(), Box<dyn Error>> {
    let n_stations: usize = std::env::args().nth(1).map_or(Ok(600), |n| n.parse())?;
    let dir = tempfile::tempdir()?;
    let history = ColumnarHistory::open(dir.path(), Vec::new())?;
    let mut segments = Vec::new();
    let mut noise = noise();
    let mut levels = vec![[0.0_f64; PROPERTIES.len()]; n_stations];
    for from in (0..QUARTERS).step_by(usize::try_from(QUARTERS_PER_SEAL)?) {
        for quarter in from..from + QUARTERS_PER_SEAL {
            history.append(facts(&mut levels, quarter, &mut noise));
        }
        segments = history.seal()?;
        history.committed();
    }
    let bytes: u64 = segments.iter().map(|s| s.bytes).sum();
    println!("{n_stations} stations, {} segments, {bytes} bytes", segments.len());
    let hours = AggregateQuery {
        entity_type: entity_type(),
        attributes: PROPERTIES.map(attribute).to_vec(),
        entities: None,
        observed: Some(at(0)..at(QUARTERS)),
        bucket: Bucket::width(4 * QUARTER_US),
        per_entity: true,
        measures: vec![Measure::Count, Measure::Mean, Measure::Min, Measure::Max],
        as_of: None,
    };
    let one = AggregateQuery { entities: Some(vec![station(n_stations / 2)]), attributes: vec![attribute("no2")], ..hours.clone() };
    timed("one series by hour", &history, &one)?;
    timed("one series by day", &history, &AggregateQuery { bucket: Bucket::day(0), ..one })?;
    timed("all series by hour", &history, &hours)?;
    timed("all series by hour, mean only", &history, &AggregateQuery { measures: vec![Measure::Mean], ..hours.clone() })?;
    timed("all series together by day", &history, &AggregateQuery { per_entity: false, bucket: Bucket::day(0), ..hours })
}

/// Prints the median and the least CPU time of some runs.
fn timed(what: &str, history: &ColumnarHistory, query: &AggregateQuery) -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(2).is_some_and(|only| !what.starts_with(&only)) {
        return Ok(());
    }
    let mut times = Vec::new();
    let mut n_rows = 0;
    let mut sources = store::history::Sources::default();
    // The kernel counts CPU time in steps of some milliseconds: quick questions are asked many times over.
    let watch = Stopwatch::start();
    history.aggregate(query)?;
    let n_at_once = (QUICK_US / watch.elapsed().as_micros().max(1)).max(1);
    for _ in 0..REPEATS {
        let start = cpu_us()?;
        for _ in 1..n_at_once {
            history.aggregate(query)?;
        }
        let answer = history.aggregate(query)?;
        times.push((cpu_us()? - start) / n_at_once as f64);
        n_rows = answer.batches.iter().map(arrow::record_batch::RecordBatch::num_rows).sum();
        sources = answer.sources;
    }
    times.sort_by(f64::total_cmp);
    let (median, least) = (times[REPEATS / 2] / 1e3, times[0] / 1e3);
    println!(
        "{what}: {median:.3} ms CPU (least {least:.3}) for {n_rows} rows from {} raw and {} roll-up rows",
        sources.n_raw_rows, sources.n_rollup_rows
    );
    Ok(())
}

/// CPU time of this thread, in µs.
fn cpu_us() -> Result<f64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split(' ').next().ok_or("no CPU time in schedstat")?.parse::<f64>()? / 1e3)
}

fn facts(levels: &mut [[f64; PROPERTIES.len()]], quarter: i64, noise: &mut impl FnMut() -> f64) -> Vec<Fact> {
    let mut facts = Vec::new();
    for (i, level) in levels.iter_mut().enumerate() {
        for (name, level) in PROPERTIES.iter().zip(level) {
            *level = *level * 0.98 + noise() * 2.0;
            let value = ((50.0 + 10.0 * *level) * 10.0).round() / 10.0;
            let recorded_at = at(quarter).plus_micros(5_000_000 + i64::try_from(i).unwrap_or(0));
            let mut instance = Attribute::property(value).observed(at(quarter));
            (instance.created_at, instance.modified_at) = (recorded_at, recorded_at);
            let what = What::Value { name: attribute(name), instance: instance.into() };
            facts.push(Fact { entity_type: entity_type(), entity: station(i), recorded_at, what });
        }
    }
    facts
}
