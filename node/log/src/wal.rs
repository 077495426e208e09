//! The write-ahead log as a state machine: operations in, disk operations out.
//!
//! Owns the order of groups and segments. Knows no files and no completions: the caller executes the disk
//! operations in order and acknowledges a group when its `Sync` has returned. A failed disk operation ends
//! the process (DESIGN 3.2).

use crate::disk::{BLOCK, DiskOp, FileName};
use crate::group;
use crate::header::Header;
use crate::ledger::{Ledger, Segment};
use crate::sector::{Chain, GroupNo, SegmentNo, Stamper, padded, sectors_for};
use pharos_paxos::{HardState, LogOp, Slot};
use std::collections::{BTreeSet, VecDeque};

/// How a log is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalConfig {
    /// The length of a segment: whole blocks, at least two. A group that does not fit into one gets a segment
    /// of its own length, so a group never spans segments. Existing segments keep the length they have.
    pub segment_bytes: u64,
    /// How many unused, zero-filled or outlived segments are kept, so that the log rolls without waiting for
    /// allocation and meets a full disk there and not in its tail.
    pub spare_segments: usize,
    /// The volume id, in every segment header and every checksum.
    pub identity: [u8; 16],
}

/// The log. See the module.
#[derive(Clone, Debug)]
pub struct Wal {
    pub(crate) config: WalConfig,
    pub(crate) ledger: Ledger,
    /// The oldest segment a reader needs; durable before older ones are used for anything else.
    pub(crate) floor: SegmentNo,
    pub(crate) group: GroupNo,
    pub(crate) chain: Chain,
    pub(crate) spares: BTreeSet<FileName>,
    pub(crate) next_file: FileName,
}

impl Wal {
    /// A new, empty log, and the operations that make it so. Files of these names are overwritten: the caller
    /// formats a volume only while its superblock does not exist, and writes that afterwards.
    ///
    /// # Panics
    /// If the segment length is not whole blocks, at least two.
    #[must_use]
    pub fn format(config: WalConfig) -> (Self, Vec<DiskOp>) {
        let block = BLOCK as u64;
        assert!(config.segment_bytes.is_multiple_of(block) && config.segment_bytes >= 2 * block);
        let mut wal = Self {
            config,
            ledger: Ledger { hard: HardState::EMPTY, end: Slot::ZERO, segments: VecDeque::new() },
            floor: SegmentNo(1),
            group: GroupNo(1),
            chain: Chain(0),
            spares: BTreeSet::new(),
            next_file: FileName(1),
        };
        let mut out = Vec::new();
        wal.begin_segment(SegmentNo(1), 0, &mut out);
        while let Some(op) = wal.wanted_spare() {
            wal.add_spare(&op);
            out.push(op);
        }
        (wal, out)
    }

    /// Writes one group: the operations are durable together, when the last disk operation has returned, or
    /// not at all. Whatever is waiting belongs into one call, for each costs a sync. No operations, no group.
    ///
    /// # Panics
    /// If an operation breaks the log's rules: an entry that does not follow the last one or is larger than
    /// [`pharos_paxos::MAX_ENTRY_BYTES`], a truncation of committed or trimmed slots or beyond the end, a
    /// reset to before the committed slot.
    pub fn append(&mut self, ops: &[LogOp], out: &mut Vec<DiskOp>) {
        if ops.is_empty() {
            return;
        }
        self.write_group(&group::encode(self.ledger.end, ops), out);
        for op in ops {
            if let LogOp::Truncate { from } = op {
                assert!(*from > self.ledger.trimmed(), "slot {from} is truncated, but was trimmed");
            }
            if let Err(rule) = self.ledger.apply(op) {
                panic_on(rule, op);
            }
        }
    }

    /// Gives up whole segments whose entries are all at or below the slot, which the caller has elsewhere.
    /// The newest segment always stays. The hard state is not lost: each header holds what came before.
    pub fn trim(&mut self, upto: Slot, out: &mut Vec<DiskOp>) {
        let dead = self.outlived(upto);
        if dead == 0 {
            return;
        }
        // The new floor must be durable before the old segments are removed or used again.
        let floor = self.ledger.segments[dead].no;
        self.raise_floor(floor, out);
        for segment in self.ledger.segments.drain(..dead).collect::<Vec<_>>() {
            if segment.size == self.config.segment_bytes && self.spares.len() < self.config.spare_segments {
                self.spares.insert(segment.file);
            } else {
                out.push(DiskOp::Remove { file: segment.file });
            }
        }
    }

    /// Whether [`Wal::trim`] would give up a segment.
    #[must_use]
    pub fn can_trim(&self, upto: Slot) -> bool {
        self.outlived(upto) > 0
    }

    /// The last slot before the newest segments that together have `keep` bytes on the disk.
    #[must_use]
    pub fn before_newest(&self, keep: u64) -> Slot {
        let mut bytes = 0;
        let mut older = self.ledger.segments.iter().rev().skip_while(|segment| {
            let is_kept = bytes < keep;
            bytes += segment.used;
            is_kept
        });
        older.next().map_or(Slot::ZERO, |segment| segment.last)
    }

