//! A sealed file: what its footer says, which of its parts a query needs, and reading these.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayAccessor, AsArray, BooleanArray, DictionaryArray, Float64Array, StringArray, TimestampMicrosecondArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int32Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use entity::{Instant, Iri};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection,
};
use parquet::file::metadata::{PageIndexPolicy, RowGroupMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::statistics::Statistics;

use super::super::{HistoryError, Segment};
use super::cell::Meta;
use super::files::{BlobFile, Files};
use super::pages::{PAGE_ROWS_MAX, PagesKey};
use super::write::{FOOTER_KEY, FORMAT_VERSION, FileColumn, Footer, KEY_COLUMNS, VERSION_KEY, schema_of};

/// Positions of the key columns, which are the same in every file.
pub(super) const ENTITY: usize = 0;
pub(super) const DATASET: usize = 1;
pub(super) const OBSERVED: usize = 2;
pub(super) const RECORDED: usize = 3;
pub(super) const DELETED: usize = 4;

/// Rows decoded at once.
const BATCH_ROWS: usize = 8_192;

/// An immutable file, checked and ready to be read. Its row-group statistics and page index are in a cache, shared with all others.
#[derive(Debug)]
pub(super) struct OpenSegment {
    pub(super) segment: Segment,
    pub(super) footer: Footer,
    files: Arc<Files>,
    /// Nobody will ask for the file again once the present readers are done.
    is_obsolete: AtomicBool,
    /// The earliest moment of what retention may remove from it, once it has been looked at.
    pub(super) removable_from: OnceLock<Instant>,
}

impl Drop for OpenSegment {
    fn drop(&mut self) {
        if self.is_obsolete.load(Ordering::Acquire)
            && let Err(error) = self.files.delete(&self.segment.file)
        {
            // It is deleted when the history is opened next.
            tracing::warn!(%error, "a merged file of the history was not deleted");
        }
    }
}

/// Which rows a query needs; everything that is not ruled out.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// Only these entities; shared with the filter that the reader keeps.
    pub(super) entities: Option<Arc<BTreeSet<Iri>>>,
    /// Only rows observed in here; none without observed time then.
    pub(super) observed: Option<Range<Instant>>,
    /// Only rows without observed time are looked for. Only whole row groups and pages are left out for this.
    pub(super) unobserved_only: bool,
    /// Only rows recorded at or after.
    pub(super) recorded_from: Option<Instant>,
    /// Only rows recorded at or before.
    pub(super) recorded_to: Option<Instant>,
    /// Only rows of values, not of deletions.
    pub(super) values_only: bool,
}

impl Wanted {
    fn entity(&self, id: &str) -> bool {
        self.entities.as_ref().is_none_or(|wanted| wanted.contains(id))
    }

    fn any_entity_within(&self, min: &str, max: &str) -> bool {
        use std::ops::Bound::Included;
        self.entities.as_ref().is_none_or(|wanted| min <= max && wanted.range::<str, _>((Included(min), Included(max))).next().is_some())
    }

    pub(super) fn observed(&self, at: Option<Instant>) -> bool {
        self.observed.as_ref().is_none_or(|wanted| at.is_some_and(|at| wanted.contains(&at)))
    }

    fn observed_within(&self, range: Option<(Instant, Instant)>) -> bool {
        self.observed.as_ref().is_none_or(|wanted| range.is_some_and(|(min, max)| min < wanted.end && wanted.start <= max))
    }

    pub(super) fn recorded(&self, at: Instant) -> bool {
        self.recorded_within((at, at))
    }

    fn recorded_within(&self, (min, max): (Instant, Instant)) -> bool {
        self.recorded_from.is_none_or(|from| from <= max) && self.recorded_to.is_none_or(|to| min <= to)
    }

    fn row(&self, entity: &str, observed_at: Option<Instant>, recorded_at: Instant, is_value: bool) -> bool {
        (is_value || !self.values_only) && self.observed(observed_at) && self.recorded(recorded_at) && self.entity(entity)
    }
}

