//! Between the replica's rows and the store's bytes.
//!
//! Owns the translation in both directions. Must not know RocksDB beyond how to open it.
//!
//! Invariant: what is loaded is what the last reported cut held, no less and no more.

use crate::arriving::{Arriving, patiently};
use crate::config::ServerError;
use crate::disks::{Rows, Sink};
use bytes::Bytes;
use pharos_paxos::Slot;
use pharos_replica::{Arrived, OWN_PREFIX, PersistBatch, PersistRows, part_of};
use pharos_store::{Options, RocksStore, RowReader, RowScan, Store, StoreError, WriteBatch};
use pharos_znode::{State, StateLoader};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Rows of a state in one frame, in bytes.
const PART_BYTES: usize = 256 << 10;

/// The hot values are in memory; of the others, whichever is read next is not in a small cache either.
const STORE_MEMORY: Options = Options { block_cache_bytes: 8 << 20, write_buffer_bytes: 32 << 20 };

/// What a member's state was when the store was last flushed.
pub(crate) struct Loaded {
    pub(crate) state: State,
    pub(crate) own: Vec<(Bytes, Bytes)>,
    pub(crate) applied: Slot,
}

/// A store that a member can start from and write to.
pub(crate) trait StateStore: Sink {
    /// Reads the state. So many bytes of values stay in memory.
    fn load(&mut self, values: u64) -> Result<Loaded, ServerError>;

    /// Reads single rows on other threads.
    fn rows(&self) -> Box<dyn Rows>;

    /// Gives every row to the function, in the order of the keys.
    fn each_row(&mut self, row: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), ServerError>;
}

/// Opens a store in a directory.
pub(crate) type OpenStore<S> = fn(&Path) -> Result<S, ServerError>;

/// A store and where it is.
pub(crate) struct OnStore<S> {
    /// Readings of the store for members that lack the state. They end before the store is closed.
    scans: BTreeMap<u64, Box<dyn RowScan>>,
    arriving: Arriving<S>,
    /// Bytes of values that stay in memory, once the state was loaded.
    values: u64,
    store: S,
    dir: PathBuf,
}

impl<S: Store> OnStore<S> {
    pub(crate) fn new(store: S, dir: &Path) -> Self {
        Self {
            scans: BTreeMap::new(),
            arriving: Arriving::beside(dir),
            values: 0,
            store,
            dir: dir.to_owned(),
        }
    }
}

pub(crate) fn open_rocks(dir: &Path) -> Result<OnStore<RocksStore>, ServerError> {
    let store = RocksStore::open(dir, &STORE_MEMORY).map_err(|error| refused(dir, &error))?;
    let mut opened = OnStore::new(store, dir);
    opened.arriving.recover(&mut opened.store).map_err(|error| refused(dir, &error))?;
    Ok(opened)
}

fn refused(dir: &Path, error: &StoreError) -> ServerError {
    let why = with_sources(error);
    if error.is_users_fault() {
        ServerError::StoreRefused(why)
    } else {
        ServerError::Store { dir: dir.to_owned(), why }
    }
}

/// The whole chain in one line.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

impl<S: Store> OnStore<S> {
    /// Puts rows of a state of that slot, not durably.
    pub(crate) fn fill(&mut self, rows: Vec<(Bytes, Bytes)>, slot: Slot) -> Result<(), ServerError> {
        let batch = WriteBatch { puts: rows, deletes: Vec::new() };
        self.store.write(batch, slot.0).map_err(|error| refused(&self.dir, &error))
    }

    /// All rows are there.
    pub(crate) fn finish_filling(&mut self) -> Result<(), ServerError> {
        self.store.flush().map(drop).map_err(|error| refused(&self.dir, &error))
    }
}

