//! Columns: the plain values of the entities of one type, a row per entity.
//!
//! What a column cannot say (objects, several instances, unusual texts) is marked as such, and the document is asked.

mod load;

use std::collections::HashMap;
use std::hash::BuildHasher;

use entity::{Attribute, AttributeValue, Attributes, Entity, Geometry, Instances, Instant, Iri, LOCATION, Scalar, Value};
use smol_str::SmolStr;

use super::ids::NONE;
use super::words::is_name;
use crate::hash::{FastMap, Seeded};
use crate::history::value::kind_of;
use crate::history::{AttributeColumn, ColumnKind};

pub(super) use load::{FoundBy, Known, Pending};

/// Attributes of one type whose values are kept in memory; those of further ones are read from the documents.
pub const COLUMNS_PER_TYPE_MAX: usize = 128;
/// Different texts of one column that are kept; of further ones only whether they may be equal is known.
const TEXTS_PER_COLUMN_MAX: usize = 4_096;
/// The longest text that a column keeps, in bytes.
const TEXT_BYTES_MAX: usize = 64;
/// Different units that are counted per attribute; with more the column has no unit.
const UNITS_MAX: usize = 16;
/// Rows in one piece of a column: attributes that few entities have cost little.
const PIECE_ROWS: usize = 256;
/// No instant.
const NO_INSTANT: i64 = i64::MIN;

/// What a column knows of one entity's attribute.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Cell<'a> {
    /// The entity does not have the attribute.
    Absent,
    /// A number.
    Number(f64),
    /// A truth value.
    Bool(bool),
    /// A text; the number tells it among those of its column.
    Text(&'a str, u32),
    /// A text that is exactly how this instant is written.
    Instant(Instant),
    /// A text of which only this is known; it is no instant.
    Hashed(u64),
    /// The single target of a Relationship of which only this is known.
    Link(u64),
    /// Something that only the document can say.
    Other,
}

mod state {
    pub(super) const ABSENT: u8 = 0;
    pub(super) const NUMBER: u8 = 1;
    pub(super) const BOOL: u8 = 2;
    pub(super) const TEXT: u8 = 3;
    pub(super) const INSTANT: u8 = 4;
    pub(super) const HASHED: u8 = 5;
    pub(super) const LINK: u8 = 6;
    pub(super) const OTHER: u8 = 7;
    /// The bits of the states above.
    pub(super) const MASK: u8 = 7;
    /// `observedAt` is that of the row: mostly all values of an entity are observed together.
    pub(super) const OBSERVED_AS_ROW: u8 = 0x40;

    /// Has a cell of this state a value?
    pub(super) const fn has_value(state: u8) -> bool {
        !matches!(state, ABSENT | OTHER)
    }
}

struct Piece {
    states: [u8; PIECE_ROWS],
    /// None while no cell here has a value.
    values: Option<Box<[u64; PIECE_ROWS]>>,
    /// µs of `observedAt`, if any value here has one that is not that of its row.
    observed: Option<Box<[i64; PIECE_ROWS]>>,
}

/// The values of one attribute.
struct Cells {
    pieces: Vec<Option<Box<Piece>>>,
    texts: Vec<Box<str>>,
    text_numbers: HashMap<Box<str>, u32>,
    text_bytes: usize,
}

/// One attribute of a type: its values and what they have in common.
pub(super) struct Column {
    pub(super) name: Iri,
    role: Role,
    /// Entities that have it.
    pub(super) n_present: u32,
    /// Of the shown instances, how many are of each kind of column.
    n_of_kind: [u32; 4],
    /// Instances that are Relationships or lists of them, of all instances.
    n_links: u32,
    n_instances: u32,
    units: Vec<(Option<SmolStr>, u32)>,
    /// There were more than [`UNITS_MAX`] units.
    many_units: bool,
    /// None: there are too many columns, or memory is short.
    cells: Option<Cells>,
}

/// What is known of the place of one entity.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Place {
    /// It has none.
    None,
    /// Exactly one, a point; `plain`: its GeoJSON has nothing but the two numbers.
    Point { lon: f64, lat: f64, plain: bool },
    /// All of its places are in this box: west, south, east, north.
    Box([f64; 4]),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PlaceKind {
    None,
    Plain,
    Point,
    Box,
}

