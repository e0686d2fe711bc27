//! Which entities have values of a time: only the keys of rows are read, and only of row groups that may have such rows.

use std::collections::BTreeSet;
use std::ops::Range;

use arrow::record_batch::RecordBatch;
use entity::Instant;

use super::super::{FirstIds, HistoryError, TimeProperty, Within};
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
) -> Result<Within, HistoryError> {
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
    // Corrections speak of the same moments; what was erased may be all of one.
    let mut within = Within::new(max, is_observed && layers.erasures.is_none());
    let none = BTreeSet::new();
    for segment in &layers.segments {
        let groups = segment.units(&wanted)?.iter().map(|u| u.row_group_idx).collect();
        let take = |batch: RecordBatch, ids: &mut FirstIds| {
            let keys = Keys::of(&batch);
            (0..batch.num_rows()).try_for_each(|row| ids.add_text(keys.entity.get(row).unwrap_or_default())).map_err(|e| segment.damaged(e))
        };
        segment.read(groups, &wanted, Attributes::Some(&none), |batch| take(batch, &mut within.here))?;
        marks::visit_texts(segment, &of_marks, |id, mark| if is_elsewhere(mark) { within.elsewhere.add_text(id) } else { Ok(()) })?;
    }
    let is_known = |at: Instant| as_of.is_none_or(|as_of| at <= as_of);
    for layer in &layers.recent {
        match layer {
            Layer::Facts(facts) => {
                for (id, rows) in &facts.entities {
                    // Rows are in the order of observed time, those without it first; marks are such.
                    let is_value = |key: &RowKey| key.mark.is_none() && wanted.recorded(key.recorded_at);
                    let found = match &wanted.observed {
                        Some(observed) if observed.is_empty() => false,
                        Some(observed) => rows.range(first_at(observed.start)..first_at(observed.end)).any(|(key, _)| is_value(key)),
                        None => rows.keys().any(is_value),
                    };
                    if found {
                        within.here.add(id.clone());
                    }
                    let mut marks = rows.keys().take_while(|key| key.observed_at.is_none()).filter(|key| is_known(key.recorded_at));
                    if marks.any(|key| key.mark().is_some_and(is_elsewhere)) {
                        within.elsewhere.add(id.clone());
                    }
                }
            }
            Layer::Bulk(bulk) if is_known(bulk.recorded_at) => {
                let rows = wanted_of(bulk.sheet.batch.clone(), &wanted).map_err(|e| columnar(e.to_string()))?;
                let keys = Keys::of(&rows);
                (0..rows.num_rows())
                    .try_for_each(|row| within.here.add_text(keys.entity.get(row).unwrap_or_default()))
                    .map_err(columnar)?;
            }
            Layer::Bulk(_) => {}
        }
    }
    Ok(within)
}

/// Before all rows observed at this time.
const fn first_at(observed_at: Instant) -> RowKey {
    RowKey { observed_at: Some(observed_at), recorded_at: Instant::MIN, dataset_id: None, mark: None }
}

/// Does it say that the values of an entity of this type are in another table?
const fn is_elsewhere(mark: Mark<'_>) -> bool {
    !mark.is_at_home()
}
