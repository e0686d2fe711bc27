//! History in columns: recent facts in memory, sealed ones in Parquet files that never change.
//!
//! * `recent`: facts in memory, by table, entity and row.
//! * `cell`: an attribute instance as the cells of a row, without loss.
//! * `write`, `segment`: a table of facts to a file; a file's footer, pruning and reading.
//! * `merge`: small files become one.
//! * `evolve`, `scan`, `aggregate`: the questions, answered over all layers.
//! * `rollup`: files of aggregates beside those of values; `maintain`: building them, and removing what is too old.
//!
//! A file holds one entity type: a row per entity, `datasetId`, observed and recorded time, sorted by entity, then observed, then
//! recorded time; up to three columns per attribute (`<iri>`: number, `<iri>|text`: any other value as JSON, `<iri>|meta`: what is left).
//! Its footer says the format version and which columns and kinds of values there are.
//!
//! **Invariants.** A file is complete, synced and under its final name before a [`Segment`] names it. Readers take a snapshot (segments,
//! facts being sealed, recent facts) under one lock, so they see each fact once. Newer layers come later; what is in two layers after a
//! crash and replay counts once. A file is deleted when the durable list no longer names it and no reader has it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use arrow::record_batch::RecordBatch;
use entity::{Instant, Iri};

use self::evolve::RecentRows;
use self::recent::{Recent, Table};
use self::rollup::{OpenRollup, Rollups};
use self::scan::Layers;
use self::segment::OpenSegment;
use super::value::{SeenByName, columns_of, merge_seen};
use super::{
    AggregateQuery, Aggregates, BulkRows, Evolution, Fact, History, HistoryError, HistoryPolicy, HistoryScan, HistoryTable, Maintained,
    Segment, TemporalQuery,
};

mod aggregate;
mod cell;
mod evolve;
mod maintain;
mod merge;
mod recent;
mod rollup;
mod scan;
mod segment;
mod write;

#[cfg(test)]
mod tests;

/// History in a folder of Parquet files, which it has for itself.
pub struct ColumnarHistory {
    dir: PathBuf,
    shared: RwLock<Shared>,
    /// Held by the one who seals.
    sealing: Mutex<Numbering>,
}

/// What readers take a snapshot of.
struct Shared {
    recent: Recent,
    /// Facts on their way to a file.
    sealing: Option<Arc<Recent>>,
    segments: Arc<Vec<Arc<OpenSegment>>>,
    /// What the values in `segments` had in common.
    sealed_seen: BTreeMap<Iri, SeenByName>,
    rollups: Rollups,
}

struct Numbering {
    next: u64,
    /// What was replaced by others since the last list was given.
    replaced: Vec<Arc<OpenSegment>>,
    /// What the last list does not name, and an earlier one does, perhaps.
    unlisted: Vec<Arc<OpenSegment>>,
}

