//! The bids with the highest price of each ten seconds.

use std::collections::VecDeque;

use super::{BATCH, DELAY, SIZE};
use crate::bench::nexmark::columns::Columns;

/// The highest bids of a window so far.
#[derive(Default)]
struct Highest {
    price: i64,
    rows: Vec<usize>,
}

/// The rows of the bids.
pub(super) fn run(columns: &Columns) -> Vec<usize> {
    let bids = &columns.bids;
    // Windows that may still get bids, the first of which has the number `next`.
    let mut open: VecDeque<Highest> = VecDeque::new();
    let mut next = bids.ts.first().map_or(0, |ts| ts / SIZE);
    let (mut latest, mut answer) = (i64::MIN, Vec::new());
    for (batch, (prices, times)) in bids.price.chunks(BATCH).zip(bids.ts.chunks(BATCH)).enumerate() {
        for (row, (price, ts)) in (batch * BATCH..).zip(prices.iter().zip(times)) {
            // What is before the first open window is too late.
            let Ok(window) = usize::try_from(ts / SIZE - next) else { continue };
            while open.len() <= window {
                open.push_back(Highest::default());
            }
            open[window].add(*price, row);
            latest = latest.max(*ts);
        }
        while next < (latest - DELAY) / SIZE {
            answer.extend(open.pop_front().unwrap_or_default().rows);
            next += 1;
        }
    }
    answer.extend(open.into_iter().flat_map(|window| window.rows));
    answer
}

impl Highest {
    #[inline]
    fn add(&mut self, price: i64, row: usize) {
        if price > self.price {
            self.price = price;
            self.rows.clear();
        }
        if price == self.price {
            self.rows.push(row);
        }
    }
}
