//! Signed messages between nodes: HTTP Message Signatures (RFC 9421) with Ed25519 and Content-Digest (RFC 9530), as pure functions over
//! the parts of a message.
//!
//! A request is signed over its method, path, query, body (by its digest), the city it is meant for (header [`TO_HEADER`]), and, if
//! known, the authority; with `created`, `keyid` (the public key), `nonce` and the tag [`TAG`]. The city it is meant for is covered
//! because a city that received a question could otherwise pass it on to a third one and read with the asker's rights. A response is signed
//! over its status, body and the signature of the request that it answers, so it fits no other one.
//!
//! Why not only mutual TLS: a signature survives proxies, can be kept, and can be shown to a third party.

use std::fmt::Write;

use entity::Instant;
use policy::{CityName, PublicKey, PublicKeyError};
use ring::digest;

use crate::key::{self, CityKey};
use field::{Bare, Member, Parameters};

mod field;
mod nonce;

pub use nonce::{NONCES_PER_KEY_MAX, NonceCache};

/// The label of our signature among others on the same message.
pub const LABEL: &str = "conurb";

/// The tag that tells this use of signatures from others (RFC 9421, section 2.3).
pub const TAG: &str = "conurb-peer";

/// Header with the name of the city that a request is meant for.
pub const TO_HEADER: &str = "conurb-to";

/// How far the clocks of two cities may be apart, in seconds. Nodes run NTP; five minutes forgive a broken one without keeping many nonces.
pub const CLOCK_SKEW_S_MAX: i64 = 300;

/// The most components that a signature may cover.
const COMPONENTS_MAX: usize = 32;

/// The longest nonce, in characters.
const NONCE_CHARS_MAX: usize = 128;

/// A request, as far as signatures go. Header names in any case; a header that comes several times is listed several times.
#[derive(Clone, Debug)]
pub struct MessageParts<'a> {
    /// `POST`
    pub method: &'a str,
    /// Path and query as on the request line: `/peer/v1/ask?x=y`.
    pub target: &'a str,
    /// Host and port asked, if the edge knows it for sure; behind a proxy it may not.
    pub authority: Option<&'a str>,
    /// Headers by name.
    pub headers: Vec<(&'a str, &'a str)>,
    /// The content.
    pub body: &'a [u8],
}

/// A response, as far as signatures go.
#[derive(Clone, Debug)]
pub struct ResponseParts<'a> {
    /// The status code.
    pub status: u16,
    /// Headers by name.
    pub headers: Vec<(&'a str, &'a str)>,
    /// The content.
    pub body: &'a [u8],
}

/// Headers to add to a message.
pub type Headers = Vec<(&'static str, String)>;

/// A request whose signature holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// The city whose key it is.
    pub city: CityName,
    /// The key.
    pub key: PublicKey,
    /// When it was signed.
    pub created: Instant,
}

