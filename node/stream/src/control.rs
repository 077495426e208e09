//! What a worker of a run does next: whom it follows or leads, when a checkpoint is due, what ends an
//! attempt and what comes after it.
//!
//! Owns: a worker's life from one attempt to the next, who is asked to take part, the course of an
//! attempt on all its workers.
//! Must not know: sockets, threads, files, znodes, clocks, randomness. Inputs come with the time, and
//! commands go out; [`crate::driver`] carries them out, in this order.
//! Invariant: the first on the roster coordinates, and before it does anything it raises the generation:
//! what a coordinator before it still wants can no more count. A worker follows whoever has the highest
//! generation that called it. Whatever goes wrong on any worker ends the attempt on all of them, and
//! nothing of it is lost that a checkpoint holds.
//!
//! The connections of an attempt: the coordinator connects to each worker and says who takes part;
//! every worker then connects to those after it. So each pair has one connection.

mod attempt;
mod meeting;
pub(crate) mod say;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use pharos_beam::plan::Plan;

use crate::checkpoint::CheckpointSize;
use crate::checkpoint::coordinator::WorkerId;
use crate::checkpoint::part::Part;
use crate::coordination::{Member, Pointer, View};
use crate::error::StreamError;
use crate::event::Event;
use crate::exec::channel::{Epoch, Round};
use attempt::Attempt;
use meeting::{Calling, Meeting};
use say::{Inputs, Say, Start};

/// How long since the process started, by a clock that never goes back.
pub(crate) type Moment = Duration;

/// The first on the roster waits so long for others before it begins with those that are there.
const SETTLE: Duration = Duration::from_millis(1500);
/// So long a worker that could not be reached, or that leaves, is not asked again.
const ABSENT: Duration = Duration::from_secs(10);
/// Between attempts, growing from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How a worker's work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The run is done.
    Completed,
    /// It was to leave, and did.
    Stopped,
}

/// What came of taking the run over.
#[derive(Debug)]
pub(crate) enum Took {
    /// The run is done.
    Over,
    /// It is this worker's to lead.
    Leads {
        /// The generation.
        generation: u64,
        /// The checkpoint to go on from.
        latest: Option<Pointer>,
        /// The number of the next one.
        next: Epoch,
    },
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Input {
    /// Time has passed.
    Tick,
    /// Who is there has changed.
    View(View),
    /// The worker is to leave.
    Leave,
    /// Another worker has connected: its generation and its place in it.
    Called(u64, WorkerId),
    /// What came of calling others, in the order in which they were to be called.
    Dialled(u64, Vec<Result<(), String>>),
    /// Another worker said something, in a generation.
    Said(u64, WorkerId, Say),
    /// Another worker is lost, in a generation.
    Lost(u64, WorkerId, String),
    /// The answer to [`Command::TakeOver`].
    TookOver(Took),
    /// The answer to [`Command::Survey`].
    Surveyed(Inputs),
    /// The answer to [`Command::Assemble`]: the worker can begin, in this round. None: it finds other
    /// files to read than the coordinator.
    Assembled(Option<Round>),
    /// The answer to [`Command::Hold`].
    Held(Epoch, Option<Round>),
    /// What the threads of this worker kept at a barrier.
    Kept(Epoch, Round, Box<Part>),
    /// What they left at their end.
    Ended(Box<Part>),
    /// The answer to [`Command::Write`]: how large it is.
    Written(Epoch, CheckpointSize),
    /// The answer to [`Command::Publish`].
    Published(Epoch),
    /// The answer to [`Command::Commit`].
    Committed,
    /// The answer to [`Command::Note`].
    Noted,
    /// A command or a thread of the attempt failed.
    Failed(StreamError),
}

/// What to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Take the run over.
    TakeOver,
    /// Take part in a generation from now on: connections of earlier ones are over.
    Enter(u64),
    /// Connect to workers, all at the same time.
    Dial {
        /// The generation.
        generation: u64,
        /// The place of this worker in it.
        from: WorkerId,
        /// Those that answer have the places from this one on.
        first: WorkerId,
        /// The others; at least one.
        members: Vec<Member>,
    },
    /// Find out what tells the files of each read from others.
    Survey,
    /// Prepare an attempt from a checkpoint.
    Assemble(Box<Start>),
    /// Tell another worker.
    Say(WorkerId, Say),
    /// Tell all other workers.
    SayAll(Say),
    /// Start the threads.
    Go,
    /// Let no source begin another round, and say which has been begun.
    Hold(Epoch),
    /// Put a barrier at the end of a round, and let the sources go on.
    Place(Epoch, Round),
    /// Write what all workers kept.
    Write(Epoch, Option<Round>, BTreeMap<WorkerId, Box<Part>>),
    /// Make the checkpoint the one that counts.
    Publish(Epoch),
    /// Delete what only earlier checkpoints needed.
    Clean,
    /// Make what the sinks prepared visible.
    Commit(BTreeMap<String, String>),
    /// Note that the run is done.
    Note,
    /// End the attempt: its threads and its connections.
    End,
    /// Tell whoever listens.
    Tell(Event),
    /// The worker's work is over.
    Exit(Result<Outcome, StreamError>),
}

