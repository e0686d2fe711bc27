//! What a value costs that comes in bulk: CPU time from the batch to the sealed file, and bytes on disk after compaction.
//!
//! 600 stations report 5 values each quarter of an hour for 30 days, time by time, in batches of 10,000 rows, sealed in two portions:
//! 8.64 million values. They are generated from a seed: a daily cycle under a slow random walk, rounded to one or two decimals.
//!
//! ```text
//! cargo run --profile quick -p store --example bulk_rows
//! ```
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;
use entity::{Instant, Iri};
use host::{RealDisk, Stopwatch};
use store::blobs::DiskBlobs;
use store::history::columnar::{ColumnarHistory, ColumnarOptions};
use store::history::{BulkRows, History, HistoryScan, TemporalQuery, TimeProperty};

const N_STATIONS: usize = 600;
const N_TIMES: usize = 2_880;
const BATCH_ROWS: usize = 10_000;
const N_SEALS: usize = 2;
const QUARTER_US: i64 = 900_000_000;
/// Name, unit, level, and how many steps one is.
const PROPERTIES: [(&str, &str, f64, f64); 5] = [
    ("pm25", "GQ", 80.0, 10.0),
    ("no2", "GQ", 50.0, 10.0),
    ("temperature", "CEL", 20.0, 10.0),
    ("humidity", "P1", 60.0, 10.0),
    ("co", "GP", 1.2, 100.0),
];

fn main() -> Result<(), Box<dyn Error>> {
    let columns: Vec<Vec<f64>> = (0..PROPERTIES.len()).map(generated).collect();
    let ids: Vec<String> = (0..N_STATIONS).map(|i| station(i).to_string()).collect();
    let n_rows = N_STATIONS * N_TIMES;
    let n_values = n_rows * PROPERTIES.len();
    let batches = (0..n_rows)
        .step_by(BATCH_ROWS)
        .map(|from| batch(&ids, &columns, from..(from + BATCH_ROWS).min(n_rows)))
        .collect::<Result<Vec<_>, _>>()?;

    let dir = tempfile::tempdir()?;
    let blobs = DiskBlobs::open(Arc::new(RealDisk), dir.path())?;
    let options = ColumnarOptions { compaction: false, ..ColumnarOptions::default() };
    let history = ColumnarHistory::open_on(Arc::new(blobs), Vec::new(), options)?;
    let (mut checking, mut appending, mut sealing) = (0.0, 0.0, 0.0);
    let n_per_seal = batches.len().div_ceil(N_SEALS);
    for (i, portion) in batches.chunks(n_per_seal).enumerate() {
        for (j, batch) in portion.iter().enumerate() {
            let recorded_at = Instant::from_secs(i64::try_from(i * n_per_seal + j)?).plus_micros(1_800_000_000_000_000);
            let (rows, cpu) = cpu(|| BulkRows::new(entity_type(), recorded_at, batch.clone()))?;
            checking += cpu;
            let rows = rows?;
            appending += self::cpu(|| history.append_rows(rows))?.1;
        }
        let (segments, cpu) = cpu(|| history.seal())?;
        segments?;
        sealing += cpu;
    }
    let per_value = |cpu_s: f64| cpu_s / n_values as f64 * 1e6;
    println!("{N_STATIONS} stations x {} properties x {N_TIMES} times = {n_values} values, {} batches", PROPERTIES.len(), batches.len());
    println!("check      {:.3} µs CPU per value", per_value(checking));
    println!("append     {:.3} µs CPU per value", per_value(appending));
    println!("seal       {:.3} µs CPU per value", per_value(sealing));
    println!(
        "all        {:.3} µs CPU per value, {:.0} values per CPU second",
        per_value(checking + appending + sealing),
        n_values as f64 / (checking + appending + sealing)
    );
    let size = |what: &str| -> Result<(), Box<dyn Error>> {
        let segments = history.seal()?;
        let bytes: u64 = segments.iter().map(|s| s.bytes).sum();
        println!(
            "{what} {} files, {bytes} bytes, {:.2} bytes per value (times, ids, units included)",
            segments.len(),
            bytes as f64 / n_values as f64
        );
        Ok(())
    };
    size("sealed    ")?;
    let (compacted, cpu_s) = cpu(|| history.compact())?;
    compacted?;
    println!("compact    {:.3} µs CPU per value", per_value(cpu_s));
    size("compacted ")?;
    ask(&history)
}

