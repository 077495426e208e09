//! Sans-I/O Multi-Paxos with log-prefix semantics.

mod types;

pub use types::{
    Ballot, ConfigNo, Entry, EntryKind, HardState, IoId, LogOp, MAX_ENTRY_BYTES, MemberId, Membership, Millis, Slot,
};