    fn outlived(&self, upto: Slot) -> usize {
        let older = self.ledger.segments.iter().take(self.ledger.segments.len() - 1);
        older.take_while(|segment| segment.last <= upto).count()
    }

    /// The creation of a spare segment, if there are too few. It may be executed at any time, by any thread;
    /// when it has succeeded the caller hands it to [`Wal::add_spare`], and may ignore a full disk until
    /// [`Wal::spares`] is low.
    pub fn wanted_spare(&mut self) -> Option<DiskOp> {
        let size = self.config.segment_bytes;
        (self.spares.len() < self.config.spare_segments)
            .then(|| DiskOp::Create { file: self.new_file(), size })
    }

    /// Takes over a spare that was created as [`Wal::wanted_spare`] said.
    pub fn add_spare(&mut self, created: &DiskOp) {
        if let DiskOp::Create { file, .. } = created {
            self.spares.insert(*file);
        }
    }

    /// Whether half of the spare segments that there should be are missing, or more.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.spares.len() * 2 <= self.config.spare_segments && self.spares.len() < self.config.spare_segments
    }

    /// How many spare segments there are.
    #[must_use]
    pub fn spares(&self) -> usize {
        self.spares.len()
    }

    /// The first slot in the log; one above [`Wal::last_slot`] when there is no entry.
    #[must_use]
    pub fn first_slot(&self) -> Slot {
        self.ledger.trimmed().next()
    }

    /// The log's end.
    #[must_use]
    pub fn last_slot(&self) -> Slot {
        self.ledger.end
    }

    /// The hard state with all appended operations.
    #[must_use]
    pub fn hard(&self) -> HardState {
        self.ledger.hard
    }

    /// The written bytes of the segments that belong to the log: what recovery replays.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.ledger.segments.iter().map(|segment| segment.used).sum()
    }

    /// How many segments belong to the log.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.ledger.segments.len()
    }

    /// Notes that older segments are no longer part of the log.
    pub(crate) fn raise_floor(&mut self, floor: SegmentNo, out: &mut Vec<DiskOp>) {
        self.write_group(&group::encode_floor(self.ledger.end, floor), out);
        self.floor = floor;
    }

    fn write_group(&mut self, payload: &[u8], out: &mut Vec<DiskOp>) {
        let length = padded(sectors_for(payload.len())) as u64;
        let newest = self.ledger.newest();
        if newest.used + length > newest.size {
            self.begin_segment(SegmentNo(newest.no.0 + 1), length, out);
        }
        let stamper = Stamper::new(self.config.identity, self.ledger.newest().no);
        let newest = self.ledger.newest_mut();
        let (file, offset) = (newest.file, newest.used);
        newest.used += length;
        let data = stamper.seal(offset, self.group, self.chain, payload);
        out.extend([DiskOp::Write { file, offset, data }, DiskOp::Sync { file }]);
        self.group = GroupNo(self.group.0 + 1);
        self.chain = self.chain.then(payload);
    }

    fn begin_segment(&mut self, no: SegmentNo, room_for: u64, out: &mut Vec<DiskOp>) {
        let size = self.config.segment_bytes.max(BLOCK as u64 + room_for);
        let spare = if size == self.config.segment_bytes { self.spares.pop_first() } else { None };
        let file = spare.unwrap_or_else(|| {
            let file = self.new_file();
            out.push(DiskOp::Create { file, size });
            file
        });
        let base = self.ledger.end;
        self.ledger.segments.push_back(Segment { no, file, size, used: BLOCK as u64, base, last: base });
        out.extend([
            DiskOp::Write { file, offset: 0, data: self.newest_header().encode() },
            DiskOp::Sync { file },
        ]);
    }

    /// The header of a segment in which no group is written yet.
    fn newest_header(&self) -> Header {
        Header {
            identity: self.config.identity,
            segment: self.ledger.newest().no,
            floor: self.floor,
            first: self.group,
            before: self.chain,
            end: self.ledger.end,
            hard: self.ledger.hard,
            length: self.ledger.newest().size,
        }
    }

    fn new_file(&mut self) -> FileName {
        let file = self.next_file;
        self.next_file = FileName(file.0 + 1);
        file
    }
}

#[allow(clippy::panic, reason = "a broken protocol invariant must not reach the disk")]
fn panic_on(rule: &str, op: &LogOp) -> ! {
    let name = match op {
        LogOp::Truncate { from } => format!("truncate from slot {from}"),
        LogOp::Reset { after } => format!("reset to slot {after}"),
        LogOp::Append(entry) => format!("append of slot {}", entry.slot),
        LogOp::Accepted(ballot) => format!("accepted {ballot}"),
        LogOp::Promised(ballot) => format!("promised {ballot}"),
        LogOp::Committed(slot) => format!("committed {slot}"),
    };
    panic!("{rule}: {name}");
}
