//! Reading a log back: which bytes are the log, which were never acknowledged, and which are damaged.
//!
//! The rules. A segment before the newest must be intact from its header to the next one's first group, for
//! each group was durable before the next was written. In the newest segment the first group that is not
//! intact ends the log. If one of its sectors was never fully written, the group was never durable, so it was
//! never acknowledged: it is cut, whole, and its remains are zeroed. Unless a later group exists: then it had
//! been durable, and something has eaten it. If all its sectors were written and one does not check, it may
//! have been acknowledged: nothing is cut, and the log is refused by place. The cost is one pass over the
//! live segments and the unused rest of the newest, and one block of each other file: a header that was lost
//! after a sync is found by the first group behind it.
//!
//! A file that is shorter than its header says was cut, and is refused as well.
//!
//! Damage in an older segment, or its absence, loses nothing if the caller has all slots up to the next segment that is
//! there: that one's header repeats the hard state, and all later ones are intact. Then the log begins with that segment,
//! as if it had been trimmed up to there; what came before is removed and said.
//!
//! What cannot be seen from here: a disk that loses the whole last group after a sync, or a newest segment
//! that someone deleted or cut within its header. All look like a log that ended earlier; a leader notices that a
//! member has less than it acknowledged.

use crate::disk::{BLOCK, DiskOp, DiskRead, FileName, SECTOR};
use crate::error::{LogError, SlotRange, Volume};
use crate::group::{self, Record, Undecodable};
use crate::header::{FORMAT, Found, Header};
use crate::ledger::{Ledger, Segment};
use crate::plant::Plant;
use crate::sector::{Chain, GroupNo, PAYLOAD, Part, Sector, SegmentNo, Stamper, padded};
use crate::wal::{Wal, WalConfig};
use bytes::{Bytes, BytesMut};
use pharos_paxos::{Entry, HardState, LogOp, Slot};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A log read back.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// The log, ready for appends once `ops` are executed.
    pub wal: Wal,
    /// The hard state.
    pub hard: HardState,
    /// Slots up to here are no longer in the log.
    pub trimmed: Slot,
    /// All slots after that.
    pub entries: Vec<Entry>,
    /// How the log ended.
    pub tail: Tail,
    /// To be executed before anything is promised, accepted or appended: the newest header and the last kept
    /// group again, byte for byte, for a failed sync may have left them in a cache alone; zeros over the
    /// remains of a torn group, so that they never mix with its successor; removal of files without use.
    pub ops: Vec<DiskOp>,
    /// What was read.
    pub replayed: Replayed,
    /// Damage that was passed over, since nothing but slots that the caller has was lost by it.
    pub forgotten: Vec<Forgotten>,
}

/// A damaged or missing part of the log that nobody needs any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// What is wrong with it.
    pub damage: String,
    /// The log begins after this slot, which the caller has.
    pub upto: Slot,
}

/// A damaged log, as far as it can be read.
#[derive(Debug)]
pub struct Salvage {
    /// Where reading ended, and why.
    pub damage: LogError,
    /// The hard state up to there. Later promises may be lost.
    pub hard: HardState,
    /// Slots up to here are not in the log.
    pub trimmed: Slot,
    /// The slots after that, up to the damage.
    pub entries: Vec<Entry>,
}

impl Salvage {
    /// A new log that holds what could be read, and the operations that make it in an empty directory.
    #[must_use]
    pub fn rewritten(&self, config: WalConfig) -> (Wal, Vec<DiskOp>) {
        let (mut wal, mut ops) = Wal::format(config);
        let reset = (self.trimmed > Slot::ZERO).then_some(LogOp::Reset { after: self.trimmed });
        let entries = self.entries.iter().cloned().map(LogOp::Append);
        let HardState { promised, accepted, committed } = self.hard;
        let hard = [LogOp::Accepted(accepted), LogOp::Promised(promised), LogOp::Committed(committed)];
        let group: Vec<LogOp> = reset.into_iter().chain(entries).chain(hard).collect();
        wal.append(&group, &mut ops);
        (wal, ops)
    }
}

/// How the log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// After a whole group.
    Clean,
    /// In a group that was never fully written; it was cut.
    Torn {
        /// The file.
        file: FileName,
        /// Where the cut group began.
        offset: u64,
        /// How far its remains reach, in bytes.
        length: u64,
    },
}

