//! The model check of the consensus core: built with optimisation and with assertions.

use crate::artifacts::{self, RunDir};
use crate::layout::Layout;
use crate::shell::{self, step};

/// Which configurations are exhausted.
#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// The large configurations, too: it takes long, and gigabytes of memory.
    #[arg(long)]
    large: bool,
    /// Only configurations whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// What else the model takes; `./x model -- --help` lists it.
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Runs the model of the workspace's own build.
pub(crate) fn run(layout: &Layout, options: &Options) -> anyhow::Result<()> {
    let copies = RunDir::create(layout)?;
    step("building the model", || artifacts::binaries(layout, &copies, &["pharos-model"]))?;
    run_built(&copies, options)
}

/// Runs a model that was built before.
pub(crate) fn run_built(copies: &RunDir, options: &Options) -> anyhow::Result<()> {
    step("model", || {
        let mut command = artifacts::program(copies, "pharos-model");
        if options.large {
            command.arg("--large");
        }
        if let Some(only) = &options.only {
            command.args(["--only", only]);
        }
        shell::run(command.args(&options.rest))
    })
}
