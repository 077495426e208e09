//! Owns the founding permit and the peers file: the two files by which members learn who they are to be. Must not know
//! how they reach a pod.
//!
//! Invariant: a permit names each founder's volume, so it is worth nothing on any other disk.

use serde::{Deserialize, Serialize};

use crate::admin::Identity;
use pharos_crds::names;

/// Version of the permit.
const VERSION: u32 = 1;

/// The one-time permit to found a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Permit {
    /// Version of the file.
    pub version: u32,
    /// Identity of the cluster: 32 hexadecimal digits.
    pub cluster_id: String,
    /// The founders.
    pub founders: Vec<Founder>,
}

/// A founder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Founder {
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

impl Permit {
    /// The permit for these volumes, in the order of ordinals.
    #[must_use]
    pub fn new(name: &str, namespace: &str, cluster_id: String, disks: &[Identity]) -> Self {
        let founders = (0u32..).zip(disks).map(|(ordinal, disk)| Founder {
            member_id: i64::from(ordinal) + 1,
            volume: disk.volume.clone(),
            host: names::ensemble::host(name, namespace, ordinal),
            peer_port: names::PORT_PEER,
            client_port: names::PORT_CLIENT,
        });
        Self { version: VERSION, cluster_id, founders: founders.collect() }
    }

    /// Whether it is good for a volume.
    #[must_use]
    pub fn names_volume(&self, volume: &str) -> bool {
        self.founders.iter().any(|founder| founder.volume == volume)
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