/// How much was replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Segments that belong to the log.
    pub segments: usize,
    /// Groups in them.
    pub groups: u64,
    /// Bytes of those groups on disk.
    pub bytes: u64,
}

impl Wal {
    /// Reads the log. The result depends on the disk alone: until `ops` are executed it can be repeated.
    pub fn recover(config: WalConfig, disk: &dyn DiskRead) -> Result<Recovery, LogError> {
        Self::recover_with(config, disk, Slot::ZERO, Plant::None)
    }

    /// The same for a caller that has the slots up to `stored` elsewhere, durably: damage that hits nothing else is passed
    /// over.
    ///
    /// # Errors
    /// As without.
    pub fn recover_above(config: WalConfig, disk: &dyn DiskRead, stored: Slot) -> Result<Recovery, LogError> {
        Self::recover_with(config, disk, stored, Plant::None)
    }

    /// The same, with a known bug.
    ///
    /// # Errors
    /// As without.
    pub fn recover_with(
        config: WalConfig,
        disk: &dyn DiskRead,
        stored: Slot,
        plant: Plant,
    ) -> Result<Recovery, LogError> {
        let (reader, last) = Reader::open(config, disk, plant)?;
        let Reading { replay, forgotten, stopped } = reader.read(&last, stored);
        match stopped {
            Some(error) => Err(error),
            None => Ok(replay.finish(&reader, &last, forgotten)),
        }
    }

    /// What can be read of a log that is damaged, up to the damage; none of its entries, if the caller has all that can be
    /// read and more. Nothing on the disk changes.
    ///
    /// # Errors
    /// When nothing can be read.
    pub fn salvage(
        config: WalConfig,
        disk: &dyn DiskRead,
        stored: Slot,
    ) -> Result<Option<Salvage>, LogError> {
        let (reader, last) = Reader::open(config, disk, Plant::None)?;
        let Reading { replay, stopped, .. } = reader.read(&last, stored);
        let Replay { ledger: Ledger { mut hard, end, segments }, mut entries, .. } = replay;
        let mut trimmed = segments.front().map_or(end, |segment| segment.base);
        if end < stored {
            entries.clear();
            (trimmed, hard.committed) = (stored, stored);
        }
        Ok(stopped.map(|damage| Salvage { damage, hard, trimmed, entries }))
    }
}

/// The files of the directory by what they are.
struct Files {
    /// By segment number: those whose header can be read, part of the log or not.
    used: BTreeMap<SegmentNo, (FileName, Header, Health)>,
    /// Of no use yet, or outlived.
    idle: Vec<FileName>,
    lengths: BTreeMap<FileName, u64>,
}

/// Whether all copies of a header agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Whole,
    Patchy,
}

fn survey(config: &WalConfig, disk: &dyn DiskRead, plant: Plant) -> Result<Files, LogError> {
    let mut files = Files { used: BTreeMap::new(), idle: Vec::new(), lengths: BTreeMap::new() };
    let (mut unreadable, mut first_uses) = (Vec::new(), Vec::new());
    let mut names = disk.list().map_err(LogError::List)?;
    names.sort();
    for file in names {
        let length = disk.len(file).map_err(|source| LogError::Read { what: "measure", file, source })?;
        files.lengths.insert(file, length);
        if length < BLOCK as u64 {
            files.idle.push(file); // Its creation did not end.
            continue;
        }
        let head = read(disk, file, 0, length.min(2 * BLOCK as u64) as usize)?;
        first_uses.extend(uses(config, &head).map(|segment| (file, segment)));
        match Header::read(&head[..BLOCK], config.identity) {
            Found::Header { healthy: false, .. } if plant.refuses_half_header() => unreadable.push(file),
            Found::Header { header, healthy } => {
                let health = if healthy { Health::Whole } else { Health::Patchy };
                if files.used.insert(header.segment, (file, header, health)).is_some() {
                    return Err(corrupt(
                        file,
                        0,
                        "another file has the same segment number",
                        header.end.next(),
                        None,
                    ));
                }
            }
            Found::Blank => files.idle.push(file),
            Found::Unreadable => unreadable.push(file),
            Found::Unknown { format, min_reader } => {
                return Err(LogError::UnknownFormat { file, format, min_reader, reads: FORMAT });
            }
            Found::Foreign { identity } => {
                let expected = Volume(config.identity);
                return Err(LogError::ForeignVolume { file, found: Volume(identity), expected });
            }
        }
    }
    files
        .check_later(first_uses, "the header of a segment with entries is not the one it was written with")?;
    for file in unreadable {
        let bytes = read_all(disk, file, files.lengths[&file])?;
        let found = uses(config, &bytes).map(|segment| (file, segment));
        files.check_later(found, "the header of a segment with entries cannot be read")?;
        if plant.refuses_half_header() {
            return Err(corrupt(file, 0, "half a header", Slot::ZERO.next(), None));
        }
        files.idle.push(file);
    }
    Ok(files)
}

