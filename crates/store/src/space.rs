//! Where the room on disk goes: per entity type, and in all.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use entity::{Entity, Iri};
use serde::Serialize;

use crate::history::Segment;
use crate::state::{Documents, DocumentsError, FjallDocuments, Space};
use crate::store::{CheckpointError, OpenError, Store, lock_dir};

/// Entity types that are listed one by one; what is beyond is in the sums only.
pub const TYPES_MAX: usize = 10_000;

/// What one entity type takes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TypeSpace {
    /// The type (of entities with several: the first).
    #[serde(rename = "type")]
    pub entity_type: Iri,
    /// Entities now.
    pub n_entities: u64,
    /// Bytes of their documents, before the documents' engine compresses them.
    pub document_bytes: u64,
    /// Files of the history.
    pub n_segments: u64,
    /// Rows in them.
    pub segment_rows: u64,
    /// Bytes of them.
    pub segment_bytes: u64,
}

/// What a store takes on disk.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SpaceReport {
    /// By type, the largest first.
    pub types: Vec<TypeSpace>,
    /// Bytes of the node's own documents (subscriptions), as for the types.
    pub node_document_bytes: u64,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Bytes of all documents, as their engine keeps them on disk.
    pub documents_bytes: u64,
    /// Bytes of the history's files.
    pub history_bytes: u64,
}

impl SpaceReport {
    /// All of it.
    #[must_use]
    pub const fn total_bytes(&self) -> u64 {
        self.log_bytes + self.documents_bytes + self.history_bytes
    }
}

/// Why the account cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SpaceError {
    /// The folder cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The documents cannot be read.
    #[error("cannot read the documents")]
    Documents(#[from] DocumentsError),
    /// The store makes no checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// There is no store there.
    #[error("there is no store in `{dir}`")]
    NoStore {
        /// The folder.
        dir: String,
    },
}

/// The account of a folder that no node has open.
pub fn of_dir(dir: &Path) -> Result<SpaceReport, SpaceError> {
    if !dir.join("documents").is_dir() {
        return Err(SpaceError::NoStore { dir: dir.display().to_string() });
    }
    let _lock = lock_dir(dir)?;
    let documents = FjallDocuments::open(&dir.join("documents"))?;
    let mut counted = Counted::default();
    let manifest = counted.add_documents(&documents)?;
    Ok(counted.report(&manifest.segments, bytes_in(&dir.join("log")), bytes_in(&dir.join("documents"))))
}

impl Store {
    /// The account of an open store: makes a checkpoint and reads all documents, so it takes as long as that.
    pub fn space(&self) -> Result<SpaceReport, SpaceError> {
        let documents_dir = self.dir.join("documents");
        let counted = self.hold(|held| {
            let mut counted = Counted::default();
            counted.add_documents(held.documents).map(|_| counted)
        })??;
        Ok(counted.report(&self.segments(), self.stats().log_bytes, bytes_in(&documents_dir)))
    }

    /// What the history takes by entity type, as of the last checkpoint: type, rows, bytes. Quick, for metrics.
    #[must_use]
    pub fn history_space(&self) -> Vec<(Iri, u64, u64)> {
        let mut by_type: BTreeMap<Iri, (u64, u64)> = BTreeMap::new();
        for s in self.segments().iter() {
            let of_type = by_type.entry(s.entity_type.clone()).or_default();
            of_type.0 += s.n_rows;
            of_type.1 += s.bytes;
        }
        by_type.into_iter().take(TYPES_MAX).map(|(t, (rows, bytes))| (t, rows, bytes)).collect()
    }
}

#[derive(Default)]
struct Counted {
    by_type: BTreeMap<Iri, TypeSpace>,
    node_document_bytes: u64,
}

impl Counted {
    fn of(&mut self, entity_type: &Iri) -> &mut TypeSpace {
        self.by_type.entry(entity_type.clone()).or_insert_with(|| TypeSpace {
            entity_type: entity_type.clone(),
            n_entities: 0,
            document_bytes: 0,
            n_segments: 0,
            segment_rows: 0,
            segment_bytes: 0,
        })
    }

    fn add_documents(&mut self, documents: &dyn Documents) -> Result<crate::state::Manifest, DocumentsError> {
        for space in Space::ALL {
            documents.scan(space, &mut |entity| {
                self.add(space, &entity);
                Ok(())
            })?;
        }
        documents.manifest()
    }

    fn add(&mut self, space: Space, entity: &Entity) {
        let bytes = entity::codec::encode_entity(entity).len() as u64;
        match (space, entity.types.first()) {
            (Space::City, Some(entity_type)) => {
                let of_type = self.of(entity_type);
                of_type.n_entities += 1;
                of_type.document_bytes += bytes;
            }
            _ => self.node_document_bytes += bytes,
        }
    }

    fn report(mut self, segments: &[Segment], log_bytes: u64, documents_bytes: u64) -> SpaceReport {
        for s in segments {
            let of_type = self.of(&s.entity_type);
            of_type.n_segments += 1;
            of_type.segment_rows += s.n_rows;
            of_type.segment_bytes += s.bytes;
        }
        let mut types: Vec<TypeSpace> = self.by_type.into_values().collect();
        types.sort_by_key(|t| std::cmp::Reverse(t.document_bytes + t.segment_bytes));
        types.truncate(TYPES_MAX);
        let history_bytes = segments.iter().map(|s| s.bytes).sum();
        SpaceReport { types, node_document_bytes: self.node_document_bytes, log_bytes, documents_bytes, history_bytes }
    }
}

/// Bytes of all files in a folder and below; what cannot be read counts nothing.
fn bytes_in(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let of = |e: fs::DirEntry| match e.metadata() {
        Ok(m) if m.is_dir() => bytes_in(&e.path()),
        Ok(m) => bytes_of(&m),
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

/// What a file takes; a file that was made long before it is filled takes less than its length.
#[cfg(unix)]
fn bytes_of(file: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(file) * 512
}

#[cfg(not(unix))]
fn bytes_of(file: &fs::Metadata) -> u64 {
    file.len()
}
