//! A whole table from all layers, as batches: sealed segments and recent rows are merged in the order of the answer, and of rows that speak
//! of the same thing the latest value of each attribute is taken. Columns of rows that are alone are passed on as they are.
//!
//! The answer is made while it is taken: in memory are one batch per layer and the one being made.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, StringArray};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use entity::{Instant, Iri};

use super::super::erasure::Erasures;
use super::super::{ColumnKind, HistoryError, HistoryScan, HistoryTable, Reading, SCAN_BATCH_ROWS_MAX, ScanStream};
use super::cell;
use super::erase::without_erased;
use super::gather::Column;
use super::order::{Chunk, Merger, Prepared, Same};
use super::recent::Layer;
use super::segment::{AttributeColumns, Attributes, DATASET, ENTITY, Metas, OBSERVED, OpenSegment, RECORDED, Wanted, wanted_of};
use super::sheet::{Sheet, Sheets};
use super::write::{columns_for, sheets_of};

/// Where the rows of one table are, oldest layer first; `recent` is younger than all segments.
#[derive(Clone)]
pub(super) struct Layers {
    pub(super) table: HistoryTable,
    pub(super) segments: Vec<Arc<OpenSegment>>,
    pub(super) recent: Vec<Layer>,
    /// If any concern the rows asked for.
    pub(super) erasures: Option<Arc<Erasures>>,
}

impl Layers {
    /// What is read if these row groups of each segment are.
    pub(super) fn reading(&self, reads: &[BTreeSet<usize>]) -> Result<Reading, HistoryError> {
        let mut reading = Reading { n_recent: self.recent.len(), ..Reading::default() };
        for (segment, read) in self.segments.iter().zip(reads).filter(|(s, _)| !s.footer.is_note()) {
            reading.n_files += 1;
            if !read.is_empty() {
                reading.n_files_read += 1;
                reading.n_units += segment.metadata()?.metadata().num_row_groups();
                reading.n_units_read += read.len();
            }
        }
        Ok(reading)
    }
}

fn wanted_for(scan: &HistoryScan) -> Wanted {
    Wanted {
        entities: scan.entities.as_ref().map(|ids| Arc::new(ids.iter().cloned().collect())),
        observed: scan.observed.clone(),
        unobserved_only: false,
        recorded_from: None,
        recorded_to: scan.as_of,
        values_only: true,
    }
}

/// What [`scan`] would read.
pub(super) fn reading(scan: &HistoryScan, layers: &Layers) -> Result<Reading, HistoryError> {
    let wanted = wanted_for(scan);
    let units = layers.segments.iter().map(|s| Ok(s.units(&wanted)?.iter().map(|u| u.row_group_idx).collect()));
    layers.reading(&units.collect::<Result<Vec<BTreeSet<usize>>, HistoryError>>()?)
}

/// Begins to answer `scan`.
pub(super) fn scan(scan: &HistoryScan, layers: Layers) -> Result<ScanStream, HistoryError> {
    let names: BTreeSet<&Iri> = scan.attributes.iter().collect();
    let wanted = wanted_for(scan);
    let kind_of = |name: &Iri| layers.table.columns.iter().find(|c| c.name == *name).map_or(ColumnKind::Text, |c| c.kind);
    let kinds: Vec<ColumnKind> = scan.attributes.iter().map(kind_of).collect();
    let schema = layers.table.scan_schema(&scan.attributes);
    // Whether a row is left, only all its columns know.
    let attributes = if layers.erasures.is_some() { Attributes::All } else { Attributes::Some(&names) };
    let visible = |sheets: Sheets| match &layers.erasures {
        None => sheets,
        Some(erasures) => without_all_erased(sheets, Arc::clone(erasures), scan.as_of, scan.entity_type.clone()),
    };
    let mut sources: Vec<Sheets> = Vec::new();
    for segment in &layers.segments {
        let units = segment.units(&wanted)?;
        if units.is_empty() {
            continue;
        }
        let rows = segment.stream(units.iter().map(|u| u.row_group_idx).collect(), wanted.clone(), attributes)?;
        sources.push(visible(sheets(rows, segment)));
    }
    for layer in layers.recent.iter().cloned() {
        let all = match layer {
            Layer::Bulk(bulk) => Box::new(std::iter::once(Ok(bulk.sheet.clone()))),
            Layer::Facts(facts) => {
                let columns = columns_for(&facts, Some(&names).filter(|_| layers.erasures.is_none()));
                sheets_of(facts, columns, scan.entity_type.clone())
            }
        };
        sources.push(visible(only(all, wanted.clone(), scan.entity_type.clone())));
    }
    let columnar = {
        let entity_type = scan.entity_type.clone();
        move |reason: String| HistoryError::Columnar { entity_type: entity_type.clone(), reason }
    };
    let (attributes, failed) = (scan.attributes.clone(), columnar.clone());
    let kinds_wanted = kinds.clone();
    let prepare = move |sheet: &Sheet| prepared(sheet, &attributes, &kinds_wanted).map(Some).map_err(&failed);
    let mut merger = Merger::new(sources, Same::Subject, prepare)?;
    let mut failed = false;
    Ok(Box::new(std::iter::from_fn(move || {
        if failed {
            return None;
        }
        let next = merger
            .next_chunk(SCAN_BATCH_ROWS_MAX)
            .transpose()?
            .and_then(|chunk| answered(&chunk, &merger.pool, &kinds, &schema).map_err(|e| columnar(e.to_string())));
        merger.release();
        failed = next.is_err();
        Some(next)
    })))
}

