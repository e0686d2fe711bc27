//! Conditions on columns, in batches: true, false, or only the document knows.
//!
//! **Invariant:** a verdict other than "unknown" is what [`Filter::matches`] says of the document (kept by the property tests of the live table).

use entity::{Comparison, Filter, GeoRelation, Iri, LOCATION, Operand, Path, Scalar, Target};

use super::columns::{Cell, Column, Place, Table};
use super::ids::NONE;
use super::inner::Inner;
use super::places::{boxes_are_apart, search_box};
use super::words::words_of_entity;

/// What the columns say of a condition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It does not hold.
    No,
    /// It holds.
    Yes,
    /// The document must be asked.
    Ask,
}

impl Verdict {
    const fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }

    const fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Yes => Self::No,
            Self::Ask => Self::Ask,
        }
    }
}

/// How one of the conditions that must all hold fared.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Tally {
    /// Entities of which the columns told.
    pub(super) n_decided: u64,
    /// Entities whose documents had to be asked.
    pub(super) n_asked: u64,
}

impl Inner {
    /// The verdicts on entities: all conditions must hold. `tallies` has one entry per condition.
    pub(super) fn judge_all(&self, conditions: &[&Filter], slots: &[u32], tallies: &mut [Tally]) -> Vec<Verdict> {
        let mut verdicts = vec![Verdict::Yes; slots.len()];
        let mut left: Vec<u32> = Vec::new();
        let mut left_at: Vec<usize> = (0..slots.len()).collect();
        let mut answers = Vec::new();
        for (condition, tally) in conditions.iter().zip(tallies) {
            left.clear();
            left.extend(left_at.iter().map(|&i| slots[i]));
            answers.clear();
            answers.resize(left.len(), Verdict::Ask);
            self.judge(condition, &left, &mut answers);
            let mut kept = 0;
            for k in 0..left_at.len() {
                let i = left_at[k];
                match answers[k] {
                    Verdict::No => {
                        verdicts[i] = Verdict::No;
                        tally.n_decided += 1;
                        continue;
                    }
                    Verdict::Yes => tally.n_decided += 1,
                    Verdict::Ask => {
                        verdicts[i] = Verdict::Ask;
                        tally.n_asked += 1;
                    }
                }
                left_at[kept] = i;
                kept += 1;
            }
            left_at.truncate(kept);
            if left_at.is_empty() {
                break;
            }
        }
        verdicts
    }

    fn judge(&self, filter: &Filter, slots: &[u32], out: &mut [Verdict]) {
        let ids = &self.ids;
        match filter {
            Filter::And(list) => self.judge_list(list, slots, out, Verdict::No),
            Filter::Or(list) => self.judge_list(list, slots, out, Verdict::Yes),
            Filter::Not(f) => {
                self.judge(f, slots, out);
                out.iter_mut().for_each(|v| *v = v.not());
            }
            Filter::Type(selector) => {
                each_once(slots, out, |s| ids.slot(s).types, |set| Verdict::of(selector.matches(self.type_sets.get(set))));
            }
            Filter::Scope(pattern) => each_once(
                slots,
                out,
                |s| ids.slot(s).scopes,
                |set| Verdict::of(self.scope_sets.get(set).iter().any(|s| pattern.matches(s))),
            ),
            Filter::Id(list) => each(slots, out, |s| Verdict::of(list.iter().any(|i| i.as_str() == ids.id(s)))),
            Filter::Linked(_) => out.fill(Verdict::No),
            Filter::IdPattern(p) => each(slots, out, |s| Verdict::of(p.is_match(ids.id(s)))),
            Filter::HasAnyOf(names) => each(slots, out, |s| self.has_any_of(names, s)),
            Filter::Value(Target::EntityCreatedAt, c) => {
                each(slots, out, |s| Verdict::of(c.holds(Scalar::Instant(entity::Instant::from_micros(ids.slot(s).created_us)))));
            }
            Filter::Value(Target::EntityModifiedAt, c) => {
                each(slots, out, |s| Verdict::of(c.holds(Scalar::Instant(entity::Instant::from_micros(ids.slot(s).modified_us)))));
            }
            Filter::Value(Target::Attribute(path), c) => self.judge_value(path, c, slots, out),
            Filter::Geo(condition) if condition.property.as_str() == LOCATION => {
                let reach = search_box(condition);
                let reference = condition.reference.bbox();
                each(slots, out, |s| {
                    let slot = ids.slot(s);
                    match self.table(slot.table).place(slot.row) {
                        Place::None => Verdict::No,
                        Place::Point { lon, lat, .. } => match reach {
                            Some(b) if boxes_are_apart([lon, lat, lon, lat], b) => Verdict::No,
                            _ => Verdict::of(condition.holds_at(lon, lat)),
                        },
                        Place::Box(place) => match reach {
                            Some(b) if boxes_are_apart(place, b) => Verdict::No,
                            None if condition.relation == GeoRelation::Disjoint && boxes_are_apart(place, reference) => Verdict::Yes,
                            _ => Verdict::Ask,
                        },
                    }
                });
            }
            Filter::Geo(condition) => each(slots, out, |s| {
                let slot = ids.slot(s);
                match presence(self.table(slot.table), &condition.property, slot.row) {
                    Some(false) => Verdict::No,
                    _ => Verdict::Ask,
                }
            }),
        }
    }

