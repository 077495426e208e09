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

/// Whether rows that do not make a state were damaged. Those of a version, table or feature level that is not known were
/// written by a later build.
#[must_use]
pub fn is_damaged(error: &RowError) -> bool {
    !matches!(error, RowError::Version { .. } | RowError::Table(_) | RowError::Level(_))
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
