//! `conurb bench`: the numbers that the documents quote, made by anyone on any machine.
//!
//! Each workload runs against a node of its own: this program, started as `conurb serve --dev` on an empty folder, loaded over the network from
//! this process. CPU seconds are the server's, read from `/proc`. Where there is a peer (what the disk itself can sync; other databases for the
//! workload `city`) it is measured in the same run.

mod broker;
mod city;
mod city_run;
mod client;
mod mqtt;
mod node;
mod peers;
mod process;
mod server;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use host::Stopwatch;
use serde::Serialize;
use serde_json::{Value, json};

use self::client::{Client, Load, drive};
use self::node::BenchNode;

/// Options of `conurb bench`.
#[derive(Args, Clone, Debug)]
#[command(after_help = list_of_workloads())]
pub(crate) struct Options {
    /// Which workloads, separated by commas; default: all but `city`, `many-entities` and `ngsi-…`
    #[arg(value_delimiter = ',')]
    workloads: Vec<String>,
    /// How often each is run; the median is reported
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Entities of the queries and of the memory measurement
    #[arg(long, default_value_t = 100_000)]
    entities: usize,
    /// Script that starts and stops the peers of `city`, such as scripts/bench-peers.sh; without it only conurb is measured
    #[arg(long, value_name = "SCRIPT")]
    peers: Option<PathBuf>,
    /// One line of JSON per result
    #[arg(long)]
    json: bool,
    /// Only serve the bytes of a file, as the peer that a workload starts
    #[arg(long, value_name = "FILE", hide = true)]
    bare_route: Option<PathBuf>,
}

/// One number.
#[derive(Clone, Debug, Serialize)]
struct Measure {
    workload: String,
    value: f64,
    unit: &'static str,
    /// What it is compared with.
    peer: Option<String>,
    /// The value over the peer's.
    ratio: Option<f64>,
    /// Server CPU seconds per unit of work, where it makes sense.
    cpu: Option<String>,
}

/// Workloads by name, each with what it measures.
const WORKLOADS: &[(&str, &str)] = &[
    ("disk", "syncs per second of an appended 4 KiB block: what the disk gives one writer"),
    ("start", "seconds from the start of the program to its ready line, on an empty folder"),
    ("updates-64", "durable updates/s over HTTP, 64 clients, each update answered after its sync"),
    ("updates-512", "durable updates/s over HTTP, 512 clients"),
    ("load", "entities/s by batch create, 1,000 per request, then memory and restart time with all of them"),
    ("retrieve", "retrieves/s of one entity of about 1 KB, 16 clients"),
    ("query", "type+q query over all entities with limit 20: milliseconds, p50"),
    (
        "ngsi-retrieve",
        "retrieves/s of entities of 550 bytes, wrk on one core and the node on the other; beside a bare route with the same bytes",
    ),
    ("ngsi-query", "queries/s of a type with limit 20, likewise"),
    ("ngsi-patch", "PATCH/s of 50 clients, each on disk before its answer; beside clients x syncs of the disk"),
    ("ngsi-notify", "notifications/s of one subscription to as many changes as there can be, and how late they are"),
    ("ngsi-subscriptions", "of 2,000 changes/s with 10,000 subscriptions, the share that is notified"),
    ("ngsi-sources", "a query over 34 registered sources, 200/s: milliseconds, p99"),
    ("many-entities", "N entities of about 1 KB after a restart: memory, start, latency of retrieve, type+q and geo query with limit 20"),
    ("city", "a month of 600 stations (8.64 M values) in by every way and out by four questions; beside the peers with --peers"),
];

/// Workloads that take minutes, or other programs, and so must be asked for.
const LONG: [&str; 8] = {
    let [a, b, c, d, e, f] = broker::NAMES;
    ["city", "many-entities", a, b, c, d, e, f]
};

