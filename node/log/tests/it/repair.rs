//! Damage before what the caller has elsewhere: passed over, and neither a promise nor a later entry is lost by it.

use crate::crash::{Coverage, stop_within};
use crate::kit::{Chance, Model, append, ballot, formatted, random_group, trim, write};
use bytes::Bytes;
use pharos_log::mem::MemDisk;
use pharos_log::{BLOCK, DiskOp, DiskRead, FileName, LogError, Plant, SECTOR, Wal, WalConfig};
use pharos_paxos::{LogOp, Slot};

const SMALL: WalConfig = WalConfig { segment_bytes: 16 << 10, spare_segments: 1, identity: [7; 16] };

/// How the runs went.
#[derive(Default)]
pub(crate) struct Runs {
    repaired: usize,
    refused: usize,
    harmless: usize,
    /// With a hard state that says more than what was accepted.
    promised: usize,
}

/// A log of some segments, and where each begins: its file and the log's end then.
struct Life {
    wal: Wal,
    disk: MemDisk,
    model: Model,
    segments: Vec<(FileName, Slot)>,
}

fn life(chance: &mut Chance) -> Life {
    let (mut wal, mut disk) = formatted(SMALL);
    let (mut model, mut segments) = (Model::empty(), vec![(FileName(1), Slot::ZERO)]);
    while wal.segments() < 4 || chance.below(6) > 0 {
        let mut out = Vec::new();
        let end = model.end();
        if chance.below(10) == 0 {
            wal.trim(Slot(chance.below(model.hard.committed.0 + 1)), &mut out);
        } else {
            let group = random_group(&model, Slot(wal.first_slot().0 - 1), chance);
            wal.append(&group, &mut out);
            model.apply(&group);
        }
        let begun = out.iter().filter_map(|op| match op {
            DiskOp::Write { file, offset: 0, .. } => Some((*file, end)),
            _ => None,
        });
        segments.extend(begun);
        disk.execute(&out).unwrap();
    }
    let live = segments.split_off(segments.len() - wal.segments());
    Life { wal, disk, model, segments: live }
}

/// Something happens to the file.
fn damage(disk: &mut MemDisk, file: FileName, chance: &mut Chance) {
    let length = disk.len(file).unwrap();
    let blocks = length / BLOCK as u64;
    let (offset, garbage) = (chance.below(blocks) * BLOCK as u64, Bytes::from(vec![0xa5; BLOCK]));
    let over = |offset, data| [DiskOp::Write { file, offset, data }, DiskOp::Sync { file }];
    match chance.below(6) {
        0 => disk.execute(&[DiskOp::Remove { file }]).unwrap(),
        1 => disk.execute(&over(0, garbage)).unwrap(),
        2 => disk.execute(&over(offset, garbage)).unwrap(),
        3 => disk.execute(&over(offset, Bytes::from(vec![0; BLOCK]))).unwrap(),
        4 => {
            // A write that was meant for elsewhere.
            let mut block = vec![0; BLOCK];
            disk.read(file, BLOCK as u64, &mut block).unwrap();
            disk.execute(&over(offset, block.into())).unwrap();
        }
        _ => disk.flip(file, chance.below(length * 8) as usize).unwrap(),
    }
}

/// One log, damaged in a segment before the newest.
pub(crate) fn run(seed: u64, plant: Plant, runs: &mut Runs) {
    let mut chance = Chance(seed);
    let Life { wal, mut disk, model, segments } = life(&mut chance);
    let hit = chance.below(segments.len() as u64 - 1) as usize;
    // What a later segment begins after may have been cut since.
    let begins = segments[hit + 1..].iter().map(|(_, base)| *base).min().unwrap();
    let stored = match chance.below(3) {
        0 => segments[hit + 1].1,
        _ => Slot(chance.below(model.end().0 + 1)),
    };
    damage(&mut disk, segments[hit].0, &mut chance);
    let recovered = Wal::recover_with(SMALL, &disk, stored, plant);
    let Ok(mut recovery) = recovered else {
        let error = recovered.unwrap_err();
        assert!(error.is_damage() && stored < begins, "seed {seed}: {error}, with all up to {stored}");
        runs.refused += 1;
        return;
    };
    assert!(model.is(&recovery), "seed {seed}: what comes after the damage is not as it was written");
    if recovery.forgotten.is_empty() {
        assert_eq!(recovery.wal.first_slot(), wal.first_slot());
        runs.harmless += 1;
        return;
    }
    let upto = recovery.forgotten.iter().map(|forgotten| forgotten.upto).max();
    assert!(upto <= Some(stored), "seed {seed}: forgot {:?}", recovery.forgotten);
    runs.repaired += 1;
    runs.promised += usize::from(model.hard.promised > model.hard.accepted);
    while chance.below(3) == 0 {
        stop_within(&mut disk, &recovery.ops, &mut chance, &mut Coverage::default());
        recovery = Wal::recover_with(SMALL, &disk, stored, plant).unwrap();
        assert!(model.is(&recovery), "seed {seed}: stopped in the middle of a repair");
    }
    disk.execute(&recovery.ops).unwrap();
    goes_on(recovery.wal, disk, model, seed);
}

