//! A disk in memory that forgets as a real one may: what was not synced survives a crash sector by sector, by
//! chance. For tests and the simulator.
//!
//! A sector that was being written is, after the crash, the old one, the new one, or torn once at a word of
//! eight bytes, from either side; on a disk that writes blocks of 4 KiB, each of them is the old or the new one. After a sync that failed, sectors may be on no disk and yet be read, from a
//! cache that holds them for clean, until the machine stops: the worst reader that recovery must stand.

use crate::disk::{BLOCK, DiskOp, DiskRead, FileName, SECTOR};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;

const WORD: usize = 8;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct MemDisk {
    files: BTreeMap<FileName, File>,
    /// Blocks are written whole or not at all.
    whole_blocks: bool,
    /// Where the last groups lie, of which the later one need not be durable: the last two writes behind a file's first
    /// block that say anything.
    last: VecDeque<(FileName, Range<usize>)>,
}

/// What a fault of the medium does to a block, long after it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rot {
    /// A bit of it is another one.
    Flipped,
    /// It never got there.
    Lost,
    /// It got to where another one was.
    Misdirected,
}

#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    /// By sector number: what was written and not synced.
    unsynced: BTreeMap<usize, [u8; SECTOR]>,
    /// By sector number: what is read, but on no disk and no longer to be written to it.
    believed: BTreeMap<usize, [u8; SECTOR]>,
}

/// What a crash did to the sectors that were not synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crash {
    /// Sectors that survived.
    pub kept: usize,
    /// Sectors that are as before the write.
    pub lost: usize,
    /// Sectors that are part new, part old.
    pub torn: usize,
}

impl MemDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From here on it writes blocks of 4 KiB whole or not at all.
    pub fn write_whole_blocks(&mut self) {
        self.whole_blocks = true;
    }

    /// Executes the operations in order.
    pub fn execute(&mut self, ops: &[DiskOp]) -> io::Result<()> {
        ops.iter().try_for_each(|op| self.execute_one(op))
    }

    /// Executes one operation.
    pub fn execute_one(&mut self, op: &DiskOp) -> io::Result<()> {
        match op {
            DiskOp::Create { file, size } => {
                self.files.insert(*file, File { durable: vec![0; *size as usize], ..File::default() });
            }
            DiskOp::Write { file, offset, data } => {
                let offset = *offset as usize;
                self.file_mut(*file)?.write(offset, data)?;
                if offset >= BLOCK && data.iter().any(|byte| *byte != 0) {
                    let place = (*file, offset..offset + data.len());
                    self.last.retain(|other| *other != place);
                    self.last.push_back(place);
                    if self.last.len() > 2 {
                        self.last.pop_front();
                    }
                }
            }
            DiskOp::Sync { file } => self.file_mut(*file)?.sync(),
            DiskOp::Remove { file } => {
                self.files.remove(file).ok_or_else(not_found)?;
            }
        }
        Ok(())
    }

    /// The machine stops: of what was not synced an arbitrary part survives.
    pub fn crash(&mut self, rng: &mut dyn FnMut() -> u64) -> Crash {
        let mut crash = Crash::default();
        for file in self.files.values_mut() {
            if self.whole_blocks {
                file.crash_by_block(rng, &mut crash);
            } else {
                file.crash(rng, &mut crash);
            }
        }
        crash
    }

    /// The machine stops in the middle of an operation, which may have had any part of its effect.
    pub fn crash_in(&mut self, op: &DiskOp, rng: &mut dyn FnMut() -> u64) -> io::Result<Crash> {
        match op {
            DiskOp::Create { file, size } => {
                let size = rng() % (size + 1);
                self.execute_one(&DiskOp::Create { file: *file, size })?;
            }
            DiskOp::Write { .. } => self.execute_one(op)?,
            DiskOp::Sync { .. } => {}
            DiskOp::Remove { .. } => {
                if rng().is_multiple_of(2) {
                    self.execute_one(op)?;
                }
            }
        }
        Ok(self.crash(rng))
    }

    /// A sync of the file fails: an arbitrary part of what was written gets to the disk, and the cache takes
    /// all of it for clean. The process must end; the machine goes on.
    pub fn fail_sync(&mut self, file: FileName, rng: &mut dyn FnMut() -> u64) -> io::Result<()> {
        let file = self.file_mut(file)?;
        let nothing_arrives = rng().is_multiple_of(4);
        for (no, sector) in std::mem::take(&mut file.unsynced) {
            if !nothing_arrives && rng().is_multiple_of(2) {
                file.durable[no * SECTOR..(no + 1) * SECTOR].copy_from_slice(&sector);
            } else {
                file.believed.insert(no, sector);
            }
        }
        Ok(())
    }

    /// How many sectors are not synced.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.files.values().map(|file| file.unsynced.len()).sum()
    }

    /// Damages one bit of what is durable: a fault of the medium.
    pub fn flip(&mut self, file: FileName, bit: usize) -> io::Result<()> {
        let file = self.file_mut(file)?;
        *file.durable.get_mut(bit / 8).ok_or_else(out_of_range)? ^= 1 << (bit % 8);
        Ok(())
    }

    /// Something happens to a durable block. It may be the last group's if the damage shows; a disk that loses the last
    /// thing it was told to keep cannot be told from one that was never told. False if there is no such block.
    pub fn rot(&mut self, rot: Rot, rng: &mut dyn FnMut() -> u64) -> io::Result<bool> {
        let spared = |file: FileName, at: usize| {
            rot != Rot::Flipped && self.last.iter().any(|(of, range)| *of == file && range.contains(&at))
        };
        let mut blocks = Vec::new();
        for (name, file) in &self.files {
            let written = file.durable.chunks_exact(BLOCK).enumerate();
            let written = written.filter(|(_, block)| block.iter().any(|byte| *byte != 0));
            let places = written.map(|(no, _)| no * BLOCK).filter(|at| !spared(*name, *at));
            // A header is repeated, so that losing one copy is nothing; and it is written before a group is.
            blocks.extend(places.filter(|at| *at > 0).map(|at| (*name, at)));
        }
        let mut some = || (!blocks.is_empty()).then(|| blocks[(rng() % blocks.len() as u64) as usize]);
        let (Some((file, at)), Some(to)) = (some(), some()) else { return Ok(false) };
        match rot {
            Rot::Flipped => {
                let bytes = &self.file_mut(file)?.durable[at..at + BLOCK];
                let used = SECTOR * bytes.chunks(SECTOR).take_while(|sector| sector[0] != 0).count();
                self.flip(file, at * 8 + (rng() % (8 * used.max(SECTOR) as u64)) as usize)?;
            }
            Rot::Lost => self.file_mut(file)?.durable[at..at + BLOCK].fill(0),
            Rot::Misdirected => {
                let block = self.file_mut(file)?.durable[at..at + BLOCK].to_vec();
                self.file_mut(file)?.durable[at..at + BLOCK].fill(0);
                self.file_mut(to.0)?.durable[to.1..to.1 + BLOCK].copy_from_slice(&block);
            }
        }
        Ok(true)
    }

    fn file_mut(&mut self, file: FileName) -> io::Result<&mut File> {
        self.files.get_mut(&file).ok_or_else(not_found)
    }
}

