//! `conurb explain`: how a running node answers a query.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;

/// The query, with the parameters of `GET /ngsi-ld/v1/entities`, and the node to ask.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Entity types, such as `AirQualityObserved` or `A,B`
    #[arg(long = "type", value_name = "TYPES")]
    types: Option<String>,
    /// Condition on attributes, such as `pm25>50;status==\"ok\"`
    #[arg(long, value_name = "CONDITION")]
    q: Option<String>,
    /// Condition on scopes, such as `/China/Beijing/#`
    #[arg(long, value_name = "SCOPES")]
    scope_q: Option<String>,
    /// Words of names
    #[arg(long, value_name = "WORDS")]
    text: Option<String>,
    /// Ids, separated by commas
    #[arg(long, value_name = "IDS")]
    id: Option<String>,
    /// Relation of places, such as `near;maxDistance==1000`
    #[arg(long, value_name = "RELATION", requires_all = ["geometry", "coordinates"])]
    georel: Option<String>,
    /// Geometry to compare with: Point, LineString, Polygon, ...
    #[arg(long, value_name = "KIND")]
    geometry: Option<String>,
    /// Its coordinates, such as `[116.4,39.9]`
    #[arg(long, value_name = "JSON")]
    coordinates: Option<String>,
    /// Entities to return
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
    /// Address of the node
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:1026")]
    url: String,
    /// File with the access token (a node in development mode needs none)
    #[arg(long, value_name = "FILE", env = "CONURB_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let explanation = crate::runtime()?.block_on(ask(options))?;
    if options.json {
        crate::say(&serde_json::to_string_pretty(&explanation)?);
    } else {
        crate::say(explanation["text"].as_str().context("the answer has no text: is this a node of the same version?")?);
    }
    Ok(())
}

async fn ask(options: &Options) -> anyhow::Result<Value> {
    let mut url: reqwest::Url = format!("{}/api/v1/explain", options.url.trim_end_matches('/'))
        .parse()
        .with_context(|| format!("--url: `{}` is no address", options.url))?;
    let limit = options.limit.map(|l| l.to_string());
    let parameters = [
        ("type", &options.types),
        ("q", &options.q),
        ("scopeQ", &options.scope_q),
        ("text", &options.text),
        ("id", &options.id),
        ("georel", &options.georel),
        ("geometry", &options.geometry),
        ("coordinates", &options.coordinates),
        ("limit", &limit),
    ];
    for (name, value) in parameters {
        if let Some(value) = value {
            url.query_pairs_mut().append_pair(name, value);
        }
    }
    let mut request = reqwest::Client::builder().build()?.get(url);
    if let Some(path) = &options.token_file {
        let token = std::fs::read_to_string(path).with_context(|| format!("cannot read the access token in `{}`", path.display()))?;
        request = request.bearer_auth(token.trim());
    }
    let response = request.send().await.with_context(|| format!("no node answers at {}", options.url))?;
    let status = response.status();
    let answer: Value = response.json().await.context("the answer is no JSON: is this a node?")?;
    if !status.is_success() {
        bail!("the node refuses: {}", answer["detail"].as_str().unwrap_or("(no reason given)"));
    }
    Ok(answer)
}
