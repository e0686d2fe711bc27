//! Roll-ups: files of aggregates beside the values, and which of them answer a question.
//!
//! A roll-up is a segment like any other: a row per entity and bucket, the bucket's start as observed time, and for each attribute a column
//! of numbers for each part of its [`Accumulator`]. So it is opened, pruned, checked and read by the same code.
//!
//! **Invariant.** An entity's day in a roll-up is what its values are, or is listed as stale: each fact is compared with the days that are
//! covered, or being covered, under the lock under which it becomes visible. Only what a replay of the log brings again is not.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Builder, StringDictionaryBuilder, TimestampMicrosecondBuilder};
use arrow::datatypes::Int32Type;
use arrow::record_batch::RecordBatch;
use entity::{Instant, Iri};

use super::super::aggregate::{Accumulator, Buckets, Sum};
use super::super::rollup::DAY_US;
use super::super::value::SeenByName;
use super::super::{BulkRows, ErasedTimes, Erasure, Fact, HistoryError, Rollup, RollupUse, RollupWidth, Segment, What};
use super::aggregate::Question;
use super::segment::OpenSegment;
use super::write::{Built, Effort, FileColumn, Footer, SegmentWriter, schema_of};

/// Stale days of entities that one roll-up lists; one with more is not used any more until it is built anew.
const STALE_MAX: usize = 20_000;
/// Rows of a batch that is written.
const BATCH_ROWS: usize = 8_192;

/// Parts of an accumulator, each a column.
pub(super) const PARTS: [&str; 11] =
    ["count", "sum", "sum_low", "sumsq", "sumsq_low", "min", "max", "first", "last", "first_at", "last_at"];

/// The columns of an attribute in a roll-up. `~` is no part of our attributes' names, and if it were one of theirs, no column of a roll-up
/// would ever meet one of a value: they are in different files.
pub(super) fn part_names(attribute: &Iri) -> impl Iterator<Item = Iri> + '_ {
    PARTS.iter().map(move |part| Iri::known(&format!("{attribute}~{part}")))
}

/// The column with the number of rows.
pub(super) fn rows_name() -> Iri {
    Iri::known("urn:conurb:history:rows")
}

/// The parts of an accumulator as numbers: times are µs since the start of the bucket, so that a float holds them exactly.
fn parts_of(a: &Accumulator, start: i64) -> [f64; PARTS.len()] {
    let at = |us: i64| (us - start) as f64;
    [a.count as f64, a.sum.high, a.sum.low, a.squares.high, a.squares.low, a.min, a.max, a.first, a.last, at(a.first_at), at(a.last_at)]
}

/// The accumulator of these parts; one without numbers has no parts.
pub(super) fn accumulator_of(parts: &[f64], start: i64) -> Accumulator {
    let at = |offset: f64| start + offset as i64;
    Accumulator {
        count: parts[0] as u64,
        sum: Sum { high: parts[1], low: parts[2] },
        squares: Sum { high: parts[3], low: parts[4] },
        min: parts[5],
        max: parts[6],
        first: parts[7],
        last: parts[8],
        first_at: at(parts[9]),
        last_at: at(parts[10]),
    }
}

/// Days by entity.
pub(super) type Stale = BTreeMap<Iri, BTreeSet<i64>>;

/// A roll-up, ready to be read.
#[derive(Clone)]
pub(super) struct OpenRollup {
    pub(super) file: Arc<OpenSegment>,
    /// As it was built; what is stale is in the two members below.
    pub(super) info: Arc<Rollup>,
    pub(super) stale: Arc<Stale>,
    n_stale: usize,
    pub(super) is_stale: bool,
    is_erased: bool,
    /// The values of the days before this one are gone.
    pub(super) final_to: Option<i64>,
    /// It was there when the history was opened: what was recorded until then is in it already, and comes from a replay of the log.
    replayed_to: Option<Instant>,
}

impl OpenRollup {
    /// One that the manifest lists.
    pub(super) fn loaded(file: Arc<OpenSegment>, info: &Rollup) -> Self {
        Self { replayed_to: Some(info.recorded_to), ..Self::of(file, info) }
    }

