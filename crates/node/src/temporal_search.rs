//! Many entities' pasts (ETSI GS CIM 009 V1.9.1, clause 5.7.4): which entities, and a page of what was true of them in an interval.
//!
//! Where to look is told by the ids and types that the condition names; the history says which entities have values in the interval from
//! the times of its parts. Each of these is then judged by its own instances in the interval.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use entity::{Attribute, Attributes, Comparison, Entity, Filter, Instant, Iri, Path, Series, SortBy, SortOrder, Target, TypeSelector};
use policy::{Action, Permit, Principal};
use store::history::{Evolution, Marked, TemporalQuery, What};
use store::state::Space;

use crate::error::NodeError;
use crate::node::Node;
use crate::operations::QUERY_LIMIT_MAX;
use crate::order::Sorter;
use crate::temporal::{PeriodQuery, PeriodValues, over_periods};
use crate::temporal_known::{Known, deletion_of};
use crate::temporal_past::{AskedTime, Past, PastQuery};

/// Entities that one question about the past looks at.
pub const PAST_ENTITIES_MAX: usize = 100_000;

/// Instances of one entity that a condition is tried on.
pub const PAST_CONDITION_INSTANCES_MAX: usize = 500_000;

/// Results of one page of aggregated pasts.
pub const PAGE_PERIODS_MAX: usize = 500_000;

/// How often an answer may be longer than what was asked for, so that it always has two instants, of which the next page can begin with the
/// second.
const PAGE_INSTANTS_MIN: usize = 2;
const LONGER_MAX: usize = 4;

/// A question about the past of many entities.
#[derive(Clone, PartialEq, Debug)]
pub struct PastSearch {
    /// The condition: on values it is tried on all instances in the interval, on scopes on those that were valid in it.
    pub filter: Filter,
    /// What of each entity; it must have an interval.
    pub past: PastQuery,
    /// Entities to skip, in the order of ids.
    pub offset: usize,
    /// Entities to return, at most [`QUERY_LIMIT_MAX`].
    pub limit: usize,
    /// Count all matches.
    pub count: bool,
    /// Another order of ids than that of their characters.
    pub order: Option<SortOrder>,
}

/// A page of pasts.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct PastPage {
    /// In the order of ids.
    pub entities: Vec<Past>,
    /// There are more entities.
    pub more: bool,
    /// How many there are in all, if that was asked.
    pub total: Option<usize>,
    /// Set when the instances were cut, all at this instant: the time of the last one returned.
    pub cut_at: Option<Instant>,
}

/// An entity's past over periods.
#[derive(Clone, PartialEq, Debug)]
pub struct Aggregated {
    /// The entity.
    pub id: Iri,
    /// Its types: those that it has, or had last.
    pub types: Vec<Iri>,
    /// Its attributes.
    pub values: Vec<PeriodValues>,
}

/// A page of pasts over periods.
#[derive(Clone, PartialEq, Debug)]
pub struct PeriodPage {
    /// In the order of ids.
    pub entities: Vec<Aggregated>,
    /// There are more entities.
    pub more: bool,
    /// How many there are in all, if that was asked.
    pub total: Option<usize>,
}

/// An entity that satisfies the condition.
pub(crate) struct Selected {
    pub(crate) id: Iri,
    /// Its types: those that it has, or had last.
    types: Vec<Iri>,
    /// What it is, if it is there and that was looked at.
    present: Option<Arc<Entity>>,
    /// What is known of it, if that had to be looked at.
    known: Option<Known>,
    /// Only values of these times are returned: those in which it was in the scopes asked for.
    pub(crate) within: Option<Vec<Range<Instant>>>,
}

/// Which entities of a question are on a page.
pub(crate) struct SelectedPage {
    pub(crate) entities: Vec<Selected>,
    pub(crate) more: bool,
    pub(crate) total: Option<usize>,
}

