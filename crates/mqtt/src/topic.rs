//! Topic names, topic filters, and who wants which message (OASIS MQTT 5.0, section 4.7).

mod subscriptions;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use smol_str::SmolStr;

pub use subscriptions::Subscriptions;

/// The longest topic taken from the world, in bytes; MQTT allows 65,535, no device needs them.
pub const TOPIC_BYTES_MAX: usize = 1_024;

/// The most levels of a topic; bounds the recursion over the subscription trie.
pub const TOPIC_LEVELS_MAX: usize = 32;

/// Start of a shared subscription (section 4.8.2).
const SHARE_PREFIX: &str = "$share/";

/// How often a message arrives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Qos {
    /// QoS 0: at most once, not acknowledged.
    AtMostOnce,
    /// QoS 1: at least once.
    AtLeastOnce,
    /// QoS 2: exactly once.
    ExactlyOnce,
}

/// A checked topic name: what a message is published to; no wildcards. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(SmolStr);

/// A checked topic filter: what a client subscribes to; `+` stands for one level, a closing `#` for all below and the level above. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter(SmolStr);

/// What a client asks to subscribe to: a filter, shared or not.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SubscriptionFilter {
    /// The group of a shared subscription (`$share/group/filter`).
    pub share_group: Option<SmolStr>,
    /// The filter itself.
    pub filter: TopicFilter,
}

/// Why a text is not a topic name or filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Nothing in it.
    #[error("a topic is empty (expected at least one character)")]
    Empty,
    /// Longer than [`TOPIC_BYTES_MAX`].
    #[error("a topic of {found_bytes} bytes is longer than the limit of {TOPIC_BYTES_MAX}")]
    TooLong {
        /// Its length.
        found_bytes: usize,
    },
    /// More levels than [`TOPIC_LEVELS_MAX`].
    #[error("topic `{found}` has {found_levels} levels, more than the limit of {TOPIC_LEVELS_MAX}")]
    TooDeep {
        /// The text as found, shortened.
        found: String,
        /// Its levels.
        found_levels: usize,
    },
    /// A control character.
    #[error("topic `{found}` has a control character")]
    Control {
        /// The text as found, shortened and escaped.
        found: String,
    },
    /// A wildcard in a topic name.
    #[error("topic name `{found}` has a wildcard (`+` and `#` are for subscribing only)")]
    Wildcard {
        /// The text as found, shortened.
        found: String,
    },
    /// A wildcard that is not alone in its level, or a `#` that is not last.
    #[error("topic filter `{found}` has a wildcard in the wrong place (expected `+` alone in its level, `#` alone in the last one)")]
    WildcardPlace {
        /// The text as found, shortened.
        found: String,
    },
    /// `$share` without group or filter.
    #[error("`{found}` is not a shared subscription (expected `$share/group/filter`)")]
    Share {
        /// The text as found, shortened.
        found: String,
    },
}

impl TopicName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels, from left to right.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// Begins with `$`: not matched by a filter that begins with a wildcard.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.0.starts_with('$')
    }
}

impl TopicFilter {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels, from left to right; wildcards are levels too.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// Does the filter select messages published to `name`?
    #[must_use]
    pub fn matches(&self, name: &TopicName) -> bool {
        if name.is_system() && self.0.starts_with(['+', '#']) {
            return false;
        }
        let (mut filter, mut levels) = (self.levels(), name.levels());
        loop {
            match (filter.next(), levels.next()) {
                (Some("#"), _) | (None, None) => return true,
                (Some("+"), Some(_)) => {}
                (Some(f), Some(l)) if f == l => {}
                _ => return false,
            }
        }
    }
}

impl FromStr for TopicName {
    type Err = TopicError;

    fn from_str(s: &str) -> Result<Self, TopicError> {
        check_text(s)?;
        if s.contains(['+', '#']) {
            return Err(TopicError::Wildcard { found: shortened(s) });
        }
        Ok(Self(SmolStr::new(s)))
    }
}

impl FromStr for TopicFilter {
    type Err = TopicError;

    fn from_str(s: &str) -> Result<Self, TopicError> {
        check_text(s)?;
        let mut levels = s.split('/').peekable();
        while let Some(level) = levels.next() {
            let ok = match level {
                "#" => levels.peek().is_none(),
                "+" => true,
                other => !other.contains(['+', '#']),
            };
            if !ok {
                return Err(TopicError::WildcardPlace { found: shortened(s) });
            }
        }
        Ok(Self(SmolStr::new(s)))
    }
}

impl FromStr for SubscriptionFilter {
    type Err = TopicError;

    fn from_str(s: &str) -> Result<Self, TopicError> {
        let Some(shared) = s.strip_prefix(SHARE_PREFIX) else {
            return Ok(Self { share_group: None, filter: s.parse()? });
        };
        match shared.split_once('/') {
            Some((group, filter)) if !group.is_empty() && !group.contains(['+', '#']) && !filter.is_empty() => {
                check_text(s)?;
                Ok(Self { share_group: Some(SmolStr::new(group)), filter: filter.parse()? })
            }
            _ => Err(TopicError::Share { found: shortened(s) }),
        }
    }
}

fn check_text(s: &str) -> Result<(), TopicError> {
    if s.is_empty() {
        return Err(TopicError::Empty);
    }
    if s.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong { found_bytes: s.len() });
    }
    // Only U+0000 must be refused (section 1.5.4); the others make logs and consoles lie.
    if s.chars().any(char::is_control) {
        return Err(TopicError::Control { found: shortened(s) });
    }
    let found_levels = s.split('/').count();
    if found_levels > TOPIC_LEVELS_MAX {
        return Err(TopicError::TooDeep { found: shortened(s), found_levels });
    }
    Ok(())
}

fn shortened(s: &str) -> String {
    s.chars().take(80).flat_map(char::escape_debug).collect()
}

macro_rules! text_of {
    ($($t:ty),*) => {$(
        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "`{}`", self.0)
            }
        }
    )*};
}
text_of!(TopicName, TopicFilter);
