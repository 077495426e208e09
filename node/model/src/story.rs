//! What the outside has been told, whatever became of the member that told it.
//!
//! Owns the history of the properties: it is part of the state, since what may follow depends on it.

use crate::broken::Broken;
use pharos_paxos::{Ballot, ConfigNo, Entry, Membership, Paxos, Role, Slot};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Hash)]
pub(crate) struct Story {
    /// What was told to be chosen, by slot: slot 1 is first.
    pub(crate) chosen: Vec<Entry>,
    /// The configurations: the founding one, and one more for each seal that is chosen. Never empty.
    configurations: Vec<Membership>,
    /// The ballots that came to lead, and the end of the log that each leader adopted.
    pub(crate) led: BTreeMap<Ballot, Slot>,
    /// Waiting reads: where each was asked, and how much was chosen then.
    reads: BTreeMap<u64, (usize, Slot)>,
    asked: u64,
    /// A read was answered, not failed.
    pub(crate) answered: bool,
}

impl Story {
    pub(crate) fn new(founding: Membership) -> Self {
        Self {
            chosen: Vec::new(),
            configurations: vec![founding],
            led: BTreeMap::new(),
            reads: BTreeMap::new(),
            asked: 0,
            answered: false,
        }
    }

    /// The configuration that goes on now.
    pub(crate) fn current(&self) -> &Membership {
        self.configurations.last().expect("there is the founding one")
    }

    /// The configuration of that number, if it has begun.
    pub(crate) fn configuration(&self, number: ConfigNo) -> Option<&Membership> {
        self.configurations.iter().find(|membership| membership.config == number)
    }

    /// A ballot is opened: by one who votes in its configuration, and that has begun.
    pub(crate) fn opens(&self, ballot: Ballot) -> Result<(), Broken> {
        let votes = self.configuration(ballot.config).is_some_and(|c| c.has(ballot.member));
        if votes { Ok(()) } else { Err(Broken::Seal(format!("{ballot} is opened"))) }
    }

    /// An entry is told to be chosen, for the first time: in the configuration that goes on, which it may end.
    fn choose(&mut self, entry: &Entry) -> Result<(), Broken> {
        let current = self.current().config;
        if entry.slot > Slot(1) && entry.ballot.config != current {
            return Err(Broken::Seal(format!("{} of {} is chosen", entry.slot, entry.ballot)));
        }
        self.configurations.extend(entry.seals().map(|(next, _)| next));
        self.chosen.push(entry.clone());
        Ok(())
    }

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
                None if slot as usize == self.chosen.len() + 1 => self.choose(entry)?,
                _ => return Err(Broken::Agreement(Slot(slot))),
            }
        }
        if upto > self.last_chosen() { Err(Broken::Agreement(upto)) } else { Ok(()) }
    }

    pub(crate) fn role(&mut self, core: &Paxos, role: Role) -> Result<(), Broken> {
        let Role::Leader { ballot } = role else { return Ok(()) };
        let adopted = core.epoch_start().map_or(Slot::ZERO, |start| Slot(start.0 - 1));
        if self.led.insert(ballot, adopted).is_some() {
            return Err(Broken::LedTwice(ballot));
        }
        self.opens(ballot)
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
