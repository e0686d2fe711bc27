//! Aggregates straight from the columns.
//!
//! Every layer is sorted by entity, then observed time, so one entity after the other is taken from all of them. The rows of an entity are
//! *pieces*: slices of decoded batches. A piece in which time strictly increases, and which overlaps no other, holds no correction: its
//! columns go into the accumulators as slices, bucket by bucket. The rows of pieces that overlap are put in order first, and of each moment
//! the latest value counts, as in a scan. Rows of a roll-up join in where it covers whole days of the question (see `rollup`).
//!
//! Where rows are counted, those without observed time may count too: they come first in each entity, and are looked at one by one.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, DictionaryArray, Float64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Int32Type, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use entity::{Instant, Iri};

use super::super::aggregate::{Answer, Buckets, UNOBSERVED, number_of_json};
use super::super::erasure::Erasures;
use super::super::rollup::DAY_US;
use super::super::{AggregateQuery, Aggregates, Groups, HistoryError, Reading, Sources};
use super::recent::Layer;
use super::rollup::{OpenRollup, PARTS, Plan, Stale, accumulator_of, part_names, rows_name};
use super::scan::{Layers, without_all_erased};
use super::segment::Wanted;
use super::sheet::{Sheet, Sheets};
use super::write::{FileColumn, KEY_COLUMNS, columns_for, sheets_of};

/// Answers `query`, from roll-ups where they say the same.
pub(super) fn aggregate(query: &AggregateQuery, layers: &Layers, rollups: &[OpenRollup]) -> Result<Aggregates, HistoryError> {
    query.check()?;
    let mut answer = Answer::new(query, Groups::Numbers);
    let question = Question { query, rows: false, shown_from: None };
    let sources = for_each_entity(question, layers, rollups, &mut |id, buckets| {
        answer.entity(id, buckets)?;
        answer.check_size()?;
        Ok(true)
    })?;
    Ok(Aggregates { batches: answer.finish()?, sources })
}

/// After so many entities who waits for an answer over all of them is asked whether he still does.
const ENTITIES_BETWEEN: usize = 64;

/// Answers `query` as [`super::History::group`] says. All values observed on the day `shown_from` or later are still there.
pub(super) fn group(
    query: &AggregateQuery,
    groups: Groups,
    shown_from: i64,
    layers: &Layers,
    rollups: &[OpenRollup],
    take: &mut dyn FnMut(RecordBatch) -> bool,
) -> Result<Sources, HistoryError> {
    query.check_groups()?;
    let mut answer = Answer::new(query, groups);
    let (mut goes_on, mut n_entities) = (true, 0_usize);
    let question = Question::of(query, groups, shown_from);
    let sources = for_each_entity(question, layers, rollups, &mut |id, buckets| {
        answer.entity(id, buckets)?;
        if query.per_entity {
            goes_on = answer.take_batches().into_iter().all(&mut *take);
        } else {
            answer.check_size()?;
            n_entities += 1;
            if n_entities % ENTITIES_BETWEEN == 0 {
                goes_on = take(RecordBatch::new_empty(query.group_schema(groups)));
            }
        }
        Ok(goes_on)
    })?;
    if goes_on {
        let _ = answer.finish()?.into_iter().all(take);
    }
    Ok(sources)
}

/// What [`group`] would read.
pub(super) fn reading_of_groups(
    query: &AggregateQuery,
    groups: Groups,
    shown_from: i64,
    layers: &Layers,
    rollups: &[OpenRollup],
) -> Result<Reading, HistoryError> {
    let question = Question::of(query, groups, shown_from);
    let mut reads: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); layers.segments.len()];
    let plan = question.asked(rollups);
    for asked in &plan.raw {
        let wanted = asked.wanted(query);
        for (read, segment) in reads.iter_mut().zip(&layers.segments) {
            read.extend(segment.units(&wanted)?.iter().map(|u| u.row_group_idx));
        }
    }
    let mut reading = layers.reading(&reads)?;
    reading.rollups = plan.plan.uses();
    Ok(reading)
}