    /// Conjunction (`decisive` is No) or disjunction (`decisive` is Yes): one decisive answer decides, otherwise one unknown leaves it unknown.
    fn judge_list(&self, list: &[Filter], slots: &[u32], out: &mut [Verdict], decisive: Verdict) {
        out.fill(decisive.not());
        let mut open: Vec<usize> = (0..slots.len()).collect();
        for f in list {
            let asked: Vec<u32> = open.iter().map(|&i| slots[i]).collect();
            let mut answers = vec![Verdict::Ask; asked.len()];
            self.judge(f, &asked, &mut answers);
            let mut answer = answers.iter();
            open.retain(|&i| {
                let a = *answer.next().expect("an answer for each");
                if a == decisive || a == Verdict::Ask {
                    out[i] = a;
                }
                a != decisive
            });
        }
    }

    fn has_any_of(&self, names: &[Iri], s: u32) -> Verdict {
        let slot = self.ids.slot(s);
        let table = self.table(slot.table);
        let mut verdict = Verdict::No;
        for name in names {
            match presence(table, name, slot.row) {
                Some(true) => return Verdict::Yes,
                Some(false) => {}
                None => verdict = Verdict::Ask,
            }
        }
        verdict
    }

    fn judge_value(&self, path: &Path, comparison: &Comparison, slots: &[u32], out: &mut [Verdict]) {
        let plain = path.subs.is_empty() && path.keys.is_empty();
        // Entities of one table mostly come together.
        let mut at = 0;
        while at < slots.len() {
            let table_no = self.ids.slot(slots[at]).table;
            let n = slots[at..].iter().take_while(|s| self.ids.slot(**s).table == table_no).count();
            let (run, out) = (&slots[at..at + n], &mut out[at..at + n]);
            at += n;
            let table = self.table(table_no);
            let Some(column) = table.column(&path.attribute).filter(|c| c.n_present > 0) else {
                out.fill(Verdict::No);
                continue;
            };
            let rows = || run.iter().map(|s| self.ids.slot(*s).row);
            if plain
                && path.member.is_none()
                && let Some(test) = number_test(comparison)
            {
                let mut answers = out.iter_mut();
                let mut asked = Vec::new();
                let mut k = 0;
                let known = column.test_numbers(rows(), test, |v| {
                    let answer = answers.next().expect("a place for each");
                    match v {
                        Some(holds) => *answer = Verdict::of(holds),
                        None => asked.push(k),
                    }
                    k += 1;
                });
                if known {
                    let mut test = CellTest::of(table, column, comparison, false);
                    for k in asked {
                        out[k] = test.verdict(self.ids.slot(run[k]).row);
                    }
                    continue;
                }
            }
            let member = match path.member.as_deref() {
                None if plain => Some(false),
                Some("observedAt") if plain => Some(true),
                _ => None,
            };
            match member {
                Some(observed) => {
                    let mut test = CellTest::of(table, column, comparison, observed);
                    rows().zip(out).for_each(|(row, v)| *v = test.verdict(row));
                }
                // Deeper than columns reach: only absence is known.
                None => rows()
                    .zip(out)
                    .for_each(|(row, v)| *v = if column.cell(row) == Some(Cell::Absent) { Verdict::No } else { Verdict::Ask }),
            }
        }
    }
}

