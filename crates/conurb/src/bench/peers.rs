//! VictoriaMetrics, InfluxDB and PostgreSQL with PostGIS, doing the work of data set T.
//!
//! `scripts/bench-peers.sh` starts and stops them; this is the load. HTTP goes through the same client that loads the node, SQL through
//! `psql`, whose time is its own and not the server's.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use host::Stopwatch;
use serde::Deserialize;

use super::city::{self, City, N_STATIONS, N_STEPS, PROPERTIES};
use super::client::{Client, drive};
use super::node::{WorkDir, work_dir};
use super::process::{cpu_seconds, disk_bytes, settled_cpu_seconds};
use crate::bulk::encoded;

/// Quarter hours of one request: 17 x 600 = 10,200 rows of 5 values.
const STEPS_PER_REQUEST: usize = 17;
/// How long a peer may take to merge before its bytes are counted.
const MERGE_WAIT: Duration = Duration::from_secs(20);

/// A running server.
#[derive(Deserialize, Clone, Debug)]
pub(super) struct Server {
    pub(super) pid: u32,
    /// Host and port.
    pub(super) address: String,
    dir: PathBuf,
}

#[derive(Deserialize)]
struct Started {
    victoriametrics: Server,
    influxdb: Server,
    postgresql: Server,
}

/// All peers; they stop with their owner.
pub(super) struct Peers {
    script: PathBuf,
    dir: WorkDir,
    started: Started,
}

/// Data taken in.
#[derive(Clone, Debug)]
pub(super) struct Ingest {
    pub(super) system: String,
    pub(super) n_values: usize,
    pub(super) seconds: f64,
    /// Server CPU seconds, until it was idle again.
    pub(super) cpu_s: f64,
    /// After compaction; none if not looked at.
    pub(super) bytes: Option<u64>,
}

/// One kind of question, asked again and again.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) system: String,
    pub(super) question: &'static str,
    /// Server CPU milliseconds per question.
    pub(super) cpu_ms: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

/// The questions: name and meaning.
pub(super) const QUESTIONS: [(&str, &str); 4] = [
    ("last-1000", "last value of 1,000 series (200 stations x 5 properties)"),
    ("box-now", "the present values of the 100 stations in a box"),
    ("one-by-hour", "hourly means of one series over 30 days"),
    ("all-by-hour", "hourly means of each property over all 3,000 series and 30 days"),
];

impl Peers {
    pub(super) fn start(script: &Path) -> anyhow::Result<Self> {
        let dir = work_dir()?;
        let output = Command::new(script)
            .arg("start")
            .arg(dir.path())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot run `{}`", script.display()))?;
        if !output.status.success() {
            bail!("`{} start` failed; `{} install` installs the peers", script.display(), script.display());
        }
        let started = serde_json::from_slice(&output.stdout).context("the line of JSON that the script prints")?;
        Ok(Self { script: script.to_owned(), dir, started })
    }

    /// Loads data set T into each of them.
    pub(super) async fn ingest(&self, city: &City) -> anyhow::Result<Vec<Ingest>> {
        Ok(vec![self.ingest_victoriametrics(city).await?, self.ingest_influxdb(city).await?, self.ingest_postgresql(city).await?])
    }

    async fn ingest_victoriametrics(&self, city: &City) -> anyhow::Result<Ingest> {
        let server = &self.started.victoriametrics;
        let taken = post_all(server, "VictoriaMetrics", "/api/v1/import", |steps| city.victoriametrics_lines(steps)).await?;
        let mut client = Client::connect(&server.address).await?;
        client.request("GET", "/internal/force_flush", "").await?;
        client.request("GET", "/internal/force_merge", "").await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        settled_cpu_seconds(server.pid).await?;
        Ok(Ingest { bytes: Some(disk_bytes(&server.dir)?), ..taken })
    }

    async fn ingest_influxdb(&self, city: &City) -> anyhow::Result<Ingest> {
        let server = &self.started.influxdb;
        let mut client = Client::connect(&server.address).await?;
        let (status, answer) = client.send("POST", "/query?q=create%20database%20t", "application/x-www-form-urlencoded", b"").await?;
        if status != 200 {
            bail!("InfluxDB answered {status}: {answer}");
        }
        let taken = post_all(server, "InfluxDB", "/write?db=t&precision=s", |steps| city.influx_lines(steps)).await?;
        // Cold shards are written and compacted by themselves: see the configuration in the script.
        tokio::time::sleep(MERGE_WAIT).await;
        settled_cpu_seconds(server.pid).await?;
        Ok(Ingest { bytes: Some(disk_bytes(&server.dir)?), ..taken })
    }

