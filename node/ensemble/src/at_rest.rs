//! A member's volume while no server runs on it.
//!
//! Owns what can be done with one: to see what it holds, and to let the ensemble go on from it alone. Must not know who
//! asks, nor how a server is started afterwards.
//!
//! Invariant: nothing is changed before everything that could speak against it was checked, and what is changed is one
//! group of the log: a crash leaves the volume as it was or as it was to be.

use crate::config::{ServerError, Tuning};
use crate::datadir::Volume;
use crate::hello::Id128;
use crate::state_store::open_rocks;
use pharos_log::WalConfig;
use pharos_log::file::FileDisk;
use pharos_paxos::MemberId;
use pharos_replica::{Boot, GenerationError, Holdings, NewGeneration};
use std::path::Path;

/// A volume that this process has for itself, read.
#[derive(Debug)]
pub struct AtRest {
    volume: Volume,
    disk: FileDisk,
    config: WalConfig,
    boot: Boot,
}

impl AtRest {
    /// Reads a member's volume. The log is made fit to be written, as by any start.
    ///
    /// # Errors
    /// When the directory is not a member's, is in use, or cannot be read.
    pub fn open(dir: &Path) -> Result<Self, ServerError> {
        let volume = Volume::open_member(dir)?;
        let config = Tuning::default().log(volume.id());
        let mut disk = volume.log_disk()?;
        let (_, boot) = volume.read(config, &mut disk, open_rocks)?;
        Ok(Self { volume, disk, config, boot })
    }

    /// The member whose volume it is.
    #[must_use]
    pub fn member(&self) -> MemberId {
        self.volume.home().expect("it was read as a member's").member
    }

    /// Its ensemble.
    #[must_use]
    pub fn cluster(&self) -> Id128 {
        Id128(self.volume.home().expect("it was read as a member's").cluster)
    }

    /// The last transaction of the state that the store holds.
    #[must_use]
    pub fn zxid(&self) -> i64 {
        self.boot.state.zxid().0
    }

    /// What it holds.
    ///
    /// # Errors
    /// When that makes no member.
    pub fn holdings(&self) -> Result<Holdings, ServerError> {
        Holdings::of(&self.boot).map_err(|source| self.volume.generation_error(source))
    }

    /// Lets the ensemble go on from this volume, without all others, in this generation or else in the next one. Gives
    /// the generation.
    ///
    /// # Errors
    /// When the volume holds nothing to go on from, or has gone on in that generation or a later one.
    pub fn begin_generation(&mut self, generation: Option<u32>) -> Result<u32, ServerError> {
        let holdings = self.holdings()?;
        let survivor = holdings.registry.member(self.member()).cloned();
        let removed = GenerationError::Removed(self.member());
        let survivor = survivor.ok_or_else(|| self.volume.generation_error(removed))?;
        let generation = generation.unwrap_or(holdings.founding.generation + 1);
        let begun = NewGeneration { generation, survivor };
        self.volume.begin_generation(&begun, &mut self.boot, self.config, &mut self.disk)?;
        Ok(generation)
    }
}
