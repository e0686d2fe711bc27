//! A notification as it comes together, from the changes of one record or from what is held back.

use std::collections::HashMap;
use std::sync::Arc;

use entity::{Entity, Instant, Iri};
use store::Committed;

use super::recipient::ENTITIES_PER_NOTIFICATION_MAX;
use crate::subscription::{Cause, Notification};

/// Entities that are told, each once: in its last state, beside the one that it had before all of the changes.
#[derive(Debug)]
pub(super) struct Told {
    position: u64,
    first_position: u64,
    since: Instant,
    items: Vec<Item>,
    place_by_id: HashMap<Iri, usize>,
}

#[derive(Clone, Debug)]
enum Item {
    Present(Arc<Entity>, Option<Arc<Entity>>),
    Gone(Arc<Entity>, Instant),
}

impl Told {
    pub(super) fn new(change: &Committed) -> Self {
        let mut told = Self {
            position: change.position,
            first_position: change.position,
            since: change.recorded_at,
            items: Vec::with_capacity(1),
            place_by_id: HashMap::new(),
        };
        told.add(change);
        told
    }

    pub(super) fn n_entities(&self) -> usize {
        self.items.len()
    }

    pub(super) const fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn add(&mut self, change: &Committed) {
        match (&change.after, &change.before) {
            (Some(after), before) => self.put(Item::Present(Arc::clone(after), before.clone())),
            (None, Some(before)) => self.put(Item::Gone(Arc::clone(before), change.recorded_at)),
            (None, None) => {}
        }
    }

    /// Adds what followed from later changes.
    pub(super) fn append(&mut self, later: Self) {
        self.position = later.position;
        later.items.into_iter().for_each(|item| self.put(item));
    }

    fn put(&mut self, item: Item) {
        // Nearly all notifications are of one entity.
        if self.items.is_empty() {
            return self.items.push(item);
        }
        if self.place_by_id.is_empty() {
            self.place_by_id.insert(self.items[0].entity().id.clone(), 0);
        }
        let next = self.items.len();
        let place = *self.place_by_id.entry(item.entity().id.clone()).or_insert(next);
        match (self.items.get_mut(place), item) {
            (None, item) => self.items.push(item),
            (Some(Item::Present(now, _)), Item::Present(later, _)) => *now = later,
            (Some(known), item) => *known = item,
        }
    }

    /// As notifications of at most [`ENTITIES_PER_NOTIFICATION_MAX`] entities each.
    pub(super) fn parts(&self) -> Vec<Notification> {
        let n_parts = self.items.len().div_ceil(ENTITIES_PER_NOTIFICATION_MAX);
        let part = |(i, items): (usize, &[Item])| {
            let mut n = Notification {
                cause: Cause::Change(self.position),
                part: i as u32,
                is_last_part: i + 1 == n_parts,
                entities: Vec::new(),
                deleted: Vec::new(),
                since: self.since,
                first_position: self.first_position,
            };
            for item in items {
                match item {
                    Item::Present(now, before) => n.entities.push((Arc::clone(now), before.clone())),
                    Item::Gone(entity, at) => n.deleted.push((Arc::clone(entity), *at)),
                }
            }
            n
        };
        self.items.chunks(ENTITIES_PER_NOTIFICATION_MAX).enumerate().map(part).collect()
    }
}

impl Item {
    fn entity(&self) -> &Entity {
        match self {
            Self::Present(e, _) | Self::Gone(e, _) => e,
        }
    }
}

/// Entities told at an interval, as notifications of at most [`ENTITIES_PER_NOTIFICATION_MAX`] each.
pub(super) fn at_interval(at: Instant, entities: &[Arc<Entity>]) -> Vec<Notification> {
    let n_parts = entities.len().div_ceil(ENTITIES_PER_NOTIFICATION_MAX);
    let part = |(i, entities): (usize, &[Arc<Entity>])| Notification {
        cause: Cause::Interval(at),
        part: i as u32,
        is_last_part: i + 1 == n_parts,
        // Nothing has changed: before is now.
        entities: entities.iter().map(|e| (Arc::clone(e), Some(Arc::clone(e)))).collect(),
        deleted: Vec::new(),
        since: at,
        first_position: 0,
    };
    entities.chunks(ENTITIES_PER_NOTIFICATION_MAX).enumerate().map(part).collect()
}
