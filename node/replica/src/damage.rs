//! What becomes of a member whose log or store is damaged.
//!
//! Owns the decision, for whoever drives members. Must not know directories, nor how an identity is given up.
//!
//! Invariants: a volume that may have lost a promise or an acknowledged entry never votes again as the member that it was;
//! one without which the others are no majority is left as it is, for a person to decide; damage by which nothing is lost
//! changes nothing.

use crate::founding::Founding;
use crate::plant::Plant;
use crate::registry::Registry;
use crate::replica::{Boot, FOUNDING_KEY, REGISTRY_KEY, StartError, find_founding, find_registry};
use crate::snapshot;
use bytes::Bytes;
use pharos_log::{DiskRead, LogError, Recovery, Wal, WalConfig};
use pharos_paxos::{Entry, EntryKind, MemberId, Membership, Slot};
use pharos_znode::{RowError, State};

/// What a store gave.
#[derive(Debug)]
pub struct Stored {
    /// The state as of `applied`.
    pub state: State,
    /// The rows whose key begins with [`crate::OWN_PREFIX`].
    pub own: Vec<(Bytes, Bytes)>,
    /// What it has flushed.
    pub applied: Slot,
}

impl Stored {
    /// The ensemble whose state it is, if it says so.
    #[must_use]
    pub fn cluster(&self) -> Option<[u8; 16]> {
        let (_, row) = self.own.iter().find(|(key, _)| key == FOUNDING_KEY)?;
        Some(Founding::decode(row.clone()).ok()?.cluster)
    }
}

/// A store whose rows are not what was written.
#[derive(Debug)]
pub struct BadStore {
    /// What is wrong.
    pub why: String,
    /// Those of the replica's own rows that can be read.
    pub own: Vec<(Bytes, Bytes)>,
}

/// What was found on a volume.
#[derive(Debug)]
pub enum Found {
    /// The member goes on.
    Sound(Box<Boot>),
    /// The store is damaged, and the log holds everything from the first slot on: with an empty store the member goes on.
    StoreToEmpty {
        /// As with an empty store.
        boot: Box<Boot>,
        /// What is wrong with the store.
        why: String,
    },
    /// What was promised or acknowledged may be lost.
    Damaged(Damage),
}

/// Damage that cannot be passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What is wrong, and where.
    pub why: String,
    /// Whether others can go on without this member, and take a new one in its place.
    pub fate: Fate,
    /// Whether anything of the ensemble is on the volume, as far as can be told.
    pub holds: bool,
}

/// What a damaged volume does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It gives its identity up, and is as good as an empty one.
    GivesUp,
    /// Nothing: without this member too few voters are left.
    Needed {
        /// Voters, this one included.
        voters: usize,
    },
}

/// Whether rows that do not make a state were damaged. Those of a version or table that is not known were written by a
/// later build.
#[must_use]
pub fn is_damaged(error: &RowError) -> bool {
    !matches!(error, RowError::Version { .. } | RowError::Table(_))
}

/// Reads the log and decides. Nothing on the disk changes; the operations of a log that is found are left to the caller.
///
/// # Errors
/// When the log cannot be read and is not known to be damaged.
pub fn inspect(
    me: MemberId,
    config: WalConfig,
    disk: &dyn DiskRead,
    store: Result<Stored, BadStore>,
    plant: Plant,
) -> Result<Found, LogError> {
    let stored = match store {
        Ok(stored) => stored,
        Err(bad) => return inspect_log_alone(me, config, disk, bad, plant),
    };
    let Stored { state, own, applied } = stored;
    let log = match Wal::recover_with(config, disk, applied, plant.log()) {
        Ok(log) => log,
        Err(error) if error.is_damage() => {
            return Ok(Found::Damaged(damaged_log(me, config, disk, &own, applied, &error)));
        }
        Err(error) => return Err(error),
    };
    let boot = Boot { log, state, own, applied, joins: None };
    match boot.check() {
        Err(error @ (StartError::Gap { .. } | StartError::Behind { .. })) => {
            let fate = fate(me, &boot.own, &boot.log.entries);
            Ok(Found::Damaged(Damage { why: error.to_string(), fate, holds: true }))
        }
        // Rows that this build cannot read may be of a later one: the start refuses them.
        Ok(()) | Err(_) => Ok(Found::Sound(Box::new(boot))),
    }
}

/// The store is damaged: what it held may be in the log, from the beginning.
fn inspect_log_alone(
    me: MemberId,
    config: WalConfig,
    disk: &dyn DiskRead,
    BadStore { why, own }: BadStore,
    plant: Plant,
) -> Result<Found, LogError> {
    let log = match Wal::recover(config, disk) {
        Ok(log) => log,
        Err(error) if error.is_damage() => {
            let damage = damaged_log(me, config, disk, &own, Slot::ZERO, &error);
            let why = format!("{why}; {}", damage.why);
            return Ok(Found::Damaged(Damage { why, holds: true, ..damage }));
        }
        Err(error) => return Err(error),
    };
    let empty = |log: Recovery, own| {
        let applied = log.trimmed;
        Box::new(Boot { log, state: State::new(), own, applied, joins: None })
    };
    let is_whole = log.entries.first().is_some_and(|first| first.kind == EntryKind::Founding);
    if is_whole {
        return Ok(Found::StoreToEmpty { boot: empty(log, Vec::new()), why });
    }
    if plant.empties_damaged_store() {
        return Ok(Found::StoreToEmpty { boot: empty(log, own), why });
    }
    let fate = fate(me, &own, &log.entries);
    Ok(Found::Damaged(Damage { why, fate, holds: true }))
}

