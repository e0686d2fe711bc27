//! How many single durable updates the store takes, beside what the disk's syncs allow.
//!
//! `cargo run --profile quick -p store --example updates -- [seconds per run] [folder] [clients, clients, ...]`: each of N clients changes one attribute of an entity of
//! about 1 KB, waits until that is durable, and goes on with the next one. One thread plays them all, as a server's thread does for its connections.
//! The disk's own sync rate (append of 4 KiB and sync, one after the other) is measured before
//! and after each run.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement for people")]

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use entity::{Attribute, Command, CommandError, Entity, Instant, Iri, Outcome};
use host::{Disk, RealDisk, Stopwatch, SystemClock};
use store::state::Space;
use store::{Options, Store, Submission, SubmitError};

/// As in the program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ENTITIES: usize = 20_000;

fn main() {
    let mut args = std::env::args().skip(1);
    let seconds: u64 = args.next().map_or(5, |s| s.parse().unwrap());
    let dir = args.next().map_or_else(|| tempfile::tempdir().unwrap().keep(), Into::into);
    let store = Store::open(Options::new(dir.join("store"), Arc::new(SystemClock))).unwrap();
    let clients: Vec<usize> = args.next().map_or_else(|| vec![1, 64, 512], |list| list.split(',').map(|n| n.parse().unwrap()).collect());
    for chunk in (0..ENTITIES).collect::<Vec<_>>().chunks(1_000) {
        let commands = chunk.iter().map(|&i| Command::UpsertReplace(entity(i))).collect();
        store.submit_and_wait(Submission { space: Space::City, commands }).unwrap();
    }
    store.checkpoint().unwrap();
    let bytes = serde_json::to_vec(&entity(0)).unwrap().len();
    println!("{ENTITIES} entities of {bytes} bytes (JSON)");
    for n_clients in clients {
        let before = syncs_per_second(&dir);
        run(&store, n_clients, seconds, before, &dir);
    }
    drop(store);
    std::fs::remove_dir_all(dir).unwrap();
}

fn run(store: &Store, n_clients: usize, seconds: u64, syncs_before: f64, dir: &Path) {
    let cpu = cpu_seconds();
    let batches = store.stats().n_batches;
    let (answers, answered) = channel();
    let send = |client: usize, round: usize| {
        let submission = Submission { space: Space::City, commands: vec![Command::Observe(update(client, round))] };
        let (answers, watch) = (answers.clone(), Stopwatch::start());
        let reply = move |answer: Result<Vec<Result<Outcome, CommandError>>, SubmitError>| {
            answer.unwrap()[0].as_ref().unwrap();
            answers.send((client, round, watch.elapsed().as_micros() as u64)).unwrap();
        };
        store.submit(submission, reply).unwrap();
    };
    let watch = Stopwatch::start();
    (0..n_clients).for_each(|client| send(client, 1));
    let mut micros = Vec::new();
    let mut n_waiting = n_clients;
    while n_waiting > 0 {
        let (client, round, took) = answered.recv().unwrap();
        micros.push(took);
        if watch.elapsed().as_secs() < seconds {
            send(client, round + 1);
        } else {
            n_waiting -= 1;
        }
    }
    let elapsed = watch.elapsed().as_secs_f64();
    let cpu = cpu_seconds() - cpu;
    micros.sort_unstable();
    let n = micros.len();
    let rate = n as f64 / elapsed;
    let syncs = (syncs_before + syncs_per_second(dir)) / 2.0;
    let n_batches = store.stats().n_batches - batches;
    println!(
        "{n_clients:4} clients: {rate:8.0}/s, p50 {:.1} ms, p99 {:.1} ms, {:.1} us CPU per update (clients included), {:.0} per batch; disk {syncs:.0} syncs/s, {:.0} % of clients x syncs",
        micros[n / 2] as f64 / 1e3,
        micros[n * 99 / 100] as f64 / 1e3,
        cpu * 1e6 / n as f64,
        n as f64 / n_batches.max(1) as f64,
        100.0 * rate / (n_clients as f64 * syncs),
    );
    store.checkpoint().unwrap();
}

fn syncs_per_second(dir: &Path) -> f64 {
    let path = dir.join("sync-test");
    let mut file = RealDisk.open_append(&path).unwrap();
    let watch = Stopwatch::start();
    let mut n = 0;
    while watch.elapsed() < Duration::from_secs(1) {
        file.append(&[7; 4096]).unwrap();
        file.sync().unwrap();
        n += 1;
    }
    let rate = f64::from(n) / watch.elapsed().as_secs_f64();
    RealDisk.remove(&path).unwrap();
    rate
}

fn name(attribute: usize) -> Iri {
    Iri::known(&format!("https://uri.etsi.org/ngsi-ld/default-context/attribute{attribute}"))
}

fn id(i: usize) -> Iri {
    Iri::known(&format!("urn:ngsi-ld:AirQualityObserved:Shanghai:{i:06}"))
}

fn entity(i: usize) -> Entity {
    let mut e = Entity::new(id(i), Iri::known("https://smartdatamodels.org/dataModel.Environment/AirQualityObserved"));
    for a in 0..8 {
        let mut attribute = Attribute::property(i as f64 / 7.0 + a as f64).observed(Instant::from_secs(1_700_000_000));
        attribute.unit_code = Some("GQ".into());
        e.put(name(a), attribute);
    }
    e.with(
        Iri::known(entity::LOCATION),
        Attribute::new(entity::AttributeValue::Geo(entity::Geometry::point(121.4 + i as f64 * 1e-5, 31.2))),
    )
}

fn update(client: usize, round: usize) -> Entity {
    let i = (client + round * 512) % ENTITIES;
    let at = Instant::from_micros(1_700_000_000_000_000 + (round * 1_000 + client) as i64);
    let e = Entity::new(id(i), Iri::known("https://smartdatamodels.org/dataModel.Environment/AirQualityObserved"));
    e.with(name(round % 8), Attribute::property((client * 1_000 + round) as f64 / 8.0).observed(at))
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}
