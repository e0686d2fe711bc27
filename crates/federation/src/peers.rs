//! The other cities of the cluster, and whether they answer.
//!
//! A state machine without sockets: it is told what was tried and what came of it. A city that failed is reported as down at once and asked
//! again after a growing pause, by one request at a time, so that a dead neighbour costs the users of this city nothing.

use std::collections::{BTreeMap, HashMap};

use entity::Instant;
use policy::{CityName, PublicKey};
use serde::{Deserialize, Serialize};
use url::Url;

/// The pause after the first failure, in microseconds.
pub const BACKOFF_FIRST_US: i64 = 1_000_000;

/// The longest pause, in microseconds; it doubles with each failure up to this.
pub const BACKOFF_MAX_US: i64 = 30_000_000;

/// The longest error text kept, in characters.
const ERROR_CHARS_MAX: usize = 500;

/// A city of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Its name.
    pub name: CityName,
    /// Where its node is asked: `https://node.example:1026`, without a closing slash.
    pub url: String,
    /// The key that it signs with.
    pub key: PublicKey,
}

/// Why the list of members cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// Not an address.
    #[error("the address `{found}` of member `{city}` cannot be used: {reason} (expected e.g. `https://node.example:1026`)")]
    Url {
        /// Whose.
        city: CityName,
        /// The address as found.
        found: String,
        /// What is wrong.
        reason: String,
    },
    /// Two members with one name.
    #[error("`{city}` is listed twice as a member")]
    Name {
        /// The name.
        city: CityName,
    },
    /// Two members with one key: a signature would not tell them apart.
    #[error("members `{one}` and `{other}` have the same key")]
    Key {
        /// One.
        one: CityName,
        /// The other.
        other: CityName,
    },
    /// The city itself is among its peers.
    #[error("`{city}` is this city itself and cannot be its own peer")]
    Own {
        /// The name.
        city: CityName,
    },
}

impl Member {
    /// A member, its address checked.
    pub fn new(name: CityName, url: &str, key: PublicKey) -> Result<Self, MemberError> {
        let error = |reason: &str| MemberError::Url { city: name.clone(), found: url.to_owned(), reason: reason.to_owned() };
        let parsed = Url::parse(url).map_err(|e| error(&e.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(error("it is neither http nor https"));
        }
        if parsed.host_str().is_none_or(str::is_empty) {
            return Err(error("it has no host"));
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(error("it contains a user name or password"));
        }
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(error("it has a query or fragment"));
        }
        let url = parsed.as_str().trim_end_matches('/').to_owned();
        Ok(Self { name, url, key })
    }
}

/// Whether a city answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerStatus {
    /// Never tried.
    #[default]
    Unknown,
    /// The last try was answered (a denial is an answer).
    Up,
    /// The last try failed.
    Down,
}

/// What is known of a peer.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerState {
    /// Whether it answers.
    pub status: PeerStatus,
    /// Since when it is so.
    pub since: Instant,
    /// When it last answered.
    pub last_seen: Option<Instant>,
    /// How long its last answer took, in microseconds.
    pub latency_us: Option<u64>,
    /// Tries that failed since it last answered.
    pub n_failures: u32,
    /// What the last failure was; stays until the next answer.
    pub last_error: Option<String>,
    /// While it is down: not asked before then.
    pub retry_at: Option<Instant>,
}

/// A peer that is down is not asked now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{city}` does not answer since {since} ({last_error}); it is asked again at {retry_at}")]
pub struct NotAsked {
    /// Which city.
    pub city: CityName,
    /// Down since.
    pub since: Instant,
    /// What the last failure was.
    pub last_error: String,
    /// When it is asked again at the earliest.
    pub retry_at: Instant,
}