impl Files {
    /// A header that was being written when the machine stopped is the one before, or none, or cannot be read, and then
    /// no group of the segment follows it. If one does, the header is damaged. One that misses among the known segments
    /// is found by its absence.
    fn check_later(
        &self,
        found: impl IntoIterator<Item = (FileName, SegmentNo)>,
        what: &'static str,
    ) -> Result<(), LogError> {
        let newest = self.used.values().next_back();
        let known = newest.map_or(SegmentNo(0), |(_, header, _)| header.segment);
        let from = newest.map_or(Slot::ZERO, |(_, header, _)| header.end).next();
        match found.into_iter().find(|(_, segment)| *segment > known) {
            Some((file, _)) => Err(corrupt(file, 0, what, from, None)),
            None => Ok(()),
        }
    }
}

/// The segments that intact sectors behind a header were written in.
fn uses(config: &WalConfig, bytes: &Bytes) -> impl Iterator<Item = SegmentNo> {
    let stamper = Stamper::new(config.identity, SegmentNo(0));
    sectors(bytes, BLOCK as u64).filter_map(move |(offset, sector)| stamper.any_use(offset, sector))
}

/// Reads segments.
struct Reader<'a> {
    config: WalConfig,
    disk: &'a dyn DiskRead,
    files: Files,
    /// The oldest segment of the log.
    floor: SegmentNo,
    plant: Plant,
}

/// What came of reading the log.
struct Reading {
    replay: Replay,
    forgotten: Vec<Forgotten>,
    /// Why reading ended early.
    stopped: Option<LogError>,
}

/// The groups of a segment, as far as they could be read.
#[derive(Clone)]
struct Parsed {
    no: SegmentNo,
    file: FileName,
    groups: Vec<Group>,
    /// Where the groups end.
    end: u64,
    /// What follows them and must go, in bytes.
    remains: u64,
    damage: Option<Damage>,
    /// The bytes of the last group, to be written again.
    last: Option<(u64, Bytes)>,
}

#[derive(Clone)]
struct Group {
    offset: u64,
    payload: Bytes,
}

#[derive(Clone)]
struct Damage {
    offset: u64,
    what: &'static str,
    to: Option<Slot>,
}

const BAD_SECTOR: &str = "a sector does not match its checksum";
const CUT_SHORT: &str = "the file was cut short";
const LATER_GROUP: &str = "a group is missing before a later one";

/// What lies where a group is expected.
enum Next {
    Group {
        payload: Bytes,
        length: usize,
    },
    /// At least one of its sectors was never fully written.
    Unwritten,
    Damaged(&'static str),
}

impl<'a> Reader<'a> {
    /// Finds where the log begins and ends, and reads its newest segment.
    fn open(config: WalConfig, disk: &'a dyn DiskRead, plant: Plant) -> Result<(Self, Parsed), LogError> {
        let files = survey(&config, disk, plant)?;
        let newest = *files.used.keys().next_back().ok_or(LogError::NoLog)?;
        let mut reader = Self { config, disk, files, floor: newest, plant };
        let last = reader.parse(newest, None)?;
        reader.floor = last.floors().fold(reader.header(newest)?.floor, SegmentNo::max);
        while last.damage.is_some() && !reader.files.used.contains_key(&reader.floor) {
            reader.floor.0 += 1; // The record that gave it up may be behind the damage, which is what to report.
        }
        Ok((reader, last))
    }

