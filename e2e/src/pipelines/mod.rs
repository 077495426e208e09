//! One Pipeline on many worker processes that are killed, stopped, cut off and exchanged: no row is lost or doubled.
//!
//! Owns the runs and the demand that they go on. Must not know what workers say to each other. Invariant: whoever runs it,
//! and whatever happens to them, a run writes the same bytes, which are what an oracle of its own says; and within
//! `PATIENCE` after each fault there is a new checkpoint.

mod cost;
mod faults;
mod input;
mod pause;
mod report;
mod stalls;
mod store;
mod workers;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::local::{LocalEnsemble, Place};
use crate::netns::{Network, isolated};
use faults::{Ground, Striker};
use input::{Input, Keys, OUTPUTS, compare};
use report::Run;
use workers::{Job, Workers};

pub use cost::cost;
pub use faults::Fault;
pub use pause::pauses;
pub use report::Verdict;
pub use store::{Outage, outage};

/// How long there may be no new checkpoint while nothing is wrong.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
const MEMBERS: usize = 3;

/// How a Pipeline is measured.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Trials {
    /// Rows of the input, about.
    #[arg(long, default_value_t = 4_000_000)]
    rows: usize,
    /// Repetitions.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// What the rows follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// First a run without faults on each of these numbers of workers.
    pub calm: Vec<usize>,
    /// Then runs under faults on so many workers, and one more now and then.
    pub workers: usize,
    /// Which faults there are; all if there are none here.
    pub faults: Vec<Fault>,
    /// How long there are faults; a run that has begun is brought to its end.
    pub length: Duration,
    /// How many rows a run reads, about.
    pub rows: usize,
    /// Whether there are so many keys, and the workers have so little memory for state, that it goes to disk.
    pub little_memory: bool,
    /// What rows and faults follow from.
    pub seed: u64,
    /// Where the directory goes if something is wrong.
    pub keep: PathBuf,
}

/// Runs it, in namespaces of its own. What is wrong with outputs is in the verdict and ends it; an error is something
/// that kept a run from its end. Of both the directory is kept.
///
/// # Errors
/// If a run does not go on, a worker ends in a way that it must not, or nothing can be started.
pub fn run(options: &Options) -> anyhow::Result<Verdict> {
    isolated(|| {
        let mut field = Field::found(options)?;
        let mut verdict = Verdict::new(options, field.input.rows);
        let done = field.run_all(options, &mut verdict);
        if done.is_ok() && verdict.is_good() {
            return Ok(verdict);
        }
        let place = field.keep()?;
        done.with_context(|| format!("see {}, and so far:\n{verdict}", place.display()))?;
        verdict.kept = Some(place);
        Ok(verdict)
    })
}

/// The workers end first, then the members, then the directory goes.
struct Field {
    ground: Ground,
    input: Input,
    little_memory: bool,
    directory: TempDir,
    /// What the first run has written.
    first: Option<[Vec<u8>; 3]>,
}

impl Field {
    fn found(options: &Options) -> anyhow::Result<Self> {
        let keep = &options.keep;
        std::fs::create_dir_all(keep).with_context(|| format!("cannot make {}", keep.display()))?;
        let prefix = format!("seed-{}-", options.seed);
        let directory = tempfile::Builder::new().prefix(&prefix).tempdir_in(keep);
        let directory = directory.context("cannot make a directory")?;
        let little_memory = options.little_memory;
        let keys = if little_memory { Keys::All } else { Keys::Few };
        let input = Input::of(keys, directory.path(), options.rows, options.seed)?;
        let most = options.calm.iter().copied().chain([options.workers + 1]).max().unwrap_or_default();
        let network = Network::new(MEMBERS + most)?;
        let members = network.hosts().iter().take(MEMBERS);
        let places = members.map(|host| Place { host: host.clone(), volume: None }).collect();
        let ensemble = LocalEnsemble::found_on(places)?;
        Ok(Self { ground: Ground { ensemble, network }, input, little_memory, directory, first: None })
    }

    fn run_all(&mut self, options: &Options, verdict: &mut Verdict) -> anyhow::Result<()> {
        for workers in &options.calm {
            let run = self.run_one(verdict.runs(), *workers, None)?;
            verdict.add(run);
        }
        let mut striker = Striker::new(options.seed, &options.faults);
        let end = Instant::now() + options.length;
        while Instant::now() < end && verdict.is_good() {
            let run = self.run_one(verdict.runs(), options.workers, Some((&mut striker, end)));
            verdict.tolls = std::mem::take(&mut striker.tolls);
            verdict.add(run?);
            striker.tolls = std::mem::take(&mut verdict.tolls);
        }
        verdict.tolls = striker.tolls;
        Ok(())
    }

