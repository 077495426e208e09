//! One simulated machine: a disk, a store, and perhaps a process.
//!
//! Owns what survives a crash and what does not. Must not know the network or clients. The process is
//! `pharos-replica` as it ships.

use crate::reference::Seen;
use crate::rng::Rng;
use bytes::Bytes;
use pharos_log::mem::{Crash, MemDisk};
use pharos_log::{DiskOp, Wal, WalConfig};
use pharos_paxos::{IoId, MemberId, Millis, Slot};
use pharos_replica::{
    Arrival, Arrived, Boot, Founding, GenerationError, Holdings, NewGeneration, Now, OWN_PREFIX,
    PersistBatch, PersistRows, Plant, Replica, ReplicaConfig, SnapshotStep, StartError, part_of,
};
use pharos_znode::{State, StateLoader};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a volume was named when it was formatted.
pub(crate) type Volume = [u8; 16];

pub(crate) struct Member {
    pub(crate) id: MemberId,
    pub(crate) volume: Volume,
    /// With what a machine that founded nothing begins.
    permit: Option<Permit>,
    disk: MemDisk,
    rows: BTreeMap<Bytes, Bytes>,
    flushed: Slot,
    pub(crate) process: Option<Process>,
    /// Raised at every crash, so that what was under way for an earlier process is not heard.
    pub(crate) life: u64,
    /// What the reference has compared.
    pub(crate) seen: Seen,
    /// Until when the process does not run.
    pub(crate) paused_until: u64,
    /// How far the machine's wall clock is off, in milliseconds.
    pub(crate) wall_off_ms: i64,
    /// Its first volume is gone.
    pub(crate) lost: bool,
    /// It was removed and is switched off for good.
    pub(crate) retired: bool,
    /// Of what it has told of itself, what was counted.
    pub(crate) told: Told,
}

/// What a machine that joins is given: the ensemble, without its secret, and where to find it.
#[derive(Clone, Debug)]
pub(crate) struct Permit {
    pub(crate) founding: Founding,
    pub(crate) members: Vec<MemberId>,
}

/// What was counted of a member, once in the life of its disk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    /// Its disk does not need a state to begin with.
    pub(crate) stated: bool,
    pub(crate) joined: bool,
    pub(crate) removed: bool,
}

/// Whom a process lets in: the list as it was when it met them, and ids that were given later, of which it has not
/// heard.
#[derive(Debug)]
pub(crate) struct Roster {
    members: BTreeSet<MemberId>,
    next_id: MemberId,
}

impl Roster {
    fn of(replica: &Replica) -> Self {
        let members = replica.peers().iter().map(|peer| peer.id).collect();
        Self { members, next_id: replica.registry().next_id() }
    }

    pub(crate) fn admits(&self, id: MemberId) -> bool {
        self.members.contains(&id) || id >= self.next_id
    }
}

/// What came of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Started {
    /// The disk has never been a member: no process takes part.
    Blank,
    /// From the beginning of the log.
    FromLog,
    /// From a cut in the store.
    FromStore {
        /// The log ends before the cut: what brought the state had no time to cut the log.
        ahead: bool,
        /// There is not memory for all rows.
        cold: bool,
    },
}

/// How fast the members of a run are, and how slow their disks can be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) election_ms: u64,
    /// In so many of a thousand operations the disk takes as long as an election.
    pub(crate) stalls: u64,
    /// In so many of a thousand operations of the disk the machine stops.
    pub(crate) crashes: u64,
    /// How much of the log is kept for members that were away.
    log_tail_bytes: u64,
    /// After how much a message of log entries or of a state, and a client's output, is cut.
    chunk_bytes: usize,
    output_bytes: usize,
    /// How much a turn applies: little, so that ends of sessions and cuts are carried out in slices.
    apply_bytes: usize,
    /// How fast states are sent.
    transfer_bytes_per_s: u64,
    /// How much memory there is for values.
    value_bytes: u64,
}

impl Pace {
    pub(crate) fn new(rng: &mut Rng, seed: u64) -> Self {
        Self {
            election_ms: *rng.pick(&[120, 300, 500]),
            stalls: *rng.pick(&[0, 2, 10]),
            crashes: *rng.pick(&[0, 1, 4]),
            log_tail_bytes: *rng.pick(&[2 << 20, 2 << 20, 4 << 10]),
            chunk_bytes: *rng.pick(&[1 << 20, 2 << 10, 200]),
            output_bytes: *rng.pick(&[4 << 20, 200, 0]),
            apply_bytes: *rng.pick(&[1 << 20, 1000, 1, 1]),
            transfer_bytes_per_s: *rng.pick(&[64 << 20, 20_000]),
            value_bytes: *Rng::new(!seed).pick(&[u64::MAX, 100, 0]),
        }
    }

