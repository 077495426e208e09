//! The log after crashes and damage: recovery gives what was acknowledged, or refuses.
//!
//! It may give less only where what is missing looks as if it had never been written, and nothing that was written after
//! it is left: a disk that has lost its last writes cannot be told from one that never got them (`pharos-log`).

use crate::chance::Chance;
use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use pharos_log::mem::MemDisk;
use pharos_log::{BLOCK, DiskOp, DiskRead, FileName, Recovery, SECTOR, Wal, WalConfig};
use pharos_paxos::{Ballot, ConfigNo, Entry, EntryKind, HardState, LogOp, MemberId, Slot};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

const CONFIG: WalConfig = WalConfig { segment_bytes: 16 << 10, spare_segments: 1, identity: [7; 16] };
const MAX_GROUPS: usize = 24;
const WORD: usize = 8;

pub(crate) fn run(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let mut history = History::new();
    let Ok(damages) = history.live(&mut u).and_then(|()| Damage::some(&mut u)) else { return };
    let Ok(mut image) = history.stop(&mut u) else { return };
    let before = image.clone();
    damages.iter().for_each(|damage| damage.inflict(&mut image, &history.earlier));
    let stored = Slot(u.int_in_range(0..=history.now().hard.committed.0).unwrap_or(0));
    let above = Wal::recover_above(CONFIG, &image, stored);
    match Wal::recover(CONFIG, &image) {
        Ok(recovery) => {
            history.check(&recovery, &image);
            goes_on(recovery, image, damages.is_empty());
        }
        Err(error) => {
            assert_ne!(before, image, "an undamaged log is refused: {error}");
            if let Ok(recovery) = above {
                let upto = recovery.forgotten.iter().map(|forgotten| forgotten.upto).max();
                assert!(upto <= Some(stored), "a log begins after slots that nobody has");
                history.check(&recovery, &image);
            }
        }
    }
}

/// What a log should hold.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    hard: HardState,
    entries: Vec<Entry>,
    /// Where the last reset put the end.
    base: Slot,
}

impl Held {
    fn end(&self) -> Slot {
        self.entries.last().map_or(self.base, |entry| entry.slot)
    }

    fn apply(&mut self, op: &LogOp) {
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

    /// Whether that is it, but for entries that were trimmed.
    fn is(&self, recovery: &Recovery) -> bool {
        let kept = self.entries.iter().filter(|entry| entry.slot > recovery.trimmed);
        self.hard == recovery.hard && kept.eq(&recovery.entries) && recovery.wal.last_slot() == self.end()
    }
}

/// A group as it was written.
struct Group {
    file: FileName,
    offset: u64,
    data: Bytes,
}

/// The life of a log on a disk that has kept everything that was synced.
struct History {
    wal: Wal,
    disk: MemDisk,
    /// All groups that were acknowledged, in their order.
    groups: Vec<Group>,
    /// What the log held before the first group and after each.
    held: Vec<Held>,
    /// What it holds with the group that was under way when the machine stopped.
    under_way: Option<Held>,
    /// The first blocks of the files when all was acknowledged.
    headers: BTreeMap<FileName, Vec<u8>>,
    /// Both ends of all sectors that were ever written, by the sector's place in its file.
    words: BTreeSet<(u64, [u8; WORD])>,
    /// The disk at an earlier time.
    earlier: Image,
}

impl History {
    fn new() -> Self {
        let (wal, ops) = Wal::format(CONFIG);
        let mut disk = MemDisk::new();
        disk.execute(&ops).expect("a disk in memory takes what a log writes");
        let held = Held { hard: HardState::EMPTY, entries: Vec::new(), base: Slot::ZERO };
        Self {
            wal,
            earlier: Image::of(&disk),
            disk,
            groups: Vec::new(),
            held: vec![held],
            under_way: None,
            headers: BTreeMap::new(),
            words: BTreeSet::new(),
        }
    }

