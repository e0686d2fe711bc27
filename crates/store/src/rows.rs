//! Observations in bulk: what a batch of columns does to the present state.
//!
//! The history takes the batch as it is; here only the newest value of each entity and attribute becomes an [`Attribute`], and only if it is
//! newer than the present one. Everything that needs no state is done on the thread of the one who submits.

use std::sync::Arc;

use arrow::array::Array;
use arrow::record_batch::RecordBatch;
use entity::{Attribute, Delta, Entity, Instant, Iri};

use crate::committer::SubmitError;
use crate::history::{BulkRows, BulkRowsError};
use crate::log::FRAME_BYTES_MAX;
use crate::record::{RecordError, RowsDraft};
use crate::state::DocumentsError;

/// The largest record of rows, in bytes: with the deltas of its entities it must fit into one batch of the log.
pub const ROWS_BYTES_MAX: usize = FRAME_BYTES_MAX / 3;

/// No row.
const NONE: u32 = u32::MAX;

/// Why rows were not taken; nothing of them was.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SubmitRowsError {
    /// The batch is not one of rows.
    #[error("the rows are not valid")]
    Rows(#[from] BulkRowsError),
    /// There is nothing in it.
    #[error("there are no rows")]
    Empty,
    /// The batch is too large for one record.
    #[error("{n_rows} rows of {found_bytes} bytes are more than the limit of {ROWS_BYTES_MAX} bytes at once")]
    TooLarge {
        /// Rows in it.
        n_rows: usize,
        /// Its size in the log.
        found_bytes: usize,
    },
    /// The columns cannot be written.
    #[error("the rows cannot be written to the log")]
    Record(#[source] Arc<RecordError>),
    /// The entity is something else, and its past is in another table.
    #[error("row {row}: entity `{id}` is of type `{found}`, not `{wanted}`")]
    OtherType {
        /// The first row that names it, counted from 0.
        row: usize,
        /// The entity.
        id: Iri,
        /// Its first type.
        found: Iri,
        /// The type that the rows were submitted for.
        wanted: Iri,
    },
    /// They could not be made durable.
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

/// What came of rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TakenRows {
    /// Position of their record in the log.
    pub position: u64,
    /// When they were recorded.
    pub recorded_at: Instant,
    /// Rows taken.
    pub n_rows: usize,
    /// Entities that are new.
    pub n_created: usize,
}

/// A delta with the entity before it.
pub(crate) type NewDelta = (Option<Arc<Entity>>, Delta);

/// Rows that are valid, prepared for the committer.
pub(crate) struct Rows {
    bulk: BulkRows,
    /// By entity, then attribute: the row with the newest value.
    newest: Vec<u32>,
    draft: RowsDraft,
}

impl Rows {
    pub(crate) fn new(entity_type: Iri, batch: RecordBatch) -> Result<Self, SubmitRowsError> {
        let bulk = BulkRows::new(entity_type, Instant::default(), batch)?;
        let n_rows = bulk.batch().num_rows();
        if n_rows == 0 {
            return Err(SubmitRowsError::Empty);
        }
        let draft = RowsDraft::new(bulk.entity_type(), bulk.batch()).map_err(|e| SubmitRowsError::Record(Arc::new(e)))?;
        if draft.len() > ROWS_BYTES_MAX {
            return Err(SubmitRowsError::TooLarge { n_rows, found_bytes: draft.len() });
        }
        let newest = newest_rows(&bulk);
        Ok(Self { bulk, newest, draft })
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.bulk.batch().num_rows()
    }

    /// What changes in the state, with what there was before; an entity for which there is nothing new is left out.
    pub(crate) fn deltas(
        &self,
        mut present: impl FnMut(&Iri) -> Result<Option<Arc<Entity>>, DocumentsError>,
    ) -> Result<Vec<NewDelta>, SubmitRowsError> {
        let mut deltas = Vec::with_capacity(self.bulk.entities().len());
        for (idx, id) in self.bulk.entities().iter().enumerate() {
            let before = present(id).map_err(SubmitError::from)?;
            let wanted = self.bulk.entity_type();
            if let Some(found) = before.as_ref().and_then(|e| e.types.first()).filter(|t| *t != wanted) {
                let row = self.bulk.entity_idxs().iter().position(|&i| i as usize == idx).unwrap_or_default();
                return Err(SubmitRowsError::OtherType { row, id: id.clone(), found: found.clone(), wanted: wanted.clone() });
            }
            let put = self.news_of(idx, before.as_deref());
            if !put.is_empty() || before.is_none() {
                let types = if before.is_none() { vec![wanted.clone()] } else { Vec::new() };
                let delta = Delta {
                    id: id.clone(),
                    delete: false,
                    clear: false,
                    types,
                    scopes: None,
                    put,
                    late: Vec::new(),
                    remove: Vec::new(),
                    expires_at: None,
                };
                deltas.push((before, delta));
            }
        }
        Ok(deltas)
    }

    /// The newest values of an entity, as far as they are not older than the present ones.
    fn news_of(&self, entity_idx: usize, before: Option<&Entity>) -> Vec<(Iri, Arc<Attribute>)> {
        let names = self.bulk.attributes();
        let rows = &self.newest[entity_idx * names.len()..][..names.len()];
        let mut put = Vec::new();
        for (attribute_idx, (name, &row)) in names.iter().zip(rows).enumerate() {
            let Some(value) = (row != NONE).then(|| self.bulk.value(attribute_idx, row as usize)).flatten() else { continue };
            let mut instance = Attribute::property(value).observed(Instant::from_micros(self.bulk.observed_us()[row as usize]));
            instance.unit_code = self.bulk.unit_code(attribute_idx).map(Into::into);
            let present = before.and_then(|e| e.attribute(name.as_str()));
            if present.is_none_or(|p| p.observed_at <= instance.observed_at && !p.says_the_same_as(&instance)) {
                put.push((name.clone(), Arc::new(instance)));
            }
        }
        put
    }

    /// The record for the log and the rows for the history.
    pub(crate) fn finish(self, recorded_at: Instant, deltas: &[&Delta]) -> (Vec<u8>, BulkRows) {
        (self.draft.finish(recorded_at, deltas), self.bulk.recorded(recorded_at))
    }
}

/// The row with the newest value of each entity and attribute; of equal times the later row.
fn newest_rows(bulk: &BulkRows) -> Vec<u32> {
    let n_attributes = bulk.attributes().len();
    let times = bulk.observed_us();
    let mut newest = vec![NONE; bulk.entities().len() * n_attributes];
    for attribute_idx in 0..n_attributes {
        let values = bulk.batch().column(attribute_idx + 2);
        let nulls = values.nulls().filter(|n| n.null_count() > 0);
        for (row, &entity_idx) in bulk.entity_idxs().iter().enumerate() {
            if nulls.is_some_and(|n| n.is_null(row)) {
                continue;
            }
            let slot = &mut newest[entity_idx as usize * n_attributes + attribute_idx];
            if *slot == NONE || times[*slot as usize] <= times[row] {
                *slot = row as u32;
            }
        }
    }
    newest
}
