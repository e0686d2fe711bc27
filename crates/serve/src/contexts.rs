//! JSON-LD contexts: embedded ones, those that clients host here, those that answers link to, and foreign ones that were fetched
//! (ETSI GS CIM 009 V1.9.1, clauses 5.13 and 6.3.16).
//!
//! * [`catalogue`]: what is known of each, and how often it was used.
//! * [`fetch`]: getting foreign ones, each once however many requests want it.

mod catalogue;
mod fetch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use entity::Instant;
use host::{Clock, SystemClock};
use ngsi::context::{Context, ContextStore};
use node::{ContextOrigin, Node, StoredContext};
use policy::Principal;
use serde_json::Value;

use catalogue::Catalogue;
pub(crate) use catalogue::{Description, Kind};
use fetch::{FetchError, Turns};

use crate::outbound::Outbound;
use crate::problem::Problem;

/// How deep contexts may refer to contexts.
const ROUNDS_MAX: usize = 8;

/// A copy that is out of date and cannot be had anew is used for so long before the next attempt.
const STALE_SECONDS: i64 = 60;

/// The contexts that a node knows, and how it gets more.
#[derive(Clone)]
pub struct Contexts {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<ContextStore>,
    outbound: Outbound,
    clock: SystemClock,
    catalogue: Mutex<Catalogue>,
    turns: Turns,
    /// Local ids of contexts that have no URL of their own, by [`Context::id`]: those that are durable already.
    wrappers: Mutex<HashMap<String, String>>,
    /// Where contexts are kept for all tenants: a context belongs to none of them.
    node: OnceLock<Arc<Node>>,
}

