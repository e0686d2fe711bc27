//! Documents on disk, as of the last checkpoint.
//!
//! Documents of format 2 are in the binary form of [`entity::codec`]. Those of format 1 are JSON, told by their first byte `{`; they stay
//! readable and turn into format 2 when they are next written.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use entity::{Entity, Iri};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use serde::{Deserialize, Serialize};

use super::Space;
use crate::history::Segment;

/// Format of documents and manifest. Raise it with a migration on read.
const VERSION: u32 = 2;
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
    /// A file cannot be read or written.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was being done.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A document does not read back.
    #[error("document `{key}` is damaged")]
    Damaged {
        /// Its key.
        key: String,
        /// What the decoder said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The live table knows an entity whose document is not there, or is another one.
    #[error("the document of `{id}` is missing or not the one that belongs to the present state")]
    Missing {
        /// The entity.
        id: String,
    },
    /// Written by a newer program.
    #[error("the data are of format {found}, this program reads up to format {VERSION}: use a newer program")]
    Newer {
        /// The format found.
        found: u32,
    },
}

/// An entity on its way to disk, decoded or in its bytes.
#[derive(Clone, Debug)]
pub enum Document {
    /// The entity itself.
    Whole(Arc<Entity>),
    /// Its bytes, as [`Document::pack`] makes them.
    Packed(Arc<[u8]>),
}

impl Document {
    /// The bytes of an entity.
    #[must_use]
    pub fn pack(entity: &Entity) -> Vec<u8> {
        encode(entity)
    }

    /// The entity.
    ///
    /// Errors: [`DocumentsError::Damaged`] if the bytes are none.
    pub fn entity(&self, id: &str) -> Result<Arc<Entity>, DocumentsError> {
        match self {
            Self::Whole(e) => Ok(Arc::clone(e)),
            Self::Packed(bytes) => decode(bytes, || id.to_owned()).map(Arc::new),
        }
    }
}

fn encode(entity: &Entity) -> Vec<u8> {
    entity::codec::encode_entity(entity)
}

fn decode(bytes: &[u8], key: impl Fn() -> String) -> Result<Entity, DocumentsError> {
    match bytes.first() {
        Some(b'{') => serde_json::from_slice(bytes).map_err(|e| damaged(&key(), e)),
        _ => entity::codec::decode_entity(bytes).map_err(|e| damaged(&key(), e)),
    }
}

pub(super) fn damaged(key: &str, source: impl std::error::Error + Send + Sync + 'static) -> DocumentsError {
    DocumentsError::Damaged { key: key.to_owned(), source: Box::new(source) }
}

/// Everything that a checkpoint left.
pub type Loaded = (Manifest, Vec<(Space, Entity)>);

/// A changed document of a checkpoint: none if the entity is gone.
pub type Changed = (Space, Iri, Option<Document>);

/// Is called with each document of a scan; an error ends it.
pub type Visit<'a> = dyn FnMut(Entity) -> Result<(), DocumentsError> + 'a;

/// The same with the bytes of an id and of its document, as [`Document::pack`] makes them or an earlier version of this program did.
pub type VisitBytes<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), DocumentsError> + 'a;

/// Keeps documents and the manifest; a checkpoint replaces both together or not at all.
pub trait Documents: Send + Sync {
    /// What the last checkpoint covers.
    fn manifest(&self) -> Result<Manifest, DocumentsError>;

    /// One document, as of the last checkpoint.
    fn get(&self, space: Space, id: &str) -> Result<Option<Entity>, DocumentsError>;

