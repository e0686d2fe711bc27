//! Pages: the entities that satisfy a condition, in an order, a part at a time.

use std::borrow::Cow;
use std::collections::{BTreeSet, BinaryHeap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering as Memory;

use entity::{Entity, Filter, Instant};

use super::ids::NONE;
use super::inner::Inner;
use super::judge::{Tally, Verdict, has_words};
use super::order::{Direction, OrderBy, Plain, Rank};
use super::plan::{Plan, Source, Wanted};
use super::words::words_of;
use super::{Core, LiveTable};
use crate::state::DocumentsError;

/// Entities looked at under one lock: long walks let writers in between.
const CHUNK_ENTITIES: usize = 4_096;

/// Entities that a walk looks at before it tries to do with a column.
const WALKED_MAX: u64 = 8_192;

/// Which entities, and which part of them.
#[derive(Clone, Debug)]
pub struct PageRequest<'a> {
    /// The condition.
    pub filter: &'a Filter,
    /// Entities to skip, in the order of the page.
    pub offset: usize,
    /// Entities to return.
    pub limit: usize,
    /// Count all matches, not only as many as needed to know whether there are more.
    pub count: bool,
    /// Only entities whose ids are greater.
    pub after: Option<&'a str>,
    /// Another order than that of ids.
    pub order_by: Option<OrderBy>,
    /// Only entities with all of the words of this text in their names; a text without words finds nothing.
    pub text: Option<&'a str>,
    /// Entities that have expired by now are left out.
    pub now: Option<Instant>,
}

impl<'a> PageRequest<'a> {
    /// The first entities that satisfy a condition.
    #[must_use]
    pub const fn of(filter: &'a Filter, limit: usize) -> Self {
        Self { filter, offset: 0, limit, count: false, after: None, order_by: None, text: None, now: None }
    }
}

/// A page of entities.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Page {
    /// The entities, ordered by id or as asked.
    pub entities: Vec<Arc<Entity>>,
    /// Are there more behind them?
    pub more: bool,
    /// How many match in all, if it was asked.
    pub total: Option<usize>,
}

/// What answering a query took.
#[derive(Default, Debug)]
pub(super) struct Trace {
    pub(super) source: String,
    pub(super) estimated: usize,
    pub(super) considered: Vec<(String, usize)>,
    pub(super) n_looked_at: u64,
    pub(super) n_documents: u64,
    pub(super) tallies: Vec<Tally>,
}

/// A candidate that the columns did not rule out.
struct Item {
    id: Box<str>,
    /// With the id it tells the state of the entity that was looked at, µs.
    modified_us: i64,
    verdict: Verdict,
    /// The value to order by; the outer none: only the document knows it.
    value: Option<Option<Plain>>,
}

/// What one look under the lock gave.
#[derive(Default)]
struct Look {
    items: Vec<Item>,
    /// Matches that are beyond the page and need no more than counting, by how many items come before them.
    n_counted: usize,
    /// The last id looked at; none: there is nothing behind.
    last: Option<Box<str>>,
}

impl LiveTable {
    /// Answers a query; if a document cannot be read this is logged, and the page is empty. Who decides upon the answer uses [`LiveTable::try_page`].
    #[must_use]
    pub fn page(&self, request: &PageRequest<'_>) -> Page {
        self.try_page(request).unwrap_or_else(|e| {
            tracing::error!(error = &e as &dyn std::error::Error, "a query cannot be answered");
            Page::default()
        })
    }

    /// Answers a query.
    ///
    /// Errors: a document cannot be read.
    pub fn try_page(&self, request: &PageRequest<'_>) -> Result<Page, DocumentsError> {
        self.core.run(request).map(|(page, _)| page)
    }
}

/// A query under way.
struct Run<'a> {
    core: &'a Core,
    request: &'a PageRequest<'a>,
    conditions: Vec<&'a Filter>,
    words: Option<Vec<String>>,
    trace: Trace,
    page: Page,
    n_matched: usize,
}