fn damaged_log(
    me: MemberId,
    config: WalConfig,
    disk: &dyn DiskRead,
    own: &[(Bytes, Bytes)],
    stored: Slot,
    error: &LogError,
) -> Damage {
    let readable = Wal::salvage(config, disk, stored).ok().flatten();
    let readable = readable.map(|salvage| salvage.entries).unwrap_or_default();
    let holds = !own.is_empty() || !readable.is_empty();
    Damage { why: error.to_string(), fate: fate(me, own, &readable), holds }
}

/// By every configuration that may be the current one, as far as the volume tells: the last one that the store knows, and
/// all that begin in the log after it.
fn fate(me: MemberId, own: &[(Bytes, Bytes)], entries: &[Entry]) -> Fate {
    let known = membership(own, entries);
    let since = known.as_ref().map_or(Slot::ZERO, |known| known.since);
    let later = entries.iter().filter(|entry| entry.slot > since).filter_map(Entry::seals);
    let configurations = known.into_iter().chain(later.map(|(next, _)| next));
    let needed = configurations.filter(|one| one.has(me) && one.voters.len() - 1 < one.majority());
    needed.last().map_or(Fate::GivesUp, |one| Fate::Needed { voters: one.voters.len() })
}

fn membership(own: &[(Bytes, Bytes)], entries: &[Entry]) -> Option<Membership> {
    if let Some((_, row)) = own.iter().find(|(key, _)| key == REGISTRY_KEY)
        && let Ok(registry) = Registry::decode(row.clone())
    {
        return Some(registry.membership().clone());
    }
    let founding = entries.first().filter(|first| first.kind == EntryKind::Founding)?;
    Some(Founding::decode(founding.payload.clone()).ok()?.membership())
}

