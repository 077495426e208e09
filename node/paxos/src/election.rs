//! Canvass, candidacy, adoption.
//!
//! Owns when a member stands and which log it takes. Invariants: nobody hears of a ballot before its
//! owner's promise is durable, so no restart opens it again; a leader adopts once, the log of the highest
//! (accepted, end) of one quorum, whole. Freshness only orders candidates, it never bars one: under a
//! partial partition the freshest may be the one that cannot lead (Omni-Paxos, EuroSys'23, section 3).

use crate::disk::Deferred;
use crate::leader::Leadership;
use crate::message::{Message, Run};
use crate::paxos::{Paxos, State};
use crate::plant::Plant;
use crate::types::{Ballot, ConfigNo, Entry, EntryKind, LogOp, MemberId, Millis, Slot};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// A canvass that waits for answers.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Canvass {
    nonce: u64,
    willing: BTreeSet<MemberId>,
    /// Someone connected has more than we have.
    fresher: bool,
}

/// What an acceptor promised with.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Promised {
    pub(crate) accepted: Ballot,
    pub(crate) end: Slot,
    pub(crate) committed: Slot,
    trimmed: Slot,
    pub(crate) runs: Vec<Run>,
    base: Slot,
    entries: Vec<Entry>,
}

/// The log being taken over from a promiser.
#[derive(Clone, Debug, Hash)]
struct Adoption {
    from: MemberId,
    accepted: Ballot,
    base: Slot,
    end: Slot,
    entries: Vec<Entry>,
}

impl Adoption {
    fn reached(&self) -> Slot {
        Slot(self.base.0 + self.entries.len() as u64)
    }
}

/// A ballot that waits for its quorum.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Candidacy {
    ballot: Ballot,
    /// Our own promise is durable.
    prepared: bool,
    /// By member: the same promise twice is one.
    promises: BTreeMap<MemberId, Promised>,
    adoption: Option<Adoption>,
    resend_at: Millis,
}

impl Candidacy {
    /// See [`Paxos::forget`].
    pub(crate) fn forget(&mut self, clock: &impl Fn(&mut Millis)) {
        clock(&mut self.resend_at);
    }
}

impl Paxos {
    pub(crate) fn tick_follower(&mut self) {
        if self.now < self.deadline {
            return;
        }
        if self.leader.take().is_some() {
            self.fail_all_reads();
            self.announce();
        }
        if !self.is_voter() {
            self.wait_without_vote();
        } else if self.pressing {
            self.stand();
        } else {
            self.start_canvass();
        }
    }

    fn start_canvass(&mut self) {
        let nonce = self.draw();
        self.canvass = Some(Canvass { nonce, willing: BTreeSet::from([self.cfg.me]), fresher: false });
        self.retry_soon(self.cfg.election.0 / 2);
        let config = self.membership.config;
        if self.membership.since > Slot(1) {
            self.tell_chosen(); // They may still heed a leader of the configuration before.
        }
        self.broadcast(&Message::Canvass { nonce, config, accepted: self.accepted, end: self.log.end() });
        self.conclude_canvass();
    }

    /// The next try comes after two heartbeats and up to `spread`.
    fn retry_soon(&mut self, spread: u64) {
        let jitter = self.jitter(spread);
        self.deadline = Millis(self.now.0 + 2 * self.cfg.heartbeat.0 + jitter);
    }

    /// The leader's connection broke: unless it is heard within two heartbeats, it counts as silent for a
    /// whole election timeout. Others who hear it are not willing, so a broken connection alone unseats
    /// nobody.
    pub(crate) fn doubt_leader(&mut self) {
        let grace = 2 * self.cfg.heartbeat.0;
        let doubted = Millis((self.now.0 + grace).saturating_sub(self.cfg.election.0));
        self.contact = self.contact.map(|at| at.min(doubted));
        let jitter = self.jitter(grace);
        let deadline = Millis(self.now.0 + grace + self.cfg.heartbeat.0 / 2 + jitter);
        self.deadline = self.deadline.min(deadline);
    }