    /// Reads the log from its floor, or from after damage that hits nothing but slots up to `stored`.
    fn read(&self, last: &Parsed, stored: Slot) -> Reading {
        let (mut from, mut forgotten) = (self.floor, Vec::new());
        loop {
            let mut replay = Replay::new(self.files.used.get(&from).map(|(_, header, _)| *header), from);
            let Err((at, error)) = self.replay(&mut replay, from, last) else {
                return Reading { replay, forgotten, stopped: None };
            };
            let later = self.files.used.range(SegmentNo(at.0 + 1)..);
            // Not always the next one: what that begins after may have been cut later.
            let mut goes_on = later.filter(|(_, (_, header, _))| header.end <= stored && error.is_damage());
            match goes_on.next() {
                Some((next, (_, header, _))) => {
                    forgotten.push(Forgotten { damage: error.to_string(), upto: header.end });
                    from = *next;
                }
                None => return Reading { replay, forgotten, stopped: Some(error) },
            }
        }
    }

    /// Gives all records from a segment on their meaning, or says in which segment that ends, and why.
    fn replay(
        &self,
        replay: &mut Replay,
        from: SegmentNo,
        last: &Parsed,
    ) -> Result<(), (SegmentNo, LogError)> {
        let mut next = from;
        self.header(next).map_err(|error| (next, error))?;
        while next < last.no {
            let after = SegmentNo(next.0 + 1);
            let header = self.header(after).map_err(|error| (after, error))?;
            let parsed = self.parse(next, Some(header)).map_err(|error| (next, error))?;
            replay.segment(self, parsed).map_err(|error| (next, error))?;
            if !replay.is_continued_by(&header) {
                let (file, ..) = self.files.used[&after];
                return Err((
                    next,
                    replay.corrupt(file, 0, "a header does not continue the segment before it"),
                ));
            }
            next = after;
        }
        replay.segment(self, last.clone()).map_err(|error| (next, error))
    }

    fn header(&self, no: SegmentNo) -> Result<Header, LogError> {
        self.files.used.get(&no).map(|(_, header, _)| *header).ok_or_else(|| self.missing(no))
    }

    fn missing(&self, no: SegmentNo) -> LogError {
        let before =
            self.files.used.range(..no).next_back().map_or(Slot::ZERO, |(_, (_, header, _))| header.end);
        let after = self.files.used.range(no..).next().map(|(_, (_, header, _))| header.end);
        LogError::Missing { segment: no.0, slots: SlotRange { from: before.next(), to: after } }
    }

    /// Reads the groups of a segment: up to the next segment's first, or to the end of the log.
    fn parse(&self, no: SegmentNo, next: Option<Header>) -> Result<Parsed, LogError> {
        let (file, header, _) = *self.files.used.get(&no).ok_or_else(|| self.missing(no))?;
        let bytes = read_all(self.disk, file, self.files.lengths[&file])?;
        let scan = Scan { stamper: Stamper::new(self.config.identity, no), bytes: &bytes };
        let mut at = BLOCK as u64;
        let (mut group, mut chain, mut last) = (header.first, header.before, None);
        let mut parsed =
            Parsed { no, file, groups: Vec::new(), end: at, remains: 0, damage: None, last: None };
        while next.map(|next| next.first) != Some(group) {
            let what = match scan.group(at, group, chain) {
                Next::Group { payload, length } => {
                    chain = chain.then(&payload);
                    group = GroupNo(group.0 + 1);
                    last = Some((at, length));
                    parsed.groups.push(Group { offset: at, payload });
                    at += length as u64;
                    continue;
                }
                Next::Unwritten if next.is_some() => Some("a group is missing before the next segment"),
                Next::Unwritten => scan.evidence_after(at, group).map(|(what, _)| what),
                Next::Damaged(_) if next.is_none() && self.plant.cuts_corrupt_tail() => {
                    scan.evidence_after(at, group).map(|(what, _)| what)
                }
                Next::Damaged(what) => Some(what),
            };
            match what {
                Some(what) => {
                    let to = scan.evidence_after(at, group).and_then(|(_, to)| to);
                    let to = to.or(next.map(|next| next.end));
                    parsed.damage = Some(Damage { offset: at, what, to });
                }
                None => parsed.remains = scan.remains(at),
            }
            break;
        }
        let short = (bytes.len() as u64) < header.length || !bytes.len().is_multiple_of(BLOCK);
        if parsed.damage.is_none() && short {
            let to = next.map(|next| next.end);
            parsed.damage = Some(Damage { offset: at, what: CUT_SHORT, to });
        }
        parsed.end = at;
        parsed.last = last.map(|(at, length)| {
            // A copy, so that it does not keep the whole segment in memory.
            (at, Bytes::copy_from_slice(&bytes[at as usize..at as usize + length]))
        });
        Ok(parsed)
    }

