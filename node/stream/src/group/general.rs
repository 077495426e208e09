//! The general path: every key has its windows.
//!
//! Owns: the keys, their timers, the results in one order.
//! Must not know: how windows merge and fire, which is `pharos-window`'s.
//! Invariant: panes come out ordered by key group, key and window, so the order does not depend on
//! how keys are divided among threads.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Range;
use std::sync::Arc;

use arrow_array::ArrayRef;
use hashbrown::HashTable;
use pharos_window::{
    Gather, IntervalWindow, KeyedWindows, Pane, PaneInfo, Timestamp, TimestampCombiner, Watermark, Window,
    WindowSnapshot,
};

use super::layers::{BESIDE, Interval, Layer, LayerKind, Layers};
use super::parts::Parts;
use super::{Fired, FrozenState, GroupSpec, KeyedBatch};
use crate::aggregate::{Accumulators, AggregateError};
use crate::codec::{CodecError, Reader, put_bytes, put_len};
use crate::column::{Batch, Panes, Steps, Times, Windows};
use crate::key::{KeyGroup, KeyHash};
use crate::plant;

#[derive(Debug)]
struct Entry {
    key: Box<[u8]>,
    hash: KeyHash,
    /// Its windows, whose values are slots.
    windows: KeyedWindows<u32>,
    /// When it is looked at next at the latest.
    timer: Option<Timestamp>,
    /// The earliest timestamp that its panes to come hold, where that is asked for.
    hold: Option<Timestamp>,
    /// When it changed last, and whether it was there at a barrier.
    changed: Interval,
    kept: bool,
    /// Whether anything came that may be due at once.
    touched: bool,
}

/// Keys with their windows as bytes, in parts: the key groups of each and where it ends.
#[derive(Debug, Clone)]
pub(crate) struct Encoded {
    /// Everything, in the order of key groups and keys.
    pub bytes: Vec<u8>,
    /// The parts.
    pub parts: Vec<(Range<u32>, usize)>,
}

/// A pane and the position of its key.
type KeyedPane = (u32, Pane<u32>);

/// The values of all windows of all keys, side by side.
#[derive(Debug)]
struct Values {
    accumulators: Accumulators,
    /// The slots that are closed, and empty.
    free: Vec<u32>,
    /// The slots to which rows of the batch are still to be added, and these.
    slots: Vec<u32>,
    rows: Vec<u32>,
}

impl Values {
    fn open(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| self.accumulators.push())
    }

    fn close(&mut self, slot: u32) {
        self.accumulators.clear(slot);
        self.free.push(slot);
    }

    /// Takes the rows of a batch with the values `columns`.
    const fn of<'a>(&'a mut self, columns: &'a [ArrayRef]) -> Adding<'a> {
        Adding { values: self, columns }
    }
}

/// Values to which rows are added. What a slot is given comes in the order of the rows, which are added together where
/// nothing comes between them.
struct Adding<'a> {
    values: &'a mut Values,
    columns: &'a [ArrayRef],
}

impl Adding<'_> {
    fn add(&mut self, slot: u32, row: u32) {
        self.values.slots.push(slot);
        self.values.rows.push(row);
    }

    fn flush(&mut self) {
        let Values { accumulators, slots, rows, .. } = &mut *self.values;
        accumulators.update(slots, rows, self.columns);
        slots.clear();
        rows.clear();
    }
}

impl Gather for Adding<'_> {
    type Place = u32;

    fn open(&mut self) -> u32 {
        self.values.open()
    }

    fn join(&mut self, earlier: u32, later: u32) {
        self.flush();
        self.values.accumulators.join(earlier, later);
        self.values.close(later);
    }

    fn close(&mut self, slot: u32) {
        self.flush();
        self.values.close(slot);
    }
}

