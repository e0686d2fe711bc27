//! NGSI-LD over HTTP (ETSI GS CIM 009 V1.9.1, clause 6): decode, call the operation, encode.

pub(crate) mod batch;
pub(crate) mod cluster;
pub(crate) mod contexts;
pub(crate) mod csource_subscriptions;
pub(crate) mod discovery;
pub(crate) mod entities;
pub(crate) mod entity_maps;
mod etag;
pub(crate) mod forward;
pub(crate) mod registrations;
pub(crate) mod snapshots;
pub(crate) mod subscriptions;
pub(crate) mod temporal;
pub(crate) mod temporal_write;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body as HttpBody;
use axum::extract::FromRequestParts;
use axum::http::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderName, LINK};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use entity::{Entity, Iri};
use ngsi::Context;
use ngsi::decode::{Body, MediaType};
use ngsi::encode::Document;
use ngsi::query::{Endpoint, QueryParams};
use policy::{Action, Principal};

use crate::App;
use crate::auth::Caller;
use crate::binding::Https;
use crate::problem::Problem;
use crate::tenants::{TenantError, TenantName, TenantNameError};

pub(crate) const TENANT: HeaderName = HeaderName::from_static("ngsild-tenant");
const PREFER: HeaderName = HeaderName::from_static("prefer");
const JSON: &str = "application/json";
const LD_JSON: &str = "application/ld+json";
const GEO_JSON: &str = "application/geo+json";

/// A request as every NGSI-LD operation needs it: who asks, with which context, which parameters, and what the answer may be.
pub(crate) struct Call {
    pub(crate) app: Arc<App>,
    pub(crate) who: Principal,
    pub(crate) context: Arc<Context>,
    pub(crate) pairs: Vec<(String, String)>,
    /// `If-Match`, its lines as one.
    pub(crate) if_match: Option<String>,
    /// `NGSILD-EntityMap`.
    entity_map: Option<String>,
    /// The headers, kept only if there are sources that may be told of them.
    headers: HeaderMap,
    wishes: Wishes,
    /// Something in the answer was written in words of an older version.
    is_older: AtomicBool,
    link: Option<String>,
    media_type: Option<MediaType>,
    path: String,
    /// `http://host:port` as the client knows this node.
    base: String,
}

/// What the client wants of the answer (clauses 6.3.4, 6.3.6).
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Wishes {
    /// How much it likes `application/json`, `application/ld+json` and `application/geo+json`; 0 for not at all.
    weights: [f32; 3],
    /// The context of GeoJSON comes in the header `Link`.
    geo_link: bool,
    /// The version of the standard that it understands.
    version: Option<(u32, u32)>,
}

impl FromRequestParts<Arc<App>> for Call {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let Caller(who) = Caller::from_request_parts(parts, app).await?;
        let app = &match text(&parts.headers, &TENANT)? {
            Some(name) => tenant(app, &who, name, &parts.method, parts.uri.path()).await?,
            None => Arc::clone(app),
        };
        let app = &match text(&parts.headers, &snapshots::SNAPSHOT)? {
            Some(id) => {
                app.node.permit(&who, Action::Read, None)?;
                app.snapshots.app_of(&id_of(id)?, app.node.now())?
            }
            None => Arc::clone(app),
        };
        let link = match text(&parts.headers, &LINK)? {
            Some(value) => ngsi::context::context_of_link_header(value)?,
            None => None,
        };
        let media_type = media_type(&parts.headers, &parts.method)?;
        let context = app.contexts.of_url(link.as_deref()).await?;
        app.contexts.keep(&context).await;
        Ok(Self {
            app: Arc::clone(app),
            who,
            context,
            pairs: if app.snapshot.is_some() { local_pairs(parts) } else { pairs(parts) },
            if_match: etag::if_match(&parts.headers)?,
            entity_map: text(&parts.headers, &entity_maps::ENTITY_MAP)?.map(str::to_owned),
            headers: if app.node.has_registrations() { parts.headers.clone() } else { HeaderMap::new() },
            wishes: wishes(&parts.headers)?,
            is_older: AtomicBool::new(false),
            link,
            media_type,
            path: parts.uri.path().to_owned(),
            base: base(parts),
        })
    }
}

/// The parameters of a request to a snapshot, which is always about that alone (clause 5.5.15).
fn local_pairs(parts: &Parts) -> Vec<(String, String)> {
    const WITH_SCOPE: [&str; 5] = ["entities", "temporal/", "types", "attributes", "entityOperations"];
    let mut pairs = pairs(parts);
    pairs.retain(|(name, _)| name != "local");
    let operation = parts.uri.path().strip_prefix("/ngsi-ld/v1/").unwrap_or_default();
    if WITH_SCOPE.iter().any(|o| operation.starts_with(o)) {
        pairs.push(("local".to_owned(), "true".to_owned()));
    }
    pairs
}