impl<S: Store + 'static> StateStore for OnStore<S> {
    fn each_row(&mut self, row: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), ServerError> {
        self.store.load(row).map_err(|error| refused(&self.dir, &error))
    }

    fn load(&mut self, values: u64) -> Result<Loaded, ServerError> {
        self.values = values;
        let (mut state, mut own) = (StateLoader::keeping(values), Vec::new());
        let (mut refused, mut empty) = (None, true);
        self.each_row(&mut |key, value| {
            if key.first() == Some(&OWN_PREFIX) {
                own.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            } else if refused.is_none() {
                empty = false;
                refused = state.row(key, value).err();
            }
        })?;
        let state = match refused {
            Some(error) => Err(error),
            None if empty => Ok(State::new()),
            None => state.finish(),
        };
        let state =
            state.map_err(|error| ServerError::Store { dir: self.dir.clone(), why: with_sources(&error) })?;
        Ok(Loaded { state, own, applied: Slot(self.store.flushed()) })
    }

    fn rows(&self) -> Box<dyn Rows> {
        Box::new(OfStore(self.store.reader()))
    }
}

/// Rows of a store, with errors in one line.
struct OfStore(Box<dyn RowReader>);

impl Rows for OfStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, String> {
        self.0.get(key).map_err(|error| with_sources(&error))
    }
}

impl<S: Store + 'static> Sink for OnStore<S> {
    fn persist(&mut self, batch: PersistBatch) -> Result<(), String> {
        let applied = batch.applied.0;
        let written = match batch.rows {
            PersistRows::Changed(rows) => {
                let mut write = WriteBatch { puts: batch.own, deletes: Vec::new() };
                for (key, value) in rows.to_pairs() {
                    match value {
                        Some(value) => write.puts.push((key, value)),
                        None => write.deletes.push(key),
                    }
                }
                write.puts.sort_unstable_by(|left, right| left.0.cmp(&right.0));
                self.store.write(write, applied)
            }
            PersistRows::Arrived => {
                let taken = self.arriving.take_over(&mut self.store, batch.own, applied);
                return taken.map_err(|error| with_sources(&error));
            }
        };
        let flushed = written.and_then(|()| patiently(|| self.store.flush()));
        let flushed = flushed.map_err(|error| with_sources(&error))?;
        assert!(flushed >= applied, "a flush covers what was written before it");
        Ok(())
    }

    fn copy(&mut self, dir: &Path) -> Result<Slot, String> {
        self.store.checkpoint(dir).map_err(|error| with_sources(&error))?;
        Ok(Slot(self.store.applied()))
    }

    fn open_snapshot(&mut self, transfer: u64) -> Result<Slot, String> {
        let scan = self.store.scan(PART_BYTES).map_err(|error| with_sources(&error))?;
        self.scans.insert(transfer, scan);
        Ok(Slot(self.store.flushed()))
    }

    fn next_part(&mut self, transfer: u64) -> Result<Option<Bytes>, String> {
        let Some(scan) = self.scans.get_mut(&transfer) else { return Ok(None) };
        let rows = scan.next_rows().map_err(|error| with_sources(&error))?;
        Ok(rows.map(|rows| part_of(&rows)))
    }

    fn close_snapshot(&mut self, transfer: u64) {
        self.scans.remove(&transfer);
    }

    fn store_part(
        &mut self,
        ends: (bool, bool),
        rows: Bytes,
    ) -> Result<Result<Option<Box<Arrived>>, String>, String> {
        self.arriving.part(&self.store, self.values, ends, rows).map_err(|error| with_sources(&error))
    }

    fn abandon(&mut self) -> Result<(), String> {
        self.arriving.abandon().map_err(|error| with_sources(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pharos_store::MemStore;

    #[test]
    fn a_cut_is_loaded_as_it_was_written() {
        let dir = Path::new("memory");
        let mut store = OnStore::new(MemStore::new(), dir);
        let empty = store.load(u64::MAX).unwrap();
        assert_eq!((empty.applied, empty.own.len()), (Slot(0), 0));
        let mut state = State::new();
        let own = vec![(Bytes::from_static(b"\xffkey"), Bytes::from_static(b"value"))];
        let batch = PersistBatch {
            rows: PersistRows::Changed(state.take_dirty()),
            own: own.clone(),
            applied: Slot(9),
        };
        store.persist(batch).unwrap();
        let loaded = store.load(u64::MAX).unwrap();
        assert_eq!((loaded.applied, loaded.own), (Slot(9), own));
        assert_eq!(loaded.state.digest(), state.digest());
    }
}
