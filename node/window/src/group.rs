//! The windows of one key: elements in, panes out.
//!
//! Owns: the general path of a grouping under the default trigger, with merging, holds, late panes
//! and garbage collection.
//! Must not know: what is accumulated, how keys are stored, threads.
//! Invariant: the result depends on the elements and watermarks given and on nothing else; the
//! output watermark never goes back and never passes the timestamp of a pane still to come.
//!
//! The caller works in bundles: any number of [`KeyedWindows::add`] at one input watermark, then
//! one [`KeyedWindows::advance`] to the next.

use crate::{Accumulation, Pane, PaneInfo, PaneTiming, Timestamp, Watermark, Window, WindowingStrategy};

/// Where the values of windows are gathered: each has a place of its own.
pub trait Gather {
    /// A place.
    type Place: Copy;

    /// Opens a place in which nothing is.
    fn open(&mut self) -> Self::Place;

    /// Adds what `later` holds to what `earlier` does, and closes `later`.
    fn join(&mut self, earlier: Self::Place, later: Self::Place);

    /// Closes a place.
    fn close(&mut self, place: Self::Place);
}

/// The state of one window of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowSnapshot<P> {
    /// Where its value is gathered; none if nothing is left of it after the last pane.
    pub value: Option<P>,
    /// Whether anything came since the last pane.
    pub dirty: bool,
    /// The timestamp that the next pane holds for itself, if it could be held.
    pub hold: Option<Timestamp>,
    /// How many panes have fired.
    pub panes: u32,
}

impl<P> WindowSnapshot<P> {
    const fn new() -> Self {
        Self { value: None, dirty: false, hold: None, panes: 0 }
    }
}

/// All windows of one key.
#[derive(Debug, Clone)]
pub struct KeyedWindows<P> {
    /// In the order in which they close. Few keys have more than one or two.
    windows: Vec<(Window, WindowSnapshot<P>)>,
    output: Watermark,
}

impl<P> Default for KeyedWindows<P> {
    fn default() -> Self {
        Self { windows: Vec::new(), output: Watermark::NEG_INF }
    }
}

impl<P: Copy> KeyedWindows<P> {
    /// The place to which an element at `at` in `window`, as assigned, is to be added while the input watermark is
    /// `input`. None if the window is expired: the element is dropped.
    pub fn add(
        &mut self,
        strategy: &WindowingStrategy,
        window: Window,
        at: Timestamp,
        input: Watermark,
        values: &mut impl Gather<Place = P>,
    ) -> Option<P> {
        if strategy.is_expired(window, input) {
            return None;
        }
        self.settle(input);
        let index = if strategy.window_fn.merges() {
            self.merge_around(strategy, window, values)
        } else {
            self.position(window)
        };
        let hold = self.hold_for(strategy, self.windows[index].0, at, input);
        let state = &mut self.windows[index].1;
        state.dirty = true;
        state.hold = combine_holds(strategy, state.hold, hold);
        Some(*state.value.get_or_insert_with(|| values.open()))
    }

    /// Where a window is, which is there from now on.
    fn position(&mut self, window: Window) -> usize {
        let found = self.windows.binary_search_by_key(&window, |(held, _)| *held);
        found.unwrap_or_else(|index| {
            if self.windows.is_empty() {
                self.windows.reserve_exact(1);
            }
            self.windows.insert(index, (window, WindowSnapshot::new()));
            index
        })
    }

