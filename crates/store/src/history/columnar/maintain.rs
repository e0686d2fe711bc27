//! What is done from time to time: days that are over are rolled up, and what is too old is removed.
//!
//! A pass does a bounded amount of work, a piece at a time, and holds the seal between pieces only. A month's roll-up is one file: during the
//! month there is one per run of days, afterwards they become one, and so do days of which something was learned later.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, PoisonError};

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use entity::{Instant, Iri};

use super::super::bucket::month_start;
use super::super::rollup::DAY_US;
use super::super::value::SeenByName;
use super::super::{AggregateQuery, Bucket, ColumnKind, HistoryError, HistoryPolicy, Kept, Maintained, Measure, Rollup, RollupWidth};
use super::aggregate::{Question, for_each_entity};
use super::marks::{self, Mark};
use super::recent::Layer;
use super::rollup::{OpenRollup, RollupWriter};
use super::segment::{Attributes, Keys, OpenSegment, Wanted};
use super::write::{Effort, FileColumn, Footer, SegmentWriter};
use super::{Inner, kept_of, see};

/// Roll-ups built, and files rewritten, in one pass.
const WORK_MAX: usize = 16;
/// A roll-up of which something was learned later is built anew so long after it was built.
const REFRESH_US: i64 = 20 * 3_600_000_000;

pub(super) fn maintain(history: &Inner, policy: &HistoryPolicy, now: Instant) -> Result<Maintained, HistoryError> {
    policy.check()?;
    let _guard = history.maintaining.lock().unwrap_or_else(PoisonError::into_inner);
    let mut done = Maintained::default();
    let mut pass = Pass { history, policy, now, n_work: 0 };
    for (entity_type, n_rows) in pass.tables() {
        let rolled_up = pass.roll_up(&entity_type, n_rows, &mut done)?;
        pass.drop_rows(&entity_type, rolled_up, &mut done)?;
        pass.drop_rollups(&entity_type, &mut done);
    }
    if done.changed() {
        let Maintained { n_rollups_built, n_files_rewritten, n_rows_dropped, n_rollups_dropped, more } = done;
        tracing::info!(n_rollups_built, n_files_rewritten, n_rows_dropped, n_rollups_dropped, more, "maintained the history");
    }
    Ok(done)
}

struct Pass<'a> {
    history: &'a Inner,
    policy: &'a HistoryPolicy,
    now: Instant,
    n_work: usize,
}

fn day_of(at: Instant) -> i64 {
    at.micros().div_euclid(DAY_US)
}

/// A roll-up to build.
struct Task {
    width: RollupWidth,
    attributes: Vec<Iri>,
    days: Range<i64>,
}

