//! Bulk import over HTTP: tables of observations, and entities as JSON lines.
//!
//! A body is read and made durable piece by piece; what is read ahead is bounded. The answer comes when everything is durable. A body that
//! turns out wrong in the middle is refused from the wrong row on: the rows before are in, and the answer says how many.

mod lines;
pub(crate) mod parameters;
mod rows;

use std::io::{self, Read};
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, LINK};
use axum::response::{IntoResponse, Response};
use entity::Iri;
use futures::StreamExt;
use ngsi::Context;
use node::{BulkJob, BulkState};
use policy::Principal;
use serde_json::{Value, json};
use table::Format;
use tokio::sync::mpsc;

use self::parameters::Parameters;
use crate::App;
use crate::auth::Caller;
use crate::problem::Problem;

/// Bytes of a body in Arrow's format; larger tables come in several requests of one job.
pub(crate) const ARROW_BYTES_MAX: usize = 64 << 20;
/// Bytes of a body in Parquet, which is read from its end and so kept in memory whole; larger tables are cut by `conurb import`.
pub(crate) const PARQUET_BYTES_MAX: usize = 256 << 20;
/// Imports at the same time; each may hold a body and some batches in memory.
pub(crate) const IMPORTS_MAX: usize = 4;
/// Pieces of a body that wait for the decoder.
const PIECES_WAITING_MAX: usize = 16;
/// Media types of JSON lines.
const JSON_LINES: [&str; 3] = ["application/x-ndjson", "application/jsonl", "application/x-jsonlines"];

/// What an import works with.
struct Import {
    app: Arc<App>,
    who: Principal,
    context: Arc<Context>,
    entity_type: Iri,
    parameters: Parameters,
}

/// How far a request came.
#[derive(Clone, Copy, Default, Debug)]
struct Progress {
    /// Rows (or lines) from the beginning of the source that are durable.
    rows: u64,
    /// Values among them that this request brought.
    values: u64,
}

/// `POST /api/v1/bulk/{type}`: takes in a table or entities.
pub(crate) async fn import(State(app): State<Arc<App>>, Path(type_name): Path<String>, request: Request) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let Caller(who) = Caller::from_request_parts(&mut parts, &app).await?;
    let parameters = Parameters::of(parts.uri.query().unwrap_or_default())?;
    let header = |name| parts.headers.get(name).and_then(|v: &axum::http::HeaderValue| v.to_str().ok());
    let link = header(LINK).map(ngsi::context::context_of_link_header).transpose()?.flatten();
    let context = app.contexts.of_url(link.as_deref()).await?;
    let entity_type = context.expand(&type_name)?;
    let media_type = header(CONTENT_TYPE).unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_lines = JSON_LINES.contains(&media_type.as_str());
    let format = Format::of_media_type(&media_type);
    if format.is_none() && !is_lines {
        let known = [Format::Csv, Format::Parquet, Format::Arrow].map(Format::media_type).join(", ");
        let detail = format!("Content-Type is `{media_type}`; expected {known} or {}", JSON_LINES[0]);
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "InvalidRequest", detail));
    }
    app.node.may_import(&who, &entity_type)?;
    let held = Arc::clone(&app);
    let _turn = held.imports.try_acquire().map_err(|_| {
        let detail = format!("{IMPORTS_MAX} imports are under way, which is the limit; try again when one has ended");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", detail)
    })?;
    let node = &held.node;
    let mut lease = match &parameters.job {
        Some(job) => Some(node.lease_bulk_job(&who, job, &entity_type, parameters.from_row).await?),
        None => None,
    };
    let first_row = lease.as_ref().map_or(parameters.from_row, |l| l.job.rows.max(parameters.from_row));
    let complete = parameters.complete;
    let import = Import { app, who, context, entity_type, parameters };
    let mut progress = Progress { rows: first_row, values: 0 };
    let result = match format {
        Some(format) => rows::take_in(&import, format, body, &mut progress, lease.as_mut()).await,
        None => lines::take_in(&import, body, &mut progress, lease.as_mut()).await,
    };
    if let Some(lease) = &mut lease {
        let state = if result.is_ok() && complete { BulkState::Done } else { BulkState::Open };
        node.note_bulk_progress(lease, progress.rows, state).await?;
    }
    let job = lease.as_ref().map(|l| l.job.job.clone());
    let accepted = progress.rows - first_row;
    match result {
        Ok(()) => Ok(Json(json!({"job": job, "rows": progress.rows, "accepted": accepted, "values": progress.values})).into_response()),
        Err(mut problem) => {
            problem.detail.push_str(&format!("; the {} rows before are in", progress.rows));
            let mut document = problem.json();
            document["job"] = json!(job);
            document["rows"] = json!(progress.rows);
            document["accepted"] = json!(accepted);
            Ok((problem.status, Json(document)).into_response())
        }
    }
}

/// What a body may be, for OpenAPI.
pub(crate) fn media_types() -> Value {
    let all = [Format::Csv, Format::Parquet, Format::Arrow].map(Format::media_type).into_iter().chain([JSON_LINES[0]]);
    all.map(|media_type| (media_type.to_owned(), json!({}))).collect::<serde_json::Map<_, _>>().into()
}

/// `GET /api/v1/bulk/jobs/{job}`: how far an import has come.
pub(crate) async fn job(State(app): State<Arc<App>>, Caller(who): Caller, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    Ok(Json(shown(&app, &app.node.bulk_job(&who, &name)?).await?))
}

/// `GET /api/v1/bulk/jobs`: all that the node remembers, the newest first.
pub(crate) async fn jobs(State(app): State<Arc<App>>, Caller(who): Caller) -> Result<Json<Value>, Problem> {
    let mut list = Vec::new();
    for job in app.node.bulk_jobs(&who)? {
        list.push(shown(&app, &job).await?);
    }
    Ok(Json(Value::Array(list)))
}

async fn shown(app: &App, job: &BulkJob) -> Result<Value, Problem> {
    let context = app.contexts.of_url(None).await?;
    Ok(json!({
        "job": job.job, "type": context.compact(&job.entity_type), "rows": job.rows, "state": job.state,
        "startedAt": job.started_at().to_string(), "updatedAt": job.updated_at().to_string(),
    }))
}

/// Hands a body on to a thread that reads; ends when the reader is gone. An error of the body is handed on as one.
async fn pump(body: Body, pieces: mpsc::Sender<io::Result<Bytes>>) {
    let mut stream = body.into_data_stream();
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|e| io::Error::other(format!("the request broke off: {e}")));
        let is_last = piece.is_err();
        if pieces.send(piece).await.is_err() || is_last {
            return;
        }
    }
}

/// A body as something to read from, on a thread that may wait.
struct Pieces {
    inbox: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.inbox.blocking_recv() {
                None => return Ok(0),
                Some(piece) => self.current = piece?,
            }
        }
        let n = buffer.len().min(self.current.len());
        buffer[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}
