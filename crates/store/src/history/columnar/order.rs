//! Many sorted sources as one: rows are merged in the order of the files, and rows about the same thing are brought together.
//!
//! Only runs of rows are handled, no values: as long as the next rows of one source are before those of all others, they are one run, found
//! by galloping. So sources that do not overlap cost next to nothing, and memory holds one sheet per source and the rows of one chunk.

use std::cmp::Ordering;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, Int32Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Int32Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;

use super::super::HistoryError;
use super::segment::{DATASET, DELETED, ENTITY, OBSERVED, RECORDED};
use super::sheet::{Sheet, Sheets};
use super::write::KEY_COLUMNS;

/// Which rows become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Same {
    /// Those of which all keys agree: the same row, known twice.
    Keys,
    /// Those that speak of the same entity, `datasetId` and moment: of each attribute the value recorded last counts. For rows of values.
    Subject,
}

/// A sheet made ready for those who take its columns.
pub(super) struct Prepared {
    pub(super) keys: OrderKeys,
    pub(super) key_columns: Vec<ArrayRef>,
    /// For each attribute wanted its columns here, none for those that it does not have.
    pub(super) attributes: Vec<Vec<Option<ArrayRef>>>,
}

impl Prepared {
    pub(super) fn new(batch: &RecordBatch, attributes: Vec<Vec<Option<ArrayRef>>>) -> Self {
        Self { keys: OrderKeys::of(batch), key_columns: batch.columns()[..KEY_COLUMNS.len()].to_vec(), attributes }
    }

    /// Has the row a value of the attribute? Its third column, if there is one, says nothing by itself.
    pub(super) fn has_value(&self, attribute_idx: usize, row: usize) -> bool {
        self.attributes[attribute_idx].iter().take(2).flatten().any(|a| a.is_valid(row))
    }
}

/// The key columns of a sheet.
pub(super) struct OrderKeys {
    entity: Int32Array,
    entity_values: StringArray,
    observed: TimestampMicrosecondArray,
    recorded: TimestampMicrosecondArray,
    /// None if no row has one.
    dataset: Option<DictionaryArray<Int32Type>>,
    deleted: Option<DictionaryArray<Int32Type>>,
}

impl OrderKeys {
    pub(super) fn of(batch: &RecordBatch) -> Self {
        let few = |idx: usize| {
            let array = batch.column(idx).as_dictionary::<Int32Type>();
            (array.null_count() < array.len()).then(|| array.clone())
        };
        let entity = batch.column(ENTITY).as_dictionary::<Int32Type>();
        Self {
            entity: entity.keys().clone(),
            entity_values: entity.values().as_string::<i32>().clone(),
            observed: batch.column(OBSERVED).as_primitive::<TimestampMicrosecondType>().clone(),
            recorded: batch.column(RECORDED).as_primitive::<TimestampMicrosecondType>().clone(),
            dataset: few(DATASET),
            deleted: few(DELETED),
        }
    }

    pub(super) fn entity_key(&self, row: usize) -> usize {
        usize::try_from(self.entity.value(row)).expect("dictionary keys are positive")
    }

    pub(super) fn entity_text(&self, key: usize) -> &str {
        self.entity_values.value(key)
    }

    pub(super) fn observed_us(&self, row: usize) -> Option<i64> {
        self.observed.is_valid(row).then(|| self.observed.value(row))
    }

    pub(super) fn recorded_us(&self, row: usize) -> i64 {
        self.recorded.value(row)
    }

    fn text(array: &Option<DictionaryArray<Int32Type>>, row: usize) -> Option<&str> {
        let array = array.as_ref().filter(|a| a.is_valid(row))?;
        let key = usize::try_from(array.keys().value(row)).expect("dictionary keys are positive");
        Some(array.values().as_string::<i32>().value(key))
    }

    fn dataset(&self, row: usize) -> Option<&str> {
        Self::text(&self.dataset, row)
    }

    fn deleted(&self, row: usize) -> Option<&str> {
        Self::text(&self.deleted, row)
    }

    /// The order of the files.
    fn cmp(&self, row: usize, other: &Self, other_row: usize) -> Ordering {
        let entity = self.entity_text(self.entity_key(row)).cmp(other.entity_text(other.entity_key(other_row)));
        entity
            .then_with(|| self.observed_us(row).cmp(&other.observed_us(other_row)))
            .then_with(|| self.recorded_us(row).cmp(&other.recorded_us(other_row)))
            .then_with(|| self.dataset(row).cmp(&other.dataset(other_row)))
            .then_with(|| self.deleted(row).cmp(&other.deleted(other_row)))
    }

