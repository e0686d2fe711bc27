//! Registrations of context sources (ETSI GS CIM 009 V1.9.1, clauses 5.2.8 to 5.2.11, 5.2.34, 5.9.2 and 6.3.19).

use entity::registration::{EntityInfo, Information, Management, Mode, OperationSet, Registration, TimeInterval};
use entity::{AggregationPeriod, Geometry, Instant, Iri, Scope};
use serde_json::{Map, Value};

use super::{instant, iri, list_of_strings, object, parts, string};
use crate::context::Context;
use crate::error::{Error, Result, described, shown};
use crate::query::{dataset_ids, duration, id_pattern, name_list, unknown_member};

/// The most parts of `information`, and the most entities in one part.
pub const INFORMATION_MAX: usize = 500;

/// The most attribute names in one part.
const NAMES_MAX: usize = 1_000;

/// The most pairs of `contextSourceInfo`.
const SOURCE_INFO_MAX: usize = 50;

/// The longest time-out of a source, in milliseconds: one minute, since somebody waits for the answer.
const TIMEOUT_MS_MAX: u64 = 60_000;

/// The longest cool-down, in milliseconds: one day.
const COOLDOWN_MS_MAX: u64 = 86_400_000;

/// Microseconds in a month of 30 days: what a `cacheDuration` in months comes to.
const MONTH_US: i64 = 30 * 86_400 * 1_000_000;

/// The names that members of the standard have; other members are properties of the source itself.
const MEMBERS: [&str; 22] = [
    "id",
    "type",
    "registrationName",
    "description",
    "information",
    "datasetId",
    "tenant",
    "observationInterval",
    "managementInterval",
    "location",
    "observationSpace",
    "operationSpace",
    "scope",
    "expiresAt",
    "endpoint",
    "contextSourceInfo",
    "mode",
    "operations",
    "refreshRate",
    "management",
    "contextSourceAlias",
    "@context",
];

/// Output only: passed over in requests (clause 5.2.9).
const OUTPUT_ONLY: [&str; 8] = ["createdAt", "modifiedAt", "deletedAt", "status", "timesSent", "timesFailed", "lastSuccess", "lastFailure"];

/// The operations that an auxiliary source may have (clause 4.3.6.2).
const AUXILIARY: OperationSet =
    OperationSet::only(&[entity::registration::Operation::RetrieveEntity, entity::registration::Operation::QueryEntity]);

/// Reads a registration; `new_id` is asked for an id if it has none.
///
/// Errors: [`crate::ErrorKind::BadRequestData`]. That `expiresAt` lies in the future is for whoever has a clock, and whether the endpoint may be
/// called is for whoever calls.
pub fn registration(value: Value, context: &Context, new_id: impl FnOnce() -> Iri) -> Result<Registration> {
    let map = object(value, "a ContextSourceRegistration")?;
    if map.get("type").or_else(|| map.get("@type")).and_then(Value::as_str) != Some("ContextSourceRegistration") {
        return Err(Error::bad("expected `ContextSourceRegistration`").within("type"));
    }
    let at = |name: &'static str| move |e: Error| e.within(name);
    let fields = Fields(&map);
    let operations = fields.read("operations", |v| strings(v).map(|l| l.into_iter().map(str::to_owned).collect::<Vec<_>>()))?;
    let registration = Registration {
        id: match map.get("id").or_else(|| map.get("@id")) {
            Some(id) => iri(id).map_err(at("id"))?,
            None => new_id(),
        },
        name: fields.text("registrationName")?,
        description: fields.text("description")?,
        information: fields
            .read("information", |v| information(v, context))?
            .ok_or_else(|| Error::bad("the mandatory member `information` is missing"))?,
        dataset_ids: fields.read("datasetId", |v| dataset_ids(list_of_strings(v)?.into_iter()))?,
        tenant: fields.text("tenant")?,
        observation_interval: fields.read("observationInterval", interval)?,
        management_interval: fields.read("managementInterval", interval)?,
        location: fields.read("location", geometry)?,
        observation_space: fields.read("observationSpace", geometry)?,
        operation_space: fields.read("operationSpace", geometry)?,
        scopes: fields.read("scope", parts::scopes)?.unwrap_or_default(),
        expires_at: fields.read("expiresAt", instant)?,
        endpoint: fields.read("endpoint", endpoint)?.ok_or_else(|| Error::bad("the mandatory member `endpoint` is missing"))?,
        source_info: fields.read("contextSourceInfo", source_info)?.unwrap_or_default(),
        mode: fields.read("mode", mode)?.unwrap_or_default(),
        operations: operations.unwrap_or_default(),
        refresh_rate: fields.read("refreshRate", |v| checked_duration(v).map(|(text, _)| text))?,
        management: fields.read("management", management)?.unwrap_or_default(),
        alias: fields.read("contextSourceAlias", |v| alias(string(v)?))?,
        more: more(&map, context)?,
        created_at: Instant::default(),
        modified_at: Instant::default(),
    };
    check_together(&registration)?;
    Ok(registration)
}