/// What a change of a row means for the other indexes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Touched {
    /// The place may be another one.
    pub(super) place: bool,
    /// There may be other targets of relationships.
    pub(super) links: bool,
    /// There may be other words in names.
    pub(super) words: bool,
}

impl Touched {
    /// Something of a column's attribute is different: it was some of these, or is.
    fn note<'a>(&mut self, column: &Column, states: impl IntoIterator<Item = &'a Instances>) {
        match column.role {
            Role::Place => self.place = true,
            Role::Name => self.words = true,
            Role::None => {}
        }
        self.links = self.links || states.into_iter().flat_map(|instances| instances.iter()).any(is_link);
    }
}

/// What an attribute is besides a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    None,
    /// Where the entity is.
    Place,
    /// Its words are searched.
    Name,
}

fn is_link(instance: &Attribute) -> bool {
    matches!(instance.value, AttributeValue::Relationship(_) | AttributeValue::ListRelationship(_))
}

/// The columns of the entities whose first type it is.
#[derive(Default)]
pub(super) struct Table {
    /// The slot of each row, [`NONE`] for free ones.
    rows: Vec<u32>,
    free: Vec<u32>,
    by_name: FastMap<Iri, u32>,
    /// The column last found at each position: entities of a type mostly have the same attributes in the same order, which spares the hashing.
    by_position: Vec<u32>,
    columns: Vec<Column>,
    n_with_cells: usize,
    place_kinds: Vec<PlaceKind>,
    positions: Vec<[f64; 2]>,
    boxes: HashMap<u32, [f64; 4]>,
    /// µs of the latest `observedAt` of any instance.
    observed: Vec<i64>,
    hasher: Seeded,
}

impl Table {
    pub(super) fn new(hasher: Seeded) -> Self {
        Self { hasher, ..Self::default() }
    }

    pub(super) fn n_rows(&self) -> usize {
        self.rows.len() - self.free.len()
    }

    pub(super) fn columns(&self) -> &[Column] {
        &self.columns
    }

    pub(super) fn column(&self, name: &Iri) -> Option<&Column> {
        self.by_name.get(name).map(|&i| &self.columns[i as usize])
    }

    /// The hash by which texts and targets are compared; the same for all of a table.
    pub(super) fn hash(&self, text: &str) -> u64 {
        self.hasher.hash_one(text)
    }

    /// The slot of a row; [`NONE`] if the row is free.
    pub(super) fn slot_of(&self, row: u32) -> u32 {
        self.rows[row as usize]
    }

    /// Rows up to the last one that was ever used.
    pub(super) fn n_rows_ever(&self) -> usize {
        self.rows.len()
    }

    /// A row for a slot.
    pub(super) fn take_row(&mut self, slot: u32) -> u32 {
        if let Some(row) = self.free.pop() {
            self.rows[row as usize] = slot;
            return row;
        }
        self.rows.push(slot);
        u32::try_from(self.rows.len() - 1).expect("there are no more rows than slots")
    }

    /// Frees a row of which everything is forgotten.
    pub(super) fn release_row(&mut self, row: u32) {
        self.rows[row as usize] = NONE;
        self.free.push(row);
    }

