//! From the JSON of a context to the table of what its terms mean.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use entity::{DEFAULT_CONTEXT_NS, Iri, NGSI_LD_NS};
use serde_json::{Map, Value};
use smol_str::SmolStr;

use super::{Context, embedded};
use crate::error::{Error, Result, described, shown};

/// The most terms a context may define; the largest public ones have under two thousand.
const TERMS_MAX: usize = 20_000;

/// How many terms may refer to one another in a chain.
const TERM_CHAIN_MAX: usize = 16;

/// The terms of the core context v1.9.
pub(super) static CORE_TERMS: LazyLock<Terms> = LazyLock::new(|| {
    let document: Value = serde_json::from_str(embedded::CORE).expect("the embedded core context is JSON");
    let map = document["@context"].as_object().expect("the core context is an object");
    let mut terms = Terms::default();
    terms.add(map, true).expect("the core context is well-formed");
    terms
});

/// The table while it grows.
#[derive(Debug, Clone, Default)]
pub(super) struct Terms {
    terms: HashMap<SmolStr, Iri>,
    /// Terms that may stand before a colon when names are made short.
    prefixes: HashMap<SmolStr, Iri>,
    vocab: Option<String>,
}

impl Terms {
    /// Adds one context object; what it defines replaces what was there.
    ///
    /// `trusted`: it is one of the embedded documents, some of which use JSON-LD features that user contexts may not.
    pub(super) fn add(&mut self, map: &Map<String, Value>, trusted: bool) -> Result<()> {
        match map.get("@vocab") {
            None => {}
            Some(Value::Null) => self.vocab = None,
            Some(Value::String(v)) => self.vocab = Some(https_namespace(v).into_owned()),
            Some(other) => return Err(Error::bad(format!("expected a string, found {}", described(other))).within("@context/@vocab")),
        }
        for key in ["@import", "@propagate"] {
            if map.contains_key(key) {
                return Err(Error::bad(format!("`{key}` is not supported in a user context")).within("@context"));
            }
        }
        for (term, definition) in map.iter().filter(|(term, _)| !term.starts_with('@')) {
            let in_term = |e: Error| e.within(&format!("@context/{}", shown(term)));
            if !trusted && definition.get("@context").is_some() {
                return Err(in_term(Error::bad("a context inside a term is not allowed (ETSI GS CIM 009, clause 5.5.7)")));
            }
            match self.meaning(term, definition, map, 0).map_err(in_term)? {
                Some(iri) => {
                    if is_prefix(definition, &iri) {
                        self.prefixes.insert(term.into(), iri.clone());
                    } else {
                        self.prefixes.remove(term.as_str());
                    }
                    self.terms.insert(term.into(), iri);
                }
                None => {
                    self.terms.remove(term.as_str());
                    self.prefixes.remove(term.as_str());
                }
            }
            if self.terms.len() > TERMS_MAX {
                return Err(Error::bad(format!("more than {TERMS_MAX} terms")).within("@context"));
            }
        }
        Ok(())
    }

    /// Forgets everything: a `null` in a context array.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The IRI of a term; none for keyword aliases and terms that are switched off.
    fn meaning(&self, term: &str, definition: &Value, map: &Map<String, Value>, depth: usize) -> Result<Option<Iri>> {
        match definition {
            Value::Null => Ok(None),
            Value::String(target) => self.iri_of(target, term, map, depth),
            Value::Object(o) => {
                if o.contains_key("@reverse") {
                    return Err(Error::bad("`@reverse` is not supported"));
                }
                match o.get("@id") {
                    None => self.iri_of(term, term, map, depth),
                    Some(Value::Null) => Ok(None),
                    Some(Value::String(target)) => self.iri_of(target, term, map, depth),
                    Some(other) => Err(Error::bad(format!("`@id` must be a string, found {}", described(other)))),
                }
            }
            other => Err(Error::bad(format!("expected a string or an object, found {}", described(other)))),
        }
    }

    /// The IRI that `target` stands for in the definition of `term`.
    fn iri_of(&self, target: &str, term: &str, map: &Map<String, Value>, depth: usize) -> Result<Option<Iri>> {
        if target.starts_with('@') {
            return Ok(None);
        }
        if depth > TERM_CHAIN_MAX {
            return Err(Error::bad(format!("terms refer to one another more than {TERM_CHAIN_MAX} deep, perhaps in a circle")));
        }
        let other_term = |name: &str| -> Result<Option<Iri>> {
            match map.get(name).filter(|_| name != term) {
                Some(definition) => self.meaning(name, definition, map, depth + 1),
                None => Ok(self.terms.get(name).or_else(|| CORE_PREFIXES.get(name)).cloned()),
            }
        };
        let full = match target.split_once(':') {
            Some((_, rest)) if rest.starts_with("//") => https_namespace(target).into_owned(),
            Some(("_", _)) => return Ok(None),
            Some((prefix, rest)) => match self.prefix(prefix, term, map, depth)? {
                Some(base) => format!("{base}{rest}"),
                None => target.to_owned(),
            },
            None => match if target == term { None } else { other_term(target)? } {
                Some(iri) => return Ok(Some(iri)),
                None => format!("{}{target}", self.vocab.as_deref().unwrap_or(DEFAULT_CONTEXT_NS)),
            },
        };
        full.parse()
            .or_else(|_| percent_encoded(&full).parse())
            .map(Some)
            .map_err(|e: entity::IriError| Error::bad(format!("`{}`: {e}", shown(target))))
    }

