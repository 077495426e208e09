//! The general path: every key has its windows.
//!
//! Owns: the keys, their timers, the results in one order.
//! Must not know: how windows merge and fire, which is `pharos-window`'s.
//! Invariant: panes come out ordered by key group, key and window, so the order does not depend on
//! how keys are divided among threads.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashTable;
use pharos_window::{
    IntervalWindow, KeyedWindows, Pane, PaneInfo, Timestamp, TimestampCombiner, Watermark, Window,
    WindowSnapshot,
};

use super::{Fired, GroupSpec, KeyedBatch};
use crate::aggregate::{Accumulators, AggregateError};
use crate::codec::{CodecError, Reader, put_bytes, put_len};
use crate::column::{Batch, Panes, Steps, Times, Windows};
use crate::key::KeyHash;

#[derive(Debug)]
struct Entry {
    key: Box<[u8]>,
    hash: KeyHash,
    windows: KeyedWindows<Accumulators>,
    timer: Option<Timestamp>,
}

/// A pane and its key.
type KeyedPane = (KeyHash, Box<[u8]>, Pane<Accumulators>);

/// One thread's keys.
#[derive(Debug)]
pub(crate) struct General {
    spec: Arc<GroupSpec>,
    index: HashTable<u32>,
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    timers: BTreeSet<(Timestamp, u32)>,
    touched: BTreeSet<u32>,
}

impl General {
    /// No keys yet.
    #[must_use]
    pub(crate) fn new(spec: Arc<GroupSpec>) -> Self {
        Self {
            spec,
            index: HashTable::new(),
            entries: Vec::new(),
            free: Vec::new(),
            timers: BTreeSet::new(),
            touched: BTreeSet::new(),
        }
    }

    /// Adds rows; see [`super::Grouping::add`].
    pub(crate) fn add(&mut self, batch: &KeyedBatch, rows: &[u32], input: Watermark) -> Vec<(u32, Window)> {
        let mut dropped = Vec::new();
        let strategy = self.spec.strategy;
        for row in rows.iter().map(|row| *row as usize) {
            let position = self.position(batch.keys.bytes(row), batch.keys.hash(row));
            let entry = self.entries[position as usize].as_mut().expect("the position is occupied");
            for window in batch.windows.at(row) {
                let mut value = Accumulators::new(&self.spec.aggregations);
                let slot = value.push();
                value.update(&[slot], &[row as u32], &batch.values);
                if !entry.windows.add(&strategy, window, batch.times.at(row), value, input) {
                    dropped.push((row as u32, window));
                }
            }
            self.touched.insert(position);
        }
        dropped
    }

    fn position(&mut self, key: &[u8], hash: KeyHash) -> u32 {
        let entries = &self.entries;
        let entry = |at: u32| entries[at as usize].as_ref().expect("an indexed position is occupied");
        let same = |at: &u32| entry(*at).hash == hash && *entry(*at).key == *key;
        if let Some(at) = self.index.find(hash.0, same) {
            return *at;
        }
        let new = Entry { key: Box::from(key), hash, windows: KeyedWindows::default(), timer: None };
        self.insert(new)
    }

    fn insert(&mut self, new: Entry) -> u32 {
        let hash = new.hash;
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
        let mut visit = std::mem::take(&mut self.touched);
        let due = self.timers.iter().take_while(|(at, _)| input.has_passed(*at));
        visit.extend(due.map(|(_, position)| *position));
        let mut fired: Vec<KeyedPane> = Vec::new();
        for position in visit {
            let Some(entry) = self.entries[position as usize].as_mut() else { continue };
            let panes = entry.windows.advance(&self.spec.strategy, before, input);
            fired.extend(panes.into_iter().map(|pane| (entry.hash, entry.key.clone(), pane)));
            self.reschedule(position, input);
        }
        fired.sort_by(|(hash, key, pane), (other_hash, other_key, other_pane)| {
            (hash.group(), key, pane.window).cmp(&(other_hash.group(), other_key, other_pane.window))
        });
        if fired.is_empty() { Ok(Vec::new()) } else { Ok(vec![self.emit(&fired)?]) }
    }

