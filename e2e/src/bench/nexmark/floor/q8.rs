//! Who opened an auction in the ten seconds in which they joined.
//!
//! Both inputs are in the order of time, so a window is a piece of each.

use super::SIZE;
use super::table::Table;
use crate::bench::nexmark::columns::Columns;

#[derive(Clone, Copy, Default)]
struct Person {
    row: usize,
    found: bool,
}

/// The rows of the persons.
pub(super) fn run(columns: &Columns) -> Vec<usize> {
    let (persons, auctions) = (&columns.persons, &columns.auctions);
    let mut joined = Table::<Person>::new(16);
    let mut answer = Vec::new();
    let (mut person, mut auction) = (0, 0);
    while let Some(begin) = persons.ts.get(person) {
        let end = (begin / SIZE + 1) * SIZE;
        joined.clear();
        while persons.ts.get(person).is_some_and(|ts| *ts < end) {
            *joined.entry(persons.id[person]).0 = Person { row: person, found: false };
            person += 1;
        }
        while auctions.ts.get(auction).is_some_and(|ts| *ts < end) {
            if let Some(seller) = joined.get_mut(auctions.seller[auction])
                && auctions.ts[auction] >= end - SIZE
                && !seller.found
            {
                seller.found = true;
                answer.push(seller.row);
            }
            auction += 1;
        }
    }
    answer
}
