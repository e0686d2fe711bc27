//! Numbers over time, made few: count, sum, extremes and so on of each bucket of time, without the SQL engine.
//!
//! What an aggregate means is defined by [`over_scan`], which looks at every row of a [`History::scan`](super::History::scan); an engine may be
//! faster, but gives the same answer.
//!
//! **Which values count.** Of each moment (entity, `datasetId`, observed time) the latest value known, if it is a number; values that are
//! no numbers, and values without observed time, are left out. All `datasetId`s of an attribute count together.
//!
//! **Sums are compensated**: what a 64-bit sum rounds off is kept beside it and added in the end. So the answer does not depend on the
//! order of the values or on whether a part of them was summed up before, unless it lies within 2^-100 of the middle between two numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Builder, Int64Builder, StringDictionaryBuilder, TimestampMicrosecondBuilder};
use arrow::datatypes::{DataType, Field, Float64Type, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use entity::{Instant, Iri};

use super::{Bucket, ColumnKind, HistoryError, HistoryScan, HistoryTable, RollupWidth, SCAN_BATCH_ROWS_MAX};

/// Rows of one answer: two years of hours of some three hundred entities. More is asked for in parts.
pub const AGGREGATE_ROWS_MAX: usize = 5_000_000;
/// Attributes of one question.
pub const AGGREGATE_ATTRIBUTES_MAX: usize = 1_000;

/// What has a line of its own in the answer of [`History::group`](super::History::group).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Groups {
    /// Each bucket with a number, as in [`History::aggregate`](super::History::aggregate): those that only roll-ups still know, too.
    Known,
    /// Each bucket with a number in a [`History::scan`](super::History::scan).
    Numbers,
    /// Each bucket in which a [`History::scan`](super::History::scan) has a row, be there a number in it or not: what SQL groups. Without an interval
    /// rows without observed time are in it too: in a bucket of their own (null), or in the only one if time is not cut. After `bucket_start` there is
    /// a column `rows` with their number (`Int64`).
    Rows,
}

/// Name of the column with the number of rows.
pub const ROWS_COLUMN: &str = "rows";

/// The start of the bucket of what has no observed time, before all others.
pub(super) const UNOBSERVED: i64 = i64::MIN;

/// What is said about the values of a bucket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// How many (`Int64`, never null).
    Count,
    /// Their sum.
    Sum,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// Sum divided by count.
    Mean,
    /// The sum of their squares.
    SumOfSquares,
    /// The standard deviation of these values as a whole population (0 of a single one).
    StandardDeviation,
    /// The one observed first; of several at that time the one of the first entity, then `datasetId`.
    First,
    /// The one observed last; of several at that time the one of the last entity, then `datasetId`.
    Last,
    /// When the first was observed (`Timestamp` in µs, UTC).
    FirstAt,
    /// When the last was observed (`Timestamp` in µs, UTC).
    LastAt,
}

impl Measure {
    /// Every measure, in the order of their columns.
    pub const ALL: [Self; 11] = [
        Self::Count,
        Self::Sum,
        Self::Min,
        Self::Max,
        Self::Mean,
        Self::SumOfSquares,
        Self::StandardDeviation,
        Self::First,
        Self::Last,
        Self::FirstAt,
        Self::LastAt,
    ];

    /// How its column is called, after the attribute and `|`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Min => "min",
            Self::Max => "max",
            Self::Mean => "mean",
            Self::SumOfSquares => "sumsq",
            Self::StandardDeviation => "stddev",
            Self::First => "first",
            Self::Last => "last",
            Self::FirstAt => "first_at",
            Self::LastAt => "last_at",
        }
    }

    fn data_type(self) -> DataType {
        match self {
            Self::Count => DataType::Int64,
            Self::FirstAt | Self::LastAt => instant_type(),
            _ => DataType::Float64,
        }
    }
}

fn instant_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// A question about the numbers of a table.
#[derive(Clone, PartialEq, Debug)]
pub struct AggregateQuery {
    /// The entity type.
    pub entity_type: Iri,
    /// Of which attributes, each once.
    pub attributes: Vec<Iri>,
    /// Only these entities; none for all.
    pub entities: Option<Vec<Iri>>,
    /// Only values observed in this interval `[start, end)`; none for all time.
    pub observed: Option<Range<Instant>>,
    /// How time is cut.
    pub bucket: Bucket,
    /// A row per entity and bucket, or one per bucket over all entities together.
    pub per_entity: bool,
    /// What is asked, in the order of the columns of each attribute; each once.
    pub measures: Vec<Measure>,
    /// As it was known at this recorded time; none for now.
    pub as_of: Option<Instant>,
}

