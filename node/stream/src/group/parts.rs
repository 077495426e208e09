//! Entries of state in parts by key group, so that each can be read alone.
//!
//! Owns: where a part ends, the count that each begins with.
//! Must not know: what an entry is.
//! Invariant: the entries of a key group are in one part; entries come in the order of their key groups.

use std::ops::Range;

use crate::codec::{put_len, set_len};
use crate::key::KeyGroup;
use crate::plant;

/// A part of state that is written in several has at least so many bytes,
const LEAST: usize = if cfg!(test) { 256 } else { 256 << 10 };
/// and there are not many more parts than this, however large it is.
const MOST: usize = 64;

/// Parts in the making.
pub(super) struct Parts<'a> {
    out: &'a mut Vec<u8>,
    end: u32,
    least: usize,
    done: Vec<(Range<u32>, usize)>,
    /// The first key group of the part, that of its last entry, where it starts, and how many entries it has.
    first: u32,
    last: u32,
    start: usize,
    count: usize,
}

impl<'a> Parts<'a> {
    /// The parts of the key groups `groups`, at the end of `out`, in all of about `bytes` bytes.
    pub(super) fn new(groups: Range<u32>, bytes: usize, out: &'a mut Vec<u8>) -> Self {
        let (Range { start: first, end }, start) = (groups, out.len());
        put_len(out, 0);
        let least = LEAST.max(bytes / MOST);
        Self { out, end, least, done: Vec::new(), first, last: first, start, count: 0 }
    }

    /// Begins an entry of a key group, which is to be appended to what is given.
    pub(super) fn entry(&mut self, group: KeyGroup) -> &mut Vec<u8> {
        let group = group.number();
        let last = if plant::divides_key_groups() { self.first } else { self.last };
        if self.out.len() - self.start > self.least && group > last {
            self.close(group);
            put_len(self.out, 0);
        }
        self.last = group;
        self.count += 1;
        self.out
    }

    fn close(&mut self, end: u32) {
        set_len(self.out, self.start, self.count);
        self.done.push((self.first..end, self.out.len()));
        (self.first, self.start, self.count) = (end, self.out.len(), 0);
    }

    /// The key groups of each part and where it ends.
    pub(super) fn finish(mut self) -> Vec<(Range<u32>, usize)> {
        self.close(self.end);
        self.done
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::Reader;
    use crate::key::KeyHash;

    proptest! {
        #[test]
        fn each_part_says_which_key_groups_it_may_hold_and_all_entries_of_one_are_in_it(
            keys in prop::collection::vec(any::<u16>(), 0..600), size in 1usize..200, groups in 1u32..KeyGroup::COUNT,
        ) {
            // Few key groups, so that many entries share one.
            let hashes = keys.iter().map(|key| KeyHash::of(&key.to_le_bytes()).group());
            let mut entries: Vec<KeyGroup> =
                hashes.filter(|group| group.number() % 16 == 0 && group.number() < groups).collect();
            entries.sort_unstable();
            let mut bytes = vec![7; 3];
            let mut parts = Parts::new(0..groups, 0, &mut bytes);
            for group in &entries {
                let out = parts.entry(*group);
                out.extend(std::iter::repeat_n(0, size));
                out.extend_from_slice(&group.number().to_le_bytes());
            }
            let (mut read, mut begin, mut first) = (Vec::new(), 3, 0);
            for (range, end) in parts.finish() {
                prop_assert_eq!((range.start, range.is_empty()), (first, false));
                let mut input = Reader::new(&bytes[begin..end]);
                (begin, first) = (end, range.end);
                for _ in 0..input.u32().unwrap() {
                    input.take(size).unwrap();
                    let group = input.u32().unwrap();
                    prop_assert!(range.contains(&group), "{group} is in a part of {range:?}");
                    read.push(group);
                }
                prop_assert!(input.is_done());
            }
            prop_assert_eq!((begin, first), (bytes.len(), groups));
            prop_assert_eq!(read, entries.iter().map(|group| group.number()).collect::<Vec<_>>());
        }
    }
}