impl Node {
    /// The past of the entities that satisfy a condition. Blocks the thread.
    ///
    /// Errors: the policy's; more than [`PAST_ENTITIES_MAX`] entities would have to be looked at, or more than
    /// [`PAST_CONDITION_INSTANCES_MAX`] instances of one; a page is too long.
    pub fn search_past(&self, who: &Principal, search: &PastSearch) -> Result<PastPage, NodeError> {
        let SelectedPage { entities, more, total } = self.select_past(who, search)?;
        let max = search.past.instances_max;
        let time = search.past.time;
        let newest_first = search.past.last_n.is_some();
        let values_only = !search.past.with_scopes && !search.past.with_ends && time != AskedTime::DeletedAt;
        let mut page = PastPage { entities: Vec::with_capacity(entities.len()), more, total, cut_at: None };
        let mut cut = Cut { at: None, newest_first, time };
        for selected in entities {
            let query = PastQuery { interval: search.past.interval.as_ref().map(|i| cut.narrowed(i)), ..search.past.clone() };
            let known = match (selected.known, selected.present) {
                (Some(known), _) => known,
                // What it was need not be read where only values are shown.
                (None, Some(present)) if values_only => Known::of_present(present),
                (None, _) => self.known(&selected.id, search.past.as_of)?,
            };
            let evolution = self.selected_evolution(&selected.id, selected.within.as_deref(), &query)?;
            if let Some(at) = evolution.cut_at {
                cut.take(at);
            }
            // Ends and scopes are those of the whole interval.
            page.entities.push(self.past_of(evolution, &known, &search.past)?);
            if n_instances(&page.entities) > LONGER_MAX * max {
                cut.shorten(&mut page.entities, max)?;
            }
        }
        cut.apply(&mut page.entities);
        if n_instances(&page.entities) > max {
            cut.shorten(&mut page.entities, max)?;
        }
        page.cut_at = cut.at;
        Ok(page)
    }

    /// The same over periods. The condition, the interval and the page are those of `search`, the rest is that of `of`, whatever its entity.
    ///
    /// Errors: those of [`Node::search_past`] and [`Node::evolution_over_periods`].
    pub fn search_over_periods(&self, who: &Principal, search: &PastSearch, of: &PeriodQuery) -> Result<PeriodPage, NodeError> {
        let SelectedPage { entities, more, total } = self.select_past(who, search)?;
        let mut page = PeriodPage { entities: Vec::with_capacity(entities.len()), more, total };
        let mut n_periods = 0;
        for selected in entities {
            let query = PeriodQuery { temporal: search.past.of(selected.id.clone()), ..of.clone() };
            let (entity_type, values) = if selected.within.is_some() {
                let evolution = self.selected_evolution(&selected.id, selected.within.as_deref(), &search.past)?;
                (evolution.entity_type.clone(), over_periods(&query, &evolution)?)
            } else {
                self.evolution_over_periods(who, &query)?
            };
            n_periods += values.iter().flat_map(|v| &v.series).map(|(_, periods)| periods.len()).sum::<usize>();
            if n_periods > PAGE_PERIODS_MAX {
                let what =
                    format!("the page has more than {PAGE_PERIODS_MAX} periods, which is the limit; ask for longer ones or fewer entities");
                return Err(NodeError::Limit { what });
            }
            let types = if selected.types.is_empty() { vec![entity_type] } else { selected.types };
            page.entities.push(Aggregated { id: selected.id, types, values });
        }
        Ok(page)
    }

    /// The entities of a page.
    pub(crate) fn select_past(&self, who: &Principal, search: &PastSearch) -> Result<SelectedPage, NodeError> {
        if !matches!(self.permit(who, Action::Read, None)?, Permit::Everything) {
            return Err(NodeError::Denied { reason: "another city's questions come through the exchange between nodes".to_owned() });
        }
        if search.limit > QUERY_LIMIT_MAX {
            return Err(NodeError::Limit {
                what: format!("limit {} is more than the {QUERY_LIMIT_MAX} entities that one page may have", search.limit),
            });
        }
        let interval = search.past.interval.clone();
        let interval =
            interval.ok_or_else(|| NodeError::Invalid { what: "a question about many entities needs an interval".to_owned() })?;
        let condition = Condition::of(&search.filter);
        let Candidates { ids: candidates, certain } = self.past_candidates(search, &interval)?;
        let mut page = SelectedPage { entities: Vec::new(), more: false, total: None };
        let mut n_matched = 0;
        let in_order = match &search.order {
            None => candidates.into_iter().collect(),
            Some(order) => ids_in_order(candidates, order)?,
        };
        for id in in_order {
            let has_values = certain.contains(&id);
            let Some(selected) = self.select(id, &condition, search, (&interval, has_values))? else { continue };
            n_matched += 1;
            if n_matched <= search.offset {
                continue;
            }
            if page.entities.len() < search.limit {
                page.entities.push(selected);
                continue;
            }
            page.more = true;
            if !search.count {
                break;
            }
        }
        page.total = search.count.then_some(n_matched);
        Ok(page)
    }

