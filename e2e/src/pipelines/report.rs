//! What the runs come to, for people and for a test.
//!
//! Must not know how it came about.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::Options;
use super::faults::{Fault, Toll};

/// What a run came to.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) workers: usize,
    pub(super) faults: bool,
    pub(super) took: Duration,
    pub(super) checkpoints: u64,
    pub(super) generations: u64,
    /// The most workers that took part at a time.
    pub(super) together: usize,
    /// How often a worker was started.
    pub(super) started: usize,
    /// How often one had ended by itself before.
    pub(super) ended: usize,
    /// Rows that there have to be in the outputs.
    pub(super) rows: usize,
    pub(super) lost: usize,
    pub(super) surplus: usize,
    /// In words.
    pub(super) violations: Vec<String>,
}

/// The outcome.
#[derive(Debug)]
pub struct Verdict {
    seed: u64,
    input: usize,
    runs: Vec<Run>,
    pub(super) tolls: BTreeMap<Fault, Toll>,
    pub(super) kept: Option<PathBuf>,
}

impl Verdict {
    pub(super) fn new(options: &Options, input: usize) -> Self {
        Self { seed: options.seed, input, runs: Vec::new(), tolls: BTreeMap::new(), kept: None }
    }

    pub(super) fn add(&mut self, run: Run) {
        self.runs.push(run);
    }

    /// Whether every output is what it has to be.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.violations().next().is_none()
    }

    /// How many runs there were.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// How many faults there were.
    #[must_use]
    pub fn faults(&self) -> usize {
        self.tolls.values().map(|toll| toll.times).sum()
    }

    /// How many kinds of faults there were.
    #[must_use]
    pub fn kinds(&self) -> usize {
        self.tolls.len()
    }

    /// How many checkpoints there were.
    #[must_use]
    pub fn checkpoints(&self) -> u64 {
        self.runs.iter().map(|run| run.checkpoints).sum()
    }

    /// How often a run began, or went on from a checkpoint.
    #[must_use]
    pub fn generations(&self) -> u64 {
        self.runs.iter().map(|run| run.generations).sum()
    }

    /// The most workers that took part in a run at a time.
    #[must_use]
    pub fn together(&self) -> usize {
        self.runs.iter().map(|run| run.together).max().unwrap_or_default()
    }

    fn violations(&self) -> impl Iterator<Item = &String> {
        self.runs.iter().flat_map(|run| &run.violations)
    }

    fn sum(&self, of: impl Fn(&Run) -> usize) -> usize {
        self.runs.iter().map(of).sum()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, {} rows read by each run\n", self.seed, self.input)?;
        let columns = "faults  seconds  checkpoints  generations  together  starts  ended by themselves";
        writeln!(f, "{:<6}{:>9}  {columns}", "run", "workers")?;
        for (number, run) in self.runs.iter().enumerate() {
            writeln!(
                f,
                "{number:<6}{:>9}{:>8}{:>9.1}{:>13}{:>13}{:>10}{:>8}{:>21}",
                run.workers,
                if run.faults { "yes" } else { "no" },
                run.took.as_secs_f64(),
                run.checkpoints,
                run.generations,
                run.together,
                run.started,
                run.ended
            )?;
        }
        writeln!(f, "\n{:<20}{:>6}  s without a new checkpoint: median, worst", "faults", "times")?;
        for (fault, Toll { times, quiet }) in &self.tolls {
            let mut quiet = quiet.clone();
            quiet.sort_unstable();
            let seconds =
                |at: Option<&Duration>| at.map_or("-".to_owned(), |at| format!("{:.1}", at.as_secs_f64()));
            let (median, worst) = (seconds(quiet.get(quiet.len() / 2)), seconds(quiet.last()));
            writeln!(f, "{fault:<20}{times:>6}{median:>10}{worst:>8}")?;
        }
        for violation in self.violations() {
            writeln!(f, "{violation}")?;
        }
        if let Some(place) = &self.kept {
            writeln!(f, "input, outputs, checkpoints and logs are in {}", place.display())?;
        }
        let (rows, lost, surplus) =
            (self.sum(|run| run.rows), self.sum(|run| run.lost), self.sum(|run| run.surplus));
        write!(
            f,
            "\n{} faults, {} checkpoints; {rows} rows written by {} runs: {lost} lost, {surplus} doubled or wrong",
            self.faults(),
            self.checkpoints(),
            self.runs()
        )
    }
}
