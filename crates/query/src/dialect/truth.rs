//! Truth values that are written as texts: `indisprimary = 't'`.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::sql::sqlparser::ast::BinaryOperator;

/// Reads a text beside a truth value as one, as PostgreSQL reads a literal of an unknown type.
#[derive(Debug)]
pub(crate) struct TruthTexts;

/// Source: PostgreSQL 16, section 8.6: these words and what they begin with, as far as that is clear.
fn truth(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "t" | "tr" | "tru" | "true" | "y" | "ye" | "yes" | "on" | "1" => Some(true),
        "f" | "fa" | "fal" | "fals" | "false" | "n" | "no" | "of" | "off" | "0" => Some(false),
        _ => None,
    }
}

fn read(expr: &mut Expr) {
    if let Expr::Literal(value, _) = expr
        && let Some(truth) = value.try_as_str().flatten().and_then(truth)
    {
        *expr = Expr::Literal(ScalarValue::Boolean(Some(truth)), None);
    }
}

impl ExprPlanner for TruthTexts {
    fn plan_binary_op(&self, mut expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        if matches!(expr.op, BinaryOperator::Eq | BinaryOperator::NotEq) {
            let is_truth = |e: &Expr| matches!(e, Expr::Column(_)) && e.get_type(schema).is_ok_and(|t| t == DataType::Boolean);
            match (is_truth(&expr.left), is_truth(&expr.right)) {
                (true, false) => read(&mut expr.right),
                (false, true) => read(&mut expr.left),
                _ => {}
            }
        }
        Ok(PlannerResult::Original(expr))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_truth_values_are_those_of_postgresql() {
        assert_eq!(["t", "TRUE", " yes ", "on", "1"].map(truth), [Some(true); 5]);
        assert_eq!(["f", "False", "no", "off", "0"].map(truth), [Some(false); 5]);
        assert_eq!(["o", "2", "", "maybe"].map(truth), [None; 4]);
    }
}
