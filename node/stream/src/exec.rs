//! Execution: threads, tasks, rounds.
//!
//! Time advances in rounds. In a round every split gives [`ROUND_RECORDS`] records (fewer at its
//! end); a task takes part in a round once everything that reaches it has; watermarks move between
//! rounds only. So what a task sees in a round, and what is late in it, depends on the data alone:
//! not on batches, on clocks, on the number of threads, nor on where a checkpoint was taken.
//!
//! Owns: the order of work.
//! Must not know: formats, stores, the Ensemble.
//! Invariant: whatever the threads, each target is given the same rounds.

pub mod channel;
pub mod fragment;
pub mod task;
pub mod worker;

/// How many records of each split make a round. Part of what a checkpoint means: another number
/// would draw the line between late and not late elsewhere.
pub const ROUND_RECORDS: usize = 512;
