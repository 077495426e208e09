//! How the workers of an attempt come together.
//!
//! Owns: calling the others as the one that leads, and waiting for them as one that was called.
//! Must not know: what is worked on.
//! Invariant: an attempt begins with all whom its coordinator reached, and with nobody else.

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

/// The coordinator calls the others.
#[derive(Debug)]
pub(super) struct Calling {
    latest: Option<Pointer>,
    next: Epoch,
    /// Those that are there, by place.
    there: Vec<Member>,
    /// Those that are being called.
    called: Vec<Member>,
}

/// A worker was called by the coordinator.
#[derive(Debug, Default)]
pub(super) struct Meeting {
    start: Option<Box<Start>>,
    /// Whether those after it are being called.
    calls: bool,
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
                let called: Vec<Member> = others.cloned().collect();
                self.phase = Phase::Calling(Calling { latest, next, there, called: called.clone() });
                if called.is_empty() {
                    self.lead(None);
                } else {
                    self.command(Command::Dial { generation, from: 0, first: 1, members: called });
                }
            }
        }
    }

    /// Takes part in a generation from now on, and forgets connections of earlier ones.
    fn enter(&mut self, generation: u64) {
        self.generation = generation;
        self.calls.retain(|(of, _)| *of >= generation);
        self.command(Command::Enter(generation));
    }

    /// What came of calling others.
    pub(super) fn dialled(&mut self, results: Vec<Result<(), String>>) {
        match &mut self.phase {
            Phase::Calling(calling) => {
                let called = std::mem::take(&mut calling.called);
                let mut absent = Vec::new();
                for (member, result) in called.into_iter().zip(results) {
                    match result {
                        Ok(()) => calling.there.push(member),
                        Err(why) => absent.push((member, why)),
                    }
                }
                let alone = calling.there.len() == 1;
                for (member, why) in absent {
                    let why = format!("worker `{}` takes no part: {why}", member.name);
                    self.command(Command::Tell(Event::Interrupted { why }));
                    self.absent.insert(member.id, self.now + ABSENT);
                }
                if alone {
                    self.lead(None);
                } else {
                    self.command(Command::Survey);
                }
            }
            Phase::Meeting(Meeting { start: Some(start), calls: true }) => {
                let after = &start.assignment.workers[start.assignment.me as usize + 1..];
                let failed = after.iter().zip(results).find_map(|(member, result)| {
                    result.err().map(|why| format!("worker `{}`: {why}", member.name))
                });
                match failed {
                    Some(why) => self.end(Ending::Again(why)),
                    None => self.follow(),
                }
            }
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
        match self.phase {
            Phase::Calling(_) | Phase::Meeting(_) | Phase::Working(_) if self.called_by().is_some() => {
                self.end(Ending::Superseded);
            }
            Phase::Meeting(_) => self.look_who_is_there(),
            _ => {}
        }
    }

    /// The latest generation whose coordinator has called, if that is later than this worker's own.
    pub(super) fn called_by(&self) -> Option<u64> {
        let coordinators = self.calls.iter().filter(|(_, from)| *from == 0);
        coordinators.map(|(generation, _)| *generation).max().filter(|latest| *latest > self.generation)
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

    /// Once those before this worker are there it connects to those after it.
    fn look_who_is_there(&mut self) {
        let generation = self.generation;
        let Phase::Meeting(Meeting { start: Some(start), calls }) = &mut self.phase else { return };
        let me = start.assignment.me;
        let missing = |place: WorkerId| place < me && !self.calls.contains(&(generation, place));
        if *calls || start.assignment.others().any(missing) {
            return;
        }
        let members = start.assignment.workers[me as usize + 1..].to_vec();
        if members.is_empty() {
            self.follow();
        } else {
            *calls = true;
            self.command(Command::Dial { generation, from: me, first: me + 1, members });
        }
    }

    /// Takes its part in the attempt that it has heard of.
    fn follow(&mut self) {
        let Phase::Meeting(Meeting { start: Some(start), .. }) = &mut self.phase else { return };
        let start = start.clone();
        self.phase = Phase::Working(Box::new(Attempt::following(start.assignment.clone(), self.now)));
        self.command(Command::Assemble(start));
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
