//! What somebody wants to change, and what it comes to.
//!
//! A [`Command`] is resolved against the present state into a [`Delta`]; the delta is what the log keeps, and applying it is
//! deterministic: the same deltas in the same order give the same city.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Attribute, Attributes, Entity, EntityPatch, Instances, Instant, Iri, PatchMode, Scope, patch};

/// A wish to change one entity. The attribute's and entity's recorded times are ignored: the node sets them.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// Make a new entity (clause 5.6.1).
    Create(Entity),
    /// Create, or replace the whole content of the existing one (clause 5.6.8, option `replace`).
    UpsertReplace(Entity),
    /// Create, or update the attributes of the existing one (clause 5.6.8, option `update`).
    UpsertUpdate(Entity),
    /// Replace the whole content of an existing entity (clause 5.6.18).
    Replace(Entity),
    /// Add attributes to an existing entity; existing instances are overwritten (clause 5.6.3) or, without `overwrite`, left and reported.
    Append {
        /// The entity's id and what to add.
        fragment: Entity,
        /// Overwrite instances that exist.
        overwrite: bool,
    },
    /// Remove an entity (clause 5.6.6).
    Delete(Iri),
    /// Remove one attribute (clause 5.6.5).
    DeleteAttribute {
        /// The entity.
        id: Iri,
        /// The attribute.
        name: Iri,
        /// Which instance; none for the default one.
        dataset_id: Option<Iri>,
        /// All instances, whatever `dataset_id` says.
        all: bool,
    },
    /// Change parts of an entity (clauses 5.6.2, 5.6.4, 5.6.17, 5.6.19).
    Patch {
        /// What to change.
        patch: EntityPatch,
        /// How.
        mode: PatchMode,
    },
    /// Remove attributes of an entity: those that are named, or all others (clause 5.6.21). An entity that has none of them stays as it is.
    RemoveAttributes {
        /// The entity.
        id: Iri,
        /// The attributes.
        names: Vec<Iri>,
        /// These stay, and all others go.
        others: bool,
    },
    /// A device reports: creates the entity if it is new; a value older than the present one goes to the history only; what is known
    /// already changes nothing, so that a repeated message is harmless.
    Observe(Entity),
}

impl Command {
    /// The entity that it is about.
    #[must_use]
    pub const fn id(&self) -> &Iri {
        match self {
            Self::Create(e) | Self::UpsertReplace(e) | Self::UpsertUpdate(e) | Self::Replace(e) | Self::Observe(e) => &e.id,
            Self::Append { fragment, .. } => &fragment.id,
            Self::Patch { patch, .. } => &patch.id,
            Self::Delete(id) | Self::DeleteAttribute { id, .. } | Self::RemoveAttributes { id, .. } => id,
        }
    }
}

/// Which state of an entity a writer means. Recorded times never repeat, so the time of its last change names a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Version {
    /// There is no such entity.
    Absent,
    /// The entity whose last change was recorded at this time (its `modified_at`).
    RecordedAt(Instant),
}

impl Version {
    /// The version of what there is now.
    #[must_use]
    pub fn of(entity: Option<&Entity>) -> Self {
        entity.map_or(Self::Absent, |e| Self::RecordedAt(e.modified_at))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent => f.write_str("absent"),
            Self::RecordedAt(at) => write!(f, "the one recorded at {at}"),
        }
    }
}

