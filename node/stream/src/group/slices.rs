//! Windows as unions of slices.
//!
//! Owns: the cutting of time into slices, one table for each, the firing of whole windows.
//! Must not know: sessions, holds. A slice's results stand at the end of its window.
//! Invariant: what a slice holds is what its files hold, then what its table holds; a row is added
//! to the table and never reads a file. A row lies in exactly one slice, and every window is a union of slices. Fixed and
//! global windows are one slice each; sliding windows, taken without lateness, are merged from
//! theirs when they close.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pharos_window::{IntervalWindow, PaneInfo, PaneTiming, Watermark, Window, WindowFn};
use rocksdb::DB;

use super::merge::{CHUNK_ROWS, Chunk, Folded, Merge, Source, write_table};
use super::table::{Earlier, SliceTable};
use super::{
    AdvanceError, Emit, Fired, Frozen, FrozenSlice, FrozenState, GroupSpec, KeyedBatch, LayerKind, Partials,
};
use crate::aggregate::AggregateError;
use crate::codec::{CodecError, Reader};
use crate::column::{Batch, Panes, Steps, Times, Windows};
use crate::key::KeyHash;
use crate::plant;
use crate::spill::{RunWriter, Scoped, Share, SpillError};

/// What a slice has gathered leaves in batches of so many bytes, unless a single key has more.
const CHUNK_BYTES: usize = 64 << 20;
/// So often a slice's table goes to files before they are merged into one sequence.
const LAYERS: u32 = 32;

/// What one slice holds.
#[derive(Debug)]
struct Slice {
    /// In the order in which they were written.
    files: Vec<Scoped>,
    /// What came since.
    table: Arc<SliceTable>,
    /// How often the table has gone to files since they were merged last.
    layers: u32,
}

impl Slice {
    fn new(spec: &GroupSpec) -> Self {
        let table = Arc::new(SliceTable::new(&spec.aggregations, Earlier::Here));
        Self { files: Vec::new(), table, layers: 0 }
    }

    /// Makes its table one that comes after files.
    fn expect_files(&mut self, spec: &GroupSpec) {
        if self.table.earlier() == Earlier::Here {
            let mut after = SliceTable::new(&spec.aggregations, Earlier::InFiles);
            after.absorb(&self.table);
            self.table = Arc::new(after);
        }
    }

    /// All that it holds, for a merge in which it has this number.
    fn sources<'a>(&'a self, number: usize, db: &'a DB) -> impl Iterator<Item = (usize, Source<'a>)> {
        let files = self.files.iter().map(|file| Source::Run(file.read(db)));
        files.chain([Source::table(&self.table)]).map(move |source| (number, source))
    }
}

/// A window that is due.
#[derive(Debug, Clone, Copy)]
struct Due {
    window: Window,
    /// It was due before.
    late: bool,
    /// Nothing can come for it any more.
    expired: bool,
}

impl Due {
    fn pane(self, panes: u32) -> PaneInfo {
        PaneInfo {
            timing: if self.late || panes > 0 { PaneTiming::Late } else { PaneTiming::OnTime },
            index: panes,
            nonspeculative_index: Some(panes),
            is_first: panes == 0,
            is_last: !self.late && self.expired,
        }
    }
}

/// One thread's slices.
#[derive(Debug)]
pub(crate) struct Slices {
    spec: Arc<GroupSpec>,
    slices: BTreeMap<i64, Slice>,
    /// The slices whose tables differ from the last barrier.
    changed: BTreeSet<i64>,
    /// The bytes of all tables, roughly.
    memory: usize,
    /// How many there may be; none: there is no bound.
    share: Option<Share>,
    /// Whether anything came that may be due at once, since time was moved on last.
    touched: bool,
    /// Rows by their slices, between calls empty.
    placed: Vec<(i64, u32)>,
}

impl Slices {
    /// No slices yet.
    #[must_use]
    pub(crate) fn new(spec: Arc<GroupSpec>, share: Option<Share>) -> Self {
        Self {
            spec,
            slices: BTreeMap::new(),
            changed: BTreeSet::new(),
            memory: 0,
            share,
            touched: false,
            placed: Vec::new(),
        }
    }

