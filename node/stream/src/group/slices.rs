//! Windows as unions of slices.
//!
//! Owns: the cutting of time into slices, one table for each, the firing of whole windows.
//! Must not know: sessions, holds. A slice's results stand at the end of its window.
//! Invariant: a row lies in exactly one slice, and every window is a union of slices. Fixed and
//! global windows are one slice each; sliding windows, taken without lateness, are merged from
//! theirs when they close.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use pharos_window::{
    Accumulation, IntervalWindow, PaneInfo, PaneTiming, Span, Timestamp, Watermark, Window, WindowFn,
};

use super::table::SliceTable;
use super::{Fired, Frozen, GroupSpec, KeyedBatch};
use crate::aggregate::AggregateError;
use crate::codec::{CodecError, Reader};
use crate::column::{Batch, Panes, Steps, Times, Windows};
use crate::key::KeyHash;

/// The start that stands for the one slice of the global window.
const GLOBAL: i64 = i64::MIN;

/// One thread's tables.
#[derive(Debug)]
pub(crate) struct Slices {
    spec: Arc<GroupSpec>,
    tables: BTreeMap<i64, Arc<SliceTable>>,
    /// The slices that differ from the last barrier.
    changed: BTreeSet<i64>,
}

impl Slices {
    /// No tables yet.
    #[must_use]
    pub(crate) fn new(spec: Arc<GroupSpec>) -> Self {
        Self { spec, tables: BTreeMap::new(), changed: BTreeSet::new() }
    }

    /// Adds rows; see [`super::Grouping::add`].
    pub(crate) fn add(
        &mut self,
        batch: &KeyedBatch,
        rows: Range<usize>,
        input: Watermark,
    ) -> Vec<(u32, Window)> {
        let mut dropped = Vec::new();
        let mut by_slice: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        let mut fates: BTreeMap<i64, (bool, Vec<Window>)> = BTreeMap::new();
        for row in rows {
            let slice = self.slice_of(batch, row);
            let (kept, late) = fates.entry(slice).or_insert_with(|| {
                let (late, open): (Vec<_>, Vec<_>) = self
                    .windows_of(slice)
                    .into_iter()
                    .partition(|window| self.spec.strategy.is_expired(*window, input));
                (!open.is_empty(), late)
            });
            dropped.extend(late.iter().map(|window| (row as u32, *window)));
            if *kept {
                by_slice.entry(slice).or_default().push(row as u32);
            }
        }
        for (slice, rows) in by_slice {
            let table = self
                .tables
                .entry(slice)
                .or_insert_with(|| Arc::new(SliceTable::new(&self.spec.aggregations)));
            // A table that a checkpoint still writes is copied once; the copy is ours alone.
            Arc::make_mut(table).update(&batch.keys, &rows, &batch.values);
            self.changed.insert(slice);
        }
        dropped
    }

    fn slice_of(&self, batch: &KeyedBatch, row: usize) -> i64 {
        match (&batch.windows, self.spec.strategy.window_fn) {
            (_, WindowFn::Global) => GLOBAL,
            (Windows::All(Window::Interval(window)), _) => window.start.micros(),
            (Windows::Each { starts, .. }, _) => starts[row],
            (Windows::Assigned { at, .. }, function) => slice_start(function, at.at(row)),
            (Windows::All(Window::Global), function) => slice_start(function, batch.times.at(row)),
        }
    }

    /// The windows that contain a slice.
    fn windows_of(&self, slice: i64) -> Vec<Window> {
        match self.spec.strategy.window_fn {
            WindowFn::Global => vec![Window::Global],
            function => function.assign(Timestamp::from_micros(slice)),
        }
    }

    /// Fires what is due; see [`super::Grouping::advance`].
    ///
    /// # Errors
    /// If a result does not fit its type.
    pub(crate) fn advance(
        &mut self,
        before: Watermark,
        input: Watermark,
    ) -> Result<Vec<Fired>, AggregateError> {
        match self.spec.strategy.window_fn {
            WindowFn::Sliding { .. } => self.advance_sliding(before, input),
            _ => self.advance_tables(before, input),
        }
    }

