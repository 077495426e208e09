//! What the tasks of a worker do with their time and how far they are: counters that may be read at any time.
//!
//! Owns: the counters of tasks, transforms, splits, queues and connections, and whose time is whose.
//! Must not know: what a task does, how counters are shown.
//! Invariant: the threads of a run add to counters of their own, without a lock, an allocation or an order; what is
//! counted goes on from one attempt to the next, what is measured begins anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use pharos_window::{Timestamp, Watermark};

use crate::exec::channel::Channel;
use crate::load::{Flow, Load, Peer, Queue, STALL_BOUNDS, SplitAt, Stalls, TaskLoad};

/// Stands where no time has been said.
const UNSAID: i64 = i64::MIN;

/// Why a task that has not ended does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// There is nothing for it to do.
    Input,
    /// Its output is full.
    Room,
    /// It is not decided where a barrier stands.
    Barrier,
}

/// What one thread's share of a transform does. On a line of the cache of its own: another thread adds to the next one.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct TaskMeter {
    busy: AtomicU64,
    blocked: AtomicU64,
    idle: AtomicU64,
    waiting: AtomicU64,
    stalls: [AtomicU64; STALL_BOUNDS.len() + 1],
    stalled: AtomicU64,
    watermark: AtomicI64,
}

impl TaskMeter {
    fn new() -> Self {
        let zero = || AtomicU64::new(0);
        let (busy, blocked, idle, waiting) = (zero(), zero(), zero(), zero());
        let stalls = std::array::from_fn(|_| zero());
        let watermark = AtomicI64::new(UNSAID);
        Self { busy, blocked, idle, waiting, stalls, stalled: zero(), watermark }
    }

    /// Notes how far the task's time is.
    pub(crate) fn reached(&self, watermark: Watermark) {
        self.watermark.store(watermark.timestamp().micros(), Relaxed);
    }

    fn stalled(&self, time: Duration) {
        let length = STALL_BOUNDS.partition_point(|bound| *bound < time);
        let count = &self.stalls[length];
        count.store(count.load(Relaxed) + 1, Relaxed);
        add(&self.stalled, time);
    }

    fn load(&self, transform: &str, thread: usize) -> TaskLoad {
        let time = |of: &AtomicU64| Duration::from_nanos(of.load(Relaxed));
        let counts = std::array::from_fn(|length| self.stalls[length].load(Relaxed));
        TaskLoad {
            transform: transform.to_owned(),
            thread,
            busy: time(&self.busy),
            blocked: time(&self.blocked),
            idle: time(&self.idle),
            waiting: time(&self.waiting),
            stalls: Stalls { counts, sum: time(&self.stalled) },
            watermark: said(&self.watermark).map(Watermark::at),
        }
    }
}

fn said(at: &AtomicI64) -> Option<Timestamp> {
    let micros = at.load(Relaxed);
    (micros != UNSAID).then(|| Timestamp::from_micros(micros))
}

/// Divides the time of a task. It is asked for the time only when a task has worked or its thread has slept: what lies
/// between is too short to matter.
#[derive(Debug)]
pub(crate) struct TaskClock {
    meter: Arc<TaskMeter>,
    /// Up to when its time is accounted for.
    since: Option<Instant>,
    /// Why it waits since then; none: it has worked.
    waits: Option<Wait>,
    /// Since when it waits for a barrier's place.
    held: Option<Instant>,
}

impl TaskClock {
    /// The clock of a task that was not called yet.
    #[must_use]
    pub(crate) fn new(meter: Arc<TaskMeter>) -> Self {
        Self { meter, since: None, waits: None, held: None }
    }

    /// The task was called at `from`, worked until `to`, and its time has come to `watermark`.
    pub(crate) fn worked(&mut self, from: Instant, to: Instant, watermark: Watermark) {
        self.account(from, self.waits);
        if let Some(since) = self.held.take() {
            self.meter.stalled(from.saturating_duration_since(since));
        }
        add(&self.meter.busy, to.saturating_duration_since(from));
        (self.since, self.waits) = (Some(to), None);
        self.meter.reached(watermark);
    }

    /// Of the time that it worked last it set its state aside for so long.
    pub(crate) fn set_aside(&self, time: Duration) {
        self.meter.stalled(time);
    }

    /// The task was called at `at` and had to wait. If it had worked before, it has waited since.
    pub(crate) fn waits(&mut self, at: Instant, why: Wait) {
        self.account(at, self.waits.or(Some(why)));
        (self.since, self.waits) = (Some(at), Some(why));
        if why == Wait::Barrier {
            self.held.get_or_insert(at);
        }
    }

    fn account(&self, until: Instant, why: Option<Wait>) {
        let Some(since) = self.since else { return };
        let counter = match why {
            Some(Wait::Input | Wait::Barrier) => &self.meter.idle,
            Some(Wait::Room) => &self.meter.blocked,
            None => &self.meter.waiting,
        };
        add(counter, until.saturating_duration_since(since));
    }
}

