//! CPU time of statements over a history: 600 stations report 5 properties each quarter of an hour for 30 days (8.64 million values), sealed in
//! portions of 10 days. All threads of the process count.
//!
//! ```text
//! cargo run --profile quick -p query --example statement_speed -- [beginning of the statements to ask, or a statement] [seconds each]
//! ```
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

#[path = "../../store/examples/stations/mod.rs"]
mod stations;

use std::error::Error;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray, TimestampMicrosecondArray};
use arrow::record_batch::RecordBatch;
use entity::{Attribute, Entity, Iri};
use host::Stopwatch;
use query::{Engine, Limits, Source};
use stations::{PROPERTIES, QUARTERS, at, attribute, entity_type, noise, station};
use store::history::columnar::ColumnarHistory;
use store::history::{BulkRows, History};

const STATIONS: usize = 600;
const QUARTERS_PER_SEAL: i64 = 960;
const QUARTERS_AT_ONCE: i64 = 96;

struct City {
    entities: Vec<Arc<Entity>>,
    history: ColumnarHistory,
}

impl Source for City {
    fn types(&self) -> Vec<Iri> {
        vec![entity_type()]
    }

    fn entities(&self, _entity_type: &Iri) -> Vec<Arc<Entity>> {
        self.entities.clone()
    }

    fn history(&self) -> &dyn History {
        &self.history
    }

    fn short_name(&self, name: &Iri) -> String {
        name.as_str().rsplit(['#', '/']).next().unwrap_or_default().to_owned()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (only, seconds) = (arguments.next().unwrap_or_default(), arguments.next().map_or(Ok(2), |n| n.parse::<u64>())?);
    let dir = tempfile::tempdir()?;
    let history = ColumnarHistory::open(dir.path(), Vec::new())?;
    let mut noise = noise();
    let mut levels = vec![0.0_f64; STATIONS * PROPERTIES.len()];
    for from in (0..QUARTERS).step_by(usize::try_from(QUARTERS_PER_SEAL)?) {
        for quarter in (from..from + QUARTERS_PER_SEAL).step_by(usize::try_from(QUARTERS_AT_ONCE)?) {
            history.append_rows(rows(quarter, &mut levels, &mut noise)?);
        }
        history.seal()?;
        history.committed();
    }
    // Files are merged in the background, which is not to be measured.
    let mut before = -1.0;
    while cpu_us()? - before > 50_000.0 {
        before = cpu_us()?;
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    let entities = (0..STATIONS).map(|i| {
        let all = PROPERTIES.iter().map(|name| (attribute(name), Attribute::property(12.5).observed(at(QUARTERS))));
        Arc::new(all.fold(Entity::new(station(i), entity_type()), |entity, (name, value)| entity.with(name, value)))
    });
    let engine = Engine::new(Arc::new(City { entities: entities.collect(), history }), &Limits::default())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let hour = "date_bin(interval '1 hour', observed_at, timestamp '2024-01-01T00:00:00Z')";
    let averages = PROPERTIES.map(|n| format!("avg({n})")).join(", ");
    let statements = [
        ("nothing", "select 1".to_owned()),
        ("last-1000", format!(r#"select id, {} from "AirQualityObserved" order by id limit 200"#, PROPERTIES.join(", "))),
        (
            "one-by-hour",
            format!(
                r#"select {hour} as hour, avg(pm25) from "AirQualityObserved_history" where id = '{}' group by 1 order by 1"#,
                station(123)
            ),
        ),
        ("one-rows", format!(r#"select observed_at, pm25 from "AirQualityObserved_history" where id = '{}' order by 1"#, station(123))),
        ("all-by-hour", format!(r#"select {hour} as hour, {averages} from "AirQualityObserved_history" group by 1 order by 1"#)),
        (
            "each-by-day",
            format!(r#"select id, date_trunc('day', observed_at), {averages} from "AirQualityObserved_history" group by 1, 2"#),
        ),
    ];
    let own = [("own", only.clone())];
    let chosen = if only.contains(' ') { own.as_slice() } else { &statements };
    for (name, sql) in chosen.iter().filter(|(name, _)| *name == "own" || name.starts_with(&only)) {
        runtime.block_on(engine.sql(sql))?;
        let (watch, start, mut n) = (Stopwatch::start(), cpu_us()?, 0_u32);
        let mut n_rows = 0;
        while watch.elapsed().as_secs() < seconds {
            n_rows = runtime.block_on(engine.sql(sql))?.iter().map(RecordBatch::num_rows).sum();
            n += 1;
        }
        let (cpu, wall) = (cpu_us()? - start, watch.elapsed().as_secs_f64() * 1e6);
        println!(
            "{name}: {:.3} ms CPU, {:.3} ms by the clock, {n_rows} rows, {n} times",
            cpu / f64::from(n) / 1e3,
            wall / f64::from(n) / 1e3
        );
    }
    Ok(())
}

/// CPU time of the process, in µs.
fn cpu_us() -> Result<f64, Box<dyn Error>> {
    let mut sum = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        sum += text.split(' ').next().ok_or("no CPU time in schedstat")?.parse::<f64>()? / 1e3;
    }
    Ok(sum)
}

fn rows(from: i64, levels: &mut [f64], noise: &mut impl FnMut() -> f64) -> Result<BulkRows, Box<dyn Error>> {
    let n = STATIONS * usize::try_from(QUARTERS_AT_ONCE)?;
    let (mut ids, mut times) = (Vec::with_capacity(n), Vec::with_capacity(n));
    let mut columns = vec![Vec::with_capacity(n); PROPERTIES.len()];
    for quarter in from..from + QUARTERS_AT_ONCE {
        for i in 0..STATIONS {
            ids.push(station(i).to_string());
            times.push(at(quarter).micros());
            for (p, column) in columns.iter_mut().enumerate() {
                let level = &mut levels[i * PROPERTIES.len() + p];
                *level = *level * 0.98 + noise() * 2.0;
                column.push(((50.0 + 10.0 * *level) * 10.0).round() / 10.0);
            }
        }
    }
    let times = TimestampMicrosecondArray::from(times).with_timezone("UTC");
    let mut arrays: Vec<(String, ArrayRef)> =
        vec![("entity_id".to_owned(), Arc::new(StringArray::from(ids))), ("observed_at".to_owned(), Arc::new(times))];
    for (name, values) in PROPERTIES.iter().zip(columns) {
        arrays.push((attribute(name).to_string(), Arc::new(Float64Array::from(values))));
    }
    Ok(BulkRows::new(entity_type(), at(from + QUARTERS_AT_ONCE), RecordBatch::try_from_iter(arrays)?)?)
}
