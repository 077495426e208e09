//! Owns the decision: what was seen and what is wanted go in, the next safe step comes out. Must not know Kubernetes,
//! HTTP, a clock or what was decided before.
//!
//! Invariant: a step never takes a serving voter down while another one is down, never leaves fewer than a quorum
//! serving, and repeated steps end as soon as members come up again (property tests below prove all three).

use std::collections::BTreeSet;
use std::fmt;

use super::permit::Permit;
use crate::admin::{DiskState, Identity, NodeStatus, Role};
use pharos_crds::names::reason;

/// What was seen of an Ensemble.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Whether the StatefulSet controller has seen the latest template, so that revisions can be compared.
    pub revision_known: bool,
    /// Its members by ordinal, as many as wanted; `None` where there is no pod.
    pub members: Vec<Option<Member>>,
    /// The permit, once written.
    pub permit: Option<Permit>,
    /// The cluster that the status names, from an earlier visit.
    pub cluster_id: Option<String>,
    /// What was noted at the last restart that the operator asked for.
    pub note: Option<RollNote>,
}

/// What was seen of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod.
    pub uid: String,
    /// Whether it was made from the latest template.
    pub up_to_date: bool,
    /// Whether it was asked to go.
    pub terminating: bool,
    /// Whether the kubelet finds it ready.
    pub ready: bool,
    /// Whether it serves clients: its readiness and its own word.
    pub serving: bool,
    /// Whether and how it fails to run.
    pub health: Health,
    /// Why its container does not run or its pod finds no node, for people.
    pub trouble: Option<String>,
    /// What it says about its disk.
    pub identity: Option<Identity>,
    /// What it says about itself.
    pub status: Option<NodeStatus>,
}

/// Whether a pod does what its template says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It was ready at some time since it was made.
    WasReady,
    /// It was never ready since it was made.
    NeverReady,
    /// Its container does not start, or starts and ends again and again.
    Crashed,
}

/// What is noted when a serving pod is asked to go.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RollNote {
    /// The pod.
    pub pod: String,
    /// Its UID at that time.
    pub uid: String,
    /// The leader's commit index at that time.
    pub commit: u64,
}

/// The next safe step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing is left to do.
    Done,
    /// Not now, and why.
    Wait(Wait),
    /// Write the founding permit.
    WritePermit(Permit),
    /// A person must repair something.
    Stall {
        /// Reason of the condition.
        reason: &'static str,
        /// What is wrong and what can be done.
        message: String,
    },
    /// Delete a pod that serves nobody.
    Delete {
        /// The pod.
        pod: String,
        /// Its UID: another pod of this name is left alone.
        uid: String,
        /// Why it may be replaced.
        why: String,
    },
    /// Hand the leadership over, asking the leader.
    Transfer {
        /// Pod of the leader.
        leader: String,
        /// Member that takes over.
        to: i64,
    },
    /// Evict a serving pod.
    Evict(RollNote),
}

/// A named reason not to act now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Its name.
    pub predicate: Predicate,
    /// Whom it is about.
    pub detail: String,
}

/// The names of what the operator waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Predicate {
    /// The StatefulSet controller has not seen the latest template.
    StatefulSetObserved,
    /// A pod does not exist.
    PodExists,
    /// A pod is on its way out.
    PodGone,
    /// A founder has not reported its volume.
    FoundersReport,
    /// Members found the cluster.
    ClusterFounded,
    /// A member does not serve.
    MemberServes,
    /// Members have no leader.
    LeaderKnown,
    /// The member restarted last has not applied what was committed before.
    MemberCaughtUp,
    /// The disruption budget does not allow it.
    BudgetAllows,
}

impl Predicate {
    /// The name as shown in conditions and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::StatefulSetObserved => "statefulset_observed",
            Self::PodExists => "pod_exists",
            Self::PodGone => "pod_gone",
            Self::FoundersReport => "founders_report",
            Self::ClusterFounded => "cluster_founded",
            Self::MemberServes => "member_serves",
            Self::LeaderKnown => "leader_known",
            Self::MemberCaughtUp => "member_caught_up",
            Self::BudgetAllows => "budget_allows",
        }
    }

    /// The name as reason of an Event.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::StatefulSetObserved => "WaitingForStatefulSet",
            Self::PodExists => "WaitingForPod",
            Self::PodGone => "WaitingForPodToGo",
            Self::FoundersReport => reason::WAITING_FOR_FOUNDERS,
            Self::ClusterFounded => reason::FOUNDING,
            Self::MemberServes => "WaitingForMember",
            Self::LeaderKnown => "WaitingForLeader",
            Self::MemberCaughtUp => "WaitingForCatchUp",
            Self::BudgetAllows => "WaitingForDisruptionBudget",
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waiting for {} ({})", self.predicate.name(), self.detail)
    }
}

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

