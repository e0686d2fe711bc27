//! History in columns: recent rows in memory, sealed ones in Parquet files that never change.
//!
//! * `recent`: what is in memory, by table, in layers of facts and of bulk rows (`sheet`).
//! * `cell`: an attribute instance as the cells of a row, without loss.
//! * `marks`: rows that say what was removed, or what an entity became.
//! * `order`, `gather`: sorted rows of many sources as one, and the columns of such rows.
//! * `write`, `merge`, `compact`: rows to files; which files become one; the thread that does it.
//! * `index`: what opening needs to know of files that are far away.
//! * `files`, `segment`: where files are; a file's footer, pruning and reading.
//! * `evolve`, `scan`, `aggregate`, `within`: the questions, answered over all layers.
//! * `rollup`: files of aggregates beside those of values; `maintain`: building them, and removing what is too old.
//!
//! A file holds one entity type: a row per entity, `datasetId`, observed and recorded time, sorted by entity, then observed, then
//! recorded time; rows of marks, which say something else than values (`marks`), and rows of values, with up to three columns per attribute (`<iri>`: number, `<iri>|text`: any other value as JSON, `<iri>|meta`: what is left).
//! Its footer says the format version and which columns and kinds of values there are.
//!
//! **Invariants.** A file is complete and durable before a [`Segment`] names it. Readers take a snapshot (segments, what is being sealed,
//! recent rows) under one lock, so they see each fact once. Newer layers come later; what is in two layers after a crash and replay counts
//! once. A file is deleted when the durable list no longer names it and no reader has it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::record_batch::RecordBatch;
use entity::{Instant, Iri};
use host::{Disk, RealDisk};

use self::compact::Compactor;
use self::evolve::{ErasuresByType, RecentRows, Rows};
use self::files::Files;
use self::index::{FooterIndex, Footers};
use self::merge::{Days, Job, Source};
use self::recent::{Layer, Recent, Table};
use self::rollup::{OpenRollup, Rollups};
use self::scan::Layers;
use self::segment::{Attributes, OBSERVED, OpenSegment, Wanted};
use self::sheet::BulkSheet;
use self::write::{Built, Effort, Footer, columns_for, note_file, sheets_of};
use super::erasure::Erasures;
use super::rollup::DAY_US;
use super::value::{SeenByName, columns_of, merge_seen};
use super::{
    AggregateQuery, Aggregates, BulkRows, ERASURES_MAX, Erasure, Evolution, Fact, Groups, History, HistoryError, HistoryPolicy,
    HistoryScan, HistoryTable, Kept, Maintained, Marked, Reading, Rollup, ScanStream, Segment, Sources, TemporalQuery, TimeProperty,
    Within,
};
use crate::blobs::{Blobs, DiskBlobs};

mod aggregate;
mod cell;
mod compact;
mod erase;
mod evolve;
mod files;
mod gather;
mod index;
mod maintain;
mod marks;
mod merge;
mod order;
mod pages;
mod recent;
mod rollup;
mod scan;
mod segment;
mod sheet;
mod within;
mod write;

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;

/// Row groups, statistics and page indexes of files that are kept in memory, in bytes: about one thousandth of the data.
const METADATA_BYTES_MAX: u64 = 64 << 20;
/// Rows of files that are kept as they were decoded, in bytes.
const PAGES_BYTES_MAX: u64 = 32 << 20;
/// Fewer bulk rows are kept as facts: a layer of its own would cost more than it saves.
const BULK_ROWS_MIN: usize = 256;
/// So many files of a table that are not final are normal.
const SMALL_FILES_NORMAL: usize = 40;
/// So many more files are as many as should ever wait for being merged.
const WAITING_FILES_MAX: usize = 64;

/// How a columnar history works.
#[derive(Clone)]
pub struct ColumnarOptions {
    /// Is there a thread that merges small files? Otherwise [`ColumnarHistory::compact`] does.
    pub compaction: bool,
    /// Row groups, statistics and page indexes of files that are kept in memory, in bytes.
    pub metadata_bytes_max: u64,
    /// Rows that were read last and are kept in memory as they were decoded, in bytes.
    pub pages_bytes_max: u64,
    /// Fewer bulk rows than this are kept as facts.
    pub bulk_rows_min: usize,
    /// The file in which is kept what opening needs to know of files that are far away, such as in an object store; none if they are near.
    pub index: Option<(Arc<dyn Disk>, PathBuf)>,
}

impl fmt::Debug for ColumnarOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { compaction, metadata_bytes_max, pages_bytes_max, bulk_rows_min, index } = self;
        f.debug_struct("ColumnarOptions")
            .field("compaction", compaction)
            .field("metadata_bytes_max", metadata_bytes_max)
            .field("pages_bytes_max", pages_bytes_max)
            .field("bulk_rows_min", bulk_rows_min)
            .field("index", &index.as_ref().map(|(_, path)| path))
            .finish()
    }
}

