//! One entity's past as an answer shows it: values, scopes, ends.

use std::collections::BTreeSet;
use std::ops::Range;

use entity::{Attribute, AttributeValue, Instant, Iri, Series, Value};
use policy::Principal;
use store::history::{Deletion, Evolution, TemporalQuery, TimeProperty};

use crate::error::NodeError;
use crate::node::Node;
use crate::temporal_known::{Known, ScopeSpan};

/// Ends of attributes of one entity in one answer.
pub const ENDS_MAX: usize = 50_000;

/// Which time an interval speaks of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AskedTime {
    /// A time of values.
    Of(TimeProperty),
    /// When something was removed: only ends have it.
    DeletedAt,
}

impl AskedTime {
    /// The time by which values are looked for and ordered.
    #[must_use]
    pub const fn property(self) -> TimeProperty {
        match self {
            Self::Of(property) => property,
            Self::DeletedAt => TimeProperty::ModifiedAt,
        }
    }

    /// That of an instance; when it was recorded if it has none.
    #[must_use]
    pub fn of(self, a: &Attribute) -> Instant {
        match self.property() {
            TimeProperty::ObservedAt => a.observed_at.unwrap_or(a.modified_at),
            TimeProperty::CreatedAt => a.created_at,
            TimeProperty::ModifiedAt => a.modified_at,
        }
    }
}

/// Which part of an entity's past is asked for.
#[derive(Clone, PartialEq, Debug)]
pub struct PastQuery {
    /// Which attributes; none for all.
    pub attributes: Option<Vec<Iri>>,
    /// The interval `[start, end)` of the time; none for all time.
    pub interval: Option<Range<Instant>>,
    /// Which time the interval speaks of.
    pub time: AskedTime,
    /// Ends are shown beside values.
    pub with_ends: bool,
    /// Scopes are shown.
    pub with_scopes: bool,
    /// Only the newest so many instances of each attribute.
    pub last_n: Option<usize>,
    /// As it was known at this recorded time; none for now.
    pub as_of: Option<Instant>,
    /// Instances in all (see [`TemporalQuery::instances_max`]).
    pub instances_max: usize,
}

impl PastQuery {
    pub(crate) fn of(&self, entity: Iri) -> TemporalQuery {
        TemporalQuery {
            entity,
            attributes: self.attributes.clone(),
            interval: self.interval.clone(),
            time_property: self.time.property(),
            last_n: self.last_n,
            as_of: self.as_of,
            instances_max: self.instances_max,
        }
    }

    fn is_asked(&self, name: &Iri) -> bool {
        self.attributes.as_ref().is_none_or(|list| list.contains(name))
    }
}

/// The end of an attribute instance.
#[derive(Clone, PartialEq, Debug)]
pub struct Ended {
    /// The attribute.
    pub name: Iri,
    /// An instance as it was: its kind and `datasetId` count.
    pub was: Attribute,
    /// When it was removed.
    pub at: Instant,
}

/// One entity's past.
#[derive(Clone, PartialEq, Debug)]
pub struct Past {
    /// The entity.
    pub id: Iri,
    /// Its types: those that it has, or had last.
    pub types: Vec<Iri>,
    /// When it was first recorded, as far as that is known.
    pub created_at: Option<Instant>,
    /// When it was last changed, if it is there.
    pub modified_at: Option<Instant>,
    /// When it was removed, if it is gone and that is to be shown.
    pub deleted_at: Option<Instant>,
    /// The scopes that it had in the interval, in the order of its values.
    pub scopes: Vec<ScopeSpan>,
    /// As in [`Evolution::attributes`].
    pub attributes: Series,
    /// Ends of attributes, by name and in the order of its values.
    pub ended: Vec<Ended>,
    /// As in [`Evolution::cut_at`].
    pub cut_at: Option<Instant>,
}

impl Node {
    /// One entity's past. Blocks the thread.
    ///
    /// Errors: the policy's, nothing is known of the entity, or more ended than [`ENDS_MAX`].
    pub fn past(&self, who: &Principal, id: &Iri, query: &PastQuery) -> Result<Past, NodeError> {
        let evolution = self.evolution(who, &query.of(id.clone()))?;
        let known = self.known(id, query.as_of)?;
        self.past_of(evolution, &known, query)
    }

