//! Queries without rows, whatever is in the tables of the city.
//!
//! Clients ask for triggers, policies, sequences and much more that a node has none of, in ways that the engine cannot plan: subqueries with
//! conditions on the outer row, lists made of subqueries, operators over lists. A query whose rows come from a table that is always empty has
//! none, so nothing of it but the names of its columns is needed; a subquery like that is null, and does not exist.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArguments, GroupByExpr, JoinOperator, ObjectName, Query, Select, SelectItem, SetExpr, SetOperator, Statement,
    TableFactor, TableWithJoins, Value, VisitMut, VisitorMut,
};

use super::{last_part, names, unnamed};
use crate::catalog::system::EMPTY_TABLES;

/// Functions that give a row even if there is none to look at.
pub(super) const AGGREGATES: [&str; 16] = [
    "any_value",
    "array_agg",
    "avg",
    "bool_and",
    "bool_or",
    "count",
    "every",
    "first_value",
    "json_agg",
    "jsonb_agg",
    "last_value",
    "max",
    "min",
    "string_agg",
    "sum",
    "median",
];

/// Columns of the catalogs that have no list in any row: options and grants.
const NO_LISTS: [&str; 5] = ["attacl", "attoptions", "nspacl", "relacl", "reloptions"];

pub(super) fn rewrite(statement: &mut Statement) {
    let _ = statement.visit(&mut Visitor);
}

struct Visitor;

impl VisitorMut for Visitor {
    type Break = ();

    // Queries and expressions inside come first.
    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if empty_body(&mut query.body) {
            query.order_by = None;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(f) = expr
            && let FunctionArguments::Subquery(query) = &f.args
            && last_part(&f.name) == "array"
            && is_empty(query)
            && let Some(no_list) = super::expression("NULL::text[]")
        {
            *expr = no_list;
        }
        let constant = match expr {
            Expr::Subquery(query) if is_empty(query) => Some(Value::Null),
            Expr::Exists { subquery, negated } if is_empty(subquery) => Some(Value::Boolean(*negated)),
            Expr::InSubquery { subquery, negated, .. } if is_empty(subquery) => Some(Value::Boolean(*negated)),
            _ => None,
        };
        if let Some(value) = constant {
            *expr = Expr::Value(value.with_empty_span());
        }
        ControlFlow::Continue(())
    }
}

/// Replaces what has no rows; says whether all of it is like that.
fn empty_body(body: &mut SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => {
            if is_empty_select(select) {
                return true;
            }
            if !has_no_rows(select) {
                return false;
            }
            let Some(mut projection) = select.projection.iter().map(nothing).collect::<Option<Vec<_>>>() else { return false };
            names::mark_doubles(&mut projection);
            select.projection = projection;
            select.distinct = None;
            select.from.clear();
            select.selection = Some(Expr::Value(Value::Boolean(false).with_empty_span()));
            select.group_by = GroupByExpr::Expressions(Vec::new(), Vec::new());
            select.having = None;
            select.named_window.clear();
            true
        }
        SetExpr::SetOperation { left, right, op, .. } => {
            let (left, right) = (empty_body(left), empty_body(right));
            if *op == SetOperator::Union { left && right } else { left || right && *op == SetOperator::Intersect }
        }
        // Visited by itself.
        SetExpr::Query(query) => is_empty(query),
        _ => false,
    }
}

/// A column of a query without rows.
fn nothing(item: &SelectItem) -> Option<SelectItem> {
    let (expr, alias) = match item {
        SelectItem::ExprWithAlias { expr, alias } => (expr, alias.clone()),
        SelectItem::UnnamedExpr(expr) => (expr, names::quoted(&unnamed(expr))),
        _ => return None,
    };
    // A type that is written down is kept.
    let expr = match expr {
        Expr::Cast { data_type, kind, format, array, .. } => Expr::Cast {
            expr: Box::new(Expr::Value(Value::Null.with_empty_span())),
            data_type: data_type.clone(),
            kind: kind.clone(),
            format: format.clone(),
            array: *array,
        },
        _ => Expr::Value(Value::Null.with_empty_span()),
    };
    Some(SelectItem::ExprWithAlias { expr, alias })
}

/// As [`empty_body`] leaves it.
fn is_empty_select(select: &Select) -> bool {
    let is_false = matches!(&select.selection, Some(Expr::Value(v)) if v.value == Value::Boolean(false));
    select.from.is_empty() && is_false && !is_aggregated(select)
}

fn is_empty(query: &Query) -> bool {
    fn of(body: &SetExpr) -> bool {
        match body {
            SetExpr::Select(select) => is_empty_select(select),
            SetExpr::Query(query) => is_empty(query),
            _ => false,
        }
    }
    of(&query.body)
}

