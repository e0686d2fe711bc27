//! Agreements between cities: who may read what, for what, where, until when.

use std::fmt;

use entity::{Attribute, AttributeValue, Entity, Geometry, Instant, Iri, Value};
use serde::{Deserialize, Serialize};

use crate::{CityName, PublicKey, Purpose, term};

mod describe;
mod read;

pub use describe::Lang;

/// The most types or attributes that one agreement may name: more is a mistake, or two agreements.
pub const NAMES_MAX: usize = 256;

/// The longest text of a legal basis, in characters.
pub const LEGAL_BASIS_CHARS_MAX: usize = 2_000;

/// The finest rounding: eight decimals of a degree are about a millimetre.
pub const POSITION_DECIMALS_MAX: u8 = 8;

/// What one city lets another one read. As data it is an entity of type [`term::AGREEMENT`].
#[derive(Clone, PartialEq, Debug)]
pub struct Agreement {
    /// Its identity.
    pub id: Iri,
    /// The city whose data are shared.
    pub provider: CityName,
    /// The city that may read them.
    pub consumer: CityName,
    /// The key that the consumer's questions are signed with.
    pub consumer_key: PublicKey,
    /// The types of entities that are shared; at least one.
    pub types: Vec<Iri>,
    /// The attributes that are shared.
    pub attributes: Selection,
    /// Only what lies wholly within this polygon is shared; none: no matter where.
    pub area: Option<Geometry>,
    /// Positions are rounded to so many decimals of a degree, 0 to [`POSITION_DECIMALS_MAX`]; none: exact.
    pub position_decimals: Option<u8>,
    /// What the data may be used for.
    pub purpose: Purpose,
    /// In force from then on.
    pub valid_from: Instant,
    /// No longer in force from then on.
    pub valid_until: Instant,
    /// The law or contract it rests on.
    pub legal_basis: String,
    /// Where it stands.
    pub status: Status,
}

/// Which attributes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Selection {
    /// Every one, also those that come later; written `["*"]`.
    All,
    /// These.
    Only(Vec<Iri>),
}

impl Selection {
    /// Is this attribute among them?
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.iter().any(|n| n.as_str() == name),
        }
    }
}

/// Where an agreement stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Proposed, not yet accepted: nothing is shared.
    Offered,
    /// Signed: data are shared.
    Active,
    /// Halted for now.
    Suspended,
    /// Ended for good.
    Revoked,
}

impl Status {
    const ALL: [Self; 4] = [Self::Offered, Self::Active, Self::Suspended, Self::Revoked];

    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Revoked => "revoked",
        }
    }
}

/// Why an entity is not an agreement: every wrong member at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entity `{id}` is not a usable agreement: {}", list(.problems))]
pub struct AgreementError {
    /// The entity.
    pub id: Iri,
    /// What is wrong, at least one.
    pub problems: Vec<Problem>,
}

/// One wrong member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The member, by its short name.
    pub member: String,
    /// What is there.
    pub found: String,
    /// What should be there.
    pub expected: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is {}, expected {}", self.member, self.found, self.expected)
    }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Agreement {
    /// Reads an agreement from its entity. The lists of names may be VocabProperties, or Properties or ListProperties of full IRIs.
    ///
    /// Errors: [`AgreementError`] naming every member that is missing, wrong, or that would not be enforced.
    pub fn from_entity(entity: &Entity) -> Result<Self, AgreementError> {
        read::read(entity)
    }

    /// Is this entity meant to be an agreement?
    #[must_use]
    pub fn is_one(entity: &Entity) -> bool {
        entity.types.iter().any(|t| t.as_str() == term::AGREEMENT)
    }

    /// The agreement as an entity; [`Agreement::from_entity`] reads it back.
    #[must_use]
    pub fn to_entity(&self) -> Entity {
        let vocab = |names: &[Iri]| Attribute::new(AttributeValue::Vocab(names.to_vec()));
        let mut e = Entity::new(self.id.clone(), Iri::known(term::AGREEMENT));
        let mut put = |name: &str, attribute: Attribute| e.put(Iri::known(name), attribute);
        put(term::PROVIDER, Attribute::property(self.provider.as_str()));
        put(term::CONSUMER, Attribute::property(self.consumer.as_str()));
        put(term::CONSUMER_KEY, Attribute::property(self.consumer_key.to_string()));
        put(term::DATA_TYPES, vocab(&self.types));
        let attributes = match &self.attributes {
            Selection::All => Attribute::property(Value::from(vec!["*"])),
            Selection::Only(names) => vocab(names),
        };
        put(term::DATA_ATTRIBUTES, attributes);
        if let Some(area) = &self.area {
            put(term::AREA, Attribute::new(AttributeValue::Geo(area.clone())));
        }
        if let Some(decimals) = self.position_decimals {
            put(term::POSITION_DECIMALS, Attribute::property(decimals));
        }
        put(term::PURPOSE, Attribute::property(self.purpose.as_str()));
        put(term::VALID_FROM, Attribute::property(self.valid_from.to_string()));
        put(term::VALID_UNTIL, Attribute::property(self.valid_until.to_string()));
        put(term::LEGAL_BASIS, Attribute::property(self.legal_basis.as_str()));
        put(term::STATUS, Attribute::property(self.status.as_str()));
        e
    }
}

#[cfg(test)]
mod tests;
