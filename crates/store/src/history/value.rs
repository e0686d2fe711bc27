//! What the engines agree on about values: which kind of column a value wants, and its plain JSON form.

use std::collections::BTreeMap;

use entity::{AttributeValue, Iri, Value};
use serde::{Deserialize, Serialize};

use super::{AttributeColumn, ColumnKind};

/// What the values of one attribute had in common so far. Merging is commutative, associative and idempotent, so it does not matter
/// in which order facts are learned or whether one is replayed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    kind: ColumnKind,
    unit: UnitSeen,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum UnitSeen {
    Always(Option<String>),
    Mixed,
}

/// What was seen of each attribute of a table.
pub(super) type SeenByName = BTreeMap<Iri, Seen>;

impl Seen {
    pub(super) fn of(attribute: &entity::Attribute) -> Self {
        Self { kind: kind_of(&attribute.value), unit: UnitSeen::Always(attribute.unit_code.as_ref().map(ToString::to_string)) }
    }

    /// What values of one kind and unit have in common.
    pub(super) const fn of_kind(kind: ColumnKind, unit_code: Option<String>) -> Self {
        Self { kind, unit: UnitSeen::Always(unit_code) }
    }

    /// Takes in one more value, without allocating when it brings nothing new.
    pub(super) fn add(&mut self, attribute: &entity::Attribute) {
        if self.kind != kind_of(&attribute.value) {
            self.kind = ColumnKind::Json;
        }
        if !matches!(&self.unit, UnitSeen::Always(unit) if unit.as_deref() == attribute.unit_code.as_deref()) {
            self.unit = UnitSeen::Mixed;
        }
    }

    fn merge(&mut self, other: &Self) {
        if self.kind != other.kind {
            self.kind = ColumnKind::Json;
        }
        if self.unit != other.unit {
            self.unit = UnitSeen::Mixed;
        }
    }
}

/// Adds all of `more` to `all`.
pub(super) fn merge_seen(all: &mut SeenByName, more: &SeenByName) {
    for (name, seen) in more {
        match all.get_mut(name) {
            Some(known) => known.merge(seen),
            None => {
                all.insert(name.clone(), seen.clone());
            }
        }
    }
}

/// The columns as queries see them, by name.
pub(super) fn columns_of(seen: &SeenByName) -> Vec<AttributeColumn> {
    let unit_of = |seen: &Seen| match &seen.unit {
        UnitSeen::Always(unit) => unit.clone(),
        UnitSeen::Mixed => None,
    };
    seen.iter().map(|(name, s)| AttributeColumn { name: name.clone(), kind: s.kind, unit_code: unit_of(s) }).collect()
}

/// The narrowest kind of column that holds this value.
pub(super) const fn kind_of(value: &AttributeValue) -> ColumnKind {
    match value {
        AttributeValue::Property(Value::Number(_)) => ColumnKind::Number,
        AttributeValue::Property(Value::Bool(_)) => ColumnKind::Bool,
        AttributeValue::Property(Value::String(_)) => ColumnKind::Text,
        AttributeValue::Relationship(targets) | AttributeValue::Vocab(targets) if targets.len() == 1 => ColumnKind::Text,
        _ => ColumnKind::Json,
    }
}

/// The value as plain JSON: what a `Json` column shows. A single target or term is a string, several are an array.
pub(super) fn plain_of(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::Property(v) | AttributeValue::Json(v) => v.clone(),
        AttributeValue::Geo(g) => g.json().clone(),
        AttributeValue::Relationship(iris) | AttributeValue::Vocab(iris) if iris.len() == 1 => Value::from(iris[0].as_str()),
        AttributeValue::Relationship(iris) | AttributeValue::Vocab(iris) | AttributeValue::ListRelationship(iris) => {
            iris.iter().map(Iri::as_str).collect()
        }
        AttributeValue::Language(texts) => Value::Object(texts.iter().map(|(tag, text)| (tag.to_string(), text.clone())).collect()),
        AttributeValue::List(items) => Value::Array(items.clone()),
    }
}
