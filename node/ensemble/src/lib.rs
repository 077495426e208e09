//! The server around a replica: sockets, threads, the data directory, the admin endpoints.
//!
//! Owns all I/O of a member. Must not know consensus, the tree, sessions or watches: those are
//! `pharos-replica`'s, which this crate drives.
//!
//! Invariant: one thread owns the sockets and the replica; other threads only hand it commands.

mod admin;
mod arriving;
mod aside;
mod at_rest;
mod backup;
mod clients;
mod command;
mod config;
mod datadir;
mod dial;
mod disks;
mod frames;
mod hello;
mod links;
mod metrics;
mod os;
mod permit;
mod reactor;
mod reserve;
mod server;
mod slab;
mod sockets;
mod state_store;
mod status;
mod view;
mod words;
mod worker;

#[cfg(test)]
mod tests;

pub use at_rest::{AtRest, Restore, Restored};
pub use backup::{BackupError, BackupManifest, BackupPart, BackupStream};
pub use config::{Admission, ServerConfig, ServerError, Tuning};
pub use datadir::Volume;
pub use frames::DEFAULT_MAX_CLIENT_FRAME;
pub use hello::Id128;
pub use os::{memory_limit, raise_descriptor_limit};
pub use permit::{HexId, Permit, PermitError, PermitFounder};
pub use server::{Addresses, Server, ServerHandle};
pub use status::{
    Counters, Gauges, GaveUp, HexText, Identity, Latency, LevelRange, Life, PeerStatus, RoleName, Snapshot,
    Status, VERSION, ZOOKEEPER_VERSION,
};
