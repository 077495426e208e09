//! The store: one suite over both implementations, and what is RocksDB's alone.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod full;
mod kill;
mod rocks;
mod suite;
mod twins;
