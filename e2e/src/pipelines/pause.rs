//! How long a Pipeline reads nothing when its workers change.
//!
//! Owns the changes and how a pause is seen. Must not know what workers do meanwhile. Invariant: a pause is from the last
//! row that any worker had read to the first one that any has read after it, the longest until a later generation reads.
//! No output is looked at: that nothing is lost is shown elsewhere.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::input::Input;
use super::workers::{Job, Workers};
use super::{MEMBERS, PATIENCE, Trials};
use crate::bench::median;
use crate::local::LocalEnsemble;
use crate::netns::Host;

/// So often it is looked whether rows are read.
const LOOK: Duration = Duration::from_millis(5);
/// One that was killed does not come back while it is looked.
const AWAY: Duration = Duration::from_secs(600);

/// So often the input is read where there is to be much state: a run must last until all has happened.
const READS: usize = 4;
/// Where there is to be little, it is so many times as long.
const LONGER: usize = 2;

/// What happens to the workers.
#[derive(Clone, Copy, Debug)]
enum Change {
    Comes,
    Leaves,
    Dies,
    LeaderDies,
    Stops,
}

impl Change {
    const ALL: [Self; 5] = [Self::Comes, Self::Leaves, Self::Dies, Self::LeaderDies, Self::Stops];

    const fn name(self) -> &'static str {
        match self {
            Self::Comes => "a second one comes",
            Self::Leaves => "one of two is asked to leave",
            Self::Dies => "one of two is killed",
            Self::LeaderDies => "the leading one of two is killed",
            Self::Stops => "one of two stops (SIGSTOP)",
        }
    }

    const fn workers(self) -> usize {
        match self {
            Self::Comes => 1,
            _ => 2,
        }
    }
}

/// How much a run has gathered when its workers change.
#[derive(Clone, Copy, Debug)]
enum State {
    /// A few windows of a few thousand keys.
    Little,
    /// Nearly all rows, each under a key of its own.
    Much,
}

impl State {
    const ALL: [Self; 2] = [Self::Little, Self::Much];

    fn document(self, input: &Path, directory: &Path) -> String {
        match self {
            Self::Little => super::input::document(input, &directory.join("out")),
            Self::Much => {
                let mut text = "pipeline:\n  transforms:\n".to_owned();
                for number in 0..READS {
                    let read = format!("type: ReadFromJson, name: Read{number}");
                    let path = format!("config: {{path: '{}/in-*.json'}}", input.display());
                    writeln!(text, "    - {{{read}, {path}}}").expect("a string takes everything");
                }
                let reads: Vec<String> = (0..READS).map(|number| format!("Read{number}")).collect();
                let group = "group_by: [key, at, value], combine: {rows: {value: value, fn: count}}";
                write!(
                    text,
                    "    - {{type: Flatten, name: Rows, input: [{}]}}\n\
                     \x20   - {{type: Combine, name: All, input: Rows, config: {{{group}}}}}\n\
                     \x20   - {{type: WriteToJson, name: Write, input: All, config: {{path: '{}/out/all'}}}}\n",
                    reads.join(", "),
                    directory.display()
                )
                .expect("a string takes everything");
                text
            }
        }
    }

    /// How many rows the input has, where so many are asked for.
    const fn rows(self, asked: usize) -> usize {
        match self {
            Self::Little => asked * LONGER,
            Self::Much => asked,
        }
    }

    /// How many rows are read before the change, of an input of so many.
    const fn before(self, rows: usize) -> usize {
        match self {
            Self::Little => rows / 10 / LONGER,
            // Of all that is read this is one part in `READS`.
            Self::Much => rows,
        }
    }
}

struct Sample {
    pause: Duration,
    /// What the last checkpoint before the change consisted of, in bytes.
    state: f64,
}

