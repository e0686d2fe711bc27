//! `DECLARE`, `FETCH` and `CLOSE`: cursors.
//!
//! The protocol crate has a hook for them; ours writes rows as all other answers (geometries, numbers), in the format that each `FETCH` or the
//! word `BINARY` asks for, takes parameters, can tell what a cursor's columns are, and ends them with the transaction.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use datafusion::common::ParamValues;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::{CloseCursor, Declare, DeclareType, FetchDirection, Statement, Value};
use datafusion_postgres::QueryHook;
use datafusion_postgres::hooks::HookClient;
use datafusion_postgres::pgwire::api::ClientInfo;
use datafusion_postgres::pgwire::api::portal::{Format, Portal};
use datafusion_postgres::pgwire::api::results::{FieldInfo, QueryResponse, Response, Tag};
use datafusion_postgres::pgwire::api::stmt::StoredStatement;
use datafusion_postgres::pgwire::api::store::PortalStore;
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use datafusion_postgres::pgwire::types::format::FormatOptions;
use futures::StreamExt;

use super::answer::{self, engine_error};
use super::session::{Prepared, api_error, user_error};
use crate::engine::Engine;
use crate::guard::check_statement;

/// How many cursors a session may have open: each holds a statement that has begun.
const CURSORS_MAX: usize = 100;

/// Cursors of a session.
pub(super) struct Cursors {
    engine: Arc<Engine>,
    open: Mutex<BTreeMap<String, Cursor>>,
}

/// A statement that has begun.
#[derive(Clone)]
struct Cursor {
    schema: SchemaRef,
    is_binary: bool,
    /// It stays when the transaction is over.
    is_held: bool,
    has_begun: Arc<AtomicBool>,
    rows: Arc<tokio::sync::Mutex<Left>>,
}

/// The rows that were not fetched yet.
struct Left {
    batches: SendableRecordBatchStream,
    /// What was fetched in part.
    first: Option<RecordBatch>,
}

impl Left {
    /// The next rows, at most so many.
    async fn next(&mut self, n_rows_max: usize) -> Option<Result<RecordBatch, DataFusionError>> {
        let batch = match self.first.take() {
            Some(batch) => batch,
            None => match self.batches.next().await? {
                Ok(batch) => batch,
                Err(error) => return Some(Err(error)),
            },
        };
        if batch.num_rows() > n_rows_max {
            self.first = Some(batch.slice(n_rows_max, batch.num_rows() - n_rows_max));
            return Some(Ok(batch.slice(0, n_rows_max)));
        }
        Some(Ok(batch))
    }
}

impl std::fmt::Debug for Cursors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursors").field("open", &self.lock().keys()).finish_non_exhaustive()
    }
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

impl Cursors {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self { engine, open: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Cursor>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a cursor over a plan whose parameters are bound. `store` gets a portal of its name, by which the protocol can describe it.
    pub(super) async fn open<S>(&self, store: &S, declared: &[Declare], plan: LogicalPlan) -> PgWireResult<Response>
    where
        S: PortalStore<Statement = Prepared>,
    {
        let declared = the_one(declared)?;
        let name = declared.names.first().map(|n| n.value.clone()).unwrap_or_default();
        {
            let open = self.lock();
            if open.contains_key(&name) {
                return Err(error("42P03", format!("cursor \"{name}\" already exists")));
            }
            if open.len() >= CURSORS_MAX {
                return Err(error("53000", format!("too many open cursors: the limit of a session is {CURSORS_MAX}")));
            }
        }
        let query = declared.for_query.clone().ok_or_else(|| error("42601", "expected a query"))?;
        let text = query.to_string();
        let frame = self.engine.framed(plan.clone()).await.map_err(api_error)?;
        let schema = Arc::new(frame.schema().as_arrow().clone());
        let batches = frame.execute_stream().await.map_err(engine_error)?;
        let statement = StoredStatement::new(name.clone(), (text, Some((Statement::Query(query), plan))), Vec::new());
        store.put_portal(Arc::new(Portal::new_cursor(name.clone(), Arc::new(statement))));
        let rows = Arc::new(tokio::sync::Mutex::new(Left { batches, first: None }));
        let cursor = Cursor {
            schema,
            is_binary: declared.binary == Some(true),
            is_held: declared.hold == Some(true),
            has_begun: Arc::default(),
            rows,
        };
        self.lock().insert(name, cursor);
        Ok(Response::Execution(Tag::new("DECLARE CURSOR")))
    }