    /// Puts together what is shown.
    pub(crate) fn past_of(&self, evolution: Evolution, known: &Known, query: &PastQuery) -> Result<Past, NodeError> {
        let of_ends = query.time == AskedTime::DeletedAt;
        let ended = if of_ends || query.with_ends { self.ended(&evolution.id, known, query)? } else { Vec::new() };
        let deleted_at = known.deleted_at().filter(|at| (of_ends || query.with_ends) && is_end_in(query, *at));
        let mut scopes = if query.with_scopes && !of_ends { known.scope_spans() } else { Vec::new() };
        scopes.retain(|span| query.interval.as_ref().is_none_or(|i| span.overlaps(i)));
        if let Some(n) = query.last_n {
            scopes.reverse();
            scopes.truncate(n);
        }
        // Values have no end: only what has gone can have been asked for.
        let (attributes, cut_at) = if of_ends { (Series::default(), None) } else { (evolution.attributes, evolution.cut_at) };
        let types = known.types().map_or_else(|| vec![evolution.entity_type], <[Iri]>::to_vec);
        let modified_at = known.present.as_ref().map(|e| e.modified_at);
        Ok(Past { id: evolution.id, types, created_at: known.created_at(), modified_at, deleted_at, scopes, attributes, ended, cut_at })
    }

    /// The ends of attributes that are asked for, each with what kind of attribute it was.
    fn ended(&self, id: &Iri, known: &Known, query: &PastQuery) -> Result<Vec<Ended>, NodeError> {
        let is_wanted = |d: &&Deletion| d.attribute.as_ref().is_some_and(|name| query.is_asked(name)) && is_end_in(query, d.deleted_at);
        let deletions: Vec<&Deletion> = known.deletions.iter().filter(is_wanted).collect();
        if deletions.len() > ENDS_MAX {
            let what = format!("{} attributes or instances of `{id}` were removed; one answer has at most {ENDS_MAX}", deletions.len());
            return Err(NodeError::Limit { what });
        }
        let names: BTreeSet<&Iri> = deletions.iter().filter_map(|d| d.attribute.as_ref()).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        // What kind of attribute has gone, its last value tells.
        let last = TemporalQuery {
            attributes: Some(names.iter().map(|name| (*name).clone()).collect()),
            last_n: Some(1),
            as_of: query.as_of,
            time_property: TimeProperty::ModifiedAt,
            ..TemporalQuery::of(id.clone())
        };
        let values = self.store.history().evolution(&last)?.map(|e| e.attributes).unwrap_or_default();
        let mut ended = Vec::with_capacity(deletions.len());
        for name in names {
            let value = values.get(name).and_then(|list| list.first()).map(|a| a.value.clone());
            let value = value.unwrap_or(AttributeValue::Property(Value::Null));
            let of_it = deletions.iter().filter(|d| d.attribute.as_ref() == Some(name));
            let end = |d: &&Deletion| Ended {
                name: name.clone(),
                was: Attribute { dataset_id: d.dataset_id.clone(), ..Attribute::new(value.clone()) },
                at: d.deleted_at,
            };
            let mut list: Vec<Ended> = of_it.map(end).collect();
            // With `lastN` the newest come first.
            if let Some(n) = query.last_n {
                list.reverse();
                list.truncate(n);
            }
            ended.append(&mut list);
        }
        Ok(ended)
    }
}

/// Is an end at this time one that is asked for? All are without an interval; in one of times that an end does not have none is.
fn is_end_in(query: &PastQuery, at: Instant) -> bool {
    match (&query.interval, query.time) {
        (None, _) => true,
        (Some(interval), AskedTime::DeletedAt | AskedTime::Of(TimeProperty::ModifiedAt)) => interval.contains(&at),
        (Some(_), AskedTime::Of(TimeProperty::ObservedAt | TimeProperty::CreatedAt)) => false,
    }
}
