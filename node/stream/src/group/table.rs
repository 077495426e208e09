//! The groups of one slice: from key to accumulators.
//!
//! Owns: open addressing over canonical key bytes, accumulators inline by slot, pane counts.
//! Must not know: time. Its owner knows which slice it is.
//! Invariant: a table written and read back is the same table for every key; it is written, and its
//! results come out, in the order of the keys' hashes, whatever came first.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::ArrayRef;
use hashbrown::HashTable;
use pharos_beam::plan::Aggregation;
use pharos_window::Accumulation;

use super::layers::{BESIDE, Interval, Layer, Layers};
use super::merge::{Folded, flags, read_flags};
use super::parts::Parts;
use crate::aggregate::Accumulators;
use crate::codec::{CodecError, Reader, put_bytes};
use crate::key::{KeyHash, Keys};

/// Where what came for the keys of a table before is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Earlier {
    /// Nowhere else: the table is all there is.
    Here,
    /// In sorted files, perhaps.
    InFiles,
}

/// What is known of a slot beside what it holds: two flags, and in the bits above them when it changed last.
#[derive(Debug, Clone, Copy)]
struct Mark(u8);

impl Mark {
    /// Something came since the last pane.
    const FRESH: u8 = 1;
    /// It holds all that came for the key, so that older files hold nothing that counts.
    const WHOLE: u8 = 2;

    fn new(fresh: bool, whole: bool, changed: Interval) -> Self {
        Self(u8::from(fresh) * Self::FRESH + u8::from(whole) * Self::WHOLE + (changed.bits() << 2))
    }

    const fn is_fresh(self) -> bool {
        self.0 & Self::FRESH != 0
    }

    const fn is_whole(self) -> bool {
        self.0 & Self::WHOLE != 0
    }

    const fn changed(self) -> Interval {
        Interval::of_bits(self.0 >> 2)
    }

    /// Something came.
    const fn touched(self, now: Interval) -> Self {
        Self(self.0 & Self::WHOLE | Self::FRESH | now.bits() << 2)
    }
}

/// One table.
#[derive(Debug, Clone)]
pub(crate) struct SliceTable {
    index: HashTable<u32>,
    /// The keys by slot.
    pub keys: Keys,
    /// What they have gathered.
    pub accumulators: Accumulators,
    /// How many panes each has fired.
    pub panes: Vec<u32>,
    marks: Vec<Mark>,
    /// What checkpoints have of it.
    layers: Layers,
    /// Where what came before is.
    earlier: Earlier,
}

/// No slot yet, for a table of which this came before.
fn accumulators(aggregations: &Arc<[Aggregation]>, earlier: Earlier) -> Accumulators {
    match earlier {
        Earlier::Here => Accumulators::new(aggregations),
        Earlier::InFiles => Accumulators::apart(aggregations),
    }
}

impl SliceTable {
    /// An empty table.
    #[must_use]
    pub(crate) fn new(aggregations: &Arc<[Aggregation]>, earlier: Earlier) -> Self {
        Self {
            index: HashTable::new(),
            keys: Keys::default(),
            accumulators: accumulators(aggregations, earlier),
            panes: Vec::new(),
            marks: Vec::new(),
            layers: Layers::new(),
            earlier,
        }
    }

    /// Where what came before is.
    #[must_use]
    pub(crate) const fn earlier(&self) -> Earlier {
        self.earlier
    }

    /// Whether it has no key.
    #[must_use]
    pub(crate) const fn is_empty(&self) -> bool {
        self.accumulators.is_empty()
    }

    /// How many bytes it takes, roughly.
    #[must_use]
    pub(crate) fn memory(&self) -> usize {
        // A place of the index is a slot and a byte; an eighth of them stays free.
        let index = self.index.capacity() * 6;
        let marks = self.panes.capacity() * 4 + self.marks.capacity();
        index + marks + self.keys.memory() + self.accumulators.memory()
    }