    fn advance_tables(&mut self, before: Watermark, input: Watermark) -> Result<Vec<Fired>, AggregateError> {
        let mut fired = Vec::new();
        let mut expired = Vec::new();
        let strategy = self.spec.strategy;
        let due: Vec<(i64, Window)> = self
            .tables
            .keys()
            .map(|slice| (*slice, self.windows_of(*slice)[0]))
            .take_while(|(_, window)| input.has_passed(window.max_timestamp()))
            .collect();
        for (slice, window) in due {
            let table = self.tables.get_mut(&slice).expect("the slice was just listed");
            let slots: Vec<u32> =
                table.by_group().into_iter().filter(|slot| table.fresh[*slot as usize]).collect();
            let is_expired = strategy.is_expired(window, input);
            if !slots.is_empty() {
                let late = before.has_passed(window.max_timestamp());
                let pane = |slot: &u32| {
                    let panes = table.panes[*slot as usize];
                    PaneInfo {
                        timing: if late || panes > 0 { PaneTiming::Late } else { PaneTiming::OnTime },
                        index: panes,
                        nonspeculative_index: Some(panes),
                        is_first: panes == 0,
                        is_last: !late && is_expired,
                    }
                };
                let panes = constant(slots.iter().map(pane).collect());
                fired.push(emit(&self.spec, window, table, &slots, panes)?);
            }
            if is_expired {
                expired.push(slice);
            } else if !slots.is_empty() {
                close_pane(Arc::make_mut(table), &slots, strategy.accumulation);
                self.changed.insert(slice);
            }
        }
        expired.iter().for_each(|slice| self.remove(*slice));
        Ok(fired)
    }

    fn advance_sliding(&mut self, before: Watermark, input: Watermark) -> Result<Vec<Fired>, AggregateError> {
        let due: BTreeSet<Window> = self
            .tables
            .keys()
            .flat_map(|slice| self.windows_of(*slice))
            .filter(|window| {
                input.has_passed(window.max_timestamp()) && !before.has_passed(window.max_timestamp())
            })
            .collect();
        let mut fired = Vec::new();
        for window in due {
            let Window::Interval(IntervalWindow { start, end }) = window else { continue };
            let mut whole = SliceTable::new(&self.spec.aggregations);
            self.tables.range(start.micros()..end.micros()).for_each(|(_, slice)| whole.merge(slice));
            let slots = whole.by_group();
            let pane = PaneInfo {
                timing: PaneTiming::OnTime,
                index: 0,
                nonspeculative_index: Some(0),
                is_first: true,
                is_last: true,
            };
            fired.push(emit(&self.spec, window, &whole, &slots, Panes::All(Some(pane)))?);
        }
        let over = |slice: &i64| {
            let latest = self.windows_of(*slice).into_iter().next();
            latest.is_none_or(|window| input.has_passed(window.max_timestamp()))
        };
        let over: Vec<i64> = self.tables.keys().copied().filter(over).collect();
        over.iter().for_each(|slice| self.remove(*slice));
        Ok(fired)
    }

    fn remove(&mut self, slice: i64) {
        self.tables.remove(&slice);
        self.changed.remove(&slice);
    }

    /// The tables now; from here on they are shared until they change.
    pub(crate) fn freeze(&mut self) -> Frozen {
        let changed = std::mem::take(&mut self.changed);
        let table = |(slice, table): (&i64, &Arc<SliceTable>)| {
            (*slice, changed.contains(slice).then(|| Arc::clone(table)))
        };
        Frozen::Slices(self.tables.iter().map(table).collect())
    }

    /// Adds a table that a checkpoint kept.
    ///
    /// # Errors
    /// If the bytes are not such a table.
    pub(crate) fn restore(
        &mut self,
        slice: i64,
        input: &mut Reader<'_>,
        mine: impl Fn(KeyHash) -> bool,
    ) -> Result<(), CodecError> {
        let mut table = self
            .tables
            .remove(&slice)
            .map_or_else(|| SliceTable::new(&self.spec.aggregations), Arc::unwrap_or_clone);
        SliceTable::read(&self.spec.aggregations, input, mine, &mut table)?;
        if !table.accumulators.is_empty() {
            self.tables.insert(slice, Arc::new(table));
            // The share may be another than the one that was written, so the next checkpoint is whole.
            self.changed.insert(slice);
        }
        Ok(())
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

fn constant(panes: Vec<PaneInfo>) -> Panes {
    match panes.first() {
        Some(first) if panes.iter().all(|pane| pane == first) => Panes::All(Some(*first)),
        _ => Panes::Each(panes.into()),
    }
}

fn close_pane(table: &mut SliceTable, slots: &[u32], accumulation: Accumulation) {
    for slot in slots {
        table.panes[*slot as usize] += 1;
        table.fresh[*slot as usize] = false;
        if accumulation == Accumulation::Discarding {
            table.accumulators.clear(*slot);
        }
    }
}

fn emit(
    spec: &GroupSpec,
    window: Window,
    table: &SliceTable,
    slots: &[u32],
    panes: Panes,
) -> Result<Fired, AggregateError> {
    let results = table.accumulators.finish(slots)?;
    let keys = slots.iter().map(|slot| table.keys.bytes(*slot as usize));
    let batch = Batch {
        columns: spec.columns(keys, results),
        rows: slots.len(),
        times: Times::All(window.max_timestamp()),
        windows: Windows::All(window),
        panes,
        steps: Steps::All(0),
    };
    Ok(Fired { window: Some(window), batch })
}
