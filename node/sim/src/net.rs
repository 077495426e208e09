//! The network between members: connections that come and go, frames that are lost, doubled, late.
//!
//! Owns who can reach whom. Invariant, as with TCP and a hello: a frame of an older connection never
//! arrives once the next one stands.

use crate::rng::Rng;
use pharos_paxos::MemberId;
use std::collections::{BTreeMap, BTreeSet};

/// A connection between two members, lower id first.
pub(crate) type Pair = (MemberId, MemberId);

/// How bad the network is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) loss: u64,
    pub(crate) duplicates: u64,
    pub(crate) delay_us: (u64, u64),
    pub(crate) late: u64,
}

#[derive(Debug)]
pub(crate) struct Net {
    /// Directions in which nothing passes.
    cut: BTreeSet<(MemberId, MemberId)>,
    /// Directions in which everything takes this much longer, in microseconds.
    clogs: BTreeMap<(MemberId, MemberId), u64>,
    /// The connection that stands between a pair, by number.
    links: BTreeMap<Pair, u64>,
    next_link: u64,
    pub(crate) weather: Weather,
}

/// What becomes of a frame: after how many microseconds each copy arrives.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    pub(crate) arrivals: Vec<u64>,
    pub(crate) late: bool,
}

pub(crate) fn pair(a: MemberId, b: MemberId) -> Pair {
    (a.min(b), a.max(b))
}

impl Net {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let calm = rng.per_mille(250);
        let weather = Weather {
            loss: if calm { 0 } else { rng.below(30) },
            duplicates: if calm { 0 } else { rng.below(30) },
            delay_us: (50, rng.between(200, 3000)),
            late: if calm { 0 } else { rng.below(20) },
        };
        Self { cut: BTreeSet::new(), clogs: BTreeMap::new(), links: BTreeMap::new(), next_link: 0, weather }
    }

    pub(crate) fn passes(&self, from: MemberId, to: MemberId) -> bool {
        !self.cut.contains(&(from, to))
    }

    pub(crate) fn cut(&mut self, from: MemberId, to: MemberId) {
        self.cut.insert((from, to));
    }

    pub(crate) fn clog(&mut self, from: MemberId, to: MemberId, by_us: u64) {
        self.clogs.insert((from, to), by_us);
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
        self.clogs.clear();
    }

    pub(crate) fn link(&self, a: MemberId, b: MemberId) -> Option<u64> {
        self.links.get(&pair(a, b)).copied()
    }

    pub(crate) fn connect(&mut self, a: MemberId, b: MemberId) -> u64 {
        self.next_link += 1;
        self.links.insert(pair(a, b), self.next_link);
        self.next_link
    }

    pub(crate) fn disconnect(&mut self, a: MemberId, b: MemberId) -> bool {
        self.links.remove(&pair(a, b)).is_some()
    }

    pub(crate) fn fate(&self, from: MemberId, to: MemberId, rng: &mut Rng) -> Fate {
        let w = &self.weather;
        let mut fate = Fate::default();
        if rng.per_mille(w.loss) {
            return fate;
        }
        let copies = 1 + u64::from(rng.per_mille(w.duplicates));
        for _ in 0..copies {
            let clog = self.clogs.get(&(from, to)).copied().unwrap_or(0);
            let mut delay = clog + rng.between(w.delay_us.0, w.delay_us.1);
            if rng.per_mille(w.late) {
                fate.late = true;
                delay += rng.between(10_000, 400_000);
            }
            fate.arrivals.push(delay);
        }
        fate
    }
}
