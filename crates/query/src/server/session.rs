//! What a connection may ask: log in, then simple and extended queries.

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::Statement;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion_postgres::arrow_pg::datatypes::df::encode_dataframe;
use datafusion_postgres::hooks::cursor::CursorStatementHook;
use datafusion_postgres::hooks::set_show::SetShowHook;
use datafusion_postgres::hooks::transactions::TransactionStatementHook;
use datafusion_postgres::pgwire::api::auth::{
    DefaultServerParameterProvider, StartupHandler, finish_authentication, protocol_negotiation, save_startup_parameters_to_metadata,
};
use datafusion_postgres::pgwire::api::portal::{Format, Portal};
use datafusion_postgres::pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use datafusion_postgres::pgwire::api::results::{FieldInfo, QueryResponse, Response};
use datafusion_postgres::pgwire::api::stmt::QueryParser;
use datafusion_postgres::pgwire::api::store::PortalStore;
use datafusion_postgres::pgwire::api::{
    ClientInfo, ClientPortalStore, ConnectionGuard, ConnectionHandle, METADATA_DATABASE, METADATA_USER, PgWireConnectionState,
    PidSecretKeyGenerator, RandomPidSecretKeyGenerator, Type,
};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::startup::Authentication;
use datafusion_postgres::pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use datafusion_postgres::pgwire::types::format::FormatOptions;
use datafusion_postgres::{DfSessionService, QueryHook};
use futures::channel::oneshot;
use futures::{Sink, SinkExt, StreamExt};
use tokio::time::Instant;

use super::housekeeping::Housekeeping;
use super::{Auth, LoginError, Server};
use crate::engine::{CATALOG, Engine, check_plan};
use crate::error::QueryError;
use crate::guard::{Served, check_statement};

/// A statement as the protocol crate's service keeps it: text, then syntax and plan unless it is empty.
type Prepared = (String, Option<(Statement, LogicalPlan)>);

/// The version of PostgreSQL whose catalogs are imitated, by which clients decide what to ask, and ours.
pub(super) const SERVER_VERSION: &str = concat!("16.6 (conurb ", env!("CARGO_PKG_VERSION"), ")");

/// Where the protocol crate keeps the time limit that a client asked for with `SET statement_timeout`, in milliseconds.
const CLIENT_LIMIT_KEY: &str = "statement_timeout_ms";

/// One connection's state and handlers.
pub(super) struct Session {
    server: Arc<Server>,
    /// There was room for it.
    admitted: bool,
    /// Set by the login.
    ready: OnceLock<Arc<Ready>>,
}

/// A session after the login.
struct Ready {
    engine: Arc<Engine>,
    service: DfSessionService,
    hooks: Vec<Arc<dyn QueryHook>>,
}

impl Session {
    pub(super) fn new(server: Arc<Server>, admitted: bool) -> Self {
        Self { server, admitted, ready: OnceLock::new() }
    }

    fn ready(&self) -> PgWireResult<&Arc<Ready>> {
        self.ready.get().ok_or_else(|| user_error(fatal("28000", "not logged in")))
    }

    /// Makes the engine for a principal.
    fn open(&self, principal: &str) -> PgWireResult<()> {
        let source = self.server.sources.source(principal);
        let engine = Arc::new(Engine::sharing(source, principal, &self.server.shared).map_err(api_error)?);
        let hooks: Vec<Arc<dyn QueryHook>> =
            vec![Arc::new(Housekeeping), Arc::new(CursorStatementHook), Arc::new(SetShowHook), Arc::new(TransactionStatementHook)];
        let service = DfSessionService::new_with_hooks(engine.context().clone(), hooks.clone());
        let first = self.ready.set(Arc::new(Ready { engine, service, hooks })).is_ok();
        if first { Ok(()) } else { Err(user_error(fatal("08P01", "already logged in"))) }
    }

