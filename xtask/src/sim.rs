//! The seeded simulator: built with optimisation and with assertions.

use crate::artifacts::{self, RunDir};
use crate::layout::Layout;
use crate::shell::{self, step};

/// Which clusters are simulated.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How many seeds are run, one after the other.
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// The first seed; a failing run prints its own.
    #[arg(long)]
    seed: Option<u64>,
    /// What else the simulator takes; `./x sim -- --help` lists it.
    #[arg(last = true)]
    rest: Vec<String>,
}

impl Options {
    /// What the gate runs.
    pub(crate) fn gate() -> Self {
        Self { seeds: 500, seed: None, rest: Vec::new() }
    }
}

/// Runs the simulator of the workspace's own build: what is simulated is optimised there, with assertions on.
pub(crate) fn run(layout: &Layout, options: &Options) -> anyhow::Result<()> {
    let copies = RunDir::create(layout)?;
    step("building the simulator", || artifacts::binaries(layout, &copies, &["pharos-sim"]))?;
    run_built(&copies, options)
}

/// Runs a simulator that was built before.
pub(crate) fn run_built(copies: &RunDir, options: &Options) -> anyhow::Result<()> {
    step("simulator", || {
        let mut command = artifacts::program(copies, "pharos-sim");
        command.args(["--seeds", &options.seeds.to_string()]);
        if let Some(seed) = options.seed {
            command.args(["--seed", &seed.to_string()]);
        }
        shell::run(command.args(&options.rest))
    })
}