impl Observed {
    /// Members that serve.
    #[must_use]
    pub fn serving(&self) -> usize {
        self.present().filter(|member| member.serves()).count()
    }

    /// The least number that must serve.
    #[must_use]
    pub fn quorum(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// The member that leads, if one says so.
    #[must_use]
    pub fn leader(&self) -> Option<&Member> {
        self.present().find(|member| member.serves() && member.role() == Some(Role::Leader))
    }

    /// Pods there are.
    pub fn present(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().flatten()
    }

    /// Pods that have not read the permit yet: the kubelet is asked to look again.
    #[must_use]
    pub fn unread(&self) -> Vec<String> {
        let Some(permit) = &self.permit else { return Vec::new() };
        let unread = |member: &&Member| {
            let identity = member.identity.as_ref();
            identity.is_some_and(|disk| disk.state == DiskState::Blank && permit.names_volume(&disk.volume))
        };
        self.present().filter(unread).map(|member| member.pod.clone()).collect()
    }
}

impl Member {
    fn serves(&self) -> bool {
        self.serving && !self.terminating
    }

    fn role(&self) -> Option<Role> {
        self.status.as_ref().map(|status| status.role)
    }

    /// Its identity, once it is a member: until then it says 0.
    #[must_use]
    pub fn id(&self) -> Option<i64> {
        self.status.as_ref().and_then(|status| status.member_id).filter(|id| *id > 0)
    }

