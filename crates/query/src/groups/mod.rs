//! `GROUP BY` over a history table, answered by the history's own aggregates.
//!
//! A statement such as
//! ```sql
//! select id, time_bucket('1 hour', observed_at) as hour, avg(pm25) from "AirQualityObserved_history" where observed_at >= '2014-01-01' group by id, hour
//! ```
//! needs no row of the table: [`Rewrite`] puts a reading of [`History::group`](store::history::History::group) into the place of the aggregation,
//! which works on the columns of the files, and on roll-ups where they say the same. What stands above (`HAVING`, `ORDER BY`, joins, filling of gaps)
//! stays as it is.
//!
//! **Invariant: the answer is the same.** A shape is taken only if every part of it means exactly the same to the history:
//! * groups: nothing, `id`, one bucket of `observed_at` (`time_bucket`, `date_bin`, `date_trunc`), or both;
//! * conditions: on `id` and `observed_at`, if they can be answered exactly, and `attribute is not null` of the only attribute that is aggregated;
//! * aggregates: `count(*)`, and `count`, `sum`, `avg`, `min`, `max` of a column of numbers; `first` and `last` by `observed_at`, and `min` and `max` of
//!   `observed_at` itself, if rows without a value of the attribute are left out.
//!
//! Sums are compensated, so they differ from the engine's in what that rounds off; of two zeros with different signs, either may be the smallest.
//!
//! * [`shape`] recognises what is asked.
//! * [`table`] is the reading, as a table.
//! * [`function`] is the table function `aggregate`, which makes such a table by name.

pub(crate) mod function;
mod shape;
pub(crate) mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::common::Column;
use datafusion::common::TableReference;
use datafusion::common::tree_node::Transformed;
use datafusion::datasource::provider_as_source;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Projection, TableScanBuilder};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use entity::Instant;

use self::table::Grouped;

/// Name of the rule.
pub(crate) const RULE: &str = "group_history";

/// The rewriting.
#[derive(Debug)]
pub(crate) struct Rewrite;

impl OptimizerRule for Rewrite {
    fn name(&self) -> &'static str {
        RULE
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>, DataFusionError> {
        let LogicalPlan::Aggregate(aggregate) = &plan else { return Ok(Transformed::no(plan)) };
        let now = config.query_execution_start_time().map(|at| Instant::from_micros(at.timestamp_micros()));
        match shape::recognised(aggregate, now) {
            Some((name, grouped)) => Ok(Transformed::yes(replaced(aggregate, &name, grouped)?)),
            None => Ok(Transformed::no(plan)),
        }
    }
}

/// The reading, with the columns of the aggregation.
fn replaced(aggregate: &Aggregate, table: &str, grouped: Grouped) -> Result<LogicalPlan> {
    // The same fields, so that types, nullability and what is remarked upon a column stay; under names that differ from each other.
    let mut taken = BTreeSet::new();
    let mut fields = Vec::new();
    for (i, field) in aggregate.schema.fields().iter().enumerate() {
        let name = if taken.contains(field.name()) { format!("{}#{i}", field.name()) } else { field.name().clone() };
        taken.insert(name.clone());
        fields.push(Field::clone(field).with_name(name));
    }
    let name = TableReference::bare(format!("{table} (grouped)"));
    let columns = aggregate.schema.iter().zip(&fields).map(|((qualifier, field), column)| {
        let column = Expr::Column(Column::new(Some(name.clone()), column.name()));
        if qualifier.is_none() && column.schema_name().to_string() == *field.name() {
            return column;
        }
        column.alias_qualified(qualifier.cloned(), field.name())
    });
    let columns = columns.collect();
    let provider = Arc::new(grouped.table(Arc::new(Schema::new(fields))));
    let scan = TableScanBuilder::new(name, provider_as_source(provider)).build()?;
    Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(LogicalPlan::TableScan(scan)))?))
}
