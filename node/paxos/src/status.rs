//! What a core can tell of itself, for metrics and for whoever asks why nothing happens.
//!
//! Owns the picture, not the facts; nothing in the protocol reads it.

use crate::output::Role;
use crate::paxos::{Paxos, State};
use crate::peer::Phase;
use crate::types::{Ballot, MemberId, Millis, Slot};

/// Counted since the start.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Counters {
    pub(crate) elections: u64,
    pub(crate) rejections: u64,
    pub(crate) last_refusal: Option<&'static str>,
}

/// A core at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The part it plays.
    pub role: Role,
    /// The leader, as far as known; this member itself when it leads.
    pub leader: Option<MemberId>,
    /// The highest ballot promised.
    pub promised: Ballot,
    /// The ballot whose leader's log this log is a prefix of.
    pub accepted: Ballot,
    /// Chosen up to here.
    pub committed: Slot,
    /// Durable up to here.
    pub durable: Slot,
    /// The log's end.
    pub last: Slot,
    /// Gone from the log up to here.
    pub trimmed: Slot,
    /// Ballots opened by this member since its start.
    pub elections: u64,
    /// Ballots of this member that were outbid since its start.
    pub rejections: u64,
    /// Why this member last gave up to lead.
    pub last_refusal: Option<&'static str>,
    /// Slots in the log that are not committed.
    pub in_flight: u64,
    /// Writes issued and not yet durable.
    pub writes_in_flight: usize,
    /// Read requests that wait.
    pub reads_waiting: usize,
    /// The other voters, as seen by the leader; empty elsewhere.
    pub peers: Vec<PeerStatus>,
}

/// A follower, as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Who.
    pub member: MemberId,
    /// Durable there under the leader's ballot up to here.
    pub matched: Slot,
    /// The next slot to send.
    pub next: Slot,
    /// How far it has come into the ballot.
    pub phase: PeerPhase,
    /// Since when it has not answered a heartbeat.
    pub silent_for: Millis,
    /// It has all but what was proposed last, and answers: the next configuration may count on it.
    pub keeps_up: bool,
}

/// How far a follower has come into the leader's ballot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerPhase {
    /// It has not promised yet.
    Unpromised,
    /// It is sent the adopted prefix.
    Syncing,
    /// It takes entries as they come.
    Streaming,
    /// It lacks entries that the leader has trimmed: it needs a snapshot.
    Behind,
}

impl Paxos {
    /// The core at this moment.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            role: self.role(),
            leader: self.leader(),
            promised: self.promised,
            accepted: self.accepted,
            committed: self.committed,
            durable: self.disk.end(),
            last: self.log.end(),
            trimmed: self.log.trimmed(),
            elections: self.counters.elections,
            rejections: self.counters.rejections,
            last_refusal: self.counters.last_refusal,
            in_flight: self.log.end().0.saturating_sub(self.committed.0),
            writes_in_flight: self.disk.in_flight(),
            reads_waiting: self.reads.len(),
            peers: self.peer_status(),
        }
    }

    fn peer_status(&self) -> Vec<PeerStatus> {
        let State::Leader(l) = &self.state else { return Vec::new() };
        let status = |(&member, p): (&MemberId, &crate::peer::Peer)| PeerStatus {
            member,
            matched: p.matched,
            next: p.next,
            phase: match p.phase {
                Phase::Unpromised => PeerPhase::Unpromised,
                Phase::Syncing { .. } => PeerPhase::Syncing,
                Phase::Streaming => PeerPhase::Streaming,
                Phase::Behind => PeerPhase::Behind,
            },
            silent_for: Millis(self.now.0 - p.acked_at.0),
            keeps_up: self.keeps_up(p),
        };
        l.peers.iter().map(status).collect()
    }
}
