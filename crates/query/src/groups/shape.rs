//! What an aggregation asks of a history table, if the history can answer it exactly.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, ScalarValue};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::expr::{AggregateFunction, NullTreatment};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};
use entity::{Instant, Iri};
use store::history::{Bucket, Groups, Measure};

use super::table::{Grouped, Output};
use crate::history::{HistoryTable, N_FIXED};
use crate::pushdown::{ID, Narrowing, OBSERVED_AT, exact};
use crate::time::bucket;

/// Buckets of time that one entity, or all together, may have: the history keeps them in memory.
pub(super) const BUCKETS_MAX: i128 = 2_000_000;
/// How far the future may reach in a question without end.
const FUTURE_US: i64 = 366 * 86_400_000_000;

/// What is below an aggregation: a history table, perhaps with conditions and renamed columns.
struct Below {
    table: Arc<dyn TableProvider>,
    /// What each column is, in terms of the table's.
    columns: Vec<Expr>,
    conditions: Vec<Expr>,
}

impl Below {
    fn of(plan: &LogicalPlan) -> Option<Self> {
        match plan {
            LogicalPlan::TableScan(scan) if scan.fetch.is_none() => {
                let table = source_as_provider(&scan.source).ok()?;
                let schema = table.downcast_ref::<HistoryTable>()?.schema();
                let all = (0..schema.fields().len()).collect();
                let wanted: &Vec<usize> = scan.projection.as_ref().unwrap_or(&all);
                let columns = wanted.iter().map(|&i| Expr::Column(Column::new_unqualified(schema.field(i).name()))).collect();
                let mut below = Self { table, columns, conditions: Vec::new() };
                // They may speak of columns that are not passed on.
                below.conditions = scan.filters.iter().map(unqualified).collect::<Option<_>>()?;
                Some(below)
            }
            LogicalPlan::Filter(filter) => {
                let mut below = Self::of(&filter.input)?;
                let condition = below.inlined(&filter.predicate, &filter.input)?;
                below.conditions.push(condition);
                Some(below)
            }
            LogicalPlan::SubqueryAlias(alias) => Self::of(&alias.input),
            LogicalPlan::Projection(projection) => {
                let below = Self::of(&projection.input)?;
                let columns = projection.expr.iter().map(|e| below.inlined(e, &projection.input)).collect::<Option<_>>()?;
                Some(Self { columns, ..below })
            }
            _ => None,
        }
    }

    /// An expression over the columns of `input`, in terms of the table's.
    fn inlined(&self, expr: &Expr, input: &LogicalPlan) -> Option<Expr> {
        let mut known = true;
        let inlined = expr.clone().unalias_nested().data.transform_up(|e| match &e {
            Expr::Column(column) => match input.schema().maybe_index_of_column(column) {
                Some(i) => Ok(Transformed::yes(self.columns[i].clone())),
                None => {
                    known = false;
                    Ok(Transformed::no(e))
                }
            },
            _ => Ok(Transformed::no(e)),
        });
        inlined.ok().map(|t| t.data).filter(|_| known)
    }
}

fn unqualified(expr: &Expr) -> Option<Expr> {
    let plain = expr.clone().transform_up(|e| match e {
        Expr::Column(column) => Ok(Transformed::yes(Expr::Column(Column::new_unqualified(column.name)))),
        other => Ok(Transformed::no(other)),
    });
    plain.ok().map(|t| t.data)
}

/// What is asked so far.
struct Asked<'a> {
    table: &'a HistoryTable,
    /// Are rows without observed time left out?
    observed_only: bool,
    /// The attribute without which a row does not count.
    present: Option<Iri>,
    attributes: Vec<Iri>,
}

