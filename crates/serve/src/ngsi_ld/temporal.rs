//! `/temporal/entities` and `/temporal/entityOperations/query`: what was true (clauses 5.7.3, 5.7.4, 6.18, 6.19 and 6.24).

use std::ops::Range;

use axum::body::Bytes;
use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use entity::{AggregationMethod, Instant, Iri, Series};
use ngsi::encode::{self, AggregatedAttribute, AggregatedEntity, AggregatedSeries, Document, Removal, ScopeInstance, TemporalEntity};
use ngsi::query::{Aggregation, Endpoint, QueryParams, query_body};
use ngsi::{Member, View, query};
use node::{AskedTime, Evolution, ObservedValue, Past, PastQuery, PastSearch, PeriodQuery, PeriodValues, TemporalQuery, TimeProperty};

use super::entities::past;
use super::{Call, id_of};
use crate::problem::Problem;

/// Instances in one answer; more come in further pages (status 206).
pub(super) const INSTANCES_MAX: usize = 50_000;

pub(crate) async fn retrieve(call: Call, Path(id): Path<String>) -> Result<Response, Problem> {
    let params = call.params(Endpoint::RetrieveTemporal)?;
    let document = call.document(false)?;
    let id = id_of(&id)?;
    if let Some(aggregation) = &params.temporal.aggregation {
        let query = period_query(temporal_query(id, &params), &params, aggregation)?;
        let asked = query.clone();
        let (values, types) = past(&call, move |node, who| {
            let (entity_type, values) = node.evolution_over_periods(who, &asked)?;
            let types = node.types_known(who, &asked.temporal.entity)?;
            Ok((values, types.unwrap_or_else(|| vec![entity_type])))
        })
        .await?;
        return Ok(aggregated(&call, &params, &query.temporal.entity, &types, values, document));
    }
    let query = past_query(&params);
    let found = past(&call, move |node, who| node.past(who, &id, &query)).await?;
    let cut_at = found.cut_at;
    let pasts = [Shown::of(found)];
    let body = pasts[0].body(&params, &call, document);
    let mut response = call.answer(body, document);
    add_content_range(&mut response, &params, &pasts, cut_at);
    Ok(response)
}

/// `GET /temporal/entities`.
pub(crate) async fn query(call: Call) -> Result<Response, Problem> {
    let params = call.params(Endpoint::QueryTemporal)?;
    answer_query(&call, &params).await
}

/// `POST /temporal/entityOperations/query`.
pub(crate) async fn query_by_body(mut call: Call, body: Bytes) -> Result<Response, Problem> {
    let (value, context) = call.body(&body).await?.into_one()?;
    let params = query_body(value, &call.pairs, &context, Endpoint::QueryTemporalByBody)?;
    call.context = context;
    answer_query(&call, &params).await
}

async fn answer_query(call: &Call, params: &QueryParams) -> Result<Response, Problem> {
    let document = call.document(false)?;
    let search = PastSearch {
        filter: params.filter.clone(),
        past: past_query(params),
        offset: params.offset,
        limit: params.limit,
        count: params.count,
        order: params.order.clone(),
    };
    let with_context = document == Document::LdJson;
    let (mut response, more, total) = if let Some(aggregation) = &params.temporal.aggregation {
        let of = period_query(temporal_query(Iri::known("urn:ngsi-ld:none"), params), params, aggregation)?;
        let page = past(call, move |node, who| node.search_over_periods(who, &search, &of)).await?;
        let shown: Vec<_> = page.entities.into_iter().map(|e| (e.id, e.types, attributes_of(e.values))).collect();
        let entities = shown.iter().map(|(id, types, attributes)| AggregatedEntity { id, types, attributes });
        let body = encode::aggregated_list(entities, &params.view, &call.context, with_context);
        (call.answer(body, document), page.more, page.total)
    } else {
        let page = past(call, move |node, who| node.search_past(who, &search)).await?;
        let pasts: Vec<Shown> = page.entities.into_iter().map(Shown::of).collect();
        let time = params.temporal.time_property;
        let body = encode::evolutions(pasts.iter().map(Shown::entity), time, &params.view, &call.context, with_context);
        let mut response = call.answer(body, document);
        add_content_range(&mut response, params, &pasts, page.cut_at);
        (response, page.more, page.total)
    };
    if let Some(total) = total {
        response.headers_mut().insert("ngsild-results-count", HeaderValue::from(total));
    }
    call.add_page_links(&mut response, params, more && params.limit > 0);
    Ok(response)
}

/// A past in the words of the answer.
struct Shown {
    past: Past,
    removals: Vec<Removal>,
    scopes: Vec<ScopeInstance>,
}

impl Shown {
    fn of(mut past: Past) -> Self {
        let removals = std::mem::take(&mut past.ended).into_iter().map(|e| Removal { name: e.name, was: e.was, at: e.at }).collect();
        let scopes = std::mem::take(&mut past.scopes).into_iter().map(|s| ScopeInstance {
            scopes: s.scopes,
            created_at: s.created_at,
            modified_at: s.since,
            deleted_at: s.until.filter(|_| s.removed),
        });
        Self { removals, scopes: scopes.collect(), past }
    }

