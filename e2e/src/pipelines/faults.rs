//! What is done to the workers of a run, when, and how it is healed.
//!
//! Owns the kinds and their order by seed. Must not know rows. Invariant: every kind comes once before any comes again;
//! before the next fault, or pair of faults, all are healed and there is a checkpoint that is newer.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::ValueEnum;
use clap::builder::PossibleValue;
use pharos_crowd::Rng;

use super::workers::{Seen, Workers};
use crate::local::LocalEnsemble;
use crate::netns::Network;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Fault {
    /// A worker is killed with SIGKILL and started again.
    Kill,
    /// The same of the one that leads.
    KillLead,
    /// The same of all at once.
    KillAll,
    /// A worker stops for a while (SIGSTOP).
    Stop,
    /// The same of the one that leads.
    StopLead,
    /// A worker is asked to end (SIGTERM) and comes back.
    Leave,
    /// One more worker comes and goes.
    Join,
    /// The leader of the Ensemble is killed with SIGKILL and started again.
    KillMember,
    /// No packets pass between a worker and all others, members of the Ensemble included.
    CutOff,
    /// The same of the one that leads.
    CutOffLead,
    /// No packets pass between a worker and the other workers.
    CutFromWorkers,
    /// No packets pass between a worker and the members of the Ensemble.
    CutFromEnsemble,
    /// Nothing that a worker sends reaches one other.
    CutOneWay,
}

impl Fault {
    const fn hits_the_lead(self) -> bool {
        matches!(self, Self::KillLead | Self::StopLead | Self::CutOffLead)
    }

    const fn cuts(self) -> bool {
        use Fault::{CutFromEnsemble, CutFromWorkers, CutOff, CutOffLead, CutOneWay};
        matches!(self, CutOff | CutOffLead | CutFromWorkers | CutFromEnsemble | CutOneWay)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.pad(value.as_ref().map_or("", PossibleValue::get_name))
    }
}

enum Heal {
    GoOn(usize),
    Dismiss(usize),
    Start(usize),
    Connect,
}

enum Phase {
    /// There is a fault then.
    Peace(Instant),
    /// It is not healed.
    Struck,
    /// It is, and there has to be a checkpoint after this one.
    Healed(u64),
}

/// What the workers run on. The hosts of the members come first.
pub(super) struct Ground {
    pub(super) ensemble: LocalEnsemble,
    pub(super) network: Network,
}

impl Ground {
    fn cut(&self, worker: usize, from: impl Iterator<Item = usize>) -> anyhow::Result<()> {
        let host = self.ensemble.size() + worker;
        for other in from.filter(|other| *other != host) {
            self.network.cut(other, host)?;
            self.network.cut(host, other)?;
        }
        Ok(())
    }
}

/// How often a fault came, and how long there was no new checkpoint each time that it was lived through.
#[derive(Debug, Default)]
pub(super) struct Toll {
    pub(super) times: usize,
    pub(super) quiet: Vec<Duration>,
}

/// Strikes the workers of one run after the other.
pub(super) struct Striker {
    rng: Rng,
    kinds: Vec<Fault>,
    left: Vec<Fault>,
    phase: Phase,
    open: Vec<(Instant, Heal)>,
    /// Since when there are which faults.
    now: Vec<(Fault, Instant)>,
    pub(super) tolls: BTreeMap<Fault, Toll>,
}

impl Striker {
    /// Strikes with these kinds, or all if there are none.
    pub(super) fn new(seed: u64, kinds: &[Fault]) -> Self {
        let kinds = if kinds.is_empty() { Fault::value_variants() } else { kinds }.to_vec();
        let (left, open, now) = (kinds.clone(), Vec::new(), Vec::new());
        let phase = Phase::Peace(Instant::now());
        Self { rng: Rng::new(seed), kinds, left, phase, open, now, tolls: BTreeMap::new() }
    }

    fn between(&mut self, least_ms: usize, most_ms: usize) -> Duration {
        Duration::from_millis((least_ms + self.rng.index(most_ms - least_ms)) as u64)
    }

    fn peace(&mut self) {
        self.phase = Phase::Peace(Instant::now() + self.between(1_500, 4_000));
    }

    /// A run begins.
    pub(super) fn begin(&mut self) {
        self.now.clear();
        self.peace();
    }

    /// Whether something is not healed, for a time that is bounded.
    pub(super) fn is_at_it(&self) -> bool {
        !self.open.is_empty()
    }

    /// Does what is due. `checkpoints` are those of the run so far, and when they were seen.
    pub(super) fn turn(
        &mut self,
        ground: &mut Ground,
        workers: &mut Workers,
        seen: &Seen,
        checkpoints: &[(u64, Instant)],
        may_strike: bool,
    ) -> anyhow::Result<()> {
        let now = Instant::now();
        self.heal(ground, workers, now)?;
        let newest = checkpoints.last().map_or(0, |(epoch, _)| *epoch);
        match self.phase {
            Phase::Peace(at) if now >= at && (may_strike || !self.now.is_empty()) => {
                self.strike(ground, workers, seen.lead)?;
            }
            Phase::Struck if self.open.is_empty() && workers.are_whole() => {
                self.phase = Phase::Healed(newest);
            }
            Phase::Healed(epoch) if newest > epoch => {
                for (fault, from) in std::mem::take(&mut self.now) {
                    self.tolls.entry(fault).or_default().quiet.push(longest_gap(checkpoints, from));
                }
                self.peace();
            }
            _ => {}
        }
        Ok(())
    }

