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
    /// The ballot of the founding entry: below every ballot a member can open.
    pub const FOUNDING: Self = Self { config: ConfigNo(1), round: 0, member: MemberId(0) };
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
    /// The last entry of a configuration, which names the voters of the next: see [`Entry::seals`].
    Seal = 4,
    /// A change of the list of members that leaves the voters as they are, opaque to the core.
    Members = 5,
}

impl EntryKind {
    /// The kind of that number.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        [Self::EpochStart, Self::Commands, Self::Founding, Self::Seal, Self::Members]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
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

/// The version of a seal's payload.
const SEAL_VERSION: u8 = 1;

impl Entry {
    /// A seal: it names the number and the voters, sorted, of the next configuration. `rest` travels with it and means
    /// nothing to the core.
    #[must_use]
    pub fn seal(slot: Slot, ballot: Ballot, config: ConfigNo, voters: &[MemberId], rest: &[u8]) -> Self {
        let mut out = vec![SEAL_VERSION];
        out.extend_from_slice(&config.0.to_le_bytes());
        out.extend_from_slice(&(voters.len() as u32).to_le_bytes());
        voters.iter().for_each(|voter| out.extend_from_slice(&voter.0.to_le_bytes()));
        out.extend_from_slice(rest);
        Self { slot, ballot, kind: EntryKind::Seal, payload: out.into() }
    }

    /// The configuration that begins after this entry, and what whoever asked for it added. None if the entry is no
    /// seal, or not one that this program can read.
    #[must_use]
    pub fn seals(&self) -> Option<(Membership, Bytes)> {
        if self.kind != EntryKind::Seal {
            return None;
        }
        let (version, rest) = self.payload.split_first()?;
        let (config, rest) = rest.split_first_chunk::<4>()?;
        let (count, rest) = rest.split_first_chunk::<4>()?;
        let (ids, rest) = rest.split_at_checked(4 * u32::from_le_bytes(*count) as usize)?;
        let (ids, _) = ids.as_chunks::<4>();
        let voters: Vec<_> = ids.iter().map(|id| MemberId(u32::from_le_bytes(*id))).collect();
        let sound = *version == SEAL_VERSION && !voters.is_empty() && voters.is_sorted_by(|a, b| a < b);
        let config = ConfigNo(u32::from_le_bytes(*config));
        let next = Membership { config, voters, since: self.slot, by: self.ballot };
        sound.then(|| (next, self.payload.slice_ref(rest)))
    }
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

/// Who votes, and the entry that says so.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Membership {
    /// The configuration's number.
    pub config: ConfigNo,
    /// The voters, sorted, without duplicates, never empty.
    pub voters: Vec<MemberId>,
    /// The slot of the entry that names them: the founding entry, or the seal of the configuration before.
    pub since: Slot,
    /// The ballot of that entry.
    pub by: Ballot,
}

impl Membership {
    /// The founding configuration.
    #[must_use]
    pub fn founding(voters: Vec<MemberId>) -> Self {
        Self { config: ConfigNo(1), voters, since: Slot(1), by: Ballot::FOUNDING }
    }

    /// Whether that member votes.
    #[must_use]
    pub fn has(&self, member: MemberId) -> bool {
        self.voters.binary_search(&member).is_ok()
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
