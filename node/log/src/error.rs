//! Why a log cannot be opened. Every message names the file and, where there is one, the place.

use crate::disk::FileName;
use pharos_paxos::Slot;
use std::fmt;
use std::io;

/// Why [`crate::Wal::recover`] refuses.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// There is no segment: the log was never formatted, or formatting did not end.
    #[error("the log has no segment: the volume was never formatted")]
    NoLog,
    /// A segment that belongs to the log is gone.
    #[error("log segment {segment} is missing; {slots} may have been acknowledged")]
    Missing {
        /// The number of the segment, which is not that of a file.
        segment: u32,
        /// What may be lost.
        slots: SlotRange,
    },
    /// Bytes that may have been acknowledged are damaged. Nothing is cut; the member must not vote.
    #[error("log file {file} is corrupt at byte {offset}: {what}; {slots} may have been acknowledged")]
    Corrupt {
        /// The file.
        file: FileName,
        /// Where the damaged group or header begins.
        offset: u64,
        /// What does not check.
        what: &'static str,
        /// What may be lost.
        slots: SlotRange,
    },
    /// Written by a newer version.
    #[error(
        "log file {file} has format {format} and needs a reader of format {min_reader} or later; this build reads {reads}"
    )]
    UnknownFormat {
        /// The file.
        file: FileName,
        /// The format it was written in.
        format: u16,
        /// The oldest format whose reader may read it.
        min_reader: u16,
        /// What this build reads.
        reads: u16,
    },
    /// An intact group with a record of a kind that this build does not know.
    #[error("log file {file} holds a record of unknown kind {kind} at byte {offset}")]
    UnknownRecord {
        /// The file.
        file: FileName,
        /// Where the group begins.
        offset: u64,
        /// The kind.
        kind: u8,
    },
    /// A segment of another volume.
    #[error("log file {file} belongs to volume {found}, not to {expected}")]
    ForeignVolume {
        /// The file.
        file: FileName,
        /// The volume in its header.
        found: Volume,
        /// This volume.
        expected: Volume,
    },
    /// The disk does not answer.
    #[error("cannot {what} log file {file}")]
    Read {
        /// What was tried.
        what: &'static str,
        /// The file.
        file: FileName,
        /// The reason.
        source: io::Error,
    },
    /// The directory does not answer.
    #[error("cannot list the log directory")]
    List(#[source] io::Error),
}

impl LogError {
    /// Whether something that was written is not there as it was written. All else is for a person to put right: a disk
    /// that does not answer may answer again, and what a later version or another volume wrote is whole.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::NoLog | Self::Missing { .. } | Self::Corrupt { .. } => true,
            Self::UnknownFormat { .. }
            | Self::UnknownRecord { .. }
            | Self::ForeignVolume { .. }
            | Self::Read { .. }
            | Self::List(_) => false,
        }
    }
}

/// The slots that damage may have hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRange {
    /// The first slot not read before the damage.
    pub from: Slot,
    /// The last slot before the next readable place, if there is one.
    pub to: Option<Slot>,
}

impl fmt::Display for SlotRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to {
            Some(to) if to < self.from => write!(f, "promises after slot {}", self.from.0.saturating_sub(1)),
            Some(to) => write!(f, "slots {} to {to}", self.from),
            None => write!(f, "slot {} and later ones", self.from),
        }
    }
}

/// A volume id, written in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume(pub [u8; 16]);

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
