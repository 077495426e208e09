//! The general path: every key has its windows.
//!
//! Owns: the keys that are in memory, which ones those are, their timers, the results in one order.
//! Must not know: how windows merge and fire, which is `pharos-window`'s; how keys are kept on disk.
//! Invariant: panes come out ordered by the hash of the key, key and window, so the order does not depend on
//! how keys are divided among threads, nor on which are in memory.
//!
//! A key is in memory whenever something comes for it or is due: which windows it has, and so what becomes of a row, only
//! its windows tell. Where not all keys fit, those go to disk that have not been looked at for longest.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashTable;
use pharos_window::{
    IntervalWindow, KeyedWindows, Pane, PaneInfo, Timestamp, TimestampCombiner, Watermark, Window,
    WindowSnapshot, WindowingStrategy,
};

use super::cold::{self, Cold, Due, Key, KeyTimes};
use super::keyed::{read_version, read_windows, write_windows};
use super::layers::{BESIDE, Interval, Layer, LayerKind, Layers};
use super::parts::Parts;
use super::values::Values;
use super::{AdvanceError, Emit, Fired, FrozenState, GroupSpec, KeyedBatch, RestoreError};
use crate::aggregate::{Accumulators, AggregateError};
use crate::codec::{CodecError, Reader, put_bytes};
use crate::column::{Batch, Panes, Steps, Times, Windows};
use crate::key::{KeyGroup, KeyHash};
use crate::plant;
use crate::spill::{Scoped, Share, SpillError};

/// What a key takes in memory beside its bytes: its entry, its places in the index and among the timers, and what it costs to
/// allocate its bytes.
const KEY_BYTES: usize = size_of::<Option<Entry>>() + 6 + size_of::<Reverse<(Timestamp, u32)>>() + 16;
/// What a window takes beside its values.
const WINDOW_BYTES: usize = size_of::<(Window, WindowSnapshot<u32>)>();

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
    /// Whether anything came that may be due at once, and whether it is about to be looked at.
    touched: bool,
    due: bool,
    /// When it was looked at last, by [`General::clock`].
    used: u32,
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
    /// The holds of all keys in memory, where they are asked for.
    holds: BTreeSet<(Timestamp, u32)>,
    /// The keys that are not in memory, where there may be any, and the earliest timestamp that any key holds.
    cold: Option<Cold>,
    held: Option<Timestamp>,
    /// How many windows the keys in memory have, and how many bytes they are.
    windows: usize,
    key_bytes: usize,
    /// How many steps there were.
    clock: u32,
    /// What checkpoints have of it, and whether anything changed since the last one.
    layers: Layers,
    changed: bool,
    /// The keys that have gone since the base was written, of those that were there at a barrier, and when.
    gone: BTreeMap<Box<[u8]>, Interval>,
}

impl General {
    /// No keys yet. Without a share all of them stay in memory.
    #[must_use]
    pub(crate) fn new(spec: Arc<GroupSpec>, share: Option<Share>) -> Self {
        Self {
            index: HashTable::new(),
            entries: Vec::new(),
            free: Vec::new(),
            values: Values::new(&spec),
            spec,
            timers: BinaryHeap::new(),
            touched: Vec::new(),
            holds: BTreeSet::new(),
            cold: share.map(Cold::new),
            held: None,
            windows: 0,
            key_bytes: 0,
            clock: 0,
            layers: Layers::new(),
            changed: false,
            gone: BTreeMap::new(),
        }
    }

