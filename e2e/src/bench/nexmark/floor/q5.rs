//! The auctions with the most bids in the last ten seconds, every two seconds.
//!
//! Bids are counted once, by slices of two seconds. A window's counts are those of the window before, with a slice more
//! and a slice less.

use std::collections::VecDeque;

use super::table::Table;
use super::{BATCH, DELAY, SIZE};
use crate::bench::nexmark::columns::Columns;

const PERIOD: i64 = 2_000;
const SLICES: usize = (SIZE / PERIOD) as usize;
/// Of tables when they begin.
const BITS: u32 = 14;

/// Auctions with their counts, window by window.
pub(super) fn run(columns: &Columns) -> Vec<(i64, i64)> {
    let bids = &columns.bids;
    let mut windows = Windows::new(bids.ts.first().map_or(0, |ts| ts / PERIOD));
    let mut latest = i64::MIN;
    for (auctions, times) in bids.auction.chunks(BATCH).zip(bids.ts.chunks(BATCH)) {
        for (auction, ts) in auctions.iter().zip(times) {
            windows.count(*auction, *ts);
            latest = latest.max(*ts);
        }
        while windows.next < (latest - DELAY) / PERIOD {
            windows.fire();
        }
    }
    while !windows.counts.is_empty() || !windows.open.is_empty() {
        windows.fire();
    }
    windows.most
}

struct Windows {
    /// Slices that may still get bids, the first of which has the number `next`.
    open: VecDeque<Table<i64>>,
    next: i64,
    /// The slices of the last window.
    closed: VecDeque<Table<i64>>,
    /// The sum of those.
    counts: Table<i64>,
    most: Vec<(i64, i64)>,
}

impl Windows {
    fn new(next: i64) -> Self {
        let counts = Table::new(BITS);
        Self { open: VecDeque::new(), next, closed: VecDeque::new(), counts, most: Vec::new() }
    }

    #[inline]
    fn count(&mut self, auction: i64, ts: i64) {
        // What is before the first open slice is too late.
        let Ok(slice) = usize::try_from(ts / PERIOD - self.next) else { return };
        while self.open.len() <= slice {
            self.open.push_back(Table::new(BITS));
        }
        *self.open[slice].entry(auction).0 += 1;
    }

    /// Ends the next slice, and with it a window.
    fn fire(&mut self) {
        let slice = self.open.pop_front().unwrap_or_else(|| Table::new(0));
        self.next += 1;
        for (auction, bids) in slice.iter() {
            *self.counts.entry(auction).0 += bids;
        }
        self.closed.push_back(slice);
        if self.closed.len() > SLICES {
            self.forget();
        }
        let most = self.counts.iter().map(|(_, bids)| bids).max();
        self.most.extend(self.counts.iter().filter(|(_, bids)| Some(*bids) == most));
    }

    /// Takes the oldest slice out of the counts.
    fn forget(&mut self) {
        for (auction, bids) in self.closed.pop_front().iter().flat_map(Table::iter) {
            let (count, _) = self.counts.entry(auction);
            *count -= bids;
            if *count == 0 {
                self.counts.remove(auction);
            }
        }
    }
}