    /// Makes a row say what `after` says; `before` is what it says now. `roomy`: further columns may have values. Returns what else of the
    /// entity changed thereby.
    pub(super) fn change(&mut self, row: u32, before: Option<&Entity>, after: Option<&Entity>, roomy: bool) -> Touched {
        let none = Attributes::default();
        let old = before.map_or(&none, |e| &e.attributes);
        let new = after.map_or(&none, |e| &e.attributes);
        let mut touched = Touched { place: before.is_none(), ..Touched::default() };
        let observed_before = self.observed.get(row as usize).copied().unwrap_or(NO_INSTANT);
        let observed = new.values().flatten().filter_map(|a| a.observed_at).max().map_or(NO_INSTANT, Instant::micros);
        let mut n_stayed = 0;
        for (at, (name, now)) in new.iter().enumerate() {
            let was = instances_of(old, at, name);
            n_stayed += usize::from(was.is_some());
            if was == Some(now) {
                if observed != observed_before
                    && let Some(i) = self.find(at, name)
                {
                    self.columns[i].part_from_row(row, observed_before);
                }
                continue;
            }
            let i = self.column_for(at, name, roomy);
            let column = &mut self.columns[i];
            touched.note(column, was.into_iter().chain([now]));
            column.recount(was.map(Instances::as_slice), now);
            column.set(row, now, observed, &self.hasher);
        }
        if n_stayed < old.len() {
            for (at, (name, was)) in old.iter().enumerate() {
                if instances_of(new, at, name).is_none()
                    && let Some(i) = self.find(at, name)
                {
                    let column = &mut self.columns[i];
                    touched.note(column, [was]);
                    column.count(was, false);
                    column.clear(row);
                }
            }
        }
        if touched.place {
            self.set_place(row, new.get(LOCATION).map(Instances::as_slice).unwrap_or_default());
        }
        set_at(&mut self.observed, row, observed, NO_INSTANT);
        touched
    }

    /// Forgets the values of a row without knowing the entity that it was: counts stay as they are.
    pub(super) fn clear(&mut self, row: u32) {
        for column in &mut self.columns {
            column.clear(row);
        }
        self.set_place(row, &[]);
        set_at(&mut self.observed, row, NO_INSTANT, NO_INSTANT);
    }

    /// The column of the attribute at a position of an entity.
    fn find(&self, at: usize, name: &Iri) -> Option<usize> {
        match self.by_position.get(at) {
            Some(&i) if self.columns[i as usize].name == *name => Some(i as usize),
            _ => self.by_name.get(name).map(|&i| i as usize),
        }
    }

    /// Has every attribute of an entity a column?
    pub(super) fn knows_all_of(&self, e: &Entity) -> bool {
        e.attributes.keys().enumerate().all(|(at, name)| self.find(at, name).is_some())
    }

    fn column_for(&mut self, at: usize, name: &Iri, roomy: bool) -> usize {
        if let Some(i) = self.find(at, name) {
            if self.by_position.len() <= at {
                self.by_position.resize(at + 1, 0);
            }
            self.by_position[at] = u32::try_from(i).expect("it was one before");
            return i;
        }
        self.new_column(name, roomy)
    }

    fn new_column(&mut self, name: &Iri, roomy: bool) -> usize {
        let has_cells = roomy && self.n_with_cells < COLUMNS_PER_TYPE_MAX && name.as_str() != LOCATION;
        self.n_with_cells += usize::from(has_cells);
        self.by_name.insert(name.clone(), u32::try_from(self.columns.len()).expect("attributes of one type are fewer than four billion"));
        self.columns.push(Column::new(name.clone(), has_cells));
        self.columns.len() - 1
    }

    /// Has any column values in memory?
    pub(super) fn has_cells(&self) -> bool {
        self.columns.iter().any(Column::has_cells)
    }

    /// Gives up the values of the largest column: the attribute, or none if no column has values.
    pub(super) fn drop_largest_column(&mut self) -> Option<Iri> {
        let largest = self.columns.iter_mut().filter(|c| c.cells.is_some()).max_by_key(|c| c.memory_bytes())?;
        // Its room is not given to another attribute: it would be short again.
        largest.cells = None;
        Some(largest.name.clone())
    }

