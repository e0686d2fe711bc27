//! `conurb backup`, `restore`, `verify`, `space`: on a running node through its HTTP interface, or on a folder that no node has open.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use entity::Instant;
use host::{Clock, SystemClock};
use serde_json::{Value, json};
use store::backup::{Place, Until};

/// Where the data are.
#[derive(Args, Clone, Debug)]
pub(crate) struct Where {
    /// Folder of a node that does not run
    #[arg(long, env = "CONURB_DATA", value_name = "DIR", default_value = "conurb-data")]
    data: PathBuf,
    /// Address of a running node, such as http://127.0.0.1:1026; then --data is not used
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// File with the operator's access token (admin.token in the node's folder); not needed in development mode
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Options of `conurb backup`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Backup {
    /// Folder (of the node's machine), or s3://bucket/prefix with the usual AWS_* variables; all backups of one node go to one place
    #[arg(long, value_name = "PLACE")]
    to: String,
    #[command(flatten)]
    at: Where,
}

/// Options of `conurb restore`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Restore {
    /// Where the backups are: folder or s3://bucket/prefix
    #[arg(long, value_name = "PLACE")]
    from: String,
    /// Folder to restore into; must be empty or not there. Key pair, tokens and conurb.toml are not in a backup: put them in afterwards
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Restore what was recorded up to this time (2026-11-22T03:15:00Z), or up to this position of the log (a number) [default: all]
    #[arg(long, value_name = "TIME|POSITION")]
    to: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Options of `conurb verify`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Verify {
    #[command(flatten)]
    at: Where,
}

/// Options of `conurb space`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Space {
    #[command(flatten)]
    at: Where,
}

/// Tells on standard error how far something has come, when a step begins and about every tenth of it.
#[derive(Default)]
struct Teller(RefCell<(String, u64)>);

impl Teller {
    fn tell(&self, step: &str, done: u64, total: u64) {
        let tenth = (done * 10).checked_div(total).unwrap_or_default();
        let mut last = self.0.borrow_mut();
        if last.0 != step || last.1 != tenth {
            *last = (step.to_owned(), tenth);
            crate::complain(&if total == 0 { step.to_owned() } else { format!("{step}: {done} of {total}") });
        }
    }
}

pub(crate) fn backup(options: &Backup) -> anyhow::Result<()> {
    let summary = match &options.at.url {
        Some(url) => ask(&options.at, url, "POST", "/api/v1/backup", Some(json!({"to": options.to})))?,
        None => {
            let place = Arc::new(Place::open(&options.to)?);
            let store = open_stopped(&options.at.data)?;
            let teller = Teller::default();
            let now = Instant::from_micros(SystemClock.now_micros());
            let summary = store.backup(&place, now, &|step, done, total| teller.tell(step, done, total))?;
            store.close().context("the last checkpoint failed; the log has everything")?;
            serde_json::to_value(summary)?
        }
    };
    if options.at.json {
        crate::say(&summary.to_string());
        return Ok(());
    }
    let number = |name: &str| summary[name].as_u64().unwrap_or_default();
    crate::say(&format!(
        "backup {} holds {} documents, {} history files ({} of them known from before) and all changes up to position {} ({}); {} written",
        summary["name"].as_str().unwrap_or_default(),
        number("nDocuments"),
        number("nSegments"),
        number("nSegmentsKnown"),
        number("until").saturating_sub(1),
        summary["untilRecordedAt"].as_str().unwrap_or_default(),
        size(number("bytesWritten")),
    ));
    if summary["continuous"] == false {
        crate::complain(
            "a part of the log since the backup before was not kept: times in between cannot be restored (see log_keep_mb in conurb.toml)",
        );
    }
    Ok(())
}

pub(crate) fn restore(options: &Restore) -> anyhow::Result<()> {
    let until = match &options.to {
        None => Until::End,
        Some(text) => match text.parse::<u64>() {
            Ok(position) => Until::Position(position),
            Err(_) => Until::RecordedAt(
                text.parse()
                    .with_context(|| format!("--to: `{text}` is neither a time such as 2026-11-22T03:15:00Z nor a position of the log"))?,
            ),
        },
    };
    let place = Place::open(&options.from)?;
    let teller = Teller::default();
    let restored = store::backup::restore(&place, &options.data, until, &|step, done, total| teller.tell(step, done, total))?;
    if options.json {
        crate::say(&serde_json::to_string(&restored)?);
    } else {
        crate::say(&format!(
            "restored {} documents, {} history files and {} changes after them into `{}`; the last change was recorded at {}",
            restored.n_documents,
            restored.n_segments,
            restored.n_records,
            options.data.display(),
            restored.until_recorded_at
        ));
        crate::complain(
            "key pair, access tokens and conurb.toml are not part of a backup: put them into the folder before the node is started",
        );
    }
    Ok(())
}

