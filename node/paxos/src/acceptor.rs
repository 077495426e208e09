//! The acceptor: promises, the staged sync of a new leader's prefix, appends, acknowledgements.
//!
//! Owns what happens to the log by another's word. Invariants: `accepted` is restamped only in the very
//! write that completes the adopted prefix; nothing at or below the commit index is ever cut; nothing is
//! acknowledged to a leader below the promise.

use crate::disk::Deferred;
use crate::log_view::LogView;
use crate::message::{Message, Run};
use crate::paxos::{Paxos, State};
use crate::types::{Ballot, Entry, LogOp, MemberId, Membership, Slot};

/// A sync that is not complete: kept outside the log, for a log with a new stamp and half its prefix would
/// outvote a longer committed one. It holds what the leader's untrimmed log holds at most.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Stage {
    ballot: Ballot,
    base: Slot,
    sync_point: Slot,
    entries: Vec<Entry>,
}

impl Stage {
    pub(crate) fn end(&self) -> Slot {
        Slot(self.base.0 + self.entries.len() as u64)
    }

    /// Takes what continues it; false when something is missing before `from`.
    fn extend(&mut self, from: Slot, entries: Vec<Entry>) -> bool {
        if from > self.end().next() {
            return false;
        }
        for entry in entries {
            if entry.slot > self.end() && entry.slot <= self.sync_point {
                self.entries.push(entry);
            }
        }
        true
    }
}

impl Paxos {
    pub(crate) fn on_prepare(
        &mut self,
        ballot: Ballot,
        theirs: (Ballot, Slot),
        committed: Slot,
        runs: &[Run],
    ) {
        let candidate = ballot.member;
        if ballot < self.promised {
            self.send(candidate, Message::Reject { ballot, promised: self.promised });
            return;
        }
        if ballot == self.promised && self.disk.promise_waits(ballot) {
            return; // Asked again before the first answer is durable.
        }
        if ballot > self.promised {
            self.promise(ballot);
            self.announce();
        }
        let msg = self.build_promise(ballot, theirs, committed, runs);
        if self.cfg.plant.promise_forgets() {
            self.send(candidate, msg);
            return;
        }
        self.when_durable(Deferred::Promise { to: candidate, ballot, msg });
    }

    /// Reports everything issued, durable or not: the promise goes out after all of it.
    fn build_promise(
        &self,
        ballot: Ballot,
        theirs: (Ballot, Slot),
        their_commit: Slot,
        runs: &[Run],
    ) -> Message {
        let (accepted, end) = (self.accepted, self.log.end());
        let mut base = Slot::ZERO;
        let mut entries = Vec::new();
        if (accepted, end) > theirs {
            base = self.common_with(theirs, their_commit, runs).min(end);
            if base >= self.log.trimmed() {
                entries = self.log.chunk(base.next(), end, self.cfg.chunk_bytes, usize::MAX);
            }
        }
        Message::Promise {
            ballot,
            accepted,
            end,
            committed: self.committed,
            trimmed: self.log.trimmed(),
            runs: self.log.last_runs(),
            base,
            entries,
        }
    }

    /// Up to where our log surely equals that of a member with this (accepted, end).
    pub(crate) fn common_with(&self, theirs: (Ballot, Slot), committed: Slot, runs: &[Run]) -> Slot {
        let same_leader = if theirs.0 == self.accepted { theirs.1 } else { Slot::ZERO };
        let common = self.log.common_prefix(runs).max(same_leader).max(committed);
        common.min(self.log.end()).min(theirs.1)
    }

    pub(crate) fn on_fetch(&mut self, from: MemberId, ballot: Ballot, slot: Slot) {
        if ballot < self.promised {
            self.send(from, Message::Reject { ballot, promised: self.promised });
        } else if ballot == self.promised && self.accepted < ballot && slot > self.log.trimmed() {
            let entries = self.log.chunk(slot, self.log.end(), self.cfg.chunk_bytes, usize::MAX);
            self.send(from, Message::Fetched { ballot, from: slot, entries });
        }
    }

