//! `time_bucket_gapfill`: a row for every bucket, whether there are data in it or not.
//!
//! A statement such as
//! ```sql
//! select time_bucket_gapfill('1 hour', observed_at) as hour, id, avg(pm25), locf(avg(pm25)), interpolate(avg(pm25))
//! from "AirQualityObserved_history" where observed_at >= '2014-01-01' and observed_at < '2014-01-02' group by hour, id
//! ```
//! is rewritten before anything else is done to it: the aggregation groups by `time_bucket`, above it comes the operator of [`super::fill`], and
//! the select list takes what `locf` and `interpolate` say from there. The interval to fill is that of the third and fourth argument, or what the
//! conditions on the same column say.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue, exec_err, plan_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Aggregate, ColumnarValue, Expr, Extension, Filter, LogicalPlan, Projection, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility, col,
};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use super::bucket::{Bucket, TimeBucket, coerced, width};
use super::fill::{Fill, GapFill};
use crate::pushdown::interval_us;

/// The most buckets that one group is filled with.
const BUCKETS_MAX: usize = 100_000;

const GAPFILL: &str = "time_bucket_gapfill";
const LOCF: &str = "locf";
const INTERPOLATE: &str = "interpolate";

pub(super) fn functions() -> [ScalarUDF; 3] {
    let marker = |name| ScalarUDF::from(Marker { name, signature: Signature::user_defined(Volatility::Volatile) });
    [marker(GAPFILL), marker(LOCF), marker(INTERPOLATE)]
}

/// A function that says what is wanted and is gone after the rewriting.
#[derive(PartialEq, Eq, Hash, Debug)]
struct Marker {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Marker {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match (self.name, types) {
            (GAPFILL, [_, _] | [_, _, _, _]) => {
                let mut wanted = coerced(GAPFILL, types)?;
                let time = wanted[1].clone();
                wanted.resize(types.len(), time);
                Ok(wanted)
            }
            (GAPFILL, _) => plan_err!("{GAPFILL} takes a width and a time, and after them a start and a finish or neither"),
            (LOCF, [value]) => Ok(vec![value.clone()]),
            (_, [value]) if value.is_numeric() || value == &DataType::Null => Ok(vec![DataType::Float64]),
            (_, [value]) => plan_err!("{INTERPOLATE}: the value is {value} (expected a number)"),
            (name, _) => plan_err!("{name} takes one value, as in {name}(avg(pm25))"),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let types = self.coerce_types(types)?;
        Ok(types[if self.name == GAPFILL { 1 } else { 0 }].clone())
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match self.name {
            GAPFILL => exec_err!("{GAPFILL} belongs into GROUP BY, and once into the select list of the same query"),
            name => exec_err!("{name} belongs into the select list of a query that groups by {GAPFILL}"),
        }
    }
}

/// The arguments if it is a call of that function.
fn call<'e>(expr: &'e Expr, name: &str) -> Option<&'e [Expr]> {
    match expr {
        Expr::ScalarFunction(f) if f.func.name() == name => Some(&f.args),
        Expr::Alias(alias) => call(&alias.expr, name),
        _ => None,
    }
}

/// The rewriting.
#[derive(Debug)]
pub(super) struct Rewrite;

impl OptimizerRule for Rewrite {
    fn name(&self) -> &'static str {
        "fill_gaps"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>, DataFusionError> {
        let LogicalPlan::Projection(projection) = &plan else { return Ok(Transformed::no(plan)) };
        let (having, aggregate) = match &*projection.input {
            LogicalPlan::Aggregate(aggregate) => (None, aggregate),
            LogicalPlan::Filter(Filter { predicate, input, .. }) => match &**input {
                LogicalPlan::Aggregate(aggregate) => (Some(predicate), aggregate),
                _ => return Ok(Transformed::no(plan)),
            },
            _ => return Ok(Transformed::no(plan)),
        };
        let mut calls = aggregate.group_expr.iter().enumerate().filter_map(|(i, e)| Some((i, call(e, GAPFILL)?)));
        let Some((time_at, arguments)) = calls.next() else { return Ok(Transformed::no(plan)) };
        if calls.next().is_some() {
            return plan_err!("{GAPFILL} can be grouped by once");
        }
        let arguments = arguments.to_vec();
        rewritten(projection, having, aggregate, time_at, &arguments, config).map(Transformed::yes)
    }
}

