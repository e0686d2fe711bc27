//! What is named where a table is expected.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, ObjectNamePart, Query, SetExpr, Statement, TableAlias, TableAliasColumnDef, TableFactor, Value, VisitMut,
    VisitorMut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::last_part;
use crate::catalog::system::{KNOWN_NUMBERS, OWN_TABLES};

/// Functions that the engine itself knows as tables.
const TABLE_FUNCTIONS: [&str; 8] =
    ["aggregate", "generate_series", "history_as_of", "latest_as_of", "pg_get_keywords", "range", "table_as_of", "unnest"];

/// * A function that gives one value, as a table: a query of one row.
/// * The column of `generate_series(1, 3) as n` is called `n`.
/// * `tableoid` of a table of `pg_catalog` is its number.
/// * The tables of PostGIS and of `pg_catalog` are found without their schema.
pub(super) fn rewrite(statement: &mut Statement) {
    let _ = statement.visit(&mut Visitor);
}

struct Visitor;

/// The tables of `pg_catalog` in a query, by the names they have in it, with their numbers.
struct TableNumbers(Vec<(String, i32)>);

impl VisitorMut for TableNumbers {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::CompoundIdentifier(names) = expr
            && let [table, column] = names.as_slice()
            && column.value.eq_ignore_ascii_case("tableoid")
            && let Some((_, number)) = self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(&table.value))
        {
            *expr = Expr::Value(Value::Number(number.to_string(), false).with_empty_span());
        }
        ControlFlow::Continue(())
    }
}

impl VisitorMut for Visitor {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let SetExpr::Select(select) = query.body.as_ref() else { return ControlFlow::Continue(()) };
        let factors = select.from.iter().flat_map(|f| std::iter::once(&f.relation).chain(f.joins.iter().map(|j| &j.relation)));
        let numbered = factors.filter_map(|factor| match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let table = last_part(name);
                let number = KNOWN_NUMBERS.iter().find(|(known, _)| *known == table)?.1;
                Some((alias.as_ref().map_or(table, |a| a.name.value.clone()), number))
            }
            _ => None,
        });
        let mut numbers = TableNumbers(numbered.collect());
        if !numbers.0.is_empty() {
            let _ = query.visit(&mut numbers);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, args: None, .. } => {
                let parts: Vec<String> = name.0.iter().filter_map(|p| p.as_ident()).map(|i| i.value.clone()).collect();
                let table = match parts.as_slice() {
                    [table] => table.as_str(),
                    [schema, table] if schema == "public" && !table.starts_with("pg_") => table.as_str(),
                    _ => return ControlFlow::Continue(()),
                };
                if OWN_TABLES.contains(&table) {
                    let qualified = ["pg_catalog", table].map(|part| ObjectNamePart::Identifier(Ident::new(part)));
                    *name = ObjectName(qualified.into());
                }
            }
            TableFactor::Table { name, args: args @ Some(_), .. } if last_part(name) == "pg_show_all_settings" => {
                *name = ObjectName(["pg_catalog", "pg_settings"].map(|part| ObjectNamePart::Identifier(Ident::new(part))).into());
                *args = None;
            }
            TableFactor::Table { name, args: Some(arguments), alias, .. } => {
                let function = last_part(name);
                if function == "generate_series" {
                    if let Some(alias) = alias.as_mut().filter(|a| a.columns.is_empty()) {
                        alias.columns = vec![TableAliasColumnDef { name: alias.name.clone(), data_type: None }];
                    }
                } else if !TABLE_FUNCTIONS.contains(&function.as_str()) {
                    let written = arguments.args.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                    if let Some(derived) = derived(&function, &written, alias.as_ref()) {
                        *factor = derived;
                    }
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// `(SELECT f(x) AS a) AS a`.
fn derived(function: &str, arguments: &str, alias: Option<&TableAlias>) -> Option<TableFactor> {
    let table = alias.map_or_else(|| Ident::new(function), |a| a.name.clone());
    let column = alias.and_then(|a| a.columns.first()).map_or_else(|| table.clone(), |c| c.name.clone());
    let subquery: Box<Query> = {
        let sql = format!("SELECT {function}({arguments}) AS {column}");
        Parser::new(&PostgreSqlDialect {}).try_with_sql(&sql).ok()?.parse_query().ok()?
    };
    let alias = TableAlias { explicit: true, name: table, columns: Vec::new(), at: None };
    Some(TableFactor::Derived { lateral: false, subquery, alias: Some(alias), sample: None })
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;

    #[test]
    fn functions_and_known_tables_are_tables() {
        check(
            super::rewrite,
            "select s[i] from generate_series(1, 2) as i, string_to_array('a,b', ',') s",
            "SELECT s[i] FROM generate_series(1, 2) AS i (i), (SELECT string_to_array('a,b', ',') AS s) AS s",
        );
        check(
            super::rewrite,
            "select * from spatial_ref_sys, public.geometry_columns, public.pg_class",
            "SELECT * FROM pg_catalog.spatial_ref_sys, pg_catalog.geometry_columns, public.pg_class",
        );
        check(
            super::rewrite,
            "select l.tableoid, t.tableoid from pg_catalog.pg_language l, t",
            "SELECT 2612, t.tableoid FROM pg_catalog.pg_language l, t",
        );
        check(
            super::rewrite,
            "select * from current_schema()",
            "SELECT * FROM (SELECT current_schema() AS current_schema) AS current_schema",
        );
    }
}
