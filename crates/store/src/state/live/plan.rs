//! Where the candidates of a query come from: the cheapest index by estimated count.

use std::sync::atomic::Ordering;

use entity::{Comparison, Filter, Iri, LOCATION, Operand, Path, Target, TypeSelector};

use super::Core;
use super::auto::{ASKED_MIN, AUTO_INDEXES_MAX, AutoIndex, ENTITIES_MIN, OBSERVED_MAX, parts_of};
use super::inner::{Inner, Type};
use super::judge::slots_by_column;
use super::order::OrderBy;
use super::places::{GeoBox, search_box};
use std::sync::{Arc, PoisonError};

/// Candidates that are counted before a source counts as large.
const COUNTED_MAX: usize = 32_768;
/// What a candidate of an index costs, compared with one of a walk in the order of ids: it is looked up, and sorted.
const CANDIDATE_COST: usize = 6;
/// Entities of a type below which a walk is quick enough. Tests with few entities are to come here too.
const COLUMN_ENTITIES_MIN: usize = if cfg!(test) { 1 } else { 16_384 };
/// A column is worth it if it leaves at most one of so many entities that would have to be walked.
const COLUMN_SHARE: usize = if cfg!(test) { 1 } else { 8 };
/// Entities looked at under one lock while the values of an index are collected.
const BUILD_CHUNK: usize = 8_192;

/// Where candidates come from. Each but the walks holds all entities that can satisfy the condition, and possibly others.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Source {
    /// The ids asked for.
    Ids(Vec<Iri>),
    /// The index of places.
    Place(GeoBox),
    /// The words of names; all of these.
    Words(Vec<String>),
    /// What points at one of these.
    Links(Vec<String>),
    /// These sets of scopes.
    Scopes(Vec<u32>),
    /// The ordered values of an attribute of a type.
    Ordered(Iri, Iri, Comparison),
    /// The column of an attribute of a type, gone through as a whole.
    Column(Iri, Iri, Comparison),
    /// All entities of these types in the order of ids.
    Types(Vec<Iri>),
    /// All entities in the order of ids.
    Everything,
}

impl Source {
    /// Does it give entities in the order of ids, some at a time?
    pub(super) const fn is_walk(&self) -> bool {
        matches!(self, Self::Types(_) | Self::Everything)
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Ids(ids) => format!("{} ids", ids.len()),
            Self::Place([w, s, e, n]) => format!("place index, box {w:.5} {s:.5} {e:.5} {n:.5}"),
            Self::Words(words) => format!("words of names: {}", words.join(" ")),
            Self::Links(targets) => format!("relationships to {}", targets.join(" or ")),
            Self::Scopes(sets) => format!("scopes ({} distinct lists)", sets.len()),
            Self::Ordered(t, a, _) => format!("ordered values of {} of {}", a.local_name(), t.local_name()),
            Self::Column(t, a, _) => format!("column {} of {}", a.local_name(), t.local_name()),
            Self::Types(types) => format!("walk of type {}", types.iter().map(Iri::local_name).collect::<Vec<_>>().join(", ")),
            Self::Everything => "walk of everything".to_owned(),
        }
    }

    /// The candidates, in no order, possibly twice.
    pub(super) fn candidates<'a>(&'a self, inner: &'a Inner) -> Vec<u32> {
        match self {
            Self::Ids(ids) => ids.iter().filter_map(|i| inner.ids.find(i.as_str())).collect(),
            Self::Place(b) => inner.places.within(*b).collect(),
            Self::Words(words) => {
                // The rarest word decides; the others are looked at in the documents.
                let rarest = words.iter().min_by_key(|w| inner.with_word(w).take(COUNTED_MAX).count());
                rarest.map(|w| inner.with_word(w).collect()).unwrap_or_default()
            }
            Self::Links(targets) => targets.iter().flat_map(|t| inner.linked_to(t)).collect(),
            Self::Scopes(sets) => sets.iter().flat_map(|n| inner.by_scopes.under(*n)).collect(),
            Self::Ordered(t, a, comparison) => {
                let found = inner.type_of(t).and_then(|t| Some((t, t.autos.iter().find(|x| x.attribute == *a)?)));
                // Given up since the plan was made: everything of the type is a candidate.
                let Some((t, auto)) = found else {
                    return inner.type_of(t).map(|t| t.order.after(None, &inner.ids).collect()).unwrap_or_default();
                };
                let parts = parts_of(comparison, |text| t.table.hash(text)).unwrap_or_default();
                auto.candidates(&parts).collect()
            }
            Self::Column(t, a, comparison) => inner.type_of(t).map_or_else(Vec::new, |t| {
                // Without the column's values everything of the type is a candidate.
                let all = || t.order.after(None, &inner.ids).collect();
                inner.slots_by_column(t, a, comparison).unwrap_or_else(all)
            }),
            Self::Types(_) | Self::Everything => Vec::new(),
        }
    }
}

