//! The core: its state, its inputs, and the queue of its outputs.
//!
//! Owns the fields that every part shares and the dispatch of inputs; the parts (`acceptor`, `election`,
//! `leader`, `read_index`, `reconfig`) own what happens. Work is put off to `next_output`, so that everything that
//! came in between two drains of the queue shares one write and one message per follower.

use crate::acceptor::Stage;
use crate::config::{Config, Recovered};
use crate::disk::{Deferred, Disk};
use crate::election::{Candidacy, Canvass};
use crate::leader::Leadership;
use crate::log_view::LogView;
use crate::message::{Message, Standing};
use crate::output::{Output, Role};
use crate::read_index::Reads;
use crate::status::Counters;
use crate::types::{Ballot, Entry, IoId, LogOp, MemberId, Membership, Millis, Slot};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One member's consensus core.
#[derive(Clone, Debug, Hash)]
pub struct Paxos {
    pub(crate) cfg: Config,
    pub(crate) now: Millis,
    /// Who votes, as far as it is known to be chosen.
    pub(crate) membership: Membership,
    /// The next configuration: the log ends with its seal, which is not known to be chosen.
    pub(crate) seal: Option<Membership>,
    /// Who is sent the log and does not vote.
    pub(crate) learners: BTreeSet<MemberId>,
    pub(crate) log: LogView,
    pub(crate) disk: Disk,
    /// The highest ballot promised, durable or not.
    pub(crate) promised: Ballot,
    /// The ballot whose leader's log ours is a prefix of, durable or not.
    pub(crate) accepted: Ballot,
    /// Chosen, and in our log.
    pub(crate) committed: Slot,
    /// The commit index last written as a hint.
    hinted: Slot,
    /// The highest ballot heard of; the next one opened is higher.
    pub(crate) seen: Ballot,
    pub(crate) state: State,
    pub(crate) stage: Option<Stage>,
    /// The leader of `promised`, once heard.
    pub(crate) leader: Option<MemberId>,
    /// When a leader of `promised` or above was last heard.
    pub(crate) contact: Option<Millis>,
    /// When to canvass, unless a leader is heard.
    pub(crate) deadline: Millis,
    pub(crate) canvass: Option<Canvass>,
    /// A fresher member was given way to once.
    pub(crate) gave_way: bool,
    /// Stand at the deadline without canvassing: a follower is stuck above our own ballot.
    pub(crate) pressing: bool,
    /// When each peer was last heard.
    pub(crate) heard: BTreeMap<MemberId, Millis>,
    /// An Accepted is owed to the leader.
    pub(crate) ack_due: bool,
    /// The last gap reported to the leader, and when.
    pub(crate) gap_reported: Option<(Slot, Millis)>,
    pub(crate) reads: Reads,
    pub(crate) draws: u64,
    pub(crate) counters: Counters,
    announced: Role,
    out: VecDeque<Output>,
    stopped: bool,
}

/// The part a member plays, with what it needs for it.
#[derive(Clone, Debug, Hash)]
pub(crate) enum State {
    Follower,
    Candidate(Candidacy),
    Leader(Leadership),
}

impl Paxos {
    /// Starts from what the log held. A member that must not vote (an empty log, settings that make no
    /// group, a log with a gap) starts stopped: its only output is [`Output::Fatal`].
    #[must_use]
    pub fn new(cfg: Config, rec: Recovered, now: Millis) -> Self {
        let votes = cfg.membership.has(cfg.me);
        let refusal = cfg.refusal().or_else(|| rec.refusal(votes));
        let hard = rec.hard;
        let log = if refusal.is_some() {
            LogView::new(Slot::ZERO, Vec::new())
        } else {
            LogView::new(rec.trimmed, rec.entries)
        };
        let committed = hard.committed.max(rec.trimmed).min(log.end());
        let announced = Role::Follower { leader: None, ballot: hard.promised };
        let mut core = Self {
            membership: cfg.membership.clone(),
            seal: None,
            learners: BTreeSet::new(),
            now,
            disk: Disk::new(log.end(), hard.accepted, cfg.plant),
            log,
            promised: hard.promised,
            accepted: hard.accepted,
            committed,
            hinted: committed,
            seen: hard.promised,
            state: State::Follower,
            stage: None,
            leader: None,
            contact: Some(now),
            deadline: now,
            canvass: None,
            gave_way: false,
            pressing: false,
            heard: BTreeMap::new(),
            ack_due: false,
            gap_reported: None,
            reads: Reads::default(),
            draws: 0,
            counters: Counters::default(),
            announced,
            out: VecDeque::new(),
            stopped: false,
            cfg,
        };
        match refusal {
            Some(reason) => core.stop(reason),
            None => core.start(),
        }
        core
    }

