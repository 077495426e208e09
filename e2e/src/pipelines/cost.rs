//! What it costs that a Pipeline runs on several workers, and that it takes checkpoints.
//!
//! Owns the ways to run it that are compared, and what of each is counted. Must not know what workers say to each other.
//! Invariant: all ways write the same bytes, which are what the oracle says.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::input::{Input, OUTPUTS};
use super::stalls::Stalls;
use super::workers::{Job, Workers};
use super::{MEMBERS, Trials};
use crate::bench::{children_cpu_time, median};
use crate::local::LocalEnsemble;
use crate::netns::Host;

/// How long a run may take.
const LONGEST: Duration = Duration::from_secs(900);

/// A way to run it.
struct Way {
    name: &'static str,
    workers: usize,
    /// Whether each worker has one core; else all have all.
    pinned: bool,
    checkpoints: bool,
}

/// The first is what the others are compared with.
const WAYS: [Way; 4] = [
    Way { name: "one worker", workers: 1, pinned: false, checkpoints: false },
    Way { name: "one, checkpoint each second", workers: 1, pinned: false, checkpoints: true },
    Way { name: "two workers, one core each", workers: 2, pinned: true, checkpoints: false },
    Way { name: "two, checkpoint each second", workers: 2, pinned: true, checkpoints: true },
];

#[derive(Clone)]
struct Sample {
    cpu: Duration,
    wall: Duration,
    checkpoints: u64,
    stalls: Stalls,
}

/// Runs each way in turn and prints what it took.
///
/// # Errors
/// If a run does not come to its end, or writes anything but the oracle's rows.
pub fn cost(options: Trials) -> anyhow::Result<()> {
    let directory = tempfile::tempdir().context("cannot make a directory")?;
    let input = Input::write(directory.path(), options.rows, options.seed)?;
    let ensemble = LocalEnsemble::found(MEMBERS)?;
    let mut samples: [Vec<Sample>; WAYS.len()] = Default::default();
    let mut first = None;
    for round in 0..options.rounds {
        for (number, way) in WAYS.iter().enumerate() {
            let run_id = round * WAYS.len() + number;
            let place = directory.path().join(format!("run-{run_id}"));
            let job = Job::new(directory.path(), place, ensemble.hosts(), run_id)?;
            let (sample, outputs) = run(way, job).with_context(|| way.name)?;
            input.check(&outputs).with_context(|| way.name)?;
            ensure!(
                *first.get_or_insert_with(|| outputs.clone()) == outputs,
                "{} writes other bytes",
                way.name
            );
            samples[number].push(sample);
        }
    }
    print(options, input.rows, &samples);
    Ok(())
}

fn run(way: &Way, job: Job) -> anyhow::Result<(Sample, [Vec<u8>; 3])> {
    let checkpoints = job.checkpoints.clone().filter(|_| way.checkpoints);
    let job = Job { checkpoints, pinned: way.pinned, ..job };
    let (before, begin) = (children_cpu_time()?, Instant::now());
    let mut workers = Workers::start(job.clone(), &vec![Host::loopback(); way.workers], way.workers)?;
    let checkpoints = completed(&mut workers, way.workers).with_context(|| workers.describe())?;
    let stalls = workers.stalls()?;
    let wall = begin.elapsed();
    workers.all_end()?;
    let cpu = children_cpu_time()? - before;
    let outputs = job.outputs()?;
    std::fs::remove_dir_all(&job.directory).context("cannot remove a directory")?;
    Ok((Sample { cpu, wall, checkpoints, stalls }, outputs))
}

/// Waits until all say that the run is completed; how many checkpoints it took.
fn completed(workers: &mut Workers, count: usize) -> anyhow::Result<u64> {
    let mut together = 0;
    workers.wait("the end of a run", LONGEST, |workers| {
        ensure!(workers.ended == 0, "a worker has ended by itself");
        let seen = workers.look()?;
        together = together.max(seen.together);
        if seen.completed < count {
            return Ok(None);
        }
        ensure!(together == count, "{together} workers took part instead of {count}");
        Ok(Some(seen.epoch))
    })
}

fn print(options: Trials, rows: usize, samples: &[Vec<Sample>; WAYS.len()]) {
    println!("{rows} rows, three groupings, median of {}", options.rounds);
    println!(
        "{:<30}{:>12}{:>14}{:>10}{:>8}{:>14}",
        "", "CPU-seconds", "rows/CPU-s", "seconds", "ratio", "checkpoints"
    );
    let cpu = |samples: &[Sample]| median(samples.iter().map(|one| one.cpu.as_secs_f64()).collect());
    let least = cpu(&samples[0]);
    for (way, samples) in WAYS.iter().zip(samples) {
        let (cpu, rows) = (cpu(samples), rows as f64);
        let wall = median(samples.iter().map(|one| one.wall.as_secs_f64()).collect());
        let checkpoints = median(samples.iter().map(|one| one.checkpoints as f64).collect());
        println!(
            "{:<30}{cpu:>12.2}{:>14.0}{wall:>10.2}{:>8.2}{checkpoints:>14.0}",
            way.name,
            rows / cpu,
            cpu / least
        );
    }
    // Half of the rows are of keys that another of two workers has, for each grouping.
    let crossed = rows as f64 * OUTPUTS.len() as f64 / 2.0;
    let crossing = (cpu(&samples[2]) - least) / crossed * 1e9;
    println!("a row that goes to another worker: {crossing:.0} ns of CPU more, on both sides together");
    println!(
        "\nms that a barrier takes of a task, at most: a source waits for its place, others set their state aside"
    );
    println!("  {:<28}{:>12}{:>14}{:>14}{:>14}", "", "times", "half", "99 %", "all");
    for (way, samples) in WAYS.iter().zip(samples).filter(|(way, _)| way.checkpoints) {
        let mut all = Stalls::default();
        samples.iter().for_each(|sample| all.add(&sample.stalls));
        print!("{}\n{all}", way.name);
    }
}
