//! One member and one client, with a store that answers when the test says so.

use crate::founding::Founding;
use crate::io::{CloseReason, ConnId, Now, Output, PersistBatch, PersistRows};
use crate::plant::Plant;
use crate::registry::Member;
use crate::replica::{Boot, Replica, ReplicaConfig};
use bytes::Bytes;
use pharos_jute::{
    AclRef, ConnectRequest, Create, ErrorCode, MultiOp, MultiResult, OpCode, PathWatch, Reader, ReplyHeader,
    Request, Response, SetData, xid,
};
use pharos_log::mem::MemDisk;
use pharos_log::{Wal, WalConfig};
use pharos_paxos::{MemberId, Millis, Slot};
use pharos_znode::{Level, Levels, State};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

const CLIENT: ConnId = ConnId(1);
const OLD: &[u8] = b"a value that is long enough";
const NEW: &[u8] = b"another value that is long enough";

struct World {
    replica: Replica,
    disk: MemDisk,
    rows: BTreeMap<Bytes, Bytes>,
    now: Now,
    /// Cuts and reads that the store has been asked for.
    cuts: Vec<PersistBatch>,
    reads: Vec<(u64, Bytes)>,
    closed: Option<(CloseReason, Bytes)>,
    fatal: Option<String>,
    asked: i32,
}

fn founding() -> Founding {
    let member =
        Member { id: MemberId(1), volume: [1; 16], host: "one".into(), peer_port: 1, client_port: 2 };
    Founding { cluster: [7; 16], generation: 1, secret: [5; 16], members: vec![member] }
}

impl World {
    /// A member that leads, with `/n` in the store alone, and a client.
    fn new() -> Self {
        let config = WalConfig { segment_bytes: 64 << 10, spare_segments: 1, identity: [1; 16] };
        let mut disk = MemDisk::new();
        let (mut wal, mut ops) = Wal::format(config);
        wal.append(&founding().first_group(), &mut ops);
        disk.execute(&ops).unwrap();
        let log = Wal::recover(config, &disk).unwrap();
        disk.execute(&log.ops).unwrap();
        let boot = Boot { log, state: State::new(), own: Vec::new(), applied: Slot::ZERO, joins: None };
        let config = ReplicaConfig {
            me: MemberId(1),
            boot: 1,
            tick_ms: 2000,
            heartbeat: Millis(50),
            election: Millis(300),
            seed: 1,
            container_sweep: Millis(60_000),
            log_tail_bytes: 0,
            chunk_bytes: 1 << 20,
            // It has nothing to raise, which would take a zxid.
            levels: Levels::KNOWN.up_to(Level::FIRST),
            output_bytes: 4 << 20,
            apply_bytes: 1 << 20,
            transfer_bytes_per_s: 64 << 20,
            value_bytes: 0,
            plant: Plant::None,
        };
        let now = Now { mono: Millis(1), wall_ms: 1 };
        let mut world = Self {
            replica: Replica::start(config, boot, now).unwrap(),
            disk,
            rows: BTreeMap::new(),
            now,
            cuts: Vec::new(),
            reads: Vec::new(),
            closed: None,
            fatal: None,
            asked: 0,
        };
        while !world.replica.status().serving {
            assert!(world.now.mono.0 < 10_000);
            world.turn(50);
        }
        world.connect();
        world.create("/n");
        world.persist();
        world
    }

