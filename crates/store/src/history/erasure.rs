//! What is taken out of the history again: a wrong instance, an attribute, an entity, a stretch of time.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use entity::{Instant, Iri};
use serde::{Deserialize, Serialize};

/// Erasures of one table that are kept, at most. Each is looked at by every reader of what it may concern; [`super::History::purge`] makes
/// room.
pub const ERASURES_MAX: usize = 100_000;

/// Takes facts out of the history of one type: all that agree with every member, and that were recorded before the erasure or with it.
///
/// An erasure is itself something that was learned at a time: readers do not see erased facts any more, those who ask as of an earlier
/// recorded time still do – until [`super::History::purge`] removes them for good. What is recorded later is not concerned, so a value can be
/// put again.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Erasure {
    /// The type under which the facts were recorded. Of an entity that had several types each has its table, and needs an erasure of its own.
    #[serde(rename = "t")]
    pub entity_type: Iri,
    /// When the node was told.
    #[serde(rename = "r")]
    pub recorded_at: Instant,
    /// Whose facts; none for all entities of the type.
    #[serde(default, rename = "e", skip_serializing_if = "Option::is_none")]
    pub entity: Option<Iri>,
    /// Facts about which attribute; none for all, and for what is known of the entity itself.
    #[serde(default, rename = "a", skip_serializing_if = "Option::is_none")]
    pub attribute: Option<Iri>,
    /// Which instances of the attribute.
    #[serde(default, rename = "d", skip_serializing_if = "ErasedInstances::is_all")]
    pub instances: ErasedInstances,
    /// Facts of which time.
    #[serde(default, rename = "w", skip_serializing_if = "ErasedTimes::is_all")]
    pub times: ErasedTimes,
}

/// Which instances of an attribute an [`Erasure`] concerns.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErasedInstances {
    /// All.
    #[default]
    All,
    /// Those with this `datasetId`; none for the default instance.
    Of(Option<Iri>),
}

/// Facts of which time an [`Erasure`] concerns; intervals are half-open.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErasedTimes {
    /// All.
    #[default]
    All,
    /// Values observed in here; none without observed time.
    Observed(Range<Instant>),
    /// Whatever was recorded in here.
    Recorded(Range<Instant>),
}

impl ErasedInstances {
    const fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }
}

impl ErasedTimes {
    const fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }
}

/// A fact as erasures see it: keys, and what it is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Erasable<'a> {
    pub(super) dataset_id: Option<&'a str>,
    pub(super) observed_at: Option<Instant>,
    pub(super) recorded_at: Instant,
}

impl Erasure {
    /// Everything that is known of an entity under one type.
    #[must_use]
    pub const fn of_entity(entity_type: Iri, entity: Iri, recorded_at: Instant) -> Self {
        let (instances, times) = (ErasedInstances::All, ErasedTimes::All);
        Self { entity_type, recorded_at, entity: Some(entity), attribute: None, instances, times }
    }

    /// Is it known to those who ask as of this time?
    pub(super) fn is_known(&self, as_of: Option<Instant>) -> bool {
        as_of.is_none_or(|as_of| self.recorded_at <= as_of)
    }

    pub(super) fn concerns_entity(&self, entity: &str) -> bool {
        self.entity.as_ref().is_none_or(|e| e.as_str() == entity)
    }

    /// Does it concern facts about this attribute; none for the entity itself?
    pub(super) fn concerns_attribute(&self, attribute: Option<&str>) -> bool {
        self.attribute.as_ref().is_none_or(|a| Some(a.as_str()) == attribute)
    }

    /// Does it concern facts with these keys?
    pub(super) fn concerns_row(&self, row: &Erasable<'_>) -> bool {
        let is_time = match &self.times {
            ErasedTimes::All => true,
            ErasedTimes::Observed(range) => row.observed_at.is_some_and(|at| range.contains(&at)),
            ErasedTimes::Recorded(range) => range.contains(&row.recorded_at),
        };
        let is_instance = match &self.instances {
            ErasedInstances::All => true,
            ErasedInstances::Of(dataset_id) => dataset_id.as_ref().map(Iri::as_str) == row.dataset_id,
        };
        row.recorded_at <= self.recorded_at && is_time && is_instance
    }
}

/// The erasures of one table, found by entity.
#[derive(Clone, Default, Debug)]
pub(super) struct Erasures {
    by_entity: HashMap<Iri, Vec<Arc<Erasure>>>,
    of_all: Vec<Arc<Erasure>>,
    n: usize,
}

impl Erasures {
    /// Takes one in, unless it is known already.
    pub(super) fn add(&mut self, erasure: Arc<Erasure>) {
        let list = match &erasure.entity {
            Some(entity) => self.by_entity.entry(entity.clone()).or_default(),
            None => &mut self.of_all,
        };
        if !list.contains(&erasure) {
            list.push(erasure);
            self.n += 1;
        }
    }

    pub(super) fn contains(&self, erasure: &Erasure) -> bool {
        let list = match &erasure.entity {
            Some(entity) => self.by_entity.get(entity),
            None => Some(&self.of_all),
        };
        list.is_some_and(|list| list.iter().any(|e| **e == *erasure))
    }

    pub(super) const fn len(&self) -> usize {
        self.n
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.n == 0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Erasure>> {
        self.by_entity.values().flatten().chain(&self.of_all)
    }

    /// Those that concern an entity and are known as of a time.
    pub(super) fn of(&self, entity: &str, as_of: Option<Instant>) -> Vec<&Erasure> {
        let of_it = self.by_entity.get(entity).into_iter().flatten();
        of_it.chain(&self.of_all).map(AsRef::as_ref).filter(|e| e.is_known(as_of)).collect()
    }

    /// Is there one that concerns one of these entities (none for all) and is known as of a time?
    pub(super) fn concern(&self, entities: Option<&[Iri]>, as_of: Option<Instant>) -> bool {
        let is_wanted = |e: &&Arc<Erasure>| e.is_known(as_of);
        match entities {
            None => self.iter().any(|e| is_wanted(&e)),
            Some(ids) => {
                self.of_all.iter().any(|e| is_wanted(&e))
                    || ids.iter().filter_map(|id| self.by_entity.get(id)).flatten().any(|e| is_wanted(&e))
            }
        }
    }
}
