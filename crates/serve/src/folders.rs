//! Folders with nodes in them: the one of the city, and below it those of tenants and snapshots.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use node::Node;

/// Opens the node of a folder, making the folder if there is none; an error says why not.
pub type OpenNode = Arc<dyn Fn(&Path) -> Result<Node, String> + Send + Sync>;

/// A folder with a node, and how nodes in folders below it are opened.
#[derive(Clone)]
pub struct Folder {
    dir: PathBuf,
    open: OpenNode,
}

impl Folder {
    /// A folder whose own node is open.
    #[must_use]
    pub const fn new(dir: PathBuf, open: OpenNode) -> Self {
        Self { dir, open }
    }

    /// A folder below it.
    pub(crate) fn below(&self, name: &str) -> Self {
        Self { dir: self.dir.join(name), open: Arc::clone(&self.open) }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    /// Opens its node; blocks the thread.
    pub(crate) fn open(&self) -> Result<Node, String> {
        (self.open)(&self.dir)
    }

    /// The names of the folders in it; none if there is no such folder.
    pub(crate) fn names(&self) -> std::io::Result<Vec<String>> {
        let mut names = Vec::new();
        match std::fs::read_dir(&self.dir) {
            Ok(entries) => {
                for entry in entries {
                    names.push(entry?.file_name().to_string_lossy().into_owned());
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        names.sort();
        Ok(names)
    }
}
