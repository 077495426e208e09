//! State on the local disk: sorted files in RocksDB's format.
//!
//! Owns: the directory of a process, the files in it and the database that reads them, how much
//! memory each grouping may take before it writes one. After its entries a file may have lists of keys by time.
//! Must not know: what entries hold, what the times are, when a file is written.
//! Invariant: a file never changes and stays for as long as anyone refers to it. Its name is given
//! once in a run, on whatever worker, so a checkpoint can keep it under that name.

use std::cell::{Cell, OnceCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use pharos_window::Timestamp;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DB, DBCompressionType, DBPinnableSlice, DBRawIterator,
    IngestExternalFileOptions, Options, ReadOptions, SstFileWriter,
};
use serde::{Deserialize, Serialize};

use crate::key::{KeyGroup, KeyHash};

/// A file is closed when it has this many bytes: it is read whole when a checkpoint keeps it.
const FILE_BYTES: u64 = 16 << 20;
/// Blocks, and filters of keys, of files that are read at many places: an eighth of what state may take, within bounds.
const CACHE_BYTES: std::ops::RangeInclusive<usize> = 4 << 20..=64 << 20;
/// Bits for each entry in a file's filter of keys; one key in a hundred that is not there is looked for in vain.
const FILTER_BITS: f64 = 10.0;
/// Or when its lists take a quarter of the memory for state, and not less than this: they are in memory until then.
const LIST_BYTES: usize = 256 << 10;
/// What is read at a time where files are read from end to end, and where one key is looked for.
const BLOCK_BYTES: usize = 16 << 10;
const KEY_BLOCK_BYTES: usize = 4 << 10;
/// Files that the database holds open.
const OPEN_FILES: i32 = 1024;

/// How much memory keyed state may take, and where it goes beyond that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateMemory {
    /// Bytes that the tables of all threads may take.
    pub bytes: usize,
    /// A directory for this process alone. It is made when it is needed and removed at the end.
    pub directory: PathBuf,
}

/// The same, of a process that runs.
#[derive(Debug)]
pub(crate) struct StateBounds {
    /// Bytes that the tables of all threads may take.
    pub bytes: usize,
    /// Where more goes.
    pub disk: Arc<Disk>,
}

impl StateBounds {
    /// The bounds, with nothing on disk yet.
    #[must_use]
    pub(crate) fn new(memory: &StateMemory) -> Self {
        Self { bytes: memory.bytes, disk: Disk::new(&memory.directory, memory.bytes) }
    }
}

/// State could not be written to the local disk or read from there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("state on the local disk: cannot {what} `{path}`: {why}")]
pub struct SpillError {
    /// What was to be done.
    pub what: &'static str,
    /// The file.
    pub path: String,
    /// Why it was not.
    pub why: String,
}

fn failed(what: &'static str, path: &Path, why: impl std::fmt::Display) -> SpillError {
    SpillError { what, path: path.display().to_string(), why: why.to_string() }
}

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
    fn place(self, hash: Option<KeyHash>) -> Vec<u8> {
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
    fn end(self) -> Vec<u8> {
        [&self.prefix()[..], &[0xFF; 9]].concat()
    }

    fn file(self) -> String {
        let Self { generation, thread, node, number } = self;
        format!("{generation}-{thread}-{node}-{number}{RUN}")
    }
}

/// What the names of files end with.
const RUN: &str = ".run";

/// What becomes of the files of an earlier process that had the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leftovers {
    /// They go.
    Clear,
    /// They stay: some may be wanted.
    Keep,
}

/// Where a checkpoint keeps a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The blob.
    pub blob: String,
    /// How long it is.
    pub length: u64,
    /// CRC-32C of its bytes.
    pub crc: u32,
}

impl Kept {
    /// Whether these are the bytes.
    #[must_use]
    pub(crate) fn is(&self, bytes: &[u8]) -> bool {
        bytes.len() as u64 == self.length && crc32c::crc32c(bytes) == self.crc
    }
}

/// The directory of a process.
pub(crate) struct Disk {
    directory: PathBuf,
    options: Options,
    /// How files are written in which keys are looked for.
    keyed: Options,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// None until the first file.
    db: Option<Arc<DB>>,
    runs: BTreeMap<RunId, Weak<Run>>,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Disk").field("directory", &self.directory).finish_non_exhaustive()
    }
}

