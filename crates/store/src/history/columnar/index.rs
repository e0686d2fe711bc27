//! What opening needs to know of files that are far away, kept in a small file near by.
//!
//! ```text
//! history.index = (crc32c:8 hexadecimal digits " " entry as JSON "\n")*
//! ```
//!
//! The end of each file in an object store says what columns it has and what was erased: one request for each, at every start. Here is a
//! copy of that, told apart by the file's name, length and checksum. It is only ever a copy: a line that does not check, or belongs to another file, is as
//! good as none, and the file's own end is read instead. So nothing needs to be synced here, and a failure to write is a warning.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host::Disk;
use serde::{Deserialize, Serialize};

use super::super::Segment;
use super::segment::OpenSegment;
use super::write::{FORMAT_VERSION, Footer};

/// With so many lines more than there are files it is written anew.
const STALE_LINES_MAX: usize = 1_000;

#[derive(Serialize, Deserialize)]
struct Entry {
    /// Format version of the file.
    version: u32,
    file: String,
    bytes: u64,
    crc32c: u32,
    footer: Footer,
}

/// The footers of far files.
pub(super) struct FooterIndex {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Length and checksum by file name.
    noted: HashMap<String, (u64, u32)>,
    n_lines: usize,
}

impl FooterIndex {
    /// Opens the index in `path`, which need not exist; also what it knows, by file name.
    pub(super) fn open(disk: Arc<dyn Disk>, path: &Path) -> (Self, Footers) {
        let bytes = match disk.read(path) {
            Ok(bytes) => bytes,
            Err(e) => {
                if e.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), error = %e, "cannot read the index of the history's files: they are asked themselves");
                }
                Vec::new()
            }
        };
        let mut footers = Footers::default();
        let mut known = Known::default();
        for line in bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            known.n_lines += 1;
            if let Some(entry) = read_line(line).filter(|e| e.version == FORMAT_VERSION) {
                known.noted.insert(entry.file.clone(), (entry.bytes, entry.crc32c));
                footers.0.insert(entry.file.clone(), entry);
            }
        }
        (Self { disk, path: path.to_owned(), known: Mutex::new(known) }, footers)
    }

    // Each holder changes it by complete steps.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what it does not know of these files, which are all that there are.
    pub(super) fn note(&self, files: &[Arc<OpenSegment>]) {
        let mut known = self.known();
        let id = |s: &Segment| (s.bytes, s.crc32c);
        let is_long = known.n_lines > files.len() + STALE_LINES_MAX;
        let new: Vec<_> = files.iter().filter(|f| is_long || known.noted.get(&f.segment.file) != Some(&id(&f.segment))).collect();
        if new.is_empty() {
            return;
        }
        let mut text = String::new();
        // A line that a crash cut short ends here.
        if known.n_lines > 0 && !is_long {
            text.push('\n');
        }
        for f in &new {
            text.push_str(&line_of(f));
        }
        if let Err(e) = self.write(&text, is_long) {
            tracing::warn!(path = %self.path.display(), error = %e, "cannot write the index of the history's files: the next start takes longer");
            return;
        }
        if is_long {
            *known = Known::default();
        }
        known.n_lines += new.len();
        known.noted.extend(new.iter().map(|f| (f.segment.file.clone(), id(&f.segment))));
    }

    fn write(&self, text: &str, anew: bool) -> io::Result<()> {
        if !anew {
            return self.disk.open_append(&self.path)?.append(text.as_bytes());
        }
        let temporary = self.path.with_extension("index.tmp");
        // Left by a write that failed, if at all.
        let _ = self.disk.remove(&temporary);
        let mut file = self.disk.open_append(&temporary)?;
        file.append(text.as_bytes())?;
        file.sync()?;
        self.disk.rename(&temporary, &self.path)
    }
}

/// What an index knew when it was opened.
#[derive(Default)]
pub(super) struct Footers(HashMap<String, Entry>);

impl Footers {
    /// The footer of a file, if it is known.
    pub(super) fn take(&mut self, segment: &Segment) -> Option<Footer> {
        let is_same = |e: &Entry| (e.bytes, e.crc32c) == (segment.bytes, segment.crc32c) && e.footer.entity_type == segment.entity_type;
        self.0.remove(&segment.file).filter(is_same).map(|e| e.footer)
    }
}

fn line_of(file: &OpenSegment) -> String {
    let Segment { file: name, bytes, crc32c, .. } = &file.segment;
    let entry = Entry { version: FORMAT_VERSION, file: name.clone(), bytes: *bytes, crc32c: *crc32c, footer: file.footer.clone() };
    let json = serde_json::to_string(&entry).expect("an entry is JSON");
    format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes()))
}

