//! The present entities: what queries need is in memory, the documents are on disk.
//!
//! In memory of each entity: its slot (id, types, scopes, recorded times), its place, its plain values in columns, and what it is found
//! by. The entity itself is in the overlay while no checkpoint has written it, else in the documents, read through a cache. A query chooses
//! the cheapest source of candidates ([`plan`]), judges them on columns ([`judge`]) and reads documents only for what the columns do not
//! know and for what it returns.
//!
//! **Invariant:** no index changes an answer: every page is what a plain walk over all documents gives (kept by the property tests here).

mod auto;
mod columns;
mod explain;
mod ids;
mod inner;
mod judge;
mod load;
mod order;
mod overlay;
mod packed;
mod page;
mod places;
mod plan;
mod scan;
mod sets;
mod words;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use entity::{Entity, Instant, Iri};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::Space;
use super::documents::{Changed, Documents, DocumentsError, DocumentsMemory};
use inner::Inner;
use overlay::{Changes, changed};

pub use auto::{ASKED_MIN, AUTO_INDEXES_MAX, ENTITIES_MIN};
pub use columns::COLUMNS_PER_TYPE_MAX;
pub use explain::{AutoReport, ConditionReport, Explanation};
pub use order::{Direction, OrderBy};
pub use overlay::weight_of;
pub use page::{Page, PageRequest};
pub use scan::{ColumnScan, Latest, ScanError};

/// Memory that the state may use unless it is told otherwise, in bytes.
pub const MEMORY_BYTES_DEFAULT: usize = 768 << 20;
/// The least budget that makes sense, in bytes.
pub const MEMORY_BYTES_MIN: usize = 32 << 20;
/// Changed entities that are not on disk: the most of them, however much memory there is.
const OVERLAY_BYTES_MAX: usize = 256 << 20;
/// How often an entity is looked for that is changed at the same moment.
const FETCH_TRIES: usize = 16;

/// How the memory of the state is divided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// All of it, in bytes.
    pub total_bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { total_bytes: MEMORY_BYTES_DEFAULT }
    }
}

impl Budget {
    /// The share of the engine that keeps the documents.
    #[must_use]
    pub fn documents(self) -> DocumentsMemory {
        let sixteenth = self.total_bytes as u64 / 16;
        DocumentsMemory { cache_bytes: sixteenth.clamp(1 << 20, 512 << 20), write_buffer_bytes: sixteenth.clamp(8 << 20, 128 << 20) }
    }

    /// Changed entities that are not on disk: above this a checkpoint is asked for.
    ///
    /// More than [`OVERLAY_BYTES_MAX`] would not make writing quicker: what the history keeps of the same changes is in memory as long, and
    /// while a checkpoint is written the next one fills.
    fn overlay_bytes(self) -> usize {
        (self.total_bytes / 8).min(OVERLAY_BYTES_MAX)
    }

    /// Indexes: above this no attribute new to a type gets a column, ordered values and then columns are given up.
    const fn index_bytes(self) -> usize {
        self.total_bytes / 4 * 3
    }

    /// Decoded entities: what the indexes leave.
    fn cache_bytes(self, index_bytes: usize) -> usize {
        let documents = self.documents();
        let others = (documents.cache_bytes + documents.write_buffer_bytes) as usize + self.overlay_bytes() + index_bytes;
        self.total_bytes.saturating_sub(others).clamp(self.total_bytes / 64, self.total_bytes / 4)
    }
}

/// What becomes of an entity that was read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    InCache,
    No,
}

#[derive(Clone)]
struct ByWeight;

impl Weighter<u32, Arc<Entity>> for ByWeight {
    fn weight(&self, _: &u32, e: &Arc<Entity>) -> u64 {
        weight_of(e) as u64 + 64
    }
}

/// The present entities of a space.
///
/// There is one writer; readers work without its lock on what they took out. A page is ordered by id (or as asked, then by id), so that paging is stable
/// while data change.
#[derive(Clone)]
pub struct LiveTable {
    core: Arc<Core>,
}

