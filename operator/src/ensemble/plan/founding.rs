//! Owns how far a cluster is founded, from what the disks say. Must not know who votes once it is.
//!
//! Invariant: a permit is asked for only when every founder has reported an empty volume of its own, and never where
//! any disk, permit or status names a cluster.

use std::collections::BTreeSet;

use pharos_crds::names::reason;

use super::{Member, Observed, Step};
use crate::admin::{DiskState, Identity};

/// How far a cluster is founded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Founding {
    /// Not all founders have reported.
    Reporting(String),
    /// The permit is to be written.
    Ready,
    /// The permit is written, or members found a cluster.
    UnderWay(String),
    /// The cluster exists.
    Founded(String),
    /// A volume is lost or belongs elsewhere.
    Broken {
        /// Reason of the condition.
        reason: &'static str,
        /// What is wrong.
        message: String,
    },
}

/// How far the cluster is founded, from what the disks say.
#[must_use]
pub fn founding(observed: &Observed) -> Founding {
    let disks: Vec<(&Member, &Identity)> =
        observed.present().filter_map(|member| member.identity.as_ref().map(|disk| (member, disk))).collect();
    let belonging: BTreeSet<&str> = disks
        .iter()
        .filter(|(_, disk)| disk.state == DiskState::Member)
        .filter_map(|(_, disk)| disk.cluster_id.as_deref())
        .collect();
    let expected = observed.permit.as_ref().map(|permit| permit.cluster_id.as_str());
    let expected = expected.or(observed.cluster_id.as_deref()).or_else(|| belonging.first().copied());
    if let Some(broken) = broken_disk(observed, &disks, expected) {
        return broken;
    }
    if let Some(cluster) = expected {
        // A member that does not answer now was founded before, or its volume is not known to be lost.
        let members = disks.iter().filter(|(_, disk)| disk.state == DiskState::Member).count();
        let founders =
            observed.permit.as_ref().map_or(observed.members.len(), |permit| permit.founders.len());
        let answered = disks.len() >= observed.members.len();
        let founds = |(_, disk): &(&Member, &Identity)| {
            disk.state == DiskState::Founding || (disk.state == DiskState::Blank && may_found(observed, disk))
        };
        let was_founded = members > 0 || (observed.cluster_id.is_some() && !disks.iter().any(founds));
        if observed.membership().is_some() || members > founders / 2 || (was_founded && !answered) {
            return Founding::Founded(cluster.to_owned());
        }
        return Founding::UnderWay(format!("{members} of {founders} founders belong to it"));
    }
    if disks.iter().any(|(_, disk)| disk.state == DiskState::Founding) {
        return Founding::UnderWay("members have read a permit".into());
    }
    let volumes: BTreeSet<&str> = disks.iter().map(|(_, disk)| disk.volume.as_str()).collect();
    if disks.len() < observed.members.len() {
        return Founding::Reporting(format!("{} of {} have", disks.len(), observed.members.len()));
    }
    if volumes.len() < disks.len() {
        return Founding::Broken {
            reason: reason::STALE_DISK,
            message: "two members report the same volume: each needs one of its own".into(),
        };
    }
    Founding::Ready
}

/// A disk of another cluster, or nothing but blank ones where the cluster exists already.
fn broken_disk(
    observed: &Observed,
    disks: &[(&Member, &Identity)],
    expected: Option<&str>,
) -> Option<Founding> {
    let cluster = expected?;
    let foreign = disks
        .iter()
        .find(|(_, disk)| disk.state == DiskState::Member && disk.cluster_id.as_deref() != Some(cluster));
    if let Some((member, disk)) = foreign {
        let other = disk.cluster_id.as_deref().unwrap_or("unknown");
        return Some(Founding::Broken {
            reason: reason::STALE_DISK,
            message: format!("the volume of {} belongs to cluster {other}, not to {cluster}", member.pod),
        });
    }
    let lost = |disk: &Identity| {
        matches!(disk.state, DiskState::Blank | DiskState::Joining) && !may_found(observed, disk)
    };
    let all_answer = !disks.is_empty() && disks.len() == observed.members.len();
    (all_answer && disks.iter().all(|(_, disk)| lost(disk))).then(|| Founding::Broken {
        reason: reason::LOST_VOLUME,
        message: format!(
            "no volume holds data, but cluster {cluster} exists: bring the volumes back, declare spec.restore with \
             generation {} to go on from a backup, or delete the Ensemble and apply it again to begin without the data",
            observed.generation().unwrap_or(1) + 1
        ),
    })
}

/// Whether the permit names a volume as a founder's.
fn may_found(observed: &Observed, disk: &Identity) -> bool {
    let founders = observed.permit.as_ref().map_or(&[] as &[_], |permit| permit.founders.as_slice());
    founders.iter().any(|founder| founder.volume == disk.volume)
}

/// Before there is a cluster, as many pods as are wanted found it. Fewer only when those who stay have reported empty
/// volumes: a volume that was kept from before may hold a cluster.
pub(super) fn resize(observed: &Observed) -> Option<Step> {
    let (pods, wanted) = (observed.members.len(), observed.wanted);
    let reported = |member: &Option<Member>| member.as_ref().is_some_and(|one| one.identity.is_some());
    let grows = pods < wanted;
    let shrinks = pods > wanted && observed.members.iter().take(wanted).all(reported);
    let reason = if grows { reason::SCALING_UP } else { reason::SCALING_DOWN };
    (grows || shrinks).then_some(Step::Scale { pods: wanted, reason })
}
