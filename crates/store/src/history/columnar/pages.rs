//! Pages of files as they were decoded last: what a dashboard asks again and again is read and decoded once.

use std::ops::Range;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

/// The most rows that are kept together: who reads more at once reads much, and would push out what others read often.
pub(super) const PAGE_ROWS_MAX: usize = 8_192;

/// Some rows of a row group. Files are never changed, and a name is used once, so what it says stays true.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct PagesKey {
    pub(super) file: String,
    pub(super) row_group_idx: usize,
    /// The columns, as positions among all leaves of the schema.
    pub(super) leaves: Vec<usize>,
    pub(super) rows: Vec<Range<usize>>,
}

/// The cache.
pub(super) type PagesCache = Cache<PagesKey, Arc<[RecordBatch]>, PagesBytes>;

/// What an entry takes.
#[derive(Clone)]
pub(super) struct PagesBytes;

impl Weighter<PagesKey, Arc<[RecordBatch]>> for PagesBytes {
    fn weight(&self, key: &PagesKey, batches: &Arc<[RecordBatch]>) -> u64 {
        let of_key = key.file.len() + size_of_val(key.leaves.as_slice()) + size_of_val(key.rows.as_slice()) + size_of::<PagesKey>();
        (of_key + batches.iter().map(RecordBatch::get_array_memory_size).sum::<usize>()) as u64
    }
}

/// A cache of so many bytes.
pub(super) fn cache(bytes_max: u64) -> PagesCache {
    // The estimate only sizes the tables of the cache.
    let n_entries = usize::try_from(bytes_max >> 15).unwrap_or(usize::MAX).clamp(16, 1 << 20);
    Cache::with_weighter(n_entries, bytes_max, PagesBytes)
}
