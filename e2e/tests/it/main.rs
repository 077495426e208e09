//! What a user sees of Pharos: on a real cluster, and through unmodified ZooKeeper clients.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod kazoo;
mod kubernetes;
