//! Hashing of ids on the commit path: a few nanoseconds instead of SipHash's dozens.
//!
//! Ids come from the world, so the multiplication is seeded per map: nobody can prepare ids that collide.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

/// A map by id.
pub(crate) type FastMap<K, V> = HashMap<K, V, Seeded>;

/// Makes hashers with one seed.
#[derive(Clone)]
pub(crate) struct Seeded(u64);

impl Default for Seeded {
    fn default() -> Self {
        // The seed decides about the order of a map only, which nobody may rely on.
        Self(RandomState::new().hash_one(0_u8) | 1)
    }
}

impl BuildHasher for Seeded {
    type Hasher = FoldHasher;

    fn build_hasher(&self) -> FoldHasher {
        FoldHasher { state: self.0, seed: self.0 }
    }
}

/// Multiplies eight bytes at a time and folds the halves of the product.
pub(crate) struct FoldHasher {
    state: u64,
    seed: u64,
}

impl FoldHasher {
    const fn add(&mut self, word: u64) {
        let product = ((self.state ^ word) as u128).wrapping_mul((self.seed ^ 0x9e37_79b9_7f4a_7c15) as u128 | 1);
        self.state = (product as u64) ^ ((product >> 64) as u64);
    }
}

impl Hasher for FoldHasher {
    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.add(u64::from_le_bytes(word.try_into().expect("eight bytes")));
        }
        let rest = words.remainder();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.add(u64::from_le_bytes(last) ^ ((bytes.len() as u64) << 56));
    }

    fn write_u8(&mut self, i: u8) {
        self.add(u64::from(i));
    }

    fn finish(&self) -> u64 {
        // hashbrown takes the bucket from the low and the tag from the high bits.
        self.state ^ (self.state >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_differ_little_are_spread_evenly() {
        let seeded = Seeded::default();
        let mut n_by_bucket = vec![0_u32; 1024];
        for i in 0..102_400 {
            n_by_bucket[(seeded.hash_one(format!("urn:ngsi-ld:Station:{i}")) % 1024) as usize] += 1;
        }
        let (min, max) = (n_by_bucket.iter().min().unwrap(), n_by_bucket.iter().max().unwrap());
        assert!((50..200).contains(min) && (50..200).contains(max), "{min} to {max} of 100");
    }
}
