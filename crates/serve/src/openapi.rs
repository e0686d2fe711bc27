//! The OpenAPI 3.1 description, made from the table of routes; schemas of bodies are in `openapi/schemas.json`.

use axum::http::Method;
use ngsi::query::Endpoint;
use serde_json::{Map, Value, json};

use crate::ngsi_ld::{contexts, temporal};
use crate::routes::{ROUTES, Route};
use crate::{bulk, bulk_export, history, maintenance};

/// Schemas of what NGSI-LD bodies hold.
const SCHEMAS: &str = include_str!("openapi/schemas.json");

/// What one operation takes and gives.
struct Shape {
    /// The schema of its body; none if it has no body.
    request: Option<&'static str>,
    /// Statuses of success, each with the schema of the answer.
    success: &'static [(u16, Option<&'static str>)],
}

const DONE: &[(u16, Option<&str>)] = &[(204, None)];
const CREATED: &[(u16, Option<&str>)] = &[(201, None)];
const DONE_IN_PART: &[(u16, Option<&str>)] = &[(204, None), (207, Some("BatchOperationResult"))];
const UPDATED_IN_PART: &[(u16, Option<&str>)] = &[(204, None), (207, Some("UpdateResult"))];

/// What an NGSI-LD operation takes and gives (clauses 6.4 to 6.38); `resource` is its path below `/ngsi-ld/v1/`.
fn shape(method: &Method, resource: &str) -> Option<Shape> {
    let (request, success): (Option<&'static str>, &'static [(u16, Option<&'static str>)]) = match (method.as_str(), resource) {
        ("GET", "entities") => (None, &[(200, Some("Entities")), (203, Some("Entities"))]),
        ("POST", "entities") => (Some("Entity"), &[(201, None), (207, Some("BatchOperationResult"))]),
        ("DELETE", "entities") => (None, DONE_IN_PART),
        ("GET", "entities/{id}") => (None, &[(200, Some("Entity")), (203, Some("Entity")), (304, None)]),
        ("PUT" | "PATCH", "entities/{id}") => (Some("EntityFragment"), DONE_IN_PART),
        ("DELETE", "entities/{id}") => (None, DONE_IN_PART),
        ("POST" | "PATCH", "entities/{id}/attrs") => (Some("EntityFragment"), UPDATED_IN_PART),
        ("PATCH" | "PUT", "entities/{id}/attrs/{name}") => (Some("AttributeFragment"), UPDATED_IN_PART),
        ("DELETE", "entities/{id}/attrs/{name}") => (None, UPDATED_IN_PART),
        ("POST", "entityOperations/create") => (Some("EntityList"), &[(201, Some("IdList")), (207, Some("BatchOperationResult"))]),
        ("POST", "entityOperations/upsert") => {
            (Some("EntityList"), &[(201, Some("IdList")), (204, None), (207, Some("BatchOperationResult"))])
        }
        ("POST", "entityOperations/update" | "entityOperations/merge") => (Some("EntityList"), DONE_IN_PART),
        ("POST", "entityOperations/delete") => (Some("IdList"), DONE_IN_PART),
        ("POST", "entityOperations/query") => (Some("Query"), &[(200, Some("Entities")), (203, Some("Entities"))]),
        ("GET", "temporal/entities") => (None, &[(200, Some("EntitiesTemporal")), (206, Some("EntitiesTemporal"))]),
        ("POST", "temporal/entities") => (Some("EntityTemporal"), &[(201, None), (204, None), (207, Some("BatchOperationResult"))]),
        ("GET", "temporal/entities/{id}") => (None, &[(200, Some("EntityTemporal")), (206, Some("EntityTemporal"))]),
        ("POST", "temporal/entityOperations/query") => (Some("Query"), &[(200, Some("EntitiesTemporal")), (206, Some("EntitiesTemporal"))]),
        ("POST", "temporal/entities/{id}/attrs") => (Some("EntityFragment"), UPDATED_IN_PART),
        ("PATCH", r) if r.starts_with("temporal/entities/{id}/attrs/") => (Some("EntityFragment"), UPDATED_IN_PART),
        ("DELETE", r) if r.starts_with("temporal/entities/") => (None, UPDATED_IN_PART),
        ("POST", "snapshots") => (Some("Snapshot"), CREATED),
        ("POST", "snapshots/{id}/clone") => (Some("SnapshotFragment"), CREATED),
        ("GET", "snapshots/{id}") => (None, &[(200, Some("Snapshot"))]),
        ("PATCH", "snapshots/{id}") => (Some("SnapshotFragment"), &[(200, Some("Snapshot"))]),
        ("DELETE", "snapshots") => (None, DONE),
        ("GET", "entityMaps") => (None, &[(201, Some("EntityMap"))]),
        ("POST", "entityMaps") => (Some("Query"), &[(201, Some("EntityMap"))]),
        ("GET", "entityMaps/{id}") => (None, &[(200, Some("EntityMap"))]),
        ("PATCH", "entityMaps/{id}") => (Some("EntityMapFragment"), DONE),
        ("GET", "types") => (None, &[(200, Some("Types"))]),
        ("GET", "types/{type}") => (None, &[(200, Some("EntityTypeInfo"))]),
        ("GET", "attributes") => (None, &[(200, Some("Attributes"))]),
        ("GET", "attributes/{attrId}") => (None, &[(200, Some("AttributeDescription"))]),
        ("GET", "subscriptions" | "csourceSubscriptions") => (None, &[(200, Some("Subscriptions"))]),
        ("POST", "subscriptions" | "csourceSubscriptions") => (Some("Subscription"), CREATED),
        ("GET", "subscriptions/{id}" | "csourceSubscriptions/{id}") => (None, &[(200, Some("Subscription"))]),
        ("PATCH", "subscriptions/{id}" | "csourceSubscriptions/{id}") => (Some("SubscriptionFragment"), DONE),
        ("GET", "csourceRegistrations") => (None, &[(200, Some("CSourceRegistrations"))]),
        ("POST", "csourceRegistrations") => (Some("CSourceRegistration"), CREATED),
        ("GET", "csourceRegistrations/{id}") => (None, &[(200, Some("CSourceRegistration"))]),
        ("PATCH", "csourceRegistrations/{id}") => (Some("CSourceRegistrationFragment"), DONE),
        ("DELETE", r) if r.ends_with("{id}") => (None, DONE),
        ("GET", "info/sourceIdentity") => (None, &[(200, Some("SourceIdentity"))]),
        ("GET", "jsonldContexts") => (None, &[(200, Some("ContextList"))]),
        ("POST", "jsonldContexts") => (Some("ContextDocument"), CREATED),
        ("GET", "jsonldContexts/{id}") => (None, &[(200, Some("ContextOrMetadata"))]),
        _ => return None,
    };
    Some(Shape { request, success })
}

/// The OpenAPI 3.1 description of every route.
pub(crate) fn openapi() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let item = paths.entry(route.path.replace("{*", "{")).or_insert_with(|| json!({}));
        item[route.method.as_str().to_ascii_lowercase()] = operation(route);
    }
    let schemas: Value = serde_json::from_str(SCHEMAS).expect("the schemas are JSON");
    json!({
        "openapi": "3.1.0",
        "info": {"title": "conurb", "version": env!("CARGO_PKG_VERSION"), "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas,
        },
    })
}

