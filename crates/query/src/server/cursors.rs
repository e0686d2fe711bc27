//! `DECLARE`, `FETCH` and `CLOSE`: cursors, which are portals with a name that SQL gives them.
//!
//! The protocol crate has a hook for them; ours writes rows as all other answers (geometries, numbers), takes parameters, knows `BINARY`, and
//! can tell what a cursor's columns are.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::{DFSchema, ParamValues};
use datafusion::logical_expr::{EmptyRelation, LogicalPlan};
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::{CloseCursor, Declare, DeclareType, FetchDirection, Statement, Value};
use datafusion_postgres::QueryHook;
use datafusion_postgres::hooks::HookClient;
use datafusion_postgres::pgwire::api::ClientInfo;
use datafusion_postgres::pgwire::api::portal::{Format, Portal};
use datafusion_postgres::pgwire::api::results::{FieldInfo, Response, Tag};
use datafusion_postgres::pgwire::api::stmt::StoredStatement;
use datafusion_postgres::pgwire::api::store::{Entry, PortalStore};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use datafusion_postgres::pgwire::types::format::FormatOptions;

use super::answer;
use super::session::{Prepared, api_error, user_error};
use crate::engine::Engine;
use crate::guard::check_statement;

/// Cursors of a session.
#[derive(Debug)]
pub(super) struct Cursors {
    pub(super) engine: Arc<Engine>,
}

fn error(sqlstate: &str, message: impl Into<String>) -> PgWireError {
    user_error(ErrorInfo::new("ERROR".to_owned(), sqlstate.to_owned(), message.into()))
}

/// The one cursor of a `DECLARE`.
fn the_one(declared: &[Declare]) -> PgWireResult<&Declare> {
    match declared {
        [one] if one.declare_type == Some(DeclareType::Cursor) && one.for_query.is_some() && one.names.len() == 1 => Ok(one),
        _ => Err(error("42601", "expected DECLARE name CURSOR FOR query")),
    }
}

/// The plan of the query of a `DECLARE`; both gates are here.
pub(super) async fn plan(engine: &Engine, declared: &[Declare]) -> PgWireResult<LogicalPlan> {
    let query = the_one(declared)?.for_query.clone().ok_or_else(|| error("42601", "expected a query"))?;
    let query = Statement::Query(query);
    check_statement(&query).map_err(api_error)?;
    engine.plan(query).await.map_err(api_error)
}

/// Opens a cursor over a plan whose parameters are bound.
pub(super) async fn open<S>(
    engine: &Engine,
    store: &S,
    declared: &[Declare],
    plan: LogicalPlan,
    options: FormatOptions,
) -> PgWireResult<Response>
where
    S: PortalStore<Statement = Prepared>,
{
    let declared = the_one(declared)?;
    let name = declared.names.first().map(|n| n.value.clone()).unwrap_or_default();
    if matches!(store.get_portal(&name), Some(Entry::Value(_))) {
        return Err(error("42P03", format!("cursor \"{name}\" already exists")));
    }
    let format = if declared.binary == Some(true) { Format::UnifiedBinary } else { Format::UnifiedText };
    let query = declared.for_query.clone().ok_or_else(|| error("42601", "expected a query"))?;
    let text = query.to_string();
    let frame = engine.framed(plan.clone()).await.map_err(api_error)?;
    let rows = answer::rows(frame, &format, options).await?;
    let statement = StoredStatement::new(name.clone(), (text, Some((Statement::Query(query), plan))), Vec::new());
    let mut portal = Portal::new_cursor(name, Arc::new(statement));
    portal.result_column_format = format;
    portal.start(rows).await;
    store.put_portal(Arc::new(portal));
    Ok(Response::Execution(Tag::new("DECLARE CURSOR")))
}

/// The columns that a `FETCH` will give; none if it is another statement, or there is no such cursor.
pub(super) fn fields<S>(store: &S, statement: &Statement) -> Option<PgWireResult<Vec<FieldInfo>>>
where
    S: PortalStore<Statement = Prepared>,
{
    let Statement::Fetch { name, .. } = statement else { return None };
    let Some(Entry::Value(portal)) = store.get_portal(&name.value) else { return None };
    let (_, Some((_, plan))) = &portal.statement.statement else { return None };
    Some(answer::fields(plan.schema().as_arrow(), &portal.result_column_format, None))
}

async fn fetch<S>(store: &S, name: &str, direction: &FetchDirection) -> PgWireResult<Response>
where
    S: PortalStore<Statement = Prepared>,
{
    let forward_only = || error("55000", "cursor can only scan forward");
    let count = |value: &Value| match value {
        Value::Number(digits, _) => digits.parse::<usize>().ok().filter(|&n| n > 0).ok_or_else(forward_only),
        _ => Err(forward_only()),
    };
    // 0 stands for all.
    let n_rows = match direction {
        FetchDirection::Next | FetchDirection::Forward { limit: None } => 1,
        FetchDirection::Forward { limit: Some(limit) } | FetchDirection::Count { limit } => count(&limit.value)?,
        FetchDirection::ForwardAll | FetchDirection::All => 0,
        _ => return Err(forward_only()),
    };
    let portal = match store.get_portal(name) {
        Some(Entry::Value(portal)) => portal,
        _ => return Err(error("34000", format!("cursor \"{name}\" does not exist"))),
    };
    let mut response = portal.fetch(n_rows).await?.response;
    response.set_command_tag("FETCH");
    Ok(Response::Query(response))
}

fn close<S>(store: &S, cursor: &CloseCursor) -> PgWireResult<Response>
where
    S: PortalStore<Statement = Prepared>,
{
    match cursor {
        CloseCursor::All => store.clear_portals(),
        CloseCursor::Specific { name } => match store.get_portal(&name.value) {
            Some(_) => store.rm_portal(&name.value),
            None => return Err(error("34000", format!("cursor \"{}\" does not exist", name.value))),
        },
    }
    Ok(Response::Execution(Tag::new("CLOSE CURSOR")))
}

#[async_trait]
impl QueryHook for Cursors {
    async fn handle_simple_query(
        &self,
        statement: &Statement,
        _context: &SessionContext,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        match statement {
            Statement::Declare { stmts } => {
                let options = FormatOptions::from_client_metadata(client.metadata());
                Some(match plan(&self.engine, stmts).await {
                    Ok(plan) => open(&self.engine, client.portal_store(), stmts, plan, options).await,
                    Err(error) => Err(error),
                })
            }
            Statement::Fetch { name, direction, .. } => Some(fetch(client.portal_store(), &name.value, direction).await),
            Statement::Close { cursor } => Some(close(client.portal_store(), cursor)),
            _ => None,
        }
    }

    async fn handle_extended_parse_query(
        &self,
        statement: &Statement,
        _context: &SessionContext,
        _client: &(dyn ClientInfo + Send + Sync),
    ) -> Option<PgWireResult<LogicalPlan>> {
        // A DECLARE is prepared by the session itself.
        matches!(statement, Statement::Fetch { .. } | Statement::Close { .. })
            .then(|| Ok(LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema: Arc::new(DFSchema::empty()) })))
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
