//! What is in a sorted file: entries by key, and after them lists of the keys by time.
//!
//! Owns: the names of files, where in the database entries and lists stand, reading and writing them.
//! Must not know: what entries hold, what the times are, where files are kept.
//! Invariant: entries come in the order of hashes and keys, those of a list in that of times, hashes and keys; none is
//! taken for another, whatever the key.

use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pharos_window::Timestamp;
use rocksdb::{DB, DBPinnableSlice, DBRawIterator, Options, ReadOptions, SstFileWriter};
use serde::{Deserialize, Serialize};

use super::{Run, Share, SpillError, failed};
use crate::key::{KeyGroup, KeyHash};

/// A file is closed when it has this many bytes: it is read whole when a checkpoint keeps it.
const FILE_BYTES: u64 = 16 << 20;
/// Or when its lists take a quarter of the memory for state, and not less than this: they are in memory until then.
pub(super) const LIST_BYTES: usize = 256 << 10;

/// The name of a file: no other of the run has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct RunId {
    /// The generation of the attempt that wrote it.
    pub generation: u64,
    /// The thread, of those of all workers.
    pub thread: u32,
    /// The grouping.
    pub node: u32,
    /// Which of theirs.
    pub number: u32,
}

/// What keys in a file start with.
const PREFIX: usize = 20;
/// What lists start with, after the highest of hashes: no key begins with such a byte.
const FIRST_LIST: u8 = 0xF0;
/// Where the time of a list's entry stands, and where the hash of its key does.
const LISTED_TIME: usize = PREFIX + 9;
const LISTED_HASH: usize = LISTED_TIME + 8;

/// A list of keys by time, which a file has beside its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    /// When each is to be looked at.
    Timers = 0,
    /// What each holds back.
    Holds = 1,
}

/// Bytes whose order is that of times.
fn time_bytes(at: Timestamp) -> [u8; 8] {
    (at.micros() ^ i64::MIN).to_be_bytes()
}

fn time_of(bytes: [u8; 8]) -> Timestamp {
    Timestamp::from_micros(i64::from_be_bytes(bytes) ^ i64::MIN)
}

impl RunId {
    fn prefix(self) -> [u8; PREFIX] {
        let mut prefix = [0; PREFIX];
        prefix[..8].copy_from_slice(&self.generation.to_be_bytes());
        prefix[8..12].copy_from_slice(&self.thread.to_be_bytes());
        prefix[12..16].copy_from_slice(&self.node.to_be_bytes());
        prefix[16..].copy_from_slice(&self.number.to_be_bytes());
        prefix
    }

    /// Where its keys from a hash on begin, or where all of them end and its lists begin.
    pub(super) fn place(self, hash: Option<KeyHash>) -> Vec<u8> {
        match hash {
            Some(hash) => [&self.prefix()[..], &hash.0.to_be_bytes()].concat(),
            // The bytes of a key start with a tag, and no tag is as high as this.
            None => [&self.prefix()[..], &[0xFF; 8], &[FIRST_LIST]].concat(),
        }
    }

    /// Where a list goes on from a time, or where it ends.
    fn listed(self, list: List, from: Option<Timestamp>) -> Vec<u8> {
        let list = FIRST_LIST + list as u8;
        match from {
            Some(at) => [&self.prefix()[..], &[0xFF; 8], &[list], &time_bytes(at)].concat(),
            None => [&self.prefix()[..], &[0xFF; 8], &[list + 1]].concat(),
        }
    }

    /// Where everything of it ends.
    pub(super) fn end(self) -> Vec<u8> {
        [&self.prefix()[..], &[0xFF; 9]].concat()
    }

    pub(super) fn file(self) -> String {
        let Self { generation, thread, node, number } = self;
        format!("{generation}-{thread}-{node}-{number}{RUN}")
    }
}

/// What the names of files end with.
pub(super) const RUN: &str = ".run";

