//! What surrounds every route: foreign origins, lengths and codings of bodies, answers that the client has already, compression, and the
//! form of errors that come from the library (ETSI GS CIM 009 V1.9.1, clauses 6.3.2 to 6.3.6; RFC 9110).
//!
//! One layer, since each costs; what a request does not ask for is a look at one header.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH, ORIGIN,
    VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use node::Sort;

use crate::ngsi_ld::TENANT;
use crate::ngsi_ld::snapshots::SNAPSHOT;
use crate::problem::Problem;
use crate::routes::BODY_BYTES_MAX;
use crate::{App, compress};

/// Methods that pages of other origins may use.
const CORS_METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
/// Headers that they may send.
const CORS_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, accept, link, prefer, if-match, if-none-match, ngsild-tenant, ngsild-snapshot, ngsild-entitymap",
);
/// Headers that they may read, beside those that everybody may.
const CORS_EXPOSED: HeaderValue = HeaderValue::from_static(
    "location, link, etag, allow, content-range, preference-applied, ngsild-results-count, ngsild-tenant, ngsild-warning, ngsild-snapshot, \
     ngsild-entitymap",
);
/// For so long a browser need not ask again, seconds.
const CORS_SECONDS: HeaderValue = HeaderValue::from_static("600");
/// What a tagged answer depends on besides its URL.
const VARIES: HeaderValue = HeaderValue::from_static("accept, link, prefer, ngsild-tenant, ngsild-snapshot");

/// Web pages of which origins may use the node from a browser; by default none but its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// None.
    #[default]
    None,
    /// These, each `scheme://host[:port]`.
    Of(Vec<String>),
    /// Every one. The access token is still needed: it is never sent by a browser of its own accord.
    Every,
}

impl Origins {
    /// From a list; `*` in it means every origin.
    ///
    /// Errors: the one that is no origin.
    pub fn from_list(list: &[String]) -> Result<Self, String> {
        if list.iter().any(|o| o == "*") {
            return Ok(Self::Every);
        }
        let is_origin = |o: &String| url::Url::parse(o).is_ok_and(|u| u.origin().ascii_serialization() == *o && u.has_host());
        match list.iter().find(|o| !is_origin(o)) {
            Some(wrong) => Err(format!("`{wrong}` is not an origin (expected `*` or `https://host[:port]` without a path)")),
            None if list.is_empty() => Ok(Self::None),
            None => Ok(Self::Of(list.to_vec())),
        }
    }

    /// What to tell a browser about a page of this origin.
    fn allow(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match self {
            Self::None => None,
            Self::Every => Some(HeaderValue::from_static("*")),
            Self::Of(list) => list.iter().any(|o| o.as_bytes() == origin.as_bytes()).then(|| origin.clone()),
        }
    }
}

/// Marks requests that came through TLS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Https;

/// What the layer has to know.
pub(crate) struct Around {
    pub(crate) app: Arc<App>,
    pub(crate) origins: Origins,
    pub(crate) https: bool,
}

/// The layer.
pub(crate) async fn around(State(around): State<Arc<Around>>, request: Request, next: Next) -> Response {
    let response = answer(&around, request, next).await;
    let class = match response.status().as_u16() / 100 {
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "1xx",
    };
    around.app.node.metrics().http_responses.get_or_create(&Sort::of(class)).inc();
    response
}

async fn answer(around: &Around, mut request: Request, next: Next) -> Response {
    if around.https {
        request.extensions_mut().insert(Https);
    }
    let allowed = request.headers().get(ORIGIN).and_then(|o| around.origins.allow(o));
    if allowed.is_some() {
        // It is settled here; what comes after would judge it again.
        request.headers_mut().remove(ORIGIN);
        if request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return with_origin(preflight(), allowed);
        }
    }
    let is_ngsi_ld = request.uri().path().starts_with("/ngsi-ld/") || request.uri().path().starts_with("/cluster/ngsi-ld/");
    if is_ngsi_ld && let Err(refused) = read_codings(&mut request).await {
        return with_origin(refused, allowed);
    }
    let coding = compress::wanted(request.headers());
    let known = is_ngsi_ld.then(|| known_tags(&request)).flatten();
    let of_whom = [TENANT, SNAPSHOT].map(|name| (request.headers().get(&name).cloned(), name));
    let mut response = readable(next.run(request).await);
    // Whose data these are goes back with them (clauses 6.3.14 and 6.3.22).
    for (value, name) in of_whom {
        if let Some(value) = value {
            response.headers_mut().insert(name, value);
        }
    }
    if response.headers().contains_key(ETAG) {
        response.headers_mut().append(VARY, VARIES);
        if let Some(known) = known {
            response = unless_known(response, &known);
        }
    }
    if let Some(coding) = coding {
        response = compress::answer(response, coding).await;
    }
    with_origin(response, allowed)
}

