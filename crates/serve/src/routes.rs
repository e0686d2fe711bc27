//! The table of routes: the router and the OpenAPI description are both made from it, so neither can miss one.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{Method, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use ngsi::query::Endpoint;

use crate::binding::{Around, Origins, around, empty};
use crate::ngsi_ld::{
    batch, cluster, contexts, csource_subscriptions, discovery, entities, entity_maps, registrations, snapshots, subscriptions, temporal,
    temporal_write,
};
use crate::problem::Problem;
use crate::{App, bulk, bulk_export, console, deliveries, history, live, maintenance, peer, platform};

/// The largest body, in bytes; a batch of 10,000 entities of 1 KB fits.
pub(crate) const BODY_BYTES_MAX: usize = 16 << 20;

/// A route.
pub struct Route {
    /// `GET`, `POST`, ...
    pub method: Method,
    /// As axum and OpenAPI write it.
    pub path: &'static str,
    /// What it does, for people.
    pub summary: &'static str,
    /// Its parameters in the URL's query.
    pub parameters: Option<Endpoint>,
    /// It asks for no access token.
    pub public: bool,
    handler: fn() -> MethodRouter<Arc<App>>,
}

macro_rules! routes {
    ($($method:ident $path:literal $(($endpoint:ident))? $([$public:ident])? $handler:path, $summary:literal;)*) => {
        /// All routes but the console's files.
        pub const ROUTES: &[Route] = &[$(
            Route {
                method: Method::$method,
                path: $path,
                summary: $summary,
                parameters: routes!(@endpoint $($endpoint)?),
                public: routes!(@public $($public)?),
                handler: || on(MethodFilter::$method, $handler),
            }
        ),*];
    };
    (@endpoint) => { None };
    (@endpoint $e:ident) => { Some(Endpoint::$e) };
    (@public) => { false };
    (@public public) => { true };
}