    fn entity(&self) -> TemporalEntity<'_> {
        let Past { id, types, created_at, modified_at, deleted_at, attributes, .. } = &self.past;
        TemporalEntity {
            id,
            types,
            attributes,
            removals: &self.removals,
            deleted_at: *deleted_at,
            created_at: *created_at,
            modified_at: *modified_at,
            scopes: &self.scopes,
        }
    }

    fn body(&self, params: &QueryParams, call: &Call, document: Document) -> Vec<u8> {
        encode::evolution(self.entity(), params.temporal.time_property, &params.view, &call.context, document == Document::LdJson)
    }
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
    let shown = plain(&of.entity, &types, &attributes);
    let view = View { sys_attrs: true, ..View::default() };
    let body = encode::evolution(shown, query::TimeProperty::ModifiedAt, &view, &call.context, document == Document::LdJson);
    Ok(call.answer(body, document))
}

/// Values and nothing else.
const fn plain<'a>(id: &'a Iri, types: &'a [Iri], attributes: &'a Series) -> TemporalEntity<'a> {
    TemporalEntity { id, types, attributes, removals: &[], deleted_at: None, created_at: None, modified_at: None, scopes: &[] }
}

fn asked_time(params: &QueryParams) -> AskedTime {
    match params.temporal.time_property {
        query::TimeProperty::ObservedAt => AskedTime::Of(TimeProperty::ObservedAt),
        query::TimeProperty::CreatedAt => AskedTime::Of(TimeProperty::CreatedAt),
        query::TimeProperty::ModifiedAt => AskedTime::Of(TimeProperty::ModifiedAt),
        query::TimeProperty::DeletedAt => AskedTime::DeletedAt,
    }
}

pub(super) fn past_query(params: &QueryParams) -> PastQuery {
    PastQuery {
        attributes: wanted(params),
        interval: params.temporal.interval.clone(),
        time: asked_time(params),
        // Ends are shown where they were asked for, or with the other times that the system gives.
        with_ends: params.view.sys_attrs,
        with_scopes: params.view.shows(&Member::Scope),
        last_n: params.temporal.last_n,
        as_of: params.as_of,
        instances_max: INSTANCES_MAX,
    }
}

pub(super) fn temporal_query(entity: Iri, params: &QueryParams) -> TemporalQuery {
    TemporalQuery {
        entity,
        attributes: wanted(params),
        interval: params.temporal.interval.clone(),
        time_property: asked_time(params).property(),
        last_n: params.temporal.last_n,
        as_of: params.as_of,
        instances_max: INSTANCES_MAX,
    }
}

/// Errors: only ends are asked for.
pub(super) fn period_query(temporal: TemporalQuery, params: &QueryParams, aggregation: &Aggregation) -> Result<PeriodQuery, Problem> {
    if asked_time(params) == AskedTime::DeletedAt {
        return Err(Problem::bad_data("parameter timeproperty: there is nothing to aggregate at `deletedAt`"));
    }
    let datasets = params.view.dataset_ids.clone();
    Ok(PeriodQuery { temporal, datasets, methods: aggregation.methods.clone(), period: aggregation.period })
}

fn attributes_of(values: Vec<PeriodValues>) -> Vec<AggregatedAttribute> {
    let series = |(method, periods): (AggregationMethod, _)| AggregatedSeries { method: method.name(), periods };
    let attribute = |v: PeriodValues| AggregatedAttribute {
        name: v.name,
        is_relationship: v.is_relationship,
        series: v.series.into_iter().map(series).collect(),
    };
    values.into_iter().map(attribute).collect()
}

pub(super) fn aggregated(
    call: &Call,
    params: &QueryParams,
    id: &Iri,
    types: &[Iri],
    values: Vec<PeriodValues>,
    document: Document,
) -> Response {
    let attributes = attributes_of(values);
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
    let shown = plain(&evolution.id, types, &evolution.attributes);
    let body = encode::evolution(shown, params.temporal.time_property, &params.view, &call.context, document == Document::LdJson);
    let mut response = call.answer(body, document);
    add_range(&mut response, params, std::iter::once(&evolution.attributes), evolution.cut_at);
    response
}

fn add_content_range(response: &mut Response, params: &QueryParams, pasts: &[Shown], cut_at: Option<Instant>) {
    add_range(response, params, pasts.iter().map(|p| &p.past.attributes), cut_at);
}

/// Says which part of the interval was returned, if not all of it (clause 6.3.10).
fn add_range<'a>(response: &mut Response, params: &QueryParams, of: impl Iterator<Item = &'a Series>, cut_at: Option<Instant>) {
    let Some(cut_at) = cut_at else { return };
    let time = asked_time(params);
    let times = of.flat_map(|attributes| attributes.values()).flatten().map(|a| time.of(a));
    let Range { start, end } = params.temporal.interval.clone().unwrap_or(Instant::MIN..Instant::MAX);
    let (from, size) = match params.temporal.last_n {
        None if start > Instant::MIN => (Some(start), "*".to_owned()),
        None => (times.min(), "*".to_owned()),
        Some(n) if end < Instant::MAX => (Some(end), n.to_string()),
        Some(n) => (times.max(), n.to_string()),
    };
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    if let Ok(range) = HeaderValue::from_str(&format!("DateTime {}-{cut_at}/{size}", from.unwrap_or(cut_at))) {
        response.headers_mut().insert("content-range", range);
    }
}
