//! One entity's past from all layers: sealed segments, facts that are being sealed, recent facts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use entity::{Attribute, Instant, Iri};

use super::super::erasure::Erasures;
use super::super::{Evolution, HistoryError, Kept, TemporalQuery, TimeProperty};
use super::cell::{self, Place};
use super::erase::without_erased;
use super::marks::is_at_home;
use super::recent::EntityRows;
use super::segment::{AttributeColumns, Attributes, Keys, Metas, OpenSegment, Unit, Wanted, wanted_of};
use super::sheet::{BulkSheet, Sheet};
use super::write::FileColumn;

/// The rows of one entity in memory: its type, the age of the layer (larger is newer), the rows.
pub(super) struct RecentRows {
    pub(super) entity_type: Iri,
    pub(super) layer: usize,
    pub(super) rows: Rows,
}

/// The rows of one entity in a layer in memory.
pub(super) enum Rows {
    /// As facts.
    Facts(Arc<EntityRows>),
    /// Among those of others.
    Bulk(Arc<BulkSheet>),
}

/// The erasures that concern the entity, by table.
pub(super) type ErasuresByType = BTreeMap<Iri, Arc<Erasures>>;

/// Answers `query`. `segments` are in the order in which they were written.
pub(super) fn evolution(
    query: &TemporalQuery,
    segments: &[Arc<OpenSegment>],
    recent: &[RecentRows],
    erasures: &ErasuresByType,
    kept: &BTreeMap<Iri, Kept>,
) -> Result<Option<Evolution>, HistoryError> {
    let mut answer = Answer::new(query, erasures);
    for rows in recent {
        match &rows.rows {
            Rows::Facts(facts) => answer.take_rows(rows, facts),
            Rows::Bulk(bulk) => {
                answer.take_bulk(rows, bulk).map_err(|reason| HistoryError::Columnar { entity_type: rows.entity_type.clone(), reason })?;
            }
        }
    }
    answer.read(segments)?;
    for entity_type in answer.types.keys() {
        kept.get(entity_type).map_or(Ok(()), |k| k.check(entity_type, query.attributes.as_deref(), query.as_of))?;
    }
    let Some(entity_type) = newest_type(&answer, segments)? else { return Ok(None) };
    let (attributes, cut_at) = answer.finish();
    Ok(Some(Evolution { id: query.entity.clone(), entity_type, attributes, cut_at }))
}

/// An instance that may be part of the answer.
struct Candidate {
    recorded_at: Instant,
    /// Where it was found: type and layer decide between facts of the same recorded time.
    source: Source,
    attribute: Attribute,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    entity_type: Iri,
    layer: usize,
}

impl Candidate {
    /// What it speaks of; a second candidate with the same subject is a correction or a repetition.
    fn subject(&self) -> (Option<Instant>, Option<Instant>, Option<&Iri>) {
        let a = &self.attribute;
        let recorded_at = if a.observed_at.is_none() { Some(self.recorded_at) } else { None };
        (a.observed_at, recorded_at, a.dataset_id.as_ref())
    }

    /// The time of the time property, or of the recording if there is none.
    fn time(&self, property: TimeProperty) -> Instant {
        match property {
            TimeProperty::ObservedAt => self.attribute.observed_at.unwrap_or(self.recorded_at),
            TimeProperty::ModifiedAt => self.recorded_at,
            TimeProperty::CreatedAt => self.attribute.created_at,
        }
    }
}

struct Answer<'a> {
    query: &'a TemporalQuery,
    erasures: &'a ErasuresByType,
    /// The attributes asked for.
    names: Option<BTreeSet<&'a Iri>>,
    wanted: Wanted,
    candidates: BTreeMap<Iri, Vec<Candidate>>,
    n_candidates: usize,
    /// Types under which a fact was found, with the newest recorded time found (in the segments there may be newer ones that were not read).
    types: BTreeMap<Iri, Instant>,
}

impl<'a> Answer<'a> {
    fn new(query: &'a TemporalQuery, erasures: &'a ErasuresByType) -> Self {
        let interval_of = |property| query.interval.clone().filter(|_| query.time_property == property);
        let wanted = Wanted {
            entities: Some(Arc::new(BTreeSet::from([query.entity.clone()]))),
            observed: interval_of(TimeProperty::ObservedAt),
            unobserved_only: false,
            // What was recorded before is not in the interval and corrects nothing in it.
            recorded_from: interval_of(TimeProperty::ModifiedAt).map(|i| i.start),
            recorded_to: query.as_of,
            values_only: false,
        };
        let names = query.attributes.as_ref().map(|names| names.iter().collect());
        Self { query, erasures, names, wanted, candidates: BTreeMap::new(), n_candidates: 0, types: BTreeMap::new() }
    }

