//! Ours beside the real peer, on the same machine, in one run: numbers for people, never assertions.
//!
//! Owns the loads and how they are counted. Must not know the inside of either side: both are processes that are given
//! the same requests by the same client.

mod failover;
mod flights;
mod load;
mod servers;
mod values;

use std::time::Duration;

use anyhow::Context;

use crate::local::LocalEnsemble;
use load::{Operation, Sample, Shape};
use servers::RealEnsemble;

pub use flights::pipeline;
pub use values::{Values, values, znodes};

const SHAPES: [Shape; 2] =
    [Shape { connections: 1, outstanding: 1 }, Shape { connections: 16, outstanding: 16 }];
const MEMBERS: usize = 3;

/// How long an Ensemble is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Of each load on each side.
    pub load: Duration,
    /// How often each load is repeated; the median counts.
    pub rounds: usize,
    /// How often the leader is killed on each side.
    pub kills: usize,
}

/// Three local members beside three local ZooKeeper servers: writes and reads per second, CPU per request, and how long
/// a writer waits when the leader is killed.
///
/// # Errors
/// If one side does not do its work.
pub fn ensemble(effort: Effort) -> anyhow::Result<()> {
    let mut ours = LocalEnsemble::found(MEMBERS)?;
    let mut real = RealEnsemble::start(MEMBERS)?;
    println!(
        "{MEMBERS} members each, values of {} bytes, {:?} a load, median of {} rounds\n",
        load::VALUE,
        effort.load,
        effort.rounds
    );
    println!("{:<24}{:>14}{:>14}{:>8}", "", "Pharos", "ZooKeeper", "ratio");
    for operation in [Operation::Write, Operation::Read] {
        for shape in SHAPES {
            let (mut of_ours, mut of_real) = (Vec::new(), Vec::new());
            for _ in 0..effort.rounds {
                of_ours.push(load::run(&ours, shape, operation, effort.load)?);
                of_real.push(load::run(&real, shape, operation, effort.load)?);
            }
            let name = format!("{operation} {shape}");
            line(&name, "per second", &of_ours, &of_real, |sample| sample.per_second);
            line(&name, "p50 µs", &of_ours, &of_real, |sample| sample.p50_us);
            line(&name, "p99 µs", &of_ours, &of_real, |sample| sample.p99_us);
            line(&name, "CPU µs", &of_ours, &of_real, |sample| sample.cpu_us);
        }
    }
    let of_ours = failover::gaps(&mut ours, effort.kills)?;
    let of_real = failover::gaps(&mut real, effort.kills)?;
    println!("\nkill -9 of the leader, {} times: ms without an acknowledged write", effort.kills);
    for (name, gaps) in [("Pharos", of_ours), ("ZooKeeper", of_real)] {
        let ms: Vec<f64> = gaps.iter().map(|gap| gap.as_secs_f64() * 1e3).collect();
        let worst = ms.iter().copied().fold(0.0, f64::max);
        println!("{name:<12} median {:>7.0}   worst {worst:>7.0}", median(ms));
    }
    Ok(())
}

fn line(load: &str, what: &str, ours: &[Sample], real: &[Sample], pick: impl Fn(&Sample) -> f64) {
    let (ours, real) = (median(ours.iter().map(&pick).collect()), median(real.iter().map(&pick).collect()));
    println!("{load:<13}{what:<11}{ours:>14.0}{real:>14.0}{:>8.2}", ours / real);
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// User and system time of a process and its threads so far.
fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    times(&format!("/proc/{pid}/stat"), 11)
}

/// The same of all children that this process has waited for.
fn children_cpu_time() -> anyhow::Result<Duration> {
    times("/proc/self/stat", 13)
}

fn times(stat: &str, first: usize) -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string(stat).context("cannot read a process's times")?;
    // The name before may hold spaces and parentheses.
    let (_, fields) = text.rsplit_once(") ").context("a process has a name")?;
    let ticks = fields.split_whitespace().skip(first).take(2).map(str::parse::<u64>);
    let ticks = ticks.sum::<Result<u64, _>>().context("a process's times are numbers")?;
    // Hundredths for every program, whatever the kernel's own clock.
    Ok(Duration::from_millis(ticks * 10))
}
