//! Damage to bytes that were synced: found and named, never cut.

use crate::kit::{CONFIG, Chance, append, ballot, formatted, trim, write};
use bytes::Bytes;
use pharos_log::mem::MemDisk;
use pharos_log::{BLOCK, DiskOp, DiskRead, FileName, LogError, Plant, SECTOR, Tail, Wal, WalConfig};
use pharos_paxos::{LogOp, Slot};
use proptest::prelude::*;
use std::collections::BTreeSet;

const SMALL: WalConfig = WalConfig { segment_bytes: 16 << 10, spare_segments: 1, identity: [7; 16] };

/// Four segments, groups of one and of several sectors, the first segment's file used a second time.
fn some_log() -> (Wal, MemDisk) {
    let (wal, disk, _) = some_log_and_its_sectors();
    (wal, disk)
}

/// The same, and the sectors that hold groups, dead ones included, by file and number.
fn some_log_and_its_sectors() -> (Wal, MemDisk, BTreeSet<(FileName, u64)>) {
    let (mut wal, mut disk) = formatted(SMALL);
    let mut all = Vec::new();
    for slot in 1..=8 {
        wal.append(&[append(slot, 3_000), LogOp::Committed(Slot(slot - 1))], &mut all);
    }
    wal.trim(Slot(4), &mut all);
    wal.append(&[LogOp::Promised(ballot(4))], &mut all);
    for slot in 9..=10 {
        wal.append(&[append(slot, 700)], &mut all);
    }
    disk.execute(&all).unwrap();
    let mut sectors = BTreeSet::new();
    for op in all {
        match op {
            DiskOp::Write { file, offset: 0, .. } => sectors.retain(|(other, _)| *other != file),
            DiskOp::Write { file, offset, data } => {
                let stamped =
                    data.chunks(SECTOR).enumerate().filter(|(_, sector)| sector.iter().any(|b| *b != 0));
                sectors.extend(stamped.map(|(index, _)| (file, offset / SECTOR as u64 + index as u64)));
            }
            _ => {}
        }
    }
    (wal, disk, sectors)
}

#[test]
fn every_flipped_bit_of_a_synced_group_is_refused_and_every_other_one_is_harmless() {
    assert!(flip_bits(Plant::None) > 50_000);
}

/// Flips one after the other; how many were right.
pub(crate) fn flip_bits(plant: Plant) -> usize {
    let mut flipped = 0;
    let (wal, disk, mut sectors) = some_log_and_its_sectors();
    let before = Wal::recover(SMALL, &disk).unwrap();
    assert_eq!((before.tail, before.wal.segments()), (Tail::Clean, wal.segments()));
    for file in disk.list().unwrap() {
        let mut without = disk.clone();
        without.execute(&[DiskOp::Remove { file }]).unwrap();
        if Wal::recover(SMALL, &without).is_ok_and(|recovery| recovery.entries == before.entries) {
            sectors.retain(|(other, _)| *other != file); // A spare: its groups are dead.
        }
    }
    assert!(sectors.len() > 30);
    for file in disk.list().unwrap() {
        let bits = disk.len(file).unwrap() as usize * 8;
        // Every bit of the stamps and numbers of each sector, and each seventh bit of the rest.
        for bit in
            (0..bits).filter(|bit| bit % 7 == 0 || bit % (SECTOR * 8) < 256 || bit % (SECTOR * 8) >= 4032)
        {
            let mut damaged = disk.clone();
            damaged.flip(file, bit).unwrap();
            let byte = bit as u64 / 8;
            match Wal::recover_with(SMALL, &damaged, Slot::ZERO, plant) {
                Err(LogError::Corrupt { file: named, offset, .. }) => {
                    assert!(sectors.contains(&(file, byte / SECTOR as u64)), "{file} bit {bit}");
                    assert_eq!(named, file);
                    assert!(offset <= byte && byte < offset + 2 * BLOCK as u64, "{offset} for byte {byte}");
                }
                Err(other) => panic!("{file} bit {bit}: {other}"),
                Ok(recovery) => {
                    assert!(!sectors.contains(&(file, byte / SECTOR as u64)), "{file} bit {bit}");
                    assert_eq!(recovery.entries, before.entries, "{file} bit {bit}");
                    assert_eq!((recovery.hard, recovery.trimmed), (before.hard, before.trimmed));
                }
            }
            flipped += 1;
        }
    }
    flipped
}