/// What `conurb bench --help` says after the options.
fn list_of_workloads() -> String {
    let list: Vec<_> = WORKLOADS.iter().map(|(name, what)| format!("  {name:<18} {what}")).collect();
    format!("Workloads:\n{}", list.join("\n"))
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if let Some(file) = &options.bare_route {
        return crate::runtime()?.block_on(broker::bare_route(file));
    }
    for name in &options.workloads {
        if !WORKLOADS.iter().any(|(w, _)| w == name) {
            bail!("there is no workload `{name}`\n{}", list_of_workloads());
        }
    }
    let wanted = |name: &str| options.workloads.is_empty() && !LONG.contains(&name) || options.workloads.iter().any(|w| w == name);
    let runtime = crate::runtime()?;
    let mut runs: Vec<Vec<Measure>> = Vec::new();
    for run in 1..=options.runs.max(1) {
        crate::complain(&format!("run {run} of {}", options.runs.max(1)));
        runs.push(runtime.block_on(one_run(options, &wanted))?);
    }
    for measure in medians(&runs) {
        print(&measure, options.json)?;
    }
    Ok(())
}

async fn one_run(options: &Options, wanted: &dyn Fn(&str) -> bool) -> anyhow::Result<Vec<Measure>> {
    let seconds = Duration::from_secs(options.seconds);
    let mut results = Vec::new();
    if wanted("city") {
        results.extend(city_run::run(options.peers.as_deref(), seconds).await?);
    }
    if WORKLOADS.iter().all(|(name, _)| *name == "city" || !wanted(name)) {
        return Ok(results);
    }
    let syncs_per_s = disk_syncs_per_s(seconds.min(Duration::from_secs(3)))?;
    if wanted("disk") {
        results.push(measure("disk", syncs_per_s, "syncs/s"));
    }
    if wanted("start") {
        let node = BenchNode::start(None)?;
        results.push(measure("start", node.started_in.as_secs_f64(), "s"));
    }
    for n_clients in [64, 512] {
        let name = format!("updates-{n_clients}");
        if wanted(&name) {
            results.push(updates(&name, n_clients, seconds, syncs_per_s).await?);
        }
    }
    if broker::NAMES.iter().any(|name| wanted(name)) {
        results.extend(broker::run(wanted, seconds, syncs_per_s).await?);
    }
    if wanted("many-entities") {
        results.extend(after_restart(options, seconds).await?);
    }
    if ["load", "retrieve", "query"].iter().any(|w| wanted(w)) {
        results.extend(many_entities(options, wanted, seconds).await?);
    }
    Ok(results)
}

fn measure(workload: &str, value: f64, unit: &'static str) -> Measure {
    Measure { workload: workload.to_owned(), value, unit, peer: None, ratio: None, cpu: None }
}

/// What one writer gets who appends 4 KiB and syncs, over and over.
fn disk_syncs_per_s(time: Duration) -> anyhow::Result<f64> {
    let dir = node::work_dir()?;
    let mut file = std::fs::File::create(dir.path().join("sync")).context("cannot write to the disk")?;
    let stopwatch = Stopwatch::start();
    let mut n_syncs = 0;
    while stopwatch.elapsed() < time {
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        n_syncs += 1;
    }
    Ok(f64::from(n_syncs) / stopwatch.elapsed().as_secs_f64())
}

async fn updates(name: &str, n_clients: usize, time: Duration, syncs_per_s: f64) -> anyhow::Result<Measure> {
    let node = BenchNode::start(None)?;
    let cpu_before = node.cpu_seconds()?;
    let load = drive(&node.http, n_clients, time, &|client, i| {
        let body = json!([{
            "id": format!("urn:ngsi-ld:AirQualityObserved:bench:{client}"), "type": "AirQualityObserved",
            "pm25": {"type": "Property", "value": i % 500, "unitCode": "GQ", "observedAt": format!("2024-01-01T{:02}:{:02}:{:02}Z", i / 3600 % 24, i / 60 % 60, i % 60)},
        }]);
        ("POST", "/ngsi-ld/v1/entityOperations/upsert?options=update".to_owned(), body.to_string())
    })
    .await?;
    let cpu = node.cpu_seconds()? - cpu_before;
    let mut result = measure(name, load.per_second(), "updates/s");
    let most = syncs_per_s * n_clients as f64;
    result.peer = Some(format!("{n_clients} clients x {syncs_per_s:.0} syncs/s of the disk = {most:.0}/s"));
    result.ratio = Some(load.per_second() / most);
    result.cpu = Some(format!(
        "{:.0} µs of server CPU per update; p50 {:.1} ms, p99 {:.1} ms",
        cpu * 1e6 / load.n_done as f64,
        load.quantile_ms(0.5),
        load.quantile_ms(0.99)
    ));
    Ok(result)
}

