//! Blobs in a folder of a disk.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use host::Disk;

use super::{Blobs, Bytes};

/// What a file is called until it is complete.
const TEMPORARY: &str = ".tmp";

/// Files in one folder, which nobody else writes to.
pub struct DiskBlobs {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl DiskBlobs {
    /// A folder to be looked at and not changed.
    pub(crate) fn look_at(disk: Arc<dyn Disk>, dir: &Path) -> Self {
        Self { disk, dir: dir.to_owned() }
    }

    /// Opens a folder, which need not exist, and removes what interrupted writes have left there.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> io::Result<Self> {
        for name in disk.list(dir)? {
            if name.ends_with(TEMPORARY) {
                disk.remove(&dir.join(name))?;
            }
        }
        Ok(Self { disk, dir: dir.to_owned() })
    }
}

impl Blobs for DiskBlobs {
    fn place(&self) -> String {
        self.dir.display().to_string()
    }

    fn put(&self, name: &str, bytes: Bytes) -> io::Result<()> {
        let temporary = self.dir.join(format!("{name}{TEMPORARY}"));
        let write = || {
            // Left by a write that failed, if at all.
            let _ = self.disk.remove(&temporary);
            let mut file = self.disk.open_append(&temporary)?;
            file.append(&bytes)?;
            file.sync()?;
            self.disk.rename(&temporary, &self.dir.join(name))
        };
        write().inspect_err(|_| {
            // A full disk needs the room; what cannot be removed now is removed when the folder is opened next.
            let _ = self.disk.remove(&temporary);
        })
    }

    fn get(&self, name: &str, range: Range<u64>) -> io::Result<Bytes> {
        self.disk.read_range(&self.dir.join(name), range).map(Bytes::from)
    }

    fn size(&self, name: &str) -> io::Result<u64> {
        self.disk.size(&self.dir.join(name))
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        match self.disk.remove(&self.dir.join(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = self.disk.list(&self.dir)?;
        names.retain(|name| !name.ends_with(TEMPORARY));
        names.sort();
        Ok(names)
    }
}
