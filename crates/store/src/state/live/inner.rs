//! Everything about the present entities that is always in memory, and how a change of one keeps it right.

use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::sync::Arc;

use entity::{Attribute, AttributeValue, Entity, Instant, Iri, Scope};

use super::auto::{AutoIndex, Key, key_of};
use super::columns::{Place, Table, Touched};
use super::ids::{Ids, Order, Slot};
use super::overlay::Overlay;
use super::packed::{Postings, joined};
use super::places::{GeoBox, Places};
use super::sets::Sets;
use super::words::each_word_of_entity;
use crate::hash::{FastMap, Seeded};

/// One type.
pub(super) struct Type {
    pub(super) name: Iri,
    /// Its entities in the order of ids.
    pub(super) order: Order,
    /// The columns of those whose first type it is.
    pub(super) table: Table,
    pub(super) autos: Vec<AutoIndex>,
    /// Indexes being built: the attribute, and what changed meanwhile.
    pub(super) building: Vec<(Iri, Vec<BuildNote>)>,
}

/// A change of a slot while an index is being built: its keys before and after.
pub(super) type BuildNote = (u32, Option<Key>, Option<Key>);

/// All that is in memory.
pub(super) struct Inner {
    pub(super) ids: Ids,
    pub(super) order: Order,
    pub(super) types: Vec<Type>,
    type_numbers: FastMap<Iri, u32>,
    pub(super) type_sets: Sets<Iri>,
    pub(super) scope_sets: Sets<Scope>,
    /// Slots by their set of scopes.
    pub(super) by_scopes: Postings,
    pub(super) places: Places,
    /// Slots under a part of a hash; what is found is checked on the entity.
    links: Postings,
    words: Postings,
    /// Slots by when they expire, µs.
    pub(super) expires: FastMap<u32, i64>,
    /// Slots by when they, or attributes of theirs, expire.
    pub(super) due: Due,
    pub(super) overlay: Overlay,
    pub(super) hasher: Seeded,
    pub(super) staged: Option<Staged>,
    /// Bytes of indexes above which attributes new to a type get no column.
    pub(super) columns_until_bytes: usize,
}

/// When something of a slot expires. Nearly no slot is in here.
#[derive(Default)]
pub(super) struct Due {
    by_slot: FastMap<u32, i64>,
    in_order: BTreeSet<(i64, u32)>,
}

impl Due {
    pub(super) fn set(&mut self, slot: u32, at: Option<Instant>) {
        let at = at.map(Instant::micros);
        if at.is_none() && self.by_slot.is_empty() {
            return;
        }
        let old = match at {
            Some(at) => self.by_slot.insert(slot, at),
            None => self.by_slot.remove(&slot),
        };
        if old != at {
            old.map(|old| self.in_order.remove(&(old, slot)));
            at.map(|at| self.in_order.insert((at, slot)));
        }
    }

    /// The slots of which something has expired by now, the longest first.
    pub(super) fn until(&self, now: Instant) -> impl Iterator<Item = u32> {
        self.in_order.range(..=(now.micros(), u32::MAX)).map(|(_, slot)| *slot)
    }

    fn memory_bytes(&self) -> usize {
        self.by_slot.len() * 48
    }
}

/// What is sorted once at the end of a load.
#[derive(Default)]
pub(super) struct Staged {
    pub(super) links: Vec<u64>,
    pub(super) words: Vec<u64>,
    by_scopes: Vec<u64>,
}

impl Inner {
    pub(super) fn new(pack_above_bytes: usize, columns_until_bytes: usize) -> Self {
        Self {
            ids: Ids::default(),
            order: Order::default(),
            types: Vec::new(),
            type_numbers: FastMap::default(),
            type_sets: Sets::default(),
            scope_sets: Sets::default(),
            by_scopes: Postings::default(),
            places: Places::default(),
            links: Postings::default(),
            words: Postings::default(),
            expires: FastMap::default(),
            due: Due::default(),
            overlay: Overlay::new(pack_above_bytes),
            hasher: Seeded::default(),
            staged: None,
            columns_until_bytes,
        }
    }

    /// From now on entities come that were not there before, until [`Inner::finish_load`].
    pub(super) fn begin_load(&mut self) {
        self.places = Places::loading();
        self.staged = Some(Staged::default());
    }

    pub(super) fn finish_load(&mut self) {
        self.places.finish_load();
        if let Some(staged) = self.staged.take() {
            self.links = Postings::of(staged.links);
            self.words = Postings::of(staged.words);
            self.by_scopes = Postings::of(staged.by_scopes);
        }
    }

    pub(super) fn table(&self, table: u32) -> &Table {
        &self.types[table as usize].table
    }

    pub(super) fn type_of(&self, name: &Iri) -> Option<&Type> {
        self.type_numbers.get(name).map(|&n| &self.types[n as usize])
    }

