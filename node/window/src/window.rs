//! Windows and the functions that assign them.
//!
//! Owns: half-open intervals, fixed, sliding, session and global assignment, session merging.
//! Must not know: keys, watermarks, panes.
//! Invariant: every assigned window contains the timestamp it was assigned for.

use std::fmt;

use crate::{Span, Timestamp};

/// The half-open interval `[start, end)` of event time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IntervalWindow {
    /// The first instant inside.
    pub start: Timestamp,
    /// The first instant after it.
    pub end: Timestamp,
}

impl IntervalWindow {
    /// The window `[start, end)`.
    #[must_use]
    pub fn new(start: Timestamp, end: Timestamp) -> Self {
        assert!(start <= end, "a window ends no earlier than it starts");
        Self { start, end }
    }

    /// The last instant inside.
    #[must_use]
    pub fn max_timestamp(self) -> Timestamp {
        self.end.minus(Span::TICK)
    }

    /// Whether `at` lies inside.
    #[must_use]
    pub fn contains(self, at: Timestamp) -> bool {
        self.start <= at && at < self.end
    }

    /// Whether the two share an instant. Windows that only touch do not.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// The smallest window that covers both.
    #[must_use]
    pub fn span(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// A window of any kind. Windows are ordered by their end, then by their start, which is the order
/// in which they close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Window {
    /// A bounded interval.
    Interval(IntervalWindow),
    /// All of time.
    Global,
}

impl Window {
    /// The last instant inside.
    #[must_use]
    pub fn max_timestamp(self) -> Timestamp {
        match self {
            Self::Interval(window) => window.max_timestamp(),
            Self::Global => Timestamp::GLOBAL_WINDOW_MAX,
        }
    }

    fn order(self) -> (Timestamp, Timestamp) {
        match self {
            Self::Interval(window) => (window.end, window.start),
            Self::Global => (Timestamp::MAX, Timestamp::MAX),
        }
    }
}

impl PartialOrd for Window {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Window {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

impl fmt::Display for Window {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interval(window) => write!(out, "[{}, {})", window.start, window.end),
            Self::Global => out.write_str("global"),
        }
    }
}

/// Why a window function was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WindowFnError {
    /// A window must last.
    #[error("the size of a window must be greater than 0")]
    SizeNotPositive,
    /// Sliding windows must advance.
    #[error("the period of sliding windows must be greater than 0")]
    PeriodNotPositive,
    /// A session must end.
    #[error("the gap of session windows must be greater than 0")]
    GapNotPositive,
}

/// A function from timestamps to windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WindowFn {
    /// One window for all of time.
    Global,
    /// Windows of one size, end to end.
    Fixed {
        /// Their length.
        size: Span,
        /// The start of one of them, within `[0, size)`.
        offset: Span,
    },
    /// Windows of one size, one starting every `period`.
    Sliding {
        /// Their length.
        size: Span,
        /// From the start of one to the start of the next.
        period: Span,
        /// The start of one of them, within `[0, period)`.
        offset: Span,
    },
    /// Windows that last until nothing came for `gap`.
    Sessions {
        /// The silence that ends a session.
        gap: Span,
    },
}

impl WindowFn {
    /// Fixed windows of `size`; the offset may be any length, also negative.
    ///
    /// # Errors
    /// If the size is not positive.
    pub fn fixed(size: Span, offset: Span) -> Result<Self, WindowFnError> {
        if size <= Span::ZERO {
            return Err(WindowFnError::SizeNotPositive);
        }
        Ok(Self::Fixed { size, offset: remainder(offset, size) })
    }

    /// Sliding windows of `size` every `period`; the offset may be any length, also negative.
    ///
    /// # Errors
    /// If the size or the period is not positive.
    pub fn sliding(size: Span, period: Span, offset: Span) -> Result<Self, WindowFnError> {
        if size <= Span::ZERO {
            return Err(WindowFnError::SizeNotPositive);
        }
        if period <= Span::ZERO {
            return Err(WindowFnError::PeriodNotPositive);
        }
        Ok(Self::Sliding { size, period, offset: remainder(offset, period) })
    }

    /// Sessions that end after a silence of `gap`.
    ///
    /// # Errors
    /// If the gap is not positive.
    pub fn sessions(gap: Span) -> Result<Self, WindowFnError> {
        if gap <= Span::ZERO {
            return Err(WindowFnError::GapNotPositive);
        }
        Ok(Self::Sessions { gap })
    }

    /// The windows of an element at `at`, the latest first. A session is given before merging.
    #[must_use]
    pub fn assign(self, at: Timestamp) -> Vec<Window> {
        let mut windows = Vec::new();
        self.assign_to(at, |window| windows.push(window));
        windows
    }

