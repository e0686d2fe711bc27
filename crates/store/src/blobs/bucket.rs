//! The one way to an object store, for the history's files and for backups: limits, repetitions and time-outs are here.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, ObjectStoreExt, PutMode, PutPayload, RetryConfig};
use tokio::runtime::{Builder, Runtime};

use super::Bytes;

/// How long one request may take, its repetitions not counted. A request carries at most [`REQUEST_BYTES_MAX`].
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A request that failed in a way that may pass is repeated so often ...
const RETRIES_MAX: usize = 6;
/// ... and not after this time since it was made first.
const RETRY_TIMEOUT: Duration = Duration::from_secs(120);
/// Larger objects are written and read in pieces of this size: a slow line has 60 s for each of them, and what fails is repeated alone.
const REQUEST_BYTES_MAX: usize = 8 << 20;

/// Objects below one prefix of an object store, by names with `/` between the levels. A thread of its own does the waiting: calls block, and
/// may be made from any thread that may wait, also from one that runs futures of another runtime.
pub(crate) struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// What messages call it.
    shown: String,
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

impl Bucket {
    /// Objects below `prefix` of any store.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, prefix: &str, shown: String) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("objects").enable_all().build()?;
        let prefix = Path::parse(prefix).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        Ok(Self { store, prefix, shown, runtime: Some(runtime) })
    }

    /// Objects in an S3-compatible store. Nothing is asked of it yet.
    pub(crate) fn s3(options: &S3Options) -> io::Result<Self> {
        let mut builder = AmazonS3Builder::new()
            .with_region(&options.region)
            .with_access_key_id(&options.access_key_id)
            .with_secret_access_key(&options.secret_access_key);
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        Self::built(builder.with_allow_http(options.allow_http), &options.bucket, &options.prefix)
    }

    /// What `s3://bucket/prefix` names, reached as the usual variables of the environment say: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
    /// `AWS_REGION`, and for stores that are not Amazon's `AWS_ENDPOINT`, with `AWS_ALLOW_HTTP=true` if it speaks no TLS.
    pub(crate) fn s3_at(address: &str) -> io::Result<Self> {
        let wrong = |what: &str| {
            let text = format!("expected `s3://bucket/prefix`, found `{address}`{what}");
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        };
        let Some(rest) = address.strip_prefix("s3://") else { return wrong("") };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return wrong(" (the bucket is missing)");
        }
        Self::built(AmazonS3Builder::from_env(), bucket, prefix)
    }

    fn built(builder: AmazonS3Builder, bucket: &str, prefix: &str) -> io::Result<Self> {
        let prefix = prefix.trim_end_matches('/');
        let seconds = |time: Duration| format!("{} seconds", time.as_secs());
        let retry = RetryConfig { max_retries: RETRIES_MAX, retry_timeout: RETRY_TIMEOUT, backoff: BackoffConfig::default() };
        let shown = match builder.get_config_value(&AmazonS3ConfigKey::Endpoint) {
            Some(endpoint) => format!("s3://{bucket}/{prefix} at {endpoint}"),
            None => format!("s3://{bucket}/{prefix}"),
        };
        let store = builder
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), seconds(REQUEST_TIMEOUT))
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ConnectTimeout), seconds(CONNECT_TIMEOUT))
            .with_retry(retry)
            .with_bucket_name(bucket)
            .build();
        let store = store.map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        Self::new(Arc::new(store), prefix, shown)
    }

    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').filter(|level| !level.is_empty()).fold(self.prefix.clone(), |path, level| path.join(level))
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
            object_store::Error::AlreadyExists { .. } => io::Error::new(io::ErrorKind::AlreadyExists, e),
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                io::Error::new(io::ErrorKind::PermissionDenied, e)
            }
            other => io::Error::other(other),
        })
    }

    /// Writes an object as a whole or not at all, replacing one of the same name.
    pub(crate) fn put(&self, name: &str, bytes: Bytes) -> io::Result<()> {
        let (store, path) = (Arc::clone(&self.store), self.path(name));
        self.wait(async move {
            if bytes.len() <= REQUEST_BYTES_MAX {
                return store.put(&path, PutPayload::from(bytes)).await.map(|_| ());
            }
            let mut upload = store.put_multipart(&path).await?;
            let mut send = async || {
                for from in (0..bytes.len()).step_by(REQUEST_BYTES_MAX) {
                    let to = bytes.len().min(from + REQUEST_BYTES_MAX);
                    upload.put_part(PutPayload::from(bytes.slice(from..to))).await?;
                }
                upload.complete().await
            };
            let sent = send().await;
            if sent.is_err() {
                // Parts that stay cost room until the store's own rules remove them; the first error is the one to tell.
                let _ = upload.abort().await;
            }
            sent.map(|_| ())
        })
    }

    /// Writes an object if there is none of the name. Errors: [`io::ErrorKind::AlreadyExists`].
    pub(crate) fn create(&self, name: &str, bytes: Bytes) -> io::Result<()> {
        let (store, path) = (Arc::clone(&self.store), self.path(name));
        self.wait(async move { store.put_opts(&path, PutPayload::from(bytes), PutMode::Create.into()).await }).map(|_| ())
    }

    /// A part of an object. Errors: [`io::ErrorKind::NotFound`]; [`io::ErrorKind::UnexpectedEof`] if it ends before the part does.
    pub(crate) fn get(&self, name: &str, range: Range<u64>) -> io::Result<Bytes> {
        let n_bytes = range.end.saturating_sub(range.start);
        if n_bytes == 0 {
            // Stores refuse to read nothing.
            return if range.end <= self.size(name)? { Ok(Bytes::new()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        let (store, path, wanted) = (Arc::clone(&self.store), self.path(name), range.clone());
        let bytes = match self.wait(async move { get_range(store.as_ref(), &path, wanted).await }) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(e),
            // Each store has its own words for a range behind the end.
            Err(e) if self.size(name)? < range.end => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, e)),
            Err(e) => return Err(e),
        };
        if bytes.len() as u64 == n_bytes { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// A whole object. Errors: [`io::ErrorKind::NotFound`].
    pub(crate) fn get_all(&self, name: &str) -> io::Result<Bytes> {
        let (store, path) = (Arc::clone(&self.store), self.path(name));
        self.wait(async move {
            let whole = store.get(&path).await?;
            let (size, end) = (whole.meta.size, whole.range.end);
            if size <= REQUEST_BYTES_MAX as u64 {
                return whole.bytes().await;
            }
            drop(whole);
            get_range(store.as_ref(), &path, 0..end).await
        })
    }

    /// Length of an object in bytes. Errors: [`io::ErrorKind::NotFound`].
    pub(crate) fn size(&self, name: &str) -> io::Result<u64> {
        let (store, path) = (Arc::clone(&self.store), self.path(name));
        self.wait(async move { store.head(&path).await }).map(|meta| meta.size)
    }

    /// Deletes an object. It is no error if there is none.
    pub(crate) fn delete(&self, name: &str) -> io::Result<()> {
        let (store, path) = (Arc::clone(&self.store), self.path(name));
        match self.wait(async move { store.delete(&path).await }) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// All objects below a level (an empty name for all of them), with their names below it and their sizes, sorted by name. One request for
    /// each thousand.
    pub(crate) fn walk(&self, level: &str) -> io::Result<Vec<(String, u64)>> {
        let (store, prefix) = (Arc::clone(&self.store), self.path(level));
        let below = prefix.clone();
        let objects = self.wait(async move { store.list(Some(&prefix)).try_collect::<Vec<_>>().await })?;
        let name = |path: &Path| {
            let parts: Vec<String> = path.prefix_match(&below)?.map(|part| part.as_ref().to_owned()).collect();
            (!parts.is_empty()).then(|| parts.join("/"))
        };
        let mut found: Vec<(String, u64)> = objects.iter().filter_map(|o| Some((name(&o.location)?, o.size))).collect();
        found.sort();
        Ok(found)
    }
}

/// Reads a range in pieces.
async fn get_range(store: &dyn ObjectStore, path: &Path, range: Range<u64>) -> object_store::Result<Bytes> {
    let piece = REQUEST_BYTES_MAX as u64;
    if range.end - range.start <= piece {
        return store.get_range(path, range).await;
    }
    let mut all = Vec::with_capacity(usize::try_from(range.end - range.start).unwrap_or_default());
    let mut from = range.start;
    while from < range.end {
        let to = range.end.min(from + piece);
        let bytes = store.get_range(path, from..to).await?;
        if bytes.is_empty() {
            break;
        }
        from += bytes.len() as u64;
        all.extend_from_slice(&bytes);
    }
    Ok(Bytes::from(all))
}

impl Drop for Bucket {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting for it is not allowed where other futures run.
            runtime.shutdown_background();
        }
    }
}