/// One thread's keys.
#[derive(Debug)]
pub(crate) struct General {
    spec: Arc<GroupSpec>,
    index: HashTable<u32>,
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    values: Values,
    /// When which key is looked at. An item that is not its key's timer is void.
    timers: BinaryHeap<Reverse<(Timestamp, u32)>>,
    touched: Vec<u32>,
    /// The holds of all keys, where they are asked for.
    holds: BTreeSet<(Timestamp, u32)>,
    /// What checkpoints have of it, and whether anything changed since the last one.
    layers: Layers,
    changed: bool,
    /// The keys that have gone since the base was written, of those that were there at a barrier, and when.
    gone: BTreeMap<Box<[u8]>, Interval>,
}

impl General {
    /// No keys yet.
    #[must_use]
    pub(crate) fn new(spec: Arc<GroupSpec>) -> Self {
        let accumulators = Accumulators::new(&spec.aggregations);
        Self {
            spec,
            index: HashTable::new(),
            entries: Vec::new(),
            free: Vec::new(),
            values: Values { accumulators, free: Vec::new(), slots: Vec::new(), rows: Vec::new() },
            timers: BinaryHeap::new(),
            touched: Vec::new(),
            holds: BTreeSet::new(),
            layers: Layers::new(),
            changed: false,
            gone: BTreeMap::new(),
        }
    }

    /// Adds rows; see [`super::Grouping::add`].
    pub(crate) fn add(&mut self, batch: &KeyedBatch, rows: &[u32], input: Watermark) -> Vec<(u32, Window)> {
        let mut dropped = Vec::new();
        let strategy = self.spec.strategy;
        let now = self.layers.now();
        self.changed |= !rows.is_empty();
        for row in rows {
            let at = *row as usize;
            let position = self.position(batch.keys.bytes(at), batch.keys.hash(at));
            let entry = self.entries[position as usize].as_mut().expect("the position is occupied");
            entry.changed = now;
            let mut adding = self.values.of(&batch.values);
            batch.windows.each(at, |window| {
                match entry.windows.add(&strategy, window, batch.times.at(at), input, &mut adding) {
                    Some(slot) => adding.add(slot, *row),
                    None => dropped.push((*row, window)),
                }
            });
            if !std::mem::replace(&mut entry.touched, true) {
                self.touched.push(position);
            }
        }
        self.values.of(&batch.values).flush();
        dropped
    }

    fn find(&self, key: &[u8], hash: KeyHash) -> Option<u32> {
        let entry = |at: u32| self.entries[at as usize].as_ref().expect("an indexed position is occupied");
        self.index.find(hash.0, |at| entry(*at).hash == hash && *entry(*at).key == *key).copied()
    }

    fn position(&mut self, key: &[u8], hash: KeyHash) -> u32 {
        if let Some(at) = self.find(key, hash) {
            return at;
        }
        self.insert(Box::from(key), hash, KeyedWindows::default())
    }

