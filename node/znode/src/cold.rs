//! Values that only the store has, and which ones that are.
//!
//! Owns what is kept of such a value, and the choice of the next ones: a clock with second chances, whose hand passes
//! over the nodes and takes what nobody has read since it came by last. Must not know the store. Invariants: no command
//! needs the bytes of a value that is there already, so members agree whatever they keep in memory; a value becomes cold
//! only when its row is durable, so that the store has it; one call does a bounded amount of work.

use bytes::Bytes;

use crate::State;
use crate::node::{Blob, CutTag, Dirty, data_digest};
use crate::rows::{VERSION, data_key};
use crate::slab::NodeId;
use crate::tree::Tree;

/// What is kept of a cold value. Data no longer than this always stay.
pub(crate) const COLD_BYTES: usize = 12;

/// Nodes that the hand passes in one call.
const STEPS: usize = 2048;
/// Bytes of values that one call makes cold, for each is hashed: more than one turn applies.
const STEP_BYTES: u64 = 2 << 20;

/// What is kept of a cold value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cold {
    digest: u64,
    len: u32,
}

impl Cold {
    /// Of the data of a node with this hash.
    pub(crate) fn of(hash: u64, data: &[u8]) -> Self {
        let len = u32::try_from(data.len()).expect("data fits a frame");
        Self { digest: data_digest(hash, data), len }
    }

    pub(crate) const fn digest(self) -> u64 {
        self.digest
    }

    pub(crate) const fn len(self) -> usize {
        self.len as usize
    }

    pub(crate) fn to_bytes(self) -> [u8; COLD_BYTES] {
        let mut bytes = [0; COLD_BYTES];
        bytes[..8].copy_from_slice(&self.digest.to_le_bytes());
        bytes[8..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let (digest, len) = bytes.split_first_chunk().expect("a digest and a length were written");
        let len = len.try_into().expect("a digest and a length were written");
        Self { digest: u64::from_le_bytes(*digest), len: u32::from_le_bytes(len) }
    }
}

/// A value that has to be read from the store, as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColdValue {
    hash: u64,
    cold: Cold,
}

impl ColdValue {
    pub(crate) const fn new(hash: u64, cold: Cold) -> Self {
        Self { hash, cold }
    }

    /// Its length.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.cold.len()
    }

    /// Never: an empty value needs no store.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.cold.len == 0
    }

    /// The value in a row of the store; nothing if the row holds another one.
    #[must_use]
    pub fn in_row<'a>(&self, row: &'a [u8]) -> Option<&'a [u8]> {
        let data = row.strip_prefix(&[VERSION])?;
        (Cold::of(self.hash, data) == self.cold).then_some(data)
    }
}

/// Which values stay in memory.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    /// Bytes of values that may stay.
    budget: u64,
    /// Bytes of values that are here and could be cold.
    here: u64,
    hand: usize,
    /// Nodes passed since one was made cold, or since one more could be.
    in_vain: usize,
    /// The cut taken last.
    cut: CutTag,
    /// It is not known to be durable.
    unflushed: bool,
}

impl Default for Clock {
    fn default() -> Self {
        Self { budget: u64::MAX, here: 0, hand: 0, in_vain: 0, cut: CutTag::default(), unflushed: false }
    }
}

impl Clock {
    pub(crate) const fn add(&mut self, weight: u64) {
        self.here += weight;
    }

    pub(crate) const fn sub(&mut self, weight: u64) {
        self.here -= weight;
    }

    /// Rows are taken for the store: nodes whose data are among them carry this mark. One cut is under way at a time,
    /// and an old mark that comes up again only delays its nodes.
    pub(crate) const fn take_cut(&mut self) -> CutTag {
        self.cut = self.cut.next();
        self.unflushed = true;
        self.cut
    }

    pub(crate) const fn flushed(&mut self) {
        self.unflushed = false;
        self.in_vain = 0;
    }

    fn holds(&self, cut: CutTag) -> bool {
        self.unflushed && self.cut == cut
    }

    /// Whether one more value may stay.
    fn has_room(&self, weight: u64) -> bool {
        self.budget - self.here.min(self.budget) >= weight
    }
}

impl Tree {
    /// Makes values cold while there are too many in memory; true if there is more to do at once.
    fn cool(&mut self) -> bool {
        let (mut cooled, places) = (0, self.nodes.places());
        for _ in 0..STEPS {
            if self.clock.here <= self.clock.budget || self.clock.in_vain > 2 * places {
                return false;
            }
            if cooled >= STEP_BYTES {
                break;
            }
            self.clock.hand = (self.clock.hand + 1) % places;
            self.clock.in_vain += 1;
            cooled += self.cool_one(NodeId(u32::try_from(self.clock.hand).expect("places have ids")));
        }
        true
    }

    /// Gives the value's bytes back if it can be cold and nobody has read it of late: how many.
    fn cool_one(&mut self, id: NodeId) -> u64 {
        let Some(node) = self.nodes.get(id) else { return 0 };
        let parts = node.parts();
        let weight = parts.weight();
        if weight == 0 || node.dirty.has(Dirty::DATA) || self.clock.holds(node.cut()) || node.take_touched() {
            return 0;
        }
        let Some(data) = parts.data() else { return 0 };
        let blob = Blob::cold(parts.name(), Cold::of(node.hash, data));
        self.nodes[id].set_blob(blob);
        self.clock.sub(weight);
        self.clock.in_vain = 0;
        weight
    }

    /// A value was read from the store: it stays until others need the memory more.
    fn warm(&mut self, path: &str, value: &ColdValue, data: &[u8]) {
        let Some(id) = self.find(path) else { return };
        let node = &mut self.nodes[id];
        if node.hash == value.hash && node.parts().cold() == Some(value.cold) {
            let blob = Blob::new(node.name(), Some(data));
            node.set_blob(blob);
            let weight = node.parts().weight();
            self.clock.add(weight);
            self.clock.in_vain = 0;
        }
    }

    /// What to keep of data just read from their row.
    pub(crate) fn blob_of_row(&self, id: NodeId, data: &[u8]) -> Blob {
        let node = &self.nodes[id];
        let blob = Blob::new(node.name(), Some(data));
        let weight = blob.parts().weight();
        if weight == 0 || self.clock.has_room(weight) {
            return blob;
        }
        Blob::cold(node.name(), Cold::of(node.hash, data))
    }
}

impl State {
    /// Says how many bytes of values may stay in memory; all that need not are left to the store. Short ones do not count.
    pub const fn keep_values(&mut self, bytes: u64) {
        self.tree.clock.budget = bytes;
        self.tree.clock.in_vain = 0;
    }

    /// Bytes of values in memory, but for short ones.
    #[must_use]
    pub const fn values_here(&self) -> u64 {
        self.tree.clock.here
    }

    /// All rows taken so far are durable.
    pub const fn flushed(&mut self) {
        self.tree.clock.flushed();
    }

    /// Makes some values cold if there are too many in memory. True if more are to follow at once; false also if those
    /// left have to be durable first.
    pub fn cool(&mut self) -> bool {
        self.tree.cool()
    }

    /// A value was read from the store as it was when [`crate::Value::Cold`] was given out; it is of no use if the node
    /// has another one now.
    pub fn warm(&mut self, path: &str, value: &ColdValue, data: &[u8]) {
        self.tree.warm(path, value, data);
    }

    /// The key of the row that holds a node's data.
    #[must_use]
    pub fn data_row(path: &str) -> Bytes {
        data_key(path)
    }
}
