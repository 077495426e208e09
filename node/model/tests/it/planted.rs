//! Known bugs are found: `cargo test -p pharos-model --features planted-bugs`.

use pharos_model::{Bounds, Heartbeats, Order, Plant, Start, check};

/// Steps within which a bug must show.
const LIMIT: usize = 4_000_000;
/// A value is committed of which member 3 knows nothing.
const LAGGING: Start = Start::Led { heard: &[1, 2], values: 1 };

/// Two ballots, whatever is lost.
const RIVALS: Bounds = Bounds { timeouts: 2, order: Order::Lanes, ..Bounds::NOTHING };

fn finds(plant: Plant, bounds: Bounds, property: &str) {
    let found = check(Bounds { plant, ..bounds }, LIMIT).broken.map(|broken| broken.property);
    assert_eq!(found, Some(property), "{plant:?}");
}

const LOSS: &str = "what is chosen is on a majority of disks";
const CLAIM: &str = "nothing is claimed that is not durable";

#[test]
fn an_ack_before_the_fsync_is_found() {
    finds(Plant::AckBeforeFsync, RIVALS, CLAIM);
}

#[test]
fn an_early_restamp_is_found() {
    let bounds = Bounds { chunks: true, start: LAGGING, ..RIVALS };
    finds(Plant::EarlyRestamp, bounds, "no assertion fails");
}

#[test]
fn a_late_completion_after_a_promise_is_found() {
    finds(Plant::LateCompletion, RIVALS, CLAIM);
}

#[test]
fn a_reused_ballot_is_found() {
    finds(Plant::BallotReuse, Bounds { crashes: 1, ..RIVALS }, CLAIM);
}

#[test]
fn a_double_count_is_found() {
    finds(Plant::DoubleCount, RIVALS, LOSS);
}

#[test]
fn a_truncation_of_committed_entries_is_found() {
    let bounds = Bounds { timeouts: 1, repeats: 1, ..Bounds::NOTHING };
    finds(Plant::TruncateCommitted, bounds, LOSS);
}

#[test]
fn a_forgotten_promise_is_found() {
    finds(Plant::PromiseForgets, RIVALS, CLAIM);
}

#[test]
fn an_unconfirmed_read_index_is_found() {
    let start = Start::Led { heard: &[1, 2, 3], values: 0 };
    let bounds = Bounds { timeouts: 1, reads: 1, heartbeats: Heartbeats::Later, start, ..Bounds::NOTHING };
    finds(Plant::ReadIndexUnconfirmed, bounds, "a read is not stale");
}

#[test]
fn every_bug_that_can_be_planted_has_its_test() {
    // Of the others, three need another configuration, which the model does not have: see pharos-paxos.
    assert_eq!(Plant::ALL.len() - 3, 8);
}