    pub(super) fn has_entities_of(&self, name: &str) -> bool {
        self.type_numbers.get(name).is_some_and(|&n| self.types[n as usize].order.len() > 0)
    }

    pub(super) fn type_of_mut(&mut self, name: &Iri) -> Option<&mut Type> {
        self.type_numbers.get(name).map(|&n| &mut self.types[n as usize])
    }

    fn number_of_type(&mut self, name: &Iri) -> u32 {
        if let Some(&n) = self.type_numbers.get(name) {
            return n;
        }
        let n = u32::try_from(self.types.len()).expect("there are fewer types than memory has room for");
        self.types.push(Type {
            name: name.clone(),
            order: Order::default(),
            table: Table::new(self.hasher.clone()),
            autos: Vec::new(),
            building: Vec::new(),
        });
        self.type_numbers.insert(name.clone(), n);
        n
    }

    // Truncated: a part of the hash is meant.
    pub(super) fn hash(&self, text: &str) -> u32 {
        self.hasher.hash_one(text) as u32
    }

    /// Brings all indexes from what an entity was to what it is. `before` is what the slot of this id stands for, if its document could be read.
    pub(super) fn replace(&mut self, id: &Iri, before: Option<&Entity>, after: Option<&Entity>) {
        let slot = self.ids.find(id.as_str());
        match (slot, after) {
            (None, None) => {}
            (None, Some(after)) => self.add(after),
            (Some(slot), None) => self.take_out(slot, before),
            (Some(slot), Some(after)) => match before {
                Some(before) if before.types == after.types => self.update(slot, before, after),
                // Another type, or what it was is not known: everything anew.
                before => {
                    self.take_out(slot, before);
                    self.add(after);
                }
            },
        }
    }

    fn add(&mut self, e: &Entity) {
        let types = self.numbers_of_types(&e.types);
        let sets = (self.type_sets.take(&e.types), self.scope_sets.take(&e.scopes));
        let (table, (slot, row)) = (types[0], self.add_slot(e.id.as_str(), &types, sets, [e.created_at.micros(), e.modified_at.micros()]));
        let roomy = self.has_room_for_columns(table, e);
        let touched = self.types[table as usize].table.change(row, None, Some(e), roomy);
        self.note_scopes(slot, true);
        self.note_place(slot, None);
        if let Some(at) = e.expires_at {
            self.expires.insert(slot, at.micros());
        }
        self.due.set(slot, e.first_end());
        self.note_hashed(slot, None, Some(e), touched);
        self.note_autos(slot, &[], false);
    }

    pub(super) fn numbers_of_types(&mut self, types: &[Iri]) -> Vec<u32> {
        let numbers: Vec<u32> = types.iter().map(|t| self.number_of_type(t)).collect();
        assert!(!numbers.is_empty(), "an entity has at least one type");
        numbers
    }

    /// A slot and its row for an entity that was not there; its row says nothing yet.
    pub(super) fn add_slot(&mut self, id: &str, types: &[u32], sets: (u32, u32), [created_us, modified_us]: [i64; 2]) -> (u32, u32) {
        let slot = Slot { id: id.into(), types: sets.0, scopes: sets.1, table: types[0], row: 0, created_us, modified_us };
        let slot = self.ids.insert(slot);
        let row = self.types[types[0] as usize].table.take_row(slot);
        self.ids.slot_mut(slot).row = row;
        self.order.insert(slot, &self.ids);
        for n in types {
            self.types[*n as usize].order.insert(slot, &self.ids);
        }
        (slot, row)
    }

    fn take_out(&mut self, slot: u32, before: Option<&Entity>) {
        let keys = self.auto_keys(slot);
        let place = self.box_of(slot);
        let Slot { table, row, types, scopes, .. } = *self.ids.slot(slot);
        let table_of = &mut self.types[table as usize].table;
        // Of an entity that cannot be read nothing is known that could be taken out.
        let touched = if before.is_some() { table_of.change(row, before, None, false) } else { Touched::default() };
        table_of.clear(row);
        table_of.release_row(row);
        self.note_autos(slot, &keys, true);
        self.note_place(slot, place);
        self.note_scopes(slot, false);
        self.note_hashed(slot, before, None, touched);
        self.expires.remove(&slot);
        self.due.set(slot, None);
        self.order.remove(slot, &self.ids);
        for name in Arc::clone(self.type_sets.get(types)).iter() {
            let n = self.type_numbers[name] as usize;
            self.types[n].order.remove(slot, &self.ids);
        }
        self.type_sets.release(types);
        self.scope_sets.release(scopes);
        self.ids.remove(slot);
    }

