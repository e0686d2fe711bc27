//! Time series in SQL, with the names and meanings of TimescaleDB.
//!
//! * [`bucket`]: `time_bucket(width, time [, origin or offset])`.
//! * [`ends`]: the aggregates `first(value, time)` and `last(value, time)`.
//! * [`gapfill`]: `time_bucket_gapfill(width, time [, start, finish])` with `locf(value)` and `interpolate(value)`, a rewriting of the plan.
//! * [`fill`]: the operator that it is rewritten to.
//! * [`zone`]: `time AT TIME ZONE zone`, with the meaning of PostgreSQL.

pub(crate) mod bucket;
mod ends;
mod fill;
mod gapfill;
mod zone;

use std::sync::Arc;

use datafusion::execution::SessionStateBuilder;
use datafusion::optimizer::Optimizer;
use datafusion::prelude::SessionContext;

use crate::groups;

/// Teaches the engine to fill gaps, and to leave aggregates to the history.
pub(crate) fn configure(builder: SessionStateBuilder) -> SessionStateBuilder {
    // First, while conditions still stand where the statement has them, and before anything else looks at the functions.
    let mut rules: Vec<_> = vec![Arc::new(gapfill::Rewrite) as _];
    for rule in Optimizer::new().rules {
        let pushes_filters = rule.name() == "push_down_filter";
        rules.push(rule);
        if pushes_filters {
            // As soon as conditions stand beside the table, so that there is less for the other rules to look at.
            rules.push(Arc::new(groups::Rewrite));
        }
    }
    builder.with_optimizer_rules(rules).with_query_planner(Arc::new(fill::Planner))
}

/// Makes the functions known to a session.
pub(crate) fn register(context: &SessionContext) {
    context.register_udf(bucket::TimeBucket::udf());
    context.register_udf(zone::AtTimeZone::udf());
    gapfill::functions().into_iter().for_each(|f| context.register_udf(f));
    ends::functions().into_iter().for_each(|f| context.register_udaf(f));
}
