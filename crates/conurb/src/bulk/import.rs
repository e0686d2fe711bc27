//! `conurb import`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use reqwest::Method;
use serde_json::Value;
use table::{Layout, UtcOffset};

use super::{FileFormat, NodeClient, NodeRefusal, Target, encoded, lines, query, rows};

const EXAMPLES: &str = "\
Examples:
  conurb import stations.csv --type AirQualityObserved
  conurb import pm25.csv --type AirQualityObserved --id-column station --id-prefix urn:ngsi-ld:AirQualityObserved: \\
      --time-column time --utc-offset +08:00 --map PM2.5=pm25 --map No= --unit pm25=GQ --null NA
  conurb import 2023.parquet 2024.parquet --type TrafficFlowObserved --token-file conurb-data/admin.token
  conurb import roads.jsonl --type RoadSegment
  conurb import pm25.csv --type AirQualityObserved --dry-run

Rows of CSV and Parquet are observations: an id, a time, and values of attributes. A line of JSON lines is a whole NGSI-LD entity.
The same command on the same file goes on where the last one ended, be it by Ctrl-C, a lost network or a power cut.";

/// Options of `conurb import`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Files: .csv, .parquet, .jsonl
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Type of the entities, as a short name or a full IRI
    #[arg(long = "type", value_name = "TYPE")]
    entity_type: String,
    /// Format; default: by the ending of the file's name
    #[arg(long)]
    format: Option<FileFormat>,
    /// Column of the entities' ids
    #[arg(long, default_value = "id", value_name = "COLUMN")]
    id_column: String,
    /// Put before each id, to make a code an absolute URI
    #[arg(long, default_value = "", value_name = "TEXT")]
    id_prefix: String,
    /// Column of the times
    #[arg(long, default_value = "observedAt", value_name = "COLUMN")]
    time_column: String,
    /// How far times without a zone are ahead of UTC, such as +08:00; without it they are refused
    #[arg(long, value_name = "OFFSET", allow_hyphen_values = true)]
    utc_offset: Option<UtcOffset>,
    /// A column that is called otherwise as an attribute; `COLUMN=` leaves it out; may be repeated
    #[arg(long, value_name = "COLUMN=ATTRIBUTE", value_parser = pair)]
    map: Vec<(String, String)>,
    /// Unit code of an attribute (UN/CEFACT, such as GQ for µg/m³); may be repeated
    #[arg(long, value_name = "ATTRIBUTE=CODE", value_parser = pair)]
    unit: Vec<(String, String)>,
    /// An attribute that stays text although it looks like a number; may be repeated
    #[arg(long, value_name = "ATTRIBUTE")]
    text: Vec<String>,
    /// What the CSV file writes where there is no value, such as NA; may be repeated
    #[arg(long, value_name = "TEXT")]
    null: Vec<String>,
    /// URL of the JSON-LD context for the names; default: the node's
    #[arg(long, value_name = "URL")]
    context: Option<String>,
    /// Name of the job on the node; default: made from the file and these options
    #[arg(long, value_name = "NAME")]
    job: Option<String>,
    /// Import a file again that is in already
    #[arg(long)]
    again: bool,
    /// Only read and check the files; nothing is sent
    #[arg(long)]
    dry_run: bool,
    /// How long to wait for a node that cannot be reached or is busy, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    wait_seconds: u64,
    #[command(flatten)]
    target: Target,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (a, b) = text.split_once('=').ok_or_else(|| format!("`{text}` has no `=`"))?;
    Ok((a.to_owned(), b.to_owned()))
}

/// One file on its way into the node.
pub(super) struct Job<'a> {
    pub(super) node: &'a NodeClient,
    pub(super) options: &'a Options,
    pub(super) path: &'a Path,
    pub(super) format: FileFormat,
    name: String,
}

impl Options {
    pub(super) fn layout(&self) -> Layout {
        Layout {
            id: self.id_column.clone(),
            time: self.time_column.clone(),
            id_prefix: self.id_prefix.clone(),
            rename: self.map.iter().cloned().collect(),
            units: self.unit.iter().cloned().collect(),
            text: self.text.iter().cloned().collect(),
            nulls: self.null.iter().cloned().collect(),
            utc_offset: self.utc_offset,
        }
    }