/// A row group that a query needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    pub(super) row_group_idx: usize,
    /// Earliest and latest moment of its rows: observed time, or recorded time where there is none. Wider than true if need be.
    pub(super) moments: (Instant, Instant),
    /// Some rows may have a `datasetId`.
    pub(super) has_datasets: bool,
}

/// The columns of attributes to read besides the keys.
#[derive(Clone, Copy)]
pub(super) enum Attributes<'a> {
    All,
    Some(&'a BTreeSet<&'a Iri>),
}

impl OpenSegment {
    /// Checks that the file is there with its size and opens it.
    ///
    /// Errors: it is missing, of another size or content than the manifest says, or of a newer version.
    pub(super) fn open(files: &Arc<Files>, segment: Segment) -> Result<Self, HistoryError> {
        let bytes = files.size(&segment.file)?;
        Self::open_known(files, segment, Some(bytes), None)
    }

    /// The same for a file of which the size is known (none if there is no such file), and perhaps the footer, which was checked then.
    pub(super) fn open_known(
        files: &Arc<Files>,
        segment: Segment,
        bytes: Option<u64>,
        footer: Option<Footer>,
    ) -> Result<Self, HistoryError> {
        let path = files.path(&segment.file);
        let damaged = |reason| HistoryError::Damaged { path: path.clone(), reason };
        let Some(bytes) = bytes else {
            return Err(HistoryError::Io { action: "read", path, source: std::io::ErrorKind::NotFound.into() });
        };
        if bytes != segment.bytes {
            return Err(damaged(format!("it has {bytes} bytes, the manifest says {}", segment.bytes)));
        }
        if let Some(footer) = footer {
            return Ok(Self {
                segment,
                footer,
                files: Arc::clone(files),
                is_obsolete: AtomicBool::new(false),
                removable_from: OnceLock::new(),
            });
        }
        let metadata = load_metadata(files, &segment)?;
        let footer = read_footer(&metadata, &path)?;
        if footer.entity_type != segment.entity_type {
            return Err(damaged(format!(
                "it holds entities of type `{}`, the manifest says `{}`",
                footer.entity_type, segment.entity_type
            )));
        }
        let n_rows = metadata.metadata().file_metadata().num_rows();
        if u64::try_from(n_rows) != Ok(segment.n_rows) {
            return Err(damaged(format!("it has {n_rows} rows, the manifest says {}", segment.n_rows)));
        }
        if metadata.schema().fields() != schema_of(&footer.columns).fields() {
            return Err(damaged("its columns are not those that its footer names".to_owned()));
        }
        files.cache(&segment.file, &metadata);
        Ok(Self { segment, footer, files: Arc::clone(files), is_obsolete: AtomicBool::new(false), removable_from: OnceLock::new() })
    }

    /// Reads the whole file and compares its checksum.
    pub(super) fn verify(&self) -> Result<(), HistoryError> {
        const AT_ONCE: u64 = 1 << 20;
        let mut crc32c = 0;
        let mut from = 0;
        while from < self.segment.bytes {
            let to = self.segment.bytes.min(from + AT_ONCE);
            crc32c = crc32c::crc32c_append(crc32c, &self.files.get(&self.segment.file, from..to)?);
            from = to;
        }
        if crc32c == self.segment.crc32c {
            return Ok(());
        }
        Err(self.damaged(format!("its CRC-32C is {crc32c:08x}, the manifest says {:08x}", self.segment.crc32c)))
    }

    /// The last one who has it deletes the file.
    pub(super) fn delete_when_unused(&self) {
        self.is_obsolete.store(true, Ordering::Release);
    }

    /// Row groups, statistics and page index, read again if the cache has no room for them.
    pub(super) fn metadata(&self) -> Result<ArrowReaderMetadata, HistoryError> {
        if let Some(known) = self.files.cached(&self.segment.file) {
            return Ok(known);
        }
        let metadata = load_metadata(&self.files, &self.segment)?;
        self.files.cache(&self.segment.file, &metadata);
        Ok(metadata)
    }

    pub(super) fn damaged(&self, reason: String) -> HistoryError {
        HistoryError::Damaged { path: self.files.path(&self.segment.file), reason }
    }

