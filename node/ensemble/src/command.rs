//! What other threads tell the reactor.
//!
//! Owns the channel and the wake-up. Must not know what the reactor does with a command.

use bytes::Bytes;
use mio::Waker;
use pharos_log::DiskOp;
use pharos_paxos::{ConfigNo, IoId, MemberId, Slot};
use pharos_replica::{Arrived, Change, Levels};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

/// What another thread wants of the reactor.
#[derive(Debug)]
pub(crate) enum Command {
    /// The log has carried out a request, and with it all before.
    LogDone(IoId),
    /// A spare segment exists.
    SpareCreated(DiskOp),
    /// A spare segment could not be created; to be asked for again.
    SpareFailed,
    /// The store found no room to flush, or the reserve that is kept for it cannot be made.
    StoreFull,
    /// The reserve is there.
    StoreHasRoom,
    /// The store has flushed a cut.
    Persisted(Slot),
    /// The store is open for a transfer, as of its last flush.
    SnapshotOpened(u64, Slot),
    /// The next rows for a transfer; none when there are no more.
    SnapshotPart(u64, Option<Bytes>),
    /// The store was opened again: it cannot be read on for a transfer.
    SnapshotLost(u64),
    /// A part of a state that comes is put aside, or makes no state, or does not fit; with the last one, the state.
    PartStored(u64, Result<Option<Box<Arrived>>, String>),
    /// The row that a read asked for.
    ValueRead(u64, Option<Bytes>),
    /// A dialler has both connections to a peer.
    Dialled {
        /// Whose.
        peer: MemberId,
        /// Which attempt.
        link: u64,
        /// The control lane.
        control: TcpStream,
        /// The bulk lane.
        bulk: TcpStream,
    },
    /// Someone with the token asks for something.
    Ask {
        /// For what.
        ask: Ask,
        /// Whether it is under way.
        reply: oneshot::Sender<Reply>,
    },
    /// A copy of the store is to be made there, of a state that has all that was applied before.
    Copy {
        /// The directory to be made.
        dir: PathBuf,
        /// Who waits for it.
        reply: Copied,
    },
    /// A thread that the member cannot do without has failed.
    Failed(String),
    /// End in good order.
    Shutdown,
}

/// Is told of which slot a copy is, or why there is none.
pub(crate) type Copied = oneshot::Sender<Result<Slot, String>>;

/// What the leader can be asked for.
#[derive(Debug)]
pub(crate) enum Ask {
    /// To hand leadership to a member.
    Transfer(MemberId),
    /// To change the list of members, but not the voters.
    Members {
        /// How.
        change: Change,
        /// What a new member can carry out, if whoever asks says so.
        levels: Option<Levels>,
    },
    /// To end this configuration and go on with these voters.
    Voters {
        /// The one that is meant.
        config: ConfigNo,
        /// Those of the next.
        voters: Vec<MemberId>,
    },
}

/// The outcome of [`Command::Ask`].
#[derive(Debug)]
pub(crate) enum Reply {
    /// It is under way.
    Started,
    /// And why not.
    Refused(String),
}

/// The sending end. A command to a reactor that is gone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Commands {
    sender: Sender<Command>,
    waker: Arc<Waker>,
}

impl Commands {
    /// A channel that wakes the reactor's poll.
    pub(crate) fn new(waker: Waker) -> (Self, Receiver<Command>) {
        let (sender, receiver) = channel();
        (Self { sender, waker: Arc::new(waker) }, receiver)
    }

    /// Hands over a command and wakes the reactor.
    pub(crate) fn send(&self, command: Command) {
        if self.sender.send(command).is_ok()
            && let Err(error) = self.waker.wake()
        {
            tracing::warn!(%error, "cannot wake the reactor; it wakes by itself within 10 ms");
        }
    }
}