    /// The values of an entity of a page, `within` some times if it is not all of the interval.
    fn selected_evolution(&self, id: &Iri, within: Option<&[Range<Instant>]>, query: &PastQuery) -> Result<Evolution, NodeError> {
        let history = self.store.history();
        let nothing = || Evolution { id: id.clone(), entity_type: id.clone(), attributes: Series::default(), cut_at: None };
        if query.time == AskedTime::DeletedAt {
            return Ok(nothing());
        }
        let asked = query.of(id.clone());
        let Some(ranges) = within else { return Ok(history.evolution(&asked)?.unwrap_or_else(nothing)) };
        let mut all = nothing();
        let newest_first = query.last_n.is_some();
        let in_order: Vec<&Range<Instant>> = if newest_first { ranges.iter().rev().collect() } else { ranges.iter().collect() };
        let whole = query.interval.clone().unwrap_or(Instant::MIN..Instant::MAX);
        for range in in_order {
            let part = range.start.max(whole.start)..range.end.min(whole.end);
            if part.start >= part.end {
                continue;
            }
            let Some(found) = history.evolution(&TemporalQuery { interval: Some(part), ..asked.clone() })? else { continue };
            for (name, instances) in found.attributes {
                all.attributes.entry(name).or_default().extend(instances);
            }
            if found.cut_at.is_some() {
                all.cut_at = found.cut_at;
                break;
            }
        }
        if let Some(n) = query.last_n {
            all.attributes.values_mut().for_each(|list| truncate_each(list, n));
        }
        all.attributes.sort_keys();
        Ok(all)
    }

    /// The entity as selected, if it satisfies the condition and has an instance in the interval. `has_values`: that it has is known.
    fn select(
        &self,
        id: Iri,
        condition: &Condition,
        search: &PastSearch,
        (interval, has_values): (&Range<Instant>, bool),
    ) -> Result<Option<Selected>, NodeError> {
        let history = self.store.history();
        let ends_only = search.past.time == AskedTime::DeletedAt;
        let mut seen = Entity::new(id.clone(), id.clone());
        let present = if search.past.as_of.is_none() { self.store.table(Space::City).try_get(id.as_str())? } else { None };
        // What an entity was is read only where what it is does not tell enough.
        let known = if present.is_none() || condition.has_scope || ends_only { Some(self.known(&id, search.past.as_of)?) } else { None };
        let types = present.as_ref().map(|e| e.types.as_slice()).or_else(|| known.as_ref()?.types());
        seen.types = match types {
            Some(types) => types.to_vec(),
            None => {
                let any = TemporalQuery { instances_max: 1, ..search.past.of(id.clone()) };
                match history.evolution(&any)? {
                    Some(evolution) => vec![evolution.entity_type],
                    None => return Ok(None),
                }
            }
        };
        let created_at = present.as_ref().map(|e| e.created_at).or_else(|| known.as_ref()?.created_at());
        seen.created_at = created_at.unwrap_or_default();
        seen.modified_at = present.as_ref().map_or(seen.created_at, |e| e.modified_at);
        if !search.filter.conjuncts().filter(|c| is_about_entity(c)).all(|c| c.matches(&seen)) {
            return Ok(None);
        }
        let mut any_instance = has_values;
        if ends_only {
            any_instance = false;
            let is_in = |at: &Instant| interval.contains(at);
            for d in known.iter().flat_map(|k| &k.deletions).filter(|d| is_in(&d.deleted_at)) {
                any_instance = true;
                if let Some(name) = &d.attribute {
                    seen.put(name.clone(), Attribute { dataset_id: d.dataset_id.clone(), ..Attribute::property("urn:ngsi-ld:null") });
                }
            }
            if !any_instance {
                return Ok(None);
            }
        } else {
            seen.attributes = self.condition_values(&id, condition, search)?;
            any_instance |= !seen.attributes.is_empty();
        }
        let within = if condition.has_scope {
            // Scopes are valid until they are replaced: of each set it is asked for itself.
            let mut spans = known.as_ref().map(Known::scope_spans).unwrap_or_default();
            spans.retain(|span| span.overlaps(interval));
            spans.retain(|span| {
                seen.scopes.clone_from(&span.scopes);
                search.filter.matches(&seen)
            });
            seen.scopes.clear();
            if search.filter.matches(&seen) {
                // It is true without any scope.
                None
            } else if spans.is_empty() {
                return Ok(None);
            } else {
                Some(spans.iter().map(|s| s.since.max(interval.start)..s.until.unwrap_or(Instant::MAX).min(interval.end)).collect())
            }
        } else if search.filter.matches(&seen) {
            None
        } else {
            return Ok(None);
        };
        let selected = Selected { id, types: seen.types, present, known, within };
        if ends_only || (any_instance && selected.within.is_none()) {
            return Ok(Some(selected));
        }
        let any = PastQuery { attributes: None, interval: Some(interval.clone()), last_n: None, instances_max: 1, ..search.past.clone() };
        let found = self.selected_evolution(&selected.id, selected.within.as_deref(), &any)?;
        Ok((!found.attributes.is_empty()).then_some(selected))
    }

