//! `conurb bench city`: data set T into the node and out of it, beside the peers in the same run.

use std::io::Cursor;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use host::Stopwatch;
use table::{ENTITY_ID, Format, Layout, OBSERVED_AT, Reader, Source, Writer};

use super::Measure;
use super::city::{self, City, N_STATIONS, N_STEPS, PROPERTIES};
use super::client::Client;
use super::mqtt;
use super::node::BenchNode;
use super::peers::{Asked, Ingest, Peers, QUESTIONS, Server, ask_http, ask_psql};
use super::process::{disk_bytes, settled_cpu_seconds};

/// Quarter hours that go in as NGSI-LD JSON and over MQTT: a day and a half, 432,000 values.
const STEPS_ONE_BY_ONE: usize = 144;
/// Quarter hours of one bulk request: 49,800 rows, as `conurb import` cuts them.
const STEPS_PER_BULK_REQUEST: usize = 83;
/// MQTT connections.
const N_DEVICES: usize = 8;

/// Runs it once.
pub(super) async fn run(peers: Option<&Path>, time: Duration) -> anyhow::Result<Vec<Measure>> {
    let city = City::make();
    let mut taken = vec![ngsi_ld(&city).await?, over_mqtt(&city).await?];
    taken.insert(0, bulk(&BenchNode::start(None)?, &city, Format::Csv).await?);
    let node = BenchNode::start(None)?;
    taken.insert(0, bulk(&node, &city, Format::Arrow).await?);
    // A restart puts the memory of the load behind: what is asked then is what a node answers that has been running for long.
    let dir = node.stop()?;
    // Without what is kept of the log for readers of the changes, as without the other systems' logs.
    taken[0].bytes = Some(disk_bytes(dir.path())? - disk_bytes(&dir.path().join("log"))?);
    let node = BenchNode::start(Some(dir))?;
    let mut asked = ask(&node, time).await;
    drop(node);
    if let Some(script) = peers {
        let peers = Peers::start(script)?;
        taken.extend(peers.ingest(&city).await?);
        asked.extend(peers.ask(time).await?);
    }
    Ok(measures(&taken, &asked))
}

async fn create_stations(node: &BenchNode) -> anyhow::Result<()> {
    let (status, answer) =
        Client::connect(&node.http).await?.request("POST", "/ngsi-ld/v1/entityOperations/create", &city::stations()).await?;
    if status != 201 {
        bail!("the node answered {status}: {answer}");
    }
    Ok(())
}

/// The whole set by the bulk import, one request after the other, each answered when its rows are durable.
async fn bulk(node: &BenchNode, city: &City, format: Format) -> anyhow::Result<Ingest> {
    create_stations(node).await?;
    let mut client = Client::connect(&node.http).await?;
    let path = format!("/api/v1/bulk/{}", city::ENTITY_TYPE);
    let cpu_before = settled_cpu_seconds(node.pid()).await?;
    let mut seconds = 0.0;
    for first in (0..N_STEPS).step_by(STEPS_PER_BULK_REQUEST) {
        let csv = city.csv(first..(first + STEPS_PER_BULK_REQUEST).min(N_STEPS));
        let body = if format == Format::Csv { csv.into_bytes() } else { arrow_stream(csv)? };
        // Making the bodies is not the node's work.
        let stopwatch = Stopwatch::start();
        let (status, answer) = client.send("POST", &path, format.media_type(), &body).await?;
        seconds += stopwatch.elapsed().as_secs_f64();
        if status != 200 {
            bail!("the node answered {status}: {answer}");
        }
    }
    let cpu_s = settled_cpu_seconds(node.pid()).await? - cpu_before;
    let system = format!("conurb bulk {}", if format == Format::Csv { "CSV" } else { "Arrow" });
    Ok(Ingest { system, n_values: city::N_VALUES, seconds, cpu_s, bytes: None })
}

/// A table as `conurb import` sends it.
fn arrow_stream(csv: String) -> anyhow::Result<Vec<u8>> {
    let reader = Reader::open(Source::csv(Cursor::new(csv)), Layout::default(), &|name| Ok(name.to_owned()), 0)?;
    let mut writer: Option<Writer> = None;
    for rows in reader {
        let batch = rows?.batch;
        let writer = match &mut writer {
            Some(writer) => writer,
            None => writer.insert(Writer::named(Format::Arrow, &batch.schema(), |name| match name {
                ENTITY_ID => "id",
                OBSERVED_AT => "observedAt",
                other => other,
            })?),
        };
        writer.write(&batch)?;
    }
    Ok(writer.context("a table with rows")?.finish()?)
}