    /// The columns that a `FETCH` will give; none if it is another statement, or there is no such cursor.
    pub(super) fn fields(&self, statement: &Statement, format: &Format) -> Option<PgWireResult<Vec<FieldInfo>>> {
        let Statement::Fetch { name, .. } = statement else { return None };
        let cursor = self.lock().get(&name.value).cloned()?;
        Some(answer::fields(&cursor.schema, if cursor.is_binary { &Format::UnifiedBinary } else { format }, None))
    }

    /// The next rows of a cursor, computed while they are fetched.
    pub(super) fn fetch(&self, name: &str, direction: &FetchDirection, format: &Format, options: FormatOptions) -> PgWireResult<Response> {
        let forward_only = || error("55000", "cursor can only scan forward");
        let count = |value: &Value| match value {
            Value::Number(digits, _) => digits.parse::<usize>().ok().ok_or_else(forward_only),
            _ => Err(forward_only()),
        };
        let n_rows = match direction {
            FetchDirection::Next | FetchDirection::Forward { limit: None } => 1,
            FetchDirection::Forward { limit: Some(limit) } | FetchDirection::Count { limit } => count(&limit.value)?,
            FetchDirection::ForwardAll | FetchDirection::All => usize::MAX,
            _ => return Err(forward_only()),
        };
        let cursor = self.lock().get(name).cloned().ok_or_else(|| missing(name))?;
        // None is the present row, which there is none of before the first one: so programs ask for the columns.
        if n_rows == 0 && cursor.has_begun.load(Ordering::Relaxed) {
            return Err(forward_only());
        }
        cursor.has_begun.fetch_or(n_rows > 0, Ordering::Relaxed);
        let format = if cursor.is_binary { &Format::UnifiedBinary } else { format };
        let encoder = answer::Encoder::new(&cursor.schema, format, options)?;
        let told = encoder.told.clone();
        let batches = futures::stream::unfold((cursor.rows, n_rows), |(rows, n_left)| async move {
            let batch = if n_left == 0 { None } else { rows.lock().await.next(n_left).await }?;
            let n_left = batch.as_ref().map_or(0, |b| n_left - b.num_rows());
            Some((batch, (rows, n_left)))
        });
        let mut response = QueryResponse::new(told, batches.flat_map(move |batch| futures::stream::iter(encoder.encode(batch))));
        response.set_command_tag("FETCH");
        Ok(Response::Query(response))
    }

    fn close<S: PortalStore<Statement = Prepared>>(&self, store: &S, cursor: &CloseCursor) -> PgWireResult<Response> {
        match cursor {
            CloseCursor::All => self.forget(store, |_| true),
            CloseCursor::Specific { name } => {
                self.lock().remove(&name.value).ok_or_else(|| missing(&name.value))?;
                store.rm_portal(&name.value);
            }
        }
        Ok(Response::Execution(Tag::new("CLOSE CURSOR")))
    }

    fn forget<S: PortalStore<Statement = Prepared>>(&self, store: &S, which: impl Fn(&Cursor) -> bool) {
        self.lock().retain(|name, cursor| {
            let goes = which(cursor);
            if goes {
                store.rm_portal(name);
            }
            !goes
        });
    }
}

fn missing(name: &str) -> PgWireError {
    error("34000", format!("cursor \"{name}\" does not exist"))
}

#[async_trait]
impl QueryHook for Cursors {
    async fn handle_simple_query(
        &self,
        statement: &Statement,
        _context: &SessionContext,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        let store = client.portal_store();
        match statement {
            Statement::Declare { stmts } => Some(match plan(&self.engine, stmts).await {
                Ok(plan) => self.open(store, stmts, plan).await,
                Err(error) => Err(error),
            }),
            Statement::Fetch { name, direction, .. } => {
                let options = FormatOptions::from_client_metadata(client.metadata());
                Some(self.fetch(&name.value, direction, &Format::UnifiedText, options))
            }
            Statement::Close { cursor } => Some(self.close(store, cursor)),
            // The session answers these; here they only end cursors.
            Statement::Commit { .. } | Statement::Rollback { savepoint: None, .. } => {
                self.forget(store, |cursor| !cursor.is_held);
                None
            }
            Statement::Discard { .. } => {
                self.forget(store, |_| true);
                None
            }
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
        matches!(statement, Statement::Fetch { .. } | Statement::Close { .. }).then(|| Ok(LogicalPlan::default()))
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
