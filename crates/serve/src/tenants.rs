//! Tenants (ETSI GS CIM 009 V1.9.1, clauses 4.14, 5.5.10 and 6.3.14): each has a node of its own, with a folder, a log and a history of its own, so
//! that nothing of one can be in an answer to another.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

use node::Node;

use crate::{App, housekeeping, notify};

/// The most tenants beside the default one.
pub const TENANTS_MAX: usize = 64;

/// The longest name.
const NAME_BYTES_MAX: usize = 64;

/// The name of a tenant; the default one has none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantName(String);

/// Not the name of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` cannot be the name of a tenant (expected 1 to {NAME_BYTES_MAX} lower-case letters, digits, `_` or `-`)")]
pub struct TenantNameError {
    found: String,
}

impl TenantName {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantName {
    type Err = TenantNameError;

    /// Names are folders: only what means the same on every file system.
    fn from_str(text: &str) -> Result<Self, TenantNameError> {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        if (1..=NAME_BYTES_MAX).contains(&text.len()) && text.chars().all(is_plain) {
            return Ok(Self(text.to_owned()));
        }
        Err(TenantNameError { found: text.chars().take(NAME_BYTES_MAX).collect() })
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The folder of the tenants' folders.
const DIR: &str = "tenants";

/// The tenants of a city.
#[derive(Default)]
pub struct Tenants {
    by_name: RwLock<BTreeMap<TenantName, Arc<App>>>,
    /// Held while one is made.
    making: tokio::sync::Mutex<()>,
}

/// Why there is no such tenant.
#[derive(Debug, thiserror::Error)]
pub enum TenantError {
    /// Nobody has made it.
    #[error("there is no tenant `{name}`")]
    Unknown {
        /// Its name.
        name: TenantName,
    },
    /// There are as many as there may be.
    #[error("there are {TENANTS_MAX} tenants, which is the limit: `{name}` is not made")]
    TooMany {
        /// Its name.
        name: TenantName,
    },
    /// A folder that is none of a tenant.
    #[error("`{path}`: {reason}")]
    Folder {
        /// The folder.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Its data cannot be opened.
    #[error("the data of tenant `{name}` cannot be opened: {reason}")]
    Open {
        /// Its name.
        name: TenantName,
        /// Why.
        reason: String,
    },
}

impl Tenants {
    /// Opens those that there are.
    ///
    /// Errors: one cannot be opened.
    pub async fn open_all(&self, default: &Arc<App>) -> Result<(), TenantError> {
        let folder = default.folder.below(DIR);
        let wrong = |name: &str, reason: String| TenantError::Folder { path: folder.path().join(name).display().to_string(), reason };
        for name in folder.names().map_err(|e| wrong("", e.to_string()))? {
            let parsed = name.parse().map_err(|e: TenantNameError| wrong(&name, e.to_string()))?;
            self.get_or_make(&parsed, default).await?;
        }
        Ok(())
    }

    /// Their names.
    #[must_use]
    pub fn names(&self) -> Vec<TenantName> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    fn find(&self, name: &TenantName) -> Option<Arc<App>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// What serves a tenant.
    ///
    /// Errors: [`TenantError::Unknown`].
    pub(crate) fn get(&self, name: &TenantName) -> Result<Arc<App>, TenantError> {
        self.find(name).ok_or_else(|| TenantError::Unknown { name: name.clone() })
    }

    /// The same; makes the tenant if there is none. `default` is what serves the default tenant.
    ///
    /// Errors: too many, or its data cannot be opened.
    pub async fn get_or_make(&self, name: &TenantName, default: &Arc<App>) -> Result<Arc<App>, TenantError> {
        if let Some(app) = self.find(name) {
            return Ok(app);
        }
        let _making = self.making.lock().await;
        if let Some(app) = self.find(name) {
            return Ok(app);
        }
        if self.names().len() >= TENANTS_MAX {
            return Err(TenantError::TooMany { name: name.clone() });
        }
        let folder = default.folder.below(DIR).below(name.as_str());
        let opening = folder.clone();
        let opened = tokio::task::spawn_blocking(move || opening.open()).await;
        let node = opened.map_err(|e| e.to_string()).and_then(|node| node);
        let node = node.map_err(|reason| TenantError::Open { name: name.clone(), reason })?;
        let app = Arc::new(default.of_tenant(name.clone(), folder, Arc::new(node)));
        app.snapshots.open_all(&app).await;
        tokio::spawn(notify::deliver(Arc::clone(&app), app.stop.clone()));
        tokio::spawn(housekeeping::remove_expired(Arc::clone(&app), app.stop.clone()));
        tracing::info!(tenant = %name, "tenant opened");
        self.by_name.write().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), Arc::clone(&app));
        Ok(app)
    }

    /// Takes out the nodes of tenants and of their snapshots, to be closed when the node stops.
    pub fn take_nodes(&self) -> Vec<(TenantName, Arc<Node>)> {
        let all = std::mem::take(&mut *self.by_name.write().unwrap_or_else(PoisonError::into_inner));
        let nodes = |(name, app): (TenantName, Arc<App>)| {
            let snapshots = app.snapshots.take_nodes().into_iter().map(|node| (name.clone(), node)).collect::<Vec<_>>();
            snapshots.into_iter().chain([(name, Arc::clone(&app.node))]).collect::<Vec<_>>()
        };
        all.into_iter().flat_map(nodes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folders_everywhere() {
        for name in ["a", "water-works_2", &"x".repeat(64)] {
            assert_eq!(name.parse::<TenantName>().unwrap().as_str(), name);
        }
        for wrong in ["", ".", "..", "a/b", "A", "ä", "a b", "a.b", &"x".repeat(65)] {
            assert!(wrong.parse::<TenantName>().is_err(), "{wrong}");
        }
    }
}
