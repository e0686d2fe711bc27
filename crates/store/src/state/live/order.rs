//! Orders other than that of ids.

use std::cmp::Ordering;

use entity::{AttributeValue, Entity, Iri, Value};

use super::columns::{Cell, instant_of, shown};

/// An order of a page: by the value of an attribute, then by id.
///
/// Truth values come before numbers, numbers before instants, instants before other texts; entities without a plain value come last in
/// either direction. Of several instances the default one counts, else the most recently observed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OrderBy {
    /// The attribute.
    pub attribute: Iri,
    /// Which way.
    pub direction: Direction,
}

/// Smallest first, or largest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}

/// A value that entities are ordered by.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Plain {
    Bool(bool),
    Number(f64),
    Instant(entity::Instant),
    Text(Box<str>),
}

impl Plain {
    const fn class(&self) -> u8 {
        match self {
            Self::Bool(_) => 0,
            Self::Number(_) => 1,
            Self::Instant(_) => 2,
            Self::Text(_) => 3,
        }
    }

    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            // JSON has no NaN.
            (Self::Number(a), Self::Number(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
            (Self::Instant(a), Self::Instant(b)) => a.cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            _ => self.class().cmp(&other.class()),
        }
    }

    fn of_text(text: &str) -> Self {
        match instant_of(text) {
            (Some(i), _) => Self::Instant(i),
            (None, true) => text.parse().map_or_else(|_| Self::Text(text.into()), Self::Instant),
            (None, false) => Self::Text(text.into()),
        }
    }

    fn of_value(value: &AttributeValue) -> Option<Self> {
        match value {
            AttributeValue::Property(Value::Bool(b)) => Some(Self::Bool(*b)),
            AttributeValue::Property(Value::Number(n)) => n.as_f64().map(Self::Number),
            AttributeValue::Property(Value::String(t)) => Some(Self::of_text(t)),
            AttributeValue::Vocab(iris) | AttributeValue::Relationship(iris) => match &iris[..] {
                [one] => Some(Self::of_text(one.as_str())),
                _ => None,
            },
            _ => None,
        }
    }

    /// The value of an entity.
    pub(super) fn of_entity(entity: &Entity, attribute: &Iri) -> Option<Self> {
        Self::of_value(&shown(entity.attributes.get(attribute)?)?.value)
    }

    /// The value of a cell; an error if only the document knows.
    pub(super) fn of_cell(cell: Option<Cell<'_>>) -> Result<Option<Self>, OnlyTheDocument> {
        Ok(match cell {
            Some(Cell::Absent) => None,
            Some(Cell::Bool(b)) => Some(Self::Bool(b)),
            Some(Cell::Number(n)) => Some(Self::Number(n)),
            Some(Cell::Instant(i)) => Some(Self::Instant(i)),
            Some(Cell::Text(t, _)) => Some(Self::Text(t.into())),
            None | Some(Cell::Hashed(_) | Cell::Link(_) | Cell::Other) => return Err(OnlyTheDocument),
        })
    }
}

/// The columns do not have the value.
pub(super) struct OnlyTheDocument;

/// Where an entity stands in a page.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Rank {
    pub(super) value: Option<Plain>,
    pub(super) direction: Direction,
    pub(super) id: Box<str>,
}

impl Eq for Rank {}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        compare((self.value.as_ref(), &self.id), (other.value.as_ref(), &other.id), self.direction)
    }
}

/// How two entities stand to one another, each by value and id.
pub(super) fn compare(a: (Option<&Plain>, &str), b: (Option<&Plain>, &str), direction: Direction) -> Ordering {
    let by_value = match (a.0, b.0) {
        (Some(x), Some(y)) if direction == Direction::Descending => y.cmp(x),
        (Some(x), Some(y)) => x.cmp(y),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    };
    by_value.then_with(|| a.1.cmp(b.1))
}
