//! `/jsonldContexts` (clauses 5.13, 6.29, 6.30), and the embedded contexts for clients without internet.

use std::sync::Arc;

use axum::body::{Body as HttpBody, Bytes};
use axum::extract::{FromRequestParts, Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{Call, JSON, LD_JSON, created};
use crate::App;
use crate::auth::Caller;
use crate::contexts::{Kind, RemoveError};
use crate::problem::Problem;

/// The parameters of these routes, for the description of the interface.
pub(crate) const LIST_PARAMETERS: &[&str] = &["details", "kind"];
/// See [`LIST_PARAMETERS`].
pub(crate) const GET_PARAMETERS: &[&str] = &["details"];
/// See [`LIST_PARAMETERS`].
pub(crate) const DELETE_PARAMETERS: &[&str] = &["reload"];

/// `POST /jsonldContexts`: host a context.
pub(crate) async fn host(call: Call, body: Bytes) -> Result<Response, Problem> {
    only(&call.pairs, &[])?;
    let mut value = ngsi::decode::json(&body)?;
    let members = value.as_object_mut().ok_or_else(|| Problem::bad_data("expected a JSON object with the member `@context`"))?;
    let context = members.shift_remove("@context").ok_or_else(|| Problem::bad_data("the member `@context` is missing"))?;
    let id = call.app.contexts.host(&call.who, context).await?;
    Ok(created(&format!("/ngsi-ld/v1/jsonldContexts/{id}")))
}

/// `GET /jsonldContexts`: the contexts that this node has.
pub(crate) async fn list(call: Call) -> Result<Response, Problem> {
    only(&call.pairs, LIST_PARAMETERS)?;
    let kind = match value_of(&call.pairs, "kind") {
        None => None,
        Some(name) => Some(Kind::ALL.into_iter().find(|k| k.name().eq_ignore_ascii_case(name)).ok_or_else(|| {
            Problem::bad_data(format!("parameter kind: `{name}` is not known (expected Hosted, Cached or ImplicitlyCreated)"))
        })?),
    };
    let details = flag(&call.pairs, "details")?;
    let base = call.base();
    let found = call.app.contexts.described(kind);
    let list: Vec<Value> = found.iter().map(|d| if details { d.json(&base) } else { json!(d.address(&base)) }).collect();
    Ok(plain(&Value::Array(list), JSON))
}

/// `GET /jsonldContexts/{id}`: one context, or what is known of it. Everybody may read the document: answers link to it.
pub(crate) async fn serve(State(app): State<Arc<App>>, Path(id): Path<String>, mut parts: Parts) -> Result<Response, Problem> {
    let pairs = super::pairs(&parts);
    only(&pairs, GET_PARAMETERS)?;
    if flag(&pairs, "details")? {
        Caller::from_request_parts(&mut parts, &app).await?;
        let found = app.contexts.description(&id).ok_or_else(|| unknown(&id))?;
        return Ok(plain(&found.json(&super::base(&parts)), JSON));
    }
    if let Some(document) = app.contexts.store().local(&id) {
        return Ok(plain(&document, LD_JSON));
    }
    if app.contexts.description(&id).is_some() {
        let detail = format!("context `{id}` is a copy of another server's, of which this node gives only `details=true`");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "OperationNotSupported", detail));
    }
    // What an answer of this run linked to.
    let context = app.contexts.store().by_id(&id).ok_or_else(|| unknown(&id))?;
    Ok(plain(&json!({"@context": context.json()}), LD_JSON))
}

/// `DELETE /jsonldContexts/{id}`: forget a context, or fetch it anew.
pub(crate) async fn delete(call: Call, Path(id): Path<String>) -> Result<Response, Problem> {
    only(&call.pairs, DELETE_PARAMETERS)?;
    let reload = flag(&call.pairs, "reload")?;
    match call.app.contexts.remove(&call.who, &id, reload).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT.into_response()),
        Err(RemoveError::Unknown) => Err(unknown(&id)),
        Err(RemoveError::Refused(why)) => Err(Problem::bad_data(format!("context `{id}`: {why}"))),
        Err(RemoveError::Fetch(why)) => {
            let detail = format!("context `{id}` cannot be fetched anew, the old copy stays: {why}");
            Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "LdContextNotAvailable", detail))
        }
        Err(RemoveError::Node(e)) => Err(e.into()),
        Err(RemoveError::Other(problem)) => Err(problem),
    }
}

/// `GET /contexts/{host}/{path}`: the embedded contexts, for clients without internet.
pub(crate) async fn embedded(Path(path): Path<String>) -> Result<Response, Problem> {
    let text = ngsi::ContextStore::embedded(&format!("https://{path}"))
        .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "ResourceNotFound", format!("context `https://{path}` is not embedded")))?;
    let mut response = Response::new(HttpBody::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(LD_JSON));
    Ok(response)
}

fn plain(value: &Value, content_type: &'static str) -> Response {
    let mut response = Response::new(HttpBody::from(value.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn unknown(id: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "ResourceNotFound", format!("there is no context `{id}` (any more)"))
}

fn value_of<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

fn flag(pairs: &[(String, String)], name: &str) -> Result<bool, Problem> {
    match value_of(pairs, name) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(Problem::bad_data(format!("parameter {name}: `{other}` is neither true nor false"))),
    }
}

fn only(pairs: &[(String, String)], known: &[&str]) -> Result<(), Problem> {
    match pairs.iter().find(|(n, _)| !known.contains(&n.as_str())) {
        Some((name, _)) => Err(Problem::invalid_request(format!("parameter `{name}` is not known here"))),
        None => Ok(()),
    }
}