/// A question, and what for.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) query: &'a AggregateQuery,
    /// Rows are counted, and those without observed time are among them if the query has no interval.
    pub(super) rows: bool,
    /// Only what a scan shows counts, which is all from this day on; none if what is known from roll-ups only counts too.
    pub(super) shown_from: Option<i64>,
}

/// What is asked of whom.
struct AskedOfAll {
    plan: Plan,
    /// Of the values.
    raw: Vec<Asked>,
    /// Of each roll-up of the plan.
    rolled: Vec<Asked>,
}

impl<'a> Question<'a> {
    fn of(query: &'a AggregateQuery, groups: Groups, shown_from: i64) -> Self {
        Self { query, rows: groups == Groups::Rows, shown_from: (groups != Groups::Known).then_some(shown_from) }
    }

    fn asked(&self, rollups: &[OpenRollup]) -> AskedOfAll {
        let query = self.query;
        let observed = query.observed.clone().unwrap_or(Instant::MIN..Instant::MAX);
        let plan = Plan::of(self, &observed, rollups);
        let entities: Option<Arc<BTreeSet<Iri>>> = query.entities.as_ref().map(|ids| Arc::new(ids.iter().cloned().collect()));
        let mut raw: Vec<Asked> = plan
            .raw
            .iter()
            .map(|range| Asked { observed: range.clone(), entities: entities.clone(), cut: Cut::Not, unobserved: Unobserved::Without })
            .collect();
        if self.rows && query.observed.is_none() {
            match raw.as_mut_slice() {
                // One look at everything.
                [all] if plan.rolled.is_empty() => all.unobserved = Unobserved::Too,
                _ => {
                    let unobserved = Unobserved::Only;
                    raw.push(Asked { observed, entities: entities.clone(), cut: Cut::Not, unobserved });
                }
            }
        }
        let mut rolled = Vec::new();
        for (rollup, days) in &plan.rolled {
            let at = |day: i64| Instant::from_micros(day.saturating_mul(DAY_US));
            let observed = at(days.start)..at(days.end);
            let is_stale = |(id, stale): &(&Iri, &BTreeSet<i64>)| {
                stale.range(days.clone()).next().is_some() && entities.as_ref().is_none_or(|wanted| wanted.contains(*id))
            };
            let stale: BTreeSet<Iri> = rollup.stale.iter().filter(is_stale).map(|(id, _)| id.clone()).collect();
            let unobserved = Unobserved::Without;
            if !stale.is_empty() {
                let (entities, cut) = (Some(Arc::new(stale)), Cut::Only(Arc::clone(&rollup.stale)));
                raw.push(Asked { observed: observed.clone(), entities, cut, unobserved });
            }
            rolled.push(Asked { observed, entities: entities.clone(), cut: Cut::Except(Arc::clone(&rollup.stale)), unobserved });
        }
        AskedOfAll { plan, raw, rolled }
    }
}

/// Calls `take` with the numbers of each entity, in the order of ids, until it answers false; returns where they come from.
pub(super) fn for_each_entity(
    question: Question<'_>,
    layers: &Layers,
    rollups: &[OpenRollup],
    take: &mut dyn FnMut(&str, &Buckets) -> Result<bool, HistoryError>,
) -> Result<Sources, HistoryError> {
    let AskedOfAll { plan, raw, rolled } = question.asked(rollups);
    let mut cursors = Vec::new();
    for asked in &raw {
        open_raw(question, layers, asked, &mut cursors)?;
    }
    for ((rollup, _), asked) in plan.rolled.iter().zip(&rolled) {
        open_rollup(question, rollup, asked, &mut cursors)?;
    }
    let mut sources = merge(question, cursors, take)?;
    sources.rollups = plan.uses();
    Ok(sources)
}

/// What is asked of a layer.
struct Asked {
    observed: Range<Instant>,
    entities: Option<Arc<BTreeSet<Iri>>>,
    cut: Cut,
    unobserved: Unobserved,
}

