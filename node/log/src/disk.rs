//! What the log asks of a disk: operations out, bytes in.
//!
//! Owns the names of segment files and the two halves of the boundary; does no I/O itself.

use bytes::Bytes;
use std::fmt;
use std::io;

/// What a disk writes as a whole or, at worst, tears once between old and new: the unit of stamping.
pub const SECTOR: usize = 512;

/// Groups start on a fresh block, so that no write touches a page that holds acknowledged bytes.
pub const BLOCK: usize = 4096;

/// A segment file. The number says nothing about the order of segments; their headers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(pub u32);

impl FileName {
    /// Reads a name as `Display` writes it.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let file = Self(name.strip_suffix(".wal")?.parse().ok()?);
        (file.to_string() == name).then_some(file)
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010}.wal", self.0)
    }
}

/// One operation on the log's directory.
///
/// The operations of one [`crate::Wal`] must be executed in the order in which it emitted them, each after the
/// one before has returned; of two `Sync`s of a file with no `Write` to it between, one may be left out.
/// Recovery rests on it: a group is written only when the group before it is durable, so that a hole before
/// a valid group proves damage. Callers that want fewer syncs put more operations into one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskOp {
    /// Create the file, or empty it; fill it with zeros; sync it and the directory.
    Create {
        /// The file.
        file: FileName,
        /// Its length, which never changes.
        size: u64,
    },
    /// Overwrite bytes within the file's length. Whole blocks, aligned.
    Write {
        /// The file.
        file: FileName,
        /// Where.
        offset: u64,
        /// What.
        data: Bytes,
    },
    /// Make all earlier writes to the file durable.
    Sync {
        /// The file.
        file: FileName,
    },
    /// Remove the file and sync the directory.
    Remove {
        /// The file.
        file: FileName,
    },
}

/// What recovery reads. It must see what is on the disk, not what a page cache believes (DESIGN 3.2).
pub trait DiskRead {
    /// The segment files, in any order; other files in the directory are not listed.
    fn list(&self) -> io::Result<Vec<FileName>>;
    /// The length of a file.
    fn len(&self, file: FileName) -> io::Result<u64>;
    /// Fills the buffer from the offset; past the end of the file it is an error.
    fn read(&self, file: FileName, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}