/// Why a signature is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No signature at all.
    #[error("the message is not signed by a city: {what} is missing")]
    Missing {
        /// What is missing.
        what: &'static str,
    },
    /// A header is not what it should be.
    #[error("header `{header}` cannot be used: {reason}")]
    Form {
        /// The header.
        header: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Something important is not protected.
    #[error("the signature does not cover `{component}`")]
    NotCovered {
        /// What should be covered.
        component: &'static str,
    },
    /// A covered part cannot be rebuilt from the message.
    #[error("the signature covers `{component}`, {reason}")]
    Component {
        /// The part.
        component: String,
        /// Why not.
        reason: &'static str,
    },
    /// `keyid` is not a city's key.
    #[error("the signature's keyid is not a city's key")]
    KeyForm(#[source] PublicKeyError),
    /// Nobody in the cluster has this key.
    #[error("no member of this cluster has the key `{key}`")]
    UnknownKey {
        /// The key.
        key: PublicKey,
    },
    /// Signed by somebody else than expected.
    #[error("the answer is signed with the key `{found}` (expected `{expected}`)")]
    OtherKey {
        /// The key.
        found: PublicKey,
        /// Whose answer it should be.
        expected: PublicKey,
    },
    /// The request was made for another city.
    #[error("the request is meant for `{found}`, this is `{expected}`")]
    OtherCity {
        /// Whom it is for.
        found: String,
        /// Who we are.
        expected: CityName,
    },
    /// Too old or from the future.
    #[error("{}", clock_text(*.ahead_s))]
    Clock {
        /// Seconds that the time of signing is ahead of ours; negative: behind.
        ahead_s: i64,
    },
    /// The signer limited its life.
    #[error("the signature expired {ago_s} s ago")]
    Expired {
        /// Seconds since then.
        ago_s: i64,
    },
    /// The body was changed.
    #[error("the content is not the one that was signed: its SHA-256 differs from `content-digest`")]
    Digest,
    /// The signature itself is wrong.
    #[error("the signature does not fit the message and the key `{key}`")]
    Wrong {
        /// The key.
        key: PublicKey,
    },
    /// Seen before.
    #[error("the request was sent before (same nonce): it is a replay")]
    Replayed,
    /// More requests than nonces can be remembered.
    #[error("more than {NONCES_PER_KEY_MAX} requests of one city within {} s: ask less often", 2 * CLOCK_SKEW_S_MAX)]
    TooMany,
}

fn clock_text(ahead_s: i64) -> String {
    let side = if ahead_s < 0 { "behind" } else { "ahead of" };
    let n = thousands(ahead_s.unsigned_abs());
    format!("the peer's clock is {n} s {side} ours; at most {CLOCK_SKEW_S_MAX} s are allowed (or the message was held up)")
}

fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(d);
    }
    out
}

/// The Content-Digest of a body (RFC 9530).
#[must_use]
pub fn content_digest(body: &[u8]) -> String {
    format!("sha-256={}", field::item_text(&Bare::Bytes(digest::digest(&digest::SHA256, body).as_ref().to_vec()), &Vec::new()))
}

/// Signs a request for the city `to`. Returns the headers to add; `request` must not have them yet. `nonce` must be random.
#[must_use]
pub fn sign_request(request: &MessageParts<'_>, key: &CityKey, to: &CityName, created: Instant, nonce: &[u8; 16]) -> Headers {
    let digest = content_digest(request.body);
    let mut components = vec![Component::plain("@method"), Component::plain("@path"), Component::plain("@query")];
    components.extend(request.authority.map(|_| Component::plain("@authority")));
    components.extend([Component::plain("content-digest"), Component::plain(TO_HEADER)]);
    let mut hex = String::new();
    for b in nonce {
        let _ = write!(hex, "{b:02x}");
    }
    let parameters = parameters_of(key, created, Some(hex));
    let complete = MessageParts {
        headers: request.headers.iter().copied().chain([("content-digest", digest.as_str()), (TO_HEADER, to.as_str())]).collect(),
        ..request.clone()
    };
    let input = Input { components, parameters };
    let base = input.base(|c| request_value(&complete, c)).expect("we cover only what the request has");
    let mut headers = vec![(TO_HEADER, to.to_string()), ("content-digest", digest)];
    headers.extend(signature_headers(&input, key, &base));
    headers
}

/// Signs the response to a signed request. Returns the headers to add.
///
/// Errors: [`SignatureError::Missing`] or [`SignatureError::Form`] if the request is not signed by a city.
pub fn sign_response(
    request: &MessageParts<'_>,
    response: &ResponseParts<'_>,
    key: &CityKey,
    created: Instant,
) -> Result<Headers, SignatureError> {
    let digest = content_digest(response.body);
    let components = vec![Component::plain("@status"), Component::plain("content-digest"), Component::of_request_signature()];
    let complete = ResponseParts {
        headers: response.headers.iter().copied().chain([("content-digest", digest.as_str())]).collect(),
        ..response.clone()
    };
    let input = Input { components, parameters: parameters_of(key, created, None) };
    let base = input.base(|c| response_value(request, &complete, c))?;
    let mut headers = vec![("content-digest", digest)];
    headers.extend(signature_headers(&input, key, &base));
    Ok(headers)
}

/// What a receiver of requests knows.
pub struct Receiver<'a> {
    /// Its own name.
    pub city: &'a CityName,
    /// The members of the cluster by key.
    pub members: &'a dyn Fn(&PublicKey) -> Option<CityName>,
    /// Its time.
    pub now: Instant,
}

