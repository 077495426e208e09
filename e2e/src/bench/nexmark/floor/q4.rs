//! The mean of the prices at which auctions close, by category.
//!
//! An auction is kept from its begin until no bid can be in its time any more.

use std::collections::VecDeque;

use super::table::Table;
use crate::bench::nexmark::columns::{Auctions, Columns};
use crate::bench::nexmark::events::LONGEST_AUCTION;

/// Categories are below.
const CATEGORIES: usize = 16;

#[derive(Clone, Copy, Default)]
struct Auction {
    begin: i64,
    end: i64,
    /// Zero before the first bid.
    highest: i64,
    category: usize,
}

/// Of the closing prices of a category.
#[derive(Clone, Copy, Default)]
struct Prices {
    sum: i64,
    count: i64,
}

/// Each category with its mean, without the fraction.
pub(super) fn run(columns: &Columns) -> Vec<(i64, i64)> {
    let (auctions, bids) = (&columns.auctions, &columns.bids);
    let mut open = Open { table: Table::new(12), ends: VecDeque::new(), next: 0 };
    let mut prices = [Prices::default(); CATEGORIES];
    for ((id, price), ts) in bids.auction.iter().zip(&bids.price).zip(&bids.ts) {
        open.advance(auctions, *ts);
        let Some(auction) = open.table.get_mut(*id) else { continue };
        if (auction.begin..=auction.end).contains(ts) && *price > auction.highest {
            let category = &mut prices[auction.category % CATEGORIES];
            category.count += i64::from(auction.highest == 0);
            category.sum += price - auction.highest;
            auction.highest = *price;
        }
    }
    let sold = (0..).zip(prices).filter(|(_, prices)| prices.count > 0);
    sold.map(|(category, prices)| (category, prices.sum / prices.count)).collect()
}

/// The auctions that a bid of now may be for.
struct Open {
    table: Table<Auction>,
    /// When each is over for certain, in the order of their begins.
    ends: VecDeque<(i64, i64)>,
    /// The row of the first auction that has not begun.
    next: usize,
}

impl Open {
    #[inline]
    fn advance(&mut self, auctions: &Auctions, now: i64) {
        while self.next < auctions.ts.len() && auctions.ts[self.next] <= now {
            self.begin(auctions);
        }
        while let Some((end, id)) = self.ends.front()
            && *end < now
        {
            self.table.remove(*id);
            self.ends.pop_front();
        }
    }

    fn begin(&mut self, auctions: &Auctions) {
        let (row, id) = (self.next, auctions.id[self.next]);
        *self.table.entry(id).0 = Auction {
            begin: auctions.ts[row],
            end: auctions.expires[row],
            highest: 0,
            category: auctions.category[row] as usize,
        };
        self.ends.push_back((auctions.ts[row] + LONGEST_AUCTION, id));
        self.next += 1;
    }
}