impl AggregateQuery {
    /// The schema of the answer: `entity_id` (a dictionary of texts; only if a row is per entity), `bucket_start` (`Timestamp` in µs, UTC), and
    /// per attribute and measure `<attribute>|<measure>`, null where a bucket has no number of that attribute.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        let mut fields = Vec::new();
        if self.per_entity {
            fields.push(Field::new("entity_id", DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)), false));
        }
        fields.push(Field::new("bucket_start", instant_type(), false));
        for name in &self.attributes {
            for measure in &self.measures {
                fields.push(Field::new(format!("{name}|{}", measure.name()), measure.data_type(), *measure != Measure::Count));
            }
        }
        Arc::new(Schema::new(fields))
    }

    /// The schema of the answer of [`History::group`](super::History::group).
    #[must_use]
    pub fn group_schema(&self, groups: Groups) -> SchemaRef {
        let plain = self.schema();
        if groups != Groups::Rows {
            return plain;
        }
        let mut fields: Vec<Arc<Field>> = plain.fields().iter().cloned().collect();
        let at = usize::from(self.per_entity);
        fields[at] = Arc::new(Field::new("bucket_start", instant_type(), true));
        fields.insert(at + 1, Arc::new(Field::new(ROWS_COLUMN, DataType::Int64, false)));
        Arc::new(Schema::new(fields))
    }

    /// Errors: [`HistoryError::Refused`] for a question that has no answer or too large a one.
    pub(super) fn check(&self) -> Result<(), HistoryError> {
        if self.attributes.is_empty() || self.measures.is_empty() {
            return Err(HistoryError::Refused { what: "an aggregate needs at least one attribute and one measure".to_owned() });
        }
        self.check_groups()
    }

    /// The same, where rows are enough.
    pub(super) fn check_groups(&self) -> Result<(), HistoryError> {
        let refused = |what: String| Err(HistoryError::Refused { what });
        if let Some(fault) = self.bucket.fault() {
            return refused(fault);
        }
        if self.attributes.len() > AGGREGATE_ATTRIBUTES_MAX {
            let n = self.attributes.len();
            return refused(format!("an aggregate of {n} attributes is more than the limit of {AGGREGATE_ATTRIBUTES_MAX}"));
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = self.attributes.iter().find(|name| !names.insert(*name)) {
            return refused(format!("attribute `{twice}` is asked for twice"));
        }
        let mut measures = BTreeSet::new();
        if let Some(twice) = self.measures.iter().find(|m| !measures.insert(**m)) {
            return refused(format!("measure `{}` is asked for twice", twice.name()));
        }
        if let Some(observed) = &self.observed
            && observed.start >= observed.end
        {
            return refused(format!("the interval from {} to {} is empty", observed.start, observed.end));
        }
        Ok(())
    }

    /// The scan that has the rows of these groups.
    pub(super) fn scan_of(&self, groups: Groups) -> HistoryScan {
        match groups {
            Groups::Known | Groups::Numbers => self.scan(),
            Groups::Rows => HistoryScan { observed: self.observed.clone(), ..self.scan() },
        }
    }

    /// The scan that has the values.
    pub(super) fn scan(&self) -> HistoryScan {
        HistoryScan {
            entity_type: self.entity_type.clone(),
            attributes: self.attributes.clone(),
            entities: self.entities.clone(),
            // All time is more than the absence of an interval: rows without observed time are left out.
            observed: Some(self.observed.clone().unwrap_or(Instant::MIN..Instant::MAX)),
            as_of: self.as_of,
        }
    }

    /// The start of the bucket that a moment lies in, or of the one of what has no observed time.
    pub(super) fn bucket_start(&self, at_us: i64) -> i64 {
        match self.bucket {
            Bucket::Whole => self.bucket.of(0, self.observed.as_ref()).start,
            _ if at_us == UNOBSERVED => UNOBSERVED,
            bucket => bucket.of(at_us, self.observed.as_ref()).start,
        }
    }

    pub(super) fn needs_squares(&self) -> bool {
        self.measures.iter().any(|m| matches!(m, Measure::SumOfSquares | Measure::StandardDeviation))
    }
}