    /// The row groups that may hold wanted rows.
    pub(super) fn units(&self, wanted: &Wanted) -> Result<Vec<Unit>, HistoryError> {
        if !wanted.recorded_within(self.segment.recorded) || !wanted.observed_within(self.segment.observed) {
            return Ok(Vec::new());
        }
        let metadata = self.metadata()?;
        let groups = metadata.metadata().row_groups().iter().enumerate();
        let unit = |(row_group_idx, g): (usize, &RowGroupMetaData)| {
            let n_without = g.column(DATASET).statistics().and_then(Statistics::null_count_opt);
            let has_datasets = n_without.is_none_or(|n| u64::try_from(g.num_rows()) != Ok(n));
            Some(Unit { row_group_idx, moments: self.moments_of(g, wanted)?, has_datasets })
        };
        Ok(groups.filter_map(unit).collect())
    }

    /// The moments of a row group; none if it holds no wanted row.
    fn moments_of(&self, group: &RowGroupMetaData, wanted: &Wanted) -> Option<(Instant, Instant)> {
        let instants = |idx: usize| match group.column(idx).statistics() {
            Some(Statistics::Int64(s)) => {
                Some((Instant::from_micros(*s.min_opt()?), Instant::from_micros(*s.max_opt()?))).map(|range| (range, s.null_count_opt()))
            }
            _ => None,
        };
        if let Some(Statistics::ByteArray(ids)) = group.column(ENTITY).statistics()
            && let (Some(min), Some(max)) = (ids.min_opt(), ids.max_opt())
            && let (Ok(min), Ok(max)) = (min.as_utf8(), max.as_utf8())
            && !wanted.any_entity_within(min, max)
        {
            return None;
        }
        let recorded = instants(RECORDED).map_or(self.segment.recorded, |(range, _)| range);
        let (observed, n_unobserved) = match instants(OBSERVED) {
            Some((range, n)) => (Some(range), n),
            None => (self.segment.observed, None),
        };
        if !wanted.recorded_within(recorded) || !wanted.observed_within(observed) || (wanted.unobserved_only && n_unobserved == Some(0)) {
            return None;
        }
        Some(match observed {
            Some(observed) if n_unobserved == Some(0) || wanted.observed.is_some() => observed,
            Some(observed) => (observed.0.min(recorded.0), observed.1.max(recorded.1)),
            None => recorded,
        })
    }

    /// Calls `take` with the wanted rows of some row groups, in the order of the file.
    pub(super) fn read(
        self: &Arc<Self>,
        row_group_idxs: Vec<usize>,
        wanted: &Wanted,
        attributes: Attributes<'_>,
        mut take: impl FnMut(RecordBatch) -> Result<(), HistoryError>,
    ) -> Result<(), HistoryError> {
        for batch in self.stream(row_group_idxs, wanted.clone(), attributes)? {
            take(batch?)?;
        }
        Ok(())
    }

    /// The wanted rows of some row groups, in the order of the file. One row group is read at a time.
    pub(super) fn stream(
        self: &Arc<Self>,
        row_group_idxs: Vec<usize>,
        wanted: Wanted,
        attributes: Attributes<'_>,
    ) -> Result<RowStream, HistoryError> {
        let (metadata, leaves) = (self.metadata()?, self.leaves(attributes));
        Ok(RowStream {
            segment: Arc::clone(self),
            metadata,
            leaves,
            wanted,
            row_groups: row_group_idxs.into_iter(),
            reader: None,
            known: VecDeque::new(),
            whole_pages: false,
        })
    }