/// What serves a tenant. Some operations make one that is not there yet (clause 5.5.10).
async fn tenant(default: &Arc<App>, who: &Principal, name: &str, method: &Method, path: &str) -> Result<Arc<App>, Problem> {
    const MAKING: [&str; 6] =
        ["entities", "entityOperations/create", "temporal/entities", "subscriptions", "csourceRegistrations", "csourceSubscriptions"];
    let name: TenantName = name.parse().map_err(|e: TenantNameError| Problem::bad_data(format!("header ngsild-tenant: {e}")))?;
    let operation = path.trim_end_matches('/').strip_prefix("/ngsi-ld/v1/");
    let makes = *method == Method::POST && operation.is_some_and(|o| MAKING.contains(&o));
    // Neither is a tenant made by, nor its existence told to, who may do nothing here.
    default.node.permit(who, if makes { Action::Write } else { Action::Read }, None)?;
    let app = if makes { default.tenants.get_or_make(&name, default).await } else { default.tenants.get(&name) };
    app.map_err(|e| match e {
        TenantError::Unknown { .. } => Problem::new(StatusCode::NOT_FOUND, "NonexistentTenant", e.to_string()),
        TenantError::TooMany { .. } => Problem::new(StatusCode::FORBIDDEN, "TooManyResults", e.to_string()),
        TenantError::Open { .. } | TenantError::Folder { .. } => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", e.to_string())
        }
    })
}

impl Call {
    /// A request that this node makes of itself.
    fn of_node(app: Arc<App>, who: Principal, context: Arc<Context>) -> Self {
        Self {
            app,
            who,
            context,
            pairs: Vec::new(),
            if_match: None,
            entity_map: None,
            headers: HeaderMap::new(),
            wishes: Wishes::default(),
            is_older: AtomicBool::new(false),
            link: None,
            media_type: None,
            path: "/ngsi-ld/v1/entityOperations/query".to_owned(),
            base: String::new(),
        }
    }

    pub(crate) fn params(&self, endpoint: Endpoint) -> Result<QueryParams, Problem> {
        Ok(QueryParams::from_pairs(&self.pairs, &self.context, endpoint)?)
    }

    /// Is the body plain JSON, whose context is the request's?
    pub(crate) fn is_plain_json(&self) -> bool {
        self.media_type == Some(MediaType::Json)
    }

    /// Reads the body; foreign contexts that it names are fetched first.
    pub(crate) async fn body(&self, bytes: &[u8]) -> Result<Body, Problem> {
        let media_type = self.media_type.ok_or_else(unsupported_media_type)?;
        if media_type == MediaType::LdJson {
            let value = ngsi::decode::json(bytes)?;
            let items = match &value {
                serde_json::Value::Array(list) => list.as_slice(),
                one => std::slice::from_ref(one),
            };
            for context in items.iter().filter_map(|i| i.get("@context")) {
                // Items of a batch usually share one context: what is there is not fetched again.
                self.app.contexts.prepare(context).await?;
                if self.is_linked_to()
                    && let Ok(context) = self.app.contexts.store().resolve(context)
                {
                    self.app.contexts.keep(&context).await;
                }
            }
        }
        Ok(ngsi::decode::body(bytes, media_type, self.link.as_deref(), self.app.contexts.store())?)
    }

    /// What kind of document the answer is; features only where there are entities.
    pub(crate) fn document(&self, geo_possible: bool) -> Result<Document, Problem> {
        let [json, ld_json, geo_json] = self.wishes.weights;
        let geo = if self.wishes.geo_link { Document::GeoJsonLink } else { Document::GeoJson };
        let mut best = (0.0, None);
        for (weight, document) in [(json, Document::Json), (ld_json, Document::LdJson), (if geo_possible { geo_json } else { 0.0 }, geo)] {
            // Of what it likes equally the first.
            if weight > best.0 {
                best = (weight, Some(document));
            }
        }
        best.1.ok_or_else(|| {
            let more = if geo_possible { format!(", or {GEO_JSON}") } else { String::new() };
            Problem::new(StatusCode::NOT_ACCEPTABLE, "InvalidRequest", format!("the answer can be {JSON} or {LD_JSON}{more}"))
        })
    }

