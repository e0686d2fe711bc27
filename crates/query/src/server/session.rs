//! What a connection may ask: log in, then simple and extended queries.

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{CopySource, Ident, Statement};
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion_postgres::hooks::set_show::SetShowHook;
use datafusion_postgres::hooks::transactions::TransactionStatementHook;
use datafusion_postgres::pgwire::api::auth::{
    DefaultServerParameterProvider, StartupHandler, finish_authentication, protocol_negotiation, save_startup_parameters_to_metadata,
};
use datafusion_postgres::pgwire::api::copy::CopyHandler;
use datafusion_postgres::pgwire::api::portal::{Format, Portal};
use datafusion_postgres::pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use datafusion_postgres::pgwire::api::results::{CopyResponse, DescribePortalResponse, FieldInfo, QueryResponse, Response, Tag};
use datafusion_postgres::pgwire::api::stmt::QueryParser;
use datafusion_postgres::pgwire::api::store::PortalStore;
use datafusion_postgres::pgwire::api::{
    ClientInfo, ClientPortalStore, METADATA_DATABASE, METADATA_USER, PgWireConnectionState, PidSecretKeyGenerator, Type,
};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::copy::{CopyData, CopyDone, CopyFail, CopyOutResponse};
use datafusion_postgres::pgwire::messages::response::TransactionStatus;
use datafusion_postgres::pgwire::messages::startup::Authentication;
use datafusion_postgres::pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use datafusion_postgres::pgwire::types::format::FormatOptions;
use datafusion_postgres::{DfSessionService, QueryHook};
use futures::{Sink, SinkExt, StreamExt};
use tokio::sync::OwnedSemaphorePermit;

use super::budget::Budget;
use super::copy::Form;
use super::copy::incoming::Incoming;
use super::cursors::{self, Cursors};
use super::housekeeping::Housekeeping;
use super::login::{Exchange, Step, refusal, scram_offer};
use super::sessions::{OpenSession, Opened, SIGNALS, Signals};
use super::{Auth, LoginError, Server, answer, binding};
use crate::dialect::calls;
use crate::engine::{CATALOG, Engine, check_plan};
use crate::error::QueryError;
use crate::guard::{Served, check_statement};
use crate::parameters::SERVER_VERSION;
use crate::sink::Sink as RowSink;

/// A statement as the protocol crate's service keeps it: text, then syntax and plan unless it is empty.
pub(super) type Prepared = (String, Option<(Statement, LogicalPlan)>);

/// One connection's state and handlers.
pub(super) struct Session {
    server: Arc<Server>,
    /// There was room for it.
    admitted: bool,
    exchange: tokio::sync::Mutex<Exchange>,
    /// Set by the login.
    ready: OnceLock<Arc<Ready>>,
    /// Rows that are arriving.
    incoming: tokio::sync::Mutex<Option<Incoming>>,
    signals: Arc<Signals>,
}

/// A session after the login.
struct Ready {
    engine: Arc<Engine>,
    service: DfSessionService,
    hooks: Vec<Arc<dyn QueryHook>>,
    cursors: Arc<Cursors>,
    sink: Option<Arc<dyn RowSink>>,
    /// Its place among the sessions of the role, and among the open ones.
    _place: OwnedSemaphorePermit,
    open: OpenSession,
}

impl Session {
    pub(super) fn new(server: Arc<Server>, admitted: bool) -> Self {
        Self {
            server,
            admitted,
            exchange: Default::default(),
            ready: OnceLock::new(),
            incoming: Default::default(),
            signals: Arc::default(),
        }
    }

    /// What others ask of this session.
    pub(super) fn signals(&self) -> &Signals {
        &self.signals
    }

    /// The rows that were arriving do not arrive any more.
    pub(super) async fn break_off_copy(&self) {
        self.incoming.lock().await.take();
    }

    /// The client has its answer: the session waits for the next statement.
    pub(super) fn rest(&self, transaction: TransactionStatus) {
        if let Some(ready) = self.ready.get() {
            ready.open.rest(transaction);
        }
    }