impl Core {
    pub(super) fn run(self: &Arc<Self>, request: &PageRequest<'_>) -> Result<(Page, Trace), DocumentsError> {
        let conditions: Vec<&Filter> = request.filter.conjuncts().collect();
        let words = request.text.map(words_of);
        let query = self.n_queries.fetch_add(1, Memory::Relaxed);
        self.note_asked(&conditions, request.order_by.as_ref());
        let mut run = Run {
            core: self,
            request,
            trace: Trace { tallies: vec![Tally::default(); conditions.len()], ..Trace::default() },
            conditions,
            words,
            page: Page::default(),
            n_matched: 0,
        };
        // Words that are asked for and are none: nothing has them.
        if run.words.as_ref().is_none_or(|w| !w.is_empty()) {
            let in_order_of_ids = request.order_by.is_none() && !request.count;
            let wanted = Wanted { first: in_order_of_ids.then(|| request.offset.saturating_add(request.limit).saturating_add(1)) };
            let plan = self.read(|inner| inner.plan(&run.conditions, run.words.as_deref(), wanted, query));
            let Plan { source, estimated, considered } = plan;
            (run.trace.source, run.trace.estimated, run.trace.considered) = (source.describe(), estimated, considered);
            match &request.order_by {
                None => run.by_id(&source)?,
                Some(order) => {
                    if !run.by_ordered_values(order, query)? {
                        run.by_value(&source, order)?;
                    }
                }
            }
        } else {
            run.trace.source = "nothing: the text has no words".to_owned();
        }
        run.page.total = request.count.then_some(run.n_matched);
        Ok((run.page, run.trace))
    }
}