/// A registration after a patch: members that are there replace the present ones as a whole, null and NGSI-LD Null remove them
/// (clauses 5.5.8 and 5.9.3).
///
/// `context` is that of the patch. Errors: as [`registration`]; the patch names another id.
pub fn patched_registration(current: &Registration, patch: Value, context: &Context) -> Result<Registration> {
    let patch = object(patch, "a fragment of a ContextSourceRegistration")?;
    if let Some(id) = patch.get("id").or_else(|| patch.get("@id"))
        && id.as_str() != Some(current.id.as_str())
    {
        return Err(Error::bad("the id of a registration cannot be changed").within("id"));
    }
    let mut merged = crate::encode::registration(current, context, Vec::new());
    let members = merged.as_object_mut().expect("a registration is written as an object");
    for (key, value) in patch {
        let name = if key.starts_with('@') { key.trim_start_matches('@') } else { &key };
        if value.is_null() || value.as_str() == Some(crate::NGSI_LD_NULL) {
            members.shift_remove(name);
        } else {
            members.insert(name.to_owned(), value);
        }
    }
    let patched = registration(merged, context, || current.id.clone())?;
    Ok(Registration { created_at: current.created_at, ..patched })
}

struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn read<T>(&self, name: &str, read: impl Fn(&Value) -> Result<T>) -> Result<Option<T>> {
        self.0.get(name).map(|v| read(v).map_err(|e| e.within(name))).transpose()
    }

    fn text(&self, name: &str) -> Result<Option<String>> {
        self.read(name, |v| match string(v)? {
            "" => Err(Error::bad("the string is empty")),
            text => Ok(text.to_owned()),
        })
    }
}

/// What the members must be to one another (clauses 4.3.6.2, 4.3.6.3 and 5.2.9).
fn check_together(r: &Registration) -> Result<()> {
    let supported =
        OperationSet::of(r.operations.iter().map(String::as_str)).map_err(|e| Error::bad(e.to_string()).within("operations"))?;
    if r.mode == Mode::Auxiliary && !supported.is_within(AUXILIARY) {
        return Err(Error::bad(
            "a source of mode auxiliary is only read: `operations` must be given, from retrieveOps, retrieveEntity and queryEntity",
        )
        .within("operations"));
    }
    if r.mode == Mode::Exclusive {
        for (i, part) in r.information.iter().enumerate() {
            let by_id = !part.entities.is_empty() && part.entities.iter().all(|e| e.id.is_some());
            if !by_id || part.has_all_attributes() {
                return Err(Error::bad(
                    "a source of mode exclusive is registered for attributes of entities by id (no idPattern, no type alone)",
                )
                .within(&format!("information/{i}")));
            }
        }
    }
    Ok(())
}

fn strings(value: &Value) -> Result<Vec<&str>> {
    if value.is_array() { list_of_strings(value) } else { Err(Error::bad(format!("expected an array, found {}", described(value)))) }
}

fn items(value: &Value, max: usize) -> Result<&[Value]> {
    match value {
        Value::Array(list) if (1..=max).contains(&list.len()) => Ok(list),
        Value::Array(list) => Err(Error::bad(format!("expected 1 to {max} items, found {}", list.len()))),
        other => Err(Error::bad(format!("expected an array, found {}", described(other)))),
    }
}

fn each<T>(value: &Value, max: usize, read: impl Fn(&Value) -> Result<T>) -> Result<Vec<T>> {
    items(value, max)?.iter().enumerate().map(|(i, item)| read(item).map_err(|e| e.within(&i.to_string()))).collect()
}

fn members<'a>(value: &'a Value, known: &[&str]) -> Result<&'a Map<String, Value>> {
    let map = value.as_object().ok_or_else(|| Error::bad(format!("expected an object, found {}", described(value))))?;
    match map.keys().find(|k| !known.contains(&k.as_str())) {
        Some(other) => Err(unknown_member(other, known, &[]).within(&shown(other))),
        None => Ok(map),
    }
}

