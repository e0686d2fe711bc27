//! Which table rows are for, and which attributes their columns are.

use entity::{Iri, LOCATION};
use store::history::{AttributeColumn, ColumnKind};

use crate::catalog::{HISTORY_SUFFIX, Tables};
use crate::latest::column_names;

/// A history table that rows are for.
pub(super) struct Target {
    pub(super) entity_type: Iri,
    /// False for a type of which nothing is known yet.
    pub(super) exists: bool,
    /// Its attributes by the names of their columns.
    columns: Vec<(String, AttributeColumn)>,
}

/// An attribute that a column is for.
pub(super) struct TargetAttribute {
    pub(super) name: Iri,
    /// What its values are so far; none if there are none.
    pub(super) kind: Option<ColumnKind>,
}

impl Target {
    /// The table of this name, which may be that of a type to come.
    ///
    /// Errors: why there cannot be such a table.
    pub(super) fn of(tables: &Tables, name: &str) -> Result<Self, String> {
        if let Some(described) = tables.described(name) {
            let columns = column_names(&*tables.source, described.columns);
            return Ok(Self { entity_type: described.entity_type, exists: true, columns });
        }
        let Some(type_name) = name.strip_suffix(HISTORY_SUFFIX) else {
            return Err(format!("rows go into history tables only: `{name}` is none (did you mean `{name}{HISTORY_SUFFIX}`?)"));
        };
        let entity_type = tables.source.full_name(type_name);
        let entity_type = entity_type.ok_or_else(|| format!("`{type_name}` is no type (expected a name of the context, or an IRI)"))?;
        Ok(Self { entity_type, exists: false, columns: Vec::new() })
    }

    /// The attribute that a column of this name is for, which may be new.
    ///
    /// Errors: why there cannot be such a column.
    pub(super) fn attribute(&self, column: &str, tables: &Tables) -> Result<TargetAttribute, String> {
        let known = self.columns.iter().find(|(name, _)| name == column).map(|(_, c)| c.name.clone());
        let name = known.or_else(|| tables.source.full_name(column));
        let name = name.ok_or_else(|| format!("column `{column}` is no attribute (expected a name of the context, or an IRI)"))?;
        if name.as_str() == LOCATION {
            return Err(format!("column `{column}`: geometries do not come in as rows"));
        }
        let kind = self.columns.iter().find(|(_, c)| c.name == name).map(|(_, c)| c.kind);
        Ok(TargetAttribute { name, kind })
    }
}
