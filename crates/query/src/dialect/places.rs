//! What PostGIS adds to the language: the operator `&&`, boxes, and the extent of several geometries.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Statement, visit_expressions_mut,
};

use super::{call, last_part};

/// * `a && b` becomes `__overlap(a, b)`, unless one of them is written as a list: `array_has_any(a, b)`.
/// * `x::box3d` and `x::box2d` become `st_geometry(x)`, which reads `BOX3D(...)`; `x::name` becomes a text.
/// * `st_extent(g)` becomes a text made of the least and the greatest coordinates.
pub(super) fn rewrite(statement: &mut Statement) {
    let _: ControlFlow<()> = visit_expressions_mut(statement, |expr| {
        match expr {
            Expr::BinaryOp { left, op: BinaryOperator::PGOverlap, right } => {
                let function = if is_list(left) || is_list(right) { "array_has_any" } else { "__overlap" };
                *expr = call(function, vec![(**left).clone(), (**right).clone()]);
            }
            Expr::Cast { expr: inner, data_type, .. } => {
                if let DataType::Custom(name, _) = data_type {
                    match last_part(name).as_str() {
                        "box2d" | "box3d" => *expr = call("st_geometry", vec![(**inner).clone()]),
                        "name" => *data_type = DataType::Text,
                        _ => {}
                    }
                }
            }
            Expr::Function(function) if ["st_extent", "st_3dextent"].contains(&last_part(&function.name).as_str()) => {
                if let Some(extent) = extent(function) {
                    *expr = extent;
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
}

fn is_list(expr: &Expr) -> bool {
    match expr {
        Expr::Array(_) => true,
        Expr::Cast { data_type: DataType::Array(_), .. } => true,
        Expr::Nested(inner) => is_list(inner),
        _ => false,
    }
}

/// The box around all geometries, each corner an aggregate of its own with the conditions of the whole.
fn extent(function: &Function) -> Option<Expr> {
    let FunctionArguments::List(arguments) = &function.args else { return None };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(geometry))] = arguments.args.as_slice() else { return None };
    let corner = |aggregate: &str, coordinate: &str| {
        let Expr::Function(mut corner) = call(aggregate, vec![call(coordinate, vec![geometry.clone()])]) else { return None };
        (corner.filter, corner.over) = (function.filter.clone(), function.over.clone());
        Some(Expr::Function(corner))
    };
    let corners = [("min", "st_xmin"), ("min", "st_ymin"), ("max", "st_xmax"), ("max", "st_ymax")];
    Some(call("__box", corners.into_iter().map(|(aggregate, coordinate)| corner(aggregate, coordinate)).collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;

    #[test]
    fn boxes_become_functions() {
        check(
            super::rewrite,
            "select 1 from t where g && st_setsrid('BOX3D(1 2, 3 4)'::box3d, 4326)",
            "SELECT 1 FROM t WHERE __overlap(g, st_setsrid(st_geometry('BOX3D(1 2, 3 4)'), 4326))",
        );
        check(super::rewrite, "select a && array[1]", "SELECT array_has_any(a, ARRAY[1])");
        check(super::rewrite, "select 'x'::name, 1::text", "SELECT 'x'::TEXT, 1::TEXT");
        check(
            super::rewrite,
            "select st_extent(g) filter (where a) from t",
            "SELECT __box(min(st_xmin(g)) FILTER (WHERE a), min(st_ymin(g)) FILTER (WHERE a), max(st_xmax(g)) FILTER (WHERE a), max(st_ymax(g)) FILTER (WHERE a)) FROM t",
        );
    }
}