    fn set_place(&mut self, row: u32, instances: &[Attribute]) {
        let geometries = || {
            instances.iter().filter_map(|a| match &a.value {
                AttributeValue::Geo(g) => Some(g),
                _ => None,
            })
        };
        self.boxes.remove(&row);
        let (kind, position) = match (geometries().next(), geometries().nth(1)) {
            (None, _) => (PlaceKind::None, [f64::NAN; 2]),
            (Some(g), None) if g.as_point().is_some() => {
                let p = g.as_point().expect("it was asked");
                (if is_plain_point(g) && instances.len() == 1 { PlaceKind::Plain } else { PlaceKind::Point }, [p.x(), p.y()])
            }
            (Some(_), _) => {
                let all = geometries().map(Geometry::bbox).reduce(|a, b| [a[0].min(b[0]), a[1].min(b[1]), a[2].max(b[2]), a[3].max(b[3])]);
                self.boxes.insert(row, all.expect("there is one"));
                let shown = shown(instances).and_then(|a| match &a.value {
                    AttributeValue::Geo(g) => geo::Centroid::centroid(g.shape()),
                    _ => None,
                });
                (PlaceKind::Box, shown.map_or([f64::NAN; 2], |p| [p.x(), p.y()]))
            }
        };
        if kind == PlaceKind::None && self.place_kinds.len() <= row as usize {
            return;
        }
        set_at(&mut self.place_kinds, row, kind, PlaceKind::None);
        set_at(&mut self.positions, row, position, [f64::NAN; 2]);
    }

    pub(super) fn place(&self, row: u32) -> Place {
        let [lon, lat] = self.positions.get(row as usize).copied().unwrap_or([f64::NAN; 2]);
        match self.place_kinds.get(row as usize) {
            None | Some(PlaceKind::None) => Place::None,
            Some(PlaceKind::Plain) => Place::Point { lon, lat, plain: true },
            Some(PlaceKind::Point) => Place::Point { lon, lat, plain: false },
            Some(PlaceKind::Box) => Place::Box(self.boxes[&row]),
        }
    }

    /// The place's point or middle, for tables.
    pub(super) fn position(&self, row: u32) -> Option<[f64; 2]> {
        self.positions.get(row as usize).copied().filter(|p| !p[0].is_nan())
    }

    /// The latest `observedAt` of any instance.
    pub(super) fn observed(&self, row: u32) -> Option<Instant> {
        self.observed.get(row as usize).filter(|us| **us != NO_INSTANT).map(|us| Instant::from_micros(*us))
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let places = self.place_kinds.capacity() + self.positions.capacity() * 16 + self.boxes.len() * 64;
        let columns: usize = self.columns.iter().map(Column::memory_bytes).sum();
        self.rows.capacity() * 4 + self.observed.capacity() * 8 + places + columns
    }
}

/// The instances of an attribute; it is looked for where it was in the other state first.
fn instances_of<'a>(attributes: &'a Attributes, at: usize, name: &Iri) -> Option<&'a Instances> {
    match attributes.get_index(at) {
        Some((found, instances)) if found == name => Some(instances),
        _ => attributes.get(name),
    }
}

fn set_at<T: Copy>(list: &mut Vec<T>, row: u32, value: T, nothing: T) {
    let row = row as usize;
    if list.len() <= row {
        list.resize(row + 1, nothing);
    }
    list[row] = value;
}

/// Is the GeoJSON of a point what is written for its two coordinates?
fn is_plain_point(g: &Geometry) -> bool {
    let Value::Object(members) = g.json() else { return false };
    members.len() == 2
        && members
            .get("coordinates")
            .and_then(Value::as_array)
            .is_some_and(|c| c.len() == 2 && c.iter().all(|n| matches!(n, Value::Number(n) if n.is_f64())))
}

/// What a table without `datasetId` shows of an attribute: the default instance, else the most recently observed, else the first.
pub(super) fn shown(instances: &[Attribute]) -> Option<&Attribute> {
    let default = instances.iter().find(|a| a.dataset_id.is_none());
    default.or_else(|| instances.iter().rev().max_by(|a, b| a.observed_at.cmp(&b.observed_at)))
}

/// The instant that a text is exactly the writing of; and whether it can be read as an instant at all.
pub(super) fn instant_of(text: &str) -> (Option<Instant>, bool) {
    // The shortest and the longest form, and what both end with.
    if !(20..=27).contains(&text.len()) || !text.ends_with('Z') {
        return (None, false);
    }
    match text.parse::<Instant>() {
        Ok(i) if i.to_string() == text => (Some(i), true),
        Ok(_) => (None, true),
        Err(_) => (None, false),
    }
}

