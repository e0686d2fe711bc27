//! Documents as one file per checkpoint, through [`host::Disk`]: for stores that fit into memory, and for simulation.
//!
//! ```text
//! <number>.docs = "CONURBDS" version:u32 manifest_bytes:u32 manifest n:u64 (space:u8 id_bytes:u32 id bytes:u32 document)* crc32c:u32
//! ```
//!
//! A checkpoint writes a new file under a temporary name, syncs it, gives it its name and removes the one before: at every moment the newest
//! file is complete. Everything is in memory too, so reading a document costs no I/O, and writing a checkpoint costs as much as there is.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use entity::{Entity, Iri};
use host::Disk;

use super::Space;
use super::documents::{Changed, Document, Documents, DocumentsError, Manifest, VisitBytes, decode_manifest};

const MAGIC: &[u8; 8] = b"CONURBDS";
const VERSION: u32 = 1;
const TEMPORARY: &str = "next.tmp";

/// Documents in one file of a disk, real or simulated.
pub struct DiskDocuments {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Number of the newest file; 0 if there is none.
    number: u64,
    manifest: Manifest,
    documents: BTreeMap<(Space, Iri), Arc<[u8]>>,
}

impl DiskDocuments {
    /// Opens the documents in a folder, which nobody else uses; makes it with the first checkpoint if it is missing.
    ///
    /// Errors: the newest file cannot be read, or is damaged.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self, DocumentsError> {
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| DocumentsError::Io { action, path, source }
        };
        let names = disk.list(dir).map_err(failed("list", dir))?;
        let number = names.iter().filter_map(|n| n.strip_suffix(".docs")?.parse().ok()).max().unwrap_or(0);
        let mut kept = Kept::default();
        if number > 0 {
            let path = dir.join(file_name(number));
            let bytes = disk.read(&path).map_err(failed("read", &path))?;
            let damaged = |reason: &str| DocumentsError::Damaged { key: path.display().to_string(), source: reason.into() };
            kept = parse(&bytes).map_err(|e| match e {
                Unread::Damaged(reason) => damaged(reason),
                Unread::Documents(e) => e,
            })?;
            kept.number = number;
        }
        // What an interrupted checkpoint left: a file that is older, or not complete.
        for name in names.iter().filter(|n| **n != file_name(number)) {
            let path = dir.join(name);
            disk.remove(&path).map_err(failed("remove", &path))?;
        }
        Ok(Self { disk, dir: dir.to_owned(), kept: Mutex::new(kept) })
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, number: u64, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.dir.join(TEMPORARY);
        // Left by a checkpoint that failed, if at all.
        let _ = self.disk.remove(&temporary);
        let write = || {
            let mut file = self.disk.open_append(&temporary)?;
            file.append(bytes)?;
            file.sync()?;
            self.disk.rename(&temporary, &self.dir.join(file_name(number)))
        };
        write().inspect_err(|_| {
            let _ = self.disk.remove(&temporary);
        })
    }
}

fn file_name(number: u64) -> String {
    format!("{number:020}.docs")
}

enum Unread {
    Damaged(&'static str),
    Documents(DocumentsError),
}

fn parse(bytes: &[u8]) -> Result<Kept, Unread> {
    let cut = || Unread::Damaged("it is cut");
    let (body, crc) = bytes.split_at_checked(bytes.len().saturating_sub(4)).ok_or_else(cut)?;
    if crc.len() != 4 || crc32c::crc32c(body).to_le_bytes() != crc {
        return Err(Unread::Damaged("its checksum does not match"));
    }
    let mut input = body.strip_prefix(MAGIC).ok_or(Unread::Damaged("it does not start with the header of documents"))?;
    let version = take_u32(&mut input).ok_or_else(cut)?;
    if version > VERSION {
        return Err(Unread::Documents(DocumentsError::Newer { found: version }));
    }
    let mut kept =
        Kept { manifest: decode_manifest(take_sized(&mut input).ok_or_else(cut)?).map_err(Unread::Documents)?, ..Kept::default() };
    let n = take(&mut input, 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes).ok_or_else(cut)?;
    for _ in 0..n {
        let space = match take(&mut input, 1).ok_or_else(cut)? {
            [0] => Space::City,
            _ => Space::Node,
        };
        let id = std::str::from_utf8(take_sized(&mut input).ok_or_else(cut)?).ok().and_then(|id| id.parse().ok());
        let id = id.ok_or(Unread::Damaged("an id in it is none"))?;
        kept.documents.insert((space, id), take_sized(&mut input).ok_or_else(cut)?.into());
    }
    Ok(kept)
}

fn take<'a>(input: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(n)?;
    *input = rest;
    Some(taken)
}

fn take_u32(input: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(take(input, 4)?.try_into().ok()?))
}

fn take_sized<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let n = take_u32(input)? as usize;
    take(input, n)
}

fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn build(manifest: &Manifest, documents: &BTreeMap<(Space, Iri), Arc<[u8]>>) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    put_sized(&mut out, &serde_json::to_vec(manifest).expect("a manifest is JSON"));
    out.extend_from_slice(&(documents.len() as u64).to_le_bytes());
    for ((space, id), bytes) in documents {
        out.push(u8::from(*space == Space::Node));
        put_sized(&mut out, id.as_str().as_bytes());
        put_sized(&mut out, bytes);
    }
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

impl Documents for DiskDocuments {
    fn manifest(&self) -> Result<Manifest, DocumentsError> {
        Ok(self.lock().manifest.clone())
    }

    fn get(&self, space: Space, id: &str) -> Result<Option<Entity>, DocumentsError> {
        let Ok(key) = id.parse::<Iri>() else { return Ok(None) };
        let found = self.lock().documents.get(&(space, key)).cloned();
        found.map(|bytes| Document::Packed(bytes).entity(id).map(Arc::unwrap_or_clone)).transpose()
    }

    fn scan_bytes(&self, space: Space, visit: &mut VisitBytes<'_>) -> Result<(), DocumentsError> {
        let all: Vec<_> =
            self.lock().documents.iter().filter(|((s, _), _)| *s == space).map(|((_, id), b)| (id.clone(), Arc::clone(b))).collect();
        all.into_iter().try_for_each(|(id, bytes)| visit(id.as_str().as_bytes(), &bytes))
    }

    fn checkpoint(&self, changed: &mut dyn Iterator<Item = Changed>, manifest: &Manifest) -> Result<(), DocumentsError> {
        let mut kept = self.lock();
        let mut documents = kept.documents.clone();
        for (space, id, document) in changed {
            match document {
                Some(Document::Whole(e)) => documents.insert((space, id), Document::pack(&e).into()),
                Some(Document::Packed(bytes)) => documents.insert((space, id), bytes),
                None => documents.remove(&(space, id)),
            };
        }
        let number = kept.number + 1;
        let path = self.dir.join(file_name(number));
        let bytes = build(manifest, &documents);
        self.write(number, &bytes).map_err(|source| DocumentsError::Io { action: "write", path, source })?;
        let old = std::mem::replace(&mut *kept, Kept { number, manifest: manifest.clone(), documents });
        if old.number > 0 {
            // What stays is removed when the folder is opened next.
            let _ = self.disk.remove(&self.dir.join(file_name(old.number)));
        }
        Ok(())
    }
}