impl ColumnarHistory {
    /// Opens the history in `dir` (made if missing), which consists of `segments`, in the order in which [`History::seal`] gave them.
    ///
    /// Deletes the files of interrupted seals: segments that are not listed. So the list must be the one that was made durable last.
    ///
    /// Errors: a listed file is missing, is not what its entry says, or is of a newer format. The checksum is left to [`Self::verify`],
    /// since it reads everything.
    pub fn open(dir: &Path, segments: Vec<Segment>) -> Result<Self, HistoryError> {
        fs::create_dir_all(dir).map_err(|source| HistoryError::Io { action: "make", path: dir.to_owned(), source })?;
        let opened = segments.into_iter().map(|s| OpenSegment::open(dir, s).map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
        delete_leftovers(dir, &opened)?;
        let next = opened.iter().filter_map(|s| number_of(&s.segment.file)).max().map_or(0, |n| n + 1);
        let mut sealed_seen = BTreeMap::new();
        let (mut segments, mut rollups) = (Vec::new(), Vec::new());
        for s in opened {
            if let Some(info) = &s.segment.rollup {
                rollups.push(OpenRollup::loaded(Arc::clone(&s), info));
            } else {
                see(&mut sealed_seen, &s);
                segments.push(s);
            }
        }
        let rollups = Rollups::of(rollups);
        let shared = Shared { recent: Recent::default(), sealing: None, segments: Arc::new(segments), sealed_seen, rollups };
        Ok(Self {
            dir: dir.to_owned(),
            shared: RwLock::new(shared),
            sealing: Mutex::new(Numbering { next, replaced: Vec::new(), unlisted: Vec::new() }),
        })
    }

    /// Reads every sealed file and compares its checksum. Returns what is wrong, one error per file; nothing if all is well.
    #[must_use]
    pub fn verify(&self) -> Vec<HistoryError> {
        let files: Vec<_> = {
            let shared = self.read();
            shared.segments.iter().chain(shared.rollups.files.iter().map(|r| &r.file)).cloned().collect()
        };
        files.iter().filter_map(|s| s.verify().err()).collect()
    }

    // A panic while the lock was held leaves the maps whole: each holder changes them by complete steps.
    fn read(&self) -> RwLockReadGuard<'_, Shared> {
        self.shared.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Shared> {
        self.shared.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Merges the small files of each of these tables. What fails stays as it is: it is as good, only slower.
    fn merge_small(&self, tables: &Recent, numbering: &mut Numbering) {
        for entity_type in tables.tables.keys() {
            loop {
                let segments: Vec<Arc<OpenSegment>> =
                    self.read().segments.iter().filter(|s| s.segment.entity_type == *entity_type).cloned().collect();
                let rows: Vec<u64> = segments.iter().map(|s| s.segment.n_rows).collect();
                let Some(n) = merge::n_to_merge(&rows) else { break };
                let old = &segments[segments.len() - n..];
                let file = file_name(numbering.next, entity_type);
                numbering.next += 1;
                let merged = merge::merge(&self.dir, &file, old)
                    .and_then(|s| OpenSegment::open(&self.dir, s))
                    .and_then(|s| sync_dir(&self.dir).map(|()| s));
                match merged {
                    Ok(merged) => {
                        self.replace(old, Arc::new(merged));
                        numbering.replaced.extend_from_slice(old);
                    }
                    Err(error) => {
                        self.remove(&file);
                        tracing::warn!(%error, %entity_type, "the small files of the history were not merged");
                        break;
                    }
                }
            }
        }
    }

    fn replace(&self, old: &[Arc<OpenSegment>], merged: Arc<OpenSegment>) {
        let mut shared = self.write();
        let is_old = |s: &Arc<OpenSegment>| old.iter().any(|o| Arc::ptr_eq(o, s));
        let mut segments: Vec<_> = shared.segments.iter().filter(|s| !is_old(s)).cloned().collect();
        // The old ones were the newest of their table.
        segments.push(merged);
        shared.segments = Arc::new(segments);
    }

    /// Removes a file of which the writing failed. What cannot be removed now is removed when the folder is opened next.
    fn remove(&self, file: &str) {
        let _ = fs::remove_file(self.dir.join(format!("{file}.tmp")));
        let _ = fs::remove_file(self.dir.join(file));
    }

    /// Writes one file per table of `recent`; none of them stays if one fails.
    fn write_all(&self, recent: &Recent, numbering: &mut Numbering) -> Result<Vec<Arc<OpenSegment>>, HistoryError> {
        let mut written = Vec::new();
        let mut result = Ok(());
        for (entity_type, table) in &recent.tables {
            let file = file_name(numbering.next, entity_type);
            numbering.next += 1;
            match write::write_segment(&self.dir, &file, entity_type, table).and_then(|s| OpenSegment::open(&self.dir, s)) {
                Ok(segment) => written.push(Arc::new(segment)),
                Err(e) => {
                    result = Err(e);
                    self.remove(&file);
                    break;
                }
            }
        }
        if let Err(e) = result.and_then(|()| sync_dir(&self.dir)) {
            for s in written {
                self.remove(&s.segment.file);
            }
            return Err(e);
        }
        Ok(written)
    }
}

impl History for ColumnarHistory {
    fn append(&self, facts: Vec<Fact>) {
        let mut shared = self.write();
        for fact in facts {
            shared.rollups.learn(&fact);
            shared.recent.append(fact);
        }
    }

    fn append_rows(&self, rows: BulkRows) {
        let mut shared = self.write();
        shared.rollups.learn_rows(&rows);
        for fact in rows.facts() {
            shared.recent.append(fact);
        }
    }

    fn n_recent(&self) -> usize {
        let shared = self.read();
        shared.recent.n_facts() + shared.sealing.as_ref().map_or(0, |s| s.n_facts())
    }

    fn seal(&self) -> Result<Vec<Segment>, HistoryError> {
        let mut numbering = self.sealing.lock().unwrap_or_else(PoisonError::into_inner);
        let facts = {
            let mut shared = self.write();
            // After a panic in a seal its facts are still there.
            let mut facts = shared.sealing.take().map_or_else(Recent::default, Arc::unwrap_or_clone);
            if facts.tables.is_empty() {
                std::mem::swap(&mut facts, &mut shared.recent);
            } else {
                facts.overlay(&std::mem::take(&mut shared.recent));
            }
            let facts = Arc::new(facts);
            shared.sealing = Some(Arc::clone(&facts));
            facts
        };
        let result = self.write_all(&facts, &mut numbering);
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
                drop(shared);
                self.merge_small(&facts, &mut numbering);
                let replaced = std::mem::take(&mut numbering.replaced);
                numbering.unlisted.extend(replaced);
                let shared = self.read();
                let rollups = shared.rollups.files.iter().map(OpenRollup::segment);
                Ok(shared.segments.iter().map(|s| s.segment.clone()).chain(rollups).collect())
            }
            Err(e) => {
                let newer = std::mem::take(&mut shared.recent);
                shared.recent = Arc::unwrap_or_clone(facts);
                shared.recent.overlay(&newer);
                Err(e)
            }
        }
    }

