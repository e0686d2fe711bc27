//! `/csourceSubscriptions` (clauses 5.3.2, 5.3.3, 5.11, 6.12, 6.13): who wants to be told of registrations, and telling them.
//!
//! One task follows what happens to registrations; each subscriber is told by a task of its own, in order, over HTTP. What waits is lost when the
//! node ends; after the next change of the subscription everything that matches is told anew.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use entity::Iri;
use entity::registration::{MissingMember, Registration, Selected, Specification};
use ngsi::decode::{self, NotificationFormat, Subscription};
use ngsi::query::Endpoint;
use node::{Follower, Registered, RegistryChange, RegistryEvent};
use policy::Principal;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};

use super::registrations::{show as show_registration, trimmed, with_context};
use super::{Call, created, id_of, in_path};
use crate::problem::Problem;
use crate::{App, chain};

/// Notifications of one subscriber that may wait; more are dropped and counted.
const WAITING_MAX: usize = 256;
/// How often a notification is tried.
const ATTEMPTS_MAX: u32 = 5;
/// The pause after the first failure; it doubles.
const PAUSE: Duration = Duration::from_millis(200);
/// How long an endpoint may take if the subscription does not say.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

pub(crate) async fn create(call: Call, body: Bytes) -> Result<Response, Problem> {
    call.params(Endpoint::Plain)?;
    let (value, context) = call.body(&body).await?.into_one()?;
    let mut wished = decode::subscription(value, &context)?;
    let new_id = || Iri::known(&format!("urn:ngsi-ld:ContextSourceSubscription:{}", host::random_hex::<12>()));
    let id = wished.id.get_or_insert_with(new_id).clone();
    accept(&call, &wished, true).await?;
    call.app.node.put_follower(&call.who, &id, document(&wished), false).await?;
    Ok(created(&format!("/ngsi-ld/v1/csourceSubscriptions/{}", in_path(id.as_str()))))
}

