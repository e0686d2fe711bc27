//! The small parts of which documents are made.

use entity::{Geometry, Instant, Iri, Scope};
use serde_json::Value;

use super::TYPES_MAX;
use crate::NGSI_LD_NULL;
use crate::context::Context;
use crate::error::{Error, Result, described, shown};

pub(crate) fn string(value: &Value) -> Result<&str> {
    value.as_str().ok_or_else(|| Error::bad(format!("expected a string, found {}", described(value))))
}

pub(crate) fn iri(value: &Value) -> Result<Iri> {
    let text = value.as_str().ok_or_else(|| Error::bad(format!("expected a URI, found {}", described(value))))?;
    if text == NGSI_LD_NULL {
        return Err(null_refused());
    }
    text.parse().map_err(|e: entity::IriError| Error::bad(e.to_string()))
}

pub(crate) fn instant(value: &Value) -> Result<Instant> {
    let text = value.as_str().ok_or_else(|| Error::bad(format!("expected a date-time, found {}", described(value))))?;
    if text == NGSI_LD_NULL {
        return Err(null_refused());
    }
    text.parse().map_err(|e: entity::InstantError| Error::bad(e.to_string()))
}

/// NGSI-LD Null where nothing can be removed (clause 5.5.4).
pub(crate) fn null_refused() -> Error {
    Error::bad(format!("`{NGSI_LD_NULL}` (remove this) is allowed in patch operations only"))
}

/// One string, or a non-empty array of them.
pub(crate) fn list_of_strings(value: &Value) -> Result<Vec<&str>> {
    match value {
        Value::String(s) => Ok(vec![s]),
        Value::Array(list) if !list.is_empty() => {
            list.iter().enumerate().map(|(i, v)| string(v).map_err(|e| e.within(&i.to_string()))).collect()
        }
        Value::Array(_) => Err(Error::bad("the array is empty")),
        other => Err(Error::bad(format!("expected a string or an array of strings, found {}", described(other)))),
    }
}

/// One IRI, or a non-empty array of them.
pub(super) fn iris(value: &Value) -> Result<Vec<Iri>> {
    match value {
        Value::String(_) => Ok(vec![iri(value)?]),
        Value::Array(list) if !list.is_empty() => {
            list.iter().enumerate().map(|(i, v)| iri(v).map_err(|e| e.within(&i.to_string()))).collect()
        }
        Value::Array(_) => Err(Error::bad("the array is empty")),
        other => Err(Error::bad(format!("expected a URI or an array of URIs, found {}", described(other)))),
    }
}

/// Type names, expanded, each once.
pub(super) fn names(value: &Value, context: &Context) -> Result<Vec<Iri>> {
    let mut types = Vec::new();
    for name in list_of_strings(value)? {
        let iri = vocabulary(name, context)?;
        if !types.contains(&iri) {
            types.push(iri);
        }
    }
    if types.len() > TYPES_MAX {
        return Err(Error::bad(format!("{} names are more than the limit of {TYPES_MAX}", types.len())));
    }
    Ok(types)
}

/// A name in a value: a type, an `objectType`, a `valueType`, a `vocab`.
pub(super) fn vocabulary(name: &str, context: &Context) -> Result<Iri> {
    if name == NGSI_LD_NULL {
        return Err(null_refused());
    }
    context.expand(name)
}

pub(super) fn scopes(value: &Value) -> Result<Vec<Scope>> {
    let mut scopes = Vec::new();
    for text in list_of_strings(value)? {
        if text == NGSI_LD_NULL {
            return Err(null_refused());
        }
        let scope: Scope = text.parse().map_err(|e: entity::ScopeError| Error::bad(e.to_string()))?;
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    if scopes.len() > TYPES_MAX {
        return Err(Error::bad(format!("{} scopes are more than the limit of {TYPES_MAX}", scopes.len())));
    }
    Ok(scopes)
}

/// The newest of the reified scopes in a temporal document (clause 4.18).
pub(super) fn scopes_of_series(value: &Value) -> Result<Vec<Scope>> {
    let list = match value {
        Value::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    let mut newest: Option<(Option<Instant>, Vec<Scope>)> = None;
    for (i, item) in list.iter().enumerate() {
        let at = |e: Error| e.within(&i.to_string());
        let value =
            item.get("value").ok_or_else(|| at(Error::bad(format!("expected a Property with `value`, found {}", described(item)))))?;
        let observed_at = item.get("observedAt").map(instant).transpose().map_err(|e| at(e.within("observedAt")))?;
        let scopes = scopes(value).map_err(at)?;
        if newest.as_ref().is_none_or(|(old, _)| observed_at >= *old) {
            newest = Some((observed_at, scopes));
        }
    }
    newest.map(|(_, scopes)| scopes).ok_or_else(|| Error::bad("the array is empty"))
}

/// A geometry: a GeoJSON object, or a string that holds one (clause 4.7.2).
pub(crate) fn geometry(value: Value) -> Result<Geometry> {
    let json = match value {
        Value::String(text) if text == NGSI_LD_NULL => return Err(null_refused()),
        Value::String(text) => serde_json::from_str(&text)
            .map_err(|_| Error::bad(format!("expected a GeoJSON geometry, found the string `{}`", shown(&text))))?,
        other => other,
    };
    Geometry::from_json(json).map_err(|e| Error::bad(e.to_string()))
}

/// Refuses what cannot be kept in a `value`: null and NGSI-LD Null, at any depth.
///
/// A null vanishes in JSON-LD expansion, so it would be lost between brokers (clause 4.5.0); `{"@type":"@json","@value":null}` keeps it.
pub(super) fn check_value(value: &Value) -> Result<()> {
    match value {
        Value::Null => Err(Error::bad(
            "null cannot be stored (leave the member out, use a JsonProperty, or write {\"@type\":\"@json\",\"@value\":null})",
        )),
        Value::String(s) if s == NGSI_LD_NULL => Err(null_refused()),
        Value::Array(list) => list.iter().enumerate().try_for_each(|(i, v)| check_value(v).map_err(|e| e.within(&i.to_string()))),
        Value::Object(map) if map.get("@type").and_then(Value::as_str) == Some("@json") => Ok(()),
        Value::Object(map) => map.iter().try_for_each(|(k, v)| check_value(v).map_err(|e| e.within(&shown(k)))),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}
