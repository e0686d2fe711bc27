//! The aggregates of a history as a table.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::array::{ArrayRef, new_null_array};
use arrow::compute::kernels::cmp::gt;
use arrow::compute::{CastOptions, cast_with_options, filter_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use entity::{Instant, Iri};
use store::history::{AggregateQuery, Bucket, ColumnKind, Groups, Measure, Reading};

use super::shape::spoken_of;
use crate::Source;
use crate::error::QueryError;
use crate::explained::Explained;
use crate::history::{said_of_reading, streamed};

/// A column of the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Output {
    /// The entity.
    Id,
    /// The start of the bucket.
    Start,
    /// The number of rows.
    Rows,
    /// What is said of the numbers of an attribute.
    Of(usize, Measure),
}

/// What is asked of a history.
#[derive(Clone)]
pub(crate) struct Grouped {
    pub(crate) source: Arc<dyn Source>,
    pub(crate) entity_type: Iri,
    pub(crate) as_of: Option<Instant>,
    pub(crate) entities: Option<Vec<Iri>>,
    /// None: rows without observed time are asked for too.
    pub(crate) observed: Option<Range<Instant>>,
    pub(crate) bucket: Bucket,
    pub(crate) by_id: bool,
    pub(crate) groups: Groups,
    /// Groups without a number of this attribute are left out.
    pub(crate) present: Option<Iri>,
    pub(crate) attributes: Vec<Iri>,
    pub(crate) outputs: Vec<Output>,
    /// There is a row even of nothing.
    pub(crate) is_one_row: bool,
}

impl Grouped {
    /// As a table with these columns, one for each output.
    pub(crate) fn table(self, schema: SchemaRef) -> GroupedTable {
        GroupedTable { grouped: self, schema }
    }
}

/// The answer as a table.
pub(crate) struct GroupedTable {
    grouped: Grouped,
    schema: SchemaRef,
}

impl std::fmt::Debug for GroupedTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Grouped { entity_type, bucket, outputs, .. } = &self.grouped;
        f.debug_struct("GroupedTable")
            .field("entity_type", entity_type)
            .field("bucket", bucket)
            .field("outputs", outputs)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for GroupedTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema: SchemaRef = Arc::new(self.schema.project(&wanted)?);
        let outputs: Vec<Output> = wanted.iter().map(|&i| self.grouped.outputs[i]).collect();
        let question = Question::new(&self.grouped, &outputs);
        let what = self.said(&schema, &question);
        let (source, query, groups) = (self.grouped.source.clone(), question.query.clone(), self.grouped.groups);
        let partition = Partition { schema: schema.clone(), source: source.clone(), is_one_row: self.grouped.is_one_row, groups, question };
        let plan = StreamingTableExec::try_new(schema, vec![Arc::new(partition)], None, [], false, limit)?;
        let reading = move || match source.history().reading_of_groups(&query, groups) {
            Ok(reading) => reading.as_ref().map_or_else(String::new, said_of_groups),
            Err(e) => format!(", which cannot be told: {e}"),
        };
        Ok(Arc::new(Explained::new("HistoryAggregateExec", what, Arc::new(plan)).with_more(Arc::new(reading))))
    }
}

impl GroupedTable {
    /// What is read, as `EXPLAIN` shows it.
    fn said(&self, schema: &SchemaRef, question: &Question) -> String {
        let grouped = &self.grouped;
        let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        let mut what = format!("{}, columns=[{}]", grouped.source.short_name(&grouped.entity_type), names.join(", "));
        let mut groups = Vec::new();
        groups.extend(grouped.by_id.then(|| "id".to_owned()));
        match grouped.bucket {
            Bucket::Whole => {}
            Bucket::Width { width_us, origin } => groups.push(format!("{} s from {origin}", width_us as f64 / 1e6)),
            Bucket::Months { months, .. } => groups.push(format!("{months} months")),
        }
        what.push_str(&format!(", by [{}]", groups.join(", ")));
        match question.query.entities.as_deref() {
            None => {}
            Some([one]) => what.push_str(&format!(", id = {one}")),
            Some(several) => what.push_str(&format!(", id in {} ids", several.len())),
        }
        match &question.query.observed {
            None => {}
            Some(all) if *all == (Instant::MIN..Instant::MAX) => what.push_str(", observed"),
            Some(observed) => what.push_str(&format!(", observed in [{}, {})", observed.start, observed.end)),
        }
        if let Some(as_of) = grouped.as_of {
            what.push_str(&format!(", as of {as_of}"));
        }
        what
    }
}

fn said_of_groups(reading: &Reading) -> String {
    let mut said = said_of_reading(reading);
    for used in &reading.rollups {
        let hours = used.width.micros() as f64 / 3.6e9;
        said.push_str(&format!(", roll-up of {hours:.3} h in [{}, {})", used.observed.start, used.observed.end));
    }
    said
}

/// The question that has some outputs, and where these are in the answer.
#[derive(Clone)]
struct Question {
    query: AggregateQuery,
    /// Columns of the answer; none for one of nothing but rows.
    places: Vec<usize>,
    /// The column that has to be more than 0.
    present_at: Option<usize>,
}

