//! Distributed operations (ETSI GS CIM 009 V1.9.1, clauses 4.3.6, 5.6, 5.7 and 6.3.17 to 6.3.19): requests that also, or only, other systems can
//! answer, over HTTP.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::{App, chain};

/// How often registrations whose time is over are removed; they count no more from the instant on.
const UPKEEP_EVERY: Duration = Duration::from_secs(1);

/// How this node speaks to sources, and what it keeps of their answers.
pub struct Sources {
    alias: String,
    public_url: String,
}

impl Sources {
    /// `alias` is the name in `Via`, unique among all that may be registered with each other; `public_url` is where others reach this node,
    /// without a slash at the end.
    #[must_use]
    pub fn new(alias: impl Into<String>, public_url: impl Into<String>) -> Self {
        Self { alias: alias.into(), public_url: public_url.into() }
    }

    /// The name by which this node signs in `Via`.
    #[must_use]
    pub fn alias(&self) -> &str {
        &self.alias
    }

    /// Where others reach this node.
    #[must_use]
    pub fn public_url(&self) -> &str {
        &self.public_url
    }
}

/// Removes registrations whose time is over, until `stop` turns true.
pub(crate) async fn upkeep(app: Arc<App>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(UPKEEP_EVERY) => {}
            _ = stop.wait_for(|s| *s) => return,
        }
        if let Err(e) = app.node.remove_expired_registrations().await {
            tracing::warn!(error = chain(&e), "registrations whose time is over cannot be removed");
        }
    }
}
