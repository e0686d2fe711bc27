//! How many bytes the sealed history takes per value, and how long the two commonest questions take.
//!
//! 12 stations report 6 pollutants each hour for 26,000 hours, sealed in 10 portions. Without arguments the values are generated from a
//! seed: a daily cycle under a slow random walk, rounded as stations report them. With arguments, each is the hourly CSV file of one
//! station (unpacked, with columns `PM2.5,PM10,SO2,NO2,CO,O3` after number and date, as in the Beijing multi-site data set):
//!
//! ```text
//! cargo run --profile quick -p store --example history_size -- [station.csv ...]
//! ```
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::error::Error;
use std::time::Duration;

use entity::{Attribute, Instant, Iri};
use host::Stopwatch;
use store::history::columnar::ColumnarHistory;
use store::history::{Fact, History, HistoryScan, TemporalQuery, TimeProperty, What};

const N_STATIONS: usize = 12;
const N_HOURS: usize = 26_000;
const N_SEALS: usize = 10;
const POLLUTANTS: [&str; 6] = ["pm25", "pm10", "so2", "no2", "co", "o3"];
/// Level and step of what is reported, µg/m³.
const SCALES: [(f64, f64); 6] = [(80.0, 1.0), (110.0, 1.0), (18.0, 1.0), (50.0, 1.0), (1_200.0, 100.0), (60.0, 0.1)];

/// The values of a station, by hour; missing ones are none.
type Series = Vec<[Option<f64>; POLLUTANTS.len()]>;

fn main() -> Result<(), Box<dyn Error>> {
    let files: Vec<String> = std::env::args().skip(1).collect();
    let stations: Vec<Series> = if files.is_empty() {
        (0..N_STATIONS).map(generated).collect()
    } else {
        files.iter().map(|f| recorded(f)).collect::<Result<_, _>>()?
    };
    let n_hours = stations.iter().map(Vec::len).max().unwrap_or_default();
    let n_values = stations.iter().flatten().flatten().flatten().count();
    let dir = tempfile::tempdir()?;
    let history = ColumnarHistory::open(dir.path(), Vec::new())?;
    let (mut appending, mut sealing) = (Duration::ZERO, Duration::ZERO);
    let mut segments = Vec::new();
    for hours in (0..n_hours).collect::<Vec<_>>().chunks(n_hours.div_ceil(N_SEALS).max(1)) {
        let start = Stopwatch::start();
        for &hour in hours {
            history.append(facts(&stations, hour));
        }
        appending += start.elapsed();
        let start = Stopwatch::start();
        segments = history.seal()?;
        sealing += start.elapsed();
    }
    let bytes: u64 = segments.iter().map(|s| s.bytes).sum();
    println!("{} stations, {n_hours} hours, {n_values} values, {} segments", stations.len(), segments.len());
    println!("size       {bytes} bytes, {:.2} bytes per value (times, ids and units included)", bytes as f64 / n_values as f64);
    println!("append     {:.0} values/s", n_values as f64 / appending.as_secs_f64());
    println!("seal       {:.0} values/s", n_values as f64 / sealing.as_secs_f64());
    ask(&history, n_hours)
}

fn ask(history: &ColumnarHistory, n_hours: usize) -> Result<(), Box<dyn Error>> {
    let end = Instant::from_secs(i64::try_from(n_hours)? * 3_600);
    let week = TemporalQuery {
        entity: station(3),
        attributes: Some(vec![attribute("pm25")]),
        interval: Some(end.plus_micros(-7 * 86_400_000_000)..end),
        time_property: TimeProperty::ObservedAt,
        last_n: None,
        as_of: None,
        instances_max: 10_000,
    };
    timed("week       ", || Ok(history.evolution(&week)?.map_or(0, |e| e.attributes.values().map(Vec::len).sum())))?;
    let all = TemporalQuery { attributes: None, interval: None, instances_max: usize::MAX, ..week.clone() };
    timed("all of one ", || Ok(history.evolution(&all)?.map_or(0, |e| e.attributes.values().map(Vec::len).sum())))?;
    let latest = TemporalQuery { interval: None, last_n: Some(1), ..week };
    timed("latest     ", || Ok(history.evolution(&latest)?.map_or(0, |e| e.attributes.values().map(Vec::len).sum())))?;
    let scan = HistoryScan {
        entity_type: entity_type(),
        attributes: POLLUTANTS.map(attribute).to_vec(),
        entities: None,
        observed: None,
        as_of: None,
    };
    timed("scan       ", || Ok(history.scan(&scan)?.iter().map(arrow::record_batch::RecordBatch::num_rows).sum()))
}

