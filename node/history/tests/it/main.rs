//! Each rule with a history that keeps it and histories that break it alone.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod crowds;
mod linearizability;
mod script;
mod sessions;
mod sessions_order;
mod unknown;
mod watches;
mod writes;
