//! What must hold in every run, whatever the schedule; panics when it does not.
//!
//! It sees only what members tell (`Commit`, `ReadReady`, `Role`, `Write`) and what their disks hold.

use crate::net::{Disk, Node};
use pharos_paxos::{Ballot, Entry, LogOp, Membership, Paxos, Role, Slot};
use std::collections::BTreeMap;

#[derive(Default)]
pub(crate) struct Oracle {
    /// What a member has told to be chosen.
    pub(crate) chosen: BTreeMap<Slot, Entry>,
    /// The chosen seals among them.
    pub(crate) seals: BTreeMap<Slot, Membership>,
    /// Every entry ever written, by its name.
    named: BTreeMap<(Ballot, Slot), Entry>,
    /// The end which the leader of each ballot adopted.
    adopted: BTreeMap<Ballot, Slot>,
    /// Waiting reads: the highest slot chosen when each was asked.
    reads: BTreeMap<u64, Slot>,
    next_ctx: u64,
    pub(crate) reads_answered: usize,
}

impl Oracle {
    pub(crate) fn last_chosen(&self) -> Slot {
        self.chosen.keys().next_back().copied().unwrap_or_default()
    }

    pub(crate) fn on_write(&mut self, ops: &[LogOp]) {
        for op in ops {
            if let LogOp::Append(entry) = op {
                let named = self.named.entry((entry.ballot, entry.slot)).or_insert_with(|| entry.clone());
                assert_eq!(named, entry, "one ballot and slot name one entry");
            }
        }
    }

    /// The configuration after all seals chosen up to a slot.
    pub(crate) fn membership_at(&self, upto: Slot, founding: &Membership) -> Membership {
        let last = self.seals.range(..=upto).next_back();
        last.map_or(founding, |(_, membership)| membership).clone()
    }

    pub(crate) fn on_role(&mut self, core: &Paxos, role: Role) {
        if let Role::Leader { ballot } = role {
            let sealed = core.entry(core.last_slot()).is_some_and(|last| last.ballot != ballot);
            let adopted = if sealed { core.last_slot() } else { Slot(core.last_slot().0 - 1) };
            assert!(self.adopted.insert(ballot, adopted).is_none(), "ballot {ballot} is led once");
        }
    }

    /// Agreement, and each member's commits rise.
    pub(crate) fn on_commit(&mut self, core: &Paxos, before: Slot, upto: Slot) {
        assert!(upto > before, "a commit index rises");
        for slot in before.0 + 1..=upto.0 {
            let Some(entry) = core.entry(Slot(slot)) else {
                panic!("slot {slot} is committed and not in the log");
            };
            let chosen = self.chosen.entry(Slot(slot)).or_insert_with(|| entry.clone());
            assert_eq!(chosen, entry, "all members agree on slot {slot}");
            if let Some((membership, rest)) = entry.seals() {
                assert_eq!(rest, b"rest"[..], "what travels with a seal stays");
                self.seals.insert(Slot(slot), membership);
            }
        }
    }

    pub(crate) fn ask(&mut self) -> u64 {
        self.next_ctx += 1;
        self.reads.insert(self.next_ctx, self.last_chosen());
        self.next_ctx
    }

    pub(crate) fn on_read(&mut self, ctx: u64, slot: Option<Slot>) {
        let Some(at_least) = self.reads.remove(&ctx) else { panic!("read {ctx} is answered once") };
        if let Some(slot) = slot {
            self.reads_answered += 1;
            assert!(slot >= at_least, "read {ctx} got {slot}, {at_least} was chosen before it was asked");
        }
    }

    /// What is chosen stays on a majority of the disks of those who vote.
    pub(crate) fn check_disks(&self, nodes: &BTreeMap<u32, Node>, founding: &Membership) {
        let Some((slot, entry)) = self.chosen.iter().next_back() else { return };
        let membership = self.membership_at(*slot, founding);
        let holds = |d: &Disk| d.trimmed >= *slot || d.entries.get(slot) == Some(entry);
        let holders = membership.voters.iter().filter(|voter| holds(&nodes[&voter.0].disk)).count();
        let majority = membership.majority();
        assert!(holders >= majority, "chosen slot {slot} is durable on {holders} disks only");
    }

    /// A log is a prefix of the log of the leader it accepted, and has all which that leader adopted.
    pub(crate) fn check_prefix(&self, cores: &[&Paxos]) {
        for (i, a) in cores.iter().enumerate() {
            let accepted = a.status().accepted;
            let adopted = self.adopted.get(&accepted).copied().unwrap_or_default();
            assert!(a.last_slot() >= adopted, "accepted {accepted} without its whole prefix");
            for b in &cores[i + 1..] {
                if b.status().accepted == accepted {
                    let end = a.last_slot().min(b.last_slot());
                    let both = (a.entry(end), b.entry(end));
                    if let (Some(x), Some(y)) = both {
                        assert_eq!(x, y, "two logs of ballot {accepted} differ at {end}");
                    }
                }
            }
        }
    }
}
