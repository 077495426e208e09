//! The seeded simulator: built with optimisation and with assertions.

use std::process::Command;

use crate::layout::Layout;
use crate::shell::{self, cargo, step};

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

/// The release profile with the assertions on: the simulator looks for their violations.
const PROFILE: [&str; 4] = [
    "--config=profile.sim.inherits='release'",
    "--config=profile.sim.debug-assertions=true",
    "--config=profile.sim.overflow-checks=true",
    "--profile=sim",
];

pub(crate) fn run(layout: &Layout, options: &Options) -> anyhow::Result<()> {
    step("simulator", || {
        shell::run(cargo(layout, ["build", "--quiet", "--package", "pharos-sim"]).args(PROFILE))?;
        let mut command = Command::new(layout.target.join("sim/pharos-sim"));
        command.args(["--seeds", &options.seeds.to_string()]);
        if let Some(seed) = options.seed {
            command.args(["--seed", &seed.to_string()]);
        }
        shell::run(command.args(&options.rest))
    })
}
