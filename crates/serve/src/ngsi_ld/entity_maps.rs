//! Entity maps: which entities a query found, and where, so that its pages are of one and the same result (ETSI GS CIM 009 V1.9.1, clauses
//! 4.3.6.7, 5.2.39, 5.5.9.3 and 5.14). They live in memory, for minutes: a reader whose map has gone gets a new one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::extract::Path;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use entity::{Filter, Instant, Iri};
use ngsi::query::{Endpoint, QueryParams, query_body};
use node::{Page, Query};
use serde_json::{Map, Value, json};

use super::entities::query_of;
use super::forward::Warning;
use super::forward::read::{Locations, locations, page_from};
use super::{Call, id_of};
use crate::problem::Problem;

/// The header that names a map, in requests and answers.
pub(crate) const ENTITY_MAP: HeaderName = HeaderName::from_static("ngsild-entitymap");

/// Maps of a node or tenant; making one more takes the place of the one that expires first.
const MAPS_MAX: usize = 100;

/// How long a map lives if the request does not say, and at most, µs.
const LIFETIME_US: i64 = 5 * 60 * 1_000_000;
const LIFETIME_US_MAX: i64 = 24 * 3600 * 1_000_000;

/// Entities of a map that are looked at together to fill a page.
const LOOKED_AT_TOGETHER: usize = 1_000;

/// The maps of a node or tenant.
#[derive(Default)]
pub struct EntityMaps(Mutex<HashMap<Iri, EntityMap>>);

/// Which entities, and where they are.
#[derive(Clone)]
struct EntityMap {
    expires_at: Instant,
    locations: Arc<Locations>,
}

impl EntityMaps {
    fn with<T>(&self, f: impl FnOnce(&mut HashMap<Iri, EntityMap>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn get(&self, id: &Iri, now: Instant) -> Option<EntityMap> {
        self.with(|maps| maps.get(id).filter(|m| m.expires_at > now).cloned())
    }

    fn put(&self, id: Iri, map: EntityMap, now: Instant) {
        self.with(|maps| {
            maps.retain(|_, m| m.expires_at > now);
            if maps.len() >= MAPS_MAX
                && let Some(first) = maps.iter().min_by_key(|(_, m)| m.expires_at).map(|(id, _)| id.clone())
            {
                maps.remove(&first);
            }
            maps.insert(id, map);
        });
    }
}

/// What a query is to do with maps.
pub(super) struct MapUse {
    pub(super) id: Iri,
    /// It was made for this request.
    pub(super) is_new: bool,
    map: EntityMap,
    /// What making it told of sources.
    warnings: Vec<Warning>,
}

/// The map that a query is about: the one that it names if that is still there, otherwise a new one; none if it wants none.
pub(super) async fn wanted(call: &Call, params: &QueryParams) -> Result<Option<MapUse>, Problem> {
    let now = call.app.node.now();
    let named = match &call.entity_map {
        None if !params.entity_map => return Ok(None),
        None => None,
        Some(text) => Some(id_of(text)?),
    };
    if let Some(id) = named
        && let Some(map) = call.app.entity_maps.get(&id, now)
    {
        return Ok(Some(MapUse { id, is_new: false, map, warnings: Vec::new() }));
    }
    make(call, params).await.map(Some)
}

async fn make(call: &Call, params: &QueryParams) -> Result<MapUse, Problem> {
    let (locations, warnings) = locations(call, params, &query_of(params)).await?;
    let now = call.app.node.now();
    let lifetime_us = params.entity_map_lifetime_us.unwrap_or(LIFETIME_US).min(LIFETIME_US_MAX);
    let map = EntityMap { expires_at: now.plus_micros(lifetime_us), locations: Arc::new(locations) };
    let id = Iri::known(&format!("urn:ngsi-ld:EntityMap:{}", host::random_hex::<12>()));
    call.app.entity_maps.put(id.clone(), map.clone(), now);
    Ok(MapUse { id, is_new: true, map, warnings })
}

/// A page of what is in the map and still matches: what does not match any more goes out of the map, and the page is filled up.
pub(super) async fn page(call: &Call, params: &QueryParams, query: &Query, used: MapUse) -> Result<(Page, Vec<Warning>), Problem> {
    let MapUse { id, map, mut warnings, .. } = used;
    let mut kept = Locations::clone(&map.locations);
    let ids: Vec<Iri> = map.locations.keys().cloned().collect();
    let (mut entities, mut at) = (Vec::new(), query.offset);
    while entities.len() < query.limit && at < ids.len() {
        let end = (at + LOOKED_AT_TOGETHER.min(query.limit - entities.len())).min(ids.len());
        let together = &ids[at..end];
        at = end;
        let mut part = params.clone();
        part.ids = together.to_vec();
        part.filter = Filter::Id(part.ids.clone()).and(part.filter);
        let of_part = Query { filter: part.filter.clone(), offset: 0, limit: together.len(), count: false, order_by: None, text: None };
        let sources: Vec<Iri> = together.iter().filter_map(|id| map.locations.get(id)).flatten().flatten().cloned().collect();
        let (found, more_warnings) = page_from(call, &part, &of_part, Some(&sources)).await?;
        warnings.extend(more_warnings);
        for id in together {
            if !found.entities.iter().any(|e| e.id == *id) {
                kept.remove(id);
            }
        }
        entities.extend(found.entities);
    }
    let n_gone = ids.len() - kept.len();
    let page = Page { entities, more: at < ids.len(), total: query.count.then_some(kept.len()) };
    if n_gone > 0 {
        call.app.entity_maps.with(|maps| {
            if let Some(map) = maps.get_mut(&id) {
                map.locations = Arc::new(kept);
            }
        });
    }
    Ok((page, warnings))
}

/// Says which map the answer is of; one that was made for it makes it 201 (clause 6.4.3.2).
pub(super) fn mark(response: &mut Response, id: &Iri, is_new: bool) {
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(ENTITY_MAP, value);
    }
    if is_new {
        *response.status_mut() = StatusCode::CREATED;
    }
}

fn shown(id: &Iri, map: &EntityMap) -> Value {
    let places = |sources: &Vec<Option<Iri>>| -> Value { sources.iter().map(|s| s.as_ref().map_or("@none", Iri::as_str)).collect() };
    let entities: Map<String, Value> = map.locations.iter().map(|(id, sources)| (id.to_string(), places(sources))).collect();
    json!({
        "id": id, "type": "EntityMap", "expiresAt": map.expires_at.to_string(), "entityMap": entities, "linkedMaps": {},
    })
}

/// `GET /entityMaps` and `POST /entityMaps`: makes a map without giving entities.
pub(crate) async fn create(call: Call) -> Result<Response, Problem> {
    let params = call.params(Endpoint::EntityMap)?;
    created(&call, &params).await
}

/// The same for a query in the body.
pub(crate) async fn create_by_body(mut call: Call, body: Bytes) -> Result<Response, Problem> {
    let (value, context) = call.body(&body).await?.into_one()?;
    let params = query_body(value, &call.pairs, &context, Endpoint::QueryByBody)?;
    call.context = context;
    call.pairs.extend(params.csf.clone().map(|csf| ("csf".to_owned(), csf)));
    created(&call, &params).await
}

async fn created(call: &Call, params: &QueryParams) -> Result<Response, Problem> {
    let document = call.document(false)?;
    let made = make(call, params).await?;
    let body = shown(&made.id, &made.map).to_string();
    let mut response = call.answer(body.into_bytes(), document);
    mark(&mut response, &made.id, true);
    super::forward::add_warnings(call, &mut response, &made.warnings);
    Ok(response)
}

fn missing(id: &Iri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "ResourceNotFound", format!("there is no entity map `{id}` (any more)"))
}