pub(crate) async fn update(call: Call, Path(id): Path<String>, body: Bytes) -> Result<Response, Problem> {
    call.params(Endpoint::Plain)?;
    let id = id_of(&id)?;
    let current = stored(&*call.app.node.follower(&call.who, id.as_str())?)?;
    let (patch, context) = call.body(&body).await?.into_one()?;
    let has_expiry = patch.get("expiresAt").is_some();
    call.app.contexts.prepare(&current.context).await?;
    let wished = decode::patched_subscription(&current, patch, &context)?;
    accept(&call, &wished, has_expiry).await?;
    call.app.node.put_follower(&call.who, &id, document(&wished), true).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn document(wished: &Subscription) -> Value {
    serde_json::to_value(wished).expect("a subscription is JSON")
}

/// Checks what only the edge can.
async fn accept(call: &Call, wished: &Subscription, has_expiry: bool) -> Result<(), Problem> {
    if has_expiry && wished.expires_at.is_some_and(|e| e <= call.app.node.now()) {
        return Err(Problem::bad_data("expiresAt: lies in the past"));
    }
    if wished.time_interval_s.is_some() || wished.throttling_s.is_some() {
        return Err(Problem::bad_data("timeInterval and throttling of registration subscriptions are not supported by this node"));
    }
    if wished.notification.endpoint.accept == NotificationFormat::GeoJson {
        return Err(Problem::bad_data("notification/endpoint/accept: registrations are application/json or application/ld+json"));
    }
    call.app.outbound.check(&wished.notification.endpoint.uri).map_err(|e| Problem::bad_data(format!("notification/endpoint/uri: {e}")))?;
    call.app.contexts.prepare(&wished.context).await
}

pub(crate) async fn list(call: Call) -> Result<Response, Problem> {
    let params = call.params(Endpoint::List)?;
    let document = call.document(false)?;
    let all = call.app.node.followers(&call.who)?;
    let shown = all.iter().skip(params.offset).take(params.limit).map(|f| show(&call, f)).collect::<Result<Vec<_>, _>>()?;
    let mut response = call.answer(with_context(Value::Array(shown), &call, document), document);
    if params.count {
        response.headers_mut().insert("ngsild-results-count", HeaderValue::from(all.len()));
    }
    call.add_page_links(&mut response, &params, params.limit > 0 && params.offset + params.limit < all.len());
    Ok(response)
}

pub(crate) async fn retrieve(call: Call, Path(id): Path<String>) -> Result<Response, Problem> {
    call.params(Endpoint::List)?;
    let document = call.document(false)?;
    let follower = call.app.node.follower(&call.who, id_of(&id)?.as_str())?;
    Ok(call.answer(with_context(show(&call, &follower)?, &call, document), document))
}

pub(crate) async fn delete(call: Call, Path(id): Path<String>) -> Result<Response, Problem> {
    call.params(Endpoint::Plain)?;
    call.app.node.delete_follower(&call.who, id_of(&id)?.as_str()).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn stored(follower: &Follower) -> Result<Subscription, Problem> {
    serde_json::from_value(follower.document.clone()).map_err(|e| {
        let detail = format!("stored registration subscription `{}` is damaged: {e}", follower.id);
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", detail)
    })
}

/// The subscription as it was wished, with what has come of it.
fn show(call: &Call, follower: &Follower) -> Result<Value, Problem> {
    let wished = stored(follower)?;
    let status = follower.status();
    let has_expired = wished.expires_at.is_some_and(|e| e <= call.app.node.now());
    let state = match (has_expired, wished.active) {
        (true, _) => "expired",
        (false, true) => "active",
        (false, false) => "paused",
    };
    let mut told = Map::new();
    if status.times_sent > 0 {
        told.insert("status".to_owned(), json!(if status.last_failure > status.last_success { "failed" } else { "ok" }));
        told.insert("timesSent".to_owned(), json!(status.times_sent));
        told.insert("timesFailed".to_owned(), json!(status.times_failed));
    }
    let times =
        [("lastNotification", status.last_notification), ("lastSuccess", status.last_success), ("lastFailure", status.last_failure)];
    told.extend(times.into_iter().filter_map(|(name, at)| Some((name.to_owned(), json!(at?.to_string())))));
    if status.dropped > 0 {
        told.insert("timesDropped".to_owned(), json!(status.dropped));
    }
    told.extend(status.last_error.map(|e| ("lastErrorReason".to_owned(), json!(e))));
    Ok(wished.to_json(&call.context, BTreeMap::from([("status", json!(state)), ("notification", Value::Object(told))])))
}

/// What a subscription looks for in registrations (clause 5.12).
fn specification(wished: &Subscription) -> Specification {
    let selected = |e: &decode::EntitySelector| Selected {
        types: Some(e.types.clone()),
        ids: e.ids.clone(),
        id_pattern: e.id_pattern.clone().filter(|_| e.ids.is_empty()),
    };
    // Whoever is told everything about an entity follows every source of it.
    let mut attributes: Vec<Iri> = wished.notification.attributes.clone().unwrap_or_default();
    if !attributes.is_empty() || wished.entities.is_empty() {
        attributes.extend(wished.watched.iter().flatten().cloned());
    }
    Specification {
        entities: wished.entities.iter().map(selected).collect(),
        attributes,
        dataset_ids: wished.dataset_ids.clone(),
        geo: wished.conditions.geo.iter().cloned().collect(),
        scope: wished.conditions.scope.clone(),
        time: None,
        missing: MissingMember::Fits,
    }
}

/// Something to tell a subscriber.
struct Notice {
    follower: Arc<Follower>,
    wished: Subscription,
    data: Vec<Arc<Registered>>,
    reason: &'static str,
}

/// Tells those who follow registrations, until `stop` turns true.
pub(crate) async fn deliver(app: Weak<App>, mut events: broadcast::Receiver<RegistryEvent>, mut stop: watch::Receiver<bool>) {
    let mut queues: HashMap<String, mpsc::Sender<Notice>> = HashMap::new();
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            _ = stop.wait_for(|s| *s) => return,
        };
        let Some(node) = app.upgrade() else { return };
        let followers = node.node.all_followers();
        let notices: Vec<Notice> = match event {
            Ok(RegistryEvent::Registration(change)) => followers.into_iter().filter_map(|f| of_change(&node, f, &change)).collect(),
            Ok(RegistryEvent::Subscribed(id)) => {
                followers.into_iter().filter(|f| f.id == id).filter_map(|f| of_everything(&node, f)).collect()
            }
            // What was missed is told with everything that matches now.
            Err(RecvError::Lagged(_)) => followers.into_iter().filter_map(|f| of_everything(&node, f)).collect(),
            Err(RecvError::Closed) => return,
        };
        queues.retain(|_, queue| !queue.is_closed());
        for notice in notices {
            let queue = queues.entry(notice.follower.id.clone()).or_insert_with(|| {
                let (sender, inbox) = mpsc::channel(WAITING_MAX);
                tokio::spawn(tell_in_order(Weak::clone(&app), inbox, stop.clone()));
                sender
            });
            let follower = Arc::clone(&notice.follower);
            if queue.try_send(notice).is_err() {
                follower.note(|s| {
                    s.dropped += 1;
                    s.last_error = Some("the endpoint takes notifications more slowly than they arise".to_owned());
                });
            }
        }
    }
}