    pub(crate) fn disk_delay(self, rng: &mut Rng) -> u64 {
        if rng.per_mille(self.stalls) {
            rng.between(1_000, 3_000 * self.election_ms)
        } else if rng.per_mille(10) {
            rng.between(5_000, 120_000)
        } else {
            rng.between(20, 600)
        }
    }
}

pub(crate) struct Process {
    pub(crate) replica: Replica,
    pub(crate) boot: u64,
    /// Log requests in order; the first is being carried out.
    log: VecDeque<(IoId, VecDeque<DiskOp>)>,
    pub(crate) spare: Option<DiskOp>,
    pub(crate) persist: Option<PersistBatch>,
    pub(crate) roster: Roster,
    /// Readings of the store: what is left of the rows as they were when each began.
    readers: BTreeMap<u64, VecDeque<(Bytes, Bytes)>>,
    /// A state that comes, and its rows as far as they are put aside.
    arrival: Option<(Arrival, BTreeMap<Bytes, Bytes>)>,
    arrived: Option<BTreeMap<Bytes, Bytes>>,
    /// What the store has been asked for, in order.
    pub(crate) jobs: VecDeque<StoreJob>,
}

/// What a store is asked for beside cuts.
#[derive(Debug)]
pub(crate) enum StoreJob {
    Snapshot { transfer: u64, step: SnapshotStep },
    Store { arrival: u64, first: bool, last: bool, rows: Bytes },
    Abandon,
}

/// What the replica is told when it is done.
#[derive(Debug)]
pub(crate) enum StoreDone {
    Opened { transfer: u64, upto: Slot },
    Part { transfer: u64, rows: Option<Bytes> },
    Stored { arrival: u64, arrived: Option<Box<Arrived>> },
    Nothing,
}

impl Process {
    /// The list has changed: those that are new in it.
    pub(crate) fn meet(&mut self) -> Vec<MemberId> {
        let before = std::mem::replace(&mut self.roster, Roster::of(&self.replica));
        self.roster.members.difference(&before.members).copied().collect()
    }
}

const SEGMENT_BYTES: u64 = 64 << 10;

fn wal_config(volume: Volume) -> WalConfig {
    WalConfig { segment_bytes: SEGMENT_BYTES, spare_segments: 1, identity: volume }
}

/// A disk that holds nothing yet.
fn blank_disk(volume: Volume) -> MemDisk {
    let (_, ops) = Wal::format(wal_config(volume));
    let mut disk = MemDisk::new();
    disk.execute(&ops).expect("a disk in memory takes what a log writes");
    disk
}

impl Member {
    /// A founder's machine: formatted, with the founding entry on its disk.
    pub(crate) fn found(id: MemberId, founding: &Founding) -> Self {
        let volume = [id.0 as u8; 16];
        let mut disk = MemDisk::new();
        let (mut wal, mut ops) = Wal::format(wal_config(volume));
        wal.append(&founding.first_group(), &mut ops);
        disk.execute(&ops).expect("a disk in memory takes what a log writes");
        Self { told: Told { stated: true, ..Told::default() }, ..Self::new(id, volume, disk, None) }
    }

    /// A blank machine that is registered.
    pub(crate) fn joining(id: MemberId, volume: Volume, permit: Permit) -> Self {
        Self::new(id, volume, blank_disk(volume), Some(permit))
    }

    fn new(id: MemberId, volume: Volume, disk: MemDisk, permit: Option<Permit>) -> Self {
        Self {
            id,
            volume,
            permit,
            disk,
            rows: BTreeMap::new(),
            flushed: Slot::ZERO,
            process: None,
            life: 0,
            seen: Seen::default(),
            paused_until: 0,
            wall_off_ms: 0,
            lost: false,
            retired: false,
            told: Told::default(),
        }
    }

    pub(crate) fn replica(&self) -> Option<&Replica> {
        self.process.as_ref().map(|process| &process.replica)
    }

    /// The volume is gone; a new, empty one takes its place.
    pub(crate) fn lose_volume(&mut self) {
        self.disk = blank_disk(self.volume);
        self.permit = None;
        self.rows.clear();
        self.flushed = Slot::ZERO;
        self.lost = true;
    }

    /// Founds the member a second time, which a permit that is void must prevent.
    pub(crate) fn found_again(&mut self, founding: &Founding) {
        let found = Self::found(self.id, founding);
        self.disk = found.disk;
        self.lost = false;
    }

