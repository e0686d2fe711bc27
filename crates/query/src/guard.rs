//! Which statements are let in.
//!
//! The first of two gates: by the kind of statement, before anything is looked up. The second one is in [`crate::engine`], on the plan.

use datafusion::sql::sqlparser::ast::{CopySource, CopyTarget, Expr, Set, SetExpr, Statement, Value, ValueWithSpan, visit_relations};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use std::ops::ControlFlow;

use crate::error::QueryError;
use crate::parameters::parameter;

/// The longest statement, in bytes. Tools write long ones, but a megabyte is a mistake or an attack.
const STATEMENT_BYTES_MAX: usize = 1 << 20;
/// The most operators and keywords in one message. Each may be one level of an expression tree, and trees are walked recursively: this times
/// a few kilobytes has to fit the stack that [`crate::threads`] gives its threads.
const OPERATORS_MAX: usize = 2_000;
/// The most tables in one statement. Joins are planned as a tree with a level per table, and ordering them takes time.
const RELATIONS_MAX: usize = 64;

/// Refuses text that is too long or too complicated, before it is parsed.
pub(crate) fn check_text(text: &str) -> Result<(), QueryError> {
    limit(text.len(), "bytes", STATEMENT_BYTES_MAX)?;
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize().map_err(|e| QueryError::Syntax { reason: e.to_string() })?;
    let n_operators = tokens.iter().filter(|t| may_nest(t)).count();
    limit(n_operators, "operators and keywords", OPERATORS_MAX)
}

fn may_nest(token: &Token) -> bool {
    match token {
        Token::Word(word) => word.keyword != Keyword::NoKeyword && word.quote_style.is_none(),
        Token::EOF
        | Token::Whitespace(_)
        | Token::Number(..)
        | Token::Char(_)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::EscapedStringLiteral(_)
        | Token::DollarQuotedString(_)
        | Token::Placeholder(_)
        | Token::Comma
        | Token::Period
        | Token::LParen
        | Token::RParen
        | Token::SemiColon => false,
        _ => true,
    }
}

/// What a statement is served by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Served {
    /// The engine.
    Engine,
    /// The session: parameters, transactions, cursors, housekeeping.
    Session,
    /// The session: rows out to the client, or in from it.
    Copy,
}

/// Lets in what only reads, and what clients send to arrange their session.
pub(crate) fn check_statement(statement: &Statement) -> Result<Served, QueryError> {
    let refused = || QueryError::ReadOnly { statement: first_words(statement) };
    match statement {
        Statement::Query(query) => {
            if changes(&query.body) {
                return Err(refused());
            }
            let mut n_relations = 0;
            let _: ControlFlow<()> = visit_relations(statement, |_| {
                n_relations += 1;
                ControlFlow::Continue(())
            });
            limit(n_relations, "tables", RELATIONS_MAX)?;
            Ok(Served::Engine)
        }
        Statement::Explain { statement, .. } => match check_statement(statement)? {
            Served::Engine => Ok(Served::Engine),
            Served::Session | Served::Copy => Err(refused()),
        },
        Statement::Copy { source, to: true, target: CopyTarget::Stdout, .. } => match source {
            CopySource::Query(query) if changes(&query.body) => Err(refused()),
            _ => Ok(Served::Copy),
        },
        // What the client sends goes to the sink, if there is one, and nowhere else.
        Statement::Copy { to: false, target: CopyTarget::Stdin, values, .. } if values.is_empty() => Ok(Served::Copy),
        Statement::ShowTables { .. } | Statement::ShowColumns { .. } | Statement::ShowFunctions { .. } => Ok(Served::Engine),
        Statement::Declare { stmts } => {
            for declare in stmts {
                match &declare.for_query {
                    Some(query) if !changes(&query.body) => {}
                    _ => return Err(refused()),
                }
            }
            Ok(Served::Session)
        }
        Statement::Set(set) => check_set(set).map(|()| Served::Session),
        Statement::ShowVariable { .. }
        | Statement::ShowStatus { .. }
        | Statement::ShowCatalogs { .. }
        | Statement::StartTransaction { .. }
        | Statement::Commit { .. }
        | Statement::Rollback { .. }
        | Statement::Savepoint { .. }
        | Statement::ReleaseSavepoint { .. }
        | Statement::Fetch { .. }
        | Statement::Close { .. }
        | Statement::Discard { .. }
        | Statement::Deallocate { .. }
        | Statement::Reset(_) => Ok(Served::Session),
        _ => Err(refused()),
    }
}

/// Does it write? Subqueries are judged on the plan.
fn changes(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => select.into.is_some(),
        SetExpr::Query(query) => changes(&query.body),
        SetExpr::SetOperation { left, right, .. } => changes(left) || changes(right),
        SetExpr::Values(_) | SetExpr::Table(_) => false,
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => true,
    }
}

fn check_set(set: &Set) -> Result<(), QueryError> {
    match set {
        Set::SingleAssignment { variable, values, .. } => {
            let name = variable.to_string().trim_matches('"').to_ascii_lowercase();
            if name == "client_encoding" {
                return values.iter().try_for_each(check_encoding);
            }
            if parameter(&name).is_some_and(|p| p.settable) { Ok(()) } else { Err(QueryError::Parameter { name }) }
        }
        Set::SetNames { charset_name, .. } => encoding(&charset_name.value),
        Set::SetTimeZone { .. } | Set::SetNamesDefault {} | Set::SetTransaction { .. } => Ok(()),
        other => Err(QueryError::Parameter { name: other.to_string().chars().take(80).collect() }),
    }
}

