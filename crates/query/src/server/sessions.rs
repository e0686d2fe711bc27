//! The sessions that are open: what each of them does, and how one asks to end the statement of another, or the other one itself.
//!
//! A session sees those of its own principal, and all of them if its principal oversees the server ([`SourceFactory::oversees`]).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{AsArray, BooleanArray};
use arrow::datatypes::{DataType, Int64Type};
use async_trait::async_trait;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::prelude::SessionContext;
use datafusion::scalar::ScalarValue;
use datafusion_postgres::pgwire::api::cancel::CancelHandler;
use datafusion_postgres::pgwire::messages::cancel::CancelRequest;
use datafusion_postgres::pgwire::messages::response::TransactionStatus;
use datafusion_postgres::pgwire::messages::startup::SecretKey;
use host::{Clock, SystemClock};
use tokio::sync::Notify;

use crate::catalog::{Activities, Activity, State};
use crate::error::QueryError;
use crate::parameters::Parameters;
use crate::source::SourceFactory;

/// How much of a statement is shown, in bytes, as PostgreSQL's `track_activity_query_size`: what all sessions hold is bounded by it.
const SHOWN_BYTES_MAX: usize = 1024;

/// How many warnings a statement may give: a statement over many numbers gives one for each.
const WARNINGS_MAX: usize = 100;

/// The functions by which a session ends the statements of others, or the others.
pub(super) const SIGNALS: [&str; 2] = ["pg_cancel_backend", "pg_terminate_backend"];

/// The open sessions by their process id.
#[derive(Debug, Default)]
pub(super) struct OpenSessions(Mutex<BTreeMap<i32, Arc<Live>>>);

impl OpenSessions {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Arc<Live>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client that knows the key of a session cancels its statement, on a connection of its own.
#[async_trait]
impl CancelHandler for OpenSessions {
    async fn on_cancel_request(&self, asked: CancelRequest) {
        let found = self.lock().get(&asked.pid).cloned();
        if let Some(live) = found.filter(|live| live.opened.key.eq_value(&asked.secret_key)) {
            live.signals.cancel.notify_one();
        }
    }
}

/// What others ask of a session. A signal is kept until its connection listens, so that none is lost.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// It is to stop working on its statement; meaningless if it does not work on one.
    pub(super) cancel: Notify,
    /// It is to end.
    pub(super) end: Notify,
}

/// Who has opened a session.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) pid: i32,
    /// Who knows it may cancel its statements.
    pub(super) key: SecretKey,
    /// Who it has logged in as.
    pub(super) user: String,
    pub(super) principal: String,
    pub(super) address: SocketAddr,
    /// What the client called itself when it connected.
    pub(super) application: Option<String>,
    pub(super) parameters: Parameters,
}

/// A session that others can see.
#[derive(Debug)]
struct Live {
    opened: Opened,
    began_us: i64,
    signals: Arc<Signals>,
    doing: Mutex<Doing>,
}

/// What a session does. Times are microseconds since 1970.
#[derive(Debug)]
struct Doing {
    state: State,
    state_us: i64,
    statement: String,
    statement_us: Option<i64>,
    transaction_us: Option<i64>,
}

impl Live {
    fn doing(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn activity(&self) -> Activity {
        let Opened { pid, user, address, application, parameters, .. } = &self.opened;
        let changed = parameters.get("application_name").filter(|name| !name.is_empty());
        let doing = self.doing();
        Activity {
            pid: *pid,
            user: user.clone(),
            application: changed.or_else(|| application.clone()).unwrap_or_default(),
            address: *address,
            began_us: self.began_us,
            transaction_us: doing.transaction_us,
            statement_us: doing.statement_us,
            state_us: doing.state_us,
            state: doing.state,
            statement: doing.statement.clone(),
        }
    }
}

/// An open session; it is no longer one when this is dropped.
pub(super) struct OpenSession {
    all: Arc<OpenSessions>,
    live: Arc<Live>,
    sources: Arc<dyn SourceFactory>,
    /// What its own statement has to say to the client besides its rows.
    warnings: Arc<Mutex<Vec<String>>>,
}

impl OpenSession {
    /// `signals` are what its connection listens to.
    pub(super) fn new(all: &Arc<OpenSessions>, opened: Opened, signals: Arc<Signals>, sources: Arc<dyn SourceFactory>) -> Self {
        let began_us = SystemClock.now_micros();
        let doing = Doing { state: State::Idle, state_us: began_us, statement: String::new(), statement_us: None, transaction_us: None };
        let live = Arc::new(Live { opened, began_us, signals, doing: Mutex::new(doing) });
        all.lock().insert(live.opened.pid, live.clone());
        Self { all: all.clone(), live, sources, warnings: Arc::default() }
    }

