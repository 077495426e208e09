//! Leading: proposals, the streams to followers, what is durable where, commits, heartbeats, hand-over.
//!
//! Owns the follower table. Invariants: only members whose accepted ballot is ours are counted, each once,
//! this one after its own disk; the adopted prefix goes out before anything else; a late Promise starts a
//! sync and never a second adoption.

use crate::election::Promised;
use crate::message::{Message, Standing};
use crate::output::NotLeader;
use crate::paxos::{Paxos, State};
use crate::peer::{Limits, Peer, Phase};
use crate::types::{Ballot, Entry, EntryKind, MAX_ENTRY_BYTES, MemberId, Membership, Millis, Slot};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Heartbeats without progress after which what was sent is taken as lost.
pub(crate) const PATIENCE_HEARTBEATS: u64 = 4;

/// Leadership on its way to another.
#[derive(Clone, Debug, Hash)]
struct Transfer {
    to: MemberId,
    until: Millis,
    told: bool,
}

#[derive(Clone, Debug, Hash)]
pub(crate) struct Leadership {
    pub(crate) ballot: Ballot,
    /// The ballot of the adopted log.
    adopted: Ballot,
    /// The end of the adopted prefix; our EpochStart is the slot after it.
    sync_point: Slot,
    pub(crate) peers: BTreeMap<MemberId, Peer>,
    /// The last heartbeat round started.
    pub(crate) round: u64,
    round_at: Millis,
    transfer: Option<Transfer>,
    /// A hanging disk does not hand over again before.
    spare_after: Millis,
    /// Acknowledgements, for the plant that counts them instead of members; otherwise empty.
    acks: Vec<Slot>,
}

impl Leadership {
    pub(crate) fn new(
        ballot: Ballot,
        adopted: Ballot,
        sync_point: Slot,
        peers: &BTreeSet<MemberId>,
        now: Millis,
    ) -> Self {
        assert!(adopted < ballot, "a leader adopts from a lower ballot");
        Self {
            ballot,
            adopted,
            sync_point,
            peers: peers.iter().map(|&m| (m, Peer::new(now))).collect(),
            round: 0,
            round_at: now,
            transfer: None,
            spare_after: now,
            acks: Vec::new(),
        }
    }

    /// The slot of our EpochStart: reads wait for its commit. A leader that took over a seal has none.
    pub(crate) fn epoch_start(&self) -> Slot {
        self.sync_point.next()
    }

    /// Whether our EpochStart is chosen.
    pub(crate) fn is_settled(&self, committed: Slot) -> bool {
        committed >= self.epoch_start()
    }

    /// Starts that follower's sync from `base`, unless what it lacks is gone.
    pub(crate) fn plan(&mut self, member: MemberId, base: Slot, trimmed: Slot, now: Millis) {
        let Some(peer) = self.peers.get_mut(&member) else { return };
        if base < trimmed {
            peer.phase = Phase::Behind;
        } else {
            peer.start_sync(base, now);
        }
    }

    /// See [`Paxos::forget`].
    pub(crate) fn forget(&mut self, clock: &impl Fn(&mut Millis)) {
        clock(&mut self.round_at);
        clock(&mut self.spare_after);
        self.transfer.iter_mut().for_each(|t| clock(&mut t.until));
        self.peers.values_mut().for_each(|p| p.forget(clock));
    }

    /// The highest round that a quorum of the voters has answered, this member at once.
    pub(crate) fn confirmed_round(&self, membership: &Membership) -> u64 {
        self.reached(membership, self.round, |p| p.acked_seq)
    }

    /// The value that a quorum of the voters has reached, of which this member has `own`.
    fn reached<T: Ord + Copy + Default>(
        &self,
        membership: &Membership,
        own: T,
        of: impl Fn(&Peer) -> T,
    ) -> T {
        let me = self.ballot.member;
        membership.reached(|voter| match self.peers.get(&voter) {
            Some(peer) => of(peer),
            None if voter == me => own,
            None => T::default(),
        })
    }
}