    /// Joins `window` with the sessions that it overlaps; where the one is that covers all. Panes of a window that merged
    /// count anew, as in Beam: the result is another window.
    fn merge_around(
        &mut self,
        strategy: &WindowingStrategy,
        window: Window,
        values: &mut impl Gather<Place = P>,
    ) -> usize {
        let Window::Interval(new) = window else { return self.position(window) };
        // The sessions of a key do not overlap each other, so those that the new one overlaps are neighbours.
        let before = |held: &Window| matches!(held, Window::Interval(held) if held.end <= new.start);
        let first = self.windows.partition_point(|(held, _)| before(held));
        let overlaps = |held: &Window| matches!(held, Window::Interval(held) if held.overlaps(new));
        let count = self.windows[first..].iter().take_while(|(held, _)| overlaps(held)).count();
        if count == 0 {
            return self.position(window);
        }
        let absorbed = &self.windows[first..first + count];
        let covered = absorbed.iter().fold(new, |covered, (held, _)| match held {
            Window::Interval(held) => covered.span(*held),
            Window::Global => covered,
        });
        let target = Window::Interval(covered);
        if let (1, (held, state)) = (count, &mut self.windows[first]) {
            if *held != target {
                (*held, state.panes) = (target, 0);
                state.hold = state.hold.map(|hold| strategy.timestamp_combiner.shift(hold, target));
            }
            return first;
        }
        let mut merged: WindowSnapshot<P> = WindowSnapshot::new();
        for (held, state) in self.windows.splice(first..first + count, [(target, WindowSnapshot::new())]) {
            // Only the window that keeps its own bounds keeps its panes.
            if held == target {
                merged.panes = state.panes;
            }
            merged.dirty |= state.dirty;
            let hold = state.hold.map(|hold| strategy.timestamp_combiner.shift(hold, target));
            merged.hold = combine_holds(strategy, merged.hold, hold);
            merged.value = match (merged.value, state.value) {
                (Some(earlier), Some(later)) => {
                    values.join(earlier, later);
                    Some(earlier)
                }
                (earlier, later) => earlier.or(later),
            };
        }
        self.windows[first].1 = merged;
        first
    }

    /// A hold is placed only where it can still be honoured (Beam's `WatermarkHold.addElementHold`).
    fn hold_for(
        &self,
        strategy: &WindowingStrategy,
        window: Window,
        at: Timestamp,
        input: Watermark,
    ) -> Option<Timestamp> {
        let hold = strategy.timestamp_combiner.shift(at, window);
        let held = hold >= self.output.timestamp() && window.max_timestamp() >= input.timestamp();
        held.then_some(hold)
    }

    /// Ends the bundle that was gathered at `before` and moves the input watermark to `input`:
    /// fires late panes, then on-time ones, clears what is expired. Panes come in the order in which
    /// their windows end.
    pub fn advance(
        &mut self,
        strategy: &WindowingStrategy,
        before: Watermark,
        input: Watermark,
        values: &mut impl Gather<Place = P>,
        mut out: impl FnMut(Pane<P>),
    ) {
        let output = self.output;
        let mut expired = 0;
        for (window, state) in &mut self.windows {
            if !input.has_passed(window.max_timestamp()) {
                break;
            }
            let over = strategy.is_expired(*window, input);
            let pane = fire(strategy, *window, state, before, over, output);
            if over {
                expired += 1;
                state.value.take().into_iter().for_each(|place| values.close(place));
            }
            if let Some(pane) = pane {
                out(pane);
            }
        }
        // What closes first expires first.
        self.windows.drain(..expired);
        self.settle(input);
    }

    /// Moves the output watermark to where `input` and the holds let it stand. A caller that leaves
    /// a key alone while nothing of it is due need not call this: adding does.
    pub fn settle(&mut self, input: Watermark) {
        let possible = self.held().map_or(input, |held| input.min(Watermark::at(held)));
        self.output = self.output.max(possible);
    }

    /// The earliest timestamp that a pane still to come holds for itself, if there is one.
    #[must_use]
    pub fn held(&self) -> Option<Timestamp> {
        self.windows.iter().filter_map(|(_, state)| state.hold.filter(|_| state.dirty)).min()
    }

    /// The output watermark of this key: the input watermark, held by panes still to come.
    #[must_use]
    pub fn output(&self) -> Watermark {
        self.output
    }

    /// The last instant of the window that closes first, if any is open.
    #[must_use]
    pub fn next_timer(&self, strategy: &WindowingStrategy, input: Watermark) -> Option<Timestamp> {
        let closes = |window: &Window| {
            let max = window.max_timestamp();
            if input.has_passed(max) { strategy.garbage_collection_time(*window) } else { max }
        };
        self.windows.iter().map(|(window, _)| closes(window)).min()
    }