    fn ready(&self) -> PgWireResult<&Arc<Ready>> {
        self.ready.get().ok_or_else(|| user_error(fatal("28000", "not logged in")))
    }

    /// Makes the engine for a principal.
    fn open<C: ClientInfo>(&self, client: &C, principal: &str) -> PgWireResult<()> {
        let user = client.metadata().get(METADATA_USER).cloned().unwrap_or_default();
        let role = self.server.role(&user);
        let Ok(place) = role.sessions.clone().try_acquire_owned() else {
            let whose = role.name.as_ref().map(|name| format!(" for role \"{name}\"")).unwrap_or_default();
            return Err(user_error(fatal("53300", format!("too many connections{whose}: the limit is {}", role.limits.connections))));
        };
        let source = self.server.sources.source(principal);
        let sink = self.server.sources.sink(principal);
        let engine = Arc::new(Engine::sharing(source, principal, &role.shared).map_err(api_error)?);
        let (pid, key) = client.pid_and_secret_key();
        let opened = Opened {
            pid,
            key,
            user,
            principal: principal.to_owned(),
            address: client.socket_addr(),
            application: client.metadata().get("application_name").cloned(),
            parameters: engine.parameters().clone(),
        };
        let open = OpenSession::new(&self.server.open, opened, self.signals.clone(), self.server.sources.clone());
        open.register(engine.context());
        engine.show_sessions(open.view());
        let cursors = Arc::new(Cursors::new(engine.clone()));
        let hooks: Vec<Arc<dyn QueryHook>> = vec![
            // First: also what others answer may end cursors.
            cursors.clone(),
            Arc::new(Housekeeping { parameters: engine.parameters().clone() }),
            Arc::new(SetShowHook),
            Arc::new(TransactionStatementHook),
        ];
        let service = DfSessionService::new_with_hooks(engine.context().clone(), hooks.clone());
        let first = self.ready.set(Arc::new(Ready { engine, service, hooks, cursors, sink, _place: place, open })).is_ok();
        if first { Ok(()) } else { Err(user_error(fatal("08P01", "already logged in"))) }
    }

    /// The principal behind a user and a password.
    async fn check_password(&self, user: &str, password: String) -> PgWireResult<String> {
        let (auth, asked) = (self.server.auth.clone(), user.to_owned());
        let checked = tokio::task::spawn_blocking(move || auth.check(&asked, &password)).await;
        checked.unwrap_or_else(|e| Err(LoginError::Unavailable { reason: e.to_string() })).map_err(|e| refusal(user, &e))
    }