    fn connect(&mut self) {
        self.replica.client_open(CLIENT, IpAddr::V4(Ipv4Addr::LOCALHOST));
        let mut hello = Vec::new();
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: 0,
            timeout_ms: 10_000,
            session_id: 0,
            password: Some(&[0; 16]),
            read_only: Some(false),
        };
        request.encode(&mut hello);
        self.replica.client_frame(CLIENT, &hello);
        self.turn(1);
        assert_eq!(self.said().len(), 1);
    }

    fn turn(&mut self, ms: u64) {
        self.now.mono.0 += ms;
        self.replica.tick(self.now);
        let mut busy = true;
        while busy {
            busy = self.replica.pump();
            while let Some(output) = self.replica.next_output() {
                match output {
                    Output::Log { io, ops } => {
                        self.disk.execute(&ops).unwrap();
                        self.replica.log_done(io);
                        busy = true;
                    }
                    Output::Spare { op } => {
                        self.disk.execute_one(&op).unwrap();
                        self.replica.spare_created(&op);
                    }
                    Output::Persist { batch } => self.cuts.push(batch),
                    Output::ReadValue { read, key } => self.reads.push((read, key)),
                    Output::CloseClient { reason, last_words, .. } => {
                        self.closed = Some((reason, last_words))
                    }
                    Output::Fatal { reason } => self.fatal = Some(reason),
                    other => assert!(matches!(other, Output::Members), "{other:?}"),
                }
            }
        }
    }

    /// The store writes the cut that is due.
    fn persist(&mut self) {
        self.turn(1000);
        for PersistBatch { rows, applied, .. } in std::mem::take(&mut self.cuts) {
            let PersistRows::Changed(rows) = rows else { panic!("nobody sends a state") };
            for (key, value) in rows.to_pairs() {
                match value {
                    Some(value) => self.rows.insert(key, value),
                    None => self.rows.remove(&key),
                };
            }
            self.replica.persisted(applied);
        }
        self.turn(1);
    }

    /// The store answers all reads, the last one first.
    fn read(&mut self) {
        for (read, key) in std::mem::take(&mut self.reads).into_iter().rev() {
            self.replica.value_read(read, self.rows.get(&key).map(|row| &row[..]));
        }
        self.turn(1);
    }

    fn ask(&mut self, request: &Request<'_>) {
        self.asked += 1;
        let mut frame = Vec::new();
        request.encode_message(self.asked, &mut frame);
        self.replica.client_frame(CLIENT, &frame);
    }

    fn create(&mut self, path: &str) {
        self.create_unheard(path);
        assert_eq!(self.said().len(), 1);
    }

    fn create_unheard(&mut self, path: &str) {
        let acl = vec![AclRef { perms: 31, scheme: Some("world"), id: Some("anyone") }];
        self.ask(&Request::Create(Create { path: Some(path), data: Some(OLD), acl: Some(acl), flags: 0 }));
        self.turn(1);
    }

    fn get(&mut self, path: &str) {
        self.ask(&Request::GetData(PathWatch { path: Some(path), watch: true }));
    }

    fn set(&mut self, path: &str) {
        self.ask(&Request::SetData(SetData { path: Some(path), data: Some(NEW), version: -1 }));
    }

    /// The frames that the client has been sent since this was called last.
    fn said(&mut self) -> Vec<Bytes> {
        let mut all = Vec::new();
        while let Some(conn) = self.replica.next_dirty() {
            let Some(buffer) = self.replica.buffer(conn) else { continue };
            all.extend(frames(&buffer.split()));
            self.replica.written(conn);
        }
        all
    }

    /// The same, in words.
    fn heard(&mut self) -> Vec<String> {
        self.said().iter().map(|frame| words(frame)).collect()
    }
}

fn frames(mut bytes: &[u8]) -> Vec<Bytes> {
    let mut frames = Vec::new();
    while let Some((len, rest)) = bytes.split_first_chunk() {
        let (frame, rest) = rest.split_at(u32::from_be_bytes(*len) as usize);
        frames.push(Bytes::copy_from_slice(frame));
        bytes = rest;
    }
    frames
}

/// The number of the request, the counter of the zxid, and a value that is told.
fn words(frame: &[u8]) -> String {
    let mut reader = Reader::new(frame);
    let header = ReplyHeader::decode(&mut reader).unwrap();
    assert_eq!(header.err, ErrorCode::OK);
    let (number, zxid) = (header.xid, header.zxid & 0xffff_ffff);
    if header.xid == xid::NOTIFICATION {
        return format!("event at {zxid}");
    }
    match Response::decode(OpCode::GetData, reader.rest()) {
        Ok(Response::Data { data: Some(data), stat }) => {
            format!("{number} at {zxid}: {} of version {}", String::from_utf8_lossy(data), stat.version)
        }
        _ => format!("{number} at {zxid}"),
    }
}

