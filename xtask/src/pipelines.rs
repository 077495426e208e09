//! One Pipeline on many workers under faults, from the workspace's own build: with assertions on.

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
    /// Workers of a run.
    #[arg(long, default_value_t = 3)]
    workers: u8,
    /// What rows and faults follow from; a run prints its own.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What else the run takes; `./x pipelines -- --help` lists it.
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Fails if a row is lost or doubled, or if a run does not go on.
pub(crate) fn run_pipelines(layout: &Layout, options: &Options) -> anyhow::Result<()> {
    setup::cpp(layout)?;
    setup::networks()?;
    setup::announce_cold_build(layout);
    let copies = RunDir::create(layout)?;
    step("building workers and members", || {
        artifacts::binaries(layout, &copies, &["pharos-node", "pharos-e2e"])
    })?;
    let mut command = artifacts::program(&copies, "pharos-e2e");
    command.args(["pipelines", "--minutes", &options.minutes.to_string()]);
    command.args(["--workers", &options.workers.to_string(), "--seed", &options.seed.to_string()]);
    run(command.args(&options.rest).env("PHAROS_ROOT", &layout.root).env("PHAROS_CACHE", &layout.cache))
}