    /// Starts the process from what is on the disk.
    pub(crate) fn start(
        &mut self,
        now: Now,
        rng: &mut Rng,
        pace: Pace,
        plant: Plant,
    ) -> Result<Started, String> {
        let boot_from = self.read(pace.value_bytes)?;
        let cold = self.long_values() > pace.value_bytes;
        let boot = rng.bits();
        let config = ReplicaConfig {
            me: self.id,
            boot,
            tick_ms: 200,
            heartbeat: Millis(pace.election_ms / 6),
            election: Millis(pace.election_ms),
            seed: rng.bits(),
            container_sweep: Millis(1000),
            log_tail_bytes: pace.log_tail_bytes,
            chunk_bytes: pace.chunk_bytes,
            output_bytes: pace.output_bytes,
            apply_bytes: pace.apply_bytes,
            transfer_bytes_per_s: pace.transfer_bytes_per_s,
            value_bytes: pace.value_bytes,
            plant,
        };
        let founded = boot_from.is_founded();
        let log_end = boot_from.log.entries.last().map_or(boot_from.log.trimmed, |entry| entry.slot);
        let replica = match Replica::start(config, boot_from, now) {
            Err(StartError::NotFounded) if self.lost => return Ok(Started::Blank),
            started => started.map_err(|e| e.to_string())?,
        };
        self.seen = Seen::from(self.flushed);
        let roster = match &self.permit {
            Some(permit) if !founded => {
                Roster { members: permit.members.iter().copied().collect(), next_id: MemberId(0) }
            }
            _ => Roster::of(&replica),
        };
        self.process = Some(Process {
            replica,
            boot,
            log: VecDeque::new(),
            spare: None,
            persist: None,
            roster,
            readers: BTreeMap::new(),
            arrival: None,
            arrived: None,
            jobs: VecDeque::new(),
        });
        let ahead = self.flushed > log_end;
        Ok(if self.flushed > Slot::ZERO { Started::FromStore { ahead, cold } } else { Started::FromLog })
    }

    /// What is on the disk, made fit to be written.
    fn read(&mut self, value_bytes: u64) -> Result<Boot, String> {
        let log = Wal::recover(wal_config(self.volume), &self.disk).map_err(|e| format!("recovery: {e}"))?;
        self.disk.execute(&log.ops).expect("a disk in memory takes what recovery writes");
        let (own, rows): (Vec<_>, Vec<_>) =
            self.rows.iter().map(|(k, v)| (k.clone(), v.clone())).partition(|(k, _)| k[0] == OWN_PREFIX);
        let state = if rows.is_empty() {
            State::new()
        } else {
            let mut state = StateLoader::keeping(value_bytes);
            let read = rows.iter().try_for_each(|(key, value)| state.row(key, value));
            read.and_then(|()| state.finish()).map_err(|e| format!("rows: {e}"))?
        };
        let joins = self.permit.as_ref().map(|permit| permit.founding.clone());
        Ok(Boot { log, state, own, applied: self.flushed, joins })
    }