impl Default for ColumnarOptions {
    fn default() -> Self {
        Self {
            compaction: true,
            metadata_bytes_max: METADATA_BYTES_MAX,
            pages_bytes_max: PAGES_BYTES_MAX,
            bulk_rows_min: BULK_ROWS_MIN,
            index: None,
        }
    }
}

/// History in Parquet files, in a folder or other place that it has for itself.
pub struct ColumnarHistory {
    inner: Arc<Inner>,
    compactor: Option<Compactor>,
    options: ColumnarOptions,
    index: Option<FooterIndex>,
}

/// What readers, sealers and the compaction share.
struct Inner {
    files: Arc<Files>,
    shared: RwLock<Shared>,
    /// Number of the next file.
    next_number: AtomicU64,
    /// Held by the one who seals.
    sealing: Mutex<()>,
    /// Held by the one who compacts.
    compacting: Mutex<()>,
    /// Held by the one who rolls up and removes.
    maintaining: Mutex<()>,
    /// Locked before `shared`.
    replaced: Mutex<Replaced>,
}

/// What readers take a snapshot of.
struct Shared {
    recent: Recent,
    /// What is on its way to a file.
    sealing: Option<Arc<Recent>>,
    segments: Arc<Vec<Arc<OpenSegment>>>,
    /// What the values in `segments` had in common.
    sealed_seen: BTreeMap<Iri, SeenByName>,
    /// Everything that was erased and not purged yet, sealed or not, by table.
    erasures: BTreeMap<Iri, Arc<Erasures>>,
    /// Tables of which retention has removed something.
    kept: BTreeMap<Iri, Kept>,
    rollups: Rollups,
}

/// Files that were merged into others.
#[derive(Default)]
struct Replaced {
    /// The list that was given out last names them.
    named: Vec<Arc<OpenSegment>>,
    /// It does not, but until it is durable an earlier one counts.
    unnamed: Vec<Arc<OpenSegment>>,
}

impl ColumnarHistory {
    /// Opens the history in the folder `dir` (made if missing), which consists of `segments`, in the order in which [`History::seal`] gave them.
    ///
    /// Deletes the files of interrupted seals: segments that are not listed. So the list must be the one that was made durable last.
    ///
    /// Errors: a listed file is missing, is not what its entry says, or is of a newer format. The checksum is left to [`Self::verify`],
    /// since it reads everything.
    pub fn open(dir: &Path, segments: Vec<Segment>) -> Result<Self, HistoryError> {
        let failed = |source| HistoryError::Io { action: "open", path: dir.to_owned(), source };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let blobs = DiskBlobs::open(Arc::new(RealDisk), dir).map_err(failed)?;
        Self::open_on(Arc::new(blobs), segments, ColumnarOptions::default())
    }

    /// The same, wherever the files are.
    pub fn open_on(blobs: Arc<dyn Blobs>, segments: Vec<Segment>, options: ColumnarOptions) -> Result<Self, HistoryError> {
        let files = Arc::new(Files::new(blobs, options.metadata_bytes_max, options.pages_bytes_max));
        let (index, footers) = match &options.index {
            Some((disk, path)) => {
                let (index, footers) = FooterIndex::open(Arc::clone(disk), path);
                (Some(index), footers)
            }
            None => (None, Footers::default()),
        };
        let sizes = files.list_sizes()?;
        let opened = open_all(&files, segments, &sizes, footers)?;
        if let Some(index) = &index {
            index.note(&opened);
        }
        delete_leftovers(&files, sizes.into_keys(), &opened)?;
        let next = opened.iter().filter_map(|s| number_of(&s.segment.file)).max().map_or(0, |n| n + 1);
        let mut sealed_seen = BTreeMap::new();
        let mut erasures = BTreeMap::<Iri, Arc<Erasures>>::new();
        let mut kept = BTreeMap::<Iri, Kept>::new();
        let (rollups, opened): (Vec<_>, Vec<_>) = opened.into_iter().partition(|s| s.segment.rollup.is_some());
        let rollups = rollups.into_iter().filter_map(|s| s.segment.rollup.clone().map(|info| OpenRollup::loaded(s, &info)));
        let rollups = Rollups::of(rollups.collect());
        for s in &opened {
            see(&mut sealed_seen, s);
            for erasure in &s.footer.erasures {
                Arc::make_mut(erasures.entry(s.segment.entity_type.clone()).or_default()).add(Arc::clone(erasure));
            }
            if let Some(more) = &s.footer.kept {
                kept.entry(s.segment.entity_type.clone()).or_default().merge(more);
            }
        }
        let (recent, segments) = (Recent::default(), Arc::new(opened));
        let shared = Shared { recent, sealing: None, segments, sealed_seen, erasures, kept, rollups };
        let inner = Arc::new(Inner {
            files,
            shared: RwLock::new(shared),
            next_number: AtomicU64::new(next),
            sealing: Mutex::default(),
            compacting: Mutex::default(),
            maintaining: Mutex::default(),
            replaced: Mutex::default(),
        });
        let compactor = options.compaction.then(|| Compactor::start(Arc::clone(&inner))).transpose()?;
        Ok(Self { inner, compactor, options, index })
    }

