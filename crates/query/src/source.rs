//! What a node lends to a session.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use entity::{Entity, Filter, Instant, Iri};
use store::history::{AttributeColumn, History};

use crate::{Sink, walk};

/// Rows as they are now, a batch at a time. Dropping it ends the reading.
pub type Rows = Box<dyn Iterator<Item = Result<RecordBatch, SourceError>> + Send>;

/// Why rows cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A value came that does not fit the column that was announced.
    #[error("attribute `{attribute}` of `{entity}` is no longer {expected}")]
    Changed {
        /// The attribute.
        attribute: Iri,
        /// The entity that has such a value.
        entity: String,
        /// What the column was.
        expected: &'static str,
    },
    /// More entities are to be looked at as of an earlier time than is allowed.
    #[error(
        "more than {max} entities of type `{entity_type}` are to be looked at as of an earlier time, which is the limit: name their ids"
    )]
    TooMany {
        /// The type.
        entity_type: Iri,
        /// The limit.
        max: usize,
    },
    /// The store cannot read them.
    #[error("the entities cannot be read: {0}")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The entities and the history that one session may see.
///
/// Every method is asked anew for each statement, so that types, entities and permissions may change at any time.
pub trait Source: Send + Sync {
    /// The types of which there is at least one entity.
    fn types(&self) -> Vec<Iri>;

    /// The entities that have this type. Cost: one pointer per entity.
    fn entities(&self, entity_type: &Iri) -> Vec<Arc<Entity>>;

    /// The attributes of the entities of a type, with the narrowest kind of column that holds what a table shows of each; none if there is no entity.
    ///
    /// Cost, unless the source knows better: looks at every attribute of every entity of the type.
    fn columns(&self, entity_type: &Iri) -> Option<Vec<AttributeColumn>> {
        let entities = self.entities(entity_type);
        (!entities.is_empty()).then(|| walk::columns(&entities))
    }

    /// The entities of a type that satisfy a condition, in batches.
    ///
    /// Columns: `entity_id` (text), `created_at`, `modified_at` and `observed_at` (microseconds, UTC; the last one is that of the attribute observed
    /// most recently, or null), `lon` and `lat` (of `location`: the point, or the middle; or null), then each of `attributes` as [`Source::columns`]
    /// says at this moment (an empty text for what no entity has). Of several instances the default one is shown, else the most recently observed.
    fn scan(&self, entity_type: &Iri, attributes: &[Iri], filter: &Filter) -> Rows {
        walk::rows(self.entities(entity_type), attributes, filter)
    }

    /// Ids of the entities that had this type, as it was known at `at`, and perhaps of some more; in order, at most `max` or it is an error.
    fn ids_as_of(&self, entity_type: &Iri, at: Instant, max: usize) -> Result<Vec<Iri>, SourceError> {
        let known = self.history().entity_ids(entity_type, Some(at), max + 1).map_err(|e| SourceError::Unreadable(Box::new(e)))?;
        let present = self.entities(entity_type).into_iter().filter(|e| e.created_at <= at).map(|e| e.id.clone());
        let ids: BTreeSet<Iri> = known.into_iter().chain(present).collect();
        if ids.len() > max {
            return Err(SourceError::TooMany { entity_type: entity_type.clone(), max });
        }
        Ok(ids.into_iter().collect())
    }

    /// One entity as it was known at `at`, if there was one.
    fn entity_as_of(&self, id: &Iri, at: Instant) -> Result<Option<Arc<Entity>>, SourceError> {
        let present = self.types().iter().flat_map(|t| self.entities(t)).find(|e| e.id == *id);
        let found = store::history::entity_as_of(self.history(), id, at, present.as_deref());
        Ok(found.map_err(|e| SourceError::Unreadable(Box::new(e)))?.map(Arc::new))
    }

    /// The history.
    fn history(&self) -> &dyn History;

    /// The name of a type or attribute for people, such as `pm25`; not necessarily unique.
    fn short_name(&self, name: &Iri) -> String;

    /// The full name of a type or attribute that a client calls by this name, even if there is none of it yet; none if the name means nothing.
    fn full_name(&self, name: &str) -> Option<Iri> {
        name.contains(':').then(|| name.parse().ok()).flatten()
    }
}

/// Makes the source of each session.
pub trait SourceFactory: Send + Sync {
    /// The source for a session of this principal, whose identity has been checked.
    fn source(&self, principal: &str) -> Arc<dyn Source>;

    /// May this principal see the sessions of others with their statements, and end them?
    fn oversees(&self, _principal: &str) -> bool {
        false
    }

    /// Where this principal's rows go; none if it may only read.
    fn sink(&self, _principal: &str) -> Option<Arc<dyn Sink>> {
        None
    }
}
