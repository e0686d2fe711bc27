//! Ordered values of attributes that are asked for often, made by themselves.
//!
//! Each query that compares an attribute of a type counts. After [`ASKED_MIN`] of them, if the type has at least [`ENTITIES_MIN`] entities,
//! a thread beside the queries sorts the values; from then on changes keep the order. When memory is short the one unused for longest goes.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};

use entity::{CompareOp, Comparison, Instant, Iri, Operand};

use super::columns::{Cell, Table};

/// Queries that compare an attribute before its values are ordered.
pub const ASKED_MIN: u32 = 24;
/// Entities of a type below which looking at all of them is cheap enough.
pub const ENTITIES_MIN: usize = 4_096;
/// Ordered attributes of all types together.
pub const AUTO_INDEXES_MAX: usize = 16;
/// Attributes of which is counted how often they are asked for.
pub(super) const OBSERVED_MAX: usize = 1_024;

/// The class of a value, in the order in which mixed values are sorted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Class {
    Bool,
    Number,
    Instant,
    /// By hash: for equality only.
    Text,
    /// Only the document can say.
    Other,
}

const N_CLASSES: usize = 5;

/// A value as a sorted index holds it.
pub(super) type Key = (Class, u64);

/// The key of a cell; none for an entity without the attribute.
pub(super) fn key_of(table: &Table, cell: Option<Cell<'_>>) -> Option<Key> {
    Some(match cell? {
        Cell::Absent => return None,
        Cell::Bool(b) => (Class::Bool, u64::from(b)),
        Cell::Number(n) => (Class::Number, sortable(n)),
        Cell::Instant(i) => (Class::Instant, sortable_instant(i)),
        Cell::Text(t, _) => (Class::Text, table.hash(t)),
        Cell::Hashed(h) | Cell::Link(h) => (Class::Text, h),
        Cell::Other => (Class::Other, 0),
    })
}

/// Bits that sort as the numbers do.
pub(super) fn sortable(n: f64) -> u64 {
    // Minus zero equals zero.
    let bits = (n + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

fn sortable_instant(i: Instant) -> u64 {
    i.micros().cast_unsigned() ^ (1 << 63)
}

/// The slots of one type by the value of one attribute.
pub(super) struct AutoIndex {
    pub(super) attribute: Iri,
    classes: [BTreeSet<(u64, u32)>; N_CLASSES],
    /// The number of the query that used it last.
    pub(super) last_used: AtomicU64,
}

/// Part of a class.
type Part = (Class, Bound<u64>, Bound<u64>);

impl AutoIndex {
    pub(super) fn build(attribute: Iri, entries: Vec<(Key, u32)>, used: u64) -> Self {
        let mut lists: [Vec<(u64, u32)>; N_CLASSES] = Default::default();
        for ((class, key), slot) in entries {
            lists[class as usize].push((key, slot));
        }
        Self { attribute, classes: lists.map(BTreeSet::from_iter), last_used: AtomicU64::new(used) }
    }

    pub(super) fn insert(&mut self, key: Option<Key>, slot: u32) {
        if let Some((class, key)) = key {
            self.classes[class as usize].insert((key, slot));
        }
    }

    pub(super) fn remove(&mut self, key: Option<Key>, slot: u32) {
        if let Some((class, key)) = key {
            self.classes[class as usize].remove(&(key, slot));
        }
    }

    pub(super) fn used(&self, at: u64) {
        self.last_used.store(at, Ordering::Relaxed);
    }

    /// The slots that may satisfy the comparison; none if the order does not help. `hash` is that of the tables of the type.
    pub(super) fn candidates<'a>(&'a self, parts: &'a [Part]) -> impl Iterator<Item = u32> + 'a {
        parts.iter().flat_map(|(class, low, high)| {
            let low = match low {
                Bound::Included(k) => Bound::Included((*k, 0)),
                Bound::Excluded(k) => Bound::Excluded((*k, u32::MAX)),
                Bound::Unbounded => Bound::Unbounded,
            };
            let high = match high {
                Bound::Included(k) => Bound::Included((*k, u32::MAX)),
                Bound::Excluded(k) => Bound::Excluded((*k, 0)),
                Bound::Unbounded => Bound::Unbounded,
            };
            self.classes[*class as usize].range((low, high)).map(|(_, slot)| *slot)
        })
    }

    /// The slots in the order of their values, if there are numbers and nothing else.
    pub(super) fn numbers(&self) -> Option<&BTreeSet<(u64, u32)>> {
        let only = self.classes.iter().enumerate().all(|(i, c)| i == Class::Number as usize || c.is_empty());
        only.then(|| &self.classes[Class::Number as usize])
    }

    pub(super) fn len(&self) -> usize {
        self.classes.iter().map(BTreeSet::len).sum()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.len() * 24
    }
}

/// Which parts of an index a comparison leaves; none if it leaves too much to tell.
pub(super) fn parts_of(comparison: &Comparison, hash: impl Fn(&str) -> u64) -> Option<Vec<Part>> {
    let exactly = |o: &Operand| -> Option<Vec<Part>> {
        let one = |class, key| vec![(class, Bound::Included(key), Bound::Included(key))];
        Some(match o {
            Operand::Number(n) => one(Class::Number, sortable(*n)),
            Operand::Bool(b) => one(Class::Bool, u64::from(*b)),
            Operand::Instant(i) => one(Class::Instant, sortable_instant(*i)),
            Operand::Text(t) | Operand::Uri(t) => {
                let mut parts = one(Class::Text, hash(t));
                if let (Some(i), _) = super::columns::instant_of(t) {
                    parts.extend(one(Class::Instant, sortable_instant(i)));
                }
                parts
            }
            Operand::Date(_) | Operand::Time(_) => return None,
        })
    };
    let key = |o: &Operand| match o {
        Operand::Number(n) => Some((Class::Number, sortable(*n))),
        Operand::Instant(i) => Some((Class::Instant, sortable_instant(*i))),
        _ => None,
    };
    let mut parts = match comparison {
        Comparison::Equal(list) => list.iter().map(exactly).collect::<Option<Vec<_>>>()?.concat(),
        Comparison::Between(a, b) => {
            let ((class, low), (other, high)) = (key(a)?, key(b)?);
            if class != other {
                return None;
            }
            // An interval that begins behind its end holds nothing.
            if low <= high { vec![(class, Bound::Included(low), Bound::Included(high))] } else { Vec::new() }
        }
        Comparison::Order(op, o) => {
            let (class, k) = key(o)?;
            vec![match op {
                CompareOp::Lt => (class, Bound::Unbounded, Bound::Excluded(k)),
                CompareOp::Le => (class, Bound::Unbounded, Bound::Included(k)),
                CompareOp::Gt => (class, Bound::Excluded(k), Bound::Unbounded),
                CompareOp::Ge => (class, Bound::Included(k), Bound::Unbounded),
            }]
        }
        _ => return None,
    };
    parts.push((Class::Other, Bound::Unbounded, Bound::Unbounded));
    Some(parts)
}