/// The value that `n` of them reach, whoever they are: what planted bugs count.
fn nth_largest<T: Ord + Copy>(mut values: Vec<T>, n: usize) -> T {
    values.sort_unstable_by(|a, b| b.cmp(a));
    values[n - 1]
}

impl Paxos {
    /// Appends an entry to the log, as leader, within the window. It is sent and written at the next
    /// drain of the outputs.
    ///
    /// # Errors
    /// When this member does not lead, hands over, or has too much in flight.
    pub fn propose(&mut self, kind: EntryKind, payload: Bytes) -> Result<Slot, NotLeader> {
        let State::Leader(l) = &self.state else {
            return Err(NotLeader::NotLeading { leader: self.leader });
        };
        if l.transfer.is_some() {
            return Err(NotLeader::Transferring);
        }
        if self.seal.is_some() {
            return Err(NotLeader::Sealed);
        }
        if payload.len() > MAX_ENTRY_BYTES {
            return Err(NotLeader::TooLarge);
        }
        if !self.window_open() {
            return Err(NotLeader::WindowFull);
        }
        let entry = Entry { slot: self.log.end().next(), ballot: l.ballot, kind, payload };
        let slot = entry.slot;
        self.append(entry);
        Ok(slot)
    }

    /// Whether `propose` would take a proposal.
    #[must_use]
    pub fn can_propose(&self) -> bool {
        let leads = matches!(&self.state, State::Leader(l) if l.transfer.is_none());
        leads && self.seal.is_none() && self.window_open()
    }

    fn window_open(&self) -> bool {
        assert!(self.committed <= self.log.end(), "what is committed is in the log");
        let slots = self.log.end().0 - self.committed.0;
        let bytes = self.log.bytes_between(self.committed, self.log.end());
        slots < self.cfg.window_slots as u64 && bytes < self.cfg.window_bytes as u64
    }

    /// Hands leadership to `to` when it has all this member has; proposals wait meanwhile, for one
    /// election timeout at most. Does nothing when not leading or when `to` is no other voter.
    pub fn transfer(&mut self, to: MemberId) {
        let until = Millis(self.now.0 + self.cfg.election.0);
        if let State::Leader(l) = &mut self.state
            && self.membership.has(to)
            && l.peers.contains_key(&to)
        {
            l.transfer = Some(Transfer { to, until, told: false });
        }
    }

    /// The lowest slot up to which any voter is known to be durable under the present leader; zero when
    /// this member does not lead or has not heard from all.
    #[must_use]
    pub fn min_match(&self) -> Slot {
        let State::Leader(l) = &self.state else { return Slot::ZERO };
        let peers = l.peers.values().map(|p| p.matched).min();
        peers.map_or(self.durable_as_accepted(), |m| m.min(self.durable_as_accepted()))
    }

