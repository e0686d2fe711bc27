//! What a table can leave out before it reads: conditions on `id`, `observed_at` and `location`.
//!
//! Everything here may keep more than the condition asks for, not less: the engine applies the conditions again.

use std::collections::BTreeSet;
use std::ops::Range;

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown};
use entity::Instant;
use geo::{BoundingRect, Coord, Rect};

use crate::geometry::{Reference, measure, wkb};
use crate::latest::LOCATION_COLUMN;

/// The column that identifies the entity, in every table.
pub(crate) const ID: &str = "id";
/// The column with the observed time, in every table.
pub(crate) const OBSERVED_AT: &str = "observed_at";

/// The part of a table that the conditions can be about.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Narrowing {
    /// Only these entities.
    pub(crate) ids: Option<BTreeSet<String>>,
    /// Only rows observed in this interval, in microseconds; rows without observed time cannot satisfy the conditions.
    pub(crate) observed_us: Option<Range<i64>>,
    /// Only what has a place whose box meets this one: `[west, south, east, north]` in degrees.
    pub(crate) place: Option<[f64; 4]>,
}

impl Narrowing {
    /// Of conditions that all must hold.
    pub(crate) fn of(filters: &[Expr]) -> Self {
        let mut narrowing = Self::default();
        for condition in filters.iter().flat_map(split_conjunction) {
            if let Some(ids) = ids(condition) {
                narrowing.ids = Some(match narrowing.ids.take() {
                    Some(before) => before.intersection(&ids).cloned().collect(),
                    None => ids,
                });
            }
            if let Some(interval) = interval_us(condition, OBSERVED_AT) {
                narrowing.observed_us = Some(match narrowing.observed_us.take() {
                    Some(before) => before.start.max(interval.start)..before.end.min(interval.end),
                    None => interval,
                });
            }
            if let Some(within) = place(condition) {
                // What meets two boxes need not meet what they have in common: the smaller one is as good as it gets.
                let size = |b: &[f64; 4]| (b[2] - b[0]) * (b[3] - b[1]);
                narrowing.place = Some(narrowing.place.filter(|before| size(before) <= size(&within)).unwrap_or(within));
            }
        }
        narrowing
    }

    /// The observed interval in instants.
    ///
    /// An interval without upper bound ends before [`Instant::MAX`] (9999-12-30T22:00:00Z): half-open, it cannot end behind the last instant.
    pub(crate) fn observed(&self) -> Option<Range<Instant>> {
        let us = self.observed_us.as_ref()?;
        let start = Instant::from_micros(us.start);
        Some(start..Instant::from_micros(us.end).max(start))
    }
}

/// Is a condition the same as what [`Narrowing`] makes of it?
pub(crate) fn exact(condition: &Expr) -> bool {
    ids(condition).is_some() || interval_us(condition, OBSERVED_AT).is_some()
}

/// Says for each condition whether it can narrow what is read.
pub(crate) fn supported(filters: &[&Expr]) -> Vec<TableProviderFilterPushDown> {
    let useful = |f: &&Expr| Narrowing::of(std::slice::from_ref(*f)) != Narrowing::default();
    filters
        .iter()
        .map(|f| if useful(f) { TableProviderFilterPushDown::Inexact } else { TableProviderFilterPushDown::Unsupported })
        .collect()
}

/// The ids a condition allows, if it is about nothing but the id.
fn ids(condition: &Expr) -> Option<BTreeSet<String>> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let mut either = ids(left)?;
            either.extend(ids(right)?);
            Some(either)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => match (&**left, &**right) {
            (column, Expr::Literal(value, _)) | (Expr::Literal(value, _), column) if is_column(column, ID) => {
                Some(BTreeSet::from([value.try_as_str()??.to_owned()]))
            }
            _ => None,
        },
        Expr::InList(list) if !list.negated && is_column(&list.expr, ID) => {
            let text = |e: &Expr| match e {
                Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_owned),
                _ => None,
            };
            list.list.iter().map(text).collect()
        }
        _ => None,
    }
}