    /// Entities as the client's version of the standard knows them (clauses 4.3.6.8, 6.3.6).
    pub(crate) fn for_version(&self, entities: Vec<Arc<Entity>>) -> Vec<Arc<Entity>> {
        let Some(version) = self.wishes.version else { return entities };
        let older = |e: Arc<Entity>| {
            let older = ngsi::forward::downgraded(Entity::clone(&e), version);
            if older == *e {
                return e;
            }
            self.is_older.store(true, Ordering::Relaxed);
            Arc::new(older)
        };
        entities.into_iter().map(older).collect()
    }

    /// An answer with a body, its type and the way to its context.
    pub(crate) fn answer(&self, body: Vec<u8>, document: Document) -> Response {
        let mut response = Response::new(HttpBody::from(body));
        let content_type = match document {
            Document::Json => JSON,
            Document::LdJson => LD_JSON,
            Document::GeoJson | Document::GeoJsonLink => GEO_JSON,
        };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if matches!(document, Document::Json | Document::GeoJsonLink) {
            let target = self.context_url();
            let link = format!("<{target}>; rel=\"http://www.w3.org/ns/json-ld#context\"; type=\"application/ld+json\"");
            if let Ok(value) = HeaderValue::from_str(&link) {
                response.headers_mut().append(LINK, value);
            }
        }
        if let Some((major, minor)) = self.wishes.version {
            if self.is_older.load(Ordering::Relaxed) {
                *response.status_mut() = StatusCode::NON_AUTHORITATIVE_INFORMATION;
            }
            if let Ok(applied) = HeaderValue::from_str(&format!("ngsi-ld={major}.{minor}")) {
                response.headers_mut().insert(HeaderName::from_static("preference-applied"), applied);
            }
        }
        response
    }

    /// Where a reader finds the context of the answer: its own URL, or a wrapper that this node serves.
    fn context_url(&self) -> String {
        self.app.contexts.link(&self.context, &self.base)
    }

    /// Will answers or notifications link to the context of this body? Not those about changes of entities, which have no context.
    fn is_linked_to(&self) -> bool {
        let below = self.path.trim_end_matches('/');
        below.ends_with("/query") || !(below.contains("/entities") || below.contains("/entityOperations"))
    }

    /// `http://host:port` as the client knows this node.
    pub(crate) fn base(&self) -> String {
        self.base.clone()
    }

    /// Adds links to the next and the previous page (clause 6.3.10).
    pub(crate) fn add_page_links(&self, response: &mut Response, params: &QueryParams, more: bool) {
        let mut add = |offset: usize, rel: &str| {
            let others = self.pairs.iter().filter(|(n, _)| n != "offset" && n != "limit");
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.extend_pairs(others).append_pair("limit", &params.limit.to_string()).append_pair("offset", &offset.to_string());
            let link = format!("<{}?{}>; rel=\"{rel}\"; type=\"application/ld+json\"", self.path, query.finish());
            if let Ok(value) = HeaderValue::from_str(&link) {
                response.headers_mut().append(LINK, value);
            }
        };
        if more {
            add(params.offset + params.limit, "next");
        }
        if params.offset > 0 {
            add(params.offset.saturating_sub(params.limit), "prev");
        }
    }
}

impl From<ngsi::Error> for Problem {
    fn from(e: ngsi::Error) -> Self {
        let status = match e.kind {
            ngsi::ErrorKind::InvalidRequest | ngsi::ErrorKind::BadRequestData => StatusCode::BAD_REQUEST,
            ngsi::ErrorKind::LdContextNotAvailable => StatusCode::GATEWAY_TIMEOUT,
        };
        Self::new(status, e.kind.name(), e.to_string())
    }
}

impl Problem {
    /// The same as part of a batch's result.
    fn for_batch(&self) -> ngsi::encode::Problem<'static> {
        ngsi::encode::Problem { name: self.name, title: self.title(), detail: self.detail.clone(), status: Some(self.status.as_u16()) }
    }
}

/// The id in a path.
pub(crate) fn id_of(text: &str) -> Result<Iri, Problem> {
    text.parse().map_err(|e: entity::IriError| Problem::bad_data(e.to_string()))
}

pub(crate) fn created(location: &str) -> Response {
    let mut response = StatusCode::CREATED.into_response();
    if let Ok(value) = HeaderValue::from_str(location) {
        response.headers_mut().insert("location", value);
    }
    response
}

/// An id as a part of a path.
pub(crate) fn in_path(id: &str) -> String {
    // What RFC 3986 allows in a path segment stays readable.
    const KEPT: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b':').remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'@');
    percent_encoding::utf8_percent_encode(id, KEPT).to_string()
}

