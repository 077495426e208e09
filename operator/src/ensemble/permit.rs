//! Owns the permit and the peers file: the two files by which members learn who they are to be. Must not know how they
//! reach a pod.
//!
//! Invariant: a permit names each volume that it admits, so it is worth nothing on any other disk; what it says of the
//! founders changes only when the Ensemble goes on from one volume alone.

use serde::{Deserialize, Serialize};

use crate::admin::{Identity, Membership, Registered};
use pharos_crds::names;

/// Version of the permit.
const VERSION: u32 = 1;

/// The permit to found a cluster, once, and later to join it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Permit {
    /// Version of the file.
    pub version: u32,
    /// Identity of the cluster: 32 hexadecimal digits.
    pub cluster_id: String,
    /// Generation of the cluster. Unset: the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Whether the generation goes on from the volume of the only founder, without all other members of the one before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recovers: bool,
    /// The founders.
    pub founders: Vec<PermitMember>,
    /// What a joiner shows to be let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub founding_digest: Option<String>,
    /// All members, joiners among them: whom a joiner dials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<PermitMember>,
    /// Learners whose volumes may still be empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joiners: Vec<PermitMember>,
}

/// A member that a permit names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PermitMember {
    /// Its identity, never reused.
    pub member_id: i64,
    /// Its volume.
    pub volume: String,
    /// Its stable name.
    pub host: String,
    /// Its port for peers.
    pub peer_port: u16,
    /// Its port for clients.
    pub client_port: u16,
}

impl From<&Registered> for PermitMember {
    fn from(member: &Registered) -> Self {
        Self {
            member_id: member.member_id,
            volume: member.volume.clone(),
            host: member.host.clone(),
            peer_port: member.peer_port,
            client_port: member.client_port,
        }
    }
}

impl Permit {
    /// The permit for these volumes to found a cluster, in the order of ordinals.
    #[must_use]
    pub fn new(name: &str, namespace: &str, cluster_id: String, disks: &[Identity]) -> Self {
        let founders = (0u32..).zip(disks).map(|(ordinal, disk)| PermitMember {
            member_id: i64::from(ordinal) + 1,
            volume: disk.volume.clone(),
            host: names::ensemble::host(name, namespace, ordinal),
            peer_port: names::PORT_PEER,
            client_port: names::PORT_CLIENT,
        });
        Self::of(cluster_id, None, founders.collect())
    }

    fn of(cluster_id: String, generation: Option<u64>, founders: Vec<PermitMember>) -> Self {
        Self {
            version: VERSION,
            cluster_id,
            generation,
            recovers: false,
            founders,
            founding_digest: None,
            members: Vec::new(),
            joiners: Vec::new(),
        }
    }

    /// The permit of a cluster whose own is gone, as after its Ensemble was deleted and applied again. Its voters stand
    /// for the founders: their volumes are not empty, so it founds nothing.
    #[must_use]
    pub fn of_a_known_cluster(cluster_id: &str, generation: Option<u64>, membership: &Membership) -> Self {
        Self::of(cluster_id.to_owned(), generation, membership.voters().map(PermitMember::from).collect())
    }

    /// The permit for one member to go on alone in a new generation.
    #[must_use]
    pub fn of_a_survivor(cluster_id: &str, generation: u64, survivor: &Registered) -> Self {
        Self { recovers: true, ..Self::of(cluster_id.to_owned(), Some(generation), vec![survivor.into()]) }
    }

    /// The permit of an Ensemble that goes on from a volume that a backup was put on. The volume is not empty, so the permit
    /// founds nothing.
    #[must_use]
    pub fn of_a_backup(cluster_id: &str, generation: u64, member: &PermitMember) -> Self {
        Self::of(cluster_id.to_owned(), Some(generation), vec![member.clone()])
    }

    /// The same with the members as they are now, if someone joins or has joined by it. What it let begin has begun, for
    /// there is a leader.
    #[must_use]
    pub fn amended(&self, membership: &Membership) -> Self {
        if membership.learners().next().is_none() && self.members.is_empty() {
            return Self { recovers: false, ..self.clone() };
        }
        Self {
            recovers: false,
            founding_digest: Some(membership.founding_digest.clone()),
            members: membership.members.iter().map(PermitMember::from).collect(),
            joiners: membership.learners().map(PermitMember::from).collect(),
            ..self.clone()
        }
    }

    /// Whether it is good for a volume.
    #[must_use]
    pub fn names_volume(&self, volume: &str) -> bool {
        self.founders.iter().chain(&self.joiners).any(|member| member.volume == volume)
    }
}