    /// It works on this statement from now on.
    pub(super) fn begin(&self, statement: &str) {
        let now = SystemClock.now_micros();
        let mut doing = self.live.doing();
        doing.statement.clear();
        doing.statement.push_str(&statement[..statement.floor_char_boundary(SHOWN_BYTES_MAX)]);
        (doing.statement_us, doing.state_us, doing.state) = (Some(now), now, State::Active);
        doing.transaction_us.get_or_insert(now);
    }

    /// It waits for its client from now on.
    pub(super) fn rest(&self, transaction: TransactionStatus) {
        let mut doing = self.live.doing();
        doing.state = match transaction {
            TransactionStatus::Idle => State::Idle,
            TransactionStatus::Transaction => State::InTransaction,
            TransactionStatus::Error => State::InFailedTransaction,
        };
        doing.state_us = SystemClock.now_micros();
        if doing.state == State::Idle {
            doing.transaction_us = None;
        }
    }

    /// What its statement had to say until now besides its rows.
    pub(super) fn warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The sessions as this one sees them.
    pub(super) fn view(&self) -> Arc<dyn Activities> {
        Arc::new(self.seen())
    }

    fn seen(&self) -> View {
        View { all: self.all.clone(), principal: self.live.opened.principal.clone(), sources: self.sources.clone() }
    }

    /// Makes `pg_backend_pid()`, `pg_cancel_backend(pid)` and `pg_terminate_backend(pid)` known to the session.
    pub(super) fn register(&self, context: &SessionContext) {
        let pid = self.live.opened.pid;
        let own = move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::Int32(Some(pid))));
        context.register_udf(create_udf("pg_backend_pid", vec![], DataType::Int32, Volatility::Stable, Arc::new(own)));
        for name in SIGNALS {
            let (view, warnings) = (self.seen(), self.warnings.clone());
            let send = move |args: &[ColumnarValue]| {
                let pids = args.first().ok_or_else(|| DataFusionError::Execution(format!("{name} takes the process id of a session")))?;
                let is_one = matches!(pids, ColumnarValue::Scalar(_));
                let pids = pids.to_array(1)?;
                let sent = pids.as_primitive::<Int64Type>().iter().map(|pid| pid.map(|pid| view.signal(name, pid, &warnings)).transpose());
                let sent = sent.collect::<Result<BooleanArray>>()?;
                Ok(if is_one {
                    ColumnarValue::Scalar(ScalarValue::try_from_array(&sent, 0)?)
                } else {
                    ColumnarValue::Array(Arc::new(sent))
                })
            };
            context.register_udf(create_udf(name, vec![DataType::Int64], DataType::Boolean, Volatility::Volatile, Arc::new(send)));
        }
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.all.lock().remove(&self.live.opened.pid);
    }
}

/// The sessions as one principal sees them.
struct View {
    all: Arc<OpenSessions>,
    principal: String,
    sources: Arc<dyn SourceFactory>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("principal", &self.principal).finish_non_exhaustive()
    }
}

impl View {
    /// True if the session was asked; false, with a warning, if there is none of this number.
    fn signal(&self, name: &'static str, pid: i64, warnings: &Mutex<Vec<String>>) -> Result<bool> {
        let found = i32::try_from(pid).ok().and_then(|pid| self.all.lock().get(&pid).cloned());
        let Some(live) = found else {
            let mut warnings = warnings.lock().unwrap_or_else(PoisonError::into_inner);
            if warnings.len() < WARNINGS_MAX {
                warnings.push(format!("PID {pid} is not a PostgreSQL backend process"));
            }
            return Ok(false);
        };
        if live.opened.principal != self.principal && !self.sources.oversees(&self.principal) {
            return Err(QueryError::NotYours { pid, what: if name == SIGNALS[0] { "cancel query" } else { "terminate process" } }.into());
        }
        if name == SIGNALS[0] {
            live.signals.cancel.notify_one();
        } else {
            live.signals.end.notify_one();
        }
        Ok(true)
    }
}

impl Activities for View {
    fn visible(&self) -> Vec<Activity> {
        let all: Vec<Arc<Live>> = self.all.lock().values().cloned().collect();
        let all_seen = self.sources.oversees(&self.principal);
        all.iter().filter(|live| all_seen || live.opened.principal == self.principal).map(|live| live.activity()).collect()
    }
}
