//! One thread and its tasks.
//!
//! Owns: the order in which tasks are called, waiting, and where barriers stand.
//! Must not know: what tasks do.
//! Invariant: tasks near the end of the plan come first, so what is in flight leaves before more
//! comes in. The least round that is not done can always go on: its senders' queues are empty.

use std::cell::Cell;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use super::channel::{Epoch, Round};
use super::fragment::Steps;
use super::task::{
    AssertTask, Begin, Context, CreateTask, GroupTask, Polled, ReadTask, SinkTask, TaskReport,
};
use crate::error::StreamError;
use crate::meter::{TaskClock, TaskMeter, Wait};
use crate::plant;

/// A task and where its time goes.
pub(crate) struct Task {
    kind: Kind,
    clock: TaskClock,
}

/// A task of any kind.
pub(crate) enum Kind {
    /// Reads splits.
    Read(Box<ReadTask>),
    /// Gives literal rows.
    Create(Box<CreateTask>),
    /// Groups.
    Group(Box<GroupTask>),
    /// Writes.
    Sink(Box<SinkTask>),
    /// Compares.
    Assert(Box<AssertTask>),
}

impl Task {
    /// A task whose time goes to a meter.
    #[must_use]
    pub(crate) fn new(kind: Kind, meter: Arc<TaskMeter>) -> Self {
        Self { kind, clock: TaskClock::new(meter) }
    }

    /// Calls it at `now`, and moves that to the end of its work, if it did any. One that must wait is not worth a look
    /// at the clock.
    fn poll(&mut self, context: &Context<'_>, now: &mut Instant) -> Result<Polled, StreamError> {
        context.set_aside.set(None);
        let polled = match &mut self.kind {
            Kind::Read(task) => task.poll(context)?,
            Kind::Create(task) => task.poll(context)?,
            Kind::Group(task) => task.poll(context)?,
            Kind::Sink(task) => task.poll(context)?,
            Kind::Assert(task) => task.poll(context)?,
        };
        match polled {
            Polled::Worked(watermark) => {
                let from = std::mem::replace(now, Instant::now());
                self.clock.worked(from, *now, watermark);
                if let Some(time) = context.set_aside.take() {
                    self.clock.set_aside(time);
                }
            }
            Polled::Waiting(why) => self.clock.waits(*now, why),
            Polled::Ended => self.clock.waits(*now, Wait::Input),
        }
        Ok(polled)
    }
}

/// Where the barrier of the checkpoint under way stands. All sources of all workers must agree on it:
/// they say which round they have begun and begin no other until it is known where it stands.
#[derive(Debug, Default)]
pub(crate) struct Barriers {
    inner: Mutex<Decisions>,
}

#[derive(Debug, Default)]
struct Decisions {
    /// The latest round that a source has begun.
    begun: Option<Round>,
    held: bool,
    /// The last barrier: only one checkpoint is under way.
    at: Option<(Round, Epoch)>,
}

impl Barriers {
    fn inner(&self) -> MutexGuard<'_, Decisions> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets no source begin a round later than the one returned, the latest begun.
    pub(crate) fn hold(&self) -> Option<Round> {
        let mut inner = self.inner();
        inner.held = true;
        inner.begun
    }

    /// Puts the barrier of a checkpoint at the end of a round that no source has begun, and lets go on.
    pub(crate) fn place(&self, epoch: Epoch, round: Round) {
        let mut inner = self.inner();
        let free = inner.begun.is_none_or(|begun| begun < round) || plant::places_early();
        assert!(free, "a barrier stands where none has been");
        inner.held = false;
        inner.at = Some((round, epoch));
    }

    /// Whether a source may begin `round`.
    pub(crate) fn begin(&self, round: Round) -> Begin {
        let mut inner = self.inner();
        if inner.begun.is_none_or(|begun| begun < round) {
            if inner.held {
                return Begin::Later;
            }
            inner.begun = Some(round);
        }
        Begin::Now(inner.at.filter(|(at, _)| *at == round).map(|(_, epoch)| epoch))
    }
}

/// What the threads of a run share.
pub(crate) struct Shared {
    /// The plan's steps.
    pub steps: Steps,
    /// Where checkpoints are taken.
    pub barriers: Barriers,
    stop: AtomicBool,
    threads: OnceLock<Vec<Thread>>,
}

