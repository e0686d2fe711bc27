//! Blobs in an object store.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, PutPayload};
use tokio::runtime::{Builder, Runtime};

use super::{Blobs, Bytes};

/// How long one request may take, its repetitions not counted.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// What the round trip to an object store is worth in bytes.
const GAP_BYTES: u64 = 256 << 10;

/// Objects below one prefix of an object store. A thread of its own does the waiting.
pub struct ObjectBlobs {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// There until it is dropped.
    runtime: Option<Runtime>,
}

/// How an S3-compatible store is reached.
#[derive(Clone)]
pub struct S3Options {
    /// The bucket, which exists.
    pub bucket: String,
    /// What the names of all objects begin with, such as `city/history`; may be empty.
    pub prefix: String,
    /// The region; `us-east-1` for most stores that are not Amazon's.
    pub region: String,
    /// The URL of a store that is not Amazon's.
    pub endpoint: Option<String>,
    /// Is `http://` good enough? For a store on the same machine or network.
    pub allow_http: bool,
    /// Who asks.
    pub access_key_id: String,
    /// The secret of the one who asks.
    pub secret_access_key: String,
}

impl fmt::Debug for S3Options {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bucket, prefix, region, endpoint, .. } = self;
        f.debug_struct("S3Options")
            .field("bucket", bucket)
            .field("prefix", prefix)
            .field("region", region)
            .field("endpoint", endpoint)
            .finish_non_exhaustive()
    }
}

impl ObjectBlobs {
    /// Objects below `prefix` of any store. A store that keeps local files does not sync them: for a folder take [`super::DiskBlobs`].
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &str) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("blobs").enable_all().build()?;
        let prefix = Path::parse(prefix).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        Ok(Self { store, prefix, runtime: Some(runtime) })
    }

    /// Objects in an S3-compatible store. Nothing is asked of it yet.
    pub fn s3(options: &S3Options) -> io::Result<Self> {
        let client = ClientOptions::new().with_timeout(REQUEST_TIMEOUT).with_allow_http(options.allow_http);
        let mut builder = AmazonS3Builder::new()
            .with_client_options(client)
            .with_bucket_name(&options.bucket)
            .with_region(&options.region)
            .with_access_key_id(&options.access_key_id)
            .with_secret_access_key(&options.secret_access_key);
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        let store = builder.build().map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        Self::new(Arc::new(store), &options.prefix)
    }

    fn path(&self, name: &str) -> Path {
        self.prefix.clone().join(name)
    }

    /// Runs a request on the thread that waits, and waits for it.
    fn wait<T: Send + 'static>(&self, request: impl Future<Output = object_store::Result<T>> + Send + 'static) -> io::Result<T> {
        let runtime = self.runtime.as_ref().expect("the runtime is there until this is dropped");
        let (sender, receiver) = sync_channel(1);
        runtime.spawn(async move {
            // The one who asked waits for it.
            let _ = sender.send(request.await);
        });
        let answer = receiver.recv().map_err(|_| io::Error::other("the request was given up"))?;
        answer.map_err(|e| match e {
            object_store::Error::NotFound { .. } => io::Error::new(io::ErrorKind::NotFound, e),
            other => io::Error::other(other),
        })
    }
}

impl Drop for ObjectBlobs {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting for it is not allowed where other futures run.
            runtime.shutdown_background();
        }
    }
}

impl Blobs for ObjectBlobs {
    fn place(&self) -> String {
        format!("{}/{}", self.store, self.prefix)
    }

    fn put(&self, name: &str, bytes: Bytes) -> io::Result<()> {
        let (store, path) = (Arc::clone(&self.store), self.path(name));
        self.wait(async move { store.put(&path, PutPayload::from(bytes)).await }).map(|_| ())
    }

    fn get(&self, name: &str, range: Range<u64>) -> io::Result<Bytes> {
        let n_bytes = range.end.saturating_sub(range.start);
        if n_bytes == 0 {
            // Stores refuse to read nothing.
            return if range.end <= self.size(name)? { Ok(Bytes::new()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        let (store, path, wanted) = (Arc::clone(&self.store), self.path(name), range.clone());
        let bytes = match self.wait(async move { store.get_range(&path, wanted).await }) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(e),
            // Each store has its own words for a range behind the end.
            Err(e) if self.size(name)? < range.end => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, e)),
            Err(e) => return Err(e),
        };
        if bytes.len() as u64 == n_bytes { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn size(&self, name: &str) -> io::Result<u64> {
        let (store, path) = (Arc::clone(&self.store), self.path(name));
        self.wait(async move { store.head(&path).await }).map(|meta| meta.size)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let (store, path) = (Arc::clone(&self.store), self.path(name));
        match self.wait(async move { store.delete(&path).await }) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let (store, prefix) = (Arc::clone(&self.store), self.prefix.clone());
        let objects = self.wait(async move { store.list(Some(&prefix)).try_collect::<Vec<_>>().await })?;
        let name = |path: &Path| {
            let mut parts = path.prefix_match(&self.prefix)?;
            let first = parts.next()?.as_ref().to_owned();
            // Below a folder of the same prefix are other people's objects.
            parts.next().is_none().then_some(first)
        };
        let mut names: Vec<String> = objects.iter().filter_map(|o| name(&o.location)).collect();
        names.sort();
        Ok(names)
    }

    fn gap_bytes(&self) -> u64 {
        GAP_BYTES
    }
}
