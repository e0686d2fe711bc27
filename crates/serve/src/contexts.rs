//! JSON-LD contexts: embedded ones, and foreign ones fetched once.

use std::sync::Arc;
use std::time::Duration;

use ngsi::context::{CONTEXT_BYTES_MAX, Context, ContextStore};
use serde_json::Value;

use crate::chain;
use crate::outbound::Outbound;
use crate::problem::Problem;

/// How long a foreign context may take.
const FETCH_WAIT: Duration = Duration::from_secs(5);
/// How deep contexts may refer to contexts.
const ROUNDS_MAX: usize = 8;

/// The contexts that a node knows, and how it gets more.
#[derive(Clone)]
pub struct Contexts {
    store: Arc<ContextStore>,
    outbound: Outbound,
}

impl Contexts {
    /// Over the embedded contexts.
    #[must_use]
    pub const fn new(store: Arc<ContextStore>, outbound: Outbound) -> Self {
        Self { store, outbound }
    }

    /// What is known already.
    #[must_use]
    pub const fn store(&self) -> &Arc<ContextStore> {
        &self.store
    }

    /// The context of a request that names it by URL, or the default one.
    pub(crate) async fn of_url(&self, url: Option<&str>) -> Result<Arc<Context>, Problem> {
        if let Some(url) = url {
            self.prepare(&Value::from(url)).await?;
        }
        Ok(self.store.resolve_url(url)?)
    }

    /// Fetches what resolving this `@context` needs and the node does not have.
    pub(crate) async fn prepare(&self, context: &Value) -> Result<(), Problem> {
        for _ in 0..ROUNDS_MAX {
            let missing = self.store.missing(context)?;
            if missing.is_empty() {
                return Ok(());
            }
            for url in missing {
                let text = self.fetch(&url).await.map_err(|reason| {
                    Problem::new(
                        axum::http::StatusCode::GATEWAY_TIMEOUT,
                        "LdContextNotAvailable",
                        format!("context `{url}` cannot be had: {reason}"),
                    )
                })?;
                self.store.insert(&url, &text)?;
            }
        }
        Ok(())
    }

    async fn fetch(&self, url: &str) -> Result<String, String> {
        let url = self.outbound.check(url).map_err(|e| e.to_string())?;
        let request = self.outbound.client().get(url).header("accept", "application/ld+json, application/json").timeout(FETCH_WAIT);
        let mut response = request.send().await.and_then(reqwest::Response::error_for_status).map_err(|e| chain(&e))?;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| chain(&e))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > CONTEXT_BYTES_MAX {
                return Err(format!("it is larger than the limit of {CONTEXT_BYTES_MAX} bytes"));
            }
        }
        String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
    }
}