    /// Reads every sealed file and compares its checksum. Returns what is wrong, one error per file; nothing if all is well.
    #[must_use]
    pub fn verify(&self) -> Vec<HistoryError> {
        let files: Vec<_> = {
            let shared = self.inner.read();
            shared.segments.iter().chain(shared.rollups.files.iter().map(|r| &r.file)).cloned().collect()
        };
        files.iter().filter_map(|s| s.verify().err()).collect()
    }

    /// Merges files until there is nothing left to merge, on this thread. The new list is durable after the next [`History::seal`] and
    /// [`History::committed`].
    pub fn compact(&self) -> Result<(), HistoryError> {
        while self.inner.compact_one(&mut || true)? {}
        Ok(())
    }

    /// How many files wait for being merged beyond what is normal.
    #[must_use]
    pub fn n_waiting(&self) -> usize {
        self.inner.n_waiting()
    }
}

impl Inner {
    // A panic while the lock was held leaves the maps whole: each holder changes them by complete steps.
    fn read(&self) -> RwLockReadGuard<'_, Shared> {
        self.shared.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Shared> {
        self.shared.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn replaced(&self) -> MutexGuard<'_, Replaced> {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn n_waiting(&self) -> usize {
        let mut n_by_type: BTreeMap<&Iri, usize> = BTreeMap::new();
        let segments = Arc::clone(&self.read().segments);
        for s in segments.iter().filter(|s| merge::is_small(s.segment.n_rows)) {
            *n_by_type.entry(&s.segment.entity_type).or_default() += 1;
        }
        n_by_type.values().map(|n| n.saturating_sub(SMALL_FILES_NORMAL)).sum()
    }

    fn pressure(&self) -> f32 {
        self.n_waiting() as f32 / WAITING_FILES_MAX as f32
    }