    /// The values in the interval that a condition is tried on.
    fn condition_values(&self, id: &Iri, condition: &Condition, search: &PastSearch) -> Result<Attributes, NodeError> {
        let history = self.store.history();
        let asked = TemporalQuery { last_n: None, ..search.past.of(id.clone()) };
        let mut found = Attributes::default();
        if !condition.values.is_empty() {
            let names = condition.values.iter().cloned().collect();
            let query = TemporalQuery { attributes: Some(names), instances_max: PAST_CONDITION_INSTANCES_MAX, ..asked.clone() };
            let evolution = history.evolution(&query)?;
            if evolution.as_ref().is_some_and(|e| e.cut_at.is_some()) {
                let what = format!(
                    "entity `{id}` has more than {PAST_CONDITION_INSTANCES_MAX} instances in the interval that the condition is about; ask for a shorter one"
                );
                return Err(NodeError::Limit { what });
            }
            found.extend(evolution.into_iter().flat_map(|e| e.attributes).map(|(name, list)| (name, list.into())));
        }
        for name in condition.presence.iter().filter(|name| !condition.values.contains(*name)) {
            // The first one tells that there is one, however many there are.
            let query = TemporalQuery { attributes: Some(vec![name.clone()]), instances_max: 1, ..asked.clone() };
            let evolution = history.evolution(&query)?;
            found.extend(evolution.into_iter().flat_map(|e| e.attributes).map(|(name, list)| (name, list.into())));
        }
        Ok(found)
    }

    /// Ids of the entities that may satisfy the condition.
    fn past_candidates(&self, search: &PastSearch, interval: &Range<Instant>) -> Result<Candidates, NodeError> {
        let too_many = || NodeError::Limit {
            what: format!(
                "more than {PAST_ENTITIES_MAX} entities would have to be looked at, which is the limit: name ids, another type or a shorter interval"
            ),
        };
        let history = self.store.history();
        let named = Named::of(&search.filter);
        let mut certain = BTreeSet::new();
        let mut ids: BTreeSet<Iri> = named.as_ref().map(|n| n.ids.clone()).unwrap_or_default();
        let types = match named {
            Some(named) => named.types,
            None => {
                let needed: Vec<&Iri> = search.filter.conjuncts().flat_map(needed_attributes).collect();
                let may_have = |columns: &[store::history::AttributeColumn]| {
                    search.filter.conjuncts().all(|c| {
                        let needed = needed_attributes(c);
                        needed.is_empty() || needed.iter().any(|name| columns.iter().any(|column| column.name == **name))
                    })
                };
                let of_ends = search.past.time == AskedTime::DeletedAt;
                let tables = history.tables().into_iter();
                tables.filter(|t| of_ends || needed.is_empty() || may_have(&t.columns)).map(|t| t.entity_type).collect()
            }
        };
        for entity_type in types {
            match search.past.time {
                AskedTime::Of(property) => {
                    let max = PAST_ENTITIES_MAX + 1;
                    let within = history.entity_ids_within(&entity_type, (property, interval), search.past.as_of, max)?;
                    let here = within.here.into_ids();
                    if within.is_exact {
                        certain.extend(here.iter().cloned());
                    }
                    ids.extend(here);
                    ids.extend(within.elsewhere.into_ids());
                }
                AskedTime::DeletedAt => history.visit_marks(Marked::Type(&entity_type), search.past.as_of, &mut |fact| {
                    let id = fact.entity.clone();
                    // The ends of what has its values in the table of another type are there, too.
                    let is_elsewhere = matches!(&fact.what, What::Became(about) if about.types.first() != Some(&entity_type));
                    if (is_elsewhere || deletion_of(fact).is_some_and(|d| interval.contains(&d.deleted_at)))
                        && ids.len() <= PAST_ENTITIES_MAX
                    {
                        ids.insert(id);
                    }
                })?,
            }
            if ids.len() > PAST_ENTITIES_MAX {
                return Err(too_many());
            }
        }
        if ids.len() > PAST_ENTITIES_MAX {
            return Err(too_many());
        }
        let of_id = |c: &&Filter| matches!(c, Filter::Id(_) | Filter::IdPattern(_));
        ids.retain(|id| search.filter.conjuncts().filter(of_id).all(|c| c.matches(&Entity::new(id.clone(), id.clone()))));
        Ok(Candidates { ids, certain })
    }
}