fn options(block: usize, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_size(block);
    blocks.set_block_cache(cache);
    blocks.set_bloom_filter(FILTER_BITS, false);
    blocks.set_cache_index_and_filter_blocks(true);
    if block == KEY_BLOCK_BYTES {
        // Of an index, and of a filter, only the part is read that a key is in.
        blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        blocks.set_partition_filters(true);
        blocks.set_metadata_block_size(KEY_BLOCK_BYTES);
        blocks.set_pin_top_level_index_and_filter(true);
    }
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&blocks);
    options.set_compression_type(DBCompressionType::Lz4);
    // A file stays as it was written: it is removed whole, and a checkpoint may keep it.
    options.set_disable_auto_compactions(true);
    options.set_max_open_files(OPEN_FILES);
    options.set_write_buffer_size(1 << 20);
    options.set_keep_log_file_num(1);
    options
}

impl Disk {
    /// A disk that writes nothing yet, beside `memory` bytes of state in memory.
    #[must_use]
    pub(crate) fn new(directory: &Path, memory: usize) -> Arc<Self> {
        let cache = (memory / 8).clamp(*CACHE_BYTES.start(), *CACHE_BYTES.end());
        let cache = Cache::new_lru_cache(cache);
        let [options, keyed] = [BLOCK_BYTES, KEY_BLOCK_BYTES].map(|block| options(block, &cache));
        Arc::new(Self { directory: directory.to_owned(), options, keyed, inner: Mutex::default() })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn database(&self) -> PathBuf {
        self.directory.join("db")
    }

    /// The database, made anew by the first caller: what an earlier process left is worth nothing then.
    ///
    /// # Errors
    /// If it cannot be made, or another process uses the directory.
    pub(crate) fn db(&self) -> Result<Arc<DB>, SpillError> {
        self.open(&mut self.inner(), Leftovers::Clear)
    }

    fn open(&self, inner: &mut Inner, leftovers: Leftovers) -> Result<Arc<DB>, SpillError> {
        if let Some(db) = &inner.db {
            return Ok(Arc::clone(db));
        }
        let database = self.database();
        if database.exists() {
            // It refuses if a living process holds the lock.
            DB::destroy(&self.options, &database).map_err(|error| failed("clear", &database, error))?;
        }
        if leftovers == Leftovers::Clear && self.directory.exists() {
            std::fs::remove_dir_all(&self.directory)
                .map_err(|error| failed("clear", &self.directory, error))?;
        }
        std::fs::create_dir_all(&self.directory).map_err(|error| failed("make", &self.directory, error))?;
        let db = DB::open(&self.options, &database).map_err(|error| failed("open", &database, error))?;
        Ok(Arc::clone(inner.db.insert(Arc::new(db))))
    }

    /// Takes in the file at `new`, which goes to its own place.
    fn take_in(self: &Arc<Self>, inner: &mut Inner, id: RunId, new: &Path) -> Result<Arc<Run>, SpillError> {
        let db = self.open(inner, Leftovers::Clear)?;
        let path = self.directory.join(id.file());
        // The database has the file under a name of its own; this one is for checkpoints.
        std::fs::hard_link(new, &path).map_err(|error| failed("name", &path, error))?;
        let bytes = std::fs::metadata(&path).map_err(|error| failed("read", &path, error))?.len();
        let mut how = IngestExternalFileOptions::default();
        how.set_move_files(true);
        db.ingest_external_file_opts(&how, vec![new]).map_err(|error| failed("take in", &path, error))?;
        let run = Arc::new(Run { disk: Arc::clone(self), id, path, bytes, kept: OnceLock::new() });
        inner.runs.insert(id, Arc::downgrade(&run));
        Ok(run)
    }

    /// All files that anyone refers to.
    #[must_use]
    pub(crate) fn runs(&self) -> Vec<Arc<Run>> {
        self.inner().runs.values().filter_map(Weak::upgrade).collect()
    }

    /// Removes the files that an earlier process left and nobody refers to, once all that are wanted are adopted, and those
    /// that an attempt which failed had begun. Nobody writes meanwhile.
    pub(crate) fn clear_leftovers(&self) {
        let inner = self.inner();
        // Without a database nobody knows whether the directory is another process's.
        let Some(entries) = inner.db.as_ref().and_then(|_| std::fs::read_dir(&self.directory).ok()) else {
            return;
        };
        let known: BTreeSet<String> = inner.runs.keys().map(|id| id.file()).collect();
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let name = path.file_name().and_then(|name| name.to_str());
            let is_over =
                |name: &str| name.ends_with(".new") || (name.ends_with(RUN) && !known.contains(name));
            if name.is_some_and(is_over) {
                // What cannot be removed goes with the directory.
                let _ = std::fs::remove_file(&path);
            }
        }
    }

