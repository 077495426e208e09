//! State on the local disk: sorted files in RocksDB's format.
//!
//! Owns: the directory of a process, the files in it and the database that reads them, how much
//! memory each grouping may take before it writes one.
//! Must not know: what entries hold, when one is written.
//! Invariant: a file never changes and stays for as long as anyone refers to it. Its name is given
//! once in a run, on whatever worker, so a checkpoint can keep it under that name.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRawIterator, IngestExternalFileOptions, Options,
    ReadOptions, SstFileWriter,
};
use serde::{Deserialize, Serialize};

use crate::key::{KeyGroup, KeyHash};

/// A file is closed when it has this many bytes: it is read whole when a checkpoint keeps it.
const FILE_BYTES: u64 = 16 << 20;
/// Blocks of files that are read at many places.
const CACHE_BYTES: usize = 4 << 20;
const BLOCK_BYTES: usize = 16 << 10;
/// Files that the database holds open.
const OPEN_FILES: i32 = 256;

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
        Self { bytes: memory.bytes, disk: Disk::new(&memory.directory) }
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

impl RunId {
    fn prefix(self) -> [u8; PREFIX] {
        let mut prefix = [0; PREFIX];
        prefix[..8].copy_from_slice(&self.generation.to_be_bytes());
        prefix[8..12].copy_from_slice(&self.thread.to_be_bytes());
        prefix[12..16].copy_from_slice(&self.node.to_be_bytes());
        prefix[16..].copy_from_slice(&self.number.to_be_bytes());
        prefix
    }

    /// Where its keys from a hash on begin, or where all of them end.
    fn place(self, hash: Option<KeyHash>) -> Vec<u8> {
        match hash {
            Some(hash) => [&self.prefix()[..], &hash.0.to_be_bytes()].concat(),
            // The bytes of a key start with a tag, and no tag is as high as this.
            None => [&self.prefix()[..], &[0xFF; 9]].concat(),
        }
    }

    fn file(self) -> String {
        let Self { generation, thread, node, number } = self;
        format!("{generation}-{thread}-{node}-{number}.run")
    }
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

/// The directory of a process.
pub(crate) struct Disk {
    directory: PathBuf,
    options: Options,
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

impl Disk {
    /// A disk that writes nothing yet.
    #[must_use]
    pub(crate) fn new(directory: &Path) -> Arc<Self> {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_size(BLOCK_BYTES);
        blocks.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
        blocks.set_cache_index_and_filter_blocks(true);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&blocks);
        options.set_compression_type(DBCompressionType::Lz4);
        // A file stays as it was written: it is removed whole, and a checkpoint may keep it.
        options.set_disable_auto_compactions(true);
        options.set_max_open_files(OPEN_FILES);
        options.set_write_buffer_size(1 << 20);
        options.set_keep_log_file_num(1);
        Arc::new(Self { directory: directory.to_owned(), options, inner: Mutex::default() })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn database(&self) -> PathBuf {
        self.directory.join("db")
    }

    /// The database, made anew by the first caller: what an earlier process left is worth nothing.
    ///
    /// # Errors
    /// If it cannot be made, or another process uses the directory.
    pub(crate) fn db(&self) -> Result<Arc<DB>, SpillError> {
        self.open(&mut self.inner())
    }

    fn open(&self, inner: &mut Inner) -> Result<Arc<DB>, SpillError> {
        if let Some(db) = &inner.db {
            return Ok(Arc::clone(db));
        }
        let database = self.database();
        if database.exists() {
            // It refuses if a living process holds the lock.
            DB::destroy(&self.options, &database).map_err(|error| failed("clear", &database, error))?;
        }
        if self.directory.exists() {
            std::fs::remove_dir_all(&self.directory)
                .map_err(|error| failed("clear", &self.directory, error))?;
        }
        std::fs::create_dir_all(&self.directory).map_err(|error| failed("make", &self.directory, error))?;
        let db = DB::open(&self.options, &database).map_err(|error| failed("open", &database, error))?;
        Ok(Arc::clone(inner.db.insert(Arc::new(db))))
    }

    /// Takes in the file at `new`, which goes to its own place.
    fn take_in(self: &Arc<Self>, inner: &mut Inner, id: RunId, new: &Path) -> Result<Arc<Run>, SpillError> {
        let db = self.open(inner)?;
        let path = self.directory.join(id.file());
        // The database has the file under a name of its own; this one is for checkpoints.
        std::fs::hard_link(new, &path).map_err(|error| failed("name", &path, error))?;
        let mut how = IngestExternalFileOptions::default();
        how.set_move_files(true);
        db.ingest_external_file_opts(&how, vec![new]).map_err(|error| failed("take in", &path, error))?;
        let run = Arc::new(Run { disk: Arc::clone(self), id, path, kept: OnceLock::new() });
        inner.runs.insert(id, Arc::downgrade(&run));
        Ok(run)
    }

    /// The file that a checkpoint keeps, whose bytes `read` gives if it is not here.
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
        // What is left of it if its last owner is just going, who then leaves the new one alone.
        let bytes = read()?;
        self.open(&mut inner)?;
        let new = self.directory.join(id.file()).with_extension("new");
        let old = self.directory.join(id.file());
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
    kept: OnceLock<Kept>,
}

impl Run {
    /// Its name.
    #[must_use]
    pub(crate) const fn id(&self) -> RunId {
        self.id
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
            let _ = db.delete_file_in_range(self.id.place(KeyGroup::first_hash(0)), self.id.place(None));
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
        let Some(key) = self.entries.key() else {
            self.entries.status().map_err(|error| self.damaged(error))?;
            return Ok(None);
        };
        let (hash, key) =
            key[PREFIX..].split_first_chunk::<8>().ok_or_else(|| self.damaged("a key is too short"))?;
        Ok(Some((KeyHash(u64::from_be_bytes(*hash)), key)))
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
        failed("read", Path::new(&self.id.file()), why)
    }
}

/// One grouping's part of the memory, on one thread.
#[derive(Debug)]
pub(crate) struct Share {
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
        Self { disk, bytes, groups, next: Cell::new(first) }
    }

    /// The database.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn db(&self) -> Result<Arc<DB>, SpillError> {
        self.disk.db()
    }

    /// Begins to write entries, as many files as it takes.
    #[must_use]
    pub(crate) fn writer(&self) -> RunWriter<'_> {
        RunWriter { share: self, open: None, key: Vec::new(), fresh: false, done: Vec::new() }
    }
}

struct OpenFile<'share> {
    id: RunId,
    path: PathBuf,
    writer: SstFileWriter<'share>,
    bytes: u64,
}

/// Writes entries in the order of hashes and keys.
pub(crate) struct RunWriter<'share> {
    share: &'share Share,
    open: Option<OpenFile<'share>>,
    key: Vec<u8>,
    fresh: bool,
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
        if self.open.as_ref().is_some_and(|open| open.bytes >= FILE_BYTES) {
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

    fn begin(&mut self) -> Result<(), SpillError> {
        let disk = &self.share.disk;
        disk.db()?;
        let id = self.share.next.get();
        self.share.next.set(RunId { number: id.number + 1, ..id });
        let path = disk.directory.join(id.file()).with_extension("new");
        let writer = SstFileWriter::create(&disk.options);
        writer.open(&path).map_err(|error| failed("write", &path, error))?;
        self.open = Some(OpenFile { id, path, writer, bytes: 0 });
        Ok(())
    }

    fn close(&mut self) -> Result<(), SpillError> {
        let Some(OpenFile { id, path, mut writer, .. }) = self.open.take() else { return Ok(()) };
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