/// Prints the median of five runs.
fn timed(what: &str, f: impl Fn() -> Result<usize, Box<dyn Error>>) -> Result<(), Box<dyn Error>> {
    let mut times = Vec::new();
    let mut n = 0;
    for _ in 0..5 {
        let start = Stopwatch::start();
        n = f()?;
        times.push(start.elapsed());
    }
    times.sort();
    println!("{what}{:.1} ms for {n}", times[2].as_secs_f64() * 1e3);
    Ok(())
}

fn facts(stations: &[Series], hour: usize) -> Vec<Fact> {
    let observed_at = Instant::from_secs(i64::try_from(hour).unwrap_or(i64::MAX) * 3_600);
    let mut facts = Vec::new();
    for (i, series) in stations.iter().enumerate() {
        // A few minutes after the hour, each station when it comes.
        let jitter = (hour * 31 + i * 17) % 240_000_000;
        let recorded_at = observed_at.plus_micros(60_000_000 + i64::try_from(jitter * 997 % 240_000_000).unwrap_or_default());
        for (name, value) in POLLUTANTS.iter().zip(series.get(hour).into_iter().flatten()) {
            let Some(value) = *value else { continue };
            let number = if value.fract() == 0.0 { serde_json::Value::from(value as i64) } else { serde_json::Value::from(value) };
            let mut instance = Attribute::property(number).observed(observed_at);
            instance.unit_code = Some("GQ".into());
            // The instance exists since the first report.
            instance.created_at = Instant::from_secs(60);
            instance.modified_at = recorded_at;
            let what = What::Value { name: attribute(name), instance: instance.into() };
            facts.push(Fact { entity_type: entity_type(), entity: station(i), recorded_at, what });
        }
    }
    facts
}

fn generated(station: usize) -> Series {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(station as u64 + 1);
    let mut noise = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
    };
    let mut walk = [0.0_f64; POLLUTANTS.len()];
    let hour = |hour: usize| {
        let day = (hour as f64 / 24.0 * std::f64::consts::TAU).sin();
        std::array::from_fn(|i| {
            walk[i] = walk[i] * 0.98 + noise() * 0.5;
            let (level, step) = SCALES[i];
            let value = (level * (1.0 + 0.3 * day + walk[i])).max(step);
            Some((value / step).round() * step).map(|v| (v * 10.0).round() / 10.0)
        })
    };
    (0..N_HOURS).map(hour).collect()
}

fn recorded(path: &str) -> Result<Series, Box<dyn Error>> {
    let text = std::fs::read_to_string(path)?;
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        std::array::from_fn(|i| cells.get(5 + i).and_then(|c| c.parse().ok()))
    };
    Ok(text.lines().skip(1).map(row).collect())
}

fn station(i: usize) -> Iri {
    Iri::known(&format!("urn:ngsi-ld:AirQualityObserved:Beijing-{i:02}"))
}

fn entity_type() -> Iri {
    Iri::known("https://uri.fiware.org/ns/dataModels#AirQualityObserved")
}

fn attribute(name: &str) -> Iri {
    Iri::known(&format!("https://uri.fiware.org/ns/dataModels#{name}"))
}
