//! One thread and its tasks.
//!
//! Owns: the order in which tasks are called, waiting, and where barriers stand.
//! Must not know: what tasks do.
//! Invariant: tasks near the end of the plan come first, so what is in flight leaves before more
//! comes in. The least round that is not done can always go on: its senders' queues are empty.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use super::channel::{Epoch, Round};
use super::fragment::Steps;
use super::task::{AssertTask, Context, CreateTask, GroupTask, Polled, ReadTask, SinkTask, TaskReport};
use crate::error::StreamError;

/// A task of any kind.
pub(crate) enum Task {
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
    fn poll(&mut self, context: &Context<'_>) -> Result<Polled, StreamError> {
        match self {
            Self::Read(task) => task.poll(context),
            Self::Create(task) => task.poll(context),
            Self::Group(task) => task.poll(context),
            Self::Sink(task) => task.poll(context),
            Self::Assert(task) => task.poll(context),
        }
    }
}

/// Where the barriers of checkpoints stand. All sources of a round must agree, so the first that
/// comes to a round decides for all.
#[derive(Debug, Default)]
pub(crate) struct Barriers {
    inner: Mutex<Decisions>,
}

#[derive(Debug, Default)]
struct Decisions {
    wanted: Option<Epoch>,
    /// Rounds below this one are decided.
    decided: Round,
    at: BTreeMap<Round, Epoch>,
}

impl Barriers {
    /// Asks for a checkpoint in the next round that is not decided yet.
    pub(crate) fn request(&self, epoch: Epoch) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).wanted = Some(epoch);
    }

    /// The checkpoint to take at the end of `round`.
    pub(crate) fn decide(&self, round: Round) -> Option<Epoch> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if round >= inner.decided {
            inner.decided = round + 1;
            if let Some(epoch) = inner.wanted.take() {
                inner.at.insert(round, epoch);
            }
        }
        inner.at.get(&round).copied()
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

    fn wake(&self) {
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

/// Runs the tasks of a thread until all have ended. `tasks` stand in the order of the plan.
pub(crate) fn run(
    shared: &Arc<Shared>,
    thread: usize,
    threads: usize,
    mut tasks: Vec<Task>,
    news: &Sender<News>,
) {
    tasks.reverse();
    let barrier = |round| shared.barriers.decide(round);
    let report = |report| {
        // Without a coordinator nobody keeps reports; the run ends by the threads' own end.
        let _ = news.send(News::Report(report));
    };
    let _guard = EndsAll(shared);
    let context = Context { steps: &shared.steps, thread, threads, barrier: &barrier, report: &report };
    let ended = turn(shared, &context, &mut tasks);
    if ended.is_err() {
        shared.stop();
    }
    let _ = news.send(News::Ended(ended));
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

fn turn(shared: &Shared, context: &Context<'_>, tasks: &mut [Task]) -> Result<(), StreamError> {
    loop {
        if shared.stop.load(Ordering::Acquire) {
            return Err(StreamError::Stopped);
        }
        let mut polled = Vec::with_capacity(tasks.len());
        for task in tasks.iter_mut() {
            polled.push(task.poll(context)?);
        }
        if polled.contains(&Polled::Worked) {
            shared.wake();
        } else if polled.iter().all(|polled| *polled == Polled::Ended) {
            return Ok(());
        } else {
            // Every change that could let this thread go on wakes it; the limit only bounds the harm
            // of a wake-up that came between the check and the wait before threads were introduced.
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}
