//! What goes into a replica and what comes out of it.
//!
//! Owns the vocabulary between a member's pure half and whatever drives it: the server's reactor or the
//! simulator. Must not know sockets, files, threads or clocks.

use bytes::Bytes;
use pharos_log::DiskOp;
use pharos_paxos::{IoId, MemberId, Millis, Slot};
use pharos_znode::{RowBatch, State};

/// A client's connection. Never reused while a process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// The time of one turn of the driver's loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic, from any origin.
    pub mono: Millis,
    /// Milliseconds since the Unix epoch; may jump.
    pub wall_ms: i64,
}

/// Which of the two connections between a pair of members carries a frame. Heartbeats never queue
/// behind large messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Small messages that decide liveness.
    Control,
    /// Entries and forwarded commands.
    Bulk,
}

/// What the driver has to do. Outputs are to be carried out in order; log requests may be executed by
/// another thread, but in their own order.
#[derive(Debug)]
pub enum Output {
    /// Send the frame to the peer, or lose it if there is no connection; frames of a lane stay in order.
    Peer {
        /// Whom to.
        to: MemberId,
        /// On which connection.
        lane: Lane,
        /// The frame's body.
        frame: Bytes,
    },
    /// Carry out the operations in order, make them durable, then call `log_done(io)`. A failure ends
    /// the process.
    Log {
        /// What to complete.
        io: IoId,
        /// What to do.
        ops: Vec<DiskOp>,
    },
    /// Prepare a spare segment, beside the log requests and not before them, for it takes long; then
    /// call `spare_created(op)`, or `spare_failed()` if there is no room for it.
    Spare {
        /// What to do.
        op: DiskOp,
    },
    /// Write the rows to the store with their applied slot, flush, then call `persisted(applied)`.
    Persist {
        /// What to write.
        batch: PersistBatch,
    },
    /// Read the store for a member that lacks the state, part by part, beside the log requests.
    Snapshot {
        /// For which transfer.
        transfer: u64,
        /// What to do next.
        step: SnapshotStep,
    },
    /// A part of a state has come: put its rows beside those of the store, where a restart does not find them, give them
    /// to an [`crate::Arrival`], then call `part_stored(arrival, arrived)`, or `part_refused(arrival)`.
    Store {
        /// Of which state.
        arrival: u64,
        /// What came of another one is of no use any more.
        first: bool,
        /// It is the last one.
        last: bool,
        /// The rows.
        rows: Bytes,
    },
    /// What has come of a state is of no use any more.
    Abandon,
    /// The state before the one that was taken over: to be freed where nobody waits, for it may be large.
    Discard {
        /// What nobody needs.
        state: Box<State>,
    },
    /// Read the row with this key from the store, on another thread and not behind the cuts; then call
    /// `value_read(read, row)`. A row that was written and is not flushed may be read.
    ReadValue {
        /// Which read.
        read: u64,
        /// The row's key.
        key: Bytes,
    },
    /// Close the client's connection once what is in its buffer has been written. The replica has
    /// already forgotten the connection.
    CloseClient {
        /// Which.
        conn: ConnId,
        /// Why, for the log and the metrics.
        reason: CloseReason,
        /// What still has to be written before the close.
        last_words: Bytes,
    },
    /// The list of members has changed: connect to whom it names now. What a removed member was sent before
    /// still has to reach it. Or the feature level has risen, of which who greets is told.
    Members,
    /// This member's state is not that of a majority. It serves nobody until it has taken theirs.
    Diverged {
        /// As of this slot.
        slot: Slot,
    },
    /// The member cannot go on. The driver says so and ends the process.
    Fatal {
        /// What was found.
        reason: String,
    },
}

/// A consistent cut of what changed in the state, at most the member's durable slot; or a whole state.
#[derive(Debug)]
pub struct PersistBatch {
    /// The state's rows.
    pub rows: PersistRows,
    /// The replica's own rows: key and value.
    pub own: Vec<(Bytes, Bytes)>,
    /// Everything up to here is in the rows.
    pub applied: Slot,
}

/// The rows of a cut.
#[derive(Debug)]
pub enum PersistRows {
    /// Those that changed.
    Changed(RowBatch),
    /// Those that [`Output::Store`] put aside: nothing else stays in the store, in one atomic write.
    Arrived,
}

/// What is read of the store for a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotStep {
    /// Begin, with the store as it is after its last flush, whatever is written to it later; a cut that was given earlier
    /// comes first. Then call `snapshot_opened(transfer, applied)`.
    Open,
    /// Read on, in the order of the keys, by about as much as fits a frame; then call `snapshot_part(transfer, rows)`.
    Next,
    /// Nothing of it is wanted any more.
    Close,
}

/// Why the replica closes a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client asked, or its session ended.
    SessionEnded,
    /// Another connection took the session over.
    SessionMoved,
    /// The handshake named a session that does not exist or a wrong password.
    SessionRefused,
    /// The client has seen a later state than this member.
    ClientAhead,
    /// Writes were in flight when the leader was lost.
    LeaderLost,
    /// No quorum-confirmed leader has heard of this member for a third of the session's timeout.
    CutOff,
    /// The client sent what the protocol does not allow.
    Malformed,
    /// A wrong credential, or an operation that ends the connection.
    Refused,
    /// This member is not serving yet.
    NotServing,
    /// This member was removed from the ensemble.
    Removed,
}

impl CloseReason {
    /// The metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SessionEnded => "session_ended",
            Self::SessionMoved => "session_moved",
            Self::SessionRefused => "session_refused",
            Self::ClientAhead => "client_ahead",
            Self::LeaderLost => "leader_lost",
            Self::CutOff => "cut_off",
            Self::Malformed => "malformed",
            Self::Refused => "refused",
            Self::NotServing => "not_serving",
            Self::Removed => "removed",
        }
    }
}