    pub(crate) fn on_canvass(
        &mut self,
        from: MemberId,
        nonce: u64,
        config: ConfigNo,
        theirs: (Ballot, Slot),
    ) {
        if self.is_over(config, from) {
            return;
        }
        let mine = (self.accepted, self.log.end());
        let silent = self.contact.is_none_or(|at| self.now.0 - at.0 >= self.cfg.election.0);
        let could = self.log.end() > Slot::ZERO;
        let willing = silent && could && !self.is_leader();
        if willing && mine > theirs && matches!(self.state, State::Follower) && self.canvass.is_none() {
            self.deadline = self.now; // The asker gives way once, so do not let it wait.
        }
        let reply = Message::CanvassReply {
            nonce,
            willing,
            accepted: self.accepted,
            end: self.log.end(),
            trimmed: self.log.trimmed(),
            connected: self.hears_quorum(),
            promised: self.promised,
        };
        self.send(from, reply);
    }

    fn hears_quorum(&self) -> bool {
        let recent = |at: &&Millis| self.now.0 - at.0 < self.cfg.election.0;
        self.membership
            .is_quorum(|voter| voter == self.cfg.me || self.heard.get(&voter).filter(recent).is_some())
    }

    pub(crate) fn on_canvass_reply(
        &mut self,
        from: MemberId,
        nonce: u64,
        willing: bool,
        connected: bool,
        theirs: (Ballot, Slot),
        trimmed: Slot,
    ) {
        let mine = (self.accepted, self.log.end());
        let votes = self.membership.has(from);
        let Some(canvass) = self.canvass.as_mut().filter(|c| votes && c.nonce == nonce) else { return };
        if trimmed > mine.1 {
            self.canvass = None; // What it trimmed is chosen: every quorum has more than we can fetch.
            self.give_up("behind what a peer has trimmed");
            return;
        }
        if willing {
            canvass.willing.insert(from);
            canvass.fresher |= connected && theirs > mine;
        }
        self.conclude_canvass();
    }

    fn conclude_canvass(&mut self) {
        let membership = &self.membership;
        let enough = |c: &mut Canvass| membership.is_quorum(|voter| c.willing.contains(&voter));
        let Some(canvass) = self.canvass.take_if(enough) else { return };
        if canvass.fresher && !self.gave_way {
            self.gave_way = true;
            self.retry_soon(self.cfg.heartbeat.0);
        } else {
            self.stand();
        }
    }

    /// Opens a ballot above all that were promised or seen.
    pub(crate) fn stand(&mut self) {
        assert!(matches!(self.state, State::Follower), "only a follower stands");
        if !self.is_voter() {
            return self.give_up("without a vote");
        }
        self.gave_way = false;
        self.pressing = false;
        let config = self.membership.config;
        let reuse = self.cfg.plant.ballot_reuse();
        let floor = if reuse { self.promised } else { self.promised.max(self.seen) };
        let round = if floor.config < config { Some(1) } else { floor.round.checked_add(1) };
        let Some(round) = round.filter(|_| floor.config <= config) else {
            self.give_up("a later configuration or the last round was seen");
            return;
        };
        let ballot = Ballot { config, round, member: self.cfg.me };
        self.counters.elections += 1;
        self.promise(ballot);
        self.state = State::Candidate(Candidacy {
            ballot,
            prepared: false,
            promises: BTreeMap::new(),
            adoption: None,
            resend_at: Millis(self.now.0 + self.cfg.heartbeat.0),
        });
        self.announce();
        if reuse {
            self.on_own_promise(ballot);
            return;
        }
        self.when_durable(Deferred::Stand(ballot));
    }

    pub(crate) fn on_own_promise(&mut self, ballot: Ballot) {
        let own = Promised {
            accepted: self.accepted,
            end: self.log.end(),
            committed: self.committed,
            trimmed: self.log.trimmed(),
            runs: Vec::new(),
            base: Slot::ZERO,
            entries: Vec::new(),
        };
        let State::Candidate(c) = &mut self.state else { return };
        if c.ballot != ballot {
            return;
        }
        c.prepared = true;
        c.promises.insert(self.cfg.me, own);
        let prepare = self.prepare(ballot);
        self.broadcast(&prepare);
        self.try_adopt();
    }

