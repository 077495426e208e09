//! Who works on a run and who leads it, which checkpoint counts, and whether it is done.
//!
//! Owns: the interface to the Ensemble, an implementation over the ZooKeeper protocol and one in
//! memory; the paths of the znodes.
//! Must not know: what a checkpoint holds.
//! Invariant: of two processes that both believe they lead a run, only the one that took over last
//! can publish or complete: the generation is checked in the same transaction.

mod memory;
mod roster;
pub(crate) mod zookeeper;

use serde::{Deserialize, Serialize};

pub use memory::MemoryCoordination;
pub use roster::ZooKeeperRoster;
pub use zookeeper::ZooKeeperCoordination;

use std::sync::Arc;

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

/// A worker as it is known to the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The version of this record.
    pub version: u32,
    /// The process: another one has another, also under the same name and address.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// Where it takes connections of other workers, `host:port`.
    pub address: String,
    /// How many threads it works with.
    pub threads: u32,
}

impl Member {
    /// A member of this version.
    #[must_use]
    pub fn new(id: String, name: String, address: String, threads: u32) -> Self {
        Self { version: VERSION, id, name, address, threads }
    }
}

/// What the Ensemble says of a run's workers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// Those that are there, in the order in which they came: the first one leads.
    pub members: Vec<Member>,
    /// Whether the run is done.
    pub completed: bool,
}

/// Hears of every change; called on a thread of the roster's own.
pub type Watcher = Arc<dyn Fn(View) + Send + Sync>;

/// The workers of a run, as the Ensemble knows them.
pub trait Roster: Send {
    /// Puts a worker on it for as long as it lives, and tells it of all changes from now on. While
    /// the Ensemble does not answer nothing is told; a worker that was dropped meanwhile is put on it anew.
    ///
    /// # Errors
    /// If the system refuses; that the Ensemble does not answer is no error.
    fn join(&mut self, me: &Member, watcher: Watcher) -> Result<(), CoordinationError>;

    /// Takes the worker off it.
    fn leave(&mut self);
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

    /// Parent of the ephemeral znodes of workers, each a [`Member`].
    #[must_use]
    pub fn workers(&self) -> String {
        format!("{}/workers", self.run)
    }

    /// Is there once the run is done.
    #[must_use]
    pub fn completed(&self) -> String {
        format!("{}/completed", self.run)
    }
}
