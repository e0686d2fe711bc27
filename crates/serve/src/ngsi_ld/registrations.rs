//! `/csourceRegistrations` (clauses 5.9, 5.10, 6.8, 6.9) and `/info/sourceIdentity` (clause 5.15).

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use entity::Iri;
use entity::registration::{MissingMember, Registration, Specification};
use ngsi::forward::{SourceFilter, specification};
use ngsi::query::Endpoint;
use ngsi::{decode, encode};
use node::Registered;
use serde_json::{Value, json};
use std::sync::Arc;

use super::{Call, created, in_path};
use crate::App;
use crate::problem::Problem;

pub(crate) async fn create(call: Call, body: Bytes) -> Result<Response, Problem> {
    call.params(Endpoint::Plain)?;
    let (value, context) = call.body(&body).await?.into_one()?;
    let new_id = || Iri::known(&format!("urn:ngsi-ld:ContextSourceRegistration:{}", host::random_hex::<12>()));
    let wished = decode::registration(value, &context, new_id)?;
    check_addresses(&call, &wished)?;
    let registered = call.app.node.register(&call.who, wished).await?;
    let id = registered.registration.id.as_str();
    Ok(created(&format!("/ngsi-ld/v1/csourceRegistrations/{}", in_path(id))))
}

/// Whether anybody answers there is not asked: a source may be down now and up later.
fn check_addresses(call: &Call, wished: &Registration) -> Result<(), Problem> {
    call.app.outbound.check(&wished.endpoint).map_err(|e| Problem::bad_data(format!("endpoint: {e}")))?;
    if let Some(url) = wished.info("jsonldContext") {
        // An embedded context is never fetched.
        let known = ngsi::ContextStore::embedded(url).is_some();
        if !known {
            call.app.outbound.check(url).map_err(|e| Problem::bad_data(format!("contextSourceInfo/jsonldContext: {e}")))?;
        }
    }
    Ok(())
}

pub(crate) async fn update(call: Call, Path(id): Path<String>, body: Bytes) -> Result<Response, Problem> {
    call.params(Endpoint::Plain)?;
    super::id_of(&id)?;
    let (value, context) = call.body(&body).await?.into_one()?;
    let change = |present: &Registration| {
        let patched = decode::patched_registration(present, value, &context)?;
        check_addresses(&call, &patched)?;
        Ok::<_, Problem>(patched)
    };
    call.app.node.update_registration(&call.who, &id, change).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(crate) async fn delete(call: Call, Path(id): Path<String>) -> Result<Response, Problem> {
    call.params(Endpoint::Plain)?;
    super::id_of(&id)?;
    call.app.node.unregister(&call.who, &id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(crate) async fn retrieve(call: Call, Path(id): Path<String>) -> Result<Response, Problem> {
    let params = call.params(Endpoint::List)?;
    let document = call.document(false)?;
    super::id_of(&id)?;
    let registered = call.app.node.registration(&call.who, &id)?;
    let shown = show(&registered.registration, &registered, params.view.sys_attrs, &call.context);
    Ok(call.answer(with_context(shown, &call, document), document))
}

/// Discovery: registrations that may have what the parameters ask for, with the parts that match.
pub(crate) async fn query(call: Call) -> Result<Response, Problem> {
    let params = call.params(Endpoint::Registrations)?;
    let document = call.document(false)?;
    let asked = specification(&params, MissingMember::Fails);
    let csf = source_filter(&call)?;
    let mut found = call.app.node.sources(&call.who, &asked)?;
    found.retain(|r| csf.as_ref().is_none_or(|f| f.matches(&r.registration)));
    let total = found.len();
    let shown: Vec<Value> = found
        .iter()
        .skip(params.offset)
        .take(params.limit)
        .map(|r| show(&trimmed(&r.registration, &asked), r, params.view.sys_attrs, &call.context))
        .collect();
    let mut response = call.answer(with_context(Value::Array(shown), &call, document), document);
    if params.count {
        response.headers_mut().insert("ngsild-results-count", HeaderValue::from(total));
    }
    call.add_page_links(&mut response, &params, params.limit > 0 && params.offset + params.limit < total);
    Ok(response)
}

/// Parameter `csf`.
pub(super) fn source_filter(call: &Call) -> Result<Option<SourceFilter>, Problem> {
    let text = call.pairs.iter().find(|(n, _)| n == "csf").map(|(_, v)| v);
    Ok(text.map(|t| SourceFilter::parse(t, &call.context)).transpose()?)
}

/// Only the parts of `information` that match.
pub(crate) fn trimmed(registration: &Registration, asked: &Specification) -> Registration {
    let mut shown = registration.clone();
    if let Some(wanted) = registration.matches(asked) {
        shown.information = wanted.information.into_iter().map(|(_, i)| i.clone()).collect();
    }
    shown
}

/// A registration with what only the node knows (clause 5.2.9).
pub(crate) fn show(registration: &Registration, registered: &Registered, sys_attrs: bool, context: &ngsi::Context) -> Value {
    let status = registered.status();
    let mut more: Vec<(&'static str, Value)> = Vec::new();
    if status.times_sent > 0 {
        more.push(("status", json!(if status.last_failure > status.last_success { "failed" } else { "ok" })));
        more.push(("timesSent", json!(status.times_sent)));
        more.push(("timesFailed", json!(status.times_failed)));
    }
    let mut put = |name, at: Option<entity::Instant>| more.extend(at.map(|at| (name, json!(at.to_string()))));
    put("lastSuccess", status.last_success);
    put("lastFailure", status.last_failure);
    if sys_attrs {
        put("createdAt", Some(registration.created_at));
        put("modifiedAt", Some(registration.modified_at));
    }
    encode::registration(registration, context, more)
}

/// In JSON-LD each document has its context inside.
pub(crate) fn with_context(mut shown: Value, call: &Call, document: encode::Document) -> Vec<u8> {
    if document == encode::Document::LdJson {
        let context = call.context.json();
        let put = |one: &mut Value| {
            if let Some(map) = one.as_object_mut() {
                map.insert("@context".to_owned(), context.clone());
            }
        };
        match &mut shown {
            Value::Array(list) => list.iter_mut().for_each(put),
            one => put(one),
        }
    }
    serde_json::to_vec(&shown).expect("JSON is written to memory")
}

/// `GET /info/sourceIdentity`: by which name this node signs in `Via`.
pub(crate) async fn source_identity(State(app): State<Arc<App>>, call: Call) -> Result<Response, Problem> {
    call.params(Endpoint::Plain)?;
    let document = call.document(false)?;
    let now = app.node.now();
    let uptime_s = now.micros_since(app.node.started_at()).max(0) / 1_000_000;
    let identity = json!({
        "id": format!("urn:ngsi-ld:ContextSourceIdentity:{}", in_path(app.sources.alias())),
        "type": "ContextSourceIdentity",
        "contextSourceAlias": app.sources.alias(),
        "contextSourceUptime": format!("PT{uptime_s}S"),
        "contextSourceTimeAt": now.to_string(),
        "contextSourceExtras": {"program": "conurb", "version": env!("CARGO_PKG_VERSION"), "city": app.node.city().as_str()},
    });
    Ok(call.answer(with_context(identity, &call, document), document))
}