    /// The principal behind a user and a password.
    async fn check_password(&self, user: &str, password: String) -> PgWireResult<String> {
        let Auth::Password(check) = &self.server.auth else {
            return Err(user_error(fatal("08P01", "no password was asked for")));
        };
        let (check, asked) = (check.clone(), user.to_owned());
        let checked = tokio::task::spawn_blocking(move || check(&asked, &password)).await;
        match checked.unwrap_or_else(|e| Err(LoginError::Unavailable { reason: e.to_string() })) {
            Ok(principal) => Ok(principal),
            Err(LoginError::Refused) => {
                tracing::warn!(user, "SQL login refused");
                Err(user_error(fatal("28P01", format!("password authentication failed for user \"{user}\""))))
            }
            Err(error @ LoginError::Unavailable { .. }) => {
                tracing::warn!(user, %error, "SQL login impossible");
                Err(user_error(fatal("58000", error.to_string())))
            }
        }
    }

    fn check_startup<C: ClientInfo>(&self, client: &C) -> PgWireResult<String> {
        let limits = &self.server.limits;
        if !self.admitted {
            return Err(user_error(fatal("53300", format!("too many connections: the limit is {}", limits.connections))));
        }
        let user = client.metadata().get(METADATA_USER).filter(|u| !u.is_empty()).cloned();
        let user = user.ok_or_else(|| user_error(fatal("28000", "no user name in the startup message")))?;
        // A client that names no database means the one with its user's name.
        let database = client.metadata().get(METADATA_DATABASE).unwrap_or(&user);
        if database != CATALOG {
            return Err(user_error(fatal("3D000", format!("database \"{database}\" does not exist (expected \"{CATALOG}\")"))));
        }
        let exposed = !client.is_secure() && !client.socket_addr().ip().is_loopback();
        if exposed && self.server.tls.is_some() && matches!(self.server.auth, Auth::Password(_)) {
            return Err(user_error(fatal("28000", "a password may only be sent inside TLS from another machine (sslmode=require)")));
        }
        Ok(user)
    }
}

#[async_trait]
impl StartupHandler for Session {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let principal = match message {
            PgWireFrontendMessage::Startup(ref startup) => {
                protocol_negotiation(client, startup).await?;
                save_startup_parameters_to_metadata(client, startup);
                let user = self.check_startup(client)?;
                if let Auth::Password(_) = self.server.auth {
                    client.set_state(PgWireConnectionState::AuthenticationInProgress);
                    client.send(PgWireBackendMessage::Authentication(Authentication::CleartextPassword)).await?;
                    return Ok(());
                }
                user
            }
            PgWireFrontendMessage::PasswordMessageFamily(message) => {
                let user = client.metadata().get(METADATA_USER).cloned().unwrap_or_default();
                self.check_password(&user, message.into_password()?.password).await?
            }
            _ => return Err(user_error(fatal("08P01", "expected a startup message"))),
        };
        self.open(&principal)?;
        let (pid, key) = RandomPidSecretKeyGenerator::default().generate(client);
        client.set_pid_and_secret_key(pid, key.clone());
        let (handle, guard) = self.server.manager.register(pid, key);
        client.session_extensions().insert::<Arc<ConnectionHandle>>(handle);
        client.session_extensions().insert::<ConnectionGuard>(guard);
        let mut parameters = DefaultServerParameterProvider::default();
        parameters.server_version = SERVER_VERSION.to_owned();
        parameters.is_superuser = false;
        parameters.default_transaction_read_only = true;
        tracing::debug!(principal, peer = %client.socket_addr(), "SQL session opened");
        finish_authentication(client, &parameters).await
    }
}

#[async_trait]
impl SimpleQueryHandler for Session {
    async fn do_query<C>(&self, client: &mut C, text: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let ready = self.ready()?;
        let statements = ready.engine.parse(text).map_err(api_error)?;
        if statements.is_empty() {
            return Ok(vec![Response::EmptyQuery]);
        }
        let mut responses = Vec::new();
        for statement in statements {
            let budget = Budget::of(&ready.engine, client);
            let response = budget.bound(ready.answer(client, statement)).await?;
            responses.push(budget.bound_rows(client, response));
        }
        Ok(responses)
    }
}

