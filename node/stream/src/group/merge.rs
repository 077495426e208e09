//! Joining what came for a key and stands in several places: sorted files and the table in memory.
//!
//! Owns: the bytes of an entry, the merging of entries by key, results in bounded batches.
//! Must not know: slices, when anything is due.
//! Invariant: what comes for a key is joined in the order in which it came, so a sum of floats has
//! the bits that it would have had without files. Keys come in the order of hash and bytes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use pharos_beam::plan::Aggregation;
use pharos_window::{Accumulation, PaneInfo, Window};

use super::slices::constant;
use super::table::SliceTable;
use super::{AdvanceError, Emit, Fired, GroupSpec};
use crate::aggregate::Accumulators;
use crate::codec::{CodecError, Reader};
use crate::column::{Batch, Steps, Times, Windows};
use crate::key::{KeyHash, Keys};
use crate::spill::{RunReader, RunWriter, SpillError};

/// Results leave when they are this many rows.
pub(super) const CHUNK_ROWS: usize = 4096;
/// Or so many bytes.
const CHUNK_BYTES: usize = 1 << 20;

/// Something came since the last pane.
const FRESH: u8 = 1;
/// What older places hold for the key is void.
const WHOLE: u8 = 2;

/// A place where entries are, in the order of keys.
pub(super) enum Source<'a> {
    /// A sorted file.
    Run(RunReader<'a>),
    /// A table, its slots in order, and how far it is.
    Table(&'a SliceTable, Vec<u32>, usize),
}

impl<'a> Source<'a> {
    /// The entries of a table.
    #[must_use]
    pub(super) fn table(table: &'a SliceTable) -> Self {
        Self::Table(table, table.ordered(), 0)
    }

    fn key(&self) -> Result<Option<(KeyHash, &[u8])>, SpillError> {
        match self {
            Self::Run(reader) => reader.key(),
            Self::Table(table, slots, at) => Ok(slots
                .get(*at)
                .map(|slot| (table.keys.hash(*slot as usize), table.keys.bytes(*slot as usize)))),
        }
    }

    fn step(&mut self) {
        match self {
            Self::Run(reader) => reader.step(),
            Self::Table(_, _, at) => *at += 1,
        }
    }

    fn fold(&self, into: &mut Folded) -> Result<(), SpillError> {
        match self {
            Self::Run(reader) => into.take_entry(reader.value()).map_err(|error| reader.damaged(error)),
            Self::Table(table, slots, at) => {
                into.take_slot(table, slots[*at]);
                Ok(())
            }
        }
    }
}

/// Goes through several sources key by key. They stand in the order in which they are joined; the
/// number of each says what it belongs to, and never decreases.
pub(super) struct Merge<'a> {
    sources: Vec<(usize, Source<'a>)>,
    heads: BinaryHeap<Reverse<(KeyHash, usize)>>,
    /// The sources that have the current key.
    here: Vec<usize>,
}

impl<'a> Merge<'a> {
    /// Before the first key.
    ///
    /// # Errors
    /// If a source cannot be read.
    pub(super) fn new(sources: Vec<(usize, Source<'a>)>) -> Result<Self, SpillError> {
        let mut merge = Self { sources, heads: BinaryHeap::new(), here: Vec::new() };
        (0..merge.sources.len()).try_for_each(|at| merge.enter(at))?;
        Ok(merge)
    }

    fn enter(&mut self, at: usize) -> Result<(), SpillError> {
        if let Some((hash, _)) = self.sources[at].1.key()? {
            self.heads.push(Reverse((hash, at)));
        }
        Ok(())
    }

    /// Goes to the next key and says whether there is one.
    ///
    /// # Errors
    /// If a source cannot be read.
    pub(super) fn next(&mut self) -> Result<bool, SpillError> {
        for at in std::mem::take(&mut self.here) {
            self.sources[at].1.step();
            self.enter(at)?;
        }
        let Some(Reverse((hash, first))) = self.heads.pop() else { return Ok(false) };
        let mut same = vec![first];
        while let Some(Reverse((_, at))) = self.heads.peek().filter(|Reverse((next, _))| *next == hash) {
            same.push(*at);
            self.heads.pop();
        }
        // Keys with one hash are rare, and then the lesser one comes first.
        let mut least: Option<Vec<u8>> = None;
        if same.len() > 1 {
            for at in &same {
                if let Some((_, key)) = self.sources[*at].1.key()?
                    && least.as_deref().is_none_or(|least| key < least)
                {
                    least = Some(key.to_vec());
                }
            }
        }
        for at in same {
            match (&least, self.sources[at].1.key()?) {
                (Some(least), Some((_, key))) if *key != **least => self.heads.push(Reverse((hash, at))),
                _ => self.here.push(at),
            }
        }
        Ok(true)
    }

    /// The current key and its hash.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn key(&self) -> Result<Option<(KeyHash, &[u8])>, SpillError> {
        self.here.first().map_or(Ok(None), |at| self.sources[*at].1.key())
    }

    /// The last of the sources that have the current key, if it is a file.
    #[must_use]
    pub(super) fn newest(&self) -> Option<&RunReader<'a>> {
        match &self.sources[*self.here.last()?].1 {
            Source::Run(reader) => Some(reader),
            Source::Table(..) => None,
        }
    }

    /// Joins what the sources have for the current key, number by number, and gives each to `each`.
    ///
    /// # Errors
    /// If a source cannot be read.
    pub(super) fn fold(&self, folded: &mut Folded, mut each: impl FnMut(&Folded)) -> Result<(), SpillError> {
        for alike in self.here.chunk_by(|one, other| self.sources[*one].0 == self.sources[*other].0) {
            folded.reset();
            alike.iter().try_for_each(|at| self.sources[*at].1.fold(folded))?;
            each(folded);
        }
        Ok(())
    }
}

