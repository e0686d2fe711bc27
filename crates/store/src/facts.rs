//! What the history keeps of changes.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use entity::{Attribute, Entity, Iri};

use crate::committer::Committed;
use crate::hash::FastMap;
use crate::history::{About, Fact, What};
use crate::state::Space;

/// What the history keeps of the changes of one record, in their order.
#[must_use]
pub fn facts_of(changes: &[Committed]) -> Vec<Fact> {
    let mut facts = Vec::new();
    push_facts(changes, &mut facts);
    facts
}

/// Adds what the history keeps of the changes of one record.
pub(crate) fn push_facts(changes: &[Committed], facts: &mut Vec<Fact>) {
    push_abouts(changes, facts);
    for (i, change) in changes.iter().enumerate() {
        push_values(change, facts);
        push_restated(change, &changes[i..], facts);
    }
}

/// Adds what a change put in the place of something observed later. `and_after`: this change and those of the same record after it.
fn push_restated(change: &Committed, and_after: &[Committed], facts: &mut Vec<Fact>) {
    let (Some(before), Space::City) = (&change.before, change.space) else { return };
    for (name, put) in change.delta.put.iter().filter(|(_, put)| put.observed_at.is_some()) {
        let instance = |e: &Entity| e.instance_named(name, put.dataset_id.as_ref()).and_then(|i| i.observed_at);
        if instance(before) <= put.observed_at {
            continue;
        }
        // What the record leaves is what was known then: of the values that it brings at one time only that one counts.
        let last = and_after.iter().rev().find(|c| c.delta.id == change.delta.id).and_then(|c| c.after.as_deref());
        let Some((last, observed_at)) = last.and_then(|e| Some((e, instance(e)?))) else { continue };
        let what = What::Restated { name: name.clone(), dataset_id: put.dataset_id.clone(), observed_at };
        let Some(entity_type) = last.types.first().cloned() else { continue };
        facts.push(Fact { entity_type, entity: last.id.clone(), recorded_at: change.recorded_at, what });
    }
}

/// Adds what entities became besides their attributes, if they became something else: with its last change in the record, so there is one
/// fact per entity and recorded time, in the table of each type that it has.
pub(crate) fn push_abouts(changes: &[Committed], facts: &mut Vec<Fact>) {
    let is_wanted = |c: &&Committed| c.space == Space::City && is_other(c.before.as_deref(), c.after.as_deref());
    let mut wanted = changes.iter().filter(is_wanted);
    let Some(first) = wanted.next() else { return };
    let Some(second) = wanted.next() else { return push_about(first, first, facts) };
    // Nearly all records change an entity once; of more changes the first one says what it was, the last one what it became.
    let mut idx_by_id: FastMap<&Iri, usize> = FastMap::default();
    let mut spans: Vec<(&Committed, &Committed)> = Vec::new();
    for change in [first, second].into_iter().chain(wanted) {
        match idx_by_id.entry(&change.delta.id) {
            Entry::Occupied(known) => spans[*known.get()].1 = change,
            Entry::Vacant(slot) => {
                slot.insert(spans.len());
                spans.push((change, change));
            }
        }
    }
    for (first, last) in spans {
        push_about(first, last, facts);
    }
}

fn push_about(first: &Committed, last: &Committed, facts: &mut Vec<Fact>) {
    let Some(after) = last.after.as_deref().filter(|after| is_other(first.before.as_deref(), Some(after))) else { return };
    let about = About::of(after);
    for entity_type in &about.types {
        facts.push(Fact {
            entity_type: entity_type.clone(),
            entity: after.id.clone(),
            recorded_at: last.recorded_at,
            what: What::Became(about.clone()),
        });
    }
}

fn is_other(before: Option<&Entity>, after: Option<&Entity>) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => {
            before.types != after.types
                || before.scopes != after.scopes
                || before.expires_at != after.expires_at
                || before.created_at != after.created_at
        }
        (before, after) => before.is_some() != after.is_some(),
    }
}

/// Adds the values that a change brought, and what it removed.
fn push_values(change: &Committed, facts: &mut Vec<Fact>) {
    let Some(entity_type) = change.after.as_ref().or(change.before.as_ref()).and_then(|e| e.types.first()) else { return };
    if change.space != Space::City {
        return;
    }
    let fact = |what| Fact { entity_type: entity_type.clone(), entity: change.delta.id.clone(), recorded_at: change.recorded_at, what };
    if change.delta.delete {
        facts.push(fact(What::EntityDeleted));
        return;
    }
    for (name, dataset_id) in &change.delta.remove {
        facts.push(fact(What::AttributeDeleted { name: name.clone(), dataset_id: dataset_id.clone() }));
    }
    if change.delta.clear
        && let Some(before) = &change.before
    {
        for (name, instances) in &before.attributes {
            for gone in instances.iter().filter(|i| !change.delta.put.iter().any(|(n, a)| n == name && a.dataset_id == i.dataset_id)) {
                facts.push(fact(What::AttributeDeleted { name: name.clone(), dataset_id: gone.dataset_id.clone() }));
            }
        }
    }
    // Nearly always everything that an entity reports together was observed together.
    let row_of = |(_, instance): &(Iri, Arc<Attribute>)| (instance.observed_at, instance.dataset_id.clone());
    for list in [&change.delta.put, &change.delta.late] {
        facts.extend(list.chunk_by(|a, b| row_of(a) == row_of(b)).map(|values| fact(What::Values(values.to_vec()))));
    }
}