/// Entities that may satisfy a condition.
struct Candidates {
    ids: BTreeSet<Iri>,
    /// Those of which it is known that they have a value in the interval.
    certain: BTreeSet<Iri>,
}

/// The attributes of which a condition needs at least one.
fn needed_attributes(condition: &Filter) -> Vec<&Iri> {
    match condition {
        Filter::Value(Target::Attribute(path), _) => vec![&path.attribute],
        Filter::Geo(geo) => vec![&geo.property],
        Filter::HasAnyOf(names) => names.iter().collect(),
        _ => Vec::new(),
    }
}

/// Is it about what an entity is, not about values and scopes?
fn is_about_entity(condition: &Filter) -> bool {
    match condition {
        Filter::Type(_) | Filter::Id(_) | Filter::IdPattern(_) => true,
        Filter::And(list) | Filter::Or(list) => list.iter().all(is_about_entity),
        Filter::Not(inner) => is_about_entity(inner),
        Filter::Value(..) | Filter::Geo(_) | Filter::HasAnyOf(_) | Filter::Scope(_) | Filter::Linked(_) => false,
    }
}

/// What a condition has to do with values and scopes.
#[derive(Default)]
struct Condition {
    /// Attributes of which values are compared.
    values: BTreeSet<Iri>,
    /// Attributes that have to be there.
    presence: BTreeSet<Iri>,
    has_scope: bool,
}

impl Condition {
    fn of(filter: &Filter) -> Self {
        let mut condition = Self::default();
        condition.add(filter);
        condition
    }

    fn add(&mut self, filter: &Filter) {
        match filter {
            Filter::And(list) | Filter::Or(list) => list.iter().for_each(|f| self.add(f)),
            Filter::Not(inner) => self.add(inner),
            Filter::Scope(_) => self.has_scope = true,
            Filter::HasAnyOf(names) => self.presence.extend(names.iter().cloned()),
            Filter::Value(Target::Attribute(path), Comparison::Exists) if *path == Path::of(path.attribute.clone()) => {
                self.presence.insert(path.attribute.clone());
            }
            other => self.values.extend(needed_attributes(other).into_iter().cloned()),
        }
    }
}

/// The ids and types that a condition names: what satisfies it has one of the ids or one of the types.
#[derive(Default)]
struct Named {
    ids: BTreeSet<Iri>,
    types: BTreeSet<Iri>,
}

impl Named {
    /// None if it names none.
    fn of(filter: &Filter) -> Option<Self> {
        match filter {
            Filter::Id(ids) => Some(Self { ids: ids.iter().cloned().collect(), types: BTreeSet::new() }),
            Filter::Type(selector) => Some(Self { ids: BTreeSet::new(), types: types_of(selector)? }),
            // What needs no look at a type is best.
            Filter::And(list) => list.iter().filter_map(Self::of).min_by_key(|n| (n.types.len(), n.ids.len())),
            Filter::Or(list) => list.iter().try_fold(Self::default(), |mut all, f| {
                let Self { ids, types } = Self::of(f)?;
                all.ids.extend(ids);
                all.types.extend(types);
                Some(all)
            }),
            _ => None,
        }
    }
}

