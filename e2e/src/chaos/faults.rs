//! What is done to the members, and in which order.
//!
//! Owns the kinds of faults and the schedule by seed. Must not know the workload, nor how a fault is done (`strike`).
//! Invariant: every kind comes once before any comes again, and each is healed before the next.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::client::Clock;
use super::strike::{Field, pause};
use pharos_crowd::Rng;
use pharos_history::Micros;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A member is killed with SIGKILL and started again.
    Kill,
    /// The same of the leader.
    KillLeader,
    /// All members at once.
    KillAll,
    /// A member stops for a while (SIGSTOP).
    Pause,
    /// The same of the leader.
    PauseLeader,
    /// One member after the other is killed and started again.
    RollingRestart,
    /// A member is killed and loses its volume; a new member takes its place and its vote.
    Replace,
    /// A new member comes, takes the vote of another, which leaves and joins again.
    Exchange,
    /// No packets pass between a member and the others.
    Isolate,
    /// The same of the leader.
    IsolateLeader,
    /// No packets pass between a minority with the leader, and the rest.
    Halves,
    /// Nothing that the others send reaches a member.
    Deaf,
    /// The same of the leader.
    DeafLeader,
    /// Nothing that a member sends reaches the others.
    Mute,
    /// The same of the leader.
    MuteLeader,
    /// No packets pass between the leader and one other.
    CutLink,
    /// Nothing that the leader sends reaches one other.
    CutOneWay,
    /// Each member reaches its two neighbours in a row alone, and the leader is at an end.
    Chain,
    /// All packets but those to and from one member, not the leader, are dropped.
    QuorumLoss,
    /// A member's disk is slow.
    SlowDisk,
    /// The leader's disk hangs.
    HungLeaderDisk,
    /// The disk of a member that does not lead hangs.
    HungDisk,
    /// All disks hang.
    HungDisks,
    /// A member's disk is full.
    FullDisk,
    /// The leader's disk is full.
    FullLeaderDisk,
    /// All disks are full.
    FullDisks,
    /// The log of a member is cut while it does not run.
    CutLog,
    /// One bit of its log is turned over.
    FlippedLog,
    /// One of its store's files is cut.
    CutStore,
    /// One bit of its store is turned over.
    FlippedStore,
}

/// What a fault takes that not every machine has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing.
    Nothing,
    /// A file system that freezes.
    Freezing,
    /// Five members or more.
    Five,
}

impl Fault {
    /// All there are.
    pub const ALL: [Self; 30] = [
        Self::Kill,
        Self::KillLeader,
        Self::KillAll,
        Self::Pause,
        Self::PauseLeader,
        Self::RollingRestart,
        Self::Replace,
        Self::Exchange,
        Self::Isolate,
        Self::IsolateLeader,
        Self::Halves,
        Self::Deaf,
        Self::DeafLeader,
        Self::Mute,
        Self::MuteLeader,
        Self::CutLink,
        Self::CutOneWay,
        Self::Chain,
        Self::QuorumLoss,
        Self::SlowDisk,
        Self::HungLeaderDisk,
        Self::HungDisk,
        Self::HungDisks,
        Self::FullDisk,
        Self::FullLeaderDisk,
        Self::FullDisks,
        Self::CutLog,
        Self::FlippedLog,
        Self::CutStore,
        Self::FlippedStore,
    ];

