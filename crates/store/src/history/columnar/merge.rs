//! Sorted sources become files: a seal merges what is in memory, a compaction small files.
//!
//! **Files are cut by calendar.** Rows go to a file of their day (UTC) if that day alone has [`PERIOD_ROWS_MIN`] rows here, else of their
//! month, else of their year if that has so many; all others, and those without observed time, share one. So a load of years does not
//! make thousands of tiny files, and a large city's days are files that can be dropped.
//!
//! **Which files are merged.** Files are in the order in which they were written, and only neighbours are merged, so that newer knowledge
//! stays behind older. [`RUN_MIN`] files of one class of size, and the smaller ones among them, become one; so each fact is rewritten a
//! few times at most, and a table has a file per [`FINAL_ROWS`] of rows and some thirty more. What is closed – nothing was recorded in
//! it for a day – and what is final is rewritten once more with all effort.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringDictionaryBuilder, TimestampMicrosecondArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Int32Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use entity::{Instant, Iri};

use super::super::value::SeenByName;
use super::super::{HistoryError, Segment};
use super::cell::{Meta, is_whole};
use super::gather::Column;
use super::order::{Chunk, Merger, Prepared, Same};
use super::segment::{AttributeColumns, DATASET, DELETED, ENTITY, Metas, OBSERVED, RECORDED};
use super::sheet::{Sheet, Sheets, part_names, union};
use super::write::{Built, Effort, FILE_ROWS_MAX, FileColumn, Footer, SegmentWriter, schema_of};

/// So many files of a class are merged.
pub(super) const RUN_MIN: usize = 8;
/// So many files are merged at once, at most.
const RUN_MAX: usize = 64;
/// Files of so many rows are not merged with others any more.
const FINAL_ROWS: u64 = 1 << 20;
/// The classes of size, from the smallest on: rows from, and below.
const CLASSES: [(u64, u64); 5] = [(0, 256), (256, 2_048), (2_048, 16_384), (16_384, 131_072), (131_072, FINAL_ROWS)];
/// Smaller files that are closed wait for others of their class.
const CLOSED_ROWS_MIN: u64 = 16_384;
/// Rows of a day, month or year that make it worth a file of its own.
pub(super) const PERIOD_ROWS_MIN: u64 = 1 << 20;
/// Rows that are gathered before they are written.
const CHUNK_ROWS: usize = 32_768;

const DAY_US: i64 = 86_400_000_000;

/// What the planner knows of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileInfo {
    pub(super) n_rows: u64,
    pub(super) recorded_to: Instant,
    pub(super) thorough: bool,
}

/// Files to merge, as a range of the list, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    pub(super) files: Range<usize>,
    pub(super) effort: Effort,
}

/// What to do next with the files of a table, which are given in their order; none if all is well.
pub(super) fn plan(files: &[FileInfo]) -> Option<Plan> {
    let effort = |run: &Range<usize>| {
        let files = &files[run.clone()];
        let n_rows: u64 = files.iter().map(|f| f.n_rows).sum();
        if n_rows >= FINAL_ROWS || files.iter().all(|f| f.thorough) { Effort::Thorough } else { Effort::Quick }
    };
    for (from, below) in CLASSES {
        for run in runs(files, |f| f.n_rows < below) {
            if files[run.clone()].iter().filter(|f| f.n_rows >= from).count() >= RUN_MIN {
                return Some(Plan { effort: effort(&run), files: run });
            }
        }
    }
    let newest = files.iter().map(|f| f.recorded_to).max()?;
    let is_closed = |f: &FileInfo| newest.micros_since(f.recorded_to) > DAY_US && f.n_rows >= CLOSED_ROWS_MIN;
    let wants_more = |f: &FileInfo| !f.thorough && (f.n_rows >= FINAL_ROWS || is_closed(f));
    let idx = files.iter().position(wants_more)?;
    let is_with = |f: &&FileInfo| wants_more(f) && f.n_rows < FINAL_ROWS;
    let n_more = if files[idx].n_rows < FINAL_ROWS { files[idx + 1..].iter().take(RUN_MAX - 1).take_while(is_with).count() } else { 0 };
    let mut end = idx + 1;
    let mut n_rows = files[idx].n_rows;
    while end <= idx + n_more && n_rows + files[end].n_rows <= FILE_ROWS_MAX {
        n_rows += files[end].n_rows;
        end += 1;
    }
    Some(Plan { files: idx..end, effort: Effort::Thorough })
}

