//! The table of what is now: an entity per row.
//!
//! The columns are inferred when a statement is planned; the rows are read when it is executed, so that a prepared statement sees the present.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder, Float64Builder, StringBuilder, TimestampMicrosecondBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use entity::{Attribute, AttributeValue, Entity, Instant, Iri, LOCATION, Value};
use geo::Centroid;
use store::history::{AttributeColumn, ColumnKind};

use crate::error::QueryError;
use crate::pushdown::{ID, Narrowing, OBSERVED_AT, supported};
use crate::{Source, geometry, names};

/// Names that attributes cannot have, in either table of a type, so that an attribute is called the same in both.
pub(crate) const RESERVED: [&str; 9] =
    [ID, "dataset_id", OBSERVED_AT, "recorded_at", "created_at", "modified_at", "lon", "lat", LOCATION_COLUMN];
/// The column of the attribute [`LOCATION`].
pub(crate) const LOCATION_COLUMN: &str = "location";
/// Rows per batch.
const BATCH_ROWS: usize = 8_192;

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

#[derive(Clone, Debug)]
enum Column {
    Id,
    ObservedAt,
    CreatedAt,
    ModifiedAt,
    Lon,
    Lat,
    Location,
    Attribute { name: Iri, kind: ColumnKind },
}

/// A table of the entities of one type.
pub(crate) struct LatestTable {
    source: Arc<dyn Source>,
    entity_type: Iri,
    columns: Vec<Column>,
    schema: SchemaRef,
}

impl std::fmt::Debug for LatestTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LatestTable").field("entity_type", &self.entity_type).finish_non_exhaustive()
    }
}

impl LatestTable {
    /// The table of a type with the columns that its entities have at this moment; none if it has no entities.
    /// Cost: looks at every attribute of every entity of the type.
    pub(crate) fn of(source: Arc<dyn Source>, entity_type: Iri) -> Option<Self> {
        let entities = source.entities(&entity_type);
        if entities.is_empty() {
            return None;
        }
        let mut columns =
            vec![Column::Id, Column::ObservedAt, Column::CreatedAt, Column::ModifiedAt, Column::Lon, Column::Lat, Column::Location];
        let mut fields = vec![
            Field::new(ID, DataType::Utf8, false),
            Field::new(OBSERVED_AT, timestamp(), true),
            Field::new("created_at", timestamp(), false),
            Field::new("modified_at", timestamp(), false),
            Field::new("lon", DataType::Float64, true),
            Field::new("lat", DataType::Float64, true),
            geometry::place_field(LOCATION_COLUMN, LOCATION),
        ];
        let attributes = infer(&entities).into_iter().filter(|c| c.name.as_str() != LOCATION).collect();
        for (name, column) in column_names(&*source, attributes) {
            fields.push(attribute_field(&name, &column));
            columns.push(Column::Attribute { name: column.name, kind: column.kind });
        }
        Some(Self { source, entity_type, columns, schema: Arc::new(Schema::new(fields)) })
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
        Ok(supported(filters))
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let narrowing = Narrowing::of(filters);
        let mut entities = match narrowing.place {
            Some(bbox) => self.source.entities_meeting(&self.entity_type, bbox),
            None => self.source.entities(&self.entity_type),
        };
        if let Some(ids) = narrowing.ids {
            entities.retain(|e| ids.contains(e.id.as_str()));
        }
        let (schema, columns): (SchemaRef, Arc<[Column]>) = match projection {
            Some(wanted) => (Arc::new(self.schema.project(wanted)?), wanted.iter().map(|&i| self.columns[i].clone()).collect()),
            None => (self.schema.clone(), self.columns.as_slice().into()),
        };
        let entities: Arc<[Arc<Entity>]> = entities.into();
        let n_partitions = session.config().target_partitions().clamp(1, entities.len().div_ceil(BATCH_ROWS).max(1));
        let rows_per_partition = entities.len().div_ceil(n_partitions);
        let partitions = (0..n_partitions)
            .map(|i| {
                let rows = (i * rows_per_partition).min(entities.len())..((i + 1) * rows_per_partition).min(entities.len());
                Arc::new(Partition { schema: schema.clone(), columns: columns.clone(), entities: entities.clone(), rows })
                    as Arc<dyn PartitionStream>
            })
            .collect();
        Ok(Arc::new(StreamingTableExec::try_new(schema, partitions, None, [], false, limit)?))
    }
}

