//! Routes of the platform itself: health, metrics, what the console shows.

use std::sync::{Arc, LazyLock};

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use policy::{Action, Agreement, Selection};
use serde_json::{Value, json};

use crate::App;
use crate::auth::Caller;
use crate::problem::Problem;

/// The header by which a node recognises its own answer.
pub(crate) const INSTANCE: HeaderName = HeaderName::from_static("conurb-instance");

/// Another one in each process.
pub(crate) static INSTANCE_ID: LazyLock<String> = LazyLock::new(host::random_hex::<8>);

/// `GET /healthz`: the process is alive.
pub(crate) async fn healthz() -> impl IntoResponse {
    ([(INSTANCE, INSTANCE_ID.as_str())], "ok\n")
}

/// `GET /readyz`: it takes reads and writes.
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Response {
    let stats = app.node.stats();
    if *app.stop.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n").into_response();
    }
    match stats.write_error {
        None => "ready\n".into_response(),
        Some(e) => (StatusCode::SERVICE_UNAVAILABLE, format!("the last write could not be made durable: {e}\n")).into_response(),
    }
}

/// `GET /metrics`: OpenMetrics.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    app.node.metrics().set_history(&app.node.history_space());
    let text = app.node.metrics().render(&app.node.stats());
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}

/// `GET /openapi.json`.
pub(crate) async fn openapi() -> Json<Value> {
    Json(crate::openapi::openapi())
}

/// `GET /api/v1/tenants`.
pub(crate) async fn tenants(State(app): State<Arc<App>>, Caller(who): Caller) -> Result<Json<Value>, Problem> {
    app.node.permit(&who, Action::Read, None)?;
    Ok(Json(app.tenants.names().iter().map(|name| json!({"name": name.as_str()})).collect()))
}

/// `GET /api/v1/info`.
pub(crate) async fn info(State(app): State<Arc<App>>, Caller(_): Caller) -> Json<Value> {
    let node = &app.node;
    let (stats, history) = (node.stats(), node.history_space());
    Json(json!({
        "city": node.city(),
        "version": env!("CARGO_PKG_VERSION"),
        "dev": app.auth.is_dev(),
        "key": node.key().public().to_string(),
        "publicUrl": {
            "url": app.sources.public_url(),
            "reached": app.sources.reached().map(|r| r.is_ok()),
            "problem": app.sources.reached().and_then(Result::err),
        },
        "startedAt": node.started_at().to_string(),
        "now": node.now().to_string(),
        "entities": stats.n_entities,
        "store": {
            "logBytes": stats.log_bytes,
            "historyBytes": history.iter().map(|(_, _, bytes)| bytes).sum::<u64>(),
            "historyRows": history.iter().map(|(_, rows, _)| rows).sum::<u64>(),
            "firstPosition": stats.first_position,
            "nextPosition": stats.next_position,
            "writeError": stats.write_error,
        },
        "addresses": app.addresses,
    }))
}

/// `GET /api/v1/peers`.
pub(crate) async fn peers(State(app): State<Arc<App>>, Caller(_): Caller) -> Result<Json<Value>, Problem> {
    let context = app.contexts.of_url(None).await?;
    let agreements = app.node.agreements();
    let shown = |a: &Agreement| {
        let short = |list: &[entity::Iri]| list.iter().map(|i| context.compact(i).into_owned()).collect::<Vec<_>>();
        json!({
            "id": a.id,
            "from": a.provider,
            "to": a.consumer,
            "types": short(&a.types),
            "attributes": match &a.attributes { Selection::All => vec!["*".to_owned()], Selection::Only(names) => short(names) },
            "purpose": a.purpose,
            "precisionDecimals": a.position_decimals,
            "validFrom": a.valid_from.to_string(),
            "validUntil": a.valid_until.to_string(),
            "status": a.status,
            "area": a.area.as_ref().map(|g| g.json()),
            "text": {"en": a.describe(policy::Lang::En), "zh": a.describe(policy::Lang::Zh)},
        })
    };
    let list: Vec<Value> = app
        .node
        .peers()
        .into_iter()
        .map(|p| {
            let name = &p.member.name;
            let with = |f: &dyn Fn(&Agreement) -> bool| agreements.iter().filter(|a| f(a)).map(shown).collect::<Vec<_>>();
            json!({
                "city": name,
                "url": p.member.url,
                "key": p.member.key.to_string(),
                "status": p.state.status,
                "since": p.state.since.to_string(),
                "lastSeen": p.state.last_seen.map(|i| i.to_string()),
                "latencyMs": p.state.latency_us.map(|us| us as f64 / 1000.0),
                "error": p.state.last_error,
                "offers": with(&|a| a.provider == *name),
                "receives": with(&|a| a.consumer == *name),
            })
        })
        .collect();
    Ok(Json(Value::Array(list)))
}

/// `GET /api/v1/mqtt/refused`: messages that were not taken in, newest first.
pub(crate) async fn refused(State(app): State<Arc<App>>, Caller(_): Caller) -> Json<Value> {
    Json(json!(app.refused.list()))
}
