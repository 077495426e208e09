//! The program as users start it: what it says of bad input, its exit codes, and what it leaves behind.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod disks;
mod documents;
mod kit;
mod members;
mod upgrade;
