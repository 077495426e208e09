//! How long a member's turns are when something is huge: `cargo run -p pharos-sim --example huge [NODES]`.
//!
//! A member that leads alone holds so many ephemeral nodes of one session, a million by default. Printed are the longest
//! single turns while all its rows are cut for the store, all children of a node are listed, a multi of 16 MiB is carried
//! out and the session ends; and the longest steps of taking the state as it is sent, which another thread does. Disks
//! cost nothing here. Time is the thread's on a CPU, as the kernel counts it (to a tick, some 4 ms), so that what else
//! the machine does is left out.

#![expect(clippy::print_stdout, reason = "this is the program's answer")]
#![allow(clippy::unwrap_used, reason = "a measurement, not a part of the product")]

use bytes::Bytes;
use pharos_jute::{
    AclRef, ConnectRequest, ConnectResponse, Create, MultiOp, PathWatch, ReplyHeader, Request,
};
use pharos_log::mem::MemDisk;
use pharos_log::{Wal, WalConfig};
use pharos_paxos::{MemberId, Millis, Slot};
use pharos_replica::{
    Arrival, Boot, ConnId, Founding, Levels, Member, Now, Output, PersistRows, Plant, Replica, ReplicaConfig,
    part_of,
};
use pharos_znode::{Acl, Applied, Command, CreateMode, Op, RowBatch, SessionId, State};
use std::time::Duration;

const LOG: WalConfig = WalConfig { segment_bytes: 32 << 20, spare_segments: 0, identity: [1; 16] };
const CLIENT: ConnId = ConnId(1);
const OWNER: SessionId = SessionId(0x77);

/// A moment in this thread's time on a CPU.
struct Instant(Duration);

impl Instant {
    fn now() -> Self {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        Self(Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap()))
    }

    fn elapsed(&self) -> Duration {
        Self::now().0 - self.0
    }
}

/// A member and the disk below it.
struct Machine {
    replica: Replica,
    disk: MemDisk,
    now: u64,
    longest: Duration,
    cut: Option<RowBatch>,
}

impl Machine {
    fn start(state: State) -> Self {
        let host = "one".to_owned();
        let member = Member { id: MemberId(1), volume: [1; 16], host, peer_port: 1, client_port: 2 };
        let founding = Founding { cluster: [1; 16], generation: 1, secret: [2; 16], members: vec![member] };
        let (mut disk, (mut wal, mut ops)) = (MemDisk::new(), Wal::format(LOG));
        wal.append(&founding.first_group(), &mut ops);
        disk.execute(&ops).unwrap();
        let log = Wal::recover(LOG, &disk).unwrap();
        disk.execute(&log.ops).unwrap();
        let boot = Boot { log, state, own: Vec::new(), applied: Slot::ZERO, joins: None };
        let config = ReplicaConfig {
            me: MemberId(1),
            boot: 1,
            tick_ms: 2000,
            heartbeat: Millis(50),
            election: Millis(500),
            seed: 1,
            container_sweep: Millis(60_000),
            log_tail_bytes: 64 << 20,
            chunk_bytes: 1 << 20,
            levels: Levels::KNOWN,
            output_bytes: 4 << 20,
            apply_bytes: 1 << 20,
            transfer_bytes_per_s: 64 << 20,
            value_bytes: u64::MAX,
            plant: Plant::None,
        };
        let replica = Replica::start(config, boot, Now { mono: Millis(1), wall_ms: 1 }).unwrap();
        Self { replica, disk, now: 1, longest: Duration::ZERO, cut: None }
    }

    /// One turn after so many milliseconds; what the member answers.
    fn turn(&mut self, ms: u64, input: impl FnOnce(&mut Replica)) -> Vec<u8> {
        self.now += ms;
        let begun = Instant::now();
        self.replica.tick(Now { mono: Millis(self.now), wall_ms: self.now as i64 });
        input(&mut self.replica);
        self.replica.pump();
        self.longest = self.longest.max(begun.elapsed());
        while let Some(output) = self.replica.next_output() {
            match output {
                Output::Log { io, ops } => {
                    self.disk.execute(&ops).unwrap();
                    self.replica.log_done(io);
                }
                Output::Spare { op } => {
                    self.disk.execute_one(&op).unwrap();
                    self.replica.spare_created(&op);
                }
                Output::Persist { batch } => {
                    self.replica.persisted(batch.applied);
                    if let PersistRows::Changed(rows) = batch.rows {
                        self.cut.get_or_insert(rows);
                    }
                }
                _ => {}
            }
        }
        let mut said = Vec::new();
        while let Some(conn) = self.replica.next_dirty() {
            said.extend(self.replica.buffer(conn).unwrap().split());
            self.replica.written(conn);
        }
        said
    }

    /// The longest turn until something holds.
    fn until(&mut self, mut done: impl FnMut(&mut Self, &[u8]) -> bool) -> Duration {
        self.longest = Duration::ZERO;
        loop {
            let said = self.turn(1, |_| {});
            if done(self, &said) {
                return self.longest;
            }
        }
    }

