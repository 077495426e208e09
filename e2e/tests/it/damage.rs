//! Members whose log is damaged while they do not run.

use std::time::Duration;

use pharos_e2e::command::wait_until;
use pharos_e2e::local::LocalEnsemble;
use pharos_e2e::wire::Wire;
use pharos_jute::{Request, SetData};

use crate::members::{count_on, create};

const PATIENCE: Duration = Duration::from_secs(60);
/// Together more than the log's first segment of 32 MiB.
const WRITES: i32 = 2_400;
const VALUE: usize = 16 << 10;
const IN_FLIGHT: i32 = 100;

fn metric(ensemble: &LocalEnsemble, member: usize, name: &str) -> anyhow::Result<u64> {
    let text = ensemble.get(member, "/metrics")?;
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    Ok(found.unwrap_or_default())
}

/// The member's store has all that it had applied.
fn wait_flushed(ensemble: &LocalEnsemble, member: usize) {
    let applied = metric(ensemble, member, "pharos_applied_slot ").unwrap();
    wait_until("the store to be flushed", PATIENCE, || {
        Ok((metric(ensemble, member, "pharos_flushed_slot ")? >= applied).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_damaged_end_of_a_log_makes_a_new_member_and_a_damaged_beginning_is_passed_over() {
    let mut ensemble = LocalEnsemble::found(3).unwrap();
    let leader = ensemble.leader().unwrap();
    let mut wire = Wire::open(ensemble.address(leader).unwrap()).unwrap();
    (0..100).for_each(|number| create(&mut wire, number).unwrap());
    let data = vec![b'.'; VALUE];
    for write in 0..WRITES + IN_FLIGHT {
        if write < WRITES {
            let set = SetData { path: Some("/a0"), data: Some(&data), version: -1 };
            wire.ask(write, &Request::SetData(set));
        }
        if write >= IN_FLIGHT {
            wire.answered(write - IN_FLIGHT).unwrap();
        }
    }
    let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
    for member in [one, other] {
        wait_flushed(&ensemble, member);
        ensemble.kill(member).unwrap();
        // Its vote is needed while the other is away.
        let block = if member == one { 3 } else { -1 };
        ensemble.rot(member, if member == one { "0000000001.wal" } else { "0000000002.wal" }, block).unwrap();
        if member == one {
            let before = ensemble.log_bytes(member).unwrap();
            ensemble.start(member).unwrap();
            ensemble.wait_serving(member).unwrap();
            assert!(ensemble.log_of(member).unwrap().contains("it is trimmed up to there"));
            assert!(ensemble.log_bytes(member).unwrap() <= before);
            assert_eq!(ensemble.identity(member).unwrap()["memberId"], member as u64 + 1);
        }
    }
    ensemble.start(other).unwrap();
    let identity = wait_until("the member to give its identity up", PATIENCE, || {
        Ok(ensemble.identity(other).ok().filter(|identity| identity["state"] == "blank"))
    })
    .unwrap();
    assert_eq!(identity["gaveUp"]["memberId"], other as u64 + 1);
    assert!(identity["gaveUp"]["why"].as_str().unwrap().contains("0000000002.wal is corrupt at byte"));
    ensemble.return_as_new(other, other as u64 + 1).unwrap();
    assert_eq!(ensemble.identity(other).unwrap()["memberId"], 4);
    for member in 0..3 {
        assert_eq!(count_on(ensemble.address(member).unwrap()), 100, "member {member}");
    }
    // It carries the Ensemble with the one whose log was damaged first.
    ensemble.kill(leader).unwrap();
    let mut wire =
        wait_until("a session", PATIENCE, || Wire::open(ensemble.address(other).unwrap()).map(Some)).unwrap();
    create(&mut wire, 100).unwrap();
    assert_eq!(count_on(ensemble.address(one).unwrap()), 101);
}
