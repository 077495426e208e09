//! From the replica's own account of itself to what the server publishes.
//!
//! Owns the translation. Must not know who reads it.

use crate::admin::Context;
use crate::status::{Counters, Gauges, Identity, PeerStatus, RoleName, Snapshot, Status, VERSION};
use crate::words::Settings;
use pharos_paxos::MemberId;
use pharos_replica::{MemberRole, Replica, ReplicaStatus};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is published beside the replica's status.
#[derive(Debug)]
pub(crate) struct View {
    context: Arc<Context>,
    identity: Identity,
    /// The other members, and whether there is a link to each.
    peers: BTreeMap<MemberId, bool>,
}

impl View {
    pub(crate) fn new(
        context: Arc<Context>,
        identity: Identity,
        peers: impl IntoIterator<Item = MemberId>,
    ) -> Self {
        Self { context, identity, peers: peers.into_iter().map(|peer| (peer, false)).collect() }
    }

    pub(crate) fn connected(&mut self, peer: MemberId, connected: bool) {
        self.peers.insert(peer, connected);
    }

    /// The settings that four-letter words show.
    pub(crate) fn settings(&self) -> Settings<'_> {
        self.context.settings()
    }

    /// The server at this moment.
    pub(crate) fn snapshot(&self, replica: &Replica, counters: &Counters, connections: usize) -> Snapshot {
        let status = replica.status();
        Snapshot {
            identity: self.identity.clone(),
            gauges: self.gauges(&status, counters, connections),
            status: self.status(&status),
        }
    }

    fn status(&self, status: &ReplicaStatus) -> Status {
        let matched = |peer| status.peers.iter().find(|p| p.member == peer).map_or(0, |p| p.matched.0);
        let peer = |(&member, &connected): (&MemberId, &bool)| PeerStatus {
            member_id: member.0,
            matched: matched(member),
            connected,
        };
        Status {
            member_id: status.me.0,
            role: role(status.role),
            leader: status.leader.map(|leader| leader.0),
            ballot: status.ballot.to_string(),
            applied: status.applied.0,
            committed: status.committed.0,
            durable: status.durable.0,
            flushed: status.flushed.0,
            zxid: status.zxid.to_string(),
            sessions: status.sessions as u64,
            serving: status.serving,
            version: VERSION,
            peers: self.peers.iter().map(peer).collect(),
        }
    }

    fn gauges(&self, status: &ReplicaStatus, counters: &Counters, connections: usize) -> Gauges {
        Gauges {
            znodes: status.znodes as u64,
            ephemerals: status.ephemerals as u64,
            data_bytes: status.data_bytes,
            watches: status.watches as u64,
            outstanding: status.outstanding as u64,
            voters: self.peers.len() as u64 + 1,
            connections: connections as u64,
            log_bytes: status.log_bytes,
            log_segments: status.log_segments as u64,
            replayed_slots: status.replayed,
            installed_states: status.installed,
            elections: status.elections,
            counters: *counters,
        }
    }
}

fn role(role: MemberRole) -> RoleName {
    match role {
        MemberRole::Leader => RoleName::Leader,
        MemberRole::Follower => RoleName::Follower,
        MemberRole::Candidate => RoleName::Candidate,
    }
}
