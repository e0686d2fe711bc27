//! JSON-LD contexts, as far as NGSI-LD needs them: short names to full IRIs and back.
//!
//! A [`Context`] is a resolved table. The core context v1.9 is always last and always wins (ETSI GS CIM 009 V1.9.1, clause 5.5.7), so
//! that `location` means the same whatever a user context says. [`ContextStore`] finds and keeps contexts; it does no I/O itself, the
//! edge gives it a [`Loader`].

mod build;
mod embedded;
mod link;
mod store;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;

use entity::{DEFAULT_CONTEXT_NS, Iri};
use serde_json::Value;
use smol_str::SmolStr;

pub use embedded::embedded_urls;
pub use link::context_of_link_header;
pub use store::{CONTEXT_BYTES_MAX, CONTEXTS_MAX, ContextStore, LoadError, Loader, local_id};

use crate::error::{Error, Result, shown};

/// The core context that answers name.
pub const CORE_CONTEXT_URL: &str = "https://uri.etsi.org/ngsi-ld/v1/ngsi-ld-core-context-v1.9.jsonld";

/// Our own words: agreements, peers, device profiles, provenance.
pub const CONURB_CONTEXT_URL: &str = "https://conurb.org/ns/context.jsonld";

/// The user context that a node uses when its operator names none: the Smart Data Models.
pub const DEFAULT_USER_CONTEXT_URL: &str = "https://smartdatamodels.org/context.jsonld";

/// A resolved `@context`: what each short name means. Made by [`ContextStore::resolve`].
#[derive(Debug, Clone)]
pub struct Context {
    /// The user part as given: URLs and inline objects, the core context left out.
    user: Vec<Value>,
    terms: HashMap<SmolStr, Iri>,
    /// The best short name of each IRI.
    names: HashMap<Iri, SmolStr>,
    /// Prefixes for compact IRIs, longest IRI first.
    prefixes: Vec<(Iri, SmolStr)>,
    id: SmolStr,
}

impl Context {
    /// The full IRI of a type, attribute or vocabulary name (clause 5.5.7).
    ///
    /// In this order: a term of the core context, a term of the user context, `prefix:name`, an absolute IRI, and otherwise
    /// the name in the default namespace. Errors: [`crate::ErrorKind::BadRequestData`] if the name breaks the rule of clause 4.6.2.
    pub fn expand(&self, name: &str) -> Result<Iri> {
        if let Some(iri) = self.terms.get(name) {
            return Ok(iri.clone());
        }
        if let Some((prefix, rest)) = name.split_once(':') {
            let own = || self.prefixes.iter().find(|(_, p)| p == prefix).map(|(iri, _)| iri);
            if let Some(base) = own().or_else(|| build::CORE_PREFIXES.get(prefix)).filter(|_| !rest.starts_with("//")) {
                return format!("{base}{rest}").parse().map_err(|_| bad_name(name));
            }
            return build::https_namespace(name).parse().map_err(|_| bad_name(name));
        }
        if is_name(name) { format!("{DEFAULT_CONTEXT_NS}{name}").parse().map_err(|_| bad_name(name)) } else { Err(bad_name(name)) }
    }

    /// The shortest name by which [`Context::expand`] finds `iri` again: a term, a name of the default namespace, `prefix:name`,
    /// or else the IRI itself (clause 5.5.7).
    #[must_use]
    pub fn compact<'a>(&'a self, iri: &'a Iri) -> Cow<'a, str> {
        if let Some(term) = self.names.get(iri) {
            return Cow::Borrowed(term);
        }
        if let Some(name) = iri.as_str().strip_prefix(DEFAULT_CONTEXT_NS)
            && is_name(name)
            && !self.terms.contains_key(name)
        {
            return Cow::Borrowed(name);
        }
        for (base, prefix) in &self.prefixes {
            if let Some(rest) = iri.as_str().strip_prefix(base.as_str())
                && !rest.is_empty()
                && !rest.starts_with("//")
            {
                let compact = format!("{prefix}:{rest}");
                // A term may happen to have this very name and mean something else.
                if !self.terms.contains_key(compact.as_str()) {
                    return Cow::Owned(compact);
                }
            }
        }
        Cow::Borrowed(iri.as_str())
    }

    /// A name for a table or a column: the compact name if it has no prefix or path, else what follows the last `#`, `/` or `:`.
    /// Not unique.
    #[must_use]
    pub fn short_name(&self, iri: &Iri) -> String {
        let compact = self.compact(iri);
        if is_name(&compact) { compact.into_owned() } else { iri.local_name().to_owned() }
    }

    /// The `@context` member of a document written with this context: the user part, then the core context; not an array if it is alone.
    #[must_use]
    pub fn json(&self) -> Value {
        if self.user.is_empty() {
            return Value::String(CORE_CONTEXT_URL.to_owned());
        }
        let mut all = self.user.clone();
        all.push(Value::String(CORE_CONTEXT_URL.to_owned()));
        Value::Array(all)
    }

    /// The one URL that stands for this context in a `Link` header; none if it is inline or has several parts, so that a wrapper must
    /// be served under its [`Context::id`] (clause 5.13.1).
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        match self.user.as_slice() {
            [] => Some(CORE_CONTEXT_URL),
            [Value::String(url)] => Some(url),
            _ => None,
        }
    }

    /// A name for this context that stays the same as long as its text does; finds it again with [`ContextStore::by_id`].
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How many terms it knows, those of the core context included.
    #[must_use]
    pub fn n_terms(&self) -> usize {
        self.terms.len()
    }
}

/// Is this a name by the rule of clause 4.6.2, without a prefix?
///
/// More than the rule has are allowed: a leading `_`, and `-` after the first character, which the actuation convention of annex H
/// and real device data use.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_alphabetic() || c == '_') && chars.all(|c| c.is_alphanumeric() || c == '_' || c == '-')
}

fn bad_name(name: &str) -> Error {
    Error::bad(format!(
        "`{}` is not a name (expected a letter and then letters, digits or `_`, optionally with a prefix, or a full URI)",
        shown(name)
    ))
}