    /// The files that the log does not need, and which of them are spares. One that was damaged is used no more.
    fn idle(&self, ledger: &Ledger, from: SegmentNo) -> Vec<(FileName, bool)> {
        let live: BTreeSet<FileName> = ledger.segments.iter().map(|segment| segment.file).collect();
        let given_up: BTreeSet<FileName> =
            self.files.used.range(self.floor..from).map(|(_, (file, ..))| *file).collect();
        let mut wanted = self.config.spare_segments;
        let idle = self.files.lengths.iter().filter(|(file, _)| !live.contains(file));
        let sort = idle.map(|(file, length)| {
            let fits = *length == self.config.segment_bytes && !given_up.contains(file) && wanted > 0;
            wanted -= usize::from(fits);
            (*file, fits)
        });
        sort.collect()
    }

    /// The one rewrite of bytes that may have been acknowledged: equal bytes, so a tear changes nothing.
    fn heal(&self, from: SegmentNo, newest: &Parsed) -> Vec<DiskOp> {
        let file = newest.file;
        let mut ops = Vec::new();
        for (file, header, health) in self.files.used.range(from..newest.no).map(|(_, used)| *used) {
            if health == Health::Patchy {
                ops.extend([DiskOp::Write { file, offset: 0, data: header.encode() }, DiskOp::Sync { file }]);
            }
        }
        let (_, header, _) = self.files.used[&newest.no];
        if !self.plant.trusts_the_cache() {
            ops.push(DiskOp::Write { file, offset: 0, data: header.encode() });
        }
        if let Some((offset, data)) = newest.last.as_ref().filter(|_| !self.plant.trusts_the_cache()) {
            ops.push(DiskOp::Write { file, offset: *offset, data: data.clone() });
        }
        if newest.remains > 0 {
            let zeros = Bytes::from(vec![0; newest.remains as usize]);
            ops.push(DiskOp::Write { file, offset: newest.end, data: zeros });
        }
        ops.push(DiskOp::Sync { file });
        ops
    }
}

impl Parsed {
    fn floors(&self) -> impl Iterator<Item = SegmentNo> {
        let records = self.groups.iter().filter_map(|group| group::decode(group.payload.clone()).ok());
        records.flat_map(|(_, records)| records).filter_map(|record| match record {
            Record::Floor(floor) => Some(floor),
            Record::Op(_) => None,
        })
    }
}

/// The sectors of one segment.
struct Scan<'a> {
    stamper: Stamper,
    bytes: &'a Bytes,
}

