//! Where sealed parts of logs are: a folder, or a bucket that speaks S3.
//!
//! Names are `BUILD/ATTEMPT-CHANCE/OFFSET-CHANCE.zst`, so no object is ever written twice, a log's are found
//! by their beginning, and their order is that of the log. On a folder an object is on the disk, file and name,
//! before a row names it; a bucket promises the same when it answers.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientConfigKey, ObjectStore, ObjectStoreExt, RetryConfig};

use super::segment::Packing;
use crate::builds::log::LogId;
use crate::clock;
use crate::pipeline::use_ring;

/// How long one request to a bucket may take. An append waits for it, and its sender for the append.
const REQUEST_TIMEOUT: &str = "20s";
/// How long a request is tried again for.
const RETRY_TIMEOUT: Duration = Duration::from_secs(30);
/// Digits of an offset in a name, so that names are in order.
const OFFSET_DIGITS: usize = 14;
/// Hexadecimal digits of chance in a name.
const CHANCE_DIGITS: usize = 16;
/// What is said of an answer that is no S3's, characters.
const SAID_CHARS_MAX: usize = 500;

/// An object store.
#[derive(Clone, Debug)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    name: Arc<str>,
    /// Where it is a folder.
    folder: Option<Arc<FilePath>>,
    /// A disk takes bytes sooner than they can be made fewer; on the way to a bucket each counts.
    packing: Packing,
}

impl Objects {
    /// A folder, made where it is not there, for this user alone.
    ///
    /// # Errors
    /// In words, when it cannot be made.
    pub fn folder(path: &FilePath) -> Result<Self, String> {
        let said = |error: &dyn std::fmt::Display| format!("the folder of logs, {}: {error}", path.display());
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| said(&error))?;
        let store = LocalFileSystem::new_with_prefix(path).map_err(|error| said(&error))?;
        let store = store.with_fsync(true).with_automatic_cleanup(true);
        let (name, folder) = (path.to_string_lossy().into(), Some(path.into()));
        Ok(Self { store: Arc::new(store), name, folder, packing: Packing::Loose })
    }

    /// By URL: `file:///FOLDER`, or `s3://BUCKET/PREFIX` with keys, region and endpoint from the variables
    /// that AWS's own programs read (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`,
    /// `AWS_REGION`, `AWS_ENDPOINT_URL`, ...). An endpoint without TLS is refused unless `AWS_ALLOW_HTTP` is
    /// `true`.
    ///
    /// # Errors
    /// In words, what is wrong with it. The bucket is not asked.
    pub fn by_url(url: &str) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix("file://") {
            if !path.starts_with('/') {
                return Err(format!("{url:?} names no folder: expected file:///FOLDER"));
            }
            return Self::folder(FilePath::new(path));
        }
        let Some(place) = url.strip_prefix("s3://") else {
            return Err(format!("{url:?} is no place for logs: expected file:///FOLDER or s3://BUCKET/PREFIX"));
        };
        Self::bucket(url, place, AmazonS3Builder::from_env())
    }

    pub(super) fn bucket(url: &str, place: &str, builder: AmazonS3Builder) -> Result<Self, String> {
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.is_empty() {
            return Err(format!("{url:?} names no bucket: expected s3://BUCKET/PREFIX"));
        }
        let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint).unwrap_or_default();
        let http_allowed = builder.get_config_value(&AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp));
        if endpoint.starts_with("http://") && http_allowed.as_deref() != Some("true") {
            return Err(format!(
                "{url}: the endpoint {endpoint} has no TLS; set AWS_ALLOW_HTTP=true if logs may pass in the clear"
            ));
        }
        use_ring();
        let retry = RetryConfig { max_retries: 5, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() };
        let timeout = AmazonS3ConfigKey::Client(ClientConfigKey::Timeout);
        let builder = builder.with_bucket_name(bucket).with_config(timeout, REQUEST_TIMEOUT);
        let store = builder.with_retry(retry).build().map_err(|error| format!("{url}: {error}"))?;
        let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|error| format!("{url}: {error}"))?;
        let store = Arc::new(PrefixStore::new(store, prefix));
        Ok(Self { store, name: url.into(), folder: None, packing: Packing::Tight })
    }

    /// Any store, for tests, as if it were a folder.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn of(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, name: "a store of a test".into(), folder: None, packing: Packing::Loose }
    }

    /// What people call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How small an object is to be that an append waits for.
    pub(super) const fn packing(&self) -> Packing {
        self.packing
    }

    /// A folder for a log that nobody had before.
    pub(super) fn new_folder(id: LogId) -> Arc<str> {
        format!("{}/{}-{}", id.build.0, id.attempt, chance()).into()
    }

    /// A name for a segment that nobody had before.
    pub(super) fn new_name(folder: &str, offset: u64) -> Arc<str> {
        format!("{folder}/{offset:0OFFSET_DIGITS$}-{}.zst", chance()).into()
    }

    /// Whether it is there at all: the folder, or the bucket with these keys.
    ///
    /// # Errors
    /// Why nothing can be read from it now, whatever is asked for.
    pub(super) async fn ask(&self) -> object_store::Result<()> {
        if let Some(folder) = &self.folder {
            // One that is gone is listed as an empty one.
            let gone = |error: std::io::Error| object_store::Error::Generic { store: "folder", source: error.into() };
            return tokio::fs::read_dir(folder).await.map(drop).map_err(gone);
        }
        self.store.list(None).next().await.transpose().map(drop)
    }

    /// Stores an object; it is there for good when this answers.
    pub(super) async fn put(&self, name: &str, object: Vec<u8>) -> object_store::Result<()> {
        self.store.put(&Path::from(name), object.into()).await.map(drop)
    }

    pub(super) async fn get(&self, name: &str) -> object_store::Result<Bytes> {
        self.store.get(&Path::from(name)).await?.bytes().await
    }

    /// Deletes objects; one that is not there is as well.
    pub(super) async fn delete(&self, names: Vec<Path>) -> object_store::Result<()> {
        let names = futures_util::stream::iter(names.into_iter().map(Ok)).boxed();
        let mut deleted = self.store.delete_stream(names);
        let mut failed = Ok(());
        while let Some(answer) = deleted.next().await {
            match answer {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => failed = Err(error),
            }
        }
        failed
    }

    /// The names of all objects of a log.
    pub(super) async fn of_folder(&self, folder: &str) -> object_store::Result<Vec<Path>> {
        let found = self.store.list(Some(&Path::from(folder)));
        found.map_ok(|object| object.location).try_collect().await
    }
}

/// What went wrong, in one line: S3's own code and words where it has answered with them, and what was asked.
pub(super) fn said(error: &object_store::Error) -> String {
    let text = error.to_string();
    let part = |from: &str, to: &str| text.rsplit_once(from)?.1.split_once(to).map(|(part, _)| part);
    match (part("<Code>", "</Code>"), part("<Message>", "</Message>"), part("Error performing ", " in ")) {
        (Some(code), Some(message), Some(asked)) => format!("{code}: {message} ({asked})"),
        _ => text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SAID_CHARS_MAX).collect(),
    }
}

fn chance() -> String {
    let mut chance = clock::random_secret();
    chance.truncate(CHANCE_DIGITS);
    chance
}
