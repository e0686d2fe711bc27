//! `first(value, time)` and `last(value, time)`: the value at the earliest and at the latest time.

use arrow::datatypes::DataType;
use datafusion::common::{internal_err, plan_err};
use datafusion::error::Result;
use datafusion::functions_aggregate::first_last::{first_value_udaf, last_value_udaf};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::{AccumulatorArgs, AggregateFunctionSimplification};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Expr, Signature, Volatility};

pub(super) fn functions() -> [AggregateUDF; 2] {
    let signature = || Signature::any(2, Volatility::Immutable);
    [
        AggregateUDF::from(Ends { name: "first", latest: false, signature: signature() }),
        AggregateUDF::from(Ends { name: "last", latest: true, signature: signature() }),
    ]
}

/// One of the two. Rewritten to the engine's own `first_value(value ORDER BY time)`, which is computed in parallel and without sorting; rows without
/// time do not count.
#[derive(PartialEq, Eq, Hash, Debug)]
struct Ends {
    name: &'static str,
    latest: bool,
    signature: Signature,
}

impl AggregateUDFImpl for Ends {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [value, _] => Ok(value.clone()),
            _ => plan_err!("{0} takes a value and a time, as in {0}(pm25, observed_at)", self.name),
        }
    }

    fn accumulator(&self, _args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        internal_err!("{}(value, time) was not rewritten", self.name)
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        let (name, latest) = (self.name, self.latest);
        Some(Box::new(move |call: AggregateFunction, _| {
            let mut params = call.params;
            if !params.order_by.is_empty() || params.distinct {
                return plan_err!("{name}(value, time) takes neither DISTINCT nor ORDER BY: the time is its second argument");
            }
            let Some(time) = params.args.pop() else { return internal_err!("{name} without arguments") };
            let known = time.clone().is_not_null();
            let filter = match params.filter.take() {
                Some(filter) => (*filter).and(known),
                None => known,
            };
            params.filter = Some(Box::new(filter));
            params.order_by = vec![time.sort(true, latest)];
            let func = if latest { last_value_udaf() } else { first_value_udaf() };
            Ok(Expr::AggregateFunction(AggregateFunction { func, params }))
        }))
    }
}
