//! What is true now.
//!
//! [`LiveTable`] answers queries from columns and indexes in memory within a [`Budget`]; [`Documents`] keeps the entities on disk as of
//! the last checkpoint. Two [`Space`]s share the log: the city's entities and the node's own bookkeeping (subscriptions).

mod disk;
mod documents;
mod live;

pub use disk::DiskDocuments;
pub use documents::{
    Changed, Document, Documents, DocumentsError, DocumentsMemory, FjallDocuments, Loaded, Manifest, MemoryDocuments, Visit, VisitBytes,
};
pub use live::{
    ASKED_MIN, AUTO_INDEXES_MAX, AutoReport, Budget, COLUMNS_PER_TYPE_MAX, ColumnScan, ConditionReport, Direction, ENTITIES_MIN,
    Explanation, Frozen, Latest, LiveTable, MEMORY_BYTES_DEFAULT, MEMORY_BYTES_MIN, OrderBy, Page, PageRequest, ScanError, weight_of,
};

use serde::{Deserialize, Serialize};

/// Which entities: those of the city, or the node's own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Space {
    /// What the city's interfaces show.
    #[default]
    #[serde(rename = "c")]
    City,
    /// The node's bookkeeping; never shown as entities, never in the history.
    #[serde(rename = "n")]
    Node,
}

impl Space {
    /// All spaces.
    pub const ALL: [Self; 2] = [Self::City, Self::Node];

    const fn key_byte(self) -> u8 {
        match self {
            Self::City => b'c',
            Self::Node => b'n',
        }
    }
}