fn rewritten(
    projection: &Projection,
    having: Option<&Expr>,
    aggregate: &Aggregate,
    time_at: usize,
    arguments: &[Expr],
    config: &dyn OptimizerConfig,
) -> Result<LogicalPlan> {
    let simplifier = ExprSimplifier::new(
        SimplifyContext::builder()
            .with_schema(aggregate.input.schema().clone())
            .with_config_options(config.options())
            .with_query_execution_start_time(config.query_execution_start_time())
            .build(),
    );
    let constant = |expr: &Expr| match simplifier.simplify(expr.clone())? {
        Expr::Literal(value, _) => Ok(value),
        other => plan_err!("{GAPFILL}: `{other}` has to be a constant"),
    };
    let Some(wide) = width(&constant(&arguments[0])?)? else { return plan_err!("{GAPFILL}: the width is null") };
    let bucket = Bucket::new(wide)?;
    let (start, finish) = match arguments {
        [_, _, start, finish] => (micros(&constant(start)?)?, micros(&constant(finish)?)?),
        [_, time, ..] => {
            let mut found = (None, None);
            bounds(&aggregate.input, time, &simplifier, &mut found)?;
            found
        }
        _ => return plan_err!("{GAPFILL} without arguments"),
    };
    let missing = |what: &str| {
        format!(
            "{GAPFILL}: where to {what} is not known; give it as an argument, or as a condition on the time, such as `observed_at >= '2014-01-01' and observed_at < '2014-02-01'`"
        )
    };
    let Some(start) = start else { return plan_err!("{}", missing("start")) };
    let Some(finish) = finish else { return plan_err!("{}", missing("finish")) };
    let starts_us = buckets(bucket, start, finish)?;

    // Grouped by `time_bucket`, under the name of the function that it stands for.
    let mut groups = aggregate.group_expr.clone();
    let plain = Expr::ScalarFunction(datafusion::logical_expr::expr::ScalarFunction {
        func: Arc::new(TimeBucket::udf()),
        args: vec![Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(wide)), None), arguments[1].clone()],
    });
    let name = groups[time_at].schema_name().to_string();
    groups[time_at] = plain.alias(name);
    let grouped = Aggregate::try_new(aggregate.input.clone(), groups, aggregate.aggr_expr.clone())?;
    let n_groups = grouped.group_expr.len();
    let columns: Vec<Expr> = grouped.schema.iter().map(|(q, f)| Expr::Column(Column::new(q.cloned(), f.name()))).collect();
    let n_columns = columns.len();
    let mut input = LogicalPlan::Aggregate(grouped);
    if let Some(having) = having {
        input = LogicalPlan::Filter(Filter::try_new(having.clone(), Arc::new(input))?);
    }

    // What is carried on or interpolated becomes a column before the filling, and is taken from there after it.
    let mut fills: Vec<Fill> = vec![Fill::Null; n_columns];
    let mut before = columns;
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut after = Vec::with_capacity(projection.expr.len());
    for expr in &projection.expr {
        let name = expr.schema_name().to_string();
        let replaced = expr.clone().transform_down(|e| {
            let (fill, value) = match (call(&e, LOCF), call(&e, INTERPOLATE)) {
                (Some([value]), _) if !matches!(e, Expr::Alias(_)) => (Fill::Last, value.clone()),
                (_, Some([value])) if !matches!(e, Expr::Alias(_)) => (Fill::Between, value.clone()),
                _ => return Ok(Transformed::no(e)),
            };
            let text = e.schema_name().to_string();
            let column = known.entry(text).or_insert_with(|| {
                let column = format!("__fill_{}", before.len());
                before.push(value.alias(&column));
                fills.push(fill);
                column
            });
            Ok(Transformed::new(col(Column::new_unqualified(column.clone())), true, TreeNodeRecursion::Jump))
        })?;
        after.push(match &replaced.data {
            Expr::Column(_) | Expr::Alias(_) if !replaced.transformed => replaced.data,
            Expr::Alias(_) => replaced.data,
            _ => replaced.data.alias(name),
        });
    }
    let input = LogicalPlan::Projection(Projection::try_new(before, Arc::new(input))?);
    let keys = (0..n_groups).filter(|&i| i != time_at).collect();
    let filled = GapFill::try_new(input, time_at, keys, fills, starts_us)?;
    let filled = LogicalPlan::Extension(Extension { node: Arc::new(filled) });
    Ok(LogicalPlan::Projection(Projection::try_new(after, Arc::new(filled))?))
}