    /// Gives `to` the windows of an element at `at`, as [`WindowFn::assign`] does, without a list of them.
    pub fn assign_to(self, at: Timestamp, mut to: impl FnMut(Window)) {
        match self {
            Self::Global => to(Window::Global),
            Self::Fixed { size, offset } => to(interval(last_start(at, size, offset), size)),
            Self::Sliding { size, period, offset } => {
                let last = last_start(at, period, offset);
                let oldest = at.micros().saturating_sub(size.micros());
                std::iter::successors(Some(last), |start| start.checked_sub(period.micros()))
                    .take_while(|start| *start > oldest)
                    .for_each(|start| to(interval(start, size)));
            }
            Self::Sessions { gap } => to(interval(at.micros(), gap)),
        }
    }

    /// Whether windows of this function may merge.
    #[must_use]
    pub fn merges(self) -> bool {
        matches!(self, Self::Sessions { .. })
    }
}

/// The start of the last window at or before `at` when one starts every `period`.
fn last_start(at: Timestamp, period: Span, offset: Span) -> i64 {
    at.micros().saturating_sub((at.micros().saturating_sub(offset.micros())).rem_euclid(period.micros()))
}

fn interval(start: i64, size: Span) -> Window {
    let start = Timestamp::from_micros(start);
    Window::Interval(IntervalWindow { start, end: start.plus(size) })
}

fn remainder(of: Span, by: Span) -> Span {
    Span::from_micros(of.micros().rem_euclid(by.micros()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn of(start: i64, end: i64) -> Window {
        Window::Interval(IntervalWindow::new(at(start), at(end)))
    }

    #[test]
    fn fixed_windows_use_the_mathematical_modulo_before_the_epoch() {
        let windows = WindowFn::fixed(Span::from_micros(10), Span::from_micros(3)).unwrap();
        assert_eq!(windows.assign(at(-8)), [of(-17, -7)]);
        assert_eq!(windows.assign(at(-7)), [of(-7, 3)]);
        assert_eq!(windows.assign(at(3)), [of(3, 13)]);
        assert_eq!(WindowFn::fixed(Span::from_micros(10), Span::from_micros(-7)), Ok(windows));
    }

    #[test]
    fn sliding_windows_come_latest_first() {
        let windows = WindowFn::sliding(Span::from_micros(10), Span::from_micros(5), Span::ZERO).unwrap();
        assert_eq!(windows.assign(at(12)), [of(10, 20), of(5, 15)]);
        assert_eq!(windows.assign(at(-1)), [of(-5, 5), of(-10, 0)]);
    }

    #[test]
    fn sliding_windows_with_gaps_may_miss_an_element() {
        let windows = WindowFn::sliding(Span::from_micros(3), Span::from_micros(10), Span::ZERO).unwrap();
        assert_eq!(windows.assign(at(2)), [of(0, 3)]);
        assert_eq!(windows.assign(at(3)), []);
    }

    #[test]
    fn sizes_that_are_not_positive_are_refused() {
        assert_eq!(WindowFn::fixed(Span::ZERO, Span::ZERO), Err(WindowFnError::SizeNotPositive));
        assert_eq!(
            WindowFn::sliding(Span::TICK, Span::ZERO, Span::ZERO),
            Err(WindowFnError::PeriodNotPositive)
        );
        assert_eq!(WindowFn::sessions(Span::from_micros(-1)), Err(WindowFnError::GapNotPositive));
    }

    proptest! {
        #[test]
        fn assignment_equals_the_search_over_all_starts(
            t in -500i64..500, size in 1i64..60, period in 1i64..60, offset in -100i64..100,
        ) {
            let windows = WindowFn::sliding(
                Span::from_micros(size), Span::from_micros(period), Span::from_micros(offset)).unwrap();
            let naive: Vec<_> = (-700i64..700).rev()
                .filter(|start| (start - offset).rem_euclid(period) == 0)
                .filter(|start| *start <= t && t < start + size)
                .map(|start| of(start, start + size))
                .collect();
            prop_assert_eq!(windows.assign(at(t)), naive);
        }

        #[test]
        fn fixed_windows_are_sliding_windows_whose_period_is_their_size(
            t in any::<i64>(), size in 1i64..1_000_000_000, offset in any::<i32>(),
        ) {
            let t = Timestamp::from_micros(t / 2);
            let (size, offset) = (Span::from_micros(size), Span::from_micros(offset.into()));
            let fixed = WindowFn::fixed(size, offset).unwrap().assign(t);
            prop_assert_eq!(&fixed, &WindowFn::sliding(size, size, offset).unwrap().assign(t));
            let Window::Interval(window) = fixed[0] else { panic!("fixed windows are intervals") };
            prop_assert!(window.contains(t));
        }
    }
}
