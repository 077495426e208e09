//! A state that arrives: beside the store until it is whole, then in its place.
//!
//! Owns where its rows are meanwhile, and what a crash leaves. Must not know when it is taken over.
//!
//! Invariant: until the mark is durable the store is untouched and the rows beside it are swept at the next opening; from
//! then on they are the state, and moving them into the store is begun anew until it is done.

use crate::state_store::with_sources;
use bytes::Bytes;
use pharos_replica::{Arrival, Arrived};
use pharos_store::{Rows, Store, StoreError, WriteBatch};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Rows that are moved at once, in bytes.
const MOVED_BYTES: usize = 1 << 20;

/// A state as far as it has come.
struct Coming<S> {
    arrival: Arrival,
    rows: S,
}

/// See the module.
pub(crate) struct Arriving<S> {
    /// Where its rows are.
    dir: PathBuf,
    /// A file that says that they count.
    mark: PathBuf,
    coming: Option<Coming<S>>,
    whole: Option<S>,
}

impl<S: Store> Arriving<S> {
    /// For the store in this directory.
    pub(crate) fn beside(store: &Path) -> Self {
        let sibling = |ending| store.with_extension(ending);
        Self { dir: sibling("arriving"), mark: sibling("arrived"), coming: None, whole: None }
    }

    /// Takes a part; gives the state with the last one, which keeps so many bytes of values in memory. The inner error is
    /// about what came, or that there is no room for it; the outer about the disk.
    pub(crate) fn part(
        &mut self,
        store: &S,
        values: u64,
        ends: (bool, bool),
        rows: Bytes,
    ) -> Result<Result<Option<Box<Arrived>>, String>, StoreError> {
        match self.take_part(store, values, ends, rows) {
            Err(error) if error.is_disk_full() => {
                // The store itself may need the room that it takes, and what was not flushed is lost. The leader will
                // begin anew.
                self.abandon()?;
                Ok(Err(with_sources(&error)))
            }
            taken => taken,
        }
    }

    fn take_part(
        &mut self,
        store: &S,
        values: u64,
        (first, last): (bool, bool),
        rows: Bytes,
    ) -> Result<Result<Option<Box<Arrived>>, String>, StoreError> {
        if first {
            self.abandon()?;
            let arrival = Arrival::keeping(values);
            self.coming = Some(Coming { arrival, rows: store.beside(&self.dir)? });
        }
        let Some(mut coming) = self.coming.take() else { return Ok(Err("its first part is missing".into())) };
        let rows = match coming.arrival.part(rows) {
            Ok(rows) => rows,
            Err(error) => return Ok(Err(with_sources(&error))),
        };
        put(&mut coming.rows, rows, 0)?;
        if !last {
            self.coming = Some(coming);
            return Ok(Ok(None));
        }
        // Whatever fails from here on, it need not be sent again.
        coming.rows.flush()?;
        self.whole = Some(coming.rows);
        Ok(coming.arrival.finish().map(Some).map_err(|error| with_sources(&error)))
    }

    /// Forgets what has come.
    pub(crate) fn abandon(&mut self) -> Result<(), StoreError> {
        (self.coming, self.whole) = (None, None);
        absent_is_well(std::fs::remove_dir_all(&self.dir)).map_err(self.failed("remove a state beside"))
    }

    /// Puts the state that has come whole, with these rows of the member's own, in the place of the store's. After a full
    /// disk both stores are opened again, and this is done again from the beginning.
    pub(crate) fn take_over(&mut self, store: &mut S, own: &Rows, applied: u64) -> Result<(), StoreError> {
        let whole = self.whole.as_mut().expect("only a state that has come whole is taken over");
        put(whole, own.clone(), applied)?;
        whole.flush()?;
        self.set_mark()?;
        if let Some(whole) = &self.whole {
            move_rows(whole, store)?;
        }
        self.remove_mark()
    }

