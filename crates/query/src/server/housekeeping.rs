//! Statements by which pools and drivers tidy up a session – there is nothing to tidy up, so they succeed –, and `SHOW`.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::ParamValues;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::{Expr, Reset, Set, Statement};
use datafusion_postgres::QueryHook;
use datafusion_postgres::hooks::HookClient;
use datafusion_postgres::pgwire::api::results::{DataRowEncoder, FieldFormat, FieldInfo, QueryResponse, Response, Tag};
use datafusion_postgres::pgwire::api::{ClientInfo, Type};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError, PgWireResult};

use super::session::api_error;
use crate::parameters::{PARAMETERS, Parameters, parameter};

/// `DISCARD`, `DEALLOCATE`, `RESET`, and the parameters of the session.
#[derive(Debug)]
pub(super) struct Housekeeping {
    pub(super) parameters: Parameters,
}

/// Parameters of which the protocol crate's own hook has to know: it tells the client, and keeps the time limit.
const TOLD_TO_THE_HOOK: [&str; 6] = ["application_name", "bytea_output", "datestyle", "intervalstyle", "search_path", "statement_timeout"];

impl Housekeeping {
    /// The answer to `SHOW name`; none if the protocol crate's hook knows it.
    fn show<C: ClientInfo + ?Sized>(&self, words: &str, client: &C) -> Option<PgWireResult<Response>> {
        let name = match words {
            "all" => return Some(self.show_all().map(Response::Query)),
            "time zone" => "TimeZone",
            "transaction isolation level" => "transaction_isolation",
            other => other,
        };
        if name.eq_ignore_ascii_case("statement_timeout") {
            return None;
        }
        let Some(known) = parameter(name) else {
            if words == "catalogs" {
                return None;
            }
            let unknown = format!("unrecognized configuration parameter \"{name}\"");
            return Some(Err(PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".to_owned(), "42704".to_owned(), unknown)))));
        };
        // What a client said when it connected, or told the hook.
        let told = client.metadata().get(&name.to_ascii_lowercase()).cloned();
        let changed = self.parameters.get(name).filter(|value| value != known.default);
        let value = changed.or(told).unwrap_or_else(|| known.default.to_owned());
        Some(one_value(known.name, &value).map(Response::Query))
    }

    fn show_all(&self) -> PgWireResult<QueryResponse> {
        let field = |name: &str| FieldInfo::new(name.to_owned(), None, None, Type::TEXT, FieldFormat::Text);
        let fields = Arc::new(vec![field("name"), field("setting"), field("description")]);
        let mut rows = Vec::with_capacity(PARAMETERS.len());
        for known in &PARAMETERS {
            let mut row = DataRowEncoder::new(fields.clone());
            row.encode_field(&known.name)?;
            row.encode_field(&self.parameters.get(known.name))?;
            row.encode_field(&known.about)?;
            rows.push(Ok(row.take_row()));
        }
        Ok(QueryResponse::new(fields, futures::stream::iter(rows)))
    }

    /// `SET`: what it says is kept. None if the hook has to know it, too.
    fn set<C: ClientInfo + ?Sized>(&self, set: &Set, client: &mut C) -> Option<PgWireResult<Response>> {
        let Set::SingleAssignment { variable, values, .. } = set else { return None };
        let name = variable.to_string().trim_matches('"').to_ascii_lowercase();
        let value = |e: &Expr| match e {
            Expr::Value(v) => v.value.clone().into_string().unwrap_or_else(|| v.to_string()),
            other => other.to_string().trim_matches('"').to_owned(),
        };
        let value = values.iter().map(value).collect::<Vec<_>>().join(", ");
        let digits = value.parse::<i8>().ok().filter(|d| (-15..=3).contains(d));
        if name == "extra_float_digits" && digits.is_none() && !value.eq_ignore_ascii_case("default") {
            let reason = format!("invalid value for parameter \"extra_float_digits\": \"{value}\" (expected a whole number from -15 to 3)");
            return Some(Err(PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".to_owned(), "22023".to_owned(), reason)))));
        }
        if let Err(error) = self.parameters.set(&name, Some(value)) {
            return Some(Err(api_error(error)));
        }
        if name == "extra_float_digits" {
            // The hook does not understand numbers.
            let value = self.parameters.get(&name).unwrap_or_default();
            client.metadata_mut().insert(name.clone(), value);
        }
        if TOLD_TO_THE_HOOK.contains(&name.as_str()) { None } else { Some(Ok(Response::Execution(Tag::new("SET")))) }
    }

    fn reset(&self, statement: &Statement) -> Option<PgWireResult<Response>> {
        match statement {
            Statement::Discard { .. } => self.parameters.reset(),
            Statement::Reset(reset) => match &reset.reset {
                Reset::ALL => self.parameters.reset(),
                Reset::ConfigurationParameter(name) => {
                    if let Err(error) = self.parameters.set(name.to_string().trim_matches('"'), None) {
                        return Some(Err(api_error(error)));
                    }
                }
            },
            // The transaction goes on, also after an error.
            Statement::Rollback { savepoint: Some(_), .. } => return Some(Ok(Response::TransactionStart(Tag::new("ROLLBACK")))),
            _ => {}
        }
        tag(statement).map(|t| Ok(Response::Execution(Tag::new(t))))
    }
}

fn one_value(name: &str, value: &str) -> PgWireResult<QueryResponse> {
    let fields = Arc::new(vec![FieldInfo::new(name.to_owned(), None, None, Type::TEXT, FieldFormat::Text)]);
    let mut row = DataRowEncoder::new(fields.clone());
    row.encode_field(&value)?;
    Ok(QueryResponse::new(fields, futures::stream::iter([Ok(row.take_row())])))
}

fn tag(statement: &Statement) -> Option<&'static str> {
    match statement {
        Statement::Discard { .. } => Some("DISCARD ALL"),
        Statement::Deallocate { .. } => Some("DEALLOCATE"),
        Statement::Reset(_) => Some("RESET"),
        // Nothing is changed that could be taken back.
        Statement::Savepoint { .. } => Some("SAVEPOINT"),
        Statement::ReleaseSavepoint { .. } => Some("RELEASE"),
        Statement::Rollback { savepoint: Some(_), .. } => Some("ROLLBACK"),
        _ => None,
    }
}

#[async_trait]
impl QueryHook for Housekeeping {
    async fn handle_simple_query(
        &self,
        statement: &Statement,
        _context: &SessionContext,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        if let Statement::ShowVariable { variable } = statement {
            let words: Vec<String> = variable.iter().map(|w| w.value.to_lowercase()).collect();
            return self.show(&words.join(" "), client);
        }
        if let Statement::Set(set) = statement {
            return self.set(set, client);
        }
        self.reset(statement)
    }

    async fn handle_extended_parse_query(
        &self,
        statement: &Statement,
        _context: &SessionContext,
        _client: &(dyn ClientInfo + Send + Sync),
    ) -> Option<PgWireResult<LogicalPlan>> {
        tag(statement).map(|_| Ok(LogicalPlan::default()))
    }

    async fn handle_extended_query(
        &self,
        statement: &Statement,
        _plan: &LogicalPlan,
        _parameters: &ParamValues,
        context: &SessionContext,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        self.handle_simple_query(statement, context, client).await
    }
}
