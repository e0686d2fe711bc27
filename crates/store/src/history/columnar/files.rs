//! The files of a history: named blobs, and caches of what their ends say and of what was read last.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::super::{HistoryError, Segment};
use super::pages::{self, PagesCache};
use crate::blobs::{Blobs, Bytes};

/// What a file's end is read with: enough for the footer and page index of most.
const END_BYTES: u64 = 64 << 10;
/// Bytes that are read at once where nobody said how many will be wanted.
const READ_BYTES: u64 = 64 << 10;

/// Where the files are, and what is known of them.
pub(super) struct Files {
    pub(super) blobs: Arc<dyn Blobs>,
    place: String,
    /// By file name.
    metadata: Cache<String, ArrowReaderMetadata, MetadataBytes>,
    pub(super) pages: PagesCache,
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").field("place", &self.place).finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct MetadataBytes;

impl Weighter<String, ArrowReaderMetadata> for MetadataBytes {
    fn weight(&self, name: &String, metadata: &ArrowReaderMetadata) -> u64 {
        (name.len() + metadata.metadata().memory_size()) as u64
    }
}

impl Files {
    /// `metadata_bytes` and `pages_bytes`: what the caches may take.
    pub(super) fn new(blobs: Arc<dyn Blobs>, metadata_bytes: u64, pages_bytes: u64) -> Self {
        let place = blobs.place();
        // The estimate only sizes the tables of the cache.
        let n_files = usize::try_from(metadata_bytes >> 16).unwrap_or(usize::MAX).clamp(16, 1 << 20);
        Self { blobs, place, metadata: Cache::with_weighter(n_files, metadata_bytes, MetadataBytes), pages: pages::cache(pages_bytes) }
    }

    /// What messages call a file.
    pub(super) fn path(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("{}/{file}", self.place))
    }

    pub(super) fn cached(&self, file: &str) -> Option<ArrowReaderMetadata> {
        self.metadata.get(file)
    }

    pub(super) fn cache(&self, file: &str, metadata: &ArrowReaderMetadata) {
        self.metadata.insert(file.to_owned(), metadata.clone());
    }

    pub(super) fn size(&self, file: &str) -> Result<u64, HistoryError> {
        self.blobs.size(file).map_err(self.failed("read", file))
    }

    pub(super) fn get(&self, file: &str, range: Range<u64>) -> Result<Bytes, HistoryError> {
        self.blobs.get(file, range).map_err(self.failed("read", file))
    }

    pub(super) fn put(&self, file: &str, bytes: Vec<u8>) -> Result<(), HistoryError> {
        self.blobs.put(file, Bytes::from(bytes)).map_err(self.failed("write", file))
    }

    pub(super) fn delete(&self, file: &str) -> Result<(), HistoryError> {
        self.metadata.remove(file);
        self.blobs.delete(file).map_err(self.failed("delete", file))
    }

    /// What is there, with sizes in bytes.
    pub(super) fn list_sizes(&self) -> Result<BTreeMap<String, u64>, HistoryError> {
        let failed = |source| HistoryError::Io { action: "list", path: PathBuf::from(&self.place), source };
        Ok(self.blobs.list_sizes().map_err(failed)?.into_iter().collect())
    }

    fn failed(&self, action: &'static str, file: &str) -> impl Fn(io::Error) -> HistoryError {
        let path = self.path(file);
        move |source| HistoryError::Io { action, path: path.clone(), source }
    }
}

/// A file whose wanted parts have been fetched; others are fetched when they are asked for.
pub(super) struct BlobFile {
    files: Arc<Files>,
    name: String,
    bytes: u64,
    /// Where each part begins, and what is there; in order.
    parts: Vec<(u64, Bytes)>,
}

impl BlobFile {
    /// Fetches some parts, in few pieces.
    pub(super) fn fetch(files: &Arc<Files>, segment: &Segment, mut wanted: Vec<Range<u64>>) -> Result<Self, HistoryError> {
        wanted.retain(|r| !r.is_empty());
        wanted.sort_by_key(|r| r.start);
        let gap_bytes = files.blobs.gap_bytes();
        let mut joined: Vec<Range<u64>> = Vec::new();
        for r in wanted {
            match joined.last_mut() {
                Some(last) if r.start <= last.end + gap_bytes => last.end = last.end.max(r.end),
                _ => joined.push(r),
            }
        }
        let parts = joined.into_iter().map(|r| Ok((r.start, files.get(&segment.file, r)?))).collect::<Result<_, HistoryError>>()?;
        Ok(Self { files: Arc::clone(files), name: segment.file.clone(), bytes: segment.bytes, parts })
    }

    /// Fetches the end, where the footer is.
    pub(super) fn fetch_end(files: &Arc<Files>, segment: &Segment) -> Result<Self, HistoryError> {
        let end = segment.bytes.saturating_sub(END_BYTES)..segment.bytes;
        Self::fetch(files, segment, vec![end])
    }

    fn bytes_at(&self, range: Range<u64>) -> io::Result<Bytes> {
        let before = self.parts.partition_point(|(start, _)| *start <= range.start);
        if let Some((start, part)) = before.checked_sub(1).map(|i| &self.parts[i])
            && range.end <= start + part.len() as u64
        {
            let idx = |at: u64| usize::try_from(at - start).expect("a part is in memory");
            return Ok(part.slice(idx(range.start)..idx(range.end)));
        }
        self.files.blobs.get(&self.name, range)
    }

    /// What is in memory from here on, or else the next bit.
    fn some_bytes_at(&self, from: u64) -> io::Result<Bytes> {
        let before = self.parts.partition_point(|(start, _)| *start <= from);
        let part_end = before.checked_sub(1).map(|i| self.parts[i].0 + self.parts[i].1.len() as u64).filter(|end| from < *end);
        self.bytes_at(from..part_end.unwrap_or((from + READ_BYTES).min(self.bytes)))
    }
}

impl Length for BlobFile {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for BlobFile {
    type T = BlobRead;

    fn get_read(&self, start: u64) -> parquet::errors::Result<BlobRead> {
        let (files, name, parts) = (Arc::clone(&self.files), self.name.clone(), self.parts.clone());
        Ok(BlobRead { file: Self { files, name, bytes: self.bytes, parts }, at: start })
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        self.bytes_at(start..start + length as u64).map_err(|e| ParquetError::External(Box::new(e)))
    }
}

/// A file read from some place on.
pub(super) struct BlobRead {
    file: BlobFile,
    at: u64,
}

impl Read for BlobRead {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.file.bytes {
            return Ok(0);
        }
        let bytes = self.file.some_bytes_at(self.at)?;
        let n = bytes.len().min(buf.len());
        buf[..n].copy_from_slice(&bytes[..n]);
        self.at += n as u64;
        Ok(n)
    }
}