/// Neighbours that all fit, the last ones of each run if it is too long.
fn runs(files: &[FileInfo], fits: impl Fn(&FileInfo) -> bool) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut start = 0;
    for end in 0..=files.len() {
        if files.get(end).is_some_and(&fits) {
            continue;
        }
        if start < end {
            runs.push(start.max(end.saturating_sub(RUN_MAX))..end);
        }
        start = end + 1;
    }
    runs
}

/// Rows by day of observed time; rows without one are not counted.
#[derive(Default, Debug)]
pub(super) struct Days(BTreeMap<i64, u64>);

impl Days {
    pub(super) fn add_instant(&mut self, at: Instant) {
        self.add(at.micros().div_euclid(DAY_US), 1);
    }

    fn add(&mut self, day: i64, n_rows: u64) {
        *self.0.entry(day).or_default() += n_rows;
    }

    pub(super) fn add_all(&mut self, observed: &TimestampMicrosecondArray) {
        // Neighbours are mostly of the same day.
        let (mut day, mut n) = (i64::MIN, 0);
        for us in observed.iter().flatten() {
            let next = us.div_euclid(DAY_US);
            if next != day {
                if n > 0 {
                    self.add(day, n);
                }
                (day, n) = (next, 0);
            }
            n += 1;
        }
        if n > 0 {
            self.add(day, n);
        }
    }

    /// The days, months and years that have a file of their own, in order.
    fn periods(&self) -> Vec<Range<i64>> {
        let mut periods = Vec::new();
        for years in chunks(&self.0.iter().map(|(d, n)| (*d, *n)).collect::<Vec<_>>(), |day| i64::from(civil(day).0)) {
            for months in chunks(years, |day| i64::from(civil(day).1)) {
                let days: Vec<Range<i64>> = months.iter().filter(|(_, n)| *n >= PERIOD_ROWS_MIN).map(|(d, _)| *d..*d + 1).collect();
                cut(&mut periods, months, days);
            }
            let (from, to) = (years[0].0, years[years.len() - 1].0);
            let inside: Vec<Range<i64>> = drain_from(&mut periods, from);
            debug_assert!(inside.iter().all(|p| p.end <= to + 1));
            cut(&mut periods, years, inside);
        }
        periods.into_iter().map(|days| days.start * DAY_US..days.end * DAY_US).collect()
    }
}

/// Takes the periods that begin at `from` or later out of a list in order.
fn drain_from(periods: &mut Vec<Range<i64>>, from: i64) -> Vec<Range<i64>> {
    let first = periods.partition_point(|p| p.start < from);
    periods.split_off(first)
}

/// Adds `inside` and, if what these leave of `days` is enough for a file, what is between them.
fn cut(periods: &mut Vec<Range<i64>>, days: &[(i64, u64)], mut inside: Vec<Range<i64>>) {
    let is_inside = |day: i64| inside.iter().any(|p| p.contains(&day));
    let left = || days.iter().filter(|(d, _)| !is_inside(*d));
    if left().map(|(_, n)| n).sum::<u64>() >= PERIOD_ROWS_MIN {
        let next_inside = |day: i64| inside.iter().map(|p| p.start).find(|start| *start > day);
        let gaps: Vec<&(i64, u64)> = left().collect();
        let gaps: Vec<Range<i64>> =
            gaps.chunk_by(|a, b| next_inside(a.0) == next_inside(b.0)).map(|run| run[0].0..run[run.len() - 1].0 + 1).collect();
        inside.extend(gaps);
        inside.sort_by_key(|p| p.start);
    }
    periods.extend(inside);
}

fn chunks(days: &[(i64, u64)], key: impl Fn(i64) -> i64) -> impl Iterator<Item = &[(i64, u64)]> {
    days.chunk_by(move |a, b| key(a.0) == key(b.0))
}

/// Year and month of a day since 1970 (the proleptic Gregorian calendar, counted in eras of 400 years from the first of March).
fn civil(day: i64) -> (i32, u32) {
    let day = day + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (i32::try_from(year).unwrap_or(i32::MAX), u32::try_from(month).unwrap_or_default())
}

/// Sorted rows to be merged.
pub(super) struct Source {
    pub(super) sheets: Sheets,
    pub(super) columns: Arc<Vec<FileColumn>>,
    pub(super) n_rows: u64,
}

