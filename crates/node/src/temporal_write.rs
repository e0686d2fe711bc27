//! Putting, correcting and taking out single instances of the past (ETSI GS CIM 009 V1.9.1, clauses 5.6.11 to 5.6.15).
//!
//! There is one entity with two times. What is provided is an observation: the newest instance becomes what is present, an older one goes
//! to the history only; a correction is a second value for the same moment, recorded now.

use entity::{Attribute, Command, CommandError, Entity, InstanceId, Iri, Moment, Outcome};
use policy::{Action, Principal};
use store::history::{ErasedInstances, ErasedTimes, Marked, TemporalQuery, TimeProperty};
use store::state::Space;

use crate::erase::{EraseRequest, Erased};
use crate::error::NodeError;
use crate::node::Node;
use crate::temporal::has_rows;

/// Instances of an attribute that are recorded or observed at one moment and looked through for one.
const MOMENT_INSTANCES_MAX: usize = 100_000;

/// An instance of the past that is to become another.
#[derive(Clone, PartialEq, Debug)]
pub struct Correction {
    /// The entity.
    pub entity: Iri,
    /// The attribute.
    pub name: Iri,
    /// The instance as it is.
    pub old: Attribute,
    /// What it is to be: observed when the old one was if it does not say.
    pub new: Attribute,
}

impl Node {
    /// The types of an entity of which anything is known: those that it has, or had last; none if nothing is. Blocks the thread.
    pub fn types_known(&self, who: &Principal, id: &Iri) -> Result<Option<Vec<Iri>>, NodeError> {
        self.permit(who, Action::Read, None)?;
        if let Some(types) = self.known(id, None)?.types() {
            return Ok(Some(types.to_vec()));
        }
        let history = self.store.history();
        for table in history.tables() {
            if has_rows(history, &table.entity_type, id)? {
                return Ok(Some(vec![table.entity_type]));
            }
        }
        // Ends are known of it, at least.
        let mut found = None;
        history.visit_marks(Marked::Entity(id), None, &mut |mark| found = Some(mark.entity_type))?;
        Ok(found.map(|t| vec![t]))
    }

    /// Adds instances to an entity's past, and makes it if it is not there; durable when this returns, all with one recorded time. The
    /// attributes have their instances in the order of time.
    ///
    /// Errors: those of [`Node::write`]; the entity is not there and has no type.
    pub async fn provide_past(&self, who: &Principal, entity: Entity) -> Result<Outcome, NodeError> {
        if entity.types.is_empty() && self.store.table(Space::City).try_get(entity.id.as_str())?.is_none() {
            return Err(NodeError::NoEntity { id: entity.id });
        }
        let outcomes = self.write(who, vec![Command::Observe(entity)]).await?;
        Ok(outcomes.into_iter().next().expect("one command has one outcome")?)
    }

    /// The instance of an attribute's past that has this name. Blocks the thread.
    ///
    /// Errors: there is none.
    pub fn past_instance(&self, who: &Principal, entity: &Iri, name: &Iri, id: InstanceId) -> Result<Attribute, NodeError> {
        self.permit(who, Action::Read, None)?;
        let found = self.instances_at(entity, name, id.moment)?.into_iter().find(|a| InstanceId::of(entity, name, a) == id);
        found.ok_or_else(|| NodeError::NoInstance { entity: entity.clone(), name: name.clone(), instance: id.to_string() })
    }

    fn instances_at(&self, entity: &Iri, name: &Iri, moment: Moment) -> Result<Vec<Attribute>, NodeError> {
        let (time_property, at) = match moment {
            Moment::Observed(at) => (TimeProperty::ObservedAt, at),
            Moment::Recorded(at) => (TimeProperty::ModifiedAt, at),
        };
        let query = TemporalQuery {
            attributes: Some(vec![name.clone()]),
            interval: Some(at..at.plus_micros(1)),
            time_property,
            instances_max: MOMENT_INSTANCES_MAX,
            ..TemporalQuery::of(entity.clone())
        };
        let evolution = self.store.history().evolution(&query)?;
        Ok(evolution.into_iter().flat_map(|e| e.attributes).flat_map(|(_, list)| list).collect())
    }

    /// Puts another value in the place of an instance of the past: recorded now, created when the old one was. What was asked as of an
    /// earlier time is still answered with the old one. If the instance is what is present, the new one is from now on. Returns what was at
    /// another moment and has now to be taken out (see [`Node::erase_instance`]).
    ///
    /// Errors: those of [`Node::write`]; the entity is gone, or the instance has no observed time and is not what is present, so that a new
    /// one cannot have its place.
    pub async fn correct_instance(&self, who: &Principal, correction: Correction) -> Result<Option<Attribute>, NodeError> {
        let Correction { entity, name, old, mut new } = correction;
        let table = self.store.table(Space::City);
        let present = table.try_get(entity.as_str())?;
        let present = present.ok_or_else(|| NodeError::Unsupported {
            what: format!("entity `{entity}` was removed: its past can be deleted, but not be corrected"),
        })?;
        if new.dataset_id.is_some() && new.dataset_id != old.dataset_id {
            return Err(NodeError::Invalid { what: "the datasetId of an instance cannot be changed".to_owned() });
        }
        new.dataset_id.clone_from(&old.dataset_id);
        new.observed_at = new.observed_at.or(old.observed_at);
        new.created_at = old.created_at;
        let now = present.instance_named(&name, old.dataset_id.as_ref());
        let is_present = now.is_some_and(|now| Moment::of(now) == Moment::of(&old));
        let is_moved = old.observed_at.is_none() || new.observed_at != old.observed_at;
        if old.observed_at.is_none() && !is_present {
            let what = "an instance without `observedAt` that is not the present one can be deleted, but not be corrected: it is known by when \
                        it was recorded";
            return Err(NodeError::Unsupported { what: what.to_owned() });
        }
        let mut fragment = Entity::new(entity.clone(), entity);
        fragment.types.clear();
        fragment.put(name, new);
        // What is present stays so, at whatever time it was observed.
        let command = if is_present { Command::Append { fragment, overwrite: true } } else { Command::Observe(fragment) };
        let outcomes = self.write(who, vec![command]).await?;
        outcomes.into_iter().next().expect("one command has one outcome")?;
        Ok(is_moved.then_some(old))
    }

    /// Takes one instance out of an attribute's past; the present stays as it is. Durable when this returns; blocks the thread.
    ///
    /// Errors: those of [`Node::erase_history`]; something that was observed was recorded with it, and would be taken out, too.
    pub fn erase_instance(&self, who: &Principal, entity: Iri, name: Iri, instance: &Attribute) -> Result<(), NodeError> {
        let moment = Moment::of(instance);
        let times = match moment {
            Moment::Observed(at) => ErasedTimes::Observed(at..at.plus_micros(1)),
            Moment::Recorded(at) => {
                let with_it = self.instances_at(&entity, &name, moment)?;
                if with_it.iter().any(|a| a.dataset_id == instance.dataset_id && a.observed_at.is_some()) {
                    let what = "the instance has no `observedAt` and was recorded together with others that have one: only all of them can be \
                                deleted";
                    return Err(NodeError::Unsupported { what: what.to_owned() });
                }
                ErasedTimes::Recorded(at..at.plus_micros(1))
            }
        };
        let instances = ErasedInstances::Of(instance.dataset_id.clone());
        match self.erase_history(who, &EraseRequest { of: Erased::Entity(entity), attribute: Some(name), instances, times }) {
            // Somebody else was quicker.
            Err(NodeError::Command(CommandError::NoAttribute { .. })) => Ok(()),
            other => other,
        }
    }
}