/// Why a command cannot be carried out on the present state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The id is taken.
    #[error("entity `{id}` already exists")]
    AlreadyExists {
        /// The id.
        id: Iri,
    },
    /// The entity is not the one that the writer has seen.
    #[error("entity `{id}` is not {expected}, but {found}: somebody else has changed it meanwhile")]
    Changed {
        /// The id.
        id: Iri,
        /// The version that the command is for.
        expected: Version,
        /// The version that there is.
        found: Version,
    },
    /// No such entity.
    #[error("entity `{id}` does not exist")]
    NoEntity {
        /// The id.
        id: Iri,
    },
    /// No such attribute, or no such instance of it.
    #[error("entity `{id}` has no attribute `{name}`{}", dataset_id.as_ref().map(|d| format!(" with datasetId `{d}`")).unwrap_or_default())]
    NoAttribute {
        /// The entity.
        id: Iri,
        /// The attribute.
        name: Iri,
        /// The instance.
        dataset_id: Option<Iri>,
    },
    /// The attribute that there is cannot be changed so.
    #[error("attribute `{name}` of entity `{id}`: {what}")]
    Misfit {
        /// The entity.
        id: Iri,
        /// The attribute.
        name: Iri,
        /// What does not fit.
        what: String,
    },
}

/// A change of one entity, resolved: what the log keeps. Applying it needs nothing but the previous state and the recorded time.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Delta {
    /// The entity.
    pub id: Iri,
    /// It goes away (nothing else is set then).
    #[serde(default, rename = "x", skip_serializing_if = "std::ops::Not::not")]
    pub delete: bool,
    /// All attributes, types and scopes are dropped first.
    #[serde(default, rename = "r", skip_serializing_if = "std::ops::Not::not")]
    pub clear: bool,
    /// Types to add.
    #[serde(default, rename = "t", skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<Iri>,
    /// The scopes from now on.
    #[serde(default, rename = "s", skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<Scope>>,
    /// Instances that are the present ones from now on.
    #[serde(default, rename = "p", skip_serializing_if = "Vec::is_empty")]
    pub put: Vec<(Iri, Arc<Attribute>)>,
    /// Instances observed before the present ones: history only.
    #[serde(default, rename = "l", skip_serializing_if = "Vec::is_empty")]
    pub late: Vec<(Iri, Arc<Attribute>)>,
    /// Instances to remove, by name and `datasetId`.
    #[serde(default, rename = "d", skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<(Iri, Option<Iri>)>,
    /// When the entity expires from now on: `Some(None)` for never.
    #[serde(default, rename = "e", skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub expires_at: Option<Option<Instant>>,
}

/// What came of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The entity is new.
    Created,
    /// The entity existed; these attributes were written, those were left with the reason.
    Updated {
        /// Names written.
        updated: Vec<Iri>,
        /// Names left, each with the reason.
        left: Vec<(Iri, String)>,
    },
    /// The entity is gone.
    Deleted,
    /// Everything was known already.
    Unchanged,
}

/// A command resolved against the present state.
#[derive(Clone, PartialEq, Debug)]
pub struct Resolved {
    /// What to log and apply; none if nothing changes.
    pub delta: Option<Delta>,
    /// What to answer.
    pub outcome: Outcome,
}

/// A delta that does not fit the state it is applied to: the log and the state disagree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the log changes entity `{id}`, which the state does not have and the record does not create")]
pub struct ApplyError {
    /// The entity.
    pub id: Iri,
}

/// A member that is there, `null` included.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<Instant>>, D::Error> {
    Option::deserialize(from).map(Some)
}

impl Delta {
    pub(crate) fn of(id: &Iri) -> Self {
        Self {
            id: id.clone(),
            delete: false,
            clear: false,
            types: Vec::new(),
            scopes: None,
            put: Vec::new(),
            late: Vec::new(),
            remove: Vec::new(),
            expires_at: None,
        }
    }

