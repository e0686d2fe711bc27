//! Batches over sources (clauses 5.6.7.4 to 5.6.10.4 and 5.6.20.4): each source gets its parts of all entities in one request if it takes batches, and
//! otherwise entity by entity.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use axum::http::{Method, StatusCode};
use entity::registration::{Mode, Operation};
use entity::{Command, Iri, PatchMode};
use futures::future::join_all;
use ngsi::{Context, encode};
use node::Registered;
use policy::Action;
use serde_json::{Value, json};

use super::request::{Failure, Outgoing, Spoken, rendered, send};
use super::write::{Plan, carry_out, error_item, plan};
use crate::ngsi_ld::Call;
use crate::problem::Problem;

/// Entities that a source which takes no batches is sent at the same time.
const TOGETHER_MAX: usize = 16;

/// What sources made of their parts of a batch.
#[derive(Default)]
pub(crate) struct Batch {
    /// What is to be done here.
    pub(crate) left: Vec<Command>,
    /// Entities of which a source has a part.
    pub(crate) concerned: HashSet<Iri>,
    /// Entities that a source changed, once for each source.
    pub(crate) succeeded: Vec<Iri>,
    /// Entities that are new at a source.
    pub(crate) created: Vec<Iri>,
    /// Entities of which a part failed, with the item for the answer.
    pub(crate) failed: Vec<(Iri, Value)>,
}

/// The batch operation of a change, and those by which it can be made entity by entity.
fn ways(command: &Command) -> Option<(Operation, &'static [Operation])> {
    Some(match command {
        Command::Create(_) => (Operation::CreateBatch, &[Operation::CreateEntity]),
        Command::UpsertReplace(_) => (Operation::UpsertBatch, &[Operation::CreateEntity, Operation::ReplaceEntity]),
        Command::UpsertUpdate(_) => (Operation::UpsertBatch, &[Operation::CreateEntity, Operation::UpdateEntity]),
        Command::Append { overwrite: true, .. } => (Operation::UpdateBatch, &[Operation::UpdateEntity]),
        Command::Append { overwrite: false, .. } => (Operation::UpdateBatch, &[Operation::AppendAttrs]),
        Command::Patch { mode: PatchMode::Merge(_), .. } => (Operation::MergeBatch, &[Operation::MergeEntity]),
        Command::Delete(_) => (Operation::DeleteBatch, &[Operation::DeleteEntity]),
        _ => return None,
    })
}

/// Has sources make their parts of a batch, and says what is left for here.
pub(crate) async fn distribute(call: &Call, is_local: bool, commands: Vec<Command>) -> Result<Batch, Problem> {
    let mut batch = Batch::default();
    if is_local || !call.app.node.has_registrations() {
        batch.left = commands;
        return Ok(batch);
    }
    call.app.node.permit(&call.who, Action::Write, None)?;
    let mut by_source: BTreeMap<Iri, (Arc<Registered>, Vec<Command>)> = BTreeMap::new();
    for command in commands {
        let id = command.id().clone();
        let Some((all_at_once, one_by_one)) = ways(&command) else {
            batch.left.push(command);
            continue;
        };
        let can = |r: &Registered| r.supported.has(all_at_once) || one_by_one.iter().any(|o| r.supported.has(*o));
        let Plan { left, sends, refused } = plan(call, None, command, can)?;
        if !sends.is_empty() || !refused.is_empty() {
            batch.concerned.insert(id.clone());
        }
        batch.left.extend(left);
        for part in refused {
            if let Err(problem) = &part.result {
                batch.failed.push((id.clone(), error_item(&id, problem, Some(&part.registered.registration.id))));
            }
        }
        for (registered, part) in sends {
            let registration = registered.registration.id.clone();
            by_source.entry(registration).or_insert_with(|| (registered, Vec::new())).1.push(part);
        }
    }
    let answers = join_all(by_source.into_values().map(|(registered, parts)| to_source(call, registered, parts))).await;
    for (registered, results) in answers {
        for (id, result) in results {
            match result {
                Ok(is_new) => {
                    batch.created.extend(is_new.then(|| id.clone()));
                    batch.succeeded.push(id);
                }
                // A source that may have it, too, and has not, is not concerned.
                Err(p) if p.status == StatusCode::NOT_FOUND && registered.registration.mode == Mode::Inclusive => {}
                Err(problem) => {
                    let item = error_item(&id, &problem, Some(&registered.registration.id));
                    batch.failed.push((id, item));
                }
            }
        }
    }
    Ok(batch)
}

/// What became of each entity at a source: true if it is new there.
type Results = Vec<(Iri, Result<bool, Problem>)>;

