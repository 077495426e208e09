//! The store over RocksDB.
//!
//! Its write-ahead log is off. Rows live in the default column family; the version row and the applied index
//! in a second one, and both are flushed atomically, so that the applied index on disk always fits the rows.
//! RocksDB may flush by itself when its buffer is full: then more is durable than [`Store::flushed`] says.
//!
//! Long values go to files of their own (RocksDB's blob files), which compaction passes by: rows come in any order of
//! their keys, and to sort 4 KiB values again and again is what a disk cannot do beside the log. While its collection of
//! dead values is on, RocksDB writes the oldest files anew, dead or not (with 10 GiB of live values that is nine times what
//! comes): it is on only while much is dead.
//!
//! After a full disk RocksDB goes on to say "no space", whatever room there is (its `Resume` has no binding): it is
//! closed and opened again.

use crate::error::StoreError;
use crate::scan::Scan;
use crate::shared::Shared;
use crate::{FORMAT, RowReader, RowScan, Store, WriteBatch};
use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, FlushOptions,
    IteratorMode, LogLevel, ReadOptions, WriteOptions, checkpoint::Checkpoint, properties,
};
use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const ROWS: &str = rocksdb::DEFAULT_COLUMN_FAMILY_NAME;
const META: &str = "meta";
const VERSION: &[u8] = b"version";
const APPLIED: &[u8] = b"applied";

/// Values from this length on, in bytes, are kept beside the sorted rows.
const LONG_VALUE: u64 = 1 << 10;
/// Bytes of such values in one file, at most.
const LONG_VALUES_FILE: u64 = 64 << 20;
/// The oldest share of the files that is written anew while dead values are collected.
const OLDEST_FILES: f64 = 0.5;
/// The share of dead bytes in the oldest files from which compaction does not wait for other reasons.
const DEAD_VALUES: f64 = 0.5;
/// Dead values are collected from the moment when they are a half of the bytes until they are a quarter.
const COLLECT: (u64, u64) = (2, 4);
/// Of a file of values that are written anew, as much is read at a time.
const LONG_VALUES_READ: u64 = 1 << 20;
/// Bytes of rows that are read at a time when all are.
const READ_AHEAD: usize = 256 << 10;
/// The bytes of all of them, of those that the newest version of the store has, and of the dead among these. The binding
/// has no names for them.
const LONG_VALUES_BYTES: &CStr = c"rocksdb.total-blob-file-size";
const HELD_BYTES: &CStr = c"rocksdb.live-blob-file-size";
const DEAD_BYTES: &CStr = c"rocksdb.live-blob-file-garbage-size";

/// How much memory RocksDB may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// For blocks read back.
    pub block_cache_bytes: usize,
    /// For rows not flushed; when it is full RocksDB flushes by itself.
    pub write_buffer_bytes: usize,
}

/// See the module.
pub struct RocksStore {
    dir: PathBuf,
    options: Options,
    /// None while it is opened again.
    db: Option<Arc<DB>>,
    /// The same, for those who read on other threads.
    shared: Arc<Shared>,
    no_log: WriteOptions,
    applied: u64,
    flushed: u64,
    /// Dead values are being collected.
    collects: bool,
}

impl RocksStore {
    /// Opens the store in the directory, or makes one there.
    pub fn open(dir: &Path, options: &Options) -> Result<Self, StoreError> {
        let mut no_log = WriteOptions::default();
        no_log.disable_wal(true);
        let (dir, options, shared) = (dir.to_owned(), *options, Arc::default());
        let mut store =
            Self { dir, options, db: None, shared, no_log, applied: 0, flushed: 0, collects: false };
        store.reopen()?;
        Ok(store)
    }

    /// A new store gets its version row, durably; one with rows must have it.
    fn check_version(&mut self) -> Result<(), StoreError> {
        if let Some(version) = self.meta_row(VERSION)? {
            return check_version_row(&self.dir, &version);
        }
        let db = self.db()?;
        if self.meta_row(APPLIED)?.is_some() || db.iterator(IteratorMode::Start).next().is_some() {
            return Err(StoreError::not_ours(&self.dir, "it has rows but no version"));
        }
        let row = [FORMAT.to_le_bytes(), FORMAT.to_le_bytes()].concat();
        let written = db.put_cf_opt(meta(db), VERSION, row, &self.no_log);
        written.map_err(StoreError::rocks("write the version of", &self.dir))?;
        self.flush_families()
    }

    fn read_applied(&self) -> Result<u64, StoreError> {
        match self.meta_row(APPLIED)? {
            None => Ok(0),
            Some(row) => {
                let bytes = row.as_slice().try_into();
                bytes
                    .map(u64::from_le_bytes)
                    .map_err(|_| StoreError::not_ours(&self.dir, "its applied index is damaged"))
            }
        }
    }

