//! From one configuration to the next.
//!
//! A configuration ends with its seal, the entry that names the next voters: nothing follows it in its own
//! configuration. It counts as chosen only when a majority of the old voters *and* one of the new hold it durably, so
//! that whoever knows the old configuration to be over knows that the new one can go on. From then on the old one is
//! not led any more, and the new one begins as every ballot does: with a Prepare, to the new voters. One that lacks the
//! seal promises too, or a majority of the new voters could be there and go on with nobody; but what it holds is of an
//! older configuration and is never adopted. New voters come as learners, whom the leader feeds and nobody counts.
//!
//! Owns the pending seal, the step over it, and those who are told. Invariants: a ballot of a configuration is opened
//! only where its seal is known to be chosen; a seal is the last entry of its configuration in every log.

use crate::message::Message;
use crate::output::ReconfigError;
use crate::paxos::{Paxos, State};
use crate::peer::{Peer, Phase};
use crate::types::{Ballot, ConfigNo, Entry, MAX_ENTRY_BYTES, MemberId, Membership, Slot};
use std::collections::BTreeSet;

impl Paxos {
    /// Who votes, as of the last seal that this member knows to be chosen.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Whether this member votes.
    #[must_use]
    pub fn is_voter(&self) -> bool {
        self.membership.has(self.cfg.me)
    }