/// True if all is well.
pub(crate) fn verify(options: &Verify) -> anyhow::Result<bool> {
    let report = match &options.at.url {
        Some(url) => ask(&options.at, url, "POST", "/api/v1/verify", None)?,
        None => serde_json::to_value(store::verify::dir(&options.at.data, &|step| crate::complain(step))?)?,
    };
    let n_findings = report["nFindings"].as_u64().unwrap_or_default();
    if options.at.json {
        crate::say(&report.to_string());
        return Ok(n_findings == 0);
    }
    for finding in report["findings"].as_array().into_iter().flatten() {
        crate::say(&format!("{}: {}", finding["place"].as_str().unwrap_or_default(), finding["what"].as_str().unwrap_or_default()));
    }
    for note in report["notes"].as_array().into_iter().flatten() {
        crate::complain(&format!("note: {}", note.as_str().unwrap_or_default()));
    }
    crate::say(&format!(
        "{} records of the log, {} documents, {} history files with {} rows: {}",
        report["nRecords"],
        report["nDocuments"],
        report["nSegments"],
        report["nRows"],
        if n_findings == 0 { "all is well".to_owned() } else { format!("{n_findings} findings") }
    ));
    Ok(n_findings == 0)
}

pub(crate) fn space(options: &Space) -> anyhow::Result<()> {
    let report = match &options.at.url {
        Some(url) => ask(&options.at, url, "GET", "/api/v1/space", None)?,
        None => {
            let report = store::space::of_dir(&options.at.data)?;
            let total = report.total_bytes();
            let mut json = serde_json::to_value(report)?;
            json["totalBytes"] = json!(total);
            json
        }
    };
    if options.at.json {
        crate::say(&report.to_string());
        return Ok(());
    }
    crate::say(&format!("{:>12} {:>12} {:>14} {:>12}  type", "entities", "documents", "history rows", "history"));
    for t in report["types"].as_array().into_iter().flatten() {
        let number = |name: &str| t[name].as_u64().unwrap_or_default();
        crate::say(&format!(
            "{:>12} {:>12} {:>14} {:>12}  {}",
            number("nEntities"),
            size(number("documentBytes")),
            number("segmentRows"),
            size(number("segmentBytes")),
            t["type"].as_str().unwrap_or_default()
        ));
    }
    let part = |name: &str| size(report[name].as_u64().unwrap_or_default());
    crate::say(&format!(
        "on disk: log {}, documents {}, history {}, in all {}",
        part("logBytes"),
        part("documentsBytes"),
        part("historyBytes"),
        part("totalBytes")
    ));
    Ok(())
}

/// Opens the store of a node that does not run.
fn open_stopped(dir: &std::path::Path) -> anyhow::Result<store::Store> {
    if !dir.join("log").is_dir() {
        bail!("there is no node's data in `{}` (--data), and no address of a running node was given (--url)", dir.display());
    }
    let options = store::Options {
        dir: dir.to_owned(),
        clock: Arc::new(SystemClock),
        observers: Vec::new(),
        checkpoint_every: Duration::from_secs(3600),
        memory_bytes: store::state::MEMORY_BYTES_DEFAULT,
        log_keep_bytes: u64::MAX,
        history_place: String::new(),
    };
    store::Store::open(options).with_context(|| format!("cannot open `{}`; for a running node give --url", dir.display()))
}

/// Asks a running node; its answer may take as long as the work.
fn ask(at: &Where, url: &str, method: &str, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
    let token = match &at.token_file {
        None => None,
        Some(file) => Some(std::fs::read_to_string(file).with_context(|| format!("cannot read `{}`", file.display()))?),
    };
    crate::runtime()?.block_on(async {
        let address = format!("{}{path}", url.trim_end_matches('/'));
        let client = reqwest::Client::builder().build()?;
        let mut request = client.request(method.parse()?, &address);
        if let Some(token) = token {
            request = request.bearer_auth(token.trim());
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.with_context(|| format!("cannot reach the node at {address}"))?;
        let status = answer.status();
        let text = answer.text().await?;
        let json: Value = serde_json::from_str(&text).unwrap_or_default();
        if !status.is_success() {
            bail!("the node answers {status}: {}", json["detail"].as_str().unwrap_or(&text));
        }
        Ok(json)
    })
}

fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}
