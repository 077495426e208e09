//! What is done to the members: kills, pauses, restarts.
//!
//! Owns the schedule by seed. Must not know the workload. Invariant: every fault is healed before the next one, so that
//! a correct ensemble serves again.

use std::collections::BTreeMap;
use std::fmt;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::command::output;
use crate::local::LocalEnsemble;
use pharos_crowd::Rng;

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
        })
    }
}

/// How often each fault happened.
pub(super) type Counts = BTreeMap<Fault, usize>;

/// Kinds of faults, and how often each comes beside the others.
pub type Chances = &'static [(usize, Fault)];

/// All there are.
pub const ANY: Chances = &[
    (3, Fault::Kill),
    (4, Fault::KillLeader),
    (1, Fault::KillAll),
    (3, Fault::Pause),
    (4, Fault::PauseLeader),
    (1, Fault::RollingRestart),
    (2, Fault::Replace),
];

/// Those that leave a quorum, so that few answers are lost and little is left to inference.
pub const ONE_MEMBER: Chances = &[
    (3, Fault::Kill),
    (4, Fault::KillLeader),
    (3, Fault::Pause),
    (4, Fault::PauseLeader),
    (1, Fault::RollingRestart),
    (2, Fault::Replace),
];

/// Injects faults until each kind was met and the time is over; all members serve when this returns.
pub(super) fn inject(
    ensemble: &mut LocalEnsemble,
    rng: &mut Rng,
    chances: Chances,
    length: Duration,
) -> anyhow::Result<Counts> {
    let start = Instant::now();
    let mut counts = Counts::new();
    // The first round goes through all kinds.
    let mut first: Vec<Fault> = chances.iter().map(|(_, fault)| *fault).collect();
    while !first.is_empty() || start.elapsed() < length {
        pause(rng, 800, 3_000);
        let fault =
            if first.is_empty() { rng.weighted(chances) } else { first.remove(rng.index(first.len())) };
        let at = start.elapsed().as_secs_f64();
        one(ensemble, fault, rng).with_context(|| format!("{fault}, {at:.1} s after the start"))?;
        *counts.entry(fault).or_default() += 1;
    }
    for member in 0..ensemble.size() {
        ensemble.wait_serving(member)?;
    }
    Ok(counts)
}

fn one(ensemble: &mut LocalEnsemble, fault: Fault, rng: &mut Rng) -> anyhow::Result<()> {
    let any = rng.index(ensemble.size());
    match fault {
        Fault::Kill => restart(ensemble, &[any], rng),
        Fault::KillLeader => {
            let leader = ensemble.leader()?;
            restart(ensemble, &[leader], rng)
        }
        Fault::KillAll => restart(ensemble, &(0..ensemble.size()).collect::<Vec<_>>(), rng),
        Fault::Pause => stop(ensemble, any, rng),
        Fault::PauseLeader => {
            let leader = ensemble.leader()?;
            stop(ensemble, leader, rng)
        }
        Fault::Replace => {
            // The others have to be a quorum with all that was acknowledged.
            (0..ensemble.size()).try_for_each(|member| ensemble.wait_serving(member))?;
            ensemble.replace(any)
        }
        Fault::RollingRestart => (0..ensemble.size()).try_for_each(|member| {
            restart(ensemble, &[member], rng)?;
            ensemble.wait_serving(member)
        }),
    }
}

fn restart(ensemble: &mut LocalEnsemble, members: &[usize], rng: &mut Rng) -> anyhow::Result<()> {
    members.iter().try_for_each(|member| ensemble.kill(*member))?;
    pause(rng, 0, 1_500);
    members.iter().try_for_each(|member| ensemble.start(*member))
}

fn stop(ensemble: &LocalEnsemble, member: usize, rng: &mut Rng) -> anyhow::Result<()> {
    let pid = ensemble.pid(member).context("the member does not run")?.to_string();
    output(Command::new("kill").args(["-STOP", &pid]))?;
    pause(rng, 100, 5_000);
    output(Command::new("kill").args(["-CONT", &pid])).map(drop)
}

/// The length of a fault, or of the peace before it.
fn pause(rng: &mut Rng, least_ms: usize, most_ms: usize) {
    std::thread::sleep(Duration::from_millis((least_ms + rng.index(most_ms - least_ms)) as u64));
}
