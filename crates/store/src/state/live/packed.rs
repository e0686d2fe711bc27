//! A sorted set of numbers in a few bytes each: what entities are found by, of which there are ten times as many as entities.
//!
//! Numbers lie in pieces, each as its difference from the one before it, in base 128. A slot under a word that many entities have takes a
//! byte or two, one under a rare word six; a tree of pairs takes thirteen.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Numbers of one piece: looking one up reads half of them.
const PIECE_NUMBERS_MAX: usize = 128;
/// Room that a piece gets at once when it grows, in bytes.
const GROWTH_BYTES: usize = 16;
/// The longest difference, in bytes.
const DIFFERENCE_BYTES_MAX: usize = 10;
/// What a piece takes beside its bytes: its entry in the tree, and what the allocator adds.
const PIECE_OVERHEAD_BYTES: usize = 64;

/// A sorted set of numbers.
#[derive(Default)]
pub(super) struct PackedSet {
    /// Pieces by a number that is not greater than their first.
    pieces: BTreeMap<u64, Piece>,
    len: usize,
    bytes: usize,
}

#[derive(Default)]
struct Piece {
    /// Differences; the first is that from the piece's key and may be zero.
    bytes: Vec<u8>,
    n: usize,
}

/// A difference in base 128, lowest digits first.
struct Difference {
    bytes: [u8; DIFFERENCE_BYTES_MAX],
    len: usize,
}

impl Difference {
    // Truncated: seven bits at a time are meant.
    const fn of(mut n: u64) -> Self {
        let mut d = Self { bytes: [0; DIFFERENCE_BYTES_MAX], len: 0 };
        while n >= 0x80 {
            d.bytes[d.len] = (n as u8) | 0x80;
            d.len += 1;
            n >>= 7;
        }
        d.bytes[d.len] = n as u8;
        d.len += 1;
        d
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The difference at a place, and how long it is.
fn read(bytes: &[u8], at: usize) -> (u64, usize) {
    let (mut n, mut len) = (0, 0);
    loop {
        let b = bytes[at + len];
        n |= u64::from(b & 0x7f) << (7 * len);
        len += 1;
        if b < 0x80 {
            return (n, len);
        }
    }
}

impl Piece {
    fn of(key: u64, numbers: &[u64]) -> Self {
        let mut bytes = Vec::with_capacity(numbers.len() * 3);
        let mut previous = key;
        for n in numbers {
            bytes.extend_from_slice(Difference::of(n - previous).as_bytes());
            previous = *n;
        }
        bytes.shrink_to_fit();
        Self { bytes, n: numbers.len() }
    }

    fn numbers(&self, key: u64) -> impl Iterator<Item = u64> {
        let (mut at, mut number) = (0, key);
        std::iter::from_fn(move || {
            if at == self.bytes.len() {
                return None;
            }
            let (d, len) = read(&self.bytes, at);
            at += len;
            number += d;
            Some(number)
        })
    }

    /// Puts bytes in the place of others.
    fn splice(&mut self, place: std::ops::Range<usize>, with: &[&[u8]]) {
        let n_new: usize = with.iter().map(|w| w.len()).sum();
        let grown = self.bytes.len() + n_new - place.len();
        if grown > self.bytes.capacity() {
            self.bytes.reserve_exact(grown + GROWTH_BYTES - self.bytes.len());
        }
        self.bytes.splice(place, with.iter().flat_map(|w| w.iter().copied()));
    }

    fn insert(&mut self, key: u64, number: u64) -> bool {
        let (mut at, mut previous) = (0, key);
        while at < self.bytes.len() {
            let (d, len) = read(&self.bytes, at);
            let next = previous + d;
            if next == number {
                return false;
            }
            if next > number {
                let (before, behind) = (Difference::of(number - previous), Difference::of(next - number));
                self.splice(at..at + len, &[before.as_bytes(), behind.as_bytes()]);
                self.n += 1;
                return true;
            }
            previous = next;
            at += len;
        }
        self.splice(at..at, &[Difference::of(number - previous).as_bytes()]);
        self.n += 1;
        true
    }

    fn remove(&mut self, key: u64, number: u64) -> bool {
        let (mut at, mut previous) = (0, key);
        while at < self.bytes.len() {
            let (d, len) = read(&self.bytes, at);
            let next = previous + d;
            if next > number {
                return false;
            }
            if next == number {
                if at + len == self.bytes.len() {
                    self.bytes.truncate(at);
                } else {
                    let (following, following_len) = read(&self.bytes, at + len);
                    self.splice(at..at + len + following_len, &[Difference::of(d + following).as_bytes()]);
                }
                self.n -= 1;
                return true;
            }
            previous = next;
            at += len;
        }
        false
    }
}

impl PackedSet {
    /// The set of these numbers, in any order, some perhaps twice.
    pub(super) fn of(mut numbers: Vec<u64>) -> Self {
        numbers.sort_unstable();
        numbers.dedup();
        let pieces: BTreeMap<u64, Piece> = numbers
            .chunks(PIECE_NUMBERS_MAX / 4 * 3)
            .enumerate()
            .map(|(i, c)| {
                let key = if i == 0 { 0 } else { c[0] };
                (key, Piece::of(key, c))
            })
            .collect();
        let bytes = pieces.values().map(|p| p.bytes.capacity()).sum();
        Self { pieces, len: numbers.len(), bytes }
    }

    /// Puts a number in; false if it was in.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        if self.pieces.is_empty() {
            self.pieces.insert(0, Piece::default());
        }
        let (&key, piece) = self.pieces.range_mut(..=number).next_back().expect("there is a piece from zero on");
        self.bytes -= piece.bytes.capacity();
        let is_new = piece.insert(key, number);
        if piece.n > PIECE_NUMBERS_MAX {
            let numbers: Vec<u64> = piece.numbers(key).collect();
            let (low, high) = numbers.split_at(numbers.len() / 2);
            *piece = Piece::of(key, low);
            self.bytes += piece.bytes.capacity();
            let upper = Piece::of(high[0], high);
            self.bytes += upper.bytes.capacity();
            self.pieces.insert(high[0], upper);
        } else {
            self.bytes += piece.bytes.capacity();
        }
        self.len += usize::from(is_new);
        is_new
    }

