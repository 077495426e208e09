//! What every store does.

use bytes::Bytes;
use pharos_store::{MemStore, Options, RocksStore, Store, WriteBatch};
use std::path::Path;

pub(crate) const OPTIONS: Options = Options { block_cache_bytes: 1 << 20, write_buffer_bytes: 4 << 20 };

/// A store that can be opened, and crashed.
pub(crate) trait Kind: Store + Sized {
    fn at(dir: &Path) -> Self;
    fn crashed(self, dir: &Path) -> Self;
    fn checkpoint_at(dir: &Path) -> Self;
}

impl Kind for RocksStore {
    fn at(dir: &Path) -> Self {
        Self::open(&dir.join("store"), &OPTIONS).unwrap()
    }

    fn crashed(self, dir: &Path) -> Self {
        drop(self);
        Self::at(dir)
    }

    fn checkpoint_at(dir: &Path) -> Self {
        Self::open(dir, &OPTIONS).unwrap()
    }
}

impl Kind for MemStore {
    fn at(_: &Path) -> Self {
        Self::new()
    }

    fn crashed(mut self, _: &Path) -> Self {
        self.crash();
        self
    }

    fn checkpoint_at(dir: &Path) -> Self {
        Self::open(dir).unwrap()
    }
}

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// So many bytes that no compression makes fewer, others for each number.
pub(crate) fn noise(number: u64, len: usize) -> Bytes {
    let mut word = number + 1;
    let mut next = || {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        word.to_le_bytes()
    };
    (0..len / 8).flat_map(|_| next()).collect()
}

pub(crate) fn batch(puts: &[(&str, &str)], deletes: &[&str]) -> WriteBatch {
    WriteBatch {
        puts: puts.iter().map(|(key, value)| (bytes(key), bytes(value))).collect(),
        deletes: deletes.iter().map(|key| bytes(key)).collect(),
    }
}

pub(crate) fn rows(store: &dyn Store) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    store.load(&mut |key, value| rows.push((key.to_vec(), value.to_vec()))).unwrap();
    rows
}

fn text(store: &dyn Store) -> String {
    let rows = rows(store).into_iter();
    let rows = rows
        .map(|(key, value)| format!("{}={}", String::from_utf8_lossy(&key), String::from_utf8_lossy(&value)));
    rows.collect::<Vec<_>>().join(" ")
}

fn a_new_store_is_empty<S: Kind>(dir: &Path) {
    let store = S::at(dir);
    assert_eq!((text(&store).as_str(), store.applied(), store.flushed()), ("", 0, 0));
    assert_eq!(store.get(b"a").unwrap(), None);
}

fn rows_are_read_in_the_order_of_their_keys_whether_flushed_or_not<S: Kind>(dir: &Path) {
    let mut store = S::at(dir);
    store.write(batch(&[("c", "1"), ("a", "1"), ("e", "1")], &[]), 1).unwrap();
    store.flush().unwrap();
    store.write(batch(&[("b", "2"), ("c", "2"), ("f", "2")], &["e", "nothing"]), 2).unwrap();
    assert_eq!(text(&store), "a=1 b=2 c=2 f=2");
    assert_eq!(store.get(b"c").unwrap(), Some(bytes("2")));
    assert_eq!(store.get(b"e").unwrap(), None);
}

fn a_key_that_is_deleted_and_put_in_one_batch_is_there<S: Kind>(dir: &Path) {
    let mut store = S::at(dir);
    store.write(batch(&[("a", "2")], &["a"]), 1).unwrap();
    assert_eq!(text(&store), "a=2");
}

fn a_store_that_is_cleared_holds_what_is_written_afterwards<S: Kind>(dir: &Path) {
    let mut store = S::at(dir);
    store.write(batch(&[("a", "1"), ("b", "1"), ("z", "1")], &[]), 1).unwrap();
    store.flush().unwrap();
    store.write(batch(&[("c", "2")], &[]), 2).unwrap();
    store.clear().unwrap();
    store.write(batch(&[("b", "3")], &[]), 3).unwrap();
    store.write(batch(&[("y", "3")], &[]), 3).unwrap();
    assert_eq!((text(&store).as_str(), store.applied()), ("b=3 y=3", 3));
    let mut store = store.crashed(dir);
    assert_eq!((text(&store).as_str(), store.applied()), ("a=1 b=1 z=1", 1));
    store.clear().unwrap();
    store.write(batch(&[("b", "3")], &[]), 3).unwrap();
    assert_eq!(store.flush().unwrap(), 3);
    let mut store = store.crashed(dir);
    assert_eq!(text(&store), "b=3");
    store.clear().unwrap();
    store.clear().unwrap();
    assert_eq!(text(&store), "");
}