    /// What its volume holds; nothing if it joined and was never sent a state.
    pub(crate) fn holdings(&mut self) -> Result<Option<Holdings>, String> {
        match Holdings::of(&self.read(0)?) {
            Ok(held) => Ok(Some(held)),
            Err(GenerationError::Empty) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Makes the ensemble go on from this volume. The machine may stop in the middle, and is told again; how often it did.
    pub(crate) fn begin_generation(&mut self, generation: u32, rng: &mut Rng) -> Result<u64, String> {
        let mut interrupted = 0;
        loop {
            let mut boot = self.read(0)?;
            let held = Holdings::of(&boot).map_err(|e| e.to_string())?;
            if held.founding.generation == generation {
                return Ok(interrupted);
            }
            let survivor = held.member(self.id).cloned().ok_or("it is not registered")?;
            let begun = NewGeneration { generation, survivor };
            let mut ops = Vec::new();
            boot.log.wal.append(&begun.first_group(&boot).map_err(|e| e.to_string())?, &mut ops);
            for op in &ops {
                if rng.per_mille(150) {
                    interrupted += 1;
                    self.disk.crash_in(op, &mut || rng.bits()).expect("the operation was valid");
                    break;
                }
                self.disk.execute_one(op).expect("a disk in memory takes what a log writes");
            }
        }
    }

    /// The machine stops, perhaps in the middle of a disk operation.
    pub(crate) fn crash(&mut self, rng: &mut Rng) -> (Crash, bool) {
        self.life += 1;
        let current =
            self.process.take().and_then(|p| p.log.front().and_then(|(_, ops)| ops.front().cloned()));
        let bits = &mut || rng.bits();
        match current {
            Some(op) => (self.disk.crash_in(&op, bits).expect("the operation was valid"), true),
            None => (self.disk.crash(bits), false),
        }
    }

    /// A log request came; true if the log thread was idle.
    pub(crate) fn enqueue(&mut self, io: IoId, ops: Vec<DiskOp>) -> bool {
        let Some(process) = &mut self.process else { return false };
        process.log.push_back((io, ops.into()));
        process.log.len() == 1
    }

    /// The log thread finishes one operation: the request that is durable now, if any, and whether
    /// there is more to do.
    pub(crate) fn disk_step(&mut self) -> (Option<IoId>, bool) {
        let Some(process) = &mut self.process else { return (None, false) };
        let Some((io, ops)) = process.log.front_mut() else { return (None, false) };
        if let Some(op) = ops.pop_front() {
            self.disk.execute_one(&op).expect("a disk in memory takes what a log writes");
        }
        let done = ops.is_empty().then_some(*io);
        if done.is_some() {
            process.log.pop_front();
        }
        (done, !process.log.is_empty())
    }

    pub(crate) fn create_spare(&mut self) -> Option<DiskOp> {
        let op = self.process.as_mut()?.spare.take()?;
        self.disk.execute_one(&op).expect("a disk in memory has room");
        Some(op)
    }

    /// The store has flushed the cut.
    pub(crate) fn flush(&mut self) -> Option<Slot> {
        let process = self.process.as_mut()?;
        let batch = process.persist.take()?;
        match batch.rows {
            PersistRows::Arrived => {
                self.rows = process.arrived.take().expect("a state that is taken over has come");
            }
            PersistRows::Changed(rows) => {
                for (key, value) in rows.to_pairs() {
                    match value {
                        Some(value) => self.rows.insert(key, value),
                        None => self.rows.remove(&key),
                    };
                }
            }
        }
        self.rows.extend(batch.own);
        self.flushed = batch.applied;
        Some(batch.applied)
    }

    /// The store does what it was asked for first.
    pub(crate) fn store_step(&mut self, pace: Pace) -> Result<StoreDone, String> {
        let Some(process) = &mut self.process else { return Ok(StoreDone::Nothing) };
        Ok(match process.jobs.pop_front() {
            None => StoreDone::Nothing,
            Some(StoreJob::Snapshot { transfer, step: SnapshotStep::Open }) => {
                let rows = self.rows.iter().map(|(key, value)| (key.clone(), value.clone()));
                process.readers.insert(transfer, rows.collect());
                StoreDone::Opened { transfer, upto: self.flushed }
            }
            Some(StoreJob::Snapshot { transfer, step: SnapshotStep::Next }) => {
                let rows =
                    process.readers.get_mut(&transfer).and_then(|rows| next_part(rows, pace.chunk_bytes));
                StoreDone::Part { transfer, rows }
            }
            Some(StoreJob::Snapshot { transfer, step: SnapshotStep::Close }) => {
                process.readers.remove(&transfer);
                StoreDone::Nothing
            }
            Some(StoreJob::Store { arrival, first, last, rows }) => {
                let arrived = process.take_part((first, last), rows, pace.value_bytes)?;
                StoreDone::Stored { arrival, arrived }
            }
            Some(StoreJob::Abandon) => {
                process.arrival = None;
                StoreDone::Nothing
            }
        })
    }

    /// Bytes of the values in the store that need not be in memory: all but the shortest, and a byte for each row's version.
    fn long_values(&self) -> u64 {
        let table = State::data_row("/")[0];
        let long = |(key, row): &(&Bytes, &Bytes)| key[0] == table && row.len() > 13;
        self.rows.iter().filter(long).map(|(_, row)| row.len() as u64 - 1).sum()
    }

    /// A row of the store. What was written and is not flushed may be seen.
    pub(crate) fn row(&self, key: &[u8], rng: &mut Rng) -> Option<Bytes> {
        let under_way = self.process.as_ref().and_then(|process| process.persist.as_ref());
        if let Some(PersistBatch { rows: PersistRows::Changed(rows), .. }) = under_way
            && rng.per_mille(500)
            && let Some((_, value)) = rows.to_pairs().into_iter().rfind(|(written, _)| written == key)
        {
            return value;
        }
        self.rows.get(key).cloned()
    }
}

impl Process {
    fn take_part(
        &mut self,
        (first, last): (bool, bool),
        rows: Bytes,
        values: u64,
    ) -> Result<Option<Box<Arrived>>, String> {
        if first {
            self.arrival = None;
        }
        let (mut arrival, mut aside) =
            self.arrival.take().unwrap_or_else(|| (Arrival::keeping(values), BTreeMap::new()));
        aside.extend(arrival.part(rows).map_err(|e| e.to_string())?);
        if !last {
            self.arrival = Some((arrival, aside));
            return Ok(None);
        }
        self.arrived = Some(aside);
        arrival.finish().map(Some).map_err(|e| e.to_string())
    }
}

/// About so many bytes of rows; none when there are no more.
fn next_part(rows: &mut VecDeque<(Bytes, Bytes)>, bytes: usize) -> Option<Bytes> {
    let (mut part, mut size) = (Vec::new(), 0);
    while size < bytes
        && let Some(row) = rows.pop_front()
    {
        size += row.0.len() + row.1.len();
        part.push(row);
    }
    (!part.is_empty()).then(|| part_of(&part))
}
