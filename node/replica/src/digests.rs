//! Whether members that applied the same log hold the same state.
//!
//! Owns the digests of late, who differs, and the repair of this member. Must not know how a digest comes about.
//! Invariants: only digests of one slot and one version are compared; a member that differs from a majority of the
//! voters serves nobody until it holds a state from the leader; where no majority agrees nobody is repaired, for nobody
//! knows who is right.

use crate::io::{CloseReason, Output};
use crate::peer_msg::PeerMsg;
use crate::replica::{Leadership, Replica};
use pharos_paxos::{MemberId, Membership, Millis, Slot};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Slots between two digests.
const EVERY: u64 = 256;
/// Digests that are remembered.
const KEPT: usize = 16;
/// Of what the digest covers: others are not compared.
const VERSION: u8 = 1;
/// Between two requests for the state.
const ASK_EVERY_MS: u64 = 500;

/// What is known of the state here and elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Digests {
    own: VecDeque<(Slot, u64)>,
    /// What the others said, while this member leads.
    told: BTreeMap<Slot, BTreeMap<MemberId, u64>>,
    /// Who asks for the state, and what it has applied.
    asked: BTreeMap<MemberId, Slot>,
    /// This member's state is wrong as of this slot.
    wrong: Option<Slot>,
    asked_at: Option<Millis>,
    repaired: u64,
}

impl Digests {
    /// Nothing is served from this state, nor written to the store.
    pub(crate) fn is_wrong(&self) -> bool {
        self.wrong.is_some()
    }

    pub(crate) fn repaired(&self) -> u64 {
        self.repaired
    }

    /// Who asks for the state, where the store has what it has applied.
    pub(crate) fn asking(&self, flushed: Slot) -> impl Iterator<Item = MemberId> {
        self.asked.iter().filter(move |(_, applied)| **applied <= flushed).map(|(member, _)| *member)
    }

    pub(crate) fn is_asking(&self, member: MemberId) -> bool {
        self.asked.contains_key(&member)
    }

    /// It has what it asked for, or will ask again.
    pub(crate) fn answered(&mut self, member: MemberId) {
        self.asked.remove(&member);
    }

    pub(crate) fn leader_changed(&mut self) {
        self.told.clear();
        self.asked.clear();
        self.asked_at = None;
    }

    /// Another state has taken the place of the one here.
    pub(crate) fn installed(&mut self) {
        self.own.clear();
        self.repaired += u64::from(self.wrong.take().is_some());
    }

    fn remember(&mut self, slot: Slot, digest: u64) {
        self.own.push_back((slot, digest));
        if self.own.len() > KEPT {
            self.own.pop_front();
        }
    }

    fn hear(&mut self, from: MemberId, slot: Slot, digest: u64) {
        self.told.entry(slot).or_default().insert(from, digest);
        while self.told.len() > KEPT {
            self.told.pop_first();
        }
    }

    /// Who differs at the slot from a quorum of the voters; nobody if there is none.
    fn differing(&self, slot: Slot, me: MemberId, membership: &Membership) -> BTreeSet<MemberId> {
        let own = self.own.iter().find(|(at, _)| *at == slot).map(|(_, digest)| (me, *digest));
        let told = self.told.get(&slot).into_iter().flatten().map(|(member, digest)| (*member, *digest));
        let all: BTreeMap<MemberId, u64> = told.chain(own).collect();
        let of_quorum = |digest: &u64| membership.is_quorum(|voter| all.get(&voter) == Some(digest));
        let Some(right) = all.values().copied().find(of_quorum) else { return BTreeSet::new() };
        all.into_iter().filter(|(_, digest)| *digest != right).map(|(member, _)| member).collect()
    }
}

impl Replica {
    /// A slot has been applied: every so often its digest is told.
    pub(crate) fn tell_digest(&mut self, slot: Slot) {
        if !slot.0.is_multiple_of(EVERY) {
            return;
        }
        let digest = self.state.digest();
        self.digests.remember(slot, digest);
        match self.leadership {
            Leadership::None => {}
            Leadership::Leads { .. } => self.judge(slot),
            Leadership::Follows { leader, .. } => {
                self.send(leader, &PeerMsg::Digest { slot, version: VERSION, digest });
            }
        }
    }