impl PeerState {
    /// Of a peer that was never tried.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self { status: PeerStatus::Unknown, since: now, last_seen: None, latency_us: None, n_failures: 0, last_error: None, retry_at: None }
    }

    /// The pause after so many failures, in microseconds.
    #[must_use]
    pub fn backoff_us(n_failures: u32) -> i64 {
        // Six doublings pass the maximum; more must not overflow.
        (BACKOFF_FIRST_US << n_failures.saturating_sub(1).min(6)).min(BACKOFF_MAX_US)
    }

    /// May the peer be asked now? If it is down and the pause is over, one request may try, and the next pause begins at once, so that not
    /// all requests wait for a dead city together.
    #[must_use]
    pub fn may_ask(&mut self, now: Instant) -> bool {
        let Some(retry_at) = self.retry_at else { return true };
        // If the clock was set back, the pause must not last until it has caught up.
        let clock_was_set_back = retry_at.micros_since(now) > BACKOFF_MAX_US;
        if now < retry_at && !clock_was_set_back {
            return false;
        }
        self.retry_at = Some(now.plus_micros(Self::backoff_us(self.n_failures)));
        true
    }

    /// It answered, be it with a denial.
    pub fn on_answer(&mut self, now: Instant, latency_us: u64) {
        self.turn(PeerStatus::Up, now);
        self.last_seen = Some(now);
        self.latency_us = Some(latency_us);
        self.n_failures = 0;
        self.last_error = None;
        self.retry_at = None;
    }

    /// It could not be reached, took too long, or answered with something unusable.
    pub fn on_failure(&mut self, now: Instant, error: &str) {
        self.turn(PeerStatus::Down, now);
        self.n_failures = self.n_failures.saturating_add(1);
        self.last_error = Some(error.chars().take(ERROR_CHARS_MAX).collect());
        self.retry_at = Some(now.plus_micros(Self::backoff_us(self.n_failures)));
    }

    fn turn(&mut self, status: PeerStatus, now: Instant) {
        if self.status != status {
            self.status = status;
            self.since = now;
        }
    }
}

/// A member and what is known of it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Peer {
    /// Who it is.
    #[serde(flatten)]
    pub member: Member,
    /// Whether it answers.
    #[serde(flatten)]
    pub state: PeerState,
}

/// The other cities of the cluster.
#[derive(Clone, Debug)]
pub struct Peers {
    by_name: BTreeMap<CityName, Peer>,
    by_key: HashMap<PublicKey, CityName>,
}

impl Peers {
    /// The peers of the city `own`, none of them tried yet.
    ///
    /// Errors: [`MemberError`] if names or keys are not unique.
    pub fn new(own: &CityName, members: impl IntoIterator<Item = Member>, now: Instant) -> Result<Self, MemberError> {
        let mut peers = Self { by_name: BTreeMap::new(), by_key: HashMap::new() };
        for member in members {
            let city = member.name.clone();
            if city == *own {
                return Err(MemberError::Own { city });
            }
            if let Some(one) = peers.by_key.insert(member.key, city.clone()) {
                return Err(if one == city { MemberError::Name { city } } else { MemberError::Key { one, other: city } });
            }
            if peers.by_name.insert(city.clone(), Peer { member, state: PeerState::new(now) }).is_some() {
                return Err(MemberError::Name { city });
            }
        }
        Ok(peers)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.by_name.values()
    }

    /// One.
    #[must_use]
    pub fn get(&self, city: &CityName) -> Option<&Peer> {
        self.by_name.get(city)
    }

    /// Whose key is this?
    #[must_use]
    pub fn city_of(&self, key: &PublicKey) -> Option<&CityName> {
        self.by_key.get(key)
    }

    /// The member to send a question to, unless it is down and its pause is not over.
    ///
    /// None if there is no such peer.
    pub fn ask(&mut self, city: &CityName, now: Instant) -> Option<Result<Member, NotAsked>> {
        let peer = self.by_name.get_mut(city)?;
        if peer.state.may_ask(now) {
            return Some(Ok(peer.member.clone()));
        }
        Some(Err(NotAsked {
            city: city.clone(),
            since: peer.state.since,
            last_error: peer.state.last_error.clone().unwrap_or_default(),
            retry_at: peer.state.retry_at.unwrap_or(now),
        }))
    }

    /// A peer answered. Unknown names are ignored: a member may have left while it was being asked.
    pub fn on_answer(&mut self, city: &CityName, now: Instant, latency_us: u64) {
        if let Some(peer) = self.by_name.get_mut(city) {
            peer.state.on_answer(now, latency_us);
        }
    }

    /// A peer failed.
    pub fn on_failure(&mut self, city: &CityName, now: Instant, error: &str) {
        if let Some(peer) = self.by_name.get_mut(city) {
            peer.state.on_failure(now, error);
        }
    }
}

#[cfg(test)]
mod tests;