/// How an attempt ended.
#[derive(Debug)]
enum Ending {
    /// The run is done.
    Completed,
    /// Another attempt may do better.
    Again(String),
    /// The work is to be divided anew.
    Divide,
    /// The coordinator of a later generation has called.
    Superseded,
    /// This worker was to stop.
    Stopped,
    /// Nothing can be done here.
    Failed(StreamError),
}

#[derive(Debug)]
enum Phase {
    /// Between attempts; this worker begins none before that moment.
    Idle(Moment),
    /// The run is being taken over.
    TakingOver,
    /// It leads, and calls the others.
    Calling(Calling),
    /// It was called, and waits to hear who takes part, and for them.
    Meeting(Meeting),
    /// It takes part in an attempt.
    Working(Box<Attempt>),
    /// It has ended.
    Over,
}

/// How a worker is set up.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// The worker.
    pub me: Member,
    /// The plan that it would lead.
    pub plan: Plan,
    /// From the end of one checkpoint to the start of the next, if any are taken.
    pub interval: Option<Duration>,
    /// Whether there can be no others, and what would be tried again with others is an error.
    pub alone: bool,
}

/// A worker of a run.
#[derive(Debug)]
pub(crate) struct Control {
    setup: Setup,
    now: Moment,
    view: View,
    /// Since when the members are as they are.
    since: Moment,
    /// Whether others were waited for already.
    settled: bool,
    /// Those that could not be reached or leave, and until when they are not asked again.
    absent: BTreeMap<String, Moment>,
    /// Those that said during an attempt that they want to leave.
    leaving: Vec<String>,
    /// The connections that others have made, by generation and place.
    calls: BTreeSet<(u64, WorkerId)>,
    /// The highest generation that it took part in.
    generation: u64,
    /// Whether it is to leave.
    stopping: bool,
    /// When the last attempt began, and how long to rest after one that fails at once.
    begun: Moment,
    pause: Duration,
    phase: Phase,
    commands: Vec<Command>,
    /// What it says to itself, as coordinator or to the coordinator.
    to_self: VecDeque<Say>,
}

impl Control {
    /// A worker that knows of no other yet.
    #[must_use]
    pub(crate) fn new(setup: Setup, now: Moment) -> Self {
        let members = if setup.alone { vec![setup.me.clone()] } else { Vec::new() };
        Self {
            settled: setup.alone,
            setup,
            now,
            view: View { members, completed: false },
            since: now,
            absent: BTreeMap::new(),
            leaving: Vec::new(),
            calls: BTreeSet::new(),
            generation: 0,
            stopping: false,
            begun: now,
            pause: BACKOFF.0,
            phase: Phase::Idle(now),
            commands: Vec::new(),
            to_self: VecDeque::new(),
        }
    }

