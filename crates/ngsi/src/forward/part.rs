//! The part of an entity that a registration is about (clauses 4.3.6.1 and 5.6).

use entity::registration::{Information, Registration};
use entity::{Command, Entity, EntityPatch, InstancePatch, Iri};

/// Does this part of a registration speak of the entity? A fragment without types may be of any.
fn is_about(i: &Information, id: &Iri, of_types: &[Iri]) -> bool {
    let fits = |types: &[Iri]| of_types.is_empty() || types.iter().any(|t| of_types.contains(t));
    i.entities.is_empty() || i.entities.iter().any(|info| info.has_id(id) && fits(&info.types))
}

fn has_instance(r: &Registration, dataset_id: Option<&Iri>) -> bool {
    r.dataset_ids.as_ref().is_none_or(|list| list.iter().any(|d| d.as_ref() == dataset_id))
}

/// The entity with only the attributes and instances that are registered, and all of its types; none if it is not about this entity, or only about attributes
/// that it has not.
#[must_use]
pub fn part_of(entity: &Entity, registration: &Registration) -> Option<Entity> {
    let about: Vec<&Information> = registration.information.iter().filter(|i| is_about(i, &entity.id, &entity.types)).collect();
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
fn part_to_write(entity: &Entity, registration: &Registration) -> Option<Entity> {
    let mut part = part_of(entity, registration)?;
    let about = || registration.information.iter().filter(|i| is_about(i, &entity.id, &entity.types));
    if about().all(|i| !i.entities.is_empty()) {
        part.types.retain(|t| about().flat_map(|i| &i.entities).any(|e| e.types.contains(t)));
    }
    Some(part)
}

/// The entity without the attributes that `part` has; false if nothing of its own is left and `part` is the whole of it.
fn without(mut entity: Entity, part: &Entity) -> (Entity, bool) {
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

/// The part of a change that a registration is about; none if it is about nothing of it (clause 5.6).
#[must_use]
pub fn command_part(command: &Command, registration: &Registration) -> Option<Command> {
    let about = |id: &Iri, types: &[Iri]| registration.information.iter().any(|i| is_about(i, id, types));
    Some(match command {
        Command::Create(e) => Command::Create(part_to_write(e, registration)?),
        Command::UpsertReplace(e) => Command::UpsertReplace(part_to_write(e, registration)?),
        Command::UpsertUpdate(e) => Command::UpsertUpdate(part_to_write(e, registration)?),
        Command::Replace(e) => Command::Replace(part_to_write(e, registration)?),
        Command::Append { fragment, overwrite } => {
            Command::Append { fragment: part_to_write(fragment, registration)?, overwrite: *overwrite }
        }
        Command::Delete(id) => return about(id, &[]).then(|| command.clone()),
        Command::DeleteAttribute { id, name, dataset_id, all } => {
            let has_name = registration.information.iter().any(|i| is_about(i, id, &[]) && i.has_attribute(name));
            return (has_name && (*all || has_instance(registration, dataset_id.as_ref()))).then(|| command.clone());
        }
        Command::Patch { patch, mode } => Command::Patch { patch: patch_part(patch, registration)?, mode: mode.clone() },
        // What devices report and what is purged is this node's own.
        Command::RemoveAttributes { .. } | Command::Observe(_) => return None,
    })
}

fn patch_part(patch: &EntityPatch, registration: &Registration) -> Option<EntityPatch> {
    let about: Vec<&Information> = registration.information.iter().filter(|i| is_about(i, &patch.id, &patch.types)).collect();
    let mut part = patch.clone();
    part.attributes.retain(|(name, i)| about.iter().any(|a| a.has_attribute(name)) && has_instance(registration, dataset_of(i)));
    let has_all = about.iter().any(|i| i.has_all_attributes());
    if about.is_empty() || part.attributes.is_empty() && !has_all {
        return None;
    }
    if about.iter().all(|i| !i.entities.is_empty()) {
        part.types.retain(|t| about.iter().flat_map(|i| &i.entities).any(|e| e.types.contains(t)));
    }
    Some(part)
}

fn dataset_of(instance: &InstancePatch) -> Option<&Iri> {
    match instance {
        InstancePatch::Remove(dataset_id) => dataset_id.as_ref(),
        InstancePatch::Change(change) => change.dataset_id.as_ref(),
    }
}

/// What is left of a change when `taken`, a part of it, is done elsewhere and must not be done here; none if nothing is. A whole entity is
/// removed here, too, whoever else removes it (clause 5.6.6).
#[must_use]
pub fn command_left(command: Command, taken: &Command) -> Option<Command> {
    let left = |e: Entity, part: &Entity| Some(without(e, part)).filter(|(_, is_left)| *is_left).map(|(e, _)| e);
    match (command, taken) {
        (Command::Create(e), Command::Create(part)) => left(e, part).map(Command::Create),
        (Command::UpsertReplace(e), Command::UpsertReplace(part)) => left(e, part).map(Command::UpsertReplace),
        (Command::UpsertUpdate(e), Command::UpsertUpdate(part)) => left(e, part).map(Command::UpsertUpdate),
        (Command::Replace(e), Command::Replace(part)) => left(e, part).map(Command::Replace),
        (Command::Append { fragment, overwrite }, Command::Append { fragment: part, .. }) => {
            left(fragment, part).map(|fragment| Command::Append { fragment, overwrite })
        }
        (Command::Patch { mut patch, mode }, Command::Patch { patch: part, .. }) => {
            patch.attributes.retain(|one| !part.attributes.contains(one));
            (!patch.attributes.is_empty()).then_some(Command::Patch { patch, mode })
        }
        (Command::DeleteAttribute { .. }, _) => None,
        (other, _) => Some(other),
    }
}

/// The attributes that a change names.
#[must_use]
pub fn command_names(command: &Command) -> Vec<Iri> {
    match command {
        Command::Create(e) | Command::UpsertReplace(e) | Command::UpsertUpdate(e) | Command::Replace(e) | Command::Observe(e) => {
            e.attributes.keys().cloned().collect()
        }
        Command::Append { fragment, .. } => fragment.attributes.keys().cloned().collect(),
        Command::Patch { patch, .. } => {
            let mut names: Vec<Iri> = Vec::new();
            for (name, _) in &patch.attributes {
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
            names
        }
        Command::DeleteAttribute { name, .. } => vec![name.clone()],
        Command::RemoveAttributes { names, .. } => names.clone(),
        Command::Delete(_) => Vec::new(),
    }
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

    #[test]
    fn what_is_taken_and_what_is_left_are_the_whole() {
        let r = read(json!([{"entities": [{"type": "A"}], "propertyNames": ["p"]}]), Value::Null);
        let id = Iri::known("urn:x:1");
        let contexts = ContextStore::new(None, None).unwrap();
        let patch = decode::entity_patch(json!({"p": 1, "q": 2}), &id, decode::PatchForm::Merge, contexts.core_context()).unwrap();
        let name = |n: &str| contexts.core_context().expand(n).unwrap();
        let mode = entity::PatchMode::Merge(entity::MergeOptions::default());
        for command in [Command::Create(entity()), Command::Append { fragment: entity(), overwrite: true }, Command::Patch { patch, mode }]
        {
            let part = command_part(&command, &r).unwrap();
            assert_eq!(command_names(&part), [name("p")]);
            let left = command_left(command.clone(), &part).unwrap();
            let mut both = [command_names(&part), command_names(&left)].concat();
            both.sort();
            let mut all = command_names(&command);
            all.sort();
            assert_eq!(both, all);
            assert!(command_left(part.clone(), &part).is_none());
        }
        let delete = |n: &str| Command::DeleteAttribute { id: id.clone(), name: name(n), dataset_id: None, all: false };
        assert_eq!(command_part(&delete("p"), &r), Some(delete("p")));
        assert_eq!(command_part(&delete("q"), &r), None);
        assert_eq!(command_left(delete("p"), &delete("p")), None);
        let whole = Command::Delete(id.clone());
        assert_eq!(command_left(whole.clone(), &whole), Some(whole));
    }
}
