//! The ordered stream of a member's client writes to the leader, at both ends.
//!
//! Owns what has been given to which leader and what the leader has taken. Must not know connections
//! or the log. Invariant: a command is given to at most one leader, once; any break of the stream,
//! even within one ballot, ends it, and nothing that was given is ever given again, for its fate is
//! unknown (DESIGN 3.4).

use crate::peer_msg::PeerMsg;
use bytes::Bytes;
use pharos_paxos::{Ballot, MemberId, Millis};
use std::collections::BTreeMap;

/// The follower's end.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// Raised at every break, so that what the leader says of an older stream is not heard.
    stream: u64,
    next_seq: u64,
    received: u64,
    /// When the oldest frame that the leader has not confirmed was sent.
    unconfirmed: std::collections::VecDeque<(u64, Millis)>,
}

impl Outgoing {
    /// Whatever was sent may or may not have arrived; the next frame opens a new stream.
    pub(crate) fn break_off(&mut self) {
        self.stream += 1;
        self.next_seq = 0;
        self.received = 0;
        self.unconfirmed.clear();
    }

    pub(crate) fn send(&mut self, ballot: Ballot, count: u32, commands: Bytes, now: Millis) -> PeerMsg {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.unconfirmed.push_back((seq, now));
        PeerMsg::Forward { ballot, stream: self.stream, seq, count, commands }
    }

    /// The leader has taken all frames below `received`.
    pub(crate) fn confirmed(&mut self, stream: u64, received: u64) {
        if stream != self.stream {
            return;
        }
        self.received = self.received.max(received);
        while self.unconfirmed.front().is_some_and(|&(seq, _)| seq < self.received) {
            self.unconfirmed.pop_front();
        }
    }

    /// Is this the stream that is open now?
    pub(crate) fn is_current(&self, stream: u64) -> bool {
        stream == self.stream
    }

    /// Has the leader said nothing about a frame for longer than `patience`?
    pub(crate) fn stalled(&self, now: Millis, patience: Millis) -> bool {
        self.unconfirmed.front().is_some_and(|&(_, at)| now.0 > at.0 + patience.0)
    }
}

/// What the leader does with a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Intake {
    /// The next of its stream: take it.
    Take,
    /// Seen already.
    Ignore,
    /// There is a gap, or it was meant for another leadership: the stream is over.
    Broken,
}

/// The leader's end: the streams of all other members.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    streams: BTreeMap<MemberId, Stream>,
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    stream: u64,
    next_seq: u64,
    broken: bool,
}

impl Incoming {
    /// Judges a frame of the ballot in which this member leads.
    pub(crate) fn judge(&mut self, from: MemberId, stream: u64, seq: u64) -> Intake {
        let known = self.streams.entry(from).or_insert(Stream { stream, next_seq: 0, broken: false });
        if stream < known.stream {
            return Intake::Ignore;
        }
        if stream > known.stream {
            *known = Stream { stream, next_seq: 0, broken: false };
        }
        if known.broken {
            return Intake::Broken;
        }
        if seq < known.next_seq {
            return Intake::Ignore;
        }
        if seq > known.next_seq {
            known.broken = true;
            return Intake::Broken;
        }
        known.next_seq += 1;
        Intake::Take
    }

    /// The member's stream and how many of its frames were taken.
    pub(crate) fn received(&self, from: MemberId) -> (u64, u64) {
        self.streams.get(&from).map_or((0, 0), |s| (s.stream, s.next_seq))
    }

    /// The connection to the member broke: what it sent last may be lost, so its stream is over.
    pub(crate) fn lost(&mut self, from: MemberId) {
        if let Some(stream) = self.streams.get_mut(&from) {
            stream.broken = true;
        }
    }

    /// A new process of the member counts its streams from the start.
    pub(crate) fn restarted(&mut self, from: MemberId) {
        self.streams.remove(&from);
    }

    /// The leadership is over or has just begun.
    pub(crate) fn clear(&mut self) {
        self.streams.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: MemberId = MemberId(2);

    #[test]
    fn frames_are_taken_once_and_in_order() {
        let mut incoming = Incoming::default();
        assert_eq!(incoming.judge(F, 1, 0), Intake::Take);
        assert_eq!(incoming.judge(F, 1, 0), Intake::Ignore);
        assert_eq!(incoming.judge(F, 1, 1), Intake::Take);
        assert_eq!(incoming.received(F), (1, 2));
    }

    #[test]
    fn a_gap_ends_the_stream_until_a_new_one_is_opened() {
        let mut incoming = Incoming::default();
        assert_eq!(incoming.judge(F, 1, 0), Intake::Take);
        assert_eq!(incoming.judge(F, 1, 2), Intake::Broken);
        assert_eq!(incoming.judge(F, 1, 1), Intake::Broken);
        assert_eq!(incoming.judge(F, 2, 0), Intake::Take);
        assert_eq!(incoming.judge(F, 1, 3), Intake::Ignore);
    }

    #[test]
    fn a_stream_that_does_not_begin_at_its_beginning_is_broken() {
        assert_eq!(Incoming::default().judge(F, 4, 3), Intake::Broken);
    }
}
