//! The city as it was known at an earlier time.
//!
//! An entity that has not changed since is what it is now. Another one is put together again from its history, with the types, scopes and
//! attributes that it had (see [`store::history::entity_as_of`]). A time from which the history is not kept any more is an error.

use std::collections::BTreeSet;
use std::sync::Arc;

use entity::{Attribute, CommandError, Entity, Filter, Instant, Iri, TypeSelector};
use policy::{Action, Permit, Principal};
use store::history::{History, HistoryError, TemporalQuery, entity_as_of};
use store::state::{LiveTable, Page, Space};

use crate::error::NodeError;
use crate::node::Node;
use crate::operations::{QUERY_LIMIT_MAX, Query};

/// Values that were recorded for one observed time, in one answer.
pub const VERSIONS_MAX: usize = 1_000;

/// Entities that are looked at for a question about an earlier time.
pub const AS_OF_ENTITIES_MAX: usize = 20_000;

/// An attribute instance at an observed time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObservedValue {
    /// The entity.
    pub entity: Iri,
    /// The attribute.
    pub name: Iri,
    /// Which instance; none for the default one.
    pub dataset_id: Option<Iri>,
    /// The moment that it speaks of.
    pub observed_at: Instant,
}

impl Node {
    /// One entity as it was known at `at`.
    ///
    /// Errors: there was none then, `at` is in the future or from before the history is kept, or its history is longer than
    /// [`AS_OF_INSTANCES_MAX`](store::history::AS_OF_INSTANCES_MAX).
    pub fn entity_as_of(&self, who: &Principal, id: &Iri, at: Instant) -> Result<Arc<Entity>, NodeError> {
        self.permit_past(who, at)?;
        let found =
            known(self.store.table(Space::City), self.store.history(), id, at)?.ok_or_else(|| NodeError::NoEntity { id: id.clone() })?;
        if is_expired(&found, at) { Err(NodeError::NoEntity { id: id.clone() }) } else { Ok(found) }
    }

    /// Entities that satisfied a condition, as it was known at `at`. The condition must name ids or types, so that it is known where to look.
    ///
    /// Errors: `at` is in the future or from before the history is kept, the question is too wide ([`AS_OF_ENTITIES_MAX`]), or a page too long.
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

    /// Ids of the entities that had a type at `at`, in order, and perhaps of some more. There are at most `max`, or it is an error.
    ///
    /// Errors: `at` is in the future or from before the history of the type is kept; there are more.
    pub fn ids_as_of(&self, who: &Principal, entity_type: &Iri, at: Instant, max: usize) -> Result<Vec<Iri>, NodeError> {
        self.permit_past(who, at)?;
        ids_of_types(self.store.table(Space::City), self.store.history(), std::slice::from_ref(entity_type), at, max)
    }

    /// All values that were recorded of one attribute instance for one observed time, newest first: what counts, and what it corrected.
    ///
    /// What was erased is left out, as far as the newest values go; retention may have removed the oldest. Errors: there is no such value now;
    /// there are more than [`VERSIONS_MAX`].
    pub fn versions(&self, who: &Principal, of: &ObservedValue) -> Result<Vec<Attribute>, NodeError> {
        self.permit_past(who, Instant::MIN)?;
        let mut versions: Vec<Attribute> = Vec::new();
        let mut query = TemporalQuery {
            attributes: Some(vec![of.name.clone()]),
            interval: Some(of.observed_at..of.observed_at.plus_micros(1)),
            ..TemporalQuery::of(of.entity.clone())
        };
        loop {
            let evolution = match self.store.history().evolution(&query) {
                // The rest is not kept.
                Err(HistoryError::NotKept { .. }) if !versions.is_empty() => return Ok(versions),
                other => other?,
            };
            let instances = evolution.into_iter().flat_map(|e| e.attributes).flat_map(|(_, instances)| instances);
            let Some(version) = instances.into_iter().find(|a| a.dataset_id == of.dataset_id) else { break };
            if versions.len() == VERSIONS_MAX {
                let what = format!("the value was corrected more than {VERSIONS_MAX} times, which is as much as one answer has");
                return Err(NodeError::Limit { what });
            }
            query.as_of = Some(version.modified_at.plus_micros(-1));
            versions.push(version);
        }
        if versions.is_empty() {
            let (id, name, dataset_id) = (of.entity.clone(), of.name.clone(), of.dataset_id.clone());
            return Err(NodeError::Command(CommandError::NoAttribute { id, name, dataset_id }));
        }
        Ok(versions)
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
    let named_ids = filter.conjuncts().find_map(|c| match c {
        Filter::Id(ids) => Some(ids.clone()),
        _ => None,
    });
    if let Some(mut ids) = named_ids {
        ids.sort();
        ids.dedup();
        if ids.len() > AS_OF_ENTITIES_MAX {
            let what =
                format!("{} ids are more than the {AS_OF_ENTITIES_MAX} entities that a question about an earlier time may name", ids.len());
            return Err(NodeError::Limit { what });
        }
        return Ok(ids);
    }
    let types = filter.conjuncts().find_map(|c| match c {
        Filter::Type(s) if !matches!(s, TypeSelector::Any) => Some(s.names()),
        _ => None,
    });
    let types = types.ok_or_else(|| NodeError::Invalid { what: "a question as of an earlier time needs ids or types".to_owned() })?;
    ids_of_types(table, history, &types, at, AS_OF_ENTITIES_MAX)
}

/// Ids of the entities that may have had one of these types, in order.
fn ids_of_types(table: &LiveTable, history: &dyn History, types: &[Iri], at: Instant, max: usize) -> Result<Vec<Iri>, NodeError> {
    let too_many = || NodeError::Limit {
        what: format!("more than {max} entities are to be looked at as of an earlier time, which is the limit: name ids or a smaller type"),
    };
    let mut ids = BTreeSet::new();
    for entity_type in types {
        history.kept(entity_type).check(entity_type, Some(&[]), Some(at))?;
        // Of entities from before there were marks, and of values that are not kept, only the present knows.
        for part in table.latest(entity_type) {
            ids.extend(part?.iter().filter(|e| e.created_at <= at).map(|e| e.id.clone()));
            if ids.len() > max {
                return Err(too_many());
            }
        }
        ids.extend(history.entity_ids(entity_type, Some(at), max + 1)?);
        if ids.len() > max {
            return Err(too_many());
        }
    }
    Ok(ids.into_iter().collect())
}

/// The entity as it was known at `at`, if there was one.
fn known(table: &LiveTable, history: &dyn History, id: &Iri, at: Instant) -> Result<Option<Arc<Entity>>, NodeError> {
    let present = table.try_get(id.as_str())?;
    match present {
        Some(present) if present.modified_at <= at => Ok(Some(present)),
        present => Ok(entity_as_of(history, id, at, present.as_deref())?.map(Arc::new)),
    }
}

#[cfg(test)]
#[path = "as_of_tests.rs"]
mod tests;
