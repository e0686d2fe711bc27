//! SQL over one source, in process.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList};
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, GreedyMemoryPool, MemoryPool};
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{LogicalPlan, Volatility, create_udf};
use datafusion::object_store::ObjectStore;
use datafusion::physical_plan::ColumnarValue;
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use datafusion::sql::parser::Statement as EngineStatement;
use datafusion::sql::sqlparser::ast::Statement;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::setup_pg_catalog;
use url::Url;

use crate::Source;
use crate::catalog::system::{Statics, SystemSchema};
use crate::catalog::{Activities, Directory, Tables, functions};
use crate::dialect::{Dialect, TruthTexts, shown_batch};
use crate::error::QueryError;
use crate::groups;
use crate::guard::{Served, check_statement, check_text};
use crate::parameters::Parameters;
use crate::system_time;
use crate::threads::Threads;

/// Name of the catalog: what `psql -d` names.
pub(crate) const CATALOG: &str = "conurb";
/// Name of the schema with the tables.
pub(crate) const SCHEMA: &str = "public";

/// What one statement, one session and all sessions together may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// How long the engine may work on one statement; time the client takes to fetch rows does not count. A client may ask for less.
    pub statement_time: Duration,
    /// Memory for sorts, joins, aggregates and history in flight, all sessions together, in bytes.
    pub memory_bytes: usize,
    /// Sessions at a time.
    pub connections: usize,
    /// Disk for what does not fit the memory, all sessions together, in bytes; 0 refuses such statements instead.
    pub spill_bytes: u64,
}

impl Default for Limits {
    /// 30 s, 256 MiB, 64 sessions, 4 GiB of disk.
    fn default() -> Self {
        Self { statement_time: Duration::from_secs(30), memory_bytes: 256 << 20, connections: 64, spill_bytes: 4 << 30 }
    }
}

/// What all sessions of a server share: the memory they may use, and what is the same in each and takes time to make.
pub(crate) struct Shared {
    /// A session without tables.
    template: SessionState,
    statics: Arc<Statics>,
    dialect: Arc<Dialect>,
    statement_time: Duration,
    threads: Arc<Threads>,
}

impl Shared {
    /// With limits of its own. Without a folder, what does not fit the memory is refused instead of written to a disk.
    pub(crate) fn new(limits: &Limits, spill_folder: Option<&Path>, threads: Arc<Threads>) -> Result<Self, QueryError> {
        let spill_folder = spill_folder.filter(|_| limits.spill_bytes > 0);
        let pool: Arc<dyn MemoryPool> = match spill_folder {
            // Shares the memory between the operators that can go on with less, so that each of them can.
            Some(_) => Arc::new(FairSpillPool::new(limits.memory_bytes)),
            None => Arc::new(GreedyMemoryPool::new(limits.memory_bytes)),
        };
        let disk = match spill_folder {
            Some(folder) => DiskManagerBuilder::default()
                .with_mode(DiskManagerMode::Directories(vec![folder.to_owned()]))
                .with_max_temp_directory_size(limits.spill_bytes),
            None => DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled),
        };
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(pool)
            .with_disk_manager_builder(disk)
            .with_object_store_registry(Arc::new(NoObjectStores))
            .build_arc()?;
        let mut config = SessionConfig::new()
            .with_default_catalog_and_schema(CATALOG, SCHEMA)
            .with_create_default_catalog_and_schema(false)
            // The engine's own one calls types by the engine's names.
            .with_information_schema(false);
        let options = config.options_mut();
        options.execution.time_zone = Some("+00:00".to_owned());
        options.sql_parser.map_string_types_to_utf8view = false;
        let mut builder = SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features();
        builder.expr_planners().get_or_insert_default().push(Arc::new(TruthTexts));
        let state = crate::time::configure(builder)
            // The features above bring readers and writers of files, which no statement may reach.
            .with_table_factories(HashMap::new())
            .with_file_formats(Vec::new())
            .with_analyzer_rule(Arc::new(crate::floats::Rewrite::default()))
            .build();
        let context = SessionContext::new_with_state(state);
        context.register_catalog(CATALOG, Arc::new(MemoryCatalogProvider::new()));
        setup_pg_catalog(&context, CATALOG, EmptyContextProvider).map_err(|e| *e)?;
        crate::geometry::register(&context)?;
        crate::time::register(&context);
        functions::register_common(&context);
        let template = context.state();
        Ok(Self {
            statics: Arc::new(Statics::new(&template)?),
            template,
            dialect: Arc::default(),
            statement_time: limits.statement_time,
            threads,
        })
    }

    /// Threads for one server or engine.
    ///
    /// Errors: [`QueryError::Engine`] if the machine has none to give.
    pub(crate) fn threads() -> Result<Arc<Threads>, QueryError> {
        Ok(Arc::new(Threads::start().map_err(DataFusionError::IoError)?))
    }
}

