//! The city as it was known at an earlier time.
//!
//! An entity that has not changed since is what it is now. Another one is put together again from its history: of each attribute instance the
//! value that was present then, unless it had been removed. The history keeps the first type of an entity and no scopes, so an entity that
//! is put together has that type only, and is in no scope.

use std::collections::BTreeMap;
use std::sync::Arc;

use entity::{Attribute, Entity, Filter, Instant, Iri, TypeSelector};
use policy::{Action, Permit, Principal};
use store::history::{History, TemporalQuery};
use store::state::{LiveTable, Page, Space};

use crate::error::NodeError;
use crate::node::Node;
use crate::operations::{QUERY_LIMIT_MAX, Query};

/// Instances of one entity that are looked at to put it together.
pub const AS_OF_INSTANCES_MAX: usize = 500_000;
/// Entities that are looked at for a question about an earlier time.
pub const AS_OF_ENTITIES_MAX: usize = 20_000;

impl Node {
    /// One entity as it was known at `at`.
    ///
    /// Errors: there was none then, `at` is in the future, or its history is longer than [`AS_OF_INSTANCES_MAX`].
    pub fn entity_as_of(&self, who: &Principal, id: &Iri, at: Instant) -> Result<Arc<Entity>, NodeError> {
        self.permit_past(who, at)?;
        let found =
            known(self.store.table(Space::City), self.store.history(), id, at)?.ok_or_else(|| NodeError::NoEntity { id: id.clone() })?;
        if is_expired(&found, at) { Err(NodeError::NoEntity { id: id.clone() }) } else { Ok(found) }
    }

    /// Entities that satisfied a condition, as it was known at `at`. The condition must name ids or types, so that it is known where to look.
    ///
    /// Errors: `at` is in the future, the question is too wide ([`AS_OF_ENTITIES_MAX`]), or a page too long.
    pub fn query_as_of(&self, who: &Principal, query: &Query, at: Instant) -> Result<Page, NodeError> {
        self.permit_past(who, at)?;
        if query.limit > QUERY_LIMIT_MAX {
            return Err(NodeError::Limit {
                what: format!("limit {} is more than the {QUERY_LIMIT_MAX} entities that one page may have", query.limit),
            });
        }
        if query.text.is_some() || query.order_by.is_some() {
            let what = "words of names and other orders than that of ids are known of the present only: ask without `asOf`".to_owned();
            return Err(NodeError::Invalid { what });
        }
        page_as_of(self.store.table(Space::City), self.store.history(), query, at)
    }

    fn permit_past(&self, who: &Principal, at: Instant) -> Result<(), NodeError> {
        if !matches!(self.permit(who, Action::Read, None)?, Permit::Everything) {
            return Err(NodeError::Denied { reason: "another city's questions come through the exchange between nodes".to_owned() });
        }
        let now = self.now();
        if at > now {
            return Err(NodeError::Invalid { what: format!("`{at}` is in the future (it is {now}): nothing is known of then") });
        }
        Ok(())
    }
}

fn is_expired(entity: &Entity, at: Instant) -> bool {
    entity.expires_at.is_some_and(|e| e <= at)
}

fn page_as_of(table: &LiveTable, history: &dyn History, query: &Query, at: Instant) -> Result<Page, NodeError> {
    let mut page = Page::default();
    let mut n_matched = 0;
    for id in candidates(table, history, &query.filter, at)? {
        let Some(entity) = known(table, history, &id, at)?.filter(|e| !is_expired(e, at) && query.filter.matches(e)) else { continue };
        n_matched += 1;
        if n_matched <= query.offset {
            continue;
        }
        if page.entities.len() < query.limit {
            page.entities.push(entity);
            continue;
        }
        page.more = true;
        if !query.count {
            break;
        }
    }
    page.total = query.count.then_some(n_matched);
    Ok(page)
}

