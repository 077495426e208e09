//! What is on its way to the log, what has arrived there, and what waits for it.
//!
//! Owns the order of writes. Knows no roles and sends nothing: it hands back what was deferred. Everything
//! deferred runs only when every operation pushed before it is durable.

use crate::message::Message;
use crate::plant::Plant;
use crate::types::{Ballot, IoId, LogOp, MemberId, Millis, Slot};
use std::collections::VecDeque;

/// What waits for a write.
#[derive(Clone, Debug, Hash)]
pub(crate) enum Deferred {
    /// Send a Promise, unless a higher ballot was promised meanwhile.
    Promise { to: MemberId, ballot: Ballot, msg: Message },
    /// The candidate's own promise: only now may others hear of the ballot.
    Stand(Ballot),
}

#[derive(Clone, Debug, Hash)]
struct Issued {
    io: IoId,
    at: Millis,
    /// The log's end once this is durable, lowered when a later write cuts below it: the completion of a
    /// write says nothing about entries which have since been replaced (etcd's async-append ABA race).
    end: Slot,
    /// The same, never lowered: what a careless member would believe.
    claimed: Slot,
    accepted: Ballot,
    then: Vec<Deferred>,
}

#[derive(Clone, Debug, Hash)]
pub(crate) struct Disk {
    ops: Vec<LogOp>,
    then: Vec<Deferred>,
    issued: VecDeque<Issued>,
    last: IoId,
    end: Slot,
    claimed: Slot,
    accepted: Ballot,
    plant: Plant,
}

impl Disk {
    pub(crate) fn new(end: Slot, accepted: Ballot, plant: Plant) -> Self {
        Self {
            ops: Vec::new(),
            then: Vec::new(),
            issued: VecDeque::new(),
            last: IoId(0),
            end,
            claimed: end,
            accepted,
            plant,
        }
    }

    /// The log is durable up to here, and this much of it has not been cut since.
    pub(crate) fn end(&self) -> Slot {
        self.end
    }

    /// What the last completed write reached, whatever was cut since. Only for [`crate::Plant`].
    pub(crate) fn claimed(&self) -> Slot {
        self.claimed
    }

    /// The accepted ballot as it is on disk.
    pub(crate) fn accepted(&self) -> Ballot {
        self.accepted
    }

    /// Writes issued and not yet durable.
    pub(crate) fn in_flight(&self) -> usize {
        self.issued.len()
    }

    /// Whether there is nothing that is not durable.
    pub(crate) fn is_idle(&self) -> bool {
        self.ops.is_empty() && self.issued.is_empty()
    }

    /// Since when the oldest write is under way.
    pub(crate) fn oldest(&self) -> Option<Millis> {
        self.issued.front().map(|w| w.at)
    }

    /// To be written with the next group.
    pub(crate) fn push(&mut self, op: LogOp) {
        let keep = match op {
            LogOp::Truncate { from } => Some(Slot(from.0 - 1)),
            LogOp::Reset { after } => Some(after),
            _ => None,
        };
        if let Some(keep) = keep {
            self.end = self.end.min(keep);
            self.issued.iter_mut().for_each(|w| w.end = w.end.min(keep));
        }
        self.ops.push(op);
    }

    /// Waits for everything pushed so far; given back at once when all of it is durable.
    pub(crate) fn defer(&mut self, what: Deferred) -> Option<Deferred> {
        if self.plant.promise_overtakes()
            && let Some(first) = self.issued.front_mut()
        {
            first.then.push(what);
        } else if !self.ops.is_empty() {
            self.then.push(what);
        } else if let Some(last) = self.issued.back_mut() {
            last.then.push(what);
        } else {
            return Some(what);
        }
        None
    }

    /// See [`crate::Paxos::forget`].
    pub(crate) fn forget(&mut self, clock: &impl Fn(&mut Millis)) {
        let completed = self.last.0 - self.issued.len() as u64;
        self.last.0 -= completed;
        for write in &mut self.issued {
            write.io.0 -= completed;
            clock(&mut write.at);
        }
    }

    /// Whether a Promise of that ballot already waits.
    pub(crate) fn promise_waits(&self, ballot: Ballot) -> bool {
        let waits = |d: &Deferred| matches!(d, Deferred::Promise { ballot: b, .. } if *b == ballot);
        self.then.iter().chain(self.issued.iter().flat_map(|w| &w.then)).any(waits)
    }

    /// Turns what was pushed into one write, if anything was. `hint` rides along.
    pub(crate) fn issue(
        &mut self,
        at: Millis,
        end: Slot,
        accepted: Ballot,
        hint: Option<Slot>,
    ) -> Option<(IoId, Vec<LogOp>)> {
        if self.ops.is_empty() {
            assert!(self.then.is_empty(), "nothing waits for a write that is not there");
            return None;
        }
        self.ops.extend(hint.map(LogOp::Committed));
        self.last = IoId(self.last.0 + 1);
        let then = std::mem::take(&mut self.then);
        self.issued.push_back(Issued { io: self.last, at, end, claimed: end, accepted, then });
        Some((self.last, std::mem::take(&mut self.ops)))
    }

    /// The write and all before it are durable; gives what waited for them.
    pub(crate) fn done(&mut self, io: IoId) -> Vec<Deferred> {
        assert!(io <= self.last, "only an issued write completes");
        let mut then = Vec::new();
        while self.issued.front().is_some_and(|w| w.io <= io) {
            let write = self.issued.pop_front().expect("its front was just seen");
            assert!(write.accepted >= self.accepted, "the accepted ballot never falls");
            self.end = self.end.max(write.end);
            self.claimed = write.claimed;
            self.accepted = write.accepted;
            then.extend(write.then);
        }
        then
    }
}