impl Column {
    fn new(name: Iri, has_cells: bool) -> Self {
        let cells = has_cells.then(|| Cells { pieces: Vec::new(), texts: Vec::new(), text_numbers: HashMap::new(), text_bytes: 0 });
        let role = match &name {
            name if name.as_str() == LOCATION => Role::Place,
            name if is_name(name) => Role::Name,
            _ => Role::None,
        };
        Self { name, role, n_present: 0, n_of_kind: [0; 4], n_links: 0, n_instances: 0, units: Vec::new(), many_units: false, cells }
    }

    /// Counts the instances of one entity out and those that it has now in.
    fn recount(&mut self, was: Option<&[Attribute]>, now: &[Attribute]) {
        // Nearly always another value of the same kind: nothing that is counted is different.
        if let (Some([was]), [now]) = (was, now)
            && (kind_of(&was.value), is_link(was), &was.unit_code) == (kind_of(&now.value), is_link(now), &now.unit_code)
        {
            return;
        }
        if let Some(was) = was {
            self.count(was, false);
        }
        self.count(now, true);
    }

    /// Counts the instances of one entity in (or out).
    fn count(&mut self, instances: &[Attribute], comes: bool) {
        let step = |n: &mut u32| *n = if comes { n.saturating_add(1) } else { n.saturating_sub(1) };
        step(&mut self.n_present);
        for instance in instances {
            step(&mut self.n_instances);
            if is_link(instance) {
                step(&mut self.n_links);
            }
        }
        let Some(shown) = shown(instances) else { return };
        step(&mut self.n_of_kind[kind_of(&shown.value) as usize]);
        match self.units.iter().position(|(u, _)| *u == shown.unit_code) {
            Some(i) => step(&mut self.units[i].1),
            None if comes => self.note_unit(shown.unit_code.clone()),
            None => {}
        }
        if !comes {
            self.units.retain(|(_, n)| *n > 0);
        }
    }

    /// A unit that none of the counted instances has.
    fn note_unit(&mut self, unit: Option<SmolStr>) {
        if self.units.len() < UNITS_MAX {
            self.units.push((unit, 1));
        } else {
            self.many_units = true;
        }
    }

    /// Are all values targets of relationships?
    pub(super) const fn is_all_links(&self) -> bool {
        self.n_links == self.n_instances
    }

    /// Are there values in memory?
    pub(super) const fn has_cells(&self) -> bool {
        self.cells.is_some()
    }

    /// What the column is for tables.
    pub(super) fn described(&self) -> AttributeColumn {
        const KINDS: [ColumnKind; 4] = [ColumnKind::Number, ColumnKind::Bool, ColumnKind::Text, ColumnKind::Json];
        let mut present = KINDS.into_iter().filter(|k| self.n_of_kind[*k as usize] > 0);
        let kind = match (present.next(), present.next()) {
            (Some(one), None) => one,
            _ => ColumnKind::Json,
        };
        let unit_code = match &self.units[..] {
            [(unit, _)] if !self.many_units => unit.as_ref().map(ToString::to_string),
            _ => None,
        };
        AttributeColumn { name: self.name.clone(), kind, unit_code }
    }

    fn clear(&mut self, row: u32) {
        let (piece, at) = (row as usize / PIECE_ROWS, row as usize % PIECE_ROWS);
        if let Some(piece) = self.cells.as_mut().and_then(|c| c.pieces.get_mut(piece)).and_then(Option::as_mut) {
            piece.states[at] = state::ABSENT;
            if let Some(observed) = &mut piece.observed {
                observed[at] = NO_INSTANT;
            }
        }
    }

    fn set(&mut self, row: u32, instances: &[Attribute], row_observed: i64, hasher: &Seeded) {
        let Some(cells) = &mut self.cells else { return };
        let (state, value) = match instances {
            [one] => cells.value_of(&one.value, hasher),
            _ => (state::OTHER, 0),
        };
        let observed = match instances {
            [one] => one.observed_at.map_or(NO_INSTANT, Instant::micros),
            _ => NO_INSTANT,
        };
        cells.put(row, (state, value), observed, row_observed);
    }