    /// Does one thing that `merge::plan` wants. Was there one? `pace` is called after each bit of work and says whether to go on.
    fn compact_one(&self, pace: &mut dyn FnMut() -> bool) -> Result<bool, HistoryError> {
        let _guard = self.compacting.lock().unwrap_or_else(PoisonError::into_inner);
        let segments = Arc::clone(&self.read().segments);
        let types: BTreeSet<&Iri> = segments.iter().map(|s| &s.segment.entity_type).collect();
        for entity_type in types {
            let (notes, of_type): (Vec<&Arc<OpenSegment>>, Vec<_>) =
                segments.iter().filter(|s| s.segment.entity_type == *entity_type).partition(|s| s.footer.is_note());
            if notes.len() >= merge::RUN_MIN {
                let old: Vec<Arc<OpenSegment>> = notes.into_iter().cloned().collect();
                let mut all = Erasures::default();
                old.iter().flat_map(|s| &s.footer.erasures).for_each(|e| all.add(Arc::clone(e)));
                let new = self.build_note(entity_type, all.iter().cloned().collect(), kept_of(&old))?;
                self.replace(&old, new);
                return Ok(true);
            }
            let infos: Vec<_> = of_type.iter().map(|s| merge::info_of(&s.segment, s.footer.thorough)).collect();
            if let Some(plan) = merge::plan(&infos) {
                let old: Vec<Arc<OpenSegment>> = of_type[plan.files].iter().map(|s| Arc::clone(s)).collect();
                let job = job_of(entity_type, &old, plan.effort)?;
                let new = self.build(job, pace)?;
                self.replace(&old, new);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Puts new files into the place of old ones, which are neighbours in their table.
    fn replace(&self, old: &[Arc<OpenSegment>], new: Vec<Arc<OpenSegment>>) {
        let mut replaced = self.replaced();
        let mut shared = self.write();
        let is_old = |s: &Arc<OpenSegment>| old.iter().any(|o| Arc::ptr_eq(o, s));
        let mut segments: Vec<_> = Vec::with_capacity(shared.segments.len());
        let mut new = Some(new);
        for s in shared.segments.iter() {
            if is_old(s) {
                segments.extend(new.take().into_iter().flatten());
            } else {
                segments.push(Arc::clone(s));
            }
        }
        shared.segments = Arc::new(segments);
        replaced.named.extend_from_slice(old);
    }

    /// Writes the files of a job; none of them stays if one fails.
    fn build(&self, job: Job<'_>, pace: &mut dyn FnMut() -> bool) -> Result<Vec<Arc<OpenSegment>>, HistoryError> {
        let entity_type = job.entity_type.clone();
        let mut built: Vec<Arc<OpenSegment>> = Vec::new();
        let mut go_on = || {
            let stopped = || std::io::Error::from(std::io::ErrorKind::Interrupted);
            if pace() { Ok(()) } else { Err(HistoryError::Io { action: "merge", path: self.files.path(""), source: stopped() }) }
        };
        let mut keep = |file: Built| {
            built.push(self.keep(&entity_type, file, None)?);
            Ok(())
        };
        let result = merge::write(job, &mut go_on, &mut keep);
        if let Err(e) = result {
            built.iter().for_each(|s| s.delete_when_unused());
            return Err(e);
        }
        Ok(built)
    }

    fn build_note(
        &self,
        entity_type: &Iri,
        erasures: Vec<Arc<Erasure>>,
        kept: Option<Kept>,
    ) -> Result<Vec<Arc<OpenSegment>>, HistoryError> {
        note_file(entity_type, erasures, kept)?.into_iter().map(|file| self.keep(entity_type, file, None)).collect()
    }

    /// Makes a file durable and opens it.
    fn keep(&self, entity_type: &Iri, file: Built, rollup: Option<Rollup>) -> Result<Arc<OpenSegment>, HistoryError> {
        let Built { bytes, n_rows, observed, recorded } = file;
        let segment = Segment {
            file: file_name(self.next_number.fetch_add(1, Ordering::Relaxed), entity_type),
            entity_type: entity_type.clone(),
            n_rows,
            bytes: bytes.len() as u64,
            observed,
            recorded,
            crc32c: crc32c::crc32c(&bytes),
            rollup,
        };
        let name = segment.file.clone();
        let opened = self.files.put(&name, bytes).and_then(|()| OpenSegment::open(&self.files, segment));
        opened.map(Arc::new).inspect_err(|_| {
            // What cannot be deleted now is deleted when the history is opened next.
            let _ = self.files.delete(&name);
        })
    }

    /// Writes all tables of `recent`; no file stays if one fails.
    fn write_all(&self, recent: &Recent) -> Result<Vec<Arc<OpenSegment>>, HistoryError> {
        let mut written: Vec<Arc<OpenSegment>> = Vec::new();
        let tables = recent.tables.iter().map(|(entity_type, table)| self.build(job_of_table(entity_type, table), &mut || true));
        let erasures = recent.erasures.iter().map(|(entity_type, erasures)| self.build_note(entity_type, erasures.clone(), None));
        for files in tables.chain(erasures) {
            match files {
                Ok(segments) => written.extend(segments),
                Err(e) => {
                    written.iter().for_each(|s| s.delete_when_unused());
                    return Err(e);
                }
            }
        }
        Ok(written)
    }

    fn seal(&self) -> Result<Vec<Segment>, HistoryError> {
        let _guard = self.sealing.lock().unwrap_or_else(PoisonError::into_inner);
        self.seal_memory()?;
        let mut replaced = self.replaced();
        let Replaced { named, unnamed } = &mut *replaced;
        unnamed.append(named);
        let shared = self.read();
        let rollups = shared.rollups.files.iter().map(OpenRollup::segment);
        Ok(shared.segments.iter().map(|s| s.segment.clone()).chain(rollups).collect())
    }

    /// Removes what is erased for good, and then the erasures. The one who calls seals afterwards.
    fn purge(&self) -> Result<(), HistoryError> {
        // Nobody else changes files meanwhile.
        let _sealing = self.sealing.lock().unwrap_or_else(PoisonError::into_inner);
        let _compacting = self.compacting.lock().unwrap_or_else(PoisonError::into_inner);
        let purged = self.read().erasures.clone();
        // What is erased may be in memory still; and an erasure is purged only when it is durable.
        self.seal_memory()?;
        for (entity_type, erasures) in purged {
            let segments = Arc::clone(&self.read().segments);
            let of_type = || segments.iter().filter(|s| s.segment.entity_type == entity_type);
            let entities: Option<Vec<Iri>> = erasures.iter().map(|e| e.entity.clone()).collect();
            let until = erasures.iter().map(|e| e.recorded_at).max();
            let wanted =
                Wanted { entities: entities.map(|ids| Arc::new(ids.into_iter().collect())), recorded_to: until, ..Wanted::default() };
            for old in of_type().filter(|s| !s.footer.is_note()) {
                if old.units(&wanted)?.is_empty() {
                    continue;
                }
                let effort = if old.footer.thorough { Effort::Thorough } else { Effort::Quick };
                let mut job = job_of(&entity_type, std::slice::from_ref(old), effort)?;
                let erase = |source: Source| {
                    let sheets = scan::without_all_erased(source.sheets, Arc::clone(&erasures), None, entity_type.clone());
                    Source { sheets, ..source }
                };
                job.sources = job.sources.into_iter().map(erase).collect();
                let new = self.build(job, &mut || true)?;
                self.replace(std::slice::from_ref(old), new);
            }
            // Erasures that came meanwhile stay.
            let old: Vec<Arc<OpenSegment>> = of_type().filter(|s| s.footer.is_note()).cloned().collect();
            let mut left = Erasures::default();
            let is_purged = |e: &Arc<Erasure>| erasures.iter().any(|p| p == e);
            old.iter().flat_map(|s| &s.footer.erasures).filter(|e| !is_purged(e)).for_each(|e| left.add(Arc::clone(e)));
            let new = self.build_note(&entity_type, left.iter().cloned().collect(), kept_of(&old))?;
            self.replace(&old, new);
            let mut shared = self.write();
            for e in shared.in_memory().flat_map(|r| r.erasures.get(&entity_type)).flatten() {
                left.add(Arc::clone(e));
            }
            if left.is_empty() {
                shared.erasures.remove(&entity_type);
            } else {
                shared.erasures.insert(entity_type.clone(), Arc::new(left));
            }
        }
        Ok(())
    }

    /// Writes what is in memory; the caller holds `sealing`.
    fn seal_memory(&self) -> Result<(), HistoryError> {
        let sealing = {
            let mut shared = self.write();
            // After a panic in a seal its facts are still there.
            let mut all = shared.sealing.take().map_or_else(Recent::default, Arc::unwrap_or_clone);
            all.overlay(std::mem::take(&mut shared.recent));
            let all = Arc::new(all);
            shared.sealing = Some(Arc::clone(&all));
            all
        };
        let result = self.write_all(&sealing);
        let mut shared = self.write();
        shared.sealing = None;
        match result {
            Ok(written) => {
                let mut segments = shared.segments.to_vec();
                for s in written {
                    see(&mut shared.sealed_seen, &s);
                    segments.push(s);
                }
                shared.segments = Arc::new(segments);
            }
            Err(e) => {
                let newer = std::mem::take(&mut shared.recent);
                shared.recent = Arc::unwrap_or_clone(sealing);
                shared.recent.overlay(newer);
                return Err(e);
            }
        }
        Ok(())
    }

    fn marks_of_entity(&self, id: &Iri, as_of: Option<Instant>, visit: &mut dyn FnMut(Fact)) -> Result<(), HistoryError> {
        let (segments, recent, erasures) = self.of_entity(&TemporalQuery { as_of, ..TemporalQuery::of(id.clone()) });
        for RecentRows { entity_type, rows, .. } in &recent {
            let Rows::Facts(rows) = rows else { continue };
            let erasures = erasures.get(entity_type).map_or_else(Vec::new, |e| e.of(id.as_str(), as_of));
            marks::visit_rows((entity_type, id), rows, &erasures, as_of, visit)?;
        }
        let wanted = Wanted { entities: Some(Arc::new(BTreeSet::from([id.clone()]))), recorded_to: as_of, ..Wanted::default() };
        for segment in segments.iter() {
            marks::visit_segment(segment, &wanted, erasures.get(&segment.segment.entity_type).map(AsRef::as_ref), visit)?;
        }
        Ok(())
    }

    fn marks_of_type(&self, entity_type: &Iri, as_of: Option<Instant>, visit: &mut dyn FnMut(Fact)) -> Result<(), HistoryError> {
        let layers = self.read().layers(entity_type, None, as_of);
        let erasures = layers.erasures.as_deref();
        for layer in &layers.recent {
            let Layer::Facts(facts) = layer else { continue };
            for (id, rows) in &facts.entities {
                let erasures = erasures.map_or_else(Vec::new, |e| e.of(id.as_str(), as_of));
                marks::visit_rows((entity_type, id), rows, &erasures, as_of, visit)?;
            }
        }
        let wanted = Wanted { recorded_to: as_of, ..Wanted::default() };
        for segment in &layers.segments {
            marks::visit_segment(segment, &wanted, erasures, visit)?;
        }
        Ok(())
    }

    /// Segments, and the rows of an entity in memory; and what is erased of it.
    fn of_entity(&self, query: &TemporalQuery) -> (Arc<Vec<Arc<OpenSegment>>>, Vec<RecentRows>, ErasuresByType) {
        let shared = self.read();
        let mut layer_idx = shared.segments.len();
        let mut rows = Vec::new();
        for recent in shared.in_memory() {
            for (entity_type, table) in &recent.tables {
                for layer in &table.layers {
                    let found = match layer {
                        Layer::Facts(facts) => facts.entities.get(&query.entity).map(|rows| Rows::Facts(Arc::clone(rows))),
                        Layer::Bulk(bulk) => Some(Rows::Bulk(Arc::clone(bulk))),
                    };
                    rows.extend(found.map(|rows| RecentRows { entity_type: entity_type.clone(), layer: layer_idx, rows }));
                    layer_idx += 1;
                }
            }
        }
        let concern = |(_, e): &(&Iri, &Arc<Erasures>)| e.concern(Some(std::slice::from_ref(&query.entity)), query.as_of);
        let erasures = shared.erasures.iter().filter(concern).map(|(t, e)| (t.clone(), Arc::clone(e))).collect();
        (Arc::clone(&shared.segments), rows, erasures)
    }
}

/// What is to be written of a table in memory.
fn job_of_table<'a>(entity_type: &'a Iri, table: &Table) -> Job<'a> {
    let mut days = Days::default();
    let source = |layer: &Layer| match layer {
        Layer::Facts(facts) => {
            for key in facts.entities.values().flat_map(|rows| rows.keys()) {
                key.observed_at.into_iter().for_each(|at| days.add_instant(at));
            }
            let columns = columns_for(facts, None);
            let n_rows = facts.entities.values().map(|rows| rows.len() as u64).sum();
            Source { sheets: sheets_of(facts.clone(), columns.clone(), entity_type.clone()), columns: Arc::new(columns), n_rows }
        }
        Layer::Bulk(bulk) => {
            let sheet = bulk.sheet.clone();
            days.add_all(sheet.batch.column(OBSERVED).as_primitive::<TimestampMicrosecondType>());
            let (columns, n_rows) = (Arc::clone(&sheet.columns), sheet.batch.num_rows() as u64);
            Source { sheets: Box::new(std::iter::once(Ok(sheet))), columns, n_rows }
        }
    };
    let sources = table.layers.iter().map(source).collect();
    Job { entity_type, sources, seen: table.seen().clone(), days, effort: Effort::Quick }
}

/// What is to be written of files.
fn job_of<'a>(entity_type: &'a Iri, segments: &[Arc<OpenSegment>], effort: Effort) -> Result<Job<'a>, HistoryError> {
    let mut seen = SeenByName::new();
    let mut days = Days::default();
    let mut sources = Vec::new();
    let n_rows: u64 = segments.iter().map(|s| s.segment.n_rows).sum();
    for s in segments {
        // Values that were replaced have been seen, too.
        merge_seen(&mut seen, &s.footer.seen);
        let units: Vec<usize> = s.units(&Wanted::default())?.iter().map(|u| u.row_group_idx).collect();
        // Fewer rows than make a file of their own need no counting.
        if n_rows >= merge::PERIOD_ROWS_MIN {
            let none = BTreeSet::new();
            s.read(units.clone(), &Wanted::default(), Attributes::Some(&none), |batch| {
                days.add_all(batch.column(OBSERVED).as_primitive::<TimestampMicrosecondType>());
                Ok(())
            })?;
        }
        let columns = Arc::clone(&s.footer.columns);
        let rows = s.stream(units, Wanted::default(), Attributes::All)?;
        sources.push(Source { sheets: scan::sheets(rows, s), columns, n_rows: s.segment.n_rows });
    }
    Ok(Job { entity_type, sources, seen, days, effort })
}

