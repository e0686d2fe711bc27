//! One request to one source (clauses 4.3.6.4 to 4.3.6.6, 6.3.18 and 6.3.19).

use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{ACCEPT, CONTENT_TYPE, HeaderName, LINK};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use entity::Entity;
use ngsi::context::{CORE_CONTEXT_URL, context_of_link_header};
use ngsi::encode::Document;
use ngsi::forward::downgraded;
use ngsi::{Context, View, encode};
use node::{Asked, Registered};
use serde_json::Value;

use super::super::{Call, JSON, LD_JSON};
use super::REQUESTS_MAX;
use crate::chain;
use crate::problem::Problem;

/// How long a source may take if its registration does not say.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// The largest answer of a source, in bytes.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// In `contextSourceInfo`: the value that the request at hand has.
const OF_REQUEST: &str = "urn:ngsi-ld:request";

/// Headers that belong to the connection or to this node, whatever a registration says (clause 6.3.19).
const OWN_HEADERS: [&str; 14] = [
    "accept",
    "connection",
    "content-length",
    "content-type",
    "contenttype",
    "host",
    "jsonldcontext",
    "keep-alive",
    "link",
    "ngsild-tenant",
    "ngsildconformance",
    "te",
    "transfer-encoding",
    "via",
];

/// Why a source did not do what it was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// Nothing came in time.
    NoAnswer(String),
    /// The request would come, or came, back here.
    Loop(String),
    /// It refused, with its status.
    Refused(u16, String),
    /// What it said cannot be used.
    Unusable(String),
}

impl Failure {
    /// The code and text of a warning (clause 6.3.17).
    pub(super) fn warning(&self) -> (u16, &str) {
        match self {
            Self::NoAnswer(why) | Self::Loop(why) => (199, why),
            Self::Refused(_, why) => (299, why),
            Self::Unusable(why) => (111, why),
        }
    }

    /// The same as an error of a request that this source alone could answer.
    pub(crate) fn problem(&self, registered: &Registered) -> Problem {
        let (status, name, why) = match self {
            Self::NoAnswer(why) => (StatusCode::GATEWAY_TIMEOUT, "GatewayTimeout", why),
            Self::Loop(why) => (StatusCode::LOOP_DETECTED, "LoopDetected", why),
            Self::Refused(404, why) => (StatusCode::NOT_FOUND, "ResourceNotFound", why),
            Self::Refused(409, why) => (StatusCode::CONFLICT, "AlreadyExists", why),
            Self::Refused(_, why) | Self::Unusable(why) => (StatusCode::BAD_GATEWAY, "BadGateway", why),
        };
        Problem::new(status, name, format!("the source of registration `{}`: {why}", registered.registration.id))
    }
}

/// What a source is asked.
pub(super) struct Outgoing {
    pub(super) method: Method,
    /// Below `/ngsi-ld/v1/`, percent-encoded.
    pub(super) path: String,
    pub(super) query: Vec<(&'static str, String)>,
    /// In the names of the context in which the source is spoken to.
    pub(super) body: Option<Value>,
}

/// What a source said.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    /// Null if there is no body.
    pub(super) json: Value,
    /// The context that the names in it have.
    pub(super) context: Arc<Context>,
}

/// The context in which a source is spoken to, and its URL (clauses 4.3.6.6 and 6.3.5).
#[derive(Clone)]
pub(super) struct Spoken {
    pub(super) context: Arc<Context>,
    pub(super) url: String,
}

impl Spoken {
    /// The one that the registration names, or the core context, which everybody has: names that it does not have are written in full.
    pub(super) async fn of(call: &Call, registered: &Registered) -> Result<Self, Failure> {
        let contexts = &call.app.contexts;
        match registered.registration.info("jsonldContext") {
            Some(url) => {
                let context = contexts.of_url(Some(url)).await.map_err(|p| Failure::Unusable(p.detail))?;
                Ok(Self { context, url: url.to_owned() })
            }
            None => Ok(Self { context: Arc::clone(contexts.store().core_context()), url: CORE_CONTEXT_URL.to_owned() }),
        }
    }

    /// The one of the request at hand, which this node serves if it has no address of its own.
    pub(super) fn of_request(call: &Call) -> Self {
        let context = Arc::clone(&call.context);
        let own = || format!("{}/ngsi-ld/v1/jsonldContexts/{}", call.app.sources.public_url, context.id());
        Self { url: context.url().map_or_else(own, str::to_owned), context }
    }
}

/// How long this source may take.
pub(super) fn wait_for(registered: &Registered) -> Duration {
    registered.registration.management.timeout_ms.map_or(ANSWER_WAIT, Duration::from_millis)
}