    pub(crate) fn prepare(&self, ballot: Ballot) -> Message {
        Message::Prepare {
            ballot,
            accepted: self.accepted,
            end: self.log.end(),
            committed: self.committed,
            since: self.membership.since,
            by: self.membership.by,
            runs: self.log.last_runs(),
        }
    }

    pub(crate) fn tick_candidate(&mut self) {
        if self.now >= self.deadline {
            self.leave_office();
            self.announce();
            return;
        }
        let State::Candidate(c) = &mut self.state else { return };
        if self.now < c.resend_at || !c.prepared {
            return;
        }
        c.resend_at = Millis(self.now.0 + self.cfg.heartbeat.0);
        let ballot = c.ballot;
        let silent: Vec<MemberId> =
            self.membership.voters.iter().copied().filter(|m| !c.promises.contains_key(m)).collect();
        let prepare = self.prepare(ballot);
        for to in silent {
            self.send(to, prepare.clone());
        }
        self.fetch_rest();
    }

    pub(crate) fn on_promise(&mut self, from: MemberId, promise: Message) {
        let Message::Promise { ballot, accepted, end, committed, trimmed, runs, base, entries } = promise
        else {
            return;
        };
        if ballot != self.promised {
            return;
        }
        let promised = Promised { accepted, end, committed, trimmed, runs, base, entries };
        match &mut self.state {
            State::Candidate(c) if c.ballot == ballot && self.membership.has(from) => {
                assert!(accepted < ballot, "nobody accepts a ballot before its leader has adopted");
                assert!(committed <= end, "a commit index is within its log");
                c.promises.entry(from).or_insert(promised);
                if self.cfg.plant.commit_from_promise() {
                    self.learn_commit(committed.min(self.log.end()));
                }
                self.try_adopt();
            }
            State::Leader(l) if l.ballot == ballot => self.on_late_promise(from, &promised),
            _ => {}
        }
    }

    /// With a quorum: chooses whose log to take, once, and takes it.
    fn try_adopt(&mut self) {
        let State::Candidate(c) = &mut self.state else { return };
        if !c.prepared || !self.membership.is_quorum(|voter| c.promises.contains_key(&voter)) {
            return;
        }
        if c.adoption.is_none() {
            match choose(self.cfg.me, c.ballot.config, &mut c.promises, self.cfg.plant) {
                Ok(adoption) => c.adoption = Some(adoption),
                Err(reason) => {
                    self.leave_office();
                    self.give_up(reason);
                    return;
                }
            }
            self.fetch_rest();
        }
        self.adopt_when_whole();
    }

    fn fetch_rest(&mut self) {
        let State::Candidate(c) = &self.state else { return };
        let Some(a) = c.adoption.as_ref().filter(|a| a.reached() < a.end) else { return };
        let (to, msg) = (a.from, Message::Fetch { ballot: c.ballot, from: a.reached().next() });
        self.send(to, msg);
    }

    pub(crate) fn on_fetched(&mut self, from: MemberId, ballot: Ballot, slot: Slot, entries: Vec<Entry>) {
        let State::Candidate(c) = &mut self.state else { return };
        let Some(a) = c.adoption.as_mut().filter(|a| a.from == from && c.ballot == ballot) else { return };
        if slot != a.reached().next() || entries.is_empty() {
            return;
        }
        let room = (a.end.0 - a.reached().0) as usize;
        a.entries.extend(entries.into_iter().take(room));
        self.fetch_rest();
        self.adopt_when_whole();
    }

    fn adopt_when_whole(&mut self) {
        let State::Candidate(c) = &mut self.state else { return };
        if c.adoption.as_ref().is_none_or(|a| a.reached() < a.end) {
            return;
        }
        let adoption = c.adoption.take().expect("its end was just compared");
        let promises = std::mem::take(&mut c.promises);
        let ballot = c.ballot;
        assert!(self.membership.is_quorum(|voter| promises.contains_key(&voter)), "a leader has a quorum");
        self.lead(ballot, adoption, &promises);
    }