/// What a table and the threads that work for it share.
struct Core {
    space: Space,
    /// None: everything stays in memory.
    documents: Option<Arc<dyn Documents>>,
    inner: RwLock<Inner>,
    cache: Cache<u32, Arc<Entity>, ByWeight>,
    budget: Budget,
    /// How often attributes of types were compared, by type and attribute.
    asked: Mutex<HashMap<(Iri, Iri), u32>>,
    n_queries: AtomicU64,
    /// Bytes that are not on disk, known without the lock.
    overlay_bytes: AtomicUsize,
    builds: Mutex<Vec<JoinHandle<()>>>,
}

impl Default for LiveTable {
    /// A table without documents: everything stays in memory.
    fn default() -> Self {
        Self::new(Space::City, None, Budget { total_bytes: usize::MAX / 2 })
    }
}

impl LiveTable {
    fn new(space: Space, documents: Option<Arc<dyn Documents>>, budget: Budget) -> Self {
        // Decoded entities are worth keeping only where there is something to decode.
        let cache_bytes = if documents.is_some() { budget.cache_bytes(0) } else { 0 };
        let core = Core {
            space,
            documents,
            inner: RwLock::new(Inner::new(budget.overlay_bytes() / 4 * 3, budget.index_bytes())),
            cache: Cache::with_weighter((cache_bytes / 4_096).max(64), cache_bytes as u64, ByWeight),
            budget,
            asked: Mutex::default(),
            n_queries: AtomicU64::new(0),
            overlay_bytes: AtomicUsize::new(0),
            builds: Mutex::default(),
        };
        Self { core: Arc::new(core) }
    }

    /// The entities of a space as of the last checkpoint.
    ///
    /// Errors: the documents', and a document that does not read back.
    pub fn open(space: Space, documents: Arc<dyn Documents>, budget: Budget) -> Result<Self, DocumentsError> {
        let table = Self::new(space, Some(Arc::clone(&documents)), budget);
        table.core.inner.write().unwrap_or_else(PoisonError::into_inner).load(space, &*documents)?;
        table.core.fit_budget();
        Ok(table)
    }

    /// The entity with this id.
    ///
    /// Errors: its document cannot be read.
    pub fn try_get(&self, id: &str) -> Result<Option<Arc<Entity>>, DocumentsError> {
        self.core.fetch(id)
    }

    /// The same for who is about to change it: what it is now is not worth a place in the cache.
    pub(crate) fn try_get_to_change(&self, id: &str) -> Result<Option<Arc<Entity>>, DocumentsError> {
        self.core.find(id, Keep::No)
    }

    /// The entity with this id; if its document cannot be read this is logged, and there is none. Who decides upon the answer uses [`LiveTable::try_get`].
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Arc<Entity>> {
        self.try_get(id).unwrap_or_else(|e| {
            tracing::error!(id, error = &e as &dyn std::error::Error, "an entity cannot be read");
            None
        })
    }

    /// Is there an entity with this id that has this type? Known without its document.
    #[must_use]
    pub fn has_type(&self, id: &str, entity_type: &str) -> bool {
        self.core.read(|inner| {
            let types = inner.ids.find(id).map(|slot| inner.type_sets.get(inner.ids.slot(slot).types));
            types.is_some_and(|types| types.iter().any(|t| t.as_str() == entity_type))
        })
    }

    /// The entities of which something has expired by now, at most so many, the longest expired first.
    #[must_use]
    pub fn due(&self, now: Instant, limit: usize) -> Vec<Iri> {
        self.core.read(|inner| inner.due.until(now).take(limit).map(|slot| Iri::known(&inner.ids.slot(slot).id)).collect())
    }

    /// Is there an entity of this type at all?
    #[must_use]
    pub fn has_entities_of(&self, entity_type: &str) -> bool {
        self.core.read(|inner| inner.has_entities_of(entity_type))
    }