    /// The same file with the same options has the same name: that is what makes an import resumable by repeating the command.
    fn job_name(&self, path: &Path, format: FileFormat) -> anyhow::Result<String> {
        let meta = std::fs::metadata(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let full = path.canonicalize().with_context(|| format!("cannot read `{}`", path.display()))?;
        let text = format!("{}\n{}\n{}\n{}\n{:?}", full.display(), meta.len(), format.name(), self.entity_type, self.layout());
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        let hex: String = digest.as_ref().iter().take(8).map(|b| format!("{b:02x}")).collect();
        let stem: String = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let stem: String = stem.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(40).collect();
        Ok(format!("{stem}-{hex}"))
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if options.job.is_some() && options.files.len() > 1 {
        bail!("--job names the job of one file; there are {}", options.files.len());
    }
    let runtime = crate::runtime()?;
    let node = NodeClient::new(&options.target)?;
    for path in &options.files {
        let format = options.format.map_or_else(|| FileFormat::of(path), Ok)?;
        let told = || format!("`{}`", path.display());
        if options.dry_run {
            let report = match format {
                FileFormat::Jsonl => lines::check(path, &options.entity_type),
                FileFormat::Csv | FileFormat::Parquet => rows::check(path, format, options.layout()),
            };
            crate::say(&report.with_context(told)?);
            continue;
        }
        let mut name = options.job.clone().map_or_else(|| options.job_name(path, format), Ok)?;
        if options.again {
            name = format!("{name}-{}", host::random_hex::<4>());
        }
        let job = Job { node: &node, options, path, format, name };
        runtime.block_on(job.run()).with_context(told)?;
    }
    Ok(())
}

impl Job<'_> {
    async fn run(&self) -> anyhow::Result<()> {
        let stopwatch = host::Stopwatch::start();
        let mut patience = Duration::from_secs(self.options.wait_seconds);
        let mut rows_before = None;
        loop {
            let result = self.attempt().await;
            let refusal = match result {
                Ok(summary) => {
                    crate::say(&summary.to_string());
                    return Ok(());
                }
                Err(e) => e,
            };
            match refusal.downcast_ref::<NodeRefusal>() {
                Some(NodeRefusal::Transient(_)) => {}
                _ => return Err(refusal),
            }
            // As long as it gets on, it may break off again and again.
            let rows = self.rows_on_node().await.ok().flatten();
            if rows.is_some() && rows != rows_before {
                rows_before = rows;
                patience = stopwatch.elapsed() + Duration::from_secs(self.options.wait_seconds);
            }
            if stopwatch.elapsed() >= patience {
                return Err(refusal.context("the import is not complete; the same command goes on where it ended"));
            }
            crate::complain(&format!("{refusal:#}; trying again"));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn rows_on_node(&self) -> Result<Option<u64>, NodeRefusal> {
        Ok(self.status().await?.map(|job| job["rows"].as_u64().unwrap_or_default()))
    }

    async fn status(&self) -> Result<Option<Value>, NodeRefusal> {
        let request = self.node.request(Method::GET, &format!("/api/v1/bulk/jobs/{}", encoded(&self.name)));
        let (status, job) = self.node.done(request, 404).await?;
        Ok((status == 200).then_some(job))
    }

    /// Sends what is missing.
    async fn attempt(&self) -> anyhow::Result<Value> {
        let job = self.status().await?;
        let rows = job.as_ref().and_then(|j| j["rows"].as_u64()).unwrap_or_default();
        let summary = |rows: u64, values: u64, already: bool| serde_json::json!({"file": self.path, "job": self.name, "rows": rows, "values": values, "already": already});
        if job.as_ref().is_some_and(|j| j["state"] == "done") {
            crate::complain(&format!("`{}` is in already, {rows} rows (--again imports it again)", self.path.display()));
            return Ok(summary(rows, 0, true));
        }
        if rows > 0 {
            crate::complain(&format!("`{}`: {rows} rows are in, going on there", self.path.display()));
        }
        let (rows, values) = match self.format {
            FileFormat::Jsonl => lines::send(self, rows).await?,
            FileFormat::Csv | FileFormat::Parquet => rows::send(self, rows).await?,
        };
        Ok(summary(rows, values, false))
    }

    /// Sends one piece; gives the values in it.
    pub(super) async fn post(&self, media_type: &str, from_row: u64, complete: bool, body: Vec<u8>) -> Result<u64, NodeRefusal> {
        let parameters = query(&[("job", self.name.clone()), ("fromRow", from_row.to_string()), ("complete", complete.to_string())]);
        let path = format!("/api/v1/bulk/{}?{parameters}", encoded(&self.options.entity_type));
        let mut request = self.node.request(Method::POST, &path).header("content-type", media_type).body(body);
        if let Some(url) = &self.options.context {
            request =
                request.header("link", format!("<{url}>; rel=\"http://www.w3.org/ns/json-ld#context\"; type=\"application/ld+json\""));
        }
        let (_, answer) = self.node.done(request, 0).await?;
        Ok(answer["values"].as_u64().unwrap_or_default())
    }
}
