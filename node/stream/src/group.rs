//! Grouping by key and window.
//!
//! Owns: one thread's share of a Combine: what it has gathered, which rows it drops as late, the
//! panes it fires. Two paths give the same panes: slices (fixed, sliding and global windows) and
//! the general path of `pharos-window` (sessions, holds).
//! Must not know: threads, queues, how files are written and kept.
//! Invariant: what comes out depends on the batches, their order within a key, and the watermarks; not
//! on how much memory there is.

mod cold;
mod general;
mod keyed;
mod layers;
mod merge;
mod partial;
mod parts;
mod slices;
pub(crate) mod table;
mod values;

use std::sync::Arc;

use arrow_array::{Array, ArrayRef};
use bytes::Bytes;
use pharos_beam::plan::Aggregation;
use pharos_beam::schema::Type;
use pharos_window::{Span, Timestamp, TimestampCombiner, Watermark, Window, WindowFn, WindowingStrategy};

use crate::aggregate::AggregateError;
use crate::codec::{CodecError, Reader};
use crate::column::{Batch, Steps, Times, Windows, take_columns};
use crate::error::StreamError;
use crate::key::{KeyHash, Keys, key_columns};
use crate::spill::{Scoped, Share, SpillError};
use table::SliceTable;

pub(crate) use general::{Encoded, General};
pub(crate) use layers::{Layer, LayerKind, Written};
pub(crate) use partial::{Combiner, Partials};
pub(crate) use slices::Slices;
pub(crate) use table::Earlier;

/// The start that stands for the one slice of the global window.
const GLOBAL: i64 = i64::MIN;

/// What a Combine does.
#[derive(Debug, Clone)]
pub(crate) struct GroupSpec {
    /// Windows, lateness, output times.
    pub strategy: WindowingStrategy,
    /// The types of the key fields.
    pub keys: Arc<[Type]>,
    /// What is computed.
    pub aggregations: Arc<[Aggregation]>,
    /// Whether rows may come in windows that an earlier grouping gave them, not the function.
    pub explicit_windows: bool,
}

impl GroupSpec {
    /// The columns of results: the key fields of `keys` by row, then the aggregations.
    fn columns<'k>(&self, keys: impl Iterator<Item = &'k [u8]>, results: Vec<ArrayRef>) -> Vec<ArrayRef> {
        let mut columns = key_columns(&self.keys, keys);
        columns.extend(results);
        columns
    }

    /// Whether slices serve. They keep no output times but the end of the window, and for sliding
    /// windows no record of the panes that fired, which late panes would need.
    fn slices_serve(&self) -> bool {
        if self.strategy.timestamp_combiner != TimestampCombiner::EndOfWindow {
            return false;
        }
        match self.strategy.window_fn {
            WindowFn::Global | WindowFn::Fixed { .. } => true,
            WindowFn::Sliding { .. } => {
                !self.explicit_windows && self.strategy.allowed_lateness.0.micros() == 0
            }
            WindowFn::Sessions { .. } => false,
        }
    }

    /// The start of the slice of a row.
    fn slice_of(&self, batch: &KeyedBatch, row: usize) -> i64 {
        match (&batch.windows, self.strategy.window_fn) {
            (_, WindowFn::Global) => GLOBAL,
            (Windows::All(Window::Interval(window)), _) => window.start.micros(),
            (Windows::Each { starts, .. }, _) => starts[row],
            (Windows::Assigned { at, .. }, function) => slice_start(function, at.at(row)),
            (Windows::All(Window::Global), function) => slice_start(function, batch.times.at(row)),
        }
    }

    /// The windows that contain a slice.
    fn windows_of(&self, slice: i64) -> Vec<Window> {
        match self.strategy.window_fn {
            WindowFn::Global => vec![Window::Global],
            function => function.assign(Timestamp::from_micros(slice)),
        }
    }

    /// Whether a slice belongs only to windows that the watermark `reached` is not past.
    fn is_ahead(&self, slice: i64, reached: Watermark) -> bool {
        !self.windows_of(slice).iter().any(|window| reached.has_passed(window.max_timestamp()))
    }
}

