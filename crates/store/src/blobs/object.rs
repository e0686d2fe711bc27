//! Blobs in an object store.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use object_store::ObjectStore;

use super::bucket::{Bucket, S3Options};
use super::{Blobs, Bytes};

/// What the round trip to an object store is worth in bytes.
const GAP_BYTES: u64 = 256 << 10;
/// Requests that one who wants many small things makes at once.
const PARALLEL: usize = 16;
/// The object that says to which store the others belong. It is not listed.
const OWNER: &str = "conurb-store-id";

/// Objects below one prefix of an object store. A thread of its own does the waiting.
pub struct ObjectBlobs(Bucket);

impl ObjectBlobs {
    /// Objects below `prefix` of any store. A store that keeps local files does not sync them: for a folder take [`super::DiskBlobs`].
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> io::Result<Self> {
        let shown = format!("{store}/{prefix}");
        Bucket::new(store, prefix, shown).map(Self)
    }

    /// Objects in an S3-compatible store. Nothing is asked of it yet.
    pub fn s3(options: &S3Options) -> io::Result<Self> {
        Bucket::s3(options).map(Self)
    }

    /// What `s3://bucket/prefix` names, reached as the usual variables of the environment say: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
    /// `AWS_REGION`, and for stores that are not Amazon's `AWS_ENDPOINT`, with `AWS_ALLOW_HTTP=true` if it speaks no TLS.
    pub fn s3_at(address: &str) -> io::Result<Self> {
        Bucket::s3_at(address).map(Self)
    }
}

impl Blobs for ObjectBlobs {
    fn place(&self) -> String {
        self.0.shown().to_owned()
    }

    fn put(&self, name: &str, bytes: Bytes) -> io::Result<()> {
        self.0.put(name, bytes)
    }

    fn get(&self, name: &str, range: Range<u64>) -> io::Result<Bytes> {
        self.0.get(name, range)
    }

    fn size(&self, name: &str) -> io::Result<u64> {
        self.0.size(name)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        self.0.delete(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.list_sizes()?.into_iter().map(|(name, _)| name).collect())
    }

    fn list_sizes(&self) -> io::Result<Vec<(String, u64)>> {
        let mut found = self.0.walk("")?;
        // Below a folder of the same prefix are other people's objects.
        found.retain(|(name, _)| !name.contains('/') && name != OWNER);
        Ok(found)
    }

    fn claim(&self, id: &str) -> io::Result<()> {
        for _ in 0..2 {
            match self.0.get_all(OWNER) {
                Ok(found) if found.as_ref() == id.as_bytes() => return Ok(()),
                Ok(found) => {
                    let found = String::from_utf8_lossy(&found).into_owned();
                    return Err(io::Error::new(
                        io::ErrorKind::AlreadyExists,
                        format!("it belongs to another store ({found}): choose another place"),
                    ));
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => match self.0.create(OWNER, Bytes::copy_from_slice(id.as_bytes())) {
                    // Somebody was faster: who?
                    Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                    other => return other,
                },
                Err(e) => return Err(e),
            }
        }
        Err(io::Error::other("another store claims it at the same moment"))
    }

    fn gap_bytes(&self) -> u64 {
        GAP_BYTES
    }

    fn parallel(&self) -> usize {
        PARALLEL
    }
}
