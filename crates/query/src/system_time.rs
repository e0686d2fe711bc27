//! The past as it was known: `FOR SYSTEM_TIME AS OF`, and the table functions that it stands for.
//!
//! | written | meant |
//! | --- | --- |
//! | `history_as_of('T', '<time>')` | the history of a type as it was known at a recorded time |
//! | `latest_as_of('T', '<time>')` | the entities of a type as they were known then, and in the columns `types` and `scopes` what they were |
//! | `"T_history" FOR SYSTEM_TIME AS OF '<time>'` | the first |
//! | `"T" FOR SYSTEM_TIME AS OF '<time>'` | the second |

use std::sync::Arc;

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::plan_err;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Expr;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::{Keyword, RESERVED_FOR_TABLE_ALIAS};
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use entity::Instant;

use crate::catalog::Tables;
use crate::error::QueryError;
use crate::history::HistoryTable;
use crate::latest::LatestTable;

/// Makes the table functions known to a session.
pub(crate) fn register(context: &SessionContext, tables: &Arc<Tables>) {
    for (name, what) in [("history_as_of", What::History), ("latest_as_of", What::Latest), (AS_OF, What::ByName)] {
        context.register_udtf(name, Arc::new(AsOf { name, what, tables: tables.clone() }));
    }
}

/// What `FOR SYSTEM_TIME AS OF` becomes.
const AS_OF: &str = "table_as_of";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    History,
    Latest,
    /// The history for the name of a history table, else what was newest.
    ByName,
}

#[derive(Debug)]
struct AsOf {
    name: &'static str,
    what: What,
    tables: Arc<Tables>,
}

impl TableFunctionImpl for AsOf {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let text = |e: &Expr| match e {
            Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_owned),
            _ => None,
        };
        let name = self.name;
        let texts: Vec<Option<String>> = args.exprs().iter().map(text).collect();
        let [Some(table), Some(at)] = texts.as_slice() else {
            return plan_err!("{name} takes two texts: a table and a time, as in {name}('AirQualityObserved', '2014-01-05T00:00:00Z')");
        };
        let as_of: Instant = at.parse().map_err(|e: entity::InstantError| DataFusionError::Plan(format!("{name}: {e}")))?;
        let Some(described) = self.tables.history_of(table) else {
            return plan_err!("{name}: there is no table `{table}` with a history");
        };
        let latest = match self.what {
            What::History => false,
            What::Latest => true,
            What::ByName => !self.tables.is_history(table),
        };
        let source = self.tables.source.clone();
        if latest {
            let table = LatestTable::as_of(source, described.entity_type, as_of);
            Ok(Arc::new(table.expect("a type with a history has a table of what was")))
        } else {
            Ok(Arc::new(HistoryTable::new(source, described, Some(as_of))))
        }
    }
}

/// Turns each `<table> FOR SYSTEM_TIME AS OF '<time>'` into a call of a table function.
///
/// Errors: [`QueryError::SystemTime`] for other forms of it.
pub(crate) fn rewrite(text: &str) -> std::result::Result<String, QueryError> {
    // Most statements have none of it, and stay as they are.
    if !text.to_ascii_lowercase().contains("system_time") {
        return Ok(text.to_owned());
    }
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).with_unescape(false).tokenize();
    let tokens = tokens.map_err(|e| QueryError::Syntax { reason: e.to_string() })?;
    let mut out: Vec<String> = Vec::with_capacity(tokens.len());
    let mut i = 0;
    while i < tokens.len() {
        let after_for = next(&tokens, i + 1);
        let found = is_word(&tokens[i], "for") && after_for.is_some_and(|j| is_word(&tokens[j], "system_time"));
        if !found {
            out.push(tokens[i].to_string());
            i += 1;
            continue;
        }
        let as_of = AsOfClause::read(&tokens, after_for.unwrap_or(i))?;
        let table = take_table_name(&mut out, &tokens[..i])?;
        out.push(format!("{AS_OF}({}, '{}')", quoted(&table), as_of.time));
        if !as_of.aliased {
            out.push(format!(" AS \"{}\"", table.replace('"', "\"\"")));
        }
        i = as_of.end;
    }
    Ok(out.concat())
}

struct AsOfClause {
    /// As it was written, between its quotes.
    time: String,
    /// Behind the clause.
    end: usize,
    /// The table is given a name afterwards.
    aliased: bool,
}

