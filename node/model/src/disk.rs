//! A member's disk: what is durable, and the writes that are not yet.
//!
//! Owns durability. Must not know why anything is written. Invariants: a write takes effect whole, writes
//! take effect in their order, and a crash keeps the first few of those under way, any number of them.

use bytes::Bytes;
use pharos_paxos::{
    Ballot, ConfigNo, Entry, EntryKind, HardState, LogOp, MemberId, Membership, Recovered, Slot,
};
use std::collections::VecDeque;

/// The ballot of the founding entry, as in production.
const FOUNDING: Ballot = Ballot { config: ConfigNo(1), round: 0, member: MemberId(0) };

#[derive(Clone, Debug, Hash)]
pub(crate) struct Disk {
    pub(crate) hard: HardState,
    pub(crate) trimmed: Slot,
    entries: Vec<Entry>,
    pub(crate) pending: VecDeque<Vec<LogOp>>,
    /// The store beside the log: the state as of this slot.
    pub(crate) stored: Slot,
    /// Who votes, as of that state.
    pub(crate) voters: Membership,
    /// The store's note of the state that it took over from another member.
    installed: Slot,
}

impl Disk {
    /// A founder's disk.
    pub(crate) fn founded(founding: Membership) -> Self {
        let entry =
            Entry { slot: Slot(1), ballot: FOUNDING, kind: EntryKind::Founding, payload: Bytes::new() };
        Self {
            hard: HardState { promised: FOUNDING, accepted: FOUNDING, committed: Slot(1) },
            entries: vec![entry],
            ..Self::blank(founding)
        }
    }

    /// The disk of one that comes later, who has been told who founded.
    pub(crate) fn blank(founding: Membership) -> Self {
        Self {
            hard: HardState::EMPTY,
            trimmed: Slot::ZERO,
            entries: Vec::new(),
            pending: VecDeque::new(),
            stored: Slot::ZERO,
            voters: founding,
            installed: Slot::ZERO,
        }
    }

    pub(crate) fn end(&self) -> Slot {
        Slot(self.trimmed.0 + self.entries.len() as u64)
    }

    pub(crate) fn entry(&self, slot: Slot) -> Option<&Entry> {
        let index = slot.0.checked_sub(self.trimmed.0 + 1)?;
        self.entries.get(index as usize)
    }

    /// The oldest write is durable now; false if there is none.
    pub(crate) fn complete(&mut self) -> bool {
        let Some(ops) = self.pending.pop_front() else { return false };
        ops.into_iter().for_each(|op| self.apply(op));
        true
    }

    fn apply(&mut self, op: LogOp) {
        match op {
            LogOp::Truncate { from } => self.entries.truncate((from.0 - self.trimmed.0 - 1) as usize),
            LogOp::Reset { after } => {
                self.entries.clear();
                self.trimmed = after;
                self.hard.committed = after;
            }
            LogOp::Append(entry) => {
                assert_eq!(entry.slot, self.end().next(), "appends are contiguous");
                self.entries.push(entry);
            }
            LogOp::Accepted(ballot) => {
                assert!(ballot >= self.hard.accepted, "a durable stamp never falls");
                self.hard.accepted = ballot;
            }
            LogOp::Promised(ballot) => {
                assert!(ballot >= self.hard.promised, "a durable promise never falls");
                self.hard.promised = ballot;
            }
            LogOp::Committed(slot) => self.hard.committed = slot,
        }
    }

    /// The store has flushed the state as of `upto`.
    pub(crate) fn flush(&mut self, upto: Slot) {
        assert!(upto <= self.end(), "only what is durable is flushed");
        for slot in self.stored.0 + 1..=upto.0 {
            if let Some((next, _)) = self.entry(Slot(slot)).and_then(Entry::seals) {
                assert_eq!(next.config.0, self.voters.config.0 + 1, "one configuration follows the other");
                self.voters = next;
            }
        }
        self.stored = upto;
    }

    /// The store has flushed the state as of `upto`, and the log forgets what led to it.
    pub(crate) fn trim(&mut self, upto: Slot) {
        self.flush(upto);
        self.entries.drain(..(upto.0 - self.trimmed.0) as usize);
        self.trimmed = upto;
    }

    /// The store has flushed a state that came from another member, with a note of it.
    pub(crate) fn install(&mut self, upto: Slot, voters: Membership) {
        self.stored = upto;
        self.installed = upto;
        self.voters = voters;
    }

    pub(crate) fn was_installed(&self) -> bool {
        self.installed > Slot::ZERO
    }

    /// The machine stops: of the writes under way the first `survive` have reached the disk.
    pub(crate) fn crash(&mut self, survive: usize) {
        for _ in 0..survive {
            self.complete();
        }
        self.pending.clear();
    }

    /// What a member starts from, who votes then, and the state to install before it does anything, as
    /// `Replica::start`: a log that holds nothing votes nowhere, whatever the state says that was installed.
    pub(crate) fn recovered(&self, founding: Membership) -> (Recovered, Membership, Option<Slot>) {
        let (mut hard, mut trimmed, mut entries) = (self.hard, self.trimmed, self.entries.clone());
        if self.installed > trimmed && self.installed <= self.end() {
            entries.drain(..(self.installed.0 - trimmed.0) as usize);
            trimmed = self.installed;
        }
        let unlogged = self.installed > self.end();
        if !unlogged {
            hard.committed = hard.committed.max(self.stored);
        }
        let blank = trimmed == Slot::ZERO && entries.is_empty();
        let voters = if blank { founding } else { self.voters.clone() };
        (Recovered { hard, trimmed, entries }, voters, unlogged.then_some(self.installed))
    }
}
