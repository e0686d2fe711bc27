//! The one way in for rows: what `COPY ... FROM` and bulk ingestion hand to the node.

use arrow::datatypes::{DataType, Field, TimeUnit};
use arrow::record_batch::RecordBatch;
use entity::{Iri, LOCATION};
use futures::future::BoxFuture;
use store::history::{AttributeColumn, ColumnKind};

use crate::catalog::{HISTORY_SUFFIX, Tables};
use crate::latest::column_names;

/// Rows of a batch that is handed to a [`Sink`], at most. What a client sends is cut into such pieces, each of which is kept whole or not at all.
pub const SINK_BATCH_ROWS_MAX: usize = 65_536;

/// Name of a sink batch's first column: the entity, an IRI, never null.
pub const SINK_ENTITY_ID: &str = "entity_id";
/// Name of a sink batch's second column: the observed time, never null.
pub const SINK_OBSERVED_AT: &str = "observed_at";

/// Takes observations in on behalf of one principal. Lent by the node, which authorizes, validates and makes them durable.
pub trait Sink: Send + Sync {
    /// Adds observations of entities of a type; each row says what was observed of one entity at one time.
    ///
    /// The columns of `batch` are [`SINK_ENTITY_ID`] (Utf8), [`SINK_OBSERVED_AT`] (timestamp in microseconds, UTC), then attributes by IRI
    /// (Float64, Boolean or Utf8; null: not observed). It has at most [`SINK_BATCH_ROWS_MAX`] rows.
    ///
    /// Gives the number of rows once all of them are durable. Errors: [`SinkError`]; then none of the batch was taken.
    fn append(&self, entity_type: &Iri, batch: RecordBatch) -> BoxFuture<'static, Result<u64, SinkError>>;
}

/// Why rows were not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// The rows are not what they must be, such as an entity of another type.
    #[error("the rows were refused: {reason}")]
    Invalid {
        /// What is wrong, and where.
        reason: String,
    },
    /// The principal may not write these.
    #[error("the rows may not be written: {reason}")]
    Denied {
        /// What it may not.
        reason: String,
    },
    /// They cannot be kept now, for example because the disk is full.
    #[error("the rows cannot be kept now: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
}

/// The type of [`SINK_OBSERVED_AT`].
pub(crate) fn observed_at_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The first two columns of a sink batch.
pub(crate) fn fixed_fields() -> [Field; 2] {
    [Field::new(SINK_ENTITY_ID, DataType::Utf8, false), Field::new(SINK_OBSERVED_AT, observed_at_type(), false)]
}

/// A history table that rows are for.
pub(crate) struct Target {
    pub(crate) entity_type: Iri,
    /// False for a type of which nothing is known yet.
    pub(crate) exists: bool,
    /// Its attributes by the names of their columns.
    columns: Vec<(String, AttributeColumn)>,
}

/// An attribute that a column is for.
pub(crate) struct TargetAttribute {
    pub(crate) name: Iri,
    /// What its values are so far; none if there are none.
    pub(crate) kind: Option<ColumnKind>,
}

impl Target {
    /// The table of this name, which may be that of a type to come.
    ///
    /// Errors: why there cannot be such a table.
    pub(crate) fn of(tables: &Tables, name: &str) -> Result<Self, String> {
        if let Some(described) = tables.history_table(name) {
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
    pub(crate) fn attribute(&self, column: &str, tables: &Tables) -> Result<TargetAttribute, String> {
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
