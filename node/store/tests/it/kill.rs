//! What a flush reported is there after kill -9, and nothing of a batch that was written in part.

use crate::suite::rows;
use bytes::Bytes;
use pharos_store::{Options, RocksStore, Store, WriteBatch};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

const TEST: &str = "kill::what_a_flush_reported_is_there_after_kill_9";
const DIR: &str = "PHAROS_STORE_KILLED";
const OPTIONS: Options = Options { block_cache_bytes: 1 << 20, write_buffer_bytes: 256 << 10 };
const ROWS: u64 = 300;
const KILLS: usize = 20;

/// The batch puts every row with its own number, and one row of its own.
fn batch(number: u64) -> WriteBatch {
    let value = |row: u64| Bytes::from([number.to_be_bytes().as_slice(), &[row as u8; 600]].concat());
    let shared = (0..ROWS).map(|row| (Bytes::from(format!("shared {row:04}")), value(row)));
    let own = (Bytes::from(format!("own {number:08}")), value(0));
    WriteBatch { puts: std::iter::once(own).chain(shared).collect(), deletes: Vec::new() }
}

/// What the test's own process does when it is started again with a directory: it writes until it is killed.
fn write_on(dir: &Path) {
    let mut store = RocksStore::open(dir, &OPTIONS).unwrap();
    for number in store.applied() + 1.. {
        store.write(batch(number), number).unwrap();
        // Some batches are flushed together with the next, some by the store itself.
        if number % 3 != 0 {
            println!("flushed {}", store.flush().unwrap());
        }
    }
}

/// Kills a writer after so many flushes, and says what the last one reported.
fn kill_after(dir: &Path, flushes: usize) -> u64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([TEST, "--exact", "--nocapture"]).env(DIR, dir);
    let mut writer = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(writer.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut reported = lines.filter_map(|line| line.split_once("flushed ")?.1.parse().ok());
    let mut last = (&mut reported).take(flushes).last().unwrap();
    writer.kill().unwrap();
    // What it said before it died counts too.
    last = reported.last().unwrap_or(last);
    writer.wait().unwrap();
    last
}

#[test]
fn what_a_flush_reported_is_there_after_kill_9() {
    if let Some(dir) = std::env::var_os(DIR) {
        return write_on(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut before = 0;
    for kill in 0..KILLS {
        let reported = kill_after(dir.path(), 1 + kill % 7);
        let store = RocksStore::open(dir.path(), &OPTIONS).unwrap();
        let flushed = store.flushed();
        assert!(reported > before && flushed >= reported, "kill {kill}: {flushed} after {reported}");
        let mut expected: Vec<_> = (1..=flushed).map(|number| batch(number).puts.swap_remove(0)).collect();
        expected.extend(batch(flushed).puts.split_off(1));
        let expected: Vec<_> = expected.iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
        assert!(rows(&store) == expected, "kill {kill}: the rows are not those of {flushed}");
        before = flushed;
    }
}