/// The parameters in the query of the URL.
fn pairs(parts: &Parts) -> Vec<(String, String)> {
    url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect()
}

/// `http://host:port` as the client knows this node.
fn base(parts: &Parts) -> String {
    let host = parts.headers.get(HOST).and_then(|h| h.to_str().ok());
    let scheme = if parts.extensions.get::<Https>().is_some() { "https" } else { "http" };
    format!("{scheme}://{}", host.or_else(|| parts.uri.authority().map(axum::http::uri::Authority::as_str)).unwrap_or_default())
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    headers.get(name).map(|v| v.to_str().map_err(|_| Problem::invalid_request(format!("header `{name}` is not plain text")))).transpose()
}

fn media_type(headers: &HeaderMap, method: &Method) -> Result<Option<MediaType>, Problem> {
    let Some(value) = text(headers, &CONTENT_TYPE)? else { return Ok(None) };
    match value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        JSON => Ok(Some(MediaType::Json)),
        "application/merge-patch+json" if method == Method::PATCH => Ok(Some(MediaType::Json)),
        LD_JSON => Ok(Some(MediaType::LdJson)),
        _ if method == Method::GET || method == Method::DELETE => Ok(None),
        _ => Err(unsupported_media_type()),
    }
}

/// Without a body: the status says all (clause 6.3.2).
fn unsupported_media_type() -> Problem {
    Problem::without_body(StatusCode::UNSUPPORTED_MEDIA_TYPE)
}

/// `Accept` and `Prefer`: q-values count, and the most specific range that fits (RFC 9110, section 12.5.1).
fn wishes(headers: &HeaderMap) -> Result<Wishes, Problem> {
    let mut wishes = Wishes { weights: [1.0, 0.9, 0.8], ..Wishes::default() };
    if headers.contains_key(ACCEPT) {
        let value = lines(headers, &ACCEPT)?;
        let ranges: Vec<(&str, f32)> = value.split(',').map(parse_range).collect();
        let weight = |name: &str| {
            let of = |wanted: &str| ranges.iter().find(|(range, _)| range.eq_ignore_ascii_case(wanted)).map(|(_, q)| *q);
            of(name).or_else(|| of("application/*")).or_else(|| of("*/*")).unwrap_or(0.0)
        };
        wishes.weights = [weight(JSON), weight(LD_JSON), weight(GEO_JSON)];
    }
    if headers.contains_key(&PREFER) {
        for (name, value) in lines(headers, &PREFER)?.split([',', ';']).filter_map(|p| p.trim().split_once('=')) {
            match (name.trim(), value.trim().trim_matches('"')) {
                ("body", body) => wishes.geo_link = body == "json",
                ("ngsi-ld", version) => {
                    let read = version.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
                    let wrong = || Problem::invalid_request(format!("header prefer: ngsi-ld={version}: expected a version such as 1.8"));
                    wishes.version = Some(read.ok_or_else(wrong)?);
                }
                // What a server does not know it passes over (RFC 7240, section 2).
                _ => {}
            }
        }
    }
    Ok(wishes)
}

/// All lines of a header as one.
fn lines(headers: &HeaderMap, name: &HeaderName) -> Result<String, Problem> {
    let lines: Result<Vec<&str>, _> = headers.get_all(name).iter().map(HeaderValue::to_str).collect();
    lines.map(|l| l.join(",")).map_err(|_| Problem::invalid_request(format!("header `{name}` is not plain text")))
}

fn parse_range(range: &str) -> (&str, f32) {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let q = parts.find_map(|p| p.strip_prefix("q=")).and_then(|q| q.parse().ok()).unwrap_or(1.0);
    (name, q)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences_are_read_from_all_lines() {
        let mut headers = HeaderMap::new();
        headers.append(PREFER, "respond-async, ngsi-ld=1.3".parse().unwrap());
        headers.append(PREFER, "body=json".parse().unwrap());
        let found = wishes(&headers).unwrap();
        assert_eq!((found.version, found.geo_link), (Some((1, 3)), true));
        headers.append(PREFER, "ngsi-ld=new".parse().unwrap());
        assert!(wishes(&headers).unwrap_err().detail.contains("ngsi-ld=new"));
    }

    #[test]
    fn ids_stay_readable_in_paths() {
        assert_eq!(in_path("urn:ngsi-ld:Station:a/b c"), "urn:ngsi-ld:Station:a%2Fb%20c");
    }
}