async fn many_entities(options: &Options, wanted: &dyn Fn(&str) -> bool, time: Duration) -> anyhow::Result<Vec<Measure>> {
    let mut results = Vec::new();
    let node = BenchNode::start(None)?;
    let empty_mb = node.resident_mb()?;
    let stopwatch = Stopwatch::start();
    let cpu_before = node.cpu_seconds()?;
    load_entities(&node, options.entities).await?;
    let rate = options.entities as f64 / stopwatch.elapsed().as_secs_f64();
    if wanted("load") {
        let mut result = measure("load", rate, "entities/s");
        result.cpu = Some(format!("{:.0} µs of server CPU per entity", (node.cpu_seconds()? - cpu_before) * 1e6 / options.entities as f64));
        results.push(result);
        results.push(measure("memory-empty", empty_mb, "MB"));
        results.push(measure("memory", node.resident_mb()?, "MB"));
    }
    if wanted("retrieve") {
        let n = options.entities;
        let load = drive(&node.http, 16, time, &|client, i| {
            ("GET", format!("/ngsi-ld/v1/entities/{}", entity_id((client * 7919 + i * 104_729) % n)), String::new())
        })
        .await?;
        results.push(with_latency(measure("retrieve", load.per_second(), "retrieves/s"), &load));
    }
    if wanted("query") {
        for (name, q) in [("query", "pm25%3E480"), ("query-no-match", "pm25%3E1000")] {
            let path = format!("/ngsi-ld/v1/entities?type=AirQualityObserved&q={q}&limit=20");
            let load = drive(&node.http, 1, time, &|_, _| ("GET", path.clone(), String::new())).await?;
            results.push(with_latency(measure(name, load.quantile_ms(0.5), "ms p50"), &load));
        }
    }
    if wanted("load") {
        let dir = node.stop()?;
        let again = BenchNode::start(Some(dir))?;
        results.push(measure("restart", again.started_in.as_secs_f64(), "s"));
    }
    Ok(results)
}

/// What a node is like that holds many entities and has just been started: nothing of the load is left in memory.
async fn after_restart(options: &Options, time: Duration) -> anyhow::Result<Vec<Measure>> {
    let n = options.entities;
    let node = BenchNode::start(None)?;
    let idle_mb = node.resident_mb()?;
    load_entities(&node, n).await?;
    let node = BenchNode::start(Some(node.stop()?))?;
    let mut results = vec![
        measure("many-entities/idle-empty", idle_mb, "MB"),
        measure("many-entities/start", node.started_in.as_secs_f64(), "s"),
        measure("many-entities/memory-at-start", node.resident_mb()?, "MB"),
    ];
    let questions: [(&str, &(dyn Fn(usize) -> String + Sync)); 5] = [
        ("retrieve", &|i| format!("/ngsi-ld/v1/entities/{}", entity_id(i.wrapping_mul(2_654_435_761) % n))),
        ("type-q", &|i| format!("/ngsi-ld/v1/entities?type=AirQualityObserved&q=pm25%3E{}&limit=20", 400 + i % 90)),
        ("type-q-rare", &|i| {
            format!("/ngsi-ld/v1/entities?type=AirQualityObserved&q=pm25=={};pm10=={};o3=={}&limit=20", i % 500, i % 600, i % 300)
        }),
        ("type-q-geo", &|i| {
            let (lon, lat) = (120.0 + (i * 7_919 % 20_000) as f64 / 1e4, 30.0 + (i * 104_729 % 20_000) as f64 / 1e4);
            let near = format!("georel=near%3BmaxDistance==5000&geometry=Point&coordinates=%5B{lon},{lat}%5D");
            format!("/ngsi-ld/v1/entities?type=AirQualityObserved&q=pm25%3E{}&{near}&limit=20", 300 + i % 190)
        }),
        ("geo", &|i| {
            let (lon, lat) = (120.0 + (i * 7_919 % 20_000) as f64 / 1e4, 30.0 + (i * 104_729 % 20_000) as f64 / 1e4);
            let near = "georel=near%3BmaxDistance==2000&geometry=Point";
            format!("/ngsi-ld/v1/entities?type=AirQualityObserved&{near}&coordinates=%5B{lon},{lat}%5D&limit=20")
        }),
    ];
    for (name, path) in questions {
        let load = drive(&node.http, 1, time, &|_, i| ("GET", path(i), String::new())).await?;
        results.push(with_latency(measure(&format!("many-entities/{name}"), load.quantile_ms(0.99), "ms p99"), &load));
    }
    results.push(measure("many-entities/memory-after-queries", node.resident_mb()?, "MB"));
    Ok(results)
}