    /// How many entities there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.core.read(|inner| inner.ids.len())
    }

    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The types that have entities, each with how many, sorted.
    #[must_use]
    pub fn types(&self) -> Vec<(Iri, usize)> {
        let count = |inner: &Inner| {
            let used = inner.types.iter().filter(|t| t.order.len() > 0);
            used.map(|t| (t.name.clone(), t.order.len())).collect::<Vec<_>>()
        };
        let mut types = self.core.read(count);
        types.sort();
        types
    }

    /// The entities that have a relationship to another one, ordered by id; at most `limit`.
    ///
    /// Errors: a document cannot be read.
    pub fn referrers(&self, target: &Iri, limit: usize) -> Result<Vec<Arc<Entity>>, DocumentsError> {
        let mut ids: Vec<Box<str>> = self.core.read(|inner| {
            let slots = inner.linked_to(target.as_str());
            slots.map(|s| inner.ids.id(s)).filter(|id| !id.is_empty()).map(Box::from).collect()
        });
        ids.sort_unstable();
        let mut found = Vec::new();
        for id in ids {
            if found.len() == limit {
                break;
            }
            // The index is one of hashes: the document tells.
            found.extend(self.try_get(&id)?.filter(|e| inner::targets_of(e).any(|t| t == target)));
        }
        Ok(found)
    }

    /// About how many bytes of memory the indexes take, and the changed entities that are not on disk.
    #[must_use]
    pub fn memory_bytes(&self) -> (usize, usize) {
        self.core.read(|inner| (inner.memory_bytes(), inner.overlay.bytes()))
    }

    /// Puts in, replaces or (none) removes entities; all at once for readers.
    pub fn apply(&self, changes: impl IntoIterator<Item = (Iri, Option<Arc<Entity>>)>) {
        let core = &self.core;
        let mut seen: HashMap<Iri, Option<Arc<Entity>>> = HashMap::new();
        // What the entities were is read before the lock is taken; there is no other writer.
        let changes: Vec<_> = changes
            .into_iter()
            .map(|(id, after)| {
                let read = || {
                    core.find(id.as_str(), Keep::No).unwrap_or_else(|e| {
                        tracing::error!(%id, error = &e as &dyn std::error::Error, "an entity is replaced that cannot be read");
                        None
                    })
                };
                // The same entity may be named twice.
                let before = seen.insert(id.clone(), after.clone()).unwrap_or_else(read);
                (id, before, after)
            })
            .collect();
        self.apply_known(changes);
    }

    /// The same for who knows what the entities were, each named once.
    pub(crate) fn apply_known(&self, changes: impl IntoIterator<Item = (Iri, Option<Arc<Entity>>, Option<Arc<Entity>>)>) {
        let core = &self.core;
        let mut inner = core.inner.write().unwrap_or_else(PoisonError::into_inner);
        for (id, before, after) in changes {
            inner.replace(&id, before.as_deref(), after.as_deref());
            if before.is_some() || after.is_some() {
                inner.overlay.put(&id, after.as_ref());
            }
        }
        core.overlay_bytes.store(inner.overlay.unfrozen_bytes(), Ordering::Relaxed);
    }

    /// Is so much not on disk that a checkpoint should be made?
    #[must_use]
    pub fn wants_checkpoint(&self) -> bool {
        self.core.documents.is_some() && self.core.overlay_bytes.load(Ordering::Relaxed) > self.core.budget.overlay_bytes()
    }

    /// Takes what is not on disk for a checkpoint to write; it stays readable. Changes from now on belong to the next checkpoint.
    #[must_use]
    pub fn freeze(&self) -> Frozen {
        let mut inner = self.core.inner.write().unwrap_or_else(PoisonError::into_inner);
        let changes = inner.overlay.freeze();
        self.core.overlay_bytes.store(0, Ordering::Relaxed);
        Frozen { space: self.core.space, changes }
    }

    /// What was frozen last is on disk now.
    pub fn thaw(&self) {
        let thawed = {
            let mut inner = self.core.inner.write().unwrap_or_else(PoisonError::into_inner);
            inner.overlay.thaw()
        };
        self.core.keep_in_cache(&thawed);
        self.core.fit_budget();
    }

    /// Waits until the ordered indexes that are being built are ready.
    pub fn wait_for_builds(&self) {
        let builds = std::mem::take(&mut *self.core.builds.lock().unwrap_or_else(PoisonError::into_inner));
        for build in builds {
            // One that failed has logged it and left no index.
            let _ = build.join();
        }
    }
}