/// The answer to an [`AggregateQuery`].
#[derive(Clone, PartialEq, Debug)]
pub struct Aggregates {
    /// Rows in the order of entities, then buckets; buckets without a number are absent. See [`AggregateQuery::schema`].
    pub batches: Vec<RecordBatch>,
    /// Where they come from.
    pub sources: Sources,
}

/// A cell of an answer.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Cell {
    /// A count.
    Count(i64),
    /// Any other number.
    Number(f64),
    /// A time.
    Time(Instant),
}

impl Aggregates {
    /// How many rows there are.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// The cells of a column of the schema (after `entity_id`), for those who do not speak Arrow; none where there is no value.
    ///
    /// # Panics
    /// If there is no such column of numbers or times.
    #[must_use]
    pub fn cells(&self, column: usize) -> Vec<Option<Cell>> {
        let mut cells = Vec::with_capacity(self.n_rows());
        for batch in &self.batches {
            let column = batch.column(column);
            let cell = |row: usize| {
                if let Some(counts) = column.as_primitive_opt::<Int64Type>() {
                    Cell::Count(counts.value(row))
                } else if let Some(times) = column.as_primitive_opt::<TimestampMicrosecondType>() {
                    Cell::Time(Instant::from_micros(times.value(row)))
                } else {
                    Cell::Number(column.as_primitive::<Float64Type>().value(row))
                }
            };
            cells.extend((0..batch.num_rows()).map(|row| column.is_valid(row).then(|| cell(row))));
        }
        cells
    }
}

/// What was read for an answer.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Sources {
    /// Rows of values looked at.
    pub n_raw_rows: u64,
    /// Rows of roll-ups looked at.
    pub n_rollup_rows: u64,
    /// Days that came from roll-ups, for every entity but those of which something was learned later.
    pub rollups: Vec<RollupUse>,
}

/// What answering a question reads, for those who wonder why it takes its time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reading {
    /// Files with values of the table.
    pub n_files: usize,
    /// Those of them that may have rows asked for.
    pub n_files_read: usize,
    /// Row groups of the files that are read: the parts of up to 65,536 rows.
    pub n_units: usize,
    /// Those of them that may have rows asked for.
    pub n_units_read: usize,
    /// Parts that are in memory only.
    pub n_recent: usize,
    /// Days that come from roll-ups instead.
    pub rollups: Vec<RollupUse>,
}

/// Days that came from a roll-up.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct RollupUse {
    /// From the start of the first to the end of the last of these days.
    pub observed: Range<Instant>,
    /// Width of its buckets.
    pub width: RollupWidth,
}

/// A sum with what was rounded off.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Sum {
    pub(super) high: f64,
    pub(super) low: f64,
}

impl Sum {
    #[inline]
    pub(super) fn add(&mut self, x: f64) {
        // Knuth's two-sum: `error` is exactly what `sum` lacks.
        let sum = self.high + x;
        let x_part = sum - self.high;
        let error = (self.high - (sum - x_part)) + (x - x_part);
        self.high = sum;
        self.low += error;
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.add(other.high);
        self.low += other.low;
    }

    pub(super) fn value(self) -> f64 {
        // Beyond the largest number the error is not a number.
        if self.high.is_finite() { self.high + self.low } else { self.high }
    }
}

/// What is known of the numbers of one attribute in one bucket.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Accumulator {
    pub(super) count: u64,
    pub(super) sum: Sum,
    pub(super) squares: Sum,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) first: f64,
    pub(super) last: f64,
    pub(super) first_at: i64,
    pub(super) last_at: i64,
}

impl Default for Accumulator {
    fn default() -> Self {
        Self {
            count: 0,
            sum: Sum::default(),
            squares: Sum::default(),
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            first: 0.0,
            last: 0.0,
            first_at: i64::MAX,
            last_at: i64::MIN,
        }
    }
}