impl History for ColumnarHistory {
    fn append(&self, facts: Vec<Fact>) {
        let mut shared = self.inner.write();
        facts.iter().for_each(|fact| shared.rollups.learn(fact));
        shared.recent.append(facts);
    }

    fn append_rows(&self, rows: BulkRows) {
        // Sorted before the lock is taken.
        let sheet = if rows.batch().num_rows() >= self.options.bulk_rows_min { BulkSheet::of(&rows).map_err(Some) } else { Err(None) };
        match sheet {
            Ok(Some((sheet, seen))) => {
                let mut shared = self.inner.write();
                shared.rollups.learn_rows(&rows);
                shared.recent.append_sheet(rows.entity_type(), sheet, &seen);
            }
            Ok(None) => {}
            Err(refused) => {
                if let Some(error) = refused {
                    tracing::warn!(%error, "bulk rows are kept as facts");
                }
                self.append(rows.facts().collect());
            }
        }
    }

    fn n_recent(&self) -> usize {
        let shared = self.inner.read();
        shared.recent.n_facts() + shared.sealing.as_ref().map_or(0, |s| s.n_facts())
    }

    fn seal(&self) -> Result<Vec<Segment>, HistoryError> {
        let segments = self.inner.seal()?;
        if let Some(index) = &self.index {
            let shared = self.inner.read();
            let files: Vec<_> = shared.segments.iter().chain(shared.rollups.files.iter().map(|r| &r.file)).cloned().collect();
            drop(shared);
            index.note(&files);
        }
        if let Some(compactor) = &self.compactor {
            compactor.wake();
        }
        Ok(segments)
    }