    /// The file that a checkpoint keeps, whose bytes `read` gives if it is not here: neither in use nor left by an earlier
    /// process that had this directory.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub(crate) fn adopt<E: From<SpillError>>(
        self: &Arc<Self>,
        id: RunId,
        kept: Kept,
        read: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Arc<Run>, E> {
        let mut inner = self.inner();
        if let Some(run) = inner.runs.get(&id).and_then(Weak::upgrade) {
            return Ok(run);
        }
        self.open(&mut inner, Leftovers::Keep)?;
        let new = self.directory.join(id.file()).with_extension("new");
        let old = self.directory.join(id.file());
        let bytes = match std::fs::read(&old).ok().filter(|bytes| kept.is(bytes)) {
            Some(bytes) => bytes,
            None => read()?,
        };
        // It may also be what is left if its last owner is just going, who then leaves the new one alone.
        let _ = std::fs::remove_file(&old);
        std::fs::write(&new, bytes).map_err(|error| failed("write", &new, error))?;
        let run = self.take_in(&mut inner, id, &new)?;
        run.kept.get_or_init(|| kept);
        Ok(run)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        if inner.db.take().is_some() {
            // Whoever uses the directory next clears it, if this fails.
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

/// A sorted file.
#[derive(Debug)]
pub(crate) struct Run {
    disk: Arc<Disk>,
    id: RunId,
    path: PathBuf,
    bytes: u64,
    kept: OnceLock<Kept>,
}

impl Run {
    /// Its name.
    #[must_use]
    pub(crate) const fn id(&self) -> RunId {
        self.id
    }

    /// How many bytes it has.
    #[must_use]
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where a checkpoint keeps it; `keep` puts it there if none does. Only one thread may call this.
    ///
    /// # Errors
    /// If it cannot be read or kept.
    pub(crate) fn keep<E: From<SpillError>>(
        &self,
        keep: impl FnOnce(&str, &[u8]) -> Result<(), E>,
    ) -> Result<Kept, E> {
        if let Some(kept) = self.kept.get() {
            return Ok(kept.clone());
        }
        let bytes = std::fs::read(&self.path).map_err(|error| failed("read", &self.path, error))?;
        let kept = Kept { blob: self.id.file(), length: bytes.len() as u64, crc: crc32c::crc32c(&bytes) };
        keep(&kept.blob, &bytes)?;
        Ok(self.kept.get_or_init(|| kept).clone())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let mut inner = self.disk.inner();
        if inner.runs.get(&self.id).is_some_and(|run| run.strong_count() > 0) {
            return;
        }
        inner.runs.remove(&self.id);
        // What cannot be removed goes with the directory.
        let _ = std::fs::remove_file(&self.path);
        if let Some(db) = &inner.db {
            let _ = db.delete_file_in_range(self.id.place(KeyGroup::first_hash(0)), self.id.end());
        }
    }
}

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

/// One grouping's part of the memory, on one thread.
#[derive(Debug)]
pub(crate) struct Share {
    /// The database, once it is open. It is closed before the disk is cleared.
    db: OnceCell<Arc<DB>>,
    disk: Arc<Disk>,
    /// Bytes that its tables may take.
    pub bytes: usize,
    /// The key groups that it has.
    pub groups: Range<u32>,
    next: Cell<RunId>,
}

impl Share {
    /// A share of `bytes` for the key groups `groups`; `first` names its first file.
    #[must_use]
    pub(crate) fn new(disk: Arc<Disk>, bytes: usize, groups: Range<u32>, first: RunId) -> Self {
        Self { db: OnceCell::new(), disk, bytes, groups, next: Cell::new(first) }
    }

    /// The database.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn db(&self) -> Result<Arc<DB>, SpillError> {
        if let Some(db) = self.db.get() {
            return Ok(Arc::clone(db));
        }
        let db = self.disk.db()?;
        Ok(Arc::clone(self.db.get_or_init(|| db)))
    }

    /// Begins to write entries, as many files as it takes, that are read one after the other.
    #[must_use]
    pub(crate) fn writer(&self) -> RunWriter<'_> {
        self.writer_as(&self.disk.options)
    }

    /// The same of entries that are looked for one by one.
    #[must_use]
    pub(crate) fn keyed_writer(&self) -> RunWriter<'_> {
        self.writer_as(&self.disk.keyed)
    }

