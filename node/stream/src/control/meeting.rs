//! How the workers of an attempt come together.
//!
//! Owns: calling the others as the one that leads, and waiting for them as one that was called.
//! Must not know: what is worked on.
//! Invariant: an attempt begins with all whom its coordinator reached, and with nobody else.

use std::collections::VecDeque;

use super::attempt::Attempt;
use super::say::{Inputs, Say, Start};
use super::{ABSENT, Command, Control, Ending, Phase, Took};
use crate::assignment::Assignment;
use crate::checkpoint::coordinator::WorkerId;
use crate::coordination::{Member, Pointer};
use crate::error::StreamError;
use crate::event::Event;
use crate::exec::channel::Epoch;
use crate::io::Fault;

/// The coordinator calls the others, one after the other.
#[derive(Debug)]
pub(super) struct Calling {
    latest: Option<Pointer>,
    next: Epoch,
    /// Those that are there, by place; the last one is being called if `waiting`.
    there: Vec<Member>,
    /// Those still to be called.
    left: VecDeque<Member>,
    waiting: bool,
}

/// A worker was called by the coordinator.
#[derive(Debug, Default)]
pub(super) struct Meeting {
    start: Option<Box<Start>>,
    /// The last of those after it that it has connected to.
    dialled: Option<WorkerId>,
    /// Whether the next one is being called.
    waiting: bool,
}

impl Control {
    pub(super) fn took_over(&mut self, took: Took) {
        if !matches!(self.phase, Phase::TakingOver) {
            return;
        }
        match took {
            Took::Over => self.end(Ending::Completed),
            Took::Leads { generation, latest, next } => {
                self.enter(generation);
                let there = vec![self.setup.me.clone()];
                let others =
                    self.view.members.iter().filter(|member| {
                        member.id != self.setup.me.id && !self.absent.contains_key(&member.id)
                    });
                let left = others.cloned().collect();
                self.phase = Phase::Calling(Calling { latest, next, there, left, waiting: false });
                self.call_next();
            }
        }
    }

    /// Calls the next one, or goes on if all have answered or cannot be reached.
    fn call_next(&mut self) {
        let generation = self.generation;
        let Phase::Calling(calling) = &mut self.phase else { return };
        if let Some(member) = calling.left.pop_front() {
            let peer = calling.there.len() as WorkerId;
            calling.there.push(member.clone());
            calling.waiting = true;
            self.command(Command::Dial { generation, from: 0, peer, member });
        } else if calling.there.len() > 1 {
            self.command(Command::Survey);
        } else {
            self.lead(None);
        }
    }

    /// Takes part in a generation from now on, and forgets connections of earlier ones.
    fn enter(&mut self, generation: u64) {
        self.generation = generation;
        self.calls.retain(|(of, _)| *of >= generation);
        self.command(Command::Enter(generation));
    }

    /// What came of calling another worker.
    pub(super) fn dialled(&mut self, peer: WorkerId, result: Result<(), String>) {
        match &mut self.phase {
            Phase::Calling(calling) if calling.waiting => {
                calling.waiting = false;
                if let Err(why) = result
                    && let Some(member) = calling.there.pop()
                {
                    let why = format!("worker `{}` takes no part: {why}", member.name);
                    self.command(Command::Tell(Event::Interrupted { why }));
                    self.absent.insert(member.id, self.now + ABSENT);
                }
                self.call_next();
            }
            Phase::Meeting(meeting) => match result {
                Ok(()) => {
                    (meeting.dialled, meeting.waiting) = (Some(peer), false);
                    self.look_who_is_there();
                }
                Err(why) => {
                    let members = meeting.start.as_ref().map(|start| &start.assignment.workers);
                    let member = members.and_then(|members| members.get(peer as usize));
                    let name = member.map_or(String::new(), |member| member.name.clone());
                    self.end(Ending::Again(format!("worker `{name}`: {why}")));
                }
            },
            _ => {}
        }
    }

    pub(super) fn surveyed(&mut self, inputs: Inputs) {
        self.lead(Some(inputs));
    }

    /// Begins an attempt with all that answered.
    fn lead(&mut self, inputs: Option<Inputs>) {
        let Phase::Calling(calling) = &mut self.phase else { return };
        let (latest, next) = (calling.latest.take(), calling.next);
        let workers = std::mem::take(&mut calling.there);
        let assignment = Assignment { generation: self.generation, workers, me: 0 };
        let start = Start { assignment, plan: self.setup.plan.clone(), latest, inputs };
        for peer in start.assignment.others() {
            let assignment = Assignment { me: peer, ..start.assignment.clone() };
            self.command(Command::Say(peer, Say::Start(Box::new(Start { assignment, ..start.clone() }))));
        }
        let attempt = Attempt::leading(start.assignment.clone(), next, self.now);
        self.phase = Phase::Working(Box::new(attempt));
        self.command(Command::Assemble(Box::new(start)));
    }

    /// Another worker has connected.
    pub(super) fn called(&mut self, generation: u64, from: WorkerId) {
        self.calls.insert((generation, from));
        if from == 0 && generation > self.generation {
            match self.phase {
                Phase::Over => {}
                // What comes of taking over says whether this one leads after all.
                Phase::Idle(_) | Phase::TakingOver => self.meet(generation),
                Phase::Calling(_) | Phase::Meeting(_) | Phase::Working(_) => {
                    self.end(Ending::Superseded(generation));
                }
            }
        } else if generation == self.generation {
            self.look_who_is_there();
        }
    }

    /// Takes part in an attempt that another worker leads.
    pub(super) fn meet(&mut self, generation: u64) {
        self.begun = self.now;
        self.enter(generation);
        self.phase = Phase::Meeting(Meeting::default());
    }

    pub(super) fn start(&mut self, start: Box<Start>) {
        if let Phase::Meeting(meeting) = &mut self.phase {
            meeting.start = Some(start);
            self.look_who_is_there();
        }
    }

    /// Once those before this worker are there it connects to those after it, and then it begins.
    fn look_who_is_there(&mut self) {
        let generation = self.generation;
        let Phase::Meeting(Meeting { start: Some(start), dialled, waiting }) = &mut self.phase else {
            return;
        };
        let me = start.assignment.me;
        let missing = |place: WorkerId| place < me && !self.calls.contains(&(generation, place));
        if *waiting || start.assignment.others().any(missing) {
            return;
        }
        let next = dialled.map_or(me + 1, |last| last + 1);
        let Some(member) = start.assignment.workers.get(next as usize).cloned() else {
            let start = start.clone();
            self.phase = Phase::Working(Box::new(Attempt::following(start.assignment.clone(), self.now)));
            self.command(Command::Assemble(start));
            return;
        };
        *waiting = true;
        self.command(Command::Dial { generation, from: me, peer: next, member });
    }

    /// Another worker is lost before the attempt began.
    pub(super) fn lost_in_meeting(&mut self, who: WorkerId, why: &str) {
        self.end(Ending::Again(format!("worker {who} is lost: {why}")));
    }

    /// The coordinator cannot begin.
    pub(super) fn called_off(&mut self, fault: Fault, message: String) {
        self.end(match fault {
            Fault::User => Ending::Failed(StreamError::Elsewhere { fault, message }),
            _ => Ending::Again(message),
        });
    }
}