/// What is asked of rows without observed time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unobserved {
    Without,
    Too,
    Only,
}

impl Asked {
    fn wanted(&self, query: &AggregateQuery) -> Wanted {
        Wanted {
            entities: self.entities.clone(),
            observed: Some(self.observed.clone()).filter(|_| self.unobserved == Unobserved::Without),
            unobserved_only: self.unobserved == Unobserved::Only,
            recorded_from: None,
            recorded_to: query.as_of,
            values_only: true,
        }
    }
}

/// Which days of an entity count.
#[derive(Clone)]
enum Cut {
    Not,
    /// Only these.
    Only(Arc<Stale>),
    /// All but these.
    Except(Arc<Stale>),
}

impl Cut {
    /// The parts of `limits` that count, in order.
    fn of(&self, id: &str, limits: &Range<i64>) -> Vec<Range<i64>> {
        let (stale, only) = match self {
            Self::Not => return vec![limits.clone()],
            Self::Only(stale) => (stale, true),
            Self::Except(stale) => (stale, false),
        };
        let days = stale.get(id).into_iter().flatten().map(|day| day * DAY_US..(day + 1) * DAY_US);
        let mut parts = Vec::new();
        let mut from = limits.start;
        for day in days.filter(|day| day.start < limits.end && day.end > limits.start) {
            parts.push(if only { day.start.max(limits.start)..day.end.min(limits.end) } else { from..day.start });
            from = day.end;
        }
        if !only {
            parts.push(from..limits.end);
        }
        parts.retain(|part| !part.is_empty());
        parts
    }
}

fn open_rollup<'a>(
    question: Question<'_>,
    rollup: &'a OpenRollup,
    asked: &Asked,
    cursors: &mut Vec<Cursor<'a>>,
) -> Result<(), HistoryError> {
    let names: Vec<Iri> = question.query.attributes.iter().flat_map(part_names).chain(question.rows.then(rows_name)).collect();
    let wanted = Wanted { entities: asked.entities.clone(), observed: Some(asked.observed.clone()), ..Wanted::default() };
    let units: Vec<usize> = rollup.file.units(&wanted)?.iter().map(|u| u.row_group_idx).collect();
    if units.is_empty() {
        return Ok(());
    }
    let batches = rollup.file.pages(units, &wanted, &KEYS, &names.iter().collect())?;
    let mut cursor = Cursor::new(0, Box::new(batches), asked, names);
    cursor.is_rollup = true;
    cursor.settle()?;
    cursors.push(cursor);
    Ok(())
}