    /// The longest turn until a request is answered with success, and how long that takes in all.
    fn ask(&mut self, request: &Request<'_>) -> (Duration, Duration) {
        let mut frame = Vec::new();
        request.encode_message(7, &mut frame);
        self.longest = Duration::ZERO;
        let begun = Instant::now();
        let mut said = self.turn(1, |replica| replica.client_frame(CLIENT, &frame));
        while said.is_empty() {
            said = self.turn(1, |_| {});
        }
        let header = ReplyHeader::decode(&mut pharos_jute::Reader::new(&said[4..])).unwrap();
        assert!(header.err.is_ok(), "{header:?}");
        (self.longest, begun.elapsed())
    }
}

/// A session that owns so many nodes.
fn state(nodes: usize) -> State {
    let (mut state, mut out) = (State::new(), Applied::new());
    let mut run = |attach, op| {
        let command = Command { session: OWNER, attach, ..Command::of_ensemble(op) };
        state.apply(&command, 1, &mut out);
        assert_eq!(out.error(), None);
    };
    let create = |path: String, mode| {
        let (data, acl) = (Some(Bytes::from_static(&[7; 46])), vec![Acl::open()]);
        Op::Create { path, data, acl, mode, ttl: -1, with_stat: false }
    };
    run(0, Op::CreateSession { timeout_ms: 60_000 });
    run(1, create("/services".to_owned(), CreateMode::Persistent));
    for node in 0..nodes {
        run(1, create(format!("/services/an-instance-of-a-service-{node:08}"), CreateMode::Ephemeral));
    }
    state
}

fn multi() -> Vec<(String, [u8; 46])> {
    let path = |n| format!("/a-node-that-a-multi-creates-among-many-others-{n:08}");
    (0..(16 << 20) / 150).map(|n| (path(n), [7; 46])).collect()
}

fn main() {
    let nodes: usize = std::env::args().nth(1).map_or(1_000_000, |n| n.parse().unwrap());
    let say = |what: &str, longest: Duration| println!("{what:<58} {:>8.1} ms", longest.as_secs_f64() * 1e3);
    let mut machine = Machine::start(state(nodes));
    machine.until(|m, _| m.replica.leads_in().is_some() && m.replica.status().serving);
    say("the cut of all rows, longest turn", machine.until(|m, _| m.cut.is_some()));

    let rows = machine.cut.take().unwrap().to_pairs();
    let mut rows: Vec<_> = rows.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    rows.sort_unstable();
    let (mut arrival, mut longest) = (Arrival::keeping(u64::MAX), Duration::ZERO);
    for part in rows.chunks(2_000) {
        let part = part_of(part);
        let begun = Instant::now();
        arrival.part(part).unwrap();
        longest = longest.max(begun.elapsed());
    }
    say("a part of a state as it becomes a tree, on another thread", longest);
    drop((rows, arrival));

    let mut hello = Vec::new();
    let connect = ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: 0,
        timeout_ms: 30_000,
        session_id: 0,
        password: None,
        read_only: Some(false),
    };
    connect.encode(&mut hello);
    machine.replica.client_open(CLIENT, std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    let mut said = machine.turn(1, |replica| replica.client_frame(CLIENT, &hello));
    while said.is_empty() {
        said = machine.turn(1, |_| {});
    }
    assert!(ConnectResponse::decode(&said[4..]).unwrap().timeout_ms > 0);
    let asked = PathWatch { path: Some("/services"), watch: false };
    say("a list of all children, its turn", machine.ask(&Request::GetChildren(asked)).0);

    let created = multi();
    let acl = vec![AclRef { perms: 31, scheme: Some("world"), id: Some("anyone") }];
    let op = |(path, data): &'_ (String, [u8; 46])| (path.clone(), *data);
    let owned: Vec<_> = created.iter().map(op).collect();
    let ops = owned.iter().map(|(path, data)| {
        MultiOp::Create(Create { path: Some(path), data: Some(data), acl: Some(acl.clone()), flags: 0 })
    });
    let (longest, whole) = machine.ask(&Request::Multi(ops.collect()));
    say(&format!("a multi of 16 MiB, {} creates, longest turn", owned.len()), longest);
    say("the same, from request to answer", whole);

    machine.longest = Duration::ZERO;
    // Of few nodes one turn makes an end.
    while machine.replica.is_between_slots() && machine.replica.status().ephemerals > 0 {
        machine.turn(100, |_| {});
    }
    let (begun, first) = (Instant::now(), machine.longest);
    let longest = machine.until(|m, _| m.replica.is_between_slots());
    say("the end of the session, longest turn", longest.max(first));
    say("the same, from its beginning to its end", begun.elapsed());
    assert_eq!(machine.replica.status().ephemerals, 0);
}
