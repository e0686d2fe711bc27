//! What is wrong with something that came from outside.

use std::fmt;

/// Why a document or a parameter cannot be used: which kind of mistake, where, and what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// The kind of mistake.
    pub kind: ErrorKind,
    /// Where it is: `attribute pm25/unitCode`, `parameter q`; empty if it is the whole document.
    pub at: String,
    /// What was found and what was expected.
    pub what: String,
}

/// Kinds of mistakes (ETSI GS CIM 009 V1.9.1, clauses 5.5.2 and 6.3.20).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Not JSON at all, or a parameter that does not exist or does not fit.
    InvalidRequest,
    /// JSON, but against the rules of the data model or of the query languages.
    BadRequestData,
    /// A remote `@context` that could not be fetched.
    LdContextNotAvailable,
}

impl ErrorKind {
    /// The name of the problem type as NGSI-LD writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "InvalidRequest",
            Self::BadRequestData => "BadRequestData",
            Self::LdContextNotAvailable => "LdContextNotAvailable",
        }
    }

    /// A short text for people, the same for all errors of the kind.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::InvalidRequest => "The request is not valid",
            Self::BadRequestData => "The request contains wrong data",
            Self::LdContextNotAvailable => "A remote @context is not available",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at.is_empty() { f.write_str(&self.what) } else { write!(f, "{}: {}", self.at, self.what) }
    }
}

impl Error {
    /// Wrong data.
    pub(crate) fn bad(what: impl Into<String>) -> Self {
        Self { kind: ErrorKind::BadRequestData, at: String::new(), what: what.into() }
    }

    /// A wrong request.
    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self { kind: ErrorKind::InvalidRequest, at: String::new(), what: what.into() }
    }

    /// A context that could not be fetched.
    pub(crate) fn unavailable(what: impl Into<String>) -> Self {
        Self { kind: ErrorKind::LdContextNotAvailable, at: String::new(), what: what.into() }
    }

    /// The same error, seen from one level further out.
    #[must_use]
    pub fn within(mut self, segment: &str) -> Self {
        self.at = match (self.at.is_empty(), segment.is_empty()) {
            (true, _) => segment.to_owned(),
            (false, true) => self.at,
            (false, false) => format!("{segment}/{}", self.at),
        };
        self
    }
}

/// The result of reading something from outside.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// How many characters of what was found an error repeats.
const SHOWN_CHARS_MAX: usize = 80;

/// What was found, shortened for a message.
pub(crate) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A JSON value in a few words: what it is, and if it is short what it says.
pub(crate) fn described(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => format!("the boolean `{b}`"),
        Value::Number(n) => format!("the number `{n}`"),
        Value::String(s) => format!("the string `{}`", shown(s)),
        Value::Array(list) => format!("an array of {}", list.len()),
        Value::Object(_) => "an object".to_owned(),
    }
}