    /// The rows of the pages that may hold wanted rows, in the order of the file; other rows of these pages, too. Only these key columns, in
    /// their order, and the values (not the rest) of these attributes.
    pub(super) fn pages(
        self: &Arc<Self>,
        row_group_idxs: Vec<usize>,
        wanted: &Wanted,
        keys: &[usize],
        attributes: &BTreeSet<&Iri>,
    ) -> Result<RowStream, HistoryError> {
        let mut leaves = keys.to_vec();
        let mut idx = KEY_COLUMNS.len();
        for column in self.footer.columns.iter() {
            let n_values = usize::from(column.number) + usize::from(column.text);
            if attributes.contains(&column.name) {
                leaves.extend(idx..idx + n_values);
            }
            idx += n_values + usize::from(column.meta);
        }
        let stream = self.stream(row_group_idxs, wanted.clone(), Attributes::Some(&BTreeSet::new()))?;
        Ok(RowStream { leaves, whole_pages: true, ..stream })
    }

    fn leaves(&self, attributes: Attributes<'_>) -> Vec<usize> {
        let mut leaves: Vec<usize> = (0..KEY_COLUMNS.len()).collect();
        let mut idx = KEY_COLUMNS.len();
        for column in self.footer.columns.iter() {
            let n = usize::from(column.number) + usize::from(column.text) + usize::from(column.meta);
            let take = match attributes {
                Attributes::All => true,
                Attributes::Some(names) => names.contains(&column.name),
            };
            if take {
                leaves.extend(idx..idx + n);
            }
            idx += n;
        }
        leaves
    }

    /// The rows of a row group in pages that may hold wanted ones, from the page index; none for all.
    pub(super) fn selected(metadata: &ArrowReaderMetadata, group_idx: usize, wanted: &Wanted) -> Option<Vec<Range<usize>>> {
        let (columns, offsets) = (metadata.metadata().column_index()?, metadata.metadata().offset_index()?);
        let n_rows = usize::try_from(metadata.metadata().row_group(group_idx).num_rows()).ok()?;
        let mut ranges: Vec<Range<usize>> = std::iter::once(0..n_rows).collect();
        for column_idx in [ENTITY, OBSERVED, RECORDED] {
            let index = &columns[group_idx][column_idx];
            let pages = offsets[group_idx][column_idx].page_locations();
            let starts: Vec<usize> = pages.iter().map(|p| usize::try_from(p.first_row_index)).collect::<Result<_, _>>().ok()?;
            let kept = starts.iter().enumerate().filter(|&(page_idx, _)| page_wanted(index, page_idx, column_idx, wanted));
            let kept = kept.map(|(page_idx, &start)| start..starts.get(page_idx + 1).copied().unwrap_or(n_rows)).collect();
            ranges = intersection(&ranges, kept);
        }
        Some(ranges)
    }
}

/// The wanted rows of a segment as they are read.
pub(super) struct RowStream {
    segment: Arc<OpenSegment>,
    metadata: ArrowReaderMetadata,
    leaves: Vec<usize>,
    wanted: Wanted,
    row_groups: std::vec::IntoIter<usize>,
    reader: Option<ParquetRecordBatchReader>,
    /// What is left of rows from the cache.
    known: VecDeque<RecordBatch>,
    /// Rows of the pages read that are not wanted are left in.
    whole_pages: bool,
}

impl RowStream {
    /// Begins to read a row group: the pages that may hold wanted rows. A few rows are taken from the cache, or put there.
    fn begin(&mut self, group_idx: usize) -> Result<(), HistoryError> {
        let n_rows = usize::try_from(self.metadata.metadata().row_group(group_idx).num_rows()).unwrap_or(usize::MAX);
        let all = || std::iter::once(0..n_rows).collect();
        let rows: Vec<Range<usize>> = OpenSegment::selected(&self.metadata, group_idx, &self.wanted).unwrap_or_else(all);
        if rows.is_empty() {
            return Ok(());
        }
        if rows.iter().map(Range::len).sum::<usize>() > PAGE_ROWS_MAX {
            self.reader = Some(self.open(group_idx, rows)?);
            return Ok(());
        }
        let OpenSegment { segment, files, .. } = &*self.segment;
        let key = PagesKey { file: segment.file.clone(), row_group_idx: group_idx, leaves: self.leaves.clone(), rows };
        let batches = match files.pages.get(&key) {
            Some(known) => known,
            None => {
                let reader = self.open(group_idx, key.rows.clone())?;
                let read: Arc<[RecordBatch]> = reader.collect::<Result<_, _>>().map_err(|e| self.segment.damaged(e.to_string()))?;
                files.pages.insert(key, Arc::clone(&read));
                read
            }
        };
        self.known.extend(batches.iter().cloned());
        Ok(())
    }