    /// Appends, trims and restarts.
    fn live(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let count = u.int_in_range(1..=MAX_GROUPS)?;
        for _ in 0..count {
            match u.int_in_range(0..=11)? {
                0 => self.restart(),
                1 => self.earlier = Image::of(&self.disk),
                2 => {
                    let committed = self.now().hard.committed;
                    let upto = Slot(u.int_in_range(0..=committed.0)?);
                    let mut out = Vec::new();
                    self.wal.trim(upto, &mut out);
                    self.acknowledge(&out);
                }
                _ => {
                    let (ops, held) = self.group(u)?;
                    let mut out = Vec::new();
                    self.wal.append(&ops, &mut out);
                    self.acknowledge(&out);
                    *self.held.last_mut().expect("what it holds now") = held;
                }
            }
            if let Some(op) = self.wal.wanted_spare() {
                self.disk.execute_one(&op).expect("a disk in memory has room");
                self.wal.add_spare(&op);
            }
        }
        Ok(())
    }

    fn now(&self) -> &Held {
        self.held.last().expect("what it holds now")
    }

    /// A group that the log allows: as a leader change, a batch, a hint or a state that is installed would write.
    fn group(&self, u: &mut Unstructured<'_>) -> Result<(Vec<LogOp>, Held)> {
        let mut held = self.now().clone();
        let mut ops = Vec::new();
        let mut push = |op: LogOp, held: &mut Held| {
            held.apply(&op);
            ops.push(op);
        };
        let kinds: u8 = u.arbitrary()?;
        let mut round = held.hard.promised.round;
        if kinds & 3 == 1 {
            round += 1;
            push(LogOp::Promised(ballot(round)), &mut held);
        }
        let keep = held.hard.committed.max(self.wal.first_slot()).0;
        if kinds & 0xc == 4 && held.end().0 > keep {
            push(LogOp::Truncate { from: Slot(u.int_in_range(keep + 1..=held.end().0)?) }, &mut held);
            push(LogOp::Accepted(ballot(round)), &mut held);
        }
        if kinds & 0xf0 == 0x10 {
            push(LogOp::Reset { after: Slot(held.end().0 + u.int_in_range(0..=9)?) }, &mut held);
        }
        for _ in 0..u.int_in_range(0..=3)? {
            let length = *u.choose(&[0, 1, 100, 400, 3_000, 4_100, 9_000, 20_000])?;
            let slot = held.end().next();
            let payload = Bytes::from(vec![slot.0 as u8 ^ round as u8 | 1; length]);
            push(
                LogOp::Append(Entry { slot, ballot: ballot(round), kind: EntryKind::Commands, payload }),
                &mut held,
            );
        }
        if ops.is_empty() || kinds & 0x40 != 0 {
            let committed =
                u.int_in_range(held.hard.committed.0..=held.end().0.max(held.hard.committed.0))?;
            let op = LogOp::Committed(Slot(committed));
            held.apply(&op);
            ops.push(op);
        }
        Ok((ops, held))
    }

    /// The operations are carried out, and whoever waits for them is told.
    fn acknowledge(&mut self, ops: &[DiskOp]) {
        self.disk.execute(ops).expect("a disk in memory takes what a log writes");
        for op in ops {
            let DiskOp::Write { file, offset, data } = op else { continue };
            self.remember(*offset, data);
            if *offset > 0 {
                self.groups.push(Group { file: *file, offset: *offset, data: data.clone() });
                self.held.push(self.now().clone());
            }
        }
    }

    fn remember(&mut self, offset: u64, data: &[u8]) {
        for (sector, place) in data.chunks(SECTOR).zip(offset / SECTOR as u64..) {
            self.words.extend(ends(sector).map(|word| (place, word)));
        }
    }

    fn restart(&mut self) {
        let recovery = Wal::recover(CONFIG, &self.disk).expect("an intact log");
        assert!(self.now().is(&recovery), "an intact log is read back");
        self.disk.execute(&recovery.ops).expect("a disk in memory takes what recovery writes");
        self.wal = recovery.wal;
    }

