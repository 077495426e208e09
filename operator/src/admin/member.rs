//! Owns what a member of an Ensemble says of itself, in the words of its admin port. Must not know what is concluded.
//!
//! Invariant: a field that an older member does not send is told from one that it denies.

use serde::{Deserialize, Serialize};

/// What a member says about its disk.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// State of the disk.
    pub state: DiskState,
    /// Identity of the volume, made when it was first seen empty.
    pub volume: String,
    /// Identity of the member, once it is one.
    #[serde(default)]
    pub member_id: Option<i64>,
    /// Identity of the cluster, once it is a member of one.
    #[serde(default)]
    pub cluster_id: Option<String>,
    /// Generation of the cluster.
    #[serde(default)]
    pub generation: Option<u64>,
    /// Feature levels that it can carry out; none if its version knows of none.
    #[serde(default)]
    pub feature_levels: Option<FeatureLevels>,
}

/// Feature levels, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureLevels {
    /// The lowest.
    pub min: u16,
    /// The highest.
    pub max: u16,
}

/// State of a member's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskState {
    /// Empty: it has no vote.
    Blank,
    /// It has read its permit.
    Founding,
    /// A permit lets it join; it waits for the state from the leader.
    Joining,
    /// It belongs to a cluster.
    Member,
}

/// What a member says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Identity of the member, once it is one.
    #[serde(default)]
    pub member_id: Option<i64>,
    /// Its part.
    pub role: Role,
    /// The leader it follows.
    #[serde(default)]
    pub leader: Option<i64>,
    /// Last slot applied.
    #[serde(default)]
    pub applied: u64,
    /// Last slot known committed.
    #[serde(default)]
    pub committed: u64,
    /// Whether it serves clients.
    #[serde(default)]
    pub serving: bool,
    /// Version of its software.
    #[serde(default)]
    pub version: Option<String>,
    /// The feature level in force.
    #[serde(default)]
    pub feature_level: Option<i32>,
    /// `configuration.round.member` of the ballot it has promised.
    #[serde(default)]
    pub ballot: String,
    /// The ballot whose leader's log it holds a beginning of, likewise.
    #[serde(default)]
    pub accepted: Option<String>,
    /// The last slot durable in its log.
    #[serde(default)]
    pub durable: Option<u64>,
    /// The last transaction applied, in hexadecimal.
    #[serde(default)]
    pub zxid: String,
    /// The others, as a leader sees them.
    #[serde(default)]
    pub peers: Vec<PeerStatus>,
    /// Who belongs to the cluster, as of the last slot applied.
    #[serde(default)]
    pub membership: Option<Membership>,
}

impl NodeStatus {
    /// Number of the configuration whose leader it follows, if it says so.
    #[must_use]
    pub fn ballot_config(&self) -> Option<u64> {
        self.ballot.split('.').next()?.parse().ok()
    }

    /// Epoch of the last transaction applied: it rises with each leader that begins to work.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        let digits = self.zxid.trim_start_matches("0x");
        u64::from_str_radix(digits, 16).map_or(0, |zxid| zxid >> 32)
    }
}

/// Another member, as a leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// Which.
    pub member_id: i64,
    /// Whether its log has all but what was proposed last.
    #[serde(default)]
    pub caught_up: bool,
}

/// Who belongs to a cluster: what is on the disks, as of one slot.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Membership {
    /// Number of the configuration: it rises when voters change.
    pub config: u64,
    /// The identity that the next member gets.
    pub next_member_id: i64,
    /// What joiners show to be let in.
    pub founding_digest: String,
    /// Voters and learners.
    pub members: Vec<Registered>,
}

impl Membership {
    /// Those who vote.
    pub fn voters(&self) -> impl Iterator<Item = &Registered> {
        self.members.iter().filter(|member| member.voter)
    }

    /// Those who are fed and not counted.
    pub fn learners(&self) -> impl Iterator<Item = &Registered> {
        self.members.iter().filter(|member| !member.voter)
    }

    /// The member with this volume.
    #[must_use]
    pub fn with_volume(&self, volume: &str) -> Option<&Registered> {
        self.members.iter().find(|member| member.volume == volume)
    }

    /// The least number of voters that can decide.
    #[must_use]
    pub fn quorum(&self) -> usize {
        self.voters().count() / 2 + 1
    }
}

/// A member of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Registered {
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
    /// Whether it votes.
    pub voter: bool,
}

/// The part a member plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It leads.
    Leader,
    /// It follows.
    Follower,
    /// It has no leader.
    Candidate,
    /// Its disk is empty.
    Blank,
    /// It founds a cluster.
    Founding,
    /// It waits for the state from the leader.
    Joining,
    /// It is sent what is written, and does not vote.
    Learner,
    /// It was a member and is one no more.
    Removed,
}

impl Role {
    /// The word of the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Blank => "blank",
            Self::Founding => "founding",
            Self::Joining => "joining",
            Self::Learner => "learner",
            Self::Removed => "removed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_says_who_belongs_to_the_cluster() {
        let text = r#"{"memberId":1,"role":"leader","leader":1,"ballot":"2.7.1","applied":9,"zxid":"0x500000003",
            "peers":[{"memberId":3,"matched":7,"connected":true,"caughtUp":true}],
            "membership":{"config":2,"nextMemberId":4,"foundingDigest":"dd","members":[
                {"memberId":1,"volume":"aa","host":"a","peerPort":2888,"clientPort":2181,"voter":true},
                {"memberId":3,"volume":"cc","host":"c","peerPort":2888,"clientPort":2181,"voter":false}]}}"#;
        let status: NodeStatus = serde_json::from_str(text).expect("a status");
        assert_eq!((status.ballot_config(), status.epoch()), (Some(2), 5));
        assert_eq!(status.peers, [PeerStatus { member_id: 3, caught_up: true }]);
        let membership = status.membership.expect("it is a member");
        let ids = |members: Vec<&Registered>| members.iter().map(|one| one.member_id).collect::<Vec<_>>();
        assert_eq!(
            (ids(membership.voters().collect()), ids(membership.learners().collect())),
            (vec![1], vec![3])
        );
        assert_eq!(membership.with_volume("cc").map(|one| one.member_id), Some(3));
    }

    #[test]
    fn a_member_of_an_older_version_is_understood() {
        let text = r#"{"memberId":1,"role":"leader","leader":1,"applied":9,"committed":9,"serving":true}"#;
        let status: NodeStatus = serde_json::from_str(text).expect("a status");
        assert_eq!((&status.membership, status.ballot_config(), status.epoch()), (&None, None, 0));
    }
}
