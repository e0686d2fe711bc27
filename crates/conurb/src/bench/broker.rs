//! The NGSI-LD interface under load: `wrk` on one core, the node on the other, and beside it, in the same run, what the machine gives at most.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use host::Stopwatch;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::client::{Client, drive};
use super::node::{BenchNode, WorkDir, work_dir};
use super::{Measure, measure, server};

/// Entities of the questions, of five attributes and about 550 bytes.
const N_ENTITIES: usize = 100;
/// Connections of the questions.
const N_CONNECTIONS: usize = 64;
/// Clients of the changes.
const N_WRITERS: usize = 50;
/// Subscriptions, and changes per second, of the many subscriptions.
const N_SUBSCRIPTIONS: usize = 10_000;
const WRITES_PER_S: usize = 2_000;
/// Registered sources, and questions per second.
const N_SOURCES: usize = 34;
const QUESTIONS_PER_S: usize = 200;
/// The core of the node, and that of the load.
const NODE_CORE: &str = "1";
const LOAD_CORE: &str = "0";

/// Workloads by name.
pub(super) const NAMES: [&str; 6] = ["ngsi-retrieve", "ngsi-query", "ngsi-patch", "ngsi-notify", "ngsi-subscriptions", "ngsi-sources"];

pub(super) async fn run(wanted: &dyn Fn(&str) -> bool, time: Duration, syncs_per_s: f64) -> anyhow::Result<Vec<Measure>> {
    let mut results = Vec::new();
    if wanted("ngsi-retrieve") {
        results.push(reads("ngsi-retrieve", &format!("/ngsi-ld/v1/entities/{}", id(7)), time).await?);
    }
    if wanted("ngsi-query") {
        results.push(reads("ngsi-query", "/ngsi-ld/v1/entities?type=Room&limit=20", time).await?);
    }
    if wanted("ngsi-patch") {
        results.push(patches(time, syncs_per_s).await?);
    }
    if wanted("ngsi-notify") {
        results.extend(notifications(time).await?);
    }
    if wanted("ngsi-subscriptions") {
        results.extend(many_subscriptions(time).await?);
    }
    if wanted("ngsi-sources") {
        results.extend(sources(time).await?);
    }
    Ok(results)
}

fn id(i: usize) -> String {
    format!("urn:ngsi-ld:Room:bench:{i:05}")
}

fn room(i: usize) -> Value {
    let number =
        |value: usize, unit: &str| json!({"type": "Property", "value": value, "unitCode": unit, "observedAt": "2026-01-01T00:00:00Z"});
    json!({
        "id": id(i), "type": "Room", "temperature": number(15 + i % 10, "CEL"), "humidity": number(40 + i % 20, "P1"), "co2": number(400 + i, "59"),
        "name": {"type": "Property", "value": format!("Room {i}")}, "isIn": {"type": "Relationship", "object": "urn:ngsi-ld:Building:bench:1"},
    })
}

async fn node_with_rooms(n: usize) -> anyhow::Result<BenchNode> {
    let node = BenchNode::start_on(NODE_CORE)?;
    let mut client = Client::connect(&node.http).await?;
    for first in (0..n).step_by(1_000) {
        let batch: Vec<Value> = (first..(first + 1_000).min(n)).map(room).collect();
        expect(201, client.request("POST", "/ngsi-ld/v1/entityOperations/create", &json!(batch).to_string()).await?)?;
    }
    Ok(node)
}

fn expect(wanted: u16, (status, body): (u16, String)) -> anyhow::Result<String> {
    if status != wanted { bail!("the node answered {status} instead of {wanted}: {body}") } else { Ok(body) }
}

/// Requests per second of one path, over the rate at which a bare route gives the same bytes.
async fn reads(name: &str, path: &str, time: Duration) -> anyhow::Result<Measure> {
    let node = node_with_rooms(N_ENTITIES).await?;
    let body = expect(200, Client::connect(&node.http).await?.request("GET", path, "").await?)?;
    let ours = wrk(&node.http, path, N_CONNECTIONS, time, None)?;
    drop(node);
    let bare = BareRoute::start(body.as_bytes())?;
    let most = wrk(&bare.address, path, N_CONNECTIONS, time, None)?;
    let mut result = measure(name, ours, "requests/s");
    result.peer = Some(format!("a bare route with the same {} bytes on the same core, {most:.0}/s", body.len()));
    result.ratio = Some(ours / most);
    Ok(result)
}