    /// The row gets another time; an unchanged value keeps the one that it had.
    fn part_from_row(&mut self, row: u32, observed: i64) {
        let (piece, at) = (row as usize / PIECE_ROWS, row as usize % PIECE_ROWS);
        if let Some(Some(piece)) = self.cells.as_mut().and_then(|c| c.pieces.get_mut(piece))
            && piece.states[at] & state::OBSERVED_AS_ROW != 0
        {
            piece.states[at] &= state::MASK;
            piece.observed.get_or_insert_with(|| Box::new([NO_INSTANT; PIECE_ROWS]))[at] = observed;
        }
    }

    /// What is known of a row; none: the column has no values in memory.
    pub(super) fn cell(&self, row: u32) -> Option<Cell<'_>> {
        let cells = self.cells.as_ref()?;
        let (piece, at) = (row as usize / PIECE_ROWS, row as usize % PIECE_ROWS);
        let Some(Some(piece)) = cells.pieces.get(piece) else { return Some(Cell::Absent) };
        let value = piece.values.as_ref().map_or(0, |v| v[at]);
        Some(match piece.states[at] & state::MASK {
            state::ABSENT => Cell::Absent,
            state::NUMBER => Cell::Number(f64::from_bits(value)),
            state::BOOL => Cell::Bool(value != 0),
            // Truncated: the numbers of texts are small.
            state::TEXT => Cell::Text(&cells.texts[value as usize], value as u32),
            state::INSTANT => Cell::Instant(Instant::from_micros(value.cast_signed())),
            state::HASHED => Cell::Hashed(value),
            state::LINK => Cell::Link(value),
            _ => Cell::Other,
        })
    }

    /// `observedAt` of a row whose cell is neither absent nor other; `of_row` is [`Table::observed`] of the row.
    pub(super) fn cell_observed(&self, row: u32, of_row: Option<Instant>) -> Option<Instant> {
        let (piece, at) = (row as usize / PIECE_ROWS, row as usize % PIECE_ROWS);
        let piece = self.cells.as_ref()?.pieces.get(piece)?.as_ref()?;
        if piece.states[at] & state::OBSERVED_AS_ROW != 0 {
            return of_row;
        }
        let observed = piece.observed.as_ref()?[at];
        (observed != NO_INSTANT).then(|| Instant::from_micros(observed))
    }

    /// Calls `take` with the rows whose value is a number between `low` and `high`, and with those that have another value or one that only
    /// the document knows; false if the column has no values in memory.
    ///
    /// Of a million rows this takes about a millisecond.
    pub(super) fn rows_between(&self, low: f64, high: f64, mut take: impl FnMut(u32)) -> bool {
        let Some(cells) = &self.cells else { return false };
        for (at_piece, piece) in cells.pieces.iter().enumerate() {
            let Some(piece) = piece else { continue };
            // Mostly there is nothing: that is seen in loops without branches, which become vector instructions.
            let is_other = |s: u8| (s & state::MASK != state::NUMBER) & (s & state::MASK != state::ABSENT);
            let has_others = piece.states.iter().fold(false, |any, s| any | is_other(*s));
            let is_between = |v: u64| (f64::from_bits(v) >= low) & (f64::from_bits(v) <= high);
            let values = piece.values.as_deref();
            let has_numbers = values.is_some_and(|values| values.iter().fold(false, |any, v| any | is_between(*v)));
            if !has_others && !has_numbers {
                continue;
            }
            for (i, s) in piece.states.iter().enumerate() {
                let is_hit = s & state::MASK == state::NUMBER && values.is_some_and(|values| is_between(values[i]));
                if is_hit || is_other(*s) {
                    // Rows are numbered in 32 bits.
                    take((at_piece * PIECE_ROWS + i) as u32);
                }
            }
        }
        true
    }

    /// How many different texts are kept.
    pub(super) fn n_texts(&self) -> usize {
        self.cells.as_ref().map_or(0, |c| c.texts.len())
    }

    /// Puts `test` of each row into `verdicts`, fast, if the column has values: `None` for what is no number.
    pub(super) fn test_numbers(
        &self,
        rows: impl Iterator<Item = u32>,
        test: impl Fn(f64) -> bool,
        mut verdict: impl FnMut(Option<bool>),
    ) -> bool {
        let Some(cells) = &self.cells else { return false };
        for row in rows {
            let (piece, at) = (row as usize / PIECE_ROWS, row as usize % PIECE_ROWS);
            let Some(Some(p)) = cells.pieces.get(piece) else {
                verdict(Some(false));
                continue;
            };
            verdict(match (p.states[at] & state::MASK, &p.values) {
                (state::NUMBER, Some(values)) => Some(test(f64::from_bits(values[at]))),
                (state::ABSENT, _) => Some(false),
                _ => None,
            });
        }
        true
    }

    fn memory_bytes(&self) -> usize {
        let Some(cells) = &self.cells else { return 0 };
        let list = |is_there: bool| if is_there { PIECE_ROWS * 8 + 16 } else { 0 };
        let piece = |p: &Piece| size_of::<Piece>() + 16 + list(p.values.is_some()) + list(p.observed.is_some());
        cells.pieces.iter().map(|p| 8 + p.as_deref().map_or(0, piece)).sum::<usize>() + cells.text_bytes * 2 + cells.texts.len() * 80
    }
}

