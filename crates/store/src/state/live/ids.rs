//! Slots: the small part of each entity that is always in memory, found by id and walked in the order of ids.

use std::hash::BuildHasher;

use crate::hash::Seeded;

/// No slot, no row.
pub(super) const NONE: u32 = u32::MAX;

/// What is always in memory of an entity.
#[derive(Debug)]
pub(super) struct Slot {
    /// Its id; empty: the slot is free.
    pub(super) id: Box<str>,
    /// Its types, as a set of [`super::sets::Sets`].
    pub(super) types: u32,
    /// Its scopes, as a set of [`super::sets::Sets`].
    pub(super) scopes: u32,
    /// The table of its columns: that of its first type.
    pub(super) table: u32,
    /// Its row there.
    pub(super) row: u32,
    /// µs.
    pub(super) created_us: i64,
    /// µs; tells which document belongs to the present state.
    pub(super) modified_us: i64,
}

/// A bucket of the index by id: a part of the hash, and the slot.
#[derive(Clone, Copy)]
struct Bucket {
    hash: u32,
    slot: u32,
}

const EMPTY: Bucket = Bucket { hash: 0, slot: NONE };

/// All slots and the index by id.
#[derive(Default)]
pub(super) struct Ids {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Open addressing with linear probing; a power of two, at most three quarters full.
    buckets: Vec<Bucket>,
    hasher: Seeded,
    id_bytes: usize,
}

impl Ids {
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The slot of a number; it may be free.
    pub(super) fn slot(&self, slot: u32) -> &Slot {
        &self.slots[slot as usize]
    }

    pub(super) fn slot_mut(&mut self, slot: u32) -> &mut Slot {
        &mut self.slots[slot as usize]
    }

    pub(super) fn id(&self, slot: u32) -> &str {
        &self.slots[slot as usize].id
    }

    // Truncated: a part of the hash is meant.
    fn hash(&self, id: &str) -> u32 {
        self.hasher.hash_one(id) as u32
    }

    pub(super) fn find(&self, id: &str) -> Option<u32> {
        if self.buckets.is_empty() {
            return None;
        }
        let mask = self.buckets.len() - 1;
        let hash = self.hash(id);
        let mut at = hash as usize & mask;
        while self.buckets[at].slot != NONE {
            let Bucket { hash: h, slot } = self.buckets[at];
            if h == hash && self.id(slot) == id {
                return Some(slot);
            }
            at = (at + 1) & mask;
        }
        None
    }

    /// Takes in a slot whose id is not there yet.
    pub(super) fn insert(&mut self, slot: Slot) -> u32 {
        if (self.len() + 1) * 4 > self.buckets.len() * 3 {
            self.grow();
        }
        let hash = self.hash(&slot.id);
        self.id_bytes += slot.id.len();
        let number = match self.free.pop() {
            Some(n) => {
                self.slots[n as usize] = slot;
                n
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).ok().filter(|n| *n != NONE).expect("fewer than four billion entities fit in memory")
            }
        };
        put(&mut self.buckets, Bucket { hash, slot: number });
        number
    }

    /// Frees a slot.
    pub(super) fn remove(&mut self, slot: u32) {
        let mask = self.buckets.len() - 1;
        let mut at = self.hash(self.id(slot)) as usize & mask;
        while self.buckets[at].slot != slot {
            at = (at + 1) & mask;
        }
        // What follows without a gap moves up, so that no search ends too early.
        let mut next = (at + 1) & mask;
        while self.buckets[next].slot != NONE {
            let home = self.buckets[next].hash as usize & mask;
            // May the one at `next` stand at `at`? Only if its home is not between them.
            if (next.wrapping_sub(home) & mask) >= (next.wrapping_sub(at) & mask) {
                self.buckets[at] = self.buckets[next];
                at = next;
            }
            next = (next + 1) & mask;
        }
        self.buckets[at] = EMPTY;
        let freed = &mut self.slots[slot as usize];
        self.id_bytes -= freed.id.len();
        freed.id = Box::default();
        self.free.push(slot);
    }

    fn grow(&mut self) {
        let mut buckets = vec![EMPTY; (self.buckets.len() * 2).max(16)];
        for b in self.buckets.iter().filter(|b| b.slot != NONE) {
            put(&mut buckets, *b);
        }
        self.buckets = buckets;
    }

    pub(super) fn memory_bytes(&self) -> usize {
        // A block of the allocator is some 8 bytes longer than what it holds.
        self.slots.capacity() * size_of::<Slot>() + self.buckets.len() * size_of::<Bucket>() + self.id_bytes + self.slots.len() * 12
    }
}

fn put(buckets: &mut [Bucket], bucket: Bucket) {
    let mask = buckets.len() - 1;
    let mut at = bucket.hash as usize & mask;
    while buckets[at].slot != NONE {
        at = (at + 1) & mask;
    }
    buckets[at] = bucket;
}

