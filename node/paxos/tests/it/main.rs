//! The core from outside: scripted scenarios, the known traps by name, random schedules, the codec.

#![expect(
    clippy::panic,
    reason = "the oracle and the wire are test code; clippy sees only test functions as such"
)]

mod codec;
mod net;
mod oracle;
mod random;
mod reconfig;
mod scenarios;
mod traps;