    fn committed(&self) {
        let unlisted = std::mem::take(&mut self.sealing.lock().unwrap_or_else(PoisonError::into_inner).unlisted);
        for s in unlisted {
            s.delete_when_unused();
        }
    }

    fn evolution(&self, query: &TemporalQuery) -> Result<Option<Evolution>, HistoryError> {
        let (segments, recent) = {
            let shared = self.read();
            let n = shared.segments.len();
            let in_memory = shared.sealing.as_deref().map(|r| (n, r)).into_iter().chain([(n + 1, &shared.recent)]);
            let mut rows = Vec::new();
            for (layer, recent) in in_memory {
                for (entity_type, table) in &recent.tables {
                    if let Some(found) = table.entities.get(&query.entity) {
                        rows.push(RecentRows { entity_type: entity_type.clone(), layer, rows: Arc::clone(found) });
                    }
                }
            }
            (Arc::clone(&shared.segments), rows)
        };
        evolve::evolution(query, &segments, &recent)
    }

    fn tables(&self) -> Vec<HistoryTable> {
        let shared = self.read();
        let in_memory = shared.sealing.as_deref().into_iter().chain([&shared.recent]).flat_map(|r| r.tables.keys());
        let types: BTreeSet<&Iri> = shared.sealed_seen.keys().chain(in_memory).collect();
        types.into_iter().map(|t| shared.table(t)).collect()
    }

    fn scan(&self, scan: &HistoryScan) -> Result<Vec<RecordBatch>, HistoryError> {
        let layers = self.read().layers(&scan.entity_type, scan.entities.as_deref());
        scan::scan(scan, &layers)
    }

    fn aggregate(&self, query: &AggregateQuery) -> Result<Aggregates, HistoryError> {
        let (layers, rollups) = {
            let shared = self.read();
            (shared.layers(&query.entity_type, query.entities.as_deref()), shared.rollups.of_type(&query.entity_type))
        };
        aggregate::aggregate(query, &layers, &rollups)
    }

    fn maintain(&self, policy: &HistoryPolicy, now: Instant) -> Result<Maintained, HistoryError> {
        maintain::maintain(self, policy, now)
    }
}

impl Shared {
    /// Everything of a table, of these entities only where that is known at once.
    fn layers(&self, entity_type: &Iri, entities: Option<&[Iri]>) -> Layers {
        let tables = self.sealing.as_deref().into_iter().chain([&self.recent]).filter_map(|r| r.tables.get(entity_type));
        Layers {
            table: self.table(entity_type),
            segments: self.segments.iter().filter(|s| s.segment.entity_type == *entity_type).cloned().collect(),
            recent: tables.map(|t| t.only(entities)).collect(),
        }
    }

    fn table(&self, entity_type: &Iri) -> HistoryTable {
        let mut seen = self.sealed_seen.get(entity_type).cloned().unwrap_or_default();
        for recent in self.sealing.as_deref().into_iter().chain([&self.recent]) {
            if let Some(Table { seen: more, .. }) = recent.tables.get(entity_type) {
                merge_seen(&mut seen, more);
            }
        }
        HistoryTable { entity_type: entity_type.clone(), columns: columns_of(&seen) }
    }
}

fn see(sealed_seen: &mut BTreeMap<Iri, SeenByName>, s: &OpenSegment) {
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

/// Removes segments that nobody lists. Files that are none of ours are left, with a warning.
fn delete_leftovers(dir: &Path, segments: &[Arc<OpenSegment>]) -> Result<(), HistoryError> {
    let listed: BTreeSet<&str> = segments.iter().map(|s| s.segment.file.as_str()).collect();
    let io_error = |action, path: &Path| {
        let path = path.to_owned();
        move |source| HistoryError::Io { action, path, source }
    };
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let entry = entry.map_err(io_error("list", dir))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if listed.contains(name.as_ref()) {
            continue;
        }
        let path = entry.path();
        let is_ours = number_of(&name).is_some() && (name.ends_with(".parquet") || name.ends_with(".parquet.tmp"));
        if is_ours {
            fs::remove_file(&path).map_err(io_error("delete", &path))?;
            tracing::info!(path = %path.display(), "deleted what an interrupted seal of the history left");
        } else {
            tracing::warn!(path = %path.display(), "a stranger in the folder of the history");
        }
    }
    Ok(())
}

/// Makes the names of new files durable.
fn sync_dir(dir: &Path) -> Result<(), HistoryError> {
    let synced = File::open(dir).and_then(|d| d.sync_all());
    synced.map_err(|source| HistoryError::Io { action: "sync", path: dir.to_owned(), source })
}