impl DiskRead for MemDisk {
    fn list(&self) -> io::Result<Vec<FileName>> {
        Ok(self.files.keys().copied().collect())
    }

    fn len(&self, file: FileName) -> io::Result<u64> {
        self.files.get(&file).map(|file| file.durable.len() as u64).ok_or_else(not_found)
    }

    fn read(&self, file: FileName, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let file = self.files.get(&file).ok_or_else(not_found)?;
        let (from, to) = (offset as usize, offset as usize + buf.len());
        buf.copy_from_slice(file.durable.get(from..to).ok_or_else(out_of_range)?);
        let range = from / SECTOR..to.div_ceil(SECTOR);
        for (no, sector) in file.believed.range(range.clone()).chain(file.unsynced.range(range)) {
            for (at, byte) in (no * SECTOR..).zip(sector).filter(|(at, _)| (from..to).contains(at)) {
                buf[at - from] = *byte;
            }
        }
        Ok(())
    }
}

impl File {
    fn write(&mut self, offset: usize, data: &[u8]) -> io::Result<()> {
        let aligned = offset.is_multiple_of(SECTOR) && data.len().is_multiple_of(SECTOR);
        if !aligned || offset + data.len() > self.durable.len() {
            return Err(out_of_range());
        }
        for (no, sector) in (offset / SECTOR..).zip(data.chunks(SECTOR)) {
            self.believed.remove(&no);
            self.unsynced.insert(no, sector.try_into().expect("a chunk of sector length"));
        }
        Ok(())
    }

    fn sync(&mut self) {
        for (no, sector) in std::mem::take(&mut self.unsynced) {
            self.durable[no * SECTOR..(no + 1) * SECTOR].copy_from_slice(&sector);
        }
    }

    fn crash_by_block(&mut self, rng: &mut dyn FnMut() -> u64, crash: &mut Crash) {
        self.believed.clear();
        let per_block = BLOCK / SECTOR;
        let mut fate = (usize::MAX, false);
        for (no, sector) in std::mem::take(&mut self.unsynced) {
            if fate.0 != no / per_block {
                fate = (no / per_block, rng().is_multiple_of(2));
            }
            if fate.1 {
                self.durable[no * SECTOR..(no + 1) * SECTOR].copy_from_slice(&sector);
                crash.kept += 1;
            } else {
                crash.lost += 1;
            }
        }
    }

    fn crash(&mut self, rng: &mut dyn FnMut() -> u64, crash: &mut Crash) {
        self.believed.clear();
        // Now and then all or nothing, else sector by sector.
        let mood = rng() % 8;
        for (no, sector) in std::mem::take(&mut self.unsynced) {
            let old = &mut self.durable[no * SECTOR..(no + 1) * SECTOR];
            let dice = rng();
            match if mood < 2 { mood } else { dice % 5 } {
                0 | 2 => {
                    old.copy_from_slice(&sector);
                    crash.kept += 1;
                }
                1 | 3 => crash.lost += 1,
                _ => {
                    let at = WORD * (1 + (dice >> 8) as usize % (SECTOR / WORD - 1));
                    let new = if (dice >> 32).is_multiple_of(2) { 0..at } else { at..SECTOR };
                    old[new.clone()].copy_from_slice(&sector[new]);
                    crash.torn += 1;
                }
            }
        }
    }
}

fn not_found() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no such file")
}

fn out_of_range() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not whole sectors within the file")
}