impl Run<'_> {
    fn by_id(&mut self, source: &Source) -> Result<(), DocumentsError> {
        let mut source = Cow::Borrowed(source);
        // Those who want all matches need not try a walk first.
        let mut walked_max = if self.request.count { 0 } else { WALKED_MAX };
        let mut cursor: Option<Box<str>> = self.request.after.map(Box::from);
        let mut n_wanted = if self.request.count {
            usize::MAX
        } else {
            self.request.offset.saturating_add(self.request.limit).saturating_mul(2).saturating_add(64)
        };
        loop {
            let look = if source.is_walk() && self.trace.n_looked_at >= walked_max {
                // Later it may look different.
                walked_max = self.trace.n_looked_at.saturating_mul(8).max(WALKED_MAX);
                // If matches stay as rare as they were.
                let n_missing = self.request.offset.saturating_add(self.request.limit).saturating_add(1).saturating_sub(self.n_matched);
                let n_to_walk = if self.request.count || self.n_matched == 0 {
                    usize::MAX
                } else {
                    (self.trace.n_looked_at as usize).saturating_mul(n_missing) / self.n_matched
                };
                self.look_by_column(&mut source, n_to_walk, cursor.as_deref(), n_wanted)
            } else {
                self.look(&source, cursor.as_deref(), n_wanted)
            };
            for item in &look.items {
                if self.is_complete() {
                    return Ok(());
                }
                self.offer(item)?;
            }
            self.n_matched += look.n_counted;
            self.page.more |= look.n_counted > 0;
            if look.last.is_none() || self.is_complete() {
                return Ok(());
            }
            cursor = look.last;
            n_wanted = n_wanted.saturating_mul(4);
        }
    }

    const fn is_complete(&self) -> bool {
        self.page.more && !self.request.count
    }

    /// Takes a candidate into account, in the order of ids.
    fn offer(&mut self, item: &Item) -> Result<(), DocumentsError> {
        let is_before = self.n_matched < self.request.offset;
        let is_full = self.page.entities.len() >= self.request.limit;
        if item.verdict == Verdict::Yes && (is_before || is_full) {
            self.n_matched += 1;
            self.page.more |= !is_before;
            return Ok(());
        }
        let judged_us = (item.verdict == Verdict::Yes).then_some(item.modified_us);
        if let Some(e) = self.read_matching(&item.id, judged_us)? {
            self.n_matched += 1;
            if is_full && !is_before {
                self.page.more = true;
            } else if !is_before {
                self.page.entities.push(e);
            }
        }
        Ok(())
    }

    /// The entity, if it is there and satisfies everything at this moment; the columns said that it did as of `judged_us`.
    fn read_matching(&mut self, id: &str, judged_us: Option<i64>) -> Result<Option<Arc<Entity>>, DocumentsError> {
        self.trace.n_documents += 1;
        let Some(e) = self.core.fetch(id)? else { return Ok(None) };
        // Recorded times never repeat: it is what the columns were asked about.
        if judged_us == Some(e.modified_at.micros()) {
            return Ok(Some(e));
        }
        let is_valid = self.request.now.is_none_or(|now| e.expires_at.is_none_or(|at| at > now));
        let fits = is_valid && self.request.filter.matches(&e) && self.words.as_ref().is_none_or(|w| has_words(&e, w));
        Ok(fits.then_some(e))
    }

    /// Looks at candidates behind `cursor`, under the lock: in the order of ids at least so many, unless there are fewer.
    fn look(&mut self, source: &Source, cursor: Option<&str>, n_wanted: usize) -> Look {
        let core = self.core;
        core.read(|inner| {
            let candidates = if source.is_walk() { None } else { Some(source.candidates(inner)) };
            self.look_at(inner, source, candidates, cursor, n_wanted)
        })
    }

    /// The same; if a column does better than a walk of so many more, that is the source from now on.
    fn look_by_column(&mut self, source: &mut Cow<'_, Source>, n_to_walk: usize, cursor: Option<&str>, n_wanted: usize) -> Look {
        let core = self.core;
        core.read(|inner| {
            let mut candidates = None;
            if let Some((column, slots)) = inner.column_instead(source, &self.conditions, n_to_walk) {
                self.trace.source = column.describe();
                (*source, candidates) = (Cow::Owned(column), Some(slots));
            }
            self.look_at(inner, source, candidates, cursor, n_wanted)
        })
    }

    /// Without candidates the source is a walk.
    fn look_at(&mut self, inner: &Inner, source: &Source, candidates: Option<Vec<u32>>, cursor: Option<&str>, n_wanted: usize) -> Look {
        let (request, n_matched) = (self.request, self.n_matched);
        let order = request.order_by.as_ref();
        let (slots, verdicts, mut last) = match candidates {
            None => {
                let n = n_wanted.min(CHUNK_ENTITIES);
                let slots = inner.walk(source, cursor, n);
                let last = (slots.len() >= n).then(|| slots.last().map(|s| Box::from(inner.ids.id(*s)))).flatten();
                let verdicts = self.judge(inner, &slots);
                (slots, verdicts, last)
            }
            Some(mut slots) => {
                slots.sort_unstable();
                slots.dedup();
                // An index of hashes may name slots that are free by now.
                slots.retain(|s| !inner.ids.id(*s).is_empty() && cursor.is_none_or(|c| inner.ids.id(*s) > c));
                let verdicts = self.judge(inner, &slots);
                (slots, verdicts, None)
            }
        };
        let mut left: Vec<(u32, Verdict)> = slots.into_iter().zip(verdicts).filter(|(_, v)| *v != Verdict::No).collect();
        if !source.is_walk() {
            if order.is_none() && left.len() > n_wanted {
                left.select_nth_unstable_by(n_wanted - 1, |a, b| inner.ids.id(a.0).cmp(inner.ids.id(b.0)));
                left.truncate(n_wanted);
                left.sort_unstable_by(|a, b| inner.ids.id(a.0).cmp(inner.ids.id(b.0)));
                last = left.last().map(|(s, _)| Box::from(inner.ids.id(*s)));
            } else if order.is_none() {
                left.sort_unstable_by(|a, b| inner.ids.id(a.0).cmp(inner.ids.id(b.0)));
            }
        }
        let mut look = Look { last, ..Look::default() };
        // What is certain to be behind the page is only counted. Candidates that are not certain may turn out to be none.
        let in_page = request.offset.saturating_add(request.limit);
        let mut n_certain = n_matched;
        for (slot, verdict) in left {
            let is_counted = order.is_none() && verdict == Verdict::Yes && n_certain > in_page;
            n_certain += usize::from(verdict == Verdict::Yes);
            if is_counted {
                look.n_counted += 1;
                continue;
            }
            let value = order.and_then(|o| {
                let s = inner.ids.slot(slot);
                let table = inner.table(s.table);
                match table.column(&o.attribute) {
                    None => Some(None),
                    Some(c) => Plain::of_cell(c.cell(s.row)).ok(),
                }
            });
            look.items.push(inner.item(slot, verdict, value));
        }
        look
    }

    fn judge(&mut self, inner: &Inner, slots: &[u32]) -> Vec<Verdict> {
        self.trace.n_looked_at += slots.len() as u64;
        let mut verdicts = inner.judge_all(&self.conditions, slots, &mut self.trace.tallies);
        if let Some(now) = self.request.now
            && !inner.expires.is_empty()
        {
            for (s, v) in slots.iter().zip(&mut verdicts) {
                if inner.expires.get(s).is_some_and(|at| *at <= now.micros()) {
                    *v = Verdict::No;
                }
            }
        }
        if self.words.is_some() {
            verdicts.iter_mut().filter(|v| **v == Verdict::Yes).for_each(|v| *v = Verdict::Ask);
        }
        verdicts
    }

    /// Orders by the values of columns and documents: the best so far are kept, and no more than the page needs.
    fn by_value(&mut self, source: &Source, order: &OrderBy) -> Result<(), DocumentsError> {
        let n_kept = self.request.offset.saturating_add(self.request.limit).saturating_add(1);
        let mut best: BinaryHeap<Rank> = BinaryHeap::new();
        let mut source = Cow::Borrowed(source);
        let mut is_first = true;
        let mut cursor: Option<Box<str>> = self.request.after.map(Box::from);
        loop {
            let look = if is_first && source.is_walk() {
                self.look_by_column(&mut source, usize::MAX, cursor.as_deref(), CHUNK_ENTITIES)
            } else {
                self.look(&source, cursor.as_deref(), CHUNK_ENTITIES)
            };
            is_first = false;
            for item in look.items {
                let value = match (item.value, item.verdict) {
                    (Some(value), Verdict::Yes) => value,
                    (known, _) => {
                        let Some(e) = self.read_matching(&item.id, None)? else { continue };
                        known.unwrap_or_else(|| Plain::of_entity(&e, &order.attribute))
                    }
                };
                self.n_matched += 1;
                let rank = Rank { value, direction: order.direction, id: item.id };
                if best.len() < n_kept {
                    best.push(rank);
                } else if best.peek().is_some_and(|worst| rank < *worst) {
                    best.pop();
                    best.push(rank);
                }
            }
            if look.last.is_none() {
                break;
            }
            cursor = look.last;
        }
        self.page.more = self.n_matched > self.request.offset.saturating_add(self.request.limit);
        let ranked = best.into_sorted_vec();
        for rank in ranked.into_iter().skip(self.request.offset).take(self.request.limit) {
            // It may have changed since it was judged.
            if let Some(e) = self.read_matching(&rank.id, None)? {
                self.page.entities.push(e);
            }
        }
        Ok(())
    }
}

