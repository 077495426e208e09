//! Members whose log or store is damaged.

use super::members::{admit, switch};
use super::repair::{data, start_on_disk};
use super::{QUICK, SOON, config, create, ensemble_with, leader_of, new_session};
use crate::at_rest::AtRest;
use crate::config::{Admission, ServerConfig, ServerError};
use crate::server::ServerHandle;
use crate::status::{Life, Snapshot};
use pharos_log::{BLOCK, SECTOR};
use pharos_store::{Options, RocksStore, Store, WriteBatch};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tempfile::TempDir;

/// The blocks of a log's file that say something.
fn written(bytes: &[u8]) -> Vec<usize> {
    let blocks = bytes.chunks_exact(BLOCK).enumerate();
    blocks.filter(|(_, block)| block.iter().any(|byte| *byte != 0)).map(|(no, _)| no * BLOCK).collect()
}

/// Turns a bit over in the first file of a log: in its last group, or in the one after the first.
fn rot(data_dir: &Path, pick: impl FnOnce(&[usize]) -> usize) {
    let file = data_dir.join("log/0000000001.wal");
    let mut bytes = fs::read(&file).unwrap();
    let at = pick(&written(&bytes)) + SECTOR / 2;
    bytes[at] ^= 4;
    fs::write(&file, bytes).unwrap();
}

fn rot_tail(data_dir: &Path) {
    rot(data_dir, |blocks| *blocks.last().unwrap());
}

/// Ends a member; what is needed to start it again, as the same one.
fn stop(dir: &TempDir, members: &mut Vec<ServerHandle>, at: usize) -> ServerConfig {
    let server = members.remove(at);
    let id = server.snapshot().status.member_id;
    let peer_addr = server.addresses().peer;
    server.shutdown();
    server.join().unwrap();
    let file = dir.path().join(format!("again-{id}.json"));
    fs::copy(dir.path().join("permit.json"), &file).unwrap();
    let token_file = Some(dir.path().join("token"));
    let admission = Admission::PermitFile(file);
    ServerConfig { admission, peer_addr, token_file, ..config(&dir.path().join(id.to_string())) }
}

fn permit_of(config: &ServerConfig) -> PathBuf {
    let Admission::PermitFile(file) = &config.admission else { panic!("it has a permit") };
    file.clone()
}

/// Everything that was applied is in the store.
fn flushed(server: &ServerHandle) -> bool {
    let written = server.snapshot().status.applied;
    server.wait_until(SOON, |now| now.status.flushed >= written && written > 1)
}

fn follower(members: &[ServerHandle]) -> usize {
    (leader_of(members) + 1) % members.len()
}

#[test]
fn a_member_whose_log_is_damaged_comes_back_as_another_one_and_nothing_is_missing() {
    let (dir, mut members) = ensemble_with(3, QUICK, start_on_disk);
    let mut client = new_session(members[leader_of(&members)].addresses().client);
    assert_eq!(create(&mut client, "/kept", 0), 0);
    let at = follower(&members);
    let id = members[at].snapshot().status.member_id;
    let before = members[at].snapshot().identity.volume;
    let again = stop(&dir, &mut members, at);
    rot_tail(&again.data_dir);
    let (data_dir, permit) = (again.data_dir.clone(), permit_of(&again));
    let server = start_on_disk(again).unwrap();
    let gave_up = |now: &Snapshot| now.identity.gave_up.is_some();
    assert!(server.wait_until(SOON, gave_up), "{:?}", server.snapshot());
    let identity = server.snapshot().identity.clone();
    assert_eq!((identity.state, identity.member_id), (Life::Blank, None));
    assert_ne!(identity.volume, before);
    let former = identity.gave_up.unwrap();
    assert_eq!(former.member_id, id);
    assert!(former.why.contains("0000000001.wal is corrupt at byte"), "{}", former.why);
    assert!(data_dir.join("damaged/log").exists() && data_dir.join("damaged/state").exists());

    // The permit that made it a founder says nothing to it any more.
    admit(&dir, &members, &server, &permit);
    assert!(data_dir.join("damaged/log").exists(), "it has no vote yet");
    members.push(server);
    let others: Vec<u32> = members.iter().map(|server| server.snapshot().status.member_id).collect();
    assert_eq!(others[2], 4);
    switch(&members, &others);
    assert_eq!(data(&mut new_session(members[2].addresses().client), "/kept"), b"");
    let deadline = Instant::now() + SOON;
    while data_dir.join("damaged").exists() || data_dir.join("damaged.old").exists() {
        assert!(Instant::now() < deadline, "it votes, and what it was is kept");
        std::thread::yield_now();
    }
    assert!(!gave_up(&members[2].snapshot()) || members[2].wait_until(SOON, |now| !gave_up(now)));
}

