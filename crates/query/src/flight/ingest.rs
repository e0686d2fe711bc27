//! Rows that come in: bulk ingestion into history tables.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{CommandStatementIngest, TableExistsOption, TableNotExistOption};
use entity::Iri;
use futures::TryStreamExt;
use store::history::ColumnKind;
use tonic::Status;

use super::session::Session;
use super::status::{after_rows, of_sink};
use super::target::Target;
use crate::engine::{CATALOG, SCHEMA};
use crate::pushdown::{ID, OBSERVED_AT};

/// Rows that are kept whole or not at all. What a client sends is cut into such pieces, so that a large batch does not have to fit the log at once.
pub const INGEST_BATCH_ROWS_MAX: usize = 65_536;
/// Columns of ingested rows.
const COLUMNS_MAX: usize = 1_000;

/// What the sink calls the column with the entity.
const ENTITY_ID: &str = "entity_id";

/// Takes rows into a history table and gives their number once all of them are durable.
pub(super) async fn ingest(session: &Session, command: &CommandStatementIngest, mut rows: FlightRecordBatchStream) -> Result<u64, Status> {
    let sink = session.sources.sink(&session.principal);
    let sink =
        sink.ok_or_else(|| Status::permission_denied(format!("`{}` can read only: no rows are taken from it", session.principal)))?;
    let target = target(session, command)?;
    let mut shape: Option<(SchemaRef, Shape)> = None;
    let mut n_rows = 0;
    loop {
        let batch = rows.try_next().await.map_err(|e| match e {
            FlightError::Tonic(status) => *status,
            other => Status::invalid_argument(after_rows(&format!("the rows cannot be read: {other}"), n_rows)),
        })?;
        let Some(batch) = batch else { return Ok(n_rows) };
        if shape.as_ref().is_none_or(|(schema, _)| *schema != batch.schema()) {
            shape = Some((batch.schema(), Shape::of(&batch.schema(), &target, session).map_err(Status::invalid_argument)?));
        }
        let (_, shape) = shape.as_ref().expect("set above");
        for start in (0..batch.num_rows()).step_by(INGEST_BATCH_ROWS_MAX) {
            let piece = batch.slice(start, INGEST_BATCH_ROWS_MAX.min(batch.num_rows() - start));
            // Rows are counted from one, over all batches, as the client counts those of its table.
            let piece = shape.fit(&piece, n_rows).map_err(|reason| Status::invalid_argument(after_rows(&reason, n_rows)))?;
            n_rows += sink.append(&target.entity_type, piece).await.map_err(|e| of_sink(&e, n_rows))?;
        }
    }
}

/// As the sink takes it.
fn observed_at_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The table that a client names, existing or to be.
fn target(session: &Session, command: &CommandStatementIngest) -> Result<Target, Status> {
    let table = &command.table;
    if command.temporary {
        return Err(Status::unimplemented("there are no temporary tables"));
    }
    for (found, expected, what) in [(&command.catalog, CATALOG, "catalog"), (&command.schema, SCHEMA, "schema")] {
        if let Some(found) = found.as_deref().filter(|f| !f.is_empty() && *f != expected) {
            return Err(Status::not_found(format!("there is no {what} `{found}` that takes rows (expected `{expected}`)")));
        }
    }
    let options = command.table_definition_options.unwrap_or_default();
    let target = Target::of(session.engine.tables(), table).map_err(Status::not_found)?;
    if target.exists {
        match options.if_exists() {
            TableExistsOption::Append | TableExistsOption::Unspecified => {}
            TableExistsOption::Fail => {
                return Err(Status::already_exists(format!("there is a table `{table}` already (use mode `append`)")));
            }
            TableExistsOption::Replace => {
                return Err(Status::unimplemented(format!("`{table}` is history, which is not replaced (use mode `append`)")));
            }
        }
    } else if options.if_not_exist() != TableNotExistOption::Create {
        return Err(Status::not_found(format!("there is no table `{table}` yet (use mode `create_append`)")));
    }
    Ok(target)
}

/// How the columns of a client become those of the sink.
struct Shape {
    id: usize,
    observed_at: usize,
    /// Which column, what it is called, and as what it goes in.
    attributes: Vec<(usize, String, DataType)>,
    /// Columns that may be there if they are empty.
    empty: Vec<(usize, String)>,
    schema: SchemaRef,
}

