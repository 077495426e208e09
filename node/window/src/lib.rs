//! Event time, windows, lateness and panes, after Apache Beam's model.
//!
//! Owns: the arithmetic of timestamps and watermarks, the assignment and merging of windows, the
//! rule of lateness, and the firing of panes per key under the default trigger.
//! Must not know: rows, columns, files, threads, clocks.
//! Invariant: everything here is a function of its arguments; a watermark never goes back.

mod group;
mod pane;
mod strategy;
mod time;
mod watermark;
mod window;

pub use group::{Gather, KeyedWindows, WindowSnapshot};
pub use pane::{Pane, PaneInfo, PaneTiming};
pub use strategy::{Accumulation, Lateness, TimestampCombiner, WindowingStrategy};
pub use time::{Span, Timestamp};
pub use watermark::{SplitState, SplitWatermarks, Watermark};
pub use window::{IntervalWindow, Window, WindowFn, WindowFnError};
