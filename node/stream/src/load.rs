//! What counters say of a worker: where it is held up, and which splits are behind.
//!
//! Owns: the values that are read from counters, the bottleneck between two readings, the order of splits.
//! Must not know: who counts, clocks, how it is shown.
//! Invariant: all here is a function of values that were read.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use pharos_window::{Timestamp, Watermark};

/// A task that is at work for less is not what others wait for.
const BUSY: f64 = 0.25;
/// From this on those before a task count as held up.
const BLOCKED: f64 = 0.1;
/// A thread that is at work for so much has no time left.
const FULL: f64 = 0.9;

/// All counters of a worker, as they were read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Load {
    /// The tasks: each transform that reads, groups or writes, with the steps that follow it, on each thread.
    pub tasks: Vec<TaskLoad>,
    /// The rows of each transform.
    pub flows: Vec<Flow>,
    /// The splits of the attempt under way.
    pub splits: Vec<SplitAt>,
    /// What waits in front of each transform.
    pub queues: Vec<Queue>,
    /// Which transform sends rows to which.
    pub feeds: Vec<(String, String)>,
    /// The other workers.
    pub peers: Vec<Peer>,
}

/// Where the time of a task went, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskLoad {
    /// The transform that it is named after.
    pub transform: String,
    /// The thread of its worker.
    pub thread: usize,
    /// It worked: read, computed or wrote.
    pub busy: Duration,
    /// Its output was full.
    pub blocked: Duration,
    /// There was nothing for it to do.
    pub idle: Duration,
    /// Its thread did the work of others.
    pub waiting: Duration,
    /// What barriers took of its time.
    pub stalls: Stalls,
    /// How far its time is, if it is part of the attempt under way.
    pub watermark: Option<Watermark>,
}

/// The lengths up to which times that barriers took are counted together.
pub const STALL_BOUNDS: [Duration; 13] = {
    const fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }
    [
        micros(100),
        micros(250),
        micros(500),
        micros(1_000),
        micros(2_500),
        micros(5_000),
        micros(10_000),
        micros(25_000),
        micros(50_000),
        micros(100_000),
        micros(250_000),
        micros(1_000_000),
        micros(5_000_000),
    ]
};

/// How long barriers kept a task from its work: a source until it was decided where the barrier stands, another task
/// until its state was set aside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stalls {
    /// How many were longer than the bound before and no longer than this one; in the end those longer than all.
    pub counts: [u64; STALL_BOUNDS.len() + 1],
    /// All together.
    pub sum: Duration,
}

impl Stalls {
    /// Adds those of another task.
    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(mine, theirs)| *mine += theirs);
        self.sum += other.sum;
    }
}

/// The rows of a transform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// The transform.
    pub transform: String,
    /// Rows that went in.
    pub rows_in: u64,
    /// Rows that came out.
    pub rows_out: u64,
}

/// How far a split is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitAt {
    /// The read.
    pub transform: String,
    /// Its place among the read's splits.
    pub index: u32,
    /// Its file.
    pub file: String,
    /// How many of its bytes are read.
    pub offset: u64,
    /// How many bytes it has, if that is known.
    pub bytes: Option<u64>,
    /// The highest event time.
    pub highest: Option<Timestamp>,
    /// Whether it has ended.
    pub ended: bool,
}

/// What waits in front of a transform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The transform.
    pub transform: String,
    /// In how many queues.
    pub channels: u64,
    /// How many bytes.
    pub bytes: u64,
    /// How many rounds.
    pub rounds: u64,
}

impl Queue {
    /// No queue yet.
    #[must_use]
    pub(crate) fn of(transform: &str) -> Self {
        Self { transform: transform.to_owned(), channels: 0, bytes: 0, rounds: 0 }
    }
}

/// What went to another worker and came from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub worker: String,
    /// Bytes that were sent to it.
    pub sent: u64,
    /// Bytes that came from it.
    pub received: u64,
}

/// The task that others wait for.
#[derive(Debug, Clone, PartialEq)]
pub struct Bottleneck {
    /// The transform that it is named after.
    pub transform: String,
    /// The thread of its worker.
    pub thread: usize,
    /// The share of time in which it worked.
    pub busy: f64,
    /// The share of time in which the output of a task before it, or beside it on another thread, was full.
    pub blocked: f64,
}

/// The shares of a task's time.
struct Shares<'a> {
    task: &'a TaskLoad,
    busy: f64,
    blocked: f64,
}