fn with_latency(mut result: Measure, load: &Load) -> Measure {
    result.cpu = Some(format!("p50 {:.2} ms, p99 {:.2} ms", load.quantile_ms(0.5), load.quantile_ms(0.99)));
    result
}

fn entity_id(i: usize) -> String {
    format!("urn:ngsi-ld:AirQualityObserved:bench:{i:07}")
}

/// Loads entities of about 1 KB, 1,000 per request.
async fn load_entities(node: &BenchNode, n_entities: usize) -> anyhow::Result<()> {
    let mut client = Client::connect(&node.http).await?;
    for first in (0..n_entities).step_by(1_000) {
        let batch: Vec<Value> = (first..(first + 1_000).min(n_entities)).map(station).collect();
        let (status, body) = client.request("POST", "/ngsi-ld/v1/entityOperations/create", &serde_json::to_string(&batch)?).await?;
        if status != 201 {
            bail!("the node answered {status}: {body}");
        }
    }
    Ok(())
}

/// A station with the attributes of the Smart Data Model, about 1 KB; values spread by a multiplicative hash, the same in every run.
fn station(i: usize) -> Value {
    let spread = |salt: usize, range: usize| (i.wrapping_mul(2_654_435_761).wrapping_add(salt.wrapping_mul(40_503)) >> 7) % range;
    let value = |salt, range, unit: &str| json!({"type": "Property", "value": spread(salt, range), "unitCode": unit, "observedAt": "2024-01-01T00:00:00Z"});
    json!({
        "id": entity_id(i), "type": "AirQualityObserved",
        "name": {"type": "LanguageProperty", "languageMap": {"en": format!("Station {i}"), "zh": format!("站点{i}")}},
        "location": {"type": "GeoProperty", "value": {"type": "Point", "coordinates": [120.0 + spread(1, 20_000) as f64 / 1e4, 30.0 + spread(2, 20_000) as f64 / 1e4]}},
        "pm25": value(3, 500, "GQ"), "pm10": value(4, 600, "GQ"), "no2": value(5, 200, "GQ"), "so2": value(6, 100, "GQ"), "o3": value(7, 300, "GQ"), "co": value(8, 5, "GP"),
        "source": {"type": "Property", "value": "simulated by conurb bench"},
    })
}

/// The median of each number over the runs.
fn medians(runs: &[Vec<Measure>]) -> Vec<Measure> {
    let mut result = Vec::new();
    for first in runs.first().into_iter().flatten() {
        let mut same: Vec<&Measure> = runs.iter().flatten().filter(|m| m.workload == first.workload).collect();
        same.sort_by(|a, b| a.value.total_cmp(&b.value));
        result.push(same[same.len() / 2].clone());
    }
    result
}

fn print(m: &Measure, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        crate::say(&serde_json::to_string(m)?);
        return Ok(());
    }
    let ratio = m.ratio.map(|r| format!("  = {:.0} % of {}", r * 100.0, m.peer.as_deref().unwrap_or("the peer"))).unwrap_or_default();
    let cpu = m.cpu.as_deref().map(|c| format!("  ({c})")).unwrap_or_default();
    crate::say(&format!("{:<44} {:>14.2} {:<12}{ratio}{cpu}", m.workload, m.value, m.unit));
    Ok(())
}