    fn start(&mut self) {
        self.reads = Reads::new(self.draw());
        self.recover_membership();
        if self.membership.voters != [self.cfg.me] {
            self.put_deadline_off();
        }
        if self.committed > self.log.trimmed() {
            self.out.push_back(Output::Commit { upto: self.committed });
        }
    }

    /// A message from another member. Only voters are counted, but others may lead in a configuration that this
    /// member has not heard of, or know that one is over.
    pub fn recv(&mut self, from: MemberId, msg: Message) {
        if self.stopped || from == self.cfg.me {
            return;
        }
        self.heard.insert(from, self.now);
        if self.comes_late(from, &msg) {
            return;
        }
        match msg {
            Message::Canvass { nonce, config, accepted, end } => {
                self.on_canvass(from, nonce, config, (accepted, end));
            }
            Message::CanvassReply { nonce, willing, accepted, end, trimmed, connected, promised } => {
                self.see(promised);
                self.on_canvass_reply(from, nonce, willing, connected, (accepted, end), trimmed);
            }
            Message::Prepare { ballot, accepted, end, committed, since, by, runs }
                if ballot.member == from =>
            {
                self.see(ballot);
                if self.is_over(ballot.config, from) {
                    self.send(from, Message::Reject { ballot, promised: self.promised });
                } else if self.enters(ballot.config, since, by) {
                    self.on_prepare(ballot, (accepted, end), committed, &runs);
                } else {
                    self.send(from, Message::Lacks { ballot });
                }
            }
            promise @ Message::Promise { .. } => self.on_promise(from, promise),
            Message::Fetch { ballot, from: slot } => self.on_fetch(from, ballot, slot),
            Message::Fetched { ballot, from: slot, entries } => self.on_fetched(from, ballot, slot, entries),
            Message::AcceptSync { ballot, base, sync_point, from: slot, entries, commit }
                if ballot.member == from =>
            {
                self.see(ballot);
                self.on_accept_sync(ballot, base, sync_point, slot, entries, commit);
            }
            Message::Accept { ballot, from: slot, entries, commit } if ballot.member == from => {
                self.see(ballot);
                self.on_accept(ballot, slot, entries, commit);
            }
            Message::Heartbeat { ballot, seq, commit } if ballot.member == from => {
                self.see(ballot);
                self.on_heartbeat(ballot, seq, commit);
            }
            Message::Commit { ballot, upto } if ballot.member == from => self.on_commit(ballot, upto),
            Message::TransferNow { ballot } if ballot.member == from => self.on_transfer_now(ballot),
            Message::Accepted { ballot, upto } => self.on_accepted(from, ballot, upto),
            Message::Have { ballot, gap, standing } => self.on_have(from, ballot, gap, standing),
            Message::HeartbeatAck { ballot, seq, standing } => {
                self.on_heartbeat_ack(from, ballot, seq, standing)
            }
            Message::Reject { ballot, promised } => self.on_reject(ballot, promised),
            Message::Chosen { slot, ballot } => self.on_chosen(slot, ballot),
            Message::Lacks { ballot } => self.on_lacks(from, ballot),
            Message::ReadRequest { id } => self.on_read_request(from, id),
            Message::ReadReply { id, slot } => self.on_read_reply(id, slot),
            Message::Prepare { .. }
            | Message::AcceptSync { .. }
            | Message::Accept { .. }
            | Message::Heartbeat { .. }
            | Message::Commit { .. }
            | Message::TransferNow { .. } => {} // Someone else's ballot: only its member speaks in it.
        }
    }

