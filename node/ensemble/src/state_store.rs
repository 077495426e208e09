//! Between the replica's rows and the store's bytes.
//!
//! Owns the translation in both directions. Must not know RocksDB beyond how to open it.
//!
//! Invariant: what is loaded is what the last reported cut held, no less and no more.

use crate::config::ServerError;
use crate::disks::{Rows, Sink};
use bytes::Bytes;
use pharos_paxos::Slot;
use pharos_replica::{OWN_PREFIX, PersistBatch, PersistRows, Snapshot};
use pharos_store::{Options, RocksStore, RowReader, Store, StoreError, WriteBatch};
use pharos_znode::{State, StateLoader};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two tries of a flush for which the disk had no room.
const FULL_DISK_RETRY: Duration = Duration::from_secs(1);

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
    store: S,
    dir: PathBuf,
}

impl<S: Store> OnStore<S> {
    pub(crate) fn new(store: S, dir: &Path) -> Self {
        Self { store, dir: dir.to_owned() }
    }
}

pub(crate) fn open_rocks(dir: &Path) -> Result<OnStore<RocksStore>, ServerError> {
    let store = RocksStore::open(dir, &STORE_MEMORY).map_err(|error| refused(dir, &error))?;
    Ok(OnStore::new(store, dir))
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
fn with_sources(error: &dyn std::error::Error) -> String {
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
            PersistRows::All(mut rows) => {
                rows.extend(batch.own);
                self.store.replace(rows, applied)
            }
        };
        written.map_err(|error| with_sources(&error))?;
        loop {
            match self.store.flush() {
                Ok(flushed) => {
                    assert!(flushed >= applied, "a flush covers what was written before it");
                    return Ok(());
                }
                Err(error) if error.is_disk_full() => {
                    let why = with_sources(&error);
                    tracing::warn!(%why, "the disk is full; the store waits for room");
                    std::thread::sleep(FULL_DISK_RETRY);
                }
                Err(error) => return Err(with_sources(&error)),
            }
        }
    }

    fn copy(&mut self, dir: &Path) -> Result<Slot, String> {
        self.store.checkpoint(dir).map_err(|error| with_sources(&error))?;
        Ok(Slot(self.store.applied()))
    }

    fn snapshot(&mut self) -> Result<(Slot, Snapshot), String> {
        let mut snapshot = Snapshot::default();
        let mut push = |key: &[u8], value: &[u8]| snapshot.push(key, value);
        self.store.load(&mut push).map_err(|error| with_sources(&error))?;
        Ok((Slot(self.store.flushed()), snapshot))
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
