//! Where immutable files live: whole objects by name, written once and read in parts.
//!
//! * [`DiskBlobs`]: a folder of a [`host::Disk`], real or simulated.
//! * [`MemoryBlobs`]: gone with the process; for tests.
//! * [`ObjectBlobs`]: whatever the crate `object_store` reaches, above all S3-compatible stores ([`S3Options`]).
//!
//! **Invariants.** What [`Blobs::put`] has returned from is there completely and survives a crash; what it has not returned from is there
//! completely or not at all. Names are plain file names: no folders.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host::RealDisk;

pub(crate) mod bucket;
mod disk;
mod object;

#[cfg(test)]
pub(crate) mod contract;

pub use bucket::S3Options;
pub use disk::DiskBlobs;
pub use object::ObjectBlobs;

/// Bytes that are shared, not copied (`bytes::Bytes`, by the way of the crate that brings it).
pub type Bytes = <object_store::PutPayload as IntoIterator>::Item;

/// A place for immutable files. Calls block; none may be made from a thread that must not wait.
pub trait Blobs: Send + Sync {
    /// Where it is, for messages: a folder or a URL.
    fn place(&self) -> String;

    /// Writes a file, complete and durable when this returns. One of the same name is replaced.
    fn put(&self, name: &str, bytes: Bytes) -> io::Result<()>;

    /// A part of a file. Errors: [`io::ErrorKind::NotFound`]; [`io::ErrorKind::UnexpectedEof`] if it ends before the part does.
    fn get(&self, name: &str, range: Range<u64>) -> io::Result<Bytes>;

    /// Length of a file in bytes. Errors: [`io::ErrorKind::NotFound`].
    fn size(&self, name: &str) -> io::Result<u64>;

    /// Deletes a file. It is no error if there is none.
    fn delete(&self, name: &str) -> io::Result<()>;

    /// The names of all files, sorted.
    fn list(&self) -> io::Result<Vec<String>>;

    /// The same with their lengths in bytes.
    fn list_sizes(&self) -> io::Result<Vec<(String, u64)>> {
        self.list()?.into_iter().map(|name| self.size(&name).map(|bytes| (name, bytes))).collect()
    }

    /// Makes sure that the place is this store's: two stores in one place would delete each other's files. A place that only one program can
    /// have open anyhow needs no such mark.
    ///
    /// Errors: it is another's.
    fn claim(&self, _id: &str) -> io::Result<()> {
        Ok(())
    }

    /// How many calls at once are worth while where many are to be made.
    fn parallel(&self) -> usize {
        1
    }

    /// Two parts of a file that are so many bytes apart are cheaper read as one.
    fn gap_bytes(&self) -> u64 {
        4 << 10
    }
}

/// Where the history of the store in `dir` has its files: in its folder `history` (made if missing) if `place` is empty, otherwise at
/// `s3://bucket/prefix` (see [`ObjectBlobs::s3_at`]).
pub fn open_history(dir: &Path, place: &str) -> io::Result<Arc<dyn Blobs>> {
    if !place.is_empty() {
        return Ok(Arc::new(ObjectBlobs::s3_at(place)?));
    }
    let dir = dir.join("history");
    std::fs::create_dir_all(&dir)?;
    Ok(Arc::new(DiskBlobs::open(Arc::new(RealDisk), &dir)?))
}

/// The same place, for one who only looks: nothing is made or removed.
pub(crate) fn look_at_history(dir: &Path, place: &str) -> io::Result<Arc<dyn Blobs>> {
    if place.is_empty() {
        return Ok(Arc::new(DiskBlobs::look_at(Arc::new(RealDisk), &dir.join("history"))));
    }
    open_history(dir, place)
}

/// Files in memory.
#[derive(Default)]
pub struct MemoryBlobs {
    files: Mutex<BTreeMap<String, Bytes>>,
}

impl MemoryBlobs {
    // Each holder changes the map by one complete step.
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Blobs for MemoryBlobs {
    fn place(&self) -> String {
        "memory:".to_owned()
    }

    fn put(&self, name: &str, bytes: Bytes) -> io::Result<()> {
        self.files().insert(name.to_owned(), bytes);
        Ok(())
    }

    fn get(&self, name: &str, range: Range<u64>) -> io::Result<Bytes> {
        let file = self.files().get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        let byte_at = |idx| usize::try_from(idx).unwrap_or(usize::MAX);
        let range = byte_at(range.start)..byte_at(range.end);
        if range.start > range.end || range.end > file.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(file.slice(range))
    }

    fn size(&self, name: &str) -> io::Result<u64> {
        Ok(self.files().get(name).ok_or(io::ErrorKind::NotFound)?.len() as u64)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        self.files().remove(name);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files().keys().cloned().collect())
    }
}