fn active(app: &App, follower: &Follower) -> Option<Subscription> {
    let wished = stored(follower).ok()?;
    (wished.active && wished.expires_at.is_none_or(|e| e > app.node.now())).then_some(wished)
}

fn of_change(app: &App, follower: Arc<Follower>, change: &RegistryChange) -> Option<Notice> {
    let wished = active(app, &follower)?;
    let asked = specification(&wished);
    let fits = |r: &Option<Arc<Registered>>| r.as_ref().is_some_and(|r| r.registration.matches(&asked).is_some());
    let (registered, reason) = match (fits(&change.before), fits(&change.after)) {
        (false, true) => (change.after.as_ref()?, "newlyMatching"),
        (true, true) => (change.after.as_ref()?, "updated"),
        // What no longer matches is told as it is now, or as it was last.
        (true, false) => (change.after.as_ref().or(change.before.as_ref())?, "noLongerMatching"),
        (false, false) => return None,
    };
    Some(Notice { follower, wished, data: vec![Arc::clone(registered)], reason })
}

fn of_everything(app: &App, follower: Arc<Follower>) -> Option<Notice> {
    let wished = active(app, &follower)?;
    let who = Principal::Operator { name: "registration subscriptions".to_owned() };
    let data = app.node.sources(&who, &specification(&wished)).ok()?;
    (!data.is_empty()).then_some(Notice { follower, wished, data, reason: "newlyMatching" })
}

async fn tell_in_order(app: Weak<App>, mut inbox: mpsc::Receiver<Notice>, mut stop: watch::Receiver<bool>) {
    while let Some(notice) = inbox.recv().await {
        let mut pause = PAUSE;
        for attempt in 1..=ATTEMPTS_MAX {
            let Some(app) = app.upgrade() else { return };
            let outcome = post(&app, &notice).await;
            let now = app.node.now();
            drop(app);
            notice.follower.note(|s| {
                s.times_sent += 1;
                s.last_notification = Some(now);
                match &outcome {
                    Ok(()) => (s.last_success, s.last_error) = (Some(now), None),
                    Err(e) => {
                        s.times_failed += 1;
                        s.last_failure = Some(now);
                        s.last_error = Some(e.clone());
                        s.dropped += u64::from(attempt == ATTEMPTS_MAX);
                    }
                }
            });
            if outcome.is_ok() {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause *= 2,
                _ = stop.wait_for(|s| *s) => return,
            }
        }
    }
}

async fn post(app: &App, notice: &Notice) -> Result<(), String> {
    let wished = &notice.wished;
    app.contexts.prepare(&wished.context).await.map_err(|p| p.detail)?;
    let context = app.contexts.store().resolve(&wished.context).map_err(|e| e.to_string())?;
    let asked = specification(wished);
    let shown = |r: &Arc<Registered>| {
        let registration: Registration = trimmed(&r.registration, &asked);
        show_registration(&registration, r, wished.notification.sys_attrs, &context)
    };
    let mut body = json!({
        "id": format!("urn:ngsi-ld:Notification:{}", host::random_hex::<12>()),
        "type": "ContextSourceNotification",
        "subscriptionId": notice.follower.id,
        "notifiedAt": app.node.now().to_string(),
        "data": notice.data.iter().map(shown).collect::<Vec<_>>(),
        "triggerReason": notice.reason,
    });
    let endpoint = &wished.notification.endpoint;
    // Checked again: the node may have been restarted with another configuration.
    let url = app.outbound.check(&endpoint.uri).map_err(|e| e.to_string())?;
    let mut request = app.outbound.client().post(url).timeout(endpoint.timeout_ms.map_or(ANSWER_WAIT, Duration::from_millis));
    if endpoint.accept == NotificationFormat::LdJson {
        body["@context"] = context.json();
    } else {
        let target = context.url().unwrap_or(ngsi::context::CORE_CONTEXT_URL);
        request = request.header("link", format!("<{target}>; rel=\"http://www.w3.org/ns/json-ld#context\"; type=\"application/ld+json\""));
    }
    if let Some(tenant) = &app.tenant {
        request = request.header("ngsild-tenant", tenant.as_str());
    }
    for pair in &endpoint.receiver_info {
        request = request.header(&pair.key, &pair.value);
    }
    let request = request.header("content-type", endpoint.accept.media_type()).body(body.to_string());
    let response = request.send().await.map_err(|e| chain(&e))?;
    if response.status().is_success() { Ok(()) } else { Err(format!("the endpoint answered {}", response.status())) }
}