/// The start of the slice that holds `at`: slices of sliding windows are as long as the greatest
/// length that divides both size and period.
fn slice_start(function: WindowFn, at: Timestamp) -> i64 {
    let (grain, offset) = match function {
        WindowFn::Fixed { size, offset } => (size, offset),
        WindowFn::Sliding { size, period, offset } => (common(size, period), offset),
        WindowFn::Global | WindowFn::Sessions { .. } => return GLOBAL,
    };
    let into = at.micros().saturating_sub(offset.micros()).rem_euclid(grain.micros());
    at.micros().saturating_sub(into)
}

fn common(size: Span, period: Span) -> Span {
    let (mut a, mut b) = (size.micros(), period.micros());
    while b != 0 {
        (a, b) = (b, a % b);
    }
    Span::from_micros(a)
}

/// Rows on their way to a grouping.
#[derive(Debug, Clone)]
pub(crate) struct KeyedBatch {
    /// Their keys.
    pub keys: Keys,
    /// One array for each aggregation.
    pub values: Vec<ArrayRef>,
    /// Their event times.
    pub times: Times,
    /// Their windows.
    pub windows: Windows,
    /// Their steps.
    pub steps: Steps,
    /// The rows themselves, if those dropped as late are wanted.
    pub originals: Option<Vec<ArrayRef>>,
}

impl KeyedBatch {
    /// The rows at the positions `rows`.
    #[must_use]
    pub(crate) fn take(&self, rows: &[u32]) -> Self {
        Self {
            keys: self.keys.take(rows),
            values: take_columns(&self.values, rows),
            times: self.times.take(rows),
            windows: self.windows.take(rows),
            steps: self.steps.take(rows),
            originals: self.originals.as_ref().map(|columns| take_columns(columns, rows)),
        }
    }

    /// How many bytes it holds on to, roughly.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        let arrays = self.values.iter().chain(self.originals.iter().flatten());
        arrays.map(|array| array.get_array_memory_size()).sum::<usize>() + self.keys.len() * 48
    }
}

/// Results of one moment. Batches of one window are told apart so that receivers can put them in
/// the same order whichever thread fired them.
#[derive(Debug, Clone)]
pub(crate) struct Fired {
    /// The window, if all rows are of one.
    pub window: Option<Window>,
    /// The rows: key fields, then aggregations.
    pub batch: Batch,
}

/// Takes results on, a bounded number at a time.
pub(crate) type Emit<'a> = dyn FnMut(Fired) -> Result<(), StreamError> + 'a;