/// What came for one key, joined.
pub(super) struct Folded {
    /// One slot.
    pub(super) value: Accumulators,
    /// How many panes have fired.
    pub(super) panes: u32,
    /// Whether anything came since the last one.
    pub(super) fresh: bool,
    entry: Accumulators,
    bytes: Vec<u8>,
}

impl Folded {
    /// Nothing yet.
    #[must_use]
    pub(super) fn new(aggregations: &Arc<[Aggregation]>) -> Self {
        let mut value = Accumulators::new(aggregations);
        value.push();
        Self { value, panes: 0, fresh: false, entry: Accumulators::apart(aggregations), bytes: Vec::new() }
    }

    /// Begins with nothing.
    pub(super) fn reset(&mut self) {
        self.value.clear(0);
        (self.panes, self.fresh) = (0, false);
    }

    /// Adds what an entry of a file holds.
    ///
    /// # Errors
    /// If the bytes are no entry.
    pub(super) fn take_entry(&mut self, bytes: &[u8]) -> Result<(), CodecError> {
        let mut input = Reader::new(bytes);
        let (flags, panes) = (input.u8()?, input.u32()?);
        self.entry.reset();
        let slot = self.entry.read(&mut input)?;
        if flags & WHOLE != 0 {
            self.reset();
        }
        self.value.merge(0, &self.entry, slot);
        self.panes += panes;
        self.fresh |= flags & FRESH != 0;
        if input.is_done() { Ok(()) } else { Err(input.error("the end")) }
    }

    /// Adds what a slot of a table holds.
    pub(super) fn take_slot(&mut self, table: &SliceTable, slot: u32) {
        let at = slot as usize;
        if table.is_whole(slot) {
            self.reset();
        }
        self.value.merge(0, &table.accumulators, slot);
        self.panes += table.panes[at];
        self.fresh |= table.is_fresh(slot);
    }

    /// Notes that a pane has fired.
    pub(super) fn close_pane(&mut self, accumulation: Accumulation) {
        self.panes += 1;
        self.fresh = false;
        if accumulation == Accumulation::Discarding {
            self.value.clear(0);
        }
    }

