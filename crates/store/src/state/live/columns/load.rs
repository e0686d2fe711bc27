//! Rows of columns from documents in their bytes: the same as from entities, without making any.

use std::collections::HashMap;
use std::hash::BuildHasher;

use entity::codec::{CodecError, SkimmedAttribute, SkimmedInstance, SkimmedValue};
use entity::{Instances, Instant, LOCATION};
use smol_str::SmolStr;

use super::super::inner::targets_of_instances;
use super::super::words::{each_word, each_word_of_instance, is_name};
use super::{Column, NO_INSTANT, PlaceKind, Table, set_at, state};
use crate::hash::Seeded;
use crate::history::ColumnKind;

/// The columns of a table by the bytes of their names, while documents are loaded.
#[derive(Default)]
pub(in super::super) struct Known {
    columns: Vec<KnownColumn>,
    by_bytes: HashMap<Box<[u8]>, u32, Seeded>,
    /// Where the next attribute is looked for first: entities of a type mostly have the same attributes in the same order.
    next: usize,
}

struct KnownColumn {
    bytes: Box<[u8]>,
    number: u32,
    is_name: bool,
    is_location: bool,
}

/// What is known of an attribute of a row, until all of its attributes are.
pub(in super::super) struct Pending {
    column: u32,
    value: PendingValue,
}

enum PendingValue {
    /// A cell's state and value, and `observedAt`.
    Cell((u8, u64), i64),
    /// To be treated as that of an entity.
    Instances(Instances),
}

impl Known {
    /// Begins with the next entity.
    pub(in super::super) const fn rewind(&mut self) {
        self.next = 0;
    }

    /// Has the attribute a column? If not, [`Table::learn`] comes before [`Table::load_attribute`].
    pub(in super::super) fn has(&self, attribute: &SkimmedAttribute<'_>) -> bool {
        self.position(attribute.name_bytes).is_some()
    }

    fn position(&self, bytes: &[u8]) -> Option<usize> {
        match self.columns.get(self.next) {
            Some(known) if *known.bytes == *bytes => Some(self.next),
            _ => self.by_bytes.get(bytes).map(|&at| at as usize),
        }
    }

    fn find(&mut self, bytes: &[u8]) -> Option<&KnownColumn> {
        let at = self.position(bytes)?;
        self.next = at + 1;
        self.columns.get(at)
    }
}

/// Is told, beside the columns, what an entity is found by.
pub(in super::super) trait FoundBy {
    /// The target of a relationship.
    fn target(&mut self, id: &str);
    /// A word of a name.
    fn word(&mut self, word: &str);
}

impl Table {
    /// Takes note of an attribute whose name has not been met in these bytes. `roomy`: its column may have values.
    pub(in super::super) fn learn(&mut self, known: &mut Known, attribute: &SkimmedAttribute<'_>, roomy: bool) -> Result<(), CodecError> {
        let name = attribute.name()?;
        let number = match self.by_name.get(&name) {
            Some(&number) => number,
            None => u32::try_from(self.new_column(&name, roomy)).expect("attributes of one type are fewer than four billion"),
        };
        let at = u32::try_from(known.columns.len()).expect("there are no more names than columns and prefixes");
        let bytes: Box<[u8]> = attribute.name_bytes.into();
        known.by_bytes.insert(bytes.clone(), at);
        known.columns.push(KnownColumn { bytes, number, is_name: is_name(&name), is_location: name.as_str() == LOCATION });
        Ok(())
    }

