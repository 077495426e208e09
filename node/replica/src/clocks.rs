//! Whether the leader's wall clock agrees with this member's.
//!
//! Owns the comparison. Must not know what is made of it: sessions end by the leader's monotonic clock, and the times of
//! znodes are the leader's, whatever this says. It is for the people whose host has a wrong clock. Invariant: only what
//! comes fresh from the leader is compared, so that a member that catches up finds no difference where there is none.

use crate::replica::{Leadership, Replica};
use pharos_paxos::{MemberId, Millis, Slot};

/// Milliseconds over which the largest of what was seen counts: what takes long on its way looks like a slow clock.
const WINDOW_MS: u64 = 5_000;

#[derive(Debug, Default)]
pub(crate) struct Clocks {
    /// Who leads, and by how many milliseconds its clock is ahead.
    offset: Option<(MemberId, i64)>,
    /// The same, of the window that goes on, with its beginning.
    window: Option<(MemberId, Millis, i64)>,
}

impl Clocks {
    /// A batch that the leader made just now, at the first time, has come at the second.
    fn see(&mut self, leader: MemberId, made_ms: i64, came_ms: i64, now: Millis) {
        let ahead = made_ms.saturating_sub(came_ms);
        let Some((_, began, most)) = self.window.filter(|(of, ..)| *of == leader) else {
            self.window = Some((leader, now, ahead));
            return;
        };
        let most = most.max(ahead);
        if now.0 - began.0 < WINDOW_MS {
            self.window = Some((leader, began, most));
        } else {
            self.offset = Some((leader, most));
            self.window = None;
        }
    }
}

impl Replica {
    /// By how many milliseconds the clock of the leader, another member, is ahead of this member's; below zero, behind.
    /// None until enough has come from it: five seconds with writes.
    #[must_use]
    pub fn leader_clock_ahead_ms(&self) -> Option<i64> {
        let Leadership::Follows { leader, .. } = self.leadership else { return None };
        self.clocks.offset.filter(|(of, _)| *of == leader).map(|(_, ahead)| ahead)
    }

    /// The batch of this slot is carried out.
    pub(crate) fn compare_clocks(&mut self, slot: Slot, made_ms: i64) {
        if let Leadership::Follows { leader, .. } = self.leadership
            && slot == self.applier.chosen()
        {
            self.clocks.see(leader, made_ms, self.now.wall_ms, self.now.mono);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR_MS: i64 = 365 * 86_400_000;

    fn seen(samples: &[(u32, u64, i64)]) -> Option<(MemberId, i64)> {
        let mut clocks = Clocks::default();
        for (leader, now, ahead) in samples {
            clocks.see(MemberId(*leader), 1_800_000_000_000 + ahead, 1_800_000_000_000, Millis(*now));
        }
        clocks.offset
    }

    #[test]
    fn a_clock_a_year_off_is_seen_in_both_directions() {
        for ahead in [YEAR_MS, -YEAR_MS] {
            assert_eq!(
                seen(&[(1, 0, ahead), (1, 3_000, ahead), (1, 6_000, ahead)]),
                Some((MemberId(1), ahead))
            );
        }
    }

    #[test]
    fn a_batch_that_was_long_on_its_way_makes_no_clock_slow() {
        assert_eq!(seen(&[(1, 0, -40_000), (1, 10, -2), (1, 6_000, -90_000)]), Some((MemberId(1), -2)));
    }

    #[test]
    fn the_clock_of_the_leader_before_is_not_that_of_the_next() {
        assert_eq!(seen(&[(1, 0, YEAR_MS), (2, 4_000, 3), (1, 5_500, 1)]), None);
        assert_eq!(seen(&[(1, 0, YEAR_MS), (2, 4_000, 3), (2, 9_000, 4)]), Some((MemberId(2), 4)));
    }

    #[test]
    fn times_at_the_ends_of_their_range_are_compared_too() {
        let mut clocks = Clocks::default();
        for now in [0, 9_000] {
            clocks.see(MemberId(1), i64::MAX, i64::MIN, Millis(now));
        }
        assert_eq!(clocks.offset, Some((MemberId(1), i64::MAX)));
    }
}
