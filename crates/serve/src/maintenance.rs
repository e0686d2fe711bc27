//! Routes of the one who runs the node: the change feed, backup, verification, room on disk.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use entity::{Attribute, Delta, Entity, Iri};
use ngsi::{Context, View, encode};
use node::{Change, ErasedInstances, ErasedTimes, Space};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::App;
use crate::auth::Caller;
use crate::problem::Problem;

/// Parameters of `GET /api/v1/changes`.
pub(crate) const CHANGES_PARAMETERS: &[&str] = &["from", "limit", "wait"];
/// Changes in one answer if no limit is given.
const CHANGES_DEFAULT: usize = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangesParameters {
    /// The position to begin at: `next` of the answer before.
    from: u64,
    limit: Option<usize>,
    /// Seconds to wait if there is no change yet.
    #[serde(default)]
    wait: u64,
}

/// `GET /api/v1/changes`: `changes`, `next` (where to go on) and `first` (the oldest position that can be read).
pub(crate) async fn changes(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    parameters: Result<Query<ChangesParameters>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(asked) = parameters.map_err(|e| {
        Problem::invalid_request(format!(
            "expected `from=<position>`, and if wanted `limit` and `wait=<seconds>`, all whole numbers: {}",
            e.body_text()
        ))
    })?;
    let mut stop = app.stop.clone();
    let wait = Duration::from_secs(asked.wait);
    let found = tokio::select! {
        found = app.node.wait_for_changes(&who, asked.from, asked.limit.unwrap_or(CHANGES_DEFAULT), wait) => found?,
        // Who waits is not to keep the node from ending.
        _ = stop.wait_for(|s| *s) => app.node.changes(&who, asked.from, 1)?,
    };
    let context = app.contexts.of_url(None).await?;
    let shown: Vec<Value> = found.changes.iter().filter(|c| c.space == Space::City).map(|c| change_json(c, &context)).collect();
    Ok(Json(json!({"changes": shown, "next": found.next, "first": found.first})).into_response())
}

fn change_json(change: &Change, context: &Context) -> Value {
    let entities: Vec<Value> = change.deltas.iter().map(|d| delta_json(d, context)).collect();
    let mut json = json!({"position": change.position, "recordedAt": change.recorded_at.to_string(), "entities": entities});
    if let Ok(Some(rows)) = change.bulk_rows() {
        let ids: Vec<&str> = rows.entity_idxs().iter().map(|&i| rows.entities()[i as usize].as_str()).collect();
        let times: Vec<String> = rows.observed_us().iter().map(|&us| entity::Instant::from_micros(us).to_string()).collect();
        let mut attributes = Map::new();
        for (idx, name) in rows.attributes().iter().enumerate() {
            let values: Vec<Value> = (0..ids.len()).map(|row| rows.value(idx, row).unwrap_or_default()).collect();
            attributes.insert(context.compact(name).into_owned(), json!({"unitCode": rows.unit_code(idx), "values": values}));
        }
        json["rows"] = json!({"type": context.compact(rows.entity_type()), "id": ids, "observedAt": times, "attributes": attributes});
    }
    if let Some(erasure) = &change.erasure {
        let mut erased = json!({"type": context.compact(&erasure.entity_type)});
        if let Some(entity) = &erasure.entity {
            erased["id"] = json!(entity);
        }
        if let Some(attribute) = &erasure.attribute {
            erased["attribute"] = json!(context.compact(attribute));
        }
        if let ErasedInstances::Of(dataset_id) = &erasure.instances {
            erased["datasetId"] = json!(dataset_id);
        }
        let (property, range) = match &erasure.times {
            ErasedTimes::All => (None, None),
            ErasedTimes::Observed(range) => (Some("observedAt"), Some(range)),
            ErasedTimes::Recorded(range) => (Some("recordedAt"), Some(range)),
        };
        if let (Some(property), Some(range)) = (property, range) {
            erased[property] = json!([range.start.to_string(), range.end.to_string()]);
        }
        json["erased"] = erased;
    }
    json
}