    /// Time has passed; any cadence well below the heartbeat will do.
    pub fn tick(&mut self, now: Millis) {
        if self.stopped {
            return;
        }
        self.now = self.now.max(now);
        match self.state {
            State::Follower => self.tick_follower(),
            State::Candidate(_) => self.tick_candidate(),
            State::Leader(_) => self.tick_leader(),
        }
        self.tick_reads();
    }

    /// The write and all before it are durable.
    pub fn disk_done(&mut self, io: IoId) {
        if self.stopped {
            return;
        }
        for deferred in self.disk.done(io) {
            self.run_deferred(deferred);
        }
        if self.is_leader() {
            self.advance_commit();
        } else if self.follows_what_it_accepted() {
            self.ack_due = true;
        }
    }

    /// The transport to that peer broke: what was sent may be lost. A leader that is lost so and not heard
    /// again soon is given up earlier than one that just falls silent.
    pub fn peer_lost(&mut self, peer: MemberId) {
        if self.stopped {
            return;
        }
        self.rewind_peer(peer);
        if self.leader == Some(peer) {
            self.fail_asked_reads();
            self.doubt_leader();
        }
    }

    /// Forgets entries up to `upto`, which must be committed and durable: the state store has them.
    pub fn trim(&mut self, upto: Slot) {
        if self.stopped {
            return;
        }
        assert!(upto <= self.committed, "only committed entries are trimmed");
        assert!(upto <= self.disk.end(), "only durable entries are trimmed");
        self.log.trim(upto);
    }

    /// The next thing to do; none until there is another input.
    pub fn next_output(&mut self) -> Option<Output> {
        if self.out.is_empty() && !self.stopped {
            self.flush();
        }
        self.out.pop_front()
    }

    /// The entry, unless it is trimmed or not there yet.
    #[must_use]
    pub fn entry(&self, slot: Slot) -> Option<&Entry> {
        self.log.get(slot)
    }

    /// Everything up to here is chosen and in the log.
    #[must_use]
    pub fn committed(&self) -> Slot {
        self.committed
    }

    /// The log is durable up to here, and this much of it is a prefix of the accepted leader's log.
    #[must_use]
    pub fn durable(&self) -> Slot {
        self.disk.end()
    }

    /// The log's end, durable or not.
    #[must_use]
    pub fn last_slot(&self) -> Slot {
        self.log.end()
    }

    /// The part this member plays.
    #[must_use]
    pub fn role(&self) -> Role {
        match &self.state {
            State::Follower => Role::Follower { leader: self.leader, ballot: self.promised },
            State::Candidate(_) => Role::Candidate,
            State::Leader(l) => Role::Leader { ballot: l.ballot },
        }
    }

    /// Who leads, as far as known; this member itself when it does.
    #[must_use]
    pub fn leader(&self) -> Option<MemberId> {
        if self.is_leader() { Some(self.cfg.me) } else { self.leader }
    }

    /// The highest ballot promised.
    #[must_use]
    pub fn ballot(&self) -> Ballot {
        self.promised
    }
}

impl Paxos {
    /// Everything put off since the last drain, in a fixed order. Doing it twice does nothing more.
    fn flush(&mut self) {
        self.issue_write();
        self.flush_acceptor();
        self.flush_leader();
        self.flush_reads();
        self.issue_write(); // A single member's read round or commit may have pushed nothing; a stage may.
    }

    pub(crate) fn issue_write(&mut self) {
        let hint = (self.committed > self.hinted).then_some(self.committed);
        let issued = self.disk.issue(self.now, self.log.end(), self.accepted, hint);
        let Some((io, ops)) = issued else { return };
        self.hinted = self.committed;
        self.out.push_back(Output::Write { io, ops });
        if self.cfg.plant.ack_before_fsync() {
            self.ack_due = !self.is_leader();
            self.advance_commit();
        }
    }

    pub(crate) fn run_deferred(&mut self, deferred: Deferred) {
        match deferred {
            Deferred::Promise { to, ballot, msg } => {
                if self.promised == ballot {
                    self.send(to, msg);
                }
            }
            Deferred::Stand(ballot) => self.on_own_promise(ballot),
        }
    }

    /// To be run once all that was pushed to the disk is durable.
    pub(crate) fn when_durable(&mut self, deferred: Deferred) {
        if let Some(now) = self.disk.defer(deferred) {
            self.run_deferred(now);
        }
    }

