//! Whole types: as Arrow tables from the columns, or as entities, a part at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder, Float64Builder, RecordBatchOptions, StringBuilder, TimestampMicrosecondBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use entity::{AttributeValue, Entity, Filter, Instant, Iri, LOCATION, Value};

use super::columns::{Cell, Place, shown};
use super::inner::Inner;
use super::judge::{Tally, Verdict};
use super::plan::{Source, Wanted};
use super::{Core, LiveTable};
use crate::history::value::plain_of;
use crate::history::{AttributeColumn, ColumnKind};
use crate::state::DocumentsError;

/// Rows of one batch.
const BATCH_ROWS: usize = 8_192;
/// Entities of one part of [`LiveTable::latest`].
const LATEST_CHUNK: usize = 1_024;

/// Why a scan of columns ended.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// A document cannot be read.
    #[error("cannot read the documents")]
    Documents(#[from] DocumentsError),
    /// A value came that does not fit the column that was announced.
    #[error("attribute `{attribute}` of `{entity}` is no longer {expected}")]
    Changed {
        /// The attribute.
        attribute: Iri,
        /// The entity that has such a value.
        entity: String,
        /// What the column was.
        expected: &'static str,
    },
    /// The batch cannot be made.
    #[error("cannot make a batch of columns")]
    Arrow(#[from] ArrowError),
}

impl LiveTable {
    /// The attributes of the entities of a type, by name, with the narrowest kind of column that holds all values.
    ///
    /// Made of counts, without looking at entities. Of entities whose first type is another one, the attributes of that type count.
    #[must_use]
    pub fn columns(&self, entity_type: &Iri) -> Vec<AttributeColumn> {
        self.core.read(|inner| inner.columns_of(entity_type))
    }

    /// The entities of a type that satisfy a condition as batches in the order of ids.
    ///
    /// Columns: `entity_id` (Utf8), `created_at`, `modified_at` (timestamps, µs, UTC), `observed_at` (the latest of any attribute, nullable),
    /// `lon`, `lat` (the point of `location`, or the middle; nullable), then each of `attributes` under its IRI as [`LiveTable::columns`] says at this moment
    /// (one that no entity has is an empty Utf8 column). Of several instances the default one is shown, else the most recently observed.
    /// Values come from memory; documents are read only for what the columns do not hold.
    #[must_use]
    pub fn scan_columns(&self, entity_type: &Iri, attributes: &[Iri], filter: &Filter) -> ColumnScan {
        let known = self.columns(entity_type);
        let columns: Vec<(Iri, ColumnKind)> =
            attributes.iter().map(|a| (a.clone(), known.iter().find(|c| c.name == *a).map_or(ColumnKind::Text, |c| c.kind))).collect();
        let time = |name: &str, nullable| Field::new(name, timestamp(), nullable);
        let mut fields = vec![
            Field::new("entity_id", DataType::Utf8, false),
            time("created_at", false),
            time("modified_at", false),
            time("observed_at", true),
            Field::new("lon", DataType::Float64, true),
            Field::new("lat", DataType::Float64, true),
        ];
        fields.extend(columns.iter().map(|(name, kind)| Field::new(name.as_str(), kind.data_type(), true)));
        let of_type = Filter::Type(entity::TypeSelector::Is(entity_type.clone()));
        ColumnScan {
            core: Arc::clone(&self.core),
            schema: Arc::new(Schema::new(fields)),
            source: None,
            filter: of_type.and(filter.clone()),
            columns,
            after: None,
            left: VecDeque::new(),
            is_done: false,
        }
    }

    /// The entities of a type in the order of ids, a part at a time.
    #[must_use]
    pub fn latest(&self, entity_type: &Iri) -> Latest {
        Latest { core: Arc::clone(&self.core), source: Source::Types(vec![entity_type.clone()]), after: None, is_done: false }
    }

    /// All entities of a type, ordered by id: for types with few. If a document cannot be read this is logged, and what came before it is returned.
    #[must_use]
    pub fn of_type(&self, entity_type: &Iri) -> Vec<Arc<Entity>> {
        let mut all = Vec::new();
        for part in self.latest(entity_type) {
            match part {
                Ok(part) => all.extend(part),
                Err(e) => {
                    tracing::error!(error = &e as &dyn std::error::Error, "the entities of a type cannot all be read");
                    break;
                }
            }
        }
        all
    }
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Entities of a type, part by part.
pub struct Latest {
    core: Arc<Core>,
    source: Source,
    after: Option<Box<str>>,
    is_done: bool,
}

impl Iterator for Latest {
    type Item = Result<Vec<Arc<Entity>>, DocumentsError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_done {
            let ids: Vec<Box<str>> = self.core.read(|inner| {
                inner.walk(&self.source, self.after.as_deref(), LATEST_CHUNK).into_iter().map(|s| inner.ids.id(s).into()).collect()
            });
            let Some(last) = ids.last() else { break };
            self.after = Some(last.clone());
            let mut part = Vec::with_capacity(ids.len());
            for id in &ids {
                match self.core.fetch(id) {
                    Ok(e) => part.extend(e),
                    Err(e) => {
                        self.is_done = true;
                        return Some(Err(e));
                    }
                }
            }
            if !part.is_empty() {
                return Some(Ok(part));
            }
        }
        self.is_done = true;
        None
    }
}

/// A value on its way into a batch.
enum Shown {
    Nothing,
    Number(f64),
    Bool(bool),
    Text(String),
    /// Read it from the document.
    Ask,
}

/// A row on its way into a batch.
struct Row {
    id: Box<str>,
    created_us: i64,
    modified_us: i64,
    observed: Option<Instant>,
    position: Option<[f64; 2]>,
    verdict: Verdict,
    values: Vec<Shown>,
}

/// Batches of the columns of a type.
pub struct ColumnScan {
    core: Arc<Core>,
    schema: SchemaRef,
    /// Where the entities come from; chosen at the first batch.
    source: Option<Source>,
    filter: Filter,
    columns: Vec<(Iri, ColumnKind)>,
    after: Option<Box<str>>,
    /// Of an index, the ids that are still to be looked at, in their order.
    left: VecDeque<Box<str>>,
    is_done: bool,
}

impl ColumnScan {
    /// The schema of the batches.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The next rows, as far as columns tell.
    fn look(&mut self) -> Vec<Row> {
        let core = Arc::clone(&self.core);
        core.read(|inner| {
            let conditions: Vec<&Filter> = self.filter.conjuncts().collect();
            if self.source.is_none() {
                let query = core.n_queries.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let plan = inner.plan(&conditions, None, Wanted { first: None }, query);
                let (source, candidates) = match inner.column_instead(&plan.source, &conditions, usize::MAX) {
                    Some((column, slots)) => (column, Some(slots)),
                    None if plan.source.is_walk() => (plan.source, None),
                    None => {
                        let slots = plan.source.candidates(inner);
                        (plan.source, Some(slots))
                    }
                };
                if let Some(mut slots) = candidates {
                    slots.retain(|s| !inner.ids.id(*s).is_empty());
                    slots.sort_unstable_by(|a, b| inner.ids.id(*a).cmp(inner.ids.id(*b)));
                    slots.dedup();
                    self.left = slots.into_iter().map(|s| inner.ids.id(s).into()).collect();
                }
                self.source = Some(source);
            }
            let source = self.source.as_ref().expect("it was just chosen");
            let slots: Vec<u32> = if source.is_walk() {
                inner.walk(source, self.after.as_deref(), BATCH_ROWS)
            } else {
                let n = self.left.len().min(BATCH_ROWS);
                self.left.drain(..n).filter_map(|id| inner.ids.find(&id)).collect()
            };
            self.is_done = if source.is_walk() { slots.len() < BATCH_ROWS } else { self.left.is_empty() };
            self.after = slots.last().map(|s| inner.ids.id(*s).into());
            let mut tallies = vec![Tally::default(); conditions.len()];
            let verdicts = inner.judge_all(&conditions, &slots, &mut tallies);
            let kept = slots.iter().zip(verdicts).filter(|(_, v)| *v != Verdict::No);
            kept.map(|(s, verdict)| row(inner, *s, verdict, &self.columns)).collect()
        })
    }

    fn batch(&self, rows: Vec<Row>) -> Result<RecordBatch, ScanError> {
        let mut kept: Vec<(Row, Option<Arc<Entity>>)> = Vec::with_capacity(rows.len());
        for row in rows {
            let asks = row.verdict == Verdict::Ask || row.values.iter().any(|v| matches!(v, Shown::Ask));
            if !asks {
                kept.push((row, None));
                continue;
            }
            if let Some(e) = self.core.fetch(&row.id)?
                && self.filter.matches(&e)
            {
                kept.push((row, Some(e)));
            }
        }
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(6 + self.columns.len());
        let mut ids = StringBuilder::new();
        kept.iter().for_each(|(r, _)| ids.append_value(&r.id));
        arrays.push(Arc::new(ids.finish()));
        let times = |of: &dyn Fn(&Row) -> Option<i64>| -> ArrayRef {
            let mut builder = TimestampMicrosecondBuilder::new().with_data_type(timestamp());
            kept.iter().for_each(|(r, _)| builder.append_option(of(r)));
            Arc::new(builder.finish())
        };
        arrays.push(times(&|r| Some(r.created_us)));
        arrays.push(times(&|r| Some(r.modified_us)));
        arrays.push(times(&|r| r.observed.map(Instant::micros)));
        for i in 0..2 {
            let mut builder = Float64Builder::new();
            kept.iter().for_each(|(r, _)| builder.append_option(r.position.map(|p| p[i])));
            arrays.push(Arc::new(builder.finish()));
        }
        for (i, (name, kind)) in self.columns.iter().enumerate() {
            arrays.push(column(&kept, i, name, *kind)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(kept.len()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)?)
    }
}

impl Iterator for ColumnScan {
    type Item = Result<RecordBatch, ScanError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_done {
            let rows = self.look();
            match self.batch(rows) {
                Ok(batch) if batch.num_rows() == 0 => {}
                Ok(batch) => return Some(Ok(batch)),
                Err(e) => {
                    self.is_done = true;
                    return Some(Err(e));
                }
            }
        }
        None
    }
}

fn row(inner: &Inner, slot: u32, verdict: Verdict, columns: &[(Iri, ColumnKind)]) -> Row {
    let s = inner.ids.slot(slot);
    let table = inner.table(s.table);
    let value = |(name, kind): &(Iri, ColumnKind)| {
        if name.as_str() == LOCATION {
            return match table.place(s.row) {
                Place::Point { lon, lat, plain: true } => {
                    Shown::Text(serde_json::json!({"type": "Point", "coordinates": [lon, lat]}).to_string())
                }
                // There may be values that are no places.
                Place::None if table.column(name).is_none_or(|c| c.n_present == 0) => Shown::Nothing,
                _ => Shown::Ask,
            };
        }
        let Some(column) = table.column(name).filter(|c| c.n_present > 0) else { return Shown::Nothing };
        match column.cell(s.row) {
            Some(Cell::Absent) => Shown::Nothing,
            // JSON shows a value as it was written.
            _ if *kind == ColumnKind::Json => Shown::Ask,
            Some(Cell::Number(n)) => Shown::Number(n),
            Some(Cell::Bool(b)) => Shown::Bool(b),
            Some(Cell::Text(t, _)) => Shown::Text(t.to_owned()),
            Some(Cell::Instant(i)) => Shown::Text(i.to_string()),
            None | Some(Cell::Hashed(_) | Cell::Link(_) | Cell::Other) => Shown::Ask,
        }
    };
    Row {
        id: s.id.clone(),
        created_us: s.created_us,
        modified_us: s.modified_us,
        observed: table.observed(s.row),
        position: table.position(s.row),
        verdict,
        values: columns.iter().map(value).collect(),
    }
}

fn column(rows: &[(Row, Option<Arc<Entity>>)], i: usize, name: &Iri, kind: ColumnKind) -> Result<ArrayRef, ScanError> {
    let changed = |r: &Row, expected| ScanError::Changed { attribute: name.clone(), entity: r.id.to_string(), expected };
    let of_document = |e: &Option<Arc<Entity>>| e.as_ref().and_then(|e| Some(shown(e.attributes.get(name)?)?.value.clone()));
    Ok(match kind {
        ColumnKind::Number => {
            let mut builder = Float64Builder::with_capacity(rows.len());
            for (r, e) in rows {
                builder.append_option(match &r.values[i] {
                    Shown::Nothing => None,
                    Shown::Number(n) => Some(*n),
                    Shown::Ask => match of_document(e) {
                        None => None,
                        Some(AttributeValue::Property(Value::Number(n))) => n.as_f64(),
                        Some(_) => return Err(changed(r, "a number")),
                    },
                    Shown::Bool(_) | Shown::Text(_) => return Err(changed(r, "a number")),
                });
            }
            Arc::new(builder.finish())
        }
        ColumnKind::Bool => {
            let mut builder = BooleanBuilder::with_capacity(rows.len());
            for (r, e) in rows {
                builder.append_option(match &r.values[i] {
                    Shown::Nothing => None,
                    Shown::Bool(b) => Some(*b),
                    Shown::Ask => match of_document(e) {
                        None => None,
                        Some(AttributeValue::Property(Value::Bool(b))) => Some(b),
                        Some(_) => return Err(changed(r, "a truth value")),
                    },
                    Shown::Number(_) | Shown::Text(_) => return Err(changed(r, "a truth value")),
                });
            }
            Arc::new(builder.finish())
        }
        ColumnKind::Text | ColumnKind::Json => {
            let mut builder = StringBuilder::new();
            for (r, e) in rows {
                builder.append_option(match &r.values[i] {
                    Shown::Nothing => None,
                    Shown::Text(t) => Some(t.clone()),
                    // Became so after the scan began; a text can still show it.
                    Shown::Number(n) => Some(Value::from(*n).to_string()),
                    Shown::Bool(b) => Some(b.to_string()),
                    Shown::Ask => of_document(e).map(|v| match plain_of(&v) {
                        Value::String(text) if kind == ColumnKind::Text => text,
                        other => other.to_string(),
                    }),
                });
            }
            Arc::new(builder.finish())
        }
    })
}

impl Inner {
    fn columns_of(&self, entity_type: &Iri) -> Vec<AttributeColumn> {
        let Some(t) = self.type_of(entity_type) else { return Vec::new() };
        let mut columns: Vec<AttributeColumn> = t.table.columns().iter().filter(|c| c.n_present > 0).map(|c| c.described()).collect();
        // Some of the type have another one first, and are in the tables of those.
        if t.order.len() > t.table.n_rows() {
            let sets = self.type_sets.iter().filter(|(_, list, _)| list.first() != Some(entity_type) && list.contains(entity_type));
            let mut others: Vec<&Iri> = sets.filter_map(|(_, list, _)| list.first()).collect();
            others.sort();
            others.dedup();
            let tables = others.into_iter().filter_map(|o| self.type_of(o));
            for c in tables.flat_map(|o| o.table.columns()).filter(|c| c.n_present > 0) {
                let more = c.described();
                match columns.iter_mut().find(|k| k.name == more.name) {
                    Some(known) => {
                        if known.kind != more.kind {
                            known.kind = ColumnKind::Json;
                        }
                        if known.unit_code != more.unit_code {
                            known.unit_code = None;
                        }
                    }
                    None => columns.push(more),
                }
            }
        }
        columns.sort_by(|a, b| a.name.cmp(&b.name));
        columns
    }
}