/// What is to be written.
pub(super) struct Job<'a> {
    pub(super) entity_type: &'a Iri,
    /// Oldest first.
    pub(super) sources: Vec<Source>,
    /// What all their values have in common, also those that were replaced.
    pub(super) seen: SeenByName,
    pub(super) days: Days,
    pub(super) effort: Effort,
}

/// Merges the sources and hands each file to `keep`. `pace` is called after each bit of work; what it returns ends the job.
pub(super) fn write(
    job: Job<'_>,
    pace: &mut dyn FnMut() -> Result<(), HistoryError>,
    keep: &mut dyn FnMut(Built) -> Result<(), HistoryError>,
) -> Result<(), HistoryError> {
    let columns = union(job.sources.iter().map(|s| (s.columns.as_slice(), s.n_rows)));
    let footer = Footer {
        entity_type: job.entity_type.clone(),
        columns: Arc::new(columns),
        seen: job.seen,
        erasures: Vec::new(),
        kept: None,
        thorough: job.effort == Effort::Thorough,
    };
    let schema = schema_of(&footer.columns);
    let target = Arc::clone(&footer.columns);
    let damaged = {
        let entity_type = job.entity_type.clone();
        move |reason: String| HistoryError::Columnar { entity_type: entity_type.clone(), reason }
    };
    let prepare = {
        let (target, damaged) = (Arc::clone(&target), damaged.clone());
        move |sheet: &Sheet| prepared(sheet, &target).map(Some).map_err(&damaged)
    };
    let mut merger = Merger::new(job.sources.into_iter().map(|s| s.sheets).collect(), Same::Keys, prepare)?;
    let periods = job.days.periods();
    // The last one is for all other rows.
    let mut writers: Vec<SegmentWriter> = (0..=periods.len()).map(|_| SegmentWriter::new(footer.clone(), job.effort)).collect();
    while let Some(chunk) = merger.next_chunk(CHUNK_ROWS)? {
        let batch = gathered(&chunk, &merger.pool, &target, &schema).map_err(|e| damaged(e.to_string()))?;
        merger.release();
        for (idx, rows) in split(&batch, &periods).map_err(|e| damaged(e.to_string()))? {
            writers[idx].write(&rows)?;
            if writers[idx].n_rows() >= FILE_ROWS_MAX {
                let full = std::mem::replace(&mut writers[idx], SegmentWriter::new(footer.clone(), job.effort));
                full.finish()?.map_or(Ok(()), &mut *keep)?;
            }
        }
        pace()?;
    }
    for writer in writers {
        writer.finish()?.map_or(Ok(()), &mut *keep)?;
    }
    Ok(())
}

/// The rows of each period, by its index; those of none under the index behind the last.
fn split(batch: &RecordBatch, periods: &[Range<i64>]) -> Result<Vec<(usize, RecordBatch)>, arrow::error::ArrowError> {
    if periods.is_empty() {
        return Ok(vec![(0, batch.clone())]);
    }
    let observed = batch.column(OBSERVED).as_primitive::<TimestampMicrosecondType>();
    let period_of = |us: Option<i64>| {
        let idx = us
            .map(|us| periods.partition_point(|p| p.end <= us))
            .filter(|idx| periods.get(*idx).is_some_and(|p| p.start <= us.unwrap_or(i64::MIN)));
        idx.unwrap_or(periods.len())
    };
    let idxs: Vec<usize> = observed.iter().map(period_of).collect();
    let mut found = idxs.clone();
    found.sort_unstable();
    found.dedup();
    let rows_of = |idx: usize| {
        let mask: BooleanArray = idxs.iter().map(|i| Some(*i == idx)).collect();
        Ok((idx, filter_record_batch(batch, &mask)?))
    };
    found.into_iter().map(rows_of).collect()
}

/// The columns of a sheet as the new file has them. Errors: what cannot be read, in words.
fn prepared(sheet: &Sheet, target: &[FileColumn]) -> Result<Prepared, String> {
    let here: BTreeMap<&Iri, AttributeColumns<'_>> =
        AttributeColumns::all(&sheet.batch, &sheet.columns).into_iter().map(|c| (&c.column.name, c)).collect();
    let array = |name: Option<String>| name.and_then(|n| sheet.batch.column_by_name(&n)).cloned();
    let parts = |column: &FileColumn| {
        let Some(found) = here.get(&column.name) else { return Ok(vec![None, None, None]) };
        let [number, text, meta] = part_names(found.column).map(array);
        let meta = if column.integers == found.column.integers || number.is_none() { meta } else { moved(found, column.integers)? };
        Ok::<_, String>(vec![number, text, meta])
    };
    let attributes = target.iter().map(parts).collect::<Result<_, _>>()?;
    Ok(Prepared::new(&sheet.batch, attributes))
}