/// A cursor for each layer that may have rows of what is asked.
fn open_raw<'a>(question: Question<'_>, layers: &'a Layers, asked: &Asked, cursors: &mut Vec<Cursor<'a>>) -> Result<(), HistoryError> {
    let query = question.query;
    let names: BTreeSet<&Iri> = query.attributes.iter().collect();
    let wanted = asked.wanted(query);
    // Marks have no observed time either.
    let keys = if asked.unobserved == Unobserved::Without { KEYS.as_slice() } else { &ALL_KEYS };
    let mut push = |layer: usize, batches: Batches<'a>, as_of: Option<Instant>| -> Result<(), HistoryError> {
        let mut cursor = Cursor::new(layer, batches, asked, query.attributes.clone());
        cursor.as_of_us = as_of.map(Instant::micros);
        cursor.settle()?;
        cursors.push(cursor);
        Ok(())
    };
    let erased = layers.erasures.as_ref();
    for (layer, segment) in layers.segments.iter().enumerate() {
        let units: Vec<usize> = segment.units(&wanted)?.iter().map(|u| u.row_group_idx).collect();
        if units.is_empty() {
            continue;
        }
        // Nothing in the file is younger than what is asked for, mostly.
        let as_of = query.as_of.filter(|at| segment.segment.recorded.1 > *at);
        match erased {
            None => push(layer, Box::new(segment.pages(units, &wanted, keys, &names)?), as_of)?,
            Some(erasures) => {
                let all = segment.footer.columns.iter();
                // Whether a row is left, only all its columns know.
                let columns: Vec<FileColumn> =
                    all.filter(|c| question.rows || names.contains(&c.name)).map(|c| FileColumn { meta: false, ..c.clone() }).collect();
                let columns = Arc::new(columns);
                let names = columns.iter().map(|c| &c.name).collect();
                let pages = segment.pages(units, &wanted, &ALL_KEYS, &names)?;
                let sheets = pages.map(move |batch| Ok(Sheet { batch: batch?, columns: Arc::clone(&columns) }));
                push(layer, without(Box::new(sheets), erasures, query), as_of)?;
            }
        }
    }
    for (age, layer) in layers.recent.iter().enumerate() {
        let sheets: Sheets = match layer {
            Layer::Bulk(bulk) => Box::new(std::iter::once(Ok(bulk.sheet.clone()))),
            Layer::Facts(facts) => {
                let columns = columns_for(facts, Some(&names).filter(|_| erased.is_none() || !question.rows));
                sheets_of(facts.clone(), columns, query.entity_type.clone())
            }
        };
        let batches: Batches<'a> = match erased {
            None => Box::new(sheets.map(|sheet| sheet.map(|s| s.batch))),
            Some(erasures) => without(sheets, erasures, query),
        };
        push(layers.segments.len() + age, batches, query.as_of)?;
    }
    Ok(())
}

/// Sheets without what is erased. Unless rows count they have the attributes asked for only: a row that is left out because these are erased
/// has no number.
fn without<'a>(sheets: Sheets, erasures: &Arc<Erasures>, query: &AggregateQuery) -> Batches<'a> {
    let left = without_all_erased(sheets, Arc::clone(erasures), query.as_of, query.entity_type.clone());
    Box::new(left.map(|sheet| sheet.map(|s| s.batch)))
}

/// The key columns that are read: all but the marks of deletions, whose rows have no observed time.
const KEYS: [usize; 4] = [0, 1, 2, 3];
/// Those that say what an erasure concerns.
const ALL_KEYS: [usize; 5] = [0, 1, 2, 3, 4];

type Batches<'a> = Box<dyn Iterator<Item = Result<RecordBatch, HistoryError>> + 'a>;

/// One entity after the other, from all cursors.
fn merge(
    question: Question<'_>,
    mut cursors: Vec<Cursor<'_>>,
    take: &mut dyn FnMut(&str, &Buckets) -> Result<bool, HistoryError>,
) -> Result<Sources, HistoryError> {
    let mut heap: BinaryHeap<Reverse<(String, usize)>> = BinaryHeap::new();
    for (i, cursor) in cursors.iter().enumerate() {
        heap.extend(cursor.entity().map(|id| Reverse((id.to_owned(), i))));
    }
    let mut state = OneEntity::new(question);
    while let Some(Reverse((id, first))) = heap.pop() {
        let mut of_it = vec![first];
        while let Some(Reverse((next, i))) = heap.peek()
            && *next == id
        {
            of_it.push(*i);
            heap.pop();
        }
        state.clear();
        for i in of_it {
            cursors[i].take(&id, &mut state.pieces)?;
            heap.extend(cursors[i].entity().map(|next| Reverse((next.to_owned(), i))));
        }
        state.run();
        if !take(&id, &state.buckets)? {
            break;
        }
    }
    Ok(state.sources)
}

/// A decoded batch.
struct Chunk {
    entity: DictionaryArray<Int32Type>,
    entities: StringArray,
    dataset: DictionaryArray<Int32Type>,
    observed: TimestampMicrosecondArray,
    recorded: TimestampMicrosecondArray,
    /// What the rows say instead of values, if that was asked for.
    marks: Option<DictionaryArray<Int32Type>>,
    values: Vec<Values>,
}

/// The cells of one attribute.
struct Values {
    number: Option<Float64Array>,
    text: Option<StringArray>,
}