/// The whole address, which is also what tells one question from another.
pub(super) fn address(registered: &Registered, outgoing: &Outgoing) -> String {
    let registration = &registered.registration;
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in &outgoing.query {
        query.append_pair(name, value);
    }
    if registration.management.local_only == Some(true) {
        query.append_pair("local", "true");
    }
    let query = query.finish();
    let base = registration.endpoint.trim_end_matches('/');
    // Some register the address of the interface, others that of the program.
    let base = base.strip_suffix("/ngsi-ld/v1").unwrap_or(base);
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{base}/ngsi-ld/v1/{}{mark}{query}", outgoing.path)
}

/// What a source is to be told in headers, beside those that belong to the request itself.
pub(super) fn extra_headers(call: &Call, registered: &Registered) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (key, value) in &registered.registration.source_info {
        let Ok(name) = HeaderName::from_bytes(key.to_ascii_lowercase().as_bytes()) else { continue };
        if OWN_HEADERS.contains(&name.as_str()) {
            continue;
        }
        let value = if value == OF_REQUEST { call.headers.get(&name).cloned() } else { HeaderValue::from_str(value).ok() };
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
    if let Some(Ok(tenant)) = registered.registration.tenant.as_deref().map(HeaderValue::from_str) {
        headers.insert("ngsild-tenant", tenant);
    }
    headers
}

/// Asks a source and notes how it went. A 404 is an answer like others: the source does not have it.
pub(super) async fn send(call: &Call, registered: &Registered, spoken: &Spoken, outgoing: &Outgoing) -> Result<Reply, Failure> {
    let now = call.app.node.now();
    let is_read = outgoing.method == Method::GET;
    if registered.is_cooling(now) || is_read && !registered.may_be_read(now) {
        return Err(Failure::NoAnswer("it did not answer lately and is left alone for a while".to_owned()));
    }
    let wait = wait_for(registered);
    // Waiting for a turn is this node's doing, not the source's.
    let busy = || Failure::NoAnswer(format!("not asked: {REQUESTS_MAX} requests to sources are under way already"));
    let Ok(Ok(_turn)) = tokio::time::timeout(wait, call.app.sources.turns.acquire()).await else { return Err(busy()) };
    let outcome = tokio::time::timeout(wait, exchange(call, registered, spoken, outgoing)).await;
    let outcome = outcome.unwrap_or_else(|_| Err(Failure::NoAnswer(format!("no answer within {} ms", wait.as_millis()))));
    let asked = match &outcome {
        Ok(_) => Asked::Answered,
        Err(Failure::NoAnswer(_)) => Asked::Silent,
        Err(_) => Asked::Failed,
    };
    registered.note(asked, call.app.node.now());
    outcome
}

async fn exchange(call: &Call, registered: &Registered, spoken: &Spoken, outgoing: &Outgoing) -> Result<Reply, Failure> {
    let silent = |e: &dyn std::error::Error| Failure::NoAnswer(chain(e));
    let registration = &registered.registration;
    // Checked again: the node may have been restarted without --dev.
    let url = call.app.outbound.check(&address(registered, outgoing)).map_err(|e| Failure::NoAnswer(e.to_string()))?;
    let mut request = call.app.outbound.client().request(outgoing.method.clone(), url).headers(extra_headers(call, registered));
    for via in call.headers.get_all("via") {
        request = request.header("via", via);
    }
    request = request.header("via", format!("1.1 {}", call.app.sources.alias));
    request = request.header(ACCEPT, registration.info("accept").unwrap_or(JSON));
    let as_json = registration.info("contentType").or_else(|| registration.info("content-type")) != Some(LD_JSON);
    if as_json || outgoing.body.is_none() {
        request =
            request.header(LINK, format!("<{}>; rel=\"http://www.w3.org/ns/json-ld#context\"; type=\"application/ld+json\"", spoken.url));
    }
    if let Some(payload) = &outgoing.body {
        let mut body = payload.clone();
        if !as_json {
            let items = match &mut body {
                Value::Array(list) => list.as_mut_slice(),
                one => std::slice::from_mut(one),
            };
            for map in items.iter_mut().filter_map(Value::as_object_mut) {
                map.insert("@context".to_owned(), Value::from(spoken.url.as_str()));
            }
        }
        request = request.header(CONTENT_TYPE, if as_json { JSON } else { LD_JSON }).body(body.to_string());
    }
    let mut response = request.send().await.map_err(|e| silent(&e))?;
    let (status, headers) = (response.status(), response.headers().clone());
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| silent(&e))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(Failure::Unusable(format!("its answer is larger than {ANSWER_BYTES_MAX} bytes")));
        }
    }
    if status == StatusCode::LOOP_DETECTED {
        return Err(Failure::Loop("it finds that the request has passed it before".to_owned()));
    }
    if !status.is_success() && status != StatusCode::NOT_FOUND {
        return Err(Failure::Refused(status.as_u16(), refusal(status, &bytes)));
    }
    let json = if bytes.is_empty() || status == StatusCode::NOT_FOUND {
        Value::Null
    } else {
        serde_json::from_slice(&bytes).map_err(|e| Failure::Unusable(format!("its answer is not JSON: {e}")))?
    };
    Ok(Reply { status, context: context_of(call, spoken, &headers, &json).await?, json })
}

