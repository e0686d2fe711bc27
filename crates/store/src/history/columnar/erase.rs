//! Erased facts taken out of sheets: cells become empty, rows without any are gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::{filter_record_batch, nullif};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use entity::Instant;

use super::super::erasure::{Erasable, Erasure, Erasures};
use super::marks::Mark;
use super::segment::{AttributeColumns, Keys};
use super::sheet::{Sheet, part_names};

/// The sheet without what is erased for those who ask as of a time. It must have the columns of all attributes: a row is there as long as
/// any of them has a value.
pub(super) fn without_erased(sheet: Sheet, erasures: &Erasures, as_of: Option<Instant>) -> Result<Sheet, ArrowError> {
    let keys = Keys::of(&sheet.batch);
    let ids = keys.entity.values();
    let by_key: Vec<Vec<&Erasure>> = ids.iter().map(|id| id.map_or_else(Vec::new, |id| erasures.of(id, as_of))).collect();
    if by_key.iter().all(Vec::is_empty) {
        return Ok(sheet);
    }
    let attributes = AttributeColumns::all(&sheet.batch, &sheet.columns);
    let n_rows = sheet.batch.num_rows();
    let mut is_kept = vec![true; n_rows];
    // By index of the attribute, made when it is needed.
    let mut is_erased: BTreeMap<usize, Vec<bool>> = BTreeMap::new();
    for (row, is_kept) in is_kept.iter_mut().enumerate() {
        let here = Erasable { dataset_id: keys.dataset.get(row), observed_at: keys.observed_at(row), recorded_at: keys.recorded_at(row) };
        let hits: Vec<&&Erasure> = by_key[keys.entity.key_of(row)].iter().filter(|e| e.concerns_row(&here)).collect();
        if hits.is_empty() {
            continue;
        }
        if let Some(deleted) = keys.deleted.get(row) {
            let about = Mark::of(deleted).attribute();
            *is_kept = !hits.iter().any(|e| e.concerns_attribute(about));
            continue;
        }
        let mut has_more = false;
        for (idx, columns) in attributes.iter().enumerate() {
            if columns.number_at(row).is_none() && columns.text_at(row).is_none() {
                continue;
            }
            if hits.iter().any(|e| e.concerns_attribute(Some(columns.column.name.as_str()))) {
                is_erased.entry(idx).or_insert_with(|| vec![false; n_rows])[row] = true;
            } else {
                has_more = true;
            }
        }
        *is_kept = has_more;
    }
    let mut arrays: Vec<ArrayRef> = sheet.batch.columns().to_vec();
    for (idx, rows) in is_erased {
        let rows = BooleanArray::from(rows);
        for name in part_names(attributes[idx].column).into_iter().flatten() {
            let place = sheet.batch.schema_ref().index_of(&name)?;
            arrays[place] = nullif(&arrays[place], &rows)?;
        }
    }
    let mut batch = RecordBatch::try_new(sheet.batch.schema(), arrays)?;
    if is_kept.contains(&false) {
        batch = filter_record_batch(&batch, &BooleanArray::from(is_kept))?;
    }
    Ok(Sheet { batch, columns: Arc::clone(&sheet.columns) })
}
