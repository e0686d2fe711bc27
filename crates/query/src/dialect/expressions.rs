//! Expressions that the engine plans only in another form.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, DataType, Expr, FunctionArguments, GroupByExpr, LimitClause, OrderByKind, Query, SelectItem, SetExpr, Statement,
    TableFactor, Value, ValueWithSpan, VisitMut, VisitorMut,
};

use super::{call, expression, last_part, vacuous};

/// * A subquery over the catalogs that gives one value is marked as one by `first_value`: the engine asks for an aggregate.
/// * `array(select x ...)` becomes a subquery with `array_agg(x)`.
/// * Functions that give several rows in a select list become `unnest` of a list; `(f(x)).n` of such a row its field.
/// * `x in (select ...)` in a select list or a case becomes a question to a list.
/// * `exists (...)` in a select list becomes a subquery that counts.
/// * `'\x00ff'::bytea` is those bytes.
/// * `substring(x from 'pattern')` becomes a match; a limit of a subquery that counts is left out.
/// * `time at time zone zone` becomes a function: the engine only changes how the time is written.
/// * `like ... escape` with another character than the backslash, which is the only one that the engine knows.
pub(super) fn rewrite(statement: &mut Statement) {
    let _ = statement.visit(&mut Visitor);
}

struct Visitor;

impl VisitorMut for Visitor {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let SetExpr::Select(select) = query.body.as_mut() {
            for item in &mut select.projection {
                if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                    let _ = expr.visit(&mut SeveralRows);
                    let _ = expr.visit(&mut InLists(0));
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Case { .. } = expr {
            let _ = expr.visit(&mut InLists(0));
        }
        match expr {
            Expr::Subquery(query) => one_value(query, None),
            Expr::Cast { expr: inner, data_type: DataType::Bytea, .. } => {
                if let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) = inner.as_ref()
                    && let Some(digits) = text.strip_prefix("\\x")
                {
                    *expr = Expr::Value(Value::HexStringLiteral(digits.to_owned()).with_empty_span());
                }
            }
            Expr::Substring { expr: inner, substring_from: Some(from), substring_for: None, .. } if literal(from).is_some() => {
                // The first group of a pattern, or all of it.
                if let Some(found) = expression(&format!("array_element(regexp_match({inner}, {from}), 1)")) {
                    *expr = found;
                }
            }
            Expr::AtTimeZone { timestamp, time_zone } => {
                *expr = call("__timezone", vec![(**time_zone).clone(), (**timestamp).clone()]);
            }
            Expr::Function(f) if last_part(&f.name) == "array" => {
                if let FunctionArguments::Subquery(query) = &mut f.args {
                    one_value(query, Some("array_agg"));
                    *expr = Expr::Subquery(query.clone());
                }
            }
            Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
                if let Some(ValueWithSpan { value: Value::SingleQuotedString(character), .. }) = escape_char
                    && character != "\\"
                {
                    let text = |text: String| Expr::Value(Value::SingleQuotedString(text).with_empty_span());
                    **pattern = match literal(pattern) {
                        Some(written) => text(with_backslash(&written, character)),
                        None => call("__like_pattern", vec![(**pattern).clone(), text(character.clone())]),
                    };
                    *escape_char = None;
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::CompoundFieldAccess { root, access_chain } = expr
            && let [AccessExpr::Dot(Expr::Identifier(field))] = access_chain.as_slice()
            && let Some(access) = expression(&format!("get_field({root}, '{}')", field.value))
        {
            *expr = access;
        }
        ControlFlow::Continue(())
    }
}

/// Makes a subquery say whether it has rows; false if that cannot be said in its select list.
fn counted(query: &mut Query, negated: bool) -> bool {
    let limited = query.limit_clause.is_some() || query.fetch.is_some();
    let SetExpr::Select(select) = query.body.as_mut() else { return false };
    let grouped = matches!(&select.group_by, GroupByExpr::Expressions(by, _) if !by.is_empty());
    let count = if negated { "count(*) = 0" } else { "count(*) > 0" };
    let Some(count) = expression(count).filter(|_| !limited && !grouped && !vacuous::is_aggregated(select)) else { return false };
    select.projection = vec![SelectItem::UnnamedExpr(count)];
    select.distinct = None;
    query.order_by = None;
    true
}

/// Makes a subquery give one value by an aggregate.
fn one_value(query: &mut Query, with: Option<&str>) {
    let ordered = match query.order_by.as_ref().map(|o| &o.kind) {
        Some(OrderByKind::Expressions(by)) => by.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        _ => String::new(),
    };
    let limited = query.limit_clause.is_some() || query.fetch.is_some();
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let grouped = matches!(&select.group_by, GroupByExpr::Expressions(by, _) if !by.is_empty());
    // An aggregate of everything is one row anyway; the engine plans no limit beside columns of the outer query.
    if limited
        && !grouped
        && with.is_none()
        && vacuous::is_aggregated(select)
        && query.fetch.is_none()
        && is_limit_of_one(query.limit_clause.as_ref())
    {
        query.limit_clause = None;
        return;
    }
    if limited || grouped || select.projection.len() != 1 || vacuous::is_aggregated(select) || select.from.is_empty() {
        return;
    }
    // What a user asks of the city has to be unambiguous; the catalogs are.
    if with.is_none() && !select.from.iter().all(|f| is_system(&f.relation) && f.joins.iter().all(|j| is_system(&j.relation))) {
        return;
    }
    let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = &select.projection[0] else { return };
    let by = match ordered.as_str() {
        "" => String::new(),
        // By its place in the select list.
        place if place.chars().all(|c| c.is_ascii_digit()) => format!(" ORDER BY {expr}"),
        by => format!(" ORDER BY {by}"),
    };
    let Some(aggregate) = expression(&format!("{}({expr}{by})", with.unwrap_or("first_value"))) else { return };
    select.projection = vec![SelectItem::UnnamedExpr(aggregate)];
    query.order_by = None;
}

/// A limit that leaves the first row.
fn is_limit_of_one(clause: Option<&LimitClause>) -> bool {
    match clause {
        Some(LimitClause::LimitOffset { limit: Some(Expr::Value(limit)), offset: None, limit_by }) => {
            limit_by.is_empty() && matches!(&limit.value, Value::Number(n, _) if n.parse::<u64>().is_ok_and(|n| n > 0))
        }
        _ => false,
    }
}

fn is_system(factor: &TableFactor) -> bool {
    match factor {
        TableFactor::Table { name, .. } => {
            name.0.iter().any(|p| p.as_ident().is_some_and(|i| i.value == "pg_catalog" || i.value == "information_schema"))
        }
        TableFactor::Derived { .. } => true,
        TableFactor::NestedJoin { table_with_joins, .. } => {
            is_system(&table_with_joins.relation) && table_with_joins.joins.iter().all(|j| is_system(&j.relation))
        }
        _ => false,
    }
}

/// A pattern whose escape character is the backslash.
pub(crate) fn with_backslash(text: &str, character: &str) -> String {
    let escape = character.chars().next();
    let mut translated = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            c if Some(c) == escape => {
                translated.push('\\');
                translated.extend(characters.next());
            }
            '\\' => translated.push_str("\\\\"),
            c => translated.push(c),
        }
    }
    translated
}

