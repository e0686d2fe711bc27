//! Snapshots: what queries found at one time, kept as a city of its own for as long as it is wanted (ETSI GS CIM 009 V1.9.1, clauses 4.3.7,
//! 5.2.41, 5.5.15, 5.16 and 6.36 to 6.38). Each has a node in a folder below that of the node or tenant.

mod document;
mod fill;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use axum::body::Bytes;
use axum::extract::Path;
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use entity::{Instant, Iri};
use host::{Disk, RealDisk};
use node::Node;
use policy::{Action, Principal};
use serde_json::Value;

use self::document::{Document, Status};
use super::{Call, created, id_of, in_path};
use crate::folders::Folder;
use crate::problem::Problem;
use crate::{App, chain, housekeeping, notify};

/// The header that names a snapshot.
pub(crate) const SNAPSHOT: HeaderName = HeaderName::from_static("ngsild-snapshot");

/// Snapshots of a node or tenant. One more takes the place of one of the lowest priority, if that is not above its own.
const SNAPSHOTS_MAX: usize = 16;

/// The folder of the snapshots' folders, and the file that says in each what it is.
const DIR: &str = "snapshots";
const FILE: &str = "snapshot.json";

/// The snapshots of a node or tenant.
#[derive(Default)]
pub struct Snapshots {
    by_id: RwLock<BTreeMap<Iri, Arc<Snapshot>>>,
    /// Held while one is made or taken away.
    changing: tokio::sync::Mutex<()>,
}

/// One of them.
struct Snapshot {
    app: Arc<App>,
    document: Mutex<Document>,
}

impl Snapshot {
    fn document(&self) -> Document {
        self.document.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is known of it, and keeps that.
    fn change(&self, change: impl FnOnce(&mut Document)) -> std::io::Result<Document> {
        let mut document = self.document.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut document);
        keep(&self.app.folder, &document)?;
        Ok(document.clone())
    }
}

