//! The write-ahead log: one totally ordered stream of groups that holds a member's entries and hard state.
//!
//! Owns the format on disk, the rules by which a torn tail is told from a damaged one, and recovery; all of
//! it is pure and deterministic. It must not know consensus, clocks or threads; I/O lives in [`mod@file`] alone.
//!
//! Invariant: no acknowledged byte is ever rewritten with another value, and none is ever cut.
//!
//! ```text
//! segment = header block, then groups, each on a fresh 4 KiB block; preallocated, zero-filled, used again
//! group   = 512-byte sectors, each stamped with segment use, group, place, chain and checksum, then padding
//! ```
//! A flipped bit in a header copy is healed from the seven others; one in the padding behind a group, in the
//! unused rest of a segment or in a spare is harmless; one in a sector of a group is found: what comes before it is given
//! up if the caller has it elsewhere, or else the log is refused.

mod disk;
mod error;
pub mod file;
mod group;
mod header;
mod ledger;
pub mod mem;
mod plant;
mod recover;
mod sector;
mod superblock;
mod wal;

pub use disk::{BLOCK, DiskOp, DiskRead, FileName, SECTOR};
pub use error::{LogError, SlotRange, Volume};
pub use header::FORMAT;
pub use plant::Plant;
pub use recover::{Forgotten, Recovery, Replayed, Salvage, Tail};
pub use superblock::{Home, SUPERBLOCK_FORMAT, Superblock, SuperblockError};
pub use wal::{Wal, WalConfig};