impl Shape {
    fn of(found: &Schema, target: &Target, session: &Session) -> Result<Self, String> {
        if found.fields().len() > COLUMNS_MAX {
            return Err(format!("the rows have {} columns; the limit is {COLUMNS_MAX}", found.fields().len()));
        }
        let (mut id, mut observed_at) = (None, None);
        let (mut attributes, mut empty) = (Vec::new(), Vec::new());
        let mut fields = vec![Field::new(ENTITY_ID, DataType::Utf8, false), Field::new(OBSERVED_AT, observed_at_type(), false)];
        let mut names = HashSet::new();
        for (i, field) in found.fields().iter().enumerate() {
            match field.name().as_str() {
                ID | ENTITY_ID if id.is_none() => id = Some(i),
                OBSERVED_AT if observed_at.is_none() => observed_at = Some(i),
                "dataset_id" | "recorded_at" => empty.push((i, field.name().clone())),
                name => {
                    let attribute = target.attribute(name, session.engine.tables())?;
                    if !names.insert(attribute.name.clone()) {
                        return Err(format!("column `{name}`: attribute `{}` is there twice", attribute.name));
                    }
                    let data_type = kept_as(field, attribute.kind)?;
                    fields.push(Field::new(attribute.name.as_str(), data_type.clone(), true));
                    attributes.push((i, name.to_owned(), data_type));
                }
            }
        }
        let id = id.ok_or_else(|| format!("there is no column `{ID}` that says which entity a row is about"))?;
        let observed_at = observed_at.ok_or_else(|| format!("there is no column `{OBSERVED_AT}` that says when a row was observed"))?;
        if attributes.is_empty() {
            return Err("there is no column with an attribute".to_owned());
        }
        Ok(Self { id, observed_at, attributes, empty, schema: Arc::new(Schema::new(fields)) })
    }

    /// The rows as the sink takes them. `n_before` rows came before.
    fn fit(&self, rows: &RecordBatch, n_before: u64) -> Result<RecordBatch, String> {
        let row = |i: usize| n_before + i as u64 + 1;
        for (column, name) in &self.empty {
            let column = rows.column(*column);
            if let Some(i) = (0..column.len()).find(|&i| column.is_valid(i)) {
                return Err(format!("row {}: column `{name}` is set by the node and must be empty", row(i)));
            }
        }
        let convert = |column: usize, name: &str, to: &DataType| -> Result<ArrayRef, String> {
            let found = rows.column(column);
            // A value that does not fit must be an error, not nothing.
            let options = CastOptions { safe: false, ..CastOptions::default() };
            cast_with_options(found, to, &options).map_err(|e| {
                // The kernel does not say which one it was.
                let bad = (0..found.len()).find(|&i| cast_with_options(&found.slice(i, 1), to, &options).is_err());
                format!("row {}, column `{name}`: {e}", row(bad.unwrap_or(0)))
            })
        };
        let ids = convert(self.id, ID, &DataType::Utf8)?;
        for (i, id) in ids.as_string::<i32>().iter().enumerate() {
            let id = id.ok_or_else(|| format!("row {}: column `{ID}` is null", row(i)))?;
            id.parse::<Iri>().map_err(|e| format!("row {}: column `{ID}`: {e}", row(i)))?;
        }
        let times = convert(self.observed_at, OBSERVED_AT, &observed_at_type())?;
        if let Some(i) = times.as_primitive::<TimestampMicrosecondType>().iter().position(|t| t.is_none()) {
            return Err(format!("row {}: column `{OBSERVED_AT}` is null", row(i)));
        }
        let mut columns = vec![ids, times];
        for (column, name, data_type) in &self.attributes {
            let values = convert(*column, name, data_type)?;
            if *data_type == DataType::Float64
                && let Some(i) = values.as_primitive::<Float64Type>().iter().position(|v| v.is_some_and(|v| !v.is_finite()))
            {
                return Err(format!("row {}: column `{name}` is not a finite number", row(i)));
            }
            columns.push(values);
        }
        RecordBatch::try_new(self.schema.clone(), columns).map_err(|e| e.to_string())
    }
}

/// The type as which a column of a client goes into an attribute.
fn kept_as(field: &Field, kind: Option<ColumnKind>) -> Result<DataType, String> {
    let value_type = match field.data_type() {
        DataType::Dictionary(_, value) => value,
        other => other,
    };
    let found = match value_type {
        t if t.is_numeric() => ColumnKind::Number,
        DataType::Boolean => ColumnKind::Bool,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => ColumnKind::Text,
        // Nothing but nulls: any type will do.
        DataType::Null => kind.unwrap_or(ColumnKind::Text),
        other => return Err(format!("column `{}` has type {other} (expected numbers, truth values or texts)", field.name())),
    };
    match (kind, found) {
        (None | Some(ColumnKind::Json), found) => Ok(found.data_type()),
        (Some(kind), found) if kind == found => Ok(found.data_type()),
        (Some(kind), found) => {
            Err(format!("column `{}` holds {} (expected {}, as there are already)", field.name(), said(found), said(kind)))
        }
    }
}

const fn said(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Number => "numbers",
        ColumnKind::Bool => "truth values",
        ColumnKind::Text => "texts",
        ColumnKind::Json => "mixed values",
    }
}
