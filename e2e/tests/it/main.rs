//! What a user sees of Pharos: on a real cluster, through unmodified ZooKeeper clients, and beside a real ZooKeeper.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod chaos;
mod clocks;
mod damage;
mod differential;
mod hosts;
mod kazoo;
mod kubernetes;
mod levels;
mod members;
mod pipelines;
mod recover;
mod restart;