impl Accumulator {
    /// Takes in a number; numbers of one entity come in the order of time.
    #[inline]
    pub(super) fn add(&mut self, at_us: i64, x: f64, squares: bool) {
        if self.count == 0 {
            (self.first, self.first_at) = (x, at_us);
        }
        (self.last, self.last_at) = (x, at_us);
        self.count += 1;
        self.sum.add(x);
        if squares {
            self.squares.add(x * x);
        }
        self.min = if x < self.min { x } else { self.min };
        self.max = if x > self.max { x } else { self.max };
    }

    /// Takes in numbers in the order of time; there is at least one, and as many times.
    #[inline]
    pub(super) fn add_all(&mut self, at_us: &[i64], xs: &[f64], squares: bool) {
        if self.count == 0 {
            (self.first, self.first_at) = (xs[0], at_us[0]);
        }
        (self.last, self.last_at) = (xs[xs.len() - 1], at_us[xs.len() - 1]);
        self.count += xs.len() as u64;
        let (mut sum, mut min, mut max) = (self.sum, self.min, self.max);
        for &x in xs {
            sum.add(x);
            min = if x < min { x } else { min };
            max = if x > max { x } else { max };
        }
        (self.sum, self.min, self.max) = (sum, min, max);
        if squares {
            for &x in xs {
                self.squares.add(x * x);
            }
        }
    }

    /// Takes in what is known of other numbers, of the same entity or of one that comes later in the order of ids.
    pub(super) fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.count += other.count;
        self.sum.merge(other.sum);
        self.squares.merge(other.squares);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        if other.first_at < self.first_at {
            (self.first, self.first_at) = (other.first, other.first_at);
        }
        if other.last_at >= self.last_at {
            (self.last, self.last_at) = (other.last, other.last_at);
        }
    }

    fn standard_deviation(&self) -> f64 {
        let n = self.count as f64;
        let mean = self.sum.value() / n;
        // Rounding may leave a little less than nothing of values that are all the same.
        (self.squares.value() / n - mean * mean).max(0.0).sqrt()
    }
}

/// The numbers of one entity by bucket, in ascending order: as many accumulators per bucket as there are attributes.
#[derive(Default)]
pub(super) struct Buckets {
    pub(super) starts: Vec<i64>,
    /// Rows of a scan in each, where they are counted.
    pub(super) rows: Vec<u64>,
    pub(super) accumulators: Vec<Accumulator>,
}

impl Buckets {
    pub(super) fn clear(&mut self) {
        self.starts.clear();
        self.rows.clear();
        self.accumulators.clear();
    }

    /// Index of the bucket that starts at `start`, which is not before any other.
    #[inline]
    pub(super) fn open(&mut self, start: i64, n_attributes: usize) -> usize {
        if self.starts.last() != Some(&start) {
            self.starts.push(start);
            self.rows.push(0);
            self.accumulators.resize(self.accumulators.len() + n_attributes, Accumulator::default());
        }
        self.starts.len() - 1
    }
}

/// Where the answer grows.
pub(super) struct Answer<'a> {
    query: &'a AggregateQuery,
    groups: Groups,
    schema: SchemaRef,
    /// Over all entities: the number of rows, and the numbers of each attribute.
    together: BTreeMap<i64, (u64, Vec<Accumulator>)>,
    rows: Rows,
    n_rows: usize,
    batches: Vec<RecordBatch>,
}

/// The batch that is being filled.
struct Rows {
    n_rows: usize,
    entity_id: StringDictionaryBuilder<Int32Type>,
    bucket_start: TimestampMicrosecondBuilder,
    /// If rows are counted.
    counts: Option<Int64Builder>,
    columns: Vec<Column>,
}

enum Column {
    Count(Int64Builder),
    Number(Measure, Float64Builder),
    Time(Measure, TimestampMicrosecondBuilder),
}

impl<'a> Answer<'a> {
    pub(super) fn new(query: &'a AggregateQuery, groups: Groups) -> Self {
        let (schema, rows) = (query.group_schema(groups), Rows::new(query, groups));
        Self { query, groups, schema, together: BTreeMap::new(), rows, n_rows: 0, batches: Vec::new() }
    }

