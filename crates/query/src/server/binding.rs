//! The parameters of prepared statements: what they are, and plans with their values.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::prelude::Expr;
use datafusion_postgres::arrow_pg::datatypes::df::deserialize_parameters_with_server_types;
use datafusion_postgres::pgwire::api::Type;
use datafusion_postgres::pgwire::api::portal::Portal;
use datafusion_postgres::pgwire::error::PgWireResult;

use super::answer::engine_error;
use crate::geometry;

/// A plan whose parameters have the types that the client has said: `select $1`, `now() - $1`. Texts stand for what is expected, if that is known.
pub(super) fn typed(plan: LogicalPlan, said: &[Option<Type>]) -> PgWireResult<LogicalPlan> {
    let types: HashMap<String, DataType> =
        (said.iter().enumerate()).filter_map(|(i, t)| Some((format!("${}", i + 1), arrow_type(t.as_ref()?)?))).collect();
    if types.is_empty() {
        return Ok(plan);
    }
    let typed = plan.transform_up_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        let node = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let typed = expr.transform_up(|mut e| {
                if let Expr::Placeholder(placeholder) = &mut e
                    && let Some(data_type) = types.get(&placeholder.id)
                    && (placeholder.field.is_none() || data_type != &DataType::Utf8)
                {
                    placeholder.field = Some(Field::new(placeholder.id.as_str(), data_type.clone(), true).into());
                    return Ok(Transformed::yes(e));
                }
                Ok(Transformed::no(e))
            })?;
            Ok(if typed.transformed { typed.update_data(|e| name.restore(e)) } else { typed })
        })?;
        Ok(Transformed::yes(node.data.recompute_schema()?))
    });
    Ok(typed.map_err(engine_error)?.data)
}

/// The type of the values that a client says it will send; none for what has no one type here.
fn arrow_type(said: &Type) -> Option<DataType> {
    let list = |item: DataType| DataType::List(Arc::new(Field::new_list_field(item, true)));
    Some(match *said {
        Type::BOOL => DataType::Boolean,
        Type::INT2 => DataType::Int16,
        Type::INT4 => DataType::Int32,
        Type::INT8 => DataType::Int64,
        Type::FLOAT4 => DataType::Float32,
        Type::FLOAT8 => DataType::Float64,
        Type::TEXT | Type::VARCHAR => DataType::Utf8,
        Type::BYTEA => DataType::Binary,
        Type::DATE => DataType::Date32,
        Type::TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, None),
        Type::TIMESTAMPTZ => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
        Type::INTERVAL => DataType::Interval(IntervalUnit::MonthDayNano),
        Type::TEXT_ARRAY | Type::VARCHAR_ARRAY => list(DataType::Utf8),
        Type::INT8_ARRAY => list(DataType::Int64),
        Type::FLOAT8_ARRAY => list(DataType::Float64),
        _ => return None,
    })
}

/// A prepared statement's plan with the values that were bound to it.
pub(super) fn bound<S: Clone>(plan: &LogicalPlan, portal: &Portal<S>, wire_types: &[Type]) -> PgWireResult<LogicalPlan> {
    let inferred = parameter_types(plan).map_err(engine_error)?;
    // A statement may have lost some of its parameters: those of queries without rows.
    let n_parameters = inferred.iter().map(|(place, _)| *place).max().unwrap_or(0).max(portal.parameter_len());
    let mut data_types: Vec<Option<&DataType>> = vec![None; n_parameters];
    let mut wire: Vec<Option<&Type>> = vec![Some(&Type::TEXT); n_parameters];
    for (k, (place, data_type)) in inferred.iter().enumerate() {
        if let Some(at) = place.checked_sub(1) {
            data_types[at] = data_type.as_ref();
            // The protocol crate forgets nulls of unknown types.
            let is_unknown_null = wire_types.get(k) == Some(&Type::UNKNOWN) && portal.parameters.get(at).is_some_and(Option::is_none);
            wire[at] = if is_unknown_null { Some(&Type::TEXT) } else { wire_types.get(k) };
        }
    }
    let inferred = data_types;
    let values = deserialize_parameters_with_server_types(portal, &inferred, &wire)?;
    plan.clone().replace_params_with_values(&values).and_then(geometry::settle).map_err(engine_error)
}

/// The types of the parameters `$1`, `$2`, ... as far as they are known: from what they are compared with, or from a cast.
fn parameter_types(plan: &LogicalPlan) -> Result<Vec<(usize, Option<DataType>)>, DataFusionError> {
    let mut types: HashMap<String, Option<DataType>> = plan.get_parameter_types()?;
    plan.apply_with_subqueries(|node| {
        for expr in node.expressions() {
            expr.apply(|e| {
                if let Expr::Cast(cast) = e
                    && let Expr::Placeholder(placeholder) = &*cast.expr
                {
                    let known = types.entry(placeholder.id.clone()).or_default();
                    known.get_or_insert_with(|| cast.field.data_type().clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let mut ordered: Vec<(usize, Option<DataType>)> =
        types.into_iter().map(|(id, t)| (id.trim_start_matches('$').parse().unwrap_or(0), t)).collect();
    ordered.sort_by_key(|(i, _)| *i);
    Ok(ordered)
}
