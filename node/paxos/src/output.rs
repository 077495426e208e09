//! What a core asks of its surroundings.
//!
//! Owns the shapes only. Outputs are to be carried out in order; a message may be lost, a write may not.

use crate::message::Message;
use crate::types::{Ballot, IoId, LogOp, MemberId, Slot};
use thiserror::Error;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Send it; loss, duplication and reordering do no harm beyond delay.
    Send {
        /// The addressee.
        to: MemberId,
        /// The message.
        msg: Message,
    },
    /// Append these operations to the log as one atomic group and report `disk_done` when durable.
    Write {
        /// Its number; they rise by one.
        io: IoId,
        /// In this order.
        ops: Vec<LogOp>,
    },
    /// Everything up to here is chosen and stands in this member's log, durable here or not. After a start
    /// the first one covers what the log's last hint knew, from the trim point on.
    Commit {
        /// The last chosen slot.
        upto: Slot,
    },
    /// Whoever has applied up to `slot` reads what was current after `read_index(ctx)` was called.
    ReadReady {
        /// As given to `read_index`.
        ctx: u64,
        /// To be applied before the read.
        slot: Slot,
    },
    /// No answer: no leader, or it was lost on the way.
    ReadFailed {
        /// As given to `read_index`.
        ctx: u64,
    },
    /// This member's part has changed; it starts as a follower of nobody.
    Role(Role),
    /// The core has stopped and ignores all further inputs.
    Fatal {
        /// Why.
        reason: &'static str,
    },
}

/// The part a member plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It follows, or waits for someone to follow.
    Follower {
        /// The leader of `ballot`, once it was heard.
        leader: Option<MemberId>,
        /// The highest ballot promised.
        ballot: Ballot,
    },
    /// It stands for election.
    Candidate,
    /// It leads: the prefix is adopted and proposals are taken.
    Leader {
        /// Its ballot.
        ballot: Ballot,
    },
}

/// Why a proposal was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotLeader {
    /// Another member leads, or nobody.
    #[error("this member does not lead")]
    NotLeading {
        /// Who does, if known.
        leader: Option<MemberId>,
    },
    /// Too much is proposed and not yet committed; room comes with the next commit.
    #[error("the proposal window is full")]
    WindowFull,
    /// Leadership is being handed over.
    #[error("leadership is being handed over")]
    Transferring,
    /// The configuration is sealed: the next one's leader takes proposals.
    #[error("the configuration is sealed")]
    Sealed,
    /// The payload exceeds [`crate::MAX_ENTRY_BYTES`].
    #[error("the payload is larger than an entry may be")]
    TooLarge,
}

/// Why a configuration was not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReconfigError {
    /// Only the leader can.
    #[error("this member does not lead")]
    NotLeading,
    /// Another change is under way, or the leader is new: try again soon.
    #[error("another change is under way, or the leader is new")]
    Busy,
    /// There would be nobody to vote.
    #[error("no voters are named")]
    NoVoters,
    /// These are the voters.
    #[error("these are the voters already")]
    Unchanged,
    /// A new voter must first be a learner and catch up.
    #[error("member {0} has not caught up")]
    Behind(MemberId),
    /// The names of the members exceed [`crate::MAX_ENTRY_BYTES`].
    #[error("the membership is larger than an entry may be")]
    TooLarge,
}
