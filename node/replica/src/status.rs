//! What a member tells about itself.
//!
//! Owns the picture for the admin port, four-letter words and metrics. Invariant: nothing here is ever
//! read back by the member itself.

use crate::replica::{Leadership, Replica};
use pharos_paxos::{Ballot, MemberId, Slot};
use pharos_znode::{Level, Levels, Zxid};
use std::collections::BTreeMap;

/// The part a member plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberRole {
    /// It leads.
    Leader,
    /// It follows a leader.
    Follower,
    /// It knows no leader.
    Candidate,
    /// It follows a leader and has no vote.
    Learner,
    /// It waits for the state, of which the list of members is a part.
    Joining,
    /// It belonged to the ensemble and does not any more.
    Removed,
}

/// A peer, as the leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Who.
    pub member: MemberId,
    /// Durable there up to here.
    pub matched: Slot,
    /// It has all but what was proposed last, and answers.
    pub keeps_up: bool,
}

/// A member at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Its id.
    pub me: MemberId,
    /// The part it plays.
    pub role: MemberRole,
    /// The leader, if known.
    pub leader: Option<MemberId>,
    /// The highest ballot promised.
    pub ballot: Ballot,
    /// The ballot whose leader's log this member's log is a beginning of.
    pub accepted: Ballot,
    /// Applied to the state up to here.
    pub applied: Slot,
    /// Known to be chosen up to here.
    pub committed: Slot,
    /// Durable in this member's log up to here.
    pub durable: Slot,
    /// Flushed in the store up to here.
    pub flushed: Slot,
    /// Gone from the log up to here.
    pub trimmed: Slot,
    /// Slots applied from the log since this start because the store did not hold them.
    pub replayed: u64,
    /// Bytes of log that a restart would read.
    pub log_bytes: u64,
    /// Segments of the log.
    pub log_segments: usize,
    /// The state's last zxid.
    pub zxid: Zxid,
    /// The feature level in force.
    pub level: Level,
    /// The levels that it can carry out.
    pub levels: Levels,
    /// What the others said last that they can, since this member's start.
    pub peer_levels: BTreeMap<MemberId, Levels>,
    /// May it answer clients?
    pub serving: bool,
    /// By how many milliseconds the leader's clock is ahead, once this member knows.
    pub leader_clock_ahead_ms: Option<i64>,
    /// Has its disk no room? Then it acknowledges no writes.
    pub full: bool,
    /// States that were taken over from a leader, because the log did not reach far enough.
    pub installed: u64,
    /// Those among them that were taken since this member's own was not that of the others.
    pub repaired: u64,
    /// Sessions of the ensemble.
    pub sessions: usize,
    /// Connections to this member.
    pub connections: usize,
    /// Watches set on this member.
    pub watches: usize,
    /// Nodes of the tree.
    pub znodes: usize,
    /// Bytes of paths and data.
    pub data_bytes: u64,
    /// Bytes of values in memory, but for short ones.
    pub values_here: u64,
    /// Values that were read from the store since this start.
    pub cold_reads: u64,
    /// Ephemeral nodes.
    pub ephemerals: usize,
    /// Requests of this member's clients that wait for an answer.
    pub outstanding: usize,
    /// Elections this member has stood in since its start.
    pub elections: u64,
    /// The others, learners included, as seen by a leader.
    pub peers: Vec<PeerStatus>,
}

impl Replica {
    /// The member at this moment. Linear in the number of connections.
    #[must_use]
    pub fn status(&self) -> ReplicaStatus {
        let core = self.paxos.status();
        let peers = core.peers.iter().map(|p| PeerStatus {
            member: p.member,
            matched: p.matched,
            keeps_up: p.keeps_up,
        });
        ReplicaStatus {
            me: self.cfg.me,
            role: self.role(),
            leader: core.leader,
            ballot: core.promised,
            accepted: core.accepted,
            applied: self.applier.applied(),
            committed: self.applier.chosen(),
            durable: core.durable,
            flushed: self.persist.flushed(),
            trimmed: core.trimmed,
            replayed: self.applier.replayed(),
            installed: self.snapshots.installed(),
            repaired: self.digests.repaired(),
            log_bytes: self.group.wal().bytes(),
            log_segments: self.group.wal().segments(),
            zxid: self.state.zxid(),
            level: self.level(),
            levels: self.levels(),
            peer_levels: self.levels.told().clone(),
            serving: self.serves(self.min_timeout_ms()),
            leader_clock_ahead_ms: self.leader_clock_ahead_ms(),
            full: self.is_full(),
            sessions: self.state.sessions().len(),
            connections: self.clients.len(),
            watches: self.watches.len(),
            znodes: self.state.node_count(),
            data_bytes: self.state.data_bytes(),
            values_here: self.state.values_here(),
            cold_reads: self.cold.last(),
            ephemerals: self.state.ephemeral_count(),
            outstanding: self.clients.outstanding(),
            elections: core.elections,
            peers: peers.collect(),
        }
    }

    fn role(&self) -> MemberRole {
        let me = self.cfg.me;
        match self.leadership {
            _ if self.was_removed() => MemberRole::Removed,
            _ if self.registry.member(me).is_none() => MemberRole::Joining,
            Leadership::Leads { .. } => MemberRole::Leader,
            Leadership::Follows { .. } if !self.registry.membership().has(me) => MemberRole::Learner,
            Leadership::Follows { .. } => MemberRole::Follower,
            Leadership::None => MemberRole::Candidate,
        }
    }

    /// The last slot applied, and a digest of the state, equal on all members that have applied the same slots; none
    /// while the slot after it is half-way.
    #[must_use]
    pub fn digest(&self) -> (Slot, Option<u64>) {
        (self.applier.applied(), self.is_between_slots().then(|| self.state.digest()))
    }
}
