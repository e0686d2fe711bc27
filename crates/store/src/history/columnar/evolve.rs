//! One entity's past from all layers: sealed segments, facts that are being sealed, recent facts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use entity::{Attribute, Instant, Iri};

use super::super::{Evolution, HistoryError, TemporalQuery, TimeProperty};
use super::cell::{self, Place};
use super::recent::EntityRows;
use super::segment::{AttributeColumns, Attributes, Keys, Metas, OpenSegment, Unit, Wanted};
use super::write::FileColumn;

/// The rows of one entity in memory: its type, the age of the layer (larger is newer), the rows.
pub(super) struct RecentRows {
    pub(super) entity_type: Iri,
    pub(super) layer: usize,
    pub(super) rows: Arc<EntityRows>,
}

/// Answers `query`. `segments` are in the order in which they were written.
pub(super) fn evolution(
    query: &TemporalQuery,
    segments: &[Arc<OpenSegment>],
    recent: &[RecentRows],
) -> Result<Option<Evolution>, HistoryError> {
    let mut answer = Answer::new(query);
    for rows in recent {
        answer.take_rows(rows);
    }
    answer.read(segments)?;
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
    /// The attributes asked for.
    names: Option<BTreeSet<&'a Iri>>,
    wanted: Wanted,
    candidates: BTreeMap<Iri, Vec<Candidate>>,
    n_candidates: usize,
    /// Types under which a fact was found, with the newest recorded time found (in the segments there may be newer ones that were not read).
    types: BTreeMap<Iri, Instant>,
}

impl<'a> Answer<'a> {
    fn new(query: &'a TemporalQuery) -> Self {
        let interval_of = |property| query.interval.clone().filter(|_| query.time_property == property);
        let wanted = Wanted {
            entities: Some(Arc::new(BTreeSet::from([query.entity.clone()]))),
            observed: interval_of(TimeProperty::ObservedAt),
            // What was recorded before is not in the interval and corrects nothing in it.
            recorded_from: interval_of(TimeProperty::ModifiedAt).map(|i| i.start),
            recorded_to: query.as_of,
            values_only: false,
        };
        let names = query.attributes.as_ref().map(|names| names.iter().collect());
        Self { query, names, wanted, candidates: BTreeMap::new(), n_candidates: 0, types: BTreeMap::new() }
    }

    fn take_rows(&mut self, recent: &RecentRows) {
        let source = Source { entity_type: recent.entity_type.clone(), layer: recent.layer };
        for (key, values) in recent.rows.iter() {
            if self.query.as_of.is_some_and(|as_of| key.recorded_at > as_of) {
                continue;
            }
            self.found(&recent.entity_type, key.recorded_at);
            if !self.wanted.recorded(key.recorded_at) || !self.wanted.observed(key.observed_at) {
                continue;
            }
            for (name, attribute) in values {
                if self.names.as_ref().is_none_or(|names| names.contains(name)) {
                    let candidate = Candidate { recorded_at: key.recorded_at, source: source.clone(), attribute: attribute.clone() };
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
        let mut units: Vec<(usize, Unit)> =
            segments.iter().enumerate().flat_map(|(layer, s)| s.units(&self.wanted).into_iter().map(move |u| (layer, u))).collect();
        let newest_first = self.query.last_n.is_some();
        units.sort_by_key(|(layer, u)| (if newest_first { -u.moments.1.micros() } else { u.moments.0.micros() }, *layer, u.row_group_idx));
        let mut check_at = self.query.last_n.unwrap_or(usize::MAX).min(self.query.instances_max.saturating_add(1));
        for (i, (layer, unit)) in units.iter().enumerate() {
            let segment = &segments[*layer];
            let source = Source { entity_type: segment.segment.entity_type.clone(), layer: *layer };
            let names = self.names.take();
            let attributes = names.as_ref().map_or(Attributes::All, Attributes::Some);
            let result = segment.read(vec![unit.row_group_idx], &self.wanted.clone(), attributes, |batch| {
                self.take_batch(&batch, &segment.footer.columns, &source).map_err(|reason| segment.damaged(reason))
            });
            self.names = names;
            result?;
            let Some((_, next)) = units.get(i + 1) else { break };
            if self.n_candidates >= check_at {
                self.settle();
                if self.suffices(next) {
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
        let newest = (0..batch.num_rows()).map(|row| keys.recorded_at(row)).max();
        if let Some(newest) = newest {
            self.found(&source.entity_type, newest);
        }
        for a in AttributeColumns::all(batch, columns) {
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

    /// Can nothing in `next`, or in the units behind it, change the answer?
    fn suffices(&self, next: &Unit) -> bool {
        // Only observed time orders the units; corrections of a moment are in units that span it.
        if self.query.time_property != TimeProperty::ObservedAt {
            return false;
        }
        let is_decided = |c: &&Candidate| {
            let time = c.time(TimeProperty::ObservedAt);
            if self.query.last_n.is_some() { time > next.moments.1 } else { time < next.moments.0 }
        };
        let n_decided = |candidates: &Vec<Candidate>| candidates.iter().filter(is_decided).count();
        let n_max = self.query.last_n.unwrap_or(usize::MAX);
        let full = |name: &&Iri| self.candidates.get(*name).is_some_and(|c| n_decided(c) >= n_max);
        let all_full = self.names.as_ref().is_some_and(|names| names.iter().all(full));
        if all_full {
            return true;
        }
        // Whether a single instant too long for the limit is all there is, only the units behind it know.
        let mut times = self.candidates.values().flatten().filter(is_decided).map(|c| c.time(TimeProperty::ObservedAt));
        let first = times.next();
        let has_two_instants = times.any(|t| Some(t) != first);
        has_two_instants && self.candidates.values().map(|c| n_decided(c).min(n_max)).sum::<usize>() > self.query.instances_max
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
                candidates.truncate(n);
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
    let may_have: Vec<(&Arc<OpenSegment>, Vec<Unit>)> =
        segments.iter().map(|s| (s, s.units(&wanted))).filter(|(_, units)| !units.is_empty()).collect();
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
        segment.read(idxs, &wanted, Attributes::Some(&none), |batch| {
            let keys = Keys::of(&batch);
            let latest = (0..batch.num_rows()).map(|row| (keys.recorded_at(row), segment.segment.entity_type.clone())).max();
            newest = newest.take().max(latest);
            Ok(())
        })?;
    }
    Ok(newest.map(|(_, entity_type)| entity_type))
}
