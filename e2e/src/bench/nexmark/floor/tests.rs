//! The kernels beside computations that look at all rows at once.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::*;
use crate::bench::nexmark::files;

const EVENTS: u64 = 20_000;
/// How much slower time passes in the tests of windows: 50 seconds instead of a fifth of one, in steps of which forty are
/// the gap of a session.
const SLOWER: i64 = 250;

/// Events as they are read by all sides.
fn columns() -> Columns {
    let directory = tempfile::tempdir().unwrap();
    files::write(directory.path(), EVENTS, 7).unwrap();
    Columns::read(directory.path()).unwrap()
}

fn slow() -> Columns {
    let mut columns = columns();
    let begin = columns.persons.ts[0];
    let Columns { persons, auctions, bids } = &mut columns;
    for ts in [&mut persons.ts, &mut auctions.ts, &mut bids.ts].into_iter().flatten() {
        *ts = begin + (*ts - begin) * SLOWER;
    }
    columns
}

#[test]
fn q1_is_a_sum_over_all_bids() {
    let columns = columns();
    let total: i64 = columns.bids.price.iter().map(|price| price * 908).sum();
    assert_eq!(answer(Query::Q1, &columns), Answer::of([json!([18_400, total])]));
}

#[test]
fn q4_takes_the_highest_bid_in_the_time_of_each_auction() {
    let columns = columns();
    let (auctions, bids) = (&columns.auctions, &columns.bids);
    let mut closed: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for (auction, id) in auctions.id.iter().enumerate() {
        let time = auctions.ts[auction]..=auctions.expires[auction];
        let its_bids = (0..bids.ts.len()).filter(|bid| bids.auction[*bid] == *id);
        let highest = its_bids.filter(|bid| time.contains(&bids.ts[*bid])).map(|bid| bids.price[bid]).max();
        closed.entry(auctions.category[auction]).or_default().extend(highest);
    }
    assert!(closed.values().map(Vec::len).sum::<usize>() > 1_000);
    let mean = |prices: Vec<i64>| prices.iter().sum::<i64>() / i64::try_from(prices.len()).unwrap();
    let expected = closed.into_iter().map(|(category, prices)| json!([category, mean(prices)]));
    assert_eq!(answer(Query::Q4, &columns), Answer::of(expected));
}

#[test]
fn q5_counts_each_bid_in_five_windows() {
    let columns = slow();
    let mut windows: BTreeMap<i64, BTreeMap<i64, i64>> = BTreeMap::new();
    for (auction, ts) in columns.bids.auction.iter().zip(&columns.bids.ts) {
        for begin in (ts - 9_999..=*ts).filter(|begin| begin % 2_000 == 0) {
            *windows.entry(begin).or_default().entry(*auction).or_default() += 1;
        }
    }
    assert_eq!(windows.len(), 29);
    let most = windows.values().flat_map(|counts| {
        let most = counts.values().max().copied();
        counts
            .iter()
            .filter(move |(_, bids)| Some(**bids) == most)
            .map(|(auction, bids)| json!([auction, bids]))
    });
    assert_eq!(answer(Query::Q5, &columns), Answer::of(most));
}

#[test]
fn q7_finds_all_bids_of_the_highest_price() {
    let mut columns = slow();
    // Two windows have more than one.
    for row in [100, 200, 5_000, 5_001, 5_002] {
        columns.bids.price[row] = 200_000_000;
    }
    let bids = &columns.bids;
    let highest = |window: i64| {
        let rows = (0..bids.ts.len()).filter(move |row| bids.ts[*row] / 10_000 == window);
        let price = rows.clone().map(|row| bids.price[row]).max();
        rows.filter(move |row| Some(bids.price[*row]) == price)
    };
    let windows: BTreeSet<i64> = bids.ts.iter().map(|ts| ts / 10_000).collect();
    let rows: Vec<usize> = windows.into_iter().flat_map(highest).collect();
    assert_eq!(rows.len(), 8);
    let expected = rows.iter().map(|row| json!([bids.auction[*row], bids.bidder[*row], bids.price[*row]]));
    assert_eq!(answer(Query::Q7, &columns), Answer::of(expected));
}

#[test]
fn q8_finds_each_person_once() {
    let columns = slow();
    let (persons, auctions) = (&columns.persons, &columns.auctions);
    let opened: BTreeSet<(i64, i64)> =
        auctions.seller.iter().zip(&auctions.ts).map(|(seller, ts)| (*seller, ts / 10_000)).collect();
    let rows = (0..persons.id.len())
        .filter(|row| opened.contains(&(persons.id[*row], persons.ts[*row] / 10_000)))
        .map(|row| json!([persons.id[row], persons.name.get(row)]));
    let expected = Answer::of(rows);
    assert!((50..350).contains(&expected.rows()), "{} of 400 persons", expected.rows());
    assert_eq!(answer(Query::Q8, &columns), expected);
}

#[test]
fn q11_ends_a_session_after_ten_seconds_and_not_before() {
    let columns = slow();
    let mut times: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for (bidder, ts) in columns.bids.bidder.iter().zip(&columns.bids.ts) {
        times.entry(*bidder).or_default().push(*ts);
    }
    let exact = times.values().any(|times| times.windows(2).any(|pair| pair[1] - pair[0] == 10_000));
    assert!(exact, "no pause is as long as the gap");
    let sessions = times.iter().flat_map(|(bidder, times)| {
        times
            .chunk_by(|before, after| after - before < 10_000)
            .map(move |session| json!([bidder, session.len()]))
    });
    let expected = Answer::of(sessions);
    assert!(expected.rows() > times.len(), "no bidder has two sessions");
    assert_eq!(answer(Query::Q11, &columns), expected);
}
