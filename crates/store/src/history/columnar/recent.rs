//! What is in memory only: by table, in layers. A layer is facts, by entity and row, or a sheet of bulk rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use entity::{Attribute, Instant, Iri};
use smol_str::SmolStr;

use super::super::erasure::Erasable;
use super::super::value::{Seen, SeenByName, merge_seen};
use super::super::{Erasure, Fact, What};
use super::marks::Mark;
use super::sheet::BulkSheet;

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
    pub(super) entities: BTreeMap<Iri, Arc<EntityRows>>,
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
    pub(super) seen: SeenByName,
    /// Recorded times of the sheets behind the last layer of facts.
    times_behind: BTreeSet<Instant>,
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
        while let Some(Fact { entity_type, entity, recorded_at, what }) = facts.next() {
            let table = self.tables.entry(entity_type.clone()).or_default();
            let of_row =
                |dataset_id, mark: Option<Mark<'_>>| RowKey { observed_at: None, recorded_at, dataset_id, mark: mark.map(|m| m.to_text()) };
            let key = match what {
                What::Value { name, instance } => {
                    let key = RowKey { observed_at: instance.observed_at, ..of_row(instance.dataset_id.clone(), None) };
                    // What an entity reports together comes together: its row is looked for once.
                    let (known, seen) = table.facts_for(recorded_at);
                    let mut row = known.row(entity.clone(), key);
                    see(seen, &name, &instance);
                    row.put(name, instance);
                    while let Some(Fact { what: What::Value { name, instance }, .. }) = facts.next_if(|next| {
                        let What::Value { instance, .. } = &next.what else { return false };
                        next.recorded_at == recorded_at
                            && instance.observed_at == row.key.observed_at
                            && instance.dataset_id == row.key.dataset_id
                            && next.entity == entity
                            && next.entity_type == entity_type
                    }) {
                        see(seen, &name, &instance);
                        row.put(name, instance);
                    }
                    continue;
                }
                What::AttributeDeleted { name, dataset_id } => of_row(dataset_id, Some(Mark::AttributeDeleted(name.as_str()))),
                What::EntityDeleted => of_row(None, Some(Mark::EntityDeleted)),
                What::Became(about) => {
                    let text = about.to_text(recorded_at);
                    of_row(None, Some(if about.is_at_home(&entity_type) { Mark::Became(&text) } else { Mark::BecameToo(&text) }))
                }
            };
            table.facts_for(recorded_at).0.put_mark(entity, key);
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

    /// The layer that facts of this recorded time are put into, and what all values have in common.
    fn facts_for(&mut self, recorded_at: Instant) -> (&mut Facts, &mut SeenByName) {
        let last = self.layers.iter().rposition(|l| matches!(l, Layer::Facts(_)));
        let idx = match last {
            Some(idx) if !self.times_behind.contains(&recorded_at) => idx,
            _ => {
                self.push(Layer::Facts(Facts::default()));
                self.layers.len() - 1
            }
        };
        match &mut self.layers[idx] {
            Layer::Facts(facts) => (facts, &mut self.seen),
            Layer::Bulk(_) => unreachable!("the index is one of a layer of facts"),
        }
    }
}

fn see(by_name: &mut SeenByName, name: &Iri, instance: &Attribute) {
    match by_name.get_mut(name) {
        Some(seen) => seen.add(instance),
        None => {
            by_name.insert(name.clone(), Seen::of(instance));
        }
    }
}

/// A row that is being filled.
struct OpenRow<'a> {
    key: RowKey,
    values: &'a mut Values,
    n_facts: &'a mut usize,
}

impl OpenRow<'_> {
    fn put(&mut self, name: Iri, instance: Arc<Attribute>) {
        match self.values.iter_mut().find(|(known, _)| *known == name) {
            Some((_, slot)) => *slot = instance,
            None => {
                self.values.push((name, instance));
                *self.n_facts += 1;
            }
        }
    }
}

impl Facts {
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
                    let mut row = self.row(entity.clone(), key.clone());
                    values.iter().cloned().for_each(|(name, instance)| row.put(name, instance));
                }
            }
        }
    }

    fn row(&mut self, entity: Iri, key: RowKey) -> OpenRow<'_> {
        let rows = Arc::make_mut(self.entities.entry(entity).or_default());
        OpenRow { values: rows.entry(key.clone()).or_default(), key, n_facts: &mut self.n_facts }
    }

    fn put_mark(&mut self, entity: Iri, key: RowKey) {
        let rows = Arc::make_mut(self.entities.entry(entity).or_default());
        let n_rows_before = rows.len();
        rows.entry(key).or_default();
        self.n_facts += rows.len() - n_rows_before;
    }
}
