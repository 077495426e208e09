//! A whole member of an Ensemble without I/O.
//!
//! Owns how consensus, log, state, sessions, forwarding and watches make one member, and the order in
//! which clients hear of what. Must not know sockets, files, threads, clocks or randomness: all of them
//! are inputs. Invariant: the same inputs give the same outputs, so that the simulator runs what ships.

mod answers;
mod apply;
mod arrival;
mod batch;
mod clients;
mod clocks;
mod cold;
mod config_node;
mod contact;
mod damage;
mod digests;
mod expiry;
mod forward;
mod founding;
mod generation;
mod group;
mod handshake;
mod io;
mod levels;
mod liveness;
mod members;
mod outbox;
mod peer_msg;
mod persist;
mod plant;
mod queries;
mod reads;
mod registry;
mod replica;
mod requests;
mod room;
mod rows;
mod sending;
mod snapshot;
mod status;
mod watches;
mod wire;

pub use arrival::{Arrival, Arrived};
pub use config_node::config_command;
pub use damage::{BadStore, Damage, Fate, Found, Stored, inspect, is_damaged};
pub use founding::Founding;
pub use generation::{GenerationError, Holdings, NewGeneration};
pub use io::{CloseReason, ConnId, Lane, Now, Output, PersistBatch, PersistRows, SnapshotStep};
pub use levels::{LevelError, LogLevelError};
pub use peer_msg::{PeerError, reread};
pub use pharos_paxos::Plant as CorePlant;
pub use pharos_znode::{Level, Levels};
pub use plant::Plant;
pub use registry::{Change, ChangeError, Member, Registry};
pub use replica::{Boot, OWN_PREFIX, REGISTRY_KEY, Replica, ReplicaConfig, StartError, TransferError};
pub use rows::{installed_row, is_of_state, part_of, put_row, read_rows};
pub use sending::Transfers;
pub use status::{MemberRole, PeerStatus, ReplicaStatus};
pub use wire::WireError;
