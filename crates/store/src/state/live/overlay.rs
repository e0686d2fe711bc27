//! What documents on disk do not have yet: the entities changed since the last checkpoint.

use std::collections::VecDeque;
use std::sync::Arc;

use entity::{Attribute, AttributeValue, Attributes, Entity, Instances, Iri, Value};

use super::super::documents::{Changed, Document};
use crate::hash::FastMap;
use crate::state::Space;

/// Entities packed for each one that comes in, while memory is short.
const PACKED_PER_CHANGE: usize = 2;

/// The changes of one checkpoint.
pub(super) type Changes = FastMap<Iri, Waiting>;

/// What a checkpoint has to write of an entity.
#[derive(Clone)]
pub(super) struct Waiting {
    /// None: the entity is gone.
    pub(super) document: Option<Document>,
    /// About how many bytes of memory it takes.
    weight: usize,
}

impl Waiting {
    fn of(document: Option<Document>) -> Self {
        Self { weight: weight_of_document(document.as_ref()), document }
    }
}

/// Changes since the last checkpoint, and those that a checkpoint is writing.
#[derive(Default)]
pub(super) struct Overlay {
    current: Changes,
    /// What is being written; still read from here until it is on disk.
    frozen: Arc<Changes>,
    bytes: usize,
    frozen_bytes: usize,
    /// Entities that are not packed, in the order in which they came; may name some twice, and some that are gone.
    whole: VecDeque<Iri>,
    /// More than this, and entities are packed into their bytes.
    pack_above_bytes: usize,
}

impl Overlay {
    pub(super) fn new(pack_above_bytes: usize) -> Self {
        Self { pack_above_bytes, ..Self::default() }
    }

    /// The changed document of an entity that is there.
    pub(super) fn get(&self, id: &str) -> Option<&Document> {
        match self.current.get(id) {
            Some(found) => found.document.as_ref(),
            None => self.frozen.get(id)?.document.as_ref(),
        }
    }

    pub(super) fn put(&mut self, id: &Iri, entity: Option<&Arc<Entity>>) {
        let waiting = Waiting::of(entity.map(|e| Document::Whole(Arc::clone(e))));
        self.bytes += waiting.weight;
        let is_whole = waiting.document.is_some();
        let was_whole = match self.current.get_mut(id) {
            Some(known) => {
                let old = std::mem::replace(known, waiting);
                self.bytes -= old.weight;
                matches!(old.document, Some(Document::Whole(_)))
            }
            None => {
                self.current.insert(id.clone(), waiting);
                false
            }
        };
        // One that was whole before is named already.
        if is_whole && !was_whole {
            self.whole.push_back(id.clone());
        }
        for _ in 0..PACKED_PER_CHANGE {
            // The queue names what was changed often more than once: that must not make it longer than what there is.
            if self.bytes <= self.pack_above_bytes && self.whole.len() <= 2 * self.current.len() + 16 {
                break;
            }
            let Some(oldest) = self.whole.pop_front() else { break };
            if self.bytes > self.pack_above_bytes
                && let Some(waiting) = self.current.get_mut(&oldest)
                && let Some(Document::Whole(e)) = &waiting.document
            {
                let packed = Waiting::of(Some(Document::Packed(Document::pack(e).into())));
                self.bytes += packed.weight;
                self.bytes -= waiting.weight;
                *waiting = packed;
            }
        }
    }

    /// Bytes of what is not on disk.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes + self.frozen_bytes
    }

    /// Bytes of what the next checkpoint would write.
    pub(super) const fn unfrozen_bytes(&self) -> usize {
        self.bytes
    }

    /// Everything that is not on disk, for a checkpoint to write; changes from now on belong to the next one.
    /// What an earlier checkpoint failed to write is among it.
    pub(super) fn freeze(&mut self) -> Arc<Changes> {
        let current = std::mem::take(&mut self.current);
        self.whole.clear();
        if self.frozen.is_empty() {
            self.frozen = Arc::new(current);
            self.frozen_bytes = self.bytes;
        } else {
            Arc::make_mut(&mut self.frozen).extend(current);
            self.frozen_bytes = self.frozen.values().map(|waiting| waiting.weight).sum();
        }
        self.bytes = 0;
        Arc::clone(&self.frozen)
    }

    /// What was frozen is on disk now.
    pub(super) fn thaw(&mut self) -> Arc<Changes> {
        self.frozen_bytes = 0;
        std::mem::take(&mut self.frozen)
    }
}

