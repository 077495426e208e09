//! What can be wrong with bytes that were written by another process: a batch of the log, a row of the store.

use bytes::Bytes;
use pharos_jute::DecodeError;

use crate::Level;

/// Why a log slot's payload was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The payload is empty.
    #[error("batch is empty")]
    Empty,
    /// The payload was written by a version this one does not know.
    #[error("batch has version {0}, this member knows up to {known}", known = crate::batch::RAISES)]
    Version(u8),
    /// A command is of a kind this version does not know.
    #[error("command kind {0} is not known")]
    Kind(u8),
    /// A multi contains a multi.
    #[error("multi inside a multi")]
    Nested,
    /// Bytes follow the last command.
    #[error("{0} bytes follow the last command")]
    Trailing(usize),
    /// A field could not be read.
    #[error(transparent)]
    Field(#[from] DecodeError),
    /// A required string is null.
    #[error("`{0}` is null")]
    Null(&'static str),
}

/// Why the rows of a store were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// A key belongs to no table this version knows.
    #[error("row {0:?} is of no known table")]
    Table(Bytes),
    /// A key is malformed.
    #[error("key {0:?} of table `{1}` is malformed")]
    Key(Bytes, &'static str),
    /// A row was written by a version this one does not know.
    #[error("row {key:?} of table `{table}` has version {version}, this member knows {known}")]
    Version {
        /// The row's key.
        key: Bytes,
        /// Its table.
        table: &'static str,
        /// The version found.
        version: u8,
        /// The version known.
        known: u8,
    },
    /// The state is of a level that this version does not know.
    #[error(
        "the state is of feature level {0}, this version knows levels {known}: run a version that knows level {0}",
        known = crate::Levels::KNOWN
    )]
    Level(Level),
    /// A value is malformed.
    #[error("value of row {key:?} of table `{table}`: {source}")]
    Value {
        /// The row's key.
        key: Bytes,
        /// Its table.
        table: &'static str,
        /// What is wrong.
        source: DecodeError,
    },
    /// Rows must come in ascending order of their keys.
    #[error("row {0:?} is out of order")]
    Order(Bytes),
    /// A row refers to another that is not there.
    #[error("row {key:?} refers to {what}, which is missing")]
    Missing {
        /// The row's key.
        key: Bytes,
        /// What it refers to.
        what: &'static str,
    },
    /// A table that must have a row has none.
    #[error("there is no {0} row")]
    Absent(&'static str),
    /// The rows do not add up to the digest that was stored with them.
    #[error("rows have digest {found:016x}, the meta row says {expected:016x}")]
    Digest {
        /// Computed from the rows.
        found: u64,
        /// Read from the meta row.
        expected: u64,
    },
}
