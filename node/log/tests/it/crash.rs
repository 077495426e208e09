//! Crashes at any point: what was synced is there, what was not is there whole or not at all.

use crate::kit::{CONFIG, Chance, Model, append, ballot, formatted, random_group, write};
use pharos_log::mem::MemDisk;
use pharos_log::{DiskOp, LogError, Plant, Tail, Wal, WalConfig};
use pharos_paxos::{LogOp, Slot};
use proptest::prelude::*;

/// How a run met the faults it is about.
#[derive(Default)]
pub(crate) struct Coverage {
    torn_tails: usize,
    lost_groups: usize,
    kept_unsynced_groups: usize,
    recycled: usize,
    crashed_recoveries: usize,
    failed_syncs: usize,
}

/// Random groups, trims and crashes in the middle of any operation, over several lives of one disk.
pub(crate) fn lives(seed: u64, config: WalConfig, plant: Plant, coverage: &mut Coverage) {
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
                stop_within(&mut disk, &ops, &mut chance, coverage);
                break;
            }
            disk.execute(&ops).unwrap();
            durable = pending.take().unwrap_or(durable);
        }
        (wal, durable) = restart((config, plant), &mut disk, durable, pending, &mut chance, coverage);
    }
}

/// The machine stops within the operations; or a sync fails, and the process ends.
pub(crate) fn stop_within(disk: &mut MemDisk, ops: &[DiskOp], chance: &mut Chance, coverage: &mut Coverage) {
    let at = chance.below(ops.len() as u64 + 1) as usize;
    disk.execute(&ops[..at]).unwrap();
    match ops.get(at) {
        Some(DiskOp::Sync { file }) if chance.below(2) == 0 => {
            disk.fail_sync(*file, &mut || chance.next()).unwrap();
            coverage.failed_syncs += 1;
        }
        Some(op) => {
            disk.crash_in(op, &mut || chance.next()).unwrap();
        }
        None => {}
    }
}

fn restart(
    (config, plant): (WalConfig, Plant),
    disk: &mut MemDisk,
    durable: Model,
    pending: Option<Model>,
    chance: &mut Chance,
    coverage: &mut Coverage,
) -> (Wal, Model) {
    let mut recovery = Wal::recover_with(config, disk, Slot::ZERO, plant).unwrap();
    while chance.below(3) == 0 {
        stop_within(disk, &recovery.ops, chance, coverage);
        coverage.crashed_recoveries += 1;
        recovery = Wal::recover_with(config, disk, Slot::ZERO, plant).unwrap();
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
    assert_eq!(Wal::recover_with(config, disk, Slot::ZERO, plant).unwrap().tail, Tail::Clean);
    if chance.below(2) == 0 {
        disk.crash(&mut || chance.next());
    }
    let again = Wal::recover_with(config, disk, Slot::ZERO, plant).unwrap();
    assert!(
        again.entries == recovery.entries && again.hard == recovery.hard,
        "recovered twice, not the same"
    );
    assert_eq!(again.wal.last_slot(), recovery.wal.last_slot());
    assert_eq!(again.wal.first_slot(), recovery.wal.first_slot());
    (recovery.wal, model)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_was_synced_survives_any_crash_and_the_rest_is_whole_or_absent(seed: u64) {
        lives(seed, CONFIG, Plant::None, &mut Coverage::default());
    }

    #[test]
    fn the_smallest_segments_and_no_spares_survive_as_well(seed: u64) {
        let config = WalConfig { segment_bytes: 8 << 10, spare_segments: 0, ..CONFIG };
        lives(seed, config, Plant::None, &mut Coverage::default());
    }
}

#[test]
fn the_crash_runs_meet_every_fault_they_are_about() {
    let mut coverage = Coverage::default();
    for seed in 0..300 {
        lives(seed, CONFIG, Plant::None, &mut coverage);
    }
    assert!(coverage.torn_tails > 20, "{}", coverage.torn_tails);
    assert!(coverage.lost_groups > 20, "{}", coverage.lost_groups);
    assert!(coverage.kept_unsynced_groups > 20, "{}", coverage.kept_unsynced_groups);
    assert!(coverage.recycled > 20, "{}", coverage.recycled);
    assert!(coverage.crashed_recoveries > 20, "{}", coverage.crashed_recoveries);
    assert!(coverage.failed_syncs > 20, "{}", coverage.failed_syncs);
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

#[test]
fn two_groups_of_one_number_never_mix_even_if_the_remains_of_the_first_were_not_wiped() {
    let (mut wal, mut disk) = formatted(CONFIG);
    write(&mut wal, &mut disk, &[append(1, 10)]);
    let (first, second) = (append(2, 3_000), LogOp::Append(crate::kit::entry(2, 8, 3_000)));
    let writes = [first, second].map(|op| {
        let mut out = Vec::new();
        wal.clone().append(&[op], &mut out);
        out
    });
    let [DiskOp::Write { file, offset, data: first }, _] = writes[0].as_slice() else { panic!("{writes:?}") };
    let DiskOp::Write { data: second, .. } = &writes[1][0] else { panic!("{writes:?}") };
    for mask in 0..128_usize {
        let sectors = first.chunks(512).zip(second.chunks(512)).enumerate();
        let mixed = sectors.flat_map(|(index, (a, b))| if mask >> index & 1 == 0 { a } else { b });
        let data = mixed.copied().collect();
        let mut disk = disk.clone();
        disk.execute(&[DiskOp::Write { file: *file, offset: *offset, data }, DiskOp::Sync { file: *file }])
            .unwrap();
        let recovery = Wal::recover(CONFIG, &disk).unwrap();
        let rounds: Vec<u64> = recovery.entries.iter().map(|entry| entry.ballot.round).collect();
        let expected = match mask {
            0 => vec![1, 1],
            127 => vec![1, 8],
            _ => vec![1],
        };
        assert_eq!(rounds, expected, "{mask}");
    }
}

#[test]
fn the_remains_of_a_longer_group_behind_its_successor_are_cut() {
    let (mut wal, mut disk) = formatted(CONFIG);
    write(&mut wal, &mut disk, &[append(1, 10)]);
    let mut long = Vec::new();
    wal.clone().append(&[append(2, 12_000)], &mut long);
    let DiskOp::Write { file, offset, data } = &long[0] else { panic!("{long:?}") };
    let behind = DiskOp::Write { file: *file, offset: offset + 4096, data: data.slice(4096..) };
    disk.execute(&[behind, long[1].clone()]).unwrap();
    write(&mut wal, &mut disk, &[LogOp::Append(crate::kit::entry(2, 8, 10))]);
    let recovery = Wal::recover(CONFIG, &disk).unwrap();
    assert_eq!(recovery.entries.last().unwrap().ballot, ballot(8));
    assert!(
        matches!(recovery.tail, Tail::Torn { offset: 12_288, length: 12_288, .. }),
        "{:?}",
        recovery.tail
    );
}