    fn check_startup<C: ClientInfo>(&self, client: &C) -> PgWireResult<String> {
        if !self.admitted {
            let limit: usize = self.server.roles.values().chain([&self.server.everybody]).map(|r| r.limits.connections).sum();
            return Err(user_error(fatal("53300", format!("too many connections: the limit is {limit}"))));
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
                let question = match self.server.auth {
                    Auth::Trust => None,
                    Auth::Password(_) => Some(Authentication::CleartextPassword),
                    Auth::Scram(_) => Some(scram_offer()),
                };
                if let Some(question) = question {
                    client.set_state(PgWireConnectionState::AuthenticationInProgress);
                    client.send(PgWireBackendMessage::Authentication(question)).await?;
                    return Ok(());
                }
                user
            }
            PgWireFrontendMessage::PasswordMessageFamily(message) => {
                let user = client.metadata().get(METADATA_USER).cloned().unwrap_or_default();
                match &self.server.auth {
                    Auth::Trust => return Err(user_error(fatal("08P01", "no password was asked for"))),
                    Auth::Password(_) => self.check_password(&user, message.into_password()?.password).await?,
                    Auth::Scram(lookup) => match self.exchange.lock().await.step(&user, message, lookup).await? {
                        Step::Ask(question) => {
                            client.send(PgWireBackendMessage::Authentication(question)).await?;
                            return Ok(());
                        }
                        Step::LetIn(proof, principal) => {
                            client.feed(PgWireBackendMessage::Authentication(proof)).await?;
                            principal
                        }
                    },
                }
            }
            _ => return Err(user_error(fatal("08P01", "expected a startup message"))),
        };
        let (pid, key) = self.server.pids.generate(client);
        client.set_pid_and_secret_key(pid, key);
        self.open(client, &principal)?;
        let mut parameters = DefaultServerParameterProvider::default();
        parameters.server_version = SERVER_VERSION.to_owned();
        parameters.is_superuser = false;
        parameters.default_transaction_read_only = self.ready()?.sink.is_none();
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
        ready.open.begin(text);
        let statements = ready.engine.parse(text).map_err(api_error)?;
        if statements.is_empty() {
            return Ok(vec![Response::EmptyQuery]);
        }
        let alone = statements.len() == 1;
        let mut responses = Vec::new();
        for statement in statements {
            if check_statement(&statement).map_err(api_error)? == Served::Copy {
                if !alone {
                    return Err(api_error(QueryError::Copy { reason: "send it by itself, not together with other statements".to_owned() }));
                }
                return Ok(self.copy(ready, client, statement).await?.into_iter().collect());
            }
            let budget = Budget::of(&ready.engine, client);
            let signals = calls(&statement, &SIGNALS);
            let response = budget.bound(ready.answer(client, statement)).await?;
            responses.push(if signals { ready.warned(client, budget, response).await? } else { budget.bound_rows(response) });
        }
        Ok(responses)
    }
}

