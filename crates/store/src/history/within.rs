//! Which entities have values of a time.

use std::collections::BTreeSet;

use entity::Iri;

/// The entities of a table that have values of a time.
#[derive(Clone, Debug)]
pub struct Within {
    /// Those that may have one in the table: none that has is missing.
    pub here: FirstIds,
    /// Each of them does have one.
    pub is_exact: bool,
    /// Those that have or had the type, but have their values in the table of another one.
    pub elsewhere: FirstIds,
}

impl Within {
    pub(super) const fn new(max: usize, is_exact: bool) -> Self {
        Self { here: FirstIds::new(max), is_exact, elsewhere: FirstIds::new(max) }
    }
}

/// The first so many of some ids, in order, each once.
#[derive(Clone, Debug)]
pub struct FirstIds {
    ids: BTreeSet<Iri>,
    max: usize,
    last: String,
}

impl FirstIds {
    const fn new(max: usize) -> Self {
        Self { ids: BTreeSet::new(), max, last: String::new() }
    }

    /// The ids.
    #[must_use]
    pub fn into_ids(self) -> BTreeSet<Iri> {
        self.ids
    }

    pub(super) fn add(&mut self, id: Iri) {
        self.ids.insert(id);
        if self.ids.len() > self.max {
            self.ids.pop_last();
        }
    }

    /// Errors: it is no IRI, in words.
    pub(super) fn add_text(&mut self, id: &str) -> Result<(), String> {
        // Rows of one entity come one after the other.
        if id == self.last || id.is_empty() {
            return Ok(());
        }
        self.last.clear();
        self.last.push_str(id);
        if !self.ids.contains(id) {
            self.add(id.parse().map_err(|e: entity::IriError| format!("an entity is no IRI: {e}"))?);
        }
        Ok(())
    }
}
