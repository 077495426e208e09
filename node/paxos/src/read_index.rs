//! Confirmed read indexes: "who was leader when I asked still was a moment later".
//!
//! Owns the requests that wait, here and at the leader. Invariant: an answer is given only after a
//! heartbeat round that was started after the request was answered by a quorum, and after our own
//! EpochStart is committed; one round serves every request that waits for it.

use crate::message::Message;
use crate::output::Output;
use crate::paxos::{Paxos, State};
use crate::types::{MemberId, Millis, Slot};
use std::collections::{BTreeMap, VecDeque};

/// The most requests that wait at a leader, or at a follower; more fail at once.
const MAX_WAITING: usize = 1 << 16;

#[derive(Clone, Debug, Hash)]
enum Origin {
    Here(u64),
    At(MemberId, u64),
}

/// A request that waits at the leader.
#[derive(Clone, Debug, Hash)]
struct Waiting {
    origin: Origin,
    /// The heartbeat round that confirms it: the first after it came.
    round: u64,
    slot: Slot,
}

#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Reads {
    next_id: u64,
    /// Asked here since the last drain, for the leader.
    fresh: Vec<u64>,
    /// Sent to the leader, by request number.
    asked: BTreeMap<u64, (Millis, Vec<u64>)>,
    waiting: VecDeque<Waiting>,
}

impl Reads {
    pub(crate) fn new(first_id: u64) -> Self {
        Self { next_id: first_id, ..Self::default() }
    }

    /// See [`Paxos::forget`].
    pub(crate) fn forget(&mut self, clock: &impl Fn(&mut Millis)) {
        self.asked.values_mut().for_each(|(at, _)| clock(at));
    }

    pub(crate) fn len(&self) -> usize {
        self.fresh.len() + self.asked.values().map(|(_, c)| c.len()).sum::<usize>() + self.waiting.len()
    }
}

impl Paxos {
    /// Asks for a slot that is at least every slot committed before this call; answered by `ReadReady` or
    /// `ReadFailed`. That a `ReadReady` comes also proves that the leader was confirmed by a quorum after
    /// this call.
    pub fn read_index(&mut self, ctx: u64) {
        if self.is_leader() {
            self.read_at_leader(Origin::Here(ctx));
        } else if self.leader.is_some() && self.reads.fresh.len() < MAX_WAITING {
            self.reads.fresh.push(ctx);
        } else {
            self.emit(Output::ReadFailed { ctx });
        }
    }

    pub(crate) fn on_read_request(&mut self, from: MemberId, id: u64) {
        if self.is_leader() {
            self.read_at_leader(Origin::At(from, id));
        } else {
            self.send(from, Message::ReadReply { id, slot: None });
        }
    }

    fn read_at_leader(&mut self, origin: Origin) {
        let committed = self.committed;
        let State::Leader(l) = &self.state else { return };
        let early = self.cfg.plant.read_before_epoch_start();
        let floor = if early { committed } else { l.epoch_start() };
        let read = Waiting { origin, round: l.round + 1, slot: committed.max(floor) };
        if self.cfg.plant.read_index_unconfirmed() {
            self.answer(Waiting { slot: committed, ..read }, true);
        } else if self.reads.waiting.len() >= MAX_WAITING {
            self.answer(read, false);
        } else {
            self.reads.waiting.push_back(read);
        }
    }

    fn answer(&mut self, read: Waiting, confirmed: bool) {
        match read.origin {
            Origin::Here(ctx) if confirmed => self.emit(Output::ReadReady { ctx, slot: read.slot }),
            Origin::Here(ctx) => self.emit(Output::ReadFailed { ctx }),
            Origin::At(to, id) => {
                self.send(to, Message::ReadReply { id, slot: confirmed.then_some(read.slot) })
            }
        }
    }

    /// Answers what the rounds confirmed so far allow.
    pub(crate) fn serve_reads(&mut self) {
        let State::Leader(l) = &self.state else { return };
        let settled = l.is_settled(self.committed) || self.cfg.plant.read_before_epoch_start();
        if self.reads.waiting.is_empty() || !settled {
            return;
        }
        if self.seal.is_some() {
            return; // The next configuration may begin before this member hears of it.
        }
        let confirmed = l.confirmed_round(&self.membership);
        assert!(confirmed <= l.round, "no round is confirmed before it is started");
        while let Some(read) = self.reads.waiting.pop_front_if(|r| r.round <= confirmed) {
            self.answer(read, true);
        }
    }

    pub(crate) fn flush_reads(&mut self) {
        self.ask_leader();
        let State::Leader(l) = &self.state else { return };
        let waits = self.reads.waiting.back().is_some_and(|r| r.round > l.round);
        if waits && l.confirmed_round(&self.membership) == l.round {
            self.start_round(); // One round at a time; the next takes all that came meanwhile.
        }
        self.serve_reads();
    }

    fn ask_leader(&mut self) {
        if self.reads.fresh.is_empty() {
            return;
        }
        let ctxs = std::mem::take(&mut self.reads.fresh);
        let Some(leader) = self.leader else {
            ctxs.into_iter().for_each(|ctx| self.emit(Output::ReadFailed { ctx }));
            return;
        };
        let id = self.reads.next_id;
        self.reads.next_id = id.wrapping_add(1);
        self.reads.asked.insert(id, (self.now, ctxs));
        self.send(leader, Message::ReadRequest { id });
    }

    pub(crate) fn on_read_reply(&mut self, id: u64, slot: Option<Slot>) {
        let Some((_, ctxs)) = self.reads.asked.remove(&id) else { return };
        for ctx in ctxs {
            self.emit(slot.map_or(Output::ReadFailed { ctx }, |slot| Output::ReadReady { ctx, slot }));
        }
    }

    /// Requests do not wait longer than a leader may be silent.
    pub(crate) fn tick_reads(&mut self) {
        let (now, election) = (self.now, self.cfg.election.0);
        let late: Vec<u64> = self
            .reads
            .asked
            .iter()
            .filter(|(_, (at, _))| now.0 - at.0 >= election)
            .map(|(id, _)| *id)
            .collect();
        late.into_iter().for_each(|id| self.on_read_reply(id, None));
    }

    /// What was sent to a leader, or was about to be, fails.
    pub(crate) fn fail_asked_reads(&mut self) {
        let asked = std::mem::take(&mut self.reads.asked);
        let fresh = std::mem::take(&mut self.reads.fresh);
        for ctx in asked.into_values().flat_map(|(_, ctxs)| ctxs).chain(fresh) {
            self.emit(Output::ReadFailed { ctx });
        }
    }

    /// All requests fail: the part they waited for is over.
    pub(crate) fn fail_all_reads(&mut self) {
        self.fail_asked_reads();
        for read in std::mem::take(&mut self.reads.waiting) {
            self.answer(read, false);
        }
    }
}
