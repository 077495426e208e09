//! The values of the general path: what all windows of all keys have gathered, in slots side by side.
//!
//! Owns: which slots are open, the rows that are still to be added.
//! Must not know: keys, windows, disks.
//! Invariant: a slot is given its rows in the order in which they came; one that is closed is empty.

use arrow_array::ArrayRef;
use pharos_window::Gather;

use super::GroupSpec;
use crate::aggregate::Accumulators;
use crate::codec::{CodecError, Reader};

/// The values of all windows of all keys, side by side.
#[derive(Debug)]
pub(super) struct Values {
    /// What the slots hold.
    pub(super) accumulators: Accumulators,
    /// The slots that are closed, and empty.
    free: Vec<u32>,
    /// The slots to which rows of the batch are still to be added, and these.
    slots: Vec<u32>,
    rows: Vec<u32>,
    /// One slot, or none, for what is read.
    read: Accumulators,
}

impl Values {
    /// No slot yet.
    pub(super) fn new(spec: &GroupSpec) -> Self {
        let [accumulators, read] = [(); 2].map(|()| Accumulators::new(&spec.aggregations));
        Self { accumulators, free: Vec::new(), slots: Vec::new(), rows: Vec::new(), read }
    }

    /// How many bytes the open slots take, roughly.
    pub(super) fn memory(&self) -> usize {
        self.accumulators.memory_of(self.accumulators.len() as usize - self.free.len())
    }

    /// Opens a slot with what `input` holds.
    ///
    /// # Errors
    /// If the bytes are no such slot.
    pub(super) fn read(&mut self, input: &mut Reader<'_>) -> Result<u32, CodecError> {
        if self.free.is_empty() {
            return self.accumulators.read(input);
        }
        self.read.reset();
        let read = self.read.read(input)?;
        let slot = self.open();
        self.accumulators.merge(slot, &self.read, read);
        Ok(slot)
    }

    /// Opens a slot in which nothing is.
    pub(super) fn open(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| self.accumulators.push())
    }

    /// Closes a slot.
    pub(super) fn close(&mut self, slot: u32) {
        self.accumulators.clear(slot);
        self.free.push(slot);
    }

    /// Whether all slots are closed.
    #[cfg(test)]
    pub(super) fn are_closed(&self) -> bool {
        self.free.len() == self.accumulators.len() as usize
    }

    /// Gives all slots up, of which none is open.
    pub(super) fn reset(&mut self) {
        self.accumulators.reset();
        self.free.clear();
    }

    /// Takes the rows of a batch with the values `columns`.
    pub(super) const fn of<'a>(&'a mut self, columns: &'a [ArrayRef]) -> Adding<'a> {
        Adding { values: self, columns }
    }
}

/// Values to which rows are added. What a slot is given comes in the order of the rows, which are added together where
/// nothing comes between them.
pub(super) struct Adding<'a> {
    values: &'a mut Values,
    columns: &'a [ArrayRef],
}

impl Adding<'_> {
    /// Adds a row of the batch to a slot, at the next [`Self::flush`] at the latest.
    pub(super) fn add(&mut self, slot: u32, row: u32) {
        self.values.slots.push(slot);
        self.values.rows.push(row);
    }

    /// Adds what is still to be added.
    pub(super) fn flush(&mut self) {
        let Values { accumulators, slots, rows, .. } = &mut *self.values;
        accumulators.update(slots, rows, self.columns);
        slots.clear();
        rows.clear();
    }
}

impl Gather for Adding<'_> {
    type Place = u32;

    fn open(&mut self) -> u32 {
        self.values.open()
    }

    fn join(&mut self, earlier: u32, later: u32) {
        self.flush();
        self.values.accumulators.join(earlier, later);
        self.values.close(later);
    }

    fn close(&mut self, slot: u32) {
        self.flush();
        self.values.close(slot);
    }
}
