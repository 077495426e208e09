//! When the state goes to the store, and what the log may forget then.
//!
//! Owns the cut on its way to the store and the flushed slot. Must not know the store. Invariant:
//! nothing is given to the store beyond this member's own durable slot, although clients may have been
//! answered earlier (DESIGN 3.1, trap d), nor what overwrites a value that is being read there; apply waits neither for
//! the store nor for a cut.

use crate::io::{Output, PersistBatch, PersistRows};
use crate::replica::{FOUNDING_KEY, REGISTRY_KEY, Replica};
use bytes::Bytes;
use pharos_paxos::{Millis, Slot};
use std::collections::VecDeque;

/// Milliseconds between cuts.
const INTERVAL_MS: u64 = 1000;
/// Slots after which a cut is due whatever the time.
const INTERVAL_SLOTS: u64 = 4096;
/// What a node in a cut counts against [`crate::ReplicaConfig::apply_bytes`].
const NODE_BYTES: usize = 256;
/// Bytes of entries that the store may lack before a leader takes no more, at least and at most: their values are in
/// memory, whatever there is for them, and so are the entries, and a cut a few times over while it is written.
const UNFLUSHED: (u64, u64) = (8 << 20, 64 << 20);

#[derive(Debug)]
pub(crate) struct Persist {
    /// The store holds everything up to here.
    flushed: Slot,
    /// The cut that the state gathers, without its rows.
    gathering: Option<(Slot, Vec<(Bytes, Bytes)>)>,
    /// A cut that waits until the log is durable that far.
    held: Option<PersistBatch>,
    /// The last of the reads that the cut has to wait for: it may overwrite what they read.
    held_reads: u64,
    in_flight: Option<Slot>,
    last_cut: (Slot, Millis),
    /// Somebody waits for a cut.
    wanted: bool,
    /// Applied slots whose entries the log keeps for members that were away, with their bytes.
    tail: VecDeque<(Slot, u64)>,
    tail_bytes: u64,
    /// How many bytes of entries the store may lack.
    most: u64,
    /// Bytes of entries that were applied since the last flush, and those of them that are in the cut under way.
    unflushed: u64,
    cut: u64,
}

impl Persist {
    /// With so much memory for values.
    pub(crate) fn new(flushed: Slot, now: Millis, values: u64) -> Self {
        Self {
            flushed,
            gathering: None,
            held: None,
            held_reads: 0,
            in_flight: None,
            last_cut: (flushed, now),
            wanted: false,
            tail: VecDeque::new(),
            tail_bytes: 0,
            most: (values / 4).clamp(UNFLUSHED.0, UNFLUSHED.1),
            unflushed: 0,
            cut: 0,
        }
    }

    pub(crate) fn flushed(&self) -> Slot {
        self.flushed
    }

    /// A whole state has taken the place of what was applied.
    pub(crate) fn installed(&mut self, upto: Slot, now: Millis) {
        *self = Self { most: self.most, ..Self::new(upto, now, 0) };
    }

    /// An entry of so many bytes was applied.
    pub(crate) fn applied(&mut self, slot: Slot, bytes: usize) {
        self.held_in_log(slot, bytes);
        self.unflushed += bytes as u64;
    }

    /// An entry of so many bytes is in the log.
    pub(crate) fn held_in_log(&mut self, slot: Slot, bytes: usize) {
        self.tail.push_back((slot, bytes as u64));
        self.tail_bytes += bytes as u64;
    }

    /// Whether the store is so far behind that nothing new is to be proposed.
    pub(crate) fn is_behind(&self) -> bool {
        self.unflushed > self.most
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
        applied > slot && (late || self.wanted || self.unflushed >= self.most / 4)
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
        self.persist.unflushed -= std::mem::take(&mut self.persist.cut);
        self.state.flushed();
        if self.finish_install(applied) {
            self.take_core_outputs();
        }
        self.trim();
    }

    pub(crate) fn persist_if_due(&mut self) {
        if self.persist.in_flight.is_some() {
            return;
        }
        if self.snapshots.waits() || self.digests.is_wrong() {
            // The state that it is of will be replaced.
            self.persist.gathering = None;
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
        self.gather();
        let durable = self.paxos.durable();
        let early = self.cfg.plant.persists_ahead_of_log();
        if !self.cold.done(self.persist.held_reads) && !self.cfg.plant.overtakes_cold_reads() {
            return;
        }
        if let Some(batch) = self.persist.held.take_if(|batch| batch.applied <= durable || early) {
            if self.cfg.plant.cools_unflushed() {
                self.state.flushed();
            }
            self.persist.in_flight = Some(batch.applied);
            self.outputs.push_back(Output::Persist { batch });
        }
    }

    /// Begins a cut when it is due, between two slots, and goes on with it by as much as a turn may do.
    fn gather(&mut self) {
        let applied = self.applier.applied();
        let idle = self.persist.gathering.is_none() && self.persist.held.is_none();
        if idle && self.is_between_slots() && self.persist.due(applied, self.now.mono) {
            self.persist.last_cut = (applied, self.now.mono);
            self.persist.wanted = false;
            self.persist.cut = self.persist.unflushed;
            self.state.begin_cut();
            self.persist.gathering = Some((applied, self.own_rows()));
        }
        if self.persist.gathering.is_some()
            && let Some(rows) = self.state.cut_some((self.cfg.apply_bytes / NODE_BYTES).max(1))
            && let Some((applied, own)) = self.persist.gathering.take()
        {
            self.persist.held = Some(PersistBatch { rows: PersistRows::Changed(rows), own, applied });
            self.persist.held_reads = self.cold.last();
        }
    }

    /// Whether a cut is half-way, which the next turn goes on with although nothing comes.
    #[must_use]
    pub fn gathers(&self) -> bool {
        self.persist.gathering.is_some()
    }

    /// What every member's store holds beside the state.
    fn own_rows(&self) -> Vec<(Bytes, Bytes)> {
        let row = |key, value: Vec<u8>| (Bytes::from_static(key), Bytes::from(value));
        vec![row(FOUNDING_KEY, self.founding.encode()), row(REGISTRY_KEY, self.registry.encode())]
    }

    /// Forgets entries that the store holds, but for a tail for members that were away briefly.
    fn trim(&mut self) {
        let hold = self.sending.hold().unwrap_or(self.persist.flushed);
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
        let mut persist = Persist::new(Slot::ZERO, Millis(0), 0);
        (1..=10).for_each(|slot| persist.applied(Slot(slot), 10));
        assert_eq!(persist.forgettable(70, Slot::ZERO, Slot(2)), Slot(2), "not above the limit");
        assert_eq!(persist.forgettable(70, Slot::ZERO, Slot(9)), Slot(3), "the newest 70 bytes stay");
        assert_eq!(persist.forgettable(70, Slot(5), Slot(9)), Slot(5), "older segments go");
        assert_eq!(persist.forgettable(70, Slot(8), Slot(6)), Slot(6), "but never above the limit");
    }
}
