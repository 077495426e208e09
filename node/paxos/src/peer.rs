//! What a leader knows of one follower and has sent it.
//!
//! Owns the stream's position; decides nothing about commits or ballots. `matched` only rises: it is what
//! the follower has said to be durable under this ballot.

use crate::log_view::LogView;
use crate::types::{Entry, Millis, Slot};

/// How far the follower has come into this ballot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// It is not known to have promised.
    Unpromised,
    /// It is sent the adopted prefix, from `base`, up to which both logs are equal.
    Syncing { base: Slot },
    /// Its log is a prefix of the leader's; it is sent what comes after.
    Streaming,
    /// It lacks entries which the leader has trimmed.
    Behind,
}

#[derive(Clone, Debug, Hash)]
pub(crate) struct Peer {
    pub(crate) phase: Phase,
    /// Durable there under this ballot.
    pub(crate) matched: Slot,
    /// The next slot to send.
    pub(crate) next: Slot,
    /// The end it has shown in this phase, durable or not.
    pub(crate) seen: Slot,
    /// Where the window is counted from when `matched` lags behind what it already had.
    floor: Slot,
    /// When `seen` last rose or something was sent after a pause.
    progress_at: Millis,
    /// The end and the time of the last rewind, so that a burst of complaints causes one.
    rewound: Option<(Slot, Millis)>,
    /// The sync's first part was sent; it may be empty.
    pub(crate) sync_begun: bool,
    /// The commit index last sent.
    pub(crate) commit_sent: Slot,
    /// The last heartbeat round it answered.
    pub(crate) acked_seq: u64,
    /// When it answered one.
    pub(crate) acked_at: Millis,
    /// When it was last asked for a promise.
    pub(crate) prepared_at: Option<Millis>,
}

/// How much may be on the way to one follower.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) slots: usize,
    pub(crate) bytes: usize,
    pub(crate) chunk: usize,
}

impl Peer {
    pub(crate) fn new(now: Millis) -> Self {
        Self {
            phase: Phase::Unpromised,
            matched: Slot::ZERO,
            next: Slot::ZERO,
            seen: Slot::ZERO,
            floor: Slot::ZERO,
            progress_at: now,
            rewound: None,
            sync_begun: false,
            commit_sent: Slot::ZERO,
            acked_seq: 0,
            acked_at: now,
            prepared_at: None,
        }
    }

    pub(crate) fn start_sync(&mut self, base: Slot, now: Millis) {
        assert!(self.matched == Slot::ZERO, "a follower that has accepted the ballot needs no sync");
        self.phase = Phase::Syncing { base };
        self.restart_at(base, now);
        self.sync_begun = false;
    }

    pub(crate) fn start_stream(&mut self, end: Slot, now: Millis) {
        self.phase = Phase::Streaming;
        self.restart_at(end, now);
        self.commit_sent = Slot::ZERO;
    }

    fn restart_at(&mut self, end: Slot, now: Millis) {
        self.next = end.next();
        self.seen = end;
        self.floor = end;
        self.progress_at = now;
        self.rewound = None;
    }

    /// See [`crate::Paxos::forget`].
    pub(crate) fn forget(&mut self, clock: &impl Fn(&mut Millis)) {
        clock(&mut self.progress_at);
        clock(&mut self.acked_at);
        self.rewound.iter_mut().for_each(|(_, when)| clock(when));
        self.prepared_at.iter_mut().for_each(clock);
    }

    /// The follower has shown that it has come to `end`.
    pub(crate) fn advance(&mut self, end: Slot, now: Millis) {
        if end > self.seen {
            self.seen = end;
            self.progress_at = now;
        }
    }

    /// The follower has shown where it stands; sends again from there when nothing arrives any more.
    pub(crate) fn show(&mut self, end: Slot, now: Millis, patience: Millis) {
        self.advance(end, now);
        self.seen = end; // Lower than before after a restart.
        let waits = end.next() < self.next || self.phase != Phase::Streaming; // A sync may be one empty part.
        if waits && now.0.saturating_sub(self.progress_at.0) >= patience.0 {
            self.rewind(end, now);
        }
    }

    /// The follower says that something is missing after `end`.
    pub(crate) fn complain(&mut self, end: Slot, now: Millis, heartbeat: Millis) {
        let again = self.rewound.is_some_and(|(at, when)| at == end && now.0 - when.0 < heartbeat.0);
        if !again && end.next() < self.next {
            self.rewind(end, now);
        }
    }

    /// Nothing sent may be assumed to arrive.
    pub(crate) fn rewind(&mut self, end: Slot, now: Millis) {
        assert!(end >= self.matched || self.phase != Phase::Streaming, "what is durable is not sent again");
        self.restart_at(end, now);
        self.rewound = Some((end, now));
        self.sync_begun = false;
        self.commit_sent = Slot::ZERO;
    }

    /// The next entries that the window lets out; none when it is full or all is sent.
    pub(crate) fn take_chunk(
        &mut self,
        log: &LogView,
        upto: Slot,
        limits: Limits,
        now: Millis,
    ) -> Vec<Entry> {
        let done = match self.phase {
            Phase::Streaming => self.matched.max(self.floor),
            _ => self.seen.max(self.floor),
        };
        let sent = Slot(self.next.0 - 1);
        let on_the_way = sent.0.saturating_sub(done.0) as usize;
        let bytes = log.bytes_between(done, sent) as usize;
        let slots = limits.slots.saturating_sub(on_the_way);
        if self.next > upto || slots == 0 || (on_the_way > 0 && bytes >= limits.bytes) {
            return Vec::new();
        }
        let room = limits.bytes.saturating_sub(bytes);
        let chunk = log.chunk(self.next, upto, limits.chunk.min(room), slots);
        let Some(last) = chunk.last() else { return chunk };
        if on_the_way > 0 && last.slot == self.next && last.payload.len() > room {
            return Vec::new();
        }
        if on_the_way == 0 {
            self.progress_at = now;
        }
        self.next = last.slot.next();
        chunk
    }
}