    /// A reader of some rows of a row group, whose pages are fetched at once.
    fn open(&self, group_idx: usize, rows: Vec<Range<usize>>) -> Result<ParquetRecordBatchReader, HistoryError> {
        let OpenSegment { segment, files, .. } = &*self.segment;
        let group = self.metadata.metadata().row_group(group_idx);
        let n_rows = usize::try_from(group.num_rows()).unwrap_or(usize::MAX);
        let selected = Some(rows).filter(|rows| !matches!(rows.as_slice(), [all] if *all == (0..n_rows)));
        let mut parts = Vec::new();
        for &leaf in &self.leaves {
            let (start, len) = group.column(leaf).byte_range();
            let pages = self.metadata.metadata().offset_index().map(|o| o[group_idx][leaf].page_locations());
            match (&selected, pages) {
                (Some(ranges), Some(pages)) if !pages.is_empty() => {
                    let first_row =
                        |page: usize| pages.get(page).map_or(n_rows, |p| usize::try_from(p.first_row_index).unwrap_or_default());
                    let offset = |page: usize| u64::try_from(pages[page].offset).unwrap_or_default();
                    // The dictionary is before the first page.
                    parts.push(start..offset(0));
                    let is_wanted = |page: &usize| ranges.iter().any(|r| r.start < first_row(page + 1) && first_row(*page) < r.end);
                    let bytes =
                        |page: usize| offset(page)..offset(page) + u64::try_from(pages[page].compressed_page_size).unwrap_or_default();
                    parts.extend((0..pages.len()).filter(is_wanted).map(bytes));
                }
                _ => parts.push(start..start + len),
            }
        }
        let file = BlobFile::fetch(files, segment, parts)?;
        let schema = self.metadata.parquet_schema();
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
            .with_batch_size(BATCH_ROWS)
            .with_row_groups(vec![group_idx])
            .with_projection(ProjectionMask::leaves(schema, self.leaves.iter().copied()));
        if let Some(ranges) = selected {
            builder = builder.with_row_selection(RowSelection::from_consecutive_ranges(ranges.into_iter(), n_rows));
        }
        builder.build().map_err(|e| self.segment.damaged(e.to_string()))
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>, HistoryError> {
        loop {
            let batch = match (self.known.pop_front(), &mut self.reader) {
                (Some(batch), _) => batch,
                (None, Some(reader)) => match reader.next() {
                    Some(batch) => batch.map_err(|e| self.segment.damaged(e.to_string()))?,
                    None => {
                        self.reader = None;
                        continue;
                    }
                },
                (None, None) => {
                    let Some(group_idx) = self.row_groups.next() else { return Ok(None) };
                    self.begin(group_idx)?;
                    continue;
                }
            };
            let batch =
                if self.whole_pages { batch } else { wanted_of(batch, &self.wanted).map_err(|e| self.segment.damaged(e.to_string()))? };
            if batch.num_rows() > 0 {
                return Ok(Some(batch));
            }
        }
    }
}

impl Iterator for RowStream {
    type Item = Result<RecordBatch, HistoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}

/// The wanted rows of a batch.
pub(super) fn wanted_of(batch: RecordBatch, wanted: &Wanted) -> Result<RecordBatch, arrow::error::ArrowError> {
    let has_deletions = || batch.column(DELETED).null_count() < batch.num_rows();
    let takes_all = wanted.entities.is_none()
        && wanted.observed.is_none()
        && wanted.recorded_from.is_none()
        && wanted.recorded_to.is_none()
        && !(wanted.values_only && has_deletions());
    if takes_all {
        return Ok(batch);
    }
    let mask = mask_of(&batch, wanted);
    if mask.true_count() == mask.len() { Ok(batch) } else { filter_record_batch(&batch, &mask) }
}

fn load_metadata(files: &Arc<Files>, segment: &Segment) -> Result<ArrowReaderMetadata, HistoryError> {
    let damaged = |reason| HistoryError::Damaged { path: files.path(&segment.file), reason };
    let file = BlobFile::fetch_end(files, segment)?;
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    ArrowReaderMetadata::load(&file, options).map_err(|e| damaged(e.to_string()))
}

fn read_footer(metadata: &ArrowReaderMetadata, path: &Path) -> Result<Footer, HistoryError> {
    let damaged = |reason| HistoryError::Damaged { path: path.to_owned(), reason };
    let pairs = metadata.metadata().file_metadata().key_value_metadata();
    let value = |key: &str| {
        let pair = pairs.into_iter().flatten().find(|kv| kv.key == key);
        pair.and_then(|kv| kv.value.as_deref()).ok_or_else(|| damaged(format!("its footer has no `{key}`")))
    };
    let version = value(VERSION_KEY)?;
    let found: u32 = version.parse().map_err(|_| damaged(format!("format version `{version}` is not a number")))?;
    if found > FORMAT_VERSION {
        return Err(HistoryError::TooNew { path: path.to_owned(), found, supported: FORMAT_VERSION });
    }
    serde_json::from_str(value(FOOTER_KEY)?).map_err(|e| damaged(format!("footer `{FOOTER_KEY}`: {e}")))
}

fn page_wanted(index: &ColumnIndexMetaData, page_idx: usize, column_idx: usize, wanted: &Wanted) -> bool {
    match index {
        ColumnIndexMetaData::BYTE_ARRAY(ids) => match (ids.min_value(page_idx), ids.max_value(page_idx)) {
            (Some(min), Some(max)) => match (std::str::from_utf8(min), std::str::from_utf8(max)) {
                (Ok(min), Ok(max)) => wanted.any_entity_within(min, max),
                _ => true,
            },
            _ => true,
        },
        ColumnIndexMetaData::INT64(times) => {
            let range = times.min_value(page_idx).zip(times.max_value(page_idx));
            let range = range.map(|(min, max)| (Instant::from_micros(*min), Instant::from_micros(*max)));
            if column_idx == OBSERVED {
                wanted.observed_within(range) && !(wanted.unobserved_only && times.null_count(page_idx) == Some(0))
            } else {
                range.is_none_or(|r| wanted.recorded_within(r))
            }
        }
        _ => true,
    }
}

/// Both lists are ascending and without overlap, and so is the result; neighbours are joined.
fn intersection(a: &[Range<usize>], b: Vec<Range<usize>>) -> Vec<Range<usize>> {
    let mut both: Vec<Range<usize>> = Vec::new();
    for r in b {
        let from = a.partition_point(|x| x.end <= r.start);
        for x in a[from..].iter().take_while(|x| x.start < r.end) {
            let common = x.start.max(r.start)..x.end.min(r.end);
            match both.last_mut() {
                Some(last) if last.end == common.start => last.end = common.end,
                _ => both.push(common),
            }
        }
    }
    both
}

pub(super) fn mask_of(batch: &RecordBatch, wanted: &Wanted) -> BooleanArray {
    let keys = Keys::of(batch);
    // An id is compared once per entry of the dictionary, not once per row.
    let ids = keys.entity.values();
    let entity: Vec<bool> = (0..ids.len()).map(|i| ids.is_valid(i) && wanted.entity(ids.value(i))).collect();
    let any = Wanted { entities: None, ..wanted.clone() };
    let keep =
        |row| entity[keys.entity.key_of(row)] && any.row("", keys.observed_at(row), keys.recorded_at(row), keys.deleted.get(row).is_none());
    (0..batch.num_rows()).map(|row| Some(keep(row))).collect()
}

/// The key columns of a batch, sealed or just built.
pub(super) struct Keys<'a> {
    pub(super) entity: Few<'a>,
    pub(super) dataset: Few<'a>,
    pub(super) deleted: Few<'a>,
    observed: &'a TimestampMicrosecondArray,
    recorded: &'a TimestampMicrosecondArray,
}

