//! NGSI-LD over HTTP (ETSI GS CIM 009 V1.9.1, clause 6): decode, call the operation, encode.

pub(crate) mod batch;
pub(crate) mod cluster;
pub(crate) mod csource_subscriptions;
pub(crate) mod discovery;
pub(crate) mod entities;
mod etag;
pub(crate) mod forward;
pub(crate) mod registrations;
pub(crate) mod subscriptions;
pub(crate) mod temporal;
pub(crate) mod temporal_write;

use std::sync::Arc;

use axum::body::Body as HttpBody;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderName, LINK};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use entity::Iri;
use ngsi::Context;
use ngsi::decode::{Body, MediaType};
use ngsi::encode::Document;
use ngsi::query::{Endpoint, QueryParams};
use policy::{Action, Principal};

use crate::App;
use crate::auth::Caller;
use crate::problem::Problem;
use crate::tenants::{TenantError, TenantName, TenantNameError};

pub(crate) const TENANT: HeaderName = HeaderName::from_static("ngsild-tenant");
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
    /// The headers, kept only if there are sources that may be told of them.
    headers: HeaderMap,
    accept: Accepted,
    link: Option<String>,
    media_type: Option<MediaType>,
    path: String,
    host: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Accepted {
    Json,
    LdJson,
    GeoJson,
    GeoJsonLink,
    Nothing,
}

impl FromRequestParts<Arc<App>> for Call {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let Caller(who) = Caller::from_request_parts(parts, app).await?;
        let app = &match text(&parts.headers, &TENANT)? {
            Some(name) => tenant(app, &who, name, &parts.method, parts.uri.path()).await?,
            None => Arc::clone(app),
        };
        let link = match text(&parts.headers, &LINK)? {
            Some(value) => ngsi::context::context_of_link_header(value)?,
            None => None,
        };
        let media_type = media_type(&parts.headers, &parts.method)?;
        let context = app.contexts.of_url(link.as_deref()).await?;
        let pairs = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        Ok(Self {
            app: Arc::clone(app),
            who,
            context,
            pairs,
            if_match: etag::if_match(&parts.headers)?,
            headers: if app.node.has_registrations() { parts.headers.clone() } else { HeaderMap::new() },
            accept: accepted(&parts.headers)?,
            link,
            media_type,
            path: parts.uri.path().to_owned(),
            host: text(&parts.headers, &HOST)?.unwrap_or_default().to_owned(),
        })
    }
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
        TenantError::Open { .. } => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", e.to_string()),
    })
}

impl Call {
    pub(crate) fn params(&self, endpoint: Endpoint) -> Result<QueryParams, Problem> {
        Ok(QueryParams::from_pairs(&self.pairs, &self.context, endpoint)?)
    }

    /// Is the body plain JSON, whose context is the request's?
    pub(crate) fn is_plain_json(&self) -> bool {
        self.media_type == Some(MediaType::Json)
    }

    /// Reads the body; foreign contexts that it names are fetched first.
    pub(crate) async fn body(&self, bytes: &[u8]) -> Result<Body, Problem> {
        let media_type = self.media_type.ok_or_else(|| unsupported_media_type("none"))?;
        if media_type == MediaType::LdJson {
            let value = ngsi::decode::json(bytes)?;
            let items = match &value {
                serde_json::Value::Array(list) => list.as_slice(),
                one => std::slice::from_ref(one),
            };
            for context in items.iter().filter_map(|i| i.get("@context")) {
                // Items of a batch usually share one context: what is there is not fetched again.
                self.app.contexts.prepare(context).await?;
            }
        }
        Ok(ngsi::decode::body(bytes, media_type, self.link.as_deref(), self.app.contexts.store())?)
    }

