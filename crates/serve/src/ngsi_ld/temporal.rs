//! `/temporal/entities/{id}` (clauses 5.7.3 and 6.19).

use std::collections::BTreeSet;
use std::ops::Range;

use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use entity::{AggregationMethod, Attribute, AttributeValue, Instant, Iri};
use ngsi::encode::{self, AggregatedAttribute, AggregatedEntity, AggregatedSeries, Document, Removal, TemporalEntity};
use ngsi::query::{Aggregation, Endpoint, QueryParams, TemporalParams};
use ngsi::{Member, NGSI_LD_NULL, View, query};
use node::{
    Deletion, EraseRequest, Erased, ErasedInstances, ErasedTimes, Evolution, Node, NodeError, ObservedValue, PeriodQuery, PeriodValues,
    TemporalQuery, TimeProperty,
};
use policy::Principal;

use super::entities::past;
use super::{Call, id_of};
use crate::problem::Problem;

/// Instances in one answer; more come in further pages (status 206).
pub(super) const INSTANCES_MAX: usize = 50_000;

pub(crate) async fn retrieve(call: Call, Path(id): Path<String>) -> Result<Response, Problem> {
    let params = call.params(Endpoint::RetrieveTemporal)?;
    let document = call.document(false)?;
    let query = temporal_query(id_of(&id)?, &params);
    let is_of_ends = params.temporal.time_property == query::TimeProperty::DeletedAt;
    if let Some(aggregation) = &params.temporal.aggregation {
        if is_of_ends {
            return Err(Problem::bad_data("parameter timeproperty: there is nothing to aggregate at `deletedAt`"));
        }
        let query = period_query(query, &params, aggregation);
        let asked = query.clone();
        let (entity_type, values) = past(&call, move |node, who| node.evolution_over_periods(who, &asked)).await?;
        let types = call.app.node.entity(&call.who, &query.temporal.entity).map_or_else(|_| vec![entity_type], |e| e.types.clone());
        return Ok(aggregated(&call, &params, &query.temporal.entity, &types, values, document));
    }
    // Ends are shown where they were asked for, or with the other times that the system gives.
    let wants_ends = is_of_ends || params.view.sys_attrs;
    let temporal = params.temporal.clone();
    let (evolution, types, ends) = past(&call, move |node, who| {
        let evolution = node.evolution(who, &query)?;
        let now = match query.as_of {
            None => node.entity(who, &query.entity),
            Some(at) => node.entity_as_of(who, &query.entity, at),
        };
        let ends = if wants_ends { ends(node, who, &query, &temporal, now.is_ok())? } else { Ends::default() };
        let types = now.map_or_else(|_| vec![evolution.entity_type.clone()], |e| e.types.clone());
        // Values have no end: only what has gone can have been asked for.
        let evolution = if is_of_ends { Evolution { attributes: Default::default(), cut_at: None, ..evolution } } else { evolution };
        Ok((evolution, types, ends))
    })
    .await?;
    Ok(answer_with(&call, &params, &evolution, &types, &ends, document))
}

/// The parameters of `GET /api/v1/versions/{id}`.
pub(crate) const VERSIONS_PARAMETERS: &[&str] = &["attr", "observedAt", "datasetId"];

/// `GET /api/v1/versions/{id}`: all values that were recorded of an attribute for one observed time, newest first, as instances of a temporal
/// entity with the times at which they became known. NGSI-LD has no question for it: its temporal answers show what counts.
pub(crate) async fn versions(call: Call, Path(id): Path<String>) -> Result<Response, Problem> {
    let document = call.document(false)?;
    if let Some((name, _)) = call.pairs.iter().find(|(name, _)| !VERSIONS_PARAMETERS.contains(&name.as_str())) {
        let known = VERSIONS_PARAMETERS.join(", ");
        return Err(Problem::invalid_request(format!("unknown parameter `{name}`; there are {known}")));
    }
    let text = |wanted: &str| call.pairs.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let needed = |name: &str| text(name).ok_or_else(|| Problem::bad_data(format!("parameter {name} is needed")));
    let observed_at = needed("observedAt")?;
    let of = ObservedValue {
        entity: id_of(&id)?,
        name: call.context.expand(needed("attr")?)?,
        dataset_id: text("datasetId").filter(|d| *d != "@none").map(id_of).transpose()?,
        observed_at: observed_at.parse().map_err(|e: entity::InstantError| Problem::bad_data(format!("parameter observedAt: {e}")))?,
    };
    let asked = of.clone();
    let (types, versions) = past(&call, move |node, who| {
        let versions = node.versions(who, &asked)?;
        let types = match node.entity(who, &asked.entity) {
            Ok(entity) => entity.types.clone(),
            Err(_) => vec![node.evolution(who, &TemporalQuery { instances_max: 1, ..TemporalQuery::of(asked.entity) })?.entity_type],
        };
        Ok((types, versions))
    })
    .await?;
    let attributes = std::iter::once((of.name, versions)).collect();
    let shown = TemporalEntity { id: &of.entity, types: &types, attributes: &attributes, removals: &[], deleted_at: None };
    let view = View { sys_attrs: true, ..View::default() };
    let body = encode::evolution(shown, query::TimeProperty::ModifiedAt, &view, &call.context, document == Document::LdJson);
    Ok(call.answer(body, document))
}

