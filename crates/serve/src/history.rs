//! Routes that take something out of the past, for the one who runs the node.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use entity::{Instant, Iri};
use node::{EraseRequest, Erased, ErasedInstances, ErasedTimes};
use serde::Deserialize;

use crate::App;
use crate::auth::Caller;
use crate::maintenance::blocking;
use crate::ngsi_ld::id_of;
use crate::problem::Problem;

/// Parameters of `DELETE /api/v1/history/{type}`.
pub(crate) const ERASE_PARAMETERS: &[&str] = &["id", "attr", "datasetId", "timeproperty", "from", "to"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EraseParameters {
    /// Only this entity; all of the type if it is not given.
    id: Option<String>,
    /// Only this attribute.
    attr: Option<String>,
    /// Only this instance of it; `@none` is the default instance.
    #[serde(rename = "datasetId")]
    dataset_id: Option<String>,
    /// What `from` and `to` speak of: `observedAt` (the default) or `recordedAt`.
    timeproperty: Option<String>,
    from: Option<String>,
    to: Option<String>,
}

/// `DELETE /api/v1/history/{type}`: takes a stretch of time (all time if none is given) out of the past of a type or of one entity.
pub(crate) async fn erase(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    Path(type_name): Path<String>,
    parameters: Result<Query<EraseParameters>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(asked) = parameters.map_err(|e| Problem::invalid_request(e.body_text()))?;
    let context = app.contexts.of_url(None).await?;
    let entity = asked.id.as_deref().map(id_of).transpose()?;
    let attribute: Option<Iri> = asked.attr.as_deref().map(|name| context.expand(name)).transpose()?;
    let instances = match asked.dataset_id.as_deref() {
        None => ErasedInstances::All,
        Some(_) if attribute.is_none() => return Err(Problem::bad_data("parameter datasetId needs parameter attr")),
        Some("@none") => ErasedInstances::Of(None),
        Some(id) => ErasedInstances::Of(Some(id_of(id)?)),
    };
    let of = Erased::Type(context.expand(&type_name)?, entity);
    let times = times(&asked)?;
    let request = EraseRequest { of, attribute, instances, times };
    blocking(app, move |app| app.node.erase_history(&who, &request)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn times(asked: &EraseParameters) -> Result<ErasedTimes, Problem> {
    let instant = |name: &str, text: &Option<String>, open: Instant| match text {
        None => Ok(open),
        Some(text) => text.parse().map_err(|e: entity::InstantError| Problem::bad_data(format!("parameter {name}: {e}"))),
    };
    let range = instant("from", &asked.from, Instant::MIN)?..instant("to", &asked.to, Instant::MAX)?;
    if range.is_empty() {
        return Err(Problem::bad_data(format!("parameter to: `{}` is not after `{}`", range.end, range.start)));
    }
    match asked.timeproperty.as_deref() {
        None if asked.from.is_none() && asked.to.is_none() => Ok(ErasedTimes::All),
        None | Some("observedAt") => Ok(ErasedTimes::Observed(range)),
        Some("recordedAt") => Ok(ErasedTimes::Recorded(range)),
        Some(other) => Err(Problem::bad_data(format!("parameter timeproperty: expected `observedAt` or `recordedAt`, found `{other}`"))),
    }
}

/// `POST /api/v1/history/purge`: removes for good what was erased.
pub(crate) async fn purge(State(app): State<Arc<App>>, Caller(who): Caller) -> Result<Response, Problem> {
    blocking(app, move |app| app.node.purge_history(&who)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