impl Pass<'_> {
    /// The types that have segments, with their rows.
    fn tables(&self) -> Vec<(Iri, u64)> {
        let mut tables: BTreeMap<Iri, u64> = BTreeMap::new();
        let shared = self.history.read();
        for s in shared.segments.iter() {
            *tables.entry(s.segment.entity_type.clone()).or_default() += s.segment.n_rows;
        }
        // Roll-ups outlive the values.
        for r in &shared.rollups.files {
            tables.entry(r.file.segment.entity_type.clone()).or_default();
        }
        tables.into_iter().collect()
    }

    /// Builds what is missing of a type's roll-ups, from the newest month back. True if nothing is missing any more.
    fn roll_up(&mut self, entity_type: &Iri, n_rows: u64, done: &mut Maintained) -> Result<bool, HistoryError> {
        for task in self.tasks(entity_type, n_rows) {
            if self.n_work == WORK_MAX {
                done.more = true;
                return Ok(false);
            }
            let n_built = usize::from(self.history.build_rollup(entity_type, &task)?);
            done.n_rollups_built += n_built;
            self.n_work += n_built;
        }
        Ok(true)
    }

    fn tasks(&self, entity_type: &Iri, n_rows: u64) -> Vec<Task> {
        let shared = self.history.read();
        let mut by_width: BTreeMap<RollupWidth, Vec<Iri>> = BTreeMap::new();
        for column in shared.table(entity_type).columns.iter().filter(|c| c.kind == ColumnKind::Number) {
            for width in self.policy.widths(entity_type, &column.name, n_rows) {
                by_width.entry(*width).or_default().push(column.name.clone());
            }
        }
        let of_type = shared.segments.iter().filter(|s| s.segment.entity_type == *entity_type && !s.footer.is_note());
        let mut observed = of_type.filter_map(|s| s.segment.observed);
        let Some(first) = observed.next() else { return Vec::new() };
        let (first, last) = observed.fold(first, |a, b| (a.0.min(b.0), a.1.max(b.1)));
        let (from, to) = (day_of(first), day_of(last).saturating_add(1).min(self.closed_day()));
        let fresh_to = self.cutoff(self.policy.retention_of(entity_type).and_then(|r| r.raw_days)).map(day_of);
        let rollups = shared.rollups.of_type(entity_type);
        drop(shared);
        let mut tasks = Vec::new();
        let mut month = month_start(Instant::from_micros(to.saturating_sub(1).saturating_mul(DAY_US)), 0);
        if to <= from {
            return tasks;
        }
        loop {
            let next = month_start(month, 1);
            let days = day_of(month).max(from)..day_of(next).min(to);
            for (width, attributes) in &by_width {
                let existing: Vec<&OpenRollup> =
                    rollups.iter().filter(|r| r.info.width == *width && r.days().start < days.end && days.start < r.days().end).collect();
                let is_over = day_of(next) <= to;
                let missing = self.missing(&existing, &days, attributes, (is_over, fresh_to));
                tasks.extend(missing.into_iter().map(|days| Task { width: *width, attributes: attributes.clone(), days }));
            }
            if day_of(month) <= from {
                break;
            }
            month = month_start(month, -1);
        }
        tasks
    }

    /// Which days of a month are to be built. Before day `fresh_to` nothing may be stale, since the values go.
    fn missing(
        &self,
        existing: &[&OpenRollup],
        days: &Range<i64>,
        attributes: &[Iri],
        (is_over, fresh_to): (bool, Option<i64>),
    ) -> Vec<Range<i64>> {
        let lacks = |r: &OpenRollup| attributes.iter().any(|name| !r.info.attributes.contains(name));
        // What is known only from roll-ups can be put into a new one that has the same attributes, but not into another one.
        let is_bound = |r: &OpenRollup| r.has_final_days() && (lacks(r) || r.info.attributes.len() != attributes.len());
        let goes = |r: &OpenRollup| {
            fresh_to.is_some_and(|to| r.stale.values().flatten().any(|day| *day < to) || (r.is_stale && r.info.days.0 < to))
        };
        let is_due = |r: &OpenRollup| (r.is_stale || !r.stale.is_empty()) && self.now.micros_since(r.info.recorded_to) > REFRESH_US;
        let rebuild = existing.iter().any(|r| lacks(r) || goes(r) || is_due(r) || !r.info.counts_rows) || (is_over && existing.len() > 1);
        if rebuild && !existing.iter().any(|r| is_bound(r)) {
            let all = existing.iter().map(|r| r.days());
            return vec![all.fold(days.clone(), |a, b| a.start.min(b.start)..a.end.max(b.end))];
        }
        let mut missing = Vec::new();
        let mut from = days.start;
        let mut covered: Vec<Range<i64>> = existing.iter().map(|r| r.days()).collect();
        covered.sort_by_key(|c| c.start);
        for c in covered {
            if from < c.start {
                missing.push(from..c.start);
            }
            from = from.max(c.end);
        }
        if from < days.end {
            missing.push(from..days.end);
        }
        missing
    }

    /// The instant before which the values of a type go, if its policy says so.
    fn cutoff(&self, days: Option<u32>) -> Option<Instant> {
        // Never a day that is not rolled up yet.
        let day = day_of(self.now).min(self.closed_day());
        days.map(|days| Instant::from_micros((day.min(day_of(self.now) - i64::from(days))).saturating_mul(DAY_US)))
    }

    /// The first day that is not ripe for a roll-up.
    fn closed_day(&self) -> i64 {
        day_of(self.now.plus_micros(-i64::from(self.policy.rollup_after_hours) * 3_600_000_000))
    }

    /// Removes values that are too old. With roll-ups of the policy still missing, nothing goes.
    fn drop_rows(&mut self, entity_type: &Iri, rolled_up: bool, done: &mut Maintained) -> Result<(), HistoryError> {
        let cutoff = self.cutoff(self.policy.retention_of(entity_type).and_then(|r| r.raw_days));
        let by_attribute = self.policy.attribute_days(entity_type);
        if (cutoff.is_none() && by_attribute.is_empty()) || !rolled_up {
            return Ok(());
        }
        if let Some(c) = cutoff {
            let mut shared = self.history.write();
            let segments = shared.segments.iter().filter(|s| s.segment.entity_type == *entity_type);
            let first = segments.filter_map(|s| s.segment.observed).map(|(first, _)| day_of(first)).min().unwrap_or(i64::MAX);
            let mut of_type = shared.rollups.files.iter().filter(|r| r.file.segment.entity_type == *entity_type);
            if !of_type.all(|r| r.can_finish(first, day_of(c))) {
                // Something was learned just now: the next pass rolls it up first.
                return Ok(());
            }
            shared.rollups.files.iter_mut().filter(|r| r.file.segment.entity_type == *entity_type).for_each(|r| r.finish(day_of(c)));
        }
        let segments: Vec<Arc<OpenSegment>> =
            self.history.read().segments.iter().filter(|s| s.segment.entity_type == *entity_type && !s.footer.is_note()).cloned().collect();
        for segment in segments {
            let units = segment.units(&Wanted::default())?;
            let (oldest, newest) = units.iter().fold((Instant::MAX, Instant::MIN), |(a, b), u| (a.min(u.moments.0), b.max(u.moments.1)));
            // Marks stay, however old they are.
            let oldest = segment.removable_from.get().map_or(oldest, |from| oldest.max(*from));
            let is_too_old = |(name, days): &&(&Iri, u32)| {
                self.cutoff(Some(*days)).is_some_and(|c| newest < c) && segment.footer.columns.iter().any(|c| c.name == **name)
            };
            let too_old: Vec<(&Iri, u32)> = by_attribute.iter().filter(is_too_old).map(|(name, days)| (*name, *days)).collect();
            let before = cutoff.filter(|c| oldest < *c);
            if before.is_none() && too_old.is_empty() {
                continue;
            }
            if self.n_work == WORK_MAX {
                done.more = true;
                return Ok(());
            }
            self.n_work += 1;
            // Nobody else replaces files meanwhile; a seal adds some.
            let _guard = self.history.compacting.lock().unwrap_or_else(PoisonError::into_inner);
            if !self.history.read().segments.iter().any(|s| Arc::ptr_eq(s, &segment)) {
                // It was merged meanwhile: the next pass sees what became of it.
                continue;
            }
            let is_over = before.is_some_and(|c| newest < c);
            let names: Vec<&Iri> = if is_over {
                segment.footer.columns.iter().map(|c| &c.name).collect()
            } else {
                too_old.iter().map(|(name, _)| *name).collect()
            };
            let replacement =
                if is_over && !marks::may_be_in(&segment)? { None } else { self.history.rewrite(&segment, before, &names)? };
            if let Some(same) = replacement.as_ref().filter(|r| names.is_empty() && r.segment.n_rows == segment.segment.n_rows) {
                // The moments of a file are wider than true where rows have no observed time: nothing was too old.
                same.delete_when_unused();
                if let Some(from) = same.removable_from.get() {
                    segment.removable_from.get_or_init(|| *from);
                }
                continue;
            }
            done.n_files_rewritten += 1;
            done.n_rows_dropped += segment.segment.n_rows - replacement.as_ref().map_or(0, |r| r.segment.n_rows);
            let attributes = too_old.iter().filter_map(|(name, days)| Some(((*name).clone(), self.cutoff(Some(*days))?))).collect();
            self.history.keep_since(entity_type, &Kept { since: before, attributes })?;
            self.history.replace(&[segment], replacement.into_iter().collect());
            self.history.see_again(entity_type);
        }
        Ok(())
    }

    fn drop_rollups(&self, entity_type: &Iri, done: &mut Maintained) {
        let rule = self.policy.retention_of(entity_type);
        let Some(cutoff) = self.cutoff(rule.and_then(|r| r.rollup_days)) else { return };
        let day = day_of(cutoff);
        let mut replaced = self.history.replaced();
        let removed = self.history.write().rollups.remove(|r| r.file.segment.entity_type == *entity_type && r.days().end <= day);
        done.n_rollups_dropped += removed.len();
        replaced.named.extend(removed);
    }
}

