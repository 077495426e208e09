//! A member's machine without a network: its disk, its store and a process of what ships.
//!
//! Owns when what the process asks of the machine is done: at once. Must not know what the targets look for.

use bytes::Bytes;
use pharos_log::mem::MemDisk;
use pharos_log::{Wal, WalConfig};
use pharos_paxos::{Ballot, ConfigNo, Entry, EntryKind, LogOp, MemberId, Millis, Slot};
use pharos_replica::{
    Arrival, Boot, Founding, Levels, Member, Now, OWN_PREFIX, Output, PersistBatch, PersistRows, Plant,
    Replica, ReplicaConfig, SnapshotStep, part_of,
};
use pharos_znode::State;
use std::collections::BTreeMap;

/// The ballot of the entries that the targets put into logs.
const BALLOT: Ballot = Ballot { config: ConfigNo(1), round: 1, member: MemberId(1) };

/// More than any election takes.
const PATIENCE_MS: u64 = 60_000;

pub(crate) struct Machine {
    me: u32,
    disk: MemDisk,
    rows: BTreeMap<Bytes, Bytes>,
    flushed: Slot,
    /// With what a machine that founded nothing begins.
    joins: Option<Founding>,
    now: Now,
    process: Option<Replica>,
    /// A state that comes, and its rows.
    arrival: (Arrival, Vec<(Bytes, Bytes)>),
    /// It was refused.
    pub(crate) refused: bool,
}

/// An ensemble of so many founders.
pub(crate) fn founding(founders: u32) -> Founding {
    Founding {
        cluster: [7; 16],
        generation: 1,
        secret: [9; 16],
        members: (1..=founders).map(member).collect(),
    }
}

pub(crate) fn member(id: u32) -> Member {
    let volume = [id as u8; 16];
    Member { id: MemberId(id), volume, host: "host".to_owned(), peer_port: 2888, client_port: 2181 }
}

impl Machine {
    /// Of a founder.
    pub(crate) fn found(me: u32, founding: &Founding) -> Self {
        let mut machine = Self::blank(me, None);
        machine.write(&founding.first_group());
        machine
    }

    /// Of a member that founded nothing.
    pub(crate) fn join(me: u32, founding: &Founding) -> Self {
        Self::blank(me, Some(Founding { secret: [0; 16], ..founding.clone() }))
    }

    fn blank(me: u32, joins: Option<Founding>) -> Self {
        let mut disk = MemDisk::new();
        disk.execute(&Wal::format(wal_config(me)).1).expect("a disk in memory takes what a log writes");
        let (rows, now) = (BTreeMap::new(), Now { mono: Millis(1), wall_ms: 1 });
        let (arrival, flushed) = (no_arrival(), Slot::ZERO);
        Self { me, disk, rows, flushed, joins, now, process: None, arrival, refused: false }
    }

    /// Appends chosen entries to the log of a machine that is off.
    pub(crate) fn choose(&mut self, entries: &[(EntryKind, Bytes)]) {
        assert!(self.process.is_none(), "the machine is off");
        let last = Wal::recover(wal_config(self.me), &self.disk).expect("an intact log").wal.last_slot();
        let entries = (last.0 + 1..).zip(entries).map(|(slot, (kind, payload))| {
            let payload = payload.clone();
            LogOp::Append(Entry { slot: Slot(slot), ballot: BALLOT, kind: *kind, payload })
        });
        let mut ops = vec![LogOp::Accepted(BALLOT), LogOp::Promised(BALLOT)];
        ops.extend(entries);
        ops.push(LogOp::Committed(Slot(last.0 + ops.len() as u64 - 2)));
        self.write(&ops);
    }

    fn write(&mut self, ops: &[LogOp]) {
        let log = Wal::recover(wal_config(self.me), &self.disk).expect("an intact log");
        let (mut wal, mut disk_ops) = (log.wal, log.ops);
        wal.append(ops, &mut disk_ops);
        self.disk.execute(&disk_ops).expect("a disk in memory takes what a log writes");
    }

