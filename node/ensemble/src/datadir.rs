//! The life of a data directory: blank, founding or joining, member.
//!
//! Owns the steps between them and their order on disk. Must not know sockets.
//!
//! Invariant: a volume gets its home, for ever, only after its log holds the founding entry, durably, or when it
//! joins and holds nothing; a volume without a home has never voted, so beginning again is safe.

use crate::config::{Admission, ServerError};
use crate::disks::describe;
use crate::hello::Id128;
use crate::os;
use crate::permit::Permit;
use crate::state_store::{Loaded, OpenStore, StateStore};
use crate::status::{HexText, Identity, Life};
use pharos_log::file::{DataDir, FileDisk};
use pharos_log::{DiskOp, DiskRead, Home, Recovery, Superblock, Wal, WalConfig};
use pharos_paxos::{LogOp, MemberId};
use pharos_replica::{Boot, Founding, GenerationError, NewGeneration};
use std::io;
use std::path::{Path, PathBuf};

/// A data directory that this process has for itself.
#[derive(Debug)]
pub struct Volume {
    dir: DataDir,
    superblock: Superblock,
}

impl Volume {
    /// Opens the directory, and formats it if it is new.
    pub fn open(path: &Path) -> Result<Self, ServerError> {
        let dir = DataDir::open(path)?;
        let superblock = match dir.superblock()? {
            Some(superblock) => superblock,
            None => {
                if has_log(&dir)? {
                    return Err(ServerError::NoSuperblock(path.to_owned()));
                }
                let volume = os::random();
                let volume =
                    volume.map_err(|source| ServerError::System { what: "read randomness", source })?;
                let superblock = Superblock { volume, home: None };
                dir.write_superblock(&superblock)?;
                superblock
            }
        };
        Ok(Self { dir, superblock })
    }

    /// Opens the directory of a member, and makes nothing.
    pub(crate) fn open_member(path: &Path) -> Result<Self, ServerError> {
        if !path.join("pharos.superblock").exists() {
            return Err(ServerError::NoMember(path.to_owned()));
        }
        let volume = Self::open(path)?;
        match volume.home() {
            Some(_) => Ok(volume),
            None => Err(ServerError::NoMember(path.to_owned())),
        }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The volume's id.
    #[must_use]
    pub fn id(&self) -> Id128 {
        Id128(self.superblock.volume)
    }

    /// Where the volume belongs, once it does.
    #[must_use]
    pub fn home(&self) -> Option<Home> {
        self.superblock.home
    }

    /// What the admin endpoint says of it, but for the ports.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let home = self.home();
        Identity {
            state: if home.is_some() { Life::Member } else { Life::Blank },
            volume: HexText(self.id()),
            member_id: home.map(|home| home.member.0),
            cluster_id: home.map(|home| HexText(Id128(home.cluster))),
            generation: home.and_then(|home| u32::try_from(home.generation).ok()),
            ..Identity::default()
        }
    }

    /// The log's files.
    pub fn log_disk(&self) -> Result<FileDisk, ServerError> {
        Ok(self.dir.log_disk()?)
    }

    /// Where the store is.
    #[must_use]
    pub fn store_dir(&self) -> PathBuf {
        self.path().join("state")
    }

    /// What the permit beside the volume lets it begin. A permit that is not there or cannot be read says nothing.
    ///
    /// # Errors
    /// When it is for another ensemble, generation or member.
    pub fn check_permit(&self, admission: &Admission) -> Result<Option<NewGeneration>, ServerError> {
        let (Some(home), Admission::PermitFile(file)) = (self.home(), admission) else { return Ok(None) };
        let Some(permit) = std::fs::read(file).ok().and_then(|text| Permit::parse(&text).ok()) else {
            return Ok(None);
        };
        let member = permit.member_of(self.id()).unwrap_or(home.member);
        let expected =
            Home { cluster: permit.cluster_id.0.0, generation: u64::from(permit.generation), member };
        let begins = permit.begins(home).filter(|begun| begun.survivor.volume == self.id().0);
        // One of an earlier generation stays where it was when the ensemble went on from this volume.
        let obsolete = expected.generation < home.generation && expected.cluster == home.cluster;
        if expected == home || begins.is_some() || obsolete {
            return Ok(begins);
        }
        Err(ServerError::Foreign {
            dir: self.path().to_owned(),
            permit: file.clone(),
            found: name(home),
            expected: name(expected),
        })
    }