    /// The machine stops, perhaps while it writes one more group.
    fn stop(&mut self, u: &mut Unstructured<'_>) -> Result<Image> {
        let image = Image::of(&self.disk);
        self.headers = image.0.iter().map(|(file, bytes)| (*file, bytes[..BLOCK].to_vec())).collect();
        // What the log has given up is no loss.
        let is_there =
            |group: &Group| image.slice(group.file, group.offset, group.data.len()) == Some(&group.data[..]);
        let dead = self.groups.iter().rposition(|group| !is_there(group)).map_or(0, |last| last + 1);
        self.groups.drain(..dead);
        self.held.drain(..dead);
        if u.arbitrary()? {
            let (ops, held) = self.group(u)?;
            let mut out = Vec::new();
            self.wal.append(&ops, &mut out);
            let done = u.choose_index(out.len())?;
            let mut chance = Chance::new(u.arbitrary()?);
            self.disk.execute(&out[..done]).expect("a disk in memory takes what a log writes");
            self.disk.crash_in(&out[done], &mut || chance.next()).expect("the operation was valid");
            self.under_way = Some(held);
        }
        Ok(Image::of(&self.disk))
    }

    fn check(&self, recovery: &Recovery, image: &Image) {
        if self.under_way.as_ref().is_some_and(|held| held.is(recovery)) {
            return;
        }
        let known = self.held.iter().rposition(|held| held.is(recovery));
        let read = known.expect("what was read back was acknowledged, or was being written");
        let Some(cut) = self.groups.get(read) else { return };
        for later in self.groups[read..].iter().filter(|group| self.is_found(group, image)) {
            assert!(!self.is_intact(later, image), "a group was cut that is there: {}", later.place());
        }
        assert!(self.looks_unwritten(cut, image), "a damaged group was cut: {}", cut.place());
    }

    /// Whether recovery has to come across the group: the header of its segment is there, or the segment's first group.
    fn is_found(&self, group: &Group, image: &Image) -> bool {
        let header = self.headers.get(&group.file).expect("a file with groups");
        let mut copies = image.0.values().flat_map(|bytes| bytes.chunks(SECTOR).take(BLOCK / SECTOR));
        group.offset == BLOCK as u64
            || copies.any(|copy| header.chunks(SECTOR).any(|written| written == copy))
    }

    /// Whether its sectors are all there, in any file.
    fn is_intact(&self, group: &Group, image: &Image) -> bool {
        image.0.keys().any(|file| {
            let found = image.slice(*file, group.offset, group.data.len());
            found.is_some_and(|found| {
                let mut sectors = group.data.chunks(SECTOR).zip(found.chunks(SECTOR));
                sectors.all(|(written, found)| written == found || written.iter().all(|byte| *byte == 0))
            })
        })
    }

