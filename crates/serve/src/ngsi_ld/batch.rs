//! `/entityOperations` (clauses 5.6.7 to 5.6.10, 5.6.20, 6.14 to 6.17, 6.31): each item for itself, all durable together.

use axum::body::Bytes;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use entity::{Command, CommandError, Entity, Iri, MergeOptions, Outcome, PatchMode};
use ngsi::decode::{self, PatchForm};
use ngsi::encode::{self, BatchError};
use ngsi::query::Endpoint;
use node::PurgeOutcome;

use super::{Call, forward};
use crate::problem::Problem;

pub(crate) async fn create(call: Call, body: Bytes) -> Result<Response, Problem> {
    let is_local = call.params(Endpoint::WriteEntity)?.local;
    run(&call, is_local, &body, Command::Create).await.map(Done::created)
}

pub(crate) async fn upsert(call: Call, body: Bytes) -> Result<Response, Problem> {
    let params = call.params(Endpoint::Upsert)?;
    run(&call, params.local, &body, if params.update { Command::UpsertUpdate } else { Command::UpsertReplace }).await.map(Done::created)
}

pub(crate) async fn update(call: Call, body: Bytes) -> Result<Response, Problem> {
    let params = call.params(Endpoint::AppendAttributes)?;
    let overwrite = !params.no_overwrite;
    run(&call, params.local, &body, |fragment| Command::Append { fragment, overwrite }).await.map(Done::no_content)
}

pub(crate) async fn merge(call: Call, body: Bytes) -> Result<Response, Problem> {
    let is_local = call.params(Endpoint::WriteEntity)?.local;
    let items = decode::batch_patches(call.body(&body).await?, PatchForm::Merge)?;
    let mode = PatchMode::Merge(MergeOptions::default());
    submit(&call, is_local, items, |patch| Command::Patch { patch, mode: mode.clone() }).await.map(Done::no_content)
}

pub(crate) async fn delete(call: Call, body: Bytes) -> Result<Response, Problem> {
    let is_local = call.params(Endpoint::WriteEntity)?.local;
    let ids = decode::batch_ids(decode::json(&body)?)?;
    let mut done = Done::default();
    done.carry_out(&call, is_local, ids.into_iter().map(Command::Delete).collect()).await?;
    Ok(done.no_content())
}

async fn run(call: &Call, is_local: bool, body: &[u8], command: impl Fn(Entity) -> Command) -> Result<Done, Problem> {
    let ordinary = call.is_plain_json().then(|| decode::plain_batch(body, &call.context)).flatten();
    let items = match ordinary {
        Some(items) => items,
        None => decode::batch(call.body(body).await?)?,
    };
    submit(call, is_local, items, command).await
}

/// Carries out what of a batch could be read.
async fn submit<T>(call: &Call, is_local: bool, items: Vec<decode::BatchItem<T>>, command: impl Fn(T) -> Command) -> Result<Done, Problem> {
    let mut done = Done::default();
    let mut commands = Vec::with_capacity(items.len());
    for item in items {
        match item {
            Ok(item) => commands.push(command(item)),
            Err((entity_id, e)) => done.errors.push(BatchError { entity_id, problem: Problem::from(e).for_batch() }),
        }
    }
    if !commands.is_empty() {
        done.carry_out(call, is_local, commands).await?;
    }
    Ok(done)
}

/// What came of a batch.
#[derive(Default)]
struct Done {
    success: Vec<Iri>,
    created: Vec<Iri>,
    errors: Vec<BatchError<'static>>,
    /// Errors of sources, as the answer has them.
    elsewhere: Vec<serde_json::Value>,
}

impl Done {
    /// Changes entities: at the sources that have parts of them, and here.
    async fn carry_out(&mut self, call: &Call, is_local: bool, commands: Vec<Command>) -> Result<(), Problem> {
        let batch = forward::batch::distribute(call, is_local, commands).await?;
        if !batch.left.is_empty() {
            let ids = batch.left.iter().map(|c| c.id().clone()).collect();
            self.take(ids, call.app.node.write(&call.who, batch.left).await?);
        }
        if batch.concerned.is_empty() {
            return Ok(());
        }
        // What is not here may be there (clause 5.6).
        let is_there = |id: &Iri| batch.succeeded.contains(id) || batch.failed.iter().any(|(failed, _)| failed == id);
        self.errors.retain(|e| e.problem.name != "ResourceNotFound" || !e.entity_id.as_ref().is_some_and(is_there));
        self.created.extend(batch.created);
        self.success.extend(batch.succeeded);
        for ids in [&mut self.created, &mut self.success] {
            ids.sort();
            ids.dedup();
        }
        // An entity of which a part failed is among the errors alone.
        let has_failed =
            |id: &Iri| batch.failed.iter().any(|(failed, _)| failed == id) || self.errors.iter().any(|e| e.entity_id.as_ref() == Some(id));
        self.success.retain(|id| !has_failed(id));
        self.elsewhere.extend(batch.failed.into_iter().map(|(_, item)| item));
        Ok(())
    }

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
        if self.errors.is_empty() && self.elsewhere.is_empty() && !self.created.is_empty() {
            return json(StatusCode::CREATED, serde_json::to_vec(&self.created).expect("ids are JSON"));
        }
        self.no_content()
    }

    fn no_content(self) -> Response {
        if self.errors.is_empty() && self.elsewhere.is_empty() {
            return StatusCode::NO_CONTENT.into_response();
        }
        let body = encode::batch_result(&self.success, &self.errors);
        if self.elsewhere.is_empty() {
            return json(StatusCode::MULTI_STATUS, body);
        }
        let mut body: serde_json::Value = serde_json::from_slice(&body).expect("what was just written is JSON");
        if let Some(errors) = body["errors"].as_array_mut() {
            errors.extend(self.elsewhere);
        }
        json(StatusCode::MULTI_STATUS, body.to_string().into_bytes())
    }
}

/// What came of a purge.
pub(super) fn purged(outcome: PurgeOutcome) -> Response {
    let error = |(id, e): (Iri, CommandError)| BatchError { entity_id: Some(id), problem: Problem::from(e).for_batch() };
    let errors = outcome.failed.into_iter().map(error).collect();
    Done { success: outcome.done, created: Vec::new(), errors, elsewhere: Vec::new() }.no_content()
}

fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = (status, body).into_response();
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    response
}
