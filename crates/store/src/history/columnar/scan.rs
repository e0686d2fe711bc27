//! A whole table from all layers, as batches: sealed segments and recent facts are put side by side, sorted by row, and of each row the
//! latest value of each attribute is taken.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder, Float64Builder, StringArray, StringBuilder, TimestampMicrosecondBuilder};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use entity::{Instant, Iri};

use super::super::{ColumnKind, HistoryError, HistoryScan, HistoryTable, SCAN_BATCH_ROWS_MAX};
use super::cell;
use super::recent::Table;
use super::segment::{AttributeColumns, Attributes, Few, Keys, Metas, OpenSegment, Wanted, mask_of};
use super::write::{FileColumn, columns_for, for_each_batch};

/// Where the rows of one table are, oldest layer first; `recent` is younger than all segments.
#[derive(Clone)]
pub(super) struct Layers {
    pub(super) table: HistoryTable,
    pub(super) segments: Vec<Arc<OpenSegment>>,
    pub(super) recent: Vec<Table>,
}

/// Answers `scan`.
pub(super) fn scan(scan: &HistoryScan, layers: &Layers) -> Result<Vec<RecordBatch>, HistoryError> {
    let columnar = |reason: String| HistoryError::Columnar { entity_type: scan.entity_type.clone(), reason };
    let parts = read(scan, layers)?;
    let mut opened: Vec<Opened<'_>> = parts.iter().map(|part| Opened::new(part, &scan.attributes)).collect();
    let rows = sorted_rows(&opened);
    let mut output = Output::new(scan, &layers.table);
    let mut batches = Vec::new();
    for group in rows.chunk_by(|a, b| a.subject == b.subject) {
        output.push(group, &mut opened).map_err(columnar)?;
        if output.n_rows == SCAN_BATCH_ROWS_MAX {
            batches.push(output.finish().map_err(columnar)?);
            output = Output::new(scan, &layers.table);
        }
    }
    if output.n_rows > 0 {
        batches.push(output.finish().map_err(columnar)?);
    }
    Ok(batches)
}

/// A batch of one layer; only wanted rows, only asked columns.
struct Part {
    layer: usize,
    batch: RecordBatch,
    columns: Arc<Vec<FileColumn>>,
}

fn read(scan: &HistoryScan, layers: &Layers) -> Result<Vec<Part>, HistoryError> {
    let names: BTreeSet<&Iri> = scan.attributes.iter().collect();
    let wanted = Wanted {
        entities: scan.entities.as_ref().map(|ids| Arc::new(ids.iter().cloned().collect())),
        observed: scan.observed.clone(),
        recorded_from: None,
        recorded_to: scan.as_of,
        values_only: true,
    };
    let mut parts = Vec::new();
    for (layer, segment) in layers.segments.iter().enumerate() {
        let units = segment.units(&wanted);
        if units.is_empty() {
            continue;
        }
        let columns = Arc::new(segment.footer.columns.clone());
        segment.read(units.iter().map(|u| u.row_group_idx).collect(), &wanted, Attributes::Some(&names), |batch| {
            parts.push(Part { layer, batch, columns: Arc::clone(&columns) });
            Ok(())
        })?;
    }
    for (age, table) in layers.recent.iter().enumerate() {
        let layer = layers.segments.len() + age;
        let columns = Arc::new(columns_for(table, Some(&names)));
        for_each_batch(table, &columns, |batch| {
            let batch = filter_record_batch(&batch, &mask_of(&batch, &wanted))?;
            parts.push(Part { layer, batch, columns: Arc::clone(&columns) });
            Ok::<(), arrow::error::ArrowError>(())
        })
        .map_err(|e| HistoryError::Columnar { entity_type: scan.entity_type.clone(), reason: e.to_string() })?;
    }
    Ok(parts)
}

/// A part with its columns found: one place per attribute asked for.
struct Opened<'a> {
    layer: usize,
    n_rows: usize,
    keys: Keys<'a>,
    attributes: Vec<Option<(AttributeColumns<'a>, Metas)>>,
}

impl<'a> Opened<'a> {
    fn new(part: &'a Part, names: &[Iri]) -> Self {
        let all = AttributeColumns::all(&part.batch, &part.columns);
        let by_name: HashMap<&Iri, AttributeColumns<'_>> = all.into_iter().map(|c| (&c.column.name, c)).collect();
        let attributes = names.iter().map(|name| by_name.get(name).map(|c| (*c, Metas::default()))).collect();
        Self { layer: part.layer, n_rows: part.batch.num_rows(), keys: Keys::of(&part.batch), attributes }
    }
}

/// A row of a part, in the form in which rows are sorted: strings by their rank.
struct Row {
    subject: Subject,
    recorded_at: Instant,
    layer: usize,
    part_idx: usize,
    row: usize,
}

/// What a row of the answer speaks of, in the order of the answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Subject {
    entity: usize,
    observed_at: Option<Instant>,
    /// Tells rows without observed time apart.
    recorded_at: Option<Instant>,
    /// 0 for none.
    dataset: usize,
}

fn sorted_rows(parts: &[Opened<'_>]) -> Vec<Row> {
    let entity_ranks = Ranks::of(parts.iter().map(|p| p.keys.entity));
    let dataset_ranks = Ranks::of(parts.iter().map(|p| p.keys.dataset));
    let mut rows = Vec::with_capacity(parts.iter().map(|p| p.n_rows).sum());
    for (part_idx, part) in parts.iter().enumerate() {
        let (entities, datasets) = (entity_ranks.by_key(part.keys.entity), dataset_ranks.by_key(part.keys.dataset));
        for row in 0..part.n_rows {
            let (observed_at, recorded_at) = (part.keys.observed_at(row), part.keys.recorded_at(row));
            let subject = Subject {
                entity: entities[part.keys.entity.key_of(row)],
                observed_at,
                recorded_at: if observed_at.is_none() { Some(recorded_at) } else { None },
                dataset: part.keys.dataset.get(row).map_or(0, |_| 1 + datasets[part.keys.dataset.key_of(row)]),
            };
            rows.push(Row { subject, recorded_at, layer: part.layer, part_idx, row });
        }
    }
    rows.sort_unstable_by_key(|r| (r.subject, r.recorded_at, r.layer));
    rows
}

/// The order of some texts.
struct Ranks<'a> {
    by_text: HashMap<&'a str, usize>,
}

