//! An output in an object store.
//!
//! Owns: the upload in parts and the tail that is too short to be one.
//! Must not know: formats.
//! Invariant: an upload becomes visible as a whole by one request. Its id, its parts and the tail
//! are what a checkpoint keeps; parts uploaded after it are uploaded again under the same numbers. The
//! bytes of a part depend on those of the output alone, not on how they came: a worker that was given
//! up and still uploads puts what its successor puts. One of another document may put another part; the store
//! then refuses to complete the upload, for the parts are named by their tags.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pharos_stream::io::{ConnectError, Fault};
use serde::{Deserialize, Serialize};

use crate::object::Bucket;

/// The least size of a part but the last.
const PART: usize = 5 << 20;

/// An object that is not visible yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PreparedUpload {
    /// The upload, once it has a part.
    upload: Option<String>,
    /// Its parts.
    parts: Vec<String>,
    /// How many bytes they hold.
    uploaded: u64,
    /// The bytes after them, in base64.
    tail: String,
}

/// An object in the making.
pub(super) struct ObjectShard {
    bucket: Bucket,
    key: String,
    upload: Option<String>,
    parts: Vec<String>,
    uploaded: u64,
    tail: Vec<u8>,
}

fn decode(tail: &str) -> Result<Vec<u8>, ConnectError> {
    STANDARD
        .decode(tail)
        .map_err(|error| ConnectError::environment(format!("what the checkpoint kept of a sink: {error}")))
}

impl ObjectShard {
    /// A new object, or one that was prepared.
    ///
    /// # Errors
    /// If what was prepared is damaged.
    pub(super) fn open(
        bucket: Bucket,
        key: String,
        prepared: Option<&PreparedUpload>,
    ) -> Result<Self, ConnectError> {
        let Some(prepared) = prepared else {
            return Ok(Self { bucket, key, upload: None, parts: Vec::new(), uploaded: 0, tail: Vec::new() });
        };
        Ok(Self {
            bucket,
            key,
            upload: prepared.upload.clone(),
            parts: prepared.parts.clone(),
            uploaded: prepared.uploaded,
            tail: decode(&prepared.tail)?,
        })
    }

    /// Takes bytes.
    ///
    /// # Errors
    /// If a part cannot be uploaded.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), ConnectError> {
        self.tail.extend_from_slice(bytes);
        loop {
            // An upload has 10,000 parts at most: they grow, so that these hold 310 GB.
            let size = PART << (self.parts.len() / 2000);
            if self.tail.len() < size {
                return Ok(());
            }
            let upload = match &self.upload {
                Some(upload) => upload.clone(),
                None => self.bucket.start_upload(&self.key)?,
            };
            self.upload = Some(upload.clone());
            let rest = self.tail.split_off(size);
            let part = std::mem::replace(&mut self.tail, rest);
            self.uploaded += part.len() as u64;
            self.parts.push(self.bucket.put_part(&self.key, &upload, self.parts.len(), part)?);
        }
    }

    /// How far the object is.
    #[must_use]
    pub(super) fn prepare(&self) -> PreparedUpload {
        PreparedUpload {
            upload: self.upload.clone(),
            parts: self.parts.clone(),
            uploaded: self.uploaded,
            tail: STANDARD.encode(&self.tail),
        }
    }
}

/// Makes the object visible.
///
/// # Errors
/// If a request fails.
pub(super) fn commit(bucket: &Bucket, key: &str, prepared: &PreparedUpload) -> Result<(), ConnectError> {
    let tail = decode(&prepared.tail)?;
    let Some(upload) = &prepared.upload else { return bucket.put(key, tail) };
    let size = prepared.uploaded + tail.len() as u64;
    let mut parts = prepared.parts.clone();
    if !tail.is_empty() {
        match bucket.put_part(key, upload, parts.len(), tail) {
            Ok(part) => parts.push(part),
            // An upload that is gone may be finished already.
            Err(error) if error.fault == Fault::User && bucket.size(key).is_ok_and(|found| found == size) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    bucket.finish_upload(key, upload, &parts, size)
}