    pub(super) fn of(file: Arc<OpenSegment>, info: &Rollup) -> Self {
        let stale: Stale = info.stale.iter().map(|(id, days)| (id.clone(), days.iter().copied().collect())).collect();
        let n_stale = stale.values().map(BTreeSet::len).sum();
        let (is_stale, is_erased, final_to) = (info.is_stale, info.is_erased, info.final_to);
        let info = Arc::new(Rollup { stale: Vec::new(), ..info.clone() });
        Self { file, info, stale: Arc::new(stale), n_stale, is_stale, is_erased, final_to, replayed_to: None }
    }

    /// The manifest's entry, as of now.
    pub(super) fn segment(&self) -> Segment {
        let stale = self.stale.iter().map(|(id, days)| (id.clone(), days.iter().copied().collect())).collect();
        let rollup = Rollup { stale, is_stale: self.is_stale, is_erased: self.is_erased, final_to: self.final_to, ..(*self.info).clone() };
        Segment { rollup: Some(rollup), ..self.file.segment.clone() }
    }

    pub(super) fn days(&self) -> Range<i64> {
        self.info.days.0..self.info.days.1
    }

    /// Are there days of which the values are gone?
    pub(super) fn has_final_days(&self) -> bool {
        self.final_to.is_some_and(|to| to > self.info.days.0)
    }

    /// Only the days of which the values are gone; none if there are none. What is stale of them was erased.
    pub(super) fn final_part(&self) -> Option<Self> {
        let to = self.final_to.filter(|to| *to > self.info.days.0 && !self.is_erased)?.min(self.info.days.1);
        let info = Arc::new(Rollup { days: (self.info.days.0, to), ..(*self.info).clone() });
        Some(Self { info, is_stale: false, ..self.clone() })
    }

    /// May the values of the days from `first`, the first that has any, to before `day` go? Not while something that was learned of them is in
    /// the values only.
    pub(super) fn can_finish(&self, first: i64, day: i64) -> bool {
        let first = self.final_to.unwrap_or(first).max(first);
        let going = first.max(self.info.days.0)..day.min(self.info.days.1);
        self.is_erased || going.is_empty() || (!self.is_stale && !self.stale.values().flatten().any(|d| going.contains(d)))
    }

    /// The values of the days before `day` are going.
    pub(super) fn finish(&mut self, day: i64) {
        if self.info.days.0 < day {
            self.final_to = Some(self.final_to.map_or(day, |to| to.max(day)));
        }
    }

    fn mark(&mut self, entity: &Iri, day: i64) {
        if self.is_stale {
            return;
        }
        if self.n_stale >= STALE_MAX {
            // What was erased of final days stays known.
            let final_to = self.final_to.unwrap_or(i64::MIN);
            let stale = Arc::make_mut(&mut self.stale);
            stale.values_mut().for_each(|days| days.retain(|day| *day < final_to));
            stale.retain(|_, days| !days.is_empty());
            (self.is_stale, self.n_stale) = (true, self.stale.values().map(BTreeSet::len).sum());
            return;
        }
        let stale = Arc::make_mut(&mut self.stale);
        let is_new = match stale.get_mut(entity) {
            Some(days) => days.insert(day),
            None => stale.insert(entity.clone(), BTreeSet::from([day])).is_none(),
        };
        self.n_stale += usize::from(is_new);
    }
}

/// All roll-ups of a history.
#[derive(Default)]
pub(super) struct Rollups {
    pub(super) files: Vec<OpenRollup>,
    /// The last day that is covered, by type: nearly every fact is younger.
    covered_to: BTreeMap<Iri, i64>,
    /// Days that are being rolled up, and what was learned of them meanwhile.
    watched: Option<Watched>,
}

struct Watched {
    entity_type: Iri,
    days: Range<i64>,
    learned: Stale,
    is_erased: bool,
}

impl Rollups {
    pub(super) fn of(files: Vec<OpenRollup>) -> Self {
        let mut all = Self { files, ..Self::default() };
        all.see();
        all
    }

    fn see(&mut self) {
        self.covered_to.clear();
        for r in &self.files {
            let to = self.covered_to.entry(r.file.segment.entity_type.clone()).or_insert(i64::MIN);
            *to = r.info.days.1.max(*to);
        }
        if let Some(w) = &self.watched {
            let to = self.covered_to.entry(w.entity_type.clone()).or_insert(i64::MIN);
            *to = w.days.end.max(*to);
        }
    }

