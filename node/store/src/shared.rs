//! A database that several threads use, and that is closed and opened again meanwhile.
//!
//! Owns who is using it. Must not know what for. Invariant: it is closed only when nobody uses it; who comes while it is
//! closed waits until it is open, or will never be.

use crate::error::StoreError;
use rocksdb::DB;
use std::ops::Deref;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A database, open or not for the moment.
#[derive(Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
enum State {
    #[default]
    Closed,
    Open(Arc<DB>),
    /// It will not be opened again.
    Gone,
}

impl Shared {
    /// The database, which stays open as long as this is kept.
    pub(crate) fn lend(self: &Arc<Self>, dir: &Path) -> Result<Lent, StoreError> {
        let mut state = self.lock();
        loop {
            match &*state {
                State::Open(db) => {
                    return Ok(Lent { db: Some(Arc::clone(db)), shared: Arc::clone(self) });
                }
                State::Gone => return Err(StoreError::Closed { dir: dir.to_owned() }),
                State::Closed => state = self.wait(state),
            }
        }
    }

    pub(crate) fn open(&self, db: Arc<DB>) {
        *self.lock() = State::Open(db);
        self.changed.notify_all();
    }

    /// Closes it once nobody uses it.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        if let State::Open(db) = std::mem::take(&mut *state) {
            while Arc::strong_count(&db) > 1 {
                state = self.wait(state);
            }
        }
    }

    pub(crate) fn give_up(&self) {
        *self.lock() = State::Gone;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that is done under the lock leaves the state half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

/// The database, in use.
pub(crate) struct Lent {
    /// None only while this is dropped.
    db: Option<Arc<DB>>,
    shared: Arc<Shared>,
}

impl Deref for Lent {
    type Target = DB;

    fn deref(&self) -> &DB {
        self.db.as_deref().expect("it is lent until this is dropped")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let state = self.shared.lock();
        self.db = None;
        drop(state);
        self.shared.changed.notify_all();
    }
}
