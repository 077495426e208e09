//! The events of the Nexmark benchmark, by seed.
//!
//! Owns their proportions, identifiers, prices and times, as the published generator has them (persons, auctions and
//! bids as 1:3:46, half of the bids for a hot auction, three quarters of bids and auctions by hot persons). Must not know
//! where they are kept. Invariant: an event follows from the seed and its number alone, on every machine, and its time is
//! not before that of the one with the number before.

use pharos_crowd::Rng;

/// Events of one round: the first is a person, the next are auctions, the rest are bids.
const ROUND: u64 = 50;
const AUCTIONS: u64 = 3;
/// Of the events in a millisecond, a hundred thousand a second.
const PACE: u64 = 100;
/// A point in time with which windows of any length begin that are used here.
const BEGIN: i64 = 1_700_000_000_000;
/// Before the first identifier of a kind.
const IDS: u64 = 1_000;
/// Of so many one is hot at a time.
const HOT: u64 = 100;
/// Auctions and persons that are of interest: the last ones, and a few that do not exist yet.
const ACTIVE_AUCTIONS: u64 = 100;
const ACTIVE_PERSONS: u64 = 1_000;
const AHEAD: u64 = 10;
/// Milliseconds from the begin of an auction to its end, at most.
pub(super) const LONGEST_AUCTION: i64 = 32;

const CITIES: [&str; 10] = [
    "Phoenix",
    "Los Angeles",
    "San Francisco",
    "Boise",
    "Portland",
    "Bend",
    "Redmond",
    "Seattle",
    "Kent",
    "Cheyenne",
];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const CATEGORIES: u64 = 5;
const FIRST_CATEGORY: u64 = 10;

pub(super) enum Event {
    Person(Person),
    Auction(Auction),
    Bid(Bid),
}

pub(super) struct Person {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) city: &'static str,
    pub(super) state: &'static str,
    pub(super) ts: i64,
    pub(super) extra: String,
}

pub(super) struct Auction {
    pub(super) id: i64,
    pub(super) item_name: String,
    pub(super) initial_bid: i64,
    pub(super) reserve: i64,
    pub(super) ts: i64,
    pub(super) expires: i64,
    pub(super) seller: i64,
    pub(super) category: i64,
    pub(super) extra: String,
}

pub(super) struct Bid {
    pub(super) auction: i64,
    pub(super) bidder: i64,
    pub(super) price: i64,
    pub(super) ts: i64,
    pub(super) extra: String,
}

/// The event of this number.
pub(super) fn event(seed: u64, number: u64) -> Event {
    let (round, place) = (number / ROUND, number % ROUND);
    let ts = BEGIN + signed(number / PACE);
    let mut draw = Draw(Rng::new(seed ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93)));
    match place {
        0 => Event::Person(person(round, ts, &mut draw)),
        1..=AUCTIONS => Event::Auction(auction(round, round * AUCTIONS + place - 1, ts, &mut draw)),
        _ => Event::Bid(bid(round, round * AUCTIONS + AUCTIONS - 1, ts, &mut draw)),
    }
}

fn person(last_person: u64, ts: i64, draw: &mut Draw) -> Person {
    Person {
        id: id(last_person),
        name: draw.letters(8, 16),
        city: draw.one_of(&CITIES),
        state: draw.one_of(&STATES),
        ts,
        extra: draw.letters(80, 120),
    }
}

fn auction(last_person: u64, last_auction: u64, ts: i64, draw: &mut Draw) -> Auction {
    let hot = last_person / HOT * HOT;
    let initial_bid = draw.price();
    Auction {
        id: id(last_auction),
        item_name: draw.letters(3, 20),
        initial_bid,
        reserve: initial_bid + draw.price(),
        ts,
        expires: ts + 1 + signed(draw.0.below(LONGEST_AUCTION.unsigned_abs())),
        seller: id(if draw.0.one_in(4) { draw.person(last_person) } else { hot }),
        category: signed(FIRST_CATEGORY + draw.0.below(CATEGORIES)),
        extra: draw.letters(300, 400),
    }
}

fn bid(last_person: u64, last_auction: u64, ts: i64, draw: &mut Draw) -> Bid {
    let hot_auction = last_auction / HOT * HOT;
    let hot_person = last_person / HOT * HOT + 1;
    Bid {
        auction: id(if draw.0.one_in(2) { draw.auction(last_auction) } else { hot_auction }),
        bidder: id(if draw.0.one_in(4) { draw.person(last_person) } else { hot_person }),
        price: draw.price(),
        ts,
        extra: draw.letters(55, 82),
    }
}