/// Types of which every entity that is selected has one; none if that can be any.
fn types_of(selector: &TypeSelector) -> Option<BTreeSet<Iri>> {
    match selector {
        TypeSelector::Any => None,
        TypeSelector::Is(t) => Some(BTreeSet::from([t.clone()])),
        TypeSelector::Or(list) => list.iter().map(types_of).try_fold(BTreeSet::new(), |mut all, types| {
            all.extend(types?);
            Some(all)
        }),
        TypeSelector::And(list) => list.iter().filter_map(types_of).min_by_key(BTreeSet::len),
    }
}

/// Errors: the order is not only of ids; the collation is none.
fn ids_in_order(ids: BTreeSet<Iri>, order: &SortOrder) -> Result<Vec<Iri>, NodeError> {
    if order.keys.iter().any(|key| key.by != SortBy::Id) {
        return Err(NodeError::Invalid { what: "the past is ordered by `id` only".to_owned() });
    }
    let sorter = Sorter::new(order)?;
    let mut keyed: Vec<_> = ids.into_iter().map(|id| (sorter.keys(&Entity::new(id.clone(), id.clone())), id)).collect();
    keyed.sort_by(|a, b| sorter.compare(a, b));
    Ok(keyed.into_iter().map(|(_, id)| id).collect())
}

fn n_instances(entities: &[Past]) -> usize {
    entities.iter().flat_map(|e| e.attributes.values()).map(Vec::len).sum()
}

/// Of each `datasetId` the first `n`.
fn truncate_each(list: &mut Vec<Attribute>, n: usize) {
    let mut n_by_dataset: std::collections::HashMap<Option<Iri>, usize> = std::collections::HashMap::new();
    list.retain(|a| {
        let seen = n_by_dataset.entry(a.dataset_id.clone()).or_default();
        *seen += 1;
        *seen <= n
    });
}

/// The instant at which all entities of a page are cut.
struct Cut {
    at: Option<Instant>,
    newest_first: bool,
    time: AskedTime,
}

impl Cut {
    fn take(&mut self, at: Instant) {
        self.at = Some(match self.at {
            None => at,
            Some(known) if self.newest_first => known.max(at),
            Some(known) => known.min(at),
        });
    }

    /// The part of the interval that is shown.
    fn narrowed(&self, interval: &Range<Instant>) -> Range<Instant> {
        match self.at {
            None => interval.clone(),
            Some(at) if self.newest_first => at.max(interval.start)..interval.end,
            Some(at) => interval.start..at.plus_micros(1).min(interval.end),
        }
    }

    fn apply(&self, entities: &mut [Past]) {
        let Some(at) = self.at else { return };
        for e in entities {
            for list in e.attributes.values_mut() {
                list.retain(|a| if self.newest_first { self.time.of(a) >= at } else { self.time.of(a) <= at });
            }
            e.attributes.retain(|_, list| !list.is_empty());
        }
    }