    fn committed(&self) {
        let unnamed = std::mem::take(&mut self.inner.replaced().unnamed);
        for s in unnamed {
            s.delete_when_unused();
        }
    }

    fn pressure(&self) -> f32 {
        self.inner.pressure()
    }

    fn check_erasure(&self, erasure: &Erasure) -> Result<(), HistoryError> {
        let shared = self.inner.read();
        match shared.erasures.get(&erasure.entity_type) {
            Some(known) if known.len() >= ERASURES_MAX && !known.contains(erasure) => {
                Err(HistoryError::TooManyErasures { entity_type: erasure.entity_type.clone(), max: ERASURES_MAX })
            }
            _ => Ok(()),
        }
    }

    fn erase(&self, erasure: Erasure) -> Result<(), HistoryError> {
        self.check_erasure(&erasure)?;
        let mut shared = self.inner.write();
        let entity_type = erasure.entity_type.clone();
        let erasure = Arc::new(erasure);
        shared.rollups.learn_erasure(&erasure);
        let known = shared.erasures.entry(entity_type.clone()).or_default();
        Arc::make_mut(known).add(Arc::clone(&erasure));
        shared.recent.erasures.entry(entity_type).or_default().push(erasure);
        Ok(())
    }

    fn purge(&self) -> Result<Vec<Segment>, HistoryError> {
        self.inner.purge()?;
        self.seal()
    }