/// A plan and what it was chosen from.
pub(super) struct Plan {
    pub(super) source: Source,
    /// Candidates expected.
    pub(super) estimated: usize,
    /// Everything considered, with the candidates expected of it; at most [`COUNTED_MAX`] are counted.
    pub(super) considered: Vec<(String, usize)>,
}

/// The types of which an entity must have one; none if it may be of any.
pub(super) fn types_of(selector: &TypeSelector) -> Option<Vec<Iri>> {
    match selector {
        TypeSelector::Any => None,
        TypeSelector::Is(t) => Some(vec![t.clone()]),
        TypeSelector::Or(list) => {
            let mut all = list.iter().map(types_of).collect::<Option<Vec<_>>>()?.concat();
            all.sort();
            all.dedup();
            Some(all)
        }
        TypeSelector::And(list) => list.iter().filter_map(types_of).min_by_key(Vec::len),
    }
}

/// The types that all conditions leave.
fn types_left(conditions: &[&Filter]) -> Option<Vec<Iri>> {
    let selectors = conditions.iter().filter_map(|c| match c {
        Filter::Type(s) => types_of(s),
        _ => None,
    });
    selectors.min_by_key(Vec::len)
}

/// How much of an answer is wanted.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    /// Entities to find in the order of ids; none: all of them.
    pub(super) first: Option<usize>,
}

impl Inner {
    /// Chooses where to look.
    pub(super) fn plan(&self, conditions: &[&Filter], words: Option<&[String]>, wanted: Wanted, query: u64) -> Plan {
        let types = types_left(conditions);
        let (walk, n_walk) = match &types {
            Some(list) => (Source::Types(list.clone()), list.iter().filter_map(|t| self.type_of(t)).map(|t| t.order.len()).sum()),
            None => (Source::Everything, self.ids.len()),
        };
        let mut options: Vec<(Source, usize)> = Vec::new();
        for condition in conditions {
            self.options(condition, types.as_deref(), &mut options);
        }
        if let Some(words) = words.filter(|w| !w.is_empty()) {
            let n = words.iter().map(|w| self.with_word(w).take(COUNTED_MAX).count()).min().unwrap_or(0);
            options.push((Source::Words(words.to_vec()), n));
        }
        let mut considered: Vec<(String, usize)> = options.iter().map(|(s, n)| (s.describe(), *n)).collect();
        considered.push((walk.describe(), n_walk));
        let best = options.into_iter().min_by_key(|(_, n)| *n);
        let plan = |source, estimated| Plan { source, estimated, considered };
        let Some((source, n)) = best else { return plan(walk, n_walk) };
        // A walk ends when it has found enough; if matches are as frequent as the best index says, that is after so many.
        let walked = match wanted.first {
            Some(first) => n_walk.min(first.saturating_mul(n_walk) / n.max(1)),
            None => n_walk,
        };
        // The words of an entity are in its document only: a walk would read all of them.
        let by_walk = words.is_none() && walked < n.saturating_mul(CANDIDATE_COST) && !matches!(source, Source::Ids(_));
        if by_walk {
            return plan(walk, n_walk);
        }
        if let Source::Ordered(t, a, _) = &source
            && let Some(auto) = self.type_of(t).and_then(|t| t.autos.iter().find(|x| x.attribute == *a))
        {
            auto.used(query);
        }
        plan(source, n)
    }