impl Chunk {
    fn of(batch: &RecordBatch, names: &[Iri]) -> Self {
        let find = |name: &str| batch.schema_ref().index_of(name).ok().map(|i| batch.column(i));
        let key = |i: usize| find(KEY_COLUMNS[i]).expect("the key columns are in every file and are asked for");
        let values = |name: &Iri| Values {
            number: find(name.as_str()).map(|a| a.as_primitive().clone()),
            // A mixed column has few of the other kind, or is no column of numbers: without texts there is nothing to look at.
            text: find(&format!("{name}|text")).map(|a| a.as_string().clone()).filter(|a: &StringArray| a.null_count() < a.len()),
        };
        let entity = key(0).as_dictionary::<Int32Type>().clone();
        Self {
            entities: entity.values().as_string::<i32>().clone(),
            entity,
            dataset: key(1).as_dictionary::<Int32Type>().clone(),
            observed: key(2).as_primitive::<TimestampMicrosecondType>().clone(),
            recorded: key(3).as_primitive::<TimestampMicrosecondType>().clone(),
            marks: find(KEY_COLUMNS[4]).map(|a| a.as_dictionary::<Int32Type>().clone()),
            values: names.iter().map(values).collect(),
        }
    }

    fn is_mark(&self, row: usize) -> bool {
        self.marks.as_ref().is_some_and(|marks| marks.is_valid(row))
    }

    fn n_rows(&self) -> usize {
        self.observed.len()
    }

    fn entity_at(&self, row: usize) -> &str {
        self.entities.value(self.entity_key(row))
    }

    fn entity_key(&self, row: usize) -> usize {
        usize::try_from(self.entity.keys().value(row)).expect("dictionary keys are positive")
    }

    fn dataset_at(&self, row: usize) -> Option<&str> {
        let key = || usize::try_from(self.dataset.keys().value(row)).expect("dictionary keys are positive");
        self.dataset.is_valid(row).then(|| self.dataset.values().as_string::<i32>().value(key()))
    }
}

impl Values {
    /// The value in a row: none if there is none, `Some(None)` if it is no number.
    fn at(&self, row: usize) -> Option<Option<f64>> {
        if let Some(numbers) = self.number.as_ref().filter(|a| a.is_valid(row)) {
            return Some(Some(numbers.value(row)));
        }
        self.text.as_ref().filter(|a| a.is_valid(row)).map(|a| number_of_json(a.value(row)))
    }
}

/// A place in the rows of a layer.
struct Cursor<'a> {
    layer: usize,
    batches: Batches<'a>,
    chunk: Option<Arc<Chunk>>,
    row: usize,
    /// Only rows observed in here count.
    limits: Range<i64>,
    /// Only these entities are stopped at.
    entities: Option<Arc<BTreeSet<Iri>>>,
    /// Only rows recorded until then count; none if that holds for all.
    as_of_us: Option<i64>,
    /// Which days of each entity count.
    cut: Cut,
    unobserved: Unobserved,
    is_rollup: bool,
    names: Vec<Iri>,
}

impl<'a> Cursor<'a> {
    fn new(layer: usize, batches: Batches<'a>, asked: &Asked, names: Vec<Iri>) -> Self {
        let Range { start, end } = asked.observed;
        // The last instant that can be written counts, too.
        let limits = start.micros()..end.micros().saturating_add(i64::from(end == Instant::MAX));
        let (entities, cut, unobserved) = (asked.entities.clone(), asked.cut.clone(), asked.unobserved);
        Self { layer, batches, chunk: None, row: 0, limits, entities, as_of_us: None, cut, unobserved, is_rollup: false, names }
    }

    fn entity(&self) -> Option<&str> {
        self.chunk.as_ref().map(|c| c.entity_at(self.row))
    }

