//! Names of cities and purposes, and the keys that prove who a city is.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// The longest city name, in characters; it is part of host names and identifiers.
pub const CITY_NAME_CHARS_MAX: usize = 63;

/// The longest purpose, in characters: a code or a short phrase, not a contract.
pub const PURPOSE_CHARS_MAX: usize = 200;

/// A city as its node is called in the cluster, such as `guangzhou`: what people read is its bilingual name elsewhere.
///
/// Lower case only, so that two spellings cannot be two cities.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CityName(String);

/// What somebody wants data for, such as `regional-air-warning`; compared exactly.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Purpose(String);

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a city name.
    #[error(
        "`{found}` is not a city name (expected 1 to {CITY_NAME_CHARS_MAX} lower-case letters a-z, digits, `-` or `_`, beginning with a letter or digit, such as `guangzhou`)"
    )]
    City {
        /// The text as found, shortened.
        found: String,
    },
    /// Not a purpose.
    #[error("`{found}` is not a purpose (expected 1 to {PURPOSE_CHARS_MAX} characters of text on one line)")]
    Purpose {
        /// The text as found, shortened.
        found: String,
    },
}

fn shortened(s: &str) -> String {
    s.chars().filter(|c| !c.is_control()).take(80).collect()
}

impl FromStr for CityName {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        let ok = s.len() <= CITY_NAME_CHARS_MAX
            && s.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && s.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'));
        if ok { Ok(Self(s.to_owned())) } else { Err(NameError::City { found: shortened(s) }) }
    }
}

impl FromStr for Purpose {
    type Err = NameError;

    /// Blanks around the text do not count.
    fn from_str(s: &str) -> Result<Self, NameError> {
        let text = s.trim();
        let ok = !text.is_empty() && text.chars().count() <= PURPOSE_CHARS_MAX && !text.chars().any(char::is_control);
        if ok { Ok(Self(text.to_owned())) } else { Err(NameError::Purpose { found: shortened(s) }) }
    }
}

macro_rules! text_type {
    ($name:ident) => {
        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(s: String) -> Result<Self, NameError> {
                s.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "`{}`", self.0)
            }
        }
    };
}

text_type!(CityName);
text_type!(Purpose);

/// The Ed25519 public key that identifies a city (RFC 8032); written `ed25519:` and base64url without padding (RFC 4648, section 5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

/// Why a text is not a city's public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Another kind of key, or none.
    #[error("`{found}` is not a city's key (expected `ed25519:` followed by 43 characters of base64url)")]
    Prefix {
        /// The text as found, shortened.
        found: String,
    },
    /// What follows the prefix is not base64url.
    #[error("what follows `ed25519:` in `{found}` is not base64url without padding: {reason}")]
    Encoding {
        /// The text as found, shortened.
        found: String,
        /// What the decoder said.
        reason: String,
    },
    /// A key of another size.
    #[error("the key `{found}` has {found_bytes} bytes (expected 32)")]
    Length {
        /// The text as found, shortened.
        found: String,
        /// Its size.
        found_bytes: usize,
    },
}

impl PublicKey {
    /// From the 32 bytes of RFC 8032.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of RFC 8032.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for PublicKey {
    type Err = PublicKeyError;

    fn from_str(s: &str) -> Result<Self, PublicKeyError> {
        let found = || shortened(s);
        let body = s.strip_prefix("ed25519:").ok_or_else(|| PublicKeyError::Prefix { found: found() })?;
        let bytes = URL_SAFE_NO_PAD.decode(body).map_err(|e| PublicKeyError::Encoding { found: found(), reason: e.to_string() })?;
        let n = bytes.len();
        bytes.try_into().map(Self).map_err(|_| PublicKeyError::Length { found: found(), found_bytes: n })
    }
}

impl TryFrom<String> for PublicKey {
    type Error = PublicKeyError;

    fn try_from(s: String) -> Result<Self, PublicKeyError> {
        s.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ed25519:{}", URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn city_names_have_one_spelling() {
        for good in ["beijing", "guangzhou-2", "a", "new_york", "1st"] {
            assert_eq!(good.parse::<CityName>().map(|n| n.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "Beijing", "bei jing", "-a", "北京", "a/b", "a.b", &"a".repeat(64)] {
            assert!(bad.parse::<CityName>().is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<CityName>("\"Beijing\"").unwrap_err().to_string().contains("`Beijing` is not a city name"));
    }

    #[test]
    fn purposes_are_short_texts() {
        assert_eq!(" air warning ".parse::<Purpose>().unwrap().as_str(), "air warning");
        assert!("大气污染联防联控".parse::<Purpose>().is_ok());
        for bad in ["", "  ", "a\nb", &"a".repeat(201)] {
            assert!(bad.parse::<Purpose>().is_err(), "{bad}");
        }
    }

    #[test]
    fn wrong_keys_are_refused_with_the_reason() {
        check("rsa:AAAA", "expected `ed25519:`");
        check("ed25519:AAAA", "has 3 bytes (expected 32)");
        check("ed25519:AA==", "not base64url without padding");
        check("ed25519:+/+/", "not base64url");
        check("", "is not a city's key");

        #[track_caller]
        fn check(text: &str, want: &str) {
            let error = text.parse::<PublicKey>().unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_key_is_read_back_as_written(bytes: [u8; 32]) {
            let key = PublicKey::from_bytes(bytes);
            prop_assert_eq!(key.to_string().parse::<PublicKey>(), Ok(key));
            prop_assert_eq!(key.to_string().len(), 8 + 43);
        }

        #[test]
        fn rubbish_is_refused_not_a_panic(s in "(ed25519:)?\\PC{0,60}") {
            if let Ok(key) = s.parse::<PublicKey>() {
                prop_assert_eq!(key.to_string(), s);
            }
        }
    }
}
