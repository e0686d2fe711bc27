//! Columns of merged rows: pieces of many sheets become one array, by runs, not value by value.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, DictionaryArray, Int32Builder, MutableArrayData, StringArray, StringBuilder, make_array,
    new_null_array,
};
use arrow::datatypes::{DataType, Int32Type};
use arrow::error::ArrowError;

use super::order::{Chunk, Piece, Prepared};

/// Where the values of one column come from.
pub(super) struct Column<'a> {
    chunk: &'a Chunk,
    arrays: Vec<Option<&'a ArrayRef>>,
    /// Of rows made of several, whose value counts: one for each, in order; none for no value.
    picks: Vec<Option<(usize, usize)>>,
}

impl<'a> Column<'a> {
    /// Column `part` of an attribute. Of several rows the last one with a value counts.
    pub(super) fn of_attribute(chunk: &'a Chunk, pool: &'a [Prepared], attribute_idx: usize, part: usize) -> Self {
        let arrays = pool.iter().map(|p| p.attributes[attribute_idx].get(part).and_then(Option::as_ref)).collect();
        let pick = |rows: &[(usize, usize)]| rows.iter().rev().find(|(s, r)| pool[*s].has_value(attribute_idx, *r)).copied();
        Self { chunk, arrays, picks: picks(chunk, pick) }
    }

    /// A key column, of several rows the last one's.
    pub(super) fn of_key(chunk: &'a Chunk, pool: &'a [Prepared], column_idx: usize) -> Self {
        Self {
            chunk,
            arrays: pool.iter().map(|p| Some(&p.key_columns[column_idx])).collect(),
            picks: picks(chunk, |rows| rows.last().copied()),
        }
    }

    /// Sheet, first row and number of rows of each piece; no sheet for a row without value.
    fn runs(&self) -> impl Iterator<Item = (Option<usize>, usize, usize)> + '_ {
        let mut picks = self.picks.iter();
        self.chunk.pieces.iter().map(move |piece| match piece {
            Piece::Run { sheet, start, len } => (Some(*sheet), *start, *len),
            Piece::One(_) => match picks.next().copied().flatten() {
                Some((sheet, row)) => (Some(sheet), row, 1),
                None => (None, 0, 1),
            },
        })
    }

    /// The values as an array of `data_type`, which is not a dictionary. Errors: they are too many for one array.
    pub(super) fn plain(&self, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
        if let [Piece::Run { sheet, start, len }] = self.chunk.pieces.as_slice() {
            return Ok(self.arrays[*sheet].map_or_else(|| new_null_array(data_type, *len), |a| a.slice(*start, *len)));
        }
        let mut places: Vec<Option<usize>> = vec![None; self.arrays.len()];
        let mut data: Vec<ArrayData> = Vec::new();
        for (sheet, _, _) in self.runs() {
            if let Some(sheet) = sheet
                && places[sheet].is_none()
                && let Some(array) = self.arrays[sheet]
            {
                places[sheet] = Some(data.len());
                data.push(array.to_data());
            }
        }
        if data.is_empty() {
            return Ok(new_null_array(data_type, self.chunk.n_rows));
        }
        let mut all = MutableArrayData::new(data.iter().collect(), true, self.chunk.n_rows);
        for (sheet, start, len) in self.runs() {
            match sheet.and_then(|s| places[s]) {
                Some(place) => all.try_extend(place, start, start + len)?,
                None => all.try_extend_nulls(len)?,
            }
        }
        Ok(make_array(all.freeze()))
    }

    /// The texts of dictionary columns as one dictionary column.
    pub(super) fn dictionary(&self) -> ArrayRef {
        let mut texts: Vec<&str> = Vec::new();
        let mut key_by_text: HashMap<&str, i32> = HashMap::new();
        let columns: Vec<Option<(&DictionaryArray<Int32Type>, &StringArray)>> = self
            .arrays
            .iter()
            .map(|a| a.map(|a| a.as_dictionary::<Int32Type>()).filter(|d| d.null_count() < d.len()).map(|d| (d, d.values().as_string())))
            .collect();
        // For each sheet the new keys of its old ones, as they are met.
        let mut maps: Vec<Vec<i32>> = vec![Vec::new(); columns.len()];
        let mut keys = Int32Builder::with_capacity(self.chunk.n_rows);
        for (sheet, start, len) in self.runs() {
            let Some((sheet, (column, values))) = sheet.and_then(|s| Some((s, columns[s]?))) else {
                keys.append_nulls(len);
                continue;
            };
            let map = &mut maps[sheet];
            map.resize(values.len(), -1);
            for row in start..start + len {
                if column.is_null(row) {
                    keys.append_null();
                    continue;
                }
                let old = usize::try_from(column.keys().value(row)).expect("dictionary keys are positive");
                if map[old] < 0 {
                    let text = values.value(old);
                    map[old] = *key_by_text.entry(text).or_insert_with(|| {
                        texts.push(text);
                        i32::try_from(texts.len() - 1).expect("a chunk has fewer rows")
                    });
                }
                keys.append_value(map[old]);
            }
        }
        let values: StringArray = texts.into_iter().map(Some).collect();
        Arc::new(DictionaryArray::new(keys.finish(), Arc::new(values)))
    }

    /// The texts of dictionary columns as plain texts.
    pub(super) fn texts(&self) -> ArrayRef {
        let mut all = StringBuilder::with_capacity(self.chunk.n_rows, self.chunk.n_rows * 32);
        for (sheet, start, len) in self.runs() {
            let column = sheet.and_then(|s| self.arrays[s]).map(|a| a.as_dictionary::<Int32Type>());
            let Some(column) = column.filter(|c| c.null_count() < c.len()) else {
                all.append_nulls(len);
                continue;
            };
            let values = column.values().as_string::<i32>();
            for row in start..start + len {
                let key = column.is_valid(row).then(|| usize::try_from(column.keys().value(row)).expect("dictionary keys are positive"));
                all.append_option(key.map(|key| values.value(key)));
            }
        }
        Arc::new(all.finish())
    }
}

fn picks(chunk: &Chunk, pick: impl Fn(&[(usize, usize)]) -> Option<(usize, usize)>) -> Vec<Option<(usize, usize)>> {
    let ones = chunk.pieces.iter().filter_map(|p| if let Piece::One(rows) = p { Some(rows) } else { None });
    ones.map(|rows| pick(rows)).collect()
}
