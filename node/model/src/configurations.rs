//! The configurations that are checked.
//!
//! Owns the two lists.

use crate::bounds::{Bounds, Canvassing, Start};
use crate::net::Order;

const LAGGING: Start = Start::Led { heard: &[1, 2], values: 1 };
const ALL: Start = Start::Led { heard: &[1, 2, 3], values: 0 };

/// Exhausted on every change.
pub const SMALL: &[Bounds] = &[
    Bounds { name: "a1v1s", timeouts: 1, values: 1, stand: &[1], ..Bounds::NOTHING },
    Bounds { name: "h1", timeouts: 1, heartbeats: true, ..Bounds::NOTHING },
    Bounds { name: "h1o", timeouts: 1, heartbeats: true, order: Order::Lanes, ..Bounds::NOTHING },
    Bounds { name: "h1bo", timeouts: 1, beats: 1, heartbeats: true, order: Order::Lanes, ..Bounds::NOTHING },
    Bounds { name: "h1bco", timeouts: 1, beats: 1, crashes: 1, heartbeats: true, order: Order::Lanes, start: ALL, ..Bounds::NOTHING },
    Bounds { name: "r1o", timeouts: 1, reads: 1, heartbeats: true, order: Order::Lanes, start: ALL, ..Bounds::NOTHING },
    Bounds { name: "r2o", timeouts: 1, reads: 2, heartbeats: true, order: Order::Lanes, start: ALL, ..Bounds::NOTHING },
    Bounds { name: "r1", timeouts: 1, reads: 1, heartbeats: true, start: ALL, ..Bounds::NOTHING },
    Bounds { name: "s1o", timeouts: 1, trims: 1, order: Order::Lanes, start: LAGGING, ..Bounds::NOTHING },
    Bounds { name: "s1co", timeouts: 1, trims: 1, crashes: 1, order: Order::Lanes, start: LAGGING, ..Bounds::NOTHING },
    Bounds { name: "s2o", timeouts: 2, trims: 1, order: Order::Lanes, start: LAGGING, ..Bounds::NOTHING },
    Bounds { name: "s1h", timeouts: 0, trims: 1, beats: 1, heartbeats: true, start: LAGGING, ..Bounds::NOTHING },
    Bounds { name: "k1o", timeouts: 2, chunks: true, order: Order::Lanes, start: LAGGING, ..Bounds::NOTHING },
    Bounds { name: "k1", timeouts: 2, chunks: true,  start: LAGGING, ..Bounds::NOTHING },
    Bounds { name: "c1", timeouts: 2, heartbeats: false, canvassing: Canvassing::Asked, ..Bounds::NOTHING },
    Bounds { name: "c2o", timeouts: 3, heartbeats: false, order: Order::Lanes, canvassing: Canvassing::Asked, ..Bounds::NOTHING },
    Bounds { name: "x1o", timeouts: 1, transfers: 1, order: Order::Lanes, start: ALL, ..Bounds::NOTHING },
    Bounds { name: "q2", members: 2, timeouts: 2, values: 1, crashes: 1, repeats: 1,  ..Bounds::NOTHING },
    Bounds { name: "b1c2", timeouts: 1, values:0, crashes: 2, start: Start::Led{heard: &[1,2], values: 1}, ..Bounds::NOTHING },
    Bounds { name: "b1v1c1o", timeouts: 1, values:1, crashes: 1, start: Start::Led{heard: &[1,2], values: 1}, order: Order::Lanes, ..Bounds::NOTHING },
    Bounds { name: "b1sd", timeouts: 1, values:1, steps_down: true, start: Start::Led{heard: &[1,2], values: 1}, order: Order::Lanes, ..Bounds::NOTHING },
];

/// More, for those who have the time.
pub const LARGE: &[Bounds] = &[];
