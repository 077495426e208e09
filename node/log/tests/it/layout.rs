//! Segments: rolling, trimming, using them again, groups larger than one.

use crate::kit::{CONFIG, Model, append, ballot, formatted, trim, write};
use pharos_log::{BLOCK, DiskOp, DiskRead, FileName, Tail, Wal};
use pharos_paxos::{LogOp, Slot};

#[test]
fn an_empty_log_comes_back_empty() {
    let (_, disk) = formatted(CONFIG);
    let recovery = Wal::recover(CONFIG, &disk).unwrap();
    assert!(Model::empty().is(&recovery));
    assert_eq!((recovery.tail, recovery.trimmed), (Tail::Clean, Slot::ZERO));
    assert_eq!((recovery.wal.first_slot(), recovery.wal.last_slot()), (Slot(1), Slot::ZERO));
}

#[test]
fn a_group_is_one_write_of_whole_blocks_and_one_sync() {
    let (mut wal, _) = formatted(CONFIG);
    let mut out = Vec::new();
    wal.append(&[append(1, 10), append(2, 5_000)], &mut out);
    let [DiskOp::Write { file, offset, data }, DiskOp::Sync { file: synced }] = out.as_slice() else {
        panic!("{out:?}");
    };
    assert_eq!((*file, *offset, data.len() % BLOCK), (*synced, BLOCK as u64, 0));
}

#[test]
fn no_operations_are_no_group() {
    let (mut wal, _) = formatted(CONFIG);
    let mut out = Vec::new();
    wal.append(&[], &mut out);
    assert_eq!(out, []);
}

#[test]
fn trimming_keeps_the_hard_state_and_the_entries_above() {
    let (mut wal, mut disk) = formatted(CONFIG);
    write(&mut wal, &mut disk, &[LogOp::Promised(ballot(5)), LogOp::Accepted(ballot(4))]);
    for slot in 1..=40 {
        write(&mut wal, &mut disk, &[append(slot, 3_000), LogOp::Committed(Slot(slot - 1))]);
    }
    let segments = wal.segments();
    trim(&mut wal, &mut disk, 30);
    assert!(wal.segments() < segments);
    let first = wal.first_slot();
    assert!(first > Slot(20) && first <= Slot(31), "{first}");
    let recovery = Wal::recover(CONFIG, &disk).unwrap();
    assert_eq!(recovery.hard.promised, ballot(5));
    assert_eq!(recovery.hard.accepted, ballot(4));
    assert_eq!(recovery.hard.committed, Slot(39));
    let slots: Vec<Slot> = recovery.entries.iter().map(|entry| entry.slot).collect();
    assert_eq!(slots, (first.0..=40).map(Slot).collect::<Vec<_>>());
    assert_eq!(recovery.wal.bytes(), wal.bytes());
}

#[test]
fn trimmed_segments_are_used_again_and_their_old_groups_never_come_back() {
    let (mut wal, mut disk) = formatted(CONFIG);
    let mut created = 0;
    for slot in 1..=400 {
        let mut out = Vec::new();
        wal.append(&[append(slot, 3_000), LogOp::Committed(Slot(slot))], &mut out);
        created += out.iter().filter(|op| matches!(op, DiskOp::Create { .. })).count();
        disk.execute(&out).unwrap();
        trim(&mut wal, &mut disk, slot.saturating_sub(5));
        let recovery = Wal::recover(CONFIG, &disk).unwrap();
        assert_eq!((recovery.wal.last_slot(), recovery.wal.first_slot()), (Slot(slot), wal.first_slot()));
    }
    assert_eq!(created, 0);
    assert!(disk.list().unwrap().len() <= 4);
}

#[test]
fn a_truncation_across_segments_survives_the_trimming_of_the_earlier_one() {
    let (mut wal, mut disk) = formatted(CONFIG);
    for slot in 1..=12 {
        write(&mut wal, &mut disk, &[append(slot, 3_000)]);
    }
    write(&mut wal, &mut disk, &[LogOp::Truncate { from: Slot(4) }, append(4, 1), LogOp::Committed(Slot(4))]);
    trim(&mut wal, &mut disk, 3);
    assert_eq!((wal.first_slot(), wal.last_slot()), (Slot(4), Slot(4)));
    let recovery = Wal::recover(CONFIG, &disk).unwrap();
    assert_eq!((recovery.trimmed, recovery.entries.len()), (Slot(3), 1));
    assert_eq!(recovery.wal.first_slot(), Slot(4));
}

#[test]
fn a_reset_log_goes_on_after_the_slot_and_forgets_the_segments_before() {
    let (mut wal, mut disk) = formatted(CONFIG);
    for slot in 1..=12 {
        write(&mut wal, &mut disk, &[append(slot, 3_000)]);
    }
    write(&mut wal, &mut disk, &[LogOp::Reset { after: Slot(500) }]);
    let recovery = Wal::recover(CONFIG, &disk).unwrap();
    assert_eq!((recovery.trimmed, recovery.entries.len()), (Slot(500), 0));
    assert_eq!((recovery.wal.first_slot(), recovery.hard.committed), (Slot(501), Slot(500)));
    for slot in 501..=512 {
        write(&mut wal, &mut disk, &[append(slot, 3_000)]);
    }
    trim(&mut wal, &mut disk, 500);
    let recovery = Wal::recover(CONFIG, &disk).unwrap();
    assert_eq!((recovery.trimmed, recovery.entries.len()), (Slot(500), 12));
    assert!(recovery.replayed.groups < 24, "{:?}", recovery.replayed);
}

