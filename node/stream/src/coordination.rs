//! Who leads a run, which checkpoint counts, and whether it is done.
//!
//! Owns: the interface to the Ensemble, an implementation over the ZooKeeper protocol and one in
//! memory; the paths of the znodes.
//! Must not know: what a checkpoint holds.
//! Invariant: of two processes that both believe they lead a run, only the one that took over last
//! can publish or complete: the generation is checked in the same transaction.

mod memory;
mod zookeeper;

use serde::{Deserialize, Serialize};

pub use memory::MemoryCoordination;
pub use zookeeper::ZooKeeperCoordination;

/// The version of pointers and completion notes that this build writes and reads.
const VERSION: u32 = 1;

/// Why a step of coordination did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CoordinationError {
    /// Another process has taken over.
    #[error("another process has taken over the run")]
    Fenced,
    /// The Ensemble holds something that this build cannot read.
    #[error("znode `{path}`: {what}")]
    Unreadable {
        /// Which.
        path: String,
        /// Why.
        what: String,
    },
    /// The Ensemble does not answer, or refuses.
    #[error("ensemble: {0}")]
    Ensemble(String),
}

/// What `latest` says: less than 1 KiB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// The version of this record.
    pub version: u32,
    /// The checkpoint's number.
    pub epoch: u64,
    /// The generation that wrote it.
    pub generation: u64,
    /// The blob with its manifest.
    pub manifest: String,
    /// The manifest's CRC-32C.
    pub crc: u32,
}

impl Pointer {
    /// A pointer of this version.
    #[must_use]
    pub fn new(epoch: u64, generation: u64, manifest: String, crc: u32) -> Self {
        Self { version: VERSION, epoch, generation, manifest, crc }
    }

    fn parse(path: &str, bytes: &[u8]) -> Result<Self, CoordinationError> {
        let unreadable = |what: String| CoordinationError::Unreadable { path: path.to_owned(), what };
        let pointer: Self = serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
        if pointer.version != VERSION {
            return Err(unreadable(format!("version {}, this build reads {VERSION}", pointer.version)));
        }
        Ok(pointer)
    }
}

/// What a process found when it took over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenure {
    /// Its generation, higher than that of all before.
    pub generation: u64,
    /// The checkpoint that counts.
    pub latest: Option<Pointer>,
    /// Whether the run is done.
    pub completed: bool,
}

/// The Ensemble, as one run sees it. Calls block.
pub trait Coordination: Send {
    /// Takes the run over from whoever led it, and reads what counts.
    ///
    /// # Errors
    /// If the Ensemble does not answer or holds what cannot be read.
    fn take_over(&mut self) -> Result<Tenure, CoordinationError>;

    /// Makes a checkpoint the one that counts. An unclear answer is settled before this returns.
    ///
    /// # Errors
    /// If another process has taken over, or the Ensemble does not answer.
    fn publish(&mut self, pointer: &Pointer) -> Result<(), CoordinationError>;

    /// Notes that the run is done.
    ///
    /// # Errors
    /// If another process has taken over, or the Ensemble does not answer.
    fn complete(&mut self) -> Result<(), CoordinationError>;
}

/// The znodes of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    run: String,
}

impl Paths {
    /// The znodes of the run `run_id` of the document with the hash `document`, submitted by the
    /// pipeline `uid`, below `root`.
    #[must_use]
    pub fn new(root: &str, uid: &str, document: &str, run_id: i64) -> Self {
        Self { run: format!("{root}/{uid}/{document}-{run_id}") }
    }

    /// The run's own znode, parent of the others.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Its version is the generation; its data says who took over last.
    #[must_use]
    pub fn generation(&self) -> String {
        format!("{}/generation", self.run)
    }

    /// Holds a [`Pointer`].
    #[must_use]
    pub fn latest(&self) -> String {
        format!("{}/latest", self.run)
    }

    /// Is there once the run is done.
    #[must_use]
    pub fn completed(&self) -> String {
        format!("{}/completed", self.run)
    }
}
