//! What a node lends to a session.

use std::sync::Arc;

use entity::{AttributeValue, Entity, Iri, LOCATION};
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

    /// Those of them that have a `location` whose box meets this one (`[west, south, east, north]`, degrees), and maybe others.
    ///
    /// The default looks at every entity of the type; a source with a place index does better.
    fn entities_meeting(&self, entity_type: &Iri, bbox: [f64; 4]) -> Vec<Arc<Entity>> {
        let mut entities = self.entities(entity_type);
        let meets = |b: [f64; 4]| b[0] <= bbox[2] && b[2] >= bbox[0] && b[1] <= bbox[3] && b[3] >= bbox[1];
        entities.retain(|e| {
            let places = e.attributes.get(LOCATION).map(Vec::as_slice).unwrap_or_default();
            places.iter().any(|a| matches!(&a.value, AttributeValue::Geo(geometry) if meets(geometry.bbox())))
        });
        entities
    }

    /// The history.
    fn history(&self) -> &dyn History;

    /// The name of a type or attribute for people, such as `pm25`; not necessarily unique.
    fn short_name(&self, name: &Iri) -> String;
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