/// The changes of a checkpoint in the form that documents take.
pub(super) fn changed(space: Space, changes: &Changes) -> impl Iterator<Item = Changed> {
    changes.iter().map(move |(id, waiting)| (space, id.clone(), waiting.document.clone()))
}

fn weight_of_document(document: Option<&Document>) -> usize {
    // The entry itself, with its id.
    96 + match document {
        None => 0,
        Some(Document::Packed(bytes)) => bytes.len() + 16,
        Some(Document::Whole(e)) => weight_of(e),
    }
}

/// About how many bytes of memory an entity takes.
#[must_use]
pub fn weight_of(entity: &Entity) -> usize {
    size_of::<Entity>() + entity.id.as_str().len() + weight_of_attributes(&entity.attributes)
}

fn weight_of_attributes(attributes: &Attributes) -> usize {
    let instances = |list: &Instances| list.iter().map(weight_of_attribute).sum::<usize>();
    // An entry of the map with its hash and its place in the index, which is up to twice as large as needed, and the counts of who shares the
    // instances. What other states of the entity share is counted in each.
    attributes.values().map(|list| 80 + instances(list)).sum()
}

fn weight_of_attribute(a: &Attribute) -> usize {
    let value = match &a.value {
        AttributeValue::Property(v) | AttributeValue::Json(v) => weight_of_value(v),
        AttributeValue::Geo(g) => weight_of_value(g.json()) + 64,
        AttributeValue::List(list) => list.iter().map(|v| 32 + weight_of_value(v)).sum(),
        AttributeValue::Language(texts) => texts.values().map(|v| 96 + weight_of_value(v)).sum(),
        AttributeValue::Relationship(iris) | AttributeValue::Vocab(iris) | AttributeValue::ListRelationship(iris) => {
            iris.iter().map(|i| 48 + i.as_str().len()).sum()
        }
    };
    size_of::<Attribute>() + value + weight_of_attributes(&a.sub_attributes)
}

fn weight_of_value(value: &Value) -> usize {
    match value {
        Value::String(s) => 16 + s.len(),
        Value::Array(list) => list.iter().map(|v| 72 + weight_of_value(v)).sum(),
        Value::Object(members) => 64 + members.iter().map(|(k, v)| 128 + k.len() + weight_of_value(v)).sum::<usize>(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(n: u32, value: u32) -> Arc<Entity> {
        let e = Entity::new(Iri::known(&format!("urn:x:{n}")), Iri::known("urn:t:T"));
        Arc::new(e.with(Iri::known("urn:a:v"), Attribute::property(value)))
    }

    #[test]
    fn what_is_frozen_is_read_until_it_is_thawed_and_younger_changes_win() {
        let mut overlay = Overlay::new(usize::MAX);
        let (a, b) = (entity(1, 1), entity(2, 1));
        overlay.put(&a.id, Some(&a));
        overlay.put(&b.id, Some(&b));
        assert_eq!(overlay.freeze().len(), 2);
        let younger = entity(1, 2);
        overlay.put(&younger.id, Some(&younger));
        overlay.put(&b.id, None);
        assert_eq!(overlay.get("urn:x:1").unwrap().entity("").unwrap(), younger);
        assert!(overlay.get("urn:x:2").is_none(), "it is gone");
        // A checkpoint that failed: the next one has everything.
        let again = overlay.freeze();
        assert_eq!(again[&younger.id].document.as_ref().unwrap().entity("").unwrap(), younger);
        assert!(again[&b.id].document.is_none());
        overlay.thaw();
        assert!(overlay.get("urn:x:1").is_none());
        assert_eq!(overlay.bytes(), 0);
    }

    #[test]
    fn when_memory_is_short_the_oldest_are_packed_and_read_all_the_same() {
        let mut overlay = Overlay::new(2_000);
        let all: Vec<_> = (0..200).map(|n| entity(n, n)).collect();
        let whole: usize = all.iter().map(|e| weight_of(e)).sum();
        for e in &all {
            overlay.put(&e.id, Some(e));
        }
        assert!(overlay.bytes() < whole, "{} of {whole}", overlay.bytes());
        for e in &all {
            assert_eq!(&overlay.get(e.id.as_str()).unwrap().entity("").unwrap(), e);
        }
        // Changing one over and over does not make anything longer.
        for n in 0..10_000 {
            let e = entity(7, n);
            overlay.put(&e.id, Some(&e));
        }
        assert!(overlay.whole.len() < 1_000, "{}", overlay.whole.len());
    }
}