fn operation(route: &Route) -> Value {
    let resource = route.path.strip_prefix("/ngsi-ld/v1/");
    let shape = resource.and_then(|r| shape(&route.method, r));
    let mut responses = Map::new();
    match &shape {
        Some(shape) => {
            for (status, schema) in shape.success {
                let mut response = json!({"description": meaning(*status)});
                if let Some(schema) = schema {
                    response["content"] = content(schema, *status);
                }
                responses.insert(status.to_string(), response);
            }
        }
        None => {
            responses.insert("2XX".to_owned(), json!({"description": "done"}));
        }
    }
    let problem = json!({"application/json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}});
    for (status, what) in [("4XX", "the request is at fault"), ("5XX", "not possible, or not at the moment")] {
        responses.insert(status.to_owned(), json!({"description": what, "content": problem}));
    }
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.summary,
        "parameters": parameters(route),
        "responses": responses,
        "security": if route.public { json!([]) } else { json!([{"token": []}]) },
    });
    if let Some(group) = resource.and_then(|r| r.split('/').next()) {
        operation["tags"] = json!([group]);
    }
    if let Some(body) = request_body(route, shape.as_ref()) {
        operation["requestBody"] = body;
    }
    operation
}

/// `get entities {id}` becomes `get_entities_id`.
fn operation_id(route: &Route) -> String {
    let words: Vec<&str> = route.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
    format!("{}_{}", route.method.as_str().to_ascii_lowercase(), words.join("_"))
}