/// The reading that says what an aggregation does, with the name of its table; none if there is none.
pub(super) fn recognised(aggregate: &Aggregate, now: Option<Instant>) -> Option<(String, Grouped)> {
    let below = Below::of(&aggregate.input)?;
    let table = below.table.downcast_ref::<HistoryTable>()?;
    let mut asked = Asked { table, observed_only: false, present: None, attributes: Vec::new() };

    // Conditions.
    let mut exactly = Vec::new();
    for condition in below.conditions.iter().flat_map(split_conjunction) {
        match condition {
            Expr::IsNotNull(column) if is_column(column, OBSERVED_AT) => asked.observed_only = true,
            Expr::IsNotNull(column) if is_column(column, ID) => {}
            Expr::IsNotNull(column) => {
                let attribute = asked.number(column)?.clone();
                if asked.present.as_ref().is_some_and(|known| *known != attribute) {
                    return None;
                }
                asked.present = Some(attribute);
            }
            other if exact(other) => exactly.push(other.clone()),
            _ => return None,
        }
    }
    let narrowing = Narrowing::of(&exactly);
    asked.observed_only |= narrowing.observed_us.is_some();

    // Groups.
    let mut by_id = false;
    let mut cut = None;
    let mut outputs = Vec::new();
    for group in &aggregate.group_expr {
        let group = below.inlined(group, &aggregate.input)?;
        if is_column(&group, ID) {
            by_id = true;
            outputs.push(Output::Id);
        } else {
            let bucket = bucket_of(&group)?;
            if cut.replace(bucket).is_some_and(|other| other != bucket) {
                return None;
            }
            outputs.push(Output::Start);
        }
    }
    let bucket = cut.unwrap_or(Bucket::Whole);
    let observed_us = narrowing.observed_us.clone();
    if !is_bounded(bucket, observed_us.as_ref(), now) {
        return None;
    }

    // Aggregates.
    for aggregate_expr in &aggregate.aggr_expr {
        let Expr::AggregateFunction(call) = below.inlined(aggregate_expr, &aggregate.input)? else { return None };
        outputs.push(asked.measured(&call)?);
    }
    if let Some(present) = &asked.present
        && asked.attributes.iter().any(|name| name != present)
    {
        return None;
    }
    let groups = if asked.present.is_some() && asked.observed_only { Groups::Numbers } else { Groups::Rows };
    let (whole, observed) = (asked.observed_only, narrowing.observed());
    let observed = if whole { Some(observed.unwrap_or(Instant::MIN..Instant::MAX)) } else { None };
    let Asked { present, mut attributes, .. } = asked;
    if let Some(present) = &present
        && attributes.is_empty()
    {
        attributes.push(present.clone());
    }
    let grouped = Grouped {
        source: table.source().clone(),
        entity_type: table.entity_type().clone(),
        as_of: table.as_of(),
        // What is not an IRI is nobody's id.
        entities: narrowing.ids.map(|ids| ids.iter().filter_map(|id| id.parse().ok()).collect()),
        observed,
        bucket,
        by_id,
        groups,
        present,
        attributes,
        outputs,
        is_one_row: aggregate.group_expr.is_empty(),
    };
    Some((table.source().short_name(table.entity_type()), grouped))
}

fn is_column(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::Column(column) if column.name == name)
}

