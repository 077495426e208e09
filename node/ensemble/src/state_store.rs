//! Between the replica's rows and the store's bytes.
//!
//! Owns the translation in both directions. Must not know RocksDB beyond how to open it.
//!
//! Invariant: what is loaded is what the last reported cut held, no less and no more.

use crate::arriving::Arriving;
use crate::config::ServerError;
use crate::disks::{PersistError, Rows, Sink};
use bytes::Bytes;
use pharos_paxos::Slot;
use pharos_replica::{
    Arrived, BadStore, OWN_PREFIX, PersistBatch, PersistRows, REGISTRY_KEY, Stored, is_damaged, part_of,
};
use pharos_store::{Options, RocksStore, RowReader, RowScan, Store, StoreError, WriteBatch};
use pharos_znode::{RowError, State, StateLoader};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Rows of a state in one frame, in bytes.
const PART_BYTES: usize = 256 << 10;

/// The hot values are in memory; of the others, whichever is read next is not in a small cache either.
const STORE_MEMORY: Options = Options { block_cache_bytes: 8 << 20, write_buffer_bytes: 32 << 20 };

/// Why a store gives no state.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// It is damaged.
    Damaged(BadStore),
    /// Anything else.
    Refused(ServerError),
}

impl LoadError {
    /// For those who can do nothing about damage.
    pub(crate) fn refused(self, dir: &Path) -> ServerError {
        match self {
            Self::Damaged(BadStore { why, .. }) => ServerError::DamagedStore { dir: dir.to_owned(), why },
            Self::Refused(error) => error,
        }
    }
}

/// A store that a member can start from and write to.
pub(crate) trait StateStore: Sink {
    /// What a member's state was when the store was last flushed. So many bytes of values stay in memory.
    fn load(&mut self, values: u64) -> Result<Stored, LoadError>;

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
    if error.is_damage() {
        ServerError::DamagedStore { dir: dir.to_owned(), why }
    } else if error.is_users_fault() {
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

    /// Why the rows make no state.
    fn no_state(&self, error: &RowError, own: Vec<(Bytes, Bytes)>) -> LoadError {
        let why = with_sources(error);
        match error {
            RowError::Level(_) => {
                let why = format!("{}: {why}", self.dir.display());
                LoadError::Refused(ServerError::StoreRefused(why))
            }
            error if is_damaged(error) => LoadError::Damaged(BadStore { why, own }),
            _ => LoadError::Refused(ServerError::Store { dir: self.dir.clone(), why }),
        }
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

    fn load(&mut self, values: u64) -> Result<Stored, LoadError> {
        self.values = values;
        let (mut loader, mut own) = (StateLoader::keeping(values), Vec::new());
        let (mut refused, mut empty) = (None, true);
        let read = self.each_row(&mut |key, value| {
            if key.first() == Some(&OWN_PREFIX) {
                own.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            } else if refused.is_none() {
                empty = false;
                refused = loader.row(key, value).err();
            }
        });
        match read {
            Err(ServerError::DamagedStore { why, .. }) => {
                // The rows of the replica come last, and who votes is in one of them.
                let registry = self.store.get(REGISTRY_KEY).ok().flatten();
                let own = registry.map(|row| (Bytes::from_static(REGISTRY_KEY), row)).into_iter().collect();
                return Err(LoadError::Damaged(BadStore { why, own }));
            }
            read => read.map_err(LoadError::Refused)?,
        }
        let state = match refused {
            Some(error) => Err(error),
            None if empty => Ok(State::new()),
            None => loader.finish(),
        };
        match state {
            Ok(state) => Ok(Stored { state, own, applied: Slot(self.store.flushed()) }),
            Err(error) => Err(self.no_state(&error, own)),
        }
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
    fn persist(&mut self, batch: &PersistBatch) -> Result<(), PersistError> {
        let applied = batch.applied.0;
        let written = match &batch.rows {
            PersistRows::Changed(rows) => {
                let mut write = WriteBatch { puts: batch.own.clone(), deletes: Vec::new() };
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
                return self.arriving.take_over(&mut self.store, &batch.own, applied).map_err(not_persisted);
            }
        };
        let flushed = written.and_then(|()| self.store.flush()).map_err(not_persisted)?;
        assert!(flushed >= applied, "a flush covers what was written before it");
        Ok(())
    }

    fn recover(&mut self) -> Result<(), PersistError> {
        self.scans.clear();
        self.store.reopen().and_then(|()| self.arriving.reopen()).map_err(not_persisted)
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

    fn next_part(&mut self, transfer: u64) -> Option<Result<Option<Bytes>, String>> {
        let rows = self.scans.get_mut(&transfer)?.next_rows();
        Some(rows.map(|rows| rows.map(|rows| part_of(&rows))).map_err(|error| with_sources(&error)))
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

fn not_persisted(error: StoreError) -> PersistError {
    let why = with_sources(&error);
    if error.is_disk_full() { PersistError::Full(why) } else { PersistError::Broken(why) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pharos_store::MemStore;
    use pharos_znode::{Applied, Command, Level, Op};

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
        store.persist(&batch).unwrap();
        let loaded = store.load(u64::MAX).unwrap();
        assert_eq!((loaded.applied, loaded.own), (Slot(9), own));
        assert_eq!(loaded.state.digest(), state.digest());
    }

    #[test]
    fn a_state_of_a_level_that_is_not_known_is_refused_by_name_and_says_what_to_do() {
        let mut state = State::new();
        let raise = Command::of_ensemble(Op::SetLevel(Level::NEWEST));
        state.apply(&raise, 1, &mut Applied::new());
        let rows = state.take_dirty().to_pairs().into_iter().filter_map(|(key, value)| Some((key, value?)));
        let mut rows: Vec<_> = rows.map(|(key, value)| (key, value.to_vec())).collect();
        rows.sort();
        // The level is the last that the first row has.
        *rows[0].1.last_mut().unwrap() = 77;
        let mut store = OnStore::new(MemStore::new(), Path::new("memory"));
        store.fill(rows.into_iter().map(|(key, value)| (key, value.into())).collect(), Slot(9)).unwrap();
        store.finish_filling().unwrap();
        let LoadError::Refused(error) = store.load(0).map(drop).unwrap_err() else {
            panic!("it is no damage")
        };
        assert!(error.is_users_fault());
        assert_eq!(
            error.to_string(),
            "memory: the state is of feature level 77, this version knows levels 1 to 2: run a version that knows \
             level 77"
        );
    }
}