    fn take_bulk(&mut self, recent: &RecentRows, bulk: &BulkSheet) -> Result<(), String> {
        if self.query.as_of.is_some_and(|as_of| bulk.recorded_at > as_of) {
            return Ok(());
        }
        let Some(rows) = bulk.rows_of(&self.query.entity) else { return Ok(()) };
        let rows = self.visible(rows, &bulk.sheet.columns, &recent.entity_type)?;
        if rows.num_rows() == 0 {
            return Ok(());
        }
        self.found(&recent.entity_type, bulk.recorded_at);
        let wanted = Wanted { entities: None, ..self.wanted.clone() };
        let rows = wanted_of(rows, &wanted).map_err(|e| e.to_string())?;
        let source = Source { entity_type: recent.entity_type.clone(), layer: recent.layer };
        self.take_batch(&rows, &bulk.sheet.columns, &source)
    }

    /// The rows of a batch without what is erased; it must have all columns if anything is.
    fn visible(&self, batch: RecordBatch, columns: &Arc<Vec<FileColumn>>, entity_type: &Iri) -> Result<RecordBatch, String> {
        match self.erasures.get(entity_type) {
            None => Ok(batch),
            Some(erasures) => {
                let sheet = Sheet { batch, columns: Arc::clone(columns) };
                Ok(without_erased(sheet, erasures, self.query.as_of).map_err(|e| e.to_string())?.batch)
            }
        }
    }

    fn take_rows(&mut self, recent: &RecentRows, rows: &EntityRows) {
        let source = Source { entity_type: recent.entity_type.clone(), layer: recent.layer };
        let erasures = self.erasures.get(&recent.entity_type).map_or_else(Vec::new, |e| e.of(self.query.entity.as_str(), self.query.as_of));
        for (key, values) in rows {
            if self.query.as_of.is_some_and(|as_of| key.recorded_at > as_of) {
                continue;
            }
            let is_visible = key.visibility(&erasures);
            let is_gone = match key.mark() {
                Some(mark) => !mark.is_at_home() || !is_visible(mark.attribute()),
                None => !values.iter().any(|(name, _)| is_visible(Some(name.as_str()))),
            };
            if is_gone {
                continue;
            }
            self.found(&recent.entity_type, key.recorded_at);
            if !self.wanted.recorded(key.recorded_at) || !self.wanted.observed(key.observed_at) {
                continue;
            }
            for (name, attribute) in values.iter().filter(|(name, _)| is_visible(Some(name.as_str()))) {
                if self.names.as_ref().is_none_or(|names| names.contains(name)) {
                    let candidate =
                        Candidate { recorded_at: key.recorded_at, source: source.clone(), attribute: Attribute::clone(attribute) };
                    self.candidates.entry(name.clone()).or_default().push(candidate);
                    self.n_candidates += 1;
                }
            }
        }
    }

    fn found(&mut self, entity_type: &Iri, recorded_at: Instant) {
        match self.types.get_mut(entity_type) {
            Some(newest) => *newest = recorded_at.max(*newest),
            None => {
                self.types.insert(entity_type.clone(), recorded_at);
            }
        }
    }

    /// Reads row groups from the end of time that the answer begins with, until what is there suffices.
    fn read(&mut self, segments: &[Arc<OpenSegment>]) -> Result<(), HistoryError> {
        let mut units: Vec<(usize, Unit)> = Vec::new();
        for (layer, segment) in segments.iter().enumerate() {
            units.extend(segment.units(&self.wanted)?.into_iter().map(|u| (layer, u)));
        }
        let newest_first = self.query.last_n.is_some();
        units.sort_by_key(|(layer, u)| (if newest_first { -u.moments.1.micros() } else { u.moments.0.micros() }, *layer, u.row_group_idx));
        // From which unit on no row has a `datasetId`.
        let default_from = units.iter().rposition(|(_, u)| u.has_datasets).map_or(0, |i| i + 1);
        let mut check_at = self.query.last_n.unwrap_or(usize::MAX).min(self.query.instances_max.saturating_add(1));
        for (i, (layer, unit)) in units.iter().enumerate() {
            let segment = &segments[*layer];
            let source = Source { entity_type: segment.segment.entity_type.clone(), layer: *layer };
            let names = self.names.take();
            let may_be_erased = self.erasures.contains_key(&source.entity_type);
            let attributes = names.as_ref().filter(|_| !may_be_erased).map_or(Attributes::All, Attributes::Some);
            let result = segment.read(vec![unit.row_group_idx], &self.wanted.clone(), attributes, |batch| {
                let columns = &segment.footer.columns;
                let taken = self.visible(batch, columns, &source.entity_type).and_then(|b| self.take_batch(&b, columns, &source));
                taken.map_err(|reason| segment.damaged(reason))
            });
            self.names = names;
            result?;
            let Some((_, next)) = units.get(i + 1) else { break };
            if self.n_candidates >= check_at {
                self.settle();
                if self.suffices(next, i + 1 >= default_from) {
                    break;
                }
                // Looking again costs as much as what is there: wait until it has doubled.
                check_at = self.n_candidates.saturating_mul(2).max(check_at);
            }
        }
        Ok(())
    }