    fn update(&mut self, slot: u32, before: &Entity, after: &Entity) {
        let keys = self.auto_keys(slot);
        let place = self.box_of(slot);
        let Slot { table, row, .. } = *self.ids.slot(slot);
        let roomy = self.has_room_for_columns(table, after);
        let touched = self.types[table as usize].table.change(row, Some(before), Some(after), roomy);
        if before.scopes != after.scopes {
            self.note_scopes(slot, false);
            let old = self.ids.slot(slot).scopes;
            self.scope_sets.release(old);
            self.ids.slot_mut(slot).scopes = self.scope_sets.take(&after.scopes);
            self.note_scopes(slot, true);
        }
        let s = self.ids.slot_mut(slot);
        (s.created_us, s.modified_us) = (after.created_at.micros(), after.modified_at.micros());
        match after.expires_at {
            Some(at) => self.expires.insert(slot, at.micros()),
            None => self.expires.remove(&slot),
        };
        self.due.set(slot, after.first_end());
        if touched.place && self.box_of(slot) != place {
            self.note_place(slot, place);
        }
        self.note_hashed(slot, Some(before), Some(after), touched);
        self.note_autos(slot, &keys, false);
    }

    /// May attributes that are new to a type have columns?
    fn has_room_for_columns(&self, table: u32, e: &Entity) -> bool {
        let table = self.table(table);
        // Mostly nothing is new, and the sum need not be made.
        table.knows_all_of(e) || self.memory_bytes() < self.columns_until_bytes
    }

    fn box_of(&self, slot: u32) -> Option<GeoBox> {
        let s = self.ids.slot(slot);
        match self.table(s.table).place(s.row) {
            Place::None => None,
            Place::Point { lon, lat, .. } => Some([lon, lat, lon, lat]),
            Place::Box(b) => Some(b),
        }
    }

    /// Moves the slot in the index of places from where it was to where its row says.
    pub(super) fn note_place(&mut self, slot: u32, before: Option<GeoBox>) {
        if let Some(b) = before {
            self.places.remove(slot, b);
        }
        if let Some(b) = self.box_of(slot) {
            self.places.insert(slot, b);
        }
    }

    pub(super) fn note_scopes(&mut self, slot: u32, comes: bool) {
        let set = self.ids.slot(slot).scopes;
        if self.scope_sets.get(set).is_empty() {
            return;
        }
        match &mut self.staged {
            Some(staged) if comes => staged.by_scopes.push(joined(set, slot)),
            _ if comes => self.by_scopes.insert(set, slot),
            _ => self.by_scopes.remove(set, slot),
        }
    }

    /// Targets and words, whichever may be others.
    fn note_hashed(&mut self, slot: u32, before: Option<&Entity>, after: Option<&Entity>, touched: Touched) {
        if !touched.links && !touched.words {
            return;
        }
        let [mut links, mut words] = <[(Vec<u32>, Vec<u32>); 2]>::default();
        if touched.links {
            links = (self.hashes_of_targets(before), self.hashes_of_targets(after));
            keep_differences(&mut links);
        }
        if touched.words {
            words = (self.hashes_of_words(before), self.hashes_of_words(after));
            keep_differences(&mut words);
        }
        if let Some(staged) = &mut self.staged {
            staged.links.extend(links.1.into_iter().map(|h| joined(h, slot)));
            staged.words.extend(words.1.into_iter().map(|h| joined(h, slot)));
            return;
        }
        for (index, (gone, new)) in [(&mut self.links, links), (&mut self.words, words)] {
            for hash in gone {
                index.remove(hash, slot);
            }
            new.into_iter().for_each(|hash| index.insert(hash, slot));
        }
    }

    fn hashes_of_targets(&self, e: Option<&Entity>) -> Vec<u32> {
        let mut hashes: Vec<u32> = e.map(|e| targets_of(e).map(|t| self.hash(t.as_str())).collect()).unwrap_or_default();
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    }

    fn hashes_of_words(&self, e: Option<&Entity>) -> Vec<u32> {
        let mut hashes = Vec::new();
        if let Some(e) = e {
            each_word_of_entity(e, &mut |word| hashes.push(self.hash(word)));
        }
        hashes.sort_unstable();
        hashes.dedup();
        hashes
    }

    /// The slots that may point at an entity.
    pub(super) fn linked_to(&self, target: &str) -> impl Iterator<Item = u32> {
        self.links.under(self.hash(target))
    }

    /// The slots that may have a word.
    pub(super) fn with_word(&self, word: &str) -> impl Iterator<Item = u32> {
        self.words.under(self.hash(word))
    }

    /// The value of an attribute as the ordered indexes hold it.
    pub(super) fn key(&self, slot: u32, attribute: &Iri) -> Option<Key> {
        let s = self.ids.slot(slot);
        let table = self.table(s.table);
        match table.column(attribute) {
            // Without values in memory only the document knows, if the attribute is there at all.
            Some(c) if !c.has_cells() => (c.n_present > 0).then_some((super::auto::Class::Other, 0)),
            Some(c) => key_of(table, c.cell(s.row)),
            None => None,
        }
    }

