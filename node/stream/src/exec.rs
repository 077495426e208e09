//! Execution: threads, tasks, rounds.
//!
//! Time advances in steps. In a step every split gives [`STEP_RECORDS`] records (fewer at its end),
//! and only between steps do watermarks move: in step `n` of any part of the plan, late is what is
//! late by the least watermark of all splits after their step `n - 1`. Sixteen steps travel together
//! as a round, and a task takes part in a round once everything that reaches it has. So what a task
//! sees in a step, and what is late in it, depends on the data alone: not on batches, on clocks, on
//! the number of threads, nor on where a checkpoint was taken.
//!
//! Owns: the order of work.
//! Must not know: formats, stores, the Ensemble.
//! Invariant: whatever the threads, each target is given the same rounds.

pub(crate) mod channel;
pub(crate) mod fragment;
pub(crate) mod outlet;
mod pairs;
pub(crate) mod task;
pub(crate) mod worker;

/// How many records of each split make a step. Part of what a checkpoint means: another number
/// would draw the line between late and not late elsewhere.
pub const STEP_RECORDS: usize = 32;

/// How many steps travel together.
pub(crate) const ROUND_STEPS: usize = 16;

/// How many records of each split make a round.
pub(crate) const ROUND_RECORDS: usize = STEP_RECORDS * ROUND_STEPS;