fn information(value: &Value, context: &Context) -> Result<Vec<Information>> {
    each(value, INFORMATION_MAX, |item| {
        let map = members(item, &["entities", "propertyNames", "relationshipNames"])?;
        let fields = Fields(map);
        let names = |name: &str| {
            fields.read(name, |v| {
                let list = name_list(strings(v)?.into_iter(), context)?;
                let too_many = || Error::bad(format!("{} names are more than the limit of {NAMES_MAX}", list.len()));
                if list.len() > NAMES_MAX { Err(too_many()) } else { Ok(list) }
            })
        };
        let part = Information {
            entities: fields.read("entities", |v| each(v, INFORMATION_MAX, |e| entity_info(e, context)))?.unwrap_or_default(),
            properties: names("propertyNames")?.unwrap_or_default(),
            relationships: names("relationshipNames")?.unwrap_or_default(),
        };
        if part.entities.is_empty() && part.has_all_attributes() {
            return Err(Error::bad("at least one of `entities`, `propertyNames` and `relationshipNames` is needed"));
        }
        Ok(part)
    })
}

fn entity_info(value: &Value, context: &Context) -> Result<EntityInfo> {
    let map = members(value, &["id", "idPattern", "type"])?;
    let fields = Fields(map);
    let types = fields.read("type", |v| parts::names(v, context))?;
    let id_pattern_text = fields.text("idPattern")?;
    Ok(EntityInfo {
        id: fields.read("id", iri)?,
        id_pattern: id_pattern_text.as_deref().map(id_pattern).transpose().map_err(|e| e.within("idPattern"))?,
        id_pattern_text,
        types: types.ok_or_else(|| Error::bad("the mandatory member `type` is missing"))?,
    })
}

fn interval(value: &Value) -> Result<TimeInterval> {
    let map = members(value, &["startAt", "endAt"])?;
    let fields = Fields(map);
    let start = fields.read("startAt", instant)?.ok_or_else(|| Error::bad("the mandatory member `startAt` is missing"))?;
    let end = fields.read("endAt", instant)?;
    match end {
        Some(end) if end < start => Err(Error::bad(format!("`{end}` is before startAt, `{start}`")).within("endAt")),
        _ => Ok(TimeInterval { start, end }),
    }
}

/// A bare geometry; one in a GeoProperty, as older brokers write it, is accepted too.
fn geometry(value: &Value) -> Result<Geometry> {
    match value.get("value") {
        Some(inner) if value.get("type").and_then(Value::as_str) == Some("GeoProperty") => parts::geometry(inner.clone()),
        _ => parts::geometry(value.clone()),
    }
}

fn endpoint(value: &Value) -> Result<String> {
    let text = string(value)?;
    let url = url::Url::parse(text).map_err(|e| Error::bad(format!("`{}` is not a URL: {e}", shown(text))))?;
    let has_rest = url.query().is_some() || url.fragment().is_some();
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() || has_rest {
        return Err(Error::bad(format!("expected an `http` or `https` URL without `?` and `#`, found `{}`", shown(text))));
    }
    Ok(text.to_owned())
}

fn mode(value: &Value) -> Result<Mode> {
    let name = string(value)?;
    Mode::ALL
        .iter()
        .find(|(_, n)| *n == name)
        .map(|(m, _)| *m)
        .ok_or_else(|| Error::bad(format!("`{}` is not a mode (expected inclusive, exclusive, redirect or auxiliary)", shown(name))))
}

/// A pseudonym as `Via` may have it: a token or `host:port` (RFC 9110, 7.6.3).
fn alias(text: &str) -> Result<String> {
    let fits = |c: char| c.is_ascii_graphic() && !matches!(c, ',' | '(' | ')' | '"');
    if text.is_empty() || text.len() > 255 || !text.chars().all(fits) {
        return Err(Error::bad(format!("`{}` is not an alias (expected visible ASCII without comma, quote and parenthesis)", shown(text))));
    }
    Ok(text.to_owned())
}

