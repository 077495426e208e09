//! What a checkpoint writes of state that grows: now and then all of it, else what changed.
//!
//! Owns: the intervals between barriers, which of them an update spans, when it is better to write everything.
//! Must not know: what entries are, files, other threads.
//! Invariant: a base and the updates that stand above it, each entry of a later one instead of what earlier ones have
//! under its key, are the state at the last barrier.
//!
//! Intervals are counted from the base. The update at the end of interval n spans as many of them as the lowest bit of
//! n says and replaces the updates within that span (as a Fenwick tree does), so that few stand at a time and each
//! change is written a few times at most, however many barriers come before the next base.

use crate::plant;

/// The last interval at whose end an update can be written: entries have six bits for it.
const LAST: u8 = 63;
/// State of fewer bytes is always written whole.
const LEAST: usize = if cfg!(test) { 100 } else { 64 << 10 };

/// What an entry takes in a checkpoint beside its key and what its accumulators point to, roughly.
pub(super) const BESIDE: usize = 32;

/// The time between two barriers; the first one, and the first one after a base, is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Interval(u8);

impl Interval {
    /// Before the base was written.
    pub(crate) const BEFORE: Self = Self(0);

    /// The six bits that stand for it. The interval after the last one has none, and always ends with a base.
    #[must_use]
    pub(crate) const fn bits(self) -> u8 {
        self.0 & LAST
    }

    /// The interval for which six bits stand.
    #[must_use]
    pub(crate) const fn of_bits(bits: u8) -> Self {
        Self(bits & LAST)
    }
}

/// What is written at a barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    /// Everything.
    Base,
    /// The entries that changed later than `after`, up to the end of `until`.
    Update {
        /// The last interval that it does not span.
        after: Interval,
        /// The last one that it does.
        until: Interval,
    },
}

impl Layer {
    /// What its entries stand for.
    #[must_use]
    pub(crate) const fn kind(self) -> LayerKind {
        match self {
            Self::Base => LayerKind::Base,
            Self::Update { .. } => LayerKind::Update,
        }
    }
}

/// What entries that a checkpoint kept stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerKind {
    /// All that is there of these keys.
    Base,
    /// What these keys have now, whatever they had before.
    Update,
}

/// How the last checkpoint's pieces of some state stand to each other.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    /// The interval now.
    now: Interval,
    /// How many bytes the base has, roughly, if there is one.
    base: Option<usize>,
    /// The last interval of each update that stands, and how many bytes it has.
    updates: Vec<(Interval, usize)>,
}

impl Layers {
    /// Nothing is written yet.
    #[must_use]
    pub(crate) const fn new() -> Self {
        Self { now: Interval(1), base: None, updates: Vec::new() }
    }

    /// What an entry that changes now is to be marked with.
    #[must_use]
    pub(crate) const fn now(&self) -> Interval {
        self.now
    }

    /// Whether updates may stand above the base that have so many bytes together.
    #[must_use]
    pub(crate) fn updates_serve(&self, bytes: usize) -> bool {
        self.base.is_some_and(|base| base >= LEAST && bytes <= base / 2)
    }

    /// What is to be written at a barrier of entries of about `bytes` bytes, of which as many have changed after an
    /// interval as `changed` says. After a base all entries are to be marked with [`Interval::BEFORE`].
    pub(crate) fn barrier(&mut self, bytes: usize, changed: impl FnOnce(Interval) -> usize) -> Layer {
        let until = self.now;
        if until.0 <= LAST && self.updates_serve(0) {
            let after = Interval(until.0 & (until.0 - 1));
            let earlier = self.updates.partition_point(|(end, _)| *end <= after);
            let changed = changed(after);
            // Whoever takes it up reads each of them.
            let standing: usize = self.updates[..earlier].iter().map(|(_, bytes)| *bytes).sum();
            if self.updates_serve(standing + changed) {
                self.updates.truncate(earlier);
                self.updates.push((until, changed));
                self.now = Interval(until.0 + 1);
                return Layer::Update { after, until };
            }
        }
        *self = Self { base: Some(bytes), ..Self::new() };
        Layer::Base
    }
}

/// What checkpoints have written of some state, as far as the last one needs it, in the order in which it is taken up.
#[derive(Debug, Clone)]
pub(crate) struct Written<P> {
    base: Vec<P>,
    updates: Vec<(Interval, Vec<P>)>,
}

impl<P> Default for Written<P> {
    fn default() -> Self {
        Self { base: Vec::new(), updates: Vec::new() }
    }
}

impl<P> Written<P> {
    /// Adds the pieces that were written at a barrier, and lets those go that they stand for.
    pub(crate) fn add(&mut self, layer: Layer, pieces: Vec<P>) {
        match layer {
            Layer::Base => *self = Self { base: pieces, updates: Vec::new() },
            Layer::Update { after, until } => {
                if plant::forgets_base() {
                    self.base.clear();
                }
                self.updates.retain(|(end, _)| *end <= after);
                self.updates.push((until, pieces));
            }
        }
    }

    /// All pieces.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &P> {
        self.base.iter().chain(self.updates.iter().flat_map(|(_, pieces)| pieces))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_base_and_its_updates_are_the_state_and_neither_many_nor_large(
            intervals in prop::collection::vec(prop::collection::vec((0u8..120, any::<u16>()), 0..30), 0..150),
        ) {
            let mut state: BTreeMap<u8, (u16, Interval)> = (0..110).map(|key| (key, (0, Interval::BEFORE))).collect();
            let mut layers = Layers::new();
            let mut written = Written::default();
            for changes in intervals {
                changes.into_iter().for_each(|(key, value)| {
                    state.insert(key, (value, layers.now()));
                });
                let later = |after| move |(_, (_, changed)): &(&u8, &(u16, Interval))| *changed > after;
                let count = |after| state.iter().filter(later(after)).count();
                let layer = layers.barrier(state.len(), count);
                let piece = |after: Option<Interval>| -> BTreeMap<u8, u16> {
                    let wanted = state.iter().filter(|entry| after.is_none_or(|after| later(after)(entry)));
                    wanted.map(|(key, (value, _))| (*key, *value)).collect()
                };
                match layer {
                    Layer::Base => {
                        written.add(layer, vec![piece(None)]);
                        state.values_mut().for_each(|(_, changed)| *changed = Interval::BEFORE);
                    }
                    Layer::Update { after, .. } => {
                        written.add(layer, vec![piece(Some(after))]);
                    }
                }
                let sizes: Vec<usize> = written.pieces().map(BTreeMap::len).collect();
                prop_assert!(sizes.len() <= 7 && sizes[1..].iter().sum::<usize>() <= sizes[0] / 2, "{sizes:?}");
                let mut again = BTreeMap::new();
                written.pieces().for_each(|piece| again.extend(piece));
                prop_assert_eq!(again, state.iter().map(|(key, (value, _))| (*key, *value)).collect());
            }
        }
    }

    #[test]
    fn a_change_is_written_a_few_times_before_the_next_base() {
        let mut layers = Layers::new();
        assert_eq!(layers.barrier(1000, |_| 1000), Layer::Base);
        // One entry in each interval.
        let (mut entries, mut updates) = (0, 0);
        while let Layer::Update { after, until } =
            layers.barrier(1000, |after| usize::from(updates + 1 - after.bits()))
        {
            entries += usize::from(until.bits() - after.bits());
            updates += 1;
        }
        assert_eq!((updates, entries), (63, 192));
    }
}