const fn meaning(status: u16) -> &'static str {
    match status {
        201 => "created; `Location` says where",
        203 => "in the words of the version that `Prefer` names",
        204 => "done",
        206 => "a part of it; `Content-Range` says which",
        207 => "done in part",
        304 => "the client has it already",
        _ => "it is this",
    }
}

fn content(schema: &str, status: u16) -> Value {
    let one = json!({"schema": {"$ref": format!("#/components/schemas/{schema}")}});
    let mut content = json!({"application/json": one});
    // A result of several parts is always plain JSON (clause 6.3.6).
    if status != 207 && schema != "IdList" && !schema.starts_with("Context") {
        content["application/ld+json"] = one;
    }
    match schema {
        "Entity" => content["application/geo+json"] = json!({"schema": {"$ref": "#/components/schemas/Feature"}}),
        "Entities" => content["application/geo+json"] = json!({"schema": {"$ref": "#/components/schemas/FeatureCollection"}}),
        "ContextOrMetadata" => content["application/ld+json"] = json!({"schema": {"$ref": "#/components/schemas/ContextDocument"}}),
        _ => {}
    }
    content
}

fn request_body(route: &Route, shape: Option<&Shape>) -> Option<Value> {
    const WITHOUT: [&str; 2] = ["/api/v1/verify", "/api/v1/history/purge"];
    if !matches!(route.method, Method::POST | Method::PUT | Method::PATCH) || WITHOUT.contains(&route.path) {
        return None;
    }
    if route.path == "/api/v1/bulk/{type}" {
        return Some(json!({"required": true, "content": bulk::media_types()}));
    }
    let schema = match shape {
        Some(shape) => json!({"schema": {"$ref": format!("#/components/schemas/{}", shape.request?)}}),
        None => json!({}),
    };
    let mut content = json!({"application/json": schema, "application/ld+json": schema});
    if route.method == Method::PATCH {
        content["application/merge-patch+json"] = schema;
    }
    Some(json!({"required": true, "content": content}))
}

