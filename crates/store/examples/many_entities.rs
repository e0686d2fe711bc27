//! How a store does with many entities: memory, time to load, cold start, and the commonest questions.
//!
//! ```text
//! cargo run --profile quick -p store --example many_entities -- 200000 [memory in MiB, default 768]
//! many_entities load DIR NUMBER MEMORY    # the first half of it: every change through log, state and history
//! many_entities fill DIR FROM NUMBER      # further entities right into the documents, as a checkpoint writes them: for starts and questions
//! many_entities ask DIR NUMBER MEMORY     # the second half: a start, and questions
//! ```
//!
//! Entities are about 1 KB as NGSI-LD JSON: a name in two languages, an address, a place, a district, eight readings. Loading and asking are two
//! processes, so that the memory of a cold start is that of a cold start. Everything is made from the number of the entity: no randomness.
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use entity::{
    Attribute, AttributeValue, Command, CompareOp, Comparison, Entity, Filter, GeoCondition, GeoRelation, Geometry, Instant, Iri, LOCATION,
    Operand, Target, TypeSelector,
};
use host::{Stopwatch, SystemClock};
use indexmap::IndexMap;
use serde_json::json;
use store::state::{Document, Documents, FjallDocuments, PageRequest, Space};
use store::{Options, Store, Submission};

const BATCH: usize = 1_000;
const N_RETRIEVED: usize = 20_000;
const N_QUERIES: usize = 200;
/// So few that no values are ordered yet.
const N_WALKED: usize = 56;
const READINGS: [&str; 8] = ["pm25", "pm10", "so2", "no2", "co", "o3", "temperature", "relativeHumidity"];

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["load", dir, n, memory] => load(Path::new(dir), n.parse()?, memory.parse()?),
        ["fill", dir, from, n] => fill(Path::new(dir), from.parse()?, n.parse()?),
        ["ask", dir, n, memory] => ask(Path::new(dir), n.parse()?, memory.parse()?),
        [n] => both(n, "768"),
        [n, memory] => both(n, memory),
        _ => Err("expected: many_entities NUMBER [MEMORY in MiB], or a step: load, fill or ask".into()),
    }
}

fn both(n: &str, memory: &str) -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    for step in ["load", "ask"] {
        let status = std::process::Command::new(std::env::current_exe()?).arg(step).arg(dir.path()).args([n, memory]).status()?;
        if !status.success() {
            return Err(format!("step {step} failed").into());
        }
    }
    Ok(())
}

fn open(dir: &Path, memory_mib: usize) -> Result<Store, Box<dyn Error>> {
    Ok(Store::open(Options {
        checkpoint_every: Duration::from_secs(300),
        memory_bytes: memory_mib << 20,
        ..Options::new(dir, Arc::new(SystemClock))
    })?)
}

fn load(dir: &Path, n: usize, memory_mib: usize) -> Result<(), Box<dyn Error>> {
    let store = open(dir, memory_mib)?;
    println!("an entity: {} bytes as JSON of the store", serde_json::to_string(&entity(0))?.len());
    let start = Stopwatch::start();
    let mut rss_max = 0;
    for from in (0..n).step_by(BATCH) {
        let commands = (from..(from + BATCH).min(n)).map(|i| Command::Create(entity(i))).collect();
        for outcome in store.submit_and_wait(Submission { space: Space::City, commands })? {
            outcome?;
        }
        rss_max = rss_max.max(rss_bytes());
    }
    let loaded = start.elapsed();
    let loaded_cpu = cpu_seconds();
    store.close()?;
    println!(
        "load         {:.1} s, {loaded_cpu:.1} s of CPU, {:.0} entities/s durable, most memory {} MiB",
        loaded.as_secs_f64(),
        n as f64 / loaded.as_secs_f64(),
        rss_max >> 20
    );
    println!("checkpoint   {:.1} s after the load", (start.elapsed().saturating_sub(loaded)).as_secs_f64());
    Ok(())
}

/// Loading ten million entities through the log takes the better part of an hour; what a start and questions find is the same.
fn fill(dir: &Path, from: usize, n: usize) -> Result<(), Box<dyn Error>> {
    let start = Stopwatch::start();
    let documents = FjallDocuments::open(&dir.join("documents"))?;
    let manifest = documents.manifest()?;
    for from in (from..n).step_by(10 * BATCH) {
        let mut changed = (from..(from + 10 * BATCH).min(n)).map(|i| {
            let mut e = entity(i);
            // Recorded one after the other.
            e.modified_at = Instant::from_micros(1_700_000_000_000_000 + i as i64);
            e.created_at = e.modified_at;
            (Space::City, e.id.clone(), Some(Document::Packed(Document::pack(&e).into())))
        });
        documents.checkpoint(&mut changed, &manifest)?;
    }
    println!("filled       {} entities in {:.1} s", n - from, start.elapsed().as_secs_f64());
    Ok(())
}