fn answered(chunk: &Chunk, pool: &[Prepared], kinds: &[ColumnKind], schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let key = |idx: usize| Column::of_key(chunk, pool, idx);
    let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let mut arrays = vec![key(ENTITY).texts(), key(DATASET).texts(), key(OBSERVED).plain(&instant)?, key(RECORDED).plain(&instant)?];
    for (idx, kind) in kinds.iter().enumerate() {
        arrays.push(Column::of_attribute(chunk, pool, idx, 0).plain(&kind.data_type())?);
    }
    RecordBatch::try_new(Arc::clone(schema), arrays)
}

/// The rows of a segment with their columns.
pub(super) fn sheets(rows: super::segment::RowStream, segment: &OpenSegment) -> Sheets {
    let columns = Arc::clone(&segment.footer.columns);
    Box::new(rows.map(move |batch| Ok(Sheet { batch: batch?, columns: Arc::clone(&columns) })))
}

/// The wanted rows of sheets in memory.
fn only(all: Sheets, wanted: Wanted, entity_type: Iri) -> Sheets {
    let refused = move |e: ArrowError| HistoryError::Columnar { entity_type: entity_type.clone(), reason: e.to_string() };
    Box::new(all.map(move |sheet| {
        let Sheet { batch, columns } = sheet?;
        Ok(Sheet { batch: wanted_of(batch, &wanted).map_err(&refused)?, columns })
    }))
}

/// What erasures leave of sheets with all columns.
pub(super) fn without_all_erased(all: Sheets, erasures: Arc<Erasures>, as_of: Option<Instant>, entity_type: Iri) -> Sheets {
    let refused = move |e: ArrowError| HistoryError::Columnar { entity_type: entity_type.clone(), reason: e.to_string() };
    Box::new(all.map(move |sheet| without_erased(sheet?, &erasures, as_of).map_err(&refused)))
}

/// The attributes asked for, each as an array of its kind. Errors: what cannot be read, in words.
fn prepared(sheet: &Sheet, names: &[Iri], kinds: &[ColumnKind]) -> Result<Prepared, String> {
    let here = AttributeColumns::all(&sheet.batch, &sheet.columns);
    let array = |(name, kind): (&Iri, &ColumnKind)| {
        let found = here.iter().find(|c| c.column.name == *name);
        Ok(vec![found.map(|c| typed(c, *kind, sheet.batch.num_rows())).transpose()?])
    };
    let attributes = names.iter().zip(kinds).map(array).collect::<Result<_, String>>()?;
    Ok(Prepared::new(&sheet.batch, attributes))
}

/// The values of an attribute as an array. Errors: what cannot be read, in words.
fn typed(columns: &AttributeColumns<'_>, kind: ColumnKind, n_rows: usize) -> Result<ArrayRef, String> {
    let not =
        |text: &str, what: &str| format!("`{}` of `{}` is not {what}", text.chars().take(80).collect::<String>(), columns.column.name);
    let texts = || (0..n_rows).map(|row| columns.text_at(row));
    Ok(match kind {
        ColumnKind::Number => match (columns.number, columns.text) {
            (Some(numbers), None) => Arc::new(numbers.clone()),
            // The text of a number is an integer that a float does not hold exactly.
            _ => {
                let number = |row: usize| match (columns.number_at(row), columns.text_at(row)) {
                    (Some(number), _) => Ok(Some(number)),
                    (None, Some(text)) => text.parse().map(Some).map_err(|_| not(text, "a number")),
                    (None, None) => Ok(None),
                };
                Arc::new((0..n_rows).map(number).collect::<Result<Float64Array, String>>()?)
            }
        },
        ColumnKind::Bool => {
            let truth = |text: &str| text.parse::<bool>().map_err(|_| not(text, "true or false"));
            Arc::new(texts().map(|t| t.map(truth).transpose()).collect::<Result<BooleanArray, String>>()?)
        }
        ColumnKind::Text => {
            let string = |text: &str| serde_json::from_str::<String>(text).map_err(|_| not(text, "a string"));
            Arc::new(texts().map(|t| t.map(string).transpose()).collect::<Result<StringArray, String>>()?)
        }
        ColumnKind::Json => {
            let mut metas = Metas::default();
            let json = |row: usize| match (columns.number_at(row), columns.text_at(row)) {
                (Some(f), _) => Ok(Some(cell::number_json(f, metas.of(columns, row)?, columns.column.integers)?.to_string())),
                (None, text) => Ok(text.map(str::to_owned)),
            };
            Arc::new((0..n_rows).map(json).collect::<Result<StringArray, String>>()?)
        }
    })
}
