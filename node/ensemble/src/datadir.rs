//! The life of a data directory: blank, founding or joining, member; and blank again, as another volume, when it is
//! damaged.
//!
//! Owns the steps between them and their order on disk. Must not know sockets.
//!
//! Invariant: a volume gets its home, for ever, only after its log holds the founding entry, durably, or when it
//! joins and holds nothing; a volume without a home has never voted, so beginning again is safe. One that may have lost
//! what it promised or acknowledged has no home from then on, and another id.

use crate::aside::{self, Record};
use crate::config::{Admission, ServerError};
use crate::disks::describe;
use crate::hello::Id128;
use crate::os;
use crate::permit::{HexId, Permit};
use crate::state_store::{LoadError, OpenStore, StateStore};
use crate::status::{GaveUp, HexText, Identity, Life};
use pharos_log::file::{DataDir, FileDisk};
use pharos_log::mem::MemDisk;
use pharos_log::{DiskOp, DiskRead, Home, Recovery, Salvage, Superblock, Wal, WalConfig};
use pharos_paxos::{LogOp, MemberId};
use pharos_replica::{
    BadStore, Boot, Damage, Fate, Found, Founding, GenerationError, NewGeneration, Plant, Stored, inspect,
};
use std::io;
use std::path::{Path, PathBuf};

/// A data directory that this process has for itself.
#[derive(Debug)]
pub struct Volume {
    dir: DataDir,
    superblock: Superblock,
    /// What is kept beside it.
    aside: Option<Record>,
}