    /// Takes note of a fact that becomes visible.
    pub(super) fn learn(&mut self, fact: &Fact) {
        if let Some(covered_to) = self.covered_to.get(&fact.entity_type)
            && let Some(instance) = match &fact.what {
                What::Value { instance, .. } => Some(instance),
                // All were observed at one time.
                What::Values(values) => values.first().map(|(_, instance)| instance),
                _ => None,
            }
            && let Some(day) = instance.observed_at.map(|at| at.micros().div_euclid(DAY_US))
            && day < *covered_to
        {
            self.learn_day(&fact.entity_type, &fact.entity, day, fact.recorded_at);
        }
    }

    /// Takes note of observations in bulk that become visible.
    pub(super) fn learn_rows(&mut self, rows: &BulkRows) {
        let Some(covered_to) = self.covered_to.get(rows.entity_type()).copied() else { return };
        let mut learned: BTreeSet<(&Iri, i64)> = BTreeSet::new();
        for (entity_idx, observed_us) in rows.entity_idxs().iter().zip(rows.observed_us()) {
            let day = observed_us.div_euclid(DAY_US);
            if day < covered_to {
                learned.insert((&rows.entities()[*entity_idx as usize], day));
            }
        }
        for (entity, day) in learned {
            self.learn_day(rows.entity_type(), entity, day, rows.recorded_at());
        }
    }

    /// Takes note of what is erased.
    pub(super) fn learn_erasure(&mut self, erasure: &Erasure) {
        let of_days = |days: Range<i64>| match &erasure.times {
            ErasedTimes::Observed(range) => {
                let from = range.start.micros().div_euclid(DAY_US).max(days.start);
                from..range.end.micros().saturating_add(DAY_US - 1).div_euclid(DAY_US).min(days.end)
            }
            ErasedTimes::All | ErasedTimes::Recorded(_) => days,
        };
        for r in self.files.iter_mut().filter(|r| r.file.segment.entity_type == erasure.entity_type) {
            let is_replayed = r.replayed_to.is_some_and(|to| erasure.recorded_at <= to);
            let days = of_days(r.days());
            match &erasure.entity {
                _ if is_replayed || days.is_empty() => {}
                Some(entity) => days.for_each(|day| r.mark(entity, day)),
                None => r.is_erased = true,
            }
        }
        if let Some(w) = self.watched.as_mut().filter(|w| w.entity_type == erasure.entity_type) {
            let days = of_days(w.days.clone());
            match &erasure.entity {
                Some(entity) => w.learned.entry(entity.clone()).or_default().extend(days),
                None => w.is_erased |= !days.is_empty(),
            }
        }
    }

    fn learn_day(&mut self, entity_type: &Iri, entity: &Iri, day: i64, recorded_at: Instant) {
        for r in &mut self.files {
            let is_of_it = r.file.segment.entity_type == *entity_type && r.days().contains(&day);
            if is_of_it && r.final_to.is_none_or(|to| day >= to) && r.replayed_to.is_none_or(|to| recorded_at > to) {
                r.mark(entity, day);
            }
        }
        if let Some(w) = self.watched.as_mut().filter(|w| w.entity_type == *entity_type && w.days.contains(&day)) {
            w.learned.entry(entity.clone()).or_default().insert(day);
        }
    }

    /// From now on takes note of what is learned of these days.
    pub(super) fn watch(&mut self, entity_type: &Iri, days: Range<i64>) {
        self.watched = Some(Watched { entity_type: entity_type.clone(), days, learned: Stale::new(), is_erased: false });
        self.see();
    }

    /// Ends that; what was learned meanwhile, and whether so much was erased that what was built is worth nothing.
    pub(super) fn unwatch(&mut self) -> (Stale, bool) {
        let watched = self.watched.take().map(|w| (w.learned, w.is_erased)).unwrap_or_default();
        self.see();
        watched
    }

    /// Puts a new roll-up in the place of the ones of its width in its days. `learned` is what [`Rollups::unwatch`] gave. Returns the replaced ones.
    pub(super) fn install(&mut self, mut new: OpenRollup, learned: &Stale) -> Vec<Arc<OpenSegment>> {
        for (entity, days) in learned {
            days.iter().for_each(|day| new.mark(entity, *day));
        }
        let is_replaced = |r: &OpenRollup| {
            r.file.segment.entity_type == new.file.segment.entity_type
                && r.info.width == new.info.width
                && r.info.days.0 >= new.info.days.0
                && r.info.days.1 <= new.info.days.1
        };
        let (replaced, mut kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.files).into_iter().partition(is_replaced);
        kept.push(new);
        self.files = kept;
        self.see();
        replaced.into_iter().map(|r| r.file).collect()
    }

