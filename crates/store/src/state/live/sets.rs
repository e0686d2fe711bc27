//! Short lists that many entities share, types and scopes, kept once.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// Lists by number, each with how many entities have it.
pub(super) struct Sets<T> {
    sets: Vec<(Arc<[T]>, u32)>,
    numbers: HashMap<Arc<[T]>, u32>,
    free: Vec<u32>,
}

impl<T> Default for Sets<T> {
    fn default() -> Self {
        Self { sets: Vec::new(), numbers: HashMap::new(), free: Vec::new() }
    }
}

impl<T: Clone + Eq + Hash> Sets<T> {
    /// The number of a list, for one more entity.
    pub(super) fn take(&mut self, list: &[T]) -> u32 {
        if let Some(&n) = self.numbers.get(list) {
            self.sets[n as usize].1 += 1;
            return n;
        }
        let kept: Arc<[T]> = list.into();
        let n = match self.free.pop() {
            Some(n) => {
                self.sets[n as usize] = (Arc::clone(&kept), 1);
                n
            }
            None => {
                self.sets.push((Arc::clone(&kept), 1));
                u32::try_from(self.sets.len() - 1).expect("there are no more lists than entities")
            }
        };
        self.numbers.insert(kept, n);
        n
    }

    /// One entity more has the list of this number, which others have already.
    pub(super) fn take_again(&mut self, n: u32) {
        self.sets[n as usize].1 += 1;
    }

    /// One entity less has this list.
    pub(super) fn release(&mut self, n: u32) {
        let (list, users) = &mut self.sets[n as usize];
        *users -= 1;
        if *users == 0 {
            let list = std::mem::replace(list, Arc::from([]));
            self.numbers.remove(&list);
            self.free.push(n);
        }
    }

    pub(super) fn get(&self, n: u32) -> &Arc<[T]> {
        &self.sets[n as usize].0
    }

    /// All lists in use: number, content, how many entities have it.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &[T], u32)> {
        (0u32..).zip(&self.sets).filter(|(_, (_, users))| *users > 0).map(|(n, (list, users))| (n, &**list, *users))
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.sets.iter().map(|(list, _)| 100 + list.len() * 64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_shared_and_forgotten() {
        let mut sets = Sets::default();
        let (a, b) = (sets.take(&["x", "y"]), sets.take(&["y", "x"]));
        assert_ne!(a, b, "the order counts");
        assert_eq!(sets.take(&["x", "y"]), a);
        sets.release(a);
        assert_eq!(&**sets.get(a), ["x", "y"]);
        sets.release(a);
        assert_eq!(sets.iter().collect::<Vec<_>>(), [(b, &["y", "x"][..], 1)]);
        assert_eq!(sets.take(&["z"]), a, "numbers are used again");
    }
}