/// The peers file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers {
    /// What peers call the cluster: `namespace/name`.
    pub cluster: String,
    /// Where each ordinal is.
    pub members: Vec<Peer>,
}

/// Where an ordinal is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Ordinal of the pod.
    pub ordinal: u32,
    /// Its stable name.
    pub host: String,
    /// Its port for peers.
    pub peer_port: u16,
}

impl Peers {
    /// The peers file of an Ensemble.
    #[must_use]
    pub fn new(name: &str, namespace: &str, replicas: u32) -> Self {
        let members = (0..replicas).map(|ordinal| Peer {
            ordinal,
            host: names::ensemble::host(name, namespace, ordinal),
            peer_port: names::PORT_PEER,
        });
        Self { cluster: names::ensemble::cluster(name, namespace), members: members.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(volume: &str) -> Identity {
        serde_json::from_str(&format!(r#"{{"state":"blank","volume":"{volume}"}}"#)).expect("an identity")
    }

    fn membership(voters: &[(i64, bool)]) -> Membership {
        let members = voters.iter().map(|(id, voter)| Registered {
            member_id: *id,
            volume: format!("v{id}"),
            host: format!("h{id}"),
            peer_port: 2888,
            client_port: 2181,
            voter: *voter,
        });
        Membership { config: 1, next_member_id: 9, founding_digest: "dd".into(), members: members.collect() }
    }

    fn ids(members: &[PermitMember]) -> Vec<i64> {
        members.iter().map(|member| member.member_id).collect()
    }

    #[test]
    fn a_permit_that_nobody_joined_by_is_written_as_ever() {
        let permit = Permit::new("main", "ns", "c1".into(), &[disk("v1")]);
        let text = serde_json::to_string(&permit).expect("plain data");
        assert_eq!(
            text,
            r#"{"version":1,"clusterId":"c1","founders":[{"memberId":1,"volume":"v1","host":"main-ensemble-0.main-ensemble-peers.ns.svc","peerPort":2888,"clientPort":2181}]}"#
        );
        assert_eq!(serde_json::from_str::<Permit>(&text).expect("a permit"), permit);
        assert_eq!(permit.amended(&membership(&[(1, true)])), permit);
    }

    #[test]
    fn who_joins_is_named_and_the_founders_stay_as_they_were() {
        let permit = Permit::new("main", "ns", "c1".into(), &[disk("v1")]);
        let joining = permit.amended(&membership(&[(1, true), (4, false)]));
        assert_eq!(joining.founders, permit.founders);
        assert_eq!((ids(&joining.members), ids(&joining.joiners)), (vec![1, 4], vec![4]));
        assert!(joining.names_volume("v4") && !permit.names_volume("v4"));
        // Once it votes it needs no permit, and one who left is not dialled.
        let joined = joining.amended(&membership(&[(4, true)]));
        assert_eq!((ids(&joined.members), ids(&joined.joiners)), (vec![4], vec![]));
        assert_eq!(joined.founders, permit.founders);
        assert_eq!(joined.founding_digest.as_deref(), Some("dd"));
    }

    #[test]
    fn the_permit_of_a_survivor_is_as_the_node_reads_it_and_lets_nobody_recover_once_there_is_a_leader() {
        let known = membership(&[(1, true), (2, true), (3, true)]);
        let permit = Permit::of_a_survivor("c1", 2, &known.members[1]);
        let text = serde_json::to_string(&permit).expect("plain data");
        assert_eq!(
            text,
            r#"{"version":1,"clusterId":"c1","generation":2,"recovers":true,"founders":[{"memberId":2,"volume":"v2","host":"h2","peerPort":2888,"clientPort":2181}]}"#
        );
        let alone = membership(&[(2, true)]);
        assert_eq!(permit.amended(&alone), Permit { recovers: false, ..permit.clone() });
        let joining = permit.amended(&membership(&[(2, true), (4, false)]));
        assert_eq!((joining.recovers, joining.generation, ids(&joining.joiners)), (false, Some(2), vec![4]));
        assert_eq!(joining.founders, permit.founders);
    }

    #[test]
    fn a_permit_that_was_lost_admits_no_empty_volume_but_the_learners() {
        let known = membership(&[(1, true), (2, true), (4, false)]);
        let permit = Permit::of_a_known_cluster("c1", Some(1), &known).amended(&known);
        assert_eq!((ids(&permit.founders), ids(&permit.joiners)), (vec![1, 2], vec![4]));
    }
}
