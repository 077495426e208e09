//! By which rules commands are carried out, and when all can do better.
//!
//! Owns what each member says that it can do, and the leader's decision to raise the level. Must not know what a level
//! means. Invariants: the level rises by an entry of the log and when every member on the list has said that it can carry
//! the new one out; a member never applies, nor takes from a store, a log or a leader, what is above its own.

use crate::io::Output;
use crate::registry::ChangeError;
use crate::replica::{Boot, Replica};
use pharos_paxos::{Ballot, Entry, EntryKind, MemberId, Slot};
use pharos_znode::{Batch, BatchError, Level, Levels, Op};
use std::collections::BTreeMap;
use thiserror::Error;

/// What is known of the members, and what was asked for.
#[derive(Debug, Default)]
pub(crate) struct KnownLevels {
    /// What each said last, whether it is connected now or not.
    told: BTreeMap<MemberId, Levels>,
    /// The last level that this member has put into the log, and as which leader.
    asked: Option<(Ballot, Level)>,
}

impl KnownLevels {
    pub(crate) fn hear(&mut self, member: MemberId, levels: Levels) {
        self.told.insert(member, levels);
    }

    /// Whether the member said that it can carry out this level, and so understands what came with it.
    pub(crate) fn knows(&self, member: MemberId, level: Level) -> bool {
        self.told.get(&member).is_some_and(|levels| levels.max >= level)
    }

    pub(crate) fn told(&self) -> &BTreeMap<MemberId, Levels> {
        &self.told
    }

    /// The highest level that so many of these can carry out. Of a member that has said nothing nobody knows.
    fn common(&self, members: &[MemberId], enough: usize) -> Option<Level> {
        let told = members.iter().filter_map(|id| self.told.get(id));
        let mut highest: Vec<Level> = told.map(|levels| levels.max).collect();
        highest.sort_unstable();
        highest.iter().rev().nth(enough - 1).copied()
    }
}

/// A level that this member cannot carry out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "the ensemble is at feature level {level} and this member can do levels {can}: run a version that knows level \
     {level}, and without a lower --max-feature-level"
)]
pub struct LevelError {
    /// The level in force, or to come.
    pub level: Level,
    /// What the member can do.
    pub can: Levels,
}

impl LevelError {
    pub(crate) fn check(level: Level, can: Levels) -> Result<(), Self> {
        if can.include(level) { Ok(()) } else { Err(Self { level, can }) }
    }
}

/// Why the log cannot be carried out.
#[derive(Debug, Error)]
pub enum LogLevelError {
    /// It leads to a level that is too high.
    #[error(transparent)]
    Level(#[from] LevelError),
    /// A later version wrote it.
    #[error("slot {0} of the log: {1}; run a version that knows it")]
    Batch(Slot, BatchError),
}

/// Looks at a state, and at all that its log will do to it, before anything is carried out. An entry that is not chosen
/// counts too: it may be. What no version wrote is found when it is carried out.
pub(crate) fn check_boot(boot: &Boot, can: Levels) -> Result<(), LogLevelError> {
    LevelError::check(boot.state.level(), can)?;
    let to_do = |entry: &&Entry| entry.slot > boot.applied && entry.kind == EntryKind::Commands;
    for entry in boot.log.entries.iter().filter(to_do) {
        match Batch::level_in(&entry.payload) {
            Ok(Some(level)) => LevelError::check(level, can)?,
            Err(error @ BatchError::Version(_)) => return Err(LogLevelError::Batch(entry.slot, error)),
            Ok(None) | Err(_) => {}
        }
    }
    Ok(())
}

impl Replica {
    /// The feature level in force.
    #[must_use]
    pub fn level(&self) -> Level {
        self.state.level()
    }

    /// The levels that this member can carry out.
    #[must_use]
    pub fn levels(&self) -> Levels {
        self.cfg.levels
    }

    /// Whether a member that can do these levels may be registered.
    ///
    /// # Errors
    /// When the level in force, or to come by what stands in the log, is not among them: it could not take the state.
    pub fn admits(&self, can: Levels) -> Result<(), ChangeError> {
        let commands = self.ahead().filter(|entry| entry.kind == EntryKind::Commands);
        let to_come = commands.filter_map(|entry| Batch::level_in(&entry.payload).ok().flatten()).max();
        LevelError::check(self.level().max(to_come.unwrap_or(Level::FIRST)), can).map_err(ChangeError::Level)
    }

    /// Raises the level as soon as everybody on the list can do better. It never falls: what is written at a level
    /// nobody below can read.
    pub(crate) fn raise_level(&mut self) {
        let Some(ballot) = self.leads_in().filter(|_| self.level() < self.cfg.levels.max) else { return };
        let Some(level) = self.common_level().filter(|level| *level > self.level()) else { return };
        // Who is being registered has to be asked first.
        let changes = |entry: &Entry| matches!(entry.kind, EntryKind::Members | EntryKind::Seal);
        if self.levels.asked == Some((ballot, level))
            || !self.paxos.can_propose()
            || self.ahead().any(changes)
        {
            return;
        }
        let commands = vec![self.own_command(Op::SetLevel(level))];
        let mut payload = Vec::new();
        Batch { time_ms: self.now.wall_ms, commands }.encode(&mut payload);
        if self.paxos.propose(EntryKind::Commands, payload.into()).is_ok() {
            self.levels.asked = Some((ballot, level));
        }
    }

    fn common_level(&self) -> Option<Level> {
        let members = self.registry.members().iter().map(|member| member.id);
        let others: Vec<MemberId> = members.filter(|id| *id != self.cfg.me).collect();
        let early = self.cfg.plant.raises_too_early();
        let enough = if early { self.registry.membership().majority() - 1 } else { others.len() };
        let own = self.cfg.levels.max;
        if enough == 0 {
            return Some(own);
        }
        self.levels.common(&others, enough).map(|level| level.min(own))
    }

    /// A batch that is above this member is not carried out, nor anything after it.
    pub(crate) fn can_apply(&mut self, slot: Slot, batch: &Batch) -> bool {
        let check = batch.raises_to().map_or(Ok(()), |level| LevelError::check(level, self.cfg.levels));
        if let Err(error) = &check {
            self.halt(format!("slot {slot}: {error}"));
        }
        check.is_ok()
    }

    /// A state that is above this member is not taken.
    pub(crate) fn can_take(&mut self, level: Level) -> bool {
        let check = LevelError::check(level, self.cfg.levels);
        if let Err(error) = &check {
            self.halt(format!("the leader's state: {error}"));
        }
        check.is_ok()
    }

    /// Peers are told the level when they greet.
    pub(crate) fn level_may_have_risen(&mut self, before: Level) {
        if self.level() != before {
            self.outputs.push_back(Output::Members);
        }
    }
}