/// Checks a request: signed by a member, for us, now, whole, and for the first time. Only what passed every check is remembered in `nonces`.
pub fn verify_request(request: &MessageParts<'_>, receiver: &Receiver<'_>, nonces: &mut NonceCache) -> Result<Verified, SignatureError> {
    let input = Input::parse(&request.headers)?;
    for component in ["@method", "@path", "@query", "content-digest", TO_HEADER] {
        input.must_cover(component, &Component::plain(component))?;
    }
    let key = input.key()?;
    let city = (receiver.members)(&key).ok_or(SignatureError::UnknownKey { key })?;
    let created = input.created(receiver.now)?;
    let nonce = input.text("nonce").ok_or(SignatureError::Missing { what: "the signature's `nonce`" })?;
    if nonce.len() > NONCE_CHARS_MAX {
        return Err(SignatureError::Form { header: "signature-input", reason: format!("a nonce of {} characters", nonce.len()) });
    }
    let to = header(&request.headers, TO_HEADER).unwrap_or_default();
    if to != receiver.city.as_str() {
        return Err(SignatureError::OtherCity { found: to.chars().take(80).collect(), expected: receiver.city.clone() });
    }
    check_digest(&request.headers, request.body)?;
    let base = input.base(|c| request_value(request, c))?;
    if !key::verify(&key, base.as_bytes(), &signature_of(&request.headers)?) {
        return Err(SignatureError::Wrong { key });
    }
    nonces.admit(&key, created, nonce, receiver.now)?;
    Ok(Verified { city, key, created })
}

/// Checks that a response is the answer of the owner of `from` to exactly this request (with the headers of [`sign_request`]).
pub fn verify_response(
    request: &MessageParts<'_>,
    response: &ResponseParts<'_>,
    from: &PublicKey,
    now: Instant,
) -> Result<(), SignatureError> {
    let input = Input::parse(&response.headers)?;
    input.must_cover("@status", &Component::plain("@status"))?;
    input.must_cover("content-digest", &Component::plain("content-digest"))?;
    input.must_cover("the request's signature", &Component::of_request_signature())?;
    let key = input.key()?;
    if key != *from {
        return Err(SignatureError::OtherKey { found: key, expected: *from });
    }
    input.created(now)?;
    check_digest(&response.headers, response.body)?;
    let base = input.base(|c| response_value(request, response, c))?;
    if !key::verify(&key, base.as_bytes(), &signature_of(&response.headers)?) {
        return Err(SignatureError::Wrong { key });
    }
    Ok(())
}

fn parameters_of(key: &CityKey, created: Instant, nonce: Option<String>) -> Parameters {
    let mut parameters = vec![
        ("created".to_owned(), Bare::Integer(created.micros().div_euclid(1_000_000))),
        ("keyid".to_owned(), Bare::Text(key.public().to_string())),
    ];
    parameters.extend(nonce.map(|n| ("nonce".to_owned(), Bare::Text(n))));
    parameters.push(("tag".to_owned(), Bare::Text(TAG.to_owned())));
    parameters
}

fn signature_headers(input: &Input, key: &CityKey, base: &str) -> Headers {
    let signature = field::item_text(&Bare::Bytes(key.sign(base.as_bytes()).to_vec()), &Vec::new());
    vec![("signature-input", format!("{LABEL}={}", input.text_of_parameters())), ("signature", format!("{LABEL}={signature}"))]
}

/// A covered part of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Component {
    name: String,
    parameters: Parameters,
}

impl Component {
    fn plain(name: &str) -> Self {
        Self { name: name.to_owned(), parameters: Vec::new() }
    }

    /// `"signature";req;key="conurb"`: our signature of the request, in a response.
    fn of_request_signature() -> Self {
        let parameters = vec![("req".to_owned(), Bare::Boolean(true)), ("key".to_owned(), Bare::Text(LABEL.to_owned()))];
        Self { name: "signature".to_owned(), parameters }
    }

    fn text(&self) -> String {
        field::item_text(&Bare::Text(self.name.clone()), &self.parameters)
    }

