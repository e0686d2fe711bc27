//! Changes over sources (clauses 4.3.6, 5.6 and 6.3.17): what is registered as somebody else's is changed there, what somebody else may have, too, is
//! changed there as well, and the rest here.

use std::sync::Arc;

use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use entity::registration::{MissingMember, Mode, Operation, Selected, Specification};
use entity::{Command, Entity, Iri, Outcome, PatchMode, TypeSelector};
use futures::future::join_all;
use ngsi::forward::{command_left, command_names, command_part};
use ngsi::query::QueryParams;
use ngsi::{Context, encode};
use node::Registered;
use policy::Action;
use serde_json::{Value, json};

use super::request::{Failure, Outgoing, Spoken, rendered, send};
use super::{checked_via, leads_back};
use crate::ngsi_ld::{Call, created, in_path};
use crate::problem::Problem;

/// What became of the part of a change that a source was to make.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) registered: Arc<Registered>,
    /// The attributes in it.
    names: Vec<Iri>,
    /// Attributes that the source left, with the reason.
    left: Vec<(Iri, String)>,
    pub(crate) result: Result<(), Problem>,
}

/// A change with the parts that sources made of it.
#[derive(Debug)]
pub(crate) struct Distributed {
    /// What is to be done here; none if everything is somebody else's.
    pub(crate) left: Option<Command>,
    pub(crate) parts: Vec<Part>,
}

/// Which sources get which part of a change.
pub(super) struct Plan {
    pub(super) left: Option<Command>,
    pub(super) sends: Vec<(Arc<Registered>, Command)>,
    /// Parts that belong to a source which cannot do this.
    pub(super) refused: Vec<Part>,
}

/// The operation that a change is (clause 4.20).
pub(super) const fn operation(command: &Command) -> Option<Operation> {
    Some(match command {
        Command::Create(_) => Operation::CreateEntity,
        Command::Replace(_) => Operation::ReplaceEntity,
        Command::Append { .. } => Operation::AppendAttrs,
        Command::Delete(_) => Operation::DeleteEntity,
        Command::DeleteAttribute { .. } => Operation::DeleteAttrs,
        Command::Patch { mode: PatchMode::Update, .. } => Operation::UpdateEntity,
        Command::Patch { mode: PatchMode::Merge(_), .. } => Operation::MergeEntity,
        Command::Patch { mode: PatchMode::Partial, .. } => Operation::UpdateAttrs,
        Command::Patch { mode: PatchMode::Replace, .. } => Operation::ReplaceAttrs,
        Command::UpsertReplace(_) | Command::UpsertUpdate(_) | Command::RemoveAttributes { .. } | Command::Observe(_) => return None,
    })
}

fn types_in(command: &Command) -> &[Iri] {
    match command {
        Command::Create(e) | Command::UpsertReplace(e) | Command::UpsertUpdate(e) | Command::Replace(e) | Command::Observe(e) => &e.types,
        Command::Append { fragment, .. } => &fragment.types,
        Command::Patch { patch, .. } => &patch.types,
        Command::Delete(_) | Command::DeleteAttribute { .. } | Command::RemoveAttributes { .. } => &[],
    }
}

