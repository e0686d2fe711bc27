//! What is known of each context: where it comes from, since when, how often it was used, until when it is fresh.

use std::cmp::Reverse;

use entity::Instant;
use indexmap::IndexMap;
use ngsi::context::{CORE_CONTEXT_URL, local_id};
use node::{ContextOrigin, StoredContext};
use serde_json::{Map, Value, json};

use super::digest;

/// Fetched contexts that are kept; the one that was not used for longest goes first.
const FETCHED_MAX: usize = 200;

/// Where a context comes from (clause 5.13.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A client gave it to us.
    Hosted,
    /// It was fetched, or is embedded and was used as if it had been.
    Cached,
    /// The node made it for a link.
    ImplicitlyCreated,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Hosted, Self::Cached, Self::ImplicitlyCreated];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Hosted => "Hosted",
            Self::Cached => "Cached",
            Self::ImplicitlyCreated => "ImplicitlyCreated",
        }
    }
}

/// What is known of one context.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    pub(crate) local_id: String,
    pub(crate) kind: Kind,
    /// Of a fetched one: from where.
    pub(crate) url: Option<String>,
    created_at: Instant,
    last_usage: Option<Instant>,
    n_hits: u64,
    fresh_until: Option<Instant>,
    is_durable: bool,
}

impl Description {
    /// Its URL, at this node if it is served here.
    pub(crate) fn address(&self, base: &str) -> String {
        self.url.clone().unwrap_or_else(|| format!("{base}/ngsi-ld/v1/jsonldContexts/{}", self.local_id))
    }

    /// The metadata that clients see (clause 5.13.3).
    pub(crate) fn json(&self, base: &str) -> Value {
        let mut map = Map::new();
        map.insert("URL".to_owned(), json!(self.address(base)));
        map.insert("localId".to_owned(), json!(self.local_id));
        map.insert("kind".to_owned(), json!(self.kind.name()));
        map.insert("createdAt".to_owned(), json!(self.created_at.to_string()));
        if let Some(at) = self.fresh_until {
            map.insert("expiresAt".to_owned(), json!(at.to_string()));
        }
        if let Some(at) = self.last_usage {
            map.insert("lastUsage".to_owned(), json!(at.to_string()));
        }
        map.insert("numberOfHits".to_owned(), json!(self.n_hits));
        Value::Object(map)
    }
}

/// All that is known. Counts begin anew with the program.
pub(super) struct Catalogue {
    /// By local id.
    local: IndexMap<String, Description>,
    /// By URL.
    fetched: IndexMap<String, Description>,
    /// When the first of them is out of date.
    first_expiry: Option<Instant>,
    started_at: Instant,
}

impl Catalogue {
    pub(super) fn new(now: Instant) -> Self {
        let mut catalogue = Self { local: IndexMap::new(), fetched: IndexMap::new(), first_expiry: None, started_at: now };
        // It takes part in every request, named or not.
        catalogue.insert(CORE_CONTEXT_URL, now, None);
        catalogue
    }

    pub(super) fn add_local(&mut self, kept: &StoredContext) {
        let kind = match kept.origin {
            ContextOrigin::Hosted => Kind::Hosted,
            ContextOrigin::ImplicitlyCreated => Kind::ImplicitlyCreated,
        };
        let description = Description {
            local_id: kept.id.clone(),
            kind,
            url: None,
            created_at: kept.created_at(),
            last_usage: None,
            n_hits: 0,
            fresh_until: None,
            // What the node itself wants to keep is marked when it is durable; what was read at the start is.
            is_durable: kind == Kind::Hosted || kept.created_at() < self.started_at,
        };
        self.local.entry(kept.id.clone()).or_insert(description);
    }

    pub(super) fn is_kept(&self, id: &str) -> bool {
        self.local.get(id).is_some_and(|d| d.is_durable)
    }

    pub(super) fn mark_kept(&mut self, id: &str) {
        if let Some(d) = self.local.get_mut(id) {
            d.is_durable = true;
        }
    }

    /// Notes a fetched document; gives the URLs of those that had to make room.
    pub(super) fn add_fetched(&mut self, url: &str, now: Instant, fresh_until: Instant) -> Vec<String> {
        match self.fetched.get_mut(url) {
            Some(known) => {
                known.created_at = now;
                known.fresh_until = Some(fresh_until);
            }
            None => self.insert(url, now, Some(fresh_until)),
        }
        let mut gone = Vec::new();
        while self.fetched.len() > FETCHED_MAX {
            let others = self.fetched.values().filter(|d| d.url.as_deref() != Some(url) && d.url.as_deref() != Some(CORE_CONTEXT_URL));
            let Some(oldest) = others.min_by_key(|d| d.last_usage.unwrap_or(d.created_at)).and_then(|d| d.url.clone()) else { break };
            self.fetched.shift_remove(&oldest);
            gone.push(oldest);
        }
        self.reckon();
        gone
    }