    pub(crate) fn start(&mut self) {
        let log = Wal::recover(wal_config(self.me), &self.disk).expect("an intact log");
        self.disk.execute(&log.ops).expect("a disk in memory takes what recovery writes");
        let rows = self.rows.iter().map(|(key, value)| (key.clone(), value.clone()));
        let (own, rows): (Vec<_>, Vec<_>) = rows.partition(|(key, _)| key[0] == OWN_PREFIX);
        let state = if rows.is_empty() { Ok(State::new()) } else { State::from_rows(rows) };
        let state = state.expect("a state reads its own rows back");
        let boot = Boot { log, state, own, applied: self.flushed, joins: self.joins.clone() };
        let config = ReplicaConfig {
            me: MemberId(self.me),
            boot: 1,
            tick_ms: 200,
            heartbeat: Millis(50),
            election: Millis(300),
            seed: 1,
            container_sweep: Millis(1000),
            log_tail_bytes: 0,
            chunk_bytes: 1 << 20,
            levels: Levels::KNOWN,
            output_bytes: 4 << 20,
            apply_bytes: 1000,
            transfer_bytes_per_s: 64 << 20,
            value_bytes: u64::MAX,
            plant: Plant::None,
        };
        self.process = Some(Replica::start(config, boot, self.now).expect("an intact disk"));
    }

    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    pub(crate) fn replica(&mut self) -> &mut Replica {
        self.process.as_mut().expect("the machine is on")
    }

    /// Lets time pass until the only voter leads.
    pub(crate) fn lead(&mut self) {
        let patience = self.now.mono.0 + PATIENCE_MS;
        while self.replica().leads_in().is_none() || !self.replica().status().serving {
            assert!(self.now.mono.0 < patience, "a member of one comes to lead");
            self.turn(50);
        }
    }

    /// Some time passes, and all is done that the process asks for. What is not the machine's business is returned.
    pub(crate) fn turn(&mut self, ms: u64) -> Vec<Output> {
        self.now = Now { mono: Millis(self.now.mono.0 + ms), wall_ms: self.now.wall_ms + ms as i64 };
        let Some(replica) = &mut self.process else { return Vec::new() };
        replica.tick(self.now);
        let mut rest = Vec::new();
        loop {
            let mut busy = replica.pump();
            while let Some(output) = replica.next_output() {
                match output {
                    Output::Log { io, ops } => {
                        self.disk.execute(&ops).expect("a disk in memory takes what a log writes");
                        replica.log_done(io);
                    }
                    Output::Spare { op } => {
                        self.disk.execute_one(&op).expect("a disk in memory has room");
                        replica.spare_created(&op);
                    }
                    Output::Persist { batch } => {
                        let arrived = std::mem::take(&mut self.arrival.1);
                        self.flushed = flush(&mut self.rows, arrived, batch);
                        replica.persisted(self.flushed);
                    }
                    Output::Store { arrival, first, last, rows } => {
                        if first {
                            self.arrival = no_arrival();
                        }
                        let (loader, aside) = &mut self.arrival;
                        let arrived = loader.part(rows).and_then(|rows| {
                            aside.extend(rows);
                            last.then(|| std::mem::replace(loader, Arrival::keeping(u64::MAX)).finish())
                                .transpose()
                        });
                        match arrived {
                            Ok(arrived) => replica.part_stored(arrival, arrived),
                            Err(_) => {
                                self.refused = true;
                                replica.part_refused(arrival);
                            }
                        }
                    }
                    other => {
                        rest.push(other);
                        continue;
                    }
                }
                busy = true;
            }
            if !busy {
                return rest;
            }
        }
    }

    /// The rows of the store, for a member that lacks the state.
    pub(crate) fn rows(&self) -> (Slot, Vec<(Bytes, Bytes)>) {
        (self.flushed, self.rows.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    /// Answers [`Output::Snapshot`] with these rows.
    pub(crate) fn give(&mut self, transfer: u64, step: SnapshotStep, rows: &mut Vec<(Bytes, Bytes)>) {
        let flushed = self.flushed;
        match step {
            SnapshotStep::Open => self.replica().snapshot_opened(transfer, flushed),
            SnapshotStep::Next => {
                let part = std::mem::take(rows);
                let part = (!part.is_empty()).then(|| part_of(&part));
                self.replica().snapshot_part(transfer, part);
            }
            SnapshotStep::Close => {}
        }
    }
}

fn wal_config(me: u32) -> WalConfig {
    WalConfig { segment_bytes: 8 << 10, spare_segments: 0, identity: [me as u8; 16] }
}

fn flush(rows: &mut BTreeMap<Bytes, Bytes>, arrived: Vec<(Bytes, Bytes)>, batch: PersistBatch) -> Slot {
    match batch.rows {
        PersistRows::Arrived => *rows = arrived.into_iter().collect(),
        PersistRows::Changed(changed) => {
            for (key, value) in changed.to_pairs() {
                match value {
                    Some(value) => rows.insert(key, value),
                    None => rows.remove(&key),
                };
            }
        }
    }
    rows.extend(batch.own);
    batch.applied
}

/// Nothing has come of a state.
fn no_arrival() -> (Arrival, Vec<(Bytes, Bytes)>) {
    (Arrival::keeping(u64::MAX), Vec::new())
}
