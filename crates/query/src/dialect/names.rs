//! What the columns of an answer are called.
//!
//! PostgreSQL calls a column without a name after the function or the column it is made of, and does not mind two of the same name. The
//! engine names it after its text, and refuses the second one: it gets a mark that the client is not told of.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, Fields, Schema};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::sql::sqlparser::ast::{Expr, Ident, Query, SelectItem, SetExpr, Statement};

/// What follows the name of a column whose name is there already. No name that a client writes has it.
const MARK: char = '\u{1}';

/// A name as clients are told.
pub(crate) fn shown_name(name: &str) -> &str {
    name.split(MARK).next().unwrap_or(name)
}

/// The columns of an answer as clients are told.
pub(crate) fn shown_schema(schema: &Schema) -> Schema {
    let shown = |field: &FieldRef| match shown_name(field.name()) {
        name if name.len() == field.name().len() => Arc::clone(field),
        name => Arc::new(field.as_ref().clone().with_name(name)),
    };
    Schema::new_with_metadata(schema.fields().iter().map(shown).collect::<Fields>(), schema.metadata().clone())
}

/// Rows of an answer as clients are told its columns.
pub(crate) fn shown_batch(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(shown_schema(&batch.schema())), batch.columns().to_vec(), &options)
}

/// A name in double quotes.
pub(super) fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

/// The name of a column that is not given one.
pub(crate) fn unnamed(expr: &Expr) -> String {
    fn of(expr: &Expr) -> Option<String> {
        match expr {
            Expr::Identifier(name) => Some(folded(name)),
            Expr::CompoundIdentifier(names) => names.last().map(folded),
            Expr::Function(f) => f.name.0.last().and_then(|part| part.as_ident()).map(folded),
            Expr::Cast { expr, data_type, .. } => of(expr).or_else(|| Some(type_name(&data_type.to_string()))),
            Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => of(inner),
            Expr::Case { else_result, .. } => else_result.as_ref().and_then(|e| of(e)).or_else(|| Some("case".to_owned())),
            Expr::Subquery(query) => match query.body.as_ref() {
                SetExpr::Select(select) => match select.projection.first()? {
                    SelectItem::UnnamedExpr(expr) => of(expr),
                    SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
                    _ => None,
                },
                _ => None,
            },
            Expr::Exists { .. } => Some("exists".to_owned()),
            Expr::Extract { .. } => Some("extract".to_owned()),
            Expr::AtTimeZone { .. } => Some("timezone".to_owned()),
            Expr::Substring { .. } => Some("substring".to_owned()),
            Expr::Trim { .. } => Some("btrim".to_owned()),
            Expr::Position { .. } => Some("position".to_owned()),
            Expr::Array(_) => Some("array".to_owned()),
            _ => None,
        }
    }
    of(expr).unwrap_or_else(|| "?column?".to_owned())
}

fn folded(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

fn type_name(sql: &str) -> String {
    let plain = sql.to_lowercase();
    let plain = plain.split('(').next().unwrap_or_default().trim();
    match plain {
        "int" | "integer" => "int4",
        "bigint" => "int8",
        "smallint" => "int2",
        "double precision" => "float8",
        "real" => "float4",
        "boolean" => "bool",
        "timestamp with time zone" => "timestamptz",
        "timestamp without time zone" => "timestamp",
        other => other,
    }
    .to_owned()
}

/// Marks columns whose name is there already. All of them have names.
pub(super) fn mark_doubles(items: &mut [SelectItem]) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for item in items {
        if let SelectItem::ExprWithAlias { alias, .. } = item {
            let n = seen.entry(alias.value.clone()).or_default();
            *n += 1;
            if *n > 1 {
                *alias = quoted(&format!("{}{MARK}{n}", alias.value));
            }
        }
    }
}

/// Names the columns of the answer, and marks those of the same name.
pub(super) fn name_columns(statement: &mut Statement) {
    match statement {
        Statement::Query(query) => of_query(query),
        Statement::Explain { statement, .. } => name_columns(statement),
        Statement::Declare { stmts } => stmts.iter_mut().filter_map(|d| d.for_query.as_mut()).for_each(|q| of_query(q)),
        _ => {}
    }
}

fn of_query(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    // What a star stands for is not known here.
    let has_star = select.projection.iter().any(|i| !matches!(i, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. }));
    let mut seen: HashMap<String, usize> = HashMap::new();
    for item in &mut select.projection {
        let (expr, name, is_plain) = match item {
            SelectItem::UnnamedExpr(expr) => {
                let is_plain = matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
                (expr.clone(), unnamed(expr), is_plain)
            }
            SelectItem::ExprWithAlias { expr, alias } => (expr.clone(), folded(alias), true),
            _ => continue,
        };
        let n = seen.entry(name.clone()).or_default();
        *n += 1;
        if *n > 1 && !has_star {
            *item = SelectItem::ExprWithAlias { expr, alias: quoted(&format!("{name}{MARK}{n}")) };
        } else if !is_plain {
            *item = SelectItem::ExprWithAlias { expr, alias: quoted(&name) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    #[test]
    fn columns_are_called_as_postgresql_calls_them() {
        check(
            "select count(*), a, t.\"B\", 1 + 1, a::int, 2::bigint, now() - b",
            &["count", "a", "B", "?column?", "a", "int8", "?column?"],
        );
        check("select 1, 2, a as \"X\", case when a then b end", &["?column?", "?column?", "X", "case"]);
        check("select extract(epoch from a), upper(a), (select max(x) from t)", &["extract", "upper", "max"]);

        #[track_caller]
        fn check(sql: &str, want: &[&str]) {
            let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap();
            name_columns(&mut statements[0]);
            let Statement::Query(query) = &statements[0] else { panic!("{sql}") };
            let SetExpr::Select(select) = query.body.as_ref() else { panic!("{sql}") };
            let names = select.projection.iter().map(|item| match item {
                SelectItem::ExprWithAlias { alias, .. } => shown_name(&folded(alias)).to_owned(),
                SelectItem::UnnamedExpr(expr) => unnamed(expr),
                other => panic!("{other}"),
            });
            assert_eq!(names.collect::<Vec<_>>(), want, "{sql}");
        }
    }
}
