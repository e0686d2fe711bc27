//! `conurb import` and `conurb export`: tables and entities into a running node and out of it.
//!
//! An import is a job of the node: it knows how many rows are durable, so the same command on the same file goes on where the last one
//! ended, however it ended. The file is read and checked here and sent in pieces, each answered when it is durable.

mod export;
mod import;
mod lines;
mod progress;
mod rows;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;

pub(crate) use export::{Options as ExportOptions, run as export};
pub(crate) use import::{Options as ImportOptions, run as import};

/// Which node, and with which token.
#[derive(Args, Clone, Debug)]
pub(crate) struct Target {
    /// The node
    #[arg(long, env = "CONURB_URL", default_value = "http://127.0.0.1:1026", value_name = "URL")]
    url: String,
    /// File with the access token, such as the node's admin.token; not needed in development mode
    #[arg(long, env = "CONURB_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// How a file is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum FileFormat {
    /// Comma-separated values with a header.
    Csv,
    /// Apache Parquet.
    Parquet,
    /// One NGSI-LD entity per line.
    Jsonl,
}

impl FileFormat {
    /// By the file's name.
    fn of(path: &Path) -> anyhow::Result<Self> {
        let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        match extension.as_str() {
            "csv" => Ok(Self::Csv),
            "parquet" => Ok(Self::Parquet),
            "jsonl" | "ndjson" => Ok(Self::Jsonl),
            other => bail!("`{}`: the ending `{other}` does not say the format; give --format csv, parquet or jsonl", path.display()),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Parquet => "parquet",
            Self::Jsonl => "jsonl",
        }
    }
}

/// A node over HTTP.
struct NodeClient {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
}

/// Why the node did not do it.
#[derive(Debug, thiserror::Error)]
enum NodeRefusal {
    /// It may be otherwise in a moment.
    #[error("the node cannot be reached or is busy: {0}")]
    Transient(String),
    /// It will not be otherwise.
    #[error("{0}")]
    Final(String),
}

impl NodeClient {
    fn new(target: &Target) -> anyhow::Result<Self> {
        let token = target
            .token_file
            .as_ref()
            .map(|f| std::fs::read_to_string(f).with_context(|| format!("cannot read `{}`", f.display())))
            .transpose()?
            .map(|t| t.trim().to_owned());
        // No limit for the whole request: a large export takes its time. A connection that hangs is seen by the connect time and the reads.
        let http = reqwest::Client::builder()
            .connect_timeout(std::time::Duration::from_secs(10))
            .read_timeout(std::time::Duration::from_secs(120))
            .build()?;
        Ok(Self { http, url: target.url.trim_end_matches('/').to_owned(), token })
    }

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends and reads the answer; a status of 400 and above is a refusal.
    async fn send(&self, request: reqwest::RequestBuilder) -> Result<(u16, Value), NodeRefusal> {
        let transient = |e: reqwest::Error| {
            if e.is_builder() { NodeRefusal::Final(chain(&e)) } else { NodeRefusal::Transient(chain(&e)) }
        };
        let response = request.send().await.map_err(transient)?;
        let status = response.status().as_u16();
        let body = response.bytes().await.map_err(transient)?;
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        Ok((status, value))
    }

    /// The same for requests that must succeed; `allowed` is a status that is an answer too.
    async fn done(&self, request: reqwest::RequestBuilder, allowed: u16) -> Result<(u16, Value), NodeRefusal> {
        let (status, value) = self.send(request).await?;
        if status < 400 || status == allowed {
            return Ok((status, value));
        }
        let detail = value["detail"].as_str().unwrap_or("no reason given").to_owned();
        let text = format!("the node answered {status}: {detail}");
        // 409: the request that was broken off is still being finished.
        Err(if matches!(status, 409 | 502 | 503 | 504) { NodeRefusal::Transient(text) } else { NodeRefusal::Final(text) })
    }
}

fn chain(e: &dyn std::error::Error) -> String {
    ::serve::chain(e)
}

/// A text as a part of a URL.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// Parameters of a URL's query.
fn query(pairs: &[(&str, String)]) -> String {
    pairs.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&")
}
