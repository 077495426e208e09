//! Uploads in parts that a run has begun.
//!
//! Owns: the notes by which what dead attempts began is found again, and given up.
//! Must not know: what is uploaded.
//! Invariant: an upload has parts only if there is a note of it, in a hidden place beside the output that carries the
//! run's name. An attempt gives up only what earlier ones began and the checkpoint it goes on from does not hold. No
//! checkpoint to come can hold that: each goes on with what the one before it held, or with what was begun later.
//!
//! S3 can list uploads, too, but by key alone: one of another Pipeline, or of a run that may yet go on, looks the same.

use pharos_stream::io::{ConnectError, Fault};
use serde::{Deserialize, Serialize};

use crate::object::Bucket;

/// A note, version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    version: u32,
    /// The upload's id.
    upload: String,
}

/// What a run has begun to upload to a key.
pub(super) struct Begun {
    bucket: Bucket,
    key: String,
    run: String,
}

impl Begun {
    /// What `run` has begun to upload to `key`.
    #[must_use]
    pub(super) fn of(bucket: Bucket, key: String, run: &str) -> Self {
        Self { bucket, key, run: run.to_owned() }
    }

    /// The run.
    #[must_use]
    pub(super) fn run(&self) -> &str {
        &self.run
    }

    /// Where its notes are: one for each attempt that began an upload.
    fn notes(&self) -> String {
        let (directory, name) = self.key.rsplit_once('/').map_or(("", self.key.as_str()), |parts| parts);
        let slash = if directory.is_empty() { "" } else { "/" };
        format!("{directory}{slash}.{name}.{}.uploads", self.run)
    }

    /// Begins an upload, notes it, and names it.
    ///
    /// # Errors
    /// If a request fails.
    pub(super) fn start(&self, generation: u64) -> Result<String, ConnectError> {
        let upload = self.bucket.start_upload(&self.key)?;
        let note = serde_json::to_vec(&Note { version: 1, upload: upload.clone() });
        let note = note.expect("plain data becomes JSON");
        self.bucket.put(&format!("{}/{generation}", self.notes()), note)?;
        Ok(upload)
    }

    /// Uploads a part and names it.
    ///
    /// # Errors
    /// If the request fails, or the upload is gone.
    pub(super) fn put_part(&self, upload: &str, part: usize, bytes: Vec<u8>) -> Result<String, ConnectError> {
        let put = self.bucket.put_part(&self.key, upload, part, bytes)?;
        put.ok_or_else(|| self.bucket.upload_gone(&self.key))
    }

    /// Gives up what attempts before `generation` began, but for the upload that this one goes on with.
    ///
    /// # Errors
    /// If the store does not answer. Credentials that do not permit it are no error: then what was begun stays.
    pub(super) fn give_up_before(&self, generation: u64, kept: Option<&str>) -> Result<(), ConnectError> {
        let earlier = |attempt: u64| attempt < generation;
        permitted(self.each(earlier, |note, upload| {
            if kept == Some(upload) {
                return Ok(());
            }
            self.bucket.abort_upload(&self.key, upload)?;
            self.bucket.delete(note)
        }))
    }

    /// Gives up all but the upload that has become visible, and removes all notes.
    ///
    /// # Errors
    /// As [`Begun::give_up_before`].
    pub(super) fn finish(&self, visible: Option<&str>) -> Result<(), ConnectError> {
        permitted(self.each(
            |_| true,
            |note, upload| {
                if visible != Some(upload) {
                    self.bucket.abort_upload(&self.key, upload)?;
                }
                self.bucket.delete(note)
            },
        ))
    }

    fn each(
        &self,
        wanted: impl Fn(u64) -> bool,
        act: impl Fn(&str, &str) -> Result<(), ConnectError>,
    ) -> Result<(), ConnectError> {
        for key in self.bucket.list(&self.notes())? {
            let attempt = key.rsplit('/').next().and_then(|name| name.parse().ok());
            if !attempt.is_some_and(&wanted) {
                continue;
            }
            let Some(bytes) = self.bucket.get(&key)? else { continue };
            // What a later build noted is for that one to deal with.
            match serde_json::from_slice::<Note>(&bytes) {
                Ok(note) if note.version == 1 => act(&key, &note.upload)?,
                _ => {}
            }
        }
        Ok(())
    }
}

fn permitted(done: Result<(), ConnectError>) -> Result<(), ConnectError> {
    match done {
        Err(error) if error.fault == Fault::Denied => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests;