    /// Goes on until there is a row of a wanted entity, or nothing.
    fn settle(&mut self) -> Result<(), HistoryError> {
        loop {
            let Some(chunk) = &self.chunk else {
                match self.batches.next().transpose()? {
                    Some(batch) if batch.num_rows() > 0 => {
                        self.chunk = Some(Arc::new(Chunk::of(&batch, &self.names)));
                        self.row = 0;
                    }
                    Some(_) => {}
                    None => return Ok(()),
                }
                continue;
            };
            if self.row == chunk.n_rows() {
                self.chunk = None;
            } else if self.entities.as_ref().is_none_or(|wanted| wanted.contains(chunk.entity_at(self.row))) {
                return Ok(());
            } else {
                self.row = run_end(chunk, self.row);
            }
        }
    }

    /// The rows of an entity that is at hand.
    fn take(&mut self, id: &str, pieces: &mut Vec<Piece>) -> Result<(), HistoryError> {
        while let Some(chunk) = self.chunk.as_ref().filter(|c| c.entity_at(self.row) == id) {
            let end = run_end(chunk, self.row);
            if self.unobserved != Unobserved::Without {
                pieces.extend(Piece::unobserved(chunk, self.row..end, self));
            }
            if self.unobserved != Unobserved::Only {
                for limits in self.cut.of(id, &self.limits) {
                    pieces.extend(Piece::of(chunk, self.row..end, limits, self));
                }
            }
            self.row = end;
            self.settle()?;
        }
        Ok(())
    }
}

/// Where the rows of the entity end that is in `row`.
fn run_end(chunk: &Chunk, row: usize) -> usize {
    let keys = &chunk.entity.keys().values()[row..];
    row + keys.iter().position(|k| *k != keys[0]).unwrap_or(keys.len())
}

/// Some rows of one entity in one layer.
struct Piece {
    chunk: Arc<Chunk>,
    rows: Range<usize>,
    layer: usize,
    limits: Range<i64>,
    as_of_us: Option<i64>,
    /// Observed time of the first and the last of them.
    first: i64,
    last: i64,
    /// Time strictly increases, and every row counts.
    plain: bool,
    /// Its rows are of buckets, not of values.
    is_rollup: bool,
}

impl Piece {
    /// The rows among `rows` without observed time; none if there are none.
    fn unobserved(chunk: &Arc<Chunk>, rows: Range<usize>, cursor: &Cursor<'_>) -> Option<Self> {
        let end = rows.clone().find(|row| chunk.observed.is_valid(*row)).unwrap_or(rows.end);
        let Cursor { layer, as_of_us, .. } = *cursor;
        let (limits, rows) = (UNOBSERVED..UNOBSERVED, rows.start..end);
        let there = Self {
            chunk: Arc::clone(chunk),
            rows,
            layer,
            limits,
            as_of_us,
            first: UNOBSERVED,
            last: UNOBSERVED,
            plain: false,
            is_rollup: false,
        };
        Some(there).filter(|piece| !piece.rows.is_empty())
    }

    /// The rows among `rows` that count; none if there are none.
    fn of(chunk: &Arc<Chunk>, rows: Range<usize>, limits: Range<i64>, cursor: &Cursor<'_>) -> Option<Self> {
        // Rows without observed time come first.
        let observed = &chunk.observed;
        let start = if observed.null_count() == 0 { rows.start } else { rows.clone().find(|r| observed.is_valid(*r))? };
        let times = &observed.values()[start..rows.end];
        let from = start + times.partition_point(|t| *t < limits.start);
        let to = start + times.partition_point(|t| *t < limits.end);
        let times = &observed.values()[from..to];
        let (first, last) = (*times.first()?, *times.last()?);
        let all_known = || cursor.as_of_us.is_none_or(|at| chunk.recorded.values()[from..to].iter().all(|r| *r <= at));
        let plain = times.windows(2).all(|w| w[0] < w[1]) && all_known();
        let Cursor { layer, as_of_us, is_rollup, .. } = *cursor;
        Some(Self { chunk: Arc::clone(chunk), rows: from..to, layer, limits, as_of_us, first, last, plain, is_rollup })
    }
}