/// Changes for a checkpoint to write.
pub struct Frozen {
    space: Space,
    changes: Arc<Changes>,
}

impl Frozen {
    /// How many entities changed or went.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Is there nothing to write?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes, for [`Documents::checkpoint`].
    pub fn changed(&self) -> impl Iterator<Item = Changed> {
        changed(self.space, &self.changes)
    }
}

impl Core {
    fn read<T>(&self, f: impl FnOnce(&Inner) -> T) -> T {
        f(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The entity with this id: from the overlay, the cache or the documents.
    fn fetch(&self, id: &str) -> Result<Option<Arc<Entity>>, DocumentsError> {
        self.find(id, Keep::InCache)
    }

    fn find(&self, id: &str, keep: Keep) -> Result<Option<Arc<Entity>>, DocumentsError> {
        for _ in 0..FETCH_TRIES {
            let found = self.read(|inner| {
                let slot = inner.ids.find(id)?;
                Some((slot, inner.ids.slot(slot).modified_us, inner.overlay.get(id).cloned()))
            });
            let Some((slot, modified_us, changed)) = found else { return Ok(None) };
            if let Some(super::Document::Whole(e)) = changed {
                return Ok(Some(e));
            }
            // Recorded times never repeat, so that id and time tell the one state of the entity.
            let is_it = |e: &Entity| e.modified_at.micros() == modified_us && e.id.as_str() == id;
            if let Some(e) = self.cache.get(&slot)
                && is_it(&e)
            {
                return Ok(Some(e));
            }
            let read = match changed {
                Some(packed) => Some(packed.entity(id)?),
                None => match &self.documents {
                    Some(documents) => documents.get(self.space, id)?.map(Arc::new),
                    None => None,
                },
            };
            if let Some(e) = read
                && is_it(&e)
            {
                if keep == Keep::InCache {
                    self.cache.insert(slot, Arc::clone(&e));
                }
                return Ok(Some(e));
            }
            // Changed and written between the two looks: once more.
        }
        Err(DocumentsError::Missing { id: id.to_owned() })
    }

    /// What was just written is likely to be asked for.
    fn keep_in_cache(&self, thawed: &Changes) {
        let whole: Vec<(u32, Arc<Entity>)> = self.read(|inner| {
            let whole = thawed.iter().filter_map(|(id, waiting)| match &waiting.document {
                Some(super::Document::Whole(e)) => Some((inner.ids.find(id.as_str())?, Arc::clone(e))),
                _ => None,
            });
            whole.collect()
        });
        for (slot, e) in whole {
            self.cache.insert(slot, e);
        }
    }

    /// Gives the cache what the indexes leave, and gives up indexes if they are too large.
    fn fit_budget(&self) {
        if self.documents.is_none() {
            return;
        }
        let mut index_bytes = self.read(Inner::memory_bytes);
        if index_bytes > self.budget.index_bytes() {
            let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
            let mut n_given_up = 0;
            while index_bytes > self.budget.index_bytes() && inner.shrink() {
                n_given_up += 1;
                index_bytes = inner.memory_bytes();
            }
            tracing::warn!(
                n_given_up,
                index_bytes,
                budget_bytes = self.budget.total_bytes,
                "the indexes are larger than their share of the memory: ordered values and columns were given up, queries on them are slower"
            );
        }
        self.cache.set_capacity(self.budget.cache_bytes(index_bytes) as u64);
    }
}

#[cfg(test)]
mod tests;