    fn unknown(&self, reason: &'static str) -> SignatureError {
        SignatureError::Component { component: self.text(), reason }
    }
}

/// What a signature covers and under which circumstances it was made.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Input {
    components: Vec<Component>,
    parameters: Parameters,
}

impl Input {
    /// Our signature's input among a message's headers.
    fn parse(headers: &[(&str, &str)]) -> Result<Self, SignatureError> {
        let text = header(headers, "signature-input").ok_or(SignatureError::Missing { what: "header `signature-input`" })?;
        let form = |reason: String| SignatureError::Form { header: "signature-input", reason };
        let input = Self::labelled(&text, LABEL).map_err(form)?.ok_or(SignatureError::Missing { what: "a signature labelled `conurb`" })?;
        if input.text("tag") != Some(TAG) {
            return Err(form(format!("the tag of the signature `{LABEL}` is not \"{TAG}\"")));
        }
        if let Some(alg) = input.parameters.iter().find(|(k, _)| k == "alg")
            && alg.1 != Bare::Text("ed25519".to_owned())
        {
            return Err(form("the algorithm is not \"ed25519\"".to_owned()));
        }
        Ok(input)
    }

    /// The input with this label in the text of a header.
    fn labelled(text: &str, label: &str) -> Result<Option<Self>, String> {
        let Some((_, member)) = field::dictionary(text)?.into_iter().find(|(k, _)| k == label) else { return Ok(None) };
        let Member::List(items, parameters) = member else { return Err(format!("`{label}` is not a list of components")) };
        if items.len() > COMPONENTS_MAX {
            return Err(format!("{} components are more than the limit of {COMPONENTS_MAX}", items.len()));
        }
        let mut components: Vec<Component> = Vec::new();
        for (item, parameters) in items {
            let Bare::Text(name) = item else { return Err("a component is not a string".into()) };
            let component = Component { name, parameters };
            if component.name.chars().any(|c| c.is_ascii_uppercase()) {
                return Err(format!("component {} is not in lower case", component.text()));
            }
            if components.contains(&component) {
                return Err(format!("component {} comes twice", component.text()));
            }
            components.push(component);
        }
        Ok(Some(Self { components, parameters }))
    }

    fn must_cover(&self, name: &'static str, component: &Component) -> Result<(), SignatureError> {
        if self.components.contains(component) { Ok(()) } else { Err(SignatureError::NotCovered { component: name }) }
    }

    fn text(&self, parameter: &str) -> Option<&str> {
        self.parameters.iter().find(|(k, _)| k == parameter).and_then(|(_, v)| match v {
            Bare::Text(s) => Some(s.as_str()),
            _ => None,
        })
    }

    fn integer(&self, parameter: &str) -> Option<i64> {
        self.parameters.iter().find(|(k, _)| k == parameter).and_then(|(_, v)| match v {
            Bare::Integer(n) => Some(*n),
            _ => None,
        })
    }

    fn key(&self) -> Result<PublicKey, SignatureError> {
        let text = self.text("keyid").ok_or(SignatureError::Missing { what: "the signature's `keyid`" })?;
        text.parse().map_err(SignatureError::KeyForm)
    }

    /// When it was signed, if that is close enough to now.
    fn created(&self, now: Instant) -> Result<Instant, SignatureError> {
        let created_s = self.integer("created").ok_or(SignatureError::Missing { what: "the signature's `created`" })?;
        let now_s = now.micros().div_euclid(1_000_000);
        let ahead_s = created_s.saturating_sub(now_s);
        if ahead_s.abs() > CLOCK_SKEW_S_MAX {
            return Err(SignatureError::Clock { ahead_s });
        }
        if let Some(expires_s) = self.integer("expires")
            && expires_s <= now_s
        {
            return Err(SignatureError::Expired { ago_s: now_s.saturating_sub(expires_s) });
        }
        Ok(Instant::from_secs(created_s))
    }

    fn text_of_parameters(&self) -> String {
        let items: Vec<_> = self.components.iter().map(|c| (Bare::Text(c.name.clone()), c.parameters.clone())).collect();
        field::list_text(&items, &self.parameters)
    }

