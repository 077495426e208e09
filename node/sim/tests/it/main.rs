//! The simulator proves itself: equal runs from equal seeds, and every planted bug is found by the
//! schedules that all runs use.

mod determinism;
#[cfg(feature = "planted-bugs")]
mod planted;
mod regressions;
#[cfg(feature = "planted-bugs")]
mod table;
