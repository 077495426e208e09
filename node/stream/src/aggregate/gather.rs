//! Values that are gathered as they are, as tagged bytes, for many groups.
//!
//! Owns: where the values of a group lie, and the bytes in which state files and other workers get them.
//! Must not know: keys, what the values are for.
//! Invariant: a slot's values come in the order in which they were added.
//!
//! All values of all slots lie in one run of bytes, so a group costs no allocation of its own; those of one slot are linked
//! with each other. What a slot that is emptied leaves behind is given up when it is more than what is left.

use arrow_array::ArrayRef;
use pharos_beam::schema::{Type, Value};

use crate::codec::{CodecError, Reader, put_len};
use crate::column::{encode_any_cell_into, encode_any_into};

/// No value.
const NONE: u32 = u32::MAX;
/// Less than so many bytes are not worth the work of giving them up.
const LEFT_BEHIND: u64 = 1 << 16;
/// What a value takes beside its bytes.
const BESIDE: usize = size_of::<u64>() + size_of::<u32>();

/// What the slots have gathered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Gathered {
    bytes: Vec<u8>,
    /// Where the bytes of each value end; they begin where those of the one before do.
    ends: Vec<u64>,
    /// The value that comes after each in its slot.
    next: Vec<u32>,
    slots: Vec<Slot>,
    /// The bytes that no slot has any more.
    left_behind: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    first: u32,
    last: u32,
    count: u32,
    bytes: u64,
}

const EMPTY: Slot = Slot { first: NONE, last: NONE, count: 0, bytes: 0 };

impl Gathered {
    /// Opens a slot.
    pub(super) fn open(&mut self) {
        self.slots.push(EMPTY);
    }

    /// Closes all slots.
    pub(super) fn reset(&mut self) {
        self.slots.clear();
        self.give_up();
    }

    /// For how many slots there is room, and how many bytes each takes, without its values.
    pub(super) fn room(&self) -> (usize, usize) {
        (self.slots.capacity(), size_of::<Slot>())
    }

    /// How many bytes the values of a slot take.
    pub(super) fn heap_bytes(&self, slot: usize) -> usize {
        let Slot { count, bytes, .. } = self.slots[slot];
        bytes as usize + count as usize * BESIDE
    }

    /// How many values a slot has.
    pub(super) fn count(&self, slot: usize) -> usize {
        self.slots[slot].count as usize
    }

    /// Empties a slot.
    pub(super) fn clear(&mut self, slot: usize) {
        let Slot { bytes, count, .. } = std::mem::replace(&mut self.slots[slot], EMPTY);
        if count == 0 {
            return;
        }
        self.left_behind += bytes;
        let all = self.bytes.len() as u64;
        let (slots, each) = self.room();
        if self.left_behind == all {
            self.give_up();
        } else if self.left_behind > LEFT_BEHIND.max((slots * each) as u64) && self.left_behind > all / 2 {
            let whole = std::mem::take(self);
            self.bytes.reserve_exact((all - whole.left_behind) as usize);
            self.slots = vec![EMPTY; whole.slots.len()];
            let filled = (0..whole.slots.len()).filter(|slot| whole.slots[*slot].count > 0);
            filled.for_each(|slot| self.append(slot, &whole, slot));
        }
    }

    fn give_up(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.next.clear();
        self.left_behind = 0;
    }

    /// Adds a value to a slot.
    pub(super) fn push(&mut self, slot: usize, value: &Value) {
        encode_any_into(value, &mut self.bytes);
        self.link(slot);
    }

    /// Adds a cell of a column of type `ty` to a slot.
    pub(super) fn push_cell(&mut self, slot: usize, ty: &Type, values: &ArrayRef, row: usize) {
        encode_any_cell_into(ty, values, row, &mut self.bytes);
        self.link(slot);
    }

    /// Gives a slot the bytes that were added last.
    fn link(&mut self, slot: usize) {
        let start = self.ends.last().copied().unwrap_or(0);
        let end = self.bytes.len() as u64;
        let value = u32::try_from(self.ends.len()).ok().filter(|value| *value != NONE);
        let value = value.expect("a table gathers fewer than 2^32 values");
        self.ends.push(end);
        self.next.push(NONE);
        let of = &mut self.slots[slot];
        match of.last {
            NONE => of.first = value,
            last => self.next[last as usize] = value,
        }
        of.last = value;
        of.count += 1;
        of.bytes += end - start;
    }

    /// Adds what a slot of `other` holds.
    pub(super) fn append(&mut self, slot: usize, other: &Self, from: usize) {
        for bytes in other.items(from) {
            self.bytes.extend_from_slice(bytes);
            self.link(slot);
        }
    }

    /// The slots `slots` alone.
    pub(super) fn take(&self, slots: &[u32]) -> Self {
        let mut taken = Self::default();
        for (to, from) in slots.iter().enumerate() {
            taken.open();
            taken.append(to, self, *from as usize);
        }
        taken
    }

