//! Filling a snapshot with what its queries find, and telling that it is filled.

use std::sync::Arc;
use std::time::Duration;

use entity::{Command, Entity};
use ngsi::Context;
use ngsi::query::{Endpoint, QueryParams, query_body};
use node::{NodeError, PastSearch, QUERY_LIMIT_MAX};
use policy::Principal;

use super::document::{Detail, Document};
use super::{Queries, Snapshot};
use crate::ngsi_ld::entities::query_of;
use crate::ngsi_ld::{Call, forward, temporal};
use crate::problem::Problem;
use crate::{App, chain};

/// How often, and after which pauses, an endpoint is told.
const PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_secs(2), Duration::from_secs(10)];
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Pasts that are copied together.
const PASTS_TOGETHER: usize = 20;

/// Are the queries such as can be run?
pub(super) fn check(document: &Document, context: &Context) -> Result<(), Problem> {
    for (at, list, endpoint) in lists(document) {
        for (i, query) in list.iter().enumerate() {
            query_body(query.clone(), &[], context, endpoint).map_err(|e| Problem::from(e.within(&format!("{at}/{i}"))))?;
        }
    }
    Ok(())
}

fn lists(document: &Document) -> [(&'static str, &Queries, Endpoint); 2] {
    [
        ("snapshotQueries", &document.queries, Endpoint::QueryByBody),
        ("snapshotTemporalQueries", &document.temporal_queries, Endpoint::QueryTemporalByBody),
    ]
}

/// Runs the queries of a snapshot one after the other, as who asked for it, and keeps what they find.
pub(super) async fn fill(snapshot: Arc<Snapshot>, from: Arc<App>, who: Principal, context: Arc<Context>) {
    let document = snapshot.document();
    let call = Call::of_node(from, who, context);
    for (_, list, endpoint) in lists(&document) {
        for query in list {
            let detail = match run(&snapshot, &call, query, endpoint).await {
                Ok(0) => Detail::Empty,
                Ok(_) => Detail::Success,
                Err(problem) => Detail::Failure(problem.detail),
            };
            let noted = snapshot.change(|d| match endpoint {
                Endpoint::QueryByBody => d.details.push(detail),
                _ => d.temporal_details.push(detail),
            });
            if let Err(e) = noted {
                tracing::warn!(snapshot = %document.id, error = %chain(&e), "what is known of a snapshot is not kept");
            }
        }
    }
    finish(&snapshot);
}

fn finish(snapshot: &Snapshot) {
    let now = snapshot.app.node.now();
    match snapshot.change(|d| d.finish(now)) {
        Ok(document) => tell(&snapshot.app, &document),
        Err(e) => tracing::warn!(error = %chain(&e), "what is known of a snapshot is not kept"),
    }
}

/// Runs one query, all pages of it; how many entities it found.
async fn run(snapshot: &Snapshot, call: &Call, query: &serde_json::Value, endpoint: Endpoint) -> Result<usize, Problem> {
    let mut params = query_body(query.clone(), &[], &call.context, endpoint)?;
    if endpoint == Endpoint::QueryTemporalByBody {
        pasts(snapshot, call, &params).await
    } else {
        presents(snapshot, call, &mut params).await
    }
}

async fn presents(snapshot: &Snapshot, call: &Call, params: &mut QueryParams) -> Result<usize, Problem> {
    params.limit = QUERY_LIMIT_MAX;
    let mut n_found = 0;
    loop {
        params.offset = n_found;
        let (page, _) = forward::read::page(call, params, &query_of(params)).await?;
        n_found += page.entities.len();
        let shown = |e: &Entity| {
            let mut e = e.clone();
            e.attributes.retain(|name, _| params.view.shows_attribute(name));
            Command::UpsertUpdate(e)
        };
        let commands: Vec<Command> = page.entities.iter().map(|e| shown(e)).collect();
        if !commands.is_empty() {
            snapshot.app.node.write(&call.who, commands).await?;
        }
        if !page.more || page.entities.is_empty() {
            return Ok(n_found);
        }
    }
}

async fn pasts(snapshot: &Snapshot, call: &Call, params: &QueryParams) -> Result<usize, Problem> {
    let mut n_found = 0;
    loop {
        let search = PastSearch {
            filter: params.filter.clone(),
            past: temporal::past_query(params),
            offset: n_found,
            limit: PASTS_TOGETHER,
            count: false,
            order: None,
        };
        let page = crate::ngsi_ld::entities::past(call, move |node, who| node.search_past(who, &search)).await?;
        if page.cut_at.is_some() {
            let what = format!("{PASTS_TOGETHER} entities have more instances than one answer may have: ask for a shorter time");
            return Err(NodeError::Limit { what }.into());
        }
        n_found += page.entities.len();
        for past in page.entities {
            let attributes = past.attributes.into_iter().map(|(name, list)| (name, list.into())).collect();
            let mut types = past.types.into_iter();
            let Some(first) = types.next() else { continue };
            let mut entity = Entity { attributes, ..Entity::new(past.id, first) };
            entity.types.extend(types);
            snapshot.app.node.provide_past(&call.who, entity).await?;
        }
        if !page.more {
            return Ok(n_found);
        }
    }
}

/// Fills a snapshot with everything that another one has.
pub(super) async fn copy(snapshot: Arc<Snapshot>, origin: Arc<App>, who: Principal) {
    let context = Arc::clone(origin.contexts.store().default_context());
    let call = Call::of_node(origin, who, context);
    let document = snapshot.document();
    let everything = |query: &str| serde_json::json!({"type": "Query", "entities": [{"type": "*"}], "temporalQ": query});
    let mut failed = Vec::new();
    if !document.temporal_queries.is_empty() {
        let mut query = everything("");
        query["temporalQ"] = serde_json::json!({"timerel": "after", "timeAt": "0001-01-01T00:00:00Z", "timeproperty": "modifiedAt"});
        failed.extend(run(&snapshot, &call, &query, Endpoint::QueryTemporalByBody).await.err());
    }
    let mut query = everything("");
    query.as_object_mut().expect("it is an object").remove("temporalQ");
    failed.extend(run(&snapshot, &call, &query, Endpoint::QueryByBody).await.err());
    if let Some(problem) = failed.into_iter().next() {
        let noted = snapshot.change(|d| {
            for detail in d.details.iter_mut().chain(&mut d.temporal_details) {
                *detail = Detail::Failure(problem.detail.clone());
            }
        });
        if let Err(e) = noted {
            tracing::warn!(error = %chain(&e), "what is known of a snapshot is not kept");
        }
    }
    finish(&snapshot);
}

/// Tells the endpoint of a snapshot how it is; in the background, a few times.
pub(super) fn tell(app: &Arc<App>, document: &Document) {
    let Some(endpoint) = document.endpoint.clone() else { return };
    let (app, document) = (Arc::clone(app), document.clone());
    tokio::spawn(async move {
        let mut last = String::new();
        for pause in PAUSES {
            tokio::time::sleep(pause).await;
            let url = match app.outbound.check(&endpoint) {
                Ok(url) => url,
                Err(e) => {
                    last = e.to_string();
                    break;
                }
            };
            let mut request = app.outbound.client().post(url).json(&document.notification(app.node.now())).timeout(ANSWER_WAIT);
            for (name, value) in &document.receiver_info {
                request = request.header(name, value);
            }
            match request.send().await.and_then(reqwest::Response::error_for_status) {
                Ok(_) => return,
                Err(e) => last = chain(&e),
            }
        }
        tracing::warn!(snapshot = %document.id, endpoint, reason = last, "nobody was told of a snapshot");
    });
}
