//! Conditions of SQL as the source understands them.
//!
//! What comes out may hold of more entities than the condition does, never of fewer: the engine applies the condition again. So a part
//! that the source has no words for is left out.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use entity::{CompareOp, Comparison, Filter, GeoCondition, GeoRelation, Geometry, Iri, LOCATION, Operand, Path, Target};
use store::history::ColumnKind;

use crate::pushdown::Narrowing;

/// The attribute behind a column and what its values are; none for the other columns.
pub(crate) type Attributes<'a> = dyn Fn(&str) -> Option<(Iri, ColumnKind)> + 'a;

/// What the source can check of conditions that all must hold; none if it is nothing.
pub(crate) fn of_all(conditions: &[Expr], attributes: &Attributes<'_>) -> Option<Filter> {
    let parts: Vec<Filter> = conditions.iter().flat_map(split_conjunction).filter_map(|c| of(c, attributes)).collect();
    match parts.len() {
        0 => None,
        _ => Some(parts.into_iter().fold(Filter::all(), Filter::and)),
    }
}

fn of(condition: &Expr, attributes: &Attributes<'_>) -> Option<Filter> {
    if let Some(ids) = Narrowing::of(std::slice::from_ref(condition)).ids {
        // What is not an IRI is nobody's id.
        return Some(Filter::Id(ids.iter().filter_map(|id| id.parse().ok()).collect()));
    }
    if let Some(bbox) = Narrowing::of(std::slice::from_ref(condition)).place {
        return meeting(bbox);
    }
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => match (of(left, attributes), of(right, attributes)) {
            (Some(a), Some(b)) => Some(a.and(b)),
            (one, other) => one.or(other),
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            Some(Filter::Or(vec![of(left, attributes)?, of(right, attributes)?]))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (&**left, &**right) {
            (Expr::Column(column), Expr::Literal(value, _)) => compared(&column.name, *op, value, attributes),
            (Expr::Literal(value, _), Expr::Column(column)) => compared(&column.name, op.swap()?, value, attributes),
            _ => None,
        },
        Expr::Between(between) if !between.negated => match (&*between.expr, &*between.low, &*between.high) {
            (Expr::Column(column), Expr::Literal(low, _), Expr::Literal(high, _)) => {
                let (name, kind) = attributes(&column.name)?;
                // Only numbers have an order that the source shares.
                let (low @ Operand::Number(_), high @ Operand::Number(_)) = (operand(low, kind)?, operand(high, kind)?) else {
                    return None;
                };
                Some(value(name, Comparison::Between(low, high)))
            }
            _ => None,
        },
        Expr::InList(list) if !list.negated => {
            let Expr::Column(column) = &*list.expr else { return None };
            let (name, kind) = attributes(&column.name)?;
            let operands = list.list.iter().map(|e| match e {
                Expr::Literal(value, _) => operand(value, kind),
                _ => None,
            });
            Some(value(name, Comparison::Equal(operands.collect::<Option<_>>()?)))
        }
        Expr::Column(column) => truth(&column.name, true, attributes),
        Expr::Not(inner) => match &**inner {
            Expr::Column(column) => truth(&column.name, false, attributes),
            _ => None,
        },
        Expr::IsNotNull(inner) => match &**inner {
            Expr::Column(column) => Some(Filter::HasAnyOf(vec![attributes(&column.name)?.0])),
            _ => None,
        },
        _ => None,
    }
}

/// Places that meet a box: `[west, south, east, north]` in degrees. None if it reaches over the edge of the map.
fn meeting([west, south, east, north]: [f64; 4]) -> Option<Filter> {
    // A box without extent is none for geometry; a ten-thousandth of a millimetre more lets nothing in that matters: the engine looks again.
    let (west, south, east, north) = (west - 1e-9, south - 1e-9, east + 1e-9, north + 1e-9);
    let ring = [[west, south], [east, south], [east, north], [west, north], [west, south]];
    let reference = Geometry::from_json(serde_json::json!({"type": "Polygon", "coordinates": [ring]})).ok()?;
    Some(Filter::Geo(GeoCondition { property: Iri::known(LOCATION), relation: GeoRelation::Intersects, reference }))
}

fn value(name: Iri, comparison: Comparison) -> Filter {
    Filter::Value(Target::Attribute(Path::of(name)), comparison)
}

fn truth(column: &str, wanted: bool, attributes: &Attributes<'_>) -> Option<Filter> {
    let (name, kind) = attributes(column)?;
    (kind == ColumnKind::Bool).then(|| value(name, Comparison::Equal(vec![Operand::Bool(wanted)])))
}

fn compared(column: &str, op: Operator, literal: &ScalarValue, attributes: &Attributes<'_>) -> Option<Filter> {
    let (name, kind) = attributes(column)?;
    let operand = operand(literal, kind)?;
    let comparison = match op {
        Operator::Eq => Comparison::Equal(vec![operand]),
        // The order of texts differs: relationships have none in the source.
        _ if kind != ColumnKind::Number => return None,
        Operator::Lt => Comparison::Order(CompareOp::Lt, operand),
        Operator::LtEq => Comparison::Order(CompareOp::Le, operand),
        Operator::Gt => Comparison::Order(CompareOp::Gt, operand),
        Operator::GtEq => Comparison::Order(CompareOp::Ge, operand),
        _ => return None,
    };
    Some(value(name, comparison))
}

