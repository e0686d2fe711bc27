//! Who else has data: registrations of context sources (ETSI GS CIM 009 V1.9.1, clauses 4.3.6, 5.2.8 to 5.2.11, 5.2.34 and 5.12).
//!
//! [`Registration`] is the word, [`Specification`] what a request asks for, [`Registration::matches`] whether the one may hold the other.
//! Everything is pure; who registers, who is asked, and how, is for others.

mod matching;
mod operation;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Filter, Geometry, Instant, Iri, Pattern, Scope, TypeSelector};

pub use matching::{MissingMember, Selected, Specification, TimeAsked, Wanted};
pub use operation::{OPERATION_GROUPS, Operation, OperationSet, UnknownOperation};

/// How a source stands to this node's own data (clause 4.3.6.2 and 4.3.6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// Both may have the data; reads and writes go to both.
    #[default]
    Inclusive,
    /// The source alone has these attributes of this entity.
    Exclusive,
    /// The source, and perhaps others of the same kind, have the data and this node has not.
    Redirect,
    /// The source fills what nobody else has; it is only read.
    Auxiliary,
}

impl Mode {
    /// All modes with their names.
    pub const ALL: [(Self, &'static str); 4] =
        [(Self::Inclusive, "inclusive"), (Self::Exclusive, "exclusive"), (Self::Redirect, "redirect"), (Self::Auxiliary, "auxiliary")];

    /// The name as NGSI-LD writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// This node must not have the data itself: the source is asked instead of it.
    #[must_use]
    pub const fn is_proxied(self) -> bool {
        matches!(self, Self::Exclusive | Self::Redirect)
    }
}

/// What a source may have: one wish of `information` (clause 5.2.10).
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Information {
    /// Which entities; empty for any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entities: Vec<EntityInfo>,
    /// Which Properties.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub properties: Vec<Iri>,
    /// Which Relationships.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relationships: Vec<Iri>,
}

impl Information {
    /// Every attribute that is named; none are named if there are none.
    pub fn attributes(&self) -> impl Iterator<Item = &Iri> {
        self.properties.iter().chain(&self.relationships)
    }

    /// Is every attribute meant?
    #[must_use]
    pub fn has_all_attributes(&self) -> bool {
        self.properties.is_empty() && self.relationships.is_empty()
    }

    /// Is this attribute meant?
    #[must_use]
    pub fn has_attribute(&self, name: &Iri) -> bool {
        self.has_all_attributes() || self.attributes().any(|n| n == name)
    }
}

/// Which entities a source may have (clause 5.2.8).
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EntityInfo {
    /// One entity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Iri>,
    /// Entities with such an id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_pattern: Option<Pattern>,
    /// The pattern as it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_pattern_text: Option<String>,
    /// Their types, at least one.
    pub types: Vec<Iri>,
}

impl EntityInfo {
    /// As a condition on entities.
    #[must_use]
    pub fn filter(&self) -> Filter {
        let types = Filter::Type(TypeSelector::Or(self.types.iter().cloned().map(TypeSelector::Is).collect()));
        match (&self.id, &self.id_pattern) {
            (Some(id), _) => types.and(Filter::Id(vec![id.clone()])),
            (None, Some(pattern)) => types.and(Filter::IdPattern(pattern.clone())),
            (None, None) => types,
        }
    }

    /// Can an entity with this id be one of them?
    #[must_use]
    pub fn has_id(&self, id: &Iri) -> bool {
        match (&self.id, &self.id_pattern) {
            (Some(own), _) => own == id,
            (None, Some(pattern)) => pattern.is_match(id.as_str()),
            (None, None) => true,
        }
    }
}

/// A time of which a source has data (clause 5.2.11): both ends are in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TimeInterval {
    /// From when.
    pub start: Instant,
    /// Until when; none for as long as it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Instant>,
}

/// How a source wants to be asked (clause 5.2.34).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Management {
    /// The source is to answer from its own data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_only: Option<bool>,
    /// An answer counts for so long, as it was given (an ISO 8601 duration).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_duration: Option<String>,
    /// The same in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_us: Option<i64>,
    /// An answer that takes longer is none, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// After a failure the source is left alone for so long, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooldown_ms: Option<u64>,
}