    /// Reads what is on the volume, and makes the log fit to be written. So many bytes of values stay in memory.
    pub(crate) fn read<S: StateStore>(
        &self,
        config: WalConfig,
        disk: &mut FileDisk,
        open_store: OpenStore<S>,
        values: u64,
    ) -> Result<(S, Boot), ServerError> {
        let log = self.read_log(config, disk)?;
        let mut store = open_store(&self.store_dir())?;
        let Loaded { state, own, applied } = store.load(values)?;
        Ok((store, Boot { log, state, own, applied, joins: None }))
    }

    /// Makes the log of a blank volume, and reads it back.
    pub(crate) fn format_log(&self, config: WalConfig, disk: &mut FileDisk) -> Result<Recovery, ServerError> {
        let (_, ops) = Wal::format(config);
        self.execute(disk, &ops)?;
        self.read_log(config, disk)
    }

    fn read_log(&self, config: WalConfig, disk: &mut FileDisk) -> Result<Recovery, ServerError> {
        let log = Wal::recover(config, disk)?;
        self.execute(disk, &log.ops)?;
        Ok(log)
    }

    /// Begins a generation with what was found on the volume.
    pub(crate) fn begin_generation(
        &mut self,
        begun: &NewGeneration,
        boot: &mut Boot,
        config: WalConfig,
        disk: &mut FileDisk,
    ) -> Result<(), ServerError> {
        let group = begun.first_group(boot).map_err(|source| self.generation_error(source))?;
        let mut ops = Vec::new();
        boot.log.wal.append(&group, &mut ops);
        self.execute(disk, &ops)?;
        boot.log = self.read_log(config, disk)?;
        self.note_generation(begun.generation)
    }

    /// Notes the generation that the log leads to.
    ///
    /// # Errors
    /// When a later one was noted.
    pub(crate) fn note_generation(&mut self, found: u32) -> Result<(), ServerError> {
        let home = self.home().expect("a member has a home");
        if u64::from(found) < home.generation {
            return Err(ServerError::OldLog { dir: self.path().to_owned(), noted: home.generation, found });
        }
        if u64::from(found) > home.generation {
            let home = Home { generation: u64::from(found), ..home };
            let superblock = Superblock { home: Some(home), ..self.superblock };
            self.dir.write_superblock(&superblock)?;
            self.superblock = superblock;
        }
        Ok(())
    }

    pub(crate) fn generation_error(&self, source: GenerationError) -> ServerError {
        ServerError::Generation { dir: self.path().to_owned(), source }
    }

    fn execute(&self, disk: &mut FileDisk, ops: &[DiskOp]) -> Result<(), ServerError> {
        for op in ops {
            disk.execute(std::slice::from_ref(op))
                .map_err(|error| self.write_error(&describe(op), &error))?;
        }
        Ok(())
    }

    /// Makes the volume a founding member.
    pub fn found(
        &mut self,
        member: MemberId,
        founding: &Founding,
        config: WalConfig,
    ) -> Result<(), ServerError> {
        assert!(self.superblock.home.is_none(), "a volume is founded once");
        self.clear_store()?;
        self.begin(member, founding, config, &founding.first_group())
    }

    /// Makes the volume a member that has nothing yet: its log begins with the state that it is sent.
    pub(crate) fn join(
        &mut self,
        member: MemberId,
        founding: &Founding,
        config: WalConfig,
    ) -> Result<(), ServerError> {
        assert!(self.superblock.home.is_none(), "a volume joins once");
        self.clear_store()?;
        self.begin(member, founding, config, &[])
    }