    fn evolution(&self, query: &TemporalQuery) -> Result<Option<Evolution>, HistoryError> {
        let (segments, recent, erasures) = self.inner.of_entity(query);
        let kept = self.inner.read().kept.clone();
        evolve::evolution(query, &segments, &recent, &erasures, &kept)
    }

    fn visit_marks(&self, of: Marked<'_>, as_of: Option<Instant>, visit: &mut dyn FnMut(Fact)) -> Result<(), HistoryError> {
        match of {
            Marked::Entity(id) => self.inner.marks_of_entity(id, as_of, visit),
            Marked::Type(entity_type) => self.inner.marks_of_type(entity_type, as_of, visit),
        }
    }

    fn entity_ids_within(
        &self,
        entity_type: &Iri,
        (property, interval): (TimeProperty, &Range<Instant>),
        as_of: Option<Instant>,
        max: usize,
    ) -> Result<Within, HistoryError> {
        self.kept(entity_type).check(entity_type, Some(&[]), as_of)?;
        let layers = self.inner.read().layers(entity_type, None, as_of);
        within::entity_ids(&layers, (property, interval), as_of, max)
    }

    fn kept(&self, entity_type: &Iri) -> Kept {
        self.inner.read().kept.get(entity_type).cloned().unwrap_or_default()
    }

    fn tables(&self) -> Vec<HistoryTable> {
        let shared = self.inner.read();
        let types: BTreeSet<&Iri> = shared.sealed_seen.keys().chain(shared.in_memory().flat_map(|r| r.tables.keys())).collect();
        types.into_iter().map(|t| shared.table(t)).collect()
    }

    fn stream(&self, scan: &HistoryScan) -> Result<ScanStream, HistoryError> {
        self.kept(&scan.entity_type).check(&scan.entity_type, Some(&scan.attributes), scan.as_of)?;
        let layers = self.inner.read().layers(&scan.entity_type, scan.entities.as_deref(), scan.as_of);
        scan::scan(scan, layers)
    }

    fn aggregate(&self, query: &AggregateQuery) -> Result<Aggregates, HistoryError> {
        self.kept(&query.entity_type).check(&query.entity_type, Some(&query.attributes), query.as_of)?;
        let (layers, rollups, _) = self.inner.read().asked(query);
        aggregate::aggregate(query, &layers, &rollups)
    }

    fn group(&self, query: &AggregateQuery, groups: Groups, take: &mut dyn FnMut(RecordBatch) -> bool) -> Result<Sources, HistoryError> {
        self.kept(&query.entity_type).check(&query.entity_type, Some(&query.attributes), query.as_of)?;
        let (layers, rollups, shown_from) = self.inner.read().asked(query);
        aggregate::group(query, groups, shown_from, &layers, &rollups, take)
    }

    fn reading(&self, scan: &HistoryScan) -> Result<Option<Reading>, HistoryError> {
        let layers = self.inner.read().layers(&scan.entity_type, scan.entities.as_deref(), scan.as_of);
        scan::reading(scan, &layers).map(Some)
    }

    fn reading_of_groups(&self, query: &AggregateQuery, groups: Groups) -> Result<Option<Reading>, HistoryError> {
        let (layers, rollups, shown_from) = self.inner.read().asked(query);
        aggregate::reading_of_groups(query, groups, shown_from, &layers, &rollups).map(Some)
    }

    fn table(&self, entity_type: &Iri) -> Option<HistoryTable> {
        let shared = self.inner.read();
        let is_known = shared.sealed_seen.contains_key(entity_type) || shared.in_memory().any(|r| r.tables.contains_key(entity_type));
        is_known.then(|| shared.table(entity_type))
    }

    fn maintain(&self, policy: &HistoryPolicy, now: Instant) -> Result<Maintained, HistoryError> {
        maintain::maintain(&self.inner, policy, now)
    }
}

impl Shared {
    /// What is in memory, oldest first.
    fn in_memory(&self) -> impl Iterator<Item = &Recent> {
        self.sealing.as_deref().into_iter().chain([&self.recent])
    }

