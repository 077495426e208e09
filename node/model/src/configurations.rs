//! The configurations that are checked.
//!
//! Owns the two lists and what each configuration must have met. Invariant: the small ones are exhausted
//! within two minutes or so, all together.

use crate::bounds::{Bounds, Canvassing, Heartbeats, Start};
use crate::net::Order;
use crate::properties::{
    ADOPTED, AHEAD_OF_OWN_DISK, AWAITED, BEHIND, CUT, GOES_ON, INSTALLED, JOINED, LACKS_SEAL, OUTLIVED,
    PROMISE_WAITS, READ_ANSWERED, SEAL_ADOPTED, SEAL_CUT, SEAL_WITHOUT_LEADER, SEALED, STAGED, SUCCESSION,
    TWO_LEADERS, UNSYNCED_TAIL, VALUE_CHOSEN,
};

/// Member 1 leads and all know it.
const LED: Start = Start::Led { heard: &[1, 2, 3], values: 0 };
/// Member 1 leads and has committed a value of which 3 knows nothing.
const LAGGING: Start = Start::Led { heard: &[1, 2], values: 1 };

/// Member 4 has joined the three founders and caught up; 1 leads.
const FOUR: Bounds = Bounds {
    members: 4,
    joiners: 1,
    start: Start::Led { heard: &[1, 2, 3, 4], values: 0 },
    ..Bounds::NOTHING
};

