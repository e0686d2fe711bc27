//! Fetching foreign contexts: quickly or not at all, and each only once at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use entity::Instant;
use ngsi::context::CONTEXT_BYTES_MAX;
use reqwest::header::{CACHE_CONTROL, EXPIRES, HeaderMap, LOCATION};
use tokio::sync::OnceCell;

use crate::chain;
use crate::outbound::Outbound;

/// How long a foreign context may take, with all redirections.
const FETCH_WAIT: Duration = Duration::from_secs(5);

/// How often an address may send us elsewhere.
const REDIRECTS_MAX: usize = 5;

/// For so long nobody asks again for what could not be had.
const FAILURE_SECONDS: i64 = 5;

/// Failures that are remembered.
const FAILURES_MAX: usize = 1_000;

/// How long a document is fresh whose server says nothing (clause 6.3.16: a heuristic).
const FRESH_SECONDS: i64 = 24 * 3600;

/// What servers may say: never so short that every request fetches, never longer than a month.
const FRESH_SECONDS_MIN: i64 = 1;
const FRESH_SECONDS_MAX: i64 = 30 * 24 * 3600;

/// A document that was fetched.
#[derive(Clone, Debug)]
pub(super) struct Fetched {
    pub(super) text: String,
    /// By `Cache-Control` or `Expires`, or our own guess.
    pub(super) fresh_until: Instant,
}

/// Why a document was not had.
#[derive(Clone, Debug)]
pub(super) struct FetchError(String);

impl FetchError {
    /// For people.
    pub(super) fn reason(self) -> String {
        self.0
    }
}

type Outcome = Result<Arc<Fetched>, FetchError>;

/// Who is fetching what, so that requests for one URL share one attempt.
#[derive(Default)]
pub(super) struct Turns {
    under_way: Mutex<HashMap<String, Turn>>,
}

#[derive(Clone)]
struct Turn {
    outcome: Arc<OnceCell<Outcome>>,
    started_at: Instant,
}

impl Turns {
    /// Fetches, or waits for whoever does it already; a failure a moment ago is the answer, too.
    pub(super) async fn fetch(&self, outbound: &Outbound, url: &str, now: Instant) -> Outcome {
        let turn = self.turn(url, now);
        let outcome = turn.outcome.get_or_init(|| async { fetch(outbound, url, now).await.map(Arc::new) }).await.clone();
        if outcome.is_ok() {
            self.table(|t| t.remove(url));
        }
        outcome
    }

    fn table<T>(&self, work: impl FnOnce(&mut HashMap<String, Turn>) -> T) -> T {
        work(&mut self.under_way.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn turn(&self, url: &str, now: Instant) -> Turn {
        self.table(|turns| {
            let is_over = |t: &Turn| t.outcome.initialized() && t.started_at.plus_micros(FAILURE_SECONDS * 1_000_000) <= now;
            if turns.len() >= FAILURES_MAX {
                turns.retain(|_, t| !is_over(t));
            }
            if turns.len() >= FAILURES_MAX {
                // Too many failures within seconds to remember them all.
                turns.retain(|_, t| !t.outcome.initialized());
            }
            if turns.get(url).is_some_and(is_over) {
                turns.remove(url);
            }
            turns.entry(url.to_owned()).or_insert_with(|| Turn { outcome: Arc::default(), started_at: now }).clone()
        })
    }
}

/// Fetches a document.
pub(super) async fn fetch(outbound: &Outbound, url: &str, now: Instant) -> Result<Fetched, FetchError> {
    match tokio::time::timeout(FETCH_WAIT, follow(outbound, url, now)).await {
        Ok(outcome) => outcome.map_err(FetchError),
        Err(_) => Err(FetchError(format!("there was no answer within {} s", FETCH_WAIT.as_secs()))),
    }
}

async fn follow(outbound: &Outbound, url: &str, now: Instant) -> Result<Fetched, String> {
    let mut url = outbound.check(url).map_err(|e| e.to_string())?;
    for _ in 0..=REDIRECTS_MAX {
        let request = outbound.client().get(url.clone()).header("accept", "application/ld+json, application/json;q=0.9, */*;q=0.1");
        let mut response = request.send().await.map_err(|e| chain(&e))?;
        if response.status().is_redirection() {
            let to = response.headers().get(LOCATION).and_then(|l| l.to_str().ok()).ok_or("it is elsewhere, nobody says where")?;
            let to = url.join(to).map_err(|e| format!("it is said to be at `{to}`: {e}"))?;
            // Each step is checked: a public address must not lead us to a private one.
            url = outbound.check(to.as_str()).map_err(|e| e.to_string())?;
            continue;
        }
        if !response.status().is_success() {
            return Err(format!("the answer was {}", response.status()));
        }
        let fresh_until = now.plus_micros(fresh_seconds(response.headers(), now) * 1_000_000);
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| chain(&e))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > CONTEXT_BYTES_MAX {
                return Err(format!("it is larger than the limit of {CONTEXT_BYTES_MAX} bytes"));
            }
        }
        let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
        return Ok(Fetched { text, fresh_until });
    }
    Err(format!("it is elsewhere, more than {REDIRECTS_MAX} times"))
}