impl Question {
    fn new(grouped: &Grouped, outputs: &[Output]) -> Self {
        let present = grouped.present.as_ref().and_then(|name| grouped.attributes.iter().position(|a| a == name));
        let attributes: Vec<usize> = spoken_of(outputs).into_iter().chain(present).collect::<BTreeSet<_>>().into_iter().collect();
        let asked = outputs.iter().filter_map(|o| if let Output::Of(_, measure) = o { Some(*measure) } else { None });
        let measures: BTreeSet<Measure> = asked.chain(present.map(|_| Measure::Count)).collect();
        let measures: Vec<Measure> = measures.into_iter().collect();
        let start = usize::from(grouped.by_id);
        let first = start + 1 + usize::from(grouped.groups == Groups::Rows);
        let of = |attribute: usize, measure: Measure| {
            let attribute = attributes.binary_search(&attribute).unwrap_or(0);
            first + attribute * measures.len() + measures.binary_search(&measure).unwrap_or(0)
        };
        let place = |output: &Output| match *output {
            Output::Id => 0,
            Output::Start => start,
            Output::Rows => start + 1,
            Output::Of(attribute, measure) => of(attribute, measure),
        };
        let places = outputs.iter().map(place).collect();
        let present_at = present.filter(|_| grouped.groups == Groups::Rows).map(|attribute| of(attribute, Measure::Count));
        let query = AggregateQuery {
            entity_type: grouped.entity_type.clone(),
            attributes: attributes.iter().map(|&i| grouped.attributes[i].clone()).collect(),
            entities: grouped.entities.clone(),
            observed: grouped.observed.clone(),
            bucket: grouped.bucket,
            per_entity: grouped.by_id,
            measures,
            as_of: grouped.as_of,
        };
        Self { query, places, present_at }
    }

    /// Brings a batch of the history into the table's columns.
    fn fit(&self, schema: &SchemaRef, answer: &RecordBatch) -> Result<RecordBatch> {
        let kept;
        let answer = match self.present_at {
            None => answer,
            Some(i) => {
                kept = filter_record_batch(answer, &gt(answer.column(i), &Int64Array::new_scalar(0))?)?;
                &kept
            }
        };
        let column = |(field, &i): (&arrow::datatypes::FieldRef, &usize)| -> Result<ArrayRef> {
            let found = answer.column(i);
            if found.data_type() == field.data_type() {
                return Ok(found.clone());
            }
            // What is out of range in a finer unit is an error, as it is without us.
            Ok(cast_with_options(found, field.data_type(), &CastOptions { safe: false, ..CastOptions::default() })?)
        };
        let arrays = schema.fields().iter().zip(&self.places).map(column).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(answer.num_rows()));
        Ok(RecordBatch::try_new_with_options(schema.clone(), arrays, &options)?)
    }
}

/// The row of nothing: counts are 0, everything else is null.
fn of_nothing(schema: &SchemaRef) -> Result<RecordBatch> {
    let column = |field: &arrow::datatypes::FieldRef| -> ArrayRef {
        match field.data_type() {
            DataType::Int64 => Arc::new(Int64Array::from(vec![0])),
            other => new_null_array(other, 1),
        }
    };
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    Ok(RecordBatch::try_new_with_options(schema.clone(), schema.fields().iter().map(column).collect(), &options)?)
}

/// One reading of the aggregates.
struct Partition {
    schema: SchemaRef,
    source: Arc<dyn Source>,
    groups: Groups,
    is_one_row: bool,
    question: Question,
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partition").field("query", &self.question.query).finish_non_exhaustive()
    }
}

impl Partition {
    /// Hands over the rows, until nobody wants more.
    fn read(&self, take: &mut dyn FnMut(Result<RecordBatch>) -> bool) -> Result<()> {
        let query = &self.question.query;
        let mut n_rows = 0;
        let mut failed = None;
        let is_empty = query.observed.as_ref().is_some_and(|o| o.start >= o.end);
        if !is_empty {
            let read = self.source.history().group(query, self.groups, &mut |batch| match self.question.fit(&self.schema, &batch) {
                Ok(batch) => {
                    n_rows += batch.num_rows();
                    take(Ok(batch))
                }
                Err(e) => {
                    failed = Some(e);
                    false
                }
            });
            read.map_err(QueryError::History)?;
        }
        if let Some(error) = failed {
            return Err(error);
        }
        // A column's kind only widens: if it is one of numbers now, it was one all the time.
        let table = self.source.history().table(&query.entity_type);
        for name in &query.attributes {
            let column = table.iter().flat_map(|t| &t.columns).find(|c| c.name == *name);
            if let Some(kind) = column.map(|c| c.kind).filter(|kind| *kind != ColumnKind::Number) {
                let what = format!(
                    "column `{}` was one of numbers when the statement was prepared and is {kind:?} now",
                    self.source.short_name(name)
                );
                return Err(QueryError::ColumnChanged { what }.into());
            }
        }
        if self.is_one_row && n_rows == 0 {
            take(of_nothing(&self.schema));
        }
        Ok(())
    }
}

impl PartitionStream for Partition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, task: Arc<TaskContext>) -> SendableRecordBatchStream {
        let Self { schema, source, groups, is_one_row, question } = self;
        let reading =
            Self { schema: schema.clone(), source: source.clone(), groups: *groups, is_one_row: *is_one_row, question: question.clone() };
        streamed(self.schema.clone(), &task, move |take| reading.read(take))
    }
}