    fn meta_row(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let db = self.db()?;
        db.get_cf(meta(db), key).map_err(StoreError::rocks("read", &self.dir))
    }

    fn flush_families(&self) -> Result<(), StoreError> {
        let db = self.db()?;
        let flushed = db.flush_cfs_opt(&[rows(db), meta(db)], &FlushOptions::default());
        flushed.map_err(StoreError::rocks("flush", &self.dir))
    }

    fn collect_if_worth_it(&mut self) -> Result<(), StoreError> {
        let db = self.db()?;
        let bytes = |name| Ok(db.property_int_value_cf(rows(db), name)?.unwrap_or_default());
        let measured = bytes(HELD_BYTES).and_then(|held| Ok((held, bytes(DEAD_BYTES)?)));
        let (held, dead) = measured.map_err(StoreError::rocks("measure", &self.dir))?;
        let share = if self.collects { COLLECT.1 } else { COLLECT.0 };
        let collects = dead > 0 && dead >= held / share;
        if collects != self.collects {
            let on = if collects { "true" } else { "false" };
            db.set_options_cf(rows(db), &[("enable_blob_garbage_collection", on)])
                .map_err(StoreError::rocks("collect dead values of", &self.dir))?;
            self.collects = collects;
        }
        Ok(())
    }

    fn last_key(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let last = self.db()?.iterator(IteratorMode::End).next().transpose();
        Ok(last.map_err(StoreError::rocks("read", &self.dir))?.map(|(key, _)| key.into_vec()))
    }

    fn db(&self) -> Result<&DB, StoreError> {
        self.db.as_deref().ok_or_else(|| StoreError::Closed { dir: self.dir.clone() })
    }
}

fn rows(db: &DB) -> &ColumnFamily {
    db.cf_handle(ROWS).expect("the family was opened")
}

fn meta(db: &DB) -> &ColumnFamily {
    db.cf_handle(META).expect("the family was opened")
}

fn open_db(dir: &Path, options: &Options) -> Result<DB, StoreError> {
    check_families(dir)?;
    let base = base_options(dir)?;
    let families = [ROWS, META].map(|name| ColumnFamilyDescriptor::new(name, family_options(options)));
    DB::open_cf_descriptors(&base, dir, families).map_err(|source| {
        if is_locked(source.as_ref()) {
            StoreError::InUse { dir: dir.to_owned() }
        } else {
            StoreError::Rocks { what: "open", dir: dir.to_owned(), source }
        }
    })
}

impl Store for RocksStore {
    fn beside(&self, dir: &Path) -> Result<Self, StoreError> {
        Self::open(dir, &self.options)
    }

    fn scan(&self, bytes: usize) -> Result<Box<dyn RowScan>, StoreError> {
        Ok(Box::new(Scan::begin(&self.dir, self.shared.lend(&self.dir)?, bytes)?))
    }

    fn load(&self, row: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        // Another thread reads ahead: to decode blocks takes as long as to make something of the rows.
        let mut scan = self.scan(READ_AHEAD)?;
        while let Some(rows) = scan.next_rows()? {
            rows.iter().for_each(|(key, value)| row(key, value));
        }
        Ok(())
    }

    fn reader(&self) -> Box<dyn RowReader> {
        Box::new(Reader { dir: self.dir.clone(), shared: Arc::clone(&self.shared) })
    }

    fn write(&mut self, batch: WriteBatch, applied: u64) -> Result<(), StoreError> {
        assert!(applied >= self.applied, "the applied index falls from {} to {applied}", self.applied);
        let db = self.db()?;
        let mut rows = rocksdb::WriteBatch::default();
        for key in &batch.deletes {
            rows.delete(key);
        }
        for (key, value) in &batch.puts {
            rows.put(key, value);
        }
        rows.put_cf(meta(db), APPLIED, applied.to_le_bytes());
        db.write_opt(rows, &self.no_log).map_err(StoreError::rocks("write to", &self.dir))?;
        self.applied = applied;
        Ok(())
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        let Some(last) = self.last_key()? else { return Ok(()) };
        let mut rows = rocksdb::WriteBatch::default();
        // The end of the range does not belong to it.
        rows.delete_range(&b""[..], &last);
        rows.delete(&last);
        self.db()?.write_opt(rows, &self.no_log).map_err(StoreError::rocks("clear", &self.dir))
    }

    fn flush(&mut self) -> Result<u64, StoreError> {
        self.flush_families()?;
        self.flushed = self.applied;
        self.collect_if_worth_it()?;
        Ok(self.flushed)
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        // It holds its lock until it is closed.
        self.db = None;
        self.shared.close();
        let db = Arc::new(open_db(&self.dir, &self.options)?);
        self.shared.open(Arc::clone(&db));
        self.db = Some(db);
        self.collects = false;
        self.check_version()?;
        self.flushed = self.read_applied()?;
        self.applied = self.flushed;
        Ok(())
    }

    fn applied(&self) -> u64 {
        self.applied
    }