    /// Adds rows that concern no step before `reached`; see [`super::Grouping::add_ahead`].
    ///
    /// # Errors
    /// If tables cannot be written to files.
    pub(crate) fn add_ahead(
        &mut self,
        batch: &KeyedBatch,
        reached: Watermark,
    ) -> Result<Vec<u32>, SpillError> {
        let mut others = Vec::new();
        self.by_slice(batch, 0..batch.keys.len() as u32, |slices, slice, rows| {
            if slices.spec.is_ahead(slice, reached) {
                slices.put(slice, batch, rows);
            } else {
                others.extend_from_slice(rows);
            }
        })?;
        others.sort_unstable();
        Ok(others)
    }

    /// Adds rows; see [`super::Grouping::add`].
    ///
    /// # Errors
    /// If tables cannot be written to files.
    pub(crate) fn add(
        &mut self,
        batch: &KeyedBatch,
        rows: &[u32],
        input: Watermark,
    ) -> Result<Vec<(u32, Window)>, SpillError> {
        let mut dropped = Vec::new();
        self.by_slice(batch, rows.iter().copied(), |slices, slice, rows| {
            let expired = |window: &Window| slices.spec.strategy.is_expired(*window, input);
            let (late, open): (Vec<_>, Vec<_>) = slices.spec.windows_of(slice).into_iter().partition(expired);
            dropped.extend(rows.iter().flat_map(|row| late.iter().map(move |window| (*row, *window))));
            if !open.is_empty() {
                slices.put(slice, batch, rows);
                slices.touched = true;
            }
        })?;
        dropped.sort_by_key(|(row, _)| *row);
        Ok(dropped)
    }

    /// Gives `each` the rows of one slice after the other, each time in their order.
    fn by_slice(
        &mut self,
        batch: &KeyedBatch,
        rows: impl Iterator<Item = u32>,
        mut each: impl FnMut(&mut Self, i64, &[u32]),
    ) -> Result<(), SpillError> {
        let mut placed = std::mem::take(&mut self.placed);
        placed.extend(rows.map(|row| (self.spec.slice_of(batch, row as usize), row)));
        placed.sort_unstable();
        let mut rows = Vec::new();
        for alike in placed.chunk_by(|(one, _), (other, _)| one == other) {
            rows.clear();
            rows.extend(alike.iter().map(|(_, row)| *row));
            each(self, alike[0].0, &rows);
        }
        placed.clear();
        self.placed = placed;
        self.relieve()
    }

    /// Adds rows that were added up where they came from.
    ///
    /// # Errors
    /// If tables cannot be written to files.
    pub(crate) fn add_partials(&mut self, partials: &Partials) -> Result<(), SpillError> {
        let mut first = 0;
        for alike in partials.slices.chunk_by(|one, next| one == next) {
            let sums = first..first + alike.len() as u32;
            first = sums.end;
            self.change(alike[0], |table| table.add(&partials.keys, sums, &partials.accumulators));
        }
        self.relieve()
    }

    /// Adds rows to a slice.
    fn put(&mut self, start: i64, batch: &KeyedBatch, rows: &[u32]) {
        self.change(start, |table| table.update(&batch.keys, rows, &batch.values));
    }

    /// Changes the table of a slice, which is there from now on.
    fn change(&mut self, start: i64, change: impl FnOnce(&mut SliceTable)) {
        let slice = self.slices.entry(start).or_insert_with(|| Slice::new(&self.spec));
        let before = slice.table.memory();
        // A table that a checkpoint still writes is copied once; the copy is ours alone.
        change(Arc::make_mut(&mut slice.table));
        self.memory = (self.memory + slice.table.memory()).saturating_sub(before);
        self.changed.insert(start);
    }

    /// Puts tables on disk, the largest first, if they take more memory than they may.
    fn relieve(&mut self) -> Result<(), SpillError> {
        let Some(bound) = self.share.as_ref().map(|share| share.bytes) else { return Ok(()) };
        if self.memory <= bound {
            return Ok(());
        }
        let mut by_size: Vec<(usize, i64)> =
            self.slices.iter().map(|(start, slice)| (slice.table.memory(), *start)).collect();
        by_size.sort_unstable();
        while let Some((_, start)) = by_size.pop().filter(|_| self.memory > bound / 2) {
            self.spill(start)?;
        }
        Ok(())
    }

    fn spill(&mut self, start: i64) -> Result<(), SpillError> {
        let (Some(share), Some(slice)) = (&self.share, self.slices.get_mut(&start)) else { return Ok(()) };
        let mut writer = share.writer();
        write_table(&slice.table, &mut writer)?;
        slice.files.extend(writer.finish()?);
        slice.layers += 1;
        let layers = slice.layers;
        self.clear_table(start);
        if layers > LAYERS { self.merge_files(start) } else { Ok(()) }
    }

