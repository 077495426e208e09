//! What a core is started with: its place in the group, its limits, and what its log held.
//!
//! Owns the values and their checks; knows nothing of the protocol.

use crate::plant::Plant;
use crate::types::{Ballot, Entry, EntryKind, HardState, MemberId, Membership, Millis, Slot};

/// A core's settings.
#[derive(Clone, Debug, Hash)]
pub struct Config {
    /// This member.
    pub me: MemberId,
    /// Who votes.
    pub membership: Membership,
    /// How often a leader is heard.
    pub heartbeat: Millis,
    /// How long a leader may be silent, and how long it leads without being heard by a quorum.
    pub election: Millis,
    /// How many slots may be proposed and not committed, and be on the way to one follower.
    pub window_slots: usize,
    /// The same in bytes of payload; one entry is always allowed.
    pub window_bytes: usize,
    /// Bulk messages are cut when they reach this many bytes of payload; one entry is always allowed.
    pub chunk_bytes: usize,
    /// Spreads election timeouts. Draw it anew at every start: request numbers begin from it, so that an
    /// answer meant for an earlier life of this member matches none of this one.
    pub seed: u64,
    /// The known bug this core has, for the simulator.
    pub plant: Plant,
}

impl Config {
    /// The usual limits: heartbeat 50 ms, election 500 ms, 64 slots or 16 MiB in flight, chunks of 1 MiB.
    #[must_use]
    pub fn new(me: MemberId, membership: Membership, seed: u64) -> Self {
        Self {
            me,
            membership,
            heartbeat: Millis(50),
            election: Millis(500),
            window_slots: 64,
            window_bytes: 16 << 20,
            chunk_bytes: 1 << 20,
            seed,
            plant: Plant::None,
        }
    }

    /// Why no core can run with these settings, if none can.
    pub(crate) fn refusal(&self) -> Option<&'static str> {
        let voters = &self.membership.voters;
        if voters.is_empty() || !voters.windows(2).all(|w| w[0] < w[1]) {
            return Some("the voters are not sorted, not distinct, or none");
        }
        if self.heartbeat.0 == 0 || self.election.0 < 2 * self.heartbeat.0 {
            return Some("the election timeout is not at least two heartbeats");
        }
        if self.window_slots == 0 {
            return Some("the window has no slots");
        }
        None
    }
}

/// What the log held when the process started; all of it durable.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The last of each hard state operation.
    pub hard: HardState,
    /// Entries up to here are gone from the log: the state store has them.
    pub trimmed: Slot,
    /// The rest, contiguous from `trimmed + 1`.
    pub entries: Vec<Entry>,
}

impl Recovered {
    /// Why this must not vote, if it must not.
    ///
    /// An empty log never votes: what it once promised or accepted is forgotten, so its vote could elect a
    /// leader without a committed entry. Founders write the founding entry before they start the core; others
    /// come without a vote, and their log begins with a state that they are sent. Such a one may have promised
    /// the ballot that the state came in, and no more.
    pub(crate) fn refusal(&self, votes: bool) -> Option<&'static str> {
        let founded =
            self.entries.first().is_some_and(|e| e.slot == Slot(1) && e.kind == EntryKind::Founding);
        let founded = founded && self.hard.accepted > Ballot::ZERO;
        let nothing = self.hard.accepted == Ballot::ZERO && self.hard.committed == Slot::ZERO;
        let empty = self.trimmed == Slot::ZERO && self.entries.is_empty() && nothing;
        if !(founded || self.trimmed > Slot::ZERO || (empty && !votes)) {
            return Some("the log is empty: a member without the founding entry never votes");
        }
        if self.entries.iter().any(|e| e.kind == EntryKind::Seal && e.seals().is_none()) {
            return Some("the log holds a seal that cannot be read");
        }
        if self.hard.promised < self.hard.accepted {
            return Some("the log has accepted a ballot above its promise");
        }
        let mut expected = self.trimmed;
        let mut ballot = Ballot::ZERO;
        for entry in &self.entries {
            expected = expected.next();
            if entry.slot != expected {
                return Some("the log has a gap");
            }
            if entry.ballot < ballot || entry.ballot > self.hard.accepted {
                return Some("the log's ballots are out of order");
            }
            ballot = entry.ballot;
        }
        if self.hard.committed > expected {
            return Some("the log is shorter than its own commit hint");
        }
        None
    }
}
