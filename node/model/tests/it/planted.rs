//! Known bugs are found: `cargo test -p pharos-model --features planted-bugs`.

use pharos_model::{Bounds, Heartbeats, Order, Plant, Start, check};

/// Steps within which a bug must show.
const LIMIT: usize = 4_000_000;
/// Member 1 leads and all know it.
const LED: Start = Start::Led { heard: &[1, 2, 3], values: 0 };
/// A value is committed of which member 3 knows nothing.
const LAGGING: Start = Start::Led { heard: &[1, 2], values: 1 };

/// Two ballots, whatever is lost.
const RIVALS: Bounds = Bounds { timeouts: 2, order: Order::Lanes, ..Bounds::NOTHING };
/// A value, and another leader.
const SUCCESSION: Bounds = Bounds {
    timeouts: 1,
    values: 1,
    steps_down: true,
    start: LAGGING,
    order: Order::Lanes,
    ..Bounds::NOTHING
};
/// Other voters, another leader and a crash.
const SEAL: Bounds = Bounds {
    timeouts: 1,
    crashes: 1,
    reconfigures: 1,
    wanted: &[&[1, 2]],
    stand: &[2],
    start: LED,
    order: Order::Lanes,
    ..Bounds::NOTHING
};
/// Member 4, who has joined, takes the place of 3.
const REPLACED: Bounds = Bounds {
    members: 4,
    joiners: 1,
    reconfigures: 1,
    wanted: &[&[1, 2, 4]],
    start: Start::Led { heard: &[1, 2, 3, 4], values: 0 },
    order: Order::Lanes,
    ..Bounds::NOTHING
};

fn finds(plant: Plant, bounds: Bounds, property: &str) {
    let report = check(Bounds { plant, ..bounds }, LIMIT);
    let found = report.broken.map(|broken| broken.property);
    println!("{plant:?}: {} states", report.unique);
    assert_eq!(found, Some(property), "{plant:?}");
}

const LOSS: &str = "what is chosen is on a majority of disks";
const CLAIM: &str = "nothing is claimed that is not durable";
const PREFIX: &str = "who accepts a ballot has all that its leader adopted";
const ASSERTION: &str = "no assertion fails";

macro_rules! planted {
    ($($name:ident: $plant:ident, $bounds:expr, $property:expr;)*) => {
        const TRIED: &[Plant] = &[$(Plant::$plant,)*];

        $(#[test]
        fn $name() {
            finds(Plant::$plant, $bounds, $property);
        })*
    };
}

planted! {
    an_ack_before_the_fsync_is_found: AckBeforeFsync, RIVALS, CLAIM;
    an_early_restamp_is_found: EarlyRestamp, Bounds { chunks: true, start: LAGGING, ..RIVALS }, PREFIX;
    a_stamp_before_its_prefix_is_found: StampBeforePrefix,
        Bounds { timeouts: 1, crashes: 1, stand: &[1, 2], start: LAGGING, ..RIVALS }, PREFIX;
    a_late_completion_after_a_promise_is_found: LateCompletion, RIVALS, CLAIM;
    a_reused_ballot_is_found: BallotReuse, Bounds { crashes: 1, ..RIVALS }, CLAIM;
    a_double_count_is_found: DoubleCount, RIVALS, LOSS;
    half_of_two_is_found: HalfIsEnough, Bounds { members: 2, values: 1, ..RIVALS }, LOSS;
    a_late_promise_that_counts_is_found: LatePromiseMatches, SUCCESSION, LOSS;
    a_truncation_of_committed_entries_is_found: TruncateCommitted,
        Bounds { timeouts: 1, repeats: 1, ..Bounds::NOTHING }, LOSS;
    a_cut_that_is_not_written_is_found: CutNotWritten, SUCCESSION, "what a core takes for durable is on its disk";
    a_forgotten_promise_is_found: PromiseForgets, RIVALS, CLAIM;
    a_promise_that_overtakes_is_found: PromiseOvertakes, SUCCESSION, CLAIM;
    an_unconfirmed_read_index_is_found: ReadIndexUnconfirmed,
        Bounds { timeouts: 1, reads: 1, heartbeats: Heartbeats::Later, start: LED, ..Bounds::NOTHING },
        "a read is not stale";
    a_seal_of_the_old_alone_is_found: SealOfOldMajority, REPLACED, LOSS;
    a_learner_that_counts_is_found: LearnerCounted, REPLACED, LOSS;
    a_seal_that_outlives_its_cut_is_found: SealOutlivesCut, SEAL, ASSERTION;
    a_seal_that_a_restart_takes_for_chosen_is_found: SealAtRestart, SEAL, LOSS;
}

#[test]
fn the_others_need_more_than_is_exhausted_quickly() {
    let others: Vec<_> = Plant::ALL.iter().filter(|plant| !TRIED.contains(plant)).collect();
    println!("not tried: {others:?}");
    assert_eq!(others.len(), 5);
}
