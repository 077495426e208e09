//! How many bids each bidder made until ten seconds without one passed.
//!
//! A session ends when the watermark passes the gap after its last bid. When that may be is looked up in a wheel with one
//! entry for each bidder, which is moved on only when its time has come.

use std::collections::VecDeque;

use super::table::Table;
use super::{BATCH, DELAY, SIZE as GAP};
use crate::bench::nexmark::columns::Columns;

/// Milliseconds of a place in the wheel.
const PLACE: i64 = 1_000;

#[derive(Clone, Copy, Default)]
struct Session {
    last: i64,
    bids: i64,
}

/// Bidders, each with the bids of a session.
pub(super) fn run(columns: &Columns) -> Vec<(i64, i64)> {
    let bids = &columns.bids;
    let next = bids.ts.first().map_or(0, |ts| ts / PLACE);
    let mut sessions =
        Sessions { open: Table::new(14), wheel: Wheel { places: VecDeque::new(), next }, ended: Vec::new() };
    let mut latest = i64::MIN;
    for (bidders, times) in bids.bidder.chunks(BATCH).zip(bids.ts.chunks(BATCH)) {
        for (bidder, ts) in bidders.iter().zip(times) {
            sessions.add(*bidder, *ts);
            latest = latest.max(*ts);
        }
        sessions.advance(latest - DELAY);
    }
    let Sessions { open, mut ended, .. } = sessions;
    ended.extend(open.iter().map(|(bidder, session)| (bidder, session.bids)));
    ended
}

struct Sessions {
    open: Table<Session>,
    wheel: Wheel,
    ended: Vec<(i64, i64)>,
}

impl Sessions {
    #[inline]
    fn add(&mut self, bidder: i64, ts: i64) {
        let (session, new) = self.open.entry(bidder);
        if new {
            *session = Session { last: ts, bids: 1 };
            self.wheel.put(bidder, ts + GAP);
        } else if ts - session.last < GAP {
            session.last = session.last.max(ts);
            session.bids += 1;
        } else {
            self.ended.push((bidder, session.bids));
            *session = Session { last: ts, bids: 1 };
        }
    }

    fn advance(&mut self, watermark: i64) {
        while (self.wheel.next + 1) * PLACE <= watermark {
            for bidder in self.wheel.turn() {
                let (session, _) = self.open.entry(bidder);
                if session.last + GAP <= watermark {
                    self.ended.push((bidder, session.bids));
                    self.open.remove(bidder);
                } else {
                    self.wheel.put(bidder, session.last + GAP);
                }
            }
        }
    }
}

/// Bidders by the time at which their sessions may end.
struct Wheel {
    places: VecDeque<Vec<i64>>,
    /// The number of the first place.
    next: i64,
}

impl Wheel {
    fn put(&mut self, bidder: i64, at: i64) {
        let place = usize::try_from(at / PLACE - self.next).expect("sessions end after the watermark");
        if self.places.len() <= place {
            self.places.resize_with(place + 1, Vec::new);
        }
        self.places[place].push(bidder);
    }

    fn turn(&mut self) -> Vec<i64> {
        self.next += 1;
        self.places.pop_front().unwrap_or_default()
    }
}
