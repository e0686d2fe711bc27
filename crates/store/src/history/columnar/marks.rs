//! Rows that say something else than values: that an entity or an attribute was removed, what an entity became, or that a value observed
//! earlier became the present one.
//!
//! The column `deleted` (named in times when there was nothing else) says which; most files have no such rows, and are passed over by what
//! their statistics say.

use std::collections::BTreeSet;
use std::sync::Arc;

use entity::{Instant, Iri};
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use smol_str::SmolStr;

use super::super::erasure::{Erasable, Erasure, Erasures};
use super::super::{About, Fact, HistoryError, What};
use super::cell;
use super::recent::EntityRows;
use super::segment::{Attributes, DELETED, Keys, OpenSegment, Wanted};

/// What marks the row of a removed entity; an attribute's row is marked with its name, which begins with a letter.
const ENTITY_DELETED: &str = "*";
/// Begins what an entity became, in the table of its first type.
const BECAME: char = '=';
/// Begins the same in the table of a further type.
const BECAME_TOO: char = '+';
/// Begins that an attribute was restated: the µs since 1970 at which the value was observed, a blank, and the attribute.
const RESTATED: char = '~';

/// What a row says instead of values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mark<'a> {
    EntityDeleted,
    AttributeDeleted(&'a str),
    /// See [`About::to_text`].
    Became(&'a str),
    /// The same in the table of a further type, which has no values of the entity.
    BecameToo(&'a str),
    /// See [`restated`].
    Restated(&'a str),
}

/// What the mark of a restated attribute says.
pub(super) fn restated(name: &Iri, observed_at: Instant) -> String {
    format!("{} {name}", observed_at.micros())
}

impl<'a> Mark<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let mut rest = text.chars();
        match rest.next() {
            Some(BECAME) => Self::Became(rest.as_str()),
            Some(BECAME_TOO) => Self::BecameToo(rest.as_str()),
            Some(RESTATED) => Self::Restated(rest.as_str()),
            _ if text == ENTITY_DELETED => Self::EntityDeleted,
            _ => Self::AttributeDeleted(text),
        }
    }

    pub(super) fn to_text(self) -> SmolStr {
        match self {
            Self::EntityDeleted => SmolStr::new_static(ENTITY_DELETED),
            Self::AttributeDeleted(name) => SmolStr::new(name),
            Self::Became(about) => format!("{BECAME}{about}").into(),
            Self::BecameToo(about) => format!("{BECAME_TOO}{about}").into(),
            Self::Restated(text) => format!("{RESTATED}{text}").into(),
        }
    }

    /// The attribute that it is about; none if it is the entity.
    pub(super) fn attribute(self) -> Option<&'a str> {
        match self {
            Self::AttributeDeleted(name) => Some(name),
            Self::Restated(text) => text.split_once(' ').map(|(_, name)| name),
            Self::EntityDeleted | Self::Became(_) | Self::BecameToo(_) => None,
        }
    }

    /// Does it say that the entity's values are in this table?
    pub(super) const fn is_at_home(self) -> bool {
        !matches!(self, Self::BecameToo(_))
    }

    /// Does it say what there is, and not what there is no more of? Then it counts as long as no other one says something else.
    pub(super) const fn is_about_entity(self) -> bool {
        !matches!(self, Self::AttributeDeleted(_) | Self::Restated(_))
    }

    /// Errors: it is damaged, in words.
    fn what(self, dataset_id: Option<Iri>, recorded_at: Instant) -> Result<What, String> {
        Ok(match self {
            Self::EntityDeleted => What::EntityDeleted,
            Self::AttributeDeleted(name) => What::AttributeDeleted { name: cell::iri(name)?, dataset_id },
            Self::Became(text) | Self::BecameToo(text) => What::Became(About::of_text(text, recorded_at)?),
            Self::Restated(text) => {
                let parts = text.split_once(' ').and_then(|(us, name)| Some((us.parse().ok()?, name)));
                let (us, name) = parts.ok_or_else(|| format!("`{text}` is not a time and an attribute"))?;
                What::Restated { name: cell::iri(name)?, dataset_id, observed_at: Instant::from_micros(us) }
            }
        })
    }
}

/// Is this the index of a row that is at home in its table: a value, or a mark that is?
pub(super) fn is_at_home(keys: &Keys<'_>, row: usize) -> bool {
    keys.deleted.get(row).is_none_or(|text| Mark::of(text).is_at_home())
}