/// Slots of an ordered index looked at under one lock, and the rest of those that are equal to the last of them.
const ORDERED_CHUNK: usize = 512;

impl Run<'_> {
    /// Walks the ordered values if there are such; false if that does not give the page, and nothing was put into it.
    fn by_ordered_values(&mut self, order: &OrderBy, query: u64) -> Result<bool, DocumentsError> {
        let types = self.conditions.iter().find_map(|c| match c {
            Filter::Type(entity::TypeSelector::Is(t)) => Some(t),
            _ => None,
        });
        let (Some(of_type), false, None) = (types, self.request.count, &self.words) else { return Ok(false) };
        let core = self.core;
        let mut cursor: Option<u64> = None;
        loop {
            let look = core.read(|inner| {
                let auto = inner.type_of(of_type)?.autos.iter().find(|a| a.attribute == order.attribute)?;
                auto.used(query);
                let (slots, last) = next_ordered(auto.numbers()?, cursor, order.direction, inner);
                let slots: Vec<u32> = slots.into_iter().filter(|s| self.request.after.is_none_or(|a| inner.ids.id(*s) > a)).collect();
                let verdicts = self.judge(inner, &slots);
                let left = slots.into_iter().zip(verdicts).filter(|(_, v)| *v != Verdict::No);
                let items: Vec<Item> = left.map(|(s, verdict)| inner.item(s, verdict, None)).collect();
                Some((items, last))
            });
            // No such index, or not only numbers in it.
            let Some((items, last)) = look else { return Ok(self.begin_again()) };
            for item in &items {
                self.offer(item)?;
                if self.is_complete() {
                    self.trace.source = format!("ordered values of {} of {}, in order", order.attribute.local_name(), of_type.local_name());
                    return Ok(true);
                }
            }
            // What has no value comes last and is not in the index.
            let Some(last) = last else { return Ok(self.begin_again()) };
            cursor = Some(last);
        }
    }

    fn begin_again(&mut self) -> bool {
        self.page = Page::default();
        self.n_matched = 0;
        false
    }
}

