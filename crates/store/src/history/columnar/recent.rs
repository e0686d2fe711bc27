//! What is in memory only: by table, in layers. A layer is facts, by entity and row, or a sheet of bulk rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use entity::{Attribute, Instant, Iri};
use smol_str::SmolStr;

use super::super::erasure::Erasable;
use super::super::value::{Seen, SeenByName, kind_of, merge_seen};
use super::super::{ColumnKind, Erasure, Fact, What};
use super::marks::{self, Mark};
use super::sheet::BulkSheet;
use crate::hash::FastMap;

/// Attributes of a row of which is remembered what the row before had.
const HABITS_MAX: usize = 64;

/// A row of one entity, in the order of the files: observed time (none first), recorded time, `datasetId`. A mark is a row of its own.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct RowKey {
    pub(super) observed_at: Option<Instant>,
    pub(super) recorded_at: Instant,
    pub(super) dataset_id: Option<Iri>,
    /// What the row says instead of values (see [`Mark`]); none for a row of values.
    pub(super) mark: Option<SmolStr>,
}

impl RowKey {
    /// What the row says instead of values.
    pub(super) fn mark(&self) -> Option<Mark<'_>> {
        self.mark.as_deref().map(Mark::of)
    }

    /// Which facts of the row some erasures leave, by attribute (none for the entity).
    pub(super) fn visibility<'a>(&'a self, erasures: &'a [&'a Erasure]) -> impl Fn(Option<&str>) -> bool + 'a {
        let dataset_id = self.dataset_id.as_ref().map(Iri::as_str);
        let row = Erasable { dataset_id, observed_at: self.observed_at, recorded_at: self.recorded_at };
        move |attribute| !erasures.iter().any(|e| e.concerns_attribute(attribute) && e.concerns_row(&row))
    }
}

/// The values of a row. Few, so a list.
pub(super) type Values = Vec<(Iri, Arc<Attribute>)>;

/// The rows of one entity.
pub(super) type EntityRows = BTreeMap<RowKey, Values>;

/// Facts of one entity type.
#[derive(Clone, Default)]
pub(super) struct Facts {
    /// Shared with readers: an append to an entity that somebody reads copies this entity's rows, so readers hold the lock for a moment only.
    pub(super) entities: FastMap<Iri, Arc<EntityRows>>,
    n_facts: usize,
}

/// What was appended to a table at a time.
#[derive(Clone)]
pub(super) enum Layer {
    Facts(Facts),
    Bulk(Arc<BulkSheet>),
}

/// What is known of one entity type.
#[derive(Clone, Default)]
pub(super) struct Table {
    /// Newer ones come later. Facts are put into the last layer of facts, unless a later sheet has their recorded time: then who came
    /// last would count no more.
    pub(super) layers: Vec<Layer>,
    seen: SeenByName,
    /// What the values of the last row were, by their places in it: mostly those of the next row are such again, and bring nothing new.
    habits: Vec<Habit>,
    /// Recorded times of the sheets behind the last layer of facts.
    times_behind: BTreeSet<Instant>,
}

/// What is noted of a value in [`SeenByName`].
#[derive(Clone, PartialEq)]
struct Habit {
    name: Iri,
    kind: ColumnKind,
    unit_code: Option<SmolStr>,
}

/// Everything in memory.
#[derive(Clone, Default)]
pub(super) struct Recent {
    pub(super) tables: BTreeMap<Iri, Table>,
    /// What was erased, by table; readers find it with that of the files.
    pub(super) erasures: BTreeMap<Iri, Vec<Arc<Erasure>>>,
}

impl Recent {
    /// Takes facts in, in their order. A fact that is known already is replaced.
    pub(super) fn append(&mut self, facts: Vec<Fact>) {
        let mut facts = facts.into_iter().peekable();
        while let Some(first) = facts.peek() {
            // Facts of one type mostly come one after the other.
            let entity_type = first.entity_type.clone();
            let table = self.tables.entry(entity_type.clone()).or_default();
            while let Some(fact) = facts.next_if(|f| f.entity_type == entity_type) {
                table.take(fact);
            }
        }
    }