    /// In a word, for the command line.
    #[must_use]
    pub fn name(self) -> String {
        // `KillLeader` is `kill-leader`.
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.extend(letter.to_lowercase());
        }
        name
    }

    /// The kind of that name.
    ///
    /// # Errors
    /// If there is none.
    pub fn named(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|fault| fault.name() == text);
        found.ok_or_else(|| {
            format!("there is no such fault; there are: {}", Self::ALL.map(Self::name).join(" "))
        })
    }

    pub(super) fn needs(self) -> Needs {
        match self {
            Self::SlowDisk | Self::HungLeaderDisk | Self::HungDisk | Self::HungDisks => Needs::Freezing,
            Self::QuorumLoss => Needs::Five,
            _ => Needs::Nothing,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill -9 of a member",
            Self::KillLeader => "kill -9 of the leader",
            Self::KillAll => "kill -9 of all members",
            Self::Pause => "SIGSTOP of a member",
            Self::PauseLeader => "SIGSTOP of the leader",
            Self::RollingRestart => "rolling restart",
            Self::Replace => "a volume lost",
            Self::Exchange => "a member exchanged and back",
            Self::Isolate => "a member cut off",
            Self::IsolateLeader => "the leader cut off",
            Self::Halves => "the leader in a minority",
            Self::Deaf => "a member deaf",
            Self::DeafLeader => "the leader deaf",
            Self::Mute => "a member mute",
            Self::MuteLeader => "the leader mute",
            Self::CutLink => "one link of the leader cut",
            Self::CutOneWay => "the same, one way",
            Self::Chain => "members in a chain",
            Self::QuorumLoss => "all links but one member's cut",
            Self::SlowDisk => "a slow disk",
            Self::HungLeaderDisk => "the leader's disk hung",
            Self::HungDisk => "another disk hung",
            Self::HungDisks => "all disks hung",
            Self::FullDisk => "a full disk",
            Self::FullLeaderDisk => "the leader's disk full",
            Self::FullDisks => "all disks full",
            Self::CutLog => "a log cut",
            Self::FlippedLog => "a bit of a log",
            Self::CutStore => "a store's file cut",
            Self::FlippedStore => "a bit of a store",
        })
    }
}

/// One that happened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) fault: Fault,
    pub(super) from: Micros,
    /// When it was healed.
    pub(super) until: Micros,
}

/// The order of faults over all windows of a run.
pub(super) struct Schedule {
    kinds: Vec<Fault>,
    left: Vec<Fault>,
}

impl Schedule {
    pub(super) fn of(kinds: Vec<Fault>) -> Self {
        Self { kinds, left: Vec::new() }
    }

    fn next(&mut self, rng: &mut Rng) -> Fault {
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
        }
        self.left.swap_remove(rng.index(self.left.len()))
    }

    /// Injects faults until the time is over; all members serve when this returns.
    pub(super) fn inject(
        &mut self,
        field: &mut Field,
        rng: &mut Rng,
        clock: Clock,
        length: Duration,
    ) -> anyhow::Result<Vec<Span>> {
        let start = Instant::now();
        let mut spans = Vec::new();
        while start.elapsed() < length {
            pause(rng, 400, 2_000);
            let fault = self.next(rng);
            let from = clock.now();
            field
                .strike(fault, rng)
                .with_context(|| format!("{fault}, {:.1} s after the start", seconds(from)))?;
            spans.push(Span { fault, from, until: clock.now() });
            field
                .all_serve()
                .with_context(|| format!("after {fault}, {:.1} s after the start", seconds(from)))?;
        }
        Ok(spans)
    }
}

fn seconds(at: Micros) -> f64 {
    at.0 as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_name_and_comes_once_before_any_comes_again() {
        let mut names: Vec<String> = Fault::ALL.map(Fault::name).to_vec();
        assert!(names.iter().all(|name| Fault::named(name).is_ok_and(|fault| fault.name() == *name)));
        assert!(names.contains(&"hung-leader-disk".to_owned()));
        assert!(Fault::named("nothing").unwrap_err().contains("kill-leader"));
        let (mut schedule, mut rng) = (Schedule::of(Fault::ALL.to_vec()), Rng::new(3));
        let mut drawn: Vec<String> = (0..Fault::ALL.len()).map(|_| schedule.next(&mut rng).name()).collect();
        drawn.sort_unstable();
        names.sort_unstable();
        assert_eq!(drawn, names);
    }
}