    /// The slots of a type that may satisfy a comparison, from its column; none if that does not know all of its entities.
    fn slots_by_column(&self, t: &Type, attribute: &Iri, comparison: &Comparison) -> Option<Vec<u32>> {
        // Entities that have another type first have their rows in that one's table.
        (t.order.len() == t.table.n_rows()).then(|| slots_by_column(&t.table, attribute, comparison)).flatten()
    }

    /// A column that leaves few entities, and those, if there is one that does better than a walk of `n_to_walk` more: a walk looks entity
    /// after entity, a column is gone through at once.
    pub(super) fn column_instead(&self, walk: &Source, conditions: &[&Filter], n_to_walk: usize) -> Option<(Source, Vec<u32>)> {
        let Source::Types(types) = walk else { return None };
        let [of_type] = &types[..] else { return None };
        let t = self.type_of(of_type).filter(|t| t.order.len() >= COLUMN_ENTITIES_MIN)?;
        let n_to_walk = n_to_walk.min(t.order.len());
        // Going through the column costs as much as walking so many, and each that it leaves costs as much as some.
        let few = n_to_walk / COLUMN_SHARE;
        if n_to_walk < t.order.len() / COLUMN_SHARE {
            return None;
        }
        conditions.iter().find_map(|c| match c {
            Filter::Value(Target::Attribute(path), comparison) if path.subs.is_empty() && path.keys.is_empty() && path.member.is_none() => {
                let slots = self.slots_by_column(t, &path.attribute, comparison).filter(|slots| slots.len() <= few)?;
                Some((Source::Column(of_type.clone(), path.attribute.clone(), comparison.clone()), slots))
            }
            _ => None,
        })
    }

    /// The indexes that hold every entity that satisfies a condition.
    fn options(&self, condition: &Filter, types: Option<&[Iri]>, options: &mut Vec<(Source, usize)>) {
        match condition {
            Filter::Id(ids) => options.push((Source::Ids(ids.clone()), ids.len())),
            Filter::Geo(geo) if geo.property.as_str() == LOCATION => {
                if let Some(b) = search_box(geo) {
                    options.push((Source::Place(b), self.places.within(b).take(COUNTED_MAX).count()));
                }
            }
            Filter::Scope(pattern) => {
                let matching = self.scope_sets.iter().filter(|(_, list, _)| list.iter().any(|s| pattern.matches(s)));
                let (sets, counts): (Vec<u32>, Vec<u32>) = matching.map(|(n, _, users)| (n, users)).unzip();
                options.push((Source::Scopes(sets), counts.into_iter().map(|n| n as usize).sum()));
            }
            Filter::Value(Target::Attribute(path), comparison) if path.subs.is_empty() && path.keys.is_empty() && path.member.is_none() => {
                self.value_options(path, comparison, types, options);
            }
            _ => {}
        }
    }

    fn value_options(&self, path: &Path, comparison: &Comparison, types: Option<&[Iri]>, options: &mut Vec<(Source, usize)>) {
        if let Comparison::Equal(operands) = comparison
            && self.types.iter().filter_map(|t| t.table.column(&path.attribute)).all(super::columns::Column::is_all_links)
        {
            let targets = operands.iter().map(|o| match o {
                Operand::Text(t) | Operand::Uri(t) => Some(t.clone()),
                // Numbers are no targets; an id that is written like an instant would be.
                Operand::Number(_) | Operand::Bool(_) => Some(String::new()),
                Operand::Instant(_) | Operand::Date(_) | Operand::Time(_) => None,
            });
            if let Some(mut targets) = targets.collect::<Option<Vec<_>>>() {
                targets.retain(|t| !t.is_empty());
                let n = targets.iter().map(|t| self.linked_to(t).take(COUNTED_MAX).count()).sum();
                options.push((Source::Links(targets), n));
            }
        }
        if let Some([one]) = types
            && let Some(t) = self.type_of(one)
            && let Some(auto) = t.autos.iter().find(|a| a.attribute == path.attribute)
            && let Some(parts) = parts_of(comparison, |text| t.table.hash(text))
        {
            let n = auto.candidates(&parts).take(COUNTED_MAX).count();
            options.push((Source::Ordered(one.clone(), path.attribute.clone(), comparison.clone()), n));
        }
    }
}