/// Divides a change among sources; `can` says whether a source can do its part.
pub(super) fn plan(
    call: &Call,
    types: Option<&TypeSelector>,
    command: Command,
    can: impl Fn(&Registered) -> bool,
) -> Result<Plan, Problem> {
    let passed = checked_via(call)?;
    let named = types_in(&command);
    let named = (!named.is_empty()).then(|| TypeSelector::Or(named.iter().cloned().map(TypeSelector::Is).collect()));
    let selected = Selected { types: named.or_else(|| types.cloned()), ids: vec![command.id().clone()], id_pattern: None };
    let asked = Specification {
        entities: vec![selected],
        attributes: command_names(&command),
        missing: MissingMember::Fits,
        ..Specification::default()
    };
    let found = call.app.node.sources(&call.who, &asked)?;
    let whole = command.clone();
    let mut plan = Plan { left: Some(command), sends: Vec::new(), refused: Vec::new() };
    for mode in [Mode::Exclusive, Mode::Redirect, Mode::Inclusive] {
        // Sources of one mode share what those before them left.
        let Some(shared) = plan.left.clone() else { break };
        for registered in found.iter().filter(|r| r.registration.mode == mode) {
            let Some(part) = command_part(&shared, &registered.registration) else { continue };
            let is_possible = can(registered);
            let refused = |result: Problem| Part {
                registered: Arc::clone(registered),
                names: command_names(&part),
                left: Vec::new(),
                result: Err(result),
            };
            if leads_back(registered, &passed) {
                if mode.is_proxied() {
                    plan.refused.push(refused(Failure::Loop("the request came from there".to_owned()).problem(registered)));
                }
            } else if is_possible {
                plan.sends.push((Arc::clone(registered), part.clone()));
            } else if mode.is_proxied() && !matches!(whole, Command::Delete(_)) {
                plan.refused.push(refused(cannot(registered, &whole)));
            }
            if mode.is_proxied() {
                plan.left = plan.left.and_then(|left| command_left(left, &part));
            }
        }
    }
    Ok(plan)
}

/// The registered source has the data and does not offer this operation.
fn cannot(registered: &Registered, command: &Command) -> Problem {
    let name = operation(command).map_or("a batch operation", Operation::name);
    let id = &registered.registration.id;
    let detail = format!("registration `{id}` has these data, and `{name}` is not among its operations");
    Problem::new(StatusCode::CONFLICT, "Conflict", detail)
}

/// Has sources make their parts of a change, and says what is left for here.
pub(crate) async fn distribute(call: &Call, params: &QueryParams, command: Command) -> Result<Distributed, Problem> {
    let Some(operation) = operation(&command).filter(|_| !params.local && call.app.node.has_registrations()) else {
        return Ok(Distributed { left: Some(command), parts: Vec::new() });
    };
    call.app.node.permit(&call.who, Action::Write, None)?;
    let Plan { left, sends, refused } = plan(call, params.types.as_ref(), command, |r| r.supported.has(operation))?;
    let mut parts = refused;
    parts.extend(join_all(sends.into_iter().map(|(r, part)| carry_out(call, r, part, params.types.as_ref()))).await);
    Ok(Distributed { left, parts })
}

/// Has one source make its part.
pub(super) async fn carry_out(call: &Call, registered: Arc<Registered>, command: Command, types: Option<&TypeSelector>) -> Part {
    let names = command_names(&command);
    match try_carry_out(call, &registered, &command, types).await {
        Ok(left) => Part { registered, names, left, result: Ok(()) },
        Err(failure) => {
            let result = Err(failure.problem(&registered));
            Part { registered, names, left: Vec::new(), result }
        }
    }
}

async fn try_carry_out(
    call: &Call,
    registered: &Registered,
    command: &Command,
    types: Option<&TypeSelector>,
) -> Result<Vec<(Iri, String)>, Failure> {
    let spoken = Spoken::of(call, registered).await?;
    let outgoing = outgoing(command, registered, &spoken.context, types);
    let reply = send(call, registered, &spoken, &outgoing).await?;
    match reply.status {
        StatusCode::NOT_FOUND => Err(Failure::Refused(404, "it does not have this".to_owned())),
        StatusCode::MULTI_STATUS => partly(&reply.json, &reply.context),
        _ => Ok(Vec::new()),
    }
}

/// What of its part a source left undone.
fn partly(json: &Value, context: &Context) -> Result<Vec<(Iri, String)>, Failure> {
    if let Some(error) = json["errors"].get(0) {
        let text = error["error"]["detail"].as_str().or_else(|| error["error"]["title"].as_str()).unwrap_or("it failed in part");
        return Err(Failure::Refused(207, text.chars().take(500).collect()));
    }
    let left = json["notUpdated"].as_array().into_iter().flatten();
    let one = |item: &Value| {
        let name = context.expand(item["attributeName"].as_str()?).ok()?;
        Some((name, item["reason"].as_str().unwrap_or("it was left").chars().take(500).collect()))
    };
    Ok(left.filter_map(one).collect())
}

