//! `/entities` (clauses 6.4 to 6.7).

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::Path;
use axum::http::header::ETAG;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use entity::{Command, Edit, Entity, EntityPatch, Instant, Iri, MergeOptions, Outcome, PatchMode};
use indexmap::IndexMap;
use ngsi::decode::PatchForm;
use ngsi::query::{Endpoint, QueryParams, query_body};
use ngsi::{Join, JoinStyle, Representation, View, decode, encode};
use node::{LinkedEntity, Node, NodeError, Page, Purged, Query};
use policy::Principal;

use super::etag::{expected, tag_of};
use super::{Call, batch, entity_maps, forward, id_of};
use crate::problem::Problem;

/// The plain member that has a path like an attribute's.
const SCOPE: &str = "scope";

pub(crate) async fn create(call: Call, body: Bytes) -> Result<Response, Problem> {
    let params = call.params(Endpoint::WriteEntity)?;
    let (value, context) = call.body(&body).await?.into_one()?;
    let entity = decode::entity(value, &context)?;
    change(&call, &params, Command::Create(entity)).await
}

pub(crate) async fn query(call: Call) -> Result<Response, Problem> {
    let params = call.params(Endpoint::QueryEntities)?;
    answer_query(&call, &params).await
}

/// `POST /entityOperations/query`.
pub(crate) async fn query_by_body(mut call: Call, body: Bytes) -> Result<Response, Problem> {
    let (value, context) = call.body(&body).await?.into_one()?;
    let params = query_body(value, &call.pairs, &context, Endpoint::QueryByBody)?;
    call.context = context;
    call.pairs.extend(params.csf.clone().map(|csf| ("csf".to_owned(), csf)));
    answer_query(&call, &params).await
}

/// What kind of document the answer is. A geometry is chosen for features only (clauses 5.7.1.4 and 5.7.2.4).
fn document_of(call: &Call, params: &QueryParams) -> Result<encode::Document, Problem> {
    let document = call.document(true)?;
    if params.view.geometry_property.is_some() && !document.is_geo() {
        return Err(Problem::bad_data("parameter geometryProperty: goes with `Accept: application/geo+json` only"));
    }
    Ok(document)
}

async fn answer_query(call: &Call, params: &QueryParams) -> Result<Response, Problem> {
    let document = document_of(call, params)?;
    let query = query_of(params);
    let is_mapped = params.as_of.is_none() && params.order.is_none();
    let map = if is_mapped { entity_maps::wanted(call, params).await? } else { None };
    let mark = map.as_ref().map(|m| (m.id.clone(), m.is_new));
    let (page, warnings) = match (params.as_of, &params.order) {
        (None, None) => match map {
            Some(map) => entity_maps::page(call, params, &query, map).await?,
            None => forward::read::page(call, params, &query).await?,
        },
        (None, Some(order)) => {
            let order = order.clone();
            // Order is this node's alone: over sources there is none but that of ids (clause 5.7.2.4).
            (past(call, move |node, who| node.query_in_order(who, &query, &order)).await?, Vec::new())
        }
        (Some(_), Some(_)) => return Err(Problem::bad_data("parameter orderBy: the past is ordered by id only (leave out asOf)")),
        (Some(at), None) => (past(call, move |node, who| node.query_as_of(who, &query, at)).await?, Vec::new()),
    };
    let page = Page { entities: call.for_version(page.entities), ..page };
    let body = match &params.view.join {
        Some(join) => with_linked(call, &params.view, join, &page.entities, document, params.as_of)?,
        None => encode::entities(page.entities.iter().map(AsRef::as_ref), &params.view, &call.context, document),
    };
    let mut response = answer_body(call, params, &page, body, document);
    if let Some((id, is_new)) = mark {
        entity_maps::mark(&mut response, &id, is_new);
    }
    forward::add_warnings(call, &mut response, &warnings);
    Ok(response)
}

