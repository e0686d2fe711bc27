//! What a permit lets through: a function from an entity to the part of it that may be seen.

use entity::{
    Attribute, AttributeValue, Attributes, Entity, Filter, GeoCondition, GeoRelation, Geometry, Instances, Instant, Iri, LOCATION, Series,
    TypeSelector,
};
use serde::{Deserialize, Serialize};

use crate::{Agreement, Selection, term};

/// What must be done to the data before they leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Obligation {
    /// Every position is rounded, in every GeoProperty and in sub-attributes.
    RoundPosition {
        /// Decimals of a degree that remain.
        decimals: u8,
    },
}

/// What one agreement in force lets its consumer see.
///
/// Of an entity of an agreed type (and, with an area, one whose every `location` lies wholly within it, exactly measured) it gives: the id,
/// the agreed ones among the types, the agreed attributes with their sub-attributes, after the obligations. The scopes are given if the
/// agreement names [`term::SCOPE`] or all attributes. The entity's modification time is that of what is given, so that a change of something
/// hidden does not show.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    agreement: Iri,
    types: Vec<Iri>,
    attributes: Selection,
    area: Option<GeoCondition>,
    obligations: Vec<Obligation>,
}

/// What a principal may see: everything, or what at least one of its agreements gives.
///
/// **The rule for several agreements:** each gives its own answer, as if it were the only one (its own types, area, projection, obligations,
/// and the question tested on its own copy). An entity that several of them give is shown once, with each attribute exactly as one of them
/// gives it; where two give the same attribute, the one with the more exact positions wins, then the one with the smaller id. So nothing
/// appears that the consumer could not have had by asking under each agreement alone.
#[derive(Clone, PartialEq, Debug)]
pub enum Permit {
    /// All there is, unchanged: the city's own operators.
    Everything,
    /// What these give, the most exact first.
    Granted(Vec<Grant>),
}

/// An entity as it may be seen, and the agreements under which.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Shared {
    /// What may be seen.
    pub entity: Entity,
    /// The agreements that gave it, in order of id; empty for the city's own operators.
    pub agreements: Vec<Iri>,
}

/// An entity's past as it may be seen, and the agreements under which.
#[derive(Clone, PartialEq, Debug)]
pub struct SharedPast {
    /// Instances by attribute, in the order in which they were given.
    pub attributes: Series,
    /// The agreements that gave it, in order of id; empty for the city's own operators.
    pub agreements: Vec<Iri>,
}

impl Grant {
    /// What the agreement gives, regardless of whether it is in force.
    pub(crate) fn of(agreement: &Agreement) -> Self {
        Self {
            agreement: agreement.id.clone(),
            types: agreement.types.clone(),
            attributes: agreement.attributes.clone(),
            area: agreement.area.as_ref().map(|area| GeoCondition {
                property: Iri::known(LOCATION),
                relation: GeoRelation::Within,
                reference: area.clone(),
            }),
            obligations: agreement.position_decimals.map(|decimals| Obligation::RoundPosition { decimals }).into_iter().collect(),
        }
    }

    /// The agreement it comes from.
    #[must_use]
    pub const fn agreement(&self) -> &Iri {
        &self.agreement
    }

    /// The types of entities that it gives.
    #[must_use]
    pub fn types(&self) -> &[Iri] {
        &self.types
    }

    /// The attributes that it gives of entities of a type; none if it does not give the type.
    #[must_use]
    pub fn attributes_of(&self, entity_type: &Iri) -> Option<&Selection> {
        self.types.contains(entity_type).then_some(&self.attributes)
    }

    /// What is done to the data.
    #[must_use]
    pub fn obligations(&self) -> &[Obligation] {
        &self.obligations
    }