/// Nothing of the damage is left, whoever reads the log.
fn goes_on(mut wal: Wal, mut disk: MemDisk, mut model: Model, seed: u64) {
    let again = Wal::recover(SMALL, &disk).unwrap();
    assert!(model.is(&again) && again.forgotten.is_empty(), "seed {seed}: repaired, and not the same");
    let more = [LogOp::Promised(ballot(99)), append(model.end().0 + 1, 20_000)];
    write(&mut wal, &mut disk, &more);
    model.apply(&more);
    trim(&mut wal, &mut disk, model.hard.committed.0);
    assert!(model.is(&Wal::recover(SMALL, &disk).unwrap()), "seed {seed}: after the repair");
}

#[test]
fn damage_before_what_is_stored_costs_no_promise_and_no_later_entry_and_other_damage_is_refused() {
    let mut runs = Runs::default();
    (0..1_500).for_each(|seed| run(seed, Plant::None, &mut runs));
    let Runs { repaired, refused, harmless, promised } = runs;
    assert!(repaired > 300 && refused > 100 && harmless > 50 && promised > 50, "{repaired} {refused}");
}

/// The log's slots, one to a segment.
fn of_segments(count: u64) -> (Wal, MemDisk) {
    let (mut wal, mut disk) = formatted(SMALL);
    for slot in 1..=count {
        write(&mut wal, &mut disk, &[append(slot, 10_000), LogOp::Promised(ballot(slot))]);
    }
    (wal, disk)
}

#[test]
fn a_segment_that_is_missing_in_the_middle_is_named_or_passed_over_if_its_slots_are_stored() {
    let (_, mut disk) = of_segments(5);
    disk.execute(&[DiskOp::Remove { file: FileName(3) }]).unwrap();
    let error = Wal::recover_above(SMALL, &disk, Slot(2)).unwrap_err();
    assert_eq!(error.to_string(), "log segment 3 is missing; slots 2 to 3 may have been acknowledged");
    let recovery = Wal::recover_above(SMALL, &disk, Slot(3)).unwrap();
    assert_eq!((recovery.trimmed, recovery.entries.len()), (Slot(3), 2));
    assert_eq!(recovery.hard.promised, ballot(5));
    let [forgotten] = &recovery.forgotten[..] else { panic!("{:?}", recovery.forgotten) };
    assert_eq!((forgotten.upto, &forgotten.damage), (Slot(3), &error.to_string()));
}

#[test]
fn what_can_be_read_of_a_damaged_log_makes_a_new_one() {
    let (_, mut disk) = of_segments(5);
    disk.flip(FileName(4), (BLOCK + SECTOR) * 8).unwrap();
    let salvage = Wal::salvage(SMALL, &disk, Slot::ZERO).unwrap().unwrap();
    assert!(matches!(salvage.damage, LogError::Corrupt { file: FileName(4), .. }), "{}", salvage.damage);
    assert_eq!((salvage.trimmed, salvage.entries.len()), (Slot::ZERO, 3));
    assert_eq!(salvage.hard.promised, ballot(3));
    let mut new = MemDisk::new();
    let (_, ops) = salvage.rewritten(SMALL);
    new.execute(&ops).unwrap();
    let read = Wal::recover(SMALL, &new).unwrap();
    assert_eq!((read.hard, read.trimmed, read.entries), (salvage.hard, salvage.trimmed, salvage.entries));
    assert!(Wal::salvage(SMALL, &new, Slot::ZERO).unwrap().is_none(), "nothing is wrong with it");
}
