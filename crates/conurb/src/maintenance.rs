//! `conurb backup`, `restore`, `verify`, `space`: on a running node through its HTTP interface, or on a folder that no node has open.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use host::{Clock, SystemClock};
use serde_json::{Value, json};
use store::backup::{Keep, Place, RestoreTo, Until};

/// How often one who waits for a running node's backup is told how far it has come.
const WATCH_EVERY: Duration = Duration::from_secs(2);

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
    /// Only list the backups that are there, as this machine sees the place; no node is asked
    #[arg(long, conflicts_with_all = ["keep", "keep_days", "url", "history"])]
    list: bool,
    /// Afterwards remove older backups than the newest N, and the files that none needs any more
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// Afterwards remove backups made more than DAYS days ago; with --keep, what either of the two wants stays
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..))]
    keep_days: Option<u32>,
    #[command(flatten)]
    history: HistoryPlace,
    #[command(flatten)]
    at: Where,
}

/// Where the history's files of a node that does not run are.
#[derive(Args, Clone, Debug)]
pub(crate) struct HistoryPlace {
    /// With --data: where the files of the history are, if not where the folder or its conurb.toml says: s3://bucket/prefix
    #[arg(long, value_name = "PLACE", conflicts_with = "url")]
    history: Option<String>,
}

