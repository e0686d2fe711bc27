//! The time that the engine may work on a statement, and how it is cancelled meanwhile.

use std::sync::Arc;
use std::time::Duration;

use datafusion_postgres::pgwire::api::results::{QueryResponse, Response};
use datafusion_postgres::pgwire::api::{ClientInfo, ConnectionHandle};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use futures::StreamExt;
use futures::channel::oneshot;
use tokio::time::Instant;

use super::session::api_error;
use crate::engine::Engine;
use crate::error::QueryError;

/// Where the protocol crate keeps the time limit that a client asked for with `SET statement_timeout`, in milliseconds.
const CLIENT_LIMIT_KEY: &str = "statement_timeout_ms";

/// The time the engine may work on a statement.
#[derive(Clone, Copy)]
pub(super) struct Budget {
    limit: Duration,
}

impl Budget {
    /// The role's limit, or a shorter one that the client asked for.
    pub(super) fn of<C: ClientInfo>(engine: &Engine, client: &C) -> Self {
        let asked = client.metadata().get(CLIENT_LIMIT_KEY).and_then(|ms| ms.parse().ok()).filter(|&ms| ms > 0);
        let limit = engine.statement_time();
        Self { limit: asked.map_or(limit, |ms| limit.min(Duration::from_millis(ms))) }
    }

    /// Bounds the work before the first row.
    pub(super) async fn bound<T>(self, work: impl Future<Output = PgWireResult<T>>) -> PgWireResult<T> {
        let in_time = tokio::time::timeout(self.limit, work).await;
        in_time.unwrap_or_else(|_| Err(api_error(QueryError::Timeout { limit: self.limit })))
    }

    /// Bounds the work on the rows as well, and lets it be cancelled: rows are computed while they are sent.
    pub(super) fn bound_rows<C: ClientInfo>(self, client: &C, response: Response) -> Response {
        match response {
            Response::Query(query) => Response::Query(self.bound_query(client, query)),
            other => other,
        }
    }

    /// The same for the rows alone.
    fn bound_query<C: ClientInfo>(self, client: &C, query: QueryResponse) -> QueryResponse {
        let handle = client.session_extensions().get::<Arc<ConnectionHandle>>().map(|h| Arc::clone(&*h));
        self.bound_listening(handle, query)
    }

    /// The same for rows that are fetched before the handler of the statement returns: until then the protocol crate listens for the
    /// signal itself, and takes it for one if anybody else begins to.
    pub(super) fn bound_inside(self, query: QueryResponse) -> QueryResponse {
        self.bound_listening(None, query)
    }

    fn bound_listening(self, handle: Option<Arc<ConnectionHandle>>, query: QueryResponse) -> QueryResponse {
        let QueryResponse { command_tag, row_schema, data_rows, .. } = query;
        let rows = Rows { rows: data_rows, left: self.limit, handle, cancelled: None };
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
        response
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