/// Changes per second that are on disk before they are answered.
async fn patches(time: Duration, syncs_per_s: f64) -> anyhow::Result<Measure> {
    let node = node_with_rooms(N_ENTITIES).await?;
    let script = "local n = 0\nrequest = function()\n  n = n + 1\n  local path = string.format('/ngsi-ld/v1/entities/urn:ngsi-ld:Room:bench:%05d/attrs', n % 100)\n  \
        return wrk.format('PATCH', path, {['content-type'] = 'application/json'}, string.format('{\"temperature\":{\"type\":\"Property\",\"value\":%d}}', n))\nend\n";
    let rate = wrk(&node.http, "/", N_WRITERS, time, Some(script))?;
    let most = (N_WRITERS as f64 * syncs_per_s).min(30_000.0);
    let mut result = measure("ngsi-patch", rate, "changes/s");
    result.peer = Some(format!("{N_WRITERS} clients x {syncs_per_s:.0} syncs/s of the disk, at most 30,000 = {most:.0}/s"));
    result.ratio = Some(rate / most);
    Ok(result)
}

/// What receivers of notifications have seen.
struct Received {
    n: AtomicU64,
    since: Stopwatch,
    /// From the time in the value to the arrival, µs.
    latency_us: std::sync::Mutex<Histogram<u64>>,
}

