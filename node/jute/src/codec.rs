//! Jute's primitives: big-endian integers, one-byte booleans, length-prefixed strings, buffers and vectors.
//!
//! [`Reader`] borrows from the frame; the `put_…` functions append to any [`BufMut`].

use bytes::BufMut;

use crate::DecodeError;

type Result<T> = std::result::Result<T, DecodeError>;

/// A cursor over the bytes of one record. Each method names the field it reads, for the error.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The bytes that have not been read.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated { field })?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N]> {
        let (head, tail) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated { field })?;
        self.rest = tail;
        Ok(*head)
    }

    /// Reads one byte.
    pub fn u8(&mut self, field: &'static str) -> Result<u8> {
        Ok(self.array::<1>(field)?[0])
    }

    /// Reads an `int`.
    pub fn i32(&mut self, field: &'static str) -> Result<i32> {
        Ok(i32::from_be_bytes(self.array(field)?))
    }

    /// Reads a `long`.
    pub fn i64(&mut self, field: &'static str) -> Result<i64> {
        Ok(i64::from_be_bytes(self.array(field)?))
    }

    /// Reads a boolean: any byte but 0 is true, as in Java.
    pub fn bool(&mut self, field: &'static str) -> Result<bool> {
        Ok(self.u8(field)? != 0)
    }

    /// Reads a buffer; `None` is the null buffer.
    pub fn buffer(&mut self, field: &'static str) -> Result<Option<&'a [u8]>> {
        match self.length(field)? {
            None => Ok(None),
            Some(len) => self.take(len, field).map(Some),
        }
    }

    /// Reads a string; `None` is the null string.
    pub fn string(&mut self, field: &'static str) -> Result<Option<&'a str>> {
        match self.buffer(field)? {
            None => Ok(None),
            Some(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(DecodeError::Utf8 { field }),
            },
        }
    }

    /// Reads a vector; `None` is the null vector. Memory grows with the elements really read.
    pub fn vector<T>(
        &mut self,
        field: &'static str,
        mut element: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Option<Vec<T>>> {
        let Some(count) = self.length(field)? else { return Ok(None) };
        let mut out = Vec::new();
        for _ in 0..count {
            out.push(element(self)?);
        }
        Ok(Some(out))
    }

    /// Reads a vector of strings; null strings count as empty, a null vector as none.
    pub fn strings(&mut self, field: &'static str) -> Result<Vec<&'a str>> {
        Ok(self.vector(field, |r| Ok(r.string(field)?.unwrap_or_default()))?.unwrap_or_default())
    }

    /// Reads a length: `None` for -1. No element takes less than a byte, so a length beyond the rest is refused here.
    fn length(&mut self, field: &'static str) -> Result<Option<usize>> {
        let len = self.i32(field)?;
        if len == -1 {
            return Ok(None);
        }
        match usize::try_from(len) {
            Ok(n) if n <= self.rest.len() => Ok(Some(n)),
            _ => Err(DecodeError::Length { field, len }),
        }
    }
}

/// Appends a boolean.
pub fn put_bool(out: &mut impl BufMut, value: bool) {
    out.put_u8(u8::from(value));
}

/// Appends a vector's count.
pub fn put_vector_len(out: &mut impl BufMut, len: usize) {
    out.put_i32(i32::try_from(len).expect("a record holds less than 2 GiB"));
}

/// Appends a buffer, or the null buffer.
pub fn put_buffer(out: &mut impl BufMut, value: Option<&[u8]>) {
    match value {
        None => out.put_i32(-1),
        Some(bytes) => {
            put_vector_len(out, bytes.len());
            out.put_slice(bytes);
        }
    }
}

/// Appends a string, or the null string.
pub fn put_string(out: &mut impl BufMut, value: Option<&str>) {
    put_buffer(out, value.map(str::as_bytes));
}

/// Appends a vector of strings. The iterator must know its length, for the count comes first on the wire.
pub fn put_strings<'s>(out: &mut impl BufMut, values: impl ExactSizeIterator<Item = &'s str>) {
    put_vector_len(out, values.len());
    for value in values {
        put_string(out, Some(value));
    }
}

/// Appends one frame: the length, then what `body` writes.
pub fn framed(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = begin_frame(out);
    body(out);
    end_frame(out, start);
}

/// Leaves room for a frame's length; the result goes to [`end_frame`].
pub fn begin_frame(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.put_i32(0);
    start
}

/// Writes the length of the frame that [`begin_frame`] began.
pub fn end_frame(out: &mut [u8], start: usize) {
    let body = start + 4;
    let len = i32::try_from(out.len() - body).expect("a frame holds less than 2 GiB");
    out[start..body].copy_from_slice(&len.to_be_bytes());
}