/// A text that is written down, perhaps in pieces.
fn literal(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) => Some(text.clone()),
        Expr::BinaryOp { left, op: datafusion::sql::sqlparser::ast::BinaryOperator::StringConcat, right } => {
            Some(literal(left)? + &literal(right)?)
        }
        Expr::Nested(inner) => literal(inner),
        _ => None,
    }
}

/// `x in (select ...)` where the engine plans none, in a select list or a case: as a question to a list.
struct InLists(usize);

impl VisitorMut for InLists {
    type Break = ();

    // Queries inside are visited by themselves.
    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.0 += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.0 -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.0 > 0 {
            return ControlFlow::Continue(());
        }
        if let Expr::Exists { subquery, negated } = expr
            && counted(subquery, *negated)
        {
            *expr = Expr::Subquery(subquery.clone());
            return ControlFlow::Continue(());
        }
        if let Expr::InSubquery { expr: value, subquery, negated } = expr {
            let mut query = subquery.clone();
            one_value(&mut query, Some("array_agg"));
            let not = if *negated { "NOT " } else { "" };
            if let Some(asked) = expression(&format!("{not}coalesce(array_contains(({query}), {value}), false)")) {
                *expr = asked;
            }
        }
        ControlFlow::Continue(())
    }
}

struct SeveralRows;

impl VisitorMut for SeveralRows {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(f) = expr {
            let list = match last_part(&f.name).as_str() {
                "generate_series" => expr.clone(),
                "generate_subscripts" => renamed(f, "__subscripts"),
                "_pg_expandarray" => renamed(f, "__expanded"),
                _ => return ControlFlow::Continue(()),
            };
            *expr = call("unnest", vec![list]);
        }
        ControlFlow::Continue(())
    }
}

fn renamed(f: &datafusion::sql::sqlparser::ast::Function, name: &str) -> Expr {
    match &f.args {
        FunctionArguments::List(list) => expression(&format!("{name}({})", list.args.first().map(ToString::to_string).unwrap_or_default())),
        _ => None,
    }
    .unwrap_or_else(|| Expr::Function(f.clone()))
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;

    #[test]
    fn expressions_take_a_form_that_the_engine_knows() {
        check(
            super::rewrite,
            "select (select c.relkind from pg_catalog.pg_class c where c.oid = t.a) from t",
            "SELECT (SELECT first_value(c.relkind) FROM pg_catalog.pg_class c WHERE c.oid = t.a) FROM t",
        );
        check(super::rewrite, "select (select h.x from h where h.a = t.a) from t", "SELECT (SELECT h.x FROM h WHERE h.a = t.a) FROM t");
        check(super::rewrite, "select array(select a from u order by 1) from t", "SELECT (SELECT array_agg(a ORDER BY a) FROM u) FROM t");
        check(super::rewrite, "select generate_series(1, 3)", "SELECT unnest(generate_series(1, 3))");
        check(
            super::rewrite,
            "select (_pg_expandarray(i.indkey)).n, generate_subscripts(i.indkey, 1) from i",
            "SELECT get_field((unnest(__expanded(i.indkey))), 'n'), unnest(__subscripts(i.indkey)) FROM i",
        );
        check(
            super::rewrite,
            "select exists (select 1 from t), not exists (select 2 from t) as b",
            "SELECT (SELECT count(*) > 0 FROM t), (SELECT count(*) = 0 FROM t) AS b",
        );
        check(super::rewrite, "select '\\x00ff'::bytea", "SELECT X'00ff'");
        check(super::rewrite, "select a like 'pg/_' || '%' escape '/' from t", "SELECT a LIKE 'pg\\_%' FROM t");
    }
}
