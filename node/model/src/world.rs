//! All members, what is on the way between them, and one step of it all.
//!
//! Owns the state of the model and what an action does to it. Must not know which actions there are in a
//! state (`model`) nor what must hold in one (`properties`). Invariant: the same step from the same state
//! gives the same state.

use crate::bounds::{Bounds, Canvassing};
use crate::broken::{Broken, check_claim};
use crate::dead::is_dead;
use crate::member::{Arriving, Member, Nudge, id, place};
use crate::net::{Envelope, Net, Speech};
use crate::shared::Shared;
use crate::story::Story;
use pharos_paxos::{Ballot, IoId, MemberId, Membership, Message, Output, Role, Slot};
use std::sync::Arc;

/// What is left of the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Left {
    pub(crate) timeouts: u8,
    pub(crate) values: u8,
    pub(crate) crashes: u8,
    pub(crate) beats: u8,
    pub(crate) reads: u8,
    pub(crate) trims: u8,
    pub(crate) transfers: u8,
    pub(crate) reconfigures: u8,
    pub(crate) repeats: u8,
}

/// A state of the model.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct World {
    pub(crate) members: Vec<Shared<Member>>,
    pub(crate) net: Shared<Net>,
    pub(crate) story: Shared<Story>,
    pub(crate) left: Left,
    pub(crate) broken: Option<Arc<Broken>>,
}

/// A world while a step is taken in it.
pub(crate) struct Stepping<'a> {
    bounds: &'a Bounds,
    place: usize,
    member: Member,
    net: Net,
    story: Story,
    /// The last write's number.
    issued: IoId,
    /// The canvass that the member has started in this step, by its number.
    canvass: Option<u64>,
}

type Result = std::result::Result<(), Broken>;

impl World {
    pub(crate) fn founded(bounds: &Bounds) -> Self {
        let left = Left {
            timeouts: bounds.timeouts,
            values: bounds.values,
            crashes: bounds.crashes,
            beats: bounds.beats,
            reads: bounds.reads,
            trims: bounds.trims,
            transfers: bounds.transfers,
            reconfigures: bounds.reconfigures,
            repeats: bounds.repeats,
        };
        let blank = Shared::new(Member::founded(bounds, 0));
        let mut world = Self {
            members: vec![blank; bounds.members as usize],
            net: Shared::new(Net::default()),
            story: Shared::new(Story::new(Membership::founding(bounds.founders()))),
            left,
            broken: None,
        };
        for place in 0..world.members.len() {
            let start = |s: &mut Stepping| {
                s.member = Member::founded(bounds, place);
                s.issued = IoId(0);
                s.drain()
            };
            world.broken = world.step(bounds, place, start).err().map(Arc::new);
        }
        world
    }

    /// Whatever is on the way is lost.
    pub(crate) fn lose_all(&mut self) {
        self.net = Shared::new(Net::default());
    }

    /// Lets one member do something.
    pub(crate) fn step(
        &mut self,
        bounds: &Bounds,
        place: usize,
        act: impl FnOnce(&mut Stepping) -> Result,
    ) -> Result {
        let issued = IoId(self.members[place].disk.pending.len() as u64);
        let mut stepping = Stepping {
            bounds,
            place,
            member: Member::clone(&self.members[place]),
            net: Net::clone(&self.net),
            story: Story::clone(&self.story),
            issued,
            canvass: None,
        };
        let result = act(&mut stepping);
        let Stepping { mut member, mut net, story, .. } = stepping;
        member.forget(bounds);
        self.members[place] = Shared::new(member);
        if bounds.canvassing == Canvassing::Granted && !bounds.keeps_dead {
            net.lose(|e| matches!(&e.speech, Speech::Core(msg) if is_dead(&self.members[e.to], msg)));
        }
        self.net = Shared::new(net);
        self.story = Shared::new(story);
        result
    }
}