    fn insert(&mut self, key: Box<[u8]>, hash: KeyHash, windows: KeyedWindows<u32>) -> u32 {
        let changed = self.layers.now();
        let new = Entry { key, hash, windows, timer: None, hold: None, changed, kept: false, touched: false };
        let at = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            u32::try_from(self.entries.len() - 1).expect("a thread has fewer than 2^32 keys")
        });
        self.entries[at as usize] = Some(new);
        let entries = &self.entries;
        self.index.insert_unique(hash.0, at, |at| {
            entries[*at as usize].as_ref().expect("an indexed position is occupied").hash.0
        });
        at
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
        let mut fired: Vec<KeyedPane> = Vec::new();
        let mut over = Vec::new();
        let mut touched = std::mem::take(&mut self.touched);
        for position in touched.drain(..) {
            let entry = self.entries[position as usize].as_mut();
            if entry.is_some_and(|entry| std::mem::take(&mut entry.touched)) {
                self.visit(position, before, input, &mut fired, &mut over);
            }
        }
        self.touched = touched;
        while let Some(Reverse((at, position))) = self.timers.peek().copied()
            && input.has_passed(at)
        {
            self.timers.pop();
            let Some(entry) = self.entries[position as usize].as_mut().filter(|of| of.timer == Some(at))
            else {
                continue;
            };
            entry.timer = None;
            // It may have been put off since.
            if entry
                .windows
                .next_timer(&self.spec.strategy, before)
                .is_some_and(|next| input.has_passed(next))
            {
                self.visit(position, before, input, &mut fired, &mut over);
            } else {
                self.schedule(position, input);
            }
        }
        let key = |position: u32| {
            let entry = self.entries[position as usize].as_ref().expect("who has fired is still there");
            (entry.hash.group(), &entry.key)
        };
        fired.sort_by(|(one, pane), (other, other_pane)| {
            (key(*one), pane.window).cmp(&(key(*other), other_pane.window))
        });
        let emitted = if fired.is_empty() { Vec::new() } else { vec![self.emit(&fired)?] };
        for (_, pane) in fired.iter().filter(|(_, pane)| !pane.kept) {
            self.values.close(pane.value);
        }
        over.into_iter().for_each(|position| self.remove(position));
        self.tidy();
        Ok(emitted)
    }

    /// Gives up void timers where they are many, and the slots once no key is left.
    fn tidy(&mut self) {
        if self.timers.len() > 2 * self.index.len() + 64 {
            let timer =
                |(position, entry): (u32, &Option<Entry>)| Some(Reverse((entry.as_ref()?.timer?, position)));
            self.timers = (0..).zip(&self.entries).filter_map(timer).collect();
        }
        if self.index.is_empty() {
            self.values.accumulators.reset();
            self.values.free.clear();
        }
    }

    /// Fires what is due of a key, and notes if nothing is left of it.
    fn visit(
        &mut self,
        position: u32,
        before: Watermark,
        input: Watermark,
        fired: &mut Vec<KeyedPane>,
        over: &mut Vec<u32>,
    ) {
        let entry = self.entries[position as usize].as_mut().expect("the caller knows the position");
        (entry.changed, self.changed) = (self.layers.now(), true);
        let out = |pane| fired.push((position, pane));
        entry.windows.advance(&self.spec.strategy, before, input, &mut self.values.of(&[]), out);
        if self.spec.strategy.timestamp_combiner != TimestampCombiner::EndOfWindow {
            let held = entry.windows.held();
            if entry.hold != held {
                let old = std::mem::replace(&mut entry.hold, held).map(|old| (old, position));
                old.iter().for_each(|old| _ = self.holds.remove(old));
                self.holds.extend(held.map(|new| (new, position)));
            }
        }
        if entry.windows.is_empty() {
            over.push(position);
        } else {
            self.schedule(position, input);
        }
    }

    /// Sees to it that a key is looked at in time. That it is looked at too early does no harm, and a session that goes on
    /// costs nothing here.
    fn schedule(&mut self, position: u32, input: Watermark) {
        let entry = self.entries[position as usize].as_mut().expect("the caller knows the position");
        let next = entry.windows.next_timer(&self.spec.strategy, input);
        if let Some(next) = next.filter(|next| entry.timer.is_none_or(|timer| *next < timer)) {
            entry.timer = Some(next);
            self.timers.push(Reverse((next, position)));
        }
    }

    /// Takes a key out.
    fn remove(&mut self, position: u32) {
        let entry = self.entries[position as usize].take().expect("the caller knows the position");
        if let Ok(found) = self.index.find_entry(entry.hash.0, |at| *at == position) {
            found.remove();
        }
        let hold = entry.hold.map(|hold| (hold, position));
        hold.iter().for_each(|hold| _ = self.holds.remove(hold));
        for (_, state) in entry.windows.windows() {
            state.value.into_iter().for_each(|slot| self.values.close(slot));
        }
        self.free.push(position);
        if entry.kept && self.layers.updates_serve(0) {
            self.gone.insert(entry.key, self.layers.now());
        }
        if !self.gone.is_empty() && !self.layers.updates_serve(self.gone.len() * BESIDE) {
            (self.layers, self.gone) = (Layers::new(), BTreeMap::new());
        }
    }

    fn emit(&self, fired: &[KeyedPane]) -> Result<Fired, AggregateError> {
        let key = |(position, _): &KeyedPane| {
            &*self.entries[*position as usize].as_ref().expect("who has fired is still there").key
        };
        let slots: Vec<u32> = fired.iter().map(|(_, pane)| pane.value).collect();
        let batch = Batch {
            columns: self.spec.columns(fired.iter().map(key), self.values.accumulators.finish(&slots)?),
            rows: fired.len(),
            times: Times::Each(fired.iter().map(|(_, pane)| pane.timestamp.micros()).collect()),
            windows: windows(fired.iter().map(|(_, pane)| pane.window)),
            panes: Panes::Each(fired.iter().map(|(_, pane)| pane.info).collect::<Vec<PaneInfo>>().into()),
            steps: Steps::All(0),
        };
        Ok(Fired { window: None, batch })
    }

    /// Whether nothing is left of any key.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let closed = self.values.free.len() == self.values.accumulators.len() as usize;
        self.index.is_empty() && self.entries.iter().all(Option::is_none) && self.holds.is_empty() && closed
    }

    /// The output watermark: the input watermark, held by what is still to come.
    #[must_use]
    pub(crate) fn output(&self, input: Watermark) -> Watermark {
        self.holds.first().map_or(input, |(held, _)| input.min(Watermark::at(*held)))
    }

    /// What there is now, or what changed since the last barrier.
    pub(crate) fn freeze(&mut self) -> FrozenState<Encoded> {
        let changed = std::mem::take(&mut self.changed);
        if self.index.is_empty() {
            (self.layers, self.gone) = (Layers::new(), BTreeMap::new());
            return FrozenState::Empty;
        }
        if !changed {
            return FrozenState::Unchanged;
        }
        let Self { layers, entries, gone, values, .. } = self;
        let bytes = |entry: &Entry| {
            let window = |(_, state): &(Window, WindowSnapshot<u32>)| {
                BESIDE + state.value.map_or(0, |slot| values.accumulators.heap_bytes(slot))
            };
            BESIDE + entry.key.len() + entry.windows.windows().iter().map(window).sum::<usize>()
        };
        let all = entries.iter().flatten().map(bytes).sum();
        let changed = |after| {
            let changed: usize =
                entries.iter().flatten().filter(|entry| entry.changed > after).map(bytes).sum();
            changed
                + gone.iter().filter(|(_, at)| **at > after).map(|(key, _)| BESIDE + key.len()).sum::<usize>()
        };
        let layer = layers.barrier(all, changed);
        let encoded = self.encode(layer, all);
        if layer == Layer::Base {
            self.gone.clear();
        }
        for entry in self.entries.iter_mut().flatten() {
            entry.kept = true;
            if layer == Layer::Base {
                entry.changed = Interval::BEFORE;
            }
        }
        FrozenState::Changed(layer, encoded)
    }

    /// The bytes of a layer, where all is of about `all` bytes. A key that is gone has no windows.
    fn encode(&self, layer: Layer, all: usize) -> Encoded {
        let entries = self.entries.iter().flatten();
        let mut wanted: Vec<(KeyGroup, &[u8], Option<&Entry>)> = match layer {
            Layer::Base => entries.map(|entry| (entry.hash.group(), &*entry.key, Some(entry))).collect(),
            Layer::Update { after, .. } => {
                let changed = entries.filter(|entry| entry.changed > after);
                let changed = changed.map(|entry| (entry.hash.group(), &*entry.key, Some(entry)));
                let gone = self.gone.iter().filter(|(_, interval)| **interval > after);
                let gone = gone.map(|(key, _)| (KeyHash::of(key), &**key));
                let gone =
                    gone.filter(|(hash, key)| self.find(key, *hash).is_none() && !plant::forgets_gone());
                changed.chain(gone.map(|(hash, key)| (hash.group(), key, None))).collect()
            }
        };
        wanted.sort_unstable_by_key(|(group, key, _)| (*group, *key));
        let mut bytes = Vec::new();
        let mut parts = Parts::new(0..KeyGroup::COUNT, all, &mut bytes);
        for (group, key, entry) in wanted {
            let out = parts.entry(group);
            put_bytes(out, key);
            put_time(out, entry.map_or(Timestamp::MIN, |entry| entry.windows.output().timestamp()));
            put_len(out, entry.map_or(0, |entry| entry.windows.windows().len()));
            for (window, state) in entry.iter().flat_map(|entry| entry.windows.windows()) {
                write_window(out, *window, state, &self.values.accumulators);
            }
        }
        let parts = parts.finish();
        Encoded { bytes, parts }
    }

    /// Adds the keys that a checkpoint kept and `mine` claims; an update's instead of what was added before.
    ///
    /// # Errors
    /// If the bytes are not such state.
    pub(crate) fn restore(
        &mut self,
        kind: LayerKind,
        input: &mut Reader<'_>,
        mine: impl Fn(KeyHash) -> bool,
    ) -> Result<(), CodecError> {
        let mut others = Accumulators::new(&self.spec.aggregations);
        for _ in 0..input.u32()? {
            let key: Box<[u8]> = Box::from(input.bytes()?);
            let hash = KeyHash::of(&key);
            let output = Watermark::at(Timestamp::from_micros(input.i64()?));
            let count = input.u32()?;
            let mine = mine(hash);
            let values = if mine { &mut self.values.accumulators } else { &mut others };
            let windows: Vec<_> = (0..count).map(|_| read_window(input, values)).collect::<Result<_, _>>()?;
            if !mine {
                others.reset();
                continue;
            }
            if let Some(position) = self.find(&key, hash).filter(|_| kind == LayerKind::Update) {
                self.remove(position);
            }
            if !windows.is_empty() {
                let position = self.insert(key, hash, KeyedWindows::restore(output, windows));
                // The first advance fires nothing new and sets the timer.
                self.touched.push(position);
                self.entries[position as usize].iter_mut().for_each(|entry| entry.touched = true);
                self.changed = true;
            }
        }
        Ok(())
    }
}

