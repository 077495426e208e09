//! State on the local disk: sorted files in RocksDB's format.
//!
//! Owns: the directory of a process, the files in it and the database that reads them, how much
//! memory each grouping may take before it writes one.
//! Must not know: what is in a file, when one is written.
//! Invariant: a file never changes and stays for as long as anyone refers to it. Its name is given
//! once in a run, on whatever worker, so a checkpoint can keep it under that name.

mod file;

use std::cell::{Cell, OnceCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DB, DBCompressionType, IngestExternalFileOptions, Options,
};

use crate::key::KeyGroup;

use file::RUN;
pub(crate) use file::{List, RunId, RunReader, RunWriter, Scoped};

/// Blocks, and filters of keys, of files that are read at many places: an eighth of what state may take, within bounds.
const CACHE_BYTES: std::ops::RangeInclusive<usize> = 4 << 20..=64 << 20;
/// Bits for each entry in a file's filter of keys; one key in a hundred that is not there is looked for in vain.
const FILTER_BITS: f64 = 10.0;
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
    /// A directory for this process alone. It is made when it is needed and removed at the end. What an earlier process left
    /// there is used, if a checkpoint names it, or cleared.
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
        RunWriter::new(self, &self.disk.options)
    }

    /// The same of entries that are looked for one by one.
    #[must_use]
    pub(crate) fn keyed_writer(&self) -> RunWriter<'_> {
        RunWriter::new(self, &self.disk.keyed)
    }
}

#[cfg(test)]
mod tests {
    use pharos_window::Timestamp;

    use super::file::LIST_BYTES;
    use super::*;
    use crate::key::KeyHash;

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