routes! {
    GET "/healthz" [public] platform::healthz, "Is the process alive?";
    GET "/readyz" [public] platform::readyz, "Does the node take reads and writes?";
    GET "/metrics" [public] platform::metrics, "Counters and gauges, OpenMetrics";
    GET "/openapi.json" [public] platform::openapi, "This description";
    GET "/api/v1/info" platform::info, "The node: city, version, key, addresses";
    GET "/api/v1/tenants" platform::tenants, "The tenants beside the default one";
    GET "/api/v1/peers" platform::peers, "The other cities, whether they answer, and the agreements with them";
    GET "/api/v1/mqtt/refused" platform::refused, "MQTT messages that were not taken in, newest first";
    GET "/api/v1/deliveries" deliveries::list, "How the delivery of notifications is going, by endpoint: what waits, since when and why";
    GET "/api/v1/live" live::feed, "Changes as they happen, as server-sent events; `type` selects";
    GET "/api/v1/changes" maintenance::changes, "Changes from a position on, in order; waits for one if there is none yet";
    GET "/api/v1/space" maintenance::space, "What the data take on disk, by entity type";
    POST "/api/v1/backup" maintenance::backup, "Make a backup to a folder or s3://bucket/prefix, and remove old ones there";
    GET "/api/v1/backups" maintenance::backups, "Backups of this node: what is under way, the last success, the last failure, the next one";
    POST "/api/v1/verify" maintenance::verify, "Verify checksums and rules of everything on disk, while the node works";
    DELETE "/api/v1/history/{type}" history::erase, "Take a stretch of time, an attribute or an entity out of the past of a type";
    POST "/api/v1/history/purge" history::purge, "Remove for good what was erased from the past";
    GET "/api/v1/versions/{id}" temporal::versions, "All values recorded of an attribute for one observed time: what counts, and what it corrected";
    GET "/api/v1/search" (Search) entities::search, "Entities by the words of their names, in any language; other parameters as for entities";
    GET "/api/v1/explain" (Explain) entities::explain, "How a query of entities is answered: indexes, counts, documents read";
    GET "/api/v1/cluster/entities" (QueryEntities) cluster::with_sources, "Entities of all cities, with what each city contributed";
    POST "/api/v1/bulk/{type}" bulk::import, "Take in observations as CSV, Parquet or an Arrow stream, or entities as JSON lines";
    GET "/api/v1/export/{type}" bulk_export::export, "The history or the present of a type as CSV, Parquet, Arrow stream or JSON lines";
    GET "/api/v1/bulk/jobs" bulk::jobs, "Bulk imports, the newest first";
    GET "/api/v1/bulk/jobs/{job}" bulk::job, "How far a bulk import has come";
    POST "/peer/v1/ask" [public] peer::ask, "A question from another city; signed by its key";
    GET "/ngsi-ld/v1/entities" (QueryEntities) entities::query, "Query entities (5.7.2)";
    POST "/ngsi-ld/v1/entities" (WriteEntity) entities::create, "Create an entity (5.6.1)";
    DELETE "/ngsi-ld/v1/entities" (Purge) entities::purge, "Purge entities, or attributes of them (5.6.21)";
    GET "/ngsi-ld/v1/entities/{id}" (RetrieveEntity) entities::retrieve, "Retrieve an entity (5.7.1)";
    PUT "/ngsi-ld/v1/entities/{id}" (WriteEntity) entities::replace, "Replace an entity (5.6.18)";
    PATCH "/ngsi-ld/v1/entities/{id}" (Merge) entities::merge, "Merge an entity (5.6.17)";
    DELETE "/ngsi-ld/v1/entities/{id}" (WriteEntity) entities::delete, "Delete an entity (5.6.6)";
    POST "/ngsi-ld/v1/entities/{id}/attrs" (AppendAttributes) entities::append, "Append attributes (5.6.3)";
    PATCH "/ngsi-ld/v1/entities/{id}/attrs" (WriteEntity) entities::update, "Update attributes (5.6.2)";
    PATCH "/ngsi-ld/v1/entities/{id}/attrs/{name}" (WriteEntity) entities::update_attribute, "Update an attribute partially (5.6.4)";
    PUT "/ngsi-ld/v1/entities/{id}/attrs/{name}" (WriteEntity) entities::replace_attribute, "Replace an attribute (5.6.19)";
    DELETE "/ngsi-ld/v1/entities/{id}/attrs/{name}" (DeleteAttribute) entities::delete_attribute, "Delete an attribute (5.6.5)";
    POST "/ngsi-ld/v1/entityOperations/create" (WriteEntity) batch::create, "Create entities (5.6.7)";
    POST "/ngsi-ld/v1/entityOperations/upsert" (Upsert) batch::upsert, "Create or replace or update entities (5.6.8)";
    POST "/ngsi-ld/v1/entityOperations/update" (AppendAttributes) batch::update, "Update entities (5.6.9)";
    POST "/ngsi-ld/v1/entityOperations/merge" (WriteEntity) batch::merge, "Merge entities (5.6.20)";
    POST "/ngsi-ld/v1/entityOperations/delete" (WriteEntity) batch::delete, "Delete entities (5.6.10)";
    POST "/ngsi-ld/v1/entityOperations/query" (QueryByBody) entities::query_by_body, "Query entities by a document (5.7.2)";
    POST "/ngsi-ld/v1/snapshots" (Plain) snapshots::create, "Make a snapshot of what queries find (5.16.1)";
    DELETE "/ngsi-ld/v1/snapshots" snapshots::purge, "Delete the snapshots of which `q` holds (5.16.7)";
    GET "/ngsi-ld/v1/snapshots/{id}" (Plain) snapshots::retrieve, "Retrieve the state of a snapshot (5.16.3)";
    PATCH "/ngsi-ld/v1/snapshots/{id}" (Plain) snapshots::update, "Change lifetime, priority or endpoint of a snapshot (5.16.4)";
    DELETE "/ngsi-ld/v1/snapshots/{id}" (Plain) snapshots::delete, "Delete a snapshot (5.16.5)";
    POST "/ngsi-ld/v1/snapshots/{id}/clone" (Plain) snapshots::clone, "Make a snapshot with what another one has (5.16.2)";
    GET "/ngsi-ld/v1/entityMaps" (EntityMap) entity_maps::create, "Make an entity map (5.14.4)";
    POST "/ngsi-ld/v1/entityMaps" (QueryByBody) entity_maps::create_by_body, "Make an entity map by a document (5.14.4)";
    GET "/ngsi-ld/v1/entityMaps/{id}" (Plain) entity_maps::retrieve, "Retrieve an entity map (5.14.1)";
    PATCH "/ngsi-ld/v1/entityMaps/{id}" (Plain) entity_maps::update, "Change when an entity map expires (5.14.2)";
    DELETE "/ngsi-ld/v1/entityMaps/{id}" (Plain) entity_maps::delete, "Delete an entity map (5.14.3)";
    GET "/ngsi-ld/v1/temporal/entities" (QueryTemporal) temporal::query, "Query the past of entities (5.7.4)";
    POST "/ngsi-ld/v1/temporal/entityOperations/query" (QueryTemporalByBody) temporal::query_by_body, "Query the past of entities by a document (5.7.4)";
    GET "/ngsi-ld/v1/temporal/entities/{id}" (RetrieveTemporal) temporal::retrieve, "Retrieve an entity's past (5.7.3)";
    DELETE "/ngsi-ld/v1/temporal/entities/{id}" (WriteTemporal) temporal_write::delete, "Delete an entity's past (5.6.16)";
    DELETE "/ngsi-ld/v1/temporal/entities/{id}/attrs/{name}" (DeleteTemporal) temporal_write::delete_attribute, "Delete an attribute's past (5.6.13)";
    POST "/ngsi-ld/v1/temporal/entities" (WriteTemporal) temporal_write::create, "Add to the past of an entity, or make it (5.6.11)";
    POST "/ngsi-ld/v1/temporal/entities/{id}/attrs" (WriteTemporal) temporal_write::append, "Add instances to the past of an entity (5.6.12)";
    PATCH "/ngsi-ld/v1/temporal/entities/{id}/attrs/{name}/{instance}" (WriteTemporal) temporal_write::correct_instance, "Correct an instance in the past of an attribute (5.6.14)";
    DELETE "/ngsi-ld/v1/temporal/entities/{id}/attrs/{name}/{instance}" (WriteTemporal) temporal_write::delete_instance, "Delete an instance in the past of an attribute (5.6.15)";
    GET "/ngsi-ld/v1/types" (Discovery) discovery::types, "The types that have entities (5.7.5)";
    GET "/ngsi-ld/v1/types/{type}" (Discovery) discovery::type_info, "One type (5.7.7)";
    GET "/ngsi-ld/v1/attributes" (Discovery) discovery::attributes, "The attributes that entities have (5.7.8, 5.7.9)";
    GET "/ngsi-ld/v1/attributes/{attrId}" (Discovery) discovery::attribute_info, "One attribute (5.7.10)";
    GET "/ngsi-ld/v1/subscriptions" (List) subscriptions::list, "List subscriptions (5.8.4)";
    POST "/ngsi-ld/v1/subscriptions" (Plain) subscriptions::create, "Subscribe (5.8.1)";
    GET "/ngsi-ld/v1/subscriptions/{id}" (List) subscriptions::retrieve, "Retrieve a subscription (5.8.3)";
    PATCH "/ngsi-ld/v1/subscriptions/{id}" (Plain) subscriptions::update, "Update a subscription (5.8.2)";
    DELETE "/ngsi-ld/v1/subscriptions/{id}" (Plain) subscriptions::delete, "Delete a subscription (5.8.5)";
    GET "/ngsi-ld/v1/csourceRegistrations" (Registrations) registrations::query, "Registrations of sources that may have what is asked for (5.10.2)";
    POST "/ngsi-ld/v1/csourceRegistrations" (Plain) registrations::create, "Register a source (5.9.2)";
    GET "/ngsi-ld/v1/csourceRegistrations/{id}" (List) registrations::retrieve, "Retrieve a registration (5.10.1)";
    PATCH "/ngsi-ld/v1/csourceRegistrations/{id}" (Plain) registrations::update, "Update a registration (5.9.3)";
    DELETE "/ngsi-ld/v1/csourceRegistrations/{id}" (Plain) registrations::delete, "Delete a registration (5.9.4)";
    GET "/ngsi-ld/v1/csourceSubscriptions" (List) csource_subscriptions::list, "List registration subscriptions (5.11.5)";
    POST "/ngsi-ld/v1/csourceSubscriptions" (Plain) csource_subscriptions::create, "Subscribe to registrations (5.11.2)";
    GET "/ngsi-ld/v1/csourceSubscriptions/{id}" (List) csource_subscriptions::retrieve, "Retrieve a registration subscription (5.11.4)";
    PATCH "/ngsi-ld/v1/csourceSubscriptions/{id}" (Plain) csource_subscriptions::update, "Update a registration subscription (5.11.3)";
    DELETE "/ngsi-ld/v1/csourceSubscriptions/{id}" (Plain) csource_subscriptions::delete, "Delete a registration subscription (5.11.6)";
    GET "/ngsi-ld/v1/info/sourceIdentity" (Plain) registrations::source_identity, "By which name this node signs in Via (5.15)";
    GET "/ngsi-ld/v1/jsonldContexts" contexts::list, "List the contexts that this node has (5.13.3)";
    POST "/ngsi-ld/v1/jsonldContexts" contexts::host, "Host a context (5.13.2)";
    GET "/ngsi-ld/v1/jsonldContexts/{id}" [public] contexts::serve, "A context, or what is known of it (5.13.4)";
    DELETE "/ngsi-ld/v1/jsonldContexts/{id}" contexts::delete, "Forget a context, or fetch it anew (5.13.5)";
    GET "/contexts/{*url}" [public] contexts::embedded, "An embedded JSON-LD context, for clients without internet";
    GET "/cluster/ngsi-ld/v1/entities" (QueryEntities) cluster::query, "Query the entities of all cities";
    GET "/cluster/ngsi-ld/v1/entities/{id}" (RetrieveEntity) cluster::retrieve, "Retrieve an entity of whichever city";
    GET "/cluster/ngsi-ld/v1/temporal/entities/{id}" (RetrieveTemporal) cluster::evolution, "Retrieve the past of an entity of whichever city";
}

