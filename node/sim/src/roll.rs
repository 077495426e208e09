//! The list of members as the reference keeps it.
//!
//! Owns what each change and each seal makes of the list, worked out apart from the product. Must not know how members
//! agree. Invariants checked here: an id is given once, to one volume; ids rise; a configuration has one number and
//! follows the one before it; whoever votes is registered.

use crate::member::Volume;
use crate::violation::Violation;
use pharos_paxos::{ConfigNo, Entry, MemberId, Membership, Slot};
use pharos_replica::{Change, Founding, Member, NewGeneration, Registry};
use std::collections::BTreeMap;

/// Members, learners included, that an ensemble can have.
const MOST: usize = 64;

#[derive(Clone, Debug)]
pub(crate) struct Roll {
    membership: Membership,
    members: BTreeMap<MemberId, Member>,
    /// Every id that was ever given, and to whom.
    given: BTreeMap<MemberId, Volume>,
}

impl Roll {
    pub(crate) fn founding(founding: &Founding) -> Self {
        let members: BTreeMap<_, _> = founding.members.iter().map(|m| (m.id, m.clone())).collect();
        let given = members.values().map(|m| (m.id, m.volume)).collect();
        Self { membership: Membership::founding(members.keys().copied().collect()), members, given }
    }

    pub(crate) fn membership(&self) -> &Membership {
        &self.membership
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    pub(crate) fn has(&self, id: MemberId) -> bool {
        self.members.contains_key(&id)
    }

    pub(crate) fn was_removed(&self, id: MemberId) -> bool {
        self.given.contains_key(&id) && !self.has(id)
    }

    fn next_id(&self) -> MemberId {
        MemberId(self.given.keys().next_back().map_or(1, |last| last.0 + 1))
    }

    pub(crate) fn change(&mut self, change: Change) {
        match change {
            Change::Add(new) => {
                let known = self.members.values().find(|m| m.volume == new.volume).map(|m| m.id);
                let id = known.unwrap_or(self.next_id());
                if known.is_some() || self.members.len() < MOST {
                    self.given.insert(id, new.volume);
                    self.members.insert(id, Member { id, ..new });
                }
            }
            Change::Remove(id) => {
                if !self.membership.has(id) {
                    self.members.remove(&id);
                }
            }
        }
    }

    /// The ensemble goes on from this member alone: the configuration's number may skip some that nobody knows of.
    pub(crate) fn begin_generation(&mut self, begun: &NewGeneration, seal: &Entry) -> Result<(), Violation> {
        let (id, slot) = (begun.survivor.id, seal.slot);
        let (next, _) = seal.seals().ok_or_else(|| Violation::new(format!("seal {slot} says nothing")))?;
        if next.config <= self.membership.config || next.voters != [id] || !self.given.contains_key(&id) {
            return Err(Violation::new(format!("seal {slot} begins a generation with {next:?}")));
        }
        self.members = BTreeMap::from([(id, begun.survivor.clone())]);
        self.membership = next;
        Ok(())
    }

    pub(crate) fn enter(&mut self, seal: &Entry) -> Result<(), Violation> {
        let slot = seal.slot;
        let (next, _) = seal.seals().ok_or_else(|| Violation::new(format!("seal {slot} says nothing")))?;
        let expected = ConfigNo(self.membership.config.0 + 1);
        if next.config != expected {
            let (found, expected) = (next.config.0, expected.0);
            return Err(Violation::new(format!("seal {slot} begins configuration {found}, not {expected}")));
        }
        if let Some(stranger) = next.voters.iter().find(|voter| !self.has(**voter)) {
            return Err(Violation::new(format!(
                "seal {slot} gives member {stranger} a vote: not registered"
            )));
        }
        let gone = |id: &MemberId| self.membership.has(*id) && !next.has(*id);
        self.members.retain(|id, _| !gone(id));
        self.membership = next;
        Ok(())
    }

    /// A member's own list at this slot.
    pub(crate) fn compare(&self, theirs: &Registry, slot: Slot) -> Result<(), Violation> {
        let equal = theirs.membership() == &self.membership
            && theirs.next_id() == self.next_id()
            && theirs.members().iter().eq(self.members.values());
        if equal {
            return Ok(());
        }
        Err(Violation::new(format!("list of members: differs after slot {slot}: {theirs:?}, not {self:?}")))
    }
}
