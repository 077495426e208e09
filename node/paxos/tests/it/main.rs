//! The core from outside: scripted scenarios, the known traps by name, random schedules, the codec.

mod codec;
mod net;
mod oracle;
mod random;
mod scenarios;
mod traps;