    /// Whether one of its sectors, or all copies of its segment's header, can pass for never written.
    fn looks_unwritten(&self, group: &Group, image: &Image) -> bool {
        let header = self.headers.get(&group.file).expect("a file with groups");
        // The file may have another name by now.
        let files = image.0.iter().filter(|(_, bytes)| {
            let copies = bytes.chunks(SECTOR).take(BLOCK / SECTOR);
            copies.zip(header.chunks(SECTOR)).any(|(found, written)| found == written)
        });
        files.map(|(file, _)| *file).all(|file| {
            let Some(found) = image.slice(file, group.offset, group.data.len()) else { return true };
            let mut sectors = group.data.chunks(SECTOR).zip(found.chunks(SECTOR));
            let mut places = group.offset / SECTOR as u64..;
            sectors.any(|(written, found)| {
                let place = places.next().expect("without end");
                let old = |word: [u8; WORD]| word == [0; WORD] || self.words.contains(&(place, word));
                ends(written)
                    .into_iter()
                    .zip(ends(found))
                    .any(|(before, after)| before != after && old(after))
            })
        })
    }
}

impl Group {
    fn place(&self) -> String {
        format!("{} at {}", self.file, self.offset)
    }
}

fn ends(sector: &[u8]) -> [[u8; WORD]; 2] {
    [&sector[..WORD], &sector[SECTOR - WORD..]].map(|word| word.try_into().expect("a word"))
}

fn ballot(round: u64) -> Ballot {
    Ballot { config: ConfigNo(1), round, member: MemberId(3) }
}

/// What was read can be read again, and the log goes on from there. What a misdirected write left in a spare is met only when
/// the spare is used, and may be taken for damage then.
fn goes_on(recovery: Recovery, mut image: Image, intact: bool) {
    image.execute(&recovery.ops);
    let again = Wal::recover(CONFIG, &image).expect("what recovery leaves is a log");
    let read = |recovery: &Recovery| (recovery.hard, recovery.trimmed, recovery.entries.clone());
    assert_eq!(read(&again), read(&recovery), "recovery can be repeated");
    let (mut wal, mut out) = (recovery.wal, Vec::new());
    let slot = wal.last_slot().next();
    let entry =
        Entry { slot, ballot: ballot(1), kind: EntryKind::Commands, payload: Bytes::from_static(b"more") };
    wal.append(&[LogOp::Append(entry.clone())], &mut out);
    image.execute(&out);
    let longer = match Wal::recover(CONFIG, &image) {
        Err(_) if !intact => return,
        longer => longer.expect("a log goes on after recovery"),
    };
    assert_eq!(longer.entries.last(), Some(&entry));
    assert_eq!(longer.entries.len(), recovery.entries.len() + 1);
}

/// The bytes of the log's files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Image(BTreeMap<FileName, Vec<u8>>);

impl Image {
    fn of(disk: &MemDisk) -> Self {
        let read = |file| {
            let mut bytes = vec![0; disk.len(file)? as usize];
            disk.read(file, 0, &mut bytes)?;
            Ok((file, bytes))
        };
        let files = disk.list().and_then(|files| files.into_iter().map(read).collect::<io::Result<_>>());
        Self(files.expect("a disk in memory can be read"))
    }

    fn slice(&self, file: FileName, offset: u64, length: usize) -> Option<&[u8]> {
        self.0.get(&file)?.get(offset as usize..offset as usize + length)
    }

    fn execute(&mut self, ops: &[DiskOp]) {
        for op in ops {
            match op {
                DiskOp::Create { file, size } => drop(self.0.insert(*file, vec![0; *size as usize])),
                DiskOp::Write { file, offset, data } => {
                    let bytes = self.0.get_mut(file).expect("a file that is there");
                    bytes[*offset as usize..*offset as usize + data.len()].copy_from_slice(data);
                }
                DiskOp::Sync { .. } => {}
                DiskOp::Remove { file } => drop(self.0.remove(file).expect("a file that is there")),
            }
        }
    }
}

impl DiskRead for Image {
    fn list(&self) -> io::Result<Vec<FileName>> {
        Ok(self.0.keys().copied().collect())
    }

    fn len(&self, file: FileName) -> io::Result<u64> {
        Ok(self.0.get(&file).ok_or(io::ErrorKind::NotFound)?.len() as u64)
    }

