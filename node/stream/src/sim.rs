//! A seeded simulator of whole runs: workers that come, go, die and are cut off, over a simulated Ensemble,
//! store and network.
//!
//! Owns: virtual time and faults around the shipped driver, control, coordinator, tasks, channels, state
//! files and manifests, and around the shipped rules for lost answers of the Ensemble.
//! Must not know: sockets, threads, files.
//! Invariant: a seed reproduces its run. After each, what is visible is what an oracle says and what one
//! worker alone writes; while it lasts, every checkpoint that counts is whole.

mod data;
mod ensemble;
mod faults;
mod network;
mod process;
mod rng;
mod store;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::plant::{Plant, plant};
use rng::Rng;
use world::{Counts, Event, World};

/// By then the run must be done, once nothing goes wrong any more.
const PATIENCE: Duration = Duration::from_secs(600);

/// A run, and what was wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ran {
    counts: Counts,
    /// How long it took in virtual time.
    time: Duration,
    violation: Option<String>,
}

/// Runs the input of `seed` on some workers, with faults.
fn run(seed: u64) -> Ran {
    let mut rng = Rng::new(seed);
    let splits = data::splits(&mut rng);
    let input =
        || splits.iter().map(|(rows, records)| (Arc::new(rows.clone()), *records)).collect::<Vec<_>>();
    // The bytes that one worker writes whom nothing disturbs.
    world::begin(Rng::new(seed), input(), Duration::from_secs(1));
    let calm = finish(1, Duration::ZERO);
    if calm.violation.is_some() {
        return ran(calm);
    }
    let expected = data::expected(&splits);
    let written: BTreeMap<String, Vec<String>> =
        calm.visible.iter().map(|(path, bytes)| (path.clone(), lines(bytes))).collect();
    if written != expected {
        let violation = Some(format!("one worker writes {written:?} instead of {expected:?}"));
        return Ran { violation, ..ran(calm) };
    }
    let interval = Duration::from_millis(rng.pick(&[0, 50, 300, 1_000]));
    let hosts = rng.between(1, 4) as usize;
    let wild = Duration::from_millis(rng.pick(&[1_000, 10_000, 60_000]));
    world::begin(rng, input(), interval);
    let storm = finish(hosts, wild);
    let violation = storm.violation.clone().or_else(|| {
        (storm.visible != calm.visible).then(|| "other bytes are visible than one worker writes".to_owned())
    });
    Ran { violation, ..ran(storm) }
}

fn lines(bytes: &[u8]) -> Vec<String> {
    let mut lines: Vec<String> = String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

fn ran(world: World) -> Ran {
    Ran { counts: world.counts, time: world.now, violation: world.violation }
}

/// Lets so many hosts work until the run is done; so long things go wrong.
fn finish(hosts: usize, wild: Duration) -> World {
    world::with(|world| {
        world.hosts = hosts;
        world.wild = !wild.is_zero();
        for host in 0..hosts {
            let delay = world.rng.below(2_000_000);
            world.after(delay, Event::Start(host));
        }
        if world.wild {
            world.after(500_000, Event::Fault);
        }
    });
    let over = |world: &World| world.ensemble.is_completed() && world.processes.is_empty();
    world::run_until(wild, &over);
    world::with(|world| world.wild = false);
    world::run_until(wild + PATIENCE, &over);
    world::with(|world| {
        if !over(world) {
            let process = |process: &world::Process| process.member.name.clone();
            let there: Vec<String> = world.processes.values().map(process).collect();
            world.violate(format!(
                "the run is not done after {PATIENCE:?} without faults; {there:?} are there"
            ));
        }
    });
    world::end()
}

/// The seeds to try: those of the gate, or as `PHAROS_STREAM_SEEDS` says, `17` or `1000..2000`.
fn seeds(of: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("PHAROS_STREAM_SEEDS") else { return of };
    let number = |text: &str| text.parse().expect("PHAROS_STREAM_SEEDS is a seed, or `from..to`");
    match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => number(&text)..number(&text) + 1,
    }
}

/// Everything that can go wrong, and what can come of it.
const KINDS: [&str; 15] = [
    "kill",
    "host lost",
    "kill all",
    "killed in a step",
    "pause",
    "leave",
    "join",
    "cut off from workers",
    "cut off from the Ensemble",
    "slow upload",
    "request lost",
    "answer lost",
    "session over",
    "link silent",
    "left",
];

#[test]
fn whatever_happens_to_workers_the_bytes_are_those_of_one() {
    let seeds = seeds(1..1_001);
    let (mut met, mut events, mut checkpoints, mut attempts) = (Counts::default(), 0, 0, 0);
    for seed in seeds.clone() {
        let ran = run(seed);
        if let Some(violation) = ran.violation {
            panic!("PHAROS_STREAM_SEEDS={seed}: {violation}: {:?}", ran.counts);
        }
        events += ran.counts.events;
        checkpoints += ran.counts.checkpoints;
        attempts += ran.counts.attempts;
        for (kind, count) in ran.counts.by_kind {
            *met.by_kind.entry(kind).or_default() += count;
        }
    }
    println!(
        "seeds {seeds:?}: {events} events, {checkpoints} checkpoints, {attempts} attempts: {:?}",
        met.by_kind
    );
    if seeds.end - seeds.start >= 1_000 {
        let missed: Vec<&str> = KINDS.into_iter().filter(|kind| !met.by_kind.contains_key(kind)).collect();
        assert!(missed.is_empty(), "{missed:?} never happened");
    }
}

#[test]
fn a_seed_gives_the_same_run_again() {
    assert_eq!(run(14), run(14));
}

/// How many seeds a planted bug may take.
const MOST: u64 = 1_000;

#[test]
fn every_planted_bug_is_seen() {
    let mut unseen = Vec::new();
    for bug in Plant::ALL {
        plant(Some(*bug));
        let seen = (1..=MOST).find_map(|seed| Some((seed, run(seed).violation?)));
        plant(None);
        match seen {
            None => unseen.push(*bug),
            Some((seed, violation)) => println!("{bug:?}: seed {seed}: {violation:.200}"),
        }
    }
    assert!(unseen.is_empty(), "{unseen:?} are not seen in {MOST} seeds");
}

#[test]
fn every_bug_that_can_be_planted_stands_in_the_table_and_nothing_else_does() {
    let table = include_str!("../../../docs/planted-bugs-pipeline.md");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let mut told: Vec<String> = rows.map(str::to_owned).collect();
    let mut planted: Vec<String> = Plant::ALL.iter().map(|plant| format!("{plant:?}")).collect();
    told.sort();
    planted.sort();
    assert_eq!(told, planted);
}
