//! Queries of the Nexmark benchmark by our engine, by hand-written kernels and by Apache Flink, over the same events.
//!
//! Owns which queries there are, the turns in which the sides run them, and the figures. Must not know the inside of a
//! side. Invariant: a figure is printed only when all sides have answered the same.

mod answer;
mod checkpoints;
mod columns;
mod events;
mod files;
mod flink;
mod floor;
mod ours;

use std::path::Path;

use anyhow::Context;
use clap::ValueEnum;

use super::median;
use crate::environment::cache;
use answer::Answer;
use checkpoints::Checkpoints;
use columns::Columns;
use flink::Flink;
use ours::Pharos;

/// Columns of the table that are there only with checkpoints: how many a run has, and the bytes of one.
const CHECKPOINTS: &str = " Pharos' checkpoints | Flink's checkpoints |";

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct Nexmark {
    /// Events, of which 92 in 100 are bids.
    #[arg(long, default_value_t = 5_000_000)]
    events: u64,
    /// What they follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run only these queries.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Query>,
    /// Run only these sides, beside the kernels.
    #[arg(long, value_delimiter = ',')]
    sides: Vec<Peer>,
    /// Repetitions; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Let state survive: both engines take a checkpoint each second into a temporary directory, Flink incremental ones
    /// of RocksDB. A run must last for several, as with --events 20000000.
    #[arg(long)]
    checkpoints: bool,
    /// The Java class path with Flink, and what runs the queries there.
    #[arg(long)]
    class_path: String,
}

/// A query of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Query {
    /// Prices in another currency, and their sum.
    Q1,
    /// Mean closing prices by category: a join, a maximum and a mean.
    Q4,
    /// Auctions with the most bids: sliding windows, a maximum and a join.
    Q5,
    /// Bids with the highest price: fixed windows, a maximum and a join.
    Q7,
    /// New persons with an auction: a join in fixed windows.
    Q8,
    /// Bids in a row: sessions.
    Q11,
}

impl Query {
    const ALL: [Self; 6] = [Self::Q1, Self::Q4, Self::Q5, Self::Q7, Self::Q8, Self::Q11];

    const fn name(self) -> &'static str {
        match self {
            Self::Q1 => "q1",
            Self::Q4 => "q4",
            Self::Q5 => "q5",
            Self::Q7 => "q7",
            Self::Q8 => "q8",
            Self::Q11 => "q11",
        }
    }
}

/// An engine that is measured beside the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Peer {
    /// Ours.
    Pharos,
    /// Apache Flink.
    Flink,
}

/// CPU-seconds of one query, by round.
#[derive(Default)]
struct Seconds {
    floor: Vec<f64>,
    pharos: Vec<f64>,
    flink: Vec<f64>,
    /// Of Pharos and Flink, if they are to take any.
    checkpoints: Option<[Checkpoints; 2]>,
}

/// A run of an engine.
struct Run {
    /// CPU time.
    seconds: f64,
    /// How many bytes each checkpoint wrote.
    checkpoints: Vec<u64>,
}

/// Runs the queries and prints the figures.
///
/// # Errors
/// If a side does not do its work, or answers anything else than the kernels.
pub fn nexmark(options: &Nexmark) -> anyhow::Result<()> {
    let data = files::prepared(&cache()?, options.events, options.seed)?;
    let columns = Columns::read(&data)?;
    let only = if options.only.is_empty() { &Query::ALL[..] } else { &options.only };
    println!(
        "{} events, parallelism 1, median of {}: millions of events per CPU-second\n",
        options.events, options.rounds
    );
    let (names, rule) = if options.checkpoints { (CHECKPOINTS, "---|---|") } else { ("", "") };
    println!("| | rows | floor | Pharos | Flink | Pharos/Flink | Pharos/floor |{names}");
    println!("|---|---|---|---|---|---|---|{rule}");
    for query in only {
        let right = floor::answer(*query, &columns);
        let seconds = measure(*query, options, &data, &columns, &right).with_context(|| query.name())?;
        println!("{}", line(*query, options.events, right.rows(), seconds));
    }
    Ok(())
}

fn measure(
    query: Query,
    options: &Nexmark,
    data: &Path,
    columns: &Columns,
    right: &Answer,
) -> anyhow::Result<Seconds> {
    let takes_part = |peer| options.sides.is_empty() || options.sides.contains(&peer);
    let pharos =
        takes_part(Peer::Pharos).then(|| Pharos::new(query, data, options.checkpoints)).transpose()?;
    let mut flink = None;
    if takes_part(Peer::Flink) {
        let (started, answer) = Flink::start(query, data, options)?;
        right.ensure_is(&answer).context("Flink's answer")?;
        flink = Some(started);
    }
    let mut seconds = Seconds::default();
    let mut checkpoints: [Checkpoints; 2] = Default::default();
    for _ in 0..options.rounds {
        if let Some(pharos) = &pharos {
            let (run, answer) = pharos.run()?;
            right.ensure_is(&answer).context("Pharos' answer")?;
            seconds.pharos.push(run.seconds);
            checkpoints[0].add_run(&run.checkpoints);
        }
        seconds.floor.push(floor::cpu_seconds(query, columns)?);
        if let Some(flink) = &mut flink {
            let run = flink.run()?;
            seconds.flink.push(run.seconds);
            checkpoints[1].add_run(&run.checkpoints);
        }
    }
    seconds.checkpoints = options.checkpoints.then_some(checkpoints);
    Ok(seconds)
}

/// A row of the table.
fn line(query: Query, events: u64, rows: usize, seconds: Seconds) -> String {
    let rate = |seconds: Vec<f64>| events as f64 / median(seconds) / 1e6;
    let [floor, pharos, flink] = [seconds.floor, seconds.pharos, seconds.flink].map(rate);
    let cell = |figure: f64| match figure {
        figure if !figure.is_finite() => "–".to_owned(),
        figure if figure < 10.0 => format!("{figure:.3}"),
        figure => format!("{figure:.1}"),
    };
    let figures = [floor, pharos, flink, pharos / flink, pharos / floor].map(cell);
    let checkpoints =
        seconds.checkpoints.map(|[pharos, flink]| format!(" {pharos} | {flink} |")).unwrap_or_default();
    format!("| {} | {rows} | {} |{checkpoints}", query.name(), figures.join(" | "))
}