    /// What kind of document the answer is; features only where there are entities.
    pub(crate) fn document(&self, geo_possible: bool) -> Result<Document, Problem> {
        match self.accept {
            Accepted::Json => Ok(Document::Json),
            Accepted::LdJson => Ok(Document::LdJson),
            Accepted::GeoJson if geo_possible => Ok(Document::GeoJson),
            Accepted::GeoJsonLink if geo_possible => Ok(Document::GeoJsonLink),
            _ => Err(Problem::new(
                StatusCode::NOT_ACCEPTABLE,
                "InvalidRequest",
                format!("the answer can be {JSON} or {LD_JSON}{}", if geo_possible { ", or application/geo+json" } else { "" }),
            )),
        }
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
        response
    }

    /// Where a reader finds the context of the answer: its own URL, or a wrapper that this node serves.
    fn context_url(&self) -> String {
        self.context.url().map_or_else(|| format!("http://{}/ngsi-ld/v1/jsonldContexts/{}", self.host, self.context.id()), str::to_owned)
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

/// `GET /ngsi-ld/v1/jsonldContexts/{id}`: contexts that answers link to.
pub(crate) async fn context_document(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Problem> {
    let context = app
        .contexts
        .store()
        .by_id(&id)
        .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "ResourceNotFound", format!("there is no context `{id}` (any more)")))?;
    let mut response = Response::new(HttpBody::from(serde_json::json!({"@context": context.json()}).to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(LD_JSON));
    Ok(response)
}

/// `GET /contexts/{host}/{path}`: the embedded contexts, for clients without internet.
pub(crate) async fn embedded_context(Path(path): Path<String>) -> Result<Response, Problem> {
    let text = ngsi::ContextStore::embedded(&format!("https://{path}"))
        .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "ResourceNotFound", format!("context `https://{path}` is not embedded")))?;
    let mut response = Response::new(HttpBody::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(LD_JSON));
    Ok(response)
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
        other => Err(unsupported_media_type(other)),
    }
}

fn unsupported_media_type(found: &str) -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "InvalidRequest", format!("Content-Type is `{found}`; expected {JSON} or {LD_JSON}"))
}

/// What the client likes best of what there is (clause 6.3.4): q-values, then JSON before JSON-LD before GeoJSON.
fn accepted(headers: &HeaderMap) -> Result<Accepted, Problem> {
    let geo = if headers.get("prefer").is_some_and(|p| p.as_bytes() == b"body=json") { Accepted::GeoJsonLink } else { Accepted::GeoJson };
    let Some(value) = text(headers, &ACCEPT)? else { return Ok(Accepted::Json) };
    let mut best = (0.0, Accepted::Nothing);
    for (range, q) in value.split(',').map(parse_range) {
        let candidate = match range {
            "*/*" | "application/*" | JSON => Accepted::Json,
            LD_JSON => Accepted::LdJson,
            GEO_JSON => geo,
            _ => continue,
        };
        let rank = |a| match a {
            Accepted::Json => 0,
            Accepted::LdJson => 1,
            Accepted::GeoJson | Accepted::GeoJsonLink => 2,
            Accepted::Nothing => 3,
        };
        if q > best.0 || (q > 0.0 && q >= best.0 && rank(candidate) < rank(best.1)) {
            best = (q, candidate);
        }
    }
    Ok(best.1)
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
    fn the_answer_is_what_the_client_likes_best() {
        check(None, Accepted::Json);
        check(Some("*/*"), Accepted::Json);
        check(Some("application/ld+json"), Accepted::LdJson);
        check(Some("application/geo+json, application/json"), Accepted::Json);
        check(Some("application/json;q=0.5, application/ld+json"), Accepted::LdJson);
        check(Some("application/geo+json, text/html;q=0.9"), Accepted::GeoJson);
        check(Some("text/html"), Accepted::Nothing);

        #[track_caller]
        fn check(accept: Option<&str>, want: Accepted) {
            let mut headers = HeaderMap::new();
            if let Some(a) = accept {
                headers.insert(ACCEPT, a.parse().unwrap());
            }
            assert_eq!(accepted(&headers).unwrap(), want, "{accept:?}");
        }
    }

    #[test]
    fn ids_stay_readable_in_paths() {
        assert_eq!(in_path("urn:ngsi-ld:Station:a/b c"), "urn:ngsi-ld:Station:a%2Fb%20c");
    }
}