    /// Takes in one entity; entities come in the order of ids, each once.
    pub(super) fn entity(&mut self, id: &str, buckets: &Buckets) -> Result<(), HistoryError> {
        let n = self.query.attributes.len();
        // The numbers of one entity alone need not be added up with others'.
        let is_alone = self.query.entities.as_ref().is_some_and(|asked| asked.len() == 1);
        for (i, (&start, &n_rows)) in buckets.starts.iter().zip(&buckets.rows).enumerate() {
            let accumulators = &buckets.accumulators[i * n..(i + 1) * n];
            let is_there = match self.groups {
                Groups::Known | Groups::Numbers => accumulators.iter().any(|a| a.count > 0),
                Groups::Rows => n_rows > 0,
            };
            if !is_there {
                continue;
            }
            if self.query.per_entity || is_alone {
                self.push(Some(id).filter(|_| self.query.per_entity), start, n_rows, accumulators)?;
                continue;
            }
            let all = self.together.entry(start).or_insert_with(|| (0, vec![Accumulator::default(); n]));
            all.0 += n_rows;
            for (mine, theirs) in all.1.iter_mut().zip(accumulators) {
                mine.merge(theirs);
            }
        }
        Ok(())
    }

    /// Errors: [`HistoryError::Refused`] if it has grown too large.
    pub(super) fn check_size(&self) -> Result<(), HistoryError> {
        if self.n_rows + self.together.len() <= AGGREGATE_ROWS_MAX {
            return Ok(());
        }
        let what = format!(
            "the answer has more than {AGGREGATE_ROWS_MAX} rows, which is the limit; ask for wider buckets, a shorter time or fewer entities"
        );
        Err(HistoryError::Refused { what })
    }

    /// The batches that are complete, for one who does not wait for the end.
    pub(super) fn take_batches(&mut self) -> Vec<RecordBatch> {
        self.n_rows = 0;
        std::mem::take(&mut self.batches)
    }

    pub(super) fn finish(mut self) -> Result<Vec<RecordBatch>, HistoryError> {
        for (start, (n_rows, accumulators)) in std::mem::take(&mut self.together) {
            self.push(None, start, n_rows, &accumulators)?;
        }
        self.flush()?;
        Ok(self.batches)
    }

    fn push(&mut self, entity: Option<&str>, start: i64, n_rows: u64, accumulators: &[Accumulator]) -> Result<(), HistoryError> {
        self.rows.push(entity, start, n_rows, accumulators, self.query.measures.len()).map_err(|e| self.refused(&e))?;
        self.n_rows += 1;
        if self.rows.n_rows == SCAN_BATCH_ROWS_MAX {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), HistoryError> {
        if self.rows.n_rows > 0 {
            let rows = std::mem::replace(&mut self.rows, Rows::new(self.query, self.groups));
            self.batches.push(rows.finish(&self.schema, self.query.per_entity).map_err(|e| self.refused(&e))?);
        }
        Ok(())
    }

    fn refused(&self, e: &ArrowError) -> HistoryError {
        HistoryError::Columnar { entity_type: self.query.entity_type.clone(), reason: e.to_string() }
    }
}

impl Rows {
    fn new(query: &AggregateQuery, groups: Groups) -> Self {
        let column = |m: &Measure| match m {
            Measure::Count => Column::Count(Int64Builder::new()),
            Measure::FirstAt | Measure::LastAt => Column::Time(*m, TimestampMicrosecondBuilder::new().with_timezone("UTC")),
            _ => Column::Number(*m, Float64Builder::new()),
        };
        Self {
            n_rows: 0,
            entity_id: StringDictionaryBuilder::new(),
            bucket_start: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            counts: (groups == Groups::Rows).then(Int64Builder::new),
            columns: query.attributes.iter().flat_map(|_| query.measures.iter().map(column)).collect(),
        }
    }

    fn push(
        &mut self,
        entity: Option<&str>,
        start: i64,
        n_rows: u64,
        accumulators: &[Accumulator],
        n_measures: usize,
    ) -> Result<(), ArrowError> {
        self.n_rows += 1;
        if let Some(counts) = &mut self.counts {
            counts.append_value(count_of(n_rows));
        }
        if let Some(id) = entity {
            self.entity_id.append(id)?;
        }
        match start {
            UNOBSERVED => self.bucket_start.append_null(),
            start => self.bucket_start.append_value(start),
        }
        if n_measures > 0 {
            for (columns, a) in self.columns.chunks_exact_mut(n_measures).zip(accumulators) {
                columns.iter_mut().for_each(|c| c.push(a));
            }
        }
        Ok(())
    }