impl Ready {
    /// Tells the client of what the statement warns before its rows: such warnings are known when there are rows.
    async fn warned<C>(&self, client: &mut C, budget: Budget, response: Response) -> PgWireResult<Response>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let Response::Query(query) = response else { return Ok(response) };
        let QueryResponse { command_tag, row_schema, data_rows, .. } = budget.bound_query(query);
        let mut data_rows = data_rows.fuse();
        let first = data_rows.next().await;
        for warning in self.open.warnings() {
            let notice = ErrorInfo::new("WARNING".to_owned(), "01000".to_owned(), warning);
            client.feed(PgWireBackendMessage::NoticeResponse(notice.into())).await?;
        }
        let mut query = QueryResponse::new(row_schema, futures::stream::iter(first).chain(data_rows));
        query.set_command_tag(&command_tag);
        Ok(Response::Query(query))
    }

    async fn answer<C>(&self, client: &mut C, statement: Statement) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let served = check_statement(&statement).map_err(api_error)?;
        for hook in &self.hooks {
            if let Some(response) = hook.handle_simple_query(&statement, self.engine.context(), client).await {
                return response;
            }
        }
        if served != Served::Engine {
            return Err(api_error(QueryError::ReadOnly { statement: statement.to_string() }));
        }
        let frame = self.engine.frame(statement).await.map_err(api_error)?;
        Ok(Response::Query(answer::rows(frame, &Format::UnifiedText, FormatOptions::from_client_metadata(client.metadata())).await?))
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
        let Ready { engine, service, open, .. } = &*self.0;
        open.begin(text);
        let statement = engine.parse_one(text).map_err(api_error)?;
        if check_statement(&statement).map_err(api_error)? == Served::Copy {
            return Err(api_error(QueryError::Copy { reason: "it cannot be prepared; send it as a simple query".to_owned() }));
        }
        if check_statement(&statement).map_err(api_error)? == Served::Engine {
            let planned = async { engine.plan(statement.clone()).await.map_err(api_error) };
            let plan = Budget::of(engine, client).bound(planned).await?;
            let plan = binding::typed(plan, types)?;
            return Ok(Some((text.to_owned(), Some((statement, plan)))));
        }
        if let Statement::Declare { stmts } = &statement {
            let plan = Budget::of(engine, client).bound(cursors::plan(engine, stmts)).await?;
            let plan = binding::typed(plan, types)?;
            return Ok(Some((text.to_owned(), Some((statement, plan)))));
        }
        let prepared = Budget::of(engine, client).bound(service.query_parser().parse_sql(client, text, types)).await?;
        if let Some((_, Some((_, plan)))) = &prepared {
            check_plan(plan).map_err(api_error)?;
        }
        Ok(prepared)
    }

    fn get_parameter_types(&self, statement: &Prepared) -> PgWireResult<Vec<Type>> {
        self.0.service.query_parser().get_parameter_types(statement)
    }

    fn get_result_schema(&self, statement: &Prepared, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        match statement {
            (_, Some((ast, plan))) if matches!(check_statement(ast), Ok(Served::Engine)) => {
                answer::fields(plan.schema().as_arrow(), format.unwrap_or(&Format::UnifiedText), None)
            }
            // The plan is that of the cursor.
            (_, Some((Statement::Declare { .. }, _))) => Ok(Vec::new()),
            _ => self.0.service.query_parser().get_result_schema(statement, format),
        }
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

    async fn do_describe_portal<C>(&self, _client: &mut C, portal: &Portal<Prepared>) -> PgWireResult<DescribePortalResponse>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let prepared = &portal.statement.statement;
        let cursors = &self.ready()?.cursors;
        let fetched = prepared.1.as_ref().and_then(|(statement, _)| cursors.fields(statement, &portal.result_column_format));
        let fields = fetched.unwrap_or_else(|| self.query_parser().get_result_schema(prepared, Some(&portal.result_column_format)));
        Ok(DescribePortalResponse::new(fields?))
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
        let prepared = &portal.statement.statement;
        ready.open.begin(&prepared.0);
        let response = match prepared {
            (_, Some((ast, plan))) if matches!(check_statement(ast), Ok(Served::Engine)) => {
                let wire_types = ready.service.query_parser().get_parameter_types(prepared)?;
                let plan = binding::bound(plan, portal, &wire_types)?;
                let options = FormatOptions::from_client_metadata(client.metadata());
                let started = async {
                    let frame = ready.engine.framed(plan).await.map_err(api_error)?;
                    answer::rows(frame, &portal.result_column_format, options).await.map(Response::Query)
                };
                budget.bound(started).await?
            }
            (_, Some((Statement::Declare { stmts }, plan))) => {
                let wire_types = ready.service.query_parser().get_parameter_types(prepared)?;
                let plan = binding::bound(plan, portal, &wire_types)?;
                budget.bound(ready.cursors.open(client.portal_store(), stmts, plan)).await?
            }
            (_, Some((Statement::Fetch { name, direction, .. }, _))) => {
                let options = FormatOptions::from_client_metadata(client.metadata());
                ready.cursors.fetch(&name.value, direction, &portal.result_column_format, options)?
            }
            _ => budget.bound(ExtendedQueryHandler::do_query(&ready.service, client, portal, max_rows)).await?,
        };
        match prepared {
            (_, Some((ast, _))) if calls(ast, &SIGNALS) => ready.warned(client, budget, response).await,
            _ => Ok(budget.bound_rows(response)),
        }
    }
}

/// COPY.
impl Session {
    /// Sends the rows, or gets ready to receive some. The rows are sent here and not by the protocol crate, which would tell of an error in words that
    /// only a client may use.
    async fn copy<C>(&self, ready: &Arc<Ready>, client: &mut C, statement: Statement) -> PgWireResult<Option<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let Statement::Copy { source, to, options, legacy_options, .. } = statement else {
            return Err(api_error(QueryError::ReadOnly { statement: statement.to_string() }));
        };
        let form = Form::of(&options, &legacy_options).map_err(api_error)?;
        if !to {
            let CopySource::Table { table_name, columns } = source else {
                return Err(api_error(QueryError::Copy { reason: "rows go into a table, not into a query".to_owned() }));
            };
            let Some(sink) = ready.sink.clone() else {
                return Err(api_error(QueryError::ReadOnly { statement: "COPY FROM".to_owned() }));
            };
            let table = name_of(table_name.0.last().and_then(|part| part.as_ident()));
            let columns: Vec<String> = columns.iter().map(|c| name_of(Some(c))).collect();
            let (entity_type, table) = ready.engine.tables().history_table(&table).map_err(api_error)?;
            let incoming = Incoming::new(sink, entity_type, &table.schema(), &columns, form).map_err(api_error)?;
            let n_columns = incoming.n_columns();
            *self.incoming.lock().await = Some(incoming);
            return Ok(Some(Response::CopyIn(CopyResponse::new(0, n_columns, futures::stream::empty()))));
        }