impl Inner {
    /// Builds a roll-up and puts it in the place of older ones; false if there is nothing to roll up.
    fn build_rollup(&self, entity_type: &Iri, task: &Task) -> Result<bool, HistoryError> {
        let (layers, finals, recorded_to) = {
            let mut shared = self.write();
            shared.rollups.watch(entity_type, task.days.clone());
            let layers = shared.layers(entity_type, None, None);
            let sealed = layers.segments.iter().map(|s| s.segment.recorded.1);
            let recent = layers.recent.iter().filter_map(Layer::recorded_to);
            let recorded_to = sealed.chain(recent).max().unwrap_or(Instant::MIN);
            let of_width = shared.rollups.of_type(entity_type).into_iter().filter(|r| r.info.width == task.width);
            let finals: Vec<OpenRollup> = of_width.filter_map(|r| r.final_part()).collect();
            // What was erased is still seen by those who ask as of an earlier time.
            let erased = layers.erasures.iter().flat_map(|all| all.iter().map(|e| e.recorded_at));
            let recorded_to = erased.fold(recorded_to, Instant::max);
            // All that was rolled up was known then, even if the values are gone.
            let recorded_to = finals.iter().map(|r| r.info.recorded_to).fold(recorded_to, Instant::max);
            (layers.clone(), finals, recorded_to)
        };
        let at = |day: i64| Instant::from_micros(day.saturating_mul(DAY_US));
        let query = AggregateQuery {
            entity_type: entity_type.clone(),
            attributes: task.attributes.clone(),
            entities: None,
            observed: Some(at(task.days.start)..at(task.days.end)),
            bucket: Bucket::width(task.width.micros()),
            per_entity: true,
            measures: vec![Measure::SumOfSquares],
            as_of: None,
        };
        let final_to = finals.iter().map(|r| r.info.days.1).max().filter(|to| *to > task.days.start);
        let mut writer = RollupWriter::new(entity_type, &task.attributes, recorded_to);
        let info = Rollup {
            width: task.width,
            days: (task.days.start, task.days.end),
            attributes: task.attributes.clone(),
            counts_rows: true,
            recorded_to,
            stale: Vec::new(),
            is_stale: false,
            is_erased: false,
            final_to,
        };
        let question = Question { query: &query, rows: true, shown_from: None };
        let built = for_each_entity(question, &layers, &finals, &mut |id, buckets| writer.entity(id, buckets).map(|()| true))
            .and_then(|_| writer.finish())
            .and_then(|built| built.map(|b| self.keep(entity_type, b, Some(info.clone()))).transpose());
        let mut replaced = self.replaced();
        let mut shared = self.write();
        let (learned, is_erased) = shared.rollups.unwatch();
        Ok(match built? {
            None => false,
            Some(open) if is_erased => {
                open.delete_when_unused();
                false
            }
            Some(open) => {
                replaced.named.extend(shared.rollups.install(OpenRollup::of(open, &info), &learned));
                true
            }
        })
    }

