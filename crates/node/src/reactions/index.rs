//! Which subscriptions a change may concern: found by id, type and attribute instead of by asking all of them.

use std::collections::HashMap;
use std::sync::Arc;

use entity::{Filter, Iri, TypeSelector};
use store::Committed;

use super::recipient::{Recipient, Watched};
use crate::subscription::{Subscription, Trigger};

/// A subscription as it is at a position of the log, and who is told.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) watched: Arc<Watched>,
    pub(super) recipient: Arc<Recipient>,
}

/// Where a subscription is found.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Key {
    Entity(Iri),
    TypeAndAttribute(Iri, Iri),
    Type(Iri),
    Attribute(Iri),
    Any,
}

/// The subscriptions.
#[derive(Default)]
pub(super) struct Index {
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    by_id: HashMap<String, usize>,
    by_key: HashMap<Key, Vec<usize>>,
}

impl Index {
    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn put(&mut self, entry: Entry) {
        let subscription = &entry.watched.subscription;
        self.remove(&subscription.id);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        // What is told at intervals follows from no change.
        if subscription.interval_us.is_none() {
            for key in keys(subscription) {
                self.by_key.entry(key).or_default().push(slot);
            }
        }
        self.by_id.insert(subscription.id.clone(), slot);
        self.entries[slot] = Some(entry);
    }

    pub(super) fn remove(&mut self, id: &str) {
        let Some(slot) = self.by_id.remove(id) else { return };
        let Some(entry) = self.entries[slot].take() else { return };
        for key in keys(&entry.watched.subscription) {
            if let Some(list) = self.by_key.get_mut(&key) {
                list.retain(|s| *s != slot);
                if list.is_empty() {
                    self.by_key.remove(&key);
                }
            }
        }
        self.free.push(slot);
    }

    pub(super) fn entry(&self, slot: usize) -> &Entry {
        self.entries[slot].as_ref().expect("a key leads to an entry that is there")
    }

    pub(super) fn get(&self, id: &str) -> Option<&Entry> {
        self.by_id.get(id).map(|slot| self.entry(*slot))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().flatten()
    }

    /// The places of the subscriptions that a change may concern, in order, each once.
    pub(super) fn candidates(&self, change: &Committed, found: &mut Vec<usize>) {
        found.clear();
        let mut look = |key: Key| found.extend(self.by_key.get(&key).into_iter().flatten());
        look(Key::Any);
        look(Key::Entity(change.delta.id.clone()));
        let (before, after) = (change.before.as_deref(), change.after.as_deref());
        let types = after.or(before).map(|e| &e.types[..]).unwrap_or_default();
        let cleared = before.filter(|_| change.delta.clear).into_iter().flat_map(|b| b.attributes.keys());
        let named = change.delta.put.iter().map(|(n, _)| n).chain(change.delta.remove.iter().map(|(n, _)| n)).chain(cleared);
        for entity_type in types {
            look(Key::Type(entity_type.clone()));
        }
        for name in named {
            look(Key::Attribute(name.clone()));
            for entity_type in types {
                look(Key::TypeAndAttribute(entity_type.clone(), name.clone()));
            }
        }
        found.sort_unstable();
        found.dedup();
    }
}

/// Where to look for a subscription: it can concern a change only if one of these fits.
fn keys(subscription: &Subscription) -> Vec<Key> {
    if let Some(ids) = ids_of(&subscription.filter) {
        return ids.into_iter().map(Key::Entity).collect();
    }
    // Of an entity that is new or gone, what changed of its attributes does not matter.
    let only_attributes = !subscription.triggers.iter().any(|t| matches!(t, Trigger::EntityCreated | Trigger::EntityDeleted));
    let watched = subscription.watched.as_ref().filter(|_| only_attributes);
    match (types_of(&subscription.filter), watched) {
        (Some(types), Some(watched)) => {
            types.iter().flat_map(|t| watched.iter().map(|w| Key::TypeAndAttribute(t.clone(), w.clone()))).collect()
        }
        (Some(types), None) => types.into_iter().map(Key::Type).collect(),
        (None, Some(watched)) => watched.iter().cloned().map(Key::Attribute).collect(),
        (None, None) => vec![Key::Any],
    }
}

/// The ids of which an entity must have one; none if the condition does not say.
fn ids_of(filter: &Filter) -> Option<Vec<Iri>> {
    match filter {
        Filter::Id(ids) => Some(ids.clone()),
        Filter::And(all) => all.iter().find_map(ids_of),
        Filter::Or(any) => union(any.iter().map(ids_of)),
        _ => None,
    }
}

/// The types of which an entity must have one; none if the condition does not say.
fn types_of(filter: &Filter) -> Option<Vec<Iri>> {
    match filter {
        Filter::Type(selector) => types_of_selector(selector),
        Filter::And(all) => all.iter().find_map(types_of),
        Filter::Or(any) => union(any.iter().map(types_of)),
        _ => None,
    }
}

fn types_of_selector(selector: &TypeSelector) -> Option<Vec<Iri>> {
    match selector {
        TypeSelector::Any => None,
        TypeSelector::Is(t) => Some(vec![t.clone()]),
        TypeSelector::And(all) => all.iter().find_map(types_of_selector),
        TypeSelector::Or(any) => union(any.iter().map(types_of_selector)),
    }
}

/// All of them, if each says something.
fn union(lists: impl Iterator<Item = Option<Vec<Iri>>>) -> Option<Vec<Iri>> {
    let mut all: Vec<Iri> = lists.collect::<Option<Vec<_>>>()?.into_iter().flatten().collect();
    all.sort();
    all.dedup();
    Some(all)
}