fn preflight() -> Response {
    let mut response = empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, CORS_METHODS);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, CORS_HEADERS);
    headers.insert(ACCESS_CONTROL_MAX_AGE, CORS_SECONDS);
    response
}

fn with_origin(mut response: Response, allowed: Option<HeaderValue>) -> Response {
    if let Some(origin) = allowed {
        let headers = response.headers_mut();
        if origin != "*" {
            headers.append(VARY, HeaderValue::from_static("origin"));
        }
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, CORS_EXPOSED);
    }
    response
}

/// The length of a body has to be known before (clause 6.3.2: 411), and a body that came packed is unpacked.
async fn read_codings(request: &mut Request) -> Result<(), Response> {
    if !matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) {
        return Ok(());
    }
    // HTTP/2 says with its frames where a body ends; it has no chunked coding that could hide it.
    if !request.headers().contains_key(CONTENT_LENGTH) && request.version() != Version::HTTP_2 {
        return Err(empty(StatusCode::LENGTH_REQUIRED));
    }
    let Some(coding) = request.headers_mut().remove(CONTENT_ENCODING) else { return Ok(()) };
    if coding.as_bytes().eq_ignore_ascii_case(b"identity") {
        return Ok(());
    }
    if !coding.as_bytes().eq_ignore_ascii_case(b"gzip") {
        let mut refused = empty(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        refused.headers_mut().insert(axum::http::header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        return Err(refused);
    }
    let body = std::mem::take(request.body_mut());
    let too_large = || too_large().into_response();
    let packed = to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| too_large())?;
    // Off the threads that serve sockets: a small body may unpack to the largest.
    let unpacked = tokio::task::spawn_blocking(move || compress::unzipped(&packed, BODY_BYTES_MAX)).await;
    let unpacked = unpacked.unwrap_or_else(|e| Err(std::io::Error::other(e))).map_err(|e| match e.kind() {
        std::io::ErrorKind::FileTooLarge => too_large(),
        _ => Problem::invalid_request(format!("the body is not gzip, as Content-Encoding says: {e}")).into_response(),
    })?;
    request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(unpacked.len()));
    *request.body_mut() = Body::from(unpacked);
    Ok(())
}

fn too_large() -> Problem {
    let detail = format!("the body is larger than the limit of {BODY_BYTES_MAX} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "TooManyResults", detail)
}

/// Errors that come from the library get the form that ours have.
fn readable(response: Response) -> Response {
    let status = response.status();
    if status != StatusCode::PAYLOAD_TOO_LARGE && status != StatusCode::BAD_REQUEST {
        return response;
    }
    if response.headers().get(CONTENT_TYPE).is_some_and(|t| t.as_bytes() == b"application/json") {
        return response;
    }
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        return too_large().into_response();
    }
    Problem::invalid_request("the request cannot be read: its path, parameters or body are not well formed").into_response()
}

/// `If-None-Match` of a request to read, if the tag of the answer says all about it: with linked entities it does not.
fn known_tags(request: &Request) -> Option<Vec<HeaderValue>> {
    let known = request.headers().get_all(IF_NONE_MATCH);
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let joins = request.uri().query().is_some_and(|q| q.contains("join"));
    (reads && !joins && known.iter().next().is_some()).then(|| known.iter().cloned().collect())
}

/// 304 if the client has this very version (RFC 9110, section 13.1.2).
fn unless_known(response: Response, known: &[HeaderValue]) -> Response {
    let Some(tag) = response.headers().get(ETAG).filter(|_| response.status() == StatusCode::OK).and_then(|t| t.to_str().ok()) else {
        return response;
    };
    let names_it = |value: &HeaderValue| {
        // Tags of this node have no comma.
        value.to_str().is_ok_and(|v| v.split(',').map(str::trim).any(|k| k == "*" || k.strip_prefix("W/").unwrap_or(k) == tag))
    };
    if !known.iter().any(names_it) {
        return response;
    }
    let mut short = empty(StatusCode::NOT_MODIFIED);
    let keep = |name| response.headers().get_all(name).iter().cloned().map(move |v| (name, v));
    let kept: HeaderMap = [ETAG, VARY, axum::http::header::LINK].iter().flat_map(keep).map(|(n, v)| (n.clone(), v)).collect();
    *short.headers_mut() = kept;
    short
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_checked_when_they_are_configured() {
        let list = |l: &[&str]| Origins::from_list(&l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(list(&[]), Ok(Origins::None));
        assert_eq!(list(&["https://a.example", "*"]), Ok(Origins::Every));
        assert_eq!(list(&["http://localhost:3000"]), Ok(Origins::Of(vec!["http://localhost:3000".to_owned()])));
        for wrong in ["a.example", "https://a.example/", "https://a.example/path", "null", "data:x"] {
            assert!(list(&[wrong]).unwrap_err().contains(wrong), "{wrong}");
        }
    }
}
