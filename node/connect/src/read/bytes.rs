//! The bytes of a file, local or in an object store, as a stream with a position.
//!
//! Owns: reading ahead.
//! Must not know: lines.
//! Invariant: the position is that of the next byte given.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};

use bytes::{Buf, Bytes};
use pharos_stream::io::ConnectError;

use crate::object::Bucket;
use crate::place::Place;

/// What all files of a read together may read ahead, in bytes.
const AHEAD: usize = 256 << 20;

/// How much each of so many files that are read at once reads ahead, in bytes.
#[must_use]
pub(crate) fn ahead(files: usize) -> usize {
    (AHEAD / files.max(1)).clamp(32 << 10, 4 << 20)
}

enum Inner {
    Local(File),
    Object { bucket: Bucket, key: String, size: u64, block: Bytes },
}

/// A file being read.
pub(crate) struct ByteSource {
    name: String,
    position: u64,
    ahead: usize,
    /// Of a regular file or an object, when it was opened.
    size: Option<u64>,
    inner: Inner,
}

impl ByteSource {
    /// Opens a file, of which `ahead` bytes are fetched at once if it lies in an object store.
    ///
    /// # Errors
    /// If there is none or it cannot be read.
    pub(crate) fn open(place: &Place, ahead: usize) -> Result<Self, ConnectError> {
        let name = place.name();
        let inner = match place {
            Place::Local(path) => Inner::Local(File::open(path).map_err(|error| {
                let message = format!("`{name}`: {error}");
                match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => ConnectError::user(message),
                    _ => ConnectError::environment(message),
                }
            })?),
            Place::Object { bucket, key } => {
                let size = bucket.size(key)?;
                Inner::Object { bucket: bucket.clone(), key: key.clone(), size, block: Bytes::new() }
            }
        };
        let size = match &inner {
            Inner::Local(file) => file.metadata().ok().filter(Metadata::is_file).map(|data| data.len()),
            Inner::Object { size, .. } => Some(*size),
        };
        Ok(Self { name, position: 0, ahead, size, inner })
    }

    /// How many bytes are worth asking for at once.
    #[must_use]
    pub(crate) fn ahead(&self) -> usize {
        self.ahead
    }

    /// How many bytes there were when it was opened; of a pipe nobody knows.
    #[must_use]
    pub(crate) fn size(&self) -> Option<u64> {
        self.size
    }

    /// The file's name.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Read for ByteSource {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.inner {
            Inner::Local(file) => file.read(into)?,
            Inner::Object { bucket, key, size, block } => {
                if block.is_empty() && self.position < *size {
                    let end = (self.position + self.ahead as u64).min(*size);
                    *block = bucket
                        .read(key, self.position..end)
                        .map_err(|error| io::Error::other(error.message))?;
                }
                let count = into.len().min(block.len());
                block.split_to(count).copy_to_slice(&mut into[..count]);
                count
            }
        };
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for ByteSource {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = match (&mut self.inner, to) {
            (Inner::Local(file), to) => file.seek(to)?,
            (Inner::Object { block, .. }, SeekFrom::Start(position)) => {
                *block = Bytes::new();
                position
            }
            (Inner::Object { .. }, _) => {
                return Err(io::Error::other("an object is sought from its start only"));
            }
        };
        Ok(self.position)
    }
}