/// A file and the key groups for which it counts.
#[derive(Debug, Clone)]
pub(crate) struct Scoped {
    /// The file.
    pub run: Arc<Run>,
    /// The key groups.
    pub groups: Range<u32>,
    /// Whether it holds anything that came since the last pane.
    pub fresh: bool,
}

impl Scoped {
    /// A reader, at the first entry.
    #[must_use]
    pub(crate) fn read<'db>(&self, db: &'db DB) -> RunReader<'db> {
        let id = self.run.id;
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(id.place(KeyGroup::first_hash(self.groups.start)));
        options.set_iterate_upper_bound(id.place(KeyGroup::first_hash(self.groups.end)));
        let mut entries = db.raw_iterator_opt(options);
        entries.seek_to_first();
        RunReader { entries, id }
    }

    /// What it holds of a key whose hash is `hash`, if anything.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn get<'db>(
        &self,
        db: &'db DB,
        hash: KeyHash,
        key: &[u8],
    ) -> Result<Option<DBPinnableSlice<'db>>, SpillError> {
        if !self.groups.contains(&hash.group().number()) {
            return Ok(None);
        }
        let place = [&self.run.id.place(Some(hash)), key].concat();
        db.get_pinned(place).map_err(|error| self.damaged(error))
    }

    /// The hashes of its first key and its last, of any key group; none: it has none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn hashes(&self, db: &DB) -> Result<Option<RangeInclusive<KeyHash>>, SpillError> {
        let mut reader = Self { groups: 0..KeyGroup::COUNT, ..self.clone() }.read(db);
        let Some(first) = reader.key()?.map(|(hash, _)| hash) else { return Ok(None) };
        reader.entries.seek_to_last();
        Ok(reader.key()?.map(|(last, _)| first..=last))
    }

    /// One of its lists, from the first entry whose time is not before `from`.
    #[must_use]
    pub(crate) fn list<'db>(&self, db: &'db DB, list: List, from: Timestamp) -> ListReader<'db> {
        let id = self.run.id;
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(id.listed(list, Some(from)));
        options.set_iterate_upper_bound(id.listed(list, None));
        let mut entries = db.raw_iterator_opt(options);
        entries.seek_to_first();
        ListReader { entries: RunReader { entries, id }, list, groups: self.groups.clone() }
    }

    /// An error about what an entry holds.
    pub(crate) fn damaged(&self, why: impl std::fmt::Display) -> SpillError {
        damaged(self.run.id, why)
    }
}

/// An entry of a list: its time, and the hash and the bytes of its key.
pub(crate) type Listed<'a> = (Timestamp, KeyHash, &'a [u8]);

/// Reads a list of keys in the order of their times.
pub(crate) struct ListReader<'db> {
    entries: RunReader<'db>,
    list: List,
    groups: Range<u32>,
}

impl ListReader<'_> {
    /// The entry at which it is, if it is not at the end.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn entry(&mut self) -> Result<Option<Listed<'_>>, SpillError> {
        loop {
            let Some(place) = self.entries.place()? else { return Ok(None) };
            let hash = place.get(LISTED_HASH..).and_then(<[u8]>::first_chunk::<8>);
            let hash = hash.ok_or_else(|| self.entries.damaged("an entry of a list is too short"))?;
            let hash = KeyHash(u64::from_be_bytes(*hash));
            if self.groups.contains(&hash.group().number()) {
                break;
            }
            self.step();
        }
        // The borrow checker does not see that the place is still the same.
        let place = self.entries.place()?.expect("it was just there");
        let (time, rest) = place[LISTED_TIME..].split_first_chunk::<8>().expect("it is long enough");
        let (hash, key) = rest.split_first_chunk::<8>().expect("it is long enough");
        Ok(Some((time_of(*time), KeyHash(u64::from_be_bytes(*hash)), key)))
    }

    /// Goes to the next entry.
    pub(crate) fn step(&mut self) {
        self.entries.step();
    }

    /// Goes to the first entry whose time is not before `from`.
    pub(crate) fn seek(&mut self, from: Timestamp) {
        self.entries.entries.seek(self.entries.id.listed(self.list, Some(from)));
    }

    /// Goes to the entry of a key at a time, or to what comes after it.
    pub(crate) fn seek_key(&mut self, at: Timestamp, hash: KeyHash, key: &[u8]) {
        let place = [&self.entries.id.listed(self.list, Some(at))[..], &hash.0.to_be_bytes(), key].concat();
        self.entries.entries.seek(place);
    }
}

