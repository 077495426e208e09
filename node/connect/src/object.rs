//! Buckets of an object store.
//!
//! Owns: the client and the threads that its requests run on; how errors read, and whose fault they are.
//! Must not know: formats, checkpoints.
//! Invariant: calls block the caller until the request is done; nothing of the caller runs on the
//! client's threads.
//!
//! The client is set up as AWS' own tools are: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
//! `AWS_REGION` and, for other servers that speak S3, `AWS_ENDPOINT`; an `http://` endpoint is
//! taken as it is. It tries again by itself, for half a minute and ever more slowly, when the server does not answer or
//! answers with 5xx; who waits for longer is to know why.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    BackoffConfig, Error, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    RetryConfig,
};
use pharos_stream::io::{ConnectError, Fault, Version};
use tokio::runtime::Runtime;

use crate::read::UNCHANGED;

/// What is in an error if the store refuses the credentials. Not every request of the client has a kind of error for
/// it, and of credentials that have expired S3 says so with the status 400.
const REFUSED: [&str; 5] =
    ["status code: 401", "status code: 403", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"];

/// So long a request is tried again before its failure is told.
const PATIENCE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A bucket.
#[derive(Clone)]
pub struct Bucket {
    name: Arc<str>,
    store: Arc<AmazonS3>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Bucket").field(&self.name).finish()
    }
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("pharos-objects")
            .enable_all()
            .build()
            .expect("the system gives a thread")
    })
}

/// Waits for a request, from whatever thread: also from one that another runtime owns.
fn wait<T: Send + 'static>(request: impl Future<Output = T> + Send + 'static) -> T {
    let (sender, answer) = std::sync::mpsc::sync_channel(1);
    runtime().spawn(async move {
        // Nobody waits any more only if the process is about to end.
        let _ = sender.send(request.await);
    });
    answer.recv().expect("the request's task does not panic")
}

/// Keys are taken as they are listed; what cannot be a key as it is, is encoded.
fn path_of(key: &str) -> Path {
    Path::parse(key).unwrap_or_else(|_| Path::from(key))
}

/// Whether what was not found is the upload.
fn is_gone(error: &Error) -> bool {
    matches!(error, Error::NotFound { .. }) && !error.to_string().contains("NoSuchBucket")
}

impl Bucket {
    /// The bucket of that name, set up from the environment.
    ///
    /// # Errors
    /// If the environment does not suffice.
    pub fn open(name: &str) -> Result<Self, ConnectError> {
        static OPEN: OnceLock<Mutex<BTreeMap<String, Bucket>>> = OnceLock::new();
        let mut open = OPEN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = open.get(name) {
            return Ok(bucket.clone());
        }
        // Another part of the process may have chosen the provider already; then that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(name);
        let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
            .iter()
            .find_map(|variable| std::env::var(variable).ok());
        if let Some(endpoint) = endpoint {
            builder = builder.with_allow_http(endpoint.starts_with("http://")).with_endpoint(endpoint);
        }
        let bucket = Self::built(name, builder)?;
        open.insert(name.to_owned(), bucket.clone());
        Ok(bucket)
    }

    fn built(name: &str, builder: AmazonS3Builder) -> Result<Self, ConnectError> {
        // Objects are deleted one at a time, and not every server has the other request for it.
        let retry = RetryConfig {
            backoff: BackoffConfig { max_backoff: LONGEST_PAUSE, ..BackoffConfig::default() },
            // The time is the bound, not the number: ten of them, as is usual, may be over after two seconds.
            max_retries: 10_000,
            retry_timeout: PATIENCE,
        };
        let store = builder
            .with_disable_bulk_delete(true)
            .with_retry(retry)
            .build()
            .map_err(|error| ConnectError::user(format!("`s3://{name}`: {error}")))?;
        Ok(Self { name: Arc::from(name), store: Arc::new(store) })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn failed(&self, key: &str, error: Error) -> ConnectError {
        let url = format!("s3://{}/{key}", self.name);
        let said = error.to_string();
        match error {
            _ if said.contains("NoSuchBucket") => {
                ConnectError::user(format!("`{url}`: there is no bucket `{}`", self.name))
            }
            Error::NotFound { .. } => ConnectError::user(format!("`{url}`: there is no such object")),
            Error::Precondition { .. } => {
                ConnectError::user(format!("`{url}` has been replaced: {UNCHANGED}"))
            }
            _ if REFUSED.iter().any(|code| said.contains(code)) => self.denied(&url, &said),
            _ => ConnectError::environment(format!("`{url}`: {said}")),
        }
    }

    /// An upload in parts is gone. An attempt that is over meets this when the next one has tidied up, so trying
    /// again tells.
    #[must_use]
    pub fn upload_gone(&self, key: &str) -> ConnectError {
        ConnectError::environment(format!(
            "`s3://{}/{key}`: the upload in parts that was under way is gone; if it stays so, a rule of the bucket may \
             have ended it: begin a new run",
            self.name
        ))
    }

    fn denied(&self, url: &str, said: &str) -> ConnectError {
        let message = format!(
            "`{url}`: the store refuses the credentials: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and \
             AWS_SESSION_TOKEN, whether they have expired, and what they permit in bucket `{}`: {said}",
            self.name
        );
        ConnectError { fault: Fault::Denied, message }
    }

    /// The keys below a prefix, in order.
    ///
    /// # Errors
    /// If the request fails.
    pub fn list(&self, prefix: &str) -> Result<Vec<String>, ConnectError> {
        let (store, path) = (Arc::clone(&self.store), path_of(prefix));
        let listed = wait(async move { store.list(Some(&path)).try_collect::<Vec<_>>().await });
        let listed = listed.map_err(|error| self.failed(prefix, error))?;
        let mut keys: Vec<String> = listed.into_iter().map(|meta| meta.location.to_string()).collect();
        keys.sort();
        Ok(keys)
    }

    /// The size of an object, and its ETag.
    ///
    /// # Errors
    /// If there is none, or the request fails.
    pub fn version(&self, key: &str) -> Result<Version, ConnectError> {
        let (store, path) = (Arc::clone(&self.store), path_of(key));
        let meta = wait(async move { store.head(&path).await }).map_err(|error| self.failed(key, error))?;
        // A weak tag matches nothing when a request demands it.
        let tag = meta.e_tag.filter(|tag| !tag.starts_with("W/"));
        Ok(Version { bytes: Some(meta.size), tag })
    }

    /// The size of an object.
    ///
    /// # Errors
    /// If there is none, or the request fails.
    pub fn size(&self, key: &str) -> Result<u64, ConnectError> {
        self.version(key).map(|version| version.bytes.unwrap_or_default())
    }

    /// Bytes of an object that has this ETag.
    ///
    /// # Errors
    /// If there is none, it has been replaced, or the request fails.
    pub fn read(&self, key: &str, range: Range<u64>, tag: Option<String>) -> Result<Bytes, ConnectError> {
        let (store, path) = (Arc::clone(&self.store), path_of(key));
        let options = GetOptions { range: Some(range.into()), if_match: tag, ..GetOptions::default() };
        let read = wait(async move { store.get_opts(&path, options).await?.bytes().await });
        read.map_err(|error| self.failed(key, error))
    }

    /// All of an object, if there is one.
    ///
    /// # Errors
    /// If the request fails.
    pub fn get(&self, key: &str) -> Result<Option<Bytes>, ConnectError> {
        let (store, path) = (Arc::clone(&self.store), path_of(key));
        let got = wait(async move { store.get(&path).await?.bytes().await });
        match got {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(key, error)),
        }
    }

