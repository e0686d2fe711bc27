//! The model: a plain list of facts, and each question answered by looking at all of them.
//!
//! Slow and obviously right. Every engine is held against it; tests of other crates use it where no disk is wanted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{ArrayRef, BooleanArray, Float64Array, StringArray, TimestampMicrosecondArray};
use arrow::record_batch::RecordBatch;
use entity::{Attribute, Instant, Iri, Value};

use super::erasure::Erasable;
use super::value::{Seen, SeenByName, columns_of, plain_of};
use super::{
    ColumnKind, Erasure, Evolution, Fact, History, HistoryError, HistoryScan, HistoryTable, Marked, SCAN_BATCH_ROWS_MAX, Segment,
    TemporalQuery, TimeProperty, What,
};

/// History in memory only: it is gone with the process.
#[derive(Default)]
pub struct MemoryHistory {
    known: Mutex<AllKnown>,
}

#[derive(Default)]
struct AllKnown {
    facts: Vec<Fact>,
    erasures: Vec<Erasure>,
}

impl AllKnown {
    /// What those see who ask as of a time.
    fn visible(&self, as_of: Option<Instant>) -> Vec<Fact> {
        let is_known = |f: &&Fact| as_of.is_none_or(|as_of| f.recorded_at <= as_of);
        let is_erased = |f: &Fact| self.erasures.iter().any(|e| e.is_known(as_of) && concerns(e, f));
        self.facts.iter().filter(|f| is_known(f) && !is_erased(f)).cloned().collect()
    }
}

fn concerns(erasure: &Erasure, fact: &Fact) -> bool {
    let (attribute, dataset_id, observed_at) = match &fact.what {
        What::Value { name, instance } => (Some(name), instance.dataset_id.as_ref(), instance.observed_at),
        What::AttributeDeleted { name, dataset_id } | What::Restated { name, dataset_id, .. } => (Some(name), dataset_id.as_ref(), None),
        What::EntityDeleted | What::Became(_) | What::Values(_) => (None, None, None),
    };
    let row = Erasable { dataset_id: dataset_id.map(Iri::as_str), observed_at, recorded_at: fact.recorded_at };
    erasure.entity_type == fact.entity_type
        && erasure.concerns_entity(fact.entity.as_str())
        && erasure.concerns_attribute(attribute.map(Iri::as_str))
        && erasure.concerns_row(&row)
}

/// A value with where it comes from.
#[derive(Clone, Copy)]
struct Known<'a> {
    fact: &'a Fact,
    name: &'a Iri,
    instance: &'a Attribute,
}

impl<'a> Known<'a> {
    fn of(fact: &'a Fact) -> Option<Self> {
        match &fact.what {
            What::Value { name, instance } => Some(Self { fact, name, instance }),
            What::Values(_) | What::AttributeDeleted { .. } | What::Restated { .. } | What::EntityDeleted | What::Became(_) => None,
        }
    }

    /// What makes two values the same fact, or one the correction of the other: the moment that they speak of.
    fn moment(&self) -> (Option<Instant>, Option<Instant>) {
        match self.instance.observed_at {
            Some(at) => (Some(at), None),
            None => (None, Some(self.fact.recorded_at)),
        }
    }

    fn replaces(&self, earlier: &Self) -> bool {
        (self.fact.recorded_at, &self.fact.entity_type) >= (earlier.fact.recorded_at, &earlier.fact.entity_type)
    }

    fn time(&self, property: TimeProperty) -> Option<Instant> {
        match property {
            TimeProperty::ObservedAt => self.instance.observed_at,
            TimeProperty::ModifiedAt => Some(self.fact.recorded_at),
            TimeProperty::CreatedAt => Some(self.instance.created_at),
        }
    }
}

/// Of the values that speak of the same thing, the one that counts.
fn latest<'a>(values: impl Iterator<Item = Known<'a>>) -> Vec<Known<'a>> {
    let mut kept: Vec<Known<'a>> = Vec::new();
    for value in values {
        let same = |k: &&mut Known<'_>| {
            k.fact.entity == value.fact.entity
                && k.name == value.name
                && k.instance.dataset_id == value.instance.dataset_id
                && k.moment() == value.moment()
        };
        match kept.iter_mut().find(same) {
            Some(known) if value.replaces(known) => *known = value,
            Some(_) => {}
            None => kept.push(value),
        }
    }
    kept
}

