//! Who wants which message: a trie over the levels of the filters.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::RandomState;
use smol_str::SmolStr;

use super::{Qos, TopicFilter, TopicName};

/// The subscriptions of all clients: finds who wants a message in the time of its levels, not of the number of filters.
///
/// `K` names the subscriber. Shared subscriptions are not kept here: the server does not offer them.
#[derive(Debug)]
pub struct Subscriptions<K> {
    root: Node<K>,
    /// What each subscriber has, to end them all at once and to count them.
    by_subscriber: HashMap<K, HashMap<TopicFilter, Qos>>,
    n_filters: usize,
}

#[derive(Debug)]
struct Node<K> {
    children: HashMap<SmolStr, Node<K>, RandomState>,
    plus: Option<Box<Node<K>>>,
    /// Subscribers whose filter ends here.
    here: Vec<(K, Qos)>,
    /// Subscribers whose filter ends here with `#`.
    below: Vec<(K, Qos)>,
}

// Not derived: that would ask `K: Default` for nothing.
impl<K> Default for Node<K> {
    fn default() -> Self {
        Self { children: HashMap::default(), plus: None, here: Vec::new(), below: Vec::new() }
    }
}

impl<K> Default for Subscriptions<K> {
    fn default() -> Self {
        Self { root: Node::default(), by_subscriber: HashMap::new(), n_filters: 0 }
    }
}

impl<K: Clone + Eq + Hash> Subscriptions<K> {
    /// Nobody wants anything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// `subscriber` wants what `filter` selects, at most at `qos`; replaces its subscription to the same filter. Gives the replaced QoS.
    pub fn subscribe(&mut self, subscriber: K, filter: &TopicFilter, qos: Qos) -> Option<Qos> {
        let replaced = self.by_subscriber.entry(subscriber.clone()).or_default().insert(filter.clone(), qos);
        let slot = self.root.slot(filter);
        match slot.iter_mut().find(|(k, _)| *k == subscriber) {
            Some((_, present)) => *present = qos,
            None => slot.push((subscriber, qos)),
        }
        if replaced.is_none() {
            self.n_filters += 1;
        }
        replaced
    }

    /// `subscriber` no longer wants what `filter` selects. Says whether it did.
    pub fn unsubscribe(&mut self, subscriber: &K, filter: &TopicFilter) -> bool {
        let Some(filters) = self.by_subscriber.get_mut(subscriber) else { return false };
        if filters.remove(filter).is_none() {
            return false;
        }
        if filters.is_empty() {
            self.by_subscriber.remove(subscriber);
        }
        self.n_filters -= 1;
        self.root.remove(subscriber, &mut filter.levels());
        true
    }

    /// `subscriber` is gone. Gives how many subscriptions it had.
    pub fn remove(&mut self, subscriber: &K) -> usize {
        let filters = self.by_subscriber.remove(subscriber).unwrap_or_default();
        for filter in filters.keys() {
            self.root.remove(subscriber, &mut filter.levels());
        }
        self.n_filters -= filters.len();
        filters.len()
    }

    /// Who wants a message published to `name`: each subscriber once, in no order, with the highest QoS of its matching subscriptions.
    #[must_use]
    pub fn matches(&self, name: &TopicName) -> Vec<(K, Qos)> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut found = Vec::new();
        let levels: Vec<&str> = name.levels().collect();
        self.root.collect(&levels, name.is_system(), &mut found);
        if found.len() < 2 {
            return found.into_iter().cloned().collect();
        }
        let mut highest: HashMap<&K, Qos> = HashMap::with_capacity(found.len());
        for (k, qos) in found {
            highest.entry(k).and_modify(|q| *q = (*q).max(*qos)).or_insert(*qos);
        }
        highest.into_iter().map(|(k, qos)| (k.clone(), qos)).collect()
    }

    /// How many subscriptions `subscriber` has.
    #[must_use]
    pub fn count_of(&self, subscriber: &K) -> usize {
        self.by_subscriber.get(subscriber).map_or(0, HashMap::len)
    }

    /// How many subscriptions there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.n_filters
    }

    /// There is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.n_filters == 0
    }

    /// How many nodes a search looks at.
    #[cfg(test)]
    pub(super) fn cost_of(&self, name: &TopicName) -> usize {
        self.root.collect(&name.levels().collect::<Vec<_>>(), name.is_system(), &mut Vec::new())
    }

    /// Nodes of the trie that hold something or lead to something; for tests that nothing is left behind.
    #[cfg(test)]
    pub(super) fn n_nodes(&self) -> usize {
        self.root.n_nodes()
    }
}

impl<K: PartialEq> Node<K> {
    fn slot(&mut self, filter: &TopicFilter) -> &mut Vec<(K, Qos)> {
        let mut node = self;
        for level in filter.levels() {
            node = match level {
                "#" => return &mut node.below,
                "+" => node.plus.get_or_insert_default(),
                other => node.children.entry(SmolStr::new(other)).or_default(),
            };
        }
        &mut node.here
    }

    /// Removes one subscriber and the branches that become empty; says whether this node is empty then.
    fn remove(&mut self, subscriber: &K, levels: &mut dyn Iterator<Item = &str>) -> bool {
        match levels.next() {
            None => self.here.retain(|(k, _)| k != subscriber),
            Some("#") => self.below.retain(|(k, _)| k != subscriber),
            Some("+") => {
                if self.plus.as_mut().is_some_and(|n| n.remove(subscriber, levels)) {
                    self.plus = None;
                }
            }
            Some(level) => {
                if self.children.get_mut(level).is_some_and(|n| n.remove(subscriber, levels)) {
                    self.children.remove(level);
                }
            }
        }
        self.children.is_empty() && self.plus.is_none() && self.here.is_empty() && self.below.is_empty()
    }

    /// Finds who wants what is published to `levels` below this node. Gives the number of nodes looked at.
    fn collect<'a>(&'a self, levels: &[&str], system: bool, found: &mut Vec<&'a (K, Qos)>) -> usize {
        // `#` stands for the level above it too: `a/#` selects `a`.
        if !system {
            found.extend(&self.below);
        }
        let Some((level, rest)) = levels.split_first() else {
            found.extend(&self.here);
            return 1;
        };
        let plus = self.plus.as_ref().filter(|_| !system).map_or(0, |n| n.collect(rest, false, found));
        let child = self.children.get(*level).map_or(0, |n| n.collect(rest, false, found));
        1 + plus + child
    }

    #[cfg(test)]
    fn n_nodes(&self) -> usize {
        1 + self.plus.as_ref().map_or(0, |n| n.n_nodes()) + self.children.values().map(Self::n_nodes).sum::<usize>()
    }
}