    /// Whether the sender of `ballot` is our leader. Keeps note that a leader lives.
    fn heed(&mut self, ballot: Ballot) -> bool {
        if ballot < self.promised {
            self.send(ballot.member, Message::Reject { ballot, promised: self.promised });
            return false;
        }
        if ballot > self.promised && !matches!(self.state, State::Follower) {
            self.leave_office(); // A quorum has promised more than ours.
        }
        assert!(!self.is_leader(), "no other member speaks in our ballot");
        self.contact = Some(self.now);
        self.canvass = None;
        self.gave_way = false;
        self.pressing = false;
        self.put_deadline_off();
        let heeded = ballot == self.promised;
        if heeded {
            self.leader = Some(ballot.member);
        }
        self.announce();
        heeded
    }

    fn report(&mut self, ballot: Ballot, gap: bool) {
        self.send(ballot.member, Message::Have { ballot, gap, standing: self.standing() });
    }

    /// Reports a gap once, then again when it lasts or moves.
    fn report_gap(&mut self, ballot: Ballot, end: Slot) {
        let fresh = self
            .gap_reported
            .is_none_or(|(at, when)| at != end || self.now.0 - when.0 >= self.cfg.heartbeat.0);
        if fresh {
            self.gap_reported = Some((end, self.now));
            self.report(ballot, true);
        }
    }

    pub(crate) fn on_accept_sync(
        &mut self,
        ballot: Ballot,
        base: Slot,
        sync_point: Slot,
        from: Slot,
        entries: Vec<Entry>,
        commit: Slot,
    ) {
        if !self.heed(ballot) {
            self.report_unless_lower(ballot);
            return;
        }
        if self.accepted == ballot && !self.cfg.plant.truncate_committed() {
            self.report(ballot, false); // Repeated or late: the prefix is there.
            return;
        }
        // A state that was installed reaches beyond the prefix that this leader adopted: it comes from this leader,
        // which then starts its sync there, or from a later one.
        if base > self.log.end() || sync_point < base || sync_point < self.log.trimmed() {
            self.report(ballot, false);
            return;
        }
        let mut stage = match self.stage.take() {
            Some(stage) if stage.ballot == ballot => stage,
            _ => Stage { ballot, base, sync_point, entries: Vec::new() },
        };
        let contiguous = stage.extend(from, entries);
        if stage.end() < stage.sync_point && !self.cfg.plant.early_restamp() {
            let end = stage.end();
            self.stage = Some(stage);
            if contiguous {
                self.report(ballot, false)
            } else {
                self.report_gap(ballot, end)
            }
            return;
        }
        let end = stage.end();
        self.restamp(ballot, stage.base, end, stage.entries);
        self.learn_commit(commit.min(self.log.end()));
        self.report(ballot, false);
    }

    fn report_unless_lower(&mut self, ballot: Ballot) {
        if ballot > self.promised {
            self.report(ballot, false);
        }
    }

    /// Takes the prefix of the leader of `ballot`: equal to our log up to `base`, then `entries`, up to
    /// `end`. Cut, appends and the new stamp go into one write.
    pub(crate) fn restamp(&mut self, ballot: Ballot, base: Slot, end: Slot, entries: Vec<Entry>) {
        assert!(ballot == self.promised, "only the promised ballot is accepted");
        assert!(ballot > self.accepted || self.cfg.plant != crate::Plant::None, "a prefix is adopted once");
        if self.cfg.plant.stamp_before_prefix() {
            self.accepted = ballot;
            self.disk.push(LogOp::Accepted(ballot));
            self.issue_write();
        }
        let differs = entries.iter().find(|e| !self.log.matches(e.slot, e.ballot)).map(|e| e.slot);
        let mut cut = differs.unwrap_or(end.next());
        if self.cfg.plant.truncate_committed() {
            cut = base.next().max(self.log.trimmed().next());
        } else {
            assert!(cut > self.committed, "what is committed is never cut");
        }
        if cut <= self.log.end() {
            self.log.truncate(cut);
            self.note_cut(cut);
            if !self.cfg.plant.cut_not_written() {
                self.disk.push(LogOp::Truncate { from: cut });
            }
        }
        for entry in entries {
            if entry.slot >= cut && entry.slot > self.log.end() {
                self.append(entry);
            }
        }
        assert!(self.log.end() == end, "the adopted prefix is whole before it is stamped");
        self.accepted = ballot;
        self.disk.push(LogOp::Accepted(ballot));
        self.stage = None;
        self.enter(ballot.config);
    }