    fn take_batch(&mut self, batch: &RecordBatch, columns: &[FileColumn], source: &Source) -> Result<(), String> {
        let keys = Keys::of(batch);
        let datasets: Vec<Iri> = keys.dataset.values().iter().flatten().map(cell::iri).collect::<Result<_, _>>()?;
        let newest = (0..batch.num_rows()).filter(|row| is_at_home(&keys, *row)).map(|row| keys.recorded_at(row)).max();
        if let Some(newest) = newest {
            self.found(&source.entity_type, newest);
        }
        let is_asked = |name: &Iri| self.query.attributes.as_ref().is_none_or(|names| names.contains(name));
        for a in AttributeColumns::all(batch, columns).into_iter().filter(|a| is_asked(&a.column.name)) {
            let mut metas = Metas::default();
            let candidates = self.candidates.entry(a.column.name.clone()).or_default();
            for row in 0..batch.num_rows() {
                let (number, text) = (a.number_at(row), a.text_at(row));
                if number.is_none() && text.is_none() {
                    continue;
                }
                let dataset_id = keys.dataset.get(row).map(|_| &datasets[keys.dataset.key_of(row)]);
                let recorded_at = keys.recorded_at(row);
                let meta = metas.of(&a, row)?;
                let place = Place { dataset_id, observed_at: keys.observed_at(row), recorded_at };
                let attribute = cell::decode(number, text, meta, a.column.integers, place)?;
                candidates.push(Candidate { recorded_at, source: source.clone(), attribute });
                self.n_candidates += 1;
            }
        }
        Ok(())
    }

    /// Leaves of each subject only the latest candidate.
    fn settle(&mut self) {
        for candidates in self.candidates.values_mut() {
            candidates
                .sort_by(|a, b| a.subject().cmp(&b.subject()).then_with(|| (b.recorded_at, &b.source).cmp(&(a.recorded_at, &a.source))));
            candidates.dedup_by(|later, kept| later.subject() == kept.subject());
        }
        self.n_candidates = self.candidates.values().map(Vec::len).sum();
    }

    /// Can nothing in `next`, or in the units behind it, change the answer? `default_only`: all of these are of default instances.
    fn suffices(&self, next: &Unit, default_only: bool) -> bool {
        // Only observed time orders the units; corrections of a moment are in units that span it.
        if self.query.time_property != TimeProperty::ObservedAt {
            return false;
        }
        let is_decided = |c: &&Candidate| {
            let time = c.time(TimeProperty::ObservedAt);
            if self.query.last_n.is_some() { time > next.moments.1 } else { time < next.moments.0 }
        };
        let n_max = self.query.last_n.unwrap_or(usize::MAX);
        // Of each series those instants count that will be left of it.
        let decided = |candidates: &Vec<Candidate>| {
            let mut list: Vec<&Candidate> = candidates.iter().filter(is_decided).collect();
            list.sort_unstable_by_key(|c| std::cmp::Reverse(c.time(TimeProperty::ObservedAt)));
            first_of_each(&mut list, n_max, |c| &c.attribute.dataset_id);
            list.iter().map(|c| (c.attribute.dataset_id.is_none(), c.time(TimeProperty::ObservedAt))).collect::<Vec<_>>()
        };
        let decided: BTreeMap<&Iri, Vec<(bool, Instant)>> = self.candidates.iter().map(|(name, list)| (name, decided(list))).collect();
        let full = |name: &&Iri| decided.get(*name).is_some_and(|list| list.iter().filter(|(is_default, _)| *is_default).count() >= n_max);
        if default_only && self.names.as_ref().is_some_and(|names| names.iter().all(full)) {
            return true;
        }
        // Whether a single instant too long for the limit is all there is, only the units behind it know.
        let mut times = decided.values().flatten().map(|(_, at)| *at);
        let first = times.next();
        let has_two_instants = times.any(|at| Some(at) != first);
        has_two_instants && decided.values().map(Vec::len).sum::<usize>() > self.query.instances_max
    }