    async fn ingest_postgresql(&self, city: &City) -> anyhow::Result<Ingest> {
        let server = &self.started.postgresql;
        psql(
            server,
            "create table t (series int not null, ts timestamptz not null, value float8 not null); create index on t (series, ts);",
        )?;
        let cpu_before = cpu_seconds(server.pid)?;
        let stopwatch = Stopwatch::start();
        let mut child = psql_command(&server.address, "postgres", "postgres").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        {
            let mut input = BufWriter::new(child.stdin.take().expect("it is piped"));
            for steps in requests() {
                input.write_all(b"copy t from stdin;\n")?;
                input.write_all(city.copy_lines(steps).as_bytes())?;
                input.write_all(b"\\.\n")?;
            }
            input.flush()?;
        }
        if !child.wait()?.success() {
            bail!("PostgreSQL refused the data");
        }
        let seconds = stopwatch.elapsed().as_secs_f64();
        let cpu_s = settled_cpu_seconds(server.pid).await? - cpu_before;
        psql(server, "vacuum analyze t; checkpoint;")?;
        let bytes: u64 = psql(server, "select pg_total_relation_size('t')")?.trim().parse().context("the size of a table")?;
        let places: Vec<String> = (0..N_STATIONS)
            .map(|s| {
                let (lon, lat) = city::place(s);
                format!("({s}, st_setsrid(st_makepoint({lon:.2}, {lat:.2}), 4326))")
            })
            .collect();
        let values: Vec<String> = PROPERTIES
            .iter()
            .enumerate()
            .map(|(p, property)| {
                let n = PROPERTIES.len();
                format!("(select value from t where series = p.station * {n} + {p} order by ts desc limit 1) as {}", property.name)
            })
            .collect();
        psql(
            server,
            &format!(
                "create table latest as select p.station, p.location, {} from (values {}) as p (station, location); \
                 create index on latest using gist (location); create index on latest (station); analyze latest;",
                values.join(", "),
                places.join(", ")
            ),
        )?;
        Ok(Ingest { system: "PostgreSQL".to_owned(), n_values: city::N_VALUES, seconds, cpu_s, bytes: Some(bytes) })
    }

    /// Asks each of them each question, for `time` each.
    pub(super) async fn ask(&self, time: Duration) -> anyhow::Result<Vec<Asked>> {
        let mut asked = Vec::new();
        for (question, _) in QUESTIONS {
            if let Some(path) = victoriametrics_question(question) {
                asked.push(ask_http(&self.started.victoriametrics, "VictoriaMetrics", question, &path, time).await?);
            }
            if let Some(statement) = influxdb_question(question) {
                let path = format!("/query?db=t&epoch=s&q={}", encoded(&statement));
                asked.push(ask_http(&self.started.influxdb, "InfluxDB", question, &path, time).await?);
            }
            let server = &self.started.postgresql;
            let statement = postgresql_question(question);
            asked.push(ask_psql(&server.address, server.pid, ("postgres", "postgres"), "PostgreSQL", question, &statement, time)?);
        }
        Ok(asked)
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        // Whoever cannot be stopped is named by the script.
        let _ = Command::new(&self.script).arg("stop").arg(self.dir.path()).status();
    }
}

/// The requests of the whole set.
fn requests() -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..N_STEPS).step_by(STEPS_PER_REQUEST).map(|first| first..(first + STEPS_PER_REQUEST).min(N_STEPS))
}

async fn post_all(server: &Server, system: &str, path: &str, body: impl Fn(std::ops::Range<usize>) -> String) -> anyhow::Result<Ingest> {
    let mut client = Client::connect(&server.address).await?;
    let cpu_before = cpu_seconds(server.pid)?;
    let stopwatch = Stopwatch::start();
    for steps in requests() {
        let (status, answer) = client.send("POST", path, "text/plain", body(steps).as_bytes()).await?;
        if status != 204 {
            bail!("{system} answered {status}: {answer}");
        }
    }
    let seconds = stopwatch.elapsed().as_secs_f64();
    let cpu_s = settled_cpu_seconds(server.pid).await? - cpu_before;
    Ok(Ingest { system: system.to_owned(), n_values: city::N_VALUES, seconds, cpu_s, bytes: None })
}

/// Asks one question over HTTP again and again.
pub(super) async fn ask_http(server: &Server, system: &str, question: &'static str, path: &str, time: Duration) -> anyhow::Result<Asked> {
    let (status, answer) = Client::connect(&server.address).await?.request("GET", path, "").await?;
    // An empty answer is as quick as it is useless.
    if status != 200 || answer.len() < 200 {
        bail!("{system} answered `{question}` with {status}: {answer}");
    }
    let cpu_before = cpu_seconds(server.pid)?;
    let load = drive(&server.address, 1, time, &|_, _| ("GET", path.to_owned(), String::new())).await?;
    let cpu_ms = (cpu_seconds(server.pid)? - cpu_before) * 1e3 / load.n_done as f64;
    Ok(Asked { system: system.to_owned(), question, cpu_ms, p50_ms: load.quantile_ms(0.5), p99_ms: load.quantile_ms(0.99) })
}