fn id(number: u64) -> i64 {
    signed(IDS + number)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("numbers of events are far below 2^63")
}

struct Draw(Rng);

impl Draw {
    fn one_of(&mut self, texts: &[&'static str]) -> &'static str {
        texts[self.0.index(texts.len())]
    }

    /// One of the active persons.
    fn person(&mut self, last: u64) -> u64 {
        let active = (last + 1).min(ACTIVE_PERSONS);
        last + 1 - active + self.0.below(active + AHEAD)
    }

    /// One of the active auctions.
    fn auction(&mut self, last: u64) -> u64 {
        let first = last.saturating_sub(ACTIVE_AUCTIONS);
        first + self.0.below(last - first + 1 + AHEAD)
    }

    /// From 100 to 100,000,000, as many in each power of ten.
    fn price(&mut self) -> i64 {
        let exponent = self.0.below(6_000_000) as f64 / 1e6;
        (ten_to_the(exponent) * 100.0).round() as i64
    }

    /// So many small letters, fewer than `end`.
    fn letters(&mut self, begin: usize, end: usize) -> String {
        /// As many as one number below 26^13 has.
        const AT_ONCE: usize = 13;
        let length = begin + self.0.index(end - begin);
        let mut text = String::with_capacity(length + AT_ONCE);
        while text.len() < length {
            let mut digits = self.0.below(26_u64.pow(13));
            for _ in 0..AT_ONCE {
                text.push(char::from(b'a' + (digits % 26) as u8));
                digits /= 26;
            }
        }
        text.truncate(length);
        text
    }
}

/// The power by sums and products alone: `f64::powf` may differ from one machine's library to another's.
fn ten_to_the(exponent: f64) -> f64 {
    const TERMS: u32 = 24;
    let x = exponent.fract() * std::f64::consts::LN_10;
    let fraction = (1..=TERMS).rev().fold(1.0, |sum, term| 1.0 + sum * x / f64::from(term));
    (0..exponent as u32).fold(fraction, |power, _| power * 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_follows_from_its_number_and_the_seed() {
        let text = |seed, number| match event(seed, number) {
            Event::Person(person) => person.extra,
            Event::Auction(auction) => auction.extra,
            Event::Bid(bid) => bid.extra,
        };
        assert_eq!(text(1, 77), text(1, 77));
        assert_ne!(text(1, 77), text(2, 77));
        assert_ne!(text(1, 77), text(1, 78));
    }

    #[test]
    fn events_are_in_the_published_proportions() {
        const EVENTS: u64 = 100_000;
        let (mut persons, mut auctions, mut bids) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..EVENTS {
            match event(1, number) {
                Event::Person(person) => persons.push(person),
                Event::Auction(auction) => auctions.push(auction),
                Event::Bid(bid) => bids.push(bid),
            }
        }
        assert_eq!((persons.len(), auctions.len(), bids.len()), (2_000, 6_000, 92_000));
        let share = |count: usize, of: usize| count as f64 / of as f64;
        let hot = share(bids.iter().filter(|bid| bid.auction % 100 == 0).count(), bids.len());
        assert!((0.49..0.52).contains(&hot), "{hot} of the bids are for hot auctions");
        let hot = share(bids.iter().filter(|bid| bid.bidder % 100 == 1).count(), bids.len());
        assert!((0.74..0.77).contains(&hot), "{hot} of the bids are by hot persons");
        let hot = share(auctions.iter().filter(|auction| auction.seller % 100 == 0).count(), auctions.len());
        assert!((0.73..0.78).contains(&hot), "{hot} of the auctions are by hot persons");
        let cheap = share(bids.iter().filter(|bid| bid.price < 100_000).count(), bids.len());
        assert!((0.49..0.51).contains(&cheap), "{cheap} of the prices are in the lower three powers of ten");
        assert!(auctions.iter().all(|auction| (1..=32).contains(&(auction.expires - auction.ts))));
        assert_eq!(bids[91_999].ts, BEGIN + 999);
    }

    #[test]
    fn powers_of_ten_are_what_they_are() {
        for (exponent, power) in [(0.0, 1.0), (0.5, 10.0_f64.sqrt()), (3.0, 1000.0), (5.25, 177_827.941)] {
            assert!((ten_to_the(exponent) / power - 1.0).abs() < 1e-9, "{exponent}");
        }
    }
}