/// Entities with those that they are linked to.
fn with_linked(
    call: &Call,
    view: &View,
    join: &Join,
    list: &[Arc<Entity>],
    document: encode::Document,
    as_of: Option<Instant>,
) -> Result<Vec<u8>, Problem> {
    if as_of.is_some() {
        return Err(Problem::bad_data("parameter join: linked entities are shown as they are now only (leave out asOf)"));
    }
    let follows = |name: &Iri| view.shows_attribute(name);
    let linked = call.app.node.linked(&call.who, list, join.levels, &follows)?;
    let shown = list.iter().map(AsRef::as_ref);
    if join.style == JoinStyle::Inline {
        return Ok(encode::joined_entities(shown, &Linked(&linked), view, &call.context, document));
    }
    let is_known = |id: &Iri| join.contained_by.contains(id) || list.iter().any(|e| e.id == *id);
    let behind: Vec<(&Entity, View)> = linked
        .values()
        .filter(|l| !is_known(&l.entity.id))
        .map(|l| (l.entity.as_ref(), l.via.iter().fold(view.clone(), |view, name| view.of_linked(name))))
        .collect();
    let all = shown.map(|e| (e, view)).chain(behind.iter().map(|(e, view)| (*e, view)));
    Ok(encode::viewed_entities(all, &call.context, document))
}

/// What entities are linked to, for the encoder.
struct Linked<'a>(&'a IndexMap<Iri, LinkedEntity>);

impl encode::LinkedEntities for Linked<'_> {
    fn linked(&self, id: &Iri) -> Option<&Entity> {
        self.0.get(id).map(|l| l.entity.as_ref())
    }
}

pub(super) fn query_of(params: &QueryParams) -> Query {
    Query {
        filter: params.filter.clone(),
        offset: params.offset,
        limit: params.limit,
        count: params.count,
        order_by: None,
        text: params.text.clone(),
    }
}

/// `GET /api/v1/search`: entities by the words of their names.
pub(crate) async fn search(call: Call) -> Result<Response, Problem> {
    let params = call.params(Endpoint::Search)?;
    if params.text.as_ref().is_none_or(|t| t.trim().is_empty()) {
        return Err(Problem::bad_data("parameter text: expected the words to look for".to_owned()));
    }
    answer_query(&call, &params).await
}

/// `GET /api/v1/explain`: what answering a query takes.
pub(crate) async fn explain(call: Call) -> Result<Response, Problem> {
    let params = call.params(Endpoint::Explain)?;
    let explanation = call.app.node.explain(&call.who, &query_of(&params))?;
    let text = explanation.to_string();
    let mut body = serde_json::to_value(&explanation).expect("an explanation is JSON");
    body["text"] = text.into();
    Ok(axum::Json(body).into_response())
}

pub(super) fn answer_page(call: &Call, params: &QueryParams, page: &Page, document: encode::Document) -> Response {
    let body = encode::entities(page.entities.iter().map(AsRef::as_ref), &params.view, &call.context, document);
    answer_body(call, params, page, body, document)
}

fn answer_body(call: &Call, params: &QueryParams, page: &Page, body: Vec<u8>, document: encode::Document) -> Response {
    let mut response = call.answer(body, document);
    if let Some(total) = page.total {
        response.headers_mut().insert("ngsild-results-count", HeaderValue::from(total));
    }
    call.add_page_links(&mut response, params, page.more && params.limit > 0);
    response
}

pub(crate) async fn retrieve(call: Call, Path(id): Path<String>) -> Result<Response, Problem> {
    let params = call.params(Endpoint::RetrieveEntity)?;
    let document = document_of(&call, &params)?;
    let id = id_of(&id)?;
    let (entity, warnings) = match params.as_of {
        None => forward::read::retrieve(&call, &id, &params).await?,
        Some(at) => (past(&call, move |node, who| node.entity_as_of(who, &id, at)).await?, Vec::new()),
    };
    check_retrieved(&entity, &params)?;
    let entity = call.for_version(vec![entity]).pop().expect("one goes in and one comes out");
    let body = match &params.view.join {
        // One entity is the only one at its top, unless others stand behind it.
        Some(join) if join.style == JoinStyle::Flat || params.as_of.is_some() => {
            with_linked(&call, &params.view, join, std::slice::from_ref(&entity), document, params.as_of)?
        }
        Some(join) => {
            let linked =
                call.app.node.linked(&call.who, std::slice::from_ref(&entity), join.levels, &|n| params.view.shows_attribute(n))?;
            encode::joined_entity(&entity, &Linked(&linked), &params.view, &call.context, document)
        }
        None => encode::entity(&entity, &params.view, &call.context, document),
    };
    let mut response = call.answer(body, document);
    // A version with parts from elsewhere is none of this node's.
    let is_own = params.local || !call.app.node.has_registrations();
    if params.as_of.is_none() && params.view.join.is_none() && is_own {
        response.headers_mut().insert(ETAG, tag_of(&entity));
    }
    forward::add_warnings(&call, &mut response, &warnings);
    Ok(response)
}