    /// Promises a higher ballot and leaves every part that belongs to a lower one.
    pub(crate) fn promise(&mut self, ballot: Ballot) {
        assert!(ballot > self.promised, "a promise only rises");
        assert!(ballot >= self.accepted, "nothing is accepted above the promise");
        self.promised = ballot;
        if !(self.cfg.plant.ballot_reuse() && ballot.member == self.cfg.me) {
            self.disk.push(LogOp::Promised(ballot));
        }
        self.stage = None;
        self.gap_reported = None;
        self.leave_office();
    }

    /// Becomes a follower that knows no leader.
    pub(crate) fn leave_office(&mut self) {
        self.fail_all_reads();
        self.state = State::Follower;
        self.leader = None;
        self.canvass = None;
        self.put_deadline_off();
    }

    /// Tells the role if it has changed.
    pub(crate) fn announce(&mut self) {
        let role = self.role();
        if role != self.announced {
            self.announced = role;
            self.out.push_back(Output::Role(role));
        }
    }

    /// These are chosen and in our log.
    pub(crate) fn learn_commit(&mut self, upto: Slot) {
        if upto <= self.committed {
            return;
        }
        assert!(upto <= self.log.end(), "a commit is told only of what is in the log");
        self.committed = upto;
        self.out.push_back(Output::Commit { upto });
        self.pass_seal();
    }

    pub(crate) fn standing(&self) -> Standing {
        let staged = self.stage.as_ref().map_or(Slot::ZERO, Stage::end);
        Standing {
            promised: self.promised,
            accepted: self.accepted,
            end: self.log.end(),
            durable: self.durable_as_accepted(),
            staged,
        }
    }

    /// How much may be acknowledged under `accepted`: nothing before that stamp itself is durable.
    pub(crate) fn durable_as_accepted(&self) -> Slot {
        if self.cfg.plant.ack_before_fsync() {
            return self.log.end();
        }
        if self.cfg.plant.late_completion() {
            return self.disk.claimed().min(self.log.end());
        }
        if self.disk.accepted() == self.accepted { self.disk.end() } else { Slot::ZERO }
    }

    /// Nothing above what is accepted is promised: acknowledgements may go out.
    pub(crate) fn follows_what_it_accepted(&self) -> bool {
        self.accepted == self.promised
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stopped
    }

    pub(crate) fn is_leader(&self) -> bool {
        matches!(self.state, State::Leader(_))
    }

    pub(crate) fn see(&mut self, ballot: Ballot) {
        self.seen = self.seen.max(ballot);
    }

    pub(crate) fn emit(&mut self, output: Output) {
        self.out.push_back(output);
    }

    pub(crate) fn send(&mut self, to: MemberId, msg: Message) {
        assert!(to != self.cfg.me, "nobody writes to itself");
        self.out.push_back(Output::Send { to, msg });
    }

    /// All other voters.
    pub(crate) fn peers(&self) -> Vec<MemberId> {
        self.membership.voters.iter().copied().filter(|&m| m != self.cfg.me).collect()
    }

    /// To all other voters.
    pub(crate) fn broadcast(&mut self, msg: &Message) {
        for to in self.peers() {
            self.send(to, msg.clone());
        }
    }

    /// The next canvass comes after a full election timeout and a bit.
    pub(crate) fn put_deadline_off(&mut self) {
        // Half a heartbeat more than the peers wait, for their clocks are only as fine as their ticks.
        let jitter = self.jitter(self.cfg.election.0 / 2);
        self.deadline = Millis(self.now.0 + self.cfg.election.0 + self.cfg.heartbeat.0 / 2 + jitter);
    }

    /// Between 0 and `most`, the same in every run with the same seed.
    pub(crate) fn jitter(&mut self, most: u64) -> u64 {
        self.draw() % (most + 1)
    }

    /// The next number of this member's sequence (splitmix64).
    pub(crate) fn draw(&mut self) -> u64 {
        self.draws += 1;
        let start = self.cfg.seed ^ (u64::from(self.cfg.me.0) << 32);
        let mut z = start.wrapping_add(self.draws.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn stop(&mut self, reason: &'static str) {
        self.stopped = true;
        self.out.push_back(Output::Fatal { reason });
    }
}
