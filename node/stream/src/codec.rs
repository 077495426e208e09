//! Reading and writing the bytes of state files.
//!
//! Owns: integers (little endian), lengths (u32) and the reader that refuses short input.
//! Must not know: what the bytes mean.
//! Invariant: reading arbitrary bytes ends in a value or an error, never a panic.

/// The bytes end early or hold what cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("state is damaged at byte {at}: {what}")]
pub struct CodecError {
    /// Where.
    pub at: usize,
    /// What was expected.
    pub what: &'static str,
}

/// Appends a length and the bytes.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends a length.
pub(crate) fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&u32::try_from(len).expect("a piece of state is smaller than 4 GiB").to_le_bytes());
}

/// Sets the length that was put at byte `at`.
pub(crate) fn set_len(out: &mut [u8], at: usize, len: usize) {
    let len = u32::try_from(len).expect("a piece of state is smaller than 4 GiB");
    out[at..at + 4].copy_from_slice(&len.to_le_bytes());
}

/// Reads what the `put` functions wrote.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    #[must_use]
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Whether everything is read.
    #[must_use]
    pub(crate) const fn is_done(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// How many bytes are left.
    #[must_use]
    pub(crate) const fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// An error at the current place.
    #[must_use]
    pub(crate) const fn error(&self, what: &'static str) -> CodecError {
        CodecError { at: self.at, what }
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// If fewer are left.
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], CodecError> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(CodecError { at: self.at, what: "more bytes" })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// If fewer are left.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        Ok(self.take(N)?.try_into().expect("as many bytes as asked for"))
    }

    /// A byte.
    ///
    /// # Errors
    /// If none is left.
    pub(crate) fn u8(&mut self) -> Result<u8, CodecError> {
        Ok(self.array::<1>()?[0])
    }

    /// A truth value.
    ///
    /// # Errors
    /// If the byte is neither 0 nor 1.
    pub(crate) fn bool(&mut self) -> Result<bool, CodecError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.error("0 or 1")),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// If too few bytes are left.
    pub(crate) fn u32(&mut self) -> Result<u32, CodecError> {
        self.array().map(u32::from_le_bytes)
    }

    /// A number.
    ///
    /// # Errors
    /// If too few bytes are left.
    pub(crate) fn u64(&mut self) -> Result<u64, CodecError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number.
    ///
    /// # Errors
    /// If too few bytes are left.
    pub(crate) fn i64(&mut self) -> Result<i64, CodecError> {
        self.array().map(i64::from_le_bytes)
    }

    /// A number.
    ///
    /// # Errors
    /// If too few bytes are left.
    pub(crate) fn i128(&mut self) -> Result<i128, CodecError> {
        self.array().map(i128::from_le_bytes)
    }

    /// A number, bit by bit.
    ///
    /// # Errors
    /// If too few bytes are left.
    pub(crate) fn f64(&mut self) -> Result<f64, CodecError> {
        self.u64().map(f64::from_bits)
    }

    /// Bytes with their length.
    ///
    /// # Errors
    /// If fewer are left than the length says.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], CodecError> {
        let count = self.u32()? as usize;
        self.take(count)
    }
}