    /// Empties the table of a slice that has files.
    fn clear_table(&mut self, start: i64) {
        let Some(slice) = self.slices.get_mut(&start) else { return };
        let before = slice.table.memory();
        slice.table = Arc::new(SliceTable::new(&self.spec.aggregations, Earlier::InFiles));
        self.memory = (self.memory + slice.table.memory()).saturating_sub(before);
        self.changed.insert(start);
    }

    /// Merges all that a slice holds into files that hold each key once.
    fn merge_files(&mut self, start: i64) -> Result<(), SpillError> {
        let (Some(share), Some(slice)) = (&self.share, self.slices.get(&start)) else { return Ok(()) };
        let db = share.db()?;
        let mut merge = Merge::new(slice.sources(0, &db).collect())?;
        let mut writer = share.writer();
        let mut folded = Folded::new(&self.spec.aggregations);
        while merge.next()? {
            merge.fold(&mut folded, |_| {})?;
            if let Some((hash, key)) = merge.key()? {
                folded.write(&mut writer, hash, key)?;
            }
        }
        let files = writer.finish()?;
        drop(merge);
        self.replace(start, files);
        Ok(())
    }

    /// Lets files that hold each key once stand for all that a slice held.
    fn replace(&mut self, start: i64, files: Vec<Scoped>) {
        self.clear_table(start);
        if let Some(slice) = self.slices.get_mut(&start) {
            (slice.files, slice.layers) = (files, 1);
        }
    }

    /// Fires what is due; see [`super::Grouping::advance`].
    ///
    /// # Errors
    /// If a result does not fit its type, cannot be read, or is not taken.
    pub(crate) fn advance(
        &mut self,
        before: Watermark,
        input: Watermark,
        out: &mut Emit<'_>,
    ) -> Result<(), AdvanceError> {
        if before == input && !std::mem::take(&mut self.touched) {
            return Ok(());
        }
        match self.spec.strategy.window_fn {
            WindowFn::Sliding { .. } => self.advance_sliding(before, input, out),
            _ => self.advance_slices(before, input, out),
        }
    }

    fn advance_slices(
        &mut self,
        before: Watermark,
        input: Watermark,
        out: &mut Emit<'_>,
    ) -> Result<(), AdvanceError> {
        let due: Vec<(i64, Window)> = self
            .slices
            .keys()
            .map(|start| (*start, self.spec.windows_of(*start)[0]))
            .take_while(|(_, window)| input.has_passed(window.max_timestamp()))
            .collect();
        for (start, window) in due {
            let due = Due {
                window,
                late: before.has_passed(window.max_timestamp()),
                expired: self.spec.strategy.is_expired(window, input),
            };
            let files = &self.slices[&start].files;
            if files.is_empty() && self.slices[&start].table.earlier() == Earlier::Here {
                self.fire_table(start, due, out)?;
            } else if files.iter().any(|file| file.fresh) {
                self.fire_files(start, due, out)?;
            } else {
                self.fire_late(start, due, out)?;
            }
            if due.expired {
                self.remove(start);
            }
        }
        Ok(())
    }

    /// Fires a slice that is in memory whole.
    fn fire_table(&mut self, start: i64, due: Due, out: &mut Emit<'_>) -> Result<(), AdvanceError> {
        let slice = self.slices.get_mut(&start).expect("the slice was just listed");
        let table = &slice.table;
        if !table.has_fresh() {
            return Ok(());
        }
        let slots: Vec<u32> = table.ordered().into_iter().filter(|slot| table.is_fresh(*slot)).collect();
        for slots in chunks(table, &slots) {
            let panes = constant(slots.iter().map(|slot| due.pane(table.panes[*slot as usize])).collect());
            out(emit(&self.spec, due.window, table, slots, panes)?)?;
        }
        if !due.expired {
            Arc::make_mut(&mut slice.table).close_pane(&slots, self.spec.strategy.accumulation);
            self.changed.insert(start);
        }
        Ok(())
    }