    /// Takes a number out; false if it was not in.
    pub(super) fn remove(&mut self, number: u64) -> bool {
        let Some((&key, piece)) = self.pieces.range_mut(..=number).next_back() else { return false };
        let before = piece.bytes.capacity();
        let was_in = piece.remove(key, number);
        self.bytes = self.bytes - before + piece.bytes.capacity();
        // That from zero on stays.
        if piece.n == 0 && key > 0 {
            self.bytes -= piece.bytes.capacity();
            self.pieces.remove(&key);
        }
        self.len -= usize::from(was_in);
        was_in
    }

    /// The numbers from one to another, in order.
    pub(super) fn range(&self, range: RangeInclusive<u64>) -> impl Iterator<Item = u64> {
        let (low, high) = range.into_inner();
        let first = self.pieces.range(..=low).next_back().map_or(0, |(key, _)| *key);
        let numbers = self.pieces.range(first..=high.max(first)).flat_map(|(key, piece)| piece.numbers(*key));
        numbers.skip_while(move |n| *n < low).take_while(move |n| *n <= high)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes + self.pieces.len() * PIECE_OVERHEAD_BYTES
    }
}

/// Slots under a number of 32 bits: a part of a hash, or the number of a set.
#[derive(Default)]
pub(super) struct Postings(PackedSet);

/// A slot under a number, as [`Postings::of`] takes them.
pub(super) const fn joined(under: u32, slot: u32) -> u64 {
    (under as u64) << 32 | slot as u64
}

impl Postings {
    /// Of [`joined`] pairs in any order, some perhaps twice.
    pub(super) fn of(joined: Vec<u64>) -> Self {
        Self(PackedSet::of(joined))
    }

    pub(super) fn insert(&mut self, under: u32, slot: u32) {
        self.0.insert(joined(under, slot));
    }

    pub(super) fn remove(&mut self, under: u32, slot: u32) {
        self.0.remove(joined(under, slot));
    }

    /// The slots under a number, in order.
    pub(super) fn under(&self, under: u32) -> impl Iterator<Item = u32> {
        // Truncated: the slot is the lower half.
        self.0.range(joined(under, 0)..=joined(under, u32::MAX)).map(|n| n as u32)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.0.memory_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Few numbers far apart, many close together, and the ends.
    fn arb_number() -> impl Strategy<Value = u64> {
        prop_oneof![0..400_u64, (7 << 32)..(7 << 32) + 300_u64, any::<u64>(), Just(0), Just(u64::MAX)]
    }

    proptest! {
        #[test]
        fn a_packed_set_is_a_set(
            first in proptest::collection::vec(arb_number(), 0..600),
            changes in proptest::collection::vec((arb_number(), any::<bool>()), 0..900),
            ranges in proptest::collection::vec((arb_number(), arb_number()), 8),
        ) {
            let mut model = BTreeSet::from_iter(first.clone());
            let mut set = PackedSet::of(first);
            for (n, gone) in changes {
                if gone {
                    prop_assert_eq!(set.remove(n), model.remove(&n));
                } else {
                    prop_assert_eq!(set.insert(n), model.insert(n));
                }
            }
            prop_assert_eq!(set.len, model.len());
            prop_assert_eq!(set.bytes, set.pieces.values().map(|p| p.bytes.capacity()).sum::<usize>());
            prop_assert!(set.range(0..=u64::MAX).eq(model.iter().copied()));
            for (a, b) in ranges {
                let (low, high) = (a.min(b), a.max(b));
                prop_assert!(set.range(low..=high).eq(model.range(low..=high).copied()), "{low} {high}");
            }
        }
    }

    #[test]
    fn slots_under_common_words_take_little() {
        let pairs: Vec<(u32, u32)> = (0..100_000).map(|slot| (slot % 7 * 1_000_003, slot)).collect();
        let mut grown = Postings::default();
        pairs.iter().for_each(|(under, slot)| grown.insert(*under, *slot));
        let built = Postings::of(pairs.iter().map(|(under, slot)| joined(*under, *slot)).collect());
        for postings in [&grown, &built] {
            assert_eq!(postings.0.len, 100_000);
            assert!(postings.under(3 * 1_000_003).eq((3..100_000).step_by(7)));
            assert!(postings.memory_bytes() < 300_000, "{}", postings.memory_bytes());
        }
        grown.remove(0, 7);
        assert_eq!(grown.under(0).take(2).collect::<Vec<_>>(), [0, 14]);
    }
}
