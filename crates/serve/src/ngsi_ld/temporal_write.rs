//! `/temporal/entities` and below: changing what was true (clauses 5.6.11 to 5.6.16).

use axum::body::Bytes;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use entity::{InstanceId, Iri};
use ngsi::decode;
use ngsi::query::Endpoint;
use node::{Correction, EraseRequest, Erased, ErasedInstances, ErasedTimes, NodeError};

use super::entities::past;
use super::{Call, created, id_of, in_path};
use crate::problem::Problem;

/// `POST /temporal/entities`: makes the entity with its past, or adds to it.
pub(crate) async fn create(call: Call, body: Bytes) -> Result<Response, Problem> {
    call.params(Endpoint::WriteTemporal)?;
    let (value, context) = call.body(&body).await?.into_one()?;
    let entity = decode::evolution(value, &context)?;
    let id = entity.id.clone();
    let asked = id.clone();
    let known = past(&call, move |node, who| node.types_known(who, &asked)).await?;
    call.app.node.provide_past(&call.who, entity).await?;
    Ok(match known {
        Some(_) => StatusCode::NO_CONTENT.into_response(),
        None => created(&format!("/ngsi-ld/v1/temporal/entities/{}", in_path(id.as_str()))),
    })
}

/// `POST /temporal/entities/{id}/attrs`. What is added to an entity that was removed makes it again, as it was last.
pub(crate) async fn append(call: Call, Path(id): Path<String>, body: Bytes) -> Result<Response, Problem> {
    call.params(Endpoint::WriteTemporal)?;
    let id = id_of(&id)?;
    let (value, context) = call.body(&body).await?.into_one()?;
    let mut fragment = decode::evolution_fragment(value, &id, &context)?;
    let asked = id.clone();
    let known = past(&call, move |node, who| node.types_known(who, &asked)).await?;
    let types = known.ok_or(NodeError::NoEntity { id })?;
    let new: Vec<Iri> = fragment.types.iter().filter(|t| !types.contains(t)).cloned().collect();
    fragment.types = types.into_iter().chain(new).collect();
    call.app.node.provide_past(&call.who, fragment).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `PATCH /temporal/entities/{id}/attrs/{name}/{instance}`.
pub(crate) async fn correct_instance(
    call: Call,
    Path((id, name, instance)): Path<(String, String, String)>,
    body: Bytes,
) -> Result<Response, Problem> {
    call.params(Endpoint::WriteTemporal)?;
    let (entity, name) = (id_of(&id)?, call.context.expand(&name)?);
    let (value, context) = call.body(&body).await?.into_one()?;
    let instance = instance_of(&entity, &name, &instance)?;
    let new = decode::evolution_instance(value, &entity, &name, &context)?;
    let (of, attribute) = (entity.clone(), name.clone());
    let old = past(&call, move |node, who| node.past_instance(who, &of, &attribute, instance)).await?;
    let correction = Correction { entity: entity.clone(), name: name.clone(), old, new };
    if let Some(moved) = call.app.node.correct_instance(&call.who, correction).await? {
        past(&call, move |node, who| node.erase_instance(who, entity, name, &moved)).await?;
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `DELETE /temporal/entities/{id}/attrs/{name}/{instance}`.
pub(crate) async fn delete_instance(call: Call, Path((id, name, instance)): Path<(String, String, String)>) -> Result<Response, Problem> {
    call.params(Endpoint::WriteTemporal)?;
    let (entity, name) = (id_of(&id)?, call.context.expand(&name)?);
    let instance = instance_of(&entity, &name, &instance)?;
    past(&call, move |node, who| {
        let found = node.past_instance(who, &entity, &name, instance)?;
        node.erase_instance(who, entity, name, &found)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Any URI could be the name of an instance; one that is none of ours names none.
fn instance_of(entity: &Iri, name: &Iri, text: &str) -> Result<InstanceId, Problem> {
    let unknown = |_| NodeError::NoInstance { entity: entity.clone(), name: name.clone(), instance: text.to_owned() };
    Ok(id_of(text)?.as_str().parse().map_err(unknown)?)
}

/// Deletes what is known of an entity's past; its present stays.
pub(crate) async fn delete(call: Call, Path(id): Path<String>) -> Result<Response, Problem> {
    call.params(Endpoint::WriteTemporal)?;
    erase(
        &call,
        EraseRequest { of: Erased::Entity(id_of(&id)?), attribute: None, instances: ErasedInstances::All, times: ErasedTimes::All },
    )
    .await
}

/// Deletes what is known of an attribute's past: of the default instance, of the one with `datasetId`, or with `deleteAll` of all.
pub(crate) async fn delete_attribute(call: Call, Path((id, name)): Path<(String, String)>) -> Result<Response, Problem> {
    let params = call.params(Endpoint::DeleteTemporal)?;
    let dataset_id = params.view.dataset_ids.and_then(|list| list.into_iter().next()).flatten();
    let instances = if params.delete_all { ErasedInstances::All } else { ErasedInstances::Of(dataset_id) };
    let attribute = Some(call.context.expand(&name)?);
    erase(&call, EraseRequest { of: Erased::Entity(id_of(&id)?), attribute, instances, times: ErasedTimes::All }).await
}

async fn erase(call: &Call, request: EraseRequest) -> Result<Response, Problem> {
    past(call, move |node, who| node.erase_history(who, &request)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
