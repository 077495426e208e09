//! Owns the names of what the operator waits for. Must not know when it waits.
//!
//! Invariant: a wait has a name that tools can match and a detail that people can read.

use std::fmt;

use pharos_crds::names::reason;

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
    /// A volume that is to join is not on the leader's list of members yet.
    MembersRegistered,
    /// A member that is to join has not read its permit.
    PermitSeen,
    /// A member that is to vote lacks what was written before.
    LearnersCaughtUp,
    /// A change of voters is under way.
    SwitchCommitted,
    /// Members have no leader.
    LeaderKnown,
    /// The member restarted last has not applied what was committed before.
    MemberCaughtUp,
    /// The disruption budget does not allow it.
    BudgetAllows,
    /// The member that the Ensemble is to go on from does not say that it can, or has.
    SurvivorAnswers,
    /// The backup is not on the new volume yet.
    BackupRestored,
    /// The member on the volume that was filled from the backup has not gone on.
    RestoredAnswers,
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
            Self::MembersRegistered => "members_registered",
            Self::PermitSeen => "permit_seen",
            Self::LearnersCaughtUp => "learners_caught_up",
            Self::SwitchCommitted => "switch_committed",
            Self::LeaderKnown => "leader_known",
            Self::MemberCaughtUp => "member_caught_up",
            Self::BudgetAllows => "budget_allows",
            Self::SurvivorAnswers => "survivor_answers",
            Self::BackupRestored => "backup_restored",
            Self::RestoredAnswers => "restored_answers",
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
            Self::MembersRegistered => "WaitingForRegistration",
            Self::PermitSeen => "WaitingForPermitToBeRead",
            Self::LearnersCaughtUp => "WaitingForLearners",
            Self::SwitchCommitted => "WaitingForSwitch",
            Self::LeaderKnown => "WaitingForLeader",
            Self::MemberCaughtUp => "WaitingForCatchUp",
            Self::BudgetAllows => "WaitingForDisruptionBudget",
            Self::SurvivorAnswers => "WaitingForSurvivor",
            Self::BackupRestored => "WaitingForBackup",
            Self::RestoredAnswers => "WaitingForRestoredMember",
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waiting for {} ({})", self.predicate.name(), self.detail)
    }
}
