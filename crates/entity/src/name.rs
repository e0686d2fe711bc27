//! Names: IRIs and scopes.

use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::{LazyLock, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// The longest IRI taken from the world, in bytes. Longer ones are an attack or a mistake.
pub const IRI_BYTES_MAX: usize = 2_048;

/// Names that [`Iri::interned`] keeps: a city has thousands of types and attributes.
const INTERNED_MAX: usize = 65_536;
/// The longest name that it keeps, in bytes; with [`INTERNED_MAX`] this limits what they take to 16 MiB.
const INTERNED_BYTES_MAX: usize = 256;

/// The names that are kept for as long as the program runs.
static INTERNED: LazyLock<RwLock<HashSet<&'static str, foldhash::fast::RandomState>>> = LazyLock::new(RwLock::default);

/// An absolute IRI: the identity of an entity, or the expanded name of a type or attribute. Cheap to clone.
#[derive(Clone, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Iri(SmolStr);

/// Why a text is not an absolute IRI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IriError {
    /// No scheme, or characters that an IRI cannot have.
    #[error("`{found}` is not an absolute URI (expected e.g. `urn:ngsi-ld:Type:name`)")]
    Form {
        /// The text as found, shortened.
        found: String,
    },
    /// Longer than [`IRI_BYTES_MAX`].
    #[error("a URI of {found_bytes} bytes is longer than the limit of {IRI_BYTES_MAX}")]
    TooLong {
        /// Its length.
        found_bytes: usize,
    },
}

impl Iri {
    /// An IRI from a constant of our own code.
    ///
    /// # Panics
    /// If it is not an absolute IRI.
    #[must_use]
    pub fn known(s: &str) -> Self {
        s.parse().expect("a constant IRI is absolute")
    }

    /// An IRI that was checked before it was stored.
    pub(crate) const fn stored(text: SmolStr) -> Self {
        Self(text)
    }

    /// The same name, of which the program has one text for all: copies need no counting of who shares it, and equal ones are seen to be equal
    /// without comparing. For names of types and attributes, not for ids, of which there are millions: what is kept is kept until the
    /// program ends. Of a name too many or too long this is a copy.
    #[must_use]
    pub fn interned(&self) -> Self {
        if !self.0.is_heap_allocated() || self.0.len() > INTERNED_BYTES_MAX {
            return self.clone();
        }
        if let Some(known) = INTERNED.read().unwrap_or_else(PoisonError::into_inner).get(self.as_str()) {
            return Self(SmolStr::new_static(known));
        }
        let mut names = INTERNED.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been quicker.
        if let Some(known) = names.get(self.as_str()) {
            return Self(SmolStr::new_static(known));
        }
        if names.len() >= INTERNED_MAX {
            return self.clone();
        }
        let kept: &'static str = Box::leak(Box::from(self.as_str()));
        names.insert(kept);
        Self(SmolStr::new_static(kept))
    }

    /// The text.
    #[inline]
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same text in the same place, which is known without comparing; two that are not may be equal all the same.
    #[inline]
    pub(crate) fn is_same_text(&self, other: &Self) -> bool {
        std::ptr::eq(self.as_str(), other.as_str())
    }

    /// What follows the last `#`, `/` or `:`: a short name for people and tables, not unique.
    #[must_use]
    pub fn local_name(&self) -> &str {
        self.0.rsplit(['#', '/', ':']).find(|s| !s.is_empty()).unwrap_or(&self.0)
    }
}

impl PartialEq for Iri {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.is_same_text(other) || self.as_str() == other.as_str()
    }
}

impl Hash for Iri {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl FromStr for Iri {
    type Err = IriError;

    fn from_str(s: &str) -> Result<Self, IriError> {
        if s.len() > IRI_BYTES_MAX {
            return Err(IriError::TooLong { found_bytes: s.len() });
        }
        let form = || IriError::Form { found: s.chars().take(80).collect() };
        let (scheme, rest) = s.split_once(':').ok_or_else(form)?;
        let scheme_ok = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
        // RFC 3987 excludes these; NGSI-LD clause 4.6.4 wants 400 for what is refused.
        let is_bad = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '<' | '>' | '"' | '{' | '}' | '|' | '\\' | '^' | '`');
        // Nearly all are of these characters alone, which is seen without decoding them.
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b':' | b'/' | b'-' | b'_' | b'.' | b'#');
        let rest_ok = !rest.is_empty() && (rest.bytes().all(is_plain) || !rest.chars().any(is_bad));
        if scheme_ok && rest_ok { Ok(Self(SmolStr::new(s))) } else { Err(form()) }
    }
}

impl fmt::Display for Iri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Iri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.0)
    }
}

