//! ZooKeeper's rules as tables, and random sequences against a naive model.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests too")]

mod acls;
mod batches;
mod cold;
mod containers;
mod errors;
mod events;
mod model;
mod multis;
mod random;
mod rows;
mod sessions;
mod slices;
mod stats;
mod world;
