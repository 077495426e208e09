//! A seed decides everything.

use pharos_sim::{Bounds, run};

#[test]
fn the_same_seed_gives_the_same_run() {
    let bounds = Bounds { events: 5_000, ..Bounds::default() };
    for seed in [3, 1_000_003] {
        assert_eq!(run(seed, bounds), run(seed, bounds), "seed {seed}");
    }
}

#[test]
fn different_seeds_give_different_runs() {
    let bounds = Bounds { events: 2_000, ..Bounds::default() };
    let traces: std::collections::BTreeSet<_> =
        (1..=5).map(|seed| run(seed, bounds).unwrap().trace).collect();
    assert_eq!(traces.len(), 5);
}
