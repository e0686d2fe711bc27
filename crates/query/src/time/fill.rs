//! The operator that puts a row into every bucket.
//!
//! Its input is sorted by the other groups and by time; it holds the rows of one group at a time.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{SortOptions, concat_batches, take};
use arrow::datatypes::{Float64Type, SchemaRef, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use arrow::row::{OwnedRow, RowConverter, SortField};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::{DFSchema, DFSchemaRef, internal_datafusion_err, internal_err};
use datafusion::error::Result;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore};
use datafusion::physical_expr::expressions::col;
use datafusion::physical_expr::{
    Distribution, EquivalenceProperties, LexOrdering, OrderingRequirements, Partitioning, PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use futures::StreamExt;

/// Rows that are gathered before they are handed on.
const BATCH_ROWS: usize = 8_192;

/// What a column holds in a row that is put in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Debug)]
pub(super) enum Fill {
    /// Nothing.
    Null,
    /// The last value before (also where a row has none).
    Last,
    /// On the straight line between the values before and after (also where a row has none); a number.
    Between,
}

/// The operator in a logical plan.
#[derive(Clone, Debug)]
pub(super) struct GapFill {
    input: LogicalPlan,
    schema: DFSchemaRef,
    /// Positions of the time and of the other groups.
    time_at: usize,
    keys: Vec<usize>,
    /// One for each column.
    fills: Vec<Fill>,
    /// The starts of the buckets, ascending, in microseconds.
    starts_us: Arc<[i64]>,
}

impl GapFill {
    pub(super) fn try_new(input: LogicalPlan, time_at: usize, keys: Vec<usize>, fills: Vec<Fill>, starts_us: Vec<i64>) -> Result<Self> {
        let schema = nullable(input.schema())?;
        Ok(Self { input, schema, time_at, keys, fills, starts_us: starts_us.into() })
    }

    fn compared(&self) -> (&LogicalPlan, usize, &[usize], &[Fill], &[i64]) {
        (&self.input, self.time_at, &self.keys, &self.fills, &self.starts_us)
    }
}

fn nullable(schema: &DFSchema) -> Result<DFSchemaRef> {
    let fields = schema.iter().map(|(q, f)| (q.cloned(), Arc::new(f.as_ref().clone().with_nullable(true)))).collect();
    Ok(Arc::new(DFSchema::new_with_metadata(fields, schema.metadata().clone())?))
}

impl PartialEq for GapFill {
    fn eq(&self, other: &Self) -> bool {
        self.compared() == other.compared()
    }
}

impl Eq for GapFill {}

impl Hash for GapFill {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.compared().hash(state);
    }
}

impl PartialOrd for GapFill {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.compared().partial_cmp(&other.compared())
    }
}

impl UserDefinedLogicalNodeCore for GapFill {
    fn name(&self) -> &str {
        "GapFill"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GapFill: {} buckets by {}", self.starts_us.len(), self.schema.field(self.time_at).name())
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let Some(input) = inputs.pop().filter(|_| inputs.is_empty()) else { return internal_err!("GapFill has one input") };
        let schema = nullable(input.schema())?;
        Ok(Self { input, schema, ..self.clone() })
    }

    fn necessary_children_exprs(&self, _output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        // All of them: the positions are ours.
        Some(vec![(0..self.schema.fields().len()).collect()])
    }
}

/// Plans statements, gap filling among them.
#[derive(Debug)]
pub(super) struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, state: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(Self)]);
        planner.create_physical_plan(plan, state).await
    }
}

#[async_trait]
impl ExtensionPlanner for Planner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _context: &datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<GapFill>() else { return Ok(None) };
        let [input] = physical_inputs else { return internal_err!("GapFill has one input") };
        Ok(Some(Arc::new(GapFillExec::new(input.clone(), node.schema.inner().clone(), node.clone()))))
    }
}

/// The operator at work.
#[derive(Debug)]
struct GapFillExec {
    input: Arc<dyn ExecutionPlan>,
    node: GapFill,
    properties: Arc<PlanProperties>,
}

