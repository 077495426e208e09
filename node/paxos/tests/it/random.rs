//! Random schedules: loss, duplication, reordering, partitions, crashes that lose unsynced writes,
//! restarts, hand-overs, trims; then everything heals and the group must converge.
//!
//! With `cargo test -p pharos-paxos --features planted-bugs` each planted bug must be found by the very
//! same schedules.

use crate::net::{Flight, Net};
use pharos_paxos::{Config, MemberId, Millis, Plant, Slot};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// splitmix64
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.roll() % n.max(1) as u64) as usize
    }

    fn percent(&mut self, p: usize) -> bool {
        self.below(100) < p
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// What a run has met.
#[derive(Debug, Default, PartialEq, Eq)]
struct Met {
    chosen: u64,
    reads: usize,
    ballots: u64,
    crashes: usize,
    lost_writes: usize,
    installs: usize,
    configurations: usize,
    trace: u64,
}

struct Run {
    net: Net,
    dice: Dice,
    proposals: u64,
    met: Met,
    /// How much of the schedule is trouble: runs differ.
    trouble: usize,
    /// Whether machines come and go.
    machines: bool,
    /// How many of a hundred chances the disks let pass.
    slow: usize,
    /// Links that deliver nothing until then, and lose nothing.
    clogged: BTreeMap<(u32, u32), u64>,
    /// Disks that do nothing until then.
    stalled: BTreeMap<u32, u64>,
}

const STEPS: usize = 4000;

fn run(seed: u64, members: u32, plant: Plant) -> Met {
    let mut dice = Dice(seed);
    let machines = dice.pick(&[false, true]);
    let trouble = dice.pick(&[5, 15, 30]);
    // Delays as long as the timeouts make two leaders at once usual.
    let (heartbeat, election) = dice.pick(&[(50, 500), (20, 100), (20, 60)]);
    let change = |cfg: &mut Config| {
        (cfg.heartbeat, cfg.election) = (Millis(heartbeat), Millis(election));
        cfg.seed = seed;
        cfg.plant = plant;
        cfg.chunk_bytes = 80;
        cfg.window_slots = 8;
        cfg.window_bytes = 200;
    };
    let slow = dice.pick(&[0, 50, 80]);
    let mut run = Run {
        net: Net::with(members, change),
        dice,
        proposals: 0,
        met: Met::default(),
        trouble,
        machines,
        slow,
        clogged: BTreeMap::new(),
        stalled: BTreeMap::new(),
    };
    for _ in 0..STEPS {
        run.step();
        run.net.check();
    }
    run.converge();
    run.met.chosen = run.net.oracle.last_chosen().0;
    run.met.configurations = run.net.oracle.seals.len();
    run.met.reads = run.net.oracle.reads_answered;
    run.met.trace = run.net.trace;
    run.met
}

impl Run {
    fn step(&mut self) {
        match self.dice.below(1000) {
            0..480 => self.wire(),
            480..720 => self.sync(),
            720..840 => {
                let ms = 1 + self.dice.below(20) as u64;
                self.net.tick(ms);
            }
            840..850 => self.install(),
            850..930 => self.propose(),
            930..945 => self.read(),
            945..950 if self.machines => self.machines(),
            950..1000 if self.dice.percent(self.trouble) => self.trouble(),
            _ => {}
        }
    }

    fn any(&mut self) -> u32 {
        let ids = self.net.ids();
        self.dice.pick(&ids)
    }

    fn wire(&mut self) {
        let flows = |f: &Flight| self.clogged.get(&(f.from, f.to)).is_none_or(|until| *until <= self.net.now);
        let ready: Vec<usize> = (0..self.net.wire.len()).filter(|&i| flows(&self.net.wire[i])).collect();
        if ready.is_empty() {
            return;
        }
        let ordered = !self.dice.percent(self.trouble);
        let index = if ordered { ready[0] } else { self.dice.pick(&ready) };
        match self.dice.below(100) {
            0..2 => drop(self.net.wire.remove(index)),
            2..5 => {
                let again = self.net.wire[index].clone();
                self.net.wire.push(again);
                self.net.deliver(index);
            }
            _ => self.net.deliver(index),
        }
        if self.net.wire.len() > 600 {
            self.net.wire.drain(..200); // A queue somewhere overflows.
        }
    }

    fn clog(&mut self, id: u32, other: u32) {
        let until = self.net.now + 50 + self.dice.below(900) as u64;
        self.clogged.insert((id, other), until);
    }

    fn sync(&mut self) {
        let id = self.any();
        let stalled = self.stalled.get(&id).is_some_and(|until| *until > self.net.now);
        if !stalled && !self.dice.percent(self.slow) {
            let count = 1 + self.dice.below(3);
            self.net.sync(id, count);
        }
    }

    /// One proposal to whoever leads, or as many as the window takes: whoever leads alone has a long log then.
    fn propose(&mut self) {
        let most = if self.dice.percent(10) { 8 } else { 1 };
        for id in self.net.ids().into_iter().flat_map(|id| std::iter::repeat_n(id, most)) {
            if self.net.alive(id) && self.net.core(id).can_propose() {
                self.proposals += 1;
                let payload = format!("p{}", self.proposals);
                self.net.propose(id, &payload).expect("it can propose");
            }
        }
    }

    fn read(&mut self) {
        let id = self.any();
        if self.net.alive(id) {
            self.net.read(id);
        }
    }

    fn trouble(&mut self) {
        let (id, other) = (self.any(), self.any());
        match self.dice.below(100) {
            0..20 => self.crash(id),
            20..30 => {
                let until = self.net.now + 100 + self.dice.below(700) as u64;
                self.stalled.insert(id, until);
            }
            30..55 => self.restart_all(),
            55..62 => self.net.isolate(id),
            62..70 => self.clog(id, other),
            70..75 => drop(self.net.cut.insert((id, other))),
            75..84 => self.net.heal(),
            84..92 if self.net.alive(id) => {
                self.net.core_mut(id).transfer(MemberId(other));
                self.net.collect(id);
            }
            92..96 if self.net.alive(id) => {
                self.net.core_mut(id).peer_lost(MemberId(other));
                self.net.collect(id);
            }
            96..100 => self.trim(id),
            _ => {}
        }
    }

    fn crash(&mut self, id: u32) {
        let pending = self.net.disk(id).pending.len();
        let survive = self.dice.below(pending + 1);
        self.met.crashes += usize::from(self.net.alive(id));
        self.met.lost_writes += pending - survive;
        self.net.crash(id, survive);
    }

    fn restart_all(&mut self) {
        for id in self.net.ids() {
            if !self.net.alive(id) {
                self.net.boot(id);
            }
        }
    }

    /// Mostly what every disk has; else some will need the state.
    fn trim(&mut self, id: u32) {
        let everywhere = self.net.nodes.values().map(|n| n.disk.hard.committed).min().expect("members");
        let all = self.dice.percent(30);
        if self.net.alive(id) {
            let core = self.net.core_mut(id);
            let known = core.committed().min(core.durable());
            let upto = if all { known } else { known.min(everywhere) };
            core.trim(upto);
            let stored = core.membership().clone();
            let node = self.net.nodes.get_mut(&id).expect("a member");
            if upto > node.disk.trimmed {
                node.disk.entries = node.disk.entries.split_off(&upto.next());
                node.disk.trimmed = upto;
                node.stored = stored;
            }
        }
    }

    fn install(&mut self) {
        for leader in self.net.leaders() {
            let behind: Vec<_> = self.net.core(leader).behind().map(|member| member.0).collect();
            if !behind.is_empty() {
                let to = self.dice.pick(&behind);
                self.met.installs += usize::from(self.net.install(leader, to));
            }
        }
    }

    /// Another machine, or another configuration of those there are.
    fn machines(&mut self) {
        let ids = self.net.ids();
        if ids.len() < 9 && self.dice.percent(30) {
            return self.net.join(ids.len() as u32 + 1);
        }
        for leader in self.net.leaders() {
            for _ in 0..20 {
                // Many are refused, for somebody has not caught up.
                let voters: Vec<u32> = ids.iter().copied().filter(|_| self.dice.percent(50)).collect();
                if self.net.reconfigure(leader, &voters).is_ok() {
                    break;
                }
            }
        }
    }

    fn converge(&mut self) {
        self.net.heal();
        self.restart_all();
        for _ in 0..100 {
            self.net.run(100);
            self.net.install_all();
            if let [leader] = self.net.leaders()[..] {
                let end = self.net.core(leader).last_slot();
                let done =
                    |id: &u32| self.net.core(*id).committed() == end && self.net.core(*id).durable() == end;
                let membership = self.net.membership();
                let fed =
                    |id: &&u32| membership.has(MemberId(**id)) || self.net.learners.contains(&MemberId(**id));
                if self.net.ids().iter().filter(fed).all(done) && self.net.core(leader).can_propose() {
                    self.net.propose(leader, "last").expect("a settled leader takes a proposal");
                    self.net.run(100);
                    assert_eq!(self.net.core(leader).committed(), end.next(), "the group goes on");
                    self.met.ballots = self.net.core(leader).ballot().round;
                    return;
                }
            }
        }
        let all: Vec<_> =
            self.net.ids().into_iter().map(|id| format!("{:?}\n", self.net.core(id).status())).collect();
        panic!("the group does not converge: {}", all.concat());
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        max_shrink_iters: 0,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_schedules_keep_agreement_and_converge(seed: u64, members in 3..=5_u32) {
        run(seed, members, Plant::None);
    }
}

#[test]
fn fixed_seeds_meet_every_kind_of_trouble() {
    let mut all = Met::default();
    for seed in 0..30 {
        let met = run(seed, 3 + (seed % 3) as u32, Plant::None);
        all.chosen += met.chosen;
        all.reads += met.reads;
        all.ballots += met.ballots;
        all.crashes += met.crashes;
        all.configurations += met.configurations;
        all.installs += met.installs;
        all.lost_writes += met.lost_writes;
    }
    assert!(all.chosen > 1000 && all.reads > 200 && all.ballots > 150, "{all:?}");
    assert!(all.configurations > 8 && all.installs > 15, "{all:?}");
    assert!(all.crashes > 60 && all.lost_writes > 15, "{all:?}");
}

#[test]
fn two_runs_of_one_seed_give_the_same_outputs() {
    for seed in [3, 4] {
        assert_eq!(run(seed, 3, Plant::None), run(seed, 3, Plant::None));
    }
}

#[test]
fn a_single_member_goes_through_crashes() {
    for seed in 0..5 {
        assert!(run(seed, 1, Plant::None).chosen > Slot(3).0);
    }
}

#[cfg(feature = "planted-bugs")]
#[test]
fn every_planted_bug_is_found() {
    const SEEDS: u64 = 3000;
    let mut missed = vec![];
    for &plant in Plant::ALL {
        let members = |seed: u64| 3 + (seed % 3) as u32;
        let found = (0..SEEDS).find(|&seed| {
            std::panic::catch_unwind(|| run(seed, members(seed), plant))
                .inspect_err(|why| {
                    let text = why.downcast_ref::<String>().cloned();
                    let text = text.or_else(|| why.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                    println!("{plant:?}: seed {seed}: {}", text.unwrap_or_default());
                })
                .is_err()
        });
        if found.is_none() {
            missed.push(plant);
        }
    }
    assert_eq!(missed, vec![], "not found within {SEEDS} seeds");
}