    /// A condition that every entity satisfies of which it gives something: for finding candidates. It is tested on the true entity.
    ///
    /// Not sufficient alone ([`Grant::apply`] decides): of an entity with several locations, this finds one within the area, while all must be.
    #[must_use]
    pub fn residual(&self) -> Filter {
        let types = Filter::Type(TypeSelector::Or(self.types.iter().cloned().map(TypeSelector::Is).collect()));
        match &self.area {
            None => types,
            Some(area) => types.and(Filter::Geo(area.clone())),
        }
    }

    fn covers(&self, entity: &Entity) -> bool {
        entity.types.iter().any(|t| self.types.contains(t)) && self.area.as_ref().is_none_or(|area| all_within(entity, area))
    }

    /// The part of the true entity that may be seen; none if nothing of it.
    #[must_use]
    pub fn apply(&self, entity: &Entity) -> Option<Entity> {
        if !self.covers(entity) {
            return None;
        }
        let attributes: Attributes = entity
            .attributes
            .iter()
            .filter(|(name, _)| self.attributes.contains(name.as_str()))
            .map(|(name, instances)| (name.clone(), instances.iter().map(|i| self.coarsened(i)).collect()))
            .collect();
        let modified_at = match &self.attributes {
            Selection::All => entity.modified_at,
            Selection::Only(_) => latest(&attributes).unwrap_or(entity.created_at),
        };
        Some(Entity {
            id: entity.id.clone(),
            types: entity.types.iter().filter(|t| self.types.contains(t)).cloned().collect(),
            scopes: if self.attributes.contains(term::SCOPE) { entity.scopes.clone() } else { Vec::new() },
            attributes,
            created_at: entity.created_at,
            modified_at,
            expires_at: entity.expires_at,
        })
    }

    /// What may be seen of the entity if that satisfies the question. The question never sees the true entity.
    #[must_use]
    pub fn answer(&self, question: &Filter, entity: &Entity) -> Option<Entity> {
        self.apply(entity).filter(|seen| question.matches(seen))
    }

    fn decimals(&self) -> Option<u8> {
        self.obligations.iter().map(|Obligation::RoundPosition { decimals }| *decimals).min()
    }

    fn coarsened(&self, attribute: &Attribute) -> Attribute {
        let mut copy = attribute.clone();
        if let Some(decimals) = self.decimals() {
            round(&mut copy, decimals);
        }
        copy
    }

    /// One instance of the past of an entity of which it gives something. A location outside the area is not given even if the entity is
    /// inside now; other values are judged by where the entity is now.
    fn past_instance(&self, name: &Iri, instance: &Attribute) -> Option<Attribute> {
        if !self.attributes.contains(name.as_str()) {
            return None;
        }
        if let Some(area) = self.area.as_ref().filter(|area| area.property == *name) {
            match &instance.value {
                AttributeValue::Geo(place) if area.holds(place) => {}
                _ => return None,
            }
        }
        Some(self.coarsened(instance))
    }
}

/// The true place, before any rounding. Without a place an entity is not in the area.
fn all_within(entity: &Entity, area: &GeoCondition) -> bool {
    let instances = entity.attributes.get(&area.property).map(Instances::as_slice).unwrap_or_default();
    !instances.is_empty() && instances.iter().all(|i| matches!(&i.value, AttributeValue::Geo(place) if area.holds(place)))
}

fn round(attribute: &mut Attribute, decimals: u8) {
    if let AttributeValue::Geo(place) = &attribute.value {
        let place: Geometry = place.rounded(decimals);
        attribute.value = AttributeValue::Geo(place);
    }
    for (_, sub) in attribute.sub_attributes.each_mut() {
        round(sub, decimals);
    }
}

fn latest(attributes: &Attributes) -> Option<Instant> {
    attributes.values().flatten().map(|a| a.modified_at).max()
}