fn check_encoding(value: &Expr) -> Result<(), QueryError> {
    match value {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) => encoding(text),
        other => encoding(&other.to_string()),
    }
}

fn encoding(found: &str) -> Result<(), QueryError> {
    let plain = found.trim_matches(['"', '\'']).replace(['-', '_'], "").to_ascii_lowercase();
    if matches!(plain.as_str(), "utf8" | "unicode" | "default") { Ok(()) } else { Err(QueryError::Encoding { found: found.to_owned() }) }
}

fn limit(found: usize, unit: &'static str, max: usize) -> Result<(), QueryError> {
    if found <= max { Ok(()) } else { Err(QueryError::TooLarge { found, unit, max }) }
}

/// Enough to recognise the statement, not its data.
fn first_words(statement: &Statement) -> String {
    let text = statement.to_string();
    let words = text.split_whitespace().take_while(|w| w.chars().all(|c| c.is_ascii_alphabetic()));
    let words: Vec<&str> = words.take(3).collect();
    if words.is_empty() { text.chars().take(20).collect() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::parser::Parser;

    fn checked(sql: &str) -> Result<Served, QueryError> {
        let statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        check_statement(&statements[0])
    }

    #[test]
    fn reading_is_let_in() {
        for sql in [
            "select 1",
            "with a as (select 1) select * from a",
            "values (1), (2)",
            "explain select 1",
            "explain analyze select 1",
            "select 1 union all select 2",
        ] {
            assert_eq!(checked(sql).unwrap(), Served::Engine, "{sql}");
        }
    }

    #[test]
    fn arranging_a_session_is_let_in() {
        for sql in [
            "set client_encoding to 'UTF8'",
            "set names 'utf8'",
            "set DateStyle = 'ISO, MDY'",
            "set datestyle to ISO",
            "set search_path = public",
            "set extra_float_digits = 3",
            "set session application_name = 'x'",
            "set statement_timeout = 1000",
            "set time zone 'Asia/Shanghai'",
            "set timezone = 'UTC'",
            "set session characteristics as transaction read only",
            "show server_version",
            "begin read only",
            "start transaction",
            "commit",
            "rollback",
            "savepoint a",
            "release savepoint a",
            "rollback to savepoint a",
            "declare c cursor for select 1",
            "fetch 10 from c",
            "close c",
            "discard all",
            "deallocate all",
            "reset all",
        ] {
            assert_eq!(checked(sql).unwrap(), Served::Session, "{sql}");
        }
    }

    #[test]
    fn copying_to_and_from_the_client_is_let_in() {
        for sql in
            ["copy a to stdout", "copy (select 1) to stdout with (format csv)", "copy a (b) from stdin", "copy a (b) from stdin csv header"]
        {
            assert_eq!(checked(sql).unwrap(), Served::Copy, "{sql}");
        }
    }

    #[test]
    fn changing_is_refused() {
        for sql in [
            "insert into a values (1)",
            "update a set b = 1",
            "delete from a",
            "truncate a",
            "create table a (b int)",
            "create table a as select 1",
            "create view a as select 1",
            "create external table a stored as csv location '/etc/passwd'",
            "create schema a",
            "create database a",
            "create function f() returns int language sql as 'select 1'",
            "drop table a",
            "alter table a add b int",
            "copy a to '/tmp/x'",
            "copy a from '/etc/passwd'",
            "copy (select 1) to program 'cat'",
            "copy a from program 'cat'",
            "copy (select 1 into b) to stdout",
            "select 1 into a",
            "explain insert into a values (1)",
            "explain analyze insert into a values (1)",
            "prepare p as select 1",
            "execute p",
            "grant select on a to b",
            "vacuum",
            "lock table a",
        ] {
            let statement = Parser::parse_sql(&PostgreSqlDialect {}, sql);
            // What the parser does not know is refused as well.
            if let Ok(statements) = statement {
                let error = check_statement(&statements[0]).unwrap_err();
                assert_eq!(error.sqlstate(), "25006", "{sql}: {error}");
            }
        }
    }

    #[test]
    fn parameters_of_the_engine_are_refused() {
        for sql in [
            "set datafusion.execution.target_partitions = 1000",
            "set datafusion.runtime.memory_limit = '100G'",
            "set session datafusion.catalog.location = '/'",
            "set role postgres",
        ] {
            assert!(matches!(checked(sql), Err(QueryError::Parameter { .. })), "{sql}");
        }
        assert!(matches!(checked("set client_encoding = 'GBK'"), Err(QueryError::Encoding { .. })));
    }

    #[test]
    fn text_has_limits() {
        let too_large = |sql: &str| matches!(check_text(sql), Err(QueryError::TooLarge { .. }));
        assert!(!too_large(&format!("select 1 in ({})", vec!["1"; 50_000].join(","))));
        assert!(too_large(&format!("select 1{}", "+1".repeat(OPERATORS_MAX + 1))));
        assert!(too_large(&format!("select {}1", "not ".repeat(OPERATORS_MAX + 1))));
        assert!(too_large(&format!("select '{}'", "a".repeat(STATEMENT_BYTES_MAX))));
        let from = |n: usize| checked(&format!("select 1 from {}", vec!["a"; n].join(",")));
        assert!(from(RELATIONS_MAX).is_ok());
        assert!(matches!(from(RELATIONS_MAX + 1), Err(QueryError::TooLarge { .. })));
    }
}
