//! What a run tells while it runs.
//!
//! Owns: the events and the counters of the report.
//! Must not know: how they are shown.
//! Invariant: telling never blocks the work on the listener's queue; the listener is called on the
//! thread that has the news and must be quick.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pharos_beam::plan::LogLevel;
use pharos_window::{Timestamp, Watermark, Window};
use serde::Serialize;

use crate::checkpoint::CheckpointSize;
use crate::meter::Meters;

/// News of a run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The run begins, and these counters move from now on.
    Measured {
        /// The counters of this worker.
        meters: Arc<Meters>,
    },
    /// A window of a grouping closed: the watermark of all its threads has passed its end.
    WindowClosed {
        /// The grouping.
        transform: String,
        /// The window.
        window: Window,
        /// How many results it gave.
        results: u64,
        /// How many windows of this grouping closed so far, this one included.
        closed: u64,
    },
    /// The watermark of a grouping advanced.
    Watermark {
        /// The grouping.
        transform: String,
        /// Where it stands now.
        watermark: Watermark,
    },
    /// Rows were dropped as late.
    LateDropped {
        /// The grouping.
        transform: String,
        /// How many now.
        rows: u64,
        /// How many so far.
        total: u64,
    },
    /// Rows went to the dead letters.
    DeadLetters {
        /// The step.
        transform: String,
        /// How many.
        rows: u64,
    },
    /// A LogForTesting wrote a row.
    Log {
        /// The step.
        transform: String,
        /// The level.
        level: LogLevel,
        /// The prefix and the row as JSON.
        text: String,
    },
    /// A read knows what there is to read.
    Input {
        /// The read.
        transform: String,
        /// How many splits it has.
        splits: u64,
        /// The bytes of all of them; none if those of one are not known.
        bytes: Option<u64>,
        /// How many of them an earlier process has read.
        done: u64,
    },
    /// Records were read.
    Read {
        /// The read.
        transform: String,
        /// How many now.
        records: u64,
        /// How many bytes they were.
        bytes: u64,
    },
    /// A checkpoint was committed.
    Checkpoint {
        /// Its number.
        epoch: u64,
        /// How long it took from the moment it was asked for.
        took: Duration,
        /// Its size.
        size: CheckpointSize,
    },
    /// This worker takes part in an attempt at the run.
    Joined {
        /// Its generation.
        generation: u64,
        /// How many workers take part.
        workers: u64,
        /// Whether this one coordinates.
        leads: bool,
    },
    /// An attempt ended before the run was done, and there will be another.
    Interrupted {
        /// Why.
        why: String,
    },
    /// The run goes on from a checkpoint.
    Restored {
        /// Its number.
        epoch: u64,
    },
    /// That checkpoint is of another document.
    TakenOver {
        /// The steps that go on from the state of those of the same names.
        kept: Vec<String>,
        /// The steps that keep state and begin without.
        begun: Vec<String>,
    },
    /// An output was made visible.
    Written {
        /// The step.
        transform: String,
        /// The files.
        files: Vec<String>,
    },
}

/// The counters of one grouping.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GroupReport {
    /// Windows that closed while input was still to come.
    pub windows_closed_before_end: u64,
    /// All windows that closed.
    pub windows_closed: u64,
    /// Rows (one for each window) dropped as late.
    pub late_dropped: u64,
    /// Results.
    pub results: u64,
}

/// What a run did since it started or was restored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Records read, by read.
    pub records_read: BTreeMap<String, u64>,
    /// Rows written, by write.
    pub rows_written: BTreeMap<String, u64>,
    /// Dead letters, by step.
    pub dead_letters: BTreeMap<String, u64>,
    /// The groupings.
    pub groups: BTreeMap<String, GroupReport>,
    /// The files of each write.
    pub files: BTreeMap<String, Vec<String>>,
    /// The last committed checkpoint.
    pub checkpoint: Option<u64>,
    /// Whether an earlier process had already finished the run.
    pub already_completed: bool,
}

/// Who listens.
pub type Listener = Arc<dyn Fn(&Event) + Send + Sync>;

#[derive(Debug, Default)]
struct Progress {
    watermarks: Vec<Watermark>,
    told: Option<Watermark>,
    open: BTreeMap<Window, u64>,
}

