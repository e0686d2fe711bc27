//! Registrations by id and by type.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use entity::registration::{Selected, Specification};
use entity::{Iri, TypeSelector};

use super::Registered;

/// Registrations; those that name types for every entity are found by type, so that a request does not look at all of them.
#[derive(Default)]
pub(super) struct Table {
    by_id: BTreeMap<Iri, Arc<Registered>>,
    by_type: HashMap<Iri, Vec<Arc<Registered>>>,
    /// Those with a part that is about any type.
    any_type: Vec<Arc<Registered>>,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn get(&self, id: &str) -> Option<&Arc<Registered>> {
        self.by_id.get(id)
    }

    /// Ordered by id.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Registered>> {
        self.by_id.values()
    }

    pub(super) fn insert(&mut self, registered: Arc<Registered>) {
        let registration = &registered.registration;
        if registration.information.iter().any(|i| i.entities.is_empty()) {
            self.any_type.push(Arc::clone(&registered));
        } else {
            for name in registration.types() {
                self.by_type.entry(name.clone()).or_default().push(Arc::clone(&registered));
            }
        }
        self.by_id.insert(registration.id.clone(), registered);
    }

    pub(super) fn remove(&mut self, id: &Iri) -> Option<Arc<Registered>> {
        let removed = self.by_id.remove(id)?;
        let others = |r: &Arc<Registered>| !Arc::ptr_eq(r, &removed);
        self.any_type.retain(others);
        for name in removed.registration.types() {
            if let Some(list) = self.by_type.get_mut(name) {
                list.retain(others);
                if list.is_empty() {
                    self.by_type.remove(name);
                }
            }
        }
        Some(removed)
    }

    /// Registrations that may hold what is asked for, ordered by id, each once.
    pub(super) fn matching(&self, asked: &Specification) -> Vec<Arc<Registered>> {
        let mut found: Vec<&Arc<Registered>> = match types_of(&asked.entities) {
            Some(types) => self.any_type.iter().chain(types.iter().filter_map(|t| self.by_type.get(t)).flatten()).collect(),
            None => self.by_id.values().collect(),
        };
        found.sort_by(|a, b| a.registration.id.cmp(&b.registration.id));
        found.dedup_by(|a, b| Arc::ptr_eq(a, b));
        found.into_iter().filter(|r| r.registration.matches(asked).is_some()).cloned().collect()
    }
}

/// The types of which one must be named by what is looked for; none if anything may.
fn types_of(entities: &[Selected]) -> Option<Vec<Iri>> {
    if entities.is_empty() {
        return None;
    }
    let mut all = Vec::new();
    for selected in entities {
        match &selected.types {
            None => return None,
            Some(types) if has_any(types) => return None,
            Some(types) => all.extend(types.names()),
        }
    }
    Some(all)
}

fn has_any(types: &TypeSelector) -> bool {
    match types {
        TypeSelector::Any => true,
        TypeSelector::Is(_) => false,
        TypeSelector::Or(list) | TypeSelector::And(list) => list.iter().any(has_any),
    }
}