    /// Does it change nothing?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.delete
            && !self.clear
            && self.types.is_empty()
            && self.scopes.is_none()
            && self.put.is_empty()
            && self.late.is_empty()
            && self.remove.is_empty()
            && self.expires_at.is_none()
    }

    /// The entity after this delta, recorded at `at`; none if it is gone. What the delta brings gets its recorded times, and is then shared
    /// with the entity.
    ///
    /// Errors: [`ApplyError`] if there is no entity before and the delta brings no type for a new one.
    pub fn apply(&mut self, before: Option<Entity>, at: Instant) -> Result<Option<Entity>, ApplyError> {
        if self.delete {
            return Ok(None);
        }
        let mut entity = match before {
            Some(e) => e,
            None if self.types.is_empty() => return Err(ApplyError { id: self.id.clone() }),
            None => Entity {
                id: self.id.clone(),
                types: Vec::new(),
                scopes: Vec::new(),
                attributes: Attributes::default(),
                created_at: at,
                modified_at: at,
                expires_at: None,
            },
        };
        if self.clear {
            entity.types.clear();
            entity.scopes.clear();
            entity.attributes.clear();
            entity.expires_at = None;
        }
        for t in &self.types {
            if !entity.types.contains(t) {
                entity.types.push(t.clone());
            }
        }
        if let Some(scopes) = &self.scopes {
            entity.scopes.clone_from(scopes);
        }
        for (name, dataset_id) in &self.remove {
            if let Some(instances) = entity.attributes.get_mut(name) {
                instances.retain(|i| i.dataset_id != *dataset_id);
                if instances.is_empty() {
                    entity.attributes.shift_remove(name);
                }
            }
        }
        for (name, attribute) in &mut self.put {
            let stamped = Arc::make_mut(attribute);
            let idx = entity.idx_of(name);
            match idx.and_then(|idx| entity.attributes.get_index_mut(idx)) {
                Some((_, instances)) => {
                    let present = instances.iter().find(|i| i.dataset_id == stamped.dataset_id);
                    stamp(stamped, present, at);
                    instances.put(Arc::clone(attribute));
                }
                None => {
                    stamp(stamped, None, at);
                    entity.put(name.clone(), Arc::clone(attribute));
                }
            }
        }
        for (_, attribute) in &mut self.late {
            // A correction was created when what it corrects was.
            let created_at = Some(attribute.created_at).filter(|at| *at != Instant::default());
            let attribute = Arc::make_mut(attribute);
            stamp(attribute, None, at);
            attribute.created_at = created_at.unwrap_or(at);
        }
        if let Some(expires_at) = self.expires_at {
            entity.expires_at = expires_at;
        }
        entity.modified_at = at;
        Ok(Some(entity))
    }
}

/// Sets the recorded times of an instance and of all that it contains.
fn stamp(attribute: &mut Attribute, present: Option<&Attribute>, at: Instant) {
    attribute.created_at = present.map_or(at, |p| p.created_at);
    attribute.modified_at = at;
    for (name, sub) in attribute.sub_attributes.each_mut() {
        let of_name = present.and_then(|p| p.sub_attributes.get(name));
        let known = of_name.and_then(|all| all.iter().find(|a| a.dataset_id == sub.dataset_id));
        stamp(sub, known, at);
    }
}

/// Resolves `command` against the present `current` state of its entity.
pub fn resolve(command: Command, current: Option<&Entity>) -> Result<Resolved, CommandError> {
    match (command, current) {
        (Command::Create(e), Some(_)) => Err(CommandError::AlreadyExists { id: e.id }),
        (Command::Create(e) | Command::UpsertReplace(e) | Command::UpsertUpdate(e) | Command::Observe(e), None) => Ok(create(e)),
        (Command::Replace(e) | Command::UpsertReplace(e), Some(_)) => {
            let updated = e.attributes.keys().cloned().collect();
            let mut delta = delta_of(e);
            delta.clear = true;
            Ok(Resolved { delta: Some(delta), outcome: Outcome::Updated { updated, left: Vec::new() } })
        }
        (Command::UpsertUpdate(e), Some(current)) => Ok(append(e, current, true)),
        (Command::Append { fragment, overwrite }, Some(current)) => Ok(append(fragment, current, overwrite)),
        (Command::Delete(id), Some(_)) => Ok(Resolved { delta: Some(Delta { delete: true, ..Delta::of(&id) }), outcome: Outcome::Deleted }),
        (Command::DeleteAttribute { id, name, dataset_id, all }, Some(current)) => {
            let instances = current.attributes.get(&name).map(Instances::as_slice).unwrap_or_default();
            let remove: Vec<_> =
                instances.iter().filter(|i| all || i.dataset_id == dataset_id).map(|i| (name.clone(), i.dataset_id.clone())).collect();
            if remove.is_empty() {
                return Err(CommandError::NoAttribute { id, name, dataset_id });
            }
            let outcome = Outcome::Updated { updated: vec![name], left: Vec::new() };
            Ok(Resolved { delta: Some(Delta { remove, ..Delta::of(&id) }), outcome })
        }
        (Command::Observe(e), Some(current)) => Ok(observe(e, current)),
        (Command::Patch { patch, mode }, Some(current)) => patch::resolve(patch, &mode, current),
        (Command::RemoveAttributes { id, names, others }, Some(current)) => Ok(patch::remove_attributes(&id, &names, others, current)),
        (Command::Patch { patch: EntityPatch { id, .. }, .. } | Command::RemoveAttributes { id, .. }, None) => {
            Err(CommandError::NoEntity { id })
        }
        (Command::Replace(Entity { id, .. }) | Command::Append { fragment: Entity { id, .. }, .. }, None)
        | (Command::Delete(id) | Command::DeleteAttribute { id, .. }, None) => Err(CommandError::NoEntity { id }),
    }
}