    /// Fires a slice of which files hold something that has not fired. What stays is in new files.
    fn fire_files(&mut self, start: i64, due: Due, out: &mut Emit<'_>) -> Result<(), AdvanceError> {
        let (Some(share), Some(slice)) = (&self.share, self.slices.get(&start)) else { return Ok(()) };
        let db = share.db()?;
        let mut merge = Merge::new(slice.sources(0, &db).collect())?;
        let mut writer = (!due.expired).then(|| share.writer());
        let mut folded = Folded::new(&self.spec.aggregations);
        let mut chunk = Chunk::new(&self.spec, due.window);
        while merge.next()? {
            merge.fold(&mut folded, |_| {})?;
            let Some((hash, key)) = merge.key()? else { continue };
            if folded.fresh {
                chunk.open(hash, key, due.pane(folded.panes));
                chunk.add(&folded.value);
                folded.close_pane(self.spec.strategy.accumulation);
            }
            if let Some(writer) = &mut writer {
                folded.write(writer, hash, key)?;
            }
            chunk.leave_if_full(out)?;
        }
        chunk.leave(out)?;
        let files = writer.map(RunWriter::finish).transpose()?;
        drop(merge);
        if let Some(files) = files {
            self.replace(start, files);
        }
        Ok(())
    }

    /// Fires what came late, all of which is in memory, for a slice that has files: the key's place
    /// in the table then holds what files held of it.
    fn fire_late(&mut self, start: i64, due: Due, out: &mut Emit<'_>) -> Result<(), AdvanceError> {
        let (Some(share), Some(slice)) = (&self.share, self.slices.get_mut(&start)) else { return Ok(()) };
        if !slice.table.has_fresh() {
            return Ok(());
        }
        let db = share.db()?;
        let mut files: Vec<_> = slice.files.iter().map(|file| file.read(&db)).collect();
        let mut folded = Folded::new(&self.spec.aggregations);
        let mut chunk = Chunk::new(&self.spec, due.window);
        let before = slice.table.memory();
        let table = Arc::make_mut(&mut slice.table);
        for slot in table.ordered().into_iter().filter(|slot| table.is_fresh(*slot)).collect::<Vec<_>>() {
            let (hash, key) = (table.keys.hash(slot as usize), table.keys.bytes(slot as usize));
            folded.reset();
            for file in &mut files {
                if file.find(hash, key)? {
                    folded.take_entry(file.value()).map_err(|error| file.damaged(error))?;
                }
            }
            folded.take_slot(table, slot);
            chunk.open(hash, key, due.pane(folded.panes));
            chunk.add(&folded.value);
            folded.close_pane(self.spec.strategy.accumulation);
            table.settle(slot, &folded);
            chunk.leave_if_full(out)?;
        }
        chunk.leave(out)?;
        self.memory = (self.memory + slice.table.memory()).saturating_sub(before);
        self.changed.insert(start);
        Ok(())
    }

    fn advance_sliding(
        &mut self,
        before: Watermark,
        input: Watermark,
        out: &mut Emit<'_>,
    ) -> Result<(), AdvanceError> {
        let due: BTreeSet<Window> = self
            .slices
            .keys()
            .flat_map(|start| self.spec.windows_of(*start))
            .filter(|window| {
                input.has_passed(window.max_timestamp()) && !before.has_passed(window.max_timestamp())
            })
            .collect();
        for window in due {
            let Window::Interval(IntervalWindow { start, end }) = window else { continue };
            let within = || self.slices.range(start.micros()..end.micros()).map(|(_, slice)| slice);
            if within().all(|slice| slice.files.is_empty() && slice.table.earlier() == Earlier::Here) {
                let mut whole = SliceTable::new(&self.spec.aggregations, Earlier::Here);
                within().for_each(|slice| whole.merge(&slice.table));
                for slots in chunks(&whole, &whole.ordered()) {
                    out(emit(&self.spec, window, &whole, slots, Panes::All(Some(ONLY)))?)?;
                }
            } else {
                self.merge_slices(window, &within().collect::<Vec<_>>(), out)?;
            }
        }
        let over = |start: &i64| {
            let latest = self.spec.windows_of(*start).into_iter().next();
            latest.is_none_or(|window| input.has_passed(window.max_timestamp()))
        };
        let over: Vec<i64> = self.slices.keys().copied().filter(over).collect();
        over.iter().for_each(|start| self.remove(*start));
        Ok(())
    }

    /// Fires a window of slices some of which have files.
    fn merge_slices(
        &self,
        window: Window,
        slices: &[&Slice],
        out: &mut Emit<'_>,
    ) -> Result<(), AdvanceError> {
        let Some(share) = &self.share else { return Ok(()) };
        let db = share.db()?;
        let sources = slices.iter().enumerate().flat_map(|(number, slice)| slice.sources(number, &db));
        let mut merge = Merge::new(sources.collect())?;
        let mut folded = Folded::new(&self.spec.aggregations);
        let mut chunk = Chunk::new(&self.spec, window);
        while merge.next()? {
            let Some((hash, key)) = merge.key()? else { continue };
            chunk.open(hash, key, ONLY);
            merge.fold(&mut folded, |slice| chunk.add(&slice.value))?;
            chunk.leave_if_full(out)?;
        }
        chunk.leave(out)
    }

