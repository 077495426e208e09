//! The one binary of Pharos' data plane: `ensemble`, `worker`, `local` and their helpers.
//!
//! Owns flags, exit codes and the wiring between crates. Must not hold logic that a crate could own.
//!
//! Invariant: exit code 2 for what the user can put right, 1 for what is ours, 0 for the rest; messages go
//! to standard error, results to standard output.

mod cli;
mod ensemble;
mod ensemble_permit;
mod failure;
mod local;
mod local_manifests;

use clap::Parser;
use cli::{Cli, Command};
use failure::Failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.log.install();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Ensemble(args) => ensemble::run(args),
        Command::Permit(args) => ensemble_permit::run(&args),
        Command::Local(args) => local::run(&args),
        Command::Version => {
            cli::print_version();
            Ok(())
        }
    }
}

/// Stands in until the binary is wired to the engine.
mod pipeline {
    use crate::failure::Failure;
    use crate::local::PipelineJob;
    use crate::local_manifests::LocalPipeline;
    use anyhow::anyhow;

    pub(crate) fn check_local(pipeline: &LocalPipeline) -> Result<(), Failure> {
        let checked = pharos_beam::check(&pipeline.document, pipeline.source.clone());
        checked.map(drop).map_err(|errors| Failure::users(anyhow!("{errors}")))
    }

    pub(crate) fn run_local(job: PipelineJob) -> Result<(), Failure> {
        let PipelineJob { pipeline, data_dir, ensemble, stop } = job;
        drop((pipeline.file, data_dir, ensemble, stop));
        Err(Failure::ours(anyhow!("this build runs no Pipelines, so {} does not run", pipeline.name)))
    }
}
