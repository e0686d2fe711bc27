//! Hashing of ids and words in memory: a few nanoseconds instead of SipHash's dozens.
//!
//! Ids come from the world, so hashes are seeded: nobody can prepare ids that collide. They differ from run to run and are never stored.

use std::collections::HashMap;

/// Makes hashers with one seed. Of the good quality, because parts of hashes are kept.
pub(crate) type Seeded = foldhash::quality::RandomState;

/// A map by id.
pub(crate) type FastMap<K, V> = HashMap<K, V, Seeded>;