/// The task that held the worker up between two readings: the busiest of those that kept the tasks before them blocked,
/// or that filled their thread.
#[must_use]
pub fn bottleneck(before: &Load, now: &Load) -> Option<Bottleneck> {
    let shares: Vec<Shares<'_>> = now.tasks.iter().filter_map(|task| shares(before, task)).collect();
    let mut threads: BTreeMap<usize, f64> = BTreeMap::new();
    shares.iter().for_each(|one| *threads.entry(one.task.thread).or_default() += one.busy);
    let blocked = |one: &Shares<'_>| -> f64 {
        let held = shares.iter().filter(|other| holds_up(now, one.task, other.task));
        held.map(|other| other.blocked).fold(0.0, f64::max)
    };
    let candidates = shares.iter().filter(|one| one.busy >= BUSY).map(|one| (one, blocked(one)));
    candidates
        .filter(|(one, blocked)| *blocked >= BLOCKED || threads[&one.task.thread] >= FULL)
        .max_by(|(one, _), (other, _)| one.busy.total_cmp(&other.busy))
        .map(|(one, blocked)| Bottleneck {
            transform: one.task.transform.clone(),
            thread: one.task.thread,
            busy: one.busy,
            blocked,
        })
}

/// Whether `other` may be blocked because of `one`: it feeds it, or it is the same transform on another thread, whose
/// rounds wait for those of this one.
fn holds_up(now: &Load, one: &TaskLoad, other: &TaskLoad) -> bool {
    if one.transform == other.transform {
        return one.thread != other.thread;
    }
    now.feeds.iter().any(|(from, to)| *from == other.transform && *to == one.transform)
}

/// None if the task took no part.
fn shares<'a>(before: &Load, task: &'a TaskLoad) -> Option<Shares<'a>> {
    let same = |old: &&TaskLoad| old.thread == task.thread && old.transform == task.transform;
    let old = before.tasks.iter().find(same);
    let since = |of: fn(&TaskLoad) -> Duration| -> f64 {
        of(task).saturating_sub(old.map(of).unwrap_or_default()).as_secs_f64()
    };
    let (busy, blocked) = (since(|task| task.busy), since(|task| task.blocked));
    let all = busy + blocked + since(|task| task.idle) + since(|task| task.waiting);
    (all > 0.0).then(|| Shares { task, busy: busy / all, blocked: blocked / all })
}

/// A split and how far it is behind the others of its read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitLag {
    /// The split.
    pub split: SplitAt,
    /// In event time; none if it has given no event time yet.
    pub behind: Option<Duration>,
    /// The bytes that are left, if that is known.
    pub left: Option<u64>,
}