impl GapFillExec {
    fn new(input: Arc<dyn ExecutionPlan>, schema: SchemaRef, node: GapFill) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { input, node, properties: Arc::new(properties) }
    }

    fn ordering(&self) -> Option<LexOrdering> {
        let schema = self.input.schema();
        let sorted = self.node.keys.iter().chain([&self.node.time_at]).filter_map(|&i| {
            let expr = col(schema.field(i).name(), &schema).ok()?;
            // By position: two columns may have the same name.
            let expr = expr
                .downcast_ref::<datafusion::physical_expr::expressions::Column>()
                .map_or(expr.clone(), |c| Arc::new(datafusion::physical_expr::expressions::Column::new(c.name(), i)) as _);
            Some(PhysicalSortExpr { expr, options: SortOptions { descending: false, nulls_first: true } })
        });
        LexOrdering::new(sorted.collect::<Vec<_>>())
    }
}

impl DisplayAs for GapFillExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GapFillExec: buckets={}", self.node.starts_us.len())
    }
}

impl ExecutionPlan for GapFillExec {
    fn name(&self) -> &'static str {
        "GapFillExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition]
    }

    fn input_distribution_requirements(&self) -> datafusion::physical_plan::InputDistributionRequirements {
        datafusion::physical_plan::InputDistributionRequirements::new(vec![Distribution::SinglePartition])
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![self.ordering().map(|o| OrderingRequirements::new(o.into()))]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<datafusion::common::tree_node::TreeNodeRecursion>,
    ) -> Result<datafusion::common::tree_node::TreeNodeRecursion> {
        Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(input) = children.pop() else { return internal_err!("GapFillExec has one input") };
        Ok(Arc::new(Self::new(input, self.schema(), self.node.clone())))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let filler = Filler::new(self.input.execute(partition, context)?, self.schema(), self.node.clone())?;
        let batches =
            futures::stream::try_unfold(filler, |mut filler| async move { Ok(filler.next().await?.map(|batch| (batch, filler))) });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}

/// Reads the input group by group.
struct Filler {
    input: SendableRecordBatchStream,
    schema: SchemaRef,
    node: GapFill,
    converter: RowConverter,
    /// The group being read: its key, and its rows so far.
    group: Option<(OwnedRow, Vec<RecordBatch>)>,
    /// Groups that are filled, and how many rows they are.
    filled: VecDeque<RecordBatch>,
    n_filled: usize,
    ended: bool,
}

impl Filler {
    fn new(input: SendableRecordBatchStream, schema: SchemaRef, node: GapFill) -> Result<Self> {
        // Without further groups everything has the same key: that of an unchanging column.
        let mut fields: Vec<SortField> = node.keys.iter().map(|&i| SortField::new(schema.field(i).data_type().clone())).collect();
        if fields.is_empty() {
            fields.push(SortField::new(arrow::datatypes::DataType::Null));
        }
        let converter = RowConverter::new(fields)?;
        Ok(Self { input, schema, node, converter, group: None, filled: VecDeque::new(), n_filled: 0, ended: false })
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        while self.n_filled < BATCH_ROWS && !self.ended {
            match self.input.next().await {
                Some(batch) => self.read(&batch?)?,
                None => {
                    self.finish_group()?;
                    self.ended = true;
                }
            }
        }
        if self.filled.is_empty() {
            return Ok(None);
        }
        self.n_filled = 0;
        let parts: Vec<RecordBatch> = self.filled.drain(..).collect();
        Ok(Some(concat_batches(&self.schema, &parts)?))
    }

    fn read(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut keys: Vec<ArrayRef> = self.node.keys.iter().map(|&i| batch.column(i).clone()).collect();
        if keys.is_empty() {
            keys.push(Arc::new(arrow::array::NullArray::new(batch.num_rows())));
        }
        let rows = self.converter.convert_columns(&keys)?;
        let mut from = 0;
        while from < batch.num_rows() {
            let key = rows.row(from);
            let to = (from + 1..batch.num_rows()).find(|&i| rows.row(i) != key).unwrap_or(batch.num_rows());
            let same = self.group.as_ref().is_some_and(|(open, _)| open.row() == key);
            if !same {
                self.finish_group()?;
            }
            let part = batch.slice(from, to - from);
            match &mut self.group {
                Some((_, parts)) => parts.push(part),
                None => self.group = Some((key.owned(), vec![part])),
            }
            from = to;
        }
        Ok(())
    }