    fn finish(mut self, schema: &SchemaRef, per_entity: bool) -> Result<RecordBatch, ArrowError> {
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.columns.len() + 2);
        if per_entity {
            arrays.push(Arc::new(self.entity_id.finish()));
        }
        arrays.push(Arc::new(self.bucket_start.finish()));
        if let Some(mut counts) = self.counts {
            arrays.push(Arc::new(counts.finish()));
        }
        for column in self.columns {
            arrays.push(match column {
                Column::Count(mut b) => Arc::new(b.finish()),
                Column::Number(_, mut b) => Arc::new(b.finish()),
                Column::Time(_, mut b) => Arc::new(b.finish()),
            });
        }
        RecordBatch::try_new(Arc::clone(schema), arrays)
    }
}

impl Column {
    fn push(&mut self, a: &Accumulator) {
        match self {
            Self::Count(b) => b.append_value(count_of(a.count)),
            Self::Number(_, b) if a.count == 0 => b.append_null(),
            Self::Time(_, b) if a.count == 0 => b.append_null(),
            Self::Number(measure, b) => b.append_value(match measure {
                Measure::Sum => a.sum.value(),
                Measure::Min => a.min,
                Measure::Max => a.max,
                Measure::Mean => a.sum.value() / a.count as f64,
                Measure::SumOfSquares => a.squares.value(),
                Measure::StandardDeviation => a.standard_deviation(),
                Measure::First => a.first,
                _ => a.last,
            }),
            Self::Time(measure, b) => b.append_value(if *measure == Measure::FirstAt { a.first_at } else { a.last_at }),
        }
    }
}

fn count_of(n: u64) -> i64 {
    // A count of more than 2^63 does not fit into a disk.
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A JSON text, if it is a number.
pub(super) fn number_of_json(text: &str) -> Option<f64> {
    let first = *text.as_bytes().first()?;
    // What else `parse` takes (`inf`, `NaN`, `+1`, `.5`) is no JSON.
    (first == b'-' || first.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The definition: every row of the scan is looked at.
pub(super) fn over_scan(
    query: &AggregateQuery,
    groups: Groups,
    table: &HistoryTable,
    batches: impl Iterator<Item = Result<RecordBatch, HistoryError>>,
) -> Result<Aggregates, HistoryError> {
    let n = query.attributes.len();
    let kind_of = |name: &Iri| table.columns.iter().find(|c| c.name == *name).map(|c| c.kind);
    let kinds: Vec<Option<ColumnKind>> = query.attributes.iter().map(kind_of).collect();
    let mut sources = Sources::default();
    let mut all: BTreeMap<String, Buckets> = BTreeMap::new();
    for batch in batches {
        let batch = batch?;
        let (entities, times) = (batch.column(0).as_string::<i32>(), batch.column(2).as_primitive::<TimestampMicrosecondType>());
        sources.n_raw_rows += batch.num_rows() as u64;
        for row in (0..batch.num_rows()).filter(|row| groups == Groups::Rows || times.is_valid(*row)) {
            // Rows without observed time come first.
            let at_us = if times.is_valid(row) { times.value(row) } else { UNOBSERVED };
            let buckets = all.entry(entities.value(row).to_owned()).or_default();
            let bucket = buckets.open(query.bucket_start(at_us), n);
            buckets.rows[bucket] += 1;
            for (i, kind) in kinds.iter().enumerate() {
                let column = batch.column(4 + i);
                let number = match (kind, column.data_type()) {
                    (_, DataType::Float64) => column.is_valid(row).then(|| column.as_primitive::<Float64Type>().value(row)),
                    (Some(ColumnKind::Json), DataType::Utf8) => {
                        column.is_valid(row).then(|| number_of_json(column.as_string::<i32>().value(row))).flatten()
                    }
                    _ => None,
                };
                if let Some(x) = number {
                    buckets.accumulators[bucket * n + i].add(at_us, x, query.needs_squares());
                }
            }
        }
    }
    let mut answer = Answer::new(query, groups);
    for (id, buckets) in &all {
        answer.entity(id, buckets)?;
        answer.check_size()?;
    }
    Ok(Aggregates { batches: answer.finish()?, sources })
}

#[cfg(test)]
#[path = "aggregate_tests.rs"]
mod tests;
