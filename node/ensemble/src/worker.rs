//! Threads beside the reactor that take one kind of job from a queue.
//!
//! Owns their start, order and end. Must not know the jobs.
//!
//! Invariant: jobs are done in the order in which they were submitted, and none after one that asked to
//! stop; a worker that panics ends the server.

use crate::command::{Command, Commands};
use std::io;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// How long the end of the server waits for a job under way. What the job writes is safe at any moment.
const LAST_JOB: Duration = Duration::from_secs(1);

/// The reactor's end of a worker.
#[derive(Debug)]
pub(crate) struct Worker<T> {
    name: &'static str,
    queue: Option<Sender<T>>,
    ended: Receiver<()>,
}

impl<T: Send + 'static> Worker<T> {
    /// Starts the thread. It ends when this is dropped, or when a job breaks.
    pub(crate) fn start(
        name: &'static str,
        commands: Commands,
        work: impl FnMut(T) -> ControlFlow<()> + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, jobs) = channel();
        let (end, ended) = channel();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _last = Last { name, commands, _end: end };
            // Locals go in reverse order: what the jobs own, such as the store, is closed before the end
            // is told.
            let mut work = work;
            while let Ok(job) = jobs.recv() {
                if work(job).is_break() {
                    return;
                }
            }
        })?;
        Ok(Self { name, queue: Some(queue), ended })
    }

    /// Queues a job behind all before it.
    pub(crate) fn submit(&self, job: T) {
        if let Some(queue) = &self.queue {
            // A worker that has ended has said why by `Command::Failed`.
            let _ = queue.send(job);
        }
    }
}

impl<T> Drop for Worker<T> {
    /// Waits until what is queued is done, but not for ever: the disk may hang.
    fn drop(&mut self) {
        drop(self.queue.take());
        if self.ended.recv_timeout(LAST_JOB) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(thread = self.name, "a job is still under way and is left behind");
        }
    }
}

/// Dropped last in the thread: the other end of `_end` notices.
struct Last {
    name: &'static str,
    commands: Commands,
    _end: Sender<()>,
}

impl Drop for Last {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.commands.send(Command::Failed(format!("the thread {} panicked", self.name)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands() -> (mio::Poll, Commands, Receiver<Command>) {
        let poll = mio::Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), mio::Token(0)).unwrap();
        let (commands, received) = Commands::new(waker);
        (poll, commands, received)
    }

    #[test]
    fn what_is_queued_is_done_in_order_before_the_worker_is_gone() {
        let (_poll, commands, _) = commands();
        let (done, seen) = channel();
        let worker = Worker::start("test", commands, move |job: u32| {
            done.send(job).unwrap();
            ControlFlow::Continue(())
        });
        let worker = worker.unwrap();
        (0..100).for_each(|job| worker.submit(job));
        drop(worker);
        assert!(seen.into_iter().eq(0..100));
    }

    #[test]
    fn a_worker_that_panics_ends_the_server() {
        let (_poll, commands, received) = commands();
        let worker = Worker::start("test", commands, |_: u32| panic!("on purpose")).unwrap();
        worker.submit(1);
        let Ok(Command::Failed(why)) = received.recv() else { panic!() };
        assert_eq!(why, "the thread test panicked");
    }
}
