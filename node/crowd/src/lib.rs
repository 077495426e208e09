//! A crowd of clients, as tests of a whole ensemble need it: what they ask, by seed, and which watches they keep.
//!
//! Owns chances, names and values. Must not know connections, nor whether an ensemble is real. Invariant: the same seed
//! asks the same.

mod rng;
mod watching;
mod workload;

pub use rng::Rng;
pub use watching::Watching;
pub use workload::{JOB, ROOT, Workload, effects, ephemeral_parents, fixtures, look};