fn read_line(line: &[u8]) -> Option<Entry> {
    let (crc, json) = line.split_at_checked(9)?;
    let crc = std::str::from_utf8(&crc[..8]).ok().and_then(|hex| u32::from_str_radix(hex, 16).ok())?;
    if crc != crc32c::crc32c(json) {
        return None;
    }
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use entity::{Attribute, Instant, Iri};
    use host::sim::SimDisk;

    use super::*;
    use crate::blobs::{Blobs, Bytes, MemoryBlobs};
    use crate::history::columnar::{ColumnarHistory, ColumnarOptions};
    use crate::history::{Fact, History, TemporalQuery, What};

    /// A far place that counts what it is asked.
    #[derive(Default)]
    struct Counting {
        files: MemoryBlobs,
        n_lists: AtomicUsize,
        n_others: AtomicUsize,
    }

    impl Counting {
        fn asked(&self) -> (usize, usize) {
            (self.n_lists.swap(0, Ordering::SeqCst), self.n_others.swap(0, Ordering::SeqCst))
        }

        fn count(&self) {
            self.n_others.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Blobs for Counting {
        fn place(&self) -> String {
            "far".to_owned()
        }

        fn put(&self, name: &str, bytes: Bytes) -> io::Result<()> {
            self.count();
            self.files.put(name, bytes)
        }

        fn get(&self, name: &str, range: Range<u64>) -> io::Result<Bytes> {
            self.count();
            self.files.get(name, range)
        }

        fn size(&self, name: &str) -> io::Result<u64> {
            self.count();
            self.files.size(name)
        }

        fn delete(&self, name: &str) -> io::Result<()> {
            self.count();
            self.files.delete(name)
        }

        fn list(&self) -> io::Result<Vec<String>> {
            self.n_lists.fetch_add(1, Ordering::SeqCst);
            self.files.list()
        }

        fn list_sizes(&self) -> io::Result<Vec<(String, u64)>> {
            self.n_lists.fetch_add(1, Ordering::SeqCst);
            self.files.list_sizes()
        }

        fn parallel(&self) -> usize {
            8
        }
    }

    fn fact(hour: i64) -> Fact {
        let at = Instant::from_secs(hour * 3_600);
        Fact {
            entity_type: Iri::known("https://example.org/Station"),
            entity: Iri::known("urn:ngsi-ld:Station:1"),
            recorded_at: at,
            what: What::Value { name: Iri::known("https://example.org/v"), instance: Attribute::property(hour).observed(at).into() },
        }
    }

    fn n_values(history: &ColumnarHistory) -> usize {
        let past = history.evolution(&TemporalQuery::of(Iri::known("urn:ngsi-ld:Station:1"))).unwrap();
        past.map_or(0, |p| p.attributes[0].len())
    }

    #[test]
    fn a_thousand_far_files_are_opened_with_one_list_once_they_are_known() {
        const FILES: usize = 1_000;
        let far = Arc::new(Counting::default());
        let mut disk = SimDisk::new(1, 64 << 20);
        let path = Path::new("/node/history.index");
        let open_on = |disk: &SimDisk, segments: &[Segment], index: bool| {
            let index: Option<(Arc<dyn Disk>, PathBuf)> = index.then(|| (Arc::new(disk.clone()) as Arc<dyn Disk>, path.to_owned()));
            let options = ColumnarOptions { compaction: false, index, ..ColumnarOptions::default() };
            ColumnarHistory::open_on(Arc::clone(&far) as Arc<dyn Blobs>, segments.to_vec(), options).unwrap()
        };
        let history = open_on(&disk, &[], true);
        let mut segments = Vec::new();
        for hour in 0..FILES {
            history.append(vec![fact(hour as i64)]);
            segments = history.seal().unwrap();
        }
        assert_eq!((segments.len(), n_values(&history)), (FILES, FILES));
        drop(history);
        far.asked();
        drop(open_on(&disk, &segments, false));
        assert_eq!(far.asked(), (1, FILES), "without an index each file is asked once");
        let history = open_on(&disk, &segments, true);
        assert_eq!(far.asked(), (1, 0), "with it none");
        assert_eq!(n_values(&history), FILES);
        drop(history);

        // Damage anywhere in the index costs requests and nothing else.
        let mut damaged = disk.read(path).unwrap();
        let n_bytes = damaged.len();
        (0..n_bytes).step_by(n_bytes / 50).for_each(|at| damaged[at] ^= 4);
        disk = SimDisk::new(2, 64 << 20);
        disk.open_append(path).unwrap().append(&damaged).unwrap();
        let open = |segments: &[Segment], index: bool| open_on(&disk, segments, index);
        far.asked();
        let history = open(&segments, true);
        let (_, n_asked) = far.asked();
        assert!((1..=60).contains(&n_asked), "{n_asked}");
        assert_eq!(n_values(&history), FILES);
        drop(history);
        far.asked();
        drop(open(&segments, true));
        assert_eq!(far.asked(), (1, 0), "what was asked for is noted");

        // Another file of the same name and a missing one are noticed.
        let first = &segments[0];
        let other = Segment { crc32c: first.crc32c ^ 1, ..first.clone() };
        drop(open(&[other], true));
        far.files.delete(&segments[1].file).unwrap();
        let options = ColumnarOptions { compaction: false, ..ColumnarOptions::default() };
        let missing = ColumnarHistory::open_on(far, segments[1..2].to_vec(), options).map(|_| ()).unwrap_err();
        assert!(missing.to_string().contains(&segments[1].file), "{missing}");
    }
}
