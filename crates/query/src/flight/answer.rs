//! The rows of a statement, computed while they are fetched.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow_flight::error::FlightError;
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::logical_expr::LogicalPlan;
use futures::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use tonic::Status;

use super::status;
use crate::engine::{Engine, check_plan};
use crate::error::QueryError;

/// A planned statement with the values of its parameters.
#[derive(Clone)]
pub(super) struct Work {
    pub(super) plan: LogicalPlan,
    /// A column per parameter; the statement is answered once for each row. None for a statement without parameters.
    pub(super) parameters: Option<Arc<RecordBatch>>,
}

impl Work {
    /// The plan with a row of the parameters.
    pub(super) fn bound(&self, row: usize) -> Result<LogicalPlan, QueryError> {
        let Some(parameters) = &self.parameters else { return Ok(self.plan.clone()) };
        let value = |column: &ArrayRef| ScalarValue::try_from_array(column, row);
        let values = parameters.columns().iter().map(value).collect::<Result<Vec<_>, _>>()?;
        let plan = crate::geometry::settle(self.plan.clone().with_param_values(values)?)?;
        check_plan(&plan)?;
        Ok(plan)
    }

    fn n_rounds(&self) -> usize {
        self.parameters.as_ref().map_or(1, |p| p.num_rows())
    }
}

/// What ends an answer before its last row.
pub(super) struct Stops {
    /// The client takes the statement back.
    pub(super) cancelled: watch::Receiver<bool>,
    /// The server stops and waits no longer.
    pub(super) cut: watch::Receiver<bool>,
}

impl Stops {
    /// Completes when one of them happens, with what the client is told.
    pub(super) async fn stopped(&mut self) -> Status {
        let Self { cancelled, cut } = self;
        tokio::select! {
            () = turned(cancelled) => Status::cancelled("the statement was cancelled by its client"),
            () = turned(cut) => Status::unavailable("the server is shutting down"),
        }
    }
}

/// Completes when the value is true. A sender that is gone will never say so.
async fn turned(signal: &mut watch::Receiver<bool>) {
    // The guard inside the answer must not live across the next await.
    let turned = signal.wait_for(|set| *set).await.is_ok();
    if !turned {
        std::future::pending::<()>().await;
    }
}

/// The answer to a statement. The work ends when this is dropped.
pub(super) struct Answer {
    engine: Arc<Engine>,
    work: Work,
    schema: SchemaRef,
    round: usize,
    current: Option<SendableRecordBatchStream>,
    /// How long the engine may still work.
    left: Duration,
    limit: Duration,
    stops: Stops,
    /// One of the server's places for statements.
    _place: OwnedSemaphorePermit,
}

impl Answer {
    /// `schema` is what the client was told; batches are brought into it.
    pub(super) fn new(engine: Arc<Engine>, work: Work, schema: SchemaRef, stops: Stops, place: OwnedSemaphorePermit) -> Self {
        let limit = engine.statement_time();
        Self { engine, work, schema, round: 0, current: None, left: limit, limit, stops, _place: place }
    }

    /// The batches; nothing follows an error.
    pub(super) fn batches(self) -> impl Stream<Item = Result<RecordBatch, FlightError>> + Send {
        futures::stream::unfold(Some(self), |answer| async move {
            let mut answer = answer?;
            match answer.next().await {
                Ok(None) => None,
                Ok(Some(batch)) => Some((Ok(batch), Some(answer))),
                Err(status) => Some((Err(FlightError::from(status)), None)),
            }
        })
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>, Status> {
        let Self { engine, work, schema, round, current, left, limit, stops, .. } = self;
        let started = Instant::now();
        let step = tokio::time::timeout(*left, step(engine, work, round, current));
        let batch = tokio::select! {
            biased;
            status = stops.stopped() => return Err(status),
            batch = step => batch,
        };
        // Only the engine's time counts: the client may take as long as it likes between two batches.
        *left = left.saturating_sub(started.elapsed());
        let batch = batch.map_err(|_| status::of(&QueryError::Timeout { limit: *limit }))?.map_err(|e| status::of(&e))?;
        batch.map(|b| fit(schema, &b)).transpose().map_err(|e| status::of(&e))
    }
}

/// The next batch of the rounds.
async fn step(
    engine: &Engine,
    work: &Work,
    round: &mut usize,
    current: &mut Option<SendableRecordBatchStream>,
) -> Result<Option<RecordBatch>, QueryError> {
    loop {
        if let Some(rows) = current {
            match rows.next().await {
                Some(batch) => return Ok(Some(batch?)),
                None => *current = None,
            }
        }
        if *round == work.n_rounds() {
            return Ok(None);
        }
        let frame = engine.context().execute_logical_plan(work.bound(*round)?).await?;
        *current = Some(frame.execute_stream().await?);
        *round += 1;
    }
}

/// Brings a batch into the columns that were announced: the engine may choose another width for texts, and knows less about the columns.
fn fit(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch, QueryError> {
    if batch.num_columns() != schema.fields().len() {
        return Err(QueryError::ColumnChanged { what: format!("{} columns became {}", schema.fields().len(), batch.num_columns()) });
    }
    let column = |(field, found): (&Arc<arrow::datatypes::Field>, &ArrayRef)| {
        if found.data_type() == field.data_type() { Ok(found.clone()) } else { cast(found, field.data_type()) }
    };
    let columns = schema.fields().iter().zip(batch.columns()).map(column).collect::<Result<Vec<_>, _>>().map_err(DataFusionError::from)?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(DataFusionError::from)?)
}