async fn to_source(call: &Call, registered: Arc<Registered>, parts: Vec<Command>) -> (Arc<Registered>, Results) {
    let takes_batches = parts.first().and_then(ways).is_some_and(|(batch, _)| registered.supported.has(batch));
    let mut results = Vec::with_capacity(parts.len());
    if takes_batches {
        let ids: Vec<Iri> = parts.iter().map(|p| p.id().clone()).collect();
        match all_at_once(call, &registered, &parts).await {
            Ok(reply) => results.extend(ids.into_iter().map(|id| {
                let result = reply.of(&id, &registered);
                (id, result)
            })),
            Err(failure) => {
                let problem = failure.problem(&registered);
                results.extend(ids.into_iter().map(|id| (id, Err(problem.clone()))));
            }
        }
    } else {
        for some in parts.chunks(TOGETHER_MAX) {
            let one = async |part: &Command| (part.id().clone(), one_by_one(call, &registered, part.clone()).await);
            results.extend(join_all(some.iter().map(one)).await);
        }
    }
    (registered, results)
}

/// What a source said of a batch.
struct Reply {
    created: HashSet<String>,
    errors: BTreeMap<String, (String, String)>,
}

impl Reply {
    fn of(&self, id: &Iri, registered: &Registered) -> Result<bool, Problem> {
        match self.errors.get(id.as_str()) {
            None => Ok(self.created.contains(id.as_str())),
            Some((kind, detail)) => {
                let status = match kind.rsplit('/').next() {
                    Some("ResourceNotFound") => 404,
                    Some("AlreadyExists") => 409,
                    _ => 207,
                };
                Err(Failure::Refused(status, detail.clone()).problem(registered))
            }
        }
    }
}

async fn all_at_once(call: &Call, registered: &Registered, parts: &[Command]) -> Result<Reply, Failure> {
    let spoken = Spoken::of(call, registered).await?;
    let outgoing = batch_request(registered, parts, &spoken.context);
    let reply = send(call, registered, &spoken, &outgoing).await?;
    if reply.status == StatusCode::NOT_FOUND {
        return Err(Failure::Refused(404, "it does not have this".to_owned()));
    }
    let texts = |list: &Value| list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect::<HashSet<_>>();
    let text = |v: &Value| v.as_str().unwrap_or_default().chars().take(500).collect::<String>();
    let error = |e: &Value| (text(&e["entityId"]), (text(&e["error"]["type"]), text(&e["error"]["detail"])));
    Ok(Reply {
        created: if reply.status == StatusCode::CREATED { texts(&reply.json) } else { HashSet::new() },
        errors: reply.json["errors"].as_array().into_iter().flatten().map(error).collect(),
    })
}

fn batch_request(registered: &Registered, parts: &[Command], context: &Context) -> Outgoing {
    let (path, options) = match parts.first() {
        Some(Command::Create(_)) => ("create", None),
        Some(Command::UpsertUpdate(_)) => ("upsert", Some("update")),
        Some(Command::UpsertReplace(_)) => ("upsert", None),
        Some(Command::Append { overwrite: false, .. }) => ("update", Some("noOverwrite")),
        Some(Command::Append { .. }) => ("update", None),
        Some(Command::Patch { .. }) => ("merge", None),
        _ => ("delete", None),
    };
    let item = |part: &Command| match part {
        Command::Create(e) | Command::UpsertReplace(e) | Command::UpsertUpdate(e) | Command::Append { fragment: e, .. } => {
            rendered(e, registered, context)
        }
        Command::Patch { patch, .. } => {
            let mut fragment = encode::entity_patch(patch, context, false);
            fragment["id"] = json!(patch.id);
            fragment
        }
        other => json!(other.id()),
    };
    Outgoing {
        method: Method::POST,
        path: format!("entityOperations/{path}"),
        query: options.map(|o| ("options", o.to_owned())).into_iter().collect(),
        body: Some(parts.iter().map(item).collect()),
    }
}

async fn one_by_one(call: &Call, registered: &Arc<Registered>, part: Command) -> Result<bool, Problem> {
    let do_it = async |command: Command| carry_out(call, Arc::clone(registered), command, None).await.result;
    let has = |operation| registered.supported.has(operation);
    let (entity, other) = match &part {
        Command::UpsertReplace(e) => (e.clone(), Operation::ReplaceEntity),
        Command::UpsertUpdate(e) => (e.clone(), Operation::UpdateEntity),
        // What there is is overwritten by Update Attributes, which an upsert of this kind is, too.
        Command::Append { fragment, overwrite: true } => return do_it(Command::UpsertUpdate(fragment.clone())).await.map(|()| false),
        Command::Create(_) => return do_it(part).await.map(|()| true),
        _ => return do_it(part).await.map(|()| false),
    };
    if has(Operation::CreateEntity) {
        match do_it(Command::Create(entity)).await {
            Ok(()) => return Ok(true),
            Err(p) if p.status == StatusCode::CONFLICT && has(other) => {}
            Err(p) if p.status == StatusCode::CONFLICT => {
                let detail = format!("the source of registration `{}` has it and offers no change of it", registered.registration.id);
                return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "OperationNotSupported", detail));
            }
            Err(p) => return Err(p),
        }
    }
    do_it(part).await.map(|()| false)
}
