//! What a node lends to a session.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use entity::{Entity, Filter, Iri};
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

    /// Where this principal's rows go; none if it may only read.
    fn sink(&self, _principal: &str) -> Option<Arc<dyn Sink>> {
        None
    }
}
