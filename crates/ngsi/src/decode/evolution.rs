//! Entities over time, as somebody sends them (ETSI GS CIM 009 V1.9.1, clauses 4.5.6 to 4.5.9 and 5.2.20): each attribute a series of
//! instances, or in simplified form arrays of values and times.

use std::collections::HashSet;

use entity::{Attribute, Entity, Instances, Iri};
use serde_json::{Map, Value};

use super::attribute::{TEMPORAL_FORMS, TemporalForm};
use super::{Parts, Series, entity_parts};
use crate::context::Context;
use crate::error::{Error, Result, described, shown};

/// The most instances in one document, all attributes together.
pub const INSTANCES_IN_EVOLUTION_MAX: usize = 100_000;

/// Reads the temporal form (clause 5.6.11): id and type are mandatory. The instances of each attribute are in the order of their time, one
/// without `observedAt`, which is true when it is recorded, last.
///
/// Errors: as [`super::entity`]; more than [`INSTANCES_IN_EVOLUTION_MAX`] instances; two instances of one `datasetId` without `observedAt` or
/// with the same one, of which nobody could tell which one counts.
pub fn evolution(value: Value, context: &Context) -> Result<Entity> {
    let mut parts = series_parts(value, context)?;
    let id = parts.id.take().ok_or_else(|| Error::bad("the mandatory member `id` is missing").within("entity"))?;
    if parts.types.is_empty() {
        return Err(Error::bad("the mandatory member `type` is missing").within("entity"));
    }
    Ok(Entity { id, ..Entity::from(parts) })
}

/// What is to be added to the past of entity `id` (clause 5.6.12): id and type may be absent; an id that is there must be `id`.
///
/// Errors: as [`evolution`]; there is no attribute.
pub fn evolution_fragment(value: Value, id: &Iri, context: &Context) -> Result<Entity> {
    let mut parts = series_parts(value, context)?;
    if let Some(found) = parts.id.take().filter(|found| found != id) {
        return Err(Error::bad(format!("`{found}` is not the entity that the request is about, `{id}`")).within("id"));
    }
    if parts.attributes.is_empty() {
        return Err(Error::bad("expected at least one attribute"));
    }
    Ok(Entity { id: id.clone(), ..Entity::from(parts) })
}

/// What one instance of attribute `name` of entity `id` is to be (clause 5.6.14): a fragment with this attribute and one instance of it.
///
/// Errors: as [`evolution_fragment`]; there is another attribute, or not exactly one instance.
pub fn evolution_instance(value: Value, id: &Iri, name: &Iri, context: &Context) -> Result<Attribute> {
    let fragment = evolution_fragment(value, id, context)?;
    let mut attributes = fragment.attributes.into_iter();
    match (attributes.next(), attributes.next()) {
        (Some((found, instances)), None) if found == *name && instances.len() == 1 => {
            Ok(instances.into_iter().next().map(std::sync::Arc::unwrap_or_clone).expect("there is one instance"))
        }
        (Some((found, instances)), None) if found == *name => {
            let n = instances.len();
            Err(Error::bad(format!("expected exactly one instance, found {n}")).within(&format!("attribute {}", context.compact(name))))
        }
        _ => Err(Error::bad(format!("expected the attribute `{}` and no other", context.compact(name)))),
    }
}

fn series_parts(value: Value, context: &Context) -> Result<Parts> {
    let value = match value {
        Value::Object(map) => Value::Object(without_simplified(map)?),
        other => other,
    };
    let mut parts = entity_parts(value, context, Series::Yes)?;
    let n_instances: usize = parts.attributes.values().map(|i| i.len()).sum();
    if n_instances > INSTANCES_IN_EVOLUTION_MAX {
        return Err(Error::bad(format!("{n_instances} instances are more than the limit of {INSTANCES_IN_EVOLUTION_MAX}")));
    }
    for (name, instances) in &mut parts.attributes {
        let mut known = HashSet::new();
        for (i, a) in instances.iter().enumerate() {
            if !known.insert((a.observed_at, a.dataset_id.as_ref())) {
                let what = match a.observed_at {
                    Some(at) => format!("a second instance is observed at {at} with the same datasetId"),
                    None => "a second instance has no `observedAt`, and the same datasetId".to_owned(),
                };
                return Err(Error::bad(what).within(&format!("attribute {}/{i}", context.compact(name))));
            }
        }
        let mut list: Vec<Attribute> = instances.to_vec();
        // What has no time is true from now on.
        list.sort_by_key(|a| (a.observed_at.is_none(), a.observed_at));
        *instances = Instances::from(list);
    }
    Ok(parts)
}

