//! The engine that runs a plan: columns, keyed state, exchange between threads, checkpoints.
//!
//! Owns: batches, kernels, aggregation by window, the rounds in which time advances, and the
//! coordinator of checkpoints.
//! Must not know: where bytes come from and go to (`pharos-connect`), Kubernetes.
//! Invariant: the results and the rows dropped as late are a function of the plan and of the data,
//! whatever the number of threads and however often the process was killed.

mod aggregate;
mod assemble;
mod assertion;
mod assignment;
pub mod checkpoint;
mod cluster;
mod codec;
pub mod column;
mod control;
pub mod coordination;
mod driver;
mod engine;
mod error;
mod event;
mod exchange;
mod exec;
mod graph;
mod group;
pub mod io;
pub mod json;
pub mod kernel;
mod key;
mod load;
#[doc(hidden)]
pub mod measure;
mod meter;
mod plant;
mod run;
#[cfg(test)]
mod sim;
mod spill;
mod wanted;

pub use cluster::{WorkerOptions, work};
pub use control::Outcome;
pub use error::StreamError;
pub use event::{Event, GroupReport, Listener, Report};
pub use exec::STEP_RECORDS;
pub use load::{
    Bottleneck, Flow, Load, Peer, Queue, STALL_BOUNDS, SplitAt, SplitLag, Stalls, TaskLoad, bottleneck,
    worst_splits,
};
pub use meter::Meters;
pub use pharos_window::{Timestamp, Watermark};
pub use run::{CheckpointOptions, Durability, RunOptions, run};
pub use spill::{SpillError, StateMemory};
