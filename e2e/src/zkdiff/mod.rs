//! Differential test of the ZooKeeper protocol: the same random requests to two servers, everything they say compared.
//!
//! Owns a raw client, a seeded generator of requests and the comparison. It must not know how the servers are started:
//! it is given addresses.
//!
//! Invariant: one seed gives one sequence of requests, sent one at a time, so that a failure is reproduced by its seed.
//! What may differ is mapped, not ignored: zxids must keep their order, session ids their identity, equal times of one
//! transaction must be equal on both sides.

mod action;
mod client;
mod compare;
mod generate;
mod run;

pub use run::{Difference, Options, Report, run};
