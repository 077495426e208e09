//! The groups of one slice: from key to accumulators.
//!
//! Owns: open addressing over canonical key bytes, accumulators inline by slot, pane counts.
//! Must not know: time. Its owner knows which slice it is.
//! Invariant: slots are in the order in which keys first came, and a table written and read back
//! is the same table for every key.

use std::sync::Arc;

use arrow_array::ArrayRef;
use hashbrown::HashTable;
use pharos_beam::plan::Aggregation;

use crate::aggregate::Accumulators;
use crate::codec::{CodecError, Reader, put_bytes, put_len};
use crate::key::{KeyHash, Keys};

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
}

impl SliceTable {
    /// An empty table.
    #[must_use]
    pub(crate) fn new(aggregations: &Arc<[Aggregation]>) -> Self {
        Self {
            index: HashTable::new(),
            keys: Keys::default(),
            accumulators: Accumulators::new(aggregations),
            panes: Vec::new(),
            fresh: Vec::new(),
        }
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

    /// Adds what another table gathered.
    pub(crate) fn merge(&mut self, other: &Self) {
        for from in 0..other.accumulators.len() {
            let key = from as usize;
            let to = self.slot(other.keys.bytes(key), other.keys.hash(key));
            self.accumulators.merge(to, &other.accumulators, from);
            self.fresh[to as usize] |= other.fresh[key];
        }
    }

    /// The slots in the order of their key groups, then in the order in which they came.
    #[must_use]
    pub(crate) fn by_group(&self) -> Vec<u32> {
        let mut slots: Vec<u32> = (0..self.accumulators.len()).collect();
        slots.sort_by_key(|slot| self.keys.hash(*slot as usize).group());
        slots
    }

    /// Appends the bytes of the table, ordered by key group.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        put_len(out, self.accumulators.len() as usize);
        for slot in self.by_group() {
            put_bytes(out, self.keys.bytes(slot as usize));
            out.extend_from_slice(&self.panes[slot as usize].to_le_bytes());
            out.push(u8::from(self.fresh[slot as usize]));
            self.accumulators.write(slot, out);
        }
    }

    /// Reads a table, keeping the keys that `mine` claims. Every key is read, for the bytes of one do
    /// not say where the next begins.
    ///
    /// # Errors
    /// If the bytes are not such a table.
    pub(crate) fn read(
        aggregations: &Arc<[Aggregation]>,
        input: &mut Reader<'_>,
        mine: impl Fn(KeyHash) -> bool,
        into: &mut Self,
    ) -> Result<(), CodecError> {
        let count = input.u32()?;
        let mut scratch = Accumulators::new(aggregations);
        for _ in 0..count {
            let key = input.bytes()?;
            let hash = KeyHash::of(key);
            let (panes, fresh) = (input.u32()?, input.bool()?);
            if mine(hash) {
                let slot = into.accumulators.read(input)?;
                into.enter(key, hash, slot);
                into.panes.push(panes);
                into.fresh.push(fresh);
            } else {
                scratch.read(input)?;
            }
        }
        Ok(())
    }
}
