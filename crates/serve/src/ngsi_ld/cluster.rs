//! The cluster as an NGSI-LD source of its own: `/cluster/ngsi-ld/v1` answers for all cities, as far as their agreements permit.
//!
//! Each entity has the attribute `provenance` that says which city it came from and under which agreement; a city that did not answer, or did
//! not permit, is named in an `NGSILD-Warning` header (clause 6.3.17).

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use entity::Filter;
use federation::{Source, SourceStatus};
use ngsi::encode;
use ngsi::query::{Endpoint, QueryParams};
use node::{ClusterQuery, Evolution, Page};
use policy::Purpose;
use serde_json::json;
use std::sync::Arc;

use super::entities::{answer_page, check_retrieved};
use super::temporal::{aggregated, answer, period_query, temporal_query};
use super::{Call, id_of};
use crate::App;
use crate::problem::Problem;

/// What the question is for; without it what is agreed with each city.
const PURPOSE: &str = "conurb-purpose";

fn purpose(headers: &HeaderMap) -> Result<Option<Purpose>, Problem> {
    let Some(value) = headers.get(PURPOSE) else { return Ok(None) };
    let text = value.to_str().map_err(|_| Problem::invalid_request(format!("header `{PURPOSE}` is not plain text")))?;
    text.parse().map(Some).map_err(|e: policy::NameError| Problem::bad_data(format!("header `{PURPOSE}`: {e}")))
}

pub(crate) async fn query(call: Call, headers: HeaderMap) -> Result<Response, Problem> {
    let params = present_only(&call, call.params(Endpoint::QueryEntities)?)?;
    let document = call.document(true)?;
    let asked = params.offset.saturating_add(params.limit).saturating_add(1);
    let question = ClusterQuery {
        filter: params.filter.clone(),
        types: None,
        limit: u32::try_from(asked).unwrap_or(u32::MAX),
        purpose: purpose(&headers)?,
    };
    let merged = call.app.node.cluster_query(&call.who, &question, call.app.transport.as_ref()).await?;
    let truncated = merged.sources.iter().any(|s| s.truncated);
    if params.count && truncated {
        let most = federation::ENTITIES_MAX;
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "TooManyResults",
            format!("a count over the cluster is possible up to {most} entities of each city"),
        ));
    }
    let total = merged.entities.len();
    let more = total > params.offset + params.limit;
    let entities = merged.entities.into_iter().skip(params.offset).take(params.limit).map(Arc::new).collect();
    let page = Page { entities, more, total: params.count.then_some(total) };
    let mut response = answer_page(&call, &params, &page, document);
    add_warnings(&mut response, &merged.sources);
    Ok(response)
}

pub(crate) async fn retrieve(call: Call, Path(id): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    let params = present_only(&call, call.params(Endpoint::RetrieveEntity)?)?;
    let document = call.document(true)?;
    let id = id_of(&id)?;
    let question = ClusterQuery { filter: Filter::Id(vec![id.clone()]), types: None, limit: 1, purpose: purpose(&headers)? };
    let merged = call.app.node.cluster_query(&call.who, &question, call.app.transport.as_ref()).await?;
    let entity = merged.entities.first().ok_or_else(|| node::NodeError::NoEntity { id })?;
    check_retrieved(entity, &params)?;
    let mut response = call.answer(encode::entity(entity, &params.view, &call.context, document), document);
    add_warnings(&mut response, &merged.sources);
    Ok(response)
}

pub(crate) async fn evolution(call: Call, Path(id): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    let params = present_only(&call, call.params(Endpoint::RetrieveTemporal)?)?;
    let document = call.document(false)?;
    let id = id_of(&id)?;
    let query = temporal_query(id.clone(), &params);
    let merged = call.app.node.cluster_evolution(&call.who, &query, purpose(&headers)?, call.app.transport.as_ref()).await?;
    let past = merged.past.ok_or_else(|| node::NodeError::NoEntity { id: id.clone() })?;
    let entity_type = past.types.first().cloned().unwrap_or(id);
    let evolution = Evolution { id: past.id, entity_type, attributes: past.attributes, cut_at: past.cut_at };
    if let Some(aggregation) = &params.temporal.aggregation {
        let query = period_query(query, &params, aggregation)?;
        let values = node::over_periods(&query, &evolution)?;
        let mut response = aggregated(&call, &params, &evolution.id, &past.types, values, document);
        add_warnings(&mut response, &merged.sources);
        return Ok(response);
    }
    let mut response = answer(&call, &params, &evolution, &past.types, document);
    add_warnings(&mut response, &merged.sources);
    Ok(response)
}

/// Refuses what is asked of one node only: what other cities knew at a time, what their entities are linked to, another order, and other sources.
fn present_only(call: &Call, params: QueryParams) -> Result<QueryParams, Problem> {
    const ONE_NODE: [&str; 6] = ["asOf", "join", "orderBy", "entityMap", "csf", "splitEntities"];
    match call.pairs.iter().find(|(name, _)| ONE_NODE.contains(&name.as_str())) {
        Some((name, _)) => {
            Err(Problem::invalid_request(format!("parameter {name}: one city's node can answer it (/ngsi-ld/v1), not all cities together")))
        }
        None => Ok(params),
    }
}

/// One warning for each city whose part is missing.
fn add_warnings(response: &mut Response, sources: &[Source]) {
    for source in sources {
        let code = match source.status {
            SourceStatus::Ok => continue,
            SourceStatus::Unreachable => 199,
            SourceStatus::Denied | SourceStatus::Error => 299,
        };
        let text: String = source
            .detail
            .as_deref()
            .unwrap_or("no answer")
            .chars()
            .filter(|c| c.is_ascii() && !c.is_ascii_control() && *c != '"')
            .collect();
        if let Ok(value) = HeaderValue::from_str(&format!("{code} {} \"{text}\"", source.city)) {
            response.headers_mut().append("ngsild-warning", value);
        }
    }
}

/// A source with the one agreement that most answers rest on beside the list.
fn described(source: &Source) -> serde_json::Value {
    let mut value = json!(source);
    value["agreement"] = json!(source.agreements.first());
    value
}

/// `GET /api/v1/cluster/entities`: the same question, with what every city contributed beside the entities.
pub(crate) async fn with_sources(State(app): State<Arc<App>>, call: Call, headers: HeaderMap) -> Result<Response, Problem> {
    let params = present_only(&call, call.params(Endpoint::QueryEntities)?)?;
    let limit = u32::try_from(params.limit.max(1)).unwrap_or(u32::MAX);
    let question = ClusterQuery { filter: params.filter.clone(), types: None, limit, purpose: purpose(&headers)? };
    let merged = app.node.cluster_query(&call.who, &question, app.transport.as_ref()).await?;
    let entities = encode::entities(merged.entities.iter(), &params.view, &call.context, encode::Document::Json);
    let sources: Vec<_> = merged.sources.iter().map(described).collect();
    let sources = json!(sources);
    let mut body = br#"{"entities":"#.to_vec();
    body.extend_from_slice(&entities);
    body.extend_from_slice(format!(r#","sources":{sources}}}"#).as_bytes());
    Ok(call.answer(body, encode::Document::Json))
}