impl MemoryHistory {
    fn known(&self) -> MutexGuard<'_, AllKnown> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History for MemoryHistory {
    fn append(&self, facts: Vec<Fact>) {
        let mut known = self.known();
        for fact in facts {
            match fact.what {
                What::Values(values) => {
                    let Fact { entity_type, entity, recorded_at, .. } = fact;
                    let of = |(name, instance)| Fact {
                        entity_type: entity_type.clone(),
                        entity: entity.clone(),
                        recorded_at,
                        what: What::Value { name, instance },
                    };
                    known.facts.extend(values.into_iter().map(of));
                }
                _ => known.facts.push(fact),
            }
        }
    }

    fn check_erasure(&self, _erasure: &Erasure) -> Result<(), HistoryError> {
        Ok(())
    }

    fn erase(&self, erasure: Erasure) -> Result<(), HistoryError> {
        self.known().erasures.push(erasure);
        Ok(())
    }

    fn purge(&self) -> Result<Vec<Segment>, HistoryError> {
        let mut known = self.known();
        let AllKnown { facts, erasures } = &mut *known;
        facts.retain(|f| !erasures.iter().any(|e| concerns(e, f)));
        erasures.clear();
        drop(known);
        self.seal()
    }

    fn visit_marks(&self, of: Marked<'_>, as_of: Option<Instant>, visit: &mut dyn FnMut(Fact)) -> Result<(), HistoryError> {
        let is_asked = |f: &Fact| match of {
            Marked::Entity(id) => f.entity == *id,
            Marked::Type(entity_type) => f.entity_type == *entity_type,
        };
        let facts = self.known().visible(as_of);
        facts.into_iter().filter(|f| is_asked(f) && !matches!(f.what, What::Value { .. })).for_each(visit);
        Ok(())
    }

    /// All facts, also those that were appended twice.
    fn n_recent(&self) -> usize {
        self.known().facts.len()
    }

    /// Nothing is written: there is no segment, and nothing may be dropped from the log for it.
    fn seal(&self) -> Result<Vec<Segment>, HistoryError> {
        Ok(Vec::new())
    }

    fn evolution(&self, query: &TemporalQuery) -> Result<Option<Evolution>, HistoryError> {
        let facts = self.known().visible(query.as_of);
        let known: Vec<&Fact> = facts.iter().filter(|f| f.entity == query.entity).collect();
        // That it has a further type, too, says nothing of its first one.
        let is_at_home = |f: &&&Fact| !matches!(&f.what, What::Became(about) if !about.is_at_home(&f.entity_type));
        let Some(newest) = known.iter().filter(is_at_home).max_by_key(|f| (f.recorded_at, &f.entity_type)) else { return Ok(None) };

        let time = |k: &Known<'_>| k.time(query.time_property).unwrap_or(k.fact.recorded_at);
        let mut chosen = latest(known.iter().filter_map(|f| Known::of(f)));
        chosen.retain(|k| query.attributes.as_ref().is_none_or(|names| names.contains(k.name)));
        if let Some(interval) = &query.interval {
            chosen.retain(|k| k.time(query.time_property).is_some_and(|t| interval.contains(&t)));
        }
        chosen.sort_by_key(|k| (time(k), k.fact.recorded_at, k.instance.observed_at, k.instance.dataset_id.clone()));
        if let Some(n) = query.last_n {
            chosen.reverse();
            let all = chosen.clone();
            let is_of = |k: &Known<'_>, of: &Known<'_>| k.name == of.name && k.instance.dataset_id == of.instance.dataset_id;
            let rank = |i: usize| all[..i].iter().filter(|k| is_of(k, &all[i])).count();
            chosen = (0..all.len()).filter(|&i| rank(i) < n).map(|i| all[i]).collect();
        }
        let cut_at = cut(&chosen.iter().map(time).collect::<Vec<_>>(), query.instances_max);
        if let Some(at) = cut_at {
            chosen.retain(|k| if query.last_n.is_some() { time(k) >= at } else { time(k) <= at });
        }

        let mut names: Vec<&Iri> = chosen.iter().map(|k| k.name).collect();
        names.sort();
        names.dedup();
        let instances = |name: &Iri| chosen.iter().filter(|k| k.name == name).map(|k| k.instance.clone()).collect();
        let attributes = names.into_iter().map(|name| (name.clone(), instances(name))).collect();
        Ok(Some(Evolution { id: query.entity.clone(), entity_type: newest.entity_type.clone(), attributes, cut_at }))
    }