    /// Takes in what happened by `now` and says what to do.
    pub(crate) fn handle(&mut self, now: Moment, input: Input) -> Vec<Command> {
        self.now = self.now.max(now);
        self.take(input);
        self.look_at_clock();
        while let Some(say) = self.to_self.pop_front() {
            self.hear(self.place(), say);
        }
        std::mem::take(&mut self.commands)
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Tick => {}
            Input::View(view) => self.see(view),
            Input::Leave => self.stopping = true,
            Input::Called(generation, from) => self.called(generation, from),
            Input::Dialled(generation, results) if generation == self.generation => self.dialled(results),
            Input::Said(generation, who, say) if generation == self.generation => self.hear(who, say),
            Input::Lost(generation, who, why) => {
                self.calls.remove(&(generation, who));
                if generation == self.generation {
                    self.lost(who, why);
                }
            }
            // Of an attempt that is over.
            Input::Dialled(..) | Input::Said(..) => {}
            Input::TookOver(took) => self.took_over(took),
            Input::Surveyed(inputs) => self.surveyed(inputs),
            Input::Failed(error) => self.failed(error),
            Input::Assembled(..)
            | Input::Held(..)
            | Input::Kept(..)
            | Input::Ended(_)
            | Input::Written(..)
            | Input::Published(_)
            | Input::Committed
            | Input::Noted => self.of_attempt(input),
        }
    }

    fn command(&mut self, command: Command) {
        self.commands.push(command);
    }

    /// The place of this worker in the attempt.
    fn place(&self) -> WorkerId {
        match &self.phase {
            Phase::Working(attempt) => attempt.assignment.me,
            _ => 0,
        }
    }

    fn see(&mut self, view: View) {
        if view.members != self.view.members {
            self.since = self.now;
        }
        self.view = view;
    }

    fn is_first(&self) -> bool {
        self.view.members.first().is_some_and(|first| first.id == self.setup.me.id)
    }

    /// Does what is due.
    fn look_at_clock(&mut self) {
        self.absent.retain(|_, until| self.now < *until);
        match &mut self.phase {
            Phase::Idle(until) => {
                let rested = self.now >= *until;
                let settled = self.settled || self.now.saturating_sub(self.since) > SETTLE;
                if self.stopping {
                    self.exit(Ok(Outcome::Stopped));
                } else if let Some(generation) = self.called_by() {
                    self.meet(generation);
                } else if self.view.completed {
                    self.exit(Ok(Outcome::Completed));
                } else if rested && self.is_first() && settled {
                    self.settled = false;
                    self.begun = self.now;
                    self.phase = Phase::TakingOver;
                    self.command(Command::TakeOver);
                }
            }
            Phase::Calling(_) | Phase::Meeting(_) if self.stopping => self.end(Ending::Stopped),
            Phase::Working(_) => self.look_at_attempt(),
            Phase::TakingOver | Phase::Calling(_) | Phase::Meeting(_) | Phase::Over => {}
        }
    }

    fn failed(&mut self, error: StreamError) {
        match (&self.phase, error) {
            (Phase::Over, _) => {}
            (_, StreamError::Fenced) if !self.setup.alone => {
                self.end(Ending::Again(StreamError::Fenced.to_string()));
            }
            (_, error) => self.end(Ending::Failed(error)),
        }
    }

    /// Ends the attempt, or what was to become one.
    fn end(&mut self, ending: Ending) {
        if let Ending::Failed(error) = &ending {
            self.command(Command::SayAll(Say::Failed(error.fault(), error.to_string())));
        }
        self.command(Command::End);
        self.to_self.clear();
        let until = self.now + ABSENT;
        self.absent.extend(std::mem::take(&mut self.leaving).into_iter().map(|id| (id, until)));
        self.calls.retain(|(generation, _)| *generation > self.generation);
        self.phase = Phase::Idle(self.now);
        match ending {
            Ending::Completed => self.exit(Ok(Outcome::Completed)),
            Ending::Stopped => self.exit(Ok(Outcome::Stopped)),
            Ending::Failed(error) => self.exit(Err(error)),
            // Between attempts a worker follows whoever has called.
            Ending::Superseded => {}
            Ending::Divide if self.setup.alone => self.exit(Ok(Outcome::Stopped)),
            Ending::Divide => self.settled = true,
            Ending::Again(why) if self.setup.alone => self.exit(Err(StreamError::Exchange(why))),
            Ending::Again(why) => {
                self.command(Command::Tell(Event::Interrupted { why }));
                // One that went well for a while says nothing about the next.
                let calm = self.now.saturating_sub(self.begun) > BACKOFF.1;
                self.pause = if calm { BACKOFF.0 } else { (self.pause * 2).min(BACKOFF.1) };
                self.phase = Phase::Idle(self.now + self.pause);
            }
        }
    }

    fn exit(&mut self, outcome: Result<Outcome, StreamError>) {
        self.phase = Phase::Over;
        self.command(Command::Exit(outcome));
    }
}