    /// The followers that lack entries which this leader has trimmed: they need the state instead.
    pub fn behind(&self) -> impl Iterator<Item = MemberId> + '_ {
        let leadership = if let State::Leader(l) = &self.state { Some(l) } else { None };
        let peers = leadership.into_iter().flat_map(|l| &l.peers);
        peers.filter(|(_, peer)| peer.phase == Phase::Behind).map(|(member, _)| *member)
    }

    /// The slot of this leader's own first entry.
    #[must_use]
    pub fn epoch_start(&self) -> Option<Slot> {
        if let State::Leader(l) = &self.state { Some(l.epoch_start()) } else { None }
    }

    /// Up to where a promised follower's log equals ours: within the adopted prefix, or beyond it where both are
    /// chosen, as in a state that it took over from this ballot.
    pub(crate) fn sync_base(&self, adopted: Ballot, sync_point: Slot, p: &Promised) -> Slot {
        let current = adopted.config == self.membership.config;
        let same_leader = if current && p.accepted == adopted { p.end } else { Slot::ZERO };
        let common = self.log.common_prefix(&p.runs).max(same_leader).max(p.committed);
        let common = if self.cfg.plant.sync_trusts_length() { p.end } else { common };
        common.min(p.end).min(sync_point).max(p.committed.min(self.committed))
    }

    pub(crate) fn on_late_promise(&mut self, from: MemberId, p: &Promised) {
        let State::Leader(l) = &self.state else { return };
        let (adopted, sync_point, ballot) = (l.adopted, l.sync_point, l.ballot);
        let base = self.sync_base(adopted, sync_point, p);
        let (now, trimmed) = (self.now, self.log.trimmed());
        let State::Leader(l) = &mut self.state else { return };
        let Some(peer) = l.peers.get_mut(&from) else { return };
        if self.cfg.plant.late_promise_matches() {
            peer.matched = peer.matched.max(p.end.min(self.log.end()));
            self.advance_commit();
        } else if p.accepted == ballot {
            peer.matched = peer.matched.max(p.end); // A Promise is sent when all it reports is durable.
            if peer.phase != Phase::Streaming {
                peer.start_stream(p.end, now);
            }
            self.advance_commit();
        } else if peer.matched == Slot::ZERO && !matches!(peer.phase, Phase::Syncing { .. }) {
            l.plan(from, base, trimmed, now);
        }
    }

    pub(crate) fn tick_leader(&mut self) {
        let (now, election) = (self.now, self.cfg.election.0);
        let State::Leader(l) = &mut self.state else { return };
        let heard = l.reached(&self.membership, now, |p| p.acked_at);
        if now.0 - heard.0 >= election {
            self.leave_office();
            self.announce();
            return;
        }
        l.transfer.take_if(|t| now >= t.until);
        if now.0 - l.round_at.0 >= self.cfg.heartbeat.0 {
            self.start_round();
        }
        self.spare_slow_disk();
    }

    /// A leader whose disk hangs hands over, but only to a member whose disk is ahead of its own: on one
    /// slow disk shared by all, nobody gains and nobody moves.
    fn spare_slow_disk(&mut self) {
        let hangs = self.disk.oldest().is_some_and(|at| self.now.0 - at.0 >= self.cfg.election.0);
        let (now, own) = (self.now, self.durable_as_accepted());
        let (election, heartbeat) = (self.cfg.election.0, self.cfg.heartbeat.0);
        let State::Leader(l) = &mut self.state else { return };
        if !hangs || l.transfer.is_some() || now < l.spare_after {
            return;
        }
        let answers = |p: &Peer| now.0 - p.acked_at.0 <= 2 * heartbeat;
        let ahead = l.peers.iter().filter(|(m, p)| self.membership.has(**m) && p.matched > own && answers(p));
        let best = ahead.max_by_key(|(m, p)| (p.matched, std::cmp::Reverse(**m))).map(|(m, _)| *m);
        if let Some(to) = best {
            l.spare_after = Millis(now.0 + 4 * election); // A failed attempt has stopped proposals for one.
            self.transfer(to);
        }
    }

    /// Sends a heartbeat to everyone: it keeps followers and confirms leadership for reads.
    pub(crate) fn start_round(&mut self) {
        let State::Leader(l) = &mut self.state else { return };
        l.round += 1;
        l.round_at = self.now;
        let heartbeat = Message::Heartbeat { ballot: l.ballot, seq: l.round, commit: self.committed };
        let fed: Vec<MemberId> = l.peers.keys().copied().collect();
        for to in fed {
            self.send(to, heartbeat.clone());
        }
    }

    pub(crate) fn on_heartbeat_ack(&mut self, from: MemberId, ballot: Ballot, seq: u64, standing: Standing) {
        let now = self.now;
        let State::Leader(l) = &mut self.state else { return };
        if l.ballot != ballot {
            return;
        }
        assert!(seq <= l.round, "a round is answered after it was started");
        let Some(peer) = l.peers.get_mut(&from) else { return };
        peer.acked_seq = peer.acked_seq.max(seq);
        peer.acked_at = now;
        let patience = Millis(PATIENCE_HEARTBEATS * self.cfg.heartbeat.0);
        self.on_standing(from, standing, |peer, end| peer.show(end, now, patience));
        self.serve_reads();
    }

    pub(crate) fn on_have(&mut self, from: MemberId, ballot: Ballot, gap: bool, standing: Standing) {
        let (now, heartbeat) = (self.now, self.cfg.heartbeat);
        if matches!(&self.state, State::Leader(l) if l.ballot == ballot) {
            self.on_standing(from, standing, |peer, end| {
                peer.advance(end, now);
                if gap {
                    peer.complain(end, now, heartbeat);
                }
            });
        }
    }

    /// A follower has told where it stands; `shown` moves its stream.
    fn on_standing(&mut self, from: MemberId, s: Standing, shown: impl FnOnce(&mut Peer, Slot)) {
        self.see(s.promised);
        let now = self.now;
        let trimmed = self.log.trimmed();
        let State::Leader(l) = &mut self.state else { return };
        let ballot = l.ballot;
        if s.promised > ballot {
            self.counters.rejections += 1;
            self.press();
            return;
        }
        let Some(peer) = l.peers.get_mut(&from) else { return };
        if s.promised < ballot {
            self.ask_promise(from);
            return;
        }
        if s.accepted == ballot {
            peer.matched = peer.matched.max(s.durable);
            if peer.phase == Phase::Streaming {
                shown(peer, s.end.max(peer.matched));
            } else {
                peer.start_stream(s.end.max(peer.matched), now);
            }
            self.advance_commit();
            return;
        }
        match peer.phase {
            Phase::Syncing { base } => shown(peer, s.staged.max(base)),
            Phase::Behind if s.end < trimmed => {}
            _ if peer.matched > Slot::ZERO => {} // Overtaken by what it said later.
            _ => self.ask_promise(from),
        }
    }

    /// Asks a follower that is not synced for its promise, again, at most once per heartbeat.
    fn ask_promise(&mut self, member: MemberId) {
        let (now, heartbeat) = (self.now, self.cfg.heartbeat);
        let State::Leader(l) = &mut self.state else { return };
        let ballot = l.ballot;
        let Some(peer) = l.peers.get_mut(&member) else { return };
        if peer.matched > Slot::ZERO || peer.prepared_at.is_some_and(|at| now.0 - at.0 < heartbeat.0) {
            return;
        }
        peer.prepared_at = Some(now);
        if peer.phase != Phase::Behind {
            peer.phase = Phase::Unpromised;
        }
        let prepare = self.prepare(ballot);
        self.send(member, prepare);
    }

    pub(crate) fn on_accepted(&mut self, from: MemberId, ballot: Ballot, upto: Slot) {
        let State::Leader(l) = &mut self.state else { return };
        if l.ballot != ballot {
            return;
        }
        assert!(upto <= self.log.end(), "a follower has nothing that its leader has not");
        let Some(peer) = l.peers.get_mut(&from) else { return };
        peer.matched = peer.matched.max(upto);
        peer.advance(upto, self.now);
        if self.cfg.plant.double_count() {
            l.acks.push(upto);
        }
        self.advance_commit();
    }

    /// Commits what a quorum holds durably under our ballot. Our own disk is one voice of it, not a
    /// condition.
    pub(crate) fn advance_commit(&mut self) {
        let own = self.durable_as_accepted();
        let State::Leader(l) = &self.state else { return };
        assert!(self.accepted == l.ballot, "a leader has accepted its own ballot");
        let mut chosen = l.reached(&self.membership, own, |p| p.matched);
        if self.cfg.plant.double_count() {
            let voices = l.peers.values().map(|p| p.matched).chain([own]).chain(l.acks.iter().copied());
            chosen = nth_largest(voices.collect(), self.membership.majority());
        }
        if self.cfg.plant.half_is_enough() {
            let voice = |voter: &MemberId| l.peers.get(voter).map_or(own, |peer| peer.matched);
            let voters = &self.membership.voters;
            chosen = nth_largest(voters.iter().map(voice).collect(), voters.len().div_ceil(2));
        }
        if self.cfg.plant.learner_counted() {
            let holders = l.peers.values().map(|p| p.matched).chain([own]);
            chosen = nth_largest(holders.collect(), self.membership.majority());
        }
        if let Some(next) = &self.seal
            && !self.cfg.plant.seal_of_old_majority()
            && l.reached(next, own, |p| p.matched) < next.since
        {
            chosen = chosen.min(Slot(next.since.0 - 1)); // See `reconfig`: half of the next voters must hold it too.
        }
        self.learn_commit(chosen);
        self.serve_reads();
    }

    pub(crate) fn rewind_peer(&mut self, member: MemberId) {
        let now = self.now;
        let State::Leader(l) = &mut self.state else { return };
        let Some(peer) = l.peers.get_mut(&member) else { return };
        match peer.phase {
            Phase::Streaming => peer.rewind(peer.seen.max(peer.matched), now),
            Phase::Syncing { base } => peer.rewind(peer.seen.max(base), now),
            Phase::Unpromised | Phase::Behind => {}
        }
        peer.prepared_at = None;
    }

    /// Sends every follower what its window lets out, and the commit index if nothing else carries it.
    pub(crate) fn flush_leader(&mut self) {
        let State::Leader(l) = &self.state else { return };
        let fed: Vec<MemberId> = l.peers.keys().copied().collect();
        for member in fed {
            self.pump(member);
        }
        self.hand_over();
    }

    fn pump(&mut self, member: MemberId) {
        let (now, commit) = (self.now, self.committed);
        let limits = Limits {
            slots: self.cfg.window_slots,
            bytes: self.cfg.window_bytes,
            chunk: self.cfg.chunk_bytes,
        };
        let State::Leader(l) = &mut self.state else { return };
        let (ballot, sync_point) = (l.ballot, l.sync_point);
        let Some(peer) = l.peers.get_mut(&member) else { return };
        let mut messages = Vec::new();
        match peer.phase {
            Phase::Unpromised | Phase::Behind => {}
            _ if peer.next <= self.log.trimmed() => peer.phase = Phase::Behind,
            Phase::Syncing { base } => loop {
                let sync_point = sync_point.max(base);
                let from = peer.next;
                let entries = peer.take_chunk(&self.log, sync_point, limits, now);
                if entries.is_empty() && (peer.sync_begun || from <= sync_point) {
                    break;
                }
                peer.sync_begun = true;
                messages.push(Message::AcceptSync { ballot, base, sync_point, from, entries, commit });
            },
            Phase::Streaming => {
                loop {
                    let from = peer.next;
                    let entries = peer.take_chunk(&self.log, self.log.end(), limits, now);
                    if entries.is_empty() {
                        break;
                    }
                    peer.commit_sent = commit;
                    messages.push(Message::Accept { ballot, from, entries, commit });
                }
                if peer.commit_sent < commit {
                    peer.commit_sent = commit;
                    messages.push(Message::Commit { ballot, upto: commit });
                }
            }
        }
        for msg in messages {
            self.send(member, msg);
        }
    }

    fn hand_over(&mut self) {
        let end = self.log.end();
        let State::Leader(l) = &mut self.state else { return };
        let ballot = l.ballot;
        let Some(transfer) = l.transfer.as_mut().filter(|t| !t.told) else { return };
        let to = transfer.to;
        if l.peers.get(&to).is_some_and(|p| p.matched == end) {
            transfer.told = true;
            self.send(to, Message::TransferNow { ballot });
        }
    }
}
