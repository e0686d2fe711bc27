//! Since when a history is kept.

use std::collections::BTreeMap;

use entity::{Instant, Iri};
use serde::{Deserialize, Serialize};

use super::HistoryError;

/// Since when the history of a type is kept: values before that were removed by retention. Of what was not changed since, the present
/// still tells the value; of other things that were true then it may be gone.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Kept {
    /// All of it; none if nothing was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Instant>,
    /// Attributes of which more was removed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<Iri, Instant>,
}

impl Kept {
    /// Was nothing removed?
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.since.is_none() && self.attributes.is_empty()
    }

    pub(super) fn times(&self) -> impl Iterator<Item = Instant> {
        self.since.into_iter().chain(self.attributes.values().copied())
    }

    /// Takes in what is known of further removals. Did that change anything?
    pub(super) fn merge(&mut self, other: &Self) -> bool {
        let before = self.clone();
        self.since = self.since.max(other.since);
        for (name, since) in &other.attributes {
            let known = self.attributes.entry(name.clone()).or_insert(*since);
            *known = (*since).max(*known);
        }
        *self != before
    }

    /// Can it be told what was known of these attributes (none for all of the entity) at `as_of`?
    ///
    /// Errors: [`HistoryError::NotKept`].
    pub fn check(&self, entity_type: &Iri, attributes: Option<&[Iri]>, as_of: Option<Instant>) -> Result<(), HistoryError> {
        let Some(at) = as_of else { return Ok(()) };
        let not = |attribute: Option<&Iri>, since: &Instant| HistoryError::NotKept {
            entity_type: entity_type.clone(),
            attribute: attribute.cloned(),
            since: *since,
            at,
        };
        if let Some(since) = self.since.filter(|since| at < *since) {
            return Err(not(None, &since));
        }
        let is_asked = |name: &Iri| attributes.is_none_or(|list| list.contains(name));
        match self.attributes.iter().find(|(name, since)| at < **since && is_asked(name)) {
            Some((name, since)) => Err(not(Some(name), since)),
            None => Ok(()),
        }
    }
}
