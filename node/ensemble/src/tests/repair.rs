//! A member whose state is not that of the others.

use super::{QUICK, SOON, config, create, ensemble_with, frame, leader_of, new_session, read_frame};
use crate::config::{Admission, ServerConfig, ServerError};
use crate::server::{ServerHandle, start_with};
use crate::state_store::open_rocks;
use bytes::Bytes;
use pharos_store::{Options, RocksStore, Store, WriteBatch};
use pharos_znode::{Applied, Command, Op, State};
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::time::Instant;

/// Writes over what a znode holds, in the store of a member that does not run, and leaves all numbers as they are.
fn falsify(store: &Path, znode: &str) {
    let memory = Options { block_cache_bytes: 1 << 20, write_buffer_bytes: 1 << 20 };
    let mut store = RocksStore::open(store, &memory).unwrap();
    let mut rows = Vec::new();
    let mut keep = |key: &[u8], value: &[u8]| {
        if key.first() != Some(&pharos_replica::OWN_PREFIX) {
            rows.push((key.to_vec().into(), value.to_vec().into()));
        }
    };
    store.load(&mut keep).unwrap();
    let mut state = State::from_rows(rows).unwrap();
    let op = Op::SetData { path: znode.to_owned(), data: Some(Bytes::from_static(b"false")), version: -1 };
    let command = Command { zxid: Some(state.zxid()), ..Command::of_ensemble(op) };
    state.apply(&command, 0, &mut Applied::new());
    let mut batch = WriteBatch::default();
    for (key, value) in state.take_dirty().to_pairs() {
        batch.puts.push((key, value.unwrap()));
    }
    batch.puts.sort_unstable();
    let applied = store.flushed();
    store.write(batch, applied).unwrap();
    store.flush().unwrap();
}

pub(super) fn start_on_disk(config: ServerConfig) -> Result<ServerHandle, ServerError> {
    start_with(config, open_rocks)
}

/// `getData`, as far as the data.
pub(super) fn data(client: &mut TcpStream, path: &str) -> Vec<u8> {
    let head = [1_i32.to_be_bytes(), 4_i32.to_be_bytes()].concat();
    client.write_all(&frame(&[&head[..], &frame(path.as_bytes()), &[0]].concat())).unwrap();
    let reply = read_frame(client);
    assert_eq!(reply[12..16], [0; 4], "{reply:?}");
    let length = u32::from_be_bytes(reply[16..20].try_into().unwrap()) as usize;
    reply[20..20 + length].to_vec()
}

#[test]
fn a_member_whose_store_was_falsified_finds_out_and_takes_the_state_of_the_others() {
    let (dir, mut members) = ensemble_with(3, QUICK, start_on_disk);
    let mut client = new_session(members[leader_of(&members)].addresses().client);
    assert_eq!(create(&mut client, "/truth", 0), 0);
    let wrong = (leader_of(&members) + 1) % 3;
    let written = members[wrong].snapshot().status.applied;
    assert!(members[wrong].wait_until(SOON, |now| now.status.flushed >= written && written > 1));
    let falsified = members.remove(wrong);
    let peer_addr = falsified.addresses().peer;
    falsified.shutdown();
    falsified.join().unwrap();
    let data_dir = dir.path().join((wrong + 1).to_string());
    falsify(&data_dir.join("state"), "/truth");
    let again = ServerConfig { admission: Admission::MemberOnly, peer_addr, ..config(&data_dir) };
    let again = start_on_disk(again).unwrap();
    assert!(again.wait_until_serving(SOON));
    assert_eq!(data(&mut new_session(again.addresses().client), "/truth"), b"false");
    // Digests are compared as the log goes on.
    let mut client = new_session(members[leader_of(&members)].addresses().client);
    let deadline = Instant::now() + SOON;
    for number in 0.. {
        if again.snapshot().gauges.repaired_states > 0 {
            break;
        }
        assert_eq!(create(&mut client, &format!("/n{number}"), 0), 0);
        assert!(Instant::now() < deadline, "{:?}", again.snapshot());
    }
    assert!(again.wait_until_serving(SOON));
    assert_eq!(data(&mut new_session(again.addresses().client), "/truth"), b"");
}