/// The engine's own registry opens local files and addresses on demand; this one opens nothing.
#[derive(Debug)]
struct NoObjectStores;

impl ObjectStoreRegistry for NoObjectStores {
    fn register_store(&self, _url: &Url, _store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, url: &Url) -> datafusion::error::Result<Arc<dyn ObjectStore>> {
        Err(DataFusionError::Plan(format!("`{}` is outside of this database: files and addresses cannot be read by SQL", url.scheme())))
    }
}

/// Answers SQL over one [`Source`].
///
/// ```no_run
/// # async fn example(source: std::sync::Arc<dyn query::Source>) -> Result<(), query::QueryError> {
/// let engine = query::Engine::new(source, &query::Limits::default())?;
/// let batches = engine.sql(r#"select count(*) from "AirQualityObserved" where pm25 > 40"#).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Engine {
    context: Arc<SessionContext>,
    tables: Arc<Tables>,
    parameters: Parameters,
    sessions: Arc<OnceLock<Arc<dyn Activities>>>,
    dialect: Arc<Dialect>,
    statement_time: Duration,
    threads: Arc<Threads>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("statement_time", &self.statement_time).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine of its own, with its own memory. `limits.connections` is the server's affair and not looked at.
    ///
    /// Errors: [`QueryError::Engine`] if the SQL engine cannot be set up.
    pub fn new(source: Arc<dyn Source>, limits: &Limits) -> Result<Self, QueryError> {
        Self::sharing(source, "conurb", &Shared::new(limits, None, Shared::threads()?)?)
    }

    /// An engine for a principal that shares memory with others.
    pub(crate) fn sharing(source: Arc<dyn Source>, principal: &str, shared: &Shared) -> Result<Self, QueryError> {
        let list: Arc<dyn CatalogProviderList> = Arc::new(MemoryCatalogProviderList::new());
        let state = SessionStateBuilder::new_from_existing(shared.template.clone()).with_catalog_list(list.clone()).build();
        let context = SessionContext::new_with_state(state);
        let tables = Arc::new(Tables { source });
        let catalog = Arc::new(MemoryCatalogProvider::new());
        catalog.register_schema(SCHEMA, tables.clone())?;
        list.register_catalog(CATALOG.to_owned(), catalog.clone());
        let directory = Arc::new(Directory::new(tables.clone()));
        let parameters = Parameters::default();
        let sessions = Arc::new(OnceLock::new());
        for (name, is_information_schema) in [("pg_catalog", false), ("information_schema", true)] {
            let (statics, directory, parameters) = (shared.statics.clone(), directory.clone(), parameters.clone());
            let (principal, sessions) = (principal.to_owned(), sessions.clone());
            let schema = SystemSchema { is_information_schema, statics, directory, parameters, principal, sessions };
            catalog.register_schema(name, Arc::new(schema))?;
        }
        functions::register(&context, &directory, &shared.statics);
        parameters.register(&context);
        system_time::register(&context, &tables);
        groups::function::register(&context, &tables);
        name_principal(&context, principal);
        Ok(Self {
            context: Arc::new(context),
            tables,
            parameters,
            sessions,
            dialect: shared.dialect.clone(),
            statement_time: shared.statement_time,
            threads: shared.threads.clone(),
        })
    }

    /// Answers one statement that reads, on threads of the engine's own.
    ///
    /// Errors: [`QueryError`]; a statement that writes is [`QueryError::ReadOnly`].
    /// Cost: holds the whole answer in memory.
    pub async fn sql(&self, text: &str) -> Result<Vec<RecordBatch>, QueryError> {
        let (engine, text) = (self.clone(), text.to_owned());
        self.threads.run(async move { engine.answer(&text).await }).await
    }

    async fn answer(&self, text: &str) -> Result<Vec<RecordBatch>, QueryError> {
        let statement = self.parse_one(text)?;
        if check_statement(&statement)? != Served::Engine {
            return Err(QueryError::ReadOnly { statement: statement.to_string() });
        }
        let answer = async {
            let batches = self.frame(statement).await?.collect().await?;
            Ok(batches.iter().map(shown_batch).collect::<Result<_, _>>().map_err(DataFusionError::from)?)
        };
        let in_time = tokio::time::timeout(self.statement_time, answer).await;
        in_time.map_err(|_| QueryError::Timeout { limit: self.statement_time })?
    }

    /// The statements of a text, each let in by [`check_statement`] afterwards.
    pub(crate) fn parse(&self, text: &str) -> Result<Vec<Statement>, QueryError> {
        check_text(text)?;
        let text = system_time::rewrite(text)?;
        self.dialect.parse(&text).map_err(|e| QueryError::Syntax { reason: e.to_string() })
    }

    /// The only statement of a text.
    pub(crate) fn parse_one(&self, text: &str) -> Result<Statement, QueryError> {
        let mut statements = self.parse(text)?;
        match statements.len() {
            1 => Ok(statements.remove(0)),
            n => Err(QueryError::Syntax { reason: format!("expected one statement, found {n}") }),
        }
    }

    /// The answer to a statement that was let in, not yet executed.
    pub(crate) async fn frame(&self, statement: Statement) -> Result<DataFrame, QueryError> {
        let plan = self.plan(statement).await?;
        self.framed(plan).await
    }

    /// The plan of a statement that was let in.
    pub(crate) async fn plan(&self, statement: Statement) -> Result<LogicalPlan, QueryError> {
        let plan = self.context.state().statement_to_plan(EngineStatement::Statement(Box::new(statement))).await?;
        let plan = crate::geometry::settle(plan)?;
        check_plan(&plan)?;
        Ok(plan)
    }

    /// The answer to a plan that passed the gates, not yet executed.
    pub(crate) async fn framed(&self, plan: LogicalPlan) -> Result<DataFrame, QueryError> {
        Ok(self.context.execute_logical_plan(plan).await?)
    }

    /// Lets the session see those of the server, once: `pg_stat_activity`.
    pub(crate) fn show_sessions(&self, sessions: Arc<dyn Activities>) {
        let first = self.sessions.set(sessions).is_ok();
        debug_assert!(first, "a session belongs to one server");
    }

    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    pub(crate) fn context(&self) -> &Arc<SessionContext> {
        &self.context
    }

    pub(crate) fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    pub(crate) fn statement_time(&self) -> Duration {
        self.statement_time
    }
}

/// The second gate: whatever way a statement took, its plan only reads.
pub(crate) fn check_plan(plan: &LogicalPlan) -> Result<(), QueryError> {
    let only_reading = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    only_reading.verify_plan(plan).map_err(|_| QueryError::ReadOnly { statement: first_line(&plan.display().to_string()) })
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(80).collect()
}

/// `current_user` and its relatives answer the principal.
fn name_principal(context: &SessionContext, principal: &str) {
    use arrow::datatypes::DataType::Utf8;
    let answer = |name: &'static str, arguments: Vec<arrow::datatypes::DataType>, text: String| {
        let value = ColumnarValue::Scalar(datafusion::common::ScalarValue::Utf8(Some(text)));
        create_udf(name, arguments, Utf8, Volatility::Stable, Arc::new(move |_: &[ColumnarValue]| Ok(value.clone())))
    };
    context.register_udf(answer("session_user", vec![], principal.to_owned()));
    context.register_udf(answer("current_user", vec![], principal.to_owned()));
    context.register_udf(answer("user", vec![], principal.to_owned()));
}
