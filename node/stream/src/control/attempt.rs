//! One attempt of one worker: from an assignment to the end of the run, or to whatever ends it before.
//!
//! Owns: what workers and their coordinator do on each other's word, the clock of checkpoints, when the
//! work is divided anew.
//! Must not know: how workers find each other, where anything is kept.
//! Invariant: outputs become visible only after the last checkpoint counts; who leaves does so after a
//! checkpoint that holds what it did.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::say::Say;
use super::{Command, Control, Ending, Input, Moment, Phase};
use crate::assignment::Assignment;
use crate::checkpoint::CheckpointSize;
use crate::checkpoint::coordinator::{self, Coordinator, WorkerId};
use crate::checkpoint::part::Part;
use crate::error::StreamError;
use crate::event::Event;
use crate::exec::channel::{Epoch, Round};
use crate::io::Fault;

/// How long a worker that is to stop waits for a checkpoint that holds what it did.
const PARTING: Duration = Duration::from_secs(20);
/// How long others may be there before the work is divided anew.
const SETTLE: Duration = Duration::from_secs(1);
/// Without checkpoints the work is divided anew only while it is this young.
const YOUNG: Duration = Duration::from_secs(30);

/// One attempt.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) assignment: Assignment,
    begun: Moment,
    /// Whether its threads run.
    runs: bool,
    /// Since when it is to stop.
    leaving: Option<Moment>,
    lead: Option<Leading>,
}

/// What the coordinator has beside what every worker has.
#[derive(Debug)]
struct Leading {
    /// The number of its first checkpoint.
    next: Epoch,
    /// Once it is known in which round the run goes on.
    coordinator: Option<Coordinator<Box<Part>>>,
    ready: BTreeSet<WorkerId>,
    /// When the next checkpoint is.
    due: Moment,
    /// When the checkpoint under way was asked for, and how large it is.
    asked: Moment,
    size: CheckpointSize,
    /// What the sinks prepared last, by transform.
    sinks: BTreeMap<String, String>,
    /// Since when others are there than those who take part.
    differs: Option<Moment>,
    /// The work is to be divided anew after the next checkpoint.
    divide: bool,
}

impl Attempt {
    /// An attempt that this worker leads.
    pub(super) fn leading(assignment: Assignment, next: Epoch, now: Moment) -> Self {
        let lead = Leading {
            next,
            coordinator: None,
            ready: BTreeSet::new(),
            due: now,
            asked: now,
            size: CheckpointSize::default(),
            sinks: BTreeMap::new(),
            differs: None,
            divide: false,
        };
        Self { lead: Some(lead), ..Self::following(assignment, now) }
    }

    /// An attempt that another worker leads.
    pub(super) fn following(assignment: Assignment, now: Moment) -> Self {
        Self { assignment, begun: now, runs: false, leaving: None, lead: None }
    }
}

impl Control {
    fn attempt(&mut self) -> Option<&mut Attempt> {
        match &mut self.phase {
            Phase::Working(attempt) => Some(attempt),
            _ => None,
        }
    }

    fn leading(&mut self) -> Option<&mut Leading> {
        self.attempt()?.lead.as_mut()
    }

    fn tell_coordinator(&mut self, say: Say) {
        match self.place() {
            0 => self.to_self.push_back(say),
            _ => self.command(Command::Say(0, say)),
        }
    }

    fn tell_all(&mut self, say: Say) {
        self.to_self.push_back(say.clone());
        self.command(Command::SayAll(say));
    }

    /// What the driver has to say of this worker's part in the attempt.
    pub(super) fn of_attempt(&mut self, input: Input) {
        if self.attempt().is_none() {
            return;
        }
        match input {
            Input::Assembled(None) => {
                let why = "it finds other files to read than the coordinator".to_owned();
                self.command(Command::SayAll(Say::Failed(Fault::Environment, why.clone())));
                self.end(Ending::Again(why));
            }
            Input::Assembled(Some(round)) => self.assembled(round),
            Input::Held(epoch, begun) => self.tell_coordinator(Say::Held(epoch, begun)),
            Input::Kept(epoch, round, part) => self.tell_coordinator(Say::Kept(epoch, round, part)),
            Input::Ended(part) => self.tell_coordinator(Say::Ended(part)),
            Input::Written(epoch, size) => {
                if let Some(lead) = self.leading() {
                    lead.size = size;
                }
                self.coordinate(coordinator::Input::Written(epoch));
            }
            Input::Published(epoch) => {
                self.published(epoch);
                self.coordinate(coordinator::Input::Published(epoch));
            }
            Input::Committed => self.coordinate(coordinator::Input::Committed),
            Input::Noted => self.coordinate(coordinator::Input::Noted),
            _ => {}
        }
    }

