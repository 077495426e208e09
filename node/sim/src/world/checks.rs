//! What is compared at every turn, beside what the reference compares.
//!
//! Owns who must hold what is chosen, who may lead, and what a member was seen to go through. Must not know how members
//! decide.

use super::{Result, World};
use crate::member::Member;
use crate::reference::Sealed;
use crate::violation::Violation;
use pharos_paxos::{Ballot, Entry, MemberId};

impl World {
    /// How many of these run and lack the entry. Those that do not run may hold it.
    fn lacking(&self, voters: &[MemberId], entry: &Entry) -> usize {
        let lacks = |m: &Member| m.replica().is_some_and(|one| !one.is_durable(entry));
        let of = |voter: &&MemberId| self.places.get(voter).is_some_and(|at| lacks(&self.members[*at]));
        voters.iter().filter(of).count()
    }

    fn held_by_majority(&self, voters: &[MemberId], entry: &Entry) -> Result<()> {
        let lacking = self.lacking(voters, entry);
        if lacking > (voters.len() - 1) / 2 {
            let (slot, count) = (entry.slot, voters.len());
            let what = format!("durability: {lacking} of {count} voters lack chosen slot {slot}");
            return Err(Violation::new(what));
        }
        Ok(())
    }

    /// What a leader takes for chosen is durable on a majority of the voters at that slot.
    pub(super) fn check_durable(&mut self, member: usize) -> Result<()> {
        let Some(leader) = self.members[member].replica().filter(|one| one.leads_in().is_some()) else {
            return Ok(());
        };
        let Some(entry) = leader.last_chosen().filter(|entry| entry.slot > self.durable) else {
            return Ok(());
        };
        let mut membership = self.reference.roll().membership().clone();
        let mut slot = self.reference.end().next();
        while slot < entry.slot {
            if let Some((next, _)) = leader.chosen(slot).and_then(Entry::seals) {
                membership = next;
            }
            slot = slot.next();
        }
        if membership.since < entry.slot {
            self.held_by_majority(&membership.voters, entry)?;
        }
        self.durable = entry.slot;
        Ok(())
    }

    /// A seal that someone has carried out is durable on majorities of the old voters and of the new.
    pub(super) fn check_seals(&mut self) -> Result<()> {
        for sealed in std::mem::take(&mut self.reference.sealed) {
            self.held_by_majority(&sealed.old.voters, &sealed.seal)?;
            self.held_by_majority(&sealed.new.voters, &sealed.seal)?;
            self.note_switch(&sealed);
        }
        Ok(())
    }

    pub(super) fn check_leader(&mut self, member: usize) -> Result<()> {
        let m = &self.members[member];
        let Some((one, ballot)) = m.replica().and_then(|one| Some((one, one.leads_in()?))) else {
            return Ok(());
        };
        let votes = self.reference.voters_in(ballot.config).is_none_or(|voters| voters.contains(&m.id));
        // One that goes on by force may have been removed before: it leads, and has not carried out yet what put it back.
        let removed = one.was_removed() && one.registry().membership().config >= ballot.config;
        if !votes || removed {
            return Err(Violation::new(format!("member {} leads in {ballot} and has no vote there", m.id)));
        }
        let new = self.leaders.insert((ballot.config, ballot.round, ballot.member.0));
        self.coverage.leaders += u64::from(new);
        Ok(())
    }

    /// What a change of the voters was.
    fn note_switch(&mut self, sealed: &Sealed) {
        let (old, new) = (&sealed.old, &sealed.new);
        let stay = old.voters.iter().filter(|voter| new.has(**voter)).count();
        let left = |id: MemberId| u64::from(!new.has(id));
        let replaced = |id: &&MemberId| !new.has(**id) && self.members[self.places[id]].lost;
        let c = &mut self.coverage;
        c.lost_members_replaced += old.voters.iter().filter(replaced).count() as u64;
        c.voters_switched += 1;
        c.ensembles_grown += u64::from(new.voters.len() > old.voters.len());
        c.ensembles_shrunk += u64::from(new.voters.len() < old.voters.len());
        c.majorities_replaced += u64::from(stay < old.majority());
        c.all_replaced += u64::from(stay == 0);
        c.leaders_left += left(sealed.seal.ballot.member);
    }

    /// A member's list has changed.
    pub(super) fn note_members(&mut self, member: usize) {
        let m = &mut self.members[member];
        let Some(one) = m.process.as_ref().map(|process| &process.replica) else { return };
        let founded = self.founding.members.iter().any(|founder| founder.id == m.id);
        if !founded && one.registry().member(m.id).is_some() && !m.told.joined {
            m.told.joined = true;
            self.coverage.learners_joined += 1;
        }
        if one.was_removed() && !m.told.removed {
            m.told.removed = true;
            self.coverage.removed_told += 1;
        }
    }

    /// A member is about to stop.
    pub(super) fn note_crash(&mut self, member: usize) {
        let Some(one) = self.members[member].replica() else { return };
        let status = one.status();
        let c = &mut self.coverage;
        c.joiners_crashed_before_state += u64::from(one.joins() && status.ballot > Ballot::ZERO);
        c.leaders_crashed_with_seal += u64::from(one.leads_in().is_some() && one.seals());
    }
}
