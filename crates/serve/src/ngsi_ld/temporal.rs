//! `/temporal/entities/{id}` (clauses 5.7.3 and 6.19).

use std::ops::Range;

use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use entity::{AggregationMethod, Instant, Iri};
use ngsi::encode::{self, AggregatedAttribute, AggregatedEntity, AggregatedSeries, Document, TemporalEntity};
use ngsi::query::{Aggregation, Endpoint, QueryParams};
use ngsi::{Member, query};
use node::{EraseRequest, Erased, ErasedInstances, ErasedTimes, Evolution, PeriodQuery, PeriodValues, TemporalQuery, TimeProperty};

use super::entities::past;
use super::{Call, id_of};
use crate::problem::Problem;

/// Instances in one answer; more come in further pages (status 206).
pub(super) const INSTANCES_MAX: usize = 50_000;

pub(crate) async fn retrieve(call: Call, Path(id): Path<String>) -> Result<Response, Problem> {
    let params = call.params(Endpoint::RetrieveTemporal)?;
    let document = call.document(false)?;
    if let Some(aggregation) = &params.temporal.aggregation {
        let query = period_query(temporal_query(id_of(&id)?, &params), &params, aggregation);
        let asked = query.clone();
        let (entity_type, values) = past(&call, move |node, who| node.evolution_over_periods(who, &asked)).await?;
        let types = call.app.node.entity(&call.who, &query.temporal.entity).map_or_else(|_| vec![entity_type], |e| e.types.clone());
        return Ok(aggregated(&call, &params, &query.temporal.entity, &types, values, document));
    }
    let evolution = call.app.node.evolution(&call.who, &temporal_query(id_of(&id)?, &params))?;
    let types = call.app.node.entity(&call.who, &evolution.id).map_or_else(|_| vec![evolution.entity_type.clone()], |e| e.types.clone());
    Ok(answer(&call, &params, &evolution, &types, document))
}

/// Deletes what is known of an entity's past; its present stays.
pub(crate) async fn delete(call: Call, Path(id): Path<String>) -> Result<Response, Problem> {
    call.params(Endpoint::WriteEntity)?;
    erase(
        &call,
        EraseRequest { of: Erased::Entity(id_of(&id)?), attribute: None, instances: ErasedInstances::All, times: ErasedTimes::All },
    )
    .await
}

/// Deletes what is known of an attribute's past: of the default instance, of the one with `datasetId`, or with `deleteAll` of all.
pub(crate) async fn delete_attribute(call: Call, Path((id, name)): Path<(String, String)>) -> Result<Response, Problem> {
    let params = call.params(Endpoint::DeleteAttribute)?;
    let dataset_id = params.view.dataset_ids.and_then(|list| list.into_iter().next()).flatten();
    let instances = if params.delete_all { ErasedInstances::All } else { ErasedInstances::Of(dataset_id) };
    let attribute = Some(call.context.expand(&name)?);
    erase(&call, EraseRequest { of: Erased::Entity(id_of(&id)?), attribute, instances, times: ErasedTimes::All }).await
}

async fn erase(call: &Call, request: EraseRequest) -> Result<Response, Problem> {
    past(call, move |node, who| node.erase_history(who, &request)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) fn temporal_query(entity: Iri, params: &QueryParams) -> TemporalQuery {
    TemporalQuery {
        entity,
        attributes: wanted(params),
        interval: params.temporal.interval.clone(),
        time_property: match params.temporal.time_property {
            query::TimeProperty::ObservedAt => TimeProperty::ObservedAt,
            query::TimeProperty::CreatedAt => TimeProperty::CreatedAt,
            query::TimeProperty::ModifiedAt => TimeProperty::ModifiedAt,
        },
        last_n: params.temporal.last_n,
        as_of: params.as_of,
        instances_max: INSTANCES_MAX,
    }
}

pub(super) fn period_query(temporal: TemporalQuery, params: &QueryParams, aggregation: &Aggregation) -> PeriodQuery {
    PeriodQuery { temporal, datasets: params.view.dataset_ids.clone(), methods: aggregation.methods.clone(), period: aggregation.period }
}

pub(super) fn aggregated(
    call: &Call,
    params: &QueryParams,
    id: &Iri,
    types: &[Iri],
    values: Vec<PeriodValues>,
    document: Document,
) -> Response {
    let series = |(method, periods): (AggregationMethod, _)| AggregatedSeries { method: method.name(), periods };
    let attribute = |v: PeriodValues| AggregatedAttribute {
        name: v.name,
        is_relationship: v.is_relationship,
        series: v.series.into_iter().map(series).collect(),
    };
    let attributes: Vec<AggregatedAttribute> = values.into_iter().map(attribute).collect();
    let shown = AggregatedEntity { id, types, attributes: &attributes };
    call.answer(encode::aggregated(shown, &params.view, &call.context, document == Document::LdJson), document)
}

/// The attributes that can be in the answer, so that no others are read.
pub(super) fn wanted(params: &QueryParams) -> Option<Vec<Iri>> {
    let picked = params.view.pick.as_ref().map(|members| {
        let names = members.iter().filter_map(|m| match m {
            Member::Attribute(name) => Some(name.clone()),
            _ => None,
        });
        names.collect()
    });
    params.view.attrs.clone().or(picked)
}

pub(super) fn answer(call: &Call, params: &QueryParams, evolution: &Evolution, types: &[Iri], document: Document) -> Response {
    let shown = TemporalEntity { id: &evolution.id, types, attributes: &evolution.attributes };
    let body = encode::evolution(shown, params.temporal.time_property, &params.view, &call.context, document == Document::LdJson);
    let mut response = call.answer(body, document);
    if let Some(cut_at) = evolution.cut_at {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        if let Ok(range) = HeaderValue::from_str(&content_range(params, evolution, cut_at)) {
            response.headers_mut().insert("content-range", range);
        }
    }
    response
}

/// Which part of the interval was returned (clause 6.3.10).
fn content_range(params: &QueryParams, evolution: &Evolution, cut_at: Instant) -> String {
    let times = evolution.attributes.values().flatten().map(|a| match params.temporal.time_property {
        query::TimeProperty::ObservedAt => a.observed_at.unwrap_or(a.modified_at),
        query::TimeProperty::CreatedAt => a.created_at,
        query::TimeProperty::ModifiedAt => a.modified_at,
    });
    let interval = params.temporal.interval.clone().unwrap_or(Instant::MIN..Instant::MAX);
    let Range { start, end } = interval;
    let (from, size) = match params.temporal.last_n {
        None if start > Instant::MIN => (Some(start), "*".to_owned()),
        None => (times.min(), "*".to_owned()),
        Some(n) if end < Instant::MAX => (Some(end), n.to_string()),
        Some(n) => (times.max(), n.to_string()),
    };
    format!("DateTime {}-{cut_at}/{size}", from.unwrap_or(cut_at))
}