/// A registration. Names are expanded, everything is checked.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Registration {
    /// Its id.
    pub id: Iri,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A text for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What the source may have, at least one.
    pub information: Vec<Information>,
    /// Only these instances (none inside for the default one); none for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset_ids: Option<Vec<Option<Iri>>>,
    /// The tenant at the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The source has the past, by observed time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observation_interval: Option<TimeInterval>,
    /// The source has the past, by recorded time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub management_interval: Option<TimeInterval>,
    /// Where the entities are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Geometry>,
    /// What they observe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observation_space: Option<Geometry>,
    /// Where they act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_space: Option<Geometry>,
    /// Scopes of the entities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<Scope>,
    /// After this instant there is no such registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Instant>,
    /// Where the source's interface is, without `/ngsi-ld/v1`.
    pub endpoint: String,
    /// What is to be told to the source, by key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_info: Vec<(String, String)>,
    /// How the source stands to this node's own data.
    #[serde(default)]
    pub mode: Mode,
    /// Operations and groups as they were given; empty for the default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<String>,
    /// How often the source's data change, as it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_rate: Option<String>,
    /// How the source wants to be asked.
    #[serde(default)]
    pub management: Management,
    /// The name by which the source signs in `Via`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Properties of the source itself, by expanded name.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub more: Map<String, Value>,
    /// When it was registered.
    #[serde(default)]
    pub created_at: Instant,
    /// When it was last changed.
    #[serde(default)]
    pub modified_at: Instant,
}

impl Registration {
    /// The operations that the source supports.
    #[must_use]
    pub fn supported(&self) -> OperationSet {
        OperationSet::of(self.operations.iter().map(String::as_str)).unwrap_or_default()
    }

    /// Is it about the past?
    #[must_use]
    pub const fn is_temporal(&self) -> bool {
        self.observation_interval.is_some() || self.management_interval.is_some()
    }

    /// Does it count at this instant?
    #[must_use]
    pub fn is_valid_at(&self, now: Instant) -> bool {
        self.expires_at.is_none_or(|e| e > now)
    }

    /// The value that goes with a key of `contextSourceInfo`; keys are headers, so that case does not matter.
    #[must_use]
    pub fn info(&self, key: &str) -> Option<&str> {
        self.source_info.iter().find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, v)| v.as_str())
    }

    /// Every type that is named.
    #[must_use]
    pub fn types(&self) -> Vec<&Iri> {
        let mut all: Vec<&Iri> = self.information.iter().flat_map(|i| &i.entities).flat_map(|e| &e.types).collect();
        all.sort();
        all.dedup();
        all
    }

    /// Why it cannot be beside `other` (clauses 4.3.6.3 and 5.9.2.4): none if it can.
    ///
    /// Only proxied ones clash: an exclusive one with an exclusive or a redirect one of the same entity and an attribute, a redirect one with an
    /// exclusive one. Several redirect ones may be about the same.
    #[must_use]
    pub fn clash(&self, other: &Self) -> Option<String> {
        let both = self.mode.is_proxied() && other.mode.is_proxied();
        if !both || (self.mode == Mode::Redirect && other.mode == Mode::Redirect) || self.is_temporal() != other.is_temporal() {
            return None;
        }
        let pair = self.information.iter().find_map(|a| other.information.iter().find(|b| matching::overlap(a, b)));
        pair.map(|_| format!("registration `{}` has mode {} and an entity and attribute in common", other.id, other.mode.name()))
    }

    /// The entities that this node must not have if the registration is to be proxied: none if it is not (clause 5.9.2.4).
    #[must_use]
    pub fn must_be_absent(&self) -> Option<Filter> {
        if !self.mode.is_proxied() || self.is_temporal() {
            return None;
        }
        let of = |i: &Information| {
            let entities = match i.entities.as_slice() {
                [] => Filter::all(),
                // Of an exclusive one the id alone decides: it names the entity whatever its type is here.
                list if self.mode == Mode::Exclusive => Filter::Id(list.iter().filter_map(|e| e.id.clone()).collect()),
                list => Filter::Or(list.iter().map(EntityInfo::filter).collect()),
            };
            if i.has_all_attributes() { entities } else { entities.and(Filter::HasAnyOf(i.attributes().cloned().collect())) }
        };
        Some(Filter::Or(self.information.iter().map(of).collect()))
    }
}