    fn writer_as<'share>(&'share self, options: &'share Options) -> RunWriter<'share> {
        RunWriter {
            share: self,
            options,
            open: None,
            key: Vec::new(),
            fresh: false,
            lists: Lists::default(),
            done: Vec::new(),
        }
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

impl RunWriter<'_> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of some keys, and how a checkpoint keeps it.
    fn written(disk: &Arc<Disk>, number: u32) -> (Arc<Run>, Kept, Vec<u8>) {
        let first = RunId { generation: 1, thread: 0, node: 0, number };
        let share = Share::new(Arc::clone(disk), 1, 0..KeyGroup::COUNT, first);
        let mut writer = share.writer();
        let mut keys: Vec<[u8; 1]> = (0..9).map(|key| [key]).collect();
        keys.sort_by_key(|key| KeyHash::of(key));
        for key in &keys {
            let hash = KeyHash::of(key);
            writer.put(hash, key, &[number as u8], false).unwrap();
            writer.enter(List::Timers, Timestamp::from_micros(-i64::from(key[0] % 3)), hash, key);
            writer.enter(List::Holds, Timestamp::from_micros(i64::from(key[0])), hash, key);
        }
        let run = writer.finish().unwrap().remove(0).run;
        let mut kept = Vec::new();
        let at = run.keep(|_, bytes| {
            kept = bytes.to_vec();
            Ok::<_, SpillError>(())
        });
        (run, at.unwrap(), kept)
    }

    #[test]
    fn lists_come_in_the_order_of_times_and_only_for_the_key_groups_that_count() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::new(&directory.path().join("state"), 1);
        let (run, ..) = written(&disk, 0);
        let db = disk.db().unwrap();
        let half = 0..KeyGroup::COUNT / 2;
        for groups in [0..KeyGroup::COUNT, half] {
            let file = Scoped { run: Arc::clone(&run), groups: groups.clone(), fresh: false };
            let mine = |key: &u8| groups.contains(&KeyHash::of(&[*key]).group().number());
            let listed = |list, from| {
                let mut reader = file.list(&db, list, Timestamp::from_micros(from));
                let mut listed = Vec::new();
                while let Some((at, _, key)) = reader.entry().unwrap() {
                    listed.push((at.micros(), key[0]));
                    reader.step();
                }
                listed
            };
            let mut timers: Vec<_> = (0..9).filter(mine).map(|key| (-i64::from(key % 3), key)).collect();
            timers.sort_by_key(|(at, key)| (*at, KeyHash::of(&[*key])));
            assert_eq!(listed(List::Timers, i64::MIN), timers);
            timers.retain(|(at, _)| *at >= -1);
            assert_eq!(listed(List::Timers, -1), timers);
            assert_eq!(
                listed(List::Holds, 7),
                (7..9).filter(mine).map(|key| (i64::from(key), key)).collect::<Vec<_>>()
            );
            // Entries and lists are not taken for each other.
            let mut reader = file.read(&db);
            let mut entries = 0;
            while reader.key().unwrap().is_some() {
                entries += 1;
                reader.step();
            }
            assert_eq!(entries, (0..9).filter(mine).count());
            for key in 0..9 {
                let found = file.get(&db, KeyHash::of(&[key]), &[key]).unwrap();
                assert_eq!(found.map(|bytes| bytes[0]), mine(&key).then_some(0));
            }
            assert!(file.get(&db, KeyHash::of(&[9]), &[9]).unwrap().is_none());
            let hashes: Vec<KeyHash> = (0..9).map(|key| KeyHash::of(&[key])).collect();
            let ends = *hashes.iter().min().unwrap()..=*hashes.iter().max().unwrap();
            assert_eq!(file.hashes(&db).unwrap(), Some(ends));
        }
    }