fn delta_of(e: Entity) -> Delta {
    let mut put = Vec::with_capacity(e.attributes.len());
    for (name, instances) in e.attributes {
        put.extend(instances.into_iter().map(|i| (name.clone(), i)));
    }
    Delta {
        types: e.types,
        scopes: if e.scopes.is_empty() { None } else { Some(e.scopes) },
        put,
        expires_at: e.expires_at.map(Some),
        ..Delta::of(&e.id)
    }
}

fn create(e: Entity) -> Resolved {
    Resolved { delta: Some(delta_of(e)), outcome: Outcome::Created }
}

fn append(fragment: Entity, current: &Entity, overwrite: bool) -> Resolved {
    let mut delta = delta_of(fragment);
    let mut left = Vec::new();
    delta.types.retain(|t| !current.types.contains(t));
    if !overwrite {
        delta.put.retain(|(name, a)| {
            let exists = current.instance(name.as_str(), a.dataset_id.as_ref()).is_some();
            if exists {
                left.push((name.clone(), "the attribute exists and noOverwrite was asked".to_owned()));
            }
            !exists
        });
        // Without overwriting, scopes are added to those that the entity has (clause 5.6.3).
        if let Some(new) = delta.scopes.take() {
            let mut all = current.scopes.clone();
            all.extend(new.into_iter().filter(|s| !current.scopes.contains(s)));
            delta.scopes = Some(all);
        }
    }
    let mut updated: Vec<Iri> = delta.put.iter().map(|(n, _)| n.clone()).collect();
    updated.dedup();
    Resolved { delta: (!delta.is_empty()).then_some(delta), outcome: Outcome::Updated { updated, left } }
}

fn observe(e: Entity, current: &Entity) -> Resolved {
    let mut delta = delta_of(e);
    delta.types.retain(|t| !current.types.contains(t));
    delta.scopes = delta.scopes.filter(|s| *s != current.scopes);
    delta.expires_at = delta.expires_at.filter(|e| *e != current.expires_at);
    for (name, attribute) in std::mem::take(&mut delta.put) {
        match current.instance_named(&name, attribute.dataset_id.as_ref()) {
            Some(present) if present.says_the_same_as(&attribute) => {}
            Some(present) if attribute.observed_at < present.observed_at && attribute.observed_at.is_some() => {
                delta.late.push((name, attribute));
            }
            _ => delta.put.push((name, attribute)),
        }
    }
    let mut updated: Vec<Iri> = delta.put.iter().chain(&delta.late).map(|(n, _)| n.clone()).collect();
    updated.dedup();
    if delta.is_empty() {
        return Resolved { delta: None, outcome: Outcome::Unchanged };
    }
    Resolved { delta: Some(delta), outcome: Outcome::Updated { updated, left: Vec::new() } }
}

#[cfg(test)]
mod tests;