fn has_no_rows(select: &Select) -> bool {
    let grouped = matches!(&select.group_by, GroupByExpr::Expressions(by, _) if !by.is_empty());
    select.into.is_none() && (grouped || !is_aggregated(select)) && select.from.iter().any(joined)
}

/// Does its select list make one row of all?
pub(super) fn is_aggregated(select: &Select) -> bool {
    struct Find {
        found: bool,
        n_queries: usize,
    }
    impl datafusion::sql::sqlparser::ast::Visitor for Find {
        type Break = ();
        // Those inside a subquery are its own.
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.n_queries += 1;
            ControlFlow::Continue(())
        }
        fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.n_queries -= 1;
            ControlFlow::Continue(())
        }
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if self.n_queries == 0
                && let Expr::Function(f) = expr
                && f.over.is_none()
                && AGGREGATES.contains(&last_part(&f.name).as_str())
            {
                self.found = true;
            }
            ControlFlow::Continue(())
        }
    }
    let mut find = Find { found: false, n_queries: 0 };
    for item in &select.projection {
        let _ = datafusion::sql::sqlparser::ast::Visit::visit(item, &mut find);
    }
    find.found
}

/// Does a join have no rows?
fn joined(from: &TableWithJoins) -> bool {
    let mut empty = factor(&from.relation);
    for join in &from.joins {
        let right = factor(&join.relation);
        empty = match &join.join_operator {
            JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_) => empty || right,
            JoinOperator::Left(_) | JoinOperator::LeftOuter(_) => empty,
            JoinOperator::Right(_) | JoinOperator::RightOuter(_) => right,
            JoinOperator::FullOuter(_) => empty && right,
            _ => return false,
        };
    }
    empty
}

fn factor(factor: &TableFactor) -> bool {
    match factor {
        TableFactor::Table { name, args: None, .. } => always_empty(name),
        TableFactor::Table { name, args: Some(arguments), .. } if last_part(name) == "unnest" => {
            let list = arguments.args.first().map(ToString::to_string).unwrap_or_default();
            NO_LISTS.iter().any(|column| list.ends_with(&format!(".{column}")))
        }
        TableFactor::UNNEST { array_exprs, .. } => array_exprs.iter().any(|list| {
            let list = list.to_string();
            NO_LISTS.iter().any(|column| list.ends_with(&format!(".{column}")))
        }),
        TableFactor::Derived { subquery, .. } => is_empty(subquery),
        TableFactor::NestedJoin { table_with_joins, .. } => joined(table_with_joins),
        _ => false,
    }
}

fn always_empty(name: &ObjectName) -> bool {
    let parts: Vec<&str> = name.0.iter().filter_map(|part| part.as_ident()).map(|i| i.value.as_str()).collect();
    match parts.as_slice() {
        [name] | [.., "pg_catalog", name] => EMPTY_TABLES.contains(name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;

    #[test]
    fn what_comes_from_an_empty_table_is_nothing() {
        check(
            super::rewrite,
            "select tgname, 1::text as a from pg_catalog.pg_trigger t where t.x = any(y) order by 1",
            r#"SELECT NULL AS "tgname", NULL::TEXT AS a WHERE false"#,
        );
        check(super::rewrite, "select a, (select x from pg_policy p where p.y = t.a) from t", "SELECT a, NULL FROM t");
        check(
            super::rewrite,
            "select a from t where exists (select 1 from pg_enum e) or not exists (select from pg_enum)",
            "SELECT a FROM t WHERE false OR true",
        );
        check(super::rewrite, "select array(select x from pg_class c, pg_inherits i) from t", "SELECT NULL::TEXT[] FROM t");
        check(
            super::rewrite,
            "select array(select x from pg_catalog.unnest(c.reloptions) x) from t as c",
            "SELECT NULL::TEXT[] FROM t AS c",
        );
        check(super::rewrite, "select x, max(y) from pg_enum group by x", r#"SELECT NULL AS "x", NULL AS "max" WHERE false"#);
        check(super::rewrite, "select a from (select x from pg_enum) e join t on true", r#"SELECT NULL AS "a" WHERE false"#);
    }

    #[test]
    fn what_has_rows_is_left_alone() {
        for sql in [
            "SELECT count(*) FROM pg_trigger",
            "SELECT a FROM t LEFT JOIN pg_trigger ON true",
            "SELECT * FROM pg_trigger",
            "SELECT a FROM pg_class",
            "SELECT a FROM public.pg_trigger",
            "SELECT a FROM t UNION SELECT b FROM u",
        ] {
            check(super::rewrite, sql, sql);
        }
        check(super::rewrite, "select a from t union select b from pg_enum", r#"SELECT a FROM t UNION SELECT NULL AS "b" WHERE false"#);
    }
}