    /// All documents of a space in the order of ids, one at a time, in their bytes.
    fn scan_bytes(&self, space: Space, visit: &mut VisitBytes<'_>) -> Result<(), DocumentsError>;

    /// The same as entities.
    fn scan(&self, space: Space, visit: &mut Visit<'_>) -> Result<(), DocumentsError> {
        self.scan_bytes(space, &mut |id, bytes| visit(decode(bytes, || readable(id))?))
    }

    /// The same for one who wants to know all that is wrong: what cannot be read is told in its turn, and the rest follows.
    fn survey(&self, space: Space, visit: &mut dyn FnMut(Result<Entity, DocumentsError>)) {
        let scanned = self.scan(space, &mut |entity| {
            visit(Ok(entity));
            Ok(())
        });
        if let Err(e) = scanned {
            visit(Err(e));
        }
    }

    /// Writes the changed documents and the manifest, atomically and durably.
    fn checkpoint(&self, changed: &mut dyn Iterator<Item = Changed>, manifest: &Manifest) -> Result<(), DocumentsError>;

    /// Everything at once: for small folders and tests.
    fn load(&self) -> Result<Loaded, DocumentsError> {
        let mut entities = Vec::new();
        for space in Space::ALL {
            self.scan(space, &mut |e| {
                entities.push((space, e));
                Ok(())
            })?;
        }
        Ok((self.manifest()?, entities))
    }
}

/// So much room is there before an engine that has given up is opened again: what it writes while it is opened, and some more.
const REOPEN_ROOM_BYTES: usize = 4 << 20;
/// How long readers of an engine that has given up are waited for.
const REOPEN_WAIT: Duration = Duration::from_secs(10);

/// Documents in fjall, an LSM tree.
///
/// After a write that failed, the engine takes none any more: it has to be opened again, which the next checkpoint does. So a disk that was
/// full for a while is no reason to restart the node.
pub struct FjallDocuments {
    opened: RwLock<Option<Arc<Opened>>>,
    /// The last write failed.
    failed: AtomicBool,
    memory: DocumentsMemory,
    path: PathBuf,
}

struct Opened {
    database: Database,
    documents: Keyspace,
    meta: Keyspace,
}

/// Memory of the engine, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DocumentsMemory {
    /// Blocks read from disk.
    pub cache_bytes: u64,
    /// Written documents that are not sorted yet.
    pub write_buffer_bytes: u64,
}

impl Default for DocumentsMemory {
    fn default() -> Self {
        Self { cache_bytes: 32 << 20, write_buffer_bytes: 32 << 20 }
    }
}

impl FjallDocuments {
    /// Opens or makes the database in `path`.
    pub fn open(path: &Path) -> Result<Self, DocumentsError> {
        Self::open_with(path, DocumentsMemory::default())
    }

    /// The same, with as much memory.
    pub fn open_with(path: &Path, memory: DocumentsMemory) -> Result<Self, DocumentsError> {
        let opened = RwLock::new(Some(Arc::new(Self::open_engine(path, memory)?)));
        Ok(Self { opened, failed: AtomicBool::new(false), memory, path: path.to_owned() })
    }

    fn open_engine(path: &Path, memory: DocumentsMemory) -> Result<Opened, DocumentsError> {
        let failed = |source| DocumentsError::Engine { action: "open", path: path.to_owned(), source: Box::new(source) };
        let database = Database::builder(path).cache_size(memory.cache_bytes).open().map_err(failed)?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(memory.write_buffer_bytes / 2);
        let documents = database.keyspace("documents", options).map_err(failed)?;
        let meta = database.keyspace("meta", KeyspaceCreateOptions::default).map_err(failed)?;
        Ok(Opened { database, documents, meta })
    }

    fn opened(&self) -> Result<Arc<Opened>, DocumentsError> {
        let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner).clone();
        opened
            .ok_or_else(|| self.io("open again", io::Error::other("the engine gave up after a failed write; the next checkpoint opens it")))
    }

    fn io(&self, action: &'static str, source: io::Error) -> DocumentsError {
        DocumentsError::Io { action, path: self.path.clone(), source }
    }

    /// Opens the engine again, if there is room for that: as long as there is not, the old one answers readers.
    fn reopen(&self) -> Result<(), DocumentsError> {
        let probe = self.path.join("room.tmp");
        let found = fs::write(&probe, vec![1; REOPEN_ROOM_BYTES]).and_then(|()| fs::File::open(&probe)?.sync_all());
        // It goes before anything else is said.
        let removed = fs::remove_file(&probe);
        found.and(removed).map_err(|e| self.io("find room to open again", e))?;

        let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut old) = opened.take() {
            let mut waited = Duration::ZERO;
            // Those who read have it until they are done.
            while let Err(still_read) = Arc::try_unwrap(old).map(drop) {
                if waited >= REOPEN_WAIT {
                    *opened = Some(still_read);
                    return Err(self.io("open again", io::ErrorKind::ResourceBusy.into()));
                }
                let pause = Duration::from_millis(10);
                std::thread::sleep(pause);
                waited += pause;
                old = still_read;
            }
        }
        *opened = Some(Arc::new(Self::open_engine(&self.path, self.memory)?));
        tracing::info!(path = %self.path.display(), "the documents were opened again after a failed write");
        Ok(())
    }

    /// What lies behind a block that cannot be read: from the other end, as far as that goes.
    fn survey_backwards(&self, space: Space, until: Option<&[u8]>, visit: &mut dyn FnMut(Result<Entity, DocumentsError>)) {
        let Ok(opened) = self.opened() else { return };
        for item in opened.documents.prefix([space.key_byte()]).rev() {
            match item.into_inner() {
                Ok((key, _)) if until.is_some_and(|until| *key <= *until) => return,
                Ok((key, value)) => visit(decode(&value, || readable(&key))),
                // The block that was told of already, or another one: what lies between the two is not seen.
                Err(_) => return,
            }
        }
    }

    fn failed(&self, action: &'static str) -> impl Fn(fjall::Error) -> DocumentsError {
        move |source| DocumentsError::Engine { action, path: self.path.clone(), source: Box::new(source) }
    }
}

