//! What a quorum of the voters is.
//!
//! Owns the count, and nothing else in the workspace counts voters to decide: weights or other quorums would enter here
//! alone. Must not know what is counted. Invariant: any two quorums of a configuration share a voter.

use crate::types::{MemberId, Membership};

impl Membership {
    /// Whether the voters of whom that is true are a quorum.
    pub fn is_quorum(&self, agrees: impl Fn(MemberId) -> bool) -> bool {
        self.voters.iter().filter(|voter| agrees(**voter)).count() >= self.majority()
    }

    /// The highest value that a quorum of the voters has reached. Called for each acknowledgement, so it asks about the
    /// few voters again instead of sorting a copy.
    pub fn reached<T: Ord + Copy>(&self, of: impl Fn(MemberId) -> T) -> T {
        let reached = |value: &T| self.is_quorum(|voter| of(voter) >= *value);
        self.voters.iter().map(|voter| of(*voter)).filter(reached).max().expect("all voters reach the least")
    }

    /// The size of the smallest quorum: a majority of the voters.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(voters: u32) -> Membership {
        Membership::founding((1..=voters).map(MemberId).collect())
    }

    #[test]
    fn two_quorums_share_a_voter() {
        for voters in 1..=7 {
            let membership = of(voters);
            let sets = (0..1_u32 << voters).map(|bits| move |id: MemberId| bits >> (id.0 - 1) & 1 == 1);
            let quorums: Vec<_> = sets.filter(|set| membership.is_quorum(set)).collect();
            assert!(!quorums.is_empty());
            for (a, b) in quorums.iter().flat_map(|a| quorums.iter().map(move |b| (a, b))) {
                assert!(membership.voters.iter().any(|id| a(*id) && b(*id)));
            }
        }
    }

    #[test]
    fn what_a_quorum_has_reached_is_the_value_of_the_last_of_its_best() {
        let values = [7, 3, 9, 9, 1];
        let reached = |voters| of(voters).reached(|id| values[id.0 as usize - 1]);
        assert_eq!([1, 2, 3, 4, 5].map(reached), [7, 3, 7, 7, 7]);
    }
}