#[test]
#[should_panic(expected = "a reset goes back behind a committed slot: reset to slot 1")]
fn a_reset_to_before_a_committed_slot_is_a_broken_invariant() {
    let (mut wal, _) = formatted(CONFIG);
    let ops = [append(1, 0), append(2, 0), LogOp::Committed(Slot(2)), LogOp::Reset { after: Slot(1) }];
    wal.append(&ops, &mut Vec::new());
}

#[test]
fn a_group_larger_than_a_segment_gets_one_of_its_own_which_is_not_used_again() {
    let (mut wal, mut disk) = formatted(CONFIG);
    write(&mut wal, &mut disk, &[append(1, 10)]);
    write(&mut wal, &mut disk, &[append(2, pharos_paxos::MAX_ENTRY_BYTES), append(3, 10)]);
    write(&mut wal, &mut disk, &[append(4, 10)]);
    assert_eq!(wal.segments(), 3);
    let recovery = Wal::recover(CONFIG, &disk).unwrap();
    assert_eq!(recovery.entries.len(), 4);
    assert_eq!(recovery.entries[1].payload.len(), pharos_paxos::MAX_ENTRY_BYTES);
    let large = disk.list().unwrap().into_iter().find(|file| disk.len(*file).unwrap() > CONFIG.segment_bytes);
    let out = trim(&mut wal, &mut disk, 3);
    assert!(out.contains(&DiskOp::Remove { file: large.unwrap() }));
}

#[test]
fn the_tail_is_written_again_byte_for_byte_before_anything_else() {
    let (mut wal, mut disk) = formatted(CONFIG);
    let mut out = Vec::new();
    wal.append(&[append(1, 900)], &mut out);
    disk.execute(&out).unwrap();
    let recovery = Wal::recover(CONFIG, &disk).unwrap();
    assert_eq!(recovery.ops.last(), out.last());
    assert!(recovery.ops.contains(&out[0]), "{:?}", recovery.ops);
}

#[test]
fn spares_are_created_ahead_and_found_again() {
    let (mut wal, mut disk) = formatted(CONFIG);
    assert_eq!((wal.spares(), wal.wanted_spare()), (2, None));
    for slot in 1..=12 {
        write(&mut wal, &mut disk, &[append(slot, 3_000)]);
    }
    assert_eq!(wal.spares(), 1);
    let wanted = wal.wanted_spare().unwrap();
    disk.execute(std::slice::from_ref(&wanted)).unwrap();
    wal.add_spare(&wanted);
    assert_eq!(Wal::recover(CONFIG, &disk).unwrap().wal.spares(), 2);
}

#[test]
#[should_panic(expected = "an entry does not follow the one before it: append of slot 3")]
fn a_gap_in_the_log_is_a_broken_invariant() {
    let (mut wal, _) = formatted(CONFIG);
    wal.append(&[append(1, 0), append(3, 0)], &mut Vec::new());
}

#[test]
#[should_panic(expected = "a committed slot is truncated: truncate from slot 1")]
fn truncating_a_committed_slot_is_a_broken_invariant() {
    let (mut wal, _) = formatted(CONFIG);
    wal.append(
        &[append(1, 0), LogOp::Committed(Slot(1)), LogOp::Truncate { from: Slot(1) }],
        &mut Vec::new(),
    );
}

#[test]
fn a_file_name_is_read_only_as_it_is_written() {
    assert_eq!(FileName::parse("0000000012.wal"), Some(FileName(12)));
    for other in ["12.wal", "0000000012.wal~", "LOCK", "+000000012.wal"] {
        assert_eq!(FileName::parse(other), None, "{other}");
    }
}

#[test]
fn the_newest_segments_are_found_by_what_they_take_on_the_disk() {
    let (mut wal, mut disk) = formatted(CONFIG);
    // Each group takes a whole block, however small it is.
    for slot in 1..=100 {
        write(&mut wal, &mut disk, &[append(slot, 10)]);
    }
    let keep = 2 * CONFIG.segment_bytes;
    assert!(wal.bytes() > 2 * keep, "{}", wal.bytes());
    assert_eq!(wal.before_newest(u64::MAX), Slot::ZERO);
    let older = wal.before_newest(keep);
    assert!(wal.can_trim(older) && !wal.can_trim(Slot::ZERO));
    trim(&mut wal, &mut disk, older.0);
    assert!((keep..keep + CONFIG.segment_bytes).contains(&wal.bytes()), "{}", wal.bytes());
    assert!(!wal.can_trim(wal.before_newest(keep)));
}