    /// Adds rows; see [`super::Grouping::add`].
    ///
    /// # Errors
    /// If a key cannot be read from disk.
    pub(crate) fn add(
        &mut self,
        batch: &KeyedBatch,
        rows: &[u32],
        input: Watermark,
    ) -> Result<Vec<(u32, Window)>, SpillError> {
        let mut dropped = Vec::new();
        let strategy = self.spec.strategy;
        let now = self.layers.now();
        self.changed |= !rows.is_empty();
        for row in rows {
            let at = *row as usize;
            let position = self.position((batch.keys.hash(at), batch.keys.bytes(at)), input)?;
            let entry = self.entries[position as usize].as_mut().expect("the position is occupied");
            (entry.changed, entry.used) = (now, self.clock);
            let before = entry.windows.windows().len();
            let mut adding = self.values.of(&batch.values);
            batch.windows.each(at, |window| {
                match entry.windows.add(&strategy, window, batch.times.at(at), input, &mut adding) {
                    Some(slot) => adding.add(slot, *row),
                    None => dropped.push((*row, window)),
                }
            });
            self.windows = self.windows + entry.windows.windows().len() - before;
            if !std::mem::replace(&mut entry.touched, true) {
                self.touched.push(position);
            }
        }
        self.values.of(&batch.values).flush();
        Ok(dropped)
    }

    fn find(&self, key: (KeyHash, &[u8])) -> Option<u32> {
        find(&self.index, &self.entries, key)
    }

    /// Where a key is, which is in memory from now on, when the watermark stands at `now`.
    fn position(&mut self, key: (KeyHash, &[u8]), now: Watermark) -> Result<u32, SpillError> {
        if let Some(at) = self.find(key) {
            return Ok(at);
        }
        if let Some((at, _)) = self.bring(key, now, |_| true)? {
            return Ok(at);
        }
        Ok(self.insert(key, KeyedWindows::default()))
    }

    /// Brings a key from disk, if anything counts of it there when the watermark stands at `now` and `wanted` says so; where
    /// it is, and how many bytes were read.
    fn bring(
        &mut self,
        key: (KeyHash, &[u8]),
        now: Watermark,
        wanted: impl FnOnce(KeyTimes) -> bool,
    ) -> Result<Option<(u32, usize)>, SpillError> {
        let Self { cold, values, .. } = self;
        let Some(cold) = cold.as_mut().filter(|cold| !cold.is_empty()) else { return Ok(None) };
        let read = cold.take(key, now, |times, input| {
            if !wanted(times) {
                return Ok(None);
            }
            let bytes = input.left();
            Ok(Some((read_version(input, |input| values.read(input))?, bytes)))
        })?;
        let Some((windows, bytes)) = read else { return Ok(None) };
        self.changed = true;
        Ok(Some((self.insert(key, windows), bytes)))
    }