    fn flushed(&self) -> u64 {
        self.flushed
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), StoreError> {
        let checkpoint = Checkpoint::new(self.db()?).and_then(|checkpoint| checkpoint.create_checkpoint(dir));
        checkpoint.map_err(StoreError::rocks("make a checkpoint of", &self.dir))
    }

    fn approximate_bytes(&self) -> Result<u64, StoreError> {
        let db = self.db()?;
        let families = [rows(db), meta(db)];
        let names = [properties::LIVE_SST_FILES_SIZE, properties::CUR_SIZE_ALL_MEM_TABLES, LONG_VALUES_BYTES];
        let pairs = families.into_iter().flat_map(|family| names.map(|name| (family, name)));
        let sizes =
            pairs.map(|(family, name)| db.property_int_value_cf(family, name).map(Option::unwrap_or_default));
        sizes.sum::<Result<u64, _>>().map_err(StoreError::rocks("measure", &self.dir))
    }
}

/// How all rows are read: none of them twice.
pub(crate) fn once_through() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options.set_readahead_size(4 << 20);
    options
}

impl Drop for RocksStore {
    fn drop(&mut self) {
        if self.db.is_none() {
            // Nobody opens it again.
            self.shared.give_up();
        }
    }
}

/// Shares the database with its store.
struct Reader {
    dir: PathBuf,
    shared: Arc<Shared>,
}

impl RowReader for Reader {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.shared.lend(&self.dir)?.get(key).map_err(StoreError::rocks("read", &self.dir))?;
        Ok(value.map(Bytes::from))
    }
}

/// What RocksDB says when the lock is held, here or elsewhere; not when the lock file cannot be made.
fn is_locked(message: &str) -> bool {
    message.contains("lock hold by current process") || message.contains("While lock file")
}

/// RocksDB would refuse families of a later format, but not by the format's name.
fn check_families(dir: &Path) -> Result<(), StoreError> {
    if !dir.join("CURRENT").exists() {
        return Ok(());
    }
    let options = rocksdb::Options::default();
    let families = DB::list_cf(&options, dir).map_err(StoreError::rocks("open", dir))?;
    let Some(unknown) = families.iter().find(|family| ![ROWS, META].contains(&family.as_str())) else {
        return Ok(());
    };
    if families.iter().any(|family| family == META) {
        let db = DB::open_cf_for_read_only(&options, dir, [ROWS, META], false)
            .map_err(StoreError::rocks("open", dir))?;
        let meta = db.cf_handle(META).expect("the family was opened");
        if let Some(version) = db.get_cf(meta, VERSION).map_err(StoreError::rocks("read", dir))? {
            check_version_row(dir, &version)?;
        }
    }
    Err(StoreError::not_ours(dir, format!("it has an unknown column family {unknown:?}")))
}

/// Format and minimum reader stand first in the row of every format.
fn check_version_row(dir: &Path, row: &[u8]) -> Result<(), StoreError> {
    let &[f0, f1, m0, m1, ..] = row else {
        return Err(StoreError::not_ours(dir, "its version is damaged"));
    };
    let (format, min_reader) = (u16::from_le_bytes([f0, f1]), u16::from_le_bytes([m0, m1]));
    if min_reader > FORMAT {
        return Err(StoreError::UnknownFormat { dir: dir.to_owned(), format, min_reader, reads: FORMAT });
    }
    Ok(())
}

fn base_options(dir: &Path) -> Result<rocksdb::Options, StoreError> {
    // Closing loses what was not flushed, as a crash does: one way to restart, and a quick one.
    let text = "avoid_flush_during_shutdown=true";
    let mut options =
        rocksdb::Options::default().get_options_from_string(text).map_err(StoreError::rocks("open", dir))?;
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_atomic_flush(true);
    options.set_max_background_jobs(2);
    options.set_max_open_files(512);
    // A start reads everything in order, and the kernel sees by itself who reads by chance.
    options.set_advise_random_on_open(false);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    Ok(options)
}

fn family_options(options: &Options) -> rocksdb::Options {
    let mut family = rocksdb::Options::default();
    family.set_compression_type(DBCompressionType::Lz4);
    family.set_write_buffer_size(options.write_buffer_bytes);
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(options.block_cache_bytes));
    blocks.set_bloom_filter(10.0, false);
    family.set_block_based_table_factory(&blocks);
    family.set_enable_blob_files(true);
    family.set_min_blob_size(LONG_VALUE);
    family.set_blob_file_size(LONG_VALUES_FILE);
    family.set_blob_compression_type(DBCompressionType::Lz4);
    family.set_enable_blob_gc(false);
    family.set_blob_gc_age_cutoff(OLDEST_FILES);
    family.set_blob_gc_force_threshold(DEAD_VALUES);
    family.set_blob_compaction_readahead_size(LONG_VALUES_READ);
    family
}