impl AsRef<str> for Iri {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Iri {
    #[inline]
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A place in a hierarchy, such as `/CN/31/Pudong`; always with its leading slash (ETSI GS CIM 009 V1.9.1, clause 4.18).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scope(SmolStr);

/// Why a text is not a scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not a scope (expected levels of letters, digits and `_`, such as `/Madrid/Gardens`)")]
pub struct ScopeError {
    /// The text as found, shortened.
    pub found: String,
}

impl Scope {
    /// A scope that was checked before it was stored.
    pub(crate) const fn stored(text: SmolStr) -> Self {
        Self(text)
    }

    /// The text, with its leading slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').skip(1)
    }
}

fn level_ok(level: &str) -> bool {
    !level.is_empty() && level.chars().all(|c| c.is_alphanumeric() || c == '_')
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(s: &str) -> Result<Self, ScopeError> {
        let body = s.strip_prefix('/').unwrap_or(s);
        if s.len() <= IRI_BYTES_MAX && body.split('/').all(level_ok) {
            Ok(Self(SmolStr::new(format!("/{body}"))))
        } else {
            Err(ScopeError { found: s.chars().take(80).collect() })
        }
    }
}

/// One element of a scope query: `+` stands for one level, a closing `#` for the scope and all below (clause 4.19).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ScopePattern(SmolStr);

impl ScopePattern {
    /// Does `scope` satisfy this pattern?
    #[must_use]
    pub fn matches(&self, scope: &Scope) -> bool {
        let mut pattern = self.0.split('/').skip(1);
        let mut levels = scope.levels();
        loop {
            match (pattern.next(), levels.next()) {
                (Some("#"), _) | (None, None) => return true,
                (Some("+"), Some(_)) => {}
                (Some(p), Some(l)) if p == l => {}
                _ => return false,
            }
        }
    }
}

impl FromStr for ScopePattern {
    type Err = ScopeError;

    fn from_str(s: &str) -> Result<Self, ScopeError> {
        let body = s.strip_prefix('/').unwrap_or(s);
        let n_levels = body.split('/').count();
        let ok = body.split('/').enumerate().all(|(i, l)| l == "+" || (l == "#" && i + 1 == n_levels) || level_ok(l));
        if ok { Ok(Self(SmolStr::new(format!("/{body}")))) } else { Err(ScopeError { found: s.chars().take(80).collect() }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iris_are_absolute() {
        for good in ["urn:ngsi-ld:A:b", "https://a.example/x#y", "urn:ngsi-ld:站:古城"] {
            assert!(good.parse::<Iri>().is_ok(), "{good}");
        }
        for bad in ["", "a", ":a", "1a:b", "urn:a b", "urn:", "urn:<x>", "urn:a\nb"] {
            assert!(bad.parse::<Iri>().is_err(), "{bad}");
        }
        assert!(format!("urn:{}", "a".repeat(IRI_BYTES_MAX)).parse::<Iri>().is_err());
    }

    #[test]
    fn a_name_that_is_interned_is_the_same_name_with_one_text_for_all() {
        let name = || Iri::known("https://uri.etsi.org/ngsi-ld/default-context/internedInThisTest");
        let (a, b) = (name().interned(), name().interned());
        assert!(a.is_same_text(&b) && a.is_same_text(&a.clone()));
        assert!(!a.is_same_text(&name()), "it is not taken from whoever had it first");
        assert_eq!((&a, hash_of(&a)), (&name(), hash_of(&name())));
        let long = Iri::known(&format!("urn:x:{}", "y".repeat(INTERNED_BYTES_MAX)));
        assert_eq!(long.interned(), long);
        assert!(long.interned().0.is_heap_allocated(), "what is too long is not kept for good");

        fn hash_of(iri: &Iri) -> u64 {
            use std::hash::BuildHasher;
            foldhash::fast::FixedState::default().hash_one(iri)
        }
    }

    #[test]
    fn local_names_are_the_last_part() {
        assert_eq!(Iri::known("https://uri.fiware.org/ns/data-models#AirQualityObserved").local_name(), "AirQualityObserved");
        assert_eq!(Iri::known("https://schema.org/address").local_name(), "address");
    }

    #[test]
    fn scope_patterns_follow_clause_4_19() {
        check("/A/B", "/A/B", true);
        check("/A/B", "/A/B/C", false);
        check("/A/+/C", "/A/x/C", true);
        check("/A/+", "/A", false);
        check("/A/#", "/A", true);
        check("/A/#", "/A/B/C", true);
        check("/#", "/X", true);
        check("A/B", "/A/B", true);

        #[track_caller]
        fn check(pattern: &str, scope: &str, want: bool) {
            assert_eq!(pattern.parse::<ScopePattern>().unwrap().matches(&scope.parse().unwrap()), want, "{pattern} on {scope}");
        }
        assert!("/A/#/B".parse::<ScopePattern>().is_err());
        assert!("/A//B".parse::<Scope>().is_err());
    }
}