/// The work on one entity.
struct OneEntity<'a> {
    query: &'a AggregateQuery,
    rows: bool,
    squares: bool,
    pieces: Vec<Piece>,
    buckets: Buckets,
    sources: Sources,
    /// Bucket and rows, of the piece at hand.
    spans: Vec<(usize, Range<usize>)>,
}

impl<'a> OneEntity<'a> {
    fn new(question: Question<'a>) -> Self {
        let (buckets, sources) = (Buckets::default(), Sources::default());
        let Question { query, rows, .. } = question;
        Self { query, rows, squares: query.needs_squares(), pieces: Vec::new(), buckets, sources, spans: Vec::new() }
    }

    fn clear(&mut self) {
        self.pieces.clear();
        self.buckets.clear();
    }

    fn run(&mut self) {
        let mut pieces = std::mem::take(&mut self.pieces);
        pieces.sort_by_key(|p| p.first);
        for piece in &pieces {
            let n_rows = if piece.is_rollup { &mut self.sources.n_rollup_rows } else { &mut self.sources.n_raw_rows };
            *n_rows += piece.rows.len() as u64;
        }
        let mut rest = pieces.as_slice();
        while let Some(first) = rest.first() {
            let mut last = first.last;
            let n = 1 + rest[1..]
                .iter()
                .take_while(|p| {
                    let overlaps = p.first <= last;
                    last = last.max(p.last);
                    overlaps
                })
                .count();
            let (cluster, others) = rest.split_at(n);
            rest = others;
            match cluster {
                // As it is first of all times, it is the first bucket.
                [piece, ..] if piece.last == UNOBSERVED => self.unobserved(cluster),
                [piece] if piece.is_rollup => self.rolled(piece),
                [piece] if piece.plain => self.slice(piece),
                _ => self.row_by_row(cluster),
            }
        }
        self.pieces = pieces;
        self.pieces.clear();
    }

    /// Rows of a roll-up, each of which lies in one bucket as a whole.
    fn rolled(&mut self, piece: &Piece) {
        let n = self.query.attributes.len();
        let mut range = 0..0;
        let mut bucket = 0;
        let mut parts = [0.0; PARTS.len()];
        for row in piece.rows.clone() {
            let at = piece.chunk.observed.value(row);
            if !range.contains(&at) {
                range = self.query.bucket.of(at, self.query.observed.as_ref());
                bucket = self.buckets.open(range.start, n);
            }
            for (i, columns) in piece.chunk.values.chunks_exact(PARTS.len()).enumerate() {
                let Some(Some(_)) = columns[0].at(row) else { continue };
                for (part, column) in parts.iter_mut().zip(columns) {
                    *part = column.number.as_ref().map_or(0.0, |a| a.value(row));
                }
                self.buckets.accumulators[bucket * n + i].merge(&accumulator_of(&parts, at));
            }
            if self.rows
                && let Some(Some(n_rows)) = piece.chunk.values.last().and_then(|column| column.at(row))
            {
                self.buckets.rows[bucket] += n_rows as u64;
            }
        }
    }