fn parameters(route: &Route) -> Vec<Value> {
    let in_path = route.path.split('{').skip(1).filter_map(|p| p.split('}').next()).map(|p| p.trim_start_matches('*'));
    let mut parameters: Vec<Value> =
        in_path.map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}})).collect();
    let own: &[&str] = match route.path {
        "/api/v1/changes" => maintenance::CHANGES_PARAMETERS,
        "/api/v1/history/{type}" => history::ERASE_PARAMETERS,
        "/api/v1/versions/{id}" => temporal::VERSIONS_PARAMETERS,
        "/api/v1/bulk/{type}" => &bulk::parameters::NAMES,
        "/api/v1/export/{type}" => &bulk_export::NAMES,
        "/ngsi-ld/v1/snapshots" if route.method == Method::DELETE => &["q"],
        "/ngsi-ld/v1/jsonldContexts" if route.method == Method::GET => contexts::LIST_PARAMETERS,
        "/ngsi-ld/v1/jsonldContexts/{id}" if route.method == Method::GET => contexts::GET_PARAMETERS,
        "/ngsi-ld/v1/jsonldContexts/{id}" => contexts::DELETE_PARAMETERS,
        _ => &[],
    };
    for name in route.parameters.map(Endpoint::parameters).unwrap_or_default().iter().chain(own) {
        parameters.push(json!({"name": name, "in": "query", "schema": schema_of(name)}));
    }
    if route.path.starts_with("/ngsi-ld/v1/") && !route.public {
        parameters.push(json!({"name": "NGSILD-Tenant", "in": "header", "schema": {"type": "string"}}));
        let link = "the JSON-LD context: `<URL>; rel=\"http://www.w3.org/ns/json-ld#context\"; type=\"application/ld+json\"`";
        parameters.push(json!({"name": "Link", "in": "header", "description": link, "schema": {"type": "string"}}));
    }
    parameters
}

/// What a parameter of this name holds.
fn schema_of(name: &str) -> Value {
    match name {
        "limit" | "offset" => json!({"type": "integer", "minimum": 0}),
        "lastN" | "joinLevel" => json!({"type": "integer", "minimum": 1}),
        "count" | "local" | "details" | "deleteAll" | "reload" => json!({"type": "boolean"}),
        "timeAt" | "endTimeAt" | "observedAt" | "asOf" => json!({"type": "string", "format": "date-time"}),
        "timerel" => json!({"enum": ["before", "after", "between"]}),
        "timeproperty" => json!({"enum": ["observedAt", "createdAt", "modifiedAt", "deletedAt"]}),
        "join" => json!({"enum": ["flat", "inline", "@none"]}),
        "kind" => json!({"enum": ["Hosted", "Cached", "ImplicitlyCreated"]}),
        "geometry" => json!({"enum": ["Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon"]}),
        "georel" => {
            json!({"type": "string", "pattern": "^(near;(max|min)Distance==[0-9.]+|within|contains|intersects|equals|disjoint|overlaps)$"})
        }
        "datasetId" => json!({"type": "string"}),
        _ => json!({"type": "string", "minLength": 1}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_with_its_path_parameters() {
        let description = openapi();
        let mut ids = std::collections::HashSet::new();
        for route in ROUTES {
            let operation = &description["paths"][route.path.replace("{*", "{")][route.method.as_str().to_ascii_lowercase()];
            assert_eq!(operation["summary"], route.summary, "{} {}", route.method, route.path);
            let n_in_path = operation["parameters"].as_array().unwrap().iter().filter(|p| p["in"] == "path").count();
            assert_eq!(n_in_path, route.path.matches('{').count(), "{}", route.path);
            assert!(ids.insert(operation["operationId"].to_string()), "{}", operation["operationId"]);
        }
    }

    /// Each NGSI-LD operation says what it takes and gives, by a schema that exists.
    #[test]
    fn every_ngsi_ld_route_has_its_schemas() {
        let schemas: Value = serde_json::from_str(SCHEMAS).unwrap();
        for route in ROUTES {
            let Some(resource) = route.path.strip_prefix("/ngsi-ld/v1/") else { continue };
            let shape = shape(&route.method, resource).unwrap_or_else(|| panic!("{} {}: add it to `shape`", route.method, route.path));
            let with_body = matches!(route.method, Method::POST | Method::PUT | Method::PATCH);
            assert_eq!(shape.request.is_some(), with_body, "{} {}", route.method, route.path);
            for name in shape.request.into_iter().chain(shape.success.iter().filter_map(|(_, s)| *s)) {
                assert!(schemas[name].is_object(), "{name}");
            }
        }
    }
}