/// Ids of the entities that may satisfy the filter, in their order.
fn candidates(table: &LiveTable, history: &dyn History, filter: &Filter, at: Instant) -> Result<Vec<Iri>, NodeError> {
    let too_many = |n: usize| NodeError::Limit {
        what: format!(
            "{n} entities or more are to be looked at as of an earlier time; the limit is {AS_OF_ENTITIES_MAX}: name ids or a type"
        ),
    };
    let named_ids = filter.conjuncts().find_map(|c| match c {
        Filter::Id(ids) => Some(ids.clone()),
        _ => None,
    });
    if let Some(mut ids) = named_ids {
        ids.sort();
        ids.dedup();
        return if ids.len() > AS_OF_ENTITIES_MAX { Err(too_many(ids.len())) } else { Ok(ids) };
    }
    let types = filter.conjuncts().find_map(|c| match c {
        Filter::Type(s) if !matches!(s, TypeSelector::Any) => Some(s.names()),
        _ => None,
    });
    let types = types.ok_or_else(|| NodeError::Invalid { what: "a question as of an earlier time needs ids or types".to_owned() })?;
    let mut ids = std::collections::BTreeSet::new();
    for entity_type in types {
        ids.extend(table.of_type(&entity_type).iter().filter(|e| e.created_at <= at).map(|e| e.id.clone()));
        if ids.len() > AS_OF_ENTITIES_MAX {
            return Err(too_many(ids.len()));
        }
        ids.extend(history.entity_ids(&entity_type, Some(at), AS_OF_ENTITIES_MAX + 1)?);
        if ids.len() > AS_OF_ENTITIES_MAX {
            return Err(too_many(ids.len()));
        }
    }
    Ok(ids.into_iter().collect())
}

/// The entity as it was known at `at`, if there was one.
fn known(table: &LiveTable, history: &dyn History, id: &Iri, at: Instant) -> Result<Option<Arc<Entity>>, NodeError> {
    match table.get(id.as_str()) {
        Some(present) if present.modified_at <= at => Ok(Some(present)),
        _ => Ok(rebuilt(history, id, at)?.map(Arc::new)),
    }
}

/// The entity put together from its history.
fn rebuilt(history: &dyn History, id: &Iri, at: Instant) -> Result<Option<Entity>, NodeError> {
    let all = TemporalQuery { as_of: Some(at), instances_max: AS_OF_INSTANCES_MAX, ..TemporalQuery::of(id.clone()) };
    let Some(evolution) = history.evolution(&all)? else { return Ok(None) };
    if evolution.cut_at.is_some() {
        return Err(NodeError::Limit {
            what: format!("entity `{id}` has more than {AS_OF_INSTANCES_MAX} values; what it was like then cannot be put together"),
        });
    }
    let deletions = history.deletions(id, Some(at))?;
    let ended_at = deletions.iter().filter(|d| d.attribute.is_none()).map(|d| d.deleted_at).max();
    let mut removed: BTreeMap<(&Iri, Option<&Iri>), Instant> = BTreeMap::new();
    for d in &deletions {
        if let Some(name) = &d.attribute {
            let last = removed.entry((name, d.dataset_id.as_ref())).or_insert(d.deleted_at);
            *last = d.deleted_at.max(*last);
        }
    }
    let mut entity = Entity::new(id.clone(), evolution.entity_type.clone());
    let mut times: Vec<Instant> = deletions.iter().map(|d| d.deleted_at).filter(|t| ended_at.is_none_or(|end| *t > end)).collect();
    for (name, instances) in &evolution.attributes {
        let counts = |a: &&Attribute| {
            // What was put with the same change as a removal came after it.
            let is_before = |end: &Instant| a.modified_at < *end;
            !ended_at.as_ref().is_some_and(is_before) && !removed.get(&(name, a.dataset_id.as_ref())).is_some_and(is_before)
        };
        let mut of_it: Vec<&Attribute> = instances.iter().filter(counts).collect();
        times.extend(instances.iter().map(|a| a.modified_at).filter(|t| ended_at.is_none_or(|end| *t >= end)));
        of_it.sort_by_key(|a| a.modified_at);
        for value in of_it {
            // A value observed before the present one is late: it goes to the history only.
            let present = entity.instance(name.as_str(), value.dataset_id.as_ref());
            let is_late = present.is_some_and(|p| value.observed_at.is_some() && value.observed_at < p.observed_at);
            if !is_late {
                entity.put(name.clone(), value.clone());
            }
        }
    }
    let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) else { return Ok(None) };
    let created_at = entity.attributes.values().flatten().map(|a| a.created_at).min();
    (entity.created_at, entity.modified_at) = (created_at.unwrap_or(*first), *last);
    Ok(Some(entity))
}

#[cfg(test)]
#[path = "as_of_tests.rs"]
mod tests;
