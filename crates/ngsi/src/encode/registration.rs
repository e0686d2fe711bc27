//! Registrations as clients get them back (ETSI GS CIM 009 V1.9.1, clause 5.2.9).

use entity::registration::{EntityInfo, Information, Mode, Registration, TimeInterval};
use entity::{Geometry, Iri};
use serde_json::{Map, Value, json};

use crate::DEFAULT_INSTANCE;
use crate::context::Context;
use crate::decode::scope_texts;

/// The document with the names that `context` has; `more` are members that the node adds (`status`, `createdAt`, ...).
#[must_use]
pub fn registration(r: &Registration, context: &Context, more: Vec<(&'static str, Value)>) -> Value {
    let mut map = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            map.insert(name.to_owned(), value);
        }
    };
    put("id", Some(r.id.as_str().into()));
    put("type", Some("ContextSourceRegistration".into()));
    put("registrationName", r.name.clone().map(Value::from));
    put("description", r.description.clone().map(Value::from));
    put("information", Some(r.information.iter().map(|i| information(i, context)).collect()));
    let dataset = |d: &Option<Iri>| d.as_ref().map_or(DEFAULT_INSTANCE, Iri::as_str).to_owned();
    put("datasetId", r.dataset_ids.as_ref().map(|l| l.iter().map(dataset).collect()));
    put("tenant", r.tenant.clone().map(Value::from));
    put("observationInterval", r.observation_interval.map(interval));
    put("managementInterval", r.management_interval.map(interval));
    for (name, place) in [("location", &r.location), ("observationSpace", &r.observation_space), ("operationSpace", &r.operation_space)] {
        put(name, place.as_ref().map(Geometry::json).cloned());
    }
    put("scope", (!r.scopes.is_empty()).then(|| scope_texts(&r.scopes)));
    put("expiresAt", r.expires_at.map(|t| t.to_string().into()));
    put("endpoint", Some(r.endpoint.clone().into()));
    let pairs = || r.source_info.iter().map(|(key, value)| json!({"key": key, "value": value})).collect();
    put("contextSourceInfo", (!r.source_info.is_empty()).then(pairs));
    put("mode", (r.mode != Mode::Inclusive).then(|| r.mode.name().into()));
    put("operations", (!r.operations.is_empty()).then(|| r.operations.iter().cloned().collect()));
    put("refreshRate", r.refresh_rate.clone().map(Value::from));
    put("management", management(r));
    put("contextSourceAlias", r.alias.clone().map(Value::from));
    for (name, value) in &r.more {
        let short = name.parse::<Iri>().map_or_else(|_| name.clone(), |iri| context.compact(&iri).into_owned());
        put(&short, Some(value.clone()));
    }
    for (name, value) in more {
        put(name, Some(value));
    }
    Value::Object(map)
}

fn information(i: &Information, context: &Context) -> Value {
    let names = |list: &[Iri]| -> Value { list.iter().map(|n| context.compact(n).into_owned()).collect() };
    let mut map = Map::new();
    if !i.entities.is_empty() {
        map.insert("entities".to_owned(), i.entities.iter().map(|e| entity_info(e, context)).collect());
    }
    for (name, list) in [("propertyNames", &i.properties), ("relationshipNames", &i.relationships)] {
        if !list.is_empty() {
            map.insert(name.to_owned(), names(list));
        }
    }
    Value::Object(map)
}

fn entity_info(e: &EntityInfo, context: &Context) -> Value {
    let mut map = Map::new();
    if let Some(id) = &e.id {
        map.insert("id".to_owned(), id.as_str().into());
    }
    if let Some(pattern) = &e.id_pattern_text {
        map.insert("idPattern".to_owned(), pattern.as_str().into());
    }
    let types = match e.types.as_slice() {
        [one] => context.compact(one).into_owned().into(),
        many => many.iter().map(|t| context.compact(t).into_owned()).collect(),
    };
    map.insert("type".to_owned(), types);
    Value::Object(map)
}

fn interval(i: TimeInterval) -> Value {
    match i.end {
        Some(end) => json!({"startAt": i.start.to_string(), "endAt": end.to_string()}),
        None => json!({"startAt": i.start.to_string()}),
    }
}

fn management(r: &Registration) -> Option<Value> {
    let m = &r.management;
    let mut map = Map::new();
    if let Some(local) = m.local_only {
        map.insert("localOnly".to_owned(), local.into());
    }
    if let Some(text) = &m.cache_duration {
        map.insert("cacheDuration".to_owned(), text.clone().into());
    }
    for (name, ms) in [("timeout", m.timeout_ms), ("cooldown", m.cooldown_ms)] {
        if let Some(ms) = ms {
            map.insert(name.to_owned(), ms.into());
        }
    }
    (!map.is_empty()).then_some(Value::Object(map))
}
