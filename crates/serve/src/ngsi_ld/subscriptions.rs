//! `/subscriptions` (clauses 5.8, 6.10, 6.11).

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use entity::Instant;
use ngsi::decode;
use ngsi::query::Endpoint;
use node::{DeliveryStatus, Subscription, Trigger};
use serde_json::{Value, json};

use super::{Call, created, in_path};
use crate::notify;
use crate::problem::Problem;

pub(crate) async fn create(call: Call, body: Bytes) -> Result<Response, Problem> {
    call.params(Endpoint::Plain)?;
    let (value, context) = call.body(&body).await?.into_one()?;
    let wished = decode::subscription(value, &context)?;
    check_expiry(&call, wished.expires_at)?;
    let subscription = accept(&call, wished).await?;
    let location = format!("/ngsi-ld/v1/subscriptions/{}", in_path(&subscription.id));
    call.app.node.put_subscription(&call.who, subscription, false).await?;
    Ok(created(&location))
}

pub(crate) async fn update(call: Call, Path(id): Path<String>, body: Bytes) -> Result<Response, Problem> {
    call.params(Endpoint::Plain)?;
    let (current, _) = call.app.node.subscription(&call.who, &id)?;
    let (patch, context) = call.body(&body).await?.into_one()?;
    let current = stored(&current.subscription)?;
    let has = |name: &str| patch.get(name).is_some();
    let (has_expiry, has_active) = (has("expiresAt"), has("isActive"));
    // What the patch leaves alone keeps its meaning, for which its own context must be at hand.
    call.app.contexts.prepare(&current.context).await?;
    let mut wished = decode::patched_subscription(&current, patch, &context)?;
    if has_expiry {
        check_expiry(&call, wished.expires_at)?;
    }
    // A new time of life brings it back, also if it had been paused before it expired (clause 5.8.2.4).
    let was_expired = current.expires_at.is_some_and(|e| e <= call.app.node.now());
    if has_expiry && !has_active && was_expired {
        wished.active = true;
    }
    let subscription = accept(&call, wished).await?;
    call.app.node.put_subscription(&call.who, subscription, true).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn check_expiry(call: &Call, expires_at: Option<Instant>) -> Result<(), Problem> {
    match expires_at.filter(|e| *e <= call.app.node.now()) {
        Some(_) => Err(Problem::bad_data("expiresAt: lies in the past")),
        None => Ok(()),
    }
}

/// Checks what only the edge can: the endpoint's address, the context of the notifications.
async fn accept(call: &Call, mut wished: decode::Subscription) -> Result<Subscription, Problem> {
    let endpoint = &wished.notification.endpoint;
    let wrong_uri = |e: String| Problem::bad_data(format!("notification/endpoint/uri: {e}"));
    let url = call.app.outbound.check_endpoint(&endpoint.uri).map_err(|e| wrong_uri(e.to_string()))?;
    if url.scheme().starts_with("mqtt") {
        notify::check_mqtt(&url, endpoint).map_err(wrong_uri)?;
    }
    call.app.contexts.prepare(&wished.context).await?;
    let id = match &wished.id {
        Some(id) => id.clone(),
        None => entity::Iri::known(&format!("urn:ngsi-ld:Subscription:{}", host::random_hex::<12>())),
    };
    wished.id = Some(id.clone());
    Ok(Subscription {
        id: id.to_string(),
        filter: wished.filter.clone(),
        watched: wished.watched.clone(),
        triggers: wished.triggers.iter().map(|t| trigger(*t)).collect(),
        throttling_us: wished.throttling_s.map(micros),
        interval_us: wished.time_interval_s.map(micros),
        endpoint: wished.notification.endpoint.uri.clone(),
        expires_at: wished.expires_at,
        active: wished.active,
        document: serde_json::to_value(&wished).expect("a subscription is JSON"),
    })
}

#[expect(clippy::cast_possible_truncation, reason = "the codec allows at most a year")]
fn micros(seconds: f64) -> i64 {
    ((seconds * 1e6) as i64).max(1)
}

const fn trigger(t: decode::Trigger) -> Trigger {
    match t {
        decode::Trigger::EntityCreated => Trigger::EntityCreated,
        decode::Trigger::EntityUpdated => Trigger::EntityUpdated,
        decode::Trigger::EntityDeleted => Trigger::EntityDeleted,
        decode::Trigger::AttributeCreated => Trigger::AttributeCreated,
        decode::Trigger::AttributeUpdated => Trigger::AttributeUpdated,
        decode::Trigger::AttributeDeleted => Trigger::AttributeDeleted,
    }
}

pub(crate) async fn list(call: Call) -> Result<Response, Problem> {
    let params = call.params(Endpoint::List)?;
    let document = call.document(false)?;
    let all = call.app.node.subscriptions(&call.who)?;
    let total = all.len();
    let mut shown = Vec::new();
    for (subscription, status) in all.iter().skip(params.offset).take(params.limit) {
        shown.push(show(&call, &subscription.subscription, status)?);
    }
    let mut response = call.answer(serde_json::to_vec(&shown).expect("subscriptions are JSON"), document);
    if params.count {
        response.headers_mut().insert("ngsild-results-count", HeaderValue::from(total));
    }
    call.add_page_links(&mut response, &params, params.limit > 0 && params.offset + params.limit < total);
    Ok(response)
}

pub(crate) async fn retrieve(call: Call, Path(id): Path<String>) -> Result<Response, Problem> {
    call.params(Endpoint::List)?;
    let document = call.document(false)?;
    let (subscription, status) = call.app.node.subscription(&call.who, &id)?;
    let shown = show(&call, &subscription.subscription, &status)?;
    Ok(call.answer(serde_json::to_vec(&shown).expect("a subscription is JSON"), document))
}

pub(crate) async fn delete(call: Call, Path(id): Path<String>) -> Result<Response, Problem> {
    call.params(Endpoint::Plain)?;
    call.app.node.delete_subscription(&call.who, &id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The subscription as it was wished, with what has come of it (clauses 5.2.12, 5.2.14.2).
fn show(call: &Call, subscription: &Subscription, status: &DeliveryStatus) -> Result<Value, Problem> {
    let wished = stored(subscription)?;
    let expired = subscription.expires_at.is_some_and(|e| e <= call.app.node.now());
    let state = if expired {
        "expired"
    } else if subscription.active {
        "active"
    } else {
        "paused"
    };
    let mut told = serde_json::Map::new();
    let mut put = |name: &str, value: Value| told.insert(name.to_owned(), value);
    if status.times_sent > 0 {
        put("status", json!(if status.last_failure > status.last_success { "failed" } else { "ok" }));
        put("timesSent", json!(status.times_sent));
        put("timesFailed", json!(status.times_failed));
    }
    for (name, at) in
        [("lastNotification", status.last_notification), ("lastSuccess", status.last_success), ("lastFailure", status.last_failure)]
    {
        if let Some(at) = at {
            put(name, json!(at.to_string()));
        }
    }
    if status.dropped > 0 {
        put("timesDropped", json!(status.dropped));
    }
    if let Some(error) = &status.last_error {
        put("lastErrorReason", json!(error));
    }
    if let Some(reason) = &status.last_dropped {
        put("lastDroppedReason", json!(reason));
    }
    if status.waiting > 0 {
        put("waiting", json!(status.waiting));
    }
    for (name, at) in [("waitingSince", status.waiting_since), ("nextAttempt", status.next_attempt)] {
        if let Some(at) = at {
            put(name, json!(at.to_string()));
        }
    }
    let more = BTreeMap::from([("status", json!(state)), ("notification", Value::Object(told))]);
    Ok(wished.to_json(&call.context, more))
}

/// The edge's description of a stored subscription.
pub(crate) fn stored(subscription: &Subscription) -> Result<decode::Subscription, Problem> {
    serde_json::from_value(subscription.document.clone()).map_err(|e| {
        let detail = format!("stored subscription `{}` is damaged: {e}", subscription.id);
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", detail)
    })
}