    /// Opens the state that has come whole again, as [`Store::reopen`] does.
    pub(crate) fn reopen(&mut self) -> Result<(), StoreError> {
        self.whole.as_mut().map_or(Ok(()), Store::reopen)
    }

    /// Does what an earlier process had no time to do.
    pub(crate) fn recover(&mut self, store: &mut S) -> Result<(), StoreError> {
        if self.mark.exists() {
            tracing::info!(state = %self.dir.display(), "a state that was sent is moved into the store");
            move_rows(&store.beside(&self.dir)?, store)?;
            return self.remove_mark();
        }
        self.abandon()
    }

    fn set_mark(&self) -> Result<(), StoreError> {
        let made = File::create(&self.mark).and_then(|file| file.sync_all()).and_then(|()| self.sync_dir());
        made.map_err(self.failed("mark a state beside"))
    }

    fn remove_mark(&mut self) -> Result<(), StoreError> {
        let removed = absent_is_well(std::fs::remove_file(&self.mark)).and_then(|()| self.sync_dir());
        removed.map_err(self.failed("unmark a state beside"))?;
        self.abandon()
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(self.mark.parent().unwrap_or(Path::new(".")))?.sync_all()
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(io::Error) -> StoreError {
        let dir = self.dir.clone();
        move |source| StoreError::Io { what, dir, source }
    }
}

fn absent_is_well(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn put(store: &mut impl Store, rows: Rows, applied: u64) -> Result<(), StoreError> {
    store.write(WriteBatch { puts: rows, deletes: Vec::new() }, applied)
}

/// Whatever an earlier attempt has left there. Rows are moved by few at a time.
fn move_rows<S: Store>(from: &S, to: &mut S) -> Result<(), StoreError> {
    let applied = from.applied();
    to.clear()?;
    let mut rows = from.scan(MOVED_BYTES)?;
    while let Some(puts) = rows.next_rows()? {
        to.write(WriteBatch { puts, deletes: Vec::new() }, applied)?;
    }
    to.flush().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state_store::open_rocks;
    use crate::tests::full::Narrow;
    use pharos_replica::part_of;
    use pharos_store::{MemStore, Options, RocksStore};

    const MEMORY: Options = Options { block_cache_bytes: 1 << 20, write_buffer_bytes: 1 << 20 };

    fn row(key: &'static str, value: &'static str) -> (Bytes, Bytes) {
        (Bytes::from_static(key.as_bytes()), Bytes::from_static(value.as_bytes()))
    }

    fn rows(store: &impl Store) -> Rows {
        store.scan(1 << 20).unwrap().next_rows().unwrap().unwrap_or_default()
    }

    /// A store with an old row, and a new state beside it that has come whole.
    fn arrived(dir: &Path) -> (RocksStore, Arriving<RocksStore>) {
        let mut store = RocksStore::open(dir, &MEMORY).unwrap();
        put(&mut store, vec![row("old", "1")], 3).unwrap();
        store.flush().unwrap();
        let mut arriving = Arriving::beside(dir);
        let mut whole = store.beside(&arriving.dir).unwrap();
        put(&mut whole, vec![row("new", "2")], 0).unwrap();
        arriving.whole = Some(whole);
        (store, arriving)
    }

    fn reopened(dir: &Path) -> (RocksStore, bool) {
        let mut store = RocksStore::open(dir, &MEMORY).unwrap();
        let mut arriving = Arriving::beside(dir);
        arriving.recover(&mut store).unwrap();
        let swept = !arriving.dir.exists() && !arriving.mark.exists();
        (store, swept)
    }

    #[test]
    fn a_state_that_is_taken_over_is_there_alone_after_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let (mut store, mut arriving) = arrived(&path);
        arriving.take_over(&mut store, &vec![row("\u{7f}own", "3")], 9).unwrap();
        drop((store, arriving));
        let (store, swept) = reopened(&path);
        assert_eq!(rows(&store), [row("new", "2"), row("\u{7f}own", "3")]);
        assert_eq!((store.flushed(), swept), (9, true));
    }

    #[test]
    fn a_crash_before_the_mark_leaves_the_old_state_and_one_after_it_the_new() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        for marked in [false, true] {
            let (store, mut arriving) = arrived(&path);
            let mut whole = arriving.whole.take().unwrap();
            put(&mut whole, vec![row("own", "3")], 9).unwrap();
            whole.flush().unwrap();
            if marked {
                arriving.set_mark().unwrap();
            }
            drop((store, whole));
            let (store, swept) = reopened(&path);
            let expected =
                if marked { vec![row("new", "2"), row("own", "3")] } else { vec![row("old", "1")] };
            assert_eq!((rows(&store), store.flushed(), swept), (expected, if marked { 9 } else { 3 }, true));
        }
    }