    #[test]
    fn a_file_ends_where_its_lists_are_long_and_the_next_one_begins_with_none() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::new(&directory.path().join("state"), 1);
        let first = RunId { generation: 1, thread: 0, node: 0, number: 0 };
        let share = Share::new(Arc::clone(&disk), 1, 0..KeyGroup::COUNT, first);
        let mut writer = share.keyed_writer();
        let mut keys: Vec<(KeyHash, [u8; 60])> = (0..9000u32)
            .map(|number| {
                let mut key = [0; 60];
                key[..4].copy_from_slice(&number.to_le_bytes());
                (KeyHash::of(&key), key)
            })
            .collect();
        keys.sort_unstable();
        for (hash, key) in &keys {
            writer.put(*hash, key, &[], false).unwrap();
            writer.enter(List::Timers, Timestamp::MIN, *hash, key);
        }
        let files = writer.finish().unwrap();
        // Each key takes 96 bytes there.
        assert_eq!(files.len(), 9000 * 96 / LIST_BYTES + 1);
        let db = share.db().unwrap();
        let ends: Vec<_> = files.iter().map(|file| file.hashes(&db).unwrap().unwrap()).collect();
        assert!(ends.windows(2).all(|pair| pair[0].end() < pair[1].start()));
        for (hash, key) in keys.iter().step_by(100) {
            let found = files.iter().filter(|file| file.get(&db, *hash, key).unwrap().is_some()).count();
            assert_eq!(found, 1);
        }
    }

    #[test]
    fn what_an_earlier_process_left_is_used_if_it_is_what_a_checkpoint_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let earlier = Disk::new(&path, 1);
        let files: Vec<_> = (0..4).map(|number| written(&earlier, number)).collect();
        let names = |expected: &[u32]| {
            let mut names: Vec<String> = std::fs::read_dir(&path)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| name.ends_with(RUN))
                .collect();
            names.sort();
            let expected: Vec<String> = expected.iter().map(|number| format!("1-0-0-{number}.run")).collect();
            assert_eq!(names, expected);
        };
        names(&[0, 1, 2, 3]);
        // It was killed: nothing is tidied, and another process clears the database.
        let copies = directory.path().join("copies");
        std::fs::create_dir(&copies).unwrap();
        for entry in std::fs::read_dir(&path).unwrap().map(Result::unwrap) {
            if entry.file_name().to_str().unwrap().ends_with(RUN) {
                std::fs::copy(entry.path(), copies.join(entry.file_name())).unwrap();
            }
        }
        let kept: Vec<_> = files.into_iter().map(|(run, kept, bytes)| (run.id(), kept, bytes)).collect();
        drop(earlier);
        std::fs::rename(&copies, &path).unwrap();
        // One is damaged, one is gone, one is not wanted any more.
        std::fs::write(path.join("1-0-0-1.run"), b"other").unwrap();
        std::fs::remove_file(path.join("1-0-0-2.run")).unwrap();
        let disk = Disk::new(&path, 1);
        let mut read = Vec::new();
        let mut runs = Vec::new();
        for (id, kept, bytes) in kept.into_iter().take(3) {
            let run = disk.adopt(id, kept, || {
                read.push(id.number);
                Ok::<_, SpillError>(bytes)
            });
            runs.push(run.unwrap());
        }
        assert_eq!(read, [1, 2]);
        disk.clear_leftovers();
        names(&[0, 1, 2]);
        let db = disk.db().unwrap();
        for (number, run) in runs.iter().enumerate() {
            let file = Scoped { run: Arc::clone(run), groups: 0..KeyGroup::COUNT, fresh: false };
            assert_eq!(file.get(&db, KeyHash::of(&[1]), &[1]).unwrap().unwrap()[..], [number as u8]);
        }
        // Whoever holds all that is in use need not read it again.
        let held = disk.runs();
        let (id, again) = (runs[2].id(), Kept { blob: String::new(), length: 0, crc: 0 });
        drop(runs);
        disk.adopt(id, again, || -> Result<Vec<u8>, SpillError> { unreachable!("it is here") }).unwrap();
        drop(held);
        names(&[]);
    }
}