    fn applied(&self) -> u64 {
        self.status.as_ref().map_or(0, |status| status.applied)
    }
}

/// The next safe step.
#[must_use]
pub fn plan(observed: &Observed, new_permit: impl FnOnce(&[Identity]) -> Permit) -> Step {
    if let Some(step) = replace_broken(observed) {
        return step;
    }
    match founding(observed) {
        Founding::Broken { reason, message } => return Step::Stall { reason, message },
        Founding::Reporting(detail) => return wait(Predicate::FoundersReport, detail),
        Founding::Ready => {
            let identities: Vec<Identity> =
                observed.present().filter_map(|member| member.identity.clone()).collect();
            return Step::WritePermit(new_permit(&identities));
        }
        Founding::UnderWay(detail) => return wait(Predicate::ClusterFounded, detail),
        Founding::Founded(_) => {}
    }
    roll(observed)
}

/// A pod that crashes or was never ready may always be replaced by a newer template: it serves nobody, its disk is
/// durable, and a bad template that was taken back must not stick.
fn replace_broken(observed: &Observed) -> Option<Step> {
    if !observed.revision_known {
        return None;
    }
    let mut outdated =
        observed.present().filter(|member| !member.up_to_date && !member.terminating && !member.serving);
    let broken = outdated.find(|member| member.health != Health::WasReady)?;
    let why = match broken.health {
        Health::Crashed => "its container does not run",
        Health::NeverReady | Health::WasReady => "it was never ready",
    };
    Some(Step::Delete {
        pod: broken.pod.clone(),
        uid: broken.uid.clone(),
        why: format!("{why}, and its template is outdated"),
    })
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
        let founders = disks.iter().filter(|(_, disk)| disk.state == DiskState::Member).count();
        if founders >= observed.quorum() || (founders > 0 && disks.len() < observed.members.len()) {
            return Founding::Founded(cluster.to_owned());
        }
        if disks.is_empty() && observed.cluster_id.is_some() {
            return Founding::Founded(cluster.to_owned());
        }
        return Founding::UnderWay(format!("{founders} of {} members belong to it", observed.members.len()));
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

/// A disk of another cluster, or a blank one where the cluster exists already.
fn broken_disk(
    observed: &Observed,
    disks: &[(&Member, &Identity)],
    expected: Option<&str>,
) -> Option<Founding> {
    for (member, disk) in disks {
        match (disk.state, expected) {
            (DiskState::Member, Some(cluster)) if disk.cluster_id.as_deref() != Some(cluster) => {
                let other = disk.cluster_id.as_deref().unwrap_or("unknown");
                return Some(Founding::Broken {
                    reason: reason::STALE_DISK,
                    message: format!(
                        "the volume of {} belongs to cluster {other}, not to {cluster}",
                        member.pod
                    ),
                });
            }
            (DiskState::Blank, Some(_))
                if observed.permit.as_ref().is_none_or(|permit| !permit.names_volume(&disk.volume)) =>
            {
                return Some(Founding::Broken {
                    reason: reason::LOST_VOLUME,
                    message: format!(
                        "{} has an empty volume, but its cluster exists: replacement of a lost volume is not \
                         supported yet; restore the volume",
                        member.pod
                    ),
                });
            }
            _ => {}
        }
    }
    None
}

fn roll(observed: &Observed) -> Step {
    if let Some(step) = unsettled(observed) {
        return step;
    }
    if observed.present().all(|member| member.up_to_date) {
        return observed.present().find(|member| !member.serves()).map_or(Step::Done, not_serving);
    }
    if let Some(down) = observed.present().find(|member| !member.serves()) {
        return replace_or_await(observed, down);
    }
    let Some(leader) = observed.leader() else {
        return wait(Predicate::LeaderKnown, "no member says that it leads".into());
    };
    if let Some(note) = &observed.note
        && let Some(behind) = observed.present().find(|member| member.applied() < note.commit)
    {
        let detail =
            format!("{} has applied {}, {} was committed", behind.pod, behind.applied(), note.commit);
        return wait(Predicate::MemberCaughtUp, detail);
    }
    let commit = leader.status.as_ref().map_or(0, |status| status.committed);
    let follower = observed.present().find(|member| !member.up_to_date && member.uid != leader.uid);
    match follower {
        Some(follower) => evict(follower, commit),
        None => roll_leader(observed, leader, commit),
    }
}

/// What must settle before anything is judged.
fn unsettled(observed: &Observed) -> Option<Step> {
    if !observed.revision_known {
        return Some(wait(
            Predicate::StatefulSetObserved,
            "its controller has not seen the latest template".into(),
        ));
    }
    if let Some(ordinal) = observed.members.iter().position(Option::is_none) {
        return Some(wait(Predicate::PodExists, format!("ordinal {ordinal}")));
    }
    let leaving = observed.present().find(|member| member.terminating)?;
    Some(wait(Predicate::PodGone, leaving.pod.clone()))
}

/// A member that served and does not now: if its template is outdated and the others are a quorum without it, the
/// newer template may be what it needs; else it waits, for it may merely lack a leader.
fn replace_or_await(observed: &Observed, down: &Member) -> Step {
    // One answer that did not come in time proves nothing: the kubelet, which asks more than once, must find it
    // unready too.
    let stuck = observed.present().find(|member| !member.serves() && !member.ready && !member.up_to_date);
    match stuck {
        Some(stuck) if observed.serving() >= observed.quorum() => Step::Delete {
            pod: stuck.pod.clone(),
            uid: stuck.uid.clone(),
            why: "it does not serve, the others are a quorum, and its template is outdated".into(),
        },
        _ => not_serving(down),
    }
}

fn not_serving(member: &Member) -> Step {
    let role = member.role().map_or("unreachable", Role::as_str);
    let what = member.trouble.as_deref().unwrap_or(role);
    wait(Predicate::MemberServes, format!("{}: {what}", member.pod))
}

fn evict(member: &Member, commit: u64) -> Step {
    Step::Evict(RollNote { pod: member.pod.clone(), uid: member.uid.clone(), commit })
}

fn roll_leader(observed: &Observed, leader: &Member, commit: u64) -> Step {
    let heir =
        observed.present().filter(|member| member.uid != leader.uid).max_by_key(|member| member.applied());
    match heir.and_then(Member::id) {
        Some(to) => Step::Transfer { leader: leader.pod.clone(), to },
        None if observed.members.len() == 1 => evict(leader, commit),
        None => wait(Predicate::LeaderKnown, "no follower says who it is, so none can take over".into()),
    }
}

fn wait(predicate: Predicate, detail: String) -> Step {
    Step::Wait(Wait { predicate, detail })
}

#[cfg(test)]
mod tests;