/// Slots in one piece of an [`Order`].
const PIECE_SLOTS: usize = 512;

/// Slots in the order of their ids: pieces of bounded length, so that an insertion moves little.
#[derive(Default)]
pub(super) struct Order {
    pieces: Vec<Vec<u32>>,
    len: usize,
}

impl Order {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The piece in which an id is or belongs.
    fn piece_of(&self, id: &str, ids: &Ids) -> usize {
        self.pieces.partition_point(|p| ids.id(p[0]) <= id).saturating_sub(1)
    }

    pub(super) fn insert(&mut self, slot: u32, ids: &Ids) {
        self.len += 1;
        let id = ids.id(slot);
        // A load comes in the order of ids.
        if let Some(last) = self.pieces.last_mut() {
            if last.last().is_some_and(|l| ids.id(*l) < id) {
                if last.len() < PIECE_SLOTS {
                    last.push(slot);
                } else {
                    last.shrink_to_fit();
                    self.pieces.push(vec![slot]);
                }
                return;
            }
        } else {
            self.pieces.push(vec![slot]);
            return;
        }
        let p = self.piece_of(id, ids);
        let piece = &mut self.pieces[p];
        let at = piece.partition_point(|s| ids.id(*s) < id);
        piece.insert(at, slot);
        if piece.len() > PIECE_SLOTS {
            let behind = piece.split_off(PIECE_SLOTS / 2);
            self.pieces.insert(p + 1, behind);
        }
    }

    /// Takes out a slot that is in and still has its id.
    pub(super) fn remove(&mut self, slot: u32, ids: &Ids) {
        let id = ids.id(slot);
        let p = self.piece_of(id, ids);
        let at = self.pieces[p].partition_point(|s| ids.id(*s) < id);
        debug_assert_eq!(self.pieces[p][at], slot, "the order and the ids agree");
        self.pieces[p].remove(at);
        if self.pieces[p].is_empty() {
            self.pieces.remove(p);
        }
        self.len -= 1;
    }

    /// The slots whose ids are greater (none: all).
    pub(super) fn after<'a>(&'a self, id: Option<&str>, ids: &Ids) -> impl Iterator<Item = u32> + use<'a> {
        let (piece, at) = match id {
            Some(id) if !self.pieces.is_empty() => {
                let p = self.piece_of(id, ids);
                (p, self.pieces[p].partition_point(|s| ids.id(*s) <= id))
            }
            _ => (0, 0),
        };
        let first = self.pieces.get(piece).map_or(&[][..], |p| &p[at..]);
        first.iter().chain(self.pieces.get(piece + 1..).unwrap_or_default().iter().flatten()).copied()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.pieces.iter().map(|p| p.capacity() * 4 + 32).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn slot(id: &str) -> Slot {
        Slot { id: id.into(), types: 0, scopes: 0, table: 0, row: 0, created_us: 0, modified_us: 0 }
    }

    proptest! {
        /// Slots are found by id and walked in the order of ids as a sorted map would.
        #[test]
        fn slots_are_found_and_ordered(changes in proptest::collection::vec((0u32..300, proptest::bool::weighted(0.4)), 0..900), from in 0u32..300) {
            let (mut ids, mut order, mut model) = (Ids::default(), Order::default(), BTreeMap::new());
            for (n, gone) in changes {
                let id = format!("urn:x:{n:03}");
                match (ids.find(&id), gone) {
                    (Some(s), true) => { order.remove(s, &ids); ids.remove(s); model.remove(&id); }
                    (None, false) => { let s = ids.insert(slot(&id)); order.insert(s, &ids); model.insert(id, s); }
                    _ => {}
                }
            }
            prop_assert_eq!(ids.len(), model.len());
            prop_assert_eq!(order.len(), model.len());
            for n in 0..300 {
                let id = format!("urn:x:{n:03}");
                prop_assert_eq!(ids.find(&id), model.get(&id).copied());
            }
            let from = format!("urn:x:{from:03}");
            let want: Vec<u32> = model.range::<String, _>((std::ops::Bound::Excluded(&from), std::ops::Bound::Unbounded)).map(|(_, s)| *s).collect();
            prop_assert_eq!(order.after(Some(&from), &ids).collect::<Vec<_>>(), want);
            prop_assert_eq!(order.after(None, &ids).collect::<Vec<_>>(), model.into_values().collect::<Vec<_>>());
        }
    }

    #[test]
    fn many_slots_in_and_out_of_order() {
        let (mut ids, mut order) = (Ids::default(), Order::default());
        for n in (0..3000).chain((3000..6000).rev()) {
            let s = ids.insert(slot(&format!("urn:x:{n:05}")));
            order.insert(s, &ids);
        }
        let walked: Vec<_> = order.after(None, &ids).map(|s| ids.id(s).to_owned()).collect();
        assert_eq!(walked.len(), 6000);
        assert!(walked.is_sorted());
    }
}