    /// The slot of a key, opened if it is new.
    pub(crate) fn slot(&mut self, key: &[u8], hash: KeyHash) -> u32 {
        let Self { index, keys, .. } = self;
        let same = |slot: &u32| keys.hash(*slot as usize) == hash && keys.bytes(*slot as usize) == key;
        if let Some(slot) = index.find(hash.0, same) {
            return *slot;
        }
        let slot = self.accumulators.push();
        self.enter(key, hash, slot);
        self.panes.push(0);
        self.marks.push(Mark::new(false, self.earlier == Earlier::Here, self.layers.now()));
        slot
    }

    /// Whether anything came for a slot since its last pane.
    #[must_use]
    pub(crate) fn is_fresh(&self, slot: u32) -> bool {
        self.marks[slot as usize].is_fresh()
    }

    /// Whether anything came for any slot since its last pane.
    #[must_use]
    pub(crate) fn has_fresh(&self) -> bool {
        self.marks.iter().any(|mark| mark.is_fresh())
    }

    /// Whether a slot holds all that came for its key, so that older files hold nothing that counts.
    #[must_use]
    pub(crate) fn is_whole(&self, slot: u32) -> bool {
        self.marks[slot as usize].is_whole()
    }

    fn touch(&mut self, slot: u32) {
        let mark = &mut self.marks[slot as usize];
        *mark = mark.touched(self.layers.now());
    }

    fn enter(&mut self, key: &[u8], hash: KeyHash, slot: u32) {
        self.keys.push(key, hash);
        let keys = &self.keys;
        self.index.insert_unique(hash.0, slot, |slot| keys.hash(*slot as usize).0);
    }

    /// Adds the rows `rows` of a batch.
    pub(crate) fn update(&mut self, keys: &Keys, rows: &[u32], values: &[ArrayRef]) {
        let slots: Vec<u32> =
            rows.iter().map(|row| self.slot(keys.bytes(*row as usize), keys.hash(*row as usize))).collect();
        self.accumulators.update(&slots, rows, values);
        slots.iter().for_each(|slot| self.touch(*slot));
    }

    /// Adds what was added up elsewhere: what the slots `from` of `sums` hold of the keys in the same places of `keys`.
    pub(crate) fn add(&mut self, keys: &Keys, from: Range<u32>, sums: &Accumulators) {
        for from in from {
            let slot = self.slot(keys.bytes(from as usize), keys.hash(from as usize));
            self.accumulators.merge(slot, sums, from);
            self.touch(slot);
        }
    }

    /// Adds what another table gathered.
    pub(crate) fn merge(&mut self, other: &Self) {
        for from in 0..other.accumulators.len() {
            let key = from as usize;
            let to = self.slot(other.keys.bytes(key), other.keys.hash(key));
            self.accumulators.merge(to, &other.accumulators, from);
            if other.is_fresh(from) {
                self.touch(to);
            }
        }
    }

    /// Takes in the keys of another table, each instead of what it has for it.
    pub(crate) fn absorb(&mut self, other: &Self) {
        for from in 0..other.accumulators.len() {
            let key = from as usize;
            let to = self.slot(other.keys.bytes(key), other.keys.hash(key));
            self.accumulators.clear(to);
            self.accumulators.merge(to, &other.accumulators, from);
            self.panes[to as usize] = other.panes[key];
            self.marks[to as usize] =
                Mark::new(other.is_fresh(from), other.is_whole(from), self.layers.now());
        }
    }

    /// Puts all that came for a key, files included, in its slot.
    pub(super) fn settle(&mut self, slot: u32, with: &Folded) {
        self.accumulators.clear(slot);
        self.accumulators.merge(slot, &with.value, 0);
        self.panes[slot as usize] = with.panes;
        self.marks[slot as usize] = Mark::new(with.fresh, true, self.layers.now());
    }

    /// Notes that a pane of these slots has fired.
    pub(super) fn close_pane(&mut self, slots: &[u32], accumulation: Accumulation) {
        for slot in slots {
            self.panes[*slot as usize] += 1;
            self.marks[*slot as usize] = Mark::new(false, self.is_whole(*slot), self.layers.now());
            if accumulation == Accumulation::Discarding {
                self.accumulators.clear(*slot);
            }
        }
    }