/// The half-open interval of the times in a column that a condition allows, in microseconds, if it is about nothing but that. It is exactly what the
/// condition says.
pub(crate) fn interval_us(condition: &Expr, time: &str) -> Option<Range<i64>> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (&**left, &**right) {
            (column, Expr::Literal(value, _)) if is_column(column, time) => bound(*op, value),
            (Expr::Literal(value, _), column) if is_column(column, time) => bound(op.swap()?, value),
            _ => None,
        },
        Expr::Between(between) if !between.negated && is_column(&between.expr, time) => match (&*between.low, &*between.high) {
            (Expr::Literal(low, _), Expr::Literal(high, _)) => Some(bound(Operator::GtEq, low)?.start..bound(Operator::LtEq, high)?.end),
            _ => None,
        },
        _ => None,
    }
}

/// Relations that only hold between geometries whose boxes meet.
const MEETING: [&str; 10] = [
    "__overlap",
    "st_intersects",
    "st_within",
    "st_contains",
    "st_covers",
    "st_coveredby",
    "st_touches",
    "st_crosses",
    "st_overlaps",
    "st_equals",
];

/// The box that the place of a row has to meet, if the condition is a relation between it and a constant.
fn place(condition: &Expr) -> Option<[f64; 4]> {
    let Expr::ScalarFunction(function) = condition else { return None };
    let near = function.func.name() == "st_dwithin";
    if !near && !MEETING.contains(&function.func.name()) {
        return None;
    }
    let (a, b) = (function.args.first()?, function.args.get(1)?);
    let (on_earth, constant) = match (place_column(a), place_column(b)) {
        (Some(on_earth), None) => (on_earth, b),
        (None, Some(on_earth)) => (on_earth, a),
        _ => return None,
    };
    let Expr::Literal(ScalarValue::Binary(Some(bytes)), metadata) = constant else { return None };
    let field = Field::new("constant", DataType::Binary, true);
    let field = metadata.as_ref().map_or_else(|| field.clone(), |m| m.add_to_field(field.clone()));
    let reference = Reference::of(&field).unwrap_or_default();
    let (shape, _) = wkb::read(bytes).ok()?;
    let rect = if near {
        let Expr::Literal(distance, _) = function.args.get(2)? else { return None };
        let ScalarValue::Float64(Some(distance)) = distance.cast_to(&DataType::Float64).ok()? else { return None };
        if on_earth || reference.on_earth {
            measure::around(&shape, distance)?
        } else {
            let rect = shape.bounding_rect()?;
            let by = distance.max(0.0);
            Rect::new(Coord { x: rect.min().x - by, y: rect.min().y - by }, Coord { x: rect.max().x + by, y: rect.max().y + by })
        }
    } else {
        shape.bounding_rect()?
    };
    Some([rect.min().x, rect.min().y, rect.max().x, rect.max().y])
}

/// Is this the column with the place, maybe measured on the Earth?
fn place_column(expr: &Expr) -> Option<bool> {
    match expr {
        Expr::Column(column) if column.name() == LOCATION_COLUMN => Some(false),
        Expr::ScalarFunction(f) if f.func.name() == "st_geography" => place_column(f.args.first()?).map(|_| true),
        _ => None,
    }
}

fn bound(op: Operator, value: &ScalarValue) -> Option<Range<i64>> {
    // Whole microseconds below and above the value, equal if it is a whole number of them.
    let (floor, ceil) = match *value {
        ScalarValue::TimestampSecond(Some(t), _) => (t.checked_mul(1_000_000)?, t.checked_mul(1_000_000)?),
        ScalarValue::TimestampMillisecond(Some(t), _) => (t.checked_mul(1_000)?, t.checked_mul(1_000)?),
        ScalarValue::TimestampMicrosecond(Some(t), _) => (t, t),
        ScalarValue::TimestampNanosecond(Some(t), _) => (t.div_euclid(1_000), t.div_euclid(1_000) + i64::from(t.rem_euclid(1_000) != 0)),
        _ => return None,
    };
    match op {
        Operator::Eq if floor == ceil => Some(floor..floor.checked_add(1)?),
        Operator::GtEq => Some(ceil..i64::MAX),
        Operator::Gt => Some(floor.checked_add(1)?..i64::MAX),
        Operator::Lt => Some(i64::MIN..ceil),
        Operator::LtEq => Some(i64::MIN..floor.checked_add(1)?),
        _ => None,
    }
}

