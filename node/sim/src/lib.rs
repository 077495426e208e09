//! A seeded simulator of whole Ensembles.
//!
//! Owns virtual time, disks, network, clients and faults around `pharos-replica`, which it runs exactly
//! as it ships. Must not know sockets, files or RocksDB. Invariant: a seed reproduces its run, and a run
//! that never met a kind of fault fails for want of coverage.

mod client;
mod coverage;
mod member;
mod net;
mod reference;
mod rng;
mod roll;
mod sessions;
mod violation;
mod world;

pub use coverage::Coverage;
pub use pharos_log::Plant as LogPlant;
pub use pharos_replica::{CorePlant, Plant};
pub use violation::Violation;
pub use world::{Bounds, Outcome, run};
