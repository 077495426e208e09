//! The bytes of a Parquet file, from wherever its reader wants some.
//!
//! Owns: what of an object is fetched at once and kept for the next page; whose fault it is that bytes do not come.
//! Must not know: pages, columns.
//! Invariant: what is kept is bounded: one block for each column that is read, and one more.
//!
//! The reader goes through all columns side by side and asks for the header of a page and then for the page. A local file
//! is asked for just that. Of an object so much is fetched that the next pages of the column are there, too, and nothing
//! beyond the column's end.

use std::collections::VecDeque;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};
use pharos_stream::io::ConnectError;

use crate::read::ByteSource;

/// The header of a page is mostly shorter.
const HEADER: usize = 256;

/// A file as the Parquet reader wants it. Clones share what is kept.
#[derive(Clone)]
pub(super) struct Chunks(Arc<Shared>);

struct Shared {
    source: ByteSource,
    size: u64,
    /// How many columns are read.
    columns: usize,
    /// The parts of the file that will be read from their beginning to their end.
    wanted: Vec<Range<u64>>,
    /// How many bytes of an object are fetched at once.
    block: u64,
    kept: Mutex<VecDeque<Block>>,
    failure: Mutex<Option<ConnectError>>,
}

struct Block {
    start: u64,
    bytes: Bytes,
}

impl Block {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Chunks {
    /// A file of so many bytes of which so many columns will be read side by side, group by group; `wanted` is where each
    /// column of each group lies.
    #[must_use]
    pub(super) fn new(source: ByteSource, size: u64, columns: usize, wanted: Vec<Range<u64>>) -> Self {
        let block = (source.ahead() / columns.max(1)).max(64 << 10) as u64;
        let kept = Mutex::new(VecDeque::new());
        Self(Arc::new(Shared { source, size, columns, wanted, block, kept, failure: Mutex::new(None) }))
    }

    /// Why bytes did not come, if that was the reason of the last error.
    #[must_use]
    pub(super) fn failure(&self) -> Option<ConnectError> {
        locked(&self.0.failure).take()
    }

    fn bytes(&self, start: u64, length: usize) -> io::Result<Bytes> {
        let bytes = if self.0.source.is_near() {
            self.0.source.range(start..start + length as u64)
        } else {
            self.kept_or_fetched(start, length)
        };
        bytes.map_err(|error| {
            locked(&self.0.failure).get_or_insert_with(|| error.clone());
            io::Error::other(error)
        })
    }

    fn kept_or_fetched(&self, start: u64, length: usize) -> std::result::Result<Bytes, ConnectError> {
        let end = start + length as u64;
        let mut kept = locked(&self.0.kept);
        let found = kept.iter().position(|block| block.start <= start && start < block.end());
        let mut block = match found.and_then(|at| kept.remove(at)) {
            Some(block) => block,
            None => Block { start, bytes: Bytes::new() },
        };
        if block.end() < end {
            let from = block.end().max(start);
            let more = self.0.source.range(from..self.fetch_end(start, from).max(end))?;
            let mut joined = BytesMut::from(&block.bytes[(start - block.start) as usize..]);
            joined.extend_from_slice(&more);
            block = Block { start, bytes: joined.freeze() };
        }
        let offset = (start - block.start) as usize;
        let bytes = block.bytes.slice(offset..offset + length);
        kept.push_front(block);
        kept.truncate(self.0.columns + 1);
        Ok(bytes)
    }

    /// Up to where it is worth fetching from `from`, where `start` is wanted.
    fn fetch_end(&self, start: u64, from: u64) -> u64 {
        (from + self.0.block).min(self.end_of_part(start))
    }

    /// Where the column ends that `at` is in.
    fn end_of_part(&self, at: u64) -> u64 {
        let part = self.0.wanted.iter().find(|part| part.contains(&at));
        part.map_or(self.0.size, |part| part.end)
    }
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.0.size
    }
}

impl ChunkReader for Chunks {
    type T = BufReader<From>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(BufReader::with_capacity(HEADER, From { chunks: self.clone(), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let size = self.0.size;
        if start.checked_add(length as u64).is_none_or(|end| end > size) {
            let message = format!("{length} bytes at {start} are not in a file of {size}");
            return Err(ParquetError::EOF(message));
        }
        self.bytes(start, length).map_err(|error| ParquetError::External(Box::new(error)))
    }
}

/// The bytes from a place on.
pub(super) struct From {
    chunks: Chunks,
    at: u64,
}

impl Read for From {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.chunks.end_of_part(self.at).saturating_sub(self.at);
        let count = into.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        into[..count].copy_from_slice(&self.chunks.bytes(self.at, count)?);
        self.at += count as u64;
        Ok(count)
    }
}