impl Scan<'_> {
    fn group(&self, at: u64, group: GroupNo, before: Chain) -> Next {
        let first = match self.first_part(at, group) {
            Ok(first) => first,
            Err(next) => return next,
        };
        let count = first.count as usize;
        if count == 0 || at + padded(count) as u64 > self.bytes.len() as u64 {
            return Next::Damaged("a group reaches beyond its segment");
        }
        let mut payload = BytesMut::with_capacity(count * PAYLOAD);
        let (mut unwritten, mut damaged) = (false, false);
        for index in 0..count {
            match self.sector(at + (index * SECTOR) as u64) {
                Some(Sector::Whole(part)) if part.group > group => return Next::Damaged(LATER_GROUP),
                Some(Sector::Whole(part)) => {
                    // Another write of this place, cut before: this group's never reached it.
                    unwritten |= Part { index: index as u32, payload: part.payload, ..first } != part;
                    payload.extend_from_slice(part.payload);
                }
                Some(Sector::Unwritten) => unwritten = true,
                Some(Sector::Damaged | Sector::Later) | None => damaged = true,
            }
        }
        if unwritten {
            return Next::Unwritten;
        }
        if damaged {
            return Next::Damaged(BAD_SECTOR);
        }
        match group::unpad(payload.freeze(), count) {
            Some(payload) if first.before == before && first.after == before.then(&payload) => {
                Next::Group { payload, length: padded(count) }
            }
            Some(_) => Next::Damaged("a group belongs to another history"),
            None => Next::Damaged("the length of a group is wrong"),
        }
    }

    /// The first intact sector of the group at a place, from which the others are known.
    fn first_part(&self, at: u64, group: GroupNo) -> Result<Part<'_>, Next> {
        let mut rest = sectors(self.bytes, at).map(|(offset, bytes)| self.stamper.classify(offset, bytes));
        match rest.next() {
            Some(Sector::Whole(part)) if part.group == group => return Ok(part),
            Some(Sector::Whole(part)) if part.group > group => return Err(Next::Damaged(LATER_GROUP)),
            // The remains of a cut group.
            Some(Sector::Whole(_) | Sector::Unwritten) | None => return Err(Next::Unwritten),
            Some(Sector::Damaged | Sector::Later) => {}
        }
        let part = rest.find_map(|sector| match sector {
            Sector::Whole(part) if part.group == group => Some(part),
            _ => None,
        });
        part.ok_or(Next::Damaged(BAD_SECTOR))
    }

    /// What proves that the group at a place had been durable: a later group, or a later use of the file.
    fn evidence_after(&self, at: u64, group: GroupNo) -> Option<(&'static str, Option<Slot>)> {
        let mut rest = sectors(self.bytes, at).map(|(offset, bytes)| self.stamper.classify(offset, bytes));
        rest.find_map(|sector| match sector {
            Sector::Whole(part) if part.group > group => {
                let to = (part.index == 0).then(|| group::end_before(part.payload));
                Some((LATER_GROUP, to))
            }
            Sector::Later => Some(("a sector was written by a later segment", None)),
            _ => None,
        })
    }

    /// How many bytes after the log's end must be zeroed: whole blocks, up to the last sector with a stamp of
    /// this segment or a broken one.
    fn remains(&self, at: u64) -> u64 {
        sectors(self.bytes, at)
            .filter(|(offset, bytes)| self.stamper.is_debris(*offset, bytes))
            .last()
            .map_or(0, |(offset, _)| (offset + SECTOR as u64 - at).next_multiple_of(BLOCK as u64))
    }

    fn sector(&self, at: u64) -> Option<Sector<'_>> {
        let at = at as usize;
        self.bytes.get(at..at + SECTOR).map(|bytes| self.stamper.classify(at as u64, bytes))
    }
}

/// Gives the records their meaning, in order.
struct Replay {
    ledger: Ledger,
    entries: Vec<Entry>,
    /// The first segment that is read.
    from: SegmentNo,
    group: GroupNo,
    chain: Chain,
    replayed: Replayed,
}

impl Replay {
    fn new(first: Option<Header>, from: SegmentNo) -> Self {
        let (hard, end) = first.map_or((HardState::EMPTY, Slot::ZERO), |first| (first.hard, first.end));
        Self {
            ledger: Ledger { hard, end, segments: VecDeque::new() },
            entries: Vec::new(),
            from,
            group: first.map_or(GroupNo(1), |first| first.first),
            chain: first.map_or(Chain(0), |first| first.before),
            replayed: Replayed::default(),
        }
    }

    fn is_continued_by(&self, next: &Header) -> bool {
        (next.first, next.before, next.end, next.hard)
            == (self.group, self.chain, self.ledger.end, self.ledger.hard)
    }

    fn segment(&mut self, reader: &Reader<'_>, parsed: Parsed) -> Result<(), LogError> {
        let header = reader.header(parsed.no)?;
        let (no, file, base) = (parsed.no, parsed.file, header.end);
        let size = reader.files.lengths[&file];
        self.ledger.segments.push_back(Segment { no, file, size, used: parsed.end, base, last: base });
        self.replayed.segments += 1;
        self.replayed.bytes += parsed.end - BLOCK as u64;
        for Group { offset, payload } in parsed.groups {
            self.chain = self.chain.then(&payload);
            self.group = GroupNo(self.group.0 + 1);
            self.replayed.groups += 1;
            self.records(file, offset, payload)?;
        }
        match parsed.damage {
            Some(Damage { offset, what, to }) => Err(corrupt(file, offset, what, self.ledger.end.next(), to)),
            None => Ok(()),
        }
    }