    #[test]
    fn a_crash_while_rows_are_moved_begins_the_move_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let (mut store, mut arriving) = arrived(&path);
        let mut whole = arriving.whole.take().unwrap();
        put(&mut whole, vec![row("own", "3")], 9).unwrap();
        whole.flush().unwrap();
        arriving.set_mark().unwrap();
        store.clear().unwrap();
        put(&mut store, vec![row("half", "way")], 9).unwrap();
        store.flush().unwrap();
        drop((store, whole));
        let (store, swept) = reopened(&path);
        assert_eq!((rows(&store), swept), (vec![row("new", "2"), row("own", "3")], true));
        drop(store);
        assert!(open_rocks(&path).is_ok(), "every opening looks for it");
    }

    #[test]
    fn a_state_is_taken_over_once_there_is_room_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let (path, sign) = (dir.path().join("state"), dir.path().join("full"));
        let mut store = Narrow { store: MemStore::new(), sign: sign.clone() };
        put(&mut store, vec![row("old", "1")], 3).unwrap();
        store.flush().unwrap();
        let mut arriving = Arriving::beside(&path);
        let mut whole = store.beside(&arriving.dir).unwrap();
        put(&mut whole, vec![row("new", "2")], 0).unwrap();
        whole.flush().unwrap();
        arriving.whole = Some(whole);
        let own = vec![row("\u{7f}own", "3")];
        std::fs::write(&sign, "").unwrap();
        for _ in 0..2 {
            assert!(arriving.take_over(&mut store, &own, 9).unwrap_err().is_disk_full());
            store.reopen().and_then(|()| arriving.reopen()).unwrap();
            assert_eq!(rows(&store), [row("old", "1")]);
        }
        std::fs::remove_file(&sign).unwrap();
        arriving.take_over(&mut store, &own, 9).unwrap();
        assert_eq!(rows(&store), [row("new", "2"), row("\u{7f}own", "3")]);
        assert_eq!((store.flushed(), arriving.mark.exists()), (9, false));
    }

    #[test]
    fn a_state_without_room_is_given_up_and_the_store_keeps_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let sign = dir.path().join("full");
        let store = Narrow { store: MemStore::new(), sign: sign.clone() };
        let mut arriving = Arriving::beside(&dir.path().join("state"));
        std::fs::write(&sign, "").unwrap();
        let refused = arriving.part(&store, 0, (true, true), part_of(&[])).unwrap();
        assert!(refused.unwrap_err().contains("cannot flush store"));
        assert!(arriving.coming.is_none() && arriving.whole.is_none());
    }

    #[test]
    fn rows_that_make_no_state_are_refused_and_the_store_keeps_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let (store, mut arriving) = arrived(&path);
        let part = part_of(&[row("\u{9}", "unknown table")]);
        assert!(arriving.part(&store, 0, (true, true), part.clone()).unwrap().is_err());
        assert!(arriving.part(&store, 0, (false, true), part).unwrap().is_err(), "its beginning is missing");
        assert_eq!(rows(&store), [row("old", "1")]);
    }
}
