//! `conurb export`.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use host::Stopwatch;
use reqwest::Method;

use super::{FileFormat, NodeClient, Target, encoded, query};

const EXAMPLES: &str = "\
Examples:
  conurb export AirQualityObserved --to air.parquet
  conurb export AirQualityObserved --to january.csv --from 2024-01-01T00:00:00Z --until 2024-02-01T00:00:00Z
  conurb export RoadSegment --to roads.jsonl --what latest
  conurb export AirQualityObserved --to known-then.csv --as-of 2024-03-01T00:00:00Z

`--what history` writes observations, what `conurb import` reads; `--what latest` writes the present, one row or line per entity.";

/// What is exported.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum What {
    /// All observations.
    History,
    /// The present.
    Latest,
}

/// Options of `conurb export`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Type of the entities, as a short name or a full IRI
    #[arg(value_name = "TYPE")]
    entity_type: String,
    /// File to write: .csv, .parquet, .jsonl
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Format; default: by the ending of the file's name
    #[arg(long)]
    format: Option<FileFormat>,
    /// History or present
    #[arg(long, default_value = "history")]
    what: What,
    /// First observed time
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// First observed time that is no longer written
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// As it was known at this time
    #[arg(long, value_name = "TIME")]
    as_of: Option<String>,
    #[command(flatten)]
    target: Target,
}

/// How often progress is said.
const EVERY: Duration = Duration::from_secs(1);

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let format = options.format.map_or_else(|| FileFormat::of(&options.to), Ok)?;
    // Before the client: it also chooses the TLS library's engine.
    let runtime = crate::runtime()?;
    let node = NodeClient::new(&options.target)?;
    let what = if options.what == What::Latest { "latest" } else { "history" };
    let mut parameters = vec![("format", format.name().to_owned()), ("what", what.to_owned())];
    for (name, value) in [("from", &options.from), ("to", &options.until), ("asOf", &options.as_of)] {
        parameters.extend(value.clone().map(|v| (name, v)));
    }
    let path = format!("/api/v1/export/{}?{}", encoded(&options.entity_type), query(&parameters));
    let n_bytes = runtime.block_on(download(&node, &path, &options.to))?;
    crate::say(&serde_json::json!({"file": options.to, "bytes": n_bytes}).to_string());
    Ok(())
}

/// Writes to a file beside, which gets the name when it is complete.
async fn download(node: &NodeClient, path: &str, to: &std::path::Path) -> anyhow::Result<u64> {
    let mut response = node.request(Method::GET, path).send().await.context("the node cannot be reached")?;
    if !response.status().is_success() {
        let status = response.status().as_u16();
        let text = response.text().await.unwrap_or_default();
        let detail = serde_json::from_str::<serde_json::Value>(&text).ok().and_then(|v| v["detail"].as_str().map(str::to_owned));
        bail!("the node answered {status}: {}", detail.unwrap_or(text));
    }
    let mut name = to.file_name().context("the file has no name")?.to_owned();
    name.push(".part");
    let part = to.with_file_name(name);
    let mut file = std::fs::File::create(&part).with_context(|| format!("cannot write `{}`", part.display()))?;
    let stopwatch = Stopwatch::start();
    let (mut n_bytes, mut said_at) = (0u64, Duration::ZERO);
    while let Some(piece) = response.chunk().await.with_context(|| format!("the export broke off; `{}` is not complete", part.display()))? {
        file.write_all(&piece).with_context(|| format!("cannot write `{}`", part.display()))?;
        n_bytes += piece.len() as u64;
        if stopwatch.elapsed() - said_at >= EVERY {
            said_at = stopwatch.elapsed();
            let mb = n_bytes as f64 / 1e6;
            crate::complain(&format!("{}: {mb:.1} MB, {:.1} MB/s", to.display(), mb / said_at.as_secs_f64()));
        }
    }
    file.sync_all()?;
    std::fs::rename(&part, to).with_context(|| format!("cannot rename `{}`", part.display()))?;
    Ok(n_bytes)
}
