//! Panes: the results of one window, one at a time.
//!
//! Owns: what a pane says about itself.
//! Must not know: how values are accumulated.
//! Invariant: per window the timings are `Early* OnTime? Late*`.

use crate::{Timestamp, Window};

/// When a pane fired, relative to the watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PaneTiming {
    /// Before the watermark passed the end of the window.
    Early,
    /// When it passed.
    OnTime,
    /// After it.
    Late,
}

/// What a pane says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PaneInfo {
    /// When it fired.
    pub timing: PaneTiming,
    /// The number of panes of the window before it.
    pub index: u32,
    /// The number of on-time and late panes before it; `None` for an early pane.
    pub nonspeculative_index: Option<u32>,
    /// Whether it is the first pane of the window.
    pub is_first: bool,
    /// Whether it is certain that no pane of the window follows.
    pub is_last: bool,
}

/// The result of one window at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pane<P> {
    /// The window.
    pub window: Window,
    /// The timestamp of the result.
    pub timestamp: Timestamp,
    /// Which of the window's panes this is.
    pub info: PaneInfo,
    /// Where the value is gathered.
    pub value: P,
    /// Whether it goes on being gathered there; else it is for who hears of the pane to close.
    pub kept: bool,
}
