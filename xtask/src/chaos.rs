//! Real members under a workload and faults, from the workspace's own build: with assertions on.

use crate::artifacts::{self, RunDir};
use crate::layout::Layout;
use crate::setup;
use crate::shell::{run, step};

/// How long, how many, and which run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Minutes of faults.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Members of the Ensemble: 3, 5 or 7.
    #[arg(long, default_value_t = 3)]
    members: u8,
    /// What workload and faults follow from; a run prints its own.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What else the run takes; `./x chaos -- --help` lists it.
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Fails if the checker finds a violation.
pub(crate) fn run_chaos(layout: &Layout, options: &Options) -> anyhow::Result<()> {
    setup::cpp(layout)?;
    setup::networks()?;
    setup::announce_cold_build(layout);
    let copies = RunDir::create(layout)?;
    step("building members and clients", || {
        artifacts::binaries(layout, &copies, &["pharos-node", "pharos-e2e"])
    })?;
    let mut command = artifacts::program(&copies, "pharos-e2e");
    command.args(["chaos", "--minutes", &options.minutes.to_string()]);
    command.args(["--members", &options.members.to_string(), "--seed", &options.seed.to_string()]);
    run(command.args(&options.rest).env("PHAROS_ROOT", &layout.root).env("PHAROS_CACHE", &layout.cache))
}
