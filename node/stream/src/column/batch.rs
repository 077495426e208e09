//! Batches: rows as columns, with their event times, windows and pane.
//!
//! Owns: the metadata that travels beside the columns, constant-encoded when all rows agree.
//! Must not know: keys, expressions, who sent the batch.
//! Invariant: everything that is given for each row has `rows` entries.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, UInt32Array};
use arrow_buffer::ScalarBuffer;
use arrow_select::take::take;
use pharos_window::{IntervalWindow, PaneInfo, Timestamp, Window, WindowFn};

/// A point in event time for each row.
#[derive(Debug, Clone, PartialEq)]
pub enum Times {
    /// The same for all.
    All(Timestamp),
    /// Microseconds, row by row.
    Each(ScalarBuffer<i64>),
}

impl Times {
    /// The time of `row`.
    #[must_use]
    pub fn at(&self, row: usize) -> Timestamp {
        match self {
            Self::All(time) => *time,
            Self::Each(times) => Timestamp::from_micros(times[row]),
        }
    }

    pub(crate) fn take(&self, rows: &[u32]) -> Self {
        match self {
            Self::All(time) => Self::All(*time),
            Self::Each(times) => Self::Each(gather(times, rows)),
        }
    }
}

/// The windows of each row.
#[derive(Debug, Clone, PartialEq)]
pub enum Windows {
    /// All rows are in one window.
    All(Window),
    /// The windows that a function assigns. `at` is the event time at which it was applied, for a
    /// later change of the event time does not move a row to another window.
    Assigned {
        /// The function.
        function: WindowFn,
        /// The times it is applied to.
        at: Times,
    },
    /// One interval for each row: the panes of a grouping.
    Each {
        /// Their starts in microseconds.
        starts: ScalarBuffer<i64>,
        /// Their ends in microseconds.
        ends: ScalarBuffer<i64>,
    },
}

impl Windows {
    /// The windows of `row`.
    #[must_use]
    pub fn at(&self, row: usize) -> Vec<Window> {
        let mut windows = Vec::new();
        self.each(row, |window| windows.push(window));
        windows
    }

    /// Gives `to` each window of `row`.
    pub(crate) fn each(&self, row: usize, mut to: impl FnMut(Window)) {
        match self {
            Self::All(window) => to(*window),
            Self::Assigned { function, at } => function.assign_to(at.at(row), to),
            Self::Each { starts, ends } => to(Window::Interval(IntervalWindow::new(
                Timestamp::from_micros(starts[row]),
                Timestamp::from_micros(ends[row]),
            ))),
        }
    }

    pub(crate) fn take(&self, rows: &[u32]) -> Self {
        match self {
            Self::All(window) => Self::All(*window),
            Self::Assigned { function, at } => Self::Assigned { function: *function, at: at.take(rows) },
            Self::Each { starts, ends } => {
                Self::Each { starts: gather(starts, rows), ends: gather(ends, rows) }
            }
        }
    }
}

/// Which pane each row came from; none before the first grouping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Panes {
    /// The same for all.
    All(Option<PaneInfo>),
    /// Row by row.
    Each(Arc<[PaneInfo]>),
}

impl Panes {
    pub(crate) fn take(&self, rows: &[u32]) -> Self {
        match self {
            Self::All(pane) => Self::All(*pane),
            Self::Each(panes) => Self::Each(rows.iter().map(|row| panes[*row as usize]).collect()),
        }
    }
}

fn gather(from: &ScalarBuffer<i64>, rows: &[u32]) -> ScalarBuffer<i64> {
    rows.iter().map(|row| from[*row as usize]).collect::<Vec<_>>().into()
}

/// In which step of its round each row came. Never decreasing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Steps {
    /// The same for all.
    All(u8),
    /// Row by row.
    Each(Arc<[u8]>),
}

impl Steps {
    /// The rows of a step, among `rows`.
    #[must_use]
    pub fn rows(&self, step: u8, rows: usize) -> Range<usize> {
        match self {
            Self::All(all) => 0..if *all == step { rows } else { 0 },
            Self::Each(steps) => {
                steps.partition_point(|of| *of < step)..steps.partition_point(|of| *of <= step)
            }
        }
    }

    pub(crate) fn take(&self, rows: &[u32]) -> Self {
        match self {
            Self::All(step) => Self::All(*step),
            Self::Each(steps) => Self::Each(rows.iter().map(|row| steps[*row as usize]).collect()),
        }
    }
}

/// Rows as columns.
#[derive(Debug, Clone)]
pub struct Batch {
    /// One array for each field.
    pub columns: Vec<ArrayRef>,
    /// How many rows; a batch without fields still has some.
    pub rows: usize,
    /// Their event times.
    pub times: Times,
    /// Their windows.
    pub windows: Windows,
    /// Their panes.
    pub panes: Panes,
    /// Their steps.
    pub steps: Steps,
}

impl Batch {
    /// The rows at the positions `rows`, in that order.
    #[must_use]
    pub fn take(&self, rows: &[u32]) -> Self {
        Self {
            columns: take_columns(&self.columns, rows),
            rows: rows.len(),
            times: self.times.take(rows),
            windows: self.windows.take(rows),
            panes: self.panes.take(rows),
            steps: self.steps.take(rows),
        }
    }

    /// Rows at the beginning of time, in the global window.
    #[must_use]
    pub fn untimed(columns: Vec<ArrayRef>, rows: usize) -> Self {
        Self {
            columns,
            rows,
            times: Times::All(Timestamp::MIN),
            windows: Windows::All(Window::Global),
            panes: Panes::All(None),
            steps: Steps::All(0),
        }
    }

    /// The same rows, times and windows with other columns.
    #[must_use]
    pub fn with_columns(&self, columns: Vec<ArrayRef>) -> Self {
        debug_assert!(columns.iter().all(|column| column.len() == self.rows));
        Self { columns, ..self.clone() }
    }

    /// How many bytes the batch holds on to, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let columns: usize = self.columns.iter().map(|column| column.get_array_memory_size()).sum();
        columns + self.rows * 8 + 64
    }
}

/// The rows at the positions `rows` of each column.
#[must_use]
pub fn take_columns(columns: &[ArrayRef], rows: &[u32]) -> Vec<ArrayRef> {
    let rows = UInt32Array::from(rows.to_vec());
    let taken = |column: &ArrayRef| take(column, &rows, None).expect("the positions lie within the column");
    columns.iter().map(taken).collect()
}
