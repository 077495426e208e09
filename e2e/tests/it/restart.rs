//! What a member keeps, and what it has to do again, when it is killed after much was written.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use pharos_e2e::command::wait_until;
use pharos_e2e::local::LocalEnsemble;
use pharos_jute::{
    AclRef, ConnectRequest, Create, PathWatch, Reader, ReplyHeader, Request, Response, SetData,
};

const PATIENCE: Duration = Duration::from_secs(60);
const WRITES: usize = 200_000;
const NODES: usize = 500;
const IN_FLIGHT: usize = 1_000;
/// Large enough that the log outgrows what is kept of it for members that were away.
const VALUE: usize = 1_700;

/// As little of a client as this needs: many requests at once.
struct Wire(TcpStream);

impl Wire {
    fn open(address: SocketAddr) -> Self {
        let mut wire = Self(TcpStream::connect(address).unwrap());
        let mut hello = Vec::new();
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: 0,
            timeout_ms: 30_000,
            session_id: 0,
            password: None,
            read_only: None,
        };
        request.encode(&mut hello);
        wire.send(&hello);
        wire.receive();
        wire
    }

    fn send(&mut self, body: &[u8]) {
        let mut frame = (body.len() as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(body);
        self.0.write_all(&frame).unwrap();
    }

    fn ask(&mut self, xid: i32, request: &Request<'_>) {
        let mut body = Vec::new();
        request.encode_message(xid, &mut body);
        self.send(&body);
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut len = [0; 4];
        self.0.read_exact(&mut len).unwrap();
        let mut body = vec![0; u32::from_be_bytes(len) as usize];
        self.0.read_exact(&mut body).unwrap();
        body
    }

    /// Waits for the answer to a request, which must be a success.
    fn answered(&mut self, xid: i32) -> Vec<u8> {
        let body = self.receive();
        let mut reader = Reader::new(&body);
        let header = ReplyHeader::decode(&mut reader).unwrap();
        assert!(header.xid == xid && header.err.is_ok(), "{header:?}, expected {xid}");
        reader.rest().to_vec()
    }
}

fn path(node: usize) -> String {
    format!("/n{node}")
}

fn value(write: usize) -> Vec<u8> {
    let mut value = vec![b'.'; VALUE];
    value[..8].copy_from_slice(&(write as u64).to_be_bytes());
    value
}

fn write_all(wire: &mut Wire) {
    let acl = vec![AclRef { perms: 31, scheme: Some("world"), id: Some("anyone") }];
    for node in 0..NODES {
        let (path, data) = (path(node), value(0));
        let create = Create { path: Some(&path), data: Some(&data), acl: Some(acl.clone()), flags: 0 };
        wire.ask(node as i32, &Request::Create(create));
    }
    (0..NODES).for_each(|node| drop(wire.answered(node as i32)));
    for write in 0..WRITES {
        let (path, data) = (path(write % NODES), value(write));
        let set = SetData { path: Some(&path), data: Some(&data), version: -1 };
        wire.ask(write as i32, &Request::SetData(set));
        if write >= IN_FLIGHT {
            wire.answered((write - IN_FLIGHT) as i32);
        }
    }
    (WRITES - IN_FLIGHT..WRITES).for_each(|write| drop(wire.answered(write as i32)));
}

fn metrics(ensemble: &LocalEnsemble) -> anyhow::Result<BTreeMap<String, u64>> {
    let text = ensemble.get(0, "/metrics")?;
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    Ok(pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
}

#[test]
fn a_restart_replays_only_what_the_store_did_not_hold_and_old_segments_are_gone() {
    let mut ensemble = LocalEnsemble::found(1).unwrap();
    let mut wire = Wire::open(ensemble.address(0).unwrap());
    write_all(&mut wire);
    // The log is trimmed behind the store, with the writes that come after.
    let written = (WRITES * VALUE) as u64;
    // The greeting is a packet too.
    let mut asked = 1 + NODES + WRITES;
    wait_until("the log to be trimmed", PATIENCE, || {
        let last = value(WRITES - 1);
        let path = path((WRITES - 1) % NODES);
        wire.ask(0, &Request::SetData(SetData { path: Some(&path), data: Some(&last), version: -1 }));
        wire.answered(0);
        asked += 1;
        Ok((ensemble.log_bytes(0)? < written * 3 / 4).then_some(()))
    })
    .unwrap();
    // What the member publishes lags behind what it answers.
    let before = wait_until("the metrics to show every request", PATIENCE, || {
        let now = metrics(&ensemble)?;
        Ok((now["packets_received"] == asked as u64).then_some(now))
    })
    .unwrap();
    let flushed = before["pharos_flushed_slot"];
    assert!(flushed > 0, "nothing was flushed");
    ensemble.kill(0).unwrap();
    ensemble.start(0).unwrap();

    let after = wait_until("the log to be replayed", PATIENCE, || {
        let now = metrics(&ensemble)?;
        let done = now["pharos_serving"] == 1 && now["pharos_applied_slot"] >= before["pharos_applied_slot"];
        Ok(done.then_some(now))
    })
    .unwrap();
    assert!(after["pharos_flushed_slot"] >= flushed, "the store went back: {before:?}\n{after:?}");
    // The member may have flushed once more before it was killed, and applies an entry of its own.
    let replayed = after["pharos_replayed_slots"];
    assert!(replayed <= after["pharos_applied_slot"] - flushed, "replayed {replayed}: {before:?}\n{after:?}");
    wire = Wire::open(ensemble.address(0).unwrap());
    for node in 0..NODES {
        let path = path(node);
        wire.ask(1, &Request::GetData(PathWatch { path: Some(&path), watch: false }));
        let body = wire.answered(1);
        let Ok(Response::Data { data, .. }) = Response::decode(pharos_jute::OpCode::GetData, &body) else {
            panic!("no data");
        };
        assert_eq!(data, Some(value(WRITES - NODES + node).as_slice()), "{path}");
    }
}
