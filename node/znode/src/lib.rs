//! The replicated state of an Ensemble: ZooKeeper's tree, its sessions and access control lists.
//!
//! Owns what every member computes alike: [`State::apply`] takes a [`Command`] of the log and the log's time, changes
//! the tree by ZooKeeper 3.9's rules, and says what to answer and which watch events to fire. It also owns the form of
//! commands in the log ([`Batch`]) and of rows in the store ([`RowBatch`], [`State::from_rows`]), and which values stay
//! in memory ([`State::keep_values`]). It must not know
//! consensus, sockets, watches, clocks, randomness or a database.
//!
//! Invariant: the same commands give the same state, results, events and digest on each member, and a state read back
//! from its rows is equal to the one that wrote them. A failed command leaves no trace but its zxid.

mod acl;
mod acl_table;
mod applied;
mod batch;
mod cold;
mod command;
mod cut;
mod ending;
mod error;
mod hash;
mod level;
mod load;
mod multi;
mod node;
mod path;
mod read;
mod rows;
mod session;
mod slab;
mod state;
mod transcode;
mod tree;
mod undo;
mod write;

pub use acl::{allowed, digest_auth, is_super, redacted, user_name};
pub use applied::{Applied, Event, PathSpan, Reply, SessionEvent, TreeEvent};
pub use batch::{Batch, BatchDecoder};
pub use cold::ColdValue;
pub use command::{Command, Op, Settings};
pub use error::{BatchError, RowError};
pub use level::{Level, Levels};
pub use load::StateLoader;
pub use path::validate_path;
pub use pharos_jute::{Acl, CreateMode, ErrorCode, EventType, Id, Stat, perms};
pub use read::{AclView, ChildNames, Children, NodeData, Value};
pub use rows::{RowBatch, RowView};
pub use session::Session;
pub use state::{Progress, State};
pub use transcode::{EncodedOp, MultiTranscoder};

use std::fmt;

/// A transaction's number: the leader's epoch in the high half, a counter in the low half. Every command that ZooKeeper
/// counts takes one, failed ones too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Zxid(pub i64);

impl Zxid {
    /// The epoch.
    pub const fn epoch(self) -> i64 {
        self.0 >> 32
    }

    /// The counter within the epoch.
    pub const fn counter(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }

    /// The number after this one. The counter runs over into the epoch, so that numbers never repeat.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The number at which the next epoch starts.
    #[must_use]
    pub const fn next_epoch(self) -> Self {
        Self((self.epoch() + 1) << 32)
    }
}

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

impl fmt::Debug for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A session's number, chosen by the member that opened it; 0 is none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SessionId(pub i64);

impl SessionId {
    /// No session: commands of the ensemble itself.
    pub const NONE: Self = Self(0);
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