impl Boot {
    /// Whether log and store fit together and can be read.
    ///
    /// # Errors
    /// When they do not.
    pub fn check(&self) -> Result<(), StartError> {
        let Self { log, applied, .. } = self;
        let installed = snapshot::installed(&self.own)?;
        let end = self.log_end();
        if log.trimmed > *applied {
            return Err(StartError::Gap { trimmed: log.trimmed, applied: *applied });
        }
        // The store is given nothing that is not durable in the log, but for a state that was sent.
        if *applied > end.max(installed) {
            return Err(StartError::Behind { end, applied: *applied });
        }
        if self.is_founded() {
            find_registry(self, &find_founding(self)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Member;
    use pharos_log::mem::MemDisk;
    use pharos_log::{DiskOp, FileName};
    use pharos_paxos::{Ballot, ConfigNo, LogOp};

    const CONFIG: WalConfig = WalConfig { segment_bytes: 16 << 10, spare_segments: 1, identity: [9; 16] };
    const ME: MemberId = MemberId(2);

    fn founding(members: u32) -> Founding {
        let member = |id: u32| Member {
            id: MemberId(id),
            volume: [id as u8; 16],
            host: format!("m{id}"),
            peer_port: 1,
            client_port: 2,
        };
        let members = (ME.0..ME.0 + members).map(member).collect();
        Founding { cluster: [7; 16], generation: 1, secret: [5; 16], members }
    }

    /// The rows that a store has beside the state.
    fn own(founding: &Founding) -> Vec<(Bytes, Bytes)> {
        let registry = Registry::founding(founding).encode();
        let rows = [(FOUNDING_KEY, founding.encode()), (REGISTRY_KEY, registry)];
        rows.map(|(key, row)| (Bytes::from_static(key), row.into())).to_vec()
    }

    fn entry(slot: u64) -> Entry {
        let payload = Bytes::from(vec![7; 5_000]);
        Entry { slot: Slot(slot), ballot: Ballot::FOUNDING, kind: EntryKind::Commands, payload }
    }

    /// A log of the founding and so many more slots.
    fn log(founding: &Founding, slots: u64) -> (Wal, MemDisk) {
        let (mut wal, mut ops) = Wal::format(CONFIG);
        wal.append(&founding.first_group(), &mut ops);
        (2..slots + 2).for_each(|slot| wal.append(&[LogOp::Append(entry(slot))], &mut ops));
        let mut disk = MemDisk::new();
        disk.execute(&ops).unwrap();
        (wal, disk)
    }

    fn stored(own: Vec<(Bytes, Bytes)>, applied: u64) -> Result<Stored, BadStore> {
        Ok(Stored { state: State::new(), own, applied: Slot(applied) })
    }

    fn bad(own: Vec<(Bytes, Bytes)>) -> Result<Stored, BadStore> {
        Err(BadStore { why: "rot".to_owned(), own })
    }

    fn look(disk: &MemDisk, store: Result<Stored, BadStore>) -> Found {
        inspect(ME, CONFIG, disk, store, Plant::None).unwrap()
    }

    fn fate_of(found: Found) -> Fate {
        let Found::Damaged(damage) = found else { panic!("another end") };
        damage.fate
    }

    #[test]
    fn whoever_can_be_replaced_gives_up_and_without_whom_there_is_no_majority_stays() {
        for (members, expected) in [
            (1, Fate::Needed { voters: 1 }),
            (2, Fate::Needed { voters: 2 }),
            (3, Fate::GivesUp),
            (4, Fate::GivesUp),
            (5, Fate::GivesUp),
        ] {
            let founding = founding(members);
            let (_, mut disk) = log(&founding, 1);
            disk.flip(FileName(1), (2 * 4096 + 60) * 8).unwrap();
            assert_eq!(fate_of(look(&disk, stored(own(&founding), 1))), expected, "{members}");
            // Nor does it take a store to know.
            assert_eq!(fate_of(look(&disk, stored(Vec::new(), 0))), expected, "{members}");
        }
    }

    #[test]
    fn a_member_that_may_be_the_only_voter_by_a_seal_in_its_log_stays() {
        let founding = founding(3);
        let (mut wal, mut disk) = log(&founding, 0);
        let mut ops = Vec::new();
        let seal = Entry::seal(Slot(2), Ballot::FOUNDING, ConfigNo(2), &[ME], b"");
        wal.append(&[LogOp::Append(seal)], &mut ops);
        wal.append(&[LogOp::Append(entry(3))], &mut ops);
        disk.execute(&ops).unwrap();
        disk.flip(FileName(2), (4096 + 60) * 8).unwrap();
        assert_eq!(fate_of(look(&disk, stored(own(&founding), 1))), Fate::Needed { voters: 1 });
    }

    #[test]
    fn a_log_that_was_deleted_or_lost_its_end_or_its_beginning_is_damaged() {
        let founding = founding(3);
        let (mut wal, mut disk) = log(&founding, 6);
        assert!(matches!(look(&disk, stored(own(&founding), 7)), Found::Sound(_)));
        let why = |found| {
            let Found::Damaged(damage) = found else { panic!("another end") };
            assert!(damage.holds && damage.fate == Fate::GivesUp);
            damage.why
        };
        let behind = "the log ends at slot 7 but the store holds slot 9; the log lost its end";
        assert_eq!(why(look(&disk, stored(own(&founding), 9))), behind);
        let deleted = "the log has no segment: the volume was never formatted";
        assert_eq!(why(look(&MemDisk::new(), stored(own(&founding), 7))), deleted);
        let mut ops = Vec::new();
        wal.append(&[LogOp::Committed(Slot(7))], &mut ops);
        wal.trim(Slot(7), &mut ops);
        disk.execute(&ops).unwrap();
        let gap = why(look(&disk, stored(own(&founding), 1)));
        assert!(gap.contains("but the store ends at slot 1; the volume lost data"), "{gap}");
    }

    #[test]
    fn a_damaged_store_is_made_anew_if_the_log_has_everything_even_by_the_only_voter() {
        for members in [1, 3] {
            let founding = founding(members);
            let (mut wal, mut disk) = log(&founding, 6);
            let found = look(&disk, bad(own(&founding)));
            let Found::StoreToEmpty { boot, why } = found else { panic!("another end") };
            assert_eq!((boot.applied, boot.log.entries.len(), why.as_str()), (Slot::ZERO, 7, "rot"));
            let mut ops = Vec::new();
            wal.trim(Slot(7), &mut ops);
            disk.execute(&ops).unwrap();
            let expected = if members == 1 { Fate::Needed { voters: 1 } } else { Fate::GivesUp };
            assert_eq!(fate_of(look(&disk, bad(own(&founding)))), expected);
        }
    }

    #[test]
    fn what_another_version_or_volume_wrote_is_refused_and_no_damage() {
        let founding = founding(3);
        let (_, disk) = log(&founding, 1);
        let other = WalConfig { identity: [8; 16], ..CONFIG };
        let error = inspect(ME, other, &disk, stored(own(&founding), 1), Plant::None).unwrap_err();
        assert!(matches!(error, LogError::ForeignVolume { .. }), "{error}");
        assert!(!is_damaged(&RowError::Table(Bytes::from_static(b"x"))));
        assert!(is_damaged(&RowError::Absent("meta")));
    }

    #[test]
    fn damage_that_costs_nothing_changes_nothing_but_the_beginning_of_the_log() {
        let founding = founding(1);
        let (_, mut disk) = log(&founding, 6);
        disk.execute(&[DiskOp::Remove { file: FileName(1) }]).unwrap();
        let found = look(&disk, stored(own(&founding), 7));
        let Found::Sound(boot) = found else { panic!("another end") };
        assert!(boot.log.trimmed > Slot::ZERO && boot.log.forgotten.len() == 1);
    }
}