#[test]
fn a_healed_header_is_whole_again() {
    let (_, mut disk) = some_log();
    let newest = *disk.list().unwrap().last().unwrap();
    let files = disk.list().unwrap();
    for file in &files {
        disk.flip(*file, 100).unwrap();
    }
    let recovery = Wal::recover(SMALL, &disk).unwrap();
    disk.execute(&recovery.ops).unwrap();
    for copy in 1..8 {
        disk.flip(newest, copy * SECTOR * 8 + 100).unwrap();
    }
    assert_eq!(Wal::recover(SMALL, &disk).unwrap().entries, recovery.entries);
}

#[test]
fn a_hole_before_a_later_group_is_corruption_not_a_torn_tail() {
    let (mut wal, mut disk) = formatted(CONFIG);
    for slot in 1..=3 {
        write(&mut wal, &mut disk, &[append(slot, 2_000)]);
    }
    let zeros = Bytes::from(vec![0; BLOCK]);
    let file = FileName(1);
    disk.execute(&[DiskOp::Write { file, offset: 2 * BLOCK as u64, data: zeros }, DiskOp::Sync { file }])
        .unwrap();
    let error = Wal::recover(CONFIG, &disk).unwrap_err();
    assert_eq!(
        error.to_string(),
        "log file 0000000001.wal is corrupt at byte 8192: a group is missing before a later one; \
         slots 2 to 2 may have been acknowledged"
    );
}

#[test]
fn a_group_of_another_history_of_the_same_volume_is_refused() {
    let histories = [3, 4].map(|round| {
        let (mut wal, mut disk) = formatted(CONFIG);
        write(&mut wal, &mut disk, &[LogOp::Promised(ballot(round))]);
        write(&mut wal, &mut disk, &[append(1, 10)]);
        disk
    });
    let [mut disk, other] = histories;
    let (file, offset, mut block) = (FileName(1), 2 * BLOCK as u64, vec![0; BLOCK]);
    other.read(file, offset, &mut block).unwrap();
    disk.execute(&[DiskOp::Write { file, offset, data: block.into() }, DiskOp::Sync { file }]).unwrap();
    let message = Wal::recover(CONFIG, &disk).unwrap_err().to_string();
    assert!(message.contains("corrupt at byte 8192: a group belongs to another history"), "{message}");
}

#[test]
fn a_missing_segment_is_named() {
    let (_, mut disk) = some_log();
    let recovery = Wal::recover(SMALL, &disk).unwrap();
    assert!(recovery.wal.segments() >= 3);
    disk.execute(&[DiskOp::Remove { file: FileName(3) }]).unwrap();
    assert!(matches!(Wal::recover(SMALL, &disk), Err(LogError::Missing { .. })));
}

#[test]
fn a_wholly_destroyed_header_before_entries_is_corruption() {
    let (_, disk) = some_log();
    let before = Wal::recover(SMALL, &disk).unwrap();
    let mut refused = 0;
    for file in disk.list().unwrap() {
        let mut damaged = disk.clone();
        let data = Bytes::from(vec![0xa5; BLOCK]);
        damaged.execute(&[DiskOp::Write { file, offset: 0, data }, DiskOp::Sync { file }]).unwrap();
        match Wal::recover(SMALL, &damaged) {
            Err(LogError::Corrupt { .. } | LogError::Missing { .. }) => refused += 1,
            Err(other) => panic!("{file}: {other}"),
            Ok(recovery) => assert_eq!(recovery.entries, before.entries, "{file}"),
        }
    }
    assert_eq!(refused, before.wal.segments());
}

#[test]
fn a_header_that_was_lost_or_is_an_older_one_before_entries_is_corruption() {
    let (mut wal, mut disk) = formatted(SMALL);
    let file = FileName(1);
    let header = |disk: &MemDisk| {
        let mut block = vec![0; BLOCK];
        disk.read(file, 0, &mut block).unwrap();
        Bytes::from(block)
    };
    let (older, mut slot) = (header(&disk), 0);
    // Until the first segment's file is the newest one.
    while header(&disk) == older {
        slot += 1;
        write(&mut wal, &mut disk, &[append(slot, 3_000), LogOp::Committed(Slot(slot))]);
        trim(&mut wal, &mut disk, slot - 1);
    }
    write(&mut wal, &mut disk, &[append(slot + 1, 10)]);
    for data in [Bytes::from(vec![0; BLOCK]), older] {
        let mut damaged = disk.clone();
        damaged.execute(&[DiskOp::Write { file, offset: 0, data }, DiskOp::Sync { file }]).unwrap();
        let error = Wal::recover(SMALL, &damaged).unwrap_err();
        assert!(matches!(error, LogError::Corrupt { offset: 0, .. }), "{error}");
    }
}