impl Ready {
    async fn answer<C>(&self, client: &mut C, statement: Statement) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let served = check_statement(&statement).map_err(api_error)?;
        self.check_cursors(&statement).await?;
        for hook in &self.hooks {
            if let Some(response) = hook.handle_simple_query(&statement, self.engine.context(), client).await {
                return response;
            }
        }
        if served == Served::Session {
            return Err(api_error(QueryError::ReadOnly { statement: statement.to_string() }));
        }
        let frame = self.engine.frame(statement).await.map_err(api_error)?;
        let format = Arc::new(FormatOptions::from_client_metadata(client.metadata()));
        Ok(Response::Query(encode_dataframe(frame, &Format::UnifiedText, Some(format)).await?))
    }

    /// The hook for cursors plans their queries without asking: they pass both gates here.
    async fn check_cursors(&self, statement: &Statement) -> PgWireResult<()> {
        if let Statement::Declare { stmts } = statement {
            for query in stmts.iter().filter_map(|d| d.for_query.clone()) {
                let query = Statement::Query(query);
                check_statement(&query).map_err(api_error)?;
                self.engine.frame(query).await.map_err(api_error)?;
            }
        }
        Ok(())
    }
}

/// Prepares statements; both gates are here.
pub(super) struct Preparer(Arc<Ready>);

#[async_trait]
impl QueryParser for Preparer {
    type Statement = Prepared;

    async fn parse_sql<C>(&self, client: &C, text: &str, types: &[Option<Type>]) -> PgWireResult<Option<Prepared>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let Ready { engine, service, .. } = &*self.0;
        let statement = engine.parse_one(text).map_err(api_error)?;
        check_statement(&statement).map_err(api_error)?;
        self.0.check_cursors(&statement).await?;
        let prepare = service.query_parser();
        let prepared = Budget::of(engine, client).bound(prepare.parse_sql(client, text, types)).await?;
        if let Some((_, Some((_, plan)))) = &prepared {
            check_plan(plan).map_err(api_error)?;
        }
        Ok(prepared)
    }

    fn get_parameter_types(&self, statement: &Prepared) -> PgWireResult<Vec<Type>> {
        self.0.service.query_parser().get_parameter_types(statement)
    }

    fn get_result_schema(&self, statement: &Prepared, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        self.0.service.query_parser().get_result_schema(statement, format)
    }
}

#[async_trait]
impl ExtendedQueryHandler for Session {
    type Statement = Prepared;
    type QueryParser = Preparer;

    fn query_parser(&self) -> Arc<Preparer> {
        // The connection's loop sends queries here only after the login.
        Arc::new(Preparer(self.ready.get().expect("logged in").clone()))
    }

    async fn do_query<C>(&self, client: &mut C, portal: &Portal<Prepared>, max_rows: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let ready = self.ready()?;
        let budget = Budget::of(&ready.engine, client);
        let response = budget.bound(ExtendedQueryHandler::do_query(&ready.service, client, portal, max_rows)).await?;
        Ok(budget.bound_rows(client, response))
    }
}

/// The time the engine may work on a statement.
#[derive(Clone, Copy)]
struct Budget {
    limit: Duration,
}

impl Budget {
    /// The server's limit, or a shorter one that the client asked for.
    fn of<C: ClientInfo>(engine: &Engine, client: &C) -> Self {
        let asked = client.metadata().get(CLIENT_LIMIT_KEY).and_then(|ms| ms.parse().ok()).filter(|&ms| ms > 0);
        let limit = engine.statement_time();
        Self { limit: asked.map_or(limit, |ms| limit.min(Duration::from_millis(ms))) }
    }

