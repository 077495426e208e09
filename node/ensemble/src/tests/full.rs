//! Members whose disks are full.

use super::{QUICK, SOON, create, ensemble_with, frame, leader_of, new_session, ping, read_frame};
use crate::config::{ServerConfig, ServerError};
use crate::server::{ServerHandle, start_with};
use crate::state_store::OnStore;
use pharos_store::{MemStore, RowReader, RowScan, Store, StoreError, WriteBatch};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// A store that finds no room as long as there is a file of this name beside it.
pub(crate) struct Narrow {
    pub(crate) store: MemStore,
    pub(crate) sign: PathBuf,
}

const SIGN: &str = "full";

impl Store for Narrow {
    fn load(&self, row: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        self.store.load(row)
    }

    fn beside(&self, dir: &Path) -> Result<Self, StoreError> {
        Ok(Self { store: self.store.beside(dir)?, sign: self.sign.clone() })
    }

    fn scan(&self, bytes: usize) -> Result<Box<dyn RowScan>, StoreError> {
        self.store.scan(bytes)
    }

    fn reader(&self) -> Box<dyn RowReader> {
        self.store.reader()
    }

    fn write(&mut self, batch: WriteBatch, applied: u64) -> Result<(), StoreError> {
        self.store.write(batch, applied)
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        self.store.clear()
    }

    fn flush(&mut self) -> Result<u64, StoreError> {
        if self.sign.exists() {
            let source = io::ErrorKind::StorageFull.into();
            return Err(StoreError::Io { what: "flush", dir: self.sign.clone(), source });
        }
        self.store.flush()
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        self.store.reopen()
    }

    fn applied(&self) -> u64 {
        self.store.applied()
    }

    fn flushed(&self) -> u64 {
        self.store.flushed()
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), StoreError> {
        self.store.checkpoint(dir)
    }

    fn approximate_bytes(&self) -> Result<u64, StoreError> {
        self.store.approximate_bytes()
    }
}

fn start_narrow(config: ServerConfig) -> Result<ServerHandle, ServerError> {
    start_with(config, |dir| {
        Ok(OnStore::new(Narrow { store: MemStore::new(), sign: dir.with_file_name(SIGN) }, dir))
    })
}

fn fill(dir: &TempDir, member: usize) -> PathBuf {
    let sign = dir.path().join((member + 1).to_string()).join(SIGN);
    std::fs::write(&sign, "").unwrap();
    sign
}

#[test]
fn a_leader_whose_disk_is_full_hands_over_and_goes_on_when_there_is_room() {
    let (dir, members) = ensemble_with(3, QUICK, start_narrow);
    let first = leader_of(&members);
    let mut client = new_session(members[(first + 1) % 3].addresses().client);
    let sign = fill(&dir, first);
    assert_eq!(create(&mut client, "/before", 0), 0);
    assert!(members[first].wait_until(SOON, |now| now.status.disk_full), "{:?}", members[first].snapshot());
    let second = members[(first + 1) % 3].addresses().client;
    let id = members[first].snapshot().status.member_id;
    let followed = |now: &crate::Snapshot| now.status.leader.is_some_and(|leader| leader != id);
    assert!(members[first].wait_until(SOON, followed), "{:?}", members[first].snapshot());
    // Whoever had a write under way lost the connection with the leader.
    assert_eq!(create(&mut new_session(second), "/during", 0), 0);
    assert!(members[first].snapshot().status.disk_full);
    std::fs::remove_file(sign).unwrap();
    assert!(members[first].wait_until(SOON, |now| !now.status.disk_full), "{:?}", members[first].snapshot());
    assert_eq!(create(&mut new_session(members[first].addresses().client), "/after", 0), 0);
}

#[test]
fn on_full_disks_nothing_is_acknowledged_and_reads_are_answered() {
    let (dir, members) = ensemble_with(3, QUICK, start_narrow);
    let mut client = new_session(members[leader_of(&members)].addresses().client);
    let signs: Vec<PathBuf> = (0..3).map(|member| fill(&dir, member)).collect();
    assert_eq!(create(&mut client, "/before", 0), 0);
    for member in &members {
        assert!(member.wait_until(SOON, |now| now.status.disk_full), "{:?}", member.snapshot());
    }
    ping(&mut client);
    let exists = [&1_i32.to_be_bytes()[..], &3_i32.to_be_bytes(), &frame(b"/before"), &[0]].concat();
    client.write_all(&frame(&exists)).unwrap();
    assert_eq!(read_frame(&mut client)[12..16], [0; 4]);
    let set = [&2_i32.to_be_bytes()[..], &5_i32.to_be_bytes(), &frame(b"/before"), &frame(b"x"), &[255; 4]];
    client.write_all(&frame(&set.concat())).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let early = client.read(&mut [0; 1]).unwrap_err();
    assert_eq!(early.kind(), io::ErrorKind::WouldBlock);
    signs.iter().for_each(|sign| std::fs::remove_file(sign).unwrap());
    client.set_read_timeout(Some(SOON)).unwrap();
    let answer = read_frame(&mut client);
    assert_eq!((&answer[..4], &answer[12..16]), (&2_i32.to_be_bytes()[..], &[0; 4][..]));
}