/// Asks what takes long, such as the history, which reads files: not on a thread that answers sockets.
pub(super) async fn past<T: Send + 'static>(
    call: &Call,
    ask: impl FnOnce(&Node, &Principal) -> Result<T, NodeError> + Send + 'static,
) -> Result<T, Problem> {
    let (node, who) = (Arc::clone(&call.app.node), call.who.clone());
    let answer = tokio::task::spawn_blocking(move || ask(&node, &who)).await;
    Ok(answer.map_err(|e| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", e.to_string()))??)
}

/// The type selection must fit, and of `attrs` the entity must have one (clause 5.7.1).
pub(super) fn check_retrieved(entity: &Entity, params: &QueryParams) -> Result<(), Problem> {
    let fits = params.types.as_ref().is_none_or(|t| t.matches(&entity.types));
    let has_one = params.view.attrs.as_ref().is_none_or(|list| list.iter().any(|n| entity.attributes.contains_key(n)));
    if !fits {
        return Err(of_other_type(&entity.id));
    }
    if has_one {
        return Ok(());
    }
    let detail = format!("entity `{}` has none of the attributes asked for", entity.id);
    Err(Problem::new(StatusCode::NOT_FOUND, "ResourceNotFound", detail))
}

pub(crate) async fn replace(call: Call, Path(id): Path<String>, body: Bytes) -> Result<Response, Problem> {
    let params = call.params(Endpoint::WriteEntity)?;
    let id = id_of(&id)?;
    let (value, context) = call.body(&body).await?.into_one()?;
    let mut entity = decode::fragment(value, &id, &context)?;
    if entity.types.is_empty() {
        // "Replace" without a type keeps the one that the entity has: an entity is never without.
        match call.app.node.entity(&call.who, &id) {
            Ok(present) => entity.types.clone_from(&present.types),
            // A source may have it.
            Err(NodeError::NoEntity { .. }) if call.app.node.has_registrations() && !params.local => {}
            Err(e) => return Err(e.into()),
        }
    }
    change(&call, &params, Command::Replace(entity)).await
}

/// `PATCH /entities/{id}`.
pub(crate) async fn merge(call: Call, Path(id): Path<String>, body: Bytes) -> Result<Response, Problem> {
    let params = call.params(Endpoint::Merge)?;
    let lang = params.view.lang.as_ref().map(|l| l.tag().ok_or_else(|| Problem::bad_data("parameter lang: expected one language tag")));
    let options = MergeOptions { observed_at: params.observed_at, lang: lang.transpose()?.map(Into::into) };
    let form = match params.view.representation {
        Representation::Simplified => PatchForm::SimplifiedMerge,
        Representation::Normalized | Representation::Concise => PatchForm::Merge,
    };
    let patch = entity_patch(&call, &id, &body, form).await?;
    change(&call, &params, Command::Patch { patch, mode: PatchMode::Merge(options) }).await
}

/// `PATCH /entities/{id}/attrs`.
pub(crate) async fn update(call: Call, Path(id): Path<String>, body: Bytes) -> Result<Response, Problem> {
    let params = call.params(Endpoint::WriteEntity)?;
    let patch = entity_patch(&call, &id, &body, PatchForm::Instances).await?;
    change(&call, &params, Command::Patch { patch, mode: PatchMode::Update }).await
}

async fn entity_patch(call: &Call, id: &str, body: &[u8], form: PatchForm) -> Result<EntityPatch, Problem> {
    let id = id_of(id)?;
    let (value, context) = call.body(body).await?.into_one()?;
    Ok(decode::entity_patch(value, &id, form, &context)?)
}

/// `PATCH /entities/{id}/attrs/{name}`.
pub(crate) async fn update_attribute(call: Call, path: Path<(String, String)>, body: Bytes) -> Result<Response, Problem> {
    patch_attribute(&call, path, &body, PatchForm::Members, PatchMode::Partial).await
}

/// `PUT /entities/{id}/attrs/{name}`.
pub(crate) async fn replace_attribute(call: Call, path: Path<(String, String)>, body: Bytes) -> Result<Response, Problem> {
    patch_attribute(&call, path, &body, PatchForm::Replacement, PatchMode::Replace).await
}

async fn patch_attribute(
    call: &Call,
    Path((id, name)): Path<(String, String)>,
    body: &[u8],
    form: PatchForm,
    mode: PatchMode,
) -> Result<Response, Problem> {
    let params = call.params(Endpoint::WriteEntity)?;
    let id = id_of(&id)?;
    if name == SCOPE {
        return Err(Problem::bad_data("`scope` is not an attribute: it is changed with its entity, or deleted"));
    }
    let (mut value, context) = call.body(body).await?.into_one()?;
    if let Some(members) = value.as_object_mut() {
        // The body is an attribute: its context is not one of its members.
        members.shift_remove("@context");
    }
    let (name, instances) = decode::attribute_patch(&name, value, form, &context)?;
    let attributes = instances.into_iter().map(|i| (name.clone(), i)).collect();
    let patch = EntityPatch { attributes, ..EntityPatch::of(id) };
    change(call, &params, Command::Patch { patch, mode }).await
}

pub(crate) async fn delete(call: Call, Path(id): Path<String>) -> Result<Response, Problem> {
    let params = call.params(Endpoint::WriteEntity)?;
    change(&call, &params, Command::Delete(id_of(&id)?)).await
}

pub(crate) async fn append(call: Call, Path(id): Path<String>, body: Bytes) -> Result<Response, Problem> {
    let params = call.params(Endpoint::AppendAttributes)?;
    let id = id_of(&id)?;
    let (value, context) = call.body(&body).await?.into_one()?;
    let fragment = decode::fragment(value, &id, &context)?;
    change(&call, &params, Command::Append { fragment, overwrite: !params.no_overwrite }).await
}

pub(crate) async fn delete_attribute(call: Call, Path((id, name)): Path<(String, String)>) -> Result<Response, Problem> {
    let params = call.params(Endpoint::DeleteAttribute)?;
    let id = id_of(&id)?;
    if name == SCOPE {
        if call.app.node.entity(&call.who, &id)?.scopes.is_empty() {
            return Err(Problem::new(StatusCode::NOT_FOUND, "ResourceNotFound", format!("entity `{id}` is in no scope")));
        }
        let patch = EntityPatch { scopes: Edit::Remove, ..EntityPatch::of(id) };
        return change(&call, &params, Command::Patch { patch, mode: PatchMode::Update }).await;
    }
    let name = call.context.expand(&name)?;
    let dataset_id = params.view.dataset_ids.as_ref().and_then(|list| list.first().cloned()).flatten();
    change(&call, &params, Command::DeleteAttribute { id, name, dataset_id, all: params.delete_all }).await
}

/// `DELETE /entities`.
pub(crate) async fn purge(call: Call) -> Result<Response, Problem> {
    let params = call.params(Endpoint::Purge)?;
    let what = match params.purged {
        None => Purged::Entities,
        Some(attributes) => Purged::Attributes { names: attributes.names, others: attributes.others },
    };
    let outcome = call.app.node.purge(&call.who, &params.filter, &what).await?;
    Ok(batch::purged(outcome))
}

/// Changes an entity: here, and at the sources that have parts of it.
async fn change(call: &Call, params: &QueryParams, command: Command) -> Result<Response, Problem> {
    let kind = forward::write::Kind::of(&command);
    let mut distributed = forward::write::distribute(call, params, command).await?;
    let local = match distributed.left.take() {
        Some(command) => Some(change_here(call, params, command).await),
        None => None,
    };
    forward::write::answer(&kind, distributed, local)
}

/// Changes an entity of this node, if it is of the type and at the version that the request is for.
async fn change_here(call: &Call, params: &QueryParams, command: Command) -> Result<Outcome, Problem> {
    if let Some(types) = params.types.as_ref().filter(|_| !matches!(command, Command::Create(_))) {
        let present = call.app.node.entity(&call.who, command.id())?;
        if !types.matches(&present.types) {
            return Err(of_other_type(command.id()));
        }
    }
    if matches!(command, Command::Create(_)) {
        let outcomes = call.app.node.write(&call.who, vec![command]).await?;
        return Ok(outcomes.into_iter().next().expect("one command has one outcome")?);
    }
    let version = expected(call, command.id())?;
    Ok(call.app.node.write_if(&call.who, command, version).await??)
}

fn of_other_type(id: &Iri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "ResourceNotFound", format!("entity `{id}` is not of the type asked for"))
}
