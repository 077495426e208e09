//! Real members in network namespaces, each with a disk of its own, under a workload and faults; what the clients saw of
//! it is checked.

use std::time::Duration;

use pharos_e2e::chaos::{Fault, Options, run};

fn chaos(members: usize, seed: u64) {
    let options = Options {
        members,
        clients: 12,
        faults: Fault::ALL.to_vec(),
        length: Duration::from_secs(85),
        window: Duration::from_secs(45),
        pause: Duration::from_millis(60),
        seed,
        keep: std::env::temp_dir().join("pharos-chaos"),
    };
    let verdict = run(&options).unwrap();
    assert!(verdict.is_good(), "{verdict}");
    // A run that meets little proves little.
    assert!(verdict.kinds() >= 8, "{verdict}");
    let all = verdict.all_operations();
    assert!(all.acknowledged > 3_000 && all.failed > 300 && all.unknown > 5, "{verdict}");
    assert!(verdict.checked.events > 1_000, "{verdict}");
}

#[test]
fn no_client_sees_anything_wrong_while_three_members_are_under_faults() {
    chaos(3, 1);
}

#[test]
fn no_client_sees_anything_wrong_while_five_members_are_under_faults() {
    chaos(5, 2);
}