/// What was found on a member's volume.
pub(crate) enum Reading<S> {
    /// The member can start.
    Member(S, Box<Boot>),
    /// What it promised or acknowledged may be lost. Nothing was changed.
    Damaged(Damage),
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
                let superblock = blank()?;
                dir.write_superblock(&superblock)?;
                superblock
            }
        };
        let mut volume = Self { dir, superblock, aside: None };
        volume.settle()?;
        Ok(volume)
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
            gave_up: self
                .former()
                .map(|former| GaveUp { member_id: former.member_id, why: former.why.clone() }),
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

    /// Reads what is on the volume and, unless it is damaged, makes the log fit to be written. So many bytes of values stay in
    /// memory.
    pub(crate) fn read<S: StateStore>(
        &self,
        config: WalConfig,
        disk: &mut FileDisk,
        open_store: OpenStore<S>,
        values: u64,
    ) -> Result<Reading<S>, ServerError> {
        let home = self.home().expect("a member has a home");
        let mut opened = None;
        let stored = match open_store(&self.store_dir()) {
            Ok(store) => opened.insert(store).load(values),
            Err(ServerError::DamagedStore { why, .. }) => {
                Err(LoadError::Damaged(BadStore { why, own: Vec::new() }))
            }
            Err(error) => return Err(error),
        };
        let stored = match stored {
            Ok(stored) => {
                self.check_store(&stored, home)?;
                Ok(stored)
            }
            Err(LoadError::Damaged(bad)) => {
                opened = None;
                Err(bad)
            }
            Err(LoadError::Refused(error)) => return Err(error),
        };
        let boot = match inspect(home.member, config, disk, stored, Plant::None)? {
            Found::Sound(boot) => boot,
            Found::StoreToEmpty { boot, why } => {
                tracing::warn!(%why, "the store is damaged; the log holds everything, and the store begins anew");
                let discarded = aside::discard_store(self.path());
                discarded.map_err(|error| self.write_error("remove the damaged store", &error))?;
                boot
            }
            Found::Damaged(damage) => return Ok(Reading::Damaged(damage)),
        };
        for forgotten in &boot.log.forgotten {
            let (damage, upto) = (&forgotten.damage, forgotten.upto);
            tracing::warn!(%damage, %upto, "the log is damaged where the store has everything; it is trimmed up to there");
        }
        self.execute(disk, &boot.log.ops)?;
        let store = match opened {
            Some(store) => store,
            None => {
                let mut store = open_store(&self.store_dir())?;
                // There is nothing in it yet; but it hears how many values are to stay in memory.
                store.load(values).map_err(|error| error.refused(&self.store_dir()))?;
                store
            }
        };
        Ok(Reading::Member(store, boot))
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

    fn check_store(&self, stored: &Stored, home: Home) -> Result<(), ServerError> {
        match stored.cluster() {
            Some(found) if found != home.cluster => Err(ServerError::ForeignStore {
                dir: self.store_dir(),
                member: home.member,
                expected: Id128(home.cluster),
                found: Id128(found),
            }),
            _ => Ok(()),
        }
    }

    /// Is another volume from here on, an empty one, and keeps aside what it held. Nobody can tell what the member that it
    /// was has promised, so it is that one no more, whatever comes.
    pub(crate) fn give_up(&mut self, damage: &Damage) -> Result<(), ServerError> {
        let superblock = blank()?;
        self.note_damage(&damage.why, damage.holds)?;
        self.dir.write_superblock(&superblock)?;
        self.superblock = superblock;
        self.settle()
    }

    /// Why it cannot do that, or should not.
    pub(crate) fn refuse(&self, damage: Damage) -> ServerError {
        let dir = self.path().to_owned();
        let recover = format!("pharos-node recover --data-dir {} --accept-lost-writes", dir.display());
        let advice = match damage.fate {
            Fate::Needed { voters } => {
                let why = match voters {
                    1 => "Nobody else votes, so nobody can take a new member in its place".to_owned(),
                    _ => format!(
                        "Of {voters} voters those that are left are no majority, and can take in nobody"
                    ),
                };
                format!(
                    "{why}: restore a backup to another directory, or go on with what can be read, without what was \
                     acknowledged later: {recover}"
                )
            }
            Fate::GivesUp => {
                "Start it with a permit file: then it gives its identity up, and can join the others as an \
                              empty volume"
                    .to_owned()
            }
        };
        ServerError::Damaged { dir, why: damage.why, advice }
    }

    /// What can be read of a damaged log, and a member made of it.
    pub(crate) fn salvage<S: StateStore>(
        &self,
        damage: &Damage,
        config: WalConfig,
        disk: &FileDisk,
        open_store: OpenStore<S>,
    ) -> Result<(Boot, Salvage), ServerError> {
        let dir = self.store_dir();
        let stored = open_store(&dir)?.load(0).map_err(|error| error.refused(&dir))?;
        let Stored { state, own, applied } = stored;
        let nothing = || ServerError::Damaged {
            dir: self.path().to_owned(),
            why: damage.why.clone(),
            advice: "Nothing can be read of its log: restore a backup to another directory".to_owned(),
        };
        let salvage = Wal::salvage(config, disk, applied).ok().flatten().ok_or_else(nothing)?;
        let mut memory = MemDisk::new();
        let rewritten = memory.execute(&salvage.rewritten(config).1);
        rewritten.map_err(|error| self.write_error("make a log", &error))?;
        let log = Wal::recover(config, &memory)?;
        Ok((Boot { log, state, own, applied, joins: None }, salvage))
    }

    /// The generation begins with what can be read of a damaged log.
    pub(crate) fn begin_generation_without(
        &mut self,
        begun: &NewGeneration,
        (boot, salvage): (&Boot, &Salvage),
        config: WalConfig,
    ) -> Result<(), ServerError> {
        let group = begun.first_group(boot).map_err(|source| self.generation_error(source))?;
        let (mut wal, mut ops) = salvage.rewritten(config);
        wal.append(&group, &mut ops);
        let mut disk = FileDisk::open(&aside::new_log(self.path()))
            .map_err(|error| self.write_error("make a log", &error))?;
        self.execute(&mut disk, &ops)?;
        self.note_damage(&salvage.damage.to_string(), true)?;
        aside::change_logs(self.path()).map_err(|error| self.write_error("change the log", &error))?;
        self.settle()
    }

    fn note_damage(&self, why: &str, holds: bool) -> Result<(), ServerError> {
        let home = self.home().expect("a member has a home");
        let whose = (HexId(Id128(home.cluster)), home.member.0);
        let record = Record::new(HexId(self.id()), whose, why.to_owned(), holds);
        aside::prepare(self.path(), &record).map_err(|error| self.write_error("note the damage", &error))
    }

    /// Finishes what was interrupted.
    fn settle(&mut self) -> Result<(), ServerError> {
        let settled = aside::settle(self.path(), self.home().is_some());
        self.aside = settled
            .map_err(|error| self.write_error("set aside what is damaged in the directory", &error))?;
        Ok(())
    }

    /// Whose data is kept beside it, if it is another's.
    fn former(&self) -> Option<&Record> {
        self.aside.as_ref().filter(|record| record.volume.0 != self.id())
    }

    /// The member votes: what the volume held before is not needed any more.
    pub(crate) fn let_go(&mut self) {
        if self.former().is_none() {
            return;
        }
        self.aside = None;
        match aside::let_go(self.path()) {
            Ok(()) => tracing::info!("this member votes; what was damaged is removed"),
            Err(error) => tracing::warn!(%error, "cannot remove what was damaged"),
        }
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
        let removed = aside::discard_store(self.path());
        removed.map_err(|error| self.write_error("remove what is left of a state", &error))
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

fn blank() -> Result<Superblock, ServerError> {
    let volume = os::random().map_err(|source| ServerError::System { what: "read randomness", source })?;
    Ok(Superblock { volume, home: None })
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
