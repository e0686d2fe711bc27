//! Where backups lie: a folder, or a bucket of an S3-compatible object store.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::blobs::bucket::Bucket;
use crate::blobs::{Bytes, S3Options};

/// What a file is called until it is complete.
const TEMPORARY: &str = ".tmp";

/// A place for objects by name (levels divided by `/`). An object is there as a whole or not at all.
pub struct Place {
    shown: String,
    kind: Kind,
}

enum Kind {
    Folder(PathBuf),
    Bucket(Bucket),
}

/// Why a place cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The address is not understood.
    #[error("`{found}` is not a place for backups: expected a folder or `s3://bucket/prefix`{hint}")]
    Address {
        /// What was given.
        found: String,
        /// What may help.
        hint: String,
    },
    /// An object cannot be read or written.
    #[error("cannot {action} `{name}` in `{place}`")]
    Io {
        /// `read`, `write`, ...
        action: &'static str,
        /// Which object.
        name: String,
        /// Where.
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Place {
    /// A folder (made if missing), or `s3://bucket/prefix` with the usual variables of the environment: `AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, and `AWS_ENDPOINT` (with `AWS_ALLOW_HTTP=true`) for stores that are not Amazon's.
    pub fn open(address: &str) -> Result<Self, PlaceError> {
        let shown = address.to_owned();
        let wrong = |hint: String| PlaceError::Address { found: address.to_owned(), hint };
        if address.starts_with("s3://") {
            let bucket = Bucket::s3_at(address).map_err(|e| wrong(format!(" ({})", host::chain(&e))))?;
            return Ok(Self { shown, kind: Kind::Bucket(bucket) });
        }
        if address.is_empty() || address.contains("://") {
            return Err(wrong(String::new()));
        }
        let dir = PathBuf::from(address);
        fs::create_dir_all(&dir).map_err(|source| PlaceError::Io { action: "make", name: String::new(), place: shown.clone(), source })?;
        Ok(Self { shown, kind: Kind::Folder(dir) })
    }

    /// A place in an S3-compatible store. Nothing is asked of it yet.
    pub fn s3(options: &S3Options) -> Result<Self, PlaceError> {
        let shown = format!("s3://{}/{}", options.bucket, options.prefix);
        let bucket =
            Bucket::s3(options).map_err(|e| PlaceError::Address { found: shown.clone(), hint: format!(" ({})", host::chain(&e)) })?;
        Ok(Self { shown, kind: Kind::Bucket(bucket) })
    }

    /// As it was given.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    fn failed(&self, action: &'static str, name: &str) -> impl FnOnce(io::Error) -> PlaceError {
        let (name, place) = (name.to_owned(), self.shown.clone());
        move |source| PlaceError::Io { action, name, place, source }
    }

    /// Writes an object, replacing one of the same name; durable when it returns.
    pub fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), PlaceError> {
        let put = match &self.kind {
            Kind::Folder(dir) => put_file(&dir.join(name), &bytes),
            Kind::Bucket(bucket) => bucket.put(name, Bytes::from(bytes)),
        };
        put.map_err(self.failed("write", name))
    }

    /// Reads an object.
    pub fn get(&self, name: &str) -> Result<Vec<u8>, PlaceError> {
        let got = match &self.kind {
            Kind::Folder(dir) => fs::read(dir.join(name)),
            Kind::Bucket(bucket) => bucket.get_all(name).map(Vec::from),
        };
        got.map_err(self.failed("read", name))
    }

    /// How large an object is; none if there is none.
    pub fn size(&self, name: &str) -> Result<Option<u64>, PlaceError> {
        let size = match &self.kind {
            Kind::Folder(dir) => fs::metadata(dir.join(name)).map(|m| m.len()),
            Kind::Bucket(bucket) => bucket.size(name),
        };
        match size {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.failed("look at", name)(e)),
        }
    }

    /// Deletes an object. It is no error if there is none.
    pub fn delete(&self, name: &str) -> Result<(), PlaceError> {
        let deleted = match &self.kind {
            Kind::Folder(dir) => delete_file(dir, name),
            Kind::Bucket(bucket) => bucket.delete(name),
        };
        deleted.map_err(self.failed("delete", name))
    }

    /// All objects below a level and their sizes in bytes, by their whole names, sorted.
    pub fn walk(&self, level: &str) -> Result<Vec<(String, u64)>, PlaceError> {
        let found = match &self.kind {
            Kind::Folder(dir) => {
                let mut found = Vec::new();
                walk_folder(&dir.join(level), level, &mut found).map(|()| found)
            }
            Kind::Bucket(bucket) => {
                bucket.walk(level).map(|found| found.into_iter().map(|(name, bytes)| (format!("{level}/{name}"), bytes)).collect())
            }
        };
        let mut found = found.map_err(self.failed("list", level))?;
        found.sort();
        Ok(found)
    }

    /// The names of the objects directly in a level, sorted.
    pub fn list(&self, level: &str) -> Result<Vec<String>, PlaceError> {
        let is_direct = |name: &String| name.strip_prefix(level).and_then(|n| n.strip_prefix('/')).is_some_and(|n| !n.contains('/'));
        Ok(self.walk(level)?.into_iter().map(|(name, _)| name).filter(is_direct).collect())
    }
}

fn walk_folder(dir: &Path, level: &str, found: &mut Vec<(String, u64)>) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let name = format!("{level}/{}", entry.file_name().to_string_lossy());
        let about = match entry.metadata() {
            // Removed meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        if about.is_dir() {
            walk_folder(&entry.path(), &name, found)?;
        } else if !name.ends_with(TEMPORARY) {
            found.push((name, about.len()));
        }
    }
    Ok(())
}

fn put_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(dir)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(TEMPORARY);
    let new = path.with_file_name(name);
    let write = || {
        fs::write(&new, bytes)?;
        fs::File::open(&new)?.sync_all()?;
        fs::rename(&new, path)?;
        fs::File::open(dir)?.sync_all()
    };
    write().inspect_err(|_| {
        // A full disk needs the room.
        let _ = fs::remove_file(&new);
    })
}

fn delete_file(dir: &Path, name: &str) -> io::Result<()> {
    let path = dir.join(name);
    match fs::remove_file(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    let mut above = path.parent();
    // The folder of a backup goes with its last file; one that is not empty refuses.
    while let Some(folder) = above.filter(|f| *f != dir && fs::remove_dir(f).is_ok()) {
        above = folder.parent();
    }
    Ok(())
}
