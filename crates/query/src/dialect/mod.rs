//! What PostgreSQL users write and the engine does not know by itself, as something that it knows.
//!
//! The rules of the protocol crate are used where they keep the meaning. Its shortcuts for whole statements of certain clients are not: they
//! answer with nothing, whatever the statement asks, and its rule for subqueries in the select list makes them null.
//!
//! * [`vacuous`]: queries over tables of which it is known that they are empty, and that are written in ways that the engine cannot plan.
//! * [`casts`]: `regclass` and its relatives.
//! * [`relations`]: functions and PostGIS's tables where a table is named.
//! * [`expressions`]: subqueries, functions that give several rows, patterns with another escape character.
//! * [`places`]: what PostGIS adds to the language.
//! * [`truth`]: truth values that are written as texts.
//! * [`names`]: columns are called as PostgreSQL calls them.

mod casts;
mod expressions;
mod names;
mod places;
mod relations;
mod truth;
mod vacuous;

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{
    DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, Statement, Value,
    ValueWithSpan, visit_expressions, visit_expressions_mut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use datafusion_postgres::datafusion_pg_catalog::sql::rules::{
    AliasDuplicatedProjectionRewrite, CurrentUserVariableToSessionUserFunctionCall, FixArrayLiteral, PrependUnqualifiedPgTableName,
    ResolveUnqualifiedIdentifier, RewriteArrayAnyAllOperation, RewritePgCatalogOperator, SqlStatementRewriteRule, StripCallableQualifier,
    StripCollate,
};

pub(crate) use expressions::with_backslash;
pub(crate) use names::{shown_batch, shown_name, shown_schema, unnamed};
pub(crate) use truth::TruthTexts;

/// Reads statements.
pub(crate) struct Dialect {
    rules: Vec<Arc<dyn SqlStatementRewriteRule>>,
}

impl Default for Dialect {
    fn default() -> Self {
        let rules: Vec<Arc<dyn SqlStatementRewriteRule>> = vec![
            Arc::new(AliasDuplicatedProjectionRewrite),
            Arc::new(ResolveUnqualifiedIdentifier),
            Arc::new(RewriteArrayAnyAllOperation),
            Arc::new(PrependUnqualifiedPgTableName),
            Arc::new(StripCallableQualifier),
            Arc::new(FixArrayLiteral),
            Arc::new(CurrentUserVariableToSessionUserFunctionCall),
            Arc::new(StripCollate),
            Arc::new(RewritePgCatalogOperator),
        ];
        Self { rules }
    }
}

impl Dialect {
    /// The statements of a text, in the words of the engine.
    ///
    /// Errors: [`ParserError`] where it is not SQL.
    pub(crate) fn parse(&self, text: &str) -> Result<Vec<Statement>, ParserError> {
        let dialect = PostgreSqlDialect {};
        let mut tokens = Tokenizer::new(&dialect, text).tokenize_with_location().map_err(|e| ParserError::TokenizerError(e.to_string()))?;
        for token in &mut tokens {
            // A statement by itself, which the parser does not know.
            if matches!(&token.token, Token::Word(word) if word.keyword == Keyword::ABORT) {
                token.token = Token::make_keyword("ROLLBACK");
            }
        }
        let statements = Parser::new(&dialect).with_tokens_with_locations(tokens).parse_statements()?;
        Ok(statements.into_iter().map(|s| self.rewrite(s)).collect())
    }

    fn rewrite(&self, mut statement: Statement) -> Statement {
        rewrite(&mut statement);
        names::name_columns(&mut statement);
        places::rewrite(&mut statement);
        vacuous::rewrite(&mut statement);
        casts::rewrite(&mut statement);
        relations::rewrite(&mut statement);
        let mut statement = self.rules.iter().fold(statement, |statement, rule| rule.rewrite(statement));
        expressions::rewrite(&mut statement);
        statement
    }
}

/// Does a statement call one of these functions?
pub(crate) fn calls(statement: &Statement, functions: &[&str]) -> bool {
    let found = visit_expressions(statement, |expr| match expr {
        Expr::Function(function) if functions.contains(&last_part(&function.name).as_str()) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

/// An expression from its text.
fn expression(text: &str) -> Option<Expr> {
    Parser::new(&PostgreSqlDialect {}).try_with_sql(text).ok()?.parse_expr().ok()
}

/// The last part of a name, in small letters.
fn last_part(name: &ObjectName) -> String {
    name.0.last().and_then(|part| part.as_ident()).map(|i| i.value.to_lowercase()).unwrap_or_default()
}

/// Rewrites casts to PostGIS's types: `x::geometry` becomes `st_geometry(x)`, `x::geography` becomes `st_geography(x)`.
fn rewrite(statement: &mut Statement) {
    let _: ControlFlow<()> = visit_expressions_mut(statement, |expr| {
        if let Expr::Cast { expr: inner, data_type: DataType::Custom(name, modifiers), .. } = expr
            && let Some(function) = name.0.last().and_then(|part| part.as_ident()).and_then(|ident| function_of(&ident.value))
        {
            let mut arguments = vec![(**inner).clone()];
            // As in geometry(Point, 4326): the reference system.
            if function == "st_geometry"
                && let Some(srid) = modifiers.get(1).filter(|m| m.parse::<u32>().is_ok())
            {
                arguments.push(Expr::Value(ValueWithSpan::from(Value::Number(srid.clone(), false))));
            }
            *expr = call(function, arguments);
        }
        ControlFlow::Continue(())
    });
}

fn function_of(type_name: &str) -> Option<&'static str> {
    match type_name.to_ascii_lowercase().as_str() {
        "geometry" => Some("st_geometry"),
        "geography" => Some("st_geography"),
        _ => None,
    }
}

fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let args = arguments.into_iter().map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a rewriting makes of a statement.
    #[track_caller]
    pub(super) fn check(rewrite: fn(&mut Statement), sql: &str, want: &str) {
        let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap();
        rewrite(&mut statements[0]);
        assert_eq!(statements[0].to_string(), want);
    }

    #[test]
    fn casts_to_the_types_of_postgis_become_functions() {
        check(rewrite, "select 'POINT(1 2)'::geometry", "SELECT st_geometry('POINT(1 2)')");
        check(
            rewrite,
            "select cast(a as geography) from t where b::geometry(Point,4326) = c",
            "SELECT st_geography(a) FROM t WHERE st_geometry(b, 4326) = c",
        );
        check(rewrite, "select st_x(a::geometry::geography)", "SELECT st_x(st_geography(st_geometry(a)))");
        check(rewrite, "select 1::text", "SELECT 1::TEXT");
    }
}