fn key_of(space: Space, id: &str) -> Vec<u8> {
    [&[space.key_byte()], id.as_bytes()].concat()
}

fn readable(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

pub(super) fn decode_manifest(bytes: &[u8]) -> Result<Manifest, DocumentsError> {
    let damaged = |source| DocumentsError::Damaged { key: MANIFEST_KEY.to_owned(), source: Box::new(source) };
    // The version is looked at first: a newer manifest may have another shape.
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let Version { version } = serde_json::from_slice(bytes).map_err(damaged)?;
    if version > VERSION {
        return Err(DocumentsError::Newer { found: version });
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

impl Documents for FjallDocuments {
    fn manifest(&self) -> Result<Manifest, DocumentsError> {
        match self.opened()?.meta.get(MANIFEST_KEY).map_err(self.failed("read"))? {
            None => Ok(Manifest::default()),
            Some(bytes) => decode_manifest(&bytes),
        }
    }

    fn get(&self, space: Space, id: &str) -> Result<Option<Entity>, DocumentsError> {
        let found = self.opened()?.documents.get(key_of(space, id)).map_err(self.failed("read"))?;
        found.map(|bytes| decode(&bytes, || id.to_owned())).transpose()
    }

    fn scan_bytes(&self, space: Space, visit: &mut VisitBytes<'_>) -> Result<(), DocumentsError> {
        let opened = self.opened()?;
        // One byte of the space, then the id: the order of keys is the order of ids.
        for item in opened.documents.prefix([space.key_byte()]) {
            let (key, value) = item.into_inner().map_err(self.failed("read"))?;
            visit(&key[1..], &value)?;
        }
        Ok(())
    }

    fn survey(&self, space: Space, visit: &mut dyn FnMut(Result<Entity, DocumentsError>)) {
        let opened = match self.opened() {
            Ok(opened) => opened,
            Err(e) => return visit(Err(e)),
        };
        let mut last: Option<Vec<u8>> = None;
        for item in opened.documents.prefix([space.key_byte()]) {
            match item.into_inner() {
                Ok((key, value)) => {
                    visit(decode(&value, || readable(&key)));
                    last = Some(key.to_vec());
                }
                Err(e) => {
                    visit(Err(self.failed("read")(e)));
                    return self.survey_backwards(space, last.as_deref(), visit);
                }
            }
        }
    }

    fn checkpoint(&self, changed: &mut dyn Iterator<Item = Changed>, manifest: &Manifest) -> Result<(), DocumentsError> {
        if self.failed.load(Ordering::SeqCst) {
            self.reopen()?;
            self.failed.store(false, Ordering::SeqCst);
        }
        let opened = self.opened()?;
        let mut batch = opened.database.batch().durability(Some(PersistMode::SyncAll));
        for (space, id, document) in changed {
            let key = key_of(space, id.as_str());
            match document {
                Some(Document::Whole(e)) => batch.insert(&opened.documents, key, encode(&e)),
                Some(Document::Packed(bytes)) => batch.insert(&opened.documents, key, &*bytes),
                None => batch.remove(&opened.documents, key),
            }
        }
        // From now on the folder holds documents of this format.
        let manifest = Manifest { version: manifest.version.max(VERSION), ..manifest.clone() };
        batch.insert(&opened.meta, MANIFEST_KEY, serde_json::to_vec(&manifest).expect("a manifest is JSON"));
        batch.commit().inspect_err(|_| self.failed.store(true, Ordering::SeqCst)).map_err(self.failed("write"))
    }
}

/// Documents in memory, for tests; in their bytes, so that the codec is tried too.
#[derive(Default)]
pub struct MemoryDocuments(Mutex<Kept>);

type Kept = (Manifest, BTreeMap<(Space, Iri), Arc<[u8]>>);

impl Documents for MemoryDocuments {
    fn manifest(&self) -> Result<Manifest, DocumentsError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).0.clone())
    }

    fn get(&self, space: Space, id: &str) -> Result<Option<Entity>, DocumentsError> {
        let Ok(key) = id.parse::<Iri>() else { return Ok(None) };
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner).1.get(&(space, key)).cloned();
        found.map(|bytes| decode(&bytes, || id.to_owned())).transpose()
    }

    fn scan_bytes(&self, space: Space, visit: &mut VisitBytes<'_>) -> Result<(), DocumentsError> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).1.clone();
        for ((_, id), bytes) in all.into_iter().filter(|((s, _), _)| *s == space) {
            visit(id.as_str().as_bytes(), &bytes)?;
        }
        Ok(())
    }

    fn checkpoint(&self, changed: &mut dyn Iterator<Item = Changed>, manifest: &Manifest) -> Result<(), DocumentsError> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (space, id, document) in changed {
            match document {
                Some(Document::Whole(e)) => inner.1.insert((space, id), encode(&e).into()),
                Some(Document::Packed(bytes)) => inner.1.insert((space, id), bytes),
                None => inner.1.remove(&(space, id)),
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

    fn station(i: u32) -> Arc<Entity> {
        let id = Iri::known(&format!("urn:ngsi-ld:Station:{i}"));
        Arc::new(Entity::new(id, Iri::known("https://example.org/Station")).with(Iri::known("urn:a:b"), Attribute::property(i)))
    }

    fn whole(space: Space, e: &Arc<Entity>) -> Changed {
        (space, e.id.clone(), Some(Document::Whole(Arc::clone(e))))
    }

    fn packed(space: Space, e: &Arc<Entity>) -> Changed {
        (space, e.id.clone(), Some(Document::Packed(Document::pack(e).into())))
    }

    fn write(documents: &dyn Documents, changed: Vec<Changed>, next_position: u64) {
        documents.checkpoint(&mut changed.into_iter(), &Manifest { next_position, ..Manifest::default() }).unwrap();
    }

    fn check_contract(documents: &dyn Documents) {
        assert_eq!(documents.load().unwrap(), (Manifest::default(), Vec::new()));
        assert_eq!(documents.get(Space::City, "urn:ngsi-ld:Station:1").unwrap(), None);
        // Ids that are prefixes of one another, out of order.
        let stations: Vec<_> = [2, 1, 12, 10].into_iter().map(station).collect();
        write(documents, stations.iter().map(|s| whole(Space::City, s)).collect(), 3);
        write(documents, vec![(Space::City, station(1).id.clone(), None), packed(Space::Node, &station(2))], 5);
        let (manifest, entities) = documents.load().unwrap();
        assert_eq!(manifest.next_position, 5);
        assert_eq!(
            entities.iter().map(|(s, e)| (*s, e.id.as_str())).collect::<Vec<_>>(),
            [
                (Space::City, "urn:ngsi-ld:Station:10"),
                (Space::City, "urn:ngsi-ld:Station:12"),
                (Space::City, "urn:ngsi-ld:Station:2"),
                (Space::Node, "urn:ngsi-ld:Station:2")
            ]
        );
        for space in Space::ALL {
            assert_eq!(documents.get(space, "urn:ngsi-ld:Station:2").unwrap().as_ref(), Some(&*station(2)));
            assert_eq!(documents.get(space, "urn:ngsi-ld:Station:1").unwrap(), None);
        }
        assert_eq!(documents.get(Space::Node, "urn:ngsi-ld:Station:10").unwrap(), None, "spaces are apart");
        // The last one wins within a checkpoint and between checkpoints.
        let mut changed = (*station(2)).clone();
        changed.put(Iri::known("urn:a:b"), Attribute::property("other"));
        let changed = Arc::new(changed);
        write(documents, vec![packed(Space::City, &changed)], 6);
        assert_eq!(documents.get(Space::City, "urn:ngsi-ld:Station:2").unwrap().as_ref(), Some(&*changed));
        // An error of the visitor ends the scan and comes out.
        let mut n_visited = 0;
        let stopped = documents.scan(Space::City, &mut |e| {
            n_visited += 1;
            Err(DocumentsError::Missing { id: e.id.to_string() })
        });
        assert!(matches!(stopped, Err(DocumentsError::Missing { id }) if id == "urn:ngsi-ld:Station:10"));
        assert_eq!(n_visited, 1);
    }

    #[test]
    fn every_engine_keeps_the_contract() {
        check_contract(&MemoryDocuments::default());
        let dir = tempfile::tempdir().unwrap();
        check_contract(&FjallDocuments::open(dir.path()).unwrap());
        let disk = Arc::new(host::sim::SimDisk::new(1, 1 << 20));
        let open = || crate::state::DiskDocuments::open(disk.clone(), Path::new("/documents")).unwrap();
        let documents = open();
        check_contract(&documents);
        assert_eq!(open().load().unwrap(), documents.load().unwrap(), "what was written is there after reopening");
    }

    #[test]
    fn documents_survive_reopening_large_ones_too() {
        let dir = tempfile::tempdir().unwrap();
        let mut large = (*station(7)).clone();
        large.put(Iri::known("urn:a:text"), Attribute::property("长".repeat(20_000)));
        let large = Arc::new(large);
        {
            let documents = FjallDocuments::open(dir.path()).unwrap();
            write(&documents, vec![whole(Space::City, &large), whole(Space::City, &station(8))], 9);
        }
        let documents = FjallDocuments::open(dir.path()).unwrap();
        assert_eq!(documents.manifest().unwrap().next_position, 9);
        assert_eq!(documents.get(Space::City, large.id.as_str()).unwrap().as_ref(), Some(&*large));
        assert_eq!(documents.get(Space::City, "urn:ngsi-ld:Station:8").unwrap().as_ref(), Some(&*station(8)));
    }

    #[test]
    fn a_newer_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let documents = FjallDocuments::open(dir.path()).unwrap();
        documents.checkpoint(&mut std::iter::empty(), &Manifest { version: VERSION + 1, ..Manifest::default() }).unwrap();
        assert!(matches!(documents.manifest(), Err(DocumentsError::Newer { found }) if found == VERSION + 1));
        assert!(matches!(documents.load(), Err(DocumentsError::Newer { .. })));
    }

    #[test]
    fn documents_of_format_1_are_read_and_become_format_2() {
        let dir = tempfile::tempdir().unwrap();
        {
            // As the first version of this program wrote it.
            let database = Database::builder(dir.path()).open().unwrap();
            let documents = database.keyspace("documents", KeyspaceCreateOptions::default).unwrap();
            let meta = database.keyspace("meta", KeyspaceCreateOptions::default).unwrap();
            documents.insert("curn:ngsi-ld:Station:1", serde_json::to_vec(&*station(1)).unwrap()).unwrap();
            meta.insert(MANIFEST_KEY, br#"{"version":1,"next_position":4,"last_recorded_us":7,"segments":[]}"#).unwrap();
            database.persist(PersistMode::SyncAll).unwrap();
        }
        let documents = FjallDocuments::open(dir.path()).unwrap();
        let manifest = documents.manifest().unwrap();
        assert_eq!((manifest.version, manifest.next_position), (1, 4));
        assert_eq!(documents.get(Space::City, "urn:ngsi-ld:Station:1").unwrap().as_ref(), Some(&*station(1)));
        documents.checkpoint(&mut std::iter::once(whole(Space::City, &station(2))), &manifest).unwrap();
        assert_eq!(documents.manifest().unwrap().version, VERSION);
        assert_eq!(documents.load().unwrap().1.len(), 2);
    }

    #[test]
    fn a_damaged_document_is_named() {
        for bytes in [&b""[..], b"{", b"\xff\x00", b"\x01"] {
            let error = decode(bytes, || "urn:x:1".to_owned()).unwrap_err();
            assert!(error.to_string().contains("`urn:x:1`"), "{error}");
        }
    }
}
