//! What an entity is besides its attributes: its types and scopes, and how long it is there.

use entity::{Entity, Instant, Iri, Scope};
use serde::{Deserialize, Serialize};

/// What an entity is besides its attributes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct About {
    /// Its types; the first one decides in which table its values are.
    pub types: Vec<Iri>,
    /// The scopes it is in.
    pub scopes: Vec<Scope>,
    /// When the node first recorded it.
    pub created_at: Instant,
    /// After this instant it is no longer valid.
    pub expires_at: Option<Instant>,
}

/// Whose marks are asked for (see [`super::History::visit_marks`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Marked<'a> {
    /// One entity's, in all tables.
    Entity(&'a Iri),
    /// Those in the table of one type.
    Type(&'a Iri),
}

/// How it is written in a file; the time of creation only where it is not the recorded time.
#[derive(Serialize, Deserialize)]
struct Written {
    #[serde(rename = "t")]
    types: Vec<Iri>,
    #[serde(default, rename = "s", skip_serializing_if = "Vec::is_empty")]
    scopes: Vec<Scope>,
    #[serde(default, rename = "c", skip_serializing_if = "Option::is_none")]
    created_at: Option<Instant>,
    #[serde(default, rename = "e", skip_serializing_if = "Option::is_none")]
    expires_at: Option<Instant>,
}

impl About {
    /// That of an entity.
    #[must_use]
    pub fn of(entity: &Entity) -> Self {
        Self { types: entity.types.clone(), scopes: entity.scopes.clone(), created_at: entity.created_at, expires_at: entity.expires_at }
    }

    /// Is it that of this entity?
    #[must_use]
    pub fn is_of(&self, entity: &Entity) -> bool {
        self.types == entity.types
            && self.scopes == entity.scopes
            && self.created_at == entity.created_at
            && self.expires_at == entity.expires_at
    }

    /// Does the table of this type have the entity's values?
    pub(super) fn is_at_home(&self, entity_type: &Iri) -> bool {
        self.types.first() == Some(entity_type)
    }

    /// As JSON; few different texts, since entities that are made alike have the same.
    pub(super) fn to_text(&self, recorded_at: Instant) -> String {
        let Self { types, scopes, created_at, expires_at } = self.clone();
        let created_at = Some(created_at).filter(|at| *at != recorded_at);
        serde_json::to_string(&Written { types, scopes, created_at, expires_at }).expect("names and times are JSON")
    }

    /// Errors: it is not what [`About::to_text`] writes.
    pub(super) fn of_text(text: &str, recorded_at: Instant) -> Result<Self, String> {
        let written = serde_json::from_str(text).map_err(|e| format!("`{text}` does not say what an entity is: {e}"))?;
        let Written { types, scopes, created_at, expires_at } = written;
        Ok(Self { types, scopes, created_at: created_at.unwrap_or(recorded_at), expires_at })
    }
}
