//! The live feed: changes as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use entity::{Iri, TypeSelector};
use futures::Stream;
use ngsi::encode;
use node::{Committed, Space};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::App;
use crate::auth::Caller;
use crate::problem::Problem;

/// How often an idle feed says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parameters {
    /// Type selection; none for all.
    #[serde(rename = "type")]
    types: Option<String>,
}

/// `GET /api/v1/live`: `change` events with position and entity, `lagged` when some were lost, `heartbeat` when nothing happens.
pub(crate) async fn feed(
    State(app): State<Arc<App>>,
    Caller(who): Caller,
    Query(parameters): Query<Parameters>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let context = app.contexts.of_url(None).await?;
    let selector = parameters.types.as_deref().map(|t| ngsi::query::parse_types(t, &context)).transpose()?.unwrap_or(TypeSelector::Any);
    let changes = app.node.live(&who)?;
    let state = Feed { changes, waiting: Vec::new().into_iter(), selector, app };
    let events = futures::stream::unfold(state, |mut feed| async move { feed.next().await.map(|event| (Ok(event), feed)) });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT).event(Event::default().event("heartbeat").data("{}"))))
}

struct Feed {
    changes: Receiver<Arc<Vec<Committed>>>,
    waiting: std::vec::IntoIter<Event>,
    selector: TypeSelector,
    app: Arc<App>,
}

impl Feed {
    async fn next(&mut self) -> Option<Event> {
        let mut stop = self.app.stop.clone();
        loop {
            if let Some(event) = self.waiting.next() {
                return Some(event);
            }
            let received = tokio::select! {
                received = self.changes.recv() => received,
                _ = stop.wait_for(|s| *s) => return None,
            };
            match received {
                Ok(batch) => {
                    let events: Vec<_> = batch.iter().filter_map(|c| self.event_of(c)).collect();
                    self.waiting = events.into_iter();
                }
                Err(RecvError::Lagged(n_batches)) => {
                    return Some(Event::default().event("lagged").data(json!({"batches": n_batches}).to_string()));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn event_of(&self, change: &Committed) -> Option<Event> {
        let entity = change.after.as_ref().or(change.before.as_ref())?;
        let types: &[Iri] = &entity.types;
        if change.space != Space::City || !self.selector.matches(types) {
            return None;
        }
        let context = self.app.contexts.store().default_context();
        let shown = encode::entity(entity, &ngsi::View::default(), context, encode::Document::Json);
        let shown = String::from_utf8(shown).ok()?;
        let data = format!(r#"{{"position":{},"deleted":{},"entity":{shown}}}"#, change.position, change.after.is_none());
        Some(Event::default().event("change").id(change.position.to_string()).data(data))
    }
}