    /// The state as of `upto`, which is chosen, is in this member's store; `complete` is the ballot under
    /// which it was chosen when that leader's own first entry is not above it.
    ///
    /// What the log holds up to there is of no more use, and may never have been chosen. Then the log is a
    /// prefix of the complete ballot's, and what it holds beyond is not: that leader did not adopt it, so it
    /// was not chosen. Without a complete ballot the stamp stays and so does what is beyond; if the stamp is
    /// below the ballot that chose `upto`, it decides no election, for a majority has accepted that one.
    ///
    /// `membership` is that of the state: of the last seal in it.
    ///
    /// # Panics
    /// If this member leads and its log does not reach `upto`.
    pub fn install(&mut self, upto: Slot, complete: Option<Ballot>, membership: &Membership) {
        if self.stopped() || upto <= self.committed {
            return;
        }
        if self.is_leader() {
            assert!(upto <= self.log.end(), "whoever leads has adopted all that was chosen");
            return;
        }
        if !matches!(self.state, State::Follower) {
            self.leave_office();
            self.announce();
        }
        self.gap_reported = None;
        self.stage = None;
        let stale = complete.is_some_and(|ballot| self.accepted < ballot);
        if stale || self.log.end() < upto {
            self.log = LogView::new(upto, Vec::new());
            self.disk.push(LogOp::Reset { after: upto });
            self.seal = None;
        } else {
            self.log.trim(upto);
        }
        if let Some(ballot) = complete.filter(|ballot| stale && *ballot == self.promised) {
            self.accepted = ballot;
            self.disk.push(LogOp::Accepted(ballot));
        }
        if membership.config > self.membership.config {
            self.membership = membership.clone();
            self.seal = None;
        }
        self.learn_commit(upto);
        if let Some(ballot) = complete.filter(|ballot| *ballot == self.promised) {
            self.report(ballot, false);
        }
    }

    pub(crate) fn append(&mut self, entry: Entry) {
        self.note_appended(&entry);
        self.disk.push(LogOp::Append(entry.clone()));
        self.log.append(entry);
    }

    pub(crate) fn on_accept(&mut self, ballot: Ballot, from: Slot, entries: Vec<Entry>, commit: Slot) {
        if !self.heed(ballot) {
            self.report_unless_lower(ballot);
            return;
        }
        if self.accepted != ballot || from > self.log.end().next() {
            self.report_gap(ballot, self.log.end());
            return;
        }
        let before = self.log.end();
        for entry in entries {
            if entry.slot > self.log.end() {
                self.append(entry);
            } else {
                assert!(
                    self.log.matches(entry.slot, entry.ballot),
                    "a leader's log never changes in its ballot"
                );
            }
        }
        if self.log.end() == before {
            self.ack_due = true; // All known: perhaps the acknowledgement was lost.
        }
        self.gap_reported = None;
        self.learn_commit(commit.min(self.log.end()));
    }

    pub(crate) fn on_commit(&mut self, ballot: Ballot, upto: Slot) {
        if self.accepted == ballot && self.promised == ballot {
            self.learn_commit(upto.min(self.log.end()));
        }
    }

    pub(crate) fn on_heartbeat(&mut self, ballot: Ballot, seq: u64, commit: Slot) {
        let heeded = self.heed(ballot);
        if ballot < self.promised {
            return;
        }
        if heeded {
            self.on_commit(ballot, commit);
        }
        self.send(ballot.member, Message::HeartbeatAck { ballot, seq, standing: self.standing() });
    }

    /// Tells the leader what has become durable. A completion that arrives after a higher promise tells
    /// nobody: the promise has covered it.
    pub(crate) fn flush_acceptor(&mut self) {
        let due = std::mem::take(&mut self.ack_due);
        if !due || self.is_leader() || self.accepted.member == self.cfg.me {
            return;
        }
        let upto = self.durable_as_accepted();
        if self.follows_what_it_accepted() && upto > Slot::ZERO && self.accepted.round > 0 {
            self.send(self.accepted.member, Message::Accepted { ballot: self.accepted, upto });
        }
    }
}
