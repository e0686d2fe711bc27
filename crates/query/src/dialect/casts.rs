//! Casts to `regclass` and its relatives: names of objects as their numbers, and numbers as names.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{DataType, Expr, Query, SelectItem, SetExpr, Statement, Value, VisitMut, VisitorMut};

use super::{call, names, unnamed};

/// `'x'::regclass` becomes `__regclass('x')`, `oid::regclass` in a select list or as a text `__regclass_text(oid)`; elsewhere it is a number.
pub(super) fn rewrite(statement: &mut Statement) {
    let _ = statement.visit(&mut Visitor);
}

/// Types whose names can be looked up. Columns of `regproc` hold names, so a cast to it changes nothing.
const TYPES: [&str; 3] = ["regclass", "regnamespace", "regtype"];

fn alias_type(data_type: &DataType) -> Option<String> {
    let text = data_type.to_string().to_lowercase();
    let name = text.strip_prefix("pg_catalog.").unwrap_or(&text);
    (name.starts_with("reg") && !name.contains('[')).then(|| name.to_owned())
}

fn is_text(data_type: &DataType) -> bool {
    let text = data_type.to_string().to_lowercase();
    matches!(text.strip_prefix("pg_catalog.").unwrap_or(&text), "text" | "varchar" | "name" | "character varying")
}

struct Visitor;

impl VisitorMut for Visitor {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let SetExpr::Select(select) = query.body.as_mut() {
            for item in &mut select.projection {
                match item {
                    SelectItem::UnnamedExpr(expr) => {
                        let name = names::quoted(&unnamed(expr));
                        if as_name(expr) {
                            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: name };
                        }
                    }
                    SelectItem::ExprWithAlias { expr, .. } => {
                        as_name(expr);
                    }
                    _ => {}
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        // As a text: the name.
        if let Expr::Cast { expr: inner, data_type, .. } = expr
            && is_text(data_type)
            && as_name(inner)
        {
            *expr = (**inner).clone();
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::Cast { expr: inner, data_type, .. } = expr else { return ControlFlow::Continue(()) };
        let Some(name) = alias_type(data_type) else { return ControlFlow::Continue(()) };
        *expr = match inner.as_ref() {
            Expr::Value(v) if matches!(v.value, Value::SingleQuotedString(_)) && name.starts_with("regproc") => {
                let text = v.value.to_string().replace("pg_catalog.", "");
                super::expression(&text).unwrap_or_else(|| (**inner).clone())
            }
            Expr::Value(v) if matches!(v.value, Value::SingleQuotedString(_) | Value::Placeholder(_)) && TYPES.contains(&name.as_str()) => {
                call(&format!("__{name}"), vec![(**inner).clone()])
            }
            // The number itself, or already the name of a function.
            _ => (**inner).clone(),
        };
        ControlFlow::Continue(())
    }
}

/// Makes a number that is cast the name that it stands for; false if it is none.
fn as_name(expr: &mut Expr) -> bool {
    let Expr::Cast { expr: inner, data_type, .. } = expr else { return false };
    let Some(name) = alias_type(data_type).filter(|n| TYPES.contains(&n.as_str())) else { return false };
    let number = match inner.as_ref() {
        Expr::Value(v) if matches!(v.value, Value::SingleQuotedString(_) | Value::Placeholder(_)) => {
            call(&format!("__{name}"), vec![(**inner).clone()])
        }
        other => other.clone(),
    };
    *expr = call(&format!("__{name}_text"), vec![number]);
    true
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;

    #[test]
    fn names_become_numbers_and_numbers_names() {
        check(super::rewrite, "select 1 from t where a = 'pg_class'::regclass", "SELECT 1 FROM t WHERE a = __regclass('pg_class')");
        check(
            super::rewrite,
            "select a from t where b = cast(cast('x' as regclass) as oid)",
            "SELECT a FROM t WHERE b = CAST(__regclass('x') AS oid)",
        );
        check(super::rewrite, "select oid::pg_catalog.regclass from t", "SELECT __regclass_text(oid) AS \"oid\" FROM t");
        check(super::rewrite, "select a from t where oid::regclass::text = 'x'", "SELECT a FROM t WHERE __regclass_text(oid) = 'x'");
        check(
            super::rewrite,
            "select a from t where typinput = 'pg_catalog.array_in'::regproc",
            "SELECT a FROM t WHERE typinput = 'array_in'",
        );
        check(super::rewrite, "select a::text from t where b = c::regclass", "SELECT a::TEXT FROM t WHERE b = c");
    }
}
