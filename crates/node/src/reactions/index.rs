//! Which subscriptions a change may concern: found by id, type and attribute instead of by asking all of them.

use std::collections::HashMap;
use std::sync::Arc;

use entity::{Filter, Iri, TypeSelector};
use store::Committed;

use super::recipient::{Recipient, Watched};
use crate::subscription::Subscription;

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
        let cleared = before.filter(|_| change.delta.clear || after.is_none()).into_iter().flat_map(|b| b.attributes.keys());
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
    // Also of an entity that is new or gone, only those with a watched attribute are told.
    match (types_of(&subscription.filter), subscription.watched.as_ref()) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Trigger;
    use crate::metrics::Metrics;
    use crate::reactions::recipient::{Limits, Shared};
    use entity::{Attribute, Command, Entity, Instant, resolve};
    use proptest::prelude::*;
    use store::state::Space;

    fn iri(kind: &str, n: usize) -> Iri {
        Iri::known(&format!("urn:{kind}:{n}"))
    }

    fn filter() -> impl Strategy<Value = Filter> {
        let leaf = prop_oneof![
            (0..3_usize).prop_map(|n| Filter::Type(TypeSelector::Is(iri("t", n)))),
            prop::collection::vec(0..3_usize, 1..3)
                .prop_map(|l| Filter::Type(TypeSelector::Or(l.into_iter().map(|n| TypeSelector::Is(iri("t", n))).collect()))),
            Just(Filter::Type(TypeSelector::Any)),
            prop::collection::vec(0..3_usize, 1..3).prop_map(|l| Filter::Id(l.into_iter().map(|n| iri("x", n)).collect())),
            (0..3_usize).prop_map(|n| Filter::HasAnyOf(vec![iri("a", n)])),
            Just(Filter::all()),
        ];
        leaf.prop_recursive(3, 8, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 1..3).prop_map(Filter::And),
                prop::collection::vec(inner.clone(), 1..3).prop_map(Filter::Or),
                inner.prop_map(|f| Filter::Not(Box::new(f))),
            ]
        })
    }

    fn subscription() -> impl Strategy<Value = Subscription> {
        let triggers = [
            Trigger::EntityCreated,
            Trigger::EntityUpdated,
            Trigger::EntityDeleted,
            Trigger::AttributeCreated,
            Trigger::AttributeUpdated,
            Trigger::AttributeDeleted,
        ];
        let watched = prop::option::of(prop::collection::vec(0..3_usize, 1..3));
        (0..6_usize, filter(), watched, prop::sample::subsequence(triggers.to_vec(), 1..4)).prop_map(|(n, filter, watched, triggers)| {
            Subscription {
                id: format!("urn:s:{n}"),
                filter,
                watched: watched.map(|l| l.into_iter().map(|n| iri("a", n)).collect()),
                triggers,
                throttling_us: None,
                interval_us: None,
                endpoint: String::new(),
                expires_at: None,
                active: true,
                document: serde_json::Value::Null,
            }
        })
    }

    fn entity() -> impl Strategy<Value = Entity> {
        (0..3_usize, 0..3_usize, prop::collection::vec((0..3_usize, 0..2_i32), 0..3)).prop_map(|(id, t, attributes)| {
            let bare = Entity::new(iri("x", id), iri("t", t));
            attributes.into_iter().fold(bare, |e, (n, v)| e.with(iri("a", n), Attribute::property(v)))
        })
    }

    fn change() -> impl Strategy<Value = Committed> {
        (prop::option::of(entity()), entity(), 0..4_usize).prop_filter_map("it changes something", |(before, new, what)| {
            let before = before.map(|b| Entity { id: new.id.clone(), ..b });
            let command = match what {
                0 => Command::UpsertReplace(new),
                1 => Command::UpsertUpdate(new),
                2 => Command::Delete(new.id),
                _ => Command::DeleteAttribute { id: new.id, name: iri("a", 0), dataset_id: None, all: true },
            };
            let mut delta = resolve(command, before.as_ref()).ok()?.delta?;
            let after = delta.apply(before.clone(), Instant::from_secs(1)).ok()?.map(Arc::new);
            let recorded_at = Instant::from_secs(1);
            Some(Committed { position: 1, space: Space::City, recorded_at, before: before.map(Arc::new), after, delta: Arc::new(delta) })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Whom a change concerns is among those whom the index names, also after changes and ends of subscriptions.
        #[test]
        fn nobody_is_overlooked(all in prop::collection::vec(subscription(), 1..8), gone in 0..6_usize, change in change()) {
            let shared = Arc::new(Shared::new(Arc::new(host::SystemClock), Arc::new(Metrics::default()), Limits::default()));
            let mut index = Index::default();
            for s in &all {
                let watched = Arc::new(Watched::new(s.clone()));
                let recipient = Arc::new(Recipient::new(Arc::clone(&watched), Instant::default(), Arc::clone(&shared)));
                index.put(Entry { watched, recipient });
            }
            index.remove(&format!("urn:s:{gone}"));
            // Of several with one id the last one counts.
            let mut want: Vec<String> = Vec::new();
            for (i, s) in all.iter().enumerate() {
                let is_last = !all[i + 1..].iter().any(|later| later.id == s.id);
                if is_last && s.id != format!("urn:s:{gone}") && s.concerns(&change) {
                    want.push(s.id.clone());
                }
            }
            let mut found = Vec::new();
            index.candidates(&change, &mut found);
            let concerned = found.iter().map(|slot| &index.entry(*slot).watched.subscription).filter(|s| s.concerns(&change));
            let mut got: Vec<String> = concerned.map(|s| s.id.clone()).collect();
            want.sort();
            got.sort();
            prop_assert_eq!(got, want);
        }
    }
}