fn damaged(id: RunId, why: impl std::fmt::Display) -> SpillError {
    failed("read", Path::new(&id.file()), why)
}

/// Reads the entries of a file in the order of hashes and keys.
pub(crate) struct RunReader<'db> {
    entries: DBRawIterator<'db>,
    id: RunId,
}

impl RunReader<'_> {
    /// The hash and the key of the entry at which it is, if it is not at the end.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn key(&self) -> Result<Option<(KeyHash, &[u8])>, SpillError> {
        let Some(key) = self.place()? else { return Ok(None) };
        let (hash, key) =
            key[PREFIX..].split_first_chunk::<8>().ok_or_else(|| self.damaged("a key is too short"))?;
        Ok(Some((KeyHash(u64::from_be_bytes(*hash)), key)))
    }

    /// The place at which it is, if it is not at the end.
    fn place(&self) -> Result<Option<&[u8]>, SpillError> {
        let place = self.entries.key();
        if place.is_none() {
            self.entries.status().map_err(|error| self.damaged(error))?;
        }
        Ok(place)
    }

    /// What the entry at which it is holds.
    #[must_use]
    pub(crate) fn value(&self) -> &[u8] {
        self.entries.value().unwrap_or_default()
    }

    /// Goes to the next entry.
    pub(crate) fn step(&mut self) {
        self.entries.next();
    }

    /// Goes to the entry of a key, and says whether there is one.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn find(&mut self, hash: KeyHash, key: &[u8]) -> Result<bool, SpillError> {
        self.entries.seek([&self.id.place(Some(hash)), key].concat());
        Ok(self.key()? == Some((hash, key)))
    }

    /// An error about what an entry holds.
    pub(crate) fn damaged(&self, why: impl std::fmt::Display) -> SpillError {
        damaged(self.id, why)
    }
}

struct OpenFile<'share> {
    id: RunId,
    path: PathBuf,
    writer: SstFileWriter<'share>,
    bytes: u64,
}

/// The lists of a file in the making.
#[derive(Default)]
struct Lists {
    /// What each entry is, when, and where its hash and key begin.
    entries: Vec<(u8, [u8; 8], usize)>,
    /// The hashes and keys, each after its length.
    bytes: Vec<u8>,
}

impl Lists {
    /// How many bytes they take.
    fn memory(&self) -> usize {
        self.entries.len() * size_of::<(u8, [u8; 8], usize)>() + self.bytes.len()
    }

    fn add(&mut self, list: List, at: Timestamp, hash: KeyHash, key: &[u8]) {
        self.entries.push((FIRST_LIST + list as u8, time_bytes(at), self.bytes.len()));
        self.bytes.extend_from_slice(&((8 + key.len()) as u32).to_le_bytes());
        self.bytes.extend_from_slice(&hash.0.to_be_bytes());
        self.bytes.extend_from_slice(key);
    }

    /// The hash and the key that begin at a place.
    fn key(&self, place: usize) -> &[u8] {
        let (length, rest) = self.bytes[place..].split_first_chunk::<4>().expect("it has a length");
        &rest[..u32::from_le_bytes(*length) as usize]
    }