/// Durable when this returns.
fn keep(folder: &Folder, document: &Document) -> std::io::Result<()> {
    let (file, new) = (folder.path().join(FILE), folder.path().join("snapshot.new"));
    match RealDisk.remove(&new) {
        // A crash may have left one.
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut written = RealDisk.open_append(&new)?;
    written.append(&serde_json::to_vec(document)?)?;
    written.sync()?;
    RealDisk.rename(&new, &file)
}

impl Snapshots {
    fn all(&self) -> Vec<Arc<Snapshot>> {
        self.by_id.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn find(&self, id: &Iri, now: Instant) -> Result<Arc<Snapshot>, Problem> {
        let found = self.by_id.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        let missing = || Problem::new(StatusCode::NOT_FOUND, "ResourceNotFound", format!("there is no snapshot `{id}` (any more)"));
        found.filter(|s| s.document().expires_at > now).ok_or_else(missing)
    }

    /// Opens those that there are. One that cannot be opened is left where it is, and said.
    pub async fn open_all(&self, app: &Arc<App>) {
        let folder = app.folder.below(DIR);
        let names = folder.names().unwrap_or_else(|e| {
            tracing::error!(error = %chain(&e), "the snapshots cannot be read");
            Vec::new()
        });
        for name in names {
            let folder = folder.below(&name);
            let read = std::fs::read(folder.path().join(FILE)).map_err(|e| e.to_string());
            let document = read.and_then(|bytes| serde_json::from_slice::<Document>(&bytes).map_err(|e| e.to_string()));
            let opened = match document {
                Ok(mut document) => {
                    if document.status == Status::Preparing {
                        // What was filling it is gone.
                        document.interrupted();
                    }
                    self.open(app, folder, document).await.map(drop)
                }
                Err(reason) => Err(reason),
            };
            if let Err(reason) = opened {
                tracing::error!(snapshot = name, reason, "a snapshot cannot be opened");
            }
        }
    }

    async fn open(&self, app: &Arc<App>, folder: Folder, document: Document) -> Result<Arc<Snapshot>, String> {
        let opening = folder.clone();
        let node = tokio::task::spawn_blocking(move || opening.open()).await.map_err(|e| e.to_string())??;
        let app = Arc::new(app.of_snapshot(document.id.clone(), folder, Arc::new(node)));
        tokio::spawn(notify::deliver(Arc::clone(&app), app.stop.clone()));
        tokio::spawn(housekeeping::remove_expired(Arc::clone(&app), app.stop.clone()));
        let snapshot = Arc::new(Snapshot { app, document: Mutex::new(document) });
        let id = snapshot.document().id;
        self.by_id.write().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// What serves a snapshot; it counts as used now.
    pub(crate) fn app_of(&self, id: &Iri, now: Instant) -> Result<Arc<App>, Problem> {
        let snapshot = self.find(id, now)?;
        snapshot.document.lock().unwrap_or_else(PoisonError::into_inner).last_used_at = Some(now);
        Ok(Arc::clone(&snapshot.app))
    }

    /// Makes one. Errors: its id is taken, there are too many, or the disk refuses.
    async fn make(&self, app: &Arc<App>, document: Document) -> Result<Arc<Snapshot>, Problem> {
        let _changing = self.changing.lock().await;
        let all = self.all();
        if all.iter().any(|s| s.document().id == document.id) {
            return Err(Problem::new(StatusCode::CONFLICT, "AlreadyExists", format!("snapshot `{}` already exists", document.id)));
        }
        if all.len() >= SNAPSHOTS_MAX {
            let least = all.iter().min_by_key(|s| {
                let d = s.document();
                (d.priority, d.last_used_at.unwrap_or(d.created_at))
            });
            match least.filter(|s| s.document().priority <= document.priority) {
                Some(least) => self.remove(least).await?,
                None => {
                    let detail = format!("there are {SNAPSHOTS_MAX} snapshots of higher priority, which is the limit");
                    return Err(Problem::new(StatusCode::FORBIDDEN, "TooManyResults", detail));
                }
            }
        }
        let folder = app.folder.below(DIR).below(&host::random_hex::<12>());
        let failed =
            |e: std::io::Error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", format!("no snapshot was made: {e}"));
        std::fs::create_dir_all(folder.path()).and_then(|()| keep(&folder, &document)).map_err(failed)?;
        let opened = self.open(app, folder, document).await;
        opened.map_err(|reason| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", format!("no snapshot was made: {reason}")))
    }

    /// Takes one away with all that it has, and tells its endpoint.
    async fn remove(&self, snapshot: &Arc<Snapshot>) -> Result<(), Problem> {
        let document = snapshot.document();
        self.by_id.write().unwrap_or_else(PoisonError::into_inner).remove(&document.id);
        let (app, dir) = (Arc::clone(&snapshot.app), snapshot.app.folder.path().to_owned());
        let removed = tokio::task::spawn_blocking(move || {
            // What it holds is thrown away: that its last checkpoint fails does not matter.
            let _ = app.node.close();
            std::fs::remove_dir_all(dir)
        });
        if let Ok(Err(e)) = removed.await {
            tracing::warn!(snapshot = %document.id, error = %chain(&e), "the folder of a snapshot stays");
        }
        fill::tell(&snapshot.app, &document.gone(snapshot.app.node.now()));
        Ok(())
    }

    /// Takes away those whose time is over.
    pub(crate) async fn remove_expired(&self, now: Instant) {
        for snapshot in self.all().into_iter().filter(|s| s.document().expires_at <= now) {
            let _changing = self.changing.lock().await;
            if let Err(e) = self.remove(&snapshot).await {
                tracing::warn!(error = e.detail, "a snapshot whose time is over is not removed");
            }
        }
    }

    /// Takes out their nodes, to be closed when the node stops.
    pub fn take_nodes(&self) -> Vec<Arc<Node>> {
        let all = std::mem::take(&mut *self.by_id.write().unwrap_or_else(PoisonError::into_inner));
        all.into_values().map(|s| Arc::clone(&s.app.node)).collect()
    }
}

fn may(call: &Call, action: Action) -> Result<(), Problem> {
    call.app.node.permit(&call.who, action, None)?;
    Ok(())
}

/// `POST /snapshots`: made at once, filled in the background.
pub(crate) async fn create(call: Call, body: Bytes) -> Result<Response, Problem> {
    may(&call, Action::Write)?;
    let (value, context) = call.body(&body).await?.into_one()?;
    let document = Document::read(value, &context, call.app.node.now(), true)?;
    if let Some(endpoint) = &document.endpoint {
        call.app.outbound.check(endpoint).map_err(|e| Problem::bad_data(format!("endpoint: {e}")))?;
    }
    fill::check(&document, &context)?;
    let id = document.id.clone();
    let snapshot = call.app.snapshots.make(&call.app, document).await?;
    tokio::spawn(fill::fill(snapshot, Arc::clone(&call.app), call.who.clone(), context));
    Ok(created(&format!("/ngsi-ld/v1/snapshots/{}", in_path(id.as_str()))))
}

/// `POST /snapshots/{id}/clone`: another one with what this one has now.
pub(crate) async fn clone(call: Call, Path(id): Path<String>, body: Bytes) -> Result<Response, Problem> {
    may(&call, Action::Write)?;
    let now = call.app.node.now();
    let origin = call.app.snapshots.find(&id_of(&id)?, now)?;
    let (value, context) = call.body(&body).await?.into_one()?;
    let mut document = Document::read(value, &context, now, false)?;
    document.take_queries_of(&origin.document());
    let id = document.id.clone();
    let snapshot = call.app.snapshots.make(&call.app, document).await?;
    let operator = Principal::Operator { name: "snapshot".to_owned() };
    tokio::spawn(fill::copy(snapshot, Arc::clone(&origin.app), operator));
    Ok(created(&format!("/ngsi-ld/v1/snapshots/{}", in_path(id.as_str()))))
}

/// `GET /snapshots/{id}`.
pub(crate) async fn retrieve(call: Call, Path(id): Path<String>) -> Result<Response, Problem> {
    may(&call, Action::Read)?;
    let snapshot = call.app.snapshots.find(&id_of(&id)?, call.app.node.now())?;
    answer(&call, &snapshot.document())
}

fn answer(call: &Call, document: &Document) -> Result<Response, Problem> {
    Ok(call.answer(document.json().to_string().into_bytes(), call.document(false)?))
}

/// `PATCH /snapshots/{id}`: lifetime, priority and endpoint can be changed.
pub(crate) async fn update(call: Call, Path(id): Path<String>, body: Bytes) -> Result<Response, Problem> {
    may(&call, Action::Write)?;
    let now = call.app.node.now();
    let snapshot = call.app.snapshots.find(&id_of(&id)?, now)?;
    let (value, _) = call.body(&body).await?.into_one()?;
    let changed = snapshot.document().patched(&value, now)?;
    if let Some(endpoint) = &changed.endpoint {
        call.app.outbound.check(endpoint).map_err(|e| Problem::bad_data(format!("endpoint: {e}")))?;
    }
    let failed =
        |e: std::io::Error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", format!("the snapshot was not changed: {e}"));
    let document = snapshot.change(|d| d.take_settings_of(&changed)).map_err(failed)?;
    answer(&call, &document)
}

/// `DELETE /snapshots/{id}`.
pub(crate) async fn delete(call: Call, Path(id): Path<String>) -> Result<Response, Problem> {
    may(&call, Action::Write)?;
    let snapshots = &call.app.snapshots;
    let _changing = snapshots.changing.lock().await;
    let snapshot = snapshots.find(&id_of(&id)?, call.app.node.now())?;
    snapshots.remove(&snapshot).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `DELETE /snapshots?q=`: those of which `q` holds, over the members of snapshots.
pub(crate) async fn purge(call: Call) -> Result<Response, Problem> {
    may(&call, Action::Write)?;
    if let Some((name, _)) = call.pairs.iter().find(|(name, _)| name != "q") {
        return Err(Problem::invalid_request(format!("parameter {name}: is not a parameter here (expected q)")));
    }
    let q = call.pairs.iter().find(|(name, _)| name == "q").map(|(_, q)| q.as_str());
    let q = q.ok_or_else(|| Problem::bad_data("parameter q is needed"))?;
    let core = call.app.contexts.store().core_context();
    let filter = document::condition(q, core)?;
    let now = call.app.node.now();
    let snapshots = &call.app.snapshots;
    let _changing = snapshots.changing.lock().await;
    let chosen: Vec<_> =
        snapshots.all().into_iter().filter(|s| s.document().expires_at > now && filter.matches(&s.document().as_entity(core))).collect();
    if chosen.is_empty() {
        return Err(Problem::new(StatusCode::NOT_FOUND, "ResourceNotFound", "there is no such snapshot"));
    }
    for snapshot in &chosen {
        snapshots.remove(snapshot).await?;
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The queries of a snapshot as they were given.
type Queries = Vec<Value>;
