//! The store in memory: what the store over RocksDB does, without it. For tests, and for a member that keeps
//! nothing.

use crate::error::StoreError;
use crate::{FORMAT, Store, WriteBatch};
use bytes::{Buf, BufMut, Bytes};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;

const MAGIC: &[u8; 8] = b"PHAROSMS";
const FILE: &str = "rows";

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct MemStore {
    durable: BTreeMap<Bytes, Bytes>,
    flushed: u64,
    /// Written since the last flush; `None` is a deletion.
    pending: BTreeMap<Bytes, Option<Bytes>>,
    applied: u64,
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
        self.pending.clear();
        self.applied = self.flushed;
    }

    /// Rows in the order of their keys, the pending ones over the durable ones.
    fn rows(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
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

impl Store for MemStore {
    fn load(&self, row: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        self.rows().for_each(|(key, value)| row(key, value));
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(match self.pending.get(key) {
            Some(value) => value.clone(),
            None => self.durable.get(key).cloned(),
        })
    }

    fn write(&mut self, batch: WriteBatch, applied: u64) -> Result<(), StoreError> {
        assert!(applied >= self.applied, "the applied index falls from {} to {applied}", self.applied);
        self.pending.extend(batch.deletes.into_iter().map(|key| (key, None)));
        self.pending.extend(batch.puts.into_iter().map(|(key, value)| (key, Some(value))));
        self.applied = applied;
        Ok(())
    }

    fn replace(&mut self, rows: Vec<(Bytes, Bytes)>, applied: u64) -> Result<(), StoreError> {
        let old = self.rows().map(|(key, _)| key.clone()).collect();
        self.write(WriteBatch { puts: rows, deletes: old }, applied)
    }

    fn flush(&mut self) -> Result<u64, StoreError> {
        for (key, value) in std::mem::take(&mut self.pending) {
            match value {
                Some(value) => self.durable.insert(key, value),
                None => self.durable.remove(&key),
            };
        }
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
        for (key, value) in self.rows() {
            for bytes in [key, value] {
                out.put_u32_le(u32::try_from(bytes.len()).expect("a row is smaller than 4 GiB"));
                out.put_slice(bytes);
            }
        }
        let written = std::fs::create_dir(dir).and_then(|()| std::fs::write(dir.join(FILE), out));
        written.map_err(StoreError::io("make a checkpoint in", dir))
    }

    fn approximate_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.rows().map(|(key, value)| (key.len() + value.len()) as u64).sum())
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
    Ok(MemStore { durable, flushed: applied, pending: BTreeMap::new(), applied })
}
