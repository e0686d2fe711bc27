//! The table of what is now: an entity per row.
//!
//! The columns are asked for when a statement is planned; the rows are read when it is executed, so that a prepared statement sees the present.
//! They are read a batch at a time, and no further than the engine asks: a `LIMIT` ends the reading early.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use entity::{Filter, Instant, Iri, LOCATION};
use store::history::{AttributeColumn, ColumnKind};

use crate::error::QueryError;
use crate::explained::Explained;
use crate::pushdown::{ID, OBSERVED_AT};
use crate::source::SourceError;
use crate::then::{EXTRAS, Then};
use crate::{Source, condition, geometry, names};

/// Names that attributes cannot have, in either table of a type, so that an attribute is called the same in both.
pub(crate) const RESERVED: [&str; 11] =
    [ID, "dataset_id", OBSERVED_AT, "recorded_at", "created_at", "modified_at", "lon", "lat", LOCATION_COLUMN, EXTRAS[0], EXTRAS[1]];
/// The column of the attribute [`LOCATION`].
pub(crate) const LOCATION_COLUMN: &str = "location";
/// Batches that are read ahead of the engine.
const BATCHES_AHEAD: usize = 2;

/// Microseconds, UTC. The engine writes UTC as an offset, as its `now()` does.
pub(crate) fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()))
}

/// The field of an attribute column.
pub(crate) fn attribute_field(name: &str, column: &AttributeColumn) -> Field {
    let mut metadata = HashMap::from([("iri".to_owned(), column.name.to_string())]);
    if let Some(unit_code) = &column.unit_code {
        metadata.insert("unit_code".to_owned(), unit_code.clone());
    }
    if column.kind == ColumnKind::Json {
        // Its texts are JSON, which their type does not tell.
        metadata.insert("kind".to_owned(), "json".to_owned());
    }
    Field::new(name, column.kind.data_type(), true).with_metadata(metadata)
}

/// The names of attributes as columns, by ascending IRI. `location` keeps its name: its column is reserved for it.
pub(crate) fn column_names(source: &dyn Source, columns: Vec<AttributeColumn>) -> Vec<(String, AttributeColumn)> {
    let (location, mut others): (Vec<_>, Vec<_>) = columns.into_iter().partition(|c| c.name.as_str() == LOCATION);
    others.sort_by(|a, b| a.name.cmp(&b.name));
    let wanted = others.iter().map(|c| (c.name.clone(), source.short_name(&c.name))).collect();
    let assigned = names::assign(wanted, &RESERVED).into_iter().map(|(_, name)| name).zip(others);
    let mut named: Vec<_> = location.into_iter().map(|c| (LOCATION_COLUMN.to_owned(), c)).chain(assigned).collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    named
}

/// Columns that a source gives before the attributes, by their place: see [`Source::scan`].
const FIXED: [(&str, usize); 6] = [(ID, 0), (OBSERVED_AT, 3), ("created_at", 1), ("modified_at", 2), ("lon", 4), ("lat", 5)];

#[derive(Clone, Debug)]
enum Column {
    /// At this place of the source's batches.
    Fixed(usize),
    /// The attribute [`LOCATION`], as a geometry.
    Location,
    Attribute {
        name: Iri,
        kind: ColumnKind,
    },
    /// At this place behind the attributes: see [`EXTRAS`].
    Extra(usize),
}

/// A table of the entities of one type.
pub(crate) struct LatestTable {
    source: Arc<dyn Source>,
    entity_type: Iri,
    columns: Vec<Column>,
    schema: SchemaRef,
    /// What the source says is of this time; none for now.
    as_of: Option<Instant>,
}

impl std::fmt::Debug for LatestTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LatestTable").field("entity_type", &self.entity_type).finish_non_exhaustive()
    }
}

impl LatestTable {
    /// The table of a type with the columns that its entities have at this moment; none if it has no entities.
    /// Cost: that of [`Source::columns`].
    pub(crate) fn of(source: Arc<dyn Source>, entity_type: Iri) -> Option<Self> {
        Self::new(source, entity_type, None)
    }

    /// The table of a type as it was known at an earlier time; none if nothing was ever known of it.
    pub(crate) fn as_of(source: Arc<dyn Source>, entity_type: Iri, at: Instant) -> Option<Self> {
        Self::new(Arc::new(Then::new(source, at)), entity_type, Some(at))
    }

    fn new(source: Arc<dyn Source>, entity_type: Iri, as_of: Option<Instant>) -> Option<Self> {
        let known = source.columns(&entity_type)?;
        let mut columns = Vec::new();
        let mut fields = Vec::new();
        for (name, place) in FIXED {
            let (data_type, nullable) = match name {
                ID => (DataType::Utf8, false),
                "created_at" | "modified_at" => (timestamp(), false),
                OBSERVED_AT => (timestamp(), true),
                _ => (DataType::Float64, true),
            };
            fields.push(Field::new(name, data_type, nullable));
            columns.push(Column::Fixed(place));
        }
        fields.push(geometry::place_field(LOCATION_COLUMN, LOCATION));
        columns.push(Column::Location);
        let attributes = known.into_iter().filter(|c| c.name.as_str() != LOCATION).collect();
        for (name, column) in column_names(&*source, attributes) {
            fields.push(attribute_field(&name, &column));
            columns.push(Column::Attribute { name: column.name, kind: column.kind });
        }
        for (i, name) in EXTRAS.iter().enumerate().filter(|_| as_of.is_some()) {
            fields.push(Field::new(*name, DataType::Utf8, false).with_metadata(HashMap::from([("kind".to_owned(), "json".to_owned())])));
            columns.push(Column::Extra(i));
        }
        Some(Self { source, entity_type, columns, schema: Arc::new(Schema::new(fields)), as_of })
    }