impl Permit {
    /// From the agreements in force, at least one.
    pub(crate) fn granted(mut grants: Vec<Grant>) -> Self {
        // Without rounding is the most exact.
        let coarseness = |g: &Grant| g.decimals().map_or(0, |d| 1 + u32::from(u8::MAX - d));
        grants.sort_by(|a, b| coarseness(a).cmp(&coarseness(b)).then_with(|| a.agreement.cmp(&b.agreement)));
        Self::Granted(grants)
    }

    /// The grants, if it is not everything.
    #[must_use]
    pub fn grants(&self) -> &[Grant] {
        match self {
            Self::Everything => &[],
            Self::Granted(grants) => grants,
        }
    }

    /// The agreements that it rests on, in order of id.
    #[must_use]
    pub fn agreements(&self) -> Vec<Iri> {
        let mut ids: Vec<Iri> = self.grants().iter().map(|g| g.agreement.clone()).collect();
        ids.sort();
        ids
    }

    /// A condition that every entity satisfies of which something may be seen; see [`Grant::residual`].
    #[must_use]
    pub fn residual(&self) -> Filter {
        match self {
            Self::Everything => Filter::all(),
            Self::Granted(grants) => match grants.as_slice() {
                [one] => one.residual(),
                several => Filter::Or(several.iter().map(Grant::residual).collect()),
            },
        }
    }

    /// What may be seen of the entity; none if nothing.
    #[must_use]
    pub fn apply(&self, entity: &Entity) -> Option<Shared> {
        self.answer(&Filter::all(), entity)
    }

    /// What may be seen of the entity under those agreements whose view of it satisfies the question; none if there is none.
    #[must_use]
    pub fn answer(&self, question: &Filter, entity: &Entity) -> Option<Shared> {
        let grants = match self {
            Self::Everything => {
                return question.matches(entity).then(|| Shared { entity: entity.clone(), agreements: Vec::new() });
            }
            Self::Granted(grants) => grants,
        };
        let mut views = grants.iter().filter_map(|g| Some((g, g.answer(question, entity)?)));
        let (first, seen) = views.next()?;
        let mut shared = Shared { entity: seen, agreements: vec![first.agreement.clone()] };
        for (grant, view) in views {
            unite(&mut shared.entity, view);
            shared.agreements.push(grant.agreement.clone());
        }
        shared.agreements.sort();
        Some(shared)
    }

    /// What may be seen of an entity's past: instances by attribute, each exactly as one agreement gives it. `present` is the entity as it is
    /// now, whole; a peer sees nothing of the past of what is gone. `question` is tested on what may be seen of the present.
    #[must_use]
    pub fn past(&self, question: &Filter, present: &Entity, past: &Series) -> Option<SharedPast> {
        let grants = match self {
            Self::Everything => return question.matches(present).then(|| SharedPast { attributes: past.clone(), agreements: Vec::new() }),
            Self::Granted(grants) => grants,
        };
        let grants: Vec<&Grant> = grants.iter().filter(|g| g.answer(question, present).is_some()).collect();
        if grants.is_empty() {
            return None;
        }
        let seen = past.iter().map(|(name, instances)| {
            let seen = instances.iter().filter_map(|i| grants.iter().find_map(|g| g.past_instance(name, i)));
            (name.clone(), seen.collect::<Vec<_>>())
        });
        let mut agreements: Vec<Iri> = grants.iter().map(|g| g.agreement.clone()).collect();
        agreements.sort();
        Some(SharedPast { attributes: seen.filter(|(_, instances)| !instances.is_empty()).collect(), agreements })
    }
}

/// Adds what another view of the same entity shows; what both show stays as it is.
fn unite(seen: &mut Entity, other: Entity) {
    for t in other.types {
        if !seen.types.contains(&t) {
            seen.types.push(t);
        }
    }
    if seen.scopes.is_empty() {
        seen.scopes = other.scopes;
    }
    for (name, instances) in other.attributes {
        seen.attributes.entry(name).or_insert(instances);
    }
    seen.modified_at = seen.modified_at.max(other.modified_at);
}

#[cfg(test)]
mod tests;
