//! What the outside has been told, whatever became of the member that told it.
//!
//! Owns the history of the properties: it is part of the state, since what may follow depends on it.

use crate::broken::Broken;
use pharos_paxos::{Ballot, Entry, Paxos, Role, Slot};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Story {
    /// What was told to be chosen, by slot: slot 1 is first.
    pub(crate) chosen: Vec<Entry>,
    /// The ballots that came to lead.
    pub(crate) led: BTreeSet<Ballot>,
    /// Waiting reads: where each was asked, and how much was chosen then.
    reads: BTreeMap<u64, (usize, Slot)>,
    asked: u64,
    /// A read was answered, not failed.
    pub(crate) answered: bool,
}

impl Story {
    pub(crate) fn last_chosen(&self) -> Slot {
        Slot(self.chosen.len() as u64)
    }

    /// A member tells everything up to `upto` to be chosen.
    pub(crate) fn commit(&mut self, core: &Paxos, upto: Slot) -> Result<(), Broken> {
        let trimmed = core.status().trimmed;
        for slot in trimmed.0 + 1..=upto.0 {
            let Some(entry) = core.entry(Slot(slot)) else { return Err(Broken::Agreement(Slot(slot))) };
            match self.chosen.get(slot as usize - 1) {
                Some(chosen) if chosen == entry => {}
                None if slot as usize == self.chosen.len() + 1 => self.chosen.push(entry.clone()),
                _ => return Err(Broken::Agreement(Slot(slot))),
            }
        }
        if upto > self.last_chosen() { Err(Broken::Agreement(upto)) } else { Ok(()) }
    }

    pub(crate) fn role(&mut self, role: Role) -> Result<(), Broken> {
        match role {
            Role::Leader { ballot } if !self.led.insert(ballot) => Err(Broken::LedTwice(ballot)),
            _ => Ok(()),
        }
    }

    /// A read is asked there; gives its number.
    pub(crate) fn ask(&mut self, place: usize) -> u64 {
        self.asked += 1;
        self.reads.insert(self.asked, (place, self.last_chosen()));
        self.asked
    }

    pub(crate) fn answer(&mut self, ctx: u64, slot: Option<Slot>) -> Result<(), Broken> {
        let floor = self.reads.remove(&ctx).map(|(_, floor)| floor).unwrap_or_default();
        self.answered |= slot.is_some();
        match slot {
            Some(slot) if slot < floor => Err(Broken::StaleRead(slot)),
            _ => Ok(()),
        }
    }

    /// The process there has died, and whoever asked with it.
    pub(crate) fn forget_reads(&mut self, place: usize) {
        self.reads.retain(|_, (at, _)| *at != place);
    }
}