#[test]
fn a_segment_that_was_cut_within_a_block_is_corruption() {
    for length in [BLOCK + 1, BLOCK + SECTOR, 2 * BLOCK - 1, 3 * BLOCK + 7] {
        let (mut wal, mut disk) = formatted(SMALL);
        write(&mut wal, &mut disk, &[append(1, 10)]);
        let file = FileName(1);
        let mut bytes = vec![0; length.next_multiple_of(BLOCK)];
        disk.read(file, 0, &mut bytes).unwrap();
        let error = Wal::recover(SMALL, &Cut { file, bytes: bytes[..length].to_vec() }).unwrap_err();
        assert!(matches!(error, LogError::Corrupt { .. }), "{length}: {error}");
    }
}

/// One file of any length.
struct Cut {
    file: FileName,
    bytes: Vec<u8>,
}

impl DiskRead for Cut {
    fn list(&self) -> std::io::Result<Vec<FileName>> {
        Ok(vec![self.file])
    }

    fn len(&self, _: FileName) -> std::io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }

    fn read(&self, _: FileName, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        let from = offset as usize;
        buf.copy_from_slice(&self.bytes[from..from + buf.len()]);
        Ok(())
    }
}

#[test]
fn a_log_of_a_newer_format_is_refused_by_name() {
    let (_, mut disk) = formatted(CONFIG);
    let file = FileName(1);
    let mut block = vec![0; BLOCK];
    disk.read(file, 0, &mut block).unwrap();
    for copy in block.chunks_mut(SECTOR) {
        copy[8..12].copy_from_slice(&[9, 0, 8, 0]);
        let crc = crc32c::crc32c(&copy[..SECTOR - 4]);
        copy[SECTOR - 4..].copy_from_slice(&crc.to_le_bytes());
    }
    disk.execute(&[DiskOp::Write { file, offset: 0, data: block.into() }, DiskOp::Sync { file }]).unwrap();
    assert_eq!(
        Wal::recover(CONFIG, &disk).unwrap_err().to_string(),
        "log file 0000000001.wal has format 9 and needs a reader of format 8 or later; this build reads 1"
    );
}

#[test]
fn a_log_of_another_volume_is_refused_by_name() {
    let (_, disk) = formatted(CONFIG);
    let error = Wal::recover(WalConfig { identity: [8; 16], ..CONFIG }, &disk).unwrap_err();
    assert_eq!(
        error.to_string(),
        "log file 0000000001.wal belongs to volume 07070707070707070707070707070707, \
         not to 08080808080808080808080808080808"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn recovery_of_random_bytes_ends_without_a_panic(seed: u64) {
        let mut chance = Chance(seed);
        let (_, mut disk) = some_log();
        for _ in 0..1 + chance.below(6) {
            let files = disk.list().unwrap();
            let file = files[chance.below(files.len() as u64) as usize];
            let sectors = disk.len(file).unwrap() / SECTOR as u64;
            let length = 1 + chance.below(6.min(sectors));
            let offset = chance.below(sectors - length + 1) * SECTOR as u64;
            let data: Bytes = match chance.below(3) {
                0 => (0..length as usize * SECTOR).map(|_| chance.next() as u8).collect(),
                1 => vec![0; length as usize * SECTOR].into(),
                _ => { // Sectors from elsewhere: a misdirected write.
                    let mut data = vec![0; length as usize * SECTOR];
                    let from = files[chance.below(files.len() as u64) as usize];
                    disk.read(from, chance.below(sectors - length + 1) * SECTOR as u64, &mut data).unwrap();
                    data.into()
                }
            };
            disk.execute(&[DiskOp::Write { file, offset, data }, DiskOp::Sync { file }]).unwrap();
        }
        let before = some_log().0;
        if let Ok(recovery) = Wal::recover(SMALL, &disk) {
            prop_assert!(recovery.wal.last_slot() <= before.last_slot());
        }
    }
}