/// One thread alone adds to it.
fn add(counter: &AtomicU64, time: Duration) {
    counter.store(counter.load(Relaxed) + time.as_nanos() as u64, Relaxed);
}

/// The rows that go into a transform and come out of it, on all threads.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct FlowMeter {
    rows_in: AtomicU64,
    rows_out: AtomicU64,
}

impl FlowMeter {
    /// Counts rows that go in.
    pub(crate) fn takes(&self, rows: usize) {
        self.rows_in.fetch_add(rows as u64, Relaxed);
    }

    /// Counts rows that come out.
    pub(crate) fn gives(&self, rows: usize) {
        self.rows_out.fetch_add(rows as u64, Relaxed);
    }
}

/// How far a split is.
#[derive(Debug)]
pub(crate) struct SplitMeter {
    index: u32,
    name: String,
    bytes: Option<u64>,
    offset: AtomicU64,
    highest: AtomicI64,
    ended: AtomicBool,
}

impl SplitMeter {
    /// A split that was opened.
    #[must_use]
    pub(crate) fn new(index: u32, name: &str, bytes: Option<u64>) -> Arc<Self> {
        Arc::new(Self {
            index,
            name: name.to_owned(),
            bytes,
            offset: AtomicU64::new(0),
            highest: AtomicI64::new(UNSAID),
            ended: AtomicBool::new(false),
        })
    }

    /// Notes where it stands.
    pub(crate) fn stands(&self, offset: u64, highest: Option<Timestamp>, ended: bool) {
        self.offset.store(offset, Relaxed);
        self.highest.store(highest.map_or(UNSAID, Timestamp::micros), Relaxed);
        self.ended.store(ended, Relaxed);
    }

    fn at(&self, transform: &str) -> SplitAt {
        SplitAt {
            transform: transform.to_owned(),
            index: self.index,
            file: self.name.clone(),
            offset: self.offset.load(Relaxed),
            bytes: self.bytes,
            highest: said(&self.highest),
            ended: self.ended.load(Relaxed),
        }
    }
}

/// What went over a connection.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    /// Counts bytes that were sent.
    pub(crate) fn sends(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts bytes that came.
    pub(crate) fn receives(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Relaxed);
    }
}

/// All counters of a worker.
#[derive(Debug, Default)]
pub struct Meters {
    all: Mutex<All>,
}

#[derive(Debug, Default)]
struct All {
    tasks: BTreeMap<(String, usize), Arc<TaskMeter>>,
    flows: BTreeMap<String, Arc<FlowMeter>>,
    splits: BTreeMap<String, Vec<Arc<SplitMeter>>>,
    /// Of attempts that are over nothing is kept alive.
    queues: Vec<(String, Weak<Channel>)>,
    feeds: BTreeSet<(String, String)>,
    peers: BTreeMap<String, Known>,
}

/// What went over the connections to another worker: those of attempts that are over, and those that are open.
#[derive(Debug, Default)]
struct Known {
    sent: u64,
    received: u64,
    open: Vec<Arc<Traffic>>,
}

impl Known {
    fn close(&mut self) {
        let Self { sent, received, open } = self;
        for traffic in open.drain(..) {
            *sent += traffic.sent.load(Relaxed);
            *received += traffic.received.load(Relaxed);
        }
    }

    fn load(&self, worker: &str) -> Peer {
        let sum = |of: fn(&Traffic) -> &AtomicU64| -> u64 {
            self.open.iter().map(|traffic| of(traffic).load(Relaxed)).sum()
        };
        Peer {
            worker: worker.to_owned(),
            sent: self.sent + sum(|traffic| &traffic.sent),
            received: self.received + sum(|traffic| &traffic.received),
        }
    }
}

impl Meters {
    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another attempt begins: what was measured in the one before says nothing any more.
    pub(crate) fn begin(&self) {
        let mut all = self.all();
        all.tasks.values().for_each(|task| task.watermark.store(UNSAID, Relaxed));
        all.splits.clear();
        all.queues.clear();
        all.feeds.clear();
        all.peers.values_mut().for_each(Known::close);
    }

    /// The counters of a transform on a thread of this worker.
    pub(crate) fn task(&self, transform: &str, thread: usize) -> Arc<TaskMeter> {
        let mut all = self.all();
        let task = all.tasks.entry((transform.to_owned(), thread));
        let task = task.or_insert_with(|| Arc::new(TaskMeter::new()));
        task.reached(Watermark::NEG_INF);
        Arc::clone(task)
    }

    /// The counters of a transform.
    pub(crate) fn flow(&self, transform: &str) -> Arc<FlowMeter> {
        Arc::clone(self.all().flows.entry(transform.to_owned()).or_default())
    }

    /// Shows a split of a read.
    pub(crate) fn split(&self, transform: &str, split: &Arc<SplitMeter>) {
        self.all().splits.entry(transform.to_owned()).or_default().push(Arc::clone(split));
    }

    /// Shows a queue between two transforms.
    pub(crate) fn queue(&self, from: &str, to: &str, channel: &Arc<Channel>) {
        let mut all = self.all();
        all.feeds.insert((from.to_owned(), to.to_owned()));
        all.queues.push((to.to_owned(), Arc::downgrade(channel)));
    }

