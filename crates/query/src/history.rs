//! The table of what was: an entity at an observed time per row, read from the node's history.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::plan_err;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use entity::{Instant, Iri};
use futures::StreamExt;
use store::history::{HistoryScan, HistoryTable as Described};

use crate::Source;
use crate::catalog::Tables;
use crate::error::QueryError;
use crate::latest::{attribute_field, column_names, timestamp};
use crate::pushdown::{ID, Narrowing, OBSERVED_AT, supported};

/// Columns before the attributes, in the order in which the history gives them.
const N_FIXED: usize = 4;

/// Batches that are read before they are asked for.
const BATCHES_AHEAD: usize = 2;

/// The history of one type.
pub(crate) struct HistoryTable {
    source: Arc<dyn Source>,
    entity_type: Iri,
    /// In the order of the columns after the fixed ones.
    attributes: Vec<Iri>,
    schema: SchemaRef,
    as_of: Option<Instant>,
}

impl std::fmt::Debug for HistoryTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HistoryTable").field("entity_type", &self.entity_type).field("as_of", &self.as_of).finish_non_exhaustive()
    }
}

impl HistoryTable {
    pub(crate) fn new(source: Arc<dyn Source>, described: Described, as_of: Option<Instant>) -> Self {
        let mut fields = vec![
            Field::new(ID, DataType::Utf8, false),
            Field::new("dataset_id", DataType::Utf8, true),
            Field::new(OBSERVED_AT, timestamp(), true),
            Field::new("recorded_at", timestamp(), false),
        ];
        let mut attributes = Vec::new();
        for (name, column) in column_names(&*source, described.columns) {
            fields.push(attribute_field(&name, &column));
            attributes.push(column.name);
        }
        Self { source, entity_type: described.entity_type, attributes, schema: Arc::new(Schema::new(fields)), as_of }
    }
}

#[async_trait]
impl TableProvider for HistoryTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(supported(filters))
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let narrowing = Narrowing::of(filters);
        let wanted = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let mut attributes = Vec::new();
        let mut columns = Vec::new();
        for &column in &wanted {
            if column < N_FIXED {
                columns.push(column);
            } else {
                columns.push(N_FIXED + attributes.len());
                attributes.push(self.attributes[column - N_FIXED].clone());
            }
        }
        let scan = HistoryScan {
            entity_type: self.entity_type.clone(),
            attributes,
            // What is not an IRI is nobody's id.
            entities: narrowing.ids.as_ref().map(|ids| ids.iter().filter_map(|id| id.parse().ok()).collect()),
            observed: narrowing.observed(),
            as_of: self.as_of,
        };
        let schema: SchemaRef = Arc::new(self.schema.project(&wanted)?);
        let partition = Partition { schema: schema.clone(), source: self.source.clone(), scan, columns };
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![Arc::new(partition)], None, [], false, limit)?))
    }
}

/// One reading of the history.
struct Partition {
    schema: SchemaRef,
    source: Arc<dyn Source>,
    scan: HistoryScan,
    /// For each column of the schema, which column of the answer it is.
    columns: Vec<usize>,
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partition").field("scan", &self.scan).finish_non_exhaustive()
    }
}

impl PartitionStream for Partition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, task: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (schema, source, scan, columns) = (self.schema.clone(), self.source.clone(), self.scan.clone(), self.columns.clone());
        let reservation = MemoryConsumer::new("history").register(task.memory_pool());
        let batches = futures::stream::once(async move {
            let (sender, receiver) = tokio::sync::mpsc::channel(BATCHES_AHEAD);
            // The history reads files: not on a thread that answers sockets.
            let reading = tokio::task::spawn_blocking(move || match source.history().stream(&scan) {
                // Who no longer listens wants no more.
                Ok(batches) => batches.map(|batch| sender.blocking_send(batch)).take_while(std::result::Result::is_ok).for_each(drop),
                Err(e) => drop(sender.blocking_send(Err(e))),
            });
            futures::stream::try_unfold((receiver, Some(reading)), |(mut receiver, mut reading)| async move {
                if let Some(batch) = receiver.recv().await {
                    let batch = batch.map_err(|e| DataFusionError::from(QueryError::History(e)))?;
                    return Ok(Some((batch, (receiver, reading))));
                }
                // A reader that panicked has not read everything.
                if let Some(reading) = reading.take() {
                    reading.await.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))?;
                }
                Ok(None)
            })
        });
        let batches = batches.flatten().map(move |batch: Result<RecordBatch>| {
            let batch = batch?;
            // What has been read ahead is held, too.
            reservation.try_resize(batch.get_array_memory_size() * (BATCHES_AHEAD + 1))?;
            fit(&schema, &columns, &batch)
        });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches))
    }
}

/// Brings a batch of the history into the table's columns.
fn fit(schema: &SchemaRef, columns: &[usize], answer: &RecordBatch) -> Result<RecordBatch> {
    let column = |(field, &i): (&Arc<Field>, &usize)| -> Result<ArrayRef> {
        let found =
            answer.columns().get(i).ok_or_else(|| QueryError::ColumnChanged { what: format!("column `{}` is gone", field.name()) })?;
        match (found.data_type(), field.data_type()) {
            (a, b) if a == b => Ok(found.clone()),
            // The same instants, written with another name for UTC.
            (DataType::Timestamp(..), DataType::Timestamp(..)) => Ok(cast(found, field.data_type())?),
            (now, planned) => Err(QueryError::ColumnChanged {
                what: format!("column `{}` was {planned} when the statement was prepared and is {now} now", field.name()),
            }
            .into()),
        }
    };
    let arrays = schema.fields().iter().zip(columns).map(column).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(answer.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), arrays, &options)?)
}

/// `history_as_of('<table>', '<time>')`: the history as it was known at a recorded time.
#[derive(Debug)]
pub(crate) struct HistoryAsOf {
    pub(crate) tables: Arc<Tables>,
}

impl TableFunctionImpl for HistoryAsOf {
    fn call_with_args(&self, args: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let text = |e: &Expr| match e {
            Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_owned),
            _ => None,
        };
        let texts: Vec<Option<String>> = args.exprs().iter().map(text).collect();
        let [Some(table), Some(at)] = texts.as_slice() else {
            return plan_err!(
                "history_as_of takes two texts: a table and a time, as in history_as_of('AirQualityObserved', '2014-01-05T00:00:00Z')"
            );
        };
        let as_of: Instant = at.parse().map_err(|e: entity::InstantError| DataFusionError::Plan(format!("history_as_of: {e}")))?;
        let Some(described) = self.tables.history_of(table) else {
            return plan_err!("history_as_of: there is no table `{table}` with a history");
        };
        Ok(Arc::new(HistoryTable::new(self.tables.source.clone(), described, Some(as_of))))
    }
}