    /// What follows the highest of hashes in the places of all entries, in order; they are gone then.
    fn drain(&mut self, mut each: impl FnMut(&[&[u8]]) -> Result<(), SpillError>) -> Result<(), SpillError> {
        let mut entries = std::mem::take(&mut self.entries);
        entries.sort_unstable_by(|(list, at, key), (other_list, other_at, other_key)| {
            (list, at, self.key(*key)).cmp(&(other_list, other_at, self.key(*other_key)))
        });
        entries.iter().try_for_each(|(list, at, key)| each(&[&[*list], at, self.key(*key)]))?;
        self.bytes.clear();
        Ok(())
    }
}

/// Writes entries in the order of hashes and keys.
pub(crate) struct RunWriter<'share> {
    share: &'share Share,
    options: &'share Options,
    open: Option<OpenFile<'share>>,
    key: Vec<u8>,
    fresh: bool,
    lists: Lists,
    done: Vec<Scoped>,
}

impl<'share> RunWriter<'share> {
    /// A writer of no entries yet.
    pub(super) fn new(share: &'share Share, options: &'share Options) -> Self {
        let (key, lists, done) = (Vec::new(), Lists::default(), Vec::new());
        Self { share, options, open: None, key, fresh: false, lists, done }
    }

    /// Writes the next entry. `fresh` says whether it holds anything that came since the last pane.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn put(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        value: &[u8],
        fresh: bool,
    ) -> Result<(), SpillError> {
        let lists = LIST_BYTES.max(self.share.bytes / 4);
        if self.open.as_ref().is_some_and(|open| open.bytes >= FILE_BYTES || self.lists.memory() >= lists) {
            self.close()?;
        }
        if self.open.is_none() {
            self.begin()?;
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        self.key.clear();
        self.key.extend_from_slice(&open.id.prefix());
        self.key.extend_from_slice(&hash.0.to_be_bytes());
        self.key.extend_from_slice(key);
        open.writer.put(&self.key, value).map_err(|error| failed("write", &open.path, error))?;
        open.bytes += (key.len() + value.len() + 8) as u64;
        self.fresh |= fresh;
        Ok(())
    }

    /// Enters the key of the entry that was written last in a list.
    pub(crate) fn enter(&mut self, list: List, at: Timestamp, hash: KeyHash, key: &[u8]) {
        self.lists.add(list, at, hash, key);
        self.open.iter_mut().for_each(|open| open.bytes += (key.len() + 16) as u64);
    }

    fn begin(&mut self) -> Result<(), SpillError> {
        let disk = &self.share.disk;
        disk.db()?;
        let id = self.share.next.get();
        self.share.next.set(RunId { number: id.number + 1, ..id });
        let path = disk.directory.join(id.file()).with_extension("new");
        let writer = SstFileWriter::create(self.options);
        writer.open(&path).map_err(|error| failed("write", &path, error))?;
        self.open = Some(OpenFile { id, path, writer, bytes: 0 });
        Ok(())
    }

    fn close(&mut self) -> Result<(), SpillError> {
        let Some(OpenFile { id, path, mut writer, .. }) = self.open.take() else { return Ok(()) };
        let prefix = [&id.prefix()[..], &[0xFF; 8]].concat();
        self.lists.drain(|rest| {
            self.key.clear();
            self.key.extend_from_slice(&prefix);
            rest.iter().for_each(|part| self.key.extend_from_slice(part));
            writer.put(&self.key, []).map_err(|error| failed("write", &path, error))
        })?;
        writer.finish().map_err(|error| failed("write", &path, error))?;
        let disk = &self.share.disk;
        let run = disk.take_in(&mut disk.inner(), id, &path)?;
        let fresh = std::mem::take(&mut self.fresh);
        self.done.push(Scoped { run, groups: self.share.groups.clone(), fresh });
        Ok(())
    }

    /// The files.
    ///
    /// # Errors
    /// If the last one cannot be written.
    pub(crate) fn finish(mut self) -> Result<Vec<Scoped>, SpillError> {
        self.close()?;
        Ok(self.done)
    }
}