/// A literal as an operand for a column of this kind.
fn operand(literal: &ScalarValue, kind: ColumnKind) -> Option<Operand> {
    match (kind, literal) {
        (ColumnKind::Number, ScalarValue::Float64(Some(n))) => Some(Operand::Number(*n)).filter(|_| n.is_finite()),
        (ColumnKind::Bool, ScalarValue::Boolean(Some(b))) => Some(Operand::Bool(*b)),
        (ColumnKind::Text, text) => text.try_as_str().flatten().map(|t| Operand::Text(t.to_owned())),
        _ => None,
    }
}

/// A condition as `EXPLAIN` shows it.
pub(crate) fn said(filter: &Filter) -> String {
    let each = |list: &[Filter], between: &str| list.iter().map(said).collect::<Vec<_>>().join(between);
    let operands = |list: &[Operand]| list.iter().map(said_operand).collect::<Vec<_>>().join(", ");
    match filter {
        Filter::And(list) => each(list, " and "),
        Filter::Or(list) => format!("({})", each(list, " or ")),
        Filter::Id(ids) => match ids.as_slice() {
            [one] => format!("id = {one}"),
            several => format!("id in {} ids", several.len()),
        },
        Filter::HasAnyOf(names) => format!("has {}", names.iter().map(Iri::local_name).collect::<Vec<_>>().join(" or ")),
        Filter::Value(Target::Attribute(path), comparison) => {
            let name = path.attribute.local_name();
            match comparison {
                Comparison::Equal(list) => match list.as_slice() {
                    [one] => format!("{name} = {}", said_operand(one)),
                    several => format!("{name} in ({})", operands(several)),
                },
                Comparison::Between(low, high) => format!("{name} between {} and {}", said_operand(low), said_operand(high)),
                Comparison::Order(op, operand) => {
                    let op = match op {
                        CompareOp::Lt => "<",
                        CompareOp::Le => "<=",
                        CompareOp::Gt => ">",
                        CompareOp::Ge => ">=",
                    };
                    format!("{name} {op} {}", said_operand(operand))
                }
                other => format!("{name} {other:?}"),
            }
        }
        Filter::Geo(place) => {
            let [west, south, east, north] = place.reference.bbox();
            format!("{} meets [{west:.5}, {south:.5}, {east:.5}, {north:.5}]", place.property.local_name())
        }
        other => format!("{other:?}"),
    }
}

fn said_operand(operand: &Operand) -> String {
    match operand {
        Operand::Number(n) => n.to_string(),
        Operand::Bool(b) => b.to_string(),
        Operand::Text(t) => format!("'{t}'"),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::{col, lit};

    fn attributes(column: &str) -> Option<(Iri, ColumnKind)> {
        let kind = match column {
            "n" => ColumnKind::Number,
            "b" => ColumnKind::Bool,
            "t" => ColumnKind::Text,
            "j" => ColumnKind::Json,
            _ => return None,
        };
        Some((Iri::known(&format!("https://example.org/{column}")), kind))
    }

    #[test]
    fn what_the_source_can_check_is_handed_down() {
        check(&col("n").gt(lit(40.0)), Some("n > 40"));
        check(&lit(40.0).gt(col("n")), Some("n < 40"));
        check(&col("n").between(lit(1.0), lit(2.5)), Some("n between 1 and 2.5"));
        check(&col("t").eq(lit("x")), Some("t = 'x'"));
        check(&col("t").in_list(vec![lit("x"), lit("y")], false), Some("t in ('x', 'y')"));
        check(&col("b"), Some("b = true"));
        check(&!col("b"), Some("b = false"));
        check(&col("j").is_not_null(), Some("has j"));
        check(&col("id").eq(lit("urn:a:1")), Some("id = urn:a:1"));
        check(&col("id").eq(lit("no iri")), Some("id in 0 ids"));
        check(&col("n").gt(lit(1.0)).or(col("b")), Some("(n > 1 or b = true)"));
        // A part that is not understood is left out of what must all hold, but not of an alternative.
        check(&col("n").gt(lit(1.0)).and(col("t").like(lit("x%"))), Some("n > 1"));
        check(&col("n").gt(lit(1.0)).or(col("t").like(lit("x%"))), None);
    }

    #[test]
    fn what_it_cannot_check_stays_with_the_engine() {
        check(&col("t").gt(lit("x")), None);
        check(&col("n").not_eq(lit(1.0)), None);
        check(&col("n").eq(lit("x")), None);
        check(&col("n").gt(lit(f64::NAN)), None);
        check(&col("j").eq(lit("x")), None);
        check(&col("t").in_list(vec![lit("x")], true), None);
        check(&col("lon").gt(lit(1.0)), None);
        check(&(col("n") + lit(1.0)).gt(lit(1.0)), None);
    }

    #[track_caller]
    fn check(condition: &Expr, want: Option<&str>) {
        let got = of_all(std::slice::from_ref(condition), &attributes);
        assert_eq!(got.as_ref().map(said).as_deref(), want, "{condition}");
    }
}