/// May rows of a row group be marks?
fn may_have(metadata: &ArrowReaderMetadata, row_group_idx: usize) -> bool {
    let group = metadata.metadata().row_group(row_group_idx);
    let n_others = group.column(DELETED).statistics().and_then(parquet::file::statistics::Statistics::null_count_opt);
    n_others.is_none_or(|n| u64::try_from(group.num_rows()) != Ok(n))
}

/// May a file have marks?
pub(super) fn may_be_in(segment: &OpenSegment) -> Result<bool, HistoryError> {
    let metadata = segment.metadata()?;
    Ok((0..metadata.metadata().num_row_groups()).any(|idx| may_have(&metadata, idx)))
}

/// Hands over the marks of one entity among rows in memory.
pub(super) fn visit_rows(
    (entity_type, entity): (&Iri, &Iri),
    rows: &EntityRows,
    erasures: &[&Erasure],
    as_of: Option<Instant>,
    visit: &mut dyn FnMut(Fact),
) -> Result<(), HistoryError> {
    for key in rows.keys() {
        let Some(mark) = key.mark().filter(|_| as_of.is_none_or(|as_of| key.recorded_at <= as_of)) else { continue };
        if !key.visibility(erasures)(mark.attribute()) {
            continue;
        }
        let what = mark.what(key.dataset_id.clone(), key.recorded_at);
        let what = what.map_err(|reason| HistoryError::Columnar { entity_type: entity_type.clone(), reason })?;
        visit(Fact { entity_type: entity_type.clone(), entity: entity.clone(), recorded_at: key.recorded_at, what });
    }
    Ok(())
}

/// Hands over the ids and marks of a file as they are written, erased or not. Errors: those of reading; what `visit` says is damaged.
pub(super) fn visit_texts(
    segment: &Arc<OpenSegment>,
    wanted: &Wanted,
    mut visit: impl FnMut(&str, Mark<'_>) -> Result<(), String>,
) -> Result<(), HistoryError> {
    let metadata = segment.metadata()?;
    let units = segment.units(wanted)?;
    let groups: Vec<usize> = units.iter().map(|u| u.row_group_idx).filter(|idx| may_have(&metadata, *idx)).collect();
    if groups.is_empty() {
        return Ok(());
    }
    let none = BTreeSet::new();
    segment.read(groups, wanted, Attributes::Some(&none), |batch| {
        let keys = Keys::of(&batch);
        let marked = (0..batch.num_rows()).filter_map(|row| Some((keys.entity.get(row)?, Mark::of(keys.deleted.get(row)?))));
        marked.into_iter().try_for_each(|(id, mark)| visit(id, mark)).map_err(|e| segment.damaged(e))
    })
}

/// Hands over the marks of a file.
pub(super) fn visit_segment(
    segment: &Arc<OpenSegment>,
    wanted: &Wanted,
    erasures: Option<&Erasures>,
    visit: &mut dyn FnMut(Fact),
) -> Result<(), HistoryError> {
    let metadata = segment.metadata()?;
    let units = segment.units(wanted)?;
    let groups: Vec<usize> = units.iter().map(|u| u.row_group_idx).filter(|idx| may_have(&metadata, *idx)).collect();
    if groups.is_empty() {
        return Ok(());
    }
    let entity_type = &segment.segment.entity_type;
    let none = BTreeSet::new();
    segment.read(groups, wanted, Attributes::Some(&none), |batch| {
        let keys = Keys::of(&batch);
        if keys.deleted.is_empty() {
            return Ok(());
        }
        for row in 0..batch.num_rows() {
            let Some(mark) = keys.deleted.get(row).map(Mark::of) else { continue };
            let (id, dataset_id, recorded_at) = (keys.entity.get(row).unwrap_or_default(), keys.dataset.get(row), keys.recorded_at(row));
            let erasable = Erasable { dataset_id, observed_at: None, recorded_at };
            let is_erased = |e: &&Erasure| e.concerns_row(&erasable) && e.concerns_attribute(mark.attribute());
            if erasures.is_some_and(|all| all.of(id, wanted.recorded_to).iter().any(is_erased)) {
                continue;
            }
            let damaged = |reason| segment.damaged(reason);
            let dataset_id = dataset_id.map(cell::iri).transpose().map_err(damaged)?;
            let (entity, what) = (cell::iri(id).map_err(damaged)?, mark.what(dataset_id, recorded_at).map_err(damaged)?);
            visit(Fact { entity_type: entity_type.clone(), entity, recorded_at, what });
        }
        Ok(())
    })
}
