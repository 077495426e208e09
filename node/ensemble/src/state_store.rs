//! Between the replica's rows and the store's bytes.
//!
//! Owns the translation in both directions. Must not know RocksDB beyond how to open it.
//!
//! Invariant: what is loaded is what the last reported cut held, no less and no more.

use crate::config::ServerError;
use crate::disks::{PersistError, Sink};
use bytes::Bytes;
use pharos_paxos::Slot;
use pharos_replica::{
    BadStore, OWN_PREFIX, PersistBatch, PersistRows, REGISTRY_KEY, Snapshot, Stored, is_damaged,
};
use pharos_store::{Options, RocksStore, Store, StoreError, WriteBatch};
use pharos_znode::{RowError, State};
use std::path::{Path, PathBuf};

/// The tree is in memory, so the store is read once, at the start.
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
    /// What a member's state was when the store was last flushed.
    fn load(&mut self) -> Result<Stored, LoadError>;

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
    if error.is_damage() {
        ServerError::DamagedStore { dir: dir.to_owned(), why }
    } else if error.is_users_fault() {
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

    /// All rows are in memory twice while the tree is built from them.
    fn load(&mut self) -> Result<Stored, LoadError> {
        let (mut rows, mut own) = (Vec::new(), Vec::new());
        let mut sort = |key: &[u8], value: &[u8]| {
            let row = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            if key.first() == Some(&OWN_PREFIX) { own.push(row) } else { rows.push(row) }
        };
        match self.each_row(&mut sort) {
            Err(ServerError::DamagedStore { why, .. }) => {
                // The rows of the replica come last, and who votes is in one of them.
                let registry = self.store.get(REGISTRY_KEY).ok().flatten();
                let own = registry.map(|row| (Bytes::from_static(REGISTRY_KEY), row)).into_iter().collect();
                return Err(LoadError::Damaged(BadStore { why, own }));
            }
            read => read.map_err(LoadError::Refused)?,
        }
        let state = if rows.is_empty() { Ok(State::new()) } else { State::from_rows(rows) };
        match state {
            Ok(state) => Ok(Stored { state, own, applied: Slot(self.store.flushed()) }),
            Err(error @ RowError::Level(_)) => {
                let why = format!("{}: {error}", self.dir.display());
                Err(LoadError::Refused(ServerError::StoreRefused(why)))
            }
            Err(error) if is_damaged(&error) => {
                Err(LoadError::Damaged(BadStore { why: with_sources(&error), own }))
            }
            Err(error) => {
                let (dir, why) = (self.dir.clone(), with_sources(&error));
                Err(LoadError::Refused(ServerError::Store { dir, why }))
            }
        }
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
            PersistRows::All(rows) => {
                let all = rows.iter().chain(&batch.own).cloned().collect();
                self.store.replace(all, applied)
            }
        };
        let flushed = written.and_then(|()| self.store.flush()).map_err(not_persisted)?;
        assert!(flushed >= applied, "a flush covers what was written before it");
        Ok(())
    }

    fn recover(&mut self) -> Result<(), PersistError> {
        self.store.reopen().map_err(not_persisted)
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
        let empty = store.load().unwrap();
        assert_eq!((empty.applied, empty.own.len()), (Slot(0), 0));
        let mut state = State::new();
        let own = vec![(Bytes::from_static(b"\xffkey"), Bytes::from_static(b"value"))];
        let batch = PersistBatch {
            rows: PersistRows::Changed(state.take_dirty()),
            own: own.clone(),
            applied: Slot(9),
        };
        store.persist(&batch).unwrap();
        let loaded = store.load().unwrap();
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
        let LoadError::Refused(error) = store.load().map(drop).unwrap_err() else {
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