#[derive(Default)]
struct State {
    report: Report,
    progress: BTreeMap<String, Progress>,
}

/// Where the threads of a run tell their news.
#[derive(Clone)]
pub(crate) struct Events {
    listener: Listener,
    state: Arc<Mutex<State>>,
    meters: Arc<Meters>,
}

impl Events {
    /// Events for `listener`, which is given the counters at once.
    #[must_use]
    pub(crate) fn new(listener: Listener) -> Self {
        let meters = Arc::<Meters>::default();
        listener(&Event::Measured { meters: Arc::clone(&meters) });
        Self { listener, state: Arc::default(), meters }
    }

    /// The counters.
    #[must_use]
    pub(crate) fn meters(&self) -> &Meters {
        &self.meters
    }

    /// Forgets how far the attempt before this one was.
    pub(crate) fn begin(&self) {
        self.with(|state| state.progress.clear());
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts and tells an event.
    pub(crate) fn send(&self, event: Event) {
        match &event {
            Event::DeadLetters { transform, rows } => self.with(|state| {
                *state.report.dead_letters.entry(transform.clone()).or_default() += rows;
            }),
            Event::Checkpoint { epoch, .. } => self.with(|state| state.report.checkpoint = Some(*epoch)),
            Event::Written { transform, files } => self.with(|state| {
                state.report.files.insert(transform.clone(), files.clone());
            }),
            _ => {}
        }
        (self.listener)(&event);
    }

    /// Counts records read, and tells.
    pub(crate) fn read(&self, transform: &str, records: u64, bytes: u64) {
        self.with(|state| *state.report.records_read.entry(transform.to_owned()).or_default() += records);
        (self.listener)(&Event::Read { transform: transform.to_owned(), records, bytes });
    }

    /// Counts rows written.
    pub(crate) fn wrote(&self, transform: &str, rows: u64) {
        self.with(|state| *state.report.rows_written.entry(transform.to_owned()).or_default() += rows);
    }

    /// Counts rows dropped as late, and tells.
    pub(crate) fn late(&self, transform: &str, rows: u64) {
        let total = self.with(|state| {
            let group = state.report.groups.entry(transform.to_owned()).or_default();
            group.late_dropped += rows;
            group.late_dropped
        });
        self.send(Event::LateDropped { transform: transform.to_owned(), rows, total });
    }

    /// Notes what one thread of a grouping did in a round: where its watermark went and how many
    /// results each window gave. A window counts as closed once all threads are past it.
    pub(crate) fn advanced(
        &self,
        transform: &str,
        thread: usize,
        threads: usize,
        watermark: Watermark,
        fired: &[(Window, u64)],
    ) {
        let news = self.with(|state| {
            let progress = state.progress.entry(transform.to_owned()).or_default();
            progress.watermarks.resize(threads, Watermark::NEG_INF);
            progress.watermarks[thread] = progress.watermarks[thread].max(watermark);
            let group = state.report.groups.entry(transform.to_owned()).or_default();
            for (window, results) in fired {
                group.results += results;
                *progress.open.entry(*window).or_default() += results;
            }
            let reached = progress.watermarks.iter().copied().min().unwrap_or(watermark);
            let mut news = Vec::new();
            while let Some(first) = progress.open.first_entry() {
                if !reached.has_passed(first.key().max_timestamp()) {
                    break;
                }
                let (window, results) = first.remove_entry();
                group.windows_closed += 1;
                group.windows_closed_before_end += u64::from(reached.timestamp() < Timestamp::MAX);
                let closed = group.windows_closed;
                news.push(Event::WindowClosed { transform: transform.to_owned(), window, results, closed });
            }
            if progress.told.is_none_or(|told| told < reached) && reached > Watermark::NEG_INF {
                progress.told = Some(reached);
                news.push(Event::Watermark { transform: transform.to_owned(), watermark: reached });
            }
            news
        });
        news.iter().for_each(|event| (self.listener)(event));
    }

    /// The counters now.
    #[must_use]
    pub(crate) fn report(&self) -> Report {
        self.with(|state| state.report.clone())
    }
}
