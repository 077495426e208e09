//! Little-endian fields of the replica's own encodings.
//!
//! Owns how numbers and byte strings are written and read back. Must not know what they mean.
//! Invariant: a reader never panics and never allocates more than the bytes it was given.

use bytes::Bytes;
use thiserror::Error;

/// Why bytes could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// The bytes end inside a field.
    #[error("truncated at {field}")]
    Truncated {
        /// What was being read.
        field: &'static str,
    },
    /// A field holds what no writer writes.
    #[error("invalid {field}: {value}")]
    Invalid {
        /// What was being read.
        field: &'static str,
        /// What was found.
        value: u64,
    },
    /// Bytes are left over.
    #[error("{0} bytes after the end")]
    Trailing(usize),
}

#[derive(Debug)]
pub(crate) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn bytes(&mut self, field: &'static str) -> Result<Bytes, WireError> {
        let len = self.u32(field)? as usize;
        self.take(field, len)
    }

    pub(crate) fn string(&mut self, field: &'static str) -> Result<String, WireError> {
        let raw = self.bytes(field)?;
        String::from_utf8(raw.to_vec()).map_err(|_| WireError::Invalid { field, value: raw.len() as u64 })
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, WireError> {
        Ok(self.array::<1>(field)?[0])
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, WireError> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], WireError> {
        let mut out = [0; N];
        out.copy_from_slice(&self.take(field, N)?);
        Ok(out)
    }

    /// A count of things of which each takes at least `each` bytes.
    pub(crate) fn count(&mut self, field: &'static str, each: usize) -> Result<usize, WireError> {
        let count = self.u32(field)? as usize;
        if count > self.rest.len() / each {
            return Err(WireError::Invalid { field, value: count as u64 });
        }
        Ok(count)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.rest)
    }

    pub(crate) fn end(self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::Trailing(self.rest.len())) }
    }

    fn take(&mut self, field: &'static str, len: usize) -> Result<Bytes, WireError> {
        if len > self.rest.len() {
            return Err(WireError::Truncated { field });
        }
        Ok(self.rest.split_to(len))
    }
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("a field is below 4 GiB");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes);
}