    fn finish_group(&mut self) -> Result<()> {
        if let Some((_, parts)) = self.group.take() {
            let rows = concat_batches(&parts[0].schema(), &parts)?;
            let filled = fill(&self.node, &self.schema, &rows)?;
            self.n_filled += filled.num_rows();
            self.filled.push_back(filled);
        }
        Ok(())
    }
}

/// The rows of one group with those that are missing.
fn fill(node: &GapFill, schema: &SchemaRef, rows: &RecordBatch) -> Result<RecordBatch> {
    let times = rows.column(node.time_at).as_primitive_opt::<TimestampMicrosecondType>();
    let times = times.ok_or_else(|| internal_datafusion_err!("the time of a bucket is in microseconds"))?;
    // For each row of the answer its time, and the row that it comes from.
    let mut out_times: Vec<Option<i64>> = Vec::with_capacity(node.starts_us.len());
    let mut from: Vec<Option<u32>> = Vec::with_capacity(node.starts_us.len());
    let mut starts = node.starts_us.iter().copied().peekable();
    for (i, time) in times.iter().enumerate() {
        if let Some(time) = time {
            while let Some(start) = starts.next_if(|&s| s < time) {
                out_times.push(Some(start));
                from.push(None);
            }
            starts.next_if_eq(&time);
        }
        out_times.push(time);
        from.push(Some(u32::try_from(i).map_err(|_| internal_datafusion_err!("a group of more than 2^32 rows"))?));
    }
    for start in starts {
        out_times.push(Some(start));
        from.push(None);
    }

    let mut columns = Vec::with_capacity(rows.num_columns());
    for (i, column) in rows.columns().iter().enumerate() {
        columns.push(if i == node.time_at {
            Arc::new(TimestampMicrosecondArray::from(out_times.clone()).with_data_type(times.data_type().clone())) as ArrayRef
        } else if node.keys.contains(&i) {
            take(column, &UInt32Array::from(vec![0; from.len()]), None)?
        } else {
            match node.fills[i] {
                Fill::Null => take(column, &UInt32Array::from(from.clone()), None)?,
                Fill::Last => take(column, &UInt32Array::from(last_known(column, &from)), None)?,
                Fill::Between => between(column, &from, &out_times)?,
            }
        });
    }
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

/// For each row the last one up to it that has a value.
fn last_known(column: &ArrayRef, from: &[Option<u32>]) -> Vec<Option<u32>> {
    let mut last = None;
    let known = |row: u32| column.is_valid(row as usize);
    from.iter()
        .map(|row| {
            last = row.filter(|&r| known(r)).or(last);
            last
        })
        .collect()
}

/// Numbers on straight lines between those that are known; null before the first and after the last.
fn between(column: &ArrayRef, from: &[Option<u32>], times: &[Option<i64>]) -> Result<ArrayRef> {
    let values = column.as_primitive_opt::<Float64Type>().ok_or_else(|| internal_datafusion_err!("only numbers can be interpolated"))?;
    let mut out: Vec<Option<f64>> =
        from.iter().map(|row| row.filter(|&r| values.is_valid(r as usize)).map(|r| values.value(r as usize))).collect();
    let mut before: Option<usize> = None;
    for i in 0..out.len() {
        let (Some(value), Some(time)) = (out[i], times[i]) else { continue };
        if let Some(b) = before
            && let (Some(first), Some(since)) = (out[b], times[b])
        {
            for j in b + 1..i {
                if let Some(at) = times[j] {
                    out[j] = Some(first + (value - first) * ((at - since) as f64 / (time - since) as f64));
                }
            }
        }
        before = Some(i);
    }
    Ok(Arc::new(Float64Array::from(out)))
}