    /// Cuts so that at most `max` instances are left, but never fewer than two instants: the next page begins with the last one.
    ///
    /// Errors: these are too many.
    fn shorten(&mut self, entities: &mut [Past], max: usize) -> Result<(), NodeError> {
        self.apply(entities);
        let mut times: Vec<Instant> = entities.iter().flat_map(|e| e.attributes.values()).flatten().map(|a| self.time.of(a)).collect();
        if times.len() <= max {
            return Ok(());
        }
        times.sort_unstable();
        if self.newest_first {
            times.reverse();
        }
        let runs: Vec<&[Instant]> = times.chunk_by(|a, b| a == b).collect();
        let (mut n, mut n_runs) = (0, 0);
        for run in &runs {
            if n_runs >= PAGE_INSTANTS_MIN && n + run.len() > max {
                break;
            }
            n += run.len();
            n_runs += 1;
        }
        if n > LONGER_MAX * max {
            let what = format!(
                "the entities of one page have {n} instances of {PAGE_INSTANTS_MIN} instants, more than an answer may have; ask for fewer entities (limit)"
            );
            return Err(NodeError::Limit { what });
        }
        if let Some(last) = n_runs.checked_sub(1).and_then(|i| runs.get(i)).filter(|_| n_runs < runs.len()) {
            self.take(last[0]);
            self.apply(entities);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use store::history::TimeProperty;

    use super::*;

    /// An entity with values of these seconds.
    fn past(seconds: &[i64]) -> Past {
        let instance = |s: &i64| Attribute::property(*s).observed(Instant::from_secs(*s));
        let name = Iri::known("https://example.org/t");
        Past {
            id: Iri::known("urn:e:1"),
            types: Vec::new(),
            created_at: None,
            modified_at: None,
            deleted_at: None,
            scopes: Vec::new(),
            attributes: std::iter::once((name, seconds.iter().map(instance).collect())).collect(),
            ended: Vec::new(),
            cut_at: None,
        }
    }

    fn shortened(all: &[&[i64]], newest_first: bool, max: usize) -> Result<(Option<i64>, Vec<usize>), NodeError> {
        let mut entities: Vec<Past> = all.iter().map(|seconds| past(seconds)).collect();
        let mut cut = Cut { at: None, newest_first, time: AskedTime::Of(TimeProperty::ObservedAt) };
        cut.shorten(&mut entities, max)?;
        let left = entities.iter().map(|e| n_instances(std::slice::from_ref(e))).collect();
        Ok((cut.at.map(|at| at.micros() / 1_000_000), left))
    }

    #[test]
    fn a_page_is_cut_at_one_instant_and_has_at_least_two() {
        check(&[&[1, 2, 3], &[1, 2, 3]], false, 6, (None, &[3, 3]));
        check(&[&[1, 2, 3], &[1, 2, 3]], false, 5, (Some(2), &[2, 2]));
        check(&[&[1, 2, 3], &[2, 3, 4]], false, 4, (Some(2), &[2, 1]));
        check(&[&[1, 2, 3], &[1, 2, 3]], true, 5, (Some(2), &[2, 2]));
        check(&[&[1, 2, 3], &[4, 5, 6]], true, 4, (Some(3), &[1, 3]));
        // The next page begins with the last instant: with fewer than two it would never come further.
        check(&[&[1, 2, 3], &[1, 2, 3], &[1, 2, 3]], false, 2, (Some(2), &[2, 2, 2]));
        check(&[&[1, 2], &[1, 2]], false, 1, (None, &[2, 2]));
        let error = shortened(&[&[1, 2, 3][..]; 6], false, 2).unwrap_err();
        assert!(error.to_string().contains("ask for fewer entities (limit)"), "{error}");

        #[track_caller]
        fn check(all: &[&[i64]], newest_first: bool, max: usize, (at, left): (Option<i64>, &[usize])) {
            assert_eq!(shortened(all, newest_first, max).unwrap(), (at, left.to_vec()));
        }
    }

    #[test]
    fn of_what_has_to_be_there_one_instance_is_enough() {
        let t = |name: &str| Iri::known(&format!("https://example.org/{name}"));
        let exists = |path: Path| Filter::Value(Target::Attribute(path), Comparison::Exists);
        let in_it = exists(Path { keys: vec!["k".to_owned()], ..Path::of(t("c")) });
        let condition = Condition::of(&Filter::Or(vec![Filter::HasAnyOf(vec![t("a")]), exists(Path::of(t("b"))), in_it]));
        assert_eq!((condition.presence, condition.values), (BTreeSet::from([t("a"), t("b")]), BTreeSet::from([t("c")])));
    }

    #[test]
    fn where_to_look_is_told_by_ids_before_types() {
        let t = |name: &str| Iri::known(&format!("https://example.org/{name}"));
        let of = |f: &Filter| Named::of(f).map(|n| (n.ids.len(), n.types.into_iter().collect::<Vec<_>>()));
        let is = |name: &str| Filter::Type(TypeSelector::Is(t(name)));
        let ids = || Filter::Id(vec![Iri::known("urn:e:1"), Iri::known("urn:e:2")]);
        assert_eq!(of(&is("A")), Some((0, vec![t("A")])));
        assert_eq!(of(&is("A").and(ids())), Some((2, vec![])));
        assert_eq!(of(&Filter::Or(vec![is("A"), is("B").and(ids()), is("C")])), Some((2, vec![t("A"), t("C")])));
        assert_eq!(of(&Filter::Or(vec![is("A"), Filter::HasAnyOf(vec![t("x")])])), None);
        assert_eq!(of(&Filter::Not(Box::new(is("A")))), None);
        assert_eq!(of(&Filter::Type(TypeSelector::Any)), None);
        let both = TypeSelector::And(vec![TypeSelector::Is(t("A")), TypeSelector::Is(t("B"))]);
        assert_eq!(of(&Filter::Type(both)).unwrap().1.len(), 1, "who has both has one");
    }
}