impl Core {
    /// Counts what a query compares, and has the values of what is compared often ordered.
    pub(super) fn note_asked(self: &Arc<Self>, conditions: &[&Filter], order_by: Option<&OrderBy>) {
        let Some(types) = types_left(conditions) else { return };
        let [of_type] = &types[..] else { return };
        let compared = conditions.iter().filter_map(|c| match c {
            Filter::Value(Target::Attribute(path), comparison)
                if path.subs.is_empty() && path.keys.is_empty() && path.member.is_none() && parts_of(comparison, |_| 0).is_some() =>
            {
                Some(&path.attribute)
            }
            _ => None,
        });
        for attribute in compared.chain(order_by.map(|o| &o.attribute)) {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            if asked.len() >= OBSERVED_MAX {
                asked.clear();
            }
            let n = asked.entry((of_type.clone(), attribute.clone())).or_default();
            *n += 1;
            if *n < ASKED_MIN {
                continue;
            }
            *n = 0;
            drop(asked);
            self.build_soon(of_type, attribute);
        }
    }

    fn build_soon(self: &Arc<Self>, of_type: &Iri, attribute: &Iri) {
        let is_worth_it = self.read(|inner| {
            inner.type_of(of_type).is_some_and(|t| {
                t.order.len() >= ENTITIES_MIN
                    && t.autos.iter().all(|a| a.attribute != *attribute)
                    && t.building.iter().all(|(a, _)| a != attribute)
                    && t.table.column(attribute).is_some_and(super::columns::Column::has_cells)
                    && inner.memory_bytes() + t.order.len() * 24 < self.budget.index_bytes()
            })
        });
        if !is_worth_it {
            return;
        }
        let core = Arc::clone(self);
        let (of_type, attribute) = (of_type.clone(), attribute.clone());
        let spawned = std::thread::Builder::new().name("ordering".to_owned()).spawn(move || core.build(&of_type, &attribute));
        match spawned {
            Ok(build) => {
                let mut builds = self.builds.lock().unwrap_or_else(PoisonError::into_inner);
                builds.retain(|b| !b.is_finished());
                builds.push(build);
            }
            Err(e) => tracing::warn!(error = %e, "the values of an attribute cannot be ordered beside the queries"),
        }
    }

    /// Orders the values of an attribute, while queries and changes go on.
    fn build(&self, of_type: &Iri, attribute: &Iri) {
        {
            let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
            let Some(t) = inner.type_of_mut(of_type) else { return };
            if t.building.iter().any(|(a, _)| a == attribute) || t.autos.iter().any(|a| a.attribute == *attribute) {
                return;
            }
            t.building.push((attribute.clone(), Vec::new()));
        }
        let mut entries = Vec::new();
        let mut after: Option<Box<str>> = None;
        loop {
            let last = self.read(|inner| {
                let t = inner.type_of(of_type)?;
                let slots: Vec<u32> = t.order.after(after.as_deref(), &inner.ids).take(BUILD_CHUNK).collect();
                entries.extend(slots.iter().filter_map(|s| Some((inner.key(*s, attribute)?, *s))));
                slots.last().map(|s| Box::from(inner.ids.id(*s)))
            });
            match last {
                Some(id) => after = Some(id),
                None => break,
            }
        }
        let now = self.n_queries.load(Ordering::Relaxed);
        let mut auto = AutoIndex::build(attribute.clone(), entries, now);
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let n_autos: usize = inner.types.iter().map(|t| t.autos.len()).sum();
        let Some(t) = inner.type_of_mut(of_type) else { return };
        // Gone from the list: its column was given up meanwhile.
        let Some(at) = t.building.iter().position(|(a, _)| a == attribute) else { return };
        let (_, notes) = t.building.swap_remove(at);
        for (slot, old, new) in notes {
            auto.remove(old, slot);
            auto.insert(new, slot);
        }
        tracing::info!(of_type = %of_type, attribute = %attribute, n_entries = auto.len(), "the values of an attribute that is asked for often are ordered from now on");
        if n_autos >= AUTO_INDEXES_MAX {
            inner.drop_oldest_auto();
        }
        if let Some(t) = inner.type_of_mut(of_type) {
            t.autos.push(auto);
        }
    }
}
