//! Watermarks of splits and stages.
//!
//! Owns: the minimum over splits, idleness, monotony.
//! Must not know: why a split is idle, what a clock says.
//! Invariant: the combined watermark never goes back; an idle or finished split does not hold it.

use std::fmt;

use crate::{Span, Timestamp};

/// A promise that no element before this instant is still to come, except late ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Watermark(Timestamp);

impl Watermark {
    /// Nothing is promised yet.
    pub const NEG_INF: Self = Self(Timestamp::MIN);
    /// Nothing more will come.
    pub const POS_INF: Self = Self(Timestamp::MAX);

    /// The promise up to `at`.
    #[must_use]
    pub const fn at(at: Timestamp) -> Self {
        Self(at)
    }

    /// The instant it stands at.
    #[must_use]
    pub const fn timestamp(self) -> Timestamp {
        self.0
    }

    /// The watermark of a source that has read an element at `highest` and expects others to be
    /// behind it by `max_delay` at most.
    #[must_use]
    pub const fn behind(highest: Timestamp, max_delay: Span) -> Self {
        Self(highest.minus(max_delay))
    }

    /// Whether it has passed `at`: the instant `at` itself is over.
    #[must_use]
    pub fn has_passed(self, at: Timestamp) -> bool {
        self.0 > at
    }
}

impl fmt::Display for Watermark {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// What one split says about its progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SplitState {
    /// It may still bring elements, none before this watermark except late ones.
    Active(Watermark),
    /// It is caught up and silent; it holds nothing back until it brings elements again.
    Idle,
    /// It has ended.
    Finished,
}

/// The watermark of a stage with several splits.
#[derive(Debug, Clone)]
pub struct SplitWatermarks {
    splits: Vec<SplitState>,
    combined: Watermark,
}

impl SplitWatermarks {
    /// `splits` splits that have promised nothing yet.
    #[must_use]
    pub fn new(splits: usize) -> Self {
        Self { splits: vec![SplitState::Active(Watermark::NEG_INF); splits], combined: Watermark::NEG_INF }
    }

    /// Notes the state of a split. The watermark of one split does not go back while it is active; a
    /// split that comes back from idleness may stand behind the combined watermark, whose elements
    /// are then late.
    pub fn update(&mut self, split: usize, state: SplitState) {
        let slot = &mut self.splits[split];
        *slot = match (*slot, state) {
            (SplitState::Finished, _) => SplitState::Finished,
            (SplitState::Active(old), SplitState::Active(new)) => SplitState::Active(old.max(new)),
            (_, new) => new,
        };
        if let Some(minimum) = self.minimum() {
            self.combined = self.combined.max(minimum);
        }
    }

    /// The least watermark of the splits that hold one; none if all that remain are idle, for then
    /// time stands still.
    fn minimum(&self) -> Option<Watermark> {
        let active = self.splits.iter().filter_map(|state| match state {
            SplitState::Active(watermark) => Some(*watermark),
            SplitState::Idle | SplitState::Finished => None,
        });
        match active.min() {
            Some(minimum) => Some(minimum),
            None if self.splits.contains(&SplitState::Idle) => None,
            None => Some(Watermark::POS_INF),
        }
    }

    /// The watermark of the stage.
    #[must_use]
    pub fn combined(&self) -> Watermark {
        self.combined
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn active(micros: i64) -> SplitState {
        SplitState::Active(Watermark::at(Timestamp::from_micros(micros)))
    }

    fn combined_after(updates: &[(usize, SplitState)]) -> Watermark {
        let mut splits = SplitWatermarks::new(2);
        for (split, state) in updates {
            splits.update(*split, *state);
        }
        splits.combined()
    }

    fn at(micros: i64) -> Watermark {
        Watermark::at(Timestamp::from_micros(micros))
    }

    #[test]
    fn a_split_that_has_read_nothing_holds_the_stage() {
        assert_eq!(combined_after(&[(0, active(7))]), Watermark::NEG_INF);
    }

    #[test]
    fn idle_and_finished_splits_leave_the_minimum() {
        assert_eq!(combined_after(&[(0, active(7)), (1, SplitState::Idle)]), at(7));
        assert_eq!(combined_after(&[(0, active(7)), (1, SplitState::Finished)]), at(7));
    }

    #[test]
    fn time_stands_still_when_all_are_idle_and_ends_when_all_are_finished() {
        let idle = [(0, active(7)), (1, active(9)), (0, SplitState::Idle), (1, SplitState::Idle)];
        assert_eq!(combined_after(&idle), at(9));
        assert_eq!(
            combined_after(&[(0, SplitState::Finished), (1, SplitState::Finished)]),
            Watermark::POS_INF
        );
        assert_eq!(combined_after(&[(0, SplitState::Finished), (1, SplitState::Idle)]), Watermark::NEG_INF);
    }

    #[test]
    fn a_split_that_returns_behind_does_not_turn_time_back() {
        let updates = [(0, active(9)), (1, SplitState::Idle), (1, active(3))];
        assert_eq!(combined_after(&updates), at(9));
    }

    fn any_state() -> impl Strategy<Value = SplitState> {
        prop_oneof![
            6 => (-50i64..50).prop_map(active),
            2 => Just(SplitState::Idle),
            1 => Just(SplitState::Finished),
        ]
    }

    proptest! {
        #[test]
        fn the_combined_watermark_is_monotone_and_never_passes_an_active_split_that_was_not_idle(
            updates in prop::collection::vec((0usize..3, any_state()), 0..60),
        ) {
            let mut splits = SplitWatermarks::new(3);
            let mut highest = [Timestamp::MIN; 3];
            let mut was_idle = [false; 3];
            for (split, state) in updates {
                let before = splits.combined();
                splits.update(split, state);
                prop_assert!(splits.combined() >= before);
                match state {
                    SplitState::Active(w) => highest[split] = highest[split].max(w.timestamp()),
                    SplitState::Idle | SplitState::Finished => was_idle[split] = true,
                }
                for split in 0..3 {
                    prop_assert!(was_idle[split] || splits.combined().timestamp() <= highest[split]);
                }
            }
        }
    }
}