/// Keys and values that become headers, and four that say how the source is spoken to (clause 6.3.19).
fn source_info(value: &Value) -> Result<Vec<(String, String)>> {
    each(value, SOURCE_INFO_MAX, |item| {
        let text = |name: &str| item.get(name).and_then(Value::as_str);
        let (Some(key), Some(value)) = (text("key"), text("value")) else {
            return Err(Error::bad(format!("expected an object with the strings `key` and `value`, found {}", described(item))));
        };
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if key.is_empty() || !key.chars().all(token) || value.chars().any(|c| c.is_control() || !c.is_ascii()) {
            return Err(Error::bad(format!("`{}` with its value cannot be an HTTP header", shown(key))));
        }
        let wrong = |expected: &str| Err(Error::bad(format!("`{}` of `{key}` is not possible (expected {expected})", shown(value))));
        match key.to_ascii_lowercase().as_str() {
            "accept" | "contenttype" | "content-type" if !matches!(value, "application/json" | "application/ld+json") => {
                wrong("application/json or application/ld+json")
            }
            "jsonldcontext" if !(value.starts_with("https://") || value.starts_with("http://")) || url::Url::parse(value).is_err() => {
                wrong("the URL of a context")
            }
            "ngsildconformance" if conformance(value).is_none() => wrong("a version such as 1.6"),
            _ => Ok((key.to_owned(), value.to_owned())),
        }
    })
}

/// A version of the standard, `major.minor`.
#[must_use]
pub fn conformance(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
}

fn management(value: &Value) -> Result<Management> {
    let map = members(value, &["localOnly", "cacheDuration", "timeout", "cooldown"])?;
    let fields = Fields(map);
    let cache = fields.read("cacheDuration", checked_duration)?;
    Ok(Management {
        local_only: fields
            .read("localOnly", |v| v.as_bool().ok_or_else(|| Error::bad(format!("expected true or false, found {}", described(v)))))?,
        cache_us: cache.as_ref().map(|(_, us)| *us),
        cache_duration: cache.map(|(text, _)| text),
        timeout_ms: fields.read("timeout", |v| milliseconds(v, TIMEOUT_MS_MAX))?,
        cooldown_ms: fields.read("cooldown", |v| milliseconds(v, COOLDOWN_MS_MAX))?,
    })
}

fn milliseconds(value: &Value, max: u64) -> Result<u64> {
    // 1.0 is as good a JSON number as 1.
    let whole = value.as_u64().or_else(|| value.as_f64().filter(|f| f.fract() == 0.0 && *f >= 1.0 && *f <= max as f64).map(|f| f as u64));
    whole
        .filter(|ms| (1..=max).contains(ms))
        .ok_or_else(|| Error::bad(format!("expected a whole number of milliseconds from 1 to {max}, found {}", described(value))))
}

/// An ISO 8601 duration as it was given, and in microseconds.
fn checked_duration(value: &Value) -> Result<(String, i64)> {
    let text = string(value)?;
    let period = duration(text).map_err(|why| Error::bad(format!("duration `{}` {why}", shown(text))))?;
    let us = match period {
        AggregationPeriod::Whole => 0,
        AggregationPeriod::Micros(us) => us,
        AggregationPeriod::Months(n) => i64::from(n).saturating_mul(MONTH_US),
    };
    Ok((text.to_owned(), us))
}

/// Properties of the source itself, by expanded name (clause 5.2.9).
fn more(map: &Map<String, Value>, context: &Context) -> Result<Map<String, Value>> {
    let own = |k: &str| MEMBERS.contains(&k) || OUTPUT_ONLY.contains(&k) || matches!(k, "@id" | "@type");
    let mut more = Map::new();
    for (key, value) in map.iter().filter(|(k, _)| !own(k)) {
        let name = context.expand(key).map_err(|e| e.within(&shown(key)))?;
        parts::check_value(value).map_err(|e| e.within(&shown(key)))?;
        if more.len() >= super::ATTRIBUTES_MAX {
            return Err(Error::bad(format!("more than {} properties of a source", super::ATTRIBUTES_MAX)));
        }
        more.insert(name.as_str().to_owned(), value.clone());
    }
    Ok(more)
}