impl AsOfClause {
    /// What follows the word `system_time`, which is at this position.
    fn read(tokens: &[Token], at: usize) -> std::result::Result<Self, QueryError> {
        let wrong = |found: Option<&Token>| {
            let found = found.map_or_else(|| "the end".to_owned(), |t| format!("`{t}`"));
            QueryError::SystemTime {
                reason: format!("found {found} (expected AS OF and a constant time, as in FOR SYSTEM_TIME AS OF '2014-01-05T00:00:00Z')"),
            }
        };
        let word = |from: usize, text: &str| match next(tokens, from) {
            Some(j) if is_word(&tokens[j], text) => Ok(j + 1),
            other => Err(wrong(other.map(|j| &tokens[j]))),
        };
        let mut from = word(word(at + 1, "as")?, "of")?;
        for kind in ["timestamp", "timestamptz", "date"] {
            from = word(from, kind).unwrap_or(from);
        }
        let time_at = next(tokens, from);
        let Some((time_at, Token::SingleQuotedString(time))) = time_at.map(|j| (j, &tokens[j])) else {
            return Err(wrong(time_at.map(|j| &tokens[j])));
        };
        let end = time_at + 1;
        let aliased = match next(tokens, end).map(|j| &tokens[j]) {
            Some(Token::Word(w)) => w.quote_style.is_some() || w.keyword == Keyword::AS || !RESERVED_FOR_TABLE_ALIAS.contains(&w.keyword),
            _ => false,
        };
        Ok(Self { time: instant(time), end, aliased })
    }
}

/// A date or a time without zone is UTC.
pub(crate) fn instant(time: &str) -> String {
    let time = time.trim().replacen(' ', "T", 1);
    if time.len() == 10 {
        return format!("{time}T00:00:00Z");
    }
    let zoned = time.ends_with('Z') || time.get(10..).is_some_and(|t| t.contains(['+', '-']));
    let short = time.len() > 3 && matches!(time.as_bytes()[time.len() - 3], b'+' | b'-');
    match (zoned, short) {
        (true, true) => format!("{time}:00"),
        (true, false) => time,
        (false, _) => format!("{time}Z"),
    }
}

/// Takes the name before the clause off what has been written, and gives its last part.
fn take_table_name(out: &mut Vec<String>, before: &[Token]) -> std::result::Result<String, QueryError> {
    let mut rest = before;
    let mut name = None;
    // The tokens before are one to one what has been written, as long as no other clause came between; its end is no name either.
    let mut n_taken = 0;
    loop {
        let blank = rest.iter().rev().take_while(|t| matches!(t, Token::Whitespace(_))).count();
        let (left, _) = rest.split_at(rest.len() - blank);
        let Some((Token::Word(word), left)) = left.split_last() else { break };
        if name.is_none() {
            name = Some(if word.quote_style.is_some() { word.value.clone() } else { word.value.to_lowercase() });
        }
        n_taken += blank + 1;
        rest = left;
        let Some((Token::Period, left)) = rest.split_last() else { break };
        n_taken += 1;
        rest = left;
    }
    let missing = || QueryError::SystemTime { reason: "it stands after the name of a table".to_owned() };
    let name = name.ok_or_else(missing)?;
    out.truncate(out.len().checked_sub(n_taken).ok_or_else(missing)?);
    Ok(name.replace("\"\"", "\""))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn next(tokens: &[Token], from: usize) -> Option<usize> {
    (from..tokens.len()).find(|&i| !matches!(tokens[i], Token::Whitespace(_)))
}

fn is_word(token: &Token, text: &str) -> bool {
    matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_time_becomes_a_table_function() {
        check("select 1", "select 1");
        check(
            r#"select * from "T_history" for system_time as of '2014-01-05T00:00:00Z' where id = 'it''s'"#,
            r#"select * from table_as_of('T_history', '2014-01-05T00:00:00Z') AS "T_history" where id = 'it''s'"#,
        );
        check(
            r#"select a.x from conurb.public."T" FOR SYSTEM_TIME AS OF timestamp '2014-01-05 08:00:00+08' a join road for system_time as of '2014-01-05' as r on true"#,
            r#"select a.x from table_as_of('T', '2014-01-05T08:00:00+08:00') a join table_as_of('road', '2014-01-05T00:00:00Z') as r on true"#,
        );
        check("select 'for system_time as of'", "select 'for system_time as of'");

        #[track_caller]
        fn check(sql: &str, want: &str) {
            assert_eq!(rewrite(sql).unwrap(), want);
        }
    }

    #[test]
    fn other_forms_are_refused_in_words() {
        for (sql, found) in [
            ("select * from t for system_time between '2014-01-01' and '2014-01-02'", "found `between`"),
            ("select * from t for system_time as of now()", "found `now`"),
            ("select * from t for system_time as of $1", "found `$1`"),
            ("select * from t for system_time as of", "found the end"),
            ("select * from (select 1) for system_time as of '2014-01-01'", "after the name of a table"),
        ] {
            let error = rewrite(sql).unwrap_err().to_string();
            assert!(error.contains(found), "{sql}: {error}");
        }
    }
}