    /// The bytes of each value of a slot.
    pub(super) fn items(&self, slot: usize) -> impl Iterator<Item = &[u8]> {
        let first = Some(self.slots[slot].first).filter(|first| *first != NONE);
        let after = |value: &u32| Some(self.next[*value as usize]).filter(|next| *next != NONE);
        std::iter::successors(first, after).map(|value| {
            let value = value as usize;
            let start = if value == 0 { 0 } else { self.ends[value - 1] };
            &self.bytes[start as usize..self.ends[value] as usize]
        })
    }

    /// Appends a slot: the bytes of its values, and where each of them ends.
    pub(super) fn write(&self, slot: usize, out: &mut Vec<u8>) {
        let Slot { count, bytes, .. } = self.slots[slot];
        put_len(out, usize::try_from(bytes).expect("it is in memory"));
        self.items(slot).for_each(|bytes| out.extend_from_slice(bytes));
        put_len(out, count as usize);
        let mut end = 0;
        for bytes in self.items(slot) {
            end += bytes.len();
            put_len(out, end);
        }
    }

    /// Opens a slot with what `input` holds.
    ///
    /// # Errors
    /// If the bytes are no such slot.
    pub(super) fn read(&mut self, input: &mut Reader<'_>) -> Result<(), CodecError> {
        let bytes = input.bytes()?;
        let count = input.u32()?;
        let slot = self.slots.len();
        self.open();
        let mut start = 0;
        for _ in 0..count {
            let end = input.u32()? as usize;
            let value =
                bytes.get(start..end).ok_or_else(|| input.error("ascending ends of gathered values"))?;
            self.bytes.extend_from_slice(value);
            self.link(slot);
            start = end;
        }
        if start == bytes.len() { Ok(()) } else { Err(input.error("the end of gathered values")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is done to which slot: added to, emptied, or given what another one holds.
    #[derive(Debug, Clone)]
    enum Step {
        Push(usize, i64),
        Clear(usize),
        Append(usize, usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let slot = || 0..4usize;
        let step = prop_oneof![
            6 => (slot(), any::<i64>()).prop_map(|(slot, value)| Step::Push(slot, value)),
            1 => slot().prop_map(Step::Clear),
            1 => (slot(), slot()).prop_map(|(to, from)| Step::Append(to, from)),
        ];
        prop::collection::vec(step, 0..60)
    }

    fn values(gathered: &Gathered, slot: usize) -> Vec<Vec<u8>> {
        gathered.items(slot).map(<[u8]>::to_vec).collect()
    }

    proptest! {
        #[test]
        fn each_slot_has_its_values_in_order_also_when_it_was_written_and_read(steps in steps(), long in any::<bool>()) {
            // Long values are worth giving up.
            let value = |number: i64| Value::String(format!("{number:>width$}", width = if long { 9_000 } else { 1 }));
            let mut gathered = Gathered::default();
            (0..4).for_each(|_| gathered.open());
            let mut model: Vec<Vec<Value>> = vec![Vec::new(); 4];
            for step in steps {
                match step {
                    Step::Push(slot, number) => {
                        gathered.push(slot, &value(number));
                        model[slot].push(value(number));
                    }
                    Step::Clear(slot) => {
                        gathered.clear(slot);
                        model[slot].clear();
                    }
                    Step::Append(to, from) => {
                        let other = gathered.clone();
                        gathered.append(to, &other, from);
                        let more = model[from].clone();
                        model[to].extend(more);
                    }
                }
                let held: u64 = gathered.slots.iter().map(|slot| slot.bytes).sum();
                prop_assert_eq!(held + gathered.left_behind, gathered.bytes.len() as u64);
                prop_assert!(gathered.left_behind <= LEFT_BEHIND.max(held));
            }
            let mut bytes = Vec::new();
            (0..4).for_each(|slot| gathered.write(slot, &mut bytes));
            let mut again = Gathered::default();
            let mut input = Reader::new(&bytes);
            (0..4).for_each(|_| again.read(&mut input).unwrap());
            prop_assert!(input.is_done());
            for (slot, model) in model.iter().enumerate() {
                let expected: Vec<Vec<u8>> = model.iter().map(crate::column::encode_any).collect();
                prop_assert_eq!(&values(&gathered, slot), &expected);
                prop_assert_eq!(&values(&again, slot), &expected);
                prop_assert_eq!(gathered.count(slot), expected.len());
            }
        }
    }

    #[test]
    fn ends_that_do_not_ascend_or_leave_bytes_over_are_refused() {
        for ends in [&[2u32, 1][..], &[2, 9], &[1], &[]] {
            let mut bytes = Vec::new();
            crate::codec::put_bytes(&mut bytes, &[0, 0]);
            put_len(&mut bytes, ends.len());
            ends.iter().for_each(|end| bytes.extend_from_slice(&end.to_le_bytes()));
            let refused = Gathered::default().read(&mut Reader::new(&bytes)).is_err();
            assert!(refused, "{ends:?}");
        }
    }
}