    /// Makes the volume, whose store holds a restored state, the only member of a generation that goes on from it.
    pub(crate) fn restore(
        &mut self,
        begun: &NewGeneration,
        boot: &Boot,
        founding: &Founding,
        config: WalConfig,
    ) -> Result<(), ServerError> {
        assert!(self.superblock.home.is_none(), "a backup is restored to a blank volume");
        let group = begun.first_group(boot).map_err(|source| self.generation_error(source))?;
        let founding = Founding { generation: begun.generation, ..founding.clone() };
        self.begin(begun.survivor.id, &founding, config, &group)
    }

    /// A volume without a home has no state, whatever an attempt to restore one left there.
    pub(crate) fn clear_store(&self) -> Result<(), ServerError> {
        match std::fs::remove_dir_all(self.store_dir()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.write_error("remove what is left of a state", &error))
            }
            _ => Ok(()),
        }
    }

    fn begin(
        &mut self,
        member: MemberId,
        founding: &Founding,
        config: WalConfig,
        first: &[LogOp],
    ) -> Result<(), ServerError> {
        let mut disk = self.dir.log_disk()?;
        let (mut wal, mut ops) = Wal::format(config);
        if !first.is_empty() {
            wal.append(first, &mut ops);
        }
        self.execute(&mut disk, &ops)?;
        let home = Home { cluster: founding.cluster, generation: u64::from(founding.generation), member };
        let superblock = Superblock { home: Some(home), ..self.superblock };
        self.dir.write_superblock(&superblock)?;
        self.superblock = superblock;
        Ok(())
    }

    fn write_error(&self, what: &str, error: &io::Error) -> ServerError {
        let source = io::Error::new(error.kind(), format!("cannot {what}: {error}"));
        ServerError::LogWrite { dir: self.path().to_owned(), source }
    }
}

fn has_log(dir: &DataDir) -> Result<bool, ServerError> {
    if !dir.path().join("log").exists() {
        return Ok(false);
    }
    let files = dir.log_disk()?.list().map_err(pharos_log::LogError::List)?;
    Ok(!files.is_empty())
}

