//! Taking something out of the past.

use std::collections::BTreeSet;

use entity::{CommandError, Iri};
use policy::{Action, Principal};
use store::history::{ErasedInstances, ErasedTimes, Erasure, Marked, TemporalQuery};

use crate::error::NodeError;
use crate::node::Node;
use crate::temporal::has_rows;

/// What is to be taken out of the past. The present stays as it is.
#[derive(Clone, PartialEq, Debug)]
pub struct EraseRequest {
    /// Of which entities.
    pub of: Erased,
    /// Values of which attribute; none for everything that is known.
    pub attribute: Option<Iri>,
    /// Which instances of it.
    pub instances: ErasedInstances,
    /// Of which time.
    pub times: ErasedTimes,
}

/// Whose past is concerned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Erased {
    /// One entity, whatever types it has had.
    Entity(Iri),
    /// One entity as far as it had this type, or all entities of the type.
    Type(Iri, Option<Iri>),
}

impl Node {
    /// Takes something out of the past; durable when this returns. Blocks the thread.
    ///
    /// Errors: the policy's (one entity takes the right to write, all of a type that of the operator); nothing is known of it; a limit.
    pub fn erase_history(&self, who: &Principal, request: &EraseRequest) -> Result<(), NodeError> {
        let (entity, tables) = match &request.of {
            Erased::Entity(id) => {
                self.permit(who, Action::Write, None)?;
                (Some(id.clone()), self.types_in_history(id)?)
            }
            Erased::Type(entity_type, entity) => {
                self.permit(who, if entity.is_some() { Action::Write } else { Action::Administer }, None)?;
                if !self.store.history().tables().iter().any(|t| t.entity_type == *entity_type) {
                    return Err(NodeError::Invalid { what: format!("there is no history of entities of type `{entity_type}`") });
                }
                (entity.clone(), vec![entity_type.clone()])
            }
        };
        if let (Some(id), Some(name)) = (&entity, &request.attribute)
            && !self.has_past(id, name)?
        {
            return Err(NodeError::Command(CommandError::NoAttribute { id: id.clone(), name: name.clone(), dataset_id: None }));
        }
        for entity_type in tables {
            self.store.erase_and_wait(Erasure {
                entity_type,
                // Set when it is recorded.
                recorded_at: self.now(),
                entity: entity.clone(),
                attribute: request.attribute.clone(),
                instances: request.instances.clone(),
                times: request.times.clone(),
            })?;
        }
        Ok(())
    }

    /// Removes for good what was erased, so that it is not seen as of any time. Blocks the thread.
    pub fn purge_history(&self, who: &Principal) -> Result<(), NodeError> {
        self.permit(who, Action::Administer, None)?;
        let failed = |e: store::CheckpointError| NodeError::Maintenance { what: "purge the history", reason: host::chain(&e) };
        self.store.purge_history().map_err(failed)
    }

    /// The types under which anything is known of an entity.
    fn types_in_history(&self, id: &Iri) -> Result<Vec<Iri>, NodeError> {
        let history = self.store.history();
        let mut types = BTreeSet::new();
        history.visit_marks(Marked::Entity(id), None, &mut |mark| types.extend([mark.entity_type]))?;
        for table in history.tables() {
            if !types.contains(&table.entity_type) && has_rows(history, &table.entity_type, id)? {
                types.insert(table.entity_type);
            }
        }
        if types.is_empty() { Err(NodeError::NoEntity { id: id.clone() }) } else { Ok(types.into_iter().collect()) }
    }

    fn has_past(&self, id: &Iri, name: &Iri) -> Result<bool, NodeError> {
        let query =
            TemporalQuery { attributes: Some(vec![name.clone()]), last_n: Some(1), instances_max: 1, ..TemporalQuery::of(id.clone()) };
        Ok(self.store.history().evolution(&query)?.is_some_and(|e| e.attributes.contains_key(name)))
    }
}