    /// Do both rows belong to one group?
    fn is_same(&self, row: usize, other: &Self, other_row: usize, same: Same) -> bool {
        let is_same_entity = || {
            let (a, b) = (self.entity_key(row), other.entity_key(other_row));
            (std::ptr::eq(self, other) && a == b) || self.entity_text(a) == other.entity_text(b)
        };
        let observed = self.observed_us(row);
        observed == other.observed_us(other_row)
            && is_same_entity()
            && match same {
                Same::Subject => observed.is_some() || self.recorded_us(row) == other.recorded_us(other_row),
                Same::Keys => {
                    self.recorded_us(row) == other.recorded_us(other_row)
                        && self.dataset(row) == other.dataset(other_row)
                        && self.deleted(row) == other.deleted(other_row)
                }
            }
    }
}

/// Rows of the result, in order.
pub(super) enum Piece {
    /// Rows of one sheet, as they are.
    Run { sheet: usize, start: usize, len: usize },
    /// One row made of several, given by sheet and row, oldest knowledge first.
    One(Vec<(usize, usize)>),
}

/// Makes of a sheet what is merged of it; none if that is nothing.
type Prepare = Box<dyn Fn(&Sheet) -> Result<Option<Prepared>, HistoryError> + Send>;

/// Sources being merged.
pub(super) struct Merger {
    cursors: Vec<Cursor>,
    /// Cursors that have rows left, as a heap: the one with the first row on top.
    heap: Vec<usize>,
    same: Same,
    prepare: Prepare,
    /// The sheets that the present chunk and the cursors refer to.
    pub(super) pool: Vec<Prepared>,
}

struct Cursor {
    sheets: Sheets,
    sheet: usize,
    row: usize,
}

/// The rows that were merged last.
#[derive(Default)]
pub(super) struct Chunk {
    pub(super) pieces: Vec<Piece>,
    pub(super) n_rows: usize,
    /// Rows that are, perhaps, not alone; the last ones.
    group: Vec<(usize, usize)>,
    last: Option<(usize, usize)>,
}

impl Merger {
    /// Starts to merge `sources`, the oldest first. `prepare` returns none for a sheet of which nothing is wanted.
    pub(super) fn new(
        sources: Vec<Sheets>,
        same: Same,
        prepare: impl Fn(&Sheet) -> Result<Option<Prepared>, HistoryError> + Send + 'static,
    ) -> Result<Self, HistoryError> {
        let mut merger = Self { cursors: Vec::new(), heap: Vec::new(), same, prepare: Box::new(prepare), pool: Vec::new() };
        for sheets in sources {
            merger.cursors.push(Cursor { sheets, sheet: 0, row: 0 });
            let idx = merger.cursors.len() - 1;
            if merger.load(idx)? {
                merger.heap.push(idx);
            }
        }
        for place in (0..merger.heap.len() / 2).rev() {
            merger.sift_down(place);
        }
        Ok(merger)
    }

    /// The next rows, `n_rows_wanted` or, where rows belong together, a few more; none at the end. They refer to [`Merger::pool`]
    /// until [`Merger::release`] is called, which must be done before the next call.
    pub(super) fn next_chunk(&mut self, n_rows_wanted: usize) -> Result<Option<Chunk>, HistoryError> {
        let mut chunk = Chunk::default();
        while let Some(&top) = self.heap.first() {
            let (sheet, row) = (self.cursors[top].sheet, self.cursors[top].row);
            let n_missing = n_rows_wanted.saturating_sub(chunk.n_rows);
            let is_full = n_missing == 0;
            if is_full && !chunk.last.is_some_and(|last| self.is_same(last, (sheet, row))) {
                break;
            }
            let end = self.run_end(top, n_missing.max(1));
            self.add_run(&mut chunk, sheet, row..end);
            self.cursors[top].row = end;
            if end == self.pool[sheet].keys.entity.len() && !self.load(top)? {
                self.heap.swap_remove(0);
            }
            self.sift_down(0);
        }
        self.close_group(&mut chunk);
        Ok((chunk.n_rows > 0).then_some(chunk))
    }

    /// Forgets the sheets that no cursor is at.
    pub(super) fn release(&mut self) {
        let mut old: Vec<Option<Prepared>> = std::mem::take(&mut self.pool).into_iter().map(Some).collect();
        for &idx in &self.heap {
            let cursor = &mut self.cursors[idx];
            let sheet = old[cursor.sheet].take().expect("each cursor is at a sheet of its own");
            cursor.sheet = self.pool.len();
            self.pool.push(sheet);
        }
    }

    /// Moves a cursor to its next sheet with rows. Is there one?
    fn load(&mut self, idx: usize) -> Result<bool, HistoryError> {
        loop {
            let Some(sheet) = self.cursors[idx].sheets.next().transpose()? else { return Ok(false) };
            if sheet.batch.num_rows() == 0 {
                continue;
            }
            if let Some(prepared) = (self.prepare)(&sheet)? {
                self.pool.push(prepared);
                (self.cursors[idx].sheet, self.cursors[idx].row) = (self.pool.len() - 1, 0);
                return Ok(true);
            }
        }
    }