/// `GET /entityMaps/{id}`.
pub(crate) async fn retrieve(call: Call, Path(id): Path<String>) -> Result<Response, Problem> {
    call.params(Endpoint::Plain)?;
    let (document, id) = (call.document(false)?, id_of(&id)?);
    let map = call.app.entity_maps.get(&id, call.app.node.now()).ok_or_else(|| missing(&id))?;
    Ok(call.answer(shown(&id, &map).to_string().into_bytes(), document))
}

/// `PATCH /entityMaps/{id}`: only when it expires can be changed; what else is in the body is passed over, as the standard asks.
pub(crate) async fn update(call: Call, Path(id): Path<String>, body: Bytes) -> Result<Response, Problem> {
    call.params(Endpoint::Plain)?;
    let id = id_of(&id)?;
    let (value, _) = call.body(&body).await?.into_one()?;
    let now = call.app.node.now();
    let expires_at = match value.get("expiresAt") {
        None => None,
        Some(text) => {
            let at: Option<Instant> = text.as_str().and_then(|t| t.parse().ok());
            let at = at.filter(|at| *at > now).ok_or_else(|| Problem::bad_data("expiresAt: expected a date-time in the future"))?;
            Some(at.min(now.plus_micros(LIFETIME_US_MAX)))
        }
    };
    call.app.entity_maps.with(|maps| {
        let map = maps.get_mut(&id).filter(|m| m.expires_at > now).ok_or_else(|| missing(&id))?;
        map.expires_at = expires_at.unwrap_or(map.expires_at);
        Ok(StatusCode::NO_CONTENT.into_response())
    })
}

/// `DELETE /entityMaps/{id}`.
pub(crate) async fn delete(call: Call, Path(id): Path<String>) -> Result<Response, Problem> {
    call.params(Endpoint::Plain)?;
    let id = id_of(&id)?;
    match call.app.entity_maps.with(|maps| maps.remove(&id)) {
        Some(map) if map.expires_at > call.app.node.now() => Ok(StatusCode::NO_CONTENT.into_response()),
        _ => Err(missing(&id)),
    }
}