/// A share of the rows.
struct Partition {
    schema: SchemaRef,
    columns: Arc<[Column]>,
    entities: Arc<[Arc<Entity>]>,
    rows: std::ops::Range<usize>,
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partition").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl PartitionStream for Partition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _task: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (schema, columns, entities, rows) = (self.schema.clone(), self.columns.clone(), self.entities.clone(), self.rows.clone());
        let batches = rows.clone().step_by(BATCH_ROWS).map(move |start| {
            let chunk = &entities[start..(start + BATCH_ROWS).min(rows.end)];
            batch(&schema, &columns, chunk)
        });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), futures::stream::iter(batches)))
    }
}

fn batch(schema: &SchemaRef, columns: &[Column], entities: &[Arc<Entity>]) -> Result<RecordBatch> {
    let arrays = columns.iter().map(|c| array(c, entities)).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(entities.len()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), arrays, &options)?)
}

fn array(column: &Column, entities: &[Arc<Entity>]) -> Result<ArrayRef> {
    let each = || entities.iter().map(|e| &**e);
    Ok(match column {
        Column::Id => texts(each().map(|e| Some(e.id.as_str().to_owned()))),
        Column::ObservedAt => times(each().map(observed_at)),
        Column::CreatedAt => times(each().map(|e| Some(e.created_at))),
        Column::ModifiedAt => times(each().map(|e| Some(e.modified_at))),
        Column::Lon => numbers(each().map(|e| Ok(position(e).map(|p| p.x()))))?,
        Column::Lat => numbers(each().map(|e| Ok(position(e).map(|p| p.y()))))?,
        Column::Location => geometry::place_array(each().map(|e| match &shown(e, LOCATION)?.value {
            AttributeValue::Geo(geometry) => Some(geometry),
            // Something else of that name is no place; NGSI-LD does not let it in.
            _ => None,
        })),
        Column::Attribute { name, kind } => {
            let value = |e: &Entity| shown(e, name.as_str()).map(|a| a.value.clone());
            match kind {
                ColumnKind::Number => numbers(each().map(|e| match shown(e, name.as_str()).map(|a| &a.value) {
                    None => Ok(None),
                    Some(AttributeValue::Property(Value::Number(n))) => Ok(n.as_f64()),
                    Some(_) => Err(changed(e, name, "a number")),
                }))?,
                ColumnKind::Bool => {
                    let mut builder = BooleanBuilder::with_capacity(entities.len());
                    for e in each() {
                        match shown(e, name.as_str()).map(|a| &a.value) {
                            None => builder.append_null(),
                            Some(AttributeValue::Property(Value::Bool(b))) => builder.append_value(*b),
                            Some(_) => return Err(changed(e, name, "a truth value")),
                        }
                    }
                    Arc::new(builder.finish())
                }
                ColumnKind::Text => texts(each().map(|e| match json(&value(e)?) {
                    Value::String(text) => Some(text),
                    // Became something else after the statement was prepared; a text column can still show it.
                    other => Some(other.to_string()),
                })),
                ColumnKind::Json => texts(each().map(|e| Some(json(&value(e)?).to_string()))),
            }
        }
    })
}

fn changed(entity: &Entity, name: &Iri, expected: &'static str) -> DataFusionError {
    QueryError::ColumnChanged { what: format!("attribute `{name}` of `{}` is no longer {expected}", entity.id) }.into()
}

fn texts(values: impl Iterator<Item = Option<String>>) -> ArrayRef {
    let mut builder = StringBuilder::new();
    values.for_each(|v| builder.append_option(v));
    Arc::new(builder.finish())
}

fn numbers(values: impl Iterator<Item = Result<Option<f64>>>) -> Result<ArrayRef> {
    let mut builder = Float64Builder::new();
    for v in values {
        builder.append_option(v?);
    }
    Ok(Arc::new(builder.finish()))
}