    /// The instances of the answer and where it was cut.
    fn finish(mut self) -> (indexmap::IndexMap<Iri, Vec<Attribute>>, Option<Instant>) {
        self.settle();
        let Self { query, candidates, .. } = self;
        let property = query.time_property;
        let mut chosen: Vec<(Iri, Vec<Candidate>)> = candidates.into_iter().collect();
        for (_, candidates) in &mut chosen {
            if let Some(interval) = &query.interval {
                let has_time = |c: &Candidate| property != TimeProperty::ObservedAt || c.attribute.observed_at.is_some();
                candidates.retain(|c| has_time(c) && interval.contains(&c.time(property)));
            }
            candidates.sort_by(|a, b| {
                let key = |c: &Candidate| (c.time(property), c.recorded_at, c.attribute.observed_at);
                key(a).cmp(&key(b)).then_with(|| a.attribute.dataset_id.cmp(&b.attribute.dataset_id))
            });
            if let Some(n) = query.last_n {
                candidates.reverse();
                first_of_each(candidates, n, |c| &c.attribute.dataset_id);
            }
        }
        let cut_at = cut(&chosen, query);
        if let Some(at) = cut_at {
            for (_, candidates) in &mut chosen {
                candidates.retain(|c| if query.last_n.is_some() { c.time(property) >= at } else { c.time(property) <= at });
            }
        }
        let instances = |candidates: Vec<Candidate>| candidates.into_iter().map(|c| c.attribute).collect();
        (chosen.into_iter().filter(|(_, c)| !c.is_empty()).map(|(name, c)| (name, instances(c))).collect(), cut_at)
    }
}

/// Leaves of each `datasetId` the first `n`.
fn first_of_each<T>(list: &mut Vec<T>, n: usize, dataset_of: impl Fn(&T) -> &Option<Iri>) {
    // Nearly always there is one series, of default instances.
    let mut n_default = 0;
    let mut n_others: BTreeMap<Iri, usize> = BTreeMap::new();
    list.retain(|item| {
        let seen = match dataset_of(item) {
            None => &mut n_default,
            Some(id) => n_others.entry(id.clone()).or_default(),
        };
        *seen += 1;
        *seen <= n
    });
}

/// The last instant that fits into the limit, if not all do.
fn cut(chosen: &[(Iri, Vec<Candidate>)], query: &TemporalQuery) -> Option<Instant> {
    let mut times: Vec<Instant> = chosen.iter().flat_map(|(_, c)| c).map(|c| c.time(query.time_property)).collect();
    if times.len() <= query.instances_max {
        return None;
    }
    times.sort_unstable();
    if query.last_n.is_some() {
        times.reverse();
    }
    // The first instant that does not fit completely; the one before it is the last of the answer. If it is the very first, it is
    // returned whole, and nothing is cut if there is no other.
    let too_much = times[query.instances_max];
    let last = times[..query.instances_max].iter().rev().find(|t| **t != too_much).copied().unwrap_or(times[0]);
    (times.last() != Some(&last)).then_some(last)
}

/// The type of the newest fact of the entity, whatever the query restricts; none if there is no fact.
fn newest_type(answer: &Answer<'_>, segments: &[Arc<OpenSegment>]) -> Result<Option<Iri>, HistoryError> {
    let wanted = Wanted { observed: None, recorded_from: None, ..answer.wanted.clone() };
    let mut may_have: Vec<(&Arc<OpenSegment>, Vec<Unit>)> = Vec::new();
    for segment in segments {
        let units = segment.units(&wanted)?;
        if !units.is_empty() {
            may_have.push((segment, units));
        }
    }
    // Usually an entity has one type for all its life, and it was found.
    if let Some((found, _)) = answer.types.first_key_value()
        && answer.types.len() == 1
        && may_have.iter().all(|(s, _)| s.segment.entity_type == *found)
    {
        return Ok(Some(found.clone()));
    }
    let mut newest: Option<(Instant, Iri)> = answer.types.iter().map(|(t, at)| (*at, t.clone())).max();
    for (segment, units) in may_have {
        let none = BTreeSet::new();
        let idxs = units.iter().map(|u| u.row_group_idx).collect();
        let may_be_erased = answer.erasures.contains_key(&segment.segment.entity_type);
        let attributes = if may_be_erased { Attributes::All } else { Attributes::Some(&none) };
        segment.read(idxs, &wanted, attributes, |batch| {
            let visible = answer.visible(batch, &segment.footer.columns, &segment.segment.entity_type);
            let batch = visible.map_err(|reason| segment.damaged(reason))?;
            let keys = Keys::of(&batch);
            let latest = (0..batch.num_rows())
                .filter(|row| is_at_home(&keys, *row))
                .map(|row| (keys.recorded_at(row), segment.segment.entity_type.clone()))
                .max();
            newest = newest.take().max(latest);
            Ok(())
        })?;
    }
    Ok(newest.map(|(_, entity_type)| entity_type))
}
