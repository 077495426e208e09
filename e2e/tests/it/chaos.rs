//! Three real members are killed and stopped under a workload, and what the clients saw of it is checked.

use std::time::Duration;

use pharos_e2e::chaos::{ONE_MEMBER, Options, run};

#[test]
fn no_client_sees_anything_wrong_while_members_are_killed_and_stopped() {
    let options = Options {
        members: 3,
        clients: 12,
        faults: ONE_MEMBER,
        length: Duration::from_secs(40),
        pause: Duration::from_millis(60),
        seed: 1,
    };
    let verdict = run(options).unwrap();
    assert!(verdict.is_good(), "{verdict}");
    // A run that meets little proves little.
    assert_eq!(verdict.faults.len(), ONE_MEMBER.len(), "{verdict}");
    let all = verdict.all_operations();
    assert!(all.acknowledged > 2_000 && all.failed > 200 && all.unknown > 5, "{verdict}");
    assert!(verdict.checked.events > 1_000, "{verdict}");
}