/// The slots of a table that may satisfy a comparison with the plain value of an attribute, by going through its column; none if its values
/// are not in memory.
pub(super) fn slots_by_column(table: &Table, attribute: &Iri, comparison: &Comparison) -> Option<Vec<u32>> {
    let mut slots = Vec::new();
    let Some(column) = table.column(attribute).filter(|c| c.n_present > 0) else { return Some(slots) };
    if let Some((low, high, _)) = number_range(comparison) {
        let is_known = column.rows_between(low, high, |row| slots.push(table.slot_of(row)));
        return is_known.then_some(slots);
    }
    if !column.has_cells() {
        return None;
    }
    let mut test = CellTest::of(table, column, comparison, false);
    // Truncated nowhere: rows are numbered in 32 bits.
    let rows = 0..table.n_rows_ever() as u32;
    slots.extend(rows.filter(|row| test.verdict(*row) != Verdict::No).map(|row| table.slot_of(row)).filter(|slot| *slot != NONE));
    Some(slots)
}

fn each(slots: &[u32], out: &mut [Verdict], verdict: impl Fn(u32) -> Verdict) {
    slots.iter().zip(out).for_each(|(s, v)| *v = verdict(*s));
}

/// The same, asked once for neighbours that have the same set.
fn each_once(slots: &[u32], out: &mut [Verdict], set: impl Fn(u32) -> u32, verdict: impl Fn(u32) -> Verdict) {
    let mut last: Option<(u32, Verdict)> = None;
    for (s, v) in slots.iter().zip(out) {
        let n = set(*s);
        *v = match last {
            Some((m, v)) if m == n => v,
            _ => verdict(n),
        };
        last = Some((n, *v));
    }
}

/// Does the entity of a row have the attribute? None: not known here.
fn presence(table: &Table, name: &Iri, row: u32) -> Option<bool> {
    let Some(column) = table.column(name).filter(|c| c.n_present > 0) else { return Some(false) };
    column.cell(row).map(|c| c != Cell::Absent)
}

/// The comparison as a test of numbers, if it is a plain one.
fn number_test(comparison: &Comparison) -> Option<impl Fn(f64) -> bool + use<>> {
    let (low, high, open) = number_range(comparison)?;
    // JSON has no infinite numbers, so that an open end at infinity takes nothing away.
    Some(move |v: f64| if open { low < v && v < high } else { low <= v && v <= high })
}

/// The numbers that satisfy a comparison, if it is a plain one: from, to, and whether those two do not.
fn number_range(comparison: &Comparison) -> Option<(f64, f64, bool)> {
    use entity::CompareOp::{Ge, Gt, Le, Lt};
    Some(match comparison {
        Comparison::Order(Lt, Operand::Number(n)) => (f64::NEG_INFINITY, *n, true),
        Comparison::Order(Le, Operand::Number(n)) => (f64::NEG_INFINITY, *n, false),
        Comparison::Order(Gt, Operand::Number(n)) => (*n, f64::INFINITY, true),
        Comparison::Order(Ge, Operand::Number(n)) => (*n, f64::INFINITY, false),
        Comparison::Between(Operand::Number(a), Operand::Number(b)) => (*a, *b, false),
        Comparison::Equal(list) => match &list[..] {
            [Operand::Number(n)] => (*n, *n, false),
            _ => return None,
        },
        _ => return None,
    })
}

