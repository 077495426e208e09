//! Ours beside the real peers, on the same machine, in one run: numbers for people, never assertions.
//!
//! Owns the loads, the faults and how they are counted. Must not know the inside of any side: all are processes that are
//! given the same requests by the same client.

mod client;
mod etcd;
mod failover;
mod flights;
mod grpc;
mod load;
mod nexmark;
mod servers;
mod size;
mod table;
mod values;
mod zookeeper;

use std::time::Duration;

use anyhow::Context;

use table::Table;

pub use flights::pipeline;
pub use nexmark::{Nexmark, nexmark};
pub use servers::Side;
pub use values::{Values, values};

const MEMBERS: usize = 3;

/// What of an Ensemble is measured, and for how long.
#[derive(Clone, Debug)]
pub struct Effort {
    /// What is compared; ratios are those of the first to the others.
    pub sides: Vec<Side>,
    /// What is measured.
    pub parts: Vec<Part>,
    /// How long each load on each side is.
    pub load: Duration,
    /// How often each load is repeated; the median counts.
    pub rounds: usize,
    /// How often each fault befalls each side's leader.
    pub repetitions: usize,
    /// How many entries the size is measured with.
    pub entries: usize,
}

/// A part of the comparison of Ensembles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Writes and reads a second, their latency, the servers' time, writes for each fsync.
    Throughput,
    /// How long a writer waits when something happens to the leader.
    Failover,
    /// Memory, disk and restarts with many entries.
    Size,
}

impl Part {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Throughput, Self::Failover, Self::Size];
}

/// Three members of ours beside three servers of each peer.
///
/// # Errors
/// If one side does not do its work.
pub fn ensemble(effort: &Effort) -> anyhow::Result<()> {
    let mut table = Table::begin(&effort.sides)?;
    for part in &effort.parts {
        match part {
            Part::Throughput => load::measure(effort, &mut table)?,
            Part::Failover => failover::measure(effort, &mut table)?,
            Part::Size => size::measure(effort, &mut table)?,
        }
    }
    Ok(())
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// User and system time of a process and its threads so far.
fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    times(&format!("/proc/{pid}/stat"), 11)
}

/// The same of all children that this process has waited for.
pub(crate) fn children_cpu_time() -> anyhow::Result<Duration> {
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

/// The memory of a process that is in RAM, in bytes.
fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    let status = status.context("cannot read a process's memory")?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
    let kib: u64 = kib.context("a process has memory")?.parse().context("memory is a number")?;
    Ok(kib << 10)
}
