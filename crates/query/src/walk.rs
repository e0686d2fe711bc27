//! Entities as batches of columns: what a [`Source`](crate::Source) that knows nothing better than its entities lends.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder, Float64Builder, StringBuilder, TimestampMicrosecondBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use entity::{Attribute, AttributeValue, Entity, Filter, Instant, Iri, LOCATION, Value};
use geo::Centroid;
use store::history::{AttributeColumn, ColumnKind, kind_of, plain_of};

use crate::latest::timestamp;
use crate::source::{Rows, SourceError};

/// Rows per batch.
const BATCH_ROWS: usize = 8_192;

/// The attributes of the entities, by name, with the narrowest kind that fits all values, and the unit code if it is one.
pub(crate) fn columns(entities: &[Arc<Entity>]) -> Vec<AttributeColumn> {
    let mut columns: Vec<AttributeColumn> = Vec::new();
    let mut by_name: HashMap<Iri, usize> = HashMap::new();
    for entity in entities {
        for (name, instances) in &entity.attributes {
            let Some(attribute) = shown_of(instances) else { continue };
            let (kind, unit_code) = (kind_of(&attribute.value), attribute.unit_code.as_deref());
            if let Some(&i) = by_name.get(name) {
                let column = &mut columns[i];
                if column.kind != kind {
                    column.kind = ColumnKind::Json;
                }
                if column.unit_code.as_deref() != unit_code {
                    column.unit_code = None;
                }
            } else {
                by_name.insert(name.clone(), columns.len());
                columns.push(AttributeColumn { name: name.clone(), kind, unit_code: unit_code.map(str::to_owned) });
            }
        }
    }
    columns.sort_by(|a, b| a.name.cmp(&b.name));
    columns
}

/// The entities that satisfy a condition, a batch at a time, as [`Source::scan`](crate::Source::scan) says.
pub(crate) fn rows(mut entities: Vec<Arc<Entity>>, attributes: &[Iri], filter: &Filter) -> Rows {
    let known = columns(&entities);
    let kind = |name: &Iri| known.iter().find(|c| c.name == *name).map_or(ColumnKind::Text, |c| c.kind);
    let attributes: Vec<(Iri, ColumnKind)> = attributes.iter().map(|a| (a.clone(), kind(a))).collect();
    entities.retain(|e| filter.matches(e));
    let schema = schema(&attributes);
    let starts = (0..entities.len()).step_by(BATCH_ROWS);
    Box::new(starts.map(move |start| {
        let chunk = &entities[start..(start + BATCH_ROWS).min(entities.len())];
        batch(&schema, &attributes, chunk)
    }))
}

pub(crate) fn schema(attributes: &[(Iri, ColumnKind)]) -> SchemaRef {
    let mut fields = vec![
        Field::new("entity_id", DataType::Utf8, false),
        Field::new("created_at", timestamp(), false),
        Field::new("modified_at", timestamp(), false),
        Field::new("observed_at", timestamp(), true),
        Field::new("lon", DataType::Float64, true),
        Field::new("lat", DataType::Float64, true),
    ];
    fields.extend(attributes.iter().map(|(name, kind)| Field::new(name.as_str(), kind.data_type(), true)));
    Arc::new(Schema::new(fields))
}

pub(crate) fn batch(schema: &SchemaRef, attributes: &[(Iri, ColumnKind)], entities: &[Arc<Entity>]) -> Result<RecordBatch, SourceError> {
    let each = || entities.iter().map(|e| &**e);
    let mut arrays = vec![
        texts(each().map(|e| Some(e.id.as_str().to_owned()))),
        times(each().map(|e| Some(e.created_at))),
        times(each().map(|e| Some(e.modified_at))),
        times(each().map(observed_at)),
        numbers(each().map(|e| position(e).map(|p| p.x()))),
        numbers(each().map(|e| position(e).map(|p| p.y()))),
    ];
    for (name, kind) in attributes {
        let value = |e: &Entity| shown(e, name.as_str()).map(|a| a.value.clone());
        arrays.push(match kind {
            ColumnKind::Number => numbers(each().map(|e| match value(e)? {
                AttributeValue::Property(Value::Number(n)) => n.as_f64(),
                _ => None,
            })),
            ColumnKind::Bool => {
                let mut builder = BooleanBuilder::with_capacity(entities.len());
                for e in each() {
                    builder.append_option(match value(e) {
                        Some(AttributeValue::Property(Value::Bool(b))) => Some(b),
                        _ => None,
                    });
                }
                Arc::new(builder.finish())
            }
            ColumnKind::Text => texts(each().map(|e| match plain_of(&value(e)?) {
                Value::String(text) => Some(text),
                other => Some(other.to_string()),
            })),
            ColumnKind::Json => texts(each().map(|e| Some(plain_of(&value(e)?).to_string()))),
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(entities.len()));
    RecordBatch::try_new_with_options(schema.clone(), arrays, &options).map_err(|e| SourceError::Unreadable(Box::new(e)))
}

fn texts(values: impl Iterator<Item = Option<String>>) -> ArrayRef {
    let mut builder = StringBuilder::new();
    values.for_each(|v| builder.append_option(v));
    Arc::new(builder.finish())
}

fn numbers(values: impl Iterator<Item = Option<f64>>) -> ArrayRef {
    let mut builder = Float64Builder::new();
    values.for_each(|v| builder.append_option(v));
    Arc::new(builder.finish())
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