/// Is this the column, or the column widened to a finer time unit for the comparison?
fn is_column(expr: &Expr, name: &str) -> bool {
    match expr {
        Expr::Column(column) => column.name() == name,
        Expr::Cast(cast) => {
            let is_finer = matches!(cast.field.data_type(), DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, _));
            name != ID && is_finer && is_column(&cast.expr, name)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::{col, lit};

    fn us(t: i64) -> Expr {
        Expr::Literal(ScalarValue::TimestampMicrosecond(Some(t), None), None)
    }

    fn ns(t: i64) -> Expr {
        Expr::Literal(ScalarValue::TimestampNanosecond(Some(t), None), None)
    }

    #[test]
    fn conditions_on_id_become_a_set() {
        check(&col("id").eq(lit("a")), Some(&["a"]));
        check(&lit("a").eq(col("id")), Some(&["a"]));
        check(&col("id").in_list(vec![lit("a"), lit("b")], false), Some(&["a", "b"]));
        check(&col("id").eq(lit("a")).or(col("id").eq(lit("b"))), Some(&["a", "b"]));
        check(&col("id").eq(lit("a")).and(col("id").eq(lit("b"))), Some(&[]));
        check(&col("id").eq(lit("a")).and(col("x").gt(lit(1))), Some(&["a"]));
        check(&col("id").eq(lit("a")).or(col("x").gt(lit(1))), None);
        check(&col("id").in_list(vec![lit("a")], true), None);
        check(&col("id").gt(lit("a")), None);
        check(&col("name").eq(lit("a")), None);

        #[track_caller]
        fn check(condition: &Expr, want: Option<&[&str]>) {
            let want = want.map(|ids| ids.iter().map(|&id| id.to_owned()).collect::<BTreeSet<_>>());
            assert_eq!(Narrowing::of(std::slice::from_ref(condition)).ids, want, "{condition}");
        }
    }

    #[test]
    fn bounds_of_observed_time_become_a_half_open_interval() {
        let at = || col("observed_at");
        check(&at().gt_eq(us(5)), Some((5, i64::MAX)));
        check(&at().gt(us(5)), Some((6, i64::MAX)));
        check(&at().lt(us(5)), Some((i64::MIN, 5)));
        check(&at().lt_eq(us(5)), Some((i64::MIN, 6)));
        check(&at().eq(us(5)), Some((5, 6)));
        check(&us(5).lt_eq(at()), Some((5, i64::MAX)));
        check(&at().gt_eq(us(5)).and(at().lt(us(9))), Some((5, 9)));
        check(&at().between(us(5), us(9)), Some((5, 10)));
        check(&at().gt_eq(ns(5_001)), Some((6, i64::MAX)));
        check(&at().gt(ns(5_001)), Some((6, i64::MAX)));
        check(&at().lt(ns(5_001)), Some((i64::MIN, 6)));
        check(&at().lt_eq(ns(-1)), Some((i64::MIN, 0)));
        check(&at().eq(ns(5_001)), None);
        check(&at().not_eq(us(5)), None);
        check(&at().lt(us(5)).or(at().gt(us(9))), None);
        check(&col("recorded_at").lt(us(5)), None);

        #[track_caller]
        fn check(condition: &Expr, want: Option<(i64, i64)>) {
            assert_eq!(Narrowing::of(std::slice::from_ref(condition)).observed_us, want.map(|(start, end)| start..end), "{condition}");
        }
    }
}
