//! Which column is what.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::UtcOffset;

/// How the columns of a file become observations.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Column of the entities' ids.
    pub id: String,
    /// Column of the observed times.
    pub time: String,
    /// Put before each id, to make a plain number or code an absolute IRI.
    pub id_prefix: String,
    /// Columns that are called otherwise as attributes; an empty name leaves the column out.
    pub rename: BTreeMap<String, String>,
    /// Unit codes by attribute (after renaming).
    pub units: BTreeMap<String, String>,
    /// Attributes that stay text in CSV although they look like numbers.
    pub text: BTreeSet<String>,
    /// What CSV writes where there is no value, besides nothing.
    pub nulls: BTreeSet<String>,
    /// How far times without `Z` or offset are ahead of UTC; none refuses them.
    pub utc_offset: Option<UtcOffset>,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            id: "id".to_owned(),
            time: "observedAt".to_owned(),
            id_prefix: String::new(),
            rename: BTreeMap::new(),
            units: BTreeMap::new(),
            text: BTreeSet::new(),
            nulls: BTreeSet::new(),
            utc_offset: None,
        }
    }
}

impl Layout {
    /// The attribute that a column is; none if it is left out.
    pub(crate) fn attribute<'a>(&'a self, column: &'a str) -> Option<&'a str> {
        match self.rename.get(column) {
            Some(name) if name.is_empty() => None,
            Some(name) => Some(name),
            None => Some(column),
        }
    }
}
