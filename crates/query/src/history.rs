//! The table of what was: an entity at an observed time per row, read from the node's history.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use entity::{Instant, Iri};
use futures::StreamExt;
use store::history::{HistoryScan, HistoryTable as Described, Reading};

use crate::Source;
use crate::error::QueryError;
use crate::explained::Explained;
use crate::geometry;
use crate::latest::{LOCATION_COLUMN, attribute_field, column_names, timestamp};
use crate::pushdown::{ID, Narrowing, OBSERVED_AT, supported};

/// Columns before the attributes, in the order in which the history gives them.
pub(crate) const N_FIXED: usize = 4;

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
            let is_place = name == LOCATION_COLUMN;
            fields.push(if is_place { geometry::place_field(&name, column.name.as_str()) } else { attribute_field(&name, &column) });
            attributes.push(column.name);
        }
        Self { source, entity_type: described.entity_type, attributes, schema: Arc::new(Schema::new(fields)), as_of }
    }

    pub(crate) fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    pub(crate) fn entity_type(&self) -> &Iri {
        &self.entity_type
    }

    /// In the order of the columns after the fixed ones.
    pub(crate) fn attributes(&self) -> &[Iri] {
        &self.attributes
    }

    pub(crate) fn as_of(&self) -> Option<Instant> {
        self.as_of
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
        let what = said(&self.source.short_name(&self.entity_type), &schema, &scan);
        let (source, asked) = (self.source.clone(), scan.clone());
        let reading = move || match source.history().reading(&asked) {
            Ok(reading) => reading.as_ref().map_or_else(String::new, said_of_reading),
            Err(e) => format!(", which cannot be told: {e}"),
        };
        let partition = Partition { schema: schema.clone(), source: self.source.clone(), scan, columns };
        let plan = StreamingTableExec::try_new(schema, vec![Arc::new(partition)], None, [], false, limit)?;
        Ok(Arc::new(Explained::new("HistoryExec", what, Arc::new(plan)).with_more(Arc::new(reading))))
    }
}

/// What is read of the history, as `EXPLAIN` shows it.
fn said(table: &str, schema: &Schema, scan: &HistoryScan) -> String {
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    let mut what = format!("{table}, columns=[{}]", names.join(", "));
    if let Some(entities) = &scan.entities {
        match entities.as_slice() {
            [one] => what.push_str(&format!(", id = {one}")),
            several => what.push_str(&format!(", id in {} ids", several.len())),
        }
    }
    if let Some(observed) = &scan.observed {
        what.push_str(&format!(", observed in [{}, {})", observed.start, observed.end));
    }
    if let Some(as_of) = scan.as_of {
        what.push_str(&format!(", as of {as_of}"));
    }
    what
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
        streamed(self.schema.clone(), &task, move |take| {
            for batch in source.history().stream(&scan).map_err(QueryError::History)? {
                let batch = batch.map_err(|e| DataFusionError::from(QueryError::History(e)));
                if !take(batch.and_then(|batch| fit(&schema, &columns, &batch))) {
                    break;
                }
            }
            Ok(())
        })
    }
}

/// What `read` hands over. The history reads files: not on a thread that answers sockets. It is told when nobody wants more.
pub(crate) fn streamed(
    schema: SchemaRef,
    task: &TaskContext,
    read: impl FnOnce(&mut dyn FnMut(Result<RecordBatch>) -> bool) -> Result<()> + Send + 'static,
) -> SendableRecordBatchStream {
    let reservation = MemoryConsumer::new("history").register(task.memory_pool());
    let batches = futures::stream::once(async move {
        let (sender, receiver) = tokio::sync::mpsc::channel(BATCHES_AHEAD);
        let reading = tokio::task::spawn_blocking(move || {
            if let Err(e) = read(&mut |batch| sender.blocking_send(batch).is_ok()) {
                // Who no longer listens does not want to know.
                drop(sender.blocking_send(Err(e)));
            }
        });
        futures::stream::try_unfold((receiver, Some(reading)), |(mut receiver, mut reading)| async move {
            if let Some(batch) = receiver.recv().await {
                return Ok(Some((batch?, (receiver, reading))));
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
        Ok(batch)
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, batches))
}

/// How much of the files is read, as `EXPLAIN` shows it.
pub(crate) fn said_of_reading(reading: &Reading) -> String {
    let Reading { n_files, n_files_read, n_units, n_units_read, n_recent, .. } = reading;
    let mut said = format!(", {n_files_read} of {n_files} files");
    if *n_files_read > 0 {
        said.push_str(&format!(" ({n_units_read} of their {n_units} parts)"));
    }
    if *n_recent > 0 {
        said.push_str(" and what is in memory");
    }
    said
}

/// Brings a batch of the history into the table's columns.
fn fit(schema: &SchemaRef, columns: &[usize], answer: &RecordBatch) -> Result<RecordBatch> {
    let column = |(field, &i): (&Arc<Field>, &usize)| -> Result<ArrayRef> {
        let found =
            answer.columns().get(i).ok_or_else(|| QueryError::ColumnChanged { what: format!("column `{}` is gone", field.name()) })?;
        match (found.data_type(), field.data_type()) {
            (a, b) if a == b => Ok(found.clone()),
            (DataType::Utf8, DataType::Binary) => Ok(geometry::places_of_json(found)),
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
