//! All prices in another currency: how many, and their sum.

use std::hint::black_box;

use super::BATCH;
use crate::bench::nexmark::columns::Columns;

/// A thousand times the rate, so that sums do not depend on their order.
const RATE: i64 = 908;

#[derive(Default)]
pub(super) struct Converted {
    pub(super) bids: i64,
    pub(super) total: i64,
}

pub(super) fn run(columns: &Columns) -> Converted {
    let mut converted = [0; BATCH];
    let mut answer = Converted::default();
    for prices in columns.bids.price.chunks(BATCH) {
        for (to, price) in converted.iter_mut().zip(prices) {
            *to = price * RATE;
        }
        // The converted column is the query's; without this it would exist in registers only.
        let converted = black_box(&converted[..prices.len()]);
        answer.bids += converted.len() as i64;
        answer.total += converted.iter().sum::<i64>();
    }
    answer
}
