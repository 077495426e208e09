//! Development commands behind `./x`.
//!
//! Owns the order of the checks and what each command needs on the machine. Must not know a Kubernetes client or
//! RocksDB: whatever needs those is built as a binary of its crate and run from here.
//! Invariant: a command sets up only what it needs, and setting up twice does nothing the second time.

mod artifacts;
mod bench;
mod chaos;
mod chart;
mod cluster;
mod codegen;
mod demo;
mod earlier;
mod fuzz;
mod gate;
mod layout;
mod lint;
mod model;
mod pipelines;
mod setup;
mod shell;
mod sim;

use clap::{Parser, Subcommand};
use layout::Layout;

/// Development commands of Pharos.
#[derive(Parser)]
#[command(name = "x", bin_name = "./x")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the example on the embedded default and compare it with its oracle.
    Demo,
    /// Run the whole gate: format, lints, unit tests, simulator, model, conformance, documentation, chart, end to end.
    Test,
    /// Install what the other commands need; without arguments, everything.
    Setup {
        /// Only these pieces.
        #[arg(value_enum)]
        pieces: Vec<setup::Piece>,
    },
    /// Write the generated files anew.
    Codegen {
        /// Change nothing; fail if a generated file is stale.
        #[arg(long)]
        check: bool,
    },
    /// Check format, lints and documentation.
    Lint,
    /// Run the seeded simulator of whole clusters.
    Sim(sim::Options),
    /// Kill and stop real members under a workload, and check what its clients saw.
    Chaos(chaos::Options),
    /// Kill, stop and cut off the workers of a Pipeline, and compare its outputs with an oracle's.
    Pipelines(pipelines::Options),
    /// Check the consensus core in every state within bounds.
    Model(model::Options),
    /// Feed arbitrary bytes to decoders, recovery and apply, guided by what they reach.
    Fuzz(fuzz::Options),
    /// Measure ours beside the real peer.
    Bench {
        #[command(subcommand)]
        bench: bench::Bench,
    },
    /// Build the container images as OCI archives.
    Image {
        /// Directory the archives are written to.
        #[arg(long, default_value = "target/images")]
        out: std::path::PathBuf,
    },
    /// A one-node Kubernetes in namespaces of its own, for trying things out.
    Box {
        #[command(subcommand)]
        action: cluster::BoxAction,
    },
    /// Run the end-to-end tests on Kubernetes, or those whose name contains NAME.
    E2e {
        /// Part of a test's name.
        name: Option<String>,
    },
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let layout = Layout::from_env()?;
    match cli.command {
        Command::Demo => demo::run_demo(&layout),
        Command::Test => gate::run_gate(&layout),
        Command::Setup { pieces } => setup::run(&layout, &pieces),
        Command::Codegen { check: true } => codegen::check(&layout),
        Command::Codegen { check: false } => codegen::write(&layout),
        Command::Lint => lint::run(&layout),
        Command::Sim(options) => sim::run(&layout, &options),
        Command::Chaos(options) => chaos::run_chaos(&layout, &options),
        Command::Pipelines(options) => pipelines::run_pipelines(&layout, &options),
        Command::Model(options) => model::run(&layout, &options),
        Command::Fuzz(options) => fuzz::run_fuzzer(&layout, &options),
        Command::Bench { bench } => bench::run_bench(&layout, &bench),
        Command::Image { out } => cluster::image(&layout, &out),
        Command::Box { action } => cluster::run_box(&layout, &action),
        Command::E2e { name } => cluster::e2e(&layout, name.as_deref()),
    }
}