    /// Strikes someone who is there. Every other time another fault comes while the workers live through this one.
    fn strike(
        &mut self,
        ground: &mut Ground,
        workers: &mut Workers,
        lead: Option<usize>,
    ) -> anyhow::Result<()> {
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
        }
        let running = workers.running();
        let possible = |fault: &Fault| lead.is_some() || !fault.hits_the_lead();
        let candidates: Vec<Fault> = self.left.iter().copied().filter(possible).collect();
        if running.is_empty() || candidates.is_empty() {
            return Ok(());
        }
        let fault = self.rng.pick(&candidates);
        self.left.retain(|left| *left != fault);
        let victim = lead.filter(|_| fault.hits_the_lead()).unwrap_or_else(|| self.rng.pick(&running));
        self.now.push((fault, Instant::now()));
        self.tolls.entry(fault).or_default().times += 1;
        self.hit(fault, victim, ground, workers).with_context(|| fault.to_string())?;
        let twice = self.now.len() == 1 && self.rng.one_in(2) && !self.left.is_empty();
        self.phase =
            if twice { Phase::Peace(Instant::now() + self.between(200, 1_500)) } else { Phase::Struck };
        Ok(())
    }

    fn hit(
        &mut self,
        fault: Fault,
        victim: usize,
        ground: &mut Ground,
        workers: &mut Workers,
    ) -> anyhow::Result<()> {
        let members = ground.ensemble.size();
        let hosts = ground.network.hosts().len();
        match fault {
            Fault::Kill | Fault::KillLead => workers.kill(victim, self.between(0, 1_500))?,
            Fault::KillAll => {
                for worker in workers.running() {
                    workers.kill(worker, self.between(0, 1_500))?;
                }
            }
            Fault::Stop | Fault::StopLead => {
                workers.stop(victim)?;
                self.until(2_000, 15_000, Heal::GoOn(victim));
            }
            Fault::Leave => workers.leave(victim, Some(self.between(500, 8_000)))?,
            Fault::Join => {
                let guest = workers.absent().context("there is a place for one more")?;
                workers.come(guest);
                self.until(4_000, 10_000, Heal::Dismiss(guest));
            }
            Fault::KillMember => {
                let leader = ground.ensemble.leader()?;
                ground.ensemble.kill(leader)?;
                self.until(500, 3_000, Heal::Start(leader));
            }
            Fault::CutOff | Fault::CutOffLead => ground.cut(victim, 0..hosts)?,
            Fault::CutFromWorkers => ground.cut(victim, members..hosts)?,
            Fault::CutFromEnsemble => ground.cut(victim, 0..members)?,
            Fault::CutOneWay => {
                let others: Vec<usize> =
                    workers.running().into_iter().filter(|other| *other != victim).collect();
                if !others.is_empty() {
                    ground.network.cut(members + victim, members + self.rng.pick(&others))?;
                }
            }
        }
        if fault.cuts() {
            self.until(2_000, 10_000, Heal::Connect);
        }
        Ok(())
    }

    /// Mostly soon, now and then late.
    fn until(&mut self, least_ms: usize, most_ms: usize, heal: Heal) {
        let most_ms = if self.rng.one_in(4) { most_ms } else { most_ms.min(least_ms + 3_000) };
        let at = Instant::now() + self.between(least_ms, most_ms);
        self.open.push((at, heal));
    }

    /// Heals all that is due by then.
    fn heal(&mut self, ground: &mut Ground, workers: &mut Workers, by: Instant) -> anyhow::Result<()> {
        for (_, heal) in self.open.extract_if(.., |(at, _)| *at <= by) {
            match heal {
                Heal::GoOn(worker) => workers.go_on(worker)?,
                Heal::Dismiss(worker) => workers.dismiss(worker)?,
                Heal::Connect => ground.network.heal()?,
                Heal::Start(member) => {
                    ground.ensemble.start(member)?;
                    // The next one that is killed must leave a quorum.
                    ground.ensemble.wait_serving(member)?;
                }
            }
        }
        Ok(())
    }

    /// The run is completed: everything is healed at once.
    pub(super) fn finish(&mut self, ground: &mut Ground, workers: &mut Workers) -> anyhow::Result<()> {
        let last = self.open.iter().map(|(at, _)| *at).max();
        last.map_or(Ok(()), |last| self.heal(ground, workers, last))?;
        ensure!(self.open.is_empty(), "everything is healed");
        Ok(())
    }
}

/// The longest time without a new checkpoint that has a part after `from`.
fn longest_gap(checkpoints: &[(u64, Instant)], from: Instant) -> Duration {
    let pairs = checkpoints.windows(2).map(|pair| (pair[0].1, pair[1].1));
    pairs.filter(|(_, after)| *after > from).map(|(before, after)| after - before).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_is_one_that_ends_after_the_fault_began() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let checkpoints = [(1, at(0)), (2, at(9_000)), (3, at(10_000)), (5, at(14_000)), (6, at(15_000))];
        assert_eq!(longest_gap(&checkpoints, at(9_500)), Duration::from_secs(4));
        assert_eq!(longest_gap(&checkpoints, at(16_000)), Duration::ZERO);
    }
}