/// The `most` splits that are farthest behind, the worst first: those that have given no event time while others have, then
/// by event time, then by the bytes that are left. Who has ended holds nobody up.
#[must_use]
pub fn worst_splits(splits: &[SplitAt], most: usize) -> Vec<SplitLag> {
    let mut heads: BTreeMap<&str, Timestamp> = BTreeMap::new();
    for split in splits {
        if let Some(highest) = split.highest {
            let head = heads.entry(&split.transform).or_insert(highest);
            *head = highest.max(*head);
        }
    }
    let lag = |split: &&SplitAt| {
        let head = heads.get(split.transform.as_str()).zip(split.highest);
        let behind = head.map(|(head, at)| head.micros().saturating_sub(at.micros()).unsigned_abs());
        let unsaid = heads.contains_key(split.transform.as_str()) && split.highest.is_none();
        let left = split.bytes.map(|bytes| bytes.saturating_sub(split.offset));
        (unsaid, behind, left)
    };
    let mut open: Vec<&SplitAt> = splits.iter().filter(|split| !split.ended).collect();
    let order = |split: &&SplitAt| (Reverse(lag(split)), split.index);
    if open.len() > most {
        // There may be very many, and all but a few are of no interest.
        open.select_nth_unstable_by_key(most, order);
        open.truncate(most);
    }
    open.sort_by_key(order);
    let worst = |split: &SplitAt| {
        let (_, behind, left) = lag(&split);
        SplitLag { split: split.clone(), behind: behind.map(Duration::from_micros), left }
    };
    open.into_iter().map(worst).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A task whose time went, in seconds, to work, a full output, nothing to do, and others on its thread.
    fn task(transform: &str, thread: usize, [busy, blocked, idle, waiting]: [u64; 4]) -> TaskLoad {
        let time = Duration::from_secs;
        TaskLoad {
            transform: transform.to_owned(),
            thread,
            busy: time(busy),
            blocked: time(blocked),
            idle: time(idle),
            waiting: time(waiting),
            stalls: Stalls::default(),
            watermark: None,
        }
    }

    fn load(tasks: &[TaskLoad]) -> Load {
        let feeds = [("read", "group"), ("group", "sink")];
        let feeds = feeds.map(|(from, to)| (from.to_owned(), to.to_owned())).into();
        Load { tasks: tasks.into(), feeds, ..Load::default() }
    }

    fn found(tasks: &[TaskLoad]) -> Option<(String, usize, u64, u64)> {
        let percent = |share: f64| (share * 100.0).round() as u64;
        bottleneck(&Load::default(), &load(tasks))
            .map(|found| (found.transform, found.thread, percent(found.busy), percent(found.blocked)))
    }

    #[test]
    fn the_bottleneck_is_the_busiest_that_keeps_those_before_it_blocked() {
        let slow_sink = [
            task("read", 0, [2, 93, 0, 5]),
            task("read", 1, [4, 96, 0, 0]),
            task("group", 0, [1, 90, 0, 9]),
            task("group", 1, [1, 99, 0, 0]),
            task("sink", 0, [97, 0, 0, 3]),
        ];
        assert_eq!(found(&slow_sink), Some(("sink".to_owned(), 0, 97, 99)));
        // All threads of a read go in step: one that is slow keeps the others blocked.
        let slow_split = [
            task("read", 0, [80, 0, 0, 20]),
            task("read", 1, [30, 70, 0, 0]),
            task("group", 0, [5, 0, 95, 0]),
        ];
        assert_eq!(found(&slow_split), Some(("read".to_owned(), 0, 80, 70)));
    }

    #[test]
    fn where_nobody_is_blocked_it_is_the_busiest_of_a_thread_without_time() {
        let full = [task("read", 0, [70, 0, 0, 30]), task("group", 0, [25, 0, 5, 70])];
        assert_eq!(found(&full), Some(("read".to_owned(), 0, 70, 0)));
        let slack = [task("read", 0, [60, 0, 40, 0]), task("group", 0, [20, 0, 20, 60])];
        assert_eq!(found(&slack), None);
        // Of a worker that waits for another one, none of its own is.
        let elsewhere = [task("read", 0, [5, 95, 0, 0]), task("group", 0, [2, 0, 98, 0])];
        assert_eq!(found(&elsewhere), None);
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn only_what_was_between_the_readings_counts() {
        let before = load(&[task("read", 0, [100, 0, 0, 0]), task("sink", 0, [0, 0, 100, 0])]);
        let now = load(&[task("read", 0, [101, 0, 0, 99]), task("sink", 0, [99, 0, 100, 1])]);
        assert_eq!(bottleneck(&before, &now).map(|found| found.transform), Some("sink".to_owned()));
        assert_eq!(bottleneck(&now, &now), None);
    }

    fn split(transform: &str, index: u32, highest: Option<i64>, offset: u64) -> SplitAt {
        let highest = highest.map(|second| Timestamp::from_micros(second * 1_000_000));
        let (file, bytes) = (format!("{transform}-{index}"), Some(100));
        SplitAt { transform: transform.to_owned(), index, file, offset, bytes, highest, ended: false }
    }

    #[test]
    fn the_worst_splits_are_those_behind_the_others_of_their_read() {
        let ended = SplitAt { ended: true, ..split("a", 9, Some(0), 100) };
        let splits = [
            split("a", 0, Some(500), 10),
            split("a", 1, Some(300), 90),
            split("a", 2, None, 50),
            split("a", 3, Some(300), 20),
            split("b", 0, Some(7000), 1),
            split("b", 1, Some(6950), 1),
            split("untimed", 0, None, 0),
            ended,
        ];
        let names =
            |lags: &[SplitLag]| -> Vec<String> { lags.iter().map(|lag| lag.split.file.clone()).collect() };
        let all = worst_splits(&splits, 10);
        assert_eq!(names(&all), ["a-2", "a-3", "a-1", "b-1", "b-0", "a-0", "untimed-0"]);
        let numbers: Vec<_> =
            all.iter().map(|lag| (lag.behind.map(|time| time.as_secs()), lag.left)).collect();
        let left = |left| Some(left);
        assert_eq!(
            numbers[..4],
            [(None, left(50)), (Some(200), left(80)), (Some(200), left(10)), (Some(50), left(99))]
        );
        assert_eq!(numbers[6], (None, left(100)));
        assert_eq!(names(&worst_splits(&splits, 2)), ["a-2", "a-3"]);
        assert_eq!(worst_splits(&[], 2), []);
    }
}