    /// Takes these out. Returns their files.
    pub(super) fn remove(&mut self, is_removed: impl Fn(&OpenRollup) -> bool) -> Vec<Arc<OpenSegment>> {
        let (removed, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.files).into_iter().partition(is_removed);
        self.files = kept;
        self.see();
        removed.into_iter().map(|r| r.file).collect()
    }

    pub(super) fn of_type(&self, entity_type: &Iri) -> Vec<OpenRollup> {
        self.files.iter().filter(|r| r.file.segment.entity_type == *entity_type).cloned().collect()
    }
}

/// Which days of a question come from which roll-up, and which from the values.
pub(super) struct Plan {
    /// Days of a roll-up, in the order of time within each.
    pub(super) rolled: Vec<(OpenRollup, Range<i64>)>,
    /// The rest, as observed times.
    pub(super) raw: Vec<Range<Instant>>,
}

impl Plan {
    pub(super) fn of(question: &Question<'_>, observed: &Range<Instant>, rollups: &[OpenRollup]) -> Self {
        let query = question.query;
        let whole = observed.start.micros().div_euclid(DAY_US) + i64::from(observed.start.micros().rem_euclid(DAY_US) > 0)
            ..observed.end.micros().div_euclid(DAY_US);
        let all_days = whole.start..whole.end.max(whole.start);
        let mut open = Vec::from([all_days]);
        let mut rolled = Vec::new();
        for width in RollupWidth::ALL {
            if !query.bucket.is_made_of(width.micros()) {
                continue;
            }
            let usable = rollups.iter().filter(|r| r.info.width == width && is_usable(question, r));
            for r in usable.filter_map(|r| question.part_of(r)) {
                let mut still_open = Vec::new();
                for days in open {
                    let common = days.start.max(r.info.days.0)..days.end.min(r.info.days.1);
                    if common.is_empty() {
                        still_open.push(days);
                        continue;
                    }
                    still_open.extend([days.start..common.start, common.end..days.end].into_iter().filter(|d| !d.is_empty()));
                    rolled.push((r.clone(), common));
                }
                open = still_open;
            }
        }
        rolled.sort_by_key(|(_, days)| days.start);
        let at = |day: i64| Instant::from_micros(day.saturating_mul(DAY_US));
        let mut raw = Vec::new();
        let mut from = observed.start;
        for (_, days) in &rolled {
            if from < at(days.start) {
                raw.push(from..at(days.start));
            }
            from = at(days.end);
        }
        if from < observed.end {
            raw.push(from..observed.end);
        }
        Self { rolled, raw }
    }

    /// For the answer's information: neighbouring days of one width together.
    pub(super) fn uses(&self) -> Vec<RollupUse> {
        let at = |day: i64| Instant::from_micros(day * DAY_US);
        let mut uses: Vec<RollupUse> = Vec::new();
        for (r, days) in &self.rolled {
            match uses.last_mut().filter(|u| u.width == r.info.width && u.observed.end == at(days.start)) {
                Some(last) => last.observed.end = at(days.end),
                None => uses.push(RollupUse { observed: at(days.start)..at(days.end), width: r.info.width }),
            }
        }
        uses
    }
}

fn is_usable(question: &Question<'_>, r: &OpenRollup) -> bool {
    let query = question.query;
    let has_rows = r.info.counts_rows || !question.rows || question.shown_from.is_none();
    !r.is_erased
        && has_rows
        && query.as_of.is_none_or(|as_of| as_of >= r.info.recorded_to)
        && query.attributes.iter().all(|name| r.info.attributes.contains(name))
}

impl Question<'_> {
    /// The days of a roll-up that say what is asked for.
    fn part_of(&self, r: &OpenRollup) -> Option<OpenRollup> {
        match self.shown_from {
            None if r.is_stale => r.final_part(),
            None => Some(r.clone()),
            Some(_) if r.is_stale => None,
            Some(from) => {
                let (first, end) = r.info.days;
                let first = first.max(from).max(r.final_to.unwrap_or(i64::MIN));
                (first < end).then(|| OpenRollup { info: Arc::new(Rollup { days: (first, end), ..(*r.info).clone() }), ..r.clone() })
            }
        }
    }
}