/// The router over everything, for HTTP in the clear and pages of the node's own origin.
pub fn router(app: Arc<App>) -> Router {
    router_with(app, Origins::None, false)
}

pub(crate) fn router_with(app: Arc<App>, origins: Origins, https: bool) -> Router {
    app.contexts.restore(&app.node);
    let mut paths: Vec<(&str, MethodRouter<Arc<App>>)> = Vec::new();
    for route in ROUTES {
        let handler = (route.handler)();
        match paths.iter_mut().find(|(p, _)| *p == route.path) {
            Some((_, methods)) => *methods = std::mem::take(methods).merge(handler),
            None => paths.push((route.path, handler)),
        }
    }
    let mut router = Router::new();
    for (path, methods) in paths {
        let methods = methods.fallback(wrong_method);
        // Paths are written with and without a closing slash.
        if path.starts_with("/ngsi-ld/") {
            router = router.route(&format!("{path}/"), methods.clone());
        }
        router = router.route(path, methods);
    }
    router
        .fallback(console::page)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::new(Around { app: Arc::clone(&app), origins, https }), around))
        .with_state(app)
}

/// axum adds `Allow` to it.
async fn wrong_method(method: Method, request: Request) -> Response {
    if method == Method::OPTIONS {
        return empty(StatusCode::NO_CONTENT);
    }
    let detail = format!("`{method}` is not possible at `{}`", request.uri().path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "OperationNotSupported", detail).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_these_routes_ask_for_no_token() {
        let public: Vec<_> = ROUTES.iter().filter(|r| r.public).map(|r| r.path).collect();
        assert_eq!(
            public,
            ["/healthz", "/readyz", "/metrics", "/openapi.json", "/peer/v1/ask", "/ngsi-ld/v1/jsonldContexts/{id}", "/contexts/{*url}"]
        );
    }
}