impl Cells {
    fn put(&mut self, row: u32, (mut state, value): (u8, u64), observed: i64, row_observed: i64) {
        let (at_piece, at) = (row as usize / PIECE_ROWS, row as usize % PIECE_ROWS);
        if self.pieces.len() <= at_piece {
            self.pieces.resize_with(at_piece + 1, || None);
        }
        let piece = self.pieces[at_piece]
            .get_or_insert_with(|| Box::new(Piece { states: [state::ABSENT; PIECE_ROWS], values: None, observed: None }));
        if state::has_value(state) {
            piece.values.get_or_insert_with(|| Box::new([0; PIECE_ROWS]))[at] = value;
            if observed == row_observed && observed != NO_INSTANT {
                state |= state::OBSERVED_AS_ROW;
            } else if observed != NO_INSTANT || piece.observed.is_some() {
                piece.observed.get_or_insert_with(|| Box::new([NO_INSTANT; PIECE_ROWS]))[at] = observed;
            }
        }
        piece.states[at] = state;
    }

    fn value_of(&mut self, value: &AttributeValue, hasher: &Seeded) -> (u8, u64) {
        match value {
            AttributeValue::Property(Value::Number(n)) => n.as_f64().map_or((state::OTHER, 0), |n| (state::NUMBER, n.to_bits())),
            AttributeValue::Property(Value::Bool(b)) => (state::BOOL, u64::from(*b)),
            AttributeValue::Property(Value::String(text)) => self.text(text, hasher),
            AttributeValue::Vocab(terms) if terms.len() == 1 => self.text(terms[0].as_str(), hasher),
            AttributeValue::Relationship(targets) if targets.len() == 1 => (state::LINK, hasher.hash_one(targets[0].as_str())),
            _ => (state::OTHER, 0),
        }
    }

    fn text(&mut self, text: &str, hasher: &Seeded) -> (u8, u64) {
        match instant_of(text) {
            (Some(i), _) => return (state::INSTANT, i.micros().cast_unsigned()),
            // An unusual writing of an instant: equal to it as an instant, not as a text.
            (None, true) => return (state::OTHER, 0),
            (None, false) => {}
        }
        if let Some(&n) = self.text_numbers.get(text) {
            return (state::TEXT, u64::from(n));
        }
        if text.len() > TEXT_BYTES_MAX || self.texts.len() >= TEXTS_PER_COLUMN_MAX {
            return (state::HASHED, hasher.hash_one(text));
        }
        let n = u32::try_from(self.texts.len()).expect("the number of texts is limited");
        self.texts.push(text.into());
        self.text_numbers.insert(text.into(), n);
        self.text_bytes += text.len();
        (state::TEXT, u64::from(n))
    }
}

impl<'a> Cell<'a> {
    /// The value, if the cell has all of it.
    pub(super) fn scalar(self) -> Option<Scalar<'a>> {
        match self {
            Cell::Number(n) => Some(Scalar::Number(n)),
            Cell::Bool(b) => Some(Scalar::Bool(b)),
            Cell::Text(t, _) => Some(Scalar::Text(t)),
            _ => None,
        }
    }
}