/// A comparison with the cells of a column.
struct CellTest<'a> {
    table: &'a Table,
    column: &'a Column,
    comparison: &'a Comparison,
    /// Of `observedAt`, not of the value.
    of_observed: bool,
    /// Answers by the number of the text.
    of_text: Vec<Option<bool>>,
}

impl<'a> CellTest<'a> {
    fn of(table: &'a Table, column: &'a Column, comparison: &'a Comparison, of_observed: bool) -> Self {
        Self { table, column, comparison, of_observed, of_text: vec![None; column.n_texts()] }
    }

    fn verdict(&mut self, row: u32) -> Verdict {
        let comparison = self.comparison;
        match self.column.cell(row) {
            None | Some(Cell::Other) => Verdict::Ask,
            Some(Cell::Absent) => Verdict::No,
            Some(_) if self.of_observed => {
                Verdict::of(self.column.cell_observed(row, self.table.observed(row)).is_some_and(|i| comparison.holds(Scalar::Instant(i))))
            }
            Some(Cell::Text(text, n)) => {
                let known = &mut self.of_text[n as usize];
                Verdict::of(*known.get_or_insert_with(|| comparison.holds(Scalar::Text(text))))
            }
            Some(Cell::Instant(i)) if has_only_instants(comparison) => Verdict::of(comparison.holds(Scalar::Instant(i))),
            Some(Cell::Instant(i)) => Verdict::of(comparison.holds(Scalar::Text(&i.to_string()))),
            Some(Cell::Hashed(hash)) => self.hashed(hash, false),
            Some(Cell::Link(hash)) => self.hashed(hash, true),
            Some(cell) => cell.scalar().map_or(Verdict::Ask, |s| Verdict::of(comparison.holds(s))),
        }
    }

    /// Of a text of which only the hash is known. It is no instant.
    fn hashed(&self, hash: u64, is_link: bool) -> Verdict {
        let may_equal = |list: &[Operand]| {
            list.iter().any(|o| match o {
                Operand::Text(t) | Operand::Uri(t) => self.table.hash(t) == hash,
                Operand::Number(_) | Operand::Bool(_) => false,
                Operand::Instant(_) | Operand::Date(_) | Operand::Time(_) => true,
            })
        };
        match self.comparison {
            Comparison::Exists => Verdict::Yes,
            Comparison::Equal(list) if !may_equal(list) => Verdict::No,
            Comparison::NotEqual(list) if !may_equal(list) => Verdict::Yes,
            Comparison::Equal(_) | Comparison::NotEqual(_) => Verdict::Ask,
            // Relationships can only be asked for, equal or unequal.
            _ if is_link => Verdict::No,
            Comparison::Order(_, Operand::Number(_) | Operand::Bool(_)) => Verdict::No,
            _ => Verdict::Ask,
        }
    }
}

fn has_only_instants(comparison: &Comparison) -> bool {
    let is_one = |o: &Operand| matches!(o, Operand::Instant(_));
    match comparison {
        Comparison::Exists => true,
        Comparison::Equal(list) | Comparison::NotEqual(list) => list.iter().all(is_one),
        Comparison::Between(a, b) | Comparison::NotBetween(a, b) => is_one(a) && is_one(b),
        Comparison::Order(_, o) => is_one(o),
        Comparison::Matches(_) | Comparison::NotMatches(_) => false,
    }
}

/// Has the entity all of these words?
pub(super) fn has_words(entity: &entity::Entity, words: &[String]) -> bool {
    let its = words_of_entity(entity);
    words.iter().all(|w| its.binary_search(w).is_ok())
}
