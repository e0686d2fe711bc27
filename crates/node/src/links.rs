//! What entities are linked to (ETSI GS CIM 009 V1.9.1, clauses 4.5.23 and 4.9).

use std::collections::HashSet;
use std::sync::Arc;

use entity::{AttributeValue, Entity, Filter, Iri, LinkedCondition};
use indexmap::IndexMap;
use policy::Principal;

use crate::error::NodeError;
use crate::node::Node;
use crate::operations::Query;

/// Linked entities in one answer.
pub const LINKED_ENTITIES_MAX: usize = 10_000;

/// Entities that a condition on linked entities may hold of.
pub const LINK_TARGETS_MAX: usize = 10_000;

/// An entity that others are linked to.
#[derive(Clone, Debug)]
pub struct LinkedEntity {
    /// It.
    pub entity: Arc<Entity>,
    /// The relationships that lead to it, from the entity in the answer on; the shortest way.
    pub via: Vec<Iri>,
}

impl Node {
    /// The entities that others are linked to, each once, nearest first: those of this node that may be seen. Of the entities in the answer
    /// only the relationships that `follows` says are followed.
    ///
    /// Errors: more than [`LINKED_ENTITIES_MAX`].
    pub fn linked(
        &self,
        who: &Principal,
        from: &[Arc<Entity>],
        levels: usize,
        follows: &dyn Fn(&Iri) -> bool,
    ) -> Result<IndexMap<Iri, LinkedEntity>, NodeError> {
        let mut found: IndexMap<Iri, LinkedEntity> = IndexMap::new();
        let mut missing: HashSet<Iri> = HashSet::new();
        let mut edge: Vec<(Arc<Entity>, Vec<Iri>)> = from.iter().map(|e| (Arc::clone(e), Vec::new())).collect();
        for level in 0..levels {
            let mut next = Vec::new();
            for (entity, via) in edge {
                for (name, id) in targets(&entity).filter(|(name, _)| level > 0 || follows(name)) {
                    if found.contains_key(id) || missing.contains(id) {
                        continue;
                    }
                    let target = match self.entity(who, id) {
                        Ok(target) => target,
                        Err(NodeError::NoEntity { .. }) => {
                            missing.insert(id.clone());
                            continue;
                        }
                        Err(e) => return Err(e),
                    };
                    if found.len() >= LINKED_ENTITIES_MAX {
                        let what = format!("the answer would have more than {LINKED_ENTITIES_MAX} linked entities");
                        return Err(NodeError::Limit { what });
                    }
                    let via: Vec<Iri> = via.iter().chain([name]).cloned().collect();
                    next.push((Arc::clone(&target), via.clone()));
                    found.insert(id.clone(), LinkedEntity { entity: target, via });
                }
            }
            edge = next;
        }
        Ok(found)
    }

    /// The condition with targets in the place of conditions on linked entities.
    ///
    /// Errors: such a condition holds of more than [`LINK_TARGETS_MAX`] entities.
    pub(crate) fn follow_links(&self, who: &Principal, filter: &Filter) -> Result<Filter, NodeError> {
        filter.clone().with_targets(&mut |linked: &LinkedCondition| {
            let types = linked.types.clone().map_or_else(Filter::all, Filter::Type);
            let mut query = Query::of(types.and(linked.condition.clone()), crate::QUERY_LIMIT_MAX);
            let mut ids = Vec::new();
            loop {
                let page = self.query(who, &query)?;
                ids.extend(page.entities.iter().map(|e| e.id.clone()));
                if ids.len() > LINK_TARGETS_MAX {
                    let what = format!("the condition behind `{}` holds of more than {LINK_TARGETS_MAX} entities", linked.relationship);
                    return Err(NodeError::Limit { what });
                }
                if !page.more {
                    return Ok(ids);
                }
                query.offset += crate::QUERY_LIMIT_MAX;
            }
        })
    }
}

/// The targets of an entity's relationships, each with the relationship.
fn targets(entity: &Entity) -> impl Iterator<Item = (&Iri, &Iri)> {
    entity.attributes.iter().flat_map(|(name, instances)| {
        let iris = instances.iter().flat_map(|a| match &a.value {
            AttributeValue::Relationship(iris) | AttributeValue::ListRelationship(iris) => iris.as_slice(),
            _ => &[],
        });
        iris.map(move |id| (name, id))
    })
}
