//! What `./x bench`, `./x box`, `./x chaos`, `./x image` and `./x pipelines` run.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use pharos_e2e::bench::{self, Part, Side};
use pharos_e2e::chaos::{self, Fault};
use pharos_e2e::cluster::Cluster;
use pharos_e2e::environment::Environment;
use pharos_e2e::image;
use pharos_e2e::install::{Images, Release};
use pharos_e2e::kubebox::{self, KubeBox, Lifetime};
use pharos_e2e::pipelines;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Ours beside the real peer.
    Bench {
        #[command(subcommand)]
        bench: Bench,
    },
    /// The one-node Kubernetes.
    Box {
        #[command(subcommand)]
        action: Action,
    },
    /// Real members under a workload and faults, and the history of it checked.
    Chaos(ChaosOptions),
    /// The history that a run of chaos has kept, checked once more.
    Recheck {
        /// Where the run says that the evidence is.
        place: PathBuf,
    },
    /// One Pipeline on many workers under faults, and its outputs beside an oracle's.
    Pipelines(PipelinesOptions),
    /// Build our images as OCI archives.
    Image {
        /// The directory they are written to.
        out: PathBuf,
    },
}

#[derive(clap::Args)]
struct ChaosOptions {
    /// Minutes of faults.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Members of the ensemble: 3, 5 or 7.
    #[arg(long, default_value_t = 3, value_parser = members)]
    members: u8,
    /// What workload and faults follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Clients beside one observer per member.
    #[arg(long, default_value_t = 12)]
    clients: usize,
    /// The longest pause of a client between two batches of requests, in ms.
    #[arg(long, default_value_t = 60)]
    pause_ms: u64,
    /// Seconds of faults until the history is checked and another one begins.
    #[arg(long, default_value_t = 60)]
    window: u64,
    /// A kind of fault, as often as there are kinds; without it all kinds.
    #[arg(long = "fault", value_parser = Fault::named)]
    faults: Vec<Fault>,
    /// Where the evidence goes if something is wrong.
    #[arg(long, default_value = "/tmp/pharos-chaos")]
    keep: PathBuf,
}

#[derive(clap::Args)]
struct PipelinesOptions {
    /// Minutes of faults.
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Workers of a run.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=50))]
    workers: u8,
    /// What rows and faults follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Rows that each run reads, about.
    #[arg(long, default_value_t = 6_000_000)]
    rows: usize,
    /// A kind of fault; without it all kinds.
    #[arg(long = "fault", value_enum)]
    faults: Vec<pipelines::Fault>,
    /// More keys, and memory for so few of them that state goes to disk.
    #[arg(long)]
    little_memory: bool,
    /// Where input, outputs, checkpoints and logs go if something is wrong.
    #[arg(long, default_value = "/tmp/pharos-pipelines")]
    keep: PathBuf,
}

#[derive(Subcommand)]
enum Bench {
    /// Three members beside three servers each of ZooKeeper and etcd.
    Ensemble {
        /// Measure only these parts.
        #[arg(long, value_delimiter = ',')]
        only: Vec<Part>,
        /// Compare only these sides, with the first of them.
        #[arg(long, value_delimiter = ',')]
        sides: Vec<Side>,
        /// Seconds of each load.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        /// Repetitions of each load.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Repetitions of each fault.
        #[arg(long, default_value_t = 10)]
        repetitions: usize,
        /// Entries that the size is measured with.
        #[arg(long, default_value_t = 1_000_000)]
        entries: usize,
    },
    /// One member with more values than memory, of 4 KiB each: reads, memory and restart.
    Values {
        /// GiB of values.
        #[arg(long, default_value_t = 10)]
        gib: u64,
        /// The limit of the member's memory, in MiB, by a control group.
        #[arg(long, default_value_t = 2048)]
        memory_mib: u64,
        /// Seconds of each load.
        #[arg(long, default_value_t = 15)]
        seconds: u64,
    },
    /// A Pipeline on one worker, on two, and with a checkpoint each second: what each costs.
    Workers(pipelines::Trials),
    /// How long a Pipeline reads nothing when a worker comes, leaves, dies or stops, by the size of its state.
    Pauses(pipelines::Trials),
    /// Queries of the Nexmark benchmark beside Apache Flink and hand-written kernels.
    Nexmark(bench::Nexmark),
    /// The example's Pipeline beside DuckDB.
    Pipeline {
        /// Flights read.
        #[arg(long, default_value_t = 3_000_000)]
        rows: usize,
        /// Repetitions.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// The file of all flights.
        #[arg(long)]
        parquet: PathBuf,
        /// A Python interpreter with DuckDB.
        #[arg(long)]
        python: PathBuf,
    },
}

