//! From the replica's own account of itself to what the server publishes.
//!
//! Owns the translation. Must not know who reads it.

use crate::admin::Context;
use crate::hello::Id128;
use crate::permit::founding_digest;
use crate::status::{
    Counters, Gauges, HexText, Identity, LevelRange, Life, MembershipStatus, PeerStatus, RegisteredMember,
};
use crate::status::{RoleName, Snapshot, Status, VERSION};
use crate::words::Settings;
use pharos_paxos::MemberId;
use pharos_replica::{Member, MemberRole, Replica, ReplicaStatus};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is published beside the replica's status.
#[derive(Debug)]
pub(crate) struct View {
    context: Arc<Context>,
    identity: Identity,
    /// The other members, and whether there is a link to each.
    peers: BTreeMap<MemberId, bool>,
    /// None until this member knows who belongs to the ensemble.
    membership: Option<MembershipStatus>,
}

impl View {
    pub(crate) fn new(context: Arc<Context>, identity: Identity) -> Self {
        Self { context, identity, peers: BTreeMap::new(), membership: None }
    }

    pub(crate) fn connected(&mut self, peer: MemberId, connected: bool) {
        if let Some(known) = self.peers.get_mut(&peer) {
            *known = connected;
        }
    }

    /// This member does not know the list of members yet.
    pub(crate) fn joins(&mut self) {
        self.identity.state = Life::Joining;
    }

    /// The list of members is the ensemble's own.
    pub(crate) fn meet(&mut self, replica: &Replica, is_up: impl Fn(MemberId) -> bool) {
        let registry = replica.registry();
        let others = registry.members().iter().map(|member| member.id).filter(|id| *id != replica.me());
        self.peers = others.map(|id| (id, is_up(id))).collect();
        let member = |member: &Member| RegisteredMember {
            member_id: member.id.0,
            volume: HexText(Id128(member.volume)),
            host: member.host.clone(),
            peer_port: member.peer_port,
            client_port: member.client_port,
            voter: registry.membership().has(member.id),
        };
        self.identity.state = Life::Member;
        self.membership = Some(MembershipStatus {
            config: registry.membership().config.0,
            next_member_id: registry.next_id().0,
            founding_digest: HexText(founding_digest(replica.founding())),
            members: registry.members().iter().map(member).collect(),
        });
    }

    /// What the volume was before is gone.
    pub(crate) fn forget_former(&mut self) {
        self.identity.gave_up = None;
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
        let peer = |(&member, &connected): (&MemberId, &bool)| {
            let seen = status.peers.iter().find(|peer| peer.member == member);
            let matched = seen.map_or(0, |peer| peer.matched.0);
            let caught_up = seen.is_some_and(|peer| peer.keeps_up);
            let feature_levels = status.peer_levels.get(&member).copied().map(LevelRange::from);
            PeerStatus { member_id: member.0, matched, caught_up, connected, feature_levels }
        };
        Status {
            member_id: status.me.0,
            role: role(status.role),
            leader: status.leader.map(|leader| leader.0),
            ballot: status.ballot.to_string(),
            accepted: status.accepted.to_string(),
            applied: status.applied.0,
            committed: status.committed.0,
            durable: status.durable.0,
            flushed: status.flushed.0,
            zxid: status.zxid.to_string(),
            sessions: status.sessions as u64,
            serving: status.serving,
            disk_full: status.full,
            leader_clock_ahead_ms: status.leader_clock_ahead_ms,
            version: VERSION,
            feature_level: status.level.0,
            feature_levels: status.levels.into(),
            peers: self.peers.iter().map(peer).collect(),
            membership: self.membership.clone(),
        }
    }

    fn gauges(&self, status: &ReplicaStatus, counters: &Counters, connections: usize) -> Gauges {
        Gauges {
            znodes: status.znodes as u64,
            ephemerals: status.ephemerals as u64,
            data_bytes: status.data_bytes,
            values_here: status.values_here,
            cold_reads: status.cold_reads,
            watches: status.watches as u64,
            outstanding: status.outstanding as u64,
            voters: self.membership.iter().flat_map(|all| &all.members).filter(|one| one.voter).count()
                as u64,
            connections: connections as u64,
            log_bytes: status.log_bytes,
            log_segments: status.log_segments as u64,
            replayed_slots: status.replayed,
            installed_states: status.installed,
            repaired_states: status.repaired,
            elections: status.elections,
            counters: *counters,
        }
    }
}

fn role(role: MemberRole) -> RoleName {
    match role {
        MemberRole::Joining => RoleName::Joining,
        MemberRole::Learner => RoleName::Learner,
        MemberRole::Removed => RoleName::Removed,
        MemberRole::Leader => RoleName::Leader,
        MemberRole::Follower => RoleName::Follower,
        MemberRole::Candidate => RoleName::Candidate,
    }
}