/// The scopes of a registration as texts.
pub(crate) fn scope_texts(scopes: &[Scope]) -> Value {
    match scopes {
        [one] => one.as_str().into(),
        many => many.iter().map(Scope::as_str).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ContextStore;
    use serde_json::json;

    fn read(value: Value) -> Result<Registration> {
        let contexts = ContextStore::new(None, None).unwrap();
        registration(value, contexts.core_context(), || Iri::known("urn:ngsi-ld:ContextSourceRegistration:new"))
    }

    fn with(more: Value) -> Value {
        let mut full = json!({
            "type": "ContextSourceRegistration", "endpoint": "http://a.example:1026/x",
            "information": [{"entities": [{"type": ["Room", "Hall"], "idPattern": "^urn:x"}], "propertyNames": ["t"], "relationshipNames": ["in"]}],
        });
        full.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        full
    }

    #[test]
    fn a_registration_reads_back_as_it_was_written() {
        let full = with(json!({
            "id": "urn:r:1", "registrationName": "n", "description": "d", "datasetId": ["@none", "urn:d:1"], "tenant": "t",
            "observationInterval": {"startAt": "2026-01-01T00:00:00Z"},
            "managementInterval": {"startAt": "2026-01-01T00:00:00Z", "endAt": "2026-02-01T00:00:00Z"},
            "location": {"type": "Point", "coordinates": [1.0, 2.0]}, "scope": ["/A", "/B"], "expiresAt": "2099-01-01T00:00:00Z",
            "contextSourceInfo": [{"key": "Authorization", "value": "urn:ngsi-ld:request"}, {"key": "ngsildConformance", "value": "1.6"}],
            "mode": "redirect", "operations": ["redirectionOps", "createBatch"], "refreshRate": "PT5M",
            "management": {"localOnly": true, "cacheDuration": "PT1H", "timeout": 500, "cooldown": 1000},
            "contextSourceAlias": "host:1026", "owner": {"a": [1]},
        }));
        let contexts = ContextStore::new(None, None).unwrap();
        let r = read(full.clone()).unwrap();
        assert_eq!(r.management.cache_us, Some(3_600_000_000));
        let mut written = crate::encode::registration(&r, contexts.core_context(), Vec::new());
        assert_eq!(written, full);
        let stored: Registration = serde_json::from_value(serde_json::to_value(&r).unwrap()).unwrap();
        assert_eq!(stored, r);
        written["owner"] = json!(2);
        let patched =
            patched_registration(&r, json!({"owner": 2, "tenant": null, "mode": "urn:ngsi-ld:null"}), contexts.core_context()).unwrap();
        assert_eq!(patched.mode, Mode::Inclusive);
        assert_eq!((patched.tenant, patched.more.values().next().cloned()), (None, Some(json!(2))));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (more, want) in [
            (json!({"type": "Registration"}), "type: expected `ContextSourceRegistration`"),
            (json!({"information": []}), "information: expected 1 to"),
            (json!({"information": [{}]}), "information/0: at least one of"),
            (json!({"information": [{"entities": [{"id": "urn:x:1"}]}]}), "information/0/entities/0: the mandatory member `type`"),
            (json!({"information": [{"entities": [{"type": "A", "idpattern": "x"}]}]}), "did you mean `idPattern`"),
            (json!({"information": [{"propertyNames": []}]}), "information/0/propertyNames: the array is empty"),
            (json!({"endpoint": "mqtt://a"}), "endpoint: expected an `http`"),
            (json!({"endpoint": "http://a/?x=1"}), "endpoint: expected an `http`"),
            (json!({"mode": "both"}), "mode: `both` is not a mode"),
            (json!({"operations": ["writeOps"]}), "operations: `writeOps` is neither"),
            (json!({"operations": "retrieveOps"}), "operations: expected an array"),
            (json!({"mode": "auxiliary"}), "operations: a source of mode auxiliary"),
            (json!({"mode": "auxiliary", "operations": ["redirectionOps"]}), "operations: a source of mode auxiliary"),
            (json!({"mode": "exclusive"}), "information/0: a source of mode exclusive"),
            (json!({"observationInterval": {"endAt": "2026-01-01T00:00:00Z"}}), "observationInterval: the mandatory member `startAt`"),
            (json!({"management": {"timeout": 0}}), "management/timeout: expected a whole number"),
            (json!({"management": {"cacheDuration": "1h"}}), "management/cacheDuration: duration `1h`"),
            (json!({"contextSourceInfo": [{"key": "accept", "value": "text/html"}]}), "contextSourceInfo/0: `text/html` of `accept`"),
            (json!({"contextSourceInfo": [{"key": "X-A", "value": "a\r\nb"}]}), "cannot be an HTTP header"),
            (json!({"expiresAt": "tomorrow"}), "expiresAt: "),
            (json!({"contextSourceAlias": "a,b"}), "contextSourceAlias: "),
        ] {
            let error = read(with(more)).unwrap_err();
            assert_eq!(error.kind, crate::ErrorKind::BadRequestData);
            assert!(error.to_string().contains(want), "{error} instead of {want}");
        }
        assert!(read(with(json!({"mode": "auxiliary", "operations": ["retrieveOps"]}))).is_ok());
    }
}