    fn insert(&mut self, url: &str, now: Instant, fresh_until: Option<Instant>) {
        let description = Description {
            local_id: digest(url),
            kind: Kind::Cached,
            url: Some(url.to_owned()),
            created_at: now,
            last_usage: None,
            n_hits: 0,
            fresh_until,
            is_durable: false,
        };
        self.fetched.insert(url.to_owned(), description);
    }

    /// Counts the use of what a context names.
    pub(super) fn used(&mut self, context: &Value, now: Instant) {
        match context {
            Value::String(url) => self.used_url(url, now),
            Value::Array(parts) => parts.iter().for_each(|part| self.used(part, now)),
            _ => {}
        }
    }

    fn used_url(&mut self, url: &str, now: Instant) {
        let is_local = local_id(url).and_then(|id| self.local.get_mut(id));
        let found = match is_local {
            Some(found) => found,
            None => {
                if !self.fetched.contains_key(url) {
                    // An embedded one: from the first use on it is as if it had been fetched, for ever fresh.
                    if self.fetched.len() >= FETCHED_MAX || ngsi::ContextStore::embedded(url).is_none() {
                        return;
                    }
                    self.insert(url, now, None);
                }
                self.fetched.get_mut(url).expect("it was just put in")
            }
        };
        found.n_hits += 1;
        found.last_usage = Some(now);
    }

    /// Is any of them out of date? Cheap to ask.
    pub(super) fn has_expired(&self, now: Instant) -> bool {
        self.first_expiry.is_some_and(|first| first <= now)
    }

    pub(super) fn is_expired(&self, url: &str, now: Instant) -> bool {
        self.fetched.get(url).and_then(|d| d.fresh_until).is_some_and(|until| until <= now)
    }

    pub(super) fn expires(&mut self, url: &str, at: Instant) {
        if let Some(d) = self.fetched.get_mut(url) {
            d.fresh_until = Some(at);
        }
        self.reckon();
    }

    fn reckon(&mut self) {
        self.first_expiry = self.fetched.values().filter_map(|d| d.fresh_until).min();
    }

    pub(super) fn remove(&mut self, id: &str) {
        self.local.shift_remove(id);
        self.fetched.retain(|_, d| d.local_id != id);
        self.reckon();
    }

    /// All, or those of a kind, the newest first.
    pub(super) fn described(&self, kind: Option<Kind>) -> Vec<Description> {
        let all = self.local.values().chain(self.fetched.values());
        let mut found: Vec<_> = all.filter(|d| kind.is_none_or(|k| d.kind == k)).cloned().collect();
        found.sort_by_key(|d| Reverse(d.created_at));
        found
    }

    pub(super) fn description(&self, id: &str) -> Option<Description> {
        let by_url = || self.fetched.get(id);
        self.local.get(id).or_else(by_url).or_else(|| self.fetched.values().find(|d| d.local_id == id)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let mut catalogue = Catalogue::new(at(0));
        let url = |i: usize| format!("https://example.org/{i}.jsonld");
        for i in 0..FETCHED_MAX - 1 {
            assert!(catalogue.add_fetched(&url(i), at(1), at(100)).is_empty());
        }
        catalogue.used(&json!([url(0), {"a": "https://example.org/a"}]), at(2));
        assert_eq!(catalogue.add_fetched(&url(1000), at(3), at(100)), [url(1)]);
        assert_eq!(catalogue.description(&url(0)).unwrap().n_hits, 1);
        assert!(catalogue.description(&url(1)).is_none());
        assert!(catalogue.description(CORE_CONTEXT_URL).is_some(), "the core context stays");
    }

    #[test]
    fn the_first_that_is_out_of_date_is_known() {
        let mut catalogue = Catalogue::new(at(0));
        assert!(!catalogue.has_expired(at(1_000_000)), "the core context is fresh for ever");
        catalogue.add_fetched("https://example.org/a", at(0), at(10));
        catalogue.add_fetched("https://example.org/b", at(0), at(20));
        assert!(!catalogue.has_expired(at(9)) && catalogue.has_expired(at(10)));
        assert!(catalogue.is_expired("https://example.org/a", at(10)) && !catalogue.is_expired("https://example.org/b", at(10)));
        catalogue.expires("https://example.org/a", at(30));
        assert!(!catalogue.has_expired(at(19)) && catalogue.has_expired(at(20)));
    }
}
