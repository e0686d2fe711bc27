//! May a source hold what is asked for (clauses 5.10.2 and 5.12)?

use super::{EntityInfo, Information, Registration, TimeInterval};
use crate::{Filter, GeoCondition, GeoRelation, Geometry, Instant, Iri, LOCATION, NGSI_LD_NS, Pattern, Scope, TypeSelector};

/// What a request asks for, as far as it decides which sources may have it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Specification {
    /// Which entities: one of these; empty for any.
    pub entities: Vec<Selected>,
    /// Which attributes: one of these; empty for any.
    pub attributes: Vec<Iri>,
    /// Which instances; none for any.
    pub dataset_ids: Option<Vec<Option<Iri>>>,
    /// Where.
    pub geo: Vec<GeoCondition>,
    /// In which scopes: a condition of [`Filter::Scope`] alone, with its connectives.
    pub scope: Option<Filter>,
    /// When; none asks for the present.
    pub time: Option<TimeAsked>,
    /// What is done with a registration that lacks the member which a restriction is about.
    pub missing: MissingMember,
}

/// Entities that a request selects.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Selected {
    /// Their types; none for any.
    pub types: Option<TypeSelector>,
    /// Their ids; empty for any.
    pub ids: Vec<Iri>,
    /// What their ids look like.
    pub id_pattern: Option<Pattern>,
}

/// What a registration without a place or a scope is worth where these are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MissingMember {
    /// It may have the data all the same: nothing is lost (for asking sources).
    #[default]
    Fits,
    /// It does not say so, and does not match (for discovery, clause 5.10.2).
    Fails,
}

/// A time asked for, with both ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeAsked {
    /// From when.
    pub start: Instant,
    /// Until when.
    pub end: Instant,
    /// Observed time; otherwise recorded time.
    pub is_observed: bool,
}

/// The parts of a registration that match.
#[derive(Clone, PartialEq, Debug)]
pub struct Wanted<'a> {
    /// Which of its `information`, by position.
    pub information: Vec<(usize, &'a Information)>,
}

impl Selected {
    /// Can one of these entities be one of those?
    #[must_use]
    pub fn fits(&self, info: &EntityInfo) -> bool {
        self.types.as_ref().is_none_or(|t| t.matches(&info.types)) && self.id_fits(info)
    }

    fn id_fits(&self, info: &EntityInfo) -> bool {
        if !self.ids.is_empty() {
            return self.ids.iter().any(|id| info.has_id(id));
        }
        match (&self.id_pattern, &info.id) {
            (Some(pattern), Some(id)) => pattern.is_match(id.as_str()),
            // No id is asked for, or two patterns, which are taken to have something in common.
            _ => true,
        }
    }
}

impl Specification {
    /// Everything about one entity.
    #[must_use]
    pub fn of_entity(id: &Iri, types: Option<TypeSelector>) -> Self {
        Self { entities: vec![Selected { types, ids: vec![id.clone()], id_pattern: None }], ..Self::default() }
    }

    fn fits(&self, information: &Information) -> bool {
        let entities = information.entities.is_empty()
            || self.entities.is_empty()
            || self.entities.iter().any(|s| information.entities.iter().any(|e| s.fits(e)));
        let attributes = self.attributes.is_empty() || self.attributes.iter().any(|n| information.has_attribute(n));
        entities && attributes
    }
}

impl Registration {
    /// The parts of this registration that may hold what is asked for; none if no part does. Modes, operations and expiry are not looked at.
    #[must_use]
    pub fn matches(&self, asked: &Specification) -> Option<Wanted<'_>> {
        if !self.time_fits(asked.time.as_ref()) || !self.instances_fit(asked.dataset_ids.as_deref()) {
            return None;
        }
        let information: Vec<_> = self.information.iter().enumerate().filter(|(_, i)| asked.fits(i)).collect();
        if information.is_empty() || !asked.geo.iter().all(|g| self.place_fits(g, asked.missing)) {
            return None;
        }
        let scope_fits = asked.scope.as_ref().is_none_or(|filter| match (self.scopes.as_slice(), asked.missing) {
            ([], missing) => missing == MissingMember::Fits,
            (scopes, _) => scopes_may_satisfy(filter, scopes),
        });
        scope_fits.then_some(Wanted { information })
    }

    fn time_fits(&self, asked: Option<&TimeAsked>) -> bool {
        let Some(asked) = asked else { return !self.is_temporal() };
        let interval = if asked.is_observed { self.observation_interval } else { self.management_interval };
        interval.is_some_and(|TimeInterval { start, end }| start <= asked.end && end.is_none_or(|e| e >= asked.start))
    }

    fn instances_fit(&self, asked: Option<&[Option<Iri>]>) -> bool {
        match (asked, &self.dataset_ids) {
            (Some(asked), Some(own)) => asked.iter().any(|d| own.contains(d)),
            _ => true,
        }
    }

    fn place_fits(&self, asked: &GeoCondition, missing: MissingMember) -> bool {
        let own = match asked.property.as_str() {
            LOCATION => &self.location,
            name => match name.strip_prefix(NGSI_LD_NS) {
                Some("observationSpace") => &self.observation_space,
                Some("operationSpace") => &self.operation_space,
                // Of other places registrations say nothing.
                _ => &None,
            },
        };
        own.as_ref().map_or(missing == MissingMember::Fits, |area| may_hold_place(asked, area))
    }
}

/// Can something in `area` satisfy the condition? True if in doubt.
fn may_hold_place(asked: &GeoCondition, area: &Geometry) -> bool {
    let holds = |relation| GeoCondition { relation, ..asked.clone() }.holds(area);
    match asked.relation {
        GeoRelation::NearMax(_) => asked.holds(area),
        // What is far from the reference may be at the far end of the area.
        GeoRelation::NearMin(_) => area.as_point().is_none() || asked.holds(area),
        GeoRelation::Disjoint => !holds(GeoRelation::Within),
        GeoRelation::Within | GeoRelation::Contains | GeoRelation::Intersects | GeoRelation::Equals | GeoRelation::Overlaps => {
            holds(GeoRelation::Intersects)
        }
    }
}

fn scopes_may_satisfy(filter: &Filter, scopes: &[Scope]) -> bool {
    match filter {
        Filter::And(list) => list.iter().all(|f| scopes_may_satisfy(f, scopes)),
        Filter::Or(list) => list.iter().any(|f| scopes_may_satisfy(f, scopes)),
        Filter::Scope(pattern) => scopes.iter().any(|s| pattern.matches(s)),
        // What is no scope pattern says nothing about scopes.
        _ => true,
    }
}

/// Have two an entity and an attribute in common?
pub(super) fn overlap(a: &Information, b: &Information) -> bool {
    let attributes = a.has_all_attributes() || b.has_all_attributes() || a.attributes().any(|n| b.has_attribute(n));
    let entities =
        a.entities.is_empty() || b.entities.is_empty() || a.entities.iter().any(|x| b.entities.iter().any(|y| may_be_the_same(x, y)));
    attributes && entities
}

fn may_be_the_same(a: &EntityInfo, b: &EntityInfo) -> bool {
    match (&a.id, &b.id) {
        // The id alone is the identity.
        (Some(x), Some(y)) => x == y,
        (Some(x), None) => b.has_id(x) && share_a_type(a, b),
        (None, Some(y)) => a.has_id(y) && share_a_type(a, b),
        (None, None) => share_a_type(a, b),
    }
}

fn share_a_type(a: &EntityInfo, b: &EntityInfo) -> bool {
    a.types.iter().any(|t| b.types.contains(t))
}
