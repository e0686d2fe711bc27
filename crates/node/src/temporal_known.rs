//! What is known of an entity besides its values: whether it is there, what it was, when something of it ended.

use std::ops::Range;
use std::sync::Arc;

use entity::{Entity, Instant, Iri, Scope};
use store::history::{About, Deletion, Fact, History, HistoryError, Marked, What};
use store::state::{LiveTable, Space};

use crate::error::NodeError;
use crate::node::Node;

/// The scopes that an entity had for some time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScopeSpan {
    /// The scopes; at least one.
    pub scopes: Vec<Scope>,
    /// When the entity was first in any scope.
    pub created_at: Instant,
    /// Since when it had these: when that was recorded.
    pub since: Instant,
    /// Until when; none if it still has them.
    pub until: Option<Instant>,
    /// It had no scope afterwards, or was removed.
    pub removed: bool,
}

impl ScopeSpan {
    /// Did it hold at any time of the interval?
    #[must_use]
    pub fn overlaps(&self, interval: &Range<Instant>) -> bool {
        self.since < interval.end && self.until.is_none_or(|until| until > interval.start)
    }
}

/// What is known of an entity besides its values.
pub(crate) struct Known {
    /// What it is, if it is there.
    pub(crate) present: Option<Arc<Entity>>,
    /// What it became and when, in the order of time.
    pub(crate) abouts: Vec<(Instant, About)>,
    /// Its ends and those of its attributes, in the order of time.
    pub(crate) deletions: Vec<Deletion>,
}

impl Known {
    /// Only what it is now.
    pub(crate) const fn of_present(present: Arc<Entity>) -> Self {
        Self { present: Some(present), abouts: Vec::new(), deletions: Vec::new() }
    }

    /// Its types: those that it has, or had last. Histories from before there were marks do not say it of what is gone.
    pub(crate) fn types(&self) -> Option<&[Iri]> {
        let last = || self.abouts.last().map(|(_, about)| about.types.as_slice());
        self.present.as_ref().map(|e| e.types.as_slice()).or_else(last)
    }

    /// When it was removed, if it is gone.
    pub(crate) fn deleted_at(&self) -> Option<Instant> {
        let last = || self.deletions.iter().filter(|d| d.attribute.is_none()).map(|d| d.deleted_at).max();
        if self.present.is_some() { None } else { last() }
    }

    /// Its first recording in its last life.
    pub(crate) fn created_at(&self) -> Option<Instant> {
        self.present.as_ref().map(|e| e.created_at).or_else(|| self.abouts.last().map(|(_, about)| about.created_at))
    }

    /// The scopes that it had, in the order of time.
    pub(crate) fn scope_spans(&self) -> Vec<ScopeSpan> {
        // What was put with the same change as a removal came after it.
        let ends = self.deletions.iter().filter(|d| d.attribute.is_none()).map(|d| (d.deleted_at, 0, None));
        let mut events: Vec<(Instant, u8, Option<&[Scope]>)> = ends.collect();
        events.extend(self.abouts.iter().map(|(at, about)| (*at, 1, Some(about.scopes.as_slice()))));
        events.sort_by_key(|(at, order, _)| (*at, *order));
        if self.abouts.is_empty()
            && let Some(present) = &self.present
        {
            events.push((present.created_at, 1, Some(&present.scopes)));
        }
        let mut spans: Vec<ScopeSpan> = Vec::new();
        let mut created_at = None;
        for (at, _, scopes) in events {
            let scopes = scopes.unwrap_or_default();
            let open = spans.last_mut().filter(|s| s.until.is_none());
            match open {
                Some(span) if span.scopes == scopes => continue,
                Some(span) => (span.until, span.removed) = (Some(at), scopes.is_empty()),
                None => {}
            }
            if scopes.is_empty() {
                created_at = None;
            } else {
                let created_at = *created_at.get_or_insert(at);
                spans.push(ScopeSpan { scopes: scopes.to_vec(), created_at, since: at, until: None, removed: false });
            }
        }
        spans
    }
}

impl Node {
    /// What is known of an entity as of a recorded time (none for now).
    pub(crate) fn known(&self, id: &Iri, as_of: Option<Instant>) -> Result<Known, NodeError> {
        let (table, history) = (self.store.table(Space::City), self.store.history());
        let present = present(table, history, id, as_of)?;
        let mut known = Known { present, abouts: Vec::new(), deletions: Vec::new() };
        let mut ends = Vec::new();
        history.visit_marks(Marked::Entity(id), as_of, &mut |fact| match fact {
            Fact { what: What::Became(about), recorded_at, .. } => known.abouts.push((recorded_at, about)),
            end @ Fact { what: What::AttributeDeleted { .. } | What::EntityDeleted, .. } => ends.push(end),
            Fact { what: What::Value { .. } | What::Values(_) | What::Restated { .. }, .. } => {}
        })?;
        known.deletions.extend(ends.into_iter().filter_map(deletion_of));
        // Of what has several types there is a fact in the table of each; what was replayed after a crash is in two layers.
        known.abouts.sort();
        known.abouts.dedup();
        known.deletions.sort();
        known.deletions.dedup();
        Ok(known)
    }
}

/// The end that a fact is.
pub(crate) fn deletion_of(fact: Fact) -> Option<Deletion> {
    let Fact { entity_type, recorded_at: deleted_at, what, .. } = fact;
    let (attribute, dataset_id) = match what {
        What::AttributeDeleted { name, dataset_id } => (Some(name), dataset_id),
        What::EntityDeleted => (None, None),
        What::Value { .. } | What::Values(_) | What::Restated { .. } | What::Became(_) => return None,
    };
    Some(Deletion { deleted_at, attribute, dataset_id, entity_type })
}

fn present(table: &LiveTable, history: &dyn History, id: &Iri, as_of: Option<Instant>) -> Result<Option<Arc<Entity>>, NodeError> {
    let now = table.try_get(id.as_str())?;
    let Some(at) = as_of else { return Ok(now) };
    match store::history::entity_as_of(history, id, at, now.as_deref()) {
        Ok(then) => Ok(then.map(Arc::new)),
        // Its values can be shown all the same.
        Err(HistoryError::TooLong { .. }) => Ok(now.filter(|e| e.created_at <= at)),
        Err(e) => Err(e.into()),
    }
}