impl<'a> Keys<'a> {
    pub(super) fn of(batch: &'a RecordBatch) -> Self {
        Self {
            entity: Few::of(batch.column(ENTITY)),
            dataset: Few::of(batch.column(DATASET)),
            deleted: Few::of(batch.column(DELETED)),
            observed: batch.column(OBSERVED).as_primitive::<TimestampMicrosecondType>(),
            recorded: batch.column(RECORDED).as_primitive::<TimestampMicrosecondType>(),
        }
    }

    pub(super) fn observed_at(&self, row: usize) -> Option<Instant> {
        self.observed.is_valid(row).then(|| Instant::from_micros(self.observed.value(row)))
    }

    pub(super) fn recorded_at(&self, row: usize) -> Instant {
        Instant::from_micros(self.recorded.value(row))
    }
}

/// A column of texts of which there are few different ones.
#[derive(Clone, Copy)]
pub(super) struct Few<'a> {
    array: &'a DictionaryArray<Int32Type>,
    values: &'a StringArray,
}

impl<'a> Few<'a> {
    fn of(array: &'a dyn Array) -> Self {
        let array = array.as_dictionary::<Int32Type>();
        Self { array, values: array.values().as_string::<i32>() }
    }

    pub(super) fn values(self) -> &'a StringArray {
        self.values
    }

    /// Index of a row's text in [`Few::values`]; the row must have one.
    pub(super) fn key_of(self, row: usize) -> usize {
        usize::try_from(self.array.keys().value(row)).expect("dictionary keys are positive")
    }

    /// Has no row a text?
    pub(super) fn is_empty(self) -> bool {
        self.array.null_count() == self.array.len()
    }

    pub(super) fn get(self, row: usize) -> Option<&'a str> {
        self.array.is_valid(row).then(|| ArrayAccessor::value(&self.values, self.key_of(row)))
    }
}