    /// Takes bulk rows in, and what their values have in common.
    pub(super) fn append_sheet(&mut self, entity_type: &Iri, sheet: BulkSheet, seen: &SeenByName) {
        let table = self.tables.entry(entity_type.clone()).or_default();
        merge_seen(&mut table.seen, seen);
        table.push(Layer::Bulk(Arc::new(sheet)));
    }

    /// Adds everything of a newer `Recent` on top of this one: for a seal that failed.
    pub(super) fn overlay(&mut self, newer: Self) {
        for (entity_type, more) in newer.erasures {
            self.erasures.entry(entity_type).or_default().extend(more);
        }
        for (entity_type, more) in newer.tables {
            let table = self.tables.entry(entity_type).or_default();
            merge_seen(&mut table.seen, &more.seen);
            for layer in more.layers {
                match (table.layers.last_mut(), layer) {
                    (Some(Layer::Facts(known)), Layer::Facts(more)) => known.overlay(&more),
                    (_, layer) => table.push(layer),
                }
            }
        }
    }

    pub(super) fn n_facts(&self) -> usize {
        let n_erasures: usize = self.erasures.values().map(Vec::len).sum();
        n_erasures + self.tables.values().flat_map(|t| &t.layers).map(Layer::n_facts).sum::<usize>()
    }
}

impl Layer {
    /// The latest recorded time in it.
    pub(super) fn recorded_to(&self) -> Option<Instant> {
        match self {
            Self::Facts(facts) => facts.entities.values().flat_map(|rows| rows.keys()).map(|key| key.recorded_at).max(),
            Self::Bulk(bulk) => Some(bulk.recorded_at),
        }
    }

    fn n_facts(&self) -> usize {
        match self {
            Self::Facts(facts) => facts.n_facts,
            Self::Bulk(bulk) => bulk.n_values,
        }
    }
}

impl Table {
    /// The same layers with only these entities, rows shared; all if none are given. Sheets are whole.
    pub(super) fn only(&self, entities: Option<&[Iri]>) -> Vec<Layer> {
        let only = |layer: &Layer| match (layer, entities) {
            (Layer::Facts(facts), Some(ids)) => Layer::Facts(facts.only(ids)),
            (other, _) => other.clone(),
        };
        self.layers.iter().map(only).collect()
    }

    fn push(&mut self, layer: Layer) {
        match &layer {
            Layer::Facts(_) => self.times_behind.clear(),
            Layer::Bulk(bulk) => {
                self.times_behind.insert(bulk.recorded_at);
            }
        }
        self.layers.push(layer);
    }

    /// Takes a fact of this table in.
    fn take(&mut self, Fact { entity_type, entity, recorded_at, what }: Fact) {
        let of_row =
            |dataset_id, mark: Option<Mark<'_>>| RowKey { observed_at: None, recorded_at, dataset_id, mark: mark.map(|m| m.to_text()) };
        let mark = match what {
            What::Value { name, instance } => return self.take_row(entity, recorded_at, vec![(name, instance)]),
            What::Values(values) => return self.take_row(entity, recorded_at, values),
            What::AttributeDeleted { name, dataset_id } => of_row(dataset_id, Some(Mark::AttributeDeleted(name.as_str()))),
            What::Restated { name, dataset_id, observed_at } => {
                let text = marks::restated(&name, observed_at);
                of_row(dataset_id, Some(Mark::Restated(&text)))
            }
            What::EntityDeleted => of_row(None, Some(Mark::EntityDeleted)),
            What::Became(about) => {
                let text = about.to_text(recorded_at);
                of_row(None, Some(if about.is_at_home(&entity_type) { Mark::Became(&text) } else { Mark::BecameToo(&text) }))
            }
        };
        self.facts_for(recorded_at).put_mark(entity, mark);
    }