    fn assembled(&mut self, round: Round) {
        let Some(attempt) = self.attempt() else { return };
        let workers = attempt.assignment.workers.len();
        if let Some(lead) = &mut attempt.lead {
            let all = (0..workers as WorkerId).collect();
            lead.coordinator = Some(Coordinator::new(all, round, lead.next));
        }
        let generation = attempt.assignment.generation;
        let leads = attempt.assignment.leads();
        self.command(Command::Tell(Event::Joined { generation, workers: workers as u64, leads }));
        self.tell_coordinator(Say::Ready);
    }

    fn published(&mut self, epoch: Epoch) {
        let (now, keeps) = (self.now, self.setup.interval.is_some());
        let Some(lead) = self.leading().filter(|_| keeps) else { return };
        let (took, size) = (now.saturating_sub(lead.asked), lead.size);
        self.command(Command::SayAll(Say::Counts(epoch, took.as_millis() as u64, size)));
        self.command(Command::Tell(Event::Checkpoint { epoch, took, size }));
    }

    /// Another worker is lost.
    pub(super) fn lost(&mut self, who: WorkerId, why: String) {
        match &self.phase {
            // Whether that ends the attempt is for the coordinator to say, who may know why it went.
            Phase::Working(attempt) if who != 0 && !attempt.assignment.leads() => {
                self.command(Command::Say(0, Say::Missing(who, why)));
            }
            Phase::Working(_) => self.missing(who, &why),
            Phase::Meeting(_) | Phase::Calling(_) => self.lost_in_meeting(who, &why),
            Phase::Idle(_) | Phase::TakingOver | Phase::Over => {}
        }
    }

    fn missing(&mut self, who: WorkerId, why: &str) {
        let name = self.name_of(who);
        self.end(Ending::Again(format!("worker `{name}` is lost: {why}")));
    }

    fn name_of(&mut self, who: WorkerId) -> String {
        let worker = self.attempt().and_then(|attempt| attempt.assignment.workers.get(who as usize));
        worker.map_or_else(String::new, |worker| worker.name.clone())
    }

    /// Another worker, or this one, said something.
    pub(super) fn hear(&mut self, who: WorkerId, say: Say) {
        match say {
            Say::Start(start) if who == 0 => self.start(start),
            Say::Failed(fault, message) => self.failed_elsewhere(who, fault, message),
            _ if self.attempt().is_none() => {}
            Say::Ready => self.ready(who),
            Say::Go => {
                if let Some(attempt) = self.attempt() {
                    attempt.runs = true;
                    self.command(Command::Go);
                }
            }
            Say::Hold(epoch) => self.command(Command::Hold(epoch)),
            Say::Place(epoch, round) => self.command(Command::Place(epoch, round)),
            Say::Held(epoch, begun) => self.coordinate(coordinator::Input::Held(who, epoch, begun)),
            Say::Kept(epoch, round, part) => {
                self.coordinate(coordinator::Input::Kept(who, epoch, round, part));
            }
            Say::Ended(part) => self.coordinate(coordinator::Input::Ended(who, part)),
            Say::Counts(epoch, took, size) => {
                let took = Duration::from_millis(took);
                self.command(Command::Tell(Event::Checkpoint { epoch, took, size }));
            }
            Say::Completed => self.end(Ending::Completed),
            Say::Leaving => self.leaves(who),
            Say::Missing(who, why) if self.leading().is_some() => self.missing(who, &why),
            Say::Missing(..) | Say::Start(_) => {}
        }
    }

    fn failed_elsewhere(&mut self, who: WorkerId, fault: Fault, message: String) {
        match self.phase {
            Phase::Working(_) if fault == Fault::User => {
                self.end(Ending::Failed(StreamError::Elsewhere { fault, message }));
            }
            Phase::Working(_) => {
                let name = self.name_of(who);
                self.end(Ending::Again(format!("worker `{name}`: {message}")));
            }
            Phase::Meeting(_) => self.called_off(fault, message),
            Phase::Idle(_) | Phase::TakingOver | Phase::Calling(_) | Phase::Over => {}
        }
    }

    fn ready(&mut self, who: WorkerId) {
        let (now, interval) = (self.now, self.setup.interval);
        let Some(Attempt { assignment, lead: Some(lead), .. }) = self.attempt() else { return };
        lead.ready.insert(who);
        if lead.ready.len() < assignment.workers.len() {
            return;
        }
        lead.due = now + interval.unwrap_or_default();
        // What is due at once comes before the first round.
        if interval == Some(Duration::ZERO) {
            self.checkpoint();
        }
        self.tell_all(Say::Go);
    }