#[test]
fn damage_in_a_segment_that_the_store_covers_costs_nothing() {
    let (dir, mut members) = ensemble_with(3, QUICK, start_on_disk);
    let mut client = new_session(members[leader_of(&members)].addresses().client);
    let at = follower(&members);
    let segments = |now: &Snapshot| now.gauges.log_segments;
    for number in 0.. {
        if segments(&members[at].snapshot()) > 1 {
            break;
        }
        assert_eq!(create(&mut client, &format!("/n{number}"), 0), 0);
    }
    assert!(flushed(&members[at]));
    let before = members[at].snapshot();
    let again = stop(&dir, &mut members, at);
    rot(&again.data_dir, |blocks| blocks[2]);
    let file = again.data_dir.join("log/0000000001.wal");
    let server = start_on_disk(again).unwrap();
    assert!(server.wait_until_serving(SOON), "{:?}", server.snapshot());
    let after = server.snapshot();
    let whose = |now: &Snapshot| (now.identity.member_id, now.identity.volume);
    assert_eq!(whose(&after), whose(&before));
    assert_eq!(segments(&after), segments(&before) - 1);
    assert!(!file.exists());
    assert_eq!(data(&mut new_session(server.addresses().client), "/n0"), b"");
}

#[test]
fn the_only_voter_keeps_its_damaged_log_until_a_person_goes_on_without_the_end_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let server = start_on_disk(config(&data_dir)).unwrap();
    assert!(server.wait_until_serving(SOON));
    let mut client = new_session(server.addresses().client);
    assert_eq!(create(&mut client, "/kept", 0), 0);
    assert!(flushed(&server));
    server.shutdown();
    server.join().unwrap();
    rot_tail(&data_dir);
    for _ in 0..2 {
        let error = start_on_disk(config(&data_dir)).unwrap().join().unwrap_err();
        assert!(matches!(error, ServerError::Damaged { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("corrupt at byte") && text.contains("Nobody else votes"), "{text}");
        assert!(text.contains("restore a backup") && text.contains("recover --data-dir"), "{text}");
    }
    let mut at_rest = AtRest::open(&data_dir).unwrap();
    assert!(at_rest.damage().unwrap().contains("corrupt at byte"));
    assert_eq!(at_rest.begin_generation(None).unwrap(), 2);
    drop(at_rest);
    assert!(data_dir.join("damaged/log/0000000001.wal").exists());
    let server = start_on_disk(config(&data_dir)).unwrap();
    assert!(server.wait_until_serving(SOON), "{:?}", server.snapshot());
    let identity = server.snapshot().identity.clone();
    assert_eq!((identity.generation, identity.member_id, identity.gave_up), (Some(2), Some(1), None));
    assert_eq!(data(&mut new_session(server.addresses().client), "/kept"), b"");
}

#[test]
fn without_a_permit_file_a_damaged_member_is_refused_and_left_as_it_is() {
    let (dir, mut members) = ensemble_with(3, QUICK, start_on_disk);
    let at = follower(&members);
    let again = stop(&dir, &mut members, at);
    rot_tail(&again.data_dir);
    let refused = ServerConfig { admission: Admission::MemberOnly, ..again.clone() };
    let error = start_on_disk(refused).unwrap().join().unwrap_err().to_string();
    assert!(error.contains("corrupt at byte") && error.contains("with a permit file"), "{error}");
    assert!(!again.data_dir.join("damaged").exists());
    let server = start_on_disk(again).unwrap();
    assert!(server.wait_until(SOON, |now| now.identity.gave_up.is_some()));
}

/// Changes a row of the state, but not what the store says that its rows add up to.
fn rot_store(store: &Path) {
    let memory = Options { block_cache_bytes: 1 << 20, write_buffer_bytes: 1 << 20 };
    let mut store = RocksStore::open(store, &memory).unwrap();
    let mut row = None;
    let mut last = |key: &[u8], value: &[u8]| {
        // The first byte is the version.
        if key.first() != Some(&pharos_replica::OWN_PREFIX) && value.len() > 1 {
            row = Some((key.to_vec(), value.to_vec()));
        }
    };
    store.load(&mut last).unwrap();
    let (key, mut value) = row.unwrap();
    *value.last_mut().unwrap() ^= 1;
    let (puts, applied) = (vec![(key.into(), value.into())], store.flushed());
    store.write(WriteBatch { puts, deletes: Vec::new() }, applied).unwrap();
    store.flush().unwrap();
}

#[test]
fn a_damaged_store_is_made_anew_from_a_log_that_has_everything() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let server = start_on_disk(config(&data_dir)).unwrap();
    assert!(server.wait_until_serving(SOON));
    assert_eq!(create(&mut new_session(server.addresses().client), "/kept", 0), 0);
    assert!(flushed(&server));
    server.shutdown();
    server.join().unwrap();
    rot_store(&data_dir.join("state"));
    let server = start_on_disk(config(&data_dir)).unwrap();
    assert!(server.wait_until_serving(SOON), "{:?}", server.snapshot());
    assert!(server.snapshot().gauges.replayed_slots > 0);
    assert_eq!(data(&mut new_session(server.addresses().client), "/kept"), b"");
}