    /// What stands for `prefix` before a colon in the definition of `term`; none if it is no prefix, but a scheme, say.
    fn prefix(&self, prefix: &str, term: &str, map: &Map<String, Value>, depth: usize) -> Result<Option<Iri>> {
        match map.get(prefix).filter(|_| prefix != term) {
            Some(definition) => Ok(self.meaning(prefix, definition, map, depth + 1)?.filter(|iri| is_prefix(definition, iri))),
            None => Ok(self.prefixes.get(prefix).or_else(|| CORE_PREFIXES.get(prefix)).cloned()),
        }
    }

    /// The finished table: the core context on top, and the ways back from IRIs to names.
    pub(super) fn finish(mut self, user: Vec<Value>, id: SmolStr) -> Context {
        // The core context is protected: these stay keywords whatever a user context says.
        for keyword in ["id", "type"] {
            self.terms.remove(keyword);
            self.prefixes.remove(keyword);
        }
        for (term, iri) in &CORE_TERMS.terms {
            self.terms.insert(term.clone(), iri.clone());
            self.prefixes.remove(term);
        }
        let mut names: HashMap<Iri, SmolStr> = HashMap::with_capacity(self.terms.len());
        for (term, iri) in &self.terms {
            let core = CORE_TERMS.terms.contains_key(term);
            let better = names.get(iri).is_none_or(|old| {
                // Core terms always compact; then the shorter, then the first in the alphabet (JSON-LD 1.1 API, inverse context).
                let old_core = CORE_TERMS.terms.contains_key(old);
                (!core, term.len(), term.as_str()) < (!old_core, old.len(), old.as_str())
            });
            // A prefix is no name for the namespace that it stands for.
            if better && !self.prefixes.contains_key(term) {
                names.insert(iri.clone(), term.clone());
            }
        }
        let mut prefixes: Vec<(Iri, SmolStr)> = self.prefixes.into_iter().map(|(term, iri)| (iri, term)).collect();
        prefixes.sort_by(|a, b| b.0.as_str().len().cmp(&a.0.as_str().len()).then_with(|| a.1.cmp(&b.1)));
        Context { user, terms: self.terms, names, prefixes, id }
    }
}

/// May a term stand before a colon (JSON-LD 1.1, create term definition, 14.2.5)?
fn is_prefix(definition: &Value, iri: &Iri) -> bool {
    definition.is_string() && iri.as_str().ends_with([':', '/', '?', '#', '[', ']', '@'])
        || definition.get("@prefix") == Some(&Value::Bool(true))
}

/// Prefixes that every context may use because the core context defines them.
pub(super) static CORE_PREFIXES: LazyLock<HashMap<SmolStr, Iri>> = LazyLock::new(|| {
    HashMap::from([
        (SmolStr::new_static("ngsi-ld"), Iri::known(NGSI_LD_NS)),
        (SmolStr::new_static("geojson"), Iri::known("https://purl.org/geojson/vocab#")),
    ])
});

/// Old contexts write the NGSI-LD namespace with `http:`; there is only one namespace.
pub(super) fn https_namespace(iri: &str) -> Cow<'_, str> {
    match iri.strip_prefix("http://uri.etsi.org/ngsi-ld/") {
        Some(rest) => Cow::Owned(format!("{NGSI_LD_NS}{rest}")),
        None => Cow::Borrowed(iri),
    }
}

/// Some public contexts have spaces in their IRIs; the characters that an IRI cannot have are percent-encoded.
fn percent_encoded(iri: &str) -> String {
    let mut out = String::with_capacity(iri.len());
    for c in iri.chars() {
        if c.is_control() || c.is_whitespace() || matches!(c, '<' | '>' | '"' | '{' | '}' | '|' | '\\' | '^' | '`') {
            let mut buffer = [0; 4];
            for byte in c.encode_utf8(&mut buffer).bytes() {
                out.push_str(&format!("%{byte:02X}"));
            }
        } else {
            out.push(c);
        }
    }
    out
}
