//! What a user sees of Pharos on a real cluster.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod kubernetes;
