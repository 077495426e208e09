//! The log on real files, and the data directory around it.

use crate::kit::{CONFIG, append, ballot};
use pharos_log::file::{DataDir, FileDisk};
use pharos_log::{BLOCK, DiskOp, DiskRead, FileName, Home, Superblock, Wal};
use pharos_paxos::{LogOp, MemberId, Slot};

#[test]
fn a_log_on_files_comes_back_after_the_process_ended() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = FileDisk::open(&dir.path().join("log")).unwrap();
    let (mut wal, ops) = Wal::format(CONFIG);
    disk.execute(&ops).unwrap();
    for slot in 1..=30 {
        let mut out = Vec::new();
        wal.append(
            &[append(slot, 3_000), LogOp::Promised(ballot(slot)), LogOp::Committed(Slot(slot))],
            &mut out,
        );
        wal.trim(Slot(slot.saturating_sub(4)), &mut out);
        disk.execute(&out).unwrap();
    }
    drop(disk);
    let mut disk = FileDisk::open(&dir.path().join("log")).unwrap();
    let recovery = Wal::recover(CONFIG, &disk).unwrap();
    assert_eq!((recovery.wal.first_slot(), recovery.wal.last_slot()), (wal.first_slot(), wal.last_slot()));
    assert_eq!(recovery.hard, wal.hard());
    assert_eq!(recovery.entries.len() as u64, 31 - wal.first_slot().0);
    disk.execute(&recovery.ops).unwrap();
    let mut out = Vec::new();
    let mut wal = recovery.wal;
    wal.append(&[append(31, 1)], &mut out);
    disk.execute(&out).unwrap();
    assert_eq!(Wal::recover(CONFIG, &disk).unwrap().entries.last().unwrap().slot, Slot(31));
}

#[test]
fn a_file_that_was_cut_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = FileDisk::open(dir.path()).unwrap();
    let (mut wal, mut ops) = Wal::format(CONFIG);
    wal.append(&[append(1, 9_000)], &mut ops);
    disk.execute(&ops).unwrap();
    let [DiskOp::Write { file, offset, data }, DiskOp::Sync { .. }] = &ops[ops.len() - 2..] else { panic!() };
    let end = offset + data.len() as u64;
    let block = BLOCK as u64;
    for length in [end + block, end, end - block, *offset, end + 1, end - 1, end - 296, offset + 1, block + 1]
    {
        std::fs::File::options()
            .write(true)
            .open(dir.path().join(file.to_string()))
            .and_then(|file| file.set_len(length))
            .unwrap();
        let Err(error) = Wal::recover(CONFIG, &disk) else {
            panic!("cut to {length} bytes, it is taken for whole")
        };
        let error = error.to_string();
        assert!(error.starts_with(&format!("log file {file} is corrupt at byte ")), "{length}: {error}");
    }
}

#[test]
fn a_created_file_is_listed_zero_filled_and_gone_when_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut disk = FileDisk::open(dir.path()).unwrap();
    std::fs::write(dir.path().join("notes.txt"), "not a segment").unwrap();
    let (file, size) = (FileName(4), 3 << 20);
    disk.execute(&[DiskOp::Create { file, size }]).unwrap();
    let data = vec![9; BLOCK].into();
    disk.execute(&[DiskOp::Write { file, offset: BLOCK as u64, data }, DiskOp::Sync { file }]).unwrap();
    assert_eq!((disk.list().unwrap(), disk.len(file).unwrap()), (vec![file], size));
    let mut all = vec![1; size as usize];
    disk.read(file, 0, &mut all).unwrap();
    assert!(all[..BLOCK].iter().chain(&all[2 * BLOCK..]).all(|byte| *byte == 0));
    assert!(all[BLOCK..2 * BLOCK].iter().all(|byte| *byte == 9));
    let mut unaligned = [0; 600];
    disk.read(file, BLOCK as u64 - 100, &mut unaligned).unwrap();
    assert_eq!((unaligned[99], unaligned[100], unaligned[599]), (0, 9, 9));
    assert!(disk.read(file, size - 10, &mut unaligned).is_err());
    disk.execute(&[DiskOp::Remove { file }]).unwrap();
    assert_eq!(disk.list().unwrap(), []);
}

#[test]
fn a_second_user_of_a_data_directory_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let first = DataDir::open(dir.path()).unwrap();
    let expected = format!(
        "data directory {} is in use by another process (process {})",
        dir.path().display(),
        std::process::id()
    );
    assert_eq!(DataDir::open(dir.path()).unwrap_err().to_string(), expected);
    drop(first);
    DataDir::open(dir.path()).unwrap();
}

#[test]
fn a_superblock_is_replaced_whole_and_a_damaged_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = DataDir::open(&dir.path().join("data")).unwrap();
    assert_eq!(data.superblock().unwrap(), None);
    let empty = Superblock { volume: [3; 16], home: None };
    data.write_superblock(&empty).unwrap();
    assert_eq!(data.superblock().unwrap(), Some(empty));
    let home = Some(Home { cluster: [4; 16], generation: 1, member: MemberId(2) });
    data.write_superblock(&Superblock { home, ..empty }).unwrap();
    assert_eq!(data.superblock().unwrap().unwrap().home, home);
    std::fs::write(data.path().join("pharos.superblock"), "").unwrap();
    let message = data.superblock().unwrap_err().to_string();
    assert_eq!(message, format!("data directory {}: the superblock is damaged", data.path().display()));
}