    fn insert(&mut self, (hash, key): (KeyHash, &[u8]), windows: KeyedWindows<u32>) -> u32 {
        let changed = self.layers.now();
        self.windows += windows.windows().len();
        self.key_bytes += key.len();
        let new = Entry {
            key: Box::from(key),
            hash,
            windows,
            timer: None,
            hold: None,
            changed,
            kept: false,
            touched: false,
            due: false,
            used: self.clock,
        };
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
    /// If a result does not fit its type, keys cannot be read from disk or put there, or results are not taken.
    pub(crate) fn advance(
        &mut self,
        before: Watermark,
        input: Watermark,
        out: &mut Emit<'_>,
    ) -> Result<(), AdvanceError> {
        let step = Step { before, input };
        self.clock = self.clock.wrapping_add(1);
        let due = self.due(step);
        match self.cold.as_mut().map_or(Ok(Due::Keys(Vec::new())), |cold| cold.due(input))? {
            Due::Keys(keys) if keys.is_empty() => self.fire(&due, step, out)?,
            Due::Keys(keys) => self.fire_with(due, &keys, step, out)?,
            Due::Many => self.fire_with_all(due, step, out)?,
        }
        self.relieve(step, None)?;
        self.tidy();
        self.hold_back(input)?;
        Ok(())
    }

    /// Fires what is due of keys in memory, and of these, which may be on disk.
    fn fire_with(
        &mut self,
        due: Vec<u32>,
        keys: &[Key],
        step: Step,
        out: &mut Emit<'_>,
    ) -> Result<(), AdvanceError> {
        let mut firing = Firing::new(self, due, step);
        for (hash, key) in keys {
            let key = (*hash, &**key);
            if self.find(key).is_some() {
                continue;
            }
            if let Some(brought) = self.bring(key, step.before, |times| step.input.has_passed(times.timer))? {
                firing.add(self, key, brought, out)?;
            }
        }
        firing.finish(self, out)
    }

    /// Fires what is due of keys in memory, and of all on disk.
    fn fire_with_all(&mut self, due: Vec<u32>, step: Step, out: &mut Emit<'_>) -> Result<(), AdvanceError> {
        let mut firing = Firing::new(self, due, step);
        let everything = self.cold.as_mut().map(Cold::everything).transpose()?;
        everything.iter().try_for_each(|all| {
            all.each(step.before, |key, times, reader| {
                if !step.input.has_passed(times.timer) || self.find(key).is_some() {
                    return Ok(());
                }
                let (mut bytes, values) = (Reader::new(reader.value()), &mut self.values);
                let length = bytes.left();
                let windows = KeyTimes::read(&mut bytes)
                    .and_then(|_| read_version(&mut bytes, |input| values.read(input)))
                    .map_err(|error| reader.damaged(error))?;
                self.changed = true;
                let at = self.insert(key, windows);
                firing.add(self, key, (at, length), out)
            })
        })?;
        firing.finish(self, out)
    }

    /// The keys in memory of which something may be due.
    fn due(&mut self, Step { before, input }: Step) -> Vec<u32> {
        let mut due = Vec::new();
        let Self { touched, entries, .. } = self;
        due.extend(touched.drain(..).filter(|position| {
            let entry = entries[*position as usize].as_mut();
            entry.is_some_and(|entry| {
                std::mem::take(&mut entry.touched) && !std::mem::replace(&mut entry.due, true)
            })
        }));
        while let Some(Reverse((at, position))) = self.timers.peek().copied()
            && input.has_passed(at)
        {
            self.timers.pop();
            let entry = self.entries[position as usize].as_mut().filter(|entry| entry.timer == Some(at));
            let Some(entry) = entry else { continue };
            entry.timer = None;
            if entry.due {
                continue;
            }
            // It may have been put off since.
            let next = entry.windows.next_timer(&self.spec.strategy, before);
            if next.is_some_and(|next| input.has_passed(next)) {
                entry.due = true;
                due.push(position);
            } else {
                self.schedule(position, input);
            }
        }
        due
    }

    /// Fires what is due of these keys.
    fn fire(&mut self, due: &[u32], step: Step, out: &mut Emit<'_>) -> Result<(), AdvanceError> {
        let (mut fired, mut over): (Vec<KeyedPane>, Vec<u32>) = (Vec::new(), Vec::new());
        due.iter().for_each(|position| self.visit(*position, step, &mut fired, &mut over));
        let key = |position: u32| self.key(position);
        fired.sort_by(|(one, pane), (other, other_pane)| {
            (key(*one), pane.window).cmp(&(key(*other), other_pane.window))
        });
        if !fired.is_empty() {
            out(self.emit(&fired)?)?;
        }
        for (_, pane) in fired.iter().filter(|(_, pane)| !pane.kept) {
            self.values.close(pane.value);
        }
        over.into_iter().for_each(|position| self.remove(position));
        Ok(())
    }

    /// The key at a position.
    fn key(&self, position: u32) -> (KeyHash, &[u8]) {
        let entry = self.entries[position as usize].as_ref().expect("the caller knows the position");
        (entry.hash, &entry.key)
    }

    /// How many bytes the keys in memory take, roughly.
    pub(super) fn memory(&self) -> usize {
        self.index.len() * KEY_BYTES + self.key_bytes + self.windows * WINDOW_BYTES + self.values.memory()
    }

    /// Puts keys on disk, of those up to `upto`, of which nothing is due any more, until the others take no more memory than
    /// they may.
    fn relieve(&mut self, step: Step, upto: Option<(KeyHash, &[u8])>) -> Result<(), SpillError> {
        let Some(bound) = self.cold.as_ref().map(Cold::bound) else { return Ok(()) };
        while self.memory() > bound && self.put_on_disk(step, upto)? {}
        Ok(())
    }

    /// Puts half of the keys up to `upto` on disk, those that were not looked at for longest; whether there were any.
    fn put_on_disk(&mut self, step: Step, upto: Option<(KeyHash, &[u8])>) -> Result<bool, SpillError> {
        let entries =
            (0..).zip(&self.entries).filter_map(|(position, entry)| Some((position, entry.as_ref()?)));
        let entries = entries.filter(|(_, entry)| upto.is_none_or(|upto| (entry.hash, &*entry.key) <= upto));
        let mut by_use: Vec<(u32, u32)> =
            entries.map(|(position, entry)| (self.clock.wrapping_sub(entry.used), position)).collect();
        let half = by_use.len().div_ceil(2);
        if half < by_use.len() {
            by_use.select_nth_unstable_by_key(half, |(unused, _)| Reverse(*unused));
        }
        let mut going: Vec<u32> = by_use[..half].iter().map(|(_, position)| *position).collect();
        going.sort_unstable_by(|one, other| self.key(*one).cmp(&self.key(*other)));
        let Some(cold) = self.cold.as_ref().filter(|_| !going.is_empty()) else { return Ok(false) };
        let Self { entries, spec, values, .. } = self;
        let entry = |position: u32| entries[position as usize].as_ref().expect("it was just there");
        let mut writer = cold.writer();
        let mut bytes = Vec::new();
        for position in &going {
            let Entry { hash, key, windows, .. } = entry(*position);
            let times = times(&spec.strategy, windows, step.input);
            bytes.clear();
            times.put(&mut bytes);
            write_windows(&mut bytes, windows, &values.accumulators);
            cold::write(&mut writer, (*hash, key), times, &bytes)?;
        }
        let files = writer.finish()?;
        going.into_iter().for_each(|position| _ = self.take_out(position));
        let Self { index, entries, cold, .. } = self;
        let in_memory = |hash, key: &[u8]| find(index, entries, (hash, key)).is_some();
        // Of keys on disk some may still be due at this step, if it is not over.
        let now = if upto.is_some() { step.before } else { step.input };
        cold.as_mut().map_or(Ok(()), |cold| cold.add(files, now, in_memory))?;
        // What checkpoints have of keys that went is older than what files have.
        (self.layers, self.changed) = (Layers::new(), true);
        self.gone.clear();
        self.tidy();
        Ok(true)
    }

    /// Notes the earliest timestamp that any key holds, where keys may be on disk.
    fn hold_back(&mut self, now: Watermark) -> Result<(), SpillError> {
        let Self { index, entries, cold, holds, .. } = self;
        let Some(cold) = cold.as_mut().filter(|cold| !cold.is_empty()) else {
            self.held = None;
            return Ok(());
        };
        cold.tidy();
        let in_memory = |hash, key: &[u8]| find(index, entries, (hash, key)).is_some();
        self.held = cold.held(now, holds.first().map(|(held, _)| *held), in_memory)?;
        Ok(())
    }

    /// Gives up void timers where they are many, and the slots once no key is left.
    fn tidy(&mut self) {
        if self.timers.len() > 2 * self.index.len() + 64 {
            let timer =
                |(position, entry): (u32, &Option<Entry>)| Some(Reverse((entry.as_ref()?.timer?, position)));
            self.timers = (0..).zip(&self.entries).filter_map(timer).collect();
        }
        if self.index.is_empty() {
            self.values.reset();
        }
    }

    /// Fires what is due of a key, and notes if nothing is left of it.
    fn visit(
        &mut self,
        position: u32,
        Step { before, input }: Step,
        fired: &mut Vec<KeyedPane>,
        over: &mut Vec<u32>,
    ) {
        let entry = self.entries[position as usize].as_mut().expect("the caller knows the position");
        (entry.changed, self.changed) = (self.layers.now(), true);
        (entry.due, entry.used) = (false, self.clock);
        let windows = entry.windows.windows().len();
        let out = |pane| fired.push((position, pane));
        entry.windows.advance(&self.spec.strategy, before, input, &mut self.values.of(&[]), out);
        self.windows -= windows - entry.windows.windows().len();
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

    /// Takes out a key of which nothing is left.
    fn remove(&mut self, position: u32) {
        let entry = self.take_out(position);
        if entry.kept && self.layers.updates_serve(0) {
            self.gone.insert(entry.key, self.layers.now());
        }
        if !self.gone.is_empty() && !self.layers.updates_serve(self.gone.len() * BESIDE) {
            (self.layers, self.gone) = (Layers::new(), BTreeMap::new());
        }
    }

    /// Takes a key out of memory.
    fn take_out(&mut self, position: u32) -> Entry {
        let entry = self.entries[position as usize].take().expect("the caller knows the position");
        if let Ok(found) = self.index.find_entry(entry.hash.0, |at| *at == position) {
            found.remove();
        }
        let hold = entry.hold.map(|hold| (hold, position));
        hold.iter().for_each(|hold| _ = self.holds.remove(hold));
        for (_, state) in entry.windows.windows() {
            state.value.into_iter().for_each(|slot| self.values.close(slot));
        }
        self.windows -= entry.windows.windows().len();
        self.key_bytes -= entry.key.len();
        self.free.push(position);
        entry
    }

    fn emit(&self, fired: &[KeyedPane]) -> Result<Fired, AggregateError> {
        let key = |(position, _): &KeyedPane| self.key(*position).1;
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

    /// Whether a key is in memory.
    #[cfg(test)]
    pub(super) fn is_in_memory(&self, key: &[u8]) -> bool {
        self.find((KeyHash::of(key), key)).is_some()
    }

    /// Whether nothing is left of any key.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let counted = self.windows + self.key_bytes == 0 && self.memory() == 0;
        let cold = self.cold.as_ref().is_none_or(Cold::is_empty);
        let left = self.index.is_empty() && self.entries.iter().all(Option::is_none) && self.holds.is_empty();
        left && self.values.are_closed() && counted && cold
    }

    /// The output watermark: the input watermark, held by what is still to come.
    #[must_use]
    pub(crate) fn output(&self, input: Watermark) -> Watermark {
        let held = self.holds.first().map(|(held, _)| *held).into_iter().chain(self.held).min();
        held.map_or(input, |held| input.min(Watermark::at(held)))
    }

    /// The files that there are, in an order in which the later of two that have a key counts.
    pub(crate) fn files(&self) -> Vec<Scoped> {
        self.cold.iter().flat_map(Cold::files).cloned().collect()
    }

    /// What there is in memory now, or what of it changed since the last barrier.
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
                    gone.filter(|(hash, key)| self.find((*hash, key)).is_none() && !plant::forgets_gone());
                changed.chain(gone.map(|(hash, key)| (hash.group(), key, None))).collect()
            }
        };
        wanted.sort_unstable_by_key(|(group, key, _)| (*group, *key));
        let mut bytes = Vec::new();
        let mut parts = Parts::new(0..KeyGroup::COUNT, all, &mut bytes);
        for (group, key, entry) in wanted {
            let out = parts.entry(group);
            put_bytes(out, key);
            match entry {
                Some(entry) => write_windows(out, &entry.windows, &self.values.accumulators),
                None => write_windows(out, &KeyedWindows::default(), &self.values.accumulators),
            }
        }
        let parts = parts.finish();
        Encoded { bytes, parts }
    }

    /// Adds a file that a checkpoint kept, in their order.
    ///
    /// # Errors
    /// If it cannot be read, or there is no place for it.
    pub(crate) fn restore_file(&mut self, file: &Scoped) -> Result<(), RestoreError> {
        let cold = self.cold.as_mut().ok_or_else(|| Reader::new(&[]).error("no file"))?;
        Ok(cold.restore(file)?)
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
            if !mine(hash) {
                read_windows(input, |input| others.read(input))?;
                others.reset();
                continue;
            }
            let windows = read_windows(input, |input| self.values.read(input))?;
            let key = (hash, &*key);
            if let Some(position) = self.find(key).filter(|_| kind == LayerKind::Update) {
                self.remove(position);
            }
            if !windows.is_empty() {
                let position = self.insert(key, windows);
                // The first advance fires nothing new and sets the timer.
                self.touched.push(position);
                self.entries[position as usize].iter_mut().for_each(|entry| entry.touched = true);
                self.changed = true;
            }
        }
        Ok(())
    }
}

