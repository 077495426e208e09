//! What members say to each other.
//!
//! Owns the shapes; `codec` owns their bytes. Every message may be lost, repeated, overtaken: each carries
//! the ballot it belongs to or a number that is never used twice.

use crate::types::{Ballot, ConfigNo, Entry, Slot};

/// The most runs a message carries.
pub const MAX_RUNS: usize = 8;

/// A stretch of a log that was proposed under one ballot, by its last slot.
///
/// Ballots never fall along a log, and leader `ballot`'s log only grows, so two logs that both have
/// entries of `ballot` are equal up to the lower of their two last slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// The ballot of its entries.
    pub ballot: Ballot,
    /// Its last slot.
    pub last: Slot,
}

/// Where a follower stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Standing {
    /// The highest ballot promised.
    pub promised: Ballot,
    /// The leader's ballot of which the log is a prefix.
    pub accepted: Ballot,
    /// The log's end, durable or not.
    pub end: Slot,
    /// The end of what is durable under a durable `accepted`; zero when that stamp is not durable yet.
    pub durable: Slot,
    /// The end of the sync that is being staged; zero when none is.
    pub staged: Slot,
}

/// A message between two members.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Would you let me stand? Asked before a ballot is opened, so that a cut-off member disturbs nobody.
    Canvass {
        /// Names the question.
        nonce: u64,
        /// The configuration it would stand in.
        config: ConfigNo,
        /// The asker's accepted ballot.
        accepted: Ballot,
        /// The asker's end.
        end: Slot,
    },
    /// The answer.
    CanvassReply {
        /// Names the question.
        nonce: u64,
        /// No live leader was heard for an election timeout.
        willing: bool,
        /// The answerer's accepted ballot.
        accepted: Ballot,
        /// The answerer's end.
        end: Slot,
        /// What the answerer cannot send any more.
        trimmed: Slot,
        /// The answerer hears a majority.
        connected: bool,
        /// The answerer's promise, to be outbid.
        promised: Ballot,
    },
    /// Promise this ballot.
    Prepare {
        /// The ballot.
        ballot: Ballot,
        /// The candidate's accepted ballot.
        accepted: Ballot,
        /// The candidate's end.
        end: Slot,
        /// The candidate's commit index.
        committed: Slot,
        /// The slot of the entry that names the voters of the ballot's configuration; it is chosen.
        since: Slot,
        /// The ballot of that entry.
        by: Ballot,
        /// The last runs of the candidate's log.
        runs: Vec<Run>,
    },
    /// Promised, durably, with everything below.
    Promise {
        /// The ballot.
        ballot: Ballot,
        /// The acceptor's accepted ballot.
        accepted: Ballot,
        /// The acceptor's end.
        end: Slot,
        /// The acceptor's commit index.
        committed: Slot,
        /// What the acceptor cannot send any more.
        trimmed: Slot,
        /// The last runs of the acceptor's log.
        runs: Vec<Run>,
        /// Up to here both logs are equal, when the acceptor is fresher; else zero.
        base: Slot,
        /// The first of what the candidate lacks, from `base + 1`.
        entries: Vec<Entry>,
    },
    /// The candidate asks the promiser that it adopts for the rest.
    Fetch {
        /// The ballot.
        ballot: Ballot,
        /// The first slot wanted.
        from: Slot,
    },
    /// Some of the rest.
    Fetched {
        /// The ballot.
        ballot: Ballot,
        /// The first slot.
        from: Slot,
        /// From there.
        entries: Vec<Entry>,
    },
    /// Part of the prefix the leader adopted; takes effect when it is there up to `sync_point`.
    AcceptSync {
        /// The leader's ballot.
        ballot: Ballot,
        /// Up to here both logs are equal.
        base: Slot,
        /// The end of the adopted prefix.
        sync_point: Slot,
        /// The first slot of this part.
        from: Slot,
        /// From there.
        entries: Vec<Entry>,
        /// The leader's commit index.
        commit: Slot,
    },
    /// Append these.
    Accept {
        /// The leader's ballot.
        ballot: Ballot,
        /// The first slot.
        from: Slot,
        /// From there.
        entries: Vec<Entry>,
        /// The leader's commit index.
        commit: Slot,
    },
    /// Durable under the ballot up to `upto`.
    Accepted {
        /// The leader's ballot.
        ballot: Ballot,
        /// The end of what is durable.
        upto: Slot,
    },
    /// A part of a sync has come, or something could not be used: this is where I stand.
    Have {
        /// The leader's ballot.
        ballot: Ballot,
        /// Something is missing after that: send again from there.
        gap: bool,
        /// The follower's state.
        standing: Standing,
    },
    /// The leader lives.
    Heartbeat {
        /// The leader's ballot.
        ballot: Ballot,
        /// The round's number within the ballot.
        seq: u64,
        /// The leader's commit index.
        commit: Slot,
    },
    /// Heard, and nothing higher promised.
    HeartbeatAck {
        /// The leader's ballot.
        ballot: Ballot,
        /// The round's number.
        seq: u64,
        /// The follower's state.
        standing: Standing,
    },
    /// The commit index has moved and nothing else carries it.
    Commit {
        /// The leader's ballot.
        ballot: Ballot,
        /// The commit index.
        upto: Slot,
    },
    /// A higher ballot is promised.
    Reject {
        /// The refused ballot.
        ballot: Ballot,
        /// The promised one.
        promised: Ballot,
    },
    /// A follower asks for a confirmed read index.
    ReadRequest {
        /// Names the request.
        id: u64,
    },
    /// The answer, or none.
    ReadReply {
        /// Names the request.
        id: u64,
        /// The confirmed index.
        slot: Option<Slot>,
    },
    /// Stand now: you have all I have.
    TransferNow {
        /// The leader's ballot.
        ballot: Ballot,
    },
    /// The entry of that name is chosen, and with it all before it: a configuration has ended.
    Chosen {
        /// Its slot.
        slot: Slot,
        /// Its ballot.
        ballot: Ballot,
    },
    /// No promise: the log holds nothing.
    Lacks {
        /// The ballot.
        ballot: Ballot,
    },
}

impl Message {
    /// Whether it may be large: such messages must not delay the others.
    #[must_use]
    pub fn is_bulk(&self) -> bool {
        match self {
            Self::AcceptSync { .. } | Self::Accept { .. } | Self::Fetched { .. } => true,
            Self::Promise { entries, .. } => !entries.is_empty(),
            _ => false,
        }
    }
}