impl Received {
    fn new() -> anyhow::Result<Arc<Self>> {
        let latency_us = std::sync::Mutex::new(Histogram::new(3).context("a histogram")?);
        Ok(Arc::new(Self { n: AtomicU64::new(0), since: Stopwatch::start(), latency_us }))
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A receiver: counts the entities of a notification, and reads from their `sentAt` how long it took.
    async fn serve(self: &Arc<Self>) -> anyhow::Result<String> {
        let received = Arc::clone(self);
        let nothing: Arc<[u8]> = Arc::new([]);
        let answer = move |body: &[u8]| {
            let text = String::from_utf8_lossy(body);
            let now = received.now_us();
            for (at, _) in text.match_indices("\"sentAt\":") {
                let digits = text[at..].split("\"value\":").nth(1).unwrap_or_default();
                let digits: String = digits.chars().take_while(char::is_ascii_digit).collect();
                received.n.fetch_add(1, Ordering::Relaxed);
                if let Ok(sent) = digits.parse::<u64>() {
                    let mut latency = received.latency_us.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    // A latency beyond the histogram's range would be minutes: none.
                    let _ = latency.record(now.saturating_sub(sent));
                }
            }
            Arc::clone(&nothing)
        };
        server::serve(Arc::new(answer)).await
    }

    fn quantile_ms(&self, q: f64) -> f64 {
        self.latency_us.lock().unwrap_or_else(std::sync::PoisonError::into_inner).value_at_quantile(q) as f64 / 1e3
    }

    /// Waits until so many have arrived, or nothing arrives any more.
    async fn wait_for(&self, n: u64) {
        let mut last = 0;
        loop {
            let now = self.n.load(Ordering::Relaxed);
            if now >= n || now == last {
                return;
            }
            last = now;
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }
}

fn subscription(uri: &str, selector: Value) -> String {
    let endpoint = json!({"uri": format!("http://{uri}/"), "accept": "application/json"});
    json!({"type": "Subscription", "entities": [selector], "notification": {"attributes": ["sentAt"], "endpoint": endpoint}}).to_string()
}

/// Changes that one subscription wants: as fast as they come.
async fn notifications(time: Duration) -> anyhow::Result<Vec<Measure>> {
    let node = node_with_rooms(N_ENTITIES).await?;
    let received = Received::new()?;
    let uri = received.serve().await?;
    let mut client = Client::connect(&node.http).await?;
    expect(201, client.request("POST", "/ngsi-ld/v1/subscriptions", &subscription(&uri, json!({"type": "Room"}))).await?)?;
    let clock = Arc::clone(&received);
    let load = drive(&node.http, N_WRITERS, time, &move |client, i| {
        let path = format!("/ngsi-ld/v1/entities/{}/attrs", id((client + i * N_WRITERS) % N_ENTITIES));
        let body = json!({"sentAt": {"type": "Property", "value": clock.now_us()}});
        ("PATCH", path, body.to_string())
    })
    .await?;
    received.wait_for(load.n_done).await;
    let n = received.n.load(Ordering::Relaxed);
    let mut rate = measure("ngsi-notify", n as f64 / received.since.elapsed().as_secs_f64().min(time.as_secs_f64() + 2.0), "notified/s");
    rate.cpu = Some(format!(
        "{} changes, {n} notified; from request to receiver p50 {:.1} ms, p99 {:.1} ms",
        load.n_done,
        received.quantile_ms(0.5),
        received.quantile_ms(0.99)
    ));
    Ok(vec![rate, measure("ngsi-notify/p99", received.quantile_ms(0.99), "ms")])
}

/// Many subscriptions, each for one entity, at a given rate of changes.
async fn many_subscriptions(time: Duration) -> anyhow::Result<Vec<Measure>> {
    let node = node_with_rooms(N_SUBSCRIPTIONS).await?;
    let received = Received::new()?;
    let uri = received.serve().await?;
    let mut client = Client::connect(&node.http).await?;
    for i in 0..N_SUBSCRIPTIONS {
        let body = subscription(&uri, json!({"type": "Room", "id": id(i)}));
        expect(201, client.request("POST", "/ngsi-ld/v1/subscriptions", &body).await?)?;
    }
    let cpu = node.cpu_seconds()?;
    let clock = Arc::clone(&received);
    let late = at_rate(
        &node.http,
        WRITES_PER_S,
        time,
        Arc::new(move |i| {
            let path = format!("/ngsi-ld/v1/entities/{}/attrs", id(i * 7_919 % N_SUBSCRIPTIONS));
            ("PATCH", path, json!({"sentAt": {"type": "Property", "value": clock.now_us()}}).to_string())
        }),
    )
    .await?;
    received.wait_for(late.n).await;
    let n = received.n.load(Ordering::Relaxed);
    let mut result = measure("ngsi-subscriptions", n as f64 / late.n as f64 * 100.0, "% notified");
    result.cpu = Some(format!(
        "{} changes at {:.0}/s (wanted {WRITES_PER_S}/s), {n} notified, p99 {:.1} ms; {:.0} µs of server CPU per change",
        late.n,
        late.per_s,
        received.quantile_ms(0.99),
        (node.cpu_seconds()? - cpu) * 1e6 / late.n as f64
    ));
    Ok(vec![result])
}

/// Questions over many registered sources at a given rate.
async fn sources(time: Duration) -> anyhow::Result<Vec<Measure>> {
    let node = node_with_rooms(N_ENTITIES).await?;
    let mut client = Client::connect(&node.http).await?;
    for i in 0..N_SOURCES {
        let body: Arc<[u8]> = json!([room(1_000 + i)]).to_string().into_bytes().into();
        let endpoint = server::serve(Arc::new(move |_: &[u8]| Arc::clone(&body))).await?;
        let registration = json!({
            "type": "ContextSourceRegistration", "information": [{"entities": [{"type": "Room"}]}], "endpoint": format!("http://{endpoint}"),
        });
        expect(201, client.request("POST", "/ngsi-ld/v1/csourceRegistrations", &registration.to_string()).await?)?;
    }
    let path = "/ngsi-ld/v1/entities?type=Room&limit=20";
    let body = expect(200, client.request("GET", "/ngsi-ld/v1/entities?type=Room&limit=1000", "").await?)?;
    let n_found = serde_json::from_str::<Value>(&body)?.as_array().map_or(0, Vec::len);
    if n_found != N_ENTITIES + N_SOURCES {
        bail!("the node found {n_found} entities of its own and of {N_SOURCES} sources, {} were expected", N_ENTITIES + N_SOURCES);
    }
    let late = at_rate(&node.http, QUESTIONS_PER_S, time, Arc::new(move |_| ("GET", path.to_owned(), String::new()))).await?;
    let mut result = measure("ngsi-sources", late.p99_ms, "ms p99");
    result.cpu =
        Some(format!("{N_SOURCES} sources, {:.0} questions/s (wanted {QUESTIONS_PER_S}/s), p50 {:.1} ms", late.per_s, late.p50_ms));
    Ok(vec![result])
}

/// What came of a load at a rate: latencies are from when a request was due.
struct AtRate {
    n: u64,
    per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
}

type Ask = Arc<dyn Fn(usize) -> (&'static str, String, String) + Send + Sync>;

/// Asks so often per second, whether or not the answers come as quickly.
async fn at_rate(host: &str, per_s: usize, time: Duration, ask: Ask) -> anyhow::Result<AtRate> {
    let n_total = per_s * usize::try_from(time.as_secs()).unwrap_or(1).max(1);
    let histogram = Arc::new(Mutex::new(Histogram::<u64>::new(3).context("a histogram")?));
    let next = Arc::new(AtomicU64::new(0));
    let since = Arc::new(Stopwatch::start());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..N_CONNECTIONS {
        let (histogram, next, since, ask) = (Arc::clone(&histogram), Arc::clone(&next), Arc::clone(&since), Arc::clone(&ask));
        let mut client = Client::connect(host).await?;
        tasks.spawn(async move {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= n_total as u64 {
                    return anyhow::Ok(());
                }
                let due = Duration::from_secs_f64(i as f64 / per_s as f64);
                tokio::time::sleep(due.saturating_sub(since.elapsed())).await;
                let (method, path, body) = ask(usize::try_from(i)?);
                let (status, answer) = client.request(method, &path, &body).await?;
                if !(200..300).contains(&status) {
                    bail!("{method} {path} was answered {status}: {answer}");
                }
                let late = since.elapsed().saturating_sub(due);
                histogram.lock().await.record(u64::try_from(late.as_micros())?).context("a latency")?;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let took = since.elapsed().as_secs_f64();
    let histogram = histogram.lock().await;
    let ms = |q| histogram.value_at_quantile(q) as f64 / 1e3;
    Ok(AtRate { n: histogram.len(), per_s: histogram.len() as f64 / took, p50_ms: ms(0.5), p99_ms: ms(0.99) })
}

/// A route that gives bytes and does nothing else, in a process of its own on the node's core.
struct BareRoute {
    child: Child,
    address: String,
    _dir: WorkDir,
}

impl BareRoute {
    fn start(bytes: &[u8]) -> anyhow::Result<Self> {
        let dir = work_dir()?;
        let file = dir.path().join("answer");
        std::fs::write(&file, bytes)?;
        let mut child = Command::new("taskset")
            .args(["-c", NODE_CORE])
            .arg(std::env::current_exe()?)
            .args(["bench", "--bare-route"])
            .arg(&file)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start `taskset` (Debian package util-linux)")?;
        let mut address = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().expect("it is piped")), &mut address)?;
        Ok(Self { child, address: address.trim().to_owned(), _dir: dir })
    }
}

impl Drop for BareRoute {
    fn drop(&mut self) {
        // Already gone if it could not start.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves the bytes of a file on every path; says its address first.
pub(super) async fn bare_route(file: &Path) -> anyhow::Result<()> {
    let bytes = std::fs::read(file)?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    crate::say(&listener.local_addr()?.to_string());
    Ok(::serve::serve_bytes(listener, bytes).await?)
}

/// Requests per second as `wrk` counts them; every answer must be of the 200s.
fn wrk(host: &str, path: &str, n_connections: usize, time: Duration, script: Option<&str>) -> anyhow::Result<f64> {
    let dir = work_dir()?;
    let mut command = Command::new("taskset");
    command.args(["-c", LOAD_CORE, "wrk", "-t1"]).arg(format!("-c{n_connections}")).arg(format!("-d{}s", time.as_secs().max(1)));
    if let Some(script) = script {
        let file = dir.path().join("requests.lua");
        std::fs::write(&file, script)?;
        command.arg("-s").arg(file);
    }
    let output = command.arg(format!("http://{host}{path}")).output().context("cannot start `wrk` (Debian package wrk)")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("wrk failed: {text}{}", String::from_utf8_lossy(&output.stderr));
    }
    if let Some(line) = text.lines().find(|l| l.contains("Non-2xx") || l.contains("Socket errors")) {
        bail!("the load did not go through: {}", line.trim());
    }
    let rate = text.lines().find_map(|l| l.strip_prefix("Requests/sec:")).with_context(|| format!("wrk said `{text}`"))?;
    Ok(rate.trim().parse()?)
}
