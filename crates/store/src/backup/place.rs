//! Where backups lie: a folder, or a bucket of an S3-compatible object store.

use std::fs;
use std::io;
use std::path::PathBuf;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};

/// A place for objects by name (levels divided by `/`). An object is there as a whole or not at all.
pub struct Place {
    shown: String,
    kind: Kind,
}

enum Kind {
    Folder(PathBuf),
    Bucket { store: AmazonS3, prefix: Key, runtime: tokio::runtime::Runtime },
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
    /// A file cannot be read or written.
    #[error("cannot {action} `{path}`")]
    Io {
        /// `read`, `write`, ...
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The object store refuses.
    #[error("cannot {action} `{name}` in `{place}`")]
    Object {
        /// `read`, `write`, ...
        action: &'static str,
        /// Which object.
        name: String,
        /// Where.
        place: String,
        /// Why.
        #[source]
        source: Box<object_store::Error>,
    },
}

impl Place {
    /// A folder (made if missing), or `s3://bucket/prefix` with the usual variables of the environment: `AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, and `AWS_ENDPOINT` (with `AWS_ALLOW_HTTP=true`) for stores that are not Amazon's.
    pub fn open(address: &str) -> Result<Self, PlaceError> {
        let shown = address.to_owned();
        let wrong = |hint: &str| PlaceError::Address { found: address.to_owned(), hint: hint.to_owned() };
        if let Some(rest) = address.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(wrong(" (the bucket is missing)"));
            }
            let failed = |e: &dyn std::error::Error| wrong(&format!(" ({})", host::chain(e)));
            let store = AmazonS3Builder::from_env().with_bucket_name(bucket).build().map_err(|e| failed(&e))?;
            let prefix = Key::parse(prefix.trim_end_matches('/')).map_err(|e| failed(&e))?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| failed(&e))?;
            return Ok(Self { shown, kind: Kind::Bucket { store, prefix, runtime } });
        }
        if address.is_empty() || address.contains("://") {
            return Err(wrong(""));
        }
        let dir = PathBuf::from(address);
        fs::create_dir_all(&dir).map_err(|source| PlaceError::Io { action: "make folder", path: dir.clone(), source })?;
        Ok(Self { shown, kind: Kind::Folder(dir) })
    }

    /// As it was given.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    fn failed(&self, action: &'static str, name: &str) -> impl FnOnce(object_store::Error) -> PlaceError {
        let (name, place) = (name.to_owned(), self.shown.clone());
        move |source| PlaceError::Object { action, name, place, source: Box::new(source) }
    }

    /// Writes an object, replacing one of the same name; durable when it returns.
    pub fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), PlaceError> {
        match &self.kind {
            Kind::Folder(dir) => {
                let path = dir.join(name);
                put_file(&path, &bytes).map_err(|source| PlaceError::Io { action: "write", path, source })
            }
            Kind::Bucket { store, prefix, runtime } => {
                let key = key(prefix, name);
                runtime.block_on(store.put(&key, bytes.into())).map(|_| ()).map_err(self.failed("write", name))
            }
        }
    }

    /// Reads an object.
    pub fn get(&self, name: &str) -> Result<Vec<u8>, PlaceError> {
        match &self.kind {
            Kind::Folder(dir) => {
                let path = dir.join(name);
                fs::read(&path).map_err(|source| PlaceError::Io { action: "read", path, source })
            }
            Kind::Bucket { store, prefix, runtime } => {
                let key = key(prefix, name);
                let get = async { store.get(&key).await?.bytes().await };
                runtime.block_on(get).map(|b| b.to_vec()).map_err(self.failed("read", name))
            }
        }
    }

    /// How large an object is; none if there is none.
    pub fn size(&self, name: &str) -> Result<Option<u64>, PlaceError> {
        match &self.kind {
            Kind::Folder(dir) => match fs::metadata(dir.join(name)) {
                Ok(m) => Ok(Some(m.len())),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(PlaceError::Io { action: "look at", path: dir.join(name), source }),
            },
            Kind::Bucket { store, prefix, runtime } => match runtime.block_on(store.head(&key(prefix, name))) {
                Ok(meta) => Ok(Some(meta.size)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(e) => Err(self.failed("look at", name)(e)),
            },
        }
    }

    /// The names of the objects directly in a level, sorted.
    pub fn list(&self, level: &str) -> Result<Vec<String>, PlaceError> {
        let mut names = match &self.kind {
            Kind::Folder(dir) => {
                list_folder(&dir.join(level)).map_err(|source| PlaceError::Io { action: "list", path: dir.join(level), source })?
            }
            Kind::Bucket { store, prefix, runtime } => {
                let listed = runtime.block_on(store.list_with_delimiter(Some(&key(prefix, level)))).map_err(self.failed("list", level))?;
                listed.objects.iter().filter_map(|o| o.location.filename().map(str::to_owned)).collect()
            }
        };
        names.sort();
        Ok(names.into_iter().map(|n| format!("{level}/{n}")).collect())
    }
}

fn key(prefix: &Key, name: &str) -> Key {
    name.split('/').fold(prefix.clone(), |key, level| key.join(level))
}

fn list_folder(dir: &std::path::Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.ends_with(".tmp") {
            names.push(name);
        }
    }
    Ok(names)
}

fn put_file(path: &std::path::Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or_else(|| std::path::Path::new("."));
    fs::create_dir_all(dir)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let new = path.with_file_name(name);
    fs::write(&new, bytes)?;
    fs::File::open(&new)?.sync_all()?;
    fs::rename(&new, path)?;
    fs::File::open(dir)?.sync_all()
}
