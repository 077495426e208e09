//! An ordered key-value store with checkpoints: over RocksDB, and in memory.
//!
//! Owns what is durable of the applied state, and up to which index. It knows no rows: keys and values are
//! bytes. It has no log of its own; the replicated log is its log (DESIGN 3.3), so what was written and not
//! flushed is gone after a crash, and the log is kept from [`Store::flushed`] on.
//!
//! Invariant: the rows on disk are exactly those of the applied index on disk, at any moment.

mod error;
mod mem;
mod rocks;
mod scan;
mod shared;

pub use error::StoreError;
pub use mem::MemStore;
pub use rocks::{Options, RocksStore};

use bytes::Bytes;
use std::path::Path;

/// The format this build writes: of the version row and of the division into column families.
pub const FORMAT: u16 = 1;

/// Rows to be written together. A key is deleted first and put afterwards, if it is in both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBatch {
    /// Rows to put; in the order of their keys they cost less.
    pub puts: Vec<(Bytes, Bytes)>,
    /// Keys to delete, whether they exist or not.
    pub deletes: Vec<Bytes>,
}

/// The rows of a store as they were when this was made, whatever is written to it since. The store stays open while this
/// is kept.
pub trait RowScan: Send {
    /// The next rows, in the order of their keys; none when there are no more.
    fn next_rows(&mut self) -> Result<Option<Rows>, StoreError>;
}

/// Rows with their keys. They may share memory: who keeps one for long copies it.
pub type Rows = Vec<(Bytes, Bytes)>;

/// Reads rows of a store that somebody else writes to. The store stays open while this is kept.
pub trait RowReader: Send {
    /// The value of a key as it was written last, whether flushed or not.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;
}

/// See the crate.
pub trait Store: Send {
    /// Another store of the same kind, in that directory.
    fn beside(&self, dir: &Path) -> Result<Self, StoreError>
    where
        Self: Sized;

    /// Gives every row to the function, in the order of the keys.
    fn load(&self, row: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError>;

    /// Reads single rows, on any thread, while this one writes.
    fn reader(&self) -> Box<dyn RowReader>;

    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.reader().get(key)
    }

    /// Writes a batch, not durably; with it the state is that of the applied index.
    ///
    /// # Panics
    /// If the applied index falls.
    fn write(&mut self, batch: WriteBatch, applied: u64) -> Result<(), StoreError>;

    /// Begins to read all rows, on any thread and while others are written, by about so many bytes at a time.
    fn scan(&self, bytes: usize) -> Result<Box<dyn RowScan>, StoreError>;

    /// Deletes all rows, not durably.
    fn clear(&mut self) -> Result<(), StoreError>;

    /// Makes what was written durable, and says up to which applied index. After an error of which
    /// [`StoreError::is_disk_full`] says that waiting helps, [`Store::reopen`] comes before the next try.
    fn flush(&mut self) -> Result<u64, StoreError>;

    /// Begins again from what is durable; what was written and not flushed is gone. Until it succeeds nothing else does, and
    /// readers wait. Scans have to be dropped before: it waits for them.
    fn reopen(&mut self) -> Result<(), StoreError>;

    /// The applied index of the last batch written.
    fn applied(&self) -> u64;

    /// An applied index that is durable: that found at opening, or the last flushed one since.
    fn flushed(&self) -> u64;

    /// Makes a copy, of the state at [`Store::applied`], that opens as a store of its own. The directory must
    /// not exist, and its parent must. Cheap over RocksDB: files are linked.
    fn checkpoint(&self, dir: &Path) -> Result<(), StoreError>;

    /// About how much space the rows take.
    fn approximate_bytes(&self) -> Result<u64, StoreError>;
}