        let query = match source {
            CopySource::Query(query) => Statement::Query(query),
            CopySource::Table { table_name, columns } => {
                let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
                let columns = if columns.is_empty() { "*".to_owned() } else { columns.join(", ") };
                ready.engine.parse_one(&format!("select {columns} from {table_name}")).map_err(api_error)?
            }
        };
        let budget = Budget::of(&ready.engine, client);
        let Response::Query(query) = budget.bound(ready.answer(client, query)).await? else {
            return Err(api_error(QueryError::Copy { reason: "only the rows of a query can be copied".to_owned() }));
        };
        let mut query = budget.bound_query(query);
        let n_columns = query.row_schema.len();
        let formats = vec![0; n_columns];
        let n_told = i16::try_from(n_columns).map_err(|_| api_error(QueryError::Copy { reason: "too many columns".to_owned() }))?;
        client.send(PgWireBackendMessage::CopyOutResponse(CopyOutResponse::new(0, n_told, formats))).await?;
        if form.header {
            let line = form.header_line(query.row_schema.iter().map(FieldInfo::name));
            client.feed(PgWireBackendMessage::CopyData(CopyData::new(line.into()))).await?;
        }
        let mut n_rows = 0;
        while let Some(row) = query.data_rows.next().await {
            let line = form.line(&row?).ok_or_else(|| user_error(fatal("XX000", "a row that is none")))?;
            client.feed(PgWireBackendMessage::CopyData(CopyData::new(line.into()))).await?;
            n_rows += 1;
        }
        client.feed(PgWireBackendMessage::CopyDone(CopyDone::new())).await?;
        client.send(PgWireBackendMessage::CommandComplete(Tag::new("COPY").with_rows(n_rows).into())).await?;
        Ok(None)
    }
}

/// A name as the engine understands it: small letters unless it is quoted.
fn name_of(ident: Option<&Ident>) -> String {
    ident.map_or_else(String::new, |i| if i.quote_style.is_some() { i.value.clone() } else { i.value.to_lowercase() })
}

#[async_trait]
impl CopyHandler for Session {
    async fn on_copy_data<C>(&self, _client: &mut C, piece: CopyData) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if let Some(incoming) = &mut *self.incoming.lock().await {
            incoming.data(&piece.data).await;
        }
        Ok(())
    }

    async fn on_copy_done<C>(&self, client: &mut C, _done: CopyDone) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let Some(incoming) = self.incoming.lock().await.take() else {
            return Err(user_error(fatal("08P01", "no COPY is in progress")));
        };
        let n_rows = incoming.finish().await.map_err(api_error)?;
        let n_rows = usize::try_from(n_rows).unwrap_or(usize::MAX);
        client.send(PgWireBackendMessage::CommandComplete(Tag::new("COPY").with_rows(n_rows).into())).await?;
        Ok(())
    }

    async fn on_copy_fail<C>(&self, _client: &mut C, fail: CopyFail) -> PgWireError
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let n_recorded = self.incoming.lock().await.take().map_or(0, |i| i.n_recorded());
        let what = format!("COPY was ended by the client: {}; {n_recorded} rows are recorded", fail.message);
        user_error(ErrorInfo::new("ERROR".to_owned(), "57014".to_owned(), what))
    }
}

pub(super) fn api_error(error: QueryError) -> PgWireError {
    PgWireError::ApiError(Box::new(error))
}

pub(super) fn user_error(info: ErrorInfo) -> PgWireError {
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
