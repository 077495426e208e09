//! Differential test of the ZooKeeper protocol: the same random requests to two servers, everything they say compared.
//!
//! Owns a raw client, a seeded generator of requests, the comparison, and the real ZooKeeper to compare with (fetched
//! once, cached outside the clone, started on a free port). It must not know how our server is started: it is given
//! addresses.
//!
//! Invariant: one seed gives one sequence of requests, sent one at a time, so that a failure is reproduced by its seed.
//! What may differ is mapped, not ignored: zxids must keep their order, session ids their identity, equal times of one
//! transaction must be equal on both sides.

mod action;
mod client;
mod compare;
mod generate;
pub(crate) mod real;
mod rng;
mod run;

pub use real::RealZooKeeper;
pub use run::{Difference, Options, Report, run};