    /// Everything of a table, of these entities only where that is known at once.
    fn layers(&self, entity_type: &Iri, entities: Option<&[Iri]>, as_of: Option<Instant>) -> Layers {
        let tables = self.in_memory().filter_map(|r| r.tables.get(entity_type));
        Layers {
            table: self.table(entity_type),
            segments: self.segments.iter().filter(|s| s.segment.entity_type == *entity_type).cloned().collect(),
            recent: tables.flat_map(|t| t.only(entities)).collect(),
            erasures: self.erasures.get(entity_type).filter(|e| e.concern(entities, as_of)).cloned(),
        }
    }

    /// What a question about numbers is asked of: the values, the roll-ups, and the day from which on all values are still there.
    fn asked(&self, query: &AggregateQuery) -> (Layers, Vec<OpenRollup>, i64) {
        let layers = self.layers(&query.entity_type, query.entities.as_deref(), query.as_of);
        let since = self.kept.get(&query.entity_type).and_then(|kept| {
            let of_attributes = query.attributes.iter().filter_map(|name| kept.attributes.get(name).copied());
            of_attributes.chain(kept.since).max()
        });
        let shown_from = since.map_or(i64::MIN, |at| (at.micros() + DAY_US - 1).div_euclid(DAY_US));
        (layers, self.rollups.of_type(&query.entity_type), shown_from)
    }

    fn table(&self, entity_type: &Iri) -> HistoryTable {
        let mut seen = self.sealed_seen.get(entity_type).cloned().unwrap_or_default();
        for recent in self.in_memory() {
            if let Some(more) = recent.tables.get(entity_type).map(Table::seen) {
                merge_seen(&mut seen, more);
            }
        }
        HistoryTable { entity_type: entity_type.clone(), columns: columns_of(&seen) }
    }
}

/// What some notes say of since when their table is kept.
fn kept_of(notes: &[Arc<OpenSegment>]) -> Option<Kept> {
    let mut all: Option<Kept> = None;
    for kept in notes.iter().filter_map(|s| s.footer.kept.as_ref()) {
        all.get_or_insert_default().merge(kept);
    }
    all
}

fn see(sealed_seen: &mut BTreeMap<Iri, SeenByName>, s: &OpenSegment) {
    if s.footer.is_note() {
        return;
    }
    merge_seen(sealed_seen.entry(s.segment.entity_type.clone()).or_default(), &s.footer.seen);
}

/// `00000012-AirQualityObserved.parquet`: the number makes it unique, the type's short name is for people.
fn file_name(number: u64, entity_type: &Iri) -> String {
    let short: String = entity_type.local_name().chars().filter(char::is_ascii_alphanumeric).take(40).collect();
    format!("{number:08}-{short}.parquet")
}

fn number_of(file: &str) -> Option<u64> {
    file.split_once('-')?.0.parse().ok()
}

/// Opens the files of a list; those of which the footer is known without a look at them. Several at once where that is worth while.
fn open_all(
    files: &Arc<Files>,
    segments: Vec<Segment>,
    sizes: &BTreeMap<String, u64>,
    mut footers: Footers,
) -> Result<Vec<Arc<OpenSegment>>, HistoryError> {
    let known: Vec<(Segment, Option<Footer>)> = segments
        .into_iter()
        .map(|s| {
            let footer = footers.take(&s);
            (s, footer)
        })
        .collect();
    let n_parts = files.blobs.parallel().max(1);
    let open = |(segment, footer): &(Segment, Option<Footer>)| {
        let size = sizes.get(&segment.file).copied();
        OpenSegment::open_known(files, segment.clone(), size, footer.clone()).map(Arc::new)
    };
    if n_parts == 1 || known.iter().all(|(_, footer)| footer.is_some()) {
        return known.iter().map(open).collect();
    }
    let parts: Vec<&[(Segment, Option<Footer>)]> = known.chunks(known.len().div_ceil(n_parts).max(1)).collect();
    std::thread::scope(|scope| {
        let opening: Vec<_> =
            parts.into_iter().map(|part| scope.spawn(move || part.iter().map(open).collect::<Result<Vec<_>, _>>())).collect();
        let mut opened = Vec::with_capacity(known.len());
        for part in opening {
            opened.extend(part.join().expect("opening a file does not panic")?);
        }
        Ok(opened)
    })
}

/// Removes segments that nobody lists. Files that are none of ours are left, with a warning.
fn delete_leftovers(files: &Files, there: impl Iterator<Item = String>, segments: &[Arc<OpenSegment>]) -> Result<(), HistoryError> {
    let listed: BTreeSet<&str> = segments.iter().map(|s| s.segment.file.as_str()).collect();
    for name in there {
        if listed.contains(name.as_str()) {
            continue;
        }
        let path = files.path(&name);
        if number_of(&name).is_some() && name.ends_with(".parquet") {
            files.delete(&name)?;
            tracing::info!(path = %path.display(), "deleted what an interrupted seal of the history left");
        } else {
            tracing::warn!(path = %path.display(), "a stranger in the folder of the history");
        }
    }
    Ok(())
}