impl HistoryPlace {
    /// As given, as the folder itself says, as its configuration says: the first of them that says anything.
    fn of(&self, dir: &Path) -> anyhow::Result<String> {
        if let Some(given) = &self.history {
            return Ok(given.clone());
        }
        // A file that cannot be read is for the one who verifies to tell, and for the store to refuse.
        if let Some(noted) = store::format::read(dir).ok().flatten().and_then(|f| f.history) {
            return Ok(noted);
        }
        let flags = crate::config::Flags { data: Some(dir.to_owned()), ..crate::config::Flags::default() };
        Ok(flags.load()?.store.history)
    }
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
    /// Put the files of the history there instead of into the folder: s3://bucket/prefix, with nothing in it; name it in [store] history of conurb.toml, too
    #[arg(long, value_name = "PLACE", default_value = "", hide_default_value = true)]
    history: String,
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
    history: HistoryPlace,
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
    if options.list {
        return list_backups(options);
    }
    let keep = Keep { newest: options.keep.map(|n| n as usize), days: options.keep_days };
    let summary = match &options.at.url {
        Some(url) => {
            let body = json!({"to": options.to, "keep": keep.newest, "keepDays": keep.days});
            ask_and_watch(&options.at, url, "POST", "/api/v1/backup", Some(body))?
        }
        None => {
            let place = Arc::new(Place::open(&options.to)?);
            let store = open_stopped(&options.at.data, options.history.of(&options.at.data)?)?;
            let teller = Teller::default();
            let progress = |step: &str, done: u64, total: u64| teller.tell(step, done, total);
            let clock: Arc<dyn Clock> = Arc::new(SystemClock);
            let mut summary = serde_json::to_value(store.backup(&place, &clock, &progress)?)?;
            store.close().context("the last checkpoint failed; the log has everything")?;
            if keep.is_given() {
                match store::backup::prune(&place, &keep, &clock, &progress) {
                    Ok(pruned) => summary["pruned"] = serde_json::to_value(pruned)?,
                    Err(e) => summary["pruneError"] = json!(host::chain(&e)),
                }
            }
            summary
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
    if let Some(removed) = summary["pruned"]["removed"].as_array() {
        let number = |name: &str| summary["pruned"][name].as_u64().unwrap_or_default();
        crate::say(&format!(
            "{} older backups removed, {} freed; {} are there",
            removed.len(),
            size(number("bytesFreed")),
            number("nKept")
        ));
    }
    if let Some(error) = summary["pruneError"].as_str() {
        crate::complain(&format!("older backups were not removed: {error}"));
    }
    if summary["continuous"] == false {
        crate::complain(
            "a part of the log since the backup before was not kept: times in between cannot be restored (see log_keep_mb in conurb.toml)",
        );
    }
    Ok(())
}

fn list_backups(options: &Backup) -> anyhow::Result<()> {
    let backups = store::backup::list(&Place::open(&options.to)?)?;
    if options.at.json {
        crate::say(&serde_json::to_string(&backups)?);
        return Ok(());
    }
    if backups.is_empty() {
        crate::complain(&format!("there is no backup in `{}`", options.to));
    }
    for b in backups {
        crate::say(&format!(
            "{}  made {}  restores from {} to {}  {} documents, {} history files, {}",
            b.name,
            b.created_at,
            b.earliest_recorded_at,
            b.until_recorded_at,
            b.n_documents,
            b.n_segments,
            size(b.bytes)
        ));
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
    let to = RestoreTo { dir: &options.data, history_place: &options.history };
    let restored = store::backup::restore(&place, to, until, &|step, done, total| teller.tell(step, done, total))?;
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
        None => {
            let place = options.history.of(&options.at.data)?;
            serde_json::to_value(store::verify::dir_with(&options.at.data, &place, &|step| crate::complain(step))?)?
        }
    };
    let n_findings = report["nFindings"].as_u64().unwrap_or_default();
    if options.at.json {
        crate::say(&report.to_string());
        return Ok(n_findings == 0);
    }
    for finding in report["findings"].as_array().into_iter().flatten() {
        let text = |name: &str| finding[name].as_str().unwrap_or_default();
        crate::say(&format!("{}: {}: {}", text("kind"), text("place"), text("what")));
    }
    let n_more = |all: &str, list: &str| report[all].as_u64().unwrap_or_default() - report[list].as_array().map_or(0, |l| l.len() as u64);
    if n_more("nFindings", "findings") > 0 {
        crate::say(&format!("... and {} more findings", n_more("nFindings", "findings")));
    }
    for note in report["notes"].as_array().into_iter().flatten() {
        crate::complain(&format!("note: {}", note.as_str().unwrap_or_default()));
    }
    if n_more("nNotes", "notes") > 0 {
        crate::complain(&format!("note: ... and {} more notes", n_more("nNotes", "notes")));
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
fn open_stopped(dir: &Path, history_place: String) -> anyhow::Result<store::Store> {
    if !dir.join("log").is_dir() {
        bail!("there is no node's data in `{}` (--data), and no address of a running node was given (--url)", dir.display());
    }
    let options = store::Options { log_keep_bytes: u64::MAX, history_place, ..store::Options::new(dir, Arc::new(SystemClock)) };
    store::Store::open(options).with_context(|| format!("cannot open `{}`; for a running node give --url", dir.display()))
}

/// Asks a running node; its answer may take as long as the work.
fn ask(at: &Where, url: &str, method: &str, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
    let asking = Asking::new(at, url)?;
    crate::runtime()?.block_on(asking.send(method, path, body))
}

/// The same, and tells meanwhile how far the backup has come.
fn ask_and_watch(at: &Where, url: &str, method: &str, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
    let asking = Asking::new(at, url)?;
    crate::runtime()?.block_on(async {
        let answer = asking.send(method, path, body);
        tokio::pin!(answer);
        let teller = Teller::default();
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                () = tokio::time::sleep(WATCH_EVERY) => {}
            }
            // What goes wrong will be in the answer.
            let status = asking.send("GET", "/api/v1/backups", None).await.unwrap_or_default();
            let number = |name: &str| status["running"][name].as_u64().unwrap_or_default();
            if let Some(step) = status["running"]["step"].as_str() {
                teller.tell(step, number("done"), number("total"));
            }
        }
    })
}

/// A running node, and what opens it.
struct Asking {
    url: String,
    token: Option<String>,
    client: reqwest::Client,
}

impl Asking {
    fn new(at: &Where, url: &str) -> anyhow::Result<Self> {
        let read = |file: &PathBuf| std::fs::read_to_string(file).with_context(|| format!("cannot read `{}`", file.display()));
        let token = at.token_file.as_ref().map(read).transpose()?;
        // The TLS library's engine is set with the runtime; setting it twice is no fault.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Self { url: url.trim_end_matches('/').to_owned(), token, client: reqwest::Client::builder().build()? })
    }

    async fn send(&self, method: &str, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let address = format!("{}{path}", self.url);
        let mut request = self.client.request(method.parse()?, &address);
        if let Some(token) = &self.token {
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
    }
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