fn name(home: Home) -> String {
    format!("member {} of the ensemble {}, generation {}", home.member, Id128(home.cluster), home.generation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::at_rest::AtRest;
    use crate::hello::Id128;

    const SMALL: u64 = 64 << 10;

    fn wal_config(volume: Id128) -> WalConfig {
        WalConfig { segment_bytes: SMALL, spare_segments: 1, identity: volume.0 }
    }

    fn permit(cluster: u8, volume: Id128) -> Permit {
        Permit::alone(Id128([cluster; 16]), volume, Id128([3; 16]), 2888, 2181)
    }

    fn found(volume: &mut Volume) {
        let founding = permit(7, volume.id()).founding(None).unwrap();
        let config = wal_config(volume.id());
        volume.found(MemberId(1), &founding, config).unwrap();
    }

    #[test]
    fn a_new_volume_is_blank_and_keeps_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let first = Volume::open(dir.path()).unwrap();
        let (id, identity) = (first.id(), first.identity());
        drop(first);
        assert_eq!((identity.state, identity.member_id), (Life::Blank, None));
        assert_eq!(Volume::open(dir.path()).unwrap().id(), id);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(Volume::open(other.path()).unwrap().id(), id);
    }

    #[test]
    fn a_founded_volume_is_a_member_whose_log_holds_the_founding_entry() {
        let dir = tempfile::tempdir().unwrap();
        found(&mut Volume::open(dir.path()).unwrap());
        let volume = Volume::open(dir.path()).unwrap();
        let identity = volume.identity();
        assert_eq!(
            (identity.state, identity.member_id, identity.generation),
            (Life::Member, Some(1), Some(1))
        );
        let log = Wal::recover(wal_config(volume.id()), &volume.log_disk().unwrap()).unwrap();
        let founding = permit(7, volume.id()).founding(None).unwrap();
        assert_eq!(log.entries[0].payload, founding.encode());
    }

    #[test]
    fn founding_that_was_cut_short_begins_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut volume = Volume::open(dir.path()).unwrap();
        let (_, ops) = Wal::format(wal_config(volume.id()));
        volume.log_disk().unwrap().execute(&ops[..1]).unwrap();
        drop(volume);
        volume = Volume::open(dir.path()).unwrap();
        assert_eq!(volume.identity().state, Life::Blank);
        found(&mut volume);
        assert_eq!(volume.identity().state, Life::Member);
    }

    #[test]
    fn a_second_process_on_one_data_directory_is_turned_away() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Volume::open(dir.path()).unwrap();
        let error = Volume::open(dir.path()).unwrap_err();
        assert!(error.is_users_fault() && error.to_string().contains("in use by another process"), "{error}");
        assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
    }

    #[test]
    fn a_log_without_a_superblock_is_not_taken_for_a_new_volume() {
        let dir = tempfile::tempdir().unwrap();
        found(&mut Volume::open(dir.path()).unwrap());
        std::fs::remove_file(dir.path().join("pharos.superblock")).unwrap();
        let error = Volume::open(dir.path()).unwrap_err();
        assert!(matches!(error, ServerError::NoSuperblock(_)), "{error}");
    }

    #[test]
    fn a_directory_of_another_ensemble_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut volume = Volume::open(dir.path()).unwrap();
        found(&mut volume);
        let file = dir.path().join("permit.json");
        let admission = Admission::PermitFile(file.clone());
        volume.check_permit(&admission).unwrap();
        std::fs::write(&file, serde_json::to_vec(&permit(7, volume.id())).unwrap()).unwrap();
        volume.check_permit(&admission).unwrap();
        std::fs::write(&file, serde_json::to_vec(&permit(8, volume.id())).unwrap()).unwrap();
        let error = volume.check_permit(&admission).unwrap_err();
        assert!(error.is_users_fault(), "{error}");
        let text = error.to_string();
        assert!(text.contains(&"07".repeat(16)) && text.contains(&"08".repeat(16)), "{text}");
    }

    #[test]
    fn a_volume_goes_on_only_by_a_permit_that_says_so_and_keeps_the_generation() {
        let dir = tempfile::tempdir().unwrap();
        let mut volume = Volume::open(dir.path()).unwrap();
        found(&mut volume);
        let file = dir.path().join("permit.json");
        let admission = Admission::PermitFile(file.clone());
        let first = permit(7, volume.id());
        let mut second = Permit { generation: 2, ..first.clone() };
        let write = |permit: &Permit| std::fs::write(&file, serde_json::to_vec(permit).unwrap()).unwrap();
        write(&second);
        let error = volume.check_permit(&admission).unwrap_err().to_string();
        assert!(error.contains("generation 1, but") && error.contains("generation 2"), "{error}");
        second.recovers = true;
        write(&second);
        let begun = volume.check_permit(&admission).unwrap().unwrap();
        assert_eq!((begun.generation, begun.survivor.id), (2, MemberId(1)));
        volume.note_generation(2).unwrap();
        assert_eq!(volume.check_permit(&admission).unwrap(), None, "once");
        write(&first);
        assert_eq!(volume.check_permit(&admission).unwrap(), None, "what is over says nothing");
        let error = volume.note_generation(1).unwrap_err();
        assert!(error.to_string().ends_with("but its log of 1: the log is an old copy"), "{error}");
        assert!(AtRest::open(&dir.path().join("nothing")).unwrap_err().is_users_fault());
    }

    #[test]
    fn a_directory_of_another_member_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut volume = Volume::open(dir.path()).unwrap();
        found(&mut volume);
        let mut second = permit(7, volume.id());
        second.founders[0].member_id = 2;
        let file = dir.path().join("permit.json");
        std::fs::write(&file, serde_json::to_vec(&second).unwrap()).unwrap();
        let error = volume.check_permit(&Admission::PermitFile(file)).unwrap_err();
        assert!(error.is_users_fault(), "{error}");
        let text = error.to_string();
        assert!(text.contains("belongs to member 1 of") && text.contains("is for member 2 of"), "{text}");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let error = Volume::open(Path::new("/proc/none/data")).unwrap_err();
        assert!(error.is_users_fault() && error.to_string().contains("/proc/none/data"), "{error}");
    }
}