/// Asks one question in one SQL session again and again.
pub(super) fn ask_psql(
    address: &str,
    pid: u32,
    (user, database): (&str, &str),
    system: &str,
    question: &'static str,
    statement: &str,
    time: Duration,
) -> anyhow::Result<Asked> {
    let run = |n: usize| -> anyhow::Result<Vec<f64>> {
        let script = format!("\\o /dev/null\n\\timing on\n{}", format!("{statement};\n").repeat(n));
        let output = psql_script(address, user, database, &script).with_context(|| format!("{system}, `{question}`"))?;
        let mut times_ms: Vec<f64> = output.lines().filter_map(|l| l.strip_prefix("Time: ")?.split(' ').next()?.parse().ok()).collect();
        if times_ms.len() != n {
            bail!("{system}, `{question}`: psql timed {} of {n} statements: {output}", times_ms.len());
        }
        times_ms.sort_by(f64::total_cmp);
        Ok(times_ms)
    };
    let warm = run(3)?;
    let n = ((time.as_secs_f64() * 1e3 / warm[1].max(0.05)) as usize).clamp(3, 20_000);
    let cpu_before = cpu_seconds(pid)?;
    let times_ms = run(n)?;
    let cpu_ms = (cpu_seconds(pid)? - cpu_before) * 1e3 / n as f64;
    Ok(Asked { system: system.to_owned(), question, cpu_ms, p50_ms: times_ms[n / 2], p99_ms: times_ms[(n * 99 / 100).min(n - 1)] })
}

/// `psql` on a server.
fn psql_command(address: &str, user: &str, database: &str) -> Command {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "5432"));
    let mut command = Command::new("psql");
    command.args(["-h", host, "-p", port, "-U", user, "-d", database, "-XqAt", "-v", "ON_ERROR_STOP=1"]);
    command
}

fn psql(server: &Server, statements: &str) -> anyhow::Result<String> {
    psql_script(&server.address, "postgres", "postgres", statements)
}

fn psql_script(address: &str, user: &str, database: &str, script: &str) -> anyhow::Result<String> {
    let mut child = psql_command(address, user, database)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start psql")?;
    let mut input = child.stdin.take().expect("it is piped");
    let script = script.to_owned();
    // From a thread: psql answers while it reads.
    let writer = std::thread::spawn(move || {
        // psql that has stopped at an error reads no further; its words say why.
        let _ = input.write_all(script.as_bytes());
    });
    let output = child.wait_with_output()?;
    // The thread ends with the pipe.
    let _ = writer.join();
    if !output.status.success() {
        bail!("psql: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn names(separator: &str, write: impl Fn(&str) -> String) -> String {
    PROPERTIES.map(|p| write(p.name)).join(separator)
}

/// First and last second of the set's hours.
const fn span_s() -> (i64, i64) {
    (city::START_S, city::time_s(N_STEPS))
}

fn victoriametrics_question(question: &str) -> Option<String> {
    let (start, end) = span_s();
    let all = names("|", str::to_owned);
    // A bucket [t, t + 1 h) is the window that ends at its last quarter hour.
    let by_hour = |query: &str| {
        let (first, last) = (start + 2_700, end - city::STEP_S);
        format!("/api/v1/query_range?query={}&start={first}&end={last}&step=3600", encoded(query))
    };
    match question {
        "last-1000" => {
            let query = format!(r#"{{__name__=~"{all}",station=~"s[01][0-9][0-9]"}}"#);
            Some(format!("/api/v1/query?query={}&time={}", encoded(&query), city::time_s(N_STEPS - 1)))
        }
        "one-by-hour" => Some(by_hour(r#"avg_over_time(pm25{station="s123"}[1h])"#)),
        "all-by-hour" => Some(by_hour(&format!(r#"avg(avg_over_time({{__name__=~"{all}"}}[1h])) by (__name__)"#))),
        // It has no places.
        _ => None,
    }
}

fn influxdb_question(question: &str) -> Option<String> {
    let (start, end) = span_s();
    let between = format!("time >= {start}s and time < {end}s");
    match question {
        "last-1000" => {
            Some(format!("select {} from air where station =~ /^s[01]/ group by station", names(", ", |n| format!("last({n})"))))
        }
        "one-by-hour" => Some(format!("select mean(pm25) from air where station = 's123' and {between} group by time(1h)")),
        "all-by-hour" => Some(format!("select {} from air where {between} group by time(1h)", names(", ", |n| format!("mean({n})")))),
        // It has no places.
        _ => None,
    }
}

fn postgresql_question(question: &str) -> String {
    let n = PROPERTIES.len();
    match question {
        "last-1000" => "select s, v.value from generate_series(0, 999) s \
                        cross join lateral (select value from t where series = s order by ts desc limit 1) v"
            .to_owned(),
        "box-now" => {
            let [west, south, east, north] = city::BOX;
            let columns = names(", ", str::to_owned);
            format!("select station, {columns} from latest where location && st_makeenvelope({west}, {south}, {east}, {north}, 4326)")
        }
        "one-by-hour" => format!(
            "select date_trunc('hour', ts) as hour, avg(value) from t where series = {} group by 1 order by 1",
            city::series_number(123, 0)
        ),
        _ => format!("select series % {n} as property, date_trunc('hour', ts) as hour, avg(value) from t group by 1, 2 order by 1, 2"),
    }
}

impl Server {
    /// A node of conurb, as a server like the others.
    pub(super) fn node(pid: u32, address: &str) -> Self {
        Self { pid, address: address.to_owned(), dir: PathBuf::new() }
    }
}