/// Observations as batches of NGSI-LD entities, 600 to a request.
async fn ngsi_ld(city: &City) -> anyhow::Result<Ingest> {
    let node = BenchNode::start(None)?;
    create_stations(&node).await?;
    let mut client = Client::connect(&node.http).await?;
    let cpu_before = settled_cpu_seconds(node.pid()).await?;
    let stopwatch = Stopwatch::start();
    for step in 0..STEPS_ONE_BY_ONE {
        let (status, answer) = client.request("POST", "/ngsi-ld/v1/entityOperations/upsert?options=update", &city.entities(step)).await?;
        if status != 204 {
            bail!("the node answered {status}: {answer}");
        }
    }
    finish("conurb NGSI-LD", &node, &stopwatch, cpu_before).await
}

/// The same as messages of devices, QoS 1.
async fn over_mqtt(city: &City) -> anyhow::Result<Ingest> {
    let node = BenchNode::start(None)?;
    create_stations(&node).await?;
    let cpu_before = settled_cpu_seconds(node.pid()).await?;
    let stopwatch = Stopwatch::start();
    let devices = (0..N_DEVICES).map(|device| {
        let of_device = move |i: &usize| i % N_DEVICES == device;
        let messages = (0..STEPS_ONE_BY_ONE).flat_map(move |step| (0..N_STATIONS).filter(of_device).map(move |station| (step, station)));
        let messages =
            messages.map(|(step, station)| (format!("devices/air-quality/{}", city::station_name(station)), city.payload(step, station)));
        let address = node.mqtt.clone();
        async move { mqtt::publish(&address, &format!("bench-{device}"), messages).await }
    });
    let n_messages: u64 = futures::future::try_join_all(devices).await?.into_iter().sum();
    assert_eq!(n_messages as usize, STEPS_ONE_BY_ONE * N_STATIONS, "every message is acknowledged");
    finish("conurb MQTT", &node, &stopwatch, cpu_before).await
}

async fn finish(system: &str, node: &BenchNode, stopwatch: &Stopwatch, cpu_before: f64) -> anyhow::Result<Ingest> {
    let seconds = stopwatch.elapsed().as_secs_f64();
    let cpu_s = settled_cpu_seconds(node.pid()).await? - cpu_before;
    let n_values = STEPS_ONE_BY_ONE * N_STATIONS * PROPERTIES.len();
    Ok(Ingest { system: system.to_owned(), n_values, seconds, cpu_s, bytes: None })
}

/// Asks the node each question: over NGSI-LD where NGSI-LD can ask it, and by SQL. A question that fails is said and left out.
async fn ask(node: &BenchNode, time: Duration) -> Vec<Asked> {
    let mut asked = Vec::new();
    let server = Server::node(node.pid(), &node.http);
    for (question, _) in QUESTIONS {
        if let Some(path) = ngsi_ld_question(question) {
            keep(&mut asked, ask_http(&server, "conurb NGSI-LD", question, &path, time).await);
        }
        if let (Some(sql), Some(statement)) = (&node.sql, sql_question(question)) {
            keep(&mut asked, ask_psql(sql, node.pid(), ("conurb", "conurb"), "conurb SQL", question, &statement, time));
        }
    }
    asked
}

fn keep(asked: &mut Vec<Asked>, one: anyhow::Result<Asked>) {
    match one {
        Ok(one) => asked.push(one),
        Err(e) => crate::complain(&format!("not measured: {e:#}")),
    }
}

fn names(separator: &str, write: impl Fn(&str) -> String) -> String {
    PROPERTIES.map(|p| write(p.name)).join(separator)
}

