//! The sessions that are open, so that one can ask to end the statement of another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::prelude::SessionContext;
use datafusion_postgres::pgwire::api::ConnectionHandle;

/// The open sessions by their process id.
#[derive(Default)]
pub(super) struct OpenSessions(Mutex<HashMap<i32, (String, Arc<ConnectionHandle>)>>);

impl OpenSessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<i32, (String, Arc<ConnectionHandle>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open session; it is no longer one when this is dropped.
pub(super) struct OpenSession {
    all: Arc<OpenSessions>,
    pid: i32,
    principal: String,
}

impl OpenSession {
    pub(super) fn new(all: &Arc<OpenSessions>, pid: i32, principal: &str, handle: Arc<ConnectionHandle>) -> Self {
        all.lock().insert(pid, (principal.to_owned(), handle));
        Self { all: all.clone(), pid, principal: principal.to_owned() }
    }

    /// Makes `pg_backend_pid()` and `pg_cancel_backend(pid)` known to the session. Only statements of the same principal can be cancelled.
    pub(super) fn register(&self, context: &SessionContext) {
        let pid = self.pid;
        let own = move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::Int32(Some(pid))));
        context.register_udf(create_udf("pg_backend_pid", vec![], DataType::Int32, Volatility::Stable, Arc::new(own)));
        let (all, principal) = (self.all.clone(), self.principal.clone());
        let cancel = move |args: &[ColumnarValue]| {
            let pid = match args.first() {
                // What is no number of a session is nobody's.
                Some(ColumnarValue::Scalar(ScalarValue::Int64(pid))) => pid.map(|p| i32::try_from(p).unwrap_or(-1)),
                _ => return Err(DataFusionError::Execution("pg_cancel_backend takes the process id of one session".to_owned())),
            };
            cancel(&all, &principal, pid)
        };
        context.register_udf(create_udf(
            "pg_cancel_backend",
            vec![DataType::Int64],
            DataType::Boolean,
            Volatility::Volatile,
            Arc::new(cancel),
        ));
    }
}

fn cancel(all: &OpenSessions, principal: &str, pid: Option<i32>) -> Result<ColumnarValue> {
    let Some(pid) = pid else { return Ok(ColumnarValue::Scalar(ScalarValue::Boolean(None))) };
    let found = all.lock().get(&pid).cloned();
    let answer = match found {
        None => false,
        Some((whose, _)) if whose != principal => {
            return Err(DataFusionError::Execution(format!("the session {pid} is somebody else's; its statements cannot be cancelled")));
        }
        Some((_, handle)) => {
            // The function cannot wait; the threads of this server do.
            tokio::spawn(async move { handle.cancel().await });
            true
        }
    };
    Ok(ColumnarValue::Scalar(ScalarValue::Boolean(Some(answer))))
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.all.lock().remove(&self.pid);
    }
}