    fn reschedule(&mut self, position: u32, input: Watermark) {
        let entry = self.entries[position as usize].as_mut().expect("the caller holds the position");
        let next = entry.windows.next_timer(&self.spec.strategy, input);
        if entry.timer != next {
            entry.timer.into_iter().for_each(|old| {
                self.timers.remove(&(old, position));
            });
            next.into_iter().for_each(|new| {
                self.timers.insert((new, position));
            });
            entry.timer = next;
        }
        if entry.windows.is_empty() {
            let hash = entry.hash.0;
            if let Ok(found) = self.index.find_entry(hash, |at| *at == position) {
                found.remove();
            }
            self.entries[position as usize] = None;
            self.free.push(position);
        }
    }

    fn emit(&self, fired: &[KeyedPane]) -> Result<Fired, AggregateError> {
        let mut results = Accumulators::new(&self.spec.aggregations);
        for (_, _, pane) in fired {
            let slot = results.push();
            results.merge(slot, &pane.value, 0);
        }
        let slots: Vec<u32> = (0..results.len()).collect();
        let batch = Batch {
            columns: self.spec.columns(fired.iter().map(|(_, key, _)| &**key), results.finish(&slots)?),
            rows: fired.len(),
            times: Times::Each(fired.iter().map(|(_, _, pane)| pane.timestamp.micros()).collect()),
            windows: windows(fired.iter().map(|(_, _, pane)| pane.window)),
            panes: Panes::Each(fired.iter().map(|(_, _, pane)| pane.info).collect::<Vec<PaneInfo>>().into()),
            steps: Steps::All(0),
        };
        Ok(Fired { window: None, batch })
    }

    /// The output watermark: the input watermark, held by what is still to come.
    pub(crate) fn output(&mut self, input: Watermark) -> Watermark {
        if self.spec.strategy.timestamp_combiner == TimestampCombiner::EndOfWindow {
            return input;
        }
        let settle = |entry: &mut Entry| {
            entry.windows.settle(input);
            entry.windows.output()
        };
        self.entries.iter_mut().flatten().map(settle).min().map_or(input, |held| held.min(input))
    }

    /// Everything, ordered by key group and key.
    #[must_use]
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut entries: Vec<&Entry> = self.entries.iter().flatten().collect();
        entries.sort_by_key(|entry| (entry.hash.group(), &entry.key));
        let mut out = Vec::new();
        put_len(&mut out, entries.len());
        for entry in entries {
            put_bytes(&mut out, &entry.key);
            put_time(&mut out, entry.windows.output().timestamp());
            put_len(&mut out, entry.windows.windows().count());
            for (window, state) in entry.windows.windows() {
                write_window(&mut out, window, state);
            }
        }
        out
    }

    /// Adds the keys that a checkpoint kept and `mine` claims.
    ///
    /// # Errors
    /// If the bytes are not such state.
    pub(crate) fn restore(
        &mut self,
        input: &mut Reader<'_>,
        mine: impl Fn(KeyHash) -> bool,
    ) -> Result<(), CodecError> {
        for _ in 0..input.u32()? {
            let key = Box::from(input.bytes()?);
            let hash = KeyHash::of(&key);
            let output = Watermark::at(Timestamp::from_micros(input.i64()?));
            let count = input.u32()?;
            let windows: Vec<_> = (0..count).map(|_| self.read_window(input)).collect::<Result<_, _>>()?;
            if mine(hash) {
                let windows = KeyedWindows::restore(output, windows);
                let position = self.insert(Entry { key, hash, windows, timer: None });
                // The first advance fires nothing new and sets the timer.
                self.touched.insert(position);
            }
        }
        Ok(())
    }

    fn read_window(
        &self,
        input: &mut Reader<'_>,
    ) -> Result<(Window, WindowSnapshot<Accumulators>), CodecError> {
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
        let value = if input.bool()? {
            let mut value = Accumulators::new(&self.spec.aggregations);
            value.read(input)?;
            Some(value)
        } else {
            None
        };
        Ok((window, WindowSnapshot { value, dirty, hold, panes }))
    }
}

fn put_time(out: &mut Vec<u8>, time: Timestamp) {
    out.extend_from_slice(&time.micros().to_le_bytes());
}

fn write_window(out: &mut Vec<u8>, window: Window, state: &WindowSnapshot<Accumulators>) {
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
    state.value.iter().for_each(|value| value.write(0, out));
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