    fn read(&self, file: FileName, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        buf.copy_from_slice(self.slice(file, offset, buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// What befalls the files; each number is taken modulo what there is.
#[derive(Debug)]
enum Damage {
    Flipped { file: u8, bit: u32 },
    Written { file: u8, at: u32, bytes: Vec<u8> },
    Zeroed { file: u8, sector: u8, sectors: u8 },
    Copied { from: (u8, u8), to: (u8, u8), sectors: u8 },
    Outdated { file: u8, sector: u8, sectors: u8 },
    Cut { file: u8, sector: u8, odd: u16 },
    Lost { file: u8 },
    Swapped { file: u8, other: u8 },
    Doubled { file: u8 },
}

impl Damage {
    fn some(u: &mut Unstructured<'_>) -> Result<Vec<Self>> {
        (0..u.int_in_range(0..=3)?).map(|_| Self::new(u)).collect()
    }

    fn new(u: &mut Unstructured<'_>) -> Result<Self> {
        let file = u.arbitrary()?;
        let (sector, sectors) = (u.arbitrary()?, *u.choose(&[1, 2, 8, 8, 16])?);
        Ok(match u.int_in_range(0..=8)? {
            0 => Self::Flipped { file, bit: u.arbitrary()? },
            1 => {
                let length = u.int_in_range(1..=24)?.min(u.len());
                Self::Written { file, at: u.arbitrary()?, bytes: u.bytes(length)?.to_vec() }
            }
            2 => Self::Zeroed { file, sector, sectors },
            3 => Self::Copied { from: (file, sector), to: (u.arbitrary()?, u.arbitrary()?), sectors },
            4 => Self::Outdated { file, sector, sectors },
            5 => Self::Cut { file, sector, odd: u.arbitrary()? },
            6 => Self::Lost { file },
            7 => Self::Swapped { file, other: u.arbitrary()? },
            _ => Self::Doubled { file },
        })
    }

    fn inflict(&self, image: &mut Image, earlier: &Image) {
        let names: Vec<_> = image.0.keys().copied().collect();
        let Some(last) = names.last() else { return };
        let name = |number: u8| names[usize::from(number) % names.len()];
        match self {
            Self::Flipped { file, bit } => {
                let bytes = image.0.get_mut(&name(*file)).expect("listed");
                if !bytes.is_empty() {
                    let bit = *bit as usize % (bytes.len() * 8);
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
            }
            Self::Written { file, at, bytes } => {
                let file = image.0.get_mut(&name(*file)).expect("listed");
                let at = *at as usize % (file.len() + 1);
                file.iter_mut().skip(at).zip(bytes).for_each(|(old, new)| *old = *new);
            }
            Self::Zeroed { file, sector, sectors } => {
                place(image, name(*file), *sector, *sectors).fill(0);
            }
            Self::Copied { from, to, sectors } => {
                let data = place(image, name(from.0), from.1, *sectors).to_vec();
                let target = place(image, name(to.0), to.1, *sectors);
                target.iter_mut().zip(data).for_each(|(old, new)| *old = new);
            }
            Self::Outdated { file, sector, sectors } => {
                let file = name(*file);
                let target = place(image, file, *sector, *sectors);
                let from = target.len();
                let old = earlier.0.get(&file).map(Vec::as_slice).unwrap_or_default();
                let start = usize::from(*sector) % sectors_of(old).max(1) * SECTOR;
                let old = old.get(start..).unwrap_or_default();
                if old.len() >= from {
                    target.copy_from_slice(&old[..from]);
                }
            }
            Self::Cut { file, sector, odd } => {
                let bytes = image.0.get_mut(&name(*file)).expect("listed");
                let sectors = sectors_of(bytes).max(1);
                bytes.truncate(usize::from(*sector) % sectors * SECTOR + usize::from(*odd) % SECTOR);
            }
            Self::Lost { file } => drop(image.0.remove(&name(*file))),
            Self::Swapped { file, other } => {
                let (file, other) = (name(*file), name(*other));
                let (left, right) = (image.0[&file].clone(), image.0[&other].clone());
                image.0.extend([(file, right), (other, left)]);
            }
            Self::Doubled { file } => {
                let copy = image.0[&name(*file)].clone();
                image.0.insert(FileName(last.0 + 1), copy);
            }
        }
    }
}

fn sectors_of(bytes: &[u8]) -> usize {
    bytes.len() / SECTOR
}

/// Some sectors of a file, as many as there are.
fn place(image: &mut Image, file: FileName, sector: u8, sectors: u8) -> &mut [u8] {
    let bytes = image.0.get_mut(&file).expect("listed");
    let count = sectors_of(bytes);
    let start = if count == 0 { 0 } else { usize::from(sector) % count };
    let end = count.min(start + usize::from(sectors));
    &mut bytes[start * SECTOR..end * SECTOR]
}