    /// The rows of a file that are not observed (or, without that, recorded) before `before`, without these attributes, in a new file; none if
    /// nothing is left. That entities were there and what they were stays: it is little, and who asks as of a later time needs it.
    fn rewrite(&self, old: &Arc<OpenSegment>, before: Option<Instant>, without: &[&Iri]) -> Result<Option<Arc<OpenSegment>>, HistoryError> {
        let columns: Vec<FileColumn> = old.footer.columns.iter().filter(|c| !without.contains(&&c.name)).cloned().collect();
        let names = columns.iter().map(|c| &c.name).collect();
        let seen = if columns.is_empty() { SeenByName::new() } else { old.footer.seen.clone() };
        let footer = Footer { columns: Arc::new(columns.clone()), seen, ..old.footer.clone() };
        let mut writer = SegmentWriter::new(footer, Effort::Thorough);
        let groups = old.units(&Wanted::default())?.iter().map(|u| u.row_group_idx).collect();
        let mut removable_from = Instant::MAX;
        old.read(groups, &Wanted::default(), Attributes::Some(&names), |batch| {
            let keys = Keys::of(&batch);
            let mut is_kept = |row: usize| {
                let moment = keys.observed_at(row).unwrap_or_else(|| keys.recorded_at(row));
                if keys.deleted.get(row).is_some_and(|text| Mark::of(text).is_about_entity()) {
                    return true;
                }
                let is_kept = before.is_none_or(|b| moment >= b);
                if is_kept {
                    removable_from = removable_from.min(moment);
                }
                is_kept
            };
            let mask: BooleanArray = (0..batch.num_rows()).map(|row| Some(is_kept(row))).collect();
            let batch = filter_record_batch(&batch, &mask).map_err(|e| old.damaged(e.to_string()))?;
            writer.write(&batch)
        })?;
        let new = writer.finish()?.map(|built| self.keep(&old.segment.entity_type, built, None)).transpose()?;
        if let Some(new) = &new {
            new.removable_from.get_or_init(|| removable_from);
        }
        Ok(new)
    }

