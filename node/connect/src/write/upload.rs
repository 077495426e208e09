//! An output in an object store.
//!
//! Owns: the upload in parts and the tail that is too short to be one.
//! Must not know: formats.
//! Invariant: an upload becomes visible as a whole by one request. Its id, its parts and the tail
//! are what a checkpoint keeps; parts uploaded after it are uploaded again under the same numbers. The
//! bytes of a part depend on those of the output alone, not on how they came: a worker that was given
//! up and still uploads puts what its successor puts. Every upload that has a part is noted before (`begun.rs`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pharos_stream::io::{AttemptId, ConnectError};
use serde::{Deserialize, Serialize};

use super::begun::Begun;
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
    /// The run; earlier builds did not keep it.
    #[serde(default)]
    run: Option<String>,
}

/// An object in the making.
pub(super) struct ObjectShard {
    begun: Begun,
    generation: u64,
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
    /// A new object, or one that was prepared. Uploads that earlier attempts began, and that one does not go on
    /// with, are given up.
    ///
    /// # Errors
    /// If what was prepared is damaged, or the store does not answer.
    pub(super) fn open(
        bucket: Bucket,
        key: String,
        attempt: AttemptId<'_>,
        prepared: Option<&PreparedUpload>,
    ) -> Result<Self, ConnectError> {
        let begun = Begun::of(bucket, key, attempt.run);
        let upload = prepared.and_then(|prepared| prepared.upload.clone());
        begun.give_up_before(attempt.generation, upload.as_deref())?;
        Ok(Self {
            begun,
            generation: attempt.generation,
            upload,
            parts: prepared.map(|prepared| prepared.parts.clone()).unwrap_or_default(),
            uploaded: prepared.map_or(0, |prepared| prepared.uploaded),
            tail: prepared.map(|prepared| decode(&prepared.tail)).transpose()?.unwrap_or_default(),
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
                None => self.begun.start(self.generation)?,
            };
            self.upload = Some(upload.clone());
            let rest = self.tail.split_off(size);
            let part = std::mem::replace(&mut self.tail, rest);
            self.uploaded += part.len() as u64;
            self.parts.push(self.begun.put_part(&upload, self.parts.len(), part)?);
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
            run: Some(self.begun.run().to_owned()),
        }
    }
}

/// Makes the object visible, and gives up all else that the run has begun to upload there.
///
/// # Errors
/// If a request fails.
pub(super) fn commit(bucket: &Bucket, key: &str, prepared: &PreparedUpload) -> Result<(), ConnectError> {
    finish(bucket, key, prepared)?;
    // No attempt of the run has anything to write any more.
    prepared
        .run
        .iter()
        .try_for_each(|run| Begun::of(bucket.clone(), key.to_owned(), run).finish(prepared.upload.as_deref()))
}

fn finish(bucket: &Bucket, key: &str, prepared: &PreparedUpload) -> Result<(), ConnectError> {
    let tail = decode(&prepared.tail)?;
    let Some(upload) = &prepared.upload else { return bucket.put(key, tail) };
    let size = prepared.uploaded + tail.len() as u64;
    let mut parts = prepared.parts.clone();
    if !tail.is_empty() {
        match bucket.put_part(key, upload, parts.len(), tail)? {
            Some(part) => parts.push(part),
            // It may be finished already.
            None if bucket.size(key).is_ok_and(|found| found == size) => return Ok(()),
            None => return Err(bucket.upload_gone(key)),
        }
    }
    bucket.finish_upload(key, upload, &parts, size)
}
