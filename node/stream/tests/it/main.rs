//! The engine with the real files of `pharos-connect`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::type_complexity, reason = "a test fails by panicking")]

mod by_hand;
mod joins;
mod load;
mod memory;
mod recovery;
mod support;
mod upgrade;
mod workers;
mod yaml;