    /// Whether no window is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// The windows and their state, in the order in which they close, for a checkpoint.
    #[must_use]
    pub fn windows(&self) -> &[(Window, WindowSnapshot<P>)] {
        &self.windows
    }

    /// The key whose windows and output watermark a checkpoint kept.
    #[must_use]
    pub fn restore(output: Watermark, mut windows: Vec<(Window, WindowSnapshot<P>)>) -> Self {
        windows.sort_by_key(|(window, _)| *window);
        Self { windows, output }
    }
}

fn combine_holds(
    strategy: &WindowingStrategy,
    one: Option<Timestamp>,
    other: Option<Timestamp>,
) -> Option<Timestamp> {
    match (one, other) {
        (Some(one), Some(other)) => Some(strategy.timestamp_combiner.combine(one, other)),
        (one, other) => one.or(other),
    }
}

/// The pane of a window that the watermark has passed, if anything came for it.
fn fire<P: Copy>(
    strategy: &WindowingStrategy,
    window: Window,
    state: &mut WindowSnapshot<P>,
    before: Watermark,
    expired: bool,
    output: Watermark,
) -> Option<Pane<P>> {
    if !state.dirty {
        return None;
    }
    let kept = strategy.accumulation == Accumulation::Accumulating && !expired;
    let value = if kept { state.value } else { state.value.take() }?;
    let was_late = before.has_passed(window.max_timestamp());
    let timing = if state.panes > 0 || output.has_passed(window.max_timestamp()) {
        PaneTiming::Late
    } else {
        PaneTiming::OnTime
    };
    let info = PaneInfo {
        timing,
        index: state.panes,
        nonspeculative_index: Some(state.panes),
        is_first: state.panes == 0,
        is_last: !was_late && expired,
    };
    state.dirty = false;
    state.panes += 1;
    let timestamp = state.hold.take().unwrap_or_else(|| window.max_timestamp());
    Some(Pane { window, timestamp, info, value, kept })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{IntervalWindow, Lateness, Span, TimestampCombiner, WindowFn};

    /// Lists, by place; none where it was closed.
    #[derive(Default)]
    struct Lists(Vec<Option<Vec<i64>>>);

    impl Lists {
        fn at(&mut self, place: usize) -> &mut Vec<i64> {
            self.0[place].as_mut().expect("the place is open")
        }

        fn open(&self) -> usize {
            self.0.iter().flatten().count()
        }
    }

    impl Gather for Lists {
        type Place = usize;

        fn open(&mut self) -> usize {
            self.0.push(Some(Vec::new()));
            self.0.len() - 1
        }

        fn join(&mut self, earlier: usize, later: usize) {
            let later = self.0[later].take().expect("the place is open");
            self.at(earlier).extend(later);
        }

        fn close(&mut self, place: usize) {
            self.0[place].take().expect("the place is open");
        }
    }

    /// A small driver in seconds: what arrived, what came out.
    struct Story {
        strategy: WindowingStrategy,
        key: KeyedWindows<usize>,
        lists: Lists,
        watermark: Watermark,
        dropped: Vec<i64>,
    }

    type Told = (i64, i64, i64, PaneTiming, u32, Vec<i64>);

    impl Story {
        fn new(window_fn: WindowFn, lateness: i64) -> Self {
            let mut strategy = WindowingStrategy::with_defaults(window_fn);
            strategy.allowed_lateness = Lateness(Span::from_secs(lateness));
            Self {
                strategy,
                key: KeyedWindows::default(),
                lists: Lists::default(),
                watermark: Watermark::NEG_INF,
                dropped: Vec::new(),
            }
        }

        fn input(&mut self, times: &[i64]) -> Vec<Told> {
            for t in times {
                let at = Timestamp::from_micros(t * 1_000_000);
                for window in self.strategy.window_fn.assign(at) {
                    match self.key.add(&self.strategy, window, at, self.watermark, &mut self.lists) {
                        Some(place) => self.lists.at(place).push(*t),
                        None => self.dropped.push(*t),
                    }
                }
            }
            self.step(self.watermark)
        }

        fn watermark(&mut self, seconds: i64) -> Vec<Told> {
            self.step(Watermark::at(Timestamp::from_micros(seconds * 1_000_000)))
        }

        fn step(&mut self, to: Watermark) -> Vec<Told> {
            let mut panes = Vec::new();
            self.key.advance(&self.strategy, self.watermark, to, &mut self.lists, |pane| panes.push(pane));
            self.watermark = to;
            panes
                .into_iter()
                .map(|pane| {
                    let Window::Interval(IntervalWindow { start, end }) = pane.window else {
                        panic!("bounded")
                    };
                    let seconds = |t: Timestamp| t.micros().div_euclid(1_000_000);
                    let mut value = self.lists.at(pane.value).clone();
                    if !pane.kept {
                        self.lists.close(pane.value);
                    }
                    value.sort_unstable();
                    (
                        seconds(start),
                        seconds(end),
                        seconds(pane.timestamp),
                        pane.info.timing,
                        pane.info.index,
                        value,
                    )
                })
                .collect()
        }
    }

    fn fixed(seconds: i64) -> WindowFn {
        WindowFn::fixed(Span::from_secs(seconds), Span::ZERO).unwrap()
    }

    #[test]
    fn a_window_fires_once_on_time_and_then_once_per_late_bundle() {
        use PaneTiming::{Late, OnTime};
        let mut story = Story::new(fixed(10), 100);
        assert_eq!(story.input(&[1, 2, 11]), []);
        assert_eq!(story.watermark(9), []);
        assert_eq!(story.watermark(12), [(0, 10, 9, OnTime, 0, vec![1, 2])]);
        assert_eq!(story.input(&[3, 4]), [(0, 10, 9, Late, 1, vec![3, 4])]);
        assert_eq!(story.input(&[5]), [(0, 10, 9, Late, 2, vec![5])]);
        assert_eq!(story.watermark(30), [(10, 20, 19, OnTime, 0, vec![11])]);
    }

    #[test]
    fn accumulating_panes_repeat_what_earlier_ones_held() {
        let mut story = Story::new(fixed(10), 100);
        story.strategy.accumulation = Accumulation::Accumulating;
        story.input(&[1]);
        assert_eq!(story.watermark(12)[0].5, [1]);
        assert_eq!(story.input(&[2])[0].5, [1, 2]);
        assert_eq!(story.lists.open(), 1);
        // Nothing came since, and the window expires.
        assert_eq!(story.watermark(120), []);
        assert_eq!(story.lists.open(), 0);
    }

    #[test]
    fn elements_past_the_lateness_are_dropped_per_window() {
        let mut story = Story::new(fixed(10), 5);
        story.watermark(14);
        assert_eq!(story.input(&[1]).len(), 1);
        story.watermark(15);
        assert_eq!(story.input(&[2, 12]), []);
        assert_eq!(story.dropped, [2]);
        let mut story =
            Story::new(WindowFn::sliding(Span::from_secs(10), Span::from_secs(5), Span::ZERO).unwrap(), 0);
        story.watermark(11);
        story.input(&[7]);
        assert_eq!(story.watermark(20), [(5, 15, 14, PaneTiming::OnTime, 0, vec![7])]);
        assert_eq!(story.dropped, [7]);
    }

    #[test]
    fn an_on_time_pane_is_the_last_when_no_lateness_is_allowed() {
        let strategy = WindowingStrategy::with_defaults(fixed(10));
        let (mut key, mut lists) = (KeyedWindows::default(), Lists::default());
        let at = Timestamp::from_micros(5);
        let window = strategy.window_fn.assign(at)[0];
        assert_eq!(key.add(&strategy, window, at, Watermark::NEG_INF, &mut lists), Some(0));
        let mut panes = Vec::new();
        key.advance(&strategy, Watermark::NEG_INF, Watermark::POS_INF, &mut lists, |pane| panes.push(pane));
        assert!(panes[0].info.is_first && panes[0].info.is_last);
        assert!(key.is_empty());
    }

    #[test]
    fn a_late_element_that_bridges_sessions_starts_their_panes_anew() {
        let mut story = Story::new(WindowFn::sessions(Span::from_secs(10)).unwrap(), 100);
        story.input(&[0, 15]);
        assert_eq!(story.watermark(12), [(0, 10, 9, PaneTiming::OnTime, 0, vec![0])]);
        assert_eq!(story.input(&[8]), []);
        assert_eq!(story.watermark(40), [(0, 25, 24, PaneTiming::OnTime, 0, vec![8, 15])]);
    }

    #[test]
    fn sessions_that_touch_do_not_merge() {
        let mut story = Story::new(WindowFn::sessions(Span::from_secs(10)).unwrap(), 0);
        story.input(&[0, 10]);
        assert_eq!(story.watermark(40).len(), 2);
    }

    #[test]
    fn the_earliest_timestamp_is_held_unless_the_watermark_has_passed_it() {
        let mut story = Story::new(fixed(10), 100);
        story.strategy.timestamp_combiner = TimestampCombiner::Earliest;
        story.input(&[3, 5]);
        story.watermark(8);
        assert_eq!(story.key.output(), Watermark::at(Timestamp::from_micros(3_000_000)));
        assert_eq!(story.watermark(12)[0].2, 3);
        assert_eq!(story.key.output(), story.watermark);
        // Behind the output watermark nothing can be held: the pane stands at the end of its window.
        assert_eq!(story.input(&[4])[0].2, 9);
    }

    #[test]
    fn the_latest_timestamp_is_that_of_the_last_element() {
        let mut story = Story::new(fixed(10), 0);
        story.strategy.timestamp_combiner = TimestampCombiner::Latest;
        story.input(&[3, 7, 5]);
        assert_eq!(story.watermark(12)[0].2, 7);
    }

    proptest! {
        /// Against a model that keeps all elements and recomputes sessions from scratch, while nothing
        /// is late.
        #[test]
        fn without_late_data_the_panes_are_the_windows_of_all_elements(
            times in prop::collection::vec(0i64..200, 0..40), size in 1i64..30, steps in prop::collection::vec(0i64..220, 0..6),
        ) {
            for window_fn in [fixed(size), WindowFn::sessions(Span::from_secs(size)).unwrap()] {
                let mut story = Story::new(window_fn, 0);
                let mut steps = steps.clone();
                steps.sort_unstable();
                let mut sorted = times.clone();
                sorted.sort_unstable();
                let mut told = Vec::new();
                let mut next = 0;
                for step in steps.iter().copied().chain([1000]) {
                    // All elements before the watermark come before it.
                    let upto = sorted.partition_point(|t| *t < step);
                    let bundle: Vec<i64> = sorted[next..upto.max(next)].iter().rev().copied().collect();
                    next = upto.max(next);
                    told.extend(story.input(&bundle));
                    told.extend(story.watermark(step));
                }
                prop_assert_eq!(&story.dropped, &Vec::<i64>::new());
                prop_assert_eq!(story.lists.open(), 0);
                let mut naive: Vec<(i64, i64, Vec<i64>)> = Vec::new();
                for t in sorted {
                    let start = if window_fn.merges() { t } else { t.div_euclid(size) * size };
                    match naive.last_mut() {
                        Some((from, end, members)) if t < *end && (window_fn.merges() || *from == start) => {
                            if window_fn.merges() { *end = t + size; }
                            members.push(t);
                        }
                        _ => naive.push((start, start + size, vec![t])),
                    }
                }
                let got: Vec<_> = told.into_iter().map(|(s, e, _, _, _, v)| (s, e, v)).collect();
                prop_assert_eq!(got, naive);
            }
        }
    }
}