fn micros(value: &ScalarValue) -> Result<Option<i64>> {
    match value.cast_to(&DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None))? {
        ScalarValue::TimestampMicrosecond(us, _) => Ok(us),
        other => plan_err!("{GAPFILL}: {other} is no time"),
    }
}

/// The starts of all buckets between, the first of them holding `start`.
fn buckets(bucket: Bucket, start: i64, finish: i64) -> Result<Vec<i64>> {
    let mut starts = Vec::new();
    let mut next = bucket.start_us(start);
    while let Some(at) = next.filter(|&at| at < finish) {
        if starts.len() == BUCKETS_MAX {
            return plan_err!("{GAPFILL}: more than {BUCKETS_MAX} buckets between start and finish");
        }
        starts.push(at);
        next = bucket.next_us(at);
    }
    Ok(starts)
}

/// What the conditions beneath say about the time.
fn bounds(plan: &LogicalPlan, time: &Expr, simplifier: &ExprSimplifier, found: &mut (Option<i64>, Option<i64>)) -> Result<()> {
    let Some(column) = column_of(time) else { return Ok(()) };
    let filters: Vec<&Expr> = match plan {
        LogicalPlan::Filter(filter) => split_conjunction(&filter.predicate),
        LogicalPlan::TableScan(scan) => scan.filters.iter().flat_map(split_conjunction).collect(),
        _ => Vec::new(),
    };
    // Simplified they may be several: `between` becomes two comparisons.
    let simplified: Vec<Expr> = filters.into_iter().map(|f| simplifier.simplify(f.clone()).unwrap_or_else(|_| f.clone())).collect();
    for filter in simplified.iter().flat_map(split_conjunction) {
        let Some(interval) = interval_us(filter, &column.name) else {
            continue;
        };
        if interval.start != i64::MIN {
            found.0 = Some(found.0.map_or(interval.start, |s: i64| s.max(interval.start)));
        }
        if interval.end != i64::MAX {
            found.1 = Some(found.1.map_or(interval.end, |f: i64| f.min(interval.end)));
        }
    }
    match plan {
        LogicalPlan::Filter(filter) => bounds(&filter.input, time, simplifier, found),
        LogicalPlan::SubqueryAlias(alias) => bounds(&alias.input, time, simplifier, found),
        _ => Ok(()),
    }
}

fn column_of(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Cast(cast) => column_of(&cast.expr),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::IntervalMonthDayNano;

    #[test]
    fn buckets_cover_the_interval() {
        let hour = Bucket::new(IntervalMonthDayNano::new(0, 0, 3_600_000_000_000)).unwrap();
        let h = 3_600_000_000;
        assert_eq!(buckets(hour, h + 1, 3 * h).unwrap(), [h, 2 * h]);
        assert_eq!(buckets(hour, h, 3 * h + 1).unwrap(), [h, 2 * h, 3 * h]);
        assert!(buckets(hour, h, h).unwrap().is_empty());
        let error = buckets(hour, 0, i64::MAX).unwrap_err().to_string();
        assert!(error.contains("more than 100000 buckets"), "{error}");
    }
}
