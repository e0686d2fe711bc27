//! Rows in the form of the files: the key columns, then up to three columns per attribute, in the order of the files.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, DictionaryArray, Int32Array, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, Int32Type, UInt32Type};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use entity::{Instant, Iri};

use super::super::value::{Seen, SeenByName};
use super::super::{BulkColumn, BulkRows, ColumnKind, HistoryError};
use super::cell::Meta;
use super::segment::ENTITY;
use super::write::{FileColumn, schema_of};

/// Sorted rows of one table, no two of them with the same keys.
#[derive(Clone, Debug)]
pub(super) struct Sheet {
    pub(super) batch: RecordBatch,
    pub(super) columns: Arc<Vec<FileColumn>>,
}

/// The sheets of one source, in order: no row of one is before a row of an earlier one.
pub(super) type Sheets = Box<dyn Iterator<Item = Result<Sheet, HistoryError>> + Send>;

/// Bulk rows in memory.
#[derive(Debug)]
pub(super) struct BulkSheet {
    pub(super) sheet: Sheet,
    pub(super) recorded_at: Instant,
    pub(super) n_values: usize,
}

impl BulkSheet {
    /// Sorts bulk rows, and says what their values have in common. None if there is no value.
    pub(super) fn of(rows: &BulkRows) -> Result<Option<(Self, SeenByName)>, ArrowError> {
        let order = Order::of(rows);
        let mut columns = Vec::new();
        let mut arrays = Vec::new();
        let mut seen = SeenByName::new();
        let mut n_values = 0;
        // Rows without any value are none.
        let mut has_value = vec![false; order.groups.len()];
        for (idx, name) in rows.attributes().iter().enumerate() {
            let (array, kind): (ArrayRef, _) = match rows.column(idx) {
                BulkColumn::Number(a) => (Arc::new(a.clone()), ColumnKind::Number),
                BulkColumn::Bool(a) => {
                    (Arc::new(a.iter().map(|v| v.map(|v| if v { "true" } else { "false" })).collect::<StringArray>()), ColumnKind::Bool)
                }
                BulkColumn::Text(a) => {
                    let json = |text: &str| serde_json::Value::from(text).to_string();
                    (Arc::new(a.iter().map(|v| v.map(json)).collect::<StringArray>()), ColumnKind::Text)
                }
            };
            if array.null_count() == array.len() {
                continue;
            }
            let array = order.take(&array)?;
            n_values += array.len() - array.null_count();
            match array.logical_nulls() {
                None => has_value.fill(true),
                Some(nulls) => nulls.valid_indices().for_each(|row| has_value[row] = true),
            }
            let unit = rows.unit_code(idx);
            let column = FileColumn::of_bulk(name.clone(), kind == ColumnKind::Number, unit.is_some());
            let meta = unit.map(|unit| constant(&Meta::unit_only(unit), &array));
            arrays.push((array, meta));
            columns.push(column);
            seen.insert(name.clone(), Seen::of_kind(kind, unit.map(str::to_owned)));
        }
        if n_values == 0 {
            return Ok(None);
        }
        // In the order in which all files have them.
        let mut by_name: Vec<usize> = (0..columns.len()).collect();
        by_name.sort_by(|a, b| columns[*a].name.cmp(&columns[*b].name));
        let mut batch_arrays = order.keys(rows);
        for &idx in &by_name {
            let (array, meta) = &arrays[idx];
            batch_arrays.push(Arc::clone(array));
            batch_arrays.extend(meta.clone());
        }
        let columns: Vec<FileColumn> = by_name.iter().map(|&idx| columns[idx].clone()).collect();
        let mut batch = RecordBatch::try_new(schema_of(&columns), batch_arrays)?;
        if has_value.contains(&false) {
            batch = arrow::compute::filter_record_batch(&batch, &BooleanArray::from(has_value))?;
        }
        let sheet = Sheet { batch, columns: Arc::new(columns) };
        Ok(Some((Self { sheet, recorded_at: rows.recorded_at(), n_values }, seen)))
    }

    /// The rows of one entity.
    pub(super) fn rows_of(&self, entity: &Iri) -> Option<RecordBatch> {
        let ids = self.sheet.batch.column(ENTITY).as_dictionary::<Int32Type>();
        let names = ids.values().as_string::<i32>();
        // The dictionary is sorted, and so are the rows.
        let key = binary_search(names, entity.as_str())?;
        let keys: &[i32] = ids.keys().values();
        let (start, end) = (keys.partition_point(|k| *k < key), keys.partition_point(|k| *k <= key));
        (start < end).then(|| self.sheet.batch.slice(start, end - start))
    }
}

fn binary_search(sorted: &StringArray, text: &str) -> Option<i32> {
    let (mut from, mut to) = (0, sorted.len());
    while from < to {
        let middle = usize::midpoint(from, to);
        match sorted.value(middle).cmp(text) {
            std::cmp::Ordering::Less => from = middle + 1,
            std::cmp::Ordering::Greater => to = middle,
            std::cmp::Ordering::Equal => return i32::try_from(middle).ok(),
        }
    }
    None
}