/// What a source says that refuses.
fn refusal(status: StatusCode, bytes: &[u8]) -> String {
    let problem: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let detail = problem.get("detail").or_else(|| problem.get("title")).and_then(Value::as_str).unwrap_or_default();
    format!("it answered {}: {}", status.as_u16(), detail.chars().take(500).collect::<String>())
}

/// The context of an answer: inside of it, or linked, or the one in which it was asked (clause 6.3.5).
async fn context_of(call: &Call, spoken: &Spoken, headers: &HeaderMap, json: &Value) -> Result<Arc<Context>, Failure> {
    let unusable = |p: Problem| Failure::Unusable(p.detail);
    let first = json.as_array().map_or(Some(json), |list| list.first());
    if let Some(inside) = first.and_then(|one| one.get("@context")) {
        call.app.contexts.prepare(inside).await.map_err(unusable)?;
        return call.app.contexts.store().resolve(inside).map_err(|e| Failure::Unusable(e.to_string()));
    }
    let linked = headers.get_all(LINK).iter().filter_map(|v| v.to_str().ok()).find_map(|v| context_of_link_header(v).ok().flatten());
    match linked {
        Some(url) if url != spoken.url => call.app.contexts.of_url(Some(&url)).await.map_err(unusable),
        _ => Ok(Arc::clone(&spoken.context)),
    }
}

/// The document that a source gets: normalized, and in a version of the standard that it knows.
pub(super) fn rendered(e: &Entity, registered: &Registered, context: &Context) -> Value {
    let version = registered.registration.info("ngsildConformance").and_then(ngsi::decode::conformance);
    match version {
        Some(version) => entity_json(&downgraded(e.clone(), version), context),
        None => entity_json(e, context),
    }
}

/// An entity with its times of expiry and without the recorded times, which are this node's own.
fn entity_json(e: &Entity, context: &Context) -> Value {
    let view = View { sys_attrs: true, ..View::default() };
    let bytes = encode::entity(e, &view, context, Document::Json);
    let mut json: Value = serde_json::from_slice(&bytes).expect("what was just written is JSON");
    if e.types.is_empty()
        && let Some(map) = json.as_object_mut()
    {
        map.shift_remove("type");
    }
    remove_recorded(&mut json, 0);
    json
}

/// Takes `createdAt` and `modifiedAt` off entities, attributes and sub-attributes; values are left alone.
fn remove_recorded(node: &mut Value, depth: usize) {
    match node {
        Value::Array(list) => list.iter_mut().for_each(|item| remove_recorded(item, depth)),
        Value::Object(map) => {
            let is_attribute =
                map.get("type").and_then(Value::as_str).is_some_and(|t| t.ends_with("Property") || t.ends_with("Relationship"));
            if depth > 0 && !is_attribute {
                return;
            }
            map.shift_remove("createdAt");
            map.shift_remove("modifiedAt");
            const VALUES: [&str; 7] = ["value", "languageMap", "vocab", "json", "valueList", "object", "objectList"];
            map.iter_mut().filter(|(k, _)| depth == 0 || !VALUES.contains(&k.as_str())).for_each(|(_, v)| remove_recorded(v, depth + 1));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ngsi::{ContextStore, decode};
    use serde_json::json;

    #[test]
    fn what_is_sent_is_what_was_given_without_recorded_times() {
        let contexts = ContextStore::new(None, None).unwrap();
        let given = json!({
            "id": "urn:x:1", "type": "A", "expiresAt": "2099-01-01T00:00:00Z",
            "p": {"type": "Property", "value": {"createdAt": "kept", "type": "x"}, "expiresAt": "2098-01-01T00:00:00Z",
                  "s": {"type": "Property", "value": 1}},
            "m": [{"type": "Property", "value": 1}, {"type": "Property", "value": 2, "datasetId": "urn:d:1"}],
        });
        let e = decode::entity(given.clone(), contexts.core_context()).unwrap();
        assert_eq!(entity_json(&e, contexts.core_context()), given);
    }
}