    /// Notes since when a table is kept, before anything is removed. The list that names the note is the one that does not name what was removed.
    fn keep_since(&self, entity_type: &Iri, more: &Kept) -> Result<(), HistoryError> {
        let old: Vec<Arc<OpenSegment>> = {
            let shared = self.read();
            let of_type = shared.segments.iter().filter(|s| s.segment.entity_type == *entity_type && s.footer.kept.is_some());
            of_type.cloned().collect()
        };
        let mut kept = kept_of(&old).unwrap_or_default();
        if !kept.merge(more) {
            return Ok(());
        }
        let erasures = old.iter().flat_map(|s| &s.footer.erasures).cloned().collect();
        let new = self.build_note(entity_type, erasures, Some(kept.clone()))?;
        if old.is_empty() {
            let mut shared = self.write();
            let all = shared.segments.iter().cloned().chain(new).collect();
            shared.segments = Arc::new(all);
        } else {
            self.replace(&old, new);
        }
        self.write().kept.insert(entity_type.clone(), kept);
        Ok(())
    }

    /// Values have gone: what those that are left have in common.
    fn see_again(&self, entity_type: &Iri) {
        let mut shared = self.write();
        shared.sealed_seen.remove(entity_type);
        let segments = Arc::clone(&shared.segments);
        segments.iter().filter(|s| s.segment.entity_type == *entity_type).for_each(|s| see(&mut shared.sealed_seen, s));
    }
}

#[cfg(test)]
#[path = "maintain_tests.rs"]
mod tests;
