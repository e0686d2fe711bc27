//! Facts that are in memory only: by table, entity and row, in the order in which they are sealed.

use std::collections::BTreeMap;
use std::sync::Arc;

use entity::{Attribute, Instant, Iri};
use smol_str::SmolStr;

use super::super::value::{Seen, SeenByName};
use super::super::{Fact, What};

/// What marks the row of a removed entity; an attribute's row is marked with its name, which always has a colon.
pub(super) const ENTITY_DELETED: &str = "*";

/// A row of one entity, in the order of the files: observed time (none first), recorded time, `datasetId`. A deletion is a row of its own.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct RowKey {
    pub(super) observed_at: Option<Instant>,
    pub(super) recorded_at: Instant,
    pub(super) dataset_id: Option<Iri>,
    /// What was deleted; none for a row of values.
    pub(super) deleted: Option<SmolStr>,
}

/// The values of a row. Few, so a list.
pub(super) type Values = Vec<(Iri, Attribute)>;

/// The rows of one entity.
pub(super) type EntityRows = BTreeMap<RowKey, Values>;

/// The facts of one entity type.
#[derive(Clone, Default)]
pub(super) struct Table {
    /// Shared with readers: an append to an entity that somebody reads copies this entity's rows, so readers hold the lock for a moment only.
    pub(super) entities: BTreeMap<Iri, Arc<EntityRows>>,
    pub(super) seen: SeenByName,
    n_facts: usize,
}

/// All facts in memory.
#[derive(Clone, Default)]
pub(super) struct Recent {
    pub(super) tables: BTreeMap<Iri, Table>,
}

impl Recent {
    /// Takes one fact in. A fact that is known already is replaced.
    pub(super) fn append(&mut self, fact: Fact) {
        let Fact { entity_type, entity, recorded_at, what } = fact;
        let table = self.tables.entry(entity_type).or_default();
        let (key, value) = match what {
            What::Value { name, instance } => {
                table.see(&name, &instance);
                let dataset_id = instance.dataset_id.clone();
                (RowKey { observed_at: instance.observed_at, recorded_at, dataset_id, deleted: None }, Some((name, instance)))
            }
            What::AttributeDeleted { name, dataset_id } => {
                (RowKey { observed_at: None, recorded_at, dataset_id, deleted: Some(SmolStr::new(name.as_str())) }, None)
            }
            What::EntityDeleted => {
                (RowKey { observed_at: None, recorded_at, dataset_id: None, deleted: Some(SmolStr::new_static(ENTITY_DELETED)) }, None)
            }
        };
        table.put(entity, key, value);
    }

    /// Adds everything of a newer `Recent` on top of this one: for a seal that failed.
    pub(super) fn overlay(&mut self, newer: &Self) {
        for (entity_type, more) in &newer.tables {
            let table = self.tables.entry(entity_type.clone()).or_default();
            super::super::value::merge_seen(&mut table.seen, &more.seen);
            for (entity, rows) in &more.entities {
                for (key, values) in rows.iter() {
                    if values.is_empty() {
                        table.put(entity.clone(), key.clone(), None);
                    }
                    for value in values {
                        table.put(entity.clone(), key.clone(), Some(value.clone()));
                    }
                }
            }
        }
    }

    pub(super) fn n_facts(&self) -> usize {
        self.tables.values().map(|t| t.n_facts).sum()
    }
}

impl Table {
    pub(super) fn n_rows(&self) -> usize {
        self.entities.values().map(|rows| rows.len()).sum()
    }

    /// The same table with only these entities, rows shared; all if none are given.
    pub(super) fn only(&self, entities: Option<&[Iri]>) -> Self {
        match entities {
            None => self.clone(),
            Some(ids) => Self {
                entities: ids
                    .iter()
                    .filter_map(|id| self.entities.get_key_value(id))
                    .map(|(id, rows)| (id.clone(), Arc::clone(rows)))
                    .collect(),
                seen: self.seen.clone(),
                n_facts: self.n_facts,
            },
        }
    }

    fn see(&mut self, name: &Iri, instance: &Attribute) {
        match self.seen.get_mut(name) {
            Some(seen) => seen.add(instance),
            None => {
                self.seen.insert(name.clone(), Seen::of(instance));
            }
        }
    }

    fn put(&mut self, entity: Iri, key: RowKey, value: Option<(Iri, Attribute)>) {
        let rows = Arc::make_mut(self.entities.entry(entity).or_default());
        let n_rows_before = rows.len();
        let values = rows.entry(key).or_default();
        match value {
            None => self.n_facts += rows.len() - n_rows_before,
            Some((name, instance)) => match values.iter_mut().find(|(known, _)| *known == name) {
                Some((_, slot)) => *slot = instance,
                None => {
                    values.push((name, instance));
                    self.n_facts += 1;
                }
            },
        }
    }
}