/// The third cells under the other rule for whole numbers.
fn moved(columns: &AttributeColumns<'_>, integers: bool) -> Result<Option<ArrayRef>, String> {
    let Some(numbers) = columns.number else { return Ok(None) };
    let mut metas = Metas::default();
    let mut cells = StringDictionaryBuilder::<Int32Type>::new();
    // Only whole numbers change; nearly all have the same cell.
    let mut last: Option<(Meta, Option<String>)> = None;
    for row in 0..numbers.len() {
        let is_moved = numbers.is_valid(row) && is_whole(numbers.value(row));
        if !is_moved {
            cells.append_option(columns.meta.and_then(|few| few.get(row)));
            continue;
        }
        let meta = metas.of(columns, row)?;
        if last.as_ref().is_none_or(|(known, _)| known != meta) {
            last = Some((meta.clone(), meta.moved(columns.column.integers, integers).text()));
        }
        cells.append_option(last.as_ref().and_then(|(_, text)| text.as_deref()));
    }
    Ok(Some(Arc::new(cells.finish())))
}

fn gathered(
    chunk: &Chunk,
    pool: &[Prepared],
    target: &[FileColumn],
    schema: &arrow::datatypes::SchemaRef,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let key = |idx: usize| Column::of_key(chunk, pool, idx);
    let instant = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()));
    let mut arrays = vec![
        key(ENTITY).dictionary(),
        key(DATASET).dictionary(),
        key(OBSERVED).plain(&instant)?,
        key(RECORDED).plain(&instant)?,
        key(DELETED).dictionary(),
    ];
    for (idx, column) in target.iter().enumerate() {
        let of = |part| Column::of_attribute(chunk, pool, idx, part);
        if column.number {
            arrays.push(of(0).plain(&DataType::Float64)?);
        }
        if column.text {
            arrays.push(of(1).plain(&DataType::Utf8)?);
        }
        if column.meta {
            arrays.push(of(2).dictionary());
        }
    }
    RecordBatch::try_new(Arc::clone(schema), arrays)
}

/// Is a file to be merged with others some day?
pub(super) const fn is_small(n_rows: u64) -> bool {
    n_rows < FINAL_ROWS
}