    /// Writes an entry that makes older ones void.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn write(
        &mut self,
        to: &mut RunWriter<'_>,
        hash: KeyHash,
        key: &[u8],
    ) -> Result<(), SpillError> {
        self.bytes.clear();
        put_entry(&self.value, 0, self.panes, self.fresh, true, &mut self.bytes);
        to.put(hash, key, &self.bytes, self.fresh)
    }
}

fn put_entry(value: &Accumulators, slot: u32, panes: u32, fresh: bool, whole: bool, out: &mut Vec<u8>) {
    out.push(flags(fresh, whole));
    out.extend_from_slice(&panes.to_le_bytes());
    value.write_apart(slot, out);
}

/// What is known of an entry beside what it holds.
pub(super) fn flags(fresh: bool, whole: bool) -> u8 {
    (if fresh { FRESH } else { 0 }) | (if whole { WHOLE } else { 0 })
}

/// Whether an entry is fresh, and whether it is whole.
pub(super) fn read_flags(input: &mut Reader<'_>) -> Result<(bool, bool), CodecError> {
    match input.u8()? {
        flags if flags & !(FRESH | WHOLE) == 0 => Ok((flags & FRESH != 0, flags & WHOLE != 0)),
        _ => Err(input.error("flags of an entry")),
    }
}

/// Writes all entries of a table.
///
/// # Errors
/// If they cannot be written.
pub(super) fn write_table(table: &SliceTable, to: &mut RunWriter<'_>) -> Result<(), SpillError> {
    let mut bytes = Vec::new();
    for slot in table.ordered() {
        let at = slot as usize;
        bytes.clear();
        let (fresh, whole) = (table.is_fresh(slot), table.is_whole(slot));
        put_entry(&table.accumulators, slot, table.panes[at], fresh, whole, &mut bytes);
        to.put(table.keys.hash(at), table.keys.bytes(at), &bytes, fresh)?;
    }
    Ok(())
}

/// Results on their way out.
pub(super) struct Chunk<'s> {
    spec: &'s GroupSpec,
    window: Window,
    keys: Keys,
    results: Accumulators,
    panes: Vec<PaneInfo>,
}

impl<'s> Chunk<'s> {
    /// No results of `window` yet.
    #[must_use]
    pub(super) fn new(spec: &'s GroupSpec, window: Window) -> Self {
        let results = Accumulators::new(&spec.aggregations);
        Self { spec, window, keys: Keys::default(), results, panes: Vec::new() }
    }

    /// Opens a result, to which the caller adds what `Self::add` takes.
    pub(super) fn open(&mut self, hash: KeyHash, key: &[u8], pane: PaneInfo) {
        self.keys.push(key, hash);
        self.results.push();
        self.panes.push(pane);
    }

    /// Adds to the last result.
    pub(super) fn add(&mut self, value: &Accumulators) {
        self.results.merge(self.results.len() - 1, value, 0);
    }

    /// Lets the results so far leave, if they are many.
    ///
    /// # Errors
    /// As [`Chunk::leave`].
    pub(super) fn leave_if_full(&mut self, out: &mut Emit<'_>) -> Result<(), AdvanceError> {
        let full = self.keys.len() >= CHUNK_ROWS || self.results.memory() >= CHUNK_BYTES;
        if full { self.leave(out) } else { Ok(()) }
    }

    /// Lets the results so far leave.
    ///
    /// # Errors
    /// If one does not fit its type, or they are not taken.
    pub(super) fn leave(&mut self, out: &mut Emit<'_>) -> Result<(), AdvanceError> {
        let Self { spec, window, .. } = *self;
        let Self { keys, results, panes, .. } = std::mem::replace(self, Self::new(spec, window));
        if keys.len() == 0 {
            return Ok(());
        }
        let slots: Vec<u32> = (0..results.len()).collect();
        let batch = Batch {
            columns: spec.columns((0..keys.len()).map(|at| keys.bytes(at)), results.finish(&slots)?),
            rows: keys.len(),
            times: Times::All(window.max_timestamp()),
            windows: Windows::All(window),
            panes: constant(panes),
            steps: Steps::All(0),
        };
        Ok(out(Fired { window: Some(window), batch })?)
    }
}