/// The slots with the next values behind `cursor`, those of equal value in the order of ids, and the last value; none: there are no more.
fn next_ordered(numbers: &BTreeSet<(u64, u32)>, cursor: Option<u64>, direction: Direction, inner: &Inner) -> (Vec<u32>, Option<u64>) {
    let mut slots: Vec<u32> = Vec::new();
    let mut group = 0;
    let mut last: Option<u64> = None;
    let mut take = |(value, slot): (u64, u32)| {
        if last != Some(value) {
            slots[group..].sort_unstable_by(|a, b| inner.ids.id(*a).cmp(inner.ids.id(*b)));
            if slots.len() >= ORDERED_CHUNK {
                return false;
            }
            group = slots.len();
            last = Some(value);
        }
        slots.push(slot);
        true
    };
    let is_stopped = match direction {
        Direction::Ascending => {
            let from = cursor.map_or(Bound::Unbounded, |c| Bound::Excluded((c, u32::MAX)));
            numbers.range((from, Bound::Unbounded)).any(|e| !take(*e))
        }
        Direction::Descending => {
            let to = cursor.map_or(Bound::Unbounded, |c| Bound::Excluded((c, 0)));
            numbers.range((Bound::Unbounded, to)).rev().any(|e| !take(*e))
        }
    };
    let last = last.filter(|_| is_stopped);
    slots[group..].sort_unstable_by(|a, b| inner.ids.id(*a).cmp(inner.ids.id(*b)));
    (slots, last)
}

impl Inner {
    fn item(&self, slot: u32, verdict: Verdict, value: Option<Option<Plain>>) -> Item {
        let s = self.ids.slot(slot);
        Item { id: s.id.clone(), modified_us: s.modified_us, verdict, value }
    }

    /// The next slots of a walk in the order of ids, each once.
    pub(super) fn walk(&self, source: &Source, after: Option<&str>, n: usize) -> Vec<u32> {
        let types = match source {
            Source::Types(types) => types,
            _ => return self.order.after(after, &self.ids).take(n).collect(),
        };
        let orders: Vec<_> = types.iter().filter_map(|t| self.type_of(t)).filter(|t| t.order.len() > 0).collect();
        if let [one] = orders[..] {
            return one.order.after(after, &self.ids).take(n).collect();
        }
        // The types are merged; an entity of several of them comes once.
        let mut walks: Vec<_> = orders.iter().map(|t| t.order.after(after, &self.ids).peekable()).collect();
        let mut slots = Vec::new();
        while slots.len() < n {
            let next = walks.iter_mut().filter_map(|w| w.peek().copied()).min_by(|a, b| self.ids.id(*a).cmp(self.ids.id(*b)));
            let Some(next) = next else { break };
            for w in &mut walks {
                w.next_if_eq(&next);
            }
            slots.push(next);
        }
        debug_assert!(!slots.contains(&NONE), "an order has real slots");
        slots
    }
}
