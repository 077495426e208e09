//! Seeds that once failed, with what it was. What a seed meets changes with the schedules; none of these may fail again.

use pharos_sim::{Bounds, run};

#[test]
fn seeds_that_once_failed_do_not_fail() {
    let seeds = [
        // The survivor of a forced recovery had been removed once: it leads while its replay has not put it back yet, and
        // the checker took that for a leader without a vote.
        14397,
    ];
    for seed in seeds {
        run(seed, Bounds::default()).unwrap();
    }
}