/// What of an entity has gone.
#[derive(Default)]
pub(super) struct Ends {
    removals: Vec<Removal>,
    deleted_at: Option<Instant>,
}

/// The ends that a temporal question is about: those in its interval if it speaks of when something was removed or changed, all without an
/// interval; none in an interval of times that an end does not have.
fn ends(node: &Node, who: &Principal, query: &TemporalQuery, asked: &TemporalParams, exists: bool) -> Result<Ends, NodeError> {
    let is_in = |at: Instant| match (&asked.interval, asked.time_property) {
        (None, _) => true,
        (Some(interval), query::TimeProperty::DeletedAt | query::TimeProperty::ModifiedAt) => interval.contains(&at),
        (Some(_), query::TimeProperty::ObservedAt | query::TimeProperty::CreatedAt) => false,
    };
    let deletions = node.deletions(who, &query.entity, query.as_of)?;
    if deletions.len() > INSTANCES_MAX {
        let what =
            format!("{} attributes or instances of the entity were removed; one answer has at most {INSTANCES_MAX}", deletions.len());
        return Err(NodeError::Limit { what });
    }
    let last_end = deletions.iter().filter(|d| d.attribute.is_none()).map(|d| d.deleted_at).max();
    let mut ends = Ends { removals: Vec::new(), deleted_at: last_end.filter(|at| !exists && is_in(*at)) };
    let names: BTreeSet<Iri> = deletions.iter().filter_map(|d| d.attribute.clone()).collect();
    let is_asked = |name: &Iri| query.attributes.as_ref().is_none_or(|list| list.contains(name));
    let names: Vec<Iri> = names.into_iter().filter(is_asked).collect();
    // What kind of attribute has gone, its last value tells.
    let last = TemporalQuery {
        attributes: Some(names.clone()),
        interval: None,
        time_property: TimeProperty::ModifiedAt,
        last_n: Some(1),
        ..query.clone()
    };
    let known = if names.is_empty() { None } else { node.evolution(who, &last).ok() };
    for name in names {
        let value = known.as_ref().and_then(|e| e.attributes.get(&name)).and_then(|list| list.first()).map(|a| a.value.clone());
        let value = value.unwrap_or_else(|| AttributeValue::Property(NGSI_LD_NULL.into()));
        let of_it = deletions.iter().filter(|d| d.attribute.as_ref() == Some(&name) && is_in(d.deleted_at));
        let removal = |d: &Deletion| Removal {
            name: name.clone(),
            was: Attribute { dataset_id: d.dataset_id.clone(), ..Attribute::new(value.clone()) },
            at: d.deleted_at,
        };
        let mut removals: Vec<Removal> = of_it.map(removal).collect();
        // With `lastN` the newest come first.
        if let Some(n) = query.last_n {
            removals.reverse();
            removals.truncate(n);
        }
        ends.removals.append(&mut removals);
    }
    Ok(ends)
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
            // Only whether there is an entity is asked.
            query::TimeProperty::DeletedAt => TimeProperty::ModifiedAt,
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
    answer_with(call, params, evolution, types, &Ends::default(), document)
}

fn answer_with(call: &Call, params: &QueryParams, evolution: &Evolution, types: &[Iri], ends: &Ends, document: Document) -> Response {
    let Ends { removals, deleted_at } = ends;
    let shown = TemporalEntity { id: &evolution.id, types, attributes: &evolution.attributes, removals, deleted_at: *deleted_at };
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
        query::TimeProperty::ModifiedAt | query::TimeProperty::DeletedAt => a.modified_at,
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