    /// A part of an object, if there is one; less where it ends before.
    ///
    /// # Errors
    /// If the request fails.
    pub fn part(&self, key: &str, range: Range<u64>) -> Result<Option<Bytes>, ConnectError> {
        let (store, path) = (Arc::clone(&self.store), path_of(key));
        match wait(async move { store.get_range(&path, range).await }) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(key, error)),
        }
    }

    /// Writes an object, whole.
    ///
    /// # Errors
    /// If the request fails.
    pub fn put(&self, key: &str, bytes: Vec<u8>) -> Result<(), ConnectError> {
        let (store, path) = (Arc::clone(&self.store), path_of(key));
        let put = wait(async move { store.put(&path, PutPayload::from(bytes)).await });
        put.map(drop).map_err(|error| self.failed(key, error))
    }

    /// Writes an object if there is none, and says whether it did.
    ///
    /// # Errors
    /// If the request fails.
    pub fn create(&self, key: &str, bytes: Vec<u8>) -> Result<bool, ConnectError> {
        let (store, path) = (Arc::clone(&self.store), path_of(key));
        let options = PutOptions::from(PutMode::Create);
        match wait(async move { store.put_opts(&path, PutPayload::from(bytes), options).await }) {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(self.failed(key, error)),
        }
    }

    /// Deletes an object; that there is none is no error.
    ///
    /// # Errors
    /// If the request fails.
    pub fn delete(&self, key: &str) -> Result<(), ConnectError> {
        let (store, path) = (Arc::clone(&self.store), path_of(key));
        match wait(async move { store.delete(&path).await }) {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(key, error)),
        }
    }

    /// Starts an upload in parts and names it.
    ///
    /// # Errors
    /// If the request fails.
    pub fn start_upload(&self, key: &str) -> Result<String, ConnectError> {
        let (store, path) = (Arc::clone(&self.store), path_of(key));
        wait(async move { store.create_multipart(&path).await }).map_err(|error| self.failed(key, error))
    }

    /// Gives an upload up, with the parts it has; that there is none is no error.
    ///
    /// # Errors
    /// If the request fails.
    pub fn abort_upload(&self, key: &str, upload: &str) -> Result<(), ConnectError> {
        let (store, path, id) = (Arc::clone(&self.store), path_of(key), upload.to_owned());
        match wait(async move { store.abort_multipart(&path, &id).await }) {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(key, error)),
        }
    }

    /// Uploads a part and names it; none if the upload is gone.
    ///
    /// # Errors
    /// If the request fails.
    pub fn put_part(
        &self,
        key: &str,
        upload: &str,
        part: usize,
        bytes: Vec<u8>,
    ) -> Result<Option<String>, ConnectError> {
        let (store, path, id) = (Arc::clone(&self.store), path_of(key), upload.to_owned());
        match wait(async move { store.put_part(&path, &id, part, PutPayload::from(bytes)).await }) {
            Ok(part) => Ok(Some(part.content_id)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(self.failed(key, error)),
        }
    }

    /// Makes an upload visible. If it is gone because it is visible already, with `size` bytes, that
    /// is no error.
    ///
    /// # Errors
    /// If the request fails.
    pub fn finish_upload(
        &self,
        key: &str,
        upload: &str,
        parts: &[String],
        size: u64,
    ) -> Result<(), ConnectError> {
        let (store, path, id) = (Arc::clone(&self.store), path_of(key), upload.to_owned());
        let parts: Vec<PartId> = parts.iter().map(|part| PartId { content_id: part.clone() }).collect();
        match wait(async move { store.complete_multipart(&path, &id, parts).await }) {
            Ok(_) => Ok(()),
            Err(error) if is_gone(&error) => {
                if self.size(key).is_ok_and(|found| found == size) {
                    Ok(())
                } else {
                    Err(self.upload_gone(key))
                }
            }
            Err(error) => Err(self.failed(key, error)),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