/// Where a key is.
fn find(index: &HashTable<u32>, entries: &[Option<Entry>], (hash, key): (KeyHash, &[u8])) -> Option<u32> {
    let entry = |at: u32| entries[at as usize].as_ref().expect("an indexed position is occupied");
    index.find(hash.0, |at| entry(*at).hash == hash && *entry(*at).key == *key).copied()
}

/// The times of a key when the watermark stands at `now`.
fn times(strategy: &WindowingStrategy, windows: &KeyedWindows<u32>, now: Watermark) -> KeyTimes {
    // At the end of time a window may be cleared before it closes.
    let over = |window: Window| strategy.garbage_collection_time(window).max(window.max_timestamp());
    let over = windows.windows().iter().map(|(window, _)| over(*window)).max();
    let hold = match strategy.timestamp_combiner {
        TimestampCombiner::EndOfWindow => None,
        TimestampCombiner::Earliest | TimestampCombiner::Latest => windows.held(),
    };
    let [over, timer] =
        [over, windows.next_timer(strategy, now)].map(|time| time.expect("a key in memory has windows"));
    KeyTimes { over, timer, hold }
}

/// A move of the input watermark.
#[derive(Debug, Clone, Copy)]
struct Step {
    before: Watermark,
    input: Watermark,
}

