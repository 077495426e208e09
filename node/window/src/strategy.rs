//! What a grouping does with windows.
//!
//! Owns: the windowing strategy and the rules of lateness and of output timestamps.
//! Must not know: keys, values.
//! Invariant: a window is dropped exactly when it is garbage collected.

use crate::{Span, Timestamp, Watermark, Window, WindowFn};

/// Whether a pane repeats what earlier panes of its window held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Accumulation {
    /// Each pane holds only what is new.
    #[default]
    Discarding,
    /// Each pane holds everything since the window began.
    Accumulating,
}

/// Which timestamp the output of a window gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TimestampCombiner {
    /// The last instant of the window.
    #[default]
    EndOfWindow,
    /// The earliest timestamp of the pane.
    Earliest,
    /// The latest timestamp of the pane.
    Latest,
}

impl TimestampCombiner {
    /// The output timestamp for an element at `at` in `window`: not before `at`, not after the end.
    #[must_use]
    pub fn shift(self, at: Timestamp, window: Window) -> Timestamp {
        match self {
            Self::EndOfWindow => window.max_timestamp(),
            Self::Earliest | Self::Latest => at.min(window.max_timestamp()),
        }
    }

    /// Of two output timestamps in one pane, the one that counts.
    #[must_use]
    pub fn combine(self, one: Timestamp, other: Timestamp) -> Timestamp {
        match self {
            Self::Earliest => one.min(other),
            Self::Latest | Self::EndOfWindow => one.max(other),
        }
    }
}

/// How far behind the watermark a window may still receive elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Lateness(pub Span);

/// What a grouping does with windows. The trigger is the default one: a pane when the watermark
/// passes the end of the window, then a pane for each bundle of late elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WindowingStrategy {
    /// How windows are assigned.
    pub window_fn: WindowFn,
    /// How late elements may be.
    pub allowed_lateness: Lateness,
    /// Which timestamp results get.
    pub timestamp_combiner: TimestampCombiner,
    /// What a second pane holds.
    pub accumulation: Accumulation,
}

impl WindowingStrategy {
    /// Beam's defaults for `window_fn`: no lateness, end-of-window timestamps, discarding panes.
    #[must_use]
    pub fn with_defaults(window_fn: WindowFn) -> Self {
        Self {
            window_fn,
            allowed_lateness: Lateness::default(),
            timestamp_combiner: TimestampCombiner::default(),
            accumulation: Accumulation::default(),
        }
    }

    /// The last instant at which `window` still exists.
    #[must_use]
    pub fn garbage_collection_time(&self, window: Window) -> Timestamp {
        window.max_timestamp().plus(self.allowed_lateness.0).min(Timestamp::GLOBAL_WINDOW_MAX)
    }

    /// Whether `window` is past: elements for it are dropped and its state is cleared.
    #[must_use]
    pub fn is_expired(&self, window: Window, input: Watermark) -> bool {
        self.garbage_collection_time(window) < input.timestamp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_expires_only_when_the_watermark_is_strictly_past_its_last_instant_and_lateness() {
        let mut strategy =
            WindowingStrategy::with_defaults(WindowFn::fixed(Span::from_micros(10), Span::ZERO).unwrap());
        let window = strategy.window_fn.assign(Timestamp::from_micros(5))[0];
        let input = |micros| Watermark::at(Timestamp::from_micros(micros));
        assert!(!strategy.is_expired(window, input(9)));
        assert!(strategy.is_expired(window, input(10)));
        strategy.allowed_lateness = Lateness(Span::from_micros(5));
        assert!(!strategy.is_expired(window, input(14)));
        assert!(strategy.is_expired(window, input(15)));
    }

    #[test]
    fn the_global_window_expires_at_the_end_of_time_whatever_the_lateness() {
        let mut strategy = WindowingStrategy::with_defaults(WindowFn::Global);
        strategy.allowed_lateness = Lateness(Span::from_secs(1 << 40));
        assert!(strategy.is_expired(Window::Global, Watermark::POS_INF));
        assert!(!strategy.is_expired(Window::Global, Watermark::at(Timestamp::GLOBAL_WINDOW_MAX)));
    }
}