impl Stepping<'_> {
    /// The message arrives, and is gone.
    pub(crate) fn deliver(&mut self, envelope: &Shared<Envelope>) -> Result {
        self.net.remove(envelope, self.bounds.order);
        self.repeat(envelope)
    }

    /// The message arrives, and stays on the way.
    pub(crate) fn repeat(&mut self, envelope: &Shared<Envelope>) -> Result {
        match &envelope.speech {
            Speech::Core(msg) => self.member.core.recv(id(envelope.from), msg.clone()),
            Speech::Snapshot { ballot, upto, complete, voters } => {
                self.take_snapshot(envelope.from, *ballot, (*upto, *complete), voters)
            }
        }
        self.drain()
    }

    /// As `Replica::take_snapshot`: only what is news, and only from the leader of the ballot that is promised, or will
    /// be for the sake of the state. What is applied may be as little as the store holds.
    fn take_snapshot(
        &mut self,
        from: usize,
        ballot: Ballot,
        (upto, complete): (Slot, bool),
        voters: &Membership,
    ) {
        let member = &mut self.member;
        if member.arriving.is_some() || upto <= member.disk.stored {
            return;
        }
        member.core.await_state(ballot);
        let leads = matches!(member.core.role(), Role::Leader { .. });
        if ballot.member == id(from) && ballot == member.core.ballot() && !leads {
            let (complete, voters) = (complete.then_some(ballot), voters.clone());
            member.arriving = Some(Arriving { upto, complete, voters, given: false });
        }
    }

    /// The store holds the state that has come, and it takes effect.
    pub(crate) fn install(&mut self) -> Result {
        if let Some(Arriving { upto, complete, voters, .. }) = self.member.arriving.take() {
            self.member.core.install(upto, complete, &voters);
            self.member.disk.install(upto, voters);
        }
        self.drain()
    }

    /// The oldest write is durable.
    pub(crate) fn complete(&mut self) -> Result {
        if self.member.disk.complete() {
            self.member.core.disk_done(IoId(1)); // Numbered from one at the end of every step.
        }
        self.drain()
    }

    pub(crate) fn crash(&mut self, survive: usize) -> Result {
        self.story.forget_reads(self.place);
        self.issued = IoId(0);
        self.member.crash(self.bounds, self.place, survive);
        self.drain()
    }

    pub(crate) fn trim(&mut self) -> Result {
        let upto = self.member.flushable();
        self.member.disk.trim(upto);
        self.member.core.trim(upto);
        self.drain()
    }

    pub(crate) fn read(&mut self) -> Result {
        let ctx = self.story.ask(self.place);
        self.nudge(Nudge::Read(ctx))
    }

    pub(crate) fn nudge(&mut self, nudge: Nudge) -> Result {
        self.member.nudge(nudge);
        self.drain()?;
        if let Some(nonce) = self.canvass.take() {
            self.grant(nonce);
        }
        self.drain()
    }

    /// A majority is willing, has nothing fresher and says nothing of its promises.
    fn grant(&mut self, nonce: u64) {
        let membership = self.member.core.membership().clone();
        let others = membership.voters.iter().filter(|other| place(**other) != self.place);
        for other in others.take(membership.majority() - 1) {
            let reply = Message::CanvassReply {
                nonce,
                willing: true,
                accepted: Ballot::ZERO,
                end: Slot::ZERO,
                trimmed: Slot::ZERO,
                connected: false,
                promised: Ballot::ZERO,
            };
            self.member.core.recv(*other, reply);
        }
    }

    /// Carries out whatever the core wants done.
    pub(crate) fn drain(&mut self) -> Result {
        while let Some(output) = self.member.core.next_output() {
            self.carry_out(output)?;
        }
        if let Some(arriving) = &mut self.member.arriving {
            arriving.given |= self.member.core.is_durable();
        }
        self.offer_snapshots();
        Ok(())
    }

    /// As leader, asks for other voters; whether it was taken.
    pub(crate) fn reconfigure(&mut self, voters: &[u32]) -> std::result::Result<bool, Broken> {
        let voters: Vec<_> = voters.iter().copied().map(MemberId).collect();
        let taken = self.member.core.reconfigure(&voters, &[]).is_ok();
        self.drain().map(|()| taken)
    }

    fn carry_out(&mut self, output: Output) -> Result {
        match output {
            Output::Send { to, msg } => self.send(place(to), msg),
            Output::Write { io, ops } => {
                self.issued.0 += 1;
                assert_eq!(io, self.issued, "writes are numbered in order");
                self.member.disk.pending.push_back(ops);
                Ok(())
            }
            Output::Commit { upto } => self.story.commit(&self.member.core, upto),
            Output::ReadReady { ctx, slot } => self.story.answer(ctx, Some(slot)),
            Output::ReadFailed { ctx } => self.story.answer(ctx, None),
            Output::Role(role) => self.story.role(&self.member.core, role),
            Output::Fatal { reason } => Err(Broken::Fatal(reason)),
        }
    }

    fn send(&mut self, to: usize, msg: Message) -> Result {
        check_claim(&self.member.core, &self.member.disk, &msg)?;
        if let Message::Prepare { ballot, .. } = &msg {
            self.story.opens(*ballot)?;
        }
        match msg {
            Message::Canvass { nonce, .. } if self.bounds.canvassing == Canvassing::Granted => {
                self.canvass = Some(nonce);
            }
            Message::Heartbeat { seq, .. } | Message::HeartbeatAck { seq, .. }
                if !self.bounds.heartbeats.arrive(seq) => {}
            _ => {
                self.net.add(Envelope { from: self.place, to, speech: Speech::Core(msg) }, self.bounds.order)
            }
        }
        Ok(())
    }

    /// As `Replica::send_snapshots`: a leader sends what its store holds to whoever lacks what is trimmed. A store that
    /// holds nothing is flushed before.
    fn offer_snapshots(&mut self) {
        let Role::Leader { ballot } = self.member.core.role() else { return };
        let behind: Vec<_> = self.member.core.behind().map(place).collect();
        if !behind.is_empty() && self.member.disk.stored == Slot::ZERO {
            self.member.disk.flush(self.member.flushable());
        }
        let upto = self.member.disk.stored;
        let complete = self.member.core.epoch_start().is_some_and(|start| start <= upto);
        let voters = self.member.disk.voters.clone();
        let speech = Speech::Snapshot { ballot, upto, complete, voters };
        for to in behind {
            self.net.add(Envelope { from: self.place, to, speech: speech.clone() }, self.bounds.order);
        }
    }
}
