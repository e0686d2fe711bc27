//! The numbers of reference systems that are parameters of a statement.
//!
//! The reference system of a geometry is part of its type, so it has to be known when a statement is planned. In
//! `ST_GeomFromText($1, $2)` it becomes known when values are bound; until then such a plan is one of geometries without a reference system, and
//! afterwards it is settled anew.

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Placeholder, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::functions::{Kind, argument_kinds, reference_argument};

/// Makes constants of what is known by now, says what parameters are, and finds out the reference systems anew.
///
/// Errors: where the number of a reference system is neither a constant nor a parameter.
pub(crate) fn settle(plan: LogicalPlan) -> Result<LogicalPlan> {
    if !has_unsettled(&plan)? {
        return Ok(plan);
    }
    let settled = plan.transform_up_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        let node = node.map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(expr.transform_up(settle_call)?.update_data(|expr| name.restore(expr)))
        })?;
        // Also where nothing changed here: what is below may have.
        Ok(Transformed::yes(node.data.recompute_schema()?))
    })?;
    Ok(settled.data)
}

/// Is there a call of one of our functions with something other than columns and constants?
fn has_unsettled(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                found |= matches!(e, Expr::ScalarFunction(call) if is_unsettled(call));
                Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })
    })?;
    Ok(found)
}

fn is_unsettled(call: &ScalarFunction) -> bool {
    let Some(kinds) = argument_kinds(call.func.name()) else { return false };
    let reference = reference_argument(call.func.name()).and_then(|i| call.args.get(i));
    reference.is_some_and(|r| !matches!(r, Expr::Literal(..)))
        || call.args.iter().zip(kinds).any(|(argument, _)| matches!(argument, Expr::Placeholder(p) if p.field.is_none()))
        || call.args.iter().any(|argument| matches!(argument, Expr::Cast(_)) && constant(argument).is_some())
}

fn settle_call(expr: Expr) -> Result<Transformed<Expr>> {
    let Expr::ScalarFunction(mut call) = expr else { return Ok(Transformed::no(expr)) };
    let name = call.func.name();
    let Some(kinds) = argument_kinds(name) else { return Ok(Transformed::no(Expr::ScalarFunction(call))) };
    let reference_at = reference_argument(name);
    let mut changed = false;
    for (i, (argument, kind)) in call.args.iter_mut().zip(kinds).enumerate() {
        if let Expr::Placeholder(Placeholder { field: field @ None, id }) = argument {
            let data_type = match kind {
                Kind::Number if reference_at == Some(i) => DataType::Int32,
                Kind::Number => DataType::Float64,
                Kind::Flag => DataType::Boolean,
                Kind::Shape if name == "st_geomfromwkb" => DataType::Binary,
                // As PostGIS reads a literal of an unknown type.
                Kind::Shape | Kind::Text => DataType::Utf8,
            };
            *field = Some(Field::new(id.as_str(), data_type, true).into());
            changed = true;
        } else if !matches!(argument, Expr::Literal(..))
            && let Some(value) = constant(argument)
        {
            *argument = Expr::Literal(value, None);
            changed = true;
        } else if reference_at == Some(i)
            && !matches!(argument, Expr::Literal(..))
            && !argument.exists(|e| Ok(matches!(e, Expr::Placeholder(_))))?
        {
            return plan_err!("{name}: the number of the reference system has to be a constant, such as 4326");
        }
    }
    Ok(Transformed::new(Expr::ScalarFunction(call), changed, TreeNodeRecursion::Continue))
}

/// The value of a constant that is cast; none if it is something else.
fn constant(expr: &Expr) -> Option<ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value.clone()),
        Expr::Cast(cast) => constant(&cast.expr)?.cast_to(cast.field.data_type()).ok(),
        _ => None,
    }
}