/// Exhausted on every change.
pub const SMALL: &[Bounds] = &[
    Bounds {
        name: "one member",
        members: 1,
        timeouts: 2,
        values: 2,
        crashes: 2,
        meets: &[ADOPTED, UNSYNCED_TAIL, VALUE_CHOSEN, SUCCESSION],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "two members",
        members: 2,
        timeouts: 2,
        values: 1,
        crashes: 1,
        meets: &[ADOPTED, UNSYNCED_TAIL, PROMISE_WAITS, VALUE_CHOSEN, SUCCESSION],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "rivals",
        timeouts: 2,
        stand: &[1, 2],
        order: Order::Lanes,
        meets: &[TWO_LEADERS, CUT, ADOPTED, PROMISE_WAITS, AHEAD_OF_OWN_DISK, SUCCESSION],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "a value and a crash",
        timeouts: 1,
        values: 1,
        crashes: 1,
        stand: &[1],
        order: Order::Lanes,
        meets: &[UNSYNCED_TAIL, AHEAD_OF_OWN_DISK, VALUE_CHOSEN],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "a message comes twice",
        timeouts: 1,
        repeats: 1,
        meets: &[AHEAD_OF_OWN_DISK],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "two crashes around a succession",
        timeouts: 1,
        crashes: 2,
        start: LAGGING,
        meets: &[TWO_LEADERS, UNSYNCED_TAIL, AHEAD_OF_OWN_DISK, SUCCESSION],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "a succession under a value",
        timeouts: 1,
        values: 1,
        steps_down: true,
        start: LAGGING,
        order: Order::Lanes,
        meets: &[TWO_LEADERS, CUT, ADOPTED, PROMISE_WAITS, AHEAD_OF_OWN_DISK, SUCCESSION],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "syncs in parts",
        timeouts: 2,
        chunks: true,
        stand: &[2, 3],
        start: LAGGING,
        order: Order::Lanes,
        meets: &[TWO_LEADERS, CUT, ADOPTED, STAGED, SUCCESSION],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "a state is sent",
        timeouts: 1,
        crashes: 1,
        trims: 1,
        start: LAGGING,
        meets: &[TWO_LEADERS, UNSYNCED_TAIL, BEHIND, INSTALLED, SUCCESSION],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "heartbeats",
        timeouts: 1,
        heartbeats: Heartbeats::All,
        order: Order::Lanes,
        meets: &[AHEAD_OF_OWN_DISK],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "a leader wins back who lags or crashed",
        beats: 2,
        crashes: 1,
        heartbeats: Heartbeats::All,
        start: LAGGING,
        order: Order::Lanes,
        meets: &[UNSYNCED_TAIL],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "a read",
        timeouts: 1,
        reads: 1,
        heartbeats: Heartbeats::Later,
        start: LED,
        meets: &[TWO_LEADERS, READ_ANSWERED, SUCCESSION],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "a hand-over",
        timeouts: 1,
        transfers: 1,
        stand: &[3],
        start: LED,
        order: Order::Lanes,
        meets: &[TWO_LEADERS, CUT, ADOPTED, PROMISE_WAITS, SUCCESSION],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "canvasses",
        timeouts: 2,
        stand: &[1, 2],
        canvassing: Canvassing::Asked,
        order: Order::Lanes,
        meets: &[TWO_LEADERS, CUT, ADOPTED, SUCCESSION],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "one member becomes two",
        members: 2,
        joiners: 1,
        timeouts: 1,
        values: 1,
        crashes: 1,
        beats: 1,
        reconfigures: 1,
        wanted: &[&[1, 2]],
        heartbeats: Heartbeats::All,
        order: Order::Lanes,
        meets: &[UNSYNCED_TAIL, BEHIND, AWAITED, INSTALLED, SEALED, JOINED, GOES_ON, VALUE_CHOSEN],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "two members become one",
        members: 2,
        timeouts: 2,
        crashes: 1,
        reconfigures: 1,
        wanted: &[&[1], &[2]],
        start: Start::Led { heard: &[1, 2], values: 0 },
        meets: &[ADOPTED, UNSYNCED_TAIL, SEALED, SEAL_ADOPTED, SEAL_WITHOUT_LEADER, GOES_ON, OUTLIVED],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "voters change twice",
        members: 2,
        joiners: 1,
        timeouts: 1,
        crashes: 1,
        reconfigures: 2,
        wanted: &[&[1, 2], &[1], &[2]],
        order: Order::Lanes,
        start: Start::Led { heard: &[1, 2], values: 0 },
        meets: &[UNSYNCED_TAIL, SEALED, SEAL_ADOPTED, SEAL_WITHOUT_LEADER, JOINED, GOES_ON, OUTLIVED],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "one member becomes three",
        joiners: 2,
        timeouts: 1,
        reconfigures: 1,
        wanted: &[&[1, 2, 3]],
        stand: &[2],
        order: Order::Lanes,
        start: LED,
        meets: &[TWO_LEADERS, CUT, ADOPTED, SEALED, JOINED, GOES_ON, LACKS_SEAL],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "a seal is cut",
        timeouts: 1,
        reconfigures: 1,
        wanted: &[&[1, 2]],
        start: LED,
        meets: &[TWO_LEADERS, SEALED, SEAL_CUT, SEAL_ADOPTED, SEAL_WITHOUT_LEADER, GOES_ON, OUTLIVED],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "a seal and a crash",
        timeouts: 1,
        crashes: 1,
        reconfigures: 1,
        wanted: &[&[1, 2]],
        stand: &[2],
        order: Order::Lanes,
        start: LED,
        meets: &[TWO_LEADERS, UNSYNCED_TAIL, SEALED, SEAL_CUT, SEAL_ADOPTED, GOES_ON],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "a member is replaced and one crashes",
        crashes: 1,
        reconfigures: 1,
        wanted: &[&[1, 2, 4]],
        order: Order::Lanes,
        meets: &[UNSYNCED_TAIL, AHEAD_OF_OWN_DISK, SEALED, JOINED, GOES_ON, LACKS_SEAL],
        ..FOUR
    },
    Bounds {
        name: "the leader is replaced",
        reconfigures: 1,
        wanted: &[&[2, 3, 4]],
        order: Order::Lanes,
        meets: &[AHEAD_OF_OWN_DISK, SEALED, SEAL_WITHOUT_LEADER, JOINED, GOES_ON, LACKS_SEAL],
        ..FOUR
    },
    Bounds {
        name: "a voter that lacks the seal is sent the state",
        trims: 1,
        reconfigures: 1,
        wanted: &[&[1, 3, 4]],
        order: Order::Lanes,
        start: Start::Led { heard: &[1, 2, 4], values: 0 },
        meets: &[SEALED, JOINED, GOES_ON, LACKS_SEAL, BEHIND, AWAITED, INSTALLED],
        ..FOUR
    },
];

