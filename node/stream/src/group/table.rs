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

use super::merge::{Folded, flags, read_flags};
use crate::aggregate::Accumulators;
use crate::codec::{CodecError, Reader, put_bytes, put_len, set_len};
use crate::key::{KeyHash, Keys};

/// Where what came for the keys of a table before is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Earlier {
    /// Nowhere else: the table is all there is.
    Here,
    /// In sorted files, perhaps.
    InFiles,
}

/// A part of a table that is written in several has at least so many bytes,
const PART_BYTES: usize = if cfg!(test) { 256 } else { 256 << 10 };
/// and there are not many more parts than this, however large it is.
const PARTS: usize = 64;

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
    /// Whether anything came since the last pane.
    pub fresh: Vec<bool>,
    /// Whether it holds all that came for the key, so that older files hold nothing that counts.
    pub whole: Vec<bool>,
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
            fresh: Vec::new(),
            whole: Vec::new(),
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
        let marks = self.panes.capacity() * 4 + self.fresh.capacity() + self.whole.capacity();
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
        self.fresh.push(false);
        self.whole.push(self.earlier == Earlier::Here);
        slot
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
        slots.iter().for_each(|slot| self.fresh[*slot as usize] = true);
    }

    /// Adds what was added up elsewhere: what the slots `from` of `sums` hold of the keys in the same places of `keys`.
    pub(crate) fn add(&mut self, keys: &Keys, from: Range<u32>, sums: &Accumulators) {
        for from in from {
            let slot = self.slot(keys.bytes(from as usize), keys.hash(from as usize));
            self.accumulators.merge(slot, sums, from);
            self.fresh[slot as usize] = true;
        }
    }

    /// Adds what another table gathered.
    pub(crate) fn merge(&mut self, other: &Self) {
        for from in 0..other.accumulators.len() {
            let key = from as usize;
            let to = self.slot(other.keys.bytes(key), other.keys.hash(key));
            self.accumulators.merge(to, &other.accumulators, from);
            self.fresh[to as usize] |= other.fresh[key];
        }
    }

    /// Takes in the keys of another table, which are not among its own.
    pub(crate) fn absorb(&mut self, other: &Self) {
        for from in 0..other.accumulators.len() {
            let key = from as usize;
            let to = self.slot(other.keys.bytes(key), other.keys.hash(key));
            self.accumulators.merge(to, &other.accumulators, from);
            self.panes[to as usize] = other.panes[key];
            self.fresh[to as usize] = other.fresh[key];
            self.whole[to as usize] = other.whole[key];
        }
    }

    /// Puts all that came for a key, files included, in its slot.
    pub(super) fn settle(&mut self, slot: u32, with: &Folded) {
        self.accumulators.clear(slot);
        self.accumulators.merge(slot, &with.value, 0);
        self.panes[slot as usize] = with.panes;
        self.fresh[slot as usize] = with.fresh;
        self.whole[slot as usize] = true;
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
        let least = PART_BYTES.max(self.memory() / PARTS);
        let mut parts = Vec::new();
        let (mut first, mut start, mut count) = (groups.start, out.len(), 0);
        put_len(out, 0);
        for slot in self.ordered() {
            let at = slot as usize;
            let group = self.keys.hash(at).group().number();
            if out.len() - start > least && group > first {
                set_len(out, start, count);
                parts.push((first..group, out.len()));
                (first, start, count) = (group, out.len(), 0);
                put_len(out, 0);
            }
            put_bytes(out, self.keys.bytes(at));
            out.extend_from_slice(&self.panes[at].to_le_bytes());
            // Where there are no files, that an entry is whole goes without saying.
            out.push(flags(self.fresh[at], self.earlier == Earlier::InFiles && self.whole[at]));
            self.accumulators.write(slot, out);
            count += 1;
        }
        set_len(out, start, count);
        parts.push((first..groups.end, out.len()));
        parts
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
                self.fresh.push(fresh);
                self.whole.push(whole || self.earlier == Earlier::Here);
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
