//! What a node lends to a session.

use std::sync::Arc;

use entity::{Entity, Iri};
use store::history::History;

use crate::Sink;

/// The entities and the history that one session may see.
///
/// Every method is asked anew for each statement, so that types, entities and permissions may change at any time.
pub trait Source: Send + Sync {
    /// The types of which there is at least one entity.
    fn types(&self) -> Vec<Iri>;

    /// The entities that have this type. Cost: one pointer per entity.
    fn entities(&self, entity_type: &Iri) -> Vec<Arc<Entity>>;

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
