//! How far a Pipeline has come with its input.
//!
//! Owns: the sums, the rate and the time that is left, and the bar on a terminal.
//! Must not know: what is read, and how.
//! Invariant: what is shown is of this process alone, but for the share of the input, in which counts what an earlier one
//! has read.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pharos_stream::Event;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often what is said beside the bar changes.
const REFRESH: Duration = Duration::from_millis(100);
/// How often a line of a log says it.
const LOG: Duration = Duration::from_secs(30);

/// One read's input.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Input {
    /// Files, objects, or parts of large ones.
    pub(crate) splits: u64,
    /// Bytes, if they are known.
    pub(crate) bytes: Option<u64>,
    /// How many of them were read, also by an earlier process.
    pub(crate) done: u64,
    /// Records that this process has read.
    pub(crate) records: u64,
    /// Bytes that this process has read.
    pub(crate) read: u64,
}

/// The sums over all reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pace {
    inputs: BTreeMap<String, Input>,
}

impl Pace {
    /// Takes news of the run; true if they say how far it is.
    pub(crate) fn hear(&mut self, event: &Event) -> bool {
        match event {
            Event::Input { transform, splits, bytes, done } => {
                // Each attempt opens its splits anew; what the process has read before is still read.
                let input = self.inputs.entry(transform.clone()).or_default();
                (input.splits, input.bytes, input.done) = (*splits, *bytes, *done);
            }
            Event::Read { transform, records, bytes } => {
                let input = self.inputs.entry(transform.clone()).or_default();
                input.records += records;
                input.read += bytes;
                input.done += bytes;
            }
            _ => return false,
        }
        true
    }

    /// Each read with its input.
    pub(crate) fn inputs(&self) -> &BTreeMap<String, Input> {
        &self.inputs
    }

    fn sum(&self, of: impl Fn(&Input) -> u64) -> u64 {
        self.inputs.values().map(of).sum()
    }

    /// Bytes that were read and all there are, if these are known of every read that has files.
    fn share(&self) -> Option<(u64, u64)> {
        let files = || self.inputs.values().filter(|input| input.splits > 0);
        let all = files().map(|input| input.bytes).sum::<Option<u64>>().filter(|bytes| *bytes > 0)?;
        // A file may grow while it is read.
        Some((files().map(|input| input.done).sum::<u64>().min(all), all))
    }

    /// In words, after so long a time.
    fn words(&self, after: Duration) -> String {
        let (records, read) = (self.sum(|input| input.records), self.sum(|input| input.read));
        let seconds = after.as_secs_f64().max(1e-3);
        let mut words = format!("{records} records, {:.0}/s", records as f64 / seconds);
        if let Some((done, all)) = self.share() {
            words = format!("{} %, {words}", done * 100 / all);
            if read > 0 {
                let left = (all - done) as f64 * seconds / read as f64;
                words = format!("{words}, {:.0} s left", left.ceil());
            }
        }
        words
    }
}

/// Shows it.
pub(crate) struct Progress {
    begun: Instant,
    shown: Mutex<Shown>,
}

struct Shown {
    pace: Pace,
    /// Not there without a terminal.
    bar: Option<ProgressBar>,
    last: Instant,
}

impl Progress {
    /// On the terminal that the error output is, if it is one.
    pub(crate) fn on_terminal(name: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{prefix}: {bar:30} {msg}").expect("the template is right");
        bar.set_style(style.progress_chars("=> "));
        bar.set_prefix(name.to_owned());
        Self::new((!bar.is_hidden()).then_some(bar))
    }

    /// In the log alone.
    pub(crate) fn in_log() -> Self {
        Self::new(None)
    }

    fn new(bar: Option<ProgressBar>) -> Self {
        let now = Instant::now();
        Self { begun: now, shown: Mutex::new(Shown { pace: Pace::default(), bar, last: now }) }
    }

    /// Takes news of the run.
    pub(crate) fn hear(&self, event: &Event) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if !shown.pace.hear(event) {
            return;
        }
        let every = if shown.bar.is_some() { REFRESH } else { LOG };
        if shown.last.elapsed() < every {
            return;
        }
        shown.last = Instant::now();
        let words = shown.pace.words(self.begun.elapsed());
        let Some(bar) = &shown.bar else { return tracing::info!("{words}") };
        if let Some((done, all)) = shown.pace.share() {
            bar.set_length(all);
            bar.set_position(done);
        }
        bar.set_message(words);
    }

    /// Prints a line above the bar.
    pub(crate) fn say(&self, line: &str) {
        let bar = self.shown.lock().unwrap_or_else(PoisonError::into_inner).bar.clone();
        match bar {
            Some(bar) => bar.suspend(|| println!("{line}")),
            None => println!("{line}"),
        }
    }

    /// What was read.
    pub(crate) fn pace(&self) -> Pace {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).pace.clone()
    }

    /// Takes the bar away.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.shown.lock().unwrap_or_else(PoisonError::into_inner).bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(transform: &str, splits: u64, bytes: Option<u64>, done: u64) -> Event {
        Event::Input { transform: transform.to_owned(), splits, bytes, done }
    }

    fn read(transform: &str, records: u64, bytes: u64) -> Event {
        Event::Read { transform: transform.to_owned(), records, bytes }
    }

    #[test]
    fn share_rate_and_what_is_left_are_of_all_reads() {
        let mut pace = Pace::default();
        assert!(pace.hear(&input("a", 2, Some(700), 100)) && pace.hear(&input("b", 1, Some(300), 0)));
        assert_eq!(pace.words(Duration::from_secs(1)), "10 %, 0 records, 0/s");
        pace.hear(&read("a", 30, 100));
        pace.hear(&read("b", 10, 100));
        // The rate is of this process: 200 bytes in 2 s, and 700 are left.
        assert_eq!(pace.words(Duration::from_secs(2)), "30 %, 40 records, 20/s, 7 s left");
        pace.hear(&read("a", 60, 600));
        pace.hear(&read("b", 20, 200));
        assert_eq!(pace.words(Duration::from_secs(4)), "100 %, 120 records, 30/s, 0 s left");
    }

    #[test]
    fn what_a_process_has_read_counts_on_when_its_splits_are_opened_anew() {
        let mut pace = Pace::default();
        pace.hear(&input("a", 2, Some(1000), 0));
        pace.hear(&read("a", 40, 400));
        // From a checkpoint that holds half of that, with one split more.
        pace.hear(&input("a", 3, Some(1400), 200));
        pace.hear(&read("a", 10, 100));
        let Input { splits, bytes, done, records, read } = pace.inputs()["a"];
        assert_eq!((splits, bytes, done), (3, Some(1400), 300));
        assert_eq!((records, read), (50, 500), "the counters of a process do not go back");
    }

    #[test]
    fn without_a_size_there_is_no_share_and_rows_without_files_have_none() {
        let mut pace = Pace::default();
        pace.hear(&input("a", 1, Some(100), 0));
        // The rows of a Create.
        pace.hear(&read("rows", 3, 0));
        assert_eq!(pace.words(Duration::from_secs(1)), "0 %, 3 records, 3/s");
        pace.hear(&input("pipe", 1, None, 0));
        pace.hear(&read("pipe", 7, 50));
        assert_eq!(pace.words(Duration::from_secs(1)), "10 records, 10/s");
        let mut grown = Pace::default();
        grown.hear(&input("a", 1, Some(100), 0));
        grown.hear(&read("a", 5, 150));
        assert_eq!(grown.words(Duration::from_secs(1)), "100 %, 5 records, 5/s, 0 s left");
    }
}