#[test]
fn a_cold_value_is_told_as_it_was_at_the_readers_turn_with_all_that_follows_behind_it() {
    let mut world = World::new();
    world.get("/n");
    world.set("/n");
    world.get("/n");
    world.turn(1);
    assert_eq!((world.heard().len(), world.reads.len()), (0, 1), "the second read finds the new value");
    world.read();
    let told = [
        "2 at 2: a value that is long enough of version 0",
        "event at 3",
        "3 at 3",
        "4 at 3: another value that is long enough of version 1",
    ];
    assert_eq!(world.heard(), told);
    assert_eq!(world.replica.status().cold_reads, 1);
}

#[test]
fn several_values_are_read_at_once_and_told_in_order() {
    let mut world = World::new();
    world.create("/m");
    world.persist();
    world.get("/n");
    world.get("/m");
    world.ask(&Request::Exists(PathWatch { path: Some("/n"), watch: false }));
    world.turn(1);
    assert_eq!(world.reads.len(), 2);
    world.read();
    let numbers: Vec<_> = world.heard().iter().map(|text| text[..1].to_owned()).collect();
    assert_eq!(numbers, ["3", "4", "5"]);
}

#[test]
fn a_cut_waits_for_the_reads_of_what_it_overwrites_and_for_no_others() {
    let mut world = World::new();
    world.get("/n");
    world.set("/n");
    world.turn(1);
    world.turn(1000);
    world.turn(1000);
    assert!(world.cuts.is_empty(), "the row is being read");
    world.create_unheard("/other");
    world.persist();
    world.read();
    assert_eq!(world.cuts.len(), 1);
    assert_eq!(world.heard()[0], "2 at 2: a value that is long enough of version 0");
    world.persist();
    world.persist();
    world.get("/other");
    world.turn(1);
    assert_eq!(world.reads.len(), 1, "it is cold by now");
}

#[test]
fn many_reads_at_once_may_lack_some_values() {
    let mut world = World::new();
    let one = |path| PathWatch { path: Some(path), watch: false };
    let asked =
        [MultiOp::GetData(one("/absent")), MultiOp::GetData(one("/n")), MultiOp::GetChildren(one("/"))];
    world.ask(&Request::MultiRead([&asked[..], &[MultiOp::GetData(one("/n"))]].concat()));
    world.turn(1);
    assert_eq!(world.reads.len(), 2);
    world.read();
    let said = world.said();
    let Ok(Response::Multi(results)) = Response::decode(OpCode::MultiRead, &said[0][ReplyHeader::LEN..])
    else {
        panic!("{said:?}")
    };
    let data = |result: &MultiResult<'_>| match result {
        MultiResult::Data { data, stat } => Some((data.unwrap().to_vec(), stat.data_length as usize)),
        _ => None,
    };
    let old = Some((OLD.to_vec(), OLD.len()));
    assert_eq!(results.iter().map(data).collect::<Vec<_>>(), [None, old.clone(), None, old]);
    assert_eq!(results[0], MultiResult::Error(ErrorCode::NO_NODE));
}

#[test]
fn a_session_ends_after_its_reads_were_answered() {
    let mut world = World::new();
    world.get("/n");
    world.ask(&Request::CloseSession);
    world.turn(1);
    assert!(world.closed.is_none());
    world.read();
    let (reason, last) = world.closed.take().unwrap();
    assert_eq!(reason, CloseReason::SessionEnded);
    let told: Vec<_> =
        world.heard().into_iter().chain(frames(&last).iter().map(|frame| words(frame))).collect();
    assert_eq!(told, ["2 at 2: a value that is long enough of version 0", "3 at 3"]);
}

#[test]
fn a_store_that_has_another_value_ends_the_member() {
    for row in [None, Some(&b"\x01a value that is not what was written"[..])] {
        let mut world = World::new();
        world.get("/n");
        world.turn(1);
        let (read, _) = world.reads.pop().unwrap();
        world.replica.value_read(read, row);
        world.turn(1);
        let expected = "the store does not hold the value of /n that was written to it";
        assert_eq!(world.fatal.as_deref(), Some(expected));
    }
}

#[test]
fn what_was_read_for_a_client_that_is_gone_is_dropped() {
    let mut world = World::new();
    world.get("/n");
    world.turn(1);
    world.replica.client_closed(CLIENT);
    let (read, _) = world.reads.pop().unwrap();
    world.replica.value_read(read, None);
    world.replica.value_read(read + 1, None);
    world.turn(1);
    assert_eq!(world.fatal, None);
}