/// A roll-up that is being written.
pub(super) struct RollupWriter {
    writer: SegmentWriter,
    footer: Footer,
    n_attributes: usize,
    recorded_to: Instant,
    n_rows: usize,
    entity_id: StringDictionaryBuilder<Int32Type>,
    bucket_start: TimestampMicrosecondBuilder,
    columns: Vec<Float64Builder>,
}

impl RollupWriter {
    pub(super) fn new(entity_type: &Iri, attributes: &[Iri], recorded_to: Instant) -> Self {
        let names = attributes.iter().flat_map(part_names).chain([rows_name()]);
        let columns: Vec<FileColumn> = names.map(|name| FileColumn::of_bulk(name, true, false)).collect();
        let (columns, seen) = (Arc::new(columns), SeenByName::new());
        let footer = Footer { entity_type: entity_type.clone(), columns, seen, erasures: Vec::new(), kept: None, thorough: true };
        let writer = SegmentWriter::new(footer.clone(), Effort::Thorough);
        let n_attributes = attributes.len();
        let (entity_id, bucket_start) = (StringDictionaryBuilder::new(), TimestampMicrosecondBuilder::new());
        let mut new = Self { writer, footer, n_attributes, recorded_to, n_rows: 0, entity_id, bucket_start, columns: Vec::new() };
        new.begin();
        new
    }

    fn begin(&mut self) {
        self.n_rows = 0;
        self.entity_id = StringDictionaryBuilder::new();
        self.bucket_start = TimestampMicrosecondBuilder::new().with_timezone("UTC");
        self.columns = self.footer.columns.iter().map(|_| Float64Builder::new()).collect();
    }

    /// Takes in one entity; entities come in the order of ids.
    pub(super) fn entity(&mut self, id: &str, buckets: &Buckets) -> Result<(), HistoryError> {
        let counted = buckets.starts.iter().zip(&buckets.rows);
        for ((start, n_rows), accumulators) in counted.zip(buckets.accumulators.chunks_exact(self.n_attributes)) {
            if *n_rows == 0 && accumulators.iter().all(|a| a.count == 0) {
                continue;
            }
            self.entity_id.append_value(id);
            self.bucket_start.append_value(*start);
            for (columns, a) in self.columns.chunks_exact_mut(PARTS.len()).zip(accumulators) {
                if a.count == 0 {
                    columns.iter_mut().for_each(Float64Builder::append_null);
                } else {
                    columns.iter_mut().zip(parts_of(a, *start)).for_each(|(c, part)| c.append_value(part));
                }
            }
            if let Some(rows) = self.columns.last_mut() {
                rows.append_value(*n_rows as f64);
            }
            self.n_rows += 1;
            if self.n_rows == BATCH_ROWS {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), HistoryError> {
        if self.n_rows == 0 {
            return Ok(());
        }
        let mut recorded = TimestampMicrosecondBuilder::new().with_timezone("UTC");
        recorded.append_value_n(self.recorded_to.micros(), self.n_rows);
        let none = || -> ArrayRef {
            Arc::new(std::iter::repeat_n(None::<&str>, self.n_rows).collect::<arrow::array::DictionaryArray<Int32Type>>())
        };
        let (dataset, deleted) = (none(), none());
        let mut arrays: Vec<ArrayRef> =
            vec![Arc::new(self.entity_id.finish()), dataset, Arc::new(self.bucket_start.finish()), Arc::new(recorded.finish()), deleted];
        arrays.extend(self.columns.iter_mut().map(|c| -> ArrayRef { Arc::new(c.finish()) }));
        let batch = RecordBatch::try_new(schema_of(&self.footer.columns), arrays)
            .map_err(|e| HistoryError::Columnar { entity_type: self.footer.entity_type.clone(), reason: e.to_string() })?;
        self.begin();
        self.writer.write(&batch)
    }

    /// The file; none if there was nothing to write.
    pub(super) fn finish(mut self) -> Result<Option<Built>, HistoryError> {
        self.flush()?;
        self.writer.finish()
    }
}