    fn remove(&mut self, start: i64) {
        if let Some(slice) = self.slices.remove(&start) {
            self.memory = self.memory.saturating_sub(slice.table.memory());
        }
        self.changed.remove(&start);
    }

    /// What there is now; from here on tables are shared until they change.
    pub(crate) fn freeze(&mut self) -> Frozen {
        let changed = std::mem::take(&mut self.changed);
        let slice = |(start, slice): (&i64, &mut Slice)| {
            let table = if slice.table.is_empty() {
                FrozenState::Empty
            } else if changed.contains(start) {
                // A table that changed is no longer shared with the last checkpoint.
                let (layer, update) = Arc::make_mut(&mut slice.table).barrier();
                let table = update.map_or_else(|| Arc::clone(&slice.table), Arc::new);
                FrozenState::Changed(layer, table)
            } else {
                FrozenState::Unchanged
            };
            FrozenSlice { start: *start, files: slice.files.clone(), table }
        };
        Frozen::Slices(self.slices.iter_mut().map(slice).collect())
    }

    /// Adds a table that a checkpoint kept, or an update of what was added before.
    ///
    /// # Errors
    /// If the bytes are not such a table.
    pub(crate) fn restore_table(
        &mut self,
        start: i64,
        (earlier, kind): (Earlier, LayerKind),
        input: &mut Reader<'_>,
        mine: impl Fn(KeyHash) -> bool,
    ) -> Result<(), CodecError> {
        let slice = self.slices.entry(start).or_insert_with(|| Slice::new(&self.spec));
        let before = slice.table.memory();
        if earlier == Earlier::InFiles {
            slice.expect_files(&self.spec);
        }
        let table = Arc::make_mut(&mut slice.table);
        if table.earlier() == earlier && kind == LayerKind::Base {
            table.read(input, mine)?;
        } else {
            let mut whole = SliceTable::new(&self.spec.aggregations, earlier);
            whole.read(input, mine)?;
            if plant::adds_updates() { table.merge(&whole) } else { table.absorb(&whole) }
        }
        self.memory = (self.memory + slice.table.memory()).saturating_sub(before);
        if slice.table.is_empty() && slice.files.is_empty() {
            self.remove(start);
            return Ok(());
        }
        // The share may be another than the one that was written, so the next checkpoint is whole.
        self.changed.insert(start);
        Ok(())
    }

    /// Adds a file that a checkpoint kept, if it holds anything of this share.
    pub(crate) fn restore_file(&mut self, start: i64, file: &Scoped) {
        let Some(share) = &self.share else { return };
        let groups = file.groups.start.max(share.groups.start)..file.groups.end.min(share.groups.end);
        if groups.is_empty() {
            return;
        }
        let slice = self.slices.entry(start).or_insert_with(|| Slice::new(&self.spec));
        slice.expect_files(&self.spec);
        slice.files.push(Scoped { groups, ..file.clone() });
        slice.layers += 1;
    }
}

/// The pane of a window that fires once.
const ONLY: PaneInfo = PaneInfo {
    timing: PaneTiming::OnTime,
    index: 0,
    nonspeculative_index: Some(0),
    is_first: true,
    is_last: true,
};

/// Slots that leave together: so many, and no more bytes than a column may have many times over.
fn chunks<'s>(table: &SliceTable, slots: &'s [u32]) -> Vec<&'s [u32]> {
    let mut chunks = Vec::new();
    let mut rest = slots;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |slot: &&u32| {
            bytes += table.accumulators.heap_bytes(**slot);
            bytes <= CHUNK_BYTES
        };
        let count = rest.iter().take(CHUNK_ROWS).take_while(fits).count().max(1);
        let (chunk, others) = rest.split_at(count);
        chunks.push(chunk);
        rest = others;
    }
    chunks
}

pub(super) fn constant(panes: Vec<PaneInfo>) -> Panes {
    match panes.first() {
        Some(first) if panes.iter().all(|pane| pane == first) => Panes::All(Some(*first)),
        _ => Panes::Each(panes.into()),
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