    async fn bound<T>(self, work: impl Future<Output = PgWireResult<T>>) -> PgWireResult<T> {
        let in_time = tokio::time::timeout(self.limit, work).await;
        in_time.unwrap_or_else(|_| Err(api_error(QueryError::Timeout { limit: self.limit })))
    }

    /// Bounds the work on the rows as well, and lets it be cancelled: rows are computed while they are sent.
    fn bound_rows<C: ClientInfo>(self, client: &C, response: Response) -> Response {
        let Response::Query(QueryResponse { command_tag, row_schema, data_rows, .. }) = response else { return response };
        let rows = Rows {
            rows: data_rows,
            left: self.limit,
            handle: client.session_extensions().get::<Arc<ConnectionHandle>>().map(|h| Arc::clone(&*h)),
            cancelled: None,
        };
        let bounded = futures::stream::unfold(Some(rows), move |rows| async move {
            let mut rows = rows?;
            match rows.next(self.limit).await {
                Some(Ok(row)) => Some((Ok(row), Some(rows))),
                // Nothing follows an error.
                Some(Err(error)) => Some((Err(error), None)),
                None => None,
            }
        });
        let mut response = QueryResponse::new(row_schema, bounded);
        response.set_command_tag(&command_tag);
        Response::Query(response)
    }
}

/// The rows of an answer, computed while they are fetched.
struct Rows<S> {
    rows: S,
    left: Duration,
    handle: Option<Arc<ConnectionHandle>>,
    cancelled: Option<oneshot::Receiver<()>>,
}

impl<S, T> Rows<S>
where
    S: futures::Stream<Item = PgWireResult<T>> + Unpin,
{
    async fn next(&mut self, limit: Duration) -> Option<PgWireResult<T>> {
        if let Some(handle) = self.handle.take() {
            // Only now: the protocol crate listens for the same signal until the statement has been planned.
            self.cancelled = Some(handle.start_query().await);
        }
        let started = Instant::now();
        let cancelled = async {
            let signalled = match &mut self.cancelled {
                Some(signal) => signal.await.is_ok(),
                None => false,
            };
            // An error says that another statement listens now: this one can no longer be cancelled.
            if !signalled {
                std::future::pending::<()>().await;
            }
        };
        let row = tokio::select! {
            biased;
            row = tokio::time::timeout(self.left, self.rows.next()) => row,
            () = cancelled => return Some(Err(PgWireError::QueryCanceled)),
        };
        self.left = self.left.saturating_sub(started.elapsed());
        row.unwrap_or_else(|_| Some(Err(api_error(QueryError::Timeout { limit }))))
    }
}

fn api_error(error: QueryError) -> PgWireError {
    PgWireError::ApiError(Box::new(error))
}

fn user_error(info: ErrorInfo) -> PgWireError {
    PgWireError::UserError(Box::new(info))
}

/// An error that ends the connection.
pub(super) fn fatal(sqlstate: &str, message: impl Into<String>) -> ErrorInfo {
    ErrorInfo::new("FATAL".to_owned(), sqlstate.to_owned(), message.into())
}

/// What the client is told.
pub(super) fn error_info(error: PgWireError) -> ErrorInfo {
    let PgWireError::ApiError(inner) = error else { return error.into() };
    let error = match inner.downcast::<QueryError>() {
        Ok(own) => *own,
        Err(other) => match other.downcast::<DataFusionError>() {
            Ok(engine) => QueryError::from(*engine),
            Err(other) => match other.downcast::<ParserError>() {
                Ok(syntax) => QueryError::Syntax { reason: syntax.to_string() },
                Err(other) => QueryError::Engine(Box::new(DataFusionError::External(other))),
            },
        },
    };
    if error.sqlstate() == "XX000" {
        tracing::error!(error = &error as &dyn std::error::Error, "an SQL statement failed inside the engine");
    }
    let mut info = ErrorInfo::new("ERROR".to_owned(), error.sqlstate().to_owned(), error.to_string());
    info.detail = match &error {
        QueryError::History(cause) => Some(cause.to_string()),
        _ => None,
    };
    info
}