impl<'a> Ranks<'a> {
    fn of(columns: impl Iterator<Item = Few<'a>>) -> Self {
        let texts: BTreeSet<&str> = columns.flat_map(|few| few.values().iter().flatten()).collect();
        Self { by_text: texts.into_iter().enumerate().map(|(rank, text)| (text, rank)).collect() }
    }

    /// The rank of each entry of a column's dictionary.
    fn by_key(&self, few: Few<'_>) -> Vec<usize> {
        let texts: &StringArray = few.values();
        texts.iter().map(|text| text.map_or(0, |t| self.by_text[t])).collect()
    }
}

/// The batch of the answer that is being filled.
struct Output {
    schema: SchemaRef,
    n_rows: usize,
    entity_id: StringBuilder,
    dataset_id: StringBuilder,
    observed_at: TimestampMicrosecondBuilder,
    recorded_at: TimestampMicrosecondBuilder,
    attributes: Vec<Column>,
}

enum Column {
    Number(Float64Builder),
    Bool(BooleanBuilder),
    Text(StringBuilder),
    Json(StringBuilder),
}

impl Output {
    fn new(scan: &HistoryScan, table: &HistoryTable) -> Self {
        let kind_of = |name: &Iri| table.columns.iter().find(|c| c.name == *name).map_or(ColumnKind::Text, |c| c.kind);
        Self {
            schema: table.scan_schema(&scan.attributes),
            n_rows: 0,
            entity_id: StringBuilder::new(),
            dataset_id: StringBuilder::new(),
            observed_at: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            recorded_at: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            attributes: scan.attributes.iter().map(|name| Column::new(kind_of(name))).collect(),
        }
    }

    /// Adds one row from all rows of its subject, oldest knowledge first. Errors: a value that cannot be read, in words.
    fn push(&mut self, group: &[Row], parts: &mut [Opened<'_>]) -> Result<(), String> {
        let latest = group.last().expect("a group has a row");
        let keys = &parts[latest.part_idx].keys;
        self.n_rows += 1;
        self.entity_id.append_option(keys.entity.get(latest.row));
        self.dataset_id.append_option(keys.dataset.get(latest.row));
        self.observed_at.append_option(latest.subject.observed_at.map(Instant::micros));
        self.recorded_at.append_value(latest.recorded_at.micros());
        for (idx, column) in self.attributes.iter_mut().enumerate() {
            let has_value = |r: &&Row| {
                let columns = parts[r.part_idx].attributes[idx].as_ref();
                columns.is_some_and(|(c, _)| c.number_at(r.row).is_some() || c.text_at(r.row).is_some())
            };
            let place = group.iter().rev().find(has_value).map(|r| (r.part_idx, r.row));
            match place {
                None => column.push_null(),
                Some((part_idx, row)) => {
                    let (columns, metas) = parts[part_idx].attributes[idx].as_mut().expect("it has a value");
                    column.push(columns, metas, row)?;
                }
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<RecordBatch, String> {
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(self.entity_id.finish()),
            Arc::new(self.dataset_id.finish()),
            Arc::new(self.observed_at.finish()),
            Arc::new(self.recorded_at.finish()),
        ];
        arrays.extend(self.attributes.into_iter().map(Column::finish));
        RecordBatch::try_new(self.schema, arrays).map_err(|e| e.to_string())
    }
}

impl Column {
    fn new(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Number => Self::Number(Float64Builder::new()),
            ColumnKind::Bool => Self::Bool(BooleanBuilder::new()),
            ColumnKind::Text => Self::Text(StringBuilder::new()),
            ColumnKind::Json => Self::Json(StringBuilder::new()),
        }
    }

    fn push_null(&mut self) {
        match self {
            Self::Number(b) => b.append_null(),
            Self::Bool(b) => b.append_null(),
            Self::Text(b) | Self::Json(b) => b.append_null(),
        }
    }

    fn push(&mut self, columns: &AttributeColumns<'_>, metas: &mut Metas, row: usize) -> Result<(), String> {
        let (number, text) = (columns.number_at(row), columns.text_at(row).unwrap_or_default());
        let not = |what: &str| format!("`{}` of `{}` is not {what}", text.chars().take(80).collect::<String>(), columns.column.name);
        match self {
            // The text of a number is an integer that a float does not hold exactly.
            Self::Number(b) => b.append_value(number.map_or_else(|| text.parse().map_err(|_| not("a number")), Ok)?),
            Self::Bool(b) => b.append_value(text.parse().map_err(|_| not("true or false"))?),
            Self::Text(b) => b.append_value(serde_json::from_str::<String>(text).map_err(|_| not("a string"))?),
            Self::Json(b) => match number {
                None => b.append_value(text),
                Some(f) => b.append_value(cell::number_json(f, metas.of(columns, row)?, columns.column.integers)?.to_string()),
            },
        }
        Ok(())
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Number(mut b) => Arc::new(b.finish()),
            Self::Bool(mut b) => Arc::new(b.finish()),
            Self::Text(mut b) | Self::Json(mut b) => Arc::new(b.finish()),
        }
    }
}