    /// The keys of a slot in all ordered indexes of its types, by type and attribute.
    fn auto_keys(&self, slot: u32) -> Vec<(u32, Iri, Option<Key>)> {
        let mut keys = Vec::new();
        for name in self.type_sets.get(self.ids.slot(slot).types).iter() {
            let n = self.type_numbers[name];
            let t = &self.types[n as usize];
            for attribute in t.autos.iter().map(|a| &a.attribute).chain(t.building.iter().map(|(a, _)| a)) {
                keys.push((n, attribute.clone(), self.key(slot, attribute)));
            }
        }
        keys
    }

    /// Brings the ordered indexes from the keys before to those that the columns give now, or to none if the slot goes.
    fn note_autos(&mut self, slot: u32, before: &[(u32, Iri, Option<Key>)], goes: bool) {
        let mut now = self.auto_keys(slot);
        if goes {
            now.iter_mut().for_each(|(_, _, key)| *key = None);
        }
        for (n, attribute, new) in now {
            let old = before.iter().find(|(m, a, _)| *m == n && *a == attribute).and_then(|(_, _, k)| *k);
            if old == new {
                continue;
            }
            let t = &mut self.types[n as usize];
            if let Some(auto) = t.autos.iter_mut().find(|a| a.attribute == attribute) {
                auto.remove(old, slot);
                auto.insert(new, slot);
            }
            if let Some((_, notes)) = t.building.iter_mut().find(|(a, _)| *a == attribute) {
                notes.push((slot, old, new));
            }
        }
    }

    /// Gives up an ordered index or, if there is none, the values of a column, whichever is missed least; false if nothing is left to give up.
    pub(super) fn shrink(&mut self) -> bool {
        if self.drop_oldest_auto() {
            return true;
        }
        let largest = self.types.iter_mut().filter(|t| t.table.has_cells()).max_by_key(|t| t.table.memory_bytes());
        let Some(dropped) = largest.and_then(|t| t.table.drop_largest_column()) else { return false };
        // An index that is being built of these values would be wrong.
        for t in &mut self.types {
            t.building.retain(|(a, _)| *a != dropped);
        }
        true
    }

    /// Gives up the ordered index that was not used for longest.
    pub(super) fn drop_oldest_auto(&mut self) -> bool {
        let used = |a: &AutoIndex| a.last_used.load(std::sync::atomic::Ordering::Relaxed);
        let oldest = self.types.iter_mut().filter_map(|t| Some((t.autos.iter().map(used).min()?, t))).min_by_key(|(u, _)| *u);
        let Some((at, t)) = oldest else { return false };
        t.autos.retain(|a| used(a) != at);
        true
    }

    /// About how many bytes of memory all of this takes, without the overlay.
    pub(super) fn memory_bytes(&self) -> usize {
        let types: usize = self
            .types
            .iter()
            .map(|t| 500 + t.order.memory_bytes() + t.table.memory_bytes() + t.autos.iter().map(AutoIndex::memory_bytes).sum::<usize>())
            .sum();
        let hashed = self.links.memory_bytes() + self.words.memory_bytes() + self.by_scopes.memory_bytes();
        let staged = self.staged.as_ref().map_or(0, |s| (s.links.len() + s.words.len() + s.by_scopes.len()) * 8);
        let sets = self.type_sets.memory_bytes() + self.scope_sets.memory_bytes();
        self.ids.memory_bytes()
            + self.order.memory_bytes()
            + types
            + sets
            + self.places.memory_bytes()
            + hashed
            + staged
            + self.expires.len() * 24
            + self.due.memory_bytes()
    }
}

/// All targets of relationships of an entity, lists of them too.
pub(super) fn targets_of(e: &Entity) -> impl Iterator<Item = &Iri> {
    e.attributes.values().flat_map(|instances| targets_of_instances(instances))
}

/// The same of some instances of an attribute.
pub(super) fn targets_of_instances(instances: &[Attribute]) -> impl Iterator<Item = &Iri> {
    instances.iter().flat_map(|a| match &a.value {
        AttributeValue::Relationship(targets) | AttributeValue::ListRelationship(targets) => targets.as_slice(),
        _ => &[],
    })
}

/// Leaves in two sorted lists what the other one has not.
fn keep_differences((a, b): &mut (Vec<u32>, Vec<u32>)) {
    if a.is_empty() || b.is_empty() {
        return;
    }
    let old = a.clone();
    a.retain(|x| b.binary_search(x).is_err());
    b.retain(|x| old.binary_search(x).is_err());
}