    /// Whether the log ends with a seal that is not known to be chosen.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.seal.is_some()
    }

    /// Whom this member sends the log when it leads, beside the voters. They are not counted.
    pub fn set_learners(&mut self, learners: impl IntoIterator<Item = MemberId>) {
        self.learners = learners.into_iter().filter(|member| *member != self.cfg.me).collect();
        let (fed, now) = (self.fed(), self.now);
        if let State::Leader(l) = &mut self.state {
            l.peers.retain(|member, _| fed.contains(member));
            for member in fed {
                l.peers.entry(member).or_insert_with(|| Peer::new(now));
            }
        }
    }

    /// All others that a leader sends the log.
    pub(crate) fn fed(&self) -> BTreeSet<MemberId> {
        let next = self.seal.iter().flat_map(|next| &next.voters);
        let all = self.membership.voters.iter().chain(next).chain(&self.learners);
        all.copied().filter(|member| *member != self.cfg.me).collect()
    }

    /// Which configuration the recovered log leads to. A seal is chosen if the log was stamped in the configuration that
    /// it begins. A promise there says nothing of the seal in this log, which may be another than the one chosen.
    pub(crate) fn recover_membership(&mut self) {
        let first = self.log.trimmed().next();
        let mut slot = first;
        while let Some(entry) = self.log.get(slot) {
            let next = entry.seals().map(|(next, _)| next);
            if let Some(next) = next.filter(|next| next.config > self.membership.config) {
                let open = slot > self.committed && self.accepted.config < next.config;
                if open && !self.cfg.plant.seal_at_restart() {
                    self.seal = Some(next);
                    return;
                }
                self.committed = self.committed.max(slot);
                self.membership = next;
            }
            slot = slot.next();
        }
    }

    /// Ends this configuration, as its leader: the next has these voters. `rest` travels with the seal and means
    /// nothing to the core. No proposal is taken until a leader of the next configuration is there.
    ///
    /// # Errors
    /// When this member cannot do it, or the voters could not go on by themselves.
    pub fn reconfigure(&mut self, voters: &[MemberId], rest: &[u8]) -> Result<Slot, ReconfigError> {
        let mut voters = voters.to_vec();
        voters.sort_unstable();
        voters.dedup();
        self.check_reconfigure(&voters)?;
        let State::Leader(l) = &self.state else { return Err(ReconfigError::NotLeading) };
        let config = ConfigNo(self.membership.config.0 + 1);
        let slot = self.log.end().next();
        let seal = Entry::seal(slot, l.ballot, config, &voters, rest);
        if seal.payload.len() > MAX_ENTRY_BYTES {
            return Err(ReconfigError::TooLarge);
        }
        self.append(seal);
        self.set_learners(self.learners.clone());
        Ok(slot)
    }

    fn check_reconfigure(&self, voters: &[MemberId]) -> Result<(), ReconfigError> {
        let State::Leader(l) = &self.state else { return Err(ReconfigError::NotLeading) };
        let sealed = self.seal.is_some() && !self.cfg.plant.two_seals();
        if sealed || !l.is_settled(self.committed) {
            return Err(ReconfigError::Busy);
        }
        if voters.is_empty() {
            return Err(ReconfigError::NoVoters);
        }
        if voters == self.membership.voters {
            return Err(ReconfigError::Unchanged);
        }
        let ready = |member: MemberId| {
            self.membership.has(member) || l.peers.get(&member).is_some_and(|peer| self.keeps_up(peer))
        };
        match voters.iter().find(|member| !ready(**member)) {
            Some(member) => Err(ReconfigError::Behind(*member)),
            None => Ok(()),
        }
    }

    /// Whether all that this member was told, promised or accepted is durable.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.disk.is_idle()
    }

    /// Whether a learner has all but what was proposed last, and answers.
    pub(crate) fn keeps_up(&self, peer: &Peer) -> bool {
        peer.phase == Phase::Streaming
            && peer.matched.0 + self.cfg.window_slots as u64 >= self.log.end().0
            && self.now.0 - peer.acked_at.0 < self.cfg.election.0
    }

    /// What a log's new end means for the seal: it is the last entry, or not there.
    pub(crate) fn note_appended(&mut self, entry: &Entry) {
        self.enter(entry.ballot.config);
        let alone = self.seal.is_none() || self.cfg.plant.two_seals();
        assert!(alone, "nothing follows a seal in its configuration");
        let Some((next, _)) = entry.seals() else { return };
        if next.config > self.membership.config {
            self.seal = Some(next);
        }
    }

    /// The log was cut from there on.
    pub(crate) fn note_cut(&mut self, from: Slot) {
        self.seal.take_if(|next| next.since >= from && !self.cfg.plant.seal_outlives_cut());
    }

    /// What a leader of that configuration has adopted, or proposed, stands behind its seal: that is chosen.
    pub(crate) fn enter(&mut self, config: ConfigNo) {
        if let Some(next) = self.seal.as_ref().filter(|next| next.config <= config) {
            self.learn_commit(next.since);
        }
    }

    /// Steps over the seal once it is known to be chosen.
    pub(crate) fn pass_seal(&mut self) {
        let Some(next) = self.seal.take_if(|next| next.since <= self.committed) else { return };
        assert!(next.since == self.committed, "nothing follows a seal in its configuration");
        self.membership = next;
        match &self.state {
            State::Follower => {}
            State::Candidate(_) => self.leave_office(),
            State::Leader(_) => self.hand_on(),
        }
        self.canvass = None;
        self.announce();
    }

    /// The leader of the old configuration opens the first ballot of the next, or has another voter open it.
    fn hand_on(&mut self) {
        self.tell_chosen();
        let State::Leader(l) = &self.state else { return };
        let ballot = l.ballot;
        let heirs = l.peers.iter().filter(|(member, _)| self.membership.has(**member));
        let heir =
            heirs.max_by_key(|(member, peer)| (peer.matched, peer.acked_at, std::cmp::Reverse(**member)));
        let heir = heir.map(|(member, _)| *member);
        self.leave_office();
        if self.is_voter() {
            self.stand();
        } else if let Some(to) = heir {
            self.send(to, Message::TransferNow { ballot });
        }
    }

    /// Tells all who can be reached where this configuration begins.
    pub(crate) fn tell_chosen(&mut self) {
        let (slot, ballot) = (self.membership.since, self.membership.by);
        let fed = match &self.state {
            State::Leader(l) => l.peers.keys().copied().collect(),
            _ => self.fed(),
        };
        for to in fed {
            self.send(to, Message::Chosen { slot, ballot });
        }
    }

    /// Someone asks in a configuration that is over: it is told so.
    pub(crate) fn is_over(&mut self, config: ConfigNo, asker: MemberId) -> bool {
        let over = config < self.membership.config;
        if over {
            let (slot, ballot) = (self.membership.since, self.membership.by);
            self.send(asker, Message::Chosen { slot, ballot });
        }
        over
    }

    /// Whoever leads a configuration that is over is told so, and has nothing more to say to those who promised it; others
    /// reject it as ever, for it may lack the seal and has to give way all the same. Its hand-over counts.
    pub(crate) fn comes_late(&mut self, from: MemberId, msg: &Message) -> bool {
        match msg {
            Message::AcceptSync { ballot, .. }
            | Message::Accept { ballot, .. }
            | Message::Heartbeat { ballot, .. } => {
                self.is_over(ballot.config, from) && *ballot >= self.promised
            }
            _ => false,
        }
    }

    pub(crate) fn on_chosen(&mut self, slot: Slot, ballot: Ballot) {
        if slot > self.committed && self.log.matches(slot, ballot) {
            self.learn_commit(slot);
        }
    }

    /// Whether this member may promise a ballot of that configuration, which begins after the entry (since, by). That
    /// is chosen, for the ballot was opened. A log that holds nothing promises nothing.
    pub(crate) fn enters(&mut self, config: ConfigNo, since: Slot, by: Ballot) -> bool {
        let holds = |next: &&Membership| (next.config, next.since, next.by) == (config, since, by);
        if self.seal.as_ref().filter(holds).is_some() {
            self.learn_commit(since);
        }
        self.log.end() > Slot::ZERO
    }

    pub(crate) fn on_lacks(&mut self, from: MemberId, ballot: Ballot) {
        let State::Leader(l) = &mut self.state else { return };
        if l.ballot == ballot
            && let Some(peer) = l.peers.get_mut(&from)
            && peer.matched == Slot::ZERO
        {
            peer.phase = Phase::Behind;
        }
    }

    /// A state comes from the leader of that ballot, whose Prepare this member could not answer if its log holds nothing.
    /// From now on nothing is acknowledged to a lower one: what the state replaces is not what
    /// that one counts on. To be durable before the state is.
    pub fn await_state(&mut self, ballot: Ballot) {
        self.see(ballot);
        if !self.stopped() && ballot > self.promised {
            self.promise(ballot);
            self.announce();
        }
    }

    /// Without a vote there is nothing to stand for; but whoever knows that the configuration has begun says so, for
    /// it may be the only one who does.
    pub(crate) fn wait_without_vote(&mut self) {
        if self.membership.since > Slot(1) {
            self.tell_chosen();
        }
        self.put_deadline_off();
    }
}
