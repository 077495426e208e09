//! The one binary of Pharos' data plane: `ensemble`, `worker`, `local` and their helpers.
//!
//! Owns flags, exit codes and the wiring between crates. Must not hold logic that a crate could own.
//!
//! Invariant: exit code 2 for what the user can put right, 1 for what is ours, 0 for the rest; messages go
//! to standard error, results to standard output.

mod admin_client;
mod cli;
mod ensemble;
mod ensemble_backup;
mod ensemble_members;
mod ensemble_permit;
mod ensemble_recover;
mod failure;
mod local;
mod local_manifests;
mod pipeline;
mod pipeline_load;
mod pipeline_metrics;
mod pipeline_progress;
mod pipeline_status;
mod pipeline_worker;

use clap::Parser;
use cli::{Cli, Command};
use failure::Failure;
use std::process::ExitCode;

/// Rows and requests are many small values: a sixth of a Pipeline's time went into the C library's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.log.install();
    run(cli.command).unwrap_or_else(|failure| failure.report())
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Ensemble(args) => ensemble::run(args)?,
        Command::Permit(args) => ensemble_permit::run(&args)?,
        Command::Members(args) => ensemble_members::run(&args)?,
        Command::Recover(args) => ensemble_recover::run(&args)?,
        Command::Backup(args) => ensemble_backup::backup(&args)?,
        Command::Restore(args) => ensemble_backup::restore(&args)?,
        Command::Local(args) => local::run(&args)?,
        Command::Worker(args) => pipeline_worker::run(&args)?,
        Command::Check(args) => return Ok(pipeline::check(&args.file)),
        Command::Version => cli::print_version(),
    }
    Ok(ExitCode::SUCCESS)
}
