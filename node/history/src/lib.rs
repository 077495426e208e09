//! Checks what many client sessions saw of one ensemble.
//!
//! Owns the record of a run and the rules that it must obey. Must not know sockets, clocks, random numbers, or anything
//! of the product but the types of its wire: its reference tree is its own. Invariant: the zxid in every reply is the
//! witness, so that no order has to be searched; time and memory are those of sorting the record.
//!
//! # How writes of unknown outcome are settled
//! A write whose connection was lost may have happened or not. It is *placed* in one of two ways (`replay`, `search`):
//! - **By evidence.** A Stat or a watch event names a zxid that no acknowledged write has. Some write of unknown
//!   outcome, or the end of a session, must have had it: one that was asked before, that its session's other zxids
//!   allow there, and that has all the effects seen at that zxid when it is carried out on the reference. If there is
//!   none, the ensemble shows a change that nobody made. A value that only one such write carries says who it was.
//! - **By need.** A result or a read differs from the reference, and would not if a few (at most [`MOST_ASSUMED`])
//!   writes of unknown outcome to the same paths had happened before. They are assumed, within bounds in which there
//!   is a zxid for each, and only where no later read says that nothing has changed.
//!
//! What one connection lost happened in its order and without a gap: to place a write is to place what was lost before
//! it, with its effects or, where others were in its way, without. An explanation that a later answer contradicts is
//! taken back, and the next one is tried. The first thing that has no explanation is a violation, and ends the replay.
//!
//! The search is bounded. Of 300 crowds that lose twice as much as a run of `./x chaos` (tests, `crowds`), the right
//! explanation of four was not found.
//!
//! What is neither seen nor needed is taken not to have happened. With unique values and names, and sessions that watch
//! everything on each member, hardly anything is left to be assumed; [`Report`] counts both.

use std::collections::BTreeMap;

mod clock;
mod evidence;
mod expiry;
mod order;
mod record;
mod replay;
mod search;
mod shown;
mod suspects;
mod timeline;
mod tree;
mod violation;
mod watches;

pub use record::{
    Answer, Body, Connection, ErrorCode, EventKind, History, Incoming, Micros, OpRef, Operation, Outcome,
    Rearm, Request, Session, Stat, View, WatchEvent, Write,
};
pub use search::MOST_ASSUMED;
pub use violation::{Rule, Violation};

/// What the checker has to be told of the ensemble.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How much later than a client's contact the ensemble may have begun to count the session's timeout, as a part of
    /// the timeout: one over this number. A member may tell the leader late whom it has heard.
    pub contact_lag: u64,
}

/// What was found, and how much there was to be checked.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What no correct ensemble does; empty if all is well. Only the first of many.
    pub violations: Vec<Violation>,
    /// Acknowledged writes that were carried out on the reference.
    pub writes: usize,
    /// Reads that were compared with it.
    pub reads: usize,
    /// Watch events that were expected and came.
    pub events: usize,
    /// Writes of unknown outcome and ends of sessions that left evidence.
    pub placed: usize,
    /// Those that were assumed, since a result needs them.
    pub assumed: usize,
    /// Those that were neither.
    pub unseen: usize,
    /// Sessions whose end came by their timeout.
    pub expired: usize,
}

/// More violations than this are not reported: those after the first are mostly its consequences.
const MOST_REPORTED: usize = 20;

/// Checks a run.
#[must_use]
pub fn check(history: &History, limits: Limits) -> Report {
    let mut report = Report::default();
    report.violations.extend(order::check(history));
    let timeline = timeline::Timeline::of(history, &mut report.violations);
    let replayed = replay::replay(history, &timeline, limits, &mut report);
    let placed = replayed.as_ref().map_or_else(|_| BTreeMap::new(), |replayed| replayed.placed.clone());
    report.violations.extend(order::real_time(history, &timeline, &placed));
    report.violations.extend(clock::check(history));
    match replayed {
        Ok(replayed) => {
            report.violations.extend(expiry::check(history, limits, &replayed.ends, &mut report.expired));
            report.violations.extend(watches::check(history, &replayed, &mut report.events));
        }
        Err(violation) => report.violations.insert(0, violation),
    }
    report.violations.truncate(MOST_REPORTED);
    report
}
