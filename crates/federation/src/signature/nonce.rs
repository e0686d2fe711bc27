//! Remembers requests, so that none is accepted twice.

use std::collections::{BTreeSet, HashMap};

use entity::Instant;
use policy::PublicKey;
use ring::digest;

use super::{CLOCK_SKEW_S_MAX, SignatureError};

/// How many requests of one city are remembered: some 430 a second over the ten minutes that clocks may differ. About 10 MB.
pub const NONCES_PER_KEY_MAX: usize = 1 << 18;

/// The nonces of recent requests. A request is the same if key, time of signing and nonce are: the time is covered by the signature, so a
/// replay has the same one, and what is older than the allowed skew needs no remembering because it is refused anyway.
///
/// When it is full, requests are refused rather than nonces forgotten; one city cannot crowd out another.
#[derive(Debug, Default)]
pub struct NonceCache {
    by_key: HashMap<PublicKey, BTreeSet<(i64, [u8; 16])>>,
    /// What was signed before this second (since the epoch) may have been forgotten.
    forgotten_before_s: i64,
}

impl NonceCache {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many nonces are remembered.
    #[must_use]
    pub fn n_remembered(&self) -> usize {
        self.by_key.values().map(BTreeSet::len).sum()
    }

    pub(super) fn admit(&mut self, key: &PublicKey, created: Instant, nonce: &str, now: Instant) -> Result<(), SignatureError> {
        let seconds = |i: Instant| i.micros().div_euclid(1_000_000);
        let seen = self.by_key.entry(*key).or_default();
        // Nonces may be long; 128 bits of a hash tell them apart.
        let mut short = [0; 16];
        short.copy_from_slice(&digest::digest(&digest::SHA256, nonce.as_bytes()).as_ref()[..16]);
        self.forgotten_before_s = self.forgotten_before_s.max(seconds(now).saturating_sub(CLOCK_SKEW_S_MAX));
        while seen.first().is_some_and(|(created_s, _)| *created_s < self.forgotten_before_s) {
            seen.pop_first();
        }
        // Only if our own clock was set back does this differ from the check of the clocks.
        if seconds(created) < self.forgotten_before_s {
            return Err(SignatureError::Replayed);
        }
        if seen.contains(&(seconds(created), short)) {
            return Err(SignatureError::Replayed);
        }
        if seen.len() >= NONCES_PER_KEY_MAX {
            return Err(SignatureError::TooMany);
        }
        seen.insert((seconds(created), short));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: PublicKey = PublicKey::from_bytes([1; 32]);

    #[test]
    fn the_same_nonce_is_admitted_once_and_forgotten_when_too_old_to_pass() {
        let mut cache = NonceCache::new();
        let at = Instant::from_secs;
        assert_eq!(cache.admit(&KEY, at(1000), "a", at(1000)), Ok(()));
        assert_eq!(cache.admit(&KEY, at(1000), "a", at(1300)), Err(SignatureError::Replayed));
        assert_eq!(cache.admit(&KEY, at(1000), "b", at(1300)), Ok(()));
        assert_eq!(cache.admit(&PublicKey::from_bytes([2; 32]), at(1000), "a", at(1300)), Ok(()), "another city's");
        assert_eq!(cache.n_remembered(), 3);
        assert_eq!(cache.admit(&KEY, at(1400), "c", at(1301)), Ok(()));
        assert_eq!(cache.admit(&KEY, at(1000), "a", at(1200)), Err(SignatureError::Replayed), "even if our clock is set back");
        assert_eq!(cache.n_remembered(), 2, "what is older than the skew is refused by its time and need not be kept");
    }

    #[test]
    fn a_full_cache_refuses_and_does_not_forget() {
        let mut cache = NonceCache::new();
        let now = Instant::from_secs(1000);
        for i in 0..NONCES_PER_KEY_MAX {
            cache.by_key.entry(KEY).or_default().insert((1000, (i as u128).to_be_bytes()));
        }
        assert_eq!(cache.admit(&KEY, now, "new", now), Err(SignatureError::TooMany));
        assert_eq!(cache.admit(&PublicKey::from_bytes([2; 32]), now, "new", now), Ok(()));
        assert_eq!(cache.admit(&KEY, Instant::from_secs(1400), "new", Instant::from_secs(1301)), Ok(()), "in time there is room again");
    }
}