/// A change as a request.
pub(super) fn outgoing(command: &Command, registered: &Registered, context: &Context, types: Option<&TypeSelector>) -> Outgoing {
    let id = in_path(command.id().as_str());
    let mut query: Vec<(&'static str, String)> = types.map(|t| ("type", ngsi::forward::types_text(t, context))).into_iter().collect();
    let fragment = |e: &Entity| {
        let mut json = rendered(e, registered, context);
        if let Some(map) = json.as_object_mut() {
            map.shift_remove("id");
        }
        json
    };
    let attribute = |name: &Iri| format!("entities/{id}/attrs/{}", in_path(&context.compact(name)));
    let (method, path, body) = match command {
        Command::Create(e) => (Method::POST, "entities".to_owned(), Some(rendered(e, registered, context))),
        Command::Replace(e) | Command::UpsertReplace(e) => (Method::PUT, format!("entities/{id}"), Some(rendered(e, registered, context))),
        Command::UpsertUpdate(e) => (Method::PATCH, format!("entities/{id}/attrs"), Some(fragment(e))),
        Command::Append { fragment: e, overwrite } => {
            if !overwrite {
                query.push(("options", "noOverwrite".to_owned()));
            }
            (Method::POST, format!("entities/{id}/attrs"), Some(fragment(e)))
        }
        Command::Delete(_) => (Method::DELETE, format!("entities/{id}"), None),
        Command::DeleteAttribute { name, dataset_id, all, .. } => {
            query.extend(dataset_id.as_ref().map(|d| ("datasetId", d.to_string())));
            if *all {
                query.push(("deleteAll", "true".to_owned()));
            }
            (Method::DELETE, attribute(name), None)
        }
        Command::Patch { patch, mode: PatchMode::Update } => {
            (Method::PATCH, format!("entities/{id}/attrs"), Some(encode::entity_patch(patch, context, true)))
        }
        Command::Patch { patch, mode: PatchMode::Merge(options) } => {
            query.extend(options.observed_at.map(|at| ("observedAt", at.to_string())));
            query.extend(options.lang.as_ref().map(|lang| ("lang", lang.to_string())));
            if encode::is_simplified(patch) {
                query.push(("options", "keyValues".to_owned()));
            }
            (Method::PATCH, format!("entities/{id}"), Some(encode::entity_patch(patch, context, false)))
        }
        Command::Patch { patch, mode } => {
            let instances: Vec<_> = patch.attributes.iter().map(|(_, i)| i).collect();
            let name = patch.attributes.first().map(|(n, _)| attribute(n)).unwrap_or_default();
            let is_whole = *mode == PatchMode::Replace;
            let body = encode::attribute_patch(&instances, context, is_whole);
            (if is_whole { Method::PUT } else { Method::PATCH }, name, Some(body))
        }
        Command::RemoveAttributes { .. } | Command::Observe(_) => unreachable!("it is never passed on"),
    };
    Outgoing { method, path, query, body }
}

/// The answer to a change of one entity, whose part here came to `local`: none if nothing was to be done here.
pub(crate) fn answer(command: &Kind, distributed: Distributed, local: Option<Result<Outcome, Problem>>) -> Result<Response, Problem> {
    let Distributed { mut parts, .. } = distributed;
    let is_missing = |p: &Problem| p.status == StatusCode::NOT_FOUND;
    // A source that may have it, too, and has not, is not concerned; if nobody is, that is the answer.
    let is_unconcerned = |p: &Part| p.registered.registration.mode == Mode::Inclusive && p.result.as_ref().is_err_and(is_missing);
    if local.is_some() || !parts.iter().all(is_unconcerned) {
        parts.retain(|p| !is_unconcerned(p));
    }
    // What is not here may be there: only if nobody at all is concerned it does not exist (clause 5.6).
    let local = local.filter(|l| parts.is_empty() || !l.as_ref().is_err_and(is_missing));
    let mut failed: Vec<(Option<&Iri>, &Problem, &[Iri])> = Vec::new();
    failed
        .extend(parts.iter().filter_map(|p| p.result.as_ref().err().map(|e| (Some(&p.registered.registration.id), e, p.names.as_slice()))));
    if let Some(Err(e)) = &local {
        failed.push((None, e, &command.names));
    }
    let n_done = parts.iter().filter(|p| p.result.is_ok()).count() + usize::from(matches!(local, Some(Ok(_))));
    if let (0, Some((_, first, _))) = (n_done, failed.first())
        && failed.iter().all(|(_, p, _)| p.status == first.status)
    {
        return Err((*first).clone());
    }
    if command.is_attributes {
        return Ok(attributes_answer(&parts, local.as_ref(), &failed));
    }
    if failed.is_empty() {
        return Ok(match &command.location {
            Some(location) => created(location),
            None => StatusCode::NO_CONTENT.into_response(),
        });
    }
    let success: Vec<&Iri> = (n_done > 0).then_some(&command.id).into_iter().collect();
    let errors: Vec<Value> = failed.iter().map(|(r, p, _)| error_item(&command.id, p, *r)).collect();
    Ok(multi_status(&json!({"success": success, "errors": errors})))
}

/// An item of a `BatchOperationResult` (clause 5.2.17).
pub(super) fn error_item(id: &Iri, problem: &Problem, registration: Option<&Iri>) -> Value {
    let mut item = json!({"entityId": id, "error": problem.json()});
    if let Some(registration) = registration {
        item["registrationId"] = json!(registration);
    }
    item
}

fn attributes_answer(parts: &[Part], local: Option<&Result<Outcome, Problem>>, failed: &[(Option<&Iri>, &Problem, &[Iri])]) -> Response {
    let mut left: Vec<Value> = Vec::new();
    let mut put = |name: &Iri, reason: &str, registration: Option<&Iri>| {
        let mut item = json!({"attributeName": name, "reason": reason});
        if let Some(registration) = registration {
            item["registrationId"] = json!(registration);
        }
        left.push(item);
    };
    for (registration, problem, names) in failed {
        names.iter().for_each(|name| put(name, &problem.detail, *registration));
    }
    let mut updated: Vec<&Iri> = Vec::new();
    for part in parts.iter().filter(|p| p.result.is_ok()) {
        part.left.iter().for_each(|(name, reason)| put(name, reason, Some(&part.registered.registration.id)));
        updated.extend(part.names.iter().filter(|n| !part.left.iter().any(|(l, _)| l == *n)));
    }
    if let Some(Ok(Outcome::Updated { updated: here, left: left_here })) = local {
        left_here.iter().for_each(|(name, reason)| put(name, reason, None));
        updated.extend(here);
    }
    if left.is_empty() {
        return StatusCode::NO_CONTENT.into_response();
    }
    updated.sort();
    updated.dedup();
    multi_status(&json!({"updated": updated, "notUpdated": left}))
}

pub(super) fn multi_status(body: &Value) -> Response {
    let mut response = (StatusCode::MULTI_STATUS, body.to_string()).into_response();
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    response
}

/// What of a change decides how its answer looks.
pub(crate) struct Kind {
    id: Iri,
    names: Vec<Iri>,
    /// It is about attributes: its partial result is an `UpdateResult`.
    is_attributes: bool,
    /// Where the new entity is.
    location: Option<String>,
}

impl Kind {
    pub(crate) fn of(command: &Command) -> Self {
        let is_entity = matches!(
            command,
            Command::Create(_) | Command::Replace(_) | Command::Delete(_) | Command::Patch { mode: PatchMode::Merge(_), .. }
        );
        let id = command.id().clone();
        let location = matches!(command, Command::Create(_)).then(|| format!("/ngsi-ld/v1/entities/{}", in_path(id.as_str())));
        Self { names: command_names(command), is_attributes: !is_entity, location, id }
    }
}
