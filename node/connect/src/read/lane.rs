//! Which bytes of a file belong to which of its splits.
//!
//! Owns: when a file is divided, and how.
//! Must not know: lines, stores, threads, workers.
//! Invariant: a division depends on the size of the file and the number of files alone; every byte belongs to one lane.
//!
//! A large file is cut into stripes of one size, which are dealt to lanes in turn: lane 2 of 16 has the stripes 2, 18,
//! 34, ... Lanes are read side by side, so the places that are read at once stay within sixteen stripes of each other,
//! however large the file is. That bounds the windows that are open at once where event times follow the file, which one
//! contiguous range for each reader would not. A lane's records are a subsequence of the file's: none is late that was
//! not late in the file read from front to back.

use std::fmt;
use std::ops::Range;

/// How files are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Division {
    /// A file of no more bytes is not divided.
    pub whole: u64,
    /// How many bytes make a stripe.
    pub stripe: u64,
    /// How many lanes a file has at most.
    pub lanes: u64,
    /// How many lanes all files of a read have at most, if they are fewer than that.
    pub all: u64,
}

impl Division {
    /// What is used. Part of what a checkpoint means: another division has other splits.
    pub(crate) const USUAL: Self = Self { whole: 64 << 20, stripe: 8 << 20, lanes: 16, all: 1024 };

    /// The lanes of a file of so many bytes, one of `files` that are read at once. How many they are does not follow
    /// the size, so that a file that grows a little is still divided in the same way; some may be empty.
    #[must_use]
    pub(crate) fn lanes(&self, bytes: Option<u64>, files: usize) -> Vec<Lane> {
        let most = self.lanes.min(self.all / (files as u64).max(1)).max(1);
        match bytes {
            Some(bytes) if bytes > self.whole && most > 1 => {
                (0..most).map(|index| Lane { index, of: most, stripe: self.stripe }).collect()
            }
            _ => vec![Lane::WHOLE],
        }
    }
}

/// One of the lanes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lane {
    index: u64,
    of: u64,
    stripe: u64,
}

impl Lane {
    /// The only lane of a file that is not divided.
    pub(crate) const WHOLE: Self = Self { index: 0, of: 1, stripe: u64::MAX };

    /// Whether it is all of its file.
    #[must_use]
    pub(crate) fn is_whole(&self) -> bool {
        *self == Self::WHOLE
    }

    fn nth(&self, stripe: u64) -> Range<u64> {
        let start = stripe.saturating_mul(self.stripe);
        start..start.saturating_add(self.stripe)
    }

    /// Its first stripe.
    #[must_use]
    pub(crate) fn first(&self) -> Range<u64> {
        self.nth(self.index)
    }

    /// Its stripe after the one that starts at `start`; a file that is not divided has none.
    #[must_use]
    pub(crate) fn after(&self, start: u64) -> Option<Range<u64>> {
        (!self.is_whole()).then(|| self.nth(start / self.stripe + self.of))
    }

    /// The stripe that a byte is in, if it is one of its own.
    #[must_use]
    pub(crate) fn at(&self, byte: u64) -> Option<Range<u64>> {
        let stripe = byte / self.stripe;
        (stripe % self.of == self.index).then(|| self.nth(stripe))
    }

    /// How many of the first `bytes` bytes of the file are its own.
    #[must_use]
    pub(crate) fn own(&self, bytes: u64) -> u64 {
        if self.is_whole() {
            return bytes;
        }
        let cycle = self.of * self.stripe;
        let rest = (bytes % cycle).saturating_sub(self.index * self.stripe).min(self.stripe);
        bytes / cycle * self.stripe + rest
    }
}

/// What follows the file's name in that of the split.
impl fmt::Display for Lane {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_whole() {
            return Ok(());
        }
        write!(out, "#{}/{}x{}", self.index, self.of, self.stripe)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_large_files_are_divided_and_into_fewer_lanes_when_there_are_many() {
        let count = |mib: u64, files| Division::USUAL.lanes(Some(mib << 20), files).len();
        assert_eq!([count(64, 1), count(65, 1), count(1 << 20, 1)], [1, 16, 16]);
        assert_eq!([count(1 << 20, 64), count(1 << 20, 256), count(1 << 20, 5000)], [16, 4, 1]);
        assert_eq!(Division::USUAL.lanes(None, 1), [Lane::WHOLE]);
    }

    proptest! {
        #[test]
        fn every_byte_belongs_to_one_lane(bytes in 1u64..500, stripe in 1u64..40, lanes in 1u64..9) {
            let division = Division { whole: 0, stripe, lanes, all: 1024 };
            let lanes = division.lanes(Some(bytes), 1);
            prop_assert_eq!(lanes.iter().map(|lane| lane.own(bytes)).sum::<u64>(), bytes);
            for byte in 0..bytes {
                let owners: Vec<_> = lanes.iter().filter_map(|lane| lane.at(byte)).collect();
                prop_assert_eq!(owners.len(), 1);
                prop_assert!(owners[0].contains(&byte));
            }
            for lane in &lanes {
                prop_assert_eq!(lane.at(lane.first().start), Some(lane.first()));
            }
        }
    }
}