    fn tables(&self) -> Vec<HistoryTable> {
        let AllKnown { facts, .. } = &*self.known();
        let mut types: Vec<&Iri> = facts.iter().map(|f| &f.entity_type).collect();
        types.sort();
        types.dedup();
        types.into_iter().map(|t| table(facts, t)).collect()
    }

    fn scan(&self, scan: &HistoryScan) -> Result<Vec<RecordBatch>, HistoryError> {
        let (facts, table) = {
            let known = self.known();
            (known.visible(scan.as_of), table(&known.facts, &scan.entity_type))
        };
        let is_wanted = |k: &Known<'_>| {
            k.fact.entity_type == scan.entity_type
                && scan.entities.as_ref().is_none_or(|ids| ids.contains(&k.fact.entity))
                && scan.observed.as_ref().is_none_or(|o| k.instance.observed_at.is_some_and(|at| o.contains(&at)))
        };
        let mut known = latest(facts.iter().filter_map(Known::of).filter(is_wanted));
        let subject = |k: &Known<'_>| (k.fact.entity.clone(), k.moment(), k.instance.dataset_id.clone());
        known.sort_by_key(subject);
        let rows: Vec<&[Known<'_>]> = known.chunk_by(|a, b| subject(a) == subject(b)).collect();
        rows.chunks(SCAN_BATCH_ROWS_MAX).map(|rows| batch(rows, scan, &table)).collect()
    }
}

/// The last of these times, the first ones of which are wanted most, that an answer of at most `max` goes to, if it does not go to the end.
fn cut(times: &[Instant], max: usize) -> Option<Instant> {
    let n_upto = |at: &Instant| times.iter().rposition(|t| t == at).map_or(0, |last| last + 1);
    let first = times.first()?;
    let last = times[..max.min(times.len())].iter().rfind(|at| n_upto(at) <= max).unwrap_or(first);
    (n_upto(last) < times.len()).then_some(*last)
}

fn table(facts: &[Fact], entity_type: &Iri) -> HistoryTable {
    let mut seen = SeenByName::new();
    for k in facts.iter().filter(|f| f.entity_type == *entity_type).filter_map(Known::of) {
        seen.entry(k.name.clone()).and_modify(|s| s.add(k.instance)).or_insert_with(|| Seen::of(k.instance));
    }
    HistoryTable { entity_type: entity_type.clone(), columns: columns_of(&seen) }
}

fn batch(rows: &[&[Known<'_>]], scan: &HistoryScan, table: &HistoryTable) -> Result<RecordBatch, HistoryError> {
    let times = |of: &dyn Fn(&[Known<'_>]) -> Option<Instant>| {
        let us: TimestampMicrosecondArray = rows.iter().map(|row| of(row).map(Instant::micros)).collect();
        Arc::new(us.with_timezone("UTC"))
    };
    let mut arrays: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| Some(row[0].fact.entity.as_str())).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row[0].instance.dataset_id.as_ref().map(Iri::as_str)).collect::<StringArray>()),
        times(&|row| row[0].instance.observed_at),
        times(&|row| row.iter().map(|k| k.fact.recorded_at).max()),
    ];
    for name in &scan.attributes {
        let kind = table.columns.iter().find(|c| c.name == *name).map_or(ColumnKind::Text, |c| c.kind);
        let values = || rows.iter().map(|row| row.iter().find(|k| k.name == name).map(|k| plain_of(&k.instance.value)));
        arrays.push(match kind {
            ColumnKind::Number => Arc::new(values().map(|v| v.and_then(|v| v.as_f64())).collect::<Float64Array>()),
            ColumnKind::Bool => Arc::new(values().map(|v| v.and_then(|v| v.as_bool())).collect::<BooleanArray>()),
            ColumnKind::Text => {
                let text = |v: Value| v.as_str().map(str::to_owned);
                Arc::new(values().map(|v| v.and_then(text)).collect::<StringArray>())
            }
            ColumnKind::Json => Arc::new(values().map(|v| v.map(|v| v.to_string())).collect::<StringArray>()),
        });
    }
    RecordBatch::try_new(table.scan_schema(&scan.attributes), arrays)
        .map_err(|e| HistoryError::Columnar { entity_type: scan.entity_type.clone(), reason: e.to_string() })
}
