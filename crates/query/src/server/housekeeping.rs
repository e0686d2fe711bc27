//! Statements by which pools and drivers tidy up a session – there is nothing to tidy up, so they succeed –, and `SHOW`.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::{DFSchema, ParamValues};
use datafusion::logical_expr::{EmptyRelation, LogicalPlan};
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::Statement;
use datafusion_postgres::QueryHook;
use datafusion_postgres::hooks::HookClient;
use datafusion_postgres::pgwire::api::results::{DataRowEncoder, FieldFormat, FieldInfo, QueryResponse, Response, Tag};
use datafusion_postgres::pgwire::api::{ClientInfo, Type};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError, PgWireResult};

/// `DISCARD`, `DEALLOCATE`, `RESET`, and the `SHOW` of parameters that the protocol crate's own hook would answer wrongly.
#[derive(Debug)]
pub(super) struct Housekeeping;

/// The answer to `SHOW name`; none if the protocol crate's hook knows it.
fn show<C: ClientInfo + ?Sized>(name: &str, client: &C) -> Option<PgWireResult<Response>> {
    const KNOWN_TO_THE_HOOK: [&str; 10] = [
        "application_name",
        "bytea_output",
        "catalogs",
        "datestyle",
        "extra_float_digits",
        "intervalstyle",
        "search_path",
        "statement_timeout",
        "time zone",
        "transaction isolation level",
    ];
    let fixed = match name {
        "server_version" => Some(super::session::SERVER_VERSION),
        "client_encoding" | "server_encoding" => Some("UTF8"),
        "transaction_isolation" | "default_transaction_isolation" => Some("read committed"),
        "transaction_read_only" | "default_transaction_read_only" | "standard_conforming_strings" | "integer_datetimes" => Some("on"),
        "is_superuser" => Some("off"),
        "max_identifier_length" => Some("63"),
        "timezone" => Some(client.metadata().get("timezone").map_or("UTC", String::as_str)),
        _ => None,
    };
    match fixed {
        Some(value) => Some(one_value(name, value).map(Response::Query)),
        None if KNOWN_TO_THE_HOOK.contains(&name) || client.metadata().contains_key(name) => None,
        None => {
            let unknown = format!("unrecognized configuration parameter \"{name}\"");
            Some(Err(PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".to_owned(), "42704".to_owned(), unknown)))))
        }
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
            return show(&words.join(" "), client);
        }
        tag(statement).map(|t| Ok(Response::Execution(Tag::new(t))))
    }

    async fn handle_extended_parse_query(
        &self,
        statement: &Statement,
        _context: &SessionContext,
        _client: &(dyn ClientInfo + Send + Sync),
    ) -> Option<PgWireResult<LogicalPlan>> {
        let nothing = || LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema: Arc::new(DFSchema::empty()) });
        tag(statement).map(|_| Ok(nothing()))
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