    fn lead(&mut self, ballot: Ballot, adoption: Adoption, promises: &BTreeMap<MemberId, Promised>) {
        let Adoption { accepted, base, end, entries, .. } = adoption;
        if self.cfg.plant.ballot_reuse() {
            self.disk.push(LogOp::Promised(ballot));
        }
        self.restamp(ballot, base, end, entries);
        if self.seal.is_none() {
            let slot = end.next();
            self.append(Entry { slot, ballot, kind: EntryKind::EpochStart, payload: Bytes::new() });
        }
        let mut leadership = Leadership::new(ballot, accepted, end, &self.fed(), self.now);
        let plans: Vec<_> = promises
            .iter()
            .filter(|(m, _)| **m != self.cfg.me)
            .map(|(m, p)| (*m, self.sync_base(accepted, end, p)))
            .collect();
        for (member, base) in plans {
            leadership.plan(member, base, self.log.trimmed(), self.now);
        }
        self.state = State::Leader(leadership);
        self.announce();
        // Every claim of a commit is true of a chosen prefix, and the adopted log has all that is chosen.
        let known = promises.values().map(|p| p.committed).max().unwrap_or_default();
        assert!(known <= end, "what is committed is in the adopted log");
        self.learn_commit(known);
        self.start_round();
    }

    /// Notes why this member does not lead and waits a full timeout.
    fn give_up(&mut self, reason: &'static str) {
        self.counters.last_refusal = Some(reason);
        self.put_deadline_off();
        self.announce();
    }

    pub(crate) fn on_reject(&mut self, ballot: Ballot, promised: Ballot) {
        self.see(promised);
        if promised <= ballot {
            return;
        }
        match &self.state {
            State::Candidate(c) if c.ballot == ballot => {
                self.counters.rejections += 1;
                self.leave_office();
                self.retry_soon(self.cfg.election.0 / 2);
                self.announce();
            }
            State::Leader(l) if l.ballot == ballot => {
                self.counters.rejections += 1;
                self.press();
            }
            _ => {}
        }
    }

    /// A voter has promised more than our ballot and can never follow it: lead in a higher one, unless the
    /// one who opened that ballot is heard first.
    pub(crate) fn press(&mut self) {
        self.leave_office();
        self.pressing = true;
        self.retry_soon(self.cfg.heartbeat.0);
        self.announce();
    }

    pub(crate) fn on_transfer_now(&mut self, ballot: Ballot) {
        let current = ballot == self.promised && ballot == self.accepted;
        if current && matches!(self.state, State::Follower) {
            self.stand();
        }
    }
}

/// The log of the highest (accepted, end); our own among equals, since it costs nothing. Logs that were stamped in an
/// older configuration are equals: none of them has more that is chosen than ours, which reaches to the seal at least.
fn choose(
    me: MemberId,
    config: ConfigNo,
    promises: &mut BTreeMap<MemberId, Promised>,
    plant: Plant,
) -> Result<Adoption, &'static str> {
    let stamp = |p: &Promised| (p.accepted.config >= config).then_some((p.accepted, p.end));
    let length = |p: &Promised| plant.longest_log_wins().then_some(p.end);
    let rank = |m: MemberId, p: &Promised| (length(p), stamp(p), m == me, std::cmp::Reverse(m));
    let best = promises.iter().max_by_key(|(m, p)| rank(**m, p)).map(|(m, _)| *m);
    let from = best.expect("a quorum has at least the candidate");
    let p = promises.get_mut(&from).expect("it was just found");
    let base = if from == me { p.end } else { p.base };
    if base < p.trimmed {
        return Err("behind what the freshest promiser has trimmed");
    }
    Ok(Adoption { from, accepted: p.accepted, base, end: p.end, entries: std::mem::take(&mut p.entries) })
}
