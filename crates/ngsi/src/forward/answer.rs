//! Entities as a source gives them: normalized, with the times that it recorded.

use entity::{Entity, Instant};
use serde_json::Value;

use crate::context::Context;
use crate::decode::{entity, instant};
use crate::error::{Error, Result, described};

/// The most entities that one answer of a source may have.
pub const ANSWER_ENTITIES_MAX: usize = 10_000;

/// The entities of a query's answer.
///
/// Errors: not an array, longer than [`ANSWER_ENTITIES_MAX`], or with something that is no entity.
pub fn from_source(answer: Value, context: &Context) -> Result<Vec<Entity>> {
    match answer {
        Value::Array(list) if list.len() <= ANSWER_ENTITIES_MAX => list
            .into_iter()
            .enumerate()
            .map(|(i, item)| one_from_source(item, context).map_err(|e| e.within(&format!("item {i}"))))
            .collect(),
        Value::Array(list) => Err(Error::bad(format!("{} entities are more than the limit of {ANSWER_ENTITIES_MAX}", list.len()))),
        other => Err(Error::bad(format!("expected an array of entities, found {}", described(&other)))),
    }
}

/// One entity, `createdAt` and `modifiedAt` included, which newest values are told by (clause 4.5.5.2).
///
/// Errors: it is none.
pub fn one_from_source(answer: Value, context: &Context) -> Result<Entity> {
    let mut times = Vec::new();
    for (key, value) in answer.as_object().into_iter().flatten() {
        let instances = match value {
            Value::Array(list) => list.as_slice(),
            one => std::slice::from_ref(one),
        };
        for i in instances {
            let (created, modified) = recorded(i);
            if created.is_some() || modified.is_some() {
                let name = context.expand(key);
                let dataset = i.get("datasetId").and_then(Value::as_str).filter(|d| *d != crate::DEFAULT_INSTANCE).map(str::to_owned);
                times.extend(name.ok().map(|name| (name, dataset, created, modified)));
            }
        }
    }
    let (created_at, modified_at) = recorded(&answer);
    let mut found = entity(answer, context)?;
    found.created_at = created_at.unwrap_or_default();
    found.modified_at = modified_at.unwrap_or_default();
    for (name, dataset, created, modified) in times {
        let Some(instances) = found.attributes.get_mut(&name) else { continue };
        if let Some(i) = instances.iter_mut().find(|i| i.dataset_id.as_ref().map(entity::Iri::as_str) == dataset.as_deref()) {
            i.created_at = created.unwrap_or_default();
            i.modified_at = modified.unwrap_or_default();
        }
    }
    Ok(found)
}

fn recorded(value: &Value) -> (Option<Instant>, Option<Instant>) {
    let at = |name: &str| value.get(name).and_then(|v| instant(v).ok());
    (at("createdAt"), at("modifiedAt"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ContextStore;
    use serde_json::json;

    #[test]
    fn recorded_times_come_with_the_entity() {
        let contexts = ContextStore::new(None, None).unwrap();
        let answer = json!([{
            "id": "urn:x:1", "type": "A", "createdAt": "2026-01-01T00:00:00Z", "modifiedAt": "2026-01-02T00:00:00Z",
            "p": [
                {"type": "Property", "value": 1, "modifiedAt": "2026-01-03T00:00:00Z"},
                {"type": "Property", "value": 2, "datasetId": "urn:d:1", "modifiedAt": "2026-01-04T00:00:00Z"},
            ],
        }]);
        let e = from_source(answer, contexts.core_context()).unwrap().remove(0);
        let at = |day: u8| format!("2026-01-0{day}T00:00:00Z").parse::<Instant>().unwrap();
        assert_eq!((e.created_at, e.modified_at), (at(1), at(2)));
        let times: Vec<_> = e.attributes.values().flat_map(|l| l.iter()).map(|i| i.modified_at).collect();
        assert_eq!(times, [at(3), at(4)]);
        for wrong in [json!({}), json!([1]), json!([{"id": "urn:x:1"}])] {
            assert!(from_source(wrong, contexts.core_context()).is_err());
        }
    }
}