#[test]
fn a_member_whose_store_and_the_beginning_of_whose_log_are_gone_comes_back_as_another_one() {
    let (dir, mut members) = ensemble_with(3, QUICK, start_on_disk);
    let mut client = new_session(members[leader_of(&members)].addresses().client);
    let at = follower(&members);
    for number in 0.. {
        if members[at].snapshot().gauges.log_segments > 1 {
            break;
        }
        assert_eq!(create(&mut client, &format!("/n{number}"), 0), 0);
    }
    assert!(flushed(&members[at]));
    let again = stop(&dir, &mut members, at);
    rot(&again.data_dir, |blocks| blocks[2]);
    fs::remove_dir_all(again.data_dir.join("state")).unwrap();
    let server = start_on_disk(again).unwrap();
    assert!(server.wait_until(SOON, |now| now.identity.gave_up.is_some()), "{:?}", server.snapshot());
}

#[test]
fn the_store_of_another_ensemble_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["one", "other"] {
        let server = start_on_disk(config(&dir.path().join(name))).unwrap();
        assert!(server.wait_until_serving(SOON));
        assert_eq!(create(&mut new_session(server.addresses().client), "/n", 0), 0);
        assert!(flushed(&server));
        server.shutdown();
        server.join().unwrap();
    }
    let (one, other) = (dir.path().join("one"), dir.path().join("other"));
    fs::remove_dir_all(one.join("state")).unwrap();
    fs::rename(other.join("state"), one.join("state")).unwrap();
    let error = start_on_disk(config(&one)).unwrap().join().unwrap_err();
    assert!(matches!(error, ServerError::ForeignStore { .. }) && error.is_users_fault(), "{error}");
    assert!(error.to_string().contains("put back what was there"), "{error}");
}