impl Asked<'_> {
    /// The attribute that a column of numbers is.
    fn number(&self, expr: &Expr) -> Option<&Iri> {
        let Expr::Column(column) = expr else { return None };
        let schema = self.table.schema();
        let i = schema.index_of(&column.name).ok()?;
        let is_number = schema.field(i).data_type() == &DataType::Float64;
        if is_number { self.table.attributes().get(i.checked_sub(N_FIXED)?) } else { None }
    }

    /// An attribute's place among those asked for.
    fn attribute(&mut self, expr: &Expr) -> Option<usize> {
        let name = self.number(expr)?.clone();
        Some(self.attributes.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.attributes.push(name);
            self.attributes.len() - 1
        }))
    }

    fn rows(&mut self) -> Output {
        match self.present.clone() {
            None => Output::Rows,
            Some(name) => {
                let place = self.attributes.iter().position(|known| *known == name).unwrap_or_else(|| {
                    self.attributes.push(name);
                    self.attributes.len() - 1
                });
                Output::Of(place, Measure::Count)
            }
        }
    }

    fn measured(&mut self, call: &AggregateFunction) -> Option<Output> {
        let params = &call.params;
        let [value] = params.args.as_slice() else { return None };
        if params.distinct {
            return None;
        }
        let filters: Vec<&Expr> = params.filter.iter().flat_map(|f| split_conjunction(f)).collect();
        // Nulls do not count anyway.
        let filter_is_idle = filters.iter().all(|f| matches!(f, Expr::IsNotNull(e) if **e == *value));
        let measure = match call.func.name() {
            name @ ("first_value" | "last_value") => return self.end(call, name == "last_value", &filters),
            name @ ("min" | "max") if is_column(value, OBSERVED_AT) => return self.when(call, name == "max", &filters),
            _ if !params.order_by.is_empty() || params.null_treatment.is_some() || !filter_is_idle => return None,
            "count" => match value {
                Expr::Literal(value, _) if !value.is_null() && filters.is_empty() => return Some(self.rows()),
                Expr::Column(column) if filters.is_empty() && [ID, "recorded_at"].contains(&column.name.as_str()) => {
                    return Some(self.rows());
                }
                Expr::Column(column) if filters.is_empty() && column.name == OBSERVED_AT && self.observed_only => return Some(self.rows()),
                _ => Measure::Count,
            },
            "sum" => Measure::Sum,
            "avg" => Measure::Mean,
            "min" => Measure::Min,
            "max" => Measure::Max,
            _ => return None,
        };
        Some(Output::Of(self.attribute(value)?, measure))
    }

    /// The earliest or latest time at which there is a value of an attribute.
    fn when(&mut self, call: &AggregateFunction, is_last: bool, filters: &[&Expr]) -> Option<Output> {
        let params = &call.params;
        let mut attribute = self.present.clone();
        for filter in filters {
            match filter {
                Expr::IsNotNull(e) if is_column(e, OBSERVED_AT) => {}
                Expr::IsNotNull(e) => {
                    let name = self.number(e)?.clone();
                    // Times at which there are values of both are not known.
                    if *attribute.get_or_insert_with(|| name.clone()) != name {
                        return None;
                    }
                }
                _ => return None,
            }
        }
        // Rows without any value that counts have times as well.
        if !params.order_by.is_empty() || params.null_treatment.is_some() || !self.observed_only {
            return None;
        }
        let name = attribute?;
        let place = self.attributes.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.attributes.push(name);
            self.attributes.len() - 1
        });
        Some(Output::Of(place, if is_last { Measure::LastAt } else { Measure::FirstAt }))
    }

    /// The value at the earliest or latest time.
    fn end(&mut self, call: &AggregateFunction, is_last: bool, filters: &[&Expr]) -> Option<Output> {
        let params = &call.params;
        let ([value], [sort]) = (params.args.as_slice(), params.order_by.as_slice()) else { return None };
        let mut has_value = params.null_treatment == Some(NullTreatment::IgnoreNulls);
        for filter in filters {
            match filter {
                Expr::IsNotNull(e) if **e == *value => has_value = true,
                Expr::IsNotNull(e) if is_column(e, OBSERVED_AT) => {}
                _ => return None,
            }
        }
        has_value |= self.present.is_some() && self.number(value) == self.present.as_ref();
        if !is_column(&sort.expr, OBSERVED_AT) || !self.observed_only || !has_value {
            return None;
        }
        let measure = if sort.asc == is_last { Measure::Last } else { Measure::First };
        Some(Output::Of(self.attribute(value)?, measure))
    }
}

