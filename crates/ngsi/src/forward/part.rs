//! The part of an entity that a registration is about (clauses 4.3.6.1 and 5.6).

use entity::registration::{Information, Registration};
use entity::{Entity, Iri};

/// Does this part of a registration speak of the entity? A fragment without types may be of any.
fn is_about(i: &Information, e: &Entity) -> bool {
    let fits = |types: &[Iri]| e.types.is_empty() || types.iter().any(|t| e.types.contains(t));
    i.entities.is_empty() || i.entities.iter().any(|info| info.has_id(&e.id) && fits(&info.types))
}

fn has_instance(r: &Registration, dataset_id: Option<&Iri>) -> bool {
    r.dataset_ids.as_ref().is_none_or(|list| list.iter().any(|d| d.as_ref() == dataset_id))
}

/// The entity with only the attributes and instances that are registered, and all of its types; none if it is not about this entity, or only about attributes
/// that it has not.
#[must_use]
pub fn part_of(entity: &Entity, registration: &Registration) -> Option<Entity> {
    let about: Vec<&Information> = registration.information.iter().filter(|i| is_about(i, entity)).collect();
    let has_all = about.iter().any(|i| i.has_all_attributes());
    let mut part = entity.clone();
    for instances in part.attributes.values_mut() {
        instances.retain(|i| has_instance(registration, i.dataset_id.as_ref()));
    }
    part.attributes.retain(|name, instances| !instances.is_empty() && about.iter().any(|i| i.has_attribute(name)));
    if about.is_empty() || part.attributes.is_empty() && !has_all {
        return None;
    }
    Some(part)
}

/// The same for writing: of the types, too, only those that are registered.
#[must_use]
pub fn part_to_write(entity: &Entity, registration: &Registration) -> Option<Entity> {
    let mut part = part_of(entity, registration)?;
    let about = || registration.information.iter().filter(|i| is_about(i, entity));
    if about().all(|i| !i.entities.is_empty()) {
        part.types.retain(|t| about().flat_map(|i| &i.entities).any(|e| e.types.contains(t)));
    }
    Some(part)
}

/// The entity without the attributes that `part` has; false if nothing of its own is left and `part` is the whole of it.
#[must_use]
pub fn without(mut entity: Entity, part: &Entity) -> (Entity, bool) {
    let had_attributes = !entity.attributes.is_empty();
    for (name, taken) in &part.attributes {
        if let Some(instances) = entity.attributes.get_mut(name) {
            instances.retain(|i| !taken.iter().any(|t| t.dataset_id == i.dataset_id));
        }
    }
    entity.attributes.retain(|_, instances| !instances.is_empty());
    let is_left = had_attributes && !entity.attributes.is_empty();
    (entity, is_left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContextStore, decode};
    use entity::Instances;
    use serde_json::{Value, json};

    fn read(information: Value, dataset_ids: Value) -> Registration {
        let contexts = ContextStore::new(None, None).unwrap();
        let mut r = json!({"type": "ContextSourceRegistration", "endpoint": "http://a.example", "information": information});
        if !dataset_ids.is_null() {
            r["datasetId"] = dataset_ids;
        }
        decode::registration(r, contexts.core_context(), || Iri::known("urn:r:1")).unwrap()
    }

    fn entity() -> Entity {
        let contexts = ContextStore::new(None, None).unwrap();
        let e = json!({"id": "urn:x:1", "type": ["A", "B"], "p": 1, "q": 2, "m": [{"value": 1}, {"value": 2, "datasetId": "urn:d:1"}]});
        decode::entity(e, contexts.core_context()).unwrap()
    }

    fn names(e: &Entity) -> Vec<&str> {
        e.attributes.keys().map(Iri::local_name).collect()
    }

    #[test]
    fn only_what_is_registered_is_taken() {
        let by_type = read(json!([{"entities": [{"type": "A"}], "propertyNames": ["p"]}]), Value::Null);
        assert_eq!(part_of(&entity(), &by_type).unwrap().types.len(), 2);
        let part = part_to_write(&entity(), &by_type).unwrap();
        assert_eq!((names(&part), part.types.len()), (vec!["p"], 1));
        let (left, is_left) = without(entity(), &part);
        assert_eq!((names(&left), is_left), (vec!["q", "m"], true));
        assert!(part_of(&entity(), &read(json!([{"entities": [{"type": "C"}]}]), Value::Null)).is_none());
        assert!(part_of(&entity(), &read(json!([{"entities": [{"type": "A", "id": "urn:x:2"}]}]), Value::Null)).is_none());
        assert!(part_of(&entity(), &read(json!([{"propertyNames": ["z"]}]), Value::Null)).is_none());
        let whole = part_of(&entity(), &read(json!([{"entities": [{"type": ["A", "B"], "idPattern": "x:1$"}]}]), Value::Null)).unwrap();
        assert_eq!(whole, entity());
        assert!(!without(entity(), &whole).1);
        let one_instance = part_of(&entity(), &read(json!([{"propertyNames": ["m"]}]), json!(["urn:d:1"]))).unwrap();
        assert_eq!(one_instance.attributes.values().map(|i: &Instances| i.len()).collect::<Vec<_>>(), [1]);
        let (left, _) = without(entity(), &one_instance);
        assert_eq!(left.attributes.len(), 3, "the default instance stays");
    }
}