/// The order of bulk rows: entity, observed time, place in the batch.
struct Order {
    /// Rank of each entity.
    ranks: Vec<u32>,
    rows: Vec<u32>,
    /// Where in `rows` the rows of one entity and time end.
    groups: Vec<u32>,
}

impl Order {
    fn of(rows: &BulkRows) -> Self {
        let entities = rows.entities();
        let mut by_name: Vec<u32> = (0..idx_of(entities.len())).collect();
        by_name.sort_unstable_by(|a, b| entities[*a as usize].cmp(&entities[*b as usize]));
        let mut ranks = vec![0; entities.len()];
        for (rank, &entity) in by_name.iter().enumerate() {
            ranks[entity as usize] = idx_of(rank);
        }
        let times = rows.observed_us();
        let mut keys: Vec<(u32, i64, u32)> =
            rows.entity_idxs().iter().zip(times).enumerate().map(|(row, (e, us))| (ranks[*e as usize], *us, idx_of(row))).collect();
        keys.sort_unstable();
        let mut groups = Vec::with_capacity(keys.len());
        for (i, key) in keys.iter().enumerate() {
            if keys.get(i + 1).is_none_or(|next| (next.0, next.1) != (key.0, key.1)) {
                groups.push(idx_of(i + 1));
            }
        }
        Self { ranks, rows: keys.into_iter().map(|k| k.2).collect(), groups }
    }

    /// The values in this order, of each group the last one.
    fn take(&self, array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        let row_of = |(start, end): (u32, u32)| {
            let rows = &self.rows[start as usize..end as usize];
            // A later row without a value corrects nothing.
            rows.iter().rev().find(|row| array.is_valid(**row as usize)).or(rows.last()).copied()
        };
        let starts = std::iter::once(0).chain(self.groups.iter().copied());
        let rows: arrow::array::PrimitiveArray<UInt32Type> = if self.groups.len() == self.rows.len() {
            self.rows.iter().copied().collect()
        } else {
            starts.zip(self.groups.iter().copied()).map(row_of).collect()
        };
        take(array, &rows, None)
    }

    fn keys(&self, rows: &BulkRows) -> Vec<ArrayRef> {
        let lasts = || self.groups.iter().map(|end| self.rows[*end as usize - 1] as usize);
        let n = self.groups.len();
        let mut names: Vec<&str> = rows.entities().iter().map(Iri::as_str).collect();
        names.sort_unstable();
        let ids: Int32Array = lasts().map(|row| self.ranks[rows.entity_idxs()[row] as usize].cast_signed()).collect();
        let names: StringArray = names.into_iter().map(Some).collect();
        let observed: TimestampMicrosecondArray = lasts().map(|row| Some(rows.observed_us()[row])).collect();
        let recorded = TimestampMicrosecondArray::from_value(rows.recorded_at().micros(), n);
        let few = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let nothing = new_null_array(&few, n);
        vec![
            Arc::new(DictionaryArray::new(ids, Arc::new(names))),
            Arc::clone(&nothing),
            Arc::new(observed.with_timezone("UTC")),
            Arc::new(recorded.with_timezone("UTC")),
            nothing,
        ]
    }
}

fn idx_of(n: usize) -> u32 {
    u32::try_from(n).expect("a batch has fewer rows")
}

/// A column with one text wherever `values` has a value.
fn constant(text: &str, values: &ArrayRef) -> ArrayRef {
    let keys = Int32Array::new(vec![0; values.len()].into(), values.logical_nulls());
    Arc::new(DictionaryArray::new(keys, Arc::new(StringArray::from(vec![text]))))
}

/// The columns of several sources, as one: what any of them has.
pub(super) fn union<'a>(sources: impl Iterator<Item = (&'a [FileColumn], u64)>) -> Vec<FileColumn> {
    let mut all: std::collections::BTreeMap<&Iri, (FileColumn, u64, u64)> = std::collections::BTreeMap::new();
    for (columns, n_rows) in sources {
        for c in columns {
            let (sum, n_integers, n_floats) =
                all.entry(&c.name).or_insert_with(|| (FileColumn { number: false, text: false, meta: false, ..c.clone() }, 0, 0));
            // Another rule for whole numbers makes exceptions, which are in the third cell.
            sum.meta |= c.meta || (c.number && sum.number && c.integers != sum.integers);
            sum.number |= c.number;
            sum.text |= c.text;
            if c.number {
                *(if c.integers { n_integers } else { n_floats }) += n_rows;
                // Until all are known: the one seen last, so that the next different one is noticed.
                sum.integers = c.integers;
            }
        }
    }
    let column = |(mut c, n_integers, n_floats): (FileColumn, u64, u64)| {
        c.meta |= n_integers > 0 && n_floats > 0;
        c.integers = n_integers >= n_floats;
        c
    };
    all.into_values().map(column).collect()
}

/// Which column of the batch each part of an attribute is.
pub(super) fn part_names(column: &FileColumn) -> [Option<String>; 3] {
    [column.number.then(|| column.number_name()), column.text.then(|| column.text_name()), column.meta.then(|| column.meta_name())]
}
