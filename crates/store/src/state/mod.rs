//! What is true now.
//!
//! [`LiveTable`] holds the present entities in memory, ordered by type and id and indexed by place; [`Documents`] keeps them on disk as of
//! the last checkpoint. Two [`Space`]s share the log: the city's entities and the node's own bookkeeping (subscriptions).

mod documents;
mod live;

pub use documents::{Documents, DocumentsError, FjallDocuments, Loaded, Manifest, MemoryDocuments};
pub use live::{LiveTable, Page, PageRequest};

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