    /// Takes values in that were observed together.
    fn take_row(&mut self, entity: Iri, recorded_at: Instant, values: Values) {
        let Some((_, first)) = values.first() else { return };
        let key = RowKey { observed_at: first.observed_at, recorded_at, dataset_id: first.dataset_id.clone(), mark: None };
        self.see(&values);
        self.facts_for(recorded_at).put_row(entity, key, values);
    }

    /// What the values have in common, by attribute.
    pub(super) const fn seen(&self) -> &SeenByName {
        &self.seen
    }

    /// Takes note of the values of a row.
    fn see(&mut self, values: &[(Iri, Arc<Attribute>)]) {
        for (at, (name, instance)) in values.iter().enumerate() {
            let kind = kind_of(&instance.value);
            if self.habits.get(at).is_some_and(|h| h.name == *name && h.kind == kind && h.unit_code == instance.unit_code) {
                continue;
            }
            match self.seen.get_mut(name) {
                Some(seen) => seen.add(instance),
                None => {
                    self.seen.insert(name.clone(), Seen::of(instance));
                }
            }
            let habit = Habit { name: name.clone(), kind, unit_code: instance.unit_code.clone() };
            if at < self.habits.len() {
                self.habits[at] = habit;
            } else if at == self.habits.len() && at < HABITS_MAX {
                self.habits.push(habit);
            }
        }
    }

    /// The layer that facts of this recorded time are put into.
    fn facts_for(&mut self, recorded_at: Instant) -> &mut Facts {
        let last = self.layers.iter().rposition(|l| matches!(l, Layer::Facts(_)));
        let idx = match last {
            Some(idx) if !self.times_behind.contains(&recorded_at) => idx,
            _ => {
                self.push(Layer::Facts(Facts::default()));
                self.layers.len() - 1
            }
        };
        match &mut self.layers[idx] {
            Layer::Facts(facts) => facts,
            Layer::Bulk(_) => unreachable!("the index is one of a layer of facts"),
        }
    }
}

impl Facts {
    /// The entities in the order of their ids, as files have them.
    pub(super) fn into_sorted(self) -> Vec<(Iri, Arc<EntityRows>)> {
        let mut entities: Vec<_> = self.entities.into_iter().collect();
        entities.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        entities
    }

    fn only(&self, ids: &[Iri]) -> Self {
        let found = ids.iter().filter_map(|id| self.entities.get_key_value(id));
        Self { entities: found.map(|(id, rows)| (id.clone(), Arc::clone(rows))).collect(), n_facts: self.n_facts }
    }

    fn overlay(&mut self, newer: &Self) {
        for (entity, rows) in &newer.entities {
            for (key, values) in rows.iter() {
                if values.is_empty() {
                    self.put_mark(entity.clone(), key.clone());
                } else {
                    self.put_row(entity.clone(), key.clone(), values.clone());
                }
            }
        }
    }

    /// Puts values into a row; those of attributes that it has already replace what it has.
    fn put_row(&mut self, entity: Iri, key: RowKey, values: Values) {
        let rows = Arc::make_mut(self.entities.entry(entity).or_default());
        let row = rows.entry(key).or_default();
        if row.is_empty() {
            self.n_facts += values.len();
            *row = values;
            return;
        }
        for (name, instance) in values {
            match row.iter_mut().find(|(known, _)| *known == name) {
                Some((_, slot)) => *slot = instance,
                None => {
                    row.push((name, instance));
                    self.n_facts += 1;
                }
            }
        }
    }

    fn put_mark(&mut self, entity: Iri, key: RowKey) {
        let rows = Arc::make_mut(self.entities.entry(entity).or_default());
        let n_rows_before = rows.len();
        rows.entry(key).or_default();
        self.n_facts += rows.len() - n_rows_before;
    }
}