#[derive(Subcommand)]
enum Action {
    /// Bring it up.
    Up {
        /// Also build and import the images and install the chart.
        #[arg(long)]
        install: bool,
    },
    /// Take it down.
    Down,
    /// Run a program inside.
    Exec {
        /// The program and its arguments; a shell if none.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Remove what killed boxes left.
    Sweep,
}

fn members(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(count @ (3 | 5 | 7)) => Ok(count),
        _ => Err("an ensemble under faults has 3, 5 or 7 members".to_owned()),
    }
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Bench { bench: Bench::Ensemble { only, sides, seconds, rounds, repetitions, entries } } => {
            bench::ensemble(&bench::Effort {
                sides: if sides.is_empty() { Side::ALL.to_vec() } else { sides },
                parts: if only.is_empty() { Part::ALL.to_vec() } else { only },
                load: Duration::from_secs(seconds),
                rounds,
                repetitions,
                entries,
            })?;
        }
        Command::Bench { bench: Bench::Values { gib, memory_mib, seconds } } => {
            bench::values(bench::Values { gib, memory_mib, load: Duration::from_secs(seconds) })?;
        }
        Command::Bench { bench: Bench::Workers(trials) } => pipelines::cost(trials)?,
        Command::Bench { bench: Bench::Pauses(trials) } => pipelines::pauses(trials)?,
        Command::Bench { bench: Bench::Nexmark(options) } => bench::nexmark(&options)?,
        Command::Bench { bench: Bench::Pipeline { rows, rounds, parquet, python } } => {
            bench::pipeline(rows, rounds, &parquet, &python)?;
        }
        Command::Chaos(options) => return run_chaos(options),
        Command::Recheck { place } => {
            let report = chaos::recheck(&place)?;
            println!("{report:#?}");
            return Ok(if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Pipelines(options) => return run_pipelines(options),
        Command::Image { out } => build_images(&out)?,
        Command::Box { action: Action::Up { install } } => up(install)?,
        Command::Box { action: Action::Down } => kubebox::down_current()?,
        Command::Box { action: Action::Exec { command } } => return exec(&command),
        Command::Box { action: Action::Sweep } => kubebox::sweep(),
    }
    Ok(ExitCode::SUCCESS)
}

fn run_chaos(options: ChaosOptions) -> anyhow::Result<ExitCode> {
    let seed = options.seed;
    let faults = if options.faults.is_empty() { Fault::ALL.to_vec() } else { options.faults };
    let verdict = chaos::run(&chaos::Options {
        members: options.members.into(),
        clients: options.clients,
        faults,
        length: Duration::from_secs_f64(options.minutes * 60.0),
        window: Duration::from_secs(options.window),
        pause: Duration::from_millis(options.pause_ms),
        seed,
        keep: options.keep,
    })
    .with_context(|| format!("again with --seed {seed}"))?;
    println!("{verdict}");
    Ok(if verdict.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_pipelines(options: PipelinesOptions) -> anyhow::Result<ExitCode> {
    let (seed, workers) = (options.seed, options.workers.into());
    let verdict = pipelines::run(&pipelines::Options {
        calm: vec![1, workers],
        workers,
        faults: options.faults,
        length: Duration::from_secs_f64(options.minutes * 60.0),
        rows: options.rows,
        little_memory: options.little_memory,
        seed,
        keep: options.keep,
    })
    .with_context(|| format!("again with --seed {seed}"))?;
    println!("{verdict}");
    Ok(if verdict.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn build_images(out: &std::path::Path) -> anyhow::Result<()> {
    for archive in image::ours(out)? {
        println!("{}:{} {}", archive.repository, archive.tag, archive.path.display());
    }
    Ok(())
}

fn up(install: bool) -> anyhow::Result<()> {
    let tools = Environment::read()?;
    if KubeBox::current(tools.clone())?.is_some() {
        eprintln!("the box is up already");
        return Ok(());
    }
    let kube_box = KubeBox::up(tools.clone(), Lifetime::Detached)?;
    kube_box.make_current()?;
    eprintln!("the box is up: ./x box exec kubectl get nodes");
    if install {
        let cluster = Cluster::of_box(kube_box, tools);
        let images = Images::load(&cluster)?;
        Release { cluster: &cluster, name: "pharos", namespace: "pharos-system" }.install(&images, &[])?;
        eprintln!("the operator is installed: ./x box exec kubectl apply -f FILE");
    }
    Ok(())
}

fn exec(command: &[String]) -> anyhow::Result<ExitCode> {
    let kube_box = KubeBox::current(Environment::read()?)?.context("the box is not up: ./x box up")?;
    let (program, args) =
        command.split_first().map_or(("bash", &[][..]), |(first, rest)| (first.as_str(), rest));
    let status = kube_box.command(program).args(args).status().context("cannot start nsenter")?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}