    /// Of two cursors, is the first row of `a` before that of `b`? Of equal ones the older source's is.
    fn is_before(&self, a: usize, b: usize) -> bool {
        self.cmp_at(a, self.cursors[a].row, b) == Ordering::Less
    }

    fn cmp_at(&self, a: usize, row: usize, b: usize) -> Ordering {
        let (x, y) = (&self.cursors[a], &self.cursors[b]);
        self.pool[x.sheet].keys.cmp(row, &self.pool[y.sheet].keys, y.row).then_with(|| a.cmp(&b))
    }

    fn sift_down(&mut self, mut place: usize) {
        loop {
            let children = [2 * place + 1, 2 * place + 2].into_iter().filter(|c| *c < self.heap.len());
            let Some(first) = children.reduce(|a, b| if self.is_before(self.heap[b], self.heap[a]) { b } else { a }) else { return };
            if !self.is_before(self.heap[first], self.heap[place]) {
                return;
            }
            self.heap.swap(first, place);
            place = first;
        }
    }

    /// Where the rows of the top cursor that are before those of all others end, at most `n_max` further.
    fn run_end(&self, top: usize, n_max: usize) -> usize {
        let cursor = &self.cursors[top];
        let end = self.pool[cursor.sheet].keys.entity.len().min(cursor.row + n_max);
        let rivals = [1, 2].into_iter().filter_map(|place| self.heap.get(place).copied());
        let Some(rival) = rivals.reduce(|a, b| if self.is_before(b, a) { b } else { a }) else { return end };
        let is_before = |row: usize| self.cmp_at(top, row, rival) == Ordering::Less;
        // The first row is before; gallop, then halve.
        let (mut known, mut step) = (cursor.row, 1);
        let mut limit = end;
        while known + step < end {
            if !is_before(known + step) {
                limit = known + step;
                break;
            }
            known += step;
            step *= 2;
        }
        let (mut from, mut to) = (known + 1, limit);
        while from < to {
            let middle = usize::midpoint(from, to);
            if is_before(middle) {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        from.min(end)
    }

    fn is_same(&self, a: (usize, usize), b: (usize, usize)) -> bool {
        self.pool[a.0].keys.is_same(a.1, &self.pool[b.0].keys, b.1, self.same)
    }

    fn add_run(&self, chunk: &mut Chunk, sheet: usize, rows: std::ops::Range<usize>) {
        let mut from = rows.start;
        let end = rows.end;
        for row in rows {
            if chunk.last.is_some_and(|last| self.is_same(last, (sheet, row))) {
                chunk.push_run(sheet, from..row);
                if chunk.group.is_empty() {
                    let last = chunk.pop_row();
                    chunk.group.push(last);
                }
                chunk.group.push((sheet, row));
                from = row + 1;
            } else if !chunk.group.is_empty() {
                self.close_group(chunk);
            }
            chunk.last = Some((sheet, row));
        }
        chunk.push_run(sheet, from..end);
    }

    /// Makes rows of the group at the end.
    fn close_group(&self, chunk: &mut Chunk) {
        let mut group = std::mem::take(&mut chunk.group);
        if group.is_empty() {
            return;
        }
        if self.same == Same::Keys {
            chunk.push_one(group);
            return;
        }
        let dataset = |&(sheet, row): &(usize, usize)| self.pool[sheet].keys.dataset(row);
        // Stable: they are in the order of their recorded time and, where that is the same, of their age.
        group.sort_by(|a, b| dataset(a).cmp(&dataset(b)));
        for rows in group.chunk_by(|a, b| dataset(a) == dataset(b)) {
            match rows {
                [(sheet, row)] => chunk.push_run(*sheet, *row..row + 1),
                several => chunk.push_one(several.to_vec()),
            }
        }
    }
}

impl Chunk {
    fn push_run(&mut self, sheet: usize, rows: std::ops::Range<usize>) {
        if rows.is_empty() {
            return;
        }
        self.n_rows += rows.len();
        match self.pieces.last_mut() {
            Some(Piece::Run { sheet: s, start, len }) if *s == sheet && *start + *len == rows.start => *len += rows.len(),
            _ => self.pieces.push(Piece::Run { sheet, start: rows.start, len: rows.len() }),
        }
    }

    fn push_one(&mut self, rows: Vec<(usize, usize)>) {
        self.n_rows += 1;
        self.pieces.push(Piece::One(rows));
    }

    /// Takes the last row out again.
    fn pop_row(&mut self) -> (usize, usize) {
        self.n_rows -= 1;
        match self.pieces.pop() {
            Some(Piece::Run { sheet, start, len }) => {
                if len > 1 {
                    self.pieces.push(Piece::Run { sheet, start, len: len - 1 });
                }
                (sheet, start + len - 1)
            }
            _ => unreachable!("a row that is not in a group is the end of a run"),
        }
    }
}