fn ngsi_ld_question(question: &str) -> Option<String> {
    let pick = format!("pick=id,{}", names(",", str::to_owned));
    let entities = format!("/ngsi-ld/v1/entities?type={}&format=simplified&{pick}", city::ENTITY_TYPE);
    match question {
        "last-1000" => Some(format!("{entities}&limit=200")),
        "box-now" => {
            let [west, south, east, north] = city::BOX;
            let ring = format!("[[[{west},{south}],[{east},{south}],[{east},{north}],[{west},{north}],[{west},{south}]]]");
            let ring = ring.replace('[', "%5B").replace(']', "%5D");
            Some(format!("{entities}&limit=1000&georel=within&geometry=Polygon&coordinates={ring}"))
        }
        "one-by-hour" => Some(format!(
            "/ngsi-ld/v1/temporal/entities/{}?attrs=pm25&timerel=between&timeAt=2024-01-01T00:00:00Z&endTimeAt=2024-01-31T00:00:00Z\
             &aggrMethods=avg&aggrPeriodDuration=PT1H&options=aggregatedValues",
            city::entity_id(123)
        )),
        _ => None,
    }
}

fn sql_question(question: &str) -> Option<String> {
    let table = city::ENTITY_TYPE;
    let hour = "date_bin(interval '1 hour', observed_at, timestamp '2024-01-01T00:00:00Z')";
    match question {
        "last-1000" => Some(format!(r#"select id, {} from "{table}" order by id limit 200"#, names(", ", str::to_owned))),
        "one-by-hour" => Some(format!(
            r#"select {hour} as hour, avg(pm25) from "{table}_history" where id = '{}' group by 1 order by 1"#,
            city::entity_id(123)
        )),
        "all-by-hour" => {
            Some(format!(r#"select {hour} as hour, {} from "{table}_history" group by 1 order by 1"#, names(", ", |n| format!("avg({n})"))))
        }
        _ => None,
    }
}

/// The numbers, each of conurb's beside each peer's.
fn measures(taken: &[Ingest], asked: &[Asked]) -> Vec<Measure> {
    let is_ours = |system: &str| system.starts_with("conurb");
    let slug = |system: &str| system.to_ascii_lowercase().replace(' ', "-");
    let mut result = Vec::new();
    let per_cpu_s = |t: &Ingest| t.n_values as f64 / t.cpu_s.max(0.01);
    for t in taken {
        let detail = format!(
            "{:.0} values/s by the clock; {:.2} µs of server CPU per value",
            t.n_values as f64 / t.seconds,
            t.cpu_s * 1e6 / t.n_values as f64
        );
        let one = |workload: String, value, unit, peer: Option<(&Ingest, f64)>| Measure {
            workload,
            value,
            unit,
            peer: peer.map(|(p, v)| format!("{}'s {v:.2}", p.system)),
            ratio: peer.map(|(_, v)| value / v),
            cpu: None,
        };
        let peers = || taken.iter().filter(|p| is_ours(&t.system) && !is_ours(&p.system));
        let workload = format!("ingest/{}", slug(&t.system));
        result.push(Measure { cpu: Some(detail), ..one(workload.clone(), per_cpu_s(t), "values/CPU-s", None) });
        for p in peers() {
            result.push(one(format!("{workload}/{}", slug(&p.system)), per_cpu_s(t), "values/CPU-s", Some((p, per_cpu_s(p)))));
        }
        let Some(bytes) = t.bytes else { continue };
        let per_value = |bytes: u64, t: &Ingest| bytes as f64 / t.n_values as f64;
        let workload = format!("disk/{}", slug(&t.system));
        result.push(one(workload.clone(), per_value(bytes, t), "bytes/value", None));
        for p in peers() {
            if let Some(b) = p.bytes {
                result.push(one(format!("{workload}/{}", slug(&p.system)), per_value(bytes, t), "bytes/value", Some((p, per_value(b, p)))));
            }
        }
    }
    for a in asked {
        let workload = format!("{}/{}", a.question, slug(&a.system));
        let one = |workload: String, peer: Option<&Asked>| Measure {
            workload,
            value: a.cpu_ms,
            unit: "CPU ms",
            peer: peer.map(|p| format!("{}'s {:.3}", p.system, p.cpu_ms)),
            ratio: peer.map(|p| a.cpu_ms / p.cpu_ms),
            cpu: None,
        };
        let latency = format!("p50 {:.2} ms, p99 {:.2} ms by the clock", a.p50_ms, a.p99_ms);
        result.push(Measure { cpu: Some(latency), ..one(workload.clone(), None) });
        for p in asked.iter().filter(|p| p.question == a.question && is_ours(&a.system) && !is_ours(&p.system)) {
            result.push(one(format!("{workload}/{}", slug(&p.system)), Some(p)));
        }
    }
    result
}