    fn run_one(
        &mut self,
        number: usize,
        count: usize,
        mut striker: Option<(&mut Striker, Instant)>,
    ) -> anyhow::Result<Run> {
        let directory = self.directory.path().join(format!("run-{number}"));
        let ensemble = self.ground.ensemble.hosts();
        let job = Job::new(self.directory.path(), directory.clone(), ensemble, number)?;
        let job = Job { state_memory_mib: self.little_memory.then_some(1), ..job };
        let hosts = self.ground.network.hosts().get(MEMBERS..).context("the workers have hosts")?;
        let mut workers = Workers::start(job.clone(), hosts, count)?;
        let begin = Instant::now();
        let run = self
            .watch(&mut workers, &mut striker)
            .and_then(|run| self.end(&mut workers, striker.is_some()).map(|()| run))
            .with_context(|| format!("run {number}\n{}", workers.describe()))?;
        let mut run = Run {
            workers: count,
            faults: striker.is_some(),
            took: begin.elapsed(),
            started: workers.started,
            ended: workers.ended,
            ..run
        };
        self.check(number, job.outputs()?, &mut run)?;
        if run.violations.is_empty() {
            std::fs::remove_dir_all(&directory).context("cannot remove a directory")?;
        }
        Ok(run)
    }

    /// Until all say that the run is completed.
    fn watch(
        &mut self,
        workers: &mut Workers,
        striker: &mut Option<(&mut Striker, Instant)>,
    ) -> anyhow::Result<Run> {
        let mut run = Run::default();
        let mut checkpoints = vec![(0, Instant::now())];
        let mut quiet_since = Instant::now();
        let mut is_completed = false;
        if let Some((striker, _)) = striker {
            striker.begin();
        }
        loop {
            workers.supervise()?;
            let seen = workers.look()?;
            run.generations = run.generations.max(seen.generation);
            run.together = run.together.max(seen.together);
            if seen.epoch > run.checkpoints {
                run.checkpoints = seen.epoch;
                quiet_since = Instant::now();
                checkpoints.push((seen.epoch, quiet_since));
            }
            if seen.completed > 0 && !is_completed {
                (is_completed, quiet_since) = (true, Instant::now());
            }
            if is_completed && workers.are_whole() && seen.completed == workers.wanted() {
                return Ok(run);
            }
            if let Some((striker, end)) = striker {
                if is_completed {
                    striker.finish(&mut self.ground, workers)?;
                } else {
                    let may_strike = Instant::now() < *end;
                    striker.turn(&mut self.ground, workers, &seen, &checkpoints, may_strike)?;
                }
                if striker.is_at_it() {
                    quiet_since = Instant::now();
                }
            }
            ensure!(quiet_since.elapsed() < PATIENCE, "no new checkpoint and no end within {PATIENCE:?}");
            std::thread::sleep(POLL);
        }
    }

    /// A run that is done is not run again: who is killed then and comes back knows it. All end when they are asked to.
    fn end(&self, workers: &mut Workers, kill: bool) -> anyhow::Result<()> {
        let all = workers.running();
        if let (true, Some(first)) = (kill, all.first()) {
            workers.kill(*first, Duration::ZERO)?;
            workers.wait("one that comes late to know that all is done", PATIENCE, |workers| {
                Ok((workers.look()?.completed == all.len()).then_some(()))
            })?;
        }
        workers.all_end()
    }

    fn check(&mut self, number: usize, outputs: [Vec<u8>; 3], run: &mut Run) -> anyhow::Result<()> {
        for (((name, _), output), expected) in OUTPUTS.iter().zip(&outputs).zip(&self.input.expected) {
            let difference = compare(output, expected)?;
            run.rows += expected.len();
            run.lost += difference.lost;
            run.surplus += difference.surplus;
            let said = difference.first.iter().map(|what| format!("run {number}, {name}: {what}"));
            run.violations.extend(said);
        }
        let first = self.first.get_or_insert_with(|| outputs.clone());
        for (((name, _), output), first) in OUTPUTS.iter().zip(&outputs).zip(first) {
            if output != first {
                run.violations.push(format!("run {number}, {name}: its bytes differ from those of run 0"));
            }
        }
        Ok(())
    }

    /// Leaves the directory, with the members' logs.
    fn keep(mut self) -> anyhow::Result<PathBuf> {
        self.directory.disable_cleanup(true);
        for member in 0..MEMBERS {
            let log = self.directory.path().join(format!("member-{member}.log"));
            std::fs::write(log, self.ground.ensemble.log_of(member)?).context("cannot write a log")?;
        }
        Ok(self.directory.path().to_owned())
    }
}