fn ask(dir: &Path, n: usize, memory_mib: usize) -> Result<(), Box<dyn Error>> {
    let start = Stopwatch::start();
    let store = open(dir, memory_mib)?;
    println!("cold start   {:.2} s, {:.2} s of CPU", start.elapsed().as_secs_f64(), cpu_seconds());
    let stats = store.stats();
    println!("memory       {} MiB resident, {} bytes of index per entity", rss_bytes() >> 20, stats.index_bytes / stats.n_entities.max(1));
    let table = store.table(Space::City);

    measure("retrieve", N_RETRIEVED, |i| {
        let id = id(i.wrapping_mul(7_919_117) % n);
        assert!(table.try_get(id.as_str()).is_ok_and(|e| e.is_some()), "{id} is there");
        1
    });
    let of_type = Filter::Type(TypeSelector::Is(iri("AirQualityObserved")));
    let above = |attribute: &str, value: f64| {
        let target = Target::Attribute(entity::Path::of(iri(attribute)));
        of_type.clone().and(Filter::Value(target, Comparison::Order(CompareOp::Gt, Operand::Number(value))))
    };
    let page = |filter: &Filter| table.try_page(&PageRequest::of(filter, 20)).map_or(usize::MAX, |p| p.entities.len());
    // Different attributes each time, so that no ordered values help at first.
    let cold = |value: f64| move |i: usize| above(READINGS[i % READINGS.len()], value);
    measure("type+q, many match, limit 20", N_WALKED, |i| page(&cold(50.0)(i)));
    measure("type+q, none match, by walk", N_WALKED, |i| page(&cold(1e6)(i)));
    measure("type+q, few match, by walk", N_WALKED, |i| page(&cold(99.99)(i)));
    for i in 0..(store::state::ASKED_MIN as usize * READINGS.len()) {
        page(&cold(99.99)(i));
    }
    table.wait_for_builds();
    measure("type+q, none match, ordered", N_QUERIES, |i| page(&cold(1e6)(i)));
    measure("type+q, few match, ordered", N_QUERIES, |i| page(&cold(99.99)(i)));
    let near = |metres: f64| {
        move |i: usize| {
            let reference = Geometry::point(115.5 + (i * 37 % 200) as f64 / 100.0, 39.0 + (i * 53 % 200) as f64 / 100.0);
            Filter::Geo(GeoCondition { property: Iri::known(LOCATION), relation: GeoRelation::NearMax(metres), reference })
        }
    };
    measure("near 1 km, limit 20", N_QUERIES, |i| page(&near(1_000.0)(i)));
    measure("near 20 km, limit 20", N_QUERIES, |i| page(&near(20_000.0)(i)));
    measure("near 20 km + type + q, limit 20", N_QUERIES, |i| page(&near(20_000.0)(i).and(above("pm25", 90.0))));
    measure("words, limit 20", N_QUERIES, |i| {
        let all = Filter::all();
        let text = format!("station {}", i * 31 % n);
        table.try_page(&PageRequest { text: Some(&text), ..PageRequest::of(&all, 20) }).map_or(usize::MAX, |p| p.entities.len())
    });
    println!("memory       {} MiB resident after the questions, indexes {} MiB", rss_bytes() >> 20, store.stats().index_bytes >> 20);
    Ok(())
}

fn measure(what: &str, n: usize, mut ask: impl FnMut(usize) -> usize) {
    let mut times_us: Vec<u128> = Vec::with_capacity(n);
    let mut n_found = 0;
    let cpu_before = cpu_seconds();
    for i in 0..n {
        let start = Stopwatch::start();
        n_found += ask(i);
        times_us.push(start.elapsed().as_micros());
    }
    times_us.sort_unstable();
    let at = |q: f64| times_us[((n - 1) as f64 * q) as usize] as f64 / 1e3;
    let cpu_ms = (cpu_seconds() - cpu_before) / n as f64 * 1e3;
    println!(
        "{what:34} p50 {:8.3} ms  p99 {:8.3} ms  {cpu_ms:7.3} ms of CPU  {:5.1} found each",
        at(0.5),
        at(0.99),
        n_found as f64 / n as f64
    );
}

fn iri(name: &str) -> Iri {
    Iri::known(&format!("https://smartdatamodels.org/dataModel.Environment/{name}"))
}

fn id(i: usize) -> Iri {
    Iri::known(&format!("urn:ngsi-ld:AirQualityObserved:station-{i:08}"))
}

/// A number between 0 and 1 that looks like none in particular.
fn scattered(i: usize, salt: u64) -> f64 {
    let mixed = (i as u64 ^ salt.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    ((mixed ^ mixed >> 31).wrapping_mul(0x94D0_49BB_1331_11EB) >> 11) as f64 / (1u64 << 53) as f64
}

fn entity(i: usize) -> Entity {
    let mut e = Entity::new(id(i), iri("AirQualityObserved"));
    e.scopes = vec![format!("/China/Beijing/District{}", i % 16).parse().expect("a scope of our own making")];
    let names = IndexMap::from([("en".into(), json!(format!("Station {i}"))), ("zh".into(), json!(format!("监测站{}号", i % 1_000)))]);
    e.put(Iri::known("https://smartdatamodels.org/name"), Attribute::new(AttributeValue::Language(names)));
    let address = json!({"streetAddress": format!("Chang'an Avenue {}", i % 5_000), "addressLocality": "Beijing", "addressCountry": "CN"});
    e.put(Iri::known("https://schema.org/address"), Attribute::property(address));
    let place = Geometry::point(115.5 + 2.0 * scattered(i, 1), 39.0 + 2.0 * scattered(i, 2));
    e.put(Iri::known(LOCATION), Attribute::new(AttributeValue::Geo(place)));
    let district = Iri::known(&format!("urn:ngsi-ld:District:{}", i % 16));
    e.put(iri("refDistrict"), Attribute::new(AttributeValue::Relationship(vec![district])));
    e.put(iri("status"), Attribute::property(["ok", "dirty", "offline"][i % 3]));
    for (k, name) in READINGS.iter().enumerate() {
        let value = (scattered(i, k as u64 + 10) * 1e6).round() / 1e4;
        let mut a = Attribute::property(value).observed(Instant::from_secs(1_700_000_000 + (i % 3_600) as i64));
        a.unit_code = Some("GQ".into());
        e.put(iri(name), a);
    }
    e
}

/// CPU time of this process: what counts where others work on the same machine.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = behind_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

/// Resident memory of this process.
fn rss_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<usize>().ok()).unwrap_or_default() << 10
}
