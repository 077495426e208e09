//! Whose a place for checkpoints is.
//!
//! Owns: the record `owner.json` at a location, version 1.
//! Must not know: what a checkpoint holds.
//! Invariant: of two Pipelines that are given one location, the first one keeps it, and the other one is told
//! whose it is.
//!
//! A Pipeline that was deleted and made anew is another one with the same names: the location is its own, and it
//! begins anew there.

use serde::{Deserialize, Serialize};

use super::{BlobError, Blobs};
use crate::io::Fault;

/// The name of the record.
const NAME: &str = "owner.json";
/// The version that this build writes and reads.
const VERSION: u32 = 1;

/// A Pipeline, as the owner of a location.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    version: u32,
    uid: String,
    namespace: String,
    name: String,
}

/// Why a location cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnerError {
    /// It is another Pipeline's.
    #[error(
        "checkpoint location `{location}` is that of Pipeline {namespace}/{name}: give this one a location of its \
         own; if that Pipeline is gone for good, delete `{NAME}` there"
    )]
    Taken {
        /// The location.
        location: String,
        /// The namespace of its owner.
        namespace: String,
        /// The name of its owner.
        name: String,
    },
    /// Its record cannot be read.
    #[error("checkpoint location `{location}`: `{NAME}` {what}")]
    Unreadable {
        /// The location.
        location: String,
        /// Why.
        what: String,
    },
    /// The store does not do as asked.
    #[error(transparent)]
    Store(#[from] BlobError),
}

impl OwnerError {
    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Taken { .. } | Self::Unreadable { .. } => Fault::User,
            Self::Store(source) => source.fault,
        }
    }
}

impl Owner {
    /// The Pipeline of that UID and name.
    #[must_use]
    pub fn new(uid: &str, namespace: &str, name: &str) -> Self {
        Self { version: VERSION, uid: uid.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// Takes a location that is nobody's; it may be its own already.
    ///
    /// # Errors
    /// If it is another Pipeline's, or the store does not do as asked.
    pub fn claim(&self, blobs: &dyn Blobs, location: &str) -> Result<(), OwnerError> {
        let ours = serde_json::to_vec(self).expect("plain data becomes JSON");
        if blobs.create(NAME, &ours)? {
            return Ok(());
        }
        let unreadable = |what: String| OwnerError::Unreadable { location: location.to_owned(), what };
        let gone =
            || BlobError { fault: Fault::Environment, message: format!("`{location}/{NAME}` came and went") };
        let bytes = blobs.get(NAME)?.ok_or_else(gone)?;
        let owner: Self =
            serde_json::from_slice(&bytes).map_err(|error| unreadable(format!("cannot be read: {error}")))?;
        if owner.version != VERSION {
            return Err(unreadable(format!("has version {}, this build reads {VERSION}", owner.version)));
        }
        let Self { namespace, name, .. } = &owner;
        if (namespace, name) != (&self.namespace, &self.name) {
            let (namespace, name) = (namespace.clone(), name.clone());
            return Err(OwnerError::Taken { location: location.to_owned(), namespace, name });
        }
        if owner.uid != self.uid {
            blobs.put(NAME, &ours)?;
        }
        Ok(())
    }
}
