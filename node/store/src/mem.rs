//! The store in memory: what the store over RocksDB does, without it. For tests, and for a member that keeps
//! nothing.

use crate::error::StoreError;
use crate::{FORMAT, RowReader, RowScan, Store, WriteBatch};
use bytes::{Buf, BufMut, Bytes};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const MAGIC: &[u8; 8] = b"PHAROSMS";
const FILE: &str = "rows";

/// See the module.
#[derive(Debug, Default)]
pub struct MemStore {
    rows: Shared,
    flushed: u64,
    applied: u64,
}

#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Rows>>);

#[derive(Debug, Default)]
struct Rows {
    durable: BTreeMap<Bytes, Bytes>,
    /// Written since the last flush; `None` is a deletion.
    pending: BTreeMap<Bytes, Option<Bytes>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Rows> {
        // Nothing that is done under the lock leaves the rows half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rows {
    /// In the order of their keys, the pending ones over the durable ones.
    fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        let mut after = Bound::Unbounded;
        std::iter::from_fn(move || {
            loop {
                let durable = self.durable.range::<Bytes, _>((after, Bound::Unbounded)).next();
                let pending = self.pending.range::<Bytes, _>((after, Bound::Unbounded)).next();
                let (key, value) = match (durable, pending) {
                    (Some((key, value)), Some((other, _))) if key < other => (key, Some(value)),
                    (_, Some((key, value))) => (key, value.as_ref()),
                    (Some((key, value)), None) => (key, Some(value)),
                    (None, None) => return None,
                };
                after = Bound::Excluded(key);
                if let Some(value) = value {
                    return Some((key, value));
                }
            }
        })
    }
}

/// Rows that were shared when the scan began.
struct Scan {
    rows: std::vec::IntoIter<(Bytes, Bytes)>,
    bytes: usize,
}

impl RowScan for Scan {
    fn next_rows(&mut self) -> Result<Option<crate::Rows>, StoreError> {
        let (mut rows, mut size) = (crate::Rows::new(), 0);
        while size < self.bytes
            && let Some((key, value)) = self.rows.next()
        {
            size += key.len() + value.len();
            rows.push((key, value));
        }
        Ok((!rows.is_empty()).then_some(rows))
    }
}

impl RowReader for Shared {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let rows = self.lock();
        Ok(match rows.pending.get(key) {
            Some(value) => value.clone(),
            None => rows.durable.get(key).cloned(),
        })
    }
}

impl MemStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens a checkpoint of such a store.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let bytes = Bytes::from(std::fs::read(dir.join(FILE)).map_err(StoreError::io("open", dir))?);
        decode(dir, bytes)
    }

    /// The process ends: what was not flushed is gone.
    pub fn crash(&mut self) {
        self.rows.lock().pending.clear();
        self.applied = self.flushed;
    }
}

impl Store for MemStore {
    fn beside(&self, _: &Path) -> Result<Self, StoreError> {
        Ok(Self::new())
    }

    fn scan(&self, bytes: usize) -> Result<Box<dyn RowScan>, StoreError> {
        let rows = self.rows.lock();
        let rows: Vec<_> = rows.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        Ok(Box::new(Scan { rows: rows.into_iter(), bytes }))
    }

    fn load(&self, row: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        self.rows.lock().iter().for_each(|(key, value)| row(key, value));
        Ok(())
    }

    fn reader(&self) -> Box<dyn RowReader> {
        Box::new(self.rows.clone())
    }

    fn write(&mut self, batch: WriteBatch, applied: u64) -> Result<(), StoreError> {
        assert!(applied >= self.applied, "the applied index falls from {} to {applied}", self.applied);
        let mut rows = self.rows.lock();
        rows.pending.extend(batch.deletes.into_iter().map(|key| (key, None)));
        rows.pending.extend(batch.puts.into_iter().map(|(key, value)| (key, Some(value))));
        drop(rows);
        self.applied = applied;
        Ok(())
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        let deletes = self.rows.lock().iter().map(|(key, _)| key.clone()).collect();
        self.write(WriteBatch { puts: Vec::new(), deletes }, self.applied)
    }

    fn flush(&mut self) -> Result<u64, StoreError> {
        let mut rows = self.rows.lock();
        for (key, value) in std::mem::take(&mut rows.pending) {
            match value {
                Some(value) => rows.durable.insert(key, value),
                None => rows.durable.remove(&key),
            };
        }
        drop(rows);
        self.flushed = self.applied;
        Ok(self.flushed)
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        self.crash();
        Ok(())
    }

    fn applied(&self) -> u64 {
        self.applied
    }

    fn flushed(&self) -> u64 {
        self.flushed
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), StoreError> {
        let mut out = Vec::new();
        out.put_slice(MAGIC);
        out.put_u16_le(FORMAT);
        out.put_u16_le(FORMAT);
        out.put_u64_le(self.applied);
        for (key, value) in self.rows.lock().iter() {
            for bytes in [key, value] {
                out.put_u32_le(u32::try_from(bytes.len()).expect("a row is smaller than 4 GiB"));
                out.put_slice(bytes);
            }
        }
        let written = std::fs::create_dir(dir).and_then(|()| std::fs::write(dir.join(FILE), out));
        written.map_err(StoreError::io("make a checkpoint in", dir))
    }

    fn approximate_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.rows.lock().iter().map(|(key, value)| (key.len() + value.len()) as u64).sum())
    }
}

fn decode(dir: &Path, mut bytes: Bytes) -> Result<MemStore, StoreError> {
    let cut = |_| StoreError::not_ours(dir, "it is cut off");
    if !bytes.starts_with(MAGIC) {
        return Err(StoreError::not_ours(dir, "it begins with other bytes"));
    }
    bytes.advance(MAGIC.len());
    let format = bytes.try_get_u16_le().map_err(cut)?;
    let min_reader = bytes.try_get_u16_le().map_err(cut)?;
    if min_reader > FORMAT {
        return Err(StoreError::UnknownFormat { dir: dir.to_owned(), format, min_reader, reads: FORMAT });
    }
    let applied = bytes.try_get_u64_le().map_err(cut)?;
    let mut durable = BTreeMap::new();
    while bytes.has_remaining() {
        let mut field = || {
            let length = bytes.try_get_u32_le().map_err(cut)? as usize;
            if length > bytes.remaining() {
                return Err(StoreError::not_ours(dir, "it is cut off"));
            }
            Ok(bytes.split_to(length))
        };
        durable.insert(field()?, field()?);
    }
    let rows = Rows { durable, pending: BTreeMap::new() };
    Ok(MemStore { rows: Shared(Arc::new(Mutex::new(rows))), flushed: applied, applied })
}
