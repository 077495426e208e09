//! Beam YAML documents through the public entry points.

#![allow(clippy::panic, clippy::unwrap_used, reason = "the helpers of tests fail by panicking")]

mod errors;
mod joins;
mod plans;
mod robustness;
mod state;
mod support;
