//! The protocol's names: members, ballots, slots, entries and the operations on durable state.
//!
//! Owns nothing but types shared by the core, the log that stores them and the replica that wires both.

use bytes::Bytes;
use std::fmt;

/// A voter or learner. Ids are never reused: a new disk is a new member (DESIGN 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u32);

/// The number of a configuration; the founding one is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigNo(pub u32);

/// A ballot, ordered by configuration, then round, then member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// The configuration in which the ballot was opened.
    pub config: ConfigNo,
    /// The round within the configuration.
    pub round: u64,
    /// The member that opened the ballot and alone may lead in it.
    pub member: MemberId,
}

impl Ballot {
    /// Lower than every ballot a member can open: what an empty log has accepted.
    pub const ZERO: Self = Self { config: ConfigNo(0), round: 0, member: MemberId(0) };
}

/// A position in the log. The first entry is slot 1; 0 means "before the first".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u64);

impl Slot {
    /// Before the first entry.
    pub const ZERO: Self = Self(0);

    /// The slot after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A write handed to the log. Ids rise by one; the completion of one covers all lower ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IoId(pub u64);

/// A point on the caller's monotonic clock, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

/// What an entry's payload is. The numbers are on disk and on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// The first entry of a leader, or a roll-over in place: the epoch of the zxid rises by one.
    EpochStart = 1,
    /// A batch of replicated commands, opaque to the core.
    Commands = 2,
    /// The founding configuration: always slot 1, the same on every founder.
    Founding = 3,
}

/// One slot of the log.
///
/// Two entries with the same ballot and slot are the same entry and have the same prefix before them,
/// because logs are only ever copied as whole prefixes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Where it stands.
    pub slot: Slot,
    /// The ballot under which it was first proposed; adoption by a later leader does not change it.
    pub ballot: Ballot,
    /// How to read the payload.
    pub kind: EntryKind,
    /// At most [`MAX_ENTRY_BYTES`].
    pub payload: Bytes,
}

/// The largest payload of one entry, in bytes: one 16 MiB multi and its envelope.
pub const MAX_ENTRY_BYTES: usize = 17 << 20;

/// One operation on a member's durable protocol state. Operations of one write are atomic, and all
/// writes form one totally ordered stream: a promise is durable only after every earlier write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LogOp {
    /// Drop this slot and all above it. Never at or below the committed slot.
    Truncate {
        /// The first slot to go.
        from: Slot,
    },
    /// Forget every entry: the log goes on after this slot. All up to it is chosen, and held elsewhere.
    Reset {
        /// Not below the committed slot.
        after: Slot,
    },
    /// Append the entry; its slot is one above the log's end.
    Append(Entry),
    /// The log is now a prefix of the log of this ballot's leader.
    Accepted(Ballot),
    /// No lower ballot is answered any more.
    Promised(Ballot),
    /// A hint that saves re-learning at restart: everything up to here is chosen.
    Committed(Slot),
}

/// A member's durable protocol state beside the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HardState {
    /// The highest ballot promised.
    pub promised: Ballot,
    /// The ballot whose leader's log this log is a prefix of.
    pub accepted: Ballot,
    /// A lower bound of what is chosen.
    pub committed: Slot,
}

impl HardState {
    /// The state of an empty disk.
    pub const EMPTY: Self = Self { promised: Ballot::ZERO, accepted: Ballot::ZERO, committed: Slot::ZERO };
}

/// Who votes. Learners come with reconfiguration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Membership {
    /// The configuration's number.
    pub config: ConfigNo,
    /// The voters, sorted, without duplicates, never empty.
    pub voters: Vec<MemberId>,
}

impl Membership {
    /// The size of a majority of the voters.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.config.0, self.round, self.member.0)
    }
}
