//! Reading a RocksDB store from its beginning to its end while it is written to.
//!
//! Owns the thread that the reading takes, since RocksDB's iterator borrows the database. Must not know what is read.
//! Invariant: what is read is what the store held when the scan began; the thread has ended when the scan is dropped.

use crate::error::StoreError;
use crate::rocks::once_through;
use crate::shared::Lent;
use crate::{RowScan, Rows};
use bytes::Bytes;
use rocksdb::DB;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// What the thread says: first that the rows are those of now, then rows, then none.
type Said = Result<Rows, StoreError>;

/// See the module.
pub(crate) struct Scan {
    said: Option<Receiver<Said>>,
    thread: Option<JoinHandle<()>>,
}

impl Scan {
    pub(crate) fn begin(dir: &Path, db: Lent, bytes: usize) -> Result<Self, StoreError> {
        // One part is read ahead.
        let (say, said) = sync_channel(1);
        let place = dir.to_owned();
        let thread = std::thread::Builder::new()
            .name("pharos-scan".to_owned())
            .spawn(move || read(&place, &db, bytes, &say))
            .map_err(StoreError::io("start a thread to read", dir))?;
        let mut scan = Self { said: Some(said), thread: Some(thread) };
        scan.next_rows()?;
        Ok(scan)
    }
}

impl RowScan for Scan {
    fn next_rows(&mut self) -> Result<Option<Rows>, StoreError> {
        self.said.as_ref().and_then(|said| said.recv().ok()).transpose()
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        drop(self.said.take());
        if let Some(thread) = self.thread.take() {
            // A reader that panicked has read nothing more, which is all that there is to say.
            let _ = thread.join();
        }
    }
}

/// Reads until the end, an error, or until nobody listens any more.
fn read(dir: &Path, db: &DB, bytes: usize, say: &SyncSender<Said>) {
    let mut iterator = db.raw_iterator_opt(once_through());
    if say.send(Ok(Rows::new())).is_err() {
        return;
    }
    iterator.seek_to_first();
    loop {
        let (mut text, mut ends) = (Vec::new(), Vec::new());
        while text.len() < bytes
            && let Some((key, value)) = iterator.item()
        {
            text.extend_from_slice(key);
            let end = text.len();
            text.extend_from_slice(value);
            ends.push((end, text.len()));
            iterator.next();
        }
        let read = iterator.status().map(|()| rows(text, &ends)).map_err(StoreError::rocks("read", dir));
        let failed = read.is_err();
        if read.as_ref().is_ok_and(Vec::is_empty) || say.send(read).is_err() || failed {
            return;
        }
    }
}

/// Rows that lie end to end, of each where its key and its value end. They share the memory.
fn rows(text: Vec<u8>, ends: &[(usize, usize)]) -> Rows {
    let (text, mut start) = (Bytes::from(text), 0);
    let row = |&(key, value): &(usize, usize)| {
        let row = (text.slice(start..key), text.slice(key..value));
        start = value;
        row
    };
    ends.iter().map(row).collect()
}