    pub(crate) fn take_digest(&mut self, from: MemberId, slot: Slot, version: u8, digest: u64) {
        if self.leads() && version == VERSION {
            self.digests.hear(from, slot, digest);
            self.judge(slot);
        }
    }

    fn judge(&mut self, slot: Slot) {
        let me = self.cfg.me;
        for member in self.digests.differing(slot, me, self.registry.membership()) {
            if member == me {
                self.begin_repair(slot);
            } else {
                self.send(member, &PeerMsg::Diverged { slot });
            }
        }
    }

    /// The leader says that this member differs.
    pub(crate) fn take_diverged(&mut self, from: MemberId, slot: Slot) {
        let leads = matches!(self.leadership, Leadership::Follows { leader, .. } if leader == from);
        // One that was repaired since has forgotten the slot.
        if leads && self.digests.own.iter().any(|(at, _)| *at == slot) {
            self.begin_repair(slot);
        }
    }

    fn begin_repair(&mut self, slot: Slot) {
        if self.digests.wrong.is_none() {
            self.digests.wrong = Some(slot);
            self.outputs.push_back(Output::Diverged { slot });
            self.close_all(CloseReason::NotServing);
        }
    }

    /// Asks for the state until it comes; as leader, has another one lead first.
    pub(crate) fn go_on_with_repair(&mut self) {
        let now = self.now.mono;
        let due = self.digests.asked_at.is_none_or(|at| now.0 >= at.0 + ASK_EVERY_MS);
        if !self.digests.is_wrong() || !due || self.snapshots.comes() {
            return;
        }
        self.digests.asked_at = Some(now);
        match self.leadership {
            Leadership::None => {}
            Leadership::Follows { leader, .. } => {
                let applied = self.applier.applied();
                self.send(leader, &PeerMsg::NeedState { applied });
            }
            Leadership::Leads { .. } => {
                let peers = self.paxos.status().peers;
                let votes = |member| self.registry.membership().has(member);
                let heir = peers.iter().find(|peer| peer.keeps_up && votes(peer.member));
                if let Some(heir) = heir {
                    self.paxos.transfer(heir.member);
                }
            }
        }
    }

    pub(crate) fn take_need(&mut self, from: MemberId, applied: Slot) {
        if self.leads() && !self.digests.is_wrong() {
            self.digests.asked.insert(from, applied);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Slot = Slot(512);

    fn differing(own: u64, told: &[(u32, u64)]) -> Vec<u32> {
        let mut digests = Digests::default();
        digests.remember(SLOT, own);
        told.iter().for_each(|(member, digest)| digests.hear(MemberId(*member), SLOT, *digest));
        let membership = Membership::founding((1..=3).map(MemberId).collect());
        digests.differing(SLOT, MemberId(1), &membership).into_iter().map(|member| member.0).collect()
    }

    #[test]
    fn a_majority_of_the_voters_is_right() {
        assert_eq!(differing(7, &[(2, 7), (3, 8)]), [3]);
        assert_eq!(differing(8, &[(2, 7), (3, 7)]), [1], "the leader too may be wrong");
        assert_eq!(differing(7, &[(2, 7), (4, 8)]), [4], "a learner is repaired and does not count");
        assert_eq!(differing(7, &[(2, 7), (3, 7)]), [0_u32; 0]);
    }

    #[test]
    fn without_a_majority_nobody_is_repaired() {
        assert_eq!(differing(7, &[(2, 8)]), [0_u32; 0]);
        assert_eq!(differing(7, &[(2, 8), (3, 9), (4, 9), (5, 9)]), [0_u32; 0]);
    }

    #[test]
    fn little_is_remembered() {
        let mut digests = Digests::default();
        for number in 0..100 {
            digests.remember(Slot(number), number);
            digests.hear(MemberId(2), Slot(number), number);
        }
        assert_eq!((digests.own.len(), digests.told.len()), (KEPT, KEPT));
        assert_eq!(digests.own.front(), Some(&(Slot(100 - KEPT as u64), 100 - KEPT as u64)));
    }
}
