//! What the tests share: a model of the log, operations for it, a small generator of chance.

use bytes::Bytes;
use pharos_log::mem::MemDisk;
use pharos_log::{DiskOp, Recovery, Wal, WalConfig};
use pharos_paxos::{Ballot, ConfigNo, Entry, EntryKind, HardState, LogOp, MemberId, Slot};

pub(crate) const CONFIG: WalConfig =
    WalConfig { segment_bytes: 32 << 10, spare_segments: 2, identity: [7; 16] };

/// A generator whose whole state is its seed (splitmix64).
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// What a log should hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) hard: HardState,
    pub(crate) entries: Vec<Entry>,
    /// Where the last reset put the end.
    base: Slot,
}

impl Model {
    pub(crate) fn empty() -> Self {
        Self { hard: HardState::EMPTY, entries: Vec::new(), base: Slot::ZERO }
    }

    pub(crate) fn end(&self) -> Slot {
        self.entries.last().map_or(self.base, |entry| entry.slot)
    }

    pub(crate) fn apply(&mut self, ops: &[LogOp]) {
        for op in ops {
            match op {
                LogOp::Truncate { from } => self.entries.retain(|entry| entry.slot < *from),
                LogOp::Reset { after } => {
                    self.entries.clear();
                    self.hard.committed = *after;
                    self.base = *after;
                }
                LogOp::Append(entry) => self.entries.push(entry.clone()),
                LogOp::Accepted(ballot) => self.hard.accepted = *ballot,
                LogOp::Promised(ballot) => self.hard.promised = *ballot,
                LogOp::Committed(slot) => self.hard.committed = self.hard.committed.max(*slot),
            }
        }
    }

    /// Whether the recovered log is this one, but for entries that were trimmed.
    pub(crate) fn is(&self, recovery: &Recovery) -> bool {
        let kept = self.entries.iter().filter(|entry| entry.slot > recovery.trimmed);
        self.hard == recovery.hard && kept.eq(&recovery.entries) && recovery.wal.last_slot() == self.end()
    }
}

pub(crate) fn ballot(round: u64) -> Ballot {
    Ballot { config: ConfigNo(1), round, member: MemberId(3) }
}

pub(crate) fn entry(slot: u64, round: u64, length: usize) -> Entry {
    let payload = Bytes::from(vec![slot as u8 ^ round as u8 | 1; length]);
    Entry { slot: Slot(slot), ballot: ballot(round), kind: EntryKind::Commands, payload }
}

pub(crate) fn append(slot: u64, length: usize) -> LogOp {
    LogOp::Append(entry(slot, 1, length))
}

/// A new log on a new disk.
pub(crate) fn formatted(config: WalConfig) -> (Wal, MemDisk) {
    let mut disk = MemDisk::new();
    let (wal, ops) = Wal::format(config);
    disk.execute(&ops).unwrap();
    (wal, disk)
}

/// Appends a group and makes it durable.
pub(crate) fn write(wal: &mut Wal, disk: &mut MemDisk, ops: &[LogOp]) {
    let mut out = Vec::new();
    wal.append(ops, &mut out);
    disk.execute(&out).unwrap();
}

pub(crate) fn trim(wal: &mut Wal, disk: &mut MemDisk, upto: u64) -> Vec<DiskOp> {
    let mut out = Vec::new();
    wal.trim(Slot(upto), &mut out);
    disk.execute(&out).unwrap();
    out
}

/// A random group that the model allows: as a leader change, a batch or a hint would write.
pub(crate) fn random_group(model: &Model, trimmed: Slot, chance: &mut Chance) -> Vec<LogOp> {
    let mut ops = Vec::new();
    let mut end = model.end().0;
    let round = model.hard.promised.round;
    if chance.below(4) == 0 {
        ops.push(LogOp::Promised(ballot(round + 1)));
    }
    let mut keep = model.hard.committed.max(trimmed).0;
    if chance.below(5) == 0 && end > keep {
        end = keep + chance.below(end - keep);
        ops.push(LogOp::Truncate { from: Slot(end + 1) });
        ops.push(LogOp::Accepted(ballot(round)));
    }
    if chance.below(24) == 0 {
        end += chance.below(20);
        ops.push(LogOp::Reset { after: Slot(end) });
        keep = end;
    }
    for _ in 0..chance.below(4) {
        end += 1;
        let length = match chance.below(12) {
            0 => 50_000, // Larger than a segment.
            1..4 => chance.below(9_000),
            _ => chance.below(300),
        };
        ops.push(LogOp::Append(entry(end, round, length as usize)));
    }
    if ops.is_empty() || chance.below(3) == 0 {
        let committed = keep.max(keep + chance.below(end.saturating_sub(keep) + 1));
        ops.push(LogOp::Committed(Slot(committed)));
    }
    ops
}
