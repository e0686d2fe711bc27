//! Distributed operations (ETSI GS CIM 009 V1.9.1, clauses 4.3.6, 5.6, 5.7 and 6.3.17 to 6.3.19): requests that also, or only, other systems can
//! answer, over HTTP.
//!
//! [`read`] asks sources and merges what they say with what is here; [`write`] has sources make their parts of a change; [`request`] is one request to one source. What is sent to whom, and how
//! answers become one, is decided in [`ngsi::forward`].
//!
//! **Invariant:** a node without registrations does none of this (kept by `Node::has_registrations` at each way in).

pub(crate) mod batch;
mod cache;
pub(crate) mod names;
pub(crate) mod read;
mod request;
pub(crate) mod write;

use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use node::Registered;
use tokio::sync::Semaphore;

use super::Call;
use crate::problem::Problem;
use crate::tenants::TenantName;
use cache::Cache;

/// Requests to sources at the same time, of all clients together; others wait for their turn within their own time-out.
const REQUESTS_MAX: usize = 512;

/// Sources that one request is passed on to.
const SOURCES_MAX: usize = 1_000;

/// How this node speaks to sources, and what it keeps of their answers.
pub struct Sources {
    alias: String,
    public_url: String,
    turns: Arc<Semaphore>,
    cache: Cache,
    /// Whether others reach this node at its public address, as far as that was tried.
    reached: Arc<Mutex<Option<Result<(), String>>>>,
}

impl Sources {
    /// `alias` is the name in `Via`, unique among all that may be registered with each other; `public_url` is where others reach this node,
    /// without a slash at the end.
    #[must_use]
    pub fn new(alias: impl Into<String>, public_url: impl Into<String>) -> Self {
        Self {
            alias: alias.into(),
            public_url: public_url.into(),
            turns: Arc::new(Semaphore::new(REQUESTS_MAX)),
            cache: Cache::default(),
            reached: Arc::default(),
        }
    }

    /// The same for a tenant, which is a source of its own (clause 4.14).
    pub(crate) fn of_tenant(&self, name: &TenantName) -> Self {
        Self { alias: format!("{}/{name}", self.alias), ..self.again() }
    }

    /// The same with nothing kept of answers.
    pub(crate) fn again(&self) -> Self {
        let Self { alias, public_url, turns, reached, .. } = self;
        Self {
            alias: alias.clone(),
            public_url: public_url.clone(),
            turns: Arc::clone(turns),
            cache: Cache::default(),
            reached: Arc::clone(reached),
        }
    }

    /// The name by which this node signs in `Via`.
    #[must_use]
    pub fn alias(&self) -> &str {
        &self.alias
    }

    /// Do others reach this node at its public address? None if that was not tried yet; an error says why not.
    #[must_use]
    pub fn reached(&self) -> Option<Result<(), String>> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn note_reached(&self, reached: Result<(), String>) {
        *self.reached.lock().unwrap_or_else(PoisonError::into_inner) = Some(reached);
    }

    /// Where others reach this node.
    #[must_use]
    pub fn public_url(&self) -> &str {
        &self.public_url
    }
}

/// What a reader is told about sources (clause 6.3.17).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Warning {
    code: u16,
    text: String,
}

impl Warning {
    fn new(code: u16, registered: &Registered, text: &str) -> Self {
        Self { code, text: format!("{}: {text}", registered.registration.id) }
    }
}

/// The most warnings of one answer, and the longest text of one.
const WARNINGS_MAX: usize = 50;
const WARNING_CHARS_MAX: usize = 300;

/// Adds the headers `NGSILD-Warning`.
pub(crate) fn add_warnings(call: &Call, response: &mut Response, warnings: &[Warning]) {
    for warning in warnings.iter().take(WARNINGS_MAX) {
        let plain = |c: &char| c.is_ascii() && !c.is_ascii_control() && !matches!(c, '"' | '\\');
        let text: String = warning.text.chars().filter(plain).take(WARNING_CHARS_MAX).collect();
        if let Ok(value) = HeaderValue::from_str(&format!("{} {} \"{text}\"", warning.code, call.app.sources.alias)) {
            response.headers_mut().append("ngsild-warning", value);
        }
    }
}

/// The names in the `Via` headers (RFC 9110, 7.6.3): each node that a request has passed.
fn passed(headers: &HeaderMap) -> Vec<String> {
    let lines = headers.get_all("via").iter().filter_map(|v| v.to_str().ok());
    lines.flat_map(|l| l.split(',')).filter_map(|hop| hop.split_ascii_whitespace().nth(1)).map(str::to_owned).collect()
}

/// Refuses a request that this node has passed on itself, with the names of those that it has passed.
fn checked_via(call: &Call) -> Result<Vec<String>, Problem> {
    let passed = passed(&call.headers);
    if passed.contains(&call.app.sources.alias) {
        let detail = format!("this request has been here before: it came by {}", passed.join(", "));
        return Err(Problem::new(StatusCode::LOOP_DETECTED, "LoopDetected", detail));
    }
    Ok(passed)
}

/// Would asking this source lead back to somebody who asks us?
fn leads_back(registered: &Registered, passed: &[String]) -> bool {
    registered.registration.alias.as_ref().is_some_and(|alias| passed.contains(alias))
}
