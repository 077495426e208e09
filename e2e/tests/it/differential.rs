//! The same random requests to a real ZooKeeper and to ours: every result, error, Stat and watch event is the same.

use pharos_e2e::local::LocalEnsemble;
use pharos_e2e::real_zookeeper::RealZooKeeper;
use pharos_e2e::zkdiff::{Options, run};

/// Steps of one run, which has a server of each kind to itself.
const STEPS: usize = 2500;

fn answers_like_zookeeper(seed: u64, members: usize) {
    let real = RealZooKeeper::start().unwrap();
    let ours = LocalEnsemble::found(members).unwrap();
    // The level at which nodes may have a time to live, as the real one is told that they may.
    ours.wait_level(0, 2).unwrap();
    let options = Options { seed, steps: STEPS, connections: 4 };
    // One of the members: another may not have seen yet what this one has answered.
    let addresses = [ours.address(0).unwrap()];
    let report =
        run(&[real.address()], &addresses, options).unwrap_or_else(|difference| panic!("{difference}"));
    // A run that meets few kinds of requests or errors proves little.
    assert!(report.operations.len() >= 10, "{report:?}");
    assert!(report.errors.len() >= 5, "{report:?}");
}

#[test]
fn one_member_answers_random_requests_like_zookeeper() {
    answers_like_zookeeper(1, 1);
    answers_like_zookeeper(2, 1);
}

#[test]
fn one_of_three_members_answers_random_requests_like_zookeeper() {
    answers_like_zookeeper(3, 3);
    answers_like_zookeeper(4, 3);
}