    fn records(&mut self, file: FileName, offset: u64, payload: Bytes) -> Result<(), LogError> {
        let (end, records) = group::decode(payload).map_err(|why| match why {
            Undecodable::Unknown(kind) => LogError::UnknownRecord { file, offset, kind },
            Undecodable::Malformed => self.corrupt(file, offset, "a group cannot be decoded"),
        })?;
        if end != self.ledger.end {
            return Err(self.corrupt(file, offset, "a group does not continue the one before it"));
        }
        for record in records {
            let Record::Op(op) = record else { continue };
            self.ledger.apply(&op).map_err(|rule| self.corrupt(file, offset, rule))?;
            match op {
                LogOp::Append(entry) => self.entries.push(entry),
                LogOp::Truncate { .. } => {
                    let end = self.ledger.end;
                    self.entries.truncate(self.entries.partition_point(|entry| entry.slot <= end));
                }
                LogOp::Reset { .. } => self.entries.clear(),
                LogOp::Accepted(_) | LogOp::Promised(_) | LogOp::Committed(_) => {}
            }
        }
        Ok(())
    }

    fn corrupt(&self, file: FileName, offset: u64, what: &'static str) -> LogError {
        corrupt(file, offset, what, self.ledger.end.next(), None)
    }

    fn finish(mut self, reader: &Reader<'_>, last: &Parsed, forgotten: Vec<Forgotten>) -> Recovery {
        let mut ops = reader.heal(self.from, last);
        let tail = match last.remains {
            0 => Tail::Clean,
            length => Tail::Torn { file: last.file, offset: last.end, length },
        };
        if !forgotten.is_empty() && reader.plant.repair_forgets_promise() {
            self.ledger.hard.promised = self.ledger.hard.accepted;
        }
        let next_file = FileName(reader.files.lengths.keys().next_back().map_or(0, |file| file.0) + 1);
        let mut wal = Wal {
            config: reader.config,
            ledger: self.ledger,
            floor: reader.floor,
            group: self.group,
            chain: self.chain,
            spares: BTreeSet::new(),
            next_file,
        };
        let mut idle = reader.idle(&wal.ledger, self.from);
        wal.spares = idle.extract_if(.., |(_, spare)| *spare).map(|(file, _)| file).collect();
        // First of all, so that nobody takes a damaged file for a spare; where one is missing it is passed over as well.
        ops.extend(idle.into_iter().map(|(file, _)| DiskOp::Remove { file }));
        if self.from > reader.floor {
            wal.raise_floor(self.from, &mut ops);
        }
        Recovery {
            hard: wal.ledger.hard,
            trimmed: wal.ledger.trimmed(),
            entries: self.entries,
            tail,
            ops,
            replayed: self.replayed,
            forgotten,
            wal,
        }
    }
}

fn corrupt(file: FileName, offset: u64, what: &'static str, from: Slot, to: Option<Slot>) -> LogError {
    LogError::Corrupt { file, offset, what, slots: SlotRange { from, to } }
}

fn sectors(bytes: &[u8], from: u64) -> impl Iterator<Item = (u64, &[u8])> {
    let rest = bytes.get(from as usize..).unwrap_or_default();
    rest.chunks_exact(SECTOR).enumerate().map(move |(index, sector)| (from + (index * SECTOR) as u64, sector))
}

fn read(disk: &dyn DiskRead, file: FileName, offset: u64, length: usize) -> Result<Bytes, LogError> {
    let mut bytes = vec![0; length];
    disk.read(file, offset, &mut bytes).map_err(|source| LogError::Read { what: "read", file, source })?;
    Ok(bytes.into())
}

fn read_all(disk: &dyn DiskRead, file: FileName, length: u64) -> Result<Bytes, LogError> {
    let length = usize::try_from(length).expect("a segment fits into memory");
    read(disk, file, 0, length)
}