/// How an expression cuts the observed time.
fn bucket_of(expr: &Expr) -> Option<Bucket> {
    let Expr::ScalarFunction(call) = expr else { return None };
    let (bucket, time) = match (call.func.name(), call.args.as_slice()) {
        ("time_bucket", args) => bucket::of_call(args)?,
        ("date_trunc", [Expr::Literal(unit, _), time]) => (truncated(unit.try_as_str()??)?, time),
        ("date_bin", [Expr::Literal(stride, _), time, rest @ ..]) => {
            let origin_ns = match rest {
                [] => 0,
                [Expr::Literal(origin, _)] => nanos(origin)?,
                _ => return None,
            };
            let width = bucket::width(stride).ok()??;
            let width_ns = i64::from(width.days).checked_mul(86_400_000_000_000)?.checked_add(width.nanoseconds)?;
            if width.months != 0 || width_ns < 1_000 || width_ns % 1_000 != 0 || origin_ns % 1_000 != 0 {
                return None;
            }
            (bucket::of_width(width_ns / 1_000, origin_ns / 1_000)?, time)
        }
        _ => return None,
    };
    is_time(time).then_some(bucket)
}

/// Is this the observed time, maybe in a finer unit, in UTC?
fn is_time(expr: &Expr) -> bool {
    match expr {
        Expr::Cast(cast) => {
            let in_utc = |zone: &str| ["+00:00", "+00", "UTC"].contains(&zone);
            let is_finer = match cast.field.data_type() {
                DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, zone) => zone.as_deref().is_none_or(in_utc),
                _ => false,
            };
            is_finer && is_column(&cast.expr, OBSERVED_AT)
        }
        column => is_column(column, OBSERVED_AT),
    }
}

fn nanos(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::TimestampNanosecond(at, _) => *at,
        ScalarValue::TimestampMicrosecond(at, _) => at.as_ref()?.checked_mul(1_000),
        ScalarValue::TimestampMillisecond(at, _) => at.as_ref()?.checked_mul(1_000_000),
        ScalarValue::TimestampSecond(at, _) => at.as_ref()?.checked_mul(1_000_000_000),
        _ => None,
    }
}

/// `date_trunc`, in UTC.
fn truncated(unit: &str) -> Option<Bucket> {
    const SECOND_US: i64 = 1_000_000;
    // A Monday.
    const WEEK_ORIGIN_US: i64 = 4 * 86_400 * SECOND_US;
    let months = |months| match Bucket::month(0) {
        Bucket::Months { origin, offset_s, .. } => Some(Bucket::Months { months, origin, offset_s }),
        _ => None,
    };
    match unit.to_ascii_lowercase().as_str() {
        "second" => bucket::of_width(SECOND_US, 0),
        "minute" => bucket::of_width(60 * SECOND_US, 0),
        "hour" => bucket::of_width(3_600 * SECOND_US, 0),
        "day" => bucket::of_width(86_400 * SECOND_US, 0),
        "week" => bucket::of_width(7 * 86_400 * SECOND_US, WEEK_ORIGIN_US),
        "month" => months(1),
        "quarter" => months(3),
        "year" => months(12),
        _ => None,
    }
}

/// Are there few enough buckets, as far as can be told?
pub(super) fn is_bounded(bucket: Bucket, observed_us: Option<&std::ops::Range<i64>>, now: Option<Instant>) -> bool {
    let Bucket::Width { width_us, .. } = bucket else { return true };
    let (from, to) = observed_us.map_or((i64::MIN, i64::MAX), |o| (o.start, o.end));
    let from = if from == i64::MIN { 0.min(to) } else { from };
    let to = if to == i64::MAX { now.map_or(i64::MAX, |now| now.micros().saturating_add(FUTURE_US)).max(from) } else { to };
    (i128::from(to) - i128::from(from)) / i128::from(width_us) <= BUCKETS_MAX
}

/// Attributes that some outputs speak of.
pub(super) fn spoken_of(outputs: &[Output]) -> BTreeSet<usize> {
    outputs.iter().filter_map(|o| if let Output::Of(i, _) = o { Some(*i) } else { None }).collect()
}
