//! When the state goes to the store, and what the log may forget then.
//!
//! Owns the cut on its way to the store and the flushed slot. Must not know the store. Invariant:
//! nothing is given to the store beyond this member's own durable slot, although clients may have been
//! answered earlier (DESIGN 3.1, trap d); apply never waits for the store.

use crate::io::{Output, PersistBatch, PersistRows};
use crate::replica::{FOUNDING_KEY, REGISTRY_KEY, Replica};
use bytes::Bytes;
use pharos_paxos::{Millis, Slot};
use std::collections::VecDeque;

/// Milliseconds between cuts.
const INTERVAL_MS: u64 = 1000;
/// Slots after which a cut is due whatever the time.
const INTERVAL_SLOTS: u64 = 4096;

#[derive(Debug)]
pub(crate) struct Persist {
    /// The store holds everything up to here.
    flushed: Slot,
    /// A cut that waits until the log is durable that far.
    held: Option<PersistBatch>,
    in_flight: Option<Slot>,
    last_cut: (Slot, Millis),
    /// Somebody waits for a cut.
    wanted: bool,
    /// Applied slots whose entries the log keeps for members that were away, with their bytes.
    tail: VecDeque<(Slot, u64)>,
    tail_bytes: u64,
}

impl Persist {
    pub(crate) fn new(flushed: Slot, now: Millis) -> Self {
        Self {
            flushed,
            held: None,
            in_flight: None,
            last_cut: (flushed, now),
            wanted: false,
            tail: VecDeque::new(),
            tail_bytes: 0,
        }
    }

    pub(crate) fn flushed(&self) -> Slot {
        self.flushed
    }

    /// A whole state has taken the place of what was applied.
    pub(crate) fn installed(&mut self, upto: Slot, now: Millis) {
        *self = Self::new(upto, now);
    }

    /// An entry of so many bytes was applied.
    pub(crate) fn applied(&mut self, slot: Slot, bytes: usize) {
        self.tail.push_back((slot, bytes as u64));
        self.tail_bytes += bytes as u64;
    }

    /// The last slot that the log may forget: not above `limit`, and not within the newest `keep` bytes of entries unless
    /// it is at or below `older`, for on the disk small entries take more.
    fn forgettable(&mut self, keep: u64, older: Slot, limit: Slot) -> Slot {
        let mut upto = Slot::ZERO;
        while let Some(&(slot, bytes)) = self.tail.front() {
            if slot > limit || (self.tail_bytes - bytes < keep && slot > older) {
                break;
            }
            self.tail.pop_front();
            self.tail_bytes -= bytes;
            upto = slot;
        }
        upto
    }

    fn due(&self, applied: Slot, now: Millis) -> bool {
        let (slot, at) = self.last_cut;
        let late = now.0 >= at.0 + INTERVAL_MS || applied.0 - slot.0 >= INTERVAL_SLOTS;
        applied > slot && (late || self.wanted)
    }
}

impl Replica {
    /// Asks for a cut without delay; gives the slot that it will have at least.
    pub fn cut_now(&mut self) -> Slot {
        self.persist.wanted = true;
        self.applier.applied()
    }

    /// What the store holds.
    #[must_use]
    pub fn flushed(&self) -> Slot {
        self.persist.flushed()
    }

    /// The store has flushed the cut.
    pub fn persisted(&mut self, applied: Slot) {
        assert_eq!(self.persist.in_flight.take(), Some(applied), "one cut is in flight at a time");
        self.persist.flushed = applied;
        if self.finish_install(applied) {
            self.take_core_outputs();
        }
        self.trim();
    }

    pub(crate) fn persist_if_due(&mut self) {
        if self.persist.in_flight.is_some() {
            return;
        }
        if self.snapshots.waits() {
            // What was promised for the sake of the state has to be durable before the state is. A member that repairs
            // its state has all of the log, and promises nothing for it.
            if (self.digests.is_wrong() || self.paxos.is_durable())
                && let Some(batch) = self.take_install()
            {
                self.persist.held = None;
                self.persist.in_flight = Some(batch.applied);
                self.outputs.push_back(Output::Persist { batch });
            }
            return;
        }
        if self.digests.is_wrong() {
            return;
        }
        let applied = self.applier.applied();
        if self.persist.held.is_none() && self.persist.due(applied, self.now.mono) {
            self.persist.last_cut = (applied, self.now.mono);
            self.persist.wanted = false;
            let rows = PersistRows::Changed(self.state.take_dirty());
            self.persist.held = Some(PersistBatch { rows, own: self.own_rows(), applied });
        }
        let durable = self.paxos.durable();
        let early = self.cfg.plant.persists_ahead_of_log();
        if let Some(batch) = self.persist.held.take_if(|batch| batch.applied <= durable || early) {
            self.persist.in_flight = Some(batch.applied);
            self.outputs.push_back(Output::Persist { batch });
        }
    }

    /// What every member's store holds beside the state.
    fn own_rows(&self) -> Vec<(Bytes, Bytes)> {
        let row = |key, value: Vec<u8>| (Bytes::from_static(key), Bytes::from(value));
        vec![row(FOUNDING_KEY, self.founding.encode()), row(REGISTRY_KEY, self.registry.encode())]
    }

    /// Forgets entries that the store holds, but for a tail for members that were away briefly.
    fn trim(&mut self) {
        let hold = self.snapshots.hold().unwrap_or(self.persist.flushed);
        let mut limit = hold.min(self.persist.flushed);
        if self.cfg.plant.trims_unflushed() {
            limit = self.applier.applied().min(self.paxos.durable());
        }
        let keep = self.cfg.log_tail_bytes;
        let upto = self.persist.forgettable(keep, self.group.wal().before_newest(keep), limit);
        if upto > Slot::ZERO {
            self.paxos.trim(upto);
            self.group.trim(upto);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_kept_up_to_so_many_bytes_and_fewer_when_the_disk_says_so() {
        let mut persist = Persist::new(Slot::ZERO, Millis(0));
        (1..=10).for_each(|slot| persist.applied(Slot(slot), 10));
        assert_eq!(persist.forgettable(70, Slot::ZERO, Slot(2)), Slot(2), "not above the limit");
        assert_eq!(persist.forgettable(70, Slot::ZERO, Slot(9)), Slot(3), "the newest 70 bytes stay");
        assert_eq!(persist.forgettable(70, Slot(5), Slot(9)), Slot(5), "older segments go");
        assert_eq!(persist.forgettable(70, Slot(8), Slot(6)), Slot(6), "but never above the limit");
    }
}
