//! Crashes at any point: what was synced is there, what was not is there whole or not at all.

use crate::kit::{CONFIG, Chance, Model, append, ballot, formatted, random_group, write};
use pharos_log::mem::MemDisk;
use pharos_log::{DiskOp, LogError, Tail, Wal, WalConfig};
use pharos_paxos::{LogOp, Slot};
use proptest::prelude::*;

/// How a run met the faults it is about.
#[derive(Default)]
struct Coverage {
    torn_tails: usize,
    lost_groups: usize,
    kept_unsynced_groups: usize,
    recycled: usize,
    crashed_recoveries: usize,
}

/// Random groups, trims and crashes in the middle of any operation, over several lives of one disk.
fn lives(seed: u64, config: WalConfig, coverage: &mut Coverage) {
    let mut chance = Chance(seed);
    let (mut wal, mut disk) = formatted(config);
    let mut durable = Model::empty();
    for _ in 0..4 {
        let mut pending = None;
        for _ in 0..chance.below(24) {
            let mut ops = Vec::new();
            if chance.below(6) == 0 {
                let end = durable.hard.committed.0;
                let before = wal.spares();
                wal.trim(Slot(chance.below(end + 1)), &mut ops);
                coverage.recycled += wal.spares().saturating_sub(before);
            } else {
                let group = random_group(&durable, Slot(wal.first_slot().0 - 1), &mut chance);
                wal.append(&group, &mut ops);
                let mut next = durable.clone();
                next.apply(&group);
                pending = Some(next);
            }
            if chance.below(12) == 0 {
                crash_within(&mut disk, &ops, &mut chance);
                break;
            }
            disk.execute(&ops).unwrap();
            durable = pending.take().unwrap_or(durable);
        }
        disk.crash(&mut || chance.next());
        (wal, durable) = restart(config, &mut disk, durable, pending, &mut chance, coverage);
    }
}

fn crash_within(disk: &mut MemDisk, ops: &[DiskOp], chance: &mut Chance) {
    let at = chance.below(ops.len() as u64 + 1) as usize;
    disk.execute(&ops[..at]).unwrap();
    if let Some(op) = ops.get(at) {
        disk.crash_in(op, &mut || chance.next()).unwrap();
    }
}

fn restart(
    config: WalConfig,
    disk: &mut MemDisk,
    durable: Model,
    pending: Option<Model>,
    chance: &mut Chance,
    coverage: &mut Coverage,
) -> (Wal, Model) {
    let mut recovery = Wal::recover(config, disk).unwrap();
    while chance.below(3) == 0 {
        crash_within(disk, &recovery.ops, chance);
        coverage.crashed_recoveries += 1;
        let again = Wal::recover(config, disk).unwrap();
        assert_eq!((&again.entries, again.hard), (&recovery.entries, recovery.hard));
        recovery = again;
    }
    coverage.torn_tails += usize::from(recovery.tail != Tail::Clean);
    let model = if durable.is(&recovery) {
        coverage.lost_groups += usize::from(pending.is_some());
        durable
    } else {
        let whole = pending.expect("nothing was being written, and the log is not what was synced");
        assert!(whole.is(&recovery), "the log holds part of a group");
        coverage.kept_unsynced_groups += 1;
        whole
    };
    disk.execute(&recovery.ops).unwrap();
    let again = Wal::recover(config, disk).unwrap();
    assert_eq!((&again.entries, again.hard, again.tail), (&recovery.entries, recovery.hard, Tail::Clean));
    assert_eq!(again.wal.last_slot(), recovery.wal.last_slot());
    assert_eq!(again.wal.first_slot(), recovery.wal.first_slot());
    (recovery.wal, model)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_was_synced_survives_any_crash_and_the_rest_is_whole_or_absent(seed: u64) {
        lives(seed, CONFIG, &mut Coverage::default());
    }

    #[test]
    fn the_smallest_segments_and_no_spares_survive_as_well(seed: u64) {
        lives(seed, WalConfig { segment_bytes: 8 << 10, spare_segments: 0, ..CONFIG }, &mut Coverage::default());
    }
}

#[test]
fn the_crash_runs_meet_every_fault_they_are_about() {
    let mut coverage = Coverage::default();
    for seed in 0..300 {
        lives(seed, CONFIG, &mut coverage);
    }
    assert!(coverage.torn_tails > 20, "{}", coverage.torn_tails);
    assert!(coverage.lost_groups > 20, "{}", coverage.lost_groups);
    assert!(coverage.kept_unsynced_groups > 20, "{}", coverage.kept_unsynced_groups);
    assert!(coverage.recycled > 20, "{}", coverage.recycled);
    assert!(coverage.crashed_recoveries > 20, "{}", coverage.crashed_recoveries);
}

#[test]
fn truncation_and_append_of_one_group_come_back_together_or_not_at_all() {
    let group = [
        LogOp::Truncate { from: Slot(2) },
        LogOp::Append(crate::kit::entry(2, 9, 3_000)),
        LogOp::Accepted(ballot(9)),
    ];
    let (mut wal, mut disk) = formatted(CONFIG);
    write(&mut wal, &mut disk, &[append(1, 10), append(2, 10), append(3, 10), LogOp::Accepted(ballot(1))]);
    let mut seen = [0, 0];
    for seed in 0..200 {
        let (mut wal, mut disk, mut chance) = (wal.clone(), disk.clone(), Chance(seed));
        let mut out = Vec::new();
        wal.append(&group, &mut out);
        disk.execute(&out[..1]).unwrap();
        disk.crash(&mut || chance.next());
        let recovery = Wal::recover(CONFIG, &disk).unwrap();
        let rounds: Vec<u64> = recovery.entries.iter().map(|entry| entry.ballot.round).collect();
        match (rounds.as_slice(), recovery.hard.accepted.round) {
            ([1, 1, 1], 1) => seen[0] += 1,
            ([1, 9], 9) => seen[1] += 1,
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    assert!(seen[0] > 10 && seen[1] > 10, "{seen:?}");
}

#[test]
fn a_log_whose_formatting_did_not_end_is_not_a_log() {
    let (_, ops) = Wal::format(CONFIG);
    assert!(matches!(Wal::recover(CONFIG, &MemDisk::new()), Err(LogError::NoLog)));
    let mut disk = MemDisk::new();
    disk.execute(&ops[..1]).unwrap();
    assert!(matches!(Wal::recover(CONFIG, &disk), Err(LogError::NoLog)));
}
