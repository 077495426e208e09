//! A small disk that fills up, and what the store does once there is room again.

use crate::suite::{OPTIONS, noise, rows};
use bytes::Bytes;
use pharos_store::{RocksStore, Store, StoreError, WriteBatch};
use std::path::Path;
use std::process::Command;

const TEST: &str = "full::a_store_goes_on_after_a_full_disk_from_its_last_flush";
const DISK: &str = "PHAROS_STORE_DISK";
const DISK_BYTES: usize = 24 << 20;
const BALLAST_BYTES: usize = 12 << 20;
const ROW_BYTES: usize = 64 << 10;

fn batch(number: u64) -> WriteBatch {
    let row = (Bytes::from(format!("row {number:08}")), noise(number, ROW_BYTES));
    WriteBatch { puts: vec![row], deletes: Vec::new() }
}

fn put(store: &mut RocksStore, number: u64) -> Result<u64, StoreError> {
    store.write(batch(number), number)?;
    store.flush()
}

/// Puts rows from that number on, until it fails. The number is then the first that was not put.
fn fill_up(store: &mut RocksStore, number: &mut u64) -> StoreError {
    loop {
        match put(store, *number) {
            Ok(flushed) => assert_eq!(flushed, *number),
            Err(error) => return error,
        }
        *number += 1;
        assert!(*number < (DISK_BYTES / ROW_BYTES) as u64, "the disk never filled up");
    }
}

/// What the test's own process does on the disk.
fn fill(disk: &Path) {
    let ballast = disk.join("ballast");
    std::fs::write(&ballast, vec![1; BALLAST_BYTES]).unwrap();
    let mut store = RocksStore::open(&disk.join("store"), &OPTIONS).unwrap();
    let mut number = 1;
    let error = fill_up(&mut store, &mut number);
    assert!(error.is_disk_full(), "{error:?}");
    // Without room it is full again, as often as it is tried; to open it may free what nobody needs.
    let again = store.reopen().map_or_else(|error| error, |()| fill_up(&mut store, &mut number));
    assert!(again.is_disk_full(), "{again:?}");
    std::fs::remove_file(&ballast).unwrap();
    store.reopen().unwrap();
    assert_eq!((store.applied(), store.flushed()), (number - 1, number - 1));
    for next in number..number + 20 {
        assert_eq!(put(&mut store, next).unwrap(), next);
    }
    drop(store);
    let store = RocksStore::open(&disk.join("store"), &OPTIONS).unwrap();
    let expected: Vec<_> = (1..number + 20).map(|number| batch(number).puts.swap_remove(0)).collect();
    let expected: Vec<_> = expected.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    assert!(rows(&store) == expected, "the rows are not those that were written");
}

#[test]
fn a_store_goes_on_after_a_full_disk_from_its_last_flush() {
    if let Some(disk) = std::env::var_os(DISK) {
        return fill(Path::new(&disk));
    }
    let dir = tempfile::tempdir().unwrap();
    // The disk is gone with the process, for it is in its mount namespace alone.
    let script = r#"mount -t tmpfs -o size="$1" tmpfs "$2" && exec "$3" "$4" --exact --nocapture"#;
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    command.arg(DISK_BYTES.to_string()).arg(dir.path()).arg(std::env::current_exe().unwrap()).arg(TEST);
    let output = command.env(DISK, dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
