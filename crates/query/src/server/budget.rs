//! The time that the engine may work on a statement.

use std::time::Duration;

use datafusion_postgres::pgwire::api::ClientInfo;
use datafusion_postgres::pgwire::api::results::{QueryResponse, Response};
use datafusion_postgres::pgwire::error::PgWireResult;
use futures::StreamExt;
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

    /// Bounds the work on the rows as well: they are computed while they are sent.
    pub(super) fn bound_rows(self, response: Response) -> Response {
        match response {
            Response::Query(query) => Response::Query(self.bound_query(query)),
            other => other,
        }
    }

    /// The same for the rows alone.
    pub(super) fn bound_query(self, query: QueryResponse) -> QueryResponse {
        let QueryResponse { command_tag, row_schema, data_rows, .. } = query;
        let rows = Rows { rows: data_rows, left: self.limit };
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
}

impl<S, T> Rows<S>
where
    S: futures::Stream<Item = PgWireResult<T>> + Unpin,
{
    async fn next(&mut self, limit: Duration) -> Option<PgWireResult<T>> {
        let started = Instant::now();
        let row = tokio::time::timeout(self.left, self.rows.next()).await;
        self.left = self.left.saturating_sub(started.elapsed());
        row.unwrap_or_else(|_| Some(Err(api_error(QueryError::Timeout { limit }))))
    }
}