/// The keys that are due at a step, of which those on disk come in order, so many at a time as there is memory for.
struct Firing {
    step: Step,
    /// Those in memory that are still to come, in the reverse of their order.
    rest: Vec<u32>,
    /// Those to be fired next, and how many bytes what was brought of them takes, and may take.
    next: Vec<u32>,
    brought: usize,
    most: usize,
}

impl Firing {
    fn new(of: &General, mut due: Vec<u32>, step: Step) -> Self {
        due.sort_unstable_by(|one, other| of.key(*other).cmp(&of.key(*one)));
        let most = of.cold.as_ref().map_or(0, Cold::bound) / 4;
        Self { step, rest: due, next: Vec::new(), brought: 0, most }
    }

    /// Takes the next key that was brought, to where it was and how many bytes were read.
    fn add(
        &mut self,
        of: &mut General,
        key: (KeyHash, &[u8]),
        (position, bytes): (u32, usize),
        out: &mut Emit<'_>,
    ) -> Result<(), AdvanceError> {
        self.next.push(position);
        self.brought += KEY_BYTES + WINDOW_BYTES + bytes;
        if self.brought <= self.most {
            return Ok(());
        }
        let before = self.rest.partition_point(|position| of.key(*position) > key);
        self.next.extend(self.rest.drain(before..));
        of.fire(&self.next, self.step, out)?;
        self.next.clear();
        self.brought = 0;
        Ok(of.relieve(self.step, Some(key))?)
    }

    /// Fires what is left.
    fn finish(mut self, of: &mut General, out: &mut Emit<'_>) -> Result<(), AdvanceError> {
        self.next.append(&mut self.rest);
        of.fire(&self.next, self.step, out)
    }
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
