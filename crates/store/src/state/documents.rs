//! Documents on disk, as of the last checkpoint.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use entity::{Entity, Iri};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use serde::{Deserialize, Serialize};

use super::Space;
use crate::history::Segment;

/// Format of documents and manifest. Raise it with a migration on read.
const VERSION: u32 = 1;
const MANIFEST_KEY: &str = "manifest";

/// What the last checkpoint covers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Format of everything on disk.
    pub version: u32,
    /// Documents and segments hold every record before this position of the log.
    pub next_position: u64,
    /// The recorded time of the last record, µs: recorded times never run backwards.
    pub last_recorded_us: i64,
    /// The history's files.
    pub segments: Vec<Segment>,
}

impl Default for Manifest {
    fn default() -> Self {
        Self { version: VERSION, next_position: 1, last_recorded_us: 0, segments: Vec::new() }
    }
}

/// Why documents cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DocumentsError {
    /// The engine failed.
    #[error("cannot {action} the documents in `{path}`")]
    Engine {
        /// What was being done.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<fjall::Error>,
    },
    /// A document does not read back.
    #[error("document `{key}` is damaged")]
    Damaged {
        /// Its key.
        key: String,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// Written by a newer program.
    #[error("the data are of format {found}, this program reads up to format {VERSION}: use a newer program")]
    Newer {
        /// The format found.
        found: u32,
    },
}

/// What a checkpoint left.
pub type Loaded = (Manifest, Vec<(Space, Entity)>);

/// Keeps documents and the manifest; a checkpoint replaces both together or not at all.
pub trait Documents: Send + Sync {
    /// Everything as of the last checkpoint.
    fn load(&self) -> Result<Loaded, DocumentsError>;
    /// Writes the changed documents (none: removed) and the manifest, atomically and durably.
    fn checkpoint(&self, changed: &[(Space, Iri, Option<std::sync::Arc<Entity>>)], manifest: &Manifest) -> Result<(), DocumentsError>;
}

/// Documents in fjall, an LSM tree.
pub struct FjallDocuments {
    database: Database,
    documents: Keyspace,
    meta: Keyspace,
    path: PathBuf,
}

impl FjallDocuments {
    /// Opens or makes the database in `path`.
    pub fn open(path: &Path) -> Result<Self, DocumentsError> {
        let failed = |source| DocumentsError::Engine { action: "open", path: path.to_owned(), source: Box::new(source) };
        let database = Database::builder(path).open().map_err(failed)?;
        let documents = database.keyspace("documents", KeyspaceCreateOptions::default).map_err(failed)?;
        let meta = database.keyspace("meta", KeyspaceCreateOptions::default).map_err(failed)?;
        Ok(Self { database, documents, meta, path: path.to_owned() })
    }

    fn failed(&self, action: &'static str) -> impl Fn(fjall::Error) -> DocumentsError {
        move |source| DocumentsError::Engine { action, path: self.path.clone(), source: Box::new(source) }
    }
}

fn key_of(space: Space, id: &Iri) -> Vec<u8> {
    [&[space.key_byte()], id.as_str().as_bytes()].concat()
}

impl Documents for FjallDocuments {
    fn load(&self) -> Result<Loaded, DocumentsError> {
        let manifest = match self.meta.get(MANIFEST_KEY).map_err(self.failed("read"))? {
            None => Manifest::default(),
            Some(bytes) => {
                let damaged = |source| DocumentsError::Damaged { key: MANIFEST_KEY.to_owned(), source };
                // The version is looked at first: a newer manifest may have another shape.
                #[derive(Deserialize)]
                struct Version {
                    version: u32,
                }
                let Version { version } = serde_json::from_slice(&bytes).map_err(damaged)?;
                if version > VERSION {
                    return Err(DocumentsError::Newer { found: version });
                }
                serde_json::from_slice(&bytes).map_err(damaged)?
            }
        };
        let mut entities = Vec::new();
        for space in Space::ALL {
            for item in self.documents.prefix([space.key_byte()]) {
                let (key, value) = item.into_inner().map_err(self.failed("read"))?;
                let entity = serde_json::from_slice(&value)
                    .map_err(|source| DocumentsError::Damaged { key: String::from_utf8_lossy(&key).into_owned(), source })?;
                entities.push((space, entity));
            }
        }
        Ok((manifest, entities))
    }