    /// What the source can check of some conditions.
    fn condition(&self, filters: &[Expr]) -> Option<Filter> {
        condition::of_all(filters, &|column| match &self.columns[self.schema.index_of(column).ok()?] {
            Column::Attribute { name, kind } => Some((name.clone(), *kind)),
            Column::Fixed(_) | Column::Location | Column::Extra(_) => None,
        })
    }
}

#[async_trait]
impl TableProvider for LatestTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // The source looks at all instances of an attribute, the table shows one: the engine decides.
        let useful = |filter: &&Expr| match self.condition(std::slice::from_ref(*filter)) {
            Some(_) => TableProviderFilterPushDown::Inexact,
            None => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(useful).collect())
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted = projection.cloned().unwrap_or_else(|| (0..self.columns.len()).collect());
        let (mut attributes, mut places) = (Vec::new(), Vec::new());
        for &i in &wanted {
            let attribute = match &self.columns[i] {
                Column::Fixed(place) => {
                    places.push(*place);
                    continue;
                }
                Column::Extra(_) => {
                    places.push(0);
                    continue;
                }
                Column::Location => Iri::known(LOCATION),
                Column::Attribute { name, .. } => name.clone(),
            };
            places.push(FIXED.len() + attributes.len());
            attributes.push(attribute);
        }
        for (place, &i) in places.iter_mut().zip(&wanted) {
            if let Column::Extra(extra) = &self.columns[i] {
                *place = FIXED.len() + attributes.len() + extra;
            }
        }
        let filter = self.condition(filters);
        let names = wanted.iter().map(|&i| self.schema.field(i).name().as_str()).collect::<Vec<_>>().join(", ");
        let mut what = format!("{}, columns=[{names}]", self.source.short_name(&self.entity_type));
        if let Some(at) = self.as_of {
            what.push_str(&format!(", as of {at}"));
        }
        if let Some(filter) = &filter {
            what.push_str(&format!(", asked for: {}", condition::said(filter)));
        }
        let schema: SchemaRef = Arc::new(self.schema.project(&wanted)?);
        let reading = Reading {
            schema: schema.clone(),
            source: self.source.clone(),
            entity_type: self.entity_type.clone(),
            attributes,
            places,
            filter: filter.unwrap_or_else(Filter::all),
        };
        let plan = StreamingTableExec::try_new(schema, vec![Arc::new(reading)], None, [], false, limit)?;
        Ok(Arc::new(Explained::new("EntitiesExec", what, Arc::new(plan))))
    }
}

/// One reading of the entities.
#[derive(Clone)]
struct Reading {
    schema: SchemaRef,
    source: Arc<dyn Source>,
    entity_type: Iri,
    attributes: Vec<Iri>,
    /// For each column of the schema, which column of the source's batches it is.
    places: Vec<usize>,
    filter: Filter,
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading").field("entity_type", &self.entity_type).finish_non_exhaustive()
    }
}

impl PartitionStream for Reading {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _task: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut batches = RecordBatchReceiverStreamBuilder::new(self.schema.clone(), BATCHES_AHEAD);
        let (reading, sender) = (self.clone(), batches.tx());
        // The source may read documents: not on a thread that answers sockets.
        batches.spawn_blocking(move || {
            for batch in reading.source.scan(&reading.entity_type, &reading.attributes, &reading.filter) {
                let batch = batch.map_err(unread).and_then(|b| fit(&reading.schema, &reading.places, &b));
                let last = batch.is_err();
                // Nobody listens any more when the statement has enough, or is cancelled.
                if sender.blocking_send(batch).is_err() || last {
                    break;
                }
            }
            Ok(())
        });
        batches.build()
    }
}

fn unread(error: SourceError) -> DataFusionError {
    match error {
        changed @ SourceError::Changed { .. } => QueryError::ColumnChanged { what: changed.to_string() }.into(),
        other => DataFusionError::External(Box::new(other)),
    }
}

/// Brings a batch of the source into the table's columns.
fn fit(schema: &SchemaRef, places: &[usize], answer: &RecordBatch) -> Result<RecordBatch> {
    let column = |(field, &place): (&Arc<Field>, &usize)| -> Result<ArrayRef> {
        let found = answer.columns().get(place);
        let found = found.ok_or_else(|| QueryError::ColumnChanged { what: format!("column `{}` is gone", field.name()) })?;
        match (found.data_type(), field.data_type()) {
            (a, b) if a == b => Ok(found.clone()),
            // The same instants, written with another name for UTC.
            (DataType::Timestamp(..), DataType::Timestamp(..)) => Ok(cast(found, field.data_type())?),
            (DataType::Utf8, DataType::Binary) => Ok(geometry::places_of_json(found)),
            (now, planned) => Err(QueryError::ColumnChanged {
                what: format!("column `{}` was {planned} when the statement was prepared and is {now} now", field.name()),
            }
            .into()),
        }
    };
    let arrays = schema.fields().iter().zip(places).map(column).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(answer.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), arrays, &options)?)
}