/// For how many seconds an answer is fresh: `s-maxage`, `max-age`, `Expires`, or a guess (RFC 9111, section 4.2).
fn fresh_seconds(headers: &HeaderMap, now: Instant) -> i64 {
    let control = headers.get_all(CACHE_CONTROL).iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>().join(",").to_ascii_lowercase();
    let directive = |wanted: &str| {
        control.split(',').find_map(|d| match d.trim().split_once('=') {
            Some((name, value)) if name == wanted => value.trim_matches('"').parse::<i64>().ok(),
            None if d.trim() == wanted => Some(0),
            _ => None,
        })
    };
    let expires = || {
        let text = headers.get(EXPIRES)?.to_str().ok()?;
        // What is no date is in the past (RFC 9111, section 5.3).
        Some(http_date(text).map_or(0, |at| (at.micros() - now.micros()) / 1_000_000))
    };
    let says = directive("no-store").or_else(|| directive("no-cache")).or_else(|| directive("s-maxage")).or_else(|| directive("max-age"));
    says.or_else(expires).unwrap_or(FRESH_SECONDS).clamp(FRESH_SECONDS_MIN, FRESH_SECONDS_MAX)
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7; the obsolete forms are not read).
fn http_date(text: &str) -> Option<Instant> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, date) = text.split_once(", ")?;
    let parts: Vec<&str> = date.split(' ').collect();
    let [day, month, year, time, "GMT"] = parts.as_slice() else { return None };
    let month = MONTHS.iter().position(|m| m == month)? + 1;
    format!("{year}-{month:02}-{day}T{time}Z").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_say_how_long_a_document_is_fresh() {
        let now: Instant = "1994-11-06T08:49:37Z".parse().unwrap();
        check(&[("cache-control", "public, max-age=60")], 60);
        check(&[("cache-control", "max-age=60, s-maxage=\"90\"")], 90);
        check(&[("cache-control", "max-age=60"), ("expires", "Sun, 06 Nov 1994 08:51:37 GMT")], 60);
        check(&[("expires", "Sun, 06 Nov 1994 08:51:37 GMT")], 120);
        check(&[("expires", "0")], FRESH_SECONDS_MIN);
        check(&[("cache-control", "no-store, max-age=60")], FRESH_SECONDS_MIN);
        check(&[("cache-control", "max-age=99999999999")], FRESH_SECONDS_MAX);
        check(&[("cache-control", "max-age=often")], FRESH_SECONDS);
        check(&[], FRESH_SECONDS);

        #[track_caller]
        fn check(headers: &[(&'static str, &str)], want: i64) {
            let now = "1994-11-06T08:49:37Z".parse().unwrap();
            let map = headers.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
            assert_eq!(fresh_seconds(&map, now), want, "{headers:?}");
        }
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(now));
        assert_eq!(http_date("Sunday, 06-Nov-94 08:49:37 GMT"), None);
    }
}