fn a_scan_reads_in_parts_what_was_there_when_it_began<S: Kind>(dir: &Path) {
    let mut store = S::at(dir);
    store.write(batch(&[("a", "1"), ("b", "1")], &[]), 1).unwrap();
    store.flush().unwrap();
    store.write(batch(&[("c", "2")], &[]), 2).unwrap();
    let mut scan = store.scan(3).unwrap();
    let abandoned = store.scan(1).unwrap();
    store.write(batch(&[("a", "3"), ("d", "3")], &["b", "c"]), 3).unwrap();
    store.flush().unwrap();
    let keys = |rows: Vec<(Bytes, Bytes)>| rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(scan.next_rows().unwrap().map(keys), Some(vec![bytes("a"), bytes("b")]));
    assert_eq!(scan.next_rows().unwrap(), Some(vec![(bytes("c"), bytes("2"))]));
    assert_eq!(scan.next_rows().unwrap(), None);
    drop((scan, abandoned));
    assert_eq!(text(&store.crashed(dir)), "a=3 d=3");
}

fn readers_go_on_while_the_store_is_opened_again<S: Kind>(dir: &Path) {
    const READS: usize = 2_000;
    let mut store = S::at(dir);
    store.write(batch(&[("a", "1")], &[]), 1).unwrap();
    store.flush().unwrap();
    let reader = store.reader();
    std::thread::scope(|scope| {
        let reads = move || (0..READS).for_each(|_| assert_eq!(reader.get(b"a").unwrap(), Some(bytes("1"))));
        let reading = scope.spawn(reads);
        while !reading.is_finished() {
            store.write(batch(&[("b", "2")], &[]), 2).unwrap();
            store.reopen().unwrap();
            assert_eq!((text(&store).as_str(), store.applied()), ("a=1", 1));
        }
    });
}

fn a_store_beside_another_has_rows_of_its_own<S: Kind>(dir: &Path) {
    let store = S::at(dir);
    let mut other = store.beside(&dir.join("other")).unwrap();
    other.write(batch(&[("a", "1")], &[]), 4).unwrap();
    assert_eq!((text(&store).as_str(), text(&other).as_str()), ("", "a=1"));
}

fn a_crash_leaves_the_flushed_rows_and_their_applied_index<S: Kind>(dir: &Path) {
    let mut store = S::at(dir);
    store.write(batch(&[("a", "1"), ("b", "1")], &[]), 7).unwrap();
    assert_eq!((store.flushed(), store.flush().unwrap(), store.flushed()), (0, 7, 7));
    store.write(batch(&[("a", "2")], &["b"]), 9).unwrap();
    assert_eq!((store.applied(), store.flushed()), (9, 7));
    let mut store = store.crashed(dir);
    assert_eq!((text(&store).as_str(), store.applied(), store.flushed()), ("a=1 b=1", 7, 7));
    store.write(batch(&[("a", "3")], &[]), 8).unwrap();
    assert_eq!(store.flush().unwrap(), 8);
    let store = store.crashed(dir);
    assert_eq!((text(&store).as_str(), store.flushed()), ("a=3 b=1", 8));
}

fn the_applied_index_rises_without_rows<S: Kind>(dir: &Path) {
    let mut store = S::at(dir);
    store.write(WriteBatch::default(), 5).unwrap();
    assert_eq!(store.flush().unwrap(), 5);
    assert_eq!(store.crashed(dir).flushed(), 5);
}

fn a_checkpoint_opens_as_a_store_and_does_not_change_with_its_origin<S: Kind>(dir: &Path) {
    let mut store = S::at(dir);
    store.write(batch(&[("a", "1")], &[]), 1).unwrap();
    store.flush().unwrap();
    store.write(batch(&[("b", "2")], &[]), 2).unwrap();
    let copy = dir.join("checkpoint");
    store.checkpoint(&copy).unwrap();
    assert!(store.checkpoint(&copy).is_err());
    store.write(batch(&[("c", "3")], &["a"]), 3).unwrap();
    store.flush().unwrap();
    let copy = S::checkpoint_at(&copy);
    assert_eq!((text(&copy).as_str(), copy.applied(), copy.flushed()), ("a=1 b=2", 2, 2));
    assert_eq!((text(&store).as_str(), store.applied()), ("b=2 c=3", 3));
}

fn the_size_grows_with_the_rows<S: Kind>(dir: &Path) {
    let mut store = S::at(dir);
    let before = store.approximate_bytes().unwrap();
    store.write(batch(&[("a", &"x".repeat(100_000))], &[]), 1).unwrap();
    assert!(store.approximate_bytes().unwrap() >= before + 100_000);
}

macro_rules! suite {
    ($($name:ident),+ $(,)?) => {
        mod in_memory {
            $(#[test] fn $name() { super::$name::<pharos_store::MemStore>(tempfile::tempdir().unwrap().path()); })+
        }
        mod over_rocksdb {
            $(#[test] fn $name() { super::$name::<pharos_store::RocksStore>(tempfile::tempdir().unwrap().path()); })+
        }
    };
}

suite!(
    a_new_store_is_empty,
    rows_are_read_in_the_order_of_their_keys_whether_flushed_or_not,
    a_key_that_is_deleted_and_put_in_one_batch_is_there,
    a_scan_reads_in_parts_what_was_there_when_it_began,
    readers_go_on_while_the_store_is_opened_again,
    a_store_beside_another_has_rows_of_its_own,
    a_store_that_is_cleared_holds_what_is_written_afterwards,
    a_crash_leaves_the_flushed_rows_and_their_applied_index,
    the_applied_index_rises_without_rows,
    a_checkpoint_opens_as_a_store_and_does_not_change_with_its_origin,
    the_size_grows_with_the_rows,
);
