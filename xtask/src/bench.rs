//! Ours beside the real peer, with our crates built for speed alone.

use std::process::Command;

use crate::artifacts::{self, RunDir};
use crate::layout::Layout;
use crate::setup;
use crate::shell::{run, step};

/// What is compared. Arguments after `--` go to the benchmark: `./x bench ensemble -- --help`.
#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// Three members beside three servers each of ZooKeeper and etcd: throughput, failover, size and restarts.
    Ensemble {
        /// What else the benchmark takes.
        #[arg(last = true)]
        rest: Vec<String>,
    },
    /// One member with 10 GiB of values in 2 GiB of memory: reads, memory and restart.
    Values {
        /// What else the benchmark takes.
        #[arg(last = true)]
        rest: Vec<String>,
    },
    /// A Pipeline on one worker, on two, and with a checkpoint each second: what each costs.
    Workers {
        /// What else the benchmark takes.
        #[arg(last = true)]
        rest: Vec<String>,
    },
    /// The exchange between threads, and between workers, by the size of batches.
    Exchange,
    /// How long a Pipeline pauses when a worker comes, leaves, dies or stops, by the size of its state.
    Pauses {
        /// What else the benchmark takes.
        #[arg(last = true)]
        rest: Vec<String>,
    },
    /// Queries of the Nexmark benchmark beside Apache Flink and hand-written kernels, over the same events.
    Nexmark {
        /// What else the benchmark takes.
        #[arg(last = true)]
        rest: Vec<String>,
    },
    /// The example's Pipeline over 3 million flights beside DuckDB.
    Pipeline {
        /// What else the benchmark takes.
        #[arg(last = true)]
        rest: Vec<String>,
    },
}

pub(crate) fn run_bench(layout: &Layout, bench: &Bench) -> anyhow::Result<()> {
    setup::cpp(layout)?;
    setup::announce_cold_build(layout);
    let mut args: Vec<std::ffi::OsString> = vec!["bench".into()];
    let mut etcd = None;
    let mut programs = vec!["pharos-e2e", "pharos-node"];
    match bench {
        Bench::Ensemble { rest } => {
            setup::java()?;
            setup::networks()?;
            etcd = Some(setup::etcd(layout)?);
            args.push("ensemble".into());
            args.extend(rest.iter().map(Into::into));
        }
        Bench::Values { rest } => {
            args.push("values".into());
            args.extend(rest.iter().map(Into::into));
        }
        Bench::Workers { rest } => {
            args.push("workers".into());
            args.extend(rest.iter().map(Into::into));
        }
        Bench::Exchange => {
            (programs, args) = (vec!["pharos-exchange"], Vec::new());
        }
        Bench::Pauses { rest } => {
            args.push("pauses".into());
            args.extend(rest.iter().map(Into::into));
        }
        Bench::Nexmark { rest } => {
            args.extend(["nexmark".into(), "--class-path".into(), setup::flink(layout)?.into()]);
            args.extend(rest.iter().map(Into::into));
        }
        Bench::Pipeline { rest } => {
            let (python, parquet) = setup::duckdb(layout)?;
            args.extend([
                "pipeline".into(),
                "--python".into(),
                python.into(),
                "--parquet".into(),
                parquet.into(),
            ]);
            args.extend(rest.iter().map(Into::into));
        }
    }
    let copies = RunDir::create(layout)?;
    step("building for speed", || artifacts::fast_binaries(layout, &copies, &programs))?;
    let mut command: Command = artifacts::program(&copies, programs[0]);
    command.envs(etcd.map(|etcd| ("PHAROS_ETCD", etcd)));
    run(command.args(args).env("PHAROS_ROOT", &layout.root).env("PHAROS_CACHE", &layout.cache))
}
