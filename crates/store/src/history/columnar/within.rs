//! Which entities have values of a time: only the keys of rows are read, and only of row groups that may have such rows.

use std::collections::BTreeSet;
use std::ops::Range;

use arrow::record_batch::RecordBatch;
use entity::{Instant, Iri};

use super::super::{FirstIds, HistoryError, TimeProperty};
use super::marks::{self, Mark};
use super::recent::{Layer, RowKey};
use super::scan::Layers;
use super::segment::{Attributes, Keys, Wanted, wanted_of};

/// See [`super::History::entity_ids_within`].
pub(super) fn entity_ids(
    layers: &Layers,
    (property, interval): (TimeProperty, &Range<Instant>),
    as_of: Option<Instant>,
    max: usize,
) -> Result<BTreeSet<Iri>, HistoryError> {
    let columnar = |reason: String| HistoryError::Columnar { entity_type: layers.table.entity_type.clone(), reason };
    let is_observed = property == TimeProperty::ObservedAt;
    let wanted = Wanted {
        observed: is_observed.then(|| interval.clone()),
        // What was recorded or created in the interval was not recorded before it.
        recorded_from: (!is_observed).then_some(interval.start),
        recorded_to: as_of,
        values_only: true,
        ..Wanted::default()
    };
    let of_marks = Wanted { recorded_to: as_of, ..Wanted::default() };
    let mut ids = FirstIds::new(max);
    let none = BTreeSet::new();
    for segment in &layers.segments {
        let groups = segment.units(&wanted)?.iter().map(|u| u.row_group_idx).collect();
        let take = |batch: RecordBatch, ids: &mut FirstIds| {
            let keys = Keys::of(&batch);
            (0..batch.num_rows()).try_for_each(|row| ids.add_text(keys.entity.get(row).unwrap_or_default())).map_err(|e| segment.damaged(e))
        };
        segment.read(groups, &wanted, Attributes::Some(&none), |batch| take(batch, &mut ids))?;
        marks::visit_texts(segment, &of_marks, |id, mark| if is_elsewhere(mark) { ids.add_text(id) } else { Ok(()) })?;
    }
    let is_known = |at: Instant| as_of.is_none_or(|as_of| at <= as_of);
    for layer in &layers.recent {
        match layer {
            Layer::Facts(facts) => {
                for (id, rows) in &facts.entities {
                    let is_value =
                        |key: &RowKey| key.mark.is_none() && wanted.observed(key.observed_at) && wanted.recorded(key.recorded_at);
                    let is_one = |key: &RowKey| is_known(key.recorded_at) && (is_value(key) || key.mark().is_some_and(is_elsewhere));
                    if rows.keys().any(is_one) {
                        ids.add(id.clone());
                    }
                }
            }
            Layer::Bulk(bulk) if is_known(bulk.recorded_at) => {
                let rows = wanted_of(bulk.sheet.batch.clone(), &wanted).map_err(|e| columnar(e.to_string()))?;
                let keys = Keys::of(&rows);
                (0..rows.num_rows()).try_for_each(|row| ids.add_text(keys.entity.get(row).unwrap_or_default())).map_err(columnar)?;
            }
            Layer::Bulk(_) => {}
        }
    }
    Ok(ids.found)
}

/// Does it say that the values of an entity of this type are in another table?
const fn is_elsewhere(mark: Mark<'_>) -> bool {
    !mark.is_at_home()
}
