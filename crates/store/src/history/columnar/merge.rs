//! Small files of one table become one: a node that seals each hour would otherwise have thousands of them after a year.
//!
//! Files are in the order in which they were written, the newest last. Once [`RUN_MIN`] of one class of size have gathered at the end, these
//! and the smaller ones behind them are read, written as one and replaced, which then belongs to the next class. So each fact is rewritten a
//! few times at most, and a table has a file per [`FINAL_ROWS`] of rows and some twenty more. The memory of a merge is bounded: it takes at most
//! [`RUN_MAX`] files, none of which is final.

use std::path::Path;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use entity::Iri;

use super::super::value::merge_seen;
use super::super::{Fact, HistoryError, Segment, What};
use super::cell::{self, Place};
use super::recent::{ENTITY_DELETED, Recent};
use super::segment::{AttributeColumns, Attributes, Keys, Metas, OpenSegment, Wanted};
use super::write::{self, FileColumn};

/// So many files of a class are merged.
pub(super) const RUN_MIN: usize = 8;
/// So many files are merged at once, at most.
const RUN_MAX: usize = 24;
/// Files of so many rows stay as they are.
const FINAL_ROWS: u64 = 16_384;
/// The classes of size, from the smallest on: rows from, and below.
const CLASSES: [(u64, u64); 3] = [(0, 256), (256, 2_048), (2_048, FINAL_ROWS)];

/// How many of the last files of a table, given by their rows, should become one; none if all is well.
pub(super) fn n_to_merge(rows: &[u64]) -> Option<usize> {
    let run = |(from, below): &(u64, u64)| {
        let run = rows.iter().rev().take_while(|n| *n < below);
        let n_of_class = run.clone().filter(|n| *n >= from).count();
        (n_of_class >= RUN_MIN).then(|| run.count().min(RUN_MAX))
    };
    CLASSES.iter().find_map(run)
}

/// Writes the rows of `segments`, which are of one table and in their order, to one new file.
pub(super) fn merge(dir: &Path, file: &str, segments: &[Arc<OpenSegment>]) -> Result<Segment, HistoryError> {
    let mut all = Recent::default();
    for s in segments {
        let entity_type = &s.segment.entity_type;
        for unit in s.units(&Wanted::default()) {
            s.read(vec![unit.row_group_idx], &Wanted::default(), Attributes::All, |batch| {
                let facts = facts_of(&batch, &s.footer.columns, entity_type).map_err(|reason| s.damaged(reason))?;
                facts.into_iter().for_each(|fact| all.append(fact));
                Ok(())
            })?;
        }
    }
    let (entity_type, mut table) = all.tables.pop_first().expect("segments have rows");
    // Values that were replaced have been seen, too.
    for s in segments {
        merge_seen(&mut table.seen, &s.footer.seen);
    }
    write::write_segment(dir, file, &entity_type, &table)
}

/// The facts of a batch. Errors: what cannot be read, in words.
fn facts_of(batch: &RecordBatch, columns: &[FileColumn], entity_type: &Iri) -> Result<Vec<Fact>, String> {
    let keys = Keys::of(batch);
    let mut attributes: Vec<(AttributeColumns<'_>, Metas)> =
        AttributeColumns::all(batch, columns).into_iter().map(|c| (c, Metas::default())).collect();
    let mut facts = Vec::new();
    for row in 0..batch.num_rows() {
        let recorded_at = keys.recorded_at(row);
        let entity = cell::iri(keys.entity.get(row).ok_or("a row without entity")?)?;
        let dataset_id = keys.dataset.get(row).map(cell::iri).transpose()?;
        let fact = |what| Fact { entity_type: entity_type.clone(), entity: entity.clone(), recorded_at, what };
        match keys.deleted.get(row) {
            Some(ENTITY_DELETED) => facts.push(fact(What::EntityDeleted)),
            Some(name) => facts.push(fact(What::AttributeDeleted { name: cell::iri(name)?, dataset_id: dataset_id.clone() })),
            None => {}
        }
        let place = Place { dataset_id: dataset_id.as_ref(), observed_at: keys.observed_at(row), recorded_at };
        for (columns, metas) in &mut attributes {
            let (number, text) = (columns.number_at(row), columns.text_at(row));
            if number.is_some() || text.is_some() {
                let instance = cell::decode(number, text, metas.of(columns, row)?, columns.column.integers, place)?;
                facts.push(fact(What::Value { name: columns.column.name.clone(), instance }));
            }
        }
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_at_the_end_are_merged_with_their_like() {
        check(&[], None);
        check(&[10; 7], None);
        check(&[10; 8], Some(8));
        check(&[100_000, 10, 10, 10, 10, 10, 10, 10, 10], Some(8));
        check(&[10, 100_000, 10, 10, 10, 10, 10, 10, 10], None);
        check(&[300, 300, 300, 300, 300, 300, 300, 10], None);
        check(&[300, 300, 300, 300, 300, 300, 300, 300, 10], Some(9));
        check(&[300, 10, 10, 10, 10, 10, 10, 10, 10], Some(8));
        check(&[10; 100], Some(RUN_MAX));
        check(&[FINAL_ROWS; 100], None);

        #[track_caller]
        fn check(rows: &[u64], want: Option<usize>) {
            assert_eq!(n_to_merge(rows), want, "{rows:?}");
        }
    }

    #[test]
    fn a_year_of_hourly_seals_leaves_few_files_and_rewrites_little() {
        let (mut files, mut n_rewritten): (Vec<u64>, u64) = (Vec::new(), 0);
        for hour in 0..8_760 {
            // 12 stations, of which one reports every second hour only.
            files.push(11 + hour % 2);
            while let Some(n) = n_to_merge(&files) {
                let merged = files.split_off(files.len() - n).iter().sum();
                n_rewritten += merged;
                files.push(merged);
            }
        }
        assert!(files.len() <= 30, "{files:?}");
        assert!(n_rewritten <= 5 * 8_760 * 12, "{n_rewritten}");
    }
}