/// More, for those who have the time.
pub const LARGE: &[Bounds] = &[
    Bounds {
        name: "large: rivals, any order",
        timeouts: 2,
        meets: &[TWO_LEADERS, CUT, ADOPTED, PROMISE_WAITS, AHEAD_OF_OWN_DISK, SUCCESSION],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "large: a value, any order",
        timeouts: 1,
        values: 1,
        stand: &[1],
        meets: &[AHEAD_OF_OWN_DISK, VALUE_CHOSEN],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "large: two values",
        timeouts: 1,
        values: 2,
        stand: &[1],
        order: Order::Lanes,
        meets: &[AHEAD_OF_OWN_DISK, VALUE_CHOSEN],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "large: two successions, any order",
        timeouts: 2,
        start: LAGGING,
        meets: &[TWO_LEADERS, CUT, ADOPTED, PROMISE_WAITS, SUCCESSION],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "large: a succession, a value and a crash",
        timeouts: 1,
        values: 1,
        crashes: 1,
        start: LAGGING,
        order: Order::Lanes,
        meets: &[TWO_LEADERS, CUT, ADOPTED, PROMISE_WAITS, UNSYNCED_TAIL, SUCCESSION],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "large: rivals and a crash",
        timeouts: 2,
        crashes: 1,
        stand: &[1, 2],
        order: Order::Lanes,
        meets: &[TWO_LEADERS, CUT, ADOPTED, PROMISE_WAITS, UNSYNCED_TAIL, SUCCESSION],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "large: three ballots",
        timeouts: 3,
        stand: &[1, 2],
        order: Order::Lanes,
        meets: &[TWO_LEADERS, CUT, ADOPTED, PROMISE_WAITS, SUCCESSION],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "large: a state is sent among rivals",
        timeouts: 2,
        trims: 1,
        start: LAGGING,
        order: Order::Lanes,
        meets: &[TWO_LEADERS, CUT, ADOPTED, BEHIND, INSTALLED, SUCCESSION],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "large: a state is sent under a value",
        timeouts: 1,
        values: 1,
        trims: 1,
        start: LAGGING,
        order: Order::Lanes,
        meets: &[TWO_LEADERS, CUT, ADOPTED, BEHIND, INSTALLED, SUCCESSION],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "large: syncs in parts, any order",
        timeouts: 2,
        chunks: true,
        start: LAGGING,
        meets: &[TWO_LEADERS, CUT, ADOPTED, STAGED, SUCCESSION],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "large: a read and a value",
        timeouts: 1,
        values: 1,
        reads: 1,
        heartbeats: Heartbeats::Later,
        start: LED,
        order: Order::Lanes,
        meets: &[TWO_LEADERS, READ_ANSWERED, SUCCESSION],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "large: canvasses of all",
        timeouts: 2,
        canvassing: Canvassing::Asked,
        order: Order::Lanes,
        meets: &[TWO_LEADERS, CUT, ADOPTED, SUCCESSION],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "large: one member becomes three",
        joiners: 2,
        timeouts: 1,
        reconfigures: 1,
        wanted: &[&[1, 2, 3]],
        order: Order::Lanes,
        start: LED,
        meets: &[TWO_LEADERS, CUT, ADOPTED, SEALED, JOINED, GOES_ON, LACKS_SEAL],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "large: three members become one, and a read",
        timeouts: 1,
        reads: 1,
        reconfigures: 1,
        wanted: &[&[1]],
        stand: &[3],
        heartbeats: Heartbeats::Later,
        order: Order::Lanes,
        start: Start::Led { heard: &[1, 2], values: 0 },
        meets: &[TWO_LEADERS, SEALED, SEAL_CUT, SEAL_ADOPTED, GOES_ON, OUTLIVED, READ_ANSWERED],
        ..Bounds::NOTHING
    },
    Bounds {
        name: "large: a member is replaced under a succession",
        timeouts: 1,
        reconfigures: 1,
        wanted: &[&[1, 2, 4]],
        stand: &[2],
        order: Order::Lanes,
        start: Start::Led { heard: &[1, 2, 4], values: 0 },
        meets: &[TWO_LEADERS, SEALED, SEAL_CUT, SEAL_ADOPTED, JOINED, GOES_ON, OUTLIVED, LACKS_SEAL],
        ..FOUR
    },
    Bounds {
        name: "large: whoever leaves succeeds meanwhile",
        timeouts: 1,
        reconfigures: 1,
        wanted: &[&[1, 2, 4]],
        stand: &[3],
        order: Order::Lanes,
        meets: &[TWO_LEADERS, SEALED, SEAL_CUT, SEAL_ADOPTED, JOINED, GOES_ON, OUTLIVED, LACKS_SEAL],
        ..FOUR
    },
];