/// The columns of one attribute in a batch, as far as they are there.
#[derive(Clone, Copy)]
pub(super) struct AttributeColumns<'a> {
    pub(super) column: &'a FileColumn,
    pub(super) number: Option<&'a Float64Array>,
    pub(super) text: Option<&'a StringArray>,
    pub(super) meta: Option<Few<'a>>,
}

impl<'a> AttributeColumns<'a> {
    /// All attributes of a batch.
    pub(super) fn all(batch: &'a RecordBatch, columns: &'a [FileColumn]) -> Vec<Self> {
        let schema = batch.schema();
        let idx_by_name: HashMap<&str, usize> = schema.fields().iter().enumerate().map(|(i, f)| (f.name().as_str(), i)).collect();
        let find =
            |is_there: bool, name: String| is_there.then(|| idx_by_name.get(name.as_str()).copied()).flatten().map(|i| batch.column(i));
        let of = |column: &'a FileColumn| Self {
            column,
            number: find(column.number, column.number_name()).map(|a| a.as_primitive()),
            text: find(column.text, column.text_name()).map(|a| a.as_string()),
            meta: find(column.meta, column.meta_name()).map(|a| Few::of(a)),
        };
        columns.iter().map(of).filter(|c| c.number.is_some() || c.text.is_some()).collect()
    }

    pub(super) fn number_at(&self, row: usize) -> Option<f64> {
        self.number.filter(|a| a.is_valid(row)).map(|a| a.value(row))
    }

    pub(super) fn text_at(&self, row: usize) -> Option<&'a str> {
        self.text.filter(|a| a.is_valid(row)).map(|a| a.value(row))
    }
}

/// The meta cells of one attribute in one batch, each different one parsed once, when it is first met.
#[derive(Default)]
pub(super) struct Metas {
    none: Meta,
    by_key: HashMap<usize, Meta>,
}

impl Metas {
    pub(super) fn of(&mut self, columns: &AttributeColumns<'_>, row: usize) -> Result<&Meta, String> {
        let Some((few, text)) = columns.meta.and_then(|few| Some((few, few.get(row)?))) else { return Ok(&self.none) };
        match self.by_key.entry(few.key_of(row)) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(slot) => Ok(slot.insert(Meta::parse(text)?)),
        }
    }
}
