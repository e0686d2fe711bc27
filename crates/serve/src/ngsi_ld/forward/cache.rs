//! Answers of sources that say how long an answer counts (`cacheDuration`, clause 5.2.34).

use std::sync::{Arc, Mutex, PoisonError};

use entity::{Entity, Instant};
use indexmap::IndexMap;

/// The most answers that are kept; the oldest goes first.
const ANSWERS_MAX: usize = 1_000;

/// The most entities in one answer that is kept.
const ENTITIES_MAX: usize = 1_000;

/// An answer and when it came.
type Answer = (Instant, Arc<Vec<Entity>>);

/// Answers by what was asked.
#[derive(Default)]
pub(super) struct Cache {
    answers: Mutex<IndexMap<String, Answer>>,
}

impl Cache {
    /// An answer that is not older than `age_us` microseconds.
    pub(super) fn get(&self, key: &str, now: Instant, age_us: i64) -> Option<Arc<Vec<Entity>>> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(key).filter(|(at, _)| now.micros_since(*at) < age_us).map(|(_, list)| Arc::clone(list))
    }

    pub(super) fn put(&self, key: String, now: Instant, answer: &[Entity]) {
        if answer.len() > ENTITIES_MAX {
            return;
        }
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.shift_remove(&key);
        while answers.len() >= ANSWERS_MAX {
            answers.shift_remove_index(0);
        }
        answers.insert(key, (now, Arc::new(answer.to_vec())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_count_for_their_time_and_the_oldest_goes_first() {
        let (cache, at) = (Cache::default(), Instant::from_secs);
        cache.put("a".to_owned(), at(0), &[]);
        assert!(cache.get("a", at(1), 1_000_001).is_some() && cache.get("a", at(1), 1_000_000).is_none());
        for i in 0..ANSWERS_MAX {
            cache.put(i.to_string(), at(0), &[]);
        }
        assert!(cache.get("a", at(0), 1).is_none() && cache.get("0", at(0), 1).is_some());
    }
}
