//! The bytes of a file, local or in an object store, as a stream with a position.
//!
//! Owns: reading ahead.
//! Must not know: lines.
//! Invariant: the position is that of the next byte given.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use bytes::{Buf, Bytes};
use pharos_stream::io::ConnectError;

use crate::object::Bucket;
use crate::place::Place;

/// How much is fetched from an object store at once.
const BLOCK: u64 = 4 << 20;

enum Inner {
    Local(File),
    Object { bucket: Bucket, key: String, size: u64, block: Bytes },
}

/// A file being read.
pub(crate) struct ByteSource {
    name: String,
    position: u64,
    inner: Inner,
}

impl ByteSource {
    /// Opens a file.
    ///
    /// # Errors
    /// If there is none or it cannot be read.
    pub(crate) fn open(place: &Place) -> Result<Self, ConnectError> {
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
        Ok(Self { name, position: 0, inner })
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
                    let end = (self.position + BLOCK).min(*size);
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
