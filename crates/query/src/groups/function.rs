//! `aggregate('Type', 'attribute,attribute', '1 hour' [, from, to])`: the history's own aggregates as a table.
//!
//! Unlike a statement over the rows of the history it knows what only roll-ups still know: buckets whose values retention has removed.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{ScalarValue, plan_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Expr;
use datafusion::prelude::SessionContext;
use entity::{Instant, Iri};
use store::history::{AGGREGATE_ATTRIBUTES_MAX, Groups, Measure};

use super::shape::{BUCKETS_MAX, is_bounded};
use super::table::{Grouped, Output};
use crate::catalog::Tables;
use crate::history::{HistoryTable, N_FIXED};
use crate::latest::timestamp;
use crate::pushdown::ID;
use crate::system_time::instant;
use crate::time::bucket;

const NAME: &str = "aggregate";
const USAGE: &str = "aggregate takes a type, its attributes, a width and perhaps a start and an end, \
                     as in aggregate('AirQualityObserved', 'pm25,no2', '1 hour', '2014-01-01', '2014-02-01')";
/// The columns of each attribute.
const MEASURES: [Measure; 7] = [Measure::Count, Measure::Sum, Measure::Min, Measure::Max, Measure::Mean, Measure::First, Measure::Last];
/// Where a question without end is taken to end when its buckets are counted: 2100-01-01.
const END_S: i64 = 4_102_444_800;

/// Makes the table function known to a session.
pub(crate) fn register(context: &SessionContext, tables: &Arc<Tables>) {
    context.register_udtf(NAME, Arc::new(Function { tables: tables.clone() }));
}

#[derive(Debug)]
struct Function {
    tables: Arc<Tables>,
}

fn constant(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    }
}

/// A time that is given as text or as a time.
fn time(value: &ScalarValue) -> Result<Instant> {
    if let Some(text) = value.try_as_str().flatten() {
        return instant(text).parse().map_err(|e: entity::InstantError| DataFusionError::Plan(format!("{NAME}: {e}")));
    }
    match value.cast_to(&DataType::Timestamp(TimeUnit::Microsecond, None))? {
        ScalarValue::TimestampMicrosecond(Some(us), _) => Ok(Instant::from_micros(us)),
        _ => plan_err!("{NAME}: {value} is no time"),
    }
}

impl TableFunctionImpl for Function {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let values: Option<Vec<&ScalarValue>> = args.exprs().iter().map(constant).collect();
        let Some(([type_name, names, wide], times)) = values.as_deref().and_then(|v| v.split_first_chunk::<3>()) else {
            return plan_err!("{USAGE}; all of them are constants");
        };
        let (Some(type_name), Some(names)) = (type_name.try_as_str().flatten(), names.try_as_str().flatten()) else {
            return plan_err!("{USAGE}");
        };
        let Some(described) = self.tables.history_of(type_name) else {
            return plan_err!("{NAME}: there is no type `{type_name}` with a history");
        };
        let table = HistoryTable::new(self.tables.source.clone(), described, None);
        let mut fields = vec![Field::new(ID, DataType::Utf8, false), Field::new("bucket", timestamp(), false)];
        let mut outputs = vec![Output::Id, Output::Start];
        let mut attributes: Vec<Iri> = Vec::new();
        for name in names.split(',').map(str::trim) {
            let (field, attribute) = column(&table, type_name, name)?;
            if attributes.contains(attribute) {
                return plan_err!("{NAME}: attribute `{name}` is given twice");
            }
            for measure in MEASURES {
                let data_type = if measure == Measure::Count { DataType::Int64 } else { DataType::Float64 };
                let metadata = if measure == Measure::Count { Default::default() } else { field.metadata().clone() };
                let is_nullable = measure != Measure::Count;
                fields.push(Field::new(format!("{name}_{}", measure.name()), data_type, is_nullable).with_metadata(metadata));
                outputs.push(Output::Of(attributes.len(), measure));
            }
            attributes.push(attribute.clone());
        }
        if attributes.len() > AGGREGATE_ATTRIBUTES_MAX {
            return plan_err!("{NAME}: {} attributes are more than the limit of {AGGREGATE_ATTRIBUTES_MAX}", attributes.len());
        }
        let Some(wide) = bucket::width(wide)? else { return plan_err!("{NAME}: the width is null") };
        let wide = [Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(wide)), None), Expr::Literal(ScalarValue::Null, None)];
        let Some((cut, _)) = bucket::of_call(&wide) else {
            return plan_err!("{NAME}: the width is a length of time such as '15 minutes', or a number of months; at least a microsecond");
        };
        let (from, to) = match times {
            [] => (None, None),
            [from] => (Some(time(from)?), None),
            [from, to] => (Some(time(from)?), Some(time(to)?)),
            _ => return plan_err!("{USAGE}"),
        };
        let observed = (from, to) != (None, None);
        let observed = observed.then(|| from.unwrap_or(Instant::MIN)..to.unwrap_or(Instant::MAX));
        if let Some(empty) = observed.as_ref().filter(|o| o.start >= o.end) {
            return plan_err!("{NAME}: the time from {} to {} is empty", empty.start, empty.end);
        }
        let counted = from.map_or(i64::MIN, Instant::micros)..to.unwrap_or(Instant::from_secs(END_S)).micros();
        if !is_bounded(cut, Some(&counted), None) {
            return plan_err!("{NAME}: these are more than {BUCKETS_MAX} buckets; give a shorter time or a greater width");
        }
        let grouped = Grouped {
            source: self.tables.source.clone(),
            entity_type: table.entity_type().clone(),
            as_of: None,
            entities: None,
            observed,
            bucket: cut,
            by_id: true,
            groups: Groups::Known,
            present: None,
            attributes,
            outputs,
            is_one_row: false,
        };
        Ok(Arc::new(grouped.table(Arc::new(Schema::new(fields)))))
    }
}

/// A column of numbers, and its attribute.
fn column<'a>(table: &'a HistoryTable, type_name: &str, name: &str) -> Result<(Field, &'a Iri)> {
    let schema = table.schema();
    let found = schema.index_of(name).ok().filter(|i| *i >= N_FIXED);
    let Some((i, attribute)) = found.and_then(|i| Some((i, table.attributes().get(i - N_FIXED)?))) else {
        return plan_err!("{NAME}: the history of `{type_name}` has no attribute `{name}`");
    };
    if schema.field(i).data_type() != &DataType::Float64 {
        return plan_err!("{NAME}: not all values of `{name}` are numbers");
    }
    Ok((schema.field(i).clone(), attribute))
}