    /// Rows in order and without corrections.
    fn slice(&mut self, piece: &Piece) {
        let n = self.query.attributes.len();
        let times = piece.chunk.observed.values();
        self.spans.clear();
        let mut row = piece.rows.start;
        while row < piece.rows.end {
            let range = self.query.bucket.of(times[row], self.query.observed.as_ref());
            let bucket = self.buckets.open(range.start, n);
            let from = row;
            row += 1;
            while row < piece.rows.end && times[row] < range.end {
                row += 1;
            }
            self.buckets.rows[bucket] += (row - from) as u64;
            self.spans.push((bucket, from..row));
        }
        for (i, values) in piece.chunk.values.iter().enumerate() {
            let accumulators = &mut self.buckets.accumulators;
            match (&values.number, &values.text) {
                (None, None) => {}
                (Some(numbers), None) if numbers.null_count() == 0 => {
                    for (bucket, rows) in &self.spans {
                        accumulators[*bucket * n + i].add_all(&times[rows.clone()], &numbers.values()[rows.clone()], self.squares);
                    }
                }
                (Some(numbers), None) => {
                    for (bucket, rows) in &self.spans {
                        let accumulator = &mut accumulators[*bucket * n + i];
                        for row in rows.clone().filter(|row| numbers.is_valid(*row)) {
                            accumulator.add(times[row], numbers.value(row), self.squares);
                        }
                    }
                }
                _ => {
                    for (bucket, rows) in &self.spans {
                        let accumulator = &mut accumulators[*bucket * n + i];
                        for row in rows.clone() {
                            if let Some(Some(x)) = values.at(row) {
                                accumulator.add(times[row], x, self.squares);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Rows without observed time: each recorded time is one, and those of the same one are the same row.
    fn unobserved(&mut self, pieces: &[Piece]) {
        let n = self.query.attributes.len();
        let mut rows: Vec<Row<'_>> = Vec::new();
        for piece in pieces {
            for row in piece.rows.clone().filter(|row| !piece.chunk.is_mark(*row)) {
                let recorded_at = piece.chunk.recorded.value(row);
                if piece.as_of_us.is_none_or(|as_of| recorded_at <= as_of) {
                    let (dataset, layer) = (piece.chunk.dataset_at(row), piece.layer);
                    rows.push(Row { at: UNOBSERVED, dataset, recorded_at, layer, chunk: &piece.chunk, row });
                }
            }
        }
        if rows.is_empty() {
            return;
        }
        rows.sort_unstable_by_key(|r| (r.recorded_at, r.dataset, r.layer));
        let bucket = self.buckets.open(self.query.bucket_start(UNOBSERVED), n);
        for same in rows.chunk_by(|a, b| (a.recorded_at, a.dataset) == (b.recorded_at, b.dataset)) {
            self.buckets.rows[bucket] += 1;
            for i in 0..n {
                if let Some(Some(x)) = same.iter().rev().find_map(|r| r.chunk.values[i].at(r.row)) {
                    self.buckets.accumulators[bucket * n + i].add(UNOBSERVED, x, self.squares);
                }
            }
        }
    }

    /// Rows of which some speak of the same moment: the one recorded last counts, attribute by attribute.
    fn row_by_row(&mut self, pieces: &[Piece]) {
        let n = self.query.attributes.len();
        let mut rows: Vec<Row<'_>> = Vec::new();
        for piece in pieces {
            for row in piece.rows.clone() {
                let (at, recorded_at) = (piece.chunk.observed.value(row), piece.chunk.recorded.value(row));
                if piece.limits.contains(&at) && piece.as_of_us.is_none_or(|as_of| recorded_at <= as_of) {
                    rows.push(Row { at, dataset: piece.chunk.dataset_at(row), recorded_at, layer: piece.layer, chunk: &piece.chunk, row });
                }
            }
        }
        rows.sort_unstable_by(|a, b| a.key().cmp(&b.key()));
        let mut range = 0..0;
        let mut bucket = 0;
        for moment in rows.chunk_by(|a, b| (a.at, a.dataset) == (b.at, b.dataset)) {
            let at = moment[0].at;
            if !range.contains(&at) {
                range = self.query.bucket.of(at, self.query.observed.as_ref());
                bucket = self.buckets.open(range.start, n);
            }
            self.buckets.rows[bucket] += 1;
            for i in 0..n {
                if let Some(Some(x)) = moment.iter().rev().find_map(|r| r.chunk.values[i].at(r.row)) {
                    self.buckets.accumulators[bucket * n + i].add(at, x, self.squares);
                }
            }
        }
    }
}

/// A row among those of several pieces.
struct Row<'a> {
    at: i64,
    dataset: Option<&'a str>,
    recorded_at: i64,
    layer: usize,
    chunk: &'a Chunk,
    row: usize,
}

impl Row<'_> {
    fn key(&self) -> (i64, Option<&str>, i64, usize) {
        (self.at, self.dataset, self.recorded_at, self.layer)
    }
}
