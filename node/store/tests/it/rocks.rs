//! What is RocksDB's alone: refusals by name, and its own flushes.

use crate::suite::{Kind, OPTIONS, batch, bytes, noise};
use bytes::Bytes;
use pharos_store::{Options, RocksStore, Store, StoreError, WriteBatch};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Changes a store behind its back.
fn with_raw(dir: &Path, families: &[&str], change: impl FnOnce(&rocksdb::DB)) {
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    change(&rocksdb::DB::open_cf(&options, dir, families).unwrap());
}

fn refusal(dir: &Path) -> String {
    RocksStore::open(dir, &OPTIONS).err().unwrap().to_string()
}

#[test]
fn a_store_of_a_newer_format_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    drop(RocksStore::open(dir.path(), &OPTIONS).unwrap());
    with_raw(dir.path(), &["default", "meta"], |db| {
        db.put_cf(db.cf_handle("meta").unwrap(), "version", [3, 0, 2, 0]).unwrap();
    });
    let expected = format!(
        "store {} has format 3 and needs a reader of format 2 or later; this build reads 1",
        dir.path().display()
    );
    assert_eq!(refusal(dir.path()), expected);
    with_raw(dir.path(), &["default", "meta", "blobs"], |_| {});
    assert_eq!(refusal(dir.path()), expected);
}

#[test]
fn a_database_that_is_not_a_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    with_raw(dir.path(), &["default"], |db| db.put("a", "b").unwrap());
    let message = refusal(dir.path());
    assert_eq!(
        message,
        format!("{} is not a store of ours: it has rows but no version", dir.path().display())
    );
    let dir = tempfile::tempdir().unwrap();
    with_raw(dir.path(), &["default", "other"], |_| {});
    let message = refusal(dir.path());
    let expected =
        format!("{} is not a store of ours: it has an unknown column family \"other\"", dir.path().display());
    assert_eq!(message, expected);
}

#[test]
fn a_second_opening_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let first = RocksStore::open(dir.path(), &OPTIONS).unwrap();
    assert_eq!(refusal(dir.path()), format!("store {} is in use by another process", dir.path().display()));
    drop(first);
    RocksStore::open(dir.path(), &OPTIONS).unwrap();
}

#[test]
fn a_disk_that_refuses_is_named_and_not_taken_for_another_process() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("LOCK")).unwrap();
    let error = RocksStore::open(dir.path(), &OPTIONS).err().unwrap();
    assert!(error.is_users_fault() && matches!(error, StoreError::Rocks { .. }), "{error:?}");
    let message = refusal(dir.path());
    assert!(message.starts_with(&format!("cannot open store {}", dir.path().display())), "{message}");
}

#[test]
fn what_rocksdb_flushes_by_itself_is_a_whole_number_of_batches() {
    let dir = tempfile::tempdir().unwrap();
    let small = Options { write_buffer_bytes: 64 << 10, ..OPTIONS };
    let mut store = RocksStore::open(&dir.path().join("store"), &small).unwrap();
    for index in 1..=2_000_u64 {
        // Every batch writes the same number under many keys, all over the key space.
        let puts = (0..16).map(|key| (bytes(&format!("{key}")), bytes(&format!("{index:0200}")))).collect();
        store.write(WriteBatch { puts, deletes: Vec::new() }, index).unwrap();
    }
    let store = store.crashed(dir.path());
    let flushed = store.flushed();
    assert!(flushed > 0 && flushed < 2_000, "{flushed}");
    store.load(&mut |_, value| assert_eq!(value, format!("{flushed:0200}").as_bytes())).unwrap();
}

#[test]
#[should_panic(expected = "the applied index falls from 5 to 4")]
fn a_falling_applied_index_is_a_broken_invariant() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = RocksStore::at(dir.path());
    store.write(batch(&[], &[]), 5).unwrap();
    let _ = store.write(batch(&[], &[]), 4);
}

fn long_value(number: u64) -> Bytes {
    noise(number, 4096)
}

fn value_files(dir: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|kind| kind == "blob")).collect()
}

#[test]
fn damage_to_the_file_of_a_long_value_is_found_by_a_reading_of_all() {
    let damages: [fn(&Path, &[u8]); 3] = [
        |file, bytes| {
            let mut bytes = bytes.to_vec();
            bytes[2000] ^= 1;
            std::fs::write(file, bytes).unwrap();
        },
        |file, bytes| std::fs::write(file, &bytes[..2000]).unwrap(),
        |file, _| std::fs::remove_file(file).unwrap(),
    ];
    for damage in damages {
        let dir = tempfile::tempdir().unwrap();
        let mut store = RocksStore::open(dir.path(), &OPTIONS).unwrap();
        store
            .write(WriteBatch { puts: vec![(Bytes::from("a"), long_value(1))], deletes: Vec::new() }, 1)
            .unwrap();
        store.flush().unwrap();
        drop(store);
        let files = value_files(dir.path());
        let [file] = &files[..] else { panic!("{files:?}") };
        damage(file, &std::fs::read(file).unwrap());
        let read = RocksStore::open(dir.path(), &OPTIONS).and_then(|store| store.load(&mut |_, _| {}));
        let error = read.unwrap_err();
        assert!(error.is_damage(), "{error:?}");
    }
}

#[test]
fn long_values_that_were_overwritten_give_their_room_back() {
    const KEYS: u64 = 63;
    const ROUNDS: u64 = 100;
    let dir = tempfile::tempdir().unwrap();
    let mut store = RocksStore::open(dir.path(), &OPTIONS).unwrap();
    let mut round = 0;
    // In each file one value stays alive.
    let mut write = |round: u64| {
        let key = |key| if key == 0 { format!("kept {round:09}") } else { format!("{key:03}") };
        let value = |number| (Bytes::from(key(number)), long_value(round * (KEYS + 1) + number));
        let batch = WriteBatch { puts: (0..=KEYS).map(value).collect(), deletes: Vec::new() };
        store.write(batch, round).unwrap();
        store.flush().unwrap();
    };
    let held = || -> u64 {
        let sizes =
            value_files(dir.path()).into_iter().map(|file| file.metadata().map_or(0, |data| data.len()));
        sizes.sum()
    };
    while round < ROUNDS {
        round += 1;
        write(round);
    }
    // Compaction comes by itself, and only while something is written.
    let deadline = Instant::now() + Duration::from_secs(30);
    let alive = |round: u64| (KEYS + round) * 4096;
    while held() > 3 * alive(round) && Instant::now() < deadline {
        round += 1;
        write(round);
    }
    assert!(held() <= 3 * alive(round), "{} bytes of files for {} of values", held(), alive(round));
    let mut kept = 0;
    store
        .load(&mut |key, value| {
            let text = std::str::from_utf8(key).unwrap();
            if let Some(of) = text.strip_prefix("kept ") {
                kept += 1;
                assert!(value == &long_value(of.parse::<u64>().unwrap() * (KEYS + 1))[..], "{text}");
            }
        })
        .unwrap();
    assert_eq!(kept, round);
}