    /// Shows the connection to another worker.
    pub(crate) fn peer(&self, worker: &str, traffic: &Arc<Traffic>) {
        self.all().peers.entry(worker.to_owned()).or_default().open.push(Arc::clone(traffic));
    }

    /// What the counters say now.
    #[must_use]
    pub fn load(&self) -> Load {
        let all = self.all();
        let mut queues: BTreeMap<&str, Queue> = BTreeMap::new();
        for (transform, channel) in &all.queues {
            let Some((bytes, rounds)) = channel.upgrade().and_then(|channel| channel.waiting()) else {
                continue;
            };
            let queue = queues.entry(transform).or_insert_with(|| Queue::of(transform));
            queue.channels += 1;
            queue.bytes += bytes as u64;
            queue.rounds += rounds as u64;
        }
        let split = |(transform, splits): (&String, &Vec<Arc<SplitMeter>>)| {
            splits.iter().map(|split| split.at(transform)).collect::<Vec<_>>()
        };
        let flow = |(transform, flow): (&String, &Arc<FlowMeter>)| Flow {
            transform: transform.clone(),
            rows_in: flow.rows_in.load(Relaxed),
            rows_out: flow.rows_out.load(Relaxed),
        };
        Load {
            tasks: all
                .tasks
                .iter()
                .map(|((transform, thread), task)| task.load(transform, *thread))
                .collect(),
            flows: all.flows.iter().map(flow).collect(),
            splits: all.splits.iter().flat_map(split).collect(),
            queues: queues.into_values().collect(),
            feeds: all.feeds.iter().cloned().collect(),
            peers: all.peers.iter().map(|(worker, known)| known.load(worker)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_task_is_divided_without_a_rest() {
        let meters = Meters::default();
        let mut clock = TaskClock::new(meters.task("sink", 0));
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        // What was before its first call is nobody's.
        clock.waits(at(1), Wait::Input);
        clock.waits(at(11), Wait::Input);
        // What it waited for came between two calls: it waited until the later one.
        clock.worked(at(31), at(36), Watermark::at(Timestamp::from_micros(7)));
        // Its thread did the work of others.
        clock.worked(at(39), at(41), Watermark::at(Timestamp::from_micros(8)));
        // After its work its output was full.
        clock.waits(at(141), Wait::Room);
        clock.waits(at(241), Wait::Input);
        clock.waits(at(1241), Wait::Input);
        let [task] = &meters.load().tasks[..] else { panic!("there is one task") };
        let millis = [task.busy, task.blocked, task.idle, task.waiting].map(|time| time.as_millis());
        assert_eq!(millis, [7, 200, 1030, 3]);
        assert_eq!(millis.iter().sum::<u128>(), 1241 - 1);
        assert_eq!(task.watermark, Some(Watermark::at(Timestamp::from_micros(8))));
    }

    #[test]
    fn what_barriers_take_is_counted_by_its_length() {
        let meters = Meters::default();
        let mut clock = TaskClock::new(meters.task("read", 0));
        let begun = Instant::now();
        let at = |micros| begun + Duration::from_micros(micros);
        clock.waits(at(0), Wait::Input);
        // From the first time that it was held, through whatever its thread did.
        clock.waits(at(1_000), Wait::Barrier);
        clock.waits(at(1_700), Wait::Barrier);
        clock.worked(at(3_500), at(4_000), Watermark::NEG_INF);
        clock.set_aside(Duration::from_micros(100));
        clock.set_aside(Duration::from_secs(9));
        let Stalls { counts, sum } = meters.load().tasks[0].stalls.clone();
        assert_eq!(counts, [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(sum, Duration::from_micros(2_500 + 100 + 9_000_000));
        assert_eq!(meters.load().tasks[0].idle, Duration::from_micros(3_500));
    }

    #[test]
    fn another_attempt_goes_on_counting_and_measures_anew() {
        let meters = Meters::default();
        let begun = Instant::now();
        let work = || {
            meters.begin();
            let mut clock = TaskClock::new(meters.task("read", 1));
            clock.worked(begun, begun + Duration::from_secs(1), Watermark::POS_INF);
            meters.flow("read").gives(10);
            meters.split("read", &SplitMeter::new(4, "a", Some(9)));
            let traffic = Arc::new(Traffic::default());
            meters.peer("w1", &traffic);
            traffic.sends(5);
            traffic.receives(6);
            meters.load()
        };
        work();
        let twice = work();
        assert_eq!(twice.tasks[0].busy, Duration::from_secs(2));
        assert_eq!((twice.flows[0].rows_in, twice.flows[0].rows_out), (0, 20));
        assert_eq!((twice.peers[0].sent, twice.peers[0].received), (10, 12));
        assert_eq!(twice.splits.len(), 1);
        // A transform that another worker has now says nothing of how far the run is.
        meters.begin();
        assert_eq!(meters.load().tasks[0].watermark, None);
    }
}
