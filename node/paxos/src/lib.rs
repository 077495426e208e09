//! Sans-I/O Multi-Paxos with log-prefix ("sequence") semantics.
//!
//! Messages, ticks and disk completions go in; messages, log writes, commits and answers to reads come
//! out. The crate knows no socket, file, clock or thread, and the same inputs give the same outputs byte
//! for byte.
//!
//! The invariant everything else rests on: **an acceptor's log is always a prefix of the log of the leader
//! whose ballot it has accepted**, and reaches at least to the end which that leader adopted. A candidate
//! therefore takes the log of the highest (accepted ballot, end) in a prepare quorum, whole.

mod acceptor;
mod codec;
mod config;
mod disk;
mod election;
mod forget;
mod leader;
mod log_view;
mod message;
mod output;
mod paxos;
mod peer;
mod plant;
mod quorum;
mod read_index;
mod reconfig;
mod status;
mod types;

pub use codec::DecodeError;
pub use config::{Config, Recovered};
pub use message::{MAX_RUNS, Message, Run, Standing};
pub use output::{NotLeader, Output, ReconfigError, Role};
pub use paxos::Paxos;
pub use plant::Plant;
pub use status::{PeerPhase, PeerStatus, Status};
pub use types::{
    Ballot, ConfigNo, Entry, EntryKind, HardState, IoId, LogOp, MAX_ENTRY_BYTES, MemberId, Membership,
    Millis, Slot,
};
