//! Checkpoints: what is kept, where, and who may say that it counts.
//!
//! Owns: the formats of state files and manifests, the coordinator, the store's interface, whose a store is.
//! Must not know: how tasks work.
//! Invariant: what `latest` points to is complete and durable.

pub(crate) mod collector;
pub(crate) mod coordinator;
pub(crate) mod keeper;
pub(crate) mod manifest;
mod owner;
pub(crate) mod part;

use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use owner::{Owner, OwnerError};

use crate::io::{ConnectError, Fault};

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BlobError {
    /// Whose fault.
    pub fault: Fault,
    /// What happened, naming the blob.
    pub message: String,
}

impl From<ConnectError> for BlobError {
    fn from(ConnectError { fault, message }: ConnectError) -> Self {
        Self { fault, message }
    }
}

/// How large a checkpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CheckpointSize {
    /// The bytes that were written for it: what had not changed since the one before was not.
    pub written: u64,
    /// The bytes that it consists of, also those that earlier ones wrote.
    pub whole: u64,
}

/// A store of named blobs: a directory, or a prefix of a bucket.
pub trait Blobs: Send + Sync {
    /// Keeps a blob, whole and durable.
    ///
    /// # Errors
    /// If it cannot be kept.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), BlobError>;

    /// Keeps a blob if there is none of that name, and says whether it did.
    ///
    /// # Errors
    /// If it cannot be kept.
    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, BlobError>;

    /// The blob of that name, if there is one.
    ///
    /// # Errors
    /// If it cannot be read.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, BlobError>;

    /// A part of the blob of that name, if there is one; less where it ends before.
    ///
    /// # Errors
    /// If it cannot be read.
    fn range(&self, name: &str, range: Range<u64>) -> Result<Option<Bytes>, BlobError>;

    /// The names of all blobs.
    ///
    /// # Errors
    /// If they cannot be listed.
    fn list(&self) -> Result<Vec<String>, BlobError>;

    /// Deletes a blob; that there is none is no error.
    ///
    /// # Errors
    /// If it cannot be deleted.
    fn delete(&self, name: &str) -> Result<(), BlobError>;
}