    fn leaves(&mut self, who: WorkerId) {
        let Some(Attempt { assignment, lead: Some(_), .. }) = self.attempt() else { return };
        let Some(worker) = assignment.workers.get(who as usize) else { return };
        let id = worker.id.clone();
        self.leaving.push(id);
        self.divide();
    }

    /// Has the work divided anew as soon as a checkpoint holds what was done.
    fn divide(&mut self) {
        let (now, keeps) = (self.now, self.setup.interval.is_some());
        let leaving = !self.leaving.is_empty();
        let Some(Attempt { begun, lead: Some(lead), .. }) = self.attempt() else { return };
        if lead.coordinator.as_ref().is_none_or(Coordinator::has_ended) {
            return;
        }
        if keeps {
            lead.divide = true;
            self.checkpoint();
        } else if now.saturating_sub(*begun) < YOUNG || leaving {
            // Who leaves takes its work along: there is nothing to wait for.
            self.end(Ending::Divide);
        }
    }

    fn checkpoint(&mut self) {
        let due = self.now + self.setup.interval.unwrap_or_default();
        if let Some(lead) = self.leading() {
            lead.due = due;
            self.coordinate(coordinator::Input::Due);
        }
    }

    /// Does what is due in an attempt.
    pub(super) fn look_at_attempt(&mut self) {
        let (now, stopping) = (self.now, self.stopping);
        let Some(attempt) = self.attempt() else { return };
        if stopping && attempt.leaving.is_none() {
            attempt.leaving = Some(now);
            self.tell_coordinator(Say::Leaving);
        } else if attempt.leaving.is_some_and(|since| now.saturating_sub(since) > PARTING) {
            self.end(Ending::Stopped);
        }
        self.compare();
        let keeps = self.setup.interval.is_some();
        let Some(Attempt { runs: true, lead: Some(lead), .. }) = self.attempt() else { return };
        if lead.differs.is_some_and(|since| now.saturating_sub(since) > SETTLE) {
            lead.differs = None;
            self.divide();
        }
        let Some(lead) = self.leading() else { return };
        if keeps && now >= lead.due {
            self.checkpoint();
        }
    }

    /// The coordinator divides the work anew when others are there than those who take part.
    fn compare(&mut self) {
        let now = self.now;
        let Phase::Working(attempt) = &mut self.phase else { return };
        let Attempt { assignment, lead: Some(lead), .. } = &mut **attempt else { return };
        let takes_part = |id: &String| assignment.workers.iter().any(|worker| worker.id == *id);
        let mut members = self.view.members.iter().map(|member| &member.id);
        let differs = members.any(|id| !self.absent.contains_key(id) && !takes_part(id));
        lead.differs = differs.then(|| lead.differs.unwrap_or(now));
    }

    /// Gives the coordinator of checkpoints its input, and does what it says.
    fn coordinate(&mut self, input: coordinator::Input<Box<Part>>) {
        let Some(coordinator) = self.leading().and_then(|lead| lead.coordinator.as_mut()) else { return };
        for command in coordinator.handle(input) {
            self.carry_out(command);
        }
        let coordinator = self.leading().and_then(|lead| lead.coordinator.as_ref());
        if coordinator.is_some_and(Coordinator::is_done) {
            self.tell_all(Say::Completed);
        }
    }

    fn carry_out(&mut self, command: coordinator::Command<Box<Part>>) {
        let now = self.now;
        let Some(lead) = self.leading() else { return };
        match command {
            coordinator::Command::Hold(epoch) => {
                lead.asked = now;
                self.tell_all(Say::Hold(epoch));
            }
            coordinator::Command::Place(epoch, round) => self.tell_all(Say::Place(epoch, round)),
            coordinator::Command::Write { epoch, round, parts } => {
                if round.is_none() {
                    lead.asked = now;
                }
                lead.sinks = parts.values().flat_map(|part| part.sinks.clone()).collect();
                self.command(Command::Write(epoch, round, parts));
            }
            coordinator::Command::Publish(epoch) => self.command(Command::Publish(epoch)),
            coordinator::Command::Clean(_) => {
                self.command(Command::Clean);
                let Some(lead) = self.leading() else { return };
                let ended = lead.coordinator.as_ref().is_none_or(Coordinator::has_ended);
                if lead.divide && !ended {
                    self.end(Ending::Divide);
                }
            }
            coordinator::Command::Commit => {
                let sinks = lead.sinks.clone();
                self.command(Command::Commit(sinks));
            }
            coordinator::Command::Note => self.command(Command::Note),
        }
    }
}