fn times(values: impl Iterator<Item = Option<Instant>>) -> ArrayRef {
    let mut builder = TimestampMicrosecondBuilder::new().with_data_type(timestamp());
    values.for_each(|v| builder.append_option(v.map(Instant::micros)));
    Arc::new(builder.finish())
}

/// What a table without `dataset_id` shows of an attribute.
fn shown<'e>(entity: &'e Entity, name: &str) -> Option<&'e Attribute> {
    shown_of(entity.attributes.get(name)?)
}

/// The default instance, else the most recently observed, else the first.
fn shown_of(instances: &[Attribute]) -> Option<&Attribute> {
    let default = instances.iter().find(|a| a.dataset_id.is_none());
    default.or_else(|| instances.iter().rev().max_by(|a, b| a.observed_at.cmp(&b.observed_at)))
}

fn observed_at(entity: &Entity) -> Option<Instant> {
    entity.attributes.values().flatten().filter_map(|a| a.observed_at).max()
}

fn position(entity: &Entity) -> Option<geo::Point<f64>> {
    match &shown(entity, LOCATION)?.value {
        AttributeValue::Geo(geometry) => geometry.as_point().or_else(|| geometry.shape().centroid()),
        _ => None,
    }
}

/// What an attribute says, as the JSON that NGSI-LD writes for it.
fn json(value: &AttributeValue) -> Value {
    let iris = |targets: &[Iri]| match targets {
        [one] => Value::String(one.to_string()),
        several => several.iter().map(|t| Value::String(t.to_string())).collect(),
    };
    match value {
        AttributeValue::Property(v) | AttributeValue::Json(v) => v.clone(),
        AttributeValue::Geo(geometry) => geometry.json().clone(),
        AttributeValue::Relationship(targets) | AttributeValue::Vocab(targets) => iris(targets),
        AttributeValue::Language(texts) => Value::Object(texts.iter().map(|(tag, text)| (tag.to_string(), text.clone())).collect()),
        AttributeValue::List(values) => Value::Array(values.clone()),
        AttributeValue::ListRelationship(targets) => targets.iter().map(|t| Value::String(t.to_string())).collect(),
    }
}

fn kind(value: &AttributeValue) -> ColumnKind {
    match value {
        AttributeValue::Property(Value::Number(_)) => ColumnKind::Number,
        AttributeValue::Property(Value::Bool(_)) => ColumnKind::Bool,
        AttributeValue::Property(Value::String(_)) => ColumnKind::Text,
        AttributeValue::Relationship(targets) | AttributeValue::Vocab(targets) if targets.len() == 1 => ColumnKind::Text,
        _ => ColumnKind::Json,
    }
}

/// The attributes of the entities with the narrowest kind that fits all values, and the unit code if it is one.
fn infer(entities: &[Arc<Entity>]) -> Vec<AttributeColumn> {
    let mut columns: Vec<AttributeColumn> = Vec::new();
    let mut by_name: HashMap<Iri, usize> = HashMap::new();
    // The column last found at a position: entities of a type mostly have the same attributes in the same order, which spares the hashing.
    let mut by_position: Vec<usize> = Vec::new();
    for entity in entities {
        for (position, (name, instances)) in entity.attributes.iter().enumerate() {
            let Some(attribute) = shown_of(instances) else { continue };
            let (kind, unit_code) = (kind(&attribute.value), attribute.unit_code.as_deref());
            let expected = by_position.get(position).copied().filter(|&i| columns[i].name == *name);
            let known = expected.or_else(|| by_name.get(name).copied());
            if expected.is_none() {
                by_position.resize(by_position.len().max(position + 1), 0);
                by_position[position] = known.unwrap_or(columns.len());
            }
            match known {
                Some(i) => {
                    let column = &mut columns[i];
                    if column.kind != kind {
                        column.kind = ColumnKind::Json;
                    }
                    if column.unit_code.as_deref() != unit_code {
                        column.unit_code = None;
                    }
                }
                None => {
                    by_name.insert(name.clone(), columns.len());
                    columns.push(AttributeColumn { name: name.clone(), kind, unit_code: unit_code.map(str::to_owned) });
                }
            }
        }
    }
    columns
}