/// Why a context of the catalogue cannot be removed.
pub(crate) enum RemoveError {
    /// There is none of this name.
    Unknown,
    /// Only what was fetched can be fetched again, and the core context cannot go.
    Refused(&'static str),
    /// It cannot be fetched again.
    Fetch(String),
    /// The node's own.
    Node(node::NodeError),
    /// Something else.
    Other(Problem),
}

impl Contexts {
    /// Over the embedded contexts.
    #[must_use]
    pub fn new(store: Arc<ContextStore>, outbound: Outbound) -> Self {
        let clock = SystemClock;
        let shared = Shared {
            store,
            outbound,
            catalogue: Mutex::new(Catalogue::new(Instant::from_micros(clock.now_micros()))),
            clock,
            turns: Turns::default(),
            wrappers: Mutex::default(),
            node: OnceLock::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// What is known already.
    #[must_use]
    pub fn store(&self) -> &Arc<ContextStore> {
        &self.shared.store
    }

    /// Brings back what the node of the default tenant has kept, and keeps contexts there from now on; once, whoever calls first.
    pub fn restore(&self, node: &Arc<Node>) {
        self.shared.node.get_or_init(|| {
            for kept in node.stored_contexts() {
                self.add_local(&kept);
            }
            // The one of requests that name none comes from the configuration, at every start: it need not be stored.
            let default = self.shared.store.default_context();
            if default.url().is_none() {
                let wrapper = self.wrapper(default);
                self.add_local(&wrapper);
                self.shared.wrappers.lock().unwrap_or_else(PoisonError::into_inner).insert(default.id().to_owned(), wrapper.id);
            }
            Arc::clone(node)
        });
    }

    fn node(&self) -> Result<&Node, Problem> {
        let detail = "the node is only starting";
        let not_yet = || Problem::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", detail);
        self.shared.node.get().map(AsRef::as_ref).ok_or_else(not_yet)
    }

    fn now(&self) -> Instant {
        Instant::from_micros(self.shared.clock.now_micros())
    }

    fn catalogue<T>(&self, work: impl FnOnce(&mut Catalogue) -> T) -> T {
        work(&mut self.shared.catalogue.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add_local(&self, kept: &StoredContext) {
        self.shared.store.insert_local(&kept.id, kept.context.clone());
        self.catalogue(|c| c.add_local(kept));
    }

    /// The context of a request that names it by URL, or the default one.
    pub(crate) async fn of_url(&self, url: Option<&str>) -> Result<Arc<Context>, Problem> {
        if let Some(url) = url {
            self.prepare(&Value::from(url)).await?;
        }
        Ok(self.shared.store.resolve_url(url)?)
    }

    /// Fetches what resolving this `@context` needs and the node does not have, or has no longer fresh.
    pub(crate) async fn prepare(&self, context: &Value) -> Result<(), Problem> {
        let now = self.now();
        self.renew(context, now).await?;
        for _ in 0..ROUNDS_MAX {
            let missing = self.shared.store.missing(context)?;
            if missing.is_empty() {
                break;
            }
            for url in missing {
                self.fetched(&url).await?;
            }
        }
        self.catalogue(|c| c.used(context, now));
        Ok(())
    }

    /// Fetches anew what is out of date; what cannot be had is used a little longer.
    async fn renew(&self, context: &Value, now: Instant) -> Result<(), Problem> {
        if !self.catalogue(|c| c.has_expired(now)) {
            return Ok(());
        }
        for url in self.shared.store.named(context)? {
            if self.catalogue(|c| c.is_expired(&url, now)) && self.fetched(&url).await.is_err() {
                self.catalogue(|c| c.expires(&url, now.plus_micros(STALE_SECONDS * 1_000_000)));
            }
        }
        Ok(())
    }

    /// Fetches one document and keeps it.
    async fn fetched(&self, url: &str) -> Result<(), Problem> {
        let fetched = self.shared.turns.fetch(&self.shared.outbound, url, self.now()).await.map_err(|e| e.into_problem(url))?;
        self.shared.store.insert(url, &fetched.text)?;
        let forgotten = self.catalogue(|c| c.add_fetched(url, self.now(), fetched.fresh_until));
        for url in forgotten {
            self.shared.store.forget(&url);
        }
        Ok(())
    }

    /// Takes in a context that a client gives us; its local id.
    pub(crate) async fn host(&self, who: &Principal, context: Value) -> Result<String, Problem> {
        self.prepare(&context).await?;
        self.shared.store.resolve(&context)?;
        let kept = StoredContext { id: host::random_hex::<16>(), origin: ContextOrigin::Hosted, created_us: self.now().micros(), context };
        self.node()?.host_context(who, &kept).await?;
        self.add_local(&kept);
        Ok(kept.id)
    }

    /// The URL by which others find this context: its own, or that of a wrapper below `base` (`http://host:port`). To call
    /// before, so that the wrapper outlasts a restart: [`Self::keep`].
    #[must_use]
    pub fn link(&self, context: &Context, base: &str) -> String {
        if let Some(url) = context.url() {
            return url.to_owned();
        }
        let known = self.shared.wrappers.lock().unwrap_or_else(PoisonError::into_inner).get(context.id()).cloned();
        let id = known.unwrap_or_else(|| {
            // Only kept in memory: the document is there at once, and durable with the next request that names it.
            let wrapper = self.wrapper(context);
            self.add_local(&wrapper);
            wrapper.id
        });
        format!("{base}/ngsi-ld/v1/jsonldContexts/{id}")
    }

    /// Makes sure that the link to this context outlasts a restart, if it needs a wrapper.
    ///
    /// That it cannot be made durable is no reason to refuse a request: it is reported in the log and tried again with the next one.
    pub async fn keep(&self, context: &Context) {
        let wrappers = || self.shared.wrappers.lock().unwrap_or_else(PoisonError::into_inner);
        if context.url().is_some() || wrappers().contains_key(context.id()) {
            return;
        }
        let Some(node) = self.shared.node.get() else { return };
        let wrapper = self.wrapper(context);
        let is_kept = self.catalogue(|c| c.is_kept(&wrapper.id));
        if !is_kept {
            match node.keep_context(&wrapper).await {
                Ok(gone) => {
                    for id in gone {
                        self.shared.store.forget_local(&id);
                        self.catalogue(|c| c.remove(&id));
                        wrappers().retain(|_, kept| *kept != id);
                    }
                }
                Err(e) => {
                    tracing::warn!(error = host::chain(&e), "a context that an answer links to could not be kept");
                    return;
                }
            }
            self.add_local(&wrapper);
            self.catalogue(|c| c.mark_kept(&wrapper.id));
        }
        wrappers().insert(context.id().to_owned(), wrapper.id);
    }

    fn wrapper(&self, context: &Context) -> StoredContext {
        let json = context.json();
        StoredContext {
            id: digest(&json.to_string()),
            origin: ContextOrigin::ImplicitlyCreated,
            created_us: self.now().micros(),
            context: json,
        }
    }

    /// What is known of all contexts, or of those of one kind.
    pub(crate) fn described(&self, kind: Option<Kind>) -> Vec<Description> {
        self.catalogue(|c| c.described(kind))
    }

    /// What is known of the context with this local id or, if it was fetched, this URL.
    pub(crate) fn description(&self, id: &str) -> Option<Description> {
        self.catalogue(|c| c.description(id))
    }

    /// Forgets a context; `reload` fetches it anew first (clause 5.13.5).
    pub(crate) async fn remove(&self, who: &Principal, id: &str, reload: bool) -> Result<(), RemoveError> {
        let node = self.node().map_err(RemoveError::Other)?;
        let found = self.description(id).ok_or(RemoveError::Unknown)?;
        let Some(url) = &found.url else {
            if reload {
                return Err(RemoveError::Refused("only a context that was fetched can be fetched again"));
            }
            node.delete_context(who, &found.local_id).await.map_err(RemoveError::Node)?;
            self.shared.store.forget_local(&found.local_id);
            self.shared.wrappers.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, kept| *kept != found.local_id);
            self.catalogue(|c| c.remove(&found.local_id));
            return Ok(());
        };
        node.permit(who, policy::Action::Write, None).map_err(RemoveError::Node)?;
        if reload {
            let fetched = fetch::fetch(&self.shared.outbound, url, self.now()).await.map_err(|e| RemoveError::Fetch(e.reason()))?;
            self.shared.store.insert(url, &fetched.text).map_err(|e| RemoveError::Fetch(e.to_string()))?;
            self.catalogue(|c| c.add_fetched(url, self.now(), fetched.fresh_until));
            return Ok(());
        }
        if url == ngsi::context::CORE_CONTEXT_URL {
            return Err(RemoveError::Refused("the core context is a part of this node"));
        }
        self.shared.store.forget(url);
        self.catalogue(|c| c.remove(&found.local_id));
        Ok(())
    }
}

impl FetchError {
    fn into_problem(self, url: &str) -> Problem {
        Problem::new(
            axum::http::StatusCode::GATEWAY_TIMEOUT,
            "LdContextNotAvailable",
            format!("context `{url}` cannot be had: {}", self.reason()),
        )
    }
}

/// The first half of the SHA-256 of a text, in hexadecimal: nobody can make another text of the same name.
fn digest(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(16).map(|b| format!("{b:02x}")).collect()
}