/// Makes each change in turn, with little state and with much, and prints how long each pause was.
///
/// # Errors
/// If a run does not go on afterwards.
pub fn pauses(options: Trials) -> anyhow::Result<()> {
    let directory = tempfile::tempdir().context("cannot make a directory")?;
    let ensemble = LocalEnsemble::found(MEMBERS)?;
    println!("{:<34}{:>10}{:>14}{:>14}{:>12}", "", "state, MB", "median, ms", "longest, ms", "ms per GB");
    let mut run = 0;
    for state in State::ALL {
        let input = Input::write(directory.path(), state.rows(options.rows), options.seed)?;
        for change in Change::ALL {
            let mut samples = Vec::new();
            for _ in 0..options.rounds {
                let place = directory.path().join(format!("run-{run}"));
                let text = state.document(directory.path(), &place);
                let job = Job::running(&text, place.clone(), ensemble.hosts(), run)?;
                let before = state.before(input.rows);
                samples.push(measure(change, job, before as u64).with_context(|| change.name())?);
                std::fs::remove_dir_all(&place).context("cannot remove a directory")?;
                run += 1;
            }
            print(change, &samples);
        }
    }
    Ok(())
}

fn print(change: Change, samples: &[Sample]) {
    let millis = |sample: &Sample| sample.pause.as_secs_f64() * 1e3;
    let (pause, bytes) =
        (median(samples.iter().map(millis).collect()), median(samples.iter().map(|one| one.state).collect()));
    let longest = samples.iter().map(millis).fold(0.0, f64::max);
    // Of little state none of it is what takes the time.
    let of_state = if bytes < 1e7 { "-".to_owned() } else { format!("{:.0}", pause / (bytes / 1e9)) };
    println!("{:<34}{:>10.1}{pause:>14.0}{longest:>14.0}{of_state:>12}", change.name(), bytes / 1e6);
}

fn measure(change: Change, job: Job, before: u64) -> anyhow::Result<Sample> {
    let hosts = vec![Host::loopback(); 2];
    let mut workers = Workers::start(job, &hosts, change.workers())?;
    let sample = pause(change, &mut workers, before).with_context(|| workers.describe())?;
    // What is left to read is of no interest.
    drop(workers);
    Ok(sample)
}

fn pause(change: Change, workers: &mut Workers, before: u64) -> anyhow::Result<Sample> {
    let (lead, generation) = workers.wait("rows to be read", PATIENCE, |workers| {
        let seen = workers.look()?;
        ensure!(seen.completed == 0, "the run was over before its workers changed");
        let enough = records(workers).iter().sum::<u64>() >= before && seen.epoch >= 1;
        let together = seen.together == change.workers();
        Ok(seen.lead.filter(|_| enough && together).map(|lead| (lead, seen.generation)))
    })?;
    let state = value(&workers.metrics(lead)?, "pharos_checkpoint_full_size_bytes ").unwrap_or_default();
    let mut last = records(workers);
    let mut progress = Instant::now();
    let other = 1 - lead;
    match change {
        Change::Comes => workers.come(other),
        Change::Leaves => workers.leave(other, None)?,
        Change::Dies => workers.kill(other, AWAY)?,
        Change::LeaderDies => workers.kill(lead, AWAY)?,
        Change::Stops => workers.stop(other)?,
    }
    let mut longest = Duration::ZERO;
    let end = Instant::now() + PATIENCE;
    loop {
        ensure!(Instant::now() < end, "no row is read within {PATIENCE:?}");
        workers.supervise()?;
        // One that does not answer now has read nothing that is known.
        let seen = records(workers);
        let now = [0, 1].map(|index| seen[index].max(last[index]));
        if now.iter().zip(&last).any(|(now, last)| now > last) {
            let gap = progress.elapsed();
            progress = Instant::now();
            longest = longest.max(gap);
            if workers.look()?.generation > generation {
                return Ok(Sample { pause: longest, state });
            }
        }
        last = now;
        std::thread::sleep(LOOK);
    }
}

/// What each of two workers has read; nothing of one that does not answer.
fn records(workers: &Workers) -> [u64; 2] {
    let running = workers.running();
    [0, 1].map(|index| {
        let page = running.contains(&index).then(|| workers.metrics(index).ok()).flatten();
        page.and_then(|page| value(&page, "pharos_records_read_total{")).map_or(0, |records| records as u64)
    })
}

/// The sum of a metric's values.
fn value(page: &str, metric: &str) -> Option<f64> {
    let lines = page.lines().filter(|line| line.starts_with(metric));
    let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    values.reduce(|sum, value| sum + value)
}