fn ask(history: &ColumnarHistory) -> Result<(), Box<dyn Error>> {
    let one = TemporalQuery {
        entity: station(300),
        attributes: Some(vec![attribute("pm25")]),
        interval: None,
        time_property: TimeProperty::ObservedAt,
        last_n: None,
        as_of: None,
        instances_max: usize::MAX,
    };
    timed("one series of one (evolution)", 50, || Ok(history.evolution(&one)?.map_or(0, |e| e.attributes.values().map(Vec::len).sum())))?;
    let scan =
        |entities| HistoryScan { entity_type: entity_type(), attributes: vec![attribute("pm25")], entities, observed: None, as_of: None };
    let count =
        |scan: &HistoryScan| -> Result<usize, Box<dyn Error>> { history.stream(scan)?.try_fold(0, |n, batch| Ok(n + batch?.num_rows())) };
    timed("one series of one (scan)", 500, || count(&scan(Some(vec![station(300)]))))?;
    timed("one property of all (scan)", 5, || count(&scan(None)))?;
    timed("everything (scan)", 5, || count(&HistoryScan { attributes: PROPERTIES.iter().map(|p| attribute(p.0)).collect(), ..scan(None) }))
}

/// Prints the mean of some runs, after one that warms up. Several together: the system counts CPU time in ticks.
fn timed(what: &str, n_runs: usize, f: impl Fn() -> Result<usize, Box<dyn Error>>) -> Result<(), Box<dyn Error>> {
    let n = f()?;
    let (result, cpu_s) = cpu(|| (0..n_runs).try_for_each(|_| f().map(|_| ())))?;
    result?;
    println!("{what:30} {:8.3} ms CPU for {n} rows", cpu_s / n_runs as f64 * 1e3);
    Ok(())
}

/// What a piece of work returns, and the CPU seconds that this thread took for it (where the system does not tell: the seconds).
fn cpu<T>(f: impl FnOnce() -> T) -> Result<(T, f64), Box<dyn Error>> {
    let watch = Stopwatch::start();
    let before = thread_cpu_ns();
    let result = f();
    let cpu_s = match (before, thread_cpu_ns()) {
        (Some(before), Some(after)) => (after - before) as f64 / 1e9,
        _ => watch.elapsed().as_secs_f64(),
    };
    Ok((result, cpu_s))
}

/// CPU time of this thread, as Linux tells it.
fn thread_cpu_ns() -> Option<u64> {
    std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split_whitespace().next()?.parse().ok()
}

fn batch(ids: &[String], columns: &[Vec<f64>], rows: std::ops::Range<usize>) -> Result<RecordBatch, Box<dyn Error>> {
    let mut fields = vec![
        Field::new("entity_id", DataType::Utf8, false),
        Field::new("observed_at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
    ];
    let names: StringArray = rows.clone().map(|row| Some(ids[row % N_STATIONS].as_str())).collect();
    let start = 1_700_006_400_000_000;
    let times: TimestampMicrosecondArray =
        rows.clone().map(|row| Some(start + i64::try_from(row / N_STATIONS).unwrap_or_default() * QUARTER_US)).collect();
    let mut arrays: Vec<ArrayRef> = vec![Arc::new(names), Arc::new(times.with_timezone("UTC"))];
    for ((name, unit, ..), values) in PROPERTIES.iter().zip(columns) {
        let metadata: HashMap<String, String> = [("unit_code".to_owned(), (*unit).to_owned())].into_iter().collect();
        fields.push(Field::new(attribute(name).as_str(), DataType::Float64, true).with_metadata(metadata));
        arrays.push(Arc::new(Float64Array::from(values[rows.clone()].to_vec())));
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

/// The values of a property, time by time.
fn generated(property: usize) -> Vec<f64> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(property as u64 + 1);
    let mut noise = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
    };
    let (_, _, level, steps) = PROPERTIES[property];
    let mut walk = [0.0_f64; N_STATIONS];
    let mut values = Vec::with_capacity(N_STATIONS * N_TIMES);
    for time in 0..N_TIMES {
        let day = (time as f64 / 96.0 * std::f64::consts::TAU).sin();
        for walk in &mut walk {
            *walk = *walk * 0.99 + noise() * 0.05;
            values.push((level * (1.0 + 0.2 * day + *walk) * steps).round() / steps);
        }
    }
    values
}

fn station(i: usize) -> Iri {
    Iri::known(&format!("urn:ngsi-ld:AirQualityObserved:Beijing-{i:04}"))
}

fn entity_type() -> Iri {
    Iri::known("https://uri.fiware.org/ns/dataModels#AirQualityObserved")
}

fn attribute(name: &str) -> Iri {
    Iri::known(&format!("https://uri.fiware.org/ns/dataModels#{name}"))
}