    /// What is signed (RFC 9421, section 2.5).
    fn base(&self, value: impl Fn(&Component) -> Result<String, SignatureError>) -> Result<String, SignatureError> {
        let mut base = String::new();
        for component in &self.components {
            let value = value(component)?;
            // A line break would let one value pass for two components.
            if value.contains(['\r', '\n']) {
                return Err(component.unknown("whose value has a line break"));
            }
            let _ = writeln!(base, "{}: {value}", component.text());
        }
        let _ = write!(base, "\"@signature-params\": {}", self.text_of_parameters());
        Ok(base)
    }
}

fn request_value(request: &MessageParts<'_>, component: &Component) -> Result<String, SignatureError> {
    if !component.parameters.is_empty() {
        return Err(component.unknown("with parameters that are not understood"));
    }
    let (path, query) = request.target.split_once('?').map_or((request.target, None), |(p, q)| (p, Some(q)));
    match component.name.as_str() {
        "@method" => Ok(request.method.to_owned()),
        "@path" => Ok(if path.is_empty() { "/".to_owned() } else { path.to_owned() }),
        "@query" => Ok(format!("?{}", query.unwrap_or_default())),
        "@request-target" => Ok(request.target.to_owned()),
        "@authority" => {
            let authority = request.authority.ok_or_else(|| component.unknown("which this end does not know"))?;
            Ok(authority.to_ascii_lowercase())
        }
        name if name.starts_with('@') => Err(component.unknown("which is not understood")),
        name => header(&request.headers, name).ok_or_else(|| component.unknown("which the message does not have")),
    }
}

fn response_value(request: &MessageParts<'_>, response: &ResponseParts<'_>, component: &Component) -> Result<String, SignatureError> {
    if *component == Component::of_request_signature() {
        let bytes = signature_of(&request.headers)?;
        return Ok(field::item_text(&Bare::Bytes(bytes), &Vec::new()));
    }
    if component.parameters == [("req".to_owned(), Bare::Boolean(true))] {
        return request_value(request, &Component::plain(&component.name));
    }
    if !component.parameters.is_empty() {
        return Err(component.unknown("with parameters that are not understood"));
    }
    match component.name.as_str() {
        "@status" => Ok(response.status.to_string()),
        name if name.starts_with('@') => Err(component.unknown("which is not understood")),
        name => header(&response.headers, name).ok_or_else(|| component.unknown("which the message does not have")),
    }
}

/// The value of a header, several joined as RFC 9421, section 2.1, says.
fn header(headers: &[(&str, &str)], name: &str) -> Option<String> {
    let values: Vec<&str> =
        headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim_matches([' ', '\t'])).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

/// The bytes of our signature.
fn signature_of(headers: &[(&str, &str)]) -> Result<Vec<u8>, SignatureError> {
    let text = header(headers, "signature").ok_or(SignatureError::Missing { what: "header `signature`" })?;
    let form = |reason: String| SignatureError::Form { header: "signature", reason };
    match field::dictionary(&text).map_err(form)?.into_iter().find(|(k, _)| k == LABEL) {
        Some((_, Member::Item(Bare::Bytes(bytes), _))) => Ok(bytes),
        Some(_) => Err(form(format!("`{LABEL}` is not a byte sequence"))),
        None => Err(SignatureError::Missing { what: "a signature labelled `conurb`" }),
    }
}

fn check_digest(headers: &[(&str, &str)], body: &[u8]) -> Result<(), SignatureError> {
    let text = header(headers, "content-digest").ok_or(SignatureError::Missing { what: "header `content-digest`" })?;
    let form = |reason: String| SignatureError::Form { header: "content-digest", reason };
    match field::dictionary(&text).map_err(form)?.into_iter().find(|(k, _)| k == "sha-256") {
        Some((_, Member::Item(Bare::Bytes(found), _))) if found == digest::digest(&digest::SHA256, body).as_ref() => Ok(()),
        Some((_, Member::Item(Bare::Bytes(_), _))) => Err(SignatureError::Digest),
        _ => Err(form("it has no `sha-256` digest".to_owned())),
    }
}

#[cfg(test)]
mod tests;