fn read_window(
    input: &mut Reader<'_>,
    values: &mut Accumulators,
) -> Result<(Window, WindowSnapshot<u32>), CodecError> {
    let window = if input.bool()? {
        let (start, end) = (input.i64()?, input.i64()?);
        if start > end {
            return Err(input.error("a window that ends after its start"));
        }
        Window::Interval(IntervalWindow::new(Timestamp::from_micros(start), Timestamp::from_micros(end)))
    } else {
        Window::Global
    };
    let panes = input.u32()?;
    let dirty = input.bool()?;
    let hold = if input.bool()? { Some(Timestamp::from_micros(input.i64()?)) } else { None };
    let value = if input.bool()? { Some(values.read(input)?) } else { None };
    Ok((window, WindowSnapshot { value, dirty, hold, panes }))
}

fn put_time(out: &mut Vec<u8>, time: Timestamp) {
    out.extend_from_slice(&time.micros().to_le_bytes());
}

fn write_window(out: &mut Vec<u8>, window: Window, state: &WindowSnapshot<u32>, values: &Accumulators) {
    match window {
        Window::Interval(window) => {
            out.push(1);
            put_time(out, window.start);
            put_time(out, window.end);
        }
        Window::Global => out.push(0),
    }
    out.extend_from_slice(&state.panes.to_le_bytes());
    out.push(u8::from(state.dirty));
    out.push(u8::from(state.hold.is_some()));
    state.hold.into_iter().for_each(|hold| put_time(out, hold));
    out.push(u8::from(state.value.is_some()));
    state.value.into_iter().for_each(|slot| values.write(slot, out));
}

fn windows(of: impl Iterator<Item = Window> + Clone) -> Windows {
    let interval = |window: Window| match window {
        Window::Interval(window) => window,
        Window::Global => IntervalWindow::new(Timestamp::MIN, Timestamp::GLOBAL_WINDOW_MAX),
    };
    if of.clone().all(|window| window == Window::Global) {
        return Windows::All(Window::Global);
    }
    Windows::Each {
        starts: of.clone().map(|window| interval(window).start.micros()).collect(),
        ends: of.map(|window| interval(window).end.micros()).collect(),
    }
}