/// Why time could not move on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdvanceError {
    /// A result does not fit its type.
    #[error(transparent)]
    Aggregate(#[from] AggregateError),
    /// State could not be read from the local disk or written there.
    #[error(transparent)]
    Spill(#[from] SpillError),
    /// Results were not taken.
    #[error(transparent)]
    Out(#[from] StreamError),
}

/// What a slice holds at a barrier.
#[derive(Debug, Clone)]
pub(crate) struct FrozenSlice {
    /// Where it starts.
    pub start: i64,
    /// Its files, in order.
    pub files: Vec<Scoped>,
    /// What came since.
    pub table: FrozenState<Arc<SliceTable>>,
}

/// State at a barrier, which may be much.
#[derive(Debug, Clone)]
pub(crate) enum FrozenState<T> {
    /// It has no keys.
    Empty,
    /// It is as at the last barrier.
    Unchanged,
    /// It is this, or this is what changed.
    Changed(Layer, T),
}

/// State that a checkpoint kept.
#[derive(Debug)]
pub(crate) enum KeptState {
    /// Entries of a table, or of what the general path holds.
    Entries(Earlier, LayerKind, Bytes),
    /// A sorted file of a table.
    File(Scoped),
    /// A sorted file of what the general path holds.
    Keyed(Scoped),
}

/// Why state that a checkpoint kept was not taken up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// It is no such state.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// It could not be read from the local disk.
    #[error(transparent)]
    Spill(#[from] SpillError),
}

/// State at a barrier, to be written while processing goes on.
#[derive(Debug, Clone)]
pub(crate) enum Frozen {
    /// The slices.
    Slices(Vec<FrozenSlice>),
    /// What the general path holds: its files, in order, and what is in memory, as bytes, which counts more.
    General(Vec<Scoped>, FrozenState<Encoded>),
}

/// One thread's share of a grouping.
#[derive(Debug)]
pub(crate) enum Grouping {
    /// By slices.
    Slices(Slices),
    /// By key and window.
    General(Box<General>),
}

impl Grouping {
    /// An empty share, on the path that serves the spec. `memory` bounds what it holds in memory.
    #[must_use]
    pub(crate) fn new(spec: Arc<GroupSpec>, memory: Option<Share>) -> Self {
        if spec.slices_serve() {
            Self::Slices(Slices::new(spec, memory))
        } else {
            Self::General(Box::new(General::new(spec, memory)))
        }
    }

    /// Adds those rows of a round's batch to which it is all the same in which step of the round they come: before
    /// the input watermark is past `reached` nothing fires of what they belong to, and none of them is late. Returns
    /// the others.
    ///
    /// # Errors
    /// If state that does not fit in memory cannot be put on disk.
    pub(crate) fn add_ahead(
        &mut self,
        batch: &KeyedBatch,
        reached: Watermark,
    ) -> Result<Vec<u32>, SpillError> {
        match self {
            Self::Slices(slices) => slices.add_ahead(batch, reached),
            // Windows merge, and a key's timers follow each row.
            Self::General(_) => Ok((0..batch.keys.len() as u32).collect()),
        }
    }

    /// Adds the rows `rows` of a batch while the input watermark is `input`; returns those that are
    /// dropped, each with the window for which it came too late.
    ///
    /// # Errors
    /// If state that does not fit in memory cannot be put on disk.
    pub(crate) fn add(
        &mut self,
        batch: &KeyedBatch,
        rows: &[u32],
        input: Watermark,
    ) -> Result<Vec<(u32, Window)>, SpillError> {
        match self {
            Self::Slices(slices) => slices.add(batch, rows, input),
            Self::General(general) => general.add(batch, rows, input),
        }
    }

    /// Adds rows that were added up where they came from; see [`Combiner`].
    ///
    /// # Errors
    /// If state that does not fit in memory cannot be put on disk.
    pub(crate) fn add_partials(&mut self, partials: &Partials) -> Result<(), SpillError> {
        match self {
            Self::Slices(slices) => slices.add_partials(partials),
            Self::General(_) => unreachable!("only what slices serve is added up before"),
        }
    }

    /// Ends what was added at `before`, moves the input watermark to `input` and gives what fires to
    /// `out`.
    ///
    /// # Errors
    /// If a result does not fit its type, cannot be read, or is not taken.
    pub(crate) fn advance(
        &mut self,
        before: Watermark,
        input: Watermark,
        out: &mut Emit<'_>,
    ) -> Result<(), AdvanceError> {
        match self {
            Self::Slices(slices) => slices.advance(before, input, out),
            Self::General(general) => general.advance(before, input, out),
        }
    }

    /// The output watermark when the input watermark is `input`.
    #[must_use]
    pub(crate) fn output(&self, input: Watermark) -> Watermark {
        match self {
            Self::Slices(_) => input,
            Self::General(general) => general.output(input),
        }
    }

    /// The state now.
    pub(crate) fn freeze(&mut self) -> Frozen {
        match self {
            Self::Slices(slices) => slices.freeze(),
            Self::General(general) => Frozen::General(general.files(), general.freeze()),
        }
    }

    /// Adds what a checkpoint kept of the slice that starts at `slice`, as far as `mine` claims it: bases before the updates
    /// of them, these in order.
    ///
    /// # Errors
    /// If it is not such state, or cannot be read.
    pub(crate) fn restore(
        &mut self,
        slice: i64,
        kept: &KeptState,
        mine: impl Fn(KeyHash) -> bool,
    ) -> Result<(), RestoreError> {
        let (earlier, kind, bytes) = match (kept, &mut *self) {
            (KeptState::Entries(earlier, kind, bytes), _) => (*earlier, *kind, bytes),
            (KeptState::File(file), Self::Slices(slices)) => {
                slices.restore_file(slice, file);
                return Ok(());
            }
            (KeptState::Keyed(file), Self::General(general)) => return general.restore_file(file),
            (KeptState::File(_) | KeptState::Keyed(_), _) => {
                return Err(Reader::new(&[]).error("no such file").into());
            }
        };
        let mut input = Reader::new(bytes);
        match self {
            Self::Slices(slices) => slices.restore_table(slice, (earlier, kind), &mut input, mine)?,
            Self::General(general) => general.restore(kind, &mut input, mine)?,
        }
        if input.is_done() { Ok(()) } else { Err(input.error("the end").into()) }
    }
}

#[cfg(test)]
mod tests;
