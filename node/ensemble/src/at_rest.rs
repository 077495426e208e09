//! A member's volume while no server runs on it.
//!
//! Owns what can be done with one: to see what it holds, to let the ensemble go on from it alone, and to put a backup on
//! a blank one. Must not know who asks, where a backup comes from, nor how a server is started afterwards.
//!
//! Invariant: nothing is changed before everything that could speak against it was checked, and what is changed is one
//! group of the log: a crash leaves the volume as it was or as it was to be. A blank volume stays blank until all of a
//! backup is on it, durably.

use crate::backup::{BackupError, BackupManifest};
use crate::config::{ServerError, Tuning};
use crate::datadir::{Reading, Volume};
use crate::hello::Id128;
use crate::permit::{HexId, PermitFounder};
use crate::state_store::{StateStore, open_rocks};
use bytes::Bytes;
use pharos_log::file::FileDisk;
use pharos_log::{Salvage, WalConfig};
use pharos_paxos::{MemberId, Slot};
use pharos_replica::{Boot, GenerationError, Holdings, Member, NewGeneration, Stored, installed_row};
use pharos_znode::State;
use serde::Serialize;
use std::path::Path;

/// A volume that this process has for itself, read.
#[derive(Debug)]
pub struct AtRest {
    volume: Volume,
    disk: FileDisk,
    config: WalConfig,
    boot: Boot,
    /// Its log is damaged, and this is what can be read of it.
    salvage: Option<Salvage>,
}

impl AtRest {
    /// Reads a member's volume. The log is made fit to be written, as by any start; unless it is damaged: then nothing
    /// changes, and what it holds is what can be read.
    ///
    /// # Errors
    /// When the directory is not a member's, is in use, or cannot be read.
    pub fn open(dir: &Path) -> Result<Self, ServerError> {
        let volume = Volume::open_member(dir)?;
        let config = Tuning::default().log(volume.id());
        let mut disk = volume.log_disk()?;
        let (boot, salvage) = match volume.read(config, &mut disk, open_rocks, 0)? {
            Reading::Member(_, boot) => (*boot, None),
            Reading::Damaged(damage) => {
                let (boot, salvage) = volume.salvage(&damage, config, &disk, open_rocks)?;
                (boot, Some(salvage))
            }
        };
        Ok(Self { volume, disk, config, boot, salvage })
    }

    /// What is wrong with its log: what follows can not be read, and may have been acknowledged.
    #[must_use]
    pub fn damage(&self) -> Option<String> {
        self.salvage.as_ref().map(|salvage| salvage.damage.to_string())
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
        let survivor = holdings.member(self.member()).cloned();
        let removed = GenerationError::Removed(self.member());
        let survivor = survivor.ok_or_else(|| self.volume.generation_error(removed))?;
        let generation = generation.unwrap_or(holdings.founding.generation.saturating_add(1));
        let begun = NewGeneration { generation, survivor };
        match &self.salvage {
            None => self.volume.begin_generation(&begun, &mut self.boot, self.config, &mut self.disk)?,
            Some(salvage) => {
                self.volume.begin_generation_without(&begun, (&self.boot, salvage), self.config)?;
            }
        }
        Ok(generation)
    }
}

/// As what a backup goes on.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The generation; none: the one after the backup's.
    pub generation: Option<u32>,
    /// Where peers will dial the member.
    pub host: String,
    /// Where peers will dial the member.
    pub peer_port: u16,
    /// Where clients will.
    pub client_port: u16,
}

/// What became of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// The ensemble.
    pub cluster_id: HexId,
    /// The generation that begins.
    pub generation: u32,
    /// The only member.
    pub member: PermitFounder,
    /// The last transaction in the backup.
    pub zxid: i64,
    /// The znodes in it.
    pub znodes: usize,
}

impl Restore {
    /// What an earlier call made of the directory, if it came to its end with this backup: whoever was killed before it
    /// could tell asks again.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn done(&self, dir: &Path, manifest: &BackupManifest) -> Result<Option<Restored>, ServerError> {
        let home = Volume::open(dir)?.home();
        let ours = (manifest.cluster_id.0.0, u64::from(self.begins(manifest.generation)));
        if home.is_none_or(|home| (home.cluster, home.generation) != ours) {
            return Ok(None);
        }
        let AtRest { volume, boot, .. } = AtRest::open(dir)?;
        let member = volume.home().expect("it was read as a member's").member;
        Ok(Some(self.outcome(&volume, manifest, member, &boot.state)))
    }

    /// The generation that begins after that of a backup.
    fn begins(&self, before: u32) -> u32 {
        self.generation.unwrap_or(before.saturating_add(1))
    }

    fn outcome(&self, volume: &Volume, manifest: &BackupManifest, id: MemberId, state: &State) -> Restored {
        let Self { host, peer_port, client_port, .. } = self.clone();
        let (member_id, volume) = (id.0, HexId(volume.id()));
        Restored {
            cluster_id: manifest.cluster_id,
            generation: self.begins(manifest.generation),
            member: PermitFounder { member_id, volume, host, peer_port, client_port },
            zxid: state.zxid().0,
            znodes: state.node_count(),
        }
    }

    /// Puts a backup on a blank volume, which is then the only member of an ensemble that goes on from it. `part` gives
    /// the bytes of the part with that number; no more than one is held at a time.
    ///
    /// # Errors
    /// When the directory is a member's already, or the backup is damaged; the directory is blank then as before.
    pub fn to(
        &self,
        dir: &Path,
        manifest: &BackupManifest,
        mut part: impl FnMut(usize) -> Result<Bytes, ServerError>,
    ) -> Result<Restored, ServerError> {
        let mut volume = Volume::open(dir)?;
        if volume.home().is_some() {
            return Err(ServerError::NotBlank(dir.to_owned()));
        }
        volume.clear_store()?;
        let slot = Slot(manifest.slot);
        let mut store = open_rocks(&volume.store_dir())?;
        for (number, listed) in manifest.parts.iter().enumerate() {
            store.fill(listed.rows(part(number)?)?, slot)?;
        }
        store.fill(vec![installed_row(slot)], slot)?;
        store.finish_filling()?;
        // Read back as by any start, so that what is no state is refused now.
        let loaded = store.load(0).map_err(|error| error.refused(&volume.store_dir()))?;
        let Stored { state, own, applied } = loaded;
        let config = Tuning::default().log(volume.id());
        let mut disk = volume.log_disk()?;
        let log = volume.format_log(config, &mut disk)?;
        let boot = Boot { log, state, own, applied, joins: None };
        let holdings = Holdings::of(&boot).map_err(|source| volume.generation_error(source))?;
        let of = (manifest.cluster_id.0.0, manifest.generation);
        if (holdings.founding.cluster, holdings.founding.generation) != of {
            return Err(BackupError::Mixed.into());
        }
        let restored = self.outcome(&volume, manifest, holdings.registry.next_id(), &boot.state);
        let (generation, survivor) = (restored.generation, Member::from(&restored.member));
        volume.restore(&NewGeneration { generation, survivor }, &boot, &holdings.founding, config)?;
        Ok(restored)
    }
}