impl Shared {
    /// Nothing runs yet.
    #[must_use]
    pub(crate) fn new(steps: Steps) -> Self {
        Self { steps, barriers: Barriers::default(), stop: AtomicBool::new(false), threads: OnceLock::new() }
    }

    /// Makes the threads known to each other, once all are started.
    pub(crate) fn introduce(&self, threads: Vec<Thread>) {
        self.threads.get_or_init(|| threads);
    }

    /// Ends all threads soon.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    /// Lets the threads look again at what they wait for.
    pub(crate) fn wake(&self) {
        self.threads.get().into_iter().flatten().for_each(Thread::unpark);
    }
}

/// What a thread tells the one that started it.
#[derive(Debug)]
pub(crate) enum News {
    /// A task has something to keep.
    Report(TaskReport),
    /// The thread has ended.
    Ended(Result<(), StreamError>),
}

/// What came of calling each task of a thread once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// At least one did a round.
    Worked,
    /// All that have not ended must wait.
    Waiting,
    /// All have ended, or the thread must not go on.
    Ended,
}

/// The tasks of one thread, as they are run.
pub(crate) struct Crew {
    shared: Arc<Shared>,
    thread: usize,
    here: Range<usize>,
    /// Those near the end of the plan first.
    tasks: Vec<Task>,
    /// When a task was last seen to have worked, or the thread to wait no longer; none: it waits.
    now: Option<Instant>,
}

impl Crew {
    /// The tasks of a thread. They stand in the order of the plan.
    #[must_use]
    pub(crate) fn new(shared: Arc<Shared>, thread: usize, here: Range<usize>, mut tasks: Vec<Task>) -> Self {
        tasks.reverse();
        Self { shared, thread, here, tasks, now: None }
    }

    /// Calls each task once. Tells what they keep, and in the end that they have ended or why not.
    pub(crate) fn step(&mut self, news: &dyn Fn(News)) -> Turn {
        match self.turn(news) {
            Ok(Turn::Ended) => {
                news(News::Ended(Ok(())));
                Turn::Ended
            }
            Ok(turn) => turn,
            Err(error) => {
                self.shared.stop();
                news(News::Ended(Err(error)));
                Turn::Ended
            }
        }
    }

    fn turn(&mut self, news: &dyn Fn(News)) -> Result<Turn, StreamError> {
        let shared = &*self.shared;
        if shared.stop.load(Ordering::Acquire) {
            return Err(StreamError::Stopped);
        }
        let barrier = |round| shared.barriers.begin(round);
        let report = |report| news(News::Report(report));
        let (steps, thread, here) = (&shared.steps, self.thread, self.here.clone());
        let set_aside = Cell::default();
        let context =
            Context { steps, thread, here, barrier: &barrier, report: &report, set_aside: &set_aside };
        let mut now = self.now.unwrap_or_else(Instant::now);
        let (mut worked, mut ended) = (false, true);
        for task in &mut self.tasks {
            let polled = task.poll(&context, &mut now)?;
            worked |= matches!(polled, Polled::Worked(_));
            ended &= polled == Polled::Ended;
        }
        self.now = worked.then_some(now);
        if worked {
            shared.wake();
        }
        Ok(match (worked, ended) {
            (true, _) => Turn::Worked,
            (false, true) => Turn::Ended,
            (false, false) => Turn::Waiting,
        })
    }
}

/// Runs the tasks of a thread until all have ended.
pub(crate) fn run(mut crew: Crew, news: &dyn Fn(News)) {
    let shared = Arc::clone(&crew.shared);
    let _guard = EndsAll(&shared);
    loop {
        match crew.step(news) {
            Turn::Worked => {}
            Turn::Ended => return,
            // Every change that could let this thread go on wakes it; the limit only bounds the harm
            // of a wake-up that came between the check and the wait before threads were introduced.
            Turn::Waiting => std::thread::park_timeout(Duration::from_millis(20)),
        }
    }
}

/// A thread that panics says nothing any more: the others must not wait for it.
struct EndsAll<'a>(&'a Shared);

impl Drop for EndsAll<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}