/// What the planner looks at.
pub(super) const fn info_of(segment: &Segment, thorough: bool) -> FileInfo {
    FileInfo { n_rows: segment.n_rows, recorded_to: segment.recorded.1, thorough }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::single_range_in_vec_init, reason = "lists of periods, of which some have one")]

    use super::*;

    fn quick(n_rows: u64) -> FileInfo {
        FileInfo { n_rows, recorded_to: Instant::default(), thorough: false }
    }

    #[test]
    fn small_neighbours_are_merged_with_their_like() {
        check(&[], None);
        check(&[10; 7], None);
        check(&[10; 8], Some(0..8));
        check(&[100_000, 10, 10, 10, 10, 10, 10, 10, 10], Some(1..9));
        check(&[10, 10, 10, 10, 10, 10, 10, 10, 100_000, 10], Some(0..8));
        check(&[10, 100_000, 10, 10, 10, 10, 10, 10, 10], None);
        check(&[300, 300, 300, 300, 300, 300, 300, 10], None);
        check(&[300, 300, 300, 300, 300, 300, 300, 300, 10], Some(0..9));
        check(&[300, 10, 10, 10, 10, 10, 10, 10, 10], Some(1..9));
        check(&[10; 100], Some(36..100));

        #[track_caller]
        fn check(rows: &[u64], want: Option<Range<usize>>) {
            let files: Vec<FileInfo> = rows.iter().map(|n| quick(*n)).collect();
            assert_eq!(plan(&files), want.map(|files| Plan { files, effort: Effort::Quick }), "{rows:?}");
        }
    }

    #[test]
    fn what_is_final_or_closed_is_rewritten_once_with_all_effort() {
        let final_one = quick(FINAL_ROWS);
        assert_eq!(plan(&[final_one, final_one]), Some(Plan { files: 0..1, effort: Effort::Thorough }));
        let done = FileInfo { thorough: true, ..final_one };
        assert_eq!(plan(&[done; 100]), None);
        let on_day = |day: i64, n_rows| FileInfo { recorded_to: Instant::from_micros(day * DAY_US), ..quick(n_rows) };
        let days = [on_day(1, 20_000), on_day(1, 30_000), on_day(3, 20_000), on_day(3, 5)];
        assert_eq!(plan(&days), Some(Plan { files: 0..2, effort: Effort::Thorough }));
        assert_eq!(plan(&days[2..]), None, "nothing is closed before something newer is there");
    }

    #[test]
    fn a_year_of_hourly_seals_leaves_few_files_and_rewrites_little() {
        let (mut files, mut n_rewritten): (Vec<FileInfo>, u64) = (Vec::new(), 0);
        for hour in 0..8_760_i64 {
            // 12 stations, of which one reports every second hour only.
            let n_rows = 11 + hour.unsigned_abs() % 2;
            files.push(FileInfo { recorded_to: Instant::from_secs(hour * 3_600), ..quick(n_rows) });
            while let Some(Plan { files: run, effort }) = plan(&files) {
                let n_rows = files[run.clone()].iter().map(|f| f.n_rows).sum();
                let recorded_to = files[run.end - 1].recorded_to;
                n_rewritten += n_rows;
                files.splice(run, [FileInfo { n_rows, recorded_to, thorough: effort == Effort::Thorough }]);
            }
        }
        assert!(files.len() <= 40, "{files:?}");
        assert!(n_rewritten <= 6 * 8_760 * 12, "{n_rewritten}");
    }

    #[test]
    fn rows_go_to_the_file_of_their_period_and_the_others_share_one() {
        let us: TimestampMicrosecondArray = [None, Some(0), Some(5), Some(10), Some(19), Some(20), Some(40)].into_iter().collect();
        let few: ArrayRef = Arc::new([Some("a"); 7].into_iter().collect::<arrow::array::DictionaryArray<Int32Type>>());
        let recorded: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1; 7]).with_timezone("UTC"));
        let arrays = vec![Arc::clone(&few), Arc::clone(&few), Arc::new(us.with_timezone("UTC")), recorded, few];
        let batch = RecordBatch::try_new(schema_of(&[]), arrays).unwrap();
        let rows = |periods: &[Range<i64>]| {
            let split = split(&batch, periods).unwrap();
            let times = |b: &RecordBatch| b.column(OBSERVED).as_primitive::<TimestampMicrosecondType>().iter().collect::<Vec<_>>();
            split.iter().map(|(idx, b)| (*idx, times(b))).collect::<Vec<_>>()
        };
        assert_eq!(rows(&[]).len(), 1);
        let want = [(0, vec![Some(5)]), (1, vec![Some(10), Some(19)]), (2, vec![None, Some(0), Some(20), Some(40)])];
        assert_eq!(rows(&[5..10, 10..20]), want);
        assert_eq!(rows(&[100..200]), [(1, vec![None, Some(0), Some(5), Some(10), Some(19), Some(20), Some(40)])]);
    }

    #[test]
    fn large_days_months_and_years_have_files_of_their_own() {
        assert_eq!((civil(0), civil(-1), civil(58), civil(59), civil(11_016)), ((1970, 1), (1969, 12), (1970, 2), (1970, 3), (2000, 2)));
        assert_eq!((civil(11_017), civil(-719_162), civil(2_932_896)), ((2000, 3), (1, 1), (9999, 12)));
        check(&[(0, 10), (1, 10)], &[]);
        check(&[(0, PERIOD_ROWS_MIN), (1, 10)], &[0..1]);
        check(&[(0, PERIOD_ROWS_MIN), (1, PERIOD_ROWS_MIN), (40, 3)], &[0..1, 1..2]);
        let month: Vec<(i64, u64)> = (0..31).map(|d| (d, 57_600)).collect();
        check(&month, &[0..31]);
        let months: Vec<(i64, u64)> = (0..59).map(|d| (d, 57_600)).collect();
        check(&months, &[0..31, 31..59]);
        let year: Vec<(i64, u64)> = (0..365).map(|d| (d, 5_000)).collect();
        check(&year, &[0..365]);
        let years: Vec<(i64, u64)> = (0..10_000).map(|d| (d, 10)).collect();
        check(&years, &[]);

        #[track_caller]
        fn check(days: &[(i64, u64)], want: &[Range<i64>]) {
            let mut all = Days::default();
            days.iter().for_each(|(day, n)| all.add(*day, *n));
            let found: Vec<Range<i64>> = all.periods().into_iter().map(|p| p.start / DAY_US..p.end / DAY_US).collect();
            assert_eq!(found, want);
        }
    }
}