    /// What a checkpoint writes of it now: all of it, for which there is none here, or the slots that changed, as a table
    /// in which no key is found.
    pub(super) fn barrier(&mut self) -> (Layer, Option<Self>) {
        let mut slots = Vec::new();
        let Self { layers, keys, accumulators, marks, .. } = self;
        let all = keys.len() * BESIDE + keys.byte_len() + accumulators.heap();
        let layer = layers.barrier(all, |after| {
            slots.extend(
                (0..).zip(marks.iter()).filter(|(_, mark)| mark.changed() > after).map(|(slot, _)| slot),
            );
            let key = |slot: &u32| keys.bytes(*slot as usize).len();
            slots.iter().map(|slot| BESIDE + key(slot) + accumulators.heap_bytes(*slot)).sum()
        });
        match layer {
            Layer::Base => {
                let before =
                    |mark: &mut Mark| *mark = Mark::new(mark.is_fresh(), mark.is_whole(), Interval::BEFORE);
                self.marks.iter_mut().for_each(before);
                (layer, None)
            }
            Layer::Update { .. } => (layer, Some(self.take(&slots))),
        }
    }

    /// The slots `slots` alone, without a way to find a key.
    fn take(&self, slots: &[u32]) -> Self {
        Self {
            index: HashTable::new(),
            keys: self.keys.take(slots),
            accumulators: self.accumulators.take(slots),
            panes: slots.iter().map(|slot| self.panes[*slot as usize]).collect(),
            marks: slots.iter().map(|slot| self.marks[*slot as usize]).collect(),
            layers: Layers::new(),
            earlier: self.earlier,
        }
    }

    /// The slots in the order of hashes, which is that of key groups, then of keys.
    #[must_use]
    pub(crate) fn ordered(&self) -> Vec<u32> {
        let hash = |slot: u32| self.keys.hash(slot as usize);
        let key = |slot: u32| self.keys.bytes(slot as usize);
        let mut slots: Vec<_> = (0..self.accumulators.len()).map(|slot| (hash(slot), slot)).collect();
        slots.sort_unstable_by(|(hash, slot), (other_hash, other)| {
            hash.cmp(other_hash).then_with(|| key(*slot).cmp(key(*other)))
        });
        slots.into_iter().map(|(_, slot)| slot).collect()
    }

    /// Appends the bytes of the table, which is of the key groups `groups`, in the order of hashes. A large one comes in
    /// parts, each a table by itself: the key groups of each and where it ends.
    pub(crate) fn write(&self, groups: Range<u32>, out: &mut Vec<u8>) -> Vec<(Range<u32>, usize)> {
        let mut parts = Parts::new(groups, self.memory(), out);
        for slot in self.ordered() {
            let at = slot as usize;
            let out = parts.entry(self.keys.hash(at).group());
            put_bytes(out, self.keys.bytes(at));
            out.extend_from_slice(&self.panes[at].to_le_bytes());
            // Where there are no files, that an entry is whole goes without saying.
            out.push(flags(self.is_fresh(slot), self.earlier == Earlier::InFiles && self.is_whole(slot)));
            self.accumulators.write(slot, out);
        }
        parts.finish()
    }

    /// Reads a table, or a part of one, whose keys are not among its own, and takes in those that `mine` claims. Every key
    /// is read, for the bytes of one do not say where the next begins.
    ///
    /// # Errors
    /// If the bytes are not such a table.
    pub(crate) fn read(
        &mut self,
        input: &mut Reader<'_>,
        mine: impl Fn(KeyHash) -> bool,
    ) -> Result<(), CodecError> {
        let count = input.u32()?;
        let mut others = None;
        for _ in 0..count {
            let key = input.bytes()?;
            let hash = KeyHash::of(key);
            let panes = input.u32()?;
            let (fresh, whole) = read_flags(input)?;
            if mine(hash) {
                let slot = self.accumulators.read(input)?;
                self.enter(key, hash, slot);
                self.panes.push(panes);
                let whole = whole || self.earlier == Earlier::Here;
                self.marks.push(Mark::new(fresh, whole, self.layers.now()));
            } else {
                let others = others
                    .get_or_insert_with(|| accumulators(self.accumulators.aggregations(), self.earlier));
                others.reset();
                others.read(input)?;
            }
        }
        Ok(())
    }
}