    fn checkpoint(&self, changed: &[(Space, Iri, Option<std::sync::Arc<Entity>>)], manifest: &Manifest) -> Result<(), DocumentsError> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncAll));
        for (space, id, entity) in changed {
            match entity {
                Some(e) => batch.insert(&self.documents, key_of(*space, id), serde_json::to_vec(e).expect("an entity is JSON")),
                None => batch.remove(&self.documents, key_of(*space, id)),
            }
        }
        batch.insert(&self.meta, MANIFEST_KEY, serde_json::to_vec(manifest).expect("a manifest is JSON"));
        batch.commit().map_err(self.failed("write"))
    }
}

/// Documents in memory, for tests.
#[derive(Default)]
pub struct MemoryDocuments(Mutex<Kept>);

type Kept = (Manifest, BTreeMap<(Space, Iri), Entity>);

impl Documents for MemoryDocuments {
    fn load(&self) -> Result<Loaded, DocumentsError> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((inner.0.clone(), inner.1.iter().map(|((space, _), e)| (*space, e.clone())).collect()))
    }

    fn checkpoint(&self, changed: &[(Space, Iri, Option<std::sync::Arc<Entity>>)], manifest: &Manifest) -> Result<(), DocumentsError> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (space, id, entity) in changed {
            match entity {
                Some(e) => inner.1.insert((*space, id.clone()), e.as_ref().clone()),
                None => inner.1.remove(&(*space, id.clone())),
            };
        }
        inner.0 = manifest.clone();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use entity::Attribute;
    use std::sync::Arc;

    fn check_contract(open: &dyn Fn() -> Box<dyn Documents>) {
        let station = |i: u32| {
            let id = Iri::known(&format!("urn:ngsi-ld:Station:{i}"));
            let e = Entity::new(id.clone(), Iri::known("https://example.org/Station")).with(Iri::known("urn:a:b"), Attribute::property(i));
            (Space::City, id, Some(Arc::new(e)))
        };
        let documents = open();
        assert_eq!(documents.load().unwrap(), (Manifest::default(), Vec::new()));
        documents.checkpoint(&[station(1), station(2)], &Manifest { next_position: 3, ..Manifest::default() }).unwrap();
        documents
            .checkpoint(
                &[(Space::City, station(1).1, None), (Space::Node, station(2).1, station(2).2)],
                &Manifest { next_position: 5, ..Manifest::default() },
            )
            .unwrap();
        let (manifest, entities) = documents.load().unwrap();
        assert_eq!(manifest.next_position, 5);
        assert_eq!(
            entities.iter().map(|(s, e)| (*s, e.id.as_str())).collect::<Vec<_>>(),
            [(Space::City, "urn:ngsi-ld:Station:2"), (Space::Node, "urn:ngsi-ld:Station:2")]
        );
        assert_eq!(Some(Arc::new(entities[0].1.clone())), station(2).2);
    }

    #[test]
    fn every_engine_keeps_the_contract() {
        check_contract(&|| Box::new(MemoryDocuments::default()));
        let dir = tempfile::tempdir().unwrap();
        check_contract(&|| Box::new(FjallDocuments::open(dir.path()).unwrap()));
    }

    #[test]
    fn a_newer_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let documents = FjallDocuments::open(dir.path()).unwrap();
        documents.checkpoint(&[], &Manifest { version: VERSION + 1, ..Manifest::default() }).unwrap();
        assert!(matches!(documents.load(), Err(DocumentsError::Newer { .. })));
    }
}