fn delta_json(delta: &Delta, context: &Context) -> Value {
    let mut json = json!({"id": delta.id});
    if delta.delete {
        json["deleted"] = json!(true);
        return json;
    }
    if delta.clear {
        json["replaced"] = json!(true);
    }
    if !delta.types.is_empty() {
        json["type"] = delta.types.iter().map(|t| context.compact(t).into_owned()).collect();
    }
    if let Some(scopes) = &delta.scopes {
        json["scope"] = scopes.iter().map(|s| s.as_str()).collect();
    }
    if !delta.put.is_empty() {
        json["set"] = attributes_json(delta, &delta.put, context);
    }
    if !delta.late.is_empty() {
        json["late"] = delta.late.iter().map(|late| attributes_json(delta, std::slice::from_ref(late), context)).collect();
    }
    if !delta.remove.is_empty() {
        json["removed"] =
            delta.remove.iter().map(|(name, dataset_id)| json!({"name": context.compact(name), "datasetId": dataset_id})).collect();
    }
    if let Some(at) = delta.expires_at {
        json["expiresAt"] = at.map_or(Value::Null, |at| json!(at.to_string()));
    }
    json
}

/// Attributes as NGSI-LD writes them, normalized.
fn attributes_json(delta: &Delta, attributes: &[(Iri, Arc<Attribute>)], context: &Context) -> Value {
    let mut fragment = Entity::new(delta.id.clone(), Iri::known(entity::LOCATION));
    for (name, attribute) in attributes {
        fragment.put(name.clone(), Arc::clone(attribute));
    }
    let bytes = encode::entity(&fragment, &View::default(), context, encode::Document::Json);
    let mut json: Map<String, Value> = serde_json::from_slice(&bytes).unwrap_or_default();
    json.retain(|name, _| name != "id" && name != "type");
    Value::Object(json)
}

/// What blocks goes to a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    app: Arc<App>,
    work: impl FnOnce(&App) -> Result<T, node::NodeError> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(move || work(&app)).await;
    done.map_err(|e| Problem::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "InternalError", e.to_string()))?.map_err(Problem::from)
}

/// `GET /api/v1/space`.
pub(crate) async fn space(State(app): State<Arc<App>>, Caller(who): Caller) -> Result<Response, Problem> {
    let report = blocking(app, move |app| app.node.space(&who)).await?;
    let total = report.total_bytes();
    let mut json = serde_json::to_value(report).unwrap_or_default();
    json["totalBytes"] = json!(total);
    Ok(Json(json).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct BackupBody {
    to: String,
    /// So many of the newest backups stay.
    #[serde(default)]
    keep: Option<usize>,
    /// Those of the last so many days stay.
    #[serde(default)]
    keep_days: Option<u32>,
}

/// `POST /api/v1/backup`: answers once the backup is complete.
pub(crate) async fn backup(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    body: Result<Json<BackupBody>, axum::extract::rejection::JsonRejection>,
) -> Result<Response, Problem> {
    let Json(BackupBody { to, keep, keep_days }) = body.map_err(|e| {
        let expected = "{\"to\": \"<folder or s3://bucket/prefix>\"}, and \"keep\" or \"keepDays\" to remove old ones";
        Problem::invalid_request(format!("expected {expected}: {}", e.body_text()))
    })?;
    let keep = node::Keep { newest: keep, days: keep_days };
    let made = blocking(app, move |app| app.node.backup(&who, &to, &keep)).await?;
    Ok(Json(made).into_response())
}

/// `GET /api/v1/backups`: what is under way, the last success and the last failure.
pub(crate) async fn backups(State(app): State<Arc<App>>, Caller(who): Caller) -> Result<Response, Problem> {
    Ok(Json(app.node.backups(&who)?).into_response())
}

/// `POST /api/v1/verify`: 200 also if something is wrong; `findings` says what.
pub(crate) async fn verify(State(app): State<Arc<App>>, Caller(who): Caller) -> Result<Response, Problem> {
    let report = blocking(app, move |app| app.node.verify(&who)).await?;
    if !report.is_clean() {
        tracing::error!(n_findings = report.n_findings, first = ?report.findings.first(), "the verification found damage");
    }
    Ok(Json(report).into_response())
}