/// The same document with each array of values and times as instances (clause 4.5.9).
fn without_simplified(map: Map<String, Value>) -> Result<Map<String, Value>> {
    let mut n_instances = 0;
    map.into_iter()
        .map(|(key, value)| {
            let value = match value {
                Value::Object(one) if form_of(&one).is_some() => Value::Array(instances_of(one).map_err(|e| e.within(&at(&key)))?),
                Value::Array(list) if list.iter().any(|v| v.as_object().is_some_and(|o| form_of(o).is_some())) => {
                    let mut all = Vec::with_capacity(list.len());
                    for (i, item) in list.into_iter().enumerate() {
                        match item {
                            Value::Object(one) if form_of(&one).is_some() => {
                                all.extend(instances_of(one).map_err(|e| e.within(&i.to_string()).within(&at(&key)))?);
                            }
                            other => all.push(other),
                        }
                    }
                    Value::Array(all)
                }
                other => return Ok((key, other)),
            };
            n_instances += value.as_array().map_or(0, Vec::len);
            if n_instances > INSTANCES_IN_EVOLUTION_MAX {
                return Err(Error::bad(format!("more than the limit of {INSTANCES_IN_EVOLUTION_MAX} instances")));
            }
            Ok((key, value))
        })
        .collect()
}

fn at(key: &str) -> String {
    format!("attribute {}", shown(key))
}

/// The form of an object of values and times; none if it is an instance.
fn form_of(map: &Map<String, Value>) -> Option<&'static TemporalForm> {
    let form = TEMPORAL_FORMS.iter().find(|f| map.get(f.plural).is_some_and(Value::is_array))?;
    let is_instance = TEMPORAL_FORMS.iter().any(|f| map.contains_key(f.member));
    (!is_instance).then_some(form)
}

/// `{"type": …, "values": [[v, t], …], …}` as one instance per pair, each with the other members.
fn instances_of(mut map: Map<String, Value>) -> Result<Vec<Value>> {
    let Some(form) = form_of(&map) else { return Ok(vec![Value::Object(map)]) };
    if let Some(kind) = map.get("type").and_then(Value::as_str).filter(|kind| !form.kinds.contains(kind)) {
        return Err(Error::bad(format!("a {} does not have `{}` (expected {})", shown(kind), form.plural, form.kinds.join(" or "))));
    }
    let Some(Value::Array(pairs)) = map.remove(form.plural) else { return Ok(Vec::new()) };
    let mut instances = Vec::with_capacity(pairs.len());
    for (i, pair) in pairs.into_iter().enumerate() {
        let wrong = |found: &Value| {
            Error::bad(format!("expected a value and a time, `[value, \"2026-01-01T00:00:00Z\"]`, found {}", described(found)))
                .within(&i.to_string())
                .within(form.plural)
        };
        let Value::Array(mut pair) = pair else { return Err(wrong(&pair)) };
        if pair.len() != 2 || !pair[1].is_string() {
            return Err(wrong(&Value::Array(pair)));
        }
        let (Some(time), Some(value)) = (pair.pop(), pair.pop()) else { return Err(wrong(&Value::Null)) };
        // Texts, vocabularies and JSON are wrapped.
        let value = match value {
            Value::Object(mut wrapped) if form.is_wrapped && wrapped.len() == 1 && wrapped.contains_key(form.member) => {
                wrapped.remove(form.member).unwrap_or_default()
            }
            other => other,
        };
        let mut instance = map.clone();
        instance.insert(form.member.to_owned(), value);
        instance.insert("observedAt".to_owned(), time);
        instances.push(Value::Object(instance));
    }
    Ok(instances)
}