    /// Counts an attribute of a row, and says what it says of it; `scratch` is any text.
    pub(in super::super) fn load_attribute(
        &mut self,
        row: u32,
        known: &mut Known,
        attribute: &SkimmedAttribute<'_>,
        scratch: &mut String,
        found_by: &mut impl FoundBy,
    ) -> Result<Pending, CodecError> {
        let found = known.find(attribute.name_bytes).expect("it was learned before");
        let (number, is_name, is_location) = (found.number, found.is_name, found.is_location);
        let column = &mut self.columns[number as usize];
        let value = match &attribute.only {
            // What is unusual, and unusual names, whose words are looked for in what they are made of.
            None | Some(SkimmedInstance { value: SkimmedValue::Unusual, .. }) => None,
            Some(SkimmedInstance { value: SkimmedValue::Compound, .. }) if is_name => None,
            Some(only) => Some(only),
        };
        let Some(only) = value else {
            let instances = attribute.instances()?;
            column.count(&instances, true);
            targets_of_instances(&instances).for_each(|t| found_by.target(t.as_str()));
            if is_name {
                instances.iter().for_each(|i| each_word_of_instance(i, &mut |word| found_by.word(word)));
            }
            if is_location {
                self.set_place(row, &instances);
            }
            return Ok(Pending { column: number, value: PendingValue::Instances(instances) });
        };
        match only.value {
            SkimmedValue::Point(position) if is_location => {
                set_at(&mut self.place_kinds, row, PlaceKind::Plain, PlaceKind::None);
                set_at(&mut self.positions, row, position, [f64::NAN; 2]);
            }
            SkimmedValue::Target(name) => {
                scratch.clear();
                name.push_to(scratch);
                found_by.target(scratch);
            }
            SkimmedValue::Text(text) if is_name => each_word(text, &mut |word| found_by.word(word)),
            SkimmedValue::Texts(texts) if is_name => texts.iter().for_each(|text| each_word(text, &mut |word| found_by.word(word))),
            _ => {}
        }
        column.count_only(only);
        let cell = column.cells.as_mut().map_or((state::OTHER, 0), |cells| match only.value {
            SkimmedValue::Number(n) => (state::NUMBER, n.to_bits()),
            SkimmedValue::Bool(b) => (state::BOOL, u64::from(b)),
            SkimmedValue::Text(text) => cells.text(text, &self.hasher),
            SkimmedValue::Target(_) => (state::LINK, self.hasher.hash_one(scratch.as_str())),
            SkimmedValue::Point(_) | SkimmedValue::Texts(_) | SkimmedValue::Compound | SkimmedValue::Unusual => (state::OTHER, 0),
        });
        let observed = only.observed_at.map_or(NO_INSTANT, Instant::micros);
        Ok(Pending { column: number, value: PendingValue::Cell(cell, observed) })
    }

    /// Puts the values of a row that was empty into its columns.
    pub(in super::super) fn load_row(&mut self, row: u32, pending: &[Pending]) {
        let observed_of = |p: &Pending| match &p.value {
            PendingValue::Cell(_, observed) => *observed,
            PendingValue::Instances(list) => list.iter().filter_map(|a| a.observed_at).max().map_or(NO_INSTANT, Instant::micros),
        };
        let row_observed = pending.iter().map(observed_of).max().unwrap_or(NO_INSTANT);
        for p in pending {
            let column = &mut self.columns[p.column as usize];
            match &p.value {
                PendingValue::Cell(cell, observed) => {
                    if let Some(cells) = &mut column.cells {
                        cells.put(row, *cell, *observed, row_observed);
                    }
                }
                PendingValue::Instances(instances) => column.set(row, instances, row_observed, &self.hasher),
            }
        }
        set_at(&mut self.observed, row, row_observed, NO_INSTANT);
    }
}

impl Column {
    /// Counts the only instance of an entity's attribute in.
    fn count_only(&mut self, only: &SkimmedInstance<'_>) {
        let step = |n: &mut u32| *n = n.saturating_add(1);
        step(&mut self.n_present);
        step(&mut self.n_instances);
        let kind = match only.value {
            SkimmedValue::Number(_) => ColumnKind::Number,
            SkimmedValue::Bool(_) => ColumnKind::Bool,
            SkimmedValue::Text(_) => ColumnKind::Text,
            SkimmedValue::Target(_) => {
                step(&mut self.n_links);
                ColumnKind::Text
            }
            SkimmedValue::Point(_) | SkimmedValue::Texts(_) | SkimmedValue::Compound | SkimmedValue::Unusual => ColumnKind::Json,
        };
        step(&mut self.n_of_kind[kind as usize]);
        match self.units.iter_mut().find(|(u, _)| u.as_deref() == only.unit_code) {
            Some((_, n)) => step(n),
            None => self.note_unit(only.unit_code.map(SmolStr::new)),
        }
    }
}
