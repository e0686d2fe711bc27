//! What `EXPLAIN` shows of the reading of a table.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties};

/// A reading that says what it leaves out: the engine's own one only knows its columns.
pub(crate) struct Explained {
    name: &'static str,
    what: String,
    /// What takes time to find out, and is asked for by `EXPLAIN` only.
    more: Option<Arc<dyn Fn() -> String + Send + Sync>>,
    reading: Arc<dyn ExecutionPlan>,
}

impl fmt::Debug for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(self.name).field("what", &self.what).field("reading", &self.reading).finish_non_exhaustive()
    }
}

impl Explained {
    /// `reading` is a leaf; `what` is said after the name in `EXPLAIN`.
    pub(crate) fn new(name: &'static str, what: String, reading: Arc<dyn ExecutionPlan>) -> Self {
        Self { name, what, more: None, reading }
    }

    /// With more to say in `EXPLAIN`.
    pub(crate) fn with_more(self, more: Arc<dyn Fn() -> String + Send + Sync>) -> Self {
        Self { more: Some(more), ..self }
    }

    fn said(&self) -> String {
        self.more.as_ref().map_or_else(|| self.what.clone(), |more| format!("{}{}", self.what, more()))
    }
}

impl DisplayAs for Explained {
    fn fmt_as(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match kind {
            DisplayFormatType::TreeRender => write!(f, "{}", self.said()),
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "{}: {}", self.name, self.said())?;
                self.reading.fetch().map_or(Ok(()), |n| write!(f, ", limit={n}"))
            }
        }
    }
}

impl ExecutionPlan for Explained {
    fn name(&self) -> &'static str {
        self.name
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.reading.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { Err(DataFusionError::Internal(format!("{} has no children", self.name))) }
    }

    fn fetch(&self) -> Option<usize> {
        self.reading.fetch()
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        let reading = self.reading.with_fetch(limit)?;
        Some(Arc::new(Self { name: self.name, what: self.what.clone(), more: self.more.clone(), reading }))
    }

    fn execute(&self, partition: usize, task: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.reading.execute(partition, task)
    }
}
