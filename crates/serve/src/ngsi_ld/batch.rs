//! `/entityOperations` (clauses 5.6.7 to 5.6.10, 5.6.20, 6.14 to 6.17, 6.31): each item for itself, all durable together.

use axum::body::Bytes;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use entity::{Command, CommandError, Entity, Iri, MergeOptions, Outcome, PatchMode};
use ngsi::decode::{self, PatchForm};
use ngsi::encode::{self, BatchError};
use ngsi::query::Endpoint;
use node::PurgeOutcome;

use super::Call;
use crate::problem::Problem;

pub(crate) async fn create(call: Call, body: Bytes) -> Result<Response, Problem> {
    call.params(Endpoint::WriteEntity)?;
    run(&call, &body, Command::Create).await.map(Done::created)
}

pub(crate) async fn upsert(call: Call, body: Bytes) -> Result<Response, Problem> {
    let update = call.params(Endpoint::Upsert)?.update;
    run(&call, &body, if update { Command::UpsertUpdate } else { Command::UpsertReplace }).await.map(Done::created)
}

pub(crate) async fn update(call: Call, body: Bytes) -> Result<Response, Problem> {
    let overwrite = !call.params(Endpoint::AppendAttributes)?.no_overwrite;
    run(&call, &body, |fragment| Command::Append { fragment, overwrite }).await.map(Done::no_content)
}

pub(crate) async fn merge(call: Call, body: Bytes) -> Result<Response, Problem> {
    call.params(Endpoint::WriteEntity)?;
    let items = decode::batch_patches(call.body(&body).await?, PatchForm::Merge)?;
    let mode = PatchMode::Merge(MergeOptions::default());
    submit(&call, items, |patch| Command::Patch { patch, mode: mode.clone() }).await.map(Done::no_content)
}

pub(crate) async fn delete(call: Call, body: Bytes) -> Result<Response, Problem> {
    call.params(Endpoint::WriteEntity)?;
    let ids = decode::batch_ids(decode::json(&body)?)?;
    let commands: Vec<_> = ids.iter().cloned().map(Command::Delete).collect();
    let mut done = Done::default();
    done.take(ids, call.app.node.write(&call.who, commands).await?);
    Ok(done.no_content())
}

async fn run(call: &Call, body: &[u8], command: impl Fn(Entity) -> Command) -> Result<Done, Problem> {
    let ordinary = call.is_plain_json().then(|| decode::plain_batch(body, &call.context)).flatten();
    let items = match ordinary {
        Some(items) => items,
        None => decode::batch(call.body(body).await?)?,
    };
    submit(call, items, command).await
}

/// Carries out what of a batch could be read.
async fn submit<T>(call: &Call, items: Vec<decode::BatchItem<T>>, command: impl Fn(T) -> Command) -> Result<Done, Problem> {
    let mut done = Done::default();
    let mut ids = Vec::with_capacity(items.len());
    let mut commands = Vec::with_capacity(items.len());
    for item in items {
        match item {
            Ok(item) => {
                let command = command(item);
                ids.push(command.id().clone());
                commands.push(command);
            }
            Err((entity_id, e)) => done.errors.push(BatchError { entity_id, problem: Problem::from(e).for_batch() }),
        }
    }
    if !commands.is_empty() {
        done.take(ids, call.app.node.write(&call.who, commands).await?);
    }
    Ok(done)
}

/// What came of a batch.
#[derive(Default)]
struct Done {
    success: Vec<Iri>,
    created: Vec<Iri>,
    errors: Vec<BatchError<'static>>,
}

impl Done {
    fn take(&mut self, ids: Vec<Iri>, outcomes: Vec<Result<Outcome, CommandError>>) {
        for (id, outcome) in ids.into_iter().zip(outcomes) {
            match outcome {
                Ok(Outcome::Updated { left, .. }) if !left.is_empty() => {
                    let names: Vec<_> = left.iter().map(|(n, _)| n.to_string()).collect();
                    let problem = Problem::bad_data(format!("noOverwrite: these attributes exist and were left: {}", names.join(", ")));
                    self.errors.push(BatchError { entity_id: Some(id), problem: problem.for_batch() });
                }
                Ok(outcome) => {
                    if outcome == Outcome::Created {
                        self.created.push(id.clone());
                    }
                    self.success.push(id);
                }
                Err(e) => self.errors.push(BatchError { entity_id: Some(id), problem: Problem::from(e).for_batch() }),
            }
        }
    }

    /// 201 with the ids that are new, 204 if none is, 207 if something failed.
    fn created(self) -> Response {
        if self.errors.is_empty() && !self.created.is_empty() {
            return json(StatusCode::CREATED, serde_json::to_vec(&self.created).expect("ids are JSON"));
        }
        self.no_content()
    }

    fn no_content(self) -> Response {
        if self.errors.is_empty() {
            return StatusCode::NO_CONTENT.into_response();
        }
        json(StatusCode::MULTI_STATUS, encode::batch_result(&self.success, &self.errors))
    }
}

/// What came of a purge.
pub(super) fn purged(outcome: PurgeOutcome) -> Response {
    let error = |(id, e): (Iri, CommandError)| BatchError { entity_id: Some(id), problem: Problem::from(e).for_batch() };
    let errors = outcome.failed.into_iter().map(error).collect();
    Done { success: outcome.done, created: Vec::new(), errors }.no_content()
}

fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = (status, body).into_response();
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    response
}
